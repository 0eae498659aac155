//! The `ShadowMesh` protocol as pure state machines: state, an instant and an event go in; actions come out.
#![forbid(unsafe_code)]
pub mod binding;
pub mod bound;
mod bucket;
pub mod config;
pub mod control;
pub mod crypto;
pub mod drops;
pub mod edges;
pub mod entropy;
pub mod event;
pub mod fragments;
pub mod handshake;
pub mod hub;
pub mod id;
pub mod journal;
mod link;
pub mod machine;
pub mod network;
mod node;
pub mod offload;
mod path;
pub mod plane;
pub mod rehandshake;
pub mod session;
mod source;
pub mod status;
pub mod succession;
mod text;
pub mod time;
pub mod wire;

pub use node::Node;
