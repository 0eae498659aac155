//! A newcomer's walk: every line of shell in README, getting started, operating a relay and troubleshooting, taken from the page itself and
//! run as written, in order, on machines where nobody has ever run `ShadowMesh`.
//!
//! A line that is new in a page runs like the others. What goes on, is interrupted, replaced or not run stands in one table
//! (`page::LINES`), with the reason; sections that no walk goes through stand in another one (`page::ELSEWHERE`). A section that is in
//! neither fails `walk_leaves_no_command_out`.

mod machine;
mod page;

use crate::stream::Stream;
use crate::world::{Host, World, ip_in};
use crate::{Scenario, is_installed, once};
use machine::Machine;
use page::{ELSEWHERE, GETTING_STARTED, How, LINES, OPERATING, OPTIONAL, README, Section, TROUBLESHOOTING, WALKED};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

const LAPTOP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// Nobody.
const USER: u32 = 65534;
/// What the walk's small servers say.
const GREETING: &str = "hello from the walk";

pub(crate) fn all() -> Vec<Scenario> {
    let walk = |name, story, program| Scenario { program, needs: Some(machines_cannot_be_made), ..once(name, story) };
    vec![
        once("walk_leaves_no_command_out", nothing_is_left_out),
        Scenario {
            program: OPTIONAL.into_iter().find(|program| !is_installed(program)),
            ..once("walk_has_all_programs", |_| assert!(page::left_out().is_empty()))
        },
        walk("walk_of_getting_started", getting_started, Some("curl")),
        walk("walk_of_one_machine", one_machine, Some("just")),
        walk("walk_of_readme", readme, None),
        walk("walk_of_operating_a_relay", operating, Some("curl")),
    ]
}

/// Why there can be no clean machines here.
fn machines_cannot_be_made() -> Option<String> {
    let script = "mount -t tmpfs tmpfs /run && cd /run && mkdir upper work root && \
                  mount -t overlay overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work /run/root";
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "--pid", "--fork", "--propagation", "private", "sh", "-c", script]);
    let made = probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    (!made).then(|| "the kernel does not let us lay a file system over this one's".to_owned())
}

// ---- the tables ----------------------------------------------------------------------------------------------------

fn nothing_is_left_out(_: &World) {
    let mut complaints = Vec::new();
    let mut lines = Vec::new();
    for page in page::pages() {
        for (title, of_section) in page::sections(&page, "sh") {
            let walked = WALKED.contains(&(page.as_str(), title.as_str()));
            let elsewhere = ELSEWHERE.iter().any(|(other, wanted, _)| *other == page && (*wanted == "*" || *wanted == title));
            if walked == elsewhere {
                complaints.push(format!("{page}, {title:?}: no walk goes through it, and ELSEWHERE has no reason (or both)"));
            }
            lines.extend(of_section);
        }
    }
    for (page, title) in WALKED.iter().copied().chain(ELSEWHERE.iter().map(|(page, title, _)| (*page, *title))) {
        if !page::sections(page, "sh").iter().any(|(found, _)| title == "*" || found == title) {
            complaints.push(format!("{page} has no section {title:?} with shell in it any more"));
        }
    }
    for (line, _) in LINES {
        let replaces = LINES.iter().any(|(_, how)| matches!(how, How::Instead(other, _) if other == line));
        if !replaces && !lines.iter().any(|found| found == line) {
            complaints.push(format!("no page has this line any more: {line}"));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

// ---- docs/getting-started.md ---------------------------------------------------------------------------------------

fn getting_started(world: &World) {
    let [relay, laptop, server] = ["relay", "laptop", "server"].map(|name| world.host(name));
    for (host, number) in [(&relay, 1), (&laptop, 2), (&server, 3)] {
        public(host, number);
    }
    let laptop = Machine::start(world, &laptop);
    let build = Section::open(GETTING_STARTED, "Build");
    build.rest(&laptop);
    laptop.go_home();
    let [relay, server] = [relay, server].map(|host| Machine::start(world, &host).with_programs());
    let id = hosts_apart(&relay, &laptop, &server);
    without_root(&laptop, &server);
    other_ways(&laptop, &server);
    as_a_service(&relay, &laptop, &id);
    sealed_keys(&laptop);
    build.finish(&laptop);
}

/// From the relay to the first looks; gives the relay's id.
fn hosts_apart(relay: &Machine<'_>, laptop: &Machine<'_>, server: &Machine<'_>) -> String {
    let section = Section::open(GETTING_STARTED, "A network of hosts apart");
    section.step(relay);
    let id = relay.run("shadowmesh-relay id --state-dir /var/lib/shadowmesh-relay").stdout.trim().to_owned();
    let said = relay.said("shadowmesh-relay --listen");
    assert!(said.contains(&id) && said.contains(":443"), "it prints its address and id: {said}");
    section.fill("sm-…", &id);
    section.step(laptop);
    assert!(laptop.read("/var/newcomer/home.token").starts_with("smesh1:"), "a token is in the file");
    laptop.give("home.token", server);
    server.stay("shadowmesh up --join-file home.token --name server --address 10.77.0.1/24", "shadowmesh status --check ready");
    section.step(laptop);
    laptop.run("shadowmesh wait server");
    let status = section.step(laptop);
    assert!(["wss://192.0.2.1:443", "server", "10.77.0.1"].iter().all(|word| status.contains(word)), "status shows who is there: {status}");
    section.before(laptop, "shadowmesh capture");
    let stream = Stream::start((&laptop.host, LAPTOP), (&server.host, SERVER));
    section.step(laptop);
    let bytes = laptop.run("stat --format %s talk.pcapng").stdout;
    assert!(bytes.trim().parse::<u64>().is_ok_and(|bytes| bytes > 10_000), "a hundred packets are in the file: {bytes}");
    section.rest(laptop);
    stream.finish_perfect();
    section.finish(laptop);
    Section::open(TROUBLESHOOTING, "Troubleshooting").finish(laptop);
    // Ctrl-C and `shadowmesh down` leave cleanly, and the next start needs only `shadowmesh up`.
    laptop.interrupt("sudo shadowmesh up", false);
    assert!(!laptop.attempt("ip link show mesh0").status.success(), "the interface is gone");
    laptop.stay("shadowmesh up", "shadowmesh status --check ready");
    laptop.run("shadowmesh down");
    laptop.end("shadowmesh up");
    id
}

fn without_root(laptop: &Machine<'_>, server: &Machine<'_>) {
    let everywhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let _web = [8000, 80].map(|port| greet(&server.host, SocketAddr::new(everywhere, port)));
    let _ssh = greet(&laptop.host, "127.0.0.1:22".parse().expect("an address"));
    laptop.become_user(Some(USER));
    let section = Section::open(GETTING_STARTED, "Without root");
    section.step(laptop);
    laptop.run("shadowmesh wait server --state-dir ~/.shadowmesh");
    let page = section.step(laptop);
    assert!(page.contains(GREETING), "the server's page comes through the proxy: {page}");
    section.before(laptop, "shadowmesh up --mode userspace … --forward");
    laptop.interrupt("shadowmesh up", false);
    section.step(laptop);
    let page = laptop.run("shadowmesh wait server --state-dir ~/.shadowmesh && curl -fsS http://127.0.0.1:8080/").stdout;
    assert!(page.contains(GREETING), "a port here is the server's port 80: {page}");
    laptop.interrupt("shadowmesh up", false);
    section.before(laptop, "shadowmesh up --mode userspace … --expose");
    section.step(laptop);
    laptop.run("shadowmesh wait server --state-dir ~/.shadowmesh");
    let status = laptop.run("shadowmesh status --json --state-dir ~/.shadowmesh").stdout;
    let status: serde_json::Value = serde_json::from_str(&status).expect("status --json prints JSON");
    let addresses = status["interface"]["addresses"].as_array().expect("the peer has addresses");
    let mut addresses = addresses.iter().filter_map(|text| text.as_str()?.split('/').next()?.parse().ok());
    // The one made from its identity: the other machine's interface is in another network of IPv4.
    let own: IpAddr = addresses.find(IpAddr::is_ipv6).expect("an address of IPv6 is always there");
    let heard = server.host.enter(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(own, 22), Duration::from_secs(5))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    assert!(heard.as_ref().is_ok_and(|text| text.contains(GREETING)), "peers reach this host's port 22: {heard:?}");
    section.rest(laptop);
    laptop.interrupt("shadowmesh up", false);
    section.finish(laptop);
    laptop.become_user(None);
}

/// Ethernet, and a configuration file.
fn other_ways(laptop: &Machine<'_>, server: &Machine<'_>) {
    let section = Section::open(GETTING_STARTED, "Ethernet instead of IP");
    section.step(laptop);
    assert!(laptop.run("shadowmesh status").stdout.contains("tap"), "status names the mode");
    laptop.interrupt("sudo shadowmesh up", false);
    section.finish(laptop);

    let server_id = server.run("shadowmesh id").stdout;
    let (_, file) =
        page::sections(GETTING_STARTED, "toml").into_iter().find(|(title, _)| title == "Configuration").expect("a file is shown");
    laptop.write("/etc/shadowmesh/peer.toml", &file.join("\n").replace("sm-…", server_id.trim()));
    laptop.run("cp home.token /etc/shadowmesh/");
    Section::open(GETTING_STARTED, "Configuration").finish(laptop);
    laptop.stay("shadowmesh up", "shadowmesh status --check ready");
    let shown = laptop.run("shadowmesh wait server --direct && shadowmesh peer show server").stdout;
    assert!(shown.contains("direct/wss"), "the file allows this transport alone: {shown}");
    laptop.interrupt("shadowmesh up", false);
    laptop.run("rm /etc/shadowmesh/peer.toml");
}

fn as_a_service(relay: &Machine<'_>, laptop: &Machine<'_>, id: &str) {
    for (program, unit) in [("shadowmesh up", "daemon/packaging/shadowmesh"), ("shadowmesh-relay", "relay/packaging/shadowmesh-relay")] {
        let unit = laptop.read(&format!("/var/tree/{unit}.service"));
        assert!(unit.contains(&format!("\nExecStart=/usr/bin/{program}\n")), "the unit runs what stands in its place: {unit}");
    }
    let section = Section::open(GETTING_STARTED, "As a service");
    section.before(laptop, "sudo dpkg -i shadowmesh-relay.deb");
    relay.interrupt("shadowmesh-relay --listen", false);
    section.before(relay, "sudo shadowmesh-relay id");
    assert!(section.step(relay).contains(id), "the relay kept its identity");
    section.finish(relay);
    new_identity(laptop);
    laptop.interrupt("shadowmesh up", false);
}

/// While the service runs.
fn new_identity(laptop: &Machine<'_>) {
    let old = laptop.run("shadowmesh id").stdout;
    laptop.run("shadowmesh wait server --timeout 20s");
    let section = Section::open(GETTING_STARTED, "A new identity");
    let rotated = section.step(laptop);
    laptop.until("shadowmesh status | grep 'all who were here since the start, or are listed, know it'");
    section.before(laptop, "sudo systemctl restart");
    laptop.interrupt("shadowmesh up", false);
    section.finish(laptop);
    let new = laptop.run("shadowmesh id").stdout;
    assert!(old != new && rotated.starts_with(new.trim()) && rotated.contains(old.trim()), "{old}{rotated}{new}");
    laptop.run("shadowmesh wait server --timeout 20s && shadowmesh ping -c 1 --timeout 10s server");
}

fn sealed_keys(laptop: &Machine<'_>) {
    // The packages put it into /usr/share/doc.
    laptop.run("cp /var/tree/daemon/packaging/examples/sealed.conf .");
    let section = Section::open(GETTING_STARTED, "Sealed keys");
    section.before(laptop, "shadowmesh keygen");
    let printed = section.step(laptop);
    section.finish(laptop);
    if is_installed("systemd-creds") {
        let sealed = "/etc/credstore.encrypted/shadowmesh.identity.key";
        laptop.run(&format!("mkdir /run/open && systemd-creds decrypt --name=identity.key {sealed} /run/open/identity.key"));
        laptop.run("chmod 600 /run/open/identity.key");
        let id = laptop.run("CREDENTIALS_DIRECTORY=/run/open shadowmesh id").stdout;
        assert!(printed.contains(id.trim()), "the id that was printed is that of the sealed key: {printed}, {id}");
    }
}

// ---- one machine, with `just` --------------------------------------------------------------------------------------

fn one_machine(world: &World) {
    let laptop = Machine::start(world, &world.host("laptop"));
    laptop.run("git clone https://github.com/shadowmesh/shadowmesh && cd shadowmesh");
    let section = Section::open(GETTING_STARTED, "A network on one machine");
    section.before(&laptop, "just in a nft 'table");
    section.step(&laptop);
    laptop.until("just in a shadowmesh peer list | grep -E '^b .*relay/'");
    section.step(&laptop);
    laptop.run("just in a shadowmesh wait b --direct");
    section.finish(&laptop);
    laptop.interrupt("just in b iperf3", true);
    laptop.interrupt("just in b python3", true);
    stop(&laptop, &["c", "b", "a"]);
    let section = Section::open(README, "Three terminals");
    section.finish(&laptop);
    stop(&laptop, &["b", "a"]);
}

/// Ctrl-C in each terminal: nothing is left behind.
fn stop(laptop: &Machine<'_>, peers: &[&str]) {
    for peer in peers {
        let said = laptop.interrupt(&format!("just run-peer {peer}"), true);
        assert!(said.contains("left the network") && !said.contains("second signal"), "it left as it should: {said}");
    }
    laptop.interrupt("just run-relay", true);
    let left = laptop.run("ip netns list; ip -br link show type bridge").stdout;
    assert!(left.trim().is_empty(), "namespaces and the bridge are gone: {left}");
}

// ---- README.md and docs/operating-a-relay.md -----------------------------------------------------------------------

fn readme(world: &World) {
    let [relay, laptop] = ["relay", "laptop"].map(|name| world.host(name));
    for (host, number) in [(&relay, 1), (&laptop, 2)] {
        public(host, number);
    }
    let [relay, laptop] = [relay, laptop].map(|host| Machine::start(world, &host).with_programs());
    laptop.write("/etc/hosts", "127.0.0.1 localhost\n192.0.2.1 relay.example\n");
    let section = Section::open(README, "Hosts apart");
    section.step(&relay);
    let id = section.step(&relay);
    assert!(id.starts_with("sm-"), "the id alone is printed: {id}");
    section.fill("sm-…", id.trim());
    section.finish(&laptop);
    let status = laptop.run("shadowmesh status").stdout;
    assert!(status.contains("relay.example") && status.contains("10.77.0.2"), "{status}");
}

fn operating(world: &World) {
    let relay = Machine::start(world, &world.host("relay")).with_programs();
    let section = Section::open(OPERATING, "Where");
    section.before(&relay, "sudo shadowmesh-relay id");
    let id = section.step(&relay);
    section.finish(&relay);
    for title in ["Two relays", "Who may use it"] {
        let section = Section::open(OPERATING, title);
        section.fill("sm-…", id.trim());
        section.fill("3b1f…", "3b1f5a0c9d8e4f7a6b2c1d0e3f4a5b6c");
        assert!(section.step(&relay).starts_with("smesh1:"), "a join token is printed");
        section.finish(&relay);
    }
    let section = Section::open(OPERATING, "Watching");
    section.before(&relay, "shadowmesh-relay --metrics");
    relay.interrupt("shadowmesh-relay", false);
    section.finish(&relay);
    let page = relay.run("curl -fsS http://127.0.0.1:9462/metrics && curl -fsS http://127.0.0.1:9462/").stdout;
    assert!(page.contains("shadowmesh_relay_clients") && page.contains("<html"), "metrics and a page for a browser: {page}");
}

// ---- what walks stand on -------------------------------------------------------------------------------------------

/// One of the addresses that the pages use for hosts apart.
fn public(host: &Host, number: u8) {
    ip_in(&host.namespace, &["address", "add", &format!("192.0.2.{number}/24"), "dev", "eth0"]);
}

/// A server that greets whoever asks, as a web server would, until it is dropped.
fn greet(host: &Host, address: SocketAddr) -> Greeter {
    let listener = host.enter(|| TcpListener::bind(address)).unwrap_or_else(|error| panic!("{address}: {error}"));
    let stopper = listener.try_clone().expect("a second handle of the listener");
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{GREETING}", GREETING.len());
        }
    });
    Greeter { stopper, thread: Some(thread) }
}

struct Greeter {
    stopper: TcpListener,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Greeter {
    fn drop(&mut self) {
        // Who waits for a connection is woken by it.
        let _ = rustix::net::shutdown(&self.stopper, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
