//! BIND: who is told where its datagrams come from, and who is not (protocol 8.1).
use super::*;
use crate::{
    binding::{open_bound, seal_bind},
    hub::reflector::BINDS,
    wire::{BIND_LEN, Bind, Bound, TICKET_LEN},
};

const UDP: &str = "198.51.100.9:40009";

impl Client {
    fn bind(&self, nonce: u8) -> Vec<u8> {
        seal_bind(&self.keys.path, &Bind { receiver: self.peer_sid, nonce: [nonce; 8] }).to_vec()
    }
}

impl Stage {
    /// What comes back, from which port and to whom.
    fn datagram(&mut self, port: u8, from: &str, bytes: &[u8]) -> Option<(u8, SocketAddr, Vec<u8>)> {
        let mut actions = Vec::new();
        self.hub.handle(self.now, HubEvent::Datagram { port, remote: address(from), bytes }, &mut actions);
        assert!(actions.len() <= 1, "one datagram, one answer at most");
        match actions.pop()? {
            HubAction::Datagram { port, remote, bytes } => Some((port, remote, bytes)),
            _ => panic!("a datagram leads to datagrams only"),
        }
    }

    fn bound(&mut self, client: &Client, port: u8, from: &str, bytes: &[u8]) -> Bound {
        let (back, to, answer) = self.datagram(port, from, bytes).expect("an answer");
        assert_eq!(
            (back, to, answer.len()),
            (port, address(from), BIND_LEN),
            "from where it was asked to where it came from, and no longer"
        );
        open_bound(&client.keys.path, &answer).expect("under the session's key")
    }
}

// protocol 8.1
#[test]
fn a_client_is_told_where_its_datagrams_come_from() {
    let mut stage = Stage::new();
    let client = stage.member(1);
    assert_eq!(client.established.udp_port, 8_443);
    for (port, other_port) in [(0, 8_444), (1, 8_443)] {
        for (from, seen) in [(UDP, UDP), ("[2001:db8::9]:7", "[2001:db8::9]:7"), ("[::ffff:198.51.100.9]:7", "198.51.100.9:7")] {
            let bound = stage.bound(&client, port, from, &client.bind(port + 1));
            let ticket = bound.ticket;
            assert_eq!(bound, Bound { receiver: client.own_sid, nonce: [port + 1; 8], address: address(seen), other_port, ticket });
            assert_eq!(ticket != [0; TICKET_LEN], port == 0, "only the first port passes datagrams on");
        }
    }
}

// protocol 8.1
#[test]
fn a_client_of_any_network_is_answered_under_its_own_key() {
    let mut stage = Stage::new();
    let a = stage.member(1);
    let b = stage.join(&identity(2), ADDRESS, params([8; 32]));
    let bound = stage.bound(&b, 0, UDP, &b.bind(3));
    assert_eq!(bound.address, address(UDP));
    let (_, _, answer) = stage.datagram(0, UDP, &a.bind(3)).expect("an answer");
    assert!(open_bound(&b.keys.path, &answer).is_err(), "another client can neither read nor make it");
}

// protocol 8.1
#[test]
fn strangers_and_forgers_hear_nothing() {
    let mut stage = Stage::new();
    let (a, b) = (stage.member(1), stage.member(2));
    let good = a.bind(1);
    // a number that nobody has
    let nobody = (1..4).find(|sid| ![a.peer_sid, b.peer_sid].contains(sid)).expect("two of three are taken at most");
    let unknown = seal_bind(&a.keys.path, &Bind { receiver: nobody, nonce: [1; 8] });
    assert_eq!((stage.datagram(0, UDP, &unknown), stage.dropped("unknown_session")), (None, 1));
    // another client's number, and each bit of the mac
    let other = seal_bind(&a.keys.path, &Bind { receiver: b.peer_sid, nonce: [1; 8] });
    assert_eq!((stage.datagram(0, UDP, &other), stage.dropped("forged_bind")), (None, 1));
    for bit in 56 * 8..BIND_LEN * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(stage.datagram(0, UDP, &bad), None);
    }
    assert_eq!(stage.dropped("forged_bind"), 1 + 256);
    // what is no BIND
    let (_, _, answer) = stage.datagram(0, UDP, &good).expect("forgers have not used up its answers");
    let longer = [&good[..], &[0]].concat();
    for bytes in [&[][..], &good[..87], &longer, &answer, &[0x10; 88], &[0xff; 1_500]] {
        assert_eq!(stage.datagram(0, UDP, bytes), None);
    }
    assert_eq!(stage.dropped("malformed_datagram"), 6);
}

// protocol 8.1
#[test]
fn a_replayed_question_harms_nobody() {
    let mut stage = Stage::new();
    let (mut a, mut b) = (stage.member(1), stage.member(2));
    let question = a.bind(1);
    stage.bound(&a, 0, UDP, &question);
    let thief = "203.0.113.66:6";
    let bound = stage.bound(&a, 0, thief, &question);
    assert_eq!(bound.address, address(thief), "it says where the copy came from, in no more bytes than that cost");
    let status = stage.status();
    assert!(status.clients.iter().all(|client| client.remote == address(ADDRESS)), "the directory knows nothing of datagrams");
    stage.pass(200);
    stage.assert_healthy(&mut a, &mut b);
}

// protocol 8.1
#[test]
fn a_flood_is_answered_at_a_rate_and_costs_only_its_own_client() {
    let mut stage = Stage::new();
    let (a, b) = (stage.member(1), stage.member(2));
    let answered = (0..200).filter(|_| stage.datagram(0, UDP, &a.bind(1)).is_some()).count() as u64;
    assert_eq!((answered, stage.dropped("bind_rate")), (BINDS.burst, 200 - BINDS.burst));
    stage.bound(&b, 0, UDP, &b.bind(1));
    stage.now = stage.now + Duration::from_secs(1);
    let answered = (0..200).filter(|_| stage.datagram(0, UDP, &a.bind(1)).is_some()).count() as u64;
    assert_eq!(answered, BINDS.per_second);
}

// protocol 8.1
#[test]
fn who_has_left_or_was_replaced_hears_nothing() {
    let mut stage = Stage::new();
    let (gone, old) = (stage.member(1), stage.member(2));
    stage.close(gone.conn);
    assert_eq!(stage.datagram(0, UDP, &gone.bind(1)), None);
    let new = stage.member(2);
    assert_eq!(stage.datagram(0, UDP, &old.bind(1)), None);
    assert_eq!(stage.dropped("unknown_session"), 2);
    stage.bound(&new, 0, UDP, &new.bind(1));
    stage.close(new.conn);
    let mut kept = Vec::new();
    stage.hub.bounds(&mut |bound| kept.push(bound));
    let numbers = kept.iter().find(|bound| bound.name == "session numbers of established clients").expect("it is told");
    assert_eq!(numbers.held, 0, "nothing is left of them");
}

impl Stage {
    fn attach(&mut self, client: &mut Client, address: SocketAddr, ticket: [u8; TICKET_LEN]) {
        let attach = client.seal(&RelayMessage::Attach { address, ticket });
        self.message(client.conn, &attach);
    }

    fn route(&mut self, client: &mut Client, receiver: u32, to: Handle) {
        let route = client.seal(&RelayMessage::Route { receiver, to });
        self.message(client.conn, &route);
    }
}

// protocol 8.8
#[test]
fn two_clients_that_show_their_tickets_reach_each_other_by_datagrams() {
    let mut stage = Stage::new();
    let mut clients = [stage.member(1), stage.member(2)];
    let places = [address(UDP), address("198.51.100.8:40008")];
    let handles = clients.each_ref().map(|client| client.established.your_handle);
    for at in 0..2 {
        let question = clients[at].bind(1);
        let bound = stage.bound(&clients[at], 0, &places[at].to_string(), &question);
        stage.attach(&mut clients[at], bound.address, bound.ticket);
        stage.route(&mut clients[at], 70 + at as u32, handles[1 - at]);
    }
    let now = stage.now;
    assert_eq!(stage.forwarder.pass(now, places[0], 70, 1, 100), Some(places[1]));
    assert_eq!(stage.forwarder.pass(now, places[1], 71, 1, 100), Some(places[0]));
    // it goes with the connection
    stage.close(clients[1].conn);
    assert_eq!(stage.forwarder.pass(now, places[0], 70, 1, 100), None);
    assert_eq!(stage.dropped("stale_ticket"), 0);
}

// protocol 8.8
#[test]
fn a_ticket_is_good_for_one_client_one_address_and_a_while() {
    let mut stage = Stage::new();
    let (mut a, mut b) = (stage.member(1), stage.member(2));
    let Bound { address: place, ticket, .. } = stage.bound(&a, 0, UDP, &a.bind(1));
    let mut bad = vec![(place, [0; TICKET_LEN]), (address("198.51.100.9:40010"), ticket), (address("198.51.100.10:40009"), ticket)];
    for bit in 0..TICKET_LEN * 8 {
        let mut altered = ticket;
        altered[bit / 8] ^= 1 << (bit % 8);
        bad.push((place, altered));
    }
    for (at, (place, ticket)) in bad.into_iter().enumerate() {
        stage.now = stage.now + Duration::from_millis(20); // within the rate of control messages
        stage.attach(&mut a, place, ticket);
        assert_eq!(stage.dropped("stale_ticket"), 1 + at as u64);
    }
    stage.attach(&mut b, place, ticket);
    assert_eq!(stage.dropped("stale_ticket"), 132, "another client's");
    stage.route(&mut b, 70, a.established.your_handle);
    let from_b = |stage: &mut Stage| stage.forwarder.pass(stage.now, address("198.51.100.8:40008"), 70, 1, 100);
    let Bound { address: place_b, ticket: ticket_b, .. } = stage.bound(&b, 0, "198.51.100.8:40008", &b.bind(1));
    stage.attach(&mut b, place_b, ticket_b);
    assert_eq!(from_b(&mut stage), None, "a is nowhere");
    stage.attach(&mut a, place, ticket);
    assert_eq!(from_b(&mut stage), Some(place));
    stage.now = stage.now + Duration::from_secs(131);
    stage.attach(&mut a, place, ticket);
    assert_eq!(stage.dropped("stale_ticket"), 133, "too old");
    assert_eq!(from_b(&mut stage), Some(place), "and what was shown in time stays");
}
