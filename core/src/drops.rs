//! Why a packet or message died: a name and a counter each.

/// The reason why something that came in, or should have gone out, was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Drop {
    /// A message that does not follow its layout.
    Malformed,
    /// A message of a type that has no place there.
    Unexpected,
    /// A sealed frame for a session that is not here.
    UnknownSession,
    /// A sealed frame of an epoch whose keys are not here.
    UnknownEpoch,
    /// A tag or MAC that does not verify.
    Forged,
    /// A counter that was received before: a copy, or a replay.
    Duplicate,
    /// A counter below the floor or the replay window; or a frame without a receipt when its session ended.
    Late,
    /// A receipt or switch that contradicts what was sent.
    Receipt,
    /// A packet from a peer with a source address that is not its own.
    Source,
    /// A packet from a peer for an address that is not ours.
    Destination,
    /// A packet from the interface for an address that nobody has.
    NoRoute,
    /// A packet from the interface that is not IP, or too long.
    Packet,
    /// The queue before sealing was full.
    QueueFull,
    /// Dropped by `CoDel` before sealing: the path is congested.
    Congestion,
    /// Frames waiting for order, or pieces waiting for the rest of their packet, reached their bound.
    HoldFull,
    /// Broadcast, multicast or unknown-destination frames above the storm limit.
    Storm,
    /// A source MAC that is bound to another peer, or one too many.
    Mac,
    /// A handshake message that fits no attempt.
    Handshake,
    /// Handshakes above their rate.
    HandshakeRate,
    /// A re-handshake message that is old, reflected or for another path.
    Rehandshake,
    /// A control message above its bound.
    Control,
    /// A candidate that must not be tried.
    Candidate,
    /// A direct connection above its bound, or one that proved nothing: not in time, or not as the first thing.
    Accept,
    /// A TLS certificate of another identity than the expected one.
    Identity,
}

impl Drop {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 24] = [
        Self::Malformed,
        Self::Unexpected,
        Self::UnknownSession,
        Self::UnknownEpoch,
        Self::Forged,
        Self::Duplicate,
        Self::Late,
        Self::Receipt,
        Self::Source,
        Self::Destination,
        Self::NoRoute,
        Self::Packet,
        Self::QueueFull,
        Self::Congestion,
        Self::HoldFull,
        Self::Storm,
        Self::Mac,
        Self::Handshake,
        Self::HandshakeRate,
        Self::Rehandshake,
        Self::Control,
        Self::Candidate,
        Self::Accept,
        Self::Identity,
    ];

    /// The label of `shadowmesh_drops_total{reason}`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unexpected => "unexpected",
            Self::UnknownSession => "unknown_session",
            Self::UnknownEpoch => "unknown_epoch",
            Self::Forged => "forged",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::Receipt => "receipt",
            Self::Source => "source_address",
            Self::Destination => "destination_address",
            Self::NoRoute => "no_route",
            Self::Packet => "packet",
            Self::QueueFull => "queue_full",
            Self::Congestion => "congestion",
            Self::HoldFull => "hold_full",
            Self::Storm => "storm",
            Self::Mac => "mac",
            Self::Handshake => "handshake",
            Self::HandshakeRate => "handshake_rate",
            Self::Rehandshake => "rehandshake",
            Self::Control => "control",
            Self::Candidate => "candidate",
            Self::Accept => "accept",
            Self::Identity => "identity",
        }
    }
}

/// A counter for each reason.
#[derive(Clone, Debug, Default)]
pub struct Drops([u64; Drop::ALL.len()]);

impl Drops {
    /// Counts one.
    pub fn count(&mut self, reason: Drop) {
        self.add(reason, 1);
    }

    /// Counts several.
    pub fn add(&mut self, reason: Drop, count: u64) {
        if let Some(cell) = self.0.get_mut(reason as usize) {
            *cell += count;
        }
    }

    /// How often for this reason.
    pub fn get(&self, reason: Drop) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// Each reason's label and count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Drop::ALL.iter().map(|reason| (reason.label(), self.get(*reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_label() {
        let mut drops = Drops::default();
        for (index, reason) in Drop::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "ALL stands in the order of the counters");
            drops.add(*reason, index as u64 + 1);
        }
        let mut labels: Vec<_> = drops.iter().map(|(label, count)| (count, label)).collect();
        labels.dedup_by_key(|entry| entry.1);
        assert_eq!(labels.len(), Drop::ALL.len());
        assert_eq!(drops.get(Drop::Storm), Drop::Storm as u64 + 1);
    }
}
