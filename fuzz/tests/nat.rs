//! The NAT boxes of the world are what RFC 4787 and RFC 5382 call them: each is probed from outside, after RFC 5780.
use shadowmesh_fuzz::world::{Depends, Heard, HostId, NatId, NatKind, Ports, World};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const RULES: [Depends; 3] = [Depends::Nothing, Depends::Address, Depends::AddressAndPort];
const INNER_PORT: u16 = 5_000;

#[test]
fn each_mapping_is_what_a_probe_from_inside_finds() {
    for mapping in RULES {
        let mut bench = Bench::new(NatKind { mapping, filtering: Depends::Nothing, ..NatKind::default() });
        let first = bench.mapped_towards(bench.at(0, 1));
        let same_address = bench.mapped_towards(bench.at(0, 2));
        let other_address = bench.mapped_towards(bench.at(1, 1));
        // RFC 5780 4.3: one address with another port, then another address
        assert_eq!(first == same_address, mapping != Depends::AddressAndPort, "{mapping:?}");
        assert_eq!(first == other_address, mapping == Depends::Nothing, "{mapping:?}");
        assert_eq!(first.ip(), bench.world.outer_address(bench.nat));
    }
}

#[test]
fn each_filter_lets_in_whom_a_probe_from_outside_expects() {
    for filtering in RULES {
        let mut bench = Bench::new(NatKind { filtering, ..NatKind::default() });
        let invited = bench.at(0, 1);
        let outer = bench.mapped_towards(invited);
        // RFC 5780 4.4: the same server from another port, then another server
        assert!(bench.comes_in(0, 1, outer), "{filtering:?}: who was asked answers");
        assert_eq!(bench.comes_in(0, 2, outer), filtering != Depends::AddressAndPort, "{filtering:?}");
        assert_eq!(bench.comes_in(1, 1, outer), filtering == Depends::Nothing, "{filtering:?}");
    }
}

#[test]
fn ports_are_kept_counted_up_or_drawn() {
    let ports = |ports| {
        let mut bench = Bench::new(NatKind { ports, mapping: Depends::AddressAndPort, ..NatKind::default() });
        [(0, 1), (0, 2), (1, 1)].map(|(server, port)| bench.mapped_towards(bench.at(server, port)).port())
    };
    assert_eq!(ports(Ports::Preserved)[0], INNER_PORT);
    let counted = ports(Ports::Sequential);
    assert_eq!([counted[1] - counted[0], counted[2] - counted[1]], [1, 1]);
    let drawn = ports(Ports::Random);
    assert!(drawn[0].abs_diff(drawn[1]) > 1 && drawn[1].abs_diff(drawn[2]) > 1, "{drawn:?}");
}

#[test]
fn a_mapping_that_nothing_goes_out_through_expires_and_one_that_is_used_does_not() {
    let expiry = Duration::from_secs(30);
    let mut bench = Bench::new(NatKind { expiry, ..NatKind::default() });
    let server = bench.at(0, 1);
    let outer = bench.mapped_towards(server);
    bench.world.run(Duration::from_secs(25));
    assert_eq!(bench.mapped_towards(server), outer, "going out keeps it (RFC 4787 REQ-6)");
    bench.world.run(Duration::from_secs(25));
    assert!(bench.comes_in(0, 1, outer));
    bench.world.run(Duration::from_secs(10));
    assert!(!bench.comes_in(0, 1, outer), "coming in does not");
}

#[test]
fn two_hosts_behind_one_box_meet_by_hairpin_alone() {
    for hairpin in [true, false] {
        let mut bench = Bench::new(NatKind { hairpin, filtering: Depends::Nothing, ..NatKind::default() });
        let other = bench.another_inside();
        let outer = bench.mapped_towards(bench.at(0, 1));
        bench.world.send_datagram(other, INNER_PORT, outer, b"over the roof");
        bench.world.run(Duration::from_secs(1));
        let heard = bench.world.hear(bench.inside, INNER_PORT);
        assert_eq!(heard.len(), usize::from(hairpin));
        if let Some(Heard::Datagram { from, .. }) = heard.first() {
            assert_eq!(from.ip(), bench.world.outer_address(bench.nat), "the sender shows its outer address (RFC 4787 REQ-9a)");
        }
    }
}

#[test]
fn behind_two_boxes_the_outer_one_decides() {
    let mut bench = Bench::new(NatKind { filtering: Depends::AddressAndPort, ..NatKind::default() });
    let inner = bench.world.nat(NatKind { filtering: Depends::Nothing, ..NatKind::default() }, Some(bench.nat));
    bench.world.put_behind(bench.inside, inner);
    let outer = bench.mapped_towards(bench.at(0, 1));
    assert_eq!(outer.ip(), bench.world.outer_address(bench.nat));
    assert!(bench.comes_in(0, 1, outer));
    assert!(!bench.comes_in(1, 1, outer));
}

#[test]
fn a_box_that_refuses_says_so_and_one_that_drops_does_not() {
    for refuses in [true, false] {
        let mut bench = Bench::new(NatKind { refuses, ..NatKind::default() });
        let nobody = SocketAddr::new(bench.world.outer_address(bench.nat), 9);
        bench.world.send_datagram(bench.servers[0], 1, nobody, b"anybody?");
        bench.world.run(Duration::from_secs(1));
        let heard = bench.world.hear(bench.servers[0], 1);
        assert_eq!(heard == [Heard::Refused { to: nobody }], refuses, "{heard:?}");
    }
}

/// RFC 5382: connections from inside pass and show the mapped address; from outside they come by a forwarded port, or where both ends open
/// them at one time and each shows others what it shows the relay.
#[test]
fn peers_behind_boxes_are_seen_at_the_outer_address_and_reached_by_a_forwarded_port_or_from_both_ends() {
    let varying = NatKind { mapping: Depends::AddressAndPort, ports: Ports::Random, ..NatKind::default() };
    for (kind, forwards, meets) in [
        (varying, true, true),
        (NatKind::default(), false, true),
        (NatKind { refuses: true, ..NatKind::default() }, false, true),
        (NatKind { ports: Ports::Sequential, ..NatKind::default() }, false, true),
        (varying, false, false),
    ] {
        let mut world = World::new(9);
        let relay = world.relay();
        let nats = [world.nat(kind, None), world.nat(kind, None)];
        let peers = nats.map(|nat| {
            let peer = world.idle_peer(&[relay], |_| {});
            world.put_behind(peer, nat);
            peer
        });
        if forwards {
            world.map_ports(peers[0]);
        }
        for peer in peers {
            world.start(peer);
        }
        world.until_connected(peers[0], peers[1]);
        let seen: Vec<IpAddr> = world.hub_status(relay).clients.iter().map(|client| client.remote.ip()).collect();
        assert!(nats.iter().all(|nat| seen.contains(&world.outer_address(*nat))), "{seen:?}");
        if meets {
            let took = world.until_direct(peers[0], peers[1]);
            assert!(took < Duration::from_secs(1), "in the first attempt: {took:?}, {kind:?}");
        } else {
            world.run(Duration::from_secs(30));
            assert_eq!(world.connections(peers[0], peers[1]), 0, "{kind:?}");
        }
        let flows = world.both_ways(peers[0], peers[1], 50);
        world.run(Duration::from_secs(1));
        world.assert_whole(&flows);
    }
}

/// A host behind a box, and two servers outside with sockets on ports 1 and 2.
struct Bench {
    world: World,
    nat: NatId,
    inside: HostId,
    servers: [HostId; 2],
}

impl Bench {
    fn new(kind: NatKind) -> Self {
        let mut world = World::new(1);
        let nat = world.nat(kind, None);
        let servers = [world.stranger(), world.stranger()];
        for server in servers {
            world.open_socket(server, 1);
            world.open_socket(server, 2);
        }
        let mut bench = Self { world, nat, inside: servers[0], servers };
        bench.inside = bench.another_inside();
        bench
    }

    fn another_inside(&mut self) -> HostId {
        let host = self.world.stranger();
        self.world.put_behind(host, self.nat);
        self.world.open_socket(host, INNER_PORT);
        host
    }

    fn at(&self, server: usize, port: u16) -> SocketAddr {
        SocketAddr::new(self.world.address(self.servers[server], true), port)
    }

    /// The source that a server sees.
    fn mapped_towards(&mut self, server: SocketAddr) -> SocketAddr {
        self.world.send_datagram(self.inside, INNER_PORT, server, b"who am I?");
        self.world.run(Duration::from_secs(1));
        let host = self.servers.into_iter().find(|host| self.world.address(*host, true) == server.ip()).expect("a server");
        match self.world.hear(host, server.port()).pop() {
            Some(Heard::Datagram { from, .. }) => from,
            other => panic!("the server heard {other:?}"),
        }
    }

    /// Whether a server's datagram reaches the host inside.
    fn comes_in(&mut self, server: usize, port: u16, outer: SocketAddr) -> bool {
        self.world.hear(self.inside, INNER_PORT);
        self.world.send_datagram(self.servers[server], port, outer, b"hello");
        self.world.run(Duration::from_secs(1));
        !self.world.hear(self.inside, INNER_PORT).is_empty()
    }
}
