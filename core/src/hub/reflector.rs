//! Tells clients where their datagrams come from (protocol 8.1).
//!
//! ```text
//!   datagram ─▶ BIND? ─▶ whose session? ─▶ mac ─▶ bucket ─▶ BOUND, to where it came from, from where it came to
//! ```
//! Nobody but an established client is answered, and nothing is kept of a datagram: what fails costs a look-up, and behind that one
//! HMAC. An answer is as long as its question, so that a forged source address gains nothing. It holds a ticket, with which the client
//! shows on its connection that the address is its own (protocol 8.8).
use super::{channel::Channel, drops::Reason};
use crate::{
    binding::{BindError, open_bind, seal_bound},
    bound,
    bucket::{Bucket, Rate},
    crypto::hash::equal,
    entropy::Entropy,
    fragments::Cookies,
    id::ConnId,
    time::Instant,
    wire::{Bind, Bound, TICKET_LEN, addr::canonical},
};
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// Answers to one client. It asks twice at its start and after each change of its networks, four times each at most, then every 25 s.
pub(super) const BINDS: Rate = Rate { per_second: 4, burst: 16 };

/// The relay's UDP ports, and whose session is meant by a number.
pub(super) struct Reflector {
    ports: [Option<u16>; 2],
    /// Own session numbers of established clients.
    sids: BTreeMap<u32, ConnId>,
    tickets: Cookies,
}

impl Reflector {
    pub(super) fn new(ports: [Option<u16>; 2]) -> Self {
        Self { ports, sids: BTreeMap::new(), tickets: Cookies::default() }
    }

    /// The port that ESTABLISHED tells, 0 = none.
    pub(super) fn first_port(&self) -> u16 {
        self.ports.into_iter().flatten().next().unwrap_or(0)
    }

    /// Whether this number is no established client's; zero is nobody's.
    pub(super) fn is_free(&self, sid: u32) -> bool {
        sid != 0 && !self.sids.contains_key(&sid)
    }

    /// A client is established. Of two that drew the same number the first keeps it, and the other has no UDP address.
    pub(super) fn add(&mut self, sid: u32, conn: ConnId) {
        self.sids.entry(sid).or_insert(conn);
    }

    /// A client is gone.
    pub(super) fn remove(&mut self, sid: u32, conn: ConnId) {
        if self.sids.get(&sid) == Some(&conn) {
            self.sids.remove(&sid);
        }
    }

    /// Whose question this says it is.
    pub(super) fn asker(&self, bytes: &[u8]) -> Result<ConnId, Reason> {
        let bind = Bind::parse(bytes).map_err(|_| Reason::MalformedDatagram)?;
        self.sids.get(&bind.receiver).copied().ok_or(Reason::UnknownSession)
    }

    /// The secret behind tickets is replaced when it is old.
    pub(super) fn renew(&mut self, now: Instant, entropy: &mut Entropy) {
        self.tickets.renew(now, || entropy.secret());
    }

    /// Whether a client with this number was lately told this ticket at this address (protocol 8.8).
    pub(super) fn takes_ticket(&self, now: Instant, own_sid: u32, address: SocketAddr, ticket: &[u8; TICKET_LEN]) -> bool {
        self.tickets.taken(now, address, own_sid).any(|known| equal(&known, ticket))
    }

    /// The answer to a question of this client that came to one of the two ports.
    pub(super) fn answer(
        &self,
        now: Instant,
        channel: &Channel,
        binds: &mut Bucket,
        port: u8,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Result<Vec<u8>, Reason> {
        let bind = open_bind(channel.path_key(), bytes).map_err(|error| match error {
            BindError::Malformed => Reason::MalformedDatagram,
            BindError::Forged => Reason::ForgedBind,
        })?;
        // behind the mac, so that nobody can use up a client's answers
        if !binds.take(now, 1, BINDS) {
            return Err(Reason::BindRate);
        }
        // protocol 1.5: an IPv4 client of a dual-stack socket has an IPv4 address
        let address = canonical(remote);
        let other = self.ports[usize::from(port == 0)];
        let bound = Bound {
            receiver: channel.peer_sid(),
            nonce: bind.nonce,
            address,
            other_port: other.unwrap_or(0),
            // datagrams are passed on by the first port alone
            ticket: self.tickets.cookie(address, channel.own_sid()).filter(|_| port == 0).unwrap_or_default(),
        };
        Ok(seal_bound(channel.path_key(), &bound).to_vec())
    }

    /// What is kept here, beside the most.
    pub(super) fn bounds(&self, clients: usize, each: &mut dyn FnMut(bound::Bound)) {
        each(bound::Bound::new("session numbers of established clients", self.sids.len(), clients));
    }
}
