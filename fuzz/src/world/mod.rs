//! Hosts and what lies between them, in virtual time. A scenario builds a world, lets time pass, and says what must be true.
//!
//! ```text
//!   World ─┬─ Air: now, the queue of ticks, wires, ways                (air, dial)
//!          ├─ places: each with a machine and its driver, or a stranger  (peer, relay, stranger)
//!          └─ flows: numbered packets and the model's account of them    (crate::model)
//!   step: the earliest of all deadlines and ticks ─▶ one host takes its turn ─▶ new ticks
//! ```
mod air;
mod attack;
mod build;
mod dial;
mod outbox;
mod peer;
mod relay;
mod rng;
mod story;
mod stranger;
mod trace;

pub use air::{HostId, Way, WireId};
pub use attack::{Letter, Recorded, Tap, deliver, forward, payloads, rewrite};
pub use build::PeerPlan;
pub use dial::Certificate;
pub use relay::Lie;
pub use rng::Rng;
pub use story::FlowId;

use crate::model::Flow;
use air::{Air, Parcel, Side, Tick};
use build::Plan;
use peer::Peer;
use relay::Relay;
use shadowmesh_core::{
    crypto::Provider,
    event::Note,
    hub::HubNote,
    network::Network,
    time::{Duration, Instant},
};
use std::sync::Arc;
use stranger::Stranger;

/// What runs at a place.
#[expect(clippy::large_enum_variant, reason = "a world has few places, and each variant is large")]
enum Host {
    Peer(Peer),
    Relay(Relay),
    Stranger(Stranger),
}

/// A place: what runs there now, and what is kept over restarts.
struct Place {
    plan: Plan,
    running: Option<Host>,
    lives: u32,
    /// Without power: nobody is told that it is gone.
    dark: bool,
    notes: Vec<(Instant, Note)>,
    hub_notes: Vec<(Instant, HubNote)>,
}

/// Packets that are handed in at a steady pace.
struct Source {
    flow: Flow,
    from: HostId,
    to: HostId,
    period: Duration,
    running: bool,
}

/// The world.
pub struct World {
    air: Air,
    hosts: Vec<Place>,
    sources: Vec<Source>,
    crypto: Arc<dyn Provider>,
    network: Network,
}

impl World {
    /// What time it is.
    pub fn now(&self) -> Instant {
        self.air.now
    }

    /// The world's chance, for a scenario that wants some of it.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.air.rng
    }

    /// The digest of everything that machines ordered so far, and of how many orders.
    pub fn digest(&self) -> (u64, u64) {
        self.air.trace.digest()
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let until = self.air.now + span;
        while self.step(until) {}
        self.air.now = until;
    }

    /// The next thing that happens until then; false: nothing more does.
    fn step(&mut self, until: Instant) -> bool {
        let due = self.hosts.iter().enumerate().filter_map(|(index, place)| Some((place.deadline()?, index))).min();
        let tick = self.air.next_at();
        // Drivers look at the deadline before the inbox.
        match (due, tick) {
            (Some((at, index)), tick) if at <= until && tick.is_none_or(|tick| at <= tick) => {
                self.air.now = self.air.now.max(at);
                self.turn(HostId(index));
            }
            (_, Some(at)) if at <= until => {
                self.air.now = self.air.now.max(at);
                if let Some(tick) = self.air.pop() {
                    self.happen(tick);
                }
            }
            _ => return false,
        }
        self.account();
        true
    }

    fn turn(&mut self, host: HostId) {
        match &mut self.hosts[host.0].running {
            Some(Host::Peer(peer)) => peer.turn(&mut self.air),
            Some(Host::Relay(relay)) => relay.turn(&mut self.air),
            Some(Host::Stranger(_)) | None => {}
        }
    }

    fn happen(&mut self, tick: Tick) {
        match tick {
            Tick::Arrive { wire, to } => self.arrive(wire, to),
            Tick::Dial { dial, step } => self.dial_step(dial, step),
            Tick::Computed { host, life, done } if self.life(host) == Some(life) => match &mut self.hosts[host.0].running {
                Some(Host::Peer(peer)) => peer.computed(&mut self.air, done),
                Some(Host::Relay(relay)) => relay.computed(&mut self.air, done),
                Some(Host::Stranger(_)) | None => {}
            },
            Tick::Flushed { host, life, conn } if self.life(host) == Some(life) => match &mut self.hosts[host.0].running {
                Some(Host::Peer(peer)) => peer.flushed(&mut self.air, conn),
                Some(Host::Relay(relay)) => relay.flushed(&mut self.air, conn),
                Some(Host::Stranger(_)) | None => {}
            },
            Tick::Computed { .. } | Tick::Flushed { .. } => {} // of a life that is over
            Tick::Packet { flow } => self.packet(flow),
        }
    }

    /// Whatever has arrived at this end of a wire.
    fn arrive(&mut self, wire: WireId, to: Side) {
        loop {
            let Some(end) = self.air.wires.get(&wire).map(|wire| wire.ends[to]) else { return };
            if self.is_dark(end.host) {
                return;
            }
            let Some((end, parcel)) = self.air.unload(wire, to) else { return };
            if self.life(end.host) != Some(end.life) {
                // the connection belongs to a life that is over: the kernel of today answers with a reset
                self.air.shut(wire, to);
                self.air.load(wire, to, Parcel::End(shadowmesh_core::event::Ended::Reset));
                continue;
            }
            match &mut self.hosts[end.host.0].running {
                Some(Host::Peer(peer)) => peer.arrived(&mut self.air, end.conn, parcel),
                Some(Host::Relay(relay)) => relay.arrived(&mut self.air, end.conn, parcel),
                Some(Host::Stranger(stranger)) => stranger.arrived(&mut self.air, end.conn, parcel),
                None => {}
            }
            // room again for the sender
            if let Some(sender) = self.air.wires.get(&wire).map(|wire| wire.ends[1 - to])
                && self.life(sender.host) == Some(sender.life)
            {
                self.turn(sender.host);
            }
        }
    }

    fn packet(&mut self, flow: usize) {
        let source = &mut self.sources[flow];
        if !source.running {
            return;
        }
        self.air.after(source.period, Tick::Packet { flow });
        let packet = source.flow.hand_in();
        if let Some(Host::Peer(peer)) = &mut self.hosts[source.from.0].running {
            peer.packet(&mut self.air, &packet);
        }
    }

    /// Gives the model what came out of interfaces.
    fn account(&mut self) {
        let now = self.air.now;
        for (host, packet) in core::mem::take(&mut self.air.delivered) {
            let number = Flow::number_of(&packet).expect("only packets of flows are handed in");
            let source = self.sources.get_mut(number as usize).expect("a flow that was started");
            assert_eq!(source.to, host, "a packet of flow {number} came out at the wrong host");
            source.flow.came_out(now, &packet);
        }
    }

    /// The life that a host is in, when it runs.
    fn life(&self, host: HostId) -> Option<u32> {
        let place = &self.hosts[host.0];
        place.running.as_ref().map(|_| place.lives)
    }

    fn is_dark(&self, host: HostId) -> bool {
        self.hosts[host.0].dark
    }
}

impl Place {
    fn deadline(&self) -> Option<Instant> {
        match self.running.as_ref()? {
            Host::Peer(peer) => Some(peer.deadline()),
            Host::Relay(relay) => relay.deadline(),
            Host::Stranger(_) => None,
        }
    }

    /// Keeps what the present life has told.
    fn collect(&mut self) {
        match &mut self.running {
            Some(Host::Peer(peer)) => {
                self.notes.extend(peer.take_notes());
                let claims = peer.take_claims();
                if let Plan::Peer { config, .. } = &mut self.plan {
                    config.claims.extend(claims);
                }
            }
            Some(Host::Relay(relay)) => self.hub_notes.extend(relay.take_notes()),
            Some(Host::Stranger(_)) | None => {}
        }
    }
}
