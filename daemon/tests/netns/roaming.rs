//! Peers whose own addresses change under traffic: by another lease, from one network to another, one of them or both at once.

use crate::mesh::Mesh;
use crate::nats::{A_WHILE, assert_on, talk_and_meet};
use crate::router::{Nat, Router};
use crate::stream::Stream;
use crate::world::{Host, World, ip_in};
use crate::{Scenario, once, scenario};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// What a change of address may cost where the other end can be reached from anywhere.
const GAP_LIMIT: Duration = Duration::from_millis(100);
/// What it may cost where neither can reach the other before both are with the relay again, by programs of a debug build.
const RELAY_GAP_LIMIT: Duration = Duration::from_millis(300);
/// From the change until both are direct again.
const RETURN_LIMIT: Duration = Duration::from_secs(2);

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("roaming_to_a_new_address_behind_a_nat", behind_a_nat),
        once("roaming_to_a_new_address_without_a_nat", without_a_nat),
        scenario("roaming_from_one_network_to_another", another_network),
        once("roaming_when_the_cable_is_pulled", pulled_cable),
        once("roaming_to_a_new_address_towards_a_filter", towards_a_filter),
        once("roaming_of_both_at_once", both_at_once),
    ]
}

/// The usual lease of another address in the same network.
fn behind_a_nat(world: &World) {
    let relay = world.host("relay");
    let hosts = [world.behind("a", Nat::PortRestricted), world.host("b")];
    let (mut mesh, stream) = talk_and_meet(world, relay, &hosts, "udp");
    readdress_inside(&hosts[0]);
    let start = Instant::now();
    let gap = stream.step(world, "from the new address", A_WHILE);
    assert!(gap < GAP_LIMIT, "the change was felt for {gap:?}");
    settle(world, &mut mesh, &stream, start);
    stream.finish_perfect();
}

fn without_a_nat(world: &World) {
    let relay = world.host("relay");
    let hosts = ["a", "b"].map(|name| world.host(name));
    let (mut mesh, stream) = talk_and_meet(world, relay, &hosts, "udp");
    let address = readdress_on_the_switch(&hosts[0], 201);
    let start = Instant::now();
    let gap = stream.step(world, "from the new address", A_WHILE);
    assert!(gap < GAP_LIMIT, "the change was felt for {gap:?}");
    settle(world, &mut mesh, &stream, start);
    assert_on(&mesh.peers[1].knows("a"), "udp", address);
    stream.finish_perfect();
}

/// Two networks at once, and the better one goes: from Wi-Fi to a mobile network.
fn another_network(world: &World) {
    leave_first_network(world, |host, _| ip_in(&host.namespace, &["link", "set", "eth0", "down"]));
}

/// The same, but the interface stays up and only its other end is gone; its address and its route are removed by whoever looks after them.
fn pulled_cable(world: &World) {
    leave_first_network(world, |host, router| {
        router.pull(host);
        ip_in(&host.namespace, &["route", "delete", "default", "dev", "eth0"]);
    });
}

fn leave_first_network(world: &World, leave: impl FnOnce(&Host, &Router<'_>)) {
    let relay = world.host("relay");
    let home = Router::new(world, "nat-home", Nat::PortRestricted);
    let mobile = Router::mobile(world, "nat-mobile", Nat::PortRestricted);
    let hosts = [home.host("a"), world.host("b")];
    mobile.adopt(&hosts[0]);
    let (mut mesh, stream) = talk_and_meet(world, relay, &hosts, "udp");
    leave(&hosts[0], &home);
    let start = Instant::now();
    let gap = stream.step(world, "from the other network", A_WHILE);
    assert!(gap < GAP_LIMIT, "the change was felt for {gap:?}");
    settle(world, &mut mesh, &stream, start);
    assert_on(&mesh.peers[1].knows("a"), "udp", mobile.outside());
    stream.finish_perfect();
}

/// The connection with the relay is gone, and the new mapping is one that the filter at the other end does not let in.
fn towards_a_filter(world: &World) {
    let relay = world.host("relay");
    let hosts = ["a", "b"].map(|name| world.behind(name, Nat::PortRestricted));
    let (mut mesh, stream) = talk_and_meet(world, relay, &hosts, "udp");
    readdress_inside(&hosts[0]);
    let start = Instant::now();
    let gap = stream.step(world, "over the relay", A_WHILE);
    assert!(gap < RELAY_GAP_LIMIT, "the change was felt for {gap:?}");
    settle(world, &mut mesh, &stream, start);
    stream.finish_perfect();
}

fn both_at_once(world: &World) {
    let relay = world.host("relay");
    let hosts = ["a", "b"].map(|name| world.host(name));
    let (mut mesh, stream) = talk_and_meet(world, relay, &hosts, "udp");
    let addresses = [(0, 201), (1, 202)].map(|(index, number)| readdress_on_the_switch(&hosts[index], number));
    let start = Instant::now();
    let gap = stream.step(world, "over the relay", A_WHILE);
    assert!(gap < RELAY_GAP_LIMIT, "the change was felt for {gap:?}");
    settle(world, &mut mesh, &stream, start);
    for (index, other) in [(0, 1), (1, 0)] {
        assert_on(&mesh.peers[index].knows(&hosts[other].name), "udp", addresses[other]);
    }
    stream.finish_perfect();
}

/// Waits until both are direct by UDP and connected with the relay, and demands that this is soon after `start`.
fn settle(world: &World, mesh: &mut Mesh<'_>, stream: &Stream, start: Instant) {
    mesh.peers[0].until_transport("b", "udp");
    mesh.peers[1].until_transport("a", "udp");
    let took = start.elapsed();
    eprintln!("    direct by UDP {:.1} s after the change", took.as_secs_f64());
    mesh.peers.iter_mut().for_each(|peer| drop(peer.until_relay()));
    eprintln!("    connected with the relay {:.1} s after the change", start.elapsed().as_secs_f64());
    stream.step(world, "direct again", A_WHILE);
    assert!(took < RETURN_LIMIT, "direct again after {took:?}");
}

/// Another address behind the same router.
fn readdress_inside(host: &Host) {
    let namespace = &host.namespace;
    ip_in(namespace, &["address", "flush", "dev", "eth0"]);
    ip_in(namespace, &["address", "add", "192.168.1.77/24", "dev", "eth0"]);
    ip_in(namespace, &["route", "add", "default", "via", "192.168.1.1", "dev", "eth0"]);
}

/// Another address of IPv4 on the switch, and none of IPv6.
fn readdress_on_the_switch(host: &Host, number: u8) -> Ipv4Addr {
    let address = Ipv4Addr::new(10, 98, 0, number);
    ip_in(&host.namespace, &["address", "flush", "dev", "eth0"]);
    ip_in(&host.namespace, &["address", "add", &format!("{address}/24"), "dev", "eth0"]);
    address
}
