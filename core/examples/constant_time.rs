//! Whether comparisons of secrets take the same time whatever they compare (the method of dudect: two classes of input, Welch's t).
//!
//! Classes differ in where a forged tag goes wrong, or in whether a KEM ciphertext is genuine. A large |t| (the authors of
//! dudect take 5, and 10 for sure) says that time tells the classes apart; the first line is a plain comparison, which must
//! show it, or the clock is too coarse. A busy machine makes noise: this reports, and fails nothing.
//!
//! ```text
//! just constant-time [FILTER]
//! ```
//! A token's checksum is public, and cookies do not exist yet (protocol 8).
use core::hint::black_box;
use dudect_bencher::{
    BenchRng, Class, CtRunner,
    ctbench::{BenchMetadata, BenchName, BenchOpts, run_benches_console},
    rand::{Rng, RngExt},
};
use shadowmesh_core::{
    crypto::{Identity, KEM_CIPHERTEXT_LEN, Provider, awslc::AwsLc, rustcrypto::RustCrypto},
    handshake::{Job, Outcome, Setup, Ticket, Work},
    id::PathId,
    rehandshake::{Answerer, Asker, Ground},
    session::{Chain, Side, Suite},
};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Measurements of a quick operation, and of one of the KEM.
const MANY: usize = 200_000;
const KEM_MANY: usize = 20_000;
/// Length of a frame's body in bytes: short, so that the comparison is not lost in the rest.
const BODY_LEN: usize = 64;

fn main() -> std::io::Result<()> {
    let filter = std::env::args().nth(1);
    let bench = |name, benchfn| BenchMetadata { name: BenchName(name), seed: None, benchfn };
    let benches = vec![
        bench("control_plain_comparison", control as fn(&mut CtRunner, &mut BenchRng)),
        bench("tag_chacha20_rustcrypto", |runner, rng| tag(runner, rng, &RustCrypto, Suite::ChaCha20Poly1305)),
        bench("tag_chacha20_awslc", |runner, rng| tag(runner, rng, &AwsLc, Suite::ChaCha20Poly1305)),
        bench("tag_aes256gcm_rustcrypto", |runner, rng| tag(runner, rng, &RustCrypto, Suite::Aes256Gcm)),
        bench("tag_aes256gcm_awslc", |runner, rng| tag(runner, rng, &AwsLc, Suite::Aes256Gcm)),
        bench("mac1_of_init", mac1),
        bench("mac_of_path_request", path_mac),
        bench("kem_reject_rustcrypto", |runner, rng| kem(runner, rng, &RustCrypto)),
        bench("kem_reject_awslc", |runner, rng| kem(runner, rng, &AwsLc)),
    ];
    run_benches_console(BenchOpts { continuous: false, filter, file_out: None }, benches)
}

/// One of two classes by chance.
fn either(rng: &mut BenchRng) -> Class {
    if rng.random::<bool>() { Class::Left } else { Class::Right }
}

/// A copy of `good` that is wrong at the first byte, or at the last.
fn wrong(good: &[u8], class: Class) -> Vec<u8> {
    let mut bad = good.to_vec();
    let at = if matches!(class, Class::Left) { 0 } else { bad.len() - 1 };
    bad[at] ^= 1;
    bad
}

/// A comparison that stops at the first difference: time must tell.
fn control(runner: &mut CtRunner, rng: &mut BenchRng) {
    let mut good = [0; 32];
    rng.fill_bytes(&mut good);
    for _ in 0..MANY {
        let class = either(rng);
        let bad = wrong(&good, class);
        runner.run_one(class, || good.iter().zip(&bad).all(|(a, b)| black_box(a) == black_box(b)));
    }
}

/// A frame whose tag is wrong early or late.
fn tag(runner: &mut CtRunner, rng: &mut BenchRng, crypto: &dyn Provider, suite: Suite) {
    let aead = crypto.aead(suite, &[7; 32]);
    let mut sealed = [0; BODY_LEN];
    rng.fill_bytes(&mut sealed);
    let good = aead.seal(&[1; 12], b"header", &mut sealed);
    for _ in 0..MANY {
        let class = either(rng);
        let bad: [u8; 16] = wrong(&good, class).try_into().expect("a tag has 16 bytes");
        runner.run_one(class, || {
            let mut body = sealed;
            aead.open(&[1; 12], b"header", &mut body, &bad).is_err()
        });
    }
}

/// An INIT whose mac1 is wrong early or late.
fn mac1(runner: &mut CtRunner, rng: &mut BenchRng) {
    let responder = Identity::from_seed([2; 32]).id();
    let setup = Setup::client_relay([3; 32]);
    let work =
        Work::Offer { setup: setup.clone(), responder, sid: 1, suites: vec![Suite::ChaCha20Poly1305], coins: Zeroizing::new([4; 96]) };
    let Outcome::Offered(offer) = (Job { ticket: Ticket(0), work }).run(&RustCrypto).outcome else {
        panic!("an offer cannot fail");
    };
    let key = setup.mac1_key(responder);
    let (before, tail) = offer.init().split_at(offer.init().len() - 32);
    let (good, mac2) = tail.split_at(16);
    for _ in 0..MANY {
        let class = either(rng);
        let init = [before, &wrong(good, class), mac2].concat();
        runner.run_one(class, || key.verify_init(&init).is_err());
    }
}

/// A `PATH_REQ` whose MAC is wrong early or late.
fn path_mac(runner: &mut CtRunner, rng: &mut BenchRng) {
    let chain = chain();
    let ground = |own_sid, peer_sid| Ground { path: PathId(2), own_sid, peer_sid, channel_binding: [9; 32] };
    let keys = [Side::Initiator, Side::Responder].map(|side| chain.keys(side, &RustCrypto).path);
    let seen = "192.0.2.7:40000".parse().expect("a good address");
    let request = Asker::new(ground(1, 2)).request(&keys[0], seen, 0, [5; 32], 0);
    let (before, good) = request.split_at(request.len() - 32);
    for _ in 0..MANY {
        let class = either(rng);
        let bad = [before, &wrong(good, class)].concat();
        runner.run_one(class, || Answerer::new(ground(2, 1)).answer(&keys[1], &bad, seen, 0, [6; 32]).is_err());
    }
}

/// A session's chain, made as the programs make it.
fn chain() -> Arc<Chain> {
    let identities = [Arc::new(Identity::from_seed([1; 32])), Arc::new(Identity::from_seed([2; 32]))];
    let setup = Setup::client_relay([3; 32]);
    let run = |work| Job { ticket: Ticket(0), work }.run(&RustCrypto).outcome;
    let suites = vec![Suite::ChaCha20Poly1305];
    let responder = identities[1].id();
    let coins = || Zeroizing::new([4; 96]);
    let work = Work::Offer { setup: setup.clone(), responder, sid: 1, suites: suites.clone(), coins: coins() };
    let Outcome::Offered(offer) = run(work) else { panic!("an offer cannot fail") };
    let params = shadowmesh_core::wire::Params::default;
    let init = offer.init().to_vec();
    let identity = Arc::clone(&identities[1]);
    let work = Work::Answer { setup: setup.clone(), identity, init, sid: 2, suites, params: params(), coins: coins() };
    let Outcome::Answered(Ok(answer)) = run(work) else { panic!("INIT is good") };
    let (identity, resp) = (Arc::clone(&identities[0]), answer.resp().to_vec());
    let work = Work::Conclude { setup, identity, responder, offer, resp, params: params(), coins: Zeroizing::new([5; 32]) };
    let Outcome::Concluded(Ok(concluded)) = run(work) else { panic!("RESP is good") };
    concluded.chain
}

/// A genuine ciphertext, or one that is rejected implicitly: nobody may learn which.
fn kem(runner: &mut CtRunner, rng: &mut BenchRng, crypto: &dyn Provider) {
    let pair = crypto.kem_keygen(&[8; 64]);
    for _ in 0..KEM_MANY {
        let class = either(rng);
        let mut coins = [0; 32];
        rng.fill_bytes(&mut coins);
        let mut sent: [u8; KEM_CIPHERTEXT_LEN] = crypto.kem_encapsulate(&pair.public_key, &coins).expect("a good key").ciphertext;
        // the same write in both classes
        sent[700] ^= u8::from(matches!(class, Class::Right));
        runner.run_one(class, || pair.secret.decapsulate(&sent));
    }
}
