//! What a proxy says before TLS about a connection that it passes on (protocol 9.5): read to its last byte and no further into TLS than
//! one look took.
use rustix::buffer::spare_capacity;
use shadowmesh_core::wire::{PROXY_HEADER_MAX_LEN, ProxyFault, parse_proxy_header};
use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    os::fd::AsFd,
};

/// A header that is coming.
#[derive(Debug, Default)]
pub struct Announcement(Vec<u8>);

/// A header that has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard {
    /// From where the connection comes; `None`: from the proxy itself, or it does not know.
    pub from: Option<SocketAddr>,
    /// What came behind it already: the beginning of TLS.
    pub rest: Vec<u8>,
}

impl Announcement {
    /// Reads on, from a socket that does not block.
    ///
    /// # Errors
    /// `WouldBlock` until it is all there; a [`ProxyFault`] when it is none; what the socket says.
    pub fn read(&mut self, socket: impl AsFd) -> io::Result<Heard> {
        loop {
            self.0.reserve_exact(PROXY_HEADER_MAX_LEN - self.0.len());
            if rustix::io::retry_on_intr(|| rustix::io::read(&socket, spare_capacity(&mut self.0)))? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            match parse_proxy_header(&self.0) {
                Ok(Some(announced)) => {
                    let rest = self.0.split_off(announced.len);
                    return Ok(Heard { from: announced.from, rest });
                }
                Ok(None) if self.0.len() < PROXY_HEADER_MAX_LEN => {}
                Ok(None) => return Err(wrong(ProxyFault::TooLong)),
                Err(why) => return Err(wrong(why)),
            }
        }
    }
}

/// A fault as an error of its connection.
pub(crate) fn wrong(why: ProxyFault) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::unix::net::UnixStream};

    #[test]
    fn a_header_that_comes_in_pieces_is_read_to_its_end_and_the_rest_is_kept() {
        let (mut from, to) = UnixStream::pair().expect("a pair");
        to.set_nonblocking(true).expect("a socket");
        let mut announcement = Announcement::default();
        let blocked = |read: io::Result<Heard>| read.expect_err("more must come").kind() == ErrorKind::WouldBlock;
        assert!(blocked(announcement.read(&to)));
        from.write_all(b"PROXY TCP4 192.0.2.7 198.51.").expect("written");
        assert!(blocked(announcement.read(&to)));
        from.write_all(b"100.1 41022 443\r\n\x16\x03\x01").expect("written");
        let heard = announcement.read(&to).expect("whole");
        assert_eq!(heard, Heard { from: Some(([192, 0, 2, 7], 41022).into()), rest: vec![0x16, 3, 1] });
    }

    #[test]
    fn what_is_none_is_an_error_that_says_so() {
        for (bytes, part) in [(&b"\x16\x03\x01"[..], "sent no PROXY header"), (b"PROXY TCP9 \r\n", "family"), (b"", "")] {
            let (mut from, to) = UnixStream::pair().expect("a pair");
            from.write_all(bytes).expect("written");
            drop(from);
            let why = Announcement::default().read(&to).expect_err("none");
            let fault = why.get_ref().and_then(|inner| inner.downcast_ref::<ProxyFault>());
            assert_eq!(fault.is_some(), !bytes.is_empty());
            assert!(why.to_string().contains(part), "{why}");
        }
    }
}
