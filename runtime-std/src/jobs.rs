//! Heavy arithmetic beside the control room: a few jobs at a time, the rest waits in order.
use shadowmesh_core::{crypto::Provider, handshake::Job};
use std::{collections::VecDeque, sync::Arc};

/// Jobs at once: post-quantum signatures must not take all cores from the data plane.
pub(crate) const AT_ONCE: usize = 2;

/// The jobs of one machine.
pub(crate) struct Jobs {
    crypto: Arc<dyn Provider>,
    waiting: VecDeque<Job>,
    running: usize,
}

impl Jobs {
    /// No jobs yet.
    pub(crate) fn new(crypto: Arc<dyn Provider>) -> Self {
        Self { crypto, waiting: VecDeque::new(), running: 0 }
    }

    /// Takes a job in; its machine bounds how many it has outstanding.
    pub(crate) fn add(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    /// The next job to run now, and what runs it; `finished` must follow.
    pub(crate) fn next(&mut self) -> Option<(Job, Arc<dyn Provider>)> {
        if self.running >= AT_ONCE {
            return None;
        }
        let job = self.waiting.pop_front()?;
        self.running += 1;
        Some((job, Arc::clone(&self.crypto)))
    }

    /// A job is done: its place is free.
    pub(crate) fn finished(&mut self) {
        self.running -= 1;
    }
}
