//! Taking connections: a cheap door first, then TLS and WebSocket within a time limit, a bounded number at once (protocol 9).
//!
//! ```text
//!   accept ─▶ Door::admit (no crypto yet) ─▶ a slot ─▶ TLS + upgrade, 5 s ─┬─▶ Door::accepted
//!                  └ no: closed                └ none: closed              └─▶ Door::released
//! ```
//! When all places are taken, the handshake that has had one for longest gives way: whoever is quick finds one.
use crate::{
    dial,
    pace::Pace,
    ws::{self, Connected},
};
use core::{net::SocketAddr, time::Duration};
use rustls::ServerConfig;
use shadowmesh_core::{event::Ended, hub::Refusal, time::Instant};
use shadowmesh_runtime_std::{
    clock,
    listen::{ACCEPT_PAUSE, Bounds, Slot, Slots, is_one_connections_fault},
    ws::canonical,
};
use smol::{Async, LocalExecutor, Task, Timer, future};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{TcpListener, TcpStream},
    rc::{Rc, Weak},
    sync::Arc,
};

/// Connections that a listener gives before others get their turn.
const TURN_ACCEPTS: u64 = 16;

/// A connection that is through TLS and the upgrade.
pub struct Accepted {
    /// Both halves and both addresses.
    pub connected: Connected,
    /// The TLS exporter (protocol 3).
    pub exporter: [u8; 32],
    /// When it was admitted.
    pub since: Instant,
}

/// Who decides about connections and gets them.
pub trait Door: 'static {
    /// Whether a connection from here may begin TLS; an error refuses it. Each `Ok` is followed by one `accepted` or `released`.
    fn admit(&self, remote: SocketAddr) -> Result<(), Refusal>;
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
    let arrivals = Rc::new(Arrivals { door, slots: Slots::new(bounds), under_way: RefCell::default(), pace: Pace::default() });
    let Some(runs) = executor.upgrade() else { return };
    let pacing = Rc::clone(&arrivals);
    // As long as there may be handshakes: they outlive this future.
    runs.spawn(async move { pacing.pace.keep().await }).detach();
    drop(runs);
    for number in 0..u64::MAX {
        if number % TURN_ACCEPTS == 0 {
            future::yield_now().await;
        }
        let (tcp, remote) = match listener.accept().await {
            Ok((tcp, remote)) => (tcp, canonical(remote)),
            Err(why) if is_one_connections_fault(&why) => continue,
            Err(why) => {
                tracing::warn!(%why, "cannot take connections");
                Timer::after(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let slot = match arrivals.admit(remote) {
            Ok(slot) => slot,
            Err(why) => {
                tracing::debug!(%remote, ?why, "refused");
                continue;
            }
        };
        let Some(executor) = executor.upgrade() else {
            return;
        };
        let (over, config) = (Rc::clone(&arrivals), Arc::clone(&config));
        let task = executor.spawn(async move {
            let outcome = Box::pin(upgrade(&over.pace, tcp, config, bounds.time)).await;
            // Gone from the list: it gave way in this very turn.
            let Some(arrival) = over.under_way.borrow_mut().remove(&number) else { return };
            arrival.task.detach();
            drop(arrival.slot);
            match outcome {
                Ok(accepted) => over.door.accepted(accepted),
                Err(why) => over.door.released(remote, why),
            }
        });
        arrivals.under_way.borrow_mut().insert(number, Arrival { task, remote, slot });
    }
}

/// Connections that are taken, and who decides about them.
struct Arrivals<D> {
    door: Rc<D>,
    slots: Slots,
    /// Those in TLS or the upgrade, in the order in which they came.
    under_way: RefCell<BTreeMap<u64, Arrival>>,
    pace: Pace,
}

/// One of them: dropping its task ends it.
struct Arrival {
    task: Task<()>,
    remote: SocketAddr,
    slot: Slot,
}

impl<D: Door> Arrivals<D> {
    /// A place for a connection from here, that of another if need be.
    fn admit(&self, remote: SocketAddr) -> Result<Slot, Refusal> {
        match self.try_admit(remote) {
            Err(Refusal::Full) if self.give_way() => self.try_admit(remote),
            other => other,
        }
    }

    fn try_admit(&self, remote: SocketAddr) -> Result<Slot, Refusal> {
        self.door.admit(remote)?;
        self.slots.take(remote.ip()).inspect_err(|_| self.door.released(remote, Ended::Local("no place".to_owned())))
    }

    /// Ends the oldest; false when there is none.
    fn give_way(&self) -> bool {
        let oldest = self.under_way.borrow_mut().pop_first();
        if let Some((_, Arrival { remote, .. })) = &oldest {
            self.door.released(*remote, Ended::Local("gave way to another".to_owned()));
        }
        oldest.is_some()
    }
}

async fn upgrade(pace: &Pace, tcp: Async<TcpStream>, config: Arc<ServerConfig>, limit: Duration) -> Result<Accepted, Ended> {
    let since = clock::now();
    let (connected, exporter) = dial::within(limit, Box::pin(pace.run(ws::server(tcp, config)))).await?;
    Ok(Accepted { connected, exporter, since })
}
