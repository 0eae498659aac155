//! What the demo plays with: a relay and two peers in this process, each peer's listener behind a forwarder.
use super::forwarder::{Forwarder, Line};
use crate::{cli::Runtime, credentials, failure::Failure};
use shadowmesh_core::{
    config::{HubConfig, Mode, NodeConfig, Transports},
    crypto::{self, Identity},
    event::Note,
    network::{Network, RelayAddress},
    session::Suite,
    succession::Followers,
    time::Instant,
};
use shadowmesh_runtime_std::{
    peer::{Interface, MemoryInterface, Peer, PeerOptions},
    relay::{Relay, RelayOptions},
};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

/// Another program can take a port between the look for it and its use.
const PORT_ATTEMPTS: usize = 8;
/// Packets between this process's threads and a peer.
const INTO_PEER_PACKETS: usize = 1024;
/// Never full: what a peer delivers must not be dropped on the way to the bookkeeping.
const OUT_OF_PEER_PACKETS: usize = 1 << 16;
/// A short one, so that the demo sees a retry after each kill.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
const CERT_LIFETIME: Duration = Duration::from_hours(1);
const RELAY_KEEPALIVE: Duration = Duration::from_secs(20);

/// One peer with all that belongs to it.
pub(crate) struct Actor {
    /// `a` or `b`.
    pub(crate) name: &'static str,
    /// Its overlay address.
    pub(crate) address: Ipv6Addr,
    /// The peer itself.
    pub(crate) peer: Peer,
    /// What it tells.
    pub(crate) notes: flume::Receiver<(Instant, Note)>,
    /// Packets to send.
    pub(crate) into: flume::Sender<Vec<u8>>,
    /// Packets that came.
    pub(crate) from: flume::Receiver<Vec<u8>>,
    /// What stands before its listener.
    forwarder: Forwarder,
}

/// Relay and peers.
pub(crate) struct Stage {
    /// The relay.
    pub(crate) relay: Relay,
    /// The two peers.
    pub(crate) actors: [Actor; 2],
}

impl Stage {
    /// Starts everything; the direct path is silent.
    pub(crate) fn build(runtime: Runtime) -> Result<Self, Failure> {
        let identity = Identity::from_seed(credentials::secret()?);
        let relay_id = identity.id();
        let hub = HubConfig { suites: suites(), keepalive: RELAY_KEEPALIVE, ..HubConfig::new(Arc::new(identity), credentials::provider()) };
        let options = RelayOptions { cert_lifetime: CERT_LIFETIME, ..RelayOptions::new(hub, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) };
        let relay = runtime.start_relay(options).map_err(|error| Failure::failed(format!("demo: the relay does not start: {error}")))?;
        let address = *relay.addresses().first().ok_or_else(|| Failure::failed("demo: the relay has no address"))?;
        let url = RelayAddress::new(&format!("wss://{address}"), Some(relay_id)).map_err(|why| Failure::failed(format!("demo: {why}")))?;
        let network = Network::new(credentials::secret()?, "demo", vec![url]).map_err(|why| Failure::failed(format!("demo: {why}")))?;
        Ok(Self { relay, actors: [actor(runtime, "a", Line::Reset, &network)?, actor(runtime, "b", Line::Silent, &network)?] })
    }

    /// Changes what the direct path does, in both directions.
    ///
    /// Only `b` can be reached, as when one peer is behind a NAT: there is one direct connection, and a cut leaves no other.
    pub(crate) fn set_line(&self, line: Line) {
        self.actors[1].forwarder.set(line);
    }

    /// Ends everything in order.
    pub(crate) async fn leave(&self) {
        for actor in &self.actors {
            actor.peer.leave().await;
        }
        self.relay.leave().await;
    }
}

fn actor(runtime: Runtime, name: &'static str, line: Line, network: &Network) -> Result<Actor, Failure> {
    let identity = Arc::new(Identity::from_seed(credentials::secret()?));
    let mut last = String::new();
    for _ in 0..PORT_ATTEMPTS {
        let listen_tcp = free_address()?;
        let forwarder = Forwarder::start(listen_tcp, line).map_err(|error| Failure::failed(format!("demo: no forwarder: {error}")))?;
        let (into, inbound) = flume::bounded(INTO_PEER_PACKETS);
        let (outbound, from) = flume::bounded(OUT_OF_PEER_PACKETS);
        let node = NodeConfig {
            identity: Arc::clone(&identity),
            crypto: credentials::provider(),
            network: network.clone(),
            name: name.to_owned(),
            suites: suites(),
            layer2: false,
            mtu: 1280,
            addresses: Vec::new(),
            direct: Transports::WSS,
            rekey_interval: NodeConfig::REKEY_INTERVAL,
            retry_interval: RETRY_INTERVAL,
            health_check_interval: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            close_relay: false,
            // the story is of direct paths
            relay_udp: false,
            mode: Mode::SwitchLossless,
            advertise: vec![forwarder.address()],
            members: Vec::new(),
            revoked: Vec::new(),
            claims: Vec::new(),
            followers: Followers::default(),
            lanes: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let interface = Interface::Memory(MemoryInterface { inbound, outbound });
        match runtime.start_peer(PeerOptions {
            node,
            interface,
            listen_tcp,
            listen_udp: listen_tcp,
            port_mapping: false,
            proxies: shadowmesh_runtime_std::tunnel::Proxies::default(),
            cert_lifetime: CERT_LIFETIME,
            journal: None,
        }) {
            Ok(peer) => {
                let notes = peer.notes();
                return Ok(Actor { name, address: network.address_v6(identity.id()), peer, notes, into, from, forwarder });
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(Failure::failed(format!("demo: peer {name} does not start: {last}")))
}

/// A free port on an address of 127.0.0.0/8 that hardly anybody else uses; where there is only 127.0.0.1, a free port there.
fn free_address() -> Result<SocketAddr, Failure> {
    let [a, b, c, ..] = credentials::secret()?;
    let rare = Ipv4Addr::new(127, 1 + a % 254, b, 1 + c % 254);
    let bound = TcpListener::bind((rare, 0)).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    bound
        .and_then(|listener: TcpListener| listener.local_addr())
        .map_err(|error: io::Error| Failure::failed(format!("demo: no free port on loopback: {error}")))
}

fn suites() -> Vec<Suite> {
    crypto::offered(&[Suite::Aes256Gcm, Suite::ChaCha20Poly1305])
}
