//! All about one remote peer: its presence on relays, the session, the paths, and which path carries the traffic.
//!
//! ```text
//!   presence (relay directory) ──▶ greeting ──▶ live session ──▶ attempt: dial, re-handshake ──▶ direct paths
//!                                                    │                                              │
//!                                                    └──────────────▶ main path: choice, suspicion, fallback
//! ```
//! One file an idea: `greeting` (the handshake we start), `live` (the session and its control messages), `attempt` (finding a
//! direct path), `direct` (one direct path: proof, probes, death), `detour` (datagrams over a relay), `steer` (which path is used), `addresses` (whose overlay
//! address is whose), `search` (guessing ports of a NAT), `reach` (a handshake by UDP where
//! no relay is), `loss` (a path that loses much), `relays` (which relay carries the relay path), `report` (status).
mod addresses;
mod attempt;
mod datagram;
mod detour;
mod direct;
mod follow;
mod greeting;
mod live;
mod loss;
mod reach;
mod relays;
mod report;
mod search;
mod steer;
mod succession;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use greeting::Greeting;
pub(crate) use live::{Adoption, Live};

/// The machines of a link.
pub(crate) const CHARTS: &[crate::edges::Chart] = &[greeting::CHART, live::CHART, direct::CHART];

use crate::{
    bound::Bound,
    id::{LinkId, PathId, PeerId},
    node::{Presence, Room},
    plane::{Edit, LinkTally, Strays, Via},
    time::{Duration, Instant},
    wire::{Candidate, MAX_CANDIDATES, Params},
};
use attempt::Attempt;
use core::net::IpAddr;
use direct::Direct;
use std::collections::VecDeque;
use steer::Steer;

/// After a peer came back to a relay, its old session must show life within so long, or a new one is made: it may have restarted.
const VERIFY_TIME: Duration = Duration::from_millis(600);
/// A session that the other end began must be used by it within so long: longer than it repeats FIN before it begins another.
const CONFIRMED_TIME: Duration = Duration::from_secs(6);
/// Data out over a living relay and nothing authentic back for so long: the other end may have lost the session; as long again for
/// its answer, then a new one is made.
const SILENT_TIME: Duration = Duration::from_secs(3);
/// The peer with the larger `PeerId` waits so long for the other's INIT (protocol 3.9).
const OTHER_FIRST: Duration = Duration::from_secs(1);

/// One remote peer.
pub(crate) struct Link {
    id: LinkId,
    peer: PeerId,
    name: Option<String>,
    params: Params,
    addresses: Vec<IpAddr>,
    refused: Vec<(IpAddr, &'static str)>,
    /// Where it is, by relay.
    relays: relays::Relays,
    greeting: Greeting,
    live: Option<Live>,
    /// Our attempt before, whose FIN may be on its way still.
    late: Option<greeting::Late>,
    /// Own index of the session before, and when the plane has let go of it.
    old: Option<(u32, Instant)>,
    directs: Vec<Direct>,
    buried: follow::Buried,
    next_path: u32,
    candidates: Vec<(Candidate, String)>,
    candidates_generation: Option<u32>,
    attempt: Attempt,
    reach: reach::Reach,
    search: Option<Box<search::Search>>,
    detour: detour::Detour,
    steer: Steer,
    loss: loss::LossWatch,
    /// The other end's control room must speak in this session by then.
    verify_by: Option<Instant>,
    /// When the handshake of the newest session began.
    begun_at: Option<Instant>,
    /// When it was confirmed, if this end began it.
    confirmed_at: Option<Instant>,
    /// When an authentic frame came last.
    heard_at: Instant,
    tally: Option<LinkTally>,
    migrations: u64,
    fallbacks: u64,
    retries: u64,
    strays: Strays,
    telling: succession::Telling,
    /// Switches of the last minute (protocol 7.5).
    switches: VecDeque<Instant>,
}

impl Link {
    /// What it keeps, beside the most.
    pub(crate) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("direct paths of a peer", self.directs.len(), direct::DIRECTS_MAX));
        each(Bound::new("candidates of a peer", self.candidates.len(), MAX_CANDIDATES));
        let sockets = self.search.as_ref().map_or(0, |search| search.sockets());
        let (known, most) = self.reach.known();
        each(Bound::new("addresses at which a peer was", known, most));
        each(Bound::new("sockets of a search for ports", sockets, search::SOCKETS_MAX));
        if let Some(live) = &self.live {
            live.bounds(each);
        }
    }

    pub(crate) fn new(now: Instant, id: LinkId, peer: PeerId, room: &mut Room) -> Self {
        let name = room.config.member(peer).and_then(|member| member.name.clone());
        let mut link = Self {
            id,
            peer,
            name,
            params: Params::default(),
            addresses: Vec::new(),
            refused: Vec::new(),
            relays: relays::Relays::default(),
            greeting: Greeting::idle(),
            live: None,
            late: None,
            old: None,
            directs: Vec::new(),
            buried: follow::Buried::default(),
            next_path: 0,
            candidates: Vec::new(),
            candidates_generation: None,
            attempt: Attempt::new(room.config.retry_interval),
            reach: reach::Reach::new(room.config.retry_interval),
            search: None,
            detour: detour::Detour::default(),
            steer: Steer::new(now, room.config.retry_interval),
            loss: loss::LossWatch::new(now, None),
            verify_by: None,
            begun_at: None,
            confirmed_at: None,
            heard_at: now,
            tally: None,
            migrations: 0,
            fallbacks: 0,
            retries: 0,
            strays: Strays::default(),
            telling: succession::Telling::default(),
            switches: VecDeque::new(),
        };
        link.settle_addresses(room);
        link
    }

    /// Its number in the plane.
    pub(crate) fn id(&self) -> LinkId {
        self.id
    }

    /// Whether a relay tells that the peer is there.
    pub(crate) fn is_online(&self) -> bool {
        !self.relays.is_empty()
    }

    /// Nothing is known of the peer but its name: no session, no relay that has it, no handshake under way.
    pub(crate) fn is_idle(&self) -> bool {
        let has_session = self.live.is_some() || self.old.is_some() || self.late.is_some();
        !has_session && self.relays.is_empty() && self.greeting.is_idle() && self.reach.is_idle()
    }

    pub(crate) fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// Whether new traffic goes a direct path.
    pub(crate) fn is_direct(&self) -> bool {
        self.live.is_some() && self.steer.main() != PathId::RELAY && !self.is_on_detour()
    }

    /// A relay tells that the peer came, changed or went.
    #[expect(clippy::too_many_arguments, reason = "what one directory entry says, and where it leads")]
    pub(crate) fn present(&mut self, now: Instant, room: &mut Room, uplink: usize, presence: Presence, via: Via, window: u64, eager: bool) {
        if !presence.online {
            // a late word about a handle that was replaced since
            if self.relays.handle(uplink) == Some(presence.handle) {
                self.leave_relay(now, room, uplink, "the peer is offline there");
                self.mourn(room, "offline at every relay");
                self.miss(now, room);
            }
            return;
        }
        let fresh = self.relays.put(now, uplink, presence, via, window);
        // a handshake over a relay takes over; one whose INIT is answered goes on
        self.is_reached(room);
        self.steer_relay(now, room);
        if !fresh {
            return;
        }
        if self.live.is_some() {
            self.verify_by = Some(now + VERIFY_TIME);
            self.prod(now, room);
        } else if eager {
            self.seek(now, room);
        }
        self.greet_newcomer(now, room, uplink);
    }

    /// A relay connection is gone, and with it what it told.
    pub(crate) fn uplink_lost(&mut self, now: Instant, room: &mut Room, uplink: usize) {
        let carried = self.relay_via().is_some_and(|(carrier, _, _)| carrier == uplink);
        if self.leave_relay(now, room, uplink, "the connection with it is gone") {
            if carried {
                self.reroute_greeting(now, room);
            }
            self.mourn(room, "the relay connection is gone");
            self.miss(now, room);
        }
    }

    /// Whether a handshake could begin now.
    fn may_greet(&self) -> bool {
        self.greeting.is_idle() && !self.relays.is_empty()
    }

    /// Starts a handshake, or waits for the other end to do so.
    fn seek(&mut self, now: Instant, room: &mut Room) {
        if !self.greeting.is_idle() || self.relays.is_empty() || room.leaving {
            return;
        }
        if room.own < self.peer {
            self.greet(now, room);
        } else {
            self.greeting.wait(now + OTHER_FIRST);
        }
    }

    /// A packet waits for this peer.
    pub(crate) fn wanted(&mut self, now: Instant, room: &mut Room) {
        if self.live.is_none() {
            if self.relays.is_empty() {
                // only a relay knows where it is
                room.wake_relays();
            }
            self.seek(now, room);
            self.want(now, room);
        }
    }

    /// The peer is nowhere to be reached any more.
    fn mourn(&mut self, room: &mut Room, why: &'static str) {
        if self.live.is_some() && self.relays.is_empty() && !self.directs.iter().any(Direct::is_usable) {
            room.note(crate::event::Note::PeerLost { peer: self.peer, why });
        }
    }

    /// What the peer's address is, as a relay sees it.
    fn seen_by_relay(&self) -> Option<IpAddr> {
        self.relays.presences().find_map(|presence| presence.public).map(|address| address.ip())
    }

    /// The plane's counters of this link.
    pub(crate) fn tallied(&mut self, now: Instant, room: &mut Room, tally: LinkTally) {
        for path in &tally.paths {
            if let Some(at) = path.heard_at {
                if at > self.heard_at {
                    self.hear_data(now, room, at);
                }
                if let Some(direct) = self.directs.iter_mut().find(|direct| direct.path() == path.path) {
                    direct.heard(at);
                }
            }
        }
        self.relays_tallied(now, tally.session_frames);
        self.consider_rekey(now, room, tally.session_frames);
        self.watch_loss(now, room, &tally);
        self.consider_detour(now, room, &tally);
        if tally.queued > 0 {
            self.want(now, room);
        }
        self.tally = Some(tally);
    }

    /// Data goes unanswered over the relay: asks whether the other end still knows the session.
    pub(crate) fn doubt_session(&mut self, now: Instant, room: &mut Room) {
        let silent = now.since(self.heard_at) >= SILENT_TIME;
        if self.live.is_some() && silent && self.verify_by.is_none() && self.may_greet() {
            self.verify_by = Some(now + SILENT_TIME);
            self.prod(now, room);
        }
    }

    /// The relay of this link's relay path, and when data came on it last.
    pub(crate) fn relay_heard(&self) -> Option<(usize, Instant)> {
        let (uplink, _, _) = self.relay_via()?;
        let path = self.tally.as_ref()?.paths.iter().find(|path| path.path == PathId::RELAY)?;
        Some((uplink, path.heard_at?))
    }

    /// Data came. That answers no doubt: a session that the other end has replaced still sends what it owes (protocol 3.10). It is
    /// reason to ask once more before a new session is made.
    fn hear_data(&mut self, now: Instant, room: &mut Room, at: Instant) {
        self.heard_at = at;
        if let Some(by) = self.verify_by {
            self.verify_by = Some(by.max(now + VERIFY_TIME));
            self.prod(now, room);
        }
    }

    /// The other end's control room spoke in this session, so it is the newest there, too.
    fn hear(&mut self, now: Instant) {
        self.heard_at = self.heard_at.max(now);
        self.verify_by = None;
    }

    /// When `alarm` is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [
            self.greeting.deadline(!self.relays.is_empty()),
            self.live.as_ref().and_then(|live| live.deadline(self.control_via().is_some(), self.may_greet())),
            self.attempt.deadline(),
            self.reach.deadline(),
            self.search.as_ref().map(|search| search.deadline()),
            self.steer.deadline(),
            self.relays_deadline(),
            self.verify_by,
            self.old.map(|(_, at)| at),
            self.late.as_ref().map(greeting::Late::until),
        ]
        .into_iter()
        .flatten()
        .chain(self.directs.iter().map(Direct::deadline))
        .min()
    }

    /// Does what is due.
    pub(crate) fn alarm(&mut self, now: Instant, room: &mut Room) {
        self.greeting_alarm(now, room);
        self.live_alarm(now, room);
        self.directs_alarm(now, room);
        self.attempt_alarm(now, room);
        self.reach_alarm(now, room);
        self.search_alarm(now, room);
        self.steer_alarm(now, room);
        self.relays_alarm(now, room);
        if self.verify_by.is_some_and(|by| by <= now) {
            self.verify_by = None;
            if self.greeting.is_idle() && !self.relays.is_empty() {
                self.greet(now, room);
            }
        }
        if self.late.as_ref().is_some_and(|late| late.until() <= now) {
            self.forget_late(room);
        }
        if let Some((sid, at)) = self.old
            && at <= now
        {
            self.old = None;
            room.sids.remove(&sid);
        }
    }

    /// The peer is no member any more: all that is with it ends, and nothing begins.
    pub(crate) fn shut_out(&mut self, now: Instant, room: &mut Room) {
        const WHY: &str = "it is no member any more";
        self.abandon_greeting(room);
        self.reach.rest();
        self.end(now, room, WHY);
        for uplink in self.relays.uplinks() {
            self.leave_relay(now, room, uplink, WHY);
        }
    }

    /// Gives up everything: the peer left, or was shut out.
    fn end(&mut self, now: Instant, room: &mut Room, why: &'static str) {
        self.remember_candidates(now, room);
        self.drop_directs(now, room);
        self.attempt.stop(room);
        self.forget_late(room);
        if let Some(live) = self.live.take() {
            room.sids.remove(&live.local());
            room.edit(Edit::Retire { link: self.id, local: live.local() });
            room.note(crate::event::Note::PeerLost { peer: self.peer, why });
            // when it comes back, a relay will tell
            room.wake_relays();
        }
        self.verify_by = None;
        self.miss(now, room);
    }
}
