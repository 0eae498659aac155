//! Two planes back to back with a direct path of datagrams between them, as a driver in small uses them: one large packet after the other,
//! cut, sealed, opened in batches and joined again. For counts of what a frame costs.
use crate::targets;
use shadowmesh_core::{
    config::Mode,
    crypto::Provider,
    id::{ConnId, Handle, LinkId, PathId},
    offload::{Checksum, Joiner, Joins, Large, Offload, PartialChecksum, Segmentation},
    plane::{Edit, Install, Plane, PlaneConfig, Report, Sink, Via},
    session::{Chain, Side, Suite},
    time::{Duration, Instant},
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const LINK: LinkId = LinkId(1);
const DIRECT_PATH: PathId = PathId(2);
/// A flow of datagrams.
const FLOW: ConnId = ConnId(1 << 63);
/// Bytes of payload in one frame.
pub const SIZE: u16 = 1_200;
/// Frames of one large packet.
pub const PIECES: usize = 40;

/// A driver in small: what goes out lies in one buffer, what comes in is joined.
struct Ports {
    out: Vec<u8>,
    lengths: Vec<usize>,
    joiner: Joiner,
    large: usize,
    bytes: usize,
}

impl Sink for Ports {
    fn room(&self, _conn: ConnId) -> usize {
        1 << 20
    }
    fn send(&mut self, _via: Via, frame: &[u8]) {
        self.out.extend_from_slice(frame);
        self.lengths.push(frame.len());
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
}

fn host(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

impl End {
    fn new(now: Instant, chain: &Chain, crypto: &dyn Provider, side: Side, (own, other): (u8, u8)) -> Self {
        let config = PlaneConfig { layer2: false, addresses: vec![host(own)], mac: [2; 6], mode: Mode::SwitchLossless };
        let joiner = Joiner::new(false, Joins { tcp: true, udp: true });
        let ports = Ports { out: Vec::new(), lengths: Vec::new(), joiner, large: 0, bytes: 0 };
        let mut end = Self { plane: Plane::new(config), ports, packet: large_packet(own, other), sequence: 0 };
        let install = Install {
            session: chain.session_id(),
            local: own.into(),
            remote: other.into(),
            keys: chain.keys(side, crypto),
            main: DIRECT_PATH,
        };
        let via = Via { conn: FLOW, handle: None };
        for edit in [
            Edit::Peer { link: LINK, addresses: vec![host(other)], mac: [4; 6] },
            Edit::Path { link: LINK, path: DIRECT_PATH, via, window: None, rtt: Some(Duration::from_millis(1)), budget: None },
            Edit::Install { link: LINK, install: Box::new(install) },
            Edit::Promote { link: LINK, local: own.into() },
        ] {
            end.plane.apply(now, edit, &mut end.ports);
        }
        end
    }

    /// One large packet of the interface.
    fn send(&mut self, now: Instant) {
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
        for len in from.ports.lengths.drain(..) {
            let (datagram, after) = rest.split_at_mut(len);
            rest = after;
            self.plane.datagrams(now, Some(FLOW), remote, [datagram], &mut self.ports);
        }
        from.ports.out.clear();
        let Ports { joiner, large, bytes, .. } = &mut self.ports;
        joiner.flush(&mut |offload, packet| count(offload, packet, large, bytes));
        if self.plane.deadline().is_some_and(|due| due.at <= now) {
            self.plane.alarm(now, &mut self.ports);
        }
    }
}

fn large_packet(own: u8, other: u8) -> Vec<u8> {
    let payload = PIECES * usize::from(SIZE);
    let mut packet = vec![0x45, 0];
    packet.extend((40 + payload as u16).to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, own, 10, 0, 0, other]);
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
        let (now, chain) = (Instant::from_millis(1_000), targets::chain(suite));
        let a = End::new(now, &chain, crypto, Side::Initiator, (1, 2));
        let b = End::new(now, &chain, crypto, Side::Responder, (2, 1));
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
