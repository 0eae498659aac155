//! Where paths lead, and to whom nothing goes that was not paid for.
use super::*;
use crate::{
    config::Transports,
    crypto::rustcrypto::RustCrypto,
    event::Action,
    link::tests::{at, connected, room},
    rehandshake::{Answerer, Asker, Ground},
    session::PathKey,
    wire::{PATH_COMPLETE_LEN, PATH_REQUEST_LEN, TYPE_PATH_REQ, TYPE_PATH_RSP},
};
use std::sync::Arc;

/// The other end of one path.
struct Far {
    key: Arc<PathKey>,
    asker: Asker,
    answerer: Answerer,
    path: PathId,
}

impl Far {
    fn new(link: &Link, path: PathId) -> Self {
        let live = link.live.as_ref().expect("it is connected");
        let key = live.chain().keys(live.side().other(), &RustCrypto).path;
        let ground = Ground { path, own_sid: live.remote(), peer_sid: live.local(), channel_binding: [0; 32] };
        Self { key, asker: Asker::new(ground), answerer: Answerer::new(ground), path }
    }

    fn request(&mut self, size: usize) -> Vec<u8> {
        self.asker.request(&self.key, port(9), 0, [8; 32], size)
    }

    /// Asks from this port and confirms the answer.
    fn proves(&mut self, now: Instant, link: &mut Link, room: &mut Room, from: SocketAddr) {
        let request = self.request(room.config.largest_frame());
        let sent = come(now, link, room, from, &request);
        let answer = sent.iter().find(|(_, bytes)| bytes.first() == Some(&TYPE_PATH_RSP)).expect("an answer");
        assert_eq!((answer.0, answer.1.len()), (from, request.len()));
        let (complete, _) = self.asker.complete(&self.key, &answer.1, port(9), 0).expect("it verifies");
        come(now, link, room, from, &complete);
    }

    fn remote(&self, link: &Link) -> SocketAddr {
        link.directs.iter().find(|direct| direct.path == self.path).expect("it lives").remote
    }
}

fn port(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// A datagram comes from there; what goes out for it.
fn come(now: Instant, link: &mut Link, room: &mut Room, from: SocketAddr, bytes: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
    link.path_datagram(now, room, Source { remote: from, own_flow: None }, bytes);
    sent(room)
}

fn sent(room: &mut Room) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut actions = Vec::new();
    room.drain(usize::MAX, &mut actions);
    let datagrams = actions.into_iter().filter_map(|action| match action {
        Action::Datagram { remote, bytes } => Some((remote, bytes)),
        _ => None,
    });
    datagrams.collect()
}

/// A link by UDP in which the other end has this side.
fn by_udp(side: Side) -> (Link, Room) {
    let mut room = room(Vec::new());
    let link = connected(&mut room, side.other());
    (room.config.direct, room.udp_ports) = (Transports::UDP, (Some(4_000), None));
    sent(&mut room);
    (link, room)
}

// protocol 8.2, 8.3
#[test]
fn an_answer_from_elsewhere_proves_the_address_that_was_asked() {
    let (mut link, mut room) = by_udp(Side::Responder);
    let path = link.begin_flow(at(2), &mut room, port(1), at(2)).expect("a path");
    let request = sent(&mut room).pop().expect("a request").1;
    let mut far = Far::new(&link, path);
    let answer = far.answerer.answer(&far.key, &request, port(9), 0, [7; 32]).expect("it verifies");
    let out: Vec<_> = come(at(2), &mut link, &mut room, port(2), &answer).into_iter().map(|(to, bytes)| (to, bytes.len())).collect();
    let padded = room.config.largest_frame();
    assert_eq!(out, [(port(2), PATH_COMPLETE_LEN), (port(1), padded)], "whoever passes the answer on gets no more than he sent");
}

// protocol 8.4
#[test]
fn a_confirmation_from_elsewhere_proves_the_address_that_was_answered() {
    let (mut link, mut room) = by_udp(Side::Initiator);
    let mut far = Far::new(&link, PathId(2));
    let request = far.request(0);
    let answer = come(at(2), &mut link, &mut room, port(1), &request).pop().expect("an answer").1;
    let (complete, _) = far.asker.complete(&far.key, &answer, port(9), 0).expect("it verifies");
    let out = come(at(2), &mut link, &mut room, port(2), &complete);
    assert!(!out.is_empty() && out.iter().all(|(to, _)| *to == port(1)), "{out:?}");
}

// protocol 8.4
#[test]
fn a_path_that_followed_rests_unless_it_is_suspect() {
    let (mut link, mut room) = by_udp(Side::Initiator);
    let room = &mut room;
    let mut far = Far::new(&link, PathId(2));
    far.proves(at(2), &mut link, room, port(1));
    far.proves(at(2), &mut link, room, port(2));
    assert_eq!(far.remote(&link), port(2), "it follows at once");
    far.proves(at(2), &mut link, room, port(3));
    assert_eq!(far.remote(&link), port(2), "and then rests for a second");
    far.proves(at(3), &mut link, room, port(3));
    assert_eq!(far.remote(&link), port(3));
    far.proves(at(4), &mut link, room, port(4));
    assert_eq!(far.remote(&link), port(3), "and for two");
    link.stalled(at(4), room, PathId(2), Duration::from_millis(30));
    far.proves(at(4), &mut link, room, port(4));
    assert_eq!(far.remote(&link), port(4), "nothing comes back any more");
}

// protocol 5.4, 8.2
#[test]
fn a_path_that_was_given_up_gets_a_request_of_a_new_one_for_each_of_its_own() {
    for (ours, path) in [(Side::Responder, PathId(2)), (Side::Responder, PathId(3)), (Side::Initiator, PathId(3))] {
        let (mut link, mut room) = by_udp(ours.other());
        let room = &mut room;
        let mut far = Far::new(&link, path);
        if link.is_given_up(path) {
            assert_eq!(link.begin_flow(at(2), room, port(5), at(2)), Some(path));
        } else {
            far.proves(at(2), &mut link, room, port(1));
        }
        link.path_died(at(3), room, path, "a test");
        sent(room);
        let mut forged = far.request(0);
        forged[20] ^= 1;
        assert_eq!(come(at(3), &mut link, room, port(1), &forged), [], "nobody of this session");
        for _ in 0..3 {
            let request = far.request(0);
            let out = come(at(3), &mut link, room, port(1), &request);
            let [(to, bytes)] = &out[..] else { panic!("one for one: {out:?}") };
            assert_eq!((*to, bytes.len(), bytes[0]), (port(1), PATH_REQUEST_LEN, TYPE_PATH_REQ));
            assert_ne!(PathHeader::parse(bytes).expect("a request").path, path);
        }
    }
}

// protocol 8.5
#[test]
fn a_port_that_answers_a_search_is_asked_by_a_request_of_its_own() {
    let (mut link, mut room) = by_udp(Side::Responder);
    let room = &mut room;
    for presence in link.relays.presences_mut() {
        presence.public = Some(port(5_001));
    }
    link.take_search(at(2), room, port(5_001), 0);
    let asked = sent(room).pop().expect("a request").1;
    let mut far = Far::new(&link, PathHeader::parse(&asked).expect("a request").path);
    let answer = far.answerer.answer(&far.key, &asked, port(9), 0, [7; 32]).expect("it verifies");
    let out: Vec<_> = come(at(2), &mut link, room, port(5_000), &answer).into_iter().map(|(to, bytes)| (to, bytes.len())).collect();
    assert_eq!(out, [(port(5_000), PATH_REQUEST_LEN)], "as much as came, since the request went to many ports");
    assert_eq!(far.remote(&link), port(5_000));
}

#[test]
fn numbers_of_given_up_paths_take_bounded_room() {
    let mut buried = Buried::default();
    for path in (2..200).step_by(2) {
        assert!(!buried.holds(PathId(path)));
        buried.bury(PathId(path));
        assert!(buried.holds(PathId(path)) && buried.holds(PathId(2)) && buried.numbers.len() <= BURIED_MAX);
    }
}
