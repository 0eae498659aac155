//! What waits for one connection's writer, as runtime-smol's: whole messages in order, records gathered into messages.
use std::collections::VecDeque;

/// Bytes that the data plane may have waiting.
const ROOM_BYTES: usize = 64 * 1024;
/// Bytes of records that go into one message.
const GATHER_BYTES: usize = 16 * 1024;
/// Bytes that control messages may make wait; a connection that takes nothing for so long is dead.
const WAITING_BYTES: usize = 1024 * 1024;

/// One message; `gathers`: records may be appended while it is the last.
struct Item {
    bytes: Vec<u8>,
    gathers: bool,
}

/// The queue between a machine and one writer.
#[derive(Default)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    waiting: usize,
}

impl Outbox {
    /// Bytes that the data plane can add now.
    pub(super) fn room(&self) -> usize {
        ROOM_BYTES.saturating_sub(self.waiting)
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a message of its own; false when too much waits already.
    pub(super) fn message(&mut self, bytes: Vec<u8>) -> bool {
        if self.waiting + bytes.len() > WAITING_BYTES {
            return false;
        }
        self.waiting += bytes.len();
        self.items.push_back(Item { bytes, gathers: false });
        true
    }

    /// Adds one record behind what waits.
    pub(super) fn record(&mut self, header: &[u8], payload: &[u8]) {
        let len = header.len() + payload.len();
        self.waiting += len;
        match self.items.back_mut() {
            Some(last) if last.gathers && last.bytes.len() + len <= GATHER_BYTES => {
                last.bytes.extend_from_slice(header);
                last.bytes.extend_from_slice(payload);
            }
            Some(_) | None => self.items.push_back(Item { bytes: [header, payload].concat(), gathers: true }),
        }
    }

    /// The next message for the writer.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let item = self.items.pop_front()?;
        self.waiting -= item.bytes.len();
        Some(item.bytes)
    }
}
