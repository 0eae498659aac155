//! Guesses, and to whom they may go.
use super::*;
use crate::{
    config::Transports,
    drops::Drop,
    event::Action,
    id::PeerId,
    link::tests::{at, connected, room},
    session::Side,
};
use core::net::IpAddr;

#[test]
fn each_run_of_ports_holds_a_guess_and_no_guess_is_well_known() {
    let mut room = room(Vec::new());
    for step in [1, 2, 3] {
        let guesses: Vec<u16> = (0..FORESEEN).map(|sent| guess(&mut room, 60_000, step, sent)).collect();
        assert!(guesses.iter().all(|port| *port >= LEAST_PORT));
        // other hosts took `drift` ports before ours
        for drift in [0, 1, 99, 100, 255, 700] {
            let is_ours = |port: u16| {
                let ahead = port.wrapping_sub(60_000);
                ahead.is_multiple_of(step) && (drift + 1..=drift + 256).contains(&(ahead / step))
            };
            assert!(guesses.iter().any(|port| is_ours(*port)), "step {step}, drift {drift}");
        }
    }
    assert!((0..10_000).all(|_| guess(&mut room, 5, 0, 0) >= LEAST_PORT));
}

#[test]
fn what_a_relay_sees_tells_how_ports_are_given() {
    let at = |port| SocketAddr::new(IpAddr::from([203, 0, 113, 9]), port);
    let told = |first, other: Option<u16>| {
        let mapped = Mapped { address: at(first), other: other.map(at) };
        (mapped.varies(), mapped.prediction())
    };
    assert_eq!(told(7_000, None), (false, (at(7_000), 0)));
    assert_eq!(told(7_000, Some(7_000)), (false, (at(7_000), 0)));
    assert_eq!(told(7_000, Some(7_002)), (true, (at(7_002), 2)));
    assert_eq!(told(7_000, Some(41_003)), (true, (at(41_003), 0)));
    assert_eq!(told(8_270, Some(8_526)), (true, (at(8_526), 256)), "counted in the upper byte");
    assert_eq!(told(7_000, Some(6_999)), (true, (at(6_999), 0)));
    let elsewhere = SocketAddr::new(IpAddr::from([203, 0, 113, 10]), 7_001);
    assert_eq!(Mapped { address: at(7_000), other: Some(elsewhere) }.prediction(), (elsewhere, 0));
}

const THEIRS: &str = "203.0.113.9:20000";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A link by UDP, whose peer a relay sees at this address.
fn link_to(room: &mut Room, theirs: &str) -> Link {
    room.config.direct = Transports::UDP;
    room.udp_ports = (Some(4_000), None);
    let mut link = connected(room, Side::Initiator);
    for presence in link.relays.presences_mut() {
        presence.public = Some(address(theirs));
    }
    room.drain(usize::MAX, &mut Vec::new());
    link
}

/// Runs its alarms up to a time, and gives what went out, by address.
fn run(link: &mut Link, room: &mut Room, until: Instant) -> Vec<(SocketAddr, usize)> {
    let mut out = Vec::new();
    while let Some(due) = link.deadline().filter(|due| *due <= until) {
        link.alarm(due, room);
        let mut actions = Vec::new();
        room.drain(usize::MAX, &mut actions);
        out.extend(actions.into_iter().filter_map(|action| match action {
            Action::Datagram { remote, bytes } => Some((remote, bytes.len())),
            _ => None,
        }));
    }
    out
}

// protocol 8.5
#[test]
fn three_thousand_ports_are_asked_in_three_seconds_and_then_it_is_over() {
    let room = &mut room(Vec::new());
    let mut link = link_to(room, THEIRS);
    link.take_search(at(2), room, address(THEIRS), 0);
    let in_a_second = run(&mut link, room, at(3));
    assert!((990..=1_010).contains(&in_a_second.len()), "{}", in_a_second.len());
    let rest = run(&mut link, room, at(8));
    assert_eq!(in_a_second.len() + rest.len(), 3_000);
    assert!(in_a_second.iter().chain(&rest).all(|(remote, len)| remote.ip() == address(THEIRS).ip() && *len == 108));
    assert!(link.search.is_none() && link.directs.is_empty());
}

// protocol 8.5
#[test]
fn a_search_goes_to_nobody_but_whom_both_relay_and_peer_name() {
    for third in ["198.51.100.1:20000", "224.0.0.1:20000", "127.0.0.1:20000", "10.0.0.7:20000"] {
        let room = &mut room(Vec::new());
        let mut link = link_to(room, THEIRS);
        link.take_search(at(2), room, address(third), 1);
        assert!(link.search.is_none() && run(&mut link, room, at(8)).is_empty(), "{third}");
        assert_eq!(room.drops.get(Drop::Candidate), 1);
    }
}

// protocol 8.5
#[test]
fn one_address_is_searched_six_times_a_minute_at_most_and_one_peer_at_a_time() {
    let room = &mut room(Vec::new());
    let mut link = link_to(room, THEIRS);
    let mut sent = 0;
    for second in (2..62).step_by(5) {
        link.take_search(at(second), room, address(THEIRS), 0);
        link.take_search(at(second), room, address(THEIRS), 0);
        sent += run(&mut link, room, at(second + 5)).len();
    }
    assert!(sent <= 6 * 3_000, "{sent}");
    assert!(room.may_search(at(100), PeerId([8; 32]), IpAddr::from([192, 0, 2, 1]), at(105)));
    link.take_search(at(101), room, address(THEIRS), 0);
    assert!(link.search.is_none(), "another search is under way");
}

// protocol 8.5
#[test]
fn behind_a_nat_that_varies_256_sockets_are_opened_and_closed_again() {
    let room = &mut room(Vec::new());
    let mut link = link_to(room, THEIRS);
    let at_port = |port| address(&format!("198.51.100.7:{port}"));
    let candidate = Candidate { kind: CandidateKind::Observed, transport: Transport::Udp, address: address(THEIRS), priority: 112 };
    link.candidates = vec![(candidate, String::new())];
    assert_eq!(link.begin_search(at(2), room), None, "our NAT gives the same port to all, as far as known");
    room.around.reflexive = vec![Mapped { address: at_port(7_000), other: Some(at_port(7_001)) }];
    assert_eq!(link.begin_search(at(2), room), Some(address(THEIRS)));
    run(&mut link, room, at(3));
    assert_eq!(link.search.as_ref().map(|search| search.sockets()), Some(SOCKETS));
    let own = |room: &Room| room.conns.keys().filter(|conn| room.is_own_flow(**conn)).count();
    assert_eq!(own(room), SOCKETS);
    run(&mut link, room, at(8));
    assert!(link.search.is_none());
    assert_eq!(own(room), 0);
    // with an end whose port varies too, or of which the relay says something else, nothing can be found
    for (kind, seen) in [(CandidateKind::Varying, THEIRS), (CandidateKind::Observed, "203.0.113.10:1")] {
        link.candidates[0].0.kind = kind;
        for presence in link.relays.presences_mut() {
            presence.public = Some(address(seen));
        }
        assert_eq!(link.begin_search(at(20), room), None);
    }
}
