//! What every key did: a record of seals and opens beside the real work, so that a reused nonce or a plaintext from nowhere is seen.
//!
//! ```text
//!   Node, Plane ──▶ Watched ──▶ the back end
//!                      └─▶ Ledger: (key, nonce) of each seal with what it sealed; each plaintext that was opened, until it is delivered
//! ```
use shadowmesh_core::{
    crypto::{Aead, Encapsulated, Forged, Identity, KEM_PUBLIC_KEY_LEN, KemKeyPair, PUBLIC_KEY_LEN, Provider, SIGNATURE_LEN},
    session::Suite,
    wire::{INNER_ETHERNET, INNER_IP, INNER_PIECE},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// Two 64-bit lanes of a fast hash: to tell things apart, not to resist anybody.
pub(super) fn fingerprint(seed: u64, parts: &[&[u8]]) -> u128 {
    let (mut a, mut b) = (seed ^ 0x9e37_79b9_7f4a_7c15, seed.rotate_left(32) ^ 0xd1b5_4a32_d192_ed03);
    let mut fold = |word: u64| {
        a = (a ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31);
        b = (b.rotate_left(27) ^ word).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    };
    for part in parts {
        fold(part.len() as u64);
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            fold(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        fold(u64::from_le_bytes(last));
    }
    (u128::from(a ^ (b >> 29)) << 64) | u128::from(b ^ (a >> 32))
}

#[derive(Default)]
struct Book {
    sealed: BTreeMap<u128, u64>,
    /// Plaintexts of data frames by host, opened and not delivered.
    opened: BTreeMap<(usize, u64), u32>,
    /// Pieces of packets by host, key and counter.
    pieces: BTreeMap<(usize, u64, u64), Vec<u8>>,
    reused: Option<String>,
    seals: u64,
    opens: u64,
}

impl Book {
    fn shown(&mut self, host: usize, packet: &[u8]) {
        *self.opened.entry((host, fingerprint(2, &[packet]) as u64)).or_default() += 1;
    }

    /// The packet to which the piece with this counter belongs, once all of it was opened (protocol 4.2).
    fn whole(&self, host: usize, key: u64, counter: u64) -> Option<Vec<u8>> {
        let place = |piece: &[u8]| piece.get(1).copied();
        let first = counter.checked_sub(u64::from(place(self.pieces.get(&(host, key, counter))?)? & 0x7f))?;
        let mut packet = Vec::new();
        for (index, counter) in (first..).enumerate() {
            let piece = self.pieces.get(&(host, key, counter))?;
            let place = place(piece).filter(|place| usize::from(place & 0x7f) == index)?;
            packet.extend_from_slice(piece.get(2..)?);
            if place & 0x80 != 0 {
                break;
            }
        }
        Some(packet)
    }
}

/// The record of one world.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// A key sealed this plaintext under this nonce.
    pub fn sealed(&self, host: usize, key: u64, nonce: &[u8; 12], ad: &[u8], plain: &[u8]) {
        let mut book = self.book();
        book.seals += 1;
        let what = fingerprint(1, &[ad, plain]) as u64;
        if *book.sealed.entry(fingerprint(key, &[nonce])).or_insert(what) != what {
            book.reused.get_or_insert(format!("host {host} sealed two plaintexts under one key and the nonce {nonce:02x?}"));
        }
    }

    /// A tag verified and showed this plaintext.
    pub fn opened(&self, host: usize, key: u64, nonce: &[u8; 12], plain: &[u8]) {
        let mut book = self.book();
        book.opens += 1;
        match plain.split_first() {
            Some((&(INNER_IP | INNER_ETHERNET), packet)) => book.shown(host, packet),
            Some((&INNER_PIECE, piece)) => {
                let counter = nonce.last_chunk().map_or(0, |counter| u64::from_be_bytes(*counter));
                book.pieces.insert((host, key, counter), piece.to_vec());
                if let Some(packet) = book.whole(host, key, counter) {
                    book.shown(host, &packet);
                }
            }
            _ => {}
        }
    }

    /// A packet left the plane: whether it was opened there before, and not delivered since.
    #[must_use]
    pub fn delivered(&self, host: usize, packet: &[u8]) -> bool {
        let mut book = self.book();
        let name = (host, fingerprint(2, &[packet]) as u64);
        match book.opened.get_mut(&name) {
            Some(1) => book.opened.remove(&name).is_some(),
            Some(count) => {
                *count -= 1;
                true
            }
            None => false,
        }
    }

    /// The first reuse of a nonce.
    pub fn reused(&self) -> Option<String> {
        self.book().reused.clone()
    }

    /// Seals and opens so far.
    pub fn counts(&self) -> (u64, u64) {
        let book = self.book();
        (book.seals, book.opens)
    }

    /// Forgets seals and plaintexts, for a run of days: what came before is not compared any more.
    pub fn forget(&self) {
        let mut book = self.book();
        book.sealed.clear();
        book.opened.clear();
        book.pieces.clear();
    }
}

/// A back end whose seals and opens are written down.
pub struct Watched {
    inner: Arc<dyn Provider>,
    ledger: Ledger,
    host: usize,
}

impl Watched {
    /// This back end as one host uses it.
    pub fn new(inner: Arc<dyn Provider>, ledger: Ledger, host: usize) -> Self {
        Self { inner, ledger, host }
    }
}

impl Provider for Watched {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn kem_keygen(&self, coins: &[u8; 64]) -> KemKeyPair {
        self.inner.kem_keygen(coins)
    }
    fn kem_encapsulate(&self, public_key: &[u8; KEM_PUBLIC_KEY_LEN], coins: &[u8; 32]) -> Option<Encapsulated> {
        self.inner.kem_encapsulate(public_key, coins)
    }
    fn sign(&self, identity: &Identity, message: &[u8], coins: &[u8; 32]) -> [u8; SIGNATURE_LEN] {
        self.inner.sign(identity, message, coins)
    }
    fn verify(&self, public_key: &[u8; PUBLIC_KEY_LEN], message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.inner.verify(public_key, message, signature)
    }
    fn public_key_of_seed(&self, seed: &[u8; 32]) -> Box<[u8; PUBLIC_KEY_LEN]> {
        self.inner.public_key_of_seed(seed)
    }
    fn aead(&self, suite: Suite, key: &[u8; 32]) -> Box<dyn Aead> {
        let name = fingerprint(u64::from(suite.code()), &[key]) as u64;
        Box::new(WatchedAead { inner: self.inner.aead(suite, key), ledger: self.ledger.clone(), key: name, host: self.host })
    }
}

struct WatchedAead {
    inner: Box<dyn Aead>,
    ledger: Ledger,
    key: u64,
    host: usize,
}

impl Aead for WatchedAead {
    fn seal(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8]) -> [u8; 16] {
        self.ledger.sealed(self.host, self.key, nonce, ad, data);
        self.inner.seal(nonce, ad, data)
    }
    fn open(&self, nonce: &[u8; 12], ad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> Result<(), Forged> {
        self.inner.open(nonce, ad, data, tag)?;
        self.ledger.opened(self.host, self.key, nonce, data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::standin::StandIn, *};

    #[test]
    fn two_plaintexts_under_one_nonce_are_seen_and_the_same_one_twice_is_not() {
        let ledger = Ledger::default();
        let crypto = Watched::new(Arc::new(StandIn), ledger.clone(), 3);
        let aead = crypto.aead(Suite::ChaCha20Poly1305, &[7; 32]);
        aead.seal(&[1; 12], b"ad", &mut [1, 2, 3]);
        aead.seal(&[1; 12], b"ad", &mut [1, 2, 3]);
        aead.seal(&[2; 12], b"ad", &mut [1, 2, 4]);
        crypto.aead(Suite::ChaCha20Poly1305, &[8; 32]).seal(&[1; 12], b"ad", &mut [9]);
        assert_eq!(ledger.reused(), None);
        aead.seal(&[1; 12], b"ad", &mut [1, 2, 4]);
        assert!(ledger.reused().is_some_and(|what| what.contains("host 3")));
    }

    // protocol 4.2
    #[test]
    fn a_packet_in_pieces_is_opened_with_the_last_of_them() {
        let ledger = Ledger::default();
        let crypto = Watched::new(Arc::new(StandIn), ledger.clone(), 0);
        let aead = crypto.aead(Suite::Aes256Gcm, &[7; 32]);
        let mut sealed = [[INNER_PIECE, INNER_IP, 0, 5], [INNER_PIECE, INNER_IP, 0x81, 6]].map(Vec::from);
        let nonces = [8, 9].map(|counter| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, counter]);
        let tags = [0, 1].map(|index| aead.seal(&nonces[index], b"", &mut sealed[index]));
        for index in [1, 0] {
            assert!(!ledger.delivered(0, &[5, 6]), "one piece is no packet");
            aead.open(&nonces[index], b"", &mut sealed[index], &tags[index]).expect("as it was sealed");
        }
        assert!(ledger.delivered(0, &[5, 6]) && !ledger.delivered(0, &[5, 6]));
    }

    #[test]
    fn a_packet_is_delivered_once_for_each_time_it_was_opened() {
        let ledger = Ledger::default();
        let crypto = Watched::new(Arc::new(StandIn), ledger.clone(), 0);
        let aead = crypto.aead(Suite::Aes256Gcm, &[7; 32]);
        let mut frame = vec![INNER_IP, 5, 6, 7];
        let tag = aead.seal(&[1; 12], b"", &mut frame);
        assert!(!ledger.delivered(0, &[5, 6, 7]), "nothing was opened yet");
        aead.open(&[1; 12], b"", &mut frame, &tag).expect("as it was sealed");
        assert!(!ledger.delivered(1, &[5, 6, 7]), "another host did not open it");
        assert!(ledger.delivered(0, &[5, 6, 7]));
        assert!(!ledger.delivered(0, &[5, 6, 7]));
    }
}
