//! How a peer is started and ended, and the plain sentence for each thing that can be in its way.

use crate::mesh::{INTERFACE, Options, Peer, Relay, overlay, peer_program, relay_program};
use crate::process::{Output, bounded};
use crate::stream::Stream;
use crate::world::{World, ip_in};
use crate::{Scenario, once, scenario};
use rustix::process::Signal;
use std::fs;
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

/// A program that cannot start says so within this.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);

/// One way to end a peer.
type Ending = fn(&mut Peer<'_>);

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("join_token_alone", join_token_alone),
        once("config_file", config_file),
        once("second_daemon_same_state", second_daemon_same_state),
        scenario("interface_name_taken", interface_name_taken),
        scenario("port_in_use", port_in_use),
        scenario("clean_exit_removes_interface", clean_exit_removes_interface),
    ]
}

fn join_token_alone(world: &World) {
    let relay_host = world.host("relay");
    let relay = Relay::new(world, &relay_host);
    let mut peers: Vec<_> = ["a", "b"]
        .map(|name| {
            let host = world.host(name);
            let options = Options::bare(&world.folder(name)).with(&["--join", &relay.token]);
            Peer::start(world, &host, name, options)
        })
        .into();
    let ids = peers.iter_mut().map(|peer| {
        let status = peer.until_relay();
        status["id"].as_str().expect("a peer has an id").to_owned()
    });
    let ids: Vec<_> = ids.collect();
    // Both have the machine's host name: only the id tells them apart.
    let output = peers[0].ask(&["ping", &ids[1], "-c", "1", "--timeout", "15s"]);
    assert!(output.status.success(), "{}", output.text());
    let addresses: Vec<_> = peers.iter_mut().map(Peer::derived_address).collect();
    let stream = Stream::start((&peers[0].host, addresses[0]), (&peers[1].host, addresses[1]));
    stream.wait_for_more(world, 300);
    stream.finish_perfect();
    let key = fs::metadata(peers[0].state.join("identity.key")).expect("the identity is kept in the state folder");
    assert_eq!(key.permissions().mode() & 0o777, 0o600, "nobody else may read the identity");
}

fn config_file(world: &World) {
    let relay_host = world.host("relay");
    let relay = Relay::new(world, &relay_host);
    let mut peers: Vec<_> = [("a", 1), ("b", 2)]
        .map(|(name, number)| {
            let (host, state) = (world.host(name), world.folder(name));
            let file = state.join("peer.toml");
            let text = format!(
                "[network]\njoin = \"{}\"\nname = \"{name}\"\n\
                 [interface]\nmode = \"tun\"\nname = \"over{number}\"\naddress = [\"{}/24\"]\nmtu = 1300\n\
                 [p2p]\ntransports = [\"wss\"]\nretry_interval = \"2s\"\n",
                relay.token,
                overlay(number)
            );
            fs::write(&file, text).expect("a file in the temporary folder");
            let mut check = Command::new(peer_program());
            check.args(["config", "check"]).arg(&file);
            let checked = bounded(check, REFUSAL_LIMIT);
            assert!(checked.status.success(), "{}", checked.text());
            let options = Options::bare(&state).with(&["--config", &file.display().to_string()]);
            Peer::start(world, &host, name, options)
        })
        .into();
    for peer in &mut peers {
        peer.until_relay();
    }
    let link = peers[1].host.interface("over2").expect("the interface has the name of the file");
    assert_eq!(link["mtu"], 1300, "{link:#}");
    peers[0].until_path("b", "direct");
    let [a, b] = [1, 2].map(|number| IpAddr::V4(overlay(number)));
    let stream = Stream::start((&peers[0].host, a), (&peers[1].host, b));
    stream.wait_for_more(world, 300);
    stream.finish_perfect();

    // A wrong key: one line that names file and key, exit code 2, nothing left behind.
    let host = world.host("c");
    let (state, file) = (world.folder("c"), world.folder("c").join("peer.toml"));
    fs::write(&file, "[p2p]\ntransport = [\"wss\"]\n").expect("a file in the temporary folder");
    let options = Options::bare(&state).with(&["--config", &file.display().to_string()]);
    let refused = bounded(options.command(&host), REFUSAL_LIMIT);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.text());
    assert_sentence(&refused, &["peer.toml", "transport"]);
}

fn second_daemon_same_state(world: &World) {
    let (_relay, mut peer) = one_peer(world);
    let second = peer.options.clone().with(&["--interface", "mesh1"]);
    // The last of two equal flags counts or is refused as usage; a second name must not be the reason.
    let mut arguments = second.arguments;
    arguments.retain(|argument| argument != "--interface" && argument != INTERFACE && argument != "mesh1");
    let second = Options { arguments, variables: second.variables }.with(&["--interface", "mesh1"]);
    let refused = bounded(second.command(&peer.host), REFUSAL_LIMIT);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.text());
    assert_sentence(&refused, &[&peer.state.display().to_string()]);
    assert!(peer.host.interface("mesh1").is_none(), "the second one leaves nothing behind");
    peer.until_relay();
}

fn interface_name_taken(world: &World) {
    let relay_host = world.host("relay");
    let relay = Relay::new(world, &relay_host);
    let host = world.host("a");
    // A kernel that has our switches has bridges; a "dummy" is a module that not every kernel has.
    ip_in(&host.namespace, &["link", "add", INTERFACE, "type", "bridge"]);
    let options = Options::ordinary(&world.folder("a"), "a", &relay.token, overlay(1));
    let refused = bounded(options.command(&host), REFUSAL_LIMIT);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.text());
    assert_sentence(&refused, &[INTERFACE]);
    let link = host.interface(INTERFACE).expect("somebody else's interface stays");
    assert!(link["addr_info"].as_array().is_none_or(Vec::is_empty), "and stays as it was: {link:#}");

    // The usual case: another peer on this host has the name already.
    let host = world.host("b");
    let mut first = Peer::start_with(world, &host, &relay.token, 2, |options| options);
    first.until_relay();
    let second = Options::ordinary(&world.folder("second"), "second", &relay.token, overlay(3));
    let refused = bounded(second.command(&host), REFUSAL_LIMIT);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.text());
    assert_sentence(&refused, &[INTERFACE, "taken"]);
    assert!(host.interface(INTERFACE).is_some(), "the first peer's interface stays");
    first.until_relay();
}

fn port_in_use(world: &World) {
    let relay_host = world.host("relay");
    let relay = Relay::prepare(world, &relay_host);
    let taken = relay_host.enter(|| TcpListener::bind(relay_host.underlay(443)).expect("a free port"));
    let refused = bounded(relay.command(), REFUSAL_LIMIT);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.text());
    assert_sentence(&refused, &[&relay_host.underlay(443).to_string()]);
    drop(taken);

    let host = world.host("a");
    let _taken = host.enter(|| TcpListener::bind(host.underlay(5555)).expect("a free port"));
    let options = Options::ordinary(&world.folder("a"), "a", &relay.token, overlay(1))
        .set("SHADOWMESH_P2P_LISTEN_TCP", &host.underlay(5555).to_string());
    let refused = bounded(options.command(&host), REFUSAL_LIMIT);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.text());
    assert_sentence(&refused, &["5555"]);
    assert!(host.interface(INTERFACE).is_none(), "no interface stays behind");
}

fn clean_exit_removes_interface(world: &World) {
    let (_relay, mut peer) = one_peer(world);
    let endings: [(&str, Ending); 3] = [
        ("SIGTERM", |peer| peer.process().signal(Signal::TERM)),
        ("SIGINT", |peer| peer.process().signal(Signal::INT)),
        ("down", |peer| {
            let output = peer.ask(&["down"]);
            assert!(output.status.success(), "{}", output.text());
        }),
    ];
    for (name, end) in endings {
        assert!(peer.host.interface(INTERFACE).is_some(), "a running peer has its interface");
        assert!(!peer.host.routes_through(INTERFACE).is_empty(), "and routes through it");
        end(&mut peer);
        let status = peer.process().end_within(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0), "{name} ends it well:\n{}", peer.said());
        assert!(peer.host.interface(INTERFACE).is_none(), "{name} leaves no interface");
        assert_eq!(peer.host.routes_through(INTERFACE), "", "{name} leaves no route");
        let asked = peer.ask(&["status"]);
        assert_eq!(asked.status.code(), Some(1), "nobody runs after {name}: {}", asked.text());
        peer.start_again();
        peer.until_relay();
    }
}

fn one_peer(world: &World) -> (Relay, Peer<'_>) {
    // The relay's program is built before anything is timed.
    relay_program();
    let relay_host = world.host("relay");
    let relay = Relay::new(world, &relay_host);
    let host = world.host("a");
    let mut peer = Peer::start_with(world, &host, &relay.token, 1, |options| options);
    peer.until_relay();
    (relay, peer)
}

/// A refusal is plain: a last line on stderr that names the thing, no backtrace, nothing on stdout but
/// what a relay prints about itself.
fn assert_sentence(output: &Output, names: &[&str]) {
    let line = output.stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    for name in names {
        assert!(line.contains(name), "the last line names {name}: {}", output.stderr);
    }
    assert!(!output.text().contains("panicked"), "{}", output.text());
    assert!(line.len() < 400, "one plain sentence: {line}");
}
