//! The queue before sealing: one a peer, fair among flows, with `CoDel`. Congestion drops happen only here (protocol 7.1).
//!
//! Deficit round robin over a fixed number of flow buckets with a list for new flows, after RFC 8290 (FQ-CoDel): a sparse
//! flow (a ping, a call, a stream of a thousand small packets a second) overtakes a bulk transfer and is never dropped for it.
use crate::{
    bound::Bound,
    drops::{Drop, Drops},
    time::{Duration, Instant},
};
use std::collections::VecDeque;

const BUCKETS: usize = 64;
/// Packets that one peer may have waiting.
pub(crate) const QUEUE_PACKETS: usize = 4096;
/// Bytes that one peer may have waiting.
pub(crate) const QUEUE_BYTES: usize = 8 << 20;
/// Bytes a flow may send before the next one has its turn: one full packet.
const QUANTUM: i64 = 1514;
/// Acceptable standing delay (RFC 8289 4.2).
const TARGET: Duration = Duration::from_millis(5);
/// A round trip of the slow end of ordinary paths (RFC 8289 4.2).
const INTERVAL: Duration = Duration::from_millis(100);
/// A packet that waited so long (no path at all) is of no use to anybody any more.
const AGE_MOST: Duration = Duration::from_secs(10);
/// Buffers kept for reuse.
const SPARE: usize = 64;

#[derive(Debug)]
struct Waiting {
    since: Instant,
    inner: u8,
    packet: Vec<u8>,
}

/// What is to be sealed: an inner type, and a packet in two parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain<'a> {
    pub(crate) inner: u8,
    /// Its headers, or all of it.
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl<'a> Plain<'a> {
    /// A packet in one part.
    pub(crate) fn whole(inner: u8, packet: &'a [u8]) -> Self {
        Self { inner, head: packet, body: &[] }
    }

    /// Bytes of the packet.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// `CoDel`'s state of one flow (RFC 8289 5).
#[derive(Debug, Default)]
struct Codel {
    above_since: Option<Instant>,
    dropping: bool,
    drop_next: Instant,
    count: u32,
}

#[derive(Debug, Default)]
struct Flow {
    packets: VecDeque<Waiting>,
    bytes: usize,
    deficit: i64,
    listed: bool,
    codel: Codel,
}

/// Packets of one peer that wait for room on its path.
#[derive(Debug, Default)]
pub(crate) struct FairQueue {
    flows: Vec<Flow>,
    fresh: VecDeque<usize>,
    old: VecDeque<usize>,
    packets: usize,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    /// Shards of the plane beyond this one, each with a queue for the peer.
    others: usize,
    /// Until then, what waits may still be there for want of a path, and is not thinned.
    spared_until: Instant,
}

impl FairQueue {
    /// A queue that may hold its share, where so many lanes have one each.
    pub(crate) fn shared_by(lanes: u8) -> Self {
        Self { others: usize::from(lanes.saturating_sub(1)), ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Packets waiting.
    pub(crate) fn len(&self) -> usize {
        self.packets
    }

    /// What waits, beside the most.
    pub(crate) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("packets before sealing", self.packets, QUEUE_PACKETS));
        each(Bound::new("bytes before sealing", self.bytes, QUEUE_BYTES));
        each(Bound::new("spare packet buffers", self.spare.len(), SPARE));
    }

    /// Puts a packet behind the others of its flow. When the bound is reached, the fattest flow loses its oldest packet.
    pub(crate) fn push(&mut self, now: Instant, flow: u32, packet: Plain<'_>, drops: &mut Drops) {
        if self.flows.is_empty() {
            self.flows.resize_with(BUCKETS, Flow::default);
        }
        let shares = self.others + 1;
        while self.packets >= QUEUE_PACKETS / shares || self.bytes + packet.len() > QUEUE_BYTES / shares {
            self.drop_from_fattest();
            drops.count(Drop::QueueFull);
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet.head);
        buffer.extend_from_slice(packet.body);
        let index = flow as usize % BUCKETS;
        self.packets += 1;
        self.bytes += packet.len();
        if let Some(flow) = self.flows.get_mut(index) {
            flow.bytes += packet.len();
            flow.packets.push_back(Waiting { since: now, inner: packet.inner, packet: buffer });
            if !flow.listed {
                flow.listed = true;
                flow.deficit = QUANTUM;
                self.fresh.push_back(index);
            }
        }
    }

    /// There is a path again, or another one. What waits by now waited for that, which is no sign that the new one is congested; nor is it
    /// one that it takes a while until all that has gone. A path half as fast again as the traffic is done in twice the time of the outage.
    pub(crate) fn resume(&mut self, now: Instant) {
        let oldest = self.flows.iter().filter_map(|flow| flow.packets.front()).map(|waiting| waiting.since).min();
        let outage = oldest.map_or(Duration::ZERO, |since| now.since(since).min(AGE_MOST));
        self.spared_until = self.spared_until.max(now + outage * 2);
        for flow in &mut self.flows {
            flow.codel = Codel::default();
        }
    }

    /// Length of the packet that `pop` would look at next; an estimate, since `CoDel` may drop it.
    pub(crate) fn peek_len(&self) -> Option<usize> {
        let index = self.fresh.front().or(self.old.front())?;
        self.flows.get(*index)?.packets.front().map(|waiting| waiting.packet.len()).or(Some(QUANTUM as usize))
    }

    /// The next packet in fair order, and its inner type. Give it back by `recycle`.
    pub(crate) fn pop(&mut self, now: Instant, drops: &mut Drops) -> Option<(u8, Vec<u8>)> {
        loop {
            let from_fresh = !self.fresh.is_empty();
            let index = *self.fresh.front().or(self.old.front())?;
            let flow = self.flows.get_mut(index)?;
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                self.rotate(from_fresh, index);
                continue;
            }
            let Some((inner, packet)) = self.take(now, index, drops) else {
                if from_fresh && !self.old.is_empty() {
                    // an emptied new flow goes through the old list once, or it would starve the others (RFC 8290 4.2)
                    self.rotate(true, index);
                } else {
                    self.unlist(from_fresh, index);
                }
                continue;
            };
            if let Some(flow) = self.flows.get_mut(index) {
                flow.deficit -= i64::try_from(packet.len()).unwrap_or(i64::MAX);
            }
            return Some((inner, packet));
        }
    }

    /// Takes a buffer back for reuse.
    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(buffer);
        }
    }

    fn rotate(&mut self, from_fresh: bool, index: usize) {
        if from_fresh {
            self.fresh.pop_front();
        } else {
            self.old.pop_front();
        }
        self.old.push_back(index);
    }

    fn unlist(&mut self, from_fresh: bool, index: usize) {
        if from_fresh {
            self.fresh.pop_front();
        } else {
            self.old.pop_front();
        }
        if let Some(flow) = self.flows.get_mut(index) {
            flow.listed = false;
        }
    }

    /// The oldest packet of one flow that `CoDel` lets through.
    fn take(&mut self, now: Instant, index: usize, drops: &mut Drops) -> Option<(u8, Vec<u8>)> {
        loop {
            let flow = self.flows.get_mut(index)?;
            let waiting = flow.packets.pop_front()?;
            flow.bytes -= waiting.packet.len();
            self.packets -= 1;
            self.bytes -= waiting.packet.len();
            if now.since(waiting.since) > AGE_MOST {
                drops.count(Drop::Congestion);
                self.recycle(waiting.packet);
                continue;
            }
            let more_than_a_packet = flow.bytes > QUANTUM as usize;
            if now >= self.spared_until && flow.codel.drops(now, now.since(waiting.since), more_than_a_packet) {
                drops.count(Drop::Congestion);
                self.recycle(waiting.packet);
                continue;
            }
            return Some((waiting.inner, waiting.packet));
        }
    }

    fn drop_from_fattest(&mut self) {
        let Some(flow) = self.flows.iter_mut().max_by_key(|flow| flow.bytes) else {
            return;
        };
        if let Some(waiting) = flow.packets.pop_front() {
            flow.bytes -= waiting.packet.len();
            self.packets -= 1;
            self.bytes -= waiting.packet.len();
            self.recycle(waiting.packet);
        }
    }
}

impl Codel {
    /// Whether the packet that waited for `sojourn` is dropped.
    fn drops(&mut self, now: Instant, sojourn: Duration, backlog: bool) -> bool {
        if sojourn < TARGET || !backlog {
            self.above_since = None;
            self.dropping = false;
            return false;
        }
        let since = *self.above_since.get_or_insert(now);
        if self.dropping {
            if now < self.drop_next {
                return false;
            }
            self.count += 1;
            self.drop_next = self.drop_next + self.gap();
            return true;
        }
        if now.since(since) < INTERVAL {
            return false;
        }
        self.dropping = true;
        // soon after the last time: take up the rate that was right then (RFC 8289 5.5)
        self.count = if now.since(self.drop_next) < INTERVAL * 16 && self.count > 2 { self.count - 2 } else { 1 };
        self.drop_next = now + self.gap();
        true
    }

    fn gap(&self) -> Duration {
        INTERVAL.div_f64(f64::from(self.count.max(1)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_sparse_flow_overtakes_a_bulk_flow() {
        let (mut queue, mut drops) = (FairQueue::default(), Drops::default());
        for _ in 0..100 {
            queue.push(at(0), 1, Plain::whole(0, &[1; 1400]), &mut drops);
        }
        assert_eq!(queue.pop(at(0), &mut drops), Some((0, vec![1; 1400])));
        assert_eq!(queue.pop(at(0), &mut drops), Some((0, vec![1; 1400])));
        queue.push(at(0), 2, Plain::whole(0, &[2; 60]), &mut drops);
        assert_eq!(queue.pop(at(0), &mut drops), Some((0, vec![2; 60])));
    }

    #[test]
    fn one_flow_stays_in_order() {
        let (mut queue, mut drops) = (FairQueue::default(), Drops::default());
        for value in 0..200_u8 {
            queue.push(at(0), 7, Plain::whole(0, &[value; 900]), &mut drops);
        }
        for value in 0..200_u8 {
            assert_eq!(queue.pop(at(1), &mut drops), Some((0, vec![value; 900])));
        }
        assert!(queue.is_empty() && queue.pop(at(1), &mut drops).is_none());
    }

    // protocol 7.1, 7.6
    #[test]
    fn a_full_queue_drops_from_the_fattest_flow() {
        let (mut queue, mut drops) = (FairQueue::default(), Drops::default());
        queue.push(at(0), 2, Plain::whole(0, &[2; 60]), &mut drops);
        for _ in 0..QUEUE_PACKETS + 50 {
            queue.push(at(0), 1, Plain::whole(0, &[1; 100]), &mut drops);
        }
        assert_eq!(queue.len(), QUEUE_PACKETS);
        assert_eq!(drops.get(Drop::QueueFull), 51);
        assert_eq!(queue.pop(at(0), &mut drops), Some((0, vec![2; 60])));
    }

    #[test]
    fn a_standing_queue_is_thinned_and_a_short_burst_is_not() {
        let (mut queue, mut drops) = (FairQueue::default(), Drops::default());
        for _ in 0..30 {
            queue.push(at(0), 1, Plain::whole(0, &[0; 1000]), &mut drops);
        }
        for step in 0..30 {
            queue.pop(at(step), &mut drops);
        }
        assert_eq!(drops.get(Drop::Congestion), 0);
        for step in 0..2000_u64 {
            queue.push(at(step), 1, Plain::whole(0, &[0; 1000]), &mut drops);
            queue.push(at(step), 1, Plain::whole(0, &[0; 1000]), &mut drops);
            queue.pop(at(step), &mut drops);
        }
        assert!(drops.get(Drop::Congestion) > 20, "{}", drops.get(Drop::Congestion));
    }

    // protocol 7.1, 7.6
    #[test]
    fn what_waited_for_a_path_that_was_gone_is_not_thinned() {
        let (mut queue, mut drops) = (FairQueue::default(), Drops::default());
        for step in 0..2_000 {
            queue.push(at(step), 1, Plain::whole(0, &[0; 256]), &mut drops);
        }
        queue.resume(at(2_000));
        let mut came = 0;
        for step in 2_001..6_000 {
            queue.push(at(step), 1, Plain::whole(0, &[0; 256]), &mut drops);
            came += (0..=step % 2).filter_map(|_| queue.pop(at(step), &mut drops)).count();
        }
        assert_eq!((came, queue.len()), (5_999, 0));
        assert_eq!(drops.get(Drop::Congestion), 0);
        for step in 6_000..8_000 {
            queue.push(at(step), 1, Plain::whole(0, &[0; 1000]), &mut drops);
            queue.push(at(step), 1, Plain::whole(0, &[0; 1000]), &mut drops);
            queue.pop(at(step), &mut drops);
        }
        assert!(drops.get(Drop::Congestion) > 20, "the new path can be congested as well");
    }
}
