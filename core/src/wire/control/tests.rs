//! Control messages between peers: golden bytes, round trips, noise.
use super::*;
use crate::wire::addr::tests::any_socket;
use proptest::{collection::vec, prelude::*};

fn node_bytes(message: &NodeControl) -> Vec<u8> {
    let mut out = Vec::new();
    message.emit(&mut out);
    out
}

fn peer_bytes(message: &PeerMessage) -> Vec<u8> {
    let mut out = Vec::new();
    message.emit(&mut out);
    out
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[track_caller]
fn golden_node(message: &NodeControl, text: &str) {
    assert_eq!(node_bytes(message), hex(text), "the wire changed");
    assert_eq!(NodeControl::parse(&hex(text)).as_ref(), Ok(message));
}

#[track_caller]
fn golden_peer(message: &PeerMessage, text: &str) {
    assert_eq!(peer_bytes(message), hex(text), "the wire changed");
    assert_eq!(PeerMessage::parse(&hex(text)).as_ref(), Ok(message));
}

// protocol 7.8
#[test]
fn golden_stream_and_ack() {
    golden_node(&NodeControl::Stream { offset: 0x0102, bytes: vec![9, 8, 7] }, "10 | 00000102 | 090807");
    golden_node(&NodeControl::Ack { offset: 0x0105 }, "11 | 00000105");
}

// protocol 7.9
#[test]
fn golden_ping_and_pong() {
    golden_node(&NodeControl::Ping { id: 5, payload: vec![1, 2] }, "12 | 00000005 | 0102");
    let pong = |heard| NodeControl::Pong { id: 5, heard, payload: vec![1] };
    golden_node(&pong(PathLabel::RelayWss), "13 | 00000005 | 00 | 01");
    golden_node(&pong(PathLabel::DirectWss), "13 | 00000005 | 01 | 01");
    golden_node(&pong(PathLabel::DirectUdp), "13 | 00000005 | 02 | 01");
}

// protocol 6.3
#[test]
fn golden_candidates() {
    let candidates = vec![
        Candidate {
            kind: CandidateKind::Host,
            transport: Transport::Wss,
            address: "192.168.1.20:40112".parse().expect("a good address"),
            priority: 200,
        },
        Candidate {
            kind: CandidateKind::Observed,
            transport: Transport::Udp,
            address: "[2001:db8::7]:443".parse().expect("a good address"),
            priority: 100,
        },
        Candidate {
            kind: CandidateKind::PortMapped,
            transport: Transport::Wss,
            address: "198.51.100.4:1".parse().expect("a good address"),
            priority: 1,
        },
        Candidate {
            kind: CandidateKind::Configured,
            transport: Transport::Wss,
            address: "198.51.100.4:2".parse().expect("a good address"),
            priority: 0,
        },
    ];
    golden_peer(
        &PeerMessage::Candidates { generation: 6, candidates },
        "20 | 00000006 | 04 |
         00 01 c8 00 | 04 00 9cb0 c0a80114 000000000000000000000000 |
         01 00 64 00 | 06 00 01bb 20010db8000000000000000000000007 |
         02 01 01 00 | 04 00 0001 c6336404 000000000000000000000000 |
         03 01 00 00 | 04 00 0002 c6336404 000000000000000000000000",
    );
}

// protocol 4.5, 7.8
#[test]
fn golden_rekey() {
    let key = vec![0xee; MLKEM_LEN];
    let tail = "ee".repeat(MLKEM_LEN);
    let x25519 = [0x11; 32];
    let front = format!("00000003 | {}", "11".repeat(32));
    golden_peer(&PeerMessage::Rekey1 { epoch: 3, x25519, mlkem_ek: key.clone() }, &format!("21 | {front} | {tail}"));
    golden_peer(&PeerMessage::Rekey2 { epoch: 3, x25519, mlkem_ct: key }, &format!("22 | {front} | {tail}"));
    golden_peer(&PeerMessage::RekeyPlease, "23");
}

// protocol 7.8
#[test]
fn golden_close_and_update() {
    golden_peer(&PeerMessage::Close { reason: CLOSE_REPLACED }, "24 | 01");
    golden_peer(&PeerMessage::Update { params: vec![1, 0, 1, 65] }, "25 | 01000141");
    let address = "203.0.113.9:20001".parse().expect("an address");
    golden_peer(&PeerMessage::Punch { address }, "27 | 04 00 4e21 cb007109 000000000000000000000000");
    golden_peer(&PeerMessage::Search { address, step: 2 }, "26 | 04 00 4e21 cb007109 000000000000000000000000 | 0002");
    assert_eq!(
        [CLOSE_DOWN, CLOSE_REPLACED, CLOSE_REFUSED, CLOSE_PROTOCOL, CLOSE_OVERLOAD, CLOSE_SHARED_IDENTITY, CLOSE_SESSION_OLD, CLOSE_SILENT],
        [0, 1, 2, 3, 4, 5, 6, 7]
    );
}

// protocol 7.8, 7.9
#[test]
fn bounds_of_node_control() {
    let mut body = node_bytes(&NodeControl::Stream { offset: 0, bytes: vec![7; 1000] });
    assert!(NodeControl::parse(&body).is_ok());
    body.push(7);
    assert_eq!(NodeControl::parse(&body), Err(Malformed("stream piece")));
    assert_eq!(NodeControl::parse(&hex("10 00000000")), Err(Malformed("stream piece")));
    assert_eq!(NodeControl::parse(&hex("11 00000000 00")), Err(Malformed("bytes after ack")));
    assert_eq!(NodeControl::parse(&hex("13 00000000 04")), Err(Malformed("path label")));
    assert_eq!(NodeControl::parse(&hex("14")), Err(Malformed("node control type")));
    assert_eq!(NodeControl::parse(&[]), Err(Malformed("node control type")));
}

#[test]
fn bounds_of_peer_messages() {
    assert_eq!(PeerMessage::parse(&hex("20 00000001 0b")), Err(Malformed("candidate count")));
    assert_eq!(PeerMessage::parse(&hex("20 00000001 01")), Err(Malformed("candidate")));
    assert_eq!(PeerMessage::parse(&hex("23 00")), Err(Malformed("bytes after peer message")));
    assert_eq!(PeerMessage::parse(&hex("2a")), Err(Malformed("peer message type")));
    let mut update = vec![UPDATE];
    update.extend([0; MAX_PARAMS_LEN]);
    assert!(PeerMessage::parse(&update).is_ok());
    update.push(0);
    assert_eq!(PeerMessage::parse(&update), Err(Malformed("update params")));
    let mut rekey = peer_bytes(&PeerMessage::Rekey1 { epoch: 1, x25519: [0; 32], mlkem_ek: vec![0; MLKEM_LEN] });
    rekey.pop();
    assert_eq!(PeerMessage::parse(&rekey), Err(Malformed("rekey ML-KEM bytes")));
}

// protocol 2.8, 7.8
#[test]
fn a_part_of_a_succession_has_the_length_of_its_place() {
    for (place, len) in [(0, 4_000), (1, 4_000), (2, 4_000), (3, 2_442)] {
        let message = PeerMessage::Succession { place, bytes: vec![9; len] };
        let mut bytes = peer_bytes(&message);
        assert_eq!((bytes.len(), PeerMessage::parse(&bytes)), (2 + len, Ok(message)));
        bytes.push(9);
        assert_eq!(PeerMessage::parse(&bytes), Err(Malformed("bytes after peer message")));
        bytes.truncate(1 + len);
        assert_eq!(PeerMessage::parse(&bytes), Err(Malformed("part of a succession")));
    }
    assert_eq!(PeerMessage::parse(&hex("28 04")), Err(Malformed("place in a succession")));
    assert_eq!(PeerMessage::parse(&[&[TAKEN][..], &[1; 31]].concat()), Err(Malformed("PeerId of a succession")));
    golden_peer(&PeerMessage::Taken { new: PeerId([0x5a; 32]) }, &format!("29 | {}", "5a".repeat(32)));
}

// protocol 6.3
#[test]
fn candidates_of_unknown_kinds_are_left_out() {
    let known = "00 01 05 00 | 04 00 0001 c6336404 000000000000000000000000";
    let kind = "09 01 05 00 | ff ff ffff ffffffffffffffffffffffffffffffff";
    let transport = "00 07 05 00 | ff ff ffff ffffffffffffffffffffffffffffffff";
    let parsed = PeerMessage::parse(&hex(&format!("20 00000001 03 {kind} {known} {transport}")));
    let Ok(PeerMessage::Candidates { candidates, .. }) = parsed else { panic!("{parsed:?}") };
    assert_eq!(candidates.len(), 1);
    assert_eq!(candidates[0].priority, 5);
}

fn any_node_control() -> impl Strategy<Value = NodeControl> {
    let label = prop_oneof![Just(PathLabel::RelayWss), Just(PathLabel::DirectWss), Just(PathLabel::DirectUdp)];
    prop_oneof![
        (any::<u32>(), vec(any::<u8>(), 1..=1000)).prop_map(|(offset, bytes)| NodeControl::Stream { offset, bytes }),
        any::<u32>().prop_map(|offset| NodeControl::Ack { offset }),
        (any::<u32>(), vec(any::<u8>(), 0..=1000)).prop_map(|(id, payload)| NodeControl::Ping { id, payload }),
        (any::<u32>(), label, vec(any::<u8>(), 0..=1000)).prop_map(|(id, heard, payload)| NodeControl::Pong { id, heard, payload }),
    ]
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    let kind = prop_oneof![
        Just(CandidateKind::Host),
        Just(CandidateKind::Observed),
        Just(CandidateKind::PortMapped),
        Just(CandidateKind::Configured),
        Just(CandidateKind::Varying)
    ];
    let transport = prop_oneof![Just(Transport::Udp), Just(Transport::Wss)];
    (kind, transport, any_socket(), any::<u8>()).prop_map(|(kind, transport, address, priority)| Candidate {
        kind,
        transport,
        address,
        priority,
    })
}

/// Any message of the control stream.
pub(crate) fn any_peer_message() -> impl Strategy<Value = PeerMessage> {
    let rekey = (any::<u32>(), any::<[u8; 32]>(), any::<u8>(), any::<bool>()).prop_map(|(epoch, x25519, fill, first)| {
        let mlkem = (0..MLKEM_LEN).map(|i| fill.wrapping_add(i as u8)).collect();
        if first { PeerMessage::Rekey1 { epoch, x25519, mlkem_ek: mlkem } } else { PeerMessage::Rekey2 { epoch, x25519, mlkem_ct: mlkem } }
    });
    prop_oneof![
        (any::<u32>(), vec(any_candidate(), 0..=MAX_CANDIDATES))
            .prop_map(|(generation, candidates)| PeerMessage::Candidates { generation, candidates }),
        rekey,
        Just(PeerMessage::RekeyPlease),
        any::<u8>().prop_map(|reason| PeerMessage::Close { reason }),
        vec(any::<u8>(), 0..=MAX_PARAMS_LEN).prop_map(|params| PeerMessage::Update { params }),
        (any_socket(), any::<u16>()).prop_map(|(address, step)| PeerMessage::Search { address, step }),
        any_socket().prop_map(|address| PeerMessage::Punch { address }),
    ]
}

proptest! {
    #[test]
    fn node_control_round_trip(message in any_node_control()) {
        prop_assert_eq!(NodeControl::parse(&node_bytes(&message)), Ok(message));
    }

    #[test]
    fn peer_message_round_trip(message in any_peer_message()) {
        prop_assert_eq!(PeerMessage::parse(&peer_bytes(&message)), Ok(message));
    }

    #[test]
    fn node_control_of_any_bytes(kind in 0x0e_u8..0x16, bytes in vec(any::<u8>(), 0..1100)) {
        let mut body = vec![kind];
        body.extend(bytes);
        if let Ok(message) = NodeControl::parse(&body) {
            prop_assert_eq!(node_bytes(&message), body);
        }
    }

    #[test]
    fn peer_message_of_any_bytes(kind in 0x1e_u8..0x28, count in 0_u8..12, bytes in vec(any::<u8>(), 0..1700)) {
        let mut body = vec![kind, 0, 0, 0, 1, count];
        body.extend(bytes);
        let _ = PeerMessage::parse(&body);
        let _ = PeerMessage::parse(&body[..=usize::from(count).min(5)]);
    }

    #[test]
    fn a_cut_or_changed_peer_message_never_panics(message in any_peer_message(), at in any::<proptest::sample::Index>(), to: u8) {
        let mut body = peer_bytes(&message);
        let at = at.index(body.len());
        let fixed_length = !matches!(message, PeerMessage::Update { .. });
        if fixed_length { prop_assert!(PeerMessage::parse(&body[..at]).is_err()); }
        body[at] = to;
        let _ = PeerMessage::parse(&body);
    }
}

// protocol 1.5
#[test]
fn a_message_between_peers_that_ends_before_its_last_field_is_malformed() {
    for message in [
        NodeControl::Stream { offset: 1, bytes: vec![2] },
        NodeControl::Ack { offset: 1 },
        NodeControl::Ping { id: 1, payload: vec![] },
        NodeControl::Pong { id: 1, heard: PathLabel::DirectUdp, payload: vec![] },
    ] {
        let bytes = node_bytes(&message);
        for end in 0..bytes.len() {
            assert!(NodeControl::parse(&bytes[..end]).is_err(), "{end} of {} bytes: {message:?}", bytes.len());
        }
    }
    let address = "192.0.2.1:5".parse().expect("a good address");
    let candidate = Candidate { kind: CandidateKind::Host, transport: Transport::Udp, address, priority: 1 };
    for message in [
        PeerMessage::Candidates { generation: 1, candidates: vec![candidate; 2] },
        PeerMessage::Rekey1 { epoch: 1, x25519: [2; 32], mlkem_ek: vec![3; 1568] },
        PeerMessage::Close { reason: 1 },
        PeerMessage::Search { address, step: 1 },
    ] {
        let bytes = peer_bytes(&message);
        for end in 0..bytes.len() {
            assert!(PeerMessage::parse(&bytes[..end]).is_err(), "{end} of {} bytes: {message:?}", bytes.len());
        }
    }
    let too_long = [&[0x13, 0, 0, 0, 5, 2][..], &[0; CONTROL_PIECE_MAX_LEN + 1]].concat();
    assert_eq!(NodeControl::parse(&too_long), Err(Malformed("pong payload")), "nothing is without a bound");
}
