//! What the plane of a peer in this world writes to.
use super::{Outbox, Pending};
use shadowmesh_core::{
    id::{ConnId, Handle},
    offload::Checksum,
    plane::{Report, Sink, Via},
    wire::{TYPE_FWD, record_header},
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

/// Bytes that a flow of datagrams takes at once.
const FLOW_ROOM: usize = 64 * 1024;

/// What the plane writes to.
#[derive(Default)]
pub(super) struct Ports {
    pub(super) outboxes: BTreeMap<ConnId, Outbox>,
    pub(super) inbox: VecDeque<Pending>,
    pub(super) delivered: Vec<Vec<u8>>,
    /// Far ends of the flows of datagrams, and the ports of those with a socket of their own.
    pub(super) flows: BTreeMap<ConnId, (SocketAddr, Option<u16>)>,
    /// Datagrams on their way out of this process: from a port of a flow, to an address.
    pub(super) datagrams: VecDeque<(Option<u16>, SocketAddr, Vec<u8>)>,
}

impl Sink for Ports {
    fn room(&self, conn: ConnId) -> usize {
        if conn.is_flow() {
            return if self.flows.contains_key(&conn) { FLOW_ROOM } else { 0 };
        }
        self.outboxes.get(&conn).map_or(0, Outbox::room)
    }
    fn send(&mut self, via: Via, frame: &[u8]) {
        if let Some((remote, own)) = self.flows.get(&via.conn) {
            self.datagrams.push_back((*own, *remote, frame.to_vec()));
            return;
        }
        if let (Some(outbox), Ok(len)) = (self.outboxes.get_mut(&via.conn), u16::try_from(frame.len())) {
            outbox.record(&record_header(TYPE_FWD, 0, via.handle.unwrap_or(Handle(0)), len), frame);
        }
    }
    fn deliver(&mut self, packet: &[u8], _checksum: Checksum) {
        self.delivered.push(packet.to_vec());
    }
    fn punt(&mut self, conn: ConnId, handle: Option<Handle>, bytes: &mut [u8]) {
        self.inbox.push_back(Pending::Message { conn, handle, bytes: bytes.to_vec() });
    }
    fn report(&mut self, report: Report) {
        self.inbox.push_back(Pending::Report(report));
    }
    fn stray(&mut self, remote: SocketAddr, bytes: &mut [u8]) {
        self.inbox.push_back(Pending::Datagram { remote, bytes: bytes.to_vec() });
    }
}
