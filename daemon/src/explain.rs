//! `peer explain`: why a peer is on the path it is on, from its status and from what happened to it lately.
mod nats;

use crate::{
    cli::FileArgs,
    control::{Client, Request},
    failure::Failure,
    out,
    status::{PathReport, PeerReport},
};
use nats::Nats;
use serde::{Deserialize, Serialize};
use shadowmesh_core::{
    status::{PeerStatus, Status},
    time::Instant,
};

/// Something that happened to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Happened {
    pub(crate) ago_s: f64,
    /// `connected`, `lost`, `validated`, `migrated`, `migration_failed`, `fell_back`, `retry_failed`, `retry_succeeded` or `address_refused`.
    pub(crate) kind: String,
    pub(crate) what: String,
}

/// One address at which the peer says that it can be reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CandidateReport {
    pub(crate) address: String,
    /// `udp` or `wss`.
    pub(crate) transport: String,
    /// `host`, `observed`, `varying`, `port-mapped` or `configured`; `simultaneous open`: both ends dialled each other there.
    pub(crate) kind: String,
    /// What became of the last try.
    pub(crate) result: String,
}

/// The whole explanation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Explanation {
    /// One sentence.
    pub(crate) reason: String,
    /// Direct transports that this end allows and has.
    pub(crate) direct_transports: Vec<String>,
    pub(crate) candidates: Vec<CandidateReport>,
    /// What stands between the two ends and UDP.
    pub(crate) nat: Nats,
    pub(crate) last_failure: Option<String>,
    pub(crate) next_attempt_in_s: Option<f64>,
    pub(crate) peer: PeerReport,
    /// Newest first.
    pub(crate) history: Vec<Happened>,
}

impl Explanation {
    /// Puts it together from what the node says about the peer and what happened to it lately.
    pub(crate) fn new(
        now: Instant,
        (node, status): (&Status, &PeerStatus),
        peer: PeerReport,
        history: Vec<Happened>,
        direct_transports: Vec<String>,
    ) -> Self {
        let candidates = status.candidates.iter().map(|candidate| CandidateReport {
            address: candidate.address.to_string(),
            transport: candidate.transport.to_owned(),
            kind: candidate.kind.to_owned(),
            result: candidate.result.clone(),
        });
        let next = status.next_attempt_at.map(|at| (at.since(now).as_secs_f64() * 10.0).round() / 10.0);
        let mut explanation = Self {
            reason: String::new(),
            direct_transports,
            candidates: candidates.collect(),
            nat: Nats::new(&node.relays, &status.candidates),
            last_failure: status.last_failure.clone(),
            next_attempt_in_s: next,
            peer,
            history,
        };
        explanation.reason = explanation.why();
        explanation
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let about = &self.peer;
        let mut lines =
            vec![format!("{}  {}  {}", about.name.as_deref().unwrap_or("(no name)"), about.state, about.id), self.reason.clone()];
        for path in about.path.iter().chain(&about.paths) {
            let over = path.relay.as_deref().map(|relay| format!(" over {relay}"));
            let remote = over.or_else(|| path.remote.as_deref().map(|remote| format!(" to {remote}"))).unwrap_or_default();
            let rtt = path.rtt_ms.map(|rtt| format!(", {rtt:.1} ms")).unwrap_or_default();
            lines.push(format!("  path {}/{}{remote}: {} since {} s{rtt}", path.kind, path.transport, path.state, path.since_s));
        }
        for candidate in &self.candidates {
            lines.push(format!("  candidate {}/{} ({}): {}", candidate.address, candidate.transport, candidate.kind, candidate.result));
        }
        let is_relayed = about.path.as_ref().is_some_and(|path| path.kind == "relay");
        if is_relayed && self.direct_transports.iter().any(|transport| transport == "udp") {
            lines.push(format!("  UDP: {}", self.nat.verdict));
        }
        lines.extend(about.refused.iter().map(|refused| format!("  address {} refused: {}", refused.address, refused.why)));
        lines.extend(self.history.iter().map(|event| format!("  {:>8.1} s ago  {}", event.ago_s, event.what)));
        lines
    }

    fn why(&self) -> String {
        let peer = &self.peer;
        let Some(path) = &peer.path else {
            return match (peer.state.as_str(), self.history.iter().find(|event| event.kind == "lost")) {
                ("connecting", _) => "there is no path yet: the handshake is under way".to_owned(),
                (_, Some(lost)) => format!("there is no path: {} {} s ago", lost.what, lost.ago_s),
                _ => "there is no path: no relay knows it as online".to_owned(),
            };
        };
        if path.kind == "direct" {
            return format!("a direct path was proven and carries the traffic since {} s{}", path.since_s, rtts(path, &peer.paths));
        }
        if self.direct_transports.is_empty() {
            return "p2p.transports of this end allows no direct path: traffic stays on the relay".to_owned();
        }
        if let Some(other) = peer.paths.iter().find(|other| other.kind == "direct" && other.state == "validating") {
            return format!("on the relay while a direct path to {} is being proven", other.remote.as_deref().unwrap_or("its candidate"));
        }
        let next = self.next_attempt_in_s.map(|wait| format!("; it is tried again in {wait} s")).unwrap_or_default();
        match &self.last_failure {
            Some(why) => format!("on the relay because the last attempt at a direct path failed: {why}{next}"),
            None if self.candidates.is_empty() => format!("on the relay because the peer names no address to be reached at directly{next}"),
            None => format!("on the relay because no direct path has been proven so far{next}"),
        }
    }
}

fn rtts(path: &PathReport, paths: &[PathReport]) -> String {
    let relay = paths.iter().find(|other| other.kind == "relay").and_then(|relay| relay.rtt_ms);
    match (path.rtt_ms, relay) {
        (Some(direct), Some(relay)) => format!(" ({direct:.1} ms instead of {relay:.1} ms over the relay)"),
        _ => String::new(),
    }
}

/// Runs `shadowmesh peer explain`.
pub(crate) fn run(peer: &str, json: bool, files: &FileArgs) -> Result<(), Failure> {
    let explanation: Explanation = Client::connect(files)?.ask(&Request::Explain { peer: peer.to_owned() })?;
    if json {
        out::json(&explanation);
        return Ok(());
    }
    for line in explanation.lines() {
        out::line(line);
    }
    Ok(())
}
