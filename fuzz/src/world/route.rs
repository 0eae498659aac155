//! Which host an address leads to from where: realms, and the NAT boxes between them.
//!
//! ```text
//!   the open net ─┬─ host            a realm is the open net or the inside of one box;
//!                 ├─ box ─┬─ host    an address is reached within its realm, or outwards through the boxes around the sender
//!                 │       └─ box ── host      and inwards through the boxes that own the address
//! ```
use super::{
    World,
    air::{Air, HostId},
    nat::{Nat, NatId, NatKind, Protocol},
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Boxes that a packet passes before somebody gives up on it.
const HOPS: usize = 8;

/// Where a packet comes to.
pub(super) enum Route {
    Arrives {
        to: HostId,
        /// The sender as the receiver sees it.
        source: SocketAddr,
        /// The receiver as it sees itself.
        destination: SocketAddr,
    },
    /// Somebody said no.
    Refused,
    /// Nobody said anything.
    Dropped,
    /// The address is nobody's.
    Nowhere,
}

impl Air {
    /// The way of one packet through the boxes; it leaves its mappings behind.
    pub(super) fn route(&mut self, protocol: Protocol, from: HostId, source: SocketAddr, target: SocketAddr) -> Route {
        let now = self.now;
        let mut realm = self.behind.get(&from).copied();
        let (mut source, mut target) = (source, target);
        for _ in 0..HOPS {
            if let Some(to) = self.hosts_of.get(&target.ip())
                && self.behind.get(to).copied() == realm
            {
                return if *to == from { Route::Nowhere } else { Route::Arrives { to: *to, source, destination: target } };
            }
            if let Some(at) = self.nats.iter().position(|nat| nat.public == target.ip() && nat.outer == realm) {
                let Some(inner) = self.nats[at].inbound(now, protocol, target.port(), source) else { return self.nats[at].says_no() };
                target = inner;
                realm = Some(NatId(at));
                continue;
            }
            let Some(NatId(at)) = realm else {
                return if self.hosts_of.contains_key(&target.ip()) { Route::Dropped } else { Route::Nowhere };
            };
            let nat = &mut self.nats[at];
            source = nat.outbound(now, protocol, source, target);
            if nat.public != target.ip() {
                realm = nat.outer;
                continue;
            }
            // hairpin: the receiver sees the outer address of the sender (RFC 4787 REQ-9a)
            match nat.inbound(now, protocol, target.port(), source).filter(|_| nat.kind.hairpin) {
                Some(inner) => target = inner,
                None => return nat.says_no(),
            }
        }
        Route::Dropped
    }

    /// The host's own address of a family.
    pub(super) fn own_address(&self, host: HostId, v4: bool) -> Option<IpAddr> {
        self.hosts_of.iter().find(|(ip, holder)| **holder == host && ip.is_ipv4() == v4).map(|(ip, _)| *ip)
    }
}

impl Nat {
    fn says_no(&self) -> Route {
        if self.kind.refuses { Route::Refused } else { Route::Dropped }
    }
}

impl World {
    /// A NAT box on the open net, or behind another one.
    pub fn nat(&mut self, kind: NatKind, outer: Option<NatId>) -> NatId {
        let number = self.air.nats.len();
        let public = match outer {
            None => Ipv4Addr::new(192, 88, 99, number as u8 + 1),
            Some(NatId(outer)) => Ipv4Addr::new(10, outer as u8 + 1, 200, number as u8 + 1),
        };
        let seed = self.air.rng.u64();
        self.air.nats.push(Nat::new(kind, public.into(), outer, seed));
        NatId(number)
    }

    /// The address that a host which moves behind this box can take there.
    pub fn inner_address(&self, nat: NatId, host: HostId) -> IpAddr {
        Ipv4Addr::new(10, nat.0 as u8 + 1, 0, host.0 as u8 + 1).into()
    }

    /// The outer address of a box.
    pub fn outer_address(&self, nat: NatId) -> IpAddr {
        self.air.nats[nat.0].public
    }

    /// Puts a host behind a box: it has one IPv4 address there, and no other.
    pub fn put_behind(&mut self, host: HostId, nat: NatId) {
        let inner = self.inner_address(nat, host);
        self.air.behind.insert(host, nat);
        self.set_interfaces(host, &[(inner, 24)]);
    }

    /// Outer port of a box that leads to a TCP port and a UDP port of a host behind it.
    pub fn forward_port(&mut self, nat: NatId, outer: u16, inner: SocketAddr) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            self.air.nats[nat.0].forward(protocol, outer, inner);
        }
    }

    /// A box forgets its mappings of UDP and gives other ports from now on.
    pub fn remap(&mut self, nat: NatId) {
        self.air.nats[nat.0].remap();
    }

    /// The box that a host is behind.
    pub fn is_behind(&self, host: HostId) -> Option<NatId> {
        self.air.behind.get(&host).copied()
    }
}
