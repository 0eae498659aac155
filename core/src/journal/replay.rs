//! A journal is read and its run made again.
//!
//! ```text
//!   bytes ─▶ Tape: records, checked ─▶ Entry: event, actions that it gave ─▶ Replay: the machine again ─▶ Step: same or not
//! ```
use super::{ACTIONS, Digest, EVENT, FIRST_LINE, FRAME_LEN, Field, HEAD, Loan, RECORD_BYTES, Recorded, checksum, digest};
use crate::{
    Node,
    handshake::Ticket,
    hub::Hub,
    time::Instant,
    wire::{Malformed, Reader},
};
use core::{fmt, marker::PhantomData};
use zeroize::Zeroizing;

/// Why a journal cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// The first line is not that of a journal.
    NotAJournal,
    /// A journal of another version, or its head is missing.
    Version,
    /// A record is not what it should be.
    Record {
        /// Which, counted from 0: the head.
        number: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAJournal => f.write_str("this is not a journal: its first line is another"),
            Self::Version => f.write_str("this journal is of another version, or ends before it begins"),
            Self::Record { number, what } => write!(f, "record {number} of the journal is damaged: {what}"),
        }
    }
}

impl core::error::Error for JournalError {}

/// A journal, by the machine that it is of.
pub enum Journal<'a> {
    /// A peer's.
    Node(Tape<'a, Node>),
    /// A relay's.
    Hub(Tape<'a, Hub>),
}

impl<'a> Journal<'a> {
    /// Reads the beginning of a journal.
    pub fn open(bytes: &'a [u8]) -> Result<Self, JournalError> {
        let line = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        if line != FIRST_LINE.as_bytes() {
            let same_kind = line.starts_with(b"shadowmesh journal ");
            return Err(if same_kind { JournalError::Version } else { JournalError::NotAJournal });
        }
        let mut records = Records { rest: &bytes[line.len()..], next: 0, cut: false };
        let head = records.next()?.ok_or(JournalError::Version)?;
        let machine = |body: &'a [u8]| match body {
            [HEAD, machine, rest @ ..] => Ok((*machine, rest)),
            _ => Err(Malformed("the head")),
        };
        let (machine, config) = machine(head).map_err(|wrong| records.wrong(wrong))?;
        match machine {
            Node::MACHINE => Tape::new(records, config).map(Self::Node),
            Hub::MACHINE => Tape::new(records, config).map(Self::Hub),
            _ => Err(records.wrong(Malformed("the kind of machine"))),
        }
    }
}

/// The records of a journal, one after another.
struct Records<'a> {
    rest: &'a [u8],
    /// The number of the next record.
    next: u64,
    /// The last record is not whole.
    cut: bool,
}

impl<'a> Records<'a> {
    /// The body of the next record; None at the end, also where the file was cut off.
    fn next(&mut self) -> Result<Option<&'a [u8]>, JournalError> {
        let Some((frame, rest)) = self.rest.split_first_chunk::<FRAME_LEN>() else {
            self.cut |= !self.rest.is_empty();
            return Ok(None);
        };
        self.next += 1;
        let [l0, l1, l2, l3, sum @ ..] = *frame;
        let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if !(1..=RECORD_BYTES).contains(&len) {
            return Err(self.wrong(Malformed("its length")));
        }
        let Some((body, rest)) = rest.split_at_checked(len) else {
            self.cut = true;
            self.rest = &[];
            return Ok(None);
        };
        if checksum(body) != sum {
            return Err(self.wrong(Malformed("its checksum")));
        }
        self.rest = rest;
        Ok(Some(body))
    }

    /// The record that was read last is wrong.
    fn wrong(&self, wrong: Malformed) -> JournalError {
        JournalError::Record { number: self.next.saturating_sub(1), what: wrong.0 }
    }
}

/// The events of one machine, and what it answered.
pub struct Tape<'a, M> {
    records: Records<'a>,
    software: String,
    config: &'a [u8],
    machine: PhantomData<fn(M)>,
}

/// One event of a tape.
pub struct Entry {
    /// The number of its record.
    pub number: u64,
    /// When it was.
    pub at: Instant,
    /// The actions that it gave; None when the journal ends there.
    pub answer: Option<Answer>,
    body: Zeroizing<Vec<u8>>,
}

/// The actions of one call, as a journal knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Stands for all of them.
    pub digest: Digest,
    /// The kind of each, by its number.
    pub kinds: Vec<u8>,
}

impl<'a, M: Recorded> Tape<'a, M> {
    fn new(records: Records<'a>, head: &'a [u8]) -> Result<Self, JournalError> {
        let mut from = Reader::new(head);
        let software = String::take(&mut from).map_err(|wrong| records.wrong(wrong))?;
        let config = &head[head.len() - from.remaining()..];
        let tape = Self { records, software, config, machine: PhantomData };
        tape.try_config()?;
        Ok(tape)
    }

    /// The version of the software that wrote it. Another one may act otherwise, and then the digests differ.
    pub fn software(&self) -> &str {
        &self.software
    }

    /// What the machine was made from.
    #[expect(clippy::missing_panics_doc, reason = "it was read once already")]
    pub fn config(&self) -> M::Config {
        self.try_config().expect("the configuration was read when the tape was made")
    }

    fn try_config(&self) -> Result<M::Config, JournalError> {
        let mut from = Reader::new(self.config);
        let config = M::take_config(&mut from).and_then(|config| from.end("the configuration").map(|()| config));
        config.map_err(|wrong| self.records.wrong(wrong))
    }

    /// The next event; None at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, JournalError> {
        let Some(record) = self.records.next()? else { return Ok(None) };
        let number = self.records.next - 1;
        let mut from = Reader::new(record);
        let (kind, at): (u8, Instant) = Field::take(&mut from).map_err(|wrong| self.records.wrong(wrong))?;
        if kind != EVENT {
            return Err(self.records.wrong(Malformed("an event was expected")));
        }
        let body = Zeroizing::new(record[record.len() - from.remaining()..].to_vec());
        let answer = self.answer()?;
        Ok(Some(Entry { number, at, answer, body }))
    }

    fn answer(&mut self) -> Result<Option<Answer>, JournalError> {
        let Some(record) = self.records.next()? else { return Ok(None) };
        let mut from = Reader::new(record);
        let answer = (|| {
            let (kind, digest): (u8, Digest) = Field::take(&mut from)?;
            let kinds = Field::take(&mut from)?;
            from.end("actions")?;
            if kind == ACTIONS { Ok(Answer { digest, kinds }) } else { Err(Malformed("actions were expected")) }
        })();
        answer.map(Some).map_err(|wrong| self.records.wrong(wrong))
    }

    /// Whether the file was cut off in the middle of a record; known at its end.
    pub fn is_cut(&self) -> bool {
        self.records.cut
    }
}

impl Entry {
    /// The kind of the event.
    pub fn kind<M: Recorded>(&self) -> &'static str {
        name(M::EVENTS, self.body.first().copied())
    }

    /// The job that the event answers.
    pub fn answers<M: Recorded>(&self) -> Option<Ticket> {
        let (kind, rest) = self.body.split_first()?;
        (*kind == M::COMPUTED).then(|| u64::take(&mut Reader::new(rest)).ok().map(Ticket))?
    }

    /// The event itself; it can be taken once, because a machine opens messages where they lie.
    pub fn event<'a, M: Recorded>(&'a mut self, loan: &'a mut Loan) -> Result<M::Event<'a>, JournalError> {
        let number = self.number;
        M::take_event(&mut self.body, loan).map_err(|wrong| JournalError::Record { number, what: wrong.0 })
    }
}

/// The run of a machine, made again.
pub struct Replay<'a, M: Recorded> {
    tape: Tape<'a, M>,
    machine: M,
    actions: Vec<M::Action>,
    scratch: Zeroizing<Vec<u8>>,
}

/// One event of a replay.
pub struct Step {
    /// The number of its record.
    pub number: u64,
    /// When it was.
    pub at: Instant,
    /// Its kind.
    pub kind: &'static str,
    /// The rest of it, for people.
    pub detail: String,
    /// The actions that it gave now, for people.
    pub actions: Vec<String>,
    /// How they compare.
    pub verdict: Verdict,
}

/// How the actions of a replay compare with those of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same bytes.
    Same,
    /// The journal ends before them.
    Unknown,
    /// Others.
    Differs(Difference),
}

/// The first place at which a replay is not the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The digest in the journal.
    pub expected: Digest,
    /// The digest now.
    pub found: Digest,
    /// The actions in the journal, by kind.
    pub expected_kinds: Vec<&'static str>,
    /// The actions now, by kind.
    pub found_kinds: Vec<&'static str>,
}

impl<'a, M: Recorded> Replay<'a, M> {
    /// Makes the machine of a tape again.
    pub fn new(tape: Tape<'a, M>) -> Self {
        let machine = M::make(tape.config());
        Self { tape, machine, actions: Vec::new(), scratch: Zeroizing::default() }
    }

    /// The machine, as far as it has come.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The tape behind it.
    pub fn tape(&self) -> &Tape<'a, M> {
        &self.tape
    }

    /// Feeds the next event and compares; None at the end.
    pub fn step(&mut self) -> Result<Option<Step>, JournalError> {
        let Some(mut entry) = self.tape.next_entry()? else { return Ok(None) };
        let (number, at, kind, answer) = (entry.number, entry.at, entry.kind::<M>(), entry.answer.take());
        let mut loan = Loan::default();
        let event = entry.event::<M>(&mut loan)?;
        let detail = M::tell_event(&event);
        self.actions.clear();
        self.machine.handle(at, event, &mut self.actions);
        let mut found_kinds = Vec::new();
        let found = digest::<M>(&self.actions, &mut self.scratch, &mut found_kinds);
        let names = |kinds: &[u8]| kinds.iter().map(|kind| name(M::ACTIONS, Some(*kind))).collect();
        let verdict = match answer {
            None => Verdict::Unknown,
            Some(answer) if answer.digest == found => Verdict::Same,
            Some(answer) => Verdict::Differs(Difference {
                expected: answer.digest,
                found,
                expected_kinds: names(&answer.kinds),
                found_kinds: names(&found_kinds),
            }),
        };
        let actions = self.actions.iter().map(M::tell_action).collect();
        Ok(Some(Step { number, at, kind, detail, actions, verdict }))
    }
}

/// The name of a kind.
fn name(names: &'static [&'static str], kind: Option<u8>) -> &'static str {
    kind.and_then(|kind| names.get(usize::from(kind))).copied().unwrap_or("?")
}
