//! Asks the router in front for the ports of a peer, keeps them, and tells the control room what stands (protocol 6.3).
//!
//! ```text
//!   control room ── ports, addresses changed, the end ──▶ orders, bell ─▶ thread: routing table ─▶ a line a family: socket, client
//!        ▲                                                                  │  stuck? ─▶ another thread: UPnP-IGD, which blocks
//!        └── Command::PortMapped: all that is forwarded now ◀───────────────┘
//! ```
mod client;
mod codec;
mod gateway;
pub mod probe;
mod upnp;

use crate::{clock, entropy, peer::Command};
use client::{Client, Wanted};
use core::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use gateway::Gateway;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use shadowmesh_core::{
    event::{MappingProtocol, PortMapping},
    time::Instant,
    wire::Transport,
};
use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};
use upnp::Device;

/// The routing table is read again so often; a change that comes with another address is told. A route comes some time after its
/// address: then the table is read again after a second, two, four …
const LOOK_INTERVAL: Duration = Duration::from_mins(1);
const FIRST_LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Giving ports back takes one datagram each; a router that is asked by `UPnP` may be slow, and the peer does not wait for it longer.
const GIVE_BACK_WITHIN: Duration = Duration::from_millis(500);
/// What `UPnP` is asked for, renewed at half of it.
const UPNP_LIFETIME: Duration = Duration::from_hours(1);
/// A router without `UPnP` is left alone so long, each time twice as long.
const UPNP_FIRST_PAUSE: Duration = Duration::from_mins(1);
const UPNP_LONGEST_PAUSE: Duration = Duration::from_mins(30);
/// How long the control room may be busy before it is told later.
const TELL_WITHIN: Duration = Duration::from_millis(100);

/// Where the peer listens: what is bound to one address cannot be reached at another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listens {
    pub(crate) udp: IpAddr,
    pub(crate) tcp: IpAddr,
}

/// Ports of the peer's sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    /// IPv4, IPv6.
    pub(crate) udp: (Option<u16>, Option<u16>),
    pub(crate) tcp: Option<u16>,
}

/// The control room's end. When it is dropped, the ports are given back.
pub(crate) struct PortMapper {
    shared: Arc<Shared>,
    ended: flume::Receiver<()>,
}

/// What both ends see.
struct Shared {
    orders: Mutex<Orders>,
    bell: OwnedFd,
}

#[derive(Default)]
struct Orders {
    ports: Ports,
    look: bool,
    stop: bool,
    upnp: Option<UpnpOutcome>,
}

impl PortMapper {
    /// Starts the thread; `device` is the overlay's own interface, which is no way to a router.
    ///
    /// # Errors
    /// There can be no more threads or descriptors.
    pub(crate) fn start(listens: Listens, device: Option<String>, commands: flume::WeakSender<Command>) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { orders: Mutex::default(), bell });
        let (over, ended) = flume::bounded(1);
        let mut mapper = Mapper {
            shared: Arc::clone(&shared),
            listens,
            device,
            commands,
            lines: [None, None],
            look_at: clock::now(),
            look_pause: FIRST_LOOK_PAUSE,
            upnp: Upnp::default(),
            told: Vec::new(),
            is_late: false,
        };
        let work = move || {
            mapper.run();
            drop(over);
        };
        thread::Builder::new().name("mesh-mapping".to_owned()).spawn(work)?;
        Ok(Self { shared, ended })
    }

    /// These are the peer's ports from now on.
    pub(crate) fn want(&self, ports: Ports) {
        self.order(|orders| orders.ports = ports);
    }

    /// Addresses have changed: perhaps there is another router.
    pub(crate) fn look(&self) {
        self.order(|orders| orders.look = true);
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.shared.lock());
        self.shared.ring();
    }
}

impl Drop for PortMapper {
    fn drop(&mut self) {
        self.order(|orders| orders.stop = true);
        // Nobody is told if that takes too long: the router forgets by itself.
        let _ = self.ended.recv_timeout(GIVE_BACK_WITHIN);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // It fails only when it has been rung so often that it is raised in any case.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn answer(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
    }
}

/// The thread.
struct Mapper {
    shared: Arc<Shared>,
    listens: Listens,
    device: Option<String>,
    commands: flume::WeakSender<Command>,
    /// IPv4, IPv6.
    lines: [Option<Line>; 2],
    look_at: Instant,
    look_pause: Duration,
    upnp: Upnp,
    told: Vec<PortMapping>,
    /// The control room had no time to listen.
    is_late: bool,
}

/// One router.
struct Line {
    gateway: Gateway,
    socket: UdpSocket,
    client: Client,
}

/// What is had by `UPnP`, at the router of IPv4.
#[derive(Default)]
struct Upnp {
    device: Option<Device>,
    held: Vec<(PortMapping, u16)>,
    /// What it was asked for last.
    wanted: Wanted,
    is_busy: bool,
    next_at: Instant,
    pause: Duration,
}

type UpnpOutcome = Result<(Device, Vec<(PortMapping, u16)>), String>;

impl Mapper {
    fn run(&mut self) {
        loop {
            let now = clock::now();
            let (ports, stop, outcome) = self.orders(now);
            if stop {
                self.give_back();
                return;
            }
            if self.look_at <= now {
                self.look_at = now + self.look_pause;
                self.look_pause = (self.look_pause * 2).min(LOOK_INTERVAL);
                self.look();
            }
            for index in 0..self.lines.len() {
                let wanted = self.wanted(index, ports);
                if let Some(line) = &mut self.lines[index] {
                    line.turn(now, wanted);
                }
            }
            if let Some(outcome) = outcome {
                self.upnp.done(now, outcome, self.lines[0].as_ref().map(|line| line.gateway));
            }
            self.turn_upnp(now, self.wanted(0, ports));
            self.tell();
            if let Err(why) = self.wait(now) {
                tracing::warn!(%why, "ports of the router are not looked after any more");
                return;
            }
        }
    }

    fn orders(&mut self, now: Instant) -> (Ports, bool, Option<UpnpOutcome>) {
        let mut orders = self.shared.lock();
        if core::mem::take(&mut orders.look) {
            (self.look_at, self.look_pause) = (now, FIRST_LOOK_PAUSE);
            // the router may be another one with the same address
            for line in self.lines.iter_mut().flatten() {
                line.client.doubt(now);
            }
            self.upnp.next_at = now;
        }
        (orders.ports, orders.stop, orders.upnp.take())
    }

    /// Looks for the routers. One that is another, or towards which we have another address, knows nothing of us.
    fn look(&mut self) {
        for (index, line) in self.lines.iter_mut().enumerate() {
            let found = gateway::find(index == 1, self.device.as_deref());
            if line.as_ref().map(|line| line.gateway) == found {
                continue;
            }
            tracing::debug!(router = ?found.map(|found| found.address), "the way out is another");
            *line = found.and_then(Line::new);
            if index == 0 {
                self.upnp = Upnp { is_busy: self.upnp.is_busy, ..Upnp::default() };
            }
        }
    }

    /// What is wanted of this family's router: only what is bound to our address there.
    fn wanted(&self, index: usize, ports: Ports) -> Wanted {
        let Some(line) = &self.lines[index] else { return Wanted::default() };
        let own = line.gateway.own;
        let serves = |listen: IpAddr| match listen {
            IpAddr::V4(ip) => ip.is_unspecified() || own == listen,
            IpAddr::V6(ip) => own == listen || (ip.is_unspecified() && own.is_ipv6()),
        };
        let udp = if index == 0 { ports.udp.0 } else { ports.udp.1 };
        Wanted { udp: udp.filter(|_| serves(self.listens.udp)), tcp: ports.tcp.filter(|_| serves(self.listens.tcp)) }
    }

    /// `UPnP` comes in where the other protocols do not get on, and goes when they do.
    fn turn_upnp(&mut self, now: Instant, wanted: Wanted) {
        let Some(line) = &self.lines[0] else { return };
        if self.upnp.is_busy {
            return;
        }
        if !line.client.mappings().is_empty() || wanted == Wanted::default() {
            self.upnp.give_back_later();
            return;
        }
        let is_needed = line.client.is_stuck() || !self.upnp.held.is_empty();
        if self.upnp.device.is_some() && self.upnp.wanted != wanted {
            self.upnp.next_at = now;
        }
        let (IpAddr::V4(own), IpAddr::V4(router)) = (line.gateway.own, line.gateway.address.ip()) else { return };
        if !is_needed || self.upnp.next_at > now {
            return;
        }
        let (shared, device, had) = (Arc::clone(&self.shared), self.upnp.device.clone(), self.upnp.held.clone());
        let work = move || {
            let outcome = map_by_upnp(own, router, device, &had, wanted);
            shared.lock().upnp = Some(outcome);
            shared.ring();
        };
        self.upnp.wanted = wanted;
        self.upnp.is_busy = thread::Builder::new().name("mesh-upnp".to_owned()).spawn(work).is_ok();
        if !self.upnp.is_busy {
            self.upnp.rest(now);
        }
    }

    /// Tells the control room when something has changed.
    fn tell(&mut self) {
        let mut all: Vec<PortMapping> = self.lines.iter().flatten().flat_map(|line| line.client.mappings()).collect();
        all.extend(self.upnp.held.iter().map(|(mapping, _)| *mapping));
        self.is_late = false;
        if all == self.told {
            return;
        }
        let Some(commands) = self.commands.upgrade() else { return };
        if commands.send_timeout(Command::PortMapped(all.clone()), TELL_WITHIN).is_err() {
            self.is_late = true;
            return;
        }
        let before = core::mem::replace(&mut self.told, all);
        for new in self.told.iter().filter(|new| !is_among(&before, new)) {
            let transport = transport_name(new.transport);
            tracing::info!(external = %new.external, transport, by = new.protocol.name(), "the router forwards a port");
        }
        for old in before.iter().filter(|old| !is_among(&self.told, old)) {
            tracing::info!(external = %old.external, transport = transport_name(old.transport), "the router forwards a port no more");
        }
    }

    /// Sleeps until there is an order, an answer, or something to do.
    fn wait(&mut self, now: Instant) -> io::Result<()> {
        let lines = self.lines.iter().flatten().filter_map(|line| line.client.deadline());
        let upnp = self.upnp.deadline(self.lines[0].as_ref());
        let late = self.is_late.then_some(now + TELL_WITHIN);
        let until = lines.chain(upnp).chain(late).fold(self.look_at, Instant::min);
        let timeout = Timespec::try_from(until.since(now) + Duration::from_millis(1)).map_err(io::Error::other)?;
        let mut fds = vec![PollFd::new(&self.shared.bell, PollFlags::IN)];
        fds.extend(self.lines.iter().flatten().map(|line| PollFd::new(&line.socket, PollFlags::IN)));
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
        if fds[0].revents().contains(PollFlags::IN) {
            self.shared.answer();
        }
        Ok(())
    }

    /// Gives all ports back, without waiting for an answer.
    fn give_back(&mut self) {
        for line in self.lines.iter_mut().flatten() {
            let questions = line.client.give_all_back();
            line.send(questions);
        }
        self.upnp.give_back();
    }
}

impl Line {
    fn new(gateway: Gateway) -> Option<Self> {
        let socket = gateway::socket(&gateway).map_err(|why| tracing::debug!(%why, "no socket towards the router")).ok()?;
        let fresh = entropy::fresh();
        let nonce = |at: usize| core::array::from_fn(|place| fresh[at + place]);
        let client = Client::new(gateway.address.ip(), gateway.own, [nonce(0), nonce(16)]);
        Some(Self { gateway, socket, client })
    }

    /// Takes what came and does what is due.
    fn turn(&mut self, now: Instant, wanted: Wanted) {
        let mut buffer = [0; codec::LONGEST + 1];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(len) => self.client.answer(now, self.gateway.address, &buffer[..len]),
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) if why.kind() == ErrorKind::ConnectionRefused => self.client.unreachable(now),
                Err(_) => break,
            }
        }
        let questions = self.client.want(now, wanted);
        self.send(questions);
        let questions = self.client.alarm(now);
        self.send(questions);
    }

    fn send(&self, questions: Vec<Vec<u8>>) {
        for question in questions {
            // What is not sent now is sent again.
            let _ = self.socket.send(&question);
        }
    }
}

impl Upnp {
    fn deadline(&self, line: Option<&Line>) -> Option<Instant> {
        let is_needed = !self.held.is_empty() || line.is_some_and(|line| line.client.is_stuck());
        (is_needed && !self.is_busy).then_some(self.next_at)
    }

    fn done(&mut self, now: Instant, outcome: UpnpOutcome, gateway: Option<Gateway>) {
        self.is_busy = false;
        match outcome {
            Ok((device, _)) if !gateway.is_some_and(|gateway| device.is_at(gateway.own, gateway.address.ip())) => {} // of before a change
            Ok((device, held)) => {
                (self.device, self.held) = (Some(device), held);
                (self.next_at, self.pause) = (now + UPNP_LIFETIME / 2, Duration::ZERO);
            }
            Err(why) => {
                tracing::debug!(why, "no port by UPnP");
                self.rest(now);
            }
        }
    }

    fn rest(&mut self, now: Instant) {
        self.pause = (self.pause * 2).clamp(UPNP_FIRST_PAUSE, UPNP_LONGEST_PAUSE);
        self.next_at = now + self.pause;
        self.held.retain(|(mapping, _)| mapping.until > now);
        if self.held.is_empty() {
            self.device = None;
        }
    }

    fn give_back(&mut self) {
        if let Some(device) = &self.device {
            for (mapping, _) in self.held.drain(..) {
                device.give_back(mapping.transport, mapping.external.port());
            }
        }
    }

    /// The same, on a thread of its own.
    fn give_back_later(&mut self) {
        if !self.held.is_empty() {
            let mut past = core::mem::take(self);
            // Without a thread the router forgets by itself.
            let _ = thread::Builder::new().name("mesh-upnp".to_owned()).spawn(move || past.give_back());
        }
    }
}

/// Asks for, or renews, what is wanted.
fn map_by_upnp(own: Ipv4Addr, router: Ipv4Addr, known: Option<Device>, had: &[(PortMapping, u16)], wanted: Wanted) -> UpnpOutcome {
    let (device, address) = match known {
        Some(device) => device.external().map(|address| (device, address)),
        None => Device::find(own, router),
    }?;
    let lifetime_s = u32::try_from(UPNP_LIFETIME.as_secs()).unwrap_or(u32::MAX);
    let mut held = Vec::new();
    let mut refused = None;
    for (transport, port) in [(Transport::Udp, wanted.udp), (Transport::Wss, wanted.tcp)] {
        let old = had.iter().find(|(mapping, _)| mapping.transport == transport);
        if let Some((old, internal)) = old
            && port != Some(*internal)
        {
            device.give_back(transport, old.external.port());
        }
        let Some(internal) = port else { continue };
        let had = old.filter(|(_, before)| *before == internal).map(|(mapping, _)| mapping.external.port());
        match device.map(transport, internal, had, lifetime_s) {
            Ok(external) => {
                let (external, until) = (SocketAddr::new(address, external), clock::now() + UPNP_LIFETIME);
                held.push((PortMapping { protocol: MappingProtocol::Upnp, transport, external, until }, internal));
            }
            Err(why) => refused = Some(why),
        }
    }
    match refused {
        Some(why) if held.is_empty() => Err(why),
        _ => Ok((device, held)),
    }
}

fn is_among(all: &[PortMapping], one: &PortMapping) -> bool {
    all.iter().any(|other| (other.external, other.transport) == (one.external, one.transport))
}

fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Wss => "tcp",
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
