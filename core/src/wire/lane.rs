//! Control messages of one data lane, on lane 80+n inside sealed frames of inner type 80 (protocol 7.2 to 7.4).
//! They are on the hot path: nothing here allocates but the buffer that `emit` appends to.
//!
//! ```text
//! LaneControl  01 SWITCH  02 DRAIN  03 RECEIPT
//! ```
use super::{Counter, LANE_CONTROL_BIT, LANE_NODE, Malformed, Reader};
use crate::id::PathId;

/// Most words in the mask of a receipt: 1,024 sequences above the floor, four relay windows.
pub const RECEIPT_MASK_WORDS: usize = 16;

const SWITCH: u8 = 0x01;
const DRAIN: u8 = 0x02;
const RECEIPT: u8 = 0x03;
/// Sealed on lane 80+n by the owner of data lane n; neither acknowledged nor ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneControl {
    /// Frames from sequence `start` on carry `generation` and go the path `to`.
    Switch {
        /// Data lane, 00 to 7E.
        lane: u8,
        /// The new generation.
        generation: u8,
        /// First sequence that goes the new way.
        start: u64,
        /// The path that is left.
        from: PathId,
        /// The path that is taken.
        to: PathId,
    },
    /// The last thing of `lane` before sequence `start` on the old path.
    Drain {
        /// Data lane, 00 to 7E.
        lane: u8,
        /// The generation that begins at `start`.
        generation: u8,
        /// First sequence that goes the new way.
        start: u64,
        /// The path that is left, on which this message goes.
        path: PathId,
    },
    /// What the receiver of a lane has.
    Receipt(Receipt),
}

/// What the receiver of a data lane has (protocol 7.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Data lane, 00 to 7E.
    pub lane: u8,
    /// Generation of the newest switch that the receiver knows.
    pub generation: u8,
    /// All sequences below are done with: delivered, or given up and counted lost.
    pub floor: u64,
    /// Highest sequence received, plus one; 0 = none yet.
    pub next: u64,
    /// Path on which the newest data came.
    pub path: PathId,
    /// Microseconds between the arrival of `next - 1` and this receipt.
    pub delay_us: u32,
    /// Frames given up by the floor so far, modulo 2^32.
    pub lost: u32,
    /// Which sequences from `floor` on have been received.
    pub mask: ReceiptMask,
}

/// Bit i (lowest bit of word 0 first) says that sequence `floor + i` was received. Trailing zero words do not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiptMask {
    words: [u64; RECEIPT_MASK_WORDS],
    len: u8,
}

impl ReceiptMask {
    /// Number of sequences that a mask can tell of.
    pub const BITS: u64 = RECEIPT_MASK_WORDS as u64 * 64;

    /// Nothing above the floor.
    pub const fn new() -> Self {
        Self { words: [0; RECEIPT_MASK_WORDS], len: 0 }
    }

    /// The mask with these words; words past [`RECEIPT_MASK_WORDS`] and trailing zero words are left out.
    pub fn from_words(words: &[u64]) -> Self {
        let mut mask = Self::new();
        for (index, (to, from)) in mask.words.iter_mut().zip(words).enumerate() {
            *to = *from;
            if *from != 0 {
                mask.len = index as u8 + 1;
            }
        }
        mask
    }

    /// Marks `floor + bit` as received; false when it is beyond the mask.
    pub fn set(&mut self, bit: u64) -> bool {
        let index = usize::try_from(bit / 64).unwrap_or(usize::MAX);
        let Some(word) = self.words.get_mut(index) else {
            return false;
        };
        *word |= 1 << (bit % 64);
        self.len = self.len.max(index as u8 + 1);
        true
    }

    /// Whether `floor + bit` is marked as received.
    pub fn get(&self, bit: u64) -> bool {
        let index = usize::try_from(bit / 64).unwrap_or(usize::MAX);
        self.words.get(index).is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }

    /// The words, without trailing zero words.
    pub fn words(&self) -> &[u64] {
        self.words.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Number of sequences marked.
    pub fn count(&self) -> u32 {
        self.words().iter().map(|word| word.count_ones()).sum()
    }
}

fn data_lane(reader: &mut Reader<'_>) -> Result<u8, Malformed> {
    let lane = reader.u8("lane")?;
    // protocol 4.3: the control lane of 7F would be the Node's own
    if lane < LANE_NODE - LANE_CONTROL_BIT { Ok(lane) } else { Err(Malformed("lane")) }
}

fn sequence(reader: &mut Reader<'_>, field: &'static str) -> Result<u64, Malformed> {
    let sequence = reader.u64(field)?;
    if sequence <= Counter::MAX_SEQUENCE { Ok(sequence) } else { Err(Malformed(field)) }
}

impl LaneControl {
    /// The data lane that it speaks of; only the control lane of this one may carry it.
    pub fn lane(&self) -> u8 {
        match self {
            Self::Switch { lane, .. } | Self::Drain { lane, .. } | Self::Receipt(Receipt { lane, .. }) => *lane,
        }
    }

    /// Reads the body of a control frame of lane 80+n.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let message = match reader.u8("lane control type")? {
            SWITCH => {
                let lane = data_lane(&mut reader)?;
                let generation = reader.u8("switch generation")?;
                reader.zero("switch reserved byte")?;
                let from = PathId(reader.u32("switch from")?);
                let to = PathId(reader.u32("switch to")?);
                let start = sequence(&mut reader, "switch start")?;
                Self::Switch { lane, generation, start, from, to }
            }
            DRAIN => {
                let lane = data_lane(&mut reader)?;
                let generation = reader.u8("drain generation")?;
                reader.zero("drain reserved byte")?;
                let path = PathId(reader.u32("drain path")?);
                let start = sequence(&mut reader, "drain start")?;
                Self::Drain { lane, generation, start, path }
            }
            RECEIPT => Self::Receipt(Receipt::read(&mut reader)?),
            _ => return Err(Malformed("lane control type")),
        };
        reader.end("bytes after lane control")?;
        Ok(message)
    }

    /// Appends the body of a control frame of lane 80+n.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Switch { lane, generation, start, from, to } => {
                out.extend_from_slice(&[SWITCH, *lane, *generation, 0]);
                out.extend_from_slice(&from.0.to_be_bytes());
                out.extend_from_slice(&to.0.to_be_bytes());
                out.extend_from_slice(&start.to_be_bytes());
            }
            Self::Drain { lane, generation, start, path } => {
                out.extend_from_slice(&[DRAIN, *lane, *generation, 0]);
                out.extend_from_slice(&path.0.to_be_bytes());
                out.extend_from_slice(&start.to_be_bytes());
            }
            Self::Receipt(receipt) => receipt.emit(out),
        }
    }
}

impl Receipt {
    /// Longest receipt in bytes.
    pub const MAX_LEN: usize = 32 + 8 * RECEIPT_MASK_WORDS;

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let lane = data_lane(reader)?;
        let generation = reader.u8("receipt generation")?;
        let len = reader.u8("receipt mask length")?;
        let path = PathId(reader.u32("receipt path")?);
        let delay_us = reader.u32("receipt delay")?;
        let lost = reader.u32("receipt lost")?;
        let floor = sequence(reader, "receipt floor")?;
        let next = sequence(reader, "receipt next")?;
        let mut mask = ReceiptMask { words: [0; RECEIPT_MASK_WORDS], len };
        let words = mask.words.get_mut(..usize::from(len)).ok_or(Malformed("receipt mask length"))?;
        for word in words.iter_mut() {
            *word = reader.u64("receipt mask")?;
        }
        if words.last() == Some(&0) {
            return Err(Malformed("receipt mask ends with a zero word"));
        }
        Ok(Self { lane, generation, floor, next, path, delay_us, lost, mask })
    }

    /// Appends the body of a control frame with this receipt.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[RECEIPT, self.lane, self.generation, self.mask.len]);
        out.extend_from_slice(&self.path.0.to_be_bytes());
        out.extend_from_slice(&self.delay_us.to_be_bytes());
        out.extend_from_slice(&self.lost.to_be_bytes());
        out.extend_from_slice(&self.floor.to_be_bytes());
        out.extend_from_slice(&self.next.to_be_bytes());
        for word in self.mask.words() {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
