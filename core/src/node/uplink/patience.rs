//! How long a client waits between two dials of its relay (protocol 7.6).
use crate::{entropy::Entropy, path::backoff::Backoff, time::Duration};

/// Wait before the first new attempt, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// What failed so far.
pub(super) struct Patience(Backoff);

impl Patience {
    pub(super) fn new() -> Self {
        Self(Backoff::new(RETRY_FIRST, RETRY_MOST))
    }

    /// What failed before counts no more.
    pub(super) fn rest(&mut self) {
        self.0.reset();
    }

    /// A dial failed, or what stood is gone: how long to wait.
    pub(super) fn after_failure(&mut self, entropy: &mut Entropy) -> Duration {
        self.0.fail(entropy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol 7.6
    #[test]
    fn a_relay_is_dialled_ever_more_seldom_and_soon_again_after_it_stood() {
        let (entropy, mut patience) = (&mut Entropy::new(&[7; 32]), Patience::new());
        assert!(patience.after_failure(entropy) <= RETRY_FIRST + RETRY_FIRST / 10);
        for _ in 0..7 {
            patience.after_failure(entropy);
        }
        assert_eq!(patience.after_failure(entropy), RETRY_MOST);
        patience.rest();
        assert!(patience.after_failure(entropy) <= RETRY_FIRST + RETRY_FIRST / 10);
    }
}
