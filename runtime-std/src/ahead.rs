//! Reading ahead of TLS, which asks for 4 KiB at a time: one call to the kernel for eight of its.
use rustix::buffer::spare_capacity;
use std::{
    io::{self, Read},
    os::fd::AsFd,
};

/// Bytes read at once.
const READ_BYTES: usize = 32 * 1024;

/// What was read and not taken yet. Without anything to read it holds no memory, so that idle connections cost none.
#[derive(Debug, Default)]
pub struct ReadAhead {
    bytes: Vec<u8>,
    taken: usize,
}

/// A socket that is read ahead.
pub struct Ahead<'a, S> {
    ahead: &'a mut ReadAhead,
    socket: &'a S,
}

impl ReadAhead {
    /// This socket, read through here.
    pub fn of<'a, S: AsFd>(&'a mut self, socket: &'a S) -> Ahead<'a, S> {
        Ahead { ahead: self, socket }
    }
}

impl<S: AsFd> Read for Ahead<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ReadAhead { bytes, taken } = self.ahead;
        if *taken == bytes.len() {
            bytes.clear();
            *taken = 0;
            bytes.reserve_exact(READ_BYTES);
            let read = rustix::io::retry_on_intr(|| rustix::io::read(self.socket, spare_capacity(bytes)));
            if let Err(why) = read {
                *bytes = Vec::new();
                return Err(why.into());
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
        let sent: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        from.write_all(&sent).expect("room for so much");
        let (mut ahead, mut came, mut buffer) = (ReadAhead::default(), Vec::new(), [0; 4_096]);
        let end = loop {
            match ahead.of(&to).read(&mut buffer) {
                Ok(len) => came.extend_from_slice(&buffer[..len]),
                Err(why) => break why,
            }
        };
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
        assert!(came == sent);
        assert_eq!(ahead.bytes.capacity(), 0);
        drop(from);
        assert_eq!(ahead.of(&to).read(&mut buffer).expect("the end"), 0);
    }
}
