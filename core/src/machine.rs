//! The one door of every state machine in this crate.
use crate::time::Instant;

/// When a machine wants to be called again, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The instant at which the driver hands in an alarm.
    pub at: Instant,
    /// The reason, for traces and logs.
    pub why: &'static str,
}

impl Deadline {
    /// The earlier of two optional deadlines.
    pub fn earlier(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(x), Some(y)) => Some(if y.at < x.at { y } else { x }),
            (x, None) => x,
            (None, y) => y,
        }
    }
}

/// A pure state machine: state, an instant and an event go in, actions come out.
pub trait Machine {
    /// What can happen to it.
    type Event<'a>;
    /// What it wants done.
    type Action;
    /// Takes one event to its end. Never blocks, never fails, never looks at a clock.
    fn handle(&mut self, now: Instant, event: Self::Event<'_>, actions: &mut Vec<Self::Action>);
    /// When the machine next wants an alarm, and why.
    fn deadline(&self) -> Option<Deadline>;
}
