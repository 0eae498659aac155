//! Copies of what passes the interface, for who watches; and what it costs those who do not: one look at an empty list.
//!
//! ```text
//!   interface ── packet ──▶ Captures ──▶ Plane            Watch (another thread): next, try_next, lost
//!   interface ◀─ write ──── Captures ◀── Plane            ▲
//!                              └── a copy, where the bounded queue has room ──┘
//! ```
//!
//! The list belongs to the control room, as all of it does: a watcher comes by a command and goes when its `Watch` is dropped. So there
//! is no lock and no atomic word in the way of packets that nobody watches. A reader who is slow loses copies, counted; packets wait for
//! nobody. A large packet of the kernel is copied as it is: what the interface saw is the large one.
use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};
use shadowmesh_core::offload::{self, Offload, PartialChecksum};
use std::{sync::Arc, time::SystemTime};

/// Watchers at once: each costs a copy of every packet.
const WATCHERS: usize = 4;

/// Copies that wait for one watcher.
const QUEUE_PACKETS: usize = 4_096;

/// Bytes of copies that wait for one watcher: a tenth of a second at 500 Mbit/s.
const QUEUE_BYTES: usize = 8 << 20;

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From this machine into the mesh.
    Out,
    /// From the mesh to this machine.
    In,
}

/// What a watcher wants to see.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Bytes kept of each packet.
    pub snaplen: usize,
    /// Only packets from or to one of these addresses.
    pub only: Option<Vec<IpAddr>>,
}

/// A copy of a packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Captured {
    /// When it passed, by the clock of people.
    pub at: SystemTime,
    /// Its way.
    pub direction: Direction,
    /// Its length; `bytes` may have less.
    pub length: usize,
    /// As much of it as was wanted.
    pub bytes: Vec<u8>,
    /// What is still to be done to its checksum; done by [`Watch`].
    checksum: Option<PartialChecksum>,
}

/// Between a watcher and the control room.
#[derive(Debug, Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
}

/// The control room's end of one watcher; each lane has one, too.
#[derive(Clone)]
pub struct Watcher {
    copies: flume::Sender<Captured>,
    shared: Arc<Shared>,
    wanted: Wanted,
}

/// The reader's end; when it is dropped, no more is copied.
pub struct Watch {
    copies: flume::Receiver<Captured>,
    shared: Arc<Shared>,
}

/// The two ends.
pub(super) fn watch(wanted: Wanted) -> (Watcher, Watch) {
    let (sender, receiver) = flume::bounded(QUEUE_PACKETS);
    let shared = Arc::<Shared>::default();
    (Watcher { copies: sender, shared: Arc::clone(&shared), wanted }, Watch { copies: receiver, shared })
}

impl Watch {
    /// The next copy; `None` when the peer has ended.
    pub async fn next(&self) -> Option<Captured> {
        self.copies.recv_async().await.ok().map(|captured| self.taken(captured))
    }

    /// The next copy that is there already.
    pub fn try_next(&self) -> Option<Captured> {
        self.copies.try_recv().ok().map(|captured| self.taken(captured))
    }

    /// Copies that were not made because this end read too slowly.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    fn taken(&self, mut captured: Captured) -> Captured {
        self.shared.waiting_bytes.fetch_sub(captured.bytes.len(), Ordering::Relaxed);
        if let Some(partial) = captured.checksum.take().filter(|_| captured.bytes.len() == captured.length) {
            offload::finish(&mut captured.bytes, partial);
        }
        captured
    }
}

impl Watcher {
    /// Takes a copy where it is wanted and there is room; false when nobody watches any more.
    fn take(&self, at: SystemTime, direction: Direction, layer2: bool, (offload, packet): (Offload, &[u8])) -> bool {
        if self.copies.is_disconnected() {
            return false;
        }
        if self.wanted.only.as_ref().is_some_and(|only| !concerns(only, layer2, packet)) {
            return true;
        }
        let kept = packet.len().min(self.wanted.snaplen);
        // Only this end adds, so that the bound holds whatever the other does meanwhile; of several lanes each may be one packet ahead.
        if self.shared.waiting_bytes.load(Ordering::Relaxed) + kept > QUEUE_BYTES || self.copies.is_full() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.shared.waiting_bytes.fetch_add(kept, Ordering::Relaxed);
        let bytes = packet.get(..kept).unwrap_or(packet).to_vec();
        let captured = Captured { at, direction, length: packet.len(), bytes, checksum: offload.checksum };
        self.copies.try_send(captured).is_ok()
    }
}

/// All watchers of a peer.
#[derive(Default)]
pub(super) struct Captures(Vec<Watcher>);

impl Captures {
    /// One more; false when there are enough.
    pub(super) fn add(&mut self, watcher: Watcher) -> bool {
        self.0.retain(|watcher| !watcher.copies.is_disconnected());
        let has_room = self.0.len() < WATCHERS;
        if has_room {
            self.0.push(watcher);
        }
        has_room
    }

    /// A packet passes.
    #[inline]
    pub(super) fn see(&mut self, direction: Direction, layer2: bool, offload: Offload, packet: &[u8]) {
        if !self.0.is_empty() {
            self.copy(direction, layer2, offload, packet);
        }
    }

    #[cold]
    fn copy(&mut self, direction: Direction, layer2: bool, offload: Offload, packet: &[u8]) {
        let at = SystemTime::now();
        self.0.retain(|watcher| watcher.take(at, direction, layer2, (offload, packet)));
    }
}

/// Whether a packet comes from or goes to one of these, ARP included.
fn concerns(addresses: &[IpAddr], layer2: bool, packet: &[u8]) -> bool {
    ends(layer2, packet).is_some_and(|ends| ends.iter().any(|end| addresses.contains(end)))
}

/// Source and destination of an IP packet or an ARP message.
fn ends(layer2: bool, packet: &[u8]) -> Option<[IpAddr; 2]> {
    let v4 = |bytes: &[u8], from: usize, to: usize| {
        let read = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|address| IpAddr::V4(Ipv4Addr::from(*address)));
        Some([read(from)?, read(to)?])
    };
    let mut packet = packet;
    if layer2 {
        let tagged = packet.get(12..14)? == [0x81, 0x00];
        let payload = packet.get(if tagged { 18 } else { 14 }..)?;
        if packet.get(if tagged { 16..18 } else { 12..14 })? == [0x08, 0x06] {
            return v4(payload, 14, 24);
        }
        packet = payload;
    }
    match packet.first()? >> 4 {
        4 => v4(packet, 12, 16),
        6 => {
            let read = |at: usize| packet.get(at..)?.first_chunk::<16>().map(|address| IpAddr::V6(Ipv6Addr::from(*address)));
            Some([read(8)?, read(24)?])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted = Wanted { snaplen: 65_536, only: None };

    fn to(last: u8) -> Vec<u8> {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[12..20].copy_from_slice(&[10, 77, 0, 1, 10, 77, 0, last]);
        packet
    }

    #[test]
    fn a_watcher_sees_what_passes_until_it_goes() {
        let (watcher, watch) = watch(ALL);
        let mut captures = Captures::default();
        captures.see(Direction::Out, false, Offload::default(), &to(2));
        assert!(captures.add(watcher));
        captures.see(Direction::Out, false, Offload::default(), &to(3));
        captures.see(Direction::In, false, Offload::default(), &to(4));
        let seen: Vec<_> = core::iter::from_fn(|| watch.try_next()).map(|one| (one.direction, one.length, one.bytes[19])).collect();
        assert_eq!(seen, [(Direction::Out, 28, 3), (Direction::In, 28, 4)]);
        drop(watch);
        captures.see(Direction::In, false, Offload::default(), &to(4));
        assert!(captures.0.is_empty(), "nobody watches, and it is still copied");
    }

    #[test]
    fn a_slow_watcher_loses_copies_and_they_are_counted() {
        let (watcher, watch) = watch(ALL);
        let mut captures = Captures(vec![watcher]);
        let large = vec![0x45; 65_536];
        let fit = QUEUE_BYTES / large.len();
        for _ in 0..fit + 3 {
            captures.see(Direction::Out, false, Offload::default(), &large);
        }
        assert_eq!((watch.copies.len(), watch.lost()), (fit, 3));
        assert!(watch.try_next().is_some());
        captures.see(Direction::Out, false, Offload::default(), &large);
        assert_eq!((watch.copies.len(), watch.lost()), (fit, 3), "what is read makes room");
        while watch.try_next().is_some() {}
        for _ in 0..QUEUE_PACKETS + 2 {
            captures.see(Direction::Out, false, Offload::default(), &to(2));
        }
        assert_eq!((watch.copies.len(), watch.lost()), (QUEUE_PACKETS, 5));
    }

    #[test]
    fn there_are_so_many_watchers_and_no_more() {
        let mut captures = Captures::default();
        let watches: Vec<_> = (0..WATCHERS)
            .map(|_| {
                let (watcher, watch) = watch(ALL);
                assert!(captures.add(watcher));
                watch
            })
            .collect();
        assert!(!captures.add(watch(ALL).0));
        drop(watches);
        let (another, _kept) = watch(ALL);
        assert!(captures.add(another), "those who went have left their places");
    }

    #[test]
    fn packets_of_others_are_not_copied() {
        let only = Some(vec![IpAddr::from([10, 77, 0, 2])]);
        let (watcher, watch) = watch(Wanted { snaplen: 20, only });
        let mut captures = Captures(vec![watcher]);
        let ethernet = |kind: [u8; 2], payload: &[u8]| [&[0; 12][..], &kind, payload].concat();
        let mut arp = vec![0; 28];
        arp[24..28].copy_from_slice(&[10, 77, 0, 2]);
        let mut v6 = vec![0x60; 40];
        v6[24..40].copy_from_slice(&[0xfd; 16]);
        for (layer2, packet, wanted) in [
            (false, to(2), true),
            (false, to(3), false),
            (false, v6, false),
            (false, vec![], false),
            (false, vec![0x45; 15], false),
            (true, ethernet([8, 0], &to(2)), true),
            (true, ethernet([0x81, 0], &[&[0, 7, 8, 0][..], &to(2)].concat()), true),
            (true, ethernet([8, 6], &arp), true),
            (true, ethernet([8, 6], &arp[..20]), false),
            (true, ethernet([8, 0], &to(3)), false),
            (true, vec![0; 13], false),
        ] {
            captures.see(Direction::Out, layer2, Offload::default(), &packet);
            let copy = watch.try_next();
            assert_eq!(copy.is_some(), wanted, "{packet:?}");
            assert!(copy.is_none_or(|copy| copy.bytes.len() == 20 && copy.length == packet.len()));
        }
    }

    #[test]
    fn a_checksum_that_was_only_begun_is_completed_in_the_copy() {
        let checksum = Some(PartialChecksum { start: 20, offset: 6 });
        let mut whole = to(2);
        whole[27] = 7;
        let mut finished = whole.clone();
        assert!(offload::finish(&mut finished, PartialChecksum { start: 20, offset: 6 }));
        assert_ne!(whole, finished);
        for (snaplen, expected) in [(64, &finished[..]), (24, &whole[..24])] {
            let (watcher, watch) = watch(Wanted { snaplen, only: None });
            Captures(vec![watcher]).see(Direction::Out, false, Offload { checksum, segmentation: None }, &whole);
            assert_eq!(watch.try_next().expect("a copy").bytes, expected);
        }
    }
}
