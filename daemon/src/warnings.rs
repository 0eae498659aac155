//! What somebody should look at: found in what the running peer knows, told by `status`, the dashboard and the metrics.
use serde::{Deserialize, Serialize};
use shadowmesh_core::{
    status::{RelayState, Status},
    time::Instant,
};
use std::{collections::BTreeMap, time::Duration};

/// Every kind, as metrics name them.
pub(crate) const KINDS: [&str; 6] = ["certificate", "shared_identity", "state_dir", "relay", "name", "address"];

/// A relay that restarts, or a network that comes back, is within this.
const RELAY_TIME: Duration = Duration::from_mins(1);
/// Two machines with one identity push each other out again and again: what was longer ago is over.
const SHARED_TIME: Duration = Duration::from_mins(10);
/// More would bury the rest; peers can cause some of them.
const MAX_WARNINGS: usize = 64;

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Warning {
    /// Of `KINDS`.
    pub(crate) kind: String,
    /// A sentence with what to do.
    pub(crate) text: String,
}

/// What the node's status does not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// What is left of a certificate whose renewal is overdue.
    pub(crate) certificate_left: Option<Duration>,
    /// When a relay last said that another machine has our identity.
    pub(crate) shared_identity_at: Option<Instant>,
    /// Why the state directory could not be written.
    pub(crate) state_fault: Option<String>,
    /// Since when each relay is not connected, by its place in the token.
    pub(crate) missed_relays: BTreeMap<usize, Instant>,
    /// Names that mean several peers.
    pub(crate) ambiguous: Vec<String>,
}

/// All that is to be said now, in the order of `KINDS`.
pub(crate) fn list(now: Instant, status: &Status, known: &Known) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |kind: &str, text: String| warnings.push(Warning { kind: kind.to_owned(), text });
    if let Some(left) = known.certificate_left {
        let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
        warn("certificate", format!("the TLS certificate is not renewed and ends in {left}: the log says why; restart the peer"));
    }
    if known.shared_identity_at.is_some_and(|at| now.since(at) < SHARED_TIME) {
        let text = "another machine uses this identity, and the two push each other out: give one of them a new identity file";
        warn("shared_identity", text.to_owned());
    }
    if let Some(why) = &known.state_fault {
        warn("state_dir", format!("the state directory cannot be written ({why}): owners of addresses are forgotten at the next start"));
    }
    for (relay, since) in status.relays.iter().enumerate().filter_map(|(index, relay)| Some((relay, known.missed_relays.get(&index)?))) {
        let missed = now.since(*since);
        if matches!(relay.state, RelayState::Connecting | RelayState::Waiting) && missed >= RELAY_TIME {
            let missed = humantime::format_duration(Duration::from_secs(missed.as_secs()));
            let why = relay.last_error.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            warn("relay", format!("the relay {} is not reached since {missed}{why}", relay.url));
        }
    }
    for label in &known.ambiguous {
        warn("name", format!("several peers are called {label:?}, and none is found by it: name the right one in [[peer]]"));
    }
    for (peer, refused) in status.peers.iter().flat_map(|peer| peer.refused.iter().map(move |refused| (peer, refused))) {
        let (address, why) = refused;
        let name = peer.name.clone().unwrap_or_else(|| peer.id.to_string());
        warn("address", format!("{name} announces {address}, which is refused: {why}"));
    }
    warnings.truncate(MAX_WARNINGS);
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::tests::{peer, status};
    use shadowmesh_core::status::RelayStatus;

    fn relay(state: RelayState) -> RelayStatus {
        RelayStatus {
            url: "wss://relay.example".to_owned(),
            id: None,
            state,
            rtt: None,
            observed: None,
            reflexive: None,
            reflexive_at: None,
            draining: false,
            has_reflector: false,
            mapping_varies: None,
            last_error: Some("no route".to_owned()),
        }
    }

    const NOW: Instant = Instant::from_millis(3_600_000);

    fn kinds(status: &Status, known: &Known) -> Vec<String> {
        list(NOW, status, known).into_iter().map(|warning| warning.kind).collect()
    }

    #[test]
    fn a_peer_that_is_well_says_nothing() {
        let mut status = status();
        status.relays = vec![relay(RelayState::Connected), relay(RelayState::Waiting), relay(RelayState::Parked)];
        let missed_relays = [(0, Instant::ZERO), (1, Instant::from_millis(3_590_000)), (2, Instant::ZERO)].into();
        let long_ago = Some(Instant::from_millis(60_000));
        assert!(kinds(&status, &Known { missed_relays, shared_identity_at: long_ago, ..Known::default() }).is_empty());
    }

    #[test]
    fn each_kind_is_said_with_its_values() {
        let mut status = status();
        status.relays = vec![relay(RelayState::Waiting)];
        status.peers = vec![peer(1, "a", "10.77.0.1")];
        status.peers[0].refused = vec![([10, 77, 0, 9].into(), "another peer has proved it")];
        let known = Known {
            certificate_left: Some(Duration::from_hours(2)),
            shared_identity_at: Some(NOW),
            state_fault: Some("Read-only file system".to_owned()),
            missed_relays: [(0, Instant::ZERO)].into(),
            ambiguous: vec!["b".to_owned()],
        };
        assert_eq!(kinds(&status, &known), KINDS);
        let text: String = list(NOW, &status, &known).into_iter().map(|warning| warning.text + "\n").collect();
        for part in ["ends in 2h", "Read-only file system", "wss://relay.example", "since 1h (no route)", "\"b\"", "a announces 10.77.0.9"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn peers_cannot_make_the_list_long() {
        let ambiguous = (0..1000).map(|number| number.to_string()).collect();
        assert_eq!(kinds(&status(), &Known { ambiguous, ..Known::default() }).len(), MAX_WARNINGS);
    }
}
