//! Who reaches whom by datagrams, and what is left of those who go.
use super::*;
use crate::{config::Limits, hub::Edit, hub::ForwardEdit};

const NOW: Instant = Instant::from_millis(1_000);

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn apply(forwarder: &mut Forwarder, edit: Edit) {
    forwarder.apply(NOW, ForwardEdit(edit));
}

/// Members 1 and 2 of one network and 3 of another, each at `192.0.2.N:4000`; handles are their numbers.
fn three(limits: &Limits) -> Forwarder {
    let mut forwarder = Forwarder::new(limits);
    for (number, network) in [(1, 7), (2, 7), (3, 8)] {
        let conn = ConnId(u64::from(number));
        apply(&mut forwarder, Edit::Open { conn });
        apply(&mut forwarder, Edit::Join { conn, handle: Handle(number), network });
        apply(&mut forwarder, Edit::Attach { conn, address: place(number) });
    }
    forwarder
}

fn place(number: u32) -> SocketAddr {
    at(&format!("192.0.2.{number}:4000"))
}

fn named(forwarder: &mut Forwarder, conn: u64, receiver: u32, to: u32) {
    apply(forwarder, Edit::Route { conn: ConnId(conn), receiver, to: Handle(to) });
}

fn drops(forwarder: &Forwarder, name: &str) -> u64 {
    forwarder.stats().drops.into_iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
}

// protocol 8.8
#[test]
fn a_datagram_goes_to_whom_its_sender_named() {
    let forwarder = &mut three(&Limits::default());
    named(forwarder, 1, 50, 2);
    assert_eq!(forwarder.pass(NOW, place(1), 50, 3, 3_000), Some(place(2)));
    assert_eq!(forwarder.pass(NOW, at("[::ffff:192.0.2.1]:4000"), 50, 1, 9), Some(place(2)), "as a socket of both families sees it");
    let stats = forwarder.stats();
    assert_eq!((stats.rx_frames, stats.rx_bytes, stats.tx_frames, stats.tx_bytes), (4, 3_009, 4, 3_009));
    // the receiver is the sender's word: another's is not heard, nor one that nobody named
    assert_eq!(forwarder.pass(NOW, place(2), 50, 1, 100), None);
    assert_eq!(forwarder.pass(NOW, place(1), 51, 1, 100), None);
    assert_eq!(drops(forwarder, "no_route"), 2);
    assert_eq!(forwarder.pass(NOW, at("192.0.2.1:4001"), 50, 2, 100), None);
    assert_eq!(drops(forwarder, "unknown_source"), 2);
    forwarder.lost(3);
    assert_eq!(drops(forwarder, "datagram_lost"), 3);
}

// protocol 2.3, 8.8
#[test]
fn nobody_reaches_himself_another_network_or_one_who_is_not_there_by_udp() {
    let forwarder = &mut three(&Limits::default());
    let conn = ConnId(4);
    apply(forwarder, Edit::Open { conn });
    apply(forwarder, Edit::Attach { conn, address: place(9) });
    assert_eq!(forwarder.pass(NOW, place(9), 1, 1, 100), None, "it is no member yet");
    apply(forwarder, Edit::Join { conn, handle: Handle(4), network: 7 });
    for to in [1, 3, 4, 5] {
        named(forwarder, 1, 50 + to, to);
        assert_eq!(forwarder.pass(NOW, place(1), 50 + to, 1, 100), None, "{to}");
    }
    assert_eq!(drops(forwarder, "no_route"), 4);
}

// protocol 8.8
#[test]
fn a_client_that_moves_or_goes_leaves_nothing_behind() {
    let forwarder = &mut three(&Limits::default());
    named(forwarder, 1, 50, 2);
    apply(forwarder, Edit::Attach { conn: ConnId(2), address: place(20) });
    assert_eq!(forwarder.pass(NOW, place(1), 50, 1, 100), Some(place(20)));
    assert_eq!(forwarder.pass(NOW, place(2), 50, 1, 100), None, "the address before is nobody's");
    // of two with one address the newer has it
    apply(forwarder, Edit::Attach { conn: ConnId(1), address: place(20) });
    named(forwarder, 2, 60, 1);
    assert_eq!(forwarder.pass(NOW, place(20), 60, 1, 100), None, "1 has named no 60");
    assert_eq!(forwarder.pass(NOW, place(20), 50, 1, 100), None, "2 is nowhere now");
    apply(forwarder, Edit::Part { conn: ConnId(1) });
    assert_eq!(forwarder.pass(NOW, place(20), 50, 1, 100), None);
    assert!(forwarder.places.0.values().all(|at| *at == forwarder.conns[&ConnId(3)]));
}

// protocol 8.8, 9.4
#[test]
fn the_limits_of_a_client_hold_for_its_datagrams_too() {
    let limits = Limits { client_frames_per_second: 64, ..Limits::default() };
    let forwarder = &mut three(&limits);
    named(forwarder, 1, 50, 2);
    assert_eq!(forwarder.pass(NOW, place(1), 50, 64, 6_400), Some(place(2)));
    assert_eq!(forwarder.pass(NOW, place(1), 50, 1, 100), None);
    assert_eq!(drops(forwarder, "client_frame_rate"), 1);
    assert_eq!(forwarder.pass(NOW, place(2), 50, 1, limits.frame_bytes + 1), None);
    assert_eq!(drops(forwarder, "frame_too_big"), 1);
}

// protocol 8.8
#[test]
fn receivers_are_bounded_and_those_of_absent_ones_make_room() {
    let forwarder = &mut three(&Limits::default());
    for receiver in 0..ROUTES_MAX as u32 {
        named(forwarder, 1, receiver, if receiver < 10 { 99 } else { 2 + receiver % 2 });
    }
    let held = |forwarder: &Forwarder| forwarder.port(0).passage.as_ref().map_or(0, |passage| passage.routes.len());
    assert_eq!(held(forwarder), ROUTES_MAX);
    named(forwarder, 1, 5_000, 3);
    assert!(held(forwarder) < ROUTES_MAX, "those of 99, who is not there, and those of 3 before");
    assert_eq!(forwarder.pass(NOW, place(1), 10, 1, 100), Some(place(2)), "2 is still known");
    assert_eq!(drops(forwarder, "route_table"), 0);
}

#[test]
fn only_frames_and_the_re_handshake_are_passed_on() {
    let datagram = |kind| [kind, 0, 0, 0, 0, 0, 1, 2, 9];
    for kind in 0..=255 {
        let passes = matches!(kind, TYPE_FRAME | TYPE_PATH_REQ | TYPE_PATH_RSP | TYPE_PATH_CMP);
        assert_eq!(receiver_of(&datagram(kind)), passes.then_some(0x102), "{kind:#x}");
    }
    assert_eq!(receiver_of(&datagram(TYPE_FRAME)[..7]), None);
}
