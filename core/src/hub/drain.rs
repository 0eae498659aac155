//! A relay that goes away in good order (protocol 6.9): its clients are told, and those that have another relay leave by themselves.
//!
//! ```text
//!   serving ── HubEvent::Drain ──▶ draining: nobody comes in, all else goes on ── drained_at has come ──▶ HubEvent::Leave
//!                                     nobody is left, or nothing passes any more, or it has been long enough
//! ```
use super::{
    Hub, HubAction,
    client::{Client, State},
};
use crate::{
    id::ConnId,
    time::{Duration, Instant},
    wire::RelayMessage,
};
use std::collections::VecDeque;

/// A relay over which nothing passed for so long is not missed.
const QUIET: Duration = Duration::from_secs(1);

/// From the order to drain on.
pub(super) struct Drain {
    since: Instant,
    until: Instant,
    /// Who is still to be told.
    untold: VecDeque<ConnId>,
}

impl Hub {
    /// Whether clients were told to leave.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// When a relay that drains is done with it, and the driver hands in `HubEvent::Leave`; `forwarded_at`: what `Forwarder::forwarded_at` says.
    pub fn drained_at(&self, forwarded_at: Instant) -> Option<Instant> {
        let drain = self.drain.as_ref().filter(|_| self.leaving.is_none())?;
        if self.established == 0 {
            return Some(drain.since);
        }
        Some(drain.until.min(drain.since.max(forwarded_at) + QUIET))
    }

    /// Nobody is let in any more.
    pub(super) fn is_closed(&self) -> bool {
        self.leaving.is_some() || self.is_draining()
    }

    /// Begins to drain, for so long at most.
    pub(super) fn drain(&mut self, now: Instant, within: Duration, clients: VecDeque<ConnId>) {
        if self.drain.is_none() {
            self.drain = Some(Drain { since: now, until: now + within, untold: clients });
        }
    }

    pub(super) fn has_untold(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| !drain.untold.is_empty())
    }

    /// Tells clients that the relay goes away, until there are so many actions. Who has not proven anything yet is turned away: it would
    /// have to leave at once.
    pub(super) fn tell_untold(&mut self, now: Instant, full: usize, actions: &mut Vec<HubAction>) {
        while actions.len() < full
            && let Some(drain) = &mut self.drain
            && let Some(conn) = drain.untold.pop_front()
        {
            let left = drain.until.since(now).as_millis().div_ceil(1000);
            let message = RelayMessage::GoAway { within_s: u16::try_from(left).unwrap_or(u16::MAX) };
            if matches!(self.clients.get(&conn), Some(Client { state: State::Established(_), .. })) {
                self.send(conn, &message, actions);
            } else {
                self.part(now, conn, None, "the relay goes away", actions);
            }
        }
    }
}
