//! Opening connections on a thread that may block: name, TCP, TLS 1.3, WebSocket, all within one time limit (protocol 6).
use super::{
    handshake::{Accepting, Dialling, Socket, Step},
    stream::TlsStream,
};
use crate::{
    ahead::ReadAhead,
    connect,
    dial::{Plan, Reach, TCP_WITHIN, patience, served},
    tls,
    tunnel::Proxies,
};
use core::{net::SocketAddr, time::Duration};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use rustls::{ClientConnection, Connection, ServerConfig};
use shadowmesh_core::{
    event::{Ended, Target, TlsFacts, TlsRole},
    id::PeerId,
};
use std::{
    io::ErrorKind,
    net::{TcpStream, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

/// Look-ups at once in this process; a resolver that does not answer holds its thread for many seconds.
const LOOKUPS: usize = 16;

static LOOKUPS_RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A connection that stands.
pub(crate) struct Dialled {
    /// The WebSocket.
    pub(crate) socket: Socket,
    /// What TLS showed.
    pub(crate) tls: TlsFacts,
    /// This end's address.
    pub(crate) local: SocketAddr,
    /// The other end's address.
    pub(crate) remote: SocketAddr,
}

/// Opens a connection to `target` before `end`, through a proxy if there is one for it. `server`: how this end serves, where it is to.
///
/// # Errors
/// Why it came to nothing; of several addresses, the last one's reason.
pub(crate) fn dial(target: Target, proxies: &Proxies, server: &Arc<ServerConfig>, end: Instant) -> Result<Dialled, Ended> {
    let plan = Plan::new(target, proxies)?;
    in_turn(&plan, end, |plan, address, end| open(plan, server, address, end)).map_err(|why| plan.failed(why))
}

/// Tries the addresses of a plan, until one is good.
fn in_turn<T>(plan: &Plan, end: Instant, attempt: impl Fn(&Plan, SocketAddr, Instant) -> Result<T, Ended>) -> Result<T, Ended> {
    let addresses = addresses(plan, end)?;
    let mut last = Ended::Unreachable;
    for (tried, address) in addresses.iter().enumerate() {
        let patience = patience(tried + 1 == addresses.len(), left(end)?);
        match attempt(plan, *address, Instant::now() + patience) {
            Ok(done) => return Ok(done),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// What is left of the time.
fn left(end: Instant) -> Result<Duration, Ended> {
    end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or(Ended::TimedOut)
}

/// Finds the addresses to try.
fn addresses(plan: &Plan, end: Instant) -> Result<Vec<SocketAddr>, Ended> {
    let name = match plan.lookup() {
        Err(known) => return Ok(vec![known]),
        Ok(name) => name,
    };
    if let Ok(address) = name.0.trim_matches(['[', ']']).parse() {
        return Ok(vec![SocketAddr::new(address, name.1)]);
    }
    let slot = Lookup::begin().ok_or_else(|| plan.unresolved("too many look-ups are under way"))?;
    let (tell, told) = flume::bounded(1);
    let look = move || {
        let found = name.to_socket_addrs().map(Vec::from_iter);
        drop(slot);
        // Whoever asked may have stopped waiting.
        let _ = tell.send(found);
    };
    thread::Builder::new().name("mesh-lookup".to_owned()).spawn(look).map_err(|why| plan.unresolved(why))?;
    let found = told.recv_timeout(left(end)?).map_err(|_| Ended::TimedOut)?;
    plan.in_turn(found.map_err(|why| plan.unresolved(why))?)
}

/// The place of one look-up.
struct Lookup;

impl Lookup {
    fn begin() -> Option<Self> {
        let more = |running: usize| (running < LOOKUPS).then_some(running + 1);
        LOOKUPS_RUNNING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        LOOKUPS_RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens TCP and TLS to a relay, within `time`, and closes both again. A name is looked up before the clock starts.
///
/// # Errors
/// Why it came to nothing.
pub fn reach(url: String, pin: Option<PeerId>, proxies: &Proxies, time: Duration) -> Result<Reach, Ended> {
    let plan = Plan::new(Target::Relay { index: 0, url, pin }, proxies)?;
    in_turn(&plan, Instant::now() + time, shake_hands).map_err(|why| plan.failed(why))
}

fn shake_hands(plan: &Plan, remote: SocketAddr, end: Instant) -> Result<Reach, Ended> {
    let start = Instant::now();
    let tcp = connect(plan, remote, end)?;
    let connected = Instant::now();
    tunnel(plan, &tcp, end)?;
    let client = ClientConnection::new(plan.tls(), tls::server_name(plan.host())?).map_err(|why| Ended::Tls(why.to_string()))?;
    let mut stream = TlsStream::new(Connection::Client(client), tcp);
    loop {
        match stream.handshake() {
            Ok(()) => return Ok(Reach { remote, tcp: connected - start, tls: connected.elapsed() }),
            Err(why) if why.kind() == ErrorKind::WouldBlock => await_word(stream.as_fd(), end)?,
            Err(why) => return Err(tls::ended(&why)),
        }
    }
}

fn open(plan: &Plan, server: &Arc<ServerConfig>, address: SocketAddr, end: Instant) -> Result<Dialled, Ended> {
    let tcp = connect(plan, address, end.min(Instant::now() + TCP_WITHIN))?;
    tunnel(plan, &tcp, end)?;
    if plan.role() == TlsRole::Server {
        return serve(tcp, Arc::clone(server), end);
    }
    let mut dialling = Dialling::client(tcp, plan.tls(), plan.host(), plan.url())?;
    loop {
        match dialling.step()? {
            Step::Done((socket, tls)) => {
                let (local, remote) = dialling.addresses();
                return Ok(Dialled { socket, tls, local, remote: plan.remote(remote) });
            }
            Step::Wait => wait(dialling.stream(), end)?,
        }
    }
}

/// Both ends have dialled, and this one is the server.
fn serve(tcp: TcpStream, config: Arc<ServerConfig>, end: Instant) -> Result<Dialled, Ended> {
    let mut accepting = Accepting::server(tcp, ReadAhead::of_handshake(), config)?;
    loop {
        match accepting.step()? {
            Step::Done((socket, exporter)) => {
                return Ok(Dialled { socket, tls: served(exporter), local: accepting.local, remote: accepting.remote });
            }
            Step::Wait => wait(accepting.stream(), end)?,
        }
    }
}

/// TCP, on a socket that does not block.
fn connect(plan: &Plan, remote: SocketAddr, end: Instant) -> Result<TcpStream, Ended> {
    let tcp = plan.begin(remote)?;
    await_ready(tcp.as_fd(), PollFlags::OUT, end)?;
    connect::begun(&tcp).map_err(|why| tls::ended(&why))?;
    Ok(tcp)
}

/// Where there is a proxy, the tunnel through it stands then.
fn tunnel(plan: &Plan, tcp: &TcpStream, end: Instant) -> Result<(), Ended> {
    let Some(mut tunnel) = plan.tunnel() else { return Ok(()) };
    while !tunnel.advance(tcp)? {
        await_word(tcp.as_fd(), end)?;
    }
    Ok(())
}

/// Waits until the other end has said something, or the socket takes more of what this end has to say.
fn wait(stream: Option<&TlsStream>, end: Instant) -> Result<(), Ended> {
    let Some(stream) = stream else {
        return Err(Ended::TimedOut);
    };
    let room = if stream.tls().wants_write() { PollFlags::OUT } else { PollFlags::empty() };
    await_ready(stream.as_fd(), PollFlags::IN | room, end)
}

fn await_word(socket: BorrowedFd<'_>, end: Instant) -> Result<(), Ended> {
    await_ready(socket, PollFlags::IN, end)
}

/// Waits until one of these is so, or the socket has an error. Whoever is woken too early comes again.
fn await_ready(socket: BorrowedFd<'_>, wanted: PollFlags, end: Instant) -> Result<(), Ended> {
    let left = Timespec::try_from(left(end)?).map_err(|_| Ended::TimedOut)?;
    match poll(&mut [PollFd::from_borrowed_fd(socket, wanted)], Some(&left)) {
        Ok(0) => Err(Ended::TimedOut),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(why) => Err(Ended::Local(why.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, tls::CertStore};
    use shadowmesh_core::crypto::Identity;
    use std::{net::TcpListener, time::SystemTime};

    const PIN: PeerId = PeerId([1; 32]);

    fn server() -> Arc<ServerConfig> {
        let identity = Identity::from_seed([2; 32]);
        let store = CertStore::new(&identity, Duration::from_hours(24), clock::now(), SystemTime::now()).expect("a certificate");
        tls::server_config(store)
    }

    fn try_dial(target: Target, time: Duration) -> Result<(), Ended> {
        dial(target, &Proxies::default(), &server(), Instant::now() + time).map(drop)
    }

    #[test]
    fn a_url_that_is_none_is_refused_with_a_reason() {
        let target = Target::Relay { index: 0, url: "https://relay.example".to_owned(), pin: None };
        let refused = try_dial(target, Duration::from_secs(1));
        assert!(matches!(&refused, Err(Ended::Local(why)) if why.contains("wss://")), "{refused:?}");
    }

    #[test]
    fn an_address_without_a_listener_is_refused_and_a_silent_one_times_out() {
        let gone = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        assert_eq!(try_dial(Target::Direct { address: gone, pin: PIN }, Duration::from_secs(5)), Err(Ended::Refused));
        let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = silent.local_addr().expect("address");
        assert_eq!(try_dial(Target::Direct { address, pin: PIN }, Duration::from_millis(30)), Err(Ended::TimedOut));
    }

    // protocol 6.10
    #[test]
    fn who_dialled_may_be_the_server_and_both_know_the_connection_by_one_name() {
        let there = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = there.local_addr().expect("address");
        let from = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let target = Target::Punch { address, from, pin: PIN, role: TlsRole::Server };
        let end = Instant::now() + Duration::from_secs(20);
        let serving = thread::spawn(move || dial(target, &Proxies::default(), &server(), end));
        let (tcp, seen) = there.accept().expect("it dials");
        assert_eq!(seen, from);
        tcp.set_nonblocking(true).expect("a plain option");
        let pin = Some(Identity::from_seed([2; 32]).id());
        let mut client =
            Dialling::client(tcp, tls::client_config(pin, false), "127.0.0.1", "wss://127.0.0.1/".to_owned()).expect("a client");
        let facts = loop {
            match client.step().expect("it serves") {
                Step::Done((_, facts)) => break facts,
                Step::Wait => wait(client.stream(), end).expect("it says something"),
            }
        };
        let served = serving.join().expect("no panic").expect("a connection");
        assert_eq!((served.tls.exporter, served.tls.identity, served.local, served.remote), (facts.exporter, None, from, address));
    }

    #[test]
    fn how_far_a_relay_is_needs_tls_at_the_other_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let url = format!("wss://{}", listener.local_addr().expect("address"));
        let silent = reach(url.clone(), None, &Proxies::default(), Duration::from_millis(30));
        assert_eq!(silent, Err(Ended::TimedOut));
        drop(listener);
        assert_eq!(reach(url, None, &Proxies::default(), Duration::from_secs(5)), Err(Ended::Refused));
    }

    #[test]
    fn look_ups_are_bounded() {
        let all: Vec<_> = core::iter::from_fn(Lookup::begin).take(LOOKUPS + 1).collect();
        assert!(all.len() <= LOOKUPS);
        assert!(Lookup::begin().is_none());
        drop(all);
        assert!(Lookup::begin().is_some());
    }
}
