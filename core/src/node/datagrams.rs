//! Datagrams of a node: what comes from an address that is nobody's flow, and what relays tell of our own (protocol 8.1).
use super::{Node, Source, uplink::Uplink};
use crate::{
    drops::Drop,
    path::candidate::Mapped,
    time::Instant,
    wire::{Bound, FrameHeader, LANE_NODE, PathHeader, TYPE_BOUND, TYPE_COOKIE_REPLY, TYPE_FRAG, TYPE_FRAME, TYPE_OPENER},
};
use core::net::SocketAddr;

impl Node {
    /// A datagram of nobody's flow.
    pub(super) fn datagram(&mut self, now: Instant, remote: SocketAddr, bytes: &mut [u8]) {
        if bytes.first() != Some(&TYPE_FRAME) {
            self.flow_message(now, Source { remote, own_flow: None }, bytes);
            return;
        }
        let Some(header) = self.control_frame(bytes) else { return };
        let peer = self.room.sids.get(&header.receiver).copied();
        match peer.and_then(|peer| self.links.get_mut(&peer)) {
            Some(link) => link.stray_frame(now, &mut self.room, header, remote, bytes),
            None => self.room.drops.count(Drop::UnknownSession),
        }
    }

    /// What is no sealed frame, from any address. A message of the re-handshake tells by its session whose it is, since an address
    /// proves nothing.
    pub(super) fn flow_message(&mut self, now: Instant, source: Source, bytes: &[u8]) {
        if bytes.first() == Some(&TYPE_OPENER) {
            // it was meant for a NAT on the way
            return;
        }
        if bytes.first() == Some(&TYPE_BOUND) {
            self.bound(now, source.remote, bytes);
            return;
        }
        if let Some(&(TYPE_FRAG | TYPE_COOKIE_REPLY)) = bytes.first().filter(|_| self.room.config.direct.udp) {
            self.called(now, source, bytes);
            return;
        }
        let Ok(header) = PathHeader::parse(bytes) else {
            self.room.drops.count(if bytes.is_empty() { Drop::Malformed } else { Drop::Unexpected });
            return;
        };
        let peer = self.room.sids.get(&header.receiver).copied();
        match peer.and_then(|peer| self.links.get_mut(&peer)) {
            Some(link) => link.path_datagram(now, &mut self.room, source, bytes),
            None => self.room.drops.count(Drop::UnknownSession),
        }
    }

    /// The header of a sealed frame of the control room's own lane.
    pub(super) fn control_frame(&mut self, bytes: &[u8]) -> Option<FrameHeader> {
        let reason = match FrameHeader::parse(bytes) {
            Ok(header) if header.counter.lane() == LANE_NODE => return Some(header),
            Ok(_) => Drop::Unexpected,
            Err(_) => Drop::Malformed,
        };
        self.room.drops.count(reason);
        None
    }

    /// A relay tells where it sees our datagrams come from (protocol 8.1).
    fn bound(&mut self, now: Instant, remote: SocketAddr, bytes: &[u8]) {
        let Ok(Bound { receiver, .. }) = Bound::parse(bytes) else {
            self.room.drops.count(Drop::Malformed);
            return;
        };
        let taken = self.uplinks.iter_mut().find_map(|uplink| uplink.bound(now, &mut self.room, receiver, remote, bytes));
        match taken.unwrap_or(Err(Drop::UnknownSession)) {
            Ok(true) => self.refresh_surroundings(now),
            Ok(false) => {}
            Err(reason) => self.room.drops.count(reason),
        }
    }

    /// Our UDP addresses as relays see them.
    pub(super) fn reflexive(&self) -> Vec<Mapped> {
        let mut all: Vec<_> = self.uplinks.iter().filter_map(Uplink::mapped).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(super) fn ask_for_reflexive(&mut self, now: Instant) {
        for uplink in &mut self.uplinks {
            uplink.ask_anew(now, &self.room);
        }
    }

    /// A path by UDP died: relays may see us elsewhere by now, and the other end has to learn where (protocol 8.1).
    pub(super) fn doubt_reflexive(&mut self, now: Instant) {
        if self.room.take_udp_doubt() {
            for uplink in &mut self.uplinks {
                uplink.doubt_reflexive(now);
            }
        }
    }
}
