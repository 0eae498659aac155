//! UDP sockets: bound without surprises, read and written one datagram or one run at a time, never waited for.
//!
//! A run is datagrams of one length to or from one address, back to back; the last may be shorter. The kernel takes a run in one
//! call and cuts it as late as it can (GSO), and hands over in one call what came close together (GRO).
//!
//! A socket serves one family only, so that an address never comes in the clothes of the other. Datagrams are not fragmented: what
//! is too long for a path is lost there, and whoever sent it to learn the path's MTU learns it (protocol 6). A remembered path MTU
//! counts for nothing, because a forged ICMP message could have lowered it.
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt::UdpGroSegment,
};
use rustix::{
    io::Errno,
    net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    slice::ChunksMut,
};

/// Datagrams that the kernel keeps for us, in bytes: some 10 ms of a gigabit, as long as a busy thread may be elsewhere.
const RECEIVE_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// What waits for the network where nothing can wait for room: as much as comes in one go.
const SEND_BUFFER_BYTES: usize = 2 * 1024 * 1024;

/// Datagrams of a run at most (`UDP_MAX_SEGMENTS` of Linux, `UDP_GRO_CNT_MAX`).
pub const RUN_DATAGRAMS: usize = 64;

/// Bytes of a run at most: the longest payload that IPv4 and UDP have room for.
pub const RUN_BYTES: usize = 65_507;

/// Binds a socket that does not block and takes one family only.
///
/// # Errors
/// What the kernel says against this address.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    bind_as(address, false)
}

fn bind_as(address: SocketAddr, shares: bool) -> io::Result<UdpSocket> {
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
    if shares {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from(socket))
}

/// Binds one more socket to the address and port of this one, which from then on shares them with all that are bound so.
///
/// # Errors
/// What the kernel says against it.
pub(crate) fn bind_beside(first: &UdpSocket) -> io::Result<UdpSocket> {
    let address = first.local_addr()?;
    // not before it had its port: the kernel would have given it one that somebody else shares
    sockopt::set_socket_reuseport(first, true)?;
    bind_as(address, true)
}

/// Lets more wait for the network, for whoever loses what the kernel has no room for.
pub(crate) fn widen_sends(socket: &UdpSocket) {
    // The second way is cut to the system's limit.
    if sockopt::set_socket_send_buffer_size_force(socket, SEND_BUFFER_BYTES).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER_BYTES);
    }
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

/// Sends a run now, or nothing of it: datagrams of `stride` bytes, the last perhaps shorter.
///
/// # Errors
/// As with [`send`], and where the kernel or the interface cannot cut runs: `InvalidInput` or an uncategorised `EIO`.
pub fn send_run(socket: &UdpSocket, remote: SocketAddr, run: &[u8], stride: u16) -> io::Result<()> {
    let (remote, cut) = (SockaddrStorage::from(remote), [ControlMessage::UdpGsoSegments(&stride)]);
    loop {
        match sendmsg(socket.as_raw_fd(), &[IoSlice::new(run)], &cut, MsgFlags::empty(), Some(&remote)) {
            Ok(_) => return Ok(()),
            Err(nix::Error::EINTR) => {}
            Err(why) => return Err(why.into()),
        }
    }
}

/// What a kernel says that cannot cut runs, or whose interface cannot.
pub(crate) fn is_refusal(why: &io::Error) -> bool {
    [Errno::INVAL, Errno::IO, Errno::NOPROTOOPT, Errno::OPNOTSUPP].map(|errno| Some(errno.raw_os_error())).contains(&why.raw_os_error())
}

/// Where runs are read into.
pub struct RunBuffer {
    bytes: Vec<u8>,
    control: Vec<u8>,
}

/// A run that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Where it came from.
    pub(crate) remote: SocketAddr,
    /// Bytes in all.
    pub(crate) len: usize,
    /// Bytes of each datagram but the last, which may have fewer; at least 1.
    pub(crate) stride: usize,
}

impl Default for RunBuffer {
    fn default() -> Self {
        Self { bytes: vec![0; RUN_BYTES + 1], control: nix::cmsg_space!(i32) }
    }
}

/// Lets the kernel hand over runs of this socket; where it cannot, each datagram is a run of its own. To be read by
/// [`RunBuffer::receive`] only.
pub fn join_arrivals(socket: &UdpSocket) {
    let _ = setsockopt(socket, UdpGroSegment, &true);
}

impl RunBuffer {
    /// Takes one run that is here, its datagrams and where it came from; `None`: there is none.
    ///
    /// # Errors
    /// The socket cannot be read any more.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<Option<(SocketAddr, ChunksMut<'_, u8>)>> {
        let arrival = self.take(socket, 0)?;
        Ok(arrival.map(|Arrival { remote, len, stride }| (remote, self.bytes[..len].chunks_mut(stride))))
    }

    /// With room for one run and for another behind it.
    pub(crate) fn of_two() -> Self {
        Self { bytes: vec![0; 2 * (RUN_BYTES + 1)], ..Self::default() }
    }

    /// Whether a whole run fits from here on.
    pub(crate) fn has_room(&self, start: usize) -> bool {
        self.bytes.len() - start > RUN_BYTES
    }

    /// The same as one piece, which then begins here in [`RunBuffer::bytes`].
    ///
    /// # Errors
    /// The socket cannot be read any more.
    pub(crate) fn take(&mut self, socket: &UdpSocket, start: usize) -> io::Result<Option<Arrival>> {
        loop {
            let mut place = [IoSliceMut::new(&mut self.bytes[start..])];
            let arrival = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut place, Some(&mut self.control), MsgFlags::empty());
            match arrival.map_err(io::Error::from) {
                Ok(arrival) => {
                    let Some(remote) = arrival.address.as_ref().and_then(address) else { continue };
                    let strides = arrival.cmsgs()?.filter_map(|control| match control {
                        ControlMessageOwned::UdpGroSegments(stride) => usize::try_from(stride).ok(),
                        _ => None,
                    });
                    let stride = strides.last().unwrap_or(arrival.bytes).max(1);
                    return Ok(Some(Arrival { remote, len: arrival.bytes, stride }));
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(why) if is_of_one_datagram(&why) => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// What was read.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|&v4| SocketAddr::from(v4));
    v4.or_else(|| storage.as_sockaddr_in6().map(|&v6| SocketAddr::from(v6)))
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
    fn a_run_goes_in_one_call_and_comes_in_one_or_one_by_one() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let [a, joined, single] = [(); 3].map(|()| bind(loopback).expect("loopback"));
        join_arrivals(&joined);
        let run: Vec<u8> = (0..10_500_u32).map(|i| (i / 1000) as u8).collect();
        let mut buffer = RunBuffer::default();
        assert!(buffer.receive(&joined).expect("a socket").is_none(), "it does not wait");
        for socket in [&joined, &single] {
            send_run(&a, socket.local_addr().expect("bound"), &run, 1000).expect("Linux 4.18");
        }
        let (from, datagrams) = buffer.receive(&joined).expect("a socket").expect("one is here");
        assert_eq!(from, a.local_addr().expect("bound"));
        assert_eq!(datagrams.map(|datagram| (datagram.len(), datagram[0])).collect::<Vec<_>>(), expected(10));
        let mut one_by_one = Vec::new();
        while let Some((_, datagrams)) = buffer.receive(&single).expect("a socket") {
            assert_eq!(datagrams.len(), 1, "nobody asked for more");
            one_by_one.extend(datagrams.map(|datagram| (datagram.len(), datagram[0])));
        }
        assert_eq!(one_by_one, expected(10));
    }

    /// So many datagrams of 1000 bytes, each with its number, and half of another.
    fn expected(whole: u8) -> Vec<(usize, u8)> {
        (0..whole).map(|number| (1000, number)).chain([(500, whole)]).collect()
    }

    #[test]
    fn a_run_of_ipv6_knows_its_sender_and_an_empty_datagram_is_a_run_of_none() {
        let Ok((a, b)) =
            bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))).and_then(|a| Ok((a, bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)))?)))
        else {
            return; // a machine without IPv6
        };
        join_arrivals(&b);
        let to = b.local_addr().expect("bound");
        send_run(&a, to, &[7; 30], 20).expect("Linux 4.18");
        send(&a, to, &[]).expect("loopback");
        let mut buffer = RunBuffer::default();
        for lengths in [&[20, 10][..], &[]] {
            let (from, datagrams) = buffer.receive(&b).expect("a socket").expect("one is here");
            assert_eq!(
                (from, datagrams.map(|datagram| datagram.len()).collect::<Vec<_>>()),
                (a.local_addr().expect("bound"), lengths.to_vec())
            );
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
