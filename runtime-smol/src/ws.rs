//! WebSocket over TLS 1.3 over TCP: one whole binary message in, one out (protocol 6, 9).
//!
//! ```text
//!   dial   ─▶ TCP ─▶ TLS (pin) ─▶ upgrade ─┬─▶ Reader::next ─▶ message
//!   accept ─▶ TCP ─▶ TLS ───────▶ upgrade ─┴─▶ Writer::send ◀─ message
//! ```
mod ahead;

use ahead::Ahead;
use async_tungstenite::{
    WebSocketReceiver, WebSocketSender, WebSocketStream, accept_async_with_config, client_async_with_config, tungstenite::Message,
};
use core::net::SocketAddr;
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use futures_util::SinkExt;
use rustls::{ClientConfig, ServerConfig};
use shadowmesh_core::event::{Ended, TlsFacts};
pub use shadowmesh_runtime_std::ws::MESSAGE_BYTES;
use shadowmesh_runtime_std::{
    tls,
    ws::{ended, limits, prepare},
};
use smol::{Async, future, stream::StreamExt};
use std::{net::TcpStream, sync::Arc};

type Stream = TlsStream<Ahead>;

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
    let (local, remote) = prepare(tcp.get_ref())?;
    let name = tls::server_name(host)?;
    let stream = TlsConnector::from(config).connect(name, Ahead::new(tcp)).await.map_err(|e| tls::ended(&e))?;
    let facts = tls::client_facts(stream.get_ref().1)?;
    let (socket, _response) = client_async_with_config(url, TlsStream::Client(stream), Some(limits())).await.map_err(|e| ended(&e))?;
    Ok((Connected::new(socket, local, remote), facts))
}

/// Makes a server's connection out of a TCP one; also gives the TLS exporter.
///
/// # Errors
/// Why it came to nothing.
pub async fn server(tcp: Async<TcpStream>, config: Arc<ServerConfig>) -> Result<(Connected, [u8; 32]), Ended> {
    let (local, remote) = prepare(tcp.get_ref())?;
    let stream = TlsAcceptor::from(config).accept(Ahead::accepting(tcp)).await.map_err(|e| tls::ended(&e))?;
    let exporter = tls::server_exporter(stream.get_ref().1)?;
    let mut socket = accept_async_with_config(TlsStream::Server(stream), Some(limits())).await.map_err(|e| ended(&e))?;
    socket.get_mut().get_mut().0.upgraded();
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
                // A ping costs an answer of its own, so it is a turn of its own.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => future::yield_now().await,
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
        self.feed(message).await?;
        self.flush().await
    }

    /// Takes one binary message; at the latest [`Writer::flush`] hands it to the kernel.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub async fn feed(&mut self, message: Vec<u8>) -> Result<(), Ended> {
        SinkExt::feed(&mut self.0, Message::Binary(message.into())).await.map_err(|e| ended(&e))
    }

    /// Hands all to the kernel, waiting for room.
    ///
    /// # Errors
    /// Why the connection is gone.
    pub async fn flush(&mut self) -> Result<(), Ended> {
        SinkExt::flush(&mut self.0).await.map_err(|e| ended(&e))
    }

    /// Says good-bye: a close frame behind what was sent.
    pub async fn close(&mut self) {
        // The other end may be gone already: then there is nobody to say it to.
        let _ = self.0.close(None).await;
    }
}
