//! A member of ill will: it holds the keys of a session, so its frames open, and everything inside them is its own. Whatever it seals, the
//! other end keeps its bounds, does not panic, comes to rest, and believes no receipt for what it never sent (protocol 4, 7.2 to 7.4).
use super::{cast, memo::Memo, script::Script};
use shadowmesh_core::{
    config::Mode,
    handshake::Role,
    id::{ConnId, Handle, LinkId, PathId},
    offload::Checksum,
    plane::{Edit, Install, Plane, PlaneConfig, Report, Sink, Slabs, Via},
    session::{EpochKeys, Side},
    time::{Duration, Instant},
    wire::{
        Counter, FrameHeader, INNER_CONTROL, INNER_IP, INNER_PIECE, LEAST_BUDGET, LaneControl, Receipt, ReceiptMask, TYPE_DLV,
        record_header,
    },
};
use std::net::{IpAddr, Ipv4Addr};

/// Steps of one script.
const STEPS: usize = 192;
/// Frames that one frame of the other end may cause at once: a window of copies, and receipts.
const ANSWERS: usize = 2_048;

const LINK: LinkId = LinkId(0);
const RELAY: Via = Via { conn: ConnId(0), handle: Some(Handle(9)) };
const DIRECT: Via = Via { conn: ConnId(2), handle: None };

/// Frames of any lane, number, generation and content, between packets of our own and time.
pub fn lanes(data: &[u8]) {
    let mut script = Script::new(data);
    let mut scene = Scene::new(script.byte());
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        scene.step(&mut script);
    }
    scene.end();
}

#[derive(Default)]
struct Ports {
    frames: usize,
    room: usize,
    delivered: usize,
}

impl Sink for Ports {
    fn room(&self, _conn: ConnId) -> usize {
        self.room
    }
    fn send(&mut self, _via: Via, frame: &[u8]) {
        assert!(frame.len() <= 9_216, "a frame is within its bound (protocol 9.4)");
        self.frames += 1;
    }
    fn deliver(&mut self, packet: &[u8], _checksum: Checksum) {
        assert_eq!(packet.get(12..16), Some(&[10, 0, 0, 2][..]), "the source is the other end's own (protocol 2.5)");
        self.delivered += 1;
    }
    fn punt(&mut self, _conn: ConnId, _handle: Option<Handle>, _bytes: &mut [u8]) {}
    fn report(&mut self, _report: Report) {}
}

struct Scene {
    plane: Plane,
    ports: Ports,
    theirs: EpochKeys,
    now: Instant,
    sent: u32,
    injected: usize,
    highest: u64,
    /// The direct path carries less than the packets have, and those of the other end come in two pieces.
    small: bool,
}

impl Scene {
    fn new(choice: u8) -> Self {
        let mode = [Mode::SwitchLossless, Mode::Reliable, Mode::Redundant, Mode::Off][usize::from(choice & 3)];
        let config = PlaneConfig { layer2: false, addresses: vec![host(1)], mac: [2; 6], mode };
        let chain = &cast::genuine(Role::PeerPeer).concluded.chain;
        let mut scene = Self {
            plane: Plane::new(config),
            ports: Ports { room: 1 << 20, ..Ports::default() },
            theirs: chain.keys(Side::Responder, &Memo),
            now: Instant::from_millis(1_000),
            sent: 0,
            injected: 0,
            highest: 0,
            small: choice & 4 != 0,
        };
        scene.apply(Edit::Peer { link: LINK, addresses: vec![host(2)], mac: [4; 6] });
        for (path, via, window) in [(PathId::RELAY, RELAY, Some(64)), (PathId(2), DIRECT, None)] {
            let budget = (scene.small && window.is_none()).then_some(LEAST_BUDGET);
            scene.apply(Edit::Path { link: LINK, path, via, window, rtt: Some(Duration::from_millis(4)), budget });
        }
        let keys = chain.keys(Side::Initiator, &Memo);
        let install =
            Install { session: chain.session_id(), local: 11, remote: 22, keys, main: PathId::RELAY, lanes: 1, slabs: Slabs::default() };
        scene.apply(Edit::Install { link: LINK, install: Box::new(install) });
        scene.apply(Edit::Promote { link: LINK, local: 11 });
        scene
    }

    fn apply(&mut self, edit: Edit) {
        self.plane.apply(self.now, edit, &mut self.ports);
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte();
        match op % 8 {
            0 => self.packets(1 + script.below(16)),
            1 => self.data(script),
            2..=4 => {
                let body = control(op, script);
                self.frame(script, op, 0x80, INNER_CONTROL, &body);
            }
            5 => {
                let (lane, inner) = (script.byte(), script.byte());
                let body = script.piece().to_vec();
                self.frame(script, op, lane, inner, &body);
            }
            6 => self.wait(u64::from(script.byte())),
            _ => match script.byte() % 6 {
                0 => self.apply(Edit::Switch { link: LINK, to: PathId(2) }),
                1 => self.apply(Edit::Switch { link: LINK, to: PathId::RELAY }),
                2 => self.apply(Edit::Hedge { link: LINK, rescue: PathId::RELAY }),
                3 => self.apply(Edit::FallBack { link: LINK, to: PathId::RELAY }),
                4 => self.ports.room = script.below(4096),
                _ => {
                    self.ports.room = 1 << 20;
                    self.plane.writable(self.now, ConnId(0), &mut self.ports);
                }
            },
        }
    }

    fn packets(&mut self, count: usize) {
        for _ in 0..count {
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            packet.extend(self.sent.to_be_bytes());
            packet.resize(if self.small { 1_280 } else { 24 }, 7);
            self.sent += 1;
            self.plane.outbound(self.now, &packet, &mut self.ports);
        }
    }

    /// A packet on the data lane, mostly the next one.
    fn data(&mut self, script: &mut Script<'_>) {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
        packet.extend_from_slice(script.piece());
        if script.byte().is_multiple_of(16) {
            packet[15] = script.byte();
        }
        if !self.small {
            self.frame(script, 0, 0, INNER_IP, &packet);
            return;
        }
        let places = script.byte();
        let (head, tail) = packet.split_at(script.below(packet.len()));
        for (place, part) in [(places & 0x8f, head), (0x81 ^ (places >> 4), tail)] {
            self.frame(script, 0, 0, INNER_PIECE, &[&[INNER_IP, place], part].concat());
        }
    }

    /// Seals a frame and lets it arrive.
    fn frame(&mut self, script: &mut Script<'_>, op: u8, lane: u8, inner: u8, body: &[u8]) {
        let sequence = match script.byte() % 8 {
            0 => script.u64() & Counter::MAX_SEQUENCE,
            1 => self.highest.saturating_add(u64::from(script.u16())),
            2 => u64::from(script.byte()),
            _ => self.highest + 1,
        };
        let sequence = sequence.min(Counter::MAX_SEQUENCE - 1);
        if sequence < 1 << 40 {
            self.highest = self.highest.max(sequence);
        }
        let header = FrameHeader { epoch: 0, generation: script.byte() % 4, receiver: 11, counter: Counter::new(lane, sequence) };
        let mut frame = cast::sealed(&self.theirs.seal, header, inner, body);
        let before = self.ports.frames;
        if op & 0x80 == 0 {
            let mut record = record_header(TYPE_DLV, 0, Handle(9), frame.len() as u16).to_vec();
            record.extend(frame);
            self.plane.inbound(self.now, RELAY.conn, &mut record, &mut self.ports);
        } else {
            self.plane.inbound(self.now, DIRECT.conn, &mut frame, &mut self.ports);
        }
        self.injected += 1;
        assert!(self.ports.frames - before <= ANSWERS, "{} frames for one", self.ports.frames - before);
    }

    fn wait(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        for turns in 0.. {
            assert!(turns < 10_000, "alarms without end");
            let Some(due) = self.plane.deadline().filter(|due| due.at <= until) else { break };
            self.now = self.now.max(due.at);
            self.plane.alarm(self.now, &mut self.ports);
            assert!(self.plane.deadline().is_none_or(|due| due.at > self.now), "an alarm rings for ever");
        }
        self.now = until;
    }

    fn end(mut self) {
        self.wait(3_000);
        assert!(self.ports.delivered <= self.injected, "more came out than went in");
        let tally = self.plane.tally();
        let link = tally.links.first().expect("the one link");
        let most = u64::from(self.sent) * if self.small { 2 } else { 1 };
        assert!(link.tx_frames <= most, "{} frames of {} packets sealed", link.tx_frames, self.sent);
        assert!(link.rx_frames <= self.injected as u64);
    }
}

fn host(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn control(op: u8, script: &mut Script<'_>) -> Vec<u8> {
    let lane = if script.byte().is_multiple_of(16) { script.byte() % 0x7f } else { 0 };
    let generation = script.byte() % 4;
    let path = PathId(u32::from(script.byte() % 4));
    let number = |script: &mut Script<'_>| match script.byte() % 4 {
        0 => script.u64() & Counter::MAX_SEQUENCE,
        1 => u64::from(script.u16()),
        _ => u64::from(script.byte()),
    };
    let message = match op % 8 {
        2 => LaneControl::Switch { lane, generation, start: number(script), from: path, to: PathId(2 - path.0.min(2)) },
        3 => LaneControl::Drain { lane, generation, start: number(script), path },
        _ => {
            let words: Vec<u64> = (0..script.below(17)).map(|_| script.u64()).collect();
            LaneControl::Receipt(Receipt {
                lane,
                generation,
                floor: number(script),
                next: number(script),
                path,
                delay_us: script.u32(),
                lost: script.u32(),
                mask: ReceiptMask::from_words(&words),
            })
        }
    };
    let mut body = Vec::new();
    message.emit(&mut body);
    body
}
