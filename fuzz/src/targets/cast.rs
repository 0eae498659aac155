//! Who plays in the targets: two members of a network, and the genuine messages and keys that they make of fixed coins.
use super::memo::Memo;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};
use shadowmesh_core::{
    crypto::Identity,
    handshake::{Answer, Concluded, HandshakeError, Job, Offer, Outcome, RekeyOffer, Role, Setup, Ticket, Verified, Work},
    id::PeerId,
    network::{Network, RelayAddress},
    session::{Chain, Sealer, Side, Suite},
    wire::{Counter, FRAME_HEADER_LEN, FrameHeader, Params, TAG_LEN},
};
use std::sync::{Arc, OnceLock};
use zeroize::Zeroizing;

/// The exporter of the TLS connection in handshakes with a relay.
const EXPORTER: [u8; 32] = [0x0e; 32];

pub(super) fn alice() -> Arc<Identity> {
    identity(0)
}

pub(super) fn bob() -> Arc<Identity> {
    identity(1)
}

/// One of four: making an identity costs more than most inputs.
pub(super) fn identity(place: usize) -> Arc<Identity> {
    static IDENTITIES: [OnceLock<Arc<Identity>>; 4] = [const { OnceLock::new() }; 4];
    Arc::clone(IDENTITIES[place].get_or_init(|| Arc::new(Identity::from_seed([0xa1 + place as u8; 32]))))
}

/// The network of both.
pub(super) fn network() -> Network {
    let relay = RelayAddress::new("wss://relay.example.org", None).expect("a good URL");
    Network::new([7; 32], "fuzz", vec![relay]).expect("within limits")
}

pub(super) fn setup(role: Role) -> Setup {
    match role {
        Role::ClientRelay => Setup::client_relay(EXPORTER),
        Role::PeerPeer => Setup::peer_peer(&network()),
    }
}

/// A handshake that went well.
pub(super) struct Genuine {
    pub(super) init: Vec<u8>,
    pub(super) resp: Vec<u8>,
    pub(super) fin: Vec<u8>,
    pub(super) concluded: Concluded,
    pub(super) verified: Verified,
}

/// The keys of a session between two peers that speak this suite.
pub fn chain(suite: Suite) -> Arc<Chain> {
    let offer = offer_of(Role::PeerPeer, vec![suite]);
    let answer = answer(Role::PeerPeer, offer.init().to_vec()).expect("a good INIT");
    conclude(Role::PeerPeer, &offer, answer.resp().to_vec()).expect("a good RESP").chain
}

/// The handshake of Alice with Bob in this role: always the same one.
pub(super) fn genuine(role: Role) -> &'static Genuine {
    static BOTH: [OnceLock<Genuine>; 2] = [OnceLock::new(), OnceLock::new()];
    BOTH[usize::from(role == Role::PeerPeer)].get_or_init(|| {
        let offer = offer(role);
        let answer = answer(role, offer.init().to_vec()).expect("a good INIT");
        let concluded = conclude(role, &offer, answer.resp().to_vec()).expect("a good RESP");
        let verified = verify(&answer, concluded.fin.clone()).expect("a good FIN");
        Genuine { init: offer.init().to_vec(), resp: answer.resp().to_vec(), fin: concluded.fin.clone(), concluded, verified }
    })
}

/// Alice's offer, not yet spent.
pub(super) fn offer(role: Role) -> Arc<Offer> {
    offer_of(role, vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm])
}

fn offer_of(role: Role, suites: Vec<Suite>) -> Arc<Offer> {
    let work = Work::Offer { setup: setup(role), responder: bob().id(), sid: 11, suites, coins: Zeroizing::new([1; 96]) };
    let Outcome::Offered(offer) = run(work) else { unreachable!("an offer is made") };
    offer
}

/// Bob's answer, not yet spent.
pub(super) fn answer(role: Role, init: Vec<u8>) -> Result<Arc<Answer>, HandshakeError> {
    let suites = vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let coins = Zeroizing::new([2; 96]);
    let work = Work::Answer { setup: setup(role), identity: bob(), init, sid: 22, suites, params: params("bob"), coins };
    let Outcome::Answered(answer) = run(work) else { unreachable!("an answer is made or refused") };
    answer
}

/// What Alice makes of a RESP.
pub(super) fn conclude(role: Role, offer: &Arc<Offer>, resp: Vec<u8>) -> Result<Concluded, HandshakeError> {
    let (offer, coins) = (Arc::clone(offer), Zeroizing::new([3; 32]));
    let (identity, responder) = (alice(), bob().id());
    let work = Work::Conclude { setup: setup(role), identity, responder, offer, resp, params: params("alice"), coins };
    let Outcome::Concluded(concluded) = run(work) else { unreachable!("a RESP is taken or refused") };
    concluded
}

/// What Bob makes of a FIN.
pub(super) fn verify(answer: &Arc<Answer>, fin: Vec<u8>) -> Result<Verified, HandshakeError> {
    let work = Work::Verify { identity: bob(), answer: Arc::clone(answer), fin };
    let Outcome::Verified(verified) = run(work) else { unreachable!("a FIN is taken or refused") };
    verified
}

/// Alice's first half of a rekey.
pub(super) fn rekey_offer(epoch: u32) -> Arc<RekeyOffer> {
    let Outcome::RekeyOffered(offer) = run(Work::RekeyOffer { epoch, coins: Zeroizing::new([4; 96]) }) else {
        unreachable!("an offer is made")
    };
    offer
}

/// What Bob makes of REKEY1.
pub(super) fn rekey_answer(epoch: u32, rekey1: Vec<u8>, chain: &Arc<Chain>) -> Result<(Vec<u8>, Arc<Chain>), HandshakeError> {
    let work = Work::RekeyAnswer { epoch, rekey1, chain: Arc::clone(chain), coins: Zeroizing::new([5; 96]) };
    let Outcome::RekeyAnswered(answered) = run(work) else { unreachable!("REKEY1 is taken or refused") };
    answered
}

/// What Alice makes of REKEY2.
pub(super) fn rekey_conclude(
    epoch: u32,
    offer: &Arc<RekeyOffer>,
    rekey2: Vec<u8>,
    chain: &Arc<Chain>,
) -> Result<Arc<Chain>, HandshakeError> {
    let work = Work::RekeyConclude { epoch, offer: Arc::clone(offer), rekey2, chain: Arc::clone(chain) };
    let Outcome::RekeyConcluded(next) = run(work) else { unreachable!("REKEY2 is taken or refused") };
    next
}

pub(super) fn run(work: Work) -> Outcome {
    Job { ticket: Ticket(0), work }.run(&Memo).outcome
}

fn params(name: &str) -> Params {
    Params { name: Some(name.into()), mtu: Some(1400), ..Params::default() }
}

/// mac1 as protocol 3.8 says, computed without `core`.
pub(super) fn mac1(role: Role, responder: PeerId, message: &[u8]) -> [u8; 16] {
    let key: [u8; 32] = match role {
        Role::ClientRelay => {
            let whole: [u8; 64] = Sha512::new().chain_update(b"mac1").chain_update(responder.0).finalize().into();
            core::array::from_fn(|at| whole[at])
        }
        Role::PeerPeer => hmac(network().psk(), &[b"mac1", &responder.0]),
    };
    let whole = hmac(&key, &[message]);
    core::array::from_fn(|at| whole[at])
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Seals inner type and body under a header.
pub(super) fn sealed(sealer: &Sealer, header: FrameHeader, inner: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEADER_LEN];
    frame.push(inner);
    frame.extend_from_slice(body);
    frame.resize(frame.len() + TAG_LEN, 0);
    sealer.seal(header, &mut frame);
    frame
}

/// A frame that only these keys make: two chains are the same when these are.
pub(super) fn print(chain: &Chain) -> Vec<u8> {
    let keys = chain.keys(Side::Initiator, &Memo);
    let header = FrameHeader { epoch: keys.epoch as u8, generation: 0, receiver: 1, counter: Counter::new(0, 1) };
    sealed(&keys.seal, header, 0, &[0; 16])
}
