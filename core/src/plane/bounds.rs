//! What a plane holds, beside the most that it may.
use super::{Plane, ring};
use crate::bound::Bound;
use core::sync::atomic::Ordering;

impl Plane {
    /// Each queue, table and buffer of this plane with its bound: for tests and for the curious, never for decisions.
    pub fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        for peer in self.peers.values() {
            peer.queue.bounds(each);
        }
        for session in self.sessions.values() {
            session.tx.bounds(each);
            session.rx.bounds(each);
            session.pieces.bounds(each);
        }
        let slabs = self.pool.load(Ordering::Relaxed);
        // each lane has its first slab whatever the others hold, and shards that take one at the same moment know nothing of each other
        let lanes = usize::from(self.place.lanes);
        each(Bound::new("slabs of all lanes", slabs, ring::POOL_BYTES / ring::SLAB_BYTES + lanes * (self.sessions.len() + 1) - 1));
        each(Bound::new("timers of sessions", self.timers.len(), self.sessions.len()));
        each(Bound::new("links that wait for room", self.waiting.len(), self.peers.len()));
    }
}
