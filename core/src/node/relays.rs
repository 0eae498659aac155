//! What relays tell a node, and when it does without them.
use super::{
    EAGER_MAX, Node,
    room::Relays,
    uplink::{News, Uplink},
};
use crate::{plane::Via, time::Instant, wire::RelayMessage};

impl Node {
    pub(super) fn news(&mut self, now: Instant, index: usize, news: News) {
        if news.lost {
            self.uplink_lost(now, index);
            return;
        }
        if news.up {
            self.refresh_surroundings(now);
        }
        let Some((conn, window)) = self.uplinks.get(index).and_then(Uplink::up).map(|up| (up.conn, up.window)) else { return };
        let goes = self.uplinks.get(index).is_some_and(Uplink::goes);
        if news.goes {
            for link in self.links.values_mut() {
                link.relay_drains(now, &mut self.room, index);
            }
        }
        for presence in news.presences {
            // who goes was perhaps known before it was shut out
            let is_meant = if presence.online { self.ensure_link(now, presence.peer) } else { self.links.contains_key(&presence.peer) };
            if is_meant {
                let via = Via { conn, handle: Some(presence.handle) };
                let eager = self.links.values().filter(|link| link.is_online()).take(EAGER_MAX + 1).count() <= EAGER_MAX;
                if let Some(link) = self.links.get_mut(&presence.peer) {
                    link.present(now, &mut self.room, index, presence, via, window, eager);
                    if goes {
                        link.relay_drains(now, &mut self.room, index);
                    }
                }
                if let Some(early) = self.answers.known_now(now, via) {
                    self.init(now, index, early.via, early.handle, &early.init);
                }
            }
        }
    }

    pub(super) fn uplink_lost(&mut self, now: Instant, index: usize) {
        for link in self.links.values_mut() {
            link.uplink_lost(now, &mut self.room, index);
        }
        self.room.close_door(index);
        self.refresh_surroundings(now);
        // with the last relay all that it told is gone, and nobody is left who could tell of others
        for link in self.links.values_mut() {
            link.miss(now, &self.room);
        }
    }

    /// Relays are told whom links mean by their receivers (protocol 8.8).
    pub(super) fn name_receivers(&mut self) {
        for (uplink, receiver, to) in self.room.take_named() {
            if let Some(uplink) = self.uplinks.get_mut(uplink) {
                uplink.say(&mut self.room, &RelayMessage::Route { receiver, to });
            }
        }
    }

    /// A relay goes away: this peer leaves it, if all can be reached over others (protocol 6.9).
    pub(super) fn leave_relay(&mut self, now: Instant, index: usize) {
        let others = self.uplinks.iter().any(|uplink| uplink.up().is_some() && !uplink.goes());
        let is_needed = !others || !self.links.values().all(|link| link.can_do_without(now, index));
        if let Some(uplink) = self.uplinks.get_mut(index) {
            uplink.leave(now, &mut self.room, is_needed);
        }
        if !is_needed {
            self.uplink_lost(now, index);
        }
    }

    /// Relays over which nothing came back from a peer, while others bring something, are asked for life.
    pub(super) fn doubt_relays(&mut self, now: Instant) {
        for index in self.room.take_relays_in_doubt() {
            if let Some(uplink) = self.uplinks.get_mut(index) {
                uplink.doubt(now);
            }
        }
    }

    /// `p2p.close_relay`: closes relays when every peer is direct, and dials them again when one is not.
    pub(super) fn park_or_wake(&mut self, now: Instant) {
        match self.room.take_relays() {
            Relays::Keep => return,
            Relays::Wake => {
                for uplink in &mut self.uplinks {
                    uplink.wake(now, &mut self.room);
                }
                return;
            }
            // also one that is there and has no session yet: without the relay it would never get one
            Relays::Park if self.links.values().any(|link| (link.live().is_some() || link.is_online()) && !link.is_direct()) => return,
            Relays::Park => {}
        }
        for index in 0..self.uplinks.len() {
            if let Some(uplink) = self.uplinks.get_mut(index) {
                uplink.park(&mut self.room);
            }
            for link in self.links.values_mut() {
                link.uplink_lost(now, &mut self.room, index);
            }
        }
    }
}
