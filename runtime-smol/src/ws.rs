//! WebSocket over TLS 1.3 over TCP: one whole binary message in, one out (protocol 6, 9).
//!
//! ```text
//!   dial   ─▶ TCP ─▶ TLS (pin) ─▶ upgrade ─┬─▶ Reader::next ─▶ message
//!   accept ─▶ TCP ─▶ TLS ───────▶ upgrade ─┴─▶ Writer::send ◀─ message
//! ```
mod ahead;

use ahead::Ahead;
use async_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};
use core::net::SocketAddr;
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use rustls::{ClientConfig, Connection, ServerConfig};
use shadowmesh_core::event::{Ended, TlsFacts};
pub use shadowmesh_runtime_std::ws::MESSAGE_BYTES;
use shadowmesh_runtime_std::{
    ahead::ReadAhead,
    tls,
    ws::{
        channel::{Came, Channel, Flushed},
        ended, limits, prepare,
    },
};
use smol::{Async, future};
use std::{
    net::TcpStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

type Stream = TlsStream<Ahead>;

/// Both halves.
struct Socket {
    /// Held for a step that never waits.
    channel: Mutex<Channel>,
    tcp: Async<TcpStream>,
}

impl Socket {
    fn channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The half that gives messages.
pub struct Reader(Arc<Socket>);

/// The half that takes messages.
pub struct Writer(Arc<Socket>);

/// A connection with TLS and WebSocket done.
pub struct Connected {
    /// Gives messages.
    pub reader: Reader,
    /// Takes messages.
    pub writer: Writer,
    /// This end's address.
    pub local: SocketAddr,
    /// The other end's address.
    pub remote: SocketAddr,
}

/// Makes a client's connection out of a TCP one.
///
/// # Errors
/// Why it came to nothing: TLS, the pin, or a server that speaks no WebSocket.
pub async fn client(tcp: Async<TcpStream>, config: Arc<ClientConfig>, host: &str, url: &str) -> Result<(Connected, TlsFacts), Ended> {
    let (local, remote) = prepare(tcp.get_ref())?;
    let name = tls::server_name(host)?;
    let stream = TlsConnector::from(config).connect(name, Ahead::new(tcp)).await.map_err(|e| tls::ended(&e))?;
    let facts = tls::client_facts(stream.get_ref().1)?;
    let upgrade = client_async_with_config(url, TlsStream::Client(stream), Some(limits()));
    let (socket, _response) = upgrade.await.map_err(|e| tls::not_upgraded(ended(&e), &facts))?;
    // a server says nothing before its client has: the library holds nothing back
    Ok((Connected::new(socket, local, remote), facts))
}

/// Makes a server's connection out of a TCP one; also gives the TLS exporter.
///
/// # Errors
/// Why it came to nothing.
pub async fn server(tcp: Async<TcpStream>, config: Arc<ServerConfig>) -> Result<(Connected, [u8; 32]), Ended> {
    server_after(tcp, ReadAhead::of_handshake(), config).await
}

/// The same for one of which something was read already.
///
/// # Errors
/// Why it came to nothing.
pub async fn server_after(tcp: Async<TcpStream>, ahead: ReadAhead, config: Arc<ServerConfig>) -> Result<(Connected, [u8; 32]), Ended> {
    let (local, remote) = prepare(tcp.get_ref())?;
    let stream = TlsAcceptor::from(config).accept(Ahead::accepting(tcp, ahead)).await.map_err(|e| tls::ended(&e))?;
    let exporter = tls::server_exporter(stream.get_ref().1)?;
    let socket = accept_async_with_config(TlsStream::Server(stream), Some(limits())).await.map_err(|e| ended(&e))?;
    Ok((Connected::new(socket, local, remote), exporter))
}

impl Connected {
    /// The upgrade is done: messages cross it now.
    fn new(socket: WebSocketStream<Stream>, local: SocketAddr, remote: SocketAddr) -> Self {
        let (ahead, tls) = match socket.into_inner() {
            TlsStream::Client(stream) => {
                let (ahead, tls) = stream.into_inner();
                (ahead, Connection::Client(tls))
            }
            TlsStream::Server(stream) => {
                let (ahead, tls) = stream.into_inner();
                (ahead, Connection::Server(tls))
            }
        };
        let (tcp, ahead) = ahead.into_parts();
        let socket = Arc::new(Socket { channel: Mutex::new(Channel::new(tls, ahead)), tcp });
        Self { reader: Reader(Arc::clone(&socket)), writer: Writer(socket), local, remote }
    }
}

impl Reader {
    /// The next binary message.
    ///
    /// # Errors
    /// Why there will be no more.
    pub async fn next(&mut self) -> Result<Vec<u8>, Ended> {
        let Self(socket) = self;
        loop {
            let came = socket.channel().read(socket.tcp.get_ref())?;
            match came {
                Came::Message(message) => return Ok(message),
                Came::Later => future::yield_now().await,
                Came::Nothing => socket.tcp.readable().await.map_err(|e| tls::ended(&e))?,
            }
        }
    }
}

impl Writer {
    /// Hands one binary message to the kernel, waiting for room.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub async fn send(&mut self, message: Vec<u8>) -> Result<(), Ended> {
        self.feed(message)?;
        self.flush().await.map(|_| ())
    }

    /// Takes one binary message; [`Writer::flush`] hands it to the kernel.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub fn feed(&mut self, message: Vec<u8>) -> Result<(), Ended> {
        self.0.channel().send(message)
    }

    /// Whether what it took goes to the kernel before it takes more.
    pub fn is_full(&self) -> bool {
        self.0.channel().is_full()
    }

    /// Whether the kernel has all that it took.
    pub fn is_empty(&self) -> bool {
        self.0.channel().is_empty()
    }

    /// Hands all to the kernel, waiting for room; gives how many bytes of messages that were.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub async fn flush(&mut self) -> Result<usize, Ended> {
        let Self(socket) = self;
        loop {
            let flushed = socket.channel().flush(socket.tcp.get_ref())?;
            match flushed {
                Flushed::Blocked => socket.tcp.writable().await.map_err(|e| tls::ended(&e))?,
                Flushed::Messages(len) => return Ok(len),
                Flushed::Nothing | Flushed::Goodbye => return Ok(0),
            }
        }
    }

    /// Says good-bye: a close frame behind what was sent.
    pub async fn close(&mut self) {
        let said = self.0.channel().say_goodbye();
        if said.is_ok() {
            // The other end may be gone already: then there is nobody to say it to.
            let _ = self.flush().await;
        }
    }
}
