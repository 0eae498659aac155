//! The control room's own lane of one session (lane FF): sealed by the machine itself, neither ringed nor ordered (protocol 4.3).
use crate::{
    drops::Drop,
    plane::replay::{CONTROL_WINDOW_BITS, Seen, Window},
    session::EpochKeys,
    wire::{Counter, FRAME_HEADER_LEN, FrameHeader, LANE_NODE, TAG_LEN},
};

/// Epochs whose keys are kept: the one before, the present, the next.
const EPOCHS: usize = 3;

/// Lane FF of one session.
pub(crate) struct NodeLane {
    /// Newest last.
    epochs: Vec<EpochKeys>,
    seal_epoch: u32,
    remote: u32,
    sequence: u64,
    window: Window,
}

impl NodeLane {
    /// The lane of a new session whose other end chose the index `remote`.
    pub(crate) fn new(keys: EpochKeys, remote: u32) -> Self {
        Self { seal_epoch: keys.epoch, epochs: vec![keys], remote, sequence: 0, window: Window::new(CONTROL_WINDOW_BITS) }
    }

    /// The index that the other end chose.
    pub(crate) fn remote(&self) -> u32 {
        self.remote
    }

    /// The epoch that new frames are sealed in.
    pub(crate) fn seal_epoch(&self) -> u32 {
        self.seal_epoch
    }

    /// The keys that new frames are sealed with.
    pub(crate) fn keys(&self) -> Option<&EpochKeys> {
        self.epochs.iter().find(|keys| keys.epoch == self.seal_epoch)
    }

    /// The keys with this low byte of the epoch.
    pub(crate) fn keys_of(&self, epoch: u8) -> Option<&EpochKeys> {
        self.epochs.iter().find(|keys| keys.epoch as u8 == epoch)
    }

    /// Keys of a further epoch: opens with them from now on.
    pub(crate) fn add(&mut self, keys: EpochKeys) {
        if self.epochs.iter().all(|known| known.epoch != keys.epoch) {
            self.epochs.push(keys);
            if self.epochs.len() > EPOCHS {
                self.epochs.remove(0);
            }
        }
    }

    /// Seals with this epoch from now on.
    pub(crate) fn seal_with(&mut self, epoch: u32) {
        if self.epochs.iter().any(|keys| keys.epoch == epoch) {
            self.seal_epoch = epoch;
        }
    }

    /// Seals one frame.
    pub(crate) fn seal(&mut self, inner: u8, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.push(inner);
        body(&mut frame);
        frame.resize(frame.len() + TAG_LEN, 0);
        let counter = Counter::new(LANE_NODE, self.sequence);
        self.sequence += 1;
        let header = FrameHeader { epoch: self.seal_epoch as u8, generation: 0, receiver: self.remote, counter };
        let keys = self.keys().expect("seal_with only takes epochs that are here");
        keys.seal.seal(header, &mut frame);
        frame
    }

    /// Opens one frame where it lies: its epoch, inner type and body.
    pub(crate) fn open<'a>(&mut self, header: FrameHeader, frame: &'a mut [u8]) -> Result<(u32, u8, &'a [u8]), Drop> {
        let sequence = header.counter.sequence();
        match self.window.check(sequence) {
            Seen::Fresh => {}
            Seen::Again => return Err(Drop::Duplicate),
            Seen::TooOld => return Err(Drop::Late),
        }
        let keys = self.keys_of(header.epoch).ok_or(Drop::UnknownEpoch)?;
        let epoch = keys.epoch;
        let plain: &'a [u8] = keys.open.open(frame).map_err(|_| Drop::Forged)?;
        self.window.admit(sequence);
        let (inner, body) = plain.split_first().ok_or(Drop::Malformed)?;
        Ok((epoch, *inner, body))
    }
}
