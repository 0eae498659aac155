//! Hashes and what is made of them: SHA-512, HMAC-SHA256, HKDF-SHA512 (RFC 2104, RFC 5869).
//!
//! Inputs come as lists of parts, so that callers need not glue buffers together.
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// SHA-512 over the parts in order.
pub(crate) fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    let mut hash = Sha512::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The first `N` bytes of SHA-512 over the parts in order; `N` ≤ 64.
pub(crate) fn sha512_prefix<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    // It may become a key.
    let full = Zeroizing::new(sha512(parts));
    let mut out = [0; N];
    out.copy_from_slice(&full[..N]);
    out
}

/// Whether two byte strings are equal, in a time that depends on their lengths alone.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// A key of HMAC-SHA256, already absorbed: cloning it is cheaper than keying anew.
#[derive(Clone)]
pub(crate) struct HmacKey(Hmac<Sha256>);

impl HmacKey {
    /// Absorbs the key.
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The tag over the parts in order.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Whether `tag` is the tag over the parts, or its first 16 bytes, in constant time.
    pub(crate) fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        let whole = self.mac(parts);
        match tag.len() {
            16 => equal(&whole[..16], tag),
            32 => equal(&whole, tag),
            _ => false,
        }
    }
}

/// A pseudorandom key of HKDF-SHA512, wiped when dropped.
pub(crate) struct Prk(Zeroizing<[u8; 64]>);

impl Prk {
    /// HKDF-Extract.
    pub(crate) fn extract(salt: &[u8], ikm: &[&[u8]]) -> Self {
        let mut mac = Hmac::<Sha512>::new_from_slice(salt).expect("HMAC takes keys of any length");
        for part in ikm {
            mac.update(part);
        }
        Self(Zeroizing::new(mac.finalize().into_bytes().into()))
    }

    /// Takes a key that is already pseudorandom.
    pub(crate) fn from_key(key: Zeroizing<[u8; 64]>) -> Self {
        Self(key)
    }

    /// The key itself.
    pub(crate) fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// HKDF-Expand to `N` bytes; the info is the parts in order.
    pub(crate) fn expand<const N: usize>(&self, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
        let hkdf = hkdf::Hkdf::<Sha512>::from_prk(self.0.as_slice()).expect("the key is one hash long");
        let mut out = Zeroizing::new([0; N]);
        hkdf.expand_multi_info(info, out.as_mut_slice()).expect("less than 255 hashes are asked for");
        out
    }
}
