//! The UDP sockets of a peer, one a family and some for one flow each, and which far address is which flow.
//!
//! ```text
//!   gather … send, send, send … release ─▶ a run for each flow ─▶ one call each ─▶ kernel
//!                                                                    │ no room: `waiting` of the socket
//!                                                                    │ no route: `stranded` of the flow
//! ```
//!
//! A datagram goes to the kernel at once, or, between [`Flows::gather`] and [`Flows::release`], with those of the same flow before and
//! behind it. What the kernel has no room for waits here, in order, and as long as something waits the data plane is told that there is
//! no room: it drops where that is counted, before sealing.
//!
//! While an address of this machine changes there is no route for a moment. What a flow cannot send then waits likewise, and is tried again
//! soon: sealed frames that were thrown away here would be missing at the other end, which nobody there could tell from a loss on the way.
use super::run::{self, Run};
use crate::udp;
use shadowmesh_core::id::ConnId;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Bytes that the data plane may send to a flow in one go.
const ROOM_BYTES: usize = 64 * 1024;
/// Runs that wait for the kernel, or datagrams for a flow's route; beyond, they are lost as on a network. With something waiting there
/// is no room, so a socket's are one run for each flow, and what the control plane sends.
const WAITING: usize = 256;

/// A socket by number: 0 and 1 are those of IPv4 and IPv6, others serve one flow each.
pub type Number = u32;
/// Sockets of the families.
pub(super) const FAMILIES: Number = 2;

/// One socket.
struct Line {
    socket: UdpSocket,
    waiting: VecDeque<Run>,
    awaited: bool,
    /// The kernel takes runs in one call, as far as is known.
    takes_runs: bool,
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
    gathering: bool,
    /// What was gathered: one run a flow.
    gathered: Vec<(ConnId, Run)>,
    /// Buffers of runs that are gone.
    spare: Vec<Vec<u8>>,
    /// Sockets that turned out to have no room: somebody should wait until one has and then call [`Flows::flush`]. Each comes once.
    pub(super) full: Vec<Number>,
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
            gathering: false,
            gathered: Vec::new(),
            spare: Vec::new(),
            full: Vec::new(),
            lost: 0,
        }
    }
}

fn family(remote: SocketAddr) -> Number {
    Number::from(remote.is_ipv6())
}

impl Line {
    fn new(socket: UdpSocket, own: Option<(ConnId, SocketAddr)>) -> Self {
        Self { socket, waiting: VecDeque::new(), awaited: false, takes_runs: true, own }
    }

    /// Sends a run, in one call where the kernel can. What it cannot take now stays in the run, with the reason; what it refuses for
    /// good is counted.
    fn send(&mut self, run: &mut Run, lost: &mut u64) -> io::Result<()> {
        if run.is_one() || !self.takes_runs {
            return run.send_each(&self.socket, lost).map(drop);
        }
        let Err(why) = run.send_whole(&self.socket) else { return Ok(()) };
        if run::is_for_later(&why) {
            return Err(why);
        }
        // Something is wrong with one of them, or with runs: an old kernel, an interface that computes no checksums.
        let sent = run.send_each(&self.socket, lost)?;
        self.takes_runs = sent == 0 || !run::is_refusal(&why);
        Ok(())
    }
}

impl Flows {
    /// Opens a socket for each family that `listen` means: an unspecified IPv4 address means both, where the machine has both.
    ///
    /// # Errors
    /// A sentence: the address cannot be had.
    pub(super) fn open(&mut self, listen: SocketAddr) -> Result<(), String> {
        let socket = udp::bind(listen).map_err(|why| format!("no UDP on {listen}: {why}"))?;
        udp::join_arrivals(&socket);
        self.lines.insert(family(listen), Line::new(socket, None));
        if listen.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            && let Ok(socket) = udp::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listen.port()))
        {
            udp::join_arrivals(&socket);
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

    /// A socket of a family that another has opened.
    pub(super) fn adopt(&mut self, number: Number, socket: UdpSocket) {
        self.lines.insert(number, Line::new(socket, None));
    }

    /// A flow that another has opened, by its family's socket or one of its own.
    pub(super) fn adopt_flow(&mut self, conn: ConnId, remote: SocketAddr, own: Option<(Number, UdpSocket)>) {
        let Some((number, socket)) = own else { return self.add(conn, remote) };
        self.lines.insert(number, Line::new(socket, Some((conn, remote))));
        self.ways.insert(conn, (number, remote));
    }

    /// A flow by a socket of its own, at the address of its family's and any port; the socket's number, for whoever waits for it.
    ///
    /// # Errors
    /// There is none of this family, or the machine has no more.
    pub(super) fn add_own(&mut self, conn: ConnId, remote: SocketAddr) -> io::Result<Number> {
        let family = self.socket(family(remote)).ok_or(io::ErrorKind::Unsupported)?;
        let socket = udp::bind(SocketAddr::new(family.local_addr()?.ip(), 0))?;
        udp::join_arrivals(&socket);
        let number = self.next_line;
        self.next_line = self.next_line.checked_add(1).unwrap_or(FAMILIES);
        self.lines.insert(number, Line::new(socket, Some((conn, remote))));
        self.ways.insert(conn, (number, remote));
        Ok(number)
    }

    /// Forgets a flow. Some: it had a socket of its own, of this number, which is closed.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Number> {
        self.release_flow(conn);
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

    /// From here on, what is sent to flows waits for [`Flows::release`], or until a run is full.
    pub(super) fn gather(&mut self) {
        self.gathering = true;
    }

    /// Whether what is sent waits.
    pub(super) fn is_gathering(&self) -> bool {
        self.gathering
    }

    /// Sends what was gathered.
    pub(super) fn release(&mut self) {
        self.gathering = false;
        let mut gathered = core::mem::take(&mut self.gathered);
        for (conn, run) in gathered.drain(..) {
            self.send_run(conn, run);
        }
        self.gathered = gathered;
    }

    /// Sends to a flow; nothing happens when it is gone.
    pub(super) fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        let open = self.gathered.iter_mut().find(|(of, _)| *of == conn);
        if let Some((_, run)) = open {
            if run.add(bytes) {
                return;
            }
            self.release_flow(conn);
        }
        let Some((_, remote)) = self.ways.get(&conn) else { return };
        let run = Run::new(*remote, bytes, self.spare.pop().unwrap_or_default());
        if self.gathering {
            self.gathered.push((conn, run));
        } else {
            self.send_run(conn, run);
        }
    }

    /// Sends what was gathered for a flow.
    fn release_flow(&mut self, conn: ConnId) {
        if let Some(at) = self.gathered.iter().position(|(of, _)| *of == conn) {
            let (_, run) = self.gathered.remove(at);
            self.send_run(conn, run);
        }
    }

    /// Sends a run of a flow, behind what waits for a route.
    fn send_run(&mut self, conn: ConnId, mut run: Run) {
        let Some((number, _)) = self.ways.get(&conn) else { return };
        if let Some(stranded) = self.stranded.get_mut(&conn) {
            for datagram in run.datagrams() {
                if stranded.len() < WAITING {
                    stranded.push_back(datagram.to_vec());
                } else {
                    self.lost += 1;
                }
            }
            return;
        }
        let Some(line) = self.lines.get_mut(number) else { return };
        if line.waiting.is_empty() {
            match line.send(&mut run, &mut self.lost) {
                Ok(()) => return self.spare.push(run.into_buffer()),
                Err(why) if run::is_without_route(&why) => {
                    self.stranded.insert(conn, run.datagrams().map(<[u8]>::to_vec).collect());
                    return;
                }
                Err(_) => {}
            }
        }
        self.wait(*number, run);
    }

    /// Whether something waits for a route.
    pub(super) fn is_stranded(&self) -> bool {
        !self.stranded.is_empty()
    }

    /// Tries again what waits for a route. True when a flow has one again.
    pub(super) fn try_again(&mut self) -> bool {
        let mut freed = false;
        for (conn, mut stranded) in core::mem::take(&mut self.stranded) {
            while let Some(bytes) = stranded.pop_front() {
                self.send(conn, &bytes);
                if self.stranded.contains_key(&conn) {
                    break;
                }
            }
            match self.stranded.get_mut(&conn) {
                Some(first) => first.append(&mut stranded),
                None => freed = true,
            }
        }
        freed
    }

    /// Sends to an address, at once.
    pub(super) fn send_to(&mut self, remote: SocketAddr, bytes: &[u8]) {
        let number = family(remote);
        let Some(line) = self.lines.get_mut(&number) else { return };
        let mut run = Run::new(remote, bytes, self.spare.pop().unwrap_or_default());
        if line.waiting.is_empty() {
            match line.send(&mut run, &mut self.lost) {
                Ok(()) => return self.spare.push(run.into_buffer()),
                Err(why) if run::is_without_route(&why) => {
                    self.lost += 1;
                    return;
                }
                Err(_) => {}
            }
        }
        self.wait(number, run);
    }

    /// Lets a run wait until its socket has room.
    fn wait(&mut self, number: Number, run: Run) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        if line.waiting.len() >= WAITING {
            self.lost += run.datagrams().len() as u64;
            return;
        }
        line.waiting.push_back(run);
        if !core::mem::replace(&mut line.awaited, true) {
            self.full.push(number);
        }
    }

    /// The kernel has room again: sends what waits. True when nothing waits any more; else somebody should go on waiting.
    pub(super) fn flush(&mut self, number: Number) -> bool {
        let Some(line) = self.lines.get_mut(&number) else { return true };
        while let Some(mut run) = line.waiting.pop_front() {
            match line.send(&mut run, &mut self.lost) {
                Ok(()) => {}
                Err(why) if run::is_without_route(&why) => self.lost += run.datagrams().len() as u64,
                Err(_) => {
                    line.waiting.push_front(run);
                    return false;
                }
            }
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
            flows.send(conn, b"hello");
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
        flows.send(near, b"third");
        assert!(flows.is_stranded());
        assert!(flows.try_again());
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
            assert_eq!(run::is_without_route(&kind.into()), is);
        }
    }

    #[test]
    fn what_a_socket_does_not_take_waits_in_order_or_is_counted() {
        let mut flows = Flows::default();
        flows.open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("any port");
        let here = udp::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback");
        let remote = here.local_addr().expect("bound");
        flows.lines.get_mut(&0).expect("open").waiting.push_back(Run::new(remote, b"first", Vec::new()));
        flows.send_to(remote, b"second");
        flows.send_to(remote, b"third");
        assert_eq!(flows.full, [0], "said once");
        assert!(flows.flush(0));
        let mut buffer = [0; 16];
        here.set_nonblocking(false).expect("a socket");
        let heard = [(); 3].map(|()| here.recv(&mut buffer).map(|len| buffer[..len].to_vec()).expect("loopback"));
        assert_eq!(heard, [b"first".to_vec(), b"second".to_vec(), b"third".to_vec()]);
        flows.send_to(remote, &vec![0; udp::RUN_BYTES + 1]);
        assert_eq!(flows.lost, 1, "longer than any datagram");
    }
    /// Flows to sockets of this test, and those sockets.
    fn flows_to_here<const N: usize>() -> (Flows, [(ConnId, UdpSocket); N]) {
        let mut flows = Flows::default();
        flows.open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("any port");
        let mut number = 1 << 63;
        let ends = [(); N].map(|()| {
            number += 1;
            let socket = udp::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback");
            flows.add(ConnId(number), socket.local_addr().expect("bound"));
            (ConnId(number), socket)
        });
        (flows, ends)
    }

    /// What has come, one by one.
    fn heard(socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2000];
        let arrivals = core::iter::from_fn(|| udp::receive(socket, &mut buffer).expect("a socket").map(|(len, _)| buffer[..len].to_vec()));
        arrivals.collect()
    }

    #[test]
    fn what_is_gathered_goes_at_the_release_and_each_flow_keeps_its_order() {
        let (mut flows, [(a, at_a), (b, at_b)]) = flows_to_here();
        // full runs, a shorter one that ends a run, a longer one that begins one
        let lengths: Vec<usize> = [1000; 70].into_iter().chain([300, 1000, 1200, 1200, 7]).collect();
        let sent: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(number, len)| vec![number as u8; *len]).collect();
        flows.gather();
        flows.send(b, b"of another");
        for datagram in &sent {
            flows.send(a, datagram);
            assert_eq!(flows.room(a), ROOM_BYTES);
        }
        let early = heard(&at_a);
        assert!(early.len() >= 64 && early.len() < sent.len(), "a full run goes at once: {}", early.len());
        assert_eq!(heard(&at_b), Vec::<Vec<u8>>::new());
        flows.release();
        let all: Vec<_> = early.into_iter().chain(heard(&at_a)).collect();
        assert!(all == sent, "all, and in order");
        assert_eq!(heard(&at_b), [b"of another"]);
        flows.send(a, b"at once");
        assert_eq!((heard(&at_a), flows.lost), (vec![b"at once".to_vec()], 0));
        assert!(flows.lines[&0].takes_runs);
    }

    #[test]
    fn a_flow_that_ends_still_sends_what_was_gathered() {
        let (mut flows, [(a, at_a)]) = flows_to_here();
        flows.gather();
        flows.send(a, b"good-bye");
        flows.remove(a);
        assert_eq!(heard(&at_a), [b"good-bye"]);
        flows.release();
        assert_eq!(heard(&at_a), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_run_that_the_kernel_refuses_goes_one_by_one_and_so_do_all_after_it() {
        let (mut flows, [(_, here)]) = flows_to_here();
        let remote = here.local_addr().expect("bound");
        let line = flows.lines.get_mut(&0).expect("open");
        // more datagrams than any kernel cuts at once: the same word as from one that cannot cut
        let (mut run, bytes) = Run::unbounded(remote, 200);
        assert_eq!(line.send(&mut run, &mut flows.lost).map_err(|why| why.to_string()), Ok(()));
        assert!(!line.takes_runs);
        assert_eq!(heard(&here).concat(), bytes);
        assert_eq!(flows.lost, 0);
    }

    #[test]
    fn one_datagram_that_is_too_long_does_not_end_runs() {
        let (mut flows, [(a, here)]) = flows_to_here();
        flows.gather();
        // lo takes 65,536 bytes with the headers: alone they go, and two of them are longer than a run can be
        for len in [60_000, 60_000] {
            flows.send(a, &vec![1; len]);
        }
        flows.release();
        assert!(flows.lines[&0].takes_runs);
        let mut lengths = Vec::new();
        while let Some((len, _)) = udp::receive(&here, &mut vec![0; 65_536]).expect("a socket") {
            lengths.push(len);
        }
        assert_eq!(lengths, [60_000, 60_000]);
    }

    #[test]
    fn a_run_without_room_waits_behind_what_waits_already_and_says_so_once() {
        let (mut flows, [(a, here)]) = flows_to_here();
        let first = Run::new(here.local_addr().expect("bound"), b"one", Vec::new());
        flows.lines.get_mut(&0).expect("open").waiting.push_back(first);
        for pair in [[b"two", b"six"], [b"ten", b"end"]] {
            flows.gather();
            for datagram in pair {
                flows.send(a, datagram);
            }
            flows.release();
        }
        assert_eq!((flows.room(a), flows.full.as_slice(), heard(&here)), (0, &[0][..], Vec::new()));
        assert!(flows.flush(0));
        assert_eq!((flows.room(a), flows.lost), (ROOM_BYTES, 0));
        assert_eq!(heard(&here), [b"one", b"two", b"six", b"ten", b"end"]);
    }

    #[test]
    fn a_run_without_a_route_waits_behind_what_waits_already() {
        let (mut flows, [(a, here)]) = flows_to_here();
        flows.stranded.insert(a, VecDeque::from([b"one".to_vec()]));
        flows.gather();
        for datagram in [b"two", b"six"] {
            flows.send(a, datagram);
        }
        flows.release();
        assert_eq!((flows.room(a), heard(&here)), (0, Vec::new()));
        assert!(flows.try_again());
        assert_eq!(heard(&here), [b"one", b"two", b"six"]);
    }
}
