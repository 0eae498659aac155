//! Datagrams as the air carries them: each arrives or not, perhaps twice, late or altered; and what comes back from nowhere.
//!
//! ```text
//!   send ─▶ NAT out ─▶ queue of the way (rate, window) ─▶ loss, doubling, jitter ─▶ Tick::Datagram ─▶ NAT in, socket
//!                                                                                       └── nobody: Heard::Refused to the sender
//! ```
//! Each socket keeps an account of every far address: a host that is spoken to by a stranger may not send back more than came,
//! until it knows that the stranger is where it says (RFC 9000 8 for the reason; the factor here is one).
use super::{
    Host, World,
    air::{Air, HostId, Tick},
    nat::Protocol,
    route::Route,
};
use shadowmesh_core::time::{Duration, Instant};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
};

/// Bytes of an IPv4 and of an IPv6 header with that of UDP.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;
/// What waits to be heard; as in a socket buffer, what is too much is lost.
const HEARD_MAX: usize = 4_096;
/// Far addresses in one socket's account; further strangers are not counted, as a host could not afford to either.
const ACCOUNTS_MAX: usize = 4_096;

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

/// Bytes exchanged with one far address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Payload bytes sent to it.
    pub sent: u64,
    /// Payload bytes that came from it.
    pub received: u64,
    /// It spoke first.
    pub is_stranger: bool,
    /// It was shown to be there.
    pub is_validated: bool,
}

impl Exchange {
    /// Whether a stranger was sent more than it had paid for.
    pub fn is_amplified(self) -> bool {
        self.is_stranger && !self.is_validated && self.sent > self.received
    }
}

/// One socket.
#[derive(Default)]
pub(super) struct Socket {
    heard: VecDeque<Heard>,
    lost: u64,
    accounts: BTreeMap<SocketAddr, Exchange>,
}

/// A datagram on its way.
pub(super) struct Flight {
    from: HostId,
    /// The sender's own socket, for what comes back.
    inner: SocketAddr,
    aimed_at: SocketAddr,
    source: SocketAddr,
    bytes: Vec<u8>,
    /// What the way's queue gives back when it has left.
    queued: usize,
    to: Option<(HostId, SocketAddr)>,
}

/// The queue of datagrams of one direction between two hosts.
#[derive(Default)]
pub(super) struct Pipe {
    busy_until: Instant,
    bytes: usize,
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
        if pipe.bytes + size > way.window {
            return; // the queue on the way is full: the newest is lost
        }
        pipe.bytes += size;
        let nanos = (size as u64).saturating_mul(1_000_000_000) / way.rate.max(1);
        pipe.busy_until = pipe.busy_until.max(self.now) + Duration::from_nanos(nanos);
        let leaves = pipe.busy_until;
        let copies = if self.rng.per_mille(way.doubling) { 2 } else { 1 };
        for copy in 0..copies {
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
            let queued = if copy == 0 { size } else { 0 };
            let flight = Flight { from, inner, aimed_at: to, source, bytes, queued, to: to_host };
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

    /// Sends one datagram from an open socket; false when there is no such socket or no address of this family.
    pub(super) fn send_from(&mut self, host: HostId, port: u16, to: SocketAddr, bytes: &[u8]) -> bool {
        let own: Option<IpAddr> = self.own_address(host, to.is_ipv4());
        let (Some(own), Some(socket)) = (own, self.sockets.get_mut(&(host, port))) else { return false };
        if socket.accounts.len() < ACCOUNTS_MAX || socket.accounts.contains_key(&to) {
            socket.accounts.entry(to).or_default().sent += bytes.len() as u64;
        }
        self.send_datagram(host, SocketAddr::new(own, port), to, bytes);
        true
    }

    /// The host at this socket has shown to itself that the far address is real.
    pub(super) fn validate(&mut self, host: HostId, port: u16, remote: SocketAddr) {
        if let Some(socket) = self.sockets.get_mut(&(host, port)) {
            socket.accounts.entry(remote).or_default().is_validated = true;
        }
    }

    /// What a socket has heard since the last call.
    pub(super) fn hear(&mut self, host: HostId, port: u16) -> Vec<Heard> {
        self.sockets.get_mut(&(host, port)).map(|socket| socket.heard.drain(..).collect()).unwrap_or_default()
    }

    /// A flight has ended, or was lost on the way.
    pub(super) fn land(&mut self, queue: HostId, flight: Flight) {
        if let Some(pipe) = self.pipes.get_mut(&(flight.from, queue)) {
            pipe.bytes -= flight.queued;
        }
        let Some((host, destination)) = flight.to else { return };
        let Some(socket) = self.sockets.get_mut(&(host, destination.port())) else {
            let latency = self.way(flight.from, host).latency;
            return self.answer(flight.from, flight.inner, Heard::Refused { to: flight.aimed_at }, latency);
        };
        socket.take(flight.source, flight.bytes);
    }

    /// ICMP has come to a socket.
    pub(super) fn icmp(&mut self, host: HostId, port: u16, what: Heard) {
        if let Some(socket) = self.sockets.get_mut(&(host, port)) {
            socket.push(what);
        }
    }
}

impl Socket {
    fn take(&mut self, from: SocketAddr, bytes: Vec<u8>) {
        if self.heard.len() >= HEARD_MAX {
            self.lost += 1;
            return;
        }
        if self.accounts.len() < ACCOUNTS_MAX || self.accounts.contains_key(&from) {
            let account = self.accounts.entry(from).or_insert(Exchange { is_stranger: true, ..Exchange::default() });
            account.received += bytes.len() as u64;
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

    /// The host at this socket has shown to itself that the far address is real.
    pub fn validate_address(&mut self, host: HostId, port: u16, remote: SocketAddr) {
        self.air.validate(host, port, remote);
    }

    /// What a socket exchanged with a far address.
    pub fn exchange(&self, host: HostId, port: u16, remote: SocketAddr) -> Exchange {
        self.air.sockets.get(&(host, port)).and_then(|socket| socket.accounts.get(&remote)).copied().unwrap_or_default()
    }

    /// The first far address that was sent more than it had paid for before it was shown to be real.
    pub fn amplified(&self) -> Option<(HostId, SocketAddr, Exchange)> {
        let all = self
            .air
            .sockets
            .iter()
            .flat_map(|((host, _), socket)| socket.accounts.iter().map(|(remote, account)| (*host, *remote, *account)));
        all.into_iter().find(|(_, _, account)| account.is_amplified())
    }
}
