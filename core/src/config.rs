//! What a machine is told at its start. Each bound carries its unit and the reason for its default.
use crate::{
    crypto::{Identity, Provider},
    id::PeerId,
    network::{AccessKey, Network},
    session::Suite,
    succession::Followers,
    time::Duration,
    wire::{FRAME_OVERHEAD, RECORD_HEADER_LEN},
};
use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq};

pub use crate::path::candidate::inside_any;

/// Addresses by UDP that an operator may name for one peer.
pub const ENDPOINTS_MAX: usize = 4;

/// Bytes of an Ethernet header without a VLAN tag.
const ETHERNET_HEADER_LEN: usize = 14;

/// What a connection of a relay may cost in memory: its buffers in TLS and WebSocket while it is busy; an idle one costs half of that.
const CONNECTION_BYTES: u64 = 128 * 1024;

/// Configuration of a peer.
#[derive(Clone)]
pub struct NodeConfig {
    /// Long-term identity.
    pub identity: Arc<Identity>,
    /// Crypto back end.
    pub crypto: Arc<dyn Provider>,
    /// Network secret and relays, from the join token.
    pub network: Network,
    /// What others call this peer; a claim.
    pub name: String,
    /// Data suites in order of preference.
    pub suites: Vec<Suite>,
    /// Ethernet frames (TAP) instead of IP packets (TUN).
    pub layer2: bool,
    /// MTU of the overlay interface, bytes.
    pub mtu: u16,
    /// Own overlay addresses with prefix length, besides the derived IPv6 one.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Direct paths that are wanted (`p2p.transports`).
    pub direct: Transports,
    /// Datagrams over the relay, where there is no direct path (protocol 8.8).
    pub relay_udp: bool,
    /// Age at which the keys of a session with data are replaced (protocol 4.5).
    pub rekey_interval: Duration,
    /// Longest wait between attempts at a direct path.
    pub retry_interval: Duration,
    /// Longest silence before an idle direct path is probed.
    pub health_check_interval: Duration,
    /// One whole attempt at a direct path.
    pub connect_timeout: Duration,
    /// Close the relay connection after a migration instead of parking it.
    pub close_relay: bool,
    /// What a migration keeps.
    pub mode: Mode,
    /// `p2p.advertise`: announced instead of the local interface addresses (a forwarded port, a proxy in front).
    pub advertise: Vec<SocketAddr>,
    /// `[[peer]]`: when not empty, the network is closed to these.
    pub members: Vec<Member>,
    /// `network.revoked`: no members, whatever else is said of them.
    pub revoked: Vec<PeerId>,
    /// Overlay addresses and their holders, remembered from earlier runs (protocol 2.5).
    pub claims: Vec<(IpAddr, PeerId)>,
    /// Data lanes of this peer, at most 127: so many shards its plane has (protocol 4.3).
    pub lanes: u8,
    /// Which identity follows which (protocol 2.8).
    pub followers: Followers,
    /// Version of this software, told to peers; at most 32 bytes.
    pub version: String,
}

/// What of a peer's direct paths can change while it runs (`p2p.*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// As `NodeConfig::retry_interval`.
    pub retry_interval: Duration,
    /// As `NodeConfig::health_check_interval`.
    pub health_check_interval: Duration,
    /// As `NodeConfig::connect_timeout`.
    pub connect_timeout: Duration,
    /// As `NodeConfig::close_relay`.
    pub close_relay: bool,
}

impl NodeConfig {
    /// Age at which keys are replaced where nobody says otherwise, and the longest (protocol 4.5).
    pub const REKEY_INTERVAL: Duration = Duration::from_mins(2);

    /// Whether this identity may be a member here (protocol 2.3).
    pub(crate) fn admits(&self, peer: PeerId) -> bool {
        let is_listed = self.members.is_empty() || self.member(peer).is_some();
        is_listed && !self.revoked.contains(&peer) && !self.is_retired(peer)
    }

    /// Whether another identity has taken the place of this one (protocol 2.8).
    pub(crate) fn is_retired(&self, peer: PeerId) -> bool {
        self.followers.is_retired(peer, &self.revoked)
    }

    /// Listed identities whose place another one has taken, and who has it now.
    pub(crate) fn replaced(&self) -> Vec<(PeerId, PeerId)> {
        let listed = self.members.iter().map(|member| member.id);
        listed.filter(|id| self.is_retired(*id)).map(|id| (id, self.present(id))).collect()
    }

    /// Who has the place of this identity now (protocol 2.8).
    pub(crate) fn present(&self, peer: PeerId) -> PeerId {
        self.followers.present(peer, &self.revoked)
    }

    /// What `[[peer]]` says of this identity, or of one that it follows: who was taken off the list does not come back by being followed
    /// (protocol 2.8).
    pub(crate) fn member(&self, peer: PeerId) -> Option<&Member> {
        let itself = self.members.iter().find(|member| member.id == peer);
        itself.or_else(|| self.members.iter().find(|member| self.followers.leads(member.id, peer, &self.revoked)))
    }

    /// Whether what `holder` has is this one's, too: it is the same, or follows it (protocol 2.8). Not the other way round: whoever says of
    /// itself that it is followed would have what the follower has.
    pub(crate) fn has_place_of(&self, peer: PeerId, holder: PeerId) -> bool {
        peer == holder || self.followers.leads(holder, peer, &self.revoked)
    }

    /// Where the operator says that this peer may be reached by UDP.
    pub(crate) fn endpoints(&self, peer: PeerId) -> &[SocketAddr] {
        self.member(peer).map_or(&[], |member| member.endpoints.get(..ENDPOINTS_MAX).unwrap_or(&member.endpoints))
    }

    /// A peer of `network` with the defaults of the protocol, no name and the suite that every peer has.
    pub fn new(identity: Arc<Identity>, crypto: Arc<dyn Provider>, network: Network) -> Self {
        Self {
            identity,
            crypto,
            network,
            name: String::new(),
            suites: vec![Suite::ChaCha20Poly1305],
            layer2: false,
            mtu: 1_280,
            addresses: Vec::new(),
            direct: Transports::WSS,
            relay_udp: false,
            rekey_interval: Self::REKEY_INTERVAL,
            retry_interval: Duration::from_mins(1),
            health_check_interval: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            close_relay: false,
            mode: Mode::SwitchLossless,
            advertise: Vec::new(),
            members: Vec::new(),
            revoked: Vec::new(),
            claims: Vec::new(),
            lanes: 1,
            followers: Followers::default(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Bytes of the largest sealed frame: a packet of the interface's MTU, its Ethernet header in TAP mode, and what sealing adds.
    pub(crate) fn largest_frame(&self) -> usize {
        usize::from(self.mtu) + if self.layer2 { ETHERNET_HEADER_LEN } else { 0 } + FRAME_OVERHEAD
    }

    /// All overlay addresses of this peer: the configured ones, the derived IPv6 address, and the automatic IPv4 address
    /// where none is configured (protocol 2.4).
    pub fn overlay_addresses(&self) -> Vec<(IpAddr, u8)> {
        let own = self.identity.id();
        // the derived ones of those that we followed stay ours (protocol 2.8)
        let line: Vec<PeerId> = core::iter::once(own).chain(self.followers.own_line(own)).collect();
        let derived = |peer: &PeerId, is_wanted: fn(&IpAddr) -> bool| {
            self.network.addresses(*peer).into_iter().find(|(address, _)| is_wanted(address))
        };
        let mut all = self.addresses.clone();
        if !all.iter().any(|(address, _)| address.is_ipv4()) {
            all.extend(line.last().and_then(|first| derived(first, IpAddr::is_ipv4)));
        }
        for address in line.iter().filter_map(|peer| derived(peer, IpAddr::is_ipv6)) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }
}

/// Kinds of direct paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    /// By UDP.
    pub udp: bool,
    /// By WebSocket in TLS.
    pub wss: bool,
}

impl Transports {
    /// Everything goes over the relay.
    pub const NONE: Self = Self { udp: false, wss: false };
    /// By WebSocket in TLS alone.
    pub const WSS: Self = Self { udp: false, wss: true };
    /// By UDP alone.
    pub const UDP: Self = Self { udp: true, wss: false };
    /// Whatever there is.
    pub const ALL: Self = Self { udp: true, wss: true };

    /// Whether there is any.
    pub fn any(self) -> bool {
        self.udp || self.wss
    }
}

/// A peer that the operator named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: PeerId,
    /// What we call it; wins over what it calls itself.
    pub name: Option<String>,
    /// Overlay prefixes that are its own.
    pub allowed: Vec<(IpAddr, u8)>,
    /// Where it may be reached by UDP when no relay has it; at most [`ENDPOINTS_MAX`] count (protocol 8.7).
    pub endpoints: Vec<SocketAddr>,
}

/// What a migration keeps (protocol 7.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nothing lost, doubled or out of order by a switch; ordinary loss is not repaired.
    SwitchLossless,
    /// Ordinary loss is repaired too.
    Reliable,
    /// Every frame goes both the direct path and the relay.
    Redundant,
    /// Frames go the best path; a switch may lose and reorder.
    Off,
}

/// Configuration of a relay.
#[derive(Clone)]
pub struct HubConfig {
    /// Long-term identity.
    pub identity: Arc<Identity>,
    /// Crypto back end.
    pub crypto: Arc<dyn Provider>,
    /// Suites of the session with a client, in order of preference.
    pub suites: Vec<Suite>,
    /// Bounds.
    pub limits: Limits,
    /// Who may use it.
    pub access: Access,
    /// How often clients send a sign of life.
    pub keepalive: Duration,
    /// The UDP ports that answer BIND (protocol 8.1); clients are told both. A driver that binds them itself sets them.
    pub udp_ports: [Option<u16>; 2],
}

impl HubConfig {
    /// A relay with the defaults of the protocol and the suite that every client has.
    pub fn new(identity: Arc<Identity>, crypto: Arc<dyn Provider>) -> Self {
        let suites = vec![Suite::ChaCha20Poly1305];
        let (limits, access) = (Limits::default(), Access::default());
        Self { identity, crypto, suites, limits, access, keepalive: Duration::from_secs(20), udp_ports: [None; 2] }
    }
}

/// `access.*` of relay.toml: who may use a relay. It is open unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Networks from which alone connections are taken, by address and prefix length; empty: from everywhere.
    pub allow: Vec<(IpAddr, u8)>,
    /// Networks from which none is taken, whatever `allow` says.
    pub deny: Vec<(IpAddr, u8)>,
    /// Identities that alone may join; empty: all.
    pub peers: Vec<PeerId>,
    /// Access tokens of which a client must show one; empty: none is wanted.
    pub keys: Vec<AccessKey>,
}

impl Access {
    /// Whether connections from this address are taken; an IPv4 address in IPv6 clothes counts as IPv4.
    pub(crate) fn takes_address(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        (self.allow.is_empty() || inside_any(&self.allow, ip)) && !inside_any(&self.deny, ip)
    }

    /// Whether a client of the relay with this identity shows what lets it in; how long it takes tells nothing of the tokens.
    pub(crate) fn takes_pass(&self, relay: PeerId, shown: Option<&[u8; 32]>) -> bool {
        let shown = shown.copied().unwrap_or_default();
        let fits = self.keys.iter().fold(Choice::from(0), |fits, key| fits | key.pass(relay).ct_eq(&shown));
        self.keys.is_empty() || fits.into()
    }

    /// Whether this identity may join.
    pub(crate) fn takes_peer(&self, id: PeerId) -> bool {
        self.peers.is_empty() || self.peers.contains(&id)
    }
}

/// `limits.*` of relay.toml (protocol 9.4). The defaults are those of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload of one record in bytes.
    pub frame_bytes: usize,
    /// Largest message that is not a sequence of records, in bytes.
    pub control_bytes: usize,
    /// Time from the first byte of TLS to a proven identity.
    pub preauth_time: Duration,
    /// Bytes a connection may send before its identity is proven.
    pub preauth_bytes: usize,
    /// Connections without a proven identity, in all.
    pub preauth_total: usize,
    /// Connections without a proven identity from one source (an IPv4 address or an IPv6 /56).
    pub preauth_per_source: usize,
    /// New connections a second from one source; a proven identity gives its token back.
    pub joins_per_second: u32,
    /// New connections at once from one source.
    pub join_burst: u32,
    /// Records that may wait for one client.
    pub queue_frames: usize,
    /// Bytes that may wait for one client.
    pub queue_bytes: usize,
    /// Bytes that may wait for all clients together.
    pub queue_total_bytes: usize,
    /// A client with a full queue that takes nothing for so long is hung up.
    pub stall_time: Duration,
    /// Peer handshakes a second that one client may start through the relay.
    pub handshakes_per_second: u32,
    /// Peer handshakes at once that one client may start through the relay.
    pub handshake_burst: u32,
    /// Handshakes with clients between HELLO and ESTABLISHED, in all.
    pub half_open_total: usize,
    /// Payload bytes a second from one client; 0 = no limit.
    pub client_bytes_per_second: u64,
    /// Records a second from one client; 0 = no limit.
    pub client_frames_per_second: u64,
    /// Payload bytes a second from all clients together, in equal shares when they want more; 0 = no limit.
    pub bytes_per_second: u64,
    /// Records a second from all clients together, in equal shares when they want more; 0 = no limit.
    pub frames_per_second: u64,
    /// Established clients, in all.
    pub clients: usize,
    /// A source that used up its new connections and proved nothing is refused for so long.
    pub refuse_time: Duration,
    /// Bytes for connections and queues together; a connection beyond is refused.
    pub memory: u64,
}

impl Limits {
    /// What holds when a running relay gets other limits: all of them but those that clients were told when they came (protocol 6.5).
    #[must_use]
    pub fn while_running(&self, other: &Self) -> Self {
        let (frame_bytes, queue_frames) = (self.frame_bytes, self.queue_frames);
        // a queue always holds one frame of that size
        let queue_bytes = other.queue_bytes.max(frame_bytes + RECORD_HEADER_LEN);
        Self { frame_bytes, queue_frames, queue_bytes, queue_total_bytes: other.queue_total_bytes.max(queue_bytes), ..other.clone() }
    }

    /// What queues may take: frames, and messages of the relay itself.
    pub fn queue_memory(&self) -> usize {
        self.queue_total_bytes.saturating_add(self.control_total_bytes())
    }

    /// What so many connections may take beside the queues.
    pub(crate) fn memory_of(&self, connections: usize) -> u64 {
        self.queue_memory() as u64 + connections as u64 * CONNECTION_BYTES
    }

    /// Messages of the relay itself that may wait for all clients together, in bytes.
    pub(crate) fn control_total_bytes(&self) -> usize {
        self.queue_total_bytes / 4
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 9_216,
            control_bytes: 16 * 1024,
            preauth_time: Duration::from_secs(5),
            preauth_bytes: 32 * 1024,
            preauth_total: 1_024,
            preauth_per_source: 8,
            joins_per_second: 5,
            join_burst: 50,
            queue_frames: 512,
            queue_bytes: 1024 * 1024,
            queue_total_bytes: 256 * 1024 * 1024,
            stall_time: Duration::from_secs(2),
            handshakes_per_second: 2,
            // those 32 whom a newcomer greets at once (protocol 3.9), and one for each again
            handshake_burst: 64,
            half_open_total: 1_024,
            client_bytes_per_second: 0,
            client_frames_per_second: 0,
            bytes_per_second: 0,
            frames_per_second: 0,
            clients: 16_384,
            refuse_time: Duration::from_mins(1),
            // room for all of the above
            memory: 4 * 1024 * 1024 * 1024,
        }
    }
}
