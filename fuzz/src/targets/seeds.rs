//! Where the fuzzer begins: genuine messages and scripts that get past the first checks, so that it need not find them by chance.
use super::cast;
use crate::world::Rng;
use shadowmesh_core::{
    handshake::Role,
    id::{Handle, PathId, PeerId},
    wire::{
        Bind, Bound, Candidate, CandidateKind, CookieReply, Counter, DirectoryEntry, Established, Fragment, FragmentKind, FrameHeader,
        LaneControl, NodeControl, Params, PathComplete, PathHeader, PathLabel, PathRequest, PeerMessage, Receipt, ReceiptMask, Record,
        RelayMessage, SUCCESSION_PART_LEN, TYPE_DLV, TYPE_FWD, TYPE_PATH_CMP, TYPE_PATH_REQ, TYPE_PATH_RSP, Transport, addr,
    },
};
use std::net::SocketAddr;

/// Scripts of chance for each target that takes steps.
const SCRIPTS: usize = 24;
const SCRIPT_LEN: usize = 400;

/// Inputs for each target by its name.
pub fn all() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut all = vec![("wire", [wire(), proxy_headers()].concat()), ("token", token()), ("handshake", handshake()), ("rekey", rekey())];
    for (place, name) in
        ["rehandshake", "control", "relay_door", "peer_door", "plane", "lanes", "bridge", "scenario", "offload", "fragments"]
            .into_iter()
            .enumerate()
    {
        let mut rng = Rng::new(place as u64);
        let script = |number: usize| {
            let len = rng.below(SCRIPT_LEN);
            let mut bytes = vec![number as u8];
            bytes.extend(rng.noise(len));
            bytes
        };
        all.push((name, (0..SCRIPTS).map(script).chain(told(name)).collect()));
    }
    all
}

/// Scripts that somebody thought out.
fn told(name: &str) -> Vec<Vec<u8>> {
    match name {
        // newcomers of both networks, records between them, sealed messages, a replacement, silence
        "relay_door" => vec![
            [&[13, 0, 0, 13, 0, 4, 13, 0, 16, 13, 0, 20][..], &[4, 0, 3, 1, 0, 9, 7, 0].repeat(6), &[2, 0, 2, 1, 8, 0, 17]].concat(),
            [&[13, 0, 0, 13, 0, 0, 13, 0, 0, 13, 0, 0][..], &[5, 1, 2, 33, 0x44], &[7; 32], &[8, 0, 16, 8, 0, 17]].concat(),
            // where do you see me: asked well, from both ports, spoiled, as noise, and when gone
            [13, 0, 0, 12, 0, 0, 12, 0, 0x80, 12, 0, 2, 3, 1, 5, 12, 0, 3, 4, 1, 2, 3, 4, 12, 0, 1, 7, 0, 12, 0, 0].to_vec(),
            // two of one network show where they are and name each other, and one more from a network beside; then runs between them
            [
                &[13, 0, 0, 13, 0, 4, 13, 0, 20, 12, 0, 4, 12, 1, 8, 12, 2, 12][..],
                &[12, 0, 0xfc, 0, 0, 12, 1, 0xfc, 0, 0, 12, 2, 0xfc, 0, 0, 12, 1, 0xfc, 1, 4, 12, 1, 0xfc, 2, 8],
                &[12, 0, 0xfb, 1, 1, 0, 12, 0, 0xfb, 2, 2, 0, 12, 0, 0xfb, 3, 3, 0, 12, 1, 0xfb, 1, 1, 0],
                &[12, 0, 0xfa, 4, 1, 9, 0, 99, 12, 0, 0xfa, 4, 2, 9, 0, 99, 12, 0, 0xfa, 4, 3, 9, 0, 99, 12, 0, 0xfa, 8, 1, 0, 2, 0],
                &[8, 0, 14, 12, 1, 0xfb, 0, 1, 255, 12, 0, 0xfa, 8, 0, 63, 2, 0x60, 7, 0, 12, 0, 0xfa, 8, 1, 0, 0, 9],
            ]
            .concat(),
            // more receivers than are kept, for one and then for another
            [
                &[13, 0, 0, 13, 0, 4, 13, 0, 20][..],
                &[8, 0, 13, 12, 0, 0xfb, 1, 2, 255, 8, 0, 13, 12, 0, 0xfb, 2, 2, 255, 8, 0, 13, 12, 0, 0xfb, 3, 2, 255],
                &[8, 0, 13, 12, 0, 0xfb, 4, 2, 255, 8, 0, 13, 12, 0, 0xfb, 5, 3, 1, 12, 0, 0xfb, 6, 2, 9],
            ]
            .concat(),
            [13, 0, 4, 5, 0, 2, 5, 0x42, 0, 0, 0, 9, 5, 0, 2, 4, 0x46, 3, 0, 0, 5, 0, 2, 2, 0x45, 0].to_vec(),
        ],
        // a whole INIT and a whole FIN; one whose secret is renewed amid it; repeated from elsewhere; a stranger
        "fragments" => vec![
            [&[1, 3, 1, 2, 3, 1, 0, 0, 2, 3, 1, 0, 1][..], &(0..8).flat_map(|part| [2, 3, 1, 1, part]).collect::<Vec<_>>()].concat(),
            [1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 1, 1, 0, 2, 0, 0, 0, 1, 5, 2, 0, 1].to_vec(),
            [1, 4, 2, 2, 4, 2, 1, 0, 5, 5, 2, 1, 5, 4, 2, 1, 6, 0, 0, 1, 1, 40, 0, 3, 7, 4, 2].to_vec(),
        ],
        // data, a direct path, a switch, its death, hedges, a new session, keys
        "plane" => vec![
            vec![0, 0, 9, 5, 6, 0x86, 0, 15, 0x42, 7, 4, 30, 7, 0, 12, 8, 0x88, 4, 60, 0x80, 15, 2, 15, 0x82, 15],
            vec![0, 0, 15, 0x80, 15, 10, 11, 0, 15, 2, 15, 4, 63, 5, 6, 9, 0x89, 0, 15, 7, 8, 11, 0x88, 4, 63],
        ],
        _ => Vec::new(),
    }
}

/// The messages of whole handshakes.
fn handshakes() -> Vec<Vec<u8>> {
    let genuine = [Role::ClientRelay, Role::PeerPeer].map(cast::genuine);
    genuine.iter().flat_map(|genuine| [&genuine.init, &genuine.resp, &genuine.fin]).map(|message| [&[10], &message[..]].concat()).collect()
}

fn wire() -> Vec<Vec<u8>> {
    let [v4, v6]: [SocketAddr; 2] = [SocketAddr::from(([203, 0, 113, 7], 443)), SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2], 9))];
    let mut seeds = Vec::new();
    let mut add = |kind: u8, write: &mut dyn FnMut(&mut Vec<u8>)| {
        let mut bytes = vec![kind];
        write(&mut bytes);
        seeds.push(bytes);
    };
    add(0, &mut |out| {
        Record { kind: TYPE_FWD, flags: 1, handle: Handle(7), payload: &[1, 2] }.emit(out);
        Record { kind: TYPE_DLV, flags: 0, handle: Handle(0), payload: &[0x10; 40] }.emit(out);
    });
    let header = FrameHeader { epoch: 1, generation: 2, receiver: 3, counter: Counter::new(0x80, 4) };
    add(1, &mut |out| out.extend(header.to_bytes()));
    for message in [
        LaneControl::Switch { lane: 0, generation: 1, start: 9, from: PathId(0), to: PathId(2) },
        LaneControl::Drain { lane: 1, generation: 1, start: 9, path: PathId(0) },
        LaneControl::Receipt(receipt()),
    ] {
        add(2, &mut |out| message.emit(out));
    }
    for message in [
        NodeControl::Stream { offset: 5, bytes: vec![1, 2, 3] },
        NodeControl::Ack { offset: 8 },
        NodeControl::Ping { id: 1, payload: vec![9; 8] },
        NodeControl::Pong { id: 1, heard: PathLabel::DirectWss, payload: vec![9; 8] },
    ] {
        add(3, &mut |out| message.emit(out));
    }
    for message in peer_messages(v4, v6) {
        add(4, &mut |out| message.emit(out));
    }
    for message in relay_messages(v4, v6) {
        add(5, &mut |out| message.emit(out));
    }
    add(6, &mut |out| params(v4, v6).emit(out));
    for kind in [TYPE_PATH_REQ, TYPE_PATH_RSP, TYPE_PATH_CMP] {
        let header = PathHeader { kind, epoch: 1, flags: 0, role: 1, receiver: 2, path: PathId(6), attempt: 3 };
        add(7, &mut |out| {
            if kind == TYPE_PATH_CMP {
                PathComplete { header, seen: v6, floor: 9 }.emit(out);
            } else {
                PathRequest { header, nonce: [8; 32], seen: v4, floor: 9 }.emit(out);
            }
            out.extend([0; 32]);
        });
    }
    for (family, address) in [(0, v4), (1, v6)] {
        add(8, &mut |out| out.extend(addr::socket_bytes(address)));
        add(9, &mut |out| {
            out.push(family);
            out.extend(addr::ip_bytes(address.ip()));
        });
    }
    add(7, &mut |out| {
        Bind { receiver: 7, nonce: [8; 8] }.emit(out);
        out.extend([0; 32]);
    });
    add(7, &mut |out| {
        Bound { receiver: 7, nonce: [8; 8], address: v6, other_port: 9, ticket: [3; 16] }.emit(out);
        out.extend([0; 32]);
    });
    add(7, &mut |out| {
        let body = &[9; 728];
        Fragment { kind: FragmentKind::Init, with_cookie: true, index: 1, mark: 2, sid: 3, total: 1_654, tag: [4; 16], body }.emit(out);
    });
    add(7, &mut |out| CookieReply { sid: 3, cookie: [5; 16], mac: [6; 16] }.emit(out));
    seeds.extend(handshakes());
    seeds
}

/// Both forms, each behind the number of its parser.
fn proxy_headers() -> Vec<Vec<u8>> {
    let text = b"PROXY TCP6 2001:db8::7 2001:db8::1 41022 443\r\n";
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xcb\0\x71\x07\xc0\0\x02\x01\xa0\x3e\x01\xbb\x04\0\x01\0";
    [&text[..], binary].map(|header| [&[9], header].concat()).to_vec()
}

fn receipt() -> Receipt {
    Receipt { lane: 0, generation: 1, floor: 5, next: 90, path: PathId(2), delay_us: 7, lost: 1, mask: ReceiptMask::from_words(&[1, 2, 3]) }
}

fn params(v4: SocketAddr, v6: SocketAddr) -> Params {
    Params {
        name: Some("ada".into()),
        addresses: vec![v4.ip(), v6.ip()],
        mtu: Some(1_280),
        layer2: true,
        net_r: Some([1; 32]),
        supports_direct: true,
        withhold_address: true,
        version: Some("0.1.0".into()),
        udp_port: Some(9),
        pass: Some([2; 32]),
        lanes: Some(4),
    }
}

fn peer_messages(v4: SocketAddr, v6: SocketAddr) -> Vec<PeerMessage> {
    let candidate = |kind, transport, address| Candidate { kind, transport, address, priority: 100 };
    vec![
        PeerMessage::Candidates {
            generation: 1,
            candidates: vec![candidate(CandidateKind::Host, Transport::Wss, v4), candidate(CandidateKind::Configured, Transport::Udp, v6)],
        },
        PeerMessage::Rekey1 { epoch: 1, x25519: [2; 32], mlkem_ek: vec![3; 1_568] },
        PeerMessage::Rekey2 { epoch: 1, x25519: [2; 32], mlkem_ct: vec![3; 1_568] },
        PeerMessage::RekeyPlease,
        PeerMessage::Close { reason: 1 },
        PeerMessage::Succession { place: 0, bytes: vec![5; SUCCESSION_PART_LEN] },
        PeerMessage::Taken { new: PeerId([6; 32]) },
        PeerMessage::Update { params: vec![0, 3, 0, 2, 5, 0] },
    ]
}

fn relay_messages(v4: SocketAddr, v6: SocketAddr) -> Vec<RelayMessage> {
    let entry = |public| DirectoryEntry { handle: Handle(2), peer: PeerId([3; 32]), public, supports_direct: true, online: true };
    let entries = vec![entry(Some(v4)), entry(Some(v6)), entry(None)];
    let established = Established {
        session_id: [1; 16],
        your_handle: Handle(1),
        observed: v4,
        keepalive_s: 20,
        max_frame: 9_216,
        window: 256,
        udp_port: 0,
        entries: entries.clone(),
    };
    vec![
        RelayMessage::Established(established),
        RelayMessage::Directory { entries },
        RelayMessage::Ping { id: 1 },
        RelayMessage::Pong { id: 1 },
        RelayMessage::Lookup { peer: PeerId([3; 32]) },
        RelayMessage::Close { reason: 2 },
        RelayMessage::Update { flags: 3, udp_port: 9 },
        RelayMessage::GoAway { within_s: 10 },
        RelayMessage::Attach { address: v6, ticket: [3; 16] },
        RelayMessage::Route { receiver: 7, to: Handle(2) },
    ]
}

fn token() -> Vec<Vec<u8>> {
    let network = cast::network();
    let text = network.token().expect("within limits");
    let with = |kind: u8, text: &str| [&[kind], text.as_bytes()].concat();
    vec![
        with(0, &text),
        with(0, &format!(" {text}\n")),
        with(0, &text[..text.len() - 3]),
        with(1, &cast::alice().id().to_string()),
        with(2, "wss://relay.example.org:443"),
        with(2, "wss://[2001:db8::1]:8443/"),
        with(2, "wss://192.0.2.1"),
        with(2, "wss://name./"),
        with(3, "home\0wss://relay.example.org\0wss://[::1]:1"),
        [&[4, 1][..], &[7; 32], b"\x04home\x01\x00\x13wss://relay.example"].concat(),
    ]
}

fn handshake() -> Vec<Vec<u8>> {
    let changes: [&[u8]; 6] = [
        &[],
        &[1, 0, 30, 0, 5],
        &[2, 6, 0x40, 1, 4, 9, 9, 9, 9, 7, 0, 2, 0, 3],
        &[1, 6, 0x50, 2],
        &[1, 0, 9, 3, 3, 1, 2, 3],
        &[2, 0, 12, 5, 3, 16, 0, 1, 1, 5, 4, 0, 255],
    ];
    (0..16u8).flat_map(|choice| changes.map(|change| [&[choice], change].concat())).collect()
}

fn rekey() -> Vec<Vec<u8>> {
    let changes: [&[u8]; 4] = [&[], &[1, 0, 3, 0, 1], &[1, 0, 32, 5, 1, 6, 0], &[1, 1, 44, 2]];
    (0..8u8).flat_map(|choice| changes.map(|change| [&[choice], change].concat())).collect()
}
