//! TLS over a socket that does not block. Reading never waits for room to write, or two ends that both have much to say would
//! wait for each other for ever.
use crate::{ahead::ReadAhead, ws::channel::Channel};
use rustls::{Connection, ServerConnection};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    os::fd::{AsFd, BorrowedFd},
};

/// A TLS connection and its socket.
pub(crate) struct TlsStream {
    tls: Connection,
    tcp: TcpStream,
    ahead: ReadAhead,
}

impl TlsStream {
    /// TLS on a socket that does not block.
    pub(crate) fn new(tls: Connection, tcp: TcpStream) -> Self {
        Self { tls, tcp, ahead: ReadAhead::default() }
    }

    /// A server's TLS: until `upgraded` it takes no more bytes than that needs, those that came before included.
    pub(crate) fn accepting(tls: ServerConnection, tcp: TcpStream, ahead: ReadAhead) -> Self {
        Self { tls: Connection::Server(tls), tcp, ahead }
    }

    /// The WebSocket stands: messages cross it now.
    pub(crate) fn upgraded(self) -> (Channel, TcpStream) {
        (Channel::new(self.tls, self.ahead), self.tcp)
    }

    /// The state of TLS.
    pub(crate) fn tls(&self) -> &Connection {
        &self.tls
    }

    /// Goes on with the TLS handshake; `Ok` when it is done.
    pub(crate) fn handshake(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            let pushed = self.push();
            if self.tls.wants_read() {
                if self.pull()? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            } else {
                pushed?;
            }
        }
        self.push()
    }

    /// Reads from the socket into TLS once; 0 at its end.
    fn pull(&mut self) -> io::Result<usize> {
        let len = self.tls.read_tls(&mut self.ahead.of(&self.tcp))?;
        if let Err(why) = self.tls.process_new_packets() {
            // The alert that says why; the other end may be gone already.
            let _ = self.push();
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        Ok(len)
    }

    /// Writes what TLS has ready; `WouldBlock` when some of it is left.
    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.tcp)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(why) if why.kind() == ErrorKind::WouldBlock => self.pull()?,
                done => return done,
            };
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            let taken = self.tls.writer().write(buffer)?;
            let pushed = self.push();
            if taken > 0 || buffer.is_empty() {
                return Ok(taken); // an error of the socket shows at the next call
            }
            pushed?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl AsFd for TlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}
