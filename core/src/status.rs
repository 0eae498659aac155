//! What a `Node` tells people and programs about itself: plain data, no behaviour. `status --json` is made from it.
use crate::{
    event::PortMapping,
    id::{PathId, PeerId},
    time::{Duration, Instant},
    wire::PathLabel,
};
use core::net::{IpAddr, SocketAddr};

/// What a lost relay says when it lost us because another machine joins with our identity (protocol 6.8: CLOSE 05).
pub const SHARED_IDENTITY: &str = "the same identity joins from several places";

/// The whole state of a peer at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Own identity.
    pub id: PeerId,
    /// Own name.
    pub name: String,
    /// Own overlay addresses with prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// One entry a relay of the token.
    pub relays: Vec<RelayStatus>,
    /// What the router in front forwards to us.
    pub mappings: Vec<PortMapping>,
    /// One entry a known peer.
    pub peers: Vec<PeerStatus>,
    /// Drops by reason.
    pub drops: Vec<(&'static str, u64)>,
    /// Counters since start.
    pub totals: Totals,
    /// The identity that will follow this one at the next start.
    pub succession: Option<SuccessionStatus>,
    /// Listed identities whose place another one has taken, and who has it now (protocol 2.8).
    pub replaced: Vec<(PeerId, PeerId)>,
}

impl Status {
    /// Who has the place of this listed identity now; itself, where nobody has taken it.
    pub fn present(&self, listed: PeerId) -> PeerId {
        self.replaced.iter().find(|(old, _)| *old == listed).map_or(listed, |(_, now)| *now)
    }
}

/// An own succession that has not taken effect (protocol 2.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuccessionStatus {
    /// Who will follow.
    pub new: PeerId,
    /// Members that were met in this run or are listed, and have not said that they know.
    pub untold: Vec<PeerId>,
}

/// Counters since start, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Sessions that began on the relay.
    pub connections_relay: u64,
    /// Direct paths that were proven.
    pub connections_direct: u64,
    /// Moves to a better path.
    pub migrations_ok: u64,
    /// Attempts at a direct path that failed.
    pub migrations_failed: u64,
    /// Moves back to the relay.
    pub fallbacks: u64,
    /// Retries that led to a direct path.
    pub retries_ok: u64,
    /// Retries that failed.
    pub retries_failed: u64,
    /// Bytes read from the overlay interface.
    pub interface_rx_bytes: u64,
    /// Bytes written to the overlay interface.
    pub interface_tx_bytes: u64,
    /// Sealed bytes received over relays.
    pub relay_wss_rx_bytes: u64,
    /// Sealed bytes sent over relays.
    pub relay_wss_tx_bytes: u64,
    /// Sealed bytes received over direct WebSocket paths.
    pub direct_wss_rx_bytes: u64,
    /// Sealed bytes sent over direct WebSocket paths.
    pub direct_wss_tx_bytes: u64,
    /// Sealed bytes received over direct UDP paths.
    pub direct_udp_rx_bytes: u64,
    /// Sealed bytes sent over direct UDP paths.
    pub direct_udp_tx_bytes: u64,
    /// The same over relays by UDP.
    pub relay_udp_rx_bytes: u64,
    /// The same over relays by UDP.
    pub relay_udp_tx_bytes: u64,
}

/// One relay of the token.
#[derive(Clone, Debug)]
pub struct RelayStatus {
    /// Its address.
    pub url: String,
    /// Its identity, once known.
    pub id: Option<PeerId>,
    /// How it stands.
    pub state: RelayState,
    /// Round trip of the last ping.
    pub rtt: Option<Duration>,
    /// Our address as it sees it.
    pub observed: Option<SocketAddr>,
    /// Our UDP address as it sees it.
    pub reflexive: Option<SocketAddr>,
    /// When it said so last.
    pub reflexive_at: Option<Instant>,
    /// It has said that it goes away.
    pub draining: bool,
    /// It is connected and tells UDP addresses to who asks.
    pub has_reflector: bool,
    /// Whether its two UDP ports see two addresses of us; None while that is unknown.
    pub mapping_varies: Option<bool>,
    /// Why it is not connected.
    pub last_error: Option<String>,
}

/// How a relay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayState {
    /// Dialling or shaking hands.
    Connecting,
    /// It has let us in.
    Connected,
    /// The next attempt comes later.
    Waiting,
    /// Closed after a migration, by configuration; dialled again on fallback.
    Parked,
}

/// How a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Known to be there, no session yet.
    Connecting,
    /// A session stands and a path carries it.
    Connected,
    /// Not reachable.
    Offline,
}

/// One known peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its identity.
    pub id: PeerId,
    /// Its name, ours for it or its claim.
    pub name: Option<String>,
    /// How it stands.
    pub state: PeerState,
    /// Overlay addresses that are its own.
    pub addresses: Vec<IpAddr>,
    /// The path we send on; None while not connected.
    pub path: Option<PathStatus>,
    /// The other paths.
    pub paths: Vec<PathStatus>,
    /// Suite of the session.
    pub suite: Option<&'static str>,
    /// Epoch of the session's keys.
    pub epoch: u32,
    /// When the session was made.
    pub handshake_at: Option<Instant>,
    /// Moves to a better path.
    pub migrations: u64,
    /// Moves back to the relay.
    pub fallbacks: u64,
    /// Attempts at a direct path after one had failed.
    pub retries: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes of overlay packets sent.
    pub tx_bytes: u64,
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes of overlay packets received.
    pub rx_bytes: u64,
    /// Frames given up, in either direction.
    pub lost_frames: u64,
    /// Copies dropped.
    pub duplicate_frames: u64,
    /// Frames delivered out of order.
    pub reordered_frames: u64,
    /// Frames sent more than once.
    pub resent_frames: u64,
    /// Announced addresses that were refused, and why.
    pub refused: Vec<(IpAddr, &'static str)>,
    /// The peer's candidates and what became of each.
    pub candidates: Vec<CandidateStatus>,
    /// When a direct path is tried next.
    pub next_attempt_at: Option<Instant>,
    /// Why the last attempt at a direct path failed.
    pub last_failure: Option<String>,
}

/// One way to a peer.
#[derive(Clone, Debug)]
pub struct PathStatus {
    /// Its number.
    pub id: PathId,
    /// Its kind.
    pub label: PathLabel,
    /// `active`, `standby`, `validating` or `suspect`.
    pub state: &'static str,
    /// The other end's address; on the relay path, the relay's.
    pub remote: Option<SocketAddr>,
    /// On the relay path, which relay of the token.
    pub relay: Option<usize>,
    /// In this state, or on this path, since then.
    pub since: Instant,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
}

/// One address that a peer announced.
#[derive(Clone, Debug)]
pub struct CandidateStatus {
    /// The address.
    pub address: SocketAddr,
    /// `udp` or `wss`.
    pub transport: &'static str,
    /// Where it comes from: `host`, `observed`, `varying`, `port-mapped` or `configured`; or `simultaneous open`, where both ends dialled
    /// each other.
    pub kind: &'static str,
    /// What became of the last try: `untried`, `not allowed`, `trying`, `proven`, or why it failed.
    pub result: String,
}
