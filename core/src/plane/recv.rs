//! The receiving owner of one data lane: opens, refuses copies, orders, and says by receipts what it has.
use super::{
    Via,
    order::{Fate, Order, OrderCounters},
    pieces::packet_bytes,
    replay::{CONTROL_WINDOW_BITS, Seen, Window},
    rtt::RECEIPT_INTERVAL,
    shard::Place,
};
use crate::{
    bound::Bound,
    drops::Drop,
    id::PathId,
    session::{EpochKeys, OLD_EPOCH, OLD_EPOCH_MOST, Opener},
    time::{Duration, Instant},
    wire::{FrameHeader, INNER_CONTROL, LANE_CONTROL_BIT, Receipt, ReceiptMask},
};
use std::sync::Arc;

/// A receipt goes out at the latest after so many data frames (protocol 7.4).
const RECEIPT_FRAMES: u32 = 64;
/// A way on which data came so recently still gets receipts beside the newest one.
const SECOND_WAY: Duration = Duration::from_millis(200);
/// An alarm so late was slept through.
const ASLEEP: Duration = Duration::from_secs(5);
/// Epochs whose keys a lane keeps: rekeys are two seconds apart, and old keys go after a minute at the latest (protocol 4.5).
const EPOCHS_MAX: usize = 32;

#[cfg_attr(test, derive(Clone, Hash))]
struct Epoch {
    opener: Arc<Opener>,
    until: Option<Instant>,
    /// Its time passed while this machine slept, and it was given a little more.
    overslept: bool,
}

impl Epoch {
    fn new(keys: &EpochKeys) -> Self {
        Self { opener: Arc::clone(&keys.open), until: None, overslept: false }
    }

    /// Whether its keys are still here. An alarm is served within milliseconds: one that comes seconds late says that the machine slept,
    /// and what the other end has sealed meanwhile, or seals until it hears of the new keys, must still be opened (protocol 4.5).
    fn stays(&mut self, now: Instant) -> bool {
        let Some(until) = self.until.filter(|until| *until <= now) else { return true };
        let slept = !self.overslept && now.since(until) >= ASLEEP;
        if slept {
            (self.overslept, self.until) = (true, Some(now + OLD_EPOCH));
        }
        slept
    }
}

/// A way on which data of this lane came.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
struct Heard {
    via: Via,
    path: PathId,
    at: Instant,
}

/// The receiving half of one session's data lane.
#[cfg_attr(test, derive(Clone, Hash))]
pub(crate) struct RecvLane {
    epochs: Vec<Epoch>,
    newest_opened: u32,
    order: Order,
    control: Window,
    heard: Option<Heard>,
    second: Option<Heard>,
    /// Data frames since the last receipt, and when the first of them came.
    unreceipted: u32,
    receipt_due: Option<Instant>,
    /// Generation that the last receipt told.
    told_generation: u8,
    frames: u64,
    bytes: u64,
    place: Place,
}

/// What a sealed frame turned out to be.
pub(crate) enum Opened<'a> {
    /// An authentic data frame: inner type and packet.
    Data(&'a [u8]),
    /// A control message of the lane.
    Control(&'a [u8]),
}

impl RecvLane {
    pub(crate) fn new(keys: &EpochKeys, reliable: bool, place: Place) -> Self {
        Self {
            epochs: vec![Epoch::new(keys)],
            newest_opened: keys.epoch,
            order: Order::new(reliable).shared_by(place.lanes),
            control: Window::new(CONTROL_WINDOW_BITS),
            heard: None,
            second: None,
            unreceipted: 0,
            receipt_due: None,
            told_generation: 0,
            frames: 0,
            bytes: 0,
            place,
        }
    }

    pub(crate) fn order(&mut self) -> &mut Order {
        &mut self.order
    }

    /// Whether its frames wait for the end of another session.
    pub(crate) fn is_gated(&self) -> bool {
        self.order.is_gated()
    }

    pub(crate) fn counters(&self) -> (u64, u64, OrderCounters) {
        (self.frames, self.bytes, self.order.counters())
    }

    /// What it keeps, beside the most.
    pub(crate) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("epochs that a lane opens", self.epochs.len(), EPOCHS_MAX));
        self.order.bounds(each);
    }

    /// Whether the keys of this epoch are here.
    pub(crate) fn has_epoch(&self, epoch: u32) -> bool {
        self.epochs.iter().any(|known| known.opener.epoch() == epoch)
    }

    /// Keys of a further epoch; those before it go on for a while.
    pub(crate) fn add_epoch(&mut self, now: Instant, keys: &EpochKeys) {
        self.retire_below(keys.epoch, now + OLD_EPOCH_MOST);
        self.epochs.push(Epoch::new(keys));
    }

    /// The newest epoch in which a frame came.
    pub(crate) fn newest_opened(&self) -> u32 {
        self.newest_opened
    }

    fn retire_below(&mut self, epoch: u32, until: Instant) {
        for old in self.epochs.iter_mut().filter(|old| old.opener.epoch() < epoch) {
            old.until = Some(old.until.map_or(until, |known| known.min(until)));
        }
    }

    /// Opens a frame where it lies. State changes only after the tag verified.
    pub(crate) fn open<'a>(&mut self, now: Instant, header: FrameHeader, frame: &'a mut [u8]) -> Result<Opened<'a>, Drop> {
        let lane = header.counter.lane();
        let sequence = header.counter.sequence();
        let control = lane & LANE_CONTROL_BIT != 0;
        if lane & !LANE_CONTROL_BIT != self.place.lane {
            return Err(Drop::Unexpected);
        }
        // a copy of a data frame is opened all the same, however old: its author proves that the path lives, and says
        // that our receipt has not come; without another one it would wait for ever
        if control {
            match self.control.check(sequence) {
                Seen::Fresh => {}
                Seen::Again => return Err(Drop::Duplicate),
                Seen::TooOld => return Err(Drop::Late),
            }
        }
        let mut live = self.epochs.iter().filter(|epoch| epoch.until.is_none_or(|until| now < until));
        let opener = live.find(|epoch| epoch.opener.epoch() as u8 == header.epoch).map(|epoch| Arc::clone(&epoch.opener));
        let opener = opener.ok_or(Drop::UnknownEpoch)?;
        let plain = opener.open(frame).map_err(|_| Drop::Forged)?;
        if opener.epoch() > self.newest_opened {
            self.newest_opened = opener.epoch();
            self.retire_below(opener.epoch(), now + OLD_EPOCH);
        }
        if !control {
            return Ok(Opened::Data(plain));
        }
        self.control.admit(sequence);
        match plain.split_first() {
            Some((&INNER_CONTROL, body)) => Ok(Opened::Control(body)),
            Some(_) => Err(Drop::Unexpected),
            None => Err(Drop::Malformed),
        }
    }

    /// Notes an authentic data frame and hands it to the order.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        header: FrameHeader,
        via: Via,
        path: PathId,
        plain: &[u8],
        deliver: &mut dyn FnMut(u64, &[u8]),
    ) -> Fate {
        let newest = header.counter.sequence() >= self.order.next();
        let fate = self.order.take(now, header.counter.sequence(), header.generation, plain, deliver);
        if fate == Fate::Taken {
            self.frames += 1;
            self.bytes += packet_bytes(plain) as u64;
        }
        self.hear(now, via, path, newest);
        self.unreceipted += 1;
        self.receipt_due.get_or_insert(now + RECEIPT_INTERVAL);
        fate
    }

    /// SWITCH came on `via`: it is answered by a receipt, data or not, or it would be repeated for ever.
    pub(crate) fn owe_receipt(&mut self, now: Instant, via: Via, path: PathId) {
        let here = Heard { via, path, at: now };
        if self.heard.get_or_insert(here).via != via {
            // the way of the newest data may be the one that died
            self.second = Some(here);
        }
        self.receipt_due = Some(now);
    }

    /// Data frames until a receipt. On the relay path a lane has but its share of the window, and its sender waits for the receipt.
    fn receipt_frames(&self) -> u32 {
        let by_relay = self.heard.is_some_and(|heard| heard.via.handle.is_some());
        if by_relay { (RECEIPT_FRAMES / u32::from(self.place.lanes)).max(1) } else { RECEIPT_FRAMES }
    }

    /// Whether a receipt is due now.
    pub(crate) fn receipt_is_due(&self, now: Instant) -> bool {
        self.unreceipted >= self.receipt_frames()
            || self.receipt_due.is_some_and(|due| due <= now)
            || (self.order.generation() != self.told_generation && self.heard.is_some())
    }

    /// The receipt, and the ways it goes.
    pub(crate) fn receipt(&mut self, now: Instant) -> Option<(Receipt, Via, Option<Via>)> {
        let heard = self.heard?;
        let turned = self.order.generation() != self.told_generation;
        self.unreceipted = 0;
        self.receipt_due = None;
        self.told_generation = self.order.generation();
        let second = self.second.filter(|second| turned || now.since(second.at) < SECOND_WAY).map(|second| second.via);
        let floor = self.order.floor();
        let next = self.order.next();
        let mut mask = ReceiptMask::default();
        let reach = next.min(floor + ReceiptMask::BITS);
        for sequence in floor..reach {
            if self.order.has(sequence) {
                mask.set(sequence - floor);
            }
        }
        let receipt = Receipt {
            lane: self.place.lane,
            generation: self.order.generation(),
            floor,
            next,
            path: heard.path,
            delay_us: u32::try_from(now.since(heard.at).as_micros()).unwrap_or(u32::MAX),
            lost: u32::try_from(self.order.counters().lost).unwrap_or(u32::MAX),
            mask,
        };
        Some((receipt, heard.via, second))
    }

    /// When something here is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let epochs = self.epochs.iter().filter_map(|epoch| epoch.until).min();
        [self.receipt_due, self.order.deadline(), epochs].into_iter().flatten().min()
    }

    /// Gives up old keys and old holes.
    pub(crate) fn alarm(&mut self, now: Instant, deliver: &mut dyn FnMut(u64, &[u8])) {
        self.epochs.retain_mut(|epoch| epoch.stays(now));
        self.order.alarm(now, deliver);
    }

    fn hear(&mut self, now: Instant, via: Via, path: PathId, newest: bool) {
        match &mut self.heard {
            Some(heard) if heard.via == via => {
                if newest {
                    heard.at = now;
                }
                heard.path = path;
            }
            Some(heard) if newest => {
                self.second = Some(*heard);
                self.heard = Some(Heard { via, path, at: now });
            }
            Some(_) => self.second = Some(Heard { via, path, at: now }),
            None => self.heard = Some(Heard { via, path, at: now }),
        }
    }
}

#[cfg(test)]
mod tests;

/// What the exhaustive models need of the real lane.
#[cfg(test)]
mod model {
    use super::{Order, RecvLane, Window};

    impl RecvLane {
        /// A lane with small windows and little room to wait in; nothing has come yet.
        pub(crate) fn narrow(&mut self, window_bits: u64, hold_frames: usize) {
            self.order.narrow(window_bits, hold_frames);
            self.control = Window::new(window_bits);
        }

        pub(crate) fn inspect(&self) -> &Order {
            &self.order
        }
    }
}
