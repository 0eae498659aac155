//! A journal through the loop of this runtime, for the test of conformance.
use crate::{
    drive::{Driven, Shared},
    pumps::Pumps,
};
use shadowmesh_core::{
    crypto::Provider,
    handshake::Job,
    id::ConnId,
    journal::{Recorded, Tape},
};
use shadowmesh_runtime_std::{
    rerun::{Rerun, Script},
    room::Doors,
};
use smol::LocalExecutor;
use std::{rc::Rc, sync::Arc};

/// Drives the journal's machine through its run; the bytes of all its actions.
///
/// # Errors
/// A sentence: the journal is damaged, or the actions are others.
pub fn rerun<M: Recorded + 'static>(tape: Tape<'_, M>) -> Result<Vec<u8>, String> {
    let script = Script::read(tape)?;
    let executor = Rc::new(LocalExecutor::new());
    let (said, heard) = flume::bounded(1);
    let shared = Shared::new(&executor, |pumps| script.room(BareDoors { pumps }, said));
    smol::block_on(executor.run(shared.drive()))?;
    heard.try_recv().map_err(|_| "the room ended without a word".into())
}

type RerunRoom<M> = Rerun<M, BareDoors<M>>;

/// Rings and workers; a journal needs nothing else of a runtime.
struct BareDoors<M: Recorded + 'static> {
    pumps: Pumps<RerunRoom<M>>,
}

impl<M: Recorded + 'static> Driven for RerunRoom<M> {
    fn pumps(&mut self) -> &mut Pumps<Self> {
        &mut self.doors().pumps
    }
}

impl<M: Recorded + 'static> Doors for BareDoors<M> {
    fn ring(&mut self) {
        self.pumps.ring();
    }

    fn wake(&mut self, _conn: ConnId) {}

    fn hang_up(&mut self, _conn: ConnId) {}

    fn close(&mut self, _conn: ConnId) {}

    fn close_listeners(&mut self) {}

    fn compute(&mut self, job: Job, crypto: Arc<dyn Provider>) {
        self.pumps.compute(job, crypto);
    }
}
