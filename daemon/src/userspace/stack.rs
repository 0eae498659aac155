//! A TCP/IP stack on the queues of a peer without a device: smoltcp, its clock, and sockets that tasks can wait for.
use super::queues::Queues;
use futures_lite::{AsyncRead, AsyncWrite, future};
use smol::Timer;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    socket::{tcp, udp},
    time::Instant,
    wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint},
};
use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

/// Bytes that wait in each direction of one connection: half a gigabit a second over 2 ms.
const TCP_BUFFER: usize = 128 * 1024;
/// Datagrams, and their bytes, that wait in each direction of one socket.
const UDP_PACKETS: usize = 64;
const UDP_BUFFER: usize = 128 * 1024;
/// Sockets at one time, those included that are saying good-bye.
const MAX_SOCKETS: usize = 512;
/// How long a connection may take to come about.
const CONNECT_TIME: Duration = Duration::from_secs(20);
/// How long data may be out without a sign of life, and after how much silence one is asked for.
const DEAD_TIME: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);
const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(30);
/// How long a connection that was let go may take to say good-bye.
const GOODBYE_TIME: Duration = Duration::from_secs(30);
/// A look at a peer whose queue was full.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Where our own ports begin (RFC 6335).
const FIRST_PORT: u16 = 49_152;

/// The stack, shared by the tasks of one thread.
#[derive(Clone)]
pub(crate) struct Stack {
    inner: Rc<RefCell<Inner>>,
    /// Rung when a task has changed a socket.
    bell: (flume::Sender<()>, flume::Receiver<()>),
    began: std::time::Instant,
}

struct Inner {
    interface: Interface,
    device: Queues,
    sockets: SocketSet<'static>,
    leaving: Vec<Leaving>,
    /// The port that was given last.
    port: u16,
}

/// A connection that its task has let go.
struct Leaving {
    handle: SocketHandle,
    /// When patience ends.
    until: std::time::Instant,
}

impl Stack {
    /// A stack with these addresses.
    pub(crate) fn new(mut device: Queues, addresses: &[(IpAddr, u8)], seed: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, Instant::ZERO);
        interface.update_ip_addrs(|list| {
            for (address, length) in addresses {
                // Eight fit: more than a peer is given by anybody who means it.
                let _ = list.push(IpCidr::new(IpAddress::from(*address), *length));
            }
        });
        // The mesh finds the holder of each address: a gateway is only a name for it.
        for (address, _) in addresses {
            let _ = match address {
                IpAddr::V4(address) => interface.routes_mut().add_default_ipv4_route(*address),
                IpAddr::V6(address) => interface.routes_mut().add_default_ipv6_route(*address),
            };
        }
        let port = FIRST_PORT + (seed >> 16) as u16 % (u16::MAX - FIRST_PORT);
        let inner = Inner { interface, device, sockets: SocketSet::new(Vec::new()), leaving: Vec::new(), port };
        Self { inner: Rc::new(RefCell::new(inner)), bell: flume::bounded(1), began: std::time::Instant::now() }
    }

    /// Moves packets and timers for as long as the peer lives.
    pub(crate) async fn run(&self) {
        let inbound = self.inner.borrow().device.inbound();
        loop {
            let wait = self.turn();
            let timer = async {
                match wait {
                    Some(wait) => Timer::after(wait).await,
                    None => future::pending().await,
                };
                true
            };
            let packet = async {
                let Ok(packet) = inbound.recv_async().await else { return false };
                self.inner.borrow_mut().device.put(packet);
                true
            };
            let rung = async { self.bell.1.recv_async().await.is_ok() };
            if !future::or(packet, future::or(rung, timer)).await {
                return;
            }
        }
    }

    /// One look at everything; how long until the next timer.
    fn turn(&self) -> Option<Duration> {
        let now = Instant::from_micros(i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX));
        let Inner { interface, device, sockets, leaving, .. } = &mut *self.inner.borrow_mut();
        interface.poll(now, device, sockets);
        let clock = std::time::Instant::now();
        leaving.retain(|Leaving { handle, until }| {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(*handle);
            // TIME-WAIT guards against a successor with the same ports: ours come in turn.
            if matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait) {
                sockets.remove(*handle);
                return false;
            }
            if *until <= clock {
                socket.abort(); // the reset leaves with the next look, and that is the end of it
            }
            true
        });
        let patience = leaving.iter().map(|leaving| leaving.until.saturating_duration_since(clock)).min();
        let timer = interface.poll_delay(now, sockets).map(|delay| Duration::from_micros(delay.total_micros()));
        let timer = timer.into_iter().chain(patience).min();
        // Nobody rings when the peer's queue has room again.
        if device.is_full() { Some(timer.map_or(FULL_PAUSE, |timer| timer.max(FULL_PAUSE))) } else { timer }
    }

    fn ring(&self) {
        // One ring is as good as two.
        let _ = self.bell.0.try_send(());
    }

    /// Connects to an address of the mesh.
    ///
    /// # Errors
    /// No room for another connection; refused; no answer in time.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = self.tcp(|inner, handle| {
            let port = inner.free_port();
            let socket = inner.sockets.get_mut::<tcp::Socket<'_>>(handle);
            socket.connect(inner.interface.context(), IpEndpoint::from(to), port).map_err(|why| io::Error::other(format!("{to}: {why}")))
        })?;
        self.ring();
        let late = async {
            Timer::after(CONNECT_TIME).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        future::or(stream.established(), late).await?;
        Ok(stream)
    }

    /// Waits at a port of the mesh for one connection.
    ///
    /// # Errors
    /// No room for another connection.
    pub(crate) async fn accept(&self, port: u16) -> io::Result<TcpStream> {
        let stream = self.tcp(|inner, handle| {
            let socket = inner.sockets.get_mut::<tcp::Socket<'_>>(handle);
            socket.listen(port).map_err(|why| io::Error::other(format!("port {port}: {why}")))
        })?;
        // One that is reset before it stands goes back to listening by itself.
        stream.established().await?;
        Ok(stream)
    }

    /// A new TCP socket, to be begun by `begin`.
    fn tcp(&self, begin: impl FnOnce(&mut Inner, SocketHandle) -> io::Result<()>) -> io::Result<TcpStream> {
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(vec![0; TCP_BUFFER]), tcp::SocketBuffer::new(vec![0; TCP_BUFFER]));
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(DEAD_TIME));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_congestion_control(tcp::CongestionControl::Cubic);
        let inner = &mut *self.inner.borrow_mut();
        inner.has_room()?;
        let handle = inner.sockets.add(socket);
        if let Err(why) = begin(inner, handle) {
            inner.sockets.remove(handle);
            return Err(why);
        }
        Ok(TcpStream { stack: self.clone(), handle })
    }

    /// A UDP socket on a port of its own.
    ///
    /// # Errors
    /// No room for another socket.
    pub(crate) fn udp(&self) -> io::Result<UdpSocket> {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; UDP_PACKETS], vec![0; UDP_BUFFER]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        let inner = &mut *self.inner.borrow_mut();
        inner.has_room()?;
        let port = inner.free_port();
        socket.bind(IpListenEndpoint::from(port)).map_err(|why| io::Error::other(why.to_string()))?;
        let handle = inner.sockets.add(socket);
        Ok(UdpSocket { stack: self.clone(), handle })
    }
}

impl Inner {
    fn has_room(&self) -> io::Result<()> {
        if self.sockets.iter().count() >= MAX_SOCKETS { Err(io::Error::other("too many connections at once")) } else { Ok(()) }
    }

    /// The next port that no socket has: there are more of them than sockets.
    fn free_port(&mut self) -> u16 {
        loop {
            self.port = if self.port == u16::MAX { FIRST_PORT } else { self.port + 1 };
            let taken = self.sockets.iter().any(|(_, socket)| match socket {
                smoltcp::socket::Socket::Tcp(tcp) => tcp.local_endpoint().is_some_and(|end| end.port == self.port),
                smoltcp::socket::Socket::Udp(udp) => udp.endpoint().port == self.port,
            });
            if !taken {
                return self.port;
            }
        }
    }
}

/// A connection over the mesh; letting it go says good-bye.
pub(crate) struct TcpStream {
    stack: Stack,
    handle: SocketHandle,
}

impl TcpStream {
    fn with<T>(&self, work: impl FnOnce(&mut tcp::Socket<'static>) -> T) -> T {
        work(self.stack.inner.borrow_mut().sockets.get_mut::<tcp::Socket<'static>>(self.handle))
    }

    /// Waits until the handshake is over.
    async fn established(&self) -> io::Result<()> {
        poll_fn(|context| {
            self.with(|socket| match socket.state() {
                tcp::State::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
                tcp::State::Listen | tcp::State::SynSent | tcp::State::SynReceived => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                _ => Poll::Ready(Ok(())),
            })
        })
        .await
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = self.with(|socket| match socket.recv_slice(buffer) {
            Ok(0) if buffer.is_empty() => Poll::Ready(Ok(0)),
            Ok(0) => {
                socket.register_recv_waker(context.waker());
                Poll::Pending
            }
            Ok(len) => Poll::Ready(Ok(len)),
            Err(tcp::RecvError::Finished) => Poll::Ready(Ok(0)),
            Err(tcp::RecvError::InvalidState) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        });
        if matches!(read, Poll::Ready(Ok(1..))) {
            self.stack.ring(); // the window has grown
        }
        read
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.with(|socket| match socket.send_slice(bytes) {
            Ok(0) if bytes.is_empty() => Poll::Ready(Ok(0)),
            Ok(0) => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            Ok(len) => Poll::Ready(Ok(len)),
            Err(tcp::SendError::InvalidState) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        });
        if written.is_ready() {
            self.stack.ring();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the stack sends what it has by itself
    }

    fn poll_close(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(tcp::Socket::close);
        self.stack.ring();
        Poll::Ready(Ok(()))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.with(tcp::Socket::close);
        let until = std::time::Instant::now() + GOODBYE_TIME;
        self.stack.inner.borrow_mut().leaving.push(Leaving { handle: self.handle, until });
        self.stack.ring();
    }
}

/// A UDP socket on the mesh.
pub(crate) struct UdpSocket {
    stack: Stack,
    handle: SocketHandle,
}

impl UdpSocket {
    fn with<T>(&self, work: impl FnOnce(&mut udp::Socket<'static>) -> T) -> T {
        work(self.stack.inner.borrow_mut().sockets.get_mut::<udp::Socket<'static>>(self.handle))
    }

    /// Its port on the mesh.
    #[cfg(test)]
    pub(crate) fn port(&self) -> u16 {
        self.with(|socket| socket.endpoint().port)
    }

    /// Sends a datagram; one for which there is no room is lost, as datagrams are.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr) {
        let _ = self.with(|socket| socket.send_slice(bytes, IpEndpoint::from(to)));
        self.stack.ring();
    }

    /// The next datagram, and who sent it.
    pub(crate) async fn receive(&self) -> (Vec<u8>, SocketAddr) {
        poll_fn(|context| {
            self.with(|socket| {
                if let Ok((bytes, from)) = socket.recv() {
                    return Poll::Ready((bytes.to_vec(), SocketAddr::new(from.endpoint.addr.into(), from.endpoint.port)));
                }
                socket.register_recv_waker(context.waker());
                Poll::Pending
            })
        })
        .await
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.stack.inner.borrow_mut().sockets.remove(self.handle);
    }
}
