//! Where packets to everywhere go: the default gateway of each family, as the kernel's routing table tells it, and our address there.
use super::codec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::{fs, io, net::UdpSocket};

const ROUTES_V4: &str = "/proc/net/route";
const ROUTES_V6: &str = "/proc/net/ipv6_route";
/// Flags of a route: it is up, and leads to a gateway.
const UP_AND_GATEWAY: u32 = 1 | 2;
/// Nothing is sent there: the kernel is asked which address of ours would be used for the Internet.
const SOMEWHERE: Ipv6Addr = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1);

/// A router, and how we look to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gateway {
    /// Its address; a link-local one with the interface.
    pub(crate) address: SocketAddr,
    /// Ours.
    pub(crate) own: IpAddr,
}

/// The gateway of this family, other than through the interface `except`.
pub(crate) fn find(v6: bool, except: Option<&str>) -> Option<Gateway> {
    let table = fs::read_to_string(if v6 { ROUTES_V6 } else { ROUTES_V4 }).ok()?;
    if v6 {
        let (address, interface) = default_v6(&table, except)?;
        let scope = if address.is_unicast_link_local() { index(&interface)? } else { 0 };
        let address = SocketAddr::V6(SocketAddrV6::new(address, codec::PORT, 0, scope));
        Some(Gateway { address, own: own_address(SocketAddr::from((SOMEWHERE, codec::PORT)))? })
    } else {
        let address = SocketAddr::from((default_v4(&table, except)?, codec::PORT));
        Some(Gateway { address, own: own_address(address)? })
    }
}

/// A socket towards a router that does not block; the kernel lets in what comes from there alone.
///
/// # Errors
/// Our address is gone, or there is no way to the router.
pub(crate) fn socket(gateway: &Gateway) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((gateway.own, 0))?;
    socket.connect(gateway.address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn own_address(towards: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if towards.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(towards).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_unspecified() && !own.is_loopback()).then_some(own)
}

fn index(interface: &str) -> Option<u32> {
    let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).ok()?;
    rustix::net::netdevice::name_to_index(&socket, interface).ok()
}

/// The gateway with the lowest metric. A line: interface, destination, gateway, flags, 0, 0, metric, mask, …; addresses as the
/// machine's own numbers.
fn default_v4(table: &str, except: Option<&str>) -> Option<Ipv4Addr> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, "00000000", gateway, flags, _, _, metric, "00000000", ..] = fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        let is_one = flags & UP_AND_GATEWAY == UP_AND_GATEWAY && except != Some(interface) && !gateway.is_unspecified();
        is_one.then_some((metric.parse::<u32>().ok()?, gateway))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

/// The same of IPv6. A line: destination, its length, source, its length, gateway, metric, 0, 0, flags, interface; all in hexadecimal.
fn default_v6(table: &str, except: Option<&str>) -> Option<(Ipv6Addr, String)> {
    let routes = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "00", _, "00", gateway, metric, _, _, flags, interface] = fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let gateway = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
        let is_one = flags & UP_AND_GATEWAY == UP_AND_GATEWAY && except != Some(interface) && !gateway.is_unspecified();
        is_one.then_some((u32::from_str_radix(metric, 16).ok()?, gateway, interface))
    });
    routes.min_by_key(|(metric, ..)| *metric).map(|(_, gateway, interface)| (gateway, interface.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_gateway_with_the_lowest_metric_counts_and_the_overlay_does_not() {
        let line = |interface: &str, destination: u32, gateway: [u8; 4], flags: u32, metric: u32, mask: u32| {
            format!(
                "{interface}\t{destination:08X}\t{:08X}\t{flags:04X}\t0\t0\t{metric}\t{mask:08X}\t0\t0\t0\n",
                u32::from_ne_bytes(gateway)
            )
        };
        let table = [
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n".to_owned(),
            line("mesh0", 0, [10, 77, 0, 1], 3, 1, 0),
            line("eth0", 0, [192, 168, 1, 1], 3, 100, 0),
            line("wlan0", 0, [192, 168, 7, 1], 3, 600, 0),
            line("eth0", 0x00c0_a801, [192, 168, 1, 9], 3, 0, 0x00ff_ffff),
            line("eth0", 0, [0, 0, 0, 0], 1, 0, 0),
            line("eth1", 0, [192, 168, 8, 1], 2, 0, 0),
        ]
        .concat();
        assert_eq!(default_v4(&table, Some("mesh0")), Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(default_v4(&table, None), Some(Ipv4Addr::new(10, 77, 0, 1)));
        for nothing in ["", "Iface\n", "Iface\neth0\t00000000\n", "Iface\neth0 00000000 zz 0003 0 0 0 00000000 0 0 0\n"] {
            assert_eq!(default_v4(nothing, None), None, "{nothing:?}");
        }
    }

    #[test]
    fn the_default_gateway_of_ipv6_has_an_interface() {
        let (any, own, gateway) = ("0".repeat(32), format!("fd98{}", "0".repeat(28)), format!("fe80{}1", "0".repeat(27)));
        let table = [
            format!("{own} 40 {any} 00 {any} 00000100 00000001 00000000 00000001     eth0\n"),
            format!("{any} 00 {any} 00 {gateway} 00000400 00000001 00000000 00000003     eth0\n"),
            format!("{any} 00 {any} 00 {gateway} 00000001 00000001 00000000 00000003    mesh0\n"),
            format!("{any} 00 {any} 00 {any} ffffffff 00000001 00000000 00200200       lo\n"),
        ]
        .concat();
        let gateway: Ipv6Addr = "fe80::1".parse().expect("an address");
        assert_eq!(default_v6(&table, Some("mesh0")), Some((gateway, "eth0".to_owned())));
        assert_eq!(default_v6(&table, None), Some((gateway, "mesh0".to_owned())));
        assert_eq!(default_v6("", None), None);
    }
}
