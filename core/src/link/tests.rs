//! A link alone at its table: what it does, and when it wants to be called again.
use super::*;
use crate::{
    config::{Member, Mode, NodeConfig, Transports},
    crypto::{Identity, rustcrypto::RustCrypto},
    drops::Drop,
    event::{Action, TlsFacts},
    id::{ConnId, Handle},
    network::{Network, RelayAddress},
    rehandshake::{Asker, Ground},
    session::{Chain, Side, Suite},
    wire::{Candidate, CandidateKind, PeerMessage, Transport},
};
use core::net::SocketAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

const PEER: PeerId = PeerId([0; 32]);
pub(crate) const VIA: Via = Via { conn: ConnId(2), handle: Some(Handle(7)) };

pub(crate) fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1000)
}

pub(crate) fn room(members: Vec<Member>) -> Room {
    Room::new(NodeConfig {
        identity: Arc::new(Identity::from_seed([3; 32])),
        crypto: Arc::new(RustCrypto),
        network: Network::new([5; 32], "test", vec![RelayAddress::new("wss://relay.example", None).expect("a relay")]).expect("a network"),
        name: "here".into(),
        suites: vec![Suite::ChaCha20Poly1305],
        layer2: false,
        mtu: 1280,
        addresses: vec![("10.0.0.1".parse().expect("an address"), 8)],
        direct: Transports::WSS,
        relay_udp: false,
        rekey_interval: NodeConfig::REKEY_INTERVAL,
        retry_interval: Duration::from_mins(1),
        health_check_interval: Duration::from_mins(1),
        connect_timeout: Duration::from_secs(5),
        close_relay: false,
        mode: Mode::SwitchLossless,
        advertise: Vec::new(),
        members,
        revoked: Vec::new(),
        claims: Vec::new(),
        lanes: 1,
        followers: crate::succession::Followers::default(),
        version: "test".into(),
    })
}

fn presence(online: bool) -> Presence {
    Presence { peer: PEER, handle: Handle(7), public: None, online }
}

fn link(room: &mut Room) -> Link {
    let mut link = Link::new(at(1), LinkId(0), PEER, room);
    link.present(at(1), room, 0, presence(true), VIA, 256, true);
    link
}

/// A link with a session in which we have this side.
pub(crate) fn connected(room: &mut Room, side: Side) -> Link {
    let mut link = link(room);
    link.abandon_greeting(room);
    let sid = room.fresh_sid(PEER);
    let chain = Arc::new(Chain::start(Zeroizing::new([9; 64]), Suite::ChaCha20Poly1305));
    let live = Live::new(at(1), chain, side, sid, 77, &RustCrypto);
    link.adopt(at(1), room, Adoption { live, params: Params::default(), started: at(1), met: None });
    link
}

// protocol 3.6, 4.3
#[test]
fn a_session_has_as_many_lanes_as_both_ends_have() {
    for (ours, theirs, both) in [(1, Some(4), 1), (4, None, 1), (4, Some(2), 2), (2, Some(127), 2), (3, Some(3), 3)] {
        let room = &mut room(Vec::new());
        room.config.lanes = ours;
        assert_eq!(room.own_params().lanes, (ours > 1).then_some(ours), "who has one says nothing");
        let mut link = link(room);
        link.abandon_greeting(room);
        let chain = Arc::new(Chain::start(Zeroizing::new([9; 64]), Suite::ChaCha20Poly1305));
        let live = Live::new(at(1), chain, Side::Responder, room.fresh_sid(PEER), 77, &RustCrypto);
        let params = Params { lanes: theirs, ..Params::default() };
        link.adopt(at(1), room, Adoption { live, params, started: at(1), met: None });
        let mut actions = Vec::new();
        room.drain(usize::MAX, &mut actions);
        let installed = actions.iter().find_map(|action| match action {
            Action::Edit(Edit::Install { install, .. }) => Some(install.lanes),
            _ => None,
        });
        assert_eq!(installed, Some(both), "{ours} here, {theirs:?} there");
    }
}

pub(crate) fn tally(frames: u64) -> LinkTally {
    LinkTally {
        link: LinkId(0),
        tx_frames: frames,
        tx_bytes: 0,
        rx_frames: 0,
        rx_bytes: 0,
        lost: 0,
        tx_lost: 0,
        duplicate: 0,
        reordered: 0,
        resent: 0,
        session_frames: frames,
        main: Some(PathId::RELAY),
        paths: Vec::new(),
        queued: 0,
    }
}

/// Alarms until nothing is due; a deadline that an alarm does not clear would ring for ever.
pub(crate) fn settle(link: &mut Link, now: Instant, room: &mut Room) {
    for _ in 0..20 {
        if link.deadline().is_none_or(|due| due > now) {
            return;
        }
        link.alarm(now, room);
    }
    panic!("an alarm at {now:?} rings for ever");
}

#[test]
fn waiting_for_a_peer_that_went_offline_rings_once() {
    let room = &mut room(Vec::new());
    let mut link = link(room);
    assert!(!link.greeting.is_idle(), "the larger PeerId waits for the other's INIT");
    link.present(at(1), room, 0, presence(false), VIA, 256, true);
    settle(&mut link, at(10), room);
    link.present(at(11), room, 0, presence(true), VIA, 256, true);
    assert!(!link.greeting.is_idle(), "back again, it is sought again");
}

#[test]
fn control_messages_without_a_way_ring_when_there_is_one_again() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Initiator);
    link.tell(at(2), room, &PeerMessage::RekeyPlease);
    link.uplink_lost(at(2), room, 0);
    settle(&mut link, at(60), room);
    link.present(at(61), room, 0, presence(true), VIA, 256, true);
    assert!(link.deadline().is_some_and(|due| due <= at(61)));
    settle(&mut link, at(61), room);
}

#[test]
fn a_session_of_age_without_a_relay_does_not_ring_for_ever() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Initiator);
    let day = at(24 * 3600 + 10);
    settle(&mut link, day, room);
    assert!(!link.greeting.is_idle(), "the renewal is under way");
    link.uplink_lost(day, room, 0);
    settle(&mut link, day, room);
}

// protocol 4.5
#[test]
fn the_first_frame_after_long_silence_rekeys_and_does_not_replace_the_session() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Initiator);
    link.tallied(at(3600), room, tally(1));
    assert!(link.greeting.is_idle(), "the keys are due, not overdue");
    link.tallied(at(3600 + 179), room, tally(2));
    assert!(link.greeting.is_idle());
    link.tallied(at(3600 + 180), room, tally(3));
    assert!(!link.greeting.is_idle(), "no rekey came about for 180 s with data: a new session");
}

// protocol 4.5
#[test]
fn a_further_rekey_is_refused_until_the_epoch_before_is_in_use() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Responder);
    let rekey1 = vec![0; 32 + 1568];
    let refused = room.drops.get(Drop::Unexpected);
    link.answer_rekey(at(2), room, 1, rekey1.clone());
    assert_eq!(room.drops.get(Drop::Unexpected), refused + 1, "too soon");
    // as if epoch 1 had been made, and nothing had come in it
    let next = Arc::new(link.live().expect("a session").chain().next(&[1; 32], &[2; 32], &[3; 64]));
    link.next_epoch(at(200), room, next, false);
    link.answer_rekey(at(400), room, 2, rekey1.clone());
    assert_eq!(room.drops.get(Drop::Unexpected), refused + 2, "epoch 0 still seals");
    link.epoch_heard(at(400), room, 1);
    link.answer_rekey(at(400), room, 2, rekey1);
    assert_eq!(room.drops.get(Drop::Unexpected), refused + 2);
}

// protocol 2.5
#[test]
fn a_peer_cannot_take_a_whole_prefix_by_announcing_ever_other_addresses() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Initiator);
    for round in 0..20_u8 {
        let addresses = (1..=16).map(|host| IpAddr::from([10, 1, round, host])).collect();
        link.take_params(room, Params { addresses, ..Params::default() });
    }
    assert_eq!(room.claims.len(), 16);
    let mut actions = Vec::new();
    room.drain(usize::MAX, &mut actions);
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::Remember { .. })).count(), 16);
}

// protocol 7.5
#[test]
fn a_session_that_the_other_end_forgot_is_made_anew() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Initiator);
    link.doubt_session(at(2), room);
    settle(&mut link, at(10), room);
    assert!(link.greeting.is_idle(), "it was heard a second before");
    link.doubt_session(at(20), room);
    settle(&mut link, at(22), room);
    assert!(link.greeting.is_idle(), "it may still answer");
    settle(&mut link, at(23), room);
    assert!(!link.greeting.is_idle());
    let mut link = connected(room, Side::Initiator);
    link.doubt_session(at(20), room);
    link.hear(at(21));
    settle(&mut link, at(30), room);
    assert!(link.greeting.is_idle(), "it answered");
}

fn facts() -> TlsFacts {
    TlsFacts { exporter: [4; 32], identity: None, subject: None }
}

// protocol 5.4
#[test]
fn the_initiator_numbers_its_paths_evenly_the_responder_oddly_and_sixteen_live_at_once() {
    for (side, odd) in [(Side::Initiator, 0), (Side::Responder, 1)] {
        let room = &mut room(Vec::new());
        let mut link = connected(room, side);
        let remote = SocketAddr::from(([192, 0, 2, 1], 4000));
        let mut begun = Vec::new();
        while begun.len() < 20 && link.begin_path(at(2), room, ConnId(begun.len() as u64 * 2), &facts(), remote, at(9)) {
            begun.push(link.directs.last().expect("it was just begun").path());
        }
        assert_eq!(begun, (1..=16).map(|number| PathId(number * 2 + odd)).collect::<Vec<_>>());
        link.path_died(at(3), room, begun[0], "a test");
        assert!(link.begin_path(at(4), room, ConnId(99), &facts(), remote, at(9)));
        assert_eq!(link.directs.last().map(Direct::path), Some(PathId(34 + odd)), "no number is used twice");
    }
}

// protocol 6.2
#[test]
fn the_plane_opens_an_accepted_connection_before_the_answer_to_path_req_goes_out_and_closes_it_with_the_path() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Responder);
    room.drain(usize::MAX, &mut Vec::new());
    let (conn, path) = (ConnId(5), PathId(2));
    let remote = SocketAddr::from(([192, 0, 2, 1], 4000));
    let live = link.live.as_ref().expect("it is connected");
    let key = live.chain().keys(Side::Initiator, &RustCrypto).path;
    let ground = Ground { path, own_sid: live.remote(), peer_sid: live.local(), channel_binding: [4; 32] };
    let request = Asker::new(ground).request(&key, remote, 0, [8; 32], 0);
    assert!(!link.asked_on(at(2), room, conn, [5; 32], remote, &request), "another connection's request");
    let mut actions = Vec::new();
    room.drain(usize::MAX, &mut actions);
    let opens =
        |action: &Action| matches!(action, Action::Edit(Edit::Path { path: opened, via, .. }) if *opened == path && via.conn == conn);
    assert!(!actions.iter().any(opens));
    assert!(link.asked_on(at(2), room, conn, [4; 32], remote, &request));
    room.drain(usize::MAX, &mut actions);
    let opened = actions.iter().position(opens).expect("the plane is told");
    let answered = actions.iter().position(|action| matches!(action, Action::Send { conn: to, .. } if *to == conn)).expect("an answer");
    assert!(opened < answered);
    settle(&mut link, at(60), room);
    room.drain(usize::MAX, &mut actions);
    assert!(actions.iter().any(|action| matches!(action, Action::Edit(Edit::Unpath { path: closed, .. }) if *closed == path)));
}

// protocol 6.3
#[test]
fn an_address_is_dialled_eight_times_a_minute_at_most_whoever_names_it() {
    let room = &mut room(Vec::new());
    let [target, other] = [IpAddr::from([192, 0, 2, 7]), IpAddr::from([192, 0, 2, 8])];
    let granted = (0..60).filter(|second| room.may_dial(at(*second), target)).count();
    assert_eq!(granted, 8);
    assert!(room.may_dial(at(59), other), "each address has its own count");
    assert!(room.may_dial(at(60), target), "the first dial is a minute old");
    assert!(!room.may_dial(at(60), target));
}

// protocol 6.3
#[test]
fn nobody_asks_itself_because_a_peer_has_the_same_address_in_another_place() {
    let room = &mut room(Vec::new());
    room.around.interfaces = vec![("192.168.1.2".parse().expect("an address"), 24)];
    (room.listen_port, room.udp_ports) = (Some(4_001), (Some(4_002), None));
    let may = |room: &Room, transport, address: &str| {
        let address = address.parse().expect("an address");
        room.permits(&Candidate { kind: CandidateKind::Host, transport, priority: 1, address }, None).is_ok()
    };
    for (own, other, transport) in [(4_001, 4_002, Transport::Wss), (4_002, 4_001, Transport::Udp)] {
        assert!(!may(room, transport, &format!("192.168.1.2:{own}")), "{transport:?}");
        assert!(may(room, transport, &format!("192.168.1.2:{other}")), "another process on this host may be the peer");
        assert!(may(room, transport, &format!("192.168.1.3:{own}")), "another host of this place");
    }
}

// protocol 6.3
#[test]
fn candidates_of_a_lower_or_equal_generation_are_dropped() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Initiator);
    let at_port =
        |port| Candidate { kind: CandidateKind::Host, transport: Transport::Wss, priority: 1, address: ([192, 0, 2, 7], port).into() };
    link.take_candidates(at(2), room, 5, &[at_port(1000)]);
    for old in [5, 4, 0] {
        link.take_candidates(at(3), room, old, &[at_port(2000)]);
    }
    assert_eq!(room.drops.get(Drop::Control), 3);
    assert_eq!(link.candidates.iter().map(|(candidate, _)| candidate.address.port()).collect::<Vec<_>>(), [1000]);
    link.take_candidates(at(4), room, 6, &[at_port(3000), at_port(3001)]);
    assert_eq!(link.candidates.len(), 2);
}

// protocol 6.3
#[test]
fn rounds_that_new_candidates_cause_are_few_and_wait_from_those_before() {
    let room = &mut room(Vec::new());
    room.config.connect_timeout = Duration::from_mins(1);
    let mut link = connected(room, Side::Initiator);
    let candidate =
        |port| Candidate { kind: CandidateKind::Host, transport: Transport::Wss, priority: 1, address: ([192, 0, 2, 7], port).into() };
    link.alarm(at(9), room);
    let mut told = 0;
    let mut tell = |link: &mut Link, now, room: &mut Room| {
        told += 1;
        link.take_candidates(now, room, told, &[candidate(2_000 + told as u16)]);
        link.attempt.next_at().expect("a round is due")
    };
    for _ in 0..3 {
        assert_eq!(tell(&mut link, at(10), room), at(10), "where it is after a change comes in pieces");
        link.alarm(at(10), room);
    }
    assert_eq!(tell(&mut link, at(12), room), at(15), "five seconds for each round so far, ten of them on credit");
    assert_eq!(tell(&mut link, at(14), room), at(15), "more words put nothing off");
    link.alarm(at(15), room);
    assert_eq!(tell(&mut link, at(16), room), at(20));
    link.alarm(at(20), room);
    assert_eq!(tell(&mut link, at(60), room), at(60), "it has rested");
}

// protocol 6.3
#[test]
fn candidates_that_come_amid_a_round_are_asked_in_it() {
    let room = &mut room(Vec::new());
    (room.config.direct, room.udp_ports) = (Transports::UDP, (Some(4_000), None));
    let mut link = connected(room, Side::Initiator);
    let candidate =
        |host| Candidate { kind: CandidateKind::Host, transport: Transport::Udp, priority: 1, address: ([192, 0, 2, host], 9_000).into() };
    let asked = |link: &mut Link, generation, hosts: &[u8], room: &mut Room| {
        let candidates: Vec<_> = hosts.iter().copied().map(candidate).collect();
        link.take_candidates(at(10), room, generation, &candidates);
        link.alarm(at(10), room);
        let mut actions = Vec::new();
        room.drain(usize::MAX, &mut actions);
        let sent = actions.into_iter().filter_map(|action| match action {
            Action::Datagram { remote, .. } => Some(remote),
            _ => None,
        });
        sent.collect::<Vec<_>>()
    };
    assert_eq!(asked(&mut link, 1, &[7], room), [candidate(7).address]);
    assert_eq!(asked(&mut link, 2, &[7, 8], room), [candidate(8).address], "the first is asked already");
}

// protocol 7.5
#[test]
fn a_relay_that_comes_back_carries_copies_of_what_a_suspect_path_may_have_lost() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Responder);
    let path = proven(&mut link, room, 4000);
    link.uplink_lost(at(3), room, 0);
    link.stalled(at(3), room, path, Duration::from_millis(30));
    let mut actions = Vec::new();
    let hedges = |action: &Action| matches!(action, Action::Edit(Edit::Hedge { rescue: PathId::RELAY, .. }));
    room.drain(usize::MAX, &mut actions);
    assert!(!actions.iter().any(hedges), "there is no relay");
    link.present(at(3), room, 0, presence(true), VIA, 256, true);
    room.drain(usize::MAX, &mut actions);
    assert!(actions.iter().any(hedges));
}

// protocol 7.5
#[test]
fn the_hold_down_after_a_failure_is_for_the_place_that_failed() {
    let room = &mut room(Vec::new());
    for (port, direct) in [(4000, false), (4001, true)] {
        let mut link = connected(room, Side::Responder);
        let path = proven(&mut link, room, 4000);
        link.path_died(at(2), room, path, "a test");
        assert!(!link.is_direct());
        proven(&mut link, room, port);
        assert_eq!(link.is_direct(), direct, "{port}");
    }
}

/// A path by UDP to this port that the other end asked for, proven at second 2.
fn proven(link: &mut Link, room: &mut Room, port: u16) -> PathId {
    (room.config.direct, room.udp_ports) = (Transports::UDP, (Some(4_000), None));
    proven_at(link, room, SocketAddr::from(([192, 0, 2, 1], port)))
}

/// The same at this address; we are the session's responder.
pub(crate) fn proven_at(link: &mut Link, room: &mut Room, remote: SocketAddr) -> PathId {
    let live = link.live.as_ref().expect("it is connected");
    let key = live.chain().keys(Side::Initiator, &RustCrypto).path;
    let is_fresh = |path: &PathId| !link.is_given_up(*path) && link.directs.iter().all(|direct| direct.path() != *path);
    let path = (2..1_000).map(PathId).find(is_fresh).expect("a fresh number");
    let ground = Ground { path, own_sid: live.remote(), peer_sid: live.local(), channel_binding: [0; 32] };
    let mut asker = Asker::new(ground);
    room.drain(usize::MAX, &mut Vec::new());
    let size = room.config.largest_frame();
    let source = crate::node::Source { remote, own_flow: None };
    link.path_datagram(at(2), room, source, &asker.request(&key, remote, 0, [8; 32], size));
    let mut actions = Vec::new();
    room.drain(usize::MAX, &mut actions);
    let answer = actions.iter().find_map(|action| match action {
        Action::Datagram { bytes, .. } => Some(bytes),
        _ => None,
    });
    let (complete, _) = asker.complete(&key, answer.expect("an answer"), remote, 0).expect("it verifies");
    link.path_datagram(at(2), room, source, &complete);
    path
}

// protocol 3.8
#[test]
fn fifty_new_handshakes_are_answered_in_a_second_and_no_more() {
    let room = &mut room(Vec::new());
    assert_eq!((0..200).filter(|n| room.may_answer(Instant::from_millis(5_000 + n))).count(), 50);
    assert_eq!((0..60_000).filter(|n| room.may_answer(Instant::from_millis(100_000 + n))).count(), 60 * 50);
}

fn heard_data(at: Instant) -> LinkTally {
    let heard = crate::plane::PathTally { path: PathId::RELAY, heard_at: Some(at), rtt: None };
    LinkTally { paths: vec![heard], ..tally(0) }
}

// protocol 3.9
#[test]
fn data_of_a_session_does_not_say_that_the_other_end_still_has_it_for_its_newest() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Initiator);
    link.uplink_lost(at(2), room, 0);
    link.present(at(3), room, 0, presence(true), VIA, 256, true);
    link.tallied(at(3), room, heard_data(Instant::from_millis(2_900)));
    settle(&mut link, at(3), room);
    assert!(link.greeting.is_idle(), "it is asked");
    settle(&mut link, at(4), room);
    assert!(!link.greeting.is_idle(), "what it owed in a session before came, but no answer");
}

// protocol 3.9
#[test]
fn a_session_that_its_initiator_does_not_use_is_made_anew() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Responder);
    settle(&mut link, at(6), room);
    assert!(link.greeting.is_idle(), "FIN may come again until then");
    settle(&mut link, at(7), room);
    assert!(!link.greeting.is_idle());
    let mut link = connected(room, Side::Responder);
    link.hear(at(2));
    settle(&mut link, at(7), room);
    assert!(link.greeting.is_idle(), "it was used");
}

// protocol 6.3
#[test]
fn a_candidate_that_cannot_be_tried_says_why() {
    let room = &mut room(Vec::new());
    (room.config.direct, room.udp_ports) = (Transports::UDP, (Some(4_000), None));
    let mut link = connected(room, Side::Initiator);
    let busy = SocketAddr::from(([192, 0, 2, 7], 9_000));
    while room.may_probe(at(9), busy.ip()) {}
    let refused = room.drops.get(Drop::Candidate);
    let candidates = ["[2001:db8::7]:9000".parse().expect("an address"), busy].map(|address| Candidate {
        kind: CandidateKind::Host,
        transport: Transport::Udp,
        priority: 1,
        address,
    });
    link.take_candidates(at(10), room, 1, &candidates);
    link.alarm(at(10), room);
    for (candidate, said) in &link.candidates {
        let why = if candidate.address == busy { "asked often in the last minute" } else { "no UDP socket of this address family" };
        assert!(said.contains(why), "{}: {said}", candidate.address);
    }
    assert_eq!(link.candidates.len(), 2);
    assert_eq!(room.drops.get(Drop::Candidate), refused + 2);
}

// protocol 5.4, 6.3
#[test]
fn a_connection_for_which_there_is_no_path_is_closed_again() {
    let room = &mut room(Vec::new());
    let mut link = connected(room, Side::Initiator);
    let remote = SocketAddr::from(([192, 0, 2, 7], 4_001));
    let candidate = Candidate { kind: CandidateKind::Host, transport: Transport::Wss, priority: 1, address: remote };
    link.take_candidates(at(10), room, 1, &[candidate]);
    link.alarm(at(10), room);
    let mut actions = Vec::new();
    room.drain(usize::MAX, &mut actions);
    let dialled = actions.iter().find_map(|action| if let Action::Dial { conn, .. } = action { Some(*conn) } else { None });
    let dialled = dialled.expect("the candidate is dialled");
    let stray = ConnId(999);
    room.conns.insert(stray, crate::node::Use::Dialled { peer: PEER });
    while link.begin_path(at(10), room, ConnId(500 + link.directs.len() as u64 * 2), &facts(), remote, at(99)) {}
    for conn in [stray, dialled] {
        room.drain(usize::MAX, &mut Vec::new());
        link.opened(at(11), room, conn, &facts(), remote);
        actions.clear();
        room.drain(usize::MAX, &mut actions);
        assert!(actions.iter().any(|action| matches!(action, Action::Hangup { conn: closed } if *closed == conn)), "{conn:?}");
    }
    assert!(link.candidates[0].1.contains("too many paths"), "{}", link.candidates[0].1);
}
