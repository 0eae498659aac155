//! What the data plane writes to: connections, the interface, and the inbox of the control room.
use super::{
    PeerDoors,
    capture::Direction,
    flows::Flows,
    inbox::{Inbox, Pending},
    lanes::{Lanes, Outlet},
};
use crate::outbox::Outbox;
use shadowmesh_core::{
    id::{ConnId, Handle},
    offload::{Checksum, Offload},
    plane::{Passed, Report, Sink, Via},
    wire::{TYPE_FWD, record_header},
};
use std::{collections::BTreeMap, net::SocketAddr};

/// What this end dropped for want of room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drops {
    /// Messages that the control room had no room for.
    pub(super) inbox_full: u64,
}

/// The plane's sink.
pub(super) struct Ports<D> {
    pub(super) outboxes: BTreeMap<ConnId, Outbox>,
    pub(super) flows: Flows,
    pub(super) inbox: Inbox,
    pub(super) drops: Drops,
    pub(super) doors: D,
    pub(super) outlet: Outlet,
    pub(super) lanes: Lanes,
}

impl<D: PeerDoors> Ports<D> {
    pub(super) fn new(doors: D, layer2: bool, lanes: Lanes) -> Self {
        let outlet = Outlet::new(layer2, doors.joins());
        Self { outboxes: BTreeMap::new(), flows: Flows::default(), inbox: Inbox::default(), drops: Drops::default(), doors, outlet, lanes }
    }

    /// A packet passes the interface: who captures gets a copy.
    pub(super) fn see(&mut self, direction: Direction, offload: Offload, packet: &[u8]) {
        self.outlet.see(direction, offload, packet);
    }

    /// A batch begins: what goes to flows and to the interface may wait for [`Ports::release`].
    pub(super) fn gather(&mut self) {
        self.flows.gather();
    }

    /// Sends one datagram, in a flow or to an address.
    pub(super) fn send_datagram(&mut self, to: Result<ConnId, SocketAddr>, bytes: &[u8]) {
        match to {
            Ok(conn) => self.flows.send(conn, bytes),
            Err(remote) => self.flows.send_to(remote, bytes),
        }
        self.await_room();
    }

    /// Sends what was gathered.
    pub(super) fn release(&mut self) {
        let doors = &mut self.doors;
        self.outlet.flush(None, &mut |offload, packet| doors.deliver(offload, packet));
        self.flows.release();
        self.await_room();
    }

    /// Writes a packet of the program's own to the interface.
    pub(super) fn hand_in(&mut self, packet: &[u8]) {
        let doors = &mut self.doors;
        self.outlet.flush(Some(packet), &mut |offload, packet| doors.deliver(offload, packet));
    }

    /// Has somebody wait for sockets that have no room.
    pub(super) fn await_room(&mut self) {
        while let Some(number) = self.flows.full.pop() {
            self.doors.await_datagram_room(number);
        }
    }

    /// A flow begins.
    pub(super) fn open_flow(&mut self, conn: ConnId, remote: SocketAddr) {
        self.flows.add(conn, remote);
        self.lanes.flow(conn, remote, None);
    }

    /// A flow begins with a socket of its own. Without one, it is a flow that loses all.
    pub(super) fn open_own_flow(&mut self, conn: ConnId, remote: SocketAddr) {
        let opened = self.flows.add_own(conn, remote).and_then(|number| match self.flows.socket(number) {
            Some(socket) => {
                self.lanes.flow(conn, remote, Some((number, socket)));
                self.doors.watch_datagrams(number, socket)
            }
            None => Ok(()),
        });
        if let Err(why) = opened {
            tracing::debug!(%why, "no socket of its own for a flow");
        }
    }

    pub(super) fn close_flow(&mut self, conn: ConnId) {
        let own = self.flows.remove(conn);
        self.lanes.end_flow(conn);
        self.await_room();
        if let Some(number) = own {
            self.doors.unwatch_datagrams(number);
        }
    }

    /// A connection stands.
    pub(super) fn attach(&mut self, conn: ConnId) {
        self.outboxes.insert(conn, Outbox::default());
        self.lanes.stream(conn, true);
    }

    /// A connection is no more; true when it was there.
    pub(super) fn detach(&mut self, conn: ConnId) -> bool {
        self.lanes.stream(conn, false);
        self.outboxes.remove(&conn).is_some()
    }

    /// A connection may have room: lanes that it owes to hear of it.
    pub(super) fn pay(&mut self, conn: ConnId) {
        if self.room(conn) > 0 {
            self.lanes.pay(conn);
        }
    }

    /// Puts an event of the driver's own into the inbox; there is at most one of a kind for each connection or job.
    pub(super) fn post(&mut self, event: Pending) {
        self.inbox.push(event);
        self.doors.ring();
    }

    /// Whether readers should wait for the control room.
    pub(super) fn is_busy(&self) -> bool {
        self.inbox.is_busy() || self.lanes.is_busy()
    }

    /// Lets the writer of a connection send what waits, and then no more.
    pub(super) fn finish(&mut self, conn: ConnId) -> bool {
        self.doors.hang_up(conn);
        let Some(outbox) = self.outboxes.get_mut(&conn) else {
            return false;
        };
        outbox.finish();
        self.lanes.stream(conn, false);
        self.doors.wake(conn);
        true
    }

    /// Puts what came from outside into the inbox, while there is room.
    fn offer(&mut self, event: Pending) {
        if self.inbox.has_room() {
            self.post(event);
        } else {
            self.drops.inbox_full += 1;
        }
    }
}

impl<D: PeerDoors> Sink for Ports<D> {
    fn room(&self, conn: ConnId) -> usize {
        if conn.is_flow() { self.flows.room(conn) } else { self.outboxes.get(&conn).map_or(0, Outbox::room) }
    }

    fn send(&mut self, via: Via, frame: &[u8]) {
        if via.conn.is_flow() {
            self.send_datagram(Ok(via.conn), frame);
            return;
        }
        let outbox = self.outboxes.get_mut(&via.conn).filter(|outbox| !outbox.is_finished());
        let (Some(outbox), Ok(len)) = (outbox, u16::try_from(frame.len())) else {
            return; // gone since the plane asked for room: the frame stays in its ring
        };
        // protocol 9; on a direct connection the handle is 0
        let header = record_header(TYPE_FWD, 0, via.handle.unwrap_or(Handle(0)), len);
        outbox.record(&header, frame);
        self.doors.wake(via.conn);
    }

    fn deliver(&mut self, packet: &[u8], checksum: Checksum) {
        let (doors, gathering) = (&mut self.doors, self.flows.is_gathering());
        self.outlet.add(packet, checksum, gathering, &mut |offload, packet| doors.deliver(offload, packet));
    }

    fn punt(&mut self, conn: ConnId, handle: Option<Handle>, bytes: &mut [u8]) {
        let bytes = bytes.to_vec();
        self.offer(Pending::Message { conn, handle, bytes });
    }

    fn report(&mut self, report: Report) {
        self.offer(Pending::Report(report));
    }

    fn stray(&mut self, remote: SocketAddr, bytes: &mut [u8]) {
        let bytes = bytes.to_vec();
        self.offer(Pending::Datagram { remote, bytes });
    }

    fn pass(&mut self, lane: u8, what: Passed<'_>) {
        self.lanes.pass(lane, what);
    }
}
