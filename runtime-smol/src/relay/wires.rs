//! What the forwarder reaches: the bells of the writers, and the inbox of the control room.
use crate::{bell::Bell, listen::Accepted};
use shadowmesh_core::{handshake::Done, hub::ForwardSink, id::ConnId};
use std::collections::{BTreeMap, VecDeque};

/// Punts that may wait for the control room.
const INBOX: usize = 8_192;

/// Above this, readers wait for the control room before they read on.
const INBOX_CALM: usize = 512;

/// An event that waits for the control room, owned.
pub(super) enum Pending {
    Accepted(Box<Accepted>),
    Closed { conn: ConnId },
    Message { conn: ConnId, bytes: Vec<u8> },
    Computed(Done),
    Leave,
}

/// The forwarder's sink.
pub(super) struct Wires {
    /// One bell for each connection's writer.
    pub(super) bells: BTreeMap<ConnId, Bell>,
    pub(super) inbox: VecDeque<Pending>,
    /// Messages that the control room had no room for.
    pub(super) inbox_full: u64,
    control: Bell,
}

impl Wires {
    pub(super) fn new(control: Bell) -> Self {
        Self { bells: BTreeMap::new(), inbox: VecDeque::new(), inbox_full: 0, control }
    }

    /// Puts an event of the driver's own into the inbox; there is at most one of a kind for each connection or job.
    pub(super) fn post(&mut self, event: Pending) {
        self.inbox.push_back(event);
        self.control.ring();
    }

    /// Whether readers should wait for the control room.
    pub(super) fn is_busy(&self) -> bool {
        self.inbox.len() > INBOX_CALM
    }
}

impl ForwardSink for Wires {
    fn punt(&mut self, conn: ConnId, message: &mut [u8]) {
        if self.inbox.len() < INBOX {
            let bytes = message.to_vec();
            self.post(Pending::Message { conn, bytes });
        } else {
            self.inbox_full += 1;
        }
    }

    fn wake(&mut self, conn: ConnId) {
        if let Some(bell) = self.bells.get(&conn) {
            bell.ring();
        }
    }
}
