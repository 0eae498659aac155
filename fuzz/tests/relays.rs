//! Several relays in one token: which of them carries, and what happens when one dies, falls silent, goes away, or comes back.
use shadowmesh_core::{config::Transports, event::Note, status::RelayState};
use shadowmesh_fuzz::world::{FlowId, HostId, PeerPlan, World};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Two relays, two peers that know both, and no direct path.
struct Scene {
    world: World,
    relays: [HostId; 2],
    a: HostId,
    b: HostId,
}

fn relay_only(plan: &mut PeerPlan) {
    plan.config.direct = Transports::NONE;
}

impl Scene {
    fn new(seed: u64) -> Self {
        Self::with(seed, |_, _| {})
    }

    /// `shape`: how far the relays are.
    fn with(seed: u64, shape: impl FnOnce(&mut World, ([HostId; 2], [HostId; 2]))) -> Self {
        let mut world = World::new(seed);
        let relays = [world.relay(), world.relay()];
        let [a, b] = [0, 1].map(|_| world.idle_peer(&relays, relay_only));
        shape(&mut world, (relays, [a, b]));
        world.start(a);
        world.start(b);
        world.until_connected(a, b);
        // both ends have measured both relays
        world.run(SECOND);
        Self { world, relays, a, b }
    }

    /// The place of the relay over which one of them sends.
    fn carrier(&mut self, from: HostId) -> usize {
        let to = if from == self.a { self.b } else { self.a };
        let peer = self.world.peer_status(from, to).expect("known");
        peer.path.and_then(|path| path.relay).expect("it sends over a relay")
    }

    fn rerouted(&mut self) -> usize {
        let is_it = |note: &Note| matches!(note, Note::Rerouted { .. });
        self.world.noted(self.a, is_it) + self.world.noted(self.b, is_it)
    }

    /// The longest time without a packet of any flow since the last call.
    fn outage(&mut self, flows: &[FlowId]) -> Duration {
        flows.iter().map(|flow| self.world.longest_gap(*flow)).max().unwrap_or_default()
    }
}

/// Traffic both ways while something befalls the relay that carries a's; and again when it is undone.
fn befalls(seed: u64, what: impl Fn(&mut World, HostId, HostId), undone: impl Fn(&mut World, HostId, HostId)) {
    let mut scene = Scene::new(seed);
    let (a, b) = (scene.a, scene.b);
    let flows = scene.world.both_ways(a, b, 1_000);
    scene.world.run(SECOND);
    scene.outage(&flows);
    let before = scene.carrier(a);
    let relay = scene.relays[before];
    what(&mut scene.world, a, relay);
    scene.world.run(5 * SECOND);
    let outage = scene.outage(&flows);
    assert!(outage <= SECOND, "{outage:?} without a packet\n{}", scene.world.story());
    assert_eq!([scene.carrier(a), scene.carrier(b)], [1 - before; 2], "both have left it");
    undone(&mut scene.world, a, relay);
    scene.world.run(20 * SECOND);
    let outage = scene.outage(&flows);
    assert!(outage <= SECOND / 10, "{outage:?} without a packet, when it was back");
    let moves = scene.rerouted();
    assert!(moves <= 2, "{moves} moves between two relays as good as each other\n{}", scene.world.story());
    scene.world.assert_whole(&flows);
}

// protocol 7.10
#[test]
fn a_relay_that_is_killed_under_load_is_left_for_the_other_without_loss() {
    for seed in 200..206 {
        befalls(seed, |world, _, relay| drop(world.kill(relay)), |world, _, relay| world.start(relay));
    }
}

// protocol 7.10: the outage was 11 s: each end waited for its connection to be found dead, and the other end did not open what came over
// a relay that it had not chosen itself
#[test]
fn a_relay_to_which_the_way_falls_silent_is_left_for_the_other_within_a_second() {
    for seed in 210..216 {
        befalls(seed, World::cut, World::heal);
    }
}

// protocol 7.10
#[test]
fn a_relay_that_loses_power_is_left_for_the_other_within_a_second() {
    for seed in 220..224 {
        befalls(seed, |world, _, relay| world.darken(relay), |world, _, relay| world.start(relay));
    }
}

/// At the start nothing is known of the round trip, and what is slow looks dead.
// protocol 7.10
#[test]
fn relays_that_are_far_away_are_not_left_for_each_other() {
    for (seed, latency) in [(280, 60), (281, 150), (282, 210), (283, 300)] {
        let mut scene = Scene::with(seed, |world, (relays, peers)| {
            for (relay, peer) in relays.into_iter().flat_map(|relay| peers.map(|peer| (relay, peer))) {
                world.change_way(relay, peer, |way| way.latency = Duration::from_millis(latency));
            }
        });
        let (a, b) = (scene.a, scene.b);
        let flows = scene.world.both_ways(a, b, 100);
        scene.world.run(20 * SECOND);
        assert_eq!(scene.rerouted(), 0, "{latency} ms\n{}", scene.world.story());
        scene.world.assert_whole(&flows);
    }
}

/// Whoever sends nothing notices nothing: it hears from the other end that it should look.
// protocol 7.10
#[test]
fn traffic_one_way_leaves_a_silent_relay_whichever_end_is_cut_off() {
    for (seed, cuts_sender) in [(230, true), (231, false), (232, true), (233, false)] {
        let mut scene = Scene::new(seed);
        let (a, b) = (scene.a, scene.b);
        let flows = [scene.world.stream(a, b, 1_000)];
        scene.world.run(SECOND);
        scene.outage(&flows);
        let before = scene.carrier(a);
        let relay = scene.relays[before];
        scene.world.cut(if cuts_sender { a } else { b }, relay);
        scene.world.run(4 * SECOND);
        let outage = scene.outage(&flows);
        assert!(outage <= SECOND, "{outage:?} without a packet\n{}", scene.world.story());
        assert_eq!([scene.carrier(a), scene.carrier(b)], [1 - before; 2], "both have left it");
        scene.world.assert_whole(&flows);
    }
}

// protocol 6.9
#[test]
fn a_relay_that_goes_away_is_left_without_a_gap_and_ends_when_nobody_needs_it() {
    for seed in 290..294 {
        let mut scene = Scene::new(seed);
        let (a, b) = (scene.a, scene.b);
        let flows = scene.world.both_ways(a, b, 1_000);
        scene.world.run(SECOND);
        scene.outage(&flows);
        let before = scene.carrier(a);
        let relay = scene.relays[before];
        scene.world.drain(relay, 60 * SECOND);
        scene.world.run(SECOND / 10);
        assert_eq!([scene.carrier(a), scene.carrier(b)], [1 - before; 2], "both have left it at once");
        assert!(scene.world.status(a).relays[before].draining && scene.world.hub_status(relay).draining);
        scene.world.run(2 * SECOND);
        assert!(!scene.world.is_running(relay), "nobody needs it any more");
        let outage = scene.outage(&flows);
        assert!(outage <= Duration::from_millis(30), "{outage:?} without a packet");
        let resent = scene.world.peer_status(a, b).expect("known").resent_frames;
        assert!(resent <= 256, "at most a window goes again, and not {resent} frames");
        scene.world.start(relay);
        scene.world.run(10 * SECOND);
        assert!(scene.world.status(a).relays.iter().all(|relay| relay.state == RelayState::Connected && !relay.draining));
        scene.world.assert_whole(&flows);
    }
}

/// Whoever has no other relay keeps it to the end, however often others have left; then it dials it anew.
// protocol 6.9
#[test]
fn a_relay_that_goes_away_serves_those_that_have_no_other_until_its_time_is_over() {
    for seed in [300, 301] {
        let mut world = World::new(seed);
        let relays = [world.relay(), world.relay()];
        let [a, b] = [&relays[..], &relays[..1]].map(|known| world.peer_with(known, relay_only));
        world.until_connected(a, b);
        let flows = world.both_ways(a, b, 200);
        world.run(SECOND);
        world.drain(relays[0], 6 * SECOND);
        world.run(5 * SECOND);
        assert_eq!(world.hub_status(relays[0]).clients.len(), 2, "a stays for b's sake");
        world.run(2 * SECOND);
        assert!(!world.is_running(relays[0]));
        world.start(relays[0]);
        world.until_connected(a, b);
        world.run(6 * SECOND);
        world.assert_whole(&flows);
    }
}

// protocol 6.9
#[test]
fn a_relay_that_goes_away_ends_at_once_without_clients_and_soon_when_nothing_passes() {
    let mut world = World::new(310);
    let relay = world.relay();
    world.drain(relay, 60 * SECOND);
    assert!(!world.is_running(relay), "nobody was there");
    world.start(relay);
    let [a, b] = [0, 1].map(|_| world.peer_with(&[relay], relay_only));
    world.until_connected(a, b);
    world.run(3 * SECOND);
    world.drain(relay, 60 * SECOND);
    world.run(SECOND / 2);
    assert!(world.is_running(relay), "somebody might need it");
    let newcomer = world.peer_with(&[relay], relay_only);
    world.run(2 * SECOND);
    assert!(!world.is_running(relay), "nobody does");
    world.run(SECOND);
    assert_ne!(world.status(newcomer).relays[0].state, RelayState::Connected, "nobody was let in");
    world.start(relay);
    world.until_connected(a, newcomer);
}

// protocol 7.10
#[test]
fn the_nearer_relay_carries_and_two_that_are_about_equal_do_not_take_turns() {
    for (seed, far, expected) in [(240, 0, Some(1)), (241, 1, Some(0)), (242, 2, None)] {
        let mut scene = Scene::with(seed, |world, (relays, peers)| {
            for (relay, peer) in relays.into_iter().flat_map(|relay| peers.map(|peer| (relay, peer))) {
                let latency = Duration::from_millis(if relays.get(far) == Some(&relay) { 40 } else { 10 });
                // noise that a choice must not follow
                world.change_way(relay, peer, |way| (way.latency, way.jitter) = (latency, Duration::from_millis(4)));
            }
        });
        let (a, b) = (scene.a, scene.b);
        let flows = scene.world.both_ways(a, b, 200);
        scene.world.run(120 * SECOND);
        if let Some(expected) = expected {
            assert_eq!([scene.carrier(a), scene.carrier(b)], [expected; 2], "\n{}", scene.world.story());
        }
        let moves = scene.rerouted();
        assert!(moves <= if expected.is_some() { 2 } else { 0 }, "{moves} moves\n{}", scene.world.story());
        scene.world.assert_whole(&flows);
    }
}

/// What counts is the whole way: to the other end, not to the relay.
// protocol 7.10
#[test]
fn two_peers_that_are_each_near_another_relay_do_not_take_turns() {
    let mut scene = Scene::with(330, |world, (relays, peers)| {
        for (at, relay) in relays.into_iter().enumerate() {
            world.change_way(relay, peers[at], |way| way.latency = Duration::from_millis(5));
            world.change_way(relay, peers[1 - at], |way| way.latency = Duration::from_millis(40));
        }
    });
    let (a, b) = (scene.a, scene.b);
    let flows = scene.world.both_ways(a, b, 200);
    scene.world.run(60 * SECOND);
    assert_eq!(scene.rerouted(), 0, "\n{}", scene.world.story());
    // and the loss of either is no more than that of any other
    let relay = scene.relays[scene.carrier(a)];
    scene.outage(&flows);
    scene.world.cut(a, relay);
    scene.world.run(4 * SECOND);
    let outage = scene.outage(&flows);
    assert!(outage <= SECOND, "{outage:?} without a packet");
    scene.world.assert_whole(&flows);
}

// protocol 7.10
#[test]
fn a_nearer_relay_that_comes_later_is_taken_without_loss_when_it_stays_nearer() {
    for (seed, near) in [(320, 0), (321, 1)] {
        let mut scene = Scene::with(seed, |world, (relays, peers)| {
            for (relay, peer) in relays.into_iter().flat_map(|relay| peers.map(|peer| (relay, peer))) {
                let latency = Duration::from_millis(if relay == relays[near] { 10 } else { 40 });
                world.change_way(relay, peer, |way| way.latency = latency);
            }
            world.kill(relays[near]);
        });
        let Scene { relays, a, b, .. } = scene;
        let flows = scene.world.both_ways(a, b, 500);
        scene.world.run(3 * SECOND);
        assert_eq!([scene.carrier(a), scene.carrier(b)], [1 - near; 2], "there is no other");
        scene.outage(&flows);
        scene.world.start(relays[near]);
        scene.world.run(4 * SECOND);
        assert_eq!([scene.carrier(a), scene.carrier(b)], [1 - near; 2], "it may be nearer for a moment only");
        scene.world.run(16 * SECOND);
        assert_eq!([scene.carrier(a), scene.carrier(b)], [near; 2], "\n{}", scene.world.story());
        let outage = scene.outage(&flows);
        assert!(outage <= SECOND / 10, "{outage:?} without a packet");
        assert_eq!(scene.rerouted(), 2);
        scene.world.assert_whole(&flows);
    }
}

// protocol 7.10
#[test]
fn peers_meet_at_any_relay_that_both_reach() {
    for (seed, only) in [(250, 0), (251, 1)] {
        let Scene { mut world, relays, a, b } = Scene::with(seed, |world, (relays, [a, _])| world.cut(a, relays[1 - only]));
        let flows = world.both_ways(a, b, 100);
        world.run(10 * SECOND);
        // and when it reaches the other one as well, but this one no more
        world.heal(a, relays[1 - only]);
        world.run(20 * SECOND);
        world.kill(relays[only]);
        world.run(3 * SECOND);
        world.assert_whole(&flows);
    }
}

// protocol 7.5, 7.10
#[test]
fn a_direct_path_and_the_relay_that_stands_by_die_at_once_and_the_other_relay_carries() {
    let mut world = World::new(260);
    let relays = [world.relay(), world.relay()];
    let [a, b] = [0, 1].map(|_| world.peer_with(&relays, |_| {}));
    world.until_direct(a, b);
    world.run(SECOND);
    let flows = world.both_ways(a, b, 1_000);
    world.run(SECOND);
    for flow in flows {
        world.longest_gap(flow);
    }
    let standby = world.peer_status(a, b).expect("known").paths.iter().find_map(|path| path.relay).expect("a relay stands by");
    world.cut(a, b);
    world.cut(a, relays[standby]);
    world.run(4 * SECOND);
    for flow in flows {
        let outage = world.longest_gap(flow);
        assert!(outage <= SECOND, "{outage:?} without a packet\n{}", world.story());
    }
    world.assert_whole(&flows);
}

/// A relay that is there for both, but brings nothing, must not hold up the handshake.
// protocol 3.9
#[test]
fn a_handshake_goes_on_over_another_relay_when_the_first_swallows_it() {
    for seed in [270, 271] {
        let mut world = World::new(seed);
        let relays = [world.relay(), world.relay()];
        let [a, b] = [0, 1].map(|_| world.idle_peer(&relays, relay_only));
        for relay in relays {
            world.tap(b, relay, Box::new(|_| Vec::new()));
        }
        world.start(a);
        world.run(SECOND);
        for relay in relays {
            world.untap(b, relay);
        }
        world.start(b);
        let both = |world: &mut World| {
            [a, b].iter().all(|peer| world.relay_states(*peer).len() == 2)
                && world.hub_status(relays[0]).clients.len() == 2
                && world.hub_status(relays[1]).clients.len() == 2
        };
        world.until("both are at both relays", 5 * SECOND, both);
        world.cut(a, relays[0]);
        world.until("they are connected", 3 * SECOND, |world| world.is_connected(a, b) && world.is_connected(b, a));
    }
}
