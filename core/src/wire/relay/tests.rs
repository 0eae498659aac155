//! Messages between relay and client: golden bytes, round trips, noise.
use super::*;
use crate::wire::addr::tests::any_socket;
use proptest::{collection::vec, prelude::*};

fn bytes_of(message: &RelayMessage) -> Vec<u8> {
    let mut out = Vec::new();
    message.emit(&mut out);
    out
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[track_caller]
fn golden(message: &RelayMessage, text: &str) {
    assert_eq!(bytes_of(message), hex(text), "the wire changed");
    assert_eq!(RelayMessage::parse(&hex(text)).as_ref(), Ok(message));
}

fn entries() -> Vec<DirectoryEntry> {
    vec![
        DirectoryEntry {
            handle: Handle(2),
            peer: PeerId([0xaa; 32]),
            public: Some("203.0.113.7:41022".parse().expect("a good address")),
            supports_direct: true,
            online: true,
        },
        DirectoryEntry {
            handle: Handle(3),
            peer: PeerId([0xbb; 32]),
            public: Some("[2001:db8::9]:5".parse().expect("a good address")),
            supports_direct: false,
            online: true,
        },
        DirectoryEntry { handle: Handle(4), peer: PeerId([0xcc; 32]), public: None, supports_direct: false, online: false },
    ]
}

fn entries_hex() -> String {
    format!(
        "0003 |
         00000002 {} cb007107 000000000000000000000000 a03e 03 00 |
         00000003 {} 20010db8000000000000000000000009 0005 06 00 |
         00000004 {} 00000000000000000000000000000000 0000 08 00",
        "aa".repeat(32),
        "bb".repeat(32),
        "cc".repeat(32)
    )
}

fn established() -> RelayMessage {
    RelayMessage::Established(Established {
        session_id: [0x5a; 16],
        your_handle: Handle(1),
        observed: "198.51.100.4:40112".parse().expect("a good address"),
        keepalive_s: 25,
        max_frame: 9216,
        window: 256,
        udp_port: 0,
        entries: entries(),
    })
}

fn established_hex() -> String {
    format!(
        "40 | {} | 00000001 | 04 00 9cb0 c6336404 000000000000000000000000 | 0019 | 2400 | 00000100 | 0000 | {}",
        "5a".repeat(16),
        entries_hex()
    )
}

// protocol 6.5
#[test]
fn golden_established() {
    golden(&established(), &established_hex());
}

// protocol 6.6
#[test]
fn golden_directory() {
    golden(&RelayMessage::Directory { entries: entries() }, &format!("41 | {}", entries_hex()));
}

// protocol 6.4, 6.7
#[test]
fn golden_small_messages() {
    golden(&RelayMessage::Ping { id: 0x0102_0304 }, "42 | 01020304");
    golden(&RelayMessage::Pong { id: 0x0102_0304 }, "43 | 01020304");
    golden(&RelayMessage::Lookup { peer: PeerId([0xdd; 32]) }, &format!("44 | {}", "dd".repeat(32)));
    golden(&RelayMessage::Close { reason: 5 }, "45 | 05");
    golden(&RelayMessage::Update { flags: UPDATE_SUPPORTS_DIRECT | UPDATE_WITHHOLD_ADDRESS, udp_port: 0x1234 }, "46 | 03 00 1234");
}

// protocol 6.5
#[test]
fn established_may_grow_and_nothing_else_may() {
    let mut body = hex(&established_hex());
    body.extend([1, 2, 3]);
    assert_eq!(RelayMessage::parse(&body), Ok(established()));
    for message in [
        RelayMessage::Directory { entries: entries() },
        RelayMessage::Ping { id: 1 },
        RelayMessage::Lookup { peer: PeerId([1; 32]) },
        RelayMessage::Close { reason: 0 },
        RelayMessage::Update { flags: 0, udp_port: 0 },
    ] {
        let mut body = bytes_of(&message);
        body.push(0);
        assert_eq!(RelayMessage::parse(&body), Err(Malformed("bytes after relay message")));
    }
}

#[test]
fn a_count_is_checked_before_room_is_made() {
    assert_eq!(RelayMessage::parse(&hex("41 ffff")), Err(Malformed("entry count")));
    assert_eq!(RelayMessage::parse(&hex("41 0100")), Err(Malformed("entry count")));
    let full = RelayMessage::Directory { entries: vec![entries().remove(0); MAX_DIRECTORY_ENTRIES] };
    let body = bytes_of(&full);
    assert_eq!(body.len(), 3 + MAX_DIRECTORY_ENTRIES * DirectoryEntry::LEN);
    assert_eq!(RelayMessage::parse(&body), Ok(full));
}

// protocol 6.6
#[test]
fn a_withheld_address_is_not_there() {
    let mut body = bytes_of(&RelayMessage::Directory { entries: entries() });
    let at = body.len() - 4;
    body[at] = 1; // a port beside the flag "withheld"
    assert_eq!(RelayMessage::parse(&body), Err(Malformed("withheld address is not zero")));
}

fn any_entry() -> impl Strategy<Value = DirectoryEntry> {
    (any::<u32>(), any::<[u8; 32]>(), proptest::option::of(any_socket()), any::<bool>(), any::<bool>()).prop_map(
        |(handle, peer, public, supports_direct, online)| DirectoryEntry {
            handle: Handle(handle),
            peer: PeerId(peer),
            public,
            supports_direct,
            online,
        },
    )
}

fn any_relay_message() -> impl Strategy<Value = RelayMessage> {
    let established = (
        (any::<[u8; 16]>(), any::<u32>(), any_socket()),
        (any::<u16>(), any::<u16>(), any::<u32>(), any::<u16>()),
        vec(any_entry(), 0..20),
    )
        .prop_map(|((session_id, handle, observed), (keepalive_s, max_frame, window, udp_port), entries)| {
            RelayMessage::Established(Established {
                session_id,
                your_handle: Handle(handle),
                observed,
                keepalive_s,
                max_frame,
                window,
                udp_port,
                entries,
            })
        });
    prop_oneof![
        established,
        vec(any_entry(), 0..40).prop_map(|entries| RelayMessage::Directory { entries }),
        any::<u32>().prop_map(|id| RelayMessage::Ping { id }),
        any::<u32>().prop_map(|id| RelayMessage::Pong { id }),
        any::<[u8; 32]>().prop_map(|peer| RelayMessage::Lookup { peer: PeerId(peer) }),
        any::<u8>().prop_map(|reason| RelayMessage::Close { reason }),
        (any::<u8>(), any::<u16>()).prop_map(|(flags, udp_port)| RelayMessage::Update { flags, udp_port }),
    ]
}

proptest! {
    #[test]
    fn round_trip(message in any_relay_message()) {
        prop_assert_eq!(RelayMessage::parse(&bytes_of(&message)), Ok(message));
    }

    #[test]
    fn any_bytes_end_without_panic(kind in 0x3e_u8..0x49, count in 0_u16..4, bytes in vec(any::<u8>(), 0..300)) {
        let mut body = vec![kind];
        body.extend(count.to_be_bytes());
        body.extend(&bytes);
        let _ = RelayMessage::parse(&body);
        let mut body = vec![kind];
        body.extend(bytes);
        let _ = RelayMessage::parse(&body);
    }

    #[test]
    fn a_cut_or_changed_message_never_panics(message in any_relay_message(), at in any::<proptest::sample::Index>(), to: u8) {
        let mut body = bytes_of(&message);
        let at = at.index(body.len());
        prop_assert!(RelayMessage::parse(&body[..at]).is_err());
        body[at] = to;
        let _ = RelayMessage::parse(&body);
    }
}

// protocol 1.5
#[test]
fn a_message_between_relay_and_client_that_ends_too_early_is_malformed_wherever_it_ends() {
    let messages = [
        established(),
        RelayMessage::Directory { entries: entries() },
        RelayMessage::Ping { id: 1 },
        RelayMessage::Pong { id: 1 },
        RelayMessage::Lookup { peer: PeerId([1; 32]) },
        RelayMessage::Close { reason: 1 },
        RelayMessage::Update { flags: 1, udp_port: 2 },
        RelayMessage::GoAway { within_s: 3 },
        RelayMessage::Attach { address: "[2001:db8::9]:5".parse().expect("a good address"), ticket: [1; 16] },
        RelayMessage::Route { receiver: 1, to: Handle(2) },
    ];
    for message in messages {
        let bytes = bytes_of(&message);
        for end in 0..bytes.len() {
            assert!(RelayMessage::parse(&bytes[..end]).is_err(), "{end} of {} bytes: {message:?}", bytes.len());
        }
    }
}
