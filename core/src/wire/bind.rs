//! BIND and BOUND (protocol 8.1): layout only, the mac is made and checked in `crate::binding`.
//!
//! ```text
//!   BIND 24, BOUND 25 = type | 0 | 0 | 0 | receiver_idx u32 | nonce 8 | address 20 | other_port u16 | 0 u16 | ticket 16 | mac 32     88 bytes
//!   address 20        = the socket address form of `addr`; zeros in BIND, as are other_port and ticket
//! ```
//! Both have one length, so that an answer is never larger than its request. `emit` appends everything before the mac; `parse` takes
//! the whole message and leaves the mac to its owner.
use super::{
    Malformed, Reader, TYPE_BIND, TYPE_BOUND,
    addr::{SOCKET_ADDRESS_LEN, read_socket, socket_bytes},
};
use core::net::SocketAddr;

/// Bytes of BIND and of BOUND.
pub const BIND_LEN: usize = 88;
/// Bytes of a ticket (protocol 8.8).
pub const TICKET_LEN: usize = 16;
/// Bytes of the mac at the end of both.
pub const BIND_MAC_LEN: usize = 32;

/// "Where do you see me?" A client's question to its relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The session number that the relay chose.
    pub receiver: u32,
    /// Fresh bytes of the client.
    pub nonce: [u8; 8],
}

/// "There." The relay's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The session number that the client chose.
    pub receiver: u32,
    /// That of the question.
    pub nonce: [u8; 8],
    /// Where the question came from.
    pub address: SocketAddr,
    /// The relay's other UDP port, 0 = none.
    pub other_port: u16,
    /// What shows the relay that this address was really asked from (protocol 8.8); zeros: it passes no datagrams on.
    pub ticket: [u8; TICKET_LEN],
}

impl Bind {
    /// Reads a whole BIND, 88 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut reader, receiver, nonce) = begin(bytes, TYPE_BIND)?;
        if reader.array("bind address")? != [0; SOCKET_ADDRESS_LEN] || reader.u16("bind port")? != 0 {
            return Err(Malformed("bind reserved bytes"));
        }
        if end(&mut reader)? != [0; TICKET_LEN] {
            return Err(Malformed("bind reserved bytes"));
        }
        Ok(Self { receiver, nonce })
    }

    /// Appends all but the mac.
    pub fn emit(&self, out: &mut Vec<u8>) {
        emit(TYPE_BIND, self.receiver, self.nonce, [0; SOCKET_ADDRESS_LEN], 0, [0; TICKET_LEN], out);
    }
}

impl Bound {
    /// Reads a whole BOUND, 88 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut reader, receiver, nonce) = begin(bytes, TYPE_BOUND)?;
        let address = read_socket(&mut reader)?;
        let other_port = reader.u16("bind port")?;
        let ticket = end(&mut reader)?;
        Ok(Self { receiver, nonce, address, other_port, ticket })
    }

    /// Appends all but the mac.
    pub fn emit(&self, out: &mut Vec<u8>) {
        emit(TYPE_BOUND, self.receiver, self.nonce, socket_bytes(self.address), self.other_port, self.ticket, out);
    }
}

fn begin(bytes: &[u8], kind: u8) -> Result<(Reader<'_>, u32, [u8; 8]), Malformed> {
    if bytes.len() != BIND_LEN {
        return Err(Malformed("bind length"));
    }
    let mut reader = Reader::new(bytes);
    let [said, epoch, flags, reserved] = reader.array("bind header")?;
    if said != kind {
        return Err(Malformed("bind type"));
    }
    if (epoch, flags, reserved) != (0, 0, 0) {
        return Err(Malformed("bind reserved bytes"));
    }
    let receiver = reader.u32("bind receiver")?;
    let nonce = reader.array("bind nonce")?;
    Ok((reader, receiver, nonce))
}

/// The ticket; what is left behind it is the mac.
fn end(reader: &mut Reader<'_>) -> Result<[u8; TICKET_LEN], Malformed> {
    if reader.u16("bind reserved bytes")? != 0 {
        return Err(Malformed("bind reserved bytes"));
    }
    reader.array("bind ticket")
}

fn emit(
    kind: u8,
    receiver: u32,
    nonce: [u8; 8],
    address: [u8; SOCKET_ADDRESS_LEN],
    other_port: u16,
    ticket: [u8; TICKET_LEN],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&receiver.to_be_bytes());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&address);
    out.extend_from_slice(&other_port.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&ticket);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(emit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        emit(&mut bytes);
        bytes.extend_from_slice(&[0x3c; BIND_MAC_LEN]);
        bytes
    }

    fn sample() -> Bound {
        Bound {
            receiver: 0x0102_0304,
            nonce: [0xa1; 8],
            address: "203.0.113.7:41022".parse().expect("an address"),
            other_port: 8_444,
            ticket: [0x7e; TICKET_LEN],
        }
    }

    // protocol 8.1
    #[test]
    fn the_bytes_are_where_protocol_8_puts_them() {
        let bound = whole(|out| sample().emit(out));
        assert_eq!(bound.len(), BIND_LEN);
        assert_eq!(bound[..8], [0x25, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(bound[8..16], [0xa1; 8]);
        assert_eq!(bound[16..24], [4, 0, 0xa0, 0x3e, 203, 0, 113, 7]);
        assert_eq!(bound[24..36], [0; 12]);
        assert_eq!(bound[36..40], [0x20, 0xfc, 0, 0]);
        let bind = whole(|out| Bind { receiver: 7, nonce: [9; 8] }.emit(out));
        assert_eq!(bind.len(), BIND_LEN, "an answer is as long as its request");
        assert_eq!(bind[..16], [0x24, 0, 0, 0, 0, 0, 0, 7, 9, 9, 9, 9, 9, 9, 9, 9]);
        assert_eq!(bind[16..40], [0; 24]);
    }

    // protocol 8.1
    #[test]
    fn each_wrong_field_is_refused() {
        let bind = whole(|out| Bind { receiver: 7, nonce: [9; 8] }.emit(out));
        let bound = whole(|out| sample().emit(out));
        for at in [0, 1, 2, 3, 38, 39] {
            let (mut bad_bind, mut bad_bound) = (bind.clone(), bound.clone());
            bad_bind[at] ^= 1;
            bad_bound[at] ^= 1;
            assert!(Bind::parse(&bad_bind).is_err() && Bound::parse(&bad_bound).is_err(), "byte {at}");
        }
        for at in 16..40 {
            let mut bad = bind.clone();
            bad[at] = 1;
            assert!(Bind::parse(&bad).is_err(), "byte {at} of BIND is zero");
        }
        assert!(Bind::parse(&bound).is_err() && Bound::parse(&bind).is_err(), "one is not the other");
        for len in (0..BIND_LEN).chain([BIND_LEN + 1]) {
            let mut cut = bind.clone();
            cut.resize(len, 0);
            assert_eq!(Bind::parse(&cut), Err(Malformed("bind length")));
        }
    }

    proptest! {
        #[test]
        fn round_trip(receiver: u32, nonce: [u8; 8], address in super::super::addr::tests::any_socket(), other_port: u16, ticket: [u8; TICKET_LEN]) {
            let bound = Bound { receiver, nonce, address, other_port, ticket };
            prop_assert_eq!(Bound::parse(&whole(|out| bound.emit(out))), Ok(bound));
            let bind = Bind { receiver, nonce };
            prop_assert_eq!(Bind::parse(&whole(|out| bind.emit(out))), Ok(bind));
        }

        #[test]
        fn any_bytes_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..96), kind in 0x24_u8..0x26, fit: bool) {
            let mut bytes = bytes;
            if fit {
                bytes.resize(BIND_LEN, 0);
                bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
                bytes[38..40].copy_from_slice(&[0, 0]);
            }
            if let Ok(bound) = Bound::parse(&bytes) {
                let mut again = Vec::new();
                bound.emit(&mut again);
                prop_assert_eq!(&again[..], &bytes[..BIND_LEN - BIND_MAC_LEN]);
            }
            let _ = Bind::parse(&bytes);
        }
    }
}
