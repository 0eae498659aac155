//! TLS with every byte in the attacker's hand: what no honest library would send, and as slowly as it likes.
use super::client::Target;
use core::net::Ipv4Addr;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use rustls::ClientConnection;
use smol::Async;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
};

/// A TLS connection of which nothing is hidden.
pub(crate) struct Raw {
    tcp: Async<TcpStream>,
    tls: ClientConnection,
}

impl Raw {
    /// TCP, and TLS that has said nothing yet.
    pub(crate) async fn connect(target: &Target, from: Ipv4Addr) -> io::Result<Self> {
        let tcp = target.tcp(from).await?;
        let name = shadowmesh_runtime_std::tls::server_name("127.0.0.1").map_err(|_| ErrorKind::InvalidInput)?;
        let tls = ClientConnection::new(target.tls(), name).map_err(io::Error::other)?;
        Ok(Self { tcp, tls })
    }

    /// The `ClientHello`, as it would go out.
    pub(crate) fn hello(&mut self) -> Vec<u8> {
        self.take()
    }

    /// TLS to its end.
    pub(crate) async fn handshake(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            let bytes = self.take();
            self.tcp.write_all(&bytes).await?;
            if self.tls.is_handshaking() {
                self.read().await?;
            }
        }
        let bytes = self.take();
        self.tcp.write_all(&bytes).await
    }

    /// TLS and the upgrade of the connection to a WebSocket.
    pub(crate) async fn upgrade(&mut self) -> io::Result<()> {
        self.handshake().await?;
        self.write(REQUEST).await?;
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            answer.extend(self.read().await?);
        }
        if answer.starts_with(b"HTTP/1.1 101") { Ok(()) } else { Err(ErrorKind::ConnectionRefused.into()) }
    }

    /// Bytes under TLS.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)?;
        let bytes = self.take();
        self.tcp.write_all(&bytes).await
    }

    /// Bytes as they are.
    pub(crate) async fn write_plain(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tcp.write_all(bytes).await
    }

    /// What comes next, opened; an error when nothing will.
    pub(crate) async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut sealed = vec![0; 16 * 1024];
        let len = self.tcp.read(&mut sealed).await?;
        if len == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut rest = &sealed[..len];
        let mut plain = Vec::new();
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
            match self.tls.reader().read_to_end(&mut plain) {
                Err(why) if why.kind() != ErrorKind::WouldBlock => return Err(why),
                _ => {}
            }
        }
        Ok(plain)
    }

    /// Waits until the other end has closed.
    pub(crate) async fn until_closed(&self) {
        let mut bytes = [0; 4096];
        while matches!((&self.tcp).read(&mut bytes).await, Ok(1..)) {}
    }

    fn take(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut bytes).is_err() {
                break;
            }
        }
        bytes
    }
}

/// A good request for a WebSocket.
pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A WebSocket frame of a client; the mask is zero, which is one too. `first` holds the final bit and the kind.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65_536 => {
            frame.push(0xfe);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0xff);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}
