//! One connection, from the first byte to the last (protocol 3.1 and 9.3: client and relay).
//!
//! ```text
//!              HELLO, mac1 good            job done: CHALLENGE out          RESPONSE
//!   Greeting ──────────────────▶ Answering ─────────────────▶ Challenged ───────────▶ Verifying
//!      ▲                             │                             ▲                      │ │
//!      └────────── refused ──────────┘                             └────── refused ───────┘ │ proven
//!                                                                                           ▼
//!   any ── limit, CLOSE, replaced ──▶ Parting ── connection closed ──▶ (gone)          Established
//! ```
//! A refused message never ends an attempt: the time and the bytes that a connection has before its proof do.
use super::{channel::Channel, drops::Reason};
use crate::{
    bucket::Bucket,
    crypto::Identity,
    edges::{Chart, States, edges, took, turn},
    handshake::{Answer, Mac1Key, Setup, Work},
    id::{ConnId, Handle, PeerId},
    session::Suite,
    source::Source,
    time::Instant,
    wire::{Params, TYPE_FIN, TYPE_INIT},
};
use core::net::SocketAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// One connection.
pub(super) struct Client {
    pub(super) conn: ConnId,
    pub(super) remote: SocketAddr,
    /// Its place among the connections without proof; none once it is proven.
    pub(super) source: Option<Source>,
    pub(super) exporter: [u8; 32],
    /// Bytes that came before the proof.
    pub(super) bytes: usize,
    pub(super) timer: Option<Instant>,
    pub(super) state: State,
}

/// See the drawing above.
pub(super) enum State {
    Greeting,
    Answering(Vec<u8>),
    Challenged(Challenge),
    Verifying(Challenge),
    Established(Box<Established>),
    Parting,
}

edges!(State, "A client at a relay", [Greeting, Answering, Challenged, Verifying, Established, Parting],
    Greeting => Answering: "HELLO with a good mac1: job to answer it",
    Answering => Challenged: "the job is done: CHALLENGE goes out",
    Answering => Greeting: "HELLO was not good",
    Challenged => Verifying: "RESPONSE: job to verify it",
    Verifying => Challenged: "RESPONSE was not good: the right one may still come",
    Verifying => Established: "RESPONSE was good: ESTABLISHED goes out",
    Greeting => Parting: "closed, a limit was reached, or the relay leaves",
    Answering => Parting: "closed, a limit was reached, or the relay leaves",
    Challenged => Parting: "closed, a limit was reached, or the relay leaves",
    Verifying => Parting: "no network named, no room, closed, a limit was reached, or the relay leaves",
    Established => Parting: "closed, CLOSE, replaced, silent, stalled, the session is old, or the relay leaves",
);

pub(super) const CHART: Chart = State::CHART;

/// A HELLO and what was answered.
pub(super) struct Challenge {
    pub(super) hello: Vec<u8>,
    pub(super) answer: Arc<Answer>,
    /// Whether a repeated HELLO was answered from here already.
    pub(super) repeated: bool,
}

/// A proven client.
pub(super) struct Established {
    pub(super) id: PeerId,
    pub(super) network: u32,
    pub(super) handle: Handle,
    pub(super) channel: Channel,
    pub(super) heard: Instant,
    /// Answers to its questions for its UDP address.
    pub(super) binds: Bucket,
}

// An idle client costs its port, its session and its timers: far below 64 KiB (protocol 9).
const _: () = assert!(size_of::<Client>() + size_of::<Established>() <= 768);

/// What the relay answers with.
pub(super) struct Own<'a> {
    pub(super) identity: &'a Arc<Identity>,
    pub(super) mac1: &'a Mac1Key,
    pub(super) suites: &'a [Suite],
    /// Whether one more handshake may be under way.
    pub(super) room: bool,
}

/// What a message before the proof leads to.
#[expect(clippy::large_enum_variant, reason = "a step is moved once, to where it is taken apart")]
pub(super) enum Step {
    /// A HELLO to answer; the caller adds the coins.
    Answer {
        hello: Vec<u8>,
    },
    Verify(Work),
    Send(Vec<u8>),
}

impl Client {
    /// Whether a handshake is under way.
    pub(super) fn is_half_open(&self) -> bool {
        matches!(self.state, State::Answering(_) | State::Challenged(_) | State::Verifying(_))
    }

    /// Takes a message that came before the proof.
    pub(super) fn greet(&mut self, bytes: &[u8], own: &Own<'_>) -> Result<Step, Reason> {
        match (bytes.first(), &mut self.state) {
            (Some(&TYPE_INIT), State::Greeting) => {
                // protocol 3.8: mac1 before any arithmetic, then room for one more
                own.mac1.verify_init(bytes).map_err(|_| Reason::BadHello)?;
                if !own.room {
                    return Err(Reason::HalfOpenTotal);
                }
                turn(&mut self.state, State::Answering(bytes.to_vec()));
                Ok(Step::Answer { hello: bytes.to_vec() })
            }
            (Some(&TYPE_INIT), State::Challenged(challenge)) if challenge.hello == bytes && !challenge.repeated => {
                // protocol 3.8: an identical INIT is answered from a cache
                challenge.repeated = true;
                Ok(Step::Send(challenge.answer.resp().to_vec()))
            }
            (Some(&TYPE_INIT), State::Answering(_) | State::Challenged(_) | State::Verifying(_)) => Err(Reason::RepeatedHello),
            (Some(&TYPE_FIN), State::Challenged(_)) => {
                let State::Challenged(challenge) = core::mem::replace(&mut self.state, State::Parting) else {
                    unreachable!("the state was matched above")
                };
                let work = Work::Verify { identity: Arc::clone(own.identity), answer: Arc::clone(&challenge.answer), fin: bytes.to_vec() };
                self.state = State::Verifying(challenge);
                took::<State>("Challenged", self.state.name());
                Ok(Step::Verify(work))
            }
            _ => Err(Reason::UnexpectedMessage),
        }
    }

    /// The job that answers a HELLO.
    pub(super) fn answer(&self, hello: Vec<u8>, own: &Own<'_>, sid: u32, coins: Zeroizing<[u8; 96]>) -> Work {
        Work::Answer {
            setup: Setup::client_relay(self.exporter),
            identity: Arc::clone(own.identity),
            init: hello,
            sid,
            suites: own.suites.to_vec(),
            params: Params::default(),
            coins,
        }
    }
}
