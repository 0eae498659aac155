//! Addresses on the wire: the 16-byte IP field with its family in a flag, and the 20-byte socket address (protocol 1.5).
//!
//! An address has exactly one form: IPv4 stands in the first 4 of 16 bytes and the other 12 are zero; an IPv4-mapped
//! IPv6 address is written as IPv4 and refused as IPv6, so that rules about addresses cannot be passed by in another spelling.
use super::{Malformed, Reader};
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Length of the socket address form in bytes: family u8, 0, port u16, IP 16.
pub const SOCKET_ADDRESS_LEN: usize = 20;

/// An IPv4 address that came over an IPv6 socket, as the IPv4 address it is.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Which kind of address stands in a 16-byte field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4, in the first 4 bytes; 4 on the wire.
    V4,
    /// IPv6, all 16 bytes; 6 on the wire.
    V6,
}

impl Family {
    /// The family of an address in its one form.
    pub const fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

/// A 16-byte IP field together with its family, as in `PeerPublicIP`; shown as the address in its usual text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressField {
    /// The 16 bytes.
    pub bytes: [u8; 16],
    /// What they hold.
    pub family: Family,
}

impl From<IpAddr> for AddressField {
    fn from(address: IpAddr) -> Self {
        Self { bytes: ip_bytes(address), family: Family::of(address) }
    }
}

impl fmt::Display for AddressField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            Family::V4 => v4(&self.bytes).fmt(f),
            Family::V6 => Ipv6Addr::from(self.bytes).fmt(f),
        }
    }
}

/// The 16-byte form of an address.
pub const fn ip_bytes(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address in a 16-byte field, in its one form.
pub fn ip_from_bytes(bytes: [u8; 16], family: Family) -> Result<IpAddr, Malformed> {
    match family {
        Family::V4 => {
            let address = IpAddr::V4(v4(&bytes));
            if ip_bytes(address) == bytes { Ok(address) } else { Err(Malformed("bytes after an IPv4 address")) }
        }
        Family::V6 => {
            let v6 = Ipv6Addr::from(bytes);
            if v6.to_ipv4_mapped().is_some() { Err(Malformed("IPv4 written as IPv6")) } else { Ok(IpAddr::V6(v6)) }
        }
    }
}

fn v4(bytes: &[u8; 16]) -> Ipv4Addr {
    let [a, b, c, d, ..] = *bytes;
    Ipv4Addr::new(a, b, c, d)
}

/// The 20-byte form of a socket address.
pub fn socket_bytes(address: SocketAddr) -> [u8; SOCKET_ADDRESS_LEN] {
    let mut out = [0; SOCKET_ADDRESS_LEN];
    let parts = [Family::of(address.ip()).code(), 0].into_iter().chain(address.port().to_be_bytes()).chain(ip_bytes(address.ip()));
    for (to, from) in out.iter_mut().zip(parts) {
        *to = from;
    }
    out
}

/// Reads the 20-byte form of a socket address.
pub fn read_socket(reader: &mut Reader<'_>) -> Result<SocketAddr, Malformed> {
    let family = match reader.u8("address family")? {
        4 => Family::V4,
        6 => Family::V6,
        _ => return Err(Malformed("address family")),
    };
    reader.zero("address reserved byte")?;
    let port = reader.u16("port")?;
    let ip = ip_from_bytes(reader.array("IP address")?, family)?;
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of_v4(octets: [u8; 4]) -> String {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&octets);
        let field = AddressField { bytes, family: Family::V4 };
        assert_eq!(ip_from_bytes(bytes, Family::V4).map(AddressField::from), Ok(field));
        field.to_string()
    }

    fn text_of_v6(bytes: [u8; 16]) -> String {
        let field = AddressField { bytes, family: Family::V6 };
        assert_eq!(ip_from_bytes(bytes, Family::V6).map(AddressField::from), Ok(field));
        field.to_string()
    }

    #[test]
    fn ipv4_formatting_private() {
        assert_eq!(text_of_v4([192, 168, 1, 1]), "192.168.1.1");
    }

    #[test]
    fn ipv4_formatting_loopback() {
        assert_eq!(text_of_v4([127, 0, 0, 1]), "127.0.0.1");
    }

    #[test]
    fn ipv4_formatting_unspecified() {
        assert_eq!(text_of_v4([0, 0, 0, 0]), "0.0.0.0");
    }

    #[test]
    fn ipv4_formatting_broadcast() {
        assert_eq!(text_of_v4([255, 255, 255, 255]), "255.255.255.255");
    }

    #[test]
    fn ipv4_formatting_public() {
        assert_eq!(text_of_v4([8, 8, 8, 8]), "8.8.8.8");
    }

    #[test]
    fn ipv6_formatting_loopback() {
        assert_eq!(text_of_v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "::1");
    }

    #[test]
    fn ipv6_formatting_documentation_prefix() {
        assert_eq!(text_of_v6([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "2001:db8::1");
    }

    #[test]
    fn ipv6_formatting_link_local() {
        assert_eq!(text_of_v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "fe80::1");
    }

    #[test]
    fn ipv6_formatting_unspecified() {
        assert_eq!(text_of_v6([0; 16]), "::");
    }

    #[test]
    fn ipv6_formatting_full() {
        let bytes = [0x20, 0x01, 0x0d, 0xb8, 0x85, 0xa3, 0x12, 0x34, 0x56, 0x78, 0x8a, 0x2e, 0x03, 0x70, 0x73, 0x34];
        assert_eq!(text_of_v6(bytes), "2001:db8:85a3:1234:5678:8a2e:370:7334");
    }

    // protocol 1.5
    #[test]
    fn golden_socket_addresses() {
        let v4: SocketAddr = "203.0.113.7:41022".parse().expect("a good address");
        assert_eq!(socket_bytes(v4), [4, 0, 0xa0, 0x3e, 203, 0, 113, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let v6: SocketAddr = "[2001:db8::2]:443".parse().expect("a good address");
        assert_eq!(socket_bytes(v6), [6, 0, 1, 0xbb, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    }

    // protocol 1.5
    #[test]
    fn an_address_has_one_form() {
        let mapped: IpAddr = "::ffff:10.1.2.3".parse().expect("a good address");
        let plain: IpAddr = "10.1.2.3".parse().expect("a good address");
        assert_eq!(ip_bytes(mapped), ip_bytes(plain));
        assert_eq!(Family::of(mapped), Family::V4);
        let IpAddr::V6(raw) = mapped else { panic!("parsed as IPv6") };
        assert_eq!(ip_from_bytes(raw.octets(), Family::V6), Err(Malformed("IPv4 written as IPv6")));
        let mut dirty = ip_bytes(plain);
        dirty[15] = 1;
        assert_eq!(ip_from_bytes(dirty, Family::V4), Err(Malformed("bytes after an IPv4 address")));
    }

    /// Any socket address in its one form.
    pub(crate) fn any_socket() -> impl Strategy<Value = SocketAddr> {
        let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
        let v6 = any::<[u8; 16]>().prop_map(|bytes| IpAddr::from(bytes).to_canonical());
        (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..30), family in 3_u8..8) {
            let mut bytes = bytes;
            if bytes.len() > 1 { bytes[0] = family; bytes[1] = 0; }
            if let Ok(address) = read_socket(&mut Reader::new(&bytes)) {
                prop_assert_eq!(&socket_bytes(address)[..], &bytes[..SOCKET_ADDRESS_LEN]);
            }
        }

        #[test]
        fn round_trip(address in any_socket()) {
            prop_assert_eq!(read_socket(&mut Reader::new(&socket_bytes(address))), Ok(address));
        }
    }
}
