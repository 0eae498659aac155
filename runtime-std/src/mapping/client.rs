//! Asks one router for our ports, by PCP or NAT-PMP, and keeps them: a machine without clock and socket.
//!
//! ```text
//!              ┌──────── UNSUPP_VERSION, or silence ────────▶┐
//!   PCP ───────┤                                             ├──▶ NAT-PMP (IPv4 alone) ── silence ──▶ back to PCP after a while
//!              └─ each port: Wanted ─ask─▶ mapped ──▶ Held ──┘
//!                              ▲  250 ms, 500 ms, 1 s …       │ half of its life is over: ask again, the port stays
//!                              └── refused, lost by a reset, life over ◀─┘
//! ```
//! An answer counts only from the router's own address and port, for a port that is asked for, with the nonce of the question where
//! there is one (PCP). What was granted is a candidate (protocol 6.3), and no more: only a re-handshake proves a path.
use super::codec::{self, Answer, Ask, Said};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use shadowmesh_core::{
    event::{MappingProtocol, PortMapping},
    time::Instant,
    wire::Transport,
};

/// What we ask for: long enough for few renewals, short enough that a router forgets a peer that was killed.
const LIFETIME_S: u32 = 3_600;
/// A router may grant more; we believe in no more than a day.
const LONGEST_LIFETIME_S: u32 = 86_400;
/// The first wait for an answer; each next one is twice as long (RFC 6886 3.1).
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Questions without an answer, to a router of which nothing is known, before the other protocol is tried.
const TRIES: u32 = 3;
/// Questions of a renewal without an answer: the last one goes out after a minute or so.
const RENEWAL_TRIES: u32 = 9;
/// How long a router that says nothing, or no, is left alone; each time twice as long.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(30);
/// A renewal comes no sooner: a router that grants a second at a time is no use, but must not make us busy.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(2);
/// What both clocks may be apart without a reset, in seconds (RFC 6887 8.5).
const EPOCH_SLACK_S: u64 = 2;

/// The ports that are to be reached from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) udp: Option<u16>,
    pub(crate) tcp: Option<u16>,
}

/// One router, and what it forwards.
pub(crate) struct Client {
    server: SocketAddr,
    /// Our address on the way to it.
    own: IpAddr,
    dialect: Dialect,
    /// The router's clock when it was told last.
    epoch: Option<(Instant, u32)>,
    /// NAT-PMP tells its address apart from the port.
    address: Option<IpAddr>,
    ports: [Port; 2],
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Pcp,
    NatPmp,
}

/// One of our ports.
struct Port {
    transport: Transport,
    nonce: [u8; 12],
    internal: Option<u16>,
    held: Option<Held>,
    /// When it is asked for next, and how often it was without an answer.
    ask_at: Option<Instant>,
    tries: u32,
    refused: bool,
}

/// What the router forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    port: u16,
    /// None as long as NAT-PMP has not told it.
    address: Option<IpAddr>,
    until: Instant,
}

impl Client {
    /// Knows a router and wants nothing of it. `nonces` are random, one for each port (RFC 6887 11.2).
    pub(crate) fn new(server: IpAddr, own: IpAddr, nonces: [[u8; 12]; 2]) -> Self {
        let [udp, wss] = nonces;
        let ports = [(Transport::Udp, udp), (Transport::Wss, wss)].map(|(transport, nonce)| Port::new(transport, nonce));
        let server = SocketAddr::new(server, codec::PORT);
        Self { server, own, dialect: Dialect::Pcp, epoch: None, address: None, ports, pause: FIRST_PAUSE }
    }

    /// These ports are wanted from now on. The questions that give the others back are to be sent now.
    pub(crate) fn want(&mut self, now: Instant, wanted: Wanted) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for (index, internal) in [wanted.udp, wanted.tcp].into_iter().enumerate() {
            if self.ports[index].internal != internal {
                out.extend(self.give_back(index));
                let port = &mut self.ports[index];
                (port.internal, port.held, port.tries, port.refused) = (internal, None, 0, false);
                port.ask_at = internal.map(|_| now);
            }
        }
        out
    }

    /// When there is something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.ports.iter().flat_map(|port| [port.ask_at, port.held.map(|held| held.until)]).flatten().min()
    }

    /// Does what is due; the questions are to be sent now.
    pub(crate) fn alarm(&mut self, now: Instant) -> Vec<Vec<u8>> {
        for port in &mut self.ports {
            if port.held.is_some_and(|held| held.until <= now) {
                (port.held, port.tries, port.ask_at) = (None, 0, Some(now));
            }
        }
        if self.is_silent(now) {
            self.change_dialect(now);
        }
        let mut out = Vec::new();
        for index in 0..self.ports.len() {
            if self.ports[index].ask_at.is_some_and(|at| at <= now) {
                out.extend(self.ask(now, index));
            }
        }
        out
    }

    /// A datagram came.
    pub(crate) fn answer(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        if (from.ip(), from.port()) != (self.server.ip(), self.server.port()) {
            return;
        }
        let Some(Answer { epoch_s, said }) = codec::parse(bytes) else { return };
        match (self.dialect, said) {
            (Dialect::Pcp, Said::OtherVersion) => self.change_dialect(now),
            (Dialect::Pcp, Said::Mapped { nonce, transport, internal, external, address, lifetime_s }) => {
                let Some(index) = self.find(|port| port.nonce == nonce && port.transport == transport && port.internal == Some(internal))
                else {
                    return;
                };
                self.clock(now, epoch_s);
                self.granted(now, index, external, Some(address), lifetime_s);
            }
            (Dialect::Pcp, Said::Refused { nonce: Some(nonce), lifetime_s, .. }) => {
                let Some(index) = self.find(|port| port.nonce == nonce && port.internal.is_some()) else { return };
                self.refused(now, index, Duration::from_secs(lifetime_s.into()));
            }
            (Dialect::NatPmp, Said::MappedPort { transport, internal, external, lifetime_s }) => {
                let Some(index) = self.find(|port| port.transport == transport && port.internal == Some(internal)) else { return };
                self.clock(now, epoch_s);
                self.granted(now, index, external, self.address, lifetime_s);
            }
            (Dialect::NatPmp, Said::Address(address)) => {
                self.clock(now, epoch_s);
                self.address = Some(IpAddr::V4(address));
                for held in self.ports.iter_mut().filter_map(|port| port.held.as_mut()) {
                    held.address = self.address;
                }
            }
            (Dialect::NatPmp, Said::Refused { transport: Some(transport), .. }) => {
                let Some(index) = self.find(|port| port.transport == transport && port.internal.is_some()) else { return };
                self.refused(now, index, Duration::ZERO);
            }
            // it speaks neither
            (Dialect::NatPmp, Said::OtherVersion) => self.unreachable(now),
            _ => {}
        }
    }

    /// Perhaps the router is another one, or has started anew: what is had is asked for again, and what was refused.
    pub(crate) fn doubt(&mut self, now: Instant) {
        for port in self.ports.iter_mut().filter(|port| port.held.is_some() || port.refused) {
            (port.tries, port.ask_at) = (0, Some(now));
        }
        self.pause = FIRST_PAUSE;
    }

    /// Nobody listens there: left alone for a while.
    pub(crate) fn unreachable(&mut self, now: Instant) {
        if self.ports.iter().all(|port| port.held.is_none()) {
            self.rest(now);
        }
    }

    /// All that the router forwards to us and that is known in full.
    pub(crate) fn mappings(&self) -> Vec<PortMapping> {
        let protocol = match self.dialect {
            Dialect::Pcp => MappingProtocol::Pcp,
            Dialect::NatPmp => MappingProtocol::NatPmp,
        };
        let known = |port: &Port| {
            let held = port.held?;
            let external = SocketAddr::new(held.address?, held.port);
            Some(PortMapping { protocol, transport: port.transport, external, until: held.until })
        };
        self.ports.iter().filter_map(known).collect()
    }

    /// A port is wanted, none is had, and a question was not answered or answered with no: another way may be tried.
    pub(crate) fn is_stuck(&self) -> bool {
        let wanted = || self.ports.iter().filter(|port| port.internal.is_some());
        wanted().all(|port| port.held.is_none()) && wanted().any(|port| port.tries > 1 || port.refused)
    }

    /// Gives all ports back; the questions are to be sent once, nobody waits for the answers.
    pub(crate) fn give_all_back(&mut self) -> Vec<Vec<u8>> {
        (0..self.ports.len()).filter_map(|index| self.give_back(index)).collect()
    }

    fn find(&self, is_it: impl Fn(&Port) -> bool) -> Option<usize> {
        self.ports.iter().position(is_it)
    }

    fn ask(&mut self, now: Instant, index: usize) -> Vec<Vec<u8>> {
        let (own, dialect, known) = (self.own, self.dialect, self.address);
        let port = &mut self.ports[index];
        let Some(internal) = port.internal else {
            port.ask_at = None;
            return Vec::new();
        };
        if port.held.is_some() && port.tries >= RENEWAL_TRIES {
            port.ask_at = None; // its end asks again
            return Vec::new();
        }
        port.ask_at = Some(now + FIRST_WAIT * 2_u32.pow(port.tries.min(RENEWAL_TRIES)));
        port.tries += 1;
        port.refused = false;
        let (external, address) = port.held.map_or((internal, None), |held| (held.port, held.address));
        let ask = Ask { transport: port.transport, internal, external, lifetime_s: LIFETIME_S };
        match dialect {
            Dialect::Pcp => vec![codec::pcp_map(own, port.nonce, ask, address)],
            // the address may be another one by now
            Dialect::NatPmp if known.is_none() || port.held.is_some() => vec![codec::nat_pmp_address(), codec::nat_pmp_map(ask)],
            Dialect::NatPmp => vec![codec::nat_pmp_map(ask)],
        }
    }

    fn granted(&mut self, now: Instant, index: usize, external: u16, address: Option<IpAddr>, lifetime_s: u32) {
        if lifetime_s == 0 {
            return; // a late answer to giving it back
        }
        if external == 0 {
            return self.refused(now, index, Duration::ZERO);
        }
        let life = Duration::from_secs(lifetime_s.min(LONGEST_LIFETIME_S).into());
        let port = &mut self.ports[index];
        port.held = Some(Held { port: external, address, until: now + life });
        if address.is_some() {
            port.ask_at = Some(now + (life / 2).max(SHORTEST_RENEWAL));
            (port.tries, port.refused) = (0, false);
        } // else what was asked is only half answered: it is asked again soon
        self.pause = FIRST_PAUSE;
    }

    /// The router will not, for so long as it says.
    fn refused(&mut self, now: Instant, index: usize, pause: Duration) {
        let pause = pause.clamp(self.pause, LONGEST_PAUSE);
        let port = &mut self.ports[index];
        (port.held, port.tries, port.refused) = (None, 0, true);
        port.ask_at = Some(now + pause);
    }

    /// The router's clock is not where it should be: it has lost its memory, and all our ports with it (RFC 6887 8.5, RFC 6886 3.6).
    fn clock(&mut self, now: Instant, epoch_s: u32) {
        let lost = self.epoch.is_some_and(|(then, before_s)| {
            let (ours, theirs) = (now.since(then).as_secs(), u64::from(epoch_s.saturating_sub(before_s)));
            let is_back = epoch_s.saturating_add(1) < before_s;
            match self.dialect {
                Dialect::Pcp => is_back || theirs + EPOCH_SLACK_S < ours - ours / 16 || ours + EPOCH_SLACK_S < theirs - theirs / 16,
                Dialect::NatPmp => is_back || theirs + EPOCH_SLACK_S < ours - ours / 8,
            }
        });
        self.epoch = Some((now, epoch_s));
        if lost {
            for port in self.ports.iter_mut().filter(|port| port.held.is_some()) {
                (port.held, port.tries, port.ask_at) = (None, 0, Some(now));
            }
        }
    }

    /// Nothing was ever heard in this protocol, and all its questions are out.
    fn is_silent(&self, now: Instant) -> bool {
        let asking = || self.ports.iter().filter(|port| port.internal.is_some() && !port.refused);
        let due = asking().any(|port| port.ask_at.is_some_and(|at| at <= now));
        due && asking().all(|port| port.held.is_none() && port.tries >= TRIES)
    }

    /// From PCP to NAT-PMP, and from there to a pause and PCP again.
    fn change_dialect(&mut self, now: Instant) {
        if self.dialect == Dialect::NatPmp || self.own.is_ipv6() {
            self.rest(now);
            return;
        }
        (self.dialect, self.epoch, self.address) = (Dialect::NatPmp, None, None);
        for port in self.ports.iter_mut().filter(|port| port.internal.is_some()) {
            (port.held, port.tries, port.ask_at) = (None, 0, Some(now));
        }
    }

    fn rest(&mut self, now: Instant) {
        (self.dialect, self.epoch, self.address) = (Dialect::Pcp, None, None);
        for port in self.ports.iter_mut().filter(|port| port.internal.is_some()) {
            (port.held, port.tries, port.refused, port.ask_at) = (None, 0, true, Some(now + self.pause));
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// The question that gives a port back, when the router forwards it or may do so.
    fn give_back(&mut self, index: usize) -> Option<Vec<u8>> {
        let port = &mut self.ports[index];
        let asked = port.held.is_some() || port.tries > 0;
        let ask = Ask { transport: port.transport, internal: port.internal.filter(|_| asked)?, external: 0, lifetime_s: 0 };
        (port.held, port.ask_at) = (None, None);
        Some(match self.dialect {
            Dialect::Pcp => codec::pcp_map(self.own, port.nonce, ask, None),
            Dialect::NatPmp => codec::nat_pmp_map(ask),
        })
    }
}

impl Port {
    fn new(transport: Transport, nonce: [u8; 12]) -> Self {
        Self { transport, nonce, internal: None, held: None, ask_at: None, tries: 0, refused: false }
    }
}

#[cfg(test)]
#[path = "client/tests.rs"]
mod tests;
