//! What lies between hosts: addresses, ways with their quality, wires (one a connection), and the queue of what will happen.
//!
//! ```text
//!   outbox ─▶ push ─▶ lane: rate, latency ─▶ Tick::Arrive ─▶ the other host      window: bytes that a lane holds at most
//!                      └── cut: what is on its way waits, as TCP sends again until somebody gives up
//! ```
use super::{
    attack::{Letter, Recorded, Tap},
    datagram::{Flight, Heard, Pipe, Socket},
    debt::{Debts, Exchange},
    dial::{Certificate, Dial, DialId},
    journal::Journals,
    nat::{Nat, NatId},
    punch::Punch,
    rng::Rng,
    trace::Trace,
};
use shadowmesh_core::{
    event::Ended,
    handshake::Done,
    id::ConnId,
    time::{Duration, Instant},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
};

/// TCP finds out so long after a cut is healed.
pub(crate) const RESENT_AFTER: Duration = Duration::from_millis(200);
/// Payload of one TCP segment, bytes.
const SEGMENT_BYTES: usize = 1_448;
/// Messages kept for whoever wants to replay them.
const OVERHEARD: usize = 32;

/// A place in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// One connection in the world; its ends have their own `ConnId`s for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireId(pub u64);

/// One end of a connection: 0 dialled, 1 accepted.
pub(super) type Side = usize;

/// The quality of the way between two hosts, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// One way.
    pub latency: Duration,
    /// Bytes a second of each connection and direction.
    pub rate: u64,
    /// Bytes on their way and in socket buffers, of each connection and direction: large and slow is bufferbloat.
    pub window: usize,
    /// Up to so much more for each datagram and each TCP segment; segments do not overtake each other.
    pub jitter: Duration,
    /// Datagrams and segments of a thousand that are lost; TCP sends a segment again, so that one is late.
    pub loss: u16,
    /// Datagrams of a thousand that come twice.
    pub doubling: u16,
    /// Datagrams of a thousand that later ones overtake.
    pub reordering: u16,
    /// Datagrams of a thousand that come with another bit; of a TLS stream, messages that end it with a reset.
    pub corruption: u16,
    /// The largest IP packet, bytes: a larger datagram comes back as ICMP.
    pub mtu: usize,
    /// Nothing passes, and nobody is told.
    pub cut: bool,
    /// New connections are refused.
    pub refuses: bool,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(5),
            rate: 125_000_000,
            window: 256 * 1024,
            jitter: Duration::ZERO,
            loss: 0,
            doubling: 0,
            reordering: 0,
            corruption: 0,
            mtu: 1_500,
            cut: false,
            refuses: false,
        }
    }
}

/// Which machine of which life of a host holds an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) host: HostId,
    pub(super) life: u32,
    pub(super) conn: ConnId,
}

/// What travels.
pub(super) enum Parcel {
    Message(Vec<u8>),
    End(Ended),
}

/// One direction of a wire.
#[derive(Default)]
struct Lane {
    on_way: VecDeque<(Instant, Parcel)>,
    bytes: usize,
    /// Arrived, but the acknowledgements do not come back: a one-way cut.
    unacknowledged: usize,
    busy_until: Instant,
    last_arrival: Instant,
}

/// One connection.
pub(super) struct Wire {
    pub(super) ends: [End; 2],
    /// One end has lost its address: nothing passes any more, and nobody is told.
    orphaned: bool,
    open: [bool; 2],
    lanes: [Lane; 2],
}

/// What will happen.
#[expect(clippy::large_enum_variant, reason = "a job's outcome waits in it for a moment of virtual time")]
pub(super) enum Tick {
    Arrive {
        wire: WireId,
        to: Side,
    },
    Dial {
        dial: DialId,
        step: super::dial::Step,
    },
    Computed {
        host: HostId,
        life: u32,
        done: Done,
    },
    /// A connection that was hung up has had its second.
    Flushed {
        host: HostId,
        life: u32,
        conn: ConnId,
    },
    Packet {
        flow: usize,
    },
    /// The interface of a slow host takes one more packet.
    Drain {
        host: HostId,
        life: u32,
    },
    /// A datagram leaves the queue to this host.
    Datagram(Box<(HostId, Flight)>),
    /// ICMP for a port of a host.
    Icmp(Box<(HostId, u16, Heard)>),
}

/// Everything between the hosts.
pub(super) struct Air {
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) trace: Trace,
    pub(super) journals: Option<Journals>,
    pub(super) hosts_of: BTreeMap<IpAddr, HostId>,
    /// Open listeners and what their TLS shows.
    pub(super) doors: BTreeMap<(HostId, u16), Certificate>,
    pub(super) dials: BTreeMap<DialId, Dial>,
    pub(super) next_dial: u64,
    /// Dials among them that wait for one of the other end.
    pub(super) punches: BTreeMap<DialId, Punch>,
    /// Who stands between two hosts and ends TLS there.
    pub(super) middlemen: BTreeMap<(HostId, HostId), Certificate>,
    pub(super) taps: BTreeMap<(HostId, HostId), Tap>,
    pub(super) record: Option<Vec<Recorded>>,
    /// The latest messages, where somebody listens.
    pub(super) overheard: Option<VecDeque<Vec<u8>>>,
    pub(super) nats: Vec<Nat>,
    pub(super) behind: BTreeMap<HostId, NatId>,
    /// Hosts whose box forwards the port of their listener.
    pub(super) mapped: BTreeSet<HostId>,
    pub(super) sockets: BTreeMap<(HostId, u16), Socket>,
    pub(super) debts: BTreeMap<HostId, Debts>,
    /// The first address to which a host sent more than it was paid.
    pub(super) amplified: Option<(HostId, SocketAddr, Exchange)>,
    pub(super) pipes: BTreeMap<(HostId, HostId), Pipe>,
    /// Datagrams that found the queue on their way full.
    pub(super) overflowed: u64,
    /// Directions in which nothing passes.
    deaf: BTreeSet<(HostId, HostId)>,
    /// Packets that came out of interfaces in this moment.
    pub(super) delivered: Vec<(HostId, Vec<u8>)>,
    pub(super) wires: BTreeMap<WireId, Wire>,
    ways: BTreeMap<(HostId, HostId), Way>,
    pub(super) default_way: Way,
    queue: BTreeMap<(Instant, u64), Tick>,
    ticks: u64,
    next_wire: u64,
    next_port: u16,
}

impl Air {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            // not zero: an instant before the start must not be one after it
            now: Instant::from_millis(1_000_000),
            rng: Rng::new(seed),
            trace: Trace::default(),
            journals: None,
            hosts_of: BTreeMap::new(),
            doors: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_dial: 0,
            punches: BTreeMap::new(),
            middlemen: BTreeMap::new(),
            taps: BTreeMap::new(),
            record: None,
            overheard: None,
            nats: Vec::new(),
            behind: BTreeMap::new(),
            mapped: BTreeSet::new(),
            sockets: BTreeMap::new(),
            debts: BTreeMap::new(),
            amplified: None,
            pipes: BTreeMap::new(),
            overflowed: 0,
            deaf: BTreeSet::new(),
            delivered: Vec::new(),
            wires: BTreeMap::new(),
            ways: BTreeMap::new(),
            default_way: Way::default(),
            queue: BTreeMap::new(),
            ticks: 0,
            next_wire: 0,
            next_port: 40_000,
        }
    }

    // ---- time --------------------------------------------------------------------------------------------------

    pub(super) fn at(&mut self, at: Instant, tick: Tick) {
        self.ticks += 1;
        self.queue.insert((at, self.ticks), tick);
    }

    pub(super) fn after(&mut self, span: Duration, tick: Tick) {
        self.at(self.now + span, tick);
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn pop(&mut self) -> Option<Tick> {
        self.queue.pop_first().map(|(_, tick)| tick)
    }

    // ---- ways --------------------------------------------------------------------------------------------------

    pub(super) fn way(&self, a: HostId, b: HostId) -> Way {
        self.ways.get(&pair(a, b)).copied().unwrap_or(self.default_way)
    }

    pub(super) fn change_way(&mut self, a: HostId, b: HostId, change: impl FnOnce(&mut Way)) {
        let way = self.ways.entry(pair(a, b)).or_insert(self.default_way);
        let was_cut = way.cut;
        change(way);
        if was_cut && !way.cut {
            self.resend(a, b);
        }
    }

    /// Nothing passes from one to the other; the other way is as it was.
    pub(super) fn deafen(&mut self, from: HostId, to: HostId) {
        self.deaf.insert((from, to));
    }

    /// Ends one-way cuts between two hosts.
    pub(super) fn undeafen(&mut self, a: HostId, b: HostId) {
        if self.deaf.remove(&(a, b)) | self.deaf.remove(&(b, a)) {
            self.resend(a, b);
        }
    }

    /// Whether nothing passes in this direction.
    pub(super) fn is_blocked(&self, from: HostId, to: HostId) -> bool {
        self.deaf.contains(&(from, to)) || self.way(from, to).cut
    }

    /// What waited is sent again.
    fn resend(&mut self, a: HostId, b: HostId) {
        for wire in self.wires_between(a, b) {
            self.resend_on(wire);
        }
    }

    /// TCP of both ends sends again what was not acknowledged.
    pub(super) fn resend_on(&mut self, id: WireId) {
        let at = self.now + RESENT_AFTER;
        if let Some(wire) = self.wires.get_mut(&id) {
            for lane in &mut wire.lanes {
                lane.bytes -= core::mem::take(&mut lane.unacknowledged);
            }
        }
        for to in [0, 1] {
            self.at(at, Tick::Arrive { wire: id, to });
        }
    }

    /// An address of this host is gone: its connections are silent for ever.
    pub(super) fn orphan(&mut self, host: HostId) {
        for (id, _) in self.wires_of(host) {
            if let Some(wire) = self.wires.get_mut(&id) {
                wire.orphaned = true;
            }
        }
    }

    /// Some time up to `most`.
    pub(super) fn jitter(&mut self, most: Duration) -> Duration {
        if most.is_zero() { most } else { Duration::from_nanos(self.rng.u64() % most.as_nanos() as u64) }
    }

    pub(super) fn wires_between(&self, a: HostId, b: HostId) -> Vec<WireId> {
        let between = |wire: &Wire| pair(wire.ends[0].host, wire.ends[1].host) == pair(a, b);
        self.wires.iter().filter(|(_, wire)| between(wire)).map(|(id, _)| *id).collect()
    }

    pub(super) fn wires_of(&self, host: HostId) -> Vec<(WireId, Side)> {
        let sides = self.wires.iter().flat_map(|(id, wire)| [(*id, 0, wire.ends[0].host), (*id, 1, wire.ends[1].host)]);
        sides.filter(|(_, _, holder)| *holder == host).map(|(id, side, _)| (id, side)).collect()
    }

    /// A port that nobody had before.
    pub(super) fn fresh_port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(20_000);
        self.next_port
    }

    // ---- wires -------------------------------------------------------------------------------------------------

    pub(super) fn lay(&mut self, ends: [End; 2]) -> WireId {
        let id = WireId(self.next_wire);
        self.next_wire += 1;
        self.wires.insert(id, Wire { ends, orphaned: false, open: [true; 2], lanes: [Lane::default(), Lane::default()] });
        id
    }

    /// Whether the socket takes another message.
    pub(super) fn has_room(&self, wire: WireId, from: Side) -> bool {
        self.wires.get(&wire).is_some_and(|wire| {
            let window = self.way(wire.ends[0].host, wire.ends[1].host).window;
            wire.lanes[from].bytes < window
        })
    }

    /// Sends one message; who stands between may do with it what it likes.
    pub(super) fn push(&mut self, wire: WireId, from: Side, bytes: Vec<u8>) {
        let Some(there) = self.wires.get(&wire) else { return };
        let (sender, receiver) = (there.ends[from].host, there.ends[1 - from].host);
        if let Some(record) = &mut self.record {
            record.push(Recorded { at: self.now, wire, from: sender, to: receiver, dialled: from == 0, bytes: bytes.clone() });
        }
        if let Some(overheard) = &mut self.overheard {
            if overheard.len() >= OVERHEARD {
                overheard.pop_front();
            }
            overheard.push_back(bytes.clone());
        }
        let messages = match self.taps.get_mut(&pair(sender, receiver)) {
            Some(tap) => tap(Letter { wire, from: sender, to: receiver, bytes }),
            None => vec![bytes],
        };
        for bytes in messages {
            self.load(wire, from, Parcel::Message(bytes));
        }
    }

    pub(super) fn load(&mut self, id: WireId, from: Side, parcel: Parcel) {
        let now = self.now;
        let Some(wire) = self.wires.get(&id) else { return };
        let way = self.way(wire.ends[0].host, wire.ends[1].host);
        let len = if let Parcel::Message(bytes) = &parcel { bytes.len() } else { 0 };
        if len > 0 && self.rng.per_mille(way.corruption) {
            return self.reset(id);
        }
        let behind = self.lateness(&way, len);
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let lane = &mut wire.lanes[from];
        let nanos = (len as u64).saturating_mul(1_000_000_000) / way.rate.max(1);
        lane.busy_until = lane.busy_until.max(now) + Duration::from_nanos(nanos);
        let arrival = (lane.busy_until + way.latency + behind).max(lane.last_arrival);
        lane.last_arrival = arrival;
        lane.bytes += len;
        lane.on_way.push_back((arrival, parcel));
        self.at(arrival, Tick::Arrive { wire: id, to: 1 - from });
    }

    /// How much later than a whole one a message comes: jitter, and segments that TCP had to send again.
    fn lateness(&mut self, way: &Way, len: usize) -> Duration {
        let jitter = self.jitter(way.jitter);
        let segments = u16::try_from(len.div_ceil(SEGMENT_BYTES)).unwrap_or(u16::MAX).max(1);
        if !self.rng.per_mille(way.loss.saturating_mul(segments).min(1_000)) {
            return jitter;
        }
        // noticed by what came behind it, or only by the timer
        jitter + if self.rng.per_mille(700) { way.latency * 2 } else { RESENT_AFTER.max(way.latency * 2) }
    }

    /// The next parcel that has arrived at this end, unless the way is cut.
    pub(super) fn unload(&mut self, id: WireId, to: Side) -> Option<(End, Parcel)> {
        let now = self.now;
        let wire = self.wires.get(&id)?;
        let (sender, receiver) = (wire.ends[1 - to].host, wire.ends[to].host);
        if wire.orphaned || self.is_blocked(sender, receiver) {
            return None;
        }
        let answers = !self.is_blocked(receiver, sender);
        let wire = self.wires.get_mut(&id)?;
        let lane = &mut wire.lanes[1 - to];
        if lane.on_way.front().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, parcel) = lane.on_way.pop_front()?;
        if let Parcel::Message(bytes) = &parcel {
            if answers {
                lane.bytes -= bytes.len();
            } else {
                lane.unacknowledged += bytes.len();
            }
        }
        Some((wire.ends[to], parcel))
    }

    /// Whether this end has not been closed by its own host.
    pub(super) fn is_open(&self, wire: WireId, side: Side) -> bool {
        self.wires.get(&wire).is_some_and(|wire| wire.open[side])
    }

    /// This end says good-bye behind what it has sent, and reads no more.
    pub(super) fn finish(&mut self, id: WireId, side: Side, why: Ended) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if !core::mem::replace(&mut wire.open[side], false) {
            return;
        }
        if wire.open[1 - side] {
            self.load(id, side, Parcel::End(why));
        } else {
            self.wires.remove(&id);
        }
    }

    /// The host of this end was told of the end: the wire goes when both were.
    pub(super) fn shut(&mut self, id: WireId, side: Side) {
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.open[side] = false;
            if !wire.open[1 - side] {
                self.wires.remove(&id);
            }
        }
    }

    /// TCP reset: both ends learn at once, what was on its way is gone.
    pub(super) fn reset(&mut self, id: WireId) {
        for from in [0, 1] {
            if let Some(wire) = self.wires.get_mut(&id) {
                wire.lanes[from] = Lane { last_arrival: self.now, ..Lane::default() };
                let arrival = self.now;
                wire.lanes[from].on_way.push_back((arrival, Parcel::End(Ended::Reset)));
                self.at(arrival, Tick::Arrive { wire: id, to: 1 - from });
            }
        }
    }
}

/// A pair without order.
pub(super) fn pair(a: HostId, b: HostId) -> (HostId, HostId) {
    if a <= b { (a, b) } else { (b, a) }
}
