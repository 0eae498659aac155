//! The resend ring: every sealed data frame that the other end has not yet receipted, bit for bit as it was sent.
//!
//! ```text
//!   base                                                   next
//!    │  slab 7 (64 KiB)        slab 8                       │
//!    ▼ ┌────┬────┬────┬───┐  ┌────┬────┬────┬─────────────┐ ▼
//!      │ 40 │ 41 │ 42 │ 43│  │ 44 │ 45 │ 46 │  free       │      frames lie one behind the other,
//!      └────┴────┴────┴───┘  └────┴────┴────┴─────────────┘      a slab is reused when its last frame is released
//! ```
//! A frame is sealed where it lies and never written again (protocol 4.3): sending it once more is a copy of these bytes.
#![expect(clippy::disallowed_types, reason = "the count of slabs has one owner; it is atomic so that a plane may move to another thread")]
use crate::{bound::Bound, id::PathId, time::Instant};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// One slab, bytes: sixteen large TLS records.
pub(crate) const SLAB_BYTES: usize = 65_536;
/// Slab memory of all lanes of a session, bytes (protocol 7.1).
pub(crate) const RING_BYTES: usize = 16 << 20;
/// Slab memory of all lanes of all sessions together, bytes (protocol 7.1).
pub(crate) const POOL_BYTES: usize = 256 << 20;
/// Frames of one lane (protocol 7.1).
pub(crate) const RING_FRAMES: usize = 1 << 16;
/// Empty slabs kept for reuse; more go back to the allocator. A receipt frees a slab or two, and a burst fills as many as its window.
const SPARE_SLABS: usize = 8;

/// What the ring knows of one frame beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    slab: u64,
    offset: usize,
    len: usize,
    /// When it was first sent.
    pub(crate) sent_at: Instant,
    /// The path that carries it: on which it was sent first, or again when the lane moved.
    pub(crate) path: PathId,
    /// It went out on `path` once, at `sent_at`: a receipt that names this path tells its round trip, though copies went elsewhere.
    pub(crate) is_timed: bool,
    /// The other end has it.
    pub(crate) receipted: bool,
}

impl Entry {
    /// It goes again, and this is its path now.
    pub(crate) fn send_again(&mut self, path: PathId) {
        (self.path, self.is_timed) = (path, false);
    }
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Slab {
    bytes: Vec<u8>,
    live: usize,
}

/// Counts the slabs of all lanes of all sessions.
pub(crate) type Pool = Arc<AtomicUsize>;

/// Counts the slabs of all lanes of one session, which several shards may own.
#[derive(Clone, Debug, Default)]
pub struct Slabs(Pool);

/// Sealed frames by sequence.
#[derive(Debug)]
pub(crate) struct Ring {
    pool: Pool,
    of_session: Pool,
    slabs: VecDeque<Slab>,
    first_slab: u64,
    spare: Vec<Vec<u8>>,
    frames: VecDeque<Entry>,
    base: u64,
    most_frames: usize,
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.give_back(self.slabs.len());
    }
}

impl Ring {
    /// An empty ring that takes its slabs from this pool, alone in its session.
    #[cfg(test)]
    pub(crate) fn new(pool: Pool) -> Self {
        Self::sharing(pool, &Slabs::default())
    }

    /// An empty ring that takes its slabs from this pool, and shares with others what a session may have.
    pub(crate) fn sharing(pool: Pool, of_session: &Slabs) -> Self {
        let of_session = Pool::clone(&of_session.0);
        Self {
            pool,
            of_session,
            slabs: VecDeque::new(),
            first_slab: 0,
            spare: Vec::new(),
            frames: VecDeque::new(),
            base: 0,
            most_frames: RING_FRAMES,
        }
    }

    /// Whether so many more frames, of `len` bytes together, keep the bounds.
    pub(crate) fn has_room(&self, frames: usize, len: usize) -> bool {
        let fits = self.slabs.back().is_some_and(|slab| slab.bytes.len() + len <= SLAB_BYTES);
        self.frames.len() + frames <= self.most_frames && len <= SLAB_BYTES && (fits || self.may_grow())
    }

    fn may_grow(&self) -> bool {
        // the first slab is always granted, so that no lane is starved by the others
        let of_all = self.slabs.is_empty() || (self.pool.load(Ordering::Relaxed) + 1) * SLAB_BYTES <= POOL_BYTES;
        let of_session = self.slabs.is_empty() || (self.of_session.load(Ordering::Relaxed) + 1) * SLAB_BYTES <= RING_BYTES;
        of_all && of_session
    }

    /// So many slabs are nobody's any more.
    fn give_back(&self, slabs: usize) {
        self.pool.fetch_sub(slabs, Ordering::Relaxed);
        self.of_session.fetch_sub(slabs, Ordering::Relaxed);
    }

    /// Lets `append` put a frame of `len` bytes behind the others. Call only when `has_room`.
    pub(crate) fn push(&mut self, now: Instant, path: PathId, len: usize, append: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let fits = self.slabs.back().is_some_and(|slab| slab.bytes.len() + len <= SLAB_BYTES);
        if !fits {
            let mut bytes = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(SLAB_BYTES));
            bytes.clear();
            self.slabs.push_back(Slab { bytes, live: 0 });
            self.pool.fetch_add(1, Ordering::Relaxed);
            self.of_session.fetch_add(1, Ordering::Relaxed);
        }
        let slab_number = self.first_slab + self.slabs.len() as u64 - 1;
        let slab = self.slabs.back_mut().expect("a slab was pushed above when none had room");
        let offset = slab.bytes.len();
        append(&mut slab.bytes);
        debug_assert_eq!(slab.bytes.len(), offset + len, "a frame is as long as was said");
        slab.live += 1;
        self.frames.push_back(Entry { slab: slab_number, offset, len, sent_at: now, path, is_timed: true, receipted: false });
        slab.bytes.get(offset..).unwrap_or_default()
    }

    /// What it keeps, beside the most.
    pub(crate) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("frames of a resend ring", self.frames.len(), RING_FRAMES));
        each(Bound::new("slabs of a resend ring", self.slabs.len(), RING_BYTES / SLAB_BYTES));
        each(Bound::new("spare slabs of a resend ring", self.spare.len(), SPARE_SLABS));
    }

    /// The sequence of the oldest frame kept.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The sequence after the newest frame.
    pub(crate) fn next(&self) -> u64 {
        self.base + self.frames.len() as u64
    }

    /// Frames kept.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// What is known of one frame.
    pub(crate) fn entry_mut(&mut self, sequence: u64) -> Option<&mut Entry> {
        let index = sequence.checked_sub(self.base)?;
        self.frames.get_mut(usize::try_from(index).ok()?)
    }

    /// The sealed bytes of one frame.
    pub(crate) fn bytes(&self, sequence: u64) -> Option<&[u8]> {
        let index = sequence.checked_sub(self.base)?;
        let entry = self.frames.get(usize::try_from(index).ok()?)?;
        let slab = self.slabs.get(usize::try_from(entry.slab - self.first_slab).ok()?)?;
        slab.bytes.get(entry.offset..entry.offset + entry.len)
    }

    /// The oldest frame in it.
    pub(crate) fn oldest(&self) -> Option<&Entry> {
        self.frames.front()
    }

    /// The first frame at or above `sequence` that the other end does not have.
    pub(crate) fn unreceipted_from(&self, sequence: u64) -> Option<u64> {
        let start = sequence.max(self.base);
        let skip = usize::try_from(start - self.base).ok()?;
        let found = self.frames.iter().skip(skip).position(|entry| !entry.receipted)?;
        Some(start + found as u64)
    }

    /// The first frame longer than `most` bytes that the other end does not have.
    pub(crate) fn unreceipted_above(&self, most: usize) -> Option<u64> {
        let found = self.frames.iter().position(|entry| !entry.receipted && entry.len > most)?;
        Some(self.base + found as u64)
    }

    /// Whether this path carries a frame that the other end does not have.
    pub(crate) fn has_unreceipted_on(&self, path: PathId) -> bool {
        self.frames.iter().any(|entry| !entry.receipted && entry.path == path)
    }

    /// The sequence after the last frame that other paths than this one carry and that the other end does not have; 0 without one.
    pub(crate) fn unreceipted_off(&self, path: PathId) -> u64 {
        let last = self.frames.iter().rposition(|entry| !entry.receipted && entry.path != path);
        last.map_or(0, |last| self.base + last as u64 + 1)
    }

    /// From now on this path carries all frames below `sequence` that the other end does not have: their copies went there.
    pub(crate) fn carry_below(&mut self, sequence: u64, path: PathId) {
        let count = usize::try_from(sequence.saturating_sub(self.base)).unwrap_or(usize::MAX);
        for entry in self.frames.iter_mut().take(count).filter(|entry| !entry.receipted && entry.path != path) {
            entry.send_again(path);
        }
    }

    /// Frees all frames below `floor`.
    pub(crate) fn release_below(&mut self, floor: u64) {
        while self.base < floor {
            let Some(entry) = self.frames.pop_front() else {
                break;
            };
            self.base += 1;
            if let Ok(index) = usize::try_from(entry.slab - self.first_slab)
                && let Some(slab) = self.slabs.get_mut(index)
            {
                slab.live -= 1;
            }
            self.recycle();
        }
    }

    /// Gives back slabs without a live frame, save the one being filled.
    fn recycle(&mut self) {
        while self.slabs.len() > 1 && self.slabs.front().is_some_and(|slab| slab.live == 0) {
            if let Some(slab) = self.slabs.pop_front() {
                self.first_slab += 1;
                self.give_back(1);
                if self.spare.len() < SPARE_SLABS {
                    self.spare.push(slab.bytes);
                }
            }
        }
        if let Some(slab) = self.slabs.front_mut()
            && slab.live == 0
        {
            slab.bytes.clear();
        }
    }
}

/// What the exhaustive models need of the real ring: copies that share no pool, and a digest of what decides.
#[cfg(test)]
mod model {
    use super::{AtomicUsize, Ordering, Pool, Ring};
    use core::hash::{Hash, Hasher};

    impl Ring {
        /// A ring that takes at most so many frames.
        pub(crate) fn narrow(&mut self, most_frames: usize) {
            self.most_frames = most_frames;
        }

        /// Whether the other end has said that it has this frame.
        pub(crate) fn is_receipted(&self, sequence: u64) -> bool {
            let index = sequence.checked_sub(self.base).and_then(|index| usize::try_from(index).ok());
            index.and_then(|index| self.frames.get(index)).is_some_and(|entry| entry.receipted)
        }
    }

    impl Clone for Ring {
        fn clone(&self) -> Self {
            Self {
                pool: Pool::new(AtomicUsize::new(self.pool.load(Ordering::Relaxed))),
                of_session: Pool::new(AtomicUsize::new(self.of_session.load(Ordering::Relaxed))),
                slabs: self.slabs.clone(),
                first_slab: self.first_slab,
                spare: Vec::new(),
                frames: self.frames.clone(),
                base: self.base,
                most_frames: self.most_frames,
            }
        }
    }

    impl Hash for Ring {
        fn hash<H: Hasher>(&self, state: &mut H) {
            // where the bytes lie decides nothing; what they are does
            self.base.hash(state);
            for sequence in self.base..self.next() {
                self.bytes(sequence).hash(state);
            }
            for entry in &self.frames {
                (entry.sent_at, entry.path, entry.is_timed, entry.receipted).hash(state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(ring: &mut Ring, value: u8, len: usize) {
        ring.push(Instant::ZERO, PathId::RELAY, len, |bytes| bytes.resize(bytes.len() + len, value));
    }

    // protocol 4.3, 7.1
    #[test]
    fn frames_stay_bit_for_bit_until_they_are_released() {
        let mut ring = Ring::new(Pool::default());
        for sequence in 0..500_u64 {
            push(&mut ring, sequence as u8, 1000);
        }
        ring.release_below(123);
        assert_eq!(ring.base(), 123);
        assert_eq!(ring.next(), 500);
        assert!(ring.bytes(122).is_none());
        for sequence in 123..500 {
            assert_eq!(ring.bytes(sequence), Some(&[sequence as u8; 1000][..]));
        }
    }

    // protocol 7.1
    #[test]
    fn the_bound_counts_slab_memory_and_frames() {
        let mut ring = Ring::new(Pool::default());
        let mut count = 0;
        while ring.has_room(1, 9000) {
            push(&mut ring, 1, 9000);
            count += 1;
        }
        assert_eq!(count, RING_BYTES / SLAB_BYTES * (SLAB_BYTES / 9000));
        ring.release_below(7);
        assert!(ring.has_room(1, 9000), "a freed slab may be used again");
        let mut small = Ring::new(Pool::default());
        while small.has_room(1, 40) {
            push(&mut small, 1, 40);
        }
        assert_eq!(small.len(), RING_FRAMES);
    }

    // protocol 7.1
    #[test]
    fn all_rings_share_one_pool_and_each_has_at_least_one_slab() {
        let pool = Pool::default();
        let mut rings: Vec<Ring> = (0..17).map(|_| Ring::new(Pool::clone(&pool))).collect();
        for ring in &mut rings {
            while ring.has_room(1, 9000) {
                push(ring, 1, 9000);
            }
        }
        assert_eq!(pool.load(Ordering::Relaxed), POOL_BYTES / SLAB_BYTES + 1);
        assert_eq!(rings[16].slabs.len(), 1);
        drop(rings);
        assert_eq!(pool.load(Ordering::Relaxed), 0);
    }

    // protocol 7.1
    #[test]
    fn the_lanes_of_a_session_share_what_it_may_have_and_each_has_at_least_one_slab() {
        let (pool, of_session) = (Pool::default(), Slabs::default());
        let mut rings: Vec<Ring> = (0..3).map(|_| Ring::sharing(Pool::clone(&pool), &of_session)).collect();
        for ring in &mut rings {
            while ring.has_room(1, 9000) {
                push(ring, 1, 9000);
            }
        }
        assert_eq!(rings.iter().map(|ring| ring.slabs.len()).collect::<Vec<_>>(), [RING_BYTES / SLAB_BYTES, 1, 1]);
        rings[0].release_below(7 * 20);
        assert!(rings[1].has_room(1, 9000), "what one frees the others may take");
        rings.pop();
        assert_eq!(of_session.0.load(Ordering::Relaxed), pool.load(Ordering::Relaxed));
    }

    #[test]
    fn a_steady_stream_reuses_its_slabs() {
        let mut ring = Ring::new(Pool::default());
        for sequence in 0..10_000_u64 {
            push(&mut ring, 0, 1400);
            ring.release_below(sequence.saturating_sub(50));
        }
        assert!(ring.slabs.len() <= 3 && ring.spare.len() <= SPARE_SLABS);
        assert_eq!(ring.pool.load(Ordering::Relaxed), ring.slabs.len(), "the pool counts what is in use");
        ring.release_below(ring.next());
        assert_eq!((ring.slabs.len(), ring.slabs[0].bytes.len()), (1, 0), "the last slab is filled from its start again");
    }

    #[test]
    fn two_halves_fill_a_slab() {
        let mut ring = Ring::new(Pool::default());
        for _ in 0..2 {
            push(&mut ring, 1, SLAB_BYTES / 2);
        }
        assert_eq!(ring.slabs.len(), 1);
    }

    #[test]
    fn each_frame_knows_the_path_that_carries_it() {
        let mut ring = Ring::new(Pool::default());
        for path in [0, 0, 2, 2, 3] {
            ring.push(Instant::ZERO, PathId(path), 10, |bytes| bytes.resize(bytes.len() + 10, 0));
        }
        ring.release_below(1);
        assert!(ring.has_unreceipted_on(PathId(0)) && !ring.has_unreceipted_on(PathId(7)));
        assert_eq!([2, 3, 9].map(|path| ring.unreceipted_off(PathId(path))), [5, 4, 5]);
        ring.carry_below(4, PathId(9));
        assert!(ring.has_unreceipted_on(PathId(9)) && !ring.has_unreceipted_on(PathId(2)));
        assert_eq!(ring.unreceipted_off(PathId(9)), 5, "the last frame is where it was");
        for sequence in 1..5 {
            ring.entry_mut(sequence).expect("in the ring").receipted = true;
            assert!(!ring.has_unreceipted_on(PathId(0)));
        }
        assert_eq!(ring.unreceipted_off(PathId(2)), 0);
    }

    #[test]
    fn the_first_unreceipted_frame_is_found() {
        let mut ring = Ring::new(Pool::default());
        for _ in 0..10 {
            push(&mut ring, 0, 10);
        }
        for sequence in [0, 1, 4] {
            ring.entry_mut(sequence).expect("in the ring").receipted = true;
        }
        assert_eq!(ring.unreceipted_from(0), Some(2));
        assert_eq!(ring.unreceipted_from(4), Some(5));
        assert_eq!(ring.unreceipted_from(10), None);
    }
}
