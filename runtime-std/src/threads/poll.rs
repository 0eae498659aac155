//! Waiting for many descriptors at once: epoll, edge-triggered, and a bell that other threads ring.
//!
//! Edge-triggered means that a descriptor is told once when it becomes ready. Whoever uses it notes that and goes on until the
//! kernel says `WouldBlock`; a connection that is readable but must not be read now costs nothing, and none can spin.
use super::bell::{Bell, Signal};
use core::time::Duration;
use rustix::{
    buffer::spare_capacity,
    event::{
        EventfdFlags, Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
        eventfd,
    },
    io::Errno,
};
use shadowmesh_core::id::ConnId;
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    task::Wake,
};

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// Bits of a token below its kind.
const KIND_SHIFT: u32 = 62;

/// What a descriptor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A connection.
    Conn(ConnId),
    /// A connection in its handshake, by number.
    Handshake(u64),
    /// A listener, by number.
    Listener(u64),
    /// The interface.
    Interface,
    /// The bell.
    Bell,
    /// A UDP socket, by number.
    Datagrams(u32),
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, number) = match self {
            Self::Conn(conn) => (0, conn.0),
            Self::Handshake(number) => (1, number),
            Self::Listener(number) => (2, number),
            Self::Interface => (3, 0),
            Self::Bell => (3, 1),
            Self::Datagrams(number) => (3, 2 + u64::from(number)),
        };
        debug_assert!(number >> KIND_SHIFT == 0, "numbers count up from 0");
        kind << KIND_SHIFT | number
    }

    fn unpack(packed: u64) -> Self {
        let number = packed & ((1 << KIND_SHIFT) - 1);
        match (packed >> KIND_SHIFT, number) {
            (0, _) => Self::Conn(ConnId(number)),
            (1, _) => Self::Handshake(number),
            (2, _) => Self::Listener(number),
            (_, 0) => Self::Interface,
            (_, 1) => Self::Bell,
            (_, number) => Self::Datagrams((number - 2) as u32),
        }
    }
}

/// A descriptor that has become ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// What it belongs to.
    pub(crate) token: Token,
    /// There may be something to read, or it has ended.
    pub(crate) readable: bool,
    /// There may be room to write, or it has ended.
    pub(crate) writable: bool,
}

/// All descriptors of one machine.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self::resume(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// What goes to another thread, where [`Poll::resume`] makes it one again.
    pub(crate) fn suspend(self) -> OwnedFd {
        self.epoll
    }

    /// With all that was watched before.
    pub(crate) fn resume(epoll: OwnedFd) -> Self {
        Self { epoll, events: Vec::with_capacity(EVENTS) }
    }

    /// Watches a descriptor until it is closed. One that is watched already gets the new token, and what is ready is told again.
    pub(crate) fn watch(&self, source: impl AsFd, token: Token) -> io::Result<()> {
        let (source, data) = (source.as_fd(), EventData::new_u64(token.pack()));
        match epoll::modify(&self.epoll, source, data, edges(token)) {
            Err(Errno::NOENT) => Ok(epoll::add(&self.epoll, source, data, edges(token))?),
            other => Ok(other?),
        }
    }

    /// Waits until a descriptor becomes ready or the time is over, which may be up to a millisecond late.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.events.clear();
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX / 1000), tv_nsec: 0 });
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }

    /// What became ready, in order.
    pub(crate) fn ready(&mut self) -> impl Iterator<Item = Ready> {
        self.events.drain(..).map(|event| {
            let (flags, data) = (event.flags, event.data);
            let ended = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            Ready {
                token: Token::unpack(data.u64()),
                readable: ended || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                writable: ended || flags.contains(EventFlags::OUT),
            }
        })
    }
}

fn edges(token: Token) -> EventFlags {
    let reads = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    match token {
        Token::Conn(_) | Token::Handshake(_) | Token::Datagrams(_) => reads | EventFlags::OUT,
        Token::Listener(_) | Token::Interface | Token::Bell => reads,
    }
}

/// The bell that wakes `Poll::wait`: a waker for whatever other threads do.
pub(crate) struct Wakeup(Bell<EventFd>);

struct EventFd(OwnedFd);

impl Wakeup {
    pub(crate) fn new(poll: &Poll) -> io::Result<Arc<Self>> {
        let bell = Bell::new(EventFd(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
        poll.watch(&bell.signal().0, Token::Bell)?;
        Ok(Arc::new(Self(bell)))
    }

    /// To be called when the bell woke the sleeper, before it looks at what it was woken for.
    pub(crate) fn answer(&self) {
        self.0.answer();
    }
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.0.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.ring();
    }
}

impl Signal for EventFd {
    fn raise(&self) {
        // Its counter cannot overflow: it is raised once between two times that it is lowered.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn lower(&self) {
        // Nothing to read is as good.
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8][..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{TcpListener, TcpStream},
        task::Waker,
        thread,
        time::Instant,
    };

    const LONG: Duration = Duration::from_secs(20);

    fn tokens(poll: &mut Poll, timeout: Duration) -> Vec<Token> {
        poll.wait(timeout).expect("epoll works");
        poll.ready().map(|ready| ready.token).collect()
    }

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::Datagrams(0),
            Token::Datagrams(1),
            Token::Conn(ConnId(0)),
            Token::Conn(ConnId(u64::MAX >> 2)),
            Token::Handshake(7),
            Token::Listener(1),
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
        let single = [Token::Interface, Token::Bell, Token::Datagrams(0)];
        assert_eq!(single.map(|token| Token::unpack(token.pack())), single);
    }

    #[test]
    fn a_ring_from_another_thread_wakes_and_rings_before_an_answer_count_once() {
        let mut poll = Poll::new().expect("epoll");
        let wakeup = Wakeup::new(&poll).expect("eventfd");
        let waker = Waker::from(Arc::clone(&wakeup));
        for _ in 0..3 {
            let waker = waker.clone();
            let ringing = thread::spawn(move || {
                waker.wake_by_ref();
                waker.wake();
            });
            let start = Instant::now();
            assert_eq!(tokens(&mut poll, LONG), [Token::Bell]);
            assert!(start.elapsed() < LONG);
            ringing.join().expect("it rings");
            wakeup.answer();
        }
        assert_eq!(tokens(&mut poll, Duration::ZERO), [], "all were answered");
    }

    #[test]
    fn an_edge_is_told_once_and_again_after_a_rename() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut near = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (far, _) = listener.accept().expect("accept");
        let mut poll = Poll::new().expect("epoll");
        poll.watch(&far, Token::Handshake(1)).expect("add");
        assert_eq!(tokens(&mut poll, LONG), [Token::Handshake(1)], "writable");
        io::Write::write_all(&mut near, b"hello").expect("write");
        poll.wait(LONG).expect("epoll works");
        assert!(poll.ready().any(|ready| ready.readable));
        assert_eq!(tokens(&mut poll, Duration::ZERO), [], "not read, and not told again");
        poll.watch(&far, Token::Conn(ConnId(3))).expect("rename");
        assert_eq!(tokens(&mut poll, LONG), [Token::Conn(ConnId(3))]);
        drop(far);
        assert_eq!(tokens(&mut poll, Duration::ZERO), []);
    }
}
