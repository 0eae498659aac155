//! Which addresses are offered to a peer, and which of a peer's addresses may be tried (protocol 6.3).
//!
//! A peer can name any address, so a candidate is a way to make us knock at somebody else's door. What is refused here is
//! never dialled: it is counted, and `peer explain` shows it.
use crate::{
    event::PortMapping,
    wire::{Candidate, CandidateKind, MAX_CANDIDATES, Transport},
};
use core::net::{IpAddr, SocketAddr};

/// What a node knows of its own surroundings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// Local interface addresses with prefix length, the overlay left out.
    pub(crate) interfaces: Vec<(IpAddr, u8)>,
    /// Our own end and the relay's end of each relay connection.
    pub(crate) relay_ends: Vec<(SocketAddr, SocketAddr)>,
    /// Connections with relays from whose ports others can be dialled.
    pub(crate) tcp_ends: Vec<TcpEnds>,
    /// Our address as relays see it.
    pub(crate) observed: Vec<IpAddr>,
    /// Our UDP sockets' addresses as relays see them.
    pub(crate) reflexive: Vec<Mapped>,
    /// What the router in front forwards to us.
    pub(crate) mapped: Vec<PortMapping>,
    /// Own overlay prefixes.
    pub(crate) overlay: Vec<(IpAddr, u8)>,
}

/// Our end of a connection with a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpEnds {
    /// As it is here.
    pub(crate) local: SocketAddr,
    /// As the relay sees it.
    pub(crate) observed: SocketAddr,
}

impl TcpEnds {
    /// None where others cannot see it so: behind a proxy, behind a translator between families, inside one machine.
    pub(crate) fn new((local, relay): (SocketAddr, SocketAddr), observed: SocketAddr) -> Option<Self> {
        let is_seen = !relay.ip().is_unspecified() && !relay.ip().is_loopback() && local.is_ipv4() == observed.is_ipv4();
        (is_seen && is_reachable(observed.ip()) && observed.port() != 0).then_some(Self { local, observed })
    }
}

/// The largest distance between two ports of a NAT that gives them in order; some count in the upper byte.
const STEP_MOST: u16 = 1_024;

/// Our UDP address as one relay sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mapped {
    /// As its first port sees it.
    pub(crate) address: SocketAddr,
    /// As its other port sees it, once that is known.
    pub(crate) other: Option<SocketAddr>,
}

impl Mapped {
    /// Whether others than this relay see another address.
    pub(crate) fn varies(self) -> bool {
        self.other.is_some_and(|other| other != self.address)
    }

    /// The port that the NAT gave last, and the distance to the next one; 0: ports are given by chance.
    pub(crate) fn prediction(self) -> (SocketAddr, u16) {
        let last = self.other.unwrap_or(self.address);
        let step = last.port().wrapping_sub(self.address.port());
        let foreseen = last.ip() == self.address.ip() && step <= STEP_MOST;
        (last, if foreseen { step } else { 0 })
    }
}

/// Where this peer listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    /// The direct listener's TCP port.
    pub(crate) wss: Option<u16>,
    /// The UDP sockets' ports: IPv4, IPv6.
    pub(crate) udp: (Option<u16>, Option<u16>),
}

impl Ports {
    fn udp_of(self, ip: IpAddr) -> Option<u16> {
        if ip.is_ipv4() { self.udp.0 } else { self.udp.1 }
    }
}

/// The addresses under which this peer may be reached, best first.
pub(crate) fn gather(around: &Surroundings, advertise: &[SocketAddr], ports: Ports) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |kind, transport, address, priority| {
        let candidate = Candidate { kind, transport, address, priority };
        if !found.iter().any(|known| (known.transport, known.address) == (transport, address)) {
            found.push(candidate);
        }
    };
    for address in advertise {
        // what stands in front forwards the same number of both kinds, as far as this end has them
        if ports.udp_of(address.ip()).is_some() {
            add(CandidateKind::Configured, Transport::Udp, *address, 125);
        }
        if ports.wss.is_some() {
            add(CandidateKind::Configured, Transport::Wss, *address, 120);
        }
    }
    for (ip, _) in around.interfaces.iter().filter(|_| advertise.is_empty()) {
        let own_relay_is_here = around
            .relay_ends
            .iter()
            .any(|(local, relay)| local.ip().is_loopback() && relay.ip().is_loopback() && local.is_ipv4() == ip.is_ipv4());
        if is_reachable(*ip) && (!ip.is_loopback() || own_relay_is_here) && !inside_any(&around.overlay, *ip) {
            let faces_relay = around.relay_ends.iter().any(|(local, _)| local.ip() == *ip);
            if let Some(port) = ports.udp_of(*ip) {
                add(CandidateKind::Host, Transport::Udp, SocketAddr::new(*ip, port), if faces_relay { 115 } else { 105 });
            }
            if let Some(port) = ports.wss {
                add(CandidateKind::Host, Transport::Wss, SocketAddr::new(*ip, port), if faces_relay { 110 } else { 100 });
            }
        }
    }
    // also where something is announced by hand: what the router or the relay's reflector says is true at this moment
    for mapping in around.mapped.iter().filter(|mapping| is_public(mapping.external.ip())) {
        let (own_port, priority) = match mapping.transport {
            Transport::Udp => (ports.udp_of(mapping.external.ip()), 113),
            Transport::Wss => (ports.wss, 70),
        };
        if own_port.is_some() {
            add(CandidateKind::PortMapped, mapping.transport, mapping.external, priority);
        }
    }
    for mapped in &around.reflexive {
        let address = mapped.address;
        if is_reachable(address.ip()) && !address.ip().is_loopback() && ports.udp_of(address.ip()).is_some() {
            let (kind, priority) = if mapped.varies() { (CandidateKind::Varying, 62) } else { (CandidateKind::Observed, 112) };
            add(kind, Transport::Udp, address, priority);
        }
    }
    for ip in around.observed.iter().filter(|_| advertise.is_empty()) {
        if let (true, Some(port)) = (is_reachable(*ip) && !ip.is_loopback(), ports.wss) {
            add(CandidateKind::Observed, Transport::Wss, SocketAddr::new(*ip, port), 60);
        }
    }
    found.sort_by_key(|candidate| core::cmp::Reverse(candidate.priority));
    found.truncate(MAX_CANDIDATES);
    found
}

/// Whether a peer's candidate may be tried; `theirs` is its address as the relay sees it.
pub(crate) fn permitted(around: &Surroundings, address: SocketAddr, theirs: Option<IpAddr>) -> Result<(), &'static str> {
    let ip = address.ip();
    if !is_reachable(ip) {
        return Err("not allowed: not a unicast address of a single host");
    }
    if address.port() == 0 || (address.port() < 1024 && address.port() != 443) {
        return Err("not allowed: ports below 1024 are tried only if 443");
    }
    if inside_any(&around.overlay, ip) {
        return Err("not allowed: inside the overlay itself");
    }
    if ip.is_loopback() {
        let relay_is_here = around.relay_ends.iter().any(|(_, relay)| relay.ip().is_loopback());
        return if relay_is_here { Ok(()) } else { Err("not allowed: loopback, and the relay is elsewhere") };
    }
    if !is_private(ip) || inside_any(&around.interfaces, ip) {
        return Ok(());
    }
    let same_outside = theirs.is_some_and(|theirs| around.observed.contains(&theirs));
    // a relay with a private address: the whole network lives inside, so private addresses are its ordinary ones
    let relay_is_private = around.relay_ends.iter().any(|(_, relay)| is_private(relay.ip()));
    if same_outside || relay_is_private { Ok(()) } else { Err("not allowed: a private address of another place") }
}

/// Whether an address that the operator named for a peer may be asked for it (protocol 8.7).
pub(crate) fn is_endpoint(around: &Surroundings, address: SocketAddr) -> bool {
    let ip = address.ip();
    address.port() != 0 && is_reachable(ip) && !ip.is_loopback() && !inside_any(&around.overlay, ip)
}

/// A unicast address that a TCP connection from another host can reach without a scope.
fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || ip.is_link_local() || ip.octets()[0] == 0),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some()),
    }
}

/// An address that means the same everywhere. A router that has another one outside is behind a second NAT: its port leads nowhere.
fn is_public(ip: IpAddr) -> bool {
    is_reachable(ip) && !ip.is_loopback() && !is_private(ip)
}

/// RFC 1918, RFC 6598 and RFC 4193.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// Whether an address lies in one of the prefixes.
pub fn inside_any(prefixes: &[(IpAddr, u8)], ip: IpAddr) -> bool {
    prefixes.iter().any(|(prefix, len)| inside(*prefix, *len, ip))
}

/// Whether an address lies in the prefix.
pub(crate) fn inside(prefix: IpAddr, len: u8, ip: IpAddr) -> bool {
    match (prefix, ip) {
        (IpAddr::V4(prefix), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
            prefix.to_bits() & mask == ip.to_bits() & mask
        }
        (IpAddr::V6(prefix), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
            prefix.to_bits() & mask == ip.to_bits() & mask
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::MappingProtocol;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }
    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address with a port")
    }

    const WSS: Ports = Ports { wss: Some(4000), udp: (None, None) };

    // protocol 6.3
    #[test]
    fn udp_addresses_stand_before_those_of_the_listener_and_the_reflexive_one_between() {
        let found = gather(&home(), &[], Ports { wss: Some(4000), udp: (Some(5000), None) });
        let told: Vec<_> = found.iter().map(|candidate| (candidate.transport, candidate.address)).collect();
        assert_eq!(
            told,
            [
                (Transport::Udp, at("192.168.1.5:5000")),
                (Transport::Udp, at("198.51.100.7:61000")),
                (Transport::Wss, at("192.168.1.5:4000")),
                (Transport::Wss, at("[2001:db8::5]:4000")),
                (Transport::Wss, at("198.51.100.7:4000")),
            ]
        );
    }

    fn home() -> Surroundings {
        Surroundings {
            interfaces: vec![(ip("127.0.0.1"), 8), (ip("192.168.1.5"), 24), (ip("fe80::1"), 64), (ip("2001:db8::5"), 64)],
            relay_ends: vec![(at("192.168.1.5:5000"), at("203.0.113.9:443"))],
            tcp_ends: Vec::new(),
            observed: vec![ip("198.51.100.7")],
            reflexive: vec![Mapped { address: at("198.51.100.7:61000"), other: None }],
            mapped: Vec::new(),
            overlay: vec![(ip("10.77.0.1"), 24)],
        }
    }

    // protocol 6.3
    #[test]
    fn what_the_router_forwards_is_offered_unless_another_nat_is_before_it() {
        let mut around = home();
        let mapping = |transport, external| PortMapping {
            protocol: MappingProtocol::Pcp,
            transport,
            external: at(external),
            until: crate::time::Instant::from_millis(1),
        };
        around.mapped = ["198.51.100.7:7000", "192.168.7.7:1", "100.64.3.4:1", "10.0.0.1:1", "0.0.0.0:1", "127.0.0.1:1", "169.254.1.1:1"]
            .map(|external| mapping(Transport::Udp, external))
            .into_iter()
            .chain([mapping(Transport::Wss, "198.51.100.7:8000")])
            .collect();
        let mapped = |ports| {
            let found = gather(&around, &[], ports).into_iter().filter(|candidate| candidate.kind == CandidateKind::PortMapped);
            found.map(|candidate| (candidate.transport, candidate.address)).collect::<Vec<_>>()
        };
        let both = Ports { wss: Some(4000), udp: (Some(5000), None) };
        let [udp, wss] = [(Transport::Udp, at("198.51.100.7:7000")), (Transport::Wss, at("198.51.100.7:8000"))];
        assert_eq!(mapped(both), [udp, wss]);
        assert_eq!((mapped(WSS), mapped(Ports::default())), (vec![wss], vec![]), "without a socket there is nothing behind it");
        let found = gather(&around, &[], both);
        let place = |kind, transport| found.iter().position(|candidate| (candidate.kind, candidate.transport) == (kind, transport));
        let (mapped, observed) = (place(CandidateKind::PortMapped, Transport::Udp), place(CandidateKind::Observed, Transport::Udp));
        assert!(mapped < observed, "it is good for everybody, what a relay sees perhaps for that relay alone");
    }

    #[test]
    fn offers_local_addresses_first_then_the_observed_one() {
        let found = gather(&home(), &[], WSS);
        let addresses: Vec<_> = found.iter().map(|candidate| candidate.address).collect();
        assert_eq!(addresses, [at("192.168.1.5:4000"), at("[2001:db8::5]:4000"), at("198.51.100.7:4000")]);
        assert_eq!(found[2].kind, CandidateKind::Observed);
    }

    #[test]
    fn what_the_operator_announces_stands_alone() {
        let found = gather(&home(), &[at("203.0.113.77:4433")], WSS);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].address, found[0].kind), (at("203.0.113.77:4433"), CandidateKind::Configured));
    }

    // protocol 6.3
    #[test]
    fn loopback_is_offered_and_tried_only_where_the_relay_is_local() {
        let mut here = home();
        assert!(permitted(&here, at("127.0.0.1:4000"), None).is_err());
        here.relay_ends = vec![(at("127.0.0.1:5000"), at("127.0.0.1:8443"))];
        assert!(permitted(&here, at("127.0.0.1:4000"), None).is_ok());
        assert!(gather(&here, &[], WSS).iter().any(|candidate| candidate.address == at("127.0.0.1:4000")));
    }

    // protocol 6.3
    #[test]
    fn third_parties_are_not_knocked_at() {
        for (address, ok) in [
            ("203.0.113.50:40000", true),
            ("203.0.113.50:443", true),
            ("203.0.113.50:22", false),
            ("203.0.113.50:0", false),
            ("192.168.1.99:4000", true),
            ("10.1.2.3:4000", false),
            ("100.70.1.2:4000", false),
            ("172.16.0.1:4000", false),
            ("10.77.0.9:4000", false),
            ("224.0.0.1:4000", false),
            ("255.255.255.255:4000", false),
            ("0.0.0.0:4000", false),
            ("169.254.1.1:4000", false),
            ("[::]:4000", false),
            ("[ff02::1]:4000", false),
            ("[fe80::1]:4000", false),
            ("[::ffff:10.1.2.3]:4000", false),
            ("[fd00::1]:4000", false),
            ("[2001:db8:1::1]:4000", true),
        ] {
            assert_eq!(permitted(&home(), at(address), None).is_ok(), ok, "{address}");
        }
    }

    // protocol 6.3
    #[test]
    fn a_private_address_behind_the_same_outside_address_may_be_tried() {
        assert!(permitted(&home(), at("10.1.2.3:4000"), Some(ip("198.51.100.7"))).is_ok());
        assert!(permitted(&home(), at("10.1.2.3:4000"), Some(ip("198.51.100.8"))).is_err());
    }

    #[test]
    fn prefixes_of_every_length() {
        assert!(inside(ip("10.0.0.0"), 0, ip("200.1.1.1")));
        assert!(inside(ip("10.0.0.1"), 32, ip("10.0.0.1")) && !inside(ip("10.0.0.1"), 32, ip("10.0.0.2")));
        assert!(inside(ip("fd00::"), 8, ip("fdff::1")) && !inside(ip("::"), 0, ip("1.2.3.4")));
    }
}
