//! The three messages of the re-handshake (protocol 5.1): layout only, the mac is made and checked in `crate::rehandshake`.
//!
//! ```text
//!   header 16 = type | epoch | flags | role | receiver_idx u32 | path_id u32 | attempt u32
//!   REQ 20, RSP 21 = header | nonce 32 | seen_addr 20 | floor u64 | zeros | mac 32     108 bytes, or more by the zeros
//!   CMP 22         = header |            seen_addr 20 | floor u64 |       mac 32      76 bytes
//!   seen_addr 20   = the socket address form of `addr`
//! ```
//! `emit` appends everything before the mac; `parse` takes the whole message and leaves the mac to its owner.
use super::{
    Malformed, Reader, TYPE_PATH_CMP, TYPE_PATH_REQ, TYPE_PATH_RSP,
    addr::{read_socket, socket_bytes},
};
use crate::id::PathId;
use core::net::SocketAddr;

/// Bytes of `PATH_REQ` without padding. A padded one shows that datagrams of its length come through (protocol 8.3).
pub const PATH_REQUEST_LEN: usize = 108;
/// Bytes of `PATH_RSP` without padding: always as long as the request that it answers.
pub const PATH_RESPONSE_LEN: usize = 108;
/// Bytes of a padded message at most: a UDP datagram's payload.
pub const PATH_PADDED_MAX_LEN: usize = 65_507;
/// Bytes of `PATH_CMP`.
pub const PATH_COMPLETE_LEN: usize = 76;
/// Bytes of the mac at the end of each.
pub const PATH_MAC_LEN: usize = 32;

/// Bytes of the common header.
pub(crate) const PATH_HEADER_LEN: usize = 16;

/// What all three messages begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathHeader {
    /// The message type: `TYPE_PATH_REQ`, `TYPE_PATH_RSP` or `TYPE_PATH_CMP`.
    pub kind: u8,
    /// Low byte of the epoch whose path key made the mac.
    pub epoch: u8,
    /// Reserved, zero.
    pub flags: u8,
    /// The sender's role in the session: 1 initiator, 2 responder.
    pub role: u8,
    /// The session number that the receiver chose.
    pub receiver: u32,
    /// The path that is proven.
    pub path: PathId,
    /// Counts the asker's transmissions on this path; an answer repeats it.
    pub attempt: u32,
}

impl PathHeader {
    /// Reads the header of any of the three messages; the message may go on.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::read(&mut Reader::new(bytes))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let [kind, epoch, flags, role] = reader.array("path message header")?;
        if !matches!(kind, TYPE_PATH_REQ | TYPE_PATH_RSP | TYPE_PATH_CMP) {
            return Err(Malformed("path message type"));
        }
        if flags != 0 {
            return Err(Malformed("path message flags"));
        }
        if !matches!(role, 1 | 2) {
            return Err(Malformed("path message role"));
        }
        let receiver = reader.u32("path message receiver")?;
        let path = PathId(reader.u32("path message path id")?);
        let attempt = reader.u32("path message attempt")?;
        Ok(Self { kind, epoch, flags, role, receiver, path, attempt })
    }

    /// Appends the header.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind, self.epoch, self.flags, self.role]);
        out.extend_from_slice(&self.receiver.to_be_bytes());
        out.extend_from_slice(&self.path.0.to_be_bytes());
        out.extend_from_slice(&self.attempt.to_be_bytes());
    }
}

/// `PATH_REQ`: "prove that you hold this session's key now".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRequest {
    /// The common header.
    pub header: PathHeader,
    /// Fresh bytes of the asker.
    pub nonce: [u8; 32],
    /// Where the sender sees the receiver.
    pub seen: SocketAddr,
    /// Below it the sender needs nothing any more (protocol 7).
    pub floor: u64,
}

/// `PATH_RSP`: the proof of the answerer, and its own question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathResponse {
    /// The common header.
    pub header: PathHeader,
    /// Fresh bytes of the answerer.
    pub nonce: [u8; 32],
    /// Where the sender sees the receiver.
    pub seen: SocketAddr,
    /// Below it the sender needs nothing any more (protocol 7).
    pub floor: u64,
}

/// `PATH_CMP`: the proof of the asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathComplete {
    /// The common header.
    pub header: PathHeader,
    /// Where the sender sees the receiver.
    pub seen: SocketAddr,
    /// Below it the sender needs nothing any more (protocol 7).
    pub floor: u64,
}

impl PathRequest {
    /// Reads a whole `PATH_REQ`, 108 bytes or more.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (header, nonce, seen, floor) = parse_nonced(bytes, TYPE_PATH_REQ)?;
        Ok(Self { header, nonce, seen, floor })
    }

    /// Appends all but the mac.
    pub fn emit(&self, out: &mut Vec<u8>) {
        self.header.emit(out);
        out.extend_from_slice(&self.nonce);
        emit_fields(self.seen, self.floor, out);
    }
}

impl PathResponse {
    /// Reads a whole `PATH_RSP`, 108 bytes or more.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (header, nonce, seen, floor) = parse_nonced(bytes, TYPE_PATH_RSP)?;
        Ok(Self { header, nonce, seen, floor })
    }

    /// Appends all but the mac.
    pub fn emit(&self, out: &mut Vec<u8>) {
        self.header.emit(out);
        out.extend_from_slice(&self.nonce);
        emit_fields(self.seen, self.floor, out);
    }
}

impl PathComplete {
    /// Reads a whole `PATH_CMP`, 76 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() != PATH_COMPLETE_LEN {
            return Err(Malformed("path message length"));
        }
        let mut reader = Reader::new(bytes);
        let header = read_header(&mut reader, TYPE_PATH_CMP)?;
        let (seen, floor) = read_fields(&mut reader)?;
        Ok(Self { header, seen, floor })
    }

    /// Appends all but the mac.
    pub fn emit(&self, out: &mut Vec<u8>) {
        self.header.emit(out);
        emit_fields(self.seen, self.floor, out);
    }
}

fn parse_nonced(bytes: &[u8], kind: u8) -> Result<(PathHeader, [u8; 32], SocketAddr, u64), Malformed> {
    if !(PATH_REQUEST_LEN..=PATH_PADDED_MAX_LEN).contains(&bytes.len()) {
        return Err(Malformed("path message length"));
    }
    let mut reader = Reader::new(bytes);
    let header = read_header(&mut reader, kind)?;
    let nonce = reader.array("path message nonce")?;
    let (seen, floor) = read_fields(&mut reader)?;
    let padding = bytes.get(PATH_REQUEST_LEN - PATH_MAC_LEN..bytes.len() - PATH_MAC_LEN);
    if padding.is_none_or(|padding| padding.iter().any(|byte| *byte != 0)) {
        return Err(Malformed("path message padding"));
    }
    Ok((header, nonce, seen, floor))
}

fn read_header(reader: &mut Reader<'_>, kind: u8) -> Result<PathHeader, Malformed> {
    let header = PathHeader::read(reader)?;
    if header.kind == kind { Ok(header) } else { Err(Malformed("path message type")) }
}

/// Reads `seen_addr` and floor; what is left is the mac.
fn read_fields(reader: &mut Reader<'_>) -> Result<(SocketAddr, u64), Malformed> {
    Ok((read_socket(reader)?, reader.u64("path message floor")?))
}

fn emit_fields(seen: SocketAddr, floor: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&socket_bytes(seen));
    out.extend_from_slice(&floor.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;
    use proptest::prelude::*;

    // protocol 5.1
    #[test]
    fn the_lengths_are_those_of_protocol_5() {
        let request = sample_request(TYPE_PATH_REQ);
        assert_eq!(emitted(|out| request.emit(out)).len(), PATH_REQUEST_LEN);
        let complete = PathComplete { header: sample_request(TYPE_PATH_CMP).header, seen: request.seen, floor: 1 };
        assert_eq!(emitted(|out| complete.emit(out)).len(), PATH_COMPLETE_LEN);
    }

    // protocol 5.1
    #[test]
    fn the_bytes_of_a_request_are_where_protocol_5_puts_them() {
        let bytes = emitted(|out| sample_request(TYPE_PATH_REQ).emit(out));
        assert_eq!(bytes[..16], [0x20, 7, 0, 1, 1, 2, 3, 4, 0, 0, 0, 6, 0, 0, 0, 9]);
        assert_eq!(bytes[16..48], [0xaa; 32]);
        assert_eq!(bytes[48..52], [4, 0, 0x9c, 0x40]);
        assert_eq!(bytes[52..56], [203, 0, 113, 7]);
        assert_eq!(bytes[56..68], [0; 12]);
        assert_eq!(bytes[68..76], 77u64.to_be_bytes());
    }

    // protocol 5.1
    #[test]
    fn each_wrong_field_is_named() {
        let mut good = emitted(|out| sample_request(TYPE_PATH_REQ).emit(out));
        assert!(PathRequest::parse(&good).is_ok());
        good.extend_from_slice(&[0; 3]);
        assert!(PathRequest::parse(&good).is_ok(), "padding may stand before the mac");
        for (at, value, want) in [
            (0, 0x23, "path message type"),
            (0, TYPE_PATH_RSP, "path message type"),
            (2, 1, "path message flags"),
            (3, 3, "path message role"),
            (3, 0, "path message role"),
            (56, 1, "bytes after an IPv4 address"),
            (48, 5, "address family"),
            (49, 1, "address reserved byte"),
            (76, 1, "path message padding"),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(PathRequest::parse(&bad), Err(Malformed(want)), "byte {at}");
        }
        for len in [0, 15, 16, 47, 107] {
            assert!(PathRequest::parse(&good[..len]).is_err());
        }
        assert_eq!(PathComplete::parse(&good), Err(Malformed("path message length")));
    }

    proptest! {
        #[test]
        fn what_was_emitted_is_parsed(
            epoch: u8, initiator: bool, receiver: u32, path: u32, attempt: u32, nonce: [u8; 32], ip: [u8; 16], v4: bool, port: u16, floor: u64
        ) {
            let ip = if v4 { IpAddr::from([ip[0], ip[1], ip[2], ip[3]]) } else { IpAddr::from(ip) };
            let seen = SocketAddr::new(ip.to_canonical(), port);
            let header = PathHeader {
                kind: TYPE_PATH_RSP, epoch, flags: 0, role: if initiator { 1 } else { 2 }, receiver, path: PathId(path), attempt,
            };
            let response = PathResponse { header, nonce, seen, floor };
            prop_assert_eq!(PathResponse::parse(&emitted(|out| response.emit(out))), Ok(response));
            let complete = PathComplete { header: PathHeader { kind: TYPE_PATH_CMP, ..header }, seen, floor };
            prop_assert_eq!(PathComplete::parse(&emitted(|out| complete.emit(out))), Ok(complete));
        }

        #[test]
        fn random_bytes_never_panic_and_what_parses_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(request) = PathRequest::parse(&bytes) {
                prop_assert_eq!(&emitted(|out| request.emit(out))[..76], &bytes[..76]);
            }
            let _ = (PathResponse::parse(&bytes), PathComplete::parse(&bytes));
        }
    }

    fn sample_request(kind: u8) -> PathRequest {
        PathRequest {
            header: PathHeader { kind, epoch: 7, flags: 0, role: 1, receiver: 0x0102_0304, path: PathId(6), attempt: 9 },
            nonce: [0xaa; 32],
            seen: SocketAddr::from(([203, 0, 113, 7], 40_000)),
            floor: 77,
        }
    }

    /// The emitted bytes and a mac of zeros.
    fn emitted(emit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        emit(&mut out);
        out.extend_from_slice(&[0; PATH_MAC_LEN]);
        out
    }
}
