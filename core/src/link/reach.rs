//! A handshake by UDP, where no relay carries one (protocol 8.7): where the peer may be, who is asked, and how the messages go.
//!
//! ```text
//!   relay gone, direct paths gone ─▶ 1 s ─▶ INIT is made ─▶ its first fragment to each address ─▶ COOKIE_REPLY: met there
//!                          ▲                                          │ nobody answers                    │ INIT, RESP, FIN
//!                          └── 1, 2, 4 … s, up to retry_interval ◀────┘                                   ▼
//!                                                                            session, with a direct path to that address
//! ```
//! What is a step of the handshake itself is in `greeting`; a relay that has the peer again takes over.
use super::{
    Link,
    direct::{Direct, State, fresh_path},
};
use crate::{
    drops::Drop,
    event::Action,
    fragments::{FragmentKey, Inbox, Parcel, cookie_of},
    id::PathId,
    node::Room,
    path::backoff::Backoff,
    rehandshake::Ground,
    session::Side,
    time::{Duration, Instant},
    wire::{CookieReply, Fragment, FragmentKind, Transport},
};
use core::net::SocketAddr;

/// Relays have so long to show the peer again before it is asked for by UDP.
const RELAYS_FIRST: Duration = Duration::from_secs(1);
/// Wait after the first attempt without an answer; then doubling (protocol 8.7).
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// An attempt ends after so long without a cookie, …
const ASK_TIME: Duration = Duration::from_secs(2);
/// … and after so long without a further step: when all fragments have gone six times.
const STEP_TIME: Duration = Duration::from_secs(8);
/// Addresses that are remembered of a peer, and for how long: as long as a session lasts (protocol 3.10).
const KNOWN_MAX: usize = 12;
const KNOWN_TIME: Duration = Duration::from_hours(24);
/// Addresses that are asked in one attempt.
const ASKED_MAX: usize = 8;
/// A packet that waits makes a peer wanted for so long: while a relay is there, only who is wanted is asked for.
const WANTED_TIME: Duration = Duration::from_secs(30);
/// The number of the path that the handshake itself has proven: the first of the session's initiator (protocol 8.7).
const MET_PATH: PathId = PathId(2);

/// An address that has given a cookie.
struct Met {
    remote: SocketAddr,
    key: FragmentKey,
    /// What goes there until it is answered.
    parcel: Option<Parcel>,
    /// What comes from there.
    inbox: Option<Inbox>,
}

/// One attempt.
struct Call {
    asked: Vec<SocketAddr>,
    first: Parcel,
    met: Option<Met>,
    until: Instant,
}

/// Where a peer may be without a relay, and the attempt to reach it there.
pub(super) struct Reach {
    /// Newest first.
    known: Vec<(SocketAddr, Instant)>,
    backoff: Backoff,
    at: Option<Instant>,
    /// When a packet waited for the peer last.
    wanted_at: Option<Instant>,
    call: Option<Box<Call>>,
}

impl Reach {
    pub(super) fn new(retry_interval: Duration) -> Self {
        let backoff = Backoff::new(RETRY_FIRST.min(retry_interval), retry_interval);
        Self { known: Vec::new(), backoff, at: None, wanted_at: None, call: None }
    }

    /// The peer was there.
    fn remember(&mut self, now: Instant, address: SocketAddr) {
        self.known.retain(|(known, _)| *known != address);
        self.known.insert(0, (address, now));
        self.known.truncate(KNOWN_MAX);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.at.is_none() && self.call.is_none()
    }

    pub(super) fn known(&self) -> (usize, usize) {
        (self.known.len(), KNOWN_MAX)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let call = self.call.as_ref().map(|call| call.deadline());
        [self.at, call].into_iter().flatten().min()
    }

    /// Ends the attempt under way.
    pub(super) fn hang_up(&mut self) {
        self.call = None;
    }

    /// Nothing is to be tried any more.
    pub(super) fn rest(&mut self) {
        self.at = None;
        self.backoff.reset();
    }

    /// Whether an attempt is under way.
    pub(super) fn is_calling(&self) -> bool {
        self.call.is_some()
    }

    /// The address that has given a cookie.
    pub(super) fn met(&self) -> Option<SocketAddr> {
        self.call.as_ref()?.met.as_ref().map(|met| met.remote)
    }
}

impl Call {
    fn deadline(&self) -> Instant {
        let parcel = match &self.met {
            Some(met) => met.parcel.as_ref().and_then(Parcel::deadline),
            None => self.first.deadline(),
        };
        parcel.map_or(self.until, |at| at.min(self.until))
    }

    /// Sends what is due.
    fn send(&mut self, now: Instant, room: &mut Room) {
        match &mut self.met {
            Some(Met { remote, parcel: Some(parcel), .. }) => {
                for bytes in parcel.due(now) {
                    room.act(Action::Datagram { remote: *remote, bytes: bytes.clone() });
                }
            }
            Some(Met { parcel: None, .. }) => {}
            None => {
                for bytes in self.first.due(now) {
                    for remote in &self.asked {
                        room.act(Action::Datagram { remote: *remote, bytes: bytes.clone() });
                    }
                }
            }
        }
    }
}

impl Link {
    /// Whether a handshake by UDP is the only way now, and there is reason for one: a relay that is there says that the peer is not, and
    /// whoever left must not be asked for by all others where it was.
    fn may_call(&self, now: Instant, room: &Room) -> bool {
        let is_reached = !self.relays.is_empty() || self.directs.iter().any(Direct::is_usable);
        let is_wanted = self.reach.wanted_at.is_some_and(|at| now.since(at) < WANTED_TIME);
        let is_due = is_wanted || room.around.relay_ends.is_empty();
        room.config.direct.udp && !room.leaving && !is_reached && is_due && room.config.admits(self.peer)
    }

    /// A packet waits for the peer.
    pub(super) fn want(&mut self, now: Instant, room: &Room) {
        self.reach.wanted_at = Some(now);
        self.miss(now, room);
    }

    /// No relay and no direct path leads to the peer any more, as far as is known: it is asked for by UDP soon.
    pub(crate) fn miss(&mut self, now: Instant, room: &Room) {
        if !self.may_call(now, room) {
            return;
        }
        self.remember_candidates(now, room);
        if self.reach.is_idle() && !self.greeting.is_unanswered() {
            // of two that miss each other the one with the smaller PeerId goes first (protocol 3.9)
            let courtesy = if room.own < self.peer { Duration::ZERO } else { super::OTHER_FIRST };
            self.reach.backoff.reset();
            self.reach.at = Some(now + RELAYS_FIRST + courtesy);
        }
    }

    /// The network or our sockets may be others now: a peer that is missed is asked for soon, whatever failed before.
    pub(crate) fn ask_around(&mut self, now: Instant, room: &Room) {
        self.miss(now, room);
        if let Some(at) = &mut self.reach.at {
            self.reach.backoff.reset();
            *at = (*at).min(now + RELAYS_FIRST);
        }
    }

    /// A path to this address has served.
    pub(super) fn remember_place(&mut self, now: Instant, address: SocketAddr) {
        self.reach.remember(now, address);
    }

    /// The peer said that it may be reached there; only what may be tried is kept.
    pub(super) fn remember_candidates(&mut self, now: Instant, room: &Room) {
        let theirs = self.seen_by_relay();
        let udp = self.candidates.iter().rev().filter(|(candidate, _)| candidate.transport == Transport::Udp);
        for (candidate, _) in udp.filter(|(candidate, _)| room.permits(candidate, theirs).is_ok()) {
            self.reach.remember(now, candidate.address);
        }
        for direct in self.directs.iter().filter(|direct| direct.is_datagrams() && direct.is_straight()) {
            self.reach.remember(now, direct.remote());
        }
    }

    /// Where the peer may be: what the operator says, then where it was.
    fn places(&mut self, now: Instant, room: &Room) -> Vec<SocketAddr> {
        self.reach.known.retain(|(_, at)| now.since(*at) < KNOWN_TIME);
        let endpoints = room.config.endpoints(self.peer).iter().copied().filter(|address| room.may_call_endpoint(*address));
        let mut places: Vec<SocketAddr> = endpoints.collect();
        for (address, _) in self.reach.known.iter().filter(|(address, _)| room.may_call_at(*address)) {
            if !places.contains(address) {
                places.push(*address);
            }
        }
        places.truncate(ASKED_MAX);
        places
    }

    /// INIT is made: asks at all addresses whether the peer is there.
    pub(super) fn call(&mut self, now: Instant, room: &mut Room, sid: u32, init: &[u8]) {
        let mac1 = room.setup.mac1_key(self.peer);
        let mut first = FragmentKey::first(&mac1).cut(FragmentKind::Init, sid, init);
        first.truncate(1);
        let mut asked = self.places(now, room);
        asked.retain(|remote| room.may_probe(now, remote.ip()));
        let mut call = Call { asked, first: Parcel::new(now, first), met: None, until: now + ASK_TIME };
        call.send(now, room);
        self.reach.call = Some(Box::new(call));
    }

    /// `COOKIE_REPLY` came from there.
    pub(crate) fn cookie(&mut self, now: Instant, room: &mut Room, remote: SocketAddr, reply: &CookieReply) {
        let mac1 = room.setup.mac1_key(self.peer);
        let init = self.greeting.offered();
        let call = self.reach.call.as_mut().filter(|call| call.met.is_none() && call.asked.contains(&remote));
        let cookie = call.as_ref().and_then(|call| cookie_of(&mac1, call.first.first()?, reply));
        let (Some(call), Some(init), Some(cookie)) = (call, init, cookie) else {
            room.drops.count(Drop::Handshake);
            return;
        };
        let key = FragmentKey::with_cookie(&mac1, &cookie);
        let parcel = Some(Parcel::new(now, key.cut(FragmentKind::Init, reply.sid, init.init())));
        call.met = Some(Met { remote, key, parcel, inbox: None });
        call.until = now + STEP_TIME;
        call.send(now, room);
    }

    /// A fragment of RESP came from there.
    pub(crate) fn response_fragment(&mut self, now: Instant, room: &mut Room, remote: SocketAddr, fragment: &Fragment<'_>) {
        let awaited = self.greeting.offered().is_some();
        let met = self.reach.call.as_mut().and_then(|call| call.met.as_mut()).filter(|met| met.remote == remote);
        let Some(met) = met.filter(|met| awaited && met.key.verify(fragment)) else {
            room.drops.count(Drop::Handshake);
            return;
        };
        // INIT is there
        met.parcel = None;
        let is_stale = |inbox: &Inbox| inbox.gives_way_to(fragment) || inbox.until() <= now;
        if met.inbox.as_ref().is_none_or(is_stale) {
            met.inbox = Some(Inbox::new(now, fragment));
        }
        if let Some(resp) = met.inbox.as_mut().and_then(|inbox| inbox.put(fragment)) {
            met.inbox = None;
            self.response(room, &resp);
        }
    }

    /// FIN is made: it goes where RESP came from.
    pub(super) fn call_back(&mut self, now: Instant, room: &mut Room, sid: u32, fin: &[u8]) {
        let Some(call) = &mut self.reach.call else { return };
        if let Some(met) = &mut call.met {
            met.parcel = Some(Parcel::new(now, met.key.cut(FragmentKind::Fin, sid, fin)));
            call.until = now + STEP_TIME;
            call.send(now, room);
        }
    }

    /// Whether a handshake that the peer began and finished by UDP is taken while ours is under way. Of crossing attempts the smaller
    /// `PeerId`'s stands, once it is answered: an address that leads nowhere must not stand against one that does (protocol 8.7).
    pub(crate) fn yields_to_caller(&mut self, room: &mut Room, began_at: Instant) -> bool {
        let ours_stood = room.own < self.peer && self.confirmed_at.is_some_and(|at| began_at <= at);
        if ours_stood || self.is_overtaken(began_at) {
            return false;
        }
        if self.reach.is_calling() && self.greeting.is_unanswered() {
            self.abandon_greeting(room);
            return true;
        }
        self.yields_to_init(room)
    }

    /// A session was made by UDP: the handshake has proven the path to that address for small messages (protocol 8.7).
    pub(super) fn begin_met(&mut self, now: Instant, room: &mut Room, remote: SocketAddr) {
        let Some(live) = &self.live else { return };
        let path = match live.side() {
            Side::Initiator => fresh_path(&mut self.next_path, self.directs.len(), Side::Initiator),
            Side::Responder => Some(MET_PATH),
        };
        let Some(path) = path else { return };
        debug_assert_eq!(path, MET_PATH, "a new session has no paths");
        let ground = Ground { path, own_sid: live.local(), peer_sid: live.remote(), channel_binding: [0; 32] };
        let conn = room.flow(remote);
        self.directs.push(Direct::new(now, ground, conn, remote, State::Proving { until: now + ASK_TIME }, room));
        self.size_path(now, room, path);
    }

    pub(super) fn reach_alarm(&mut self, now: Instant, room: &mut Room) {
        if let Some(call) = &mut self.reach.call {
            if call.until > now {
                call.send(now, room);
            } else {
                self.keep_for_late(now, room);
                self.abandon_greeting(room);
                self.ask_again(now, room);
            }
        }
        if self.reach.at.is_none_or(|at| at > now) {
            return;
        }
        self.reach.at = None;
        if self.reach.is_calling() || !self.may_call(now, room) || self.places(now, room).is_empty() {
            return;
        }
        if self.greeting.may_begin_anew() {
            self.keep_for_late(now, room);
            self.abandon_greeting(room);
            self.offer(now, room);
        }
        if !self.greeting.is_unanswered() {
            self.ask_again(now, room);
        }
    }

    fn ask_again(&mut self, now: Instant, room: &mut Room) {
        self.reach.at = Some(now + self.reach.backoff.fail(&mut room.entropy));
    }

    /// Another way leads to the peer: what has no answer yet is given up.
    pub(super) fn is_reached(&mut self, room: &mut Room) {
        self.reach.rest();
        if self.reach.is_calling() && self.greeting.is_unanswered() {
            self.abandon_greeting(room);
        }
    }
}
