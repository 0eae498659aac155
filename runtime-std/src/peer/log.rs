//! Notes as log lines. What an attacker can cause at will is rate-limited.
use crate::limit::Limit;
use core::time::Duration;
use shadowmesh_core::{event::Note, network::RelayAddress, time::Instant, wire::PathLabel};

/// A relay that stays away is named again after so long.
const REMINDER_INTERVAL: Duration = Duration::from_mins(1);

/// Writes notes to the log.
pub(super) struct NoteLog {
    relays: Vec<Relay>,
    refusals: Limit,
}

/// A relay of the network, and what was last said about it.
struct Relay {
    url: String,
    connected: bool,
    /// When the log said that it cannot be reached.
    missed_at: Option<Instant>,
}

impl NoteLog {
    /// Knows the relays of the network in their order.
    pub(super) fn new(relays: &[RelayAddress]) -> Self {
        let relay = |relay: &RelayAddress| Relay { url: relay.url.clone(), connected: false, missed_at: None };
        Self { relays: relays.iter().map(relay).collect(), refusals: Limit::default() }
    }

    pub(super) fn write(&mut self, now: Instant, note: &Note) {
        match note {
            Note::RelayConnecting { index } => {
                tracing::debug!(relay = %self.relay(*index).url, "connecting to the relay");
            }
            Note::RelayConnected { index, id, observed } => {
                let relay = self.relay(*index);
                (relay.connected, relay.missed_at) = (true, None);
                tracing::info!(relay = %relay.url, id = %id.short(), %observed, "relay connected");
            }
            Note::RelayLost { index, why, retry_in } => self.relay(*index).missed(now, why, *retry_in),
            Note::RelayGoing { index, within } => {
                tracing::info!(relay = %self.relay(*index).url, ?within, "the relay goes away; peers move to another one where there is one");
            }
            Note::PeerConnected { peer, handshake, suite } => {
                tracing::info!(peer = %peer.short(), ?handshake, suite, "peer connected");
            }
            Note::PeerLost { peer, why } => tracing::info!(peer = %peer.short(), why, "peer lost"),
            Note::PathValidated { peer, path, rehandshake, rtt } => {
                tracing::debug!(peer = %peer.short(), path = path.0, ?rehandshake, ?rtt, "path validated");
            }
            Note::Migrated { peer, to, took, .. } => {
                tracing::info!(peer = %peer.short(), to = %path_name(*to), ?took, "moved to another path");
            }
            Note::MigrationFailed { peer, why } => {
                tracing::debug!(peer = %peer.short(), %why, "no direct path");
            }
            Note::FellBack { peer, to, why, silent } => {
                tracing::info!(peer = %peer.short(), to = %path_name(*to), why, ?silent, "fell back to another path");
            }
            Note::Rerouted { peer, from, to, why } => {
                let [from, to] = [from, to].map(|index| self.relay(*index).url.clone());
                tracing::info!(peer = %peer.short(), %from, %to, why, "moved to another relay");
            }
            Note::Retry { peer, success } => {
                tracing::debug!(peer = %peer.short(), success, "tried for a direct path");
            }
            Note::Refused { who, what } => {
                if let Some(suppressed) = self.refusals.allow(now) {
                    let who = who.map(|id| id.short());
                    tracing::warn!(?who, %what, suppressed, "refused");
                }
            }
            Note::AddressRefused { peer, address, why } => {
                if let Some(suppressed) = self.refusals.allow(now) {
                    tracing::warn!(peer = %peer.short(), %address, why, suppressed, "address refused");
                }
            }
            Note::Succeeded { old, new } => {
                tracing::info!(old = %old.short(), new = %new.short(), "one identity follows another; both have signed that");
            }
            Note::Pong { peer, rtt, .. } => tracing::trace!(peer = %peer.short(), ?rtt, "pong"),
            Note::Left => tracing::info!("left the network"),
        }
    }

    fn relay(&mut self, index: usize) -> &mut Relay {
        self.relays.get_mut(index).expect("notes name relays of the network")
    }
}

impl Relay {
    /// It was lost, or could not be reached: the latter is tried again and again, and said once in a while.
    fn missed(&mut self, now: Instant, why: &str, retry_in: Duration) {
        let url = &self.url;
        if core::mem::take(&mut self.connected) {
            tracing::warn!(relay = %url, %why, ?retry_in, "relay lost");
        } else if self.missed_at.is_none_or(|at| now.since(at) >= REMINDER_INTERVAL) {
            self.missed_at = Some(now);
            tracing::warn!(relay = %url, %why, ?retry_in, "cannot reach the relay; will retry until it answers");
        } else {
            tracing::debug!(relay = %url, %why, ?retry_in, "cannot reach the relay");
        }
    }
}

fn path_name(path: PathLabel) -> &'static str {
    match path {
        PathLabel::RelayWss => "relay/wss",
        PathLabel::DirectWss => "direct/wss",
        PathLabel::DirectUdp => "direct/udp",
        PathLabel::RelayUdp => "relay/udp",
    }
}
