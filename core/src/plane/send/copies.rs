//! What a sending lane sends once more: what is owed on a new main path, copies on a second one, and where those go that are too long.
use super::{Clock, Mode, Paths, Rescue, SendLane, Sink};
use crate::{id::PathId, time::Instant};

impl SendLane {
    /// Sends again, on the main path, all that is owed there; then DRAIN.
    pub(super) fn catch_up(&mut self, now: Instant, paths: &Paths, sink: &mut dyn Sink) {
        while let Some(cursor) = self.catchup {
            let Some(sequence) = self.ring.unreceipted_from(cursor) else {
                self.catchup = None;
                break;
            };
            self.catchup = Some(sequence);
            if !self.again(now, paths, sequence, sink) {
                return;
            }
            self.catchup = Some(sequence + 1);
        }
        self.send_drain(paths, sink);
        self.send_end(paths, sink);
    }

    /// Sends a frame again on the main path; or over the relay, when the main path does not carry so much; or not at all, when there is none.
    /// False when there is no room for it.
    pub(super) fn again(&mut self, now: Instant, paths: &Paths, sequence: u64, sink: &mut dyn Sink) -> bool {
        let len = self.ring.bytes(sequence).map_or(0, <[u8]>::len);
        if paths.carries(self.main, len) {
            if self.catchup.is_some() {
                self.main_from = self.main_from.min(sequence);
                if matches!(self.clock, Clock::Clear(_)) {
                    self.clock = Clock::Owes(now);
                }
            }
            return self.copy_within_window(now, paths, self.main, sequence, sink);
        }
        if paths.via(PathId::RELAY).is_none() {
            self.abandon(sequence);
            return true;
        }
        if !self.copy_within_window(now, paths, PathId::RELAY, sequence, sink) {
            return false;
        }
        if let Some(entry) = self.ring.entry_mut(sequence) {
            entry.send_again(PathId::RELAY);
        }
        // there it may be slower than DRAIN
        if let Some(switch) = &mut self.switch_out {
            switch.after = switch.after.max(sequence + 1);
        }
        true
    }

    /// No path can carry this frame any more: it is lost, and the receiver's floor passes it.
    fn abandon(&mut self, sequence: u64) {
        if let Some(entry) = self.ring.entry_mut(sequence) {
            entry.receipted = true;
            self.counters.lost += 1;
        }
        self.given_up = self.given_up.max(sequence + 1);
        self.release_receipted();
    }

    /// Frees what nothing is owed of, though the other end's floor may not have passed it.
    pub(super) fn release_receipted(&mut self) {
        let kept = self.ring.unreceipted_from(0).unwrap_or_else(|| self.ring.next());
        self.ring.release_below(kept);
    }

    fn copy_within_window(&mut self, now: Instant, paths: &Paths, path: PathId, sequence: u64, sink: &mut dyn Sink) -> bool {
        self.window_allows(paths, path, sequence) && self.copy(now, paths, path, sequence, sink)
    }

    pub(super) fn copy_on_rescue(&mut self, paths: &Paths, sink: &mut dyn Sink) {
        while let Some(rescue) = self.rescue {
            let Some(sequence) = self.ring.unreceipted_from(rescue.cursor) else {
                self.rescue = Some(Rescue { cursor: self.ring.next(), ..rescue });
                return;
            };
            let fits = self.ring.bytes(sequence).is_none_or(|bytes| paths.carries(rescue.path, bytes.len()));
            // what is too long for it stays with the main path
            if fits && !self.copy_within_window(self.last_sent_at, paths, rescue.path, sequence, sink) {
                self.rescue = Some(Rescue { cursor: sequence, ..rescue });
                return;
            }
            self.rescue = Some(Rescue { cursor: sequence + 1, ..rescue });
        }
    }

    /// Sends the same bytes once more. False when the path has no room.
    fn copy(&mut self, now: Instant, paths: &Paths, path: PathId, sequence: u64, sink: &mut dyn Sink) -> bool {
        let Some(via) = paths.via(path) else { return false };
        let Some(bytes) = self.ring.bytes(sequence) else { return true };
        if sink.room(via.conn) < bytes.len() {
            return false;
        }
        sink.send(via, bytes);
        self.counters.resent += 1;
        let (on_main, reliable) = (path == self.main, self.mode == Mode::Reliable);
        if let Some(entry) = self.ring.entry_mut(sequence) {
            if on_main {
                entry.send_again(path);
            } else if entry.path == path {
                entry.is_timed = false;
            }
            if reliable {
                // its holes are filled a timeout after the last copy, wherever that went
                (entry.sent_at, entry.is_timed) = (now, false);
            }
        }
        true
    }
}
