//! Where a path of datagrams leads: which address a message of the re-handshake has proven, when the path follows it there, and what becomes
//! of a path that one end has given up while the other one still uses it (protocol 8.2, 8.4).
//!
//! ```text
//!   REQ ──▶ X        RSP came, from wherever: X leads to the other end
//!   RSP ──▶ S        CMP came, from wherever: S leads to the other end
//! ```
//! An answer proves the address to which its question went, not the one from which it comes: that may be anybody's, who passes on what he saw.
use super::{
    Link,
    direct::{Direct, State},
};
use crate::{
    drops::Drop,
    id::PathId,
    node::{Room, Source},
    rehandshake::LIVE_NONCES,
    session::Side,
    time::{Duration, Instant},
    wire::PathHeader,
};
use core::net::SocketAddr;
use std::collections::{BTreeSet, VecDeque};

/// After a path has followed the other end, it does not follow again for so long, doubling; unless it is suspect (protocol 8.4).
const REST_FIRST: Duration = Duration::from_secs(1);
const REST_MOST: Duration = Duration::from_mins(1);
/// A path that stayed for so long may be led on at once.
const SETTLED: Duration = Duration::from_mins(2);
/// Numbers of given-up paths that are kept one by one.
const BURIED_MAX: usize = 32;

/// Where the messages of a path went.
#[derive(Default)]
pub(super) struct Trail {
    asked: VecDeque<(u32, Instant, SocketAddr)>,
    answered: VecDeque<(u32, SocketAddr)>,
    /// From where an answer came last: another address than the one that was asked, where a NAT maps by destination.
    pub(super) source: Option<SocketAddr>,
    moved_at: Option<Instant>,
    moves: u32,
}

impl Trail {
    /// A request goes there.
    pub(super) fn ask(&mut self, now: Instant, attempt: u32, remote: SocketAddr) {
        self.asked.push_back((attempt, now, remote));
        if self.asked.len() > LIVE_NONCES {
            self.asked.pop_front();
        }
    }

    /// This attempt was answered from there: when and where it asked, which is what the answer proves. None: it went to many ports
    /// (protocol 8.5).
    pub(super) fn answers(&mut self, attempt: u32, from: SocketAddr) -> Option<(Instant, SocketAddr)> {
        self.source = Some(from);
        self.asked.iter().find(|(known, ..)| *known == attempt).map(|(_, at, asked)| (*at, *asked))
    }

    /// An answer goes there.
    pub(super) fn answer(&mut self, attempt: u32, remote: SocketAddr) {
        self.answered.push_back((attempt, remote));
        if self.answered.len() > LIVE_NONCES {
            self.answered.pop_front();
        }
    }

    /// Our answer to this attempt was confirmed from there: where it had gone.
    pub(super) fn confirmed(&mut self, attempt: u32, from: SocketAddr) -> Option<SocketAddr> {
        self.source = Some(from);
        self.answered.iter().find(|(known, _)| *known == attempt).map(|(_, remote)| *remote)
    }

    /// The path leads elsewhere now.
    pub(super) fn moved(&mut self, now: Instant) {
        if self.moved_at.is_some_and(|at| now.since(at) >= SETTLED) {
            self.moves = 0;
        }
        self.moves = self.moves.saturating_add(1);
        self.moved_at = Some(now);
    }

    /// Two ends behind NATs that map by destination would follow each other's new address without an end: each that one follows makes
    /// another one for the other.
    fn rests(&self, now: Instant) -> bool {
        let wait = REST_FIRST.saturating_mul(1 << self.moves.saturating_sub(1).min(6)).min(REST_MOST);
        self.moved_at.is_some_and(|at| now.since(at) < wait)
    }
}

impl Direct {
    /// Whether it may be led to another address now.
    pub(super) fn may_follow(&self, now: Instant) -> bool {
        !self.is_usable() || self.is_suspect() || !self.trail.rests(now)
    }
}

/// Paths that the other end made and this one has given up: none is used twice in a session (protocol 5.4).
#[derive(Default)]
pub(super) struct Buried {
    /// All below are given up, if they do not live.
    below: u32,
    numbers: BTreeSet<u32>,
}

impl Buried {
    pub(super) fn bury(&mut self, path: PathId) {
        self.numbers.insert(path.0);
        while self.numbers.len() > BURIED_MAX {
            self.below = self.numbers.pop_first().unwrap_or(self.below);
        }
    }

    fn holds(&self, path: PathId) -> bool {
        path.0 <= self.below || self.numbers.contains(&path.0)
    }
}

impl Link {
    /// Whether a path that does not live did so once: one of our own numbers, or one that we gave up.
    pub(super) fn is_given_up(&self, path: PathId) -> bool {
        let side = self.live.as_ref().map(super::live::Live::side);
        let is_ours = side.is_some_and(|side| (path.0 % 2 == 1) == (side == Side::Responder));
        is_ours || self.buried.holds(path)
    }

    /// The other end asks on a path that we gave up, so it believes in it still. It gets no answer, but a request of a new path where it is:
    /// one for one that verifies, so that whoever repeats them makes us send no more than he does.
    pub(super) fn knock_back(&mut self, now: Instant, room: &mut Room, source: Source, header: PathHeader, bytes: &[u8]) {
        room.drops.count(Drop::Rehandshake);
        // a detour that this end let go of for a direct path is not made again for the sake of a probe (protocol 8.8)
        let is_wanted = room.takes_datagrams(source.remote) && !(self.is_direct() && room.is_door(source.remote));
        if is_wanted && source.own_flow.is_none() && self.is_request(now, header, bytes) {
            self.knock_once(now, room, source.remote);
        }
    }

    /// One of the ports that a search asks has answered, perhaps by another one: ask there, since this proves neither (protocol 8.5).
    pub(super) fn port_found(&mut self, now: Instant, room: &mut Room, path: PathId, from: SocketAddr) {
        let Some(key) = self.path_key() else { return };
        let is_it = |direct: &&mut Direct| direct.path == path && matches!(direct.state, State::Proving { .. });
        if self.directs.iter_mut().find(is_it).is_none_or(|direct| direct.remote.ip() != from.ip()) {
            return;
        }
        self.path_moves(now, room, path, from);
        if let Some(direct) = self.directs.iter_mut().find(is_it) {
            direct.request(now, room, &key, 0);
        }
    }

    /// Asks at this address by one request, on a path of its own; not where a path leads already.
    pub(super) fn knock_once(&mut self, now: Instant, room: &mut Room, remote: SocketAddr) {
        let Some(key) = self.path_key() else { return };
        if let Some(known) = self.directs.iter_mut().find(|direct| direct.is_datagrams() && direct.remote == remote) {
            if matches!(known.state, State::Proving { .. }) {
                known.request(now, room, &key, 0);
            }
            return;
        }
        if (room.is_door(remote) || room.may_probe(now, remote.ip()))
            && let Some(mut direct) = self.propose_flow(now, room, remote, now + super::datagram::KNOCK_TIME)
        {
            direct.request(now, room, &key, 0);
            self.directs.push(direct);
        }
    }
}

#[cfg(test)]
#[path = "follow/tests.rs"]
mod tests;
