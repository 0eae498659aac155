//! The relay's UDP sockets, on which BIND is answered (protocol 8.1).
//!
//! ```text
//!   each address ─┬─ first port,  the same number on all ── what ESTABLISHED tells
//!                 └─ the next one ───────────────────────── what BOUND tells
//! ```
//! Clients are told one number for all addresses, so all pairs share it. A datagram is answered by the socket to which it came.
use crate::{StartError, listen, udp};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{
    io,
    net::{TcpListener, UdpSocket},
};

/// Longer than any datagram that is answered, so that one that was cut off is none.
const DATAGRAM_BYTES: usize = 128;

/// Both ports on one or more addresses.
pub(super) struct Reflector {
    sockets: Vec<Answering>,
}

/// One socket, and which of the two ports it is.
struct Answering {
    socket: UdpSocket,
    port: u8,
}

/// One datagram, and where it came from.
pub(super) struct Arrived {
    pub(super) port: u8,
    pub(super) remote: SocketAddr,
    pub(super) bytes: [u8; DATAGRAM_BYTES],
    pub(super) len: usize,
}

impl Reflector {
    /// Binds what can be bound, and gives the two ports for the hub. `udp` names address and first port; else they are those of the
    /// listeners, and whatever is taken there is done without.
    ///
    /// # Errors
    /// A sentence, when the named address cannot be bound.
    pub(super) fn bind(udp: Option<SocketAddr>, listeners: &[TcpListener]) -> Result<(Self, [Option<u16>; 2]), StartError> {
        let mut reflector = Self { sockets: Vec::new() };
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
        let number = socket.local_addr().ok()?.port();
        self.sockets.push(Answering { socket, port });
        Some(number)
    }

    /// All sockets, in the order of their places.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.sockets.iter().map(|answering| &answering.socket)
    }

    /// The next datagram that is here.
    pub(super) fn receive(&self, place: usize) -> io::Result<Option<Arrived>> {
        let Some(answering) = self.sockets.get(place) else { return Ok(None) };
        let mut bytes = [0; DATAGRAM_BYTES];
        let arrived = udp::receive(&answering.socket, &mut bytes)?;
        Ok(arrived.map(|(len, remote)| Arrived { port: answering.port, remote, bytes, len }))
    }

    /// Answers from the socket at this place.
    pub(super) fn send(&self, place: usize, remote: SocketAddr, bytes: &[u8]) {
        if let Some(answering) = self.sockets.get(place)
            && let Err(why) = udp::send(&answering.socket, remote, bytes)
        {
            tracing::trace!(%remote, %why, "an answer was not sent");
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
}
