//! The replay window of one lane: which sequences have been received (after RFC 4303 3.4.3, with 64-bit words).

/// Sequences that the window of a data lane spans: as many as a resend ring holds (protocol 4.4).
pub(crate) const DATA_WINDOW_BITS: u64 = 1 << 16;
/// Sequences that the window of a control lane spans.
pub(crate) const CONTROL_WINDOW_BITS: u64 = 1 << 10;

/// What the window says of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not received before.
    Fresh,
    /// Received before.
    Again,
    /// Below the window: not known, counts as received.
    TooOld,
}

/// A sliding set of received sequences.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(crate) struct Window {
    /// One above the highest sequence received.
    next: u64,
    words: Box<[u64]>,
}

impl Window {
    /// An empty window that spans `bits` sequences, a multiple of 64.
    pub(crate) fn new(bits: u64) -> Self {
        Self { next: 0, words: vec![0; (bits / 64) as usize].into_boxed_slice() }
    }

    /// Sequences that the window spans.
    pub(crate) fn span(&self) -> u64 {
        self.words.len() as u64 * 64
    }

    /// One above the highest sequence received.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Looks, changes nothing: before the tag is verified.
    pub(crate) fn check(&self, sequence: u64) -> Seen {
        if sequence >= self.next {
            Seen::Fresh
        } else if self.next - sequence > self.span() {
            Seen::TooOld
        } else if self.bit(sequence) {
            Seen::Again
        } else {
            Seen::Fresh
        }
    }

    /// Looks and marks: after the tag was verified.
    pub(crate) fn admit(&mut self, sequence: u64) -> Seen {
        let seen = self.check(sequence);
        if seen == Seen::Fresh {
            if sequence >= self.next {
                self.advance(sequence + 1);
            }
            let (word, mask) = self.place(sequence);
            if let Some(cell) = self.words.get_mut(word) {
                *cell |= mask;
            }
        }
        seen
    }

    /// Whether a sequence inside the window has been received.
    pub(crate) fn bit(&self, sequence: u64) -> bool {
        let (word, mask) = self.place(sequence);
        sequence < self.next && self.words.get(word).is_some_and(|cell| cell & mask != 0)
    }

    fn advance(&mut self, next: u64) {
        if next - self.next >= self.span() {
            self.words.fill(0);
        } else {
            for sequence in self.next..next {
                let (word, mask) = self.place(sequence);
                if let Some(cell) = self.words.get_mut(word) {
                    *cell &= !mask;
                }
            }
        }
        self.next = next;
    }

    fn place(&self, sequence: u64) -> (usize, u64) {
        ((sequence / 64) as usize % self.words.len(), 1 << (sequence % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        // protocol 4.4
        #[test]
        fn agrees_with_a_set(steps in proptest::collection::vec((0u64..40_000, any::<bool>()), 1..400)) {
            let mut window = Window::new(1 << 13);
            let mut set = BTreeSet::new();
            for (step, near) in steps {
                let sequence = if near { window.next().saturating_sub(step % 10) + step % 7 } else { step };
                let expected = if window.next().saturating_sub(1 << 13) > sequence {
                    Seen::TooOld
                } else if set.insert(sequence) {
                    Seen::Fresh
                } else {
                    Seen::Again
                };
                prop_assert_eq!(window.check(sequence), expected);
                prop_assert_eq!(window.admit(sequence), expected);
                if expected == Seen::Fresh {
                    prop_assert_eq!(window.admit(sequence), Seen::Again);
                }
            }
        }
    }

    // protocol 4.4
    #[test]
    fn the_oldest_sequence_of_the_window_is_still_known() {
        let mut window = Window::new(1 << 13);
        assert_eq!(window.admit(0), Seen::Fresh);
        assert_eq!(window.admit((1 << 13) - 1), Seen::Fresh);
        assert_eq!(window.admit(0), Seen::Again);
        assert_eq!(window.admit(1 << 13), Seen::Fresh);
        assert_eq!(window.admit(0), Seen::TooOld);
        assert_eq!(window.admit(1), Seen::Fresh);
    }
}
