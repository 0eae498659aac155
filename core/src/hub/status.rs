//! What a relay can say about itself: plain data for `status`, metrics and tests.
use crate::{
    id::{ConnId, Handle, PeerId},
    time::{Duration, Instant},
};
use core::net::SocketAddr;

/// A relay at one moment. `Hub::status` fills it, `HubStatus::merge` adds what the forwarder knows.
#[derive(Clone, Debug)]
pub struct HubStatus {
    /// It goes away: nobody is let in any more.
    pub draining: bool,
    /// The relay's identity.
    pub id: PeerId,
    /// Networks with at least one member.
    pub networks: usize,
    /// Established clients, by connection.
    pub clients: Vec<ClientStatus>,
    /// Connections that have not proven an identity yet, those still in TLS included.
    pub preauth: usize,
    /// Handshakes between HELLO and ESTABLISHED.
    pub half_open: usize,
    /// Handshakes that reached ESTABLISHED.
    pub handshakes_succeeded: u64,
    /// Connections that ended before it.
    pub handshakes_failed: u64,
    /// HELLOs whose mac1 held: each cost a key encapsulation and a signature.
    pub handshakes_answered: u64,
    /// What was dropped or refused: every reason, also those at zero.
    pub drops: Vec<(&'static str, u64)>,
    /// The data plane's totals.
    pub forward: ForwardStats,
}

impl HubStatus {
    /// Adds the forwarder's counters, and to each client those of its connection.
    pub fn merge(&mut self, forward: ForwardStats) {
        for client in &mut self.clients {
            if let Ok(at) = forward.ports.binary_search_by_key(&client.conn, |port| port.conn) {
                client.port = forward.ports[at].clone();
            }
        }
        for (name, count) in &forward.drops {
            match self.drops.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += count,
                None => self.drops.push((name, *count)),
            }
        }
        self.forward = forward;
    }

    /// How often something was dropped for `reason`.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.drops.iter().filter(|(name, _)| *name == reason).map(|(_, count)| count).sum()
    }
}

/// One established client.
#[derive(Clone, Debug)]
pub struct ClientStatus {
    /// Its identity.
    pub id: PeerId,
    /// Its connection.
    pub conn: ConnId,
    /// Its handle in the directory.
    pub handle: Handle,
    /// The number of its network in this relay's life; says nothing about the network.
    pub network: u32,
    /// The observed address.
    pub remote: SocketAddr,
    /// When it was established.
    pub since: Instant,
    /// When a sealed frame of it was last opened.
    pub heard: Instant,
    /// The session's suite.
    pub suite: &'static str,
    /// Whether it takes direct connections.
    pub supports_direct: bool,
    /// Its queue and counters in the forwarder.
    pub port: PortStatus,
}

/// One connection as the forwarder sees it.
#[derive(Clone, Debug)]
pub struct PortStatus {
    /// Which connection.
    pub conn: ConnId,
    /// Frames that wait for it.
    pub queue_frames: usize,
    /// Bytes that wait for it, record headers included.
    pub queue_bytes: usize,
    /// Records that came from it.
    pub rx_frames: u64,
    /// Payload bytes that came from it.
    pub rx_bytes: u64,
    /// Records that were handed to its writer.
    pub tx_frames: u64,
    /// Payload bytes that were handed to its writer.
    pub tx_bytes: u64,
}

impl PortStatus {
    /// A connection that has carried nothing.
    pub const fn idle(conn: ConnId) -> Self {
        Self { conn, queue_frames: 0, queue_bytes: 0, rx_frames: 0, rx_bytes: 0, tx_frames: 0, tx_bytes: 0 }
    }
}

/// The forwarder's totals.
#[derive(Clone, Debug, Default)]
pub struct ForwardStats {
    /// Records that came in.
    pub rx_frames: u64,
    /// Payload bytes that came in.
    pub rx_bytes: u64,
    /// Records that went out.
    pub tx_frames: u64,
    /// Payload bytes that went out.
    pub tx_bytes: u64,
    /// Bytes in all queues now.
    pub queue_bytes: usize,
    /// How long records waited.
    pub queue_times: QueueTimes,
    /// Drops by reason, every reason named.
    pub drops: Vec<(&'static str, u64)>,
    /// Every connection, sorted by `conn`.
    pub ports: Vec<PortStatus>,
}

/// A histogram of the time between a record's arrival and its hand-over to the writer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueTimes {
    /// Counts per bucket, not cumulative; the last is everything above the last bound.
    pub counts: [u64; Self::BOUNDS_US.len() + 1],
    /// Sum of all times in nanoseconds.
    pub sum_ns: u64,
}

impl QueueTimes {
    /// Upper bounds of the buckets in microseconds.
    pub const BOUNDS_US: [u64; 10] = [50, 200, 1_000, 5_000, 20_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000];

    /// Counts one record that waited for `time`.
    pub fn record(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.counts[Self::BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}
