//! The acknowledged control stream between two peers (protocol 7.8): an ordered stream of messages in pieces, over
//! paths that may lose, double and reorder. Each end has one of these; both directions are independent.
//!
//! ```text
//! send ─▶ unacknowledged bytes ─▶ pieces ≤ 1,000 B ─▶ poll_transmit ═▶ STREAM ═▶ on_stream ─▶ contiguous bytes ─▶ poll_message
//!                  ▲ freed by on_ack ◀═════════════════════════ ACK ◀═════════════ poll_ack
//! ```
use crate::{
    bound::Bound,
    time::{Duration, Instant},
    wire::{CONTROL_PIECE_MAX_LEN, Malformed, NodeControl, PeerMessage},
};
use core::fmt;
use std::collections::{BTreeMap, VecDeque};

/// Longest type and body of a message in bytes; the longest that exists, a rekey, has 1,605.
pub const MESSAGE_MAX_LEN: usize = 4_096;
/// Most bytes sent and not acknowledged, and most bytes received and not read.
pub const WINDOW_LEN: usize = 65_536;
/// Most pieces under way, and most pieces kept that came ahead of a hole: enough for a full window.
pub const MAX_PIECES: usize = 64;
/// The stream ends here, far from where 32-bit offsets would wrap; a session sends some kilobytes in its whole life.
pub const END_OFFSET: u32 = 1 << 31;
/// Longest wait before a piece is sent again.
const RTO_MAX: Duration = Duration::from_secs(2);
/// Wait before a piece is sent again while the round trip is not known.
const RTO_START: Duration = Duration::from_millis(300);
/// Shortest wait before a piece is sent again, so that a path without delay is not flooded.
const RTO_MIN: Duration = Duration::from_millis(5);
const LENGTH_LEN: usize = 2;

/// Why a message was not taken for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// 64 KiB wait for acknowledgement: try again later.
    Full,
    /// The stream has reached its last offset: the session must be replaced.
    Exhausted,
    /// The stream has failed.
    Failed(StreamFailure),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the control stream is full"),
            Self::Exhausted => f.write_str("the control stream has reached its last offset"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl core::error::Error for SendError {}

/// What ends a stream; the owner replaces the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFailure {
    /// The other end declared a message longer than [`MESSAGE_MAX_LEN`].
    MessageTooLong,
    /// The other end sent beyond [`END_OFFSET`].
    OffsetTooHigh,
}

impl StreamFailure {
    const fn reason(self) -> &'static str {
        match self {
            Self::MessageTooLong => "control stream message length",
            Self::OffsetTooHigh => "control stream offset",
        }
    }
}

impl fmt::Display for StreamFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the control stream failed: {}", self.reason())
    }
}

/// What the stream left out, for status and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamDrops {
    /// Messages that did not follow their layout.
    pub malformed: u64,
    /// Pieces that came again.
    pub duplicate: u64,
    /// Pieces beyond what is kept.
    pub beyond_window: u64,
    /// Acknowledgements of bytes never sent.
    pub wrong_ack: u64,
}

/// One end of the acknowledged control stream.
#[derive(Debug)]
pub struct ControlStream {
    /// Bytes from `acked` on that are not acknowledged.
    unacked: VecDeque<u8>,
    acked: u32,
    /// Bytes below were sent at least once.
    sent: u32,
    under_way: VecDeque<Piece>,
    rto: Duration,

    /// Contiguous bytes received and not read; the last one has offset `received - 1`.
    unread: VecDeque<u8>,
    received: u32,
    /// Pieces that came ahead of a hole, by offset; all above `received`.
    ahead: BTreeMap<u32, Vec<u8>>,
    ack_due: bool,
    failure: Option<StreamFailure>,
    failure_told: bool,
    drops: StreamDrops,
}

/// A piece under way.
#[derive(Debug)]
struct Piece {
    offset: u32,
    len: usize,
    due: Instant,
    sendings: u32,
}

impl Default for ControlStream {
    fn default() -> Self {
        Self::new()
    }
}

impl ControlStream {
    /// A stream on which nothing was sent or received.
    pub const fn new() -> Self {
        Self {
            unacked: VecDeque::new(),
            acked: 0,
            sent: 0,
            under_way: VecDeque::new(),
            rto: RTO_START,
            unread: VecDeque::new(),
            received: 0,
            ahead: BTreeMap::new(),
            ack_due: false,
            failure: None,
            failure_told: false,
            drops: StreamDrops { malformed: 0, duplicate: 0, beyond_window: 0, wrong_ack: 0 },
        }
    }

    /// What waits in it, beside the most.
    pub(crate) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("control stream, bytes not acknowledged", self.unacked.len(), WINDOW_LEN));
        each(Bound::new("control stream, pieces under way", self.under_way.len(), MAX_PIECES));
        each(Bound::new("control stream, bytes not read", self.unread.len(), WINDOW_LEN));
        each(Bound::new("control stream, pieces ahead of a hole", self.ahead.len(), MAX_PIECES));
    }

    /// Takes a message for sending, whole or not at all.
    ///
    /// # Panics
    /// When a list or key in the message breaks the limits of [`PeerMessage::emit`]: our own fault.
    pub fn send(&mut self, message: &PeerMessage) -> Result<(), SendError> {
        if let Some(failure) = self.failure {
            return Err(SendError::Failed(failure));
        }
        let mut bytes = vec![0; LENGTH_LEN];
        message.emit(&mut bytes);
        let len = bytes.len() - LENGTH_LEN;
        assert!(len <= MESSAGE_MAX_LEN, "each message of the stream is shorter than its limit");
        for (to, from) in bytes.iter_mut().zip((len as u16).to_be_bytes()) {
            *to = from;
        }
        if self.unacked.len() + bytes.len() > WINDOW_LEN {
            return Err(SendError::Full);
        }
        if self.written() + bytes.len() as u64 > u64::from(END_OFFSET) {
            return Err(SendError::Exhausted);
        }
        self.unacked.extend(bytes);
        Ok(())
    }

    /// Sets the wait before a piece is sent again for the first time: the sender's PTO on the path in use.
    pub fn set_rto(&mut self, rto: Duration) {
        self.rto = rto.clamp(RTO_MIN, RTO_MAX);
    }

    /// Makes every piece under way due: the path they went has died.
    pub fn resend_all(&mut self, now: Instant) {
        for piece in &mut self.under_way {
            piece.due = now;
            piece.sendings = 0;
        }
    }

    /// The next piece to send, if any: new ones first, then those whose acknowledgement is late.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<NodeControl> {
        if self.failure.is_some() {
            return None;
        }
        let (offset, len) = self.new_piece(now).or_else(|| self.late_piece(now))?;
        let start = (offset - self.acked) as usize;
        let bytes = self.unacked.range(start..start + len).copied().collect();
        Some(NodeControl::Stream { offset, bytes })
    }

    fn new_piece(&mut self, now: Instant) -> Option<(u32, usize)> {
        let waiting = usize::try_from(self.written() - u64::from(self.sent)).unwrap_or(usize::MAX);
        if waiting == 0 || self.under_way.len() >= MAX_PIECES {
            return None;
        }
        let (offset, len) = (self.sent, waiting.min(CONTROL_PIECE_MAX_LEN));
        self.sent += len as u32;
        self.under_way.push_back(Piece { offset, len, due: now + self.rto, sendings: 1 });
        Some((offset, len))
    }

    fn late_piece(&mut self, now: Instant) -> Option<(u32, usize)> {
        let rto = self.rto;
        let piece = self.under_way.iter_mut().find(|piece| piece.due <= now)?;
        let wait = rto.saturating_mul(1 << piece.sendings.min(16)).min(RTO_MAX);
        piece.due = now + wait;
        piece.sendings += 1;
        Some((piece.offset, piece.len))
    }

    /// When `poll_transmit` next has a piece; None while nothing is under way or waits.
    pub fn deadline(&self) -> Option<Instant> {
        if self.failure.is_some() {
            return None;
        }
        if u64::from(self.sent) < self.written() && self.under_way.len() < MAX_PIECES {
            return Some(Instant::ZERO);
        }
        self.under_way.iter().map(|piece| piece.due).min()
    }

    /// All bytes below `offset` have come at the other end.
    pub fn on_ack(&mut self, offset: u32) {
        if offset > self.sent {
            self.drops.wrong_ack += 1;
            return;
        }
        let Some(freed) = offset.checked_sub(self.acked) else {
            return;
        };
        self.unacked.drain(..freed as usize);
        self.acked = offset;
        while let Some(piece) = self.under_way.front_mut() {
            let end = piece.offset + piece.len as u32;
            if end <= offset {
                self.under_way.pop_front();
                continue;
            }
            if piece.offset < offset {
                piece.len = (end - offset) as usize;
                piece.offset = offset;
            }
            break;
        }
    }

    /// A piece came. Any piece below the window's end is answered by an acknowledgement.
    pub fn on_stream(&mut self, offset: u32, bytes: &[u8]) {
        if self.failure.is_some() {
            return;
        }
        let end = u64::from(offset) + bytes.len() as u64;
        if end > u64::from(END_OFFSET) {
            self.failure = Some(StreamFailure::OffsetTooHigh);
            return;
        }
        let end = end as u32;
        if end > self.window_end() {
            self.drops.beyond_window += 1;
            return;
        }
        self.ack_due = true;
        if end <= self.received {
            self.drops.duplicate += 1;
        } else if offset <= self.received {
            self.append(offset, bytes);
            self.join();
        } else {
            self.keep(offset, bytes);
        }
    }

    /// Offset of the first byte that is not kept if it comes.
    fn window_end(&self) -> u32 {
        self.received - self.unread.len() as u32 + WINDOW_LEN as u32
    }

    /// Appends what is new of a piece that begins at or before the first missing byte.
    fn append(&mut self, offset: u32, bytes: &[u8]) {
        let known = (self.received - offset) as usize;
        let new = bytes.get(known..).unwrap_or(&[]);
        self.unread.extend(new);
        self.received += new.len() as u32;
    }

    /// Takes over the kept pieces that are no longer ahead of a hole.
    fn join(&mut self) {
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > self.received {
                break;
            }
            let (offset, bytes) = entry.remove_entry();
            self.append(offset, &bytes);
        }
    }

    /// Keeps a piece ahead of a hole; when too many are kept, the farthest goes: it will be sent again.
    fn keep(&mut self, offset: u32, bytes: &[u8]) {
        if self.ahead.get(&offset).is_some_and(|kept| kept.len() >= bytes.len()) {
            self.drops.duplicate += 1;
            return;
        }
        self.ahead.insert(offset, bytes.to_vec());
        if self.ahead.len() > MAX_PIECES {
            self.ahead.pop_last();
            self.drops.beyond_window += 1;
        }
    }

    /// The acknowledgement to send, if one is due. Polled after each batch of pieces, it answers them together.
    pub fn poll_ack(&mut self) -> Option<NodeControl> {
        core::mem::take(&mut self.ack_due).then_some(NodeControl::Ack { offset: self.received })
    }

    /// The next whole message. A malformed one is left out, counted and given as an error; the stream goes on.
    /// When the stream has failed, this says so once; [`Self::failure`] then tells why.
    pub fn poll_message(&mut self) -> Option<Result<PeerMessage, Malformed>> {
        if let Some(failure) = self.failure {
            let told = core::mem::replace(&mut self.failure_told, true);
            return (!told).then_some(Err(Malformed(failure.reason())));
        }
        let (Some(&high), Some(&low)) = (self.unread.front(), self.unread.get(1)) else {
            return None;
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len > MESSAGE_MAX_LEN {
            self.failure = Some(StreamFailure::MessageTooLong);
            return self.poll_message();
        }
        if self.unread.len() < LENGTH_LEN + len {
            return None;
        }
        let bytes: Vec<u8> = self.unread.drain(..LENGTH_LEN + len).skip(LENGTH_LEN).collect();
        let message = PeerMessage::parse(&bytes);
        if message.is_err() {
            self.drops.malformed += 1;
        }
        Some(message)
    }

    /// Why the stream ended, if it did.
    pub const fn failure(&self) -> Option<StreamFailure> {
        self.failure
    }

    /// Whether all that was sent is acknowledged.
    pub fn is_settled(&self) -> bool {
        self.unacked.is_empty()
    }

    /// What was left out so far.
    pub const fn drops(&self) -> StreamDrops {
        self.drops
    }

    /// Offset after the last byte taken for sending.
    fn written(&self) -> u64 {
        u64::from(self.acked) + self.unacked.len() as u64
    }
}

#[cfg(test)]
mod tests;
