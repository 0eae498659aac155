//! WebSocket over TLS 1.3 over TCP: one whole binary message in, one out (protocol 6, 9).
//!
//! ```text
//!   dial   ─▶ TCP ─▶ TLS (pin) ─▶ upgrade ─┬─▶ Reader::next ─▶ message
//!   accept ─▶ TCP ─▶ TLS ───────▶ upgrade ─┴─▶ Writer::send ◀─ message
//! ```
use async_tungstenite::{
    WebSocketReceiver, WebSocketSender, WebSocketStream, accept_async_with_config, client_async_with_config,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};
use core::{net::SocketAddr, time::Duration};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use rustls::{ClientConfig, ServerConfig};
use shadowmesh_core::event::{Ended, TlsFacts};
use shadowmesh_runtime_std::tls;
use smol::{Async, stream::StreamExt};
use std::{net::TcpStream, sync::Arc};

/// Longest message in bytes: what a relay batches is at most 64 KiB, with room for one more record (protocol 9).
pub const MESSAGE_BYTES: usize = 64 * 1024 + 9_216 + 8;

/// Bytes that the kernel may hold unsent: enough to keep a path full, little enough that a switch finds no long queue behind it.
const UNSENT_BYTES: u32 = 64 * 1024;

/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);

/// Bytes read from TLS at once.
const READ_BUFFER_BYTES: usize = 32 * 1024;

type Stream = TlsStream<Async<TcpStream>>;

/// The half that gives messages.
pub struct Reader(WebSocketReceiver<Stream>);

/// The half that takes messages.
pub struct Writer(WebSocketSender<Stream>);

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
    let (local, remote) = prepare(&tcp)?;
    let name = tls::server_name(host)?;
    let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| tls::ended(&e))?;
    let facts = tls::client_facts(stream.get_ref().1)?;
    let (socket, _response) = client_async_with_config(url, TlsStream::Client(stream), Some(limits())).await.map_err(|e| ended(&e))?;
    Ok((Connected::new(socket, local, remote), facts))
}

/// Makes a server's connection out of a TCP one; also gives the TLS exporter.
///
/// # Errors
/// Why it came to nothing.
pub async fn server(tcp: Async<TcpStream>, config: Arc<ServerConfig>) -> Result<(Connected, [u8; 32]), Ended> {
    let (local, remote) = prepare(&tcp)?;
    let stream = TlsAcceptor::from(config).accept(tcp).await.map_err(|e| tls::ended(&e))?;
    let exporter = tls::server_exporter(stream.get_ref().1)?;
    let socket = accept_async_with_config(TlsStream::Server(stream), Some(limits())).await.map_err(|e| ended(&e))?;
    Ok((Connected::new(socket, local, remote), exporter))
}

impl Connected {
    fn new(socket: WebSocketStream<Stream>, local: SocketAddr, remote: SocketAddr) -> Self {
        let (sender, receiver) = socket.split();
        Self { reader: Reader(receiver), writer: Writer(sender), local, remote }
    }
}

impl Reader {
    /// The next binary message.
    ///
    /// # Errors
    /// Why there will be no more.
    pub async fn next(&mut self) -> Result<Vec<u8>, Ended> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(Vec::from(bytes)),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Err(Ended::WebSocket("a text message came".to_owned()));
                }
                Some(Ok(Message::Close(_))) | None => return Err(Ended::ByPeer),
                Some(Err(error)) => return Err(ended(&error)),
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
        self.0.send(Message::Binary(message.into())).await.map_err(|e| ended(&e))
    }

    /// Says good-bye: a close frame behind what was sent.
    pub async fn close(&mut self) {
        // The other end may be gone already: then there is nobody to say it to.
        let _ = self.0.close(None).await;
    }
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MESSAGE_BYTES)
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES))
}

/// Sets the socket's options; gives both addresses, IPv4 ones as such even on a socket of both families.
fn prepare(tcp: &Async<TcpStream>) -> Result<(SocketAddr, SocketAddr), Ended> {
    let socket = socket2::SockRef::from(tcp.get_ref());
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES))
        .and_then(|()| socket.set_tcp_user_timeout(Some(ACKNOWLEDGED_WITHIN)))
        .and_then(|()| tcp.get_ref().local_addr())
        .and_then(|local| Ok((canonical(local), canonical(tcp.get_ref().peer_addr()?))));
    set.map_err(|e| tls::ended(&e))
}

/// An IPv4 address that came over an IPv6 socket, as the IPv4 address it is.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Why a connection ended, out of a WebSocket error.
fn ended(error: &tungstenite::Error) -> Ended {
    use tungstenite::error::ProtocolError;
    match error {
        tungstenite::Error::Io(io) => tls::ended(io),
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Ended::ByPeer,
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ended::Reset,
        tungstenite::Error::Http(response) => {
            Ended::WebSocket(format!("the server answered HTTP {} instead of upgrading", response.status()))
        }
        other => Ended::WebSocket(other.to_string()),
    }
}
