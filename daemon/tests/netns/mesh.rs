//! The product as an operator sees it: relay and peers as processes on hosts, asked by their own
//! commands and by nothing else.

use crate::process::{Output, Process, bounded};
use crate::world::{Host, World, drop_between, heal};
use rustix::process::Signal;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// The interface that peers make.
pub(crate) const INTERFACE: &str = "mesh0";
/// Where relays serve metrics, each in a namespace of its own.
pub(crate) const METRICS: &str = "127.0.0.1:9462";
/// Where relays listen.
const RELAY_PORT: u16 = 443;
/// No command of ours may take longer to answer (debug builds on busy machines included).
const COMMAND_LIMIT: Duration = Duration::from_secs(15);
/// A peer says that it runs, and a handshake is done, well within this.
const START_LIMIT: Duration = Duration::from_secs(15);
/// What a relay may serve its clients after SIGTERM, and a little more.
const DRAIN_LIMIT: Duration = Duration::from_secs(14);
/// Two back-offs and an attempt.
const MIGRATION_LIMIT: Duration = Duration::from_secs(20);

/// The peer's program.
pub(crate) fn peer_program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_shadowmesh"))
}

/// The relay's program, beside the peer's. It belongs to another package, so nobody has built it yet
/// when only this package is tested: then cargo is asked once, with the profile of this test.
pub(crate) fn relay_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = peer_program().parent().expect("a program is in a folder");
        let program = folder.join("shadowmesh-relay");
        let Some(cargo) = std::env::var_os("CARGO") else {
            assert!(program.exists(), "{} is missing: cargo build -p shadowmesh-relay", program.display());
            return program;
        };
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(other) => other,
        };
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--locked", "-p", "shadowmesh-relay", "--profile", profile]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        if let Some(target) = folder.parent() {
            build.env("CARGO_TARGET_DIR", target);
        }
        let output = bounded(build, Duration::from_mins(20));
        assert!(output.status.success(), "the relay does not build:\n{}", output.text());
        program
    })
}

/// A relay on a host, with the join token of a network that uses it.
pub(crate) struct Relay {
    host: Host,
    state: PathBuf,
    process: Option<Process>,
    pub(crate) id: String,
    pub(crate) url: String,
    pub(crate) token: String,
}

impl Relay {
    /// Makes its identity and a network, but does not start it.
    pub(crate) fn prepare(world: &World, host: &Host) -> Self {
        Self::prepare_all(world, core::slice::from_ref(host)).pop().expect("one host, one relay")
    }

    /// The same for several relays of one network, in the order of its token.
    pub(crate) fn prepare_all(world: &World, hosts: &[Host]) -> Vec<Self> {
        let mut network = Command::new(peer_program());
        network.args(["network", "new", "--name", "proof"]);
        let mut relays: Vec<_> = hosts.iter().map(|host| Self::without_network(world, host)).collect();
        for relay in &relays {
            network.args(["--relay", &relay.url, "--relay-id", &relay.id]);
        }
        let token = one_line(&bounded(network, COMMAND_LIMIT));
        assert!(token.starts_with("smesh1:"), "a join token begins with smesh1: and this does not: {token}");
        for relay in &mut relays {
            relay.token.clone_from(&token);
        }
        relays
    }

    fn without_network(world: &World, host: &Host) -> Self {
        let state = world.folder(&host.name);
        let mut command = Command::new(relay_program());
        command.arg("id").arg("--state-dir").arg(&state);
        let id = one_line(&bounded(command, COMMAND_LIMIT));
        let url = format!("wss://{}", host.underlay(RELAY_PORT));
        Self { host: host.clone(), state, process: None, id, url, token: String::new() }
    }

    /// Where it runs.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// `prepare` and `start`.
    pub(crate) fn new(world: &World, host: &Host) -> Self {
        let mut relay = Self::prepare(world, host);
        relay.start(world);
        relay
    }

    /// Starts it and waits until it has named itself.
    pub(crate) fn start(&mut self, world: &World) {
        let mut process = Process::start(self.command(), world.log_file(&self.host.name));
        world.wait_for("the relay to name its address and id", START_LIMIT, || {
            let said = process.said();
            assert!(process.ended().is_none(), "the relay ended:\n{said}");
            said.contains(&self.id).then_some(())
        });
        self.process = Some(process);
    }

    /// The command that runs it.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.host.command(relay_program());
        command.arg("--listen").arg(self.host.underlay(RELAY_PORT).to_string());
        command.arg("--state-dir").arg(&self.state).args(["--runtime", self.host.runtime]);
        // Long enough for a test to look at a relay that drains.
        command.args(["--metrics", METRICS]).env("SHADOWMESH_DRAIN_TIMEOUT", "10s");
        command
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("the relay runs").kill();
    }

    /// SIGTERM; it has to end well.
    pub(crate) fn stop(&mut self) {
        self.tell_to_stop();
        self.end_within(DRAIN_LIMIT);
    }

    /// SIGTERM.
    pub(crate) fn tell_to_stop(&mut self) {
        self.process.as_mut().expect("the relay runs").signal(Signal::TERM);
    }

    /// Waits for its end after `tell_to_stop`.
    pub(crate) fn end_within(&mut self, limit: Duration) {
        let mut process = self.process.take().expect("the relay runs");
        let status = process.end_within(limit);
        assert!(status.success(), "the relay left with {status}:\n{}", process.said());
    }

    /// `status --json`.
    pub(crate) fn status(&self) -> Value {
        let mut command = Command::new(relay_program());
        command.args(["status", "--json", "--state-dir"]).arg(&self.state);
        let output = bounded(command, COMMAND_LIMIT);
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("status --json is no JSON ({error}): {}", output.text()))
    }
}

/// How a peer is started, where it differs from the ordinary.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Arguments of `up`; the control socket is found by the state folder.
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
}

impl Options {
    /// Nothing but the state folder and what follows.
    pub(crate) fn bare(state: &Path) -> Self {
        Self { arguments: vec!["--state-dir".to_owned(), state.display().to_string()], variables: Vec::new() }
    }

    /// What most tests use: a token, a name, a fixed address, short waits between attempts.
    pub(crate) fn ordinary(state: &Path, name: &str, token: &str, address: Ipv4Addr) -> Self {
        Self::bare(state)
            .with(&["--join", token, "--name", name, "--interface", INTERFACE])
            .with(&["--address", &format!("{address}/24")])
            .set("SHADOWMESH_P2P_RETRY_INTERVAL", "2s")
    }

    /// More arguments.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// One more variable.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command that runs such a peer on a host.
    pub(crate) fn command(&self, host: &Host) -> Command {
        let mut command = host.command(peer_program());
        command.arg("up").args(&self.arguments).args(["--runtime", host.runtime]);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A peer on a host.
pub(crate) struct Peer<'w> {
    world: &'w World,
    pub(crate) host: Host,
    pub(crate) name: String,
    pub(crate) state: PathBuf,
    pub(crate) options: Options,
    process: Process,
}

impl<'w> Peer<'w> {
    /// Starts an ordinary peer, changed by `change`: name of the host, address 10.77.0.`number`.
    pub(crate) fn start_with(world: &'w World, host: &Host, token: &str, number: u8, change: impl FnOnce(Options) -> Options) -> Self {
        let state = world.folder(&host.name);
        let address = overlay(number);
        Self::start(world, host, &host.name, change(Options::ordinary(&state, &host.name, token, address)))
    }

    /// Starts a peer with exactly these options.
    pub(crate) fn start(world: &'w World, host: &Host, name: &str, options: Options) -> Self {
        let process = Process::start(options.command(host), world.log_file(name));
        let state = world.folder(&host.name);
        Self { world, host: host.clone(), name: name.to_owned(), state, options, process }
    }

    /// Starts it again after its end, on the same state.
    pub(crate) fn start_again(&mut self) {
        self.process = Process::start(self.options.command(&self.host), self.world.log_file(&self.name));
    }

    /// Everything it has logged since its last start.
    pub(crate) fn said(&self) -> String {
        self.process.said()
    }

    /// The number of its process.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Its process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs one of its commands, such as `status`, and gives what it printed.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        self.asking(arguments)()
    }

    /// The same, to be done later or by another thread.
    pub(crate) fn asking(&self, arguments: &[&str]) -> impl FnOnce() -> Output + Send + use<> {
        let command = self.command(arguments);
        move || bounded(command, COMMAND_LIMIT + Duration::from_secs(20))
    }

    /// One of its commands, not run yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(peer_program());
        command.args(arguments).arg("--state-dir").arg(&self.state);
        command
    }

    /// `status --json`, or `None` while it does not answer.
    pub(crate) fn status(&self) -> Option<Value> {
        let output = self.ask(&["status", "--json"]);
        output.status.success().then(|| {
            serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("status --json is no JSON ({error}): {}", output.stdout))
        })
    }

    /// Waits until its status is as wanted and gives it; the last one seen is named when it never is.
    pub(crate) fn until(&mut self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut patience = self.world.patience(limit);
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| wanted(status)) {
                return status.clone();
            }
            if let Some(ended) = self.process.ended() {
                panic!("{} ended ({ended}) while it should: {what}\n{}", self.name, self.said());
            }
            assert!(!patience.is_over(), "{} did not come to this: {what}; its status: {status:#?}", self.name);
            std::thread::sleep(crate::world::POLL_INTERVAL);
        }
    }

    /// Waits until it is connected with a relay.
    pub(crate) fn until_relay(&mut self) -> Value {
        self.until("connected with the relay", START_LIMIT, |status| {
            list(status, "relays").iter().any(|relay| relay["state"] == "connected")
        })
    }

    /// Waits until it sends to that peer over a path of this kind, and gives what it knows of that peer.
    pub(crate) fn until_path(&mut self, peer: &str, kind: &str) -> Value {
        let what = format!("sends to {peer} over a {kind} path");
        let status = self.until(&what, MIGRATION_LIMIT, |status| {
            find(status, peer).is_some_and(|peer| peer["state"] == "connected" && peer["path"]["kind"] == kind)
        });
        find(&status, peer).expect("just seen").clone()
    }

    /// Waits until it sends to that peer over a direct path by this transport, and gives what it knows of that peer.
    pub(crate) fn until_transport(&mut self, peer: &str, transport: &str) -> Value {
        let what = format!("sends to {peer} over a direct path by {transport}");
        let status = self.until(&what, MIGRATION_LIMIT, |status| {
            find(status, peer).is_some_and(|peer| peer["path"]["kind"] == "direct" && peer["path"]["transport"] == transport)
        });
        find(&status, peer).expect("just seen").clone()
    }

    /// What it knows of another peer now.
    pub(crate) fn knows(&self, peer: &str) -> Value {
        let status = self.status().expect("a running peer answers status");
        find(&status, peer).unwrap_or_else(|| panic!("{} does not know {peer}: {status:#?}", self.name)).clone()
    }

    /// Its overlay address made from its identity, once it has told it.
    pub(crate) fn derived_address(&mut self) -> IpAddr {
        let derived = |status: &Value| {
            let addresses = status["interface"]["addresses"].as_array()?;
            addresses.iter().find_map(|text| {
                let address = text.as_str()?.split('/').next()?.parse::<IpAddr>().ok()?;
                matches!(address, IpAddr::V6(v6) if v6.octets()[0] == 0xfd).then_some(address)
            })
        };
        let status = self.until("has an address of its own in fd00::/8", START_LIMIT, |status| derived(status).is_some());
        derived(&status).expect("just seen")
    }
}

/// A relay and peers `a`, `b`, … on one switch, all connected with the relay.
pub(crate) struct Mesh<'w> {
    pub(crate) relay: Relay,
    pub(crate) relay_host: Host,
    pub(crate) peers: Vec<Peer<'w>>,
}

impl<'w> Mesh<'w> {
    /// As many peers as there are names. With `apart`, the switch drops what they send to each other
    /// directly, until `join`.
    pub(crate) fn start(world: &'w World, names: &[&str], apart: bool, change: impl Fn(Options) -> Options) -> Self {
        let relay_host = world.host("relay");
        let hosts: Vec<_> = names.iter().map(|name| world.host(name)).collect();
        Self::start_on(world, relay_host, &hosts, apart, change)
    }

    /// The same on hosts that are there.
    pub(crate) fn start_on(world: &'w World, relay_host: Host, hosts: &[Host], apart: bool, change: impl Fn(Options) -> Options) -> Self {
        if apart {
            pairs(hosts).for_each(|(a, b)| drop_between(a, b));
        }
        let relay = Relay::new(world, &relay_host);
        let peers = hosts.iter().zip(1..).map(|(host, number)| Peer::start_with(world, host, &relay.token, number, &change));
        let mut mesh = Self { peers: peers.collect(), relay, relay_host };
        mesh.peers.iter_mut().for_each(|peer| drop(peer.until_relay()));
        mesh
    }

    /// Ends the separation of `start(…, apart: true, …)`.
    pub(crate) fn join(&self) {
        let hosts: Vec<_> = self.peers.iter().map(|peer| peer.host.clone()).collect();
        pairs(&hosts).for_each(|(a, b)| heal(a, b));
    }

    /// Waits until each peer sends to each other one over paths of this kind.
    pub(crate) fn until_all(&mut self, kind: &str) {
        let names: Vec<_> = self.peers.iter().map(|peer| peer.name.clone()).collect();
        for peer in &mut self.peers {
            let own = peer.name.clone();
            for other in names.iter().filter(|name| **name != own) {
                peer.until_path(other, kind);
            }
        }
    }

    /// A host with the overlay address of its peer, for the ends of traffic.
    pub(crate) fn end(&self, index: usize) -> (&Host, IpAddr) {
        (&self.peers[index].host, IpAddr::V4(overlay(index as u8 + 1)))
    }
}

/// The fixed overlay address of peer `number`, from 1.
pub(crate) fn overlay(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// A list in a status; empty while it is missing.
pub(crate) fn list<'v>(status: &'v Value, key: &str) -> &'v [Value] {
    status[key].as_array().map_or(&[], Vec::as_slice)
}

/// A peer in a status, by name.
pub(crate) fn find<'v>(status: &'v Value, name: &str) -> Option<&'v Value> {
    list(status, "peers").iter().find(|peer| peer["name"] == name)
}

/// A counter in a status.
pub(crate) fn counter(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} is missing in {value:#}"))
}

/// Where a path of a status leads.
pub(crate) fn remote(path: &Value) -> SocketAddr {
    let text = path["remote"].as_str().unwrap_or_else(|| panic!("a direct path has a remote: {path}"));
    text.parse().unwrap_or_else(|error| panic!("remote {text}: {error}"))
}

fn pairs(hosts: &[Host]) -> impl Iterator<Item = (&Host, &Host)> {
    hosts.iter().enumerate().flat_map(|(at, a)| hosts[at + 1..].iter().map(move |b| (a, b)))
}

fn one_line(output: &Output) -> String {
    assert!(output.status.success(), "{}", output.text());
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 1, "one line alone belongs on stdout: {}", output.stdout);
    lines[0].to_owned()
}
