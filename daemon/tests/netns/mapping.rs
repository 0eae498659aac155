//! Two peers behind symmetric NATs with ports by chance have no way to each other, until one of the routers forwards a port.

use crate::mesh::{Mesh, remote};
use crate::nats::talk_and_meet;
use crate::portserver::{PortServer, Speaks};
use crate::process::Process;
use crate::router::{Nat, Router, UPNP_PORT};
use crate::stream::Stream;
use crate::world::{Host, Underlay, World, nft};
use crate::{Scenario, scenario};
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// About a third of a second of the stream in both directions.
const A_WHILE: u64 = 300;
/// What a router grants that wants to be asked often.
const SHORT_S: u32 = 4;
/// A port that is not renewed is told no more after its life, and a bit.
const LOSS_LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn all() -> Vec<Scenario> {
    let gateway = |name, story| Scenario { program: Some("miniupnpd"), ..public(name, story) };
    vec![
        public("mapping_by_pcp_makes_symmetric_and_symmetric_direct", |world| by_own_server(world, Speaks::Pcp, "pcp")),
        public("mapping_by_nat_pmp_makes_symmetric_and_symmetric_direct", |world| by_own_server(world, Speaks::NatPmp, "nat-pmp")),
        Scenario { once: true, ..public("mapping_is_renewed_and_leaves_when_it_is_lost", renewed_and_lost) },
        gateway("mapping_by_miniupnpd_pcp_makes_symmetric_and_symmetric_direct", |world| by_miniupnpd(world, true, "pcp")),
        gateway("mapping_by_miniupnpd_upnp_makes_symmetric_and_symmetric_direct", |world| by_miniupnpd(world, false, "upnp")),
    ]
}

/// Hosts with addresses that are not private: no other is a port of a router worth.
const fn public(name: &'static str, story: fn(&World)) -> Scenario {
    Scenario { underlay: Underlay::Public, ..scenario(name, story) }
}

fn by_own_server(world: &World, speaks: Speaks, protocol: &str) {
    let (router, hosts) = homes(world);
    let server = PortServer::start(&router, speaks, 3_600);
    let mesh = meet(world, &hosts, protocol);
    leave(mesh);
    // the last words of a peer may still lie in the server's socket
    world.wait_for("all ports are given back", LOSS_LIMIT, || server.has_all_back().then_some(()));
}

fn by_miniupnpd(world: &World, speaks_pcp: bool, protocol: &str) {
    let (router, hosts) = homes(world);
    let _gateway = miniupnpd(world, &router, speaks_pcp);
    leave(meet(world, &hosts, protocol));
}

fn renewed_and_lost(world: &World) {
    let (router, hosts) = homes(world);
    let server = PortServer::start(&router, Speaks::Pcp, SHORT_S);
    let mut mesh = meet(world, &hosts, "pcp");
    world.wait_for("two renewals", LOSS_LIMIT, || (server.udp_questions() >= 3).then_some(()));
    assert_eq!(mesh.peers[0].knows("b")["path"]["transport"], "udp");
    drop(server);
    mesh.peers[0].until("says that nothing is forwarded", LOSS_LIMIT, |status| status["port_mapping"].is_null());
}

/// Two hosts behind symmetric NATs, and the router of the first.
fn homes(world: &World) -> (Router<'_>, [Host; 2]) {
    let router = Router::new(world, "nat-a", Nat::Symmetric);
    let hosts = [router.host("a"), world.behind("b", Nat::Symmetric)];
    (router, hosts)
}

/// The peers meet by UDP at the port that the first one's router forwards.
fn meet<'w>(world: &'w World, hosts: &[Host; 2], protocol: &str) -> Mesh<'w> {
    let relay = world.host("relay");
    let (mut mesh, stream): (Mesh<'w>, Stream) = talk_and_meet(world, relay, hosts, "udp");
    let status = mesh.peers[0].until("says what is forwarded", LOSS_LIMIT, |status| {
        ["external", "external_tcp"].iter().all(|key| status["port_mapping"][key].is_string())
    });
    let mapping = &status["port_mapping"];
    assert_eq!(mapping["protocol"], protocol, "{mapping}");
    assert!(mapping["expires_s"].as_f64().is_some_and(|left| left > 0.0), "{mapping}");
    let external = address(&mapping["external"]);
    assert_eq!(Some(external.ip()), hosts[0].outside.map(IpAddr::V4));
    assert_eq!(remote(&mesh.peers[1].knows("a")["path"]), external);
    assert!(mesh.peers[1].status().expect("a running peer answers status")["port_mapping"].is_null(), "its router forwards nothing");
    let table = mesh.peers[0].ask(&["status"]);
    assert!(table.stdout.contains(&format!("router forwards ({protocol})")), "{}", table.text());
    stream.step(world, "at the forwarded port", A_WHILE);
    stream.finish_perfect();
    mesh
}

fn leave(mut mesh: Mesh<'_>) {
    let output = mesh.peers[0].ask(&["down"]);
    assert!(output.status.success(), "{}", output.text());
    let status = mesh.peers[0].process().end_within(Duration::from_secs(10));
    assert!(status.success(), "{}", mesh.peers[0].said());
}

fn address(value: &Value) -> SocketAddr {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no address"))
}

/// A real gateway in a router.
pub(crate) fn miniupnpd(world: &World, router: &Router<'_>, speaks_pcp: bool) -> Process {
    router.take_questions();
    let host = router.as_host();
    nft(
        &host.namespace,
        "table inet miniupnpd {
            chain forward { type filter hook forward priority 1; }
            chain prerouting { type nat hook prerouting priority -101; }
            chain postrouting { type nat hook postrouting priority 101; }
        }\n",
    );
    let folder = world.folder("miniupnpd");
    let (settings, pid) = (folder.join("miniupnpd.conf"), folder.join("pid"));
    let natpmp = if speaks_pcp { "yes" } else { "no" };
    let text = format!(
        "ext_ifname=eth0\nlistening_ip=lan0\nhttp_port={UPNP_PORT}\nenable_natpmp={natpmp}\nenable_upnp=yes\nsecure_mode=yes\n\
         upnp_table_name=miniupnpd\nupnp_nat_table_name=miniupnpd\nupnp_forward_chain=forward\n\
         upnp_nat_chain=prerouting\nupnp_nat_postrouting_chain=postrouting\nuuid=6ec0e1d8-0000-4000-8000-000000000001\n\
         allow 1024-65535 192.168.1.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
    );
    fs::write(&settings, text).expect("a file in the temporary folder");
    let mut command = host.command("miniupnpd");
    command.arg("-d").arg("-f").arg(&settings).arg("-P").arg(&pid);
    let process = Process::start(command, folder.join("log"));
    // Its last word before it works; a socket of ours on its port would not come up then.
    world.wait_for("the gateway to listen", LOSS_LIMIT, || {
        let taken = host.enter(|| UdpSocket::bind("0.0.0.0:1900").is_err());
        (taken && process.said().contains("HTTP listening")).then_some(())
    });
    process
}
