//! Finding a direct path: candidates, rounds of dials, when to try again (protocol 6.2, 6.3).
use super::{Link, direct::Direct};
use crate::{
    drops::Drop,
    event::{Ended, Note, Target, TlsFacts},
    id::ConnId,
    node::{Room, Use},
    path::{backoff::Backoff, candidate::permitted},
    session::Side,
    time::{Duration, Instant},
    wire::{Candidate, PeerMessage, Transport},
};
use core::net::SocketAddr;

/// Dials of one round (protocol 6.2).
const DIALS_PER_ROUND: usize = 4;
/// The session's responder lets the initiator dial first, so that one connection is made and not two (protocol 6.2).
const RESPONDER_WAITS: Duration = Duration::from_millis(300);
/// Wait after the first failure; then doubling (protocol 6.3).
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Rounds that new candidates of a peer may cause are at least so far apart (protocol 6.3).
const ROUND_LEAST: Duration = Duration::from_secs(5);

struct Round {
    started: Instant,
    until: Instant,
    dials: Vec<(ConnId, SocketAddr)>,
}

/// What is under way to find a direct path.
pub(super) struct Attempt {
    backoff: Backoff,
    at: Option<Instant>,
    round: Option<Round>,
    round_began_at: Option<Instant>,
    /// A direct path failed or was never found since the last success: the next round is a retry.
    retrying: bool,
    /// When the round began whose path was proven last.
    decided_at: Option<Instant>,
    last_failure: Option<String>,
}

impl Attempt {
    pub(super) fn new(retry_interval: Duration) -> Self {
        let backoff = Backoff::new(RETRY_FIRST.min(retry_interval), retry_interval);
        Self { backoff, at: None, round: None, round_began_at: None, retrying: false, decided_at: None, last_failure: None }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.at, self.round.as_ref().map(|round| round.until)].into_iter().flatten().min()
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
        for (conn, _) in self.round.take().map(|round| round.dials).unwrap_or_default() {
            room.hang_up(conn);
        }
    }
}

impl Link {
    /// Tells the peer where we may be reached.
    pub(crate) fn offer_candidates(&mut self, now: Instant, room: &mut Room) {
        if self.live.is_some() && room.config.direct {
            let message = PeerMessage::Candidates { generation: room.candidates_generation, candidates: room.candidates.clone() };
            self.tell(now, room, &message);
        }
    }

    /// A new session: its peer says anew where it may be reached.
    pub(super) fn forget_candidates(&mut self) {
        self.candidates_generation = None;
        self.candidates.clear();
        self.attempt.round_began_at = None;
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
        let first = self.candidates.is_empty();
        self.candidates = sorted.into_iter().map(|candidate| (candidate, "untried".to_owned())).collect();
        // the first word starts at once; later ones at most every few seconds, whatever the peer says
        let rested = self.attempt.round_began_at.is_none_or(|at| now.since(at) >= ROUND_LEAST);
        if first || rested {
            self.attempt_soon(now);
        } else {
            let at = now + ROUND_LEAST;
            self.attempt.at = Some(self.attempt.at.map_or(at, |known| known.min(at)));
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
        if self.directs.is_empty() && self.live.is_some() && self.attempt.at.is_none() && self.attempt.round.is_none() {
            self.attempt_after(now, RETRY_FIRST);
        }
    }

    /// The session's responder lets the initiator dial first: both find out at the same moment that a path died.
    fn courtesy(&self) -> Duration {
        if self.live.as_ref().is_some_and(|live| live.side() == Side::Responder) { RESPONDER_WAITS } else { Duration::ZERO }
    }

    pub(super) fn attempt_alarm(&mut self, now: Instant, room: &mut Room) {
        if self.attempt.round.as_ref().is_some_and(|round| round.until <= now) {
            self.attempt_failed(now, room, "no candidate answered in time".into());
        }
        if self.attempt.at.is_none_or(|at| at > now) {
            return;
        }
        self.attempt.at = None;
        if self.directs.iter().any(Direct::is_proving) {
            // the other end proves one just now: look again when that has worked or failed
            self.attempt.at = Some(now + RETRY_FIRST);
            return;
        }
        let has_path = !self.directs.is_empty();
        if self.live.is_some() && room.config.direct && !has_path && self.attempt.round.is_none() && !self.candidates.is_empty() {
            self.start_round(now, room);
        }
    }

    fn start_round(&mut self, now: Instant, room: &mut Room) {
        self.attempt.round_began_at = Some(now);
        let theirs = self.seen_by_relay();
        let timeout = room.config.connect_timeout;
        let mut dials = Vec::new();
        if self.attempt.retrying {
            self.retries += 1;
        }
        for (candidate, result) in &mut self.candidates {
            if candidate.transport != Transport::Wss {
                "not tried: this version has no direct path over UDP".clone_into(result);
                continue;
            }
            if let Err(why) = permitted(&room.around, candidate.address, theirs) {
                room.drops.count(Drop::Candidate);
                why.clone_into(result);
                continue;
            }
            if dials.len() >= DIALS_PER_ROUND {
                break;
            }
            if !room.may_dial(now, candidate.address.ip()) {
                room.drops.count(Drop::Candidate);
                "not tried: this address was dialled often in the last minute".clone_into(result);
                continue;
            }
            let target = Target::Direct { address: candidate.address, pin: self.peer };
            let conn = room.dial(target, timeout, Use::Dialled { peer: self.peer });
            dials.push((conn, candidate.address));
            "trying".clone_into(result);
        }
        let nothing = dials.is_empty();
        self.attempt.round = Some(Round { started: now, until: now + timeout, dials });
        if nothing {
            self.attempt_failed(now, room, "none of its candidates may be tried from here".into());
        }
    }

    /// One of our dials is through.
    pub(crate) fn opened(&mut self, now: Instant, room: &mut Room, conn: ConnId, tls: &TlsFacts, remote: SocketAddr) {
        let until = match &self.attempt.round {
            Some(round) if round.dials.iter().any(|(dial, _)| *dial == conn) => round.until,
            _ => {
                room.hang_up(conn);
                return;
            }
        };
        self.attempt.decided_at = self.attempt.round.as_ref().map(|round| round.started);
        if !self.begin_path(now, room, conn, tls, remote, until) {
            room.hang_up(conn);
            self.attempt_lost(now, room, conn, "too many paths");
        }
    }

    /// One of our dials failed.
    pub(crate) fn dial_failed(&mut self, now: Instant, room: &mut Room, conn: ConnId, why: &Ended) {
        if let Ended::WrongIdentity { .. } = why {
            room.drops.count(Drop::Identity);
            room.refuse(Some(self.peer), format!("a direct connection was refused: {why}"));
        }
        self.attempt_lost(now, room, conn, &why.to_string());
    }

    /// One way of this round is out; when all are, the round has failed.
    pub(super) fn attempt_lost(&mut self, now: Instant, room: &mut Room, conn: ConnId, why: &str) {
        let Some(round) = &mut self.attempt.round else { return };
        let Some(index) = round.dials.iter().position(|(dial, _)| *dial == conn) else { return };
        let (_, address) = round.dials.swap_remove(index);
        let all_out = round.dials.is_empty();
        if let Some((_, result)) = self.candidates.iter_mut().find(|(candidate, _)| candidate.address == address) {
            why.clone_into(result);
        }
        if all_out {
            self.attempt_failed(now, room, format!("{address}: {why}"));
        }
    }

    fn attempt_failed(&mut self, now: Instant, room: &mut Room, why: String) {
        self.attempt.stop(room);
        for (_, result) in self.candidates.iter_mut().filter(|(_, result)| result == "trying") {
            "no answer in time".clone_into(result);
        }
        room.totals.migrations_failed += 1;
        if self.attempt.retrying {
            room.totals.retries_failed += 1;
            room.note(Note::Retry { peer: self.peer, success: false });
        }
        room.note(Note::MigrationFailed { peer: self.peer, why: why.clone() });
        self.attempt.last_failure = Some(why);
        let wait = self.attempt.backoff.fail(&mut room.entropy);
        self.attempt_after(now, wait);
    }

    /// A direct path was proven: the other dials of the round are not needed.
    pub(super) fn attempt_succeeded(&mut self, room: &mut Room) {
        let proven: Vec<ConnId> = self.directs.iter().filter(|direct| direct.is_usable()).map(Direct::conn).collect();
        if let Some(round) = self.attempt.round.take() {
            for (conn, address) in round.dials {
                let is_proven = proven.contains(&conn);
                if let Some((_, result)) = self.candidates.iter_mut().find(|(candidate, _)| candidate.address == address) {
                    if is_proven { "proven" } else { "not needed" }.clone_into(result);
                }
                if !is_proven {
                    if let Some(index) = self.directs.iter().position(|direct| direct.conn() == conn) {
                        self.directs.remove(index);
                    }
                    room.hang_up(conn);
                }
            }
        }
        if core::mem::take(&mut self.attempt.retrying) {
            room.totals.retries_ok += 1;
            room.note(Note::Retry { peer: self.peer, success: true });
        }
        self.attempt.at = None;
        self.attempt.last_failure = None;
        self.attempt.backoff.reset();
    }
}
