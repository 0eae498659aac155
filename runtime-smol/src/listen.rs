//! Taking connections: a cheap door first, then TLS and WebSocket within a time limit, a bounded number at once (protocol 9).
//!
//! ```text
//!   accept ─▶ Door::admit (no crypto yet) ─▶ a slot ─▶ TLS + upgrade, 5 s ─┬─▶ Door::accepted
//!     │         ▲  └ no: closed                └ none: closed              └─▶ Door::released
//!     └ a proxy that says from where it comes (protocol 9.5)
//! ```
//! When all places are taken, the handshake that has had one for longest gives way, a stranger's first: whoever is quick finds one.
use crate::{
    dial,
    pace::Pace,
    ws::{self, Connected},
};
use core::net::SocketAddr;
use rustls::ServerConfig;
use shadowmesh_core::{
    event::Ended,
    hub::{Refusal, Standing},
    time::Instant,
    wire::addr::canonical,
};
use shadowmesh_runtime_std::{
    ahead::ReadAhead,
    announced::{Announcement, Heard},
    clock,
    listen::{ACCEPT_PAUSE, Slot, Slots, is_one_connections_fault},
    tls,
};
use smol::{Async, LocalExecutor, Task, Timer, future};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::ErrorKind,
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
    /// Whether this is a proxy that says before TLS from where a connection comes (protocol 9.5).
    fn announces(&self, _remote: SocketAddr) -> bool {
        false
    }
    /// It did not say so, or not well.
    fn misannounced(&self, _remote: SocketAddr, _why: Ended) {}
    /// Whether a connection from here may begin TLS, and how its source stands; an error refuses it. Each `Ok` is followed by one `accepted`
    /// or `released`.
    fn admit(&self, remote: SocketAddr) -> Result<Standing, Refusal>;
    /// TLS and the upgrade are done.
    fn accepted(&self, accepted: Accepted);
    /// A connection that was admitted came to nothing.
    fn released(&self, remote: SocketAddr, why: Ended);
}

/// Takes connections for ever; the handshakes run as tasks of `executor` and outlive this future.
pub async fn serve<D: Door>(
    listener: Async<TcpListener>,
    config: Arc<ServerConfig>,
    slots: Slots,
    door: Rc<D>,
    executor: Weak<LocalExecutor<'static>>,
) {
    let arrivals = Rc::new(Arrivals { door, slots, under_way: RefCell::default(), unannounced: RefCell::default(), pace: Pace::default() });
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
        let Some(executor) = executor.upgrade() else {
            return;
        };
        let newcomer = Newcomer { number, tcp, ahead: ReadAhead::of_handshake(), remote, since: clock::now() };
        if arrivals.door.announces(remote) {
            arrivals.hear(newcomer, Arc::clone(&config), &executor);
            continue;
        }
        match arrivals.admit(remote) {
            Ok((slot, standing)) => {
                let task = executor.spawn(Rc::clone(&arrivals).shake_hands(newcomer, standing, Arc::clone(&config)));
                arrivals.under_way.borrow_mut().insert(number, Arrival { task, remote, standing, slot });
            }
            Err(why) => tracing::debug!(%remote, ?why, "refused"),
        }
    }
}

/// A connection that was taken.
struct Newcomer {
    number: u64,
    tcp: Async<TcpStream>,
    ahead: ReadAhead,
    /// From where it comes, as far as that is known.
    remote: SocketAddr,
    since: Instant,
}

/// Connections that are taken, and who decides about them.
struct Arrivals<D> {
    door: Rc<D>,
    slots: Slots,
    /// Those in TLS or the upgrade, in the order in which they came.
    under_way: RefCell<BTreeMap<u64, Arrival>>,
    /// Those whose proxy has not said yet from where they come; they have no place.
    unannounced: RefCell<BTreeMap<u64, Task<()>>>,
    pace: Pace,
}

/// One of them: dropping its task ends it.
struct Arrival {
    task: Task<()>,
    remote: SocketAddr,
    standing: Standing,
    slot: Slot,
}

impl<D: Door> Arrivals<D> {
    /// Waits for what its proxy says, and goes on when there is a place for whom it names; as many at once as there may be handshakes.
    fn hear(self: &Rc<Self>, newcomer: Newcomer, config: Arc<ServerConfig>, executor: &LocalExecutor<'static>) {
        let (number, remote) = (newcomer.number, newcomer.remote);
        if self.unannounced.borrow().len() >= self.slots.most() {
            let why = "too many connections of proxies have not said from where they come".to_owned();
            return self.door.misannounced(remote, Ended::Proxy(why));
        }
        let arrivals = Rc::clone(self);
        let task = executor.spawn(async move {
            let heard = dial::within(arrivals.slots.time(), heard(&newcomer.tcp)).await;
            let Some(task) = arrivals.unannounced.borrow_mut().remove(&number) else { return };
            let admitted = match heard {
                Ok(heard) => {
                    let remote = heard.from.unwrap_or(remote);
                    let newcomer = Newcomer { ahead: ReadAhead::of_handshake_after(heard.rest), remote, ..newcomer };
                    arrivals.admit(remote).map(|slot| (newcomer, slot)).inspect_err(|why| tracing::debug!(%remote, ?why, "refused"))
                }
                Err(why) => {
                    task.detach();
                    return arrivals.door.misannounced(remote, why);
                }
            };
            let Ok((newcomer, (slot, standing))) = admitted else { return task.detach() };
            arrivals.under_way.borrow_mut().insert(number, Arrival { task, remote: newcomer.remote, standing, slot });
            arrivals.shake_hands(newcomer, standing, config).await;
        });
        self.unannounced.borrow_mut().insert(number, task);
    }

    /// TLS and the upgrade of one that has a place.
    async fn shake_hands(self: Rc<Self>, newcomer: Newcomer, standing: Standing, config: Arc<ServerConfig>) {
        let Newcomer { number, tcp, ahead, remote, since } = newcomer;
        let left = self.slots.time().saturating_sub(clock::now().since(since));
        let outcome = dial::within(left, Box::pin(self.pace.run(standing, ws::server_after(tcp, ahead, config)))).await;
        // Gone from the list: it gave way in this very turn.
        let Some(arrival) = self.under_way.borrow_mut().remove(&number) else { return };
        arrival.task.detach();
        drop(arrival.slot);
        match outcome {
            Ok((connected, exporter)) => {
                self.door.accepted(Accepted { connected: Connected { remote, ..connected }, exporter, since });
            }
            Err(why) => self.door.released(remote, why),
        }
    }

    /// A place for a connection from here, that of another if need be.
    fn admit(&self, remote: SocketAddr) -> Result<(Slot, Standing), Refusal> {
        match self.try_admit(remote) {
            Err(Refusal::Full) if self.give_way() => self.try_admit(remote),
            other => other,
        }
    }

    fn try_admit(&self, remote: SocketAddr) -> Result<(Slot, Standing), Refusal> {
        let standing = self.door.admit(remote)?;
        let slot = self.slots.take(remote.ip()).inspect_err(|_| self.door.released(remote, Ended::Local("no place".to_owned())))?;
        Ok((slot, standing))
    }

    /// Ends the oldest, a stranger's first; false when there is none.
    fn give_way(&self) -> bool {
        let mut under_way = self.under_way.borrow_mut();
        let stranger = under_way.iter().find(|(_, arrival)| arrival.standing == Standing::Stranger).map(|(number, _)| *number);
        let oldest = stranger.or_else(|| under_way.keys().next().copied()).and_then(|number| under_way.remove_entry(&number));
        drop(under_way);
        if let Some((_, Arrival { remote, .. })) = &oldest {
            self.door.released(*remote, Ended::Local("gave way to another".to_owned()));
        }
        oldest.is_some()
    }
}

/// What a proxy says about this connection.
async fn heard(tcp: &Async<TcpStream>) -> Result<Heard, Ended> {
    let mut announcement = Announcement::default();
    loop {
        match announcement.read(tcp.get_ref()) {
            Err(why) if why.kind() == ErrorKind::WouldBlock => tcp.readable().await.map_err(|why| tls::ended(&why))?,
            done => return done.map_err(|why| tls::ended(&why)),
        }
    }
}
