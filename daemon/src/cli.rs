//! The command line: its words, and how its flags become a layer of the configuration.
use crate::config::{Given, Raw, Source};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::{path::PathBuf, time::Duration};

/// A post-quantum peer-to-peer overlay network.
#[derive(Debug, Parser)]
#[command(name = "shadowmesh", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a new identity file and prints its `PeerId`
    Keygen {
        /// Where the secret key goes [default: the identity file of the configuration]; `-`: to standard output, to be sealed
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        files: FileArgs,
    },
    /// Prints the `PeerId` of an identity file
    #[command(args_conflicts_with_subcommands = true)]
    Id {
        #[command(subcommand)]
        command: Option<IdCommand>,
        /// The identity file [default: that of the configuration]
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
        #[command(flatten)]
        files: FileArgs,
    },
    /// Makes networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Keeps the join token of a network in the state directory, so that `up` needs none
    Join(JoinArgs),
    /// Runs the peer in the foreground until SIGINT or SIGTERM
    Up(Box<UpArgs>),
    /// Asks the running peer to leave, and waits until it has
    Down {
        #[command(flatten)]
        files: FileArgs,
    },
    /// Who is there, over which path, since when
    Status {
        /// Prints JSON
        #[arg(long)]
        json: bool,
        /// Draws rates, paths and moves of the peers until `q`; where there is no terminal, prints again each second
        #[arg(long)]
        watch: bool,
        /// Prints nothing; exit code 0 when the peer runs (live) or is connected (ready)
        #[arg(long, value_name = "STATE")]
        check: Option<Check>,
        #[command(flatten)]
        files: FileArgs,
    },
    /// Waits until the peer runs and is connected, or until another peer is
    Wait(WaitArgs),
    /// Sends overlay pings and names the path that each answer took
    Ping(PingArgs),
    /// Writes what passes the interface of the running peer into a file, as pcapng
    Capture(CaptureArgs),
    /// Tells about the other peers
    #[command(subcommand)]
    Peer(PeerCommand),
    /// What the network lets through: UDP, mapped addresses, ports of the router, how far the relays are
    Netcheck(NetcheckArgs),
    /// Checks and shows the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The log of the running peer
    #[command(subcommand)]
    Log(LogCommand),
    /// Writes what helps to find a fault: versions, configuration, status, paths, log; no secrets
    Bugreport {
        /// A new file for it; without it, standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        files: FileArgs,
    },
    /// Prints the running peer's metrics as Prometheus text
    Metrics {
        #[command(flatten)]
        files: FileArgs,
    },
    /// Shows a relay, two peers, a migration, a killed path and its recovery on this machine
    Demo {
        /// About how long it runs
        #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u64).range(5..=3600))]
        seconds: u64,
        /// Prints only the measured summary, as JSON
        #[arg(long)]
        json: bool,
        /// What drives the machines
        #[arg(long, value_name = "KIND", default_value = "smol")]
        runtime: Runtime,
    },
    /// Prints a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Writes the manual pages into a directory
    Man {
        /// An existing directory
        dir: PathBuf,
    },
    /// Prints the version
    Version {
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
}

/// Commands about this peer's own identity.
#[derive(Debug, Subcommand)]
pub(crate) enum IdCommand {
    /// Makes a new identity that follows this one at the next start, and tells the others
    Rotate {
        /// Prints JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        files: FileArgs,
    },
}

/// Commands about networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Makes a network and prints its join token
    New {
        /// A name for people
        #[arg(long, default_value = "mesh", value_name = "N")]
        name: String,
        /// A relay of the network, like <wss://relay.example:443>
        #[arg(long, required = true, value_name = "URL")]
        relay: Vec<String>,
        /// The relays' ids in the same order, as `shadowmesh-relay id` prints them
        #[arg(long, value_name = "ID")]
        relay_id: Vec<String>,
        /// The relays' access tokens in the same order, where their operators gave one; `-` for a relay without
        #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
        relay_token: Vec<String>,
    },
}

/// Commands about the log.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Prints the last lines, at most 256 KiB
    Show {
        #[command(flatten)]
        files: FileArgs,
    },
    /// Prints the level, or sets another until the peer ends or reads its configuration again
    Level {
        /// error, warn, info, debug, trace, off, or filters by module
        level: Option<String>,
        #[command(flatten)]
        files: FileArgs,
    },
}

/// Commands about the other peers.
#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// The peers that have been seen, one line each
    List {
        /// Prints JSON, as in `peers` of `status --json`
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        files: FileArgs,
    },
    /// All about one peer: addresses, paths, keys, counters
    Show {
        /// Name, overlay address, or the beginning of a `PeerId`
        peer: String,
        /// Prints JSON, as in `peers` of `status --json`
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        files: FileArgs,
    },
    /// Why this peer is on the path it is on
    Explain {
        /// Name, overlay address, or the beginning of a `PeerId`
        peer: String,
        /// Prints JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        files: FileArgs,
    },
}

/// Commands about the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Checks a configuration file
    Check {
        /// The file
        file: PathBuf,
    },
    /// Prints the configuration
    Show {
        /// Every key with the value that holds and where it comes from; without it, only what differs from the defaults
        #[arg(long)]
        effective: bool,
        #[command(flatten)]
        files: FileArgs,
    },
}

/// What `status --check` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// The peer runs and answers
    Live,
    /// A relay or a peer is connected
    Ready,
}

/// What drives the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// One asynchronous thread
    Smol,
    /// A thread that waits for all descriptors at once, and blocking ones beside it
    Threads,
}

/// Where the configuration, the state and the running peer are.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FileArgs {
    /// Configuration file [default: /etc/shadowmesh/peer.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// State directory [default: /var/lib/shadowmesh]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Control socket of the peer [default: control.sock in --state-dir, or /run/shadowmesh/peer.sock]
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
}

/// Flags of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Join token of the network; remembered in the state directory
    #[arg(long, value_name = "TOKEN", conflicts_with = "join_file")]
    pub(crate) join: Option<String>,
    /// File that holds the join token
    #[arg(long, value_name = "FILE")]
    pub(crate) join_file: Option<PathBuf>,
    /// What others call this peer [default: the host name]
    #[arg(long, value_name = "N")]
    pub(crate) name: Option<String>,
    /// HTTP proxy on the way to relays, like <http://USER:PASSWORD@proxy:3128>, or off [default: `HTTPS_PROXY`]
    #[arg(long, value_name = "URL")]
    pub(crate) network_proxy: Option<String>,
    /// Name of the network interface [default: mesh0]
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// Kind of interface: tun, tap or userspace [default: tun]
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<String>,
    /// Overlay address with prefix length, like 10.77.0.2/24; may be given several times
    #[arg(long, value_name = "CIDR")]
    pub(crate) address: Vec<String>,
    /// Whether names of peers below .mesh are answered: true or false [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(crate) dns: Option<String>,
    /// Where SOCKS5 and HTTP CONNECT are served in userspace mode, or off [default: 127.0.0.1:1080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) proxy: Option<String>,
    /// In userspace mode: what connects to LOCAL (a port, or an address with one) reaches the peer's port; may be given several times
    #[arg(long, value_name = "LOCAL=PEER:PORT")]
    pub(crate) forward: Vec<String>,
    /// In userspace mode: what connects to this port of ours reaches the local address [default: the same port]; may be given several times
    #[arg(long, value_name = "PORT[=ADDR:PORT]")]
    pub(crate) expose: Vec<String>,
    /// What drives the peer: smol or threads
    #[arg(long, value_name = "KIND", default_value = "smol")]
    pub(crate) runtime: Runtime,
    /// Where Prometheus metrics are served, or off [default: 127.0.0.1:9461]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<String>,
    /// Records the run in a new file, to be replayed; it holds all keys of the run
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
}

/// Flags of `join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The join token; `-` reads it from standard input, which keeps it out of the shell's history
    #[arg(required_unless_present = "file")]
    pub(crate) token: Option<String>,
    /// File that holds the join token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(crate) file: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

/// Flags of `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Wait for this peer: a name, an overlay address, or the beginning of a `PeerId`
    pub(crate) peer: Option<String>,
    /// Wait until what we send to the peer takes a direct path
    #[arg(long, requires = "peer")]
    pub(crate) direct: bool,
    /// The longest wait, also for the daemon to start
    #[arg(long, value_name = "D", default_value = "30s", value_parser = positive_duration)]
    pub(crate) timeout: Duration,
    /// Prints one JSON object at the end
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

/// Flags of `ping`.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Name, overlay address, or the beginning of a `PeerId`
    pub(crate) peer: String,
    /// How many pings; without it, until interrupted
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: Option<u32>,
    /// Time between two pings
    #[arg(long, value_name = "D", default_value = "1s", value_parser = positive_duration)]
    pub(crate) interval: Duration,
    /// Stops as soon as an answer went out and came back over a direct path
    #[arg(long)]
    pub(crate) until_direct: bool,
    /// For the whole command, and for a peer that is still to appear [default with --until-direct: 30s]
    #[arg(long, value_name = "D", value_parser = positive_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Prints one JSON object at the end
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

/// Flags of `capture`.
#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// The file, written anew; `-` is standard output
    pub(crate) file: PathBuf,
    /// Ends after so many packets [default: SIGINT ends it]
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Ends after this time
    #[arg(long, value_name = "D", value_parser = positive_duration)]
    pub(crate) duration: Option<Duration>,
    /// Bytes kept of each packet
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = 65_554, value_parser = clap::value_parser!(u32).range(1..=65_554))]
    pub(crate) snaplen: u32,
    /// Only packets from or to the addresses of this peer: its name, overlay address, or the beginning of its `PeerId`
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

/// Flags of `netcheck`.
#[derive(Debug, Args)]
pub(crate) struct NetcheckArgs {
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Looks from here at the relays of this join token, whether or not a peer is running
    #[arg(long, value_name = "TOKEN", conflicts_with = "join_file")]
    pub(crate) join: Option<String>,
    /// The same with the token in a file
    #[arg(long, value_name = "FILE")]
    pub(crate) join_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(value) if value >= Duration::from_millis(10) && value <= Duration::from_hours(24) => Ok(value),
        Ok(_) => Err("it is at least 10ms and at most 24h".to_owned()),
        Err(_) => Err("write it like 500ms, 30s or 2m".to_owned()),
    }
}

impl FileArgs {
    /// As a layer of the configuration.
    pub(crate) fn layer(&self) -> Vec<Given> {
        let mut layer = Vec::new();
        push_path(&mut layer, "state.dir", "--state-dir", self.state_dir.as_ref());
        push_path(&mut layer, "control.socket", "--control", self.control.as_ref());
        layer
    }
}

impl NetcheckArgs {
    /// As a layer of the configuration.
    pub(crate) fn layer(&self) -> Vec<Given> {
        let mut layer = self.files.layer();
        push(&mut layer, "network.join", "--join", self.join.as_ref());
        push_path(&mut layer, "network.join_file", "--join-file", self.join_file.as_ref());
        layer
    }
}

impl UpArgs {
    /// As a layer of the configuration.
    pub(crate) fn layer(&self) -> Vec<Given> {
        let mut layer = self.files.layer();
        push(&mut layer, "network.join", "--join", self.join.as_ref());
        push_path(&mut layer, "network.join_file", "--join-file", self.join_file.as_ref());
        push(&mut layer, "network.name", "--name", self.name.as_ref());
        push(&mut layer, "network.proxy", "--network-proxy", self.network_proxy.as_ref());
        push(&mut layer, "interface.name", "--interface", self.interface.as_ref());
        push(&mut layer, "interface.mode", "--mode", self.mode.as_ref());
        push(&mut layer, "dns.enabled", "--dns", self.dns.as_ref());
        push(&mut layer, "metrics.listen", "--metrics", self.metrics.as_ref());
        push(&mut layer, "userspace.proxy", "--proxy", self.proxy.as_ref());
        for (key, flag, list) in [
            ("interface.address", "--address", &self.address),
            ("userspace.forward", "--forward", &self.forward),
            ("userspace.expose", "--expose", &self.expose),
        ] {
            if !list.is_empty() {
                layer.push(Given { key, raw: Raw::List(list.clone()), source: Source::Flag(flag) });
            }
        }
        layer
    }
}

fn push(layer: &mut Vec<Given>, key: &'static str, flag: &'static str, value: Option<&String>) {
    if let Some(text) = value {
        layer.push(Given { key, raw: Raw::Text(text.clone()), source: Source::Flag(flag) });
    }
}

fn push_path(layer: &mut Vec<Given>, key: &'static str, flag: &'static str, value: Option<&PathBuf>) {
    push(layer, key, flag, value.map(|path| path.display().to_string()).as_ref());
}
