//! What the two ends of a handshake tell each other under its seal: type-length-value params (protocol 3.6).
//!
//! ```text
//!   params = n × { type u16 | length u16 | value }        at most 1 KiB together
//!   1 name, UTF-8 · 2 address, 4 or 16 bytes, repeated · 3 mtu u16 · 4 layer 2, empty · 5 net_r 32 · 6 supports direct, empty
//!   7 withhold my address, empty · 8 version, ASCII · 9 udp port u16 · 10 pass of the relay 32 · 11 data lanes u8
//! ```
//! Unknown types are skipped, so that later versions can say more.
use super::{DATA_LANES, Malformed, Reader};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most bytes that all params may take together.
pub const PARAMS_LEN_MAX: usize = 1024;
/// Most bytes of a name.
pub const NAME_LEN_MAX: usize = 63;
/// Most bytes of a version.
pub const VERSION_LEN_MAX: usize = 32;
/// Most addresses that a peer may announce.
pub const ADDRESSES_MAX: usize = 16;

const NAME: u16 = 1;
const ADDRESS: u16 = 2;
const MTU: u16 = 3;
const LAYER2: u16 = 4;
const NET_R: u16 = 5;
const SUPPORTS_DIRECT: u16 = 6;
const WITHHOLD_ADDRESS: u16 = 7;
const VERSION: u16 = 8;
const UDP_PORT: u16 = 9;
const PASS: u16 = 10;
const LANES: u16 = 11;

/// What one end says about itself. All of it is a claim until something else bears it out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// What it is called: up to 63 of `A-Z a-z 0-9 . _ -`.
    pub name: Option<String>,
    /// Single overlay hosts that it announces, at most 16.
    pub addresses: Vec<IpAddr>,
    /// Its interface's MTU in bytes.
    pub mtu: Option<u16>,
    /// Whether it carries Ethernet frames (TAP).
    pub layer2: bool,
    /// The network as this relay knows it; only in FIN to a relay.
    pub net_r: Option<[u8; 32]>,
    /// Whether it takes direct connections; only in FIN to a relay.
    pub supports_direct: bool,
    /// Whether the relay shall keep its address from other members; only in FIN to a relay.
    pub withhold_address: bool,
    /// Its software, up to 32 printable ASCII characters.
    pub version: Option<String>,
    /// The UDP port on which it takes direct traffic.
    pub udp_port: Option<u16>,
    /// What the relay lets in by (protocol 2.7); only in FIN to a relay.
    pub pass: Option<[u8; 32]>,
    /// The data lanes that it has, 1 to 127; `None` says 1 (protocol 4.3). Only to peers.
    pub lanes: Option<u8>,
}

impl Params {
    /// Reads all params in `bytes`. A known type twice (save addresses) is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > PARAMS_LEN_MAX {
            return Err(Malformed("params: more than 1 KiB"));
        }
        let mut params = Self::default();
        let mut seen = 0_u16;
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let kind = reader.u16("params: cut in a header")?;
            let len = reader.u16("params: cut in a header")?;
            let value = reader.bytes(usize::from(len), "params: cut in a value")?;
            if (NAME..=LANES).contains(&kind) {
                if kind != ADDRESS && seen & (1 << kind) != 0 {
                    return Err(Malformed("params: a type twice"));
                }
                seen |= 1 << kind;
                params.take(kind, value)?;
            }
        }
        Ok(params)
    }

    /// Appends the params. What breaks a limit of its type is left out: it could not be parsed.
    pub fn emit(&self, out: &mut Vec<u8>) {
        if let Some(name) = self.name.as_deref().filter(|name| is_name(name)) {
            put(out, NAME, name.as_bytes());
        }
        for address in self.addresses.iter().take(ADDRESSES_MAX) {
            match address.to_canonical() {
                IpAddr::V4(ip) => put(out, ADDRESS, &ip.octets()),
                IpAddr::V6(ip) => put(out, ADDRESS, &ip.octets()),
            }
        }
        if let Some(mtu) = self.mtu {
            put(out, MTU, &mtu.to_be_bytes());
        }
        if let Some(net_r) = &self.net_r {
            put(out, NET_R, net_r);
        }
        for (kind, set) in [(LAYER2, self.layer2), (SUPPORTS_DIRECT, self.supports_direct), (WITHHOLD_ADDRESS, self.withhold_address)] {
            if set {
                put(out, kind, &[]);
            }
        }
        if let Some(version) = self.version.as_deref().filter(|version| is_version(version)) {
            put(out, VERSION, version.as_bytes());
        }
        if let Some(port) = self.udp_port {
            put(out, UDP_PORT, &port.to_be_bytes());
        }
        if let Some(pass) = &self.pass {
            put(out, PASS, pass);
        }
        if let Some(lanes) = self.lanes.filter(|lanes| is_lanes(*lanes)) {
            put(out, LANES, &[lanes]);
        }
    }

    fn take(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        match kind {
            NAME => self.name = Some(text(value, is_name).ok_or(Malformed("params: name"))?),
            ADDRESS if self.addresses.len() == ADDRESSES_MAX => {
                return Err(Malformed("params: more than 16 addresses"));
            }
            ADDRESS => self.addresses.push(address(value).ok_or(Malformed("params: address"))?),
            MTU => self.mtu = Some(u16::from_be_bytes(fixed(value, "params: mtu")?)),
            LAYER2 => self.layer2 = fixed(value, "params: layer 2").map(|[]| true)?,
            NET_R => self.net_r = Some(fixed(value, "params: net_r")?),
            SUPPORTS_DIRECT => self.supports_direct = fixed(value, "params: supports direct").map(|[]| true)?,
            WITHHOLD_ADDRESS => self.withhold_address = fixed(value, "params: withhold address").map(|[]| true)?,
            VERSION => self.version = Some(text(value, is_version).ok_or(Malformed("params: version"))?),
            PASS => self.pass = Some(fixed(value, "params: pass")?),
            LANES => {
                let [lanes] = fixed(value, "params: lanes")?;
                if !is_lanes(lanes) {
                    return Err(Malformed("params: lanes"));
                }
                self.lanes = Some(lanes);
            }
            UDP_PORT => self.udp_port = Some(u16::from_be_bytes(fixed(value, "params: udp port")?)),
            _ => {}
        }
        Ok(())
    }
}

/// Whether `name` may be the name of a peer.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_version(version: &str) -> bool {
    (1..=VERSION_LEN_MAX).contains(&version.len()) && version.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

fn is_lanes(lanes: u8) -> bool {
    (1..=DATA_LANES).contains(&lanes)
}

fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

fn text(value: &[u8], good: fn(&str) -> bool) -> Option<String> {
    let text = core::str::from_utf8(value).ok()?;
    good(text).then(|| text.to_owned())
}

fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    // protocol 1.5: one address has one spelling
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?);
    ip.to_ipv4_mapped().is_none().then_some(IpAddr::V6(ip))
}

fn fixed<const N: usize>(value: &[u8], what: &'static str) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // protocol 3.6
    #[test]
    fn the_largest_params_fit_their_bound() {
        let params = Params {
            name: Some("n".repeat(NAME_LEN_MAX)),
            addresses: vec![IpAddr::from([1; 16]); 40],
            mtu: Some(1280),
            layer2: true,
            net_r: Some([7; 32]),
            supports_direct: true,
            withhold_address: true,
            version: Some("v".repeat(VERSION_LEN_MAX)),
            udp_port: Some(1),
            pass: Some([7; 32]),
            lanes: Some(DATA_LANES),
        };
        let bytes = emitted(&params);
        assert!(bytes.len() <= PARAMS_LEN_MAX, "{} bytes", bytes.len());
        assert_eq!(Params::parse(&bytes).expect("well formed").addresses.len(), ADDRESSES_MAX);
    }

    // protocol 1.5
    #[test]
    fn an_announced_ipv4_address_is_not_taken_in_the_spelling_of_ipv6() {
        let mapped: IpAddr = "::ffff:10.1.2.3".parse().expect("a good address");
        let IpAddr::V6(raw) = mapped else { panic!("parsed as IPv6") };
        let bytes = [&[0, 2, 0, 16][..], &raw.octets()].concat();
        assert_eq!(Params::parse(&bytes), Err(Malformed("params: address")));
        let params = Params { addresses: vec![mapped], ..Params::default() };
        assert_eq!(emitted(&params), [0, 2, 0, 4, 10, 1, 2, 3], "written as IPv4");
    }

    // protocol 3.6
    #[test]
    fn unknown_types_are_skipped() {
        let bytes = [0, 99, 0, 3, 1, 2, 3, 0, 3, 0, 2, 5, 0, 0, 0, 0, 0];
        assert_eq!(Params::parse(&bytes), Ok(Params { mtu: Some(1280), ..Params::default() }));
    }

    // protocol 3.6
    #[test]
    fn each_wrong_param_is_named() {
        for (bytes, want) in [
            (&[0][..], "params: cut in a header"),
            (&[0, 1, 0], "params: cut in a header"),
            (&[0, 1, 0, 2, b'a'], "params: cut in a value"),
            (&[0, 1, 0, 0], "params: name"),
            (&[0, 1, 0, 1, b'\n'], "params: name"),
            (&[0, 1, 0, 1, 0xff], "params: name"),
            (&[0, 2, 0, 1, 1], "params: address"),
            (&[0, 3, 0, 1, 1], "params: mtu"),
            (&[0, 3, 0, 2, 5, 0, 0, 3, 0, 2, 5, 0], "params: a type twice"),
            (&[0, 4, 0, 1, 1], "params: layer 2"),
            (&[0, 5, 0, 1, 1], "params: net_r"),
            (&[0, 6, 0, 1, 1], "params: supports direct"),
            (&[0, 7, 0, 1, 1], "params: withhold address"),
            (&[0, 8, 0, 1, 7], "params: version"),
            (&[0, 9, 0, 1, 1], "params: udp port"),
            (&[0, 10, 0, 1, 1], "params: pass"),
            (&[0, 11, 0, 0], "params: lanes"),
            (&[0, 11, 0, 1, 0], "params: lanes"),
            (&[0, 11, 0, 1, 128], "params: lanes"),
            (&[0, 11, 0, 1, 2, 0, 11, 0, 1, 2], "params: a type twice"),
            (&[0; PARAMS_LEN_MAX + 1], "params: more than 1 KiB"),
        ] {
            assert_eq!(Params::parse(bytes), Err(Malformed(want)));
        }
        assert_eq!(Params::parse(&[0, 2, 0, 4, 1, 2, 3, 4].repeat(17)), Err(Malformed("params: more than 16 addresses")));
    }

    #[test]
    fn what_could_not_be_parsed_is_not_sent() {
        let params = Params { name: Some("no spaces, please".into()), version: Some("v".repeat(33)), lanes: Some(0), ..Params::default() };
        assert!(emitted(&params).is_empty());
    }

    proptest! {
        #[test]
        fn what_was_emitted_is_parsed(
            name in proptest::option::of("[A-Za-z0-9._-]{1,63}"),
            addresses in proptest::collection::vec(any::<IpAddr>().prop_map(|ip| ip.to_canonical()), 0..=ADDRESSES_MAX),
            mtu: Option<u16>, net_r: Option<[u8; 32]>, pass: Option<[u8; 32]>, udp_port: Option<u16>, flags: [bool; 3],
            version in proptest::option::of("[ -~]{1,32}"), lanes in proptest::option::of(1..=DATA_LANES),
        ) {
            let [layer2, supports_direct, withhold_address] = flags;
            let params = Params { name, addresses, mtu, layer2, net_r, supports_direct, withhold_address, version, udp_port, pass, lanes };
            prop_assert_eq!(Params::parse(&emitted(&params)), Ok(params));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1100)) {
            if let Ok(params) = Params::parse(&bytes) {
                prop_assert_eq!(Params::parse(&emitted(&params)), Ok(params));
            }
        }
    }

    fn emitted(params: &Params) -> Vec<u8> {
        let mut out = Vec::new();
        params.emit(&mut out);
        out
    }
}
