//! The fast back end: AWS-LC through aws-lc-rs (feature `aws-lc`, needs a C compiler).
//!
//! It draws the coins of its KEM and of its signatures itself, so its results are inputs of the state machines
//! (`Done`), never computed inside them.
use super::{
    Aead, Decapsulate, Encapsulated, Forged, Identity, KEM_CIPHERTEXT_LEN, KEM_PUBLIC_KEY_LEN, KemKeyPair, PUBLIC_KEY_LEN, Provider,
    SIGNATURE_LEN, SharedSecret,
};
use crate::session::Suite;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_1024, SharedSecret as KemShared},
    signature::{KeyPair, ML_DSA_87, ML_DSA_87_SIGNING, PqdsaKeyPair, UnparsedPublicKey},
};
use zeroize::Zeroizing;

/// The AWS-LC back end.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

/// An expanded ML-DSA-87 key; the library wipes it when freed.
pub(super) struct SigningKey(PqdsaKeyPair);

impl Provider for AwsLc {
    fn name(&self) -> &'static str {
        "aws-lc"
    }

    fn kem_keygen(&self, _coins: &[u8; 64]) -> KemKeyPair {
        let secret = DecapsulationKey::generate(&ML_KEM_1024).expect("the library's generator works");
        let encoded = secret.encapsulation_key().and_then(|key| key.key_bytes()).expect("a new key has a public half");
        let mut public_key = [0; KEM_PUBLIC_KEY_LEN];
        public_key.copy_from_slice(encoded.as_ref());
        KemKeyPair { public_key, secret: Box::new(KemSecret(secret)) }
    }

    fn kem_encapsulate(&self, public_key: &[u8; KEM_PUBLIC_KEY_LEN], _coins: &[u8; 32]) -> Option<Encapsulated> {
        let key = EncapsulationKey::new(&ML_KEM_1024, public_key).ok()?;
        let (sent, shared) = key.encapsulate().ok()?;
        let ciphertext = sent.as_ref().try_into().ok()?;
        Some(Encapsulated { ciphertext, shared: shared_secret(&shared)? })
    }

    fn sign(&self, identity: &Identity, message: &[u8], _coins: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
        let key = identity.fast.get_or_init(|| SigningKey(key_pair(identity.seed())));
        let mut out = [0; SIGNATURE_LEN];
        let len = key.0.sign(message, &mut out).expect("a good key signs");
        debug_assert_eq!(len, SIGNATURE_LEN, "FIPS 204 fixes the length");
        out
    }

    fn verify(&self, public_key: &[u8; PUBLIC_KEY_LEN], message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        UnparsedPublicKey::new(&ML_DSA_87, public_key).verify(message, signature).is_ok()
    }

    fn public_key_of_seed(&self, seed: &[u8; 32]) -> Box<[u8; PUBLIC_KEY_LEN]> {
        let mut out = Box::new([0; PUBLIC_KEY_LEN]);
        out.copy_from_slice(key_pair(seed).public_key().as_ref());
        out
    }

    fn aead(&self, suite: Suite, key: &[u8; 32]) -> Box<dyn Aead> {
        #[cfg(target_arch = "x86_64")]
        match suite {
            Suite::Aes256Gcm if super::vaes::is_faster() => return super::vaes::aes_256_gcm(key),
            Suite::ChaCha20Poly1305 => {
                if let Some(aead) = super::wide::chacha20_poly1305(key) {
                    return aead;
                }
            }
            Suite::Aes256Gcm => {}
        }
        own_aead(suite, key)
    }
}

/// The library's own AEAD.
pub(super) fn own_aead(suite: Suite, key: &[u8; 32]) -> Box<dyn Aead> {
    let algorithm = match suite {
        Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        Suite::Aes256Gcm => &AES_256_GCM,
    };
    Box::new(Keyed(LessSafeKey::new(UnboundKey::new(algorithm, key).expect("both suites have 32-byte keys"))))
}

/// Whether AES-GCM of ring is faster on this machine than that of AWS-LC: TLS then takes it too.
pub fn is_aes_of_ring_faster() -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::vaes::is_faster();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn key_pair(seed: &[u8; 32]) -> PqdsaKeyPair {
    PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, seed).expect("any 32 bytes are a seed")
}

/// The library draws the coins of its keys itself: known answers bring theirs.
#[cfg(test)]
pub(super) fn decapsulation_key(bytes: &[u8]) -> Option<Box<dyn Decapsulate>> {
    DecapsulationKey::new(&ML_KEM_1024, bytes).ok().map(|key| Box::new(KemSecret(key)) as Box<dyn Decapsulate>)
}

fn shared_secret(shared: &KemShared) -> Option<SharedSecret> {
    let mut out = Zeroizing::new([0; 32]);
    out.copy_from_slice(shared.as_ref().get(..32)?);
    Some(out)
}

struct KemSecret(DecapsulationKey);

impl Decapsulate for KemSecret {
    fn decapsulate(&self, ciphertext: &[u8; KEM_CIPHERTEXT_LEN]) -> Option<SharedSecret> {
        let shared = self.0.decapsulate(Ciphertext::from(ciphertext.as_slice())).ok()?;
        shared_secret(&shared)
    }
}

struct Keyed(LessSafeKey);

impl Aead for Keyed {
    fn seal(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8]) -> [u8; 16] {
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(ad), data)
            .expect("a frame is far below the limit of the AEAD");
        tag.as_ref().try_into().expect("both suites have 16-byte tags")
    }

    fn open(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> Result<(), Forged> {
        self.0.open_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(ad), tag, data).map(|_| ()).map_err(|_| Forged)
    }
}
