//! Datagrams that the relay passes on between its clients as they are (protocol 8.8).
//!
//! ```text
//!   source address ─▶ whose it is (ATTACH) ─▶ limits ─▶ receiver ─▶ who that is (ROUTE) ─▶ where he is (ATTACH)
//! ```
//! A frame and a message of the re-handshake say in their header for which session they are. That number is of the other end's choice, so
//! each client tells whom it means by it. Nothing is written before the datagram or changed in it: a run that the kernel joined is sent on
//! as a run.
use super::{Forwarder, drops::Reason};
use crate::{
    bound,
    id::{ConnId, Handle},
    time::Instant,
    wire::{TYPE_FRAME, TYPE_PATH_CMP, TYPE_PATH_REQ, TYPE_PATH_RSP, addr::canonical},
};
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// Receivers that one client may name: twice as many peers as anybody speaks to at one time over a relay.
pub(super) const ROUTES_MAX: usize = 1_024;

/// What one client said of its datagrams.
#[derive(Default)]
pub(super) struct Passage {
    address: Option<SocketAddr>,
    routes: BTreeMap<u32, Handle>,
}

impl Passage {
    /// What is kept here, beside the most.
    pub(super) fn bounds(&self, each: &mut dyn FnMut(bound::Bound)) {
        each(bound::Bound::new("receivers that a client has named", self.routes.len(), ROUTES_MAX));
    }
}

/// The client behind each address, by its place in the forwarder.
#[derive(Default)]
pub(super) struct Places(BTreeMap<SocketAddr, usize>);

impl Places {
    /// The client at this place is gone.
    pub(super) fn leave(&mut self, at: usize, passage: &Passage) {
        if let Some(address) = passage.address
            && self.0.get(&address) == Some(&at)
        {
            self.0.remove(&address);
        }
    }
}

/// The receiver that a datagram names, if it is one that a relay passes on; all others are its own.
pub fn receiver_of(datagram: &[u8]) -> Option<u32> {
    match datagram {
        [TYPE_FRAME | TYPE_PATH_REQ | TYPE_PATH_RSP | TYPE_PATH_CMP, _, _, _, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

impl Forwarder {
    /// Where so many datagrams with one receiver and of so many bytes in all are to go; `None`: nowhere, and that was counted.
    pub fn pass(&mut self, now: Instant, from: SocketAddr, receiver: u32, count: usize, bytes: usize) -> Option<SocketAddr> {
        match self.passed(now, from, receiver, count as u64, bytes as u64) {
            Ok(to) => Some(to),
            Err(reason) => {
                self.drops.add(reason, count as u64);
                None
            }
        }
    }

    /// The network did not take so many of those that were to go.
    pub fn lost(&mut self, count: usize) {
        self.drops.add(Reason::DatagramLost, count as u64);
    }

    fn passed(&mut self, now: Instant, from: SocketAddr, receiver: u32, count: u64, bytes: u64) -> Result<SocketAddr, Reason> {
        let at = self.places.0.get(&canonical(from)).copied().ok_or(Reason::UnknownSource)?;
        if bytes > count.saturating_mul(self.frame_bytes as u64) {
            return Err(Reason::FrameTooBig);
        }
        self.charge(now, at, count, bytes)?;
        let source = self.port(at);
        let route = source.passage.as_ref().and_then(|passage| passage.routes.get(&receiver));
        let to = route.and_then(|handle| self.handles.get(handle)).copied().filter(|to| *to != at).ok_or(Reason::NoRoute)?;
        let network = source.member.map(|member| member.network);
        let port = self.port_mut(to);
        // protocol 2.3: only within one net_r
        let is_theirs = port.member.map(|member| member.network) == network;
        let address = port.passage.as_ref().and_then(|passage| passage.address).filter(|_| is_theirs).ok_or(Reason::NoRoute)?;
        port.status.tx_frames += count;
        port.status.tx_bytes += bytes;
        self.totals.tx_frames += count;
        self.totals.tx_bytes += bytes;
        self.forwarded_at = now;
        Ok(address)
    }

    /// A client has shown where its datagrams come from. Of two that share an address the newer has it.
    pub(super) fn attach(&mut self, conn: ConnId, address: SocketAddr) {
        let Some(at) = self.member_at(conn) else { return };
        if let Some(other) = self.places.0.insert(address, at).filter(|other| *other != at)
            && let Some(passage) = &mut self.port_mut(other).passage
        {
            passage.address = None;
        }
        let passage = self.port_mut(at).passage.get_or_insert_default();
        if let Some(old) = passage.address.replace(address).filter(|old| *old != address) {
            self.places.0.remove(&old);
        }
    }

    /// A client names who is meant by a receiver. What it named before for somebody who is gone makes room, as does a former receiver of the
    /// same one.
    pub(super) fn route(&mut self, conn: ConnId, receiver: u32, to: Handle) {
        let Some(at) = self.member_at(conn) else { return };
        let mut passage = self.port_mut(at).passage.take().unwrap_or_default();
        if passage.routes.len() >= ROUTES_MAX {
            passage.routes.retain(|_, handle| *handle != to && self.handles.contains_key(handle));
        }
        if passage.routes.len() < ROUTES_MAX || passage.routes.contains_key(&receiver) {
            passage.routes.insert(receiver, to);
        } else {
            self.drops.count(Reason::RouteTable);
        }
        self.port_mut(at).passage = Some(passage);
    }

    fn member_at(&self, conn: ConnId) -> Option<usize> {
        self.conns.get(&conn).copied().filter(|at| self.port(*at).member.is_some())
    }
}

#[cfg(test)]
#[path = "passage/tests.rs"]
mod tests;
