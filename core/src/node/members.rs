//! What changes while the peer runs: who may be a member (protocol 2.3), and how patient it is (protocol 6.3, 7.5).
use super::{
    Node,
    uplink::{News, Uplink},
};
use crate::{
    config::{Member, Tuning},
    id::PeerId,
    link::Link,
    status::SuccessionStatus,
    succession::Statement,
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

    /// An identity will follow ours: those who are there are told (protocol 2.8).
    pub(super) fn succeed(&mut self, now: Instant, statement: Statement) {
        let Self { room, links, .. } = self;
        if statement.said().0 != room.own {
            room.refuse(None, "a succession that does not begin with our own identity");
            return;
        }
        match room.config.followers.announce(statement) {
            Ok(true) => {}
            // told once a session: a command that is given again and again must not fill the streams
            Ok(false) => return,
            Err(why) => {
                room.refuse(None, format!("the succession of our own identity: {why}"));
                return;
            }
        }
        for link in links.values_mut() {
            link.announce_succession(now, room);
        }
    }

    /// Whoever's place another identity has taken is left, and its addresses go over.
    pub(super) fn part_with_retired(&mut self, now: Instant) {
        let retired = self.room.take_retired();
        if retired.is_empty() {
            return;
        }
        let Self { room, links, .. } = self;
        for old in &retired {
            if let Some(link) = links.get_mut(old) {
                link.shut_out(now, room);
                link.give_up_addresses(room);
            }
        }
        for link in links.values_mut() {
            link.members_changed(room);
        }
    }

    /// The succession of our own that has not taken effect, and who is not told of it.
    pub(super) fn succession_status(&self) -> Option<SuccessionStatus> {
        let (old, new) = self.room.config.followers.own().last()?.said();
        if old != self.room.own {
            return None;
        }
        let knows = |peer: PeerId| self.links.get(&peer).is_some_and(Link::knows_succession);
        let met = self.links.iter().filter(|(_, link)| link.was_met()).map(|(peer, _)| *peer);
        let config = &self.room.config;
        let listed = config.members.iter().map(|member| config.present(member.id));
        let is_another = |peer: &PeerId| ![old, new].contains(peer) && config.admits(*peer);
        let all: std::collections::BTreeSet<PeerId> = met.chain(listed).filter(is_another).collect();
        Some(SuccessionStatus { new, untold: all.into_iter().filter(|peer| !knows(*peer)).collect() })
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
