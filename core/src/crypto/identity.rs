//! Identities: an ML-DSA-87 key pair and the `PeerId` that names it (protocol 1.1, 1.2).
#![expect(clippy::disallowed_types, reason = "the expanded key is written once, and is a function of the seed")]
use super::{PUBLIC_KEY_LEN, hash::sha512_prefix, rustcrypto};
use crate::id::PeerId;
use core::fmt;
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// The number of ML-DSA-87 among identity algorithms.
const ALGORITHM_ML_DSA_87: u16 = 1;

/// The name of the holder of an ML-DSA-87 public key.
pub fn peer_id_of(public_key: &[u8]) -> PeerId {
    // protocol 1.1
    PeerId(sha512_prefix(&[b"shadowmesh/1 peer-id", &ALGORITHM_ML_DSA_87.to_be_bytes(), public_key]))
}

/// A long-term identity. The seed is wiped when it is dropped and never printed.
///
/// A back end expands the seed at its first signature and keeps the result here: that is about a quarter of the cost of signing.
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
    public_key: Box<[u8; PUBLIC_KEY_LEN]>,
    id: PeerId,
    pub(super) portable: OnceLock<rustcrypto::SigningKey>,
    #[cfg(any(test, feature = "aws-lc"))]
    pub(super) fast: OnceLock<super::awslc::SigningKey>,
}

impl Identity {
    /// The identity of a 32-byte seed (ξ of FIPS 204).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let public_key = rustcrypto::public_key_of_seed(&seed);
        let id = peer_id_of(&public_key[..]);
        Self {
            seed,
            public_key,
            id,
            portable: OnceLock::new(),
            #[cfg(any(test, feature = "aws-lc"))]
            fast: OnceLock::new(),
        }
    }

    /// The name that others know it by.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// The ML-DSA-87 public key, 2592 bytes.
    pub fn public_key(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.public_key
    }

    /// The secret seed, for the identity file and the TLS certificate.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}
