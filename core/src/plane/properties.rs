//! The parts of a lane, each against a plain model of what it is for, over random steps.
use super::{
    order::{Fate, Order},
    queue::{FairQueue, Plain, QUEUE_BYTES, QUEUE_PACKETS},
    replay::{CONTROL_WINDOW_BITS, DATA_WINDOW_BITS, Seen, Window},
    ring::{Pool, RING_BYTES, Ring},
};
use crate::{
    drops::{Drop, Drops},
    id::PathId,
    time::{Duration, Instant},
    wire::Counter,
};
use proptest::{collection::vec, prelude::*};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::atomic::Ordering,
};

/// A step of a sequence: near the newest, or far off.
fn any_jump() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -70_i64..40, 2 => -1100_i64..1100, 1 => -70_000_i64..70_000, 1 => 0..(1_i64 << 55)]
}

proptest! {
    /// Both sizes of window, near steps and leaps over the whole of a lane (protocol 4.4).
    #[test]
    fn a_window_of_either_size_agrees_with_a_set(control: bool, jumps in vec(any_jump(), 1..300)) {
        let bits = if control { CONTROL_WINDOW_BITS } else { DATA_WINDOW_BITS };
        let mut window = Window::new(bits);
        let mut set = BTreeSet::new();
        for jump in jumps {
            let sequence = window.next().saturating_add_signed(jump).min(Counter::MAX_SEQUENCE);
            let expected = if window.next().saturating_sub(bits) > sequence {
                Seen::TooOld
            } else if set.contains(&sequence) {
                Seen::Again
            } else {
                Seen::Fresh
            };
            prop_assert_eq!(window.check(sequence), expected);
            prop_assert_eq!(window.admit(sequence), expected);
            if expected == Seen::Fresh {
                set.insert(sequence);
            }
            let oldest = window.next().saturating_sub(bits);
            for probe in [oldest, oldest + 1, sequence.max(oldest), window.next() - 1, window.next()] {
                prop_assert_eq!(window.bit(probe), probe < window.next() && set.contains(&probe), "{}", probe);
            }
        }
    }

    /// Whatever comes in whatever order: delivered once, counted exactly, nothing waits without an end.
    #[test]
    fn an_order_agrees_with_a_set(narrow: bool, steps in vec(any_step(), 1..120)) {
        let mut model = OrderModel::new(narrow);
        for step in steps {
            model.step(&step)?;
            model.agrees()?;
        }
        model.finish()?;
    }

    /// What goes in comes out in the order of its flow, or is counted; the bounds hold (protocol 7.1).
    #[test]
    fn a_queue_keeps_each_flow_in_order_and_accounts_for_all(steps in vec((any::<bool>(), 0_u32..5, 20_usize..1500, 0_u64..8), 1..400)) {
        let (mut queue, mut drops, mut now) = (FairQueue::default(), Drops::default(), Instant::from_millis(1));
        let (mut pushed, mut popped, mut newest) = (0_u64, 0_u64, BTreeMap::new());
        for (push, flow, len, millis) in steps {
            now = now + Duration::from_millis(millis);
            if push {
                let mut packet = vec![0; len];
                packet[..4].copy_from_slice(&flow.to_be_bytes());
                packet[4..12].copy_from_slice(&pushed.to_be_bytes());
                queue.push(now, flow, Plain::whole(flow as u8, &packet), &mut drops);
                pushed += 1;
            } else if let Some((inner, packet)) = queue.pop(now, &mut drops) {
                popped += 1;
                let flow = u32::from_be_bytes(packet[..4].try_into().expect("four bytes"));
                let number = u64::from_be_bytes(packet[4..12].try_into().expect("eight bytes"));
                prop_assert_eq!(u32::from(inner), flow);
                prop_assert!(newest.insert(flow, number).is_none_or(|before| before < number), "a flow out of order");
                queue.recycle(packet);
            }
            let dropped = drops.get(Drop::Congestion) + drops.get(Drop::QueueFull);
            prop_assert_eq!(pushed, popped + dropped + queue.len() as u64);
            prop_assert!(queue.is_empty() || queue.peek_len().is_some(), "packets wait and none is offered");
        }
        while let Some((_, packet)) = queue.pop(now, &mut drops) {
            popped += 1;
            queue.recycle(packet);
        }
        prop_assert_eq!(pushed, popped + drops.get(Drop::Congestion) + drops.get(Drop::QueueFull));
        prop_assert!(queue.is_empty() && queue.peek_len().is_none());
    }

    /// No burst, however large, goes over the bounds, and no queue that is short in time is thinned.
    #[test]
    fn a_queue_stays_within_its_bounds(len in 20_usize..9000, flows in 1_u32..70, count in 0_usize..6000) {
        let (mut queue, mut drops, now) = (FairQueue::default(), Drops::default(), Instant::from_millis(1));
        for number in 0..count {
            queue.push(now, number as u32 % flows, Plain::whole(0, &vec![0; len]), &mut drops);
            prop_assert!(queue.len() <= QUEUE_PACKETS && queue.len() * len <= QUEUE_BYTES);
        }
        let fits = QUEUE_PACKETS.min(QUEUE_BYTES / len);
        prop_assert_eq!(queue.len(), count.min(fits));
        while queue.pop(now, &mut drops).is_some() {}
        prop_assert_eq!(drops.get(Drop::Congestion), 0);
        prop_assert_eq!(drops.get(Drop::QueueFull), count.saturating_sub(fits) as u64);
    }
}

/// What may happen to an order.
#[derive(Clone, Debug)]
enum Step {
    Take { jump: i64, newer: u8 },
    Switch { newer: i8, ahead: i64 },
    Drain { newer: i8, ahead: i64 },
    Gate,
    Open,
    Wait { millis: u64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    let near = prop_oneof![6 => -6_i64..5, 1 => -200_i64..200, 1 => 0_i64..200_000];
    prop_oneof![
        10 => (near, prop_oneof![4 => Just(0_u8), 1 => 1_u8..3]).prop_map(|(jump, newer)| Step::Take { jump, newer }),
        2 => (-1_i8..3, -5_i64..6).prop_map(|(newer, ahead)| Step::Switch { newer, ahead }),
        2 => (-1_i8..2, -5_i64..6).prop_map(|(newer, ahead)| Step::Drain { newer, ahead }),
        1 => Just(Step::Gate),
        1 => Just(Step::Open),
        2 => (1_u64..600).prop_map(|millis| Step::Wait { millis }),
    ]
}

/// An order and what must be true of it: sets instead of windows and floors.
struct OrderModel {
    order: Order,
    span: u64,
    now: Instant,
    taken: BTreeSet<u64>,
    out: Vec<u64>,
    duplicate: u64,
}

impl OrderModel {
    fn new(narrow: bool) -> Self {
        let mut order = Order::new(false);
        let span = if narrow { 64 } else { DATA_WINDOW_BITS };
        if narrow {
            order.narrow(span, 3);
        }
        Self { order, span, now: Instant::from_millis(1), taken: BTreeSet::new(), out: Vec::new(), duplicate: 0 }
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut Order, Instant, &mut dyn FnMut(u64, &[u8])) -> R) -> R {
        let out = &mut self.out;
        act(&mut self.order, self.now, &mut |_, body| out.push(u64::from_be_bytes(body.try_into().expect("eight bytes"))))
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let (floor, waits) = (self.order.floor(), self.order.waiting().1.is_some());
        match step {
            Step::Take { jump, newer } => {
                let sequence = self.order.next().saturating_add_signed(*jump);
                let generation = self.order.generation().wrapping_add(*newer);
                let known = self.taken.contains(&sequence) && self.order.next() - sequence <= self.span;
                let expected = if known {
                    Fate::Duplicate
                } else if sequence < floor {
                    Fate::Late
                } else {
                    Fate::Taken
                };
                let fate = self.act(|order, now, out| order.take(now, sequence, generation, &sequence.to_be_bytes(), out));
                prop_assert_eq!(fate, expected, "sequence {}", sequence);
                self.duplicate += u64::from(fate == Fate::Duplicate);
                if fate == Fate::Taken {
                    self.taken.insert(sequence);
                }
            }
            Step::Switch { newer, ahead } => {
                let generation = self.order.generation().wrapping_add_signed(*newer);
                let start = self.order.next().saturating_add_signed(*ahead);
                self.act(|order, now, out| order.switch(now, generation, start, out));
            }
            Step::Drain { newer, ahead } => {
                let generation = self.order.generation().wrapping_add_signed(*newer);
                let start = self.order.next().saturating_add_signed(*ahead);
                self.act(|order, now, out| order.drain(now, generation, start, true, out));
                if *newer != 0 || !waits {
                    prop_assert_eq!(self.order.floor(), floor, "a DRAIN without its switch passes nothing");
                }
            }
            Step::Gate => self.order.close_gate(self.now),
            Step::Open => self.act(|order, now, out| order.open_gate(now, out)),
            Step::Wait { millis } => {
                self.now = self.now + Duration::from_millis(*millis);
                self.act(|order, now, out| order.alarm(now, out));
                prop_assert!(self.order.deadline().is_none_or(|due| due > self.now), "an alarm rings for ever");
            }
        }
        prop_assert!(self.order.floor() >= floor, "the floor fell");
        Ok(())
    }

    /// What the order tells is what the sets say.
    fn agrees(&self) -> Result<(), TestCaseError> {
        let (floor, next) = (self.order.floor(), self.order.next());
        prop_assert_eq!(next, self.taken.last().map_or(0, |last| last + 1));
        let below = self.taken.range(..floor).count() as u64;
        prop_assert_eq!(self.order.counters().lost, floor - below, "lost is what the floor passed and did not come");
        prop_assert_eq!(self.order.counters().duplicate, self.duplicate);
        let once: BTreeSet<u64> = self.out.iter().copied().collect();
        prop_assert_eq!(once.len(), self.out.len(), "delivered twice");
        prop_assert!(once.is_subset(&self.taken));
        let (waiting, _) = self.order.waiting();
        prop_assert_eq!(once.len() + waiting, self.taken.len(), "neither delivered nor waiting");
        prop_assert!(self.taken.range(..floor).all(|sequence| once.contains(sequence)), "below the floor all that came is delivered");
        prop_assert!(waiting == 0 || self.order.deadline().is_some(), "frames wait for nothing");
        let mut newest = 0;
        let late = self
            .out
            .iter()
            .filter(|sequence| {
                let late = **sequence < newest;
                newest = newest.max(**sequence + 1);
                late
            })
            .count();
        prop_assert_eq!(self.order.counters().reordered, late as u64);
        Ok(())
    }

    /// After the longest wait there is everything that came, and nothing left to wait for.
    fn finish(mut self) -> Result<(), TestCaseError> {
        for _ in 0..self.taken.len() + 3 {
            self.step(&Step::Wait { millis: 501 })?;
            self.agrees()?;
        }
        prop_assert_eq!(self.out.len(), self.taken.len());
        prop_assert_eq!(self.order.floor(), self.order.next().max(self.order.floor()));
        prop_assert_eq!(self.order.deadline(), None);
        Ok(())
    }
}

/// What a resend ring is for: frames by number, until they are released.
#[derive(Clone, Debug, Default)]
struct Kept {
    base: u64,
    frames: VecDeque<(usize, u8, bool)>,
}

#[derive(Clone, Debug)]
enum RingStep {
    Push { len: usize, value: u8 },
    Release { ahead: u64 },
    Receipt { ahead: u64 },
}

impl ReferenceStateMachine for Kept {
    type State = Self;
    type Transition = RingStep;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<RingStep> {
        prop_oneof![
            6 => (prop_oneof![33_usize..200, 1000_usize..9033, 30_000_usize..65_537], any::<u8>())
                .prop_map(|(len, value)| RingStep::Push { len, value }),
            2 => (0_u64..12).prop_map(|ahead| RingStep::Release { ahead }),
            2 => (0_u64..20).prop_map(|ahead| RingStep::Receipt { ahead }),
        ]
        .boxed()
    }

    fn apply(mut state: Self, step: &RingStep) -> Self {
        match step {
            RingStep::Push { len, value } => state.frames.push_back((*len, *value, false)),
            RingStep::Release { ahead } => {
                let count = (*ahead as usize).min(state.frames.len());
                state.frames.drain(..count);
                state.base += count as u64;
            }
            RingStep::Receipt { ahead } => {
                if let Some(frame) = state.frames.get_mut(*ahead as usize) {
                    frame.2 = true;
                }
            }
        }
        state
    }
}

struct RealRing {
    ring: Ring,
    pool: Pool,
}

impl StateMachineTest for RealRing {
    type SystemUnderTest = Self;
    type Reference = Kept;

    fn init_test(_: &Kept) -> Self {
        let pool = Pool::default();
        Self { ring: Ring::new(Pool::clone(&pool)), pool }
    }

    fn apply(mut state: Self, _: &Kept, step: RingStep) -> Self {
        match step {
            RingStep::Push { len, value } => {
                assert!(state.ring.has_room(1, len), "a few hundred frames fit");
                state.ring.push(Instant::ZERO, PathId::RELAY, len, |bytes| bytes.resize(bytes.len() + len, value));
            }
            RingStep::Release { ahead } => state.ring.release_below(state.ring.base() + ahead),
            RingStep::Receipt { ahead } => {
                let sequence = state.ring.base() + ahead;
                if let Some(entry) = state.ring.entry_mut(sequence) {
                    entry.receipted = true;
                }
            }
        }
        state
    }

    fn check_invariants(state: &Self, kept: &Kept) {
        let ring = &state.ring;
        assert_eq!((ring.base(), ring.next(), ring.len()), (kept.base, kept.base + kept.frames.len() as u64, kept.frames.len()));
        for (sequence, (len, value, _)) in (kept.base..).zip(&kept.frames) {
            let bytes = ring.bytes(sequence).expect("kept");
            assert!(bytes.len() == *len && bytes.iter().all(|byte| byte == value), "frame {sequence} changed");
        }
        assert!(ring.bytes(ring.next()).is_none() && (ring.base() == 0 || ring.bytes(ring.base() - 1).is_none()));
        for from in [0, kept.base, kept.base + 3, ring.next()] {
            let first = (kept.base..).zip(&kept.frames).find(|(sequence, frame)| *sequence >= from && !frame.2);
            assert_eq!(ring.unreceipted_from(from), first.map(|(sequence, _)| sequence));
        }
        let slabs = state.pool.load(Ordering::Relaxed);
        assert!(slabs * 65_536 <= RING_BYTES, "{slabs} slabs");
        let bytes: usize = kept.frames.iter().map(|frame| frame.0).sum();
        assert!(slabs * 65_536 >= bytes, "frames lie outside the slabs that are counted");
    }
}

prop_state_machine! {
    #[test]
    fn a_ring_agrees_with_a_list(sequential 1..80 => RealRing);
}
