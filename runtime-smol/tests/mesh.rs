//! A relay and peers in one process, over loopback: packets cross, paths change, the relay comes and goes. Each story runs on each
//! runtime, and with both at once.
mod support;

use shadowmesh_core::{
    config::{HubConfig, Mode, NodeConfig, Transports},
    crypto::{Identity, awslc::AwsLc},
    event::Note,
    id::PeerId,
    journal::{Journal, Recorded, Replay, Tape, Verdict},
    network::{Network, RelayAddress},
    session::Suite,
    status::{RelayState, Status},
    succession::Followers,
    time::Instant,
    wire::PathLabel,
};
use shadowmesh_runtime_std::{
    journal::JournalFile,
    peer::{Interface, MemoryInterface, Peer, PeerOptions},
    relay::{Relay, RelayOptions},
    tunnel::Proxies,
};
use smol::{
    Async, Task, Timer, future,
    io::{AsyncReadExt, AsyncWriteExt},
    stream::StreamExt,
};
use std::{
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use support::Runtime;

/// Who runs on what.
#[derive(Clone, Copy)]
struct On {
    relay: Runtime,
    peers: [Runtime; 2],
}

const SMOL: On = On { relay: support::SMOL, peers: [support::SMOL; 2] };
const THREADS: On = On { relay: support::THREADS, peers: [support::THREADS; 2] };
const MIXED: On = On { relay: support::THREADS, peers: [support::SMOL, support::THREADS] };

/// Both runtimes at once, all three recorded: what each machine did is a function of its journal.
#[test]
fn a_mesh_on_both_runtimes_is_recorded_and_replays() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    story(async {
        let relay = recorded_relay_on(MIXED, "127.0.0.1:0", &at("relay"));
        let [a, b] = [1, 2].map(|number: u8| {
            let (mut options, packets, arrived) = options(number, relay.addresses()[0], DIRECT);
            options.journal = Some(JournalFile::create(&at(&format!("peer-{number}"))).expect("a new file"));
            start(MIXED.peers[usize::from(number) - 1], options, packets, arrived)
        });
        future::zip(a.until(connected), b.until(connected)).await;
        let moved = future::zip(a.until(migrated), b.until(migrated));
        future::zip(both_ways(&a, &b, 300), moved).await;
        leave(&[&a, &b], &relay).await;
    });
    for name in ["relay", "peer-1", "peer-2"] {
        let bytes = std::fs::read(at(name)).expect("it is there");
        let events = match Journal::open(&bytes).expect("a journal") {
            Journal::Node(tape) => replayed(tape),
            Journal::Hub(tape) => replayed(tape),
        };
        assert!(events > 20, "{name}: {events} events");
    }
}

/// Replays a journal whose machine left: all of it is there, and the same. How many events.
fn replayed<M: Recorded>(tape: Tape<'_, M>) -> usize {
    let mut replay = Replay::new(tape);
    let (mut events, mut last) = (0, "");
    while let Some(step) = replay.step().expect("a good journal") {
        assert_eq!(step.verdict, Verdict::Same, "{}: record {}, {} {}", M::NAME, step.number, step.kind, step.detail);
        (events, last) = (events + 1, step.kind);
    }
    assert!(!replay.tape().is_cut(), "a machine that leaves writes its journal to the end, here {last}");
    events
}

stories! { [on_smol: SMOL, on_threads: THREADS, on_both: MIXED]
    packets_cross_the_relay_in_order_and_complete,
    a_migration_to_direct_loses_doubles_and_reorders_nothing,
    both_ends_that_say_much_at_once_do_not_wait_for_each_other,
    a_relay_that_goes_and_comes_back_does_not_disturb_direct_paths,
    a_direct_path_that_is_reset_under_traffic_falls_back_without_loss,
    a_direct_path_that_falls_silent_under_traffic_falls_back_without_loss,
    a_peer_started_before_its_relay_connects_when_it_appears,
    a_peer_that_leaves_ends_and_its_handles_say_so,
    a_port_in_use_is_known_at_the_start,
}

fn packets_cross_the_relay_in_order_and_complete(on: On) {
    story(async {
        let relay = relay_on(on, "127.0.0.1:0");
        let (a, b) = (host(on, 1, &relay, RELAY_ONLY), host(on, 2, &relay, RELAY_ONLY));
        future::zip(a.until(connected), b.until(connected)).await;
        both_ways(&a, &b, 300).await;
        assert_eq!(a.path_to(&b).await, Some(PathLabel::RelayWss));
        leave(&[&a, &b], &relay).await;
    });
}

fn a_migration_to_direct_loses_doubles_and_reorders_nothing(on: On) {
    story(async {
        let relay = relay_on(on, "127.0.0.1:0");
        let (a, b) = (host(on, 1, &relay, DIRECT), host(on, 2, &relay, DIRECT));
        future::zip(a.until(connected), b.until(connected)).await;
        let moved = future::zip(a.until(migrated), b.until(migrated));
        future::zip(both_ways(&a, &b, 2_000), moved).await;
        assert_eq!(a.path_to(&b).await, Some(PathLabel::DirectWss));
        assert_eq!(b.path_to(&a).await, Some(PathLabel::DirectWss));
        leave(&[&a, &b], &relay).await;
    });
}

fn both_ends_that_say_much_at_once_do_not_wait_for_each_other(on: On) {
    story(async {
        let relay = relay_on(on, "127.0.0.1:0");
        let (a, b) = (host(on, 1, &relay, DIRECT), host(on, 2, &relay, DIRECT));
        future::zip(a.until(migrated), b.until(migrated)).await;
        future::zip(flood(&a, &b), flood(&b, &a)).await;
        leave(&[&a, &b], &relay).await;
    });
}

fn a_relay_that_goes_and_comes_back_does_not_disturb_direct_paths(on: On) {
    story(async {
        let relay = relay_on(on, "127.0.0.1:0");
        let (a, b) = (host(on, 1, &relay, DIRECT), host(on, 2, &relay, DIRECT));
        future::zip(a.until(migrated), b.until(migrated)).await;
        let address = relay.addresses()[0];
        let absence = async {
            relay.leave().await;
            future::zip(a.until(relay_lost), b.until(relay_lost)).await;
            let relay = relay_on(on, &address.to_string());
            future::zip(a.until(relay_connected), b.until(relay_connected)).await;
            relay
        };
        let (relay, ()) = future::zip(absence, both_ways(&a, &b, 3_000)).await;
        assert_eq!(a.path_to(&b).await, Some(PathLabel::DirectWss));
        let status = a.status().await;
        assert_eq!(status.relays[0].state, RelayState::Connected);
        assert_eq!(status.totals.fallbacks, 0);
        leave(&[&a, &b], &relay).await;
    });
}

fn a_direct_path_that_is_reset_under_traffic_falls_back_without_loss(on: On) {
    direct_path_dies(on, Wire::cut);
}

fn a_direct_path_that_falls_silent_under_traffic_falls_back_without_loss(on: On) {
    direct_path_dies(on, Wire::hold);
}

/// Both peers reach each other by a wire of this test; it dies while a stream runs each way.
fn direct_path_dies(on: On, kill: fn(&Wire)) {
    story(async {
        let relay = relay_on(on, "127.0.0.1:0");
        let (to_a, to_b) = (Wire::new(), Wire::new());
        let (a, b) = (host_behind(on, 1, &relay, &to_a), host_behind(on, 2, &relay, &to_b));
        future::zip(a.until(migrated), b.until(migrated)).await;
        let death = async {
            future::zip(a.received(200), b.received(200)).await;
            kill(&to_a);
            kill(&to_b);
            future::zip(a.until(fell_back), b.until(fell_back)).await;
        };
        future::zip(both_ways(&a, &b, 3_000), death).await;
        assert_eq!(a.path_to(&b).await, Some(PathLabel::RelayWss));
        assert_eq!(a.status().await.totals.fallbacks, 1);
        leave(&[&a, &b], &relay).await;
    });
}

fn a_peer_started_before_its_relay_connects_when_it_appears(on: On) {
    story(async {
        let port = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        let (a, b) = (host_at(on, 1, port, RELAY_ONLY), host_at(on, 2, port, RELAY_ONLY));
        future::zip(a.until(relay_lost), b.until(relay_lost)).await;
        let relay = relay_on(on, &port.to_string());
        future::zip(a.until(connected), b.until(connected)).await;
        both_ways(&a, &b, 50).await;
        leave(&[&a, &b], &relay).await;
    });
}

fn a_peer_that_leaves_ends_and_its_handles_say_so(on: On) {
    story(async {
        let relay = relay_on(on, "127.0.0.1:0");
        let a = host(on, 1, &relay, RELAY_ONLY);
        a.until(relay_connected).await;
        a.peer.leave().await;
        assert_eq!(a.peer.finished().await, Ok(()));
        assert!(a.peer.status().await.is_none());
        assert!(a.arrived.is_disconnected(), "the interface is gone");
        relay.leave().await;
        assert_eq!(relay.finished().await, Ok(()));
    });
}

fn a_port_in_use_is_known_at_the_start(on: On) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let listen_tcp = taken.local_addr().expect("address");
    let (options, _packets, _arrived) = options(1, listen_tcp, DIRECT);
    let why = (on.peers[0].peer)(PeerOptions { listen_tcp, ..options }).map(drop).expect_err("in use").to_string();
    assert!(why.contains(&listen_tcp.to_string()) && why.contains("in use"), "{why}");
}

// --- what to wait for ---

fn connected(note: &Note) -> bool {
    matches!(note, Note::PeerConnected { .. })
}

fn migrated(note: &Note) -> bool {
    matches!(note, Note::Migrated { to: PathLabel::DirectWss, .. })
}

fn relay_lost(note: &Note) -> bool {
    matches!(note, Note::RelayLost { .. })
}

fn relay_connected(note: &Note) -> bool {
    matches!(note, Note::RelayConnected { .. })
}

fn fell_back(note: &Note) -> bool {
    matches!(note, Note::FellBack { .. })
}

// --- a wire that can die ---

/// A forwarder in front of a peer's direct listener.
struct Wire {
    /// What the peer announces.
    address: SocketAddr,
    /// Where the peer listens.
    behind: SocketAddr,
    held: Arc<AtomicBool>,
    serving: Mutex<Option<Task<()>>>,
}

impl Wire {
    fn new() -> Self {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).expect("bind");
        let address = listener.get_ref().local_addr().expect("address");
        let free = TcpListener::bind("127.0.0.1:0").expect("bind");
        let behind = free.local_addr().expect("address");
        let held = Arc::new(AtomicBool::new(false));
        let serving = Mutex::new(Some(smol::spawn(serve(listener, behind, Arc::clone(&held)))));
        Self { address, behind, held, serving }
    }

    /// Resets all connections and takes no more.
    fn cut(&self) {
        drop(self.serving.lock().expect("one thread").take());
    }

    /// Goes on taking bytes from nobody: all connections stay open and silent.
    fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }
}

async fn serve(listener: Async<TcpListener>, behind: SocketAddr, held: Arc<AtomicBool>) {
    let executor = smol::Executor::new();
    let accept = async {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = Async::<TcpStream>::connect(behind).await else { continue };
            let (near, far) = (Arc::new(near), Arc::new(far));
            for end in [&near, &far] {
                let linger = Some(Duration::ZERO); // closing resets
                socket2::SockRef::from(end.get_ref()).set_linger(linger).expect("set");
            }
            executor.spawn(copy(Arc::clone(&near), Arc::clone(&far), Arc::clone(&held))).detach();
            executor.spawn(copy(far, near, Arc::clone(&held))).detach();
        }
    };
    executor.run(accept).await;
}

async fn copy(from: Arc<Async<TcpStream>>, to: Arc<Async<TcpStream>>, held: Arc<AtomicBool>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let len = (&*from).read(&mut buffer).await.unwrap_or(0);
        if held.load(Ordering::SeqCst) {
            future::pending::<()>().await;
        }
        if len == 0 || (&*to).write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}

// --- hosts ---

const RELAY_ONLY: Transports = Transports::NONE;
const DIRECT: Transports = Transports::WSS;

/// A peer with an interface made of queues.
struct Host {
    peer: Peer,
    notes: flume::Receiver<(Instant, Note)>,
    packets: flume::Sender<Vec<u8>>,
    arrived: flume::Receiver<Vec<u8>>,
    id: PeerId,
    address: Ipv6Addr,
}

impl Host {
    async fn until(&self, wanted: fn(&Note) -> bool) {
        loop {
            let (_, note) = self.notes.recv_async().await.expect("the peer runs");
            if wanted(&note) {
                return;
            }
        }
    }

    async fn status(&self) -> Status {
        self.peer.status().await.expect("the peer runs").1
    }

    /// Waits until so many frames have come from the other peer.
    async fn received(&self, frames: u64) {
        while self.status().await.peers.iter().map(|peer| peer.rx_frames).sum::<u64>() < frames {
            Timer::after(Duration::from_millis(5)).await;
        }
    }

    async fn path_to(&self, other: &Self) -> Option<PathLabel> {
        let status = self.status().await;
        let peer = status.peers.iter().find(|peer| peer.id == other.id)?;
        peer.path.as_ref().map(|path| path.label)
    }
}

fn host(on: On, number: u8, relay: &Relay, direct: Transports) -> Host {
    host_at(on, number, relay.addresses()[0], direct)
}

/// A peer that others reach by a wire.
fn host_behind(on: On, number: u8, relay: &Relay, wire: &Wire) -> Host {
    let (mut options, packets, arrived) = options(number, relay.addresses()[0], DIRECT);
    options.listen_tcp = wire.behind;
    options.node.advertise = vec![wire.address];
    start(on.peers[usize::from(number) - 1], options, packets, arrived)
}

fn host_at(on: On, number: u8, relay: SocketAddr, direct: Transports) -> Host {
    let (options, packets, arrived) = options(number, relay, direct);
    start(on.peers[usize::from(number) - 1], options, packets, arrived)
}

fn start(runtime: Runtime, options: PeerOptions, packets: flume::Sender<Vec<u8>>, arrived: flume::Receiver<Vec<u8>>) -> Host {
    let id = options.node.identity.id();
    let address = options.node.network.address_v6(id);
    let peer = (runtime.peer)(options).expect("the peer starts");
    Host { notes: peer.notes(), peer, packets, arrived, id, address }
}

fn options(number: u8, relay: SocketAddr, direct: Transports) -> (PeerOptions, flume::Sender<Vec<u8>>, flume::Receiver<Vec<u8>>) {
    let at_relay = RelayAddress::new(&format!("wss://{relay}"), Some(relay_identity().id())).expect("a URL");
    let (packets, inbound) = flume::bounded(1024);
    let (outbound, arrived) = flume::bounded(65_536);
    let node = NodeConfig {
        identity: Arc::new(Identity::from_seed([number; 32])),
        crypto: Arc::new(AwsLc),
        network: Network::new([7; 32], "test", vec![at_relay]).expect("a network"),
        name: format!("host-{number}"),
        suites: vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
        layer2: false,
        mtu: 1280,
        addresses: Vec::new(),
        direct,
        rekey_interval: NodeConfig::REKEY_INTERVAL,
        retry_interval: Duration::from_mins(1),
        health_check_interval: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        close_relay: false,
        relay_udp: false,
        mode: Mode::SwitchLossless,
        advertise: Vec::new(),
        members: Vec::new(),
        revoked: Vec::new(),
        claims: Vec::new(),
        followers: Followers::default(),
        lanes: 1,
        version: "test".to_owned(),
    };
    let options = PeerOptions {
        node,
        interface: Interface::Memory(MemoryInterface { inbound, outbound }),
        listen_tcp: "127.0.0.1:0".parse().expect("address"),
        listen_udp: "127.0.0.1:0".parse().expect("address"),
        port_mapping: false,
        proxies: Proxies::default(),
        cert_lifetime: Duration::from_hours(24),
        journal: None,
    };
    (options, packets, arrived)
}

fn relay_identity() -> Identity {
    Identity::from_seed([200; 32])
}

fn relay_on(on: On, address: &str) -> Relay {
    relay_with(on, address, None)
}

fn recorded_relay_on(on: On, address: &str, journal: &Path) -> Relay {
    relay_with(on, address, Some(JournalFile::create(journal).expect("a new file")))
}

fn relay_with(on: On, address: &str, journal: Option<JournalFile>) -> Relay {
    let suites = vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let hub = HubConfig { suites, ..HubConfig::new(Arc::new(relay_identity()), Arc::new(AwsLc)) };
    (on.relay.relay)(RelayOptions { journal, ..RelayOptions::new(hub, address.parse().expect("address")) }).expect("the relay starts")
}

async fn leave(hosts: &[&Host], relay: &Relay) {
    for host in hosts {
        host.peer.leave().await;
    }
    relay.leave().await;
}

// --- packets ---

/// More than all buffers on the way hold.
const FLOOD_PACKETS: usize = 20_000;

/// A numbered stream each way, one packet a millisecond: each arrives once and in order.
async fn both_ways(a: &Host, b: &Host, count: u64) {
    future::zip(one_way(a, b, count), one_way(b, a, count)).await;
}

async fn one_way(from: &Host, to: &Host, count: u64) {
    let sending = async {
        let mut pace = Timer::interval(Duration::from_millis(1));
        for number in 0..count {
            pace.next().await;
            from.packets.send_async(packet(from.address, to.address, number)).await.expect("the peer runs");
        }
    };
    let receiving = async {
        for expected in 0..count {
            let packet = to.arrived.recv_async().await.expect("the peer runs");
            assert_eq!(packet[8..24], from.address.octets());
            let number = u64::from_be_bytes(packet[40..48].try_into().expect("a number"));
            assert_eq!(number, expected, "lost, doubled or out of order");
        }
    };
    future::zip(sending, receiving).await;
    assert!(to.arrived.is_empty(), "more came than was sent");
}

/// Sends as fast as the peer takes packets, until many megabytes have arrived.
async fn flood(from: &Host, to: &Host) {
    let mut large = packet(from.address, to.address, 0);
    large.resize(1_240, 0);
    large[4..6].copy_from_slice(&1_200_u16.to_be_bytes());
    let sending = async { while from.packets.send_async(large.clone()).await.is_ok() {} };
    let receiving = async {
        for _ in 0..FLOOD_PACKETS {
            to.arrived.recv_async().await.expect("the peer runs");
        }
    };
    future::or(receiving, sending).await;
}

/// An IPv6 packet with a number inside (RFC 8200; next header 253 is for experiments).
fn packet(from: Ipv6Addr, to: Ipv6Addr, number: u64) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 200, 253, 64];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(number.to_be_bytes());
    packet.resize(240, 0);
    packet
}

/// Runs a story within a time limit.
fn story(story: impl Future<Output = ()>) {
    smol::block_on(future::or(story, async {
        Timer::after(Duration::from_mins(1)).await;
        panic!("the story does not end");
    }));
}
