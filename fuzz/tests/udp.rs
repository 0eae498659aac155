//! Direct paths by UDP: found, proven, used, left, followed when an address changes; and what they do not do.
use shadowmesh_core::{
    config::Transports,
    event::{Event, MappingProtocol, Note, PortMapping},
    wire::{PathLabel, Transport},
};
use shadowmesh_fuzz::world::{Depends, FlowId, HostId, NatKind, Ports, World};
use std::{net::SocketAddr, time::Duration};

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

// protocol 8.3
#[test]
fn a_way_that_carries_small_datagrams_alone_is_not_taken() {
    let mut world = World::new(2);
    let (a, b) = pair(&mut world);
    world.change_way(a, b, |way| way.mtu = 1_060);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 100);
    world.until("a direct connection of the other kind", SOON, |world| world.label(a, b) == Some(PathLabel::DirectWss));
    world.run(Duration::from_secs(10));
    assert_eq!(world.noted(a, |note| matches!(note, Note::Migrated { to: PathLabel::DirectUdp, .. })), 0);
    world.assert_whole(&flows);
}

// protocol 8.3
#[test]
fn a_way_of_1124_bytes_carries_packets_of_1400_by_udp_through_an_upgrade_a_death_and_another_upgrade() {
    for (seed, mtu) in [(41, 1_124), (42, 1_200), (43, 1_280), (44, 1_400)] {
        let mut world = World::new(seed);
        let (a, b) = pair(&mut world);
        world.change_way(a, b, |way| way.mtu = mtu);
        world.until_connected(a, b);
        let flows = [(a, b), (b, a)].map(|(from, to)| world.stream_of(from, to, 500, 1_400));
        let took = world.until_udp(a, b);
        assert!(took < Duration::from_millis(1_500), "{took:?}");
        world.run(Duration::from_secs(2));
        world.cut(a, b);
        world.until_relayed(a, b);
        world.run(Duration::from_secs(1));
        world.heal(a, b);
        world.until_udp(a, b);
        world.run(Duration::from_secs(1));
        world.assert_whole(&flows);
    }
}

/// Receipts for the small frames made the path look healthy for ever.
// protocol 8.3
#[test]
fn small_frames_that_come_do_not_hide_that_large_ones_do_not() {
    let mut world = World::new(45);
    let (a, b) = pair(&mut world);
    world.until_connected(a, b);
    let small = world.both_ways(a, b, 200);
    let large = [(a, b), (b, a)].map(|(from, to)| world.stream_of(from, to, 5, 1_400));
    world.until_udp(a, b);
    world.run(Duration::from_secs(10));
    world.change_way(a, b, |way| way.mtu = 1_200);
    let lost = |world: &World| large.map(|flow| world.account_of(flow).lost).iter().sum::<u64>();
    world.run(Duration::from_secs(12));
    let before = lost(&world);
    world.until_udp(a, b);
    world.run(Duration::from_secs(30));
    assert_eq!(world.label(a, b), Some(PathLabel::DirectUdp));
    assert!((1..=2 * 5 * 8).contains(&before), "{before}");
    assert_eq!(lost(&world), before, "the new budget holds");
    world.assert_whole(&small);
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

// protocol 8.3, 7.5
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

// protocol 7.5
#[test]
fn a_way_that_loses_more_than_a_fifth_for_seconds_is_left_for_the_relay_until_it_is_better() {
    let mut world = World::new(12);
    let (a, b) = pair(&mut world);
    world.until_connected(a, b);
    let flow = world.stream(a, b, 500);
    world.until_udp(a, b);
    world.change_way(a, b, |way| way.loss = 100);
    world.run(Duration::from_secs(20));
    assert_eq!(world.label(a, b), Some(PathLabel::DirectUdp), "a tenth is ordinary");
    world.change_way(a, b, |way| way.loss = 300);
    let took = world.until("the relay carries it", SOON, |world| world.label(a, b) == Some(PathLabel::RelayWss));
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(world.label(b, a), Some(PathLabel::DirectUdp), "who sends nothing has no reason");
    world.run(Duration::from_mins(1));
    let moves = world.noted(a, |note| matches!(note, Note::Migrated { .. }));
    assert!((2..=6).contains(&moves), "it was looked at again from time to time: {moves}");
    world.change_way(a, b, |way| way.loss = 0);
    world.run(Duration::from_secs(61));
    assert_eq!(world.label(a, b), Some(PathLabel::DirectUdp));
    let before = world.account_of(flow);
    world.run(Duration::from_secs(10));
    let after = world.account_of(flow);
    assert_eq!((after.lost, after.doubled, after.reordered), (before.lost, 0, before.reordered));
}

// protocol 8.4
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
    assert_no_gap(&mut world, flows, Duration::from_millis(100));
    world.assert_whole(&flows);
}

// protocol 8.4
#[test]
fn peers_that_move_at_the_same_moment_find_each_other_over_the_relay_and_nothing_is_lost() {
    let mut world = World::new(9);
    let (a, b) = pair(&mut world);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.until_udp(a, b);
    world.run(Duration::from_secs(1));
    world.move_host(a);
    world.move_host(b);
    let took = world.until("both are direct again", SOON, |world| {
        world.run(Duration::from_millis(200));
        [(a, b), (b, a)].iter().all(|(x, y)| world.label(*x, *y) == Some(PathLabel::DirectUdp))
    });
    assert!(took <= Duration::from_secs(2), "{took:?}");
    world.run(Duration::from_secs(1));
    assert_no_gap(&mut world, flows, Duration::from_secs(1));
    world.assert_whole(&flows);
}

// protocol 6.3, 7.5
#[test]
fn a_peer_that_was_nowhere_for_a_while_goes_direct_from_its_new_address_at_once() {
    let mut world = World::new(10);
    let (a, b) = pair(&mut world);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 100);
    world.until_udp(a, b);
    world.run(Duration::from_secs(10));
    let before: Vec<_> = world.interfaces_of(a).into_iter().map(|address| (address, 24)).collect();
    world.set_interfaces(a, &[]);
    world.run(Duration::from_secs(2));
    world.set_interfaces(a, &before);
    world.move_host(a);
    let took = world.until("both are direct again", SOON, |world| {
        [(a, b), (b, a)].iter().all(|(x, y)| world.label(*x, *y) == Some(PathLabel::DirectUdp))
    });
    assert!(took <= Duration::from_millis(500), "{took:?}");
    world.run(Duration::from_secs(1));
    world.assert_whole(&flows);
}

fn assert_no_gap(world: &mut World, flows: [FlowId; 2], limit: Duration) {
    for flow in flows {
        let gap = world.longest_gap(flow);
        assert!(gap < limit, "{gap:?}");
    }
}

// protocol 6.1, 6.3
#[test]
fn peers_that_went_direct_otherwise_take_to_udp_when_it_comes_through() {
    let mut world = World::new(7);
    let (a, b) = pair(&mut world);
    world.change_way(a, b, |way| way.mtu = 600);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 100);
    world.until("a direct connection of the other kind", SOON, |world| world.label(a, b) == Some(PathLabel::DirectWss));
    world.run(Duration::from_secs(30));
    world.change_way(a, b, |way| way.mtu = 1_500);
    world.until_udp(a, b);
    world.run(Duration::from_secs(1));
    world.assert_whole(&flows);
}

/// Boxes in front of a peer, as RFC 4787 names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    Open,
    FullCone,
    AddressRestricted,
    PortRestricted,
    /// Endpoint-independent mapping with ports by chance, and the strictest filter.
    RandomPorts,
    Symmetric,
    /// The same, with ports in order.
    Sequential,
    /// Two boxes, one behind the other.
    CarrierGrade,
}

use Front::{AddressRestricted, CarrierGrade, FullCone, Open, PortRestricted, RandomPorts, Sequential, Symmetric};

impl Front {
    const ALL: [Self; 8] = [Open, FullCone, AddressRestricted, PortRestricted, RandomPorts, Symmetric, Sequential, CarrierGrade];

    fn put(self, world: &mut World, host: HostId) {
        let kind = |mapping, filtering, ports| NatKind { mapping, filtering, ports, ..NatKind::default() };
        let (any, address, port) = (Depends::Nothing, Depends::Address, Depends::AddressAndPort);
        let kind = match self {
            Open => return,
            FullCone => kind(any, any, Ports::Preserved),
            AddressRestricted => kind(any, address, Ports::Preserved),
            PortRestricted => kind(any, port, Ports::Preserved),
            RandomPorts => kind(any, port, Ports::Random),
            Symmetric => kind(port, port, Ports::Random),
            Sequential => kind(port, port, Ports::Sequential),
            CarrierGrade => {
                let outer = world.nat(kind(any, port, Ports::Random), None);
                let inner = world.nat(kind(any, port, Ports::Preserved), Some(outer));
                return world.put_behind(host, inner);
            }
        };
        let nat = world.nat(kind, None);
        world.put_behind(host, nat);
    }

    /// Whether peers behind these can meet by UDP without a box's help: where one port is known, the other can be guessed (8.5).
    fn can_meet(self, other: Self) -> bool {
        let varies = |front| matches!(front, Symmetric | Sequential);
        !(varies(self) && varies(other))
    }
}

/// Each of two peers behind boxes that map by destination and let everybody in saw the other at a new port whenever that followed it, and
/// followed: each 20 ms, without an end.
// protocol 8.4
#[test]
fn peers_behind_boxes_that_vary_and_let_everybody_in_do_not_chase_each_other() {
    let mut world = World::new(1_222);
    let relay = world.relay();
    let [a, b] = [(); 2].map(|()| {
        let host = world.idle_peer(&[relay], |plan| plan.config.direct = Transports::UDP);
        let kind =
            NatKind { mapping: Depends::AddressAndPort, filtering: Depends::Nothing, ports: Ports::Sequential, ..NatKind::default() };
        let nat = world.nat(kind, None);
        world.put_behind(host, nat);
        host
    });
    world.listen();
    start(&mut world, a, b);
    let flows = world.both_ways(a, b, 40);
    world.until_udp(a, b);
    let opened = |world: &World| world.told(usize::MAX).iter().filter(|line| line.contains("(\"flow\"")).count();
    let before = opened(&world);
    world.run(Duration::from_secs(10));
    let moves = opened(&world) - before;
    assert!(moves <= 10, "{moves} moves in 10 s");
    world.assert_whole(&flows);
}

/// Two peers behind these, not started yet.
fn behind(world: &mut World, fronts: [Front; 2], direct: Transports) -> (HostId, HostId) {
    let relay = world.relay();
    let [a, b] = fronts.map(|front| {
        let host = world.idle_peer(&[relay], |plan| plan.config.direct = direct);
        front.put(world, host);
        host
    });
    (a, b)
}

fn start(world: &mut World, a: HostId, b: HostId) {
    for host in [a, b] {
        world.start(host);
    }
    world.until_connected(a, b);
}

// protocol 8.1, 8.2
#[test]
fn peers_behind_boxes_meet_by_udp_wherever_theory_allows() {
    for (number, (x, y)) in Front::ALL.into_iter().flat_map(|x| Front::ALL.into_iter().map(move |y| (x, y))).enumerate() {
        let mut world = World::new(100 + number as u64);
        let (a, b) = behind(&mut world, [x, y], Transports::UDP);
        start(&mut world, a, b);
        let flows = world.both_ways(a, b, 500);
        world.run(Duration::from_secs(4));
        let udp = Some(PathLabel::DirectUdp);
        let met = world.label(a, b) == udp && world.label(b, a) == udp;
        assert_eq!(met, x.can_meet(y), "{x:?} and {y:?}:\n{}", world.story());
        world.assert_whole(&flows);
        assert_eq!(world.amplified(), None, "{x:?} and {y:?}");
    }
}

// protocol 8.1
#[test]
fn peers_behind_strict_boxes_meet_again_soon_when_one_gets_another_mapping() {
    let mut world = World::new(8);
    let (a, b) = behind(&mut world, [PortRestricted; 2], Transports::UDP);
    start(&mut world, a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.until_udp(a, b);
    world.run(Duration::from_secs(10));
    // b's box lets nothing in from the new mapping, and b does not know of it: both go back to the relay
    world.remap(world.is_behind(a).expect("a is behind a box"));
    world.run(Duration::from_secs(5));
    let udp = Some(PathLabel::DirectUdp);
    assert_eq!((world.label(a, b), world.label(b, a)), (udp, udp), "{}", world.story());
    world.run(Duration::from_secs(1));
    world.assert_whole(&flows);
}

// protocol 6.3, 8.1
#[test]
fn peers_behind_strict_boxes_are_direct_again_within_two_seconds_of_a_new_address() {
    let mut world = World::new(11);
    let (a, b) = behind(&mut world, [PortRestricted; 2], Transports::ALL);
    start(&mut world, a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.until_udp(a, b);
    world.run(Duration::from_secs(10));
    // another address inside is another mapping outside, from which b's box lets nothing in
    world.move_host(a);
    let took = world.until("both are direct again", SOON, |world| {
        world.run(Duration::from_millis(100));
        let udp = Some(PathLabel::DirectUdp);
        (world.label(a, b), world.label(b, a)) == (udp, udp)
    });
    assert!(took <= Duration::from_secs(2), "{took:?}");
    world.run(Duration::from_secs(1));
    assert_no_gap(&mut world, flows, Duration::from_secs(1));
    world.assert_whole(&flows);
}

/// How long it takes from the session to the path, for peers behind these.
fn until_met(seed: u64, x: Front, y: Front, noise: usize) -> Option<Duration> {
    let mut world = World::new(seed);
    let (a, b) = behind(&mut world, [x, y], Transports::UDP);
    start(&mut world, a, b);
    // what else goes on behind the box takes ports, too
    for port in 0..noise {
        world.open_socket(a, 5_000);
        world.send_datagram(a, 5_000, SocketAddr::from(([198, 51, 100, 77], 1_000 + port as u16)), b"something else");
    }
    let start = world.now();
    while world.now().since(start) < Duration::from_secs(2) {
        if world.label(a, b) == Some(PathLabel::DirectUdp) && world.label(b, a) == Some(PathLabel::DirectUdp) {
            return Some(world.now().since(start));
        }
        world.run(Duration::from_millis(10));
    }
    None
}

// protocol 8.5
#[test]
fn a_port_by_chance_is_met_within_two_seconds_in_38_of_40_runs() {
    for strict in [PortRestricted, RandomPorts, CarrierGrade] {
        let met = (0..40).filter_map(|run| until_met(1_000 + run, Symmetric, strict, 0)).count();
        assert!(met >= 38, "{strict:?}: {met} of 40");
    }
}

// protocol 8.5
#[test]
fn a_port_in_order_is_foreseen_whatever_else_goes_on_behind_the_box() {
    for (number, strict) in [PortRestricted, RandomPorts, CarrierGrade].into_iter().enumerate() {
        for noise in [0, 7, 300, 900] {
            let took = until_met(2_000 + number as u64, Sequential, strict, noise);
            assert!(took.is_some_and(|took| took < Duration::from_secs(1)), "{strict:?}, {noise} ports: {took:?}");
        }
    }
}

// protocol 6.3
#[test]
fn a_port_of_the_router_is_told_to_peers_until_the_router_forgets_it() {
    let mut world = World::new(9);
    let (a, b) = pair(&mut world);
    world.until_connected(a, b);
    let external: SocketAddr = "203.0.113.77:7000".parse().expect("an address");
    let is_told = |world: &mut World| {
        let candidates = world.peer_status(b, a).expect("known").candidates;
        candidates.iter().any(|candidate| (candidate.address, candidate.transport, candidate.kind) == (external, "udp", "port-mapped"))
    };
    let map = |world: &mut World, life: Duration| {
        let until = world.now() + life;
        world.event(a, Event::PortMapped(&[PortMapping { protocol: MappingProtocol::Pcp, transport: Transport::Udp, external, until }]));
    };
    assert!(!is_told(&mut world));
    map(&mut world, Duration::from_mins(1));
    world.run(Duration::from_secs(2));
    assert!(is_told(&mut world));
    world.run(Duration::from_mins(1));
    assert!(!is_told(&mut world), "nobody renewed it");
    map(&mut world, Duration::from_mins(1));
    world.run(Duration::from_secs(2));
    assert!(is_told(&mut world));
    world.event(a, Event::PortMapped(&[]));
    world.run(Duration::from_secs(2));
    assert!(!is_told(&mut world), "the router lost it");
}

// protocol 8.1
#[test]
fn who_examines_the_network_gets_a_fresh_answer_of_each_relay() {
    let mut world = World::new(10);
    let (a, b) = pair(&mut world);
    world.until_connected(a, b);
    world.run(Duration::from_secs(3));
    let before = world.now();
    let relay = |world: &mut World| world.status(a).relays.remove(0);
    let known = relay(&mut world);
    assert!(known.has_reflector && known.reflexive_at.is_some_and(|at| at < before), "{known:?}");
    world.event(a, Event::Examine);
    assert_eq!(relay(&mut world).mapping_varies, None, "what was known may be wrong");
    world.run(Duration::from_secs(1));
    let fresh = relay(&mut world);
    assert!(fresh.reflexive_at.is_some_and(|at| at > before), "{fresh:?}");
    assert_eq!((fresh.reflexive, fresh.mapping_varies), (known.reflexive, Some(false)));
}

// protocol 8.2, 8.5
#[test]
fn paths_by_two_sockets_to_one_address_are_two_paths() {
    for run in 0..12 {
        let mut world = World::new(3_000 + run);
        let (a, b) = behind(&mut world, [Symmetric, AddressRestricted], Transports::UDP);
        world.cut(a, b);
        start(&mut world, a, b);
        let flows = world.both_ways(a, b, 500);
        // a search is under way when the way becomes free, and the ordinary requests come through as well
        world.run(Duration::from_millis(400 + 20 * run));
        world.heal(a, b);
        world.until_udp(a, b);
        world.run(Duration::from_secs(3));
        for (one, other) in [(a, b), (b, a)] {
            let peer = world.peer_status(one, other).expect("known");
            assert_eq!((peer.fallbacks, world.label(one, other)), (0, Some(PathLabel::DirectUdp)), "run {run}:\n{}", world.story());
        }
        world.assert_whole(&flows);
    }
}
