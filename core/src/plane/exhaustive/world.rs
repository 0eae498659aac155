//! Two ends of one session and two paths between them, as a state that can be copied and compared. Both ends are the real
//! `Session` of the plane: lanes, ring, window, order; what the control room would order is a step that comes at any moment.
//!
//! ```text
//!   end 0 ── wire [0][relay]  ──▶ end 1        a wire is a queue: in order unless a step says otherwise,
//!         ── wire [0][direct] ──▶              and what is on it is gone when its path dies
//!         ◀── wire [1][…] ───────
//! ```
use super::{check::each_counter_is_sealed_once, stand_in::StandIn};
use crate::{
    config::Mode,
    drops::{Drop, Drops},
    id::{ConnId, Handle, LinkId, PathId},
    offload::Checksum,
    plane::{
        Install, Paths, Report, Sink, Slabs, Via,
        board::Peer,
        bridge::Bridge,
        order::{Order, newer},
        queue::Plain,
        ring::{Pool, Ring},
        session::{Came, Session},
    },
    session::{Chain, EpochKeys, SessionId, Side, Suite},
    time::{Duration, Instant},
    wire::{FRAME_HEADER_LEN, FrameHeader, INNER_IP, LANE_CONTROL_BIT, LaneControl, TAG_LEN},
};
use core::{
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr},
};
use std::{collections::VecDeque, hash::DefaultHasher};
use zeroize::Zeroizing;

const LINK: LinkId = LinkId(0);
/// The relay path and a direct one.
const PATHS: [PathId; 2] = [PathId::RELAY, PathId(2)];
const VIAS: [Via; 2] = [Via { conn: ConnId(0), handle: Some(Handle(9)) }, Via { conn: ConnId(2), handle: None }];

/// How often each kind of step may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// Packets that each end sends.
    pub(super) packets: [u8; 2],
    /// Switches that each end decides on.
    pub(super) switches: [u8; 2],
    /// Paths that die; one always lives.
    pub(super) deaths: u8,
    /// Alarms that ring before all that is on its way has come.
    pub(super) ticks: u8,
    /// Frames that vanish.
    pub(super) losses: u8,
    /// Frames that come twice.
    pub(super) doubles: u8,
    /// Frames that overtake others on the same path.
    pub(super) swaps: u8,
    /// Suspicions: copies go the other path too.
    pub(super) hedges: u8,
    /// Writers that are full for a while.
    pub(super) clogs: u8,
    /// Rekeys that both ends conclude.
    pub(super) rekeys: u8,
}

/// What the ends are made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) budget: Budget,
    pub(super) mode: Mode,
    /// Frames in a ring.
    pub(super) ring_frames: usize,
    /// Frames that may wait for order.
    pub(super) hold_frames: usize,
    /// Frames on their way on the relay path.
    pub(super) relay_window: u64,
    /// A dead path is noticed before any alarm rings.
    pub(super) deaths_are_noticed: bool,
    /// Nothing may be given up, whatever happens.
    pub(super) lossless: bool,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Send { end: usize },
    Carry { from: usize, path: usize, index: usize },
    Lose { from: usize, path: usize },
    Double { from: usize, path: usize },
    Switch { end: usize },
    Die { path: usize },
    FallBack { end: usize },
    Forget { end: usize },
    Hedge { end: usize },
    Calm { end: usize },
    Clog { end: usize },
    Clear { end: usize },
    Rekey { end: usize },
    Tick,
}

/// One end of the session.
#[derive(Clone, Hash)]
pub(super) struct End {
    pub(super) session: Session,
    paths: Paths,
    pub(super) sealed: u8,
    /// Packets that came out here, one bit each, and the highest.
    pub(super) came: u32,
    newest: Option<u8>,
    pub(super) hedged: bool,
    /// The path whose writer is full.
    pub(super) clogged: Option<usize>,
    /// The newest epoch whose keys are here.
    pub(super) epoch: u32,
}

/// All there is.
#[derive(Clone, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "two worlds are equal if their digests are")]
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) ends: [End; 2],
    pub(super) wires: [[VecDeque<Vec<u8>>; 2]; 2],
    pub(super) alive: [bool; 2],
    left: Budget,
    /// Nothing is lost or overtaken on a path that lives.
    in_order: bool,
    /// What went wrong on the way here.
    pub(super) fault: Option<&'static str>,
}

/// Two worlds are the same if all that decides is.
impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        digest(self) == digest(other)
    }
}

/// What one end gives away in one step.
struct Port {
    clogged: Option<usize>,
    out: Vec<(usize, Vec<u8>)>,
    came: Vec<u8>,
    drops: Drops,
}

impl Sink for Port {
    fn room(&self, conn: ConnId) -> usize {
        if self.clogged.is_some_and(|path| VIAS[path].conn == conn) { 0 } else { 1 << 20 }
    }
    fn send(&mut self, via: Via, frame: &[u8]) {
        let path = VIAS.iter().position(|known| *known == via).expect("a frame goes one of the two paths");
        self.out.push((path, frame.to_vec()));
    }
    fn deliver(&mut self, packet: &[u8], _checksum: Checksum) {
        self.came.push(packet[20]);
    }
    fn punt(&mut self, _conn: ConnId, _handle: Option<Handle>, _bytes: &mut [u8]) {}
    fn report(&mut self, _report: Report) {}
}

impl End {
    fn new(now: Instant, end: usize, bounds: &Bounds) -> Self {
        let (local, remote) = [(10, 20), (20, 10)][end];
        let install = Install {
            session: SessionId([7; 16]),
            local,
            remote,
            keys: keys(end, 0),
            main: PathId::RELAY,
            lanes: 1,
            slabs: Slabs::default(),
        };
        let mut session = Session::new(now, LINK, &install, bounds.mode, Pool::default(), 0);
        session.tx.narrow(bounds.ring_frames);
        session.rx.narrow(64, bounds.hold_frames);
        let mut paths = Paths::default();
        for path in 0..2 {
            let window = (path == 0).then_some(bounds.relay_window);
            paths.put(PATHS[path], VIAS[path], window, Some(Duration::from_millis(10)), None);
        }
        Self { session, paths, sealed: 0, came: 0, newest: None, hedged: false, clogged: None, epoch: 0 }
    }

    pub(super) fn main(&self) -> usize {
        usize::from(self.session.tx.main() != PathId::RELAY)
    }

    pub(super) fn knows_of(&self, path: usize) -> bool {
        self.paths.via(PATHS[path]).is_some()
    }

    pub(super) fn ring(&self) -> &Ring {
        self.session.tx.inspect().0
    }

    pub(super) fn order(&self) -> &Order {
        self.session.rx.inspect()
    }
}

impl World {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let now = Instant::from_millis(1000);
        Self {
            now,
            ends: [End::new(now, 0, bounds), End::new(now, 1, bounds)],
            wires: Default::default(),
            alive: [true; 2],
            left: bounds.budget,
            in_order: bounds.budget.losses == 0 && bounds.budget.swaps == 0,
            fault: None,
        }
    }

    /// All steps that may come next.
    pub(super) fn steps(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        for (from, wires) in self.wires.iter().enumerate() {
            for (path, wire) in wires.iter().enumerate().filter(|(_, wire)| !wire.is_empty()) {
                let reach = if self.left.swaps > 0 { wire.len() } else { 1 };
                steps.extend((0..reach).map(|index| Step::Carry { from, path, index }));
                if self.left.losses > 0 {
                    steps.push(Step::Lose { from, path });
                }
                if self.left.doubles > 0 {
                    steps.push(Step::Double { from, path });
                }
            }
        }
        for (end, here) in self.ends.iter().enumerate() {
            let (main, other) = (here.main(), 1 - here.main());
            if !self.alive[main] {
                steps.push(Step::FallBack { end });
            }
            if here.knows_of(other) && !self.alive[other] {
                steps.push(Step::Forget { end });
            }
            if self.left.packets[end] > 0 {
                steps.push(Step::Send { end });
            }
            let both = self.alive[other] && (self.alive[main] || !bounds.deaths_are_noticed);
            if self.left.switches[end] > 0 && both {
                steps.push(Step::Switch { end });
            }
            if self.left.hedges > 0 && both && !here.hedged {
                steps.push(Step::Hedge { end });
            }
            if here.hedged && self.alive[main] {
                steps.push(Step::Calm { end });
            }
            match here.clogged {
                None if self.left.clogs > 0 => steps.push(Step::Clog { end }),
                Some(_) => steps.push(Step::Clear { end }),
                None => {}
            }
        }
        // REKEY2 follows REKEY1: the responder has the new keys first, and the next REKEY1 goes when both have them
        let [initiator, responder] = [self.ends[0].epoch, self.ends[1].epoch];
        if initiator < responder {
            steps.push(Step::Rekey { end: 0 });
        } else if self.left.rekeys > 0 {
            steps.push(Step::Rekey { end: 1 });
        }
        if self.left.deaths > 0 && self.alive == [true; 2] {
            steps.extend((0..2).map(|path| Step::Die { path }));
        }
        let unnoticed = self.ends.iter().any(|end| (0..2).any(|path| end.knows_of(path) && !self.alive[path]));
        if self.left.ticks > 0 && self.deadline().is_some() && !(bounds.deaths_are_noticed && unnoticed) {
            steps.push(Step::Tick);
        }
    }

    /// The world after one step.
    pub(super) fn after(&self, step: Step, bounds: &Bounds) -> Self {
        let mut next = self.clone();
        next.take(step);
        next.check(self, bounds);
        next
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Send { end } => self.send(end),
            Step::Carry { from, path, index } => {
                self.left.swaps -= u8::from(index > 0);
                if let Some(frame) = self.wires[from][path].remove(index) {
                    self.arrive(1 - from, path, frame);
                }
            }
            Step::Lose { from, path } => {
                self.left.losses -= 1;
                self.wires[from][path].pop_front();
            }
            Step::Double { from, path } => {
                self.left.doubles -= 1;
                let wire = &mut self.wires[from][path];
                wire.extend(wire.front().cloned());
            }
            Step::Switch { end } => {
                self.left.switches[end] -= 1;
                let to = PATHS[1 - self.ends[end].main()];
                self.ends[end].hedged = false;
                self.act(end, true, |now, session, peer, port| session.tx.switch(now, &peer.paths, to, port));
            }
            Step::Die { path } => {
                self.left.deaths -= 1;
                self.alive[path] = false;
                for wires in &mut self.wires {
                    wires[path].clear();
                }
            }
            Step::FallBack { end } => self.fall_back(end),
            Step::Forget { end } => self.forget(end),
            Step::Hedge { end } => {
                self.left.hedges -= 1;
                self.ends[end].hedged = true;
                let rescue = PATHS[1 - self.ends[end].main()];
                self.act(end, true, |_, session, peer, _| session.tx.hedge(&peer.paths, rescue));
            }
            Step::Calm { end } => self.calm(end),
            Step::Clog { end } => {
                self.left.clogs -= 1;
                self.ends[end].clogged = Some(self.ends[end].main());
            }
            Step::Clear { end } => self.clear(end),
            Step::Rekey { end } => {
                self.left.rekeys -= u8::from(end == 1);
                self.rekey(end);
            }
            Step::Tick => {
                self.left.ticks -= 1;
                self.tick();
            }
        }
    }

    /// A packet from the interface; one that cannot be sealed now is not counted as sent.
    fn send(&mut self, end: usize) {
        let number = self.ends[end].sealed;
        let packet = packet(end, number);
        let mut taken = false;
        self.act(end, false, |now, session, peer, port| {
            taken = session.tx.send_now(now, &peer.paths, Plain::whole(INNER_IP, &packet), port);
        });
        if taken {
            self.left.packets[end] -= 1;
            self.ends[end].sealed += 1;
        }
    }

    pub(super) fn fall_back(&mut self, end: usize) {
        let (from, to) = (PATHS[self.ends[end].main()], PATHS[1 - self.ends[end].main()]);
        self.ends[end].hedged = false;
        self.act(end, true, |now, session, peer, port| session.tx.fall_back(now, &peer.paths, to, port));
        self.unpath(end, from);
    }

    /// The path that is not in use has died.
    pub(super) fn forget(&mut self, end: usize) {
        self.unpath(end, PATHS[1 - self.ends[end].main()]);
    }

    fn unpath(&mut self, end: usize, path: PathId) {
        self.ends[end].paths.remove(path);
        self.act(end, true, |now, session, peer, port| session.tx.path_lost(now, &peer.paths, path, port));
    }

    pub(super) fn calm(&mut self, end: usize) {
        self.ends[end].hedged = false;
        self.act(end, true, |now, session, peer, port| session.tx.calm(now, &peer.paths, port));
    }

    pub(super) fn clear(&mut self, end: usize) {
        self.ends[end].clogged = None;
        self.act(end, true, |_, _, _, _| ());
    }

    /// The responder makes the keys of the next epoch and only opens; the initiator seals in them at once (protocol 4.5).
    pub(super) fn rekey(&mut self, end: usize) {
        self.ends[end].epoch += 1;
        let keys = keys(end, self.ends[end].epoch);
        self.act(end, true, |now, session, _, _| session.add_keys(now, &keys, end == 0));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ends.iter().filter_map(|end| end.session.deadline(&end.paths)).min()
    }

    /// Time goes on to the next alarm.
    pub(super) fn tick(&mut self) {
        let Some(due) = self.deadline() else { return };
        self.now = self.now.max(due);
        for end in 0..2 {
            if self.ends[end].session.deadline(&self.ends[end].paths).is_some_and(|at| at <= self.now) {
                let (own, other) = (host(end), host(1 - end));
                self.act(end, true, |now, session, peer, port| {
                    let mut drops = core::mem::take(&mut port.drops);
                    session.alarm(now, peer, &mut bridge(own, other), &mut drops, port);
                    port.drops = drops;
                });
            }
        }
    }

    pub(super) fn arrive(&mut self, end: usize, path: usize, mut frame: Vec<u8>) {
        let header = FrameHeader::parse(&frame).expect("a lane makes whole frames");
        let control = header.counter.lane() & LANE_CONTROL_BIT != 0;
        // the stand-in keeps the text in clear
        let message = control.then(|| LaneControl::parse(&frame[FRAME_HEADER_LEN + 1..frame.len() - TAG_LEN]).expect("a whole message"));
        let before = self.ends[end].session.rx.inspect().clone();
        let (own, other) = (host(end), host(1 - end));
        let mut ended = false;
        self.act(end, control, |now, session, peer, port| {
            let mut drops = core::mem::take(&mut port.drops);
            let came = session.inbound(now, header, VIAS[path], &mut frame, peer, &mut bridge(own, other), &mut drops, port);
            ended = came == Some(Came::Ended);
            port.drops = drops;
        });
        if let Some(LaneControl::Switch { generation, .. } | LaneControl::Drain { generation, .. }) = message {
            let settled = generation == before.generation() && before.waiting().1.is_none();
            let old = settled || newer(before.generation(), generation);
            if old && digest(&before) != digest(self.ends[end].order()) {
                self.fault = Some("SWITCH or DRAIN of an old generation changed the order");
            }
            if ended && self.in_order {
                self.fault = Some("DRAIN of a switch was taken for the end of the session");
            }
        }
    }

    /// One event at one end, as the plane has it: what the event causes, then what is owed; and what came of it is checked.
    fn act(&mut self, end: usize, pump: bool, event: impl FnOnce(Instant, &mut Session, &mut Peer, &mut Port)) {
        let now = self.now;
        let here = &mut self.ends[end];
        let before = here.session.tx.clone();
        let mut peer = Peer::default();
        core::mem::swap(&mut peer.paths, &mut here.paths);
        let mut port = Port { clogged: here.clogged, out: Vec::new(), came: Vec::new(), drops: Drops::default() };
        event(now, &mut here.session, &mut peer, &mut port);
        if pump {
            let mut drops = Drops::default();
            here.session.tx.pump(now, &peer.paths, &mut peer.queue, &mut port, &mut drops);
        }
        here.paths = peer.paths;
        if !each_counter_is_sealed_once(&before, &here.session.tx, &port.out) {
            self.fault = Some("a counter was sealed for two texts");
        }
        for number in port.came {
            if here.came & (1 << number) != 0 {
                self.fault = Some("a packet was delivered twice");
            }
            if self.in_order && here.newest.is_some_and(|newest| newest >= number) {
                self.fault = Some("a packet was delivered out of order");
            }
            here.came |= 1 << number;
            here.newest = here.newest.max(Some(number));
        }
        for reason in [Drop::Forged, Drop::Malformed, Drop::Receipt, Drop::UnknownEpoch, Drop::Unexpected, Drop::Source] {
            if port.drops.get(reason) > 0 {
                self.fault = Some("one end refused what the other made");
            }
        }
        for (path, frame) in port.out {
            if self.alive[path] {
                self.wires[end][path].push_back(frame);
            }
        }
    }
}

/// The keys of one epoch at one end.
fn keys(end: usize, epoch: u32) -> EpochKeys {
    let mut chain = Chain::start(Zeroizing::new([7; 64]), Suite::ChaCha20Poly1305);
    for _ in 0..epoch {
        chain = chain.next(&[1; 32], &[2; 32], &[3; 64]);
    }
    chain.keys([Side::Initiator, Side::Responder][end], &StandIn)
}

fn digest(state: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

fn packet(end: usize, number: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, end as u8 + 1, 10, 0, 0, 2 - end as u8];
    packet.push(number);
    packet
}

fn host(end: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, end as u8 + 1).into()
}

fn bridge(own: IpAddr, other: IpAddr) -> Bridge {
    let mut bridge = Bridge::new(false, vec![own], [2; 6]);
    bridge.set_peer(LINK, &[other], [4; 6]);
    bridge
}
