//! The header in front of each packet of an interface with offloads: `struct virtio_net_hdr` (virtio 1.2 5.1.6), in the byte order of this
//! machine.
//!
//! ```text
//! flags 1 | GSO type 1 | header length 2 | GSO size 2 | checksum start 2 | checksum offset 2
//! ```
use shadowmesh_core::offload::{Large, Offload, PartialChecksum, Segmentation};

/// Bytes of the header.
pub(super) const HEADER_LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;

/// What a header says. A way to cut that was not asked for yields none, and a packet that is too long, which is dropped where that is counted.
pub(super) fn parse(header: [u8; HEADER_LEN]) -> Offload {
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let kind = match header[1] {
        GSO_TCP_V4 => Some(Large::TcpV4),
        GSO_TCP_V6 => Some(Large::TcpV6),
        GSO_UDP => Some(Large::Udp),
        _ => None,
    };
    let needed = header[0] & NEEDS_CHECKSUM != 0;
    Offload {
        checksum: needed.then(|| PartialChecksum { start: word(6), offset: word(8) }),
        segmentation: kind.map(|kind| Segmentation { kind, size: word(4) }),
    }
}

/// The header of a packet.
pub(super) fn header(offload: Offload, packet: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let mut put = |at: usize, word: u16| header[at..at + 2].copy_from_slice(&word.to_ne_bytes());
    let Some(PartialChecksum { start, offset }) = offload.checksum else { return header };
    put(6, start);
    put(8, offset);
    if let Some(Segmentation { kind, size }) = offload.segmentation {
        let tcp_words = packet.get(usize::from(start) + 12).map_or(0, |byte| u16::from(byte >> 4));
        let (kind, transport_len) = match kind {
            Large::TcpV4 => (GSO_TCP_V4, tcp_words * 4),
            Large::TcpV6 => (GSO_TCP_V6, tcp_words * 4),
            Large::Udp => (GSO_UDP, 8),
        };
        put(2, start + transport_len);
        put(4, size);
        header[1] = kind;
    }
    header[0] = NEEDS_CHECKSUM;
    header
}
