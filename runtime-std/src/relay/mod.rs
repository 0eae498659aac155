//! A running relay: what a program gets back from `start`, what it can ask, and the control room that all runtimes drive.

mod control;
mod passing;
mod reflector;

pub use crate::threads::relay::start;
pub use control::Control;

use crate::{
    StartError,
    broadcast::Broadcast,
    clock,
    ending::Ending,
    journal::{JournalFile, Scribe},
    listen::{self, Bounds},
    room::COMMANDS,
    tls::{self, CertFiles, CertStore},
};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use reflector::Reflector;
use rustls::ServerConfig;
use shadowmesh_core::{
    config::{Access, HubConfig, Limits},
    hub::{Hub, HubNote, HubStatus},
    time::Instant,
};
use std::{net::TcpListener, sync::Arc, time::SystemTime};

/// All that a relay needs to start.
pub struct RelayOptions {
    /// The machine's configuration.
    pub hub: HubConfig,
    /// Where to listen; port 0 = a random one, see [`Relay::addresses`].
    pub listen: Vec<SocketAddr>,
    /// Where BIND is answered, on this port and the next (protocol 8.1); `None`: on the port numbers of `listen`, where they are free.
    pub udp: Option<SocketAddr>,
    /// Life of a TLS certificate, renewed at two thirds.
    pub cert_lifetime: Duration,
    /// Another certificate than one of the relay's own (protocol 1.4).
    pub certificate: Option<CertFiles>,
    /// Networks of proxies that say from where their connections come (protocol 9.5).
    pub trusted_proxies: Vec<(IpAddr, u8)>,
    /// Where the run is recorded, keys included.
    pub journal: Option<JournalFile>,
}

impl RelayOptions {
    /// At one address, with certificates of its own that live for a day, no proxies, no record.
    pub fn new(hub: HubConfig, listen: SocketAddr) -> Self {
        Self {
            hub,
            listen: vec![listen],
            udp: None,
            cert_lifetime: Duration::from_hours(24),
            certificate: None,
            trusted_proxies: Vec::new(),
            journal: None,
        }
    }
}

/// A running relay; clones speak to the same one. When the last one is dropped, the relay leaves.
#[derive(Clone)]
pub struct Relay {
    commands: flume::Sender<Command>,
    notes: Broadcast<(Instant, HubNote)>,
    ending: Ending,
    addresses: Arc<[SocketAddr]>,
    certificates: Arc<CertStore>,
}

/// What can change while a relay runs.
#[derive(Clone, Debug)]
pub struct Live {
    /// Taken over as far as `Limits::while_running` goes.
    pub limits: Limits,
    /// Who may come in.
    pub access: Access,
    /// As `RelayOptions::trusted_proxies`.
    pub trusted_proxies: Vec<(IpAddr, u8)>,
}

/// What a handle asks of the control room.
pub enum Command {
    /// What the hub says about itself; the answer goes into the queue.
    Status(flume::Sender<(Instant, HubStatus)>),
    /// Show the certificate in these files, read anew, or one of the relay's own.
    Show(Option<CertFiles>),
    /// Who may use it, and how much, from now on.
    Configure(Box<Live>),
    /// Tell all clients and end.
    Leave,
    /// Tell all clients to take another relay, and end when this one is not needed any more, or then.
    Drain(Duration),
}

/// Everything of a relay that does not depend on the runtime, before its thread starts.
pub struct Setup {
    hub: HubConfig,
    trusted_proxies: Vec<(IpAddr, u8)>,
    listeners: Vec<TcpListener>,
    reflector: Reflector,
    certificates: Arc<CertStore>,
    journal: Option<JournalFile>,
    addresses: Arc<[SocketAddr]>,
}

/// What a runtime gets on the relay's own thread.
pub struct Seat {
    /// Where connections come in; they do not block.
    pub listeners: Vec<TcpListener>,
    /// How many handshakes at once, and how long.
    pub bounds: Bounds,
    /// How connections are taken.
    pub server_config: Arc<ServerConfig>,
    reflector: Reflector,
    hub: HubConfig,
    trusted_proxies: Vec<(IpAddr, u8)>,
    scribe: Scribe<Hub>,
    certificates: Arc<CertStore>,
    notes: Broadcast<(Instant, HubNote)>,
}

impl Setup {
    /// Binds all addresses.
    ///
    /// # Errors
    /// A sentence: an address in use, no permission for a low port, a certificate that cannot be used.
    pub fn new(options: RelayOptions) -> Result<Self, StartError> {
        let listeners = listen::bind_all(&options.listen)?;
        let (reflector, udp_ports) = Reflector::bind(options.udp, &listeners)?;
        let addresses: Result<Arc<[_]>, _> = listeners.iter().map(TcpListener::local_addr).collect();
        let addresses = addresses.map_err(|why| StartError::new(format!("cannot listen: {why}")))?;
        let (now, wall) = (clock::now(), SystemTime::now());
        let certificates = CertStore::new(&options.hub.identity, options.cert_lifetime, now, wall).map_err(StartError::new)?;
        certificates.show(options.certificate, now, wall).map_err(StartError::new)?;
        let hub = HubConfig { udp_ports, ..options.hub };
        let trusted_proxies = options.trusted_proxies;
        Ok(Self { hub, trusted_proxies, listeners, reflector, certificates, journal: options.journal, addresses })
    }

    /// Starts the relay's thread with `run` on it; its second argument is what handles ask, for the control room to obey.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn launch(
        self,
        run: impl FnOnce(Seat, flume::Receiver<Command>) -> Result<(), String> + Send + 'static,
    ) -> Result<Relay, StartError> {
        let (commands, obeyed) = flume::bounded(COMMANDS);
        let notes = Broadcast::default();
        let scribe = Scribe::of(self.journal, &self.hub).map_err(|why| StartError::new(format!("no thread for the journal: {why}")))?;
        let seat = Seat {
            scribe,
            listeners: self.listeners,
            reflector: self.reflector,
            bounds: Bounds::of(&self.hub.limits),
            server_config: tls::server_config(Arc::clone(&self.certificates)),
            hub: self.hub,
            trusted_proxies: self.trusted_proxies,
            certificates: Arc::clone(&self.certificates),
            notes: notes.clone(),
        };
        let told = notes.clone();
        let ending = Ending::of_thread("mesh-relay", move || {
            let outcome = run(seat, obeyed);
            told.close();
            outcome
        })?;
        Ok(Relay { commands, notes, ending, addresses: self.addresses, certificates: self.certificates })
    }
}

impl Relay {
    /// The addresses on which it listens, with their real ports, in the order of `RelayOptions::listen`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What the hub says about itself, and when it said so; `None` when it has ended.
    pub async fn status(&self) -> Option<(Instant, HubStatus)> {
        let (reply, answer) = flume::bounded(1);
        self.commands.send_async(Command::Status(reply)).await.ok()?;
        answer.recv_async().await.ok()
    }

    /// Shows the certificate in these files to new connections, read anew, or one of the relay's own. What is wrong with it goes into
    /// the log, and the old one stays.
    pub async fn show(&self, certificate: Option<CertFiles>) {
        let _ended_already = self.commands.send_async(Command::Show(certificate)).await;
    }

    /// Who may use it, and how much, from now on. Clients that are in stay, but those whose identity or address is not taken any more.
    pub async fn configure(&self, live: Live) {
        let _ended_already = self.commands.send_async(Command::Configure(Box::new(live))).await;
    }

    /// Who the certificate that new connections see says it belongs to.
    pub fn certificate(&self) -> String {
        self.certificates.subject()
    }

    /// All notes from now on. A receiver that is not read loses notes beyond 1024.
    pub fn notes(&self) -> flume::Receiver<(Instant, HubNote)> {
        self.notes.subscribe()
    }

    /// Notes that slow receivers lost so far.
    pub fn notes_lost(&self) -> u64 {
        self.notes.lost()
    }

    /// Tells all clients that the relay goes away and waits for the end of the thread.
    pub async fn leave(&self) {
        let _ended_already = self.commands.send_async(Command::Leave).await;
        let _ = self.ending.wait().await;
    }

    /// Tells all clients to take another relay, and lets nobody in. The relay ends when no client is left, when nothing passes any more, or
    /// after this time: see `finished`.
    pub async fn drain(&self, within: Duration) {
        let _ended_already = self.commands.send_async(Command::Drain(within)).await;
    }

    /// Waits until the relay has ended; an error says why it ended by itself.
    ///
    /// # Errors
    /// A sentence, when the thread ended without having been asked to.
    pub async fn finished(&self) -> Result<(), String> {
        self.ending.wait().await
    }
}
