//! A message on its way in fragments: it goes again until somebody takes it back.
use crate::time::{Duration, Instant};

/// Wait before the fragments go again for the first time; then doubling (protocol 8.6).
const AGAIN_FIRST: Duration = Duration::from_millis(250);
/// So often they go in all, over 7.75 s.
pub(crate) const SENDINGS: u32 = 6;

/// Fragments that are sent again and again, at doubling distances.
pub struct Parcel {
    fragments: Vec<Vec<u8>>,
    sent: u32,
    at: Instant,
    sent_at: Instant,
}

impl Parcel {
    /// These fragments are due now.
    pub fn new(now: Instant, fragments: Vec<Vec<u8>>) -> Self {
        Self { fragments, sent: 0, at: now, sent_at: now }
    }

    /// When the fragments go next; None: they have gone often enough.
    pub fn deadline(&self) -> Option<Instant> {
        (self.sent < SENDINGS).then_some(self.at)
    }

    /// The fragments that go now.
    pub fn due(&mut self, now: Instant) -> &[Vec<u8>] {
        if self.deadline().is_none_or(|at| at > now) {
            return &[];
        }
        self.at = now + AGAIN_FIRST * (1 << self.sent);
        self.sent += 1;
        self.sent_at = now;
        &self.fragments
    }

    /// Somebody waits for it: it is due now, unless it went just before.
    pub fn hasten(&mut self, now: Instant) {
        if now.since(self.sent_at) >= AGAIN_FIRST {
            self.at = self.at.min(now);
        }
    }

    /// The first fragment.
    pub fn first(&self) -> Option<&[u8]> {
        self.fragments.first().map(Vec::as_slice)
    }
}
