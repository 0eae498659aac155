//! Datagrams over a relay, where there is no direct path (protocol 8.8): taken without loss, left without loss, and only when they are needed.
use shadowmesh_core::{config::Transports, event::Note, wire::PathLabel};
use shadowmesh_fuzz::world::{Depends, HostId, NatKind, World};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const DETOUR: Option<PathLabel> = Some(PathLabel::RelayUdp);

/// Two peers that send over relays alone.
fn pair(world: &mut World, relays: &[HostId]) -> (HostId, HostId) {
    let [a, b] = [0, 1].map(|_| {
        world.peer_with(relays, |plan| {
            plan.config.direct = Transports::NONE;
            plan.config.relay_udp = true;
        })
    });
    (a, b)
}

fn until_detour(world: &mut World, a: HostId, b: HostId) -> Duration {
    world.until("both send datagrams over the relay", SOON, |world| world.label(a, b) == DETOUR && world.label(b, a) == DETOUR)
}

// protocol 8.8
#[test]
fn data_take_the_relays_udp_port_without_loss_and_an_idle_session_does_not() {
    let mut world = World::new(1);
    let relay = world.relay();
    let (a, b) = pair(&mut world, &[relay]);
    world.until_connected(a, b);
    world.run(Duration::from_secs(30));
    assert_eq!(world.label(a, b), Some(PathLabel::RelayWss), "nothing flows");
    let flows = world.both_ways(a, b, 1_000);
    let took = until_detour(&mut world, a, b);
    assert!(took < Duration::from_secs(4), "{took:?}");
    world.run(Duration::from_secs(30));
    world.assert_whole(&flows);
    for (one, other) in [(a, b), (b, a)] {
        let peer = world.peer_status(one, other).expect("known");
        assert_eq!((peer.migrations, peer.fallbacks), (0, 0), "it is on the relay as before");
        assert_eq!(world.status(one).totals.connections_direct, 0, "that is no direct path");
    }
    assert_eq!(world.amplified(), None);
}

// protocol 8.8
#[test]
fn two_behind_boxes_that_map_by_destination_have_it() {
    for seed in 2..6 {
        let mut world = World::new(seed);
        let relay = world.relay();
        let strict = NatKind { mapping: Depends::AddressAndPort, filtering: Depends::AddressAndPort, ..NatKind::default() };
        let peers = [0, 1].map(|_| {
            let nat = world.nat(strict, None);
            let peer = world.idle_peer(&[relay], |plan| {
                plan.config.direct = Transports::ALL;
                plan.config.relay_udp = true;
                plan.interfaces.retain(|(ip, _)| ip.is_ipv4());
            });
            world.put_behind(peer, nat);
            world.start(peer);
            peer
        });
        let [a, b] = peers;
        world.until_connected(a, b);
        let flows = world.both_ways(a, b, 500);
        until_detour(&mut world, a, b);
        let took = world.notes(a).iter().find_map(|(_, note)| match note {
            Note::Migrated { to: PathLabel::RelayUdp, took, .. } => Some(*took),
            _ => None,
        });
        assert!(took.is_some_and(|took| took < Duration::from_secs(1)), "{took:?}: the search for direct paths before it does not count");
        world.run(Duration::from_mins(2));
        assert_eq!((world.label(a, b), world.label(b, a)), (DETOUR, DETOUR), "the mapping is kept");
        world.assert_whole(&flows);
    }
}

// protocol 7.5, 8.8
#[test]
fn when_datagrams_do_not_reach_the_relay_any_more_the_connection_carries_all() {
    let mut world = World::new(10);
    let relay = world.relay();
    let (a, b) = pair(&mut world, &[relay]);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 1_000);
    until_detour(&mut world, a, b);
    world.run(Duration::from_secs(1));
    world.change_way(a, relay, |way| way.mtu = 20);
    world.until_relayed(a, b);
    world.run(Duration::from_secs(30));
    for flow in flows {
        let gap = world.longest_gap(flow);
        assert!(gap < Duration::from_millis(300), "{gap:?}");
    }
    assert!(world.noted(a, |note| matches!(note, Note::Migrated { .. })) <= 2, "what does not work is not taken again");
    world.change_way(a, relay, |way| way.mtu = 1_500);
    world.until("datagrams again", Duration::from_mins(6), |world| world.label(a, b) == DETOUR && world.label(b, a) == DETOUR);
    world.assert_whole(&flows);
}

// protocol 6.1, 8.8
#[test]
fn a_direct_path_that_comes_later_is_taken_and_the_detour_let_go_of() {
    let mut world = World::new(11);
    let relay = world.relay();
    let [a, b] = [0, 1].map(|_| {
        world.peer_with(&[relay], |plan| {
            plan.config.direct = Transports::UDP;
            plan.config.relay_udp = true;
            plan.config.retry_interval = Duration::from_secs(5);
        })
    });
    world.cut(a, b);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 1_000);
    until_detour(&mut world, a, b);
    world.run(Duration::from_secs(5));
    world.heal(a, b);
    world.until_udp(a, b);
    world.run(Duration::from_secs(12));
    let paths = world.peer_status(a, b).expect("known").paths;
    assert!(paths.iter().all(|path| path.label != PathLabel::RelayUdp), "{paths:?}");
    world.cut(a, b);
    world.until_relayed(a, b);
    until_detour(&mut world, a, b);
    world.assert_whole(&flows);
}

// protocol 7.10, 8.8
#[test]
fn when_its_relay_dies_another_one_carries_and_is_asked_for_the_same() {
    let mut world = World::new(12);
    let relays = [world.relay(), world.relay()];
    let (a, b) = pair(&mut world, &relays);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 1_000);
    until_detour(&mut world, a, b);
    world.run(Duration::from_secs(3));
    let path = world.peer_status(a, b).and_then(|peer| peer.path).expect("it is connected");
    let carrier = relays[path.relay.expect("a relay")];
    world.kill(carrier);
    world.until_relayed(a, b);
    until_detour(&mut world, a, b);
    world.run(Duration::from_secs(1));
    world.assert_whole(&flows);
}

// protocol 8.8
#[test]
fn after_a_restart_of_the_relay_or_a_move_of_a_peer_it_is_found_again() {
    let mut world = World::new(13);
    let relay = world.relay();
    let (a, b) = pair(&mut world, &[relay]);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 100);
    until_detour(&mut world, a, b);
    world.kill(relay);
    world.run(Duration::from_secs(1));
    world.restart(relay);
    world.until_relayed(a, b);
    until_detour(&mut world, a, b);
    world.move_host(a);
    world.run(Duration::from_secs(3));
    world.until("datagrams again", Duration::from_mins(1), |world| world.label(a, b) == DETOUR && world.label(b, a) == DETOUR);
    world.run(Duration::from_secs(2));
    for flow in flows {
        let account = world.account_of(flow);
        assert_eq!((account.doubled, account.reordered), (0, 0), "{account:?}");
    }
}
