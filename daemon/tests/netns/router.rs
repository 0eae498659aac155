//! Hosts behind a NAT or a firewall, each behind a router in a namespace of its own, with IPv4 alone.
//!
//! ```text
//!   sm<pid>-<n>-a           sm<pid>-<n>-nat-a
//!        eth0 ──────────── p1 lan0 ⇄ eth0 ──── p<k>   the world's switch
//!        192.168.1.2            192.168.1.1   10.98.0.k
//! ```
//!
//! All private networks have the same addresses, as at home. A router tells nobody when it drops something.

use crate::world::{Host, Port, World, ip_in, nft};
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::Cell;
use std::fmt;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;

/// The port of every UDP mapping of `Nat::Renumbering`.
pub(crate) const RENUMBERED: u16 = 6000;

/// Where a router that speaks `UPnP` is asked.
pub(crate) const UPNP_PORT: u16 = 5000;

/// What is between a host and the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nat {
    /// Nothing: a host of the switch.
    Open,
    /// Ports are kept; in comes what answers from the same address and port.
    PortRestricted,
    /// The same, but the port outside is another one, the same towards everybody.
    Renumbering,
    /// Ports are kept; in comes what is from an address that was sent to.
    AddressRestricted,
    /// Ports are kept; everything comes in.
    FullCone,
    /// A port by chance for each destination, by UDP and by TCP; in comes what answers.
    Symmetric,
    /// The same, but by UDP one port behind the other.
    Sequential,
    /// No translation; in comes what answers.
    Firewall,
    /// `PortRestricted`, but no UDP at all.
    UdpBlocked,
    /// `Symmetric`, but no UDP at all.
    SymmetricUdpBlocked,
    /// `PortRestricted` behind `PortRestricted`.
    CarrierGrade,
    /// The same, and the network of the carrier carries packets of `NARROW_MTU` bytes.
    Narrow,
}

/// The largest IP packet of `Nat::Narrow`, bytes.
const NARROW_MTU: &str = "1124";

/// A router with a private network.
pub(crate) struct Router<'w> {
    world: &'w World,
    /// `eth0` is outside, `lan0` inside.
    host: Host,
    nat: Nat,
    network: [u8; 3],
    next: Cell<u8>,
}

/// The private network of homes, and that between a carrier and its homes.
const HOME: [u8; 3] = [192, 168, 1];
const CARRIER: [u8; 3] = [100, 64, 0];
/// By this mark a router knows its entries for UDP in the table of connections.
const UDP_MARK: u32 = 1;

impl World {
    /// A host behind a router of its own, or none.
    pub(crate) fn behind(&self, name: &str, nat: Nat) -> Host {
        match nat {
            Nat::Open => self.host(name),
            Nat::CarrierGrade | Nat::Narrow => {
                let carrier = Router::carrier(self, &format!("carrier-{name}"));
                let home = carrier.host(&format!("nat-{name}"));
                if nat == Nat::Narrow {
                    ip_in(&carrier.host.namespace, &["link", "set", "lan0", "mtu", NARROW_MTU]);
                    ip_in(&home.namespace, &["link", "set", "eth0", "mtu", NARROW_MTU]);
                }
                Router::of(self, home, Nat::PortRestricted, HOME).host(name)
            }
            nat => Router::new(self, &format!("nat-{name}"), nat).host(name),
        }
    }
}

impl<'w> Router<'w> {
    /// A router on the switch.
    pub(crate) fn new(world: &'w World, name: &str, nat: Nat) -> Self {
        Self::of(world, world.host(name), nat, HOME)
    }

    /// The router of a carrier: routers of homes are behind it.
    pub(crate) fn carrier(world: &'w World, name: &str) -> Self {
        Self::of(world, world.host(name), Nat::PortRestricted, CARRIER)
    }

    /// A host behind a router of its own that is behind this one.
    pub(crate) fn home(&self, name: &str) -> Host {
        let home = self.host(&format!("nat-{name}"));
        Router::of(self.world, home, Nat::PortRestricted, HOME).host(name)
    }

    /// Makes a router of a host.
    fn of(world: &'w World, host: Host, nat: Nat, network: [u8; 3]) -> Self {
        let router = Self { world, host, nat, network, next: Cell::new(2) };
        let namespace = &router.host.namespace;
        router.host.set("ipv4/ip_forward", "1");
        ip_in(namespace, &["link", "add", "lan0", "type", "bridge", "mcast_snooping", "0"]);
        router.host.set("ipv6/conf/lan0/disable_ipv6", "1");
        ip_in(namespace, &["link", "set", "lan0", "up"]);
        if nat == Nat::Firewall {
            // It answers for the addresses behind it, at once.
            router.host.set("ipv4/conf/eth0/proxy_arp", "1");
            router.host.set("ipv4/neigh/eth0/proxy_delay", "0");
        } else {
            ip_in(namespace, &["address", "add", &format!("{}/24", router.inside(1)), "dev", "lan0"]);
        }
        nft(namespace, &router.rules());
        router
    }

    /// A second router for hosts that have one already, with other addresses inside: a mobile network beside that at home.
    pub(crate) fn mobile(world: &'w World, name: &str, nat: Nat) -> Self {
        Self::of(world, world.host(name), nat, CARRIER)
    }

    /// Adds a host of another router to this one's private network too, by `eth1`, with a default route that is taken when there is no other.
    pub(crate) fn adopt(&self, host: &Host) {
        let number = self.next.replace(self.next.get() + 1);
        let (near, inside) = (format!("p{number}"), &host.namespace);
        ip_in(&self.host.namespace, &["link", "add", &near, "type", "veth", "peer", "name", "eth1", "netns", inside]);
        ip_in(&self.host.namespace, &["link", "set", &near, "master", "lan0", "up"]);
        host.set("ipv6/conf/eth1/disable_ipv6", "1");
        ip_in(inside, &["address", "add", &format!("{}/24", self.inside(number)), "dev", "eth1"]);
        ip_in(inside, &["link", "set", "eth1", "up"]);
        ip_in(inside, &["route", "add", "default", "via", &self.inside(1).to_string(), "dev", "eth1", "metric", "200"]);
    }

    /// Takes the far end of a host's `eth0` away: the host has no carrier there any more.
    pub(crate) fn pull(&self, host: &Host) {
        let port = host.ports.first().expect("a host has a port");
        ip_in(&self.host.namespace, &["link", "set", &port.name, "down"]);
    }

    /// The address under which others see its hosts.
    pub(crate) fn outside(&self) -> Ipv4Addr {
        self.host.v4.expect("a router has an address of IPv4")
    }

    /// Adds a host to its private network.
    pub(crate) fn host(&self, name: &str) -> Host {
        let number = self.next.replace(self.next.get() + 1);
        let near = Port { namespace: self.host.namespace.clone(), name: format!("p{number}") };
        let ports = [near].into_iter().chain(self.host.ports.iter().cloned()).collect();
        let mut host = self.world.bare(name, ports);
        host.plug("lan0");
        host.set("ipv6/conf/eth0/disable_ipv6", "1");
        let gateway = if self.nat == Nat::Firewall {
            let address = self.world.address(self.world.number());
            (host.v4, host.outside) = (Some(address), Some(address));
            ip_in(&host.namespace, &["address", "add", &format!("{address}/32"), "dev", "eth0"]);
            ip_in(&self.host.namespace, &["route", "add", &format!("{address}/32"), "dev", "lan0"]);
            self.host.v4.expect("a router has an address of IPv4")
        } else {
            let address = self.inside(number);
            (host.v4, host.outside) = (Some(address), self.host.outside);
            ip_in(&host.namespace, &["address", "add", &format!("{address}/24"), "dev", "eth0"]);
            self.inside(1)
        };
        ip_in(&host.namespace, &["link", "set", "eth0", "up"]);
        ip_in(&host.namespace, &["route", "add", "default", "via", &gateway.to_string(), "dev", "eth0", "onlink"]);
        host
    }

    /// The host that it is, for programs that run there.
    pub(crate) fn as_host(&self) -> &Host {
        &self.host
    }

    /// Takes questions for ports from inside (PCP, NAT-PMP, `UPnP`), and lets in what comes to a port that leads inside.
    pub(crate) fn take_questions(&self) {
        let rules = format!(
            "insert rule ip door input iifname \"lan0\" udp dport {{ 1900, 5351 }} accept
            insert rule ip door input iifname \"lan0\" tcp dport {UPNP_PORT} accept
            insert rule ip door forward ct status dnat accept\n"
        );
        nft(&self.host.namespace, &rules);
    }

    /// Its private network carries nothing from one host to another, as those of carriers do.
    pub(crate) fn isolate(&self) {
        for number in 2..self.next.get() {
            ip_in(&self.host.namespace, &["link", "set", &format!("p{number}"), "type", "bridge_slave", "isolated", "on"]);
        }
    }

    /// What a host sends to the address outside comes back in to the host whose mapping has that port, from the sender's own mapping
    /// (RFC 4787, REQ-9). Ports must be kept, and a mapping is known by what goes out by it from now on.
    pub(crate) fn turn_round(&self) {
        // Where bridges ask nftables, they would take the translated packet straight to the other host's port.
        const BRIDGES_ASK: &str = "bridge/bridge-nf-call-iptables";
        if self.host.enter(|| Path::new("/proc/sys/net").join(BRIDGES_ASK).exists()) {
            self.host.set(BRIDGES_ASK, "0");
        }
        let outside = self.outside();
        let rules = format!(
            "table ip round {{
                map mapped {{ type inet_service : ipv4_addr; flags dynamic, timeout; timeout 1m; }}
                chain learn {{
                    type filter hook postrouting priority 0;
                    iifname \"lan0\" oifname \"eth0\" ip protocol udp update @mapped {{ udp sport : ip saddr }}
                }}
                chain pre {{
                    type nat hook prerouting priority -99;
                    iifname \"lan0\" ip daddr {outside} ip protocol udp dnat to udp dport map @mapped
                }}
                chain post {{
                    type nat hook postrouting priority 99;
                    iifname \"lan0\" oifname \"lan0\" ip protocol udp snat to {outside}
                }}
            }}\n"
        );
        nft(&self.host.namespace, &rules);
    }

    /// It forgets all mappings of UDP, and maps all UDP to this port from now on; connections by TCP live on.
    pub(crate) fn rebind(&self, port: u16) {
        let rule = format!("oifname \"eth0\" meta l4proto udp masquerade to :{port}");
        nft(&self.host.namespace, &format!("insert rule ip nat post {rule}\n"));
        self.host.enter(forget_udp);
    }

    fn inside(&self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, number)
    }

    /// Translation and filter of this kind.
    fn rules(&self) -> String {
        let udp = "oifname \"eth0\" meta l4proto udp masquerade";
        let translate = match self.nat {
            Nat::Firewall => String::new(),
            Nat::Renumbering => format!("{udp} to :{RENUMBERED}"),
            Nat::Symmetric => format!("{udp} fully-random"),
            Nat::Sequential => format!("{udp} to :numgen inc mod {IN_ORDER} map {{ {} }}", in_order()),
            _ => udp.to_owned(),
        };
        let rest = match self.nat {
            Nat::Firewall => "",
            Nat::Symmetric | Nat::Sequential | Nat::SymmetricUdpBlocked => "oifname \"eth0\" masquerade fully-random",
            _ => "oifname \"eth0\" masquerade",
        };
        let inwards = match self.nat {
            Nat::FullCone | Nat::AddressRestricted => format!("iifname \"eth0\" udp dport 1024-65535 dnat to {}", self.inside(2)),
            _ => String::new(),
        };
        let answers = "iifname \"eth0\" ct state { new, invalid } drop";
        let filter = match self.nat {
            Nat::FullCone => String::new(),
            Nat::AddressRestricted => format!(
                "iifname \"lan0\" update @asked {{ ip daddr . udp sport }}\niifname \"eth0\" ip saddr . udp dport @asked accept\n{answers}"
            ),
            Nat::UdpBlocked | Nat::SymmetricUdpBlocked => format!("meta l4proto udp drop\n{answers}"),
            _ => answers.to_owned(),
        };
        // What comes to the router itself goes nowhere: else it would stand in the table of connections, and an
        // answer that passes a moment later would find its port taken.
        format!(
            "table ip nat {{
                chain post {{
                    type nat hook postrouting priority 100;
                    {translate}
                    {rest}
                }}
                chain pre {{
                    type nat hook prerouting priority -100;
                    {inwards}
                }}
            }}
            table ip door {{
                set asked {{
                    type ipv4_addr . inet_service; flags dynamic, timeout; timeout 1m;
                }}
                chain forward {{
                    type filter hook forward priority 0;
                    meta l4proto udp ct mark set {UDP_MARK}
                    {filter}
                }}
                chain input {{
                    type filter hook input priority 0;
                    meta l4proto {{ tcp, udp }} drop
                }}
            }}\n"
        )
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The ports that a router gives in order; counted by a map, since a number as such would be read with its bytes turned round.
const IN_ORDER: u16 = 2_048;

fn in_order() -> String {
    (0..IN_ORDER).map(|turn| format!("{turn} : {}", 20_000 + turn)).collect::<Vec<_>>().join(", ")
}

/// Removes from the table of connections of the calling thread's namespace all that have `UDP_MARK`:
/// `IPCTNL_MSG_CT_DELETE` with a mark and a mask.
fn forget_udp() {
    const NETLINK: i32 = 16;
    const NETFILTER: i32 = 12;
    const DELETE: u16 = 0x0102;
    const REQUEST_AND_ACK: u16 = 5;
    const MARK: u16 = 8;
    const MARK_MASK: u16 = 21;
    let socket = Socket::new(Domain::from(NETLINK), Type::RAW, Some(Protocol::from(NETFILTER))).expect("a netlink socket");
    // A header of 16 bytes (length, type, flags, sequence, port), one of 4 (family, version, resource), two attributes.
    let mut request = Vec::from(36_u32.to_ne_bytes());
    request.extend([DELETE, REQUEST_AND_ACK, 0, 0, 0, 0, 0, 0].into_iter().flat_map(u16::to_ne_bytes));
    for (attribute, value) in [(MARK, UDP_MARK), (MARK_MASK, u32::MAX)] {
        request.extend([8, attribute].into_iter().flat_map(u16::to_ne_bytes));
        request.extend(value.to_be_bytes());
    }
    assert_eq!(socket.send(&request).expect("the kernel takes the request"), 36);
    let mut answer = [0_u8; 128];
    let length = (&socket).read(&mut answer).expect("the kernel answers");
    assert!(length >= 20, "an answer of {length} bytes");
    assert_eq!(answer[16..20], [0; 4], "the kernel did not forget");
}
