//! What all drivers of `ShadowMesh` machines share, and the operating system behind small types.
//!
//! ```text
//!   room, peer, relay   control rooms: Node and Plane, Hub and Forwarder, with all that waits for them
//!   listen, lines, dial, connect, ws   what is decided about connections before and after they block
//!   journal             a run on its way to a file
//!   mapping             ports of the router in front
//!   tun, udp, tls, ahead, clock, descriptors, entropy, interfaces, netlink, identity, succession, credential   the operating system
//! ```
//!
//! A runtime drives a control room ([`room::Room`]) through its doors ([`room::Doors`]) and differs from another in how it waits.

pub mod ahead;
pub mod announced;
pub mod broadcast;
pub mod clock;
pub mod connect;
pub mod credential;
pub mod descriptors;
pub mod dial;
mod ending;
pub mod entropy;
mod error;
mod house;
pub mod identity;
pub mod interfaces;
mod jobs;
pub mod journal;
mod limit;
pub mod lines;
pub mod listen;
mod lookout;
pub mod mapping;
mod netlink;
mod outbox;
pub mod peer;
pub mod relay;
#[doc(hidden)]
pub mod rerun;
pub mod room;
pub mod succession;
mod threads;
pub mod tls;
pub mod tun;
pub mod tunnel;
pub mod udp;
pub mod ws;

pub use error::StartError;
