//! What a host owes: to an address that was not shown to be there, nothing goes that it has not paid for (RFC 9000 8 for the reason; the
//! factor here is one).
//!
//! ```text
//!   R ── n bytes ──▶ host ── at most n bytes ──▶ R        until what went to R was answered by a message of the re-handshake
//! ```
//! Whether R leads to somebody is what the world saw, not what a machine believes: a `PATH_REQ` or `PATH_RSP` that was sent to R came to a
//! host, and the next message of the same attempt came back from that host, from wherever.
//!
//! Four things go unpaid, since they are no answers: BIND, OPENER, the first requests on a path (protocol 8.1, 8.2, 8.5), and the first
//! fragment of a handshake (8.6). Of the last two there are few to an address, and no requests by a path that was shown to lead somewhere:
//! those are of a peer that moves (protocol 8.4).
//!
//! In a handshake by UDP it is `COOKIE_REPLY` that comes back from where a first fragment went, and fragments under the cookie from where
//! `COOKIE_REPLY` went.
use super::air::HostId;
use shadowmesh_core::wire::{
    CookieReply, Fragment, PATH_REQUEST_LEN, PathHeader, TYPE_BIND, TYPE_FRAG, TYPE_OPENER, TYPE_PATH_CMP, TYPE_PATH_REQ,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

/// Far addresses in one host's accounts; further ones are not counted, as a host could not afford to either.
const ACCOUNTS_MAX: usize = 4_096;
/// Messages that reached a host and may still be answered: nine requests of six sizes to each of ten addresses, and their answers, in the
/// longest round trip.
const REACHED_MAX: usize = 1_024;
/// First requests to one address on one path: five, and one more where both ask (protocol 8.2).
const FIRST_REQUESTS: u8 = 6;

/// Bytes exchanged with one far address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Payload bytes sent to it that it has to pay for.
    pub sent: u64,
    /// Payload bytes that came from it.
    pub received: u64,
    /// It was shown to be there.
    pub is_validated: bool,
}

/// First fragments of one attempt to one address (protocol 8.7).
const FIRST_FRAGMENTS: u8 = 4;

/// What came of a handshake by UDP, by the number that its initiator chose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Greeted {
    Asked(u32),
    Replied(u32),
    Shown(u32),
}

impl Greeted {
    fn of(bytes: &[u8]) -> Option<Self> {
        if let Ok(reply) = CookieReply::parse(bytes) {
            return Some(Self::Replied(reply.sid));
        }
        let fragment = Fragment::parse(bytes).ok()?;
        Some(if fragment.with_cookie { Self::Shown(fragment.sid) } else { Self::Asked(fragment.sid) })
    }

    /// What it answers.
    fn answers(self) -> Option<Self> {
        match self {
            Self::Asked(_) => None,
            Self::Replied(sid) => Some(Self::Asked(sid)),
            Self::Shown(sid) => Some(Self::Replied(sid)),
        }
    }
}

/// A path as the end that asks on it names it: the other end's session number, and its own.
type Asked = (u32, u32);

/// A message of the re-handshake that came to a host.
#[derive(Clone, Copy)]
struct Reached {
    host: HostId,
    kind: u8,
    path: u32,
    attempt: u32,
    asked: Asked,
    aimed_at: SocketAddr,
}

/// The accounts of one host in one life.
#[derive(Default)]
pub(super) struct Debts {
    /// Whether it is a peer: others may speak to whom they please.
    pub(super) is_peer: bool,
    accounts: BTreeMap<SocketAddr, Exchange>,
    reached: VecDeque<Reached>,
    /// Paths on which a request of ours was answered.
    shown: BTreeSet<Asked>,
    requests: BTreeMap<(SocketAddr, Asked), u8>,
    /// Where each request went first, and paths of which one went to more than one address: a search for a port goes on after an answer, until
    /// the port that was found is proven (protocol 8.5).
    attempts: BTreeMap<(Asked, u32), SocketAddr>,
    searches: BTreeSet<Asked>,
    /// First fragments that went unpaid, and what of handshakes by UDP has come to a host, sent where.
    first_fragments: BTreeMap<(SocketAddr, u32), u8>,
    greeted: VecDeque<(HostId, SocketAddr, Greeted)>,
}

impl Debts {
    pub(super) fn with(&self, remote: SocketAddr) -> Exchange {
        self.accounts.get(&remote).copied().unwrap_or_default()
    }

    fn account(&mut self, remote: SocketAddr) -> Option<&mut Exchange> {
        if self.accounts.len() >= ACCOUNTS_MAX && !self.accounts.contains_key(&remote) {
            return None;
        }
        Some(self.accounts.entry(remote).or_default())
    }

    /// A datagram goes out. Some: it is more than its target has paid for.
    pub(super) fn sends(&mut self, to: SocketAddr, bytes: &[u8]) -> Option<Exchange> {
        let goes_unpaid = match bytes.first() {
            Some(&(TYPE_BIND | TYPE_OPENER)) => true,
            Some(&TYPE_PATH_REQ) => self.is_first_request(to, bytes),
            Some(&TYPE_FRAG) => self.is_first_fragment(to, bytes),
            Some(_) | None => false,
        };
        if goes_unpaid {
            return None;
        }
        let is_peer = self.is_peer;
        let account = self.account(to)?;
        let speaks_first = !is_peer && account.received == 0;
        account.sent += if speaks_first { 0 } else { bytes.len() as u64 };
        (account.sent > account.received && !account.is_validated && !speaks_first).then_some(*account)
    }

    fn is_first_fragment(&mut self, to: SocketAddr, bytes: &[u8]) -> bool {
        let Some(Greeted::Asked(sid)) = Greeted::of(bytes) else { return false };
        let sent = self.first_fragments.entry((to, sid)).or_default();
        *sent += 1;
        *sent <= FIRST_FRAGMENTS
    }

    fn is_first_request(&mut self, to: SocketAddr, bytes: &[u8]) -> bool {
        let Ok(header) = PathHeader::parse(bytes) else { return false };
        let asked = (header.receiver, header.path.0);
        let first = *self.attempts.entry((asked, header.attempt)).or_insert(to);
        if first != to {
            self.searches.insert(asked);
        }
        if bytes.len() > PATH_REQUEST_LEN || self.shown.contains(&asked) {
            return false;
        }
        let requests = self.requests.entry((to, asked)).or_default();
        *requests = requests.saturating_add(1);
        *requests <= FIRST_REQUESTS
    }

    /// A datagram has come from there; OPENER says nothing (protocol 8.5).
    pub(super) fn takes(&mut self, from: SocketAddr, bytes: &[u8]) {
        if bytes.first() != Some(&TYPE_OPENER)
            && let Some(account) = self.account(from)
        {
            account.received += bytes.len() as u64;
        }
    }

    /// What was sent to this address has come to a host.
    pub(super) fn reaches(&mut self, host: HostId, aimed_at: SocketAddr, bytes: &[u8]) {
        if let Some(greeted) = Greeted::of(bytes) {
            if self.greeted.len() >= REACHED_MAX {
                self.greeted.pop_front();
            }
            self.greeted.push_back((host, aimed_at, greeted));
            return;
        }
        let Ok(PathHeader { kind, receiver, path, attempt, .. }) = PathHeader::parse(bytes) else { return };
        if self.reached.len() >= REACHED_MAX {
            self.reached.pop_front();
        }
        self.reached.push_back(Reached { host, kind, path: path.0, attempt, asked: (receiver, path.0), aimed_at });
    }

    /// A datagram of this host has come: what it answers has shown that somebody is where that went.
    pub(super) fn answered_by(&mut self, host: HostId, from: SocketAddr, bytes: &[u8]) {
        if let Some(question) = Greeted::of(bytes).and_then(Greeted::answers) {
            // of the addresses of one host that were asked, the one that answers
            let asked = self.greeted.iter().filter(|(known, _, greeted)| *known == host && *greeted == question);
            if let Some((_, aimed_at, _)) = asked.min_by_key(|(_, aimed_at, _)| *aimed_at != from).copied() {
                self.validate(aimed_at);
            }
            return;
        }
        let Ok(header) = PathHeader::parse(bytes) else { return };
        let answers = |kind: u8| kind != TYPE_PATH_CMP && kind + 1 == header.kind;
        let is_it =
            |known: &&Reached| known.host == host && answers(known.kind) && (known.path, known.attempt) == (header.path.0, header.attempt);
        let Some(newest) = self.reached.iter().rev().find(is_it) else { return };
        // of the ports of one host that the same request reached, the one that answers (protocol 8.5)
        let same = self.reached.iter().rev().filter(is_it).filter(|known| known.asked == newest.asked);
        let known = same.min_by_key(|known| known.aimed_at != from).copied().unwrap_or(*newest);
        if known.kind == TYPE_PATH_REQ && !self.searches.contains(&known.asked) {
            self.shown.insert(known.asked);
        }
        self.validate(known.aimed_at);
    }

    pub(super) fn validate(&mut self, remote: SocketAddr) {
        if let Some(account) = self.account(remote) {
            account.is_validated = true;
        }
    }
}
