//! Log lines that an attacker can cause at will: a burst passes, then one in a while that tells how many were held back.
use core::time::Duration;
use shadowmesh_core::time::Instant;

/// Lines in a burst.
const BURST: u32 = 10;

/// Time after which one more line is allowed.
const REFILL: Duration = Duration::from_secs(6);

/// Lets a burst through and then one in a while.
#[derive(Debug, Default)]
pub(crate) struct Limit {
    used: u32,
    refilled_at: Instant,
    suppressed: u64,
}

impl Limit {
    /// Whether a line may be written: then how many were held back since the last one.
    pub(crate) fn allow(&mut self, now: Instant) -> Option<u64> {
        let refills = now.since(self.refilled_at).as_nanos() / REFILL.as_nanos();
        if refills > 0 {
            self.used = self.used.saturating_sub(u32::try_from(refills).unwrap_or(u32::MAX));
            self.refilled_at = now;
        }
        if self.used >= BURST {
            self.suppressed += 1;
            return None;
        }
        self.used += 1;
        Some(core::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_in_a_while_that_tells_what_was_held_back() {
        let mut limit = Limit::default();
        let start = Instant::from_millis(1_000_000);
        assert!((0..BURST).all(|_| limit.allow(start) == Some(0)));
        assert!((0..5).all(|_| limit.allow(start).is_none()));
        assert_eq!(limit.allow(start + REFILL), Some(5));
        assert_eq!(limit.allow(start + REFILL), None);
    }
}
