//! The time that machines live in: nanoseconds since boot, counted on through sleep.
use rustix::time::{ClockId, clock_gettime};
use shadowmesh_core::time::Instant;

/// Now, by `CLOCK_BOOTTIME`: never set, never stopped while the machine sleeps, so ages are right after a sleep (protocol 1.7).
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
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
