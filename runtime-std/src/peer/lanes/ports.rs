//! What the shard of a lane writes to: its sockets, its way to the interface, the mailboxes of other lanes, and the control room.
use super::{
    Counted, Mailbox, Outlet, OwnedPass, Word,
    mail::{Mouth, PASSED},
};
use crate::{peer::flows::Flows, tun::Device};
use shadowmesh_core::{
    id::{ConnId, Handle},
    offload::Checksum,
    plane::{Passed, Report, Sink, Via},
    wire::RECORD_HEADER_LEN,
};
use std::{collections::BTreeMap, net::SocketAddr};

/// Bytes of one lane that may wait for a connection.
const STREAM_BYTES: usize = 32 * 1024;

/// The shard's sink.
pub(super) struct LanePorts {
    pub(super) number: u8,
    pub(super) device: Device,
    pub(super) outlet: Outlet,
    pub(super) flows: Flows,
    /// Connections, and bytes of ours that they have not taken.
    pub(super) streams: BTreeMap<ConnId, usize>,
    others: Vec<Mailbox>,
    mouth: Mouth,
    /// What another lane had no room for, and words that the control room had no room for.
    unpassed: u64,
}

impl LanePorts {
    pub(super) fn new(number: u8, device: Device, others: Vec<Mailbox>, mouth: Mouth) -> Self {
        // a TAP device has one lane
        let outlet = Outlet::new(false, device.joins());
        Self { number, device, outlet, flows: Flows::default(), streams: BTreeMap::new(), others, mouth, unpassed: 0 }
    }

    /// Sends and writes what was gathered.
    pub(super) fn release(&mut self) {
        let device = &self.device;
        self.outlet.flush(None, &mut |offload, packet| device.write(offload, packet));
        self.flows.release();
        // each socket is watched for room as it is
        self.flows.full.clear();
    }

    pub(super) fn say(&mut self, word: Word) {
        if !self.mouth.say(self.number, word) {
            self.unpassed += 1;
        }
    }

    /// Lets the control room read on.
    pub(super) fn ring(&self) {
        self.mouth.ring();
    }

    /// Adds what was counted here.
    pub(super) fn count(&self, counted: &mut Counted) {
        (counted.unwritten, counted.unsent, counted.unpassed) = (self.outlet.unwritten, self.flows.lost, self.unpassed);
    }
}

impl Sink for LanePorts {
    fn room(&self, conn: ConnId) -> usize {
        if conn.is_flow() {
            return self.flows.room(conn);
        }
        self.streams.get(&conn).map_or(0, |owed| STREAM_BYTES.saturating_sub(*owed))
    }

    fn send(&mut self, via: Via, frame: &[u8]) {
        if via.conn.is_flow() {
            self.flows.send(via.conn, frame);
            return;
        }
        // gone since the plane asked for room: the frame stays in its ring
        let Some(owed) = self.streams.get_mut(&via.conn) else { return };
        *owed += RECORD_HEADER_LEN + frame.len();
        self.say(Word::Record(via, frame.to_vec()));
    }

    fn deliver(&mut self, packet: &[u8], checksum: Checksum) {
        let device = &self.device;
        self.outlet.add(packet, checksum, self.flows.is_gathering(), &mut |offload, packet| device.write(offload, packet));
    }

    fn punt(&mut self, conn: ConnId, handle: Option<Handle>, bytes: &mut [u8]) {
        self.say(Word::Punt(conn, handle, bytes.to_vec()));
    }

    fn report(&mut self, report: Report) {
        self.say(Word::Report(report));
    }

    fn stray(&mut self, remote: SocketAddr, bytes: &mut [u8]) {
        self.say(Word::Stray(remote, bytes.to_vec()));
    }

    fn pass(&mut self, lane: u8, what: Passed<'_>) {
        let what = OwnedPass::of(what);
        let Some(at) = lane.checked_sub(1) else { return self.say(Word::Passed(what)) };
        let taken = self.others.get(usize::from(at)).is_some_and(|other| other.pass(what, PASSED));
        self.unpassed += u64::from(!taken);
    }
}
