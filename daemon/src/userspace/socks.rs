//! The words of SOCKS5 (RFC 1928), without a socket: what a client asks, what it is answered, and the head of its datagrams.
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// The version, first byte of greeting and request.
pub(crate) const VERSION: u8 = 5;
/// No authentication: the proxy is on the loopback interface alone.
pub(crate) const METHOD_NONE: u8 = 0;
/// None of the client's methods will do.
pub(crate) const METHOD_REFUSED: u8 = 0xff;

/// What a client wants (RFC 1928 clause 4); BIND is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// A connection.
    Connect,
    /// An association for datagrams.
    Associate,
}

/// What it is told (RFC 1928 clause 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Done = 0,
    Failure = 1,
    HostUnreachable = 4,
    Refused = 5,
    TimedOut = 6,
    NoSuchCommand = 7,
    NoSuchAddressType = 8,
}

/// Where it wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An address of the mesh.
    Address(SocketAddr),
    /// A name, to be found by us.
    Name(String, u16),
}

/// Why no target could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Bytes are missing.
    Short,
    /// Neither IPv4, IPv6 nor a name in UTF-8.
    Unknown,
}

/// Reads the target at the beginning of `bytes`; it and its length.
pub(crate) fn target(bytes: &[u8]) -> Result<(Target, usize), Unread> {
    let (kind, rest) = bytes.split_first().ok_or(Unread::Short)?;
    let (host, port): (Host<'_>, _) = match kind {
        1 => {
            let (address, rest) = rest.split_first_chunk::<4>().ok_or(Unread::Short)?;
            (Host::Address(Ipv4Addr::from(*address).into()), rest)
        }
        3 => {
            let (length, rest) = rest.split_first().ok_or(Unread::Short)?;
            let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or(Unread::Short)?;
            (Host::Name(std::str::from_utf8(name).map_err(|_| Unread::Unknown)?), rest)
        }
        4 => {
            let (address, rest) = rest.split_first_chunk::<16>().ok_or(Unread::Short)?;
            (Host::Address(Ipv6Addr::from(*address).into()), rest)
        }
        _ => return Err(Unread::Unknown),
    };
    let (port, rest) = port.split_first_chunk::<2>().ok_or(Unread::Short)?;
    let port = u16::from_be_bytes(*port);
    let target = match host {
        Host::Address(address) => Target::Address(SocketAddr::new(address, port)),
        // Programs that know only names give addresses as such.
        Host::Name(name) => named(name, port),
    };
    Ok((target, bytes.len() - rest.len()))
}

enum Host<'a> {
    Address(IpAddr),
    Name(&'a str),
}

/// A target out of words: an address is one even where a name could stand, in brackets or without.
pub(crate) fn named(host: &str, port: u16) -> Target {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse() {
        Ok(address) => Target::Address(SocketAddr::new(address, port)),
        Err(_) => Target::Name(host.to_owned(), port),
    }
}

/// `HOST:PORT` as people and HTTP's CONNECT write it.
pub(crate) fn host_port(text: &str) -> Option<Target> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| named(host, port))
}

/// The whole reply, with the address that we use for the client.
pub(crate) fn reply(reply: Reply, bound: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![VERSION, reply as u8, 0];
    address(&mut bytes, bound);
    bytes
}

/// What stands before the bytes of a datagram (RFC 1928 clause 7).
pub(crate) fn datagram_head(from: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![0; 3];
    address(&mut bytes, from);
    bytes
}

/// The target of a client's datagram and where its bytes begin. Nothing for a fragment: those may be dropped.
pub(crate) fn datagram(bytes: &[u8]) -> Option<(Target, &[u8])> {
    let ([0, 0, 0], rest) = bytes.split_first_chunk::<3>()? else { return None };
    let (target, length) = target(rest).ok()?;
    Some((target, &rest[length..]))
}

fn address(bytes: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(1);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(4);
            bytes.extend(ip.octets());
        }
    }
    bytes.extend(address.port().to_be_bytes());
}

impl Reply {
    /// What a failed connection is called.
    pub(crate) fn of(why: &io::Error) -> Self {
        match why.kind() {
            io::ErrorKind::NotFound => Self::HostUnreachable,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Target {
        Target::Address(text.parse().expect("an address"))
    }

    #[test]
    fn targets_are_read_as_the_rfc_writes_them() {
        assert_eq!(target(&[1, 10, 77, 0, 2, 0, 80, 9]), Ok((at("10.77.0.2:80"), 7)));
        let v6 = [&[4][..], &[0xfd; 16], &[1, 187]].concat();
        assert_eq!(target(&v6), Ok((at("[fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:443"), 19)));
        assert_eq!(target(b"\x03\x01b\x1f\x90"), Ok((Target::Name("b".to_owned(), 8080), 5)));
        assert_eq!(target(b"\x03\x0910.77.0.2\x00\x50"), Ok((at("10.77.0.2:80"), 13)));
        for length in 0..v6.len() {
            assert_eq!(target(&v6[..length]), Err(Unread::Short), "{length} bytes");
        }
        for wrong in [&[2, 0, 0][..], &[3, 1, 0xff, 0, 1]] {
            assert_eq!(target(wrong), Err(Unread::Unknown), "{wrong:?}");
        }
    }

    #[test]
    fn words_name_a_host_and_a_port() {
        assert_eq!(host_port("server:80"), Some(Target::Name("server".to_owned(), 80)));
        assert_eq!(host_port("10.77.0.2:80"), Some(at("10.77.0.2:80")));
        assert_eq!(host_port("[fd00::2]:80"), Some(at("[fd00::2]:80")));
        for wrong in ["server", "server:", ":80", "server:0", "server:99999", ""] {
            assert_eq!(host_port(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn datagrams_carry_their_target_and_fragments_are_dropped() {
        let from = SocketAddr::from(([10, 77, 0, 2], 53));
        let sent = [datagram_head(from), b"hello".to_vec()].concat();
        assert_eq!(datagram(&sent), Some((Target::Address(from), &b"hello"[..])));
        let mut fragment = sent.clone();
        fragment[2] = 1;
        assert_eq!((datagram(&fragment), datagram(&sent[..6])), (None, None));
        assert_eq!(reply(Reply::Done, from), [5, 0, 0, 1, 10, 77, 0, 2, 0, 53]);
    }
}
