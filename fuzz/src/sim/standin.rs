//! A back end for volume: the sizes and the rules of the real one, the strength of none. It never leaves this crate.
//!
//! Keys, ciphertexts and signatures are what a fast hash makes of their causes, so that a changed bit anywhere is refused as the
//! real ones refuse it, and every byte follows from the coins. Anybody could forge all of it; nobody in this world tries.
use super::ledger::fingerprint;
use shadowmesh_core::{
    crypto::{
        Aead, Decapsulate, Encapsulated, Forged, Identity, KEM_CIPHERTEXT_LEN, KEM_PUBLIC_KEY_LEN, KemKeyPair, PUBLIC_KEY_LEN, Provider,
        SIGNATURE_LEN, SharedSecret, rustcrypto::RustCrypto,
    },
    session::Suite,
};

/// The stand-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandIn;

/// Fills `out` with what follows from `seed`.
fn spread(seed: u128, out: &mut [u8]) {
    let (mut a, b) = ((seed >> 64) as u64, seed as u64);
    for chunk in out.chunks_mut(8) {
        a = a.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = ((a ^ b) ^ ((a ^ b) >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bytes = (word ^ (word >> 32)).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
}

fn secret(seed: u128) -> SharedSecret {
    let mut out = SharedSecret::default();
    spread(seed, &mut out[..]);
    out
}

/// A key or ciphertext: 16 bytes that say what it is, and all that follows from them.
fn grown<const LEN: usize>(label: u64, seed: [u8; 16]) -> [u8; LEN] {
    let mut out = [0; LEN];
    out[..16].copy_from_slice(&seed);
    spread(fingerprint(label, &[&seed]), &mut out[16..]);
    out
}

/// What it grew from, if nothing of it was changed.
fn root<const LEN: usize>(label: u64, whole: &[u8; LEN]) -> Option<[u8; 16]> {
    let seed = *whole.first_chunk::<16>()?;
    (grown::<LEN>(label, seed) == *whole).then_some(seed)
}

const KEY: u64 = 1;
const CIPHERTEXT: u64 = 2;
const SHARED: u64 = 3;
const REJECTED: u64 = 4;
const SIGNATURE: u64 = 5;
const AEAD: u64 = 6;
const TAG: u64 = 7;

struct Secret([u8; 16]);

impl Decapsulate for Secret {
    fn decapsulate(&self, ciphertext: &[u8; KEM_CIPHERTEXT_LEN]) -> Option<SharedSecret> {
        Some(secret(match root(CIPHERTEXT, ciphertext) {
            Some(seed) => fingerprint(SHARED, &[&self.0, &seed]),
            None => fingerprint(REJECTED, &[&self.0, ciphertext]),
        }))
    }
}

fn signature(public_key: &[u8; PUBLIC_KEY_LEN], message: &[u8]) -> [u8; SIGNATURE_LEN] {
    grown(SIGNATURE, fingerprint(SIGNATURE, &[public_key, message]).to_le_bytes())
}

impl Provider for StandIn {
    fn name(&self) -> &'static str {
        "stand-in"
    }

    fn kem_keygen(&self, coins: &[u8; 64]) -> KemKeyPair {
        let seed = fingerprint(KEY, &[coins]).to_le_bytes();
        KemKeyPair { public_key: grown(KEY, seed), secret: Box::new(Secret(seed)) }
    }

    fn kem_encapsulate(&self, public_key: &[u8; KEM_PUBLIC_KEY_LEN], coins: &[u8; 32]) -> Option<Encapsulated> {
        let holder = root(KEY, public_key)?;
        let seed = fingerprint(CIPHERTEXT, &[coins]).to_le_bytes();
        Some(Encapsulated { ciphertext: grown(CIPHERTEXT, seed), shared: secret(fingerprint(SHARED, &[&holder, &seed])) })
    }

    fn sign(&self, identity: &Identity, message: &[u8], _coins: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
        signature(identity.public_key(), message)
    }

    fn verify(&self, public_key: &[u8; PUBLIC_KEY_LEN], message: &[u8], given: &[u8; SIGNATURE_LEN]) -> bool {
        signature(public_key, message) == *given
    }

    fn public_key_of_seed(&self, seed: &[u8; 32]) -> Box<[u8; PUBLIC_KEY_LEN]> {
        RustCrypto.public_key_of_seed(seed)
    }

    fn aead(&self, suite: Suite, key: &[u8; 32]) -> Box<dyn Aead> {
        Box::new(Keyed(fingerprint(AEAD + u64::from(suite.code()), &[key])))
    }
}

struct Keyed(u128);

impl Keyed {
    fn mask(&self, nonce: &[u8; 12], data: &mut [u8]) {
        let seed = fingerprint(self.0 as u64, &[nonce]) ^ self.0;
        let (mut a, b) = ((seed >> 64) as u64, seed as u64);
        for chunk in data.chunks_mut(8) {
            a = a.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let word = ((a ^ b) ^ ((a ^ b) >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes();
            chunk.iter_mut().zip(word).for_each(|(byte, mask)| *byte ^= mask);
        }
    }

    fn tag(&self, nonce: &[u8; 12], ad: &[u8], sealed: &[u8]) -> [u8; 16] {
        (fingerprint(TAG ^ self.0 as u64, &[nonce, ad, sealed]) ^ self.0).to_le_bytes()
    }
}

impl Aead for Keyed {
    fn seal(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8]) -> [u8; 16] {
        self.mask(nonce, data);
        self.tag(nonce, ad, data)
    }

    fn open(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> Result<(), Forged> {
        if self.tag(nonce, ad, data) != *tag {
            return Err(Forged);
        }
        self.mask(nonce, data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_kem_agree_and_a_changed_bit_parts_them() {
        let pair = StandIn.kem_keygen(&[3; 64]);
        let sent = StandIn.kem_encapsulate(&pair.public_key, &[4; 32]).expect("a good key");
        assert_eq!(pair.secret.decapsulate(&sent.ciphertext).expect("never fails"), sent.shared);
        for at in [0, 15, 16, 900, KEM_CIPHERTEXT_LEN - 1] {
            let (mut key, mut ciphertext) = (pair.public_key, sent.ciphertext);
            key[at] ^= 1;
            ciphertext[at] ^= 1;
            assert!(StandIn.kem_encapsulate(&key, &[4; 32]).is_none(), "key byte {at}");
            assert_ne!(pair.secret.decapsulate(&ciphertext).expect("never fails"), sent.shared, "ciphertext byte {at}");
        }
        let other = StandIn.kem_keygen(&[5; 64]);
        assert_ne!(other.secret.decapsulate(&sent.ciphertext).expect("never fails"), sent.shared);
    }

    #[test]
    fn a_signature_holds_for_its_key_and_message_alone() {
        let (one, other) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let good = StandIn.sign(&one, b"message", &[0; 32]);
        assert!(StandIn.verify(one.public_key(), b"message", &good));
        assert!(!StandIn.verify(other.public_key(), b"message", &good));
        assert!(!StandIn.verify(one.public_key(), b"massage", &good));
        for at in [0, 100, SIGNATURE_LEN - 1] {
            let mut bad = good;
            bad[at] ^= 0x80;
            assert!(!StandIn.verify(one.public_key(), b"message", &bad));
        }
    }

    #[test]
    fn a_sealed_frame_opens_under_its_key_nonce_and_header_alone() {
        let aead = StandIn.aead(Suite::ChaCha20Poly1305, &[9; 32]);
        let plain: Vec<u8> = (0..100).collect();
        let mut sealed = plain.clone();
        let tag = aead.seal(&[1; 12], b"header", &mut sealed);
        assert_ne!(sealed, plain);
        let open = |aead: &dyn Aead, nonce: u8, ad: &[u8], data: &[u8]| {
            let mut data = data.to_vec();
            aead.open(&[nonce; 12], ad, &mut data, &tag).map(|()| data)
        };
        assert_eq!(open(&*aead, 1, b"header", &sealed), Ok(plain));
        assert_eq!(open(&*aead, 2, b"header", &sealed), Err(Forged));
        assert_eq!(open(&*aead, 1, b"heaver", &sealed), Err(Forged));
        assert_eq!(open(&*StandIn.aead(Suite::Aes256Gcm, &[9; 32]), 1, b"header", &sealed), Err(Forged));
        for at in 0..100 {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(open(&*aead, 1, b"header", &bad), Err(Forged), "byte {at}");
        }
    }
}
