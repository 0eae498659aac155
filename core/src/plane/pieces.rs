//! Packets longer than a path by UDP carries: cut when they are sealed, made whole when they come (protocol 4.2, 8.3).
//!
//! ```text
//!   packet ─▶ 04 │ inner type │ 00 │ part          sequence n
//!             04 │ inner type │ 01 │ part          n + 1
//!             04 │ inner type │ 82 │ last part     n + 2        ─▶ packet, as soon as n to n + 2 are all here
//! ```
//! The counters of their frames say which pieces belong together, so a piece needs no number of its packet. On a path that keeps no order
//! they come in any order; a packet one of whose pieces is lost is lost, and no other.
use super::{PACKET_BYTES, queue::Plain};
use crate::{
    bound::Bound,
    drops::{Drop, Drops},
    wire::{FRAME_OVERHEAD, INNER_PIECE, LEAST_BUDGET},
};
use std::collections::BTreeMap;

/// What a piece has before its part, beside the inner type 04: the inner type of the whole, and its place in it.
pub(crate) const PIECE_HEAD_LEN: usize = 2;
/// Set in the place of the last piece.
const LAST: u8 = 0x80;
/// Pieces of one packet: the largest packet at the smallest budget has nine.
const PIECES_MAX: u8 = 16;
/// Pieces and bytes that wait for others of their packets.
const WAITING_PIECES: usize = 64;
const WAITING_BYTES: usize = 128 << 10;
/// A piece waits until a frame so many sequences later comes in pieces: by then all that was not lost is here.
const REACH: u64 = 1 << 10;
/// Buffers kept for reuse.
const SPARE: usize = 16;

const _: () = assert!(PACKET_BYTES.div_ceil(LEAST_BUDGET - FRAME_OVERHEAD - PIECE_HEAD_LEN) <= PIECES_MAX as usize);

/// How a packet is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    len: usize,
    /// Bytes of the packet in each piece but the last; None: it goes whole.
    each: Option<usize>,
}

impl Cut {
    /// For a packet of `len` bytes, where sealed frames may have `budget` bytes.
    pub(crate) fn new(len: usize, budget: Option<usize>) -> Self {
        let budget = budget.map(|budget| budget.max(LEAST_BUDGET)).filter(|budget| len + FRAME_OVERHEAD > *budget);
        Self { len, each: budget.map(|budget| budget - FRAME_OVERHEAD - PIECE_HEAD_LEN) }
    }

    /// How many frames it takes.
    pub(crate) fn frames(self) -> usize {
        self.each.map_or(1, |each| self.len.div_ceil(each))
    }

    /// Bytes of all of them, sealed.
    pub(crate) fn sealed(self) -> usize {
        let head = if self.each.is_some() { PIECE_HEAD_LEN } else { 0 };
        self.len + self.frames() * (FRAME_OVERHEAD + head)
    }

    /// The frame `index` of this packet.
    pub(crate) fn frame(self, packet: Plain<'_>, index: usize) -> Piece<'_> {
        let Some(each) = self.each else { return Piece { mark: None, plain: packet } };
        let from = index * each;
        let plain = Plain { inner: INNER_PIECE, head: part(packet.head, from, each), body: &[] };
        let rest = each - plain.head.len();
        let body = part(packet.body, from.saturating_sub(packet.head.len()), rest);
        let last = if index + 1 == self.frames() { LAST } else { 0 };
        Piece { mark: Some([packet.inner, index as u8 | last]), plain: Plain { body, ..plain } }
    }
}

/// At most `len` bytes from `from` on.
fn part(bytes: &[u8], from: usize, len: usize) -> &[u8] {
    let bytes = bytes.get(from..).unwrap_or_default();
    bytes.get(..len).unwrap_or(bytes)
}

/// What goes into one frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// The inner type of the whole and the place in it; None: it is the whole.
    pub(crate) mark: Option<[u8; PIECE_HEAD_LEN]>,
    pub(crate) plain: Plain<'a>,
}

impl Piece<'_> {
    /// Bytes of it, sealed.
    pub(crate) fn sealed(&self) -> usize {
        FRAME_OVERHEAD + self.mark.map_or(0, |mark| mark.len()) + self.plain.len()
    }

    /// Appends what is sealed.
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.plain.inner);
        if let Some(mark) = self.mark {
            out.extend_from_slice(&mark);
        }
        out.extend_from_slice(self.plain.head);
        out.extend_from_slice(self.plain.body);
    }
}

/// Bytes of a packet in this plain frame.
pub(crate) fn packet_bytes(plain: &[u8]) -> usize {
    let head = if plain.first() == Some(&INNER_PIECE) { PIECE_HEAD_LEN } else { 0 };
    plain.len().saturating_sub(1 + head)
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
struct Waiting {
    kind: u8,
    place: u8,
    part: Vec<u8>,
}

/// Pieces that came, and whose packet is not whole yet.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(crate) struct Pieces {
    waiting: BTreeMap<u64, Waiting>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    whole: Vec<u8>,
}

impl Pieces {
    /// What waits, beside the most.
    pub(crate) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("pieces that wait for others", self.waiting.len(), WAITING_PIECES));
        each(Bound::new("bytes of pieces that wait", self.bytes, WAITING_BYTES));
        each(Bound::new("spare buffers of pieces", self.spare.len(), SPARE));
    }

    /// An authentic frame that was not here before: the inner type and packet that are to be handed on, if it is whole, or makes one whole.
    pub(crate) fn take<'a>(&'a mut self, sequence: u64, plain: &'a [u8], drops: &mut Drops) -> Option<&'a [u8]> {
        let Some((&INNER_PIECE, body)) = plain.split_first() else { return Some(plain) };
        let (kind, place, part) = match *body {
            [kind, place, ref part @ ..] if place & !LAST < PIECES_MAX && !part.is_empty() && part.len() <= PACKET_BYTES => {
                (kind, place, part)
            }
            _ => {
                drops.count(Drop::Malformed);
                return None;
            }
        };
        self.make_room(sequence, part.len(), drops);
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.extend_from_slice(part);
        self.bytes += part.len();
        if let Some(other) = self.waiting.insert(sequence, Waiting { kind, place, part: buffer }) {
            self.recycle(other.part);
        }
        let (first, last) = self.run(sequence)?;
        self.join(first, last, drops)
    }

    /// Gives up the oldest, until there is room for one more.
    fn make_room(&mut self, sequence: u64, len: usize, drops: &mut Drops) {
        let is_full = |pieces: &Self| pieces.waiting.len() >= WAITING_PIECES || pieces.bytes + len > WAITING_BYTES;
        while self.waiting.first_key_value().is_some_and(|(oldest, _)| oldest + REACH < sequence) || is_full(self) {
            let Some((_, given_up)) = self.waiting.pop_first() else { break };
            self.recycle(given_up.part);
            drops.count(Drop::HoldFull);
        }
    }

    /// The first and the last sequence of the packet to which this piece belongs, if all of it is here.
    fn run(&self, sequence: u64) -> Option<(u64, u64)> {
        let kind = self.waiting.get(&sequence)?.kind;
        let first = sequence.checked_sub(u64::from(self.waiting.get(&sequence)?.place & !LAST))?;
        for index in 0..PIECES_MAX {
            let at = first + u64::from(index);
            let piece = self.waiting.get(&at).filter(|piece| piece.kind == kind && piece.place & !LAST == index)?;
            if piece.place & LAST != 0 {
                return (at >= sequence).then_some((first, at));
            }
        }
        None
    }

    fn join(&mut self, first: u64, last: u64, drops: &mut Drops) -> Option<&[u8]> {
        self.whole.clear();
        for sequence in first..=last {
            let piece = self.waiting.remove(&sequence)?;
            if self.whole.is_empty() {
                self.whole.push(piece.kind);
            }
            self.whole.extend_from_slice(&piece.part);
            self.recycle(piece.part);
        }
        if self.whole.len() > 1 + PACKET_BYTES {
            drops.count(Drop::Packet);
            return None;
        }
        Some(&self.whole)
    }

    fn recycle(&mut self, mut part: Vec<u8>) {
        self.bytes -= part.len();
        if self.spare.len() < SPARE {
            part.clear();
            self.spare.push(part);
        }
    }
}

#[cfg(test)]
mod tests;
