//! Poly1305 (RFC 8439 2.5) over what the AEAD authenticates (2.8): eight blocks of 16 bytes at a time, one in each lane.
//!
//! A number below 2^130 is three limbs of 44, 44 and 42 bits, the radix in which two limbs fit the 52-bit multiplication with room
//! for sums. With blocks m1 … m8n the tag's polynomial is m1·r^8n + … + m8n·r; the lanes keep apart the sums of every eighth block,
//! are multiplied by r^8 before each further eight, and in the end by r^8 … r. Zero blocks in front, which add nothing, make the
//! number of blocks divisible by eight.
use crate::register::load;
use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_blend_epi64,
    _mm512_maskz_set1_epi64, _mm512_or_si512, _mm512_permutexvar_epi64, _mm512_reduce_add_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_slli_epi64, _mm512_srli_epi64, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};

/// Bytes of a block.
const BLOCK: usize = 16;
/// Bytes of eight blocks.
const EIGHT: usize = 8 * BLOCK;
const LOW_44: u64 = (1 << 44) - 1;
const LOW_42: u64 = (1 << 42) - 1;

/// A number in each of eight lanes.
type Limbs = [__m512i; 3];

/// The tag of `ad` and the ciphertext (RFC 8439 2.8).
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(crate) fn authenticate(one_time_key: &[u8; 32], ad: &[u8], ciphertext: &[u8]) -> [u8; 16] {
    let (r, s) = split(one_time_key);
    let powers = Powers::of(r);
    let message = Message::new(ad, ciphertext);
    let mut sum = message.first();
    let mut at = message.front;
    if !(message.blocks - at).is_multiple_of(16) {
        sum = add(&powers.eighth.times(&sum), &message.eight(at));
        at += 8;
    }
    if at < message.blocks {
        let sixteenth = Factor::new(powers.eighth.times(&powers.eighth.limbs));
        while at < message.blocks {
            let products = sixteenth.multiply(&sum, Products::none());
            let products = powers.eighth.multiply(&message.eight(at), products);
            sum = add(&products.reduce(), &message.eight(at + 8));
            at += 16;
        }
    }
    finish(&powers.each.times(&sum), s)
}

/// The clamped r (RFC 8439 2.5.1) in limbs, and s.
fn split(one_time_key: &[u8; 32]) -> ([u64; 3], u128) {
    let half = |at| one_time_key[at..at + 16].try_into().map_or(0, u128::from_le_bytes);
    let r = half(0) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
    ([r as u64 & LOW_44, (r >> 44) as u64 & LOW_44, (r >> 88) as u64], half(16))
}

/// What the AEAD authenticates, as blocks: the associated data and the ciphertext, each filled up with zeros, then their lengths.
struct Message<'a> {
    ad: &'a [u8],
    ciphertext: &'a [u8],
    /// How many blocks there are.
    blocks: usize,
    /// How many of them are taken with zero blocks before them, so that what is left is divisible by eight: 1 to 8.
    front: usize,
}

impl<'a> Message<'a> {
    fn new(ad: &'a [u8], ciphertext: &'a [u8]) -> Self {
        let blocks = ad.len().div_ceil(BLOCK) + ciphertext.len().div_ceil(BLOCK) + 1;
        Self { ad, ciphertext, blocks, front: (blocks - 1) % 8 + 1 }
    }

    /// The first 1 to 8 blocks behind zero blocks.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn first(&self) -> Limbs {
        let mut bytes = [0; EIGHT];
        self.copy(0, &mut bytes[EIGHT - self.front * BLOCK..]);
        limbs_of(&bytes, self.front)
    }

    /// The eight blocks from the block `at` on.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn eight(&self, at: usize) -> Limbs {
        let skipped = self.ad.len().div_ceil(BLOCK);
        let within = at.checked_sub(skipped).and_then(|at| self.ciphertext.get(at * BLOCK..)?.first_chunk::<EIGHT>());
        if let Some(bytes) = within {
            return limbs_of(bytes, 8);
        }
        let mut bytes = [0; EIGHT];
        self.copy(at, &mut bytes);
        limbs_of(&bytes, 8)
    }

    /// Copies the blocks from the block `at` on, of which there are enough, over the zeros of `out`.
    fn copy(&self, at: usize, out: &mut [u8]) {
        let mut lengths = [0; BLOCK];
        lengths[..8].copy_from_slice(&(self.ad.len() as u64).to_le_bytes());
        lengths[8..].copy_from_slice(&(self.ciphertext.len() as u64).to_le_bytes());
        let (mut skip, mut filled) = (at * BLOCK, 0);
        for part in [self.ad, self.ciphertext, &lengths] {
            let padded = part.len().next_multiple_of(BLOCK);
            if skip >= padded {
                skip -= padded;
                continue;
            }
            let room = &mut out[filled..];
            let taken = part.get(skip..).unwrap_or_default();
            let len = taken.len().min(room.len());
            room[..len].copy_from_slice(&taken[..len]);
            filled += (padded - skip).min(room.len());
            skip = 0;
        }
    }
}

/// Eight blocks as numbers, each but the zero ones in front of the last `real` with its bit 2^128. The lanes hold the blocks 0, 4, 1,
/// 5, 2, 6, 3, 7.
#[target_feature(enable = "avx512f")]
#[inline]
fn limbs_of(bytes: &[u8; EIGHT], real: usize) -> Limbs {
    let ([low, high], []) = bytes.as_chunks::<64>() else { unreachable!("twice 64 bytes") };
    let (low, high) = (load(low), load(high));
    let (low, high) = (_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    let top_bit = _mm512_maskz_set1_epi64(TOP_BITS[real], 1 << 40);
    [masked(low, LOW_44), masked(middle, LOW_44), _mm512_or_si512(_mm512_srli_epi64::<24>(high), top_bit)]
}

/// The lanes of the last n of eight blocks.
const TOP_BITS: [u8; 9] = {
    const LANE_OF_BLOCK: [u32; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
    let mut masks = [0; 9];
    let mut real = 1;
    while real < 9 {
        masks[real] = masks[real - 1] | 1 << LANE_OF_BLOCK[8 - real];
        real += 1;
    }
    masks
};

/// Numbers to multiply by.
struct Factor {
    limbs: Limbs,
    /// 20 times the second and the third: what overflows 2^132 comes back as 20 = 4 · 5, for 2^130 is 5.
    folded: [__m512i; 2],
}

impl Factor {
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn new(limbs: Limbs) -> Self {
        let twenty = |limb| _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb));
        Self { limbs, folded: [twenty(limbs[1]), twenty(limbs[2])] }
    }

    /// Adds the products lane by lane to `sums`.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn multiply(&self, [a, b, c]: &Limbs, mut sums: Products) -> Products {
        let ([r0, r1, r2], [s1, s2]) = (self.limbs, self.folded);
        let columns = [[(a, r0), (b, s2), (c, s1)], [(a, r1), (b, r0), (c, s2)], [(a, r2), (b, r1), (c, r0)]];
        for ((low, high), column) in sums.low.iter_mut().zip(&mut sums.high).zip(columns) {
            for (x, y) in column {
                *low = _mm512_madd52lo_epu64(*low, *x, y);
                *high = _mm512_madd52hi_epu64(*high, *x, y);
            }
        }
        sums
    }

    /// The products lane by lane.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn times(&self, numbers: &Limbs) -> Limbs {
        self.multiply(numbers, Products::none()).reduce()
    }
}

/// Sums of products, the lower 52 bits of each apart from the upper ones: of up to two products of limbs below 2^46 with limbs and
/// folded limbs below 2^50, so a column is less than 2^55.
struct Products {
    low: Limbs,
    high: Limbs,
}

impl Products {
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn none() -> Self {
        Self { low: [_mm512_setzero_si512(); 3], high: [_mm512_setzero_si512(); 3] }
    }

    /// Modulo 2^130 - 5 and small enough to be added to and multiplied again: limbs below 2^44, 2^45, 2^42.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn reduce(&self) -> Limbs {
        let Self { low, high } = self;
        // The high halves weigh 2^52 = 2^44 · 2^8; above the third limb, whose 42 bits end at 2^130, they weigh 2^10.
        let second = add3(low[1], _mm512_slli_epi64::<8>(high[0]), _mm512_srli_epi64::<44>(low[0]));
        let third = add3(low[2], _mm512_slli_epi64::<8>(high[1]), _mm512_srli_epi64::<44>(second));
        let over = _mm512_add_epi64(_mm512_slli_epi64::<10>(high[2]), _mm512_srli_epi64::<42>(third));
        let first = add3(masked(low[0], LOW_44), over, _mm512_slli_epi64::<2>(over));
        let second = _mm512_add_epi64(masked(second, LOW_44), _mm512_srli_epi64::<44>(first));
        [masked(first, LOW_44), second, masked(third, LOW_42)]
    }
}

/// The powers of r that the lanes need.
struct Powers {
    /// r^8 in each lane.
    eighth: Factor,
    /// r^8 … r, in the lanes of the blocks 0 … 7.
    each: Factor,
}

impl Powers {
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn of(r: [u64; 3]) -> Self {
        let one = [everywhere(r[0]), everywhere(r[1]), everywhere(r[2])];
        let two = Factor::new(one).times(&one);
        // Exponents from the lowest lane: 2 2 1 1 2 2 1 1, then 4 4 3 3 4 4 3 3, then both as 4 4 3 3 2 2 1 1, then 8 8 7 7 6 6 5 5.
        let to_two = blend(0b1100_1100, &two, &one);
        let to_four = Factor::new(two).times(&to_two);
        let four = Factor::new(lowest(&to_four));
        let to_four = blend(0b1111_0000, &to_four, &to_two);
        let to_eight = four.times(&to_four);
        Self { eighth: Factor::new(lowest(&to_eight)), each: Factor::new(blend(0b1010_1010, &to_eight, &to_four)) }
    }
}

/// Carries from the first limb to the third, which keeps what is above its 42 bits.
fn carry([first, second, third]: [u64; 3]) -> [u64; 3] {
    let second = second + (first >> 44);
    [first & LOW_44, second & LOW_44, third + (second >> 44)]
}

/// The sum of all lanes, reduced, plus s.
#[target_feature(enable = "avx512f")]
#[inline]
fn finish(sum: &Limbs, s: u128) -> [u8; 16] {
    let lanes = |limb: __m512i| _mm512_reduce_add_epi64(limb).cast_unsigned();
    let mut limbs = [lanes(sum[0]), lanes(sum[1]), lanes(sum[2])];
    // Twice around: the first carry out of the top may push the limbs over once more.
    for _ in 0..2 {
        limbs = carry(limbs);
        limbs[0] += (limbs[2] >> 42) * 5;
        limbs[2] &= LOW_42;
    }
    let limbs = carry(limbs);
    // Less the prime, which is taken where that does not fall below zero.
    let mut less = carry([limbs[0] + 5, limbs[1], limbs[2]]);
    less[2] = less[2].wrapping_sub(1 << 42);
    let keep = (less[2] >> 63).wrapping_neg();
    let limb = |at: usize| u128::from((limbs[at] & keep) | (less[at] & !keep));
    let number = limb(0) | limb(1) << 44 | limb(2) << 88;
    number.wrapping_add(s).to_le_bytes()
}

#[target_feature(enable = "avx512f")]
#[inline]
fn add(left: &Limbs, right: &Limbs) -> Limbs {
    let one = |at: usize| _mm512_add_epi64(left[at], right[at]);
    [one(0), one(1), one(2)]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn add3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_add_epi64(_mm512_add_epi64(a, b), c)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn masked(a: __m512i, mask: u64) -> __m512i {
    _mm512_and_si512(a, everywhere(mask))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn everywhere(a: u64) -> __m512i {
    _mm512_set1_epi64(a.cast_signed())
}

/// `yes` in the lanes of `mask`, elsewhere `no`.
#[target_feature(enable = "avx512f")]
#[inline]
fn blend(mask: u8, no: &Limbs, yes: &Limbs) -> Limbs {
    let one = |at: usize| _mm512_mask_blend_epi64(mask, no[at], yes[at]);
    [one(0), one(1), one(2)]
}

/// The lowest lane in all.
#[target_feature(enable = "avx512f")]
#[inline]
fn lowest(limbs: &Limbs) -> Limbs {
    let one = |limb: __m512i| _mm512_permutexvar_epi64(_mm512_setzero_si512(), limb);
    [one(limbs[0]), one(limbs[1]), one(limbs[2])]
}
