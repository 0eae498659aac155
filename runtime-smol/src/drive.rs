//! The driver: one thread, one owner of a control room, many small tasks around it.
use crate::{bell::Bell, pumps::Pumps};
use shadowmesh_runtime_std::{clock, room::Room};
use smol::{LocalExecutor, Task, Timer, future};
use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

/// A control room whose doors lead to tasks of this runtime.
pub(crate) trait Driven: Room + Sized + 'static {
    /// The tasks of its connections.
    fn pumps(&mut self) -> &mut Pumps<Self>;
}

/// What all tasks of one machine share. The room is never borrowed across an await.
pub(crate) struct Shared<R> {
    executor: Weak<LocalExecutor<'static>>,
    room: RefCell<R>,
    bell: Bell,
}

impl<R: Driven> Shared<R> {
    /// A control room made by `room`, whose doors know the way back.
    pub(crate) fn new(executor: &Rc<LocalExecutor<'static>>, room: impl FnOnce(Pumps<R>) -> R) -> Rc<Self> {
        let bell = Bell::default();
        Rc::new_cyclic(|shared| Self {
            executor: Rc::downgrade(executor),
            room: RefCell::new(room(Pumps::new(Weak::clone(shared), bell.clone()))),
            bell,
        })
    }

    /// Starts a task of this machine.
    pub(crate) fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Task<T> {
        self.executor.upgrade().expect("the executor outlives its tasks").spawn(task)
    }

    /// The executor, for tasks that outlive the one that starts them.
    pub(crate) fn executor(&self) -> Weak<LocalExecutor<'static>> {
        Weak::clone(&self.executor)
    }

    /// Gives access to the control room for a moment.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut R) -> T) -> T {
        f(&mut self.room.borrow_mut())
    }

    /// Takes commands; when the last handle is gone, the machine leaves.
    pub(crate) async fn obey(self: Rc<Self>, commands: flume::Receiver<R::Command>) {
        while let Ok(command) = commands.recv_async().await {
            self.with(|room| room.obey(clock::now(), command));
        }
        self.with(Room::abandoned);
    }

    /// Drives the room to its end: a turn, then sleep until a deadline or a ring.
    pub(crate) async fn drive(self: Rc<Self>) -> Result<(), String> {
        self.with(|room| room.begin(clock::now()));
        loop {
            let more = self.with(|room| room.turn(clock::now()));
            if let Some(outcome) = self.with(|room| room.ended(clock::now())) {
                return outcome;
            }
            if more {
                future::yield_now().await;
                continue;
            }
            let sleep = self.with(|room| room.arm(clock::now()));
            future::or(self.bell.wait(), async {
                Timer::after(sleep).await;
            })
            .await;
        }
    }
}
