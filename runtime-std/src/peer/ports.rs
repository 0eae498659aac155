//! What the data plane writes to: connections, the interface, and the inbox of the control room.
use super::{
    PeerDoors,
    capture::{Captures, Direction},
    flows::Flows,
    run,
};
use crate::{
    outbox::Outbox,
    room::{INBOX, INBOX_CALM},
};
use shadowmesh_core::{
    config::{Member, Tuning},
    event::{Ended, PortMapping},
    handshake::Done,
    id::{ConnId, Handle, PeerId},
    offload::{Checksum, Joiner, Joins, Offload, Segments},
    plane::{Report, Sink, Via},
    wire::{TYPE_FWD, record_header},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
};

/// An event that waits for the control room, owned.
pub(super) enum Pending {
    Closed { conn: ConnId, why: Ended },
    Message { conn: ConnId, handle: Option<Handle>, bytes: Vec<u8> },
    Computed(Done),
    Listening(Option<u16>),
    Sockets(Option<u16>, Option<u16>),
    Datagram { remote: SocketAddr, bytes: Vec<u8> },
    Interfaces(Vec<(IpAddr, u8)>),
    PortMapped(Vec<PortMapping>),
    Examine,
    Members(Vec<Member>, Vec<PeerId>),
    Tune(Tuning),
    Report(Report),
    Ping { peer: PeerId, id: u32, payload: Vec<u8> },
    Leave,
}

impl Pending {
    /// The connection that it is about.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Closed { conn, .. } | Self::Message { conn, .. } => Some(*conn),
            Self::Computed(_)
            | Self::Listening(_)
            | Self::Sockets(..)
            | Self::Datagram { .. }
            | Self::Interfaces(_)
            | Self::PortMapped(_)
            | Self::Examine
            | Self::Members(..)
            | Self::Tune(_)
            | Self::Report(_)
            | Self::Ping { .. }
            | Self::Leave => None,
        }
    }
}

/// What this end dropped for want of room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drops {
    /// Packets that the interface did not take.
    pub(super) interface_full: u64,
    /// Messages that the control room had no room for.
    pub(super) inbox_full: u64,
}

/// The plane's sink.
pub(super) struct Ports<D> {
    pub(super) outboxes: BTreeMap<ConnId, Outbox>,
    pub(super) flows: Flows,
    pub(super) inbox: VecDeque<Pending>,
    pub(super) drops: Drops,
    pub(super) doors: D,
    pub(super) captures: Captures,
    joiner: Joiner,
}

impl<D: PeerDoors> Ports<D> {
    pub(super) fn new(doors: D, layer2: bool) -> Self {
        let joiner = Joiner::new(layer2, doors.joins());
        Self {
            outboxes: BTreeMap::new(),
            flows: Flows::default(),
            inbox: VecDeque::new(),
            drops: Drops::default(),
            doors,
            captures: Captures::default(),
            joiner,
        }
    }

    /// A packet passes the interface: who captures gets a copy.
    pub(super) fn see(&mut self, direction: Direction, offload: Offload, packet: &[u8]) {
        self.captures.see(direction, self.joiner.is_layer2(), offload, packet);
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
        self.write(|joiner, write| joiner.flush(write));
        self.flows.release();
        self.await_room();
    }

    /// Writes a packet of the program's own to the interface.
    pub(super) fn hand_in(&mut self, packet: &[u8]) {
        self.write(|joiner, write| {
            joiner.flush(write);
            write(Offload::default(), packet);
        });
    }

    /// Writes what the joiner gives to the interface.
    fn write(&mut self, join: impl FnOnce(&mut Joiner, &mut dyn FnMut(Offload, &[u8]))) {
        let (doors, drops, captures, layer2) = (&mut self.doors, &mut self.drops, &mut self.captures, self.joiner.is_layer2());
        let mut deliver = |offload: Offload, packet: &[u8]| {
            let taken = doors.deliver(offload, packet);
            if taken.is_ok() {
                captures.see(Direction::In, layer2, offload, packet);
            }
            taken
        };
        let mut refused = false;
        join(&mut self.joiner, &mut |offload, packet| match deliver(offload, packet) {
            Ok(()) => {}
            Err(why) if offload.segmentation.is_some() && run::is_refusal(&why) => {
                refused = true;
                drops.interface_full += deliver_cut(&mut deliver, layer2, offload, packet);
            }
            Err(_) => drops.interface_full += 1,
        });
        if refused {
            tracing::debug!("the interface takes no large packets");
            self.joiner.restrict(Joins::default());
        }
    }

    /// Has somebody wait for sockets that have no room.
    pub(super) fn await_room(&mut self) {
        while let Some(number) = self.flows.full.pop() {
            self.doors.await_datagram_room(number);
        }
    }

    /// A flow begins with a socket of its own. Without one, it is a flow that loses all.
    pub(super) fn open_own_flow(&mut self, conn: ConnId, remote: SocketAddr) {
        let opened = self.flows.add_own(conn, remote).and_then(|number| match self.flows.socket(number) {
            Some(socket) => self.doors.watch_datagrams(number, socket),
            None => Ok(()),
        });
        if let Err(why) = opened {
            tracing::debug!(%why, "no socket of its own for a flow");
        }
    }

    pub(super) fn close_flow(&mut self, conn: ConnId) {
        let own = self.flows.remove(conn);
        self.await_room();
        if let Some(number) = own {
            self.doors.unwatch_datagrams(number);
        }
    }

    /// Puts an event of the driver's own into the inbox; there is at most one of a kind for each connection or job.
    pub(super) fn post(&mut self, event: Pending) {
        self.inbox.push_back(event);
        self.doors.ring();
    }

    /// Whether readers should wait for the control room.
    pub(super) fn is_busy(&self) -> bool {
        self.inbox.len() > INBOX_CALM
    }

    /// Lets the writer of a connection send what waits, and then no more.
    pub(super) fn finish(&mut self, conn: ConnId) -> bool {
        self.doors.hang_up(conn);
        let Some(outbox) = self.outboxes.get_mut(&conn) else {
            return false;
        };
        outbox.finish();
        self.doors.wake(conn);
        true
    }

    /// Puts what came from outside into the inbox, while there is room.
    fn offer(&mut self, event: Pending) {
        if self.inbox.len() < INBOX {
            self.post(event);
        } else {
            self.drops.inbox_full += 1;
        }
    }
}

/// Writes a large packet that the interface does not take piece by piece; how many of those it did not take either.
fn deliver_cut(deliver: &mut impl FnMut(Offload, &[u8]) -> io::Result<()>, layer2: bool, offload: Offload, packet: &[u8]) -> u64 {
    let Ok(mut segments) = Segments::new(layer2, offload, packet) else { return 1 };
    let mut refused = 0;
    while let Some((head, body)) = segments.step() {
        let piece = Offload { segmentation: None, ..offload };
        refused += u64::from(deliver(piece, &[head, body].concat()).is_err());
    }
    refused
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
        let gathering = self.flows.is_gathering();
        self.write(|joiner, write| {
            joiner.add(packet, checksum, write);
            if !gathering {
                joiner.flush(write);
            }
        });
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
}
