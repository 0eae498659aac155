//! What waits for one client: a short urgent queue, and one flow a source served by deficit round robin (protocol 9.2, 9.4).
//!
//! ```text
//!   source 3 ─▶ flow 3 ▒▒▒▒▒▒ ─┐
//!   source 7 ─▶ flow 7 ▒ ──────┼─ round robin by bytes ─▶ one message of at most 16 KiB
//!   source 9 ─▶ flow 9 ▒▒ ─────┘          ▲
//!   handshakes, PATH ─▶ urgent ▒▒ ────────┘ first
//! ```
//! A flow is one ring of bytes and one of marks: nothing is allocated per record, and records of a pair keep their order.
use super::status::QueueTimes;
use crate::{bound, id::Handle, time::Instant};
use std::collections::{BTreeMap, VecDeque};

/// Bytes a flow may send in a row: about one full-size packet and its acknowledgements.
const QUANTUM_BYTES: usize = 2 * 1024;
/// Urgent records that may wait for one client.
const URGENT_FRAMES: usize = 64;
/// Urgent records of one source among them.
const URGENT_FRAMES_PER_SOURCE: usize = 16;
/// Flows kept for reuse, and the largest that is worth keeping.
const SPARE_FLOWS: usize = 64;
const SPARE_FLOW_BYTES: usize = 64 * 1024;

/// The bound of a queue, urgent records not counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) frames: usize,
    pub(super) bytes: usize,
}

/// What became of a record that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Queued,
    /// It waits, and the source with most in the queue lost so many of its newest.
    Displaced(u64),
    /// It was dropped: its own source has most in the queue, or the urgent queue is full.
    Refused,
}

/// All that waits for one client.
#[derive(Default)]
pub(super) struct Queue {
    urgent: VecDeque<(Handle, Instant, Vec<u8>)>,
    flows: BTreeMap<Handle, Flow>,
    /// Sources with a flow, in the order in which they are served.
    ring: VecDeque<Handle>,
    frames: usize,
    bytes: usize,
    urgent_bytes: usize,
}

/// Records of one source, oldest first.
#[derive(Default)]
struct Flow {
    bytes: VecDeque<u8>,
    marks: VecDeque<Mark>,
    deficit_bytes: usize,
}

/// Where a record ends, and when it came.
struct Mark {
    len: u32,
    at: Instant,
}

/// Flows that ended, kept so that a new one need not allocate.
#[derive(Default)]
pub(super) struct Spares(Vec<Flow>);

impl Spares {
    fn keep(&mut self, mut flow: Flow) {
        if self.0.len() < SPARE_FLOWS && flow.bytes.capacity() <= SPARE_FLOW_BYTES {
            flow.bytes.clear();
            flow.marks.clear();
            self.0.push(flow);
        }
    }
}

impl Queue {
    /// Records that wait, urgent ones included.
    pub(super) fn frames(&self) -> usize {
        self.frames + self.urgent.len()
    }

    /// Bytes that wait, urgent ones included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.urgent_bytes
    }

    /// What waits, beside the most.
    pub(super) fn bounds(&self, bound: Bound, each: &mut dyn FnMut(bound::Bound)) {
        each(bound::Bound::new("records that wait for a client", self.frames, bound.frames));
        each(bound::Bound::new("bytes that wait for a client", self.bytes, bound.bytes));
        each(bound::Bound::new("urgent records that wait for a client", self.urgent.len(), URGENT_FRAMES));
    }

    /// Appends a record to its source's flow; a full queue takes from the source that has most in it.
    pub(super) fn push(
        &mut self,
        now: Instant,
        source: Handle,
        header: [u8; 8],
        payload: &[u8],
        bound: Bound,
        spares: &mut Spares,
    ) -> Pushed {
        let len = header.len() + payload.len();
        let mut displaced = 0;
        while self.frames + 1 > bound.frames || self.bytes + len > bound.bytes {
            let by_frames = self.frames + 1 > bound.frames;
            if !self.drop_newest_of_largest(source, len, by_frames, spares) {
                // What was displaced before stays so; the count is the caller's to add.
                return if displaced == 0 { Pushed::Refused } else { Pushed::Displaced(displaced + 1) };
            }
            displaced += 1;
        }
        let flow = self.flows.entry(source).or_insert_with(|| {
            self.ring.push_back(source);
            let mut flow = spares.0.pop().unwrap_or_default();
            flow.deficit_bytes = QUANTUM_BYTES;
            flow
        });
        flow.bytes.extend(&header);
        flow.bytes.extend(payload);
        flow.marks.push_back(Mark { len: len as u32, at: now });
        self.frames += 1;
        self.bytes += len;
        if displaced == 0 { Pushed::Queued } else { Pushed::Displaced(displaced) }
    }

    /// Makes room by dropping the newest record of the largest flow; false when that is the pushing source's own.
    fn drop_newest_of_largest(&mut self, source: Handle, len: usize, by_frames: bool, spares: &mut Spares) -> bool {
        let measure = |flow: &Flow| if by_frames { flow.marks.len() } else { flow.bytes.len() };
        let Some((largest, size)) = self.flows.iter().map(|(handle, flow)| (*handle, measure(flow))).max_by_key(|(_, size)| *size) else {
            return false;
        };
        let own = self.flows.get(&source).map_or(0, measure) + if by_frames { 1 } else { len };
        if own >= size {
            return false;
        }
        let flow = self.flows.get_mut(&largest).expect("the largest flow was found in the map");
        let mark = flow.marks.pop_back().expect("a flow in the map holds a record");
        flow.bytes.truncate(flow.bytes.len() - mark.len as usize);
        self.frames -= 1;
        self.bytes -= mark.len as usize;
        if flow.marks.is_empty() {
            self.ring.retain(|handle| *handle != largest);
            if let Some(flow) = self.flows.remove(&largest) {
                spares.keep(flow);
            }
        }
        true
    }

    /// Appends an urgent record; these are few, so each has its own buffer.
    pub(super) fn push_urgent(&mut self, now: Instant, source: Handle, header: [u8; 8], payload: &[u8]) -> Pushed {
        let own = self.urgent.iter().filter(|(handle, ..)| *handle == source).count();
        if self.urgent.len() >= URGENT_FRAMES || own >= URGENT_FRAMES_PER_SOURCE {
            return Pushed::Refused;
        }
        let mut record = Vec::with_capacity(header.len() + payload.len());
        record.extend_from_slice(&header);
        record.extend_from_slice(payload);
        self.urgent_bytes += record.len();
        self.urgent.push_back((source, now, record));
        Pushed::Queued
    }

    /// Moves records to `out` until that would be longer than `max_bytes`; the number moved.
    pub(super) fn pull(&mut self, now: Instant, out: &mut Vec<u8>, max_bytes: usize, times: &mut QueueTimes, spares: &mut Spares) -> u64 {
        let mut count = 0;
        while self.urgent.front().is_some_and(|(.., record)| out.is_empty() || out.len() + record.len() <= max_bytes)
            && let Some((_, at, record)) = self.urgent.pop_front()
        {
            self.urgent_bytes -= record.len();
            out.extend_from_slice(&record);
            times.record(now.since(at));
            count += 1;
        }
        if !self.urgent.is_empty() {
            return count;
        }
        while let Some(source) = self.ring.front().copied() {
            let flow = self.flows.get_mut(&source).expect("a source in the ring has a flow");
            let mark = flow.marks.front().expect("a flow in the ring holds a record");
            let len = mark.len as usize;
            if !out.is_empty() && out.len() + len > max_bytes {
                break;
            }
            if flow.deficit_bytes < len {
                flow.deficit_bytes += QUANTUM_BYTES;
                self.ring.rotate_left(1);
                continue;
            }
            times.record(now.since(mark.at));
            flow.take_front(len, out);
            self.frames -= 1;
            self.bytes -= len;
            count += 1;
            if flow.marks.is_empty() {
                self.ring.pop_front();
                if let Some(flow) = self.flows.remove(&source) {
                    spares.keep(flow);
                }
            }
        }
        count
    }

    /// Drops all; how many records that were.
    pub(super) fn clear(&mut self) -> u64 {
        let count = self.frames() as u64;
        *self = Self::default();
        count
    }
}

impl Flow {
    fn take_front(&mut self, len: usize, out: &mut Vec<u8>) {
        let (first, second) = self.bytes.as_slices();
        if let Some(part) = first.get(..len) {
            out.extend_from_slice(part);
        } else {
            out.extend_from_slice(first);
            out.extend_from_slice(&second[..len - first.len()]);
        }
        self.bytes.drain(..len);
        self.marks.pop_front();
        self.deficit_bytes -= len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    /// A queue under a bound of a thousand bytes.
    #[derive(Default)]
    struct World {
        queue: Queue,
        spares: Spares,
    }

    impl World {
        /// A record of `len` bytes in all, filled with `mark`.
        fn push(&mut self, source: u32, len: usize, mark: u8) -> Pushed {
            let bound = Bound { frames: 100, bytes: 1_000 };
            self.queue.push(NOW, Handle(source), [mark; 8], &vec![mark; len - 8], bound, &mut self.spares)
        }

        /// What is given to the writer, as (length, mark) of each record.
        fn pull(&mut self, max_bytes: usize) -> Vec<(usize, u8)> {
            let mut out = Vec::new();
            self.queue.pull(NOW, &mut out, max_bytes, &mut QueueTimes::default(), &mut self.spares);
            out.chunk_by(|one, next| one == next).map(|record| (record.len(), record[0])).collect()
        }
    }

    #[test]
    fn a_source_whose_only_record_gives_way_has_nothing_in_line_and_may_come_again() {
        let mut world = World::default();
        assert_eq!(world.push(1, 600, 1), Pushed::Queued);
        assert_eq!(world.push(2, 500, 2), Pushed::Displaced(1));
        assert_eq!((world.queue.frames(), world.queue.bytes(), world.queue.flows.len()), (1, 500, 1));
        assert_eq!(world.push(1, 300, 3), Pushed::Queued);
        assert_eq!(world.pull(16_000), [(500, 2), (300, 3)]);
        assert_eq!((world.queue.frames(), world.queue.bytes(), world.queue.ring.len()), (0, 0, 0));
    }

    #[test]
    fn a_record_that_does_not_fit_though_others_gave_way_is_counted_with_them() {
        let mut world = World::default();
        for (source, mark) in [(1, 1), (1, 2), (3, 3)] {
            assert_eq!(world.push(source, 300, mark), Pushed::Queued);
        }
        assert_eq!(world.push(2, 450, 4), Pushed::Displaced(2), "one gave way, then its own was the longest");
        assert_eq!(world.pull(16_000), [(300, 1), (300, 3)]);
        assert_eq!(world.push(2, 1_001, 5), Pushed::Refused, "nobody can make room for it");
        assert_eq!(world.queue.frames(), 0);
    }

    /// The ring of bytes of a flow that never empties wraps round at some time.
    #[test]
    fn records_are_whole_wherever_they_lie_in_the_ring() {
        let mut world = World::default();
        let mut wrapped = false;
        let mut given = Vec::new();
        for number in 0..200_u8 {
            assert_eq!(world.push(1, 97, number), Pushed::Queued);
            wrapped |= !world.queue.flows[&Handle(1)].bytes.as_slices().1.is_empty();
            if number >= 3 {
                given.extend(world.pull(97));
            }
        }
        given.extend(world.pull(16_000));
        assert!(wrapped);
        assert_eq!(given, (0..200).map(|number| (97, number)).collect::<Vec<_>>());
    }
}
