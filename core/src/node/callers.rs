//! Handshakes that come by UDP, in fragments (protocol 8.6, 8.7): what is ours to answer, and what answers ours.
use super::{Node, Room, Source, answers::Caller};
use crate::{
    bound::Bound,
    bucket::{Bucket, Rate},
    drops::Drop,
    event::Action,
    fragments::{Arrived, Door, FragmentKey},
    handshake::peek_init,
    source::Source as Origin,
    time::Instant,
    wire::{CookieReply, Fragment, FragmentKind, TYPE_COOKIE_REPLY},
};
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// Handshakes of one source: as many as a relay lets one client send (protocol 9.4).
const HANDSHAKES: Rate = Rate { per_second: 2, burst: 64 };
/// Sources whose handshakes are counted; beyond, those go that have rested.
const ORIGINS_MAX: usize = 1_024;

/// The door for handshakes by UDP.
#[derive(Default)]
pub(super) struct Callers {
    door: Door,
    origins: BTreeMap<Origin, Bucket>,
}

impl Callers {
    pub(super) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        self.door.bounds(each);
        each(Bound::new("sources of handshakes by UDP", self.origins.len(), ORIGINS_MAX));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.door.deadline()
    }

    pub(super) fn alarm(&mut self, now: Instant) {
        self.door.expire(now);
    }

    /// Whether one more handshake of this source may be answered now; counts it.
    fn admit(&mut self, now: Instant, remote: SocketAddr) -> bool {
        let origin = Origin::of(remote);
        if self.origins.len() >= ORIGINS_MAX && !self.origins.contains_key(&origin) {
            self.origins.retain(|_, bucket| !bucket.is_full(now));
            if self.origins.len() >= ORIGINS_MAX {
                return false;
            }
        }
        self.origins.entry(origin).or_default().take(now, 1, HANDSHAKES)
    }
}

impl Node {
    /// Those whom the operator says where to find are asked for where no relay has them.
    pub(super) fn miss_listed(&mut self, now: Instant) {
        let listed = self.room.config.members.iter().filter(|member| !member.endpoints.is_empty());
        let listed: Vec<_> = listed.map(|member| self.room.config.present(member.id)).collect();
        for peer in listed {
            if self.ensure_link(now, peer)
                && let Some(link) = self.links.get_mut(&peer)
            {
                link.miss(now, &self.room);
            }
        }
    }

    /// FRAG or `COOKIE_REPLY`.
    pub(super) fn called(&mut self, now: Instant, source: Source, bytes: &[u8]) {
        if source.own_flow.is_some() {
            self.room.drops.count(Drop::Unexpected);
            return;
        }
        if bytes.first() == Some(&TYPE_COOKIE_REPLY) {
            let Ok(reply) = CookieReply::parse(bytes) else {
                self.room.drops.count(Drop::Malformed);
                return;
            };
            let peer = self.room.sids.get(&reply.sid).copied();
            match peer.and_then(|peer| self.links.get_mut(&peer)) {
                Some(link) => link.cookie(now, &mut self.room, source.remote, &reply),
                None => self.room.drops.count(Drop::Handshake),
            }
            return;
        }
        match Fragment::parse(bytes) {
            Ok(fragment) if fragment.kind == FragmentKind::Resp => {
                let peer = self.room.sids.get(&fragment.sid).copied();
                match peer.and_then(|peer| self.links.get_mut(&peer)) {
                    Some(link) => link.response_fragment(now, &mut self.room, source.remote, &fragment),
                    None => self.room.drops.count(Drop::Handshake),
                }
            }
            Ok(fragment) => self.fragment(now, source.remote, &fragment),
            Err(_) => self.room.drops.count(Drop::Malformed),
        }
    }

    /// A part of INIT or FIN.
    fn fragment(&mut self, now: Instant, remote: SocketAddr, fragment: &Fragment<'_>) {
        let Room { own_mac1, entropy, .. } = &mut self.room;
        match self.callers.door.take(now, own_mac1, remote, fragment, || entropy.secret::<32>()) {
            Ok(Arrived::Asked(bytes)) => self.room.act(Action::Datagram { remote, bytes }),
            Ok(Arrived::Kept) => {}
            Ok(Arrived::Whole { kind: FragmentKind::Init, sid, key, message }) => self.init_by_udp(now, remote, sid, key, &message),
            Ok(Arrived::Whole { message, .. }) => self.fin(&message),
            Err(reason) => self.room.drops.count(reason),
        }
    }

    /// A whole INIT of an address that has shown that it is there. Whose it is FIN will say.
    fn init_by_udp(&mut self, now: Instant, remote: SocketAddr, sid: u32, key: FragmentKey, init: &[u8]) {
        let is_its_own = peek_init(init).is_ok_and(|info| info.sid == sid);
        if !is_its_own || self.room.own_mac1.verify_init(init).is_err() {
            self.room.drops.count(Drop::Forged);
            return;
        }
        let caller = Caller::Udp(remote, key);
        if self.answers.repeat(now, &mut self.room, &caller, init) {
            return;
        }
        if self.room.leaving {
            self.room.drops.count(Drop::Handshake);
        } else if self.callers.admit(now, remote) {
            self.answers.begin(now, &mut self.room, caller, None, init);
        } else {
            self.room.drops.count(Drop::HandshakeRate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    // protocol 8.6
    #[test]
    fn handshakes_of_one_source_are_few_and_sources_beyond_the_table_wait_until_others_have_rested() {
        let mut callers = Callers::default();
        let now = Instant::from_millis(100_000);
        let host = |number: u32| SocketAddr::from(((0x0a00_0000 + number).to_be_bytes(), 5_000));
        assert_eq!((0..100).filter(|_| callers.admit(now, host(0))).count(), 64);
        let admitted = (1..2_000).filter(|number| callers.admit(now, host(*number))).count();
        assert_eq!(admitted, ORIGINS_MAX - 1);
        assert!(callers.admit(now, host(1)), "a source that is counted goes on");
        let later = now + Duration::from_secs(33);
        assert!(callers.admit(later, host(5_000)));
        assert_eq!(callers.origins.len(), 1, "those that have rested are not counted any more");
    }
}
