//! Names of things: identities of peers and relays, and the labels that drivers and machines share.
use crate::{
    crypto::hash::sha512_prefix,
    text::{TextError, from_base32, to_base32},
};
use core::{fmt, str::FromStr};

/// What the text form of a `PeerId` begins with.
const PREFIX: &str = "sm-";
/// Characters of base32 behind the prefix: 32 bytes and 3 of checksum make 56 without a rest.
const DIGITS: usize = 56;
const CHECKSUM_LEN: usize = 3;
/// Characters of the short form.
const SHORT_LEN: usize = 10;

/// The identity of a peer or relay: the first 32 bytes of SHA-512 over a label, the algorithm and the public key (protocol 1.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 32]);

/// One WebSocket connection of this process; the machine that dials chooses even numbers, the driver that accepts odd ones.
/// A flow of datagrams with one remote address is a connection, too: the machine names it, with the top bit set, and the next one where a relay is in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl ConnId {
    const FLOW: u64 = 1 << 63;
    const PASSED_ON: u64 = 1 << 62;

    /// The flow of datagrams with this number.
    pub(crate) const fn flow(number: u64) -> Self {
        Self(number | Self::FLOW)
    }

    /// The same flow, with a relay that passes its datagrams on (protocol 8.8).
    pub(crate) const fn passed_on(self) -> Self {
        Self(self.0 | Self::PASSED_ON)
    }

    /// Whether a relay passes on what goes this way as datagrams (protocol 8.8).
    pub const fn is_passed_on(self) -> bool {
        self.is_flow() && self.0 & Self::PASSED_ON != 0
    }

    /// Whether it is a flow of UDP datagrams: each message stands alone, may be lost, come twice, or out of order.
    pub const fn is_flow(self) -> bool {
        self.0 & Self::FLOW != 0
    }
}

/// One remote peer inside this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// One way between two peers, named in the re-handshake (protocol 5.4); 0 is the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

impl PathId {
    /// The path over the relay: there from the handshake on, proven by it.
    pub const RELAY: Self = Self(0);
}

/// A member of a relay's directory; never used twice in a relay's life (protocol 6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u32);

impl PeerId {
    /// The first 10 characters of the text form, for logs.
    pub fn short(&self) -> String {
        self.to_string().chars().take(SHORT_LEN).collect()
    }

    /// Whether the text form begins with `prefix`, with or without its `sm-`; an empty prefix fits nobody.
    pub fn text_starts_with(&self, prefix: &str) -> bool {
        let digits = prefix.strip_prefix(PREFIX).unwrap_or(prefix);
        !digits.is_empty() && self.to_string()[PREFIX.len()..].starts_with(digits)
    }
}

fn checksum(id: &[u8]) -> [u8; CHECKSUM_LEN] {
    sha512_prefix(&[b"shadowmesh/1 peer-id text", id])
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 32 + CHECKSUM_LEN];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&checksum(&self.0));
        f.pad(&format!("{PREFIX}{}", to_base32(&bytes)))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no `PeerId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerIdError {
    /// It does not begin with `sm-`.
    Prefix,
    /// It has this many characters behind the prefix instead of 56.
    Length(usize),
    /// It has this character, at this place counted from 1.
    Character(char, usize),
    /// Its last characters do not fit the rest.
    Checksum,
}

impl fmt::Display for PeerIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => write!(f, "a peer id begins with \"{PREFIX}\""),
            Self::Length(have) => write!(f, "a peer id has {DIGITS} characters after \"{PREFIX}\", this one has {have}"),
            Self::Character(character, place) => {
                write!(f, "character {place} of the peer id is {character:?}; only a-z and 2-7 can follow \"{PREFIX}\"")
            }
            Self::Checksum => f.write_str("the peer id has a typing error: its checksum does not fit"),
        }
    }
}

impl core::error::Error for PeerIdError {}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        let digits = text.strip_prefix(PREFIX).ok_or(PeerIdError::Prefix)?;
        let have = digits.chars().count();
        if have != DIGITS {
            return Err(PeerIdError::Length(have));
        }
        let bytes = from_base32(digits).map_err(|error| match error {
            TextError::Character(character, index) => PeerIdError::Character(character, PREFIX.len() + index + 1),
            TextError::Ending => PeerIdError::Checksum,
        })?;
        let (id, sum) = bytes.split_first_chunk::<32>().ok_or(PeerIdError::Length(have))?;
        if sum == checksum(id) { Ok(Self(*id)) } else { Err(PeerIdError::Checksum) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // protocol 1.1
    #[test]
    fn each_typing_error_is_named() {
        let text = PeerId([0x5a; 32]).to_string();
        assert_eq!(text.len(), 59);
        assert_eq!(text.parse(), Ok(PeerId([0x5a; 32])));
        assert_eq!(text[3..].parse::<PeerId>(), Err(PeerIdError::Prefix));
        assert_eq!("".parse::<PeerId>(), Err(PeerIdError::Prefix));
        assert_eq!(text[..58].parse::<PeerId>(), Err(PeerIdError::Length(55)));
        assert_eq!(format!("{text}a").parse::<PeerId>(), Err(PeerIdError::Length(57)));
        assert_eq!(text.replacen(&text[3..4], "1", 1).parse::<PeerId>(), Err(PeerIdError::Character('1', 4)));
        assert_eq!(text.replacen(&text[3..4], "é", 1).parse::<PeerId>(), Err(PeerIdError::Character('é', 4)));
        let other = if text.ends_with('a') { "b" } else { "a" };
        assert_eq!(format!("{}{other}", &text[..58]).parse::<PeerId>(), Err(PeerIdError::Checksum));
        for error in [PeerIdError::Prefix, PeerIdError::Length(3), PeerIdError::Character('1', 4), PeerIdError::Checksum] {
            assert!(error.to_string().contains("peer id"));
        }
    }

    #[test]
    fn short_forms_and_prefixes() {
        let id = PeerId([0x5a; 32]);
        let text = id.to_string();
        assert_eq!(id.short(), text[..10]);
        assert!(id.text_starts_with(&id.short()));
        assert!(id.text_starts_with(&text[3..6]));
        assert!(id.text_starts_with(&text));
        assert!(!id.text_starts_with("sm-"));
        assert!(!id.text_starts_with(""));
        assert!(!id.text_starts_with(&format!("{text}a")));
        assert_eq!(format!("{id:?}"), text);
    }

    proptest! {
        #[test]
        fn ids_survive_their_text(id: [u8; 32]) {
            prop_assert_eq!(PeerId(id).to_string().parse(), Ok(PeerId(id)));
        }

        // protocol 1.1
        #[test]
        fn one_wrong_character_is_noticed(id: [u8; 32], at in 3_usize..59, to in "[a-z2-7]") {
            let mut text = PeerId(id).to_string();
            prop_assume!(text[at..=at] != to);
            text.replace_range(at..=at, &to);
            prop_assert_eq!(text.parse::<PeerId>(), Err(PeerIdError::Checksum));
        }

        #[test]
        fn any_text_is_judged_without_panic(text: String) {
            let _ = text.parse::<PeerId>();
            let _ = PeerId([1; 32]).text_starts_with(&text);
        }
    }
}
