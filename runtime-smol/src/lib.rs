//! Runs `ShadowMesh` machines on smol.
//!
//! ```text
//!   peer::start ──▶ thread ┬ drive: turns of the control room (runtime-std) ──▶ actions by its doors
//!                          ├ one reader and one writer a connection
//!                          ├ interface reader
//!                          └ dials, listener, compute jobs
//!   relay::start ─▶ thread ┬ drive
//!                          └ listeners, one reader and one writer a connection, compute jobs
//! ```
//!
//! Each machine has one thread with a single-threaded executor: its control room is shared between tasks by `Rc<RefCell<…>>` and is
//! never borrowed across an await. What is heavy (post-quantum arithmetic, name resolution) runs on the blocking pool.

mod bell;
pub mod control;
pub mod dial;
mod drive;
pub mod http;
mod interface;
pub mod listen;
mod pace;
pub mod peer;
mod pumps;
pub mod relay;
#[doc(hidden)]
pub mod rerun;
pub mod service;
pub mod ws;
