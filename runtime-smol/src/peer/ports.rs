//! What the data plane writes to: connections, the interface, and the inbox of the control room.
use super::Port;
use crate::{bell::Bell, outbox::Outbox};
use shadowmesh_core::{
    event::{Ended, TlsFacts},
    handshake::Done,
    id::{ConnId, Handle, PeerId},
    plane::{Report, Sink, Via},
    wire::{TYPE_FWD, record_header},
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
};

/// Punts and reports that may wait for the control room. Readers stop at `INBOX_CALM`; this bounds one message's worth more.
const INBOX: usize = 8_192;

/// Above this, readers wait for the control room before they read on.
const INBOX_CALM: usize = 512;

/// An event that waits for the control room, owned.
pub(super) enum Pending {
    Opened { conn: ConnId, tls: TlsFacts, local: SocketAddr, remote: SocketAddr },
    Accepted { conn: ConnId, exporter: [u8; 32], local: SocketAddr, remote: SocketAddr },
    Closed { conn: ConnId, why: Ended },
    Message { conn: ConnId, handle: Option<Handle>, bytes: Vec<u8> },
    Computed(Done),
    Listening(Option<u16>),
    Interfaces(Vec<(IpAddr, u8)>),
    Report(Report),
    Ping { peer: PeerId, id: u32, payload: Vec<u8> },
    Leave,
}

impl Pending {
    /// The connection that it is about.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Opened { conn, .. } | Self::Accepted { conn, .. } | Self::Closed { conn, .. } | Self::Message { conn, .. } => Some(*conn),
            Self::Computed(_) | Self::Listening(_) | Self::Interfaces(_) | Self::Report(_) | Self::Ping { .. } | Self::Leave => None,
        }
    }
}

/// What this end dropped for want of room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drops {
    /// Packets that the interface did not take.
    pub(super) interface_full: u64,
    /// Messages that the control room had no room for.
    pub(super) inbox_full: u64,
}

/// The plane's sink.
pub(super) struct Ports {
    pub(super) outboxes: BTreeMap<ConnId, Outbox>,
    pub(super) inbox: VecDeque<Pending>,
    pub(super) bell: Bell,
    pub(super) drops: Drops,
    interface: Port,
}

impl Ports {
    pub(super) fn new(interface: Port, bell: Bell) -> Self {
        Self { outboxes: BTreeMap::new(), inbox: VecDeque::new(), bell, drops: Drops::default(), interface }
    }

    /// Puts an event of the driver's own into the inbox; there is at most one of a kind for each connection or job.
    pub(super) fn post(&mut self, event: Pending) {
        self.inbox.push_back(event);
        self.bell.ring();
    }

    /// Whether readers should wait for the control room.
    pub(super) fn is_busy(&self) -> bool {
        self.inbox.len() > INBOX_CALM
    }

    /// Puts what came from outside into the inbox, while there is room.
    fn offer(&mut self, event: Pending) {
        if self.inbox.len() < INBOX {
            self.post(event);
        } else {
            self.drops.inbox_full += 1;
        }
    }
}

impl Sink for Ports {
    fn room(&self, conn: ConnId) -> usize {
        self.outboxes.get(&conn).map_or(0, Outbox::room)
    }

    fn send(&mut self, via: Via, frame: &[u8]) {
        let (Some(outbox), Ok(len)) = (self.outboxes.get(&via.conn), u16::try_from(frame.len())) else {
            return; // gone since the plane asked for room: the frame stays in its ring
        };
        // protocol 9; on a direct connection the handle is 0
        let header = record_header(TYPE_FWD, 0, via.handle.unwrap_or(Handle(0)), len);
        outbox.record(&header, frame);
    }

    fn deliver(&mut self, packet: &[u8]) {
        if !self.interface.write(packet) {
            self.drops.interface_full += 1;
        }
    }

    fn punt(&mut self, conn: ConnId, handle: Option<Handle>, bytes: &mut [u8]) {
        let bytes = bytes.to_vec();
        self.offer(Pending::Message { conn, handle, bytes });
    }

    fn report(&mut self, report: Report) {
        self.offer(Pending::Report(report));
    }
}
