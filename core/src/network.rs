//! A network: its secret, its relays, its join token, and all that is derived from the secret (protocol 2.1, 2.2).
//!
//! ```text
//!   token   = "smesh1:" base64url( version 1 | secret 32 | name | n u8 | n × relay | checksum 4 )
//!   name    = length u8 | UTF-8
//!   relay   = flags u8 (1: has an id, 2: wants an access key) | length u8 | URL | id 32 if flagged | access key 32 if flagged
//!   secret ──▶ network_id (peers) · net_r (one for each relay) · IPv6 prefix · the PSK itself
//!   network_id, PeerId ──▶ IPv6 address · IPv4 address · MAC address
//! ```
use crate::{
    crypto::hash::sha512_prefix,
    id::PeerId,
    text::{TextError, from_base64url, to_base64url},
};
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};
use zeroize::{Zeroize, Zeroizing};

/// What a join token begins with.
pub const TOKEN_PREFIX: &str = "smesh1:";
/// Most characters of a join token.
pub const TOKEN_LEN_MAX: usize = 4096;
/// Most relays of a network.
pub const RELAYS_MAX: usize = 8;
/// Most bytes of a relay's URL.
pub const URL_LEN_MAX: usize = 255;
/// Most bytes of a network's name.
pub const NETWORK_NAME_LEN_MAX: usize = 63;
/// Bits of the IPv6 prefix that all peers of a network share.
pub const PREFIX_LEN_V6: u8 = 64;
/// Bits of 100.64.0.0/10, in which the automatic IPv4 addresses are.
pub const PREFIX_LEN_V4: u8 = 10;

const TOKEN_VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;
const RELAY_HAS_ID: u8 = 1;
const RELAY_WANTS_ACCESS: u8 = 2;
const SCHEME: &str = "wss://";
const DEFAULT_PORT: u16 = 443;

/// A network, as its members know it. The secret is wiped when it is dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Network {
    /// Who knows it is a member.
    pub secret: [u8; 32],
    /// What people call the network; may be empty.
    pub name: String,
    /// Where its members meet: 1 to 8, in order of preference.
    pub relays: Vec<RelayAddress>,
}

/// Where a relay is, and who must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// `wss://host[:port]`.
    pub url: String,
    /// The relay's identity, where it is known.
    pub id: Option<PeerId>,
    /// What the relay lets in by, where it wants that; only of a relay whose identity is known.
    pub access: Option<AccessKey>,
}

/// An access token of a relay, hashed: what a join token carries of it (protocol 2.7). Wiped when it is dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey(pub [u8; 32]);

impl AccessKey {
    /// Of the text that the operator of the relay chose.
    pub fn of(token: &str) -> Self {
        Self(sha512_prefix(&[b"shadowmesh/1 relay token", token.as_bytes()]))
    }

    /// What this relay is shown: of no use at another.
    pub fn pass(&self, relay: PeerId) -> [u8; 32] {
        // protocol 2.7
        sha512_prefix(&[b"shadowmesh/1 relay access", &self.0, &relay.0])
    }
}

impl Drop for AccessKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl RelayAddress {
    /// Checks the URL.
    pub fn new(url: &str, id: Option<PeerId>) -> Result<Self, NetworkError> {
        host_port(url)?;
        Ok(Self { url: url.to_owned(), id, access: None })
    }

    /// The same for a relay that wants an access token.
    #[must_use]
    pub fn with_access(self, access: Option<AccessKey>) -> Self {
        Self { access, ..self }
    }

    /// Host (an IPv6 address without its brackets) and port of the URL.
    pub fn host_port(&self) -> Result<(&str, u16), NetworkError> {
        host_port(&self.url)
    }
}

/// Host (an IPv6 address without its brackets) and port of a `wss://host[:port]`; the port is 443 unless given.
pub fn host_port(url: &str) -> Result<(&str, u16), NetworkError> {
    let wrong = |why| Err(NetworkError::Url { url: url.chars().take(80).collect(), why });
    if url.len() > URL_LEN_MAX {
        return wrong("it is longer than 255 bytes");
    }
    let Some(rest) = url.strip_prefix(SCHEME) else {
        return wrong("it does not begin with wss://");
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return wrong("only wss://host or wss://host:port is understood");
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return wrong("the bracket of the IPv6 address is not closed");
        };
        if host.parse::<Ipv6Addr>().is_err() {
            return wrong("what stands in brackets is no IPv6 address");
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return wrong("only a port can follow the IPv6 address"),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if !authority.starts_with('[') && !is_host(host) {
        return wrong("the host is neither a name nor an address (IPv6 goes in brackets)");
    }
    match port.map(str::parse) {
        None => Ok((host, DEFAULT_PORT)),
        Some(Ok(port)) if port != 0 => Ok((host, port)),
        Some(_) => wrong("the port is no number from 1 to 65535"),
    }
}

/// A DNS name, or an IPv4 address where the last label is a number.
fn is_host(host: &str) -> bool {
    let label_fits =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let name = host.strip_suffix('.').unwrap_or(host);
    if !name.split('.').all(label_fits) {
        return false;
    }
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    !numeric || host.parse::<Ipv4Addr>().is_ok()
}

/// Why a token or a network is refused; the text says what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// It does not begin with `smesh1:`.
    Prefix,
    /// It has more than 4096 characters.
    Length(usize),
    /// It has a character that no token has, at this place counted from 1.
    Character(char, usize),
    /// It is cut off or has a typing error.
    Checksum,
    /// It was made by a newer program.
    Version(u8),
    /// Its content does not follow the layout at this field.
    Layout(&'static str),
    /// The network's name is too long or holds control characters.
    Name,
    /// There are none or more than 8.
    Relays(usize),
    /// A relay wants an access key, and nobody knows whether it is that relay.
    Access,
    /// A relay's URL is wrong.
    Url {
        /// The URL, cut to 80 characters.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => write!(f, "a join token begins with \"{TOKEN_PREFIX}\""),
            Self::Length(have) => write!(f, "a join token has at most {TOKEN_LEN_MAX} characters, this one has {have}"),
            Self::Character(character, place) => {
                write!(f, "character {place} of the join token is {character:?}; only A-Z, a-z, 0-9, - and _ can follow \"{TOKEN_PREFIX}\"")
            }
            Self::Checksum => {
                f.write_str("the join token is cut off or has a typing error: its checksum does not fit; copy it again as a whole")
            }
            Self::Version(version) => {
                write!(f, "the join token has layout {version}, this program knows layout {TOKEN_VERSION}: a newer program is needed")
            }
            Self::Layout(field) => write!(f, "the join token is malformed at: {field}"),
            Self::Name => write!(f, "the network's name has at most {NETWORK_NAME_LEN_MAX} bytes and no control characters"),
            Self::Relays(have) => write!(f, "a network has 1 to {RELAYS_MAX} relays, this one has {have}"),
            Self::Access => f.write_str("an access token is only for a relay whose id is known: give its --relay-id too"),
            Self::Url { url, why } => write!(f, "relay URL {url:?}: {why}; right would be wss://relay.example.org:443"),
        }
    }
}

impl core::error::Error for NetworkError {}

impl Network {
    /// A network within all limits.
    pub fn new(secret: [u8; 32], name: &str, relays: Vec<RelayAddress>) -> Result<Self, NetworkError> {
        let network = Self { secret, name: name.to_owned(), relays };
        network.check()?;
        Ok(network)
    }

    /// Whether name, relays and URLs are within their limits.
    pub fn check(&self) -> Result<(), NetworkError> {
        if self.name.len() > NETWORK_NAME_LEN_MAX || self.name.chars().any(char::is_control) {
            return Err(NetworkError::Name);
        }
        if !(1..=RELAYS_MAX).contains(&self.relays.len()) {
            return Err(NetworkError::Relays(self.relays.len()));
        }
        if self.relays.iter().any(|relay| relay.access.is_some() && relay.id.is_none()) {
            return Err(NetworkError::Access);
        }
        self.relays.iter().try_for_each(|relay| relay.host_port().map(|_| ()))
    }

    /// The join token: whoever reads it can join.
    pub fn token(&self) -> Result<String, NetworkError> {
        self.check()?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(TOKEN_LEN_MAX));
        bytes.push(TOKEN_VERSION);
        bytes.extend_from_slice(&self.secret);
        bytes.push(self.name.len() as u8);
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.push(self.relays.len() as u8);
        for relay in &self.relays {
            let flag = |flag, is_set| if is_set { flag } else { 0 };
            bytes.push(flag(RELAY_HAS_ID, relay.id.is_some()) | flag(RELAY_WANTS_ACCESS, relay.access.is_some()));
            bytes.push(relay.url.len() as u8);
            bytes.extend_from_slice(relay.url.as_bytes());
            if let Some(id) = relay.id {
                bytes.extend_from_slice(&id.0);
            }
            if let Some(access) = &relay.access {
                bytes.extend_from_slice(&access.0);
            }
        }
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        Ok(format!("{TOKEN_PREFIX}{}", to_base64url(&bytes)))
    }

    /// The network that a join token describes; white space around it is ignored.
    pub fn from_token(token: &str) -> Result<Self, NetworkError> {
        let token = token.trim();
        if token.len() > TOKEN_LEN_MAX {
            return Err(NetworkError::Length(token.chars().count()));
        }
        let digits = token.strip_prefix(TOKEN_PREFIX).ok_or(NetworkError::Prefix)?;
        let bytes = Zeroizing::new(from_base64url(digits).map_err(|error| match error {
            TextError::Character(character, index) => NetworkError::Character(character, TOKEN_PREFIX.len() + index + 1),
            TextError::Ending => NetworkError::Checksum,
        })?);
        let (body, sum) = bytes.split_last_chunk().ok_or(NetworkError::Checksum)?;
        if *sum != checksum(body) {
            return Err(NetworkError::Checksum);
        }
        let network = Reader(body).network()?;
        network.check()?;
        Ok(network)
    }

    /// Names the network among its peers.
    pub fn network_id(&self) -> [u8; 32] {
        sha512_prefix(&[b"shadowmesh/1 network-id", &self.secret])
    }

    /// Names the network at one relay; different at each, so that no relay can join elsewhere.
    pub fn net_r(&self, relay: PeerId) -> [u8; 32] {
        // protocol 2.2
        sha512_prefix(&[b"shadowmesh/1 at-relay", &self.secret, &relay.0])
    }

    /// The secret, as it is mixed into handshakes between peers.
    pub fn psk(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The IPv6 /64 of the network: fd, 40 bits of a hash, subnet 0 (RFC 4193).
    pub fn prefix(&self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&sha512_prefix::<5>(&[b"shadowmesh/1 prefix", &self.secret]));
        Ipv6Addr::from(octets)
    }

    /// The IPv6 address of a peer, which nobody else can announce.
    pub fn address_v6(&self, peer: PeerId) -> Ipv6Addr {
        let mut octets = self.prefix().octets();
        octets[8..].copy_from_slice(&self.of_peer::<8>(b"shadowmesh/1 address-v6", peer));
        Ipv6Addr::from(octets)
    }

    /// The automatic IPv4 address of a peer, in 100.64.0.0/10; two peers may draw the same.
    pub fn address_v4(&self, peer: PeerId) -> Ipv4Addr {
        const HOSTS: u64 = (1 << 22) - 2;
        let drawn = u64::from_be_bytes(self.of_peer(b"shadowmesh/1 address-v4", peer));
        // The first and the last address of the block are nobody's.
        let host = 1 + (drawn % HOSTS) as u32;
        Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) | host)
    }

    /// The two automatic addresses of a peer, with the lengths of their prefixes.
    pub fn addresses(&self, peer: PeerId) -> [(IpAddr, u8); 2] {
        [(self.address_v6(peer).into(), PREFIX_LEN_V6), (self.address_v4(peer).into(), PREFIX_LEN_V4)]
    }

    /// The MAC address of a peer's TAP interface: unicast, locally administered.
    pub fn mac_address(&self, peer: PeerId) -> [u8; 6] {
        let mut mac = self.of_peer::<6>(b"shadowmesh/1 mac", peer);
        mac[0] = (mac[0] | 0x02) & 0xfe;
        mac
    }

    fn of_peer<const N: usize>(&self, label: &[u8], peer: PeerId) -> [u8; N] {
        sha512_prefix(&[label, &self.network_id(), &peer.0])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("name", &self.name).field("relays", &self.relays).finish_non_exhaustive()
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(token: &str) -> Result<Self, NetworkError> {
        Self::from_token(token)
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    sha512_prefix(&[b"shadowmesh/1 token", body])
}

/// What is left of a token's bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn network(mut self) -> Result<Network, NetworkError> {
        let version = self.byte("version")?;
        if version != TOKEN_VERSION {
            return Err(NetworkError::Version(version));
        }
        let mut network = Network { secret: *self.take("secret")?, name: String::new(), relays: Vec::new() };
        self.text("name")?.clone_into(&mut network.name);
        let count = usize::from(self.byte("number of relays")?);
        if !(1..=RELAYS_MAX).contains(&count) {
            return Err(NetworkError::Relays(count));
        }
        for _ in 0..count {
            let flags = self.byte("relay flags")?;
            if flags & !(RELAY_HAS_ID | RELAY_WANTS_ACCESS) != 0 {
                return Err(NetworkError::Layout("relay flags"));
            }
            let url = self.text("relay URL")?.to_owned();
            let id = if flags & RELAY_HAS_ID != 0 { Some(PeerId(*self.take("relay id")?)) } else { None };
            let access = if flags & RELAY_WANTS_ACCESS != 0 { Some(AccessKey(*self.take("relay access key")?)) } else { None };
            network.relays.push(RelayAddress { url, id, access });
        }
        if self.0.is_empty() { Ok(network) } else { Err(NetworkError::Layout("end")) }
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, NetworkError> {
        self.take(what).map(|[byte]| *byte)
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, NetworkError> {
        let len = usize::from(self.byte(what)?);
        let (text, rest) = self.0.split_at_checked(len).ok_or(NetworkError::Layout(what))?;
        self.0 = rest;
        core::str::from_utf8(text).map_err(|_| NetworkError::Layout(what))
    }

    fn take<const N: usize>(&mut self, what: &'static str) -> Result<&'a [u8; N], NetworkError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(NetworkError::Layout(what))?;
        self.0 = rest;
        Ok(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // protocol 2.1
    #[test]
    fn each_wrong_token_is_named() {
        let token = sample().token().expect("a good network");
        assert!(token.starts_with(TOKEN_PREFIX) && token.len() < 200, "{} characters", token.len());
        assert_eq!(format!(" {token}\n").parse(), Ok(sample()));
        assert_eq!("".parse::<Network>(), Err(NetworkError::Prefix));
        assert_eq!(token[7..].parse::<Network>(), Err(NetworkError::Prefix));
        assert_eq!(TOKEN_PREFIX.parse::<Network>(), Err(NetworkError::Checksum));
        assert_eq!(format!("{TOKEN_PREFIX}a b").parse::<Network>(), Err(NetworkError::Character(' ', 9)));
        assert_eq!(format!("{token}{}", "A".repeat(4096)).parse::<Network>(), Err(NetworkError::Length(token.len() + 4096)));
        for cut in TOKEN_PREFIX.len()..token.len() {
            assert_eq!(token[..cut].parse::<Network>(), Err(NetworkError::Checksum), "cut at {cut}");
        }
    }

    // protocol 2.1
    #[test]
    fn a_checksum_does_not_excuse_a_wrong_content() {
        let secret = [7; 32];
        for (body, want) in [
            (vec![], NetworkError::Layout("version")),
            (vec![2], NetworkError::Version(2)),
            (vec![1, 0, 0], NetworkError::Layout("secret")),
            ([&[1][..], &secret].concat(), NetworkError::Layout("name")),
            ([&[1][..], &secret, &[2, b'a']].concat(), NetworkError::Layout("name")),
            ([&[1][..], &secret, &[1, 0xff]].concat(), NetworkError::Layout("name")),
            ([&[1][..], &secret, &[1, b'\n', 1, 0, 7], b"wss://a"].concat(), NetworkError::Name),
            ([&[1][..], &secret, &[0]].concat(), NetworkError::Layout("number of relays")),
            ([&[1][..], &secret, &[0, 0]].concat(), NetworkError::Relays(0)),
            ([&[1][..], &secret, &[0, 9]].concat(), NetworkError::Relays(9)),
            ([&[1][..], &secret, &[0, 1]].concat(), NetworkError::Layout("relay flags")),
            ([&[1][..], &secret, &[0, 1, 4]].concat(), NetworkError::Layout("relay flags")),
            ([&[1][..], &secret, &[0, 1, 2, 7], b"wss://a", &secret[1..]].concat(), NetworkError::Layout("relay access key")),
            ([&[1][..], &secret, &[0, 1, 2, 7], b"wss://a", &secret].concat(), NetworkError::Access),
            ([&[1][..], &secret, &[0, 1, 0, 3, b'w']].concat(), NetworkError::Layout("relay URL")),
            ([&[1][..], &secret, &[0, 1, 1, 7], b"wss://a"].concat(), NetworkError::Layout("relay id")),
            ([&[1][..], &secret, &[0, 1, 0, 7], b"wss://a", b"!"].concat(), NetworkError::Layout("end")),
        ] {
            let whole = [&body[..], &checksum(&body)].concat();
            assert_eq!(format!("{TOKEN_PREFIX}{}", to_base64url(&whole)).parse::<Network>(), Err(want));
        }
    }

    #[test]
    fn each_mistake_in_a_token_says_what_it_is_and_what_is_right() {
        for (error, words) in [
            (NetworkError::Prefix, "a join token begins with \"smesh1:\""),
            (NetworkError::Length(9_000), "this one has 9000"),
            (NetworkError::Character('=', 12), "character 12 of the join token is '='"),
            (NetworkError::Checksum, "copy it again as a whole"),
            (NetworkError::Version(9), "a newer program is needed"),
            (NetworkError::Layout("relay id"), "malformed at: relay id"),
            (NetworkError::Name, "63 bytes and no control characters"),
            (NetworkError::Relays(9), "1 to 8 relays, this one has 9"),
            (NetworkError::Access, "--relay-id"),
        ] {
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn neither_secret_nor_access_key_is_printed() {
        let access = AccessKey([0xab; 32]);
        assert_eq!(format!("{access:?}"), "(hidden)");
        let relay = RelayAddress::new("wss://a", None).expect("a good URL").with_access(Some(access));
        let network = Network { secret: [0xcd; 32], name: "n".into(), relays: vec![relay] };
        let relays = r#"[RelayAddress { url: "wss://a", id: None, access: Some((hidden)) }]"#;
        assert_eq!(format!("{network:?}"), format!(r#"Network {{ name: "n", relays: {relays}, .. }}"#));
    }

    #[test]
    fn urls() {
        for (url, host, port) in [
            ("wss://relay.example.org", "relay.example.org", 443),
            ("wss://relay.example.org/", "relay.example.org", 443),
            ("wss://192.0.2.1:8443", "192.0.2.1", 8443),
            ("wss://[2001:db8::1]:1", "2001:db8::1", 1),
            ("wss://[::1]", "::1", 443),
            ("wss://localhost:65535", "localhost", 65535),
        ] {
            assert_eq!(host_port(url), Ok((host, port)), "{url}");
        }
        for url in [
            "",
            "ws://a",
            "https://a",
            "wss://",
            "wss://:443",
            "wss://a:",
            "wss://a:0",
            "wss://a:65536",
            "wss://a:-1",
            "wss://a:b",
            "wss://a/b",
            "wss://u@a",
            "wss://a?x",
            "wss://::1",
            "wss://[::1",
            "wss://[a]",
            "wss://[::1]x",
            "wss://a b",
            "wss://a..b",
            "wss://1.2.3",
            "wss://1.2.3.400",
            "wss://é",
        ] {
            let error = host_port(url).expect_err(url);
            assert!(error.to_string().contains("wss://"), "{error}");
        }
        assert!(host_port(&format!("wss://{}", "a.".repeat(125))).is_err());
    }

    // protocol 2.1
    #[test]
    fn limits_hold_when_a_token_is_made() {
        let relay = RelayAddress::new("wss://a", None).expect("a good URL");
        assert_eq!(Network::new([0; 32], "n", vec![]), Err(NetworkError::Relays(0)));
        assert_eq!(Network::new([0; 32], "n", vec![relay.clone(); 9]), Err(NetworkError::Relays(9)));
        assert_eq!(Network::new([0; 32], &"n".repeat(64), vec![relay]), Err(NetworkError::Name));
        let mut emptied = sample();
        emptied.relays.clear();
        assert_eq!(emptied.token(), Err(NetworkError::Relays(0)), "whatever was done to it since");
        assert!(RelayAddress::new("http://a", None).is_err());
        let url = format!("wss://{}.example", ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(57)].join("."));
        assert!(url.len() > 250);
        let largest = Network::new(
            [0; 32],
            &"n".repeat(63),
            vec![RelayAddress::new(&url, Some(PeerId([1; 32]))).expect("fits").with_access(Some(AccessKey::of("token"))); 8],
        );
        let token = largest.as_ref().expect("within limits").token().expect("within limits");
        assert!(token.len() <= TOKEN_LEN_MAX, "{} characters", token.len());
        assert_eq!(token.parse(), largest);
    }

    #[test]
    fn what_is_derived_has_its_shape() {
        let network = sample();
        let prefix = network.prefix().octets();
        assert_eq!((prefix[0], &prefix[6..]), (0xfd, &[0; 10][..]));
        for seed in 0..200 {
            let peer = PeerId([seed; 32]);
            assert_eq!(network.address_v6(peer).octets()[..8], prefix[..8]);
            let v4 = u32::from(network.address_v4(peer));
            assert!(v4 > 0x6440_0000 && v4 < 0x647f_ffff);
            assert_eq!(network.mac_address(peer)[0] & 3, 2);
        }
    }

    // protocol 2.2
    #[test]
    fn what_is_derived_is_what_the_formulas_of_the_protocol_give() {
        use crate::crypto::hash::sha512;
        let (network, peer) = (sample(), PeerId([9; 32]));
        let secret = *network.psk();
        let network_id: [u8; 32] = sha512(&[b"shadowmesh/1 network-id", &secret])[..32].try_into().expect("32 of 64 bytes");
        assert_eq!(network.network_id(), network_id);
        assert_eq!(network.net_r(peer)[..], sha512(&[b"shadowmesh/1 at-relay", &secret, &peer.0])[..32]);
        let prefix = sha512(&[b"shadowmesh/1 prefix", &secret]);
        assert_eq!(network.prefix().octets()[..8], [&[0xfd], &prefix[..5], &[0, 0]].concat());
        let of_peer = |label: &[u8]| sha512(&[label, &network_id, &peer.0]);
        assert_eq!(network.address_v6(peer).octets()[8..], of_peer(b"shadowmesh/1 address-v6")[..8]);
        let drawn = u64::from_be_bytes(of_peer(b"shadowmesh/1 address-v4")[..8].try_into().expect("8 of 64 bytes"));
        assert_eq!(u64::from(u32::from(network.address_v4(peer))), 0x6440_0000 + 1 + drawn % 0x3f_fffe);
        let mac = of_peer(b"shadowmesh/1 mac");
        assert_eq!(network.mac_address(peer)[1..], mac[1..6]);
        assert_eq!(network.mac_address(peer)[0], (mac[0] & 0b1111_1100) | 0b10);
    }

    #[test]
    fn each_derived_value_has_a_label_of_its_own() {
        let (network, a, b) = (sample(), PeerId([1; 32]), PeerId([2; 32]));
        let mut other = sample();
        other.secret = [8; 32];
        assert_ne!(network.network_id(), other.network_id());
        assert_ne!(network.network_id(), *network.psk());
        assert_ne!(network.net_r(a), network.net_r(b));
        assert_ne!(network.net_r(a), other.net_r(a));
        assert_ne!(network.address_v6(a), network.address_v6(b));
        assert_ne!(network.address_v6(a), other.address_v6(a));
        assert_ne!(network.address_v4(a), network.address_v4(b));
        assert_ne!(network.mac_address(a), network.mac_address(b));
        assert_ne!(network.mac_address(a), other.mac_address(a));
        assert!(!format!("{network:?}").contains("secret"));
    }

    proptest! {
        // protocol 2.1
        #[test]
        fn networks_survive_their_token(
            secret: [u8; 32], name in "\\PC{0,15}",
            relays in proptest::collection::vec(("[a-z]{1,20}", any::<u16>(), any::<Option<[u8; 32]>>(), any::<Option<[u8; 32]>>()), 1..=8)
        ) {
            let relays = relays.into_iter().map(|(host, port, id, access)| RelayAddress {
                url: format!("wss://{host}:{}", port.max(1)),
                id: id.map(PeerId),
                access: id.and(access).map(AccessKey),
            });
            let network = Network { secret, name, relays: relays.collect() };
            prop_assert_eq!(network.token().and_then(|token| token.parse()), Ok(network));
        }

        #[test]
        fn one_wrong_character_is_noticed(at in 7_usize..150, to in "[A-Za-z0-9_-]") {
            let mut token = sample().token().expect("a good network");
            prop_assume!(at < token.len() && token[at..=at] != to);
            token.replace_range(at..=at, &to);
            prop_assert_eq!(token.parse::<Network>(), Err(NetworkError::Checksum));
        }

        #[test]
        fn any_text_is_judged_without_panic(text: String, digits in "[A-Za-z0-9_-]{0,200}", body: Vec<u8>) {
            let _ = (text.parse::<Network>(), format!("{TOKEN_PREFIX}{digits}").parse::<Network>());
            let _ = (host_port(&text), host_port(&format!("wss://{text}")));
            let _ = Reader(&body).network();
        }
    }

    fn sample() -> Network {
        let relay = |url, id| RelayAddress { url: String::from(url), id, access: None };
        let relays = vec![relay("wss://192.0.2.1:443", Some(PeerId([3; 32]))), relay("wss://relay.example.org", None)];
        Network { secret: [7; 32], name: "home".into(), relays }
    }
}
