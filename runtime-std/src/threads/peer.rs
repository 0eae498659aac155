//! A peer on blocking threads.
use super::{
    dial::{Dialled, dial},
    drive::{Driven, Errand, Queue, drive, next},
    poll::Token,
    pumps::Pumps,
    workers::Workers,
};
use crate::{
    StartError, clock, listen,
    peer::{Command, Control, DOOR, Interface, MemoryInterface, Number, Peer, PeerDoors, PeerOptions, Seat, Setup, deliver_to_memory},
    room::{Doors, Room, TURN_PACKETS},
    tun::{Device, Shape},
    tunnel::Proxies,
};
use core::{
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};
use rustls::ServerConfig;
use shadowmesh_core::{
    crypto::Provider,
    event::{Ended, Target},
    handshake::Job,
    id::ConnId,
    offload::{Joins, Offload},
};
use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    net::UdpSocket,
    ops::Bound,
    os::fd::BorrowedFd,
    sync::Arc,
    time::Instant,
};

/// The number of the netlink socket among those that have datagrams.
const NETLINK: Number = Number::MAX;

/// Dials at once; more wait for their turn, within their time.
const DIALS: usize = 64;

/// Starts a thread of its own that runs the node, its data plane and all connections.
///
/// # Errors
/// A sentence: no permission for the interface, its name taken, the port in use.
pub fn start(options: PeerOptions) -> Result<Peer, StartError> {
    let (setup, interface) = Setup::new(options)?;
    let mut interface = Opened::open(interface)?;
    let (name, queues) = (interface.device_name(), interface.take_queues());
    setup.launch(name.as_deref(), queues, move |seat, commands| run(seat, commands, interface))
}

/// An interface that is open, on its way to the driver's thread.
enum Opened {
    Device(Device),
    Memory(MemoryInterface),
}

/// An interface and where its reader stands.
enum Link {
    Device { device: Device, buffer: Vec<u8>, readable: bool },
    Memory { inbound: Queue<Vec<u8>>, outbound: flume::Sender<Vec<u8>> },
}

type PeerRoom = Control<ThreadDoors>;

/// What the control room wants done, done by this thread and its workers.
struct ThreadDoors {
    pumps: Pumps<PeerRoom>,
    dials: Workers,
    link: Link,
    listen_tcp: SocketAddr,
    server_config: Arc<ServerConfig>,
    proxies: Arc<Proxies>,
    /// Sockets that may have datagrams, that of netlink among them.
    readable: BTreeSet<Number>,
}

/// Runs a peer to its end.
fn run(seat: Seat, commands: flume::Receiver<Command>, interface: Opened) -> Result<(), String> {
    let unusable = |why: io::Error| format!("cannot wait for the network: {why}");
    let (errands, handed_in) = flume::unbounded::<Errand<PeerRoom>>();
    let pumps = Pumps::new(errands).map_err(unusable)?;
    let link = interface.link(&pumps).map_err(unusable)?;
    let (listen_tcp, server_config, proxies) = (seat.listen_tcp, Arc::clone(&seat.server_config), Arc::clone(&seat.proxies));
    let doors =
        ThreadDoors { pumps, dials: Workers::new("mesh-dial", DIALS), link, listen_tcp, server_config, proxies, readable: BTreeSet::new() };
    drive(seat.control(clock::now(), doors), commands, handed_in)
}

impl Opened {
    fn open(interface: Interface) -> Result<Self, StartError> {
        match interface {
            Interface::Memory(memory) => Ok(Self::Memory(memory)),
            Interface::Device { name, layer2, mtu, addresses, mac, queues } => {
                Device::open(&Shape { name, layer2, mtu, addresses, mac, queues }).map(Self::Device)
            }
        }
    }

    /// The name of a kernel interface.
    fn device_name(&self) -> Option<String> {
        match self {
            Self::Device(device) => Some(device.name().to_owned()),
            Self::Memory(_) => None,
        }
    }

    /// The queues of a kernel interface beside the first.
    fn take_queues(&mut self) -> Vec<Device> {
        match self {
            Self::Device(device) => device.take_queues(),
            Self::Memory(_) => Vec::new(),
        }
    }

    /// The interface on the thread that uses it.
    fn link(self, pumps: &Pumps<PeerRoom>) -> io::Result<Link> {
        match self {
            Self::Device(device) => {
                pumps.poll().watch(&device, Token::Interface)?;
                let buffer = vec![0; device.buffer_len()];
                Ok(Link::Device { device, buffer, readable: true })
            }
            Self::Memory(memory) => Ok(Link::Memory { inbound: memory.inbound.into_stream(), outbound: memory.outbound }),
        }
    }
}

impl Driven for PeerRoom {
    fn pumps(&mut self) -> &mut Pumps<Self> {
        &mut self.doors().pumps
    }

    fn interface_ready(&mut self) {
        if let Link::Device { readable, .. } = &mut self.doors().link {
            *readable = true;
        }
    }

    fn datagrams_ready(&mut self, number: u32, writable: bool) {
        if writable && number != NETLINK {
            // Told again by the next edge when there is too little.
            self.datagram_room(clock::now(), number);
        }
        self.doors().readable.insert(number);
    }

    fn read_datagrams(&mut self) -> bool {
        let mut next = self.doors().readable.first().copied();
        while let Some(number) = next {
            let more = match number {
                // After an error it is silent for ever: an edge comes only when something does.
                NETLINK => self.network_changed(clock::now()).unwrap_or(false),
                _ => self.datagrams(clock::now(), number) || self.is_busy(),
            };
            if !more {
                self.doors().readable.remove(&number);
            }
            next = self.doors().readable.range((Bound::Excluded(number), Bound::Unbounded)).next().copied();
        }
        !self.doors().readable.is_empty()
    }

    fn read_interface(&mut self, waker: &mut Context<'_>) -> bool {
        let more = read_packets(self, waker);
        self.packets_over();
        more
    }
}

/// Hands packets to the room, up to a number; true when there may be more.
fn read_packets(room: &mut PeerRoom, waker: &mut Context<'_>) -> bool {
    let mut taken = 0;
    while taken < TURN_PACKETS {
        // A queue hands a packet over to the room, which may write to the queue beside it.
        match room.doors().link.read(waker) {
            Ok(Some(packet)) => {
                taken += room.packet(clock::now(), packet.offload(), packet.bytes());
                room.doors().link.give_back(packet);
            }
            Ok(None) => return false,
            Err(why) => {
                room.interface_gone(why);
                return false;
            }
        }
    }
    true
}

/// One packet of an interface: in the buffer that goes back to it, or of its own.
enum Packet {
    Buffer { buffer: Vec<u8>, len: usize, offload: Offload },
    Owned(Vec<u8>),
}

impl Packet {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Buffer { buffer, len, .. } => &buffer[..*len],
            Self::Owned(bytes) => bytes,
        }
    }

    fn offload(&self) -> Offload {
        match self {
            Self::Buffer { offload, .. } => *offload,
            Self::Owned(_) => Offload::default(),
        }
    }
}

impl Link {
    /// The next packet; `None` when there is none now. An error is a sentence: the interface is gone.
    fn read(&mut self, waker: &mut Context<'_>) -> Result<Option<Packet>, String> {
        match self {
            Self::Device { device, buffer, readable } if *readable => match device.read(buffer) {
                Ok((offload, len)) => Ok(Some(Packet::Buffer { buffer: core::mem::take(buffer), len, offload })),
                Err(why) if why.kind() == ErrorKind::WouldBlock => {
                    *readable = false;
                    Ok(None)
                }
                Err(why) => Err(format!("the interface {} is gone: {why}", device.name())),
            },
            Self::Memory { inbound, .. } => match next(inbound, waker) {
                Poll::Ready(Some(packet)) => Ok(Some(Packet::Owned(packet))),
                // `Ready(None)`: whoever fed the queue has gone. The peer goes on, with nothing of its own to send.
                Poll::Ready(None) | Poll::Pending => Ok(None),
            },
            Self::Device { .. } => Ok(None),
        }
    }

    fn give_back(&mut self, packet: Packet) {
        if let (Self::Device { buffer, .. }, Packet::Buffer { buffer: used, .. }) = (self, packet) {
            *buffer = used;
        }
    }

    fn joins(&self) -> Joins {
        match self {
            Self::Device { device, .. } => device.joins(),
            Self::Memory { .. } => Joins::default(),
        }
    }

    fn write(&self, offload: Offload, packet: &[u8]) -> io::Result<()> {
        match self {
            Self::Device { device, .. } => device.write(offload, packet),
            Self::Memory { outbound, .. } => deliver_to_memory(outbound, offload, packet),
        }
    }
}

impl Doors for ThreadDoors {
    fn ring(&mut self) {
        self.pumps.ring();
    }

    fn wake(&mut self, conn: ConnId) {
        self.pumps.wake(conn);
    }

    fn hang_up(&mut self, conn: ConnId) {
        // A dial goes on to its end, and nobody wants its result.
        self.pumps.hang_up(conn);
    }

    fn close(&mut self, conn: ConnId) {
        self.pumps.close(conn);
    }

    fn close_listeners(&mut self) {
        self.pumps.close_listeners();
    }

    fn compute(&mut self, job: Job, crypto: Arc<dyn Provider>) {
        self.pumps.compute(job, crypto);
    }
}

impl PeerDoors for ThreadDoors {
    fn joins(&self) -> Joins {
        self.link.joins()
    }

    fn deliver(&mut self, offload: Offload, packet: &[u8]) -> io::Result<()> {
        self.link.write(offload, packet)
    }

    fn dial(&mut self, conn: ConnId, target: Target, timeout: Duration) {
        let (errands, end) = (self.pumps.errands(), Instant::now() + timeout);
        let (proxies, server) = (Arc::clone(&self.proxies), Arc::clone(&self.server_config));
        self.dials.run(move || {
            let outcome = dial(target, &proxies, &server, end);
            // A peer that has ended needs no connections.
            let _ = errands.send(Box::new(move |room: &mut PeerRoom| dialled(room, conn, outcome)));
        });
    }

    fn watch_datagrams(&mut self, number: Number, socket: &UdpSocket) -> io::Result<()> {
        self.pumps.poll().watch(socket, Token::Datagrams(number))
    }

    fn unwatch_datagrams(&mut self, number: Number) {
        self.readable.remove(&number);
    }

    fn watch_network(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.pumps.poll().watch(socket, Token::Datagrams(NETLINK))
    }

    fn await_datagram_room(&mut self, _number: Number) {
        // The socket is watched for that, too.
    }

    fn open_listener(&mut self) -> Option<u16> {
        let opened = listen::bind_any(self.listen_tcp).map_err(|why| why.to_string()).and_then(|listener| {
            let port = listener.local_addr().map(|address| address.port());
            let listening = self.pumps.listen(listener, Arc::clone(&self.server_config), DOOR);
            listening.and(port).map_err(|why| why.to_string())
        });
        opened.inspect_err(|why| tracing::warn!(%why, "no direct connections can come in")).ok()
    }
}

/// A dial has ended one way or the other.
fn dialled(room: &mut PeerRoom, conn: ConnId, outcome: Result<Dialled, Ended>) {
    if !room.wants(conn) {
        return; // hung up meanwhile
    }
    match outcome {
        Ok(Dialled { socket, tls, local, remote }) => match room.pumps().attach(conn, socket) {
            Ok(()) => room.opened(clock::now(), conn, tls, local, remote),
            Err(why) => room.failed(conn, why),
        },
        Err(why) => room.failed(conn, why),
    }
}
