//! A relay in each state of its connection that says what it should not say then, or no.
use super::*;
use crate::{
    crypto::{Identity, awslc::AwsLc, rustcrypto::RustCrypto},
    event::{Action, Ended},
    handshake::{Answer, Job},
    session::{Chain, EpochKeys, Suite},
    wire::{CLOSE_OVERLOAD, CLOSE_REFUSED, INNER_KEEPALIVE},
};
use zeroize::Zeroizing;

const CONN: ConnId = ConnId(0);

/// One uplink, and the relay's end of its session.
struct World {
    room: Room,
    uplink: Uplink,
    relay: NodeLane,
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn end() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 443))
}

fn identity() -> Arc<Identity> {
    Arc::new(Identity::from_seed([7; 32]))
}

fn keys(side: Side) -> EpochKeys {
    Chain::start(Zeroizing::new([1; 64]), Suite::ChaCha20Poly1305).keys(side, &RustCrypto)
}

fn greeting(step: Step) -> State {
    let (setup, relay) = (Setup::client_relay([4; 32]), identity().id());
    State::Greeting(Box::new(Greeting { conn: CONN, relay, setup, sid: 2, ends: (end(), end()), until: at(10_000), step, subject: None }))
}

impl World {
    fn new(state: State) -> Self {
        let relay = RelayAddress::new("wss://relay.example", Some(identity().id())).expect("a good URL");
        let mut uplink = Uplink::new(0, &relay);
        uplink.state = state;
        Self { room: crate::link::tests::room(Vec::new()), uplink, relay: NodeLane::new(keys(Side::Responder), 2) }
    }

    /// RESPONSE is out, ESTABLISHED is to come.
    fn confirming() -> Self {
        Self::new(greeting(Step::Confirming(NodeLane::new(keys(Side::Initiator), 1))))
    }

    fn up() -> Self {
        let mut world = Self::confirming();
        assert!(world.says(&RelayMessage::Established(established())).up);
        world.actions();
        world
    }

    fn frame(&mut self, inner: u8, body: &[u8]) -> News {
        let mut bytes = self.relay.seal(inner, |out| out.extend_from_slice(body));
        self.uplink.message(at(5_000), &mut self.room, &mut bytes)
    }

    fn says(&mut self, message: &RelayMessage) -> News {
        let mut body = Vec::new();
        message.emit(&mut body);
        self.frame(INNER_CONTROL, &body)
    }

    fn actions(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.room.drain(usize::MAX, &mut actions);
        actions
    }

    /// Why the relay was given up since this was last asked.
    fn lost(&mut self) -> Option<String> {
        self.actions().into_iter().find_map(|action| if let Action::Note(Note::RelayLost { why, .. }) = action { Some(why) } else { None })
    }

    fn job(&mut self) -> Job {
        let jobs = self.actions().into_iter().filter_map(|action| if let Action::Compute(job) = action { Some(job) } else { None });
        jobs.last().expect("a job")
    }

    fn dropped(&self, reason: Drop) -> u64 {
        self.room.drops.get(reason)
    }
}

fn established() -> Established {
    Established {
        session_id: [0; 16],
        your_handle: Handle(3),
        observed: end(),
        keepalive_s: 20,
        max_frame: 1_500,
        window: 256,
        udp_port: 0,
        entries: Vec::new(),
    }
}

/// What only a client says.
fn words_of_clients() -> [RelayMessage; 5] {
    [
        RelayMessage::Established(established()),
        RelayMessage::Lookup { peer: PeerId([1; 32]) },
        RelayMessage::Update { flags: 0, udp_port: 0 },
        RelayMessage::Attach { address: end(), ticket: [0; 16] },
        RelayMessage::Route { receiver: 1, to: Handle(2) },
    ]
}

// protocol 6.8
#[test]
fn a_relay_that_refuses_or_ends_it_is_given_up_with_its_reason_in_words() {
    for (mut world, begin) in [(World::confirming(), "the relay refused us: "), (World::up(), "closed by the relay: ")] {
        let code = if begin.contains("refused") { CLOSE_REFUSED } else { CLOSE_OVERLOAD };
        assert!(world.says(&RelayMessage::Close { reason: code }).lost);
        assert_eq!(world.lost(), Some(format!("{begin}{}", meaning(code))));
        assert!(world.uplink.deadline().is_some_and(|retry| retry > at(5_000)), "it is tried again later");
        assert!(!world.frame(INNER_CONTROL, &[0x45, 0]).lost, "what still comes is not looked at");
    }
}

// protocol 6.5
#[test]
fn nothing_but_established_confirms_a_session_with_a_relay() {
    let mut world = World::confirming();
    world.says(&RelayMessage::Ping { id: 1 });
    world.frame(INNER_KEEPALIVE, b"");
    assert_eq!(world.dropped(Drop::Unexpected), 2);
    world.frame(INNER_CONTROL, &[0xee]);
    world.uplink.message(at(5_000), &mut world.room, &mut [TYPE_FRAME, 0]);
    assert_eq!(world.dropped(Drop::Malformed), 2);
    world.uplink.message(at(5_000), &mut world.room, &mut [TYPE_RESP, 0]);
    assert_eq!(world.dropped(Drop::Unexpected), 3, "CHALLENGE came already");
    let mut altered = world.relay.seal(INNER_CONTROL, |out| RelayMessage::Established(established()).emit(out));
    altered[20] ^= 1;
    world.uplink.message(at(5_000), &mut world.room, &mut altered);
    assert_eq!(world.dropped(Drop::Forged), 1);
    assert!(world.uplink.up().is_none());
    assert!(world.says(&RelayMessage::Established(established())).up, "and nothing of it was in the way");
}

// protocol 6.4, 6.5
#[test]
fn a_relay_that_asks_is_answered_and_what_only_clients_say_is_dropped() {
    let mut world = World::up();
    assert!(!world.says(&RelayMessage::Ping { id: 77 }).lost);
    let [Action::Send { conn: CONN, bytes }] = &world.actions()[..] else { panic!("one message") };
    let mut bytes = bytes.clone();
    assert_eq!(open(at(5_000), &mut world.relay, &mut bytes), Ok(RelayMessage::Pong { id: 77 }));
    for (count, message) in words_of_clients().iter().enumerate() {
        world.says(message);
        assert_eq!(world.dropped(Drop::Unexpected), 1 + count as u64, "{message:?}");
    }
    world.says(&RelayMessage::Pong { id: 1 });
    assert_eq!(world.uplink.status().rtt, None, "no ping was sent");
    world.frame(0x7f, b"");
    assert_eq!((world.dropped(Drop::Unexpected), world.uplink.up().is_some()), (6, true));
}

// protocol 6.6
#[test]
fn a_relay_that_tells_of_more_members_than_anybody_has_is_not_remembered_without_end() {
    let mut world = World::up();
    let entry = |number: u32| DirectoryEntry {
        handle: Handle(number),
        peer: PeerId(core::array::from_fn(|at| number.to_be_bytes().get(at).copied().unwrap_or(1))),
        public: None,
        supports_direct: true,
        online: true,
    };
    let told: Vec<_> = (0..9_000).map(entry).collect();
    let heard: usize =
        told.chunks(256).map(|entries| world.says(&RelayMessage::Directory { entries: entries.to_vec() }).presences.len()).sum();
    assert_eq!((heard, world.dropped(Drop::Control)), (8_192, 9_000 - 8_192));
}

// protocol 3.1
#[test]
fn a_challenge_that_is_altered_costs_nothing_and_one_that_is_forged_ends_the_attempt() {
    for is_forged in [false, true] {
        let mut world = World::new(State::Dialling { conn: CONN, until: at(9_000) });
        let tls = TlsFacts { exporter: [4; 32], identity: Some(identity().id()), subject: None };
        world.uplink.opened(at(1_000), &mut world.room, &tls, (end(), end()));
        let done = world.job().run(&AwsLc);
        world.uplink.computed(at(1_000), &mut world.room, done.ticket, done.outcome);
        let mut resp = challenge(&mut world).resp().to_vec();
        let maced = resp.len() - 16;
        resp[maced - 1] ^= 1;
        if !is_forged {
            world.uplink.message(at(2_000), &mut world.room, &mut resp);
            assert_eq!(world.dropped(Drop::Forged), 1);
            assert!(world.uplink.deadline() == Some(at(9_000)), "the right one may still come");
            continue;
        }
        // the key of mac1 is no secret on the way to a relay
        let mac1 = Setup::client_relay([4; 32]).mac1_key(identity().id()).hmac().mac(&[&resp[..maced]]);
        resp[maced..].copy_from_slice(&mac1[..16]);
        world.uplink.message(at(2_000), &mut world.room, &mut resp);
        let done = world.job().run(&AwsLc);
        world.uplink.computed(at(2_000), &mut world.room, done.ticket, done.outcome);
        assert!(world.lost().is_some_and(|why| why.starts_with("handshake: ")));
        assert!(world.room.sids.is_empty());
    }
}

// protocol 2.7
#[test]
fn a_relay_that_wants_an_access_token_is_shown_what_is_of_use_there_alone() {
    let token = AccessKey::of("letmein");
    for access in [None, Some(token.clone())] {
        let mut world = World::new(State::Dialling { conn: CONN, until: at(9_000) });
        world.uplink.access.clone_from(&access);
        let tls = TlsFacts { exporter: [4; 32], identity: Some(identity().id()), subject: None };
        world.uplink.opened(at(1_000), &mut world.room, &tls, (end(), end()));
        let done = world.job().run(&AwsLc);
        world.uplink.computed(at(1_000), &mut world.room, done.ticket, done.outcome);
        let mut resp = challenge(&mut world).resp().to_vec();
        world.uplink.message(at(2_000), &mut world.room, &mut resp);
        let Work::Conclude { params, .. } = world.job().work else { panic!("FIN is made") };
        assert_eq!(params.pass, access.map(|token| token.pass(identity().id())));
        assert_ne!(params.pass, Some(token.pass(PeerId([9; 32]))));
    }
}

/// What the relay answers to the INIT that is out.
fn challenge(world: &mut World) -> Arc<Answer> {
    let sent = world.actions().into_iter().find_map(|action| if let Action::Send { bytes, .. } = action { Some(bytes) } else { None });
    let work = Work::Answer {
        setup: Setup::client_relay([4; 32]),
        identity: identity(),
        init: sent.expect("INIT is out"),
        sid: 1,
        suites: vec![Suite::ChaCha20Poly1305],
        params: Params::default(),
        coins: Zeroizing::new([6; 96]),
    };
    let Outcome::Answered(Ok(answer)) = (Job { ticket: Ticket(0), work }).run(&AwsLc).outcome else { panic!("a good INIT") };
    answer
}

#[test]
fn a_handshake_from_an_address_that_is_gone_is_given_up_and_one_that_stands_alone_waits() {
    let mut world = World::confirming();
    assert!(!world.uplink.moved(at(5_000), &mut world.room, &["192.0.2.9".parse().expect("an address")], true));
    assert_eq!(world.lost(), None);
    assert!(!world.uplink.moved(at(5_000), &mut world.room, &[end().ip()], false), "it did not stand yet");
    assert!(world.lost().is_some_and(|why| why.contains("our address is gone")));
    assert!(!world.uplink.closed(at(6_000), &mut world.room, &Ended::Reset));
}
