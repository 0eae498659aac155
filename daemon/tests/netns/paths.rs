//! The heart of it: traffic runs while its path changes, and nothing is lost, doubled or reordered.

use crate::bulk::{Iperf, Transfer};
use crate::frames::Capture;
use crate::mesh::{Mesh, counter, remote};
use crate::stream::Stream;
use crate::world::{Host, Underlay, World, drop_between, end_resets, heal, reset_between};
use crate::{Scenario, scenario};
use std::time::Duration;

/// About a third of a second of the stream in both directions.
const A_WHILE: u64 = 300;
/// How often the relay is looked at for a stream that should pass elsewhere.
const LOOKS: usize = 3;
/// What the capture on the relay looks for: the filler of the numbered stream.
const STREAM_TEXT: &[u8] = &[0x5a; 64];

pub(crate) fn all() -> Vec<Scenario> {
    let v6 = |name, story| Scenario { underlay: Underlay::OnlyV6, ..scenario(name, story) };
    vec![
        scenario("two_peers_ping_over_relay", two_peers_ping_over_relay),
        scenario("migrate_to_direct", migrate_to_direct),
        v6("ipv6_underlay", migrate_to_direct),
        scenario("drop_of_direct_path_loses_nothing", drop_of_direct_path),
        scenario("wss_drop_of_direct_path_loses_nothing", drop_of_wss_path),
        scenario("reset_of_direct_path_loses_nothing", reset_of_direct_path),
        v6("ipv6_drop_of_direct_path_loses_nothing", drop_of_direct_path),
        v6("ipv6_reset_of_direct_path_loses_nothing", reset_of_direct_path),
        scenario("file_100mb_across_all", file_100mb_across_all),
        scenario("three_peers_at_once", three_peers_at_once),
        scenario("capture_on_relay_shows_no_plaintext", capture_on_relay),
    ]
}

fn two_peers_ping_over_relay(world: &World) {
    let relay_only = |options: crate::mesh::Options| options.set("SHADOWMESH_P2P_TRANSPORTS", "");
    let mut mesh = Mesh::start(world, &["a", "b"], false, relay_only);
    mesh.until_all("relay");
    assert_eq!(mesh.peers[0].status().expect("a running peer answers")["runtime"], mesh.peers[0].host.runtime);
    for (from, to) in [(0, "b"), (1, "a")] {
        let output = mesh.peers[from].ask(&["ping", to, "-c", "3"]);
        assert!(output.status.success(), "{}", output.text());
        assert!(output.stdout.contains("relay"), "ping names the path: {}", output.stdout);
        assert!(!output.stdout.contains("direct"), "there is no direct path: {}", output.stdout);
    }
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.wait_for_more(world, 2 * A_WHILE);
    stream.finish_perfect();

    // The address made from the identity works as well, without any configuration.
    let [a, b] = [0, 1].map(|index| mesh.peers[index].derived_address());
    let stream = Stream::start((&mesh.peers[0].host, a), (&mesh.peers[1].host, b));
    stream.wait_for_more(world, A_WHILE);
    stream.finish_perfect();
    for (from, to) in [(0, "b"), (1, "a")] {
        let peer = mesh.peers[from].knows(to);
        assert_eq!(peer["path"]["kind"], "relay", "{peer:#}");
        assert_eq!(counter(&peer, "migrations"), 0, "{peer:#}");
    }
}

fn migrate_to_direct(world: &World) {
    let mut mesh = Mesh::start(world, &["a", "b"], true, |options| options);
    mesh.until_all("relay");
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.wait_for_more(world, A_WHILE);
    mesh.join();
    let output = mesh.peers[0].ask(&["ping", "b", "--until-direct", "--timeout", "20s"]);
    assert!(output.status.success(), "both directions become direct: {}", output.text());
    mesh.until_all("direct");
    stream.wait_for_more(world, A_WHILE);

    // Seen from the relay: the stream no longer comes by. Where processors are short, receipts are late, and copies do for a moment
    // (protocol 7.5): so there are a few looks, and one has to see none.
    let look = || {
        let capture = Capture::start(&mesh.relay_host, STREAM_TEXT);
        stream.wait_for_more(world, 1000);
        capture.totals()
    };
    let seen: Vec<_> = (0..LOOKS).map(|_| look()).collect();
    assert!(seen.iter().any(|seen| seen.bytes < 100_000), "a megabyte of stream passes elsewhere, but the relay saw {seen:?}");
    stream.finish_perfect();
    for (index, other) in [(0, 1), (1, 0)] {
        let host = mesh.peers[other].host.clone();
        let peer = mesh.peers[index].knows(&host.name);
        assert!(counter(&peer, "migrations") >= 1, "{peer:#}");
        assert_clean(&peer);
        let address = remote(&peer["path"]).ip();
        assert!(
            host.v4.is_some_and(|v4| address == v4) || address == host.v6,
            "the direct path leads to the other host itself, not to {address}"
        );
    }
}

fn drop_of_direct_path(world: &World) {
    journey(world, Cut { transports: "udp,wss", away: drop_between, heal });
}

fn drop_of_wss_path(world: &World) {
    journey(world, Cut { transports: "wss", away: drop_between, heal });
}

fn reset_of_direct_path(world: &World) {
    journey(world, Cut { transports: "wss", away: reset_between, heal: end_resets });
}

/// A way to take the direct path away, and back.
struct Cut {
    /// Direct transports of the peers.
    transports: &'static str,
    away: fn(&Host, &Host),
    heal: fn(&Host, &Host),
}

/// Relay, direct, relay, direct again, with both kinds of traffic under way.
fn journey(world: &World, Cut { transports, away, heal }: Cut) {
    let mut mesh = Mesh::start(world, &["a", "b"], true, |options| options.set("SHADOWMESH_P2P_TRANSPORTS", transports));
    let [a, b] = [0, 1].map(|index| mesh.peers[index].host.clone());
    mesh.until_all("relay");
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    let iperf = Iperf::start(world, mesh.end(0).0, mesh.end(1));
    stream.step(world, "over the relay", A_WHILE);
    mesh.join();
    mesh.until_all("direct");
    stream.step(world, "to direct", A_WHILE);
    away(&a, &b);
    mesh.until_all("relay");
    stream.step(world, "back to the relay", A_WHILE);
    heal(&a, &b);
    mesh.until_all("direct");
    stream.step(world, "to direct again", A_WHILE);
    if let Some(iperf) = iperf {
        iperf.finish();
    }
    stream.finish_perfect();
    assert_fell_back(&mesh);
}

fn file_100mb_across_all(world: &World) {
    let total = 100_000_000;
    let mut mesh = Mesh::start(world, &["a", "b"], true, |options| options);
    mesh.until_all("relay");
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    let file = Transfer::start(mesh.end(0).0, mesh.end(1), total, 5_000_000);
    file.wait_for_more(world, 5_000_000);
    stream.step(world, "over the relay", A_WHILE);
    mesh.join();
    mesh.until_all("direct");
    file.wait_for_more(world, 5_000_000);
    stream.step(world, "to direct", A_WHILE);
    drop_between(&mesh.peers[0].host, &mesh.peers[1].host);
    mesh.until_all("relay");
    file.wait_for_more(world, 5_000_000);
    stream.step(world, "back to the relay", A_WHILE);
    heal(&mesh.peers[0].host, &mesh.peers[1].host);
    mesh.until_all("direct");
    stream.step(world, "to direct again", A_WHILE);
    assert!(file.received() < total, "the file was still under way at each change");
    // The stream ends before the file goes as fast as it can: how a full queue is shared is another matter.
    stream.finish_perfect();
    let arrived = file.finish(world, Duration::from_secs(40));
    assert_eq!(arrived.bytes, total);
    assert_eq!(arrived.sent, arrived.received, "SHA-256 at both ends");
    assert_fell_back(&mesh);
}

fn three_peers_at_once(world: &World) {
    let mut mesh = Mesh::start(world, &["a", "b", "c"], true, |options| options);
    mesh.until_all("relay");
    let streams = [(0, 1), (1, 2), (2, 0)].map(|(from, to)| Stream::start(mesh.end(from), mesh.end(to)));
    for stream in &streams {
        stream.wait_for_more(world, A_WHILE);
    }
    mesh.join();
    mesh.until_all("direct");
    for stream in &streams {
        stream.wait_for_more(world, A_WHILE);
    }
    // One pair loses its direct path; the others must not notice.
    let [a, b] = [0, 1].map(|index| mesh.peers[index].host.clone());
    drop_between(&a, &b);
    mesh.peers[0].until_path("b", "relay");
    mesh.peers[1].until_path("a", "relay");
    for (peer, other) in [(0, "c"), (1, "c"), (2, "a"), (2, "b")] {
        let peer = mesh.peers[peer].knows(other);
        assert_eq!(peer["path"]["kind"], "direct", "only a and b are cut: {peer:#}");
        assert_eq!(counter(&peer, "fallbacks"), 0, "{peer:#}");
    }
    heal(&a, &b);
    mesh.until_all("direct");
    for stream in streams {
        stream.finish_perfect();
    }
}

fn capture_on_relay(world: &World) {
    let relay_only = |options: crate::mesh::Options| options.set("SHADOWMESH_P2P_TRANSPORTS", "");
    let mut mesh = Mesh::start(world, &["a", "b"], false, relay_only);
    mesh.until_all("relay");
    let on_relay = Capture::start(&mesh.relay_host, STREAM_TEXT);
    // The same search on the peer's own host, where the stream enters the tunnel, shows that it can find.
    let on_peer = Capture::start(&mesh.peers[0].host, STREAM_TEXT);
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.wait_for_more(world, 1000);
    stream.finish_perfect();
    let (relay, peer) = (on_relay.totals(), on_peer.totals());
    assert!(peer.found >= 1000, "the search finds the plaintext where it is: {peer:?}");
    assert!(relay.bytes > 1_000_000, "the stream went over the relay: {relay:?}");
    assert_eq!(relay.found, 0, "no frame on the relay holds plaintext: {relay:?}");
}

pub(crate) fn assert_fell_back(mesh: &Mesh<'_>) {
    for (index, other) in [(0, "b"), (1, "a")] {
        let peer = mesh.peers[index].knows(other);
        let [fallbacks, migrations] = ["fallbacks", "migrations"].map(|key| counter(&peer, key));
        eprintln!("    {} counts {fallbacks} fallbacks and {migrations} migrations", mesh.peers[index].name);
        assert!(counter(&peer, "fallbacks") >= 1, "{peer:#}");
        assert!(counter(&peer, "migrations") >= 2, "to direct, and to direct again: {peer:#}");
        assert_clean(&peer);
    }
}

fn assert_clean(peer: &serde_json::Value) {
    let [lost, reordered] = ["lost_frames", "reordered_frames"].map(|key| counter(peer, key));
    assert_eq!((lost, reordered), (0, 0), "the product's own count agrees: {peer:#}");
}
