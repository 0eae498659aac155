//! What must be true of packets: each that is handed in at one host comes out at the other at most once, in order, as it was.
//!
//! A flow numbers its packets. The model knows which number comes next: a number above it leaves a hole, which counts as lost
//! until it comes (then as reordered); a number that came before is doubled; a byte that is not as it was sent is a panic.
use shadowmesh_core::time::{Duration, Instant};
use std::{collections::BTreeSet, net::Ipv6Addr};

const IPV6_HEADER_LEN: usize = 40;
const UDP_HEADER_LEN: usize = 8;
const ETHERNET_HEADER_LEN: usize = 14;
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Flow and number.
const TALE_LEN: usize = 12;
/// The least that a packet of a flow can be, bytes.
pub const PACKET_LEN_MIN: usize = IPV6_HEADER_LEN + UDP_HEADER_LEN + TALE_LEN;

/// Numbered packets from one overlay address to another.
#[derive(Clone, Debug)]
pub struct Flow {
    number: u32,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    /// Destination and source MAC, when the overlay carries Ethernet.
    ethernet: Option<([u8; 6], [u8; 6])>,
    len: usize,
    handed: u64,
    next: u64,
    missing: BTreeSet<u64>,
    doubled: u64,
    reordered: u64,
    last_at: Option<Instant>,
    longest_gap: Duration,
}

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Packets handed in.
    pub handed: u64,
    /// Packets that did not come out so far.
    pub lost: u64,
    /// Packets that came out a second time.
    pub doubled: u64,
    /// Packets that came out behind later ones.
    pub reordered: u64,
}

impl Flow {
    /// A flow of packets of `len` bytes each.
    pub fn new(number: u32, source: Ipv6Addr, destination: Ipv6Addr, len: usize) -> Self {
        Self {
            number,
            source,
            destination,
            ethernet: None,
            len: len.max(PACKET_LEN_MIN),
            handed: 0,
            next: 0,
            missing: BTreeSet::new(),
            doubled: 0,
            reordered: 0,
            last_at: None,
            longest_gap: Duration::ZERO,
        }
    }

    /// Packets go as Ethernet frames between these MACs.
    pub fn over_ethernet(&mut self, destination: [u8; 6], source: [u8; 6]) {
        self.ethernet = Some((destination, source));
    }

    /// Whether packets go as Ethernet frames.
    pub fn is_ethernet(&self) -> bool {
        self.ethernet.is_some()
    }

    /// The next packet to hand in.
    pub fn hand_in(&mut self) -> Vec<u8> {
        self.handed += 1;
        self.packet(self.handed - 1)
    }

    /// The number of the flow that a packet is of.
    pub fn number_of(packet: &[u8]) -> Option<u32> {
        inner(packet).get(48..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// The number of a packet within its flow.
    pub fn place_of(packet: &[u8]) -> u64 {
        let number = inner(packet).get(52..).and_then(<[u8]>::first_chunk).map(|bytes| u64::from_be_bytes(*bytes));
        number.expect("only packets of flows are handed in, so nothing shorter can come out")
    }

    /// A packet came out of the interface; true: behind a later one.
    pub fn came_out(&mut self, now: Instant, packet: &[u8]) -> bool {
        let number = Self::place_of(packet);
        assert!(number < self.handed, "packet {number} of flow {} was never handed in", self.number);
        assert!(packet == self.packet(number), "packet {number} of flow {} is not as it was", self.number);
        if let Some(last) = self.last_at.replace(now) {
            self.longest_gap = self.longest_gap.max(now.since(last));
        }
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            return false;
        }
        if self.missing.remove(&number) {
            self.reordered += 1;
        } else {
            self.doubled += 1;
        }
        true
    }

    /// What became of it so far.
    pub fn account(&self) -> Account {
        let lost = self.missing.len() as u64 + (self.handed - self.next);
        Account { handed: self.handed, lost, doubled: self.doubled, reordered: self.reordered }
    }

    /// The longest time without a packet since the last call.
    pub fn take_longest_gap(&mut self, now: Instant) -> Duration {
        let open = self.last_at.map_or(Duration::ZERO, |last| now.since(last));
        core::mem::take(&mut self.longest_gap).max(open)
    }

    /// IPv6 and UDP, then flow and number, then bytes that follow from both.
    fn packet(&self, number: u64) -> Vec<u8> {
        let udp_len = (self.len - IPV6_HEADER_LEN) as u16;
        let mut packet = Vec::with_capacity(ETHERNET_HEADER_LEN + self.len);
        if let Some((destination, source)) = self.ethernet {
            packet.extend_from_slice(&destination);
            packet.extend_from_slice(&source);
            packet.extend_from_slice(&ETHERTYPE_IPV6);
        }
        let head = packet.len();
        packet.extend_from_slice(&[0x60, 0, 0, 0]);
        packet.extend_from_slice(&udp_len.to_be_bytes());
        packet.extend_from_slice(&[17, 64]);
        packet.extend_from_slice(&self.source.octets());
        packet.extend_from_slice(&self.destination.octets());
        packet.extend_from_slice(&(self.number as u16).to_be_bytes());
        packet.extend_from_slice(&9u16.to_be_bytes());
        packet.extend_from_slice(&udp_len.to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(&self.number.to_be_bytes());
        packet.extend_from_slice(&number.to_be_bytes());
        let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(self.number);
        packet.extend((packet.len() - head..self.len).map(|at| (seed >> (at % 8 * 8)) as u8));
        packet
    }
}

/// The IP packet in what came out: that itself, or the inside of an Ethernet frame.
fn inner(packet: &[u8]) -> &[u8] {
    let declared = packet.get(4..6).and_then(<[u8]>::first_chunk).map(|len| IPV6_HEADER_LEN + usize::from(u16::from_be_bytes(*len)));
    let is_ip = packet.first() == Some(&0x60) && declared == Some(packet.len());
    if is_ip { packet } else { packet.get(ETHERNET_HEADER_LEN..).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        Flow::new(7, Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, 200)
    }

    #[test]
    fn holes_copies_and_late_packets_are_told_apart() {
        let mut flow = flow();
        let packets: Vec<_> = (0..5).map(|_| flow.hand_in()).collect();
        for at in [0, 2, 3, 1, 3] {
            flow.came_out(Instant::from_millis(1), &packets[at]);
        }
        assert_eq!(flow.account(), Account { handed: 5, lost: 1, doubled: 1, reordered: 1 });
        assert_eq!(Flow::number_of(&packets[0]), Some(7));
    }

    #[test]
    fn the_longest_gap_counts_up_to_now() {
        let mut flow = flow();
        for (at, packet) in [(1, flow.hand_in()), (4, flow.hand_in()), (5, flow.hand_in())] {
            flow.came_out(Instant::from_millis(at), &packet);
        }
        assert_eq!(flow.take_longest_gap(Instant::from_millis(6)), Duration::from_millis(3));
        assert_eq!(flow.take_longest_gap(Instant::from_millis(15)), Duration::from_millis(10));
    }

    #[test]
    #[should_panic(expected = "is not as it was")]
    fn an_altered_packet_stops_the_test() {
        let mut flow = flow();
        let mut packet = flow.hand_in();
        packet[100] ^= 1;
        flow.came_out(Instant::ZERO, &packet);
    }

    #[test]
    #[should_panic(expected = "was never handed in")]
    fn a_forged_packet_stops_the_test() {
        let mut flow = flow();
        let packet = flow.hand_in();
        self::flow().came_out(Instant::ZERO, &packet);
    }
}
