//! What a node holds, beside the most that it may.
use super::{ACCEPTED_MAX, LINKS_MAX, Node, Use};
use crate::bound::Bound;

impl Node {
    /// Each queue, table and buffer of this node with its bound: for tests and for the curious, never for decisions.
    pub fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("links", self.links.len(), LINKS_MAX));
        let accepted = self.room.conns.values().filter(|used| matches!(used, Use::Accepted { .. })).count();
        each(Bound::new("accepted connections that proved nothing", accepted, ACCEPTED_MAX));
        self.room.bounds(each);
        self.answers.bounds(each);
        self.callers.bounds(each);
        for uplink in &self.uplinks {
            uplink.bounds(each);
        }
        for link in self.links.values() {
            link.bounds(each);
        }
    }
}
