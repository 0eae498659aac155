//! Every parser of the wire: no input makes it panic, and what it takes is emitted as the same bytes (protocol, rules for every message).
//! Where a clause lets a message grow or ignores bits, what is emitted must be read as the same value.
use shadowmesh_core::{
    handshake::{FIN_LEN_MAX, INIT_LEN_MAX, RESP_LEN_MAX, peek_fin, peek_init, peek_resp},
    wire::{
        BIND_MAC_LEN, Bind, Bound, CookieReply, FRAME_HEADER_LEN, Fragment, FrameHeader, LaneControl, Malformed, NodeControl,
        PARAMS_LEN_MAX, PATH_MAC_LEN, PROXY_HEADER_MAX_LEN, Params, PathComplete, PathHeader, PathRequest, PathResponse, PeerMessage,
        ProxyFault, Reader, Records, RelayMessage, addr, is_proxy_header, parse_proxy_header, peek_record,
    },
};

/// The first byte chooses a parser, the rest is its input.
pub fn wire(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 11 {
        0 => records(bytes),
        1 => frame(bytes),
        2 => canonical(bytes, LaneControl::parse(bytes), LaneControl::emit),
        3 => canonical(bytes, NodeControl::parse(bytes), NodeControl::emit),
        4 => peer_message(bytes),
        5 => relay_message(bytes),
        6 => params(bytes),
        7 => {
            path_messages(bytes);
            binding(bytes);
        }
        8 => socket_address(bytes),
        9 => {
            address_field(bytes);
            announced(bytes);
        }
        _ => handshake_messages(bytes),
    }
}

/// The header of a proxy is the same however much stands behind it, and none is longer than it may be (protocol 9.5).
fn announced(bytes: &[u8]) {
    match parse_proxy_header(bytes) {
        Ok(None) => assert!(bytes.len() < PROXY_HEADER_MAX_LEN, "it waits for ever"),
        Ok(Some(announced)) => {
            assert!(announced.len <= PROXY_HEADER_MAX_LEN && is_proxy_header(bytes));
            let header = bytes.get(..announced.len).expect("it is all there");
            assert_eq!(parse_proxy_header(header), Ok(Some(announced)));
            let cut = header.split_last().map_or(header, |(_, cut)| cut);
            assert_eq!(parse_proxy_header(cut), Ok(None), "its last byte is part of it");
        }
        Err(why) => assert_eq!(is_proxy_header(bytes), why != ProxyFault::Missing, "{why}"),
    }
}

fn emitted<T>(value: &T, emit: fn(&T, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    emit(value, &mut out);
    out
}

fn canonical<T>(bytes: &[u8], parsed: Result<T, Malformed>, emit: fn(&T, &mut Vec<u8>)) {
    if let Ok(value) = parsed {
        assert_eq!(emitted(&value, emit), bytes, "what was read is not what is written");
    }
}

/// Zeros may follow (protocol 8.3).
fn padded<T>(bytes: &[u8], parsed: Result<T, Malformed>, emit: fn(&T, &mut Vec<u8>)) {
    if let Ok(value) = parsed {
        let again = emitted(&value, emit);
        assert_eq!(again, bytes[..again.len()], "what was read is not what is written");
        assert!(bytes[again.len()..].iter().all(|byte| *byte == 0), "padding says something");
    }
}

fn records(bytes: &[u8]) {
    let mut walked = 0;
    for record in Records::new(bytes) {
        let Ok(record) = record else {
            assert_eq!(peek_record(&bytes[walked..]), None, "both ways to read a record agree");
            return;
        };
        assert_eq!(peek_record(&bytes[walked..]), Some((record.handle, record.payload.len())));
        let again = emitted(&record, shadowmesh_core::wire::Record::emit);
        assert_eq!(again, bytes[walked..walked + again.len()], "a record's flags and payload are kept");
        walked += again.len();
    }
    assert_eq!(walked, bytes.len(), "nothing is passed over");
}

fn frame(bytes: &[u8]) {
    if let Ok(header) = FrameHeader::parse(bytes) {
        assert_eq!(header.to_bytes(), bytes[..FRAME_HEADER_LEN]);
    }
}

/// Candidates of a later version are left out (protocol 6.3), so the list may be shorter when it is written again.
fn peer_message(bytes: &[u8]) {
    let Ok(message) = PeerMessage::parse(bytes) else { return };
    let again = emitted(&message, PeerMessage::emit);
    assert_eq!(PeerMessage::parse(&again).as_ref(), Ok(&message));
    if again.len() == bytes.len() {
        assert_eq!(again, bytes);
    } else {
        assert!(matches!(message, PeerMessage::Candidates { .. }) && again.len() < bytes.len());
    }
}

/// ESTABLISHED may grow (protocol 6.5), flags of an entry that nobody knows are ignored (protocol 6.6).
fn relay_message(bytes: &[u8]) {
    let Ok(message) = RelayMessage::parse(bytes) else { return };
    let again = emitted(&message, RelayMessage::emit);
    assert_eq!(RelayMessage::parse(&again).as_ref(), Ok(&message));
    match message {
        RelayMessage::Established(_) => assert!(again.len() <= bytes.len()),
        RelayMessage::Directory { .. } => assert_eq!(again.len(), bytes.len()),
        _ => assert_eq!(again, bytes),
    }
}

/// Order is free and unknown types are skipped (protocol 3.6).
fn params(bytes: &[u8]) {
    let Ok(params) = Params::parse(bytes) else { return };
    let again = emitted(&params, Params::emit);
    assert!(again.len() <= bytes.len() && again.len() <= PARAMS_LEN_MAX, "nothing grows");
    assert!(params.addresses.iter().all(|ip| *ip == ip.to_canonical()), "one address has one spelling (protocol 1.5)");
    assert_eq!(Params::parse(&again), Ok(params));
}

fn path_messages(bytes: &[u8]) {
    let before_mac = &bytes[..bytes.len().saturating_sub(PATH_MAC_LEN)];
    padded(before_mac, PathRequest::parse(bytes), PathRequest::emit);
    padded(before_mac, PathResponse::parse(bytes), PathResponse::emit);
    canonical(before_mac, PathComplete::parse(bytes), PathComplete::emit);
    if let Ok(header) = PathHeader::parse(bytes) {
        let again = emitted(&header, PathHeader::emit);
        assert_eq!(again, bytes[..again.len()]);
    }
}

fn binding(bytes: &[u8]) {
    let before_mac = &bytes[..bytes.len().saturating_sub(BIND_MAC_LEN)];
    canonical(before_mac, Bind::parse(bytes), Bind::emit);
    canonical(before_mac, Bound::parse(bytes), Bound::emit);
    canonical(bytes, Fragment::parse(bytes), Fragment::emit);
    canonical(bytes, CookieReply::parse(bytes), CookieReply::emit);
}

fn socket_address(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    if let Ok(address) = addr::read_socket(&mut reader) {
        assert_eq!(addr::socket_bytes(address), bytes[..addr::SOCKET_ADDRESS_LEN]);
        assert_eq!(address.ip(), address.ip().to_canonical(), "one address has one spelling (protocol 1.5)");
    }
}

fn address_field(bytes: &[u8]) {
    let Some((family, rest)) = bytes.split_first() else { return };
    let family = if family & 1 == 0 { addr::Family::V4 } else { addr::Family::V6 };
    let Ok(field) = Reader::new(rest).array::<16>("address") else { return };
    let shown = addr::AddressField { bytes: field, family }.to_string();
    if let Ok(ip) = addr::ip_from_bytes(field, family) {
        assert_eq!(addr::AddressField::from(ip), addr::AddressField { bytes: field, family });
        assert_eq!(shown.parse(), Ok(ip), "an address is shown in its usual text");
    }
}

fn handshake_messages(bytes: &[u8]) {
    if let Ok(info) = peek_init(bytes) {
        assert!(bytes.len() <= INIT_LEN_MAX && bytes[0] == 1 && info.suites.len() <= 4);
    }
    if peek_resp(bytes).is_ok() {
        assert!(bytes.len() <= RESP_LEN_MAX && bytes[0] == 2);
    }
    if peek_fin(bytes).is_ok() {
        assert!(bytes.len() <= FIN_LEN_MAX && bytes[..4] == [3, 0, 0, 0]);
    }
}
