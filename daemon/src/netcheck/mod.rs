//! `netcheck`: what the network between this host and others lets through.
//!
//! ```text
//!   a running peer ── control socket ──▶ look: relays asked anew ∥ a new connection to each relay ∥ the router's ways to forward ports
//!   none, but a token ─▶ a peer without interface, identity by chance ──▶ look
//! ```
pub(crate) mod report;

pub(crate) use report::NetReport;

use crate::{
    cli::{NetcheckArgs, Runtime},
    config::{self, JoinSource, Settings},
    control::{Client, Request},
    credentials,
    failure::Failure,
    out,
};
use report::{Reached, is_fresh};
use shadowmesh_core::{
    config::{Member, NodeConfig, Transports},
    crypto::Identity,
    network::Network,
    status::{RelayState, RelayStatus, Status},
    time::{Duration, Instant},
};
use shadowmesh_runtime_std::{
    dial,
    mapping::probe,
    peer::{Interface, MemoryInterface, Peer, PeerOptions},
    tunnel::Proxies,
};
use smol::{Timer, future};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// All of it: a person waits. Relays are asked for a UDP address four times in 3.5 s (protocol 8.1).
const LOOK_TIME: Duration = Duration::from_millis(4_200);
/// How often the state is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The relay's other port answers within this after the first, or it has none.
const OTHER_PORT_TIME: Duration = Duration::from_secs(1);
/// Relays to which new connections are opened at once.
const RELAYS_MAX: usize = 16;

/// Runs `shadowmesh netcheck`.
pub(crate) fn run(args: &NetcheckArgs) -> Result<(), Failure> {
    let is_named = args.join.is_some() || args.join_file.is_some();
    let running = if is_named { None } else { Client::find(&args.files)? };
    let report = match running {
        Some(mut client) => client.ask(&Request::Netcheck {})?,
        None => alone(args)?,
    };
    if args.json {
        out::json(&report);
    } else {
        out::raw(&report.render());
    }
    Ok(())
}

/// Without a running peer: one without an interface, for this moment.
fn alone(args: &NetcheckArgs) -> Result<NetReport, Failure> {
    let settings = settings(args)?;
    let proxies = settings.proxies.clone();
    let options = ephemeral(network(settings)?, proxies)?;
    let peer = Runtime::Smol.start_peer(options).map_err(|error| Failure::failed(error.to_string()))?;
    smol::block_on(async {
        let report = look(&peer, "ephemeral", true, None).await.map_err(Failure::failed);
        peer.leave().await;
        report
    })
}

/// As `up` would be told.
fn settings(args: &NetcheckArgs) -> Result<Settings, Failure> {
    let layers = match config::layers(args.files.config.as_deref(), args.layer()) {
        Ok(layers) => layers,
        Err(failure) if args.files.config.is_some() => return Err(failure),
        Err(_) => config::without_file(args.layer()),
    };
    config::settings(&layers)
}

/// The network that was named, as `up` takes it.
fn network(settings: Settings) -> Result<Network, Failure> {
    match settings.join {
        Some(JoinSource::Token(network, _)) => Ok(*network),
        Some(JoinSource::Credential(path)) => credentials::sealed_network(&path),
        Some(JoinSource::File(path, source)) => {
            let read = credentials::network_of_file(&path);
            read.map(|(network, _)| network).map_err(|why| Failure::usage(format!("{source}: network.join_file: {why}")))
        }
        None => Err(Failure::failed(format!(
            "no peer is running at {}, and no network is named; start one with `shadowmesh up`, or give --join TOKEN, --join-file FILE or --config FILE",
            settings.control_socket.display()
        ))),
    }
}

fn ephemeral(network: Network, proxies: Proxies) -> Result<PeerOptions, Failure> {
    let identity = Identity::from_seed(credentials::secret()?);
    let own = identity.id();
    let mut node = NodeConfig::new(Arc::new(identity), credentials::provider(), network);
    node.direct = Transports::UDP;
    // It talks to relays alone: closed to everybody else.
    node.members = vec![Member { id: own, name: None, allowed: Vec::new(), endpoints: Vec::new() }];
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let ((_, inbound), (outbound, _)) = (flume::bounded(1), flume::bounded(1));
    Ok(PeerOptions {
        node,
        interface: Interface::Memory(MemoryInterface { inbound, outbound }),
        listen_tcp: any,
        listen_udp: any,
        port_mapping: false,
        proxies,
        cert_lifetime: Duration::from_hours(1),
        journal: None,
    })
}

/// Lets a peer look at its surroundings anew; `overlay` is its own interface, which leads to no router.
///
/// # Errors
/// A sentence: the peer has ended.
pub(crate) async fn look(peer: &Peer, source: &str, uses_udp: bool, overlay: Option<String>) -> Result<NetReport, String> {
    const ENDED: &str = "the peer has ended";
    let start = std::time::Instant::now();
    let (since, status) = peer.status().await.ok_or(ENDED)?;
    peer.examine();
    let found = smol::unblock(move || probe::probe(overlay.as_deref()));
    let gone = RefCell::new(BTreeSet::new());
    let reached = reach(&status, peer.proxies(), &gone);
    let settled = async {
        loop {
            let (now, status) = peer.status().await.ok_or(ENDED)?;
            let is_settled = |(index, relay): (usize, &RelayStatus)| {
                is_settled(since, now, uses_udp, relay) || (relay.state != RelayState::Connected && gone.borrow().contains(&index))
            };
            if start.elapsed() >= LOOK_TIME || status.relays.iter().enumerate().all(is_settled) {
                return Ok::<(), &str>(());
            }
            Timer::after(LOOK_INTERVAL).await;
        }
    };
    let ((found, reached), settled) = future::zip(future::zip(found, reached), settled).await;
    settled?;
    let (_, status) = peer.status().await.ok_or(ENDED)?;
    Ok(NetReport::new(source, uses_udp, since, &status, &reached, &found))
}

/// Nothing more is expected of this relay.
fn is_settled(since: Instant, now: Instant, uses_udp: bool, relay: &RelayStatus) -> bool {
    if relay.state != RelayState::Connected || relay.rtt.is_none() {
        return false;
    }
    let has_told =
        is_fresh(since, relay) && (relay.mapping_varies.is_some() || relay.reflexive_at.is_some_and(|at| now.since(at) >= OTHER_PORT_TIME));
    has_told || !relay.has_reflector || !uses_udp
}

/// Opens a connection to each relay, all at once, and closes it again. To which that failed stands in `gone` at once.
async fn reach(status: &Status, proxies: &Arc<Proxies>, gone: &RefCell<BTreeSet<usize>>) -> Reached {
    let tasks: Vec<_> = status
        .relays
        .iter()
        .take(RELAYS_MAX)
        .map(|relay| {
            let (url, id, proxies) = (relay.url.clone(), relay.id, Arc::clone(proxies));
            smol::unblock(move || dial::reach(url, id, &proxies, LOOK_TIME).map_err(|why| why.to_string()))
        })
        .collect();
    let mut reached = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.into_iter().enumerate() {
        let outcome = task.await;
        if outcome.is_err() {
            gone.borrow_mut().insert(index);
        }
        reached.push(outcome);
    }
    reached
}
