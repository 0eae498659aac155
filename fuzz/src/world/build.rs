//! How a world is made, and how its hosts start, die and come back.
use super::{Host, HostId, Lie, Peer, Place, Relay, Rng, Stranger, World, air::Air, air::Parcel, dial::Certificate};
use shadowmesh_core::{
    Node,
    config::{Access, HubConfig, Limits, Mode, NodeConfig, Transports},
    crypto::{Identity, Provider, rustcrypto::RustCrypto},
    event::Ended,
    id::PeerId,
    network::{Network, RelayAddress},
    plane::Plane,
    session::Suite,
    succession::Followers,
    time::Duration,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex},
};

/// The port of every relay.
const RELAY_PORT: u16 = 443;
/// The first of the two UDP ports of every relay.
const RELAY_UDP_PORT: u16 = 443;

/// What starts at a place.
pub(super) enum Plan {
    Peer { config: NodeConfig, interfaces: Vec<(IpAddr, u8)>, udp_port: Option<u16> },
    Relay { config: HubConfig, certificate: Certificate },
    Stranger,
}

/// What a peer is like before it starts for the first time.
pub struct PeerPlan {
    /// Its configuration.
    pub config: NodeConfig,
    /// Addresses of its interfaces with prefix length: one IPv4, one IPv6; take one out for a host of one family.
    pub interfaces: Vec<(IpAddr, u8)>,
    /// The port of its UDP socket in each of its lives; None: a fresh one.
    pub udp_port: Option<u16>,
}

impl World {
    /// An empty world on the faster back end, where it is built in.
    pub fn new(seed: u64) -> Self {
        #[cfg(feature = "aws-lc")]
        return Self::with_crypto(seed, Arc::new(shadowmesh_core::crypto::awslc::AwsLc));
        #[cfg(not(feature = "aws-lc"))]
        Self::repeatable(seed)
    }

    /// An empty world in which every byte follows from the seed: the back end draws no coins itself.
    pub fn repeatable(seed: u64) -> Self {
        Self::with_crypto(seed, Arc::new(RustCrypto))
    }

    /// An empty world on this back end.
    pub fn with_crypto(seed: u64, crypto: Arc<dyn Provider>) -> Self {
        let mut air = Air::new(seed);
        let nowhere = RelayAddress { url: "wss://192.0.2.1".into(), id: None, access: None };
        let network = Network::new(air.rng.seed(), "proving-ground", vec![nowhere]).expect("a network within all limits");
        Self {
            air,
            hosts: Vec::new(),
            sources: BTreeMap::new(),
            next_flow: 0,
            crypto,
            network,
            pooled: false,
            watch: None,
            is_stopped: false,
            fresh: Vec::new(),
            events: 0,
        }
    }

    /// Hosts made from now on take their identities from a pool: to make one costs more than a second of a small world.
    pub fn pool_identities(&mut self) {
        self.pooled = true;
    }

    fn fresh_identity(&mut self) -> Arc<Identity> {
        static POOL: Mutex<Vec<Arc<Identity>>> = Mutex::new(Vec::new());
        if !self.pooled {
            return Arc::new(Identity::from_seed(self.air.rng.seed()));
        }
        let number = self.hosts.len();
        let mut pool = POOL.lock().expect("nobody panics while holding it");
        while pool.len() <= number {
            let seed = [pool.len() as u8; 32];
            pool.push(Arc::new(Identity::from_seed(seed)));
        }
        Arc::clone(&pool[number])
    }

    /// The network that all peers of this world are members of; its relays are named anew for each peer.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The back end of this world.
    pub fn crypto(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.crypto)
    }

    /// A relay that runs.
    pub fn relay(&mut self) -> HostId {
        let relay = self.relay_with(|_| {});
        self.start(relay);
        relay
    }

    /// A relay that does not run yet.
    pub fn relay_with(&mut self, adjust: impl FnOnce(&mut HubConfig)) -> HostId {
        let identity = self.fresh_identity();
        let certificate = Certificate { identity: Some(identity.id()), subject: None };
        let mut config = HubConfig {
            access: Access::default(),
            identity,
            crypto: Arc::clone(&self.crypto),
            suites: vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
            // scenarios restart hosts more often than people do
            limits: Limits { join_burst: 1_000, preauth_per_source: 64, ..Limits::default() },
            keepalive: Duration::from_secs(20),
            udp_ports: [Some(RELAY_UDP_PORT), Some(RELAY_UDP_PORT + 1)],
        };
        adjust(&mut config);
        let host = self.settle(Plan::Relay { config, certificate });
        self.place_at(host, &[IpAddr::V4(Ipv4Addr::new(198, 51, 100, host.0 as u8)), at_v6(0xffff, host)]);
        host
    }

    /// A peer that runs and knows this relay.
    pub fn peer(&mut self, relay: HostId) -> HostId {
        self.peer_with(&[relay], |_| {})
    }

    /// A peer that runs and knows these relays.
    pub fn peer_with(&mut self, relays: &[HostId], adjust: impl FnOnce(&mut PeerPlan)) -> HostId {
        let host = self.idle_peer(relays, adjust);
        self.start(host);
        host
    }

    /// A peer that does not run yet.
    pub fn idle_peer(&mut self, relays: &[HostId], adjust: impl FnOnce(&mut PeerPlan)) -> HostId {
        let number = HostId(self.hosts.len());
        let interfaces =
            vec![(IpAddr::V4(Ipv4Addr::new(203, 0, (113 + number.0 / 200) as u8, (number.0 % 200 + 1) as u8)), 24), (at_v6(1, number), 64)];
        let config = NodeConfig {
            identity: self.fresh_identity(),
            crypto: Arc::clone(&self.crypto),
            network: self.network.clone(),
            name: format!("host-{}", number.0),
            suites: vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
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
            version: "world".into(),
        };
        let mut plan = PeerPlan { config, interfaces, udp_port: None };
        adjust(&mut plan);
        let PeerPlan { mut config, interfaces, udp_port } = plan;
        let is_v4 = interfaces.iter().any(|(ip, _)| ip.is_ipv4());
        config.network.relays = relays.iter().map(|relay| self.relay_address(*relay, is_v4)).collect();
        let addresses: Vec<IpAddr> = interfaces.iter().map(|(ip, _)| *ip).collect();
        let host = self.settle(Plan::Peer { config, interfaces, udp_port });
        self.place_at(host, &addresses);
        host
    }

    /// A host without a machine, for attacks.
    pub fn stranger(&mut self) -> HostId {
        let host = self.settle(Plan::Stranger);
        self.place_at(host, &[IpAddr::V4(Ipv4Addr::new(192, 0, 2, host.0 as u8)), at_v6(0xbad, host)]);
        self.start(host);
        host
    }

    fn settle(&mut self, plan: Plan) -> HostId {
        self.hosts.push(Place {
            plan,
            running: None,
            lives: 0,
            dark: false,
            asleep: false,
            slept_through: Vec::new(),
            notes: Vec::new(),
            hub_notes: Vec::new(),
        });
        HostId(self.hosts.len() - 1)
    }

    fn place_at(&mut self, host: HostId, addresses: &[IpAddr]) {
        for address in addresses {
            assert_eq!(self.air.hosts_of.insert(*address, host), None, "{address} is somebody's already");
        }
    }

    fn relay_address(&self, relay: HostId, v4: bool) -> RelayAddress {
        let ip = self.air.hosts_of.iter().find(|(ip, host)| **host == relay && ip.is_ipv4() == v4).map(|(ip, _)| *ip);
        let url = match ip.expect("a relay has an address of each family") {
            IpAddr::V4(ip) => format!("wss://{ip}:{RELAY_PORT}"),
            IpAddr::V6(ip) => format!("wss://[{ip}]:{RELAY_PORT}"),
        };
        RelayAddress::new(&url, Some(self.id(relay))).expect("an address makes a good URL")
    }

    /// The identity of a peer or relay.
    pub fn id(&self, host: HostId) -> PeerId {
        match &self.hosts[host.0].plan {
            Plan::Peer { config, .. } => config.identity.id(),
            Plan::Relay { config, .. } => config.identity.id(),
            Plan::Stranger => panic!("a stranger has no identity"),
        }
    }

    /// The long-term identity of a peer or relay, for an attack by somebody who has it.
    pub fn identity(&self, host: HostId) -> Arc<Identity> {
        match &self.hosts[host.0].plan {
            Plan::Peer { config, .. } => Arc::clone(&config.identity),
            Plan::Relay { config, .. } => Arc::clone(&config.identity),
            Plan::Stranger => panic!("a stranger has no identity"),
        }
    }

    /// The first address of a host in this family.
    pub fn address(&self, host: HostId, v4: bool) -> IpAddr {
        let address = self.air.hosts_of.iter().find(|(ip, holder)| **holder == host && ip.is_ipv4() == v4);
        *address.expect("the host has an address of this family").0
    }

    /// Changes what a peer will be told at its next start.
    pub fn configure(&mut self, host: HostId, change: impl FnOnce(&mut NodeConfig)) {
        if let Plan::Peer { config, .. } = &mut self.hosts[host.0].plan {
            change(config);
        }
    }

    /// The relay shows this certificate from its next start on, as behind somebody who ends TLS in front of it.
    pub fn show_certificate(&mut self, relay: HostId, shown: Certificate) {
        if let Plan::Relay { certificate, .. } = &mut self.hosts[relay.0].plan {
            *certificate = shown;
        }
    }

    /// The relay lies about the addresses of clients that join from now on.
    pub fn let_lie(&mut self, relay: HostId, lie: Lie) {
        if let Some(Host::Relay(relay)) = &mut self.hosts[relay.0].running {
            relay.lie = Some(lie);
        }
    }

    // ---- lives -------------------------------------------------------------------------------------------------

    /// Starts a host that does not run.
    pub fn start(&mut self, host: HostId) {
        let place = &mut self.hosts[host.0];
        assert!(place.running.is_none(), "host {} runs already", host.0);
        place.lives += 1;
        let life = place.lives;
        if core::mem::take(&mut place.dark) {
            self.answer_with_resets(host);
        }
        let running = match &self.hosts[host.0].plan {
            Plan::Peer { config, interfaces, udp_port } => {
                Host::Peer(Peer::start(&mut self.air, host, life, config.clone(), interfaces, *udp_port))
            }
            Plan::Relay { config, certificate } => {
                self.air.doors.insert((host, RELAY_PORT), certificate.clone());
                Host::Relay(Relay::start(&mut self.air, host, life, config.clone()))
            }
            Plan::Stranger => Host::Stranger(Stranger::default()),
        };
        self.hosts[host.0].running = Some(running);
    }

    /// The process is killed: its kernel closes all connections, its machine says nothing. Gives back a peer's machines.
    pub fn kill(&mut self, host: HostId) -> Option<(Node, Plane)> {
        let gone = self.take_out(host);
        for (wire, side) in self.air.wires_of(host) {
            self.air.finish(wire, side, Ended::ByPeer);
        }
        match gone {
            Some(Host::Peer(peer)) => Some(peer.into_machines()),
            Some(Host::Relay(_) | Host::Stranger(_)) | None => None,
        }
    }

    /// The host loses power: nobody is told.
    pub fn darken(&mut self, host: HostId) {
        self.take_out(host);
        self.hosts[host.0].dark = true;
    }

    /// Killed and started again at once.
    pub fn restart(&mut self, host: HostId) {
        self.kill(host);
        self.start(host);
    }

    /// A relay or peer leaves in good order; a relay's process ends a second later.
    pub fn leave(&mut self, host: HostId) {
        match &mut self.hosts[host.0].running {
            Some(Host::Peer(peer)) => peer.event(&mut self.air, shadowmesh_core::event::Event::Leave),
            Some(Host::Relay(relay)) => relay.leave(&mut self.air),
            Some(Host::Stranger(_)) | None => {}
        }
        self.run(Duration::from_secs(1));
        self.kill(host);
    }

    /// A relay tells its clients to take another one; its process ends when it is not needed any more, or then.
    pub fn drain(&mut self, relay: HostId, within: Duration) {
        if let Some(Host::Relay(running)) = &mut self.hosts[relay.0].running {
            running.drain(&mut self.air, within);
        }
        self.bury(Some(relay));
    }

    /// Whether a relay runs there that is on its way out.
    pub fn is_draining(&self, relay: HostId) -> bool {
        matches!(&self.hosts[relay.0].running, Some(Host::Relay(running)) if running.is_draining())
    }

    /// Whether a process runs there.
    pub fn is_running(&self, host: HostId) -> bool {
        self.hosts[host.0].running.is_some()
    }

    /// Ends the process of a relay that has drained.
    pub(super) fn bury(&mut self, host: Option<HostId>) {
        if let Some(host) = host
            && matches!(&self.hosts[host.0].running, Some(Host::Relay(relay)) if relay.is_over())
        {
            self.kill(host);
        }
    }

    fn take_out(&mut self, host: HostId) -> Option<Host> {
        let place = &mut self.hosts[host.0];
        place.collect();
        place.asleep = false;
        place.slept_through.clear();
        self.air.doors.retain(|(holder, _), _| *holder != host);
        self.air.sockets.retain(|(holder, _), _| *holder != host);
        self.air.debts.remove(&host);
        self.hosts[host.0].running.take()
    }

    /// A host is back that knows nothing of its old connections.
    fn answer_with_resets(&mut self, host: HostId) {
        for (wire, side) in self.air.wires_of(host) {
            self.air.shut(wire, side);
            self.air.load(wire, side, Parcel::End(Ended::Reset));
        }
    }
}

fn at_v6(net: u16, host: HostId) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host.0 as u16 + 1))
}

impl Default for World {
    fn default() -> Self {
        Self::new(Rng::new(0).u64())
    }
}
