//! The sealed channel between a client and the relay: lane FF of their session, over an ordered connection (protocol 4.4, 6.4).
use super::drops::Reason;
use crate::{
    crypto::Provider,
    handshake::Verified,
    session::{EpochKeys, PathKey, SessionId, Side, Suite},
    time::{Duration, Instant},
    wire::{Counter, FRAME_HEADER_LEN, FRAME_OVERHEAD, FrameHeader, INNER_CONTROL, INNER_KEEPALIVE, LANE_NODE, RelayMessage, TAG_LEN},
};

/// A session with a relay lives so long; then the client connects again (protocol 4.5: a full handshake each 24 h).
pub(super) const MAX_AGE: Duration = Duration::from_hours(24);
/// Frames under one key in both directions together (protocol 4.5).
const MAX_FRAMES: u64 = 1 << 22;

/// What a good frame held.
#[derive(Debug)]
pub(super) enum Inbound {
    Keepalive,
    Message(RelayMessage),
}

/// One end's keys and counters.
pub(super) struct Channel {
    keys: EpochKeys,
    session_id: SessionId,
    suite: Suite,
    own_sid: u32,
    peer_sid: u32,
    sealed: u64,
    /// The least sequence that was not there before: the connection is ordered, so each is higher than the last.
    next_in: u64,
    since: Instant,
}

impl Channel {
    /// The relay's end of a session that was just proven.
    pub(super) fn new(now: Instant, own_sid: u32, verified: &Verified, crypto: &dyn Provider) -> Self {
        Self {
            keys: verified.chain.keys(Side::Responder, crypto),
            session_id: verified.chain.session_id(),
            suite: verified.chain.suite(),
            own_sid,
            peer_sid: verified.peer_sid,
            sealed: 0,
            next_in: 0,
            since: now,
        }
    }

    /// The number that both ends log.
    pub(super) fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// What it computes with.
    pub(super) fn suite(&self) -> Suite {
        self.suite
    }

    /// The number that this end chose.
    pub(super) fn own_sid(&self) -> u32 {
        self.own_sid
    }

    /// The number that the client chose.
    pub(super) fn peer_sid(&self) -> u32 {
        self.peer_sid
    }

    /// Proves the session outside of the connection.
    pub(super) fn path_key(&self) -> &PathKey {
        &self.keys.path
    }

    /// When it was established.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Whether it has reached its age or its frames.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        now.since(self.since) >= MAX_AGE || self.sealed + self.next_in >= MAX_FRAMES
    }

    /// One message as a sealed frame.
    pub(super) fn seal(&mut self, message: &RelayMessage) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.push(INNER_CONTROL);
        message.emit(&mut frame);
        frame.resize(frame.len() + TAG_LEN, 0);
        let counter = Counter::new(LANE_NODE, self.sealed);
        self.sealed += 1;
        self.keys.seal.seal(FrameHeader { epoch: 0, generation: 0, receiver: self.peer_sid, counter }, &mut frame);
        frame
    }

    /// Opens one frame; the counter moves only when the tag is right.
    pub(super) fn open(&mut self, frame: &mut [u8]) -> Result<Inbound, Reason> {
        let header = FrameHeader::parse(frame).map_err(|_| Reason::BadFrame)?;
        if frame.len() < FRAME_OVERHEAD || header.receiver != self.own_sid || header.counter.lane() != LANE_NODE {
            return Err(Reason::BadFrame);
        }
        if header.counter.sequence() < self.next_in {
            return Err(Reason::ReplayedFrame);
        }
        let plain = self.keys.open.open(frame).map_err(|_| Reason::BadFrame)?;
        self.next_in = header.counter.sequence() + 1;
        match plain {
            [INNER_KEEPALIVE, ..] => Ok(Inbound::Keepalive),
            [INNER_CONTROL, body @ ..] => RelayMessage::parse(body).map(Inbound::Message).map_err(|_| Reason::BadControl),
            _ => Err(Reason::BadControl),
        }
    }
}
