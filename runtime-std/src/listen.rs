//! Listening, before there is any connection: addresses bound, errors in sentences, and how many may be in their handshake (protocol 9).
use crate::StartError;
use core::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use shadowmesh_core::{config::Limits, hub::Refusal};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    net::TcpListener,
    rc::Rc,
};

/// Connections that the kernel holds for us.
const BACKLOG: i32 = 1024;

/// Pause after an error of `accept` that is not one connection's fault (no more file descriptors).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bits of an IPv6 address that count as one source (protocol 9).
const SOURCE_PREFIX_V6: u32 = 56;

/// How many at once, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections in TLS or the upgrade, over all sources.
    pub handshakes: usize,
    /// The same for one source: an IPv4 address or an IPv6 /56.
    pub handshakes_per_source: usize,
    /// Time for TLS and the upgrade together.
    pub time: Duration,
}

impl Bounds {
    /// Those of a relay (protocol 9.4).
    pub(crate) fn of(limits: &Limits) -> Self {
        Self { handshakes: limits.preauth_total, handshakes_per_source: limits.preauth_per_source, time: limits.preauth_time }
    }
}

/// Binds a listener that does not block. An IPv6 address takes IPv4 connections too unless `v6_only`.
///
/// # Errors
/// A sentence that names the address and what to do.
pub fn bind(address: SocketAddr, v6_only: bool) -> Result<TcpListener, StartError> {
    try_bind(address, v6_only).map_err(|why| StartError::new(sentence(address, &why)))
}

/// Binds a listener for a peer: an unspecified address means both families where the machine has both.
///
/// # Errors
/// A sentence that names the address and what to do.
pub fn bind_any(address: SocketAddr) -> Result<TcpListener, StartError> {
    if address.ip() == IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED) {
        let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port());
        if let Ok(listener) = try_bind(both, false) {
            return Ok(listener);
        }
    }
    bind(address, false)
}

/// Binds all addresses. An unspecified IPv6 address takes IPv4 too, unless the same port is asked for in IPv4.
pub(crate) fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    if addresses.is_empty() {
        return Err(StartError::new("the relay has no address to listen on: give --listen ADDRESS:PORT"));
    }
    let in_v4 = |port: u16| addresses.iter().any(|a| a.is_ipv4() && a.port() == port);
    addresses.iter().map(|a| bind(*a, in_v4(a.port()))).collect()
}

fn try_bind(address: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from(socket))
}

/// What to do about an address that cannot be bound.
pub(crate) fn sentence(address: SocketAddr, why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::AddrInUse => format!("{address} is in use by another program: choose another port, or port 0 for any"),
        io::ErrorKind::PermissionDenied => {
            format!("no permission to listen on {address}: ports below 1024 need root or CAP_NET_BIND_SERVICE")
        }
        io::ErrorKind::AddrNotAvailable => format!("{address} is no address of this machine: listen on one that is, or on 0.0.0.0 or [::]"),
        _ => format!("cannot listen on {address}: {why}"),
    }
}

/// Errors of `accept` that are those of the connection it would have given (accept(2)).
pub fn is_one_connections_fault(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::Interrupted
            | Kind::TimedOut
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::PermissionDenied
    )
}

/// Counts connections in their handshake.
#[derive(Clone)]
pub struct Slots {
    bounds: Rc<Cell<Bounds>>,
    taken: Rc<RefCell<Taken>>,
}

/// Places taken: in all, and by source.
#[derive(Default)]
struct Taken {
    all: usize,
    sources: BTreeMap<IpAddr, usize>,
}

/// One connection's place; dropping it gives the place back.
pub struct Slot {
    slots: Slots,
    source: IpAddr,
}

impl Slots {
    /// All places free.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds: Rc::new(Cell::new(bounds)), taken: Rc::default() }
    }

    /// Other bounds from now on; places that are taken stay taken.
    pub fn configure(&self, bounds: Bounds) {
        self.bounds.set(bounds);
    }

    /// Time for TLS and the upgrade together.
    pub fn time(&self) -> Duration {
        self.bounds.get().time
    }

    /// How many places there are.
    pub fn most(&self) -> usize {
        self.bounds.get().handshakes
    }

    /// A place for a connection from this address.
    ///
    /// # Errors
    /// All, or all of its source, are taken.
    pub fn take(&self, remote: IpAddr) -> Result<Slot, Refusal> {
        let source = source_of(remote);
        let mut taken = self.taken.borrow_mut();
        let of_source = taken.sources.get(&source).copied().unwrap_or_default();
        if of_source >= self.bounds.get().handshakes_per_source {
            return Err(Refusal::Because("too many connections of this source in their handshake"));
        }
        if taken.all >= self.bounds.get().handshakes {
            return Err(Refusal::Full);
        }
        taken.all += 1;
        taken.sources.insert(source, of_source + 1);
        Ok(Slot { slots: self.clone(), source })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.borrow_mut();
        if let Some(count) = taken.sources.get_mut(&self.source) {
            *count -= 1;
            let is_last = *count == 0;
            if is_last {
                taken.sources.remove(&self.source);
            }
            taken.all -= 1;
        }
    }
}

/// What counts as one source: an IPv4 address, or the /56 of an IPv6 one (protocol 9).
fn source_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> (128 - SOURCE_PREFIX_V6) << (128 - SOURCE_PREFIX_V6)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { handshakes: 3, handshakes_per_source: 2, time: Duration::from_secs(5) };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn slots_are_bounded_by_source_and_in_all_and_come_back() {
        let slots = Slots::new(BOUNDS);
        let first = slots.take(ip("192.0.2.1")).expect("free");
        let _second = slots.take(ip("192.0.2.1")).expect("free");
        assert!(matches!(slots.take(ip("192.0.2.1")), Err(Refusal::Because(_))), "two of one source");
        let _third = slots.take(ip("2001:db8:0:ff00::1")).expect("free");
        assert!(matches!(slots.take(ip("192.0.2.9")), Err(Refusal::Full)), "three in all");
        drop(first);
        let _fourth = slots.take(ip("2001:db8:0:ffff::2")).expect("free again");
        assert!(matches!(slots.take(ip("2001:db8:0:ff12::3")), Err(Refusal::Because(_))), "the same /56");
        slots.clone().configure(Bounds { handshakes: 4, handshakes_per_source: 3, time: Duration::from_secs(1) });
        assert_eq!((slots.time(), slots.most()), (Duration::from_secs(1), 4), "other bounds hold for all who have a hand on it");
        let _fifth = slots.take(ip("2001:db8:0:ff12::3")).expect("room for one more");
    }

    #[test]
    fn a_port_in_use_is_a_sentence_with_a_way_out() {
        let first = bind("127.0.0.1:0".parse().expect("address"), false).expect("bind");
        let address = first.local_addr().expect("address");
        let why = bind(address, false).map(drop).expect_err("in use").to_string();
        assert!(why.contains(&address.to_string()) && why.contains("in use"), "{why}");
        let why = bind("192.0.2.1:1".parse().expect("address"), false).map(drop).expect_err("not ours").to_string();
        assert!(why.contains("no address of this machine"), "{why}");
    }
}
