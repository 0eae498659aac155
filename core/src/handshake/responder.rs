//! The responder: INIT in, RESP out, FIN in (protocol 3).
#![expect(clippy::disallowed_types, reason = "one swap decides which of two jobs spends the answer")]
use super::{
    HandshakeError, Kept, Setup, VERSION, Verified,
    layout::{self, Fin, Init},
    transcript::{self, Hash, Keys},
};
use crate::{
    crypto::{Identity, Provider, x25519::Scalar},
    id::PeerId,
    session::Suite,
    wire::{Malformed, Params},
};
use core::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The responder's half-open state and its RESP; the keys are wiped when it is dropped.
pub struct Answer {
    resp: Vec<u8>,
    sid: u32,
    peer_sid: u32,
    suite: Suite,
    keys: Kept<AnswerKeys>,
}

struct AnswerKeys {
    keys: Keys,
    h3: Hash,
    spent: AtomicBool,
}

impl Answer {
    /// RESP as it goes out.
    pub fn resp(&self) -> &[u8] {
        &self.resp
    }

    /// The session number that the responder chose for itself.
    pub fn sid(&self) -> u32 {
        self.sid
    }

    /// The session number that the initiator chose for itself.
    pub fn peer_sid(&self) -> u32 {
        self.peer_sid
    }

    /// The suite that was agreed on.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The answer that made this RESP, as a journal knows it.
    pub(super) fn recorded(resp: Vec<u8>) -> Result<Self, Malformed> {
        let layout::Resp { suite, sid_r: sid, sid_i: peer_sid, .. } = layout::Resp::parse(&resp)?;
        let suite = Suite::from_code(suite).ok_or(Malformed("RESP: suite"))?;
        Ok(Self { resp, sid, peer_sid, suite, keys: Kept::Recorded })
    }

    /// Takes FIN and verifies the initiator; `own` is the identity that answered.
    pub(super) fn verify(&self, own: PeerId, fin: &[u8], crypto: &dyn Provider) -> Result<Verified, HandshakeError> {
        let fin = Fin::parse(fin).map_err(|_| HandshakeError::Malformed)?;
        if fin.sid_r != self.sid || fin.sid_i != self.peer_sid {
            return Err(HandshakeError::Malformed);
        }
        let AnswerKeys { keys, h3, spent } = self.keys.here()?;
        let (peer, params, chain) = keys.open_fin(self.suite, h3, fin.e2, own, crypto)?;
        // A session begins once: its counters begin at 0.
        if spent.swap(true, Ordering::AcqRel) {
            return Err(HandshakeError::Spent);
        }
        Ok(Verified { peer, chain: Arc::new(chain), peer_sid: self.peer_sid, params })
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("sid", &self.sid).field("suite", &self.suite).finish_non_exhaustive()
    }
}

/// What the responder brings to an INIT.
pub(super) struct Own<'a> {
    pub(super) setup: &'a Setup,
    pub(super) identity: &'a Identity,
    pub(super) sid: u32,
    pub(super) suites: &'a [Suite],
    pub(super) params: &'a Params,
}

impl Own<'_> {
    /// Takes INIT and makes RESP.
    pub(super) fn answer(&self, init: &[u8], coins: &[u8; 96], crypto: &dyn Provider) -> Result<Answer, HandshakeError> {
        let init = Init::parse(init).map_err(|_| HandshakeError::Malformed)?;
        if init.role != self.setup.role {
            return Err(HandshakeError::Malformed);
        }
        if !(init.version_min..=init.version_max).contains(&VERSION) {
            return Err(HandshakeError::Version);
        }
        // protocol 3.7: the highest common one of the initiator's order
        let suite = init.suites().find(|suite| self.suites.contains(suite)).ok_or(HandshakeError::Suite)?;
        let [for_kem, for_x25519, for_signature] = thirds(coins);
        let scalar = Scalar::new(*for_x25519);
        let ss_x25519 = scalar.agree(init.x25519).ok_or(HandshakeError::ZeroShare)?;
        let kem = crypto.kem_encapsulate(init.mlkem_ek, &for_kem).ok_or(HandshakeError::Malformed)?;
        let mut resp = layout::resp_clear(suite, self.sid, init.sid, &scalar.public(), &kem.ciphertext);
        let h1 = transcript::after_init(self.setup, init.transcript);
        let keys = Keys::derive(transcript::then(&h1, &resp), &kem.shared, &ss_x25519, &self.setup.psk);
        let h3 = keys.seal_resp(suite, self.identity, self.params, &for_signature, crypto, &mut resp);
        let mac1 = self.setup.mac1_key(self.identity.id()).mac(&resp);
        resp.extend_from_slice(&mac1);
        let keys = Kept::Here(AnswerKeys { keys, h3, spent: AtomicBool::new(false) });
        Ok(Answer { resp, sid: self.sid, peer_sid: init.sid, suite, keys })
    }
}

/// The coins of an encapsulation, an X25519 scalar and a signature.
pub(super) fn thirds(coins: &[u8; 96]) -> [Zeroizing<[u8; 32]>; 3] {
    core::array::from_fn(|part| Zeroizing::new(core::array::from_fn(|i| coins[32 * part + i])))
}
