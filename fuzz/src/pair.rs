//! Two planes back to back with direct paths of datagrams between them, as a driver in small uses them: one large packet after the other,
//! cut, sealed, opened in batches and joined again. For counts of what a frame costs, with one peer or with many.
use crate::targets;
use shadowmesh_core::{
    config::Mode,
    crypto::Provider,
    id::{ConnId, Handle, LinkId, PathId},
    offload::{Checksum, Joiner, Joins, Large, Offload, PartialChecksum, Segmentation},
    plane::{Edit, Install, Plane, PlaneConfig, Report, Sink, Slabs, Via},
    session::{Chain, Side, Suite},
    time::{Duration, Instant},
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const DIRECT_PATH: PathId = PathId(2);
/// This bit makes a connection a flow of datagrams.
const FLOW: u64 = 1 << 63;
/// The indices by which the ends know sessions, for the first of them.
const SESSIONS: [u32; 2] = [0x0001_0000, 0x0002_0000];
/// Peers of one end, as many as addresses of its kind.
pub const PEERS_LIMIT: u16 = 10_000;
/// Bytes of payload in one frame.
pub const SIZE: u16 = 1_200;
/// Frames of one large packet.
pub const PIECES: usize = 40;

/// A driver in small: what goes out lies in one buffer, what comes in is joined.
struct Ports {
    out: Vec<u8>,
    sent: Vec<(ConnId, usize)>,
    joiner: Joiner,
    large: usize,
    bytes: usize,
}

impl Sink for Ports {
    fn room(&self, _conn: ConnId) -> usize {
        1 << 20
    }
    fn send(&mut self, via: Via, frame: &[u8]) {
        self.out.extend_from_slice(frame);
        self.sent.push((via.conn, frame.len()));
    }
    fn deliver(&mut self, packet: &[u8], checksum: Checksum) {
        let (large, bytes) = (&mut self.large, &mut self.bytes);
        self.joiner.add(packet, checksum, &mut |offload, packet| count(offload, packet, large, bytes));
    }
    fn punt(&mut self, _conn: ConnId, _handle: Option<Handle>, _bytes: &mut [u8]) {}
    fn report(&mut self, _report: Report) {}
}

fn count(offload: Offload, packet: &[u8], large: &mut usize, bytes: &mut usize) {
    *large += usize::from(offload.segmentation.is_some());
    *bytes += packet.len() - 40;
}

struct End {
    plane: Plane,
    ports: Ports,
    packet: Vec<u8>,
    sequence: u32,
    /// With so many of its peers it talks, with one after the other.
    active: u16,
    next: u16,
}

/// An end has an address for each peer.
fn host(end: u8, peer: u16) -> Ipv4Addr {
    let [high, low] = peer.to_be_bytes();
    Ipv4Addr::new(10, end, high, low)
}

impl End {
    fn new(now: Instant, chain: &Chain, crypto: &dyn Provider, side: Side, (peers, active): (u16, u16)) -> Self {
        let (own, other) = if side == Side::Initiator { (0, 1) } else { (1, 0) };
        let addresses = (0..peers).map(|peer| IpAddr::from(host(own, peer))).collect();
        let config = PlaneConfig { layer2: false, addresses, mac: [2; 6], mode: Mode::SwitchLossless };
        let joiner = Joiner::new(false, Joins { tcp: true, udp: true });
        let ports = Ports { out: Vec::new(), sent: Vec::new(), joiner, large: 0, bytes: 0 };
        let mut end = Self { plane: Plane::new(config), ports, packet: large_packet(), sequence: 0, active, next: 0 };
        for peer in 0..peers {
            let link = LinkId(1 + u32::from(peer));
            let [local, remote] = [own, other].map(|end| SESSIONS[usize::from(end)] + u32::from(peer));
            let keys = chain.keys(side, crypto);
            let slabs = Slabs::default();
            let install = Install { session: chain.session_id(), local, remote, keys, main: DIRECT_PATH, lanes: 1, slabs };
            let via = Via { conn: ConnId(FLOW | u64::from(peer)), handle: None };
            for edit in [
                Edit::Peer { link, addresses: vec![host(other, peer).into()], mac: [4; 6] },
                Edit::Path { link, path: DIRECT_PATH, via, window: None, rtt: Some(Duration::from_millis(1)), budget: None },
                Edit::Install { link, install: Box::new(install) },
                Edit::Promote { link, local },
            ] {
                end.plane.apply(now, edit, &mut end.ports);
            }
        }
        end.packet[12..16].copy_from_slice(&host(own, 0).octets());
        end.packet[16..20].copy_from_slice(&host(other, 0).octets());
        end
    }

    /// One large packet of the interface, to the next peer.
    fn send(&mut self, now: Instant) {
        for at in [14, 18] {
            self.packet[at..at + 2].copy_from_slice(&self.next.to_be_bytes());
        }
        self.next = (self.next + 1) % self.active;
        self.packet[24..28].copy_from_slice(&self.sequence.to_be_bytes());
        self.sequence = self.sequence.wrapping_add(PIECES as u32 * u32::from(SIZE));
        let checksum = Some(PartialChecksum { start: 20, offset: 16 });
        let segmentation = Some(Segmentation { kind: Large::TcpV4, size: SIZE });
        let sent = self.plane.outbound_offloaded(now, Offload { checksum, segmentation }, &self.packet, &mut self.ports);
        assert_eq!(sent, PIECES);
    }

    /// What the other end has sent, in one batch.
    fn take(&mut self, now: Instant, from: &mut Self) {
        let remote = SocketAddr::from(([192, 0, 2, 1], 1));
        let mut rest = &mut from.ports.out[..];
        for (flow, len) in from.ports.sent.drain(..) {
            let (datagram, after) = rest.split_at_mut(len);
            rest = after;
            self.plane.datagrams(now, Some(flow), remote, [datagram], &mut self.ports);
        }
        from.ports.out.clear();
        let Ports { joiner, large, bytes, .. } = &mut self.ports;
        joiner.flush(&mut |offload, packet| count(offload, packet, large, bytes));
        if self.plane.deadline().is_some_and(|due| due.at <= now) {
            self.plane.alarm(now, &mut self.ports);
        }
    }
}

/// Of TCP, without addresses.
fn large_packet() -> Vec<u8> {
    let payload = PIECES * usize::from(SIZE);
    let mut packet = vec![0x45, 0];
    packet.extend((40 + payload as u16).to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    packet.resize(40 + payload, 7);
    packet
}

/// Both ends, and how far they are.
pub struct Pair {
    a: End,
    b: End,
    now: Instant,
}

/// What came out at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// Bytes of payload.
    pub bytes: usize,
    /// Large packets.
    pub large: usize,
}

impl Pair {
    /// A pair with a session of this suite.
    pub fn new(suite: Suite, crypto: &dyn Provider) -> Self {
        Self::among(1, 1, suite, crypto)
    }

    /// Two ends with so many sessions between them, each as with another peer, of which so many take turns; the others are idle.
    ///
    /// # Panics
    /// None, more active ones than there are, or more than `PEERS_LIMIT`.
    pub fn among(peers: u16, active: u16, suite: Suite, crypto: &dyn Provider) -> Self {
        assert!(0 < active && active <= peers && peers <= PEERS_LIMIT, "{active} of {peers} peers; {PEERS_LIMIT} at most");
        let (now, chain) = (Instant::from_millis(1_000), targets::chain(suite));
        let [a, b] = [Side::Initiator, Side::Responder].map(|side| End::new(now, &chain, crypto, side, (peers, active)));
        Self { a, b, now }
    }

    /// So often a large packet each way.
    pub fn run(&mut self, rounds: usize) -> Came {
        let Self { a, b, now } = self;
        let before = (a.ports.bytes + b.ports.bytes, a.ports.large + b.ports.large);
        for _ in 0..rounds {
            *now = *now + Duration::from_micros(500);
            a.send(*now);
            b.send(*now);
            b.take(*now, a);
            a.take(*now, b);
        }
        Came { bytes: a.ports.bytes + b.ports.bytes - before.0, large: a.ports.large + b.ports.large - before.1 }
    }
}
