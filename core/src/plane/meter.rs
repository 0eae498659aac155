//! Bytes that cross the doors, counted where they do.
use super::{Passed, Report, Sink, Via};
use crate::{
    id::{ConnId, Handle},
    offload::Checksum,
};
use core::net::SocketAddr;

/// Bytes that crossed the doors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PlaneBytes {
    pub(crate) interface_rx: u64,
    pub(crate) interface_tx: u64,
    pub(crate) relay_rx: u64,
    pub(crate) relay_tx: u64,
    pub(crate) direct_rx: u64,
    pub(crate) direct_tx: u64,
    pub(crate) udp_rx: u64,
    pub(crate) udp_tx: u64,
    pub(crate) relay_udp_rx: u64,
    pub(crate) relay_udp_tx: u64,
}

impl PlaneBytes {
    /// Adds what another shard counted.
    pub(super) fn add(&mut self, other: &Self) {
        let Self { interface_rx, interface_tx, relay_rx, relay_tx, direct_rx, direct_tx, udp_rx, udp_tx, relay_udp_rx, relay_udp_tx } =
            other;
        self.interface_rx += interface_rx;
        self.interface_tx += interface_tx;
        self.relay_rx += relay_rx;
        self.relay_tx += relay_tx;
        self.direct_rx += direct_rx;
        self.direct_tx += direct_tx;
        self.udp_rx += udp_rx;
        self.udp_tx += udp_tx;
        self.relay_udp_rx += relay_udp_rx;
        self.relay_udp_tx += relay_udp_tx;
    }

    /// A frame came this way, or goes it.
    pub(super) fn count(&mut self, via: Via, came: bool, len: usize) {
        let cell = match (via.handle, via.conn.is_flow(), came) {
            (Some(_), _, true) => &mut self.relay_rx,
            (Some(_), _, false) => &mut self.relay_tx,
            (None, true, true) if via.conn.is_passed_on() => &mut self.relay_udp_rx,
            (None, true, false) if via.conn.is_passed_on() => &mut self.relay_udp_tx,
            (None, true, true) => &mut self.udp_rx,
            (None, true, false) => &mut self.udp_tx,
            (None, false, true) => &mut self.direct_rx,
            (None, false, false) => &mut self.direct_tx,
        };
        *cell += len as u64;
    }
}

/// Counts what goes to the pump's sink.
pub(super) struct Metered<'a> {
    pub(super) sink: &'a mut dyn Sink,
    pub(super) bytes: &'a mut PlaneBytes,
}

impl Sink for Metered<'_> {
    fn room(&self, conn: ConnId) -> usize {
        self.sink.room(conn)
    }
    fn send(&mut self, via: Via, frame: &[u8]) {
        self.bytes.count(via, false, frame.len());
        self.sink.send(via, frame);
    }
    fn deliver(&mut self, packet: &[u8], checksum: Checksum) {
        self.bytes.interface_tx += packet.len() as u64;
        self.sink.deliver(packet, checksum);
    }
    fn punt(&mut self, conn: ConnId, handle: Option<Handle>, bytes: &mut [u8]) {
        self.sink.punt(conn, handle, bytes);
    }
    fn report(&mut self, report: Report) {
        self.sink.report(report);
    }
    fn stray(&mut self, remote: SocketAddr, bytes: &mut [u8]) {
        self.sink.stray(remote, bytes);
    }
    fn pass(&mut self, lane: u8, what: Passed<'_>) {
        self.sink.pass(lane, what);
    }
}
