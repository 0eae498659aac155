//! A node and what strangers, relays and members send it that is nobody's, too much, or of no kind: dropped under its name, and all goes on.
use super::*;
use crate::{
    config::Transports,
    crypto::Identity,
    crypto::rustcrypto::RustCrypto,
    event::{Ended, Target},
    handshake::Work,
    network::{Network, RelayAddress},
    wire::{
        Bound, CookieReply, Counter, Fragment, FragmentKind, FrameHeader, LANE_NODE, PathHeader, TYPE_BOUND, TYPE_COOKIE_REPLY, TYPE_FRAG,
        TYPE_OPENER,
    },
};
use core::net::IpAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

const STRANGER: &str = "203.0.113.7:6000";

struct World {
    node: Node,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let relay = RelayAddress::new("wss://relay.example", None).expect("a good URL");
        let network = Network::new([5; 32], "test", vec![relay]).expect("a good network");
        let config = NodeConfig {
            direct: Transports { udp: true, wss: true },
            ..NodeConfig::new(Arc::new(Identity::from_seed([3; 32])), Arc::new(RustCrypto), network)
        };
        let mut world = Self { node: Node::new(config), now: Instant::from_millis(5_000) };
        world.gives(Event::Entropy(&[4; 32]));
        world
    }

    fn gives(&mut self, event: Event<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.node.handle(self.now, event, &mut actions);
        actions
    }

    /// What happens is dropped for this reason, once, and nothing comes of it.
    #[track_caller]
    fn drops(&mut self, reason: Drop, event: Event<'_>) {
        let before = self.node.room.drops.clone();
        let actions = self.gives(event).len();
        for (name, count) in self.node.room.drops.iter() {
            let was = before.iter().find(|(other, _)| *other == name).map_or(0, |(_, was)| was);
            assert_eq!(count - was, u64::from(name == reason.label()), "{name}, not {}", reason.label());
        }
        assert_eq!(actions, 0, "actions");
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn whole(emit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    emit(&mut bytes);
    bytes
}

fn frame(lane: u8) -> Vec<u8> {
    let header = FrameHeader { epoch: 0, generation: 0, receiver: 99, counter: Counter::new(lane, 0) };
    [&header.to_bytes()[..], &[0; 33]].concat()
}

fn path_request() -> Vec<u8> {
    let header = PathHeader { kind: TYPE_PATH_REQ, epoch: 0, flags: 0, role: 1, receiver: 99, path: PathId(2), attempt: 1 };
    let request = crate::wire::PathRequest { header, nonce: [1; 32], seen: at(STRANGER), floor: 0 };
    [whole(|out| request.emit(out)), vec![0; 32]].concat()
}

fn fragment(kind: FragmentKind, total: u16) -> Vec<u8> {
    let fragment = Fragment { kind, with_cookie: false, index: 0, mark: 0, sid: 99, total, tag: [0; 16], body: &[7; 926] };
    whole(|out| fragment.emit(out))
}

// protocol 8.1, 8.4, 8.6
#[test]
fn a_datagram_of_nobody_is_dropped_under_its_name() {
    let mut world = World::new();
    let bound = Bound { receiver: 99, nonce: [1; 8], address: at(STRANGER), other_port: 0, ticket: [2; 16] };
    let key = crate::session::Chain::start(Zeroizing::new([1; 64]), crate::session::Suite::ChaCha20Poly1305);
    let bound = crate::binding::seal_bound(&key.keys(Side::Responder, &RustCrypto).path, &bound);
    let cookie = CookieReply { sid: 99, cookie: [1; 16], mac: [2; 16] };
    for (reason, bytes) in [
        (Drop::Malformed, vec![]),
        (Drop::Unexpected, vec![0x7f, 1, 2]),
        (Drop::Malformed, vec![TYPE_FRAME, 0]),
        (Drop::Unexpected, frame(0)),
        (Drop::UnknownSession, frame(LANE_NODE)),
        (Drop::UnknownSession, path_request()),
        (Drop::Malformed, vec![TYPE_BOUND, 0]),
        (Drop::UnknownSession, bound.to_vec()),
        (Drop::Malformed, vec![TYPE_COOKIE_REPLY, 0]),
        (Drop::Handshake, whole(|out| cookie.emit(out))),
        (Drop::Malformed, vec![TYPE_FRAG, 0]),
        (Drop::Handshake, fragment(FragmentKind::Resp, crate::handshake::RESP_LEN_MIN as u16)),
        (Drop::Forged, fragment(FragmentKind::Init, crate::handshake::INIT_LEN_MIN as u16)),
    ] {
        let mut bytes = bytes;
        world.drops(reason, Event::Datagram { remote: at(STRANGER), bytes: &mut bytes });
    }
    assert!(world.gives(Event::Datagram { remote: at(STRANGER), bytes: &mut [TYPE_OPENER] }).is_empty(), "it was for a NAT on the way");
    assert_eq!(world.node.room.drops.get(Drop::Unexpected), 2);
}

// protocol 8.6
#[test]
fn a_flow_with_a_socket_of_its_own_takes_no_handshake() {
    let mut world = World::new();
    let (conn, remote) = (ConnId::flow(3), at(STRANGER));
    world.node.room.conns.insert(conn, Use::Flow { remote, paths: 1, is_own: true });
    let mut init = fragment(FragmentKind::Init, crate::handshake::INIT_LEN_MIN as u16);
    world.drops(Drop::Unexpected, Event::Message { conn, handle: None, bytes: &mut init });
}

// protocol 6.2
#[test]
fn a_connection_that_nobody_asked_for_is_closed_and_says_nothing() {
    let mut world = World::new();
    let (conn, remote) = (ConnId(77), at(STRANGER));
    let tls = TlsFacts { exporter: [1; 32], identity: None, subject: None };
    let actions = world.gives(Event::Opened { conn, tls, local: remote, remote });
    assert!(matches!(actions[..], [Action::Hangup { conn: ConnId(77) }]));
    world.drops(Drop::Unexpected, Event::Message { conn, handle: None, bytes: &mut [1, 2, 3] });
    assert!(world.gives(Event::Closed { conn, why: Ended::Reset }).is_empty());
    // a dial that has not succeeded says nothing either
    world.node.room.conns.insert(conn, Use::Dialled { peer: PeerId([1; 32]) });
    world.drops(Drop::Unexpected, Event::Message { conn, handle: None, bytes: &mut [1, 2, 3] });
}

// protocol 6.2
#[test]
fn the_listener_takes_few_from_one_source_and_only_path_req_of_a_session_opens_its_door() {
    let mut world = World::new();
    for (number, first) in [vec![], path_request(), vec![TYPE_INIT, 1]].into_iter().enumerate() {
        let conn = ConnId(number as u64 * 2 + 1);
        let remote = at(STRANGER);
        assert!(world.gives(Event::Accepted { conn, exporter: [1; 32], local: remote, remote }).is_empty());
        let mut first = first;
        let actions = world.gives(Event::Message { conn, handle: None, bytes: &mut first });
        assert!(matches!(actions[..], [Action::Hangup { conn: closed }] if closed == conn), "{number}");
    }
    assert_eq!(world.node.room.drops.get(Drop::Accept), 3);
    let mut accept = |number: u64, ip: u8| {
        let (conn, remote) = (ConnId(number * 2 + 1), SocketAddr::from(([203, 0, 113, ip], 6000)));
        world.gives(Event::Accepted { conn, exporter: [1; 32], local: remote, remote }).is_empty()
    };
    let taken = (10..20).filter(|number| accept(*number, 7)).count();
    assert_eq!(taken, ACCEPTED_PER_SOURCE);
    let taken = (20..60).filter(|number| accept(*number, *number as u8 + 20)).count();
    assert_eq!(taken, ACCEPTED_MAX - ACCEPTED_PER_SOURCE, "over all sources");
}

// protocol 3.8, 3.9
#[test]
fn what_a_relay_hands_on_and_is_no_handshake_of_ours_is_dropped_under_its_name() {
    let mut world = World::new();
    let conn = ConnId(2);
    world.node.room.conns.insert(conn, Use::Uplink(0));
    let (handle, member) = (Some(Handle(7)), PeerId([1; 32]));
    for (reason, bytes) in [
        (Drop::Malformed, vec![]),
        (Drop::Unexpected, vec![0x7f]),
        (Drop::Handshake, vec![TYPE_RESP, 0]),
        (Drop::Handshake, [&[TYPE_RESP][..], &[1; crate::handshake::RESP_LEN_MIN - 1]].concat()),
        (Drop::Malformed, vec![TYPE_FIN, 0]),
        (Drop::Handshake, [&[TYPE_FIN][..], &[0; crate::handshake::FIN_LEN_MIN - 1]].concat()),
        (Drop::UnknownSession, frame(LANE_NODE)),
    ] {
        let mut bytes = bytes;
        world.drops(reason, Event::Message { conn, handle, bytes: &mut bytes });
    }
    let actions = world.gives(Event::Message { conn, handle, bytes: &mut [TYPE_INIT, 0] });
    assert!(matches!(&actions[..], [Action::Note(Note::Refused { who: None, .. })]), "altered, or of another network");
    assert_eq!(world.node.room.drops.get(Drop::Forged), 1);
    world.node.room.conns.insert(conn, Use::Direct { peer: member, path: PathId(2) });
    world.drops(Drop::Malformed, Event::Message { conn, handle: None, bytes: &mut [] });
    world.drops(Drop::Unexpected, Event::Message { conn, handle: None, bytes: &mut [TYPE_INIT] });
    assert!(world.gives(Event::Message { conn, handle: None, bytes: &mut path_request() }).is_empty(), "nobody has this link any more");
}

#[test]
fn a_relay_s_word_alone_does_not_fill_the_table_of_links() {
    let mut world = World::new();
    let peer = |number: usize| PeerId(core::array::from_fn(|at| number.to_be_bytes().get(at).copied().unwrap_or(9)));
    let node = &mut world.node;
    assert!(!node.ensure_link(world.now, node.room.own), "nobody has a link with itself");
    for number in 0..LINKS_MAX + 10 {
        assert!(node.ensure_link(world.now, peer(number)));
    }
    assert_eq!((node.links.len(), node.by_link.len()), (LINKS_MAX, LINKS_MAX));
    let mut actions = Vec::new();
    node.room.drain(usize::MAX, &mut actions);
    let forgotten = actions.iter().filter(|action| matches!(action, Action::Edit(Edit::Forget { .. }))).count();
    assert_eq!(forgotten, 10, "the plane forgets them too");
    // those that a relay has now are not idle and stay
    let via = Via { conn: ConnId(2), handle: Some(Handle(7)) };
    for (peer, link) in &mut node.links {
        let presence = Presence { peer: *peer, handle: Handle(7), public: None, online: true };
        link.present(world.now, &mut node.room, 0, presence, via, 256, false);
    }
    assert!(!node.ensure_link(world.now, peer(LINKS_MAX + 11)));
    assert_eq!((node.links.len(), node.by_link.len()), (LINKS_MAX, LINKS_MAX));
}

// protocol 6.3
#[test]
fn only_so_many_addresses_are_dialled_in_a_minute_whoever_names_them() {
    let mut room = crate::link::tests::room(Vec::new());
    let host = |number: u32| IpAddr::from(number.to_be_bytes());
    let (now, later) = (Instant::from_millis(5_000), Instant::from_millis(65_000));
    let granted = (0..2_000).filter(|number| room.may_dial(now, host(0x0a00_0000 + number))).count();
    assert_eq!(granted, 1_024);
    assert!(room.may_dial(now, host(0x0a00_0000)), "those that are counted already go on");
    assert!(room.may_dial(later, host(0x0b00_0000)), "others have rested");
}

#[test]
fn of_pings_that_wait_the_oldest_is_forgotten_and_of_jobs_the_next_is_not_begun() {
    let mut room = crate::link::tests::room(Vec::new());
    let (peer, now) = (PeerId([1; 32]), Instant::from_millis(5_000));
    for id in 1..=257 {
        room.pinged(id, peer, now);
    }
    assert_eq!((room.pong(1), room.pong(2), room.pong(257)), (None, Some((peer, now)), Some((peer, now))));
    assert_eq!(room.pong(2), None, "an answer counts once");
    let work = || Work::RekeyOffer { epoch: 1, coins: Zeroizing::new([1; 96]) };
    let begun = (0..100).filter_map(|_| room.compute(Owner::Uplink(0), work())).count();
    assert_eq!((begun, room.drops.get(Drop::HandshakeRate)), (64, 36));
}

#[test]
fn where_no_more_jobs_can_be_begun_a_relay_is_tried_again_later() {
    let mut world = World::new();
    let actions = world.gives(Event::Start);
    let dial = actions.iter().find_map(|action| match action {
        Action::Dial { conn, target: Target::Relay { .. }, .. } => Some(*conn),
        _ => None,
    });
    let conn = dial.expect("the relay is dialled");
    while world.node.room.compute(Owner::HalfOpen(0), Work::RekeyOffer { epoch: 1, coins: Zeroizing::new([1; 96]) }).is_some() {}
    let sids = world.node.room.sids.len();
    let tls = TlsFacts { exporter: [1; 32], identity: Some(PeerId([2; 32])), subject: None };
    let actions = world.gives(Event::Opened { conn, tls, local: at(STRANGER), remote: at(STRANGER) });
    assert!(
        actions.iter().any(|action| matches!(action, Action::Note(Note::RelayLost { why, .. }) if why.contains("too many handshakes")))
    );
    assert!(actions.iter().any(|action| matches!(action, Action::Hangup { conn: closed } if *closed == conn)));
    assert_eq!(world.node.room.sids.len(), sids, "no index is kept for it");
}

// protocol 3.1
#[test]
fn a_relay_behind_a_foreign_certificate_needs_its_identity_in_the_token() {
    for subject in [Some("CN=proxy.example".to_owned()), None] {
        let mut world = World::new();
        let actions = world.gives(Event::Start);
        let Some(Action::Dial { conn, .. }) = actions.iter().find(|action| matches!(action, Action::Dial { .. })) else { panic!("a dial") };
        let who = subject.clone().unwrap_or("an unnamed certificate".into());
        let tls = TlsFacts { exporter: [1; 32], identity: None, subject };
        let actions = world.gives(Event::Opened { conn: *conn, tls, local: at(STRANGER), remote: at(STRANGER) });
        let told = |action: &Action| matches!(action, Action::Note(Note::RelayLost { why, .. }) if why.contains(&who) && why.contains("--relay-id"));
        assert!(actions.iter().any(told), "{who}");
    }
}
