//! Round-trip time of one path, smoothed after RFC 9002 5.3.
use crate::time::Duration;

/// Floor of the probe timeout: below it the scheduler's noise would raise suspicion (protocol 7.5).
const PTO_FLOOR: Duration = Duration::from_millis(20);
/// The longest sample, and ceiling of the probe timeout: no network takes so long, but an answer does that came while this machine slept
/// (protocol 7.5).
const LONGEST: Duration = Duration::from_secs(3);
/// The other end sends a receipt at the latest this long after data (protocol 7.4).
pub(crate) const RECEIPT_INTERVAL: Duration = Duration::from_millis(20);
/// Before the first sample.
const INITIAL: Duration = Duration::from_millis(100);

/// Smoothed round-trip time and its variation.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub struct Rtt {
    smoothed: Option<(Duration, Duration)>,
}

impl Rtt {
    /// An estimator that has seen one sample.
    pub fn from_sample(sample: Duration) -> Self {
        let mut rtt = Self::default();
        rtt.sample(sample);
        rtt
    }

    /// Takes one measurement.
    pub fn sample(&mut self, sample: Duration) {
        let sample = sample.min(LONGEST);
        self.smoothed = Some(match self.smoothed {
            None => (sample, sample / 2),
            Some((smoothed, variation)) => {
                let off = smoothed.abs_diff(sample);
                ((smoothed * 7 + sample) / 8, (variation * 3 + off) / 4)
            }
        });
    }

    /// The smoothed round-trip time, once there was a sample.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|(smoothed, _)| smoothed)
    }

    /// Probe timeout: no receipt for so long after data makes a path suspect.
    pub fn pto(&self) -> Duration {
        let (smoothed, variation) = self.smoothed.unwrap_or((INITIAL, INITIAL / 2));
        (smoothed + (variation * 4).max(Duration::from_millis(2)) + RECEIPT_INTERVAL).clamp(PTO_FLOOR, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_a_steady_path_and_widens_on_a_spike() {
        let mut rtt = Rtt::from_sample(Duration::from_millis(10));
        for _ in 0..50 {
            rtt.sample(Duration::from_millis(10));
        }
        let calm = rtt.pto();
        assert!(calm >= Duration::from_millis(32) && calm < Duration::from_millis(33), "{calm:?}");
        rtt.sample(Duration::from_millis(100));
        assert!(rtt.pto() > calm * 2);
    }

    /// One receipt that waited while the machine slept made the probe timeout as long as the sleep: a path that died then was not missed.
    // protocol 7.5
    #[test]
    fn a_sample_taken_over_a_sleep_does_not_blind_for_long() {
        let mut rtt = Rtt::from_sample(Duration::from_millis(10));
        rtt.sample(Duration::from_hours(8));
        assert_eq!(rtt.pto(), LONGEST);
        for _ in 0..30 {
            rtt.sample(Duration::from_millis(10));
        }
        assert!(rtt.pto() < Duration::from_millis(100), "{:?}", rtt.pto());
    }
}
