//! What is decided about paths, as pure functions: which addresses are candidates, which path is best, when to try again.
pub(crate) mod backoff;
pub(crate) mod candidate;
pub(crate) mod choice;
