//! A numbered UDP stream in both directions, and an honest account of it.
//!
//! Each datagram carries its number and the time of sending; both ends are sockets of this one process
//! made inside two namespaces, so one clock measures both and nothing needs to be agreed on.

use crate::world::{Host, POLL_INTERVAL, World};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// 1,000 datagrams a second each way.
const INTERVAL: Duration = Duration::from_millis(1);
/// Small enough for any overlay MTU, large enough to be ordinary traffic.
const DATAGRAM_BYTES: usize = 256;
/// As large as an IPv4 packet of 1,280 bytes holds, the overlay MTU unless configured.
const FULL_BYTES: usize = 1_252;
/// Holds seconds of the stream, so that a busy test process loses nothing by itself.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
/// After the last datagram was sent, how long one may still be on its way.
const STRAGGLER_LIMIT: Duration = Duration::from_secs(4);

/// What one direction of a stream came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) direction: String,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) longest_gap: Duration,
    pub(crate) longest_delay: Duration,
    /// The first numbers that never came, for whoever has to find out why.
    pub(crate) missing: Vec<u64>,
}

impl Account {
    /// Demands what the protocol promises: nothing lost, doubled or out of order.
    pub(crate) fn assert_perfect(&self) {
        let perfect = self.sent > 0 && self.lost == 0 && self.duplicated == 0 && self.reordered == 0;
        assert!(perfect, "the stream is not whole: {self}; missing from the start: {:?}", self.missing);
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: sent {} received {} lost {} duplicated {} reordered {} longest gap {:.1} ms longest delay {:.1} ms",
            self.direction,
            self.sent,
            self.received,
            self.lost,
            self.duplicated,
            self.reordered,
            self.longest_gap.as_secs_f64() * 1e3,
            self.longest_delay.as_secs_f64() * 1e3
        )
    }
}

/// A stream that runs until `finish`.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    directions: Vec<Direction>,
}

struct Direction {
    name: String,
    sent: Arc<AtomicU64>,
    arrivals: Arc<Mutex<Arrivals>>,
    closed: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
    receiver: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Arrivals {
    seen: Vec<bool>,
    unique: u64,
    duplicated: u64,
    reordered: u64,
    highest: Option<u64>,
    /// All numbers below it have come.
    whole: u64,
    last: Option<Instant>,
    longest_gap: Duration,
    /// The same since the last `step`.
    step_gap: Duration,
    longest_delay: Duration,
}

impl Stream {
    /// Starts it between two hosts, each named with the address at which the other reaches it.
    pub(crate) fn start(a: (&Host, IpAddr), b: (&Host, IpAddr)) -> Self {
        Self::start_ways(a, b, &[(0, 1), (1, 0)], DATAGRAM_BYTES)
    }

    /// The same, of the largest packets that the overlay takes.
    pub(crate) fn full(a: (&Host, IpAddr), b: (&Host, IpAddr)) -> Self {
        Self::start_ways(a, b, &[(0, 1), (1, 0)], FULL_BYTES)
    }

    /// The same from `a` to `b` alone.
    pub(crate) fn one_way(a: (&Host, IpAddr), b: (&Host, IpAddr)) -> Self {
        Self::start_ways(a, b, &[(0, 1)], DATAGRAM_BYTES)
    }

    fn start_ways(a: (&Host, IpAddr), b: (&Host, IpAddr), ways: &[(usize, usize)], bytes: usize) -> Self {
        let epoch = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let sockets = [a, b].map(|(host, address)| host.enter(|| socket(address)));
        let addresses = sockets.each_ref().map(|socket| socket.local_addr().expect("a bound socket"));
        let directions = ways.iter().map(|&(from, to)| {
            let name = format!("{}→{}", [a, b][from].0.name, [a, b][to].0.name);
            let ends = [&sockets[from], &sockets[to]].map(|end| end.try_clone().expect("a second handle"));
            Direction::start(name, ends, addresses[to], epoch, (&stop, bytes))
        });
        Self { directions: directions.collect(), stop }
    }

    /// Datagrams that have arrived so far in the slower direction.
    pub(crate) fn arrived(&self) -> u64 {
        self.directions.iter().map(|direction| lock(&direction.arrivals).unique).min().unwrap_or(0)
    }

    /// Waits until another `count` datagrams have arrived in both directions.
    pub(crate) fn wait_for_more(&self, world: &World, count: u64) {
        let goal = self.arrived() + count;
        let what = format!("{count} more datagrams of the stream in both directions");
        world.wait_for(&what, Duration::from_secs(20), || (self.arrived() >= goal).then_some(()));
    }

    /// Waits until another `count` datagrams have arrived both ways, and demands that up to here everything
    /// is whole: so a fault shows in the step that caused it. Gives the longest gap of either direction.
    pub(crate) fn step(&self, world: &World, name: &str, count: u64) -> Duration {
        self.wait_for_more(world, count);
        let mut longest = Duration::ZERO;
        for direction in &self.directions {
            let sent = direction.sent.load(Ordering::Relaxed);
            let what = format!("{name}: all of the first {sent} datagrams {}", direction.name);
            world.wait_for(&what, STRAGGLER_LIMIT, || (lock(&direction.arrivals).whole >= sent).then_some(()));
            let mut arrivals = lock(&direction.arrivals);
            let wrong = (arrivals.duplicated, arrivals.reordered);
            assert_eq!(wrong, (0, 0), "{name}: duplicated and reordered datagrams {}", direction.name);
            let gap = std::mem::take(&mut arrivals.step_gap);
            eprintln!("    {name}: {} whole, longest gap {:.1} ms", direction.name, gap.as_secs_f64() * 1e3);
            longest = longest.max(gap);
        }
        longest
    }

    /// Stops sending, waits for stragglers, and gives the account of each direction.
    pub(crate) fn finish(mut self) -> Vec<Account> {
        self.stop.store(true, Ordering::Relaxed);
        for direction in &mut self.directions {
            join(&mut direction.sender);
        }
        let stopped = Instant::now();
        let accounts: Vec<_> = self.directions.iter_mut().map(|direction| direction.finish(stopped)).collect();
        for account in &accounts {
            eprintln!("    {account}");
        }
        accounts
    }

    /// Finishes and demands that nothing was lost, doubled or reordered.
    pub(crate) fn finish_perfect(self) -> Vec<Account> {
        let accounts = self.finish();
        accounts.iter().for_each(Account::assert_perfect);
        accounts
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for direction in &self.directions {
            direction.closed.store(true, Ordering::Relaxed);
        }
    }
}

impl Direction {
    fn start(
        name: String,
        [from, to]: [UdpSocket; 2],
        target: SocketAddr,
        epoch: Instant,
        (stop, bytes): (&Arc<AtomicBool>, usize),
    ) -> Self {
        let (sent, arrivals) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Arrivals>>::default());
        let closed = Arc::<AtomicBool>::default();
        let sender = {
            let (sent, stop) = (Arc::clone(&sent), Arc::clone(stop));
            thread::spawn(move || send_all(&from, target, epoch, &sent, (&stop, bytes)))
        };
        let receiver = {
            let (arrivals, closed) = (Arc::clone(&arrivals), Arc::clone(&closed));
            thread::spawn(move || receive_all(&to, epoch, &arrivals, (&closed, bytes)))
        };
        Self { name, sent, arrivals, closed, sender: Some(sender), receiver: Some(receiver) }
    }

    fn finish(&mut self, stopped: Instant) -> Account {
        let sent = self.sent.load(Ordering::Relaxed);
        loop {
            let (unique, last) = {
                let arrivals = lock(&self.arrivals);
                (arrivals.unique, arrivals.last.map_or(stopped, |last| last.max(stopped)))
            };
            if unique >= sent || last.elapsed() > STRAGGLER_LIMIT {
                break;
            }
            thread::sleep(POLL_INTERVAL);
        }
        // One more look, so that a late duplicate of the last datagrams is counted too.
        thread::sleep(POLL_INTERVAL * 5);
        self.closed.store(true, Ordering::Relaxed);
        join(&mut self.receiver);
        let arrivals = lock(&self.arrivals);
        let came = |number: u64| arrivals.seen.get(number as usize).copied().unwrap_or(false);
        Account {
            direction: self.name.clone(),
            sent,
            received: arrivals.unique,
            lost: (0..sent).filter(|number| !came(*number)).count() as u64,
            duplicated: arrivals.duplicated,
            reordered: arrivals.reordered,
            longest_gap: arrivals.longest_gap,
            longest_delay: arrivals.longest_delay,
            missing: (0..sent).filter(|number| !came(*number)).take(20).collect(),
        }
    }
}

impl Arrivals {
    fn note(&mut self, number: u64, delay: Duration) {
        let now = Instant::now();
        let index = number as usize;
        if self.seen.len() <= index {
            self.seen.resize(index + 1, false);
        }
        if self.seen[index] {
            self.duplicated += 1;
            return;
        }
        self.seen[index] = true;
        self.unique += 1;
        if self.highest.is_some_and(|highest| number < highest) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(number));
        while self.seen.get(self.whole as usize) == Some(&true) {
            self.whole += 1;
        }
        if let Some(last) = self.last {
            self.longest_gap = self.longest_gap.max(now - last);
            self.step_gap = self.step_gap.max(now - last);
        }
        self.last = Some(now);
        self.longest_delay = self.longest_delay.max(delay);
    }
}

fn socket(address: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap_or_else(|error| panic!("cannot bind to {address}: {error}"));
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).expect("root may have a large receive buffer");
    socket.set_read_timeout(Some(POLL_INTERVAL)).expect("a read timeout is a plain option");
    socket
}

fn send_all(socket: &UdpSocket, target: SocketAddr, epoch: Instant, sent: &AtomicU64, (stop, bytes): (&AtomicBool, usize)) {
    let mut datagram = vec![0x5a_u8; bytes];
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = sent.load(Ordering::Relaxed);
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        datagram[8..16].copy_from_slice(&(epoch.elapsed().as_nanos() as u64).to_be_bytes());
        // What the kernel refused was never sent; the number is used again.
        if socket.send_to(&datagram, target).is_ok() {
            sent.store(number + 1, Ordering::Relaxed);
        }
        due += INTERVAL;
        let now = Instant::now();
        // A sender that was held up goes on at its pace and does not make a burst of it.
        due = due.max(now);
        thread::sleep(due - now);
    }
}

fn receive_all(socket: &UdpSocket, epoch: Instant, arrivals: &Mutex<Arrivals>, (closed, bytes): (&AtomicBool, usize)) {
    let mut buffer = [0_u8; 2048];
    while !closed.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(came) if came == bytes => {
                let field = |at: usize| u64::from_be_bytes(buffer[at..at + 8].try_into().expect("eight bytes"));
                let now_ns = epoch.elapsed().as_nanos() as u64;
                let delay = Duration::from_nanos(now_ns.saturating_sub(field(8)));
                lock(arrivals).note(field(0), delay);
            }
            Ok(other) => panic!("a datagram of {other} bytes: somebody changed our traffic"),
            Err(error) if is_quiet(&error) => {}
            Err(error) => panic!("receiving failed: {error}"),
        }
    }
}

/// Nothing there yet (a signal ends the wait, too), or an ICMP complaint about what we sent, which the sender's count covers.
fn is_quiet(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::WouldBlock | Kind::TimedOut | Kind::Interrupted | Kind::ConnectionRefused | Kind::HostUnreachable | Kind::NetworkUnreachable
    )
}

fn join(thread: &mut Option<JoinHandle<()>>) {
    if let Some(thread) = thread.take() {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

fn lock(arrivals: &Mutex<Arrivals>) -> std::sync::MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}
