//! The handshake that this end starts towards a peer (protocol 3.9), over a relay, or by UDP where there is none (`reach`).
//!
//! ```text
//!   Idle ─▶ Waiting (1 s for the other's INIT) ─▶ Offering ─▶ Offered ─INIT─▶ … ─RESP─▶ Concluding ─▶ Unconfirmed ─FIN─▶ … ─frame─▶ Idle
//!                     job: keys, INIT                repeats INIT        job: verify, FIN      repeats FIN; 4 s, then anew
//!
//! From FIN on the other end may already seal in the session, so this end keeps its keys also while no relay has the peer.
//! ```
use super::{Adoption, Link, Live, live::RETIRING};
use crate::{
    drops::Drop,
    edges::{Chart, States, edges, turn},
    handshake::{Concluded, HandshakeError, Offer, Outcome, Ticket, Work},
    node::{Owner, Room},
    plane::Edit,
    session::Side,
    time::{Duration, Instant},
    wire::{Params, TYPE_RESP},
};
use std::sync::Arc;

/// First repetition; then doubling (protocol 3.9).
const REPEAT_FIRST: Duration = Duration::from_millis(500);
/// A session that is not confirmed for so long starts anew with fresh keys (protocol 3.9).
const CONFIRM_TIME: Duration = Duration::from_secs(4);
/// … and when the peer has a new place at a relay: FIN goes there once more, but it may have restarted and know nothing of it.
const CONFIRM_AGAIN: Duration = Duration::from_secs(1);
/// An attempt without RESP, or without a relay to be confirmed over, ends after so long (protocol 3.9).
const GIVE_UP: Duration = Duration::from_secs(30);
/// The wait after an attempt that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A message that is repeated until it is answered.
#[derive(Clone, Copy)]
struct Repeat {
    at: Instant,
    wait: Duration,
}

impl Repeat {
    fn start(now: Instant) -> Self {
        Self { at: now + REPEAT_FIRST, wait: REPEAT_FIRST }
    }

    fn again(&mut self, now: Instant, room: &mut Room) {
        self.wait *= 2;
        self.at = now + self.wait + room.entropy.jitter(self.wait / 8);
    }
}

enum Stage {
    Idle,
    /// The other end should begin.
    Waiting {
        until: Instant,
    },
    Offering {
        ticket: Ticket,
        sid: u32,
        started: Instant,
    },
    Offered {
        offer: Arc<Offer>,
        sid: u32,
        started: Instant,
        repeat: Repeat,
    },
    Concluding {
        ticket: Ticket,
        offer: Arc<Offer>,
        sid: u32,
        started: Instant,
    },
    /// FIN is out; the other end's first frame confirms.
    Unconfirmed {
        live: Box<Live>,
        fin: Vec<u8>,
        params: Box<Params>,
        started: Instant,
        until: Instant,
        repeat: Repeat,
    },
}

edges!(Stage, "A peer's own handshake with another peer", [Idle, Waiting, Offering, Offered, Concluding, Unconfirmed],
    Idle => Waiting: "the other end should begin, or an attempt has failed: rest",
    Idle => Offering: "a handshake is to begin: job for keys and INIT",
    Waiting => Idle: "its time is over, the other end has begun, or the peer is gone",
    Offering => Offered: "the job is done: INIT goes out",
    Offering => Idle: "given up for the other end's attempt or for a new one, out of time, or the relay is gone",
    Offered => Concluding: "RESP with a good mac1: job to verify it",
    Offered => Idle: "given up for the other end's attempt or for a new one, out of time, or the relay is gone",
    Concluding => Unconfirmed: "RESP was good: FIN goes out, the session is installed",
    Concluding => Offered: "RESP was not good: the right one may still come",
    Concluding => Idle: "given up for the other end's attempt or for a new one, out of time, or the relay is gone",
    Unconfirmed => Idle: "a frame of the session came: it is adopted; or given up, or not confirmed in 4 s over a relay, 8 s by UDP, 30 s without",
);

/// A session whose FIN went out and that was given up; the other end may have taken it up all the same.
pub(super) struct Late {
    local: u32,
    until: Instant,
    /// None once a newer session was adopted: frames are still opened, and nothing more.
    adoption: Option<Box<Adoption>>,
}

impl Late {
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Another session stands.
    pub(super) fn is_overtaken(&mut self) {
        self.adoption = None;
    }
}

/// Our own handshake towards a peer.
pub(crate) struct Greeting(Stage);

pub(super) const CHART: Chart = Stage::CHART;

impl Greeting {
    pub(super) fn idle() -> Self {
        Self(Stage::Idle)
    }

    /// The other end should begin, until then.
    pub(super) fn wait(&mut self, until: Instant) {
        turn(&mut self.0, Stage::Waiting { until });
    }

    /// Nothing under way.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.0, Stage::Idle)
    }

    /// An INIT of ours is made or being made, and no RESP to it came.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self.0, Stage::Offering { .. } | Stage::Offered { .. })
    }

    /// INIT that is out.
    pub(super) fn offered(&self) -> Option<Arc<Offer>> {
        match &self.0 {
            Stage::Offered { offer, .. } => Some(Arc::clone(offer)),
            Stage::Idle | Stage::Waiting { .. } | Stage::Offering { .. } | Stage::Concluding { .. } | Stage::Unconfirmed { .. } => None,
        }
    }

    /// Whether no job is under way whose result would be lost.
    pub(super) fn may_begin_anew(&self) -> bool {
        !matches!(self.0, Stage::Offering { .. } | Stage::Concluding { .. })
    }

    /// A message of ours is out.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.0, Stage::Idle | Stage::Waiting { .. })
    }

    /// When something is due; what waits for an answer over a relay waits while there is none.
    pub(super) fn deadline(&self, has_relay: bool) -> Option<Instant> {
        match &self.0 {
            Stage::Idle => None,
            Stage::Waiting { until } => Some(*until),
            Stage::Offered { started, repeat, .. } => Some(repeat.at.min(*started + GIVE_UP)),
            Stage::Unconfirmed { until, repeat, .. } if has_relay => Some(repeat.at.min(*until)),
            Stage::Offering { started, .. } | Stage::Concluding { started, .. } | Stage::Unconfirmed { started, .. } => {
                Some(*started + GIVE_UP)
            }
        }
    }
}

impl Link {
    /// Starts a handshake over a relay.
    pub(super) fn greet(&mut self, now: Instant, room: &mut Room) {
        self.keep_for_late(now, room);
        self.abandon_greeting(room);
        if !self.relays.is_empty() && !room.leaving {
            self.offer(now, room);
        }
    }

    /// Makes INIT.
    pub(super) fn offer(&mut self, now: Instant, room: &mut Room) {
        let sid = room.fresh_sid(self.peer);
        let coins = room.entropy.secret::<96>();
        let work = Work::Offer { setup: room.setup.clone(), responder: self.peer, sid, suites: room.config.suites.clone(), coins };
        if let Some(ticket) = room.compute(Owner::Greeting(self.peer), work) {
            turn(&mut self.greeting.0, Stage::Offering { ticket, sid, started: now });
        } else {
            room.sids.remove(&sid);
            turn(&mut self.greeting.0, Stage::Waiting { until: now + AFTER_FAILURE });
        }
    }

    /// The peer has a new place at a relay while our attempt is under way: what went to the old place may be lost, and after a
    /// restart nobody there knows what was answered (protocol 3.9). Without this the next repetition would come up to 16 s later.
    pub(super) fn greet_newcomer(&mut self, now: Instant, room: &mut Room, uplink: usize) {
        match &mut self.greeting.0 {
            Stage::Idle | Stage::Waiting { .. } | Stage::Offering { .. } => {}
            Stage::Offered { offer, started, repeat, .. } => {
                (*started, *repeat) = (now, Repeat::start(now));
                let offer = Arc::clone(offer);
                self.greet_over(room, uplink, offer.init());
            }
            Stage::Concluding { .. } => self.greet(now, room),
            Stage::Unconfirmed { fin, until, repeat, .. } => {
                (*until, *repeat) = (now + CONFIRM_AGAIN, Repeat::start(now));
                let fin = fin.clone();
                self.greet_over(room, uplink, &fin);
            }
        }
    }

    /// The relay that our attempt went over is gone. Over another one it goes on. Without one it ends, save when FIN is out: the
    /// other end may seal in that session by now, and what it seals would be lost (protocol 3.9).
    pub(super) fn reroute_greeting(&mut self, now: Instant, room: &mut Room) {
        if let Some((carrier, _, _)) = self.relay_via() {
            self.greet_newcomer(now, room, carrier);
        } else if !matches!(self.greeting.0, Stage::Unconfirmed { .. }) {
            self.abandon_greeting(room);
        }
    }

    /// Ends our attempt and forgets its keys.
    pub(super) fn abandon_greeting(&mut self, room: &mut Room) {
        self.reach.hang_up();
        match turn(&mut self.greeting.0, Stage::Idle) {
            Stage::Idle | Stage::Waiting { .. } => {}
            Stage::Offering { sid, .. } | Stage::Offered { sid, .. } | Stage::Concluding { sid, .. } => {
                room.sids.remove(&sid);
            }
            Stage::Unconfirmed { live, .. } => {
                room.sids.remove(&live.local());
                room.edit(Edit::Retire { link: self.id, local: live.local() });
            }
        }
    }

    /// Whether an INIT that is said to come from this peer is answered. Of crossing attempts the smaller `PeerId`'s stands (protocol 3.9).
    pub(crate) fn yields_to_init(&mut self, room: &mut Room) -> bool {
        if !self.greeting.is_under_way() {
            return true;
        }
        if room.own < self.peer {
            return false;
        }
        self.abandon_greeting(room);
        true
    }

    /// RESP came for our attempt.
    pub(crate) fn response(&mut self, room: &mut Room, bytes: &[u8]) {
        debug_assert_eq!(bytes.first(), Some(&TYPE_RESP), "the node dispatches by type");
        let Stage::Offered { offer, sid, started, .. } = &self.greeting.0 else {
            room.drops.count(Drop::Handshake);
            return;
        };
        if crate::handshake::peek_resp(bytes) != Ok(*sid) {
            room.drops.count(Drop::Handshake);
            return;
        }
        // a forged RESP must not cost a KEM operation, nor end the attempt
        if room.setup.mac1_key(self.peer).verify_resp(bytes).is_err() {
            room.drops.count(Drop::Forged);
            room.refuse(Some(self.peer), "an answer to our handshake was altered on the way");
            return;
        }
        let (offer, sid, started) = (Arc::clone(offer), *sid, *started);
        let work = Work::Conclude {
            setup: room.setup.clone(),
            identity: Arc::clone(&room.config.identity),
            responder: self.peer,
            offer: Arc::clone(&offer),
            resp: bytes.to_vec(),
            params: room.own_params(),
            coins: room.entropy.secret::<32>(),
        };
        if let Some(ticket) = room.compute(Owner::Greeting(self.peer), work) {
            turn(&mut self.greeting.0, Stage::Concluding { ticket, offer, sid, started });
        }
    }

    /// A job of our attempt is done.
    pub(crate) fn greeting_computed(&mut self, now: Instant, room: &mut Room, ticket: Ticket, outcome: Outcome) {
        match (&self.greeting.0, outcome) {
            (Stage::Offering { ticket: expected, sid, started }, Outcome::Offered(offer)) if *expected == ticket => {
                let (sid, started) = (*sid, *started);
                if self.relays.is_empty() {
                    self.call(now, room, sid, offer.init());
                } else {
                    self.send_on_relay(room, offer.init());
                }
                turn(&mut self.greeting.0, Stage::Offered { offer, sid, started, repeat: Repeat::start(now) });
            }
            (Stage::Concluding { ticket: expected, offer, sid, started }, Outcome::Concluded(result)) if *expected == ticket => {
                let (offer, sid, started) = (Arc::clone(offer), *sid, *started);
                self.concluded(now, room, result, offer, sid, started);
            }
            _ => {}
        }
    }

    fn concluded(
        &mut self,
        now: Instant,
        room: &mut Room,
        result: Result<Concluded, HandshakeError>,
        offer: Arc<Offer>,
        sid: u32,
        started: Instant,
    ) {
        let done = match result {
            Ok(done) => done,
            Err(error) => {
                // a bad RESP never ends an attempt: the right one may still come (protocol 3.9)
                room.drops.count(Drop::Handshake);
                room.refuse(Some(self.peer), format!("an answer to our handshake was refused: {error}"));
                turn(&mut self.greeting.0, Stage::Offered { offer, sid, started, repeat: Repeat::start(now) });
                return;
            }
        };
        let live = Live::new(now, done.chain, Side::Initiator, sid, done.peer_sid, &*room.config.crypto);
        let lanes = room.lanes_with(&done.params);
        room.edit(Edit::Install { link: self.id, install: Box::new(live.install(lanes)) });
        self.send_on_relay(room, &done.fin);
        self.call_back(now, room, sid, &done.fin);
        turn(
            &mut self.greeting.0,
            Stage::Unconfirmed {
                live: Box::new(live),
                fin: done.fin,
                params: Box::new(done.params),
                started,
                until: now + CONFIRM_TIME,
                repeat: Repeat::start(now),
            },
        );
    }

    /// A new attempt begins while FIN of the one before is out. FIN may be slow and not lost, and the other end seals in that session from
    /// the moment it has it: its keys stay for a while (protocol 3.9).
    pub(super) fn keep_for_late(&mut self, now: Instant, room: &mut Room) {
        if !matches!(self.greeting.0, Stage::Unconfirmed { .. }) {
            return;
        }
        if let Stage::Unconfirmed { live, params, started, .. } = turn(&mut self.greeting.0, Stage::Idle) {
            self.forget_late(room);
            let (local, met) = (live.local(), self.reach.met());
            let adoption = Adoption { live: *live, params: *params, started, met };
            self.late = Some(Late { local, until: now + RETIRING, adoption: Some(Box::new(adoption)) });
        }
    }

    /// Lets go of the keys of an attempt that was given up.
    pub(super) fn forget_late(&mut self, room: &mut Room) {
        if let Some(late) = self.late.take()
            && self.live.as_ref().is_none_or(|live| live.local() != late.local)
        {
            room.sids.remove(&late.local);
            room.edit(Edit::Retire { link: self.id, local: late.local });
        }
    }

    /// A frame of a session that waits for its confirmation: it is confirmed when the frame opens. True when it was for such a session.
    pub(super) fn confirm(&mut self, now: Instant, room: &mut Room, receiver: u32) -> bool {
        if let Some(late) = self.late.as_mut().filter(|late| late.local == receiver) {
            let Some(adoption) = late.adoption.take() else { return false };
            self.late = None;
            self.adopt(now, room, *adoption);
            return true;
        }
        if !matches!(&self.greeting.0, Stage::Unconfirmed { live, .. } if live.local() == receiver) {
            return false;
        }
        if let Stage::Unconfirmed { live, params, started, .. } = turn(&mut self.greeting.0, Stage::Idle) {
            let met = self.reach.met();
            self.adopt(now, room, Adoption { live: *live, params: *params, started, met });
        }
        true
    }

    /// The session that waits for its confirmation, if `receiver` is its index.
    pub(super) fn unconfirmed(&mut self, receiver: u32) -> Option<&mut Live> {
        let late = self.late.as_mut().filter(|late| late.local == receiver);
        if let Some(adoption) = late.and_then(|late| late.adoption.as_mut()) {
            return Some(&mut adoption.live);
        }
        match &mut self.greeting.0 {
            Stage::Unconfirmed { live, .. } if live.local() == receiver => Some(live),
            _ => None,
        }
    }

    /// Sends a handshake message over the relay that carries.
    fn send_on_relay(&mut self, room: &mut Room, message: &[u8]) {
        if let Some((carrier, _, _)) = self.relay_via() {
            self.greet_over(room, carrier, message);
        }
    }

    /// Sends it once more: over another relay than the time before, where there are several. One of them may have died unseen.
    fn greet_again(&mut self, room: &mut Room, message: &[u8]) {
        if let Some(next) = self.relays.next_to_greet_over() {
            self.greet_over(room, next, message);
        }
    }

    fn greet_over(&mut self, room: &mut Room, uplink: usize, message: &[u8]) {
        if let Some(via) = self.relays.greet_over(uplink) {
            room.send(via, message);
        }
    }

    pub(super) fn greeting_alarm(&mut self, now: Instant, room: &mut Room) {
        let has_relay = !self.relays.is_empty();
        if self.greeting.deadline(has_relay).is_none_or(|at| at > now) {
            return;
        }
        match &mut self.greeting.0 {
            Stage::Idle => {}
            Stage::Offered { offer, started, repeat, .. } if *started + GIVE_UP > now => {
                repeat.again(now, room);
                let offer = Arc::clone(offer);
                self.greet_again(room, offer.init());
            }
            Stage::Unconfirmed { fin, until, repeat, .. } if has_relay && *until > now => {
                repeat.again(now, room);
                let fin = fin.clone();
                self.greet_again(room, &fin);
            }
            // it was waited for long enough already
            Stage::Waiting { .. } | Stage::Unconfirmed { .. } => self.greet(now, room),
            Stage::Offering { .. } | Stage::Offered { .. } | Stage::Concluding { .. } => {
                self.abandon_greeting(room);
                turn(&mut self.greeting.0, Stage::Waiting { until: now + AFTER_FAILURE });
            }
        }
    }
}

#[cfg(test)]
mod tests;
