//! The addresses of this machine: what a peer can offer to others as candidates (protocol 6.3).
use core::net::IpAddr;
use std::io;

/// Addresses that are read at most; a machine with more has virtual interfaces by the hundred, and a peer announces only ten.
const ADDRESSES: usize = 256;

/// An interface that is up and whose other end is there: without a carrier nothing comes or goes by its addresses.
const CARRIES: getifaddrs::InterfaceFlags = getifaddrs::InterfaceFlags::UP.union(getifaddrs::InterfaceFlags::RUNNING);

/// One address of an interface that is up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its network prefix in bits.
    pub prefix: u8,
    /// Reachable from this machine only.
    pub loopback: bool,
    /// The interface that has it.
    pub interface: String,
}

/// All addresses of interfaces that are up and have a carrier, in a fixed order, without those of the interface called `except` and without IPv6
/// link-local ones, which mean nothing to another machine.
///
/// # Errors
/// When the kernel does not list them.
pub fn local_addresses(except: Option<&str>) -> io::Result<Vec<LocalAddress>> {
    let mut found: Vec<LocalAddress> = getifaddrs::getifaddrs()?
        .filter(|interface| interface.flags.contains(CARRIES))
        .filter(|interface| except != Some(interface.name.as_str()))
        .filter_map(|interface| {
            let address = interface.address.ip_addr()?;
            Some(LocalAddress {
                address,
                prefix: prefix_len(address, interface.address.netmask()),
                loopback: interface.flags.contains(getifaddrs::InterfaceFlags::LOOPBACK),
                interface: interface.name,
            })
        })
        .filter(|local| !is_link_local(local.address))
        .collect();
    found.sort();
    found.dedup();
    found.truncate(ADDRESSES);
    Ok(found)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The length of a netmask; an address without one stands for itself.
fn prefix_len(address: IpAddr, netmask: Option<IpAddr>) -> u8 {
    let ones = match netmask {
        Some(IpAddr::V4(mask)) => mask.to_bits().leading_ones(),
        Some(IpAddr::V6(mask)) => mask.to_bits().leading_ones(),
        None if address.is_ipv4() => 32,
        None => 128,
    };
    u8::try_from(ones).expect("a prefix has at most 128 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn loopback_is_listed_flagged_and_can_be_left_out() {
        let all = local_addresses(None).expect("list");
        let home = all.iter().find(|a| a.address == IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("127.0.0.1");
        assert!(home.loopback);
        assert_eq!(home.prefix, 8);
        let rest = local_addresses(Some(&home.interface)).expect("list");
        assert!(rest.iter().all(|a| a.interface != home.interface));
    }

    #[test]
    fn link_local_addresses_are_no_candidates() {
        assert!(is_link_local("fe80::1".parse().expect("address")));
        assert!(!is_link_local("fd00::1".parse().expect("address")));
        assert!(local_addresses(None).expect("list").iter().all(|a| !is_link_local(a.address)));
    }

    #[test]
    fn prefixes_come_from_netmasks() {
        let v4 = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(prefix_len(v4, Some(IpAddr::V4(Ipv4Addr::new(255, 255, 240, 0)))), 20);
        assert_eq!(prefix_len(v4, None), 32);
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        assert_eq!(prefix_len(v6, Some("ffff:ffff:ffff:ffff::".parse().expect("mask"))), 64);
        assert_eq!(prefix_len(v6, None), 128);
    }
}
