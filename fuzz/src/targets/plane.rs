//! Two data planes back to back, driven as their nodes would: switches, deaths of a path, hedges, rekeying, new sessions, in any order. What
//! went in comes out once, in order, and all of it (protocol 7), in each flow where an end has several shards. A second mode drives one of
//! them with no sense at all.
use super::{cast, memo::Memo, script::Script};
use shadowmesh_core::{
    config::Mode,
    handshake::Role,
    id::{ConnId, Handle, LinkId, PathId},
    offload::{Checksum, Offload},
    plane::{Edit, Install, Origin, Passed, Plane, PlaneConfig, Report, Sink, Slabs, Via},
    session::{Chain, Side},
    time::{Duration, Instant},
    wire::{LEAST_BUDGET, TYPE_DLV, record_header},
};
use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

/// Steps of one script.
const STEPS: usize = 160;
/// Packets of one script each way: fewer than a relay window, so that nothing has to be dropped.
const PACKETS: u32 = 240;
/// What is on its way comes within so long: less than a receiver waits for order (protocol 7.3).
const OLDEST: Duration = Duration::from_millis(100);

/// A death is known at both ends after so long: before a receiver has waited long enough for what is sent again then (protocol 3.10, 7.3).
const NOTICED: Duration = Duration::from_millis(200);

/// Flows of the packets each way: packet n is of flow n % FLOWS, and a flow stays in one shard.
const FLOWS: u32 = 4;
/// Shards of both ends, at choice.
const SHARDS: [[u8; 2]; 4] = [[1, 1], [4, 4], [4, 1], [2, 4]];

const LINK: LinkId = LinkId(0);
const DIRECT_PATH: PathId = PathId(2);
const RELAY: Via = Via { conn: ConnId(0), handle: Some(Handle(9)) };

/// The first byte chooses between sense and no sense, whether the direct path carries less than the packets have, and how many shards
/// there are.
pub fn plane(data: &[u8]) {
    let mut script = Script::new(data);
    let choice = script.byte();
    let senseless = choice & 1 == 1;
    let mut world = World::new(choice & 2 == 2, !senseless, SHARDS[usize::from(choice >> 2 & 3)]);
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        if senseless {
            world.stray(&mut script);
        } else {
            world.step(&mut script);
        }
    }
    if !senseless {
        world.settle();
        for end in 0..2 {
            let (sent, came) = (world.ends[1 - end].sent, &world.ends[end].ports.delivered);
            let flows = if world.lanes == 1 { 1 } else { FLOWS };
            for flow in 0..flows {
                let of_flow = |numbers: &mut dyn Iterator<Item = u32>| numbers.filter(|n| n % flows == flow).collect::<Vec<u32>>();
                let came = of_flow(&mut came.iter().copied());
                assert_eq!(came, of_flow(&mut (0..sent)), "all that went in comes out once and in order");
            }
        }
    }
}

#[derive(Default)]
struct Ports {
    out: VecDeque<(Instant, Via, Vec<u8>)>,
    delivered: Vec<u32>,
    room: usize,
    now: Instant,
    passed: VecDeque<(u8, Owned)>,
}

/// What one shard passed on to another.
enum Owned {
    Packet(Offload, Vec<u8>),
    Waited(LinkId, u8, Vec<u8>),
    Frame(Origin, Vec<u8>),
}

impl Sink for Ports {
    fn room(&self, _conn: ConnId) -> usize {
        self.room
    }
    fn send(&mut self, via: Via, frame: &[u8]) {
        self.out.push_back((self.now, via, frame.to_vec()));
    }
    fn deliver(&mut self, packet: &[u8], _checksum: Checksum) {
        let number = packet.get(20..24).and_then(<[u8]>::first_chunk).map(|bytes| u32::from_be_bytes(*bytes));
        self.delivered.push(number.expect("only numbered packets go in"));
    }
    fn punt(&mut self, _conn: ConnId, _handle: Option<Handle>, _bytes: &mut [u8]) {}
    fn report(&mut self, _report: Report) {}
    fn pass(&mut self, lane: u8, what: Passed<'_>) {
        let owned = match what {
            Passed::Packet { offload, packet } => Owned::Packet(offload, packet.to_vec()),
            Passed::Waited { link, inner, packet } => Owned::Waited(link, inner, packet.to_vec()),
            Passed::Frame { from, bytes } => Owned::Frame(from, bytes.to_vec()),
        };
        self.passed.push_back((lane, owned));
    }
}

struct End {
    shards: Vec<Plane>,
    ports: Ports,
    side: Side,
    sent: u32,
    /// The death of the direct path is not known here yet.
    mourns: bool,
    hedged: bool,
}

impl End {
    fn new(side: Side, own: u8, other: u8, shards: u8) -> Self {
        let config = PlaneConfig { layer2: false, addresses: vec![host(own)], mac: [2; 6], mode: Mode::SwitchLossless };
        let ports = Ports { room: 1 << 20, ..Ports::default() };
        let mut end = Self { shards: Plane::shards(&config, shards), ports, side, sent: 0, mourns: false, hedged: false };
        end.apply(Instant::ZERO, &Edit::Peer { link: LINK, addresses: vec![host(other)], mac: [4; 6] });
        end
    }

    fn apply(&mut self, now: Instant, edit: &Edit) {
        self.ports.now = now;
        for shard in &mut self.shards {
            shard.apply(now, edit.clone(), &mut self.ports);
        }
        self.hand_over(now);
    }

    /// What shards passed on to each other.
    fn hand_over(&mut self, now: Instant) {
        while let Some((lane, what)) = self.ports.passed.pop_front() {
            let shard = &mut self.shards[usize::from(lane)];
            match what {
                Owned::Packet(offload, packet) => shard.passed(now, Passed::Packet { offload, packet: &packet }, &mut self.ports),
                Owned::Waited(link, inner, packet) => shard.passed(now, Passed::Waited { link, inner, packet: &packet }, &mut self.ports),
                Owned::Frame(from, mut bytes) => shard.passed(now, Passed::Frame { from, bytes: &mut bytes }, &mut self.ports),
            }
        }
    }

    /// A message of a connection, for one shard.
    fn inbound(&mut self, now: Instant, shard: usize, conn: ConnId, message: &mut [u8]) {
        self.ports.now = now;
        let shard = shard.min(self.shards.len() - 1);
        self.shards[shard].inbound(now, conn, message, &mut self.ports);
        self.hand_over(now);
    }

    fn packet(&mut self, now: Instant, len: usize) {
        let (from, to) = if self.side == Side::Initiator { (1, 2) } else { (2, 1) };
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, from, 10, 0, 0, to];
        packet.extend(self.sent.to_be_bytes());
        packet.resize(len, 7);
        let shard = (self.sent % FLOWS) as usize % self.shards.len();
        self.sent += 1;
        self.ports.now = now;
        self.shards[shard].outbound(now, &packet, &mut self.ports);
        self.hand_over(now);
    }
}

struct World {
    ends: [End; 2],
    now: Instant,
    chain: Arc<Chain>,
    sessions: u32,
    /// The connection of the direct path while it lives.
    direct: Option<ConnId>,
    /// When the last one died.
    died_at: Instant,
    next_conn: u64,
    /// The longest frame of the direct path, when it is small.
    budget: Option<usize>,
    /// A path is small as long as it lives.
    sense: bool,
    /// Data lanes of each session.
    lanes: u8,
}

impl World {
    fn new(small: bool, sense: bool, shards: [u8; 2]) -> Self {
        let budget = small.then_some(LEAST_BUDGET);
        let chain = Arc::clone(&cast::genuine(Role::PeerPeer).concluded.chain);
        let ends = [End::new(Side::Initiator, 1, 2, shards[0]), End::new(Side::Responder, 2, 1, shards[1])];
        let mut world = Self {
            ends,
            now: Instant::from_millis(1_000),
            chain,
            sessions: 0,
            direct: None,
            died_at: Instant::ZERO,
            next_conn: 2,
            budget,
            sense,
            lanes: shards[0].min(shards[1]),
        };
        for end in &mut world.ends {
            let edit = Edit::Path {
                link: LINK,
                path: PathId::RELAY,
                via: RELAY,
                // all packets at once: what waits before sealing is sealed in another order, since each is a flow of its own
                window: Some(if small { 512 } else { 256 }),
                rtt: Some(Duration::from_millis(10)),
                budget: None,
            };
            end.apply(world.now, &edit);
        }
        world.session();
        world
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte();
        let end = usize::from(op >> 7);
        match op % 12 {
            0 | 1 => {
                for _ in 0..=script.below(16) {
                    if self.ends[end].sent < PACKETS {
                        self.packet(end, self.now);
                    }
                }
            }
            2 | 3 => {
                let direct = op & 0x40 != 0;
                for _ in 0..=script.below(16) {
                    self.carry(end, direct);
                }
            }
            4 => self.wait(u64::from(script.byte() % 64)),
            5 => self.rise(),
            6 => self.switch(end, op & 0x40 != 0),
            7 => self.die(),
            8 => self.learn(end),
            9 => self.doubt(end),
            10 => self.rekey(),
            _ => self.session(),
        }
    }

    fn packet(&mut self, end: usize, now: Instant) {
        self.ends[end].packet(now, if self.budget.is_some() { 1_280 } else { 24 });
    }

    /// Delivers the oldest message of one path.
    fn carry(&mut self, from: usize, direct: bool) {
        let out = &mut self.ends[from].ports.out;
        let place = out.iter().position(|(_, via, _)| via.handle.is_none() == direct);
        let Some((_, via, frame)) = place.and_then(|place| out.remove(place)) else { return };
        let fits = !self.sense || via.handle.is_some() || self.budget.is_none_or(|budget| frame.len() <= budget);
        assert!(fits, "no frame is too long for its path");
        self.arrive(1 - from, via, frame);
    }

    fn arrive(&mut self, to: usize, via: Via, mut frame: Vec<u8>) {
        let end = &mut self.ends[to];
        match via.handle {
            // what went into a connection that died is lost; what comes finds the shard of its lane as a socket's filter would have it
            None if self.direct == Some(via.conn) => {
                let lane = frame.get(8).map_or(0, |lane| usize::from(lane & 0x7f));
                end.inbound(self.now, lane, via.conn, &mut frame);
            }
            None => {}
            Some(handle) => {
                let mut record = record_header(TYPE_DLV, 0, handle, frame.len() as u16).to_vec();
                record.extend(frame);
                end.inbound(self.now, 0, via.conn, &mut record);
            }
        }
    }

    fn wait(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now = self.now + Duration::from_millis(1);
            if self.now.since(self.died_at) >= NOTICED {
                for end in 0..2 {
                    self.learn(end);
                }
            }
            for end in &mut self.ends {
                end.ports.now = self.now;
                for shard in &mut end.shards {
                    shard.alarm(self.now, &mut end.ports);
                    assert!(shard.deadline().is_none_or(|due| due.at > self.now), "an alarm rings for ever");
                }
                end.hand_over(self.now);
            }
            for from in 0..2 {
                while let Some((at, via, _)) = self.ends[from].ports.out.front()
                    && self.now.since(*at) >= OLDEST
                {
                    let direct = via.handle.is_none();
                    self.carry(from, direct);
                }
            }
        }
    }

    /// A direct path is proven at both ends.
    fn rise(&mut self) {
        if self.direct.is_some() || self.ends.iter().any(|end| end.mourns) {
            return;
        }
        self.next_conn += 2;
        let via = Via { conn: ConnId(self.next_conn), handle: None };
        self.direct = Some(via.conn);
        for end in &mut self.ends {
            end.apply(
                self.now,
                &Edit::Path { link: LINK, path: DIRECT_PATH, via, window: None, rtt: Some(Duration::from_millis(5)), budget: self.budget },
            );
        }
    }

    fn switch(&mut self, end: usize, to_relay: bool) {
        let end = &mut self.ends[end];
        if self.direct.is_some() && !end.hedged {
            let to = if to_relay { PathId::RELAY } else { DIRECT_PATH };
            end.apply(self.now, &Edit::Switch { link: LINK, to });
        }
    }

    /// The direct path dies with all that is on it.
    fn die(&mut self) {
        if self.direct.take().is_some() {
            self.died_at = self.now;
            for end in &mut self.ends {
                end.mourns = true;
            }
        }
    }

    /// One end learns of it.
    fn learn(&mut self, end: usize) {
        let end = &mut self.ends[end];
        if core::mem::take(&mut end.mourns) {
            end.hedged = false;
            end.apply(self.now, &Edit::FallBack { link: LINK, to: PathId::RELAY });
            end.apply(self.now, &Edit::Unpath { link: LINK, path: DIRECT_PATH });
        }
    }

    /// One end begins or ends to suspect its direct path.
    fn doubt(&mut self, end: usize) {
        let (end, alive) = (&mut self.ends[end], self.direct.is_some());
        if end.hedged && !end.mourns {
            end.hedged = false;
            end.apply(self.now, &Edit::Calm { link: LINK });
        } else if !end.hedged && (alive || end.mourns) {
            end.hedged = true;
            end.apply(self.now, &Edit::Hedge { link: LINK, rescue: PathId::RELAY });
        }
    }

    fn rekey(&mut self) {
        let epoch = self.chain.epoch();
        self.chain = Arc::new(self.chain.next(&[1; 32], &[2; 32], &[epoch as u8; 64]));
        // the responder opens first and seals when the first frame of the new epoch comes (protocol 4.5)
        for (at, seal) in [(1, false), (0, true)] {
            let (keys, local) = (self.chain.keys(self.ends[at].side, &Memo), self.local(at));
            self.ends[at].apply(self.now, &Edit::Epoch { link: LINK, local, keys, seal });
        }
    }

    fn local(&self, end: usize) -> u32 {
        self.sessions * 2 + end as u32
    }

    /// A new session takes over at both ends.
    fn session(&mut self) {
        if self.sessions >= 4 {
            return;
        }
        self.sessions += 1;
        let secret = self.sessions as u8;
        self.chain = Arc::new(cast::genuine(Role::PeerPeer).concluded.chain.next(&[secret; 32], &[9; 32], &[9; 64]));
        let (main, lanes) = (PathId::RELAY, self.lanes);
        for at in 0..2 {
            let (local, remote) = (self.local(at), self.local(1 - at));
            let keys = self.chain.keys(self.ends[at].side, &Memo);
            let install = Box::new(Install { session: self.chain.session_id(), local, remote, keys, main, lanes, slabs: Slabs::default() });
            self.ends[at].apply(self.now, &Edit::Install { link: LINK, install });
        }
        for at in 0..2 {
            let local = self.local(at);
            self.ends[at].apply(self.now, &Edit::Promote { link: LINK, local });
            self.ends[at].hedged = false;
        }
    }

    /// Whatever is known late is known now, and everything on its way arrives.
    fn settle(&mut self) {
        for end in 0..2 {
            self.learn(end);
            if self.ends[end].hedged {
                self.doubt(end);
            }
        }
        for _ in 0..3_000 {
            while let Some(from) = (0..2).find(|from| !self.ends[*from].ports.out.is_empty()) {
                let direct = self.ends[from].ports.out.front().is_some_and(|(_, via, _)| via.handle.is_none());
                self.carry(from, direct);
            }
            if (0..2).all(|end| self.ends[end].ports.delivered.len() >= self.ends[1 - end].sent as usize) {
                break;
            }
            self.wait(1);
        }
    }

    /// Anything at all: the plane only must not panic, forge or double.
    fn stray(&mut self, script: &mut Script<'_>) {
        let op = script.byte();
        let end = usize::from(op >> 7);
        let path = PathId(u32::from(script.byte() % 4));
        let via =
            Via { conn: ConnId(u64::from(script.byte() % 4)), handle: (op & 0x40 != 0).then_some(Handle(u32::from(script.byte() % 4))) };
        let now = self.now;
        match op % 16 {
            0 => self.packet(end, now),
            1 => self.now = now + Duration::from_micros(u64::from(script.u16())),
            2 => {
                let rtt = (script.byte() & 1 == 0).then(|| Duration::from_micros(u64::from(script.u32())));
                let window = (script.byte() & 1 == 0).then(|| u64::from(script.byte()));
                self.ends[end]
                    .apply(now, &Edit::Path { link: LINK, path, via, window, rtt, budget: self.budget.filter(|_| rtt.is_some()) });
            }
            3 => self.ends[end].apply(now, &Edit::Unpath { link: LINK, path }),
            4 => self.ends[end].apply(now, &Edit::Switch { link: LINK, to: path }),
            5 => self.ends[end].apply(now, &Edit::FallBack { link: LINK, to: path }),
            6 => self.ends[end].apply(now, &Edit::Hedge { link: LINK, rescue: path }),
            7 => self.ends[end].apply(now, &Edit::Calm { link: LINK }),
            8 => self.ends[end].apply(now, &Edit::Retire { link: LINK, local: script.u32() % 10 }),
            9 => self.session(),
            10 => self.rekey(),
            11 => self.ends[end].ports.room = script.below(4096),
            12 => {
                let End { shards, ports, .. } = &mut self.ends[end];
                for shard in shards {
                    shard.writable(now, via.conn, ports);
                }
            }
            13 => {
                // any message that is on its way, on any path, and perhaps again
                let (place, keep) = (script.below(self.ends[end].ports.out.len()), script.byte().is_multiple_of(4));
                let Some((_, _, frame)) = self.ends[end].ports.out.get(place).cloned() else { return };
                if !keep {
                    self.ends[end].ports.out.remove(place);
                }
                self.direct = Some(via.conn);
                self.arrive(1 - end, via, frame);
            }
            14 => {
                let mut bytes = script.piece().to_vec();
                self.ends[end].inbound(now, usize::from(op >> 4 & 3), via.conn, &mut bytes);
            }
            _ => self.wait(u64::from(script.byte())),
        }
        let mut came = self.ends[end].ports.delivered.clone();
        came.sort_unstable();
        assert!(came.windows(2).all(|pair| pair[0] < pair[1]), "a packet came out twice");
        assert!(came.last().is_none_or(|last| *last < self.ends[1 - end].sent));
    }
}

fn host(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}
