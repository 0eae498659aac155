//! TCP connections that begin at a chosen port: those with relays, so that others can be dialled from there as well, and those dials
//! (protocol 6.10).
//!
//! ```text
//!   relay: any port, shared ──▶ the NAT maps it ◀── the same port again, towards a peer that dials us
//! ```
use core::net::SocketAddr;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, TcpStream},
};

/// `EINPROGRESS` has no kind of its own in stable Rust.
const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

/// Where a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At a port of its own.
    Alone,
    /// At a free port that other connections of ours may begin at, too. Each has its own: one that was used with this far end before would
    /// have to wait until the kernel forgets that.
    Shared,
    /// At this address and port, where one with `Shared` began.
    At(SocketAddr),
}

/// Begins a connection on a socket that does not block. When it can be written, [`begun`] says what came of it.
///
/// # Errors
/// The kernel refuses: no route, the start is taken.
pub fn begin(start: Start, remote: SocketAddr) -> io::Result<TcpStream> {
    match start {
        Start::Alone => connect(socket(remote)?, remote),
        // whatever the kernel has against a shared port, a relay is reached from another one
        Start::Shared => share(any(remote), remote).or_else(|_| connect(socket(remote)?, remote)),
        Start::At(local) => share(local, remote),
    }
}

/// What came of a connection whose socket can be written.
///
/// # Errors
/// Why there is none.
pub fn begun(tcp: &TcpStream) -> io::Result<()> {
    tcp.take_error()?.map_or(Ok(()), Err)
}

fn socket(remote: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Nobody listens at the port, so that what comes there uninvited is refused and taken by no one.
fn share(local: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(remote)?;
    socket.set_reuse_address(true)?;
    socket.bind(&local.into())?;
    connect(socket, remote)
}

fn connect(socket: Socket, remote: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&remote.into()) {
        Err(why) if why.raw_os_error() != Some(IN_PROGRESS) => Err(why),
        Ok(()) | Err(_) => Ok(socket.into()),
    }
}

fn any(remote: SocketAddr) -> SocketAddr {
    if remote.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::net::TcpListener;

    fn await_word(tcp: &TcpStream) -> io::Result<()> {
        poll(&mut [PollFd::new(tcp, PollFlags::OUT)], None)?;
        begun(tcp)
    }

    fn local(tcp: &TcpStream) -> SocketAddr {
        tcp.local_addr().expect("a bound socket")
    }

    // protocol 6.10
    #[test]
    fn two_that_dial_each_other_from_the_ports_of_other_connections_meet() {
        let relay = TcpListener::bind("127.0.0.1:0").expect("bind");
        let relay = relay.local_addr().map(|address| (relay, address)).expect("address");
        let [a, b] = [(); 2].map(|()| begin(Start::Shared, relay.1).expect("a dial"));
        for tcp in [&a, &b] {
            await_word(tcp).expect("the relay is there");
        }
        let punch = |from: &TcpStream, to: &TcpStream| begin(Start::At(local(from)), local(to));
        // nobody is there yet, and nobody listens; on one machine the refusal may be told at once
        let early = punch(&a, &b).and_then(|tcp| await_word(&tcp));
        assert_eq!(early.map_err(|why| why.kind()), Err(io::ErrorKind::ConnectionRefused));
        // between two sockets of one machine nothing crosses: the dial of one finds the other one only while that waits, so one dials itself
        let itself = begin(Start::At(local(&a)), local(&a)).expect("a dial");
        await_word(&itself).expect("a simultaneous open with itself (RFC 9293 3.5)");
        assert_eq!((local(&itself), itself.peer_addr().expect("connected")), (local(&a), local(&a)));
    }

    #[test]
    fn each_connection_with_a_relay_has_a_port_of_its_own() {
        let relay = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = relay.local_addr().expect("address");
        // at the port of the first, another one with the same relay would fail, or wait until the kernel has forgotten the first
        let both = [(); 2].map(|()| begin(Start::Shared, address).expect("a dial"));
        for tcp in &both {
            await_word(tcp).expect("the relay is there");
        }
        assert_ne!(local(&both[0]), local(&both[1]));
        let same = begin(Start::At(local(&both[0])), address);
        assert_eq!(same.map(drop).map_err(|why| why.kind()), Err(io::ErrorKind::AddrNotAvailable));
    }
}
