//! Finding a direct path: candidates, rounds of dials and of first requests by UDP, when to try again (protocol 6.2, 6.3).
//!
//! In a round all UDP targets are asked at once, on both ends, since that opens holes; dials begin a little later, when no UDP path
//! stands by then, and the session's responder lets the initiator dial first. Where no dial comes through, both dial each other at one
//! time (`punch`).
mod punch;

use super::{Link, direct::Direct};
use crate::{
    drops::Drop,
    event::{Ended, Note, Target, TlsFacts},
    id::ConnId,
    id::PathId,
    node::{Room, Use},
    path::backoff::Backoff,
    session::Side,
    time::{Duration, Instant},
    wire::{Candidate, PeerMessage, Transport},
};
use core::net::SocketAddr;
use punch::Punch;

/// Dials of one round (protocol 6.2).
const DIALS_PER_ROUND: usize = 4;
/// The session's responder lets the initiator dial first, so that one connection is made and not two (protocol 6.2).
const RESPONDER_WAITS: Duration = Duration::from_millis(300);
/// Dials wait so long for a path by UDP, where that is tried.
const UDP_FIRST: Duration = Duration::from_millis(500);
/// A path by UDP that has not come so long after the first request may need a guess; looked at again as often, since relays may not have told
/// yet how our NAT maps.
const SEARCH_AFTER: Duration = Duration::from_millis(150);
/// UDP targets that are asked at once; the others follow so far apart: 20 a second (protocol 8.2).
const KNOCKS_AT_ONCE: u32 = 4;
const KNOCK_SPACING: Duration = Duration::from_millis(50);
/// Wait after the first failure; then doubling (protocol 6.3).
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Rounds that new candidates of a peer may cause are so far apart in the long run, and some come sooner: where a peer is after a change
/// is told in pieces, first its own address and then what relays see (protocol 6.3).
const ROUND_LEAST: Duration = Duration::from_secs(5);
const HASTY_ROUNDS: u32 = 2;

/// Whether a path in doubt makes another one needless is looked at so often.
const DOUBT_WAIT: Duration = Duration::from_millis(100);

/// One try at one address of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A dial, or the path that it became.
    Dial(ConnId),
    /// A path by UDP.
    Flow(PathId),
    /// The search for a port.
    Search,
}

impl Way {
    pub(super) fn of(direct: &Direct) -> Self {
        if direct.is_datagrams() { Self::Flow(direct.path()) } else { Self::Dial(direct.conn()) }
    }

    fn transport(self) -> Transport {
        match self {
            Self::Dial(_) => Transport::Wss,
            Self::Flow(_) | Self::Search => Transport::Udp,
        }
    }
}

struct Round {
    started: Instant,
    until: Instant,
    ways: Vec<(Way, SocketAddr)>,
    /// When dials begin.
    dial_at: Option<Instant>,
    /// When it is looked at whether ports have to be guessed.
    search_at: Option<Instant>,
    /// When a punch begins, if nothing came through by then; and the one that has begun.
    punch_at: Option<Instant>,
    punch: Option<Box<Punch>>,
}

impl Round {
    fn new(now: Instant, until: Instant) -> Self {
        Self { started: now, until, ways: Vec::new(), dial_at: None, search_at: None, punch_at: None, punch: None }
    }
}

/// What is under way to find a direct path.
pub(super) struct Attempt {
    backoff: Backoff,
    at: Option<Instant>,
    round: Option<Round>,
    /// Rounds that the peer's candidates caused are paid for until then, one `ROUND_LEAST` each.
    rests_until: Instant,
    /// A direct path failed or was never found since the last success: the next round is a retry.
    retrying: bool,
    /// When the round began whose path was proven last.
    decided_at: Option<Instant>,
    last_failure: Option<String>,
    /// Where the last punch went, and what became of it.
    punched: Option<(SocketAddr, String)>,
}

impl Attempt {
    pub(super) fn new(retry_interval: Duration) -> Self {
        let backoff = Backoff::new(RETRY_FIRST.min(retry_interval), retry_interval);
        Self {
            backoff,
            at: None,
            round: None,
            rests_until: Instant::ZERO,
            retrying: false,
            decided_at: None,
            last_failure: None,
            punched: None,
        }
    }

    /// Another longest wait, for the one under way too.
    pub(super) fn waits_at_most(&mut self, now: Instant, retry_interval: Duration) {
        self.backoff.set_most(RETRY_FIRST.min(retry_interval), retry_interval);
        self.at = self.at.map(|at| at.min(now + retry_interval));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let dials = self.round.as_ref().and_then(|round| round.dial_at);
        let search = self.round.as_ref().and_then(|round| round.search_at);
        let punch = self.round.as_ref().and_then(Round::punch_deadline);
        [self.at, dials, search, punch, self.round.as_ref().map(|round| round.until)].into_iter().flatten().min()
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.at
    }

    pub(super) fn last_failure(&self) -> Option<&String> {
        self.last_failure.as_ref()
    }

    pub(super) fn decided_at(&self) -> Option<Instant> {
        self.decided_at
    }

    /// Ends the round under way.
    pub(super) fn stop(&mut self, room: &mut Room) {
        self.at = None;
        for (way, _) in self.round.take().map(|round| round.ways).unwrap_or_default() {
            // what a punch came to may be asked on already: then it is a path, and has its own time
            if let Way::Dial(conn) = way
                && !matches!(room.conns.get(&conn), Some(Use::Direct { .. }))
            {
                room.hang_up(conn);
            }
        }
    }
}

impl Link {
    /// Another `retry_interval` and another `health_check_interval`, for what is under way too.
    pub(crate) fn tuned(&mut self, now: Instant, room: &Room) {
        self.attempt.waits_at_most(now, room.config.retry_interval);
        self.steer.waits_at_most(now, room.config.retry_interval);
        for direct in &mut self.directs {
            direct.tuned(room);
        }
    }

    /// Tells the peer where we may be reached.
    pub(crate) fn offer_candidates(&mut self, now: Instant, room: &mut Room) {
        if self.live.is_some() && room.config.direct.any() {
            let message = PeerMessage::Candidates { generation: room.candidates_generation, candidates: room.candidates.clone() };
            self.tell(now, room, &message);
        }
    }

    /// A new session: its peer says anew where it may be reached.
    pub(super) fn forget_candidates(&mut self) {
        self.candidates_generation = None;
        self.candidates.clear();
        self.attempt.rests_until = Instant::ZERO;
    }

    /// The peer tells where it may be reached.
    pub(super) fn take_candidates(&mut self, now: Instant, room: &mut Room, generation: u32, candidates: &[Candidate]) {
        if self.candidates_generation.is_some_and(|known| generation <= known) {
            room.drops.count(Drop::Control);
            return;
        }
        self.candidates_generation = Some(generation);
        let mut sorted = candidates.to_vec();
        sorted.sort_by_key(|candidate| (core::cmp::Reverse(candidate.priority), candidate.address));
        self.candidates = sorted.into_iter().map(|candidate| (candidate, "untried".to_owned())).collect();
        // the first words start at once; later ones at most every few seconds, whatever the peer says
        let wait = self.attempt.rests_until.since(now).saturating_sub(ROUND_LEAST * HASTY_ROUNDS);
        if self.attempt.at.is_none_or(|known| known > now + wait) {
            self.attempt.rests_until = self.attempt.rests_until.max(now) + ROUND_LEAST;
            self.attempt_soon(now + wait);
        }
    }

    /// Something changed: try at once, from the first wait on.
    pub(crate) fn attempt_soon(&mut self, now: Instant) {
        if self.live.is_none() {
            return;
        }
        self.attempt.backoff.reset();
        let at = now + self.courtesy();
        self.attempt.at = Some(self.attempt.at.map_or(at, |known| known.min(at)));
    }

    /// A direct path failed: look for one again after `wait`.
    pub(super) fn attempt_after(&mut self, now: Instant, wait: Duration) {
        self.attempt.retrying = true;
        self.attempt.at = Some(now + wait + self.courtesy());
    }

    /// The last direct path died, perhaps one that carried nothing, and nobody looks for another: do so.
    pub(super) fn attempt_if_none(&mut self, now: Instant) {
        if self.directs.iter().all(Direct::is_detour) && self.live.is_some() && self.attempt.at.is_none() && self.attempt.round.is_none() {
            self.attempt_after(now, RETRY_FIRST);
        }
    }

    /// The session's responder lets the initiator dial first: both find out at the same moment that a path died.
    /// By UDP both ask at once.
    fn courtesy(&self) -> Duration {
        let by_udp = self.candidates.iter().any(|(candidate, _)| candidate.transport == Transport::Udp);
        if by_udp { Duration::ZERO } else { self.courtesy_of_dials() }
    }

    fn courtesy_of_dials(&self) -> Duration {
        if self.live.as_ref().is_some_and(|live| live.side() == Side::Responder) { RESPONDER_WAITS } else { Duration::ZERO }
    }

    pub(super) fn attempt_alarm(&mut self, now: Instant, room: &mut Room) {
        if self.attempt.round.as_ref().is_some_and(|round| round.until <= now) {
            self.attempt_failed(now, room, "no candidate answered in time".into());
        }
        if self.attempt.round.as_ref().and_then(|round| round.dial_at).is_some_and(|at| at <= now) {
            self.dial_candidates(now, room);
        }
        self.search_if_due(now, room);
        self.punch_alarm(now, room);
        if self.attempt.at.is_none_or(|at| at > now) {
            return;
        }
        self.attempt.at = None;
        if self.directs.iter().any(|direct| direct.is_proving() && !direct.is_datagrams()) {
            // the other end proves one just now: look again when that has worked or failed
            self.attempt.at = Some(now + RETRY_FIRST);
            return;
        }
        if self.live.is_none() || self.candidates.is_empty() {
            return;
        }
        if !self.wants_path(room) {
            // the path that makes another one needless may be dying just now
            let in_doubt = self.directs.iter().any(|direct| direct.is_datagrams() && direct.is_straight() && direct.is_in_doubt());
            self.attempt.at = in_doubt.then_some(now + DOUBT_WAIT);
            return;
        }
        if self.attempt.round.is_some() {
            self.widen_round(now, room);
        } else {
            self.start_round(now, room);
        }
    }

    /// Whether a direct path is missing, or one of a better kind may be had.
    fn wants_path(&self, room: &Room) -> bool {
        if self.directs.iter().any(|direct| direct.is_datagrams() && direct.is_straight() && !direct.is_suspect()) {
            return false;
        }
        (room.config.direct.wss && self.directs.iter().all(Direct::is_detour)) || self.may_knock(room)
    }

    /// Whether both ends have UDP.
    fn may_knock(&self, room: &Room) -> bool {
        let ours = |candidate: &Candidate| candidate.transport == Transport::Udp && room.udp_port_for(candidate.address.ip()).is_some();
        room.config.direct.udp && self.candidates.iter().any(|(candidate, _)| ours(candidate))
    }

    fn start_round(&mut self, now: Instant, room: &mut Room) {
        let timeout = room.config.connect_timeout;
        if self.attempt.retrying {
            self.retries += 1;
        }
        let knocks = if self.may_knock(room) { self.knock_at_candidates(now, room) } else { Vec::new() };
        let dial_at = match (knocks.is_empty(), room.config.direct.wss && self.directs.iter().all(Direct::is_datagrams)) {
            (_, false) => None,
            (true, true) => Some(now),
            (false, true) => Some(now + UDP_FIRST + self.courtesy_of_dials()),
        };
        let search_at = (!knocks.is_empty()).then(|| now + SEARCH_AFTER);
        self.attempt.round = Some(Round { ways: knocks, dial_at, search_at, ..Round::new(now, now + timeout) });
        if dial_at == Some(now) {
            self.dial_candidates(now, room);
        } else if dial_at.is_none() && self.attempt.round.as_ref().is_some_and(|round| round.ways.is_empty()) {
            self.attempt_failed(now, room, "none of its candidates may be tried from here".into());
        }
    }

    /// Candidates changed amid a round: those that are not asked yet are asked now, and become part of it.
    fn widen_round(&mut self, now: Instant, room: &mut Room) {
        let knocks = if self.may_knock(room) { self.knock_at_candidates(now, room) } else { Vec::new() };
        let dials = room.config.direct.wss && self.directs.iter().all(Direct::is_datagrams);
        let dial_at = now + UDP_FIRST + self.courtesy_of_dials();
        let Some(round) = &mut self.attempt.round else { return };
        for known in knocks {
            if !round.ways.contains(&known) {
                round.ways.push(known);
            }
        }
        round.until = now + room.config.connect_timeout;
        round.dial_at = round.dial_at.or(dials.then_some(dial_at));
        round.search_at = round.search_at.or((!round.ways.is_empty()).then(|| now + SEARCH_AFTER));
    }

    /// First requests by UDP to all of the peer's candidates that may be tried.
    fn knock_at_candidates(&mut self, now: Instant, room: &mut Room) -> Vec<(Way, SocketAddr)> {
        let theirs = self.seen_by_relay();
        let mut candidates = core::mem::take(&mut self.candidates);
        let mut ways = Vec::new();
        for (candidate, result) in candidates.iter_mut().filter(|(candidate, _)| candidate.transport == Transport::Udp) {
            let address = candidate.address;
            if let Some(known) = self.directs.iter().find(|direct| direct.is_datagrams() && direct.remote() == address) {
                // the other end asked first
                ways.push((Way::of(known), address));
                continue;
            }
            let refused = match room.permits(candidate, theirs) {
                Err(why) => Some(why),
                Ok(()) if room.udp_port_for(address.ip()).is_none() => Some("not tried: no UDP socket of this address family here"),
                Ok(()) if !room.may_probe(now, address.ip()) => Some("not tried: this address was asked often in the last minute"),
                Ok(()) => None,
            };
            if let Some(why) = refused {
                room.drops.count(Drop::Candidate);
                why.clone_into(result);
                continue;
            }
            let behind = u32::try_from(ways.len()).unwrap_or(u32::MAX).saturating_sub(KNOCKS_AT_ONCE - 1);
            if let Some(path) = self.begin_flow(now, room, address, now + KNOCK_SPACING * behind) {
                ways.push((Way::Flow(path), address));
                "trying".clone_into(result);
            }
        }
        self.candidates = candidates;
        ways
    }

    /// Dials the peer's candidates that may be tried, if no direct path stands.
    fn dial_candidates(&mut self, now: Instant, room: &mut Room) {
        let theirs = self.seen_by_relay();
        let Some(round) = &mut self.attempt.round else { return };
        round.dial_at = None;
        let timeout = round.until.since(now);
        if self.directs.iter().any(Direct::is_straight) {
            return;
        }
        let mut dials = 0;
        for (candidate, result) in self.candidates.iter_mut().filter(|(candidate, _)| candidate.transport == Transport::Wss) {
            if let Err(why) = room.permits(candidate, theirs) {
                room.drops.count(Drop::Candidate);
                why.clone_into(result);
                continue;
            }
            if dials >= DIALS_PER_ROUND {
                break;
            }
            if round.ways.iter().any(|(way, address)| matches!(way, Way::Dial(_)) && *address == candidate.address) {
                continue;
            }
            if !room.may_dial(now, candidate.address.ip()) {
                room.drops.count(Drop::Candidate);
                "not tried: this address was dialled often in the last minute".clone_into(result);
                continue;
            }
            let target = Target::Direct { address: candidate.address, pin: self.peer };
            let conn = room.dial(target, timeout, Use::Dialled { peer: self.peer });
            round.ways.push((Way::Dial(conn), candidate.address));
            dials += 1;
            "trying".clone_into(result);
        }
        self.plan_punch(now, room);
        self.fail_if_empty(now, room, "none of its candidates may be tried from here");
    }

    /// Nothing of this round is on its way or to come.
    fn fail_if_empty(&mut self, now: Instant, room: &mut Room, why: &str) {
        if self.attempt.round.as_ref().is_some_and(|round| round.ways.is_empty() && round.dial_at.is_none() && !round.has_punch_ahead()) {
            self.attempt_failed(now, room, why.into());
        }
    }

    /// Begins to search a port of ours, where that may help.
    fn search_if_due(&mut self, now: Instant, room: &mut Room) {
        let Some(round) = self.attempt.round.as_mut().filter(|round| round.search_at.is_some_and(|at| at <= now)) else { return };
        round.search_at = Some(now + SEARCH_AFTER);
        if let Some(target) = self.begin_search(now, room)
            && let Some(round) = &mut self.attempt.round
        {
            round.search_at = None;
            round.ways.push((Way::Search, target));
        }
    }

    /// One more way of the round under way, if there is one.
    pub(super) fn attempt_joined(&mut self, way: Way, address: SocketAddr) {
        if let Some(round) = &mut self.attempt.round {
            round.ways.push((way, address));
        }
    }

    /// One of our dials is through.
    pub(crate) fn opened(&mut self, now: Instant, room: &mut Room, conn: ConnId, tls: &TlsFacts, remote: SocketAddr) {
        let until = match &self.attempt.round {
            Some(round) if round.ways.iter().any(|(way, _)| *way == Way::Dial(conn)) => round.until,
            _ => {
                room.hang_up(conn);
                return;
            }
        };
        self.attempt.decided_at = self.attempt.round.as_ref().map(|round| round.started);
        if self.serves_punch(now, room, conn, tls, remote) {
            return;
        }
        if !self.begin_path(now, room, conn, tls, remote, until) {
            room.hang_up(conn);
            self.attempt_lost(now, room, Way::Dial(conn), "too many paths");
        }
    }

    /// One of our dials failed.
    pub(crate) fn dial_failed(&mut self, now: Instant, room: &mut Room, conn: ConnId, why: &Ended) {
        if let Ended::WrongIdentity { .. } = why {
            room.drops.count(Drop::Identity);
            room.refuse(Some(self.peer), format!("a direct connection was refused: {why}"));
        }
        if !self.punches_again(now, room, conn, why) {
            self.attempt_lost(now, room, Way::Dial(conn), &why.to_string());
        }
    }

    /// One way of this round is out; when all are, the round has failed.
    pub(super) fn attempt_lost(&mut self, now: Instant, room: &mut Room, way: Way, why: &str) {
        let Some(round) = &mut self.attempt.round else { return };
        let Some(index) = round.ways.iter().position(|(known, _)| *known == way) else { return };
        let (_, address) = round.ways.swap_remove(index);
        let all_out = round.ways.is_empty();
        self.say_of(way, address, why);
        if !all_out {
            return;
        }
        match &self.attempt.round {
            Some(round) if round.dial_at.is_some() => self.dial_candidates(now, room),
            Some(round) if round.punch_at.is_some() => self.begin_punch(now, room),
            Some(round) if round.has_punch_ahead() => {}
            _ => self.attempt_failed(now, room, format!("{address}: {why}")),
        }
    }

    /// What became of a candidate, for people.
    fn say_of(&mut self, way: Way, address: SocketAddr, what: &str) {
        if let Some((_, result)) = self.attempt.punched.as_mut().filter(|(to, _)| *to == address && matches!(way, Way::Dial(_))) {
            what.clone_into(result);
        }
        let mut named = self.candidates.iter_mut().filter(|(candidate, _)| candidate.transport == way.transport());
        if let Some((_, result)) = named.find(|(candidate, _)| candidate.address == address) {
            what.clone_into(result);
        }
    }

    /// The other end's path takes the place of one of ours.
    pub(super) fn attempt_follows(&mut self, ours: Way, theirs: PathId) {
        if let Some(round) = &mut self.attempt.round {
            for (way, _) in round.ways.iter_mut().filter(|(way, _)| *way == ours) {
                *way = Way::Flow(theirs);
            }
        }
    }

    fn attempt_failed(&mut self, now: Instant, room: &mut Room, why: String) {
        self.attempt.stop(room);
        let results = self.candidates.iter_mut().map(|(_, result)| result);
        for result in results.chain(self.attempt.punched.as_mut().map(|(_, result)| result)).filter(|result| *result == "trying") {
            "no answer in time".clone_into(result);
        }
        let wait = self.attempt.backoff.fail(&mut room.entropy);
        if self.directs.iter().any(Direct::is_straight) {
            // it goes direct, and only a better kind of path was looked for
            self.attempt.at = Some(now + wait);
            return;
        }
        room.totals.migrations_failed += 1;
        if self.attempt.retrying {
            room.totals.retries_failed += 1;
            room.note(Note::Retry { peer: self.peer, success: false });
        }
        room.note(Note::MigrationFailed { peer: self.peer, why: why.clone() });
        self.attempt.last_failure = Some(why);
        self.attempt_after(now, wait);
    }

    /// A direct path was proven: the other dials of the round are not needed, nor is a worse kind of path.
    pub(super) fn attempt_succeeded(&mut self, now: Instant, room: &mut Room, path: PathId) {
        let Some(direct) = self.directs.iter().find(|direct| direct.path() == path) else { return };
        let (way, by_udp) = (Way::of(direct), direct.is_datagrams());
        if by_udp {
            self.end_search(room);
        }
        self.is_reached(room);
        if let Some(mut round) = self.attempt.round.take() {
            self.attempt.decided_at = Some(round.started);
            let goes_on = |known: Way| matches!(known, Way::Flow(_) | Way::Search) && known != way;
            let (rest, over): (Vec<_>, Vec<_>) = round.ways.drain(..).partition(|(known, _)| goes_on(*known));
            for (known, address) in over {
                self.say_of(known, address, if known == way { "proven" } else { "not needed" });
                if let Way::Dial(conn) = known
                    && known != way
                {
                    self.directs.retain(|direct| direct.conn() != conn);
                    room.hang_up(conn);
                }
            }
            if !by_udp && !rest.is_empty() {
                // UDP, the better kind, may still come
                self.attempt.round = Some(Round { ways: rest, dial_at: None, punch_at: None, punch: None, ..round });
            } else {
                for (known, address) in rest {
                    self.say_of(known, address, "not needed");
                }
            }
        }
        if core::mem::take(&mut self.attempt.retrying) {
            room.totals.retries_ok += 1;
            room.note(Note::Retry { peer: self.peer, success: true });
        }
        self.attempt.last_failure = None;
        self.attempt.backoff.reset();
        // a better kind of path is looked for from time to time
        let again = !by_udp && self.attempt.round.is_none() && self.wants_path(room);
        self.attempt.at = again.then(|| now + self.attempt.backoff.fail(&mut room.entropy));
    }
}
