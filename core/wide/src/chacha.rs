//! `ChaCha20` (RFC 8439 2.3, 2.4): four blocks in each group of four registers, up to six groups side by side.
//!
//! A register holds one row of the state for four blocks, so a quarter round works on four columns of four blocks at once, and the
//! diagonals come from turning three of the rows. One group leaves most of the processor idle, for each step waits for the one
//! before; six groups fill it and still fit into its 32 registers.
use crate::register::{load, store};
use std::arch::x86_64::{
    __m512i, _mm_set_epi32, _mm512_add_epi32, _mm512_broadcast_i32x4, _mm512_rol_epi32, _mm512_set_epi32, _mm512_setzero_si512,
    _mm512_shuffle_epi32, _mm512_shuffle_i32x4, _mm512_xor_si512,
};

/// Bytes of a block.
const BLOCK: usize = 64;
/// Blocks in a group.
const LANES: usize = 4;
/// The most blocks of one pass.
const WIDEST: usize = 6 * LANES;
/// RFC 8439 2.3: "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The four rows of a state, each for four blocks.
type Rows = [__m512i; 4];

/// The key stream of one nonce. What is left of it on the stack is worth no more than the plaintext beside it; the stack and the
/// registers that the key itself passes through are not wiped, no more than other implementations do.
pub(crate) struct Stream {
    /// The state of the next four blocks.
    state: Rows,
    /// What the last pass made.
    made: [__m512i; WIDEST],
    /// Which part of `made` is not used yet.
    left: std::ops::Range<usize>,
}

impl Stream {
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(crate) fn new(key: &[u8; 32], nonce: &[u8; 12]) -> Self {
        let ([low, high], nonce) = (halves(&words::<8>(key)), words::<3>(nonce));
        let counter = _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0);
        let last = _mm512_add_epi32(row([0, nonce[0], nonce[1], nonce[2]]), counter);
        let state = [row(CONSTANTS), row(low), row(high), last];
        Self { state, made: [_mm512_setzero_si512(); WIDEST], left: 0..0 }
    }

    /// The one-time key of Poly1305 (RFC 8439 2.6), from the same pass as the key stream of the first of `len` bytes.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(crate) fn first(&mut self, len: usize) -> [u8; 32] {
        self.make(1 + len.div_ceil(BLOCK));
        self.left.start = 1;
        let mut block = [0; BLOCK];
        store(&mut block, self.made[0]);
        let mut key = [0; 32];
        key.copy_from_slice(&block[..32]);
        key
    }

    /// Encrypts or decrypts: `data` is changed by the key stream that follows what was used.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(crate) fn apply(&mut self, mut data: &mut [u8]) {
        while !data.is_empty() {
            if self.left.is_empty() {
                self.make(data.len().div_ceil(BLOCK));
            }
            let (now, later) = data.split_at_mut(data.len().min(self.left.len() * BLOCK));
            let (whole, rest) = now.as_chunks_mut::<BLOCK>();
            for block in whole {
                self.change(block);
            }
            if !rest.is_empty() {
                let mut block = [0; BLOCK];
                block[..rest.len()].copy_from_slice(rest);
                self.change(&mut block);
                rest.copy_from_slice(&block[..rest.len()]);
            }
            data = later;
        }
    }

    /// Changes one block by the next of the key stream.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn change(&mut self, block: &mut [u8; BLOCK]) {
        let changed = _mm512_xor_si512(load(block), self.made[self.left.start]);
        store(block, changed);
        self.left.start += 1;
    }

    /// The next blocks: as many as are asked for, or a few more, or as many as a pass makes.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn make(&mut self, blocks: usize) {
        match blocks {
            ..=4 => self.pass::<1>(),
            5..=8 => self.pass::<2>(),
            9..=16 => self.pass::<4>(),
            _ => self.pass::<6>(),
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline(never)]
    fn pass<const GROUPS: usize>(&mut self) {
        let step = row([4, 0, 0, 0]);
        let mut starts = [self.state; GROUPS];
        let mut last = self.state[3];
        for start in &mut starts {
            start[3] = last;
            last = _mm512_add_epi32(last, step);
        }
        self.state[3] = last;
        let mut states = starts;
        for _ in 0..10 {
            for rows in &mut states {
                quarter_rounds(rows);
                let [_, b, c, d] = rows;
                *b = _mm512_shuffle_epi32::<0b00_11_10_01>(*b);
                *c = _mm512_shuffle_epi32::<0b01_00_11_10>(*c);
                *d = _mm512_shuffle_epi32::<0b10_01_00_11>(*d);
                quarter_rounds(rows);
                let [_, b, c, d] = rows;
                *b = _mm512_shuffle_epi32::<0b10_01_00_11>(*b);
                *c = _mm512_shuffle_epi32::<0b01_00_11_10>(*c);
                *d = _mm512_shuffle_epi32::<0b00_11_10_01>(*d);
            }
        }
        for ((rows, start), made) in states.iter_mut().zip(&starts).zip(self.made.as_chunks_mut::<LANES>().0) {
            for (row, start) in rows.iter_mut().zip(start) {
                *row = _mm512_add_epi32(*row, *start);
            }
            *made = blocks_of(rows);
        }
        self.left = 0..GROUPS * LANES;
    }
}

/// RFC 8439 2.1, on the four columns of four blocks.
#[target_feature(enable = "avx512f")]
#[inline]
fn quarter_rounds([a, b, c, d]: &mut Rows) {
    *a = _mm512_add_epi32(*a, *b);
    *d = _mm512_rol_epi32::<16>(_mm512_xor_si512(*d, *a));
    *c = _mm512_add_epi32(*c, *d);
    *b = _mm512_rol_epi32::<12>(_mm512_xor_si512(*b, *c));
    *a = _mm512_add_epi32(*a, *b);
    *d = _mm512_rol_epi32::<8>(_mm512_xor_si512(*d, *a));
    *c = _mm512_add_epi32(*c, *d);
    *b = _mm512_rol_epi32::<7>(_mm512_xor_si512(*b, *c));
}

/// Rows of four blocks as four blocks.
#[target_feature(enable = "avx512f")]
#[inline]
fn blocks_of([a, b, c, d]: &Rows) -> [__m512i; LANES] {
    let (ab, ab_high) = (_mm512_shuffle_i32x4::<0b01_00_01_00>(*a, *b), _mm512_shuffle_i32x4::<0b11_10_11_10>(*a, *b));
    let (cd, cd_high) = (_mm512_shuffle_i32x4::<0b01_00_01_00>(*c, *d), _mm512_shuffle_i32x4::<0b11_10_11_10>(*c, *d));
    [
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd),
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_high, cd_high),
    ]
}

/// One row, the same for four blocks.
#[target_feature(enable = "avx512f")]
#[inline]
fn row([a, b, c, d]: [u32; 4]) -> __m512i {
    _mm512_broadcast_i32x4(_mm_set_epi32(d.cast_signed(), c.cast_signed(), b.cast_signed(), a.cast_signed()))
}

/// The two halves of a key.
fn halves(words: &[u32; 8]) -> [[u32; 4]; 2] {
    std::array::from_fn(|half| std::array::from_fn(|at| words[4 * half + at]))
}

/// Little-endian words.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}
