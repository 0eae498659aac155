//! The driver: a turn of the control room, what the connections have to write, sleep, what they have to read, and again.
use super::{
    poll::Token,
    pumps::{self, Pumps},
};
use crate::{
    clock,
    room::{Room, TURN_MESSAGES},
};
use core::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use futures_core::Stream;
use std::sync::Arc;

/// What a worker wants done with the room when its work is done.
pub(crate) type Errand<R> = Box<dyn FnOnce(&mut R) + Send>;

/// A queue that other threads fill, read without blocking; the waker is told when there is more.
pub(crate) type Queue<T> = flume::r#async::RecvStream<'static, T>;

/// A control room whose doors lead to descriptors of this thread.
pub(crate) trait Driven: Room + Sized + 'static {
    /// What is open.
    fn pumps(&mut self) -> &mut Pumps<Self>;
    /// The interface may have packets.
    fn interface_ready(&mut self) {}
    /// A UDP socket may have datagrams, or room.
    fn datagrams_ready(&mut self, _number: u32, _writable: bool) {}
    /// Reads datagrams, up to a number a socket; true when there may be more.
    fn read_datagrams(&mut self) -> bool {
        false
    }
    /// Reads packets from the interface, up to a number; true when there may be more.
    fn read_interface(&mut self, _waker: &mut Context<'_>) -> bool {
        false
    }
}

/// The next of a queue, without waiting. `Ready(None)`: nobody is left who could put something in.
pub(crate) fn next<T: 'static>(queue: &mut Queue<T>, waker: &mut Context<'_>) -> Poll<Option<T>> {
    Pin::new(queue).poll_next(waker)
}

/// What comes from other threads.
struct Mail<R: Driven> {
    commands: Option<Queue<R::Command>>,
    errands: Queue<Errand<R>>,
}

/// Drives a room to its end.
pub(crate) fn drive<R: Driven>(
    mut room: R,
    commands: flume::Receiver<R::Command>,
    errands: flume::Receiver<Errand<R>>,
) -> Result<(), String> {
    let room = &mut room;
    let mut mail = Mail { commands: Some(commands.into_stream()), errands: errands.into_stream() };
    let wakeup = Arc::clone(room.pumps().wakeup());
    let waker = Waker::from(Arc::clone(&wakeup));
    let mut waker = Context::from_waker(&waker);
    room.begin(clock::now());
    let mut more = mail.open(room, &mut waker) | room.read_interface(&mut waker);
    loop {
        let pending = room.turn(clock::now());
        room.pumps().answered();
        pumps::write(room);
        if let Some(outcome) = room.ended(clock::now()) {
            return outcome;
        }
        let sleep = if pending || more { Duration::ZERO } else { room.arm(clock::now()) };
        let (busy, mut rung, mut interface, mut sockets) = (room.is_busy(), false, false, Vec::new());
        let waited = room.pumps().wait(busy, sleep, |ready| match ready.token {
            Token::Bell => rung = true,
            Token::Datagrams(number) => sockets.push((number, ready.writable)),
            _ => interface = true,
        });
        waited.map_err(|why| format!("cannot wait for the network: {why}"))?;
        if rung {
            wakeup.answer();
        }
        if interface {
            room.interface_ready();
        }
        for (number, writable) in sockets {
            room.datagrams_ready(number, writable);
        }
        more = (rung || more) && mail.open(room, &mut waker);
        more |= room.read_interface(&mut waker);
        more |= room.read_datagrams();
        pumps::arrivals(room);
        pumps::read(room);
    }
}

impl<R: Driven> Mail<R> {
    /// Takes what has come, up to a number; true when there may be more.
    fn open(&mut self, room: &mut R, waker: &mut Context<'_>) -> bool {
        let mut more = false;
        for taken in 1..=TURN_MESSAGES {
            match next(&mut self.errands, waker) {
                Poll::Ready(Some(errand)) => errand(room),
                Poll::Ready(None) | Poll::Pending => break,
            }
            more |= taken == TURN_MESSAGES;
        }
        for taken in 1..=TURN_MESSAGES {
            let Some(commands) = &mut self.commands else { break };
            match next(commands, waker) {
                Poll::Ready(Some(command)) => room.obey(clock::now(), command),
                Poll::Ready(None) => {
                    self.commands = None;
                    room.abandoned();
                }
                Poll::Pending => break,
            }
            more |= taken == TURN_MESSAGES;
        }
        more
    }
}
