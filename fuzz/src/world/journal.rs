//! What each life of a machine was told and what it answered, where a scenario wants to keep it.
use super::{HostId, World, air::Air};
use shadowmesh_core::{
    journal::{Recorded, Recorder},
    time::Instant,
};
use std::collections::BTreeMap;

/// The journals of a world, by host and life.
pub(super) type Journals = BTreeMap<(HostId, u32), Vec<u8>>;

/// Beside one machine for one life.
pub(super) struct Scribe<M> {
    key: (HostId, u32),
    recorder: Option<Recorder<M>>,
}

impl<M: Recorded> Scribe<M> {
    pub(super) fn new(air: &Air, key: (HostId, u32), config: &M::Config) -> Self {
        Self { key, recorder: air.journals.is_some().then(|| Recorder::new(config)) }
    }

    pub(super) fn event(&mut self, now: Instant, event: &M::Event<'_>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.event(now, event);
        }
    }

    pub(super) fn actions(&mut self, air: &mut Air, actions: &[M::Action]) {
        if let (Some(recorder), Some(journals)) = (&mut self.recorder, &mut air.journals) {
            recorder.actions(actions);
            journals.entry(self.key).or_default().extend_from_slice(recorder.bytes());
            recorder.written();
        }
    }
}

impl World {
    /// Each machine that starts from now on is recorded.
    pub fn keep_journals(&mut self) {
        self.air.journals = Some(Journals::new());
    }

    /// The journals so far: host, life, bytes.
    pub fn journals(&self) -> impl Iterator<Item = (HostId, u32, &[u8])> {
        self.air.journals.iter().flatten().map(|((host, life), bytes)| (*host, *life, bytes.as_slice()))
    }
}
