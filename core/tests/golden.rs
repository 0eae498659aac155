//! The bytes of each message of the protocol, made from fixed inputs with the deterministic back end, against the files in
//! `golden/`. A difference means that the wire has changed: peers of the version before would not understand it.
//!
//! After a change that is meant (docs/protocol.md says what it is), write them anew and look at the difference:
//!
//! ```text
//! GOLDEN=renew cargo test -p shadowmesh-core --test golden && git diff core/tests/golden
//! ```
#![expect(clippy::disallowed_methods, reason = "the files are data of this test alone")]
use shadowmesh_core::{
    binding::{open_bind, open_bound, seal_bind, seal_bound},
    crypto::{Identity, rustcrypto::RustCrypto},
    fragments::{Arrived, Door, FragmentKey, cookie_of},
    handshake::{Answer, Concluded, Job, Offer, Outcome, REKEY_LEN, RekeyOffer, Setup, Ticket, Work},
    id::{Handle, PathId, PeerId},
    network::{Network, RelayAddress},
    rehandshake::{Answerer, Asker, Ground},
    session::{Chain, Side, Suite},
    succession::Statement,
    time::Instant,
    wire::{
        Bind, Bound, Candidate, CandidateKind, CookieReply, Counter, DirectoryEntry, Established, FRAME_OVERHEAD, Fragment, FragmentKind,
        FrameHeader, INNER_CONTROL, INNER_IP, INNER_KEEPALIVE, LANE_CONTROL_BIT, LANE_NODE, LaneControl, NodeControl, Params, PathLabel,
        PeerMessage, RECORD_FLAG_URGENT, Receipt, ReceiptMask, Record, RelayMessage, SUCCESSION_PART_LEN, TYPE_DLV, TYPE_FWD, Transport,
    },
};
use std::{collections::BTreeSet, fmt::Write as _, path::Path, sync::Arc};
use zeroize::Zeroizing;

/// Bytes in a line of a file.
const LINE: usize = 32;

#[test]
fn the_bytes_of_each_message_stand_in_the_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let renew = std::env::var("GOLDEN").is_ok_and(|wish| wish == "renew");
    let messages = all();
    let mut wrong = Vec::new();
    for (name, bytes) in &messages {
        let file = folder.join(format!("{name}.hex"));
        if renew {
            std::fs::write(&file, to_text(bytes)).expect("the folder is there");
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        if from_text(&kept) != *bytes {
            wrong.push(name.clone());
        }
    }
    assert!(wrong.is_empty(), "other bytes than in core/tests/golden: {wrong:?}; this file says how to renew them");
    let listed: BTreeSet<String> = messages.iter().map(|(name, _)| format!("{name}.hex")).collect();
    let found: BTreeSet<String> = std::fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, listed, "each file is the bytes of one message, and each message has its file");
}

/// Every message, and whether parsing gives back what was emitted is asked where it is made.
fn all() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| all.push((name.to_owned(), bytes));
    let chain = handshake(&mut add, "client-relay", &Setup::client_relay([0xcb; 32]), [Suite::ChaCha20Poly1305; 2], relay_params());
    bind(&mut add, &chain);
    frame(&mut add, "frame-established", &chain, Side::Responder, LANE_NODE, INNER_CONTROL, &established());
    let suites = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let chain = handshake(&mut add, "peer-peer", &Setup::peer_peer(&network()), suites, peer_params());
    fragments(&mut add, &Setup::peer_peer(&network()));
    frame(&mut add, "frame-ip", &chain, Side::Initiator, 0, INNER_IP, b"\x45 one packet");
    frame(&mut add, "frame-keepalive", &chain, Side::Responder, LANE_NODE, INNER_KEEPALIVE, &[]);
    let switch = emitted(|out| switch().emit(out));
    frame(&mut add, "frame-switch", &chain, Side::Initiator, LANE_CONTROL_BIT, INNER_CONTROL, &switch);
    rekey(&mut add, &chain);
    path(&mut add, &chain);
    lane_control(&mut add);
    node_control(&mut add);
    peer_messages(&mut add);
    relay_messages(&mut add);
    records(&mut add);
    add("params", emitted(|out| full_params().emit(out)));
    assert_eq!(Params::parse(&emitted(|out| full_params().emit(out))), Ok(full_params()));
    let token = network().token().expect("within the limits");
    assert_eq!(Network::from_token(&token).expect("our own token").secret, network().secret);
    add("token", token.into_bytes());
    all
}

type Add<'a> = dyn FnMut(&str, Vec<u8>) + 'a;

/// INIT, RESP and FIN of one use; gives the chain.
fn handshake(add: &mut Add<'_>, name: &str, setup: &Setup, suites: [Suite; 2], params: Params) -> Arc<Chain> {
    let offer = offer(setup, suites);
    let answer = answer(setup, offer.init(), suites);
    let concluded = conclude(setup, &offer, answer.resp(), params);
    add(&format!("init-{name}"), offer.init().to_vec());
    add(&format!("resp-{name}"), answer.resp().to_vec());
    add(&format!("fin-{name}"), concluded.fin.clone());
    let work = Work::Verify { identity: bob(), answer, fin: concluded.fin };
    let Outcome::Verified(Ok(verified)) = run(work) else { panic!("the responder verifies FIN") };
    assert_eq!(verified.chain.session_id(), concluded.chain.session_id());
    concluded.chain
}

fn offer(setup: &Setup, suites: [Suite; 2]) -> Arc<Offer> {
    let mut suites = suites.to_vec();
    suites.dedup();
    let work = Work::Offer { setup: setup.clone(), responder: bob().id(), sid: 0x1111_0001, suites, coins: coins(1) };
    let Outcome::Offered(offer) = run(work) else { panic!("an offer cannot fail") };
    offer
}

fn answer(setup: &Setup, init: &[u8], suites: [Suite; 2]) -> Arc<Answer> {
    let work = Work::Answer {
        setup: setup.clone(),
        identity: bob(),
        init: init.to_vec(),
        sid: 0x2222_0002,
        suites: suites.to_vec(),
        params: Params { name: Some("bob".to_owned()), ..Params::default() },
        coins: coins(2),
    };
    let Outcome::Answered(Ok(answer)) = run(work) else { panic!("INIT is good") };
    answer
}

fn conclude(setup: &Setup, offer: &Arc<Offer>, resp: &[u8], params: Params) -> Concluded {
    let work = Work::Conclude {
        setup: setup.clone(),
        identity: alice(),
        responder: bob().id(),
        offer: Arc::clone(offer),
        resp: resp.to_vec(),
        params,
        coins: Zeroizing::new([3; 32]),
    };
    let Outcome::Concluded(Ok(concluded)) = run(work) else { panic!("RESP is good") };
    concluded
}

/// A first fragment, the answer to it by a fixed secret, and the last fragment of INIT under the cookie.
fn fragments(add: &mut Add<'_>, setup: &Setup) {
    let mac1 = setup.mac1_key(bob().id());
    let (init, sid) = (offer(setup, [Suite::ChaCha20Poly1305; 2]).init().to_vec(), 0x1111_0001);
    let asked = FragmentKey::first(&mac1).cut(FragmentKind::Init, sid, &init).swap_remove(0);
    let taken =
        Door::default().take(Instant::ZERO, &mac1, socket("192.0.2.7:40000"), &Fragment::parse(&asked).expect("our own fragment"), || {
            Zeroizing::new([0x5e; 32])
        });
    let Ok(Arrived::Asked(reply)) = taken else { panic!("a good first fragment is answered") };
    let cookie = cookie_of(&mac1, &asked, &CookieReply::parse(&reply).expect("our own reply")).expect("its mac holds");
    let last = FragmentKey::with_cookie(&mac1, &cookie).cut(FragmentKind::Init, sid, &init).pop().expect("two fragments");
    add("fragment-first", asked);
    add("cookie-reply", reply);
    add("fragment-last", last);
}

/// REKEY1 and REKEY2, and a frame of the new epoch.
fn rekey(add: &mut Add<'_>, chain: &Arc<Chain>) {
    let Outcome::RekeyOffered(offer) = run(Work::RekeyOffer { epoch: 1, coins: coins(4) }) else { panic!("an offer cannot fail") };
    let offer: Arc<RekeyOffer> = offer;
    let rekey1 = offer.rekey1().to_vec();
    let work = Work::RekeyAnswer { epoch: 1, rekey1: rekey1.clone(), chain: Arc::clone(chain), coins: coins(5) };
    let Outcome::RekeyAnswered(Ok((rekey2, next))) = run(work) else { panic!("REKEY1 is good") };
    let (x25519, mlkem_ek) = split(&rekey1);
    peer(add, "rekey1", &PeerMessage::Rekey1 { epoch: 1, x25519, mlkem_ek });
    let (x25519, mlkem_ct) = split(&rekey2);
    peer(add, "rekey2", &PeerMessage::Rekey2 { epoch: 1, x25519, mlkem_ct });
    frame(add, "frame-epoch-1", &next, Side::Responder, 0, INNER_IP, b"\x45 sealed in epoch 1");
}

fn split(rekey: &[u8]) -> ([u8; 32], Vec<u8>) {
    assert_eq!(rekey.len(), REKEY_LEN);
    (rekey[..32].try_into().expect("32 bytes"), rekey[32..].to_vec())
}

/// `PATH_REQ`, `PATH_RSP` and `PATH_CMP`.
fn path(add: &mut Add<'_>, chain: &Chain) {
    let ground = |own_sid, peer_sid| Ground { path: PathId(2), own_sid, peer_sid, channel_binding: [0xcb; 32] };
    let keys = [Side::Initiator, Side::Responder].map(|side| chain.keys(side, &RustCrypto).path);
    let (mut asker, mut answerer) = (Asker::new(ground(0x1111_0001, 0x2222_0002)), Answerer::new(ground(0x2222_0002, 0x1111_0001)));
    let request = asker.request(&keys[0], socket("192.0.2.7:40000"), 5, [0xa1; 32], 0);
    let response = answerer.answer(&keys[1], &request, socket("[2001:db8::7]:443"), 9, [0xb2; 32]).expect("a good request");
    let (complete, _) = asker.complete(&keys[0], &response, socket("192.0.2.7:40000"), 6).expect("a good response");
    answerer.confirm(&keys[1], &complete).expect("a good completion");
    add("path-request", request);
    add("path-response", response);
    add("path-complete", complete);
}

fn bind(add: &mut Add<'_>, chain: &Chain) {
    let [client, relay] = [Side::Initiator, Side::Responder].map(|side| chain.keys(side, &RustCrypto).path);
    let bind = Bind { receiver: 0x2222_0002, nonce: [0xa1; 8] };
    let address = socket("192.0.2.7:40000");
    let bound = Bound { receiver: 0x1111_0001, nonce: [0xa1; 8], address, other_port: 8_444, ticket: [0x7e; 16] };
    let (question, answer) = (seal_bind(&client, &bind), seal_bound(&relay, &bound));
    assert_eq!((open_bind(&relay, &question), open_bound(&client, &answer)), (Ok(bind), Ok(bound)));
    add("bind", question.to_vec());
    add("bound", answer.to_vec());
}

fn switch() -> LaneControl {
    LaneControl::Switch { lane: 0, generation: 1, start: 0x0102_0304, from: PathId::RELAY, to: PathId(2) }
}

fn lane_control(add: &mut Add<'_>) {
    let receipt = Receipt {
        lane: 0,
        generation: 1,
        floor: 0x0102_0300,
        next: 0x0102_0390,
        path: PathId(2),
        delay_us: 20_000,
        lost: 2,
        mask: ReceiptMask::from_words(&[0b1_0000, 0, 1 << 15]),
    };
    let drain = LaneControl::Drain { lane: 0, generation: 1, start: 0x0102_0304, path: PathId::RELAY };
    for (name, message) in [("switch", switch()), ("drain", drain), ("receipt", LaneControl::Receipt(receipt))] {
        let bytes = emitted(|out| message.emit(out));
        assert_eq!(LaneControl::parse(&bytes), Ok(message), "{name}");
        add(name, bytes);
    }
}

fn node_control(add: &mut Add<'_>) {
    let messages = [
        ("stream", NodeControl::Stream { offset: 0x0102, bytes: vec![9, 8, 7] }),
        ("ack", NodeControl::Ack { offset: 0x0105 }),
        ("ping", NodeControl::Ping { id: 5, payload: vec![1, 2] }),
        ("pong", NodeControl::Pong { id: 5, heard: PathLabel::DirectWss, payload: vec![1, 2] }),
    ];
    for (name, message) in messages {
        let bytes = emitted(|out| message.emit(out));
        assert_eq!(NodeControl::parse(&bytes), Ok(message), "{name}");
        add(name, bytes);
    }
}

fn peer_messages(add: &mut Add<'_>) {
    let candidate = |kind, transport, address: &str, priority| Candidate { kind, transport, address: socket(address), priority };
    let candidates = vec![
        candidate(CandidateKind::Host, Transport::Wss, "192.168.1.20:40112", 100),
        candidate(CandidateKind::Observed, Transport::Wss, "[2001:db8::7]:443", 60),
        candidate(CandidateKind::PortMapped, Transport::Udp, "198.51.100.4:1024", 40),
        candidate(CandidateKind::Configured, Transport::Wss, "203.0.113.9:443", 120),
    ];
    peer(add, "candidates", &PeerMessage::Candidates { generation: 6, candidates });
    peer(add, "rekey-please", &PeerMessage::RekeyPlease);
    peer(add, "close", &PeerMessage::Close { reason: 1 });
    succession(add);
    let params = emitted(|out| Params { mtu: Some(1280), ..Params::default() }.emit(out));
    peer(add, "update", &PeerMessage::Update { params });
}

/// The statement that one identity follows another, the last of its parts, and the answer.
fn succession(add: &mut Add<'_>) {
    let statement = Statement::make(&alice(), &bob(), &RustCrypto, [&[7; 32], &[8; 32]]);
    let read = Statement::parse(statement.bytes()).expect("its own layout");
    assert!(read.verify(&RustCrypto).is_some_and(|proven| (proven.old(), proven.new_id()) == (alice().id(), bob().id())));
    let parts = statement.bytes().chunks(SUCCESSION_PART_LEN).zip(0..);
    let (last, place) = parts.last().expect("a statement has bytes");
    peer(add, "succession-last", &PeerMessage::Succession { place, bytes: last.to_vec() });
    peer(add, "taken", &PeerMessage::Taken { new: bob().id() });
    add("succession", statement.bytes().to_vec());
}

fn peer(add: &mut Add<'_>, name: &str, message: &PeerMessage) {
    let bytes = emitted(|out| message.emit(out));
    assert_eq!(PeerMessage::parse(&bytes).as_ref(), Ok(message), "{name}");
    add(name, bytes);
}

fn established() -> Vec<u8> {
    let established = Established {
        session_id: [0x5e; 16],
        your_handle: Handle(0x0a0b),
        observed: socket("198.51.100.7:51820"),
        keepalive_s: 25,
        max_frame: 9216,
        window: 256,
        udp_port: 0,
        entries: entries(),
    };
    emitted(|out| RelayMessage::Established(established).emit(out))
}

fn entries() -> Vec<DirectoryEntry> {
    let entry = |handle, peer, public: Option<&str>, supports_direct, online| DirectoryEntry {
        handle: Handle(handle),
        peer: PeerId([peer; 32]),
        public: public.map(socket),
        supports_direct,
        online,
    };
    vec![
        entry(7, 0x11, Some("192.0.2.9:1000"), true, true),
        entry(8, 0x22, Some("[2001:db8::9]:2000"), false, true),
        entry(9, 0x33, None, true, true),
        entry(10, 0x44, None, false, false),
    ]
}

fn relay_messages(add: &mut Add<'_>) {
    let bytes = established();
    assert!(matches!(RelayMessage::parse(&bytes), Ok(RelayMessage::Established(_))));
    add("established", bytes);
    let messages = [
        ("directory", RelayMessage::Directory { entries: entries() }),
        ("relay-ping", RelayMessage::Ping { id: 7 }),
        ("relay-pong", RelayMessage::Pong { id: 7 }),
        ("lookup", RelayMessage::Lookup { peer: PeerId([0x33; 32]) }),
        ("relay-close", RelayMessage::Close { reason: 6 }),
        ("peer-update", RelayMessage::Update { flags: 3, udp_port: 4443 }),
        ("go-away", RelayMessage::GoAway { within_s: 10 }),
        ("attach", RelayMessage::Attach { address: "203.0.113.7:41022".parse().expect("an address"), ticket: [0x7e; 16] }),
        ("route", RelayMessage::Route { receiver: 0x0102_0304, to: Handle(5) }),
    ];
    for (name, message) in messages {
        let bytes = emitted(|out| message.emit(out));
        assert_eq!(RelayMessage::parse(&bytes), Ok(message), "{name}");
        add(name, bytes);
    }
}

fn records(add: &mut Add<'_>) {
    for (name, kind, flags) in [("record-forward", TYPE_FWD, RECORD_FLAG_URGENT), ("record-deliver", TYPE_DLV, 0)] {
        add(name, emitted(|out| Record { kind, flags, handle: Handle(0x0a0b), payload: b"payload" }.emit(out)));
    }
}

fn frame(add: &mut Add<'_>, name: &str, chain: &Chain, side: Side, lane: u8, inner: u8, body: &[u8]) {
    let keys = [side, side.other()].map(|side| chain.keys(side, &RustCrypto));
    let counter = Counter::new(lane, 0x0102_0304_0506);
    let header = FrameHeader { epoch: chain.epoch() as u8, generation: 3, receiver: 0x2222_0002, counter };
    let mut frame = vec![0; FRAME_OVERHEAD + body.len()];
    frame[16] = inner;
    frame[17..17 + body.len()].copy_from_slice(body);
    keys[0].seal.seal(header, &mut frame);
    let opened = keys[1].open.open(&mut frame.clone()).map(|plain| plain.to_vec());
    assert_eq!(opened, Ok([&[inner], body].concat()), "{name}");
    add(name, frame);
}

fn peer_params() -> Params {
    Params {
        name: Some("alice".to_owned()),
        addresses: vec!["10.77.0.1".parse().expect("an address")],
        mtu: Some(1400),
        ..Params::default()
    }
}

fn relay_params() -> Params {
    Params { net_r: Some([0x4e; 32]), supports_direct: true, ..peer_params() }
}

fn full_params() -> Params {
    Params {
        name: Some("a.b_c-9".to_owned()),
        addresses: ["10.77.0.1", "fd77::1"].map(|text| text.parse().expect("an address")).to_vec(),
        mtu: Some(1400),
        layer2: true,
        net_r: Some([0x4e; 32]),
        supports_direct: true,
        withhold_address: true,
        version: Some("shadowmesh 0.1".to_owned()),
        udp_port: Some(4443),
        pass: None,
        lanes: Some(4),
    }
}

fn network() -> Network {
    let relay = RelayAddress::new("wss://relay.example:4443", Some(PeerId([0x7e; 32]))).expect("a good address");
    let spare = RelayAddress::new("wss://192.0.2.1:443", None).expect("a good address");
    Network::new([0x42; 32], "home", vec![relay, spare]).expect("within the limits")
}

fn alice() -> Arc<Identity> {
    Arc::new(Identity::from_seed([0xa1; 32]))
}

fn bob() -> Arc<Identity> {
    Arc::new(Identity::from_seed([0xb0; 32]))
}

fn coins(start: u8) -> Zeroizing<[u8; 96]> {
    Zeroizing::new(core::array::from_fn(|i| start.wrapping_mul(31).wrapping_add(i as u8)))
}

fn run(work: Work) -> Outcome {
    Job { ticket: Ticket(0), work }.run(&RustCrypto).outcome
}

fn socket(text: &str) -> core::net::SocketAddr {
    text.parse().expect("an address with a port")
}

fn emitted(emit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    emit(&mut out);
    out
}

fn to_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(LINE) {
        for byte in line {
            write!(text, "{byte:02x}").expect("a string takes all");
        }
        text.push('\n');
    }
    text
}

fn from_text(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte * 16 + digit) as u8).collect()
}
