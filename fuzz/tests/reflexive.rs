//! A peer learns its UDP address from its relays, whatever lies between (protocol 8.1).
use shadowmesh_fuzz::world::{Depends, NatKind, World};
use std::{net::SocketAddr, time::Duration};

const RULES: [Depends; 3] = [Depends::Nothing, Depends::Address, Depends::AddressAndPort];

// protocol 8.1
#[test]
fn a_peer_behind_a_box_learns_its_outer_address_and_whether_it_varies() {
    for mapping in RULES {
        let mut world = World::new(3);
        let relay = world.relay();
        let nat = world.nat(NatKind { mapping, filtering: Depends::AddressAndPort, ..NatKind::default() }, None);
        let peer = world.idle_peer(&[relay], |_| {});
        world.put_behind(peer, nat);
        world.start(peer);
        world.open_peer_socket(peer);
        world.run(Duration::from_secs(5));
        let status = world.status(peer);
        let reflexive = status.relays[0].reflexive.expect("the relay has answered");
        assert_eq!(reflexive.ip(), world.outer_address(nat));
        // one relay has one address: a mapping that depends on no more than that looks the same from both of its ports
        assert_eq!(status.relays[0].mapping_varies, Some(mapping == Depends::AddressAndPort), "{mapping:?}");
        assert_eq!(world.amplified(), None, "an answer is as long as its question");
    }
}

// protocol 8.1
#[test]
fn the_mapping_lives_as_long_as_the_relay_session_and_what_comes_in_by_it_reaches_the_peer() {
    let mut world = World::new(4);
    let relay = world.relay();
    let nat = world.nat(NatKind { filtering: Depends::Nothing, expiry: Duration::from_secs(30), ..NatKind::default() }, None);
    let peer = world.idle_peer(&[relay], |_| {});
    world.put_behind(peer, nat);
    world.start(peer);
    world.open_peer_socket(peer);
    let stranger = world.stranger();
    world.open_socket(stranger, 9);
    world.run(Duration::from_secs(5));
    let first = world.status(peer).relays[0].reflexive.expect("the relay has answered");
    for _ in 0..5 {
        world.run(Duration::from_mins(1));
        let status = world.status(peer);
        assert_eq!(status.relays[0].reflexive, Some(first), "questions keep it");
        let before = unexpected(&mut world, peer);
        world.send_datagram(stranger, 9, first, b"\x77 hello");
        world.run(Duration::from_secs(1));
        assert_eq!(unexpected(&mut world, peer), before + 1, "it came in, and was nothing that a stranger may say");
    }
}

// protocol 8.1
#[test]
fn lost_and_doubled_datagrams_delay_it_at_most() {
    let mut world = World::new(5);
    let relay = world.relay();
    let peer = world.peer(relay);
    world.change_way(peer, relay, |way| (way.loss, way.doubling, way.reordering) = (300, 300, 200));
    world.open_peer_socket(peer);
    world.run(Duration::from_mins(2));
    let status = world.status(peer);
    let seen: SocketAddr = status.relays[0].reflexive.expect("some question and its answer came through");
    assert_eq!((seen.ip(), status.relays[0].mapping_varies), (world.address(peer, true), Some(false)));
    assert_eq!(world.amplified(), None);
}

// protocol 8.1
#[test]
fn a_relay_without_udp_is_not_asked() {
    let mut world = World::new(6);
    let relay = world.relay_with(|config| config.udp_ports = [None; 2]);
    world.start(relay);
    world.open_socket(relay, 443);
    let peer = world.peer(relay);
    world.open_peer_socket(peer);
    world.run(Duration::from_mins(1));
    assert_eq!(world.status(peer).relays[0].reflexive, None);
    assert!(world.hear(relay, 443).is_empty());
}

fn unexpected(world: &mut World, peer: shadowmesh_fuzz::world::HostId) -> u64 {
    let status = world.status(peer);
    status.drops.iter().find(|(name, _)| *name == "unexpected").map_or(0, |(_, count)| *count)
}
