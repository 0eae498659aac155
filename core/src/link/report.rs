//! What a link tells people.
use super::{Link, direct::Direct};
use crate::{
    id::PathId,
    status::{CandidateStatus, PathStatus, PeerState, PeerStatus},
    wire::{CandidateKind, PathLabel, Transport},
};
use core::net::SocketAddr;

impl Link {
    /// This link as `status` shows it. `relay_remote`: the address of a relay on the connection with it.
    pub(crate) fn status(&self, relay_remote: impl Fn(usize) -> Option<SocketAddr>) -> PeerStatus {
        let main = self.steer.main();
        let mut paths = Vec::new();
        if let Some((relay, _, _)) = self.relay_via().filter(|_| self.live.is_some()) {
            paths.push(PathStatus {
                id: PathId::RELAY,
                label: PathLabel::RelayWss,
                state: if main == PathId::RELAY { "active" } else { "standby" },
                remote: relay_remote(relay),
                relay: Some(relay),
                since: self.steer.main_since(),
                rtt: self.rtt_over_relay(),
            });
        }
        paths.extend(self.directs.iter().map(|direct| self.direct_status(direct, main)));
        let active = paths.iter().position(|path| path.id == main && path.state != "validating").map(|index| paths.remove(index));
        let state = match (&self.live, &active) {
            (Some(_), Some(_)) => PeerState::Connected,
            (None, _) if !self.relays.is_empty() => PeerState::Connecting,
            _ => PeerState::Offline,
        };
        let tally = self.tally.as_ref();
        let count = |pick: fn(&crate::plane::LinkTally) -> u64| tally.map_or(0, pick);
        let candidates = self.candidates.iter().map(|(candidate, result)| candidate_status(candidate, result));
        PeerStatus {
            id: self.peer,
            name: self.name.clone(),
            state,
            addresses: self.addresses.clone(),
            path: active,
            paths,
            suite: self.live.as_ref().map(|live| live.chain().suite().label()),
            epoch: self.live.as_ref().map_or(0, |live| live.chain().epoch()),
            handshake_at: self.live.as_ref().map(super::Live::made_at),
            migrations: self.migrations,
            fallbacks: self.fallbacks,
            retries: self.retries,
            tx_frames: count(|tally| tally.tx_frames),
            tx_bytes: count(|tally| tally.tx_bytes),
            rx_frames: count(|tally| tally.rx_frames),
            rx_bytes: count(|tally| tally.rx_bytes),
            lost_frames: count(|tally| tally.lost),
            duplicate_frames: count(|tally| tally.duplicate),
            reordered_frames: count(|tally| tally.reordered),
            resent_frames: count(|tally| tally.resent),
            refused: self.refused.clone(),
            candidates: candidates.chain(self.punch_status()).collect(),
            next_attempt_at: self.attempt.next_at(),
            last_failure: self.attempt.last_failure().cloned(),
        }
    }

    fn direct_status(&self, direct: &Direct, main: PathId) -> PathStatus {
        let state = match (direct.is_usable(), direct.is_suspect(), direct.path() == main) {
            (false, _, _) => "validating",
            (true, true, _) => "suspect",
            (true, false, true) => "active",
            (true, false, false) => "standby",
        };
        let since = if direct.path() == main { self.steer.main_since() } else { direct.usable_since().unwrap_or(direct.first_at()) };
        PathStatus {
            id: direct.path(),
            label: direct.label(),
            state,
            remote: Some(direct.remote()),
            relay: direct.is_detour().then(|| self.detour.relay()).flatten(),
            since,
            rtt: self.rtt_of(direct.path()).or(direct.rtt()),
        }
    }

    /// The round trip to the peer over the relay, if it was measured.
    pub(super) fn rtt_over_relay(&self) -> Option<crate::time::Duration> {
        self.rtt_of(PathId::RELAY).or(self.relays.rtt())
    }

    fn rtt_of(&self, path: PathId) -> Option<crate::time::Duration> {
        self.tally.as_ref()?.paths.iter().find(|tally| tally.path == path)?.rtt
    }
}

fn candidate_status(candidate: &crate::wire::Candidate, result: &str) -> CandidateStatus {
    let kind = match candidate.kind {
        CandidateKind::Host => "host",
        CandidateKind::Observed => "observed",
        CandidateKind::PortMapped => "port-mapped",
        CandidateKind::Configured => "configured",
        CandidateKind::Varying => "varying",
    };
    let transport = match candidate.transport {
        Transport::Udp => "udp",
        Transport::Wss => "wss",
    };
    CandidateStatus { address: candidate.address, transport, kind, result: result.to_owned() }
}
