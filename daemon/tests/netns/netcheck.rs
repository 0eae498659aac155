//! `netcheck` tells what is between a host and the others: from a running peer, and without one.

use crate::mapping::miniupnpd;
use crate::mesh::{Peer, Relay, list, peer_program};
use crate::portserver::{PortServer, Speaks};
use crate::process::{Output, bounded};
use crate::router::{Nat, Router};
use crate::world::{Host, Underlay, World};
use crate::{Scenario, once, scenario};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// It promises 5 s; a busy machine may add some.
const LIMIT: Duration = Duration::from_secs(9);

pub(crate) fn all() -> Vec<Scenario> {
    let gateway = Scenario { program: Some("miniupnpd"), ..once("netcheck_finds_all_that_miniupnpd_speaks", real_gateway) };
    vec![
        scenario("netcheck_open", |world| check(world, Nat::Open, Some(true), Some(false))),
        scenario("netcheck_full_cone", |world| check(world, Nat::FullCone, Some(true), Some(false))),
        scenario("netcheck_symmetric", |world| check(world, Nat::Symmetric, Some(true), Some(true))),
        scenario("netcheck_udp_blocked", |world| check(world, Nat::UdpBlocked, Some(false), None)),
        once("netcheck_finds_pcp", |world| own_server(world, Speaks::Pcp)),
        once("netcheck_finds_nat_pmp", |world| own_server(world, Speaks::NatPmp)),
        Scenario { underlay: Underlay::Public, ..gateway },
    ]
}

fn check(world: &World, nat: Nat, udp: Option<bool>, varies: Option<bool>) {
    let relay_host = world.host("relay");
    let relay = Relay::new(world, &relay_host);
    let host = world.behind("a", nat);
    let alone = without_peer(&host, &relay.token);
    let mut peer = Peer::start_with(world, &host, &relay.token, 1, |options| options);
    peer.until_relay();
    for (source, report) in [("ephemeral", alone), ("peer", with_peer(&peer))] {
        eprintln!("    {source}: {report}");
        assert_eq!(report["source"], source);
        assert_eq!((report["udp"].as_bool(), report["mapping_varies"].as_bool()), (udp, varies), "{nat}: {report:#}");
        let seen = report["mapped_v4"].as_str().map(|text| text.parse::<SocketAddr>().expect("an address").ip());
        assert_eq!(seen, host.outside.map(IpAddr::V4).filter(|_| udp == Some(true)), "{nat}: {report:#}");
        let reached = &list(&report, "relays")[0];
        assert_eq!((reached["connected"].as_bool(), reached["error"].as_str()), (Some(true), None), "{reached:#}");
        for time in ["tcp_ms", "tls_ms", "rtt_ms"] {
            assert!(reached[time].as_f64().is_some_and(|ms| ms > 0.0), "{time}: {reached:#}");
        }
        for way in ["pcp", "nat_pmp", "upnp"] {
            assert_eq!(report["port_mapping"][way], false, "nobody asked for it here: {report:#}");
        }
    }
    let lines = peer.ask(&["netcheck"]);
    assert!(lines.stdout.starts_with("UDP ") && lines.stdout.lines().count() == 6, "{}", lines.text());
    peer.until_relay();
}

fn own_server(world: &World, speaks: Speaks) {
    let router = Router::new(world, "nat-a", Nat::Symmetric);
    let (relay_host, host) = (world.host("relay"), router.host("a"));
    let relay = Relay::new(world, &relay_host);
    let server = PortServer::start(&router, speaks, 3_600);
    let found = without_peer(&host, &relay.token)["port_mapping"].clone();
    assert_eq!(found["gateway"], "192.168.1.1", "{found}");
    let ways = ["pcp", "nat_pmp", "upnp"].map(|way| found[way].as_bool() == Some(true));
    assert_eq!(ways, [speaks == Speaks::Pcp, speaks == Speaks::NatPmp, false], "{found}");
    assert_eq!(server.asked(), [], "it asks for no port");
}

fn real_gateway(world: &World) {
    let router = Router::new(world, "nat-a", Nat::Symmetric);
    let (relay_host, host) = (world.host("relay"), router.host("a"));
    let relay = Relay::new(world, &relay_host);
    let _gateway = miniupnpd(world, &router, true);
    let report = without_peer(&host, &relay.token);
    let found = &report["port_mapping"];
    assert!(["pcp", "nat_pmp", "upnp"].iter().all(|way| found[way] == true), "{found}");
    assert_eq!(found["external"].as_str().map(str::to_owned), host.outside.map(|outside| outside.to_string()));
    assert!(report["verdict"].as_str().is_some_and(|text| text.contains("forwards ports")), "{report:#}");
}

fn without_peer(host: &Host, token: &str) -> Value {
    let start = Instant::now();
    let mut command = host.command(peer_program());
    command.args(["netcheck", "--json", "--join", token]);
    read(&bounded(command, LIMIT), start)
}

fn with_peer(peer: &Peer<'_>) -> Value {
    let start = Instant::now();
    read(&peer.ask(&["netcheck", "--json"]), start)
}

fn read(output: &Output, start: Instant) -> Value {
    eprintln!("    after {:.1} s", start.elapsed().as_secs_f64());
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    assert!(output.status.success(), "{}", output.text());
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("netcheck --json is no JSON ({error}): {}", output.text()))
}
