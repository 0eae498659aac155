//! What befalls a host as a whole: sleep, a clock that jumps, an interface that is slow, addresses that change.
use super::{
    Host, HostId, World,
    air::Air,
    build::Plan,
    nat::{NatId, Protocol},
};
use shadowmesh_core::{
    bound::Bound,
    event::{Event, Note},
    time::{Duration, Instant},
};
use std::net::{IpAddr, SocketAddr};

impl Air {
    /// A listener opened behind a box that forwards its port.
    pub(super) fn map_port(&mut self, host: HostId, port: u16) {
        if let Some(NatId(nat)) = self.behind.get(&host).copied()
            && self.mapped.contains(&host)
            && let Some(inner) = self.own_address(host, true)
        {
            self.nats[nat].forward(Protocol::Tcp, port, SocketAddr::new(inner, port));
        }
    }
}

impl World {
    /// The host is suspended: its kernel and its programs do nothing, and lose nothing.
    pub fn sleep(&mut self, host: HostId) {
        self.hosts[host.0].asleep = self.hosts[host.0].running.is_some();
    }

    /// It goes on: all that was due meanwhile is due now, and TCP sends again.
    pub fn wake(&mut self, host: HostId) {
        if !core::mem::take(&mut self.hosts[host.0].asleep) {
            return;
        }
        let missed = core::mem::take(&mut self.hosts[host.0].slept_through);
        for tick in missed {
            self.air.after(Duration::ZERO, tick);
        }
        for (wire, _) in self.air.wires_of(host) {
            self.air.resend_on(wire);
        }
        self.turn(host);
        self.account();
    }

    /// Whether a host runs and is awake.
    pub fn is_up(&self, host: HostId) -> bool {
        self.hosts[host.0].running.is_some() && !self.is_asleep(host)
    }

    /// Whether a host is suspended.
    pub fn sleeps(&self, host: HostId) -> bool {
        self.is_asleep(host)
    }

    /// Whether something runs there, awake or not.
    pub fn runs(&self, host: HostId) -> bool {
        self.hosts[host.0].running.is_some()
    }

    /// A peer's clock is ahead by so much more from now on, as after a sleep in which the rest of the world slept too.
    pub fn jump_clock(&mut self, host: HostId, span: Duration) {
        if self.is_up(host)
            && let Some(Host::Peer(peer)) = &mut self.hosts[host.0].running
        {
            peer.jump(&mut self.air, span);
        }
        self.account();
    }

    /// A peer's interface takes so many packets a second; 0: as many as come.
    pub fn pace_interface(&mut self, host: HostId, per_second: u32) {
        if let Some(Host::Peer(peer)) = &mut self.hosts[host.0].running {
            let period = if per_second == 0 { Duration::ZERO } else { Duration::from_secs(1) / per_second };
            peer.pace_interface(&mut self.air, period);
        }
        self.account();
    }

    /// Packets that a peer's slow interface has lost in this life.
    pub fn interface_lost(&self, host: HostId) -> u64 {
        match &self.hosts[host.0].running {
            Some(Host::Peer(peer)) => peer.interface_lost(),
            Some(Host::Relay(_) | Host::Stranger(_)) | None => 0,
        }
    }

    /// The interfaces of a host have these addresses now, and no others: connections of the old ones fall silent.
    pub fn set_interfaces(&mut self, host: HostId, addresses: &[(IpAddr, u8)]) {
        self.air.hosts_of.retain(|_, holder| *holder != host);
        for (address, _) in addresses {
            assert_eq!(self.air.hosts_of.insert(*address, host), None, "{address} is somebody's already");
        }
        if let Plan::Peer { interfaces, .. } = &mut self.hosts[host.0].plan {
            *interfaces = addresses.to_vec();
        }
        if self.hosts[host.0].running.is_some() {
            self.air.orphan(host);
            self.event(host, Event::Interfaces(addresses));
        }
    }

    /// A peer moves to the address next to its present one in each family.
    pub fn move_host(&mut self, host: HostId) {
        let Plan::Peer { interfaces, .. } = &self.hosts[host.0].plan else { return };
        let next = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() ^ 0x80).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() ^ 0x8000).into()),
        };
        let moved: Vec<(IpAddr, u8)> = interfaces.iter().map(|(ip, len)| (next(*ip), *len)).collect();
        self.set_interfaces(host, &moved);
    }

    /// The box in front of a host forwards the port of its listener from the next time on that it opens.
    pub fn map_ports(&mut self, host: HostId) {
        self.air.mapped.insert(host);
    }

    /// The last messages that were sent from now on can be asked for.
    pub fn overhear(&mut self) {
        self.air.overheard.get_or_insert_default();
    }

    /// One of the latest messages, the `nth` from the oldest, counted round.
    pub fn overheard(&self, nth: usize) -> Option<Vec<u8>> {
        let kept = self.air.overheard.as_ref()?;
        (!kept.is_empty()).then(|| kept[nth % kept.len()].clone())
    }

    /// Keeps a readable account of what machines order from now on.
    pub fn listen(&mut self) {
        self.air.trace.listen();
    }

    /// Adds a line of the scenario's own to that account.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        let now = self.air.now;
        self.air.trace.tell(now, usize::MAX, line);
    }

    /// The last `count` lines of that account.
    pub fn told(&self, count: usize) -> Vec<String> {
        let start = Instant::from_millis(1_000_000);
        let skip = self.air.trace.told().count().saturating_sub(count);
        let line = |(at, host, what): &(Instant, usize, String)| {
            let (millis, micros) = (at.since(start).as_millis(), at.since(start).as_micros() % 1_000);
            let who = if *host == usize::MAX { "──".to_owned() } else { format!("{host:>2}") };
            format!("{millis:>8}.{micros:03} {who} {what}")
        };
        self.air.trace.told().skip(skip).map(line).collect()
    }

    /// What a host holds, beside the most; nothing when it does not run.
    pub fn bounds(&self, host: HostId, each: &mut dyn FnMut(Bound)) {
        match &self.hosts[host.0].running {
            Some(Host::Peer(peer)) => peer.bounds(each),
            Some(Host::Relay(relay)) => relay.bounds(each),
            Some(Host::Stranger(_)) | None => {}
        }
    }

    /// What a peer said in this life and nobody has collected.
    pub fn fresh_notes(&self, host: HostId) -> &[(Instant, Note)] {
        match &self.hosts[host.0].running {
            Some(Host::Peer(peer)) => peer.fresh_notes(),
            Some(Host::Relay(_) | Host::Stranger(_)) | None => &[],
        }
    }

    /// How often a peer's machines were called of their own accord in this life.
    pub fn alarms(&self, host: HostId) -> u64 {
        match &self.hosts[host.0].running {
            Some(Host::Peer(peer)) => peer.alarms(),
            Some(Host::Relay(_) | Host::Stranger(_)) | None => 0,
        }
    }

    /// How often a host was started.
    pub fn lives(&self, host: HostId) -> u32 {
        self.hosts[host.0].lives
    }
}
