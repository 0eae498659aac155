//! What waits for the control room.
use crate::room::{INBOX, INBOX_CALM};
use shadowmesh_core::{
    config::{Member, Tuning},
    event::{Ended, PortMapping},
    handshake::Done,
    id::{ConnId, Handle, PeerId},
    plane::Report,
    succession::Statement,
};
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
};

/// An event that waits for the control room, owned.
pub(super) enum Pending {
    Closed { conn: ConnId, why: Ended },
    Message { conn: ConnId, handle: Option<Handle>, bytes: Vec<u8> },
    Computed(Done),
    Listening(Option<u16>),
    Sockets(Option<u16>, Option<u16>),
    Datagram { remote: SocketAddr, bytes: Vec<u8> },
    Interfaces(Vec<(IpAddr, u8)>),
    PortMapped(Vec<PortMapping>),
    Examine,
    Members(Vec<Member>, Vec<PeerId>),
    Tune(Tuning),
    Succeed(Statement),
    Report(Report),
    Ping { peer: PeerId, id: u32, payload: Vec<u8> },
    Leave,
}

impl Pending {
    /// The connection that it is about.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Closed { conn, .. } | Self::Message { conn, .. } => Some(*conn),
            Self::Computed(_)
            | Self::Listening(_)
            | Self::Sockets(..)
            | Self::Datagram { .. }
            | Self::Interfaces(_)
            | Self::PortMapped(_)
            | Self::Examine
            | Self::Members(..)
            | Self::Tune(_)
            | Self::Succeed(_)
            | Self::Report(_)
            | Self::Ping { .. }
            | Self::Leave => None,
        }
    }
}

/// Events in the order in which they came.
#[derive(Default)]
pub(super) struct Inbox {
    events: VecDeque<Pending>,
    /// Words among them: messages of a connection itself, not of somebody behind it.
    words: usize,
}

impl Inbox {
    pub(super) fn push(&mut self, event: Pending) {
        self.words += usize::from(is_word(&event));
        self.events.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        let event = self.events.pop_front()?;
        self.words -= usize::from(is_word(&event));
        Some(event)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether it takes what comes from outside.
    pub(super) fn has_room(&self) -> bool {
        self.events.len() < INBOX
    }

    /// Whether readers should wait: much is here, or a word. A word may say from whom frames are taken on its connection: `ESTABLISHED`,
    /// `PATH_CMP`. Those right behind it would come to the plane before it knew, and be refused.
    pub(super) fn is_busy(&self) -> bool {
        self.words > 0 || self.events.len() > INBOX_CALM
    }
}

fn is_word(event: &Pending) -> bool {
    matches!(event, Pending::Message { conn, handle: None, .. } if !conn.is_flow())
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol 6.2, 7.6
    #[test]
    fn readers_wait_until_a_connections_own_word_is_heard() {
        let mut inbox = Inbox::default();
        let message = |conn, handle| Pending::Message { conn: ConnId(conn), handle, bytes: Vec::new() };
        inbox.push(message(1, Some(Handle(2))));
        inbox.push(message(1 << 63, None));
        assert!(!inbox.is_busy(), "what others say over a relay, or in datagrams, does not hold up");
        inbox.push(message(1, None));
        inbox.push(Pending::Leave);
        for busy in [true, true, false, false] {
            assert!(inbox.pop().is_some());
            assert_eq!(inbox.is_busy(), busy);
        }
        assert!(inbox.pop().is_none() && inbox.is_empty());
    }

    #[test]
    fn readers_wait_while_much_is_there_and_beyond_a_bound_nothing_is_taken() {
        let mut inbox = Inbox::default();
        for count in 0..INBOX {
            assert_eq!((inbox.is_busy(), inbox.has_room()), (count > INBOX_CALM, true));
            inbox.push(Pending::Examine);
        }
        assert!(!inbox.has_room());
    }
}
