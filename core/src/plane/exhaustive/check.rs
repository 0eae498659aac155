//! What must be true of a world at every moment, and what must come of it when it is left alone.
use super::world::{Bounds, World};
use crate::{
    plane::send::SendLane,
    time::Duration,
    wire::{FrameHeader, LANE_CONTROL_BIT},
};
use core::fmt;
use std::collections::VecDeque;

/// The longest that a frame may wait for order (protocol 7.3).
const HOLD_LIMIT: Duration = Duration::from_millis(500);
/// Rounds after which two ends left alone must be at rest.
const ROUNDS_TO_REST: usize = 400;

impl World {
    /// What is true at every moment of both directions.
    pub(super) fn check(&mut self, before: &Self, bounds: &Bounds) {
        for end in 0..2 {
            let (sender, receiver) = (&self.ends[end], &self.ends[1 - end]);
            let (ring, _, received_next) = sender.session.tx.inspect();
            let order = receiver.order();
            let (waiting, until) = order.waiting();
            let truthful = (ring.base()..ring.next()).all(|sequence| !ring.is_receipted(sequence) || order.has(sequence));
            let wrong = [
                (ring.base() > order.floor(), "a frame was released before the other end was done with it"),
                (received_next > order.next() || order.next() > ring.next(), "one end knows of more than was sent"),
                (!truthful, "a frame counts as receipted that did not come"),
                (ring.len() > bounds.ring_frames, "the ring is over its bound"),
                (waiting > bounds.hold_frames + 1, "more frames wait than may"),
                (until.is_some_and(|until| until > self.now + HOLD_LIMIT), "a switch may wait for longer than the limit"),
                (waiting > 0 && order.deadline().is_none(), "frames wait for nothing"),
                (order.floor() < before.ends[1 - end].order().floor(), "the floor fell"),
                (ring.next() < before.ends[end].ring().next(), "the counter fell"),
            ];
            if let Some((_, what)) = wrong.into_iter().find(|(wrong, _)| *wrong) {
                self.fault = Some(what);
            }
        }
    }

    /// Leaves both ends alone, with whatever path lives: they must come to rest, and account for every packet.
    pub(super) fn comes_to_rest(&self, bounds: &Bounds) -> Result<(), &'static str> {
        let mut world = self.clone();
        for _ in 0..ROUNDS_TO_REST {
            if !world.settle() {
                return world.account(bounds);
            }
        }
        Err("the ends do not come to rest")
    }

    /// Does one thing that has to happen. False: nothing has.
    fn settle(&mut self) -> bool {
        for end in 0..2 {
            let here = &self.ends[end];
            if !self.alive[here.main()] {
                self.fall_back(end);
                return true;
            }
            if !self.alive[1 - here.main()] && here.knows_of(1 - here.main()) {
                self.forget(end);
                return true;
            }
            if here.clogged.is_some() {
                self.clear(end);
                return true;
            }
            if here.hedged {
                self.calm(end);
                return true;
            }
            if end == 0 && here.epoch < self.ends[1].epoch {
                self.rekey(end);
                return true;
            }
            for path in 0..2 {
                if let Some(frame) = self.wires[end][path].pop_front() {
                    self.arrive(1 - end, path, frame);
                    return true;
                }
            }
        }
        let due = self.deadline().is_some();
        self.tick();
        due
    }

    fn account(&self, bounds: &Bounds) -> Result<(), &'static str> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        for end in 0..2 {
            let (sender, receiver) = (&self.ends[end], &self.ends[1 - end]);
            let lost = receiver.order().counters().lost;
            if u64::from(receiver.came.count_ones()) + lost != u64::from(sender.sealed) {
                return Err("a packet is neither delivered nor counted as lost");
            }
            if bounds.lossless && lost > 0 {
                return Err("a packet was given up though a path lived all the time");
            }
            if sender.ring().len() > 0 {
                return Err("frames stay in the ring for ever");
            }
        }
        Ok(())
    }
}

/// Each frame that leaves is new, or bit for bit one that is kept (protocol 4.3).
pub(super) fn each_counter_is_sealed_once(before: &SendLane, after: &SendLane, out: &[(usize, Vec<u8>)]) -> bool {
    let (kept, mut control_next, _) = before.inspect();
    let (keeps, control_after, _) = after.inspect();
    for (_, frame) in out {
        let Ok(header) = FrameHeader::parse(frame) else { return false };
        let sequence = header.counter.sequence();
        let good = if header.counter.lane() & LANE_CONTROL_BIT != 0 {
            control_next += 1;
            sequence + 1 == control_next
        } else if sequence < kept.next() {
            kept.bytes(sequence) == Some(frame)
        } else {
            keeps.bytes(sequence) == Some(frame)
        };
        if !good {
            return false;
        }
    }
    control_next == control_after
        && (kept.base()..kept.next()).all(|sequence| keeps.bytes(sequence).is_none_or(|bytes| kept.bytes(sequence) == Some(bytes)))
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wires: Vec<usize> = self.wires.iter().flatten().map(VecDeque::len).collect();
        write!(f, "{:?} alive {:?} wires {wires:?}", self.now, self.alive)?;
        for end in &self.ends {
            let (order, ring) = (end.order(), end.ring());
            write!(f, " | sealed {} came {:b} main {} ", end.sealed, end.came, end.main())?;
            write!(
                f,
                "ring {}..{} floor {} next {} gen {} {:?}",
                ring.base(),
                ring.next(),
                order.floor(),
                order.next(),
                order.generation(),
                order.waiting()
            )?;
        }
        write!(f, " {:?}", self.fault)
    }
}
