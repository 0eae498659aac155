//! Which side's NAT or firewall is in the way of a direct path by UDP, as far as relays and the peer's candidates tell.
use crate::netcheck::report::{could_tell, reflexive, varies};
use serde::{Deserialize, Serialize};
use shadowmesh_core::{
    status::{CandidateStatus, RelayStatus},
    time::Instant,
};

/// How one side meets the world by UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// One address for all destinations (RFC 4787: endpoint-independent mapping), or no NAT.
    Steady,
    /// Another address for each destination (a symmetric NAT).
    Varies,
    /// Nothing comes through to a relay and back.
    Blocked,
    /// Nobody could tell yet.
    Unknown,
}

/// Both sides, and what that means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Nats {
    pub(crate) here: Side,
    pub(crate) there: Side,
    /// One sentence.
    pub(crate) verdict: String,
}

impl Nats {
    /// From what relays say about us, and from what the peer says about itself.
    pub(crate) fn new(relays: &[RelayStatus], candidates: &[CandidateStatus]) -> Self {
        let (here, there) = (here(relays), there(candidates));
        Self { here, there, verdict: verdict(here, there).to_owned() }
    }
}

fn here(relays: &[RelayStatus]) -> Side {
    if varies(Instant::ZERO, relays) == Some(true) {
        Side::Varies
    } else if !reflexive(Instant::ZERO, relays).is_empty() {
        Side::Steady
    } else if could_tell(relays) {
        Side::Blocked
    } else {
        Side::Unknown
    }
}

/// The peer names the address at which relays see it, once: where that is one of its interface's, there is no NAT.
fn there(candidates: &[CandidateStatus]) -> Side {
    let has = |transport: &str, kinds: &[&str]| {
        candidates.iter().any(|candidate| candidate.transport == transport && kinds.contains(&candidate.kind))
    };
    if has("udp", &["observed", "port-mapped", "configured"]) {
        Side::Steady
    } else if has("udp", &["varying"]) {
        Side::Varies
    } else if has("wss", &["observed"]) {
        Side::Blocked
    } else if has("udp", &["host"]) {
        Side::Steady
    } else {
        Side::Unknown
    }
}

fn verdict(here: Side, there: Side) -> &'static str {
    match (here, there) {
        (Side::Varies, Side::Varies) => {
            "the NATs of both sides map anew for each destination, so neither end can tell the other its port: a port mapping (UPnP, NAT-PMP \
             or PCP), IPv6 or another NAT on one side makes a direct path possible"
        }
        (Side::Blocked, _) => "on this side no datagram comes through to a relay and back: a firewall here blocks UDP",
        (_, Side::Blocked) => "the peer is behind a NAT, and no relay sees it by UDP: a firewall there blocks UDP, or it has none",
        (Side::Varies, _) => {
            "the NAT of this side maps anew for each destination: its port is guessed, which a strict filter there can prevent"
        }
        (_, Side::Varies) => {
            "the NAT of the peer maps anew for each destination: its port is guessed, which a strict filter here can prevent"
        }
        (Side::Unknown, _) => "no relay could tell yet how this side looks from outside",
        (_, Side::Unknown) => "the peer has not said yet where it can be reached",
        (Side::Steady, Side::Steady) => "both sides keep one address for all destinations: no NAT is in the way",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_core::status::RelayState;

    fn relay(reflexive: bool, has_reflector: bool, mapping_varies: Option<bool>) -> RelayStatus {
        RelayStatus {
            url: "wss://relay.example".to_owned(),
            id: None,
            state: RelayState::Connected,
            rtt: None,
            observed: None,
            reflexive: reflexive.then(|| ([203, 0, 113, 7], 40_000).into()),
            reflexive_at: reflexive.then_some(Instant::from_millis(1)),
            draining: false,
            has_reflector,
            mapping_varies,
            last_error: None,
        }
    }

    fn candidate(kind: &'static str, transport: &'static str) -> CandidateStatus {
        CandidateStatus { address: ([198, 51, 100, 3], 40_000).into(), transport, kind, result: "not tried".to_owned() }
    }

    #[test]
    fn what_relays_and_the_peer_say_is_put_into_a_sentence() {
        let steady = relay(true, true, Some(false));
        for (relays, candidates, here, there, said) in [
            (vec![steady.clone()], vec![candidate("observed", "udp")], Side::Steady, Side::Steady, "no NAT is in the way"),
            (vec![relay(true, true, Some(true))], vec![candidate("varying", "udp")], Side::Varies, Side::Varies, "both sides map anew"),
            (vec![steady.clone()], vec![candidate("varying", "udp")], Side::Steady, Side::Varies, "NAT of the peer"),
            (vec![relay(true, true, Some(true))], vec![candidate("port-mapped", "udp")], Side::Varies, Side::Steady, "NAT of this side"),
            (vec![relay(false, true, None)], vec![candidate("observed", "udp")], Side::Blocked, Side::Steady, "firewall here"),
            (
                vec![steady.clone()],
                vec![candidate("observed", "wss"), candidate("host", "udp")],
                Side::Steady,
                Side::Blocked,
                "firewall there",
            ),
            (vec![relay(false, false, None)], vec![candidate("observed", "udp")], Side::Unknown, Side::Steady, "no relay could tell"),
            (vec![steady.clone()], vec![candidate("host", "udp"), candidate("host", "wss")], Side::Steady, Side::Steady, "no NAT is"),
            (vec![steady], vec![], Side::Steady, Side::Unknown, "not said yet"),
        ] {
            let nats = Nats::new(&relays, &candidates);
            assert_eq!((nats.here, nats.there), (here, there));
            assert!(nats.verdict.contains(said), "{}", nats.verdict);
        }
    }
}
