//! How a connection comes to be: TCP, TLS 1.3 and WebSocket, three round trips, and the ways in which that fails.
//!
//! ```text
//!   dialler ──SYN──▶ Knock: listener? admitted? ─▶ Greet: certificate, pin ─▶ Join: the listener has it ─▶ Open: the dialler has it
//!            0.5 round trips                1.5                        2.5                       3
//! ```
//! TLS is two facts: what certificate the dialler saw, and an exporter that both ends share, unless somebody stands between.
use super::{
    Host, World,
    air::{Air, End, HostId, Side, Tick, WireId},
    nat::Protocol,
    route::Route,
};
use shadowmesh_core::{
    event::{Ended, TlsFacts},
    id::PeerId,
    network::host_port,
    time::Duration,
};
use std::net::SocketAddr;

/// TCP repeats its SYN, and whatever was lost on a way that was cut, after so long.
const AGAIN: Duration = Duration::from_millis(250);

/// One dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DialId(pub(super) u64);

/// What a listener shows in TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The identity of an ML-DSA-87 certificate.
    pub identity: Option<PeerId>,
    /// Who a foreign certificate says it is.
    pub subject: Option<String>,
}

/// Which certificates a dialler takes; what runtime-std's verifier does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pin {
    /// A peer: this identity and no other.
    Direct(PeerId),
    /// A relay: this identity or a foreign certificate, which the handshake must back.
    Relay(Option<PeerId>),
    /// An attacker does not care.
    Anything,
}

/// How far it has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Knock,
    Greet,
    Join,
    Open,
    /// The other end has dialled, too.
    Meet {
        mate: DialId,
    },
    Refused,
    Late,
}

/// A connection that is being made.
pub(super) struct Dial {
    pub(super) from: End,
    to: HostId,
    /// The dialler's own address, and the one that it dialled.
    local: SocketAddr,
    remote: SocketAddr,
    /// What the listener sees of the dialler and of itself; a NAT box makes them differ.
    seen: SocketAddr,
    door: SocketAddr,
    pin: Pin,
    /// The listener's life that admitted it.
    admitted: Option<u32>,
    /// The dialler's exporter and the listener's.
    exporters: [[u8; 32]; 2],
    shown: Certificate,
    wire: Option<WireId>,
}

impl Dial {
    /// A dial of which nothing is known yet.
    pub(super) fn between(from: End, to: HostId, [local, remote]: [SocketAddr; 2], pin: Pin) -> Self {
        let shown = Certificate { identity: None, subject: None };
        Self { from, to, local, remote, seen: local, door: remote, pin, admitted: None, exporters: [[0; 32]; 2], shown, wire: None }
    }

    /// The dialler's own address, and the one that it dialled.
    pub(super) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.local, self.remote)
    }

    pub(super) fn pin(&self) -> Pin {
        self.pin
    }
}

impl Air {
    /// Gives a dial its number, and its end.
    pub(super) fn begin(&mut self, dial: Dial, timeout: Duration) -> DialId {
        let id = DialId(self.next_dial);
        self.next_dial += 1;
        self.dials.insert(id, dial);
        self.at(self.now + timeout, Tick::Dial { dial: id, step: Step::Late });
        id
    }

    /// Starts a dial; None when the address is nobody's.
    pub(super) fn dial(&mut self, from: End, remote: SocketAddr, pin: Pin, timeout: Duration) -> Option<DialId> {
        let own = self.own_address(from.host, remote.is_ipv4())?;
        let local = SocketAddr::new(own, self.fresh_port());
        let route = self.route(Protocol::Tcp, from.host, local, remote);
        let (to, seen, door) = match route {
            Route::Arrives { to, source, destination } => (to, source, destination),
            Route::Nowhere => return None,
            // nobody answers, or a box on the way does with a reset
            Route::Dropped | Route::Refused => (from.host, local, remote),
        };
        let exporter = self.rng.seed();
        let between = self.middlemen.contains_key(&(from.host, to));
        let exporters = [exporter, if between { self.rng.seed() } else { exporter }];
        let shown = Certificate { identity: None, subject: None };
        let dial = Dial { from, to, local, remote, seen, door, pin, admitted: None, exporters, shown, wire: None };
        let id = self.begin(dial, timeout);
        let latency = self.way(from.host, to).latency;
        match route {
            Route::Arrives { .. } => self.after(latency, Tick::Dial { dial: id, step: Step::Knock }),
            Route::Refused => self.after(latency, Tick::Dial { dial: id, step: Step::Refused }),
            Route::Dropped | Route::Nowhere => {}
        }
        Some(id)
    }

    fn next_step(&mut self, dial: DialId, latencies: u32, step: Step) {
        let Some(there) = self.dials.get(&dial) else { return };
        let span = self.way(there.from.host, there.to).latency * latencies;
        self.after(span, Tick::Dial { dial, step });
    }
}

/// Where a relay is; its host stands in the URL as an address.
pub(super) fn address_of(url: &str) -> Option<SocketAddr> {
    let (host, port) = host_port(url).ok()?;
    Some(SocketAddr::new(host.parse().ok()?, port))
}

/// Whether a certificate satisfies a pin.
pub(super) fn judge(pin: Pin, shown: &Certificate) -> Result<(), Ended> {
    let fits = match pin {
        Pin::Anything => true,
        Pin::Direct(expected) => shown.identity == Some(expected),
        Pin::Relay(expected) => shown.identity.is_none() || expected.is_none() || shown.identity == expected,
    };
    if fits { Ok(()) } else { Err(Ended::WrongIdentity { got: shown.identity, subject: shown.subject.clone() }) }
}

impl World {
    /// One step of a dial is due.
    pub(super) fn dial_step(&mut self, id: DialId, step: Step) {
        let Some(dial) = self.air.dials.get(&id) else { return };
        let host = dial.from.host;
        let is_cut = self.air.is_blocked(host, dial.to) || self.air.is_blocked(dial.to, host);
        let alive = self.life(host) == Some(dial.from.life);
        if !alive {
            return self.give_up(id, None);
        }
        match step {
            // a host that sleeps sees its timers when it wakes
            _ if self.is_asleep(host) => self.air.after(AGAIN, Tick::Dial { dial: id, step }),
            Step::Late => self.give_up(id, Some(Ended::TimedOut)),
            Step::Refused if self.air.has_met(id) => {}
            Step::Refused => self.give_up(id, Some(Ended::Refused)),
            // nothing comes through: again and again, until it is too late
            _ if is_cut || self.is_dark(dial.to) => self.air.after(AGAIN, Tick::Dial { dial: id, step }),
            Step::Knock => self.step_knock(id),
            Step::Greet => self.step_greet(id),
            Step::Join => self.step_join(id),
            Step::Open => self.step_open(id),
            Step::Meet { mate } => self.step_meet(id, mate),
        }
    }

    fn step_knock(&mut self, id: DialId) {
        let Some(dial) = self.air.dials.get_mut(&id) else { return };
        let (from, to, local, door) = (dial.from.host, dial.to, dial.seen, dial.door);
        let door = self.air.doors.get(&(to, door.port())).cloned().filter(|_| !self.air.way(from, to).refuses);
        let (Some(certificate), Some(life)) = (door, self.life(to)) else { return self.give_up(id, Some(Ended::Refused)) };
        let admitted = match &mut self.hosts[to.0].running {
            Some(Host::Relay(relay)) => relay.admit(self.air.now, local),
            Some(Host::Peer(peer)) => peer.admit(),
            Some(Host::Stranger(_)) => true,
            None => false,
        };
        if !admitted {
            return self.give_up(id, Some(Ended::Reset));
        }
        if let Some(dial) = self.air.dials.get_mut(&id) {
            dial.admitted = Some(life);
            dial.shown = self.air.middlemen.get(&(from, to)).cloned().unwrap_or(certificate);
        }
        self.air.next_step(id, 2, Step::Greet);
    }

    fn step_greet(&mut self, id: DialId) {
        let Some(dial) = self.air.dials.get(&id) else { return };
        match judge(dial.pin, &dial.shown) {
            Ok(()) => self.air.next_step(id, 2, Step::Join),
            Err(why) => self.give_up(id, Some(why)),
        }
    }

    /// The listener's half is done.
    fn step_join(&mut self, id: DialId) {
        let Some(dial) = self.air.dials.get(&id) else { return };
        let (from, to, local, remote, exporter) = (dial.from, dial.to, dial.seen, dial.door, dial.exporters[1]);
        let life = self.life(to).filter(|life| dial.admitted == Some(*life));
        let Some(life) = life else { return self.give_up(id, Some(Ended::Reset)) };
        let conn = match &mut self.hosts[to.0].running {
            Some(Host::Relay(relay)) => relay.fresh_conn(),
            Some(Host::Peer(peer)) => peer.fresh_conn(),
            Some(Host::Stranger(stranger)) => stranger.fresh_conn(),
            None => return,
        };
        let wire = self.air.lay([from, End { host: to, life, conn }]);
        if let Some(dial) = self.air.dials.get_mut(&id) {
            dial.wire = Some(wire);
        }
        self.air.next_step(id, 1, Step::Open);
        match &mut self.hosts[to.0].running {
            Some(Host::Relay(relay)) => relay.accepted(&mut self.air, conn, wire, exporter, local),
            Some(Host::Peer(peer)) => peer.accepted(&mut self.air, conn, wire, exporter, (remote, local)),
            Some(Host::Stranger(stranger)) => stranger.attach(conn, wire, 1),
            None => {}
        }
    }

    /// The dialler's half is done.
    fn step_open(&mut self, id: DialId) {
        let Some(dial) = self.air.dials.remove(&id) else { return };
        let Some(wire) = dial.wire else { return };
        let ends = dial.ends();
        let tls = TlsFacts { exporter: dial.exporters[0], identity: dial.shown.identity, subject: dial.shown.subject };
        match &mut self.hosts[dial.from.host.0].running {
            Some(Host::Peer(peer)) => peer.opened(&mut self.air, dial.from.conn, (wire, 0), tls, ends),
            Some(Host::Stranger(stranger)) => stranger.opened(dial.from.conn, wire, tls.exporter),
            Some(Host::Relay(_)) | None => {}
        }
    }

    /// It came to nothing; `why` goes to the dialler.
    pub(super) fn give_up(&mut self, id: DialId, why: Option<Ended>) {
        let Some(dial) = self.air.dials.remove(&id) else { return };
        self.air.punches.remove(&id);
        if let Some(wire) = dial.wire {
            const DIALLER: Side = 0;
            self.air.finish(wire, DIALLER, Ended::ByPeer);
        } else if dial.admitted.is_some()
            && dial.admitted == self.life(dial.to)
            && let Some(Host::Relay(relay)) = &mut self.hosts[dial.to.0].running
        {
            relay.released(dial.seen);
        }
        if let (Some(why), Some(Host::Peer(peer))) = (why, &mut self.hosts[dial.from.host.0].running) {
            peer.dial_failed(&mut self.air, dial.from.conn, why);
        }
    }
}
