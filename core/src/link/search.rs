//! Guessing ports: a way through a NAT that gives each destination another port, towards an end whose own port is known (protocol 8.5).
//!
//! ```text
//!   behind the NAT:  256 sockets, an OPENER from each to the other's address ──SEARCH (over the relay)──▶ the other end
//!   the other end:   the same PATH_REQ to one port after the other ──▶ one of the 256 ──PATH_RSP──▶ the path leads there
//! ```
//! By chance it takes some 250 guesses of 64,000 ports to meet one of 256. Where the NAT gives ports one behind the other, few are needed.
use super::{
    Link,
    attempt::Way,
    direct::{Direct, State},
};
use crate::{
    drops::Drop,
    event::Action,
    id::{ConnId, PathId},
    node::Room,
    path::candidate::Mapped,
    plane::Via,
    time::{Duration, Instant},
    wire::{Candidate, CandidateKind, OPENER, PeerMessage, Transport},
};
use core::net::SocketAddr;

/// Sockets that the end behind the NAT opens, and how many at once.
const SOCKETS: usize = 256;
const SOCKETS_AT_ONCE: usize = 64;
/// Requests of the other end: a thousand a second for three seconds.
const REQUESTS: u32 = 3_000;
const REQUESTS_AT_ONCE: u32 = 10;
const TICK: Duration = Duration::from_millis(10);
/// The requests are one and the same for so long: eight that are out at most can be answered, and each port is asked but once.
const RENEWED: Duration = Duration::from_millis(500);
/// The whole of it, at the end that is asked to search, and at the other, which also waits for the word to get there.
const ASKING_TIME: Duration = Duration::from_secs(4);
const OPENING_TIME: Duration = Duration::from_secs(5);
/// The first guesses where ports are given in order, and how far apart: each run of `SOCKETS` ports holds one of them.
const FORESEEN: u32 = 64;
const FIRST_GUESS: u16 = 100;
const GUESS_STRIDE: u16 = 200;
/// No NAT gives a well-known port.
const LEAST_PORT: u16 = 1_024;

/// A search under way.
pub(super) struct Search {
    until: Instant,
    next_at: Option<Instant>,
    part: Part,
}

enum Part {
    /// Our NAT gives ports anew: these sockets have one each.
    Opening { target: SocketAddr, mapped: Mapped, flows: Vec<ConnId> },
    /// We look for one of the other end's ports.
    Asking(Asking),
}

struct Asking {
    path: PathId,
    /// The port that the other end's NAT gave last, and the distance to the next one.
    last: SocketAddr,
    step: u16,
    request: Vec<u8>,
    renewed_at: Instant,
    sent: u32,
}

impl Search {
    pub(super) fn deadline(&self) -> Instant {
        self.next_at.map_or(self.until, |at| at.min(self.until))
    }

    /// Sockets that it holds.
    pub(super) fn sockets(&self) -> usize {
        match &self.part {
            Part::Opening { flows, .. } => flows.len(),
            Part::Asking(_) => 0,
        }
    }
}

/// The most sockets that a search holds.
pub(super) const SOCKETS_MAX: usize = SOCKETS;

impl Link {
    /// No path by UDP was found soon. If that is because of our NAT alone, begins a search; the address that it leads to.
    pub(super) fn begin_search(&mut self, now: Instant, room: &mut Room) -> Option<SocketAddr> {
        if self.search.is_some() || self.has_udp() {
            return None;
        }
        let (target, mapped) = self.search_target(room)?;
        let until = now + OPENING_TIME;
        if !room.may_search(now, self.peer, target.ip(), until) {
            return None;
        }
        let part = Part::Opening { target, mapped, flows: Vec::with_capacity(SOCKETS) };
        self.search = Some(Box::new(Search { until, next_at: Some(now), part }));
        self.search_alarm(now, room);
        Some(target)
    }

    /// Where the other end's own port is known, and how our NAT gives ours. Both the relay and the peer say that it is there: so many
    /// datagrams must not go to anybody else.
    fn search_target(&self, room: &Room) -> Option<(SocketAddr, Mapped)> {
        let theirs = self.seen_by_relay()?;
        let is_it = |candidate: &Candidate| {
            candidate.transport == Transport::Udp
                && candidate.kind != CandidateKind::Varying
                && candidate.address.ip() == theirs
                && room.udp_port_for(theirs).is_some()
                && room.permits(candidate, Some(theirs)).is_ok()
        };
        let target = self.candidates.iter().map(|(candidate, _)| candidate).find(|candidate| is_it(candidate))?.address;
        let mut mapped = room.around.reflexive.iter().filter(|mapped| mapped.address.is_ipv4() == target.is_ipv4());
        mapped.find(|mapped| mapped.varies()).map(|mapped| (target, *mapped))
    }

    /// The other end has opened ports for us.
    pub(super) fn take_search(&mut self, now: Instant, room: &mut Room, last: SocketAddr, step: u16) {
        let candidate = Candidate { kind: CandidateKind::Varying, transport: Transport::Udp, address: last, priority: 0 };
        let theirs = self.seen_by_relay();
        let is_there = theirs == Some(last.ip()) && room.permits(&candidate, theirs).is_ok();
        let ours_varies = room.around.reflexive.iter().any(|mapped| mapped.varies() && mapped.address.is_ipv4() == last.is_ipv4());
        if !room.config.direct.udp || room.udp_port_for(last.ip()).is_none() || self.search.is_some() || self.has_udp() || ours_varies {
            return;
        }
        let until = now + ASKING_TIME;
        if !is_there || !room.may_search(now, self.peer, last.ip(), until) {
            room.drops.count(Drop::Candidate);
            return;
        }
        let Some(key) = self.path_key() else { return };
        let Some(mut direct) = self.propose_flow(now, room, last, until) else { return };
        let (path, request) = (direct.path(), direct.request_for(room, &key, last, 0));
        self.directs.push(direct);
        self.attempt_joined(Way::Flow(path), last);
        let part = Part::Asking(Asking { path, last, step, request, renewed_at: now, sent: 0 });
        self.search = Some(Box::new(Search { until, next_at: Some(now), part }));
        self.search_alarm(now, room);
    }

    /// Whether a path by UDP stands.
    fn has_udp(&self) -> bool {
        self.directs.iter().any(|direct| direct.is_datagrams() && direct.is_straight())
    }

    pub(super) fn search_alarm(&mut self, now: Instant, room: &mut Room) {
        let Some(mut search) = self.search.take_if(|search| search.deadline() <= now) else { return };
        if search.until <= now {
            self.let_go(room, *search);
            self.attempt_lost(now, room, Way::Search, "no port of ours was found in time");
            return;
        }
        search.next_at = match &mut search.part {
            Part::Opening { target, mapped, flows } => self.open_ports(now, room, *target, *mapped, flows),
            Part::Asking(asking) => self.ask_ports(now, room, asking),
        };
        self.search = Some(search);
    }

    /// Opens some more sockets; when all are open, tells the other end to search.
    fn open_ports(
        &mut self,
        now: Instant,
        room: &mut Room,
        target: SocketAddr,
        mapped: Mapped,
        flows: &mut Vec<ConnId>,
    ) -> Option<Instant> {
        for _ in 0..SOCKETS_AT_ONCE.min(SOCKETS - flows.len()) {
            let conn = room.own_flow(target);
            room.send(Via { conn, handle: None }, &OPENER);
            flows.push(conn);
        }
        if flows.len() < SOCKETS {
            return Some(now + TICK);
        }
        let (address, step) = mapped.prediction();
        self.tell(now, room, &PeerMessage::Search { address, step });
        None
    }

    /// Asks some more ports, until the path is known to lead somewhere.
    fn ask_ports(&mut self, now: Instant, room: &mut Room, asking: &mut Asking) -> Option<Instant> {
        let key = self.path_key()?;
        let is_it = |direct: &&mut Direct| direct.path() == asking.path && matches!(direct.state, State::Proving { .. });
        let direct = self.directs.iter_mut().find(is_it)?;
        if now.since(asking.renewed_at) >= RENEWED {
            asking.request = direct.request_for(room, &key, asking.last, 0);
            asking.renewed_at = now;
        }
        for _ in 0..REQUESTS_AT_ONCE.min(REQUESTS - asking.sent) {
            let remote = SocketAddr::new(asking.last.ip(), guess(room, asking.last.port(), asking.step, asking.sent));
            room.act(Action::Datagram { remote, bytes: asking.request.clone() });
            asking.sent += 1;
        }
        (asking.sent < REQUESTS).then(|| now + TICK)
    }

    /// A path stands, or the session is over: the sockets that no path uses are closed.
    pub(super) fn end_search(&mut self, room: &mut Room) {
        if let Some(search) = self.search.take() {
            self.let_go(room, *search);
        }
    }

    fn let_go(&self, room: &mut Room, search: Search) {
        room.end_search(self.peer);
        if let Part::Opening { flows, .. } = search.part {
            for conn in flows {
                room.hang_up(conn);
            }
        }
    }
}

/// The port to be asked next.
fn guess(room: &mut Room, last: u16, step: u16, sent: u32) -> u16 {
    if step > 0
        && sent < FORESEEN
        && let Ok(turn) = u16::try_from(sent)
    {
        let port = last.wrapping_add(step.wrapping_mul(FIRST_GUESS + turn * GUESS_STRIDE));
        return port.max(LEAST_PORT);
    }
    let spread = u32::from(u16::MAX - LEAST_PORT) + 1;
    let offset = room.entropy.public_u32() % spread;
    LEAST_PORT + u16::try_from(offset).unwrap_or(0)
}

#[cfg(test)]
#[path = "search/tests.rs"]
mod tests;
