//! The KEM ratchet that makes epochs (protocol 4.5): two messages under the seal of the old epoch, no signatures.
//!
//! ```text
//!   REKEY1 = epoch u32 | x25519 32 | mlkem_ek 1568      REKEY2 = epoch u32 | x25519 32 | mlkem_ct 1568
//!   ck_{e+1} = Extract(ck_e, ss_mlkem ‖ ss_x25519 ‖ H(REKEY1 ‖ REKEY2))          epoch = e + 1 in both
//! ```
//! The epoch is a field of its own in the wire types; the bytes here are the rest.
use super::{HandshakeError, Kept, initiator::split, layout::Fields, responder::thirds};
use crate::{
    crypto::{Decapsulate, KEM_PUBLIC_KEY_LEN, Provider, hash::sha512, x25519::Scalar},
    session::Chain,
};
use core::fmt;

/// Bytes of REKEY1 and REKEY2 without the epoch.
pub const REKEY_LEN: usize = 32 + KEM_PUBLIC_KEY_LEN;

/// The secrets of one rekeying and its REKEY1; the secrets are wiped when it is dropped.
pub struct RekeyOffer {
    rekey1: Vec<u8>,
    epoch: u32,
    keys: Kept<RekeyKeys>,
}

struct RekeyKeys {
    kem: Box<dyn Decapsulate>,
    scalar: Scalar,
}

impl RekeyOffer {
    /// x25519 32 ‖ `mlkem_ek` 1568.
    pub fn rekey1(&self) -> &[u8] {
        &self.rekey1
    }

    /// The epoch to be made.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn make(epoch: u32, coins: &[u8; 96], crypto: &dyn Provider) -> Self {
        let (for_kem, for_x25519) = split(coins);
        let kem = crypto.kem_keygen(&for_kem);
        let scalar = Scalar::new(*for_x25519);
        let mut rekey1 = Vec::with_capacity(REKEY_LEN);
        rekey1.extend_from_slice(&scalar.public());
        rekey1.extend_from_slice(&kem.public_key);
        Self { rekey1, epoch, keys: Kept::Here(RekeyKeys { kem: kem.secret, scalar }) }
    }

    /// The offer that made this REKEY1, as a journal knows it.
    pub(super) fn recorded(epoch: u32, rekey1: Vec<u8>) -> Self {
        Self { rekey1, epoch, keys: Kept::Recorded }
    }

    pub(super) fn conclude(&self, epoch: u32, rekey2: &[u8], chain: &Chain) -> Result<Chain, HandshakeError> {
        if epoch != self.epoch {
            return Err(HandshakeError::Malformed);
        }
        let (share, ciphertext) = parse(epoch, rekey2, chain)?;
        let RekeyKeys { kem, scalar } = self.keys.here()?;
        let ss_x25519 = scalar.agree(share).ok_or(HandshakeError::ZeroShare)?;
        let ss_mlkem = kem.decapsulate(ciphertext).ok_or(HandshakeError::Malformed)?;
        Ok(chain.next(&ss_mlkem, &ss_x25519, &hash(epoch, &self.rekey1, rekey2)))
    }
}

impl fmt::Debug for RekeyOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RekeyOffer").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// Takes REKEY1, makes REKEY2 and the chain of the new epoch.
pub(super) fn answer(
    epoch: u32,
    rekey1: &[u8],
    chain: &Chain,
    coins: &[u8; 96],
    crypto: &dyn Provider,
) -> Result<(Vec<u8>, Chain), HandshakeError> {
    let (share, public_key) = parse(epoch, rekey1, chain)?;
    let [for_kem, for_x25519, _] = thirds(coins);
    let scalar = Scalar::new(*for_x25519);
    let ss_x25519 = scalar.agree(share).ok_or(HandshakeError::ZeroShare)?;
    let kem = crypto.kem_encapsulate(public_key, &for_kem).ok_or(HandshakeError::Malformed)?;
    let mut rekey2 = Vec::with_capacity(REKEY_LEN);
    rekey2.extend_from_slice(&scalar.public());
    rekey2.extend_from_slice(&kem.ciphertext);
    let next = chain.next(&kem.shared, &ss_x25519, &hash(epoch, rekey1, &rekey2));
    Ok((rekey2, next))
}

/// The X25519 share and the KEM part of either message, for the epoch that follows the chain's.
fn parse<'a>(epoch: u32, message: &'a [u8], chain: &Chain) -> Result<(&'a [u8; 32], &'a [u8; KEM_PUBLIC_KEY_LEN]), HandshakeError> {
    if message.len() != REKEY_LEN || chain.epoch().checked_add(1) != Some(epoch) {
        return Err(HandshakeError::Malformed);
    }
    let mut fields = Fields(message);
    let share = fields.take("REKEY: x25519").map_err(|_| HandshakeError::Malformed)?;
    let kem = fields.take("REKEY: ML-KEM").map_err(|_| HandshakeError::Malformed)?;
    Ok((share, kem))
}

/// H(REKEY1 ‖ REKEY2)
fn hash(epoch: u32, rekey1: &[u8], rekey2: &[u8]) -> [u8; 64] {
    let epoch = epoch.to_be_bytes();
    sha512(&[&epoch, rekey1, &epoch, rekey2])
}
