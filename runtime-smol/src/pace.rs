//! A few steps of many futures in each round of the executor: a handshake's step may be a signature, and packets wait meanwhile.
//!
//! ```text
//!   woken ─▶ asks ─▶ line ─▶ the pacer lets the first few in, and then everybody else has a turn ─▶ one step
//! ```
use crate::bell::Bell;
use core::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use shadowmesh_core::hub::Standing;
use shadowmesh_runtime_std::{clock, lines::Lines};
use smol::future;
use std::rc::Rc;

/// Steps of handshakes in one round: more where they are cheap, fewer where they are signatures.
const FIRST_STEPS: usize = 4;
const MOST_STEPS: usize = 32;

/// What the steps of one round should take together.
const ROUND: Duration = Duration::from_millis(1);

/// Where one future stands.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Pass {
    /// It waits for something else.
    #[default]
    None,
    /// It stands in line.
    Asked,
    /// It may take one step.
    Given,
}

/// The line; whoever leaves for good may leave its place in it behind.
#[derive(Default)]
pub(crate) struct Pace {
    line: RefCell<Lines<(Rc<Cell<Pass>>, Waker)>>,
    bell: Bell,
    /// What the steps of this round have taken.
    spent: Cell<Duration>,
}

impl Pace {
    /// Lets in those who wait, a few in each round, for ever.
    pub(crate) async fn keep(&self) {
        let mut steps = FIRST_STEPS;
        loop {
            steps = match self.spent.take() {
                spent if spent > ROUND => (steps / 2).max(1),
                spent if spent < ROUND / 2 => (steps * 2).min(MOST_STEPS),
                _ => steps,
            };
            for _ in 0..steps {
                let Some((pass, waker)) = self.line.borrow_mut().pop() else { break };
                pass.set(Pass::Given);
                waker.wake();
            }
            if self.line.borrow().is_empty() {
                self.bell.wait().await;
            } else {
                future::yield_now().await;
            }
        }
    }

    /// Runs `work`, each step in its turn.
    pub(crate) async fn run<T>(&self, standing: Standing, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let pass = Rc::default();
        poll_fn(|context| match self.enter(standing, &pass, context) {
            Poll::Ready(()) => {
                let begun = clock::now();
                let polled = work.as_mut().poll(context);
                self.spent.set(self.spent.get() + clock::now().since(begun));
                polled
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn enter(&self, standing: Standing, pass: &Rc<Cell<Pass>>, context: &Context<'_>) -> Poll<()> {
        match pass.get() {
            Pass::Given => {
                pass.set(Pass::None);
                return Poll::Ready(());
            }
            Pass::Asked => {}
            Pass::None => {
                pass.set(Pass::Asked);
                self.line.borrow_mut().push(standing, (Rc::clone(pass), context.waker().clone()));
                self.bell.ring();
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::LocalExecutor;

    #[test]
    fn who_is_known_passes_a_crowd_of_strangers() {
        let executor = LocalExecutor::new();
        let (pace, strangers) = (Rc::new(Pace::default()), Rc::new(Cell::new(0)));
        let keeper = Rc::clone(&pace);
        let keeping = executor.spawn(async move { keeper.keep().await });
        let crowd: Vec<_> = (0..1_000)
            .map(|_| {
                let (pace, strangers) = (Rc::clone(&pace), Rc::clone(&strangers));
                executor.spawn(async move {
                    let work = async { strangers.set(strangers.get() + 1) };
                    pace.run(Standing::Stranger, work).await;
                })
            })
            .collect();
        let known = {
            let (pace, strangers) = (Rc::clone(&pace), Rc::clone(&strangers));
            executor.spawn(async move {
                while strangers.get() == 0 {
                    future::yield_now().await;
                }
                let steps = async {
                    for _ in 0..3 {
                        future::yield_now().await;
                    }
                };
                pace.run(Standing::Known, steps).await;
                strangers.get()
            })
        };
        smol::block_on(executor.run(async {
            let before = known.await;
            assert!(before < 400, "{before} strangers went first");
            for one in crowd {
                one.await;
            }
        }));
        drop(keeping);
    }

    #[test]
    fn many_that_are_ready_at_once_take_a_few_steps_in_each_round() {
        let executor = LocalExecutor::new();
        let (pace, steps) = (Rc::new(Pace::default()), Rc::new(Cell::new(0)));
        let keeper = Rc::clone(&pace);
        let keeping = executor.spawn(async move { keeper.keep().await });
        let all: Vec<_> = (0..100)
            .map(|_| {
                let (pace, steps) = (Rc::clone(&pace), Rc::clone(&steps));
                executor.spawn(async move {
                    let work = async {
                        for _ in 0..3 {
                            steps.set(steps.get() + 1);
                            future::yield_now().await;
                        }
                    };
                    pace.run(Standing::Stranger, work).await;
                })
            })
            .collect();
        // one that has its own turn in each round sees how many steps were taken since its last one
        let most = executor.spawn(async move {
            let (mut most, mut seen) = (0, 0);
            while seen < 300 {
                future::yield_now().await;
                most = most.max(steps.get() - seen);
                seen = steps.get();
            }
            most
        });
        smol::block_on(executor.run(async {
            for one in all {
                one.await;
            }
            let most = most.await;
            assert!((1..=MOST_STEPS + 1).contains(&most), "{most} steps between two turns of another");
        }));
        drop(keeping);
    }
}
