//! Several planes that are one: what belongs to which, what they pass on, and what they share.
use super::*;
use crate::wire::INNER_IP;

/// A peer of so many shards.
struct Wide {
    shards: Vec<Plane>,
    ports: Vec<Ports>,
}

impl Wide {
    fn new(own: u8, other: u8, lanes: u8) -> Self {
        let config = PlaneConfig { layer2: false, addresses: vec![host(own)], mac: [2; 6], mode: Mode::SwitchLossless };
        let shards = Plane::shards(&config, lanes);
        let ports = shards.iter().map(|_| Ports::default()).collect();
        let mut wide = Self { shards, ports };
        wide.apply(&Edit::Peer { link: LINK, addresses: vec![host(other)], mac: [4; 6] });
        wide.path(PathId::RELAY, RELAY);
        wide
    }

    fn apply(&mut self, edit: &Edit) {
        for (shard, ports) in self.shards.iter_mut().zip(&mut self.ports) {
            shard.apply(at(1), edit.clone(), ports);
        }
        self.settle();
    }

    fn path(&mut self, path: PathId, via: Via) {
        let window = via.handle.map(|_| 256);
        self.apply(&Edit::Path { link: LINK, path, via, window, rtt: Some(Duration::from_millis(10)), budget: None });
    }

    fn session(&mut self, secret: u8, side: Side, (local, remote): (u32, u32), lanes: u8) {
        let chain = chain(secret);
        let keys = chain.keys(side, &RustCrypto);
        let install = Install { session: chain.session_id(), local, remote, keys, main: PathId::RELAY, lanes, slabs: Slabs::default() };
        self.apply(&Edit::Install { link: LINK, install: Box::new(install) });
        self.apply(&Edit::Promote { link: LINK, local });
    }

    /// A packet of the interface's queue of this shard.
    fn packet(&mut self, shard: usize, number: u32) {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend(number.to_be_bytes());
        self.shards[shard].outbound(at(1), &packet, &mut self.ports[shard]);
        self.settle();
    }

    /// Hands what was passed on to whose it is.
    fn settle(&mut self) {
        while let Some((lane, what)) = self.ports.iter_mut().find_map(|ports| ports.passed.pop_front()) {
            let lane = usize::from(lane);
            what.hand(&mut self.shards[lane], &mut self.ports[lane]);
        }
    }

    /// What the shards have sent: of each its lanes.
    fn lanes_sent(&self) -> Vec<BTreeSet<u8>> {
        let lane = |(_, frame): &(Via, Vec<u8>)| FrameHeader::parse(frame).expect("a frame").counter.lane();
        self.ports.iter().map(|ports| ports.out.iter().map(lane).collect()).collect()
    }

    fn tally(&self) -> Tally {
        let mut tally = self.shards[0].tally();
        for other in &self.shards[1..] {
            tally.add(&other.tally());
        }
        tally
    }
}

/// Carries all that is on its way, over the relay into the first shard of the other end and on the direct path into any.
fn exchange(a: &mut Wide, b: &mut Wide, into: usize) {
    while a.ports.iter().chain(&b.ports).any(|ports| !ports.out.is_empty()) {
        carry_all(a, b, into);
        carry_all(b, a, into);
    }
}

fn carry_all(from: &mut Wide, to: &mut Wide, into: usize) {
    let out: Vec<_> = from.ports.iter_mut().flat_map(|ports| core::mem::take(&mut ports.out)).collect();
    for (via, mut frame) in out {
        let shard = if via.handle.is_some() { 0 } else { into.min(to.shards.len() - 1) };
        let header = via.handle.map(|handle| crate::wire::record_header(TYPE_DLV, 0, handle, frame.len() as u16));
        let mut message = header.map_or_else(Vec::new, |header| header.to_vec());
        message.append(&mut frame);
        to.shards[shard].inbound(at(1), via.conn, &mut message, &mut to.ports[shard]);
        to.settle();
    }
}

fn pair(lanes: (u8, u8)) -> (Wide, Wide) {
    let (mut a, mut b) = (Wide::new(1, 2, lanes.0), Wide::new(2, 1, lanes.1));
    let both = lanes.0.min(lanes.1);
    a.session(7, Side::Initiator, (10, 20), both);
    b.session(7, Side::Responder, (20, 10), both);
    (a, b)
}

// protocol 4.3
#[test]
fn each_shard_seals_in_its_own_lane_and_gets_what_is_in_it_wherever_it_comes() {
    let (mut a, mut b) = pair((4, 4));
    for number in 0..40 {
        a.packet(number as usize % 4, number);
    }
    assert_eq!(a.lanes_sent(), [0, 1, 2, 3].map(|lane| BTreeSet::from([lane])));
    exchange(&mut a, &mut b, 0);
    for shard in 0..4 {
        let of_shard: Vec<u32> = (0..40).filter(|number| *number as usize % 4 == shard).collect();
        assert_eq!(b.ports[shard].delivered, of_shard);
    }
    assert_eq!((a.tally().links[0].tx_frames, b.tally().links[0].rx_frames), (40, 40));
}

// protocol 7.2, 7.3, 7.4
#[test]
fn a_switch_is_one_of_each_lane_and_its_words_go_in_the_lane_beside_it() {
    let (mut a, mut b) = pair((2, 2));
    exchange(&mut a, &mut b, 0);
    for wide in [&mut a, &mut b] {
        wide.path(DIRECT_PATH, DIRECT);
    }
    a.packet(0, 1);
    a.packet(1, 2);
    a.apply(&Edit::Switch { link: LINK, to: DIRECT_PATH });
    assert_eq!(a.lanes_sent(), [BTreeSet::from([0x00, 0x80]), BTreeSet::from([0x01, 0x81])]);
    a.packet(0, 3);
    a.packet(1, 4);
    exchange(&mut a, &mut b, 1);
    assert_eq!((&b.ports[0].delivered[..], &b.ports[1].delivered[..]), (&[1, 3][..], &[2, 4][..]));
    for shard in &mut a.shards {
        let due = shard.deadline().expect("a SWITCH is repeated, or a receipt is due");
        shard.alarm(due.at, &mut Ports::default());
    }
    assert_eq!(a.tally().links[0].main, Some(DIRECT_PATH));
}

// protocol 4.3
#[test]
fn a_peer_with_fewer_lanes_is_spoken_to_in_those() {
    for (lanes, taken) in [((4, 1), [0, 0, 0, 0]), ((4, 3), [0, 1, 2, 0]), ((3, 4), [0, 1, 2, 2])] {
        let (mut a, mut b) = pair(lanes);
        for shard in 0..usize::from(lanes.0) {
            a.packet(shard, shard as u32);
        }
        let sent = a.lanes_sent();
        for shard in 0..lanes.0 {
            let lane = taken[usize::from(shard)];
            assert!(sent[usize::from(lane)].contains(&lane), "{lanes:?}: {sent:?}");
        }
        exchange(&mut a, &mut b, 0);
        let came: BTreeSet<u32> = b.ports.iter().flat_map(|ports| ports.delivered.clone()).collect();
        assert_eq!(came, (0..u32::from(lanes.0)).collect());
        let bytes = a.tally().bytes;
        assert_eq!(bytes.interface_rx, 24 * u64::from(lanes.0), "each packet is counted once");
    }
}

#[test]
fn what_waited_for_a_session_goes_in_the_lanes_that_it_turns_out_to_have() {
    let (mut a, mut b) = (Wide::new(1, 2, 2), Wide::new(2, 1, 1));
    for number in 0..6 {
        a.packet(1, number);
    }
    assert!(a.ports[1].reports.iter().any(|report| report.what == Noticed::Wanted));
    b.session(7, Side::Responder, (20, 10), 1);
    a.session(7, Side::Initiator, (10, 20), 1);
    exchange(&mut a, &mut b, 0);
    assert_eq!(b.ports[0].delivered, (0..6).collect::<Vec<u32>>());
    // the next session has both lanes, as the other end was started anew with more; then this one ends
    let mut c = Wide::new(2, 1, 2);
    c.session(8, Side::Responder, (21, 11), 2);
    a.session(8, Side::Initiator, (11, 21), 2);
    a.packet(1, 7);
    exchange(&mut a, &mut c, 0);
    assert_eq!(c.ports[1].delivered, [7]);
    a.session(9, Side::Initiator, (12, 22), 1);
    a.apply(&Edit::Promote { link: LINK, local: 99 });
    a.packet(1, 8);
    assert!(a.lanes_sent()[0].contains(&0), "a session that nobody knows changes nothing");
    a.apply(&Edit::Retire { link: LINK, local: 12 });
    a.packet(1, 8);
    assert_eq!(a.shards[1].tally().links[0].queued, 1, "no session: it waits where its lane will be known");
}

// protocol 4.3
#[test]
fn a_frame_of_a_lane_that_nobody_has_is_dropped() {
    let (mut a, _) = pair((4, 4));
    let (_, mut b) = pair((1, 1));
    a.packet(3, 1);
    exchange(&mut a, &mut b, 0);
    assert_eq!(b.tally().drops.get(Drop::Unexpected), 1);
    assert!(b.ports[0].delivered.is_empty());
    // three of four lanes exist here, and the session has one of them
    let mut wide = Wide::new(2, 1, 3);
    wide.session(7, Side::Responder, (20, 10), 1);
    let (mut a, _) = pair((2, 2));
    a.packet(1, 1);
    exchange(&mut a, &mut wide, 2);
    assert_eq!(wide.tally().drops.get(Drop::UnknownSession), 1);
}

// protocol 8.4
#[test]
fn a_datagram_from_an_unknown_address_finds_its_lane_and_is_reported_once() {
    let (mut a, mut b) = pair((2, 2));
    let flow = Via { conn: ConnId::flow(1), handle: None };
    b.path(DIRECT_PATH, flow);
    b.apply(&Edit::Switch { link: LINK, to: DIRECT_PATH });
    for number in 0..3 {
        a.packet(1, number);
    }
    let remote = SocketAddr::from(([192, 0, 2, 1], 9));
    for (_, mut frame) in core::mem::take(&mut a.ports[1].out) {
        b.shards[0].datagrams(at(1), None, remote, [&mut frame[..]], &mut b.ports[0]);
        b.settle();
    }
    assert_eq!(b.ports[1].delivered, [0, 1, 2]);
    let roamed = |ports: &Ports| ports.reports.iter().filter(|report| report.what == (Noticed::Roamed { remote })).count();
    assert_eq!((roamed(&b.ports[0]), roamed(&b.ports[1])), (0, 1));
}

// protocol 7.1
#[test]
fn the_lanes_share_the_window_of_the_relay_and_receipts_come_as_often_as_that_wants() {
    let (mut a, mut b) = pair((4, 4));
    for number in 0..100 {
        a.packet(2, number);
    }
    assert_eq!(a.ports[2].out.len(), 64, "a quarter of the window");
    let mut out = core::mem::take(&mut a.ports[2].out);
    for receipts in [0, 1] {
        a.ports[2].out = out.drain(..if receipts == 0 { 15 } else { 1 }).collect();
        carry_all(&mut a, &mut b, 0);
        assert_eq!(b.ports[2].out.len(), receipts, "so often there is a receipt: after 16 frames, not 64");
    }
}

// protocol 7.1
#[test]
fn the_shards_share_the_memory_and_the_counters_are_one_sum() {
    let (mut a, _) = pair((4, 4));
    for shard in 0..4 {
        // the window is full, and then the queue
        for number in 0..3_000 {
            a.packet(shard, number);
        }
    }
    let tally = a.tally();
    assert_eq!(tally.links[0].queued, queue::QUEUE_PACKETS, "four shares are one whole");
    assert_eq!(tally.links[0].tx_frames, 256);
    assert_eq!(tally.drops.get(Drop::QueueFull), 4 * 3_000 - 256 - queue::QUEUE_PACKETS as u64);
    for shard in &a.shards {
        shard.bounds(&mut |bound| assert!(bound.is_kept(), "{bound:?}"));
        assert_eq!(shard.pool.load(core::sync::atomic::Ordering::Relaxed), 4, "one count for all");
    }
}

#[test]
fn the_lane_that_heard_of_a_path_last_says_how_long_it_is() {
    let path = |heard, rtt| PathTally { path: DIRECT_PATH, heard_at: heard, rtt: Some(Duration::from_millis(rtt)) };
    let link = |path| {
        let mut tally = Wide::new(1, 2, 1).tally();
        tally.links[0].paths = vec![path];
        tally
    };
    let mut sum = link(path(Some(at(2)), 20));
    for (heard, rtt, expected) in [(None, 1, 20), (Some(at(1)), 2, 20), (Some(at(3)), 30, 30)] {
        sum.add(&link(path(heard, rtt)));
        assert_eq!(sum.links[0].paths[0].rtt, Some(Duration::from_millis(expected)));
    }
    let mut unknown = link(path(None, 1));
    unknown.links[0].link = LinkId(77);
    sum.add(&unknown);
    assert_eq!(sum.links.len(), 1, "it was forgotten meanwhile");
}

/// What was passed on, owned.
pub(super) enum Owned {
    Packet(Offload, Vec<u8>),
    Waited(LinkId, u8, Vec<u8>),
    Frame(Origin, Vec<u8>),
}

impl Owned {
    pub(super) fn of(what: Passed<'_>) -> Self {
        match what {
            Passed::Packet { offload, packet } => Self::Packet(offload, packet.to_vec()),
            Passed::Waited { link, inner, packet } => {
                assert_eq!(inner, INNER_IP);
                Self::Waited(link, inner, packet.to_vec())
            }
            Passed::Frame { from, bytes } => Self::Frame(from, bytes.to_vec()),
        }
    }

    fn hand(self, plane: &mut Plane, ports: &mut Ports) {
        match self {
            Self::Packet(offload, packet) => plane.passed(at(1), Passed::Packet { offload, packet: &packet }, ports),
            Self::Waited(link, inner, packet) => plane.passed(at(1), Passed::Waited { link, inner, packet: &packet }, ports),
            Self::Frame(from, mut bytes) => plane.passed(at(1), Passed::Frame { from, bytes: &mut bytes }, ports),
        }
    }
}
