//! The relay's machine: who may come in, who is there, and what each may send to whom (protocol 3, 6, 9).
//!
//! ```text
//!   accept ─ Hub::admit ─▶ TLS, WebSocket ─▶ HubEvent::Accepted ─┐
//!                                                                ▼
//!   message ─▶ Forwarder::inbound ── punt ─▶ HubEvent::Message ─▶ Hub ── HubAction::Edit ─▶ Forwarder::apply
//!                  │ records                                      └──── HubAction::Send ─▶ Forwarder::control
//!                  ▼                                                                            │
//!              queues, one per (source, destination) ─▶ Forwarder::next_message ─▶ writer ◀─────┘
//!   datagram ─▶ Forwarder::pass ─▶ to the other client (protocol 8.8); what is no frame ─▶ HubEvent::Datagram ─▶ Hub ─▶ HubAction::Datagram
//! ```
//! `Hub` is the control room: handshakes, the directory, limits. `Forwarder` is the data plane: it reads nothing but the eight
//! bytes of a record header and the first byte behind them, and of a datagram its type and receiver. Neither does I/O; a driver owns both.

mod admission;
mod channel;
mod client;
mod directory;
mod drain;
mod drops;
mod forward;
mod jobs;
mod machine;
mod passage;
#[cfg(test)]
mod properties;
mod queue;
mod reflector;
mod share;
mod status;
#[cfg(test)]
mod tests;

pub use forward::{Forwarder, MESSAGE_BYTES};
pub use machine::Hub;
pub use passage::receiver_of;
pub use status::{ClientStatus, ForwardStats, HubStatus, PortStatus, QueueTimes};

use crate::{
    config::{Access, Limits},
    handshake::{Done, Job},
    id::{ConnId, Handle, PeerId},
    time::{Duration, Instant},
};
use core::net::SocketAddr;

/// The machines of a relay.
pub(crate) const CHARTS: &[crate::edges::Chart] = &[client::CHART];

/// What can happen to a relay.
pub enum HubEvent<'a> {
    /// The first event.
    Start,
    /// 32 bytes from the operating system: at the start, and after each `HubAction::Compute`.
    Entropy(&'a [u8; 32]),
    /// The deadline has come.
    Alarm,
    /// TLS and WebSocket are done; the driver asked `Hub::admit` before TLS.
    Accepted {
        /// The connection's name, never used twice.
        conn: ConnId,
        /// The TLS exporter `EXPORTER-shadowmesh/1` (protocol 1.4: channel binding).
        exporter: [u8; 32],
        /// The other end's address as the socket says it.
        remote: SocketAddr,
        /// When it was admitted: its time to prove who it is runs since then.
        since: Instant,
    },
    /// The connection is gone, whoever ended it; follows each `HubAction::Hangup` too.
    Closed {
        /// Which one.
        conn: ConnId,
    },
    /// A message that `Forwarder::inbound` punted.
    Message {
        /// On which connection it came.
        conn: ConnId,
        /// The whole WebSocket message; sealed frames are opened in place.
        bytes: &'a mut [u8],
    },
    /// A UDP datagram (protocol 8.1).
    Datagram {
        /// Which of the relay's two ports it came to: 0 or 1.
        port: u8,
        /// Where it came from.
        remote: SocketAddr,
        /// The datagram.
        bytes: &'a [u8],
    },
    /// A job is done.
    Computed(Done),
    /// Who may use the relay, and how much, from now on (protocol 9.4). Who is in stays, unless `access` does not take its identity or address.
    Configure {
        /// Taken over as far as `Limits::while_running` goes; tell `Forwarder::configure` too.
        limits: Box<Limits>,
        /// Who may come in.
        access: Box<Access>,
    },
    /// Tell all clients that the relay goes away, and hang up.
    Leave,
    /// The relay goes away soon: clients are told to take another one, and nobody is let in (protocol 6.9). `Leave` follows, when
    /// `Hub::drained_at` says so.
    Drain {
        /// At the latest.
        within: Duration,
    },
}

/// How a source of connections stands (protocol 9.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Somebody there has proven an identity, and few came from there lately that did not.
    Known,
    /// All others.
    Stranger,
}

/// What a message was to the forwarder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Records in it.
    pub records: usize,
    /// It came before a proof, or something in it was refused: all others have their turn before more is read.
    pub ends_turn: bool,
}

/// Why a connection may not begin TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// All places of those who have proven nothing are taken: when one gives way, this one may come in.
    Full,
    /// The name of another limit against it.
    Because(&'static str),
}

/// What a relay wants done.
#[expect(clippy::large_enum_variant, reason = "few are jobs, and an action lives for one turn of the driver")]
pub enum HubAction {
    /// One WebSocket message: hand it to `Forwarder::control` and wake the connection's writer.
    Send {
        /// To which connection.
        conn: ConnId,
        /// The whole message.
        bytes: Vec<u8>,
    },
    /// Write what `Forwarder::next_message` still has for it (a second at most), then close; answer with `HubEvent::Closed`.
    Hangup {
        /// Which connection.
        conn: ConnId,
        /// Why, for logs.
        why: &'static str,
    },
    /// One UDP datagram, from the port that the request came to; may be dropped.
    Datagram {
        /// Which of the relay's two ports: 0 or 1.
        port: u8,
        /// Where to.
        remote: SocketAddr,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// Heavy arithmetic to run anywhere; the answer is `HubEvent::Computed`.
    Compute(Job),
    /// Apply with `Forwarder::apply`, in order with `Send`.
    Edit(ForwardEdit),
    /// A fact for people.
    Note(HubNote),
}

/// A change of the forwarder's tables that the hub orders; opaque to drivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardEdit(pub(crate) Edit);

impl ForwardEdit {
    /// A connection exists. Only a forwarder without a hub (a benchmark, a fuzzer) needs this from outside.
    pub fn open(conn: ConnId) -> Self {
        Self(Edit::Open { conn })
    }

    /// The connection is a member of a network. Only a forwarder without a hub needs this from outside.
    pub fn join(conn: ConnId, handle: Handle, network: u32) -> Self {
        Self(Edit::Join { conn, handle, network })
    }
}

/// What is inside a `ForwardEdit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// A connection exists: it can be sent control messages, nothing else.
    Open { conn: ConnId },
    /// It has proven who it is: it may send to, and be reached by, members of the same network.
    Join { conn: ConnId, handle: Handle, network: u32 },
    /// It is being hung up: control messages still leave, nothing is forwarded any more.
    Part { conn: ConnId },
    /// Its datagrams come from there, and those for it go there.
    Attach { conn: ConnId, address: SocketAddr },
    /// Its datagrams with this receiver are for this member.
    Route { conn: ConnId, receiver: u32, to: Handle },
    /// It is gone.
    Close { conn: ConnId },
}

/// Facts for people: logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubNote {
    /// A client has proven its identity and is in the directory.
    Joined {
        /// Its identity.
        id: PeerId,
        /// Its observed address.
        remote: SocketAddr,
        /// Its handle.
        handle: Handle,
    },
    /// A client is gone.
    Left {
        /// Its identity.
        id: PeerId,
        /// Why.
        why: &'static str,
    },
    /// A connection or message was refused in a way worth a log line.
    Refused {
        /// From where, when known.
        remote: Option<SocketAddr>,
        /// What and why.
        what: String,
    },
    /// One identity keeps replacing its own connection: two machines share a key (protocol 6.6).
    SharedIdentity {
        /// The identity.
        id: PeerId,
    },
}

/// What the forwarder asks of its driver.
pub trait ForwardSink {
    /// Hands the control room a message that is not a sequence of records.
    fn punt(&mut self, conn: ConnId, message: &mut [u8]);
    /// Something waits for `conn`: its writer should call `Forwarder::next_message` until that returns false.
    fn wake(&mut self, conn: ConnId);
}
