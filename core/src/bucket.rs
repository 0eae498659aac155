//! Token buckets: one instant of state each, no timer, no float.
use crate::time::{Duration, Instant};

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// What a bucket allows; a rate of 0 allows everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) per_second: u64,
    pub(crate) burst: u64,
}

impl Rate {
    /// The time in which `count` tokens come back.
    fn span(self, count: u64) -> Duration {
        let nanos = u128::from(count) * NANOS_PER_SECOND / u128::from(self.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A bucket: the instant at which it will be full again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// Takes `count` tokens, or none when there are fewer.
    pub(crate) fn take(&mut self, now: Instant, count: u64, rate: Rate) -> bool {
        if rate.per_second == 0 {
            return true;
        }
        let full_at = self.full_at.max(now) + rate.span(count);
        let fits = full_at.since(now) <= rate.span(rate.burst);
        if fits {
            self.full_at = full_at;
        }
        fits
    }

    /// Gives `count` tokens back.
    pub(crate) fn refund(&mut self, count: u64, rate: Rate) {
        if rate.per_second != 0 {
            self.full_at = self.full_at - rate.span(count);
        }
    }

    /// Whether at least half of the burst is there.
    pub(crate) fn is_half_full(self, now: Instant, rate: Rate) -> bool {
        self.full_at.since(now) <= rate.span(rate.burst) / 2
    }

    /// Whether nothing is missing, so that a new bucket would be the same.
    pub(crate) fn is_full(self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn burst_then_rate_then_refund() {
        let rate = Rate { per_second: 2, burst: 5 };
        let mut bucket = Bucket::default();
        let now = Instant::from_millis(10_000);
        assert_eq!((0..9).filter(|_| bucket.take(now, 1, rate)).count(), 5);
        assert!(!bucket.take(now + Duration::from_millis(499), 1, rate));
        assert!(bucket.take(now + Duration::from_millis(500), 1, rate));
        assert!(!bucket.take(now + Duration::from_millis(500), 1, rate));
        bucket.refund(1, rate);
        assert!(bucket.take(now + Duration::from_millis(500), 1, rate));
        assert!(!bucket.is_full(now + Duration::from_secs(2)));
        assert!(bucket.is_full(now + Duration::from_secs(3)));
    }

    #[test]
    fn rate_zero_is_no_limit() {
        let mut bucket = Bucket::default();
        assert!((0..1_000).all(|_| bucket.take(Instant::ZERO, u64::MAX, Rate { per_second: 0, burst: 0 })));
        assert!(bucket.is_full(Instant::ZERO));
    }

    proptest! {
        /// Over any span no more is granted than the burst and what came back in that span; a refund undoes a take; rest fills it.
        #[test]
        fn no_span_grants_more_than_burst_and_rate(
            per_second in 1_u64..2_000_000, burst in 1_u64..3_000, takes in proptest::collection::vec((0_u64..50_000, 1_u64..2_000), 1..150),
        ) {
            let rate = Rate { per_second, burst };
            let (mut bucket, mut now, mut granted) = (Bucket::default(), Instant::from_millis(1), Vec::new());
            for (micros, count) in takes {
                now = now + Duration::from_micros(micros);
                let before = bucket;
                let full = bucket.is_full(now);
                if bucket.take(now, count, rate) {
                    let mut refunded = bucket;
                    refunded.refund(count, rate);
                    prop_assert!(full || refunded == before, "a refund undoes a take");
                    granted.push((now, count));
                } else {
                    prop_assert_eq!(bucket, before, "a refusal takes nothing");
                    prop_assert!(!full || count > burst, "a full bucket grants its burst");
                }
            }
            for from in 0..granted.len() {
                let mut sum = 0;
                for (at, count) in &granted[from..] {
                    sum += count;
                    let back = u128::from(per_second) * at.since(granted[from].0).as_nanos() / 1_000_000_000;
                    // each take is rounded down to a nanosecond
                    prop_assert!(u128::from(sum) <= u128::from(burst) + back + 2, "{} granted, {} allowed", sum, u128::from(burst) + back);
                }
            }
            let rested = now + rate.span(burst) + Duration::from_secs(1);
            prop_assert!(bucket.is_full(rested) && bucket.take(rested, burst, rate) && !bucket.take(rested, burst, rate));
        }
    }
}
