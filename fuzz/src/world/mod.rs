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
mod datagram;
mod debt;
mod dial;
mod faults;
mod journal;
mod nat;
mod outbox;
mod peer;
mod punch;
mod relay;
mod rng;
mod route;
mod story;
mod stranger;
mod trace;

pub(crate) use air::RESENT_AFTER;
pub use air::{HostId, Way, WireId};
pub use attack::{Letter, Recorded, Tap, deliver, forward, payloads, rewrite};
pub use build::PeerPlan;
pub use datagram::Heard;
pub use debt::Exchange;
pub use dial::Certificate;
pub use nat::{Depends, NatId, NatKind, Ports};
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
    id::PeerId,
    network::Network,
    succession::Succession,
    time::{Duration, Instant},
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use stranger::Stranger;

/// What a peer wants to be kept for its next life.
#[derive(Default)]
struct Kept {
    claims: Vec<(IpAddr, PeerId)>,
    successions: Vec<Succession>,
}

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
    /// In suspension: nothing runs there, nothing is lost either.
    asleep: bool,
    /// What would have happened there meanwhile.
    slept_through: Vec<Tick>,
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
    /// Packets still to be handed in.
    left: u64,
    /// Came out of other interfaces than that of `to`: an Ethernet frame to a MAC that was not known yet goes everywhere.
    flooded: u64,
}

/// Who looks at the world after each event, and can stop it.
pub trait Watch {
    /// Something has happened at `host`, or between hosts. False: time stops here.
    fn look(&mut self, world: &mut World, host: Option<HostId>) -> bool;
    /// A packet has left the interface of a host.
    fn emerged(&mut self, host: HostId, packet: &[u8]);
}

/// The world.
pub struct World {
    air: Air,
    hosts: Vec<Place>,
    sources: BTreeMap<usize, Source>,
    next_flow: usize,
    crypto: Arc<dyn Provider>,
    network: Network,
    /// Identities are taken from a pool, not made.
    pooled: bool,
    watch: Option<Box<dyn Watch>>,
    is_stopped: bool,
    /// Flows of which something came out since the last look.
    fresh: Vec<usize>,
    events: u64,
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
        while !self.is_stopped && self.step(until) {}
        if !self.is_stopped {
            self.air.now = self.air.now.max(until);
        }
    }

    /// Somebody looks from now on.
    pub fn watch(&mut self, watch: Box<dyn Watch>) {
        self.watch = Some(watch);
    }

    /// Whoever looked, who does so no longer.
    pub fn unwatch(&mut self) -> Option<Box<dyn Watch>> {
        self.watch.take()
    }

    /// Whether the watch has stopped time.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// How much has happened so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    fn be_looked_at(&mut self, host: Option<HostId>) {
        if let Some(mut watch) = self.watch.take() {
            self.is_stopped |= !watch.look(self, host);
            self.watch = Some(watch);
        }
    }

    /// The next thing that happens until then; false: nothing more does.
    fn step(&mut self, until: Instant) -> bool {
        let due = self.hosts.iter().enumerate().filter_map(|(index, place)| Some((place.deadline()?, index))).min();
        let tick = self.air.next_at();
        let touched;
        // Drivers look at the deadline before the inbox.
        match (due, tick) {
            (Some((at, index)), tick) if at <= until && tick.is_none_or(|tick| at <= tick) => {
                self.air.now = self.air.now.max(at);
                self.turn(HostId(index));
                touched = Some(HostId(index));
            }
            (_, Some(at)) if at <= until => {
                self.air.now = self.air.now.max(at);
                let Some(tick) = self.air.pop() else { return false };
                touched = self.place_of(&tick);
                self.happen(tick);
            }
            _ => return false,
        }
        self.events += 1;
        self.bury(touched);
        self.account();
        self.be_looked_at(touched);
        true
    }

    /// Where something will happen.
    fn place_of(&self, tick: &Tick) -> Option<HostId> {
        match tick {
            Tick::Arrive { wire, to } => self.air.wires.get(wire).map(|wire| wire.ends[*to].host),
            Tick::Dial { dial, .. } => self.air.dials.get(dial).map(|dial| dial.from.host),
            Tick::Computed { host, .. } | Tick::Flushed { host, .. } | Tick::Drain { host, .. } => Some(*host),
            Tick::Packet { flow } => self.sources.get(flow).map(|source| source.from),
            Tick::Datagram(flight) => Some(flight.0),
            Tick::Icmp(what) => Some(what.0),
        }
    }

    fn turn(&mut self, host: HostId) {
        if self.is_asleep(host) {
            return;
        }
        match &mut self.hosts[host.0].running {
            Some(Host::Peer(peer)) => peer.turn(&mut self.air),
            Some(Host::Relay(relay)) => relay.turn(&mut self.air),
            Some(Host::Stranger(_)) | None => {}
        }
    }

    fn happen(&mut self, tick: Tick) {
        match tick {
            Tick::Computed { host, .. } | Tick::Flushed { host, .. } | Tick::Drain { host, .. } if self.is_asleep(host) => {
                self.hosts[host.0].slept_through.push(tick);
            }
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
            Tick::Drain { host, life } if self.life(host) == Some(life) => {
                if let Some(Host::Peer(peer)) = &mut self.hosts[host.0].running {
                    peer.drain(&mut self.air);
                }
            }
            Tick::Computed { .. } | Tick::Flushed { .. } | Tick::Drain { .. } => {} // of a life that is over
            Tick::Packet { flow } => self.packet(flow),
            Tick::Datagram(flight) => {
                let host = flight.0;
                self.air.land(&flight.1);
                self.turn(host);
            }
            Tick::Icmp(what) => self.air.icmp(what.0, what.1, what.2),
        }
    }

    /// Whatever has arrived at this end of a wire.
    fn arrive(&mut self, wire: WireId, to: Side) {
        loop {
            let Some(end) = self.air.wires.get(&wire).map(|wire| wire.ends[to]) else { return };
            if self.is_dark(end.host) || self.is_asleep(end.host) {
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
        let Some(source) = self.sources.get_mut(&flow) else { return };
        if !source.running {
            return;
        }
        source.left = source.left.saturating_sub(1);
        if source.left > 0 {
            self.air.after(source.period, Tick::Packet { flow });
        } else {
            source.running = false;
        }
        let place = &mut self.hosts[source.from.0];
        // programs sleep with their host
        if !place.asleep
            && let Some(Host::Peer(peer)) = &mut place.running
        {
            let packet = source.flow.hand_in();
            peer.packet(&mut self.air, &packet);
        }
    }

    /// Gives the model what came out of interfaces.
    fn account(&mut self) {
        if self.air.delivered.is_empty() {
            return;
        }
        let now = self.air.now;
        for (host, packet) in core::mem::take(&mut self.air.delivered) {
            if let Some(watch) = &mut self.watch {
                watch.emerged(host, &packet);
            }
            let number = Flow::number_of(&packet).expect("only packets of flows are handed in");
            let Some(source) = self.sources.get_mut(&(number as usize)) else {
                assert!((number as usize) < self.next_flow, "flow {number} was never started");
                continue; // it was forgotten
            };
            if source.to != host && source.flow.is_ethernet() {
                source.flooded += 1;
                continue;
            }
            assert_eq!(source.to, host, "a packet of flow {number} came out at the wrong host");
            let late = source.flow.came_out(now, &packet);
            self.air
                .trace
                .tell(now, host.0, || format!("packet {} of flow {number}{}", Flow::place_of(&packet), if late { ", late" } else { "" }));
            self.fresh.push(number as usize);
        }
    }

    /// The life that a host is in, when it runs.
    fn life(&self, host: HostId) -> Option<u32> {
        let place = &self.hosts[host.0];
        place.running.as_ref().map(|_| place.lives)
    }

    pub(crate) fn is_asleep(&self, host: HostId) -> bool {
        self.hosts[host.0].asleep
    }

    fn is_dark(&self, host: HostId) -> bool {
        self.hosts[host.0].dark
    }
}

impl Place {
    fn deadline(&self) -> Option<Instant> {
        if self.asleep {
            return None;
        }
        match self.running.as_ref()? {
            Host::Peer(peer) => Some(peer.due()),
            Host::Relay(relay) => relay.due(),
            Host::Stranger(_) => None,
        }
    }

    /// Keeps what the present life has told.
    fn collect(&mut self) {
        match &mut self.running {
            Some(Host::Peer(peer)) => {
                self.notes.extend(peer.take_notes());
                let Kept { claims, successions } = peer.take_kept();
                if let Plan::Peer { config, .. } = &mut self.plan {
                    config.claims.extend(claims);
                    for one in successions {
                        config.followers.remember(one);
                    }
                }
            }
            Some(Host::Relay(relay)) => self.hub_notes.extend(relay.take_notes()),
            Some(Host::Stranger(_)) | None => {}
        }
    }
}
