//! Bytes of the fuzzer as steps and numbers; what is not there reads as zero, so every input is a script.

/// A cursor over the input.
pub(super) struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let number = if bound > 256 { usize::from(self.u16()) } else { usize::from(self.byte()) };
        number.checked_rem(bound).unwrap_or(0)
    }

    /// The next `len` bytes, or what is left.
    pub(super) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        head
    }

    /// A length in one byte and so many bytes.
    pub(super) fn piece(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.bytes(len)
    }

    /// Changes a genuine message: bits, pieces put in, taken out, put over, taken from other messages, cut.
    pub(super) fn spoil(&mut self, genuine: &[u8], donors: &[&[u8]]) -> Vec<u8> {
        let mut bytes = genuine.to_vec();
        for _ in 0..self.below(9) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 => {
                    let bit = self.below(8);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << bit;
                    }
                }
                1 => {
                    for (to, from) in bytes[at..].iter_mut().zip(self.piece()) {
                        *to = *from;
                    }
                }
                2 => bytes.truncate(at),
                3 => {
                    let piece = self.piece();
                    bytes.splice(at..at, piece.iter().copied());
                }
                4 => {
                    let end = bytes.len().min(at + self.below(256));
                    bytes.drain(at..end);
                }
                5 if !donors.is_empty() => {
                    let donor = donors[self.below(donors.len())];
                    let len = self.below(4096);
                    let end = donor.len().min(at + len);
                    for (to, from) in bytes[at..].iter_mut().zip(donor.get(at..end).unwrap_or_default()) {
                        *to = *from;
                    }
                }
                _ => {
                    let fill = self.byte();
                    let end = bytes.len().min(at + self.below(256));
                    bytes[at..end].fill(fill);
                }
            }
        }
        bytes
    }
}
