//! A running peer: what a program gets back from `start`, what it can ask, and the control room that all runtimes drive.

mod capture;
mod control;
mod flows;
mod inbox;
mod inside;
mod lanes;
mod log;
mod ports;
mod run;
mod traffic;

pub use crate::threads::peer::start;
pub use capture::{Captured, Direction, Wanted, Watch, Watcher};
pub use control::Control;
pub use flows::Number;
pub use inside::Inside;

use crate::{
    StartError,
    broadcast::Broadcast,
    clock,
    ending::Ending,
    journal::{JournalFile, Scribe},
    listen,
    mapping::{Listens, PortMapper},
    room::{COMMANDS, Doors},
    tls::{self, CertStore},
    tun::Device,
    tunnel::Proxies,
};
use control::plane_config;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use lanes::Lanes;
use rustls::ServerConfig;
use shadowmesh_core::{
    Node,
    config::{Member, NodeConfig, Tuning},
    event::{Note, PortMapping, Target},
    id::{ConnId, PeerId},
    offload::{self, Joins, Offload},
    plane::Plane,
    status::Status,
    succession::{Statement, Succession},
    time::Instant,
    wire::CONTROL_PIECE_MAX_LEN,
};
use std::{io, net::UdpSocket, os::fd::BorrowedFd, sync::Arc, time::SystemTime};

/// Limits of the direct listener: a peer has few others, and each gets in by its address alone (protocol 6).
pub const DOOR: listen::Bounds = listen::Bounds { handshakes: 32, handshakes_per_source: 8, time: Duration::from_secs(5) };

/// Where a peer's packets come from and go to.
pub enum Interface {
    /// A TUN or TAP device of the kernel; needs `CAP_NET_ADMIN`.
    Device {
        /// Its name, at most 15 bytes.
        name: String,
        /// TAP (Ethernet frames) instead of TUN (IP packets).
        layer2: bool,
        /// Largest packet in bytes, without an Ethernet header.
        mtu: u16,
        /// Addresses with prefix length.
        addresses: Vec<(IpAddr, u8)>,
        /// The hardware address of a TAP device.
        mac: Option<[u8; 6]>,
        /// Its queues, one for each lane (protocol 4.3); at least 1, and 1 of a TAP device.
        queues: u8,
    },
    /// Two queues of this process.
    Memory(MemoryInterface),
}

/// An interface made of two queues, of whole packets.
pub struct MemoryInterface {
    /// Packets to send over the mesh.
    pub inbound: flume::Receiver<Vec<u8>>,
    /// Packets that came over the mesh; when it is full, they are dropped and counted.
    pub outbound: flume::Sender<Vec<u8>>,
}

/// Puts a packet, whole, into the queue of a [`MemoryInterface`].
///
/// # Errors
/// The queue is full, or nobody reads it any more.
pub fn deliver_to_memory(queue: &flume::Sender<Vec<u8>>, offload: Offload, packet: &[u8]) -> io::Result<()> {
    let mut packet = packet.to_vec();
    if let Some(partial) = offload.checksum {
        offload::finish(&mut packet, partial);
    }
    queue.try_send(packet).map_err(|_| io::ErrorKind::WouldBlock.into())
}

/// All that a peer needs to start.
pub struct PeerOptions {
    /// The machine's configuration.
    pub node: NodeConfig,
    /// Where packets come from and go to.
    pub interface: Interface,
    /// Address of the direct listener; port 0 = a random high port at each opening; an unspecified address means both families.
    pub listen_tcp: SocketAddr,
    /// Address of the UDP sockets, where direct paths by UDP are wanted; port 0 = a random one, an unspecified IPv4 address means both
    /// families.
    pub listen_udp: SocketAddr,
    /// Ask the router in front for these ports.
    pub port_mapping: bool,
    /// What lies between this peer and its relays.
    pub proxies: Proxies,
    /// Life of a TLS certificate, renewed at two thirds.
    pub cert_lifetime: Duration,
    /// Where the run is recorded, keys included.
    pub journal: Option<JournalFile>,
}

/// A running peer; clones speak to the same one. When the last one is dropped, the peer leaves.
#[derive(Clone)]
pub struct Peer {
    commands: flume::Sender<Command>,
    notes: Broadcast<(Instant, Note)>,
    claims: Broadcast<(IpAddr, PeerId)>,
    successions: Broadcast<Succession>,
    certificates: Arc<CertStore>,
    ending: Ending,
    proxies: Arc<Proxies>,
    interface_name: Arc<str>,
}

/// What a handle asks of the control room.
pub enum Command {
    /// What the node says about itself; the answer goes into the queue.
    Status(flume::Sender<(Instant, Status)>),
    /// An overlay ping.
    Ping {
        /// To whom.
        peer: PeerId,
        /// Comes back with the answer.
        id: u32,
        /// Comes back with the answer, too.
        payload: Vec<u8>,
    },
    /// Ask relays anew how they see us, and how far they are.
    Examine,
    /// What the router in front forwards now.
    PortMapped(Vec<PortMapping>),
    /// Who may be a member from now on, and who is none.
    Members(Vec<Member>, Vec<PeerId>),
    /// How patient it is from now on.
    Tune(Tuning),
    /// An identity will follow ours at the next start.
    Succeed(Statement),
    /// Copy what passes the interface; the answer says whether there was room for one more.
    Capture(Watcher, flume::Sender<bool>),
    /// Packets to this address are for the program itself from now on.
    Answer(Inside),
    /// A packet of the program's own for the interface.
    HandIn(Vec<u8>),
    /// Lanes beyond the first have said something.
    Lanes,
    /// Say good-bye and end.
    Leave,
}

/// What a peer's control room wants beyond [`Doors`].
pub trait PeerDoors: Doors {
    /// What [`PeerDoors::deliver`] takes joined.
    fn joins(&self) -> Joins;
    /// Writes one packet to the interface, with what is still to be done to it.
    ///
    /// # Errors
    /// It was not taken.
    fn deliver(&mut self, offload: Offload, packet: &[u8]) -> io::Result<()>;
    /// Opens a connection; [`Control::opened`] or [`Control::failed`] follows, unless it is hung up first.
    fn dial(&mut self, conn: ConnId, target: Target, timeout: Duration);
    /// Opens the direct listener and gives its port; `None` when it cannot be opened.
    fn open_listener(&mut self) -> Option<u16>;
    /// Calls [`Control::datagrams`] whenever the socket of this number has some, until it is closed.
    ///
    /// # Errors
    /// The kernel cannot tell.
    fn watch_datagrams(&mut self, number: Number, socket: &UdpSocket) -> io::Result<()>;
    /// The socket of this number is closed.
    fn unwatch_datagrams(&mut self, number: Number);
    /// Calls [`Control::network_changed`] whenever something can be read from this socket, to the end or an error.
    ///
    /// # Errors
    /// The kernel cannot tell.
    fn watch_network(&mut self, socket: BorrowedFd<'_>) -> io::Result<()>;
    /// Calls [`Control::datagram_room`] once the socket of this number has room.
    fn await_datagram_room(&mut self, number: Number);
}

/// Everything of a peer that does not depend on the runtime, before its thread starts.
pub struct Setup {
    node: NodeConfig,
    listen_tcp: SocketAddr,
    listen_udp: SocketAddr,
    port_mapping: bool,
    proxies: Arc<Proxies>,
    certificates: Arc<CertStore>,
    journal: Option<JournalFile>,
}

/// What a runtime gets on the peer's own thread.
pub struct Seat {
    /// Where the direct listener is to listen.
    pub listen_tcp: SocketAddr,
    /// How the direct listener takes connections.
    pub server_config: Arc<ServerConfig>,
    /// What lies between this peer and its relays.
    pub proxies: Arc<Proxies>,
    listen_udp: SocketAddr,
    mapper: Option<PortMapper>,
    node: NodeConfig,
    plane: Plane,
    lanes: Lanes,
    /// The kernel interface, whose addresses are not candidates.
    device_name: Option<String>,
    scribe: Scribe<Node>,
    certificates: Arc<CertStore>,
    notes: Broadcast<(Instant, Note)>,
    claims: Broadcast<(IpAddr, PeerId)>,
    successions: Broadcast<Succession>,
}

impl Setup {
    /// Takes the options apart: what this makes of them, and the interface, which the runtime opens.
    ///
    /// # Errors
    /// A sentence: the port is in use, or the certificate cannot be made.
    pub fn new(options: PeerOptions) -> Result<(Self, Interface), StartError> {
        if options.listen_tcp.port() != 0 {
            // The listener opens later, when a peer wants direct; that the port is taken is better known now.
            drop(listen::bind_any(options.listen_tcp)?);
        }
        let identity = Arc::clone(&options.node.identity);
        let certificates = CertStore::new(&identity, options.cert_lifetime, clock::now(), SystemTime::now()).map_err(StartError::new)?;
        let PeerOptions { node, interface, listen_tcp, listen_udp, port_mapping, proxies, journal, .. } = options;
        Ok((Self { node, listen_tcp, listen_udp, port_mapping, proxies: Arc::new(proxies), certificates, journal }, interface))
    }

    /// Starts the peer's thread with `run` on it; its second argument is what handles ask, for the control room to
    /// obey. `device` is the name of a kernel interface, `None` for two queues of this process, and `queues` are those of the interface beside
    /// the first: each gets a lane and a thread.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn launch(
        mut self,
        device: Option<&str>,
        queues: Vec<Device>,
        run: impl FnOnce(Seat, flume::Receiver<Command>) -> Result<(), String> + Send + 'static,
    ) -> Result<Peer, StartError> {
        let (commands, obeyed) = flume::bounded(COMMANDS);
        let (notes, claims, successions) = (Broadcast::default(), Broadcast::default(), Broadcast::default());
        let mapper = self.mapper(device, commands.downgrade());
        let bell = commands.downgrade();
        let bell = move || {
            if let Some(commands) = bell.upgrade() {
                // A full queue wakes the control room as well, and it hears lanes each time that it wakes.
                let _ = commands.try_send(Command::Lanes);
            }
        };
        let (plane, lanes) = Lanes::start(&plane_config(&self.node), queues, Box::new(bell))?;
        self.node.lanes = lanes.count();
        let scribe = Scribe::of(self.journal, &self.node).map_err(|why| StartError::new(format!("no thread for the journal: {why}")))?;
        let seat = Seat {
            scribe,
            mapper,
            listen_tcp: self.listen_tcp,
            listen_udp: self.listen_udp,
            server_config: tls::server_config(Arc::clone(&self.certificates)),
            proxies: Arc::clone(&self.proxies),
            node: self.node,
            plane,
            lanes,
            device_name: device.map(str::to_owned),
            certificates: self.certificates,
            notes: notes.clone(),
            claims: claims.clone(),
            successions: successions.clone(),
        };
        let certificates = Arc::clone(&seat.certificates);
        let (told, remembered, followed) = (notes.clone(), claims.clone(), successions.clone());
        let ending = Ending::of_thread("mesh-peer", move || {
            let outcome = run(seat, obeyed);
            told.close();
            remembered.close();
            followed.close();
            outcome
        })?;
        let interface_name = device.unwrap_or("memory").into();
        Ok(Peer { commands, notes, claims, successions, certificates, ending, proxies: self.proxies, interface_name })
    }
}

impl Setup {
    /// Whoever asks the router for ports, where that is wanted and there is something to ask for.
    fn mapper(&self, device: Option<&str>, commands: flume::WeakSender<Command>) -> Option<PortMapper> {
        // a socket that is there for relays alone needs no port of the router, just as one that is bound to loopback
        let udp = if self.node.direct.udp { self.listen_udp.ip() } else { Ipv4Addr::LOCALHOST.into() };
        let listens = Listens { udp, tcp: self.listen_tcp.ip() };
        let is_reachable = !(listens.udp.is_loopback() && listens.tcp.is_loopback());
        let wanted = self.port_mapping && self.node.direct.any() && is_reachable;
        let started = wanted.then(|| PortMapper::start(listens, device.map(str::to_owned), commands))?;
        started.inspect_err(|why| tracing::warn!(%why, "the router is not asked for ports")).ok()
    }
}

impl Peer {
    /// What the node says about itself, and when it said so; `None` when it has ended.
    pub async fn status(&self) -> Option<(Instant, Status)> {
        let (reply, answer) = flume::bounded(1);
        self.commands.send_async(Command::Status(reply)).await.ok()?;
        answer.recv_async().await.ok()
    }

    /// What is left of the TLS certificate's life, where its renewal is overdue.
    pub fn certificate_overdue(&self) -> Option<Duration> {
        self.certificates.overdue(clock::now())
    }

    /// All notes from now on. A receiver that is not read loses notes beyond 1024.
    pub fn notes(&self) -> flume::Receiver<(Instant, Note)> {
        self.notes.subscribe()
    }

    /// Notes that slow receivers lost so far.
    pub fn notes_lost(&self) -> u64 {
        self.notes.lost()
    }

    /// Overlay addresses that were proven to belong to a peer, to be kept for the next run (`NodeConfig::claims`).
    pub fn claims(&self) -> flume::Receiver<(IpAddr, PeerId)> {
        self.claims.subscribe()
    }

    /// Which identity follows which, to be kept for the next run (`NodeConfig::followers`).
    pub fn successions(&self) -> flume::Receiver<Succession> {
        self.successions.subscribe()
    }

    /// An identity will follow ours at the next start: all that are connected are told, and all that come. `status` names who does not know.
    pub async fn succeed(&self, statement: Statement) {
        let _ended_already = self.commands.send_async(Command::Succeed(statement)).await;
    }

    /// Sends an overlay ping; the answer is a `Note::Pong` with the same id.
    ///
    /// # Errors
    /// A sentence: the payload is longer than the [`CONTROL_PIECE_MAX_LEN`] bytes of protocol 7.9.
    pub fn ping(&self, peer: PeerId, id: u32, payload: Vec<u8>) -> Result<(), String> {
        if payload.len() > CONTROL_PIECE_MAX_LEN {
            return Err(format!("an overlay ping carries at most {CONTROL_PIECE_MAX_LEN} bytes, not {}", payload.len()));
        }
        // A full queue loses the ping like a full network does.
        let _ = self.commands.try_send(Command::Ping { peer, id, payload });
        Ok(())
    }

    /// Copies of what passes the interface from now on, until what this gives is dropped.
    ///
    /// # Errors
    /// A sentence: the peer has ended, or enough others watch.
    pub async fn capture(&self, wanted: Wanted) -> Result<Watch, &'static str> {
        const ENDED: &str = "the peer has ended";
        let (watcher, watch) = capture::watch(wanted);
        let (reply, answer) = flume::bounded(1);
        self.commands.send_async(Command::Capture(watcher, reply)).await.map_err(|_| ENDED)?;
        match answer.recv_async().await {
            Ok(true) => Ok(watch),
            Ok(false) => Err("too many captures run at once; end another first"),
            Err(_) => Err(ENDED),
        }
    }

    /// From now on, IPv6 packets from this machine to an address are this program's: they come out here, whole, instead of into the mesh.
    /// A checksum may be only begun.
    pub async fn answer_for(&self, address: Ipv6Addr) -> flume::Receiver<Vec<u8>> {
        let (inside, packets) = Inside::new(address);
        let _ended_already = self.commands.send_async(Command::Answer(inside)).await;
        packets
    }

    /// Hands a packet of the program's own to this machine, as if it had come over the mesh.
    pub fn hand_in(&self, packet: Vec<u8>) {
        // A full queue loses the packet like a full network does.
        let _ = self.commands.try_send(Command::HandIn(packet));
    }

    /// Asks relays anew how they see us and how far they are; `status` shows it as the answers come.
    pub fn examine(&self) {
        // A full queue loses the wish like a full network does.
        let _ = self.commands.try_send(Command::Examine);
    }

    /// Who may be a member from now on (`NodeConfig::members`), and who is none (`NodeConfig::revoked`). Sessions with all others stay.
    pub async fn change_members(&self, members: Vec<Member>, revoked: Vec<PeerId>) {
        let _ended_already = self.commands.send_async(Command::Members(members, revoked)).await;
    }

    /// How patient it is from now on. Sessions and paths stay.
    pub async fn tune(&self, tuning: Tuning) {
        let _ended_already = self.commands.send_async(Command::Tune(tuning)).await;
    }

    /// Says good-bye to all peers and relays, removes the interface and waits for the end of the thread.
    pub async fn leave(&self) {
        let _ended_already = self.commands.send_async(Command::Leave).await;
        let _ = self.ending.wait().await;
    }

    /// Waits until the peer has ended; an error says why it ended by itself.
    ///
    /// # Errors
    /// A sentence: the interface vanished, the thread panicked.
    pub async fn finished(&self) -> Result<(), String> {
        self.ending.wait().await
    }

    /// What lies between this peer and its relays.
    pub fn proxies(&self) -> &Arc<Proxies> {
        &self.proxies
    }

    /// The name of the interface, as the kernel gave it; "memory" for queues.
    pub fn interface_name(&self) -> String {
        self.interface_name.to_string()
    }
}
