//! A relay of two ports behind a NAT that does what each story says.
use super::*;
use crate::{
    binding::{open_bind, seal_bound},
    crypto::rustcrypto::RustCrypto,
    session::{Chain, Side, Suite},
    wire::BIND_LEN,
};
use zeroize::Zeroizing;

const RELAY: &str = "203.0.113.9:8443";
const OTHER: &str = "203.0.113.9:8444";

/// One client, one relay, and what lies between.
struct World {
    now: Instant,
    room: Room,
    reflexive: Reflexive,
    /// The relay's keys of the session.
    relay: Arc<PathKey>,
    other_port: u16,
    /// What the NAT makes of us towards each port; `None`: nothing comes through.
    seen: [Option<SocketAddr>; 2],
    /// When and whom it asked.
    asked: Vec<(u64, SocketAddr)>,
    last: Vec<(SocketAddr, Vec<u8>)>,
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl World {
    fn new() -> Self {
        let chain = Chain::start(Zeroizing::new([1; 64]), Suite::ChaCha20Poly1305);
        let [client, relay] = [Side::Initiator, Side::Responder].map(|side| chain.keys(side, &RustCrypto).path);
        let mut room = crate::link::tests::room(Vec::new());
        room.udp_ports = (Some(5_000), None);
        let mut reflexive = Reflexive::new(client, 11, 22, at(RELAY));
        let now = Instant::from_millis(1_000);
        reflexive.ask_anew(now, &room);
        let seen = [Some(at("198.51.100.7:6000")); 2];
        Self { now, room, reflexive, relay, other_port: 8_444, seen, asked: Vec::new(), last: Vec::new() }
    }

    /// Lets time pass with each alarm at its time; the relay answers what reaches it. How often something changed.
    fn pass(&mut self, millis: u64) -> usize {
        let until = self.now + Duration::from_millis(millis);
        let mut changes = 0;
        while let Some(at) = self.reflexive.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.reflexive.alarm(self.now, &mut self.room);
            for (to, bytes) in self.sent() {
                if let Some(answer) = self.answer(to, &bytes) {
                    changes += usize::from(self.reflexive.bound(self.now, to, &answer).expect("a good answer"));
                    self.last.push((to, answer));
                }
            }
        }
        self.now = until;
        changes
    }

    fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut actions = Vec::new();
        self.room.drain(usize::MAX, &mut actions);
        let datagrams = actions.into_iter().filter_map(|action| match action {
            Action::Datagram { remote, bytes } => Some((remote, bytes)),
            _ => None,
        });
        let sent: Vec<_> = datagrams.collect();
        self.asked.extend(sent.iter().map(|(to, _)| (self.now.as_nanos() / 1_000_000 - 1_000, *to)));
        sent
    }

    fn answer(&self, to: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
        assert_eq!(question.len(), BIND_LEN);
        let bind = open_bind(&self.relay, question).expect("under the session's key");
        assert_eq!(bind.receiver, 22);
        let address = self.seen[usize::from(to == at(OTHER))]?;
        Some(
            seal_bound(&self.relay, &Bound { receiver: 11, nonce: bind.nonce, address, other_port: self.other_port, ticket: [9; 16] })
                .to_vec(),
        )
    }

    fn known(&self) -> (Option<SocketAddr>, Option<bool>) {
        {
            let mapped = self.reflexive.mapped();
            (mapped.map(|mapped| mapped.address), mapped.filter(|mapped| mapped.other.is_some()).map(Mapped::varies))
        }
    }

    fn asked(&mut self) -> Vec<(u64, SocketAddr)> {
        core::mem::take(&mut self.asked)
    }
}

// protocol 8.1
#[test]
fn a_client_learns_its_address_asks_the_other_port_once_and_the_first_each_25_seconds() {
    let mut world = World::new();
    assert_eq!(world.pass(60_000), 2, "the address, then that it does not vary");
    assert_eq!(world.known(), (Some(at("198.51.100.7:6000")), Some(false)));
    assert_eq!(world.asked(), [(0, at(RELAY)), (0, at(OTHER)), (25_000, at(RELAY)), (50_000, at(RELAY))]);
}

// protocol 8.1
#[test]
fn a_mapping_that_varies_is_noticed_and_so_is_a_new_one() {
    let mut world = World::new();
    world.seen[1] = Some(at("198.51.100.7:6001"));
    world.pass(1_000);
    assert_eq!(world.known(), (Some(at("198.51.100.7:6000")), Some(true)));
    // the NAT restarts: another address, and now one for all
    world.seen = [Some(at("192.0.2.44:7000")); 2];
    assert_eq!(world.pass(25_000), 2);
    assert_eq!(world.known(), (Some(at("192.0.2.44:7000")), Some(false)));
}

// protocol 8.1
#[test]
fn silence_is_asked_again_soon_and_then_seldom() {
    let mut world = World::new();
    world.seen = [None; 2];
    world.pass(60_000);
    let times: Vec<_> = world.asked().into_iter().map(|(at, _)| at).collect();
    assert_eq!(times, [0, 500, 1_500, 3_500, 28_500, 53_500]);
    assert_eq!(world.known(), (None, None));
    // the way opens: the next question is answered, and the pace is the usual one
    world.seen = [Some(at("198.51.100.7:6000")); 2];
    world.pass(60_000);
    assert_eq!(world.known(), (Some(at("198.51.100.7:6000")), Some(false)));
    assert_eq!(world.asked(), [(78_500, at(RELAY)), (78_500, at(OTHER)), (103_500, at(RELAY))]);
}

// protocol 8.1
#[test]
fn an_other_port_that_is_silent_is_asked_four_times_after_each_answer_of_the_first() {
    let mut world = World::new();
    world.seen[1] = None;
    world.pass(24_000);
    assert_eq!(world.known(), (Some(at("198.51.100.7:6000")), None));
    let asked: Vec<_> = world.asked().into_iter().map(|(at, to)| (at, to.port())).collect();
    assert_eq!(asked, [(0, 8_443), (0, 8_444), (500, 8_444), (1_500, 8_444), (3_500, 8_444)]);
    world.other_port = 0;
    world.pass(60_000);
    assert!(world.asked().iter().all(|(_, to)| *to == at(RELAY)), "a relay that has one port only is asked there only");
}

// protocol 8.1
#[test]
fn an_address_that_is_not_confirmed_any_more_is_forgotten() {
    let mut world = World::new();
    world.pass(1_000);
    world.seen = [None; 2];
    world.pass(30_000);
    assert_eq!(world.known(), (Some(at("198.51.100.7:6000")), Some(false)), "a few lost datagrams are not the end of it");
    world.pass(60_000);
    assert_eq!(world.known(), (None, None));
}

// protocol 8.1
#[test]
fn new_sockets_and_new_addresses_are_asked_for_at_once() {
    let mut world = World::new();
    world.pass(10_000);
    world.asked();
    world.seen = [Some(at("192.0.2.44:7000")); 2];
    world.reflexive.ask_anew(world.now, &world.room);
    world.pass(10);
    assert_eq!(world.known(), (Some(at("192.0.2.44:7000")), Some(false)));
    assert_eq!(world.asked(), [(10_000, at(RELAY)), (10_000, at(OTHER))]);
    // the socket is gone: nothing is asked, nothing is known
    world.room.udp_ports = (None, Some(9));
    world.reflexive.ask_anew(world.now, &world.room);
    assert_eq!((world.known(), world.reflexive.deadline()), ((None, None), None));
    world.pass(60_000);
    assert_eq!(world.asked(), []);
}

// protocol 8.1
#[test]
fn a_path_that_died_makes_it_ask_sooner_and_at_most_once_a_second() {
    let mut world = World::new();
    world.pass(10_000);
    world.asked();
    world.seen = [Some(at("192.0.2.44:7000")); 2];
    world.reflexive.doubt(world.now);
    world.pass(100);
    assert_eq!(world.known(), (Some(at("192.0.2.44:7000")), Some(false)));
    for _ in 0..5 {
        world.reflexive.doubt(world.now);
        world.pass(100);
    }
    world.pass(50_000);
    assert_eq!(world.asked(), [(10_000, at(RELAY)), (10_000, at(OTHER)), (11_000, at(RELAY)), (36_000, at(RELAY))]);
    // without a socket there is nothing to ask for
    world.room.udp_ports = (None, Some(9));
    world.reflexive.ask_anew(world.now, &world.room);
    world.reflexive.doubt(world.now);
    assert_eq!(world.reflexive.deadline(), None);
}

// protocol 8.1
#[test]
fn only_the_answer_to_a_question_that_is_out_counts_and_only_once() {
    let mut world = World::new();
    world.reflexive.alarm(world.now, &mut world.room);
    let (to, question) = world.sent().remove(0);
    let answer = world.answer(to, &question).expect("an answer");
    let mut take = |from: &str, bytes: &[u8]| world.reflexive.bound(world.now, at(from), bytes);
    assert_eq!(take("203.0.113.66:8443", &answer), Err(Drop::Unexpected), "from somebody else");
    assert_eq!(take(OTHER, &answer), Err(Drop::Unexpected), "from a port that was not asked");
    assert_eq!(take(RELAY, &question), Err(Drop::Malformed), "a question is no answer");
    for bit in 0..BIND_LEN * 8 {
        let mut bad = answer.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(take(RELAY, &bad).is_err(), "bit {bit}");
    }
    assert_eq!(take(RELAY, &answer), Ok(true), "all that did no harm");
    assert_eq!(take(RELAY, &answer), Err(Drop::Unexpected), "its nonce died with it");
}

#[test]
fn an_answer_that_comes_after_the_next_question_counts() {
    let mut world = World::new();
    world.reflexive.alarm(world.now, &mut world.room);
    let (to, early) = world.sent().remove(0);
    world.now = world.now + Duration::from_millis(500);
    world.reflexive.alarm(world.now, &mut world.room);
    let answer = world.answer(to, &early).expect("an answer");
    assert_eq!(world.reflexive.bound(world.now, to, &answer), Ok(true));
}
