//! A small world for one test: hosts in network namespaces around one switch, and the faults between
//! them. Nothing outside the world's own namespaces is touched, and all of it goes at the end.
//!
//! ```text
//!   sm<pid>-<n>-relay      sm<pid>-<n>-a       sm<pid>-<n>-b
//!        eth0                  eth0                eth0        10.98.0.k/24, fd98::k/64
//!         │ p1                  │ p2                │ p3
//!        ─┴─────────────────────┴───────────────────┴─   br0 in sm<pid>-<n>-switch: faults are set here
//! ```
//!
//! Hosts behind a NAT or a firewall are made in `router`.

use crate::process::{Patience, bounded, tail};
use crate::sys;
use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// No test may last longer; waits are cut to what is left of it.
const TEST_LIMIT: Duration = Duration::from_secs(58);
/// How often a condition is looked at while we wait for it.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(40);

static WORLDS: AtomicU32 = AtomicU32::new(0);

/// Which address families the hosts have on the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Underlay {
    /// IPv4 and IPv6.
    Both,
    /// Both, and those of IPv4 are not private ones.
    Public,
    /// IPv6 alone.
    OnlyV6,
}

/// One host: a namespace with `eth0` on the switch.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Short name, as in the test.
    pub(crate) name: String,
    /// Name of the network namespace.
    pub(crate) namespace: String,
    /// Underlay address; `None` in an IPv6 world.
    pub(crate) v4: Option<Ipv4Addr>,
    /// Underlay address; unspecified behind a router, where there is IPv4 alone.
    pub(crate) v6: Ipv6Addr,
    /// Under which IPv4 address the others see it: its own, or that of the NAT before it.
    pub(crate) outside: Option<Ipv4Addr>,
    /// What drives the programs that run here.
    pub(crate) runtime: &'static str,
    /// The ports that all it sends to others passes: nearest first, that of the world's switch last.
    pub(crate) ports: Vec<Port>,
}

/// A port of a bridge, and the namespace of that bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// The namespaces, the scratch folder and the clock of one test.
pub(crate) struct World {
    prefix: String,
    underlay: Underlay,
    runtime: &'static str,
    folder: tempfile::TempDir,
    hosts: RefCell<Vec<Host>>,
    logs: RefCell<Vec<PathBuf>>,
    next: Cell<u8>,
    patience: RefCell<Patience>,
}

impl World {
    /// An empty switch; all programs will run on this runtime.
    pub(crate) fn new(underlay: Underlay, runtime: &'static str) -> Self {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("sm{}-{number}-", std::process::id());
        let world = Self {
            prefix,
            underlay,
            runtime,
            folder: tempfile::tempdir().expect("a temporary folder"),
            hosts: RefCell::default(),
            logs: RefCell::default(),
            next: Cell::new(1),
            patience: RefCell::new(Patience::new(TEST_LIMIT)),
        };
        let switch = world.switch();
        ip(&["netns", "add", &switch]);
        let bridge = ["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"];
        ip_in(&switch, &bridge);
        ip_in(&switch, &["link", "set", "br0", "up"]);
        world
    }

    fn switch(&self) -> String {
        format!("{}switch", self.prefix)
    }

    /// A number that no other host of the switch has.
    pub(crate) fn number(&self) -> u8 {
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    /// The address of IPv4 with this number.
    pub(crate) fn address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(if self.underlay == Underlay::Public { 11 } else { 10 }, 98, 0, number)
    }

    /// Adds a host to the switch.
    pub(crate) fn host(&self, name: &str) -> Host {
        let number = self.number();
        let v4 = (self.underlay != Underlay::OnlyV6).then(|| self.address(number));
        let port = Port { namespace: self.switch(), name: format!("p{number}") };
        let mut host = self.bare(name, vec![port]);
        host.v6 = Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, u16::from(number));
        (host.v4, host.outside) = (v4, v4);
        let namespace = &host.namespace;
        // Duplicate address detection would keep addresses tentative for a second or two.
        for place in ["all", "default"] {
            host.set(&format!("ipv6/conf/{place}/accept_dad"), "0");
        }
        host.plug("br0");
        if let Some(v4) = host.v4 {
            ip_in(namespace, &["address", "add", &format!("{v4}/24"), "dev", "eth0"]);
        }
        ip_in(namespace, &["address", "add", &format!("{}/64", host.v6), "dev", "eth0", "nodad"]);
        ip_in(namespace, &["link", "set", "eth0", "up"]);
        host
    }

    /// A namespace with nothing in it but `lo`, and without addresses.
    pub(crate) fn bare(&self, name: &str, ports: Vec<Port>) -> Host {
        let namespace = format!("{}{name}", self.prefix);
        let host =
            Host { name: name.to_owned(), namespace, v4: None, v6: Ipv6Addr::UNSPECIFIED, outside: None, runtime: self.runtime, ports };
        ip(&["netns", "add", &host.namespace]);
        // Known from here on, so that it is removed even when the next line fails.
        self.hosts.borrow_mut().push(host.clone());
        ip_in(&host.namespace, &["link", "set", "lo", "up"]);
        host
    }

    /// A folder of this test's own.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).expect("a folder in the temporary folder");
        path
    }

    /// A fresh log file; it is checked for errors at the end, and its tail is shown when the test fails.
    pub(crate) fn log_file(&self, name: &str) -> PathBuf {
        let mut logs = self.logs.borrow_mut();
        let path = self.folder.path().join(format!("{:02}-{name}.log", logs.len()));
        logs.push(path.clone());
        path
    }

    /// `limit`, or what is left of the whole test's time.
    pub(crate) fn patience(&self, limit: Duration) -> Patience {
        Patience::new(limit.min(self.patience.borrow_mut().left()))
    }

    /// Looks again and again until `found` gives something; panics with `what` when the time is over.
    pub(crate) fn wait_for<T>(&self, what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> T {
        let (start, mut patience) = (Instant::now(), self.patience(limit));
        loop {
            if let Some(value) = found() {
                return value;
            }
            assert!(!patience.is_over(), "waited {:.1} s in vain for this: {what}", start.elapsed().as_secs_f64());
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Complaints found in the logs: errors, warnings and panics.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for path in self.logs.borrow().iter() {
            let text = fs::read_to_string(path).unwrap_or_default();
            for line in text.lines().filter(|line| is_complaint(line)) {
                complaints.push(format!("{}: {line}", short(path)));
            }
        }
        complaints
    }

    /// The ends of all logs, to stderr.
    pub(crate) fn show_logs(&self) {
        for path in self.logs.borrow().iter() {
            eprintln!("---- {} ----\n{}", short(path), tail(path, 40));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let namespaces = self.hosts.borrow().iter().map(|host| host.namespace.clone()).collect::<Vec<_>>();
        for namespace in namespaces.iter().chain([&self.switch()]) {
            remove_namespace(namespace);
        }
    }
}

impl Host {
    /// Connects `eth0` with the nearest of its ports, which becomes part of this bridge.
    pub(crate) fn plug(&self, bridge: &str) {
        let port = self.ports.first().expect("a host has a port");
        let link = ["link", "add", &port.name, "type", "veth", "peer", "name", "eth0", "netns", &self.namespace];
        ip_in(&port.namespace, &link);
        ip_in(&port.namespace, &["link", "set", &port.name, "master", bridge, "up"]);
    }

    /// Writes a setting below `/proc/sys/net`.
    pub(crate) fn set(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(name);
        self.enter(|| fs::write(&path, value)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The two ports, one of each, of the nearest bridge that both have.
    fn meets<'h>(&'h self, other: &'h Self) -> (&'h Port, &'h Port) {
        let pairs = self.ports.iter().flat_map(|p| other.ports.iter().map(move |q| (p, q)));
        let mut met = pairs.filter(|(p, q)| p.namespace == q.namespace && p.name != q.name);
        met.next().expect("two hosts of one world meet at a bridge")
    }

    /// Runs `work` on a thread of its own inside this host's namespace. A socket made there stays
    /// there, whichever thread uses it later.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = Path::new("/run/netns").join(&self.namespace);
        let file = File::open(&path).expect("the namespace exists");
        let inside = || {
            sys::join_network_namespace(&file).expect("root may join a namespace");
            work()
        };
        std::thread::scope(|scope| {
            let thread = scope.spawn(inside);
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run on this host.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program.as_ref());
        command
    }

    /// `address:port` of this host on the underlay, IPv4 where it has it.
    pub(crate) fn underlay(&self, port: u16) -> SocketAddr {
        let address = self.v4.map_or(IpAddr::V6(self.v6), IpAddr::V4);
        SocketAddr::new(address, port)
    }

    /// What `ip -j` knows about an interface here; `None` when there is none of that name.
    pub(crate) fn interface(&self, name: &str) -> Option<serde_json::Value> {
        let arguments = ["-j", "-s", "-n", &self.namespace, "address", "show", "dev", name];
        let output = Command::new("ip").args(arguments).output().expect("ip runs");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        json.get(0).cloned()
    }

    /// All routes of this host that go through an interface, one a line.
    pub(crate) fn routes_through(&self, interface: &str) -> String {
        ["-4", "-6"]
            .map(|family| {
                let arguments = [family, "-n", &self.namespace, "route", "show", "table", "all"];
                let output = Command::new("ip").args(arguments).output().expect("ip runs");
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let wanted = format!("dev {interface} ");
                let through: Vec<_> = text.lines().filter(|line| format!("{line} ").contains(&wanted)).collect();
                through.join("\n")
            })
            .concat()
    }
}

/// The bridge where the ways of these two meet silently drops all TCP and UDP between them; ARP and ND still work.
pub(crate) fn drop_between(a: &Host, b: &Host) {
    let (p, q) = a.meets(b);
    let ways = [(&p.name, &q.name), (&q.name, &p.name)];
    let rules = ways.map(|(from, to)| format!("iifname \"{from}\" oifname \"{to}\" meta l4proto {{ tcp, udp }} drop"));
    nft(&p.namespace, &format!("table bridge {} {}", cut(p, q), chain("forward", &rules)));
}

/// Ends `drop_between`.
pub(crate) fn heal(a: &Host, b: &Host) {
    let (p, q) = a.meets(b);
    nft(&p.namespace, &format!("delete table bridge {}\n", cut(p, q)));
}

/// Each TCP segment that one of the two sends to the other is answered with a reset.
pub(crate) fn reset_between(a: &Host, b: &Host) {
    for (host, other) in [(a, b), (b, a)] {
        let v4 = other.v4.map(|address| format!("ip daddr {address}"));
        let v6 = format!("ip6 daddr {{ {}, fe80::/10 }}", other.v6);
        let rules: Vec<_> = v4.into_iter().chain([v6]).map(|to| format!("{to} meta l4proto tcp reject with tcp reset")).collect();
        let chain = chain("output", &rules);
        nft(&host.namespace, &format!("table inet {} {chain}", resets(other)));
    }
}

/// Ends `reset_between`.
pub(crate) fn end_resets(a: &Host, b: &Host) {
    for (host, other) in [(a, b), (b, a)] {
        nft(&host.namespace, &format!("delete table inet {}\n", resets(other)));
    }
}

fn resets(other: &Host) -> String {
    format!("reset_{}", other.ports.first().expect("a host has a port").name)
}

fn cut(p: &Port, q: &Port) -> String {
    format!("cut_{}_{}", p.name, q.name)
}

/// Runs `ip` and demands success.
pub(crate) fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    command.args(arguments);
    let output = bounded(command, Duration::from_secs(10));
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), output.text());
}

/// Runs `ip` in a namespace and demands success.
pub(crate) fn ip_in(namespace: &str, arguments: &[&str]) {
    ip(&[&["-n", namespace], arguments].concat());
}

/// A table's body with one chain on a hook.
fn chain(hook: &str, rules: &[String]) -> String {
    let rules = rules.join("\n");
    format!("{{\nchain {hook} {{\ntype filter hook {hook} priority 0;\n{rules}\n}}\n}}\n")
}

/// Gives rules to the kernel and demands that it takes them.
pub(crate) fn nft(namespace: &str, script: &str) {
    let mut child =
        Command::new("ip").args(["netns", "exec", namespace, "nft", "-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft starts");
    let mut input = child.stdin.take().expect("stdin was piped");
    input.write_all(script.as_bytes()).expect("nft reads its rules");
    drop(input);
    assert!(child.wait().expect("nft ends").success(), "nft refused this:\n{script}");
}

/// Ends what still runs in a namespace of ours and removes it.
fn remove_namespace(namespace: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", namespace]).output() {
        for pid in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // Gone by itself in the meantime is as good.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
    let removed = Command::new("ip").args(["netns", "delete", namespace]).stderr(Stdio::null()).status();
    if !removed.is_ok_and(|status| status.success()) {
        eprintln!("note: the namespace {namespace} could not be removed");
    }
}

/// Removes what an earlier run left behind when it was killed: worlds of processes that are gone.
pub(crate) fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("sm").and_then(|rest| rest.split_once('-'));
        let Some(Ok(pid)) = owner.map(|(pid, _)| pid.parse::<u32>()) else {
            continue;
        };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            remove_namespace(&name);
        }
    }
}

fn short(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// An error, a panic, or a warning; but that a relay is away is what some tests are about.
fn is_complaint(line: &str) -> bool {
    let level = |level: &str| line.split_whitespace().nth(1) == Some(level);
    let expected = ["relay lost", "cannot reach the relay", "several peers are called so"].iter().any(|text| line.contains(text));
    level("ERROR") || (level("WARN") && !expected) || line.contains("panicked at")
}
