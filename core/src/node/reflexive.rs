//! Our UDP address as one relay sees it, and whether it varies with whom we speak to (protocol 8.1).
//!
//! ```text
//!   session stands, sockets or addresses changed ──▶ ask the first port ──BOUND──▶ address; again in 25 s, or when a path by UDP dies
//!                                                        │  silence: after 0.5, 1, 2 s, then each 25 s
//!                                                        └─ ask the other port, until it is known ──BOUND──▶ the same address, or another
//! ```
//! What is learned here is a candidate (protocol 6.3). It may be stale or led astray; only a re-handshake proves a path.
use super::Room;
use crate::{
    binding::{BindError, open_bound, seal_bind},
    bound,
    drops::Drop,
    event::Action,
    path::candidate::Mapped,
    session::PathKey,
    time::{Duration, Instant},
    wire::{Bind, Bound, TICKET_LEN, addr::canonical},
};
use core::net::SocketAddr;
use std::{collections::VecDeque, sync::Arc};

/// Many NATs forget a mapping after 30 s of silence.
const INTERVAL: Duration = Duration::from_secs(25);
/// Waits for an answer, one after the other; then a whole interval each.
const WAITS: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// Paths that die make it ask sooner, but not more often than this, however many they are.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);
/// Questions to one port that may be answered at one time: those of the waits.
const OUT_MAX: usize = WAITS.len() + 1;
/// An address that so many questions in a row did not confirm is ours no more.
const SILENT_MAX: usize = OUT_MAX + 1;

/// What one port of the relay is asked.
#[derive(Debug)]
struct Question {
    to: SocketAddr,
    next_at: Option<Instant>,
    /// Asked so often since the last answer.
    unanswered: usize,
    /// Nonces that are still out.
    out: VecDeque<[u8; 8]>,
}

/// What is learned in one session with a relay.
pub(super) struct Reflexive {
    key: Arc<PathKey>,
    own_sid: u32,
    relay_sid: u32,
    first: Question,
    /// The relay's other port, once it was told.
    other: Option<Question>,
    asked_at: Option<Instant>,
    answered_at: Option<Instant>,
    address: Option<SocketAddr>,
    /// As the relay's other port sees it.
    other_address: Option<SocketAddr>,
    /// The address that the relay was shown to pass datagrams on to, and the ticket for another one (protocol 8.8).
    attached: Option<SocketAddr>,
    ticket: Option<(SocketAddr, [u8; TICKET_LEN])>,
}

impl Reflexive {
    /// Nothing is known, and `ask_anew` begins. `relay` is where the first port is.
    pub(super) fn new(key: Arc<PathKey>, own_sid: u32, relay_sid: u32, relay: SocketAddr) -> Self {
        let relay = canonical(relay);
        Self {
            key,
            own_sid,
            relay_sid,
            first: Question::new(relay),
            other: None,
            asked_at: None,
            answered_at: None,
            address: None,
            other_address: None,
            attached: None,
            ticket: None,
        }
    }

    /// What it keeps, beside the most.
    pub(super) fn bounds(&self, each: &mut dyn FnMut(bound::Bound)) {
        for question in [&self.first].into_iter().chain(&self.other) {
            each(bound::Bound::new("questions for a UDP address that are out", question.out.len(), OUT_MAX));
        }
    }

    /// Our UDP address as the relay sees it. Where its two ports see two addresses, nobody else can use either.
    pub(super) fn mapped(&self) -> Option<Mapped> {
        self.address.map(|address| Mapped { address, other: self.other_address })
    }

    /// When the first port told our address last.
    pub(super) fn answered_at(&self) -> Option<Instant> {
        self.answered_at
    }

    /// Our sockets or our own addresses may have changed: what is known may be wrong. Without a socket nothing is known.
    pub(super) fn ask_anew(&mut self, now: Instant, room: &Room) {
        self.other = None;
        self.other_address = None;
        self.first = Question::new(self.first.to);
        // the relay may have given our address to another client since
        self.attached = None;
        if room.udp_port_for(self.first.to.ip()).is_some() {
            self.first.next_at = Some(now);
        } else {
            self.address = None;
        }
    }

    /// A path by UDP died: the mapping may be another one by now.
    pub(super) fn doubt(&mut self, now: Instant) {
        let at = self.asked_at.map_or(now, |asked_at| now.max(asked_at + DOUBT_INTERVAL));
        self.first.next_at = self.first.next_at.map(|next_at| next_at.min(at));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [&self.first].into_iter().chain(&self.other).filter_map(|question| question.next_at).min()
    }

    /// Asks what is due.
    pub(super) fn alarm(&mut self, now: Instant, room: &mut Room) {
        if self.first.is_due(now) {
            self.first.ask(room, &self.key, self.relay_sid);
            self.asked_at = Some(now);
            let wait = WAITS.get(self.first.unanswered - 1).copied().unwrap_or(INTERVAL);
            self.first.next_at = Some(now + wait);
            if self.first.unanswered > SILENT_MAX {
                (self.address, self.other_address, self.other) = (None, None, None);
            }
        }
        if let Some(other) = self.other.as_mut().filter(|other| other.is_due(now)) {
            other.ask(room, &self.key, self.relay_sid);
            // what stays unanswered is asked again when the first port has answered again
            other.next_at = WAITS.get(other.unanswered - 1).map(|wait| now + *wait);
        }
    }

    /// BOUND for this session came from `remote`. True when it changes what is known.
    pub(super) fn bound(&mut self, now: Instant, remote: SocketAddr, bytes: &[u8]) -> Result<bool, Drop> {
        let said = Bound::parse(bytes).map_err(|_| Drop::Malformed)?;
        let remote = canonical(remote);
        let is_first = self.first.expects(remote, said.nonce);
        if said.receiver != self.own_sid || !(is_first || self.other.as_ref().is_some_and(|other| other.expects(remote, said.nonce))) {
            return Err(Drop::Unexpected);
        }
        let bound = open_bound(&self.key, bytes).map_err(|error| match error {
            BindError::Malformed => Drop::Malformed,
            BindError::Forged => Drop::Forged,
        })?;
        let before = self.mapped();
        if is_first {
            self.first.answered(Some(now + INTERVAL));
            self.answered_at = Some(now);
            if self.address != Some(bound.address) {
                (self.address, self.other_address) = (Some(bound.address), None);
            }
            if self.attached != Some(bound.address) && bound.ticket != [0; TICKET_LEN] {
                self.ticket = Some((bound.address, bound.ticket));
            }
            self.ask_other(now, bound.other_port);
        } else if let Some(other) = &mut self.other {
            other.answered(None);
            self.other_address = Some(bound.address);
        }
        Ok(self.mapped() != before)
    }

    /// What to show the relay on its connection, once for each address of ours.
    pub(super) fn take_ticket(&mut self) -> Option<(SocketAddr, [u8; TICKET_LEN])> {
        let ticket = self.ticket.take()?;
        self.attached = Some(ticket.0);
        Some(ticket)
    }

    /// Where the relay's first port is.
    pub(super) fn relay(&self) -> SocketAddr {
        self.first.to
    }

    /// Asks the relay's other port, unless what it would say is known.
    fn ask_other(&mut self, now: Instant, port: u16) {
        if port == 0 {
            (self.other, self.other_address) = (None, None);
        } else if self.other_address.is_none() {
            let mut other = Question::new(SocketAddr::new(self.first.to.ip(), port));
            other.next_at = Some(now);
            self.other = Some(other);
        }
    }

    /// The session number that BOUND names.
    pub(super) fn own_sid(&self) -> u32 {
        self.own_sid
    }
}

impl Question {
    fn new(to: SocketAddr) -> Self {
        Self { to, next_at: None, unanswered: 0, out: VecDeque::with_capacity(OUT_MAX) }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next_at.is_some_and(|at| at <= now)
    }

    fn ask(&mut self, room: &mut Room, key: &PathKey, receiver: u32) {
        while self.out.len() >= OUT_MAX {
            self.out.pop_front();
        }
        let nonce = room.entropy.public();
        self.out.push_back(nonce);
        self.unanswered += 1;
        room.act(Action::Datagram { remote: self.to, bytes: seal_bind(key, &Bind { receiver, nonce }).to_vec() });
    }

    fn expects(&self, remote: SocketAddr, nonce: [u8; 8]) -> bool {
        remote == self.to && self.out.contains(&nonce)
    }

    /// Whatever else is out is as old as the answer, or older.
    fn answered(&mut self, next_at: Option<Instant>) {
        self.out.clear();
        self.unanswered = 0;
        self.next_at = next_at;
    }
}

#[cfg(test)]
#[path = "reflexive/tests.rs"]
mod tests;
