//! The control stream over paths that lose, double and reorder.
use super::*;
use crate::wire::{CLOSE_DOWN, control::tests::any_peer_message};
use proptest::{collection::vec, prelude::*};

const HOUR: Duration = Duration::from_hours(1);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn update(len: usize) -> PeerMessage {
    PeerMessage::Update { params: vec![0x55; len] }
}

/// All pieces that `stream` gives now.
fn pieces(stream: &mut ControlStream, now: Instant) -> Vec<(u32, Vec<u8>)> {
    let mut list = Vec::new();
    while let Some(control) = stream.poll_transmit(now) {
        let NodeControl::Stream { offset, bytes } = control else { panic!("{control:?}") };
        list.push((offset, bytes));
        assert!(list.len() < 1_000, "poll_transmit comes to an end");
    }
    list
}

fn messages(stream: &mut ControlStream) -> Vec<Result<PeerMessage, Malformed>> {
    std::iter::from_fn(|| stream.poll_message()).collect()
}

#[test]
fn a_message_goes_across_and_is_acknowledged() {
    let (mut a, mut b) = (ControlStream::new(), ControlStream::new());
    a.send(&PeerMessage::Close { reason: CLOSE_DOWN }).expect("there is room");
    let sent = pieces(&mut a, at(0));
    assert_eq!(sent, [(0, vec![0, 2, 0x24, 0])], "length, type, body");
    b.on_stream(sent[0].0, &sent[0].1);
    assert_eq!(messages(&mut b), [Ok(PeerMessage::Close { reason: CLOSE_DOWN })]);
    assert_eq!(b.poll_ack(), Some(NodeControl::Ack { offset: 4 }));
    assert_eq!(b.poll_ack(), None);
    a.on_ack(4);
    assert!(a.is_settled());
    assert_eq!(a.deadline(), None);
    assert_eq!(pieces(&mut a, at(0) + HOUR), []);
}

// protocol 7.8
#[test]
fn a_long_message_goes_in_pieces_of_at_most_1000_bytes() {
    let mut a = ControlStream::new();
    for _ in 0..3 {
        a.send(&update(1_024)).expect("there is room");
    }
    let sent = pieces(&mut a, at(0));
    let lengths: Vec<_> = sent.iter().map(|(offset, bytes)| (*offset, bytes.len())).collect();
    assert_eq!(lengths, [(0, 1000), (1000, 1000), (2000, 1000), (3000, 81)]);
}

#[test]
fn new_pieces_go_before_late_ones() {
    let mut a = ControlStream::new();
    a.set_rto(Duration::from_millis(10));
    a.send(&update(1)).expect("there is room");
    assert_eq!(pieces(&mut a, at(0)).len(), 1);
    a.send(&update(2)).expect("there is room");
    let offsets: Vec<_> = pieces(&mut a, at(10)).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [4, 0]);
}

// protocol 7.8
#[test]
fn waits_double_up_to_two_seconds() {
    let mut a = ControlStream::new();
    a.set_rto(Duration::from_millis(100));
    a.send(&update(1)).expect("there is room");
    assert_eq!(a.deadline(), Some(Instant::ZERO));
    assert_eq!(pieces(&mut a, at(0)).len(), 1);
    let mut now = 0;
    for wait in [100, 200, 400, 800, 1600, 2000, 2000] {
        assert_eq!(a.deadline(), Some(at(now + wait)));
        assert_eq!(pieces(&mut a, at(now + wait - 1)), []);
        now += wait;
        assert_eq!(pieces(&mut a, at(now)).len(), 1);
    }
    a.resend_all(at(now + 1));
    assert_eq!(pieces(&mut a, at(now + 1)).len(), 1);
    assert_eq!(a.deadline(), Some(at(now + 101)));
}

#[test]
fn a_rest_that_was_acknowledged_in_part_is_sent_again_in_part() {
    let mut a = ControlStream::new();
    a.set_rto(Duration::from_millis(10));
    a.send(&update(500)).expect("there is room");
    let whole = pieces(&mut a, at(0)).remove(0).1;
    a.on_ack(100);
    assert_eq!(pieces(&mut a, at(10)), [(100, whole[100..].to_vec())]);
}

#[test]
fn a_full_stream_refuses_and_takes_again_after_an_acknowledgement() {
    let mut a = ControlStream::new();
    let mut taken = 0;
    while a.send(&update(1_021)) == Ok(()) {
        taken += 1;
    }
    assert_eq!(taken, 64, "64 KiB of 1,024 B each");
    assert_eq!(a.send(&PeerMessage::RekeyPlease), Err(SendError::Full));
    assert_eq!(pieces(&mut a, at(0)).len(), MAX_PIECES);
    a.on_ack(1_024);
    assert_eq!(a.send(&update(1_021)), Ok(()));
}

// protocol 7.8
#[test]
fn an_acknowledgement_of_what_was_not_sent_is_counted_and_changes_nothing() {
    let mut a = ControlStream::new();
    a.send(&update(100)).expect("there is room");
    a.on_ack(1);
    assert_eq!(a.drops().wrong_ack, 1);
    assert_eq!(pieces(&mut a, at(0)).len(), 1);
    a.on_ack(u32::MAX);
    assert_eq!(a.drops().wrong_ack, 2);
    assert!(!a.is_settled());
    a.on_ack(50);
    a.on_ack(20);
    assert_eq!(a.drops().wrong_ack, 2, "an old acknowledgement is no fault");
}

#[test]
fn a_malformed_message_is_left_out_and_the_stream_goes_on() {
    let mut b = ControlStream::new();
    b.on_stream(0, &[0, 2, 0x77, 0, 0, 0, 0, 1, 0x23]);
    assert_eq!(messages(&mut b), [Err(Malformed("peer message type")), Err(Malformed("peer message type")), Ok(PeerMessage::RekeyPlease)]);
    assert_eq!(b.drops().malformed, 2);
    assert_eq!(b.failure(), None);
}

// protocol 7.8
#[test]
fn a_declared_length_above_4096_ends_the_stream() {
    let mut b = ControlStream::new();
    b.on_stream(0, &[0x10, 0x01, 0x23]);
    assert_eq!(messages(&mut b), [Err(Malformed("control stream message length"))]);
    assert_eq!(b.failure(), Some(StreamFailure::MessageTooLong));
    assert_eq!(b.send(&PeerMessage::RekeyPlease), Err(SendError::Failed(StreamFailure::MessageTooLong)));
    b.on_stream(3, &[1; 1000]);
    assert_eq!(messages(&mut b), []);
}

// protocol 7.8
#[test]
fn an_offset_beyond_the_end_ends_the_stream() {
    let mut b = ControlStream::new();
    b.on_stream(END_OFFSET - 2, &[1, 2]);
    assert_eq!((b.failure(), b.drops().beyond_window), (None, 1));
    b.on_stream(END_OFFSET - 2, &[1, 2, 3]);
    assert_eq!(b.failure(), Some(StreamFailure::OffsetTooHigh));
    let mut b = ControlStream::new();
    b.on_stream(u32::MAX, &[1; 1000]);
    assert_eq!(b.failure(), Some(StreamFailure::OffsetTooHigh));
}

#[test]
fn a_stream_that_failed_sends_nothing_more_and_says_why() {
    let (mut long, mut far) = (ControlStream::new(), ControlStream::default());
    for stream in [&mut long, &mut far] {
        stream.send(&PeerMessage::RekeyPlease).expect("there is room");
        assert_eq!(stream.deadline(), Some(Instant::ZERO), "a piece waits");
    }
    long.on_stream(0, &[0x10, 0x01, 0x23]);
    assert_eq!(messages(&mut long).len(), 1);
    far.on_stream(END_OFFSET, &[1]);
    for (mut stream, reason) in [(long, "control stream message length"), (far, "control stream offset")] {
        assert_eq!((stream.poll_transmit(at(0)), stream.deadline()), (None, None));
        let error = stream.send(&PeerMessage::RekeyPlease).expect_err("it has failed");
        assert_eq!(error.to_string(), format!("the control stream failed: {reason}"));
    }
    assert_eq!(SendError::Full.to_string(), "the control stream is full");
    assert_eq!(SendError::Exhausted.to_string(), "the control stream has reached its last offset");
}

#[test]
fn a_stream_at_its_end_refuses() {
    let mut a = ControlStream::new();
    a.acked = END_OFFSET - 8;
    a.sent = END_OFFSET - 8;
    assert_eq!(a.send(&update(6)), Err(SendError::Exhausted));
    assert_eq!(a.send(&update(5)), Ok(()));
    assert_eq!(pieces(&mut a, at(0)).len(), 1);
    a.on_ack(END_OFFSET);
    assert!(a.is_settled());
    assert_eq!(a.send(&PeerMessage::RekeyPlease), Err(SendError::Exhausted));
}

#[test]
fn pieces_that_overlap_are_joined_byte_by_byte() {
    // Length 6: type 25 and five bytes of params.
    let whole = [0, 6, 0x25, 1, 2, 3, 4, 5];
    for (first, second) in [(0..3, 1..8), (4..8, 0..6), (2..4, 1..8), (0..8, 3..7)] {
        let mut b = ControlStream::new();
        for part in [first, second, 0..1, 0..8] {
            b.on_stream(part.start as u32, &whole[part]);
        }
        let params = vec![1, 2, 3, 4, 5];
        assert_eq!(messages(&mut b), [Ok(PeerMessage::Update { params })]);
        assert_eq!(b.poll_ack(), Some(NodeControl::Ack { offset: 8 }));
        assert!(b.ahead.is_empty() && b.unread.is_empty());
    }
}

// protocol 7.8
#[test]
fn what_comes_ahead_is_bounded() {
    let mut b = ControlStream::new();
    for index in (1..=200_u32).rev() {
        b.on_stream(index * 2, &[0]);
        assert!(b.ahead.len() <= MAX_PIECES);
    }
    assert_eq!(b.ahead.first_key_value().map(|(offset, _)| *offset), Some(2), "the nearest are kept");
    b.on_stream(WINDOW_LEN as u32, &[0]);
    assert_eq!(b.drops().beyond_window, 200 - MAX_PIECES as u64 + 1);
    assert_eq!(b.poll_ack(), Some(NodeControl::Ack { offset: 0 }));
}

// protocol 7.8
#[test]
fn unread_bytes_are_bounded_by_the_window() {
    let mut b = ControlStream::new();
    let mut offset = 0;
    while b.drops().beyond_window == 0 {
        b.on_stream(offset, &[0; 1000]);
        offset += 1000;
    }
    assert_eq!(b.unread.len(), 65_000);
    assert_eq!(messages(&mut b).len(), 32_500, "empty messages, each refused by itself");
    b.on_stream(65_000, &[0; 1000]);
    assert_eq!(b.received, 66_000);
}

/// What the air does with a piece or an acknowledgement.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    Arrives(u64),
    Twice(u64, u64),
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => (0..3_u64).prop_map(Fate::Arrives),
        2 => (0..400_u64).prop_map(Fate::Arrives),
        2 => (0..400_u64, 0..400_u64).prop_map(|(a, b)| Fate::Twice(a, b)),
        3 => Just(Fate::Lost),
    ]
}

/// Carries both directions in virtual time. Fates are used in turn; once they are used up, all arrives.
struct Air {
    fates: std::vec::IntoIter<Fate>,
    /// (arrival, order, to b)
    flying: BTreeMap<(u64, u64, bool), NodeControl>,
    order: u64,
}

impl Air {
    fn carry(&mut self, now: u64, to_b: bool, control: &NodeControl) {
        let delays = match self.fates.next().unwrap_or(Fate::Arrives(1)) {
            Fate::Lost => vec![],
            Fate::Arrives(delay) => vec![delay],
            Fate::Twice(a, b) => vec![a, b],
        };
        for delay in delays {
            self.order += 1;
            self.flying.insert((now + delay, self.order, to_b), control.clone());
        }
    }

    /// Sends `first` from a to b and `second` from b to a; gives what came at a and at b.
    fn run(mut self, first: &[PeerMessage], second: &[PeerMessage]) -> (Vec<PeerMessage>, Vec<PeerMessage>) {
        let mut ends = [ControlStream::new(), ControlStream::new()];
        let mut waiting = [first.iter(), second.iter()].map(Iterator::peekable);
        let mut came = [Vec::new(), Vec::new()];
        let mut now = 0;
        for _turn in 0..20_000 {
            for (index, end) in ends.iter_mut().enumerate() {
                while waiting[index].peek().is_some_and(|message| end.send(message).is_ok()) {
                    waiting[index].next();
                }
                while let Some(control) = end.poll_transmit(at(now)) {
                    self.carry(now, index == 0, &control);
                }
                if let Some(control) = end.poll_ack() {
                    self.carry(now, index == 0, &control);
                }
                assert!(end.unread.len() <= WINDOW_LEN && end.ahead.len() <= MAX_PIECES);
                came[index].extend(std::iter::from_fn(|| end.poll_message()).map(|message| message.expect("nothing malformed was sent")));
            }
            let alarm = ends.iter().filter_map(ControlStream::deadline).map(|due| due.as_nanos().div_ceil(1_000_000)).min();
            let arrival = self.flying.keys().next().map(|key| key.0);
            let Some(next) = alarm.into_iter().chain(arrival).min() else {
                break;
            };
            now = now.max(next);
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= now) {
                let ((_, _, to_b), control) = entry.remove_entry();
                let end = &mut ends[usize::from(to_b)];
                match control {
                    NodeControl::Stream { offset, bytes } => end.on_stream(offset, &bytes),
                    NodeControl::Ack { offset } => end.on_ack(offset),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(ends.iter().all(ControlStream::is_settled), "all is acknowledged in the end");
        let [at_a, at_b] = came;
        (at_a, at_b)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_message_comes_once_and_in_order(
        fates in vec(any_fate(), 0..800),
        first in vec(any_peer_message(), 0..120),
        second in vec(any_peer_message(), 0..12),
    ) {
        let air = Air { fates: fates.into_iter(), flying: BTreeMap::new(), order: 0 };
        let (at_a, at_b) = air.run(&first, &second);
        prop_assert_eq!(at_b, first);
        prop_assert_eq!(at_a, second);
    }

    #[test]
    fn any_pieces_leave_the_bounds_standing(list in vec((0..70_000_u32, vec(any::<u8>(), 1..1000)), 0..200), read in any::<bool>()) {
        let mut stream = ControlStream::new();
        for (offset, bytes) in list {
            stream.on_stream(offset, &bytes);
            prop_assert!(stream.unread.len() <= WINDOW_LEN && stream.ahead.len() <= MAX_PIECES);
            if read { while stream.poll_message().is_some() {} }
            let _ = stream.poll_ack();
        }
    }
}
