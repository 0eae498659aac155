//! A router that answers, refuses, forgets, keeps silent; and one that is none.
use super::*;
use core::net::Ipv4Addr;

const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2));
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const NONCES: [[u8; 12]; 2] = [[1; 12], [2; 12]];
const BOTH: Wanted = Wanted { udp: Some(5_000), tcp: Some(6_000) };
const ONLY_UDP: Wanted = Wanted { udp: Some(5_000), tcp: None };

// RFC 6887 11.2, 11.2.1: the same question, with what was granted, at half of the life
#[test]
fn a_port_is_asked_for_by_pcp_and_renewed_at_half_of_its_life() {
    let mut client = client(BOTH);
    let asked = client.alarm(at(0));
    assert_eq!(asked, [pcp(0, 5_000, 5_000, LIFETIME_S), pcp(1, 6_000, 6_000, LIFETIME_S)]);
    hear(&mut client, at(20), &granted(0, 5_000, 41_000, 600, 9));
    hear(&mut client, at(20), &granted(1, 6_000, 42_000, 400, 9));
    assert_eq!(told(&client), [(Transport::Udp, 41_000, 600_020), (Transport::Wss, 42_000, 400_020)]);
    assert!(client.mappings().iter().all(|mapping| mapping.protocol == MappingProtocol::Pcp && mapping.external.ip() == OUTSIDE));
    assert_eq!(client.deadline(), Some(at(200_020)));
    let renewal = codec::pcp_map(OWN, NONCES[1], ask(Transport::Wss, 6_000, 42_000, LIFETIME_S), Some(OUTSIDE.into()));
    assert_eq!(client.alarm(at(200_020)), [renewal]);
    hear(&mut client, at(200_040), &granted(1, 6_000, 42_000, 400, 209));
    assert_eq!(told(&client)[1], (Transport::Wss, 42_000, 600_040));
}

// RFC 6886 3.1
#[test]
fn questions_without_an_answer_come_at_twice_the_distance_each_and_then_in_the_other_protocol() {
    let mut client = client(ONLY_UDP);
    let mut sent = Vec::new();
    while let Some(now) = client.deadline().filter(|now| *now < at(10_000)) {
        for question in client.alarm(now) {
            sent.push((now.since(at(0)).as_millis(), question[0], question.len()));
        }
    }
    let pcp = [(0, 2, 60), (250, 2, 60), (750, 2, 60)];
    let pmp = [1_750, 2_000, 2_500].map(|at| [(at, 0, 2), (at, 0, 12)]).concat();
    assert_eq!(sent, [&pcp[..], &pmp].concat());
    // then it is left alone, longer each time
    assert_eq!(client.deadline(), Some(at(3_500 + 60_000)));
    assert!(client.is_stuck());
    assert_eq!(client.alarm(at(63_500)), [self::pcp(0, 5_000, 5_000, LIFETIME_S)]);
}

// RFC 6887 9, appendix A; RFC 6886 3.2, 3.3
#[test]
fn a_router_that_does_not_know_pcp_is_asked_by_nat_pmp_at_once() {
    for version in [&[0, 0x81, 0, 1][..], &[2, 0x81, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        let mut client = client(ONLY_UDP);
        client.alarm(at(0));
        hear(&mut client, at(5), version);
        assert_eq!(client.deadline(), Some(at(5)));
        let asked = client.alarm(at(5));
        assert_eq!(asked, [codec::nat_pmp_address(), codec::nat_pmp_map(ask(Transport::Udp, 5_000, 5_000, LIFETIME_S))]);
        hear(&mut client, at(10), &[0, 129, 0, 0, 0, 0, 0, 9, 0x13, 0x88, 0xa0, 0x28, 0, 0, 0x02, 0x58]);
        assert_eq!(client.mappings(), [], "where it is is not known yet");
        assert_eq!(client.deadline(), Some(at(255)), "so it is asked again");
        hear(&mut client, at(12), &[0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7]);
        assert_eq!(told(&client), [(Transport::Udp, 41_000, 600_010)]);
        assert_eq!(client.mappings()[0].protocol, MappingProtocol::NatPmp);
        hear(&mut client, at(255), &[0, 129, 0, 0, 0, 0, 0, 9, 0x13, 0x88, 0xa0, 0x28, 0, 0, 0x02, 0x58]);
        assert_eq!(client.deadline(), Some(at(300_255)));
        assert_eq!(client.alarm(at(300_255)).len(), 2, "a renewal asks for the address, too");
    }
}

#[test]
fn what_is_not_from_the_router_or_not_an_answer_to_us_changes_nothing() {
    let mut client = client(ONLY_UDP);
    client.alarm(at(0));
    let good = granted(0, 5_000, 41_000, 600, 9);
    for from in ["192.168.1.3:5351", "192.168.1.1:5350", "203.0.113.7:5351"] {
        client.answer(at(1), from.parse().expect("an address"), &good);
    }
    let mut other_nonce = good.clone();
    other_nonce[24] ^= 1;
    let (other_port, other_protocol) = (granted(0, 5_001, 41_000, 600, 9), granted(1, 5_000, 41_000, 600, 9));
    for bytes in [&other_nonce[..], &other_port, &other_protocol, &good[..59], &[], &[2; 60], &[0, 129, 0, 0, 0, 0, 0, 9]] {
        hear(&mut client, at(1), bytes);
    }
    // of the protocol that is not spoken now
    hear(&mut client, at(1), &[0, 129, 0, 0, 0, 0, 0, 9, 0x13, 0x88, 0xa0, 0x28, 0, 0, 0x02, 0x58]);
    assert_eq!((client.mappings(), client.deadline()), (vec![], Some(at(250))));
    hear(&mut client, at(2), &good);
    assert_eq!(told(&client), [(Transport::Udp, 41_000, 600_002)]);
}

// RFC 6887 8.5
#[test]
fn a_router_that_lost_its_memory_is_asked_anew_at_once() {
    for (later_ms, epoch_s, lost) in [
        (300_000, 309, false),
        (300_000, 300, false),
        (300_000, 100, true),
        (300_000, 3, true),
        (300_000, 900, true),
        (1_000, 8, false),
        (1_000, 7, true),
    ] {
        let mut client = client(BOTH);
        client.alarm(at(0));
        hear(&mut client, at(0), &granted(0, 5_000, 41_000, 600, 9));
        hear(&mut client, at(0), &granted(1, 6_000, 42_000, 9_000, 9));
        hear(&mut client, at(later_ms), &granted(0, 5_000, 41_000, 600, epoch_s));
        assert_eq!(told(&client).len(), if lost { 1 } else { 2 }, "{later_ms} ms later its clock says {epoch_s} s");
        let asked = client.alarm(at(later_ms));
        assert_eq!(asked, if lost { vec![pcp(1, 6_000, 6_000, LIFETIME_S)] } else { vec![] });
    }
}

#[test]
fn a_renewal_that_is_not_answered_ends_with_the_life_and_goes_on_as_a_question() {
    let mut client = client(ONLY_UDP);
    client.alarm(at(0));
    hear(&mut client, at(0), &granted(0, 5_000, 41_000, 600, 9));
    let mut questions = 0;
    while let Some(now) = client.deadline().filter(|now| *now < at(600_000)) {
        questions += client.alarm(now).len();
        assert_eq!(told(&client).len(), 1, "it is still ours");
    }
    assert_eq!(questions, RENEWAL_TRIES as usize);
    assert_eq!(client.deadline(), Some(at(600_000)));
    assert_eq!(client.alarm(at(600_000)), [pcp(0, 5_000, 5_000, LIFETIME_S)]);
    assert_eq!(told(&client), []);
    hear(&mut client, at(600_100), &granted(0, 5_000, 41_500, 600, 2));
    assert_eq!(told(&client), [(Transport::Udp, 41_500, 1_200_100)]);
}

#[test]
fn a_refusal_holds_for_so_long_as_the_router_says() {
    let mut client = client(ONLY_UDP);
    client.alarm(at(0));
    let mut refusal = granted(0, 5_000, 0, 120, 9);
    refusal[3] = 2; // NOT_AUTHORIZED
    hear(&mut client, at(10), &refusal);
    assert!(client.is_stuck() && client.mappings().is_empty());
    assert_eq!(client.deadline(), Some(at(120_010)));
    assert_eq!(client.alarm(at(120_010)).len(), 1);
    hear(&mut client, at(120_020), &granted(0, 5_000, 41_000, 600, 129));
    assert_eq!(told(&client).len(), 1);
    assert!(!client.is_stuck());
}

#[test]
fn in_doubt_what_is_had_and_what_was_refused_is_asked_for_again() {
    let mut client = client(BOTH);
    client.alarm(at(0));
    hear(&mut client, at(0), &granted(0, 5_000, 41_000, 600, 9));
    let mut refusal = granted(1, 6_000, 0, 1_000, 9);
    refusal[3] = 8; // NO_RESOURCES
    hear(&mut client, at(0), &refusal);
    assert_eq!(client.alarm(at(5_000)), Vec::<Vec<u8>>::new());
    client.doubt(at(5_000));
    assert_eq!(client.alarm(at(5_000)).len(), 2);
    assert_eq!(told(&client), [(Transport::Udp, 41_000, 600_000)], "it stands until the router says otherwise");
}

// RFC 6887 15.1, RFC 6886 3.4
#[test]
fn ports_are_given_back_when_they_are_wanted_no_more() {
    let mut client = client(BOTH);
    client.alarm(at(0));
    hear(&mut client, at(0), &granted(0, 5_000, 41_000, 600, 9));
    assert_eq!(client.want(at(1), BOTH), Vec::<Vec<u8>>::new(), "nothing changed");
    // the question for the other one may have arrived
    assert_eq!(client.want(at(1), ONLY_UDP), [pcp(1, 6_000, 0, 0)]);
    assert_eq!(client.give_all_back(), [pcp(0, 5_000, 0, 0)]);
    assert_eq!((client.mappings(), client.deadline()), (vec![], None));
    assert_eq!(client.give_all_back(), Vec::<Vec<u8>>::new());
    let moved = Wanted { udp: Some(5_001), tcp: None };
    assert_eq!(client.want(at(2), moved), Vec::<Vec<u8>>::new());
    assert_eq!(client.alarm(at(2)), [pcp(0, 5_001, 5_001, LIFETIME_S)]);
}

#[test]
fn a_port_that_nobody_listens_on_leaves_the_router_alone_for_a_while() {
    let mut client = client(ONLY_UDP);
    client.alarm(at(0));
    client.unreachable(at(1));
    assert!(client.is_stuck());
    assert_eq!(client.deadline(), Some(at(60_001)));
    client.alarm(at(60_001));
    client.unreachable(at(60_002));
    assert_eq!(client.deadline(), Some(at(180_002)), "twice as long");
}

fn client(wanted: Wanted) -> Client {
    let mut client = Client::new(ROUTER, OWN, NONCES);
    assert_eq!(client.want(at(0), wanted), Vec::<Vec<u8>>::new());
    client
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(1_000_000 + millis)
}

fn hear(client: &mut Client, now: Instant, bytes: &[u8]) {
    client.answer(now, SocketAddr::new(ROUTER, codec::PORT), bytes);
}

fn ask(transport: Transport, internal: u16, external: u16, lifetime_s: u32) -> Ask {
    Ask { transport, internal, external, lifetime_s }
}

fn transport(index: usize) -> Transport {
    [Transport::Udp, Transport::Wss][index]
}

fn pcp(index: usize, internal: u16, external: u16, lifetime_s: u32) -> Vec<u8> {
    codec::pcp_map(OWN, NONCES[index], ask(transport(index), internal, external, lifetime_s), None)
}

/// The router's answer: the question with other numbers in it, and a clock.
fn granted(index: usize, internal: u16, external: u16, lifetime_s: u32, epoch_s: u32) -> Vec<u8> {
    let mut bytes = codec::pcp_map(OWN, NONCES[index], ask(transport(index), internal, external, lifetime_s), Some(OUTSIDE.into()));
    bytes[1] |= 0x80;
    bytes[8..24].fill(0);
    bytes[8..12].copy_from_slice(&epoch_s.to_be_bytes());
    bytes
}

/// Transport, port outside and the end in milliseconds of the test.
fn told(client: &Client) -> Vec<(Transport, u16, u64)> {
    let millis = |until: Instant| u64::try_from(until.since(at(0)).as_millis()).expect("small");
    client.mappings().iter().map(|mapping| (mapping.transport, mapping.external.port(), millis(mapping.until))).collect()
}
