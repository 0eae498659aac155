//! Frames of WebSocket as they come to a relay, in pieces: any bytes are refused, or come to the same messages however they are cut.
//!
//! It is beside the targets of the library, like the one for configuration, since frames belong to a runtime.
use shadowmesh_runtime_std::ws::{
    MESSAGE_BYTES,
    frames::{Incoming, Item, Side},
};

/// The first byte chooses the end that reads and how many of the next are lengths of pieces; the rest is the stream.
pub(crate) fn websocket(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let side = if kind & 1 == 0 { Side::Server } else { Side::Client };
    let (lengths, stream) = rest.split_at(usize::from(kind >> 4).min(rest.len()));
    let whole = read(side, stream, &[]);
    assert_eq!(read(side, stream, lengths), whole, "in pieces of {lengths:?}");
    let said: usize = whole.0.iter().map(|item| if let Item::Message(bytes) | Item::Ping(bytes) = item { bytes.len() } else { 0 }).sum();
    assert!(said <= stream.len(), "more is said than came");
}

/// What came, and whether it ended badly.
fn read(side: Side, stream: &[u8], lengths: &[u8]) -> (Vec<Item>, bool) {
    let (mut incoming, mut items, mut rest) = (Incoming::new(side), Vec::new(), stream);
    let mut lengths = lengths.iter().map(|len| usize::from(*len).max(1)).cycle();
    while !rest.is_empty() {
        let mut piece;
        (piece, rest) = rest.split_at(lengths.next().unwrap_or(rest.len()).min(rest.len()));
        while !piece.is_empty() {
            match incoming.take(piece) {
                Ok((used, item)) => {
                    assert!((1..=piece.len()).contains(&used), "it stands still");
                    if let Some(Item::Message(bytes)) = &item {
                        assert!(bytes.len() <= MESSAGE_BYTES, "too long");
                    }
                    items.extend(item);
                    piece = &piece[used..];
                }
                Err(_) => return (items, true),
            }
        }
    }
    (items, false)
}
