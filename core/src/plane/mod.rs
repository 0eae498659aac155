//! The data plane, beside the `Node` and without I/O.
//!
//! ```text
//!  interface ─▶ outbound ─▶ Bridge: whose? ─▶ FairQueue ─▶ SendLane: seal, ring ─▶ Sink::send    (relay or direct connection)
//!  interface ◀─ Sink::deliver ◀─ Bridge: whose source? ◀─ RecvLane: open, replay, order ◀─ inbound
//!                                                          │            ▲
//!                              Report, punts ─▶ Node ─▶ Edit ────────────┘
//! ```
//! The control room owns every decision; here is only what happens to each frame. A pump hands in packets and messages and
//! offers a `Sink`; the `Node`'s `Edit`s are applied in the order in which they were given.
mod board;
mod bounds;
mod bridge;
mod edits;
mod meter;
mod order;
mod pieces;
mod queue;
mod recv;
pub(crate) mod replay;
mod ring;
mod rtt;
mod send;
mod session;
mod shard;

pub use board::{Edit, Install, LinkTally, PathTally, Report, Tally};
pub(crate) use board::{Noticed, Paths, Strays};
pub(crate) use meter::PlaneBytes;
pub use ring::Slabs;
pub use rtt::Rtt;
pub use shard::{Origin, Passed};

use crate::{
    config::Mode,
    drops::{Drop, Drops},
    id::{ConnId, Handle, LinkId},
    machine::Deadline,
    offload::{Checksum, Offload, Segments},
    time::{Duration, Instant},
    wire::{
        FrameHeader, INNER_ETHERNET, INNER_ETHERNET_PARTIAL, INNER_IP, INNER_IP_PARTIAL, LANE_CONTROL_BIT, LANE_NODE, RECORD_HEADER_LEN,
        TYPE_DLV, TYPE_FRAME, TYPE_FWD,
    },
};
use board::Peer;
use bridge::{Bridge, Goal, flow_hash};
use core::net::{IpAddr, SocketAddr};
use meter::Metered;
use queue::Plain;
use ring::Pool;
use session::{Came, Session};
use shard::Place;
use std::collections::{BTreeMap, BTreeSet};

/// The largest packet from the interface, bytes (protocol 9.4: frame 9,216 B).
const PACKET_BYTES: usize = 9_000;
/// A session that was replaced still opens and re-sends for so long (protocol 3.10).
const RETIRING: Duration = Duration::from_secs(10);
/// A packet without a session asks the control room for one at most so often.
const WANTED_REPEAT: Duration = Duration::from_secs(1);

/// Where a frame goes: a connection, and on a relay the handle of the other peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(test, derive(Hash))]
pub struct Via {
    /// The connection of this process.
    pub conn: ConnId,
    /// The other peer's handle when the connection leads to a relay.
    pub handle: Option<Handle>,
}

/// What a pump offers the plane.
pub trait Sink {
    /// Bytes that the writer of `conn` can take now; 0 when it is full or gone.
    fn room(&self, conn: ConnId) -> usize;
    /// Appends one record with this frame to what waits for the connection.
    fn send(&mut self, via: Via, frame: &[u8]);
    /// Writes one packet (IP or Ethernet) to the interface. One with a partial checksum has a [`Layout`](crate::offload::Layout).
    fn deliver(&mut self, packet: &[u8], checksum: Checksum);
    /// Hands the control room one record or message that is not the plane's business.
    fn punt(&mut self, conn: ConnId, handle: Option<Handle>, bytes: &mut [u8]);
    /// Hands the control room something noticed.
    fn report(&mut self, report: Report);
    /// Hands the control room a datagram that is not the plane's business, from an address that is nobody's flow. A pump without
    /// datagrams never calls [`Plane::datagrams`] and needs none of this.
    fn stray(&mut self, _remote: SocketAddr, _bytes: &mut [u8]) {}
    /// Hands the shard that owns this lane what is its business, for [`Plane::passed`]. A pump whose plane is not one of several is never
    /// asked to.
    fn pass(&mut self, _lane: u8, _what: Passed<'_>) {}
}

/// What the plane is told at its start.
#[derive(Clone, Debug)]
pub struct PlaneConfig {
    /// Ethernet frames instead of IP packets.
    pub layer2: bool,
    /// Own overlay addresses: packets to others are not let in.
    pub addresses: Vec<IpAddr>,
    /// Own MAC address in TAP mode.
    pub mac: [u8; 6],
    /// What a migration keeps.
    pub mode: Mode,
}

/// All lanes of this peer, or one of them.
pub struct Plane {
    config: PlaneConfig,
    place: Place,
    bridge: Bridge,
    peers: BTreeMap<LinkId, Peer>,
    sessions: BTreeMap<u32, Session>,
    /// Connections to relays.
    relays: BTreeSet<ConnId>,
    /// Alarms of sessions: at most one each, never later than due.
    timers: BTreeSet<(Instant, u32)>,
    /// Links that have something to send and no room for it.
    waiting: BTreeSet<LinkId>,
    /// Sessions that were replaced and still send what they owe.
    retiring: BTreeSet<u32>,
    drops: Drops,
    bytes: PlaneBytes,
    pool: Pool,
    /// The session of the last frame, whose timer is looked at when the batch is over.
    touched: Option<u32>,
}

impl Plane {
    /// A plane without peers, with one data lane.
    pub fn new(config: PlaneConfig) -> Self {
        let bridge = Bridge::new(config.layer2, config.addresses.clone(), config.mac);
        Self {
            config,
            place: Place::ALONE,
            bridge,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            relays: BTreeSet::new(),
            timers: BTreeSet::new(),
            waiting: BTreeSet::new(),
            retiring: BTreeSet::new(),
            drops: Drops::default(),
            bytes: PlaneBytes::default(),
            pool: Pool::default(),
            touched: None,
        }
    }

    /// Takes one packet from the interface.
    pub fn outbound(&mut self, now: Instant, packet: &[u8], sink: &mut dyn Sink) {
        self.bytes.interface_rx += packet.len() as u64;
        let inner = if self.config.layer2 { INNER_ETHERNET } else { INNER_IP };
        match self.bridge.outbound(now, packet) {
            Ok(Goal::One(link)) if self.pass_packet(link, Offload::default(), packet, sink) => {}
            Ok(goal) => self.send_to(now, goal, Plain::whole(inner, packet), sink),
            Err(reason) => self.drops.count(reason),
        }
        self.settle();
    }

    /// Takes what the interface hands over at once, with what is still to be done to it; how many packets that were.
    pub fn outbound_offloaded(&mut self, now: Instant, offload: Offload, packet: &[u8], sink: &mut dyn Sink) -> usize {
        if offload == Offload::default() {
            self.outbound(now, packet, sink);
            return 1;
        }
        self.bytes.interface_rx += packet.len() as u64;
        let layer2 = self.config.layer2;
        let cut = Segments::new(layer2, offload, packet).map_err(|_| Drop::Packet);
        let (mut segments, goal) = match cut.and_then(|segments| Ok((segments, self.bridge.outbound(now, packet)?))) {
            Ok((_, Goal::One(link))) if self.pass_packet(link, offload, packet, sink) => return 1,
            Ok(known) => known,
            Err(reason) => {
                self.drops.count(reason);
                return 1;
            }
        };
        let inner = match (segments.are_partial(), layer2) {
            (true, true) => INNER_ETHERNET_PARTIAL,
            (true, false) => INNER_IP_PARTIAL,
            (false, true) => INNER_ETHERNET,
            (false, false) => INNER_IP,
        };
        let mut packets = 0;
        while let Some((head, body)) = segments.step() {
            packets += 1;
            self.send_to(now, goal, Plain { inner, head, body }, sink);
        }
        self.settle();
        packets
    }

    /// Takes one WebSocket message from a connection: a run of records, or one bare message.
    pub fn inbound(&mut self, now: Instant, conn: ConnId, message: &mut [u8], sink: &mut dyn Sink) {
        let Some(kind) = message.first().copied() else {
            self.drops.count(Drop::Malformed);
            return;
        };
        if kind == TYPE_FWD || kind == TYPE_DLV {
            self.records(now, conn, message, sink);
        } else {
            self.take(now, Via { conn, handle: None }, message, sink);
        }
        self.settle();
    }

    fn records(&mut self, now: Instant, conn: ConnId, message: &mut [u8], sink: &mut dyn Sink) {
        let mut rest = message;
        while !rest.is_empty() {
            let Some((handle, len)) = crate::wire::peek_record(rest) else {
                self.drops.count(Drop::Malformed);
                return;
            };
            let (record, after) = rest.split_at_mut(RECORD_HEADER_LEN + len);
            rest = after;
            let handle = (handle != Handle(0)).then_some(handle);
            if let Some(payload) = record.get_mut(RECORD_HEADER_LEN..) {
                self.take(now, Via { conn, handle }, payload, sink);
            }
        }
    }

    /// Takes datagrams of one address, in this flow or nobody's. A frame of a session that has a datagram path is authentic
    /// whatever its address is: it is delivered, and the control room hears that the peer may have moved (protocol 8.4).
    pub fn datagrams<'a>(
        &mut self,
        now: Instant,
        flow: Option<ConnId>,
        remote: SocketAddr,
        datagrams: impl IntoIterator<Item = &'a mut [u8]>,
        sink: &mut dyn Sink,
    ) {
        for bytes in datagrams {
            match flow {
                Some(conn) => self.take(now, Via { conn, handle: None }, bytes, sink),
                None => self.stray(now, remote, bytes, sink),
            }
        }
        self.settle();
    }

    /// The writer of a connection has room again.
    pub fn writable(&mut self, now: Instant, _conn: ConnId, sink: &mut dyn Sink) {
        for link in self.waiting.clone() {
            self.pump(now, link, sink);
        }
        for local in self.retiring.clone() {
            self.pump_old(now, local, sink);
        }
    }

    /// Does what is due.
    pub fn alarm(&mut self, now: Instant, sink: &mut dyn Sink) {
        while let Some((at, local)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            self.session_alarm(now, local, sink);
        }
    }

    /// When `alarm` is due.
    pub fn deadline(&self) -> Option<Deadline> {
        self.timers.first().map(|(at, _)| Deadline { at: *at, why: "a lane's receipt, stall or hole" })
    }

    /// Reads all counters.
    pub fn tally(&self) -> Tally {
        let links = self.peers.iter().map(|(link, peer)| peer.tally(*link, &self.sessions)).collect();
        Tally { links, drops: self.drops.clone(), bytes: self.bytes }
    }

    fn send_to(&mut self, now: Instant, goal: Goal, packet: Plain<'_>, sink: &mut dyn Sink) {
        if packet.len() > PACKET_BYTES {
            return self.drops.count(Drop::Packet);
        }
        let links: Vec<LinkId> = match goal {
            Goal::One(link) => return self.send(now, link, packet, sink),
            Goal::All => self.peers.iter().filter(|(_, peer)| peer.current.is_some()).map(|(link, _)| *link).collect(),
        };
        if links.is_empty() {
            self.drops.count(Drop::NoRoute);
        }
        for link in links {
            self.send(now, link, packet, sink);
        }
    }

    fn send(&mut self, now: Instant, link: LinkId, packet: Plain<'_>, sink: &mut dyn Sink) {
        let Some(peer) = self.peers.get_mut(&link) else { return };
        let session = peer.current.and_then(|local| self.sessions.get_mut(&local));
        if let Some(session) = session
            && peer.queue.is_empty()
            && session.tx.send_now(now, &peer.paths, packet, &mut Metered { sink, bytes: &mut self.bytes })
        {
            let local = session.local;
            self.touch(local);
            return;
        }
        peer.queue.push(now, flow_hash(self.config.layer2, packet.head), packet, &mut self.drops);
        self.waiting.insert(link);
        if peer.current.is_none() && peer.wanted_at.is_none_or(|at| at + WANTED_REPEAT <= now) {
            peer.wanted_at = Some(now);
            sink.report(Report::wanted(link));
        }
        self.pump(now, link, sink);
    }

    /// One frame or message, and where it came from.
    fn take(&mut self, now: Instant, via: Via, bytes: &mut [u8], sink: &mut dyn Sink) {
        if bytes.first() != Some(&TYPE_FRAME) {
            sink.punt(via.conn, via.handle, bytes);
            return;
        }
        let Ok(header) = FrameHeader::parse(bytes) else {
            self.drops.count(Drop::Malformed);
            return;
        };
        if header.counter.lane() == LANE_NODE {
            sink.punt(via.conn, via.handle, bytes);
            return;
        }
        if self.pass_frame(header, Origin::Via(via), bytes, sink) {
            return;
        }
        let Some(session) = self.sessions.get(&header.receiver) else {
            self.drops.count(Drop::UnknownSession);
            return;
        };
        if !self.is_proven(session.link, via) {
            if via.conn.is_flow() {
                self.take_from_anywhere(now, header, bytes, sink);
                return;
            }
            // nobody has proven yet who sends here; whoever overheard a frame could bring it before its time (protocol 6.2)
            sink.punt(via.conn, via.handle, bytes);
            return;
        }
        self.open(now, header, via, bytes, sink);
    }

    /// Whether frames of this link may come this way: on a path of its own, or over any relay, from whatever place there: the other end
    /// chooses its relay by itself, and may know of a place of ours sooner than we of its. A handle alone makes no relay: anybody can
    /// write one into a record.
    fn is_proven(&self, link: LinkId, via: Via) -> bool {
        let own = self.peers.get(&link).is_some_and(|peer| peer.paths.has(via));
        own || (via.handle.is_some() && self.relays.contains(&via.conn))
    }

    /// A datagram from an address that is nobody's flow.
    fn stray(&mut self, now: Instant, remote: SocketAddr, bytes: &mut [u8], sink: &mut dyn Sink) {
        let header = FrameHeader::parse(bytes).ok().filter(|header| header.counter.lane() != LANE_NODE);
        let Some(header) = header else {
            sink.stray(remote, bytes);
            return;
        };
        if self.pass_frame(header, Origin::Address(remote), bytes, sink) {
            return;
        }
        let len = bytes.len();
        if let Some(link) = self.take_from_anywhere(now, header, bytes, sink)
            && self.peers.get_mut(&link).is_some_and(|peer| peer.strays.came(now, remote, len))
        {
            sink.report(Report::roamed(link, remote));
        }
    }

    /// A frame in a datagram from where no path leads: it is taken if it is authentic, and answered on a path (protocol 8.4). Whose it was.
    fn take_from_anywhere(&mut self, now: Instant, header: FrameHeader, bytes: &mut [u8], sink: &mut dyn Sink) -> Option<LinkId> {
        let session = self.sessions.get(&header.receiver);
        let peer = session.and_then(|session| self.peers.get(&session.link));
        let (Some(session), Some(peer)) = (session, peer) else {
            self.drops.count(Drop::UnknownSession);
            return None;
        };
        let (link, main) = (session.link, session.tx.main());
        let Some(via) = peer.paths.datagrams(main).or_else(|| peer.paths.via(main)) else {
            self.drops.count(Drop::Unexpected);
            return None;
        };
        self.open(now, header, via, bytes, sink).then_some(link)
    }

    /// Opens a frame and does what it says; false when it is not authentic, or no session's.
    fn open(&mut self, now: Instant, header: FrameHeader, via: Via, bytes: &mut [u8], sink: &mut dyn Sink) -> bool {
        self.bytes.count(via, true, bytes.len());
        let Some(session) = self.sessions.get_mut(&header.receiver) else { return false };
        let Some(peer) = self.peers.get_mut(&session.link) else { return false };
        let link = session.link;
        let is_control = header.counter.lane() & LANE_CONTROL_BIT != 0;
        let metered = &mut Metered { sink, bytes: &mut self.bytes };
        let came = session.inbound(now, header, via, bytes, peer, &mut self.bridge, &mut self.drops, metered);
        if came == Some(Came::Ended) {
            self.open_gates(now, link, sink);
        }
        self.touch(header.receiver);
        if is_control {
            self.pump_old(now, header.receiver, sink);
            self.pump(now, link, sink);
        }
        came.is_some()
    }

    /// Sends what a link owes, as far as there is room.
    fn pump(&mut self, now: Instant, link: LinkId, sink: &mut dyn Sink) {
        let Some(peer) = self.peers.get_mut(&link) else { return };
        let Some(session) = peer.current.and_then(|local| self.sessions.get_mut(&local)) else { return };
        let sink = &mut Metered { sink, bytes: &mut self.bytes };
        session.tx.pump(now, &peer.paths, &mut peer.queue, sink, &mut self.drops);
        if peer.queue.is_empty() && !session.tx.owes_copies() {
            self.waiting.remove(&link);
        } else {
            self.waiting.insert(link);
        }
        let local = session.local;
        self.rearm(local);
    }

    fn session_alarm(&mut self, now: Instant, local: u32, sink: &mut dyn Sink) {
        let Some(session) = self.sessions.get_mut(&local) else { return };
        session.timer = None;
        let link = session.link;
        if session.retire_at.is_some_and(|at| at <= now) {
            self.retire(local);
            return;
        }
        if let Some(peer) = self.peers.get_mut(&link) {
            let sink = &mut Metered { sink, bytes: &mut self.bytes };
            session.alarm(now, peer, &mut self.bridge, &mut self.drops, sink);
        }
        // it may have waited long enough for the one before it
        self.open_gates(now, link, sink);
        self.rearm(local);
        self.pump(now, link, sink);
    }

    fn rearm_all(&mut self, link: LinkId) {
        let locals: Vec<u32> = self.sessions.values().filter(|session| session.link == link).map(|session| session.local).collect();
        for local in locals {
            self.rearm(local);
        }
    }

    /// The timer of this session is looked at when another's turn comes, or the batch is over.
    fn touch(&mut self, local: u32) {
        if self.touched != Some(local) {
            self.settle();
            self.touched = Some(local);
        }
    }

    fn settle(&mut self) {
        if let Some(local) = self.touched.take() {
            self.rearm(local);
        }
    }

    /// Keeps one timer a session, never later than its deadline.
    fn rearm(&mut self, local: u32) {
        let Some(session) = self.sessions.get_mut(&local) else { return };
        let Some(peer) = self.peers.get(&session.link) else { return };
        let Some(due) = session.deadline(&peer.paths) else { return };
        if session.timer.is_some_and(|at| at <= due) {
            return;
        }
        if let Some(at) = session.timer.replace(due) {
            self.timers.remove(&(at, local));
        }
        self.timers.insert((due, local));
    }
}

#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
