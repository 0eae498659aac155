//! The relay's numbers for Prometheus, made from one status at each scrape: there is no second set of counters to go wrong.
use core::fmt;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use shadowmesh_core::hub::{HubStatus, QueueTimes};

/// The text that `/metrics` answers with.
#[expect(clippy::missing_panics_doc, reason = "writing to a String does not fail")]
pub fn render(status: &HubStatus) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(status.clone())));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("writing to a String does not fail");
    out
}

#[derive(Debug)]
struct Snapshot(HubStatus);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(status) = self;
        let forward = &status.forward;
        gauge(&mut encoder, "shadowmesh_relay_clients", "Established clients", status.clients.len())?;
        gauge(&mut encoder, "shadowmesh_relay_draining", "1 when the relay goes away and lets nobody in", status.draining.into())?;
        gauge(&mut encoder, "shadowmesh_relay_networks", "Networks with at least one member", status.networks)?;
        gauge(&mut encoder, "shadowmesh_relay_preauth", "Connections without a proven identity", status.preauth)?;
        gauge(&mut encoder, "shadowmesh_relay_half_open", "Handshakes under way", status.half_open)?;
        gauge(&mut encoder, "shadowmesh_relay_queue_bytes", "Bytes that wait for clients", forward.queue_bytes)?;
        counters(
            &mut encoder,
            "shadowmesh_relay_frames",
            "Frames from and to clients",
            "direction",
            &[("in", forward.rx_frames), ("out", forward.tx_frames)],
        )?;
        counters(
            &mut encoder,
            "shadowmesh_relay_bytes",
            "Bytes from and to clients",
            "direction",
            &[("in", forward.rx_bytes), ("out", forward.tx_bytes)],
        )?;
        counters(&mut encoder, "shadowmesh_relay_drops", "What was dropped or refused", "reason", &status.drops)?;
        let handshakes =
            [("success", status.handshakes_succeeded), ("failure", status.handshakes_failed), ("answered", status.handshakes_answered)];
        counters(
            &mut encoder,
            "shadowmesh_relay_handshakes",
            "Connections that proved an identity, and that did not",
            "status",
            &handshakes,
        )?;
        queue_times(&mut encoder, &forward.queue_times)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: usize) -> fmt::Result {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// A counter for each value of one label; the encoder adds `_total` to the name.
fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[(&'static str, u64)],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in values {
        let labels = [(label, *value)];
        ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "seconds for a histogram")]
fn queue_times(encoder: &mut DescriptorEncoder<'_>, times: &QueueTimes) -> fmt::Result {
    let bounds = QueueTimes::BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(times.counts).collect();
    let count = times.counts.iter().sum();
    let mut metric =
        encoder.encode_descriptor("shadowmesh_relay_queue_seconds", "Time that frames waited in the relay", None, MetricType::Histogram)?;
    metric.encode_histogram::<NoLabelSet>(times.sum_ns as f64 / 1e9, count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use shadowmesh_core::{hub::ForwardStats, id::PeerId};

    #[test]
    fn the_fixed_names_are_there() {
        let mut forward = ForwardStats { rx_frames: 5, tx_bytes: 7, ..ForwardStats::default() };
        forward.queue_times.record(Duration::from_micros(100));
        forward.queue_times.record(Duration::from_secs(9));
        let status = HubStatus {
            draining: false,
            id: PeerId([0; 32]),
            networks: 1,
            clients: Vec::new(),
            preauth: 2,
            half_open: 1,
            handshakes_succeeded: 3,
            handshakes_failed: 4,
            handshakes_answered: 5,
            drops: vec![("queue_full", 6)],
            forward,
        };
        let text = render(&status);
        for line in [
            "shadowmesh_relay_clients 0",
            "shadowmesh_relay_frames_total{direction=\"in\"} 5",
            "shadowmesh_relay_bytes_total{direction=\"out\"} 7",
            "shadowmesh_relay_drops_total{reason=\"queue_full\"} 6",
            "shadowmesh_relay_handshakes_total{status=\"failure\"} 4",
            "shadowmesh_relay_queue_seconds_bucket{le=\"0.0002\"} 1",
            "shadowmesh_relay_queue_seconds_bucket{le=\"+Inf\"} 2",
            "shadowmesh_relay_queue_seconds_count 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line:?} is not in\n{text}");
        }
    }
}
