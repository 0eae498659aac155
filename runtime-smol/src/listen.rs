//! Taking connections: a cheap door first, then TLS and WebSocket within a time limit, a bounded number at once (protocol 9).
//!
//! ```text
//!   accept ─▶ Door::admit (no crypto yet) ─▶ a slot ─▶ TLS + upgrade, 5 s ─┬─▶ Door::accepted
//!                  └ no: closed                └ none: closed              └─▶ Door::released
//! ```
use crate::{
    dial,
    ws::{self, Connected},
};
use core::{net::SocketAddr, time::Duration};
use rustls::ServerConfig;
use shadowmesh_core::event::Ended;
use shadowmesh_runtime_std::{
    listen::{ACCEPT_PAUSE, Bounds, Slots, is_one_connections_fault},
    ws::canonical,
};
use smol::{Async, LocalExecutor, Timer};
use std::{
    net::{TcpListener, TcpStream},
    rc::{Rc, Weak},
    sync::Arc,
};

/// A connection that is through TLS and the upgrade.
pub struct Accepted {
    /// Both halves and both addresses.
    pub connected: Connected,
    /// The TLS exporter (protocol 3).
    pub exporter: [u8; 32],
}

/// Who decides about connections and gets them.
pub trait Door: 'static {
    /// Whether a connection from here may begin TLS; an error refuses it. Each `Ok` is followed by one `accepted` or `released`.
    fn admit(&self, remote: SocketAddr) -> Result<(), &'static str>;
    /// TLS and the upgrade are done.
    fn accepted(&self, accepted: Accepted);
    /// A connection that was admitted came to nothing.
    fn released(&self, remote: SocketAddr, why: Ended);
}

/// Takes connections for ever; the handshakes run as tasks of `executor` and outlive this future.
pub async fn serve<D: Door>(
    listener: Async<TcpListener>,
    config: Arc<ServerConfig>,
    bounds: Bounds,
    door: Rc<D>,
    executor: Weak<LocalExecutor<'static>>,
) {
    let slots = Slots::new(bounds);
    loop {
        let (tcp, remote) = match listener.accept().await {
            Ok((tcp, remote)) => (tcp, canonical(remote)),
            Err(why) if is_one_connections_fault(&why) => continue,
            Err(why) => {
                tracing::warn!(%why, "cannot take connections");
                Timer::after(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(slot) = slots.take(remote.ip()) else {
            tracing::debug!(%remote, "refused: too many connections in their handshake");
            continue;
        };
        if let Err(why) = door.admit(remote) {
            tracing::debug!(%remote, why, "refused");
            continue;
        }
        let (door, config) = (Rc::clone(&door), Arc::clone(&config));
        let Some(executor) = executor.upgrade() else {
            return;
        };
        executor
            .spawn(async move {
                let outcome = Box::pin(upgrade(tcp, config, bounds.time)).await;
                drop(slot);
                match outcome {
                    Ok(accepted) => door.accepted(accepted),
                    Err(why) => door.released(remote, why),
                }
            })
            .detach();
    }
}

async fn upgrade(tcp: Async<TcpStream>, config: Arc<ServerConfig>, limit: Duration) -> Result<Accepted, Ended> {
    let (connected, exporter) = dial::within(limit, Box::pin(ws::server(tcp, config))).await?;
    Ok(Accepted { connected, exporter })
}
