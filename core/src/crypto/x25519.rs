//! X25519 (RFC 7748), the classical half of every key agreement.
use super::SharedSecret;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A secret X25519 scalar, wiped when dropped.
pub(crate) struct Scalar(StaticSecret);

impl Scalar {
    /// Takes 32 random bytes.
    pub(crate) fn new(coins: [u8; 32]) -> Self {
        Self(StaticSecret::from(coins))
    }

    /// The share to send.
    pub(crate) fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// The shared secret with the owner of `share`; `None` if it is all zero: a share of small order (RFC 7748 6.1).
    pub(crate) fn agree(&self, share: &[u8; 32]) -> Option<SharedSecret> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*share));
        shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
    }
}
