//! Sessions: the key chain, its epochs, and the only makers of `Sealer` and `Opener` (protocol 3.5, 4.1, 4.5).
//!
//! ```text
//!   prk ──"chain"──▶ ck_0 ──"sid"──▶ session_id
//!                     │  \──"data i", "data r", "path"──▶ EpochKeys 0
//!        KEM ratchet  ▼
//!                    ck_1 ──────────────────────────────▶ EpochKeys 1 …
//! ```
use crate::{
    crypto::{
        Aead, Provider,
        hash::{HmacKey, Prk},
    },
    journal::Field,
    time::Duration,
    wire::{FRAME_HEADER_LEN, FRAME_OVERHEAD, FrameHeader, Malformed, Reader, TAG_LEN, TYPE_FRAME},
};
use core::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

pub use crate::crypto::Forged;

/// Keys of an epoch open for so long after a frame of a later one came (protocol 4.5).
pub(crate) const OLD_EPOCH: Duration = Duration::from_secs(10);
/// … and at the longest so long after the keys of a later one are here, whether or not a frame of it came.
pub(crate) const OLD_EPOCH_MOST: Duration = Duration::from_mins(1);

/// Names one session for both of its ends; known to nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

/// The part that an end played in the handshake of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sent INIT.
    Initiator,
    /// Sent RESP.
    Responder,
}

impl Side {
    /// The number in the messages of the re-handshake (protocol 5.1).
    pub const fn code(self) -> u8 {
        match self {
            Self::Initiator => 1,
            Self::Responder => 2,
        }
    }

    /// The part of the other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// What a session computes with; only the AEAD differs (protocol 3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// Suite 1, which every peer has.
    ChaCha20Poly1305,
    /// Suite 2, where both ends have AES in hardware.
    Aes256Gcm,
}

impl Suite {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::ChaCha20Poly1305 => 1,
            Self::Aes256Gcm => 2,
        }
    }

    /// The suite of a number; `None` if this version does not know it.
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::ChaCha20Poly1305),
            2 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }

    /// The name for people: KEM / signature / AEAD.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "ML-KEM-1024+X25519/ML-DSA-87/CHACHA20-POLY1305",
            Self::Aes256Gcm => "ML-KEM-1024+X25519/ML-DSA-87/AES-256-GCM",
        }
    }
}

/// The chain key of one epoch, from which its traffic keys come; wiped when dropped.
pub struct Chain {
    key: Prk,
    id: SessionId,
    epoch: u32,
    suite: Suite,
}

impl Chain {
    /// Epoch 0 of a new session; `ck0` fixes the session's name.
    pub(crate) fn start(ck0: Zeroizing<[u8; 64]>, suite: Suite) -> Self {
        let key = Prk::from_key(ck0);
        let id = SessionId(*key.expand(&[b"sid"]));
        Self { key, id, epoch: 0, suite }
    }

    /// The session that this chain belongs to.
    pub fn session_id(&self) -> SessionId {
        self.id
    }

    /// The epoch whose keys this chain key makes.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What the session computes with.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The traffic keys of this epoch as the end that is `side` uses them.
    pub fn keys(&self, side: Side, crypto: &dyn Provider) -> EpochKeys {
        let by_initiator = crypto.aead(self.suite, &self.traffic_key(b"data i"));
        let by_responder = crypto.aead(self.suite, &self.traffic_key(b"data r"));
        let (seal, open) = match side {
            Side::Initiator => (by_initiator, by_responder),
            Side::Responder => (by_responder, by_initiator),
        };
        EpochKeys {
            epoch: self.epoch,
            seal: Arc::new(Sealer { aead: seal, epoch: self.epoch }),
            open: Arc::new(Opener { aead: open, epoch: self.epoch }),
            path: Arc::new(PathKey { hmac: HmacKey::new(self.traffic_key(b"path").as_slice()), session: self.id, epoch: self.epoch, side }),
        }
    }

    /// The chain of the next epoch, from the secrets of the KEM ratchet and the hash of its two messages (protocol 4.5).
    #[must_use]
    pub fn next(&self, ss_mlkem: &[u8; 32], ss_x25519: &[u8; 32], rekey_hash: &[u8; 64]) -> Self {
        let key = Prk::extract(self.key.as_bytes(), &[ss_mlkem, ss_x25519, rekey_hash]);
        Self { key, id: self.id, epoch: self.epoch.wrapping_add(1), suite: self.suite }
    }

    fn traffic_key(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        // protocol 3.5: Expand(ck_e, label ‖ session_id ‖ e, 32)
        self.key.expand(&[label, &self.id.0, &self.epoch.to_be_bytes()])
    }
}

/// The chain key is in a journal, which is a secret file: with it the traffic of a run can be opened.
impl Field for Chain {
    fn put(&self, out: &mut Vec<u8>) {
        self.key.as_bytes().put(out);
        (self.id, self.epoch).put(out);
        self.suite.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let key = Prk::from_key(Zeroizing::new(Field::take(from)?));
        let (id, epoch) = Field::take(from)?;
        Ok(Self { key, id, epoch, suite: Field::take(from)? })
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("epoch", &self.epoch).field("suite", &self.suite).finish_non_exhaustive()
    }
}

/// Keys of one epoch as one end uses them.
#[derive(Clone, Debug)]
pub struct EpochKeys {
    /// The epoch; its low byte stands in each header.
    pub epoch: u32,
    /// Seals what this end sends.
    pub seal: Arc<Sealer>,
    /// Opens what the other end sent.
    pub open: Arc<Opener>,
    /// Proves this session on a path.
    pub path: Arc<PathKey>,
}

/// Seals frames of one direction in one epoch. It works by shared reference; the caller owns the counters and uses each once.
pub struct Sealer {
    aead: Box<dyn Aead>,
    epoch: u32,
}

impl Sealer {
    /// Seals in place. `frame` is 16 bytes of room for the header ‖ inner type ‖ body ‖ 16 bytes of room for the tag.
    ///
    /// # Panics
    /// If `frame` is shorter than `FRAME_OVERHEAD` or the header names another epoch: both are errors of the caller.
    pub fn seal(&self, header: FrameHeader, frame: &mut [u8]) {
        assert!(frame.len() >= FRAME_OVERHEAD, "a frame has room for header, inner type and tag");
        assert_eq!(header.epoch, self.epoch as u8, "a frame is sealed under the epoch in its header");
        let head = header.to_bytes();
        let (room, rest) = frame.split_at_mut(FRAME_HEADER_LEN);
        room.copy_from_slice(&head);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
        tag.copy_from_slice(&self.aead.seal(&nonce_of(&head), &head, body));
    }

    /// The epoch whose key this is.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }
}

/// Opens frames of one direction in one epoch, by shared reference.
pub struct Opener {
    aead: Box<dyn Aead>,
    epoch: u32,
}

impl Opener {
    /// Opens in place and gives inner type ‖ body. After an error the frame's content is worthless.
    pub fn open<'a>(&self, frame: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        if frame.len() < FRAME_OVERHEAD {
            return Err(Forged);
        }
        let (head, rest) = frame.split_first_chunk_mut::<FRAME_HEADER_LEN>().ok_or(Forged)?;
        if head[0] != TYPE_FRAME || head[1] != self.epoch as u8 {
            return Err(Forged);
        }
        let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(Forged)?;
        self.aead.open(&nonce_of(head), head, body, tag)?;
        Ok(body)
    }

    /// The epoch whose key this is.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }
}

/// protocol 4.1: nonce = 00000000 ‖ counter
fn nonce_of(head: &[u8; FRAME_HEADER_LEN]) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&head[8..]);
    nonce
}

/// The key that proves a session on a path; it knows session, epoch and side, so that no proof can mix them up.
pub struct PathKey {
    hmac: HmacKey,
    session: SessionId,
    epoch: u32,
    side: Side,
}

impl PathKey {
    /// The session that it proves.
    pub fn session_id(&self) -> SessionId {
        self.session
    }

    /// The epoch that it belongs to.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The part that the owner of this key plays in the session.
    pub fn side(&self) -> Side {
        self.side
    }

    pub(crate) fn hmac(&self) -> &HmacKey {
        &self.hmac
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl fmt::Debug for PathKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathKey").field("epoch", &self.epoch).field("side", &self.side).finish_non_exhaustive()
    }
}

/// To the exhaustive models two keys of one session are the same if their epochs are.
#[cfg(test)]
mod model {
    use super::{Opener, Sealer};
    use core::hash::{Hash, Hasher};

    impl Hash for Sealer {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.epoch.hash(state);
        }
    }

    impl Hash for Opener {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.epoch.hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{awslc::AwsLc, rustcrypto::RustCrypto},
        wire::Counter,
    };

    const SUITES: [Suite; 2] = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];

    #[test]
    fn what_one_end_seals_the_other_opens() {
        for suite in SUITES {
            let chain = chain(suite);
            let initiator = chain.keys(Side::Initiator, &RustCrypto);
            let responder = chain.keys(Side::Responder, &AwsLc);
            for (from, to) in [(&initiator, &responder), (&responder, &initiator)] {
                let mut frame = sealed(from, 5, b"hello");
                assert_eq!(frame[..16], header(0, 5).to_bytes());
                assert_eq!(to.open.open(&mut frame).map(|plain| plain.to_vec()), Ok(b"hello".to_vec()));
            }
        }
    }

    #[test]
    fn no_direction_opens_its_own_frames() {
        let initiator = chain(Suite::ChaCha20Poly1305).keys(Side::Initiator, &RustCrypto);
        assert_eq!(initiator.open.open(&mut sealed(&initiator, 0, b"x")), Err(Forged));
    }

    // protocol 4.1
    #[test]
    fn each_altered_bit_is_noticed() {
        for suite in SUITES {
            let chain = chain(suite);
            let (from, to) = (chain.keys(Side::Initiator, &RustCrypto), chain.keys(Side::Responder, &RustCrypto));
            let frame = sealed(&from, 77, b"body");
            for bit in 0..frame.len() * 8 {
                let mut bad = frame.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(to.open.open(&mut bad), Err(Forged), "bit {bit}");
            }
            for len in 0..frame.len() {
                assert_eq!(to.open.open(&mut frame[..len].to_vec()), Err(Forged), "{len} bytes");
            }
        }
    }

    // protocol 4.5
    #[test]
    fn a_new_epoch_has_new_keys_and_the_old_name() {
        let old = chain(Suite::ChaCha20Poly1305);
        let new = old.next(&[1; 32], &[2; 32], &[3; 64]);
        assert_eq!((new.epoch(), new.session_id(), new.suite()), (1, old.session_id(), old.suite()));
        let (from, to) = (old.keys(Side::Initiator, &RustCrypto), new.keys(Side::Responder, &RustCrypto));
        // Even with the epoch byte of the new one, a frame of the old epoch does not open.
        let mut frame = sealed(&from, 0, b"x");
        frame[1] = 1;
        assert_eq!(to.open.open(&mut frame), Err(Forged));
        for other in
            [old.next(&[9; 32], &[2; 32], &[3; 64]), old.next(&[1; 32], &[9; 32], &[3; 64]), old.next(&[1; 32], &[2; 32], &[9; 64])]
        {
            let frame = sealed(&new.keys(Side::Initiator, &RustCrypto), 0, b"x");
            assert_eq!(other.keys(Side::Responder, &RustCrypto).open.open(&mut frame.clone()), Err(Forged), "each input counts");
        }
    }

    // protocol 3.5
    #[test]
    fn the_keys_of_a_chain_key_are_the_expansion_of_protocol_3() {
        let ck0: Zeroizing<[u8; 64]> = Zeroizing::new(core::array::from_fn(|i| i as u8));
        let prk = Prk::from_key(ck0.clone());
        let chain = Chain::start(ck0, Suite::ChaCha20Poly1305);
        let id = *prk.expand::<16>(&[b"sid"]);
        assert_eq!(chain.session_id(), SessionId(id));
        let key = prk.expand::<32>(&[b"data r", &id, &[0, 0, 0, 0]]);
        let mut data = *b"\x02ip";
        let head = header(0, 9).to_bytes();
        let tag = RustCrypto.aead(Suite::ChaCha20Poly1305, &key).seal(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], &head, &mut data);
        let frame = sealed(&chain.keys(Side::Responder, &RustCrypto), 9, b"\x02ip");
        assert_eq!(frame, [&head[..], &data, &tag].concat());
    }

    #[test]
    fn no_key_is_printed() {
        let keys = chain(Suite::Aes256Gcm).keys(Side::Responder, &RustCrypto);
        let shown = format!("{:?}, {:?}, {:?}", keys.seal, keys.open, keys.path);
        assert_eq!(shown, "Sealer { epoch: 0, .. }, Opener { epoch: 0, .. }, PathKey { epoch: 0, side: Responder, .. }");
    }

    // protocol 3.7
    #[test]
    fn suites_have_their_numbers_and_names() {
        for (suite, aead) in SUITES.into_iter().zip(["CHACHA20-POLY1305", "AES-256-GCM"]) {
            assert_eq!(Suite::from_code(suite.code()), Some(suite));
            assert_eq!(suite.label(), format!("ML-KEM-1024+X25519/ML-DSA-87/{aead}"));
        }
        assert_eq!([0, 3, 0x0100, 0xffff].map(Suite::from_code), [None; 4]);
    }

    fn chain(suite: Suite) -> Chain {
        Chain::start(Zeroizing::new([0x42; 64]), suite)
    }

    fn header(epoch: u8, sequence: u64) -> FrameHeader {
        FrameHeader { epoch, generation: 3, receiver: 0xdead_beef, counter: Counter::new(0, sequence) }
    }

    fn sealed(keys: &EpochKeys, sequence: u64, plain: &[u8]) -> Vec<u8> {
        let mut frame = [&[0; 16][..], plain, &[0; 16]].concat();
        keys.seal.seal(header(keys.epoch as u8, sequence), &mut frame);
        frame
    }
}
