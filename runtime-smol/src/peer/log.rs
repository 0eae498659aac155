//! Notes as log lines. What an attacker can cause at will is rate-limited.
use crate::limit::Limit;
use shadowmesh_core::{event::Note, time::Instant};

/// Writes notes to the log.
#[derive(Default)]
pub(super) struct NoteLog {
    refusals: Limit,
}

impl NoteLog {
    pub(super) fn write(&mut self, now: Instant, note: &Note) {
        match note {
            Note::RelayConnecting { index } => {
                tracing::debug!(relay = index, "connecting to the relay");
            }
            Note::RelayConnected { index, id, observed } => {
                tracing::info!(relay = index, id = %id.short(), %observed, "relay connected");
            }
            Note::RelayLost { index, why, retry_in } => {
                tracing::warn!(relay = index, %why, ?retry_in, "relay lost");
            }
            Note::PeerConnected { peer, handshake, suite } => {
                tracing::info!(peer = %peer.short(), ?handshake, suite, "peer connected");
            }
            Note::PeerLost { peer, why } => tracing::info!(peer = %peer.short(), why, "peer lost"),
            Note::PathValidated { peer, path, rehandshake, rtt } => {
                tracing::debug!(peer = %peer.short(), path = path.0, ?rehandshake, ?rtt, "path validated");
            }
            Note::Migrated { peer, to, took } => {
                tracing::info!(peer = %peer.short(), ?to, ?took, "moved to another path");
            }
            Note::MigrationFailed { peer, why } => {
                tracing::debug!(peer = %peer.short(), %why, "no direct path");
            }
            Note::FellBack { peer, why, silent } => {
                tracing::info!(peer = %peer.short(), why, ?silent, "fell back to the relay");
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
            Note::Pong { peer, rtt, .. } => tracing::trace!(peer = %peer.short(), ?rtt, "pong"),
            Note::Left => tracing::info!("left the network"),
        }
    }
}
