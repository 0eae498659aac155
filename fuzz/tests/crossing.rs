//! Many peers greet each other at once; two of them at the same moment.
use shadowmesh_core::config::Transports;
use shadowmesh_fuzz::world::World;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// With more others online than this, nobody greets before there is a packet (protocol 3.9).
const EAGER_MOST: usize = 32;

// protocol 3.9
#[test]
fn as_many_peers_as_are_greeted_at_once_start_together_and_are_connected_within_two_seconds() {
    let mut world = World::new(401);
    let relay = world.relay();
    let hosts: Vec<_> = (0..EAGER_MOST).map(|_| world.peer_with(&[relay], |plan| plan.config.direct = Transports::NONE)).collect();
    world.until("all are at the relay", SECOND, |world| world.hub_status(relay).clients.len() == hosts.len());
    let pairs: Vec<_> = hosts.iter().flat_map(|a| hosts.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b).collect();
    world.run(2 * SECOND);
    let missing: Vec<_> = pairs.iter().filter(|(a, b)| !world.is_connected(*a, *b)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

// protocol 3.9
#[test]
fn an_attempt_that_crosses_the_others_last_message_leaves_one_session_on_both_sides() {
    let mut world = World::new(400);
    let relay = world.relay();
    let hosts: Vec<_> = (0..EAGER_MOST + 8).map(|_| world.peer_with(&[relay], |plan| plan.config.direct = Transports::NONE)).collect();
    world.until("all are at the relay", SECOND, |world| world.hub_status(relay).clients.len() == hosts.len());
    world.run(10 * SECOND);
    let mut pairs = hosts.iter().flat_map(|a| hosts.iter().map(move |b| (*a, *b)));
    let unknown = pairs.find(|(a, b)| world.id(*a) < world.id(*b) && !world.is_connected(*a, *b) && !world.is_connected(*b, *a));
    let (smaller, larger) = unknown.expect("beyond 32, peers do not greet each other");
    world.change_way(larger, relay, |way| way.latency = Duration::from_millis(300));
    // the larger waits a second for the other's INIT, then sends its own; its FIN is out after 1.6 s and there after 1.9 s
    let from_larger = world.stream(larger, smaller, 100);
    world.run(Duration::from_millis(1_500));
    assert!(!world.is_connected(smaller, larger) && !world.is_connected(larger, smaller));
    let from_smaller = world.stream(smaller, larger, 100);
    world.run(Duration::from_millis(1_500));
    assert!(world.is_connected(smaller, larger) && world.is_connected(larger, smaller), "{}", world.story());
    let before = [from_larger, from_smaller].map(|flow| world.account_of(flow));
    world.run(2 * SECOND);
    let after = [from_larger, from_smaller].map(|flow| world.account_of(flow));
    for (before, after) in before.iter().zip(&after) {
        let came = (after.handed - after.lost) - (before.handed - before.lost);
        assert!(came >= 190, "{came} of 200 packets came: {before:?} {after:?}");
    }
}
