//! The time that machines live in: nanoseconds since boot, counted on through sleep.
use core::time::Duration;
use rustix::time::{ClockId, clock_gettime};
use shadowmesh_core::time::Instant;

/// Now, by `CLOCK_BOOTTIME`: never set, never stopped while the machine sleeps, so ages are right after a sleep (protocol 1.7).
pub fn now() -> Instant {
    Instant::from_nanos(nanos(ClockId::Boottime))
}

/// How long this machine has slept since it booted: `CLOCK_BOOTTIME` counts that, and `CLOCK_MONOTONIC` does not. Two readings are a
/// moment apart, so a little more or less means nothing.
pub(crate) fn slept() -> Duration {
    let awake = nanos(ClockId::Monotonic);
    Duration::from_nanos(nanos(ClockId::Boottime).saturating_sub(awake))
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol 1.7
    #[test]
    fn time_goes_forward_from_boot() {
        let first = now();
        assert!(first > Instant::ZERO);
        assert!(now() >= first);
    }
}
