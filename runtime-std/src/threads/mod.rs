//! The runtime on blocking threads: one thread a machine, which waits for all descriptors at once and does nothing else.
//!
//! ```text
//!   peer::start, relay::start ─▶ thread ┬ drive: turn of the control room ─▶ write ─▶ epoll ─▶ read, accept ─▶ …
//!                                       └ pumps: connections, listeners, handshakes, all without blocking
//!   workers: compute jobs (two threads at most), dials and look-ups ── errands ─▶ bell (eventfd) ─▶ drive
//! ```
//!
//! Threads beside the first one live only while there is work for them.

mod bell;
mod conn;
pub(crate) mod dial;
mod drive;
mod handshake;
pub(crate) mod peer;
pub(crate) mod poll;
mod pumps;
pub(crate) mod relay;
pub(crate) mod rerun;
mod stream;
mod workers;

/// The atomics of `bell`, so that its model can put others in their place.
mod atomic {
    pub(super) use core::sync::atomic::{AtomicBool, Ordering};
}
