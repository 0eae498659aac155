//! The receiving order of one data lane: what is delivered when, what is given up, what the receipt says.
//!
//! ```text
//!  calm:     every fresh frame is delivered on arrival; a hole older than the patience is passed and counted lost
//!  pending:  a switch is under way (SWITCH came, or a frame of a newer generation): strictly in order, the rest waits
//!  gated:    a new session waits for the end of the old one: everything waits
//!
//!      floor: all below is done with          next: one above the highest received
//!        ▼                                      ▼
//!  ██████░█████░░██████████████████████████████            █ received   ░ hole
//! ```
//! Protocol 7.3 and 7.4.
use super::replay::{DATA_WINDOW_BITS, Seen, Window};
use crate::{
    bound::Bound,
    time::{Duration, Instant},
};
use std::collections::BTreeMap;

/// The longest that frames wait for a switch or for an old session (protocol 7.3).
const HOLD_LIMIT: Duration = Duration::from_millis(500);
/// Age at which a hole is passed in calm (protocol 7.4).
const HOLE_PATIENCE: Duration = Duration::from_millis(20);
/// The same in mode `reliable`, where the sender fills holes.
const HOLE_PATIENCE_RELIABLE: Duration = Duration::from_secs(2);
/// Frames that may wait for order.
const HOLD_FRAMES: usize = 1 << 14;
/// Bytes that may wait for order.
const HOLD_BYTES: usize = 16 << 20;

/// What became of an authentic frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Delivered, or waiting for its turn.
    Taken,
    /// A copy of one received before.
    Duplicate,
    /// Below the floor: given up before it came.
    Late,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
struct Pending {
    /// First sequence of the new generation; None until SWITCH has come.
    start: Option<u64>,
    /// DRAIN has come: what is missing below is lost, once no gate is closed.
    drained: Option<u64>,
    deadline: Instant,
}

/// Counters of one lane's receiving side.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OrderCounters {
    /// Given up by the floor.
    pub(crate) lost: u64,
    /// Copies that were dropped.
    pub(crate) duplicate: u64,
    /// Delivered after a frame with a higher sequence.
    pub(crate) reordered: u64,
}

/// Receiving order of one data lane.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(crate) struct Order {
    window: Window,
    floor: u64,
    /// One above the highest sequence delivered.
    delivered: u64,
    generation: u8,
    pending: Option<Pending>,
    /// Start of a switch that was not waited for to its end: what is missing below is lost as soon as something above comes.
    overdue: u64,
    gate: Option<Instant>,
    held: BTreeMap<u64, Vec<u8>>,
    held_bytes: usize,
    hold_frames: usize,
    hold_bytes: usize,
    hole_since: Option<Instant>,
    patience: Duration,
    counters: OrderCounters,
}

impl Order {
    /// An order that has received nothing. `reliable`: holes are waited for.
    pub(crate) fn new(reliable: bool) -> Self {
        Self {
            window: Window::new(DATA_WINDOW_BITS),
            floor: 0,
            delivered: 0,
            generation: 0,
            pending: None,
            overdue: 0,
            gate: None,
            held: BTreeMap::new(),
            held_bytes: 0,
            hold_frames: HOLD_FRAMES,
            hold_bytes: HOLD_BYTES,
            hole_since: None,
            patience: if reliable { HOLE_PATIENCE_RELIABLE } else { HOLE_PATIENCE },
            counters: OrderCounters::default(),
        }
    }

    /// Its session has so many lanes, which share what may wait.
    pub(crate) fn shared_by(self, lanes: u8) -> Self {
        let lanes = usize::from(lanes);
        Self { hold_frames: self.hold_frames / lanes, hold_bytes: self.hold_bytes / lanes, ..self }
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn next(&self) -> u64 {
        self.window.next()
    }

    pub(crate) fn generation(&self) -> u8 {
        self.generation
    }

    pub(crate) fn counters(&self) -> OrderCounters {
        self.counters
    }

    /// What waits for order, beside the most.
    pub(crate) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("frames that wait for order", self.held.len(), HOLD_FRAMES));
        each(Bound::new("bytes that wait for order", self.held_bytes, HOLD_BYTES));
    }

    /// Whether this sequence has been received (at or above the floor).
    pub(crate) fn has(&self, sequence: u64) -> bool {
        self.window.bit(sequence)
    }

    /// Takes an authentic frame; `deliver` gets what is due now, in order.
    pub(crate) fn take(&mut self, now: Instant, sequence: u64, generation: u8, body: &[u8], deliver: &mut dyn FnMut(u64, &[u8])) -> Fate {
        if sequence < self.floor {
            return if self.window.check(sequence) == Seen::Again {
                self.counters.duplicate += 1;
                Fate::Duplicate
            } else {
                Fate::Late
            };
        }
        if self.window.check(sequence) != Seen::Fresh {
            self.counters.duplicate += 1;
            return Fate::Duplicate;
        }
        // all of a new generation lies above all that came before; a very old frame only looks newer, round the circle
        if sequence >= self.window.next() && newer(generation, self.generation) {
            self.expect_switch(now, generation, None);
        }
        if sequence - self.floor >= self.window.span() {
            // the window must keep what lies above the floor: what is older is given up
            self.pass_to(sequence + 1 - self.window.span(), deliver);
        }
        self.window.admit(sequence);
        if self.gate.is_some() || (self.pending.is_some() && sequence != self.floor) {
            self.hold(sequence, body, deliver);
        } else {
            if sequence >= self.overdue {
                self.pass_to(self.overdue, deliver);
            }
            self.hand_over(sequence, body, deliver);
        }
        self.advance(deliver);
        self.settle(now, deliver);
        Fate::Taken
    }

    /// SWITCH: frames from `start` on carry `generation`.
    pub(crate) fn switch(&mut self, now: Instant, generation: u8, start: u64, deliver: &mut dyn FnMut(u64, &[u8])) {
        if newer(generation, self.generation) {
            self.expect_switch(now, generation, Some(start));
        } else if generation == self.generation
            && let Some(pending) = &mut self.pending
        {
            pending.start.get_or_insert(start);
        }
        self.settle(now, deliver);
    }

    /// DRAIN: nothing below `start` comes any more on the path that is left; or hardly, when that path keeps no order.
    pub(crate) fn drain(&mut self, now: Instant, generation: u8, start: u64, ordered: bool, deliver: &mut dyn FnMut(u64, &[u8])) {
        if generation == self.generation && self.pending.is_some() {
            // a start beyond all that was received is a lie or a race: the frames between are yet to come
            let to = start.min(self.window.next());
            if let Some(pending) = &mut self.pending {
                pending.start.get_or_insert(start);
                if ordered {
                    pending.drained = pending.drained.max(Some(to));
                } else {
                    pending.deadline = pending.deadline.min(now + self.patience);
                }
            }
        }
        self.settle(now, deliver);
    }

    /// Holds everything until `open_gate`, at the longest for the hold limit.
    pub(crate) fn close_gate(&mut self, now: Instant) {
        self.gate = Some(now + HOLD_LIMIT);
    }

    /// Whether everything is held.
    pub(crate) fn is_gated(&self) -> bool {
        self.gate.is_some()
    }

    /// The session before this one has ended: deliver what waits.
    pub(crate) fn open_gate(&mut self, now: Instant, deliver: &mut dyn FnMut(u64, &[u8])) {
        if self.gate.take().is_some() {
            self.advance(deliver);
            self.settle(now, deliver);
        }
    }

    /// When `alarm` is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.gate.is_some() {
            // nothing else is given up behind a gate
            return self.gate;
        }
        let hole = self.hole_since.filter(|_| self.pending.is_none()).map(|since| since + self.patience);
        self.pending.as_ref().map(|pending| pending.deadline).or(hole)
    }

    /// Gives up what has been waited for long enough.
    pub(crate) fn alarm(&mut self, now: Instant, deliver: &mut dyn FnMut(u64, &[u8])) {
        if self.gate.is_some_and(|until| until <= now) {
            self.open_gate(now, deliver);
        }
        if self.gate.is_none() && self.pending.as_ref().is_some_and(|pending| pending.deadline <= now) {
            let start = self.pending.as_ref().and_then(|pending| pending.start).unwrap_or(self.floor);
            self.pass_to(start.min(self.window.next()), deliver);
            self.pending = None;
            self.overdue = start;
            self.release(deliver);
        }
        self.settle(now, deliver);
        if self.pending.is_none() && self.gate.is_none() && self.hole_since.is_some_and(|since| since + self.patience <= now) {
            self.pass_hole(deliver);
            self.hole_since = None;
            self.settle(now, deliver);
        }
    }

    fn expect_switch(&mut self, now: Instant, generation: u8, start: Option<u64>) {
        self.generation = generation;
        // a second switch over a pending one replaces it; the first deadline stands, so waiting is bounded
        let deadline = self.pending.as_ref().map_or(now + HOLD_LIMIT, |pending| pending.deadline);
        self.pending = Some(Pending { start, drained: None, deadline });
    }

    fn hand_over(&mut self, sequence: u64, body: &[u8], deliver: &mut dyn FnMut(u64, &[u8])) {
        if sequence < self.delivered {
            self.counters.reordered += 1;
        }
        self.delivered = self.delivered.max(sequence + 1);
        deliver(sequence, body);
    }

    fn hold(&mut self, sequence: u64, body: &[u8], deliver: &mut dyn FnMut(u64, &[u8])) {
        if self.held.len() >= self.hold_frames || self.held_bytes + body.len() > self.hold_bytes {
            // no room to wait in: what is missing is given up, so that what came is not lost
            self.gate = None;
            self.pending = None;
            self.held_bytes += body.len();
            self.held.insert(sequence, body.to_vec());
            self.release(deliver);
            return;
        }
        self.held_bytes += body.len();
        self.held.insert(sequence, body.to_vec());
    }

    /// Moves the floor over what has been received, delivering what waits there.
    fn advance(&mut self, deliver: &mut dyn FnMut(u64, &[u8])) {
        if self.gate.is_some() {
            return;
        }
        while self.window.bit(self.floor) {
            let sequence = self.floor;
            self.floor += 1;
            self.hand_over_held(sequence, deliver);
        }
    }

    fn hand_over_held(&mut self, sequence: u64, deliver: &mut dyn FnMut(u64, &[u8])) {
        if let Some(body) = self.held.remove(&sequence) {
            self.held_bytes -= body.len();
            self.hand_over(sequence, &body, deliver);
        }
    }

    /// Moves the floor to `to`: what is missing below is lost, what waits below is delivered.
    fn pass_to(&mut self, to: u64, deliver: &mut dyn FnMut(u64, &[u8])) {
        if to <= self.floor {
            return;
        }
        let known = to.min(self.window.next());
        let received = (self.floor..known).filter(|sequence| self.window.bit(*sequence)).count() as u64;
        self.counters.lost += to - self.floor - received;
        while let Some((&sequence, _)) = self.held.first_key_value() {
            if sequence >= to {
                break;
            }
            self.hand_over_held(sequence, deliver);
        }
        self.floor = to;
        self.advance(deliver);
    }

    /// Passes the hole at the floor.
    fn pass_hole(&mut self, deliver: &mut dyn FnMut(u64, &[u8])) {
        let mut to = self.floor;
        while to < self.window.next() && !self.window.bit(to) {
            to += 1;
        }
        self.pass_to(to, deliver);
    }

    /// Back to calm: all that waits is delivered in order, holes or not.
    fn release(&mut self, deliver: &mut dyn FnMut(u64, &[u8])) {
        while let Some((sequence, body)) = self.held.pop_first() {
            self.held_bytes -= body.len();
            self.hand_over(sequence, &body, deliver);
        }
    }

    /// Ends a pending switch whose old side is complete, and watches for holes.
    fn settle(&mut self, now: Instant, deliver: &mut dyn FnMut(u64, &[u8])) {
        if self.gate.is_none()
            && let Some(to) = self.pending.as_mut().and_then(|pending| pending.drained.take())
        {
            self.pass_to(to, deliver);
        }
        if self.gate.is_none() && self.pending.as_ref().is_some_and(|pending| pending.start.is_some_and(|start| self.floor >= start)) {
            self.pending = None;
            self.release(deliver);
            self.advance(deliver);
        }
        if self.floor == self.window.next() {
            self.hole_since = None;
        } else {
            self.hole_since.get_or_insert(now);
        }
    }
}

/// Whether generation `a` comes after `b`, in a circle of 256.
pub(crate) fn newer(a: u8, b: u8) -> bool {
    matches!(a.wrapping_sub(b), 1..=127)
}

/// What the exhaustive models need of the real order.
#[cfg(test)]
mod model {
    use super::{Instant, Order, OrderCounters, Window};
    use core::hash::{Hash, Hasher};

    impl Order {
        /// An order with a small window and little room to wait in; nothing has come yet.
        pub(crate) fn narrow(&mut self, window_bits: u64, hold_frames: usize) {
            self.window = Window::new(window_bits);
            self.hold_frames = hold_frames;
        }

        /// Frames that wait, and until when they do at the longest.
        pub(crate) fn waiting(&self) -> (usize, Option<Instant>) {
            (self.held.len(), self.pending.as_ref().map(|pending| pending.deadline))
        }
    }

    impl Hash for OrderCounters {
        fn hash<H: Hasher>(&self, state: &mut H) {
            // the others decide nothing; this one goes into receipts
            self.lost.hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Bench {
        order: Order,
        out: Vec<u64>,
    }

    impl Bench {
        fn new() -> Self {
            Self { order: Order::new(false), out: Vec::new() }
        }
        fn take(&mut self, millis: u64, sequence: u64, generation: u8) -> Fate {
            let out = &mut self.out;
            self.order.take(Instant::from_millis(millis), sequence, generation, &sequence.to_be_bytes(), &mut |_, body| {
                out.push(u64::from_be_bytes(body.try_into().expect("eight bytes")));
            })
        }
        fn act(&mut self, millis: u64, act: impl FnOnce(&mut Order, Instant, &mut dyn FnMut(u64, &[u8]))) {
            let out = &mut self.out;
            act(&mut self.order, Instant::from_millis(millis), &mut |_, body: &[u8]| {
                out.push(u64::from_be_bytes(body.try_into().expect("eight bytes")));
            });
        }
    }

    #[test]
    fn calm_delivers_on_arrival_and_drops_copies() {
        let mut bench = Bench::new();
        for sequence in [0, 1, 3, 2, 3, 0] {
            bench.take(0, sequence, 0);
        }
        assert_eq!(bench.out, [0, 1, 3, 2]);
        assert_eq!(bench.order.counters().duplicate, 2);
        assert_eq!(bench.order.counters().reordered, 1);
        assert_eq!(bench.order.floor(), 4);
    }

    // protocol 7.3
    #[test]
    fn frames_of_the_new_path_wait_for_the_old_ones() {
        let mut bench = Bench::new();
        bench.take(0, 0, 0);
        bench.act(0, |order, now, out| order.switch(now, 1, 3, out));
        bench.take(0, 3, 1);
        bench.take(0, 4, 1);
        assert_eq!(bench.out, [0]);
        bench.take(5, 1, 0);
        bench.take(6, 2, 0);
        assert_eq!(bench.out, [0, 1, 2, 3, 4]);
        bench.take(7, 6, 1);
        assert_eq!(bench.out, [0, 1, 2, 3, 4, 6], "calm again");
    }

    // protocol 7.4
    #[test]
    fn a_hole_is_not_passed_before_its_time() {
        let mut bench = Bench::new();
        bench.take(0, 0, 0);
        bench.take(5, 2, 0);
        bench.act(24, |order, now, out| order.alarm(now, out));
        assert_eq!((bench.order.floor(), bench.order.counters().lost), (1, 0));
        bench.act(25, |order, now, out| order.alarm(now, out));
        assert_eq!((bench.order.floor(), bench.order.counters().lost), (3, 1));
    }

    // protocol 4.3
    #[test]
    fn a_copy_of_a_frame_above_a_hole_is_dropped() {
        let mut bench = Bench::new();
        for (sequence, fate) in [(0, Fate::Taken), (2, Fate::Taken), (2, Fate::Duplicate), (1, Fate::Taken), (1, Fate::Duplicate)] {
            assert_eq!(bench.take(0, sequence, 0), fate, "{sequence}");
        }
        assert_eq!(bench.out, [0, 2, 1]);
    }

    // protocol 7.3
    #[test]
    fn a_drain_of_an_older_switch_closes_nothing() {
        let mut bench = Bench::new();
        bench.take(0, 0, 0);
        bench.act(0, |order, now, out| order.switch(now, 1, 2, out));
        bench.act(0, |order, now, out| order.switch(now, 2, 3, out));
        bench.take(1, 3, 2);
        bench.act(1, |order, now, out| order.drain(now, 1, 2, true, out));
        assert_eq!(bench.out, [0], "1 and 2 may still come by the path that was taken in between");
        bench.take(2, 1, 0);
        bench.take(2, 2, 1);
        assert_eq!(bench.out, [0, 1, 2, 3]);
        assert_eq!(bench.order.counters().lost, 0);
    }

    // protocol 7.3
    #[test]
    fn drain_ends_the_wait_for_frames_that_the_old_path_lost() {
        let mut bench = Bench::new();
        bench.take(0, 0, 0);
        bench.act(0, |order, now, out| order.switch(now, 1, 3, out));
        bench.take(0, 3, 1);
        bench.take(0, 2, 0);
        bench.act(1, |order, now, out| order.drain(now, 1, 3, true, out));
        assert_eq!(bench.out, [0, 2, 3]);
        assert_eq!(bench.order.counters().lost, 1);
        assert_eq!(bench.take(2, 1, 0), Fate::Late);
        assert_eq!(bench.out, [0, 2, 3]);
    }

    // protocol 7.3
    #[test]
    fn the_deadline_ends_the_wait_when_drain_never_comes() {
        let mut bench = Bench::new();
        bench.take(0, 0, 0);
        bench.take(0, 2, 1);
        bench.act(0, |order, now, out| order.switch(now, 1, 2, out));
        let deadline = bench.order.deadline().expect("a switch is pending");
        assert_eq!(deadline, Instant::from_millis(500));
        bench.act(500, |order, now, out| order.alarm(now, out));
        assert_eq!(bench.out, [0, 2]);
        assert_eq!((bench.order.counters().lost, bench.order.floor()), (1, 3));
        assert_eq!(bench.order.deadline(), None);
    }

    // protocol 7.3
    /// Nothing of the new path had come when the wait was over; what came then once went before late frames of the old path.
    #[test]
    fn a_switch_that_was_given_up_without_a_frame_keeps_the_order() {
        let mut bench = Bench::new();
        bench.act(0, |order, now, out| order.switch(now, 1, 2, out));
        bench.act(500, |order, now, out| order.alarm(now, out));
        bench.take(501, 0, 0);
        assert_eq!((bench.order.floor(), bench.order.counters().lost), (1, 0), "frames before it are still welcome");
        bench.take(502, 2, 1);
        assert_eq!(bench.take(503, 1, 0), Fate::Late);
        assert_eq!((bench.out.as_slice(), bench.order.counters().lost), (&[0, 2][..], 1));
    }

    // protocol 7.2
    #[test]
    fn the_next_frame_of_a_new_generation_announces_the_switch() {
        let mut bench = Bench::new();
        bench.take(0, 0, 0);
        bench.take(0, 1, 1);
        bench.take(0, 3, 1);
        assert_eq!((bench.order.generation(), bench.out.as_slice()), (1, &[0, 1][..]), "order is kept from here on");
        bench.act(1, |order, now, out| order.switch(now, 1, 1, out));
        assert_eq!(bench.out, [0, 1, 3], "the floor is above its start: calm again");
    }

    // protocol 7.3
    #[test]
    fn drain_of_a_switch_that_only_a_frame_announced_ends_it() {
        let mut bench = Bench::new();
        bench.take(0, 0, 0);
        bench.take(0, 2, 1);
        bench.act(1, |order, now, out| order.drain(now, 1, 2, true, out));
        assert_eq!((bench.out.as_slice(), bench.order.counters().lost), (&[0, 2][..], 1));
        assert_eq!(bench.take(2, 4, 1), Fate::Taken);
        assert_eq!(bench.out, [0, 2, 4], "calm again");
    }

    // protocol 7.3
    #[test]
    fn neither_an_old_switch_nor_an_early_alarm_ends_the_wait() {
        let mut bench = Bench::new();
        bench.take(0, 0, 0);
        bench.take(0, 3, 2);
        bench.act(1, |order, now, out| order.switch(now, 1, 1, out));
        bench.act(499, |order, now, out| order.alarm(now, out));
        assert_eq!((bench.out.as_slice(), bench.order.generation()), (&[0][..], 2));
        bench.take(499, 5, 2);
        bench.act(500, |order, now, out| order.alarm(now, out));
        assert_eq!(bench.out, [0, 3, 5], "all that waited");
    }

    // protocol 7.3
    #[test]
    fn a_full_waiting_room_gives_up_what_is_missing_and_nothing_that_came() {
        let mut bench = Bench::new();
        bench.order.narrow(64, 3);
        bench.take(0, 0, 0);
        bench.act(0, |order, now, out| order.switch(now, 1, 9, out));
        for sequence in [2, 3, 4] {
            bench.take(1, sequence, 0);
        }
        assert_eq!((bench.out.as_slice(), bench.order.waiting().0), (&[0][..], 3));
        bench.take(1, 6, 0);
        assert_eq!((bench.out.as_slice(), bench.order.waiting()), (&[0, 2, 3, 4, 6][..], (0, None)));
        bench.take(1, 8, 0);
        assert_eq!(bench.out, [0, 2, 3, 4, 6, 8], "calm again");
    }

    // protocol 7.3
    #[test]
    fn the_bytes_that_wait_are_bounded_too() {
        let (mut order, mut came) = (Order::new(false), 0);
        let body = vec![0; HOLD_BYTES / 16];
        for round in 0..3_u64 {
            let start = round * 100;
            order.switch(Instant::ZERO, round as u8 + 1, start + 90, &mut |_, _| came += 1);
            for sequence in start + 1..start + 17 {
                order.take(Instant::ZERO, sequence, 0, &body, &mut |_, _| came += 1);
            }
            assert_eq!((order.waiting().0, came), (16, round as usize * 17));
            order.take(Instant::ZERO, start + 17, 0, &body, &mut |_, _| came += 1);
            assert_eq!((order.waiting(), came), ((0, None), round as usize * 17 + 17), "round {round}");
        }
    }

    // protocol 7.4
    #[test]
    fn a_hole_is_passed_in_calm_after_the_patience() {
        let mut bench = Bench::new();
        bench.take(0, 0, 0);
        bench.take(3, 2, 0);
        assert_eq!(bench.order.deadline(), Some(Instant::from_millis(23)));
        bench.act(22, |order, now, out| order.alarm(now, out));
        assert_eq!(bench.order.floor(), 1);
        bench.act(23, |order, now, out| order.alarm(now, out));
        assert_eq!((bench.order.floor(), bench.order.counters().lost), (3, 1));
    }

    // protocol 7.2
    #[test]
    fn a_frame_sealed_130_switches_ago_does_not_turn_the_generation_back() {
        let mut bench = Bench::new();
        bench.take(0, 0, 0);
        for generation in 1..=130 {
            bench.act(0, |order, now, out| order.switch(now, generation, 2, out));
        }
        bench.take(0, 2, 130);
        bench.take(0, 1, 0);
        assert_eq!((bench.out.as_slice(), bench.order.generation()), (&[0, 1, 2][..], 130));
    }

    // protocol 3.10
    #[test]
    fn a_gate_holds_a_new_session_until_the_old_one_has_ended() {
        let mut bench = Bench::new();
        bench.act(0, |order, now, _| order.close_gate(now));
        bench.take(1, 0, 0);
        bench.take(1, 1, 0);
        assert!(bench.out.is_empty());
        bench.act(2, |order, now, out| order.open_gate(now, out));
        assert_eq!(bench.out, [0, 1]);
        let mut late = Bench::new();
        late.act(0, |order, now, _| order.close_gate(now));
        late.take(1, 0, 0);
        late.act(500, |order, now, out| order.alarm(now, out));
        assert_eq!(late.out, [0]);
    }

    #[test]
    fn a_switch_does_not_open_the_gate() {
        let mut bench = Bench::new();
        bench.act(0, |order, now, _| order.close_gate(now));
        bench.take(1, 0, 0);
        bench.take(1, 2, 0);
        bench.act(2, |order, now, out| order.switch(now, 1, 3, out));
        bench.act(3, |order, now, out| order.drain(now, 1, 3, true, out));
        bench.take(4, 3, 1);
        assert!(bench.out.is_empty(), "the session before has not ended");
        bench.act(5, |order, now, out| order.open_gate(now, out));
        assert_eq!((bench.out.as_slice(), bench.order.counters().lost), (&[0, 2, 3][..], 1));
    }

    #[test]
    fn a_leap_of_the_sequence_costs_bounded_work_and_counts_what_is_missing() {
        let mut bench = Bench::new();
        bench.take(0, 0, 0);
        bench.take(0, 1 << 50, 0);
        assert_eq!(bench.out, [0, 1 << 50]);
        bench.act(100, |order, now, out| order.alarm(now, out));
        assert_eq!(bench.order.counters().lost, (1 << 50) - 1);
        assert_eq!(bench.order.floor(), (1 << 50) + 1);
    }

    proptest! {
        /// Two ordered paths, a switch at any point, any interleaving: nothing lost, doubled or out of order.
        #[test]
        fn any_interleaving_of_two_ordered_paths_gives_one_order(
            start in 0u64..40,
            total in 40u64..80,
            picks in proptest::collection::vec(any::<bool>(), 200),
        ) {
            let mut old: std::collections::VecDeque<Option<u64>> = (0..start).map(Some).collect();
            old.push_back(None);
            let mut new: std::collections::VecDeque<u64> = (start..total).collect();
            let mut bench = Bench::new();
            let mut picks = picks.into_iter().cycle();
            bench.act(0, |order, now, out| order.switch(now, 1, start, out));
            while !old.is_empty() || !new.is_empty() {
                if picks.next() == Some(true) {
                    match old.pop_front() {
                        Some(Some(sequence)) => { bench.take(1, sequence, 0); }
                        Some(None) => bench.act(1, |order, now, out| order.drain(now, 1, start, true, out)),
                        None => {}
                    }
                } else if let Some(sequence) = new.pop_front() {
                    bench.take(1, sequence, 1);
                }
                if !picks.clone().take(200).any(|pick| pick) || !picks.clone().take(200).any(|pick| !pick) {
                    break;
                }
            }
            prop_assert!(bench.out.windows(2).all(|pair| pair[1] == pair[0] + 1));
            if old.is_empty() && new.is_empty() {
                prop_assert_eq!(bench.out.len() as u64, total);
                prop_assert_eq!(bench.order.counters().lost, 0);
            }
        }
    }
}
