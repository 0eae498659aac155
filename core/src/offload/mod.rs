//! What a kernel leaves to the far side of its interface: checksums that are only begun, and packets that are still to be cut.
//!
//! ```text
//!  interface ─▶ one large packet ─▶ Segments ─▶ packets with a checksum begun ─▶ seal … open ─▶ Joiner ─▶ one large packet ─▶ interface
//! ```
//! The kernel hands over up to 64 KiB of one TCP or UDP flow at once (TSO, USO) with the sum of the pseudo-header alone in the checksum
//! field. It is cut here into packets of the size that it names. The rest of the checksum is left out on the whole way: the seal says more
//! than it could. The far end joins neighbours again and hands them to its kernel with the same word (protocol 4.2).
//!
//! Nothing here trusts a length: whatever does not agree with itself is refused, or is sent on unjoined.
pub(crate) mod checksum;
mod join;
mod segments;

pub use checksum::finish;
pub use join::{Joiner, Joins};
pub use segments::Segments;

/// What is still to be done to a packet (`struct virtio_net_hdr`, virtio 1.2 5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Its checksum is only begun.
    pub checksum: Option<PartialChecksum>,
    /// It is to be cut.
    pub segmentation: Option<Segmentation>,
}

/// A checksum field that holds the sum of the pseudo-header alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// The first byte that the checksum covers; it covers all behind it.
    pub start: u16,
    /// The field, in bytes from `start`.
    pub offset: u16,
}

/// How a large packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// What it is.
    pub kind: Large,
    /// Bytes of payload in each piece but the last.
    pub size: u16,
}

/// A large packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Large {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP.
    Udp,
}

impl Large {
    const fn transport(self) -> Transport {
        match self {
            Self::TcpV4 | Self::TcpV6 => Transport::Tcp,
            Self::Udp => Transport::Udp,
        }
    }
}

/// A protocol whose packets can be cut and joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// Whether the checksum of a packet is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// As its sender computed it.
    Full,
    /// The sum of the pseudo-header alone: see [`Layout`].
    Partial,
}

impl Transport {
    /// Where the checksum lies in its header.
    pub(crate) const fn checksum_offset(self) -> u16 {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Bytes of an Ethernet header, and of a VLAN tag.
const ETHERNET_LEN: usize = 14;
const VLAN_LEN: usize = 4;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;

/// Where the parts of a TCP or UDP packet lie. Only what is plain has one: no fragment, no extension header, all lengths agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The IP header.
    pub(crate) ip: usize,
    pub(crate) is_v6: bool,
    /// The TCP or UDP header.
    pub(crate) start: usize,
    pub(crate) transport: Transport,
    /// The payload.
    pub(crate) payload: usize,
}

impl Layout {
    /// That of a packet, or of an Ethernet frame with at most one VLAN tag.
    pub fn of(layer2: bool, packet: &[u8]) -> Option<Self> {
        let (ip, version) = ip_header(layer2, packet)?;
        let header = packet.get(ip..)?;
        if header.first()? >> 4 != version {
            return None;
        }
        let is_v6 = version == 6;
        let (ip_len, protocol, total) = if is_v6 {
            let fixed = header.first_chunk::<IPV6_LEN>()?;
            (IPV6_LEN, fixed[6], IPV6_LEN + usize::from(u16::from_be_bytes([fixed[4], fixed[5]])))
        } else {
            let fixed = header.first_chunk::<20>()?;
            let ip_len = usize::from(fixed[0] & 15) * 4;
            let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff;
            if ip_len < 20 || fragment != 0 {
                return None;
            }
            (ip_len, fixed[9], usize::from(u16::from_be_bytes([fixed[2], fixed[3]])))
        };
        let start = ip + ip_len;
        let segment = packet.get(start..)?;
        if header.len() != total {
            return None;
        }
        let (transport, header_len) = match protocol {
            6 => (Transport::Tcp, usize::from(*segment.get(12)? >> 4) * 4),
            17 => (Transport::Udp, UDP_LEN),
            _ => return None,
        };
        let least = if transport == Transport::Tcp { 20 } else { UDP_LEN };
        if header_len < least || segment.len() < header_len {
            return None;
        }
        if transport == Transport::Udp && usize::from(u16::from_be_bytes([segment[4], segment[5]])) != segment.len() {
            return None;
        }
        Some(Self { ip, is_v6, start, transport, payload: start + header_len })
    }

    /// What several of these make.
    pub(crate) fn large(&self) -> Large {
        match (self.transport, self.is_v6) {
            (Transport::Tcp, false) => Large::TcpV4,
            (Transport::Tcp, true) => Large::TcpV6,
            (Transport::Udp, _) => Large::Udp,
        }
    }

    /// Where a checksum of this packet that is only begun lies.
    pub fn partial(&self) -> Option<PartialChecksum> {
        Some(PartialChecksum { start: u16::try_from(self.start).ok()?, offset: self.transport.checksum_offset() })
    }
}

/// Where the IP header lies, and its version.
fn ip_header(layer2: bool, packet: &[u8]) -> Option<(usize, u8)> {
    if !layer2 {
        let version = packet.first()? >> 4;
        return matches!(version, 4 | 6).then_some((0, version));
    }
    let kind = |at: usize| packet.get(at..at + 2);
    let (at, kind) = match kind(12)? {
        [0x81, 0x00] => (ETHERNET_LEN + VLAN_LEN, kind(12 + VLAN_LEN)?),
        kind => (ETHERNET_LEN, kind),
    };
    match kind {
        [0x08, 0x00] => Some((at, 4)),
        [0x86, 0xdd] => Some((at, 6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
