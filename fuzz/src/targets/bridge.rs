//! Packets at the interface's door, IP and Ethernet: who gets what, and what may come in from a peer (protocol 2.4 to 2.6).
use super::{cast, memo::Memo, script::Script};
use shadowmesh_core::{
    config::Mode,
    handshake::Role,
    id::{ConnId, Handle, LinkId, PathId},
    offload::Checksum,
    plane::{Edit, Install, Plane, PlaneConfig, Report, Sink, Slabs, Via},
    session::{Chain, EpochKeys, Side},
    time::{Duration, Instant},
    wire::{Counter, FrameHeader, INNER_ETHERNET, INNER_IP},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Steps of one script.
const STEPS: usize = 256;
const PEERS: u32 = 3;
/// Addresses of IPv4 from which a peer takes its own.
const ROOM: u8 = 64;
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Interface mode, then packets each way, peers that change their addresses or leave, and time.
pub fn bridge(data: &[u8]) {
    let mut script = Script::new(data);
    let mut scene = Scene::new(script.byte() & 1 == 1);
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        scene.step(&mut script);
    }
}

#[derive(Default)]
struct Ports {
    /// Connections that frames went to since the last look: one a peer.
    sent: Vec<ConnId>,
    delivered: Vec<Vec<u8>>,
}

impl Sink for Ports {
    fn room(&self, _conn: ConnId) -> usize {
        1 << 20
    }
    fn send(&mut self, via: Via, _frame: &[u8]) {
        self.sent.push(via.conn);
    }
    fn deliver(&mut self, packet: &[u8], _checksum: Checksum) {
        self.delivered.push(packet.to_vec());
    }
    fn punt(&mut self, _conn: ConnId, _handle: Option<Handle>, _bytes: &mut [u8]) {}
    fn report(&mut self, _report: Report) {}
}

struct Peer {
    keys: EpochKeys,
    sequence: u64,
    addresses: Vec<IpAddr>,
    mac: [u8; 6],
}

struct Scene {
    layer2: bool,
    plane: Plane,
    ports: Ports,
    now: Instant,
    peers: BTreeMap<u32, Peer>,
    chains: u8,
}

impl Scene {
    fn new(layer2: bool) -> Self {
        let config = PlaneConfig { layer2, addresses: own(), mac: OWN_MAC, mode: Mode::SwitchLossless };
        let (plane, ports) = (Plane::new(config), Ports::default());
        let mut scene = Self { layer2, plane, ports, now: Instant::from_millis(1_000), peers: BTreeMap::new(), chains: 0 };
        for number in 0..PEERS {
            scene.join(number, vec![v4(number as u8 * ROOM + 10), v6(10 + number as u8)], [2, 0, 0, 0, 1, number as u8]);
        }
        scene
    }

    fn apply(&mut self, edit: Edit) {
        self.plane.apply(self.now, edit, &mut self.ports);
    }

    fn join(&mut self, number: u32, addresses: Vec<IpAddr>, mac: [u8; 6]) {
        let link = LinkId(number);
        self.apply(Edit::Peer { link, addresses: addresses.clone(), mac });
        if let Some(peer) = self.peers.get_mut(&number) {
            (peer.addresses, peer.mac) = (addresses, mac);
            return;
        }
        self.chains = self.chains.wrapping_add(1);
        let chain: Arc<Chain> = Arc::new(cast::genuine(Role::PeerPeer).concluded.chain.next(&[self.chains; 32], &[0; 32], &[0; 64]));
        let via = Via { conn: ConnId(u64::from(number) * 2), handle: None };
        self.apply(Edit::Path { link, path: PathId::RELAY, via, window: None, rtt: None, budget: None });
        let keys = chain.keys(Side::Initiator, &Memo);
        let install = Install {
            session: chain.session_id(),
            local: number,
            remote: number,
            keys,
            main: PathId::RELAY,
            lanes: 1,
            slabs: Slabs::default(),
        };
        self.apply(Edit::Install { link, install: Box::new(install) });
        self.apply(Edit::Promote { link, local: number });
        let keys = chain.keys(Side::Responder, &Memo);
        self.peers.insert(number, Peer { keys, sequence: 0, addresses, mac });
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte();
        let number = u32::from(op >> 4) % PEERS;
        match op & 7 {
            0..=2 => {
                let packet = self.packet(script);
                self.outbound(&packet);
            }
            3 | 4 => {
                let packet = self.packet(script);
                self.inbound(number, &packet, script.byte());
            }
            5 => self.now = self.now + Duration::from_millis(1 << script.below(20)),
            6 => {
                // only its own room of addresses: that two peers never hold one is the control plane's promise
                let addresses =
                    (0..script.below(4)).map(|_| v4(number as u8 * ROOM + script.byte() % ROOM)).filter(|at| *at != v4(1)).collect();
                self.join(number, addresses, [2, 0, 0, 0, 1, number as u8]);
            }
            _ => {
                self.apply(Edit::Forget { link: LinkId(number) });
                self.peers.remove(&number);
                if script.byte() & 1 == 0 {
                    self.join(number, vec![v4(number as u8 * ROOM + 10)], [2, 0, 0, 0, 1, number as u8]);
                }
            }
        }
        self.ports.sent.clear();
        self.ports.delivered.clear();
    }

    /// A packet with known or unknown addresses, or any bytes.
    fn packet(&self, script: &mut Script<'_>) -> Vec<u8> {
        let choice = script.byte();
        if choice.is_multiple_of(8) {
            return script.piece().to_vec();
        }
        if self.layer2 {
            let (to, from) = (mac(script), mac(script));
            let mut frame = [&to[..], &from, [&[8, 0][..], &[0x86, 0xdd], &[8, 6]][usize::from(choice >> 3) % 3]].concat();
            frame.extend_from_slice(script.piece());
            return frame;
        }
        let (from, to) = (script.byte(), script.byte());
        let mut packet = if choice & 8 == 0 {
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
            packet.extend([10, 0, 0, from, 10, 0, 0, to]);
            packet
        } else {
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
            for last in [from, to] {
                let IpAddr::V6(ip) = v6(last) else { unreachable!("v6 makes IPv6") };
                packet.extend(ip.octets());
            }
            packet
        };
        packet.extend_from_slice(script.piece());
        packet
    }

    fn outbound(&mut self, packet: &[u8]) {
        self.plane.outbound(self.now, packet, &mut self.ports);
        assert!(self.ports.delivered.is_empty(), "nothing comes back to the interface");
        let mut reached = self.ports.sent.clone();
        reached.sort_unstable();
        reached.dedup();
        if self.layer2 {
            let to: Option<[u8; 6]> = packet.get(..6).and_then(|bytes| bytes.try_into().ok());
            for (number, peer) in &self.peers {
                if to == Some(peer.mac) && packet.len() >= 14 && self.peers.values().filter(|other| other.mac == peer.mac).count() == 1 {
                    assert!(reached.iter().all(|conn| *conn == ConnId(u64::from(*number) * 2)), "a bound MAC has one port (protocol 2.6)");
                }
            }
            return;
        }
        let holder = destination(packet).and_then(|to| self.peers.iter().find(|(_, peer)| peer.addresses.contains(&to)));
        let want: Vec<_> = holder.map(|(number, _)| ConnId(u64::from(*number) * 2)).into_iter().collect();
        assert!(reached.is_empty() || reached == want, "a packet goes to the holder of its address");
    }

    fn inbound(&mut self, number: u32, packet: &[u8], choice: u8) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let right = if self.layer2 { INNER_ETHERNET } else { INNER_IP };
        let inner = if choice.is_multiple_of(8) { choice >> 3 } else { right };
        let counter = Counter::new(0, peer.sequence);
        peer.sequence += 1;
        let header = FrameHeader { epoch: peer.keys.epoch as u8, generation: 0, receiver: number, counter };
        let mut frame = cast::sealed(&peer.keys.seal, header, inner, packet);
        self.plane.inbound(self.now, ConnId(u64::from(number) * 2), &mut frame, &mut self.ports);
        for came in &self.ports.delivered {
            assert_eq!(came, packet, "a packet comes out as it was");
            assert_eq!(inner, right, "only packets of the interface's kind come out");
            if self.layer2 {
                let from: [u8; 6] = came[6..12].try_into().expect("six bytes");
                assert!(from != OWN_MAC && from[0] & 1 == 0, "nobody speaks with our MAC or a group's");
                let owner = self.peers.iter().find(|(_, peer)| peer.mac == from).map(|(number, _)| *number);
                assert!(owner.is_none_or(|owner| owner == number), "a bound MAC is its owner's");
            } else {
                let (from, to) = (source(came), destination(came));
                assert!(from.is_some_and(|from| self.peers[&number].addresses.contains(&from)), "the source is the peer's own");
                assert!(to.is_some_and(|to| own().contains(&to)), "the destination is ours");
            }
        }
        assert!(self.ports.delivered.len() <= 1);
    }
}

fn own() -> Vec<IpAddr> {
    vec![v4(1), v6(1)]
}

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn v6(last: u8) -> IpAddr {
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, u16::from(last)).into()
}

/// Ours, bound ones, broadcast, multicast, and a few that nobody is bound to.
fn mac(script: &mut Script<'_>) -> [u8; 6] {
    let choice = script.byte();
    match choice % 8 {
        0 => OWN_MAC,
        1..=3 => [2, 0, 0, 0, 1, choice >> 3 & 3],
        4 => [0xff; 6],
        5 => [0x33, 0x33, 0, 0, 0, choice],
        6 => [2, 0, 0, 0, 2, choice],
        _ => [2, 0, 0, 3, script.byte(), script.byte()],
    }
}

fn source(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 12, 8)
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 16, 24)
}

fn address(packet: &[u8], at_v4: usize, at_v6: usize) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 if packet.len() >= 20 => Some(IpAddr::from(*packet.get(at_v4..)?.first_chunk::<4>()?)),
        6 if packet.len() >= 40 => Some(IpAddr::from(*packet.get(at_v6..)?.first_chunk::<16>()?)),
        _ => None,
    }
}
