//! 64 bytes between memory and a register, and what the two algorithms share of both.
use std::arch::x86_64::{__m512i, _mm512_loadu_si512, _mm512_storeu_si512};

/// The 64 bytes as a register, the first in its lowest byte.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn load(bytes: &[u8; 64]) -> __m512i {
    #[expect(unsafe_code, reason = "the only way from memory into a register of this width")]
    // SAFETY: the reference is good for 64 bytes, and this load asks for no alignment.
    unsafe {
        _mm512_loadu_si512(bytes.as_ptr().cast())
    }
}

/// The register in 64 bytes, its lowest byte first.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn store(bytes: &mut [u8; 64], register: __m512i) {
    #[expect(unsafe_code, reason = "the only way from a register of this width into memory")]
    // SAFETY: the reference is good for 64 bytes, and this store asks for no alignment.
    unsafe {
        _mm512_storeu_si512(bytes.as_mut_ptr().cast(), register);
    }
}
