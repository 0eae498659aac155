//! A running relay: what a program gets back from `start`, and what it can ask.

mod conns;
mod drive;
mod wires;

use crate::{
    StartError,
    broadcast::Broadcast,
    handle::{COMMANDS, Ending},
    listen,
};
use core::net::SocketAddr;
use core::time::Duration;
use drive::Start;
use shadowmesh_core::{
    config::HubConfig,
    hub::{HubNote, HubStatus},
    time::Instant,
};
use shadowmesh_runtime_std::{
    clock,
    tls::{self, CertStore},
};
use smol::Async;
use std::{net::TcpListener, sync::Arc, time::SystemTime};

/// All that a relay needs to start.
pub struct RelayOptions {
    /// The machine's configuration.
    pub hub: HubConfig,
    /// Where to listen; port 0 = a random one, see [`Relay::addresses`].
    pub listen: Vec<SocketAddr>,
    /// Life of a TLS certificate, renewed at two thirds.
    pub cert_lifetime: Duration,
}

/// A running relay; clones speak to the same one. When the last one is dropped, the relay leaves.
#[derive(Clone)]
pub struct Relay {
    commands: flume::Sender<Command>,
    notes: Broadcast<(Instant, HubNote)>,
    ending: Ending,
    addresses: Arc<[SocketAddr]>,
}

/// What a handle asks of the control task.
pub(crate) enum Command {
    Status(flume::Sender<(Instant, HubStatus)>),
    Leave,
}

/// Binds all addresses, then starts a thread of its own that runs the hub, its forwarder and the pumps.
///
/// # Errors
/// A sentence: an address in use, no permission for a low port.
pub fn start(options: RelayOptions) -> Result<Relay, StartError> {
    let listeners = bind_all(&options.listen)?;
    let addresses = listeners.iter().map(|listener| listener.get_ref().local_addr());
    let addresses: Vec<_> = addresses.collect::<Result<_, _>>().map_err(|why| StartError::new(format!("cannot listen: {why}")))?;
    let certificates =
        CertStore::new(&options.hub.identity, options.cert_lifetime, clock::now(), SystemTime::now()).map_err(StartError::new)?;
    let (commands, obeyed) = flume::bounded(COMMANDS);
    let notes = Broadcast::new();
    let start = Start {
        hub: options.hub,
        listeners,
        server_config: tls::server_config(Arc::clone(&certificates)),
        certificates,
        commands: obeyed,
        notes: notes.clone(),
    };
    let ending = Ending::of_thread("mesh-relay", move || {
        drive::run(start);
        Ok(())
    })?;
    Ok(Relay { commands, notes, ending, addresses: addresses.into() })
}

/// Binds all addresses. An unspecified IPv6 address takes IPv4 too, unless the same port is asked for in IPv4.
fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<Async<TcpListener>>, StartError> {
    if addresses.is_empty() {
        return Err(StartError::new("the relay has no address to listen on: give --listen ADDRESS:PORT"));
    }
    let in_v4 = |port: u16| addresses.iter().any(|a| a.is_ipv4() && a.port() == port);
    addresses.iter().map(|a| listen::bind(*a, in_v4(a.port()))).collect()
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

    /// Waits until the relay has ended; an error says why it ended by itself.
    ///
    /// # Errors
    /// A sentence, when the thread ended without having been asked to.
    pub async fn finished(&self) -> Result<(), String> {
        self.ending.wait().await
    }
}
