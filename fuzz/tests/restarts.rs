//! Three peers, and hosts that die and come back: everybody finds everybody again by itself.
use shadowmesh_core::config::Transports;
use shadowmesh_core::{
    event::{Event, Note},
    status::RelayState,
    wire::PathLabel,
};
use shadowmesh_fuzz::world::{HostId, World};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn three_peers_talk_directly_each_with_each() {
    let mut world = World::new(30);
    let relay = world.relay();
    let [a, b, c] = [world.peer(relay), world.peer(relay), world.peer(relay)];
    let pairs = [(a, b), (b, c), (a, c)];
    for (one, other) in pairs {
        world.until_connected(one, other);
    }
    let flows = pairs.map(|(one, other)| world.both_ways(one, other, 300)).concat();
    for (one, other) in pairs {
        world.until_direct(one, other);
    }
    // one of three direct paths dies: the others do not notice
    world.cut(a, b);
    world.until_relayed(a, b);
    world.run(2 * SECOND);
    assert_eq!((world.label(a, c), world.label(b, c)), (Some(PathLabel::DirectWss), Some(PathLabel::DirectWss)));
    world.heal(a, b);
    world.until_direct(a, b);
    world.assert_whole(&flows);
}

#[test]
fn a_relay_that_restarts_does_not_disturb_direct_paths_and_is_found_again() {
    let mut world = World::new(31);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.run(SECOND);
    let _ = flows.map(|flow| world.longest_gap(flow));
    world.kill(relay);
    world.run(3 * SECOND);
    assert_eq!(world.label(a, b), Some(PathLabel::DirectWss));
    world.start(relay);
    world.until("both are let in again", 10 * SECOND, |w| is_in(w, a) && is_in(w, b));
    world.run(2 * SECOND);
    for flow in flows {
        let gap = world.longest_gap(flow);
        assert!(gap < Duration::from_millis(10), "{gap:?} without a packet");
    }
    for host in [a, b] {
        assert_eq!(world.status(host).totals.fallbacks, 0);
        assert_eq!(world.noted(host, |note| matches!(note, Note::PeerLost { .. })), 0);
    }
    assert_eq!(world.label(a, b), Some(PathLabel::DirectWss));
    world.assert_whole(&flows);
}

// protocol 7.6
#[test]
fn a_relay_that_restarts_under_traffic_carries_it_on_and_what_it_swallowed_is_sent_again() {
    let mut world = World::new(32);
    let relay = world.relay();
    let relay_only = |plan: &mut shadowmesh_fuzz::world::PeerPlan| plan.config.direct = Transports::NONE;
    let (a, b) = (world.peer_with(&[relay], relay_only), world.peer_with(&[relay], relay_only));
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 100);
    world.run(2 * SECOND);
    world.restart(relay);
    world.until("both are let in again", 10 * SECOND, |w| is_in(w, a) && is_in(w, b));
    world.run(3 * SECOND);
    world.assert_whole(&flows);
}

#[test]
fn the_direct_path_dies_while_the_relay_is_away() {
    let mut world = World::new(33);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    let flows = world.both_ways(a, b, 50);
    world.run(SECOND);
    world.kill(relay);
    world.cut(a, b);
    world.run(2 * SECOND);
    world.start(relay);
    world.until_relayed(a, b);
    world.heal(a, b);
    world.until_direct(a, b);
    world.assert_whole(&flows);
}

#[test]
fn a_peer_that_is_killed_and_started_again_talks_within_three_seconds() {
    for seed in 0..6 {
        let mut world = World::new(340 + seed);
        let relay = world.relay();
        let (a, b) = (world.peer(relay), world.peer(relay));
        world.until_direct(a, b);
        let flows = world.both_ways(a, b, 100);
        world.run(SECOND);
        world.restart(b);
        let started = world.now();
        let heard = flows.map(|flow| world.account_of(flow));
        let talks = |w: &mut World| flows.iter().zip(heard).all(|(flow, before)| came(w, *flow) > before.handed - before.lost + 5);
        let took = world.until("packets come both ways again", 3 * SECOND, talks);
        assert!(world.now().since(started) <= 3 * SECOND, "{took:?}");
        world.until_direct(a, b);
        world.run(SECOND);
        for flow in flows {
            let account = world.account_of(flow);
            assert_eq!((account.doubled, account.reordered), (0, 0), "a restart may lose, never double or reorder");
        }
    }
}

#[test]
fn a_peer_that_lost_power_and_comes_back_talks_within_three_seconds() {
    let mut world = World::new(35);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    let flows = world.both_ways(a, b, 100);
    world.run(SECOND);
    world.darken(b);
    world.run(5 * SECOND);
    world.start(b);
    let before = flows.map(|flow| came(&world, flow));
    world.until("packets come both ways again", 3 * SECOND, |w| flows.iter().zip(before).all(|(flow, before)| came(w, *flow) > before + 5));
    world.until_direct(a, b);
}

#[test]
fn a_peer_that_starts_before_its_relay_says_so_and_connects_when_it_appears() {
    let mut world = World::new(36);
    let relay = world.relay_with(|_| {});
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.run(30 * SECOND);
    let status = world.status(a);
    assert_ne!(status.relays[0].state, RelayState::Connected);
    assert!(status.relays[0].last_error.as_ref().is_some_and(|why| why.contains("refused")), "{:?}", status.relays[0].last_error);
    assert!(world.noted(a, |note| matches!(note, Note::RelayLost { .. })) >= 5, "it keeps trying");
    world.start(relay);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 100);
    world.until_direct(a, b);
    world.assert_whole(&flows);
}

// protocol 6.8, 7.8
#[test]
fn a_peer_that_leaves_is_gone_at_once_for_the_others() {
    let mut world = World::new(37);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    world.leave(b);
    assert!(world.noted(a, |note| matches!(note, Note::PeerLost { .. })) > 0);
    assert!(!world.is_connected(a, b));
    world.start(b);
    world.until_direct(a, b);
}

#[test]
fn a_peer_that_has_words_for_another_and_no_way_to_say_them_waits_without_turning() {
    let mut world = World::new(39);
    let relay = world.relay();
    let (a, b) = (world.peer_with(&[relay], |plan| plan.config.direct = Transports::NONE), world.peer(relay));
    world.until_connected(a, b);
    world.cut(a, relay);
    let moved = [("203.0.113.99".parse().expect("an address"), 24)];
    world.event(b, Event::Interfaces(&moved));
    world.run(SECOND);
    world.kill(relay);
    // a turn that never ends would stop the test here
    world.run(20 * SECOND);
    world.heal(a, relay);
    world.start(relay);
    world.until_connected(a, b);
    let known = |w: &mut World| w.peer_status(a, b).is_some_and(|peer| peer.candidates.iter().any(|c| c.address.ip() == moved[0].0));
    world.until("what was said arrives when there is a way again", 10 * SECOND, known);
}

#[test]
fn a_second_relay_takes_over_when_the_first_is_gone() {
    let mut world = World::new(38);
    let (first, second) = (world.relay(), world.relay());
    let plan = |plan: &mut shadowmesh_fuzz::world::PeerPlan| plan.config.direct = Transports::NONE;
    let (a, b) = (world.peer_with(&[first, second], plan), world.peer_with(&[first, second], plan));
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 100);
    world.run(2 * SECOND);
    world.kill(first);
    world.run(3 * SECOND);
    world.assert_whole(&flows);
}

fn is_in(world: &mut World, host: HostId) -> bool {
    world.status(host).relays[0].state == RelayState::Connected
}

fn came(world: &World, flow: shadowmesh_fuzz::world::FlowId) -> u64 {
    let account = world.account_of(flow);
    account.handed - account.lost
}

#[test]
fn a_peer_that_lost_power_amid_the_handshake_is_greeted_at_once_when_it_is_back() {
    for seed in 90..94 {
        let mut world = World::new(seed);
        let relay = world.relay();
        let [a, b] = [world.peer(relay), world.idle_peer(&[relay], |_| {})];
        // both orders: the one with the smaller id greets first and repeats at doubling distances
        let (stays, goes) = if world.id(a) < world.id(b) { (a, b) } else { (b, a) };
        world.kill(a);
        world.start(stays);
        world.run(SECOND);
        world.start(goes);
        let joined = |world: &mut World| world.hub_status(relay).clients.len() == 2;
        world.until("both are at the relay", SECOND, joined);
        world.darken(goes);
        world.run(Duration::from_secs(8));
        world.start(goes);
        let both = |world: &mut World| world.is_connected(stays, goes) && world.is_connected(goes, stays);
        world.until("they are connected", 2 * SECOND, both);
    }
}
