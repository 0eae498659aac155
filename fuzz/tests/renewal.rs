//! Keys and sessions that grow old under traffic: replaced without a packet lost.
use shadowmesh_core::{config::Transports, event::Note};
use shadowmesh_fuzz::world::{HostId, World};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const ALMOST_A_DAY: Duration = Duration::from_secs(24 * 3600 - 20);

// protocol 4.5
#[test]
fn keys_are_replaced_after_120_s_with_data_at_both_ends_and_again() {
    let mut world = World::new(40);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    let flows = world.both_ways(a, b, 20);
    assert_eq!(epochs(&mut world, a, b), (0, 0));
    for epoch in 1..=3 {
        world.until("the next epoch at both ends", 125 * SECOND, |w| epochs(w, a, b) == (epoch, epoch));
    }
    world.run(5 * SECOND);
    assert_eq!(sessions(&mut world, a), 1, "a rekey is no new session");
    world.assert_whole(&flows);
}

#[test]
fn keys_are_replaced_over_the_relay_too_and_when_one_end_only_listens() {
    let mut world = World::new(41);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.refuse(a, b);
    world.until_connected(a, b);
    for (from, to) in [(a, b), (b, a)] {
        let before = epochs(&mut world, a, b).0;
        let flow = world.stream(from, to, 20);
        world.until("the next epoch at both ends", 140 * SECOND, |w| epochs(w, a, b) == (before + 1, before + 1));
        world.assert_whole(&[flow]);
    }
}

// protocol 4.5
#[test]
fn a_session_without_data_keeps_its_keys() {
    let mut world = World::new(42);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    world.run(600 * SECOND);
    assert_eq!(epochs(&mut world, a, b), (0, 0));
}

#[test]
fn keys_are_replaced_while_the_direct_path_dies() {
    let mut world = World::new(43);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    let flows = world.both_ways(a, b, 200);
    world.run(119 * SECOND);
    for _ in 0..8 {
        world.run(SECOND / 2);
        world.cut(a, b);
        world.run(SECOND / 2);
        world.heal(a, b);
    }
    world.until("the next epoch at both ends", 30 * SECOND, |w| epochs(w, a, b) == (1, 1));
    world.assert_whole(&flows);
}

// protocol 4.5, 7.5
#[test]
fn keys_that_are_replaced_every_two_seconds_while_paths_change_lose_nothing() {
    let mut world = World::new(44);
    let relay = world.relay();
    let [a, b] = [0, 1].map(|_| {
        world.peer_with(&[relay], |plan| {
            plan.config.direct = Transports::UDP;
            plan.config.rekey_interval = 2 * SECOND;
            plan.config.retry_interval = SECOND;
        })
    });
    world.until_udp(a, b);
    let flows = world.both_ways(a, b, 500);
    for _ in 0..10 {
        world.run(4 * SECOND);
        world.cut(a, b);
        world.run(2 * SECOND);
        world.heal(a, b);
    }
    let (of_a, of_b) = epochs(&mut world, a, b);
    assert!(of_a.min(of_b) >= 15, "{of_a} and {of_b} epochs in a minute");
    let moves = world.noted(a, |note| matches!(note, Note::FellBack { .. } | Note::Migrated { .. }));
    assert_eq!(moves, 6, "as often as protocol 7.5 lets it");
    world.assert_whole(&flows);
}

// protocol 3.10
#[test]
fn a_session_is_replaced_after_24_hours_and_loses_nothing() {
    let mut world = World::new(44);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    world.run(ALMOST_A_DAY);
    let before = sessions(&mut world, a);
    let flows = world.both_ways(a, b, 500);
    world.until("a new session at both ends", 40 * SECOND, |w| sessions(w, a) > before && sessions(w, b) > before);
    world.run(15 * SECOND);
    world.until_direct(a, b);
    world.run(15 * SECOND);
    assert_eq!((sessions(&mut world, a), sessions(&mut world, b)), (before + 1, before + 1));
    world.assert_whole(&flows);
}

#[test]
fn a_session_is_replaced_over_the_relay_and_loses_nothing() {
    let mut world = World::new(45);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.refuse(a, b);
    world.until_connected(a, b);
    world.run(ALMOST_A_DAY);
    let before = sessions(&mut world, a);
    let flows = world.both_ways(a, b, 500);
    world.until("a new session at both ends", 40 * SECOND, |w| sessions(w, a) > before && sessions(w, b) > before);
    world.run(15 * SECOND);
    world.assert_whole(&flows);
}

/// The epochs that both ends say.
fn epochs(world: &mut World, a: HostId, b: HostId) -> (u32, u32) {
    let epoch = |world: &mut World, a, b| world.peer_status(a, b).map_or(0, |peer| peer.epoch);
    (epoch(world, a, b), epoch(world, b, a))
}

/// Sessions that a host has told of so far.
fn sessions(world: &mut World, host: HostId) -> usize {
    world.noted(host, |note| matches!(note, Note::PeerConnected { .. }))
}
