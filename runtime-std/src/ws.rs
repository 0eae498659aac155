//! What all runtimes agree on about WebSocket over TLS 1.3 over TCP: limits, options of the socket, why it ended (protocol 6, 9), and
//! how messages cross it once it stands.
pub mod channel;
pub mod frames;

use crate::tls;
use core::{net::SocketAddr, time::Duration};
use shadowmesh_core::{event::Ended, wire::addr::canonical};
use socket2::SockRef;
use std::net::TcpStream;
use tungstenite::{
    error::{Error, ProtocolError},
    protocol::WebSocketConfig,
};

/// Longest message in bytes: what a relay batches is at most 64 KiB, with room for one more record (protocol 9).
pub const MESSAGE_BYTES: usize = 64 * 1024 + 9_216 + 8;

/// Bytes that the kernel may hold unsent: enough to keep a path full, little enough that a switch finds no long queue behind it.
const UNSENT_BYTES: u32 = 64 * 1024;

/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of messages that go to the kernel together, when so many wait: four full TLS records.
pub const BATCH_BYTES: usize = 48 * 1024;

/// Bytes that the library may buffer while it makes the upgrade.
const UPGRADE_BUFFER_BYTES: usize = 4 * 1024;

/// Bounds of the upgrade; the messages after it are not the library's.
pub fn limits() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(UPGRADE_BUFFER_BYTES).write_buffer_size(0).max_write_buffer_size(UPGRADE_BUFFER_BYTES)
}

/// Sets the socket's options; gives this end's address and the other's, IPv4 ones as such even on a socket of both families.
///
/// # Errors
/// When the connection is gone already.
pub fn prepare(tcp: &TcpStream) -> Result<(SocketAddr, SocketAddr), Ended> {
    let socket = SockRef::from(tcp);
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES))
        .and_then(|()| socket.set_tcp_user_timeout(Some(ACKNOWLEDGED_WITHIN)))
        .and_then(|()| tcp.local_addr())
        .and_then(|local| Ok((canonical(local), canonical(tcp.peer_addr()?))));
    set.map_err(|e| tls::ended(&e))
}

/// Why a connection ended, out of a WebSocket error.
pub fn ended(error: &Error) -> Ended {
    match error {
        Error::Io(io) => tls::ended(io),
        Error::ConnectionClosed | Error::AlreadyClosed => Ended::ByPeer,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ended::Reset,
        Error::Http(response) => Ended::WebSocket(format!("the server answered HTTP {} instead of upgrading", response.status())),
        other => Ended::WebSocket(other.to_string()),
    }
}
