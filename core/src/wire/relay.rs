//! Control messages between a client and its relay: the body of one control frame of lane FF of their session
//! (protocol 6.4 to 6.8). The connection below is ordered and reliable, so nothing is acknowledged here.
use super::{
    Malformed, Reader,
    addr::{Family, ip_bytes, ip_from_bytes, read_socket, socket_bytes},
    bind::TICKET_LEN,
};
use crate::id::{Handle, PeerId};
use core::net::SocketAddr;

/// Most entries in one page of the directory.
pub const MAX_DIRECTORY_ENTRIES: usize = 256;
/// Flag of UPDATE: the client takes direct connections (`PeerSupportsDirectP2P`).
pub const UPDATE_SUPPORTS_DIRECT: u8 = 1;
/// Flag of UPDATE: the client's address is not to be told to others.
pub const UPDATE_WITHHOLD_ADDRESS: u8 = 2;

const ESTABLISHED: u8 = 0x40;
const DIRECTORY: u8 = 0x41;
const PING: u8 = 0x42;
const PONG: u8 = 0x43;
const LOOKUP: u8 = 0x44;
const CLOSE: u8 = 0x45;
const UPDATE: u8 = 0x46;
const GO_AWAY: u8 = 0x47;
const ATTACH: u8 = 0x48;
const ROUTE: u8 = 0x49;

const ENTRY_SUPPORTS_DIRECT: u8 = 1;
const ENTRY_ONLINE: u8 = 2;
const ENTRY_IPV6: u8 = 4;
const ENTRY_WITHHELD: u8 = 8;

/// A message between relay and client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayMessage {
    /// The relay's first sealed frame: the handshake is done, this is your place.
    Established(Established),
    /// A further page of the directory, or changes: for each peer the last state wins.
    Directory {
        /// At most 256.
        entries: Vec<DirectoryEntry>,
    },
    /// Asks for a PONG with the same number.
    Ping {
        /// Comes back in the answer.
        id: u32,
    },
    /// Answer to PING.
    Pong {
        /// From the PING.
        id: u32,
    },
    /// Client to relay: tell me the entry of this peer.
    Lookup {
        /// The peer wanted.
        peer: PeerId,
    },
    /// The connection ends now.
    Close {
        /// One of the `CLOSE_…` numbers.
        reason: u8,
    },
    /// Client to relay: my direct support or address-withholding changed.
    Update {
        /// `UPDATE_…` bits; unknown ones are ignored.
        flags: u8,
        /// Own UDP port, 0 = none.
        udp_port: u16,
    },
    /// Relay to client: this relay ends soon; who has another one should take that (protocol 6.9).
    GoAway {
        /// At the latest, in seconds.
        within_s: u16,
    },
    /// Client to relay: my datagrams come from this address, and those for me go there (protocol 8.8).
    Attach {
        /// As BOUND told it.
        address: SocketAddr,
        /// From the same BOUND.
        ticket: [u8; TICKET_LEN],
    },
    /// Client to relay: my datagrams with this receiver are for this member (protocol 8.8).
    Route {
        /// The session number in their header, which the other end chose.
        receiver: u32,
        /// Whose they are.
        to: Handle,
    },
}

/// What a relay tells a client that has joined (protocol 6.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// Number of the session, for logs on both sides.
    pub session_id: [u8; 16],
    /// Under which the client's frames come to others.
    pub your_handle: Handle,
    /// Source address of the client's connection as the relay sees it.
    pub observed: SocketAddr,
    /// Longest silence of the client in seconds.
    pub keepalive_s: u16,
    /// Longest payload of a record in bytes.
    pub max_frame: u16,
    /// Most unreceipted frames to one peer over this relay.
    pub window: u32,
    /// The relay's first UDP port, 0 = none (protocol 8.1, 8.8).
    pub udp_port: u16,
    /// First page of the directory, at most 256 entries.
    pub entries: Vec<DirectoryEntry>,
}

/// One member of the client's network, as the relay knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Where to send frames for it.
    pub handle: Handle,
    /// Who it is; proven again end to end.
    pub peer: PeerId,
    /// `PeerPublicIP` and `PeerPublicPort`: source of the peer's relay connection as the relay sees it; None when withheld.
    pub public: Option<SocketAddr>,
    /// `PeerSupportsDirectP2P`.
    pub supports_direct: bool,
    /// Whether it is connected now.
    pub online: bool,
}

impl RelayMessage {
    /// Reads the body of a control frame of lane FF between client and relay.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let message = match reader.u8("relay message type")? {
            // protocol 6.5: what follows the entries is for later versions
            ESTABLISHED => return Established::read(&mut reader).map(Self::Established),
            DIRECTORY => Self::Directory { entries: read_entries(&mut reader)? },
            PING => Self::Ping { id: reader.u32("ping id")? },
            PONG => Self::Pong { id: reader.u32("pong id")? },
            LOOKUP => Self::Lookup { peer: PeerId(reader.array("lookup peer")?) },
            CLOSE => Self::Close { reason: reader.u8("close reason")? },
            UPDATE => {
                let flags = reader.u8("update flags")?;
                reader.zero("update reserved byte")?;
                Self::Update { flags, udp_port: reader.u16("update UDP port")? }
            }
            ATTACH => Self::Attach { address: read_socket(&mut reader)?, ticket: reader.array("attach ticket")? },
            ROUTE => Self::Route { receiver: reader.u32("route receiver")?, to: Handle(reader.u32("route handle")?) },
            GO_AWAY => Self::GoAway { within_s: reader.u16("seconds until the end")? },
            _ => return Err(Malformed("relay message type")),
        };
        reader.end("bytes after relay message")?;
        Ok(message)
    }

    /// Appends the body of a control frame of lane FF between client and relay.
    ///
    /// # Panics
    /// When a page has more than [`MAX_DIRECTORY_ENTRIES`] entries: our own fault.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Established(established) => established.emit(out),
            Self::Directory { entries } => {
                out.push(DIRECTORY);
                emit_entries(entries, out);
            }
            Self::Ping { id } => {
                out.push(PING);
                out.extend_from_slice(&id.to_be_bytes());
            }
            Self::Pong { id } => {
                out.push(PONG);
                out.extend_from_slice(&id.to_be_bytes());
            }
            Self::Lookup { peer } => {
                out.push(LOOKUP);
                out.extend_from_slice(&peer.0);
            }
            Self::Close { reason } => out.extend_from_slice(&[CLOSE, *reason]),
            Self::Update { flags, udp_port } => {
                out.extend_from_slice(&[UPDATE, *flags, 0]);
                out.extend_from_slice(&udp_port.to_be_bytes());
            }
            Self::GoAway { within_s } => {
                out.push(GO_AWAY);
                out.extend_from_slice(&within_s.to_be_bytes());
            }
            Self::Attach { address, ticket } => {
                out.push(ATTACH);
                out.extend_from_slice(&socket_bytes(*address));
                out.extend_from_slice(ticket);
            }
            Self::Route { receiver, to } => {
                out.push(ROUTE);
                out.extend_from_slice(&receiver.to_be_bytes());
                out.extend_from_slice(&to.0.to_be_bytes());
            }
        }
    }
}

impl Established {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            session_id: reader.array("session id")?,
            your_handle: Handle(reader.u32("own handle")?),
            observed: read_socket(reader)?,
            keepalive_s: reader.u16("keepalive")?,
            max_frame: reader.u16("longest frame")?,
            window: reader.u32("window")?,
            udp_port: reader.u16("relay UDP port")?,
            entries: read_entries(reader)?,
        })
    }

    fn emit(&self, out: &mut Vec<u8>) {
        out.push(ESTABLISHED);
        out.extend_from_slice(&self.session_id);
        out.extend_from_slice(&self.your_handle.0.to_be_bytes());
        out.extend_from_slice(&socket_bytes(self.observed));
        out.extend_from_slice(&self.keepalive_s.to_be_bytes());
        out.extend_from_slice(&self.max_frame.to_be_bytes());
        out.extend_from_slice(&self.window.to_be_bytes());
        out.extend_from_slice(&self.udp_port.to_be_bytes());
        emit_entries(&self.entries, out);
    }
}

fn read_entries(reader: &mut Reader<'_>) -> Result<Vec<DirectoryEntry>, Malformed> {
    let count = usize::from(reader.u16("entry count")?);
    if count > MAX_DIRECTORY_ENTRIES || reader.remaining() < count * DirectoryEntry::LEN {
        return Err(Malformed("entry count"));
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(DirectoryEntry::read(reader)?);
    }
    Ok(entries)
}

fn emit_entries(entries: &[DirectoryEntry], out: &mut Vec<u8>) {
    assert!(entries.len() <= MAX_DIRECTORY_ENTRIES, "a page of the directory has at most {MAX_DIRECTORY_ENTRIES} entries");
    out.extend_from_slice(&(entries.len() as u16).to_be_bytes());
    for entry in entries {
        entry.emit(out);
    }
}

impl DirectoryEntry {
    /// Length of an entry in bytes.
    pub const LEN: usize = 56;

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let handle = Handle(reader.u32("entry handle")?);
        let peer = PeerId(reader.array("entry peer")?);
        let bytes = reader.array("PeerPublicIP")?;
        let port = reader.u16("PeerPublicPort")?;
        let flags = reader.u8("entry flags")?;
        reader.zero("entry reserved byte")?;
        let family = if flags & ENTRY_IPV6 == 0 { Family::V4 } else { Family::V6 };
        let public = if flags & ENTRY_WITHHELD == 0 {
            Some(SocketAddr::new(ip_from_bytes(bytes, family)?, port))
        } else if bytes == [0; 16] && port == 0 {
            None
        } else {
            return Err(Malformed("withheld address is not zero"));
        };
        Ok(Self { handle, peer, public, supports_direct: flags & ENTRY_SUPPORTS_DIRECT != 0, online: flags & ENTRY_ONLINE != 0 })
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let mut flags = 0;
        if self.supports_direct {
            flags |= ENTRY_SUPPORTS_DIRECT;
        }
        if self.online {
            flags |= ENTRY_ONLINE;
        }
        let (mut bytes, mut port) = ([0; 16], 0);
        if let Some(address) = self.public {
            if Family::of(address.ip()) == Family::V6 {
                flags |= ENTRY_IPV6;
            }
            (bytes, port) = (ip_bytes(address.ip()), address.port());
        } else {
            flags |= ENTRY_WITHHELD;
        }
        out.extend_from_slice(&self.handle.0.to_be_bytes());
        out.extend_from_slice(&self.peer.0);
        out.extend_from_slice(&bytes);
        out.extend_from_slice(&port.to_be_bytes());
        out.extend_from_slice(&[flags, 0]);
    }
}

#[cfg(test)]
mod tests;
