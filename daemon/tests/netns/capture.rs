//! `shadowmesh capture`: the file holds what passed the interface, and nothing else.

use crate::mesh::{Mesh, Peer, overlay};
use crate::process::Process;
use crate::world::World;
use crate::{Scenario, once, scenario};
use rustix::process::Signal;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(15);
const RAW: u16 = 101;
const ETHERNET: u16 = 1;
/// Datagrams each way.
const TALKS: u8 = 10;

pub(crate) fn all() -> Vec<Scenario> {
    vec![scenario("capture_of_a_talk", capture_of_a_talk), once("capture_of_a_tap", capture_of_a_tap)]
}

fn capture_of_a_talk(world: &World) {
    let mut mesh = Mesh::start(world, &["a", "b"], false, |options| options);
    mesh.until_all("direct");
    let file = world.folder("capture").join("talk.pcapng");
    let mut counted = begin(world, &mesh.peers[0], &file, &["--peer", "b", "--count", "20"]);
    let other = world.folder("capture").join("other.pcapng");
    let mut cut = begin(world, &mesh.peers[1], &other, &["--snaplen", "28", "--peer", "a"]);
    talk(&mesh);
    assert!(counted.end_within(LIMIT).success(), "{}", counted.said());
    assert!(counted.said().contains("20 packets captured, 0 lost"), "{}", counted.said());
    let seen = Seen::read(&file, RAW);
    let there = [Ipv4Addr::new(10, 77, 0, 1), overlay(2)];
    assert_eq!(seen.packets.len(), 2 * usize::from(TALKS));
    for (index, pair) in (0..TALKS).zip(seen.packets.chunks(2)) {
        for (packet, (is_inbound, [from, to])) in pair.iter().zip([(false, there), (true, [there[1], there[0]])]) {
            assert_eq!((packet.is_inbound, packet.ends(0), packet.length), (is_inbound, [from, to], 33));
            assert_eq!(packet.bytes[28..], [index; 5], "the bytes of the datagram");
        }
    }
    // Stamps are in order, and of now.
    assert!(seen.packets.is_sorted_by_key(|packet| packet.nanos));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    assert!(now.abs_diff(u128::from(seen.packets[0].nanos)) < 60_000_000_000);
    // The other end saw the same from the other side, cut behind the headers, until it was told to stop.
    world.wait_for("all to be written", LIMIT, || (Seen::read(&other, RAW).packets.len() == 20).then_some(()));
    cut.signal(Signal::INT);
    assert!(cut.end_within(LIMIT).success(), "{}", cut.said());
    let cut = Seen::read(&other, RAW);
    assert!(cut.has_statistics && cut.packets.iter().all(|packet| (packet.bytes.len(), packet.length) == (28, 33)));
    assert!(cut.packets[0].is_inbound);
    // A mistake leaves the file as it is, and the peer's end is told.
    let before = fs::read(&file).expect("there");
    let nobody = mesh.peers[0].ask(&["capture", file.to_str().expect("text"), "--peer", "nobody"]);
    assert!(nobody.status.code() == Some(1) && nobody.text().contains("no peer is called"), "{}", nobody.text());
    assert_eq!(fs::read(&file).expect("there"), before);
    let mut last = begin(world, &mesh.peers[0], &file, &[]);
    mesh.peers[0].process().signal(Signal::TERM);
    assert_eq!(last.end_within(LIMIT).code(), Some(1));
    assert!(last.said().contains("the peer ended"), "{}", last.said());
    assert!(Seen::read(&file, RAW).has_statistics);
}

fn capture_of_a_tap(world: &World) {
    let mut mesh = Mesh::start(world, &["a", "b"], false, |options| options.with(&["--mode", "tap"]));
    mesh.until_all("direct");
    let file = world.folder("capture").join("talk.pcapng");
    let mut capture = begin(world, &mesh.peers[0], &file, &["--peer", "b", "--duration", "5s"]);
    talk(&mesh);
    assert!(capture.end_within(LIMIT).success(), "{}", capture.said());
    let seen = Seen::read(&file, ETHERNET);
    let there = [Ipv4Addr::new(10, 77, 0, 1), overlay(2)];
    let is_ip = |packet: &&Packet| packet.bytes[12..14] == [8, 0];
    let sent = seen.packets.iter().filter(is_ip).filter(|packet| !packet.is_inbound && packet.ends(14) == there);
    let received = seen.packets.iter().filter(is_ip).filter(|packet| packet.is_inbound && packet.ends(14) == [there[1], there[0]]);
    assert_eq!((sent.count(), received.count()), (usize::from(TALKS), usize::from(TALKS)));
    assert!(seen.packets.iter().any(|packet| packet.bytes[12..14] == [8, 6]), "ARP came before");
}

/// Starts one and waits until it captures.
fn begin(world: &World, peer: &Peer<'_>, file: &Path, arguments: &[&str]) -> Process {
    let mut command = peer.command(&["capture"]);
    command.arg(file).args(arguments);
    let capture = Process::start(command, world.log_file(&format!("capture-{}", peer.name)));
    world.wait_for("the capture to begin", LIMIT, || capture.said().contains("capturing").then_some(()));
    capture
}

/// Datagrams of five bytes from the first peer to the second, each answered by the same.
fn talk(mesh: &Mesh<'_>) {
    let [a, b] = [0, 1].map(|index| {
        let (host, address) = mesh.end(index);
        let socket = host.enter(|| UdpSocket::bind((address, 0))).expect("the overlay address can be bound");
        socket.set_read_timeout(Some(LIMIT)).expect("a plain option");
        socket
    });
    for index in 0..TALKS {
        let (near, far) = (a.local_addr().expect("bound"), b.local_addr().expect("bound"));
        let mut buffer = [0; 16];
        a.send_to(&[index; 5], far).expect("the interface takes it");
        assert_eq!(b.recv(&mut buffer).expect("it arrives"), 5);
        b.send_to(&buffer[..5], near).expect("the interface takes it");
        assert_eq!(a.recv(&mut buffer).expect("the answer arrives"), 5);
    }
}

struct Packet {
    nanos: u64,
    length: u32,
    is_inbound: bool,
    bytes: Vec<u8>,
}

impl Packet {
    /// Source and destination of the IPv4 header that begins there.
    fn ends(&self, ip: usize) -> [Ipv4Addr; 2] {
        [12, 16].map(|at| Ipv4Addr::from(<[u8; 4]>::try_from(&self.bytes[ip + at..ip + at + 4]).expect("four bytes")))
    }
}

/// What is in a file of pcapng with one interface and nanoseconds.
struct Seen {
    packets: Vec<Packet>,
    has_statistics: bool,
}

impl Seen {
    /// Whole blocks; one that is still being written is left out.
    fn read(file: &Path, link: u16) -> Self {
        let file = fs::read(file).expect("the capture made it");
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
        let mut seen = Self { packets: Vec::new(), has_statistics: false };
        let mut at = 0;
        while at + 12 <= file.len() && at + word(at + 4) as usize <= file.len() {
            let length = word(at + 4) as usize;
            assert_eq!(word(at + length - 4) as usize, length, "both lengths of a block");
            match word(at) {
                0x0a0d_0d0a => assert_eq!((at, word(at + 8)), (0, 0x1a2b_3c4d)),
                1 => assert_eq!(word(at + 8) as u16, link),
                6 => {
                    let kept = word(at + 20) as usize;
                    let options = at + 28 + kept.next_multiple_of(4);
                    assert_eq!(word(options), 2 | 4 << 16, "epb_flags");
                    seen.packets.push(Packet {
                        nanos: u64::from(word(at + 12)) << 32 | u64::from(word(at + 16)),
                        length: word(at + 24),
                        is_inbound: word(options + 4) == 1,
                        bytes: file[at + 28..at + 28 + kept].to_vec(),
                    });
                }
                5 => seen.has_statistics = true,
                other => panic!("a block of kind {other}"),
            }
            at += length;
        }
        seen
    }
}
