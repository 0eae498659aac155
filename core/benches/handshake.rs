//! CPU time of each side of a peer handshake, with both back ends, and the bytes of its messages.
//!
//! `cargo bench -p shadowmesh-core --features aws-lc --bench handshake`
//!
//! The back ends take turns within each round, so that a busy moment of the machine hits both; the median of the rounds counts.
#![expect(clippy::disallowed_types, reason = "a bench measures by the clock")]
#![expect(clippy::print_stdout, reason = "the figures are the output")]
use shadowmesh_core::{
    crypto::{Identity, Provider, rustcrypto::RustCrypto},
    handshake::{Answer, Concluded, Job, Offer, Outcome, Setup, Ticket, Work},
    network::{Network, RelayAddress},
    session::{Side, Suite},
    wire::Params,
};
use std::{hint::black_box, sync::Arc, time::Instant};

const ROUNDS: usize = 200;

fn main() {
    #[cfg(feature = "aws-lc")]
    let back_ends: Vec<Box<dyn Provider>> = vec![Box::new(RustCrypto), Box::new(shadowmesh_core::crypto::awslc::AwsLc)];
    #[cfg(not(feature = "aws-lc"))]
    let back_ends: Vec<Box<dyn Provider>> = vec![Box::new(RustCrypto)];

    let network = Network::new([7; 32], "bench", vec![RelayAddress::new("wss://relay.example.org", None).expect("a good URL")]);
    let ends = Ends {
        setup: Setup::peer_peer(&network.expect("within limits")),
        alice: Arc::new(Identity::from_seed([1; 32])),
        bob: Arc::new(Identity::from_seed([2; 32])),
    };
    let mut samples: Vec<[Vec<u64>; 4]> = back_ends.iter().map(|_| Default::default()).collect();
    let mut lengths = [0; 3];
    for round in 0..=ROUNDS {
        for (crypto, samples) in back_ends.iter().zip(&mut samples) {
            let (times, sent) = ends.handshake(crypto.as_ref());
            lengths = sent;
            // The first round fills the caches.
            if round > 0 {
                samples.iter_mut().zip(times).for_each(|(of_step, time)| of_step.push(time));
            }
        }
    }
    for (crypto, samples) in back_ends.iter().zip(&mut samples) {
        let [offer, answer, conclude, verify] = samples.each_mut().map(|of_step| median(of_step));
        println!(
            "{:<10}  initiator {:>6.1} us (offer {:.1} + conclude {:.1})   responder {:>6.1} us (answer {:.1} + verify {:.1})",
            crypto.name(),
            us(offer + conclude),
            us(offer),
            us(conclude),
            us(answer + verify),
            us(answer),
            us(verify),
        );
    }
    let [init, resp, fin] = lengths;
    println!("bytes       INIT {init} + RESP {resp} + FIN {fin} = {}", init + resp + fin);
}

struct Ends {
    setup: Setup,
    alice: Arc<Identity>,
    bob: Arc<Identity>,
}

impl Ends {
    /// One whole handshake: nanoseconds of offer, answer, conclude, verify, each with its mac1 check and traffic keys; message lengths.
    fn handshake(&self, crypto: &dyn Provider) -> ([u64; 4], [usize; 3]) {
        let suites = vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
        let (offer, offer_ns) = timed(|| self.offer(suites.clone(), crypto));
        let (answer, answer_ns) = timed(|| self.answer(&offer, suites.clone(), crypto));
        let (concluded, conclude_ns) = timed(|| self.conclude(&offer, &answer, crypto));
        let ((), verify_ns) = timed(|| self.verify(&answer, &concluded, crypto));
        ([offer_ns, answer_ns, conclude_ns, verify_ns], [offer.init().len(), answer.resp().len(), concluded.fin.len()])
    }

    fn offer(&self, suites: Vec<Suite>, crypto: &dyn Provider) -> Arc<Offer> {
        let work = Work::Offer { setup: self.setup.clone(), responder: self.bob.id(), sid: 1, suites, coins: [3; 96].into() };
        let Outcome::Offered(offer) = run(work, crypto) else { unreachable!("an offer is offered") };
        offer
    }

    fn answer(&self, offer: &Offer, suites: Vec<Suite>, crypto: &dyn Provider) -> Arc<Answer> {
        self.setup.mac1_key(self.bob.id()).verify_init(offer.init()).expect("a good INIT");
        let work = Work::Answer {
            setup: self.setup.clone(),
            identity: Arc::clone(&self.bob),
            init: offer.init().to_vec(),
            sid: 2,
            suites,
            params: Params::default(),
            coins: [4; 96].into(),
        };
        let Outcome::Answered(Ok(answer)) = run(work, crypto) else { unreachable!("a good INIT") };
        answer
    }

    fn conclude(&self, offer: &Arc<Offer>, answer: &Answer, crypto: &dyn Provider) -> Concluded {
        self.setup.mac1_key(self.bob.id()).verify_resp(answer.resp()).expect("a good RESP");
        let work = Work::Conclude {
            setup: self.setup.clone(),
            identity: Arc::clone(&self.alice),
            responder: self.bob.id(),
            offer: Arc::clone(offer),
            resp: answer.resp().to_vec(),
            params: Params::default(),
            coins: [5; 32].into(),
        };
        let Outcome::Concluded(Ok(concluded)) = run(work, crypto) else { unreachable!("a good RESP") };
        black_box(concluded.chain.keys(Side::Initiator, crypto));
        concluded
    }

    fn verify(&self, answer: &Arc<Answer>, concluded: &Concluded, crypto: &dyn Provider) {
        let work = Work::Verify { identity: Arc::clone(&self.bob), answer: Arc::clone(answer), fin: concluded.fin.clone() };
        let Outcome::Verified(Ok(verified)) = run(work, crypto) else { unreachable!("a good FIN") };
        black_box(verified.chain.keys(Side::Responder, crypto));
    }
}

fn run(work: Work, crypto: &dyn Provider) -> Outcome {
    Job { ticket: Ticket(0), work }.run(crypto).outcome
}

fn timed<T>(step: impl FnOnce() -> T) -> (T, u64) {
    let start = Instant::now();
    let result = step();
    (result, u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn median(samples: &mut [u64]) -> u64 {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "a few microseconds")]
fn us(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}
