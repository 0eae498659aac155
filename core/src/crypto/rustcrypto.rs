//! The portable back end: `RustCrypto` crates, no C, every result a function of its arguments.
use super::{
    Aead, Decapsulate, Encapsulated, Forged, Identity, KEM_CIPHERTEXT_LEN, KEM_PUBLIC_KEY_LEN, KemKeyPair, PUBLIC_KEY_LEN, Provider,
    SIGNATURE_LEN, SharedSecret,
};
use crate::session::Suite;
use aes_gcm::Aes256Gcm;
use chacha20poly1305::{
    AeadInOut, ChaCha20Poly1305, KeyInit,
    aead::{Nonce, Tag, inout::InOutBuf},
};
use ml_dsa::{ExpandedSigningKey, MlDsa87, Signature, VerifyingKey};
use ml_kem::{Decapsulate as _, KeyExport, ml_kem_1024};
use zeroize::Zeroizing;

/// The `RustCrypto` back end.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustCrypto;

/// An expanded ML-DSA-87 key; the crate wipes it when dropped.
pub(super) struct SigningKey(Box<ExpandedSigningKey<MlDsa87>>);

/// What every back end agrees on: the public key of a seed.
pub(super) fn public_key_of_seed(seed: &[u8; 32]) -> Box<[u8; PUBLIC_KEY_LEN]> {
    let expanded = ExpandedSigningKey::<MlDsa87>::from_seed(&(*seed).into());
    let mut out = Box::new([0; PUBLIC_KEY_LEN]);
    out.copy_from_slice(&expanded.verifying_key().encode());
    out
}

impl Provider for RustCrypto {
    fn name(&self) -> &'static str {
        "rustcrypto"
    }

    fn kem_keygen(&self, coins: &[u8; 64]) -> KemKeyPair {
        let secret = Box::new(KemSecret(ml_kem_1024::DecapsulationKey::from_seed((*coins).into())));
        let mut public_key = [0; KEM_PUBLIC_KEY_LEN];
        public_key.copy_from_slice(&secret.0.encapsulation_key().to_bytes());
        KemKeyPair { public_key, secret }
    }

    fn kem_encapsulate(&self, public_key: &[u8; KEM_PUBLIC_KEY_LEN], coins: &[u8; 32]) -> Option<Encapsulated> {
        let key = ml_kem_1024::EncapsulationKey::new(public_key.into()).ok()?;
        let (sent, shared) = key.encapsulate_deterministic(&(*coins).into());
        let mut ciphertext = [0; KEM_CIPHERTEXT_LEN];
        ciphertext.copy_from_slice(&sent);
        Some(Encapsulated { ciphertext, shared: Zeroizing::new(shared.into()) })
    }

    fn sign(&self, identity: &Identity, message: &[u8], coins: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
        let key = identity.portable.get_or_init(|| SigningKey(Box::new(ExpandedSigningKey::from_seed(&(*identity.seed()).into()))));
        // FIPS 204 algorithm 2: M' = 00 ‖ length of the context ‖ context ‖ M, with an empty context and rnd = coins.
        let signature = key.0.sign_internal(&[&[0, 0], message], &(*coins).into());
        let mut out = [0; SIGNATURE_LEN];
        out.copy_from_slice(&signature.encode());
        out
    }

    fn verify(&self, public_key: &[u8; PUBLIC_KEY_LEN], message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        let Some(signature) = Signature::<MlDsa87>::decode(signature.into()) else {
            return false;
        };
        VerifyingKey::decode(public_key.into()).verify_with_context(message, &[], &signature)
    }

    fn public_key_of_seed(&self, seed: &[u8; 32]) -> Box<[u8; PUBLIC_KEY_LEN]> {
        public_key_of_seed(seed)
    }

    fn aead(&self, suite: Suite, key: &[u8; 32]) -> Box<dyn Aead> {
        match suite {
            Suite::ChaCha20Poly1305 => Box::new(Keyed(ChaCha20Poly1305::new(key.into()))),
            Suite::Aes256Gcm => Box::new(Keyed(Aes256Gcm::new(key.into()))),
        }
    }
}

struct KemSecret(ml_kem_1024::DecapsulationKey);

impl Decapsulate for KemSecret {
    fn decapsulate(&self, ciphertext: &[u8; KEM_CIPHERTEXT_LEN]) -> Option<SharedSecret> {
        Some(Zeroizing::new(self.0.decapsulate(ciphertext.into()).into()))
    }
}

struct Keyed<A>(A);

impl<A> Aead for Keyed<A>
where
    A: AeadInOut + Send + Sync,
    for<'a> &'a Nonce<A>: From<&'a [u8; 12]>,
    for<'a> &'a Tag<A>: From<&'a [u8; 16]>,
    [u8; 16]: From<Tag<A>>,
{
    fn seal(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8]) -> [u8; 16] {
        self.0.encrypt_inout_detached(nonce.into(), ad, InOutBuf::from(data)).expect("a frame is far below the limit of the AEAD").into()
    }

    fn open(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> Result<(), Forged> {
        self.0.decrypt_inout_detached(nonce.into(), ad, InOutBuf::from(data), tag.into()).map_err(|_| Forged)
    }
}
