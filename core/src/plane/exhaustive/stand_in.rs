//! A stand-in AEAD for the models: a tag that binds key, header and text, and no secrecy. They open and seal millions of frames.
use crate::{
    crypto::{
        Aead, Encapsulated, Forged, Identity, KEM_PUBLIC_KEY_LEN, KemKeyPair, PUBLIC_KEY_LEN, Provider, SIGNATURE_LEN,
        rustcrypto::RustCrypto,
    },
    session::Suite,
};

/// The portable back end, but for the AEAD.
pub(crate) struct StandIn;

struct Tagged {
    key: [u8; 32],
}

impl Tagged {
    fn tag(&self, nonce: &[u8; 12], ad: &[u8], data: &[u8]) -> [u8; 16] {
        // FNV-1a over everything, twice with different starts
        let digest = |start: u64| {
            let all = self.key.iter().chain(nonce).chain(ad).chain(data);
            all.fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
        };
        (u128::from(digest(0xcbf2_9ce4_8422_2325)) << 64 | u128::from(digest(0x9e37_79b9_7f4a_7c15))).to_be_bytes()
    }
}

impl Aead for Tagged {
    fn seal(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8]) -> [u8; 16] {
        self.tag(nonce, ad, data)
    }
    fn open(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> Result<(), Forged> {
        if self.tag(nonce, ad, data) == *tag { Ok(()) } else { Err(Forged) }
    }
}

impl Provider for StandIn {
    fn name(&self) -> &'static str {
        "stand-in"
    }
    fn kem_keygen(&self, coins: &[u8; 64]) -> KemKeyPair {
        RustCrypto.kem_keygen(coins)
    }
    fn kem_encapsulate(&self, public_key: &[u8; KEM_PUBLIC_KEY_LEN], coins: &[u8; 32]) -> Option<Encapsulated> {
        RustCrypto.kem_encapsulate(public_key, coins)
    }
    fn sign(&self, identity: &Identity, message: &[u8], coins: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
        RustCrypto.sign(identity, message, coins)
    }
    fn verify(&self, public_key: &[u8; PUBLIC_KEY_LEN], message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        RustCrypto.verify(public_key, message, signature)
    }
    fn public_key_of_seed(&self, seed: &[u8; 32]) -> Box<[u8; PUBLIC_KEY_LEN]> {
        RustCrypto.public_key_of_seed(seed)
    }
    fn aead(&self, _suite: Suite, key: &[u8; 32]) -> Box<dyn Aead> {
        Box::new(Tagged { key: *key })
    }
}
