//! Whose overlay address is whose (protocol 2.4, 2.5): the derived one always, others to the first that was proven to hold them.
use super::Link;
use crate::{
    event::{Action, Note},
    id::PeerId,
    node::Room,
    path::candidate::{inside, inside_any},
    plane::Edit,
    wire::Params,
};
use core::net::IpAddr;

/// Addresses that one peer may hold by being first: as many as it may announce at one time. Without a bound a member could take
/// a whole prefix, sixteen addresses at a time, and fill what is remembered of it.
const CLAIMS_PER_PEER: usize = 16;

impl Link {
    /// What the peer said of itself, under the seal of the handshake.
    pub(super) fn take_params(&mut self, room: &mut Room, params: Params) {
        let own_name = room.config.member(self.peer).and_then(|member| member.name.clone());
        self.name = own_name.or_else(|| params.name.clone());
        if params.layer2 != room.config.layer2 {
            let theirs = if params.layer2 { "tap" } else { "tun" };
            room.refuse(
                Some(self.peer),
                format!("its interface is in mode {theirs} and ours is not: no packet can pass; use one mode in a network"),
            );
        }
        self.params = params;
        self.settle_addresses(room);
    }

    /// Other names and addresses may be listed for it now.
    pub(crate) fn members_changed(&mut self, room: &mut Room) {
        if self.live.is_some() {
            let params = core::mem::take(&mut self.params);
            self.take_params(room, params);
        }
    }

    /// Another identity took its place: no packet goes to it any more.
    pub(crate) fn give_up_addresses(&mut self, room: &mut Room) {
        self.addresses = Vec::new();
        let mac = room.config.network.mac_address(self.peer);
        room.edit(Edit::Peer { link: self.id, addresses: Vec::new(), mac });
    }

    /// Works out which addresses are the peer's, and tells the plane.
    pub(super) fn settle_addresses(&mut self, room: &mut Room) {
        let mut addresses = vec![IpAddr::V6(room.config.network.address_v6(self.peer))];
        let mut refused = Vec::new();
        for address in self.params.addresses.clone() {
            if addresses.contains(&address) {
                continue;
            }
            match self.claim(room, address) {
                Ok(()) => addresses.push(address),
                Err(why) => refused.push((address, why)),
            }
        }
        for (address, why) in &refused {
            if !self.refused.contains(&(*address, *why)) {
                room.note(Note::AddressRefused { peer: self.peer, address: *address, why });
            }
        }
        self.refused = refused;
        let mac = room.config.network.mac_address(self.peer);
        room.edit(Edit::Peer { link: self.id, addresses: addresses.clone(), mac });
        self.addresses = addresses;
    }

    fn claim(&self, room: &mut Room, address: IpAddr) -> Result<(), &'static str> {
        let allowed_to = |prefixes: &[(IpAddr, u8)]| prefixes.iter().any(|(prefix, len)| inside(*prefix, *len, address));
        if room.around.overlay.iter().any(|(own, _)| *own == address) {
            return Err("it is our own address");
        }
        let config = &room.config;
        let listed = config.members.iter().find(|member| allowed_to(&member.allowed)).map(|member| member.id);
        match listed {
            Some(holder) if config.has_place_of(self.peer, holder) => return Ok(()),
            Some(_) => return Err("it is listed as another peer's in [[peer]] allowed"),
            None => {}
        }
        // what was made of an identity stays with those that follow it (protocol 2.8)
        let before = config.followers.before(self.peer).into_iter().filter(|old| config.has_place_of(self.peer, *old));
        let line: Vec<PeerId> = core::iter::once(self.peer).chain(before).collect();
        if line.iter().any(|peer| address == IpAddr::V6(config.network.address_v6(*peer))) {
            return Ok(());
        }
        let own_v4_is_automatic = !room.config.addresses.iter().any(|(own, _)| own.is_ipv4());
        match address {
            IpAddr::V6(_) if inside(IpAddr::V6(room.config.network.prefix()), 64, address) => {
                return Err("it is not the address that follows from the PeerId");
            }
            IpAddr::V4(v4) if own_v4_is_automatic && !line.iter().any(|peer| v4 == config.network.address_v4(*peer)) => {
                return Err("it lies outside of our interface.address");
            }
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        if !inside_any(&room.around.overlay, address) {
            return Err("it lies outside of our interface.address");
        }
        match room.claims.get(&address) {
            Some(holder) if config.has_place_of(self.peer, *holder) => Ok(()),
            Some(_) => Err("another peer was proven to hold it first"),
            None if room.claims.values().filter(|holder| config.has_place_of(self.peer, **holder)).count() >= CLAIMS_PER_PEER => {
                Err("it holds as many addresses as a peer may")
            }
            None => {
                room.claims.insert(address, self.peer);
                room.act(Action::Remember { address, peer: self.peer });
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Member, id::LinkId, link::tests::room, succession::Succession, time::Instant};

    const OWN_NET: &str = "10.0.0.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// A link to a peer that announces these; the room's interface is 10.0.0.1/8.
    fn announced(room: &mut Room, peer: u8, addresses: &[&str]) -> Link {
        room.around.overlay = vec![(ip(OWN_NET), 8), (IpAddr::V6(room.config.network.address_v6(room.own)), 64)];
        let mut link = Link::new(Instant::ZERO, LinkId(u32::from(peer)), PeerId([peer; 32]), room);
        link.take_params(room, Params { addresses: addresses.iter().map(|text| ip(text)).collect(), ..Params::default() });
        link
    }

    // protocol 2.4
    #[test]
    fn each_peer_has_its_derived_address_and_nobody_else_can_announce_it() {
        let room = &mut room(Vec::new());
        let derived = IpAddr::V6(room.config.network.address_v6(PeerId([1; 32])));
        let first = announced(room, 1, &[]);
        assert_eq!(first.addresses, [derived]);
        let second = announced(room, 2, &[&derived.to_string()]);
        assert!(!second.addresses.contains(&derived));
        assert_eq!(second.refused.len(), 1);
    }

    // protocol 2.5
    #[test]
    fn the_first_proven_holder_keeps_an_address_and_a_listed_one_wins() {
        let listed = Member { id: PeerId([3; 32]), name: None, allowed: vec![(ip("10.9.0.0"), 16)], endpoints: Vec::new() };
        let room = &mut room(vec![listed]);
        let first = announced(room, 1, &["10.1.1.1", "10.9.0.1"]);
        assert!(first.addresses.contains(&ip("10.1.1.1")));
        assert!(!first.addresses.contains(&ip("10.9.0.1")), "it is listed as another's");
        let second = announced(room, 2, &["10.1.1.1"]);
        assert_eq!(second.refused, [(ip("10.1.1.1"), "another peer was proven to hold it first")]);
        let third = announced(room, 3, &["10.9.0.1"]);
        assert!(third.addresses.contains(&ip("10.9.0.1")));
        let fourth = announced(room, 4, &[OWN_NET, "192.0.2.1"]);
        assert_eq!(fourth.addresses.len(), 1, "ours, and one outside of our prefix: {:?}", fourth.refused);
        assert!(announced(room, 1, &["10.1.1.1"]).addresses.contains(&ip("10.1.1.1")), "and it keeps it");
    }

    // protocol 2.5
    #[test]
    fn what_was_claimed_before_a_restart_is_still_the_holders() {
        let room = &mut room(Vec::new());
        room.claims.insert(ip("10.1.1.1"), PeerId([1; 32]));
        assert!(!announced(room, 2, &["10.1.1.1"]).addresses.contains(&ip("10.1.1.1")));
        assert!(announced(room, 1, &["10.1.1.1"]).addresses.contains(&ip("10.1.1.1")));
    }

    // protocol 2.3, 2.5, 2.8
    #[test]
    fn what_is_said_of_an_identity_holds_for_those_that_follow_it_and_not_for_those_before() {
        let [before, id, after] = [2, 3, 4].map(|n| PeerId([n; 32]));
        let listed = Member { id, name: Some("x".to_owned()), allowed: vec![(ip("10.9.0.0"), 16)], endpoints: Vec::new() };
        let room = &mut room(vec![listed]);
        let follows = |room: &mut Room, old, new, proven| room.config.followers.remember(Succession { old, new, proven });
        follows(room, before, id, false);
        follows(room, id, after, false);
        let admitted = |room: &Room| [before, id, after].map(|peer| room.config.admits(peer));
        assert_eq!(admitted(room), [false, true, true], "who was taken off the list does not come back");
        let derived = IpAddr::V6(room.config.network.address_v6(id));
        let known = announced(room, 4, &["10.9.0.1", &derived.to_string()]);
        assert_eq!((known.name.as_deref(), known.refused.len()), (Some("x"), 0));
        assert!(known.addresses.contains(&derived) && known.addresses.contains(&ip("10.9.0.1")));
        room.config.revoked = vec![id];
        assert_eq!(admitted(room), [false; 3], "who is revoked passes nothing on");
        assert_eq!(announced(room, 4, &["10.9.0.1", &derived.to_string()]).refused.len(), 2);
        room.config.revoked = Vec::new();
        follows(room, id, after, true);
        assert_eq!(admitted(room), [false, false, true], "the new one has been here");
    }

    // protocol 2.5, 2.8
    #[test]
    fn what_a_follower_holds_is_not_for_those_that_it_follows() {
        let [before, id] = [2, 4].map(|n| PeerId([n; 32]));
        let listed = Member { id, name: None, allowed: vec![(ip("10.9.0.0"), 16)], endpoints: Vec::new() };
        let room = &mut room(vec![listed]);
        assert!(announced(room, 4, &["10.0.0.7"]).refused.is_empty());
        room.config.followers.remember(Succession { old: before, new: id, proven: false });
        assert_eq!(announced(room, 2, &["10.0.0.7", "10.9.0.1"]).refused.len(), 2);
    }

    #[test]
    fn a_peer_whose_interface_is_of_the_other_mode_is_named_with_what_to_do() {
        for (here, there, mode) in [(false, true, "tap"), (true, false, "tun")] {
            let room = &mut room(Vec::new());
            room.config.layer2 = here;
            let mut link = Link::new(Instant::ZERO, LinkId(1), PeerId([1; 32]), room);
            link.take_params(room, Params { layer2: there, ..Params::default() });
            let mut actions = Vec::new();
            room.drain(usize::MAX, &mut actions);
            let refused = actions.iter().find_map(|action| match action {
                Action::Note(Note::Refused { what, .. }) => Some(what),
                _ => None,
            });
            assert!(refused.is_some_and(|what| what.contains(mode) && what.contains("use one mode in a network")), "{refused:?}");
        }
    }

    // protocol 2.4
    #[test]
    fn where_ipv4_addresses_are_automatic_a_peer_has_no_other_than_its_own() {
        let room = &mut room(Vec::new());
        room.config.addresses.clear();
        let automatic = room.config.network.address_v4(PeerId([1; 32])).to_string();
        let other = room.config.network.address_v4(PeerId([2; 32])).to_string();
        let link = announced(room, 1, &[&other, "192.0.2.1"]);
        assert_eq!(link.addresses.len(), 1, "the derived one");
        room.around.overlay = vec![(ip("100.64.0.1"), 10)];
        let mut link = link;
        link.take_params(room, Params { addresses: vec![ip(&automatic), ip(&other)], ..Params::default() });
        assert_eq!(link.addresses[1..], [ip(&automatic)]);
    }
}
