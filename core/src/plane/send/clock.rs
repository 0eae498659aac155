//! When the main path of a sending lane has been silent for too long.
use super::{Paths, STALL_REPEAT, SendLane};
use crate::time::Instant;

/// Since when a lane waits for a sign of its main path.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum Clock {
    /// Frames are out on it: since the first of them, or the last receipt for one.
    Owes(Instant),
    /// None is: what is out went another way, and takes the time of that.
    Clear(Instant),
}

impl SendLane {
    /// When a stall is due. All that was out may have come over another path: a main path that is still full of it is as dead.
    pub(super) fn stall_at(&self, paths: &Paths) -> Option<Instant> {
        let patience = paths.pto(self.main);
        let at = match (self.ring.oldest(), self.clock) {
            (None, _) => self.stuck_since? + patience,
            (Some(_), Clock::Owes(since)) => since + patience,
            (Some(oldest), Clock::Clear(since)) => since + patience.max(paths.pto(oldest.path)),
        };
        Some(self.stall_reported_at.map_or(at, |reported| at.max(reported + STALL_REPEAT)))
    }
}
