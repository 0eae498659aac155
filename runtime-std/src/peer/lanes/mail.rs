//! What goes between the threads of a peer, and how much of it may wait.
use super::{Counted, Inside, Number, Watcher};
use crate::{
    room::{INBOX, INBOX_CALM},
    threads::poll::Wakeup,
};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shadowmesh_core::{
    id::{ConnId, Handle, LinkId},
    offload::Offload,
    plane::{Edit, Origin, Passed, Report, Via},
};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    task::Wake,
};

/// Packets and frames of other lanes that may wait for one: some milliseconds of a gigabit. Beyond, packets are dropped before they are
/// sealed, and frames as by a network.
pub(super) const PASSED: usize = 2_048;

/// What a lane is told.
pub(in super::super) enum Order {
    Edit(Edit),
    /// Its own socket of a family.
    Socket(Number, UdpSocket),
    Flow {
        conn: ConnId,
        remote: SocketAddr,
        own: Option<(Number, UdpSocket)>,
    },
    EndFlow(ConnId),
    /// A connection stands, or does so no longer.
    Stream(ConnId, bool),
    /// A connection has taken so many bytes.
    Credit(ConnId, usize),
    /// What belongs to this lane.
    Passed(OwnedPass),
    Capture(Watcher),
    Answer(Inside),
    End,
}

/// What a lane says.
pub(in super::super) enum Word {
    /// A frame for a connection.
    Record(Via, Vec<u8>),
    Punt(ConnId, Option<Handle>, Vec<u8>),
    Stray(SocketAddr, Vec<u8>),
    Report(Report),
    /// What belongs to lane 0.
    Passed(OwnedPass),
    Counted(Box<Counted>),
    /// Its thread has ended.
    Gone(String),
}

/// What was passed on, on its way.
pub(in super::super) enum OwnedPass {
    Packet(Offload, Vec<u8>),
    Waited(LinkId, u8, Vec<u8>),
    Frame(Origin, Vec<u8>),
}

impl OwnedPass {
    pub(in super::super) fn of(what: Passed<'_>) -> Self {
        match what {
            Passed::Packet { offload, packet } => Self::Packet(offload, packet.to_vec()),
            Passed::Waited { link, inner, packet } => Self::Waited(link, inner, packet.to_vec()),
            Passed::Frame { from, bytes } => Self::Frame(from, bytes.to_vec()),
        }
    }

    pub(in super::super) fn lend(&mut self) -> Passed<'_> {
        match self {
            Self::Packet(offload, packet) => Passed::Packet { offload: *offload, packet },
            Self::Waited(link, inner, packet) => Passed::Waited { link: *link, inner: *inner, packet },
            Self::Frame(from, bytes) => Passed::Frame { from: *from, bytes },
        }
    }
}

/// Where orders for one lane wait.
#[derive(Clone)]
pub(in super::super) struct Mailbox {
    orders: flume::Sender<Order>,
    passed: Arc<AtomicUsize>,
    wakeup: Arc<Wakeup>,
}

/// The lane's end of its mailbox.
pub(super) struct Letters {
    orders: flume::Receiver<Order>,
    passed: Arc<AtomicUsize>,
}

impl Mailbox {
    pub(super) fn new(wakeup: Arc<Wakeup>) -> (Self, Letters) {
        let (orders, taken) = flume::unbounded();
        let passed = Arc::<AtomicUsize>::default();
        (Self { orders, passed: Arc::clone(&passed), wakeup }, Letters { orders: taken, passed })
    }

    /// An order of the control room: there is at most one of a kind for each thing that it did.
    pub(super) fn order(&self, order: Order) {
        // A lane that has ended was heard of.
        let _ = self.orders.send(order);
        self.wakeup.wake_by_ref();
    }

    /// Passes something on, if no more than so much waits; false: it was dropped.
    pub(super) fn pass(&self, what: OwnedPass, most: usize) -> bool {
        if self.passed.load(Ordering::Relaxed) >= most {
            return false;
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
        self.order(Order::Passed(what));
        true
    }

    pub(super) fn is_busy(&self) -> bool {
        self.passed.load(Ordering::Relaxed) > INBOX_CALM
    }
}

impl Letters {
    /// The next order, and whether somebody may have waited for this lane and need not any more.
    pub(super) fn next(&self) -> Option<(Order, bool)> {
        let order = self.orders.try_recv().ok()?;
        let is_passed = matches!(order, Order::Passed(_));
        let calm = is_passed && self.passed.fetch_sub(1, Ordering::Relaxed) == INBOX_CALM + 1;
        Some((order, calm))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }
}

/// How lanes speak to the control room.
#[derive(Clone)]
pub(super) struct Mouth {
    words: flume::Sender<(u8, Word)>,
    shared: Arc<Shared>,
}

struct Shared {
    bell: Box<dyn Fn() + Send + Sync>,
    rung: AtomicBool,
    /// Words that nothing else bounds.
    waiting: AtomicUsize,
}

impl Mouth {
    pub(super) fn new(bell: Box<dyn Fn() + Send + Sync>) -> (Self, flume::Receiver<(u8, Word)>) {
        let (words, heard) = flume::unbounded();
        let shared = Shared { bell, rung: AtomicBool::new(false), waiting: AtomicUsize::new(0) };
        (Self { words, shared: Arc::new(shared) }, heard)
    }

    /// Says something; false when too much waits, and it was dropped.
    pub(super) fn say(&self, lane: u8, word: Word) -> bool {
        let most = match word {
            Word::Punt(..) | Word::Stray(..) | Word::Report(_) => INBOX,
            Word::Passed(_) => PASSED,
            // bounded by credit; once a second; once
            Word::Record(..) | Word::Counted(_) | Word::Gone(_) => usize::MAX,
        };
        if most < usize::MAX {
            if self.shared.waiting.load(Ordering::Relaxed) >= most {
                return false;
            }
            self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        }
        // A control room that has ended wants no word.
        let _ = self.words.send((lane, word));
        self.ring();
        true
    }

    /// Has the control room hear.
    pub(super) fn ring(&self) {
        if !self.shared.rung.swap(true, Ordering::AcqRel) {
            (self.shared.bell)();
        }
    }

    /// The control room hears; what is said from now on rings again.
    pub(super) fn heard(&self) {
        self.shared.rung.store(false, Ordering::Release);
    }

    pub(super) fn took(&self, word: &Word) {
        if matches!(word, Word::Punt(..) | Word::Stray(..) | Word::Report(_) | Word::Passed(_)) {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::poll::Poll;

    fn packet() -> OwnedPass {
        OwnedPass::Packet(Offload::default(), vec![0x45])
    }

    #[test]
    fn what_is_passed_on_has_a_bound_and_orders_have_none() {
        let poll = Poll::new().expect("epoll");
        let (mailbox, letters) = Mailbox::new(Wakeup::new(&poll).expect("an eventfd"));
        for _ in 0..PASSED {
            assert!(mailbox.pass(packet(), PASSED));
        }
        assert!(mailbox.is_busy() && !mailbox.pass(packet(), PASSED), "no more than that");
        mailbox.order(Order::EndFlow(ConnId(1)));
        assert!(mailbox.pass(packet(), usize::MAX), "what came over a stream is taken, and its reader waits");
        let mut calm_at = Vec::new();
        for taken in 0..PASSED + 2 {
            let (order, calm) = letters.next().expect("an order");
            assert_eq!(matches!(order, Order::Passed(_)), taken != PASSED, "in the order in which they were given");
            calm_at.extend(calm.then_some(taken));
        }
        assert!(letters.is_empty() && !mailbox.is_busy());
        assert_eq!(calm_at, [PASSED - INBOX_CALM], "the reader hears once that it may go on");
    }

    #[test]
    fn the_control_room_is_rung_for_once_until_it_hears_and_words_without_other_bounds_have_one() {
        let rings = Arc::<AtomicUsize>::default();
        let bell = Arc::clone(&rings);
        let (mouth, words) = Mouth::new(Box::new(move || {
            bell.fetch_add(1, Ordering::Relaxed);
        }));
        let stray = || Word::Stray(SocketAddr::from(([192, 0, 2, 1], 1)), vec![1]);
        for _ in 0..INBOX {
            assert!(mouth.say(1, stray()));
        }
        assert!(!mouth.say(2, stray()) && !mouth.say(2, Word::Passed(packet())));
        assert!(mouth.say(2, Word::Gone("over".to_owned())), "that is always heard");
        assert_eq!(rings.load(Ordering::Relaxed), 1);
        mouth.heard();
        for (lane, word) in words.try_iter() {
            assert_eq!(lane == 2, matches!(word, Word::Gone(_)));
            mouth.took(&word);
        }
        assert!(mouth.say(2, Word::Passed(packet())));
        assert_eq!(rings.load(Ordering::Relaxed), 2);
    }
}
