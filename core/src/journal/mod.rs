//! The record of a machine's run: each event in full, and after each a digest of the actions that came out.
//!
//! ```text
//!   first line    text: what this is, and that it is secret
//!   record        length u32 | checksum 4 | body            a file that was cut off is good up to the cut
//!   body          0 head:    kind of machine u8 | software | configuration
//!                 1 event:   instant u64 | kind u8 | the event
//!                 2 actions: digest 16 | kind of each u8
//! ```
//! The event is written before the machine takes it, so that the journal of a run that ended in a panic ends with its cause.
//! A machine is a function of its configuration and its events, so `Replay` makes it again, feeds it and compares. Results of jobs
//! are events: a replay computes none. The configuration holds the identity's seed and the network's secret, and results hold
//! session keys: a journal is as secret as all of these together (docs/decisions/0021-journal.md).
//!
//! Here is no I/O: a driver writes what `Recorder::bytes` gives, and reads a file for `Journal::open`.
mod action;
mod codec;
mod config;
mod event;
mod replay;
#[cfg(test)]
mod tests;

pub(crate) use codec::{Field, put_list, record};
pub use event::Loan;
pub use replay::{Answer, Difference, Entry, Journal, JournalError, Replay, Step, Tape, Verdict};

use crate::{
    Node,
    config::{HubConfig, NodeConfig},
    crypto::hash::sha512_prefix,
    event::{Action, Event},
    handshake::Job,
    hub::{Hub, HubAction, HubEvent},
    machine::Machine,
    time::Instant,
    wire::{Malformed, Reader},
};
use core::marker::PhantomData;
use zeroize::{Zeroize, Zeroizing};

/// The first line of each journal.
pub const FIRST_LINE: &str = "shadowmesh journal 1 (SECRET: it holds an identity, the secret of a network and session keys)\n";
/// Most bytes of one record. The largest event is a tally of 4,096 links with a few paths each.
pub const RECORD_BYTES: usize = 4 << 20;

const HEAD: u8 = 0;
const EVENT: u8 = 1;
const ACTIONS: u8 = 2;
/// Length and checksum.
const FRAME_LEN: usize = 8;

/// Stands for the actions of one event.
pub type Digest = [u8; 16];

/// A machine whose run can be recorded and replayed.
pub trait Recorded: Machine + Sized {
    /// What it is made from.
    type Config;
    /// Its number in the head of a journal.
    const MACHINE: u8;
    /// What people call it.
    const NAME: &'static str;
    /// The kinds of its events.
    const EVENTS: &'static [&'static str];
    /// The kind of the event that answers a job.
    const COMPUTED: u8;
    /// The kinds of its actions.
    const ACTIONS: &'static [&'static str];
    /// A new machine.
    fn make(config: Self::Config) -> Self;
    /// Appends a configuration.
    fn put_config(config: &Self::Config, out: &mut Vec<u8>);
    /// Reads a configuration back.
    fn take_config(from: &mut Reader<'_>) -> Result<Self::Config, Malformed>;
    /// Appends an event: its kind, then all of it.
    fn put_event(event: &Self::Event<'_>, out: &mut Vec<u8>);
    /// Reads an event back; what it borrows stays in `body` and `loan`.
    fn take_event<'a>(body: &'a mut [u8], loan: &'a mut Loan) -> Result<Self::Event<'a>, Malformed>;
    /// Appends an action: its kind, then all of it but keys.
    fn put_action(action: &Self::Action, out: &mut Vec<u8>);
    /// The job that an action orders.
    fn job(action: Self::Action) -> Option<Job>;
    /// What people see of an event, besides its kind.
    fn tell_event(event: &Self::Event<'_>) -> String;
    /// What people see of an action.
    fn tell_action(action: &Self::Action) -> String;
}

impl Recorded for Node {
    type Config = NodeConfig;
    const MACHINE: u8 = 1;
    const NAME: &'static str = "peer";
    const EVENTS: &'static [&'static str] = &event::NODE;
    const COMPUTED: u8 = 7;
    const ACTIONS: &'static [&'static str] = &action::NODE;

    fn make(config: NodeConfig) -> Self {
        Self::new(config)
    }
    fn put_config(config: &NodeConfig, out: &mut Vec<u8>) {
        config.put(out);
    }
    fn take_config(from: &mut Reader<'_>) -> Result<NodeConfig, Malformed> {
        Field::take(from)
    }
    fn put_event(event: &Event<'_>, out: &mut Vec<u8>) {
        event::put_node(event, out);
    }
    fn take_event<'a>(body: &'a mut [u8], loan: &'a mut Loan) -> Result<Event<'a>, Malformed> {
        event::take_node(body, loan)
    }
    fn put_action(action: &Action, out: &mut Vec<u8>) {
        action::put_node(action, out);
    }
    fn job(action: Action) -> Option<Job> {
        if let Action::Compute(job) = action { Some(job) } else { None }
    }
    fn tell_event(event: &Event<'_>) -> String {
        event::tell_node(event)
    }
    fn tell_action(action: &Action) -> String {
        action::tell_node(action)
    }
}

impl Recorded for Hub {
    type Config = HubConfig;
    const MACHINE: u8 = 2;
    const NAME: &'static str = "relay";
    const EVENTS: &'static [&'static str] = &event::HUB;
    const COMPUTED: u8 = 6;
    const ACTIONS: &'static [&'static str] = &action::HUB;

    fn make(config: HubConfig) -> Self {
        Self::new(config)
    }
    fn put_config(config: &HubConfig, out: &mut Vec<u8>) {
        config.put(out);
    }
    fn take_config(from: &mut Reader<'_>) -> Result<HubConfig, Malformed> {
        Field::take(from)
    }
    fn put_event(event: &HubEvent<'_>, out: &mut Vec<u8>) {
        event::put_hub(event, out);
    }
    fn take_event<'a>(body: &'a mut [u8], _loan: &'a mut Loan) -> Result<HubEvent<'a>, Malformed> {
        event::take_hub(body)
    }
    fn put_action(action: &HubAction, out: &mut Vec<u8>) {
        action::put_hub(action, out);
    }
    fn job(action: HubAction) -> Option<Job> {
        if let HubAction::Compute(job) = action { Some(job) } else { None }
    }
    fn tell_event(event: &HubEvent<'_>) -> String {
        event::tell_hub(event)
    }
    fn tell_action(action: &HubAction) -> String {
        action::tell_hub(action)
    }
}

/// The actions of one call as bytes: equal for equal actions, on any runtime.
pub fn actions_as_bytes<M: Recorded>(actions: &[M::Action], out: &mut Vec<u8>) {
    for action in actions {
        M::put_action(action, out);
    }
}

/// The digest of the actions of one call.
pub fn digest_of<M: Recorded>(actions: &[M::Action]) -> Digest {
    digest::<M>(actions, &mut Zeroizing::default(), &mut Vec::new())
}

/// Makes the bytes of a journal, beside the machine that it records.
///
/// For each event: `event` before the machine takes it, `actions` with what it gave. The driver writes `bytes` when it likes and then
/// calls `written`; a record that does not get written ends the journal, because everything behind it would be worthless.
pub struct Recorder<M> {
    bytes: Zeroizing<Vec<u8>>,
    actions: Zeroizing<Vec<u8>>,
    machine: PhantomData<fn(M)>,
}

impl<M: Recorded> Recorder<M> {
    /// Begins the journal of a machine that is made from `config`.
    pub fn new(config: &M::Config) -> Self {
        let mut recorder = Self { bytes: Zeroizing::new(FIRST_LINE.into()), actions: Zeroizing::default(), machine: PhantomData };
        recorder.record(|out| {
            (HEAD, M::MACHINE).put(out);
            env!("CARGO_PKG_VERSION").to_owned().put(out);
            M::put_config(config, out);
        });
        recorder
    }

    /// This event comes next.
    pub fn event(&mut self, now: Instant, event: &M::Event<'_>) {
        self.record(|out| {
            (EVENT, now).put(out);
            M::put_event(event, out);
        });
    }

    /// These actions came of it.
    pub fn actions(&mut self, actions: &[M::Action]) {
        let mut kinds = Vec::with_capacity(actions.len());
        let mut bytes = core::mem::take(&mut self.actions);
        let digest = digest::<M>(actions, &mut bytes, &mut kinds);
        self.actions = bytes;
        self.record(|out| {
            (ACTIONS, digest).put(out);
            kinds.put(out);
        });
    }

    /// What is to be written, behind what was written before.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what was written.
    pub fn written(&mut self) {
        self.bytes.zeroize();
    }

    fn record(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; FRAME_LEN]);
        body(&mut self.bytes);
        let body = self.bytes.get(start + FRAME_LEN..).unwrap_or_default();
        let (len, sum) = (body.len() as u32, checksum(body));
        if let Some(frame) = self.bytes.get_mut(start..start + FRAME_LEN) {
            frame[..4].copy_from_slice(&len.to_be_bytes());
            frame[4..].copy_from_slice(&sum);
        }
    }
}

/// The digest of the actions of one call, and their kinds. `bytes` is scratch space.
fn digest<M: Recorded>(actions: &[M::Action], bytes: &mut Vec<u8>, kinds: &mut Vec<u8>) -> Digest {
    bytes.clear();
    for action in actions {
        let at = bytes.len();
        M::put_action(action, bytes);
        kinds.extend(bytes.get(at));
    }
    sha512_prefix(&[b"shadowmesh/1 actions", bytes])
}

fn checksum(body: &[u8]) -> [u8; 4] {
    sha512_prefix(&[b"shadowmesh/1 journal", body])
}
