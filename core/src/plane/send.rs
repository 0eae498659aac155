//! The sending owner of one data lane: seals, keeps what is not receipted, switches and rescues.
//!
//! ```text
//!             queue (before sealing) ──▶ seal ──▶ ring ──▶ main path
//!                                                  │
//!                            rescue: a second cursor over the same bytes, while the main path is suspect
//!                            catchup: the same cursor on a new main path, before any new frame
//! ```
//! The order on each path is always the order of the counters, and each path carries an unbroken run of them; so a receiver
//! that takes whatever copy comes first delivers in order without waiting (protocol 7.2, 7.5).
mod clock;
mod copies;
#[cfg(test)]
mod tests;
mod words;

use super::{
    Paths, Report, Sink,
    pieces::{Cut, Piece},
    queue::{FairQueue, Plain},
    ring::Ring,
    shard::Place,
};
use crate::{
    bound::Bound,
    config::Mode,
    drops::{Drop, Drops},
    id::{LinkId, PathId},
    session::Sealer,
    time::{Duration, Instant},
    wire::{Counter, FRAME_HEADER_LEN, FrameHeader, Receipt, ReceiptMask, TAG_LEN},
};
use clock::Clock;
use std::sync::Arc;

/// The first data after so long a silence is hedged until it is receipted (protocol 7.5).
const IDLE_HEDGE: Duration = Duration::from_secs(5);
/// A suspicion is repeated at most so often.
const STALL_REPEAT: Duration = Duration::from_millis(500);
/// An unconfirmed SWITCH is repeated at the latest after so long.
const SWITCH_REPEAT_MOST: Duration = Duration::from_secs(2);

/// A second path that carries copies.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
struct Rescue {
    path: PathId,
    /// Next sequence to copy.
    cursor: u64,
    /// Ends by itself with the next receipt: a hedge after idleness.
    until_receipt: bool,
}

/// A switch that the receiver has not confirmed yet.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
struct SwitchOut {
    start: u64,
    from: PathId,
    again_at: Instant,
    repeats: u32,
    /// DRAIN is owed on this path when all before `start` has gone out …
    drain: Option<PathId>,
    /// … and all below this has come: it went other paths, on which it may be slower than DRAIN.
    after: u64,
}

/// What the lane has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SendCounters {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) resent: u64,
    /// Lost on the way, as the other end's receipts tell.
    pub(crate) lost: u64,
}

/// The sending half of one session's data lane.
#[cfg_attr(test, derive(Clone, Hash))]
pub(crate) struct SendLane {
    link: LinkId,
    receiver: u32,
    place: Place,
    mode: Mode,
    sealer: Arc<Sealer>,
    ring: Ring,
    control_next: u64,
    generation: u8,
    main: PathId,
    /// The main path had no room while suspect, or is one of datagrams, which may have lost what went there: its run is broken, only a
    /// switch may use it again.
    main_broken: bool,
    /// The first sequence that the main path carries: what comes of those below speaks for another path.
    main_from: u64,
    catchup: Option<u64>,
    rescue: Option<Rescue>,
    switch_out: Option<SwitchOut>,
    /// One above the highest sequence that the other end received.
    received_next: u64,
    clock: Clock,
    last_sent_at: Instant,
    stall_reported_at: Option<Instant>,
    /// Nothing is out, and yet the main path has had no room for a packet since then.
    stuck_since: Option<Instant>,
    /// No new frames: a newer session has taken over.
    closing: bool,
    /// The other end has not been told yet where the lane ends.
    end_owed: bool,
    /// The frame that went again because nothing at all came back.
    probed: Option<u64>,
    /// One above the last frame that no path could carry any more: the other end may wait for it, this one does not.
    given_up: u64,
    /// Where control frames are made; empty in between.
    scratch: Vec<u8>,
    counters: SendCounters,
}

impl SendLane {
    pub(crate) fn new(now: Instant, link: LinkId, receiver: u32, sealer: Arc<Sealer>, main: PathId, mode: Mode, ring: Ring) -> Self {
        Self {
            link,
            receiver,
            place: Place::ALONE,
            mode,
            sealer,
            ring,
            control_next: 0,
            generation: 0,
            main,
            main_broken: false,
            main_from: 0,
            catchup: None,
            rescue: None,
            switch_out: None,
            received_next: 0,
            clock: Clock::Clear(now),
            last_sent_at: now,
            stall_reported_at: None,
            stuck_since: None,
            closing: false,
            end_owed: false,
            probed: None,
            given_up: 0,
            scratch: Vec::new(),
            counters: SendCounters::default(),
        }
    }

    /// It is this lane of so many.
    pub(crate) fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    pub(crate) fn main(&self) -> PathId {
        self.main
    }

    pub(crate) fn counters(&self) -> SendCounters {
        self.counters
    }

    /// What it keeps, beside the most.
    pub(crate) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        self.ring.bounds(each);
    }

    /// New frames are sealed with these keys from now on (protocol 4.5).
    pub(crate) fn set_sealer(&mut self, sealer: Arc<Sealer>) {
        if sealer.epoch() > self.sealer.epoch() {
            self.sealer = sealer;
        }
    }

    /// One packet straight from the interface, when nothing waits before it. False: it must be queued.
    pub(crate) fn send_now(&mut self, now: Instant, paths: &Paths, packet: Plain<'_>, sink: &mut dyn Sink) -> bool {
        if self.catchup.is_some() || !self.may_seal(paths, packet.len(), sink) {
            return false;
        }
        self.seal(now, paths, packet, sink);
        self.copy_on_rescue(paths, sink);
        true
    }

    /// Sends whatever room and window allow: copies owed first, then waiting packets.
    pub(crate) fn pump(&mut self, now: Instant, paths: &Paths, queue: &mut FairQueue, sink: &mut dyn Sink, drops: &mut Drops) {
        self.catch_up(now, paths, sink);
        self.copy_on_rescue(paths, sink);
        while !self.closing && self.catchup.is_none() {
            let Some(len) = queue.peek_len() else { break };
            if !self.may_seal(paths, len, sink) {
                break;
            }
            let Some((inner, packet)) = queue.pop(now, drops) else { break };
            self.seal(now, paths, Plain::whole(inner, &packet), sink);
            queue.recycle(packet);
            self.copy_on_rescue(paths, sink);
        }
        let waits = self.ring.len() == 0 && !self.closing && queue.peek_len().is_some();
        self.stuck_since = paths.via(self.main).filter(|_| waits).map(|_| self.stuck_since.unwrap_or(now));
    }

    /// Sends only copies that are owed: what an ended session still does.
    pub(crate) fn pump_copies(&mut self, now: Instant, paths: &Paths, sink: &mut dyn Sink) {
        self.catch_up(now, paths, sink);
        self.copy_on_rescue(paths, sink);
        self.send_end(paths, sink);
    }

    /// A path is gone, or leads over another connection now, and what was on its way there is lost. What the lane had left there goes again on
    /// the main path (protocol 7.3); away from a main path, or back to it, leads a fallback.
    pub(crate) fn path_lost(&mut self, now: Instant, paths: &Paths, path: PathId, sink: &mut dyn Sink) {
        if let Some(rescue) = self.rescue.as_mut().filter(|rescue| rescue.path == path) {
            rescue.cursor = rescue.cursor.min(self.ring.base());
        }
        if path == self.main {
            if let Some(cursor) = &mut self.catchup {
                *cursor = self.ring.base();
            }
            return;
        }
        if self.mode == Mode::Off || !self.ring.has_unreceipted_on(path) {
            return;
        }
        self.catchup = self.ring.unreceipted_from(0);
        if let Some(switch) = &mut self.switch_out {
            (switch.drain, switch.after) = (Some(self.main), 0);
        }
        self.catch_up(now, paths, sink);
    }

    /// What has this number from now on is another path. An ended lane leaves it, and waits for the relay when nothing else is there.
    pub(crate) fn forget_path(&mut self, path: PathId) {
        if path == PathId::RELAY {
            return;
        }
        if self.main == path {
            self.main = PathId::RELAY;
        }
        if let Some(switch) = self.switch_out.as_mut() {
            switch.from = if switch.from == path { self.main } else { switch.from };
            switch.drain = switch.drain.map(|drain| if drain == path { self.main } else { drain });
        }
        if self.rescue.take_if(|rescue| rescue.path == path).is_some() && self.mode != Mode::Off {
            self.catchup = self.ring.unreceipted_from(0);
        }
    }

    /// Whether copies wait for room.
    pub(crate) fn owes_copies(&self) -> bool {
        self.catchup.is_some() || self.rescue.is_some_and(|rescue| rescue.cursor < self.ring.next())
    }

    /// Whether frames wait for their receipts.
    pub(crate) fn is_owed(&self) -> bool {
        self.ring.len() > 0
    }

    /// Moves the lane to a path that was proven, while the old one lives (protocol 7.2).
    pub(crate) fn switch(&mut self, now: Instant, paths: &Paths, to: PathId, sink: &mut dyn Sink) {
        if to == self.main && !self.main_broken {
            return;
        }
        if paths.via(self.main).is_none() {
            // the path that is left is gone already, and what it swallowed with it
            self.fall_back(now, paths, to, sink);
            return;
        }
        // what a hedge has not copied yet is owed on the new path when the old run is broken
        if self.main_broken && self.catchup.is_none() {
            self.catchup = self.ring.unreceipted_from(self.rescue.map_or(0, |rescue| rescue.cursor));
        }
        let (drain, after) = match (self.catchup, self.rescue) {
            (Some(cursor), _) => (to, cursor),
            (None, Some(rescue)) if self.main_broken => (rescue.path, 0),
            (None, _) => (self.main, self.ring.unreceipted_off(self.main)),
        };
        self.turn(now, paths, to, (drain, after), sink);
    }

    /// Moves the lane away from a path that died: all that is not receipted goes again, in order, before anything new (protocol 7.5).
    pub(crate) fn fall_back(&mut self, now: Instant, paths: &Paths, to: PathId, sink: &mut dyn Sink) {
        if self.mode != Mode::Off {
            let from = match self.rescue {
                // copies of all below are on their way there already, and are what counts from now on
                Some(rescue) if rescue.path == to => {
                    // save those that were too long for it
                    let below = paths.most(to).and_then(|most| self.ring.unreceipted_above(most)).unwrap_or(u64::MAX).min(rescue.cursor);
                    self.ring.carry_below(below, to);
                    below
                }
                Some(_) | None => 0,
            };
            self.catchup = self.ring.unreceipted_from(from);
        }
        self.turn(now, paths, to, (to, 0), sink);
    }

    fn turn(&mut self, now: Instant, paths: &Paths, to: PathId, (drain, after): (PathId, u64), sink: &mut dyn Sink) {
        let from = self.main;
        self.generation = self.generation.wrapping_add(1);
        self.main = to;
        self.main_broken = false;
        self.main_from = self.ring.next();
        self.rescue = None;
        self.stall_reported_at = None;
        self.probed = None;
        self.end_owed = self.closing;
        self.clock = Clock::Clear(now);
        self.switch_out = Some(SwitchOut { start: self.ring.next(), from, again_at: now, repeats: 0, drain: Some(drain), after });
        self.send_switch(now, paths, sink);
        if self.mode == Mode::Redundant && from != to {
            // both paths carry all that is not receipted, as the rescue of any other mode does
            let cursor = self.ring.unreceipted_from(0).unwrap_or_else(|| self.ring.next());
            self.rescue = Some(Rescue { path: from, cursor, until_receipt: false });
        }
        self.catch_up(now, paths, sink);
    }

    /// Copies all that is not receipted, and all that follows, on `path` too. A main path of datagrams gets nothing new meanwhile: were it alive
    /// again, what it brings would overtake the copies of what it has lost.
    pub(crate) fn hedge(&mut self, paths: &Paths, path: PathId) {
        if path == self.main || self.mode == Mode::Off || self.rescue.is_some_and(|rescue| rescue.path == path && !rescue.until_receipt) {
            return;
        }
        let cursor = match self.rescue {
            Some(rescue) if rescue.path == path => rescue.cursor,
            Some(_) | None => self.ring.unreceipted_from(0).unwrap_or_else(|| self.ring.next()),
        };
        self.rescue = Some(Rescue { path, cursor, until_receipt: false });
        self.main_broken |= self.mode != Mode::Redundant && paths.via(self.main).is_some_and(|via| via.conn.is_flow());
    }

    /// The suspicion was wrong. A main path whose run is broken is taken up again by a switch. One that lives and yet brings no receipt has
    /// lost what is out, or the word of it: that it stalls is not forgotten, or its oldest frame would never go again (protocol 7.5).
    pub(crate) fn calm(&mut self, now: Instant, paths: &Paths, sink: &mut dyn Sink) {
        if self.main_broken {
            let main = self.main;
            self.switch(now, paths, main, sink);
        }
        if self.mode != Mode::Redundant {
            self.rescue = None;
        }
    }

    /// Ends the lane: no new frames, the rest is still receipted or sent again. Tells the other end where it ends.
    pub(crate) fn close(&mut self, now: Instant, paths: &Paths, sink: &mut dyn Sink) {
        if !self.closing {
            self.closing = true;
            self.end_owed = true;
            self.last_sent_at = now;
            self.send_end(paths, sink);
        }
    }

    /// Takes the other end's receipt. False when it contradicts what was sent.
    pub(crate) fn receipt(&mut self, now: Instant, paths: &mut Paths, receipt: &Receipt) -> bool {
        if receipt.next > self.ring.next() || receipt.floor > self.ring.next() {
            return false;
        }
        let before = (self.ring.base(), self.received_next);
        let mut newest = 0;
        if receipt.next > self.received_next {
            self.received_next = receipt.next;
            if let Some(entry) = self.ring.entry_mut(receipt.next - 1)
                && entry.is_timed
                && entry.path == receipt.path
            {
                let delay = Duration::from_micros(u64::from(receipt.delay_us));
                let sample = now.since(entry.sent_at).saturating_sub(delay);
                paths.sample(receipt.path, sample);
            }
        }
        // on an ordered path floor and next are one, and there is nothing between them to look at
        let known = receipt.next.saturating_sub(receipt.floor).min(ReceiptMask::BITS);
        for sequence in (0..known).filter(|bit| receipt.mask.get(*bit)).map(|bit| receipt.floor + bit) {
            if let Some(entry) = self.ring.entry_mut(sequence) {
                if !entry.receipted {
                    newest = sequence + 1;
                }
                entry.receipted = true;
            }
        }
        self.ring.release_below(receipt.floor);
        if receipt.floor < self.given_up {
            self.release_receipted();
        }
        self.counters.lost = self.counters.lost.max(u64::from(receipt.lost));
        if receipt.generation == self.generation && self.switch_out.is_some_and(|switch| switch.drain.is_none()) {
            self.switch_out = None;
        }
        if self.ring.base() > before.0 {
            newest = newest.max(self.ring.base());
        }
        if self.received_next > before.1 {
            newest = newest.max(self.received_next);
        }
        if newest > 0 {
            let is_clear = self.ring.unreceipted_from(self.main_from).is_none();
            // what another path brings says nothing of this one, if this one owes something itself
            if newest > self.main_from || is_clear {
                self.clock = if is_clear { Clock::Clear(now) } else { Clock::Owes(now) };
                self.stall_reported_at = None;
            }
            // the probe was the newest that came: all behind it was lost
            if self.probed.take().is_some_and(|probe| receipt.next <= probe + 1) && self.catchup.is_none() {
                self.catchup = self.ring.unreceipted_from(0);
            }
            if self.rescue.is_some_and(|rescue| rescue.until_receipt) {
                self.rescue = None;
            }
        }
        true
    }

    /// In mode `reliable`: frames that the receipt shows missing behind received ones go again on the main path.
    pub(crate) fn fill_holes(&mut self, now: Instant, paths: &Paths, sink: &mut dyn Sink) {
        if self.mode != Mode::Reliable || self.catchup.is_some() {
            return;
        }
        let patience = paths.pto(self.main);
        let mut sequence = 0;
        while let Some(missing) = self.ring.unreceipted_from(sequence).filter(|missing| *missing + 3 < self.received_next) {
            sequence = missing + 1;
            let due = self.ring.entry_mut(missing).is_some_and(|entry| now.since(entry.sent_at) >= patience);
            if due && !self.again(now, paths, missing, sink) {
                break;
            }
        }
    }

    /// When `alarm` is due.
    pub(crate) fn deadline(&self, paths: &Paths) -> Option<Instant> {
        [self.stall_at(paths), self.switch_out.map(|switch| switch.again_at)].into_iter().flatten().min()
    }

    /// Reports a stalled path, repeats an unconfirmed switch.
    pub(crate) fn alarm(&mut self, now: Instant, paths: &Paths, sink: &mut dyn Sink) {
        if self.switch_out.is_some_and(|switch| switch.again_at <= now) {
            self.send_switch(now, paths, sink);
            if self.catchup.is_none() {
                self.send_drain(paths, sink);
            }
        }
        if self.stall_at(paths).is_some_and(|at| at <= now) {
            let persists = self.stall_reported_at.replace(now).is_some();
            sink.report(Report::stalled(self.link, self.main, paths.pto(self.main)));
            if persists {
                self.probe(now, paths, sink);
            }
        }
    }

    /// A path that lives but lost all that is out, or the receipts of it, would stand still for ever when its window is used up:
    /// the oldest frame goes again, and its receipt tells which it was. In mode `off`, which sends nothing twice, what is out is given up.
    fn probe(&mut self, now: Instant, paths: &Paths, sink: &mut dyn Sink) {
        if self.mode == Mode::Off {
            self.give_up();
            return;
        }
        // in a suspicion the rescue has copies of all; in mode `redundant` it is always there, and has lost the same frame, or is closed
        if self.catchup.is_some() || (self.rescue.is_some() && self.mode != Mode::Redundant) {
            return;
        }
        if let Some(oldest) = self.ring.unreceipted_from(0)
            && self.again(now, paths, oldest, sink)
        {
            self.probed = Some(oldest);
        }
    }

    /// What is out is lost. The other end counts it likewise when a later frame comes; if none does, only this end knows.
    fn give_up(&mut self) {
        let mut sequence = self.ring.base();
        while let Some(lost) = self.ring.unreceipted_from(sequence) {
            self.counters.lost += 1;
            sequence = lost + 1;
        }
        self.received_next = self.ring.next();
        self.ring.release_below(self.received_next);
    }

    /// At most `window` frames may be on their way on a path that has one (protocol 7.1).
    fn window_allows(&self, paths: &Paths, path: PathId, sequence: u64) -> bool {
        self.window_allows_all(paths, path, sequence, 1)
    }

    /// The same for so many frames from this one on. Where the window is smaller than that, they go when nothing is out.
    fn window_allows_all(&self, paths: &Paths, path: PathId, sequence: u64, frames: u64) -> bool {
        let out = sequence.saturating_sub(self.received_next);
        // what a relay queues for one destination is for all lanes together
        let window = paths.window(path).map(|window| (window / u64::from(self.place.lanes)).max(1));
        window.is_none_or(|window| out + frames.min(window) <= window && out < window)
    }

    fn may_seal(&mut self, paths: &Paths, len: usize, sink: &dyn Sink) -> bool {
        let cut = Cut::new(len, paths.budget());
        let (frames, total) = (cut.frames(), cut.sealed());
        if self.closing || !self.ring.has_room(frames, total) || self.ring.next() + frames as u64 > Counter::MAX_SEQUENCE {
            return false;
        }
        let next = self.ring.next();
        let open = |path: PathId| {
            paths.via(path).is_some_and(|via| sink.room(via.conn) >= total) && self.window_allows_all(paths, path, next, frames as u64)
        };
        if !self.main_broken && open(self.main) {
            return true;
        }
        // the main path is stuck: go on over the rescue path alone, if that has kept up
        let Some(rescue) = self.rescue.filter(|rescue| !rescue.until_receipt) else { return false };
        let kept_up = rescue.cursor == next && open(rescue.path);
        self.main_broken |= kept_up;
        kept_up
    }

    /// Seals a packet, in pieces where a path that lives carries less than the whole (protocol 8.3).
    fn seal(&mut self, now: Instant, paths: &Paths, packet: Plain<'_>, sink: &mut dyn Sink) {
        let cut = Cut::new(packet.len(), paths.budget());
        for index in 0..cut.frames() {
            self.seal_frame(now, paths, cut.frame(packet, index), sink);
        }
        self.counters.bytes += packet.len() as u64;
    }

    fn seal_frame(&mut self, now: Instant, paths: &Paths, piece: Piece<'_>, sink: &mut dyn Sink) {
        let sequence = self.ring.next();
        let is_alone = self.ring.len() == 0;
        if is_alone {
            self.hedge_after_idle(now, paths);
        }
        if is_alone || matches!(self.clock, Clock::Clear(_)) {
            self.clock = Clock::Owes(now);
        }
        let header = FrameHeader {
            epoch: self.sealer.epoch() as u8,
            generation: self.generation,
            receiver: self.receiver,
            counter: Counter::new(self.place.lane, sequence),
        };
        let sealer = &self.sealer;
        let path = self.rescue.filter(|_| self.main_broken).map_or(self.main, |rescue| rescue.path);
        let frame = self.ring.push(now, path, piece.sealed(), |slab| {
            let at = slab.len();
            slab.extend_from_slice(&[0; FRAME_HEADER_LEN]);
            piece.emit(slab);
            slab.extend_from_slice(&[0; TAG_LEN]);
            sealer.seal(header, &mut slab[at..]);
        });
        if !self.main_broken
            && let Some(via) = paths.via(self.main)
        {
            sink.send(via, frame);
        }
        self.last_sent_at = now;
        self.counters.frames += 1;
    }

    /// A path that was silent for long may have died unseen: the first data goes the relay too (protocol 7.5).
    fn hedge_after_idle(&mut self, now: Instant, paths: &Paths) {
        let silent = now.since(self.last_sent_at) > IDLE_HEDGE;
        if silent && self.rescue.is_none() && self.main != PathId::RELAY && self.mode != Mode::Off && paths.via(PathId::RELAY).is_some() {
            self.rescue = Some(Rescue { path: PathId::RELAY, cursor: self.ring.next(), until_receipt: true });
        }
    }

    /// What a lane that is given up leaves behind.
    pub(crate) fn count_unreceipted(&self, drops: &mut Drops) {
        drops.add(Drop::Late, self.ring.len() as u64);
    }
}

/// What the exhaustive models need of the real lane.
#[cfg(test)]
mod model {
    use super::{Ring, SendCounters, SendLane};
    use core::hash::{Hash, Hasher};

    impl SendLane {
        /// A lane whose ring takes at most so many frames.
        pub(crate) fn narrow(&mut self, most_frames: usize) {
            self.ring.narrow(most_frames);
        }

        /// The frames kept, the next sequence of the control lane, and what the receipts told.
        pub(crate) fn inspect(&self) -> (&Ring, u64, u64) {
            (&self.ring, self.control_next, self.received_next)
        }
    }

    impl Hash for SendCounters {
        fn hash<H: Hasher>(&self, _: &mut H) {
            // counters decide nothing
        }
    }
}
