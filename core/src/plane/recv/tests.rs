//! One receiving lane alone: which keys open, and where its receipts go. Each of these tests was written because a change of the code went
//! unnoticed by the stories of two planes.
use super::*;
use crate::{
    crypto::rustcrypto::RustCrypto,
    id::ConnId,
    session::{Chain, Side, Suite},
    wire::{Counter, FRAME_HEADER_LEN, INNER_IP, TAG_LEN},
};
use zeroize::Zeroizing;

const FIRST: Via = Via { conn: ConnId(1), handle: None };
const SECOND: Via = Via { conn: ConnId(2), handle: None };
const FIRST_PATH: PathId = PathId(2);
const SECOND_PATH: PathId = PathId(4);

// protocol 4.5
#[test]
fn old_keys_outlive_a_sleep_once_and_by_ten_seconds() {
    let mut world = World::new();
    world.rekey();
    world.wait(OLD_EPOCH_MOST + ASLEEP);
    world.lane.alarm(world.now, &mut |_, _| ());
    assert!(world.lane.has_epoch(0), "the alarm is so late that this machine must have slept");
    assert!(world.opens(0), "what was sealed meanwhile");
    assert_eq!(world.lane.deadline(), Some(world.now + OLD_EPOCH));
    world.wait(OLD_EPOCH + ASLEEP);
    world.lane.alarm(world.now, &mut |_, _| ());
    assert!(!world.lane.has_epoch(0), "once is enough");
    let mut world = World::new();
    world.rekey();
    world.wait(OLD_EPOCH_MOST + Duration::from_millis(4999));
    world.lane.alarm(world.now, &mut |_, _| ());
    assert!(!world.lane.has_epoch(0), "an alarm that is merely late");
}

// protocol 4.5
#[test]
fn the_keys_in_use_stay_and_those_before_them_end_on_time_without_an_alarm() {
    let mut world = World::new();
    assert!(world.lane.has_epoch(0) && !world.lane.has_epoch(1));
    world.rekey();
    assert!(world.lane.has_epoch(1));
    assert_eq!(world.lane.newest_opened(), 0, "nothing came in it yet");
    assert!(world.opens(1));
    assert_eq!(world.lane.newest_opened(), 1);
    world.wait(OLD_EPOCH);
    assert!(!world.opens(0), "at ten seconds, to the instant");
    world.wait(Duration::from_secs(1));
    world.lane.alarm(world.now, &mut |_, _| ());
    assert!(world.opens(1), "nothing newer came");
}

// protocol 7.4
#[test]
fn a_receipt_goes_the_way_of_the_newest_frame_and_also_where_older_ones_came_lately() {
    let mut world = World::new();
    world.take(FIRST, FIRST_PATH, 5);
    world.take(SECOND, SECOND_PATH, 3);
    let (receipt, first, second) = world.receipt();
    assert_eq!((receipt.path, first, second), (FIRST_PATH, FIRST, Some(SECOND)), "an old frame moves nothing");
    // the newest comes on the other way
    world.take(SECOND, SECOND_PATH, 6);
    let (receipt, first, second) = world.receipt();
    assert_eq!((receipt.path, first, second), (SECOND_PATH, SECOND, Some(FIRST)));
    world.wait(Duration::from_millis(199));
    assert_eq!(world.receipt().2, Some(FIRST));
    world.wait(Duration::from_millis(1));
    assert_eq!(world.receipt().2, None, "200 ms are over");
    // the first receipt after a switch goes both ways, however long ago that was
    world.lane.order().switch(world.now, 1, 7, &mut |_, _| ());
    assert_eq!(world.receipt().2, Some(FIRST));
    assert_eq!(world.receipt().2, None);
}

// protocol 7.4
#[test]
fn the_delay_of_a_receipt_is_that_of_the_newest_frame() {
    let mut world = World::new();
    world.take(FIRST, FIRST_PATH, 5);
    world.wait(Duration::from_millis(3));
    world.take(FIRST, FIRST_PATH, 4);
    world.wait(Duration::from_millis(4));
    assert_eq!(world.receipt().0.delay_us, 7000);
    world.take(FIRST, FIRST_PATH, 6);
    world.wait(Duration::from_millis(2));
    let (receipt, _, second) = world.receipt();
    assert_eq!((receipt.delay_us, second), (2000, None), "there is one way only");
}

// protocol 7.4
#[test]
fn a_receipt_shows_the_hole_before_the_very_first_frame() {
    let mut world = World::new();
    world.lane = RecvLane::new(&world.chains[0].keys(Side::Responder, &RustCrypto), true, Place::ALONE);
    world.take(FIRST, FIRST_PATH, 1);
    world.take(FIRST, FIRST_PATH, 3);
    let receipt = world.receipt().0;
    let shown: Vec<u64> = (0..8).filter(|bit| receipt.mask.get(*bit)).collect();
    assert_eq!((receipt.floor, receipt.next, shown), (0, 4, vec![1, 3]));
}

#[test]
fn a_lane_counts_frames_and_bytes_of_packets_and_tells_its_bounds() {
    let mut world = World::new();
    world.take(FIRST, FIRST_PATH, 0);
    world.take(FIRST, FIRST_PATH, 1);
    let (frames, bytes, _) = world.lane.counters();
    assert_eq!((frames, bytes), (2, 16));
    world.rekey();
    let mut epochs = None;
    world.lane.bounds(&mut |bound| epochs = epochs.or(Some(bound.held)));
    assert_eq!(epochs, Some(2));
}

/// A lane, and the chain of each epoch that was made.
struct World {
    lane: RecvLane,
    chains: Vec<Chain>,
    now: Instant,
    sequence: u64,
}

impl World {
    fn new() -> Self {
        let chain = Chain::start(Zeroizing::new([7; 64]), Suite::ChaCha20Poly1305);
        let lane = RecvLane::new(&chain.keys(Side::Responder, &RustCrypto), false, Place::ALONE);
        Self { lane, chains: vec![chain], now: Instant::from_millis(1000), sequence: 0 }
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// The keys of the next epoch are here.
    fn rekey(&mut self) {
        let next = self.chains[self.chains.len() - 1].next(&[1; 32], &[2; 32], &[3; 64]);
        self.lane.add_epoch(self.now, &next.keys(Side::Responder, &RustCrypto));
        self.chains.push(next);
    }

    /// Whether a frame that is sealed in this epoch opens.
    fn opens(&mut self, epoch: usize) -> bool {
        let header = header(epoch as u8, self.sequence);
        self.sequence += 1;
        let mut frame = [&[0; FRAME_HEADER_LEN][..], &[INNER_IP, 1, 2, 3], &[0; TAG_LEN]].concat();
        self.chains[epoch].keys(Side::Initiator, &RustCrypto).seal.seal(header, &mut frame);
        self.lane.open(self.now, header, &mut frame).is_ok()
    }

    /// An authentic frame with this sequence comes.
    fn take(&mut self, via: Via, path: PathId, sequence: u64) {
        self.lane.take(self.now, header(0, sequence), via, path, &[INNER_IP, 1, 2, 3, 4, 5, 6, 7, 8], &mut |_, _| ());
    }

    fn receipt(&mut self) -> (Receipt, Via, Option<Via>) {
        self.lane.receipt(self.now).expect("frames came")
    }
}

fn header(epoch: u8, sequence: u64) -> FrameHeader {
    FrameHeader { epoch, generation: 0, receiver: 20, counter: Counter::new(0, sequence) }
}
