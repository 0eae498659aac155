//! The control stream inside a session: every message once and in order whatever the paths do to its pieces, and no piece of a peer of ill
//! will makes it grow or panic (protocol 7.8).
use super::script::Script;
use shadowmesh_core::{
    control::{ControlStream, MAX_PIECES, SendError},
    time::{Duration, Instant},
    wire::{CONTROL_PIECE_MAX_LEN, NodeControl, PeerMessage},
};
use std::collections::VecDeque;

/// Steps of one script.
const STEPS: usize = 256;
/// Rounds in which everything must have come once the paths are good.
const ROUNDS: usize = 400;

/// The first byte chooses between two honest ends over bad paths and one honest end before a peer of ill will.
pub fn control(data: &[u8]) {
    let mut script = Script::new(data);
    if script.byte() & 1 == 0 {
        honest(&mut script);
    } else {
        hostile(&mut script);
    }
}

#[derive(Default)]
struct End {
    stream: ControlStream,
    /// Pieces and acknowledgements that it has sent and that have not come.
    out: Vec<NodeControl>,
    sent: VecDeque<PeerMessage>,
}

fn honest(script: &mut Script<'_>) {
    let (mut ends, mut now) = ([End::default(), End::default()], Instant::from_millis(1_000));
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        let op = script.byte();
        let (from, to) = if op & 0x80 == 0 { (0, 1) } else { (1, 0) };
        match op & 7 {
            0 => say(&mut ends[from], message(script)),
            1 => now = now + Duration::from_millis(u64::from(script.byte())),
            2 | 3 => transmit(&mut ends[from], now),
            4 | 5 => {
                // any of those on their way, and perhaps a second time later
                let place = script.below(ends[from].out.len());
                let again = op & 0x40 != 0;
                let Some(piece) = ends[from].out.get(place).cloned() else { continue };
                if !again {
                    ends[from].out.remove(place);
                }
                arrive(&mut ends, to, &piece);
            }
            6 => {
                let place = script.below(ends[from].out.len());
                if place < ends[from].out.len() {
                    ends[from].out.swap_remove(place);
                }
            }
            _ if op & 0x40 == 0 => ends[from].stream.set_rto(Duration::from_millis(u64::from(script.u16()))),
            _ => ends[from].stream.resend_all(now),
        }
    }
    settle(&mut ends, now);
}

/// The paths are good from now on.
fn settle(ends: &mut [End; 2], mut now: Instant) {
    for _ in 0..ROUNDS {
        if ends.iter().all(|end| end.stream.is_settled() && end.sent.is_empty()) {
            return;
        }
        for (from, to) in [(0, 1), (1, 0)] {
            transmit(&mut ends[from], now);
            for piece in core::mem::take(&mut ends[from].out) {
                arrive(ends, to, &piece);
            }
        }
        now = now + Duration::from_millis(100);
    }
    panic!("messages that never come: {:?}", ends.each_ref().map(|end| end.sent.len()));
}

fn say(end: &mut End, message: PeerMessage) {
    match end.stream.send(&message) {
        Ok(()) => end.sent.push_back(message),
        Err(SendError::Full) => {}
        Err(error) => panic!("an honest stream does not end: {error}"),
    }
}

fn transmit(end: &mut End, now: Instant) {
    end.out.extend(end.stream.poll_ack());
    let mut pieces = 0;
    while let Some(piece) = end.stream.poll_transmit(now) {
        pieces += 1;
        assert!(pieces <= 2 * MAX_PIECES, "a stream that always has something to send");
        end.out.push(piece);
    }
    assert!(end.stream.deadline().is_none_or(|due| due > now), "what was due was sent");
}

fn arrive(ends: &mut [End; 2], to: usize, piece: &NodeControl) {
    match piece {
        NodeControl::Stream { offset, bytes } => {
            assert!((1..=CONTROL_PIECE_MAX_LEN).contains(&bytes.len()));
            ends[to].stream.on_stream(*offset, bytes);
        }
        NodeControl::Ack { offset } => ends[to].stream.on_ack(*offset),
        NodeControl::Ping { .. } | NodeControl::Pong { .. } => unreachable!("a stream sends neither"),
    }
    while let Some(message) = ends[to].stream.poll_message() {
        let want = ends[1 - to].sent.pop_front();
        assert_eq!(message.ok(), want, "each message once and in order");
    }
    assert_eq!(ends[to].stream.failure(), None);
}

fn message(script: &mut Script<'_>) -> PeerMessage {
    match script.below(4) {
        0 => PeerMessage::RekeyPlease,
        1 => PeerMessage::Close { reason: script.byte() },
        2 => PeerMessage::Update { params: script.piece().to_vec() },
        _ => PeerMessage::Rekey1 { epoch: script.u32(), x25519: [script.byte(); 32], mlkem_ek: vec![script.byte(); 1_568] },
    }
}

/// Pieces and acknowledgements of any content.
fn hostile(script: &mut Script<'_>) {
    let (mut stream, mut now) = (ControlStream::new(), Instant::ZERO);
    let mut next = 0_u32;
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        match script.byte() % 8 {
            0 => stream.on_ack(script.u32()),
            1 => {
                let offset = script.u32();
                stream.on_stream(offset, script.piece());
            }
            2 => {
                // in order, so that messages come about
                let piece = script.piece();
                stream.on_stream(next, piece);
                next = next.saturating_add(piece.len() as u32);
            }
            3 => {
                // a whole message with its length in front
                let body = script.piece();
                let piece = [&(body.len() as u16).to_be_bytes()[..], body].concat();
                stream.on_stream(next, &piece);
                next = next.saturating_add(piece.len() as u32);
            }
            4 => {
                let offset = next.wrapping_add(u32::from(script.u16()));
                stream.on_stream(offset, script.piece());
            }
            5 => drop(stream.send(&message(script))),
            6 => now = now + Duration::from_millis(u64::from(script.u16())),
            _ => drop(NodeControl::parse(script.piece()).map(|control| match control {
                NodeControl::Stream { offset, bytes } => stream.on_stream(offset, &bytes),
                NodeControl::Ack { offset } => stream.on_ack(offset),
                NodeControl::Ping { .. } | NodeControl::Pong { .. } => {}
            })),
        }
        for polls in 0.. {
            assert!(polls < 70_000, "more messages than bytes");
            if stream.poll_message().is_none() {
                break;
            }
        }
        for polls in 0.. {
            assert!(polls <= 2 * MAX_PIECES, "a stream that always has something to send");
            if stream.poll_transmit(now).is_none() {
                break;
            }
        }
        let _ = (stream.poll_ack(), stream.deadline(), stream.drops());
    }
}
