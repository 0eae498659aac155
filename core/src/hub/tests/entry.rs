//! The way in: each limit before the proof, with its counter (protocol 9.4), and the order of the handshake (protocol 3.8, 9.3).
use super::*;
use crate::{network::AccessKey, wire::CLOSE_NO_ACCESS};

fn limited(change: impl FnOnce(&mut Limits)) -> Stage {
    let mut limits = Limits::default();
    change(&mut limits);
    Stage::with(limits)
}

// protocol 9.4
#[test]
fn connections_without_proof_are_limited_in_all_and_by_source() {
    let mut stage = limited(|limits| {
        limits.preauth_total = 3;
        limits.preauth_per_source = 2;
    });
    let one = stage.open(address("192.0.2.1:1"));
    stage.open(address("192.0.2.1:2"));
    assert_eq!(stage.hub.admit(stage.now, address("192.0.2.1:3")), Err(Refusal::Because("preauth_per_source")));
    stage.open(address("192.0.2.2:1"));
    assert_eq!(stage.hub.admit(stage.now, address("192.0.2.3:1")), Err(Refusal::Full));
    assert_eq!((stage.dropped("preauth_per_source"), stage.dropped("preauth_total")), (1, 1));
    stage.close(one);
    stage.hub.admit(stage.now, address("192.0.2.1:4")).expect("a place is free");
    stage.hub.released(address("192.0.2.1:4"), false);
    stage.hub.admit(stage.now, address("192.0.2.1:5")).expect("and free again");
    assert_eq!(stage.status().handshakes_failed, 2);
}

// protocol 9.5
#[test]
fn who_says_wrongly_where_he_comes_from_is_counted_by_whether_he_is_trusted_to_say_it() {
    let mut stage = Stage::new();
    stage.hub.misannounced(true);
    assert_eq!((stage.dropped("proxy_header"), stage.dropped("proxy_untrusted")), (1, 0));
    stage.hub.misannounced(false);
    assert_eq!((stage.dropped("proxy_header"), stage.dropped("proxy_untrusted")), (1, 1));
}

#[test]
fn a_source_that_proves_identities_may_join_as_often_as_it_likes() {
    let mut stage = limited(|limits| limits.join_burst = 2);
    for n in 1..10 {
        stage.member(n);
    }
    for port in 1..=2 {
        let conn = stage.open(SocketAddr::new(address(ADDRESS).ip(), port));
        stage.close(conn);
    }
    assert_eq!(stage.hub.admit(stage.now, address(ADDRESS)), Err(Refusal::Because("join_rate")));
    assert_eq!(stage.dropped("join_rate"), 1);
    stage.pass(200);
    stage.hub.admit(stage.now, address(ADDRESS)).expect("five a second");
}

// protocol 9.4
#[test]
fn time_before_the_proof_is_limited() {
    let mut stage = Stage::new();
    let mute = stage.open(address(ADDRESS));
    let slow = stage.call(&identity(1), ADDRESS);
    stage.message(slow.conn, slow.offer.init());
    stage.pass(4_999);
    assert!(stage.hung.is_empty());
    stage.pass(1);
    assert!(stage.hung.contains_key(&mute) && stage.hung.contains_key(&slow.conn));
    let status = stage.status();
    assert_eq!((status.dropped("preauth_time"), status.preauth, status.half_open, status.handshakes_failed), (2, 0, 0, 2));
}

// protocol 9.4
#[test]
fn the_time_for_tls_is_part_of_the_time_before_the_proof() {
    let mut stage = Stage::new();
    stage.hub.admit(stage.now, address(ADDRESS)).expect("within the limits");
    let since = stage.now;
    stage.pass(4_900);
    stage.last_conn += 2;
    let slow = ConnId(stage.last_conn);
    stage.handle(HubEvent::Accepted { conn: slow, exporter: [1; 32], remote: address(ADDRESS), since });
    stage.pass(99);
    assert!(stage.hung.is_empty());
    stage.pass(1);
    assert!(stage.hung.contains_key(&slow), "5 s after its first byte, not after its WebSocket");
    stage.hub.admit(stage.now, address(ADDRESS)).expect("within the limits");
    stage.hub.released(address(ADDRESS), true);
    assert_eq!((stage.dropped("preauth_time"), stage.status().handshakes_failed), (2, 2));
}

// protocol 9.4
#[test]
fn a_source_that_proves_nothing_is_refused_for_a_while_and_one_that_did_is_not() {
    let mut stage = limited(|limits| {
        limits.join_burst = 3;
        limits.joins_per_second = 1;
    });
    let (bad, good) = (address("192.0.2.9:1"), address(ADDRESS));
    stage.member(1);
    for remote in [bad, good] {
        for _ in 0..3 {
            let conn = stage.open(remote);
            stage.close(conn);
        }
        assert_eq!(stage.hub.admit(stage.now, remote), Err(Refusal::Because("join_rate")));
    }
    stage.pass(10_000);
    assert_eq!(stage.hub.admit(stage.now, bad), Err(Refusal::Because("source_refused")), "though three tokens are back");
    let conn = stage.open(good);
    stage.close(conn);
    assert_eq!(stage.dropped("source_refused"), 1);
    stage.pass(50_000);
    stage.hub.admit(stage.now, bad).expect("a minute later it may try again");
}

// protocol 9.4
#[test]
fn a_connection_that_would_not_fit_into_the_memory_is_refused_and_all_others_stay() {
    let mut stage = limited(|limits| {
        limits.queue_total_bytes = 1 << 20;
        limits.memory = (5 << 18) + 3 * 128 * 1024;
    });
    let (mut a, mut b) = (stage.member(1), stage.member(2));
    let third = stage.open(address("192.0.2.3:1"));
    assert_eq!(stage.hub.admit(stage.now, address("192.0.2.4:1")), Err(Refusal::Because("memory")));
    assert_eq!(stage.dropped("memory"), 1);
    stage.assert_healthy(&mut a, &mut b);
    stage.close(third);
    stage.hub.admit(stage.now, address("192.0.2.4:1")).expect("there is room again");
}

// protocol 9.4
#[test]
fn a_relay_takes_addresses_and_identities_as_it_is_told() {
    let prefix = |text: &str, len| (address(text).ip(), len);
    let allow = vec![prefix("192.0.2.0:0", 24), prefix("[2001:db8::]:0", 32)];
    let access = Access { allow, deny: vec![prefix("192.0.2.128:0", 25)], peers: vec![identity(1).id()], keys: Vec::new() };
    let mut stage = Stage::with_access(Limits::default(), access);
    for (remote, taken) in [
        ("192.0.2.5:1", true),
        ("[::ffff:192.0.2.5]:2", true),
        ("[2001:db8:ffff::1]:1", true),
        ("192.0.2.200:1", false),
        ("198.51.100.1:1", false),
        ("[2001:db9::1]:1", false),
    ] {
        assert_eq!(stage.hub.admit(stage.now, address(remote)).is_ok(), taken, "{remote}");
    }
    assert_eq!(stage.dropped("source_denied"), 3);
    stage.member(1);
    let stranger = proves_itself(&mut stage, 2);
    assert!(stage.hung.contains_key(&stranger));
    assert_eq!((stage.dropped("peer_denied"), stage.status().clients.len()), (1, 1));
}

// protocol 2.7
#[test]
fn a_relay_with_access_tokens_takes_who_shows_one_and_says_why_it_takes_nobody_else() {
    let (key, other) = (AccessKey::of("the token of this relay"), AccessKey::of("the next token"));
    let relay = identity(200).id();
    let mut stage = Stage::with_access(Limits::default(), Access { keys: vec![key.clone(), other.clone()], ..Access::default() });
    for (number, pass, is_taken) in [
        (1, Some(key.pass(relay)), true),
        (2, Some(other.pass(relay)), true),
        (3, None, false),
        (4, Some(AccessKey::of("a guess").pass(relay)), false),
        (5, Some(key.pass(identity(9).id())), false),
        (6, Some([0; 32]), false),
    ] {
        let (conn, told) = shows(&mut stage, number, pass);
        assert_eq!(stage.hung.contains_key(&conn), !is_taken, "{number}");
        let is_told = matches!(told, RelayMessage::Close { reason: CLOSE_NO_ACCESS });
        assert_eq!(is_told, !is_taken, "{number}: {told:?}");
    }
    assert_eq!((stage.dropped("access_denied"), stage.status().clients.len()), (4, 2));
}

// protocol 9.4
#[test]
fn tries_at_an_access_token_are_limited_like_connections_that_prove_nothing() {
    let limits = Limits { join_burst: 3, joins_per_second: 1, ..Limits::default() };
    let mut stage = Stage::with_access(limits, Access { keys: vec![AccessKey::of("the token")], ..Access::default() });
    for number in 1..=3 {
        shows(&mut stage, number, Some([number; 32]));
    }
    assert_eq!(stage.hub.admit(stage.now, address(ADDRESS)), Err(Refusal::Because("join_rate")), "though each had an identity");
}

// protocol 9.4
#[test]
fn messages_without_content_count_before_the_proof() {
    let mut stage = Stage::new();
    let conn = stage.open(address(ADDRESS));
    for _ in 0..512 {
        stage.message(conn, &[]);
    }
    assert!(stage.hung.is_empty());
    stage.message(conn, &[]);
    assert!(stage.hung.contains_key(&conn));
    assert_eq!((stage.dropped("preauth_bytes"), stage.status().handshakes_answered), (1, 0));
}

// protocol 9.4
#[test]
fn bytes_before_the_proof_are_limited() {
    let mut stage = Stage::new();
    let conn = stage.open(address(ADDRESS));
    for _ in 0..32 {
        stage.message(conn, &[0x77; 1_024]);
    }
    assert!(stage.hung.is_empty());
    stage.message(conn, &[0x30]);
    assert_eq!((stage.dropped("preauth_bytes"), stage.dropped("unexpected_message")), (1, 32));
    assert!(stage.hung.contains_key(&conn));
}

#[test]
fn handshakes_under_way_are_limited() {
    let mut stage = limited(|limits| limits.half_open_total = 2);
    let callers: Vec<_> = (1..=3).map(|n| stage.call(&identity(n), ADDRESS)).collect();
    for caller in &callers {
        stage.message(caller.conn, caller.offer.init());
    }
    assert_eq!((stage.status().half_open, stage.dropped("half_open_total")), (2, 1));
    assert!(stage.hung.contains_key(&callers[2].conn));
    stage.close(callers[0].conn);
    assert_eq!(stage.status().half_open, 1);
    stage.member(4);
}

#[test]
fn jobs_with_the_driver_are_bounded_and_none_is_lost() {
    let mut stage = Stage::new();
    let callers: Vec<_> = (0..70).map(|n| stage.call(&identity(n), ADDRESS)).collect();
    stage.hold = true;
    for caller in &callers {
        stage.message(caller.conn, caller.offer.init());
    }
    assert_eq!(stage.held.len(), 64);
    stage.close(callers[69].conn);
    stage.close(callers[0].conn);
    stage.hold = false;
    stage.compute();
    for caller in &callers[1..69] {
        assert!(stage.mail(caller.conn).is_some_and(|bytes| bytes[0] == wire_resp()));
    }
    assert!(stage.mail(callers[0].conn).is_none() && stage.mail(callers[69].conn).is_none());
    assert_eq!(stage.status().half_open, 68);
}

fn wire_resp() -> u8 {
    crate::wire::TYPE_RESP
}

/// Somebody new goes through the handshake up to the proof, whatever comes of it.
/// Proves who it is and shows this; what the relay says to it first.
fn shows(stage: &mut Stage, number: u8, pass: Option<[u8; 32]>) -> (ConnId, RelayMessage) {
    let caller = stage.call(&identity(number), ADDRESS);
    stage.message(caller.conn, caller.offer.init());
    let work = Work::Conclude {
        setup: caller.setup.clone(),
        identity: Arc::clone(&caller.identity),
        responder: stage.relay,
        offer: Arc::clone(&caller.offer),
        resp: stage.mail(caller.conn).expect("CHALLENGE"),
        params: Params { pass, ..params(NETWORK) },
        coins: Zeroizing::new([1; 32]),
    };
    let Outcome::Concluded(Ok(concluded)) = run(work) else { panic!("a good CHALLENGE") };
    stage.message(caller.conn, &concluded.fin);
    let mut told = stage.mail(caller.conn).expect("a word of the relay");
    let keys = concluded.chain.keys(Side::Initiator, &AwsLc);
    let plain = keys.open.open(&mut told).expect("sealed by the relay");
    (caller.conn, RelayMessage::parse(&plain[1..]).expect("a message"))
}

pub(super) fn proves_itself(stage: &mut Stage, number: u8) -> ConnId {
    let caller = stage.call(&identity(number), ADDRESS);
    stage.message(caller.conn, caller.offer.init());
    let challenge = stage.mail(caller.conn).expect("CHALLENGE");
    let (response, _) = caller.conclude(stage.relay, challenge, params(NETWORK)).expect("a good CHALLENGE");
    stage.message(caller.conn, &response);
    caller.conn
}

#[test]
fn clients_are_limited_but_each_may_replace_itself() {
    let mut stage = limited(|limits| limits.clients = 1);
    stage.member(1);
    let late = proves_itself(&mut stage, 2);
    assert_eq!((stage.hung[&late], stage.dropped("clients_full")), ("clients_full", 1));
    stage.member(1);
    let status = stage.status();
    assert_eq!((status.clients.len(), status.handshakes_succeeded, status.handshakes_failed, status.preauth), (1, 2, 1, 0));
}

// protocol 3.8
#[test]
fn a_hello_for_another_relay_costs_no_arithmetic() {
    let mut stage = Stage::new();
    let mut caller = stage.call(&identity(1), ADDRESS);
    let relay = core::mem::replace(&mut stage.relay, identity(99).id());
    caller = stage.caller(&caller.identity, caller.conn);
    stage.relay = relay;
    stage.hold = true;
    stage.message(caller.conn, caller.offer.init());
    assert_eq!((stage.held.len(), stage.dropped("bad_hello")), (0, 1));
    assert!(matches!(stage.notes.last(), Some(HubNote::Refused { remote: Some(_), .. })));
}

// protocol 3.8
#[test]
fn an_identical_hello_is_answered_once_from_the_cache_and_another_is_not() {
    let mut stage = Stage::new();
    let caller = stage.call(&identity(1), ADDRESS);
    stage.hold = true;
    stage.message(caller.conn, caller.offer.init());
    stage.message(caller.conn, caller.offer.init());
    assert_eq!((stage.held.len(), stage.dropped("repeated_hello")), (1, 1), "while the job runs");
    stage.hold = false;
    stage.compute();
    let first = stage.mail(caller.conn).expect("CHALLENGE");
    stage.message(caller.conn, caller.offer.init());
    assert_eq!(stage.mail(caller.conn), Some(first.clone()));
    stage.message(caller.conn, caller.offer.init());
    assert_eq!((stage.mail(caller.conn), stage.dropped("repeated_hello")), (None, 2));
    let (fin, finish) = caller.conclude(stage.relay, first, params(NETWORK)).expect("good");
    stage.message(caller.conn, &fin);
    finish(stage.mail(caller.conn).expect("ESTABLISHED"));
}

// protocol 9.3
#[test]
fn a_response_without_a_network_is_refused() {
    let mut stage = Stage::new();
    let caller = stage.call(&identity(1), ADDRESS);
    stage.message(caller.conn, caller.offer.init());
    let resp = stage.mail(caller.conn).expect("CHALLENGE");
    let (fin, _) = caller.conclude(stage.relay, resp, Params::default()).expect("good");
    stage.message(caller.conn, &fin);
    assert_eq!((stage.hung[&caller.conn], stage.dropped("no_network")), ("no_network", 1));
    let close = FRAME_HEADER_LEN + 1 + 2 + TAG_LEN;
    assert_eq!(stage.mail(caller.conn).map(|told| told.len()), Some(close), "told why, and not ESTABLISHED");
    assert!(stage.mail(caller.conn).is_none());
}
