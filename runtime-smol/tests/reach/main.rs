//! How peers reach a relay on the internet: what it shows them, and what stands in between. Each story runs on each runtime.
#[path = "../support/mod.rs"]
mod support;

mod announced;
mod certificate;
mod token;
mod tunnel;

use shadowmesh_core::{
    config::{HubConfig, NodeConfig, Transports},
    crypto::{Identity, awslc::AwsLc},
    event::{Ended, Note, Target, TlsFacts},
    id::PeerId,
    network::{Network, RelayAddress},
    status::RelayState,
    time::Instant,
};
use shadowmesh_runtime_smol::{
    dial::{dial, dial_by},
    ws::Connected,
};
use shadowmesh_runtime_std::{
    peer::{Interface, MemoryInterface, Peer, PeerOptions},
    relay::{Relay, RelayOptions},
    tunnel::Proxies,
};
use smol::{Timer, future};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use support::Runtime;

/// Far more than any story takes; what waits longer is lost.
const PATIENCE: Duration = Duration::from_secs(30);

fn relay_identity() -> Identity {
    Identity::from_seed([200; 32])
}

fn relay_id() -> PeerId {
    relay_identity().id()
}

fn options() -> RelayOptions {
    RelayOptions::new(HubConfig::new(Arc::new(relay_identity()), Arc::new(AwsLc)), SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn relay(on: Runtime, edit: impl FnOnce(&mut RelayOptions)) -> Relay {
    let mut options = options();
    edit(&mut options);
    (on.relay)(options).expect("the relay starts")
}

fn url_of(address: SocketAddr) -> String {
    format!("wss://{address}")
}

fn at(relay: &Relay) -> String {
    url_of(relay.addresses()[0])
}

/// A peer of a network whose only relay is there.
fn peer(on: Runtime, number: u8, url: &str, edit: impl FnOnce(&mut PeerOptions)) -> Peer {
    let relay = RelayAddress::new(url, Some(relay_id())).expect("a URL");
    let network = Network::new([7; 32], "test", vec![relay]).expect("a network");
    let mut node = NodeConfig::new(Arc::new(Identity::from_seed([number; 32])), Arc::new(AwsLc), network);
    node.direct = Transports::NONE;
    let (_, inbound) = flume::bounded(1);
    let (outbound, _) = flume::bounded(1);
    let mut options = PeerOptions {
        node,
        interface: Interface::Memory(MemoryInterface { inbound, outbound }),
        listen_tcp: SocketAddr::from(([127, 0, 0, 1], 0)),
        listen_udp: SocketAddr::from(([127, 0, 0, 1], 0)),
        port_mapping: false,
        proxies: Proxies::default(),
        cert_lifetime: Duration::from_hours(24),
        journal: None,
    };
    edit(&mut options);
    (on.peer)(options).expect("the peer starts")
}

/// Waits until the peer is connected to its relay.
async fn connected(peer: &Peer) {
    let notes = peer.notes();
    loop {
        let (_, status) = peer.status().await.expect("the peer runs");
        if status.relays[0].state == RelayState::Connected {
            return;
        }
        notes.recv_async().await.expect("the peer runs");
    }
}

/// Waits until the peer's relay is lost: why.
async fn refused(peer: &Peer) -> String {
    lost(peer, peer.notes()).await
}

/// The same, by notes that were asked for before the loss could come.
async fn lost(peer: &Peer, notes: flume::Receiver<(Instant, Note)>) -> String {
    loop {
        if let (_, Note::RelayLost { why, .. }) = notes.recv_async().await.expect("the peer runs") {
            let (_, status) = peer.status().await.expect("the peer runs");
            assert!(status.relays[0].last_error.is_some(), "and `status` says so");
            return why;
        }
    }
}

/// TLS and WebSocket, by hand.
async fn open(url: &str) -> Result<(Connected, TlsFacts), Ended> {
    let target = Target::Relay { index: 0, url: url.to_owned(), pin: Some(relay_id()) };
    dial(target, PATIENCE).await
}

/// Runs a story within a time limit.
fn story(story: impl Future<Output = ()>) {
    smol::block_on(future::or(story, async {
        Timer::after(PATIENCE).await;
        panic!("the story does not end");
    }));
}
