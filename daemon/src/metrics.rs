//! The Prometheus text of a peer. Counters come from the node's own totals at each scrape; only durations are kept here.
use crate::warnings::{KINDS, Warning};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};
use shadowmesh_core::{
    event::Note,
    status::{PeerState, PeerStatus, RelayState, Status},
};
use std::{fmt, time::Duration};

/// Seconds; from a switch on one machine to one that waited for a distant peer.
const MIGRATION_BUCKETS_S: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// Seconds; three messages of HMAC on loopback to a path around the world.
const REHANDSHAKE_BUCKETS_S: [f64; 13] = [0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// What is kept between scrapes.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    migration: Histogram,
    rehandshake: Histogram,
}

impl Metrics {
    /// Nothing measured yet.
    pub(crate) fn new() -> Self {
        Self { migration: Histogram::new(MIGRATION_BUCKETS_S), rehandshake: Histogram::new(REHANDSHAKE_BUCKETS_S) }
    }

    /// Takes the durations out of a note.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other notes carry no duration of a path")]
    pub(crate) fn note(&self, note: &Note) {
        match note {
            Note::Migrated { to, took, .. } if !to.is_relay() => self.migration.observe(took.as_secs_f64()),
            Note::PathValidated { rehandshake, .. } => self.rehandshake.observe(rehandshake.as_secs_f64()),
            _ => {}
        }
    }

    /// The text of one scrape.
    pub(crate) fn render(&self, status: &Status, uptime: Duration, warnings: &[Warning]) -> String {
        let mut registry = Registry::default();
        registry.register(
            "shadowmesh_p2p_migration_duration_seconds",
            "Time from the decision for a path to traffic on it",
            self.migration.clone(),
        );
        registry.register(
            "shadowmesh_rehandshake_duration_seconds",
            "Time of a re-handshake that validated a path",
            self.rehandshake.clone(),
        );
        registry.register_collector(Box::new(Snapshot { status: status.clone(), uptime, warnings: warnings.to_vec() }));
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }
}

/// All that comes from the node's status.
#[derive(Debug)]
struct Snapshot {
    status: Status,
    uptime: Duration,
    warnings: Vec<Warning>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Out(&mut encoder);
        self.paths(&mut out)?;
        self.traffic(&mut out)?;
        self.peers(&mut out)?;
        self.succession(&mut out)?;
        let counts = KINDS.map(|kind| {
            let count = self.warnings.iter().filter(|warning| warning.kind == kind).count();
            ([("kind", kind)], i64::try_from(count).unwrap_or(i64::MAX))
        });
        out.gauges("shadowmesh_warnings", "What somebody should look at, as status tells it", counts)?;
        out.gauges("shadowmesh_build_info", "The running version", [([("version", env!("CARGO_PKG_VERSION"))], 1)])?;
        let seconds = i64::try_from(self.uptime.as_secs()).unwrap_or(i64::MAX);
        out.gauge("shadowmesh_uptime_seconds", "Time since the daemon started", seconds)
    }
}

impl Snapshot {
    fn paths(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let totals = &self.status.totals;
        out.counters(
            "shadowmesh_p2p_connections",
            "Connections to peers that came up, by kind of path",
            [([("type", "direct")], totals.connections_direct), ([("type", "relay")], totals.connections_relay)],
        )?;
        out.counters(
            "shadowmesh_p2p_migrations",
            "Moves of traffic to a direct path",
            [([("status", "success")], totals.migrations_ok), ([("status", "failure")], totals.migrations_failed)],
        )?;
        out.counter("shadowmesh_p2p_fallbacks", "Moves of traffic back to the relay", totals.fallbacks)?;
        out.counters(
            "shadowmesh_p2p_retries",
            "Attempts at a direct path after one had failed",
            [([("status", "success")], totals.retries_ok), ([("status", "failure")], totals.retries_failed)],
        )
    }

    fn traffic(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let totals = &self.status.totals;
        out.counters(
            "shadowmesh_interface_bytes",
            "Bytes of packets at the overlay interface: rx read from it, tx written to it",
            [([("direction", "rx")], totals.interface_rx_bytes), ([("direction", "tx")], totals.interface_tx_bytes)],
        )?;
        let path = |direction, kind, transport| [("direction", direction), ("kind", kind), ("transport", transport)];
        out.counters(
            "shadowmesh_path_bytes",
            "Bytes of sealed frames by kind of path",
            [
                (path("rx", "relay", "wss"), totals.relay_wss_rx_bytes),
                (path("tx", "relay", "wss"), totals.relay_wss_tx_bytes),
                (path("rx", "relay", "udp"), totals.relay_udp_rx_bytes),
                (path("tx", "relay", "udp"), totals.relay_udp_tx_bytes),
                (path("rx", "direct", "wss"), totals.direct_wss_rx_bytes),
                (path("tx", "direct", "wss"), totals.direct_wss_tx_bytes),
                (path("rx", "direct", "udp"), totals.direct_udp_rx_bytes),
                (path("tx", "direct", "udp"), totals.direct_udp_tx_bytes),
            ],
        )?;
        out.counters(
            "shadowmesh_drops",
            "What was dropped, by reason",
            self.status.drops.iter().map(|(reason, count)| ([("reason", *reason)], *count)),
        )
    }

    fn peers(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let count = |fits: &dyn Fn(&PeerStatus) -> bool| {
            i64::try_from(self.status.peers.iter().filter(|peer| fits(peer)).count()).unwrap_or(i64::MAX)
        };
        let direct = |peer: &PeerStatus| peer.path.as_ref().is_some_and(|path| !path.label.is_relay());
        let relay = |peer: &PeerStatus| peer.path.as_ref().is_some_and(|path| path.label.is_relay());
        out.gauges(
            "shadowmesh_peers",
            "Known peers by the path that traffic to them takes",
            [
                ([("path", "direct")], count(&direct)),
                ([("path", "relay")], count(&relay)),
                ([("path", "none")], count(&|peer| peer.path.is_none())),
            ],
        )?;
        let relays = self.status.relays.iter().filter(|relay| relay.state == RelayState::Connected).count();
        let relays = i64::try_from(relays).unwrap_or(i64::MAX);
        out.gauge("shadowmesh_relays_connected", "Relays with an established session", relays)?;
        let suites: Vec<_> = self
            .status
            .peers
            .iter()
            .filter(|peer| peer.state == PeerState::Connected)
            .filter_map(|peer| Some((peer.id.to_string(), peer.suite?)))
            .collect();
        out.gauges(
            "shadowmesh_peer_crypto_info",
            "The suite of the session with each connected peer",
            suites.iter().map(|(id, suite)| ([("peer", id.as_str()), ("suite", *suite)], 1)),
        )
    }

    /// Between `id rotate` and the restart: who is not to be surprised by it (protocol 2.8).
    fn succession(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let pending = self.status.succession.as_ref();
        out.gauge(
            "shadowmesh_succession_pending",
            "Whether a new identity follows this one at the next start",
            i64::from(pending.is_some()),
        )?;
        let untold = pending.map_or(0, |succession| succession.untold.len());
        out.gauge(
            "shadowmesh_succession_untold",
            "Members, met since the start or listed, that have not said that they know of it",
            i64::try_from(untold).unwrap_or(i64::MAX),
        )
    }
}

/// Writes one family at a time; a family without rows still has its name, type and help.
struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([(&'static str, &'static str); N], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauges<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([(&'l str, &'l str); N], i64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_core::{
        id::PeerId,
        status::{SuccessionStatus, Totals},
        time::Duration,
        wire::PathLabel,
    };

    fn nobody() -> Status {
        Status {
            id: PeerId([9; 32]),
            name: "me".to_owned(),
            addresses: Vec::new(),
            relays: Vec::new(),
            mappings: Vec::new(),
            peers: Vec::new(),
            drops: vec![("replayed", 0)],
            totals: Totals::default(),
            succession: None,
            replaced: Vec::new(),
        }
    }

    #[test]
    fn every_name_is_there_from_the_first_scrape() {
        let text = Metrics::new().render(&nobody(), Duration::ZERO, &[]);
        for line in [
            "shadowmesh_p2p_connections_total{type=\"direct\"} 0",
            "shadowmesh_p2p_connections_total{type=\"relay\"} 0",
            "shadowmesh_p2p_migrations_total{status=\"success\"} 0",
            "shadowmesh_p2p_migrations_total{status=\"failure\"} 0",
            "shadowmesh_p2p_fallbacks_total 0",
            "shadowmesh_p2p_retries_total{status=\"success\"} 0",
            "shadowmesh_p2p_retries_total{status=\"failure\"} 0",
            "shadowmesh_p2p_migration_duration_seconds_count 0",
            "shadowmesh_rehandshake_duration_seconds_count 0",
            "shadowmesh_peers{path=\"direct\"} 0",
            "shadowmesh_peers{path=\"relay\"} 0",
            "shadowmesh_peers{path=\"none\"} 0",
            "# TYPE shadowmesh_peer_crypto_info gauge",
            "shadowmesh_drops_total{reason=\"replayed\"} 0",
            "shadowmesh_warnings{kind=\"shared_identity\"} 0",
            "shadowmesh_interface_bytes_total{direction=\"rx\"} 0",
            "shadowmesh_path_bytes_total{direction=\"tx\",kind=\"direct\",transport=\"wss\"} 0",
            "shadowmesh_succession_pending 0",
            "shadowmesh_succession_untold 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn who_is_still_to_be_told_of_a_new_identity_is_counted() {
        let succession = Some(SuccessionStatus { new: PeerId([8; 32]), untold: vec![PeerId([1; 32]), PeerId([2; 32])] });
        let text = Metrics::new().render(&Status { succession, ..nobody() }, Duration::ZERO, &[]);
        assert!(text.contains("shadowmesh_succession_pending 1\n") && text.contains("shadowmesh_succession_untold 2\n"), "{text}");
    }

    #[test]
    fn durations_land_in_their_histograms() {
        let metrics = Metrics::new();
        let peer = PeerId([1; 32]);
        metrics.note(&Note::Migrated { peer, from: Some(PathLabel::RelayWss), to: PathLabel::DirectWss, took: Duration::from_millis(3) });
        metrics.note(&Note::Retry { peer, success: true });
        let text = metrics.render(&nobody(), Duration::ZERO, &[]);
        assert!(text.contains("shadowmesh_p2p_migration_duration_seconds_bucket{le=\"0.002\"} 0"), "{text}");
        assert!(text.contains("shadowmesh_p2p_migration_duration_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("shadowmesh_rehandshake_duration_seconds_count 0"), "{text}");
    }
}
