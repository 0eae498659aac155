//! When to try again: doubling waits with jitter up to a ceiling (protocol 6.3).
use crate::{entropy::Entropy, time::Duration};

/// Doubling waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits `first`, then twice as long each time, never longer than `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// Another ceiling; what failed so far counts on.
    pub(crate) fn set_most(&mut self, first: Duration, most: Duration) {
        (self.first, self.most) = (first, most);
    }

    /// It worked: the next wait is the first again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait, up to a tenth of it by chance, so that many do not come at once.
    pub(crate) fn fail(&mut self, entropy: &mut Entropy) -> Duration {
        let wait = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        let jitter = entropy.jitter(wait / 10);
        (wait + jitter).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // protocol 6.3
    #[test]
    fn doubles_up_to_the_ceiling_and_starts_again_after_a_success() {
        let mut entropy = Entropy::new(&[7; 32]);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let wait = backoff.fail(&mut entropy);
            let expected = Duration::from_secs(expected);
            assert!(wait >= expected && wait <= (expected + expected / 10).min(Duration::from_mins(1)), "{wait:?} for {expected:?}");
        }
        backoff.reset();
        assert!(backoff.fail(&mut entropy) < Duration::from_secs(2));
    }

    #[test]
    fn two_that_failed_together_do_not_come_back_together() {
        let [one, other] =
            [1, 2].map(|seed| Backoff::new(Duration::from_secs(1), Duration::from_mins(1)).fail(&mut Entropy::new(&[seed; 32])));
        assert_ne!(one, other);
    }

    #[test]
    fn never_overflows() {
        let mut entropy = Entropy::new(&[7; 32]);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        for _ in 0..100 {
            assert!(backoff.fail(&mut entropy) <= Duration::from_secs(5));
        }
    }

    proptest! {
        /// Each wait is the doubled one and at most a tenth more, never above the ceiling; after a success the first again.
        #[test]
        fn waits_stay_between_the_doubled_first_and_the_ceiling(
            first in 1_u64..5_000, ceiling in 1_u64..4_000_000, seed: [u8; 32], worked in proptest::collection::vec(proptest::bool::weighted(0.1), 1..80),
        ) {
            let (first, ceiling) = (Duration::from_millis(first), Duration::from_millis(ceiling));
            let (mut entropy, mut backoff, mut failures) = (Entropy::new(&seed), Backoff::new(first, ceiling), 0_u32);
            for worked in worked {
                if worked {
                    backoff.reset();
                    failures = 0;
                }
                let wait = backoff.fail(&mut entropy);
                let doubled = first.saturating_mul(2_u32.saturating_pow(failures.min(20))).min(ceiling);
                prop_assert!(wait >= doubled && wait <= (doubled + doubled / 10).min(ceiling), "{:?} after {} failures", wait, failures);
                failures += 1;
            }
        }
    }
}
