//! Nothing grows without bound: a reader that does not read, a way that is too slow, a link that is idle.
use shadowmesh_core::config::Transports;
use shadowmesh_fuzz::world::World;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// What a peer may have waiting for one connection: the outbox of runtime-smol and one message more.
const OUTBOX_BYTES: usize = 64 * 1024 + 16 * 1024;

#[test]
fn a_relay_connection_that_takes_nothing_does_not_grow_the_sender() {
    let mut world = World::new(100);
    let relay = world.relay();
    let (a, b) = (world.peer_with(&[relay], |plan| plan.config.direct = Transports::NONE), world.peer(relay));
    world.until_connected(a, b);
    let flow = world.stream_of(a, b, 2_000, 1_400);
    world.run(SECOND);
    world.change_way(a, relay, |way| way.rate = 1);
    let mut most = 0;
    for _ in 0..60 {
        world.run(SECOND / 10);
        most = most.max(world.waiting(a));
    }
    assert!(most <= OUTBOX_BYTES, "{most} bytes wait");
    let dropped = world.dropped(a, "queue_full") + world.dropped(a, "congestion");
    assert!(dropped > 5_000, "what had no room was dropped before sealing and counted: {dropped}");
    world.change_way(a, relay, |way| way.rate = 125_000_000);
    world.until_connected(a, b);
    world.stop(flow);
    let fresh = world.stream(a, b, 100);
    world.run(3 * SECOND);
    assert!(world.account_of(fresh).lost < 250, "it goes on when the way is good again");
}

#[test]
fn a_client_that_reads_nothing_is_bounded_at_the_relay_and_closed() {
    let mut world = World::new(101);
    let relay = world.relay();
    let [a, b, c] = [world.peer(relay), world.peer(relay), world.peer(relay)];
    for (one, other) in [(a, b), (a, c), (b, c)] {
        world.refuse(one, other);
    }
    world.until_connected(a, b);
    world.until_connected(a, c);
    let victim = world.stream_of(a, b, 3_000, 1_400);
    let bystander = world.stream_of(a, c, 200, 400);
    world.run(SECOND);
    world.cut(b, relay);
    let mut most = 0;
    for _ in 0..80 {
        world.run(SECOND / 10);
        most = most.max(world.hub_status(relay).forward.queue_bytes);
    }
    assert!(most <= 1024 * 1024 + 64 * 1024, "{most} bytes wait at the relay");
    world.stop(victim);
    world.assert_whole(&[bystander]);
}

// protocol 7.1
#[test]
fn a_slow_way_drops_before_sealing_and_delivers_the_rest_in_order() {
    let mut world = World::new(102);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    world.change_way(a, b, |way| (way.rate, way.window) = (500_000, 32 * 1024));
    let flow = world.stream_of(a, b, 1_000, 1_400);
    world.run(10 * SECOND);
    world.stop(flow);
    world.run(3 * SECOND);
    let account = world.account_of(flow);
    assert_eq!((account.doubled, account.reordered), (0, 0));
    let came = account.handed - account.lost;
    assert!(came * 1_400 > 3_000_000, "{came} packets used the way less than it could");
    assert!(world.dropped(a, "queue_full") + world.dropped(a, "congestion") > 0);
    assert_eq!(world.peer_status(b, a).map(|peer| peer.lost_frames), Some(0), "nothing was lost after sealing");
}

#[test]
fn an_idle_link_is_quiet() {
    let mut world = World::new(103);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    world.run(5 * SECOND);
    world.record();
    world.run(60 * SECOND);
    let messages = world.recorded().len();
    // relay pings and their answers each 20 s, path probes each 25 s, with the relay's hop counted
    assert!(messages <= 60, "{messages} messages in an idle minute");
}

/// Twelve peers or four: each idle path costs its own probes, and nobody is woken for anything else.
#[test]
fn idle_peers_wake_nobody_but_for_their_probes() {
    const MINUTES: u64 = 10;
    let alarms = |others: usize| {
        let mut world = World::new(104);
        let relay = world.relay();
        let a = world.peer_with(&[relay], |plan| plan.config.direct = Transports::UDP);
        for _ in 0..others {
            let peer = world.peer_with(&[relay], |plan| plan.config.direct = Transports::UDP);
            world.until_udp(a, peer);
        }
        world.run(60 * SECOND);
        let before = world.alarms(a);
        world.run(60 * SECOND * u32::try_from(MINUTES).expect("a few"));
        world.alarms(a) - before
    };
    let (few, many) = (alarms(4), alarms(12));
    // a probe each 25 s by either end, and the moment by which it has to be answered
    assert!(many - few <= 8 * 5 * MINUTES, "eight more idle peers cost {} alarms", many - few);
    assert!(few <= 4 * 5 * MINUTES + 6 * MINUTES, "{few} alarms in {MINUTES} minutes with 4 idle peers");
}
