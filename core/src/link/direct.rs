//! One direct path: proof by re-handshake, probes, suspicion and death (protocol 5.3, 5.4, 7.5).
//!
//! ```text
//!   dialled:  Proving ──RSP──▶ Usable ◀─────RSP────┐
//!   accepted: Asked ───CMP──▶  Usable ──stall, idle──▶ Usable in doubt ──no answer──▶ dead: fall back, hang up
//!   UDP:      Proving ──RSP──▶ Sizing ──RSP to a padded REQ──▶ Usable          (Asked likewise, by CMP)
//! ```
//! What only paths of datagrams do is in `datagram`.
mod facts;

use super::{
    Link,
    attempt::Way,
    follow::{Buried, Trail},
    live::label_of,
};
use crate::{
    drops::Drop,
    edges::{Chart, States, edges, turn},
    event::{Action, Note, TlsFacts},
    id::{ConnId, PathId},
    node::{Room, Source, Use},
    plane::{Edit, Rtt, Via},
    rehandshake::{Answerer, Asker, Ground, Refusal},
    session::{PathKey, Side},
    time::{Duration, Instant},
    wire::{LEAST_BUDGET, PathHeader, PathLabel, TYPE_PATH_CMP, TYPE_PATH_REQ, TYPE_PATH_RSP},
};
use core::net::SocketAddr;
use std::sync::Arc;

/// Live direct paths of one peer.
pub(super) const DIRECTS_MAX: usize = 16;
/// An idle path is probed at the latest after so long: many NATs expire at 30 s (protocol 6.3).
const IDLE_PROBE: Duration = Duration::from_secs(25);
/// Wait for the answer to an idle probe before the next one, and probes until death.
const IDLE_PROBE_WAIT: Duration = Duration::from_secs(1);
const PROBES: u32 = 3;
/// Bounds of the time in which a suspect path must answer (protocol 7.5): 2.5 PTO within them.
const DOUBT_LEAST: Duration = Duration::from_millis(250);
const DOUBT_MOST: Duration = Duration::from_millis(900);
/// Probes of a path that may carry less than before, and the time for them: more than in other doubts, since it may just lose much.
const SIZE_PROBES: u32 = 6;
const SIZE_DOUBT: Duration = Duration::from_millis(1_500);

/// After a change of our own addresses requests go out so often, each from where we are by then.
const MOVED_WAIT: Duration = Duration::from_millis(100);
const MOVED_PROBES: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// We asked; the answer must come by then.
    Proving { until: Instant },
    /// The other end asked and was answered; its COMPLETE must come by then.
    Asked { until: Instant },
    /// Proven by small messages; that the largest frames come through must be shown by then.
    Sizing { until: Instant },
    /// Proven.
    Usable { since: Instant },
}

edges!(State, "A direct path", [Proving, Asked, Sizing, Usable],
    Proving => Usable: "PATH_RSP to our PATH_REQ",
    Asked => Usable: "PATH_CMP, or PATH_RSP to a request of our own",
    Proving => Sizing: "UDP: PATH_RSP to our PATH_REQ, both small; or the handshake came that way",
    Asked => Sizing: "UDP: PATH_CMP behind a small PATH_REQ",
    Sizing => Usable: "the end of a re-handshake whose PATH_REQ was as large as the largest frame, or as a budget",
);

pub(super) const CHART: Chart = State::CHART;

/// A path that did not answer yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    since: Instant,
    next_at: Instant,
    wait: Duration,
    left: u32,
    until: Instant,
    /// Data is out without a receipt since then: copies go the relay.
    stalled_since: Option<Instant>,
    /// It must show that frames of its budget come through, whatever smaller ones do. Only that calls it off.
    of_size: bool,
}

impl Doubt {
    /// So many probes, the first of which goes out now, within this time.
    fn new(now: Instant, probes: u32, time: Duration) -> Self {
        let wait = time / probes;
        Self { since: now, next_at: now + wait, wait, left: probes - 1, until: now + time, stalled_since: None, of_size: false }
    }
}

/// One direct path.
pub(crate) struct Direct {
    pub(super) path: PathId,
    pub(super) conn: ConnId,
    pub(super) remote: SocketAddr,
    pub(super) state: State,
    asker: Asker,
    answerer: Answerer,
    /// Where its messages went.
    pub(super) trail: Trail,
    pub(super) first_at: Instant,
    rtt: Rtt,
    pub(super) heard_at: Instant,
    pub(super) doubt: Option<Doubt>,
    idle_after: Duration,
    /// Bytes that a re-handshake carries when a path of datagrams is in doubt: its budget. Before it is used, the full size; 0 on a stream.
    pub(super) size: usize,
    /// When the next request of a path of datagrams that is not usable yet goes out, and how many of this state went.
    pub(super) knock: Option<(Instant, u32)>,
    /// The other end asked at the same address, and was shown once that we are there.
    pub(super) is_met: bool,
}

impl Direct {
    pub(super) fn new(now: Instant, ground: Ground, conn: ConnId, remote: SocketAddr, state: State, room: &Room) -> Self {
        Self {
            path: ground.path,
            conn,
            remote,
            state,
            asker: Asker::new(ground),
            answerer: Answerer::new(ground),
            trail: Trail::default(),
            first_at: now,
            rtt: Rtt::default(),
            heard_at: now,
            doubt: None,
            idle_after: idle_after(room),
            size: if conn.is_flow() { room.config.largest_frame() } else { 0 },
            knock: None,
            is_met: false,
        }
    }

    /// Another `health_check_interval`, counted from when something was heard last.
    pub(super) fn tuned(&mut self, room: &Room) {
        self.idle_after = idle_after(room);
    }

    /// Another path died: this one must show life, too, at its whole size.
    pub(super) fn examine(&mut self, now: Instant, room: &mut Room, key: &PathKey) {
        if self.is_usable() && self.doubt.is_none() {
            self.doubt = Some(Doubt { of_size: self.is_datagrams(), ..Doubt::new(now, PROBES, DOUBT_MOST) });
            self.request(now, room, key, self.size);
        }
    }

    /// Somebody asks whether the other end is there, and nothing was heard here for a while (protocol 7.9).
    pub(super) fn examine_idle(&mut self, now: Instant, room: &mut Room, key: &PathKey) {
        if self.is_usable() && self.doubt.is_none() && now.since(self.heard_at) > IDLE_PROBE_WAIT {
            self.doubt = Some(Doubt::new(now, PROBES, DOUBT_MOST));
            self.request(now, room, key, 0);
        }
    }

    /// Frames were lost while others came: those of its budget must still come through.
    pub(super) fn examine_size(&mut self, now: Instant, room: &mut Room, key: &PathKey) {
        if self.is_usable() && self.doubt.is_none() {
            self.doubt = Some(Doubt { of_size: true, ..Doubt::new(now, SIZE_PROBES, SIZE_DOUBT) });
            self.request(now, room, key, self.size);
        }
    }

    /// Our own addresses changed: it must show life from where we are now, and so the other end learns where that is (protocol 8.4).
    pub(super) fn examine_anew(&mut self, now: Instant, room: &mut Room, key: &PathKey) {
        if !self.is_usable() {
            return;
        }
        let stalled = self.doubt.filter(|doubt| doubt.stalled_since.is_some());
        // it is no reason to wait much longer for a path that was suspect before
        let until = stalled.map_or(now + DOUBT_MOST, |doubt| doubt.until.max(now + DOUBT_LEAST));
        let stalled_since = stalled.and_then(|doubt| doubt.stalled_since);
        self.doubt = Some(Doubt { until, stalled_since, ..Doubt::new(now, MOVED_PROBES, MOVED_WAIT * MOVED_PROBES) });
        self.request(now, room, key, self.size);
    }

    /// Asks where it leads, by a request of this many bytes at least.
    pub(super) fn request(&mut self, now: Instant, room: &mut Room, key: &PathKey, size: usize) {
        self.request_at(now, room, key, self.remote, size);
    }

    /// Asks another address of the other end.
    pub(super) fn request_at(&mut self, now: Instant, room: &mut Room, key: &PathKey, remote: SocketAddr, size: usize) {
        let message = self.request_for(room, key, remote, size);
        self.trail.ask(now, self.asker.attempts(), remote);
        self.post(room, remote, message);
    }

    /// A request, for whoever sends it. What it takes to be answered says nothing of the round trip.
    pub(super) fn request_for(&mut self, room: &mut Room, key: &PathKey, remote: SocketAddr, size: usize) -> Vec<u8> {
        let nonce = room.entropy.secret::<32>();
        self.asker.request(key, remote, 0, *nonce, size)
    }

    /// A request of the other end came by another flow with a socket of its own, before the path is proven: that one it is.
    fn adopt(&mut self, room: &mut Room, source: Source) {
        if matches!(self.state, State::Asked { .. }) && source.own_flow.is_some_and(|flow| flow != self.conn) {
            let before = core::mem::replace(&mut self.conn, room.flow_of(source));
            self.remote = source.remote;
            room.hang_up(before);
        }
    }

    /// A message of the re-handshake goes to where its counterpart came from.
    fn post(&self, room: &mut Room, remote: SocketAddr, bytes: Vec<u8>) {
        if self.is_datagrams() && !(remote == self.remote && room.is_own_flow(self.conn)) {
            room.act(Action::Datagram { remote, bytes });
        } else {
            room.send(self.via(), &bytes);
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        match (self.state, self.doubt) {
            (State::Proving { until } | State::Asked { until } | State::Sizing { until }, _) => {
                self.knock.map_or(until, |(at, _)| until.min(at))
            }
            (State::Usable { .. }, Some(doubt)) if doubt.left > 0 => doubt.next_at.min(doubt.until),
            (State::Usable { .. }, Some(doubt)) => doubt.until,
            (State::Usable { .. }, None) => self.heard_at + self.idle_after,
        }
    }
}

impl Link {
    /// A dial to one of the peer's candidates is through: ask.
    pub(super) fn begin_path(
        &mut self,
        now: Instant,
        room: &mut Room,
        conn: ConnId,
        tls: &TlsFacts,
        remote: SocketAddr,
        until: Instant,
    ) -> bool {
        let Some(live) = &self.live else { return false };
        let Some(path) = fresh_path(&mut self.next_path, self.directs.len(), live.side()) else {
            room.drops.count(Drop::Accept);
            return false;
        };
        let ground = Ground { path, own_sid: live.local(), peer_sid: live.remote(), channel_binding: tls.exporter };
        let Some(key) = live.lane().keys().map(|keys| Arc::clone(&keys.path)) else { return false };
        let mut direct = Direct::new(now, ground, conn, remote, State::Proving { until }, room);
        direct.request(now, room, &key, 0);
        room.conns.insert(conn, Use::Direct { peer: self.peer, path });
        self.directs.push(direct);
        true
    }

    /// The first message on a connection that our listener took: the other end asks. False: it proves nothing.
    pub(crate) fn asked_on(
        &mut self,
        now: Instant,
        room: &mut Room,
        conn: ConnId,
        exporter: [u8; 32],
        remote: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        let Ok(header) = PathHeader::parse(bytes) else { return false };
        let path = header.path;
        let asked = self.answer_first(now, room, (conn, remote), exporter, header, bytes);
        if asked {
            room.conns.insert(conn, Use::Direct { peer: self.peer, path });
        }
        asked
    }

    /// Answers the first request on a path that the other end chose, if it proves the session.
    pub(super) fn answer_first(
        &mut self,
        now: Instant,
        room: &mut Room,
        (conn, remote): (ConnId, SocketAddr),
        channel_binding: [u8; 32],
        header: PathHeader,
        bytes: &[u8],
    ) -> bool {
        let Some(live) = self.live.as_ref().filter(|live| live.local() == header.receiver) else { return false };
        let parity_is_theirs = (header.path.0 % 2 == 1) != (live.side() == Side::Responder);
        let is_new = self.directs.iter().all(|direct| direct.path != header.path);
        if !parity_is_theirs || !is_new || header.path == PathId::RELAY || self.directs.len() >= DIRECTS_MAX {
            room.drops.count(Drop::Rehandshake);
            return false;
        }
        let Some(key) = live.lane().keys_of(now, header.epoch).map(|keys| Arc::clone(&keys.path)) else { return false };
        let ground = Ground { path: header.path, own_sid: live.local(), peer_sid: live.remote(), channel_binding };
        let until = now + room.config.connect_timeout;
        let mut direct = Direct::new(now, ground, conn, remote, State::Asked { until }, room);
        let nonce = room.entropy.secret::<32>();
        match direct.answerer.answer(&key, bytes, remote, 0, *nonce) {
            Ok(response) => {
                // the mac is over this connection's exporter: it is the peer who asks. It may send data right behind its COMPLETE, sooner
                // than that is looked at here, so the plane must open what comes before the answer goes out (protocol 6.2)
                if direct.is_in_plane() {
                    room.edit(Edit::Path {
                        link: self.id,
                        path: header.path,
                        via: direct.via(),
                        window: None,
                        rtt: None,
                        budget: direct.budget(),
                    });
                }
                direct.trail.answer(header.attempt, remote);
                direct.post(room, remote, response);
                self.directs.push(direct);
                true
            }
            Err(refusal) => {
                self.refused_path(room, refusal);
                false
            }
        }
    }

    /// A re-handshake message on a path that is known; `from`: where a datagram came from, if not on a stream.
    pub(crate) fn path_message(&mut self, now: Instant, room: &mut Room, path: PathId, from: Option<Source>, bytes: &[u8]) {
        let (Ok(header), Some(live)) = (PathHeader::parse(bytes), self.live.as_ref()) else {
            room.drops.count(Drop::Malformed);
            return;
        };
        let Some(key) = live.lane().keys_of(now, header.epoch).map(|keys| Arc::clone(&keys.path)) else {
            room.drops.count(Drop::UnknownEpoch);
            return;
        };
        let Some(direct) = self.directs.iter_mut().find(|direct| direct.path == path) else { return };
        let source = from.unwrap_or(Source { remote: direct.remote, own_flow: None });
        let from = source.remote;
        let result = match header.kind {
            TYPE_PATH_REQ => {
                let nonce = room.entropy.secret::<32>();
                direct.answerer.answer(&key, bytes, from, 0, *nonce).map(|response| {
                    direct.adopt(room, source);
                    direct.trail.answer(header.attempt, from);
                    direct.post(room, from, response);
                })
            }
            TYPE_PATH_RSP => match direct.asker.complete(&key, bytes, from, 0) {
                Ok((complete, proven)) => {
                    if let Some((asked_at, at)) = direct.trail.answers(proven.attempt(), from) {
                        direct.post(room, from, complete);
                        let sample = now.since(asked_at);
                        let first = direct.is_usable() && direct.rtt.smoothed().is_none();
                        direct.rtt.sample(sample);
                        if first {
                            room.edit(Edit::Path {
                                link: self.id,
                                path,
                                via: direct.via(),
                                window: None,
                                rtt: Some(sample),
                                budget: direct.budget(),
                            });
                        }
                        self.path_answers(now, room, path, at, proven.size());
                    } else {
                        self.port_found(now, room, path, from);
                    }
                    Ok(())
                }
                Err(refusal) => Err(refusal),
            },
            TYPE_PATH_CMP => match direct.answerer.confirm(&key, bytes) {
                Ok(proven) => {
                    let at = direct.trail.confirmed(proven.attempt(), from).unwrap_or(direct.remote);
                    self.path_answers(now, room, path, at, proven.size());
                    Ok(())
                }
                Err(refusal) => Err(refusal),
            },
            _ => Err(Refusal::Malformed),
        };
        match result {
            Ok(()) => {
                self.hear(now);
                if let Some(direct) = self.directs.iter_mut().find(|direct| direct.path == path) {
                    direct.heard_at = now;
                }
            }
            Err(refusal) => self.refused_path(room, refusal),
        }
    }

    pub(super) fn refused_path(&self, room: &mut Room, refusal: Refusal) {
        room.drops.count(Drop::Rehandshake);
        if refusal == Refusal::Forged {
            room.refuse(Some(self.peer), "a re-handshake message with a wrong MAC");
        }
    }

    /// The other end proved the path at this address, for the first time or again, by messages of this size.
    fn path_answers(&mut self, now: Instant, room: &mut Room, path: PathId, at: SocketAddr, size: usize) {
        let link = self.id;
        self.path_moves(now, room, path, at);
        let Some(direct) = self.directs.iter_mut().find(|direct| direct.path == path) else { return };
        let rtt = direct.rtt.smoothed();
        if direct.is_proving() && size < direct.size.min(LEAST_BUDGET) {
            self.size_path(now, room, path);
            return;
        }
        if direct.is_proving() {
            direct.knock = None;
            direct.size = direct.size.min(size);
            turn(&mut direct.state, State::Usable { since: now });
            direct.heard_at = now;
            let (via, budget, took) = (direct.via(), direct.budget(), now.since(direct.first_at));
            let is_detour = direct.is_detour();
            room.totals.connections_direct += u64::from(!is_detour);
            room.edit(Edit::Path { link, path, via, window: None, rtt, budget });
            room.note(Note::PathValidated { peer: self.peer, path, rehandshake: took, rtt });
            self.measure(now, room, path);
            if is_detour {
                self.is_reached(room);
            } else {
                self.attempt_succeeded(now, room, path);
            }
            self.consider(now, room);
            self.supersede(now, room, path);
            return;
        }
        let carries = size.min(room.config.largest_frame());
        if direct.is_datagrams() && carries > direct.size {
            // a larger request was answered late
            direct.size = carries;
            room.edit(Edit::Path { link, path, via: direct.via(), window: None, rtt: None, budget: direct.budget() });
        }
        let answered = direct.doubt.take_if(|doubt| !doubt.of_size || size >= direct.size);
        if answered.is_some_and(|doubt| doubt.stalled_since.is_some()) {
            room.edit(Edit::Calm { link });
        }
    }

    /// The end that was asked measures the round trip by a request of its own. Where less than the largest frame was answered first, it asks
    /// for that once more: what was lost may have been just that.
    fn measure(&mut self, now: Instant, room: &mut Room, path: PathId) {
        let (Some(key), full) = (self.path_key(), room.config.largest_frame()) else { return };
        let Some(direct) = self.directs.iter_mut().find(|direct| direct.path == path) else { return };
        if direct.is_datagrams() && direct.size < full {
            direct.request(now, room, &key, full);
        }
        if direct.rtt().is_none() {
            direct.request(now, room, &key, 0);
        }
    }

    /// The key that re-handshakes of the live session are sealed with.
    pub(super) fn path_key(&self) -> Option<Arc<PathKey>> {
        self.live.as_ref().and_then(|live| live.lane().keys()).map(|keys| Arc::clone(&keys.path))
    }

    /// Data went out on this path and no receipt came for a probe timeout (protocol 7.5).
    pub(super) fn suspect(&mut self, now: Instant, room: &mut Room, path: PathId, pto: Duration) {
        let rescue = self.rescue_path(path);
        let link = self.id;
        let Some(key) = self.path_key() else { return };
        let Some(direct) = self.directs.iter_mut().find(|direct| direct.path == path) else { return };
        if direct.is_suspect() {
            return;
        }
        let patience = (pto * 5 / 2).clamp(DOUBT_LEAST, DOUBT_MOST);
        direct.doubt = Some(Doubt { stalled_since: Some(now - pto), ..Doubt::new(now, PROBES, patience) });
        direct.request(now, room, &key, direct.size);
        if let Some(rescue) = rescue {
            room.edit(Edit::Hedge { link, rescue });
        }
    }

    pub(super) fn directs_alarm(&mut self, now: Instant, room: &mut Room) {
        let Some(key) = self.path_key() else { return };
        let mut dead = Vec::new();
        for direct in &mut self.directs {
            if direct.deadline() > now {
                continue;
            }
            match (direct.state, &mut direct.doubt) {
                (State::Proving { until } | State::Asked { until } | State::Sizing { until }, _) if until > now => {
                    direct.knock(now, room, &key);
                }
                (State::Proving { .. } | State::Asked { .. }, _) => dead.push((direct.path, "the re-handshake was not answered in time")),
                (State::Sizing { .. }, _) => dead.push((direct.path, "only small datagrams come through")),
                (State::Usable { .. }, Some(doubt)) if doubt.until <= now => {
                    let why = if doubt.of_size { "probes of its size were not answered" } else { "three probes were not answered" };
                    dead.push((direct.path, why));
                }
                (State::Usable { .. }, Some(doubt)) => {
                    doubt.left = doubt.left.saturating_sub(1);
                    doubt.next_at = now + doubt.wait;
                    let size = if doubt.stalled_since.is_some() || doubt.of_size { direct.size } else { 0 };
                    direct.request(now, room, &key, size);
                }
                (State::Usable { .. }, None) => {
                    direct.doubt = Some(Doubt::new(now, PROBES, IDLE_PROBE_WAIT * PROBES));
                    direct.request(now, room, &key, 0);
                }
            }
        }
        for (path, why) in dead {
            self.path_died(now, room, path, why);
        }
    }

    /// A direct path is dead: off it first, then close it.
    pub(super) fn path_died(&mut self, now: Instant, room: &mut Room, path: PathId, why: &'static str) {
        let Some(index) = self.directs.iter().position(|direct| direct.path == path) else { return };
        let direct = self.directs.remove(index);
        self.buried.bury(path);
        let was_usable = direct.is_usable();
        if was_usable && direct.is_datagrams() && !direct.is_detour() {
            self.remember_place(now, direct.remote());
        }
        if was_usable && self.steer.main() == path {
            self.fall_back(now, room, &direct, why);
        }
        if direct.is_detour() {
            self.detour_died(now, room, &direct);
        }
        if direct.is_in_plane() {
            room.edit(Edit::Unpath { link: self.id, path });
        }
        room.hang_up(direct.conn);
        if !was_usable {
            self.attempt_lost(now, room, Way::of(&direct), why);
        } else if !direct.is_detour() {
            // with a detour the peer is lost only where its relay is, and that says so
            self.mourn(room, why);
        }
        self.attempt_if_none(now);
        self.miss(now, room);
    }

    /// A direct connection was closed by the other end or by an error.
    pub(crate) fn direct_closed(&mut self, now: Instant, room: &mut Room, path: PathId) {
        self.path_died(now, room, path, "the connection was closed or reset");
    }

    /// Closes all direct paths: their session is replaced or ended.
    pub(super) fn drop_directs(&mut self, _now: Instant, room: &mut Room) {
        for direct in core::mem::take(&mut self.directs) {
            if direct.is_in_plane() {
                room.edit(Edit::Unpath { link: self.id, path: direct.path });
            }
            room.hang_up(direct.conn);
        }
        self.next_path = 0;
        self.buried = Buried::default();
        self.end_search(room);
    }
}

/// A number for a path that this end chooses: the session's initiator takes even ones, the responder odd ones (protocol 5.4).
pub(super) fn fresh_path(next: &mut u32, paths: usize, side: Side) -> Option<PathId> {
    if paths >= DIRECTS_MAX || *next >= u32::MAX / 4 {
        return None;
    }
    *next += 1;
    Some(PathId(*next * 2 + u32::from(side == Side::Responder)))
}

fn idle_after(room: &Room) -> Duration {
    room.config.health_check_interval.min(IDLE_PROBE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_before_an_idle_probe_does_not_call_it_off() {
        let start = Instant::from_millis(1000);
        let ground = Ground { path: PathId(2), own_sid: 1, peer_sid: 2, channel_binding: [0; 32] };
        let remote = SocketAddr::from(([192, 0, 2, 1], 4000));
        let room = crate::link::tests::room(Vec::new());
        let mut direct = Direct::new(start, ground, ConnId(4), remote, State::Usable { since: start }, &room);
        let later = start + IDLE_PROBE;
        direct.doubt = Some(Doubt::new(later, PROBES, IDLE_PROBE_WAIT));
        direct.heard(start);
        assert!(direct.doubt.is_some(), "the plane tells each second when data came last");
        direct.heard(later);
        assert!(direct.doubt.is_some(), "told after the doubt began, and heard before");
        direct.heard(later + IDLE_PROBE_WAIT / 2);
        assert!(direct.doubt.is_none());
    }
}
