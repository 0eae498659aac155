//! A bell: one task waits for it, any other task of the same thread rings it. A ring before the wait is not lost.
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// Wakes one task of this thread; clones ring the same bell.
#[derive(Clone, Default)]
pub(crate) struct Bell(Rc<Inner>);

#[derive(Default)]
struct Inner {
    rung: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Bell {
    /// Rings: the waiting task, or the next one that waits, goes on.
    pub(crate) fn ring(&self) {
        if !self.0.rung.replace(true)
            && let Some(waker) = self.0.waiter.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Waits until the bell has been rung since the last wait.
    pub(crate) async fn wait(&self) {
        poll_fn(|cx| {
            if self.0.rung.replace(false) {
                return Poll::Ready(());
            }
            let mut waiter = self.0.waiter.borrow_mut();
            if !waiter.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                *waiter = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_is_kept_and_counts_once() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        smol::block_on(bell.wait());
        let again = smol::block_on(smol::future::poll_once(bell.wait()));
        assert_eq!(again, None);
    }

    #[test]
    fn a_ring_wakes_the_waiting_task() {
        let bell = Bell::default();
        let executor = smol::LocalExecutor::new();
        let waiting = executor.spawn({
            let bell = bell.clone();
            async move { bell.wait().await }
        });
        smol::block_on(executor.run(async {
            smol::future::yield_now().await;
            bell.ring();
            waiting.await;
        }));
    }
}
