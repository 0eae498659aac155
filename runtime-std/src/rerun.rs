//! Conformance: a journal through a runtime's own loop, wake-ups and workers.
//!
//! ```text
//!   journal ─▶ Rerun: a control room whose events are the journal's ─▶ Machine ─▶ actions ─▶ bytes, and Compute ─▶ door ─▶ workers
//!                    ▲ turn, arm, computed, ended: the runtime drives it as it drives any room
//! ```
//! Instants are the journal's, and so are dials, listeners and messages. Jobs are run by the runtime's workers; the event
//! that answers one is taken from the journal, when the runtime has brought the job back. What comes out must be the bytes of the run, on any
//! runtime (`runtime-smol/tests/conformance.rs`).
pub use crate::threads::rerun::rerun;

use crate::room::{Arrival, Doors, Next, Room};
use core::{net::SocketAddr, time::Duration};
use shadowmesh_core::{
    crypto::{Provider, rustcrypto::RustCrypto},
    event::Ended,
    handshake::{Done, Ticket},
    hub::{Refusal, Standing},
    id::ConnId,
    journal::{Entry, Loan, Recorded, Tape, actions_as_bytes, digest_of},
    time::Instant,
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

/// Events that one turn takes: few, so that a runtime has to come back often.
const TURN_EVENTS: usize = 4;
/// No event is due by the clock: a ring comes first.
const SLEEP: Duration = Duration::from_secs(5);

/// What a journal holds, read before a runtime starts.
pub struct Script<M: Recorded> {
    machine: M,
    entries: VecDeque<Entry>,
}

impl<M: Recorded> Script<M> {
    /// Reads a whole journal.
    ///
    /// # Errors
    /// A sentence: the journal is damaged.
    pub fn read(mut tape: Tape<'_, M>) -> Result<Self, String> {
        let machine = M::make(tape.config());
        let mut entries = VecDeque::new();
        while let Some(entry) = tape.next_entry().map_err(|why| why.to_string())? {
            entries.push_back(entry);
        }
        Ok(Self { machine, entries })
    }

    /// The room, with this runtime's doors; all bytes of its actions go to `said` at its end.
    pub fn room<D: Doors>(self, doors: D, said: flume::Sender<Vec<u8>>) -> Rerun<M, D> {
        let Self { machine, entries } = self;
        Rerun { machine, entries, doors, back: BTreeSet::new(), actions: Vec::new(), said, bytes: Vec::new(), fault: None }
    }
}

/// A control room that lives through a journal again.
pub struct Rerun<M: Recorded, D> {
    machine: M,
    entries: VecDeque<Entry>,
    doors: D,
    /// Jobs that the runtime has brought back.
    back: BTreeSet<Ticket>,
    actions: Vec<M::Action>,
    said: flume::Sender<Vec<u8>>,
    bytes: Vec<u8>,
    fault: Option<String>,
}

impl<M: Recorded, D: Doors> Rerun<M, D> {
    /// The runtime's side of the doors.
    pub fn doors(&mut self) -> &mut D {
        &mut self.doors
    }

    /// Feeds one event and compares.
    fn feed(&mut self, mut entry: Entry) -> Result<(), String> {
        let (number, kind, at, answer) = (entry.number, entry.kind::<M>(), entry.at, entry.answer.take());
        let mut loan = Loan::default();
        let event = entry.event::<M>(&mut loan).map_err(|why| why.to_string())?;
        self.machine.handle(at, event, &mut self.actions);
        actions_as_bytes::<M>(&self.actions, &mut self.bytes);
        if answer.is_some_and(|answer| answer.digest != digest_of::<M>(&self.actions)) {
            return Err(format!("record {number} ({kind}): other actions than in the journal"));
        }
        for action in self.actions.drain(..) {
            if let Some(job) = M::job(action) {
                let crypto: Arc<dyn Provider> = Arc::new(RustCrypto);
                self.doors.compute(job, crypto);
            }
        }
        Ok(())
    }
}

impl<M: Recorded, D: Doors> Room for Rerun<M, D> {
    type Command = ();

    fn begin(&mut self, _now: Instant) {}

    fn turn(&mut self, _now: Instant) -> bool {
        for _ in 0..TURN_EVENTS {
            match self.entries.front().map(Entry::answers::<M>) {
                Some(Some(ticket)) if !self.back.remove(&ticket) => return false, // the runtime has it still
                Some(_) => {}
                None => return false,
            }
            let Some(entry) = self.entries.pop_front() else { return false };
            if let Err(why) = self.feed(entry) {
                self.fault = Some(why);
                self.entries.clear();
            }
        }
        true
    }

    fn ended(&mut self, _now: Instant) -> Option<Result<(), String>> {
        if !self.entries.is_empty() {
            return None;
        }
        // Whoever waits for it may have gone.
        let _ = self.said.try_send(core::mem::take(&mut self.bytes));
        Some(self.fault.take().map_or(Ok(()), Err))
    }

    fn arm(&mut self, _now: Instant) -> Duration {
        SLEEP
    }

    fn obey(&mut self, _now: Instant, (): ()) {}

    fn abandoned(&mut self) {}

    fn computed(&mut self, done: Done) {
        self.back.insert(done.ticket);
        self.doors.ring();
    }

    fn admit(&mut self, _now: Instant, _remote: SocketAddr) -> Result<Standing, Refusal> {
        Err(Refusal::Because("a journal takes no connections"))
    }

    fn released(&mut self, _remote: SocketAddr, _why: Ended) {}

    fn number(&mut self) -> ConnId {
        ConnId(0)
    }

    fn accepted(&mut self, _now: Instant, _conn: ConnId, _arrival: Arrival) {}

    fn message(&mut self, _now: Instant, _conn: ConnId, _message: &mut [u8]) -> usize {
        1
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn next(&mut self, _now: Instant, _conn: ConnId) -> Next {
        Next::Wait
    }

    fn sent(&mut self, _now: Instant, _conn: ConnId, _len: usize) {}

    fn closed(&mut self, _conn: ConnId, _why: Ended) {}
}
