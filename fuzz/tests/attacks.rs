//! A man in the middle, a relay of ill will, a member of ill will: nobody but the two peers gets a session or moves one.
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use shadowmesh_core::{
    event::Note,
    id::{Handle, PeerId},
    network::Network,
    status::RelayState,
    wire::{PathLabel, TYPE_FIN, TYPE_FRAME, TYPE_INIT, TYPE_PATH_REQ, TYPE_RESP},
};
use shadowmesh_fuzz::world::{Certificate, HostId, World, deliver, forward, payloads, rewrite};
use std::{net::SocketAddr, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

// ---- who ends TLS ----------------------------------------------------------------------------------------------

// protocol 1.3
#[test]
fn somebody_with_an_identity_of_his_own_before_the_relay_is_refused_by_certificate() {
    let mut world = World::new(60);
    let relay = world.relay();
    let b = world.peer(relay);
    let a = world.idle_peer(&[relay], |_| {});
    let certificate = Certificate { identity: Some(world.id(b)), subject: None };
    world.stand_between(a, relay, certificate);
    world.start(a);
    world.run(10 * SECOND);
    assert_ne!(world.status(a).relays[0].state, RelayState::Connected);
    assert!(refusals(&mut world, a) > 0);
    assert!(world.status(a).relays[0].last_error.as_ref().is_some_and(|why| why.contains("not to the expected identity")));
    assert_eq!(world.hub_status(relay).clients.len(), 1, "only b is in");
    world.step_aside(a, relay);
    world.until_connected(a, b);
}

// protocol 1.4
#[test]
fn somebody_with_an_ordinary_certificate_before_the_relay_is_refused_by_the_handshake() {
    let mut world = World::new(61);
    let relay = world.relay();
    let a = world.idle_peer(&[relay], |_| {});
    world.stand_between(a, relay, foreign());
    world.start(a);
    world.run(10 * SECOND);
    assert_ne!(world.status(a).relays[0].state, RelayState::Connected);
    assert!(refusals(&mut world, a) > 0, "the exporters differ, so the relay's signature is over another transcript");
    assert_eq!(world.hub_status(relay).clients.len(), 0);
}

// protocol 1.4
#[test]
fn a_relay_behind_an_ordinary_certificate_of_its_own_is_trusted_by_the_handshake() {
    let mut world = World::new(62);
    let relay = world.relay_with(|_| {});
    world.show_certificate(relay, foreign());
    world.start(relay);
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_connected(a, b);
}

#[test]
fn somebody_in_a_direct_connection_is_refused_by_certificate_and_traffic_stays_on_the_relay() {
    let mut world = World::new(63);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    for (from, to) in [(a, b), (b, a)] {
        let certificate = Certificate { identity: Some(world.id(relay)), subject: None };
        world.stand_between(from, to, certificate);
    }
    stays_on_the_relay(&mut world, a, b);
    assert!(refusals(&mut world, a) + refusals(&mut world, b) > 0);
}

// protocol 5.2
#[test]
fn somebody_in_a_direct_connection_with_the_stolen_certificate_is_refused_by_the_exporter() {
    let mut world = World::new(64);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    for (from, to) in [(a, b), (b, a)] {
        let certificate = Certificate { identity: Some(world.id(to)), subject: None };
        world.stand_between(from, to, certificate);
    }
    stays_on_the_relay(&mut world, a, b);
    for host in [a, b] {
        assert!(world.dropped(host, "rehandshake") > 0);
        assert!(refusals(&mut world, host) > 0, "a wrong MAC is worth a log line");
    }
}

// protocol 6.3
#[test]
fn a_relay_that_lies_about_addresses_sends_nobody_anywhere() {
    let mut world = World::new(65);
    let relay = world.relay();
    let mallory = world.peer(relay);
    world.until("mallory listens", 5 * SECOND, |w| w.status(mallory).relays[0].state == RelayState::Connected);
    let elsewhere = world.address(mallory, true);
    world.let_lie(relay, Box::new(move |real| SocketAddr::new(elsewhere, real.port())));
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 200);
    world.until_direct(a, b);
    let remote = world.peer_status(a, b).and_then(|peer| peer.path?.remote).expect("a direct path has an address");
    assert_ne!(remote.ip(), elsewhere);
    world.assert_whole(&flows);
}

// ---- what a relay does with messages -----------------------------------------------------------------------------

#[test]
fn a_relay_that_alters_any_handshake_message_gets_no_session_and_is_counted() {
    for (kind, offset) in
        [(TYPE_INIT, 1), (TYPE_INIT, 9), (TYPE_INIT, 60), (TYPE_RESP, 2), (TYPE_RESP, 50), (TYPE_RESP, 3_000), (TYPE_FIN, 5_000)]
    {
        let mut world = World::new(66);
        let (relay, a, b) = members(&mut world, move |payload| {
            if payload[0] == kind {
                payload[offset] ^= 1;
            }
        });
        world.run(8 * SECOND);
        assert!(!world.is_connected(a, b) && !world.is_connected(b, a), "type {kind} at {offset}");
        let counted: u64 = [a, b].iter().map(|host| world.dropped(*host, "forged") + world.dropped(*host, "handshake")).sum();
        let told = refusals(&mut world, a) + refusals(&mut world, b);
        assert!(counted > 0 && told > 0, "type {kind} at {offset}: {counted} counted, {told} said");
        untap(&mut world, relay, a, b);
        world.until_connected(a, b);
    }
}

#[test]
fn a_relay_that_gives_one_members_messages_as_anothers_is_refused() {
    let mut world = World::new(67);
    let relay = world.relay();
    let [a, b, c] = [world.peer(relay), world.idle_peer(&[relay], |_| {}), world.peer(relay)];
    world.until_connected(a, c);
    let handle = |world: &mut World, host: HostId| handle_of(world, relay, host);
    let (of_a, of_c) = (handle(&mut world, a), handle(&mut world, c));
    // b hears a as c and c as a
    let swap = move |letter: shadowmesh_fuzz::world::Letter| {
        vec![rewrite(&letter.bytes, |handle, _| {
            *handle = if *handle == of_a {
                of_c
            } else if *handle == of_c {
                of_a
            } else {
                *handle
            };
        })]
    };
    world.tap(relay, b, Box::new(swap));
    world.start(b);
    world.run(8 * SECOND);
    for host in [a, c] {
        assert!(!world.is_connected(host, b) && !world.is_connected(b, host));
    }
    let counted: u64 = [a, b, c].iter().map(|host| world.dropped(*host, "forged") + world.dropped(*host, "handshake")).sum();
    assert!(counted > 0);
    world.untap(relay, b);
    world.until_connected(a, b);
}

#[test]
fn a_relay_that_alters_frames_loses_them_and_harms_no_session() {
    let mut world = World::new(68);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.refuse(a, b);
    world.until_connected(a, b);
    let flow = world.stream(a, b, 200);
    world.run(SECOND);
    let session = world.peer_status(b, a).and_then(|peer| peer.handshake_at);
    let mut count = 0;
    world.tap(
        relay,
        b,
        Box::new(move |letter| {
            count += 1;
            let altered = rewrite(&letter.bytes, |_, payload| {
                if payload[0] == TYPE_FRAME && count % 3 == 0 {
                    let at = count % payload.len();
                    payload[at.max(1)] ^= 0x40;
                }
            });
            vec![altered]
        }),
    );
    world.run(2 * SECOND);
    world.untap(relay, b);
    world.run(SECOND);
    assert!(world.dropped(b, "forged") > 0);
    let account = world.account_of(flow);
    assert_eq!((account.doubled, account.reordered), (0, 0));
    assert_eq!(world.peer_status(b, a).and_then(|peer| peer.handshake_at), session, "the session is the same");
    let fresh = world.stream(a, b, 200);
    world.run(SECOND);
    world.assert_whole(&[fresh]);
}

// ---- downgrade by somebody who even knows the network's secret ------------------------------------------------------

// protocol 3.7
#[test]
fn an_offer_that_was_cut_down_on_the_way_is_no_session() {
    // only suite 1 of two is left; the order is turned; suites that nobody knows
    for suites in [[1, 0, 0, 0], [2, 1, 0, 0], [7, 9, 0, 0]] {
        downgrade(TYPE_INIT, move |init| {
            init[8] = suites.iter().filter(|suite| **suite != 0).count() as u8;
            for (slot, suite) in suites.iter().enumerate() {
                init[12 + 2 * slot + 1] = *suite;
            }
        });
    }
}

// protocol 3.1
#[test]
fn an_offer_of_another_version_is_no_session() {
    for versions in [[0, 0], [0, 1], [1, 2], [2, 2]] {
        downgrade(TYPE_INIT, move |init| init[1..3].copy_from_slice(&versions));
    }
}

#[test]
fn an_answer_with_another_suite_or_version_is_no_session() {
    downgrade(TYPE_RESP, |resp| resp[3] ^= 3);
    downgrade(TYPE_RESP, |resp| resp[1] = 2);
    downgrade(TYPE_RESP, |resp| resp[1] = 0);
}

/// Alters each message of this kind and makes its mac1 anew: there is no session, and it is said aloud.
fn downgrade(kind: u8, alter: impl Fn(&mut Vec<u8>) + Clone + 'static) {
    let mut world = World::new(69);
    let network = world.network().clone();
    let relay = world.relay();
    let (a, b) = (world.idle_peer(&[relay], |_| {}), world.idle_peer(&[relay], |_| {}));
    // INIT goes to the responder, and RESP comes from it: mac1 of both is keyed with its name
    let responder = world.id(a).max(world.id(b));
    let change = move |payload: &mut Vec<u8>| {
        if payload[0] == kind {
            alter(payload);
            make_mac1(&network, responder, kind, payload);
        }
    };
    tap_both(&mut world, relay, a, b, change);
    world.start(a);
    world.start(b);
    world.run(5 * SECOND);
    assert!(!world.is_connected(a, b) && !world.is_connected(b, a));
    let counted: u64 = [a, b].iter().map(|host| world.dropped(*host, "handshake")).sum();
    assert!(counted > 0 && refusals(&mut world, a) + refusals(&mut world, b) > 0, "a hard error that somebody can see");
}

fn make_mac1(network: &Network, responder: PeerId, kind: u8, message: &mut [u8]) {
    let key = hmac(network.psk(), &[b"mac1", &responder.0]);
    let (until, at) = match kind {
        TYPE_INIT => (message.len() - 32, message.len() - 32),
        _ => (message.len() - 16, message.len() - 16),
    };
    let mac = hmac(&key, &[&message[..until]]);
    message[at..at + 16].copy_from_slice(&mac[..16]);
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key fits");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

// ---- a session id in other hands -----------------------------------------------------------------------------------

#[test]
fn frames_and_path_messages_of_another_member_with_a_stolen_session_id_have_no_effect() {
    let mut world = World::new(70);
    let relay = world.relay();
    let [a, b, c] = [world.peer(relay), world.peer(relay), world.peer(relay)];
    let stranger = world.stranger();
    world.record();
    world.until_direct(a, b);
    world.until_direct(a, c);
    let flows = world.both_ways(a, b, 500);
    world.run(2 * SECOND);
    let stolen: Vec<Vec<u8>> = world
        .recorded()
        .iter()
        .filter(|letter| letter.from == a && (letter.to == b || letter.to == relay))
        .flat_map(|letter| payloads(&letter.bytes))
        .filter(|(handle, payload)| *handle != Some(handle_of(&mut world, relay, c)) && matches!(payload[0], 0x10 | 0x20..=0x22))
        .map(|(_, payload)| payload)
        .collect();
    assert!(stolen.len() > 500);
    let before = world.peer_status(b, a).map(|peer| (peer.handshake_at, peer.path.map(|path| path.id), peer.epoch));
    let to_b = handle_of(&mut world, relay, b);
    let listener = world.listener(b).expect("b listens");
    for (at, payload) in stolen.iter().enumerate().step_by(7) {
        // as it was, and with a bit of it turned: over the relay, and on the direct connection of another pair
        let mut forged = payload.clone();
        let flip = (at % (forged.len() - 8)).max(8);
        forged[flip] ^= 1;
        for bytes in [payload, &forged] {
            world.inject(c, relay, &forward(to_b, bytes));
            world.inject(c, b, bytes);
            world.inject(c, b, &forward(Handle(0), bytes));
        }
        world.run(Duration::from_millis(1));
    }
    for request in stolen.iter().filter(|payload| payload[0] == TYPE_PATH_REQ).take(5) {
        let conn = world.knock(stranger, listener).expect("the door opens, and asks for proof");
        world.say(stranger, conn, request);
        world.run(SECOND);
        let (heard, ended) = world.heard(stranger, conn);
        assert!(heard.is_empty() && ended.is_some(), "no answer, and shown out");
    }
    assert!(world.dropped(b, "forged") > 0 && world.dropped(b, "duplicate") > 0);
    assert!(world.dropped(b, "accept") + world.dropped(b, "rehandshake") > 0);
    assert_eq!(world.peer_status(b, a).map(|peer| (peer.handshake_at, peer.path.map(|path| path.id), peer.epoch)), before);
    world.assert_whole(&flows);
}

// protocol 6.2
#[test]
fn frames_that_a_relay_gave_away_are_not_opened_on_a_connection_that_has_proven_nothing() {
    let mut world = World::new(73);
    let relay = world.relay();
    let [a, b] = [world.peer(relay), world.peer(relay)];
    let stranger = world.stranger();
    world.record();
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 500);
    world.until_direct(a, b);
    let is_data = |payload: &[u8]| payload[0] == TYPE_FRAME && payload[8] == 0;
    let overheard: Vec<Vec<u8>> = world
        .recorded()
        .iter()
        .filter(|letter| letter.from == a && letter.to == relay)
        .flat_map(|letter| payloads(&letter.bytes))
        .map(|(_, payload)| payload)
        .filter(|payload| is_data(payload))
        .take(3)
        .collect();
    assert_eq!(overheard.len(), 3, "the first data went over the relay");
    let listener = world.listener(b).expect("b listens");
    for (frame, counted) in overheard.iter().zip(1..) {
        let (duplicates, conn) =
            (world.dropped(b, "duplicate"), world.knock(stranger, listener).expect("the door opens, and asks for proof"));
        world.say(stranger, conn, frame);
        world.run(SECOND);
        let (heard, ended) = world.heard(stranger, conn);
        assert!(heard.is_empty() && ended.is_some(), "no receipt, and shown out");
        assert_eq!(world.dropped(b, "accept"), counted);
        assert_eq!(world.dropped(b, "duplicate"), duplicates, "nobody has opened it");
    }
    world.assert_whole(&flows);
}

// protocol 2.5
#[test]
fn a_member_cannot_send_with_anothers_address() {
    let mut world = World::new(71);
    let relay = world.relay();
    let [a, b, c] = [world.peer(relay), world.peer(relay), world.peer(relay)];
    world.until_connected(a, b);
    world.until_connected(c, b);
    // c has a host behind it that uses the address of a
    let forged = world.stream_as(a, c, b, 100);
    let honest = world.stream(a, b, 100);
    world.run(2 * SECOND);
    world.stop(forged);
    assert_eq!(world.account_of(forged).handed, world.account_of(forged).lost, "nothing of it came out");
    assert!(world.dropped(b, "source_address") > 0);
    world.assert_whole(&[honest]);
}

// ---- helpers -----------------------------------------------------------------------------------------------------

fn foreign() -> Certificate {
    Certificate { identity: None, subject: Some("CN=proxy.example".into()) }
}

fn refusals(world: &mut World, host: HostId) -> usize {
    world.noted(host, |note| matches!(note, Note::Refused { .. }))
}

fn stays_on_the_relay(world: &mut World, a: HostId, b: HostId) {
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 200);
    world.run(10 * SECOND);
    assert_eq!((world.label(a, b), world.label(b, a)), (Some(PathLabel::RelayWss), Some(PathLabel::RelayWss)));
    world.assert_whole(&flows);
}

fn handle_of(world: &mut World, relay: HostId, host: HostId) -> Handle {
    let id = world.id(host);
    world.hub_status(relay).clients.into_iter().find(|client| client.id == id).expect("a client").handle
}

/// A relay that changes every payload between it and its two members.
fn members(world: &mut World, change: impl Fn(&mut Vec<u8>) + Clone + 'static) -> (HostId, HostId, HostId) {
    let relay = world.relay();
    let (a, b) = (world.idle_peer(&[relay], |_| {}), world.idle_peer(&[relay], |_| {}));
    tap_both(world, relay, a, b, change);
    world.start(a);
    world.start(b);
    (relay, a, b)
}

/// Changes what the relay delivers; what it says itself it leaves alone.
fn tap_both(world: &mut World, relay: HostId, a: HostId, b: HostId, change: impl Fn(&mut Vec<u8>) + Clone + 'static) {
    for host in [a, b] {
        let change = change.clone();
        let tap = move |letter: shadowmesh_fuzz::world::Letter| {
            if letter.from != relay {
                return vec![letter.bytes];
            }
            let records = payloads(&letter.bytes);
            if records.iter().any(|(handle, _)| handle.is_none()) {
                return vec![letter.bytes];
            }
            let changed = records.into_iter().flat_map(|(handle, mut payload)| {
                change(&mut payload);
                deliver(handle.unwrap_or(Handle(0)), &payload)
            });
            vec![changed.collect()]
        };
        world.tap(relay, host, Box::new(tap));
    }
}

fn untap(world: &mut World, relay: HostId, a: HostId, b: HostId) {
    world.untap(relay, a);
    world.untap(relay, b);
}
