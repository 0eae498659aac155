//! The control room's own lane of one session (lane FF): sealed by the machine itself, neither ringed nor ordered (protocol 4.3).
use crate::{
    drops::Drop,
    plane::replay::{CONTROL_WINDOW_BITS, Seen, Window},
    session::{EpochKeys, OLD_EPOCH, OLD_EPOCH_MOST},
    time::Instant,
    wire::{Counter, FRAME_HEADER_LEN, FrameHeader, LANE_NODE, TAG_LEN},
};

struct Epoch {
    keys: EpochKeys,
    /// Nothing is opened with them from then on; None for the newest.
    until: Option<Instant>,
}

/// Lane FF of one session.
pub(crate) struct NodeLane {
    /// Newest last.
    epochs: Vec<Epoch>,
    seal_epoch: u32,
    remote: u32,
    sequence: u64,
    window: Window,
}

impl NodeLane {
    /// The lane of a new session whose other end chose the index `remote`.
    pub(crate) fn new(keys: EpochKeys, remote: u32) -> Self {
        Self {
            seal_epoch: keys.epoch,
            epochs: vec![Epoch { keys, until: None }],
            remote,
            sequence: 0,
            window: Window::new(CONTROL_WINDOW_BITS),
        }
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
        self.epochs.iter().map(|epoch| &epoch.keys).find(|keys| keys.epoch == self.seal_epoch)
    }

    /// The keys that open frames with this low byte of the epoch.
    pub(crate) fn keys_of(&self, now: Instant, epoch: u8) -> Option<&EpochKeys> {
        let open = self.epochs.iter().filter(|known| known.until.is_none_or(|until| now < until));
        open.map(|known| &known.keys).find(|keys| keys.epoch as u8 == epoch)
    }

    /// Keys of a further epoch: opens with them from now on. Keys that neither open nor seal any more are wiped.
    pub(crate) fn add(&mut self, now: Instant, keys: EpochKeys) {
        if self.epochs.iter().all(|known| known.keys.epoch != keys.epoch) {
            self.retire_below(keys.epoch, now + OLD_EPOCH_MOST);
            let sealing = self.seal_epoch;
            self.epochs.retain(|known| known.keys.epoch == sealing || known.until.is_none_or(|until| now < until));
            self.epochs.push(Epoch { keys, until: None });
        }
    }

    fn retire_below(&mut self, epoch: u32, until: Instant) {
        for old in self.epochs.iter_mut().filter(|old| old.keys.epoch < epoch) {
            old.until = Some(old.until.map_or(until, |known| known.min(until)));
        }
    }

    /// Seals with this epoch from now on.
    pub(crate) fn seal_with(&mut self, epoch: u32) {
        if self.epochs.iter().any(|known| known.keys.epoch == epoch) {
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
    pub(crate) fn open<'a>(&mut self, now: Instant, header: FrameHeader, frame: &'a mut [u8]) -> Result<(u32, u8, &'a [u8]), Drop> {
        let sequence = header.counter.sequence();
        match self.window.check(sequence) {
            Seen::Fresh => {}
            Seen::Again => return Err(Drop::Duplicate),
            Seen::TooOld => return Err(Drop::Late),
        }
        let keys = self.keys_of(now, header.epoch).ok_or(Drop::UnknownEpoch)?;
        let epoch = keys.epoch;
        let plain: &'a [u8] = keys.open.open(frame).map_err(|_| Drop::Forged)?;
        self.window.admit(sequence);
        self.retire_below(epoch, now + OLD_EPOCH);
        let (inner, body) = plain.split_first().ok_or(Drop::Malformed)?;
        Ok((epoch, *inner, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::rustcrypto::RustCrypto,
        session::{Chain, Side, Suite},
        time::Duration,
    };
    use std::sync::Arc;
    use zeroize::Zeroizing;

    fn chains(count: u32) -> Vec<Arc<Chain>> {
        let mut chains = vec![Arc::new(Chain::start(Zeroizing::new([7; 64]), Suite::ChaCha20Poly1305))];
        for step in 1..count {
            let next = chains.last().expect("the first is there").next(&[1; 32], &[2; 32], &[step as u8; 64]);
            chains.push(Arc::new(next));
        }
        chains
    }

    fn opens(lane: &mut NodeLane, now: Instant, mut frame: Vec<u8>) -> Result<u32, Drop> {
        let header = FrameHeader::parse(&frame).expect("a frame");
        lane.open(now, header, &mut frame).map(|(epoch, _, _)| epoch)
    }

    #[test]
    fn the_keys_that_seal_stay_whatever_epochs_are_added() {
        let chains = chains(9);
        let mut lane = NodeLane::new(chains[0].keys(Side::Responder, &RustCrypto), 1);
        for chain in &chains[1..] {
            lane.add(Instant::from_millis(1_000_000 * u64::from(chain.epoch())), chain.keys(Side::Responder, &RustCrypto));
        }
        assert_eq!(lane.seal(0, |_| {})[1], 0, "nothing of a later epoch came, so epoch 0 seals");
    }

    // protocol 4.5
    #[test]
    fn old_keys_open_for_ten_seconds_after_a_later_frame_and_no_longer() {
        let chains = chains(2);
        let mut to = NodeLane::new(chains[0].keys(Side::Responder, &RustCrypto), 1);
        let mut from = NodeLane::new(chains[0].keys(Side::Initiator, &RustCrypto), 2);
        let start = Instant::from_millis(1000);
        to.add(start, chains[1].keys(Side::Responder, &RustCrypto));
        let early = from.seal(0, |_| {});
        let late = from.seal(0, |_| {});
        assert_eq!(opens(&mut to, start + Duration::from_secs(30), early), Ok(0), "no frame of epoch 1 came yet");
        from.add(start, chains[1].keys(Side::Initiator, &RustCrypto));
        from.seal_with(1);
        assert_eq!(opens(&mut to, start + Duration::from_secs(30), from.seal(0, |_| {})), Ok(1));
        assert_eq!(opens(&mut to, start + Duration::from_secs(40), late), Err(Drop::UnknownEpoch));
    }
}
