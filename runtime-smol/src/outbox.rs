//! What waits for one connection's writer: whole messages in order, records gathered into messages on the way.
use crate::bell::Bell;
use std::{cell::RefCell, collections::VecDeque, rc::Rc};

/// Bytes that the data plane may have waiting; beyond, it holds frames back where they can still be re-ordered or dropped.
pub(crate) const ROOM_BYTES: usize = 64 * 1024;

/// Bytes of records that go into one message: large enough to save calls, small enough to go out at once.
const GATHER_BYTES: usize = 16 * 1024;

/// Bytes that control messages may make wait; a connection that takes nothing for so long is dead.
const WAITING_BYTES: usize = 1024 * 1024;

enum Item {
    /// A message of its own.
    Message(Vec<u8>),
    /// Records; more may be appended while this is the last item.
    Records(Vec<u8>),
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    /// Bytes in `items` and in the message that the writer has in hand.
    waiting: usize,
    closing: bool,
}

/// The queue between a machine and one writer; clones are the same queue.
#[derive(Clone, Default)]
pub(crate) struct Outbox {
    inner: Rc<RefCell<Inner>>,
    bell: Bell,
}

/// What a writer does next.
pub(crate) enum Next {
    /// Send this and then call `sent`.
    Send(Vec<u8>),
    /// Say good-bye: nothing more will come.
    Close,
}

impl Outbox {
    /// Bytes that the data plane can add now.
    pub(crate) fn room(&self) -> usize {
        ROOM_BYTES.saturating_sub(self.inner.borrow().waiting)
    }

    /// Adds a message of its own; false when too much waits already.
    pub(crate) fn message(&self, bytes: Vec<u8>) -> bool {
        let mut inner = self.inner.borrow_mut();
        if inner.waiting + bytes.len() > WAITING_BYTES {
            return false;
        }
        inner.waiting += bytes.len();
        inner.items.push_back(Item::Message(bytes));
        drop(inner);
        self.bell.ring();
        true
    }

    /// Adds one record behind what waits.
    pub(crate) fn record(&self, header: &[u8], payload: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        let len = header.len() + payload.len();
        inner.waiting += len;
        if !matches!(inner.items.back(), Some(Item::Records(r)) if r.len() + len <= GATHER_BYTES) {
            let room = Vec::with_capacity(GATHER_BYTES.max(len));
            inner.items.push_back(Item::Records(room));
        }
        if let Some(Item::Records(records)) = inner.items.back_mut() {
            records.extend_from_slice(header);
            records.extend_from_slice(payload);
        }
        drop(inner);
        self.bell.ring();
    }

    /// Nothing more will be added: the writer sends what waits and says good-bye.
    pub(crate) fn finish(&self) {
        self.inner.borrow_mut().closing = true;
        self.bell.ring();
    }

    /// Waits for the writer's next task.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.bell.wait().await;
        }
    }

    /// The message that `next` gave has been handed over.
    pub(crate) fn sent(&self, len: usize) {
        self.inner.borrow_mut().waiting -= len;
    }

    fn take(&self) -> Option<Next> {
        let mut inner = self.inner.borrow_mut();
        match inner.items.pop_front() {
            Some(Item::Message(bytes) | Item::Records(bytes)) => Some(Next::Send(bytes)),
            None => inner.closing.then_some(Next::Close),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(outbox: &Outbox) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(Next::Send(bytes)) = outbox.take() {
            outbox.sent(bytes.len());
            all.push(bytes);
        }
        all
    }

    #[test]
    fn records_gather_messages_stand_alone_and_order_is_kept() {
        let outbox = Outbox::default();
        outbox.record(b"h1", b"one");
        outbox.record(b"h2", b"two");
        assert!(outbox.message(b"bare".to_vec()));
        outbox.record(b"h3", b"three");
        assert_eq!(sends(&outbox), [&b"h1oneh2two"[..], b"bare", b"h3three"]);
        assert_eq!(outbox.room(), ROOM_BYTES);
    }

    #[test]
    fn a_gathered_message_ends_before_16_kib() {
        let outbox = Outbox::default();
        for _ in 0..3 {
            outbox.record(&[0; 8], &[0; 7000]);
        }
        let lengths: Vec<usize> = sends(&outbox).iter().map(Vec::len).collect();
        assert_eq!(lengths, [14_016, 7008]);
    }

    #[test]
    fn room_counts_what_the_writer_has_in_hand() {
        let outbox = Outbox::default();
        outbox.record(&[0; 8], &[0; 1000]);
        let Some(Next::Send(bytes)) = outbox.take() else {
            panic!("a message waits");
        };
        assert_eq!(outbox.room(), ROOM_BYTES - 1008);
        outbox.sent(bytes.len());
        assert_eq!(outbox.room(), ROOM_BYTES);
    }

    #[test]
    fn a_connection_that_takes_nothing_is_given_up_at_one_mebibyte() {
        let outbox = Outbox::default();
        for _ in 0..16 {
            assert!(outbox.message(vec![0; 64 * 1024]));
        }
        assert!(!outbox.message(vec![0; 1]));
        assert_eq!(outbox.room(), 0);
    }

    #[test]
    fn the_end_comes_behind_what_waits() {
        let outbox = Outbox::default();
        outbox.record(b"", b"last");
        outbox.finish();
        assert!(matches!(smol::block_on(outbox.next()), Next::Send(bytes) if bytes == b"last"));
        assert!(matches!(smol::block_on(outbox.next()), Next::Close));
    }
}
