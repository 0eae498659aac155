//! The proving ground: hosts, relays and what lies between them in virtual time, and the model that says what must be true.
//!
//! ```text
//!   scenario (tests/) ──▶ World ──▶ Peer: Node + Plane     Relay: Hub + Forwarder     Stranger: an attacker's bare hands
//!                           │              └──────── Air: wires, latency, cuts, a queue by virtual time ────────┘
//!                           └─▶ model: each packet arrives at most once, in order, unforged; what is lost is counted
//! ```
//! No socket, no thread, no clock: the same seed gives the same story, and ten minutes of it take a second.
#![forbid(unsafe_code)]
#![expect(clippy::missing_panics_doc, reason = "whatever is wrong in this world must stop the test that saw it")]
pub mod model;
pub mod pair;
pub mod sim;
pub mod targets;
pub mod world;
