//! The initiator: INIT out, RESP in, FIN out (protocol 3).
#![expect(clippy::disallowed_types, reason = "one swap decides which of two jobs spends the offer")]
use super::{
    Concluded, HandshakeError, Kept, Setup, VERSION,
    layout::{self, MAC_LEN, Resp, SUITES_MAX},
    transcript::{self, Hash, Keys},
};
use crate::{
    crypto::{Decapsulate, Identity, Provider, x25519::Scalar},
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

/// The initiator's secrets and its INIT; the secrets are wiped when it is dropped.
pub struct Offer {
    init: Vec<u8>,
    sid: u32,
    keys: Kept<OfferKeys>,
}

struct OfferKeys {
    suites: Vec<Suite>,
    h1: Hash,
    kem: Box<dyn Decapsulate>,
    scalar: Scalar,
    spent: AtomicBool,
}

impl Offer {
    /// INIT as it goes out: mac1 filled, mac2 zero.
    pub fn init(&self) -> &[u8] {
        &self.init
    }

    /// The session number that the initiator chose for itself.
    pub fn sid(&self) -> u32 {
        self.sid
    }

    /// Makes keys and INIT. Of more than four suites the first four are offered.
    pub(super) fn make(setup: &Setup, responder: PeerId, sid: u32, suites: &[Suite], coins: &[u8; 96], crypto: &dyn Provider) -> Self {
        let (for_kem, for_x25519) = split(coins);
        let kem = crypto.kem_keygen(&for_kem);
        let scalar = Scalar::new(*for_x25519);
        let suites: Vec<Suite> = suites.iter().copied().take(SUITES_MAX).collect();
        let mut init = layout::init(setup.role, sid, &suites, &scalar.public(), &kem.public_key);
        let end = init.len() - 2 * MAC_LEN;
        let mac1 = setup.mac1_key(responder).mac(&init[..end]);
        init[end..end + MAC_LEN].copy_from_slice(&mac1);
        let h1 = transcript::after_init(setup, &init[..end]);
        let keys = OfferKeys { suites, h1, kem: kem.secret, scalar, spent: AtomicBool::new(false) };
        Self { init, sid, keys: Kept::Here(keys) }
    }

    /// The offer that made this INIT, as a journal knows it.
    pub(super) fn recorded(init: Vec<u8>) -> Result<Self, Malformed> {
        let sid = layout::Init::parse(&init)?.sid;
        Ok(Self { init, sid, keys: Kept::Recorded })
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer").field("sid", &self.sid).finish_non_exhaustive()
    }
}

/// The 64 coins of a KEM key pair and the 32 of an X25519 scalar.
pub(super) fn split(coins: &[u8; 96]) -> (Zeroizing<[u8; 64]>, Zeroizing<[u8; 32]>) {
    (Zeroizing::new(core::array::from_fn(|i| coins[i])), Zeroizing::new(core::array::from_fn(|i| coins[64 + i])))
}

/// What the initiator brings to a RESP.
pub(super) struct Own<'a> {
    pub(super) setup: &'a Setup,
    pub(super) identity: &'a Identity,
    pub(super) responder: PeerId,
    pub(super) params: &'a Params,
}

impl Own<'_> {
    /// Takes RESP, verifies the responder, makes FIN and the session's chain.
    pub(super) fn conclude(
        &self,
        offer: &Offer,
        resp: &[u8],
        coins: &[u8; 32],
        crypto: &dyn Provider,
    ) -> Result<Concluded, HandshakeError> {
        let resp = Resp::parse(resp).map_err(|_| HandshakeError::Malformed)?;
        if resp.sid_i != offer.sid {
            return Err(HandshakeError::Malformed);
        }
        // protocol 3.7: a downgrade is a hard error
        if resp.version != VERSION {
            return Err(HandshakeError::Version);
        }
        let own = offer.keys.here()?;
        let suite = Suite::from_code(resp.suite).filter(|suite| own.suites.contains(suite)).ok_or(HandshakeError::Suite)?;
        let ss_x25519 = own.scalar.agree(resp.x25519).ok_or(HandshakeError::ZeroShare)?;
        let ss_mlkem = own.kem.decapsulate(resp.mlkem_ct).ok_or(HandshakeError::Malformed)?;
        let h2 = transcript::then(&own.h1, resp.clear);
        let keys = Keys::derive(h2, &ss_mlkem, &ss_x25519, &self.setup.psk);
        let (peer, params, h3) = keys.open_resp(suite, resp.e1, self.responder, crypto)?;
        // The key of e2 seals once: two jobs over one offer must not both get here.
        if own.spent.swap(true, Ordering::AcqRel) {
            return Err(HandshakeError::Spent);
        }
        let mut fin = layout::fin_clear(resp.sid_r, offer.sid);
        let chain = keys.seal_fin(suite, &h3, self.identity, self.responder, self.params, coins, crypto, &mut fin);
        Ok(Concluded { peer, fin, chain: Arc::new(chain), peer_sid: resp.sid_r, params })
    }
}
