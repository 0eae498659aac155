//! Bulk data over TCP: a file of reproducible noise whose SHA-256 is taken at both ends, and iperf3.

use crate::process::Process;
use crate::world::{Host, World};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const CHUNK_BYTES: usize = 32 << 10;
const SOCKET_PATIENCE: Duration = Duration::from_millis(200);

/// A file on its way from one host to another.
pub(crate) struct Transfer {
    shared: Arc<Shared>,
    sender: JoinHandle<io::Result<[u8; 32]>>,
    receiver: JoinHandle<io::Result<[u8; 32]>>,
}

/// The file has arrived.
pub(crate) struct Arrived {
    pub(crate) sent: [u8; 32],
    pub(crate) received: [u8; 32],
    pub(crate) bytes: u64,
}

struct Shared {
    total: u64,
    /// Bytes a second while the file is held back.
    rate: u64,
    held_back: AtomicBool,
    received: AtomicU64,
    given_up: AtomicBool,
}

impl Transfer {
    /// Starts to send `total` bytes at `rate` bytes a second, all but the last twentieth of them, until
    /// `release`: so the file is still under way at each fault that the test makes in between.
    pub(crate) fn start(from: &Host, to: (&Host, IpAddr), total: u64, rate: u64) -> Self {
        let shared = Arc::new(Shared {
            total,
            rate,
            held_back: AtomicBool::new(true),
            received: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
        });
        let listener = to.0.enter(|| TcpListener::bind((to.1, 0)).expect("the overlay address can be bound"));
        let target = listener.local_addr().expect("a bound listener");
        let receiver = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || receive(&listener, &shared))
        };
        let kind = if target.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = from.enter(|| Socket::new(kind, Type::STREAM, None).expect("a TCP socket"));
        let sender = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || send(socket, target, &shared))
        };
        Self { shared, sender, receiver }
    }

    /// Bytes that have arrived.
    pub(crate) fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Waits until another `count` bytes have arrived.
    pub(crate) fn wait_for_more(&self, world: &World, count: u64) {
        let goal = self.received() + count;
        let what = format!("{count} more bytes of the file");
        world.wait_for(&what, Duration::from_secs(30), || (self.received() >= goal).then_some(()));
    }

    /// From here on as fast as TCP goes.
    pub(crate) fn release(&self) {
        self.shared.held_back.store(false, Ordering::Relaxed);
    }

    /// Waits for the end of the file; panics when it does not come in time.
    pub(crate) fn finish(self, world: &World, limit: Duration) -> Arrived {
        self.release();
        let mut patience = world.patience(limit);
        while !(patience.is_over() || self.sender.is_finished() && self.receiver.is_finished()) {
            thread::sleep(crate::world::POLL_INTERVAL);
        }
        self.shared.given_up.store(true, Ordering::Relaxed);
        let bytes = self.received();
        let [sent, received] = [self.sender, self.receiver].map(|thread| {
            let hash = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            hash.unwrap_or_else(|error| panic!("the file did not arrive ({bytes} bytes did): {error}"))
        });
        Arrived { sent, received, bytes }
    }
}

/// Noise that is the same in each run: `SplitMix64` from a fixed seed.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..word.len()]);
        }
    }
}

fn send(socket: Socket, target: SocketAddr, shared: &Shared) -> io::Result<[u8; 32]> {
    socket.connect_timeout(&target.into(), Duration::from_secs(10))?;
    let mut stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(SOCKET_PATIENCE))?;
    let (mut noise, mut hash) = (Noise(0x5348_4144_4f57), Sha256::new());
    let (mut buffer, mut sent, start) = (vec![0; CHUNK_BYTES], 0_u64, Instant::now());
    while sent < shared.total {
        let length = (shared.total - sent).min(CHUNK_BYTES as u64);
        let chunk = &mut buffer[..length as usize];
        while shared.held_back.load(Ordering::Relaxed) && sent + length > shared.allowance(start.elapsed()) {
            shared.check()?;
            thread::sleep(Duration::from_millis(2));
        }
        noise.fill(chunk);
        hash.update(&*chunk);
        write_all(&mut stream, chunk, shared)?;
        sent += length;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(hash.finalize().into())
}

fn write_all(stream: &mut TcpStream, mut bytes: &[u8], shared: &Shared) -> io::Result<()> {
    while !bytes.is_empty() {
        shared.check()?;
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn receive(listener: &TcpListener, shared: &Shared) -> io::Result<[u8; 32]> {
    listener.set_nonblocking(true)?;
    let mut stream = loop {
        shared.check()?;
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if is_timeout(&error) => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SOCKET_PATIENCE))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        shared.check()?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(count) => {
                hash.update(&buffer[..count]);
                shared.received.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

impl Shared {
    /// How much may be sent after this time while the file is held back: its last twentieth never.
    fn allowance(&self, elapsed: Duration) -> u64 {
        let paced = u128::from(self.rate) * elapsed.as_millis() / 1000;
        let paced = u64::try_from(paced).unwrap_or(u64::MAX).max(CHUNK_BYTES as u64);
        paced.min(self.total - self.total / 20)
    }

    fn check(&self) -> io::Result<()> {
        let given_up = self.given_up.load(Ordering::Relaxed);
        if given_up { Err(io::Error::new(io::ErrorKind::TimedOut, "the test's time is over")) } else { Ok(()) }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// A TCP stream by iperf3, when it is installed: somebody else's idea of traffic.
pub(crate) struct Iperf {
    client: Process,
    // Dropped after the client.
    _server: Process,
}

impl Iperf {
    /// Starts a stream of 20 Mbit/s, which leaves room for the numbered stream on a slow machine, until
    /// `finish`. `None` without iperf3.
    pub(crate) fn start(world: &World, from: &Host, to: (&Host, IpAddr)) -> Option<Self> {
        let found = Command::new("iperf3").arg("--version").output().is_ok_and(|output| output.status.success());
        if !found {
            eprintln!("    iperf3 is not installed: the numbered stream runs alone");
            return None;
        }
        let address = to.1.to_string();
        let mut server = to.0.command("iperf3");
        server.args(["-s", "-1", "--forceflush", "-B", &address]);
        let server = Process::start(server, world.log_file("iperf3-server"));
        world.wait_for("iperf3 to listen", Duration::from_secs(5), || server.said().contains("listening").then_some(()));
        let mut client = from.command("iperf3");
        client.args(["-c", &address, "-t", "600", "-b", "20M", "-J"]);
        Some(Self { client: Process::start(client, world.log_file("iperf3-client")), _server: server })
    }

    /// Ends it; it must have run without an error until now, and moved data in each of its seconds.
    pub(crate) fn finish(mut self) {
        assert!(self.client.ended().is_none(), "iperf3 ended by itself:\n{}", self.client.said());
        self.client.signal(Signal::INT);
        self.client.end_within(Duration::from_secs(10));
        // What it says goes to one file: the JSON first, then on stderr that it was interrupted.
        let said = self.client.said();
        let json = serde_json::Deserializer::from_str(&said).into_iter::<serde_json::Value>().next();
        let report = json.and_then(Result::ok).unwrap_or_else(|| panic!("iperf3 -J prints JSON, not this:\n{said}"));
        let sum = &report["end"]["sum_sent"];
        let (bytes, resent) = (sum["bytes"].as_u64().unwrap_or(0), sum["retransmits"].as_u64().unwrap_or(0));
        let seconds = report["intervals"].as_array().map_or(&[][..], Vec::as_slice);
        eprintln!("    iperf3 moved {bytes} bytes over TCP in {} s and sent {resent} segments again", seconds.len());
        let moved = |second: &serde_json::Value| second["sum"]["bytes"].as_u64();
        assert!(bytes > 1_000_000 && seconds.iter().all(|second| moved(second) > Some(0)), "the TCP stream stood still:\n{said}");
    }
}
