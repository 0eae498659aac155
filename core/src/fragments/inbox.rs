//! One message that comes in fragments.
use crate::{
    time::{Duration, Instant},
    wire::{Fragment, FragmentKind},
};

/// A message whose fragments are not all here so long after the first one came is given up (protocol 8.6).
pub(super) const REASSEMBLY_TIME: Duration = Duration::from_secs(5);

/// A place for the fragments of one message, all of which have verified.
pub struct Inbox {
    kind: FragmentKind,
    sid: u32,
    mark: u8,
    total: u16,
    since: Instant,
    /// Bit i: fragment i is here.
    have: u16,
    bytes: Vec<u8>,
}

impl Inbox {
    /// A place for the message that this fragment is of. The fragment itself is yet to be put in.
    pub fn new(now: Instant, fragment: &Fragment<'_>) -> Self {
        let Fragment { kind, sid, mark, total, .. } = *fragment;
        Self { kind, sid, mark, total, since: now, have: 0, bytes: vec![0; usize::from(total)] }
    }

    /// Whether this fragment is of the message.
    pub fn is_of(&self, fragment: &Fragment<'_>) -> bool {
        (self.kind, self.sid, self.mark, self.total) == (fragment.kind, fragment.sid, fragment.mark, fragment.total)
    }

    /// Whether this fragment is of a message that takes this one's place: one of another attempt, or not of an earlier step of this one,
    /// which came late.
    pub fn gives_way_to(&self, fragment: &Fragment<'_>) -> bool {
        !self.is_of(fragment) && (self.sid != fragment.sid || self.kind <= fragment.kind)
    }

    /// When it is given up.
    pub fn until(&self) -> Instant {
        self.since + REASSEMBLY_TIME
    }

    /// Puts a fragment of this message in its place; the first one for a place stays. Some: it was the last that was missing; the message.
    pub fn put(&mut self, fragment: &Fragment<'_>) -> Option<Vec<u8>> {
        let bit = 1_u16.checked_shl(fragment.index.into())?;
        if !self.is_of(fragment) || self.have & bit != 0 {
            return None;
        }
        let at = fragment.offset();
        self.bytes.get_mut(at..at + fragment.body.len())?.copy_from_slice(fragment.body);
        self.have |= bit;
        let is_whole = self.have.count_ones() as usize == fragment.count();
        is_whole.then(|| core::mem::take(&mut self.bytes))
    }

    /// Bytes that are kept.
    pub fn held(&self) -> usize {
        self.bytes.len()
    }
}
