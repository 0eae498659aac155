//! A relay connection that ends: it failed, it is parked after a migration, or the relay goes away.
use super::{LINGER, State, Uplink};
use crate::{
    drops::Drop,
    edges::turn,
    event::{Ended, Note},
    node::Room,
    plane::Edit,
    time::{Duration, Instant},
    wire::{CLOSE_DOWN, RelayMessage},
};

impl Uplink {
    /// The connection ended, or the dial failed. True when it stood.
    pub(crate) fn closed(&mut self, now: Instant, room: &mut Room, why: &Ended) -> bool {
        let stood = self.up().is_some();
        if matches!(why, Ended::WrongIdentity { .. }) {
            room.drops.count(Drop::Identity);
            room.refuse(self.pin, format!("relay {}: {why}", self.url));
        }
        if why.reached_nobody() && matches!(self.state, State::Dialling { .. }) {
            let wait = self.patience.after_silence(now, &mut room.entropy);
            self.fail_for(now, room, why.to_string(), wait);
        } else {
            self.fail(now, room, why.to_string());
        }
        stood
    }

    /// It is over, and tried again after the back-off.
    pub(super) fn fail(&mut self, now: Instant, room: &mut Room, why: String) {
        let wait = self.patience.after_failure(&mut room.entropy);
        self.fail_for(now, room, why, wait);
    }

    /// It is over, and tried again after `wait`.
    fn fail_for(&mut self, now: Instant, room: &mut Room, mut why: String, wait: Duration) {
        match &self.state {
            State::Dialling { conn, .. } => room.hang_up(*conn),
            State::Greeting(greeting) => {
                why = greeting.blame(why);
                room.sids.remove(&greeting.sid);
                room.hang_up(greeting.conn);
            }
            State::Up(up) => {
                room.sids.remove(&up.sid);
                room.edit(Edit::Relay { conn: up.conn, stands: false });
                room.hang_up(up.conn);
            }
            State::Idle { .. } | State::Parked => {}
        }
        self.directory.clear();
        turn(&mut self.state, State::Idle { retry_at: now + wait });
        room.note(Note::RelayLost { index: self.index, why: why.clone(), retry_in: wait });
        self.last_error = Some(why);
    }

    /// Closed on purpose until `wake`.
    pub(crate) fn park(&mut self, room: &mut Room) {
        if let State::Up(up) = &self.state {
            room.sids.remove(&up.sid);
            room.edit(Edit::Relay { conn: up.conn, stands: false });
            room.hang_up(up.conn);
            self.directory.clear();
            turn(&mut self.state, State::Parked);
        }
    }

    /// Dials a parked relay again.
    pub(crate) fn wake(&mut self, now: Instant, room: &mut Room) {
        if matches!(self.state, State::Parked) && !room.leaving {
            self.dial(now, room);
        }
    }

    /// The relay has said that it goes away.
    pub(crate) fn goes(&self) -> bool {
        self.up().is_some_and(|up| up.leaves_at.is_some())
    }

    /// The relay goes away, and it is time to look whether it is needed.
    pub(crate) fn may_leave(&self, now: Instant) -> bool {
        self.up().is_some_and(|up| up.leaves_at.is_some_and(|at| at <= now))
    }

    /// Leaves a relay that goes away; or not yet, when somebody is nowhere else.
    pub(crate) fn leave(&mut self, now: Instant, room: &mut Room, is_needed: bool) {
        if let State::Up(up) = &mut self.state
            && is_needed
        {
            up.leaves_at = Some(now + LINGER);
            return;
        }
        self.say(room, &RelayMessage::Close { reason: CLOSE_DOWN });
        self.fail(now, room, "it goes away, and others carry".into());
    }
}
