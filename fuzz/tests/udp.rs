//! Direct paths by UDP: found, proven, used, left, followed when an address changes; and what they do not do.
use shadowmesh_core::{config::Transports, event::Note, wire::PathLabel};
use shadowmesh_fuzz::world::{HostId, World};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

fn pair(world: &mut World) -> (HostId, HostId) {
    let relay = world.relay();
    let [a, b] = [0, 1].map(|_| world.peer_with(&[relay], |plan| plan.config.direct = Transports::ALL));
    (a, b)
}

// protocol 6.1, 7.2
#[test]
fn two_peers_meet_on_the_relay_and_go_direct_by_udp_without_loss() {
    let mut world = World::new(1);
    let (a, b) = pair(&mut world);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 1_000);
    let took = world.until_udp(a, b);
    assert!(took < Duration::from_millis(500), "{took:?}");
    world.run(Duration::from_secs(2));
    world.assert_whole(&flows);
    for (one, other) in [(a, b), (b, a)] {
        let peer = world.peer_status(one, other).expect("known");
        assert_eq!((peer.migrations, peer.fallbacks), (1, 0), "there was no stop at a worse path");
    }
}

// protocol 6.9
#[test]
fn a_way_that_carries_small_datagrams_alone_is_not_taken() {
    let mut world = World::new(2);
    let (a, b) = pair(&mut world);
    world.change_way(a, b, |way| way.mtu = 1_300);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 100);
    world.until("a direct connection of the other kind", SOON, |world| world.label(a, b) == Some(PathLabel::DirectWss));
    world.run(Duration::from_secs(10));
    assert_eq!(world.noted(a, |note| matches!(note, Note::Migrated { to: PathLabel::DirectUdp, .. })), 0);
    world.assert_whole(&flows);
}

// protocol 7.5
#[test]
fn when_the_way_dies_the_relay_takes_over_without_loss_and_udp_is_found_again() {
    let mut world = World::new(3);
    let (a, b) = pair(&mut world);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.until_udp(a, b);
    world.run(Duration::from_secs(1));
    world.cut(a, b);
    world.until_relayed(a, b);
    world.run(Duration::from_secs(3));
    world.heal(a, b);
    world.until_udp(a, b);
    world.run(Duration::from_secs(1));
    for flow in flows {
        let gap = world.longest_gap(flow);
        assert!(gap < Duration::from_millis(500), "{gap:?}");
    }
    world.assert_whole(&flows);
}

// protocol 7.5
#[test]
fn a_way_that_dies_in_one_direction_is_left_by_both() {
    let mut world = World::new(4);
    let (a, b) = pair(&mut world);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.until_udp(a, b);
    world.run(Duration::from_secs(1));
    world.cut_one_way(a, b);
    world.until_relayed(a, b);
    world.run(Duration::from_secs(1));
    world.assert_whole(&flows);
}

// protocol 6.9, 7.5
#[test]
fn a_way_that_comes_to_carry_less_is_left() {
    let mut world = World::new(5);
    let (a, b) = pair(&mut world);
    world.until_connected(a, b);
    let flows = [(a, b), (b, a)].map(|(from, to)| world.stream_of(from, to, 500, 1_300));
    world.until_udp(a, b);
    world.run(Duration::from_secs(1));
    world.change_way(a, b, |way| way.mtu = 1_200);
    world.until("nobody sends by UDP", SOON, |world| {
        [world.label(a, b), world.label(b, a)].iter().all(|label| *label != Some(PathLabel::DirectUdp))
    });
    world.run(Duration::from_secs(2));
    world.assert_whole(&flows);
}

// protocol 6.8
#[test]
fn a_peer_that_moves_is_followed_and_nothing_is_lost() {
    let mut world = World::new(6);
    let (a, b) = pair(&mut world);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.until_udp(a, b);
    world.run(Duration::from_secs(1));
    world.move_host(a);
    world.run(Duration::from_secs(5));
    world.until_udp(a, b);
    world.run(Duration::from_secs(1));
    world.assert_whole(&flows);
}
