//! TCP simultaneous open: a direct connection where neither end's listener can be reached (protocol 6.10).
//!
//! ```text
//!   dials found nothing ─▶ Told: PUNCH says from where we dial ──PUNCH of the other end──▶ Dialling ──opened──▶ TLS, clause 5
//!   PUNCH of the other end, unasked ─▶ PUNCH says from where we dial ─▶ Again ──when it is there──▲ │ refused
//!                                                                         └───── a moment later, five times ◀┘
//! ```
//! Each end dials from the port of its connection with a relay, to the address at which a relay sees the other's: a NAT that maps
//! alike for all destinations lets in who was dialled. Who is ahead may be refused, as the other's NAT is shut until it dials.
use super::{Direct, Link, Room, Round, Side, Way};
use crate::{
    drops::Drop,
    event::{Ended, Target, TlsFacts, TlsRole},
    id::ConnId,
    node::Use,
    path::candidate::{TcpEnds, permitted},
    status::CandidateStatus,
    time::{Duration, Instant},
    wire::PeerMessage,
};
use core::net::SocketAddr;

/// Dials to listeners have so long before: where one of them comes through, no more connections are made.
const PUNCH_AFTER: Duration = Duration::from_millis(200);
/// The other end's word comes over the relay in so long, or it knows nothing of this.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
const UNANSWERED: &str = "the other end does not dial at the same time: it knows nothing of that, or may not now";
/// Tries of one punch, and the wait after the first that was refused; then doubling. Both ends keep step: two whose NATs refuse aloud meet
/// only while both dials are on their way. Should they be out of step, the last tries have a jitter as long as the wait.
const TRIES: u32 = 5;
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const IN_STEP: u32 = 3;
/// What was opened from both ends must be proven by the session's initiator within so long, as what a listener takes.
const PROVEN_WITHIN: Duration = Duration::from_secs(5);

/// One punch of a round.
pub(super) struct Punch {
    ours: TcpEnds,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The other end knows from where we dial; where it dials from must be told by then.
    Told { until: Instant },
    /// On its way.
    Dialling { conn: ConnId, to: SocketAddr, tries: u32 },
    /// It was refused, or the other end does not dial yet.
    Again { at: Instant, to: SocketAddr, tries: u32 },
    /// It came to something or to nothing.
    Over,
}

impl Punch {
    fn deadline(&self) -> Option<Instant> {
        match self.step {
            Step::Told { until } => Some(until),
            Step::Again { at, .. } => Some(at),
            Step::Dialling { .. } | Step::Over => None,
        }
    }

    fn conn(&self) -> Option<ConnId> {
        match self.step {
            Step::Dialling { conn, .. } => Some(conn),
            Step::Told { .. } | Step::Again { .. } | Step::Over => None,
        }
    }
}

impl Round {
    pub(super) fn punch_deadline(&self) -> Option<Instant> {
        [self.punch_at, self.punch.as_deref().and_then(Punch::deadline)].into_iter().flatten().min()
    }

    /// Whether a punch may still come of it, though nothing is on its way.
    pub(super) fn has_punch_ahead(&self) -> bool {
        self.punch_deadline().is_some()
    }

    pub(super) fn is_punch(&self, way: Way) -> bool {
        self.punch.as_deref().and_then(Punch::conn).is_some_and(|conn| way == Way::Dial(conn))
    }
}

impl Link {
    /// Dials have begun: a punch follows, where this end could make one.
    pub(super) fn plan_punch(&mut self, now: Instant, room: &Room) {
        let is_wanted = self.ends_for_punch(room, None).is_some();
        if let Some(round) = self.attempt.round.as_mut().filter(|round| is_wanted && round.punch.is_none()) {
            round.punch_at = Some(now + PUNCH_AFTER);
        }
    }

    /// The connection with a relay whose port a punch goes from: of the other end's family, where that is known.
    fn ends_for_punch(&self, room: &Room, theirs: Option<SocketAddr>) -> Option<TcpEnds> {
        let is_free = self.live.is_some() && room.config.direct.wss && self.directs.iter().all(Direct::is_datagrams);
        let known = theirs.map(|theirs| theirs.is_ipv4()).or_else(|| self.seen_by_relay().map(|ip| ip.is_ipv4()));
        let mut ends = room.around.tcp_ends.iter().filter(|_| is_free);
        ends.find(|ends| known.is_none_or(|is_ipv4| ends.observed.is_ipv4() == is_ipv4)).copied()
    }

    /// What is due of a punch.
    pub(super) fn punch_alarm(&mut self, now: Instant, room: &mut Room) {
        let Some(round) = &mut self.attempt.round else { return };
        if round.punch_at.is_some_and(|at| at <= now) {
            self.begin_punch(now, room);
            return;
        }
        match round.punch.as_ref().map(|punch| punch.step) {
            Some(Step::Told { until }) if until <= now => self.punch_is_over(now, room, UNANSWERED),
            Some(Step::Again { at, to, tries }) if at <= now => self.dial_punch(now, room, to, tries),
            _ => {}
        }
    }

    /// Tells the other end from where this one dials; its answer says where to.
    pub(super) fn begin_punch(&mut self, now: Instant, room: &mut Room) {
        let ours = self.ends_for_punch(room, None).filter(|_| !self.directs.iter().any(Direct::is_straight));
        let Some(round) = &mut self.attempt.round else { return };
        round.punch_at = None;
        match ours {
            Some(ours) => {
                round.punch = Some(Box::new(Punch { ours, step: Step::Told { until: now + ANSWERED_WITHIN } }));
                self.tell(now, room, &PeerMessage::Punch { address: ours.observed });
            }
            None => self.fail_if_empty(now, room, "no way to it is left"),
        }
    }

    /// PUNCH: the other end dials from this address, now or as soon as it knows from where we do.
    pub(in crate::link) fn take_punch(&mut self, now: Instant, room: &mut Room, theirs: SocketAddr) {
        let asked = self.attempt.round.as_ref().and_then(|round| round.punch.as_ref()).map(|punch| (punch.step, punch.ours));
        match asked {
            Some((Step::Dialling { to, .. } | Step::Again { to, .. }, _)) if to == theirs => return,
            _ if self.directs.iter().any(Direct::is_straight) => return,
            _ => {}
        }
        let answers = matches!(asked, Some((Step::Told { .. }, ours)) if ours.observed.is_ipv4() == theirs.is_ipv4());
        let ours = if answers { asked.map(|(_, ours)| ours) } else { self.ends_for_punch(room, Some(theirs)) };
        let Some(ours) = ours else {
            room.drops.count(Drop::Candidate);
            return;
        };
        if let Err(why) = self.may_punch(now, room, theirs) {
            room.drops.count(Drop::Candidate);
            self.attempt.punched = Some((theirs, why.to_owned()));
            return;
        }
        // so long is our answer on its way, and then the other end dials
        let way = self.rtt_over_relay().filter(|_| !answers).map_or(Duration::ZERO, |rtt| rtt / 2);
        let until = now + room.config.connect_timeout;
        // a round that the other end's word began is like each other: else a listener that could be reached would never be dialled
        let dial_at = (!self.candidates.is_empty()).then_some(now + self.courtesy_of_dials());
        let round = self.attempt.round.get_or_insert_with(|| Round { dial_at, ..Round::new(now, until) });
        let punch = Punch { ours, step: Step::Again { at: now + way, to: theirs, tries: 0 } };
        let before = round.punch.replace(Box::new(punch)).and_then(|punch| punch.conn());
        round.punch_at = None;
        if let Some(conn) = before {
            // it has another connection with its relay by now
            round.ways.retain(|(way, _)| *way != Way::Dial(conn));
            room.hang_up(conn);
        }
        if !answers {
            self.tell(now, room, &PeerMessage::Punch { address: ours.observed });
        }
        self.punch_alarm(now, room);
    }

    /// All that 6.3 forbids is forbidden; one punch counts as one dial.
    fn may_punch(&self, now: Instant, room: &mut Room, theirs: SocketAddr) -> Result<(), &'static str> {
        if room.around.tcp_ends.iter().any(|ends| ends.local == theirs || ends.observed == theirs) {
            return Err("not tried: here this address and port are our own");
        }
        permitted(&room.around, theirs, self.seen_by_relay())?;
        if room.may_dial(now, theirs.ip()) { Ok(()) } else { Err("not tried: this address was dialled often in the last minute") }
    }

    fn dial_punch(&mut self, now: Instant, room: &mut Room, to: SocketAddr, tries: u32) {
        // both dial, so the session says who is who in TLS
        let role = match self.live.as_ref().map(super::super::Live::side) {
            Some(Side::Initiator) => TlsRole::Client,
            Some(Side::Responder) => TlsRole::Server,
            None => return,
        };
        let Some(round) = &mut self.attempt.round else { return };
        let Some(punch) = &mut round.punch else { return };
        let target = Target::Punch { address: to, from: punch.ours.local, pin: self.peer, role };
        let conn = room.dial(target, round.until.since(now), Use::Dialled { peer: self.peer });
        punch.step = Step::Dialling { conn, to, tries: tries + 1 };
        round.ways.push((Way::Dial(conn), to));
        self.attempt.punched = Some((to, "trying".to_owned()));
    }

    /// A dial failed. True: it was a punch that was refused, and is made again.
    pub(super) fn punches_again(&mut self, now: Instant, room: &mut Room, conn: ConnId, why: &Ended) -> bool {
        let Some(round) = &mut self.attempt.round else { return false };
        let Some(punch) = &mut round.punch else { return false };
        match punch.step {
            Step::Dialling { conn: known, to, tries } if known == conn && tries < TRIES && matches!(why, Ended::Refused | Ended::Reset) => {
                let wait = AGAIN_FIRST * (1 << (tries - 1));
                let jitter = if tries < IN_STEP { Duration::ZERO } else { room.entropy.jitter(wait) };
                punch.step = Step::Again { at: now + wait + jitter, to, tries };
                round.ways.retain(|(way, _)| *way != Way::Dial(conn));
                true
            }
            _ => false,
        }
    }

    /// A punch came through, and this end is the server: what it is must be proven like what a listener took. False: it is another dial.
    pub(super) fn serves_punch(&mut self, now: Instant, room: &mut Room, conn: ConnId, tls: &TlsFacts, remote: SocketAddr) -> bool {
        let is_punch = self.attempt.round.as_ref().is_some_and(|round| round.is_punch(Way::Dial(conn)));
        let serves = is_punch && self.live.as_ref().is_some_and(|live| live.side() == Side::Responder);
        if serves {
            room.conns.insert(conn, Use::Accepted { exporter: tls.exporter, remote, until: now + PROVEN_WITHIN });
        }
        serves
    }

    fn punch_is_over(&mut self, now: Instant, room: &mut Room, why: &'static str) {
        let Some(punch) = self.attempt.round.as_mut().and_then(|round| round.punch.as_mut()) else { return };
        punch.step = Step::Over;
        self.fail_if_empty(now, room, why);
    }

    /// What became of the last punch, for people.
    pub(in crate::link) fn punch_status(&self) -> Option<CandidateStatus> {
        let (address, result) = self.attempt.punched.clone()?;
        Some(CandidateStatus { address, transport: "wss", kind: "simultaneous open", result })
    }
}

#[cfg(test)]
mod tests;
