//! Two relays in one token: one of them dies, falls silent or leaves under load, and comes back. The traffic does not notice.

use crate::mesh::{METRICS, Mesh, Options, Peer, Relay, list, overlay};
use crate::stream::Stream;
use crate::world::{Host, World, drop_between, heal, nft};
use crate::{Scenario, scenario};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

/// Half a second of the stream in both directions.
const A_WHILE: u64 = 500;
/// What a failing relay may cost, beside what a busy machine costs when nothing fails.
const OUTAGE: Duration = Duration::from_secs(1);
/// The same where the relay says that it goes, and when it is back.
const NOTHING: Duration = Duration::from_millis(500);
/// Both relays are found, and measured.
const SOON: Duration = Duration::from_secs(15);

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("relay_killed_under_load", relay_killed),
        scenario("relay_cut_off_under_load", relay_cut_off),
        scenario("relay_drained_under_load", relay_drained),
        scenario("relay_drained_with_no_other", relay_drained_with_no_other),
        scenario("relay_that_one_peer_does_not_reach", relay_out_of_reach),
        scenario("relay_by_udp_and_back", relay_by_udp),
    ]
}

fn relay_killed(world: &World) {
    befalls(world, OUTAGE, |_, relay| relay.kill(), |world, _, relay| relay.start(world));
}

/// Neither end nor the relay is told.
fn relay_cut_off(world: &World) {
    befalls(world, OUTAGE, |host, relay| drop_between(host, relay.host()), |_, host, relay| heal(host, relay.host()));
}

/// SIGTERM: the relay says that it goes, and ends when its clients have left it.
fn relay_drained(world: &World) {
    befalls(world, NOTHING, |_, relay| relay.stop(), |world, _, relay| relay.start(world));
}

/// The first relay of the token is there for one peer alone: they meet at the other, and the first may come and go.
fn relay_out_of_reach(world: &World) {
    let relay_hosts = ["relay1", "relay2"].map(|name| world.host(name));
    let hosts = ["a", "b"].map(|name| world.host(name));
    let mut relays = Relay::prepare_all(world, &relay_hosts);
    drop_between(&hosts[0], &relay_hosts[0]);
    for relay in &mut relays {
        relay.start(world);
    }
    let mut peers = peers_of(world, &hosts, &relays[0].token);
    for (peer, other) in peers.iter_mut().zip(["b", "a"]) {
        peer.until_path(other, "relay");
        assert_eq!(carrier(peer, other), relays[1].url);
    }
    let stream = stream_between(&hosts);
    let calm = stream.step(world, "over the second relay", A_WHILE);
    relays[0].kill();
    let gap = stream.step(world, "without the first one", A_WHILE);
    assert!(gap <= NOTHING + 2 * calm, "{gap:?} without a datagram, {calm:?} before");
    stream.finish_perfect();
}

/// The only relay serves on, and says what it is about; a second signal ends it at once.
fn relay_drained_with_no_other(world: &World) {
    let relay_only = |options: Options| options.set("SHADOWMESH_P2P_TRANSPORTS", "");
    let mut mesh = Mesh::start(world, &["a", "b"], false, relay_only);
    mesh.until_all("relay");
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    let calm = stream.step(world, "over the relay", A_WHILE);
    assert_eq!((ready(&mesh.relay_host), &mesh.relay.status()["state"]), (200, &"ready".into()));
    mesh.relay.tell_to_stop();
    world.wait_for("the relay to say that it drains", SOON, || (mesh.relay.status()["state"] == "draining").then_some(()));
    assert_eq!(ready(&mesh.relay_host), 503);
    let gap = stream.step(world, "over the relay that drains", 3 * A_WHILE);
    assert!(gap <= NOTHING + 2 * calm, "{gap:?} without a datagram, {calm:?} before");
    assert!(list(&mesh.peers[0].status().expect("it runs"), "relays").iter().all(|relay| relay["draining"] == true));
    mesh.relay.tell_to_stop();
    mesh.relay.end_within(SOON);
    mesh.relay.start(world);
    stream.step(world, "over the relay that is back", A_WHILE);
    stream.finish_perfect();
}

/// Data that flow take the relay's UDP port; when no datagram comes through any more, its connection.
fn relay_by_udp(world: &World) {
    let relay_only = |options: Options| options.set("SHADOWMESH_P2P_TRANSPORTS", "");
    let mut mesh = Mesh::start(world, &["a", "b"], false, relay_only);
    mesh.until_all("relay");
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    let calm = stream.step(world, "over the relay", A_WHILE);
    over_the_relay_by(&mut mesh, "udp");
    let up = stream.step(world, "over the relay's UDP port", A_WHILE);
    assert!(up <= NOTHING + 2 * calm, "{up:?} without a datagram, {calm:?} before");
    let host = &mesh.relay_host;
    nft(&host.namespace, "table inet no_udp { chain c { type filter hook input priority 0; meta l4proto udp drop; }; }\n");
    over_the_relay_by(&mut mesh, "wss");
    let back = stream.step(world, "over its connection again", A_WHILE);
    assert!(back <= OUTAGE + 2 * calm, "{back:?} without a datagram, {calm:?} before");
    stream.finish_perfect();
}

/// Waits until both send over the relay by this transport.
fn over_the_relay_by(mesh: &mut Mesh<'_>, transport: &str) {
    for (index, other) in [(0, "b"), (1, "a")] {
        mesh.peers[index].until("over the relay by that", SOON, |status| {
            let path = |peer: &serde_json::Value| {
                peer["name"] == other && peer["path"]["kind"] == "relay" && peer["path"]["transport"] == transport
            };
            list(status, "peers").iter().any(path)
        });
    }
}

/// What `/readyz` of the relay on this host answers.
fn ready(relay: &Host) -> u16 {
    let answer = relay.enter(|| {
        let mut stream = TcpStream::connect(METRICS).expect("metrics are served");
        stream.set_read_timeout(Some(SOON)).expect("a read timeout is a plain option");
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").expect("it takes a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    });
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("this is no answer of HTTP: {answer}"))
}

/// Peers on these hosts that go by the relays alone.
fn peers_of<'w>(world: &'w World, hosts: &[Host; 2], token: &str) -> Vec<Peer<'w>> {
    let relay_only = |options: Options| options.set("SHADOWMESH_P2P_TRANSPORTS", "");
    hosts.iter().zip(1..).map(|(host, number)| Peer::start_with(world, host, token, number, relay_only)).collect()
}

/// The stream in both directions between their overlay addresses.
fn stream_between(hosts: &[Host; 2]) -> Stream {
    let end = |index: usize| (&hosts[index], IpAddr::V4(overlay(index as u8 + 1)));
    Stream::start(end(0), end(1))
}

/// Two relays, two peers that have no direct path, and a stream both ways; something befalls the relay that carries, and is undone.
fn befalls(world: &World, most: Duration, what: impl Fn(&Host, &mut Relay), undone: impl Fn(&World, &Host, &mut Relay)) {
    let relay_hosts = ["relay1", "relay2"].map(|name| world.host(name));
    let hosts = ["a", "b"].map(|name| world.host(name));
    let mut relays = Relay::prepare_all(world, &relay_hosts);
    for relay in &mut relays {
        relay.start(world);
    }
    let mut peers = peers_of(world, &hosts, &relays[0].token);
    for (peer, other) in peers.iter_mut().zip(["b", "a"]) {
        peer.until("at both relays", SOON, |status| list(status, "relays").iter().all(|relay| relay["state"] == "connected"));
        peer.until_path(other, "relay");
    }
    let stream = stream_between(&hosts);
    let calm = stream.step(world, "over one relay", 2 * A_WHILE);

    let url = carrier(&peers[0], "b");
    let relay = relays.iter_mut().find(|relay| relay.url == url).expect("a relay of the token");
    what(&hosts[0], relay);
    let outage = stream.step(world, "over the other one", 4 * A_WHILE);
    assert!(outage <= most + 2 * calm, "{outage:?} without a datagram, {calm:?} before");
    for (peer, other) in [(0, "b"), (1, "a")] {
        assert_ne!(carrier(&peers[peer], other), url, "it was left");
    }
    undone(world, &hosts[0], relay);
    peers[0].until("at both relays again", SOON, |status| list(status, "relays").iter().all(|relay| relay["state"] == "connected"));
    let back = stream.step(world, "both are there", 2 * A_WHILE);
    assert!(back <= NOTHING + 2 * calm, "{back:?} without a datagram when it was back, {calm:?} before");
    stream.finish_perfect();
}

/// The relay over which a peer sends to another.
fn carrier(peer: &Peer<'_>, other: &str) -> String {
    let known = peer.knows(other);
    known["path"]["relay"].as_str().unwrap_or_else(|| panic!("a relay path names its relay: {known:#}")).to_owned()
}
