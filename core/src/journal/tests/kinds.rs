//! Each kind of event and of action, of a peer and of a relay: its bytes, its words, and what is refused.
use super::*;
use crate::{
    config::{Mode, Transports},
    event::{Note, Target},
    hub::{self, ForwardEdit, HubNote},
    network::AccessKey,
    plane::{Noticed, Via},
};
use core::net::IpAddr;
use std::collections::BTreeSet;

#[test]
fn each_event_of_a_relay_is_read_back_as_it_was_written() {
    let mut kinds = BTreeSet::new();
    for event in relay_events() {
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        Hub::put_event(&event, &mut once);
        let (mut body, mut loan) = (once.clone(), Loan::default());
        let read = Hub::take_event(&mut body, &mut loan).expect("what was written can be read");
        assert_eq!(Hub::tell_event(&read), Hub::tell_event(&event));
        Hub::put_event(&read, &mut twice);
        assert_eq!(once, twice, "{}", Hub::tell_event(&event));
        kinds.insert(once[0]);
    }
    assert_eq!(kinds.len(), Hub::EVENTS.len(), "each kind is tried");
}

#[test]
fn an_event_that_ends_too_early_is_refused() {
    for event in peer_events() {
        // what a message holds is all that follows its head
        let free = if let Event::Message { bytes, .. } | Event::Datagram { bytes, .. } = &event { bytes.len() } else { 0 };
        let mut body = Vec::new();
        Node::put_event(&event, &mut body);
        for end in cuts(body.len() - free) {
            let read = Node::take_event(&mut body[..end].to_vec(), &mut Loan::default()).is_ok();
            assert!(!read, "{} of {} bytes: {}", end, body.len(), Node::tell_event(&event));
        }
    }
    for event in relay_events() {
        let free = match &event {
            HubEvent::Message { bytes, .. } => bytes.len(),
            HubEvent::Datagram { bytes, .. } => bytes.len(),
            _ => 0,
        };
        let mut body = Vec::new();
        Hub::put_event(&event, &mut body);
        for end in cuts(body.len() - free) {
            let read = Hub::take_event(&mut body[..end].to_vec(), &mut Loan::default()).is_ok();
            assert!(!read, "{} of {} bytes: {}", end, body.len(), Hub::tell_event(&event));
        }
    }
}

#[test]
fn a_configuration_is_read_back_whole_or_not_at_all() {
    let access = Some(AccessKey::of("letmein"));
    let relay = RelayAddress::new("wss://192.0.2.1", Some(identity(2).id())).expect("a good URL").with_access(access.clone());
    let peer = NodeConfig {
        network: Network::new([5; 32], "net", vec![relay]).expect("a good network"),
        suites: vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
        addresses: vec![(at("10.0.0.1:0").ip(), 24), (at("[fd00::1]:0").ip(), 64)],
        direct: Transports { udp: true, wss: false },
        mode: Mode::Redundant,
        advertise: vec![at("[2001:db8::1]:443")],
        members: vec![Member { id: PeerId([4; 32]), name: None, allowed: vec![], endpoints: vec![at("192.0.2.9:5")] }],
        revoked: vec![PeerId([3; 32])],
        ..config(Arc::new(RustCrypto))
    };
    let allowed = Access { allow: vec![(at("10.0.0.0:0").ip(), 8)], keys: access.into_iter().collect(), ..Access::default() };
    let relay = HubConfig { access: allowed, udp_ports: [Some(1), None], ..HubConfig::new(identity(2), Arc::new(RustCrypto)) };
    read_back::<Node>(&peer);
    read_back::<Hub>(&relay);
}

fn read_back<M: Recorded>(config: &M::Config) {
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    M::put_config(config, &mut once);
    let read = M::take_config(&mut Reader::new(&once)).unwrap_or_else(|wrong| panic!("{wrong}"));
    M::put_config(&read, &mut twice);
    assert_eq!(once, twice, "the configuration of a {}", M::NAME);
    for end in cuts(once.len()) {
        assert!(M::take_config(&mut Reader::new(&once[..end])).is_err(), "{end} of {} bytes of a {}", once.len(), M::NAME);
    }
}

#[test]
fn a_choice_that_nobody_knows_is_refused() {
    fn refused<T: Field>(bytes: &[u8], what: &str) {
        assert_eq!(T::take(&mut Reader::new(bytes)).err().map(|wrong| wrong.0), Some(what), "{bytes:?}");
    }
    refused::<bool>(&[2], "bool");
    refused::<Option<u8>>(&[2, 7], "bool");
    refused::<Mode>(&[4], "mode");
    refused::<Noticed>(&[3], "report");
    refused::<Ended>(&[11], "end of a connection");
    refused::<Transport>(&[2], "transport");
    refused::<MappingProtocol>(&[3], "port mapping protocol");
    refused::<IpAddr>(&[5, 1, 2, 3, 4], "address family");
    refused::<Suite>(&[0, 0], "suite");
    refused::<Duration>(&[0, 0, 0, 0, 0, 0, 0, 1, 0x3b, 0x9a, 0xca, 0], "nanoseconds");
    refused::<Outcome>(&[7], "outcome");
    refused::<Outcome>(&[3, 9], "result");
    refused::<String>(&[0, 0, 0, 1, 0xff], "text");
    refused::<Vec<u64>>(&[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0], "list");
}

#[test]
fn each_action_of_a_peer_has_its_kind_and_its_words() {
    let long = PeerId([0x5a; 32]);
    let id = long.short();
    let chain = chain(1, 7);
    let keys = || chain.keys(Side::Initiator, &RustCrypto);
    let install = || {
        Box::new(Install {
            session: chain.session_id(),
            local: 0xab,
            remote: 2,
            keys: keys(),
            main: PathId::RELAY,
            lanes: 1,
            slabs: Slabs::default(),
        })
    };
    let (conn, link, path, remote) = (ConnId(4), LinkId(3), PathId(2), at("192.0.2.9:5000"));
    let relay = Target::Relay { index: 1, url: "wss://relay.example".into(), pin: None };
    let direct = Target::Direct { address: remote, pin: long };
    let timeout = Duration::from_secs(1);
    let via = Via { conn, handle: None };
    let refused = |who| Note::Refused { who, what: "it lies".into() };
    let told = [
        (Action::Dial { conn, target: relay, timeout }, "Dial wss://relay.example as connection 4".to_owned()),
        (Action::Dial { conn, target: direct, timeout }, "Dial 192.0.2.9:5000 as connection 4".into()),
        (Action::Hangup { conn }, "Hangup connection 4".into()),
        (Action::Send { conn, bytes: vec![0x10, 1] }, "Send on connection 4: type 0x10, 2 bytes".into()),
        (Action::Send { conn, bytes: vec![] }, "Send on connection 4: empty".into()),
        (Action::Listen(true), "Listen true".into()),
        (Action::Remember { address: remote.ip(), peer: long }, format!("Remember 192.0.2.9 for {id}")),
        (Action::Succeeded(Succession { old: long, new: long, proven: false }), format!("Succeeded: {id} follows {id}")),
        (Action::Succeeded(Succession { old: long, new: long, proven: true }), format!("Succeeded: {id} follows {id}, proven")),
        (Action::Note(refused(Some(long))), format!("Note: refused {id}: it lies")),
        (Action::Note(refused(None)), "Note: refused somebody: it lies".into()),
        (Action::Note(Note::Left), "Note: Left".into()),
        (Action::Sockets, "Sockets".into()),
        (Action::Flow { conn, remote, is_own: false }, "Flow with 192.0.2.9:5000 as connection 4".into()),
        (Action::Flow { conn, remote, is_own: true }, "Flow with 192.0.2.9:5000 as connection 4, a socket of its own".into()),
        (Action::Datagram { remote, bytes: vec![0x25] }, "Datagram to 192.0.2.9:5000: type 0x25, 1 bytes".into()),
        edited(Edit::Peer { link, addresses: vec![remote.ip()], mac: [2; 6] }, "Peer: link 3 has [192.0.2.9]"),
        edited(Edit::Forget { link }, "Forget: link 3"),
        edited(Edit::Install { link, install: install() }, "Install: link 3, session 000000ab"),
        edited(Edit::Promote { link, local: 0xab }, "Promote: link 3, session 000000ab"),
        edited(Edit::Epoch { link, local: 0xab, keys: keys(), seal: false }, "Epoch: link 3, session 000000ab, epoch 7"),
        edited(Edit::Epoch { link, local: 0xab, keys: keys(), seal: true }, "Epoch: link 3, session 000000ab, epoch 7, seals"),
        edited(Edit::Path { link, path, via, window: None, rtt: None, budget: None }, "Path: link 3, path 2 over connection 4"),
        edited(Edit::Unpath { link, path }, "Unpath: link 3, path 2"),
        edited(Edit::Hedge { link, rescue: path }, "Hedge: link 3, also over path 2"),
        edited(Edit::Calm { link }, "Calm: link 3"),
        edited(Edit::Switch { link, to: path }, "Switch: link 3 to path 2"),
        edited(Edit::FallBack { link, to: path }, "FallBack: link 3 to path 2"),
        edited(Edit::Retire { link, local: 0xab }, "Retire: link 3, session 000000ab"),
        edited(Edit::Relay { conn, stands: true }, "Relay: connection 4"),
        edited(Edit::Relay { conn, stands: false }, "Relay: connection 4 is gone"),
    ];
    let jobs = jobs().into_iter().map(|(job, words)| (Action::Compute(job), words));
    check_actions::<Node>(told.into_iter().chain(jobs).collect());
}

fn edited(edit: Edit, words: &str) -> (Action, String) {
    (Action::Edit(edit), format!("Edit {words}"))
}

#[test]
fn each_action_of_a_relay_has_its_kind_and_its_words() {
    let (conn, handle, address) = (ConnId(4), Handle(5), at("192.0.2.9:5000"));
    let edits = [
        hub::Edit::Open { conn },
        hub::Edit::Join { conn, handle, network: 6 },
        hub::Edit::Join { conn, handle, network: 7 },
        hub::Edit::Part { conn },
        hub::Edit::Close { conn },
        hub::Edit::Attach { conn, address },
        hub::Edit::Attach { conn, address: at("192.0.2.9:5001") },
        hub::Edit::Route { conn, receiver: 8, to: handle },
        hub::Edit::Route { conn, receiver: 9, to: handle },
        hub::Edit::Route { conn, receiver: 9, to: Handle(6) },
    ];
    let mut told = vec![
        (HubAction::Send { conn, bytes: vec![0x10, 1] }, "Send on connection 4: type 0x10, 2 bytes".to_owned()),
        (HubAction::Hangup { conn, why: "silent" }, "Hangup connection 4: silent".into()),
        (HubAction::Hangup { conn, why: "it left" }, "Hangup connection 4: it left".into()),
        (HubAction::Note(HubNote::Refused { remote: None, what: "full".into() }), r#"Note: Refused { remote: None, what: "full" }"#.into()),
        (HubAction::Datagram { port: 1, remote: address, bytes: vec![] }, "Datagram from port 1 to 192.0.2.9:5000: empty".into()),
    ];
    told.extend(edits.map(|edit| (HubAction::Edit(ForwardEdit(edit)), format!("Edit {edit:?}"))));
    told.extend(jobs().into_iter().map(|(job, words)| (HubAction::Compute(job), words)));
    check_actions::<Hub>(told);
}

/// Each is told so, begins with its kind, and no two have the same bytes: the digest tells any two of them apart.
fn check_actions<M: Recorded>(told: Vec<(M::Action, String)>) {
    let (mut kinds, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (action, words) in told {
        assert_eq!(M::tell_action(&action), words);
        let mut bytes = Vec::new();
        M::put_action(&action, &mut bytes);
        let kind = M::ACTIONS[usize::from(bytes[0])];
        assert!(words.starts_with(kind), "{words} is of kind {kind}");
        kinds.insert(bytes[0]);
        let digest = digest_of::<M>(core::slice::from_ref(&action));
        assert!(seen.insert(bytes) && seen.insert(digest.to_vec()), "{words}: another action has these bytes");
        let ticket = M::job(action).map(|job| job.ticket);
        assert_eq!(ticket.is_some(), kind == "Compute", "{words}");
    }
    assert_eq!(kinds.len(), M::ACTIONS.len(), "each kind is tried");
}

/// One of each kind, and how it is told.
fn jobs() -> Vec<(Job, String)> {
    let outcomes = outcomes();
    let (ann, bob) = (identity(1), identity(2));
    let (coins, coins32) = (|| Zeroizing::new([9; 96]), Zeroizing::new([9; 32]));
    let suites = vec![Suite::ChaCha20Poly1305];
    let params = Params::default();
    let [Outcome::Offered(offer), Outcome::Answered(Ok(answer)), _, _, Outcome::RekeyOffered(rekey), ..] = &outcomes[..] else {
        panic!("the results of a handshake, then those of a rekey")
    };
    let (init, resp) = (offer.init().to_vec(), answer.resp().to_vec());
    let (offer, answer, rekey) = (Arc::clone(offer), Arc::clone(answer), Arc::clone(rekey));
    let (chain, id) = (Arc::new(chain(3, 4)), bob.id());
    let works = [
        (
            Work::Offer { setup: setup(), responder: id, sid: 11, suites: suites.clone(), coins: coins() },
            format!("INIT for {}", id.short()),
        ),
        (Work::Answer { setup: setup(), identity: bob, init, sid: 22, suites, params: params.clone(), coins: coins() }, "RESP".to_owned()),
        (
            Work::Conclude { setup: setup(), identity: Arc::clone(&ann), responder: id, offer, resp, params, coins: coins32 },
            format!("FIN for {}", id.short()),
        ),
        (Work::Verify { identity: ann, answer, fin: vec![1] }, "check FIN".into()),
        (Work::RekeyOffer { epoch: 5, coins: coins() }, "REKEY1 of epoch 5".into()),
        (Work::RekeyAnswer { epoch: 6, rekey1: vec![2], chain: Arc::clone(&chain), coins: coins() }, "REKEY2 of epoch 6".into()),
        (Work::RekeyConclude { epoch: 7, offer: rekey, rekey2: vec![3], chain }, "keys of epoch 7".into()),
    ];
    works.map(|(work, words)| (Job { ticket: Ticket(8), work }, format!("Compute job 8: {words}"))).into()
}

#[test]
fn what_a_journal_says_of_an_unlucky_connection_is_what_the_peer_would_say() {
    for why in [Ended::Proxy("the proxy wants a password".into()), Ended::WrongIdentity { got: None, subject: None }] {
        let told = Node::tell_event(&Event::Closed { conn: ConnId(2), why: why.clone() });
        assert_eq!(told, format!("connection 2: {why}"));
    }
    let tuned = |close_relay| {
        let every = Duration::from_secs(1);
        let tuning = Tuning { retry_interval: every, health_check_interval: every, connect_timeout: every, close_relay };
        Node::tell_event(&Event::Tune(tuning))
    };
    assert!(tuned(true).ends_with("relays are closed") && tuned(false).ends_with("relays are kept"));
}

// ---- what whoever reads a journal relies on ----------------------------------------------------------------------

/// A rerun computes the jobs itself, so it has to know which event brings which result.
#[test]
fn each_result_in_a_journal_answers_a_job_that_was_ordered_before() {
    assert!(answered::<Node>(&RUN.0) > 0);
    assert!(answered::<Hub>(&RUN.1) > 0);
}

fn answered<M: Recorded + Opened>(bytes: &[u8]) -> usize {
    let mut tape = M::opened(bytes);
    let mut machine = M::make(tape.config());
    let (mut ordered, mut answers) = (BTreeSet::new(), 0);
    while let Some(mut entry) = tape.next_entry().expect("a good journal") {
        let ticket = entry.answers::<M>();
        assert_eq!(ticket.is_some(), entry.kind::<M>() == "Computed");
        if let Some(Ticket(number)) = ticket {
            assert!(ordered.remove(&number), "job {number} was not ordered, or is answered twice");
            answers += 1;
        }
        let (at, answer) = (entry.at, entry.answer.take().expect("the journal is whole"));
        let (mut loan, mut actions) = (Loan::default(), Vec::new());
        machine.handle(at, entry.event::<M>(&mut loan).expect("a good event"), &mut actions);
        assert_eq!(digest_of::<M>(&actions), answer.digest);
        ordered.extend(actions.into_iter().filter_map(M::job).map(|job| job.ticket.0));
    }
    answers
}

#[test]
fn equal_bytes_are_equal_digests() {
    let actions = |conn| vec![Action::Sockets, Action::Hangup { conn: ConnId(conn) }];
    let bytes = |conn| {
        let mut out = Vec::new();
        actions_as_bytes::<Node>(&actions(conn), &mut out);
        out
    };
    assert_eq!(bytes(1), [8, 1, 0, 0, 0, 0, 0, 0, 0, 1].as_slice().to_vec());
    assert_eq!(digest_of::<Node>(&actions(1)), digest_of::<Node>(&actions(1)));
    assert_ne!(digest_of::<Node>(&actions(1)), digest_of::<Node>(&actions(2)));
}

#[test]
fn a_recorder_forgets_what_was_written_and_goes_on_behind_it() {
    let mut pieces = Vec::new();
    let mut recorder = Recorder::<Node>::new(&config(Arc::new(RustCrypto)));
    for event in [Event::Entropy(&[1; 32]), Event::Start] {
        pieces.extend_from_slice(recorder.bytes());
        recorder.written();
        assert!(recorder.bytes().is_empty(), "secrets do not stay in memory");
        recorder.event(Instant::ZERO, &event);
    }
    pieces.extend_from_slice(recorder.bytes());
    let mut tape = Node::opened(&pieces);
    let first = tape.next_entry();
    let wrong = JournalError::Record { number: 2, what: "array" };
    assert_eq!(first.err(), Some(wrong), "an event stands where actions are expected");
}

#[test]
fn a_record_in_the_wrong_place_or_of_the_wrong_length_is_named() {
    let start = Recorder::<Node>::new(&config(Arc::new(RustCrypto))).bytes().to_vec();
    let event = [&[EVENT][..], &[0; 8], &[0]].concat();
    let actions = [&[ACTIONS][..], &[0; 16], &[0; 4]].concat();
    let longer = [&actions[..], &[0]].concat();
    for (bodies, number) in [
        (vec![&event[..4]], 1),
        (vec![&actions[..]], 1),
        (vec![&event, &actions[..9]], 2),
        (vec![&event, &actions[..17]], 2),
        (vec![&event, &longer], 2),
        (vec![&event, &[&[EVENT][..], &[0; 20]].concat()], 2),
    ] {
        let records: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        let bytes = [&start[..], &records].concat();
        let error = read_all(&bytes).expect_err("damaged");
        let JournalError::Record { number: named, what } = error else { panic!("{error}") };
        assert_eq!(named, number, "{what}");
        assert_eq!(error.to_string(), format!("record {number} of the journal is damaged: {what}"));
    }
    assert!(JournalError::Version.to_string().contains("another version"));
    assert!(JournalError::NotAJournal.to_string().contains("not a journal"));
}

/// The lengths to which `len` bytes are cut: all of the first and of the last, some of those between.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..len).filter(move |end| *end < 150 || len - *end < 150 || end % 61 == 0)
}

/// One of each kind at least.
fn relay_events() -> Vec<HubEvent<'static>> {
    let remote = at("[2001:db8::1%3]:5");
    let access = Access { deny: vec![(remote.ip(), 64)], keys: vec![AccessKey::of("letmein")], ..Access::default() };
    let mut events = vec![
        HubEvent::Start,
        HubEvent::Entropy(&[5; 32]),
        HubEvent::Alarm,
        HubEvent::Accepted { conn: ConnId(1), exporter: [2; 32], remote, since: Instant::from_millis(9) },
        HubEvent::Closed { conn: ConnId(1) },
        HubEvent::Message { conn: ConnId(1), bytes: Vec::leak(vec![1, 2]) },
        HubEvent::Datagram { port: 1, remote, bytes: &[3, 4, 5] },
        HubEvent::Leave,
        HubEvent::Drain { within: Duration::from_millis(1_500) },
        HubEvent::Configure { limits: Box::default(), access: Box::new(access) },
    ];
    events.extend(outcomes().into_iter().map(|outcome| HubEvent::Computed(Done { ticket: Ticket(4), outcome })));
    events
}
