//! Data that take a relay's UDP port: when they do, and when they leave it.
use super::*;
use crate::{
    config::Transports,
    event::Action,
    link::tests::{at, connected, proven_at, room, tally},
    node::Source,
    plane::Edit,
    session::Side,
    wire::{PathLabel, TYPE_PATH_REQ},
};

const RELAY: usize = 0;

fn door() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], 8_443))
}

/// A table at which the relay of the link passes datagrams on.
fn with_door() -> Room {
    let mut room = room(Vec::new());
    (room.config.direct, room.udp_ports) = (Transports::NONE, (Some(4_000), None));
    room.config.relay_udp = true;
    room.open_door(RELAY, door());
    room
}

fn drained(room: &mut Room) -> Vec<Action> {
    let mut actions = Vec::new();
    room.drain(usize::MAX, &mut actions);
    actions
}

/// Where requests go now.
fn requests(room: &mut Room) -> Vec<SocketAddr> {
    let asks = |action| match action {
        Action::Datagram { remote, bytes } if bytes.first() == Some(&TYPE_PATH_REQ) => Some(remote),
        _ => None,
    };
    drained(room).into_iter().filter_map(asks).collect()
}

/// Data flow in each of these seconds.
fn flows(link: &mut Link, room: &mut Room, seconds: core::ops::RangeInclusive<u64>) {
    for second in seconds {
        link.tallied(at(second), room, tally(second));
        link.alarm(at(second), room);
    }
}

// protocol 8.8
#[test]
fn data_on_the_relay_path_for_five_seconds_ask_for_a_detour() {
    let room = &mut with_door();
    let mut link = connected(room, Side::Responder);
    drained(room);
    flows(&mut link, room, 2..=5);
    assert!(link.directs.is_empty(), "a direct path may still be found");
    flows(&mut link, room, 6..=6);
    let receiver = link.live().expect("a session").remote();
    assert_eq!(room.take_named(), [(RELAY, receiver, Handle(7))]);
    assert_eq!(requests(room), [door()]);
    assert!(link.directs[0].conn().is_passed_on());
}

// protocol 8.8
#[test]
fn none_is_asked_for_without_data_a_door_or_the_wish() {
    let room = &mut with_door();
    let mut link = connected(room, Side::Responder);
    for second in 2..60 {
        link.tallied(at(second), room, tally(1));
    }
    assert!(link.directs.is_empty(), "nothing flows");
    room.config.relay_udp = false;
    flows(&mut link, room, 61..=69);
    room.config.relay_udp = true;
    room.close_door(RELAY);
    flows(&mut link, room, 70..=79);
    assert!(link.directs.is_empty());
    room.open_door(RELAY, door());
    flows(&mut link, room, 80..=80);
    assert_eq!(link.directs.len(), 1);
}

// protocol 8.8
#[test]
fn one_that_is_not_found_is_asked_for_again_later() {
    let room = &mut with_door();
    let mut link = connected(room, Side::Responder);
    flows(&mut link, room, 2..=6);
    assert_eq!(link.directs.len(), 1);
    flows(&mut link, room, 7..=15);
    assert!(link.directs.is_empty(), "nobody answered");
    flows(&mut link, room, 16..=21);
    assert_eq!(link.directs.len(), 1);
}

// protocol 8.8
#[test]
fn it_carries_the_traffic_and_is_no_direct_path() {
    let room = &mut with_door();
    let mut link = connected(room, Side::Responder);
    let path = proven_at(&mut link, room, door());
    assert_eq!(link.steer.main(), path);
    assert!(!link.is_direct() && link.is_on_detour());
    let status = link.status(|_| None);
    let shown = status.path.expect("it is connected");
    assert_eq!((shown.label, shown.relay, shown.remote), (PathLabel::RelayUdp, Some(RELAY), Some(door())));
    assert_eq!(room.totals.connections_direct, 0);
    // what leads straight there takes over, and the detour is let go of when that has lasted
    (room.config.direct, room.udp_ports) = (Transports::UDP, (Some(4_000), None));
    let direct = proven_at(&mut link, room, SocketAddr::from(([192, 0, 2, 1], 4_000)));
    assert_eq!(link.steer.main(), direct);
    flows(&mut link, room, 3..=11);
    assert!(link.directs.iter().any(Direct::is_detour));
    flows(&mut link, room, 12..=12);
    assert_eq!(link.directs.iter().map(Direct::path).collect::<Vec<_>>(), [direct]);
}

// protocol 8.8
#[test]
fn it_follows_nobody_and_no_direct_path_is_led_to_a_relay() {
    let room = &mut with_door();
    let mut link = connected(room, Side::Responder);
    let detour = proven_at(&mut link, room, door());
    room.config.direct = Transports::UDP;
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 4_000));
    link.path_moves(at(3), room, detour, elsewhere);
    assert_eq!(link.directs[0].remote(), door());
    let direct = proven_at(&mut link, room, elsewhere);
    let place = |link: &Link| link.directs.iter().find(|known| known.path() == direct).map(Direct::remote);
    link.path_moves(at(4), room, direct, door());
    assert_eq!(place(&link), Some(elsewhere));
    link.path_died(at(5), room, detour, "a test");
    drained(room);
    link.roamed(at(6), room, door());
    assert!(drained(room).iter().all(|action| !matches!(action, Action::Datagram { remote, .. } if *remote == door())));
}

// protocol 8.8
#[test]
fn it_goes_with_its_relay_and_the_traffic_takes_the_relay_path() {
    let room = &mut with_door();
    let mut link = connected(room, Side::Responder);
    let path = proven_at(&mut link, room, door());
    drained(room);
    link.uplink_lost(at(3), room, RELAY);
    assert!(link.directs.is_empty() && link.steer.main() == PathId::RELAY);
    let actions = drained(room);
    let fell_back = actions.iter().position(|action| matches!(action, Action::Edit(Edit::FallBack { to: PathId::RELAY, .. })));
    let closed = actions.iter().position(|action| matches!(action, Action::Edit(Edit::Unpath { path: gone, .. }) if *gone == path));
    assert!(fell_back.is_some_and(|fell_back| closed.is_some_and(|closed| fell_back < closed)), "{fell_back:?} {closed:?}");
}

// protocol 8.8
#[test]
fn the_end_that_is_asked_names_its_receiver_too_and_one_that_wants_none_does_not_answer() {
    let room = &mut with_door();
    let mut link = connected(room, Side::Responder);
    proven_at(&mut link, room, door());
    let receiver = link.live().expect("a session").remote();
    assert_eq!(room.take_named(), [(RELAY, receiver, Handle(7))]);
    let room = &mut with_door();
    room.config.relay_udp = false;
    let mut link = connected(room, Side::Responder);
    let source = Source { remote: door(), own_flow: None };
    let live = link.live().expect("a session");
    let key = live.chain().keys(Side::Initiator, &crate::crypto::rustcrypto::RustCrypto).path;
    let ground = crate::rehandshake::Ground { path: PathId(2), own_sid: live.remote(), peer_sid: live.local(), channel_binding: [0; 32] };
    let request = crate::rehandshake::Asker::new(ground).request(&key, door(), 0, [8; 32], 0);
    drained(room);
    link.path_datagram(at(2), room, source, &request);
    assert!(link.directs.is_empty() && drained(room).is_empty());
}

/// One end dropped the path while the other one, whose direct path was held down, still sent there.
// protocol 8.8, seed 3787
#[test]
fn it_stays_as_long_as_the_other_end_sends_there() {
    let room = &mut with_door();
    let mut link = connected(room, Side::Responder);
    let detour = proven_at(&mut link, room, door());
    room.config.direct = Transports::UDP;
    let direct = proven_at(&mut link, room, SocketAddr::from(([192, 0, 2, 1], 4_000)));
    assert_eq!(link.steer.main(), direct);
    let heard = |second: u64, last: u64| {
        let path = crate::plane::PathTally { path: detour, heard_at: Some(at(second.min(last))), rtt: None };
        LinkTally { paths: vec![path], ..tally(second) }
    };
    for second in 3..60 {
        link.tallied(at(second), room, heard(second, 40));
        let is_there = link.directs.iter().any(Direct::is_detour);
        assert_eq!(is_there, second < 50, "{second}");
    }
}
