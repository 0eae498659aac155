//! How long a client waits between two dials of its relay (protocol 7.6).
use crate::{
    entropy::Entropy,
    path::backoff::Backoff,
    time::{Duration, Instant},
};

/// Wait before the first new attempt, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(2);
const RETRY_MOST: Duration = Duration::from_secs(5);
/// The longest wait while no dial reaches the relay, for the first minutes of that: such a dial costs the relay nothing.
const RETRY_UNREACHED: Duration = Duration::from_secs(1);
const UNREACHED_TIME: Duration = Duration::from_mins(5);

/// What failed so far.
pub(super) struct Patience {
    /// For dials that reached it and failed: they cost it something.
    reached: Backoff,
    /// For dials that reached nobody, and since when none has.
    unreached: Backoff,
    unreached_since: Option<Instant>,
}

impl Patience {
    pub(super) fn new() -> Self {
        let [reached, unreached] = [RETRY_FIRST; 2].map(|first| Backoff::new(first, RETRY_MOST));
        Self { reached, unreached, unreached_since: None }
    }

    /// What failed before counts no more.
    pub(super) fn rest(&mut self) {
        *self = Self::new();
    }

    /// A dial reached the relay and failed, or what stood is gone: how long to wait.
    pub(super) fn after_failure(&mut self, entropy: &mut Entropy) -> Duration {
        self.unreached_since = None;
        self.unreached.reset();
        self.reached.fail(entropy)
    }

    /// A dial reached nobody: how long to wait.
    pub(super) fn after_silence(&mut self, now: Instant, entropy: &mut Entropy) -> Duration {
        let since = *self.unreached_since.get_or_insert(now);
        let wait = self.unreached.fail(entropy);
        if now.since(since) < UNREACHED_TIME {
            wait.min(RETRY_UNREACHED.saturating_sub(entropy.jitter(RETRY_UNREACHED / 10)))
        } else {
            wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol 7.6
    #[test]
    fn a_relay_that_no_dial_reaches_is_dialled_each_second_for_minutes() {
        let (entropy, mut patience) = (&mut Entropy::new(&[7; 32]), Patience::new());
        let second = Duration::from_secs(1);
        let (mut now, mut rounds) = (Instant::ZERO + second, 0);
        while now.since(Instant::ZERO) < UNREACHED_TIME {
            let wait = patience.after_silence(now, entropy);
            assert!(wait <= RETRY_UNREACHED, "{wait:?} after {now:?}");
            assert!(rounds < 9 || wait >= RETRY_UNREACHED * 9 / 10, "{wait:?} after {now:?}");
            rounds += 1;
            now = now + wait;
        }
        assert_eq!(patience.after_silence(now + second, entropy), RETRY_MOST, "five minutes are over");
        assert!(patience.after_failure(entropy) <= RETRY_FIRST + RETRY_FIRST / 10, "somebody is there again");
        assert!(patience.after_silence(now, entropy) <= RETRY_UNREACHED, "minutes of hurry begin anew");
    }

    // protocol 7.6
    #[test]
    fn the_minutes_of_hurry_are_over_to_the_instant() {
        for (after, wait) in [(UNREACHED_TIME.saturating_sub(Duration::from_millis(1)), RETRY_UNREACHED), (UNREACHED_TIME, RETRY_MOST)] {
            let (entropy, mut patience) = (&mut Entropy::new(&[7; 32]), Patience::new());
            for _ in 0..12 {
                patience.after_silence(Instant::ZERO, entropy);
            }
            let waits = patience.after_silence(Instant::ZERO + after, entropy);
            assert!(waits <= wait && waits >= wait * 9 / 10, "{waits:?} after {after:?}");
        }
    }

    // protocol 7.6
    #[test]
    fn a_relay_that_answers_is_not_pressed_though_some_dials_do_not_reach_it() {
        let (entropy, mut patience) = (&mut Entropy::new(&[7; 32]), Patience::new());
        for _ in 0..12 {
            patience.after_failure(entropy);
        }
        assert!(patience.after_silence(Instant::ZERO, entropy) <= RETRY_UNREACHED);
        assert_eq!(patience.after_failure(entropy), RETRY_MOST);
        patience.rest();
        assert!(patience.after_failure(entropy) <= RETRY_FIRST + RETRY_FIRST / 10);
    }
}
