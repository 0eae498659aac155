//! What libFuzzer calls, and what the tests replay: one function a target, from bytes to a panic when an invariant breaks.
//!
//! ```text
//!   fuzz/targets (libFuzzer, nightly) ─┐
//!                                      ├─▶ ALL ─▶ target(bytes) ─▶ Script: bytes become steps ─▶ core ─▶ what must be true
//!   fuzz/tests/corpus.rs (stable)     ─┘
//! ```
//! A target is a function of its bytes: time, chance and keys are fixed, so a file that failed once fails for ever.
mod bridge;
mod cast;
mod control;
mod fragments;
mod handshake;
mod lanes;
mod memo;
mod offload;
mod peer_door;
mod plane;
mod rehandshake;
mod rekey;
mod relay_door;
mod script;
pub mod seeds;
mod token;
mod wire;

pub use crate::sim::scenario;
pub use bridge::bridge;
pub use cast::chain;
pub use control::control;
pub use fragments::fragments;
pub use handshake::handshake;
pub use lanes::lanes;
pub use memo::Memo;
pub use offload::offload;
pub use peer_door::peer_door;
pub use plane::plane;
pub use rehandshake::rehandshake;
pub use rekey::rekey;
pub use relay_door::relay_door;
pub use token::token;
pub use wire::wire;

/// A target takes any bytes and panics when something is wrong.
pub type Target = fn(&[u8]);

/// Every target of this crate by its name; the parsers of the programs' configuration have one more, beside the programs.
pub const ALL: [(&str, Target); 14] = [
    ("wire", wire),
    ("token", token),
    ("handshake", handshake),
    ("rekey", rekey),
    ("fragments", fragments),
    ("rehandshake", rehandshake),
    ("control", control),
    ("relay_door", relay_door),
    ("peer_door", peer_door),
    ("plane", plane),
    ("lanes", lanes),
    ("bridge", bridge),
    ("offload", offload),
    ("scenario", scenario),
];
