//! Peers that find each other by UDP alone, where no relay is.

use crate::mesh::{Mesh, Options, Peer, Relay, overlay, peer_program};
use crate::stream::Stream;
use crate::world::{Host, World};
use crate::{Scenario, scenario};
use std::fs;
use std::time::{Duration, Instant};

const LISTEN: &str = "0.0.0.0:51820";
const PORT: u16 = 51_820;

pub(crate) fn all() -> Vec<Scenario> {
    vec![scenario("alone_by_endpoint_without_any_relay", by_endpoint), scenario("alone_after_a_restart_of_one", after_a_restart)]
}

fn by_udp(options: Options) -> Options {
    options.set("SHADOWMESH_P2P_TRANSPORTS", "udp").set("SHADOWMESH_P2P_LISTEN_UDP", LISTEN)
}

/// Each is told where the other one is; the relay of their token never runs.
fn by_endpoint(world: &World) {
    let relay = Relay::prepare(world, &world.host("relay"));
    let hosts = ["a", "b"].map(|name| world.host(name));
    let ids = [&hosts[0], &hosts[1]].map(|host| identity(world, host));
    let mut peers = [(0, 1), (1, 0)].map(|(at, other)| {
        let file = world.folder(&hosts[at].name).join("peer.toml");
        let endpoint = hosts[other].underlay(PORT);
        let listed = format!("[[peer]]\nid = \"{}\"\nname = \"{}\"\nendpoint = [\"{endpoint}\"]\n", ids[other], hosts[other].name);
        fs::write(&file, listed).expect("its folder is there");
        let config = file.display().to_string();
        Peer::start_with(world, &hosts[at], &relay.token, at as u8 + 1, |options| by_udp(options).with(&["--config", &config]))
    });
    for (peer, other) in peers.iter_mut().zip(["b", "a"]) {
        peer.until_transport(other, "udp");
    }
    let output = peers[0].ask(&["ping", "b", "-c", "3", "--timeout", "5s"]);
    assert!(output.status.success(), "{}", output.text());
    let stream = Stream::start((&hosts[0], overlay(1).into()), (&hosts[1], overlay(2).into()));
    stream.wait_for_more(world, 300);
    stream.finish_perfect();
}

/// They met on a relay. It is gone, and then one of them starts anew: the other one knows where it was.
fn after_a_restart(world: &World) {
    let mut mesh = Mesh::start(world, &["a", "b"], false, by_udp);
    for (index, other) in [(0, "b"), (1, "a")] {
        mesh.peers[index].until_transport(other, "udp");
    }
    mesh.relay.kill();
    mesh.peers[1].process().kill();
    mesh.peers[1].start_again();
    mesh.peers[1].until("there", Duration::from_secs(10), |_| true);
    let start = Instant::now();
    // what is sent to a dead path shows that it is dead; until then it is lost with who had it
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.wait_for_more(world, 1);
    eprintln!("    talking again {:.1} s after the restart, by UDP alone", start.elapsed().as_secs_f64());
    drop(stream.finish());
    for (index, other) in [(0, "b"), (1, "a")] {
        mesh.peers[index].until_transport(other, "udp");
    }
    // the relay is back: a path over it stands by, and the session goes on
    mesh.relay.start(world);
    for peer in &mut mesh.peers {
        peer.until_relay();
    }
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.wait_for_more(world, 300);
    stream.finish_perfect();
}

/// The identity that a peer on this host will have.
pub(crate) fn identity(world: &World, host: &Host) -> String {
    let folder = world.folder(&host.name);
    let run = |arguments: &[&str]| {
        let output = host.command(peer_program()).args(arguments).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    run(&["keygen", "--out", &folder.join("identity.key").display().to_string()]);
    run(&["id", "--state-dir", &folder.display().to_string()])
}
