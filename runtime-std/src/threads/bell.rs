//! A bell between threads: many ring it, one sleeper answers. A ring is never lost, and rings that come together cost one signal.
//!
//! ```text
//!   ring:    put something where the sleeper looks ─▶ rung? no ─▶ raise the signal
//!   answer:  lower the signal ─▶ not rung any more ─▶ look
//! ```
//!
//! The order of `answer` is the point: whoever rings after the look raises the signal again, whoever rings before it is seen by
//! the look. The model in `tests/bell.rs` runs exactly this code.
use super::atomic::{AtomicBool, Ordering};

/// What wakes the sleeper, such as a descriptor that it polls. It stays raised until it is lowered.
pub(crate) trait Signal {
    /// Wakes the sleeper, now or when it next goes to sleep.
    fn raise(&self);
    /// Takes the signal back.
    fn lower(&self);
}

/// The bell.
pub(crate) struct Bell<S> {
    rung: AtomicBool,
    signal: S,
}

impl<S: Signal> Bell<S> {
    /// A bell that nobody has rung.
    pub(crate) fn new(signal: S) -> Self {
        Self { rung: AtomicBool::new(false), signal }
    }

    /// The signal, to be waited for.
    pub(crate) fn signal(&self) -> &S {
        &self.signal
    }

    /// Rings, after what the sleeper is to see has been put there.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.signal.raise();
        }
    }

    /// Called by the sleeper when the signal woke it, before it looks.
    pub(crate) fn answer(&self) {
        self.signal.lower();
        // Not a plain store: the look that follows must see what was put there before each ring that this takes back.
        self.rung.swap(false, Ordering::AcqRel);
    }
}
