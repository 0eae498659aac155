//! Handshakes that others start with us, over a relay or by UDP: half-open until FIN proves who it is (protocol 3.9).
use super::room::{Owner, Room};
use crate::{
    bound::Bound,
    drops::Drop,
    edges::{Chart, States, edges, turn},
    event::Action,
    fragments::{FragmentKey, Parcel},
    handshake::{Answer, HandshakeError, Outcome, Ticket, Verified, Work, peek_fin},
    id::{Handle, PeerId},
    plane::Via,
    time::{Duration, Instant},
    wire::FragmentKind,
};
use core::net::SocketAddr;
use std::{collections::VecDeque, sync::Arc};

/// Half-open handshakes in all, and from one sender (protocol 3.9).
const HALF_OPEN_MAX: usize = 256;
const HALF_OPEN_PER_SOURCE: usize = 4;
/// INITs of senders whom the relay has not told of yet, and how long they wait: a relay tells changes every 100 ms (protocol 6.6).
const EARLY_MAX: usize = 16;
const EARLY_TIME: Duration = Duration::from_secs(1);
/// A half-open handshake of this age gives way to a newer one of the same sender.
const REPLACE_AFTER: Duration = Duration::from_secs(2);
/// Life of a half-open handshake.
const HALF_OPEN_TIME: Duration = Duration::from_secs(10);

enum Step {
    Answering(Ticket),
    Answered(Arc<Answer>),
    Verifying(Ticket, Arc<Answer>),
}

edges!(Step, "A handshake that another peer began", [Answering, Answered, Verifying],
    Answering => Answered: "the job is done: RESP goes out",
    Answered => Verifying: "FIN: job to verify it",
    Verifying => Answered: "FIN was not good: the right one may still come",
);

pub(super) const CHART: Chart = Step::CHART;

/// Where a handshake comes from.
#[derive(Clone)]
pub(crate) enum Caller {
    /// A member's place at a relay.
    Relay(Via),
    /// An address that has shown its cookie, and what answers to it are tagged with.
    Udp(SocketAddr, FragmentKey),
}

impl Caller {
    /// Whether both may be the same sender's.
    fn is_near(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Relay(via), Self::Relay(other)) => via == other,
            (Self::Udp(remote, _), Self::Udp(other, _)) => remote.ip() == other.ip(),
            (Self::Relay(_), Self::Udp(..)) | (Self::Udp(..), Self::Relay(_)) => false,
        }
    }

    /// Its address by UDP.
    fn remote(&self) -> Option<SocketAddr> {
        match self {
            Self::Relay(_) => None,
            Self::Udp(remote, _) => Some(*remote),
        }
    }
}

struct HalfOpen {
    id: u64,
    caller: Caller,
    /// Who the relay says it is; FIN must prove the same. By UDP nobody says so.
    claimed: Option<PeerId>,
    /// RESP on its way by UDP.
    parcel: Option<Parcel>,
    init: Vec<u8>,
    sid: u32,
    started: Instant,
    step: Step,
}

impl HalfOpen {
    /// RESP is made: it goes where INIT came from.
    fn respond(&mut self, now: Instant, room: &mut Room, answer: &Answer) {
        match &self.caller {
            Caller::Relay(via) => room.send(*via, answer.resp()),
            Caller::Udp(_, key) => {
                self.parcel = Some(Parcel::new(now, key.cut(FragmentKind::Resp, answer.peer_sid(), answer.resp())));
                self.post(now, room);
            }
        }
    }

    /// Sends what is due by UDP.
    fn post(&mut self, now: Instant, room: &mut Room) {
        let Some(remote) = self.caller.remote() else { return };
        for bytes in self.parcel.iter_mut().flat_map(|parcel| parcel.due(now)) {
            room.act(Action::Datagram { remote, bytes: bytes.clone() });
        }
    }

    fn deadline(&self) -> Instant {
        let parcel = self.parcel.as_ref().and_then(Parcel::deadline);
        let until = self.started + HALF_OPEN_TIME;
        parcel.map_or(until, |at| at.min(until))
    }
}

/// A handshake that was proven.
pub(crate) struct Proved {
    pub(crate) verified: Verified,
    pub(crate) sid: u32,
    pub(crate) started: Instant,
    /// Where its sender is by UDP, if it came so.
    pub(crate) met: Option<SocketAddr>,
}

/// All half-open handshakes.
#[derive(Default)]
pub(crate) struct Answers {
    list: Vec<HalfOpen>,
    early: VecDeque<Early>,
    next_id: u64,
}

/// An INIT that came before word of its sender.
pub(crate) struct Early {
    at: Instant,
    pub(crate) via: Via,
    pub(crate) handle: Handle,
    pub(crate) init: Vec<u8>,
}

impl Answers {
    /// What waits here, beside the most.
    pub(super) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("half-open handshakes", self.list.len(), HALF_OPEN_MAX));
        each(Bound::new("early handshakes", self.early.len(), EARLY_MAX));
    }

    /// Keeps an INIT until the relay tells who has this handle. mac1 holds.
    pub(crate) fn keep(&mut self, now: Instant, room: &mut Room, via: Via, handle: Handle, init: &[u8]) {
        self.early.retain(|early| now.since(early.at) < EARLY_TIME);
        if self.early.iter().any(|early| early.via == via) || self.early.len() >= EARLY_MAX {
            room.drops.count(Drop::Handshake);
            return;
        }
        self.early.push_back(Early { at: now, via, handle, init: init.to_vec() });
    }

    /// The INIT that waited for word of this sender.
    pub(crate) fn known_now(&mut self, now: Instant, via: Via) -> Option<Early> {
        self.early.retain(|early| now.since(early.at) < EARLY_TIME);
        let index = self.early.iter().position(|early| early.via == via)?;
        self.early.remove(index)
    }

    /// Whether this very INIT is being answered; then RESP goes out once more. mac1 holds.
    pub(crate) fn repeat(&mut self, now: Instant, room: &mut Room, caller: &Caller, init: &[u8]) -> bool {
        let Some(known) = self.list.iter_mut().find(|half| half.init == init) else { return false };
        match (&known.step, caller) {
            (Step::Answered(answer) | Step::Verifying(_, answer), Caller::Relay(via)) => room.send(*via, answer.resp()),
            // it goes again by itself: sooner, but not more often
            (Step::Answered(_) | Step::Verifying(..), Caller::Udp(..)) => {
                if let Some(parcel) = &mut known.parcel {
                    parcel.hasten(now);
                }
                known.post(now, room);
            }
            (Step::Answering(_), _) => {}
        }
        true
    }

    /// Begins to answer a new INIT whose mac1 holds.
    pub(crate) fn begin(&mut self, now: Instant, room: &mut Room, caller: Caller, claimed: Option<PeerId>, init: &[u8]) {
        if self.list.iter().filter(|half| half.caller.is_near(&caller)).count() >= HALF_OPEN_PER_SOURCE {
            // a peer that starts anew is more likely right about itself than its older attempts
            // but not so often that one peer uses up what all share
            if let Some(oldest) = self.list.iter().position(|half| half.caller.is_near(&caller) && now.since(half.started) >= REPLACE_AFTER)
            {
                let half = self.list.remove(oldest);
                room.sids.remove(&half.sid);
            } else {
                room.drops.count(Drop::HandshakeRate);
                return;
            }
        }
        if self.list.len() >= HALF_OPEN_MAX || !room.may_answer(now) {
            room.drops.count(Drop::HandshakeRate);
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        // nobody's yet, where nobody says whose it is
        let sid = room.fresh_sid(claimed.unwrap_or(room.own));
        let work = Work::Answer {
            setup: room.setup.clone(),
            identity: Arc::clone(&room.config.identity),
            init: init.to_vec(),
            sid,
            suites: room.config.suites.clone(),
            params: room.own_params(),
            coins: room.entropy.secret::<96>(),
        };
        match room.compute(Owner::HalfOpen(id), work) {
            Some(ticket) => {
                let (init, step) = (init.to_vec(), Step::Answering(ticket));
                self.list.push(HalfOpen { id, caller, claimed, parcel: None, init, sid, started: now, step });
            }
            None => {
                room.sids.remove(&sid);
            }
        }
    }

    /// FIN came. False: it belongs to no half-open handshake.
    pub(crate) fn fin(&mut self, room: &mut Room, bytes: &[u8]) -> bool {
        let Ok(sid) = peek_fin(bytes) else {
            room.drops.count(Drop::Malformed);
            return true;
        };
        let Some(half) = self.list.iter_mut().find(|half| half.sid == sid) else { return false };
        let Step::Answered(answer) = &half.step else {
            // RESP is not out yet, or another FIN is being looked at
            room.drops.count(Drop::Handshake);
            return true;
        };
        let answer = Arc::clone(answer);
        let work = Work::Verify { identity: Arc::clone(&room.config.identity), answer: Arc::clone(&answer), fin: bytes.to_vec() };
        if let Some(ticket) = room.compute(Owner::HalfOpen(half.id), work) {
            turn(&mut half.step, Step::Verifying(ticket, answer));
        }
        true
    }

    /// A job of a half-open handshake is done.
    pub(crate) fn computed(&mut self, now: Instant, room: &mut Room, id: u64, ticket: Ticket, outcome: Outcome) -> Option<Proved> {
        let index = self.list.iter().position(|half| half.id == id)?;
        let half = self.list.get_mut(index)?;
        match (&half.step, outcome) {
            (Step::Answering(expected), Outcome::Answered(Ok(answer))) if *expected == ticket => {
                half.respond(now, room, &answer);
                turn(&mut half.step, Step::Answered(answer));
                None
            }
            (Step::Answering(expected), Outcome::Answered(Err(error))) if *expected == ticket => {
                let half = self.list.remove(index);
                room.sids.remove(&half.sid);
                refuse(room, half.claimed, "handshake", error);
                None
            }
            (Step::Verifying(expected, _), Outcome::Verified(Ok(verified))) if *expected == ticket => {
                let half = self.list.remove(index);
                if half.claimed.is_some_and(|claimed| claimed != verified.peer.id()) {
                    room.sids.remove(&half.sid);
                    room.drops.count(Drop::Handshake);
                    let proven = verified.peer.id().short();
                    room.refuse(half.claimed, format!("the relay gave a handshake of {proven} as this peer's"));
                    return None;
                }
                Some(Proved { verified, sid: half.sid, started: half.started, met: half.caller.remote() })
            }
            (Step::Verifying(expected, answer), Outcome::Verified(Err(error))) if *expected == ticket => {
                // a bad FIN never ends an attempt: the right one may still come (protocol 3.9)
                let answered = Step::Answered(Arc::clone(answer));
                turn(&mut half.step, answered);
                refuse(room, half.claimed, "handshake's last message", error);
                None
            }
            _ => None,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.list.iter().map(HalfOpen::deadline).min()
    }

    pub(crate) fn alarm(&mut self, now: Instant, room: &mut Room) {
        self.list.retain(|half| {
            let keep = half.started + HALF_OPEN_TIME > now;
            if !keep {
                room.sids.remove(&half.sid);
            }
            keep
        });
        for half in &mut self.list {
            half.post(now, room);
        }
    }
}

fn refuse(room: &mut Room, who: Option<PeerId>, what: &str, error: HandshakeError) {
    room.drops.count(Drop::Handshake);
    room.refuse(who, format!("its {what} was refused: {error}"));
}
