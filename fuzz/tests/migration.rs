//! From the relay to the direct path: what `Status` says at each step, and what becomes of the packets.
use shadowmesh_core::{
    event::Note,
    id::PathId,
    status::{PeerState, RelayState},
    wire::PathLabel,
};
use shadowmesh_fuzz::world::{HostId, World};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

// protocol 6.2, 7.2
#[test]
fn two_peers_meet_on_the_relay_and_go_direct_without_loss() {
    let mut world = World::new(1);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.until_direct(a, b);
    world.run(Duration::from_secs(2));
    world.assert_whole(&flows);
}

#[test]
fn the_five_steps_of_a_migration_and_what_status_says_at_each() {
    let mut world = World::new(2);
    let relay = world.relay();
    let (a, b) = pair(&mut world, relay);

    // 1: both are connected over the relay
    world.until("the relay lets both in", SOON, |w| {
        relay_state(w, a) == RelayState::Connected && relay_state(w, b) == RelayState::Connected
    });
    world.until_connected(a, b);
    let peer = world.peer_status(a, b).expect("known");
    assert_eq!((peer.state, peer.path.map(|path| (path.label, path.state))), (PeerState::Connected, Some((PathLabel::RelayWss, "active"))));
    assert_eq!((peer.migrations, peer.paths.len()), (0, 0));

    // 2: each tells the other where it may be reached
    world.until("a knows where b may be", SOON, |w| !w.peer_status(a, b).expect("known").candidates.is_empty());
    let address = world.address(b, true);
    assert!(world.peer_status(a, b).expect("known").candidates.iter().any(|candidate| candidate.address.ip() == address));

    // 3: a direct connection stands and is not used yet
    world.until("a connection is open", SOON, |w| direct_state(w, a, b) == Some("validating"));
    assert_eq!(world.label(a, b), Some(PathLabel::RelayWss));

    // 4: the re-handshake proves it, 5: traffic moves, and the relay stands by
    world.until_direct(a, b);
    let proven = world.notes(a).iter().position(|(_, note)| matches!(note, Note::PathValidated { .. })).expect("proven");
    let moved = world.notes(a).iter().position(|(_, note)| matches!(note, Note::Migrated { to: PathLabel::DirectWss, .. })).expect("moved");
    assert!(proven < moved, "nothing moves to a path that is not proven");
    for (one, other) in [(a, b), (b, a)] {
        let peer = world.peer_status(one, other).expect("known");
        assert_eq!(peer.path.map(|path| (path.label, path.state)), Some((PathLabel::DirectWss, "active")));
        assert!(peer.paths.iter().any(|path| path.id == PathId::RELAY && path.state == "standby"));
        assert_eq!((peer.migrations, peer.fallbacks), (1, 0));
        assert_eq!(relay_state(&mut world, one), RelayState::Connected);
    }
}

// protocol 5.3
#[test]
fn a_re_handshake_goes_request_response_complete_and_proves_both_ends() {
    let mut world = World::new(3);
    let relay = world.relay();
    let (a, b) = pair(&mut world, relay);
    world.record();
    world.until_direct(a, b);
    let first: Vec<(HostId, u8, usize)> = world
        .recorded()
        .into_iter()
        .filter(|letter| matches!(letter.bytes[0], 0x20..=0x22))
        .map(|letter| (letter.from, letter.bytes[0], letter.bytes.len()))
        .collect();
    // a initiated the session, so it dials
    let expected = [(a, 0x20, 108), (b, 0x21, 108), (a, 0x22, 76)];
    for step in expected {
        assert!(first.contains(&step), "{step:?} is missing in {first:?}");
    }
    let bytes: usize = expected.iter().map(|(_, _, len)| len).sum();
    assert!(bytes <= 300, "a re-handshake takes {bytes} bytes");
    for host in [a, b] {
        assert!(world.noted(host, |note| matches!(note, Note::PathValidated { .. })) > 0);
        assert_eq!(world.dropped(host, "rehandshake"), 0);
    }
}

#[test]
fn the_longest_gap_in_a_migration_is_no_longer_than_the_paths_differ() {
    let mut world = World::new(4);
    let relay = world.relay();
    let (a, b) = pair(&mut world, relay);
    world.change_way(a, b, |way| way.latency = Duration::from_millis(3));
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.until("packets come out", SOON, |w| flows.iter().all(|flow| w.account_of(*flow).handed > w.account_of(*flow).lost));
    let _ = flows.map(|flow| world.longest_gap(flow));
    world.until_direct(a, b);
    world.run(Duration::from_secs(1));
    for flow in flows {
        let gap = world.longest_gap(flow);
        assert!(gap <= Duration::from_millis(10), "{gap:?} without a packet");
    }
    world.assert_whole(&flows);
}

#[test]
fn peers_that_dial_each_other_at_once_end_on_paths_that_both_know() {
    for seed in 0..8 {
        let mut world = World::new(100 + seed);
        let relay = world.relay();
        let (a, b) = pair(&mut world, relay);
        // so slow that the responder's own dial begins before the initiator's is through
        world.change_way(a, b, |way| way.latency = Duration::from_millis(70 + 10 * seed));
        world.until_connected(a, b);
        let flows = world.both_ways(a, b, 1_000);
        world.until_direct(a, b);
        world.run(Duration::from_secs(3));
        assert_eq!(world.path(a, b), world.path(b, a), "both send on the same path (seed {seed})");

        // every direct connection falls silent: one fallback each, and back again when they are whole
        world.cut(a, b);
        world.until_relayed(a, b);
        world.run(Duration::from_secs(2));
        for (one, other) in [(a, b), (b, a)] {
            assert_eq!(world.peer_status(one, other).expect("known").fallbacks, 1, "seed {seed}");
        }
        world.heal(a, b);
        world.until_direct(a, b);
        world.run(Duration::from_secs(2));
        world.assert_whole(&flows);
    }
}

/// Two peers; the first is the one that will initiate their session.
fn pair(world: &mut World, relay: HostId) -> (HostId, HostId) {
    let (a, b) = (world.peer(relay), world.peer(relay));
    if world.id(a) < world.id(b) { (a, b) } else { (b, a) }
}

fn relay_state(world: &mut World, host: HostId) -> RelayState {
    world.status(host).relays[0].state
}

/// What `a` says of its best direct path to `b`.
fn direct_state(world: &mut World, a: HostId, b: HostId) -> Option<&'static str> {
    let peer = world.peer_status(a, b)?;
    let direct = peer.path.iter().chain(&peer.paths).find(|path| path.label == PathLabel::DirectWss)?;
    Some(direct.state)
}
