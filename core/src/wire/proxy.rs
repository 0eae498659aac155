//! From whom a proxy in front of a relay says that a connection comes: the PROXY protocol, versions 1 and 2 (haproxy.org,
//! proxy-protocol.txt). It stands before TLS, and once (protocol 9.5).
//!
//! ```text
//!   1   "PROXY TCP4 192.0.2.7 198.51.100.1 41022 443\r\n"                       at most 107 bytes
//!   2   0d0a0d0a000d0a515549540a | 2,command | family,kind | length u16 | addresses and ports | TLVs, skipped
//! ```
use super::Reader;
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Most bytes of a header that is taken: the addresses, and TLVs for which nobody asked.
pub const PROXY_HEADER_MAX_LEN: usize = 2_048;
/// Most bytes of the text form, its end included.
const TEXT_MAX_LEN: usize = 107;
const TEXT_START: &[u8] = b"PROXY ";
const BINARY_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes in front of the addresses in the binary form.
const BINARY_FIXED_LEN: usize = 16;

/// What is wrong with what stands before TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFault {
    /// A proxy that is trusted begins with something else.
    Missing,
    /// It begins like a header and is none; the text names the field.
    Malformed(&'static str),
    /// It is longer than any that is taken.
    TooLong,
    /// There is one, and its sender is not trusted to say so.
    Untrusted,
}

impl fmt::Display for ProxyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("a trusted proxy sent no PROXY header"),
            Self::Malformed(field) => write!(f, "malformed PROXY header: {field}"),
            Self::TooLong => f.write_str("a PROXY header that is too long"),
            Self::Untrusted => f.write_str("a PROXY header from an address that is not in access.trusted_proxies"),
        }
    }
}

impl core::error::Error for ProxyFault {}

/// What a header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// How many bytes it has.
    pub len: usize,
    /// From where the connection comes; `None`: from the proxy itself, or the proxy does not know.
    pub from: Option<SocketAddr>,
}

/// Whether these first bytes of a connection are the beginning of a header; TLS never begins so.
pub fn is_proxy_header(bytes: &[u8]) -> bool {
    let begins = |start: &[u8]| bytes.len() >= TEXT_START.len() && bytes.iter().zip(start).all(|(byte, want)| byte == want);
    begins(TEXT_START) || begins(BINARY_START)
}

/// Reads the header with which a connection begins; `None` when more must come.
///
/// # Errors
/// What is wrong with it.
pub fn parse_proxy_header(bytes: &[u8]) -> Result<Option<Announced>, ProxyFault> {
    let agrees = |start: &[u8]| bytes.iter().zip(start).all(|(byte, want)| byte == want);
    if agrees(TEXT_START) {
        if bytes.len() < TEXT_START.len() { Ok(None) } else { text(bytes) }
    } else if agrees(BINARY_START) {
        if bytes.len() < BINARY_FIXED_LEN { Ok(None) } else { binary(bytes) }
    } else {
        Err(ProxyFault::Missing)
    }
}

fn text(bytes: &[u8]) -> Result<Option<Announced>, ProxyFault> {
    let most = bytes.get(..TEXT_MAX_LEN).unwrap_or(bytes);
    let Some(end) = most.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < TEXT_MAX_LEN { Ok(None) } else { Err(ProxyFault::TooLong) };
    };
    let line = most.get(TEXT_START.len()..end).and_then(|line| core::str::from_utf8(line).ok());
    let mut fields = line.ok_or(ProxyFault::Malformed("text"))?.split(' ');
    let len = end + 2;
    let family = fields.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Some(Announced { len, from: None }));
    }
    let mut address = |field| {
        let text = fields.next().unwrap_or_default();
        let ip = match family {
            "TCP4" => text.parse().ok().map(IpAddr::V4),
            "TCP6" => text.parse().ok().map(IpAddr::V6),
            _ => return Err(ProxyFault::Malformed("family")),
        };
        ip.ok_or(ProxyFault::Malformed(field))
    };
    let (from, _to) = (address("source address")?, address("destination address")?);
    let mut port = |field| {
        let text = fields.next().unwrap_or_default();
        // in its one spelling: no sign, no leading zero
        text.parse().ok().filter(|port: &u16| port.to_string() == text).ok_or(ProxyFault::Malformed(field))
    };
    let (port, _to) = (port("source port")?, port("destination port")?);
    if fields.next().is_some() {
        return Err(ProxyFault::Malformed("more than it may say"));
    }
    Ok(Some(Announced { len, from: Some(SocketAddr::new(from.to_canonical(), port)) }))
}

fn binary(bytes: &[u8]) -> Result<Option<Announced>, ProxyFault> {
    let short = |_| ProxyFault::Malformed("length");
    let mut reader = Reader::new(bytes);
    reader.bytes(BINARY_START.len(), "start").map_err(short)?;
    let (command, family) = (reader.u8("command").map_err(short)?, reader.u8("family").map_err(short)?);
    let length = usize::from(reader.u16("length").map_err(short)?);
    let len = BINARY_FIXED_LEN + length;
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ if command >> 4 != 2 => return Err(ProxyFault::Malformed("version")),
        _ => return Err(ProxyFault::Malformed("command")),
    };
    if len > PROXY_HEADER_MAX_LEN {
        return Err(ProxyFault::TooLong);
    }
    let Ok(body) = reader.bytes(length, "addresses") else { return Ok(None) };
    // LOCAL: what stands in it is not looked at; UNSPEC: the proxy does not know
    if is_local || family == 0 {
        return Ok(Some(Announced { len, from: None }));
    }
    let mut body = Reader::new(body);
    let (from, port) = match family {
        0x11 => {
            let from = Ipv4Addr::from(body.array::<4>("source").map_err(short)?);
            body.bytes(4, "destination").map_err(short)?;
            (IpAddr::V4(from), body.u16("source port").map_err(short)?)
        }
        0x21 => {
            let from = Ipv6Addr::from(body.array::<16>("source").map_err(short)?);
            body.bytes(16, "destination").map_err(short)?;
            (IpAddr::V6(from), body.u16("source port").map_err(short)?)
        }
        _ => return Err(ProxyFault::Malformed("family")),
    };
    body.u16("destination port").map_err(short)?;
    Ok(Some(Announced { len, from: Some(SocketAddr::new(from.to_canonical(), port)) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(bytes: &[u8]) -> Option<SocketAddr> {
        let announced = parse_proxy_header(bytes).expect("good").expect("whole");
        assert_eq!(announced.len, bytes.len());
        announced.from
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn both_forms_name_the_client() {
        assert_eq!(whole(b"PROXY TCP4 192.0.2.7 198.51.100.1 41022 443\r\n"), Some(at("192.0.2.7:41022")));
        assert_eq!(whole(b"PROXY TCP6 2001:db8::7 2001:db8::1 65535 0\r\n"), Some(at("[2001:db8::7]:65535")));
        assert_eq!(whole(b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n"), Some(at("192.0.2.7:1")), "in its one spelling");
        assert_eq!(whole(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(whole(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), None);
        assert_eq!(whole(&v2(0x21, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0xa0, 0x3e, 1, 187])), Some(at("192.0.2.7:41022")));
        let mut six = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7].to_vec();
        six.extend([9; 16]);
        six.extend([0, 80, 1, 187, 0x04, 0, 1, 0xff]);
        assert_eq!(whole(&v2(0x21, 0x21, &six)), Some(at("[2001:db8::7]:80")), "with a TLV behind");
        assert_eq!(whole(&v2(0x20, 0x11, &[1, 2, 3])), None, "a proxy that asks whether we live");
        assert_eq!(whole(&v2(0x21, 0x00, &[])), None);
    }

    #[test]
    fn what_is_no_header_is_named() {
        let of = |bytes: &[u8]| parse_proxy_header(bytes).map(|_| ());
        for (bytes, field) in [
            (&b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n"[..], "family"),
            (b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", "source address"),
            (b"PROXY TCP4 ::1 1.2.3.4 1 2\r\n", "source address"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", "source port"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "source port"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", "destination port"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "destination port"),
            (b"PROXY TCP4 1.2.3.4  1 2\r\n", "destination address"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "more than it may say"),
            (b"PROXY \r\n", "family"),
            (b"PROXY \xff\r\n", "text"),
            (&v2(0x11, 0x11, &[0; 12]), "version"),
            (&v2(0x22, 0x11, &[0; 12]), "command"),
            (&v2(0x21, 0x12, &[0; 12]), "family"),
            (&v2(0x21, 0x31, &[0; 216]), "family"),
            (&v2(0x21, 0x11, &[0; 11]), "length"),
            (&v2(0x21, 0x21, &[0; 35]), "length"),
        ] {
            assert_eq!(of(bytes), Err(ProxyFault::Malformed(field)), "{:?}", String::from_utf8_lossy(bytes));
        }
        for tls in [&[22, 3, 1, 2, 0][..], b"GET / HTTP/1.1\r\n", b"PROXYTCP4", b"\r\n\r\n\0\rX", b"p"] {
            assert_eq!(of(tls), Err(ProxyFault::Missing));
            assert!(!is_proxy_header(tls));
        }
        assert_eq!(of(&v2(0x21, 0x11, &[0; 2_033])), Err(ProxyFault::TooLong));
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 96]].concat();
        assert_eq!(parse_proxy_header(&endless[..106]), Ok(None));
        assert_eq!(of(&endless), Err(ProxyFault::TooLong));
    }

    #[test]
    fn a_binary_header_whose_addresses_do_not_fit_in_its_length_is_refused_at_each_length() {
        for (family, needs) in [(0x11, 12), (0x21, 36)] {
            for len in 0..needs {
                assert_eq!(parse_proxy_header(&v2(0x21, family, &vec![1; len])), Err(ProxyFault::Malformed("length")), "{len} bytes");
            }
            assert!(whole(&v2(0x21, family, &vec![1; needs])).is_some());
        }
    }

    #[test]
    fn each_fault_names_what_the_operator_looks_for() {
        for (fault, words) in [
            (ProxyFault::Missing, "a trusted proxy sent no PROXY header"),
            (ProxyFault::Malformed("family"), "malformed PROXY header: family"),
            (ProxyFault::TooLong, "a PROXY header that is too long"),
            (ProxyFault::Untrusted, "a PROXY header from an address that is not in access.trusted_proxies"),
        ] {
            assert_eq!(fault.to_string(), words);
        }
    }

    proptest! {
        /// However it is cut, it is the same; and what stands behind it is not looked at.
        #[test]
        fn a_header_that_comes_in_pieces_is_whole_when_its_last_byte_is_there(
            from: SocketAddr, to: SocketAddr, tlvs in proptest::collection::vec(any::<u8>(), 0..64), behind: Vec<u8>, text: bool,
        ) {
            let header = if text { v1(from, to) } else { announce(from, to, &tlvs) };
            for cut in 0..header.len() {
                prop_assert_eq!(parse_proxy_header(&header[..cut]), Ok(None), "at {}", cut);
            }
            let bytes = [&header[..], &behind].concat();
            let want = SocketAddr::new(from.ip().to_canonical(), from.port());
            prop_assert_eq!(parse_proxy_header(&bytes), Ok(Some(Announced { len: header.len(), from: Some(want) })));
            prop_assert!(is_proxy_header(&bytes));
        }

        #[test]
        fn any_bytes_are_taken_or_refused_and_more_bytes_never_change_a_verdict(
            start in prop_oneof![Just(&b""[..]), Just(TEXT_START), Just(&b"PROXY TCP4 1.2.3.4 "[..]), Just(BINARY_START)],
            rest in proptest::collection::vec(any::<u8>(), 0..200), more: Vec<u8>,
        ) {
            let bytes = [start, &rest].concat();
            let longer = [&bytes[..], &more].concat();
            match parse_proxy_header(&bytes) {
                Ok(None) => prop_assert!(bytes.len() < PROXY_HEADER_MAX_LEN),
                verdict => prop_assert_eq!(parse_proxy_header(&longer), verdict),
            }
            if let Ok(Some(announced)) = parse_proxy_header(&bytes) {
                prop_assert!(announced.len <= bytes.len() && is_proxy_header(&bytes));
            }
        }
    }

    fn v1(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let family = if from.is_ipv4() && to.is_ipv4() { "TCP4" } else { "TCP6" };
        let ip = |ip: IpAddr| match ip {
            IpAddr::V4(v4) if family == "TCP6" => v4.to_ipv6_mapped().to_string(),
            ip => ip.to_string(),
        };
        format!("PROXY {family} {} {} {} {}\r\n", ip(from.ip()), ip(to.ip()), from.port(), to.port()).into_bytes()
    }

    fn announce(from: SocketAddr, to: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
        let v6 = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut body = Vec::new();
        let family = if let (IpAddr::V4(from), IpAddr::V4(to)) = (from.ip(), to.ip()) {
            body.extend([from.octets(), to.octets()].concat());
            0x11
        } else {
            body.extend([v6(from.ip()), v6(to.ip())].concat());
            0x21
        };
        body.extend(from.port().to_be_bytes());
        body.extend(to.port().to_be_bytes());
        body.extend(tlvs);
        v2(0x21, family, &body)
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [BINARY_START, &[command, family], &length, body].concat()
    }
}
