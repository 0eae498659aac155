//! Two hosts dial each other at one time (TCP simultaneous open, RFC 9293 3.5): who comes first may find a shut box, or an open one with
//! nobody behind it.
//!
//! ```text
//!   dial ──▶ a box drops it: it waits ──────────────▶ the other's dial, from where it dials and to where it comes from: both have it
//!        └─▶ a box or the host refuses it: told at once
//! ```
use super::{
    Host, World,
    air::{Air, End, HostId, Tick},
    dial::{Certificate, Dial, DialId, Pin, Step, judge},
    nat::{NatId, Protocol},
    route::Route,
};
use shadowmesh_core::{
    event::{Ended, TlsFacts, TlsRole},
    id::PeerId,
    time::Duration,
};
use std::net::SocketAddr;

/// A dial that waits for that of the other end.
#[derive(Clone, Copy)]
pub(super) struct Punch {
    /// Where it comes from, as the other end sees it.
    seen: SocketAddr,
    remote: SocketAddr,
    role: TlsRole,
    /// Whose certificate it shows.
    id: PeerId,
    /// The other end's came while it was on its way.
    met: bool,
}

impl Air {
    /// Starts such a dial; None when the address is nobody's.
    pub(super) fn punch(
        &mut self,
        from: End,
        id: PeerId,
        ends: [SocketAddr; 2],
        pin: PeerId,
        role: TlsRole,
        timeout: Duration,
    ) -> Option<DialId> {
        let [local, remote] = ends;
        if self.own_address(from.host, local.is_ipv4()) != Some(local.ip()) {
            return None;
        }
        let seen = self.seen_as(from.host, local, remote);
        let mate = self.punches.iter().find(|(_, mate)| mate.seen == remote && mate.remote == seen && mate.role != role && !mate.met);
        let mate = mate.map(|(dial, _)| *dial);
        // where new connections are refused, two that cross are
        let is_open = |mate: &DialId| self.dials.get(mate).is_some_and(|mate| !self.way(from.host, mate.from.host).refuses);
        let mate = mate.filter(is_open);
        let to = mate.and_then(|mate| self.dials.get(&mate)).map(|mate| mate.from.host);
        let route = self.route(Protocol::Tcp, from.host, local, remote);
        let refused_by = match (to, route) {
            (Some(_), _) | (None, Route::Dropped) => None,
            (None, Route::Arrives { to, .. }) => Some(to),
            (None, Route::Refused) => Some(from.host),
            (None, Route::Nowhere) => return None,
        };
        let dial = self.begin(Dial::between(from, to.or(refused_by).unwrap_or(from.host), [local, remote], Pin::Direct(pin)), timeout);
        self.punches.insert(dial, Punch { seen, remote, role, id, met: mate.is_some() });
        if let Some(mate) = mate.and_then(|mate| self.punches.get_mut(&mate)) {
            mate.met = true;
        }
        let latency = self.way(from.host, to.or(refused_by).unwrap_or(from.host)).latency;
        match (mate, refused_by) {
            // TCP takes a round trip, TLS and the upgrade two more
            (Some(mate), _) => self.after(latency * 6, Tick::Dial { dial, step: Step::Meet { mate } }),
            (None, Some(_)) => self.after(latency * 2, Tick::Dial { dial, step: Step::Refused }),
            (None, None) => {}
        }
        Some(dial)
    }

    /// Whether a refusal comes too late.
    pub(super) fn has_met(&self, dial: DialId) -> bool {
        self.punches.get(&dial).is_some_and(|punch| punch.met)
    }

    /// The address that a far end sees; the boxes on the way out remember who was dialled.
    fn seen_as(&mut self, from: HostId, local: SocketAddr, remote: SocketAddr) -> SocketAddr {
        let (mut seen, mut realm) = (local, self.behind.get(&from).copied());
        while let Some(NatId(at)) = realm {
            seen = self.nats[at].outbound(self.now, Protocol::Tcp, seen, remote);
            realm = self.nats[at].outer;
        }
        seen
    }
}

impl World {
    /// Both ends have dialled, and TLS and the upgrade are done.
    pub(super) fn step_meet(&mut self, id: DialId, mate: DialId) {
        let ends = [id, mate].map(|dial| self.air.dials.get(&dial).map(|known| known.from).zip(self.air.punches.get(&dial).copied()));
        let [Some((end, punch)), Some((mate_end, mate_punch))] = ends else { return self.give_up(id, Some(Ended::TimedOut)) };
        if self.life(mate_end.host) != Some(mate_end.life) {
            return self.give_up(id, Some(Ended::TimedOut));
        }
        let (client, server, shown) = match punch.role {
            TlsRole::Client => ((id, end), (mate, mate_end), mate_punch.id),
            TlsRole::Server => ((mate, mate_end), (id, end), punch.id),
        };
        let genuine = Certificate { identity: Some(shown), subject: None };
        let shown = self.air.middlemen.get(&(client.1.host, server.1.host)).cloned().unwrap_or(genuine);
        let pin = self.air.dials.get(&client.0).map_or(Pin::Anything, Dial::pin);
        if let Err(why) = judge(pin, &shown) {
            self.give_up(client.0, Some(why));
            return self.give_up(server.0, Some(Ended::ByPeer));
        }
        // who stands between has two connections, and no say in what the ends derive from theirs
        let between = |a: HostId, b: HostId| self.air.middlemen.contains_key(&(a, b));
        let is_between = between(client.1.host, server.1.host) || between(server.1.host, client.1.host);
        let exporter = self.air.rng.seed();
        let exporters = [exporter, if is_between { self.air.rng.seed() } else { exporter }];
        let wire = self.air.lay([client.1, server.1]);
        let facts = [
            TlsFacts { exporter: exporters[0], identity: shown.identity, subject: shown.subject },
            TlsFacts { exporter: exporters[1], identity: None, subject: None },
        ];
        for (side, ((dial, end), tls)) in [client, server].into_iter().zip(facts).enumerate() {
            let addresses = self.air.dials.remove(&dial).map(|dial| dial.ends());
            self.air.punches.remove(&dial);
            if let (Some(Host::Peer(peer)), Some(addresses)) = (&mut self.hosts[end.host.0].running, addresses) {
                peer.opened(&mut self.air, end.conn, (wire, side), tls, addresses);
            }
        }
    }
}
