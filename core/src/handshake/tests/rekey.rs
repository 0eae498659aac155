//! The two messages that make the next epoch of a session.
use super::*;

// protocol 4.5
#[test]
fn the_rekey_chain_agrees_and_old_keys_do_not_open() {
    for here in BOTH {
        for there in BOTH {
            let (concluded, verified) = World { here, there, ..World::default() }.run();
            let (mut mine, mut theirs) = (concluded.chain, verified.chain);
            for epoch in 1..=3 {
                let (old_mine, old_theirs) = (mine.clone(), theirs.clone());
                (mine, theirs) = rekey(epoch, &mine, &theirs, here, there);
                assert_eq!((mine.epoch(), theirs.epoch()), (epoch, epoch));
                assert_eq!(mine.session_id(), old_mine.session_id());
                agree(&mine, &theirs);
                assert!(!opens(&old_mine, &theirs) && !opens(&mine, &old_theirs));
            }
        }
    }
}

// protocol 4.5: the new chain hangs on both messages, epochs included, and on both secrets
#[test]
fn the_chain_of_a_new_epoch_is_the_one_of_protocol_4_5() {
    let (_, verified) = World::default().run();
    let offer = rekey_offer(1, &RustCrypto);
    assert_eq!((offer.epoch(), rekey_offer(2, &RustCrypto).epoch()), (1, 2));
    let rekey1 = offer.rekey1();
    let (rekey2, next) = rekey_answer(1, rekey1.to_vec(), &verified.chain, &RustCrypto).expect("it fits");
    let (share, public_key) = rekey1.split_first_chunk::<32>().expect("32 bytes");
    let public_key = public_key.try_into().expect("the rest is the key");
    let ss_mlkem = RustCrypto.kem_encapsulate(public_key, &[44; 32]).expect("a good key").shared;
    let ss_x25519 = crate::crypto::x25519::Scalar::new([44; 32]).agree(share).expect("a good share");
    let epoch = [0, 0, 0, 1];
    let hash = hash::sha512(&[&epoch, rekey1, &epoch, &rekey2]);
    agree(&verified.chain.next(&ss_mlkem, &ss_x25519, &hash), &next);
}

// protocol 4.5
#[test]
fn a_rekey_that_does_not_fit_is_refused() {
    let (concluded, verified) = World::default().run();
    let (mine, theirs) = (concluded.chain, verified.chain);
    let offer = rekey_offer(1, &RustCrypto);
    let good = offer.rekey1().to_vec();
    let answer = |epoch, rekey1: &[u8]| rekey_answer(epoch, rekey1.to_vec(), &theirs, &RustCrypto);
    for epoch in [0, 2, u32::MAX] {
        assert_eq!(answer(epoch, &good).map(drop), Err(HandshakeError::Malformed), "epoch {epoch}");
    }
    for len in [0, 31, 1599] {
        assert_eq!(answer(1, &good[..len]).map(drop), Err(HandshakeError::Malformed), "{len} bytes");
    }
    let (rekey2, next) = answer(1, &good).expect("it fits");
    let zeroed = [&[0; 32][..], &good[32..]].concat();
    assert_eq!(answer(1, &zeroed).map(drop), Err(HandshakeError::ZeroShare));
    let conclude = |epoch, rekey2: &[u8]| rekey_conclude(epoch, &offer, rekey2.to_vec(), &mine);
    assert_eq!(conclude(2, &rekey2).map(drop), Err(HandshakeError::Malformed));
    assert_eq!(conclude(1, &rekey2[..1599]).map(drop), Err(HandshakeError::Malformed));
    assert_eq!(conclude(1, &[&[0; 32][..], &rekey2[32..]].concat()).map(drop), Err(HandshakeError::ZeroShare));
    // An altered one makes another chain: nothing sealed under it opens.
    let other = conclude(1, &flipped(&rekey2, 8 * 500)).expect("implicit rejection");
    assert!(!opens(&other, &next));
    agree(&conclude(1, &rekey2).expect("it fits"), &next);
}

pub(super) fn rekey_offer(epoch: u32, crypto: &dyn Provider) -> Arc<RekeyOffer> {
    let Outcome::RekeyOffered(offer) = run(Work::RekeyOffer { epoch, coins: Zeroizing::new([33; 96]) }, crypto) else {
        panic!("a rekey offer is offered")
    };
    offer
}

pub(super) fn rekey_answer(
    epoch: u32,
    rekey1: Vec<u8>,
    chain: &Arc<Chain>,
    crypto: &dyn Provider,
) -> Result<(Vec<u8>, Arc<Chain>), HandshakeError> {
    let work = Work::RekeyAnswer { epoch, rekey1, chain: Arc::clone(chain), coins: Zeroizing::new([44; 96]) };
    let Outcome::RekeyAnswered(answer) = run(work, crypto) else { panic!("a rekey answer is answered") };
    answer
}

pub(super) fn rekey_conclude(
    epoch: u32,
    offer: &Arc<RekeyOffer>,
    rekey2: Vec<u8>,
    chain: &Arc<Chain>,
) -> Result<Arc<Chain>, HandshakeError> {
    let work = Work::RekeyConclude { epoch, offer: Arc::clone(offer), rekey2, chain: Arc::clone(chain) };
    let Outcome::RekeyConcluded(next) = run(work, &RustCrypto) else { panic!("a rekey conclusion is concluded") };
    next
}

fn rekey(epoch: u32, mine: &Arc<Chain>, theirs: &Arc<Chain>, here: &dyn Provider, there: &dyn Provider) -> (Arc<Chain>, Arc<Chain>) {
    let offer = rekey_offer(epoch, here);
    let (rekey2, their_next) = rekey_answer(epoch, offer.rekey1().to_vec(), theirs, there).expect("a good REKEY1");
    assert_eq!((offer.rekey1().len(), rekey2.len()), (REKEY_LEN, 1600));
    (rekey_conclude(epoch, &offer, rekey2, mine).expect("a good REKEY2"), their_next)
}
