//! The handshake "`XXsig`" in both roles and both uses (protocol 3.1): SIGMA-I with a KEM, as jobs that a driver runs where it likes.
//!
//! ```text
//!   initiator                                          responder
//!   Offer    ──▶ Arc<Offer>  ── INIT ──────────────▶   Answer ──▶ Arc<Answer>
//!   Conclude ◀────────────────────────────── RESP ──
//!      │     ──▶ Concluded   ── FIN ───────────────▶   Verify ──▶ Verified
//!      ▼                                                  ▼
//!   Arc<Chain>, VerifiedPeer                           Arc<Chain>, VerifiedPeer
//! ```
//!
//! A machine checks mac1 of INIT and RESP (`Mac1Key`) before it orders a job: the cheap lock before the dear one.
//! `Offer` and `Answer` are shared, so a bad RESP or FIN leaves the attempt as it was; each yields at most one session
//! (`HandshakeError::Spent`), because a second one would reuse its keys from counter 0.
use crate::{
    crypto::{Forged, Identity, Provider, hash},
    id::PeerId,
    network::Network,
    session::{Chain, Suite},
    wire::Params,
};
use core::fmt;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

mod initiator;
mod journal;
mod layout;
mod rekey;
mod responder;
#[cfg(test)]
mod tests;
mod transcript;

pub use initiator::Offer;
pub use layout::{
    FIN_LEN_MAX, FIN_LEN_MIN, INIT_LEN_MAX, INIT_LEN_MIN, InitInfo, RESP_LEN_MAX, RESP_LEN_MIN, peek_fin, peek_init, peek_resp,
};
pub use rekey::{REKEY_LEN, RekeyOffer};
pub use responder::Answer;

/// The only protocol version that this code speaks.
pub const VERSION: u8 = 1;

/// Which of the two uses of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A client and its relay, bound to their TLS connection.
    ClientRelay = 1,
    /// Two peers, bound to their network's secret.
    PeerPeer = 2,
}

impl Role {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The role of a number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::ClientRelay),
            2 => Some(Self::PeerPeer),
            _ => None,
        }
    }
}

/// Which use, and what is mixed in. The PSK is wiped when it is dropped.
#[derive(Clone)]
pub struct Setup {
    /// The use.
    pub role: Role,
    /// The network between peers; zeros with a relay, to which FIN names the network.
    pub network_id: [u8; 32],
    /// The network's secret between peers; zeros with a relay.
    pub psk: [u8; 32],
    /// The TLS exporter with a relay; zeros between peers.
    pub channel_binding: [u8; 32],
}

impl Setup {
    /// Client and relay on the TLS connection with this exporter.
    pub fn client_relay(exporter: [u8; 32]) -> Self {
        Self { role: Role::ClientRelay, network_id: [0; 32], psk: [0; 32], channel_binding: exporter }
    }

    /// Two peers of a network.
    pub fn peer_peer(network: &Network) -> Self {
        Self { role: Role::PeerPeer, network_id: network.network_id(), psk: *network.psk(), channel_binding: [0; 32] }
    }

    /// The key of mac1 in the messages of a handshake with this responder.
    pub fn mac1_key(&self, responder: PeerId) -> Mac1Key {
        // protocol 3
        let key: Zeroizing<[u8; 32]> = Zeroizing::new(match self.role {
            Role::ClientRelay => hash::sha512_prefix(&[b"mac1", &responder.0]),
            Role::PeerPeer => hash::HmacKey::new(&self.psk).mac(&[b"mac1", &responder.0]),
        });
        Mac1Key(hash::HmacKey::new(key.as_slice()))
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.psk.zeroize();
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("role", &self.role).finish_non_exhaustive()
    }
}

/// Checks mac1: proves that the sender knows for whom a message is, and between peers that it is of the network.
pub struct Mac1Key(hash::HmacKey);

impl Mac1Key {
    /// Whether mac1 of this INIT holds; a malformed INIT is forged as well.
    pub fn verify_init(&self, init: &[u8]) -> Result<(), Forged> {
        let init = layout::Init::parse(init).map_err(|_| Forged)?;
        if self.0.verify(&[init.transcript], init.mac1) { Ok(()) } else { Err(Forged) }
    }

    /// Whether mac1 of this RESP holds; a malformed RESP is forged as well.
    pub fn verify_resp(&self, resp: &[u8]) -> Result<(), Forged> {
        let resp = layout::Resp::parse(resp).map_err(|_| Forged)?;
        if self.0.verify(&[resp.maced], resp.mac1) { Ok(()) } else { Err(Forged) }
    }

    /// The key itself, which the tags of fragments hang on, too (protocol 8.6).
    pub(crate) fn hmac(&self) -> &hash::HmacKey {
        &self.0
    }

    fn mac(&self, message: &[u8]) -> [u8; 16] {
        let whole = self.0.mac(&[message]);
        core::array::from_fn(|i| whole[i])
    }
}

/// Labels a job so that its result finds its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Heavy arithmetic, carried out by the driver: inline, on a pool, or in the simulator.
///
/// The coins are inside: with the `RustCrypto` back end the result is a function of the job.
pub struct Job {
    /// Goes back with the result.
    pub ticket: Ticket,
    /// What to do.
    pub work: Work,
}

/// The seven kinds of job.
pub enum Work {
    /// Initiator: make INIT.
    Offer {
        /// The use.
        setup: Setup,
        /// Who shall answer.
        responder: PeerId,
        /// The session number that the initiator chooses for itself.
        sid: u32,
        /// In order of preference; 1 to 4.
        suites: Vec<Suite>,
        /// 64 for the KEM, 32 for X25519.
        coins: Zeroizing<[u8; 96]>,
    },
    /// Responder: take an INIT whose mac1 was checked, make RESP.
    Answer {
        /// The use.
        setup: Setup,
        /// Who answers.
        identity: Arc<Identity>,
        /// The INIT as it came.
        init: Vec<u8>,
        /// The session number that the responder chooses for itself.
        sid: u32,
        /// What the responder supports; the order is the initiator's.
        suites: Vec<Suite>,
        /// Goes to the initiator under seal.
        params: Params,
        /// 32 each for the KEM, X25519 and the signature.
        coins: Zeroizing<[u8; 96]>,
    },
    /// Initiator: take a RESP whose mac1 was checked, verify it, make FIN.
    Conclude {
        /// The use.
        setup: Setup,
        /// Who initiates.
        identity: Arc<Identity>,
        /// Who must have answered.
        responder: PeerId,
        /// What was offered.
        offer: Arc<Offer>,
        /// The RESP as it came.
        resp: Vec<u8>,
        /// Goes to the responder under seal.
        params: Params,
        /// For the signature.
        coins: Zeroizing<[u8; 32]>,
    },
    /// Responder: take FIN, verify it.
    Verify {
        /// Who answered.
        identity: Arc<Identity>,
        /// What was answered.
        answer: Arc<Answer>,
        /// The FIN as it came.
        fin: Vec<u8>,
    },
    /// The session's initiator: make REKEY1 for a new epoch.
    RekeyOffer {
        /// The epoch to be made: one more than the chain's.
        epoch: u32,
        /// 64 for the KEM, 32 for X25519.
        coins: Zeroizing<[u8; 96]>,
    },
    /// The session's responder: take REKEY1, make REKEY2 and the new chain.
    RekeyAnswer {
        /// The epoch named in REKEY1.
        epoch: u32,
        /// x25519 32 ‖ `mlkem_ek` 1568.
        rekey1: Vec<u8>,
        /// The chain of the epoch under which REKEY1 came.
        chain: Arc<Chain>,
        /// 32 for the KEM, 32 for X25519; the rest is not used.
        coins: Zeroizing<[u8; 96]>,
    },
    /// The session's initiator: take REKEY2, make the new chain.
    RekeyConclude {
        /// The epoch named in REKEY2.
        epoch: u32,
        /// What was offered.
        offer: Arc<RekeyOffer>,
        /// x25519 32 ‖ `mlkem_ct` 1568.
        rekey2: Vec<u8>,
        /// The chain of the epoch under which REKEY1 went out.
        chain: Arc<Chain>,
    },
}

impl Job {
    /// Does the work, in 0.1 to 2 ms.
    pub fn run(self, crypto: &dyn Provider) -> Done {
        let outcome = match self.work {
            Work::Offer { setup, responder, sid, suites, coins } => {
                Outcome::Offered(Arc::new(Offer::make(&setup, responder, sid, &suites, &coins, crypto)))
            }
            Work::Answer { setup, identity, init, sid, suites, params, coins } => {
                let answer = responder::Own { setup: &setup, identity: &identity, sid, suites: &suites, params: &params };
                Outcome::Answered(answer.answer(&init, &coins, crypto).map(Arc::new))
            }
            Work::Conclude { setup, identity, responder, offer, resp, params, coins } => {
                let own = initiator::Own { setup: &setup, identity: &identity, responder, params: &params };
                Outcome::Concluded(own.conclude(&offer, &resp, &coins, crypto))
            }
            Work::Verify { identity, answer, fin } => Outcome::Verified(answer.verify(identity.id(), &fin, crypto)),
            Work::RekeyOffer { epoch, coins } => Outcome::RekeyOffered(Arc::new(RekeyOffer::make(epoch, &coins, crypto))),
            Work::RekeyAnswer { epoch, rekey1, chain, coins } => {
                Outcome::RekeyAnswered(rekey::answer(epoch, &rekey1, &chain, &coins, crypto).map(|(rekey2, next)| (rekey2, Arc::new(next))))
            }
            Work::RekeyConclude { epoch, offer, rekey2, chain } => {
                Outcome::RekeyConcluded(offer.conclude(epoch, &rekey2, &chain).map(Arc::new))
            }
        };
        Done { ticket: self.ticket, outcome }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match &self.work {
            Work::Offer { .. } => "Offer",
            Work::Answer { .. } => "Answer",
            Work::Conclude { .. } => "Conclude",
            Work::Verify { .. } => "Verify",
            Work::RekeyOffer { .. } => "RekeyOffer",
            Work::RekeyAnswer { .. } => "RekeyAnswer",
            Work::RekeyConclude { .. } => "RekeyConclude",
        };
        f.debug_struct("Job").field("ticket", &self.ticket).field("work", &work).finish_non_exhaustive()
    }
}

/// A job's result.
#[derive(Clone, Debug)]
pub struct Done {
    /// The label of the job.
    pub ticket: Ticket,
    /// What came of it.
    pub outcome: Outcome,
}

/// One result for each kind of `Work`.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// INIT is made.
    Offered(Arc<Offer>),
    /// RESP is made, or INIT refused.
    Answered(Result<Arc<Answer>, HandshakeError>),
    /// The responder is verified and FIN made, or RESP refused.
    Concluded(Result<Concluded, HandshakeError>),
    /// The initiator is verified, or FIN refused.
    Verified(Result<Verified, HandshakeError>),
    /// REKEY1 is made.
    RekeyOffered(Arc<RekeyOffer>),
    /// REKEY2 (x25519 32 ‖ `mlkem_ct` 1568) and the new chain are made, or REKEY1 refused.
    RekeyAnswered(Result<(Vec<u8>, Arc<Chain>), HandshakeError>),
    /// The new chain is made, or REKEY2 refused.
    RekeyConcluded(Result<Arc<Chain>, HandshakeError>),
}

/// The keys of a half-open step, which serve one later job.
enum Kept<T> {
    /// With the machine that made them.
    Here(T),
    /// In a replay: the result of that job is in the journal, the keys are not.
    Recorded,
}

impl<T> Kept<T> {
    /// The keys. What was recorded has been spent.
    fn here(&self) -> Result<&T, HandshakeError> {
        match self {
            Self::Here(keys) => Ok(keys),
            Self::Recorded => Err(HandshakeError::Spent),
        }
    }
}

/// A peer whose signature over this very handshake was checked: only this module makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    id: PeerId,
}

impl VerifiedPeer {
    /// Who it is.
    pub fn id(&self) -> PeerId {
        self.id
    }
}

/// What the initiator has after a good RESP.
#[derive(Clone, Debug)]
pub struct Concluded {
    /// The responder.
    pub peer: VerifiedPeer,
    /// To be sent, and sent again bit for bit until the first sealed frame comes.
    pub fin: Vec<u8>,
    /// Epoch 0 of the session.
    pub chain: Arc<Chain>,
    /// The session number that frames to the responder carry.
    pub peer_sid: u32,
    /// What the responder says about itself.
    pub params: Params,
}

/// What the responder has after a good FIN.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The initiator.
    pub peer: VerifiedPeer,
    /// Epoch 0 of the session.
    pub chain: Arc<Chain>,
    /// The session number that frames to the initiator carry.
    pub peer_sid: u32,
    /// What the initiator says about itself.
    pub params: Params,
}

/// Why a handshake message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandshakeError {
    /// It does not follow the layout, or is not of this attempt, or holds an invalid KEM key.
    Malformed,
    /// No common protocol version, or another one than offered.
    Version,
    /// No common suite, or another one than offered.
    Suite,
    /// An X25519 share of small order.
    ZeroShare,
    /// The sealed part does not open: other network, other TLS connection, or altered on the way.
    Sealed,
    /// Signed by another identity than expected, or by our own.
    Identity,
    /// The signature does not verify.
    Signature,
    /// This attempt has already made its session.
    Spent,
}

impl HandshakeError {
    /// All of them, in their order.
    pub const ALL: [Self; 8] =
        [Self::Malformed, Self::Version, Self::Suite, Self::ZeroShare, Self::Sealed, Self::Identity, Self::Signature, Self::Spent];
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the message does not follow the layout",
            Self::Version => "no common protocol version",
            Self::Suite => "no common cipher suite",
            Self::ZeroShare => "the X25519 share is of small order",
            Self::Sealed => "the sealed part does not open: another network, another TLS connection, or altered on the way",
            Self::Identity => "another identity than expected",
            Self::Signature => "the signature does not verify",
            Self::Spent => "this attempt has already made its session",
        })
    }
}

impl core::error::Error for HandshakeError {}
