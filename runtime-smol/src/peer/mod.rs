//! A running peer: what a program gets back from `start`, and what it can ask.

mod conns;
mod drive;
mod interface;
mod log;
mod ports;

use crate::{
    StartError,
    broadcast::Broadcast,
    handle::{COMMANDS, Ending},
    listen,
};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use drive::Start;
use interface::{Opened, Port};
use shadowmesh_core::{config::NodeConfig, event::Note, id::PeerId, status::Status, time::Instant};
use shadowmesh_runtime_std::{
    clock,
    tls::{self, CertStore},
};
use std::{sync::Arc, time::SystemTime};

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
    },
    /// Two queues of this process.
    Memory(MemoryInterface),
}

/// An interface made of two queues.
pub struct MemoryInterface {
    /// Packets to send over the mesh.
    pub inbound: flume::Receiver<Vec<u8>>,
    /// Packets that came over the mesh; when it is full, they are dropped and counted.
    pub outbound: flume::Sender<Vec<u8>>,
}

/// All that a peer needs to start.
pub struct PeerOptions {
    /// The machine's configuration.
    pub node: NodeConfig,
    /// Where packets come from and go to.
    pub interface: Interface,
    /// Address of the direct listener; port 0 = a random high port at each opening; an unspecified address means both families.
    pub listen_tcp: SocketAddr,
    /// Life of a TLS certificate, renewed at two thirds.
    pub cert_lifetime: Duration,
}

/// A running peer; clones speak to the same one. When the last one is dropped, the peer leaves.
#[derive(Clone)]
pub struct Peer {
    commands: flume::Sender<Command>,
    notes: Broadcast<(Instant, Note)>,
    claims: Broadcast<(IpAddr, PeerId)>,
    ending: Ending,
    interface_name: Arc<str>,
}

/// What a handle asks of the control task.
pub(crate) enum Command {
    Status(flume::Sender<(Instant, Status)>),
    Ping { peer: PeerId, id: u32, payload: Vec<u8> },
    Leave,
}

/// Starts a thread of its own that runs the node, its data plane and the pumps.
///
/// # Errors
/// A sentence: no permission for the interface, its name taken, the port in use.
pub fn start(options: PeerOptions) -> Result<Peer, StartError> {
    if options.listen_tcp.port() != 0 {
        // The listener opens later, when a peer wants direct; that the port is taken is better known now.
        drop(listen::bind_any(options.listen_tcp)?);
    }
    let identity = Arc::clone(&options.node.identity);
    let certificates = CertStore::new(&identity, options.cert_lifetime, clock::now(), SystemTime::now()).map_err(StartError::new)?;
    let interface = Opened::open(options.interface)?;
    let interface_name = Arc::from(interface.name());
    let (commands, obeyed) = flume::bounded(COMMANDS);
    let (notes, claims) = (Broadcast::new(), Broadcast::new());
    let start = Start {
        node: options.node,
        interface,
        listen_tcp: options.listen_tcp,
        server_config: tls::server_config(Arc::clone(&certificates)),
        certificates,
        commands: obeyed,
        notes: notes.clone(),
        claims: claims.clone(),
    };
    let ending = Ending::of_thread("mesh-peer", move || drive::run(start))?;
    Ok(Peer { commands, notes, claims, ending, interface_name })
}

impl Peer {
    /// What the node says about itself, and when it said so; `None` when it has ended.
    pub async fn status(&self) -> Option<(Instant, Status)> {
        let (reply, answer) = flume::bounded(1);
        self.commands.send_async(Command::Status(reply)).await.ok()?;
        answer.recv_async().await.ok()
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

    /// Sends an overlay ping; the answer is a `Note::Pong` with the same id.
    pub fn ping(&self, peer: PeerId, id: u32, payload: Vec<u8>) {
        // A full queue loses the ping like a full network does.
        let _ = self.commands.try_send(Command::Ping { peer, id, payload });
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

    /// The name of the interface, as the kernel gave it; "memory" for queues.
    pub fn interface_name(&self) -> String {
        self.interface_name.to_string()
    }
}
