//! Joins packets that follow one another in one flow to one large packet, as the receiving side of a network card does (GRO).
//!
//! Only packets with a checksum that is only begun are joined: nobody has to look at their payload. Packets leave in the order in which they
//! came; whatever does not continue the run ends it.
use super::{
    Checksum, Layout, Offload, Segmentation, Transport,
    checksum::{fold, replace, sum},
    segments::LAST_FLAGS,
};

/// An IP packet at most, bytes.
const IP_BYTES: usize = 65_535;
/// Pieces of a large UDP packet at most (`UDP_MAX_SEGMENTS` of Linux).
const UDP_PIECES: u16 = 64;
/// Flags of TCP with which a packet may be joined: ACK, and PSH or FIN on the last.
const JOINED_FLAGS: u8 = 0x10 | LAST_FLAGS;

/// What the interface takes joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    /// Packets of TCP.
    pub tcp: bool,
    /// Packets of UDP.
    pub udp: bool,
}

/// A run of packets that may become longer.
#[derive(Debug)]
struct Run {
    layout: Layout,
    /// Payload of each but the last.
    size: usize,
    pieces: u16,
    /// The next sequence number of TCP.
    sequence: u32,
    is_open: bool,
}

/// Joins what it is given.
#[derive(Debug)]
pub struct Joiner {
    layer2: bool,
    joins: Joins,
    buffer: Vec<u8>,
    run: Option<Run>,
}

impl Joiner {
    /// With nothing in it.
    pub fn new(layer2: bool, joins: Joins) -> Self {
        Self { layer2, joins, buffer: Vec::new(), run: None }
    }

    /// Whether it joins Ethernet frames.
    pub fn is_layer2(&self) -> bool {
        self.layer2
    }

    /// Joins only these from now on.
    pub fn restrict(&mut self, joins: Joins) {
        self.joins = joins;
    }

    /// Takes one packet; `write` gets what is complete.
    pub fn add(&mut self, packet: &[u8], checksum: Checksum, write: &mut dyn FnMut(Offload, &[u8])) {
        let layout = if checksum == Checksum::Partial { Layout::of(self.layer2, packet) } else { None };
        let Some(layout) = layout else {
            self.flush(write);
            // without a layout it cannot have a checksum that is only begun: the plane has looked
            return write(Offload::default(), packet);
        };
        if self.extend(packet, layout) {
            return;
        }
        self.flush(write);
        let payload = packet.len() - layout.payload;
        let wanted = match layout.transport {
            Transport::Tcp => self.joins.tcp && tcp_flags(packet, layout) & !JOINED_FLAGS == 0,
            Transport::Udp => self.joins.udp,
        };
        if !wanted || payload == 0 {
            return write(Offload { checksum: layout.partial(), segmentation: None }, packet);
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(packet);
        let is_open = layout.transport == Transport::Udp || tcp_flags(packet, layout) & LAST_FLAGS == 0;
        let sequence = if layout.transport == Transport::Tcp { tcp_sequence(packet, layout).wrapping_add(payload as u32) } else { 0 };
        self.run = Some(Run { layout, size: payload, pieces: 1, sequence, is_open });
    }

    /// Nothing follows for now.
    pub fn flush(&mut self, write: &mut dyn FnMut(Offload, &[u8])) {
        let Some(run) = self.run.take() else { return };
        let size = u16::try_from(run.size).unwrap_or(u16::MAX);
        let segmentation = (run.pieces > 1).then_some(Segmentation { kind: run.layout.large(), size });
        if segmentation.is_some() {
            complete_headers(&mut self.buffer, run.layout);
        }
        write(Offload { checksum: run.layout.partial(), segmentation }, &self.buffer);
    }

    /// Adds a packet to the run, when it continues it.
    fn extend(&mut self, packet: &[u8], layout: Layout) -> bool {
        let Some(run) = &mut self.run else { return false };
        let payload = packet.len() - layout.payload;
        let fits = self.buffer.len() - layout.ip + payload <= IP_BYTES;
        if !run.is_open || run.layout != layout || payload == 0 || payload > run.size || !fits {
            return false;
        }
        let (Some(first), Some(head)) = (self.buffer.get_mut(..layout.payload), packet.get(..layout.payload)) else { return false };
        if !continues(first, head, run) {
            return false;
        }
        run.pieces += 1;
        run.is_open = payload == run.size;
        match layout.transport {
            Transport::Udp => run.is_open &= run.pieces < UDP_PIECES,
            Transport::Tcp => {
                let last = tcp_flags(head, layout) & LAST_FLAGS;
                first[layout.start + 13] |= last;
                run.is_open &= last == 0;
                run.sequence = run.sequence.wrapping_add(payload as u32);
            }
        }
        self.buffer.extend_from_slice(&packet[layout.payload..]);
        true
    }
}

/// Whether a packet with these headers is the next of the run.
fn continues(first: &[u8], next: &[u8], run: &Run) -> bool {
    let Layout { ip, start, is_v6, transport, .. } = run.layout;
    let same = |from: usize, to: usize| first[from..to] == next[from..to];
    let same_ip = if is_v6 {
        same(ip, ip + 4) && same(ip + 6, start)
    } else {
        let word = |header: &[u8], at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        // one that may not be cut again needs no number of its own (RFC 6864 4.1)
        let atomic = first[ip + 6] & 0x40 != 0;
        let numbered = word(next, ip + 4) == word(first, ip + 4).wrapping_add(run.pieces);
        (atomic || numbered) && same(ip, ip + 2) && same(ip + 6, ip + 10) && same(ip + 12, start)
    };
    let same_transport = match transport {
        Transport::Udp => same(start, start + 4),
        Transport::Tcp => {
            let flags = next[start + 13];
            // ports; acknowledgement, length and the bits beside it; window; urgent pointer and options
            same(start, start + 4)
                && same(start + 8, start + 13)
                && same(start + 14, start + 16)
                && same(start + 18, run.layout.payload)
                && flags & !JOINED_FLAGS == 0
                && (flags ^ first[start + 13]) & !LAST_FLAGS == 0
                && tcp_sequence(next, run.layout) == run.sequence
        }
    };
    same(0, ip) && same_ip && same_transport
}

/// Makes the headers of the first packet those of all.
fn complete_headers(packet: &mut [u8], layout: Layout) {
    let Layout { ip, start, is_v6, transport, .. } = layout;
    let word = |packet: &[u8], at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let put = |packet: &mut [u8], at: usize, word: u16| packet[at..at + 2].copy_from_slice(&word.to_be_bytes());
    let (whole, covered) = ((packet.len() - ip) as u16, (packet.len() - start) as u16);
    let before = if is_v6 {
        let before = word(packet, ip + 4) - (start - ip - super::IPV6_LEN) as u16;
        put(packet, ip + 4, whole - super::IPV6_LEN as u16);
        before
    } else {
        let before = word(packet, ip + 2) - (start - ip) as u16;
        put(packet, ip + 2, whole);
        put(packet, ip + 10, 0);
        let header = !fold(sum(&packet[ip..start]));
        put(packet, ip + 10, header);
        before
    };
    let field = start + usize::from(transport.checksum_offset());
    let pseudo = replace(word(packet, field), before, covered);
    put(packet, field, pseudo);
    if transport == Transport::Udp {
        put(packet, start + 4, covered);
    }
}

fn tcp_sequence(packet: &[u8], layout: Layout) -> u32 {
    let at = layout.start + 4;
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

fn tcp_flags(packet: &[u8], layout: Layout) -> u8 {
    packet[layout.start + 13]
}
