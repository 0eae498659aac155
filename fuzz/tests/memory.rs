//! What one more peer costs in memory: everything that `Node` and `Plane` own, counted by the allocator when they are dropped.
//!
//! One test, because the counter is one for the whole process; the `RustCrypto` back end, because what `aws-lc` takes from the C
//! library is not seen here. The figures stand in docs/performance.md:
//! `cargo test -p shadowmesh-fuzz --test memory -- --nocapture`.
mod counting;

use counting::COUNTS;
use shadowmesh_core::{
    Node,
    config::{Mode, NodeConfig, Transports},
    crypto::{Identity, rustcrypto::RustCrypto},
    event::{Action, Event, TlsFacts},
    handshake::{Job, Outcome, Setup, Ticket, Work},
    id::{ConnId, Handle, PeerId},
    machine::Machine,
    network::{Network, RelayAddress},
    session::{EpochKeys, Side, Suite},
    succession::Followers,
    time::{Duration, Instant},
    wire::{Counter, DirectoryEntry, Established, FRAME_HEADER_LEN, FrameHeader, INNER_CONTROL, LANE_NODE, Params, RelayMessage, TAG_LEN},
};
use shadowmesh_fuzz::world::{Rng, World};
use std::sync::{Arc, atomic::Ordering::Relaxed};
use zeroize::Zeroizing;

/// A peer that is known from the directory, with no session: at most so many bytes of `Node`.
const KNOWN_BYTES: usize = 4 * 1024;
/// A peer with a session over the relay: of `Node`.
const SESSION_BYTES: usize = 8 * 1024;
/// The same with a direct path beside the relay.
const DIRECT_BYTES: usize = 12 * 1024;
/// Of `Plane`, while nothing waits for receipts: one slab of the ring (64 KiB), the replay window (8 KiB), the queue.
const PLANE_BYTES: usize = 96 * 1024;

#[test]
fn a_peer_costs_no_more_than_a_few_kilobytes() {
    let known = (node_with_links(1_000) - node_with_links(0)) / 1_000;
    let (empty_node, empty_plane) = hub_of_a_star(0, false);
    let (node, plane) = hub_of_a_star(50, false);
    let session = ((node - empty_node) / 50, (plane - empty_plane) / 50);
    let (node, plane) = hub_of_a_star(50, true);
    let direct = ((node - empty_node) / 50, (plane - empty_plane) / 50);
    eprintln!("bytes a peer: known {known}; session (node, plane) {session:?}; with a direct path {direct:?}");
    assert!(known > 100 && known <= KNOWN_BYTES, "{known} bytes for a peer without a session");
    assert!(session.0 > known && session.0 <= SESSION_BYTES, "{} bytes of Node for a peer with a session", session.0);
    assert!(session.1 <= PLANE_BYTES, "{} bytes of Plane for a peer with a session", session.1);
    assert!(direct.0 <= DIRECT_BYTES, "{} bytes of Node for a peer with a direct path", direct.0);
    assert!(direct.1 <= PLANE_BYTES, "{} bytes of Plane for a peer with a direct path", direct.1);
}

/// Bytes that go when this is dropped.
fn weigh<T>(thing: T) -> usize {
    let before = COUNTS.live.load(Relaxed);
    drop(thing);
    before - COUNTS.live.load(Relaxed) + size_of::<T>()
}

/// Node and plane of a peer in the middle that has a session with each of `around` others; each of those knows the middle alone.
fn hub_of_a_star(around: usize, direct: bool) -> (usize, usize) {
    let mut world = World::repeatable(110);
    let relay = world.relay();
    let middle = world.peer_with(&[relay], |plan| plan.config.direct = if direct { Transports::WSS } else { Transports::NONE });
    let member = shadowmesh_core::config::Member { id: world.id(middle), name: None, allowed: Vec::new(), endpoints: Vec::new() };
    let mut flows = Vec::new();
    for _ in 0..around {
        let other = world.peer_with(&[relay], |plan| plan.config.members = vec![member.clone()]);
        world.until_connected(middle, other);
        flows.extend(world.both_ways(middle, other, 10));
        if direct {
            world.until_direct(middle, other);
        }
    }
    world.run(Duration::from_secs(3));
    for flow in flows {
        world.stop(flow);
    }
    world.run(Duration::from_secs(3));
    let (node, plane) = world.kill(middle).expect("a peer that runs");
    (weigh(node), weigh(plane))
}

// ---- a node and a relay made by hand -------------------------------------------------------------------------------

/// A node to which its relay has told of so many other members.
fn node_with_links(links: usize) -> usize {
    let now = Instant::from_millis(1_000);
    let relay = Arc::new(Identity::from_seed([9; 32]));
    let address = RelayAddress::new("wss://198.51.100.1", Some(relay.id())).expect("a URL");
    let network = Network::new([1; 32], "memory", vec![address]).expect("a network");
    let mut bench = Bench { node: Node::new(config(network)), now, sent: Vec::new() };
    bench.handle(Event::Entropy(&[7; 32]));
    bench.handle(Event::Start);
    let exporter = [3; 32];
    let tls = TlsFacts { exporter, identity: Some(relay.id()), subject: None };
    let ends = ["203.0.113.1:40000", "198.51.100.1:443"].map(|text| text.parse().expect("an address"));
    bench.handle(Event::Opened { conn: ConnId(0), tls, local: ends[0], remote: ends[1] });
    let (keys, sid) = bench.let_in(&relay, exporter);
    // names are hashes: in no order
    let mut rng = Rng::new(1);
    let mut entry = |number: usize| {
        let peer = PeerId(rng.seed());
        DirectoryEntry { handle: Handle(number as u32 + 2), peer, public: Some(ends[0]), supports_direct: true, online: true }
    };
    let established = Established {
        session_id: [0; 16],
        your_handle: Handle(1),
        observed: ends[0],
        keepalive_s: 20,
        max_frame: 9_216,
        window: 256,
        udp_port: 0,
        entries: Vec::new(),
    };
    let mut messages = vec![RelayMessage::Established(established)];
    let all: Vec<DirectoryEntry> = (0..links).map(&mut entry).collect();
    messages.extend(all.chunks(256).map(|page| RelayMessage::Directory { entries: page.to_vec() }));
    for (counter, message) in messages.iter().enumerate() {
        let mut frame = seal(&keys, sid, counter as u64, message);
        bench.handle(Event::Message { conn: ConnId(0), handle: None, bytes: &mut frame });
    }
    // handshakes towards the first few that were begun eagerly are given up
    for _ in 0..200 {
        bench.now = bench.now + Duration::from_millis(20);
        bench.handle(Event::Alarm);
    }
    let status = bench.node.status(bench.now);
    assert_eq!(status.peers.len(), links);
    bench.sent = Vec::new();
    weigh(bench.node)
}

struct Bench {
    node: Node,
    now: Instant,
    sent: Vec<Vec<u8>>,
}

impl Bench {
    fn handle(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.node.handle(self.now, event, &mut actions);
        while self.node.deadline().is_some_and(|deadline| deadline.at == Instant::ZERO) {
            self.node.handle(self.now, Event::Alarm, &mut actions);
        }
        for action in actions {
            match action {
                Action::Compute(job) => {
                    let done = job.run(&RustCrypto);
                    self.handle(Event::Computed(done));
                }
                Action::Send { bytes, .. } => self.sent.push(bytes),
                Action::Sockets
                | Action::Flow { .. }
                | Action::Datagram { .. }
                | Action::Dial { .. }
                | Action::Hangup { .. }
                | Action::Edit(_)
                | Action::Listen(_)
                | Action::Remember { .. }
                | Action::Succeeded(_)
                | Action::Note(_) => {}
            }
        }
    }

    /// The relay's half of the handshake; gives the keys that it seals with and the index of the node.
    fn let_in(&mut self, relay: &Arc<Identity>, exporter: [u8; 32]) -> (EpochKeys, u32) {
        let init = self.sent.pop().expect("HELLO");
        let work = Work::Answer {
            setup: Setup::client_relay(exporter),
            identity: Arc::clone(relay),
            init,
            sid: 5,
            suites: vec![Suite::ChaCha20Poly1305],
            params: Params::default(),
            coins: Zeroizing::new([4; 96]),
        };
        let Outcome::Answered(Ok(answer)) = run(work) else { panic!("a good HELLO") };
        let mut resp = answer.resp().to_vec();
        self.handle(Event::Message { conn: ConnId(0), handle: None, bytes: &mut resp });
        let fin = self.sent.pop().expect("RESPONSE");
        let Outcome::Verified(Ok(verified)) = run(Work::Verify { identity: Arc::clone(relay), answer, fin }) else {
            panic!("a good RESPONSE")
        };
        (verified.chain.keys(Side::Responder, &RustCrypto), verified.peer_sid)
    }
}

fn run(work: Work) -> Outcome {
    Job { ticket: Ticket(0), work }.run(&RustCrypto).outcome
}

fn seal(keys: &EpochKeys, receiver: u32, counter: u64, message: &RelayMessage) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEADER_LEN];
    frame.push(INNER_CONTROL);
    message.emit(&mut frame);
    frame.resize(frame.len() + TAG_LEN, 0);
    keys.seal.seal(FrameHeader { epoch: 0, generation: 0, receiver, counter: Counter::new(LANE_NODE, counter) }, &mut frame);
    frame
}

fn config(network: Network) -> NodeConfig {
    NodeConfig {
        identity: Arc::new(Identity::from_seed([8; 32])),
        crypto: Arc::new(RustCrypto),
        network,
        name: "scale".into(),
        suites: vec![Suite::ChaCha20Poly1305],
        layer2: false,
        mtu: 1_400,
        addresses: Vec::new(),
        direct: Transports::WSS,
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
        lanes: 1,
        followers: Followers::default(),
        version: "1".into(),
    }
}
