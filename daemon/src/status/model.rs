//! The JSON of `status --json`: its fields are an interface, added to but never renamed.
use crate::{
    resolve::listed_name,
    warnings::{self, Known, Warning},
};
use serde::{Deserialize, Serialize};
use shadowmesh_core::{
    event::PortMapping,
    id::PeerId,
    status::{PathStatus, PeerState, PeerStatus, RelayState, RelayStatus, Status, SuccessionStatus},
    time::{Duration, Instant},
    wire::{PathLabel, Transport},
};
use shadowmesh_runtime_std::tunnel::Proxies;
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// A running peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) version: String,
    pub(crate) id: String,
    pub(crate) name: String,
    /// `starting`, `ready` or `offline`.
    pub(crate) state: String,
    pub(crate) runtime: String,
    pub(crate) uptime_s: f64,
    pub(crate) interface: InterfaceReport,
    pub(crate) relays: Vec<RelayReport>,
    /// What the router in front forwards to this peer; nothing, when it does not.
    pub(crate) port_mapping: Option<PortMappingReport>,
    pub(crate) peers: Vec<PeerReport>,
    /// The identity that follows this one at the next start; nothing, when none was prepared.
    #[serde(default)]
    pub(crate) succession: Option<SuccessionReport>,
    /// What somebody should look at.
    #[serde(default)]
    pub(crate) warnings: Vec<Warning>,
}

/// An identity that was prepared to follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SuccessionReport {
    pub(crate) id: String,
    /// Members that were met in this run or are listed, and have not said that they know.
    pub(crate) untold: Vec<UntoldReport>,
}

/// Somebody who has not said that it knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct UntoldReport {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
}

/// Ports of the router in front that lead to this peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortMappingReport {
    /// `pcp`, `nat-pmp` or `upnp`.
    pub(crate) protocol: String,
    /// Where datagrams are taken.
    pub(crate) external: Option<String>,
    /// Where connections are taken.
    pub(crate) external_tcp: Option<String>,
    /// What is left of the router's promise; it is renewed at half of its life.
    pub(crate) expires_s: f64,
}

/// Its network interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct InterfaceReport {
    pub(crate) name: String,
    pub(crate) mode: String,
    pub(crate) mtu: u16,
    pub(crate) addresses: Vec<String>,
    /// Where SOCKS5 and HTTP CONNECT are served, in userspace mode.
    pub(crate) proxy: Option<String>,
    /// Where names below `.mesh` are answered, on port 53.
    #[serde(default)]
    pub(crate) dns: Option<String>,
}

/// One relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RelayReport {
    pub(crate) url: String,
    /// The HTTP proxy on the way to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proxy: Option<String>,
    pub(crate) id: Option<String>,
    /// `connecting`, `connected`, `waiting` or `parked`.
    pub(crate) state: String,
    pub(crate) rtt_ms: Option<f64>,
    /// It has said that it goes away.
    #[serde(default)]
    pub(crate) draining: bool,
    pub(crate) observed: Option<String>,
    /// This peer's UDP address as the relay sees it.
    pub(crate) reflexive: Option<String>,
    /// Whether that address varies with whom this peer speaks to.
    pub(crate) mapping_varies: Option<bool>,
    /// Why the last connection ended or never came to be.
    pub(crate) error: Option<String>,
}

/// One remote peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerReport {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    /// `connecting`, `connected` or `offline`.
    pub(crate) state: String,
    pub(crate) addresses: Vec<String>,
    /// The path we send on.
    pub(crate) path: Option<PathReport>,
    /// All live paths.
    pub(crate) paths: Vec<PathReport>,
    pub(crate) suite: Option<String>,
    pub(crate) epoch: u32,
    pub(crate) handshake_age_s: Option<f64>,
    pub(crate) migrations: u64,
    pub(crate) fallbacks: u64,
    pub(crate) retries: u64,
    pub(crate) tx_frames: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_frames: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) lost_frames: u64,
    pub(crate) duplicate_frames: u64,
    pub(crate) reordered_frames: u64,
    pub(crate) resent_frames: u64,
    /// Addresses that it announced and that were refused.
    pub(crate) refused: Vec<RefusedReport>,
}

impl PeerReport {
    /// The address to show to people: an IPv4 one where there is one, for it is short.
    pub(crate) fn address(&self) -> Option<&String> {
        self.addresses.iter().find(|address| !address.contains(':')).or(self.addresses.first())
    }
}

/// One way to a remote peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PathReport {
    /// `relay` or `direct`.
    pub(crate) kind: String,
    /// `wss` or `udp`.
    pub(crate) transport: String,
    /// `active`, `standby`, `validating` or `suspect`.
    pub(crate) state: String,
    pub(crate) remote: Option<String>,
    /// The URL of the relay that a relay path goes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relay: Option<String>,
    pub(crate) since_s: f64,
    pub(crate) rtt_ms: Option<f64>,
}

/// An announced address that was refused, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RefusedReport {
    pub(crate) address: String,
    pub(crate) why: String,
}

/// What the daemon knows besides the node.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// `smol`.
    pub(crate) runtime: &'static str,
    /// As the kernel named it.
    pub(crate) interface_name: String,
    /// `tun`, `tap` or `userspace`.
    pub(crate) interface_mode: &'static str,
    /// `userspace.proxy`, as it was bound.
    pub(crate) proxy: Option<SocketAddr>,
    /// Where names are answered.
    pub(crate) dns: Option<Ipv6Addr>,
    /// What lies on the way to relays.
    pub(crate) proxies: Arc<Proxies>,
    /// Of the interface.
    pub(crate) mtu: u16,
    /// When the daemon started.
    pub(crate) started: std::time::Instant,
}

/// Makes the report. `been_ready`: whether a relay or peer has been connected since the start.
/// `listed`: names from `[[peer]]`.
pub(crate) fn from_core(
    now: Instant,
    status: &Status,
    facts: &Facts,
    been_ready: bool,
    (known, listed): (&Known, &[(String, PeerId)]),
) -> Report {
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        id: status.id.to_string(),
        name: status.name.clone(),
        state: peer_state(status, been_ready).to_owned(),
        runtime: facts.runtime.to_owned(),
        uptime_s: seconds(facts.started.elapsed()),
        interface: InterfaceReport {
            name: facts.interface_name.clone(),
            mode: facts.interface_mode.to_owned(),
            mtu: facts.mtu,
            proxy: facts.proxy.map(|address| address.to_string()),
            dns: facts.dns.map(|address| address.to_string()),
            addresses: status.addresses.iter().map(|(address, length)| format!("{address}/{length}")).collect(),
        },
        relays: status.relays.iter().map(|one| relay(one, &facts.proxies)).collect(),
        port_mapping: port_mapping(now, &status.mappings),
        peers: status.peers.iter().map(|peer| remote(now, peer, &status.relays)).collect(),
        succession: status.succession.as_ref().map(|succession| self::succession(succession, status, listed)),
        warnings: warnings::list(now, status, known),
    }
}

/// Who is still to be told, by the names that the operator or they themselves gave.
fn succession(succession: &SuccessionStatus, status: &Status, listed: &[(String, PeerId)]) -> SuccessionReport {
    let untold = succession.untold.iter().map(|id| {
        let by_operator = listed_name(status, listed, *id);
        let by_itself = || status.peers.iter().find(|peer| peer.id == *id).and_then(|peer| peer.name.clone());
        UntoldReport { id: id.to_string(), name: by_operator.or_else(by_itself) }
    });
    SuccessionReport { id: succession.new.to_string(), untold: untold.collect() }
}

/// Of several families the first that was told, IPv4.
fn port_mapping(now: Instant, mappings: &[PortMapping]) -> Option<PortMappingReport> {
    let external = |transport| {
        let mapping = mappings.iter().find(|mapping| mapping.transport == transport)?;
        Some(mapping.external.to_string())
    };
    Some(PortMappingReport {
        protocol: mappings.first()?.protocol.name().to_owned(),
        external: external(Transport::Udp),
        external_tcp: external(Transport::Wss),
        expires_s: seconds(mappings.iter().map(|mapping| mapping.until.since(now)).min()?),
    })
}

/// `ready` with a relay or a peer; else `offline` once something was there or an attempt failed, `starting` before.
fn peer_state(status: &Status, been_ready: bool) -> &'static str {
    let relay = status.relays.iter().any(|relay| relay.state == RelayState::Connected);
    let peer = status.peers.iter().any(|peer| peer.state == PeerState::Connected);
    let failed = status.relays.iter().any(|relay| relay.last_error.is_some() || relay.state == RelayState::Waiting);
    match (relay || peer, been_ready || failed) {
        (true, _) => "ready",
        (false, true) => "offline",
        (false, false) => "starting",
    }
}

/// Kind and transport of a path.
pub(crate) const fn label(label: PathLabel) -> (&'static str, &'static str) {
    match label {
        PathLabel::RelayWss => ("relay", "wss"),
        PathLabel::DirectWss => ("direct", "wss"),
        PathLabel::DirectUdp => ("direct", "udp"),
        PathLabel::RelayUdp => ("relay", "udp"),
    }
}

fn relay(relay: &RelayStatus, proxies: &Proxies) -> RelayReport {
    let state = match relay.state {
        RelayState::Connecting => "connecting",
        RelayState::Connected => "connected",
        RelayState::Waiting => "waiting",
        RelayState::Parked => "parked",
    };
    RelayReport {
        url: relay.url.clone(),
        proxy: proxies.on_the_way_to(&relay.url),
        id: relay.id.map(|id| id.to_string()),
        state: state.to_owned(),
        rtt_ms: relay.rtt.map(millis),
        draining: relay.draining,
        observed: relay.observed.map(|address| address.to_string()),
        reflexive: relay.reflexive.map(|address| address.to_string()),
        mapping_varies: relay.mapping_varies,
        error: relay.last_error.clone(),
    }
}

fn remote(now: Instant, peer: &PeerStatus, relays: &[RelayStatus]) -> PeerReport {
    let state = match peer.state {
        PeerState::Connecting => "connecting",
        PeerState::Connected => "connected",
        PeerState::Offline => "offline",
    };
    PeerReport {
        id: peer.id.to_string(),
        name: peer.name.clone(),
        state: state.to_owned(),
        addresses: peer.addresses.iter().map(IpAddr::to_string).collect(),
        path: peer.path.as_ref().map(|one| path(now, one, relays)),
        paths: peer.paths.iter().map(|one| path(now, one, relays)).collect(),
        suite: peer.suite.map(str::to_owned),
        epoch: peer.epoch,
        handshake_age_s: peer.handshake_at.map(|at| seconds(now.since(at))),
        migrations: peer.migrations,
        fallbacks: peer.fallbacks,
        retries: peer.retries,
        tx_frames: peer.tx_frames,
        tx_bytes: peer.tx_bytes,
        rx_frames: peer.rx_frames,
        rx_bytes: peer.rx_bytes,
        lost_frames: peer.lost_frames,
        duplicate_frames: peer.duplicate_frames,
        reordered_frames: peer.reordered_frames,
        resent_frames: peer.resent_frames,
        refused: peer.refused.iter().map(|(address, why)| RefusedReport { address: address.to_string(), why: (*why).to_owned() }).collect(),
    }
}

fn path(now: Instant, path: &PathStatus, relays: &[RelayStatus]) -> PathReport {
    let (kind, transport) = label(path.label);
    PathReport {
        kind: kind.to_owned(),
        transport: transport.to_owned(),
        state: path.state.to_owned(),
        remote: path.remote.map(|address| address.to_string()),
        relay: path.relay.and_then(|index| relays.get(index)).map(|relay| relay.url.clone()),
        since_s: seconds(now.since(path.since)),
        rtt_ms: path.rtt.map(millis),
    }
}

/// Seconds with three digits: the JSON stays readable.
fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e3).round() / 1e3
}

/// Milliseconds with three digits.
pub(crate) fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}
