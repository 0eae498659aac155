//! CPU time of a whole re-handshake, both sides together: three messages made and checked (aim: at most 10 us).
//!
//! `cargo bench -p shadowmesh-core --bench rehandshake`
#![expect(clippy::disallowed_types, reason = "a bench measures by the clock")]
#![expect(clippy::print_stdout, reason = "the figures are the output")]
use shadowmesh_core::{
    crypto::{Identity, Provider, rustcrypto::RustCrypto},
    handshake::{Job, Outcome, Setup, Ticket, Work},
    id::PathId,
    rehandshake::{Answerer, Asker, Ground},
    session::{Chain, PathKey, Side, Suite},
    wire::Params,
};
use std::{hint::black_box, net::SocketAddr, sync::Arc, time::Instant};

const ROUNDS: usize = 500;
const RUNS_PER_ROUND: u32 = 100;

fn main() {
    let chain = session(&RustCrypto);
    let [here, there] = [Side::Initiator, Side::Responder].map(|side| chain.keys(side, &RustCrypto).path);
    let ground = Ground { path: PathId(2), own_sid: 1, peer_sid: 2, channel_binding: [9; 32] };
    let mut asker = Asker::new(ground);
    let mut answerer = Answerer::new(Ground { own_sid: 2, peer_sid: 1, ..ground });
    let mut bytes = 0;
    let mut samples: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..RUNS_PER_ROUND {
                bytes = once(&mut asker, &mut answerer, &here, &there);
            }
            start.elapsed().as_nanos() / u128::from(RUNS_PER_ROUND)
        })
        .collect();
    samples.sort_unstable();
    println!("re-handshake, both sides: median {} ns, best {} ns, {bytes} bytes", samples[ROUNDS / 2], samples[0]);
}

fn once(asker: &mut Asker, answerer: &mut Answerer, here: &PathKey, there: &PathKey) -> usize {
    let seen = SocketAddr::from(([192, 0, 2, 1], 443));
    let request = asker.request(here, seen, 7, [1; 32], 0);
    let response = answerer.answer(there, &request, seen, 7, [2; 32]).expect("a fresh request");
    let (complete, proven) = asker.complete(here, &response, seen, 7).expect("a good response");
    black_box((proven, answerer.confirm(there, &complete).expect("a good completion")));
    request.len() + response.len() + complete.len()
}

/// A session by the only way there is: a handshake.
fn session(crypto: &dyn Provider) -> Arc<Chain> {
    let [client, relay] = [[1; 32], [2; 32]].map(|seed| Arc::new(Identity::from_seed(seed)));
    let setup = Setup::client_relay([9; 32]);
    let suites = vec![Suite::ChaCha20Poly1305];
    let run = |work| Job { ticket: Ticket(0), work }.run(crypto).outcome;
    let responder = relay.id();
    let work = Work::Offer { setup: setup.clone(), responder, sid: 1, suites: suites.clone(), coins: [3; 96].into() };
    let Outcome::Offered(offer) = run(work) else { unreachable!("an offer is offered") };
    let (init, params) = (offer.init().to_vec(), Params::default());
    let work = Work::Answer { setup: setup.clone(), identity: relay, init, sid: 2, suites, params: params.clone(), coins: [4; 96].into() };
    let Outcome::Answered(Ok(answer)) = run(work) else { unreachable!("a good INIT") };
    let resp = answer.resp().to_vec();
    let work = Work::Conclude { setup, identity: client, responder, offer, resp, params, coins: [5; 32].into() };
    let Outcome::Concluded(Ok(concluded)) = run(work) else { unreachable!("a good RESP") };
    concluded.chain
}
