//! Who has which address: overlay IP addresses in TUN mode, learned MAC addresses in TAP mode, and what may cross.
//!
//! In TAP mode each peer is one port of a switch whose only other port is the local interface. Frames from a peer go to the
//! interface and never to another peer (split horizon): a full mesh has no loops. Protocol 2.4, 2.5.
use crate::{
    drops::Drop,
    id::LinkId,
    time::{Duration, Instant},
};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

/// A learned MAC stays with its peer for so long after it was last seen (protocol 2.6).
const MAC_STICKY: Duration = Duration::from_mins(5);
/// Learned MACs a peer (protocol 2.6).
const MACS_PER_PEER: usize = 1024;
/// Flooded frames a second that one port may cause, and its burst (protocol 2.6).
const STORM_FRAMES_PER_SECOND: u64 = 1000;
const STORM_BURST: u64 = 2000;

type Mac = [u8; 6];

/// Where a packet from the interface goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    One(LinkId),
    /// Every peer (TAP: broadcast, multicast, a MAC not learned).
    All,
}

/// A bucket of flooded frames.
#[derive(Clone, Copy, Debug)]
struct Storm {
    credit: u64,
    at: Instant,
}

impl Storm {
    const FULL: Self = Self { credit: STORM_BURST * 1_000_000_000, at: Instant::ZERO };

    fn take(&mut self, now: Instant) -> bool {
        let gained = u64::try_from(now.since(self.at).as_nanos()).unwrap_or(u64::MAX).saturating_mul(STORM_FRAMES_PER_SECOND);
        self.credit = self.credit.saturating_add(gained).min(STORM_BURST * 1_000_000_000);
        self.at = now;
        let one = 1_000_000_000;
        let granted = self.credit >= one;
        if granted {
            self.credit -= one;
        }
        granted
    }
}

#[derive(Clone, Copy, Debug)]
struct Learned {
    link: LinkId,
    seen: Instant,
    /// Derived from the `PeerId`: never moves.
    bound: bool,
}

/// Addresses of the overlay.
#[derive(Debug)]
pub(crate) struct Bridge {
    layer2: bool,
    own: Vec<IpAddr>,
    by_address: BTreeMap<IpAddr, LinkId>,
    by_mac: BTreeMap<Mac, Learned>,
    learned: BTreeMap<LinkId, usize>,
    own_storm: Storm,
    storms: BTreeMap<LinkId, Storm>,
    own_mac: Mac,
}

impl Bridge {
    pub(crate) fn new(layer2: bool, own: Vec<IpAddr>, own_mac: Mac) -> Self {
        Self {
            layer2,
            own,
            by_address: BTreeMap::new(),
            by_mac: BTreeMap::new(),
            learned: BTreeMap::new(),
            own_storm: Storm::FULL,
            storms: BTreeMap::new(),
            own_mac,
        }
    }

    pub(crate) fn is_layer2(&self) -> bool {
        self.layer2
    }

    /// Gives a peer its addresses; those it had before are taken away.
    pub(crate) fn set_peer(&mut self, link: LinkId, addresses: &[IpAddr], mac: Mac) {
        self.forget(link);
        for address in addresses {
            self.by_address.entry(*address).or_insert(link);
        }
        // the first PeerId keeps its MAC; what was only learned gives way
        if let Some(learned) = self.by_mac.get(&mac).filter(|known| !known.bound).copied() {
            self.by_mac.remove(&mac);
            if let Some(count) = self.learned.get_mut(&learned.link) {
                *count = count.saturating_sub(1);
            }
        }
        self.by_mac.entry(mac).or_insert(Learned { link, seen: Instant::ZERO, bound: true });
        self.storms.insert(link, Storm::FULL);
    }

    /// Takes all addresses of a peer away.
    pub(crate) fn forget(&mut self, link: LinkId) {
        self.by_address.retain(|_, holder| *holder != link);
        self.by_mac.retain(|_, learned| learned.link != link);
        self.learned.remove(&link);
        self.storms.remove(&link);
    }

    /// Where a packet from the interface goes.
    pub(crate) fn outbound(&mut self, now: Instant, packet: &[u8]) -> Result<Goal, Drop> {
        if self.layer2 {
            return self.outbound_frame(now, packet);
        }
        let (_, destination) = addresses(packet).ok_or(Drop::Packet)?;
        self.by_address.get(&destination).map(|link| Goal::One(*link)).ok_or(Drop::NoRoute)
    }

    /// Whether a packet from a peer may reach the interface.
    pub(crate) fn inbound(&mut self, now: Instant, link: LinkId, packet: &[u8]) -> Result<(), Drop> {
        if self.layer2 {
            return self.inbound_frame(now, link, packet);
        }
        let (source, destination) = addresses(packet).ok_or(Drop::Packet)?;
        if self.by_address.get(&source) != Some(&link) {
            return Err(Drop::Source);
        }
        if self.own.contains(&destination) { Ok(()) } else { Err(Drop::Destination) }
    }

    fn outbound_frame(&mut self, now: Instant, frame: &[u8]) -> Result<Goal, Drop> {
        let (destination, _) = macs(frame).ok_or(Drop::Packet)?;
        if let Some(learned) = self.by_mac.get(&destination)
            && (learned.bound || now.since(learned.seen) < MAC_STICKY)
        {
            return Ok(Goal::One(learned.link));
        }
        if self.own_storm.take(now) { Ok(Goal::All) } else { Err(Drop::Storm) }
    }

    fn inbound_frame(&mut self, now: Instant, link: LinkId, frame: &[u8]) -> Result<(), Drop> {
        let (destination, source) = macs(frame).ok_or(Drop::Packet)?;
        if is_group(source) || source == self.own_mac {
            return Err(Drop::Mac);
        }
        self.learn(now, link, source)?;
        if is_group(destination) && !self.storms.get_mut(&link).is_some_and(|storm| storm.take(now)) {
            return Err(Drop::Storm);
        }
        Ok(())
    }

    fn learn(&mut self, now: Instant, link: LinkId, mac: Mac) -> Result<(), Drop> {
        if let Some(learned) = self.by_mac.get_mut(&mac) {
            if learned.link == link {
                learned.seen = now;
                return Ok(());
            }
            if learned.bound || now.since(learned.seen) < MAC_STICKY {
                return Err(Drop::Mac);
            }
            let before = learned.link;
            self.by_mac.remove(&mac);
            if let Some(count) = self.learned.get_mut(&before) {
                *count = count.saturating_sub(1);
            }
        }
        if self.learned.get(&link).copied().unwrap_or(0) >= MACS_PER_PEER {
            self.expire(now);
        }
        let count = self.learned.entry(link).or_insert(0);
        if *count >= MACS_PER_PEER {
            return Err(Drop::Mac);
        }
        *count += 1;
        self.by_mac.insert(mac, Learned { link, seen: now, bound: false });
        Ok(())
    }

    fn expire(&mut self, now: Instant) {
        let learned = &mut self.learned;
        self.by_mac.retain(|_, entry| {
            let keep = entry.bound || now.since(entry.seen) < MAC_STICKY;
            if !keep && let Some(count) = learned.get_mut(&entry.link) {
                *count = count.saturating_sub(1);
            }
            keep
        });
    }
}

fn is_group(mac: Mac) -> bool {
    mac[0] & 1 == 1
}

/// Destination and source MAC of an Ethernet frame.
fn macs(frame: &[u8]) -> Option<(Mac, Mac)> {
    let destination = frame.first_chunk::<6>()?;
    let source = frame.get(6..)?.first_chunk::<6>()?;
    (frame.len() >= 14).then_some((*destination, *source))
}

/// Source and destination address of an IP packet.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 => {
            let source = packet.get(12..)?.first_chunk::<4>()?;
            let destination = packet.get(16..)?.first_chunk::<4>()?;
            Some((Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into()))
        }
        6 if packet.len() >= 40 => {
            let source = packet.get(8..)?.first_chunk::<16>()?;
            let destination = packet.get(24..)?.first_chunk::<16>()?;
            Some((Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into()))
        }
        _ => None,
    }
}

/// A hash of what makes a flow: addresses, protocol and, where they stand right behind the header, ports.
pub(crate) fn flow_hash(layer2: bool, packet: &[u8]) -> u32 {
    let packet = if layer2 {
        match packet.get(12..14) {
            Some([0x08, 0x00] | [0x86, 0xdd]) => packet.get(14..).unwrap_or_default(),
            Some(_) | None => return fnv(0x811c_9dc5, packet.get(..14).unwrap_or(packet)),
        }
    } else {
        packet
    };
    let (key, protocol, rest) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => (packet.get(12..20), packet.get(9), packet.first().map_or(20, |byte| usize::from(byte & 15) * 4)),
        _ => (packet.get(8..40), packet.get(6), 40),
    };
    let hash = fnv(0x811c_9dc5, key.unwrap_or_default());
    let hash = fnv(hash, protocol.map(core::slice::from_ref).unwrap_or_default());
    match protocol {
        Some(6 | 17) => fnv(hash, packet.get(rest..rest + 4).unwrap_or_default()),
        _ => hash,
    }
}

/// FNV-1a, 32 bits: spreads flows over a few buckets, nothing depends on it being hard to steer.
fn fnv(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);

    fn ip(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&source);
        packet[16..20].copy_from_slice(&destination);
        packet
    }

    fn frame(destination: Mac, source: Mac) -> Vec<u8> {
        [&destination[..], &source[..], &[0x08, 0x06, 0, 0]].concat()
    }

    // protocol 2.5
    #[test]
    fn a_packet_goes_to_the_holder_of_its_address_and_comes_only_from_it() {
        let mut bridge = Bridge::new(false, vec!["10.0.0.1".parse().expect("an address")], [2; 6]);
        bridge.set_peer(A, &["10.0.0.2".parse().expect("an address")], [4; 6]);
        bridge.set_peer(B, &["10.0.0.2".parse().expect("an address"), "10.0.0.3".parse().expect("an address")], [6; 6]);
        let now = Instant::ZERO;
        assert_eq!(bridge.outbound(now, &ip([10, 0, 0, 1], [10, 0, 0, 2])), Ok(Goal::One(A)), "the first holder keeps it");
        assert_eq!(bridge.outbound(now, &ip([10, 0, 0, 1], [10, 0, 0, 9])), Err(Drop::NoRoute));
        assert_eq!(bridge.inbound(now, B, &ip([10, 0, 0, 3], [10, 0, 0, 1])), Ok(()));
        assert_eq!(bridge.inbound(now, B, &ip([10, 0, 0, 2], [10, 0, 0, 1])), Err(Drop::Source));
        assert_eq!(bridge.inbound(now, B, &ip([10, 0, 0, 3], [10, 0, 0, 8])), Err(Drop::Destination));
        assert_eq!(bridge.inbound(now, B, &[0x45]), Err(Drop::Packet));
        bridge.forget(A);
        assert_eq!(bridge.outbound(now, &ip([10, 0, 0, 1], [10, 0, 0, 2])), Err(Drop::NoRoute));
    }

    // protocol 2.6
    #[test]
    fn macs_are_learned_stick_and_cannot_be_stolen() {
        let mut bridge = Bridge::new(true, Vec::new(), [2; 6]);
        bridge.set_peer(A, &[], [4; 6]);
        bridge.set_peer(B, &[], [6; 6]);
        let now = Instant::from_millis(1000);
        let learned = [0x0a, 1, 1, 1, 1, 1];
        assert_eq!(bridge.outbound(now, &frame(learned, [2; 6])), Ok(Goal::All));
        assert_eq!(bridge.inbound(now, A, &frame([0xff; 6], learned)), Ok(()));
        assert_eq!(bridge.outbound(now, &frame(learned, [2; 6])), Ok(Goal::One(A)));
        assert_eq!(bridge.inbound(now, B, &frame([2; 6], learned)), Err(Drop::Mac));
        assert_eq!(bridge.inbound(now, B, &frame([2; 6], [4; 6])), Err(Drop::Mac), "a peer's own MAC is bound");
        assert_eq!(bridge.inbound(now, B, &frame([2; 6], [2; 6])), Err(Drop::Mac), "so is ours");
        let later = now + MAC_STICKY;
        assert_eq!(bridge.inbound(later, B, &frame([2; 6], learned)), Ok(()));
        assert_eq!(bridge.outbound(later, &frame(learned, [2; 6])), Ok(Goal::One(B)));
    }

    // protocol 2.6
    #[test]
    fn a_storm_is_limited_and_unicast_is_not() {
        let mut bridge = Bridge::new(true, Vec::new(), [2; 6]);
        bridge.set_peer(A, &[], [4; 6]);
        let now = Instant::from_millis(10_000);
        let granted = (0..5000).filter(|_| bridge.inbound(now, A, &frame([0xff; 6], [4; 6])).is_ok()).count();
        assert_eq!(granted as u64, STORM_BURST);
        assert_eq!(bridge.inbound(now, A, &frame([2; 6], [4; 6])), Ok(()));
        let second = now + Duration::from_secs(1);
        let granted = (0..5000).filter(|_| bridge.inbound(second, A, &frame([0xff; 6], [4; 6])).is_ok()).count();
        assert_eq!(granted as u64, STORM_FRAMES_PER_SECOND);
    }

    // protocol 2.6
    #[test]
    fn a_bound_mac_does_not_move_to_a_peer_that_derives_the_same_one() {
        let mut bridge = Bridge::new(true, Vec::new(), [2; 6]);
        bridge.set_peer(A, &[], [4; 6]);
        bridge.set_peer(B, &[], [4; 6]);
        let now = Instant::from_millis(1);
        assert_eq!(bridge.outbound(now, &frame([4; 6], [2; 6])), Ok(Goal::One(A)));
        assert_eq!(bridge.inbound(now, B, &frame([2; 6], [4; 6])), Err(Drop::Mac));
    }

    // protocol 2.6
    #[test]
    fn a_learned_mac_gives_way_to_the_peer_whose_own_it_is() {
        let mut bridge = Bridge::new(true, Vec::new(), [2; 6]);
        bridge.set_peer(A, &[], [4; 6]);
        let now = Instant::from_millis(1);
        assert_eq!(bridge.inbound(now, A, &frame([2; 6], [6; 6])), Ok(()), "nobody is known to have it");
        assert_eq!(bridge.outbound(now, &frame([6; 6], [2; 6])), Ok(Goal::One(A)));
        bridge.set_peer(B, &[], [6; 6]);
        assert_eq!(bridge.outbound(now, &frame([6; 6], [2; 6])), Ok(Goal::One(B)));
        assert_eq!(bridge.inbound(now, A, &frame([2; 6], [6; 6])), Err(Drop::Mac));
        assert_eq!(bridge.learned[&A], 0, "and does not count any more");
    }

    // protocol 2.6
    #[test]
    fn macs_that_were_not_seen_for_long_make_room_for_others() {
        let mut bridge = Bridge::new(true, Vec::new(), [2; 6]);
        bridge.set_peer(A, &[], [4; 6]);
        let many = |bridge: &mut Bridge, now, kind: u8| {
            let mac = |index: u32| [[kind, 0].as_slice(), &index.to_be_bytes()].concat().try_into().expect("six bytes");
            (0..3000).filter(|index| bridge.inbound(now, A, &frame([2; 6], mac(*index))).is_ok()).count()
        };
        let (now, later) = (Instant::from_millis(1), Instant::from_millis(1) + MAC_STICKY);
        assert_eq!(many(&mut bridge, now, 0x0a), MACS_PER_PEER);
        assert_eq!(many(&mut bridge, now, 0x0c), 0);
        assert_eq!(many(&mut bridge, later, 0x0c), MACS_PER_PEER);
    }

    // protocol 2.6
    #[test]
    fn what_this_machine_floods_is_limited_too_and_what_is_no_frame_goes_nowhere() {
        let mut bridge = Bridge::new(true, Vec::new(), [2; 6]);
        bridge.set_peer(A, &[], [4; 6]);
        let now = Instant::from_millis(10_000);
        let flooded: Vec<_> = (0..=STORM_BURST).map(|_| bridge.outbound(now, &frame([0xff; 6], [2; 6]))).collect();
        assert_eq!(flooded.iter().filter(|goal| **goal == Ok(Goal::All)).count() as u64, STORM_BURST);
        assert_eq!(flooded.last(), Some(&Err(Drop::Storm)));
        assert_eq!(bridge.outbound(now, &frame([4; 6], [2; 6])), Ok(Goal::One(A)), "what is for one is no flood");
        for len in 0..14 {
            let cut = &frame([4; 6], [6; 6])[..len];
            assert_eq!((bridge.outbound(now, cut), bridge.inbound(now, A, cut)), (Err(Drop::Packet), Err(Drop::Packet)), "{len} bytes");
        }
        let mut routed = Bridge::new(false, Vec::new(), [2; 6]);
        for packet in [&[][..], &[0x45; 19], &[0x60; 39], &[0x50; 60]] {
            assert_eq!(routed.outbound(now, packet), Err(Drop::Packet));
        }
    }

    // protocol 2.6
    #[test]
    fn a_peer_may_bring_a_bounded_number_of_macs() {
        let mut bridge = Bridge::new(true, Vec::new(), [2; 6]);
        bridge.set_peer(A, &[], [4; 6]);
        let now = Instant::from_millis(1);
        let taken = (0..3000_u32)
            .filter(|index| {
                let [a, b, c, d] = index.to_be_bytes();
                bridge.inbound(now, A, &frame([2; 6], [0x0a, 0, a, b, c, d])).is_ok()
            })
            .count();
        assert_eq!(taken, MACS_PER_PEER);
    }

    #[test]
    fn flows_are_told_apart_by_their_ports() {
        let mut one = ip([10, 0, 0, 1], [10, 0, 0, 2]);
        one[9] = 17;
        one.extend([1, 2, 3, 4]);
        let mut other = one.clone();
        other[21] = 9;
        assert_ne!(flow_hash(false, &one), flow_hash(false, &other));
        assert_eq!(flow_hash(false, &one), flow_hash(false, &one.clone()));
        one[9] = 1;
        other[9] = 1;
        assert_eq!(flow_hash(false, &one), flow_hash(false, &other), "what has no ports is one flow");
    }

    #[test]
    fn frames_that_hold_no_ip_are_told_apart_by_their_macs_alone() {
        let arp = |source| flow_hash(true, &frame([0xff; 6], source));
        let longer = [frame([0xff; 6], [4; 6]), vec![1, 2, 3]].concat();
        assert_ne!(arp([4; 6]), arp([6; 6]));
        assert_eq!(arp([4; 6]), flow_hash(true, &longer));
        let tagged = |port: u8| [&[4; 12][..], &[8, 0], &ip([10, 0, 0, 1], [10, 0, 0, 2])[..9], &[6; 11], &[0, port, 0, 0]].concat();
        assert_ne!(flow_hash(true, &tagged(1)), flow_hash(true, &tagged(2)), "behind the header of Ethernet ports count");
    }
}
