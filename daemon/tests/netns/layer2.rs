//! TAP: three peers as if on one Ethernet switch.

use crate::frames::{BROADCAST, MULTICAST, Mac, Station, mac, parse_mac};
use crate::mesh::{INTERFACE, Mesh};
use crate::stream::Stream;
use crate::world::{Host, World};
use crate::{Scenario, scenario};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::Duration;

/// Broadcasts sent as fast as the interface takes them; far more than any switch has to pass on.
const STORM_FRAMES: u32 = 20_000;

pub(crate) fn all() -> Vec<Scenario> {
    vec![scenario("tap_three_peers", three_peers), scenario("tap_storm_is_limited", storm_is_limited)]
}

fn tap_mesh(world: &World) -> Mesh<'_> {
    let mut mesh = Mesh::start(world, &["a", "b", "c"], false, |options| options.with(&["--mode", "tap"]));
    mesh.until_all("direct");
    mesh
}

fn three_peers(world: &World) {
    let mesh = tap_mesh(world);
    let hosts = mesh.peers.iter().map(|peer| peer.host.clone()).collect::<Vec<_>>();
    arp_finds_the_right_mac(&mesh, &hosts, world);
    neighbour_discovery_finds_the_right_mac(&hosts, world);
    frames_arrive_once(&hosts, world);
    // Ordinary traffic beside it.
    let stream = Stream::start(mesh.end(0), mesh.end(2));
    stream.wait_for_more(world, 300);
    stream.finish_perfect();
}

fn arp_finds_the_right_mac(mesh: &Mesh<'_>, hosts: &[Host], world: &World) {
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.wait_for_more(world, 100);
    stream.finish_perfect();
    let learned = neighbour(&hosts[0], mesh.end(1).1).expect("ARP made an entry");
    assert_eq!(learned, mac(&hosts[1], INTERFACE), "ARP over the mesh gives the other interface's MAC");
}

fn neighbour_discovery_finds_the_right_mac(hosts: &[Host], world: &World) {
    let [from, to] = [0, 2].map(|index| {
        let (address, scope) = link_local(&hosts[index]);
        let socket = hosts[index].enter(|| UdpSocket::bind(SocketAddrV6::new(address, 0, 0, scope)));
        socket.expect("a link-local address can be bound")
    });
    let (target, _) = link_local(&hosts[2]);
    let (_, scope) = link_local(&hosts[0]);
    let port = to.local_addr().expect("a bound socket").port();
    to.set_nonblocking(true).expect("a plain option");
    world.wait_for("a datagram between link-local addresses", Duration::from_secs(10), || {
        let sent = from.send_to(b"hello", SocketAddrV6::new(target, port, 0, scope));
        sent.expect("the interface takes it");
        to.recv(&mut [0; 16]).ok()
    });
    let learned = neighbour(&hosts[0], IpAddr::V6(target)).expect("neighbour discovery made an entry");
    assert_eq!(learned, mac(&hosts[2], INTERFACE), "ND over the mesh gives the other interface's MAC");
}

fn frames_arrive_once(hosts: &[Host], world: &World) {
    let stations: Vec<_> = hosts.iter().map(|host| Station::open(host, INTERFACE)).collect();
    let [a, b, c] = stations.as_slice() else { panic!("three hosts") };
    for station in &stations {
        for number in 0..20 {
            station.send(BROADCAST, number);
            station.send(MULTICAST, 100 + number);
        }
    }
    for number in 200..220 {
        a.send(b.mac, number);
    }
    let limit = Duration::from_secs(10);
    for (to, from) in [(a, b), (a, c), (b, a), (b, c), (c, a), (c, b)] {
        world.wait_for("broadcasts and multicasts of each at each other", limit, || {
            (to.distinct(from.mac, 0..20) == 20 && to.distinct(from.mac, 100..120) == 20).then_some(())
        });
    }
    world.wait_for("frames of our own ethertype", limit, || (b.distinct(a.mac, 200..220) == 20).then_some(()));
    // What comes after has overtaken nothing: a frame that loops would be here by now, and one more
    // round from each shows that all queues are empty.
    for number in 300..310 {
        for station in &stations {
            station.send(BROADCAST, number);
        }
    }
    for (to, from) in [(a, b), (a, c), (b, a), (b, c), (c, a), (c, b)] {
        world.wait_for("a last round", limit, || (to.distinct(from.mac, 300..310) == 10).then_some(()));
    }
    for station in &stations {
        assert_eq!(station.oddities(), Vec::<String>::new(), "each frame comes once, and never back to its sender");
    }
    assert_eq!(c.distinct(a.mac, 200..220), 0, "a frame for b is not shown to c");
}

fn storm_is_limited(world: &World) {
    let mesh = tap_mesh(world);
    let hosts = mesh.peers.iter().map(|peer| peer.host.clone()).collect::<Vec<_>>();
    let stations: Vec<_> = hosts.iter().map(|host| Station::open(host, INTERFACE)).collect();
    let [a, b, c] = stations.as_slice() else { panic!("three hosts") };
    for number in 0..STORM_FRAMES {
        a.send(BROADCAST, number);
    }
    // Unicast of the stormer itself, and of the others, goes on.
    for number in STORM_FRAMES..STORM_FRAMES + 100 {
        b.send(c.mac, number);
        world.wait_for("unicast beside the storm", Duration::from_secs(5), || (c.count(b.mac, number) > 0).then_some(()));
    }
    let limit = Duration::from_secs(10);
    world.wait_for("a frame of the stormer for b alone", limit, || {
        a.send(b.mac, STORM_FRAMES);
        (b.count(a.mac, STORM_FRAMES) > 0).then_some(())
    });
    for (name, station) in [("b", b), ("c", c)] {
        let came = station.distinct(a.mac, 0..STORM_FRAMES);
        eprintln!("    {name} saw {came} of {STORM_FRAMES} broadcasts");
        assert!(came > 0, "some broadcasts of a storm pass");
        assert!(came < STORM_FRAMES as usize / 2, "a storm is cut: {name} saw {came} of {STORM_FRAMES}");
    }
    let counted = mesh.peers.iter().any(|peer| {
        let metrics = peer.ask(&["metrics"]).stdout;
        let drops = |line: &&str| line.starts_with("shadowmesh_drops_total") && line.contains("storm");
        metrics.lines().filter(drops).any(|line| !line.ends_with(" 0"))
    });
    assert!(counted, "what the storm limit dropped is counted under a reason of its own");
}

/// What a host's kernel has learned about a neighbour on the overlay.
fn neighbour(host: &Host, address: IpAddr) -> Option<Mac> {
    let mut command = Command::new("ip");
    command.args(["-j", "-n", &host.namespace, "neighbour", "show", &address.to_string(), "dev", INTERFACE]);
    let output = command.output().expect("ip runs");
    let entries: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(parse_mac(entries.get(0)?["lladdr"].as_str()?))
}

/// The link-local address of the overlay interface, and its index.
fn link_local(host: &Host) -> (Ipv6Addr, u32) {
    let facts = host.interface(INTERFACE).expect("the interface is there");
    let index = facts["ifindex"].as_u64().and_then(|index| u32::try_from(index).ok());
    let addresses = facts["addr_info"].as_array().map_or(&[][..], Vec::as_slice);
    let mut local = addresses.iter().filter_map(|address| address["local"].as_str()?.parse::<Ipv6Addr>().ok());
    let address = local.find(Ipv6Addr::is_unicast_link_local).expect("a TAP interface has a link-local address");
    (address, index.expect("an interface has an index"))
}
