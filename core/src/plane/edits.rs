//! What the control room orders: sessions that come, take over and go, paths that come, are left and are lost.
use super::{Edit, Install, Paths, Plane, RETIRING, Sink, board::Peer, meter::Metered, ring::Pool, send, session::Session};
use crate::{
    id::{ConnId, LinkId, PathId},
    time::Instant,
};

impl Plane {
    /// Carries out what the control room ordered.
    pub fn apply(&mut self, now: Instant, edit: Edit, sink: &mut dyn Sink) {
        let Some(link) = edit.link() else {
            if let Edit::Relay { conn, stands } = edit {
                self.relay(conn, stands);
            }
            return;
        };
        match edit {
            Edit::Relay { .. } => {}
            Edit::Peer { link, addresses, mac } => {
                let queue = self.share_of_queue();
                self.peers.entry(link).or_insert_with(|| Peer::new(queue));
                self.bridge.set_peer(link, &addresses, mac);
            }
            Edit::Forget { link } => self.forget(link),
            Edit::Install { link, install } => self.install(now, link, &install),
            Edit::Promote { link, local } => self.promote(now, link, local, sink),
            Edit::Epoch { local, keys, seal, .. } => {
                if let Some(session) = self.sessions.get_mut(&local) {
                    session.add_keys(now, &keys, seal);
                }
            }
            Edit::Path { link, path, via, window, rtt, budget } => {
                let Some(peer) = self.peers.get_mut(&link) else { return };
                let moved = peer.paths.put(path, via, window, rtt, budget);
                if moved {
                    self.path_lost(now, link, path, sink);
                }
                if moved && self.owes_on(link, path) {
                    // the path has a new connection: FallBack follows, and what it sends again goes before anything new (protocol 7.6)
                    return;
                }
            }
            Edit::Unpath { link, path } => {
                if let Some(peer) = self.peers.get_mut(&link) {
                    peer.paths.remove(path);
                }
                self.path_lost(now, link, path, sink);
                // the next session may number a path of its own like this one (protocol 5.4)
                for ended in self.sessions.values_mut().filter(|session| session.link == link && session.retire_at.is_some()) {
                    ended.tx.forget_path(path);
                }
            }
            Edit::Hedge { link, rescue } => self.with_lane(link, sink, |lane, paths, _| lane.hedge(paths, rescue)),
            Edit::Calm { link } => self.with_lane(link, sink, |lane, paths, sink| lane.calm(now, paths, sink)),
            Edit::Switch { link, to } => {
                self.with_lane(link, sink, |lane, paths, sink| lane.switch(now, paths, to, sink));
                self.rescue_old(now, link, sink);
            }
            Edit::FallBack { link, to } => {
                self.with_lane(link, sink, |lane, paths, sink| lane.fall_back(now, paths, to, sink));
                self.rescue_old(now, link, sink);
            }
            Edit::Retire { local, .. } => {
                self.retire(local);
                if let Some(peer) = self.peers.get_mut(&link) {
                    peer.narrows.retire(local);
                }
                self.open_gates(now, link, sink);
            }
        }
        self.pump(now, link, sink);
    }

    fn relay(&mut self, conn: ConnId, stands: bool) {
        if stands {
            self.relays.insert(conn);
        } else {
            self.relays.remove(&conn);
        }
    }

    /// A new session opens from now on. Its frames wait for the end of the one before, also when nothing of that was heard lately: what it
    /// sent may still be on its way, or be sent again when a path dies (protocol 3.10).
    fn install(&mut self, now: Instant, link: LinkId, install: &Install) {
        if self.install_narrow(link, install.local, install.lanes) {
            return;
        }
        let Some(peer) = self.peers.get(&link) else { return };
        let mut session = Session::new(now, link, install, self.config.mode, Pool::clone(&self.pool), self.place.lane);
        session.after = peer.current.filter(|old| self.sessions.contains_key(old));
        if session.after.is_some() {
            session.rx.order().close_gate(now);
        }
        let local = session.local;
        self.sessions.insert(local, session);
        self.rearm(local);
    }

    /// A session takes over; the one before goes on opening and sending again for a while.
    fn promote(&mut self, now: Instant, link: LinkId, local: u32, sink: &mut dyn Sink) {
        let Some(peer) = self.peers.get_mut(&link) else { return };
        let is_here = self.sessions.contains_key(&local);
        if !is_here && !peer.narrows.has(local) {
            return;
        }
        peer.narrows.promote(local);
        peer.queue.resume(now);
        let before = core::mem::replace(&mut peer.current, is_here.then_some(local));
        if let Some(old) = before
            && old != local
            && let Some(old) = self.sessions.get_mut(&old)
        {
            old.tx.close(now, &peer.paths, &mut Metered { sink, bytes: &mut self.bytes });
            old.retire_at = Some(now + RETIRING);
            let old = old.local;
            self.retiring.insert(old);
            self.rearm(old);
        }
        if is_here {
            self.waiting.insert(link);
        } else {
            self.pass_waiting(now, link, sink);
        }
    }

    /// A path is gone, or leads over another connection now: what was on its way there goes again, in whichever session it was sealed. A main
    /// path of the session that seals is left, or taken up again, when the control room says so; ended sessions help themselves.
    fn path_lost(&mut self, now: Instant, link: LinkId, path: PathId, sink: &mut dyn Sink) {
        let Some(peer) = self.peers.get(&link) else { return };
        let lives = peer.paths.via(path).is_some();
        for session in self.sessions.values_mut().filter(|session| session.link == link) {
            let sink = &mut Metered { sink: &mut *sink, bytes: &mut self.bytes };
            session.tx.path_lost(now, &peer.paths, path, sink);
            if lives && session.retire_at.is_some() && session.tx.main() == path {
                session.tx.fall_back(now, &peer.paths, path, sink);
            }
        }
        self.rescue_old(now, link, sink);
    }

    /// The paths are others now. Ended sessions whose main path is gone send what they owe on that of the session that seals.
    fn rescue_old(&mut self, now: Instant, link: LinkId, sink: &mut dyn Sink) {
        let Some(peer) = self.peers.get_mut(&link) else { return };
        let main = peer.current.and_then(|local| self.sessions.get(&local)).map(|session| session.tx.main());
        if let Some(to) = main.filter(|main| peer.paths.via(*main).is_some()) {
            peer.queue.resume(now);
            let old = self.sessions.values_mut().filter(|session| session.link == link && session.retire_at.is_some());
            for session in old.filter(|session| peer.paths.via(session.tx.main()).is_none()) {
                session.tx.fall_back(now, &peer.paths, to, &mut Metered { sink: &mut *sink, bytes: &mut self.bytes });
            }
        }
        self.rearm_all(link);
    }

    /// What waits in a session goes on when the one before it is done; that one may itself have waited for another (protocol 3.10).
    pub(super) fn open_gates(&mut self, now: Instant, link: LinkId, sink: &mut dyn Sink) {
        while let Some(local) = self.waits_no_more(link)
            && let Some(session) = self.sessions.get_mut(&local)
        {
            session.open_gate(now, &mut self.bridge, &mut self.drops, &mut Metered { sink: &mut *sink, bytes: &mut self.bytes });
            self.rearm(local);
        }
    }

    fn waits_no_more(&self, link: LinkId) -> Option<u32> {
        let is_done = |before| self.sessions.get(&before).is_none_or(Session::is_done);
        let free = |session: &&Session| session.link == link && session.rx.is_gated() && session.after.is_none_or(is_done);
        self.sessions.values().find(free).map(|session| session.local)
    }

    /// Sends what a replaced session owes, as far as there is room.
    pub(super) fn pump_old(&mut self, now: Instant, local: u32, sink: &mut dyn Sink) {
        if !self.retiring.contains(&local) {
            return;
        }
        if let Some(session) = self.sessions.get_mut(&local)
            && let Some(peer) = self.peers.get(&session.link)
        {
            session.tx.pump_copies(now, &peer.paths, &mut Metered { sink, bytes: &mut self.bytes });
            self.rearm(local);
        }
    }

    pub(super) fn retire(&mut self, local: u32) {
        self.retiring.remove(&local);
        let Some(session) = self.sessions.remove(&local) else { return };
        if let Some(at) = session.timer {
            self.timers.remove(&(at, local));
        }
        session.tx.count_unreceipted(&mut self.drops);
        if let Some(peer) = self.peers.get_mut(&session.link) {
            peer.keep_counters(&session);
            if peer.current == Some(local) {
                peer.current = None;
            }
        }
    }

    fn forget(&mut self, link: LinkId) {
        self.bridge.forget(link);
        self.peers.remove(&link);
        self.waiting.remove(&link);
        self.sessions.retain(|_, session| session.link != link);
        self.retiring.retain(|local| self.sessions.contains_key(local));
        self.timers.retain(|(_, local)| self.sessions.contains_key(local));
    }

    /// Whether frames that are not receipted went this path, the main one.
    fn owes_on(&self, link: LinkId, path: PathId) -> bool {
        let session = self.peers.get(&link).and_then(|peer| self.sessions.get(&peer.current?));
        session.is_some_and(|session| session.tx.main() == path && session.tx.is_owed())
    }

    fn with_lane(&mut self, link: LinkId, sink: &mut dyn Sink, act: impl FnOnce(&mut send::SendLane, &Paths, &mut dyn Sink)) {
        let Some(peer) = self.peers.get_mut(&link) else { return };
        let Some(session) = peer.current.and_then(|local| self.sessions.get_mut(&local)) else { return };
        act(&mut session.tx, &peer.paths, &mut Metered { sink, bytes: &mut self.bytes });
        let local = session.local;
        self.rearm(local);
    }
}
