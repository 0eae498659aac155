//! A path by UDP that goes on losing much is left, though it lives (protocol 7.5).
//!
//! Ordinary loss on a healthy path is not repaired: that is for whoever speaks inside the tunnel. What loses more than a fifth for seconds
//! is worse than the relay, over which TCP repairs everything.
use super::Link;
use crate::{
    node::Room,
    plane::LinkTally,
    time::{Duration, Instant},
};

/// A verdict is over so long at least, and so many frames.
const LEAST_TIME: Duration = Duration::from_secs(3);
const LEAST_FRAMES: u64 = 100;
/// More than one in so many frames lost: the path is left.
const ONE_IN: u64 = 5;

/// Frames sent and lost since a moment, on one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct LossWatch {
    since: Instant,
    sent: u64,
    lost: u64,
}

impl LossWatch {
    pub(super) fn new(now: Instant, tally: Option<&LinkTally>) -> Self {
        let (sent, lost) = tally.map_or((0, 0), |tally| (tally.tx_frames, tally.tx_lost));
        Self { since: now, sent, lost }
    }

    /// Whether what was sent since the last verdict was lost in great part; None: it is too early to say.
    fn verdict(&mut self, now: Instant, tally: &LinkTally) -> Option<bool> {
        let (sent, lost) = (tally.tx_frames.saturating_sub(self.sent), tally.tx_lost.saturating_sub(self.lost));
        if now.since(self.since) < LEAST_TIME || sent < LEAST_FRAMES {
            return None;
        }
        *self = Self::new(now, Some(tally));
        Some(lost * ONE_IN > sent)
    }
}

impl Link {
    /// Looks at what was lost of the frames sent, and leaves a path that loses too much of them.
    pub(super) fn watch_loss(&mut self, now: Instant, room: &mut Room, tally: &LinkTally) {
        let main = self.steer.main();
        let direct = self.directs.iter().find(|direct| direct.path() == main && direct.is_datagrams() && direct.is_usable());
        // what was sent elsewhere says nothing of this path
        if direct.is_none() || self.steer.main_since() > self.loss.since {
            self.loss = LossWatch::new(now, Some(tally));
            return;
        }
        if self.loss.verdict(now, tally) == Some(true) && self.relay_via().is_some() {
            self.leave_lossy(now, room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::tests::{at, tally};

    // protocol 7.5
    #[test]
    fn more_than_a_fifth_of_a_hundred_frames_in_three_seconds_is_too_much() {
        let told = |frames, lost| LinkTally { tx_lost: lost, ..tally(frames) };
        let verdict = |seconds: u64, frames: u64, lost: u64| {
            LossWatch::new(at(1), Some(&told(50, 7))).verdict(at(1 + seconds), &told(50 + frames, 7 + lost))
        };
        assert_eq!(verdict(3, 100, 20), Some(false));
        assert_eq!(verdict(3, 100, 21), Some(true));
        assert_eq!(verdict(2, 10_000, 9_000), None, "a moment is no state");
        assert_eq!(verdict(60, 99, 99), None, "nor are a few frames");
        let mut watch = LossWatch::new(at(1), None);
        assert_eq!(watch.verdict(at(4), &told(100, 50)), Some(true));
        assert_eq!(watch.verdict(at(7), &told(200, 50)), Some(false), "each verdict is of its own time");
    }
}
