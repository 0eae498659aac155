//! What a lane stands on in these tests: its paths, and what it says over them.
use super::*;

#[derive(Default)]
pub(super) struct Out {
    pub(super) sent: Vec<(Via, Vec<u8>)>,
    pub(super) reports: Vec<Report>,
    pub(super) full: Vec<ConnId>,
    /// Bytes that the others take; None = plenty.
    pub(super) room: Option<usize>,
}

impl Sink for Out {
    fn room(&self, conn: ConnId) -> usize {
        if self.full.contains(&conn) { 0 } else { self.room.unwrap_or(1 << 20) }
    }
    fn send(&mut self, via: Via, frame: &[u8]) {
        self.sent.push((via, frame.to_vec()));
    }
    fn deliver(&mut self, _: &[u8], _: Checksum) {}
    fn punt(&mut self, _: ConnId, _: Option<Handle>, _: &mut [u8]) {}
    fn report(&mut self, report: Report) {
        self.reports.push(report);
    }
}

/// A lane with a relay and two direct paths.
pub(super) struct World {
    pub(super) lane: SendLane,
    pub(super) paths: Paths,
    pub(super) out: Out,
    pub(super) now: Instant,
    /// Opens what the lane seals.
    far: EpochKeys,
}

impl World {
    pub(super) fn new(mode: Mode, main: PathId) -> Self {
        let chain = Chain::start(Zeroizing::new([7; 64]), Suite::ChaCha20Poly1305);
        let (near, far) = (chain.keys(Side::Initiator, &RustCrypto), chain.keys(Side::Responder, &RustCrypto));
        let mut paths = Paths::default();
        for (path, via) in [(PathId::RELAY, RELAY), (DIRECT_PATH, DIRECT), (OTHER_PATH, OTHER)] {
            paths.put(path, via, None, Some(Duration::from_millis(10)), None);
        }
        let now = Instant::from_millis(1000);
        let lane = SendLane::new(now, LinkId(0), 20, near.seal, main, mode, Ring::new(crate::plane::ring::Pool::default()));
        Self { lane, paths, out: Out::default(), now, far }
    }

    /// Frame 0 went whole over a path that lives no more; the direct path carries less.
    pub(super) fn with_a_long_frame() -> Self {
        let mut world = Self::new(Mode::SwitchLossless, OTHER_PATH);
        let long = vec![0; 2 * LEAST_BUDGET];
        assert!(world.lane.send_now(world.now, &world.paths, Plain::whole(2, &long), &mut world.out));
        world.paths.remove(OTHER_PATH);
        world.paths.put(DIRECT_PATH, DIRECT, None, None, Some(LEAST_BUDGET));
        world
    }

    /// False: the lane did not take it.
    pub(super) fn packet(&mut self) -> bool {
        self.lane.send_now(self.now, &self.paths, Plain::whole(2, b"a packet"), &mut self.out)
    }

    pub(super) fn packets(&mut self, count: u32) {
        for _ in 0..count {
            assert!(self.packet(), "there is room");
        }
    }

    pub(super) fn pump(&mut self) {
        self.lane.pump(self.now, &self.paths, &mut FairQueue::default(), &mut self.out, &mut Drops::default());
    }

    pub(super) fn wait(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    pub(super) fn receipt(&mut self, floor: u64, next: u64, mask: &[u64]) {
        assert!(self.lane.receipt(self.now, &mut self.paths, &told(floor, next, mask)));
    }

    /// Sequences of the data frames that went there.
    pub(super) fn data(&self, to: Via) -> Vec<u64> {
        let headers = self.out.sent.iter().filter(|(via, _)| *via == to).map(|(_, frame)| FrameHeader::parse(frame).expect("a frame"));
        headers.filter(|header| header.counter.lane() == 0).map(|header| header.counter.sequence()).collect()
    }

    pub(super) fn control(&self) -> Vec<(Via, LaneControl)> {
        let all = self.out.sent.iter().filter(|(_, frame)| FrameHeader::parse(frame).expect("a frame").counter.lane() != 0);
        let opened = all.map(|(via, frame)| {
            let mut frame = frame.clone();
            let plain = self.far.open.open(&mut frame).expect("sealed by the lane");
            (*via, LaneControl::parse(&plain[1..]).expect("a message of the lane"))
        });
        opened.collect()
    }

    pub(super) fn drains(&self) -> Vec<(Via, PathId)> {
        let drain = |(via, message)| if let LaneControl::Drain { path, .. } = message { Some((via, path)) } else { None };
        self.control().into_iter().filter_map(drain).collect()
    }

    pub(super) fn switches(&self) -> Vec<(Via, PathId, PathId)> {
        let switch = |(via, message)| if let LaneControl::Switch { from, to, .. } = message { Some((via, from, to)) } else { None };
        self.control().into_iter().filter_map(switch).collect()
    }

    /// What the lane repeats of its switch, some seconds later.
    pub(super) fn said_again(&mut self) -> Vec<(Via, PathId, PathId)> {
        self.wait(3000);
        self.out.sent.clear();
        self.lane.alarm(self.now, &self.paths, &mut self.out);
        self.switches()
    }
}

pub(super) fn told(floor: u64, next: u64, mask: &[u64]) -> Receipt {
    let mut bits = ReceiptMask::default();
    for bit in mask {
        bits.set(*bit);
    }
    Receipt { lane: 0, generation: 0, floor, next, path: DIRECT_PATH, delay_us: 0, lost: 0, mask: bits }
}
