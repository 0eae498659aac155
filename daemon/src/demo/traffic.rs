//! The demo's traffic: numbered IPv6/UDP packets, a thousand a second each way, and the bookkeeping of what arrives.
use std::{
    net::Ipv6Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Time between two packets of one direction.
const PACE: Duration = Duration::from_millis(1);
/// A packet with all headers, in bytes.
const PACKET_BYTES: usize = 256;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
/// Where the sequence number stands in the packet.
const SEQUENCE_AT: usize = IPV6_BYTES + UDP_BYTES;
const PORT: u16 = 4747;

/// What arrived of one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    /// Different packets that arrived.
    pub(crate) delivered: u64,
    /// Packets that had arrived before.
    pub(crate) duplicated: u64,
    /// Packets that arrived behind a later one.
    pub(crate) reordered: u64,
    /// Packets that nobody sent like this.
    pub(crate) damaged: u64,
    /// The highest number so far, plus one.
    pub(crate) next: u64,
    /// The longest silence between two arrivals since the start.
    pub(crate) gap: Duration,
    /// The same since the last mark; a silence that began before counts from the mark on.
    pub(crate) gap_since_mark: Duration,
    /// The last arrival.
    pub(crate) last: Option<Instant>,
}

impl Arrivals {
    /// Numbers below the highest that have not arrived.
    pub(crate) fn missing(&self) -> u64 {
        self.next - self.delivered
    }
}

/// The bookkeeping behind `Arrivals`.
#[derive(Debug, Default)]
struct Book {
    summary: Arrivals,
    marked: Option<Instant>,
    /// One bit a number.
    seen: Vec<u64>,
}

impl Book {
    fn arrived(&mut self, sequence: u64, now: Instant) {
        let summary = &mut self.summary;
        if let Some(last) = summary.last {
            summary.gap = summary.gap.max(now.saturating_duration_since(last));
            let since = self.marked.map_or(last, |marked| marked.max(last));
            summary.gap_since_mark = summary.gap_since_mark.max(now.saturating_duration_since(since));
        }
        summary.last = Some(now);
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            summary.duplicated += 1;
            return;
        }
        self.seen[word] |= bit;
        summary.delivered += 1;
        if sequence < summary.next {
            summary.reordered += 1;
        } else {
            summary.next = sequence + 1;
        }
    }
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Flow {
    source: Ipv6Addr,
    target: Ipv6Addr,
    sent: AtomicU64,
    stopped: AtomicBool,
    book: Mutex<Book>,
}

impl Flow {
    /// A direction on which nothing was sent.
    pub(crate) fn new(source: Ipv6Addr, target: Ipv6Addr) -> Arc<Self> {
        Arc::new(Self { source, target, sent: AtomicU64::new(0), stopped: AtomicBool::new(false), book: Mutex::default() })
    }

    /// Sends at a steady pace on a thread of its own until `Flow::stop`.
    pub(crate) fn send(self: &Arc<Self>, into: flume::Sender<Vec<u8>>) -> std::io::Result<JoinHandle<()>> {
        let flow = Arc::clone(self);
        std::thread::Builder::new().name("demo-sender".to_owned()).spawn(move || {
            let start = Instant::now();
            let mut number = 0;
            while !flow.stopped.load(Ordering::Relaxed) {
                let due = start + PACE * u32::try_from(number).unwrap_or(u32::MAX);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // Counted before it can arrive.
                flow.sent.store(number + 1, Ordering::SeqCst);
                if into.send(packet(flow.source, flow.target, number)).is_err() {
                    flow.sent.store(number, Ordering::SeqCst);
                    return;
                }
                number += 1;
            }
        })
    }

    /// Takes what arrives on a thread of its own until the other end is dropped.
    pub(crate) fn receive(self: &Arc<Self>, from: flume::Receiver<Vec<u8>>) -> std::io::Result<JoinHandle<()>> {
        let flow = Arc::clone(self);
        std::thread::Builder::new().name("demo-receiver".to_owned()).spawn(move || {
            while let Ok(bytes) = from.recv() {
                flow.take(&bytes, Instant::now());
            }
        })
    }

    /// No more packets.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Packets sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// What arrived so far.
    pub(crate) fn arrivals(&self) -> Arrivals {
        self.lock().summary.clone()
    }

    /// Begins a new window for `Arrivals::gap_since_mark`.
    pub(crate) fn mark(&self) {
        let mut book = self.lock();
        book.marked = Some(Instant::now());
        book.summary.gap_since_mark = Duration::ZERO;
    }

    fn take(&self, bytes: &[u8], now: Instant) {
        let number = bytes.get(SEQUENCE_AT..SEQUENCE_AT + 8).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
        let mut book = self.lock();
        match number.filter(|number| *number < self.sent() && bytes == packet(self.source, self.target, *number)) {
            Some(number) => book.arrived(number, now),
            None => book.summary.damaged += 1,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A valid IPv6/UDP packet that carries its number; the padding depends on the number, so that damage shows.
fn packet(source: Ipv6Addr, target: Ipv6Addr, number: u64) -> Vec<u8> {
    let udp_length = u16::try_from(PACKET_BYTES - IPV6_BYTES).expect("a small packet");
    let mut bytes = Vec::with_capacity(PACKET_BYTES);
    bytes.extend_from_slice(&[0x60, 0, 0, 0]);
    bytes.extend_from_slice(&udp_length.to_be_bytes());
    bytes.extend_from_slice(&[17, 64]);
    bytes.extend_from_slice(&source.octets());
    bytes.extend_from_slice(&target.octets());
    bytes.extend_from_slice(&PORT.to_be_bytes());
    bytes.extend_from_slice(&PORT.to_be_bytes());
    bytes.extend_from_slice(&udp_length.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&number.to_be_bytes());
    let mut filler = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while bytes.len() < PACKET_BYTES {
        filler = filler.rotate_left(7) ^ 0x5bd1_e995;
        bytes.push(filler.to_be_bytes()[0]);
    }
    let sum = udp_checksum(&bytes);
    bytes[IPV6_BYTES + 6..IPV6_BYTES + 8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The UDP checksum over the IPv6 pseudo header (RFC 8200, 8.1), the checksum field being zero.
fn udp_checksum(packet: &[u8]) -> u16 {
    let length = u32::try_from(packet.len() - IPV6_BYTES).expect("a small packet");
    let mut sum = length + 17;
    // Both addresses and everything behind the IPv6 header, as 16-bit words.
    for pair in packet[8..].chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    match !(sum as u16) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    fn flow(sent: u64) -> Arc<Flow> {
        let flow = Flow::new(A, B);
        flow.sent.store(sent, Ordering::SeqCst);
        flow
    }

    #[test]
    fn a_packet_is_valid_ip_and_udp() {
        let bytes = packet(A, B, 7);
        assert_eq!(bytes.len(), PACKET_BYTES);
        assert_eq!(u16::from_be_bytes([bytes[4], bytes[5]]) as usize, PACKET_BYTES - IPV6_BYTES);
        let mut zeroed = bytes.clone();
        zeroed[46..48].fill(0);
        assert_eq!(udp_checksum(&zeroed).to_be_bytes(), bytes[46..48]);
        // Summed over a packet whose checksum stands in its place, the complement is zero (sent as ffff).
        assert_eq!(udp_checksum(&bytes), 0xffff);
    }

    #[test]
    fn loss_doubles_disorder_and_damage_are_told_apart() {
        let flow = flow(10);
        let now = Instant::now();
        for number in [0, 1, 1, 3, 2, 5] {
            flow.take(&packet(A, B, number), now);
        }
        let mut damaged = packet(A, B, 6);
        damaged[100] ^= 1;
        flow.take(&damaged, now);
        flow.take(&packet(A, B, 99), now);
        flow.take(&[], now);
        let arrivals = flow.arrivals();
        assert_eq!((arrivals.delivered, arrivals.duplicated, arrivals.reordered, arrivals.damaged), (5, 1, 1, 3));
        assert_eq!(arrivals.missing(), 1);
    }

    #[test]
    fn a_gap_counts_from_the_mark() {
        let flow = flow(10);
        let start = Instant::now();
        flow.take(&packet(A, B, 0), start);
        flow.mark();
        let marked = Instant::now();
        let later = marked + Duration::from_secs(5);
        flow.take(&packet(A, B, 1), later);
        let arrivals = flow.arrivals();
        assert_eq!(arrivals.gap, later - start);
        assert!(arrivals.gap_since_mark >= Duration::from_secs(5) && arrivals.gap_since_mark <= arrivals.gap);
    }
}
