//! A peer comes to a relay, both are recorded; then everything that can happen to a journal.
#![expect(clippy::disallowed_types, reason = "one run serves all tests")]
use super::*;
use crate::{
    config::{Access, Limits, Member, Tuning},
    crypto::{Identity, Provider, awslc::AwsLc, rustcrypto::RustCrypto},
    drops::{Drop, Drops},
    event::{Ended, MappingProtocol, PortMapping, TlsFacts},
    handshake::{Done, HandshakeError, Job, Outcome, Setup, Ticket, Work},
    hub::{ForwardSink, Forwarder},
    id::{ConnId, Handle, LinkId, PathId, PeerId},
    network::{Network, RelayAddress},
    plane::{Edit, Install, LinkTally, PathTally, Report, Slabs, Tally},
    session::{Chain, SessionId, Side, Suite},
    succession::{Statement, Succession},
    time::Duration,
    wire::{Params, Transport},
};
use core::net::SocketAddr;
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};

mod kinds;

/// The journals of one run: the peer's, the relay's.
static RUN: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| run(&(Arc::new(AwsLc) as _)));

#[test]
fn a_run_on_any_back_end_replays_to_the_same_digests() {
    for (peer, relay) in [RUN.clone(), run(&(Arc::new(RustCrypto) as _))] {
        let (steps, joined) = (replay::<Node>(&peer), replay::<Hub>(&relay));
        assert!(steps.iter().any(|step| step.kind == "Computed" && step.detail.contains("FIN is made")), "the handshake is in it");
        assert!(joined.iter().any(|step| step.actions.iter().any(|action| action.starts_with("Note: Joined"))));
        assert!(steps.iter().all(|step| step.verdict == Verdict::Same));
    }
}

#[test]
fn a_replay_leads_to_the_same_state() {
    let Ok(Journal::Node(tape)) = Journal::open(&RUN.0) else { panic!("a peer's journal") };
    assert_eq!(tape.software(), env!("CARGO_PKG_VERSION"));
    let mut replay = Replay::new(tape);
    while replay.step().expect("a good journal").is_some() {}
    let status = replay.machine().status(Instant::ZERO);
    assert_eq!((status.name.as_str(), status.id), ("ann", identity(1).id()));
    assert_eq!(status.relays[0].id, Some(identity(2).id()), "it is connected");
}

#[test]
fn the_first_difference_is_named() {
    let mut recorder = Recorder::<Node>::new(&config(Arc::new(RustCrypto)));
    let mut node = Node::new(config(Arc::new(RustCrypto)));
    for (at, event) in [Event::Entropy(&[1; 32]), Event::Start, Event::Listening { port: None }].into_iter().enumerate() {
        let (now, mut actions) = (Instant::from_millis(at as u64), Vec::new());
        recorder.event(now, &event);
        node.handle(now, event, &mut actions);
        recorder.actions(&actions);
    }
    // the run claims to have hung up where the machine only says that it has left
    recorder.event(Instant::from_millis(3), &Event::Leave);
    recorder.actions(&[Action::Hangup { conn: ConnId(0) }]);
    let Ok(Journal::Node(tape)) = Journal::open(recorder.bytes()) else { panic!("a peer's journal") };
    let mut replay = Replay::new(tape);
    let mut verdicts = Vec::new();
    while let Some(step) = replay.step().expect("a good journal") {
        verdicts.push((step.number, step.kind, step.verdict));
    }
    let Some((7, "Leave", Verdict::Differs(difference))) = verdicts.pop() else { panic!("record 7 differs") };
    assert_eq!((difference.expected_kinds, difference.found_kinds), (vec!["Hangup"], vec!["Note"]));
    assert_ne!(difference.expected, difference.found);
    assert!(verdicts.iter().all(|(_, _, verdict)| *verdict == Verdict::Same), "all before it is the same");
}

#[test]
fn a_journal_that_is_cut_anywhere_replays_up_to_the_cut() {
    let whole = &RUN.0;
    let count = replay::<Node>(whole).len();
    let head = FIRST_LINE.len() + FRAME_LEN + record_len(whole, FIRST_LINE.len());
    let mut seen = 0;
    for end in (head..=whole.len()).step_by(97).chain([whole.len()]) {
        let Ok(Journal::Node(tape)) = Journal::open(&whole[..end]) else { panic!("cut at {end}") };
        let mut replay = Replay::new(tape);
        let mut steps = 0;
        while let Some(step) = replay.step().expect("a cut is no damage") {
            steps += 1;
            match step.verdict {
                Verdict::Same => {}
                Verdict::Unknown => assert!(end < whole.len(), "only the last event can be without an answer"),
                Verdict::Differs(_) => panic!("cut at {end}: {} differs", step.number),
            }
        }
        assert!(steps >= seen, "a longer piece has no fewer events");
        assert_eq!(replay.tape().is_cut(), !is_boundary(whole, end), "cut at {end}");
        seen = steps;
    }
    assert_eq!(seen, count);
    for end in 0..head {
        let error = Journal::open(&whole[..end]).err();
        assert!(matches!(error, Some(JournalError::NotAJournal | JournalError::Version)), "cut at {end}: {error:?}");
    }
}

#[test]
fn each_event_is_read_back_as_it_was_written() {
    for event in peer_events() {
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        Node::put_event(&event, &mut once);
        let (mut body, mut loan) = (once.clone(), Loan::default());
        let read = Node::take_event(&mut body, &mut loan).expect("what was written can be read");
        assert_eq!(Node::tell_event(&read), Node::tell_event(&event));
        Node::put_event(&read, &mut twice);
        assert_eq!(once, twice, "{}", Node::tell_event(&event));
    }
    assert_eq!((Node::EVENTS[usize::from(Node::COMPUTED)], Hub::EVENTS[usize::from(Hub::COMPUTED)]), ("Computed", "Computed"));
    let kinds: std::collections::BTreeSet<u8> = peer_events().iter().map(|event| kind(event)).collect();
    assert_eq!(kinds.len(), Node::EVENTS.len(), "each kind is tried");
}

/// Kind, number of mappings, and of each: protocol, transport, address with port, and the end in nanoseconds.
#[test]
fn a_port_of_the_router_has_these_bytes() {
    let mut bytes = Vec::new();
    Node::put_event(&Event::PortMapped(&[mapping(MappingProtocol::NatPmp, Transport::Wss, at("198.51.100.7:6000"))]), &mut bytes);
    assert_eq!(bytes, [16, 0, 0, 0, 1, 1, 1, 4, 198, 51, 100, 7, 0x17, 0x70, 0, 0, 0, 0, 0x3b, 0x9a, 0xca, 0]);
    for (place, wrong) in [(5, 3), (6, 2)] {
        let mut other = bytes.clone();
        other[place] = wrong;
        assert!(Node::take_event(&mut other, &mut Loan::default()).is_err(), "{wrong} at {place}");
    }
    bytes.clear();
    Node::put_event(&Event::Examine, &mut bytes);
    assert_eq!(bytes, [17]);
}

fn statement() -> Statement {
    let [old, new] = [1, 2].map(|seed| Identity::from_seed([seed; 32]));
    Statement::make(&old, &new, &RustCrypto, [&[3; 32], &[4; 32]])
}

fn mapping(protocol: MappingProtocol, transport: Transport, external: SocketAddr) -> PortMapping {
    PortMapping { protocol, transport, external, until: Instant::from_millis(1_000) }
}

#[test]
fn a_longer_event_is_malformed() {
    for event in peer_events().iter().filter(|event| !matches!(event, Event::Message { .. } | Event::Datagram { .. })) {
        let mut body = Vec::new();
        Node::put_event(event, &mut body);
        body.push(0);
        assert!(Node::take_event(&mut body, &mut Loan::default()).is_err(), "{}", Node::tell_event(event));
    }
}

#[test]
fn a_recorded_offer_makes_no_keys() {
    let outcomes = outcomes();
    let [Outcome::Offered(offer), Outcome::Answered(Ok(answer)), Outcome::Concluded(Ok(concluded)), ..] = &outcomes[..] else {
        panic!("the first three of a handshake")
    };
    let again = |outcome: &Outcome| {
        let mut bytes = Vec::new();
        outcome.put(&mut bytes);
        Outcome::take(&mut Reader::new(&bytes)).expect("what was written can be read")
    };
    let (Outcome::Offered(offer_read), Outcome::Answered(Ok(answer_read))) = (again(&outcomes[0]), again(&outcomes[1])) else {
        panic!("the same kinds")
    };
    assert_eq!((offer_read.init(), offer_read.sid()), (offer.init(), offer.sid()));
    assert_eq!((answer_read.resp(), answer_read.sid(), answer_read.suite()), (answer.resp(), answer.sid(), answer.suite()));
    let (setup, coins) = (setup(), Zeroizing::new([9; 32]));
    let resp = answer.resp().to_vec();
    let (identity, params) = (identity(1), Params::default());
    let work = Work::Conclude { setup, identity, responder: self::identity(2).id(), offer: offer_read, resp, params, coins };
    let Outcome::Concluded(Err(HandshakeError::Spent)) = work_of(work) else { panic!("no session from a record") };
    let work = Work::Verify { identity: self::identity(2), answer: answer_read, fin: concluded.fin.clone() };
    let Outcome::Verified(Err(HandshakeError::Spent)) = work_of(work) else { panic!("no session from a record") };
}

#[test]
fn a_digest_knows_a_session_and_its_epoch_but_no_key() {
    let install = |key: u8, epoch: u32| {
        let chain = chain(key, epoch);
        let keys = chain.keys(Side::Initiator, &RustCrypto);
        let install =
            Install { session: chain.session_id(), local: 1, remote: 2, keys, main: PathId::RELAY, lanes: 1, slabs: Slabs::default() };
        let mut out = Vec::new();
        Node::put_action(&Action::Edit(Edit::Install { link: LinkId(0), install: Box::new(install) }), &mut out);
        out
    };
    assert_eq!(install(1, 0), install(2, 0), "another key, the same session");
    assert_ne!(install(1, 0), install(1, 1), "another epoch");
}

#[test]
fn each_wrong_beginning_has_its_name() {
    assert_eq!(Journal::open(b"").err(), Some(JournalError::NotAJournal));
    assert_eq!(Journal::open(b"smesh1:abc").err(), Some(JournalError::NotAJournal));
    assert_eq!(Journal::open(b"shadowmesh journal 2 (SECRET)\n").err(), Some(JournalError::Version));
    assert_eq!(Journal::open(FIRST_LINE.as_bytes()).err(), Some(JournalError::Version), "no head");
    let with = |body: &[u8]| [FIRST_LINE.as_bytes(), &framed(body)].concat();
    for (body, what) in [
        (&[HEAD, 9, 0, 0, 0, 0][..], "the kind of machine"),
        (&[EVENT, 1], "the head"),
        (&[HEAD, 1, 0, 0, 0, 1, 0xff], "text"),
        (&[HEAD, 1, 0, 0, 0, 0, 1], "identity"),
    ] {
        let error = Journal::open(&with(body)).err();
        assert!(matches!(error, Some(JournalError::Record { number: 0, .. })), "{what}: {error:?}");
    }
    let endless = [FIRST_LINE.as_bytes(), &u32::MAX.to_be_bytes(), &[0; 4]].concat();
    assert_eq!(Journal::open(&endless).err(), Some(JournalError::Record { number: 0, what: "its length" }));
}

proptest! {
    #[test]
    fn one_wrong_bit_is_noticed_and_named(place: prop::sample::Index, bit in 0..8_u8) {
        let mut bytes = RUN.0.clone();
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let fault = read_all(&bytes);
        // a length that grew is a cut at the end of the file; anything else has a name
        match fault {
            Err(JournalError::Record { number, .. }) => prop_assert_eq!(number, number_at(&RUN.0, at)),
            Err(JournalError::NotAJournal | JournalError::Version) => prop_assert!(at < FIRST_LINE.len() + FRAME_LEN),
            Ok(cut) => prop_assert!(cut, "a flip at {} went unnoticed", at),
        }
    }

    /// Whoever can repair checksums can write any journal: that is an error or another run, and no panic of the reader.
    #[test]
    fn a_forged_record_is_judged_without_panic(which in 1..400_u64, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = RUN.0.clone();
        let mut at = FIRST_LINE.len();
        let mut number = 0;
        while number < which && at + FRAME_LEN + record_len(&bytes, at) < bytes.len() {
            at += FRAME_LEN + record_len(&bytes, at);
            number += 1;
        }
        let len = record_len(&bytes, at);
        for (place, mask) in flips {
            bytes[at + FRAME_LEN + place.index(len)] ^= mask;
        }
        let sum = checksum(&bytes[at + FRAME_LEN..at + FRAME_LEN + len]);
        bytes[at + 4..at + FRAME_LEN].copy_from_slice(&sum);
        let _ = read_all(&bytes);
        if let Ok(Journal::Node(tape)) = Journal::open(&bytes) {
            let mut replay = Replay::new(tape);
            while let Ok(Some(_)) = replay.step() {}
        }
    }

    #[test]
    fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
        let _ = read_all(&[FIRST_LINE.as_bytes(), &framed(&bytes)].concat());
        let _ = (Node::take_event(&mut bytes.clone(), &mut Loan::default()).is_ok(), Hub::take_event(&mut bytes.clone(), &mut Loan::default()).is_ok());
        let _ = (Node::take_config(&mut Reader::new(&bytes)).is_ok(), Hub::take_config(&mut Reader::new(&bytes)).is_ok());
    }
}

// ---- a run -------------------------------------------------------------------------------------------------------

/// A machine beside its recorder.
struct Taped<M: Recorded>(M, Recorder<M>);

impl<M: Recorded> Taped<M> {
    fn handle(&mut self, now: Instant, event: M::Event<'_>) -> Vec<M::Action> {
        let mut actions = Vec::new();
        self.1.event(now, &event);
        self.0.handle(now, event, &mut actions);
        self.1.actions(&actions);
        actions
    }
}

struct Punted(Vec<Vec<u8>>);

impl ForwardSink for Punted {
    fn punt(&mut self, _conn: ConnId, message: &mut [u8]) {
        self.0.push(message.to_vec());
    }
    fn wake(&mut self, _conn: ConnId) {}
}

/// A peer connects to a relay, is let in, learns its UDP address, and leaves.
fn run(crypto: &Arc<dyn Provider>) -> (Vec<u8>, Vec<u8>) {
    let config = config(Arc::clone(crypto));
    let hub = HubConfig { udp_ports: [Some(8_443), None], ..HubConfig::new(identity(2), Arc::clone(crypto)) };
    let mut forwarder = Forwarder::new(&hub.limits);
    let mut peer = Taped(Node::new(config.clone()), Recorder::<Node>::new(&config));
    let mut relay = Taped(Hub::new(hub.clone()), Recorder::<Hub>::new(&hub));
    let mut now = Instant::from_millis(5_000);
    relay.handle(now, HubEvent::Entropy(&[3; 32]));
    let access = Access { peers: vec![config.identity.id()], deny: vec![(at("198.51.100.0:0").ip(), 24)], ..Access::default() };
    relay.handle(now, HubEvent::Configure { limits: Box::new(Limits { clients: 7, ..hub.limits.clone() }), access: Box::new(access) });
    peer.handle(now, Event::Entropy(&[4; 32]));
    let mut todo = peer.handle(now, Event::Start);
    peer.handle(now, Event::Interfaces(&[(at("192.0.2.7:0").ip(), 24)]));
    peer.handle(now, Event::Sockets { v4: Some(5_000), v6: None });
    let mut hub_todo =
        relay.handle(now, HubEvent::Accepted { conn: ConnId(1), exporter: [7; 32], remote: at("192.0.2.7:999"), since: now });
    let conn = ConnId(0);
    for round in 0..40 {
        now = now + Duration::from_millis(10);
        let mut punted = Punted(Vec::new());
        for action in core::mem::take(&mut todo) {
            match action {
                Action::Dial { .. } => {
                    let tls = TlsFacts { exporter: [7; 32], identity: Some(identity(2).id()), subject: None };
                    todo.extend(peer.handle(now, Event::Opened { conn, tls, local: at("192.0.2.7:999"), remote: at("192.0.2.1:443") }));
                }
                Action::Send { mut bytes, .. } => {
                    forwarder.inbound(now, ConnId(1), &mut bytes, &mut punted);
                }
                Action::Compute(job) => {
                    todo.extend(peer.handle(now, Event::Entropy(&[round; 32])));
                    todo.extend(peer.handle(now, Event::Computed(job.run(&**crypto))));
                }
                Action::Datagram { remote, bytes } => {
                    assert_eq!(remote, at("192.0.2.1:8443"));
                    hub_todo.extend(relay.handle(now, HubEvent::Datagram { port: 0, remote: at("198.51.100.7:6000"), bytes: &bytes }));
                }
                Action::Hangup { .. }
                | Action::Edit(_)
                | Action::Listen(_)
                | Action::Remember { .. }
                | Action::Succeeded(_)
                | Action::Note(_)
                | Action::Sockets
                | Action::Flow { .. } => {}
            }
        }
        for mut bytes in punted.0 {
            hub_todo.extend(relay.handle(now, HubEvent::Message { conn: ConnId(1), bytes: &mut bytes }));
        }
        for action in core::mem::take(&mut hub_todo) {
            match action {
                HubAction::Send { conn, bytes } => forwarder.control(conn, bytes),
                HubAction::Edit(edit) => forwarder.apply(now, edit),
                HubAction::Compute(job) => hub_todo.extend(relay.handle(now, HubEvent::Computed(job.run(&**crypto)))),
                HubAction::Datagram { port: _, remote, mut bytes } => {
                    assert_eq!(remote, at("198.51.100.7:6000"));
                    todo.extend(peer.handle(now, Event::Datagram { remote: at("192.0.2.1:8443"), bytes: &mut bytes }));
                }
                HubAction::Hangup { .. } | HubAction::Note(_) => {}
            }
        }
        let mut message = Vec::new();
        while forwarder.next_message(now, ConnId(1), &mut message) {
            todo.extend(peer.handle(now, Event::Message { conn, handle: None, bytes: &mut message }));
        }
        todo.extend(peer.handle(now, Event::Alarm));
        hub_todo.extend(relay.handle(now, HubEvent::Alarm));
    }
    assert_eq!(peer.0.status(now).relays[0].reflexive, Some(at("198.51.100.7:6000")), "BIND and BOUND went there and back");
    (peer.1.bytes().to_vec(), relay.1.bytes().to_vec())
}

fn replay<M: Recorded + Opened>(bytes: &[u8]) -> Vec<Step> {
    let mut replay = Replay::new(M::opened(bytes));
    let mut steps = Vec::new();
    while let Some(step) = replay.step().expect("a good journal") {
        assert_eq!(step.verdict, Verdict::Same, "record {} ({})", step.number, step.kind);
        steps.push(step);
    }
    steps
}

/// The journal of one kind of machine.
trait Opened: Sized {
    fn opened(bytes: &[u8]) -> Tape<'_, Self>;
}

impl Opened for Node {
    fn opened(bytes: &[u8]) -> Tape<'_, Self> {
        let Ok(Journal::Node(tape)) = Journal::open(bytes) else { panic!("a peer's journal") };
        tape
    }
}

impl Opened for Hub {
    fn opened(bytes: &[u8]) -> Tape<'_, Self> {
        let Ok(Journal::Hub(tape)) = Journal::open(bytes) else { panic!("a relay's journal") };
        tape
    }
}

/// Reads all of it without a machine; whether it was cut off.
fn read_all(bytes: &[u8]) -> Result<bool, JournalError> {
    fn read<M: Recorded>(mut tape: Tape<'_, M>) -> Result<bool, JournalError> {
        while let Some(mut entry) = tape.next_entry()? {
            entry.event::<M>(&mut Loan::default())?;
        }
        Ok(tape.is_cut())
    }
    match Journal::open(bytes)? {
        Journal::Node(tape) => read(tape),
        Journal::Hub(tape) => read(tape),
    }
}

/// Length of the body of the record at `at`.
fn record_len(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// The number of the record that byte `at` belongs to.
fn number_at(bytes: &[u8], at: usize) -> u64 {
    let (mut start, mut number) = (FIRST_LINE.len(), 0);
    while start + FRAME_LEN + record_len(bytes, start) <= at {
        start += FRAME_LEN + record_len(bytes, start);
        number += 1;
    }
    number
}

fn is_boundary(bytes: &[u8], end: usize) -> bool {
    let mut start = FIRST_LINE.len();
    while start < end {
        start += FRAME_LEN + record_len(bytes, start);
    }
    start == end
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], &checksum(body), body].concat()
}

// ---- values ------------------------------------------------------------------------------------------------------

fn kind(event: &Event<'_>) -> u8 {
    let mut out = Vec::new();
    Node::put_event(event, &mut out);
    out[0]
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn identity(seed: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed([seed; 32]))
}

fn network() -> Network {
    let relay = RelayAddress::new("wss://192.0.2.1", Some(identity(2).id())).expect("a good URL");
    Network::new([5; 32], "net", vec![relay]).expect("a good network")
}

fn setup() -> Setup {
    Setup::peer_peer(&network())
}

fn config(crypto: Arc<dyn Provider>) -> NodeConfig {
    NodeConfig {
        name: "ann".into(),
        claims: vec![(at("10.0.0.1:0").ip(), PeerId([8; 32]))],
        ..NodeConfig::new(identity(1), crypto, network())
    }
}

fn chain(key: u8, epoch: u32) -> Chain {
    let mut bytes = vec![key; 64];
    (SessionId([6; 16]), epoch).put(&mut bytes);
    Suite::Aes256Gcm.put(&mut bytes);
    Chain::take(&mut Reader::new(&bytes)).expect("64 bytes, a session, an epoch, a suite")
}

fn work_of(work: Work) -> Outcome {
    Job { ticket: Ticket(1), work }.run(&AwsLc).outcome
}

/// One of each kind, good and refused.
fn outcomes() -> Vec<Outcome> {
    let coins = || Zeroizing::new([9; 96]);
    let (ann, bob) = (identity(1), identity(2));
    let params = Params { name: Some("ann".into()), mtu: Some(1_280), ..Params::default() };
    let suites = vec![Suite::ChaCha20Poly1305];
    let offered = work_of(Work::Offer { setup: setup(), responder: bob.id(), sid: 11, suites: suites.clone(), coins: coins() });
    let Outcome::Offered(offer) = &offered else { panic!("an offer") };
    let init = offer.init().to_vec();
    let answered =
        work_of(Work::Answer { setup: setup(), identity: bob.clone(), init, sid: 22, suites, params: params.clone(), coins: coins() });
    let Outcome::Answered(Ok(answer)) = &answered else { panic!("an answer") };
    let (offer, resp, coins32) = (Arc::clone(offer), answer.resp().to_vec(), Zeroizing::new([9; 32]));
    let concluded = work_of(Work::Conclude { setup: setup(), identity: ann, responder: bob.id(), offer, resp, params, coins: coins32 });
    let Outcome::Concluded(Ok(session)) = &concluded else { panic!("a session") };
    let verified = work_of(Work::Verify { identity: bob, answer: Arc::clone(answer), fin: session.fin.clone() });
    let chain = Arc::clone(&session.chain);
    let rekey = work_of(Work::RekeyOffer { epoch: 1, coins: coins() });
    let Outcome::RekeyOffered(offer) = &rekey else { panic!("an offer") };
    let rekey1 = offer.rekey1().to_vec();
    let answered2 = work_of(Work::RekeyAnswer { epoch: 1, rekey1, chain: Arc::clone(&chain), coins: coins() });
    let Outcome::RekeyAnswered(Ok((rekey2, _))) = &answered2 else { panic!("an answer") };
    let next = work_of(Work::RekeyConclude { epoch: 1, offer: Arc::clone(offer), rekey2: rekey2.clone(), chain });
    let mut all = vec![offered, answered, concluded, verified, rekey, answered2, next];
    for error in HandshakeError::ALL {
        all.extend([Outcome::Answered(Err(error)), Outcome::Concluded(Err(error)), Outcome::Verified(Err(error))]);
        all.extend([Outcome::RekeyAnswered(Err(error)), Outcome::RekeyConcluded(Err(error))]);
    }
    all
}

/// One of each kind at least. What they borrow lives as long as the test.
fn peer_events() -> Vec<Event<'static>> {
    let (v4, v6) = (at("192.0.2.1:443"), at("[2001:db8::1%3]:5"));
    let ends = [
        Ended::Refused,
        Ended::Unreachable,
        Ended::TimedOut,
        Ended::Reset,
        Ended::ByPeer,
        Ended::Tls("why".into()),
        Ended::WebSocket("why".into()),
        Ended::WrongIdentity { got: Some(PeerId([1; 32])), subject: None },
        Ended::WrongIdentity { got: None, subject: Some("CN=proxy".into()) },
        Ended::Resolve("why".into()),
        Ended::Local("why".into()),
        Ended::Proxy("why".into()),
    ];
    let path = PathTally { path: PathId(1), heard_at: Some(Instant::from_millis(4)), rtt: None };
    let link = LinkTally {
        link: LinkId(3),
        tx_frames: 1,
        tx_bytes: 2,
        rx_frames: 3,
        rx_bytes: 4,
        lost: 5,
        tx_lost: 4,
        duplicate: 6,
        reordered: 7,
        resent: 8,
        session_frames: 9,
        main: Some(PathId::RELAY),
        paths: vec![path],
        queued: 10,
    };
    let mut drops = Drops::default();
    drops.add(Drop::Storm, 77);
    let tally: &'static Tally = Box::leak(Box::new(Tally { links: vec![link], drops, ..Tally::default() }));
    let foreign = TlsFacts { exporter: [1; 32], identity: None, subject: Some("CN=proxy".into()) };
    let mut events = vec![
        Event::Start,
        Event::Entropy(&[5; 32]),
        Event::Alarm,
        Event::Opened { conn: ConnId(2), tls: foreign, local: v4, remote: v6 },
        Event::Accepted { conn: ConnId(3), exporter: [2; 32], local: v6, remote: v4 },
        Event::Message { conn: ConnId(4), handle: None, bytes: Vec::leak(vec![]) },
        Event::Message { conn: ConnId(4), handle: Some(Handle(5)), bytes: Vec::leak(vec![1, 2, 3]) },
        Event::Listening { port: None },
        Event::Listening { port: Some(443) },
        Event::Interfaces(Vec::leak(vec![(v4.ip(), 24), (v6.ip(), 64)])),
        Event::Sockets { v4: Some(5_000), v6: None },
        Event::Datagram { remote: v6, bytes: Vec::leak(vec![0x25, 0]) },
        Event::PortMapped(&[]),
        Event::PortMapped(Vec::leak(vec![
            mapping(MappingProtocol::Pcp, Transport::Udp, v6),
            mapping(MappingProtocol::NatPmp, Transport::Wss, v4),
            mapping(MappingProtocol::Upnp, Transport::Udp, v4),
        ])),
        Event::Examine,
        Event::Report(Report { link: LinkId(1), what: crate::plane::Noticed::Wanted }),
        Event::Report(Report { link: LinkId(1), what: crate::plane::Noticed::Stalled { path: PathId(2), pto: Duration::from_millis(7) } }),
        Event::Report(Report { link: LinkId(1), what: crate::plane::Noticed::Roamed { remote: v6 } }),
        Event::Tally(tally),
        Event::Ping { peer: PeerId([3; 32]), id: 9, payload: vec![1, 2] },
        Event::Members {
            members: vec![Member { id: PeerId([4; 32]), name: Some("x".to_owned()), allowed: vec![(v4.ip(), 24)], endpoints: vec![v4] }],
            revoked: vec![PeerId([5; 32])],
        },
        Event::Tune(Tuning {
            retry_interval: Duration::from_secs(9),
            health_check_interval: Duration::from_secs(8),
            connect_timeout: Duration::from_secs(7),
            close_relay: true,
        }),
        Event::Succeed(statement()),
        Event::Leave,
    ];
    events.extend(ends.map(|why| Event::Closed { conn: ConnId(1), why }));
    events.extend(outcomes().into_iter().map(|outcome| Event::Computed(Done { ticket: Ticket(4), outcome })));
    events
}
