//! One connection: a WebSocket whose socket does not block, and what the kernel said about it last.
use super::handshake::Socket;
use crate::ws;
use shadowmesh_core::event::Ended;
use std::io::ErrorKind;
use tungstenite::{Error, Message};

/// How writing stands.
#[derive(Clone, Copy)]
pub(crate) struct Writing {
    /// The kernel has not said that it would block.
    pub(crate) ready: bool,
    /// It stands in the list of those to be written.
    pub(crate) listed: bool,
    /// It takes what is in hand before it gets more.
    blocked: bool,
}

/// A connection with both directions.
pub(crate) struct Conn {
    socket: Socket,
    /// It stands in the list of those to be read.
    pub(crate) to_read: bool,
    pub(crate) write: Writing,
    /// What its last message cost beyond its turn, in messages.
    pub(crate) owed: usize,
    /// Hung up: nothing more is read.
    pub(crate) deaf: bool,
    /// Bytes of messages of which the kernel has not taken all yet.
    in_hand: usize,
    /// A close frame is the last that will be written.
    closing: bool,
}

impl Conn {
    /// A connection of which nothing is known: both directions are tried first, and so stand in their lists.
    pub(crate) fn new(socket: Socket) -> Self {
        let write = Writing { ready: true, listed: true, blocked: false };
        Self { socket, to_read: true, write, owed: 0, deaf: false, in_hand: 0, closing: false }
    }

    /// The next binary message, or why there is none now.
    ///
    /// # Errors
    /// Why there will be no more.
    pub(crate) fn read(&mut self) -> Result<Came, Ended> {
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => Ok(Came::Message(Vec::from(bytes))),
            // A ping costs an answer of its own, so it is a turn of its own.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(Came::Later),
            Ok(Message::Text(_)) => Err(Ended::WebSocket("a text message came".to_owned())),
            Ok(Message::Close(_)) => Err(Ended::ByPeer),
            Err(Error::Io(why)) if why.kind() == ErrorKind::WouldBlock => {
                Ok(if self.socket.get_mut().turn_is_over() { Came::Later } else { Came::Nothing })
            }
            Err(why) => Err(ws::ended(&why)),
        }
    }

    /// Whether what is in hand goes to the kernel before more is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.write.blocked || self.closing || self.in_hand >= ws::BATCH_BYTES
    }

    /// Takes a message; `flush` says when the kernel has it.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub(crate) fn send(&mut self, message: Vec<u8>) -> Result<(), Ended> {
        self.in_hand += message.len();
        blocked_is_fine(self.socket.write(Message::Binary(message.into())))
    }

    /// Says good-bye behind what was sent; `flush` says when the kernel has it.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub(crate) fn say_goodbye(&mut self) -> Result<(), Ended> {
        self.closing = true;
        blocked_is_fine(self.socket.close(None))
    }

    /// Hands to the kernel what is in hand, and what WebSocket and TLS have to say of their own.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub(crate) fn flush(&mut self) -> Result<Flushed, Ended> {
        match self.socket.flush() {
            Err(Error::Io(why)) if why.kind() == ErrorKind::WouldBlock => {
                self.write.ready = false;
                self.write.blocked = true;
                Ok(Flushed::Blocked)
            }
            Ok(()) if self.closing => Ok(Flushed::Goodbye),
            Ok(()) => {
                self.write.blocked = false;
                let len = core::mem::take(&mut self.in_hand);
                Ok(if len == 0 { Flushed::Nothing } else { Flushed::Messages(len) })
            }
            Err(why) => Err(ws::ended(&why)),
        }
    }
}

/// What reading came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// A message.
    Message(Vec<u8>),
    /// It is the turn of others, and there may be more.
    Later,
    /// The kernel has no more for now, and will tell.
    Nothing,
}

/// What a flush came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// There was nothing in hand.
    Nothing,
    /// The kernel has all messages, of so many bytes.
    Messages(usize),
    /// The kernel has the good-bye: all is said.
    Goodbye,
    /// The kernel has no room now.
    Blocked,
}

/// What the socket does not take at once stays in the buffers of WebSocket and TLS, and goes out with a flush.
fn blocked_is_fine(written: Result<(), Error>) -> Result<(), Ended> {
    match written {
        Err(Error::Io(why)) if why.kind() == ErrorKind::WouldBlock => Ok(()),
        other => other.map_err(|why| ws::ended(&why)),
    }
}
