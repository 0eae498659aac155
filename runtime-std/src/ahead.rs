//! Reading ahead of TLS, which asks for 4 KiB at a time: one call to the kernel for eight of its.
//!
//! Here is also where a connection's turn ends. What comes may be anything: pings, pieces of a message that never ends, records of
//! TLS without content. The layers above loop over such things for as long as there are bytes, so bytes are what a turn is made of.
use crate::announced;
use rustix::buffer::spare_capacity;
use shadowmesh_core::wire::{ProxyFault, is_proxy_header};
use std::{
    io::{self, ErrorKind, Read},
    os::fd::AsFd,
};

/// Bytes read at once.
const READ_BYTES: usize = 32 * 1024;

/// Bytes of one connection before others get their turn: four messages of a relay, or ten thousand pieces of nothing (0.5 ms).
pub const TURN_BYTES: usize = 64 * 1024;

/// Bytes that TLS and the upgrade of one connection may take: about ten times what they need (protocol 9.4).
pub const HANDSHAKE_BYTES: usize = 32 * 1024;

/// What was read and not taken yet. Without anything to read it holds no memory, so that idle connections cost none.
#[derive(Debug)]
pub struct ReadAhead {
    bytes: Vec<u8>,
    taken: usize,
    /// Bytes until the turn is over.
    left: usize,
    /// The last `WouldBlock` was not the kernel's word: the turn was over.
    over: bool,
    /// Before the upgrade: bytes that may still come.
    most: Option<usize>,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self { bytes: Vec::new(), taken: 0, left: TURN_BYTES, over: false, most: None }
    }
}

/// A socket that is read ahead.
pub struct Ahead<'a, S> {
    ahead: &'a mut ReadAhead,
    socket: &'a S,
}

impl ReadAhead {
    /// For a connection that somebody else began: at most `HANDSHAKE_BYTES` until `handshake_is_over`.
    pub fn of_handshake() -> Self {
        Self { most: Some(HANDSHAKE_BYTES), ..Self::default() }
    }

    /// The same for one of which so much has come already.
    pub fn of_handshake_after(bytes: Vec<u8>) -> Self {
        Self { most: Some(HANDSHAKE_BYTES.saturating_sub(bytes.len())), bytes, ..Self::default() }
    }

    /// From now on any number of bytes may come.
    pub fn handshake_is_over(&mut self) {
        self.most = None;
    }

    /// This socket, read through here.
    pub fn of<'a, S: AsFd>(&'a mut self, socket: &'a S) -> Ahead<'a, S> {
        Ahead { ahead: self, socket }
    }

    /// Whether the last `WouldBlock` ended a turn though the kernel may have more: then nobody will tell when to go on, and whoever
    /// reads comes back when others have had theirs. Says so once.
    pub fn turn_is_over(&mut self) -> bool {
        core::mem::take(&mut self.over)
    }
}

impl<S: AsFd> Read for Ahead<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ReadAhead { bytes, taken, left, over, most } = self.ahead;
        if *taken == bytes.len() {
            bytes.clear();
            *taken = 0;
            if *left == 0 {
                *left = TURN_BYTES;
                *over = true;
                return Err(ErrorKind::WouldBlock.into());
            }
            if *most == Some(0) {
                return Err(io::Error::new(ErrorKind::InvalidData, "more bytes than TLS and the upgrade need"));
            }
            bytes.reserve_exact(READ_BYTES);
            match rustix::io::retry_on_intr(|| rustix::io::read(self.socket, spare_capacity(bytes))) {
                // protocol 9.5: who may say so has said it before
                Ok(_) if *most == Some(HANDSHAKE_BYTES) && is_proxy_header(bytes) => return Err(announced::wrong(ProxyFault::Untrusted)),
                Ok(read) => {
                    *left = left.saturating_sub(read);
                    *most = most.map(|most| most.saturating_sub(read));
                }
                Err(why) => {
                    *bytes = Vec::new();
                    *left = TURN_BYTES;
                    return Err(why.into());
                }
            }
        }
        let len = (&bytes[*taken..]).read(buffer)?;
        *taken += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::unix::net::UnixStream};

    #[test]
    fn all_comes_in_order_and_an_empty_socket_holds_no_memory() {
        let (mut from, to) = UnixStream::pair().expect("a pair");
        to.set_nonblocking(true).expect("a socket");
        let sent: Vec<u8> = (0..60_000_u32).map(|i| (i % 251) as u8).collect();
        from.write_all(&sent).expect("room for so much");
        let (mut ahead, mut came) = (ReadAhead::default(), Vec::new());
        let end = until_it_would_block(&mut ahead, &to, &mut came);
        assert_eq!((end, ahead.turn_is_over()), (ErrorKind::WouldBlock, false), "the kernel has no more");
        assert!(came == sent);
        assert_eq!(ahead.bytes.capacity(), 0);
        drop(from);
        assert_eq!(ahead.of(&to).read(&mut [0; 4_096]).expect("the end"), 0);
    }

    #[test]
    fn a_turn_ends_though_there_is_more_and_says_so_once() {
        let (mut from, to) = UnixStream::pair().expect("a pair");
        to.set_nonblocking(true).expect("a socket");
        let (mut ahead, mut turns, mut came) = (ReadAhead::default(), Vec::new(), Vec::new());
        let writer = std::thread::spawn(move || from.write_all(&vec![7; 3 * TURN_BYTES]));
        while came.len() < 3 * TURN_BYTES {
            let before = came.len();
            assert_eq!(until_it_would_block(&mut ahead, &to, &mut came), ErrorKind::WouldBlock);
            if ahead.turn_is_over() {
                turns.push(came.len() - before);
            }
            assert!(!ahead.turn_is_over() && came.len() - before <= TURN_BYTES + READ_BYTES);
        }
        writer.join().expect("it writes").expect("all of it");
        assert!(turns.iter().all(|turn| *turn >= TURN_BYTES - READ_BYTES), "{turns:?}");
    }

    // protocol 9.4
    #[test]
    fn a_handshake_takes_so_many_bytes_and_no_more() {
        let (mut from, to) = UnixStream::pair().expect("a pair");
        to.set_nonblocking(true).expect("a socket");
        from.write_all(&vec![7; 2 * HANDSHAKE_BYTES]).expect("room for so much");
        let (mut ahead, mut came) = (ReadAhead::of_handshake(), Vec::new());
        assert_eq!(until_it_would_block(&mut ahead, &to, &mut came), ErrorKind::InvalidData);
        assert!((HANDSHAKE_BYTES..HANDSHAKE_BYTES + READ_BYTES).contains(&came.len()), "{}", came.len());
        ahead.handshake_is_over();
        assert_eq!(until_it_would_block(&mut ahead, &to, &mut came), ErrorKind::WouldBlock);
        assert_eq!(came.len(), 2 * HANDSHAKE_BYTES);
    }

    fn until_it_would_block(ahead: &mut ReadAhead, socket: &UnixStream, came: &mut Vec<u8>) -> ErrorKind {
        let mut buffer = [0; 4_096];
        loop {
            match ahead.of(socket).read(&mut buffer) {
                Ok(len) => came.extend_from_slice(&buffer[..len]),
                Err(why) => return why.kind(),
            }
        }
    }
}
