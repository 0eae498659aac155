//! `up`: runs the peer in the foreground, from its settings to a clean exit.
//!
//! ```text
//!   settings ─▶ state (lock, identity, token, claims) ─▶ control socket, metrics port ─▶ peer thread
//!                                                                                          │ notes, claims
//!   one task here: control socket ∥ metrics port ∥ notes ∥ claims ∥ signals  ◀─────────────┘
//! ```
mod node;
mod observer;
mod serve;
mod state;

use crate::{
    cli::{JoinArgs, Runtime, UpArgs},
    config::{self, JoinSource, Settings, parse::InterfaceMode},
    credentials,
    failure::Failure,
    logs::{self, Levels},
    names, out,
    status::Facts,
    userspace::{Ends, Userspace},
};
use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};
use observer::Observer;
use serde::Serialize;
use serve::Service;
use shadowmesh_core::{crypto, id::PeerId, network::Network, succession::Followers};
use shadowmesh_runtime_smol::{control::ControlSocket, http, service as manager};
use shadowmesh_runtime_std::{
    journal::JournalFile,
    peer::{Peer, PeerOptions},
    succession::InUse,
};
use smol::{Timer, net::TcpListener};
pub(crate) use state::State;
use state::{Claims, Successions};
use std::{
    cell::RefCell, collections::BTreeMap, fs::DirBuilder, io, net::Ipv6Addr, os::unix::fs::DirBuilderExt, path::Path, rc::Rc, sync::Arc,
    time::Duration,
};

/// Saying good-bye takes milliseconds; a peer that cannot is ended anyway.
const LEAVE_TIME: Duration = Duration::from_secs(5);
/// Claims that come in a burst are written once.
const CLAIMS_PAUSE: Duration = Duration::from_secs(1);

/// Runs `shadowmesh up`.
pub(crate) fn run(args: &UpArgs) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    let settings = config::settings(&config::layers(args.files.config.as_deref(), args.layer())?)?;
    let levels = logs::start(&settings.log_level, settings.log_format).map_err(Failure::failed)?;
    warn_unknown_variables();
    if let Some(why) = &settings.unusable_proxy {
        tracing::warn!("{why}");
    }
    let state = State::open(&settings.state_dir)?;
    let network = network(&settings, &state)?;
    let InUse { identity, line, is_new, followed_by } = credentials::identity_in_use(&settings.identity)?;
    let suites = node::suites(crypto::offered(&settings.suites))?;
    let (claims, successions) = (state.claims(), state.successions());
    let followers = Followers::new(line, &successions.list());
    smol::block_on(async {
        let socket = bind_control(&settings.control_socket)?;
        let metrics = bind_metrics(&settings).await?;
        let mut signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup])
            .map_err(|error| Failure::failed(format!("signals cannot be received: {error}")))?;
        let journal = args.journal.as_deref().map(JournalFile::create).transpose().map_err(Failure::failed)?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), id = %identity.id(), name = settings.name, "starting");
        tell_place(is_new, followed_by);
        let (options, ends) = node::options(&settings, suites, identity, network, (claims.list(), followers), journal);
        let dns = dns_address(&settings, &options);
        let userspace = userspace(&settings, ends, &options).await?;
        let peer = args.runtime.start_peer(options).map_err(|error| Failure::failed(error.to_string()))?;
        tracing::info!(runtime = args.runtime.name(), interface = peer.interface_name(), control = %settings.control_socket.display(), "running");
        let (leave, leaving) = flume::bounded(1);
        let service = service(&settings, args.runtime, started, &peer, levels, leave, (userspace.as_ref(), dns));
        manager::ready("running");
        let work = async {
            let scraped = async {
                match metrics {
                    Some(listener) => http::serve(listener, |path| service.http(path)).await,
                    None => future::pending().await,
                }
            };
            let told = future::zip(watch(&service, &peer), keep(&peer, &state, (claims, successions), &service.state_faults));
            let told = future::zip(told, manager::keep_telling(|| service.in_a_line()));
            let told = future::zip(told, async {
                if let Some(address) = dns {
                    names::serve(&peer, address, || service.listed.borrow().clone()).await;
                }
            });
            let told = future::zip(told, async {
                if let Some(userspace) = &userspace {
                    userspace.run(&service).await;
                }
            });
            future::zip(told, future::zip(socket.serve(|line| service.answer(line)), scraped)).await;
            future::pending().await
        };
        let life = async {
            let end = future::or(until_end(&mut signals, &leaving, args, (&settings, &service)), ended(&peer)).await;
            finish(&peer, &mut signals, end).await
        };
        // Both in one: the control socket answers until the peer has gone, and who waits at it for the end sees the end.
        future::or(life, work).await
    })
}

/// Says where our identity stands in its line, where that is news.
fn tell_place(is_new: bool, followed_by: Option<PeerId>) {
    if is_new {
        tracing::info!("this identity has taken the place of the one before");
    }
    if let Some(follower) = followed_by {
        tracing::warn!(%follower, "another identity was to follow this one, and its key is not here: whoever has met it refuses this one");
    }
}

/// What `join --json` prints.
#[derive(Serialize)]
struct Joined {
    network: String,
    relays: Vec<String>,
    state_dir: String,
}

/// Runs `shadowmesh join`: the token is where `up` looks for one that it was not given.
pub(crate) fn join(args: &JoinArgs) -> Result<(), Failure> {
    let settings = config::settings(&config::layers(args.files.config.as_deref(), args.files.layer())?)?;
    let wrong = |why| Failure::usage(format!("join: {why}"));
    let (network, token) = match (&args.token, &args.file) {
        (_, Some(file)) => credentials::network_of_file(file).map_err(wrong)?,
        (Some(token), None) if token == "-" => credentials::network_of(io::stdin().lock(), "standard input").map_err(wrong)?,
        (Some(token), None) => (credentials::network(token).map_err(wrong)?, token.trim().to_owned()),
        (None, None) => return Err(Failure::usage("join: give a token, `-` for standard input, or --file FILE")),
    };
    State::open(&settings.state_dir)?.remember_network(&token)?;
    let state_dir = settings.state_dir.display().to_string();
    let relays = network.relays.iter().map(|relay| relay.url.clone()).collect::<Vec<_>>();
    if args.json {
        out::json(&Joined { network: network.name.clone(), relays, state_dir });
    } else {
        out::line(format!("joined {} ({}); the next `shadowmesh up` with {state_dir} takes part in it", network.name, relays.join(" ")));
    }
    if settings.join.is_some() {
        eprintln!("shadowmesh: network.join or network.join_file is configured too, and wins over what `join` keeps");
    }
    Ok(())
}

/// Why the daemon ends.
enum End {
    /// Somebody asked for it.
    Asked(&'static str),
    /// The peer ended by itself.
    Itself(Result<(), String>),
}

/// The network: as given, or as an earlier start remembered it.
fn network(settings: &Settings, state: &State) -> Result<Network, Failure> {
    let (network, token) = match &settings.join {
        Some(JoinSource::Token(network, token)) => ((**network).clone(), token.0.trim().to_owned()),
        Some(JoinSource::File(path, source)) => {
            credentials::network_of_file(path).map_err(|why| Failure::usage(format!("{source}: network.join_file: {why}")))?
        }
        // sealed where it lies: no copy of it is kept
        Some(JoinSource::Credential(path)) => return credentials::sealed_network(path),
        None => {
            return state.remembered_network()?.ok_or_else(|| {
                Failure::usage(format!(
                    "network.join: no join token was given and none is remembered in {}; start once with --join TOKEN or --join-file FILE",
                    settings.state_dir.display()
                ))
            });
        }
    };
    state.remember_network(&token)?;
    Ok(network)
}

fn bind_control(path: &Path) -> Result<ControlSocket, Failure> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(|error| {
            Failure::failed(format!("{}: cannot be made for the control socket: {error}; choose another with --control", parent.display()))
        })?;
    }
    ControlSocket::bind(path).map_err(|error| Failure::failed(format!("{error}; choose another with --control or --state-dir")))
}

/// The stack of a peer without an interface, and its listeners.
async fn userspace(settings: &Settings, ends: Option<Ends>, options: &PeerOptions) -> Result<Option<Userspace>, Failure> {
    let Some(ends) = ends else { return Ok(None) };
    let addresses = options.node.overlay_addresses();
    let bound = Userspace::bind(ends, &addresses, settings.proxy, &settings.forwards, &settings.exposed).await;
    let userspace = bound.map_err(Failure::failed)?;
    if let Some(address) = userspace.proxy_address() {
        tracing::info!(%address, "SOCKS5 and HTTP CONNECT are served");
    }
    Ok(Some(userspace))
}

/// Where names are answered: where the kernel routes packets to us, and no neighbour has to be found first.
fn dns_address(settings: &Settings, options: &PeerOptions) -> Option<Ipv6Addr> {
    let wanted = settings.dns && settings.interface_mode == InterfaceMode::Tun;
    wanted.then(|| names::address(&options.node.network, options.node.identity.id())).flatten()
}

/// The metrics port. The default one may be taken by another peer of this host; one that was asked for may not.
async fn bind_metrics(settings: &Settings) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = settings.metrics_listen else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => {
            let bound = listener.local_addr().map_or(address, |bound| bound);
            tracing::info!(address = %bound, "metrics are served");
            Ok(Some(listener))
        }
        Err(error) if settings.metrics_asked => {
            Err(Failure::failed(format!("metrics.listen: {address} cannot be used: {error}; choose another with --metrics, or off")))
        }
        Err(error) => {
            tracing::info!(%address, %error, "the default metrics port cannot be used; `shadowmesh metrics` works without it");
            Ok(None)
        }
    }
}

fn service(
    settings: &Settings,
    runtime: Runtime,
    started: std::time::Instant,
    peer: &Peer,
    levels: Levels,
    leave: flume::Sender<()>,
    (userspace, dns): (Option<&Userspace>, Option<Ipv6Addr>),
) -> Service {
    Service {
        peer: peer.clone(),
        observer: Rc::new(RefCell::new(Observer::new())),
        facts: Facts {
            runtime: runtime.name(),
            interface_name: if userspace.is_some() { "userspace".to_owned() } else { peer.interface_name() },
            interface_mode: settings.interface_mode.name(),
            proxy: userspace.and_then(Userspace::proxy_address),
            dns,
            proxies: Arc::clone(peer.proxies()),
            mtu: settings.mtu,
            started,
        },
        listed: RefCell::new(listed(settings)),
        transports: settings.transports.clone(),
        identity: settings.identity.clone(),
        state_faults: RefCell::default(),
        levels,
        leave,
    }
}

/// Takes what the node tells until it has ended.
async fn watch(service: &Service, peer: &Peer) {
    let notes = peer.notes();
    while let Ok((at, note)) = notes.recv_async().await {
        service.observer.borrow_mut().note(at, &note);
    }
}

/// Writes down which peer owns which address, so that a restart does not let another take it, and who follows whom.
async fn keep(peer: &Peer, state: &State, (mut claims, mut followers): (Claims, Successions), faults: &Faults) {
    let (claimed, followed) = (peer.claims(), peer.successions());
    let owners = async {
        while let Ok((address, owner)) = claimed.recv_async().await {
            let mut changed = claims.add(address, owner);
            let burst = async {
                while let Ok((address, owner)) = claimed.recv_async().await {
                    changed |= claims.add(address, owner);
                }
            };
            future::or(burst, async {
                Timer::after(CLAIMS_PAUSE).await;
            })
            .await;
            if changed {
                written(faults, "claims", state.keep_claims(&claims));
            }
        }
    };
    // at once: whoever told us counts on our knowing it
    let lines = async {
        while let Ok(succession) = followed.recv_async().await {
            if followers.add(succession) {
                written(faults, "successions", state.keep_successions(&followers));
            }
        }
    };
    future::zip(owners, lines).await;
}

/// Why files could not be written last time, by their names.
type Faults = RefCell<BTreeMap<&'static str, String>>;

/// Remembers whether that file could be written.
fn written(faults: &Faults, name: &'static str, outcome: io::Result<()>) {
    match outcome {
        Ok(()) => drop(faults.borrow_mut().remove(name)),
        Err(error) => {
            tracing::warn!(name, %error, "a file of the state directory cannot be written");
            faults.borrow_mut().insert(name, error.to_string());
        }
    }
}

/// Waits for a signal or for `down`; SIGHUP reads the log level again and goes on.
async fn until_end(signals: &mut Signals, leaving: &flume::Receiver<()>, args: &UpArgs, now: (&Settings, &Service)) -> End {
    loop {
        let signal = async { signals.next().await };
        let down = async {
            // The sender lives as long as this task.
            let _ = leaving.recv_async().await;
            None
        };
        match future::or(signal, down).await {
            Some(Ok(Signal::Hup)) => reload(args, now).await,
            Some(Ok(Signal::Int)) => return End::Asked("SIGINT"),
            Some(Ok(_)) => return End::Asked("SIGTERM"),
            Some(Err(error)) => tracing::warn!(%error, "a signal could not be read"),
            None => return End::Asked("shadowmesh down"),
        }
    }
}

async fn ended(peer: &Peer) -> End {
    End::Itself(peer.finished().await)
}

/// Leaves in an orderly way; a second signal ends at once.
async fn finish(peer: &Peer, signals: &mut Signals, end: End) -> Result<(), Failure> {
    match end {
        End::Itself(Ok(())) => Ok(()),
        End::Itself(Err(why)) => Err(Failure::failed(format!("the peer ended: {why}"))),
        End::Asked(by) => {
            tracing::info!(by, "leaving");
            manager::leaving("leaving");
            let left = async {
                peer.leave().await;
                Ok(())
            };
            let late = async {
                Timer::after(LEAVE_TIME).await;
                Err(Failure::failed("the peer did not end in time"))
            };
            let again = async {
                loop {
                    if let Some(Ok(Signal::Int | Signal::Term)) = signals.next().await {
                        return Err(Failure::failed("ended by a second signal"));
                    }
                }
            };
            future::or(left, future::or(again, late)).await
        }
    }
}

/// Reads the configuration again; of it, the log level, who may be a member and how patient the peer is change in a running process. What
/// differs and waits for the next start is named.
async fn reload(args: &UpArgs, (running, service): (&Settings, &Service)) {
    let read = config::layers(args.files.config.as_deref(), args.layer()).and_then(|layers| config::settings(&layers));
    let settings = match read {
        Ok(settings) => settings,
        Err(failure) => return tracing::warn!(error = %failure, "the configuration has a mistake; everything stays as it was"),
    };
    if let Err(error) = service.levels.set(&settings.log_level) {
        tracing::warn!(error, "the log level cannot be changed");
    }
    service.peer.change_members(node::members(&settings), settings.revoked.clone()).await;
    service.peer.tune(node::tuning(&settings)).await;
    *service.listed.borrow_mut() = listed(&settings);
    tell_reread(&settings.log_level, &running.fixed_that_differ(&settings).join(", "));
}

/// Names from `[[peer]]`.
fn listed(settings: &Settings) -> Vec<(String, PeerId)> {
    settings.peers.iter().filter_map(|peer| Some((peer.name.clone()?, peer.id))).collect()
}

/// Says what was taken over, and what was not.
fn tell_reread(level: &str, fixed: &str) {
    if fixed.is_empty() {
        tracing::info!(level, "configuration read again");
    } else {
        tracing::warn!(level, fixed, "configuration read again; these keys take effect at the next start");
    }
}

/// A misspelt variable has no effect: say so.
fn warn_unknown_variables() {
    let known: Vec<String> = config::keys::KEYS.iter().map(config::keys::Key::variable).collect();
    for name in config::environment().keys().filter(|name| name.starts_with("SHADOWMESH_") && !known.contains(name)) {
        if let Some(near) = config::keys::nearest(name, known.iter().map(String::as_str)) {
            tracing::warn!(variable = name, "unknown variable; did you mean {near}?");
        }
    }
}
