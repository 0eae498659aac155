//! Threads for work that blocks: there are only as many as there is work, up to a bound, and they end when there is none for a while.
use core::time::Duration;
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// How long a thread without work stays.
const IDLE_TIME: Duration = Duration::from_millis(500);

/// A piece of work.
type Work = Box<dyn FnOnce() + Send>;

/// A group of threads; they finish what they have when this is dropped.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    name: &'static str,
    most: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

impl Workers {
    /// No threads yet, and never more than `most`.
    pub(crate) fn new(name: &'static str, most: usize) -> Self {
        Self { shared: Arc::default(), name, most }
    }

    /// Does the work on a thread of its own, or when one is free. Where there can be no thread at all, it is done here and now.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        state.waiting.push_back(Box::new(work));
        if state.idle >= state.waiting.len() || state.threads >= self.most {
            self.shared.news.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.shared);
        if let Err(why) = thread::Builder::new().name(self.name.to_owned()).spawn(move || shared.work()) {
            tracing::warn!(%why, "cannot start a thread");
            let mut state = self.shared.lock();
            state.threads -= 1;
            // Those who are there take it in their turn.
            let work = if state.threads == 0 { state.waiting.pop_back() } else { None };
            drop(state);
            if let Some(work) = work {
                work();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.waiting.pop_front() {
                drop(state);
                work();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (back, timeout) = self.news.wait_timeout(state, IDLE_TIME).unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            if timeout.timed_out() && state.waiting.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn work_runs_side_by_side_up_to_the_bound_and_all_of_it_is_done() {
        let workers = Workers::new("test", 2);
        let (done, results) = flume::unbounded();
        // Two that need each other: they end only if both run at the same time.
        let barrier = Arc::new(Barrier::new(2));
        for number in 0..20 {
            let (done, barrier) = (done.clone(), Arc::clone(&barrier));
            workers.run(move || {
                barrier.wait();
                done.send(number).expect("the test listens");
            });
        }
        let mut all: Vec<i32> = (0..20).map(|_| results.recv_timeout(Duration::from_secs(20)).expect("done")).collect();
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        assert!(workers.shared.lock().threads <= 2);
    }

    #[test]
    fn threads_without_work_end_and_new_ones_come_for_new_work() {
        let workers = Workers::new("test", 1);
        let (done, results) = flume::unbounded();
        for round in 0..2 {
            let done = done.clone();
            let here = thread::current().id();
            workers.run(move || done.send((round, thread::current().id() != here)).expect("the test listens"));
            assert_eq!(results.recv_timeout(Duration::from_secs(20)), Ok((round, true)));
            let mut state = workers.shared.lock();
            while state.threads > 0 {
                // Nobody tells that a thread has gone: look again in a while.
                state = workers.shared.news.wait_timeout(state, Duration::from_millis(20)).expect("not poisoned").0;
            }
        }
    }
}
