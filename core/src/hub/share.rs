//! What all clients together may send, in equal shares when they want more (protocol 9.4).
//!
//! ```text
//!   full ─────────── half ─────────── empty      the relay's bucket
//!   everybody takes   │ whoever is below an equal share of the rate takes, others are refused
//! ```
//! The last half is kept for those who ask for little, so that a flood of some costs the others nothing.
use crate::bucket::{Bucket, Rate};
use crate::time::Instant;

/// A rate for all clients together.
pub(super) struct Shared {
    rate: Rate,
    bucket: Bucket,
    /// The present second, how many clients have asked in it, and how many did in the one before.
    second: u64,
    asking: u64,
    asked: u64,
}

/// What one client has of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    bucket: Bucket,
    /// The last second in which it asked, and 1.
    second: u64,
}

impl Shared {
    /// A rate of 0 is no limit.
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, bucket: Bucket::default(), second: 0, asking: 0, asked: 0 }
    }

    /// Another rate; who has asked stays known.
    pub(super) fn configure(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// Takes `count` for the client with this share, or nothing.
    pub(super) fn take(&mut self, now: Instant, share: &mut Share, count: u64) -> bool {
        if self.rate.per_second == 0 {
            return true;
        }
        self.note(now, share);
        let clients = self.asking.max(self.asked).max(1);
        let equal = Rate { per_second: (self.rate.per_second / clients).max(1), burst: (self.rate.burst / 2 / clients).max(count) };
        let own = share.bucket.take(now, count, equal);
        (own || self.bucket.is_half_full(now, self.rate)) && self.bucket.take(now, count, self.rate)
    }

    fn note(&mut self, now: Instant, share: &mut Share) {
        let second = now.since(Instant::ZERO).as_secs() + 1;
        if self.second != second {
            self.asked = if self.second + 1 == second { self.asking } else { 0 };
            (self.second, self.asking) = (second, 0);
        }
        if core::mem::replace(&mut share.second, second) != second {
            self.asking += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    /// Each client asks so often in each millisecond of three seconds; how much each got in the last two.
    fn granted(asks: &[u64], rate: Rate) -> Vec<u64> {
        let (mut shared, mut each) = (Shared::new(rate), vec![Share::default(); asks.len()]);
        let mut got = vec![0; asks.len()];
        for ms in 0..3_000 {
            let now = Instant::from_millis(10_000 + ms);
            for (at, asks) in asks.iter().enumerate() {
                let taken = (0..*asks).filter(|_| shared.take(now, &mut each[at], 1)).count() as u64;
                got[at] += if ms >= 1_000 { taken } else { 0 };
            }
        }
        got
    }

    // protocol 9.4
    #[test]
    fn a_flood_of_some_costs_those_below_their_share_nothing() {
        let rate = Rate { per_second: 10_000, burst: 2_500 };
        // eight that flood, two that ask for 500 a second, half of an equal share
        let mut asks = vec![50; 8];
        asks.extend([0; 2]);
        let alone = granted(&[1], rate);
        assert_eq!(alone, [2_000], "alone all of it is there");
        asks[8] = 1;
        let got = granted(&asks, rate);
        assert!((1_900..=2_000).contains(&got[8]), "{got:?}");
        let most = got[..8].iter().max().expect("eight");
        let least = got[..8].iter().min().expect("eight");
        assert!(*most <= 3 * least, "those who flood share what is left: {got:?}");
        let sum: u64 = got.iter().sum();
        assert!((18_000..=22_500).contains(&sum), "all of the rate and no more: {sum}");
    }

    #[test]
    fn one_that_floods_alone_gets_the_whole_rate() {
        let got = granted(&[100], Rate { per_second: 10_000, burst: 2_500 });
        assert!((19_000..=21_500).contains(&got[0]), "{got:?}");
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let mut shared = Shared::new(Rate { per_second: 0, burst: 0 });
        let now = Instant::ZERO + Duration::from_secs(1);
        assert!((0..1_000).all(|_| shared.take(now, &mut Share::default(), u64::MAX)));
    }
}
