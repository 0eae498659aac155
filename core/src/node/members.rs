//! Who may be a member, and what follows when that changes while the peer runs (protocol 2.3).
use super::{
    Node,
    uplink::{News, Uplink},
};
use crate::{config::Member, id::PeerId, time::Instant};

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
        for index in 0..self.uplinks.len() {
            let presences = self.uplinks.get(index).map(Uplink::presences).unwrap_or_default();
            self.news(now, index, News { presences, ..News::default() });
        }
    }
}
