//! A NAT box as RFC 4787 (UDP) and RFC 5382 (TCP) describe them: which mapping a flow gets, who may answer through it, for how long.
//!
//! ```text
//!   10.9.0.2:7 ──▶ outbound: mapping of (inner, key of remote) ──▶ 203.0.113.9:7001      key: nothing, address, address and port
//!   10.9.0.2:7 ◀── inbound: the mapping of this port, if the filter lets this remote in ◀── anybody
//! ```
use super::rng::Rng;
use shadowmesh_core::time::{Duration, Instant};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

/// Mappings of one box; the one that was used longest ago gives way.
const MAPPINGS_MAX: usize = 1_024;
/// A TCP mapping lives at least so long without traffic (RFC 5382 REQ-5).
const TCP_EXPIRY: Duration = Duration::from_mins(124);
/// The first port of those that a box gives out in order.
const FIRST_PORT: u16 = 20_000;
/// Dynamic ports that a box gives out by chance: above the well-known ones.
const LEAST_PORT: u16 = 1_024;

/// Names a NAT box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatId(pub(super) usize);

/// On what a mapping or a filter depends (RFC 4787 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depends {
    /// On nothing at the far end: endpoint-independent.
    Nothing,
    /// On the far address.
    Address,
    /// On the far address and port.
    AddressAndPort,
}

/// Which outer port a new mapping gets (RFC 4787 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The inner one where it is free, else the next free one.
    Preserved,
    /// One behind the other.
    Sequential,
    /// By chance.
    Random,
}

/// What a box does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatKind {
    /// Whether flows of one inner port share a mapping.
    pub mapping: Depends,
    /// Who may send to a mapping.
    pub filtering: Depends,
    /// Outer ports.
    pub ports: Ports,
    /// Life of a UDP mapping without outbound traffic (RFC 4787 REQ-5 and REQ-6).
    pub expiry: Duration,
    /// Whether inner hosts reach each other by their outer addresses (RFC 4787 REQ-9).
    pub hairpin: bool,
    /// What comes uninvited is refused aloud (TCP reset, ICMP), not dropped.
    pub refuses: bool,
}

impl Default for NatKind {
    fn default() -> Self {
        Self {
            mapping: Depends::Nothing,
            filtering: Depends::AddressAndPort,
            ports: Ports::Preserved,
            expiry: Duration::from_mins(2),
            hairpin: true,
            refuses: false,
        }
    }
}

/// What is translated; each has ports of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// The part of a far address that a rule looks at.
type Key = Option<(IpAddr, u16)>;

fn key(rule: Depends, remote: SocketAddr) -> Key {
    match rule {
        Depends::Nothing => None,
        Depends::Address => Some((remote.ip(), 0)),
        Depends::AddressAndPort => Some((remote.ip(), remote.port())),
    }
}

/// One mapping.
struct Mapping {
    port: u16,
    used_at: Instant,
    /// Who was sent to, as the filter sees it.
    invited: BTreeSet<Key>,
}

/// One box.
pub(super) struct Nat {
    pub(super) kind: NatKind,
    /// Its address on the outer side.
    pub(super) public: IpAddr,
    /// The box that it is behind itself.
    pub(super) outer: Option<NatId>,
    mappings: BTreeMap<(Protocol, SocketAddr, Key), Mapping>,
    by_port: BTreeMap<(Protocol, u16), (SocketAddr, Key)>,
    forwards: BTreeMap<(Protocol, u16), SocketAddr>,
    next_port: u16,
    rng: Rng,
}

impl Nat {
    pub(super) fn new(kind: NatKind, public: IpAddr, outer: Option<NatId>, seed: u64) -> Self {
        Self {
            kind,
            public,
            outer,
            mappings: BTreeMap::new(),
            by_port: BTreeMap::new(),
            forwards: BTreeMap::new(),
            next_port: FIRST_PORT,
            rng: Rng::new(seed),
        }
    }

    /// This outer port leads to this inner address, whoever asks.
    pub(super) fn forward(&mut self, protocol: Protocol, port: u16, inner: SocketAddr) {
        self.forwards.insert((protocol, port), inner);
    }

    /// The outer port that leads to an inner one, if one was forwarded.
    pub(super) fn forwarded(&self, protocol: Protocol, inner: SocketAddr) -> Option<u16> {
        self.forwards.iter().find(|((kind, _), to)| *kind == protocol && **to == inner).map(|((_, port), _)| *port)
    }

    /// A packet goes out: the source that the world sees.
    pub(super) fn outbound(&mut self, now: Instant, protocol: Protocol, inner: SocketAddr, remote: SocketAddr) -> SocketAddr {
        if let Some(port) = self.forwarded(protocol, inner) {
            return SocketAddr::new(self.public, port);
        }
        let name = (protocol, inner, key(self.kind.mapping, remote));
        let invited = key(self.kind.filtering, remote);
        let expiry = self.expiry(protocol);
        if self.mappings.get(&name).is_some_and(|mapping| now.since(mapping.used_at) > expiry) {
            self.forget(name);
        }
        if !self.mappings.contains_key(&name) {
            self.make_room();
            let port = self.free_port(now, protocol, inner.port());
            self.by_port.insert((protocol, port), (inner, name.2));
            self.mappings.insert(name, Mapping { port, used_at: now, invited: BTreeSet::new() });
        }
        let port = self.mappings.get_mut(&name).map_or(0, |mapping| {
            mapping.used_at = now;
            mapping.invited.insert(invited);
            mapping.port
        });
        SocketAddr::new(self.public, port)
    }

    /// A packet comes to an outer port: where it goes inside. None: nobody asked for it.
    pub(super) fn inbound(&mut self, now: Instant, protocol: Protocol, port: u16, remote: SocketAddr) -> Option<SocketAddr> {
        if let Some(inner) = self.forwards.get(&(protocol, port)) {
            return Some(*inner);
        }
        if protocol == Protocol::Tcp {
            // a connection from outside: RFC 5382 lets it in by a forwarded port only, as nothing here opens from both ends at once
            return None;
        }
        let (inner, key_of) = *self.by_port.get(&(protocol, port))?;
        let expiry = self.expiry(protocol);
        let mapping = self.mappings.get(&(protocol, inner, key_of))?;
        if now.since(mapping.used_at) > expiry {
            self.forget((protocol, inner, key_of));
            return None;
        }
        mapping.invited.contains(&key(self.kind.filtering, remote)).then_some(inner)
    }

    /// It forgets its mappings of UDP and gives other ports from now on.
    pub(super) fn remap(&mut self) {
        self.mappings.retain(|(protocol, ..), _| *protocol != Protocol::Udp);
        self.by_port.retain(|(protocol, _), _| *protocol != Protocol::Udp);
        self.kind.ports = Ports::Sequential;
    }

    fn expiry(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Tcp => TCP_EXPIRY,
            Protocol::Udp => self.kind.expiry,
        }
    }

    fn forget(&mut self, name: (Protocol, SocketAddr, Key)) {
        if let Some(mapping) = self.mappings.remove(&name) {
            self.by_port.remove(&(name.0, mapping.port));
        }
    }

    fn make_room(&mut self) {
        if self.mappings.len() >= MAPPINGS_MAX
            && let Some(oldest) = self.mappings.iter().min_by_key(|(_, mapping)| mapping.used_at).map(|(name, _)| *name)
        {
            self.forget(oldest);
        }
    }

    fn free_port(&mut self, now: Instant, protocol: Protocol, inner: u16) -> u16 {
        if self.kind.ports == Ports::Preserved && self.is_free(now, protocol, inner) {
            return inner;
        }
        // at most MAPPINGS_MAX ports are taken, and no port is looked at twice in a row: this ends
        loop {
            let port = match self.kind.ports {
                Ports::Preserved | Ports::Sequential => {
                    self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
                    self.next_port
                }
                Ports::Random => LEAST_PORT + self.rng.below(usize::from(u16::MAX - LEAST_PORT)) as u16,
            };
            if self.is_free(now, protocol, port) {
                return port;
            }
        }
    }

    fn is_free(&mut self, now: Instant, protocol: Protocol, port: u16) -> bool {
        if self.forwards.contains_key(&(protocol, port)) {
            return false;
        }
        let Some((inner, key_of)) = self.by_port.get(&(protocol, port)).copied() else { return true };
        let expiry = self.expiry(protocol);
        let is_old = self.mappings.get(&(protocol, inner, key_of)).is_none_or(|mapping| now.since(mapping.used_at) > expiry);
        if is_old {
            self.forget((protocol, inner, key_of));
        }
        is_old
    }
}
