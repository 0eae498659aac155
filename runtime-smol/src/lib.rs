//! Runs `ShadowMesh` machines on smol.
//!
//! ```text
//!   peer::start ──▶ thread ┬ control: deadline first, then the inbox ──▶ core::Node ──▶ actions
//!                          ├ one reader and one writer a connection ──▶ core::Plane
//!                          ├ interface reader                       ──▶ core::Plane
//!                          └ dials, listener, compute jobs          ──▶ inbox
//!   relay::start ─▶ thread ┬ control ──▶ core::Hub
//!                          └ one reader and one writer a connection ──▶ core::Forwarder
//! ```
//!
//! Each machine has one thread with a single-threaded executor: its state is shared between tasks by `Rc<RefCell<…>>` and is
//! never borrowed across an await. What is heavy (post-quantum arithmetic, name resolution) runs on the blocking pool.

mod bell;
mod broadcast;
pub mod control;
pub mod dial;
mod error;
mod handle;
pub mod http;
mod jobs;
mod limit;
pub mod listen;
mod outbox;
pub mod peer;
pub mod relay;
pub mod tun;
pub mod ws;

pub use error::StartError;
