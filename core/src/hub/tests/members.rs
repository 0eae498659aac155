//! Established clients: what they are told, what they can send, how they end.
use super::*;
use crate::wire::{
    CLOSE_DOWN, CLOSE_REPLACED, CLOSE_SESSION_OLD, CLOSE_SHARED_IDENTITY, CLOSE_SILENT, INNER_KEEPALIVE, MAX_DIRECTORY_ENTRIES,
    UPDATE_SUPPORTS_DIRECT, UPDATE_WITHHOLD_ADDRESS,
};
use std::collections::BTreeSet;

// protocol 3.1, 6.5
#[test]
fn established_with_observed_ip_in_a_full_handshake() {
    let mut stage = Stage::new();
    let cases = [
        ("203.0.113.7:41022", "203.0.113.7:41022"),
        ("[2001:db8::77]:5", "[2001:db8::77]:5"),
        ("[::ffff:198.51.100.9]:77", "198.51.100.9:77"),
    ];
    let mut clients = Vec::new();
    for (n, (remote, observed)) in (1..).zip(cases) {
        let client = stage.join(&identity(n), remote, params(NETWORK));
        let established = &client.established;
        assert_eq!(established.observed, address(observed));
        assert_eq!((established.keepalive_s, established.max_frame, established.window, established.udp_port), (20, 9_216, 256, 8_443));
        assert_eq!(established.entries.len(), usize::from(n) - 1);
        clients.push(client);
    }
    let first = &clients[2].established.entries.iter().find(|entry| entry.peer == clients[0].id).expect("in the directory");
    assert_eq!((first.public, first.supports_direct, first.online), (Some(address(cases[0].1)), true, true));
    assert_eq!(first.handle, clients[0].established.your_handle);
    stage.pass(100);
    let told = stage.told(&clients[0]);
    let seen: Vec<_> = entries(told).into_iter().map(|entry| (entry.peer, entry.public)).collect();
    assert!(seen.contains(&(clients[1].id, Some(address(cases[1].1)))) && seen.contains(&(clients[2].id, Some(address(cases[2].1)))));
    let status = stage.status();
    assert_eq!(
        (status.clients.len(), status.preauth, status.half_open, status.handshakes_succeeded, status.handshakes_failed),
        (3, 0, 0, 3, 0)
    );
    assert!(stage.notes.contains(&HubNote::Joined {
        id: clients[0].id,
        remote: address(cases[0].1),
        handle: clients[0].established.your_handle
    }));
}

// protocol 2.3, 6.6
#[test]
fn frames_and_addresses_stay_within_a_network() {
    let mut stage = Stage::new();
    let a = stage.member(1);
    let b = stage.member(2);
    let mut stranger = stage.join(&identity(3), ADDRESS, params([8; 32]));
    assert!(stranger.established.entries.is_empty());
    stage.pass(200);
    assert!(stage.told(&stranger).is_empty());
    stage.forward(&a, b.established.your_handle, b"\x10 hello");
    stage.forward(&stranger, b.established.your_handle, b"\x10 let me in");
    assert_eq!(stage.records(&b), [(a.established.your_handle, b"\x10 hello".to_vec())]);
    assert_eq!(stage.dropped("unknown_handle"), 1);
    let lookup = stranger.seal(&RelayMessage::Lookup { peer: b.id });
    stage.message(stranger.conn, &lookup);
    let told = entries(stage.told(&stranger));
    assert_eq!(told, [DirectoryEntry { handle: Handle(0), peer: b.id, public: None, supports_direct: false, online: false }]);
}

// protocol 6.6, 6.8
#[test]
fn a_newer_connection_replaces_the_older_and_too_many_are_a_shared_identity() {
    let mut stage = Stage::new();
    let b = stage.member(2);
    let mut old = stage.member(1);
    for n in 0..4 {
        let new = stage.member(1);
        assert!(new.established.your_handle > old.established.your_handle, "handles are never used again");
        let reason = if n < 3 { CLOSE_REPLACED } else { CLOSE_SHARED_IDENTITY };
        assert_eq!(stage.told(&old).last(), Some(&RelayMessage::Close { reason }));
        assert!(stage.hung.contains_key(&old.conn));
        stage.forward(&b, old.established.your_handle, b"\x10 too late");
        stage.forward(&b, new.established.your_handle, b"\x10 here");
        assert_eq!(stage.records(&new), [(b.established.your_handle, b"\x10 here".to_vec())]);
        old = new;
    }
    assert_eq!(stage.notes.iter().filter(|note| **note == HubNote::SharedIdentity { id: old.id }).count(), 1);
    assert_eq!((stage.status().clients.len(), stage.dropped("unknown_handle")), (2, 4));
    stage.pass(61_000);
    let pinged: Vec<_> = stage.hung.keys().copied().collect();
    assert!(pinged.contains(&old.conn), "silent by now");
    stage.member(1);
    stage.member(1);
    assert_eq!(
        stage.notes.iter().filter(|note| matches!(note, HubNote::SharedIdentity { .. })).count(),
        1,
        "a minute later it is forgotten"
    );
}

#[test]
fn the_same_identity_in_two_networks_is_two_clients() {
    let mut stage = Stage::new();
    let one = stage.member(1);
    let other = stage.join(&identity(1), ADDRESS, params([8; 32]));
    assert!(stage.hung.is_empty());
    assert_ne!(one.established.your_handle, other.established.your_handle);
}

// protocol 6.6
#[test]
fn the_first_change_is_told_at_once_the_next_are_merged_for_100_ms_and_the_last_state_wins() {
    let mut stage = Stage::new();
    let a = stage.member(1);
    stage.pass(200);
    stage.told(&a);
    let mut b = stage.member(2);
    stage.pass(0);
    let first = entries(stage.told(&a));
    assert_eq!((first.len(), first[0].peer), (1, b.id), "who joins after a quiet time is told at once");
    let c = stage.member(3);
    let update = b.seal(&RelayMessage::Update { flags: UPDATE_WITHHOLD_ADDRESS, udp_port: 0 });
    stage.message(b.conn, &update);
    stage.close(c.conn);
    stage.pass(99);
    assert!(stage.told(&a).is_empty());
    stage.pass(1);
    let told = stage.told(&a);
    assert_eq!(told.len(), 1, "one message for all changes");
    let mut told = entries(told);
    told.sort_by_key(|entry| entry.handle);
    let b_entry = DirectoryEntry { handle: b.established.your_handle, peer: b.id, public: None, supports_direct: false, online: true };
    let c_entry = DirectoryEntry { handle: c.established.your_handle, peer: c.id, public: None, supports_direct: false, online: false };
    assert_eq!(told, [b_entry, c_entry]);
    let update = b.seal(&RelayMessage::Update { flags: UPDATE_SUPPORTS_DIRECT, udp_port: 0 });
    stage.message(b.conn, &update);
    stage.message(b.conn, &b"\x10 not sealed"[..]);
    stage.pass(1_000);
    let told = entries(stage.told(&a));
    assert_eq!((told.len(), told[0].supports_direct, told[0].public), (1, true, Some(address(ADDRESS))));
}

// protocol 6.6, 6.7
#[test]
fn a_withheld_address_is_told_to_nobody_but_its_owner() {
    let mut stage = Stage::new();
    let shy = stage.join(&identity(1), ADDRESS, Params { withhold_address: true, ..params(NETWORK) });
    let other = stage.member(2);
    assert_eq!(shy.established.observed, address(ADDRESS));
    assert_eq!(other.established.entries[0].public, None);
}

// protocol 6.4, 6.5, 6.8
#[test]
fn pings_keep_a_client_and_silence_of_three_keepalives_ends_it() {
    let mut stage = Stage::new();
    let mut lively = stage.member(1);
    let silent = stage.member(2);
    for n in 0..4 {
        stage.pass(19_999);
        let frame = if n == 3 { lively.seal_raw(&[INNER_KEEPALIVE]) } else { lively.seal(&RelayMessage::Ping { id: n }) };
        stage.message(lively.conn, &frame);
    }
    assert_eq!(stage.hung.get(&silent.conn), Some(&"silent"));
    assert_eq!(stage.told(&silent).last(), Some(&RelayMessage::Close { reason: CLOSE_SILENT }));
    assert_eq!((stage.dropped("silent"), stage.status().clients.len()), (1, 1));
    let pongs: Vec<_> = stage.told(&lively).into_iter().filter(|message| matches!(message, RelayMessage::Pong { .. })).collect();
    assert_eq!(pongs, [RelayMessage::Pong { id: 0 }, RelayMessage::Pong { id: 1 }, RelayMessage::Pong { id: 2 }]);
}

// protocol 4.5, 6.8
#[test]
fn an_old_session_is_closed_so_that_the_client_connects_again() {
    let mut stage = Stage::new();
    let mut client = stage.member(1);
    for n in 0..24 * 60 {
        stage.pass(60_000 - 1);
        assert!(stage.hung.is_empty(), "after {n} minutes");
        let ping = client.seal(&RelayMessage::Ping { id: n });
        stage.message(client.conn, &ping);
    }
    stage.pass(60_000 - 1);
    assert_eq!(stage.told(&client).last(), Some(&RelayMessage::Close { reason: CLOSE_SESSION_OLD }));
    assert_eq!((stage.dropped("session_old"), stage.dropped("silent")), (1, 0));
}

#[test]
fn a_client_that_says_goodbye_is_gone_at_once() {
    let mut stage = Stage::new();
    let mut a = stage.member(1);
    let b = stage.member(2);
    let close = a.seal(&RelayMessage::Close { reason: CLOSE_DOWN });
    stage.message(a.conn, &close);
    assert!(stage.hung.contains_key(&a.conn));
    assert!(stage.notes.contains(&HubNote::Left { id: a.id, why: "said goodbye" }));
    stage.pass(100);
    assert!(entries(stage.told(&b)).iter().any(|entry| entry.peer == a.id && !entry.online));
}

// protocol 6.8
#[test]
fn leaving_tells_every_client_and_lets_nobody_in() {
    let mut stage = Stage::with(Limits { preauth_per_source: 1_000, join_burst: 1_000, ..Limits::default() });
    let clients: Vec<_> = (0..100).map(|n| stage.join(&identity(n), ADDRESS, params([n; 32]))).collect();
    let waiting = stage.open(address(ADDRESS));
    stage.handle(HubEvent::Leave);
    assert_eq!(stage.hub.admit(stage.now, address(ADDRESS)), Err(Refusal::Because("leaving")));
    stage.pass(0);
    for client in &clients {
        assert_eq!(stage.told(client).last(), Some(&RelayMessage::Close { reason: CLOSE_DOWN }));
    }
    assert_eq!((stage.hung.len(), stage.hung[&waiting]), (101, "the relay goes away"));
    assert_eq!((stage.dropped("leaving"), stage.hub.deadline()), (1, None));
}

// protocol 6.8
#[test]
fn a_connection_whose_tls_ends_when_the_relay_goes_away_is_shown_out_at_once() {
    let mut stage = Stage::new();
    stage.hub.admit(stage.now, address(ADDRESS)).expect("nothing is amiss yet");
    stage.handle(HubEvent::Leave);
    let late = ConnId(99);
    stage.last_conn = late.0;
    stage.handle(HubEvent::Accepted { conn: late, exporter: [1; 32], remote: address(ADDRESS), since: stage.now });
    assert_eq!(stage.hung[&late], "the relay goes away");
    assert_eq!((stage.status().preauth, stage.hub.deadline()), (0, None));
}

// protocol 6.5
#[test]
fn a_newcomer_to_a_large_network_is_told_all_of_it_in_pages() {
    let mut stage = Stage::with(Limits { preauth_per_source: 1_000, join_burst: 1_000, ..Limits::default() });
    let many = (0..=MAX_DIRECTORY_ENTRIES as u16).map(|n| core::array::from_fn(|at| n.to_be_bytes()[at % 2]));
    let mut join = |seed| stage.join(&Arc::new(Identity::from_seed(seed)), ADDRESS, params(NETWORK));
    let others: BTreeSet<_> = many.map(|seed| join(seed).id).collect();
    let newcomer = join([255; 32]);
    let mut told: BTreeSet<_> = newcomer.established.entries.iter().map(|entry| entry.peer).collect();
    assert_eq!(told.len(), MAX_DIRECTORY_ENTRIES, "one page does not hold it");
    for message in stage.told(&newcomer) {
        let RelayMessage::Directory { entries } = message else { panic!("{message:?}") };
        told.extend(entries.iter().map(|entry| entry.peer));
    }
    assert!(told.is_superset(&others));
}

// protocol 6.9
#[test]
fn draining_tells_every_client_lets_nobody_in_and_serves_on_until_it_is_not_needed() {
    let mut stage = Stage::with(Limits { preauth_per_source: 1_000, join_burst: 1_000, ..Limits::default() });
    let mut clients: Vec<_> = (0..100).map(|n| stage.join(&identity(n), ADDRESS, params([n; 32]))).collect();
    let waiting = stage.open(address(ADDRESS));
    assert_eq!(stage.hub.drained_at(stage.now), None, "nobody has asked for it");
    stage.handle(HubEvent::Drain { within: Duration::from_secs(10) });
    assert_eq!(stage.hub.admit(stage.now, address(ADDRESS)), Err(Refusal::Because("leaving")));
    stage.pass(0);
    for client in &clients {
        assert_eq!(stage.told(client).last(), Some(&RelayMessage::GoAway { within_s: 10 }));
    }
    assert_eq!((stage.hung.len(), stage.hung[&waiting]), (1, "the relay goes away"), "who has proven nothing may go elsewhere");
    // it ends a second after the last record, at most when its time is over
    let start = stage.now;
    assert_eq!(stage.hub.drained_at(Instant::ZERO), Some(start + Duration::from_secs(1)));
    assert_eq!(stage.hub.drained_at(start + Duration::from_secs(3)), Some(start + Duration::from_secs(4)));
    assert_eq!(stage.hub.drained_at(start + Duration::from_secs(99)), Some(start + Duration::from_secs(10)));
    // all else goes on
    let ping = clients[0].seal(&RelayMessage::Ping { id: 9 });
    stage.message(clients[0].conn, &ping);
    assert_eq!(stage.told(&clients[0]).last(), Some(&RelayMessage::Pong { id: 9 }));
    stage.handle(HubEvent::Drain { within: Duration::from_secs(99) });
    stage.pass(0);
    assert_eq!(stage.told(&clients[1]).len(), 0, "they are told once");
    for client in &clients {
        stage.handle(HubEvent::Closed { conn: client.conn });
    }
    assert_eq!(stage.hub.drained_at(start + Duration::from_secs(3)), Some(start), "nobody is left");
    stage.handle(HubEvent::Leave);
    assert_eq!(stage.hub.drained_at(start), None);
}

// protocol 4.4, 6.4
#[test]
fn what_a_client_seals_wrongly_is_dropped_and_counted() {
    let mut stage = Stage::new();
    let mut a = stage.member(1);
    let mut b = stage.member(2);
    let ping = a.seal(&RelayMessage::Ping { id: 1 });
    stage.message(a.conn, &ping);
    stage.message(a.conn, &ping);
    assert_eq!(stage.dropped("replayed_frame"), 1);
    stage.message(b.conn, &ping);
    let mut flipped = a.seal(&RelayMessage::Ping { id: 2 });
    *flipped.last_mut().expect("long enough") ^= 1;
    stage.message(a.conn, &flipped);
    assert_eq!(stage.dropped("bad_frame"), 2, "another session's, and a flipped one");
    for inner in [&[INNER_CONTROL][..], &[INNER_CONTROL, 0xee], &[0x55, 1], &[INNER_CONTROL, 0x42, 1]] {
        let frame = a.seal_raw(inner);
        stage.message(a.conn, &frame);
    }
    let directory = a.seal(&RelayMessage::Directory { entries: Vec::new() });
    stage.message(a.conn, &directory);
    assert_eq!(stage.dropped("bad_control"), 5);
    stage.message(a.conn, &[1, 2, 3]);
    assert_eq!(stage.dropped("unexpected_message"), 1);
    for n in 0..600 {
        let ping = a.seal(&RelayMessage::Ping { id: n });
        stage.message(a.conn, &ping);
    }
    assert!((80..=100).contains(&stage.dropped("control_rate")), "{}", stage.dropped("control_rate"));
    stage.pass(10_000);
    stage.assert_healthy(&mut b, &mut a);
    stage.assert_healthy(&mut a, &mut b);
}
