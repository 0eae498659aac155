//! Datagrams as the air carries them: each arrives or not, perhaps twice, late or altered; and what comes back from nowhere.
//!
//! ```text
//!   send ─▶ NAT out ─▶ queue of the way (rate, window) ─▶ loss, doubling, jitter ─▶ Tick::Datagram ─▶ NAT in, socket
//!                                                                                       └── nobody: Heard::Refused to the sender
//! ```
//! What a host may send to whom is in `debt`.
use super::{
    Host, World,
    air::{Air, HostId, Tick},
    debt::Exchange,
    nat::Protocol,
    route::Route,
};
use shadowmesh_core::{
    time::{Duration, Instant},
    wire::{PathHeader, TYPE_BIND, TYPE_BOUND, TYPE_COOKIE_REPLY, TYPE_FRAG, TYPE_FRAME, TYPE_OPENER, TYPE_PATH_REQ},
};
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
};

/// Bytes of an IPv4 and of an IPv6 header with that of UDP.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;
/// What waits to be heard; as in a socket buffer, what is too much is lost.
const HEARD_MAX: usize = 4_096;

/// What a socket hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A datagram.
    Datagram {
        /// Who sent it, as it looks from here.
        from: SocketAddr,
        /// What it says.
        bytes: Vec<u8>,
    },
    /// ICMP: nobody has this port, or a box on the way lets nothing in.
    Refused {
        /// Where it was sent.
        to: SocketAddr,
    },
    /// ICMP: larger than this way carries.
    TooBig {
        /// Where it was sent.
        to: SocketAddr,
        /// The largest IP packet that passes, bytes.
        mtu: usize,
    },
}

/// One socket.
#[derive(Default)]
pub(super) struct Socket {
    heard: VecDeque<Heard>,
    lost: u64,
}

/// A datagram on its way.
pub(super) struct Flight {
    from: HostId,
    /// The sender's own socket, for what comes back.
    inner: SocketAddr,
    aimed_at: SocketAddr,
    source: SocketAddr,
    bytes: Vec<u8>,
    to: Option<(HostId, SocketAddr)>,
}

/// The queue of datagrams of one direction between two hosts.
#[derive(Default)]
pub(super) struct Pipe {
    busy_until: Instant,
}

impl Air {
    fn send_datagram(&mut self, from: HostId, inner: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let route = self.route(Protocol::Udp, from, inner, to);
        let (host, destination, source) = match route {
            Route::Arrives { to, source, destination } => (to, destination, source),
            Route::Refused => return self.answer(from, inner, Heard::Refused { to }, Duration::from_millis(1)),
            Route::Dropped | Route::Nowhere => return,
        };
        let way = self.way(from, host);
        let size = bytes.len() + if to.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
        if size > way.mtu {
            return self.answer(from, inner, Heard::TooBig { to, mtu: way.mtu }, way.latency);
        }
        let pipe = self.pipes.entry((from, host)).or_default();
        // what has left the queue is on its way and takes no room there
        let waits = pipe.busy_until.since(self.now).as_nanos() * u128::from(way.rate) / 1_000_000_000;
        if waits + size as u128 > way.window as u128 {
            self.overflowed += 1;
            return; // the queue on the way is full: the newest is lost
        }
        let nanos = (size as u64).saturating_mul(1_000_000_000) / way.rate.max(1);
        pipe.busy_until = pipe.busy_until.max(self.now) + Duration::from_nanos(nanos);
        let leaves = pipe.busy_until;
        let copies = if self.rng.per_mille(way.doubling) { 2 } else { 1 };
        for _ in 0..copies {
            let mut bytes = bytes.to_vec();
            let lost = self.rng.per_mille(way.loss) || self.is_blocked(from, host);
            if self.rng.per_mille(way.corruption) && !bytes.is_empty() {
                let at = self.rng.below(bytes.len());
                bytes[at] ^= 1 << self.rng.below(8);
            }
            let mut arrives = leaves + way.latency + self.jitter(way.jitter);
            if self.rng.per_mille(way.reordering) {
                arrives = arrives + way.latency + Duration::from_millis(1);
            }
            let to_host = (!lost).then_some((host, destination));
            let flight = Flight { from, inner, aimed_at: to, source, bytes, to: to_host };
            self.at(arrives, Tick::Datagram(Box::new((host, flight))));
        }
    }

    fn answer(&mut self, host: HostId, inner: SocketAddr, what: Heard, after: Duration) {
        self.after(after, Tick::Icmp(Box::new((host, inner.port(), what))));
    }

    /// Opens a socket on this port of all addresses of a host.
    pub(super) fn open_socket(&mut self, host: HostId, port: u16) {
        self.sockets.insert((host, port), Socket::default());
    }

    /// The same for a peer, which may not speak to just anybody.
    pub(super) fn open_socket_of_peer(&mut self, host: HostId, port: u16) {
        self.open_socket(host, port);
        self.debts.entry(host).or_default().is_peer = true;
    }

    /// Sends one datagram from an open socket; false when there is no such socket or no address of this family.
    pub(super) fn send_from(&mut self, host: HostId, port: u16, to: SocketAddr, bytes: &[u8]) -> bool {
        let own: Option<IpAddr> = self.own_address(host, to.is_ipv4());
        let Some(own) = own.filter(|_| self.sockets.contains_key(&(host, port))) else { return false };
        if let Some(exchange) = self.debts.entry(host).or_default().sends(to, bytes) {
            self.amplified.get_or_insert((host, to, exchange));
        }
        self.trace.tell(self.now, host.0, || format!("{port} to {to}: {}", name_of(bytes)));
        self.send_datagram(host, SocketAddr::new(own, port), to, bytes);
        true
    }

    /// A host has shown to itself that a far address is real.
    pub(super) fn validate(&mut self, host: HostId, remote: SocketAddr) {
        self.debts.entry(host).or_default().validate(remote);
    }

    /// What a socket has heard since the last call.
    pub(super) fn hear(&mut self, host: HostId, port: u16) -> Vec<Heard> {
        self.sockets.get_mut(&(host, port)).map(|socket| socket.heard.drain(..).collect()).unwrap_or_default()
    }

    /// A flight has ended, or was lost on the way.
    pub(super) fn land(&mut self, flight: &Flight) {
        let Some((host, destination)) = flight.to else { return };
        let Some(socket) = self.sockets.get_mut(&(host, destination.port())) else {
            let latency = self.way(flight.from, host).latency;
            return self.answer(flight.from, flight.inner, Heard::Refused { to: flight.aimed_at }, latency);
        };
        let source = flight.source;
        self.trace.tell(self.now, host.0, || format!("{} from {source}: {}", destination.port(), name_of(&flight.bytes)));
        socket.take(source, flight.bytes.clone());
        let debts = self.debts.entry(host).or_default();
        debts.answered_by(flight.from, source, &flight.bytes);
        debts.takes(source, &flight.bytes);
        self.debts.entry(flight.from).or_default().reaches(host, flight.aimed_at, &flight.bytes);
    }

    /// ICMP has come to a socket.
    pub(super) fn icmp(&mut self, host: HostId, port: u16, what: Heard) {
        if let Some(socket) = self.sockets.get_mut(&(host, port)) {
            socket.push(what);
        }
    }
}

/// What a datagram says it is, to be read.
fn name_of(bytes: &[u8]) -> String {
    if let Ok(PathHeader { kind, path, attempt, .. }) = PathHeader::parse(bytes) {
        let kind = ["PATH_REQ", "PATH_RSP", "PATH_CMP"].get(usize::from(kind - TYPE_PATH_REQ)).copied().unwrap_or("PATH");
        return format!("{kind} of path {}, attempt {attempt}, {} bytes", path.0, bytes.len());
    }
    let kind = match bytes.first() {
        Some(&TYPE_FRAME) => "frame",
        Some(&TYPE_BIND) => "BIND",
        Some(&TYPE_BOUND) => "BOUND",
        Some(&TYPE_OPENER) => "OPENER",
        Some(&TYPE_FRAG) => "FRAG",
        Some(&TYPE_COOKIE_REPLY) => "COOKIE_REPLY",
        _ => "noise",
    };
    format!("{kind}, {} bytes", bytes.len())
}

impl Socket {
    fn take(&mut self, from: SocketAddr, bytes: Vec<u8>) {
        if self.heard.len() >= HEARD_MAX {
            self.lost += 1;
            return;
        }
        self.push(Heard::Datagram { from, bytes });
    }

    fn push(&mut self, what: Heard) {
        if self.heard.len() < HEARD_MAX {
            self.heard.push_back(what);
        }
    }
}

impl World {
    /// Opens a datagram socket on this port of all addresses of a host.
    pub fn open_socket(&mut self, host: HostId, port: u16) {
        self.air.open_socket(host, port);
    }

    /// A peer's driver opens its UDP socket, whether the peer asked for it or not.
    pub fn open_peer_socket(&mut self, host: HostId) {
        if let Some(Host::Peer(peer)) = &mut self.hosts[host.0].running {
            peer.open_socket(&mut self.air);
            peer.turn(&mut self.air);
        }
    }

    /// Closes it: what comes from now on is refused.
    pub fn close_socket(&mut self, host: HostId, port: u16) {
        self.air.sockets.remove(&(host, port));
    }

    /// Sends one datagram from an open socket; false when there is no such socket or no address of this family.
    pub fn send_datagram(&mut self, host: HostId, port: u16, to: SocketAddr, bytes: &[u8]) -> bool {
        self.air.send_from(host, port, to, bytes)
    }

    /// What a socket has heard since the last call.
    pub fn hear(&mut self, host: HostId, port: u16) -> Vec<Heard> {
        self.air.hear(host, port)
    }

    /// A host has shown to itself that a far address is real.
    pub fn validate_address(&mut self, host: HostId, remote: SocketAddr) {
        self.air.validate(host, remote);
    }

    /// Datagrams that were lost because the queue on their way was full.
    pub fn overflowed(&self) -> u64 {
        self.air.overflowed
    }

    /// What a host exchanged with a far address.
    pub fn exchange(&self, host: HostId, remote: SocketAddr) -> Exchange {
        self.air.debts.get(&host).map(|debts| debts.with(remote)).unwrap_or_default()
    }

    /// The first far address that was sent more than it had paid for before it was shown to be there.
    pub fn amplified(&self) -> Option<(HostId, SocketAddr, Exchange)> {
        self.air.amplified
    }
}
