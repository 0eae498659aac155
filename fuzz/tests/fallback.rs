//! A direct path that cannot be made, or dies, or comes and goes: traffic stays whole on the relay, and goes direct again.
use shadowmesh_core::{
    event::Note,
    status::{PathStatus, PeerState},
    time::Instant,
    wire::PathLabel,
};
use shadowmesh_fuzz::world::{FlowId, HostId, World};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

// protocol 6.3
#[test]
fn a_candidate_that_refuses_leaves_traffic_on_the_relay_and_is_tried_again_ever_later() {
    let mut world = World::new(20);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.refuse(a, b);
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 100);
    world.run(200 * SECOND);
    let peer = world.peer_status(a, b).expect("known");
    assert_eq!((peer.state, peer.path.map(|path| path.label)), (PeerState::Connected, Some(PathLabel::RelayWss)));
    assert!(peer.last_failure.expect("there were failures").contains("refused"));
    assert!(peer.candidates.iter().any(|candidate| candidate.result.contains("refused")));
    assert!(peer.next_attempt_at.expect("it goes on").since(world.now()) <= 60 * SECOND);
    assert!(peer.retries >= 6);

    // 1, 2, 4 … up to retry_interval, each with up to a tenth of chance; then a round, which the tries of a punch make longer
    let round = 3 * SECOND;
    let waits = waits_between_failures(&mut world, a);
    for (wait, expected) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60]) {
        let expected = expected * SECOND;
        assert!(*wait >= expected && *wait <= expected + expected / 8 + round, "{wait:?} instead of {expected:?} in {waits:?}");
    }

    // when it does not refuse any more, the next attempt succeeds
    world.heal(a, b);
    world.until_direct(a, b);
    assert!(world.noted(a, |note| matches!(note, Note::Retry { success: true, .. })) > 0);
    world.assert_whole(&flows);
}

// protocol 7.5
#[test]
fn a_direct_path_that_falls_silent_under_traffic_falls_back_and_comes_back_without_loss() {
    direct_path_dies(21, World::cut);
}

#[test]
fn a_direct_path_that_is_reset_under_traffic_falls_back_and_comes_back_without_loss() {
    direct_path_dies(22, |world, a, b| {
        world.reset(a, b);
        world.cut(a, b);
    });
}

fn direct_path_dies(seed: u64, kill: fn(&mut World, HostId, HostId)) {
    let mut world = World::new(seed);
    let (a, b, flows) = direct_with_traffic(&mut world);
    kill(&mut world, a, b);
    world.until_relayed(a, b);
    world.run(2 * SECOND);
    for flow in flows {
        let outage = world.longest_gap(flow);
        assert!(outage < Duration::from_millis(500), "{outage:?} without a packet");
    }
    for (one, other) in [(a, b), (b, a)] {
        let peer = world.peer_status(one, other).expect("known");
        assert_eq!((peer.fallbacks, peer.path.map(|path| path.label)), (1, Some(PathLabel::RelayWss)));
        assert_eq!(world.noted(one, |note| matches!(note, Note::FellBack { .. })), 1);
    }
    world.heal(a, b);
    world.until_direct(a, b);
    assert!(world.noted(a, |note| matches!(note, Note::Retry { success: true, .. })) > 0);
    world.run(2 * SECOND);
    world.assert_whole(&flows);
}

#[test]
fn a_reset_alone_is_healed_by_a_new_connection() {
    let mut world = World::new(23);
    let (a, b, flows) = direct_with_traffic(&mut world);
    for _ in 0..3 {
        world.reset(a, b);
        world.run(Duration::from_millis(100));
        world.until_direct(a, b);
        world.run(3 * SECOND);
    }
    world.assert_whole(&flows);
}

// protocol 7.5
#[test]
fn an_idle_path_that_died_unseen_costs_the_first_packets_nothing() {
    let mut world = World::new(24);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    world.run(10 * SECOND);
    world.cut(a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.run(5 * SECOND);
    for flow in flows {
        let gap = world.longest_gap(flow);
        assert!(gap < Duration::from_millis(500), "{gap:?} without a packet");
    }
    world.assert_whole(&flows);
}

#[test]
fn one_direction_of_traffic_is_enough_to_notice() {
    let mut world = World::new(25);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    let flow = world.stream(a, b, 1_000);
    world.run(2 * SECOND);
    world.longest_gap(flow);
    world.cut(a, b);
    world.run(3 * SECOND);
    let gap = world.longest_gap(flow);
    assert!(gap < Duration::from_millis(500), "{gap:?} without a packet");
    world.assert_whole(&[flow]);
}

// protocol 7.5
#[test]
fn a_path_that_comes_and_goes_every_second_is_damped_and_loses_nothing() {
    let mut world = World::new(26);
    let (a, b, flows) = direct_with_traffic(&mut world);
    let start = world.now();
    for _ in 0..120 {
        world.cut(a, b);
        world.run(SECOND / 2);
        world.heal(a, b);
        world.run(SECOND / 2);
    }
    for host in [a, b] {
        let moves = moves_since(&mut world, host, start);
        for first in 0..moves.len() {
            let within = moves[first..].iter().filter(|at| at.since(moves[first]) < 60 * SECOND).count();
            assert!(within <= 6, "{within} switches in a minute\n{}", world.story());
        }
    }
    world.until_direct(a, b);
    world.assert_whole(&flows);
}

#[test]
fn a_path_that_only_hesitates_is_not_left() {
    let mut world = World::new(27);
    let (a, b, flows) = direct_with_traffic(&mut world);
    for _ in 0..5 {
        world.cut(a, b);
        world.run(Duration::from_millis(60));
        world.heal(a, b);
        world.run(3 * SECOND);
    }
    world.assert_whole(&flows);
    world.until_direct(a, b);
}

#[test]
fn a_proven_path_that_dies_while_it_is_held_down_is_looked_for_again() {
    // found by chaos: the path died before it carried anything, and nobody looked for another
    let mut world = World::new(28);
    let (a, b, flows) = direct_with_traffic(&mut world);
    for _ in 0..4 {
        world.cut(a, b);
        world.until_relayed(a, b);
        world.heal(a, b);
        if world.peer_status(a, b).expect("known").fallbacks < 4 {
            world.until_direct(a, b);
        }
    }
    let stands_by = |w: &mut World, a, b| w.peer_status(a, b).is_some_and(|p| p.paths.iter().any(is_standby));
    world.until("a path is proven and held down", 30 * SECOND, |w| stands_by(w, a, b) && stands_by(w, b, a));
    assert_eq!((world.label(a, b), world.label(b, a)), (Some(PathLabel::RelayWss), Some(PathLabel::RelayWss)));
    world.reset(a, b);
    world.until_direct(a, b);
    world.assert_whole(&flows);
}

fn is_standby(path: &PathStatus) -> bool {
    path.label == PathLabel::DirectWss && path.state == "standby"
}

/// Two peers on a direct path that carries 1,000 packets a second each way.
fn direct_with_traffic(world: &mut World) -> (HostId, HostId, [FlowId; 2]) {
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.run(2 * SECOND);
    let _ = flows.map(|flow| world.longest_gap(flow));
    (a, b, flows)
}

fn waits_between_failures(world: &mut World, host: HostId) -> Vec<Duration> {
    let failed = world.notes(host).iter().filter(|(_, note)| matches!(note, Note::MigrationFailed { .. })).map(|(at, _)| *at);
    let failed: Vec<Instant> = failed.collect();
    failed.windows(2).map(|pair| pair[1].since(pair[0])).collect()
}

fn moves_since(world: &mut World, host: HostId, start: Instant) -> Vec<Instant> {
    let is_move = |note: &Note| matches!(note, Note::Migrated { .. } | Note::FellBack { .. });
    world.notes(host).iter().filter(|(at, note)| *at >= start && is_move(note)).map(|(at, _)| *at).collect()
}
