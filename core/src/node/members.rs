//! What changes while the peer runs: who may be a member (protocol 2.3), and how patient it is (protocol 6.3, 7.5).
use super::{
    Node,
    uplink::{News, Uplink},
};
use crate::{
    config::{Member, Tuning},
    id::PeerId,
    time::Instant,
};

impl Node {
    /// Takes over another list of members and of those who are none. Whoever is out is left at once; whoever is in and online is greeted.
    pub(super) fn change_members(&mut self, now: Instant, members: Vec<Member>, revoked: Vec<PeerId>) {
        let Self { room, links, .. } = self;
        (room.config.members, room.config.revoked) = (members, revoked);
        for (peer, link) in links {
            if room.config.admits(*peer) {
                link.members_changed(room);
            } else {
                link.shut_out(now, room);
            }
        }
        self.miss_listed(now);
        for index in 0..self.uplinks.len() {
            let presences = self.uplinks.get(index).map(Uplink::presences).unwrap_or_default();
            self.news(now, index, News { presences, ..News::default() });
        }
    }

    /// Takes over other waits. No session and no path ends by that, but the relays' connections when they are to be closed.
    pub(super) fn tune(&mut self, now: Instant, tuning: Tuning) {
        let Tuning { retry_interval, health_check_interval, connect_timeout, close_relay } = tuning;
        let Self { room, links, .. } = self;
        let config = &mut room.config;
        (config.retry_interval, config.health_check_interval, config.connect_timeout) =
            (retry_interval, health_check_interval, connect_timeout);
        let closed = core::mem::replace(&mut config.close_relay, close_relay);
        if closed != close_relay {
            if close_relay { room.park_when_direct() } else { room.wake_relays() }
        }
        for link in links.values_mut() {
            link.tuned(now, room);
        }
    }
}
