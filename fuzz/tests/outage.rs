//! How long the death of a direct path is felt, over many moments of death: relay path 40 ms, direct path 10 ms one way, 1,000
//! packets a second in both directions. Virtual time, so the figures are exact; `SHADOWMESH_OUTAGES=100` makes 100 runs a fault.
use shadowmesh_core::{
    config::Transports,
    event::{Event, Note},
    wire::PathLabel,
};
use shadowmesh_fuzz::world::{HostId, World};
use std::time::Duration;

const P50: Duration = Duration::from_millis(250);
const P99: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);

fn runs() -> u64 {
    std::env::var("SHADOWMESH_OUTAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Two peers on the ways that the goal names, not started yet.
fn idle(seed: u64, udp: bool) -> (World, HostId, [HostId; 2]) {
    let mut world = World::new(seed);
    let relay = world.relay();
    let transports = if udp { Transports::ALL } else { Transports::WSS };
    let [a, b] = [0, 1].map(|_| world.idle_peer(&[relay], |plan| plan.config.direct = transports));
    for host in [a, b] {
        world.change_way(host, relay, |way| way.latency = Duration::from_millis(20));
    }
    world.change_way(a, b, |way| way.latency = Duration::from_millis(10));
    (world, relay, [a, b])
}

fn start(world: &mut World, [a, b]: [HostId; 2]) {
    for host in [a, b] {
        world.start(host);
    }
    world.until_connected(a, b);
}

/// They are direct by this transport.
fn direct(seed: u64, udp: bool) -> (World, HostId, [HostId; 2]) {
    let (mut world, relay, [a, b]) = idle(seed, udp);
    start(&mut world, [a, b]);
    if udp {
        world.until_udp(a, b)
    } else {
        world.until_direct(a, b)
    };
    (world, relay, [a, b])
}

/// What is done to the path at some moment, and how long it is felt: the longest gap of either direction.
fn outages(name: &str, udp: bool, fault: impl Fn(&mut World, HostId, [HostId; 2])) -> Vec<Duration> {
    let mut gaps: Vec<Duration> = (0..runs())
        .map(|run| {
            let (mut world, relay, hosts) = direct(7_000 + run, udp);
            let flows = world.both_ways(hosts[0], hosts[1], 1_000);
            world.run(SECOND + Duration::from_micros(run * 1_357));
            fault(&mut world, relay, hosts);
            world.run(3 * SECOND);
            let gap = flows.map(|flow| world.longest_gap(flow)).into_iter().max().unwrap_or_default();
            world.assert_whole(&flows);
            gap
        })
        .collect();
    gaps.sort_unstable();
    eprintln!(
        "{name}, {}: {} runs, p50 {:?}, p99 {:?}, longest {:?}",
        if udp { "UDP" } else { "WSS" },
        gaps.len(),
        at(&gaps, 50),
        at(&gaps, 99),
        at(&gaps, 100)
    );
    gaps
}

fn at(gaps: &[Duration], percent: usize) -> Duration {
    gaps[(gaps.len() * percent).div_ceil(100).clamp(1, gaps.len()) - 1]
}

fn is_short(name: &str, fault: fn(&mut World, HostId, [HostId; 2])) {
    for udp in [true, false] {
        let gaps = outages(name, udp, fault);
        assert!(at(&gaps, 50) <= P50 && at(&gaps, 99) <= P99, "{name}: {gaps:?}");
    }
}

// protocol 7.5
#[test]
fn silence_both_ways() {
    is_short("silence both ways", |world, _, [a, b]| world.cut(a, b));
}

// protocol 7.5
#[test]
fn silence_one_way() {
    is_short("silence one way", |world, _, [a, b]| world.cut_one_way(a, b));
    is_short("silence the other way", |world, _, [a, b]| world.cut_one_way(b, a));
}

// protocol 7.5
#[test]
fn a_reset() {
    is_short("reset", |world, _, [a, b]| {
        world.reset(a, b);
        world.cut(a, b);
    });
}

/// Nothing uses the path when it dies, so nobody notices; who asks whether the other end is there is not told no for 25 s.
// protocol 7.9
#[test]
fn a_ping_over_a_path_that_died_unused_finds_another_way_with_the_next_one() {
    for udp in [true, false] {
        for away in [5, 12, 19] {
            let (mut world, _, [a, b]) = direct(7_900 + away, udp);
            let peer = world.id(b);
            world.run(Duration::from_secs(away));
            world.cut(a, b);
            world.run(2 * SECOND);
            assert_eq!(world.label(a, b).map(|label| label == PathLabel::RelayWss), Some(false), "nobody has noticed");
            for id in 0..5 {
                world.event(a, Event::Ping { peer, id, payload: Vec::new() });
                world.run(SECOND);
            }
            let answered = |wanted: u32| world.noted(a, |note| matches!(note, Note::Pong { id, .. } if *id == wanted));
            assert_eq!([0, 1, 2, 3, 4].map(answered), [0, 1, 1, 1, 1], "udp {udp}, away {away}");
        }
    }
}

/// The relay restarts in the moment in which the direct path dies: nothing can pass until it is back and joined again.
// protocol 7.6
#[test]
fn a_relay_that_restarts_at_the_same_moment_loses_nothing() {
    for udp in [true, false] {
        let gaps = outages("with a restart of the relay", udp, |world, relay, [a, b]| {
            world.cut(a, b);
            world.restart(relay);
        });
        assert!(at(&gaps, 99) <= SECOND, "{gaps:?}");
    }
}

/// The relay is away for a second: all that the tunnel is given meanwhile waits, and waiting for a path is no congestion.
// protocol 7.1, 7.6
#[test]
fn a_relay_that_is_away_while_the_direct_path_is_gone_loses_nothing() {
    for udp in [true, false] {
        for away in [200, 400, 700, 1_000] {
            let gaps = outages("with the relay away", udp, |world, relay, [a, b]| {
                world.cut(a, b);
                world.kill(relay);
                world.run(Duration::from_millis(away));
                world.start(relay);
            });
            assert!(at(&gaps, 99) <= Duration::from_millis(400 + 2 * away), "{gaps:?}");
        }
    }
}

/// The way back does not wait for a round of attempts: the path that was good is asked for each second.
// protocol 8.2
#[test]
fn after_an_outage_of_a_minute_the_traffic_is_direct_again_within_two_seconds() {
    for outage in [2_000, 4_500, 7_300, 11_000, 19_700, 33_000, 61_000] {
        let (mut world, _, [a, b]) = direct(9_100, true);
        let flows = world.both_ways(a, b, 100);
        world.run(SECOND);
        world.cut(a, b);
        world.run(Duration::from_millis(outage));
        world.heal(a, b);
        let healed = world.now();
        while [(a, b), (b, a)].iter().any(|(one, other)| world.label(*one, *other) != Some(PathLabel::DirectUdp)) {
            assert!(world.now().since(healed) <= 2 * SECOND, "not back after {outage} ms of outage");
            world.run(Duration::from_millis(10));
        }
        eprintln!("after {outage} ms: direct again in {:?}", world.now().since(healed));
        world.assert_whole(&flows);
    }
}

/// The path by UDP comes back without one by WebSocket before it, which would use up the moves of a minute.
// protocol 7.5, 8.2
#[test]
fn after_two_outages_in_a_minute_the_traffic_is_direct_by_udp_within_two_seconds_each_time() {
    for seed in 0..8 {
        let (mut world, _, [a, b]) = direct(9_200 + seed, true);
        world.run(61 * SECOND);
        let flows = world.both_ways(a, b, 100);
        let moves = |world: &mut World| world.peer_status(a, b).map_or(0, |peer| peer.migrations + peer.fallbacks);
        let before = moves(&mut world);
        for _ in 0..2 {
            world.run(2 * SECOND);
            world.cut(a, b);
            world.run(12 * SECOND);
            world.heal(a, b);
            let healed = world.now();
            while [(a, b), (b, a)].iter().any(|(one, other)| world.label(*one, *other) != Some(PathLabel::DirectUdp)) {
                assert!(world.now().since(healed) <= 2 * SECOND, "not back, seed {seed}");
                world.run(Duration::from_millis(10));
            }
        }
        assert_eq!(moves(&mut world) - before, 4, "seed {seed}");
        world.assert_whole(&flows);
    }
}

// protocol 7.2
#[test]
fn an_upgrade_from_the_relay_loses_nothing_and_makes_no_gap_above_the_difference_of_the_ways() {
    for udp in [true, false] {
        let mut longest = Duration::ZERO;
        for run in 0..runs() {
            let (mut world, _, [a, b]) = idle(8_000 + run, udp);
            world.cut(a, b);
            start(&mut world, [a, b]);
            let flows = world.both_ways(a, b, 1_000);
            world.run(SECOND + Duration::from_micros(run * 1_357));
            world.heal(a, b);
            world.until_direct(a, b);
            world.run(SECOND);
            assert_ne!(world.label(a, b), Some(PathLabel::RelayWss));
            longest = flows.map(|flow| world.longest_gap(flow)).into_iter().max().unwrap_or_default().max(longest);
            world.assert_whole(&flows);
        }
        eprintln!("upgrade: {} runs, longest gap {longest:?}", runs());
        assert!(longest <= Duration::from_millis(30), "{longest:?}");
    }
}

// protocol 7.5
#[test]
fn a_path_that_flaps_each_second_moves_the_traffic_six_times_a_minute_at_most_and_loses_nothing() {
    for udp in [true, false] {
        let (mut world, _, [a, b]) = direct(9_000, udp);
        let flows = world.both_ways(a, b, 1_000);
        world.run(SECOND);
        for _ in 0..60 {
            world.cut(a, b);
            world.run(SECOND / 2);
            world.heal(a, b);
            world.run(SECOND / 2);
        }
        for (one, other) in [(a, b), (b, a)] {
            let peer = world.peer_status(one, other).expect("known");
            let moves = peer.migrations + peer.fallbacks;
            eprintln!("flapping: {} migrations, {} fallbacks", peer.migrations, peer.fallbacks);
            assert!(moves <= 7, "{moves} moves in a minute, the first way to direct included");
        }
        world.assert_whole(&flows);
    }
}
