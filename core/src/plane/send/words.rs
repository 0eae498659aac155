//! What a sending lane says beside its frames: SWITCH, DRAIN, and the receipts that its other half makes (protocol 4.3, 7.2, 7.3).
use super::{Mode, Paths, SWITCH_REPEAT_MOST, SendLane, Sink};
use crate::{
    id::PathId,
    plane::Via,
    time::Instant,
    wire::{Counter, FRAME_HEADER_LEN, FrameHeader, INNER_CONTROL, LANE_CONTROL_BIT, LaneControl, TAG_LEN},
};

impl SendLane {
    /// The DRAIN of a generation that never comes: behind all copies that are owed, on the path that carried the last frame, and not before
    /// all that other paths carry has come (protocol 7.3).
    pub(super) fn send_end(&mut self, paths: &Paths, sink: &mut dyn Sink) {
        if !self.end_owed {
            return;
        }
        let (path, owes) = match self.rescue {
            // it has copies of all
            Some(rescue) if self.main_broken => (rescue.path, self.owes_copies()),
            Some(_) | None => (self.main, self.catchup.is_some() || (self.mode != Mode::Off && self.ring.unreceipted_off(self.main) > 0)),
        };
        if owes || paths.via(path).is_none() {
            return;
        }
        self.end_owed = false;
        let generation = self.generation.wrapping_add(1);
        let drain = LaneControl::Drain { lane: self.place.lane, generation, start: self.ring.next(), path };
        self.send_control(paths, path, &drain, sink);
    }

    /// Seals one control message of this lane and sends it on `path` (protocol 4.3: lane 80+n).
    pub(crate) fn send_control(&mut self, paths: &Paths, path: PathId, message: &LaneControl, sink: &mut dyn Sink) {
        let Some(via) = paths.via(path) else { return };
        self.send_control_via(via, message, sink);
    }

    /// The same, to where a frame came from.
    pub(crate) fn send_control_via(&mut self, via: Via, message: &LaneControl, sink: &mut dyn Sink) {
        let mut frame = core::mem::take(&mut self.scratch);
        frame.resize(FRAME_HEADER_LEN, 0);
        frame.push(INNER_CONTROL);
        message.emit(&mut frame);
        frame.resize(frame.len() + TAG_LEN, 0);
        let counter = Counter::new(LANE_CONTROL_BIT | self.place.lane, self.control_next);
        self.control_next += 1;
        let header = FrameHeader { epoch: self.sealer.epoch() as u8, generation: self.generation, receiver: self.receiver, counter };
        self.sealer.seal(header, &mut frame);
        sink.send(via, &frame);
        frame.clear();
        self.scratch = frame;
    }

    pub(super) fn send_switch(&mut self, now: Instant, paths: &Paths, sink: &mut dyn Sink) {
        let Some(switch) = &mut self.switch_out else { return };
        let wait = paths.pto(self.main) * 2 * (1 << switch.repeats.min(6));
        switch.again_at = now + wait.min(SWITCH_REPEAT_MOST);
        switch.repeats += 1;
        let message = LaneControl::Switch {
            lane: self.place.lane,
            generation: self.generation,
            start: switch.start,
            from: switch.from,
            to: self.main,
        };
        let (from, to, drain) = (switch.from, self.main, switch.drain);
        self.send_control(paths, to, &message, sink);
        if from != to {
            self.send_control(paths, from, &message, sink);
        }
        // where a hedge carried the frames alone, DRAIN follows them there
        if let Some(drain) = drain.filter(|drain| *drain != from && *drain != to) {
            self.send_control(paths, drain, &message, sink);
        }
    }

    pub(super) fn send_drain(&mut self, paths: &Paths, sink: &mut dyn Sink) {
        let oldest = self.ring.unreceipted_from(0);
        let Some(switch) = self.switch_out.as_mut().filter(|switch| oldest.is_none_or(|oldest| oldest >= switch.after)) else { return };
        let Some(path) = switch.drain.take() else { return };
        let message = LaneControl::Drain { lane: self.place.lane, generation: self.generation, start: switch.start, path };
        self.send_control(paths, path, &message, sink);
    }
}
