//! `ChaCha20-Poly1305` (RFC 8439) for processors with AVX-512 and its 52-bit multiplication (IFMA): Intel's since Ice Lake, AMD's since Zen 4.
//!
//! A frame of up to 1,472 bytes takes one pass of `ChaCha20`, in which 24 blocks are computed side by side, the first of them for the
//! one-time key; Poly1305 then takes eight of its blocks at a time. Nothing branches or indexes by what is secret.
//!
//! The crate is apart from the core because it is the only place of the protocol that needs `unsafe`: to call code for instructions
//! whose presence was asked for, and to move 64 bytes between memory and a register.
#![cfg(target_arch = "x86_64")]

mod chacha;
mod poly;
mod register;

use std::arch::is_x86_feature_detected;
use zeroize::Zeroizing;

/// A tag that does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

/// One key for ChaCha20-Poly1305 as RFC 8439 2.8 has it; wiped when dropped.
///
/// What is sealed under one nonce is at most 256 GiB - 64 bytes, the reach of its 32-bit block counter.
pub struct ChaCha20Poly1305 {
    key: Zeroizing<[u8; 32]>,
}

impl ChaCha20Poly1305 {
    /// The AEAD under `key`; `None` where the processor lacks the instructions.
    pub fn new(key: &[u8; 32]) -> Option<Self> {
        is_supported().then(|| Self { key: Zeroizing::new(*key) })
    }

    /// Encrypts `data` in place and returns the tag. A nonce must never be used twice with one key.
    pub fn seal(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8]) -> [u8; 16] {
        #[expect(unsafe_code, reason = "code for instructions that not each x86-64 has")]
        // SAFETY: `new` makes a value of this type only where `is_supported` has found all features that `seal` names.
        unsafe {
            seal(&self.key, nonce, ad, data)
        }
    }

    /// Checks the tag and decrypts `data` in place; after an error `data` is as it was.
    pub fn open(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> Result<(), Forged> {
        #[expect(unsafe_code, reason = "code for instructions that not each x86-64 has")]
        // SAFETY: `new` makes a value of this type only where `is_supported` has found all features that `open` names.
        unsafe {
            open(&self.key, nonce, ad, data, tag)
        }
    }
}

/// Whether this processor has the instructions.
pub fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn seal(key: &[u8; 32], nonce: &[u8; 12], ad: &[u8], data: &mut [u8]) -> [u8; 16] {
    let mut stream = chacha::Stream::new(key, nonce);
    let one_time_key = stream.first(data.len());
    stream.apply(data);
    poly::authenticate(&one_time_key, ad, data)
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn open(key: &[u8; 32], nonce: &[u8; 12], ad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> Result<(), Forged> {
    let mut stream = chacha::Stream::new(key, nonce);
    let one_time_key = stream.first(data.len());
    let expected = poly::authenticate(&one_time_key, ad, data);
    // One comparison of 128 bits: how long it takes says nothing of where they differ.
    if u128::from_ne_bytes(expected) != u128::from_ne_bytes(*tag) {
        return Err(Forged);
    }
    stream.apply(data);
    Ok(())
}

#[cfg(test)]
mod tests;
