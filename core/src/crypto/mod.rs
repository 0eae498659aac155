//! The only rooms that name a crypto crate.
//!
//! ```text
//!   handshake, session ──▶ Provider ──┬── rustcrypto   portable, a pure function of its coins
//!                                     └── awslc        feature `aws-lc`: faster, draws KEM and signing coins itself
//!                                           ├── vaes   its AES-GCM where ring's is faster
//!                                           └── wide   its ChaCha20-Poly1305 where there are registers of 512 bits
//!   everybody ──▶ hash (SHA-512, HMAC-SHA256, HKDF-SHA512), x25519: one implementation, in this folder
//! ```
//!
//! Both back ends speak the same standards bit for bit, so two peers never need the same one.
use crate::session::Suite;
use zeroize::Zeroizing;

#[cfg(any(test, feature = "aws-lc"))]
pub mod awslc;
pub(crate) mod hash;
mod identity;
pub mod rustcrypto;
#[cfg(test)]
mod tests;
#[cfg(all(target_arch = "x86_64", any(test, feature = "aws-lc")))]
mod vaes;
#[cfg(test)]
mod vectors;
#[cfg(all(target_arch = "x86_64", any(test, feature = "aws-lc")))]
mod wide;
pub(crate) mod x25519;

pub use identity::{Identity, peer_id_of};

/// Bytes of an ML-KEM-1024 encapsulation key (FIPS 203).
pub const KEM_PUBLIC_KEY_LEN: usize = 1568;
/// Bytes of an ML-KEM-1024 ciphertext (FIPS 203).
pub const KEM_CIPHERTEXT_LEN: usize = 1568;
/// Bytes of an ML-DSA-87 public key (FIPS 204).
pub const PUBLIC_KEY_LEN: usize = 2592;
/// Bytes of an ML-DSA-87 signature (FIPS 204).
pub const SIGNATURE_LEN: usize = 4627;

/// A secret that two ends share, wiped when dropped.
pub type SharedSecret = Zeroizing<[u8; 32]>;

/// A tag that does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl core::fmt::Display for Forged {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the tag does not verify")
    }
}

impl core::error::Error for Forged {}

/// A fresh ML-KEM-1024 key pair.
pub struct KemKeyPair {
    /// The encapsulation key, sent to the other end.
    pub public_key: [u8; KEM_PUBLIC_KEY_LEN],
    /// The decapsulation key, in the form that its back end likes.
    pub secret: Box<dyn Decapsulate>,
}

/// What an encapsulation yields.
pub struct Encapsulated {
    /// The ciphertext, sent to the other end.
    pub ciphertext: [u8; KEM_CIPHERTEXT_LEN],
    /// The secret that only the holder of the decapsulation key also gets.
    pub shared: SharedSecret,
}

/// An ML-KEM-1024 decapsulation key, wiped when dropped.
pub trait Decapsulate: Send + Sync {
    /// The shared secret in `ciphertext`; a forged one yields a random-looking secret (implicit rejection), `None` only if the back end fails.
    fn decapsulate(&self, ciphertext: &[u8; KEM_CIPHERTEXT_LEN]) -> Option<SharedSecret>;
}

/// One keyed AEAD with 12-byte nonces and 16-byte tags; the key is wiped when dropped.
pub trait Aead: Send + Sync {
    /// Encrypts `data` in place and returns the tag. A nonce must never be used twice with one key.
    fn seal(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8]) -> [u8; 16];
    /// Checks the tag and decrypts `data` in place; after an error the content of `data` is worthless.
    fn open(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> Result<(), Forged>;
}

/// One back end for the heavy arithmetic: KEM, signatures, AEAD.
pub trait Provider: Send + Sync {
    /// The name for logs and benchmarks.
    fn name(&self) -> &'static str;
    /// A new ML-KEM-1024 key pair; `coins` are d ‖ z of FIPS 203 where the back end takes them.
    fn kem_keygen(&self, coins: &[u8; 64]) -> KemKeyPair;
    /// A secret for the holder of `public_key`; `None` if that is no valid key (FIPS 203 7.2).
    fn kem_encapsulate(&self, public_key: &[u8; KEM_PUBLIC_KEY_LEN], coins: &[u8; 32]) -> Option<Encapsulated>;
    /// An ML-DSA-87 signature with empty context, hedged (with `coins` where the back end takes them).
    fn sign(&self, identity: &Identity, message: &[u8], coins: &[u8; 32]) -> [u8; SIGNATURE_LEN];
    /// Whether `signature` is a valid ML-DSA-87 signature with empty context.
    fn verify(&self, public_key: &[u8; PUBLIC_KEY_LEN], message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool;
    /// The ML-DSA-87 public key of a seed (FIPS 204 ξ).
    fn public_key_of_seed(&self, seed: &[u8; 32]) -> Box<[u8; PUBLIC_KEY_LEN]>;
    /// The AEAD of `suite` under `key`.
    fn aead(&self, suite: Suite, key: &[u8; 32]) -> Box<dyn Aead>;
}

/// Of the configured suites those that this machine offers and accepts, in their order: AES only where it is computed in hardware.
pub fn offered(configured: &[Suite]) -> Vec<Suite> {
    offered_with(configured, has_aes_instructions())
}

/// protocol 3.7
fn offered_with(configured: &[Suite], has_aes: bool) -> Vec<Suite> {
    configured.iter().copied().filter(|suite| has_aes || *suite != Suite::Aes256Gcm).collect()
}

/// Whether this machine has instructions for AES and for the multiplication of GCM.
fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}
