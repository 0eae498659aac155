//! What the demo measured, and whether it counts as a success.
use super::{script::Story, traffic::Arrivals};
use crate::cli::Runtime;
use serde::Serialize;
use std::time::Duration;

/// The summary; its fields are an interface for scripts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    runtime: &'static str,
    seconds: f64,
    sent: u64,
    delivered: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    migrations: u64,
    fallbacks: u64,
    retries: u64,
    handshake_ms: f64,
    rehandshake_us: f64,
    migration_ms: f64,
    fallback_ms: f64,
    longest_gap_ms: f64,
    suite: String,
}

impl Summary {
    /// Puts it together from both directions and from what the peers told.
    pub(crate) fn new(runtime: Runtime, elapsed: Duration, sent: u64, arrivals: &[Arrivals; 2], story: &Story) -> Self {
        let total = |count: fn(&Arrivals) -> u64| arrivals.iter().map(count).sum::<u64>();
        let delivered = total(|arrivals| arrivals.delivered);
        let longest = arrivals.iter().map(|arrivals| arrivals.gap).max().unwrap_or_default();
        Self {
            runtime: runtime.name(),
            seconds: (elapsed.as_secs_f64() * 10.0).round() / 10.0,
            sent,
            delivered,
            lost: sent - delivered,
            duplicated: total(|arrivals| arrivals.duplicated),
            reordered: total(|arrivals| arrivals.reordered),
            migrations: story.migrations(),
            fallbacks: story.fallbacks(),
            retries: story.retries(),
            handshake_ms: millis(story.handshake),
            rehandshake_us: (story.rehandshake().as_secs_f64() * 1e7).round() / 10.0,
            migration_ms: millis(story.migration),
            fallback_ms: millis(story.fallback),
            longest_gap_ms: millis(longest),
            suite: story.suite.to_owned(),
        }
    }

    /// Why it is no success.
    pub(crate) fn fault(&self, damaged: u64) -> Option<String> {
        if self.lost + self.duplicated + self.reordered + damaged == 0 {
            return None;
        }
        Some(format!(
            "frames: {} lost, {} doubled, {} out of order, {damaged} damaged; all of them should be 0",
            self.lost, self.duplicated, self.reordered
        ))
    }

    /// For people.
    pub(crate) fn text(&self, hand_over: Duration) -> String {
        format!(
            "sent {} frames, delivered {}: {} lost, {} doubled, {} out of order\n\
             handshake {:.1} ms   re-handshake {:.0} µs   migration {:.1} ms   first frame after the path was killed {:.0} ms\n\
             longest gap between frames: {:.1} ms at a move to the direct path, {:.1} ms in all\n\
             {} migrations, {} fallbacks, {} retries in {:.1} s   {}",
            self.sent,
            self.delivered,
            self.lost,
            self.duplicated,
            self.reordered,
            self.handshake_ms,
            self.rehandshake_us,
            self.migration_ms,
            self.fallback_ms,
            millis(hand_over),
            self.longest_gap_ms,
            self.migrations,
            self.fallbacks,
            self.retries,
            self.seconds,
            self.suite
        )
    }
}

pub(crate) fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e5).round() / 100.0
}
