//! What each mode of a migration keeps, and what becomes of the relay connection (protocol 7.7).
use shadowmesh_core::{
    config::Mode,
    status::RelayState,
    wire::{PathLabel, TYPE_DLV, TYPE_FRAME},
};
use shadowmesh_fuzz::world::{HostId, Letter, World, payloads, rewrite};
use std::{collections::BTreeSet, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

// protocol 7.7
#[test]
fn with_mode_off_nothing_is_sent_twice_and_a_dead_path_costs_what_was_on_it() {
    let mut world = World::new(601);
    let (_, a, b) = peers(&mut world, Mode::Off);
    world.until_direct(a, b);
    let flow = world.stream(a, b, 500);
    world.run(2 * SECOND);
    world.cut(a, b);
    world.until("the sender is on the relay", SECOND, |world| world.label(a, b) == Some(PathLabel::RelayWss));
    world.run(2 * SECOND);
    world.stop(flow);
    world.run(3 * SECOND);
    assert_eq!(resent(&mut world, a, b), 0);
    let account = world.account_of(flow);
    assert!(account.lost > 0, "what the dead path swallowed is gone: {account:?}");
    assert_eq!((account.doubled, account.reordered), (0, 0));
    assert!(account.lost < 1_000, "and no more than that: {account:?}");
}

// protocol 7.7
#[test]
fn with_no_switch_the_default_mode_sends_what_mode_off_sends() {
    let told = [Mode::Off, Mode::SwitchLossless].map(|mode| {
        let mut world = World::new(602);
        let (_, a, b) = peers(&mut world, mode);
        world.refuse(a, b);
        world.until_connected(a, b);
        let flow = world.stream(a, b, 500);
        world.run(5 * SECOND);
        world.assert_whole(&[flow]);
        assert_eq!(resent(&mut world, a, b), 0);
        world.account_of(flow).handed
    });
    assert_eq!(told[0], told[1]);
}

// protocol 7.7
#[test]
fn mode_reliable_repairs_what_the_relay_drops_and_the_default_counts_it() {
    for (mode, repairs) in [(Mode::Reliable, true), (Mode::SwitchLossless, false)] {
        let mut world = World::new(603);
        let (relay, a, b) = peers(&mut world, mode);
        world.refuse(a, b);
        world.until_connected(a, b);
        let mut count = 0;
        let lossy = move |letter: Letter| {
            if letter.from != relay || letter.bytes[0] != TYPE_DLV {
                return vec![letter.bytes];
            }
            // every fortieth data frame that the relay should deliver is gone; its handle of nobody makes the peer drop it
            vec![rewrite(&letter.bytes, |handle, payload| {
                let is_data = payload[0] == TYPE_FRAME && payload[8] == 0;
                count += u32::from(is_data);
                if is_data && count % 40 == 0 {
                    handle.0 = u32::MAX;
                    payload.truncate(1);
                }
            })]
        };
        world.tap(relay, b, Box::new(lossy));
        let flow = world.stream(a, b, 400);
        world.run(5 * SECOND);
        world.untap(relay, b);
        world.stop(flow);
        world.run(5 * SECOND);
        let account = world.account_of(flow);
        assert_eq!(account.doubled, 0);
        let counted = world.peer_status(a, b).expect("a peer").lost_frames;
        if repairs {
            assert_eq!(account.lost, 0, "{account:?}");
            assert!(resent(&mut world, a, b) > 20);
        } else {
            assert!(account.lost > 20, "{account:?}");
            assert_eq!(counted, account.lost, "both ends know what was lost");
        }
    }
}

// protocol 7.7
#[test]
fn mode_redundant_sends_each_frame_on_both_paths_and_delivers_it_once() {
    let mut world = World::new(604);
    let (relay, a, b) = peers(&mut world, Mode::Redundant);
    world.until_direct(a, b);
    world.record();
    let flow = world.stream(a, b, 200);
    world.run(3 * SECOND);
    world.stop(flow);
    world.run(SECOND);
    let (mut direct, mut relayed) = (BTreeSet::new(), BTreeSet::new());
    for message in world.recorded().iter().filter(|message| message.from == a) {
        for (_, payload) in payloads(&message.bytes).into_iter().filter(|(_, payload)| payload[0] == TYPE_FRAME && payload[8] == 0) {
            let way = if message.to == relay { &mut relayed } else { &mut direct };
            way.insert(payload);
        }
    }
    let account = world.account_of(flow);
    assert_eq!(direct.len() as u64, account.handed);
    assert_eq!(direct, relayed, "bit for bit the same on both");
    assert_eq!((account.lost, account.doubled, account.reordered), (0, 0, 0));
}

// protocol 7.7
#[test]
fn a_relay_that_is_closed_after_a_migration_is_dialled_again_on_fallback_and_nothing_is_lost() {
    let mut world = World::new(605);
    let relay = world.relay();
    let [a, b] = [0; 2].map(|_| world.peer_with(&[relay], |plan| plan.config.close_relay = true));
    world.until_direct(a, b);
    let flows = world.both_ways(a, b, 100);
    world.until("both have closed the relay", 30 * SECOND, |world| [a, b].iter().all(|host| relay_of(world, *host) == RelayState::Parked));
    world.run(5 * SECOND);
    world.cut(a, b);
    world.until_relayed(a, b);
    assert_eq!(relay_of(&mut world, a), RelayState::Connected);
    world.assert_whole(&flows);
}

fn peers(world: &mut World, mode: Mode) -> (HostId, HostId, HostId) {
    let relay = world.relay();
    let [a, b] = [0; 2].map(|_| world.peer_with(&[relay], |plan| plan.config.mode = mode));
    (relay, a, b)
}

fn resent(world: &mut World, a: HostId, b: HostId) -> u64 {
    let id = world.id(b);
    world.status(a).peers.into_iter().find(|peer| peer.id == id).expect("a peer").resent_frames
}

fn relay_of(world: &mut World, host: HostId) -> RelayState {
    world.status(host).relays[0].state
}
