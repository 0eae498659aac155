//! A path by UDP that goes on losing much is left, though it lives; and one that came to carry less is found out (protocol 7.5, 8.3).
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

/// A path that loses some frames must show at most so often that large ones still come through.
const SIZE_AGAIN: Duration = Duration::from_secs(5);

/// Frames sent and lost since a moment, on one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct LossWatch {
    since: Instant,
    sent: u64,
    lost: u64,
    /// When it was asked last whether large frames come through, and how many were lost by then.
    size_at: Instant,
    size_lost: u64,
}

impl LossWatch {
    pub(super) fn new(now: Instant, tally: Option<&LinkTally>) -> Self {
        let (sent, lost) = tally.map_or((0, 0), |tally| (tally.tx_frames, tally.tx_lost));
        Self { since: now, sent, lost, size_at: now, size_lost: lost }
    }

    /// Whether what was sent since the last verdict was lost in great part; None: it is too early to say.
    fn verdict(&mut self, now: Instant, tally: &LinkTally) -> Option<bool> {
        let (sent, lost) = (tally.tx_frames.saturating_sub(self.sent), tally.tx_lost.saturating_sub(self.lost));
        if now.since(self.since) < LEAST_TIME || sent < LEAST_FRAMES {
            return None;
        }
        (self.since, self.sent, self.lost) = (now, tally.tx_frames, tally.tx_lost);
        Some(lost * ONE_IN > sent)
    }

    /// Whether frames were lost since it was asked last, and that is long enough ago. Small ones that come make receipts go on, and no path
    /// suspect, though all large ones are lost.
    fn doubts_size(&mut self, now: Instant, tally: &LinkTally) -> bool {
        let doubts = tally.tx_lost > self.size_lost && now.since(self.size_at) >= SIZE_AGAIN;
        if doubts {
            (self.size_at, self.size_lost) = (now, tally.tx_lost);
        }
        doubts
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
        } else if self.loss.doubts_size(now, tally)
            && let Some(key) = self.path_key()
            && let Some(direct) = self.directs.iter_mut().find(|direct| direct.path() == main)
        {
            direct.examine_size(now, room, &key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Transports,
        event::{Action, Note},
        id::PathId,
        link::tests::{at, connected, proven_at, room, tally},
        plane::Edit,
        session::Side,
    };

    // protocol 8.3
    #[test]
    fn a_path_that_loses_frames_is_asked_for_its_size_each_five_seconds_at_most() {
        let told = |lost| LinkTally { tx_lost: lost, ..tally(1_000) };
        let mut watch = LossWatch::new(at(1), Some(&told(7)));
        assert!(!watch.doubts_size(at(9), &told(7)), "nothing was lost");
        assert!(!watch.doubts_size(at(5), &told(8)) && watch.doubts_size(at(6), &told(8)));
        assert!(!watch.doubts_size(at(10), &told(9)) && watch.doubts_size(at(11), &told(9)) && !watch.doubts_size(at(19), &told(9)));
    }

    // protocol 7.5
    #[test]
    fn a_path_that_goes_on_losing_much_is_left_for_the_relay_and_its_place_is_not_taken_again_at_once() {
        let room = &mut room(Vec::new());
        (room.config.direct, room.udp_ports) = (Transports::UDP, (Some(4_000), None));
        let mut link = connected(room, Side::Responder);
        let place = core::net::SocketAddr::from(([192, 0, 2, 1], 4_000));
        proven_at(&mut link, room, place);
        assert!(link.is_direct());
        let told = |frames, lost| LinkTally { tx_lost: lost, ..tally(frames) };
        for (second, tally) in [(3, told(0, 0)), (7, told(200, 40))] {
            link.tallied(at(second), room, tally);
            assert!(link.is_direct(), "a fifth is not too much");
        }
        room.drain(usize::MAX, &mut Vec::new());
        link.tallied(at(11), room, told(400, 81));
        assert!(!link.is_direct());
        let mut actions = Vec::new();
        room.drain(usize::MAX, &mut actions);
        assert!(actions.iter().any(|action| matches!(action, Action::Edit(Edit::FallBack { to: PathId::RELAY, .. }))));
        let told = |action: &Action| matches!(action, Action::Note(Note::FellBack { why, .. }) if why.contains("a fifth"));
        assert!(actions.iter().any(told));
        proven_at(&mut link, room, place);
        assert!(!link.is_direct(), "it is held down");
    }

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
