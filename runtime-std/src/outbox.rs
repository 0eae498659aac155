//! What waits for one connection's writer: whole messages in order, records gathered into messages on the way.
use crate::room::Next;
use std::collections::VecDeque;

/// Bytes that the data plane may have waiting; beyond, it holds frames back where they can still be re-ordered or dropped.
pub(crate) const ROOM_BYTES: usize = 64 * 1024;

/// Bytes of records that go into one message: with its header it is one record of TLS (RFC 8446 §5.1: at most 2^14 bytes).
const GATHER_BYTES: usize = 16 * 1024 - 8;

/// Bytes that control messages may make wait; a connection that takes nothing for so long is dead.
const WAITING_BYTES: usize = 1024 * 1024;

enum Item {
    /// A message of its own.
    Message(Vec<u8>),
    /// Records; more may be appended while this is the last item.
    Records(Vec<u8>),
}

/// The queue between a machine and one writer. Whoever adds to it wakes the writer.
#[derive(Default)]
pub(crate) struct Outbox {
    items: VecDeque<Item>,
    /// Bytes in `items` and in the message that the writer has in hand.
    waiting: usize,
    finished: bool,
}

impl Outbox {
    /// Bytes that the data plane can add now.
    pub(crate) fn room(&self) -> usize {
        if self.finished { 0 } else { ROOM_BYTES.saturating_sub(self.waiting) }
    }

    /// Adds a message of its own; false when too much waits already.
    pub(crate) fn message(&mut self, bytes: Vec<u8>) -> bool {
        if self.waiting + bytes.len() > WAITING_BYTES {
            return false;
        }
        self.waiting += bytes.len();
        self.items.push_back(Item::Message(bytes));
        true
    }

    /// Adds one record behind what waits.
    pub(crate) fn record(&mut self, header: &[u8], payload: &[u8]) {
        let len = header.len() + payload.len();
        self.waiting += len;
        if !matches!(self.items.back(), Some(Item::Records(r)) if r.len() + len <= GATHER_BYTES) {
            let room = Vec::with_capacity(GATHER_BYTES.max(len));
            self.items.push_back(Item::Records(room));
        }
        if let Some(Item::Records(records)) = self.items.back_mut() {
            records.extend_from_slice(header);
            records.extend_from_slice(payload);
        }
    }

    /// Nothing more will be added: the writer sends what waits and says good-bye.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether it has been finished.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// What the writer does next.
    pub(crate) fn next(&mut self) -> Next {
        match self.items.pop_front() {
            Some(Item::Message(bytes) | Item::Records(bytes)) => Next::Send(bytes),
            None if self.finished => Next::Close,
            None => Next::Wait,
        }
    }

    /// The message that `next` gave has been handed over.
    pub(crate) fn sent(&mut self, len: usize) {
        self.waiting -= len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(outbox: &mut Outbox) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Next::Send(bytes) = outbox.next() {
            outbox.sent(bytes.len());
            all.push(bytes);
        }
        all
    }

    #[test]
    fn records_gather_messages_stand_alone_and_order_is_kept() {
        let mut outbox = Outbox::default();
        outbox.record(b"h1", b"one");
        outbox.record(b"h2", b"two");
        assert!(outbox.message(b"bare".to_vec()));
        outbox.record(b"h3", b"three");
        assert_eq!(sends(&mut outbox), [&b"h1oneh2two"[..], b"bare", b"h3three"]);
        assert_eq!(outbox.room(), ROOM_BYTES);
    }

    #[test]
    fn a_gathered_message_ends_before_16_kib() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.record(&[0; 8], &[0; 7000]);
        }
        let lengths: Vec<usize> = sends(&mut outbox).iter().map(Vec::len).collect();
        assert_eq!(lengths, [14_016, 7008]);
    }

    #[test]
    fn room_counts_what_the_writer_has_in_hand() {
        let mut outbox = Outbox::default();
        outbox.record(&[0; 8], &[0; 1000]);
        let Next::Send(bytes) = outbox.next() else {
            panic!("a message waits");
        };
        assert_eq!(outbox.room(), ROOM_BYTES - 1008);
        outbox.sent(bytes.len());
        assert_eq!(outbox.room(), ROOM_BYTES);
    }

    #[test]
    fn a_connection_that_takes_nothing_is_given_up_at_one_mebibyte() {
        let mut outbox = Outbox::default();
        for _ in 0..16 {
            assert!(outbox.message(vec![0; 64 * 1024]));
        }
        assert!(!outbox.message(vec![0; 1]));
        assert_eq!(outbox.room(), 0);
    }

    #[test]
    fn the_end_comes_behind_what_waits() {
        let mut outbox = Outbox::default();
        assert!(matches!(outbox.next(), Next::Wait));
        outbox.record(b"", b"last");
        outbox.finish();
        assert_eq!(outbox.room(), 0);
        assert!(matches!(outbox.next(), Next::Send(bytes) if bytes == b"last"));
        assert!(matches!(outbox.next(), Next::Close));
    }
}
