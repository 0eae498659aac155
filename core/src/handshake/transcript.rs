//! The running hash of a handshake and the keys that come of it (protocol 3.5).
//!
//! ```text
//!   h0 ─INIT─▶ h1 ─RESP up to ct─▶ h2 ─e1─▶ h3 ─e2, both ids─▶ h4
//!                                  │                           │
//!   ss_mlkem ‖ ss_x25519 ‖ psk ──Extract──▶ prk ──▶ k_r, k_i   └─▶ ck_0
//! ```
use super::{HandshakeError, Setup, VerifiedPeer, layout::Fields};
use crate::{
    crypto::{Identity, PUBLIC_KEY_LEN, Provider, SIGNATURE_LEN, hash::Prk, hash::sha512, peer_id_of},
    id::PeerId,
    session::{Chain, Suite},
    wire::{Params, TAG_LEN},
};

/// A state of the transcript hash. It is no secret.
pub(super) type Hash = [u8; 64];

/// h1 = H(h0 ‖ INIT without macs)
pub(super) fn after_init(setup: &Setup, init: &[u8]) -> Hash {
    let h0 = sha512(&[b"ShadowMesh/1 XXsig", &[setup.role.code()], &setup.network_id, &setup.channel_binding]);
    sha512(&[&h0, init])
}

/// h2 = H(h1 ‖ RESP up to and including `mlkem_ct`), h3 = H(h2 ‖ e1)
pub(super) fn then(hash: &Hash, bytes: &[u8]) -> Hash {
    sha512(&[hash, bytes])
}

/// h4 = H(h3 ‖ e2 ‖ `PeerId_i` ‖ `PeerId_r`)
fn after_fin(h3: &Hash, e2: &[u8], initiator: PeerId, responder: PeerId) -> Hash {
    sha512(&[h3, e2, &initiator.0, &responder.0])
}

/// prk, and with it all keys of the handshake; wiped when dropped.
pub(super) struct Keys {
    prk: Prk,
    h2: Hash,
}

impl Keys {
    pub(super) fn derive(h2: Hash, ss_mlkem: &[u8; 32], ss_x25519: &[u8; 32], psk: &[u8; 32]) -> Self {
        Self { prk: Prk::extract(&h2, &[ss_mlkem, ss_x25519, psk]), h2 }
    }

    /// Appends e1 to RESP: what the responder seals. Returns h3.
    pub(super) fn seal_resp(
        &self,
        suite: Suite,
        identity: &Identity,
        params: &Params,
        coins: &[u8; 32],
        crypto: &dyn Provider,
        out: &mut Vec<u8>,
    ) -> Hash {
        let signature = crypto.sign(identity, &resp_signed(&self.h2, identity.id()), coins);
        let start = self.seal(b"hs r", suite, &self.h2, identity, &signature, params, crypto, out);
        then(&self.h2, &out[start..])
    }

    /// Opens e1 and verifies that `responder` signed it. Returns h3.
    pub(super) fn open_resp(
        &self,
        suite: Suite,
        e1: &[u8],
        responder: PeerId,
        crypto: &dyn Provider,
    ) -> Result<(VerifiedPeer, Params, Hash), HandshakeError> {
        let sealed = self.open(b"hs r", suite, &self.h2, e1, crypto)?;
        if sealed.id() != responder {
            return Err(HandshakeError::Identity);
        }
        let (peer, params) = sealed.verify(&resp_signed(&self.h2, responder), crypto)?;
        Ok((peer, params, then(&self.h2, e1)))
    }

    /// Appends e2 to FIN: what the initiator seals. Returns the session's chain.
    #[expect(clippy::too_many_arguments, reason = "each is one input of the protocol")]
    pub(super) fn seal_fin(
        &self,
        suite: Suite,
        h3: &Hash,
        identity: &Identity,
        responder: PeerId,
        params: &Params,
        coins: &[u8; 32],
        crypto: &dyn Provider,
        out: &mut Vec<u8>,
    ) -> Chain {
        let signature = crypto.sign(identity, &init_signed(h3, identity.id(), responder), coins);
        let start = self.seal(b"hs i", suite, h3, identity, &signature, params, crypto, out);
        self.chain(suite, &after_fin(h3, &out[start..], identity.id(), responder))
    }

    /// Opens e2 and verifies its signature, which names `responder` too.
    pub(super) fn open_fin(
        &self,
        suite: Suite,
        h3: &Hash,
        e2: &[u8],
        responder: PeerId,
        crypto: &dyn Provider,
    ) -> Result<(VerifiedPeer, Params, Chain), HandshakeError> {
        let sealed = self.open(b"hs i", suite, h3, e2, crypto)?;
        let initiator = sealed.id();
        if initiator == responder {
            return Err(HandshakeError::Identity);
        }
        let (peer, params) = sealed.verify(&init_signed(h3, initiator, responder), crypto)?;
        Ok((peer, params, self.chain(suite, &after_fin(h3, e2, initiator, responder))))
    }

    fn chain(&self, suite: Suite, h4: &Hash) -> Chain {
        Chain::start(self.prk.expand(&[b"chain", h4]), suite)
    }

    /// Appends AEAD(public key | signature | params) and returns where it begins. Each key seals once: nonce 0.
    #[expect(clippy::too_many_arguments, reason = "each is one input of the protocol")]
    fn seal(
        &self,
        label: &[u8],
        suite: Suite,
        ad: &Hash,
        identity: &Identity,
        signature: &[u8; SIGNATURE_LEN],
        params: &Params,
        crypto: &dyn Provider,
        out: &mut Vec<u8>,
    ) -> usize {
        let start = out.len();
        out.extend_from_slice(identity.public_key());
        out.extend_from_slice(signature);
        params.emit(out);
        let tag = crypto.aead(suite, &self.prk.expand(&[label, &self.h2])).seal(&[0; 12], ad, &mut out[start..]);
        out.extend_from_slice(&tag);
        start
    }

    fn open(&self, label: &[u8], suite: Suite, ad: &Hash, sealed: &[u8], crypto: &dyn Provider) -> Result<Opened, HandshakeError> {
        let (body, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(HandshakeError::Malformed)?;
        let mut plain = body.to_vec();
        crypto.aead(suite, &self.prk.expand(&[label, &self.h2])).open(&[0; 12], ad, &mut plain, tag).map_err(|_| HandshakeError::Sealed)?;
        Ok(Opened { plain })
    }
}

/// The plaintext of e1 or e2: authentic under the key agreement, not yet known whose it is.
struct Opened {
    plain: Vec<u8>,
}

impl Opened {
    /// Who it claims to be.
    fn id(&self) -> PeerId {
        peer_id_of(self.plain.get(..PUBLIC_KEY_LEN).unwrap_or_default())
    }

    /// The one place where a verified peer comes into being.
    fn verify(&self, signed: &[u8], crypto: &dyn Provider) -> Result<(VerifiedPeer, Params), HandshakeError> {
        let mut fields = Fields(&self.plain);
        let public_key = fields.take::<PUBLIC_KEY_LEN>("public key").map_err(|_| HandshakeError::Malformed)?;
        let signature = fields.take::<SIGNATURE_LEN>("signature").map_err(|_| HandshakeError::Malformed)?;
        if !crypto.verify(public_key, signed, signature) {
            return Err(HandshakeError::Signature);
        }
        let params = Params::parse(fields.0).map_err(|_| HandshakeError::Malformed)?;
        Ok((VerifiedPeer { id: peer_id_of(public_key) }, params))
    }
}

/// What the responder signs: "shadowmesh/1 resp" ‖ 00 ‖ h2 ‖ `PeerId_r`
fn resp_signed(h2: &Hash, responder: PeerId) -> Vec<u8> {
    [b"shadowmesh/1 resp\0".as_slice(), h2, &responder.0].concat()
}

/// What the initiator signs: "shadowmesh/1 init" ‖ 00 ‖ h3 ‖ `PeerId_i` ‖ `PeerId_r`
fn init_signed(h3: &Hash, initiator: PeerId, responder: PeerId) -> Vec<u8> {
    [b"shadowmesh/1 init\0".as_slice(), h3, &initiator.0, &responder.0].concat()
}
