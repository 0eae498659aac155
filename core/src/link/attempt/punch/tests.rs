//! Who dials whom, when, and how often.
use super::*;
use crate::{
    event::Action,
    link::tests::{at, connected, room},
    node::Room,
    wire::{Candidate, CandidateKind, Transport},
};

const OURS: &str = "198.51.100.7:40001";
const THEIRS: &str = "203.0.113.9:50001";
const LISTENER: &str = "203.0.113.9:4000";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn ends() -> TcpEnds {
    TcpEnds { local: address("192.168.1.5:40001"), observed: address(OURS) }
}

/// A link whose peer a relay sees, from behind a NAT of ours.
fn link(room: &mut Room, side: Side) -> Link {
    let mut link = connected(room, side);
    room.around.tcp_ends = vec![ends()];
    for presence in link.relays.presences_mut() {
        presence.public = Some(address(THEIRS));
    }
    room.drain(usize::MAX, &mut Vec::new());
    link
}

fn candidates(link: &mut Link, now: Instant, room: &mut Room) {
    run(link, room, now);
    room.drain(usize::MAX, &mut Vec::new());
    let listener = Candidate { kind: CandidateKind::Observed, transport: Transport::Wss, address: address(LISTENER), priority: 60 };
    link.take_candidates(now, room, 1, &[listener]);
}

/// Dials that were ordered since the last look.
fn dials(room: &mut Room) -> Vec<(ConnId, Target)> {
    let mut actions = Vec::new();
    room.drain(usize::MAX, &mut actions);
    actions
        .into_iter()
        .filter_map(|action| if let Action::Dial { conn, target, .. } = action { Some((conn, target)) } else { None })
        .collect()
}

fn run(link: &mut Link, room: &mut Room, until: Instant) {
    while let Some(due) = link.deadline().filter(|due| *due <= until) {
        link.alarm(due, room);
    }
}

fn punch(role: TlsRole, peer: crate::id::PeerId) -> Target {
    Target::Punch { address: address(THEIRS), from: ends().local, pin: peer, role }
}

fn result(link: &Link) -> Option<String> {
    link.punch_status().map(|status| status.result)
}

// protocol 6.10
#[test]
fn when_dials_come_to_nothing_both_dial_and_the_session_says_who_serves() {
    for (side, role) in [(Side::Initiator, TlsRole::Client), (Side::Responder, TlsRole::Server)] {
        let room = &mut room(Vec::new());
        let mut link = link(room, side);
        candidates(&mut link, at(10), room);
        run(&mut link, room, at(11));
        let listener = Target::Direct { address: address(LISTENER), pin: link.peer };
        let first = dials(room);
        assert!(
            matches!(&first[..], [(_, target)] if *target == listener),
            "the listener, and no punch without the other's word: {first:?}"
        );
        link.take_punch(at(12), room, address(THEIRS));
        let dialled = dials(room);
        assert!(matches!(&dialled[..], [(_, target)] if *target == punch(role, link.peer)), "{dialled:?}");
        link.take_punch(at(12), room, address(THEIRS));
        assert!(dials(room).is_empty(), "it is on its way");
        assert_eq!(result(&link).as_deref(), Some("trying"));
        let facts = TlsFacts { exporter: [7; 32], identity: None, subject: None };
        let conn = dialled[0].0;
        link.opened(at(13), room, conn, &facts, address(THEIRS));
        match (side, room.conns.get(&conn)) {
            (Side::Initiator, Some(Use::Direct { .. })) => {}
            (Side::Responder, Some(Use::Accepted { exporter, .. })) => assert_eq!(*exporter, [7; 32]),
            (_, used) => panic!("{used:?}"),
        }
    }
}

// protocol 6.10
#[test]
fn who_is_called_without_a_round_of_its_own_answers_and_dials() {
    let room = &mut room(Vec::new());
    let mut link = link(room, Side::Responder);
    run(&mut link, room, at(10));
    dials(room);
    link.take_punch(at(10), room, address(THEIRS));
    assert_eq!(dials(room).len(), 1);
    assert!(link.attempt.round.is_some());
}

/// The other end's rounds began before this one's own each time, so that the one listener that could be reached was never dialled.
// protocol 6.10, seed 1851
#[test]
fn a_round_that_the_other_end_began_has_dials_to_listeners_too() {
    let room = &mut room(Vec::new());
    let mut link = link(room, Side::Responder);
    candidates(&mut link, at(10), room);
    let failed = Instant::from_millis(15_500);
    run(&mut link, room, failed);
    assert!(link.attempt.round.is_none(), "nobody answered");
    dials(room);
    link.take_punch(failed, room, address(THEIRS));
    run(&mut link, room, at(16));
    let listener = Target::Direct { address: address(LISTENER), pin: link.peer };
    assert!(dials(room).iter().any(|(_, target)| *target == listener));
}

// protocol 6.10
#[test]
fn a_punch_that_is_refused_is_made_five_times_and_counts_as_one_dial() {
    let room = &mut room(Vec::new());
    let mut link = link(room, Side::Initiator);
    for second in 10..18 {
        link.take_punch(at(second), room, address(THEIRS));
        let mut tries = 0;
        let mut now = at(second);
        while let Some((conn, _)) = dials(room).pop() {
            tries += 1;
            link.dial_failed(now, room, conn, &Ended::Refused);
            if let Some(due) = link.attempt.round.as_ref().and_then(Round::punch_deadline) {
                assert!(due.since(now) >= AGAIN_FIRST && due.since(now) <= AGAIN_FIRST * 32);
                now = due;
                link.alarm(now, room);
            }
        }
        assert_eq!(tries, TRIES, "in second {second}");
        assert!(link.attempt.round.is_none(), "the round has failed");
    }
    link.take_punch(at(18), room, address(THEIRS));
    assert!(dials(room).is_empty(), "eight dials a minute go to one address");
    assert!(result(&link).expect("for people").contains("dialled often"));
    assert_eq!(room.drops.get(Drop::Candidate), 1);
}

// protocol 6.3
#[test]
fn what_may_not_be_dialled_is_not_punched_either() {
    let room = &mut room(Vec::new());
    let mut link = link(room, Side::Initiator);
    for forbidden in ["203.0.113.9:22", "10.1.2.3:4000", "224.0.0.1:4000", "127.0.0.1:4000", OURS, "192.168.1.5:40001"] {
        link.take_punch(at(10), room, address(forbidden));
        assert!(dials(room).is_empty(), "{forbidden}");
    }
    link.take_punch(at(10), room, address("[2001:db8::9]:4000"));
    assert!(dials(room).is_empty(), "no relay sees this end in that family");
    room.around.tcp_ends.clear();
    link.take_punch(at(10), room, address(THEIRS));
    assert!(dials(room).is_empty(), "no relay sees this end at all");
}

// protocol 6.10
#[test]
fn an_end_that_gets_no_answer_to_its_word_gives_up() {
    let room = &mut room(Vec::new());
    let mut link = link(room, Side::Initiator);
    candidates(&mut link, at(10), room);
    run(&mut link, room, at(10));
    let (conn, _) = dials(room).pop().expect("the listener is dialled");
    link.dial_failed(at(10), room, conn, &Ended::Refused);
    assert!(link.attempt.round.is_some(), "the punch comes at once when all else is out");
    run(&mut link, room, at(10) + ANSWERED_WITHIN);
    assert!(link.attempt.round.is_none());
    assert!(link.attempt.last_failure().expect("for people").contains("knows nothing of that"));
}

// protocol 6.10
#[test]
fn a_connection_with_a_relay_is_of_use_where_others_see_it_as_the_relay_does() {
    let seen = |local, relay, observed| TcpEnds::new((address(local), address(relay)), address(observed)).is_some();
    assert!(seen("192.168.1.5:40001", "203.0.113.1:443", OURS));
    assert!(seen("[2001:db8::5]:40001", "[2001:db8::1]:443", "[2001:db8::5]:40001"));
    assert!(!seen("192.168.1.5:40001", "0.0.0.0:0", OURS), "behind a proxy");
    assert!(!seen("[2001:db8::5]:40001", "[64:ff9b::1]:443", OURS), "behind a translator");
    assert!(!seen("127.0.0.1:40001", "127.0.0.1:443", "127.0.0.1:40001"), "inside one machine");
}
