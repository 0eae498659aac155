//! Every single bit of every handshake message, turned: the receiver refuses it, and the attempt goes on. No bit is exempt.
//!
//! ```text
//!   INIT  mac1, or the layout (mac2 is zero)      a member makes mac1 anew: RESP is not to what was offered, or KEM and X25519 disagree
//!   RESP  mac1                                    a member makes mac1 anew: sid, version, suite, the seal, the signature
//!   FIN   sids, the seal                          (no mac1: the attempt's keys exist by then)
//! ```
//! The first column is exhaustive always. The second costs a handshake a bit: a stride of it, all with `SHADOWMESH_ALL_FLIPS` set.
use super::{
    rekey::{rekey_answer, rekey_conclude, rekey_offer},
    *,
};
use crate::wire::FRAME_OVERHEAD;

/// One bit in so many when not all are asked for; coprime to 8, so that every place within a byte comes.
const STRIDE: usize = 131;

fn fast(setup: Setup) -> World {
    World { setup, here: &AwsLc, there: &AwsLc, ..World::default() }
}

/// The bits for a check that costs a handshake each.
fn dear_bits(len: usize) -> impl Iterator<Item = usize> {
    let stride = if std::env::var_os("SHADOWMESH_ALL_FLIPS").is_some() { 1 } else { STRIDE };
    (0..8 * len).step_by(stride)
}

// protocol 3.2, 3.8
#[test]
fn each_flipped_bit_of_init_is_refused_before_any_job() {
    for setup in [c2r(1), p2p(1)] {
        let world = fast(setup);
        let (offer, key) = (world.offer(), world.setup.mac1_key(bob().id()));
        assert_eq!(key.verify_init(offer.init()), Ok(()));
        for bit in 0..8 * offer.init().len() {
            assert_eq!(key.verify_init(&flipped(offer.init(), bit)), Err(Forged), "bit {bit}");
        }
    }
}

// protocol 3.3, 3.8
#[test]
fn each_flipped_bit_of_resp_is_refused_before_any_job() {
    for setup in [c2r(1), p2p(1)] {
        let world = fast(setup);
        let (_, answer) = world.half();
        let key = world.setup.mac1_key(bob().id());
        assert_eq!(key.verify_resp(answer.resp()), Ok(()));
        let mut resp = answer.resp().to_vec();
        for bit in 0..8 * resp.len() {
            resp[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.verify_resp(&resp), Err(Forged), "bit {bit}");
            resp[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

// protocol 3.4, 3.9
#[test]
fn each_flipped_bit_of_fin_is_refused_and_the_attempt_goes_on() {
    for setup in [c2r(1), p2p(1)] {
        let world = fast(setup);
        let (offer, answer) = world.half();
        let fin = world.conclude(&offer, answer.resp()).expect("a good RESP").fin;
        for bit in 0..8 * fin.len() {
            let refused = world.verify(&answer, &flipped(&fin, bit)).map(drop);
            let want = if bit < 8 * 12 { HandshakeError::Malformed } else { HandshakeError::Sealed };
            assert_eq!(refused, Err(want), "bit {bit}");
        }
        assert!(world.verify(&answer, &fin).is_ok());
    }
}

// protocol 3.5: the offer is in the transcript
#[test]
fn a_flipped_init_under_a_good_mac1_makes_no_session() {
    for setup in [c2r(1), p2p(1)] {
        let world = fast(setup);
        let (offer, key) = (world.offer(), world.setup.mac1_key(bob().id()));
        let unsigned = offer.init().len() - 32;
        for bit in dear_bits(unsigned) {
            let mut bad = flipped(offer.init(), bit);
            let mac1 = key.mac(&bad[..unsigned]);
            bad[unsigned..unsigned + 16].copy_from_slice(&mac1);
            if let Ok(answer) = world.answer(&bad) {
                let refused = world.conclude(&offer, answer.resp()).map(drop);
                assert!(
                    matches!(refused, Err(HandshakeError::Malformed | HandshakeError::Sealed | HandshakeError::Suite)),
                    "bit {bit}: {refused:?}"
                );
            }
        }
        assert!(world.conclude(&offer, world.answer(offer.init()).expect("a good INIT").resp()).is_ok());
    }
}

// protocol 3.3, 3.5, 3.9: all of RESP is in the transcript or under its seal
#[test]
fn a_flipped_resp_under_a_good_mac1_is_refused_and_the_attempt_goes_on() {
    for setup in [c2r(1), p2p(1)] {
        let world = fast(setup);
        let (offer, answer) = world.half();
        let resp = answer.resp();
        // `conclude` does not look at mac1: the machine has done so (see above)
        for bit in dear_bits(resp.len() - 16) {
            let refused = world.conclude(&offer, &flipped(resp, bit)).map(drop).expect_err("an altered RESP");
            let fits = match bit / 8 {
                0 | 8..12 => refused == HandshakeError::Malformed,
                1 => refused == HandshakeError::Version,
                2 | 3 => matches!(refused, HandshakeError::Suite | HandshakeError::Sealed),
                _ => refused == HandshakeError::Sealed,
            };
            assert!(fits, "bit {bit}: {refused}");
        }
        assert!(world.conclude(&offer, resp).is_ok());
    }
}

// protocol 4.5: the keys follow from both messages, so an altered one leads to keys that open nothing
#[test]
fn a_flipped_rekey_message_leads_to_no_common_epoch() {
    let (concluded, verified) = fast(p2p(1)).run();
    let (mine, theirs) = (concluded.chain, verified.chain);
    let offer = rekey_offer(1, &AwsLc);
    for bit in dear_bits(REKEY_LEN) {
        // in REKEY1: Bob takes it or not, and Alice concludes with what she had sent
        if let Ok((rekey2, their_next)) = rekey_answer(1, flipped(offer.rekey1(), bit), &theirs, &AwsLc) {
            let my_next = rekey_conclude(1, &offer, rekey2, &mine).expect("implicit rejection");
            assert!(!opens(&my_next, &their_next), "bit {bit} of REKEY1");
        }
        let (rekey2, their_next) = rekey_answer(1, offer.rekey1().to_vec(), &theirs, &AwsLc).expect("a good REKEY1");
        if let Ok(my_next) = rekey_conclude(1, &offer, flipped(&rekey2, bit), &mine) {
            assert!(!opens(&my_next, &their_next), "bit {bit} of REKEY2");
        }
    }
}

// protocol 4.1: header and content are under one tag; REKEY1 and REKEY2 travel inside
#[test]
fn each_flipped_bit_of_a_sealed_frame_is_refused() {
    let (concluded, verified) = fast(p2p(1)).run();
    let (from, to) = (concluded.chain.keys(Side::Initiator, &AwsLc), verified.chain.keys(Side::Responder, &AwsLc));
    let mut frame = vec![0x5a; FRAME_OVERHEAD + 1_005];
    from.seal.seal(FrameHeader { epoch: 0, generation: 1, receiver: 22, counter: Counter::new(0xff, 9) }, &mut frame);
    for bit in 0..8 * frame.len() {
        assert_eq!(to.open.open(&mut flipped(&frame, bit)).map(drop), Err(Forged), "bit {bit}");
    }
    assert!(to.open.open(&mut frame).is_ok());
}
