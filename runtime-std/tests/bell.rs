//! A model of the bell between threads, over the interleavings that loom finds: no ring is lost. Preemptions are bounded, or it
//! would take minutes; a bell that answers in the wrong order, or with a plain store, is found within these bounds.
#![allow(clippy::duplicate_mod, reason = "the code of the crate itself, on loom's atomics")]

#[path = "../src/threads/bell.rs"]
mod bell;

/// Loom's atomics, where `bell` looks for the usual ones.
mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};
}

use bell::{Bell, Signal};
use loom::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// An eventfd and who polls it.
#[derive(Default)]
struct Raised {
    raised: Mutex<bool>,
    change: Condvar,
}

impl Raised {
    /// Sleeps until the signal is raised.
    fn sleep(&self) {
        let mut raised = self.raised.lock().expect("not poisoned");
        while !*raised {
            raised = self.change.wait(raised).expect("not poisoned");
        }
    }
}

impl Signal for Raised {
    fn raise(&self) {
        *self.raised.lock().expect("not poisoned") = true;
        self.change.notify_one();
    }

    fn lower(&self) {
        *self.raised.lock().expect("not poisoned") = false;
    }
}

/// Threads that each put something where the sleeper looks, and ring. Loom fails when the sleeper sleeps for ever.
fn none_is_lost(threads: usize, things: usize, preemptions: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let bell = Arc::new(Bell::new(Raised::default()));
        let put = Arc::new(AtomicUsize::new(0));
        for _ in 0..threads {
            let (bell, put) = (Arc::clone(&bell), Arc::clone(&put));
            thread::spawn(move || {
                for _ in 0..things {
                    // No stronger than it must be: the bell itself carries the news.
                    put.fetch_add(1, Ordering::Relaxed);
                    bell.ring();
                }
            });
        }
        while put.load(Ordering::Relaxed) < threads * things {
            bell.signal().sleep();
            bell.answer();
        }
    });
}

/// Three: the first wakes, the second comes between the two halves of an answer, the third must still raise the signal.
#[test]
fn a_ring_between_the_look_and_the_sleep_is_not_lost() {
    none_is_lost(1, 3, 3);
}

#[test]
fn rings_of_two_threads_are_not_lost() {
    none_is_lost(2, 1, 2);
}
