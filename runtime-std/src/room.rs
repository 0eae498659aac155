//! Between a control room and the runtime that drives it: what the pumps ask of the room, and what the room asks of them.
//!
//! ```text
//!   runtime: readers, writers, listeners, timers, workers
//!        │  Room: message, next, sent, closed, accepted, computed …        ▲ Doors: wake, hang_up, close, compute …
//!        ▼                                                                 │
//!   control room of a peer or a relay: deadlines first, then a part of the inbox ─▶ Machine ─▶ actions, in their order
//! ```
//!
//! A runtime differs from another in how it waits; what is decided is decided here, once.
use crate::listen::Bounds;
use core::{net::SocketAddr, time::Duration};
use shadowmesh_core::{
    crypto::Provider,
    event::Ended,
    handshake::{Done, Job},
    hub::{Refusal, Standing},
    id::ConnId,
    time::Instant,
};
use std::{collections::VecDeque, sync::Arc};

/// Messages that a pump moves before others get their turn; one that cost more than one counts as so many.
pub const TURN_MESSAGES: usize = 16;

/// Packets of an interface that are read in one turn before others get theirs.
pub const TURN_PACKETS: usize = 64;

/// Events of the inbox that one turn handles before packets get theirs.
pub(crate) const TURN_EVENTS: usize = 64;

/// The longest sleep: a timer of the kernel does not count while the machine sleeps, our deadlines do.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// How often the certificate's age is looked at.
pub(crate) const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(10);

/// How long leaving may take.
pub(crate) const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// How long a connection that is hung up may take to send what waits (protocol 9).
pub(crate) const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Commands that wait for a control room; when full, callers wait or lose their ping.
pub(crate) const COMMANDS: usize = 256;

/// Punts and reports that may wait in an inbox. Readers stop at `INBOX_CALM`; this bounds one message's worth more.
pub(crate) const INBOX: usize = 8_192;

/// Above this, readers wait for the control room before they read on.
pub(crate) const INBOX_CALM: usize = 512;

/// What a writer does next.
pub enum Next {
    /// Send this and then call [`Room::sent`].
    Send(Vec<u8>),
    /// Say good-bye: nothing more will come.
    Close,
    /// Wait to be woken.
    Wait,
}

/// A connection that a listener took and that is through TLS and the upgrade.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The TLS exporter (protocol 3).
    pub exporter: [u8; 32],
    /// This end's address.
    pub local: SocketAddr,
    /// The other end's address.
    pub remote: SocketAddr,
    /// When the room admitted it.
    pub since: Instant,
}

/// A control room as its runtime sees it: a peer's or a relay's. One owner, one thread.
pub trait Room {
    /// What a handle asks of it.
    type Command;

    /// Brings the machine up; the first call.
    fn begin(&mut self, now: Instant);
    /// Deadlines that are due, so that no flood starves them, then a bounded part of the inbox; true when more waits.
    fn turn(&mut self, now: Instant) -> bool;
    /// Whether it is over, and how; to be asked after each turn.
    fn ended(&mut self, now: Instant) -> Option<Result<(), String>>;
    /// How long the runtime may sleep, unless a door is rung.
    fn arm(&mut self, now: Instant) -> Duration;
    /// Does what a handle asks.
    fn obey(&mut self, now: Instant, command: Self::Command);
    /// The last handle is gone.
    fn abandoned(&mut self);
    /// A job is done.
    fn computed(&mut self, done: Done);

    /// Whether this is a proxy that says before TLS from where a connection comes (protocol 9.5). `admit` is then asked about that
    /// address, unless `misannounced` says that there is none.
    fn announces(&self, _remote: SocketAddr) -> bool {
        false
    }
    /// A proxy did not say so, or not well.
    fn misannounced(&mut self, _remote: SocketAddr, _why: Ended) {}
    /// Whether a connection from here may begin TLS, and how its source stands; an error refuses it. After `Ok` comes one `accepted` or
    /// `released`.
    fn admit(&mut self, now: Instant, remote: SocketAddr) -> Result<Standing, Refusal>;
    /// A connection that was admitted came to nothing.
    fn released(&mut self, remote: SocketAddr, why: Ended);
    /// A number for a connection that came in; `accepted` follows when its pumps stand.
    fn number(&mut self) -> ConnId;
    /// TLS and the upgrade are done.
    fn accepted(&mut self, now: Instant, conn: ConnId, arrival: Arrival);

    /// One message from a connection; it is opened where it lies. What comes of it may wait for [`Room::messages_over`]. Gives what
    /// it cost, in messages: at least one.
    fn message(&mut self, now: Instant, conn: ConnId, message: &mut [u8]) -> usize;
    /// There are no more messages at the moment, or it is the turn of others.
    fn messages_over(&mut self) {}
    /// Whether readers should wait for the control room.
    fn is_busy(&self) -> bool;
    /// What the writer of a connection does next.
    fn next(&mut self, now: Instant, conn: ConnId) -> Next;
    /// So many bytes of messages that `next` gave are with the kernel.
    fn sent(&mut self, now: Instant, conn: ConnId, len: usize);
    /// A connection is gone, by its reader's or writer's word; the first word counts.
    fn closed(&mut self, conn: ConnId, why: Ended);
}

/// What a control room wants done by its runtime. None of these calls back into the room before it returns.
pub trait Doors {
    /// The control room wants a turn.
    fn ring(&mut self);
    /// Something waits for the writer of this connection.
    fn wake(&mut self, conn: ConnId);
    /// Reads no more from this connection, or gives a dial up; a writer goes on until `Next::Close`.
    fn hang_up(&mut self, conn: ConnId);
    /// Drops this connection at once.
    fn close(&mut self, conn: ConnId);
    /// Other bounds for handshakes of connections that come in.
    fn configure(&mut self, _bounds: Bounds) {}
    /// Takes no more connections.
    fn close_listeners(&mut self);
    /// Runs a job beside the control room; [`Room::computed`] follows.
    fn compute(&mut self, job: Job, crypto: Arc<dyn Provider>);
}

/// Connections that were hung up and may still send what waits; all have the same time, so the first is due first.
#[derive(Default)]
pub(crate) struct Closing(VecDeque<(Instant, ConnId)>);

impl Closing {
    pub(crate) fn add(&mut self, now: Instant, conn: ConnId) {
        self.0.push_back((now + FLUSH_WITHIN, conn));
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }

    /// The next one whose time is over.
    pub(crate) fn due(&mut self, now: Instant) -> Option<ConnId> {
        if self.deadline()? > now {
            return None;
        }
        self.0.pop_front().map(|(_, conn)| conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hung_up_has_a_second_each() {
        let mut closing = Closing::default();
        let start = Instant::from_millis(1_000);
        closing.add(start, ConnId(1));
        closing.add(start + FLUSH_WITHIN / 2, ConnId(2));
        assert_eq!(closing.deadline(), Some(start + FLUSH_WITHIN));
        assert_eq!(closing.due(start), None);
        assert_eq!(closing.due(start + FLUSH_WITHIN), Some(ConnId(1)));
        assert_eq!(closing.due(start + FLUSH_WITHIN), None);
        assert_eq!(closing.due(start + FLUSH_WITHIN * 2), Some(ConnId(2)));
    }
}
