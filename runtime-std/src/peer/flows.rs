//! The UDP sockets of a peer, one a family and some for one flow each, and which far address is which flow.
//!
//! A datagram goes to the kernel at once. What the kernel has no room for waits here, in order, and as long as something waits the data
//! plane is told that there is no room: it drops where that is counted, before sealing.
//!
//! While an address of this machine changes there is no route for a moment. What a flow cannot send then waits likewise, and is tried again
//! soon: sealed frames that were thrown away here would be missing at the other end, which nobody there could tell from a loss on the way.
use crate::udp;
use shadowmesh_core::id::ConnId;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Bytes that the data plane may send to a flow in one go.
const ROOM_BYTES: usize = 64 * 1024;
/// Datagrams that wait for the kernel, or for a flow's route; beyond, they are lost as on a network.
const WAITING: usize = 256;
/// A UDP payload at most, and one byte more, to see that something was cut off.
pub(super) const DATAGRAM_BYTES: usize = 65_536;

/// A socket by number: 0 and 1 are those of IPv4 and IPv6, others serve one flow each.
pub type Number = u32;
/// Sockets of the families.
const FAMILIES: Number = 2;

/// One socket.
struct Line {
    socket: UdpSocket,
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    awaited: bool,
    /// The flow that it serves alone.
    own: Option<(ConnId, SocketAddr)>,
}

/// A datagram that came to a flow's own socket from elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unwanted;

/// The sockets and flows.
pub(super) struct Flows {
    lines: BTreeMap<Number, Line>,
    next_line: Number,
    /// By which socket a flow goes, and where to.
    ways: BTreeMap<ConnId, (Number, SocketAddr)>,
    by_remote: HashMap<SocketAddr, ConnId>,
    /// Datagrams of flows for which there is no route at the moment.
    stranded: BTreeMap<ConnId, VecDeque<Vec<u8>>>,
    /// Datagrams that nobody took.
    pub(super) lost: u64,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            next_line: FAMILIES,
            ways: BTreeMap::new(),
            by_remote: HashMap::new(),
            stranded: BTreeMap::new(),
            lost: 0,
        }
    }
}

/// No route, or no network at all: it may be back in a moment.
fn is_without_route(why: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(why.kind(), Kind::NetworkUnreachable | Kind::NetworkDown | Kind::AddrNotAvailable)
}

fn family(remote: SocketAddr) -> Number {
    Number::from(remote.is_ipv6())
}

impl Line {
    fn new(socket: UdpSocket, own: Option<(ConnId, SocketAddr)>) -> Self {
        Self { socket, waiting: VecDeque::new(), awaited: false, own }
    }
}

impl Flows {
    /// Opens a socket for each family that `listen` means: an unspecified IPv4 address means both, where the machine has both.
    ///
    /// # Errors
    /// A sentence: the address cannot be had.
    pub(super) fn open(&mut self, listen: SocketAddr) -> Result<(), String> {
        let socket = udp::bind(listen).map_err(|why| format!("no UDP on {listen}: {why}"))?;
        self.lines.insert(family(listen), Line::new(socket, None));
        if listen.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            && let Ok(socket) = udp::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listen.port()))
        {
            self.lines.insert(1, Line::new(socket, None));
        }
        Ok(())
    }

    pub(super) fn socket(&self, number: Number) -> Option<&UdpSocket> {
        self.lines.get(&number).map(|line| &line.socket)
    }

    /// The sockets of the families.
    pub(super) fn families(&self) -> impl Iterator<Item = (Number, &UdpSocket)> {
        self.lines.range(..FAMILIES).map(|(number, line)| (*number, &line.socket))
    }

    /// The ports that are open: IPv4, IPv6.
    pub(super) fn ports(&self) -> (Option<u16>, Option<u16>) {
        let port = |family| self.socket(family)?.local_addr().ok().map(|address| address.port());
        (port(0), port(1))
    }

    /// A flow by its family's socket.
    pub(super) fn add(&mut self, conn: ConnId, remote: SocketAddr) {
        self.ways.insert(conn, (family(remote), remote));
        self.by_remote.insert(remote, conn);
    }

    /// A flow by a socket of its own, at the address of its family's and any port; the socket's number, for whoever waits for it.
    ///
    /// # Errors
    /// There is none of this family, or the machine has no more.
    pub(super) fn add_own(&mut self, conn: ConnId, remote: SocketAddr) -> io::Result<Number> {
        let family = self.socket(family(remote)).ok_or(io::ErrorKind::Unsupported)?;
        let socket = udp::bind(SocketAddr::new(family.local_addr()?.ip(), 0))?;
        let number = self.next_line;
        self.next_line = self.next_line.checked_add(1).unwrap_or(FAMILIES);
        self.lines.insert(number, Line::new(socket, Some((conn, remote))));
        self.ways.insert(conn, (number, remote));
        Ok(number)
    }

    /// Forgets a flow. Some: it had a socket of its own, of this number, which is closed.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Number> {
        let (number, remote) = self.ways.remove(&conn)?;
        self.stranded.remove(&conn);
        if number < FAMILIES {
            self.by_remote.remove(&remote);
            return None;
        }
        self.lines.remove(&number).map(|_| number)
    }

    /// Whose flow it is when something comes to this socket from this address, if anybody's; `Err`: nobody wants it.
    pub(super) fn of(&self, number: Number, remote: SocketAddr) -> Result<Option<ConnId>, Unwanted> {
        match self.lines.get(&number).map(|line| line.own) {
            Some(None) => Ok(self.by_remote.get(&remote).copied()),
            Some(Some((conn, known))) if known == remote => Ok(Some(conn)),
            Some(Some(_)) | None => Err(Unwanted),
        }
    }

    /// Bytes that the data plane can send to this flow now.
    pub(super) fn room(&self, conn: ConnId) -> usize {
        let line = self.ways.get(&conn).and_then(|(number, _)| self.lines.get(number));
        let is_free = line.is_some_and(|line| line.waiting.is_empty()) && !self.stranded.contains_key(&conn);
        if is_free { ROOM_BYTES } else { 0 }
    }

    /// Sends to a flow, as [`Flows::send_to`] does; nothing happens when it is gone.
    pub(super) fn send(&mut self, conn: ConnId, bytes: &[u8]) -> Option<Number> {
        let (number, remote) = *self.ways.get(&conn)?;
        if let Some(stranded) = self.stranded.get_mut(&conn) {
            if stranded.len() < WAITING {
                stranded.push_back(bytes.to_vec());
            } else {
                self.lost += 1;
            }
            return None;
        }
        if let Some(line) = self.lines.get(&number).filter(|line| line.waiting.is_empty()) {
            match udp::send(&line.socket, remote, bytes) {
                Ok(()) => return None,
                Err(why) if is_without_route(&why) => {
                    self.stranded.insert(conn, VecDeque::from([bytes.to_vec()]));
                    return None;
                }
                Err(_) => {}
            }
        }
        self.send_by(number, remote, bytes)
    }

    /// Whether something waits for a route.
    pub(super) fn is_stranded(&self) -> bool {
        !self.stranded.is_empty()
    }

    /// Tries again what waits for a route. True when a flow has one again; the sockets that have no room are given as by [`Flows::send_to`].
    pub(super) fn try_again(&mut self) -> (bool, Vec<Number>) {
        let (mut freed, mut full) = (false, Vec::new());
        for (conn, mut stranded) in core::mem::take(&mut self.stranded) {
            while let Some(bytes) = stranded.pop_front() {
                full.extend(self.send(conn, &bytes));
                if self.stranded.contains_key(&conn) {
                    break;
                }
            }
            match self.stranded.get_mut(&conn) {
                Some(first) => first.append(&mut stranded),
                None => freed = true,
            }
        }
        (freed, full)
    }

    /// Sends to an address. Some: the kernel has no room in this socket, and somebody should wait until it has and then call
    /// [`Flows::flush`]; said once.
    pub(super) fn send_to(&mut self, remote: SocketAddr, bytes: &[u8]) -> Option<Number> {
        self.send_by(family(remote), remote, bytes)
    }

    fn send_by(&mut self, number: Number, remote: SocketAddr, bytes: &[u8]) -> Option<Number> {
        let line = self.lines.get_mut(&number)?;
        if line.waiting.is_empty() {
            match udp::send(&line.socket, remote, bytes) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Ok(()) => return None,
                // no route, too long for the interface, forbidden by a firewall: a network would lose it likewise
                Err(_) => {
                    self.lost += 1;
                    return None;
                }
            }
        }
        if line.waiting.len() >= WAITING {
            self.lost += 1;
            return None;
        }
        line.waiting.push_back((remote, bytes.to_vec()));
        (!core::mem::replace(&mut line.awaited, true)).then_some(number)
    }

    /// The kernel has room again: sends what waits. True when nothing waits any more; else somebody should go on waiting.
    pub(super) fn flush(&mut self, number: Number) -> bool {
        let Some(line) = self.lines.get_mut(&number) else { return true };
        while let Some((remote, bytes)) = line.waiting.front() {
            match udp::send(&line.socket, *remote, bytes) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return false,
                Ok(()) => {}
                Err(_) => self.lost += 1,
            }
            line.waiting.pop_front();
        }
        line.awaited = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_open_and_a_flow_is_found_by_its_address_until_it_is_removed() {
        let mut flows = Flows::default();
        flows.open(SocketAddr::from(([0, 0, 0, 0], 0))).expect("any port");
        assert!(flows.ports().0.is_some_and(|port| port != 0));
        let remote = SocketAddr::from(([127, 0, 0, 1], 9));
        let conn = ConnId(1 << 63);
        assert_eq!((flows.of(0, remote), flows.room(conn)), (Ok(None), 0));
        flows.add(conn, remote);
        assert_eq!((flows.of(0, remote), flows.room(conn)), (Ok(Some(conn)), ROOM_BYTES));
        assert_eq!(flows.remove(conn), None, "no socket is closed with it");
        assert_eq!((flows.of(0, remote), flows.room(conn)), (Ok(None), 0));
    }

    #[test]
    fn a_flow_with_a_socket_of_its_own_has_another_port_and_closes_it() {
        let mut flows = Flows::default();
        let here = udp::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback");
        let remote = here.local_addr().expect("bound");
        let (shared, own) = (ConnId(1 << 63), ConnId((1 << 63) + 2));
        assert!(flows.add_own(own, remote).is_err(), "no socket of this family");
        flows.open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("any port");
        flows.add(shared, remote);
        let number = flows.add_own(own, remote).expect("one more socket");
        assert_eq!((flows.of(0, remote), flows.of(number, remote)), (Ok(Some(shared)), Ok(Some(own))));
        assert_eq!(flows.of(number, SocketAddr::from(([127, 0, 0, 1], 9))), Err(Unwanted), "it is not for whoever else sends there");
        here.set_nonblocking(false).expect("a socket");
        let from = [shared, own].map(|conn| {
            assert_eq!(flows.send(conn, b"hello"), None);
            here.recv_from(&mut [0; 8]).expect("loopback").1
        });
        assert_eq!(from, [0, number].map(|number| flows.socket(number).and_then(|socket| socket.local_addr().ok()).expect("open")));
        assert_eq!(flows.families().count(), 1);
        assert_eq!((flows.remove(own), flows.remove(own)), (Some(number), None));
        assert!(flows.socket(number).is_none());
        assert_eq!(flows.of(0, remote), Ok(Some(shared)));
    }

    #[test]
    fn a_port_that_is_taken_is_told_in_a_sentence() {
        let taken = udp::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback");
        let address = taken.local_addr().expect("bound");
        let why = Flows::default().open(address).expect_err("taken");
        assert!(why.contains(&address.to_string()), "{why}");
    }

    #[test]
    fn what_has_no_route_waits_in_its_flow_alone_and_goes_when_there_is_one() {
        let mut flows = Flows::default();
        flows.open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("any port");
        let here = udp::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback");
        let (near, far) = (ConnId(1 << 63), ConnId((1 << 63) + 1));
        flows.add(near, here.local_addr().expect("bound"));
        flows.add(far, SocketAddr::from(([127, 0, 0, 1], 9)));
        flows.stranded.insert(near, VecDeque::from([b"first".to_vec(), b"second".to_vec()]));
        assert_eq!((flows.room(near), flows.room(far)), (0, ROOM_BYTES));
        assert_eq!(flows.send(near, b"third"), None);
        assert!(flows.is_stranded());
        assert_eq!(flows.try_again(), (true, Vec::new()));
        assert!(!flows.is_stranded());
        let mut buffer = [0; 16];
        here.set_nonblocking(false).expect("a socket");
        let heard = [(); 3].map(|()| here.recv(&mut buffer).map(|len| buffer[..len].to_vec()).expect("loopback"));
        assert_eq!(heard, [b"first".to_vec(), b"second".to_vec(), b"third".to_vec()]);
        for _ in 0..=WAITING {
            flows.stranded.entry(near).or_default();
            flows.send(near, b"more");
        }
        assert_eq!(flows.lost, 1, "it is bounded");
        assert!(flows.remove(near).is_none() && !flows.is_stranded());
        for (kind, is) in [(io::ErrorKind::NetworkUnreachable, true), (io::ErrorKind::PermissionDenied, false)] {
            assert_eq!(is_without_route(&kind.into()), is);
        }
    }

    #[test]
    fn what_a_socket_does_not_take_waits_in_order_or_is_counted() {
        let mut flows = Flows::default();
        flows.open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("any port");
        let here = udp::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback");
        let remote = here.local_addr().expect("bound");
        flows.lines.get_mut(&0).expect("open").waiting.push_back((remote, b"first".to_vec()));
        assert_eq!(flows.send_to(remote, b"second"), Some(0));
        assert!(flows.flush(0));
        let mut buffer = [0; 16];
        here.set_nonblocking(false).expect("a socket");
        let heard = [0, 1].map(|_| here.recv(&mut buffer).map(|len| buffer[..len].to_vec()).expect("loopback"));
        assert_eq!(heard, [b"first".to_vec(), b"second".to_vec()]);
        assert_eq!(flows.send_to(remote, &vec![0; DATAGRAM_BYTES]), None, "longer than any datagram");
        assert_eq!(flows.lost, 1);
    }
}
