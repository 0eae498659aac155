//! UDP sockets: bound without surprises, read and written one datagram at a time, never waited for.
//!
//! A socket serves one family only, so that an address never comes in the clothes of the other. Datagrams are not fragmented: what
//! is too long for a path is lost there, and whoever sent it to learn the path's MTU learns it (protocol 6). A remembered path MTU
//! counts for nothing, because a forged ICMP message could have lowered it.
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

/// Datagrams that the kernel keeps for us, in bytes: some 10 ms of a gigabit, as long as a busy thread may be elsewhere.
const RECEIVE_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// Binds a socket that does not block and takes one family only.
///
/// # Errors
/// What the kernel says against this address.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
    } else {
        sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    }
    // The second way is cut to the system's limit. A small buffer only loses more when this thread is late.
    if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from(socket))
}

/// Takes one datagram that is here, with where it came from; `None`: there is none. What does not fit into `buffer` is cut off, so
/// it should be longer than the longest good one.
///
/// # Errors
/// The socket cannot be read any more.
pub fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
    loop {
        match socket.recv_from(buffer) {
            Ok((len, remote)) => return Ok(Some((len, remote))),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // word of an earlier datagram that did not arrive: only suspicion (protocol 7.5), and it comes once
            Err(why) if is_of_one_datagram(&why) => {}
            Err(why) => return Err(why),
        }
    }
}

/// Sends one datagram now, or not at all.
///
/// # Errors
/// It was not sent: no room, no route, too long. Nobody has to know: UDP loses datagrams.
pub fn send(socket: &UdpSocket, remote: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    loop {
        match socket.send_to(bytes, remote) {
            Ok(_) => return Ok(()),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
}

fn is_of_one_datagram(why: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        why.kind(),
        Kind::Interrupted | Kind::ConnectionRefused | Kind::ConnectionReset | Kind::HostUnreachable | Kind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use core::time::Duration;

    /// Waits for one datagram: the sockets themselves never wait.
    fn arrival(socket: &UdpSocket, buffer: &mut [u8]) -> (usize, SocketAddr) {
        let waiting = socket.try_clone().expect("one more descriptor");
        waiting.set_nonblocking(false).expect("a socket");
        waiting.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        waiting.peek(&mut [0]).expect("a datagram comes");
        waiting.set_nonblocking(true).expect("a socket");
        receive(socket, buffer).expect("a socket").expect("one is here")
    }

    #[test]
    fn a_datagram_goes_there_and_back_and_an_empty_socket_does_not_wait() {
        for loopback in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))] {
            let (a, b) = match (bind(loopback), bind(loopback)) {
                (Ok(a), Ok(b)) => (a, b),
                (Err(why), _) | (_, Err(why)) => {
                    assert!(loopback.is_ipv6(), "{why}");
                    continue; // a machine without IPv6
                }
            };
            let (a_at, b_at) = (a.local_addr().expect("bound"), b.local_addr().expect("bound"));
            let mut buffer = [0; 8];
            assert_eq!(receive(&a, &mut buffer).expect("a socket"), None);
            send(&a, b_at, b"hello").expect("loopback");
            assert_eq!(arrival(&b, &mut buffer), (5, a_at));
            send(&b, a_at, b"longer than the buffer").expect("loopback");
            assert_eq!(arrival(&a, &mut buffer), (8, b_at), "cut off");
        }
    }

    #[test]
    fn word_of_a_closed_port_is_no_error_of_the_socket() {
        let a = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("loopback");
        let gone = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).and_then(|socket| socket.local_addr()).expect("loopback");
        for _ in 0..3 {
            send(&a, gone, b"anyone?").expect("loopback");
        }
        assert_eq!(receive(&a, &mut [0; 8]).expect("the socket goes on"), None);
    }

    #[test]
    fn a_socket_of_one_family_leaves_the_port_of_the_other_free_and_nothing_is_fragmented() {
        let v4 = bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).expect("IPv4");
        assert_eq!(sockopt::ip_mtu_discover(&v4).expect("Linux"), Ipv4PathMtuDiscovery::PROBE);
        let port = v4.local_addr().expect("bound").port();
        if let Ok(v6) = bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))) {
            assert_eq!(sockopt::ipv6_mtu_discover(&v6).expect("Linux"), Ipv6PathMtuDiscovery::PROBE);
            bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).expect("the IPv4 socket does not hold it");
        }
        assert_eq!(bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
