//! What `shadowmesh-relay status` shows: the hub's numbers with names that scripts can rely on.
use core::fmt::Write;
use serde::{Deserialize, Serialize};
use shadowmesh_core::{
    hub::{HubStatus, PortStatus},
    id::ConnId,
    time::Instant,
};
use std::collections::BTreeMap;

/// One answer of the control socket, and the output of `status --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the software.
    pub version: String,
    /// The relay's id.
    pub id: String,
    /// `ready`, or `draining` when it goes away.
    pub state: String,
    /// What drives it.
    pub runtime: String,
    /// Seconds since the start.
    pub uptime_s: f64,
    /// Where clients are taken.
    pub listen: Vec<String>,
    /// Whom the certificate is for that new connections see.
    #[serde(default)]
    pub certificate: String,
    /// Where metrics are served, if they are.
    pub metrics: Option<String>,
    /// Networks with at least one member.
    pub networks: usize,
    /// Connections that have not proven an identity.
    pub preauth: usize,
    /// Handshakes under way.
    pub half_open: usize,
    /// Handshakes that reached ESTABLISHED, and connections that ended before.
    pub handshakes: Handshakes,
    /// Established clients.
    pub clients: Vec<Client>,
    /// Sums over all clients that there ever were.
    pub totals: Totals,
    /// What was dropped or refused, by reason; reasons at zero are left out.
    pub drops: BTreeMap<String, u64>,
}

/// How handshakes ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshakes {
    /// Reached ESTABLISHED.
    pub success: u64,
    /// Ended before.
    pub failure: u64,
    /// Were answered: each cost arithmetic.
    #[serde(default)]
    pub answered: u64,
}

/// Sums of the data plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Frames that came in.
    pub rx_frames: u64,
    /// Bytes that came in.
    pub rx_bytes: u64,
    /// Frames that went out.
    pub tx_frames: u64,
    /// Bytes that went out.
    pub tx_bytes: u64,
    /// Bytes that wait now.
    pub queue_bytes: usize,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Its `PeerId`.
    pub id: String,
    /// Its number in the directory.
    pub handle: u32,
    /// The number of its network in this run of the relay.
    pub network: u32,
    /// Its observed address.
    pub remote: String,
    /// Seconds since it was established.
    pub since_s: f64,
    /// Seconds since a sealed message of it came.
    pub heard_s: f64,
    /// Its session's suite.
    pub suite: String,
    /// Whether it takes direct connections.
    pub supports_direct: bool,
    /// Frames that wait for it.
    pub queue_frames: usize,
    /// Bytes that wait for it.
    pub queue_bytes: usize,
    /// Frames that came from it.
    pub rx_frames: u64,
    /// Bytes that came from it.
    pub rx_bytes: u64,
    /// Frames that went to it.
    pub tx_frames: u64,
    /// Bytes that went to it.
    pub tx_bytes: u64,
    /// Bytes a second from it, lately.
    pub rx_bytes_per_s: f64,
    /// Bytes a second to it, lately.
    pub tx_bytes_per_s: f64,
}

/// Counters of an earlier moment, to tell rates from.
#[derive(Clone, Debug)]
pub struct Sample {
    at: Instant,
    bytes: BTreeMap<ConnId, (u64, u64)>,
}

impl Sample {
    /// The counters of this moment.
    pub fn of(at: Instant, status: &HubStatus) -> Self {
        Self { at, bytes: status.clients.iter().map(|client| (client.conn, (client.port.rx_bytes, client.port.tx_bytes))).collect() }
    }

    /// No counters yet: rates since the start.
    pub fn empty(at: Instant) -> Self {
        Self { at, bytes: BTreeMap::new() }
    }

    /// When it was taken.
    pub fn at(&self) -> Instant {
        self.at
    }

    fn rates(&self, now: Instant, port: &PortStatus) -> (f64, f64) {
        let seconds = now.since(self.at).as_secs_f64();
        let (rx, tx) = self.bytes.get(&port.conn).copied().unwrap_or_default();
        if seconds == 0.0 {
            return (0.0, 0.0);
        }
        (precise(port.rx_bytes.saturating_sub(rx)) / seconds, precise(port.tx_bytes.saturating_sub(tx)) / seconds)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
pub(crate) fn precise(count: u64) -> f64 {
    count as f64
}

impl Report {
    /// What the relay is at `now`; `sample` is some seconds old.
    pub fn new(now: Instant, started: Instant, listen: Vec<String>, metrics: Option<String>, status: &HubStatus, sample: &Sample) -> Self {
        let seconds = |since: Instant| now.since(since).as_secs_f64();
        let client = |client: &shadowmesh_core::hub::ClientStatus| {
            let (rx_bytes_per_s, tx_bytes_per_s) = sample.rates(now, &client.port);
            Client {
                id: client.id.to_string(),
                handle: client.handle.0,
                network: client.network,
                remote: client.remote.to_string(),
                since_s: seconds(client.since),
                heard_s: seconds(client.heard),
                suite: client.suite.to_owned(),
                supports_direct: client.supports_direct,
                queue_frames: client.port.queue_frames,
                queue_bytes: client.port.queue_bytes,
                rx_frames: client.port.rx_frames,
                rx_bytes: client.port.rx_bytes,
                tx_frames: client.port.tx_frames,
                tx_bytes: client.port.tx_bytes,
                rx_bytes_per_s,
                tx_bytes_per_s,
            }
        };
        let forward = &status.forward;
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: status.id.to_string(),
            state: if status.draining { "draining" } else { "ready" }.to_owned(),
            runtime: String::new(),
            uptime_s: seconds(started),
            listen,
            certificate: String::new(),
            metrics,
            networks: status.networks,
            preauth: status.preauth,
            half_open: status.half_open,
            handshakes: Handshakes {
                success: status.handshakes_succeeded,
                failure: status.handshakes_failed,
                answered: status.handshakes_answered,
            },
            clients: status.clients.iter().map(client).collect(),
            totals: Totals {
                rx_frames: forward.rx_frames,
                rx_bytes: forward.rx_bytes,
                tx_frames: forward.tx_frames,
                tx_bytes: forward.tx_bytes,
                queue_bytes: forward.queue_bytes,
            },
            drops: status.drops.iter().filter(|(_, count)| *count > 0).map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        }
    }

    /// The same for people.
    #[expect(clippy::missing_panics_doc, reason = "writing to a String does not fail")]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write_text(&mut out).expect("writing to a String does not fail");
        out
    }

    fn write_text(&self, out: &mut String) -> core::fmt::Result {
        writeln!(out, "relay {} {} for {}", self.id, self.state, time(self.uptime_s))?;
        writeln!(out, "listening on {}", self.listen.join(", "))?;
        if !self.certificate.is_empty() && self.certificate != self.id {
            writeln!(out, "certificate of {}", self.certificate)?;
        }
        if let Some(metrics) = &self.metrics {
            writeln!(out, "metrics at {metrics}")?;
        }
        writeln!(
            out,
            "{} clients in {} networks, {} connections without proof, {} handshakes done, {} failed",
            self.clients.len(),
            self.networks,
            self.preauth,
            self.handshakes.success,
            self.handshakes.failure
        )?;
        let totals = self.totals;
        writeln!(
            out,
            "in {} frames {}, out {} frames {}, waiting {}",
            totals.rx_frames,
            bytes(precise(totals.rx_bytes)),
            totals.tx_frames,
            bytes(precise(totals.tx_bytes)),
            bytes(precise(totals.queue_bytes as u64))
        )?;
        if !self.drops.is_empty() {
            let drops: Vec<_> = self.drops.iter().map(|(name, count)| format!("{name} {count}")).collect();
            writeln!(out, "dropped: {}", drops.join(", "))?;
        }
        if !self.clients.is_empty() {
            writeln!(
                out,
                "\n{:<15} {:>7} {:<47} {:>8} {:>12} {:>12} {:>6}",
                "CLIENT", "NETWORK", "ADDRESS", "SINCE", "FROM", "TO", "QUEUE"
            )?;
        }
        for client in &self.clients {
            writeln!(
                out,
                "{:<15} {:>7} {:<47} {:>8} {:>12} {:>12} {:>6}",
                client.id.chars().take(15).collect::<String>(),
                client.network,
                client.remote,
                time(client.since_s),
                format!("{}/s", bytes(client.rx_bytes_per_s)),
                format!("{}/s", bytes(client.tx_bytes_per_s)),
                client.queue_frames
            )?;
        }
        Ok(())
    }
}

pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7_200.0 => format!("{:.0}m", s / 60.0),
        s if s < 172_800.0 => format!("{:.0}h", s / 3_600.0),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

pub(crate) fn bytes(count: f64) -> String {
    let mut count = count;
    for unit in ["B", "kB", "MB", "GB"] {
        if count < 1_000.0 {
            return if unit == "B" { format!("{count:.0} B") } else { format!("{count:.1} {unit}") };
        }
        count /= 1_000.0;
    }
    format!("{count:.1} TB")
}

#[cfg(test)]
impl Client {
    /// A client of that name, for tests of what shows it.
    pub(crate) fn some(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            handle: 4,
            network: 1,
            remote: "203.0.113.7:41022".to_owned(),
            since_s: 90.0,
            heard_s: 1.0,
            suite: "suite".to_owned(),
            supports_direct: true,
            queue_frames: 7,
            queue_bytes: 700,
            rx_frames: 1,
            rx_bytes: 1,
            tx_frames: 1,
            tx_bytes: 1,
            rx_bytes_per_s: 0.0,
            tx_bytes_per_s: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_matters() {
        let client = Client { rx_bytes_per_s: 1_500.0, tx_bytes_per_s: 2_500_000.0, ..Client::some("sm-abcdefghijklmnopqrstuvwxyz") };
        let report = Report {
            id: "sm-relay".into(),
            certificate: "CN=relay.example".into(),
            uptime_s: 7_300.0,
            clients: vec![client],
            drops: [("queue_full".to_owned(), 3)].into(),
            ..Report::default()
        };
        let text = report.to_text();
        for part in [
            "sm-relay",
            "for 2h",
            "certificate of CN=relay.example",
            "1 clients",
            "dropped: queue_full 3",
            "sm-abcdefghijkl ",
            "203.0.113.7:41022",
            "90s",
            "1.5 kB/s",
            "2.5 MB/s",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let json = serde_json::to_string(&report).expect("serializes");
        assert_eq!(serde_json::from_str::<Report>(&json).expect("parses"), report);
    }
}
