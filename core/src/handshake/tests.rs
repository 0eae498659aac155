//! The handshake from both ends: every pair of back ends, every kind of tampering.
#![expect(clippy::disallowed_types, reason = "identities are made once for all tests")]
use super::*;
use crate::{
    crypto::{awslc::AwsLc, rustcrypto::RustCrypto},
    network::RelayAddress,
    session::Side,
    wire::{Counter, FrameHeader},
};
use std::sync::OnceLock;

mod flips;
mod rekey;

const BOTH: [&dyn Provider; 2] = [&RustCrypto, &AwsLc];
const ANY_SUITE: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

// protocol 3.1
#[test]
fn both_ends_agree_in_both_uses_on_all_back_ends() {
    for setup in [c2r(1), p2p(1)] {
        for here in BOTH {
            for there in BOTH {
                let world = World { setup: setup.clone(), here, there, ..World::default() };
                let (concluded, verified) = world.run();
                assert_eq!((concluded.peer.id(), verified.peer.id()), (bob().id(), alice().id()));
                assert_eq!((concluded.peer_sid, verified.peer_sid), (22, 11));
                assert_eq!((&concluded.params, &verified.params), (&named("bob"), &named("alice")));
                assert_eq!(concluded.chain.suite(), Suite::Aes256Gcm);
                agree(&concluded.chain, &verified.chain);
            }
        }
    }
}

// protocol 3.2, 3.3, 3.4
#[test]
fn the_messages_have_their_lengths() {
    let world = World { own: Params::default(), other: Params::default(), ..World::default() };
    let (offer, answer) = world.half();
    let concluded = world.conclude(&offer, answer.resp()).expect("a good RESP");
    assert_eq!((offer.init().len(), answer.resp().len(), concluded.fin.len()), (1654, 8863, 7247));
    assert_eq!((INIT_LEN_MIN, RESP_LEN_MIN, FIN_LEN_MIN), (1654, 8863, 7247));
}

// protocol 3.1 to 3.4
#[test]
fn the_fields_stand_where_protocol_3_puts_them() {
    let world = World::default();
    let (offer, answer) = world.half();
    assert_eq!(offer.init()[..20], [1, 1, 1, 2, 0, 0, 0, 11, 2, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0]);
    assert_eq!(offer.init()[1620..1622], [0, 0], "no extensions");
    assert_eq!(offer.init()[1638..], [0; 16], "mac2");
    assert_eq!(answer.resp()[..12], [2, 1, 0, 2, 0, 0, 0, 22, 0, 0, 0, 11]);
    assert_eq!((offer.sid(), answer.sid(), answer.peer_sid()), (11, 22, 11));
    let fin = world.conclude(&offer, answer.resp()).expect("a good RESP").fin;
    assert_eq!(fin[..12], [3, 0, 0, 0, 0, 0, 0, 22, 0, 0, 0, 11]);
    let info = peek_init(offer.init()).expect("well formed");
    assert_eq!(info, InitInfo { role: Role::PeerPeer, sid: 11, suites: ANY_SUITE.to_vec() });
    assert_eq!((peek_resp(answer.resp()), peek_fin(&fin)), (Ok(11), Ok(22)));
}

#[test]
fn with_the_portable_back_end_each_message_is_a_function_of_the_job() {
    let world = World::default();
    let once = || {
        let (offer, answer) = world.half();
        let concluded = world.conclude(&offer, answer.resp()).expect("a good RESP");
        (offer.init().to_vec(), answer.resp().to_vec(), concluded)
    };
    let (first, second) = (once(), once());
    assert_eq!((&first.0, &first.1, &first.2.fin), (&second.0, &second.1, &second.2.fin));
    agree_to_seal(&first.2.chain, &second.2.chain);
}

// protocol 1.2, 3.5, 3.8
#[test]
fn the_schedule_is_the_one_of_protocol_3() {
    use crate::crypto::{hash::Prk, hash::sha512, x25519::Scalar};
    // Every secret is known here: the portable KEM is a function of its coins.
    let world = World::default();
    let (offer, answer) = world.half();
    let concluded = world.conclude(&offer, answer.resp()).expect("a good RESP");
    let (init, resp, fin) = (offer.init(), answer.resp(), &concluded.fin);
    let network = p2p(1);
    let h0 = sha512(&[b"ShadowMesh/1 XXsig\x02", &network.network_id, &[0; 32]]);
    let h2 = sha512(&[&sha512(&[&h0, &init[..1622]]), &resp[..1612]]);
    let e1 = &resp[1612..resp.len() - 16];
    let ss_mlkem = RustCrypto.kem_keygen(&[10; 64]).secret.decapsulate(resp[44..1612].try_into().expect("1568")).expect("works");
    let ss_x25519 = Scalar::new([10; 32]).agree(resp[12..44].try_into().expect("32")).expect("not zero");
    let prk = Prk::extract(&h2, &[&*ss_mlkem, &*ss_x25519, &network.psk]);
    let mut plain = e1[..e1.len() - 16].to_vec();
    let aead = RustCrypto.aead(Suite::Aes256Gcm, &prk.expand(&[b"hs r", &h2]));
    aead.open(&[0; 12], &h2, &mut plain, e1.last_chunk().expect("16")).expect("e1 opens");
    assert_eq!(plain[..2592], bob().public_key()[..]);
    let signed = [b"shadowmesh/1 resp\0".as_slice(), &h2, &bob().id().0].concat();
    assert!(AwsLc.verify(bob().public_key(), &signed, plain[2592..7219].try_into().expect("4627")));
    assert_eq!(Params::parse(&plain[7219..]), Ok(named("bob")));
    let h3 = sha512(&[&h2, e1]);
    let mut plain = fin[12..fin.len() - 16].to_vec();
    let aead = RustCrypto.aead(Suite::Aes256Gcm, &prk.expand(&[b"hs i", &h2]));
    aead.open(&[0; 12], &h3, &mut plain, fin.last_chunk().expect("16")).expect("e2 opens");
    let signed = [b"shadowmesh/1 init\0".as_slice(), &h3, &alice().id().0, &bob().id().0].concat();
    assert!(AwsLc.verify(alice().public_key(), &signed, plain[2592..7219].try_into().expect("4627")));
    let h4 = sha512(&[&h3, &fin[12..], &alice().id().0, &bob().id().0]);
    agree_to_seal(&Chain::start(prk.expand(&[b"chain", &h4]), Suite::Aes256Gcm), &concluded.chain);
    let mac1 = hash::HmacKey::new(&network.psk).mac(&[b"mac1", &bob().id().0]);
    assert_eq!(hash::HmacKey::new(&mac1).mac(&[&init[..1622]])[..16], init[1622..1638]);
    assert_eq!(hash::HmacKey::new(&mac1).mac(&[&resp[..resp.len() - 16]])[..16], resp[resp.len() - 16..]);
}

#[test]
fn a_fin_that_was_cut_is_refused_and_the_attempt_goes_on() {
    let world = World { here: &AwsLc, there: &AwsLc, ..World::default() };
    let (offer, answer) = world.half();
    let fin = world.conclude(&offer, answer.resp()).expect("a good RESP").fin;
    for len in [0, 1, 3, 11, 12, 7246, fin.len() - 1] {
        assert!(world.verify(&answer, &fin[..len]).is_err(), "{len} bytes");
    }
    assert!(world.verify(&answer, &fin).is_ok());
}

#[test]
fn messages_of_a_wrong_length_are_malformed() {
    let world = World { own: Params::default(), other: Params::default(), ..World::default() };
    let (offer, answer) = world.half();
    for (message, most) in [(offer.init(), INIT_LEN_MAX), (answer.resp(), RESP_LEN_MAX)] {
        for len in [0, 1, 4, 100, message.len() - 1] {
            assert!(peek_init(&message[..len]).is_err() && peek_resp(&message[..len]).is_err() && peek_fin(&message[..len]).is_err());
            let key = world.setup.mac1_key(bob().id());
            assert!(key.verify_init(&message[..len]).is_err() && key.verify_resp(&message[..len]).is_err());
        }
        let mut long = message.to_vec();
        long.resize(most + 1, 0);
        assert!(peek_init(&long).is_err() && peek_resp(&long).is_err() && peek_fin(&long[..]).is_err());
    }
}

// protocol 3.1, 3.2
#[test]
fn each_wrong_field_of_an_init_is_named() {
    let offer = World::default().offer();
    for (at, value, want) in [
        (0, 2, "INIT: type"),
        (1, 2, "INIT: versions"),
        (3, 0, "INIT: role"),
        (3, 3, "INIT: role"),
        (8, 0, "INIT: n_suites"),
        (8, 5, "INIT: n_suites"),
        (8, 1, "INIT: suites"),
        (9, 1, "INIT: flags"),
        (10, 1, "INIT: flags"),
        (11, 1, "INIT: flags"),
        (16, 1, "INIT: suites"),
        (1621, 1, "INIT: ext_len"),
        (1653, 1, "INIT: mac2"),
    ] {
        let mut init = offer.init().to_vec();
        init[at] = value;
        assert_eq!(peek_init(&init), Err(crate::wire::Malformed(want)), "byte {at}");
    }
}

// protocol 3.2, 3.5
#[test]
fn extensions_of_an_init_are_skipped_but_hashed() {
    let world = World::default();
    let (offer, _) = world.half();
    let mut init = offer.init()[..1620].to_vec();
    init.extend_from_slice(&[0, 3, 1, 2, 3]);
    let mac1 = world.setup.mac1_key(bob().id()).mac(&init);
    init.extend_from_slice(&[&mac1[..], &[0; 16]].concat());
    assert_eq!(world.setup.mac1_key(bob().id()).verify_init(&init), Ok(()));
    let answer = world.answer(&init).expect("skipped");
    assert_eq!(world.conclude(&offer, answer.resp()).map(drop), Err(HandshakeError::Sealed), "it is not what was offered");
}

// protocol 3.7
#[test]
fn the_suite_is_the_first_common_one_of_the_initiator() {
    let (aes, chacha) = (Suite::Aes256Gcm, Suite::ChaCha20Poly1305);
    for (mine, theirs, want) in [
        (vec![aes, chacha], vec![chacha, aes], Ok(aes)),
        (vec![chacha, aes], vec![aes, chacha], Ok(chacha)),
        (vec![aes, chacha], vec![chacha], Ok(chacha)),
        (vec![aes], vec![chacha], Err(HandshakeError::Suite)),
        (vec![chacha], vec![], Err(HandshakeError::Suite)),
    ] {
        let world = World { mine, theirs, ..World::default() };
        let offer = world.offer();
        assert_eq!(world.answer(offer.init()).map(|answer| answer.suite()), want);
    }
}

// protocol 3.5, 3.7
#[test]
fn a_downgrade_is_a_hard_error() {
    let world = World { mine: vec![Suite::Aes256Gcm], ..World::default() };
    let (offer, answer) = world.half();
    for (at, value, want) in [
        (1, 0, HandshakeError::Version),
        (1, 2, HandshakeError::Version),
        (3, 1, HandshakeError::Suite),
        (3, 3, HandshakeError::Suite),
        (2, 1, HandshakeError::Suite),
    ] {
        let mut resp = answer.resp().to_vec();
        resp[at] = value;
        assert_eq!(world.conclude(&offer, &resp).map(drop), Err(want), "byte {at} = {value}");
    }
    for (at, value, want) in [(1, 2, HandshakeError::Malformed), (2, 0, HandshakeError::Malformed), (3, 1, HandshakeError::Malformed)] {
        let mut init = offer.init().to_vec();
        init[at] = value;
        assert_eq!(world.answer(&init).map(drop), Err(want), "byte {at} = {value}");
    }
    for versions in [[2, 3], [0, 0], [2, 2]] {
        let mut init = offer.init().to_vec();
        init[1..3].copy_from_slice(&versions);
        assert_eq!(world.answer(&init).map(drop), Err(HandshakeError::Version));
    }
    // An initiator that also speaks version 2 is answered with 1; that it was offered is in the transcript.
    let mut init = offer.init().to_vec();
    init[2] = 2;
    let stripped = world.answer(&init).expect("version 1 is among them");
    assert_eq!(world.conclude(&offer, stripped.resp()).map(drop), Err(HandshakeError::Sealed));
}

#[test]
fn a_stripped_offer_is_noticed() {
    // A member in the middle takes the first suite out and makes mac1 anew.
    let world = World::default();
    let offer = world.offer();
    let mut init = offer.init().to_vec();
    init[8] = 1;
    init[12..16].copy_from_slice(&[0, 1, 0, 0]);
    let answer = world.answer(&init).expect("suite 1 is supported");
    assert_eq!(answer.suite(), Suite::ChaCha20Poly1305);
    assert_eq!(world.conclude(&offer, answer.resp()).map(drop), Err(HandshakeError::Sealed));
}

#[test]
fn each_difference_in_the_setup_is_refused() {
    let mut other_network_id = p2p(1);
    other_network_id.network_id = [0x99; 32];
    let mut other_psk = p2p(1);
    other_psk.psk = [0x99; 32];
    for (here, there) in [(p2p(1), other_psk), (p2p(1), other_network_id), (c2r(1), c2r(2))] {
        let initiator = World { setup: here, ..World::default() };
        let responder = World { setup: there, ..World::default() };
        let offer = initiator.offer();
        let answer = responder.answer(offer.init()).expect("the INIT itself is well formed");
        assert_eq!(initiator.conclude(&offer, answer.resp()).map(drop), Err(HandshakeError::Sealed));
    }
    let (client, peer) = (World { setup: c2r(1), ..World::default() }, World::default());
    assert_eq!(peer.answer(client.offer().init()).map(drop), Err(HandshakeError::Malformed), "another role");
}

// protocol 3.8
#[test]
fn mac1_needs_the_responder_and_between_peers_the_network() {
    let world = World::default();
    let offer = world.offer();
    assert!(world.setup.mac1_key(bob().id()).verify_init(offer.init()).is_ok());
    for (setup, responder) in [(p2p(1), carol().id()), (p2p(2), bob().id()), (c2r(1), bob().id())] {
        assert_eq!(setup.mac1_key(responder).verify_init(offer.init()), Err(Forged));
    }
    let client = World { setup: c2r(1), ..World::default() };
    assert!(c2r(2).mac1_key(bob().id()).verify_init(client.offer().init()).is_ok(), "the binding is not in mac1");
}

// protocol 3.5
#[test]
fn a_resp_signed_by_another_is_refused_by_its_name() {
    // Carol is a member and answers in Bob's place, with a good signature of her own.
    let world = World::default();
    let offer = world.offer();
    let carols = World { responder: carol(), ..World::default() }.answer(offer.init()).expect("she can answer");
    assert_eq!(world.conclude(&offer, carols.resp()).map(drop), Err(HandshakeError::Identity));
    assert!(world.conclude(&offer, world.answer(offer.init()).expect("Bob answers too").resp()).is_ok());
}

#[test]
fn a_key_without_its_signature_is_refused() {
    // Carol shows Bob's public key over a signature of her own: the seal is good, the signature is not.
    let world = World::default();
    let (offer, answer) = world.half();
    let resp = forged_resp(&offer, bob(), carol());
    assert_eq!(world.conclude(&offer, &resp).map(drop), Err(HandshakeError::Signature));
    assert!(world.conclude(&offer, answer.resp()).is_ok());
}

#[test]
fn the_verified_initiator_is_who_signed() {
    let world = World { initiator: carol(), ..World::default() };
    let (_, verified) = world.run();
    assert_eq!(verified.peer.id(), carol().id());
}

// protocol 3.5
#[test]
fn nobody_talks_to_itself() {
    let world = World { initiator: bob(), ..World::default() };
    let (offer, answer) = world.half();
    let fin = world.conclude(&offer, answer.resp()).expect("only the responder can see it").fin;
    assert_eq!(world.verify(&answer, &fin).map(drop), Err(HandshakeError::Identity));
}

#[test]
fn messages_of_another_attempt_are_refused() {
    let world = World::default();
    let (first_offer, first_answer) = world.half();
    let first_fin = world.conclude(&first_offer, first_answer.resp()).expect("a good RESP").fin;
    for sid in [11, 12] {
        // Once with the same session numbers, so that only the keys differ.
        let again = World { sids: [sid, sid * 2], seed: 77, ..World::default() };
        let (offer, answer) = again.half();
        let want = if sid == 11 { HandshakeError::Sealed } else { HandshakeError::Malformed };
        assert_eq!(again.conclude(&offer, first_answer.resp()).map(drop), Err(want), "RESP");
        assert_eq!(again.verify(&answer, &first_fin).map(drop), Err(want), "FIN");
        assert!(again.conclude(&offer, answer.resp()).is_ok());
    }
}

#[test]
fn reflected_messages_are_refused() {
    let world = World::default();
    let (offer, answer) = world.half();
    let fin = world.conclude(&offer, answer.resp()).expect("a good RESP").fin;
    assert!(world.conclude(&offer, offer.init()).is_err());
    assert!(world.conclude(&offer, &fin).is_err());
    assert!(world.verify(&answer, answer.resp()).is_err());
    assert!(world.answer(answer.resp()).is_err());
    // An INIT that comes back to its maker is not for him.
    assert_eq!(world.setup.mac1_key(alice().id()).verify_init(offer.init()), Err(Forged));
}

// protocol 3.5
#[test]
fn an_attempt_makes_one_session() {
    let world = World::default();
    let (offer, answer) = world.half();
    let fin = world.conclude(&offer, answer.resp()).expect("a good RESP").fin;
    assert_eq!(world.conclude(&offer, answer.resp()).map(drop), Err(HandshakeError::Spent));
    assert!(world.verify(&answer, &fin).is_ok());
    assert_eq!(world.verify(&answer, &fin).map(drop), Err(HandshakeError::Spent));
}

#[test]
fn a_share_of_small_order_is_refused() {
    let world = World::default();
    let (offer, answer) = world.half();
    let mut init = offer.init().to_vec();
    init[20..52].fill(0);
    assert_eq!(world.answer(&init).map(drop), Err(HandshakeError::ZeroShare));
    let mut resp = answer.resp().to_vec();
    resp[12..44].fill(0);
    assert_eq!(world.conclude(&offer, &resp).map(drop), Err(HandshakeError::ZeroShare));
}

#[test]
fn an_invalid_kem_key_is_malformed() {
    for there in BOTH {
        let world = World { there, ..World::default() };
        let mut init = world.offer().init().to_vec();
        init[52..1588].fill(0xff);
        assert_eq!(world.answer(&init).map(drop), Err(HandshakeError::Malformed));
    }
}

#[test]
fn each_coin_is_spent_once() {
    let coins: [u8; 96] = core::array::from_fn(|i| i as u8);
    let (for_kem, for_x25519) = initiator::split(&coins);
    assert_eq!([for_kem.as_slice(), for_x25519.as_slice()].concat(), coins);
    assert_eq!(responder::thirds(&coins).map(|third| *third).concat(), coins);
}

#[test]
fn nothing_secret_is_printed() {
    let world = World::default();
    let (offer, answer) = world.half();
    let (concluded, verified) = world.run();
    let shown = format!("{:?} {offer:?} {answer:?} {concluded:?} {verified:?}", world.setup);
    assert!(!shown.contains("psk") && !shown.contains("prk") && !shown.contains("key"), "{shown}");
    assert_eq!(format!("{:?}", rekey::rekey_offer(1, &RustCrypto)), "RekeyOffer { epoch: 1, .. }");
}

/// Alice initiates to Bob; everything can be replaced.
struct World {
    setup: Setup,
    initiator: &'static Arc<Identity>,
    responder: &'static Arc<Identity>,
    mine: Vec<Suite>,
    theirs: Vec<Suite>,
    own: Params,
    other: Params,
    sids: [u32; 2],
    seed: u8,
    here: &'static dyn Provider,
    there: &'static dyn Provider,
}

impl Default for World {
    fn default() -> Self {
        Self {
            setup: p2p(1),
            initiator: alice(),
            responder: bob(),
            mine: ANY_SUITE.to_vec(),
            theirs: ANY_SUITE.to_vec(),
            own: named("alice"),
            other: named("bob"),
            sids: [11, 22],
            seed: 10,
            here: &RustCrypto,
            there: &RustCrypto,
        }
    }
}

impl World {
    fn offer(&self) -> Arc<Offer> {
        let work = Work::Offer {
            setup: self.setup.clone(),
            responder: bob().id(),
            sid: self.sids[0],
            suites: self.mine.clone(),
            coins: Zeroizing::new([self.seed; 96]),
        };
        let Outcome::Offered(offer) = run(work, self.here) else { panic!("an offer is offered") };
        offer
    }

    fn answer(&self, init: &[u8]) -> Result<Arc<Answer>, HandshakeError> {
        let work = Work::Answer {
            setup: self.setup.clone(),
            identity: Arc::clone(self.responder),
            init: init.to_vec(),
            sid: self.sids[1],
            suites: self.theirs.clone(),
            params: self.other.clone(),
            coins: Zeroizing::new([self.seed + 1; 96]),
        };
        let Outcome::Answered(answer) = run(work, self.there) else { panic!("an answer is answered") };
        answer
    }

    fn half(&self) -> (Arc<Offer>, Arc<Answer>) {
        let offer = self.offer();
        let answer = self.answer(offer.init()).expect("a good INIT");
        (offer, answer)
    }

    fn conclude(&self, offer: &Arc<Offer>, resp: &[u8]) -> Result<Concluded, HandshakeError> {
        let work = Work::Conclude {
            setup: self.setup.clone(),
            identity: Arc::clone(self.initiator),
            responder: bob().id(),
            offer: Arc::clone(offer),
            resp: resp.to_vec(),
            params: self.own.clone(),
            coins: Zeroizing::new([self.seed + 2; 32]),
        };
        let Outcome::Concluded(concluded) = run(work, self.here) else { panic!("a conclusion is concluded") };
        concluded
    }

    fn verify(&self, answer: &Arc<Answer>, fin: &[u8]) -> Result<Verified, HandshakeError> {
        let work = Work::Verify { identity: Arc::clone(self.responder), answer: Arc::clone(answer), fin: fin.to_vec() };
        let Outcome::Verified(verified) = run(work, self.there) else { panic!("a verification is verified") };
        verified
    }

    fn run(&self) -> (Concluded, Verified) {
        let (offer, answer) = self.half();
        let concluded = self.conclude(&offer, answer.resp()).expect("a good RESP");
        let verified = self.verify(&answer, &concluded.fin).expect("a good FIN");
        (concluded, verified)
    }
}

fn run(work: Work, crypto: &dyn Provider) -> Outcome {
    let done = Job { ticket: Ticket(5), work }.run(crypto);
    assert_eq!(done.ticket, Ticket(5));
    done.outcome
}

/// A RESP to this offer with one identity's public key over another's signature.
fn forged_resp(offer: &Offer, shown: &Identity, signer: &Identity) -> Vec<u8> {
    use crate::crypto::x25519::Scalar;
    let init = layout::Init::parse(offer.init()).expect("well formed");
    let scalar = Scalar::new([1; 32]);
    let kem = RustCrypto.kem_encapsulate(init.mlkem_ek, &[2; 32]).expect("a good key");
    let mut resp = layout::resp_clear(Suite::ChaCha20Poly1305, 22, init.sid, &scalar.public(), &kem.ciphertext);
    let setup = p2p(1);
    let h2 = transcript::then(&transcript::after_init(&setup, init.transcript), &resp);
    let prk = hash::Prk::extract(&h2, &[&*kem.shared, &*scalar.agree(init.x25519).expect("not zero"), &setup.psk]);
    let message = [b"shadowmesh/1 resp\0".as_slice(), &h2, &shown.id().0].concat();
    let mut sealed = [&shown.public_key()[..], &RustCrypto.sign(signer, &message, &[3; 32])].concat();
    let tag = RustCrypto.aead(Suite::ChaCha20Poly1305, &prk.expand(&[b"hs r", &h2])).seal(&[0; 12], &h2, &mut sealed);
    resp.extend_from_slice(&sealed);
    resp.extend_from_slice(&tag);
    resp.extend_from_slice(&[0; 16]);
    resp
}

fn agree(initiator: &Chain, responder: &Chain) {
    assert_eq!(initiator.session_id(), responder.session_id());
    assert!(opens(initiator, responder));
    let (from, to) = (responder.keys(Side::Responder, &AwsLc), initiator.keys(Side::Initiator, &RustCrypto));
    assert!(to.open.open(&mut frame(&from)).is_ok());
}

/// Whether the responder opens what the initiator seals.
fn opens(initiator: &Chain, responder: &Chain) -> bool {
    let (from, to) = (initiator.keys(Side::Initiator, &RustCrypto), responder.keys(Side::Responder, &AwsLc));
    let mut frame = frame(&from);
    // The epoch byte must not be what speaks against it.
    frame[1] = to.epoch as u8;
    to.open.open(&mut frame).is_ok()
}

fn agree_to_seal(a: &Chain, b: &Chain) {
    let [a, b] = [a, b].map(|chain| frame(&chain.keys(Side::Initiator, &RustCrypto)));
    assert_eq!(a, b);
}

fn frame(keys: &crate::session::EpochKeys) -> Vec<u8> {
    let mut frame = vec![0; 40];
    let header = FrameHeader { epoch: keys.epoch as u8, generation: 0, receiver: 1, counter: Counter::new(0, 1) };
    keys.seal.seal(header, &mut frame);
    frame
}

fn flipped(message: &[u8], bit: usize) -> Vec<u8> {
    let mut bad = message.to_vec();
    bad[bit / 8] ^= 1 << (bit % 8);
    bad
}

fn c2r(exporter: u8) -> Setup {
    Setup::client_relay([exporter; 32])
}

fn p2p(secret: u8) -> Setup {
    let relay = RelayAddress::new("wss://relay.example.org", None).expect("a good URL");
    Setup::peer_peer(&Network::new([secret; 32], "n", vec![relay]).expect("within limits"))
}

fn named(name: &str) -> Params {
    Params { name: Some(name.into()), mtu: Some(1280), ..Params::default() }
}

fn alice() -> &'static Arc<Identity> {
    static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
    IDENTITY.get_or_init(|| Arc::new(Identity::from_seed([0xa1; 32])))
}

fn bob() -> &'static Arc<Identity> {
    static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
    IDENTITY.get_or_init(|| Arc::new(Identity::from_seed([0xb0; 32])))
}

fn carol() -> &'static Arc<Identity> {
    static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
    IDENTITY.get_or_init(|| Arc::new(Identity::from_seed([0xca; 32])))
}
