//! Whom limits count: what one attacker can be expected to own (protocol 9.4).
use core::net::{IpAddr, SocketAddr};

/// An IPv4 address or an IPv6 /56.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    V4([u8; 4]),
    V6([u8; 7]),
}

impl Source {
    /// The source of an address; an IPv4 address in IPv6 clothes counts as IPv4.
    pub(crate) fn of(remote: SocketAddr) -> Self {
        match remote.ip().to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let octets = ip.octets();
                Self::V6(core::array::from_fn(|at| octets[at]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect("an address"))
    }

    // protocol 9.4
    #[test]
    fn a_source_is_an_ipv4_address_or_a_56() {
        assert_eq!(source("192.0.2.1:5"), source("[::ffff:192.0.2.1]:9"));
        assert_ne!(source("192.0.2.1:5"), source("192.0.2.2:5"));
        assert_eq!(source("[2001:db8:0:1200::1]:5"), source("[2001:db8:0:12ff:ffff::]:5"));
        assert_ne!(source("[2001:db8:0:1200::1]:5"), source("[2001:db8:0:1300::1]:5"));
    }
}
