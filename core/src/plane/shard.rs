//! Several planes that are one: each is a *shard*, the owner of one data lane, perhaps on a thread of its own (protocol 4.3).
//!
//! ```text
//!              shard 0: lane 00, 80 ◀──┐
//!   Edit ──┬─▶ shard 1: lane 01, 81 ◀──┼─ Sink::pass: what belongs to another lane ─ Plane::passed
//!          └─▶ shard 2: lane 02, 82 ◀──┘
//! ```
//! Every shard is told every edit. What they notice goes to the one control room, which hears their counters as one sum. They share no state
//! but the count of the memory in their rings.
use super::{Drop, LinkId, LinkTally, PathTally, Plain, Plane, PlaneConfig, Sink, Tally, Via, queue::FairQueue};
use crate::{
    offload::Offload,
    time::Instant,
    wire::{DATA_LANES, FrameHeader, LANE_CONTROL_BIT},
};
use core::net::SocketAddr;

/// Which of the lanes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) lane: u8,
    /// How many there are; at least 1.
    pub(crate) lanes: u8,
}

impl Place {
    pub(crate) const ALONE: Self = Self { lane: 0, lanes: 1 };
}

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A connection or a flow.
    Via(Via),
    /// An address that is nobody's flow, by a datagram.
    Address(SocketAddr),
}

/// What one shard has that belongs to another.
#[derive(Debug)]
pub enum Passed<'a> {
    /// A packet of the interface for a peer whose session has fewer lanes, as the interface gave it.
    Packet {
        /// What is still to be done to it.
        offload: Offload,
        /// Its bytes.
        packet: &'a [u8],
    },
    /// One that waited for a session, and this session has fewer lanes.
    Waited {
        /// For whom.
        link: LinkId,
        /// Its inner type (protocol 4.2).
        inner: u8,
        /// Its bytes.
        packet: &'a [u8],
    },
    /// A sealed frame of another lane.
    Frame {
        /// Where it came from.
        from: Origin,
        /// All of it.
        bytes: &'a mut [u8],
    },
}

/// A session of which this shard has no lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrow {
    /// Our index of it.
    local: u32,
    /// The lane that our packets take in it.
    lane: u8,
}

/// The sessions of one peer of which this shard has no lane.
#[derive(Debug, Default)]
pub(super) struct Narrows {
    /// In the order in which they were installed; at most the one that seals, and one that is to take over.
    installed: Vec<Narrow>,
    seals: Option<Narrow>,
}

impl Narrows {
    fn install(&mut self, local: u32, lane: u8) {
        // what was installed before it and never took over is over: there is one attempt at a time
        self.installed.retain(|other| self.seals.is_some_and(|seals| seals.local == other.local));
        self.installed.push(Narrow { local, lane });
    }

    pub(super) fn has(&self, local: u32) -> bool {
        self.installed.iter().any(|narrow| narrow.local == local)
    }

    /// A session takes over, perhaps one of which this shard has a lane.
    pub(super) fn promote(&mut self, local: u32) {
        self.installed.retain(|other| other.local == local);
        self.seals = self.installed.first().copied();
    }

    pub(super) fn retire(&mut self, local: u32) {
        self.installed.retain(|narrow| narrow.local != local);
        self.seals.take_if(|narrow| narrow.local == local);
    }

    /// The lane that packets of this shard take, if it has none of the session that seals.
    fn lane(&self) -> Option<u8> {
        self.seals.map(|narrow| narrow.lane)
    }
}

impl Plane {
    /// The shards of a plane with so many data lanes: 1 to 127.
    pub fn shards(config: &PlaneConfig, lanes: u8) -> Vec<Self> {
        let lanes = lanes.clamp(1, DATA_LANES);
        let first = Self::new(config.clone());
        let pool = first.pool.clone();
        let shard = |lane| Self { place: Place { lane, lanes }, pool: pool.clone(), ..Self::new(config.clone()) };
        (0..lanes).map(shard).collect()
    }

    /// Takes what another shard has passed on.
    pub fn passed(&mut self, now: Instant, what: Passed<'_>, sink: &mut dyn Sink) {
        match what {
            Passed::Packet { offload, packet } => {
                self.outbound_offloaded(now, offload, packet, sink);
                return;
            }
            Passed::Waited { link, inner, packet } => self.send(now, link, Plain::whole(inner, packet), sink),
            Passed::Frame { from: Origin::Via(via), bytes } => self.take(now, via, bytes, sink),
            Passed::Frame { from: Origin::Address(remote), bytes } => self.stray(now, remote, bytes, sink),
        }
        self.settle();
    }

    /// Passes a frame of another lane on to its owner; true when it was one.
    pub(super) fn pass_frame(&mut self, header: FrameHeader, from: Origin, bytes: &mut [u8], sink: &mut dyn Sink) -> bool {
        let lane = header.counter.lane() & !LANE_CONTROL_BIT;
        if lane == self.place.lane {
            return false;
        }
        if lane < self.place.lanes {
            sink.pass(lane, Passed::Frame { from, bytes });
        } else {
            self.drops.count(Drop::Unexpected);
        }
        true
    }

    /// Passes a packet on to a peer whose session has no lane here; false when it has one, or there is no session yet.
    pub(super) fn pass_packet(&mut self, link: LinkId, offload: Offload, packet: &[u8], sink: &mut dyn Sink) -> bool {
        // the first shard has a lane of each session
        let peer = if self.place.lane == 0 { None } else { self.peers.get(&link) };
        let Some(lane) = peer.and_then(|peer| peer.narrows.lane()) else { return false };
        // it is counted where it is sealed
        self.bytes.interface_rx -= packet.len() as u64;
        sink.pass(lane, Passed::Packet { offload, packet });
        true
    }

    /// A session with so many lanes is installed; false when this shard has one of them.
    pub(super) fn install_narrow(&mut self, link: LinkId, local: u32, lanes: u8) -> bool {
        let lanes = lanes.clamp(1, self.place.lanes);
        let is_narrow = lanes <= self.place.lane;
        if is_narrow && let Some(peer) = self.peers.get_mut(&link) {
            peer.narrows.install(local, self.place.lane % lanes);
        }
        is_narrow
    }

    /// What waited here for a session goes on in another shard.
    pub(super) fn pass_waiting(&mut self, now: Instant, link: LinkId, sink: &mut dyn Sink) {
        let Some(peer) = self.peers.get_mut(&link) else { return };
        let Some(lane) = peer.narrows.lane() else { return };
        while let Some((inner, packet)) = peer.queue.pop(now, &mut self.drops) {
            sink.pass(lane, Passed::Waited { link, inner, packet: &packet });
            peer.queue.recycle(packet);
        }
        self.waiting.remove(&link);
    }

    /// The share of this shard in what may wait for one peer.
    pub(super) fn share_of_queue(&self) -> FairQueue {
        FairQueue::shared_by(self.place.lanes)
    }
}

impl Tally {
    /// Adds what another shard counted. A link that this one does not know is left out.
    pub fn add(&mut self, other: &Self) {
        for more in &other.links {
            if let Some(link) = self.links.iter_mut().find(|link| link.link == more.link) {
                link.add(more);
            }
        }
        for reason in Drop::ALL {
            self.drops.add(reason, other.drops.get(reason));
        }
        self.bytes.add(&other.bytes);
    }
}

impl LinkTally {
    fn add(&mut self, other: &Self) {
        self.tx_frames += other.tx_frames;
        self.tx_bytes += other.tx_bytes;
        self.rx_frames += other.rx_frames;
        self.rx_bytes += other.rx_bytes;
        self.lost += other.lost;
        self.tx_lost += other.tx_lost;
        self.duplicate += other.duplicate;
        self.reordered += other.reordered;
        self.resent += other.resent;
        self.session_frames += other.session_frames;
        self.queued += other.queued;
        for more in &other.paths {
            if let Some(path) = self.paths.iter_mut().find(|path| path.path == more.path) {
                path.add(*more);
            }
        }
    }
}

impl PathTally {
    /// The lane that heard of the path last knows best how long it is.
    fn add(&mut self, other: Self) {
        if other.heard_at > self.heard_at {
            *self = other;
        }
    }
}
