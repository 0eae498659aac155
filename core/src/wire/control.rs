//! Control messages between two peers on lane FF, inside sealed frames of inner type 80 (protocol 7.8, 7.9).
//!
//! ```text
//! NodeControl  10 STREAM  11 ACK  12 PING  13 PONG
//! └─ STREAM carries PeerMessage  20 CANDIDATES … 29 TAKEN  (framed by crate::control)
//! ```
use super::{
    Malformed, Reader,
    addr::{read_socket, socket_bytes},
};
use crate::{id::PeerId, succession::STATEMENT_LEN};
use core::net::SocketAddr;

/// Most bytes of one piece of the control stream, and of a ping's payload: a sealed frame then fits each path (1,280 B).
pub const CONTROL_PIECE_MAX_LEN: usize = 1_000;
/// Most candidates in one message (protocol 6.3).
pub const MAX_CANDIDATES: usize = 10;
/// Most bytes of TLV params in one message (protocol 3.6).
const MAX_PARAMS_LEN: usize = 1_024;
const MLKEM_LEN: usize = 1_568;
/// Bytes of a part of a succession, but of the last one (protocol 2.8).
pub const SUCCESSION_PART_LEN: usize = 4_000;
/// Parts of a succession.
const SUCCESSION_PARTS: usize = STATEMENT_LEN.div_ceil(SUCCESSION_PART_LEN);

/// Reason in CLOSE: the sender was told to leave.
pub const CLOSE_DOWN: u8 = 0;
/// Reason in CLOSE: a newer session or connection took this one's place.
pub const CLOSE_REPLACED: u8 = 1;
/// Reason in CLOSE: the receiver is not admitted here.
pub const CLOSE_REFUSED: u8 = 2;
/// Reason in CLOSE: the receiver broke a rule that cannot be passed over.
pub const CLOSE_PROTOCOL: u8 = 3;
/// Reason in CLOSE: a limit of the sender was reached.
pub const CLOSE_OVERLOAD: u8 = 4;
/// Reason in CLOSE: the same identity keeps joining from several places.
pub const CLOSE_SHARED_IDENTITY: u8 = 5;
/// Reason in CLOSE: the session has reached its age or its frames; a new one may follow at once.
pub const CLOSE_SESSION_OLD: u8 = 6;
/// Reason in CLOSE: nothing was heard for too long.
pub const CLOSE_SILENT: u8 = 7;
/// Reason in CLOSE: the relay wants an access token, and none or another was shown.
pub const CLOSE_NO_ACCESS: u8 = 8;

const STREAM: u8 = 0x10;
const ACK: u8 = 0x11;
const PING: u8 = 0x12;
const PONG: u8 = 0x13;
const CANDIDATES: u8 = 0x20;
const REKEY1: u8 = 0x21;
const REKEY2: u8 = 0x22;
const REKEY_PLEASE: u8 = 0x23;
const CLOSE: u8 = 0x24;
const UPDATE: u8 = 0x25;
const SEARCH: u8 = 0x26;
const PUNCH: u8 = 0x27;
const SUCCESSION: u8 = 0x28;
const TAKEN: u8 = 0x29;

/// Sealed on lane FF between peers; neither acknowledged nor ordered by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeControl {
    /// A piece of the acknowledged control stream, 1 to 1,000 bytes.
    Stream {
        /// Place of the first byte in the stream.
        offset: u32,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// All bytes of the stream below `offset` have come.
    Ack {
        /// First byte not yet there.
        offset: u32,
    },
    /// Overlay ping.
    Ping {
        /// Comes back in the answer.
        id: u32,
        /// Comes back in the answer; at most 1,000 bytes.
        payload: Vec<u8>,
    },
    /// Answer to a ping.
    Pong {
        /// From the ping.
        id: u32,
        /// The path on which the ping came.
        heard: PathLabel,
        /// From the ping; at most 1,000 bytes.
        payload: Vec<u8>,
    },
}

/// What kind of path a frame took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathLabel {
    /// Over the relay by WebSocket in TLS; 0 on the wire.
    RelayWss,
    /// Straight to the peer by WebSocket in TLS; 1 on the wire.
    DirectWss,
    /// Straight to the peer by UDP; 2 on the wire.
    DirectUdp,
    /// Over the relay by UDP (protocol 8.8); 3 on the wire.
    RelayUdp,
}

impl PathLabel {
    /// Whether a relay is on the way.
    pub const fn is_relay(self) -> bool {
        matches!(self, Self::RelayWss | Self::RelayUdp)
    }
}

/// Messages of the acknowledged control stream between peers (protocol 7.8): type and body, framed by [`crate::control`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Addresses at which the sender may be reached; a higher generation replaces all before.
    Candidates {
        /// Rises with each change.
        generation: u32,
        /// At most 10.
        candidates: Vec<Candidate>,
    },
    /// First half of a rekey.
    Rekey1 {
        /// The epoch that begins.
        epoch: u32,
        /// Fresh X25519 public key.
        x25519: [u8; 32],
        /// Fresh ML-KEM-1024 encapsulation key, 1,568 bytes.
        mlkem_ek: Vec<u8>,
    },
    /// Second half of a rekey.
    Rekey2 {
        /// The epoch that begins.
        epoch: u32,
        /// Fresh X25519 public key.
        x25519: [u8; 32],
        /// ML-KEM-1024 ciphertext, 1,568 bytes.
        mlkem_ct: Vec<u8>,
    },
    /// The responder asks the initiator to rekey.
    RekeyPlease,
    /// The session ends now.
    Close {
        /// One of the `CLOSE_…` numbers.
        reason: u8,
    },
    /// The sender's params changed.
    Update {
        /// TLV params, at most 1,024 bytes.
        params: Vec<u8>,
    },
    /// The sender has opened many ports of its NAT for us: find one (protocol 8.5).
    Search {
        /// The NAT's address, and the port that it gave last.
        address: SocketAddr,
        /// The distance of one such port to the next; 0: they are given by chance.
        step: u16,
    },
    /// The sender dials from this address; the receiver is to dial it, and to say from where (protocol 6.10).
    Punch {
        /// The sender's connection with a relay, as that sees it.
        address: SocketAddr,
    },
    /// A part of a statement that one identity follows another (protocol 2.8).
    Succession {
        /// Which part, from 0.
        place: u8,
        /// As many bytes as that part has.
        bytes: Vec<u8>,
    },
    /// The statement that ends with this identity is taken over.
    Taken {
        /// Who follows.
        new: PeerId,
    },
}

/// Where a candidate address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// An address of a local interface; 0 on the wire.
    Host,
    /// The address that the relay or a peer saw; 1 on the wire.
    Observed,
    /// Made by a port mapping protocol; 2 on the wire.
    PortMapped,
    /// Set by the operator; 3 on the wire.
    Configured,
    /// The address that a relay saw, of a NAT that shows others another one; 4 on the wire.
    Varying,
}

/// One address at which a peer may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// Where it comes from.
    pub kind: CandidateKind,
    /// How to reach it.
    pub transport: Transport,
    /// The address.
    pub address: SocketAddr,
    /// Higher is tried first.
    pub priority: u8,
}

/// How a direct path carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams; 0 on the wire (reserved, protocol 8).
    Udp,
    /// WebSocket in TLS 1.3; 1 on the wire.
    Wss,
}

impl NodeControl {
    /// Reads the body of a control frame of lane FF between peers.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        match reader.u8("node control type")? {
            STREAM => {
                let offset = reader.u32("stream offset")?;
                let bytes = reader.rest(CONTROL_PIECE_MAX_LEN, "stream piece")?;
                if bytes.is_empty() { Err(Malformed("stream piece")) } else { Ok(Self::Stream { offset, bytes: bytes.to_vec() }) }
            }
            ACK => {
                let offset = reader.u32("ack offset")?;
                reader.end("bytes after ack")?;
                Ok(Self::Ack { offset })
            }
            PING => {
                let id = reader.u32("ping id")?;
                let payload = reader.rest(CONTROL_PIECE_MAX_LEN, "ping payload")?.to_vec();
                Ok(Self::Ping { id, payload })
            }
            PONG => {
                let id = reader.u32("pong id")?;
                let heard = PathLabel::from_code(reader.u8("pong path")?)?;
                let payload = reader.rest(CONTROL_PIECE_MAX_LEN, "pong payload")?.to_vec();
                Ok(Self::Pong { id, heard, payload })
            }
            _ => Err(Malformed("node control type")),
        }
    }

    /// Appends the body of a control frame of lane FF.
    ///
    /// # Panics
    /// When a piece or payload is longer than [`CONTROL_PIECE_MAX_LEN`].
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stream { offset, bytes } => {
                out.push(STREAM);
                out.extend_from_slice(&offset.to_be_bytes());
                piece(bytes, out);
            }
            Self::Ack { offset } => {
                out.push(ACK);
                out.extend_from_slice(&offset.to_be_bytes());
            }
            Self::Ping { id, payload } => {
                out.push(PING);
                out.extend_from_slice(&id.to_be_bytes());
                piece(payload, out);
            }
            Self::Pong { id, heard, payload } => {
                out.push(PONG);
                out.extend_from_slice(&id.to_be_bytes());
                out.push(heard.code());
                piece(payload, out);
            }
        }
    }
}

fn piece(bytes: &[u8], out: &mut Vec<u8>) {
    assert!(bytes.len() <= CONTROL_PIECE_MAX_LEN, "a control piece fits every path");
    out.extend_from_slice(bytes);
}

impl PathLabel {
    const fn code(self) -> u8 {
        match self {
            Self::RelayWss => 0,
            Self::DirectWss => 1,
            Self::DirectUdp => 2,
            Self::RelayUdp => 3,
        }
    }

    const fn from_code(code: u8) -> Result<Self, Malformed> {
        match code {
            0 => Ok(Self::RelayWss),
            1 => Ok(Self::DirectWss),
            2 => Ok(Self::DirectUdp),
            3 => Ok(Self::RelayUdp),
            _ => Err(Malformed("path label")),
        }
    }
}

impl PeerMessage {
    /// Reads type and body of one message of the control stream.
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(message);
        let parsed = match reader.u8("peer message type")? {
            CANDIDATES => {
                let generation = reader.u32("candidates generation")?;
                Self::Candidates { generation, candidates: read_candidates(&mut reader)? }
            }
            REKEY1 => {
                let (epoch, x25519, mlkem_ek) = read_rekey(&mut reader)?;
                Self::Rekey1 { epoch, x25519, mlkem_ek }
            }
            REKEY2 => {
                let (epoch, x25519, mlkem_ct) = read_rekey(&mut reader)?;
                Self::Rekey2 { epoch, x25519, mlkem_ct }
            }
            REKEY_PLEASE => Self::RekeyPlease,
            CLOSE => Self::Close { reason: reader.u8("close reason")? },
            UPDATE => Self::Update { params: reader.rest(MAX_PARAMS_LEN, "update params")?.to_vec() },
            SEARCH => Self::Search { address: read_socket(&mut reader)?, step: reader.u16("search step")? },
            PUNCH => Self::Punch { address: read_socket(&mut reader)? },
            SUCCESSION => {
                let place = reader.u8("place in a succession")?;
                let len = succession_part_len(place).ok_or(Malformed("place in a succession"))?;
                Self::Succession { place, bytes: reader.bytes(len, "part of a succession")?.to_vec() }
            }
            TAKEN => Self::Taken { new: PeerId(reader.array("PeerId of a succession")?) },
            _ => return Err(Malformed("peer message type")),
        };
        reader.end("bytes after peer message")?;
        Ok(parsed)
    }

    /// Appends type and body.
    ///
    /// # Panics
    /// When a list or key has another length than the protocol allows: our own fault.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Candidates { generation, candidates } => {
                assert!(candidates.len() <= MAX_CANDIDATES, "at most {MAX_CANDIDATES} candidates are announced");
                out.push(CANDIDATES);
                out.extend_from_slice(&generation.to_be_bytes());
                out.push(candidates.len() as u8);
                for candidate in candidates {
                    candidate.emit(out);
                }
            }
            Self::Rekey1 { epoch, x25519, mlkem_ek } => emit_rekey(REKEY1, *epoch, x25519, mlkem_ek, out),
            Self::Rekey2 { epoch, x25519, mlkem_ct } => emit_rekey(REKEY2, *epoch, x25519, mlkem_ct, out),
            Self::RekeyPlease => out.push(REKEY_PLEASE),
            Self::Close { reason } => out.extend_from_slice(&[CLOSE, *reason]),
            Self::Update { params } => {
                assert!(params.len() <= MAX_PARAMS_LEN, "params are at most {MAX_PARAMS_LEN} bytes");
                out.push(UPDATE);
                out.extend_from_slice(params);
            }
            Self::Search { address, step } => {
                out.push(SEARCH);
                out.extend_from_slice(&socket_bytes(*address));
                out.extend_from_slice(&step.to_be_bytes());
            }
            Self::Punch { address } => {
                out.push(PUNCH);
                out.extend_from_slice(&socket_bytes(*address));
            }
            Self::Succession { place, bytes } => {
                assert_eq!(Some(bytes.len()), succession_part_len(*place), "each part of a succession has its length");
                out.extend_from_slice(&[SUCCESSION, *place]);
                out.extend_from_slice(bytes);
            }
            Self::Taken { new } => {
                out.push(TAKEN);
                out.extend_from_slice(&new.0);
            }
        }
    }
}

/// Length of this part of a succession, if there is one.
fn succession_part_len(place: u8) -> Option<usize> {
    let place = usize::from(place);
    (place < SUCCESSION_PARTS).then(|| SUCCESSION_PART_LEN.min(STATEMENT_LEN - place * SUCCESSION_PART_LEN))
}

/// Entries of a kind or transport that this version does not know are left out: later versions may add some.
fn read_candidates(reader: &mut Reader<'_>) -> Result<Vec<Candidate>, Malformed> {
    let count = usize::from(reader.u8("candidate count")?);
    if count > MAX_CANDIDATES {
        return Err(Malformed("candidate count"));
    }
    let mut candidates = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = reader.bytes(Candidate::LEN, "candidate")?;
        candidates.extend(Candidate::read(&mut Reader::new(entry))?);
    }
    Ok(candidates)
}

impl Candidate {
    /// Length of an entry in bytes.
    const LEN: usize = 24;

    fn read(entry: &mut Reader<'_>) -> Result<Option<Self>, Malformed> {
        let kind = match entry.u8("candidate kind")? {
            0 => CandidateKind::Host,
            1 => CandidateKind::Observed,
            2 => CandidateKind::PortMapped,
            3 => CandidateKind::Configured,
            4 => CandidateKind::Varying,
            _ => return Ok(None),
        };
        let transport = match entry.u8("candidate transport")? {
            0 => Transport::Udp,
            1 => Transport::Wss,
            _ => return Ok(None),
        };
        let priority = entry.u8("candidate priority")?;
        entry.zero("candidate reserved byte")?;
        let address = read_socket(entry)?;
        Ok(Some(Self { kind, transport, address, priority }))
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            CandidateKind::Host => 0,
            CandidateKind::Observed => 1,
            CandidateKind::PortMapped => 2,
            CandidateKind::Configured => 3,
            CandidateKind::Varying => 4,
        };
        let transport = match self.transport {
            Transport::Udp => 0,
            Transport::Wss => 1,
        };
        out.extend_from_slice(&[kind, transport, self.priority, 0]);
        out.extend_from_slice(&socket_bytes(self.address));
    }
}

fn read_rekey(reader: &mut Reader<'_>) -> Result<(u32, [u8; 32], Vec<u8>), Malformed> {
    let epoch = reader.u32("rekey epoch")?;
    let x25519 = reader.array("rekey X25519 key")?;
    let mlkem = reader.bytes(MLKEM_LEN, "rekey ML-KEM bytes")?.to_vec();
    Ok((epoch, x25519, mlkem))
}

fn emit_rekey(kind: u8, epoch: u32, x25519: &[u8; 32], mlkem: &[u8], out: &mut Vec<u8>) {
    assert_eq!(mlkem.len(), MLKEM_LEN, "ML-KEM-1024 keys and ciphertexts have {MLKEM_LEN} bytes");
    out.push(kind);
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(x25519);
    out.extend_from_slice(mlkem);
}

#[cfg(test)]
pub(crate) mod tests;
