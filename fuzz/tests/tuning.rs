//! A peer that is told to be more or less patient while it runs (`p2p.*`), and loses nothing by it.
use shadowmesh_core::{
    config::Tuning,
    event::{Event, Note},
    status::RelayState,
};
use shadowmesh_fuzz::world::{HostId, World};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// The defaults of the world's peers.
const USUAL: Tuning = Tuning {
    retry_interval: Duration::from_mins(1),
    health_check_interval: Duration::from_secs(30),
    connect_timeout: Duration::from_secs(5),
    close_relay: false,
};

// protocol 6.3
#[test]
fn a_shorter_retry_interval_shortens_the_wait_under_way() {
    let wait_after = |tunes: bool| {
        let mut world = World::new(601);
        let relay = world.relay();
        let (a, b) = (world.peer(relay), world.peer(relay));
        world.cut(a, b);
        world.until_connected(a, b);
        let flow = world.stream(a, b, 20);
        // attempts are a minute apart by now
        world.run(6 * 60 * SECOND);
        if tunes {
            for host in [a, b] {
                world.event(host, Event::Tune(Tuning { retry_interval: SECOND, ..USUAL }));
            }
        }
        // what began before the way was there ends first
        world.run(6 * SECOND);
        world.heal(a, b);
        let took = world.until_direct(a, b);
        world.run(2 * SECOND);
        world.assert_whole(&[flow]);
        assert_eq!(world.noted(a, |note| matches!(note, Note::PeerConnected { .. })), 1, "one session all the time");
        took
    };
    let (before, after) = (wait_after(false), wait_after(true));
    assert!(after <= 7 * SECOND, "{after:?}");
    assert!(before > 2 * after, "{before:?} without, {after:?} with it");
}

#[test]
fn relays_are_closed_and_dialled_again_when_that_is_wanted() {
    let mut world = World::new(602);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    let flows = world.both_ways(a, b, 50);
    let is = |state: RelayState| move |world: &mut World| of(world, a) == state;
    world.event(a, Event::Tune(Tuning { close_relay: true, ..USUAL }));
    world.until("the relay is closed", 5 * SECOND, is(RelayState::Parked));
    world.run(10 * SECOND);
    world.event(a, Event::Tune(USUAL));
    world.until("the relay is there again", 5 * SECOND, is(RelayState::Connected));
    world.run(2 * SECOND);
    world.assert_whole(&flows);
    assert_eq!(world.noted(a, |note| matches!(note, Note::PeerConnected { .. } | Note::PeerLost { .. })), 1);
}

fn of(world: &World, host: HostId) -> RelayState {
    world.relay_states(host)[0]
}

#[test]
fn a_shorter_health_check_interval_finds_a_dead_path_sooner() {
    let silent = |interval| {
        let mut world = World::new(603);
        let relay = world.relay();
        let (a, b) = (world.peer(relay), world.peer(relay));
        world.until_direct(a, b);
        world.run(60 * SECOND);
        for host in [a, b] {
            world.event(host, Event::Tune(Tuning { health_check_interval: interval, ..USUAL }));
        }
        // of the path that stands, not only of the next one
        world.run(10 * SECOND);
        world.cut(a, b);
        world.until_relayed(a, b)
    };
    let (usual, short) = (silent(USUAL.health_check_interval), silent(SECOND));
    assert!(short < usual && short < 5 * SECOND, "{short:?}, and {usual:?} as usual");
}
