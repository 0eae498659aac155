//! What `netcheck` found: as JSON, whose fields are added to but never renamed, and as lines that are read at a glance.
use crate::status::millis;
use serde::{Deserialize, Serialize};
use shadowmesh_core::{
    status::{RelayState, RelayStatus, Status},
    time::Instant,
};
use shadowmesh_runtime_std::{dial::Reach, mapping::probe::Found};
use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NetReport {
    pub(crate) version: String,
    /// `peer`: the running peer looked, with its own sockets; `ephemeral`: this command did, with sockets of its own.
    pub(crate) source: String,
    /// Whether datagrams come through to a relay and back; nothing where no relay could tell.
    pub(crate) udp: Option<bool>,
    /// The address of our UDP socket as relays see it.
    pub(crate) mapped_v4: Option<String>,
    pub(crate) mapped_v6: Option<String>,
    /// Whether it is another one for another destination.
    pub(crate) mapping_varies: Option<bool>,
    pub(crate) port_mapping: PortMappingWays,
    pub(crate) relays: Vec<RelayReach>,
    /// What that means, in a sentence.
    pub(crate) verdict: String,
}

/// How the router in front can be asked for a port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortMappingWays {
    pub(crate) gateway: Option<String>,
    pub(crate) pcp: bool,
    pub(crate) nat_pmp: bool,
    pub(crate) upnp: bool,
    /// The router's own address outside, as it says.
    pub(crate) external: Option<String>,
}

/// How far a relay is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RelayReach {
    pub(crate) url: String,
    pub(crate) id: Option<String>,
    /// Whether it has let us in.
    pub(crate) connected: bool,
    /// A new connection by TCP, and TLS on it.
    pub(crate) tcp_ms: Option<f64>,
    pub(crate) tls_ms: Option<f64>,
    /// A ping on the connection that stands.
    pub(crate) rtt_ms: Option<f64>,
    /// Our UDP address as it sees it, told just now.
    pub(crate) mapped: Option<String>,
    pub(crate) error: Option<String>,
}

/// What was measured at the relays, in their order.
pub(crate) type Reached = Vec<Result<Reach, String>>;

impl NetReport {
    /// Puts it together. What relays told before `since` is old; `uses_udp`: this end has UDP sockets at all.
    pub(crate) fn new(source: &str, uses_udp: bool, since: Instant, status: &Status, reached: &Reached, found: &Found) -> Self {
        let fresh = reflexive(since, &status.relays);
        let could_tell = uses_udp && could_tell(&status.relays);
        let mapped = |v4: bool| fresh.iter().find(|address| address.is_ipv4() == v4).map(SocketAddr::to_string);
        let mut report = Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            source: source.to_owned(),
            udp: could_tell.then_some(!fresh.is_empty()),
            mapped_v4: mapped(true),
            mapped_v6: mapped(false),
            mapping_varies: varies(since, &status.relays),
            port_mapping: PortMappingWays {
                gateway: found.gateway.map(|gateway| gateway.to_string()),
                pcp: found.pcp,
                nat_pmp: found.nat_pmp,
                upnp: found.upnp,
                external: found.external.map(|external| external.to_string()),
            },
            relays: status.relays.iter().enumerate().map(|(index, relay)| reach(since, relay, reached.get(index))).collect(),
            verdict: String::new(),
        };
        report.verdict = report.judge(found.external).to_owned();
        report
    }

    fn judge(&self, external: Option<IpAddr>) -> &'static str {
        let ways = &self.port_mapping;
        let can_map = ways.pcp || ways.nat_pmp || ways.upnp;
        // the router's own address is none of the Internet's when relays see another one
        let seen = self.mapped_v4.as_ref().and_then(|mapped| mapped.parse::<SocketAddr>().ok()).map(|mapped| mapped.ip());
        let is_double = external.is_some() && seen.is_some() && external != seen;
        match (self.relays.iter().any(|relay| relay.connected), self.udp, self.mapping_varies) {
            (false, ..) => "no relay lets us in: nothing works without one",
            (_, None, _) => "no relay told how datagrams come through",
            (_, Some(false), _) => {
                "datagrams do not come through: direct paths need TCP, and one side that can be reached by it, or NATs \
                 that keep one port for all destinations"
            }
            (_, Some(true), Some(true)) if can_map && !is_double => {
                "the NAT maps anew for each destination, but the router forwards ports when asked: direct paths by UDP with all"
            }
            (_, Some(true), Some(true)) => {
                "the NAT maps anew for each destination: direct paths by UDP only with peers whose own NAT is not strict"
            }
            (_, Some(true), _) => "direct paths by UDP with all peers whose NAT does not map anew for each destination",
        }
    }

    /// For people; ends with a newline.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let udp = match self.udp {
            Some(true) => "comes through",
            Some(false) => "does not come through",
            None => "unknown",
        };
        let varies = match self.mapping_varies {
            Some(true) => ", another for each destination",
            Some(false) => ", the same for all destinations",
            None => "",
        };
        let ways = &self.port_mapping;
        let known = [(ways.pcp, "PCP"), (ways.nat_pmp, "NAT-PMP"), (ways.upnp, "UPnP")];
        let known: Vec<&str> = known.into_iter().filter_map(|(has, name)| has.then_some(name)).collect();
        let router = match &ways.gateway {
            None => "none".to_owned(),
            Some(gateway) if known.is_empty() => format!("{gateway}, forwards no ports when asked"),
            Some(gateway) => format!("{gateway}, forwards ports by {}", known.join(", ")),
        };
        let external = ways.external.as_ref().map(|external| format!("; outside it is {external}")).unwrap_or_default();
        let _ = writeln!(text, "UDP      {udp}");
        for (name, mapped) in [("IPv4", &self.mapped_v4), ("IPv6", &self.mapped_v6)] {
            let _ = match mapped {
                Some(mapped) => writeln!(text, "{name}     seen as {mapped}{varies}"),
                None => writeln!(text, "{name}     not seen"),
            };
        }
        let _ = writeln!(text, "router   {router}{external}");
        for relay in &self.relays {
            let _ = write!(text, "relay    {}  {}", relay.url, if relay.connected { "connected" } else { "not connected" });
            for (name, value) in [("TCP", relay.tcp_ms), ("TLS", relay.tls_ms), ("RTT", relay.rtt_ms)] {
                let _ = value.map(|value| write!(text, "  {name} {value:.1} ms"));
            }
            let _ = relay.error.as_ref().map(|error| write!(text, "  ({error})"));
            text.push('\n');
        }
        let _ = writeln!(text, "{}", self.verdict);
        text
    }
}

/// It has told our UDP address since then.
pub(crate) fn is_fresh(since: Instant, relay: &RelayStatus) -> bool {
    relay.reflexive.is_some() && relay.reflexive_at.is_some_and(|at| at >= since)
}

/// Our UDP addresses as relays told them since then.
pub(crate) fn reflexive(since: Instant, relays: &[RelayStatus]) -> Vec<SocketAddr> {
    relays.iter().filter(|relay| is_fresh(since, relay)).filter_map(|relay| relay.reflexive).collect()
}

/// Whether a relay would have told our UDP address, had it been asked.
pub(crate) fn could_tell(relays: &[RelayStatus]) -> bool {
    relays.iter().any(|relay| relay.state == RelayState::Connected && relay.has_reflector)
}

/// Whether our UDP address varies by destination: by the two ports of one relay, or by two relays.
pub(crate) fn varies(since: Instant, relays: &[RelayStatus]) -> Option<bool> {
    let fresh = reflexive(since, relays);
    let differ = |v4: bool| {
        let mut of_family = fresh.iter().filter(|address| address.is_ipv4() == v4);
        of_family.next().is_some_and(|first| of_family.any(|other| other != first))
    };
    let told: Vec<bool> = relays.iter().filter(|relay| is_fresh(since, relay)).filter_map(|relay| relay.mapping_varies).collect();
    let compared = |v4: bool| fresh.iter().filter(|address| address.is_ipv4() == v4).count() > 1;
    if told.contains(&true) || differ(true) || differ(false) {
        return Some(true);
    }
    (!told.is_empty() || compared(true) || compared(false)).then_some(false)
}

fn reach(since: Instant, relay: &RelayStatus, reached: Option<&Result<Reach, String>>) -> RelayReach {
    let measured = reached.and_then(|reached| reached.as_ref().ok());
    let failed = reached.and_then(|reached| reached.as_ref().err());
    let connected = relay.state == RelayState::Connected;
    RelayReach {
        url: relay.url.clone(),
        id: relay.id.map(|id| id.to_string()),
        connected,
        tcp_ms: measured.map(|reach| millis(reach.tcp)),
        tls_ms: measured.map(|reach| millis(reach.tls)),
        rtt_ms: relay.rtt.filter(|_| connected).map(millis),
        mapped: relay.reflexive.filter(|_| is_fresh(since, relay)).map(|address| address.to_string()),
        error: failed.cloned().or_else(|| relay.last_error.clone().filter(|_| !connected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_core::{id::PeerId, status::Totals, time::Duration};

    const SINCE: Instant = Instant::from_millis(1_000);

    #[test]
    fn what_relays_tell_anew_counts_and_what_they_told_before_does_not() {
        let fresh = report(&[relay("198.51.100.7:1", 1_001, Some(false))], Found::default());
        assert_eq!((fresh.udp, fresh.mapping_varies, fresh.mapped_v4.as_deref()), (Some(true), Some(false), Some("198.51.100.7:1")));
        let old = report(&[relay("198.51.100.7:1", 999, Some(true))], Found::default());
        assert_eq!((old.udp, old.mapping_varies, old.mapped_v4, old.relays[0].mapped.clone()), (Some(false), None, None, None));
        let mut without = relay("198.51.100.7:1", 999, None);
        without.has_reflector = false;
        assert_eq!(report(&[without], Found::default()).udp, None, "nobody could tell");
        let mut away = relay("198.51.100.7:1", 999, None);
        away.state = RelayState::Waiting;
        assert_eq!(report(&[away], Found::default()).verdict, "no relay lets us in: nothing works without one");
    }

    #[test]
    fn two_relays_that_see_two_addresses_of_a_family_show_that_the_mapping_varies() {
        let varies = |relays: &[RelayStatus]| report(relays, Found::default()).mapping_varies;
        let [one, other, v6] = ["198.51.100.7:1", "198.51.100.7:2", "[2001:db8::1]:1"].map(|seen| relay(seen, 1_001, None));
        assert_eq!(varies(&[one.clone(), other]), Some(true));
        assert_eq!(varies(&[one.clone(), one.clone()]), Some(false));
        assert_eq!(varies(&[one.clone(), v6.clone()]), None, "of different families");
        let both = report(&[one, v6], Found::default());
        assert_eq!((both.mapped_v4.is_some(), both.mapped_v6.is_some()), (true, true));
    }

    #[test]
    fn the_verdict_knows_what_a_router_is_good_for() {
        let varying = [relay("198.51.100.7:1", 1_001, Some(true))];
        let with = |found| report(&varying, found).verdict;
        let external = |text: &str| Some(text.parse().expect("an address"));
        assert!(with(Found::default()).contains("only with peers"));
        assert!(with(Found { upnp: true, external: external("198.51.100.7"), ..Found::default() }).contains("with all"));
        assert!(with(Found { pcp: true, external: external("100.64.0.7"), ..Found::default() }).contains("only with peers"), "double NAT");
    }

    #[test]
    fn people_see_a_line_for_each_thing() {
        let found = Found { gateway: Some("192.168.1.1".parse().expect("an address")), pcp: true, upnp: true, ..Found::default() };
        let text = report(&[relay("198.51.100.7:1", 1_001, Some(true))], found).render();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..5],
            [
                "UDP      comes through",
                "IPv4     seen as 198.51.100.7:1, another for each destination",
                "IPv6     not seen",
                "router   192.168.1.1, forwards ports by PCP, UPnP",
                "relay    wss://relay.example  connected  TCP 10.0 ms  TLS 20.0 ms  RTT 12.0 ms",
            ]
        );
        assert_eq!(lines.len(), 6, "and the verdict");
    }

    fn report(relays: &[RelayStatus], found: Found) -> NetReport {
        let status = Status {
            id: PeerId([1; 32]),
            name: String::new(),
            addresses: Vec::new(),
            relays: relays.to_vec(),
            mappings: Vec::new(),
            peers: Vec::new(),
            drops: Vec::new(),
            totals: Totals::default(),
            succession: None,
            replaced: Vec::new(),
        };
        let reach =
            Reach { remote: "192.0.2.1:443".parse().expect("an address"), tcp: Duration::from_millis(10), tls: Duration::from_millis(20) };
        NetReport::new("peer", true, SINCE, &status, &relays.iter().map(|_| Ok(reach)).collect(), &found)
    }

    fn relay(seen: &str, at_ms: u64, varies: Option<bool>) -> RelayStatus {
        RelayStatus {
            url: "wss://relay.example".to_owned(),
            id: None,
            state: RelayState::Connected,
            rtt: Some(Duration::from_millis(12)),
            observed: None,
            reflexive: Some(seen.parse().expect("an address")),
            reflexive_at: Some(Instant::from_millis(at_ms)),
            draining: false,
            has_reflector: true,
            mapping_varies: varies,
            last_error: None,
        }
    }
}
