//! The forwarder alone: who reaches whom, in which order, within which bounds (protocol 9.1, 9.2, 9.4).
use crate::{
    config::Limits,
    hub::{Cost, Edit, ForwardEdit, ForwardSink, Forwarder, MESSAGE_BYTES},
    id::{ConnId, Handle},
    time::{Duration, Instant},
    wire::{RECORD_FLAG_URGENT, RECORD_HEADER_LEN, Record, Records, TYPE_DLV, TYPE_FRAME, TYPE_FWD, TYPE_INIT, TYPE_PATH_REQ},
};
use proptest::prelude::*;

/// A network of clients: client n has connection 2n+1 and handle n.
struct Relay {
    forwarder: Forwarder,
    now: Instant,
    sink: Seen,
}

#[derive(Default)]
struct Seen {
    punted: Vec<(ConnId, Vec<u8>)>,
    woken: Vec<ConnId>,
}

impl ForwardSink for Seen {
    fn punt(&mut self, conn: ConnId, message: &mut [u8]) {
        self.punted.push((conn, message.to_vec()));
    }
    fn wake(&mut self, conn: ConnId) {
        self.woken.push(conn);
    }
}

fn conn(n: u32) -> ConnId {
    ConnId(u64::from(n) * 2 + 1)
}

fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut payload = vec![TYPE_FRAME; len.max(5)];
    payload[1..5].copy_from_slice(&number.to_be_bytes());
    payload
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[1..5].try_into().expect("four bytes"))
}

impl Relay {
    fn new(limits: &Limits, networks: &[u32]) -> Self {
        let mut forwarder = Forwarder::new(limits);
        let now = Instant::from_millis(1_000);
        for (n, network) in (1..).zip(networks) {
            forwarder.apply(now, ForwardEdit(Edit::Open { conn: conn(n) }));
            forwarder.apply(now, ForwardEdit(Edit::Join { conn: conn(n), handle: Handle(n), network: *network }));
        }
        Self { forwarder, now, sink: Seen::default() }
    }

    fn send(&mut self, from: u32, to: u32, flags: u8, payload: &[u8]) {
        let mut message = Vec::new();
        Record { kind: TYPE_FWD, flags, handle: Handle(to), payload }.emit(&mut message);
        self.inject(from, &mut message);
    }

    fn inject(&mut self, from: u32, message: &mut [u8]) -> Cost {
        self.forwarder.inbound(self.now, conn(from), message, &mut self.sink)
    }

    /// One message to `to`, as (source, payload).
    fn take(&mut self, to: u32) -> Vec<(u32, Vec<u8>)> {
        let mut out = Vec::new();
        self.forwarder.next_message(self.now, conn(to), &mut out);
        Records::new(&out)
            .map(|record| {
                let record = record.expect("what the relay sends is well-formed");
                assert_eq!(record.kind, TYPE_DLV);
                (record.handle.0, record.payload.to_vec())
            })
            .collect()
    }

    fn take_all(&mut self, to: u32) -> Vec<(u32, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            let some = self.take(to);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    fn dropped(&self, reason: &str) -> u64 {
        let (_, count) = *self.forwarder.stats().drops.iter().find(|(name, _)| *name == reason).expect("a known reason");
        count
    }

    fn tick(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }
}

// protocol 9.4
#[test]
fn what_is_refused_and_what_comes_before_a_proof_ends_the_turn() {
    let mut relay = Relay::new(&Limits { handshake_burst: 2, ..Limits::default() }, &[1, 1]);
    let message = |to: u32, payloads: &[&[u8]]| {
        let mut message = Vec::new();
        for payload in payloads {
            Record { kind: TYPE_FWD, flags: 0, handle: Handle(to), payload }.emit(&mut message);
        }
        message
    };
    let cost = |records, ends_turn| Cost { records, ends_turn };
    let (frame, init) = (frame(1, 100), [TYPE_INIT; 100]);
    assert_eq!(relay.inject(1, &mut message(2, &[&frame, &frame])), cost(2, false));
    assert_eq!(relay.inject(1, &mut message(2, &[&init, &init])), cost(2, false));
    assert_eq!(relay.inject(1, &mut message(2, &[&frame, &init])), cost(2, true), "one handshake too many");
    assert_eq!(relay.inject(1, &mut message(2, &[&frame])), cost(1, false), "and the next frame is as welcome as ever");
    assert_eq!(relay.inject(1, &mut message(9, &[&frame])), cost(1, true), "to nobody");
    let mut control = [TYPE_FRAME; 40];
    let asked = (0..600).map(|_| relay.inject(1, &mut control).ends_turn).collect::<Vec<_>>();
    assert!(!asked[0] && asked[599], "more than anybody has to ask");
    relay.forwarder.apply(relay.now, ForwardEdit(Edit::Open { conn: conn(3) }));
    assert_eq!(relay.inject(3, &mut control), cost(0, true), "nothing is proven");
    assert_eq!(relay.inject(4, &mut control), Cost::default(), "nobody is there any more");
}

// protocol 2.3, 9.3
#[test]
fn a_record_reaches_a_member_of_the_same_network_and_nobody_else() {
    let mut relay = Relay::new(&Limits::default(), &[1, 1, 2]);
    relay.send(1, 2, 0, b"\x10 to two");
    relay.send(1, 3, 0, b"\x10 other network");
    relay.send(1, 9, 0, b"\x10 nobody");
    relay.send(1, 1, 0, b"\x10 myself");
    assert_eq!(relay.take_all(2), [(1, b"\x10 to two".to_vec())]);
    assert!(relay.take_all(3).is_empty() && relay.take_all(1).is_empty());
    assert_eq!(relay.dropped("unknown_handle"), 3);
    assert_eq!(relay.sink.woken, [conn(2)]);
    let stats = relay.forwarder.stats();
    assert_eq!((stats.rx_frames, stats.tx_frames, stats.tx_bytes, stats.queue_bytes), (4, 1, 8, 0));
    assert_eq!(stats.ports[1].tx_frames, 1);
}

// protocol 9.1
#[test]
fn other_messages_go_to_the_hub_and_too_long_ones_nowhere() {
    let mut relay = Relay::new(&Limits { control_bytes: 100, ..Limits::default() }, &[1]);
    relay.inject(1, &mut [TYPE_FRAME, 1, 2]);
    relay.inject(1, &mut [TYPE_FRAME; 101]);
    relay.inject(1, &mut []);
    assert_eq!(relay.sink.punted, [(conn(1), vec![TYPE_FRAME, 1, 2])]);
    assert_eq!((relay.dropped("control_too_big"), relay.dropped("malformed_record")), (1, 1));
    relay.inject(7, &mut [TYPE_FRAME, 1, 2]);
    assert_eq!(relay.sink.punted.len(), 1, "a connection that was never opened is nobody's");
    relay.forwarder.apply(relay.now, ForwardEdit(Edit::Open { conn: conn(8) }));
    let mut early = Vec::new();
    Record { kind: TYPE_FWD, flags: 0, handle: Handle(1), payload: b"x" }.emit(&mut early);
    relay.inject(8, &mut early);
    assert_eq!(relay.sink.punted.len(), 2, "before it is established everything goes to the hub");
    assert!(relay.take_all(1).is_empty());
}

// protocol 9.1, 9.4
#[test]
fn malformed_and_oversized_records_are_counted_and_end_their_message_only() {
    let mut relay = Relay::new(&Limits { frame_bytes: 1_000, ..Limits::default() }, &[1, 1]);
    let mut message = Vec::new();
    Record { kind: TYPE_FWD, flags: 0, handle: Handle(2), payload: b"\x10good" }.emit(&mut message);
    message.extend_from_slice(&[TYPE_FWD, 0, 0xff]);
    relay.inject(1, &mut message);
    let mut backwards = Vec::new();
    Record { kind: TYPE_DLV, flags: 0, handle: Handle(2), payload: b"\x10bad" }.emit(&mut backwards);
    relay.inject(1, &mut backwards);
    relay.send(1, 2, 0, &frame(0, 1_001));
    relay.send(1, 2, 0, &frame(1, 1_000));
    assert_eq!((relay.dropped("malformed_record"), relay.dropped("frame_too_big")), (2, 1));
    assert_eq!(relay.take_all(2).len(), 2);
}

// protocol 9.4
#[test]
fn a_full_queue_costs_the_source_that_has_most_in_it() {
    let mut relay = Relay::new(&Limits { queue_frames: 10, ..Limits::default() }, &[1, 1, 1]);
    for n in 0..20 {
        relay.send(1, 3, 0, &frame(n, 100));
    }
    assert_eq!(relay.dropped("queue_full"), 10);
    for n in 0..4 {
        relay.send(2, 3, 0, &frame(n, 100));
    }
    assert_eq!(relay.dropped("queue_full"), 14);
    let got = relay.take_all(3);
    let of = |source| got.iter().filter(|(from, _)| *from == source).map(|(_, payload)| number(payload)).collect::<Vec<_>>();
    assert_eq!(of(1), [0, 1, 2, 3, 4, 5], "its newest were dropped");
    assert_eq!(of(2), [0, 1, 2, 3]);
}

#[test]
fn queues_are_bounded_in_bytes_each_and_together() {
    let limits = Limits { queue_bytes: 5_000, queue_total_bytes: 12_000, ..Limits::default() };
    let mut relay = Relay::new(&limits, &[1; 4]);
    for n in 0..10 {
        relay.send(1, 2, 0, &frame(n, 1_000));
    }
    assert_eq!((relay.dropped("queue_full"), relay.dropped("queue_memory")), (6, 0));
    for to in 3..5 {
        for n in 0..10 {
            relay.send(1, to, 0, &frame(n, 1_000));
        }
    }
    assert_eq!((relay.dropped("queue_full"), relay.dropped("queue_memory")), (6, 6 + 8), "one may hold what is left for others");
    assert_eq!(relay.forwarder.stats().queue_bytes, 10 * 1_008);
    relay.forwarder.apply(relay.now, ForwardEdit(Edit::Close { conn: conn(2) }));
    assert_eq!((relay.dropped("destination_gone"), relay.forwarder.stats().queue_bytes), (4, 6 * 1_008));
    relay.take_all(3);
    relay.take_all(4);
    assert_eq!(relay.forwarder.stats().queue_bytes, 0);
}

// protocol 9.4
#[test]
fn clients_that_take_nothing_leave_room_for_one_that_does() {
    let limits = Limits { queue_total_bytes: 2 << 20, ..Limits::default() };
    // 1 sends to all; 2 to 9 take nothing, 10 does
    let mut relay = Relay::new(&limits, &[1; 10]);
    for n in 0..4_000 {
        for deaf in 2..10 {
            relay.send(1, deaf, 0, &frame(n, 1_000));
        }
    }
    let waits = relay.forwarder.stats().queue_bytes;
    assert!(waits > 1 << 20 && relay.dropped("queue_memory") > 0, "{waits}");
    for n in 0..64 {
        relay.send(1, 10, 0, &frame(n, 1_000));
    }
    assert_eq!(relay.take_all(10).len(), 64, "all of a usual burst");
}

#[test]
fn what_a_client_says_to_the_relay_too_often_takes_no_place_in_the_line_before_the_hub() {
    let mut relay = Relay::new(&Limits::default(), &[1]);
    for _ in 0..2_000 {
        relay.inject(1, &mut [TYPE_FRAME, 1, 2]);
    }
    assert_eq!((relay.sink.punted.len(), relay.dropped("control_rate")), (512, 1_488));
}

// protocol 9.4
#[test]
fn a_limit_for_all_clients_together_is_shared() {
    let mut relay = Relay::new(&Limits { frames_per_second: 1_000, ..Limits::default() }, &[1; 6]);
    let mut modest = 0;
    for ms in 0..3_000_u32 {
        for flooding in 1..5 {
            for _ in 0..10 {
                relay.send(flooding, 6, 0, &frame(ms, 100));
            }
        }
        if ms % 10 == 0 {
            relay.send(5, 6, 0, &frame(ms, 100));
        }
        modest += relay.take_all(6).iter().filter(|(from, _)| *from == 5).count();
        relay.tick(1);
    }
    assert!(modest >= 295, "{modest} of 300: half of an equal share is never touched");
    let taken = relay.forwarder.stats().tx_frames;
    assert!((2_900..=3_300).contains(&taken), "{taken} in 3 s");
    assert!(relay.dropped("relay_frame_rate") > 100_000);
    let mut relay = Relay::new(&Limits { bytes_per_second: 1 << 20, ..Limits::default() }, &[1; 2]);
    for n in 0..4_000 {
        relay.send(1, 2, 0, &frame(n, 1_024));
        relay.take_all(2);
    }
    assert_eq!(relay.dropped("relay_byte_rate"), 4_000 - 129, "half of a quarter of a second's at once");
}

#[test]
fn a_flooding_source_does_not_starve_another() {
    let mut relay = Relay::new(&Limits::default(), &[1, 1, 1]);
    let mut of_two = 0;
    for round in 0..200 {
        for n in 0..50 {
            relay.send(1, 3, 0, &frame(round * 50 + n, 1_300));
        }
        relay.send(2, 3, 0, &frame(round, 1_300));
        of_two += relay.take(3).iter().filter(|(from, _)| *from == 2).count();
    }
    assert!(of_two >= 199, "all but the last of the quiet source went with the next message, {of_two} of 200");
}

#[test]
fn round_robin_is_by_bytes() {
    let mut relay = Relay::new(&Limits::default(), &[1, 1, 1]);
    for n in 0..400 {
        relay.send(1, 3, 0, &frame(n, 100));
    }
    for n in 0..40 {
        relay.send(2, 3, 0, &frame(n, 1_000));
    }
    let (mut small, mut large) = (0, 0);
    for _ in 0..2 {
        for (from, payload) in relay.take(3) {
            *(if from == 1 { &mut small } else { &mut large }) += payload.len() + RECORD_HEADER_LEN;
        }
    }
    assert!(small.abs_diff(large) <= 4_096, "{small} against {large} bytes");
}

// protocol 9.2
#[test]
fn urgent_goes_first_is_bounded_and_cannot_be_claimed_by_data() {
    let mut relay = Relay::new(&Limits::default(), &[1, 1, 1]);
    relay.send(1, 2, 0, &frame(0, 100));
    relay.send(1, 2, RECORD_FLAG_URGENT, &frame(1, 100));
    relay.send(1, 2, RECORD_FLAG_URGENT, &[TYPE_PATH_REQ, 7]);
    let order: Vec<_> = relay.take_all(2).into_iter().map(|(_, payload)| payload[0]).collect();
    assert_eq!(order, [TYPE_PATH_REQ, TYPE_FRAME, TYPE_FRAME]);
    for _ in 0..20 {
        relay.send(1, 2, RECORD_FLAG_URGENT, &[TYPE_PATH_REQ, 7]);
    }
    relay.send(3, 2, RECORD_FLAG_URGENT, &[TYPE_PATH_REQ, 8]);
    assert_eq!(relay.dropped("urgent_full"), 4, "16 a source");
    assert_eq!(relay.take_all(2).len(), 17);
}

// protocol 9.2
#[test]
fn control_goes_before_everything() {
    let mut relay = Relay::new(&Limits::default(), &[1, 1]);
    relay.send(1, 2, RECORD_FLAG_URGENT, &[TYPE_PATH_REQ, 7]);
    relay.forwarder.control(conn(2), vec![TYPE_FRAME, 9]);
    let mut out = Vec::new();
    assert!(relay.forwarder.next_message(relay.now, conn(2), &mut out));
    assert_eq!(out, [TYPE_FRAME, 9]);
    assert_eq!(relay.take(2).len(), 1);
    assert!(!relay.forwarder.next_message(relay.now, conn(2), &mut out));
}

// protocol 9.4
#[test]
fn peer_handshakes_are_limited_by_source() {
    let mut relay = Relay::new(&Limits { handshake_burst: 5, ..Limits::default() }, &[1, 1, 1]);
    for _ in 0..8 {
        relay.send(1, 3, RECORD_FLAG_URGENT, &[TYPE_INIT, 0]);
    }
    relay.send(2, 3, 0, &[TYPE_INIT, 0]);
    assert_eq!((relay.dropped("handshake_rate"), relay.take_all(3).len()), (3, 6), "a burst of five");
    relay.tick(1_000);
    for _ in 0..8 {
        relay.send(1, 3, RECORD_FLAG_URGENT, &[TYPE_INIT, 0]);
    }
    assert_eq!((relay.dropped("handshake_rate"), relay.take_all(3).len()), (9, 2), "then two a second");
}

// protocol 9.4
#[test]
fn client_rates_in_frames_and_bytes() {
    let limits = Limits { client_frames_per_second: 400, client_bytes_per_second: 400_000, ..Limits::default() };
    let mut relay = Relay::new(&limits, &[1, 1]);
    for n in 0..150 {
        relay.send(1, 2, 0, &frame(n, 10));
    }
    assert_eq!(relay.dropped("client_frame_rate"), 50);
    relay.take_all(2);
    relay.tick(10_000);
    for n in 0..20 {
        relay.send(1, 2, 0, &frame(n, 9_000));
    }
    assert_eq!(relay.dropped("client_byte_rate"), 9, "a burst of a quarter second: 100,000 bytes");
}

// protocol 9.4
#[test]
fn a_stalled_consumer_is_named_after_two_seconds_and_a_slow_one_is_not() {
    let mut relay = Relay::new(&Limits { queue_frames: 4, ..Limits::default() }, &[1, 1, 1]);
    let flood = |relay: &mut Relay| {
        for n in 0..6 {
            relay.send(1, 2, 0, &frame(n, 100));
            relay.send(1, 3, 0, &frame(n, 100));
        }
    };
    flood(&mut relay);
    let deadline = relay.forwarder.deadline().expect("full queues");
    assert_eq!(deadline.at, relay.now + Duration::from_secs(2));
    relay.tick(1_500);
    assert!(!relay.take(3).is_empty());
    flood(&mut relay);
    relay.tick(500);
    assert_eq!(relay.forwarder.alarm(relay.now), [conn(2)]);
    assert_eq!(relay.dropped("stalled"), 1);
    assert_eq!(relay.forwarder.deadline().map(|deadline| deadline.at), Some(relay.now + Duration::from_millis(1_500)));
}

#[test]
fn a_consumer_of_no_control_is_named_at_once() {
    let mut relay = Relay::new(&Limits::default(), &[1, 1]);
    for _ in 0..33 {
        relay.forwarder.control(conn(1), vec![TYPE_FRAME; 16 * 1024]);
    }
    assert_eq!(relay.dropped("control_queue_full"), 1);
    assert_eq!(relay.forwarder.deadline().map(|deadline| deadline.at), Some(Instant::ZERO));
    assert_eq!(relay.forwarder.alarm(relay.now), [conn(1)]);
    assert_eq!(relay.forwarder.deadline(), None);
}

#[test]
fn messages_are_batched_up_to_their_size() {
    let mut relay = Relay::new(&Limits::default(), &[1, 1]);
    for n in 0..100 {
        relay.send(1, 2, 0, &frame(n, 1_300));
    }
    let mut out = Vec::new();
    assert!(relay.forwarder.next_message(relay.now, conn(2), &mut out));
    assert!(out.len() <= MESSAGE_BYTES && out.len() > MESSAGE_BYTES - 1_308, "{}", out.len());
    let times = relay.forwarder.stats().queue_times;
    assert_eq!(times.counts[0], 12);
}

#[test]
fn parted_clients_get_their_last_control_and_nothing_else() {
    let mut relay = Relay::new(&Limits::default(), &[1, 1]);
    relay.send(1, 2, 0, &frame(0, 100));
    relay.forwarder.control(conn(2), vec![TYPE_FRAME, 1]);
    relay.forwarder.apply(relay.now, ForwardEdit(Edit::Part { conn: conn(2) }));
    relay.send(1, 2, 0, &frame(1, 100));
    relay.send(2, 1, 0, &frame(2, 100));
    let mut out = Vec::new();
    assert!(relay.forwarder.next_message(relay.now, conn(2), &mut out));
    assert_eq!(out, [TYPE_FRAME, 1]);
    assert!(!relay.forwarder.next_message(relay.now, conn(2), &mut out));
    assert!(relay.take_all(1).is_empty());
    assert_eq!((relay.dropped("destination_gone"), relay.dropped("unknown_handle")), (1, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    // protocol 9.2
    /// Whatever is sent, dropped and taken in whatever order: the frames of a pair stay in order, none is doubled, and the books balance.
    #[test]
    fn frames_of_a_pair_keep_their_order(steps in proptest::collection::vec((1u32..5, 1u32..5, 5usize..3_000, any::<bool>()), 1..600)) {
        let limits = Limits { queue_frames: 24, queue_bytes: 30_000, ..Limits::default() };
        let mut relay = Relay::new(&limits, &[1, 1, 1, 1]);
        let mut last = std::collections::BTreeMap::new();
        let mut arrived = 0u64;
        let mut sent = 0;
        let mut check = |relay: &mut Relay, to: u32, all: bool| {
            for (from, payload) in if all { relay.take_all(to) } else { relay.take(to) } {
                let before = last.insert((from, to), number(&payload));
                assert!(before.is_none_or(|before| before < number(&payload)), "{from} to {to}");
                arrived += 1;
            }
        };
        for (from, to, len, take) in steps {
            if from != to {
                sent += 1;
                relay.send(from, to, 0, &frame(sent, len));
            }
            if take {
                check(&mut relay, to, false);
            }
        }
        for to in 1..5 {
            check(&mut relay, to, true);
        }
        prop_assert_eq!(u64::from(sent), arrived + relay.dropped("queue_full"));
        prop_assert_eq!(relay.forwarder.stats().queue_bytes, 0);
    }

    #[test]
    fn no_message_panics(message in proptest::collection::vec(any::<u8>(), 0..400), kind in prop::sample::select(vec![TYPE_FWD, TYPE_DLV, TYPE_FRAME])) {
        let mut relay = Relay::new(&Limits::default(), &[1, 1]);
        let mut message = message;
        message.insert(0, kind);
        relay.inject(1, &mut message);
        relay.send(2, 1, 0, &frame(7, 50));
        prop_assert!(relay.take_all(1).iter().any(|(from, payload)| *from == 2 && number(payload) == 7));
    }
}
