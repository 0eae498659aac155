//! Frames against the library's, in pieces of any size, and what is refused.
use super::*;
use proptest::{collection::vec, prelude::*};
use std::io::Cursor;
use tungstenite::{
    Message,
    protocol::{
        Role, WebSocket, WebSocketConfig,
        frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

const MASK: [u8; 4] = [0x11, 0xfe, 0x07, 0x80];

/// What a frame is for.
#[derive(Clone, Debug)]
enum Said {
    /// A message in parts of these lengths, a ping between each two.
    Message(Vec<usize>),
    Ping(usize),
    Pong(usize),
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// These frames as the library writes them, and what they say.
fn by_the_library(said: &[Said], mask: Option<[u8; 4]>) -> (Vec<u8>, Vec<Item>) {
    let (mut stream, mut items) = (Vec::new(), Vec::new());
    let mut write = |mut frame: Frame| {
        frame.header_mut().mask = mask;
        frame.format(&mut stream).expect("room");
    };
    for one in said {
        match one {
            Said::Ping(len) => {
                write(Frame::ping(bytes(*len)));
                items.push(Item::Ping(bytes(*len)));
            }
            Said::Pong(len) => {
                write(Frame::pong(bytes(*len)));
                items.push(Item::Pong);
            }
            Said::Message(parts) => {
                let all = bytes(parts.iter().sum());
                let mut rest = all.as_slice();
                for (at, len) in parts.iter().enumerate() {
                    let part;
                    (part, rest) = rest.split_at(*len);
                    let data = if at == 0 { Data::Binary } else { Data::Continue };
                    write(Frame::message(part.to_vec(), OpCode::Data(data), at + 1 == parts.len()));
                    if at + 1 < parts.len() {
                        write(Frame::ping(vec![7; at]));
                        items.push(Item::Ping(vec![7; at]));
                    }
                }
                items.push(Item::Message(all));
            }
        }
    }
    write(Frame::close(None));
    items.push(Item::Close);
    (stream, items)
}

/// What comes of these bytes when they come in pieces of these lengths, over and over.
fn read(side: Side, stream: &[u8], pieces: &[usize]) -> (Vec<Item>, Option<Ended>) {
    let (mut incoming, mut items, mut rest) = (Incoming::new(side), Vec::new(), stream);
    for len in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let mut piece;
        (piece, rest) = rest.split_at((*len).clamp(1, rest.len()));
        while !piece.is_empty() {
            match incoming.take(piece) {
                Ok((used, item)) => {
                    assert!(used > 0 && incoming.message.len() <= MESSAGE_BYTES && incoming.control.len() <= CONTROL_BYTES);
                    piece = &piece[used..];
                    items.extend(item);
                }
                Err(why) => return (items, Some(why)),
            }
        }
    }
    (items, None)
}

fn said() -> impl Strategy<Value = Said> {
    let len = prop_oneof![0_usize..200, Just(125), Just(126), Just(65_535), Just(65_536), 0_usize..70_000];
    prop_oneof![
        len.prop_map(|len| Said::Message(vec![len])),
        vec(0_usize..5_000, 1..5).prop_map(Said::Message),
        (0_usize..=CONTROL_BYTES).prop_map(Said::Ping),
        (0_usize..=CONTROL_BYTES).prop_map(Said::Pong),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What the library writes is read, however it is cut.
    #[test]
    fn what_the_library_writes_is_read(said in vec(said(), 0..6), pieces in vec(prop_oneof![1_usize..20, 1_usize..70_000], 1..8)) {
        for (side, mask) in [(Side::Server, Some(MASK)), (Side::Client, None)] {
            let (stream, items) = by_the_library(&said, mask);
            prop_assert_eq!(read(side, &stream, &pieces), (items, None));
        }
    }

    /// What is written here, the library reads.
    #[test]
    fn what_is_written_the_library_reads(lengths in vec(prop_oneof![0_usize..300, 0_usize..70_000], 1..5), mask: [u8; 4]) {
        for (mask, role) in [(Some(mask), Role::Server), (None, Role::Client)] {
            let mut stream = Vec::new();
            for len in &lengths {
                let mut content = bytes(*len);
                stream.extend_from_slice(Head::of(Kind::Message, &mut content, mask).as_bytes());
                stream.extend_from_slice(&content);
            }
            stream.extend_from_slice(Head::of(Kind::Pong, &mut [], mask).as_bytes());
            let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES));
            let mut library = WebSocket::from_raw_socket(Cursor::new(stream), role, Some(config));
            for len in &lengths {
                prop_assert_eq!(library.read().expect("a message"), Message::Binary(bytes(*len).into()));
            }
            prop_assert_eq!(library.read().expect("a pong"), Message::Pong(Vec::new().into()));
        }
    }

    /// Any bytes come to the same, however they are cut.
    #[test]
    fn any_bytes_come_to_the_same_in_any_pieces(stream in vec(any::<u8>(), 0..400), pieces in vec(1_usize..40, 1..6), is_client: bool) {
        let side = if is_client { Side::Client } else { Side::Server };
        prop_assert_eq!(read(side, &stream, &pieces), read(side, &stream, &[stream.len()]));
    }

    /// A mask that is applied in two parts is the mask applied at once, and its own inverse.
    #[test]
    fn a_mask_does_not_care_about_parts(content in vec(any::<u8>(), 0..100), at in 0_usize..100, mask: [u8; 4]) {
        let at = at.min(content.len());
        let (mut once, mut twice) = (content.clone(), content.clone());
        apply_mask(&mut once, mask, 0);
        apply_mask(&mut twice[..at], mask, 0);
        apply_mask(&mut twice[at..], mask, at);
        prop_assert_eq!(&once, &twice);
        apply_mask(&mut once, mask, 0);
        prop_assert_eq!(once, content);
    }
}

/// A frame with this first byte and content of this length, as a client sends it.
fn frame(first: u8, len: usize) -> Vec<u8> {
    let mut content = bytes(len);
    let head = Head::of(Kind::Message, &mut content, Some(MASK));
    let mut frame = [head.as_bytes(), &content].concat();
    frame[0] = first;
    frame
}

#[test]
fn what_breaks_a_rule_is_refused_with_its_reason() {
    let long = [&[0x82, 0xff][..], &(MESSAGE_BYTES as u64 + 1).to_be_bytes(), &MASK].concat();
    let endless = [frame(0x02, 65_000), frame(0x00, 10_000)].concat();
    let cases: [(&str, Vec<u8>, &str); 14] = [
        ("a reserved bit", frame(0xc2, 3), "nobody agreed on"),
        ("text", frame(0x81, 3), "text"),
        ("an unknown data frame", frame(0x83, 3), "unknown kind"),
        ("an unknown control frame", frame(0x8b, 3), "unknown kind"),
        ("a ping in parts", frame(0x09, 3), "control frame"),
        ("a long ping", frame(0x89, 126), "control frame"),
        ("a part of nothing", frame(0x80, 3), "no message"),
        ("a message in a message", [frame(0x02, 3), frame(0x82, 3)].concat(), "inside another"),
        ("no mask", vec![0x82, 0x01, 0x00], "masked"),
        ("a length of two bytes for one", vec![0x82, 0xfe, 0x00, 0x7d, 0, 0, 0, 0], "shortest"),
        ("a length of eight bytes for two", vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], "shortest"),
        ("a length beyond all", vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], "too long"),
        ("a message that is too long", long, "too long"),
        ("parts that are too long together", endless, "too long"),
    ];
    for (what, stream, why) in cases {
        for pieces in [&[1][..], &[70_000]] {
            let (items, ended) = read(Side::Server, &stream, pieces);
            assert!(items.is_empty(), "{what}");
            assert!(matches!(&ended, Some(Ended::WebSocket(told)) if told.contains(why)), "{what}: {ended:?}");
        }
    }
    let masked = read(Side::Client, &frame(0x82, 3), &[9]);
    assert!(matches!(masked.1, Some(Ended::WebSocket(why)) if why.contains("masked by a server")));
}

#[test]
fn a_header_alone_makes_little_room_and_an_idle_connection_none() {
    let mut incoming = Incoming::new(Side::Server);
    let stream = frame(0x82, MESSAGE_BYTES);
    assert_eq!(incoming.take(&stream[..14]).map(|(used, item)| (used, item.is_none())), Ok((14, true)));
    assert!(incoming.message.capacity() <= FIRST_ROOM);
    let (used, item) = incoming.take(&stream[14..]).expect("the rest");
    assert_eq!((used, item), (MESSAGE_BYTES, Some(Item::Message(bytes(MESSAGE_BYTES)))));
    assert_eq!((incoming.message.capacity(), incoming.control.capacity()), (0, 0));
}
