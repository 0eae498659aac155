//! Peers behind NATs and firewalls meet by UDP where theory allows, and talk over the relay where it does not.
//! The NATs themselves are tested first, after RFC 5780: one that is not what it is called proves nothing.

use crate::mesh::{Mesh, Options, Peer, counter, find, list, remote};
use crate::router::{Nat, RENUMBERED, Router};
use crate::stream::Stream;
use crate::world::{Host, World};
use crate::{Scenario, once, scenario};
use socket2::{Domain, Socket, Type};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// About a third of a second of the stream in both directions.
pub(crate) const A_WHILE: u64 = 300;
/// A few rounds of attempts go by (one each 2 s here), in datagrams of the stream.
const SOME_ROUNDS: u64 = 5_000;
/// What a change of a mapping may cost.
const REBINDING_GAP_LIMIT: Duration = Duration::from_millis(500);
/// Two peers that fell back to the relay find each other at a new mapping well within this.
const FOLLOW_LIMIT: Duration = Duration::from_secs(15);
/// After a rebinding all mappings have this port.
const REBOUND: u16 = 40_000;

pub(crate) fn all() -> Vec<Scenario> {
    use Nat::{
        AddressRestricted, CarrierGrade, Firewall, FullCone, Open, PortRestricted, Renumbering, Sequential, Symmetric, SymmetricUdpBlocked,
        UdpBlocked,
    };
    vec![
        once("instruments_nat_port_restricted", |world| prove(world, PortRestricted, Mapping::Kept, Filter::AddressAndPort)),
        once("instruments_nat_renumbering", |world| prove(world, Renumbering, Mapping::Port(RENUMBERED), Filter::AddressAndPort)),
        once("instruments_nat_address_restricted", |world| prove(world, AddressRestricted, Mapping::Kept, Filter::Address)),
        once("instruments_nat_full_cone", |world| prove(world, FullCone, Mapping::Kept, Filter::None)),
        once("instruments_nat_symmetric", |world| prove(world, Symmetric, Mapping::Varies, Filter::AddressAndPort)),
        once("instruments_nat_sequential", ports_follow_each_other),
        once("instruments_nat_firewall", |world| prove(world, Firewall, Mapping::Kept, Filter::AddressAndPort)),
        once("instruments_nat_carrier_grade", |world| prove(world, CarrierGrade, Mapping::Kept, Filter::AddressAndPort)),
        once("instruments_nat_udp_blocked", |world| udp_is_blocked(world, UdpBlocked, Mapping::Kept)),
        once("instruments_nat_symmetric_udp_blocked", |world| udp_is_blocked(world, SymmetricUdpBlocked, Mapping::Varies)),
        once("instruments_nat_rebinds", mapping_changes),
        once("nat_open_meets_port_restricted", |world| meet(world, [Open, PortRestricted])),
        scenario("nat_port_restricted_meets_port_restricted", |world| meet(world, [PortRestricted, PortRestricted])),
        once("nat_renumbering_meets_renumbering", |world| meet(world, [Renumbering, Renumbering])),
        once("nat_port_restricted_meets_full_cone", |world| meet(world, [PortRestricted, FullCone])),
        once("nat_symmetric_meets_open", |world| meet(world, [Symmetric, Open])),
        once("nat_symmetric_meets_full_cone", |world| meet(world, [Symmetric, FullCone])),
        once("nat_symmetric_meets_address_restricted", |world| meet(world, [Symmetric, AddressRestricted])),
        once("nat_firewall_meets_port_restricted", |world| meet(world, [Firewall, PortRestricted])),
        once("nat_carrier_grade_meets_port_restricted", |world| meet(world, [CarrierGrade, PortRestricted])),
        once("nat_same_lan_meets_inside", same_lan),
        once("nat_same_addresses_and_ports_inside", same_ports),
        once("instruments_nat_hairpin", turns_round),
        scenario("nat_two_homes_of_a_carrier_meet_by_hairpin", hairpin),
        scenario("nat_symmetric_meets_port_restricted", |world| meet(world, [Symmetric, PortRestricted])),
        once("nat_symmetric_meets_renumbering", |world| meet(world, [Symmetric, Renumbering])),
        once("nat_symmetric_meets_firewall", |world| meet(world, [Symmetric, Firewall])),
        once("nat_symmetric_meets_carrier_grade", |world| meet(world, [Symmetric, CarrierGrade])),
        scenario("nat_sequential_meets_port_restricted", |world| meet(world, [Sequential, PortRestricted])),
        once("nat_sequential_meets_renumbering", |world| meet(world, [Sequential, Renumbering])),
        once("nat_sequential_meets_firewall", |world| meet(world, [Sequential, Firewall])),
        once("nat_sequential_meets_carrier_grade", |world| meet(world, [Sequential, CarrierGrade])),
        once("nat_symmetric_and_symmetric_stay_on_relay", |world| stay(world, [Symmetric, Symmetric])),
        once("nat_symmetric_and_sequential_stay_on_relay", |world| stay(world, [Symmetric, Sequential])),
        once("nat_udp_blocked_meets_open_by_wss", |world| meet_by(world, [UdpBlocked, Open], "wss")),
        scenario("nat_udp_blocked_meets_udp_blocked_by_simultaneous_open", |world| meet_by(world, [UdpBlocked, UdpBlocked], "wss")),
        once("nat_udp_blocked_meets_port_restricted_by_simultaneous_open", |world| meet_by(world, [UdpBlocked, PortRestricted], "wss")),
        once("nat_udp_blocked_meets_carrier_grade_by_simultaneous_open", |world| meet_by(world, [UdpBlocked, CarrierGrade], "wss")),
        scenario("nat_symmetric_without_udp_stay_on_relay", without_udp),
        scenario("nat_before_a_narrow_link_carries_full_packets_by_udp", narrow),
        scenario("nat_rebinding_loses_nothing", rebinding),
        once("nat_rebinding_under_traffic_one_way_loses_nothing", one_way_rebinding),
        once("nat_rebinding_towards_a_filter_loses_nothing", filtered_rebinding),
    ]
}

/// How a NAT makes addresses of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mapping {
    /// One for all destinations, with the port of inside.
    Kept,
    /// One for all destinations, with this port.
    Port(u16),
    /// One for each destination.
    Varies,
}

/// From whom a NAT lets in what comes to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// Everybody.
    None,
    /// Addresses that were sent to.
    Address,
    /// Addresses and ports that were sent to.
    AddressAndPort,
}

/// RFC 5780, 4.3 and 4.4, with two hosts outside, one of them with two ports.
fn prove(world: &World, nat: Nat, mapping: Mapping, filter: Filter) {
    let [near, far] = ["x", "y"].map(|name| world.host(name));
    let host = world.behind("a", nat);
    let outside = host.outside.expect("these hosts have IPv4");
    let servers = [&near, &near, &far].map(udp);
    let inner = udp(&host);
    let seen = servers.each_ref().map(|server| arrives(&inner, server).expect("what goes out comes through"));
    assert!(seen.iter().all(|seen| seen.ip() == outside), "{nat}: seen as {seen:?}, not as {outside}");
    let own = local(&inner).port();
    let found = match seen.map(|seen| seen.port()) {
        [first, second, third] if first != second && second != third && first != third => Mapping::Varies,
        [first, second, third] => {
            assert_eq!((first, first), (second, third), "{nat}: neither one mapping for all nor one for each");
            if first == own { Mapping::Kept } else { Mapping::Port(first) }
        }
    };
    assert_eq!(found, mapping, "{nat}");

    let (servers, inner) = ([&near, &near, &far].map(udp), udp(&host));
    let seen = arrives(&inner, &servers[0]).expect("what goes out comes through");
    // What is let in comes in order: the answer shows that what was sent before it is not still on its way.
    let [answer, port, address] = servers.each_ref().map(local);
    for server in servers.iter().rev() {
        server.send_to(b"in", seen).expect("the kernel sends");
    }
    let mut came = Vec::new();
    while came.last() != Some(&answer) {
        came.push(receive(&inner).expect("the answer comes in"));
    }
    let found = match (came.contains(&port), came.contains(&address)) {
        (true, true) => Filter::None,
        (true, false) => Filter::Address,
        (false, false) => Filter::AddressAndPort,
        (false, true) => panic!("{nat}: a stranger comes in and an acquaintance does not"),
    };
    assert_eq!(found, filter, "{nat}");
}

/// No datagram comes through; a TCP connection does, and another one from the same port has a port of this kind outside.
fn udp_is_blocked(world: &World, nat: Nat, mapping: Mapping) {
    let (near, host) = (world.host("x"), world.behind("a", nat));
    assert!(arrives(&udp(&host), &udp(&near)).is_none(), "a datagram came through");
    let listeners = [(); 2].map(|()| near.enter(|| TcpListener::bind(near.underlay(0)).expect("a free port")));
    let mut from = host.underlay(0);
    let seen = listeners.each_ref().map(|listener| {
        let target = listener.local_addr().expect("a bound listener");
        let dialled = host.enter(|| tcp_from(from, target).expect("TCP comes through"));
        from = dialled.local_addr().expect("a connection");
        let (_, seen) = listener.accept().expect("a connection");
        assert_eq!(Some(seen.ip()), host.outside.map(IpAddr::V4));
        (dialled, seen.port())
    });
    let found = match [seen[0].1, seen[1].1] {
        [first, second] if first != second => Mapping::Varies,
        [first, _] if first == from.port() => Mapping::Kept,
        [first, _] => Mapping::Port(first),
    };
    assert_eq!(found, mapping, "{nat}");
}

/// A connection from this address and port, where others may begin, too.
fn tcp_from(from: SocketAddr, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect(&target.into())?;
    Ok(socket.into())
}

fn ports_follow_each_other(world: &World) {
    prove(world, Nat::Sequential, Mapping::Varies, Filter::AddressAndPort);
    let (near, host) = (world.host("z"), world.behind("b", Nat::Sequential));
    let inner = udp(&host);
    let seen = [(); 4].map(|()| arrives(&inner, &udp(&near)).expect("what goes out comes through").port());
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seen:?}");
}

fn mapping_changes(world: &World) {
    let near = world.host("x");
    let router = Router::new(world, "nat-a", Nat::PortRestricted);
    let host = router.host("a");
    let (server, inner) = (udp(&near), udp(&host));
    let before = arrives(&inner, &server).expect("what goes out comes through");
    assert_eq!(before.port(), local(&inner).port());
    router.rebind(REBOUND);
    server.send_to(b"late", before).expect("the kernel sends");
    let after = arrives(&inner, &server).expect("what goes out comes through");
    assert_eq!(after, SocketAddr::new(before.ip(), REBOUND));
    server.send_to(b"in", after).expect("the kernel sends");
    assert_eq!(receive(&inner), Some(local(&server)));
    assert_eq!(receive(&inner), None, "what came to the old mapping went nowhere");
}

/// They talk over the relay, and then directly by UDP as soon as the way is free.
fn meet(world: &World, nats: [Nat; 2]) {
    meet_by(world, nats, "udp");
}

fn meet_by(world: &World, nats: [Nat; 2], transport: &str) {
    let relay = world.host("relay");
    let hosts = [("a", nats[0]), ("b", nats[1])].map(|(name, nat)| world.behind(name, nat));
    let (mesh, stream) = talk_and_meet(world, relay, &hosts, transport);
    for (index, other) in [(0, 1), (1, 0)] {
        assert_learned(&mesh.peers[index], nats[index]);
        let peer = mesh.peers[index].knows(&hosts[other].name);
        assert_on(&peer, transport, hosts[other].outside.expect("these hosts have IPv4"));
    }
    stream.finish_perfect();
}

fn same_lan(world: &World) {
    let relay = world.host("relay");
    let router = Router::new(world, "nat", Nat::PortRestricted);
    let hosts = ["a", "b"].map(|name| router.host(name));
    let (mesh, stream) = talk_and_meet(world, relay, &hosts, "udp");
    for (index, other) in [(0, 1), (1, 0)] {
        let peer = mesh.peers[index].knows(&hosts[other].name);
        assert_on(&peer, "udp", hosts[other].v4.expect("these hosts have IPv4"));
    }
    stream.finish_perfect();
}

/// Two customers of a carrier reach each other by the address outside, once it turns such packets round, and in no other way.
fn turns_round(world: &World) {
    let carrier = Router::carrier(world, "carrier");
    let ends = ["a", "b"].map(|name| udp(&carrier.home(name)));
    let near = udp(&world.host("x"));
    let seen = ends.each_ref().map(|end| arrives(end, &near).expect("what goes out comes through"));
    assert!(seen.iter().all(|seen| seen.ip() == carrier.outside()), "seen as {seen:?}");
    let exchange = || {
        for (end, other) in [(&ends[0], seen[1]), (&ends[1], seen[0])] {
            end.send_to(b"round", other).expect("the kernel sends");
        }
        // The first to be sent opens the other's home and may find it closed itself.
        ends[0].send_to(b"round", seen[1]).expect("the kernel sends");
        ends.each_ref().map(receive)
    };
    carrier.isolate();
    assert_eq!(exchange(), [None, None], "the carrier does not turn round");
    carrier.turn_round();
    for (end, seen) in ends.iter().zip(seen) {
        assert_eq!(arrives(end, &near), Some(seen), "mapped as before");
    }
    assert_eq!(exchange(), [Some(seen[1]), Some(seen[0])]);
}

/// Peers in two homes of one carrier, which lets nobody reach another inside, meet at its address outside, once that leads back in.
fn hairpin(world: &World) {
    let relay = world.host("relay");
    let carrier = Router::carrier(world, "carrier");
    let hosts = ["a", "b"].map(|name| carrier.home(name));
    carrier.isolate();
    let mut mesh = Mesh::start_on(world, relay, &hosts, false, |options| options);
    mesh.until_all("relay");
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.step(world, "over the relay", A_WHILE);
    carrier.turn_round();
    mesh.peers[0].until_transport("b", "udp");
    mesh.peers[1].until_transport("a", "udp");
    stream.step(world, "to direct", A_WHILE);
    for (index, other) in [(0, "b"), (1, "a")] {
        assert_on(&mesh.peers[index].knows(other), "udp", carrier.outside());
    }
    stream.finish_perfect();
}

/// A path that carries 1,124 bytes carries packets of 1,280, from one end and from the other (protocol 8.3).
fn narrow(world: &World) {
    let relay = world.host("relay");
    let hosts = [("a", Nat::Narrow), ("b", Nat::PortRestricted)].map(|(name, nat)| world.behind(name, nat));
    let (near, inner) = (udp(&world.host("x")), udp(&hosts[0]));
    for (bytes, passes) in [(1_096, true), (1_097, false)] {
        inner.send_to(&vec![0; bytes], local(&near)).expect("the kernel sends");
        assert_eq!(receive(&near).is_some(), passes, "the link carries 1,124 bytes: {bytes} and the headers");
    }
    let mut mesh = Mesh::start_on(world, relay, &hosts, true, |options| options);
    mesh.until_all("relay");
    let stream = Stream::full(mesh.end(0), mesh.end(1));
    stream.step(world, "over the relay", A_WHILE);
    mesh.join();
    mesh.peers[0].until_transport("b", "udp");
    mesh.peers[1].until_transport("a", "udp");
    stream.step(world, "to direct", A_WHILE);
    for (index, other) in [(0, 1), (1, 0)] {
        let peer = mesh.peers[index].knows(&hosts[other].name);
        assert_on(&peer, "udp", hosts[other].outside.expect("these hosts have IPv4"));
    }
    stream.finish_perfect();
}

/// There is no way between them but the relay: never nothing.
fn stay(world: &World, nats: [Nat; 2]) {
    let relay = world.host("relay");
    let hosts = [("a", nats[0]), ("b", nats[1])].map(|(name, nat)| world.behind(name, nat));
    let mut mesh = Mesh::start_on(world, relay, &hosts, false, |options| options);
    mesh.until_all("relay");
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.step(world, "over the relay", SOME_ROUNDS);
    for (index, other) in [(0, "b"), (1, "a")] {
        assert_learned(&mesh.peers[index], nats[index]);
        let peer = mesh.peers[index].knows(other);
        assert_eq!(peer["path"]["kind"], "relay", "{peer:#}");
        assert_eq!(counter(&peer, "migrations"), 0, "{peer:#}");
        let why = mesh.peers[index].ask(&["peer", "explain", other, "--json"]).stdout;
        let nat = serde_json::from_str::<serde_json::Value>(&why).expect("it is JSON")["nat"].clone();
        assert_eq!((&nat["here"], &nat["there"]), (&"varies".into(), &"varies".into()), "{nat}");
        let said = mesh.peers[index].ask(&["peer", "explain", other]).stdout;
        assert!(said.contains("the NATs of both sides map anew"), "{said}");
    }
    stream.finish_perfect();
}

/// UDP is blocked on both sides, and the port from which the one dials is another one than relays see: the relay, and why it is so.
fn without_udp(world: &World) {
    let relay = world.host("relay");
    let hosts = ["a", "b"].map(|name| world.behind(name, Nat::SymmetricUdpBlocked));
    let mut mesh = Mesh::start_on(world, relay, &hosts, false, |options| options);
    mesh.until_all("relay");
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.step(world, "over the relay", SOME_ROUNDS);
    for (index, other) in [(0, "b"), (1, "a")] {
        let peer = mesh.peers[index].knows(other);
        assert_eq!(peer["path"]["kind"], "relay", "{peer:#}");
        assert_eq!(counter(&peer, "migrations"), 0, "{peer:#}");
        let said = mesh.peers[index].ask(&["peer", "explain", other]).stdout;
        assert!(said.contains("/wss (simultaneous open): "), "it was tried: {said}");
    }
    stream.finish_perfect();
}

fn rebinding(world: &World) {
    let relay = world.host("relay");
    let router = Router::new(world, "nat-a", Nat::PortRestricted);
    let hosts = [router.host("a"), world.host("b")];
    let (mut mesh, stream) = talk_and_meet(world, relay, &hosts, "udp");
    router.rebind(REBOUND);
    let gap = follow(world, &mut mesh, &stream);
    assert!(gap < REBINDING_GAP_LIMIT, "the rebinding was felt for {gap:?}");
    assert_followed(&mesh, &hosts);
    stream.finish_perfect();
}

/// Who is behind the NAT hears nothing after the rebinding, and says nothing of its own.
fn one_way_rebinding(world: &World) {
    let relay = world.host("relay");
    let router = Router::new(world, "nat-a", Nat::PortRestricted);
    let hosts = [router.host("a"), world.host("b")];
    let (mut mesh, stream) = talk_and_meet(world, relay, &hosts, "udp");
    stream.finish_perfect();
    let stream = Stream::one_way(mesh.end(1), mesh.end(0));
    stream.step(world, "one way", A_WHILE);
    router.rebind(REBOUND);
    let gap = follow(world, &mut mesh, &stream);
    assert!(gap < REBINDING_GAP_LIMIT, "the rebinding was felt for {gap:?}");
    assert_followed(&mesh, &hosts);
    stream.finish_perfect();
}

/// Nothing from the new mapping comes through to the other end either: the relay carries the stream until both find each other anew.
fn filtered_rebinding(world: &World) {
    let relay = world.host("relay");
    let router = Router::new(world, "nat-a", Nat::PortRestricted);
    let hosts = [router.host("a"), world.behind("b", Nat::PortRestricted)];
    let (mut mesh, stream) = talk_and_meet(world, relay, &hosts, "udp");
    router.rebind(REBOUND);
    let gap = follow(world, &mut mesh, &stream);
    assert!(gap < REBINDING_GAP_LIMIT, "the rebinding was felt for {gap:?}");
    assert_followed(&mesh, &hosts);
    stream.finish_perfect();
}

/// The same address and the same ports on both sides: what is sent to the other's private address comes back to its sender.
fn same_ports(world: &World) {
    let relay = world.host("relay");
    let hosts = ["a", "b"].map(|name| world.behind(name, Nat::PortRestricted));
    assert_eq!(hosts[0].v4, hosts[1].v4);
    let (mesh, stream) = talk_and_meet_with(world, relay, &hosts, "udp", |options| {
        ["UDP", "TCP"].into_iter().fold(options, |options, name| options.set(&format!("SHADOWMESH_P2P_LISTEN_{name}"), "0.0.0.0:4242"))
    });
    for (index, other) in [(0, 1), (1, 0)] {
        let peer = mesh.peers[index].knows(&hosts[other].name);
        assert_on(&peer, "udp", hosts[other].outside.expect("these hosts have IPv4"));
    }
    stream.finish_perfect();
}

/// After the rebinding of `a`: waits until `b` sends to the new mapping and gives the longest gap of the stream up to then.
fn follow(world: &World, mesh: &mut Mesh<'_>, stream: &Stream) -> Duration {
    let start = Instant::now();
    mesh.peers[1].until("sends to the new mapping", FOLLOW_LIMIT, |status| {
        find(status, "a").is_some_and(|peer| remote_port(&peer["path"]) == Some(REBOUND))
    });
    mesh.peers[0].until_transport("b", "udp");
    eprintln!("    at the new mapping within {:.1} s", start.elapsed().as_secs_f64());
    stream.step(world, "at the new mapping", A_WHILE)
}

/// They still have, or have again, the direct path by UDP.
fn assert_followed(mesh: &Mesh<'_>, hosts: &[Host; 2]) {
    for (index, other) in [(0, 1), (1, 0)] {
        let peer = mesh.peers[index].knows(&hosts[other].name);
        assert_on(&peer, "udp", hosts[other].outside.expect("these hosts have IPv4"));
        eprintln!("    {} counts {} fallbacks", mesh.peers[index].name, counter(&peer, "fallbacks"));
    }
}

/// A mesh on these hosts that has gone from the relay to direct paths by this transport, under the stream.
pub(crate) fn talk_and_meet<'w>(world: &'w World, relay: Host, hosts: &[Host; 2], transport: &str) -> (Mesh<'w>, Stream) {
    talk_and_meet_with(world, relay, hosts, transport, |options| options)
}

fn talk_and_meet_with<'w>(
    world: &'w World,
    relay: Host,
    hosts: &[Host; 2],
    transport: &str,
    change: impl Fn(Options) -> Options,
) -> (Mesh<'w>, Stream) {
    let mut mesh = Mesh::start_on(world, relay, hosts, true, change);
    mesh.until_all("relay");
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.step(world, "over the relay", A_WHILE);
    mesh.until_all("relay");
    mesh.join();
    let start = Instant::now();
    mesh.peers[0].until_transport("b", transport);
    mesh.peers[1].until_transport("a", transport);
    eprintln!("    direct by {transport} both ways {:.1} s after the way was free", start.elapsed().as_secs_f64());
    stream.step(world, "to direct", A_WHILE);
    (mesh, stream)
}

/// Its path is direct, by this transport, to this address, and by the product's own count nothing was lost.
pub(crate) fn assert_on(peer: &serde_json::Value, transport: &str, address: Ipv4Addr) {
    assert_eq!((&peer["path"]["kind"], &peer["path"]["transport"]), (&"direct".into(), &transport.into()), "{peer:#}");
    // Who was dialled knows the other end of the connection as well.
    assert_eq!(remote(&peer["path"]).ip(), address, "{peer:#}");
    let [lost, reordered] = ["lost_frames", "reordered_frames"].map(|key| counter(peer, key));
    assert_eq!((lost, reordered), (0, 0), "the product's own count agrees: {peer:#}");
}

/// The relay told it under which address it is seen, and whether that varies (protocol 8.1).
fn assert_learned(peer: &Peer<'_>, nat: Nat) {
    let status = peer.status().expect("a running peer answers status");
    let relay = &list(&status, "relays")[0];
    let seen = relay["reflexive"].as_str().map(|text| text.parse::<SocketAddr>().expect("an address").ip());
    let varies = relay["mapping_varies"].as_bool();
    let expected = if matches!(nat, Nat::UdpBlocked | Nat::SymmetricUdpBlocked) {
        (None, None)
    } else {
        (peer.host.outside.map(IpAddr::V4), Some(matches!(nat, Nat::Symmetric | Nat::Sequential)))
    };
    assert_eq!((seen, varies), expected, "{nat}: {relay:#}");
}

fn remote_port(path: &serde_json::Value) -> Option<u16> {
    path["remote"].as_str()?.parse::<SocketAddr>().ok().map(|remote| remote.port())
}

/// A socket of a host on its own address.
fn udp(host: &Host) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind(host.underlay(0)).expect("a free port"));
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a read timeout is a plain option");
    socket
}

fn local(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("a bound socket")
}

/// Sends a datagram to a server and gives the address that it sees.
fn arrives(from: &UdpSocket, server: &UdpSocket) -> Option<SocketAddr> {
    from.send_to(b"out", local(server)).expect("the kernel sends");
    receive(server)
}

/// From where the next datagram comes; `None` when none does.
fn receive(socket: &UdpSocket) -> Option<SocketAddr> {
    match socket.recv_from(&mut [0; 16]) {
        Ok((_, from)) => Some(from),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("receiving failed: {error}"),
    }
}
