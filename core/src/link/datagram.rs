//! What only paths over UDP do: open holes, find each other when both ask at once, show that the largest frames come through, and follow
//! a peer whose address changes (protocol 5.4, 8.2 to 8.4).
//!
//! ```text
//!   candidate ─▶ flow, REQ, REQ … (5 in 1.5 s) ─▶ Proving ─▶ Sizing: padded REQ ─▶ Usable, with a budget
//!   REQ of an unknown path ─▶ Asked; or, where both ask at one address, the path of the session's initiator stands
//!   authentic frame from a new address ─▶ REQ of the path in use goes there ─▶ answered: the path leads there now
//! ```
use super::{
    Link,
    attempt::Way,
    direct::{Direct, State, fresh_path},
};
use crate::{
    drops::Drop,
    edges::turn,
    id::PathId,
    node::{Room, Source},
    plane::Edit,
    rehandshake::{Ground, is_request},
    session::{PathKey, Side},
    time::{Duration, Instant},
    wire::{FrameHeader, LEAST_BUDGET, PathHeader, TYPE_PATH_REQ},
};
use core::net::SocketAddr;

/// Waits between the first requests to a target: five go out (protocol 8.2).
const KNOCKS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];
/// Wait between further requests, to a place where a path was good until lately (protocol 8.2).
const MISSED_WAIT: Duration = Duration::from_secs(1);
/// Life of a path whose first requests are not answered.
pub(super) const KNOCK_TIME: Duration = Duration::from_millis(2_500);
/// Waits between padded requests: they go out four times, the first time at the full size alone (protocol 8.3).
const SIZE_WAITS: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(500)];
const FULL_ALONE: u32 = 1;
/// Time for all of them.
const SIZE_TIME: Duration = Duration::from_secs(2);
/// IP packets that paths carry which do not carry the largest: Ethernet, the least of IPv6, and tunnels inside tunnels.
const LESSER_PACKETS: [usize; 4] = [1_500, 1_280, 1_200, 1_124];
/// Headers of IP and UDP.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;
/// A path of datagrams has no TLS below it.
const NO_BINDING: [u8; 32] = [0; 32];

impl Direct {
    /// Whether its first requests went unanswered, and so did the one that met a request of the other end.
    fn is_missed(&self) -> bool {
        self.is_met && self.knock.is_some_and(|(_, sent)| sent as usize > KNOCKS.len())
    }

    /// The next request of a path of datagrams that is not usable yet is due.
    pub(super) fn knock(&mut self, now: Instant, room: &mut Room, key: &PathKey) {
        let Some((at, sent)) = self.knock.filter(|(at, _)| *at <= now) else { return };
        let next = match self.state {
            State::Proving { until } => {
                if sent as usize >= KNOCKS.len() {
                    // a request after a rest: what came before has nothing to do with how long the path takes to be proven
                    self.first_at = now;
                }
                self.request(now, room, key, 0);
                Some(at + KNOCKS.get(sent as usize).copied().unwrap_or(MISSED_WAIT)).filter(|next| *next < until)
            }
            State::Sizing { .. } => {
                // the larger first: what is answered first is what counts
                self.request(now, room, key, self.size);
                for size in lesser_sizes(self.remote, self.size).filter(|_| sent >= FULL_ALONE) {
                    self.request(now, room, key, size);
                }
                SIZE_WAITS.get(sent as usize).map(|wait| now + *wait)
            }
            State::Asked { .. } | State::Usable { .. } => {
                self.knock = None;
                return;
            }
        };
        self.knock = next.map(|next| (next.max(now), sent + 1));
    }
}

/// Sizes below the full one that a path to this address may carry.
fn lesser_sizes(remote: SocketAddr, full: usize) -> impl Iterator<Item = usize> {
    let headers = if remote.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    LESSER_PACKETS.into_iter().map(move |packet| packet - headers).chain([LEAST_BUDGET]).filter(move |size| *size < full)
}

impl Link {
    /// Begins to look for a path to this address of the peer, from `at` on.
    pub(super) fn begin_flow(&mut self, now: Instant, room: &mut Room, remote: SocketAddr, at: Instant) -> Option<PathId> {
        let key = self.path_key()?;
        let missed_until = self.steer.misses(remote).unwrap_or(at);
        let mut direct = self.propose_flow(now, room, remote, missed_until.max(at + KNOCK_TIME))?;
        let path = direct.path();
        direct.knock = Some((at, 0));
        direct.knock(now, room, &key);
        self.directs.push(direct);
        Some(path)
    }

    /// A path to this address that has to be proven by then; nothing was asked yet.
    pub(super) fn propose_flow(&mut self, now: Instant, room: &mut Room, remote: SocketAddr, until: Instant) -> Option<Direct> {
        let live = self.live.as_ref()?;
        let Some(path) = fresh_path(&mut self.next_path, self.directs.len(), live.side()) else {
            room.drops.count(Drop::Accept);
            return None;
        };
        let ground = Ground { path, own_sid: live.local(), peer_sid: live.remote(), channel_binding: NO_BINDING };
        self.name_receiver_at(room, remote);
        let conn = room.flow(remote);
        Some(Direct::new(now, ground, conn, remote, State::Proving { until }, room))
    }

    /// A message of the re-handshake came in a datagram.
    pub(crate) fn path_datagram(&mut self, now: Instant, room: &mut Room, source: Source, bytes: &[u8]) {
        let Ok(header) = PathHeader::parse(bytes) else {
            room.drops.count(Drop::Malformed);
            return;
        };
        let known = self.directs.iter().find(|direct| direct.path == header.path).map(Direct::is_datagrams);
        match known {
            Some(true) => self.path_message(now, room, header.path, Some(source), bytes),
            None if header.kind == TYPE_PATH_REQ && self.is_given_up(header.path) => self.knock_back(now, room, source, header, bytes),
            None if header.kind == TYPE_PATH_REQ => self.asked_from(now, room, source, header, bytes),
            Some(false) | None => room.drops.count(Drop::Rehandshake),
        }
    }

    /// The other end asks on a path of its own. Where both ask at one address, the initiator's path stands (protocol 5.4), but for one that is
    /// missed (8.2) and was asked for when they met: the other end would have answered that, had it not given it up.
    fn asked_from(&mut self, now: Instant, room: &mut Room, source: Source, header: PathHeader, bytes: &[u8]) {
        let remote = source.remote;
        let crossing = self
            .directs
            .iter()
            .position(|direct| direct.is_datagrams() && direct.remote == remote && matches!(direct.state, State::Proving { .. }))
            .filter(|_| source.own_flow.is_none());
        let is_missed = |index: usize| self.directs.get(index).is_some_and(Direct::is_missed);
        let ours_stands = self.live.as_ref().is_some_and(|live| live.side() == Side::Initiator) && !crossing.is_some_and(is_missed);
        if let (Some(index), true) = (crossing, ours_stands) {
            self.knock_again(now, room, index, header, bytes);
            return;
        }
        if !room.takes_datagrams(remote) {
            room.drops.count(Drop::Rehandshake);
            return;
        }
        let conn = room.flow_of(source);
        if !self.answer_first(now, room, (conn, remote), NO_BINDING, header, bytes) {
            room.hang_up(conn);
            return;
        }
        self.name_receiver_at(room, remote);
        if let Some(index) = crossing {
            let ours = self.directs.remove(index);
            room.hang_up(ours.conn());
            self.attempt_follows(Way::of(&ours), header.path);
        }
    }

    /// Whether a request that came in a datagram is really the peer's, on whatever path.
    pub(super) fn is_request(&self, now: Instant, header: PathHeader, bytes: &[u8]) -> bool {
        let Some(live) = &self.live else { return false };
        let ground = Ground { path: header.path, own_sid: live.local(), peer_sid: live.remote(), channel_binding: NO_BINDING };
        live.lane().keys_of(now, header.epoch).is_some_and(|keys| is_request(&keys.path, &ground, bytes))
    }

    /// The other end asks where we ask already, so it is there and lets us in: ask at once, if what came is really the peer's.
    fn knock_again(&mut self, now: Instant, room: &mut Room, index: usize, header: PathHeader, bytes: &[u8]) {
        let Some(key) = self.path_key().filter(|_| self.is_request(now, header, bytes)) else {
            room.drops.count(Drop::Rehandshake);
            return;
        };
        if let Some(direct) = self.directs.get_mut(index) {
            // once only: whoever repeats the other's request must not make us repeat ours
            if direct.knock.is_some() && !direct.is_met {
                direct.is_met = true;
                direct.request(now, room, &key, 0);
            }
        }
    }

    /// Small messages have proven the path; now it must show how large the frames are that come through, both ways.
    pub(super) fn size_path(&mut self, now: Instant, room: &mut Room, path: PathId) {
        let Some(key) = self.path_key() else { return };
        let link = self.id;
        let Some(direct) = self.directs.iter_mut().find(|direct| direct.path == path) else { return };
        if matches!(direct.state, State::Sizing { .. }) {
            return;
        }
        turn(&mut direct.state, State::Sizing { until: now + SIZE_TIME });
        direct.heard_at = now;
        // what comes on it may be opened: it is the peer who sends there
        room.edit(Edit::Path { link, path, via: direct.via(), window: None, rtt: direct.rtt(), budget: direct.budget() });
        direct.knock = Some((now, 0));
        direct.knock(now, room, &key);
    }

    /// The path in use leads to another address: the other end proved itself there (protocol 8.4).
    pub(super) fn path_moves(&mut self, now: Instant, room: &mut Room, path: PathId, remote: SocketAddr) {
        let key = self.path_key();
        let Some(direct) = self.directs.iter_mut().find(|direct| direct.path == path) else { return };
        // what comes by a relay says nothing of where the peer is, and a relay stays where it is
        if direct.remote == remote || !direct.is_datagrams() || direct.is_detour() || room.is_door(remote) || !direct.may_follow(now) {
            return;
        }
        direct.trail.moved(now);
        let before = core::mem::replace(&mut direct.conn, room.flow(remote));
        direct.remote = remote;
        direct.heard_at = now;
        if direct.is_usable() {
            direct.doubt = None;
            // small messages have proven the address: the way there may carry less
            if let Some(key) = key {
                direct.examine_size(now, room, &key);
            }
            room.edit(Edit::Path { link: self.id, path, via: direct.via(), window: None, rtt: None, budget: direct.budget() });
            if self.steer.main() == path {
                // what is on its way to the address before is lost: it goes again (protocol 7.6)
                room.edit(Edit::FallBack { link: self.id, to: path });
            }
        }
        room.hang_up(before);
    }

    /// An authentic frame of this peer came from an address that is no path's: it may have moved (protocol 8.4).
    pub(crate) fn roamed(&mut self, now: Instant, room: &mut Room, remote: SocketAddr) {
        let is_known = self.directs.iter().any(|direct| direct.remote == remote && direct.is_datagrams());
        if !room.config.direct.udp || is_known || room.is_door(remote) {
            return;
        }
        let Some(key) = self.path_key() else { return };
        let main = self.steer.main();
        let usable = self.directs.iter_mut().filter(|direct| direct.is_datagrams() && direct.is_straight());
        match usable.min_by_key(|direct| (direct.path() != main, direct.path())) {
            Some(direct) if direct.may_follow(now) => direct.request_at(now, room, &key, remote, 0),
            Some(_) => {}
            None => self.knock_once(now, room, remote),
        }
    }

    /// A sealed frame of the control room's lane came in a datagram from an address that is nobody's flow.
    pub(crate) fn stray_frame(&mut self, now: Instant, room: &mut Room, header: FrameHeader, remote: SocketAddr, bytes: &mut [u8]) {
        let main = self.steer.main();
        let paths = self.directs.iter().filter(|direct| direct.is_datagrams() && direct.is_usable());
        let of_path = paths.min_by_key(|direct| (direct.path() != main, direct.path())).map(Direct::via);
        // one that comes by a path that we gave up is still the peer's
        let via = of_path.or_else(|| self.control_via());
        if via.is_none() && self.unconfirmed(header.receiver).is_none() {
            room.drops.count(Drop::Unexpected);
            return;
        }
        let len = bytes.len();
        if self.frame(now, room, header, via, bytes) && self.strays.came(now, remote, len) {
            self.roamed(now, room, remote);
        }
    }

    /// A newer path to the same address, by the same socket, stands: the other end has let go of those before it. One by another socket is
    /// another path: the other end sees it come from another address.
    pub(super) fn supersede(&mut self, now: Instant, room: &mut Room, path: PathId) {
        let Some(new) = self.directs.iter().find(|direct| direct.path == path && direct.is_datagrams()) else { return };
        let (flow, remote) = (new.conn, new.trail.source.unwrap_or(new.remote));
        let is_own = room.is_own_flow(flow);
        let is_same =
            |old: &Direct, room: &Room| old.conn == flow || (!is_own && !room.is_own_flow(old.conn) && old.trail.source == Some(remote));
        while let Some(index) =
            self.directs.iter().position(|old| old.path != path && old.is_datagrams() && old.is_usable() && is_same(old, room))
        {
            let old = self.directs.remove(index);
            self.buried.bury(old.path);
            if self.steer.main() == old.path {
                room.edit(Edit::Switch { link: self.id, to: path });
                self.steer.goes_on_with(now, path);
            }
            room.edit(Edit::Unpath { link: self.id, path: old.path });
            room.hang_up(old.conn());
        }
    }
}
