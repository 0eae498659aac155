//! A connection whose upgrade is done: TLS and frames on a socket that does not block. Both runtimes carry connections by it; they
//! differ only in how they wait for the socket.
use super::{
    BATCH_BYTES,
    frames::{Head, Incoming, Item, Kind, Side},
};
use crate::{ahead::ReadAhead, entropy, tls};
use rustls::Connection;
use shadowmesh_core::event::Ended;
use std::{
    io::{self, BufRead, ErrorKind, IoSlice, Write},
    net::TcpStream,
};

/// Frames shorter than this share a record of TLS: each record costs 22 bytes and a cipher's beginning and end.
const SHARED_BYTES: usize = 4 * 1024;

/// Bytes of frames that make a record.
const RECORD_BYTES: usize = 12 * 1024;

/// What is kept for the next short frames; an idle connection holds no more.
const KEPT_BYTES: usize = 512;

/// A connection without its socket.
pub struct Channel {
    tls: Connection,
    ahead: ReadAhead,
    incoming: Incoming,
    masks: Masks,
    /// Short frames that are not sealed yet.
    short: Vec<u8>,
    /// The answer to the newest ping, while what was sealed before waits for room (RFC 6455 §5.5.3: older ones need none).
    pong: Option<Vec<u8>>,
    /// Bytes of messages of which the kernel has not taken all yet.
    in_hand: usize,
    /// A close frame is the last that will be written.
    closing: bool,
}

/// What reading came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// A message.
    Message(Vec<u8>),
    /// It is the turn of others, and there may be more.
    Later,
    /// The kernel has no more for now, and will tell.
    Nothing,
}

/// What a flush came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// There was nothing in hand.
    Nothing,
    /// The kernel has all messages, of so many bytes.
    Messages(usize),
    /// The kernel has the good-bye: all is said.
    Goodbye,
    /// The kernel has no room now.
    Blocked,
}

impl Channel {
    /// What TLS and the reading ahead of it have come to when the upgrade is done.
    pub fn new(mut tls: Connection, mut ahead: ReadAhead) -> Self {
        let side = match tls {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        };
        // who writes looks at `is_full`
        tls.set_buffer_limit(None);
        ahead.handshake_is_over();
        Self {
            tls,
            ahead,
            incoming: Incoming::new(side),
            masks: Masks::new(side),
            short: Vec::new(),
            pong: None,
            in_hand: 0,
            closing: false,
        }
    }

    /// The next message, or why there is none now.
    ///
    /// # Errors
    /// Why there will be no more.
    pub fn read(&mut self, tcp: &TcpStream) -> Result<Came, Ended> {
        loop {
            let mut reader = self.tls.reader();
            let (used, item) = match reader.fill_buf() {
                Ok([]) => return Err(Ended::ByPeer),
                Ok(bytes) => self.incoming.take(bytes)?,
                Err(why) if why.kind() == ErrorKind::WouldBlock => match self.pull(tcp) {
                    Ok(()) => continue,
                    Err(why) if why.kind() == ErrorKind::WouldBlock => {
                        return Ok(if self.ahead.turn_is_over() { Came::Later } else { Came::Nothing });
                    }
                    Err(why) => return Err(tls::ended(&why)),
                },
                Err(why) => return Err(tls::ended(&why)),
            };
            reader.consume(used);
            match item {
                Some(Item::Message(message)) => return Ok(Came::Message(message)),
                Some(Item::Close) => return Err(Ended::ByPeer),
                // A ping costs an answer of its own, so it is a turn of its own.
                Some(Item::Ping(content)) => {
                    self.pong = Some(content);
                    blocked_is_fine(self.push(tcp))?;
                    return Ok(Came::Later);
                }
                Some(Item::Pong) => return Ok(Came::Later),
                None => {}
            }
        }
    }

    /// Whether what is in hand goes to the kernel before more is taken.
    pub fn is_full(&self) -> bool {
        self.closing || self.in_hand >= BATCH_BYTES
    }

    /// Whether the kernel has all messages.
    pub fn is_empty(&self) -> bool {
        self.in_hand == 0
    }

    /// Takes a message; `flush` says when the kernel has it.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub fn send(&mut self, message: Vec<u8>) -> Result<(), Ended> {
        self.in_hand += message.len();
        self.put(Kind::Message, message)
    }

    /// Says good-bye behind what was sent; `flush` says when the kernel has it.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub fn say_goodbye(&mut self) -> Result<(), Ended> {
        if !core::mem::replace(&mut self.closing, true) {
            self.put(Kind::Close, Vec::new())?;
            self.seal_short()?;
            self.tls.send_close_notify();
        }
        Ok(())
    }

    /// Hands to the kernel what is in hand, and what WebSocket and TLS have to say of their own.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub fn flush(&mut self, tcp: &TcpStream) -> Result<Flushed, Ended> {
        self.seal_short()?;
        match self.push(tcp) {
            Err(why) if why.kind() == ErrorKind::WouldBlock => Ok(Flushed::Blocked),
            Err(why) => Err(tls::ended(&why)),
            Ok(()) if self.closing => Ok(Flushed::Goodbye),
            Ok(()) => {
                let len = core::mem::take(&mut self.in_hand);
                Ok(if len == 0 { Flushed::Nothing } else { Flushed::Messages(len) })
            }
        }
    }

    /// Takes a frame: a message of at most 16 KiB less its header is one record of TLS, short ones are gathered.
    fn put(&mut self, kind: Kind, mut content: Vec<u8>) -> Result<(), Ended> {
        let head = Head::of(kind, &mut content, self.masks.next());
        if content.len() < SHARED_BYTES {
            self.short.extend_from_slice(head.as_bytes());
            self.short.extend_from_slice(&content);
            return if self.short.len() < RECORD_BYTES { Ok(()) } else { self.seal_short() };
        }
        self.seal_short()?;
        self.seal(head.as_bytes(), &content)
    }

    /// Seals the short frames that were gathered.
    fn seal_short(&mut self) -> Result<(), Ended> {
        if self.short.is_empty() {
            return Ok(());
        }
        let mut short = core::mem::take(&mut self.short);
        self.seal(&short, &[])?;
        short.clear();
        if short.capacity() <= KEPT_BYTES {
            self.short = short;
        }
        Ok(())
    }

    fn seal(&mut self, mut head: &[u8], mut content: &[u8]) -> Result<(), Ended> {
        let mut writer = self.tls.writer();
        while !head.is_empty() || !content.is_empty() {
            let taken = writer.write_vectored(&[IoSlice::new(head), IoSlice::new(content)]).map_err(|why| tls::ended(&why))?;
            if taken == 0 {
                return Err(Ended::Local("TLS takes no more".to_owned()));
            }
            let of_head = taken.min(head.len());
            (head, content) = (&head[of_head..], &content[taken - of_head..]);
        }
        Ok(())
    }

    /// Reads from the socket into TLS once.
    fn pull(&mut self, tcp: &TcpStream) -> io::Result<()> {
        let len = self.tls.read_tls(&mut self.ahead.of(tcp))?;
        if let Err(why) = self.tls.process_new_packets() {
            // The alert that says why; the other end may be gone already.
            let _ = self.push(tcp);
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        // the end of TCP without one of TLS
        if len == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Writes what TLS has ready, and then the answer to a ping; `WouldBlock` when some of it is left.
    fn push(&mut self, tcp: &TcpStream) -> io::Result<()> {
        loop {
            while self.tls.wants_write() {
                if self.tls.write_tls(&mut &*tcp)? == 0 {
                    return Err(ErrorKind::WriteZero.into());
                }
            }
            let Some(content) = self.pong.take().filter(|_| !self.closing) else { return Ok(()) };
            let sealed = self.put(Kind::Pong, content).and_then(|()| self.seal_short());
            sealed.map_err(|why| io::Error::other(why.to_string()))?;
        }
    }
}

/// What the socket does not take at once stays in the buffers of TLS, and goes out with a flush.
fn blocked_is_fine(written: io::Result<()>) -> Result<(), Ended> {
    match written {
        Err(why) if why.kind() == ErrorKind::WouldBlock => Ok(()),
        other => other.map_err(|why| tls::ended(&why)),
    }
}

/// Keys to mask with, for a client: each from the system's generator (RFC 6455 §5.3), drawn eight at a time.
struct Masks {
    side: Side,
    pool: [u8; 32],
    left: usize,
}

impl Masks {
    fn new(side: Side) -> Self {
        Self { side, pool: [0; 32], left: 0 }
    }

    fn next(&mut self) -> Option<[u8; 4]> {
        if self.side == Side::Server {
            return None;
        }
        if self.left == 0 {
            (self.pool, self.left) = (entropy::fresh(), self.pool.len() / 4);
        }
        self.left -= 1;
        self.pool.as_chunks::<4>().0.get(self.left).copied()
    }
}

#[cfg(test)]
mod tests;
