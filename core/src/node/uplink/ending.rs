//! A relay connection that ends though nothing is wrong with it: parked after a migration, or left because the relay goes away.
use super::{LINGER, State, Uplink};
use crate::{
    edges::turn,
    node::Room,
    plane::Edit,
    time::Instant,
    wire::{CLOSE_DOWN, RelayMessage},
};

impl Uplink {
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
