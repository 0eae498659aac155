//! A back end that does each piece of heavy arithmetic once. A target runs the same handshakes for every input, and the portable back
//! end is a function of its arguments: what was computed before is looked up. Seals are always computed.
use sha2::{Digest, Sha256};
use shadowmesh_core::{
    crypto::{
        Aead, Decapsulate, Encapsulated, Identity, KEM_CIPHERTEXT_LEN, KEM_PUBLIC_KEY_LEN, KemKeyPair, PUBLIC_KEY_LEN, Provider,
        SIGNATURE_LEN, SharedSecret, rustcrypto::RustCrypto,
    },
    session::Suite,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Results that are kept of each kind; with more, all are forgotten, which costs time and nothing else.
const KEPT: usize = 4_096;

type Name = [u8; 32];
/// An encapsulation key and what opens for it.
type Pair = (Box<[u8; KEM_PUBLIC_KEY_LEN]>, Arc<dyn Decapsulate>);

/// Remembered results by what they were computed from.
struct Table<T>(Mutex<BTreeMap<Name, T>>);

impl<T: Clone> Table<T> {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn get(&self, name: Name, compute: impl FnOnce() -> T) -> T {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= KEPT {
            table.clear();
        }
        table.entry(name).or_insert_with(compute).clone()
    }
}

static PAIRS: Table<Pair> = Table::new();
static OPENED: Table<Option<SharedSecret>> = Table::new();
static SEALED: Table<Option<(Box<[u8; KEM_CIPHERTEXT_LEN]>, SharedSecret)>> = Table::new();
static SIGNED: Table<Box<[u8; SIGNATURE_LEN]>> = Table::new();
static VERIFIED: Table<bool> = Table::new();

/// `RustCrypto` with a memory, shared by all instances of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memo;

/// A decapsulation key and the name of what made it.
struct Key {
    name: Name,
    inner: Arc<dyn Decapsulate>,
}

impl Decapsulate for Key {
    fn decapsulate(&self, ciphertext: &[u8; KEM_CIPHERTEXT_LEN]) -> Option<SharedSecret> {
        OPENED.get(name(&[b"open", &self.name, ciphertext]), || self.inner.decapsulate(ciphertext))
    }
}

impl Provider for Memo {
    fn name(&self) -> &'static str {
        "memo"
    }

    fn kem_keygen(&self, coins: &[u8; 64]) -> KemKeyPair {
        let name = name(&[b"keygen", coins]);
        let (public_key, inner) = PAIRS.get(name, || {
            let pair = RustCrypto.kem_keygen(coins);
            (Box::new(pair.public_key), Arc::from(pair.secret))
        });
        KemKeyPair { public_key: *public_key, secret: Box::new(Key { name, inner }) }
    }

    fn kem_encapsulate(&self, public_key: &[u8; KEM_PUBLIC_KEY_LEN], coins: &[u8; 32]) -> Option<Encapsulated> {
        let sealed = SEALED.get(name(&[b"seal", coins, public_key]), || {
            RustCrypto.kem_encapsulate(public_key, coins).map(|sealed| (Box::new(sealed.ciphertext), sealed.shared))
        });
        sealed.map(|(ciphertext, shared)| Encapsulated { ciphertext: *ciphertext, shared })
    }

    fn sign(&self, identity: &Identity, message: &[u8], coins: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
        *SIGNED.get(name(&[b"sign", identity.seed(), coins, message]), || Box::new(RustCrypto.sign(identity, message, coins)))
    }

    fn verify(&self, public_key: &[u8; PUBLIC_KEY_LEN], message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        VERIFIED.get(name(&[b"verify", public_key, signature, message]), || RustCrypto.verify(public_key, message, signature))
    }

    fn public_key_of_seed(&self, seed: &[u8; 32]) -> Box<[u8; PUBLIC_KEY_LEN]> {
        RustCrypto.public_key_of_seed(seed)
    }

    fn aead(&self, suite: Suite, key: &[u8; 32]) -> Box<dyn Aead> {
        RustCrypto.aead(suite, key)
    }
}

/// Names the arguments of a computation: all parts but the last have one length in each kind.
fn name(parts: &[&[u8]]) -> Name {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}
