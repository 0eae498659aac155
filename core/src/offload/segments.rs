//! Cuts a large packet into those that it stands for.
use super::{
    Layout, Offload, PartialChecksum, Segmentation, Transport,
    checksum::{complete, fold, replace, sum},
};
use crate::wire::Malformed;

/// Bytes in front of the payload at most: Ethernet with a VLAN tag, an IP header with what may follow it, the longest TCP header.
const HEAD_BYTES: usize = 192;

const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;
const UDP_LENGTH: usize = 4;
/// Flags of TCP that belong to the last piece: FIN and PSH.
pub(super) const LAST_FLAGS: u8 = 0x09;
/// CWR belongs to the first (RFC 3168 6.1.2).
const FIRST_FLAGS: u8 = 0x80;

/// The packets that a packet from the interface stands for, in order.
pub struct Segments<'a> {
    head: [u8; HEAD_BYTES],
    head_len: usize,
    body: &'a [u8],
    cut: Option<Cut>,
    partial: PartialChecksum,
    finish: bool,
}

/// What changes from piece to piece.
#[derive(Clone, Copy)]
struct Cut {
    transport: Transport,
    size: usize,
    ip: usize,
    is_v6: bool,
    start: usize,
    /// Sum of the pseudo-header, its length left out.
    pseudo: u16,
    /// Sum of the IPv4 header, its length and identification left out.
    header: u16,
    identification: u16,
    sequence: u32,
    flags: u8,
    pieces: u16,
}

impl<'a> Segments<'a> {
    /// Those of `packet`. A packet whose parts lie elsewhere than [`Layout`] would look for them gets its checksums here.
    ///
    /// # Errors
    /// The lengths do not agree, or the headers are too long to be any.
    pub fn new(layer2: bool, offload: Offload, packet: &'a [u8]) -> Result<Self, Malformed> {
        let Some(partial) = offload.checksum else { return Err(Malformed("a large packet without a checksum begun")) };
        let start = usize::from(partial.start);
        let field = start + usize::from(partial.offset);
        let layout = Layout::of(layer2, packet);
        let finish = layout.is_none_or(|layout| layout.partial() != Some(partial));
        let head_len = match offload.segmentation.map(|segmentation| segmentation.kind.transport()) {
            None => field + 2,
            Some(Transport::Udp) => start + 8,
            Some(Transport::Tcp) => start + usize::from(packet.get(start + 12).ok_or(Malformed("large packet"))? >> 4) * 4,
        };
        let (front, body) = packet.split_at_checked(head_len).ok_or(Malformed("large packet"))?;
        let mut head = [0; HEAD_BYTES];
        head.get_mut(..head_len).ok_or(Malformed("headers of a large packet"))?.copy_from_slice(front);
        let mut segments = Self { head, head_len, body, cut: None, partial, finish };
        if let Some(segmentation) = offload.segmentation {
            segments.cut = Some(segments.cut(layer2, segmentation)?);
        }
        Ok(segments)
    }

    /// Whether their checksums are only begun.
    pub fn are_partial(&self) -> bool {
        !self.finish
    }

    /// The next one: its headers, and the rest of it.
    pub fn step(&mut self) -> Option<(&[u8], &'a [u8])> {
        let body = self.body;
        let piece = match &mut self.cut {
            // a packet that is not to be cut is its only piece, also without a payload
            None if self.head_len == 0 => return None,
            None => {
                self.body = &[];
                body
            }
            Some(_) if body.is_empty() => return None,
            Some(cut) => {
                let (piece, rest) = body.split_at(body.len().min(cut.size));
                cut.write(&mut self.head[..self.head_len], piece.len(), rest.is_empty());
                cut.pieces = cut.pieces.wrapping_add(1);
                self.body = rest;
                piece
            }
        };
        if self.finish {
            self.finish(piece);
        }
        let head_len = self.head_len;
        if self.cut.is_none() {
            self.head_len = 0;
        }
        Some((&self.head[..head_len], piece))
    }

    fn cut(&self, layer2: bool, segmentation: Segmentation) -> Result<Cut, Malformed> {
        let (transport, size) = (segmentation.kind.transport(), segmentation.size);
        let start = usize::from(self.partial.start);
        let head = &self.head[..self.head_len];
        let least = if transport == Transport::Tcp { 20 } else { 8 };
        let fits = u16::try_from(usize::from(size) + self.head_len).is_ok();
        if size == 0 || !fits || self.partial.offset != transport.checksum_offset() || self.head_len < start + least {
            return Err(Malformed("segmentation"));
        }
        let (ip, version) = super::ip_header(layer2, head).ok_or(Malformed("large packet"))?;
        let is_v6 = match version {
            4 if start >= ip + 20 => false,
            6 if start >= ip + 40 => true,
            _ => return Err(Malformed("large packet")),
        };
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let covered = fold((head.len() - start + self.body.len()) as u64);
        let header =
            if is_v6 { 0 } else { fold(sum(&head[ip..start]) + [2, 4, 10].map(|at| u64::from(!word(ip + at))).iter().sum::<u64>()) };
        let is_tcp = transport == Transport::Tcp;
        Ok(Cut {
            transport,
            size: usize::from(size),
            ip,
            is_v6,
            start,
            pseudo: replace(word(start + usize::from(self.partial.offset)), covered, 0),
            header,
            identification: word(ip + 4),
            sequence: (u32::from(word(start + TCP_SEQUENCE)) << 16) | u32::from(word(start + TCP_SEQUENCE + 2)),
            flags: if is_tcp { head[start + TCP_FLAGS] } else { 0 },
            pieces: 0,
        })
    }

    fn finish(&mut self, piece: &[u8]) {
        let start = usize::from(self.partial.start);
        let field = start + usize::from(self.partial.offset);
        // an odd header would shift the words of what follows; none is
        let head = &mut self.head[..self.head_len];
        let front = sum(&head[start..]);
        let behind = if (head.len() - start).is_multiple_of(2) { sum(piece) } else { u64::from(fold(sum(piece)).swap_bytes()) };
        head[field..field + 2].copy_from_slice(&complete(front + behind).to_be_bytes());
    }
}

impl Cut {
    /// Makes the headers those of the next piece, with `len` bytes of payload.
    fn write(&self, head: &mut [u8], len: usize, is_last: bool) {
        let covered = (head.len() - self.start + len) as u16;
        let mut put = |at: usize, word: u16| head[at..at + 2].copy_from_slice(&word.to_be_bytes());
        let whole = covered + (self.start - self.ip) as u16;
        if self.is_v6 {
            put(self.ip + 4, whole - super::IPV6_LEN as u16);
        } else {
            let identification = self.identification.wrapping_add(self.pieces);
            put(self.ip + 2, whole);
            put(self.ip + 4, identification);
            put(self.ip + 10, !fold(u64::from(self.header) + u64::from(whole) + u64::from(identification)));
        }
        put(self.start + usize::from(self.transport.checksum_offset()), fold(u64::from(self.pseudo) + u64::from(covered)));
        match self.transport {
            Transport::Udp => put(self.start + UDP_LENGTH, covered),
            Transport::Tcp => {
                let sequence = self.sequence.wrapping_add(u32::from(self.pieces) * self.size as u32);
                put(self.start + TCP_SEQUENCE, (sequence >> 16) as u16);
                put(self.start + TCP_SEQUENCE + 2, sequence as u16);
                let early = if self.pieces == 0 { 0 } else { FIRST_FLAGS };
                let late = if is_last { 0 } else { LAST_FLAGS };
                head[self.start + TCP_FLAGS] = self.flags & !early & !late;
            }
        }
    }
}
