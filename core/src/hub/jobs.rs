//! Heavy arithmetic under way: a bounded number with the driver, the rest in line (protocol 9).
use crate::{
    bound::Bound,
    handshake::{Job, Ticket, Work},
    id::ConnId,
};
use std::collections::{BTreeMap, VecDeque};

/// Jobs with the driver at one time: enough for every core, few enough that what a closed connection left behind costs little.
const IN_FLIGHT: usize = 64;

/// Whose job is where. The line is as long as connections may be half open, which the hub bounds.
#[derive(Default)]
pub(super) struct Jobs {
    next: u64,
    in_flight: BTreeMap<Ticket, ConnId>,
    line: VecDeque<(ConnId, Work)>,
}

impl Jobs {
    /// What is under way, beside the most.
    pub(super) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("jobs under way", self.in_flight.len(), IN_FLIGHT));
    }

    /// Puts a job at the end of the line.
    pub(super) fn push(&mut self, conn: ConnId, work: Work) {
        self.line.push_back((conn, work));
    }

    /// The next job for the driver, when it may have one more.
    pub(super) fn start(&mut self) -> Option<Job> {
        if self.in_flight.len() >= IN_FLIGHT {
            return None;
        }
        let (conn, work) = self.line.pop_front()?;
        let ticket = Ticket(self.next);
        self.next += 1;
        self.in_flight.insert(ticket, conn);
        Some(Job { ticket, work })
    }

    /// A job came back: whose it was.
    pub(super) fn finish(&mut self, ticket: Ticket) -> Option<ConnId> {
        self.in_flight.remove(&ticket)
    }

    /// A connection is gone: what is in line for it is not worth doing.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.line.retain(|(owner, _)| *owner != conn);
    }
}
