//! The relay's UDP sockets, on which BIND is answered (protocol 8.1) and datagrams are passed on (8.8).
//!
//! ```text
//!   each address ─┬─ first port,  the same number on all ── what ESTABLISHED tells; passes datagrams on
//!                 └─ the next one ───────────────────────── what BOUND tells
//! ```
//! Clients are told one number for all addresses, so all pairs share it. A datagram is answered by the socket to which it came. What is
//! passed on leaves by a first port, too, since a NAT lets in what comes from where its client has sent.
use super::passing::{Noted, Outlet, Sent, Stretch};
use crate::{
    StartError, listen,
    udp::{self, Arrival, RUN_BYTES, RUN_DATAGRAMS, RunBuffer},
};
use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};
use std::{
    io,
    net::{TcpListener, UdpSocket},
};

/// Longer than any datagram that is answered, so that one that was cut off is none.
const DATAGRAM_BYTES: usize = 128;

/// Both ports on one or more addresses.
pub(super) struct Reflector {
    sockets: Vec<Answering>,
    /// What came last, for as long as it takes to see to it.
    arrivals: RunBuffer,
    /// What came behind a run and is no part of it; it is the next one.
    behind: Option<Arrived>,
    noted: Noted,
}

impl Default for Reflector {
    fn default() -> Self {
        Self { sockets: Vec::new(), arrivals: RunBuffer::of_two(), behind: None, noted: Noted::default() }
    }
}

/// One socket, and which of the two ports it is.
struct Answering {
    outlet: Outlet,
    port: u8,
    is_ipv6: bool,
}

/// A run that came, and what of it is still to be seen to.
pub(super) struct Arrived {
    pub(super) remote: SocketAddr,
    /// How often the kernel was asked for it.
    pub(super) calls: usize,
    port: u8,
    stride: usize,
    rest: Range<usize>,
    is_over: bool,
}

impl Arrived {
    fn new(port: u8, start: usize, arrival: Arrival) -> Self {
        let Arrival { remote, len, stride } = arrival;
        Self { remote, calls: 1, port, stride, rest: start..start + len, is_over: false }
    }

    /// Takes what came behind it, if the kernel could have joined the two.
    fn join(&mut self, next: &Arrival) -> bool {
        let len = self.rest.len();
        let is_open = len > 0 && len.is_multiple_of(self.stride) && len + next.len <= RUN_BYTES;
        let fits =
            next.remote == self.remote && next.len > 0 && (next.stride == self.stride || next.len < self.stride && next.len == next.stride);
        if is_open && fits {
            self.rest.end += next.len;
            self.calls += 1;
        }
        is_open && fits
    }
}

/// What is to be done next about a run.
pub(super) enum Next {
    /// Datagrams to be passed on: this many, in this part of the run.
    Passing { receiver: u32, count: usize, part: Range<usize> },
    /// One for the hub.
    Asking { port: u8, bytes: [u8; DATAGRAM_BYTES], len: usize },
}

impl Reflector {
    /// Binds what can be bound, and gives the two ports for the hub. `udp` names address and first port; else they are those of the
    /// listeners, and whatever is taken there is done without.
    ///
    /// # Errors
    /// A sentence, when the named address cannot be bound.
    pub(super) fn bind(udp: Option<SocketAddr>, listeners: &[TcpListener]) -> Result<(Self, [Option<u16>; 2]), StartError> {
        let mut reflector = Self::default();
        let listening: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let Some(first) = udp.or(listening.first().copied()) else { return Ok((reflector, [None; 2])) };
        let addresses = udp.map_or(listening, |udp| vec![udp]);
        let mut ports = [None; 2];
        for ip in with_both_families(addresses.iter().map(SocketAddr::ip)) {
            let at = SocketAddr::new(ip, ports[0].unwrap_or(first.port()));
            match udp::bind(at) {
                Ok(socket) => ports[0] = ports[0].or(reflector.add(socket, 0)),
                Err(why) if udp == Some(at) => return Err(StartError::new(format!("UDP: {}", listen::sentence(at, &why)))),
                Err(why) => tracing::warn!(%at, %why, "clients are not told their UDP address here"),
            }
            let Some(next) = ports[0].unwrap_or(first.port()).checked_add(1) else { continue };
            let at = SocketAddr::new(ip, next);
            match udp::bind(at) {
                Ok(socket) => ports[1] = ports[1].or(reflector.add(socket, 1)),
                Err(why) => tracing::warn!(%at, %why, "clients are not told here whether their UDP address varies"),
            }
        }
        Ok((reflector, ports))
    }

    fn add(&mut self, socket: UdpSocket, port: u8) -> Option<u16> {
        let address = socket.local_addr().ok()?;
        udp::join_arrivals(&socket);
        udp::widen_sends(&socket);
        self.sockets.push(Answering { outlet: Outlet::new(socket), port, is_ipv6: address.is_ipv6() });
        Some(address.port())
    }

    /// All sockets, in the order of their places.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.sockets.iter().map(|answering| &answering.outlet.socket)
    }

    /// The next run that is here, with what came one by one behind it as if the kernel had joined it. It is gone when the next one is read.
    /// Without `more` only what was read already is given: before others get their turn there must be nothing left of that.
    pub(super) fn receive(&mut self, place: usize, more: bool) -> io::Result<Option<Arrived>> {
        let Some(answering) = self.sockets.get(place) else { return Ok(None) };
        let (socket, port) = (&answering.outlet.socket, answering.port);
        let mut run = match self.behind.take() {
            Some(run) => run,
            None if !more => return Ok(None),
            None => match self.arrivals.take(socket, 0)? {
                Some(arrival) => Arrived::new(port, 0, arrival),
                None => return Ok(None),
            },
        };
        while more && run.calls < RUN_DATAGRAMS && self.arrivals.has_room(run.rest.end) {
            // an error comes again
            let Ok(Some(next)) = self.arrivals.take(socket, run.rest.end) else { break };
            if !run.join(&next) {
                self.behind = Some(Arrived::new(port, run.rest.end, next));
                break;
            }
        }
        Ok(Some(run))
    }

    /// What comes next of a run; `None`: it is seen to. Only the first port passes anything on.
    pub(super) fn next(&self, run: &mut Arrived) -> Option<Next> {
        if run.is_over {
            return None;
        }
        let rest = self.arrivals.bytes().get(run.rest.clone()).unwrap_or_default();
        let Stretch { receiver, count, len } = Stretch::first(rest, run.stride);
        let (next, len) = if let Some(receiver) = receiver.filter(|_| run.port == 0) {
            (Next::Passing { receiver, count, part: run.rest.start..run.rest.start + len }, len)
        } else {
            let datagram = &rest[..rest.len().min(run.stride)];
            let (mut bytes, cut) = ([0; DATAGRAM_BYTES], datagram.len().min(DATAGRAM_BYTES));
            bytes[..cut].copy_from_slice(&datagram[..cut]);
            (Next::Asking { port: run.port, bytes, len: cut }, datagram.len())
        };
        run.rest.start += len;
        run.is_over = run.rest.is_empty();
        Some(next)
    }

    /// Passes a part of a run on; where no socket reaches, it is lost.
    pub(super) fn pass(&mut self, run: &Arrived, part: Range<usize>, to: SocketAddr) -> Sent {
        let bytes = self.arrivals.bytes().get(part).unwrap_or_default();
        match self.way_to(to).and_then(|place| self.sockets.get_mut(place)) {
            Some(answering) => answering.outlet.send(to, bytes, run.stride),
            None => Sent { calls: 0, lost: bytes.len().div_ceil(run.stride) },
        }
    }

    /// The place of the socket from which a client is reached.
    fn way_to(&self, client: SocketAddr) -> Option<usize> {
        let mut first_ports = self.first_ports(client.is_ipv6());
        let first = first_ports.next()?;
        if first_ports.next().is_none() {
            return Some(first);
        }
        Some(self.noted.of(client).unwrap_or(first))
    }

    /// The places of the first ports of a family.
    fn first_ports(&self, is_ipv6: bool) -> impl Iterator<Item = usize> {
        let sockets = self.sockets.iter().enumerate();
        sockets.filter(move |(_, answering)| answering.port == 0 && answering.is_ipv6 == is_ipv6).map(|(place, _)| place)
    }

    /// Answers from the socket at this place.
    pub(super) fn send(&mut self, place: usize, remote: SocketAddr, bytes: &[u8]) {
        let Some(answering) = self.sockets.get(place) else { return };
        if let Err(why) = udp::send(&answering.outlet.socket, remote, bytes) {
            tracing::trace!(%remote, %why, "an answer was not sent");
        }
        if answering.port == 0 && self.first_ports(remote.is_ipv6()).nth(1).is_some() {
            self.noted.add(remote, place);
        }
    }
}

/// Each address once; the unspecified IPv6 address stands for IPv4, too, as with listeners.
fn with_both_families(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for ip in addresses {
        let also = (ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED)).then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        for ip in [Some(ip), also].into_iter().flatten() {
            if !all.contains(&ip) {
                all.push(ip);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// Two neighbouring ports that are free for UDP and TCP; another test may take them, so there are several tries.
    fn listener() -> TcpListener {
        let free = |listener: &TcpListener| {
            let port = listener.local_addr().ok()?.port();
            [port, port.checked_add(1)?].into_iter().all(|port| udp::bind(loopback(port)).is_ok()).then_some(())
        };
        (0..50).filter_map(|_| TcpListener::bind(loopback(0)).ok()).find(|listener| free(listener).is_some()).expect("free ports")
    }

    // protocol 8.1
    #[test]
    fn by_default_the_ports_are_that_of_the_listener_and_the_next() {
        let listener = listener();
        let port = listener.local_addr().expect("bound").port();
        let (reflector, ports) = Reflector::bind(None, &[listener]).expect("free ports");
        assert_eq!(ports, [Some(port), Some(port + 1)]);
        let bound: Vec<_> = reflector.sockets().map(|socket| socket.local_addr().expect("bound")).collect();
        assert_eq!(bound, [loopback(port), loopback(port + 1)]);
    }

    #[test]
    fn a_port_that_is_taken_is_an_error_only_where_it_was_asked_for() {
        let listener = listener();
        let port = listener.local_addr().expect("bound").port();
        let (taken, next) = (udp::bind(loopback(port)).expect("free"), udp::bind(loopback(port + 1)).expect("free"));
        let why = Reflector::bind(Some(loopback(port)), &[]).map(|_| ()).expect_err("taken").to_string();
        assert!(why.starts_with(&format!("UDP: {}", loopback(port))) && why.contains("choose another port"), "{why}");
        let (_, ports) = Reflector::bind(None, std::slice::from_ref(&listener)).expect("the relay works without");
        assert_eq!(ports, [None; 2]);
        drop(taken);
        let (_, ports) = Reflector::bind(Some(loopback(port)), &[]).expect("a busy second port is done without");
        assert_eq!(ports, [Some(port), None]);
        drop(next);
    }

    #[test]
    fn any_port_is_followed_by_its_next_and_all_addresses_share_both() {
        let (_, ports) = Reflector::bind(Some(loopback(0)), &[]).expect("there are free ports");
        let first = ports[0].expect("bound");
        assert!(first != 0 && ports[1].is_none_or(|second| second == first + 1));
        let both = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
        assert_eq!(with_both_families(both.into_iter()), both[..3]);
    }

    // protocol 8.8
    #[test]
    fn of_several_first_ports_that_one_sends_which_the_client_asked() {
        let mut reflector = Reflector::default();
        for (port, socket) in [0, 1, 0].map(|port| (port, udp::bind(loopback(0)).expect("loopback"))) {
            reflector.add(socket, port).expect("bound");
        }
        let client = udp::bind(loopback(0)).expect("loopback");
        let at = client.local_addr().expect("bound");
        assert_eq!(reflector.way_to(at), Some(0), "the first of them, as long as nothing is known");
        for (asked, way) in [(1, 0), (2, 2), (1, 2), (0, 0)] {
            reflector.send(asked, at, b"bound");
            assert_eq!(reflector.way_to(at), Some(way), "{asked}");
        }
        assert_eq!(reflector.way_to(SocketAddr::from((Ipv6Addr::LOCALHOST, 9))), None);
        let run = Arrived::new(0, 0, Arrival { remote: at, len: 25, stride: 10 });
        assert_eq!(reflector.pass(&run, 0..25, SocketAddr::from((Ipv6Addr::LOCALHOST, 9))), Sent { calls: 0, lost: 3 });
    }

    // protocol 8.8
    #[test]
    fn what_came_by_one_family_goes_on_by_the_other() {
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let [Ok(relay_v6), Ok(client_v6)] = [(); 2].map(|()| udp::bind(v6)) else { return }; // a machine without IPv6
        let [relay_v4, client_v4] = [(); 2].map(|()| udp::bind(loopback(0)).expect("loopback"));
        let [from, to] = [&relay_v4, &client_v6].map(|socket| socket.local_addr().expect("bound"));
        let leaves_by = relay_v6.local_addr().expect("bound");
        let mut reflector = Reflector::default();
        for socket in [relay_v4, relay_v6] {
            reflector.add(socket, 0).expect("bound");
        }
        let sent = [&[0x10, 0, 0, 0, 0, 0, 0, 5][..], &[7; 92]].concat().repeat(3);
        udp::send_run(&client_v4, from, &sent[..250], 100).expect("Linux 4.18");
        let mut run = reflector.receive(0, true).expect("a socket").expect("one is here");
        while let Some(Next::Passing { part, .. }) = reflector.next(&mut run) {
            assert_eq!(reflector.pass(&run, part, to).lost, 0);
        }
        let (mut came, mut buffer) = (Vec::new(), [0; 200]);
        while let Some((len, remote)) = udp::receive(&client_v6, &mut buffer).expect("a socket") {
            assert_eq!(remote, leaves_by);
            came.push(buffer[..len].to_vec());
        }
        assert_eq!(came, [&sent[..100], &sent[100..200], &sent[200..250]]);
    }

    // protocol 8.1, 8.8
    #[test]
    fn the_second_port_passes_nothing_on_and_each_datagram_of_a_run_is_one_for_the_hub() {
        let mut reflector = Reflector::default();
        for port in [0, 1] {
            reflector.add(udp::bind(loopback(0)).expect("loopback"), port).expect("bound");
        }
        let client = udp::bind(loopback(0)).expect("loopback");
        let frame = [0x10, 0, 0, 0, 0, 0, 0, 5, 0, 0];
        let places: Vec<SocketAddr> = reflector.sockets().map(|socket| socket.local_addr().expect("bound")).collect();
        for to in places {
            udp::send_run(&client, to, &[frame; 3].concat(), 10).expect("Linux 4.18");
            udp::send(&client, to, &[]).expect("loopback");
        }
        let mut taken = |place| {
            let mut all = Vec::new();
            while let Some(mut run) = reflector.receive(place, true).expect("a socket") {
                while let Some(next) = reflector.next(&mut run) {
                    all.push(match next {
                        Next::Passing { receiver, count, part } => (receiver, count, part.len()),
                        Next::Asking { len, .. } => (0, 1, len),
                    });
                }
            }
            all
        };
        assert_eq!(taken(0), [(5, 3, 30), (0, 1, 0)]);
        assert_eq!(taken(1), [(0, 1, 10), (0, 1, 10), (0, 1, 10), (0, 1, 0)]);
    }

    #[test]
    fn what_comes_one_by_one_is_joined_as_the_kernel_does_and_nothing_is_left_over() {
        let mut reflector = Reflector::default();
        reflector.add(udp::bind(loopback(0)).expect("loopback"), 0).expect("bound");
        let to = reflector.sockets().next().and_then(|socket| socket.local_addr().ok()).expect("bound");
        let [a, b] = [(); 2].map(|()| udp::bind(loopback(0)).expect("loopback"));
        // a shorter one ends a run, a longer one begins one, and so does another sender's
        for (from, len, number) in [(&a, 100, 1), (&a, 100, 2), (&a, 60, 3), (&a, 60, 4), (&a, 61, 5), (&b, 61, 6), (&b, 0, 7), (&b, 61, 8)]
        {
            udp::send(from, to, &vec![number; len]).expect("loopback");
        }
        let mut runs = Vec::new();
        while let Some(run) = reflector.receive(0, runs.len() < 2).expect("a socket") {
            let bytes = &reflector.arrivals.bytes()[run.rest.clone()];
            runs.push((run.stride, run.rest.len(), bytes.first().copied(), bytes.last().copied()));
        }
        let expected = [(100, 260, Some(1), Some(3)), (60, 60, Some(4), Some(4)), (61, 61, Some(5), Some(5))];
        assert_eq!(runs, expected, "without more there is only what was read");
        assert!(reflector.behind.is_none());
        let mut rest = Vec::new();
        while let Some(run) = reflector.receive(0, true).expect("a socket") {
            rest.push((run.stride, run.rest.len()));
        }
        assert_eq!(rest, [(61, 61), (1, 0), (61, 61)]);
    }

    #[test]
    fn a_joined_run_is_no_longer_than_the_kernel_takes() {
        let mut reflector = Reflector::default();
        reflector.add(udp::bind(loopback(0)).expect("loopback"), 0).expect("bound");
        let to = reflector.sockets().next().and_then(|socket| socket.local_addr().ok()).expect("bound");
        let from = udp::bind(loopback(0)).expect("loopback");
        for len in [30_000, 30_000, 30_000].into_iter().chain([20; 70]) {
            udp::send(&from, to, &vec![7; len]).expect("loopback");
        }
        let mut runs = Vec::new();
        while let Some(run) = reflector.receive(0, true).expect("a socket") {
            runs.push(run.rest.len());
        }
        assert_eq!(runs, [60_000, 30_000, 64 * 20, 6 * 20], "behind 90,000 bytes there is no room for a run");
    }
}
