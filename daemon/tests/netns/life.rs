//! Starts, ends, crashes and absences of relay and peers.

use crate::mesh::{Mesh, Peer, Relay, counter, list, overlay};
use crate::stream::Stream;
use crate::world::{Host, World};
use crate::{Scenario, scenario};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario("relay_restart_keeps_direct", relay_restart_keeps_direct),
        scenario("relay_restart_under_relayed_traffic", relay_restart_under_relayed_traffic),
        scenario("relay_absent_at_start", relay_absent_at_start),
        scenario("peer_sigkill_and_restart_within_3s", peer_sigkill_and_restart),
        scenario("commands_of_the_day", commands_of_the_day),
        scenario("service_manager_is_told", service_manager_is_told),
    ]
}

fn relay_restart_keeps_direct(world: &World) {
    let mut mesh = Mesh::start(world, &["a", "b"], false, |options| options);
    mesh.until_all("direct");
    let before = [(0, "b"), (1, "a")].map(|(index, other)| mesh.peers[index].knows(other));
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.wait_for_more(world, 200);
    // Once as an operator does it, once as a crash does it.
    for crash in [false, true] {
        if crash {
            mesh.relay.kill();
        } else {
            mesh.relay.stop();
        }
        for peer in &mut mesh.peers {
            peer.until("the relay is lost", Duration::from_secs(10), |status| {
                list(status, "relays").iter().all(|relay| relay["state"] != "connected")
            });
        }
        stream.wait_for_more(world, 500);
        mesh.relay.start(world);
        for peer in &mut mesh.peers {
            peer.until_relay();
        }
        stream.wait_for_more(world, 500);
    }
    stream.finish_perfect();
    for ((index, other), before) in [(0, "b"), (1, "a")].into_iter().zip(before) {
        let now = mesh.peers[index].knows(other);
        assert_eq!(now["path"]["kind"], "direct", "{now:#}");
        for key in ["fallbacks", "migrations"] {
            assert_eq!(counter(&now, key), counter(&before, key), "the direct path was disturbed: {now:#}");
        }
    }
}

fn relay_restart_under_relayed_traffic(world: &World) {
    let relay_only = |options: crate::mesh::Options| options.set("SHADOWMESH_P2P_TRANSPORTS", "");
    let mut mesh = Mesh::start(world, &["a", "b"], false, relay_only);
    mesh.until_all("relay");
    let beacon = Beacon::start(&mesh.peers[0].host, &mesh.peers[1].host, overlay(2));
    beacon.wait_for_arrival_after(world, Instant::now(), Duration::from_secs(5));
    mesh.relay.kill();
    mesh.relay.start(world);
    // No path at all in between: what is promised is that the peers come back by themselves.
    beacon.wait_for_arrival_after(world, Instant::now(), Duration::from_secs(15));
    for (index, other) in [(0, "b"), (1, "a")] {
        mesh.peers[index].until_path(other, "relay");
    }
    let stream = Stream::start(mesh.end(0), mesh.end(1));
    stream.wait_for_more(world, 300);
    stream.finish_perfect();
}

fn relay_absent_at_start(world: &World) {
    let relay_host = world.host("relay");
    let mut relay = Relay::prepare(world, &relay_host);
    let hosts = [world.host("a"), world.host("b")];
    let mut peers: Vec<_> =
        hosts.iter().zip(1..).map(|(host, number)| Peer::start_with(world, host, &relay.token, number, |options| options)).collect();
    for peer in &mut peers {
        peer.until("runs without a relay", Duration::from_secs(15), |status| {
            let relays = list(status, "relays");
            !relays.is_empty() && relays.iter().all(|relay| relay["state"] != "connected")
        });
        let url = relay.url.clone();
        world.wait_for("a line that says which relay is missing", Duration::from_secs(10), || {
            let said = peer.said();
            let told = said.lines().any(|line| line.contains(&url) || (line.contains("relay") && line.contains("retry")));
            told.then_some(())
        });
        let ready = peer.ask(&["status", "--check", "ready"]);
        assert_eq!(ready.status.code(), Some(1), "not ready without a relay: {}", ready.text());
        let live = peer.ask(&["status", "--check", "live"]);
        assert_eq!(live.status.code(), Some(0), "but alive: {}", live.text());
    }
    relay.start(world);
    for peer in &mut peers {
        peer.until_relay();
    }
    let output = peers[0].ask(&["ping", "b", "-c", "1", "--timeout", "10s"]);
    assert!(output.status.success(), "{}", output.text());
}

fn peer_sigkill_and_restart(world: &World) {
    let mut mesh = Mesh::start(world, &["a", "b"], false, |options| options);
    mesh.until_all("direct");
    let [a, b] = [0, 1].map(|index| mesh.peers[index].host.clone());
    let there = Beacon::start(&a, &b, overlay(2));
    let back = Beacon::start(&b, &a, overlay(1));
    for beacon in [&there, &back] {
        beacon.wait_for_arrival_after(world, Instant::now(), Duration::from_secs(5));
    }
    mesh.peers[1].process().kill();
    // Nobody is there: a says so, or at least nothing arrives any more.
    assert!(b.interface(crate::mesh::INTERFACE).is_none(), "the interface of a dead process is gone");
    let start = Instant::now();
    mesh.peers[1].start_again();
    for (name, beacon) in [("a→b", &there), ("b→a", &back)] {
        let took = beacon.wait_for_arrival_after(world, start, Duration::from_secs(10)) - start;
        eprintln!("    {name}: talking again {:.0} ms after the restart", took.as_secs_f64() * 1e3);
        assert!(took < Duration::from_secs(3), "{name}: talking again only after {took:?}");
    }
    let status = mesh.peers[0].status().expect("a still runs");
    assert_eq!(list(&status, "peers").len(), 1, "b is the same peer as before, not a second one: {status:#}");
}

/// What people ask a running peer, beside `status`, `ping` and `peer explain`.
fn commands_of_the_day(world: &World) {
    let relay_host = world.host("relay");
    let mut relay = Relay::prepare(world, &relay_host);
    relay.start(world);
    let a_host = world.host("a");
    let a = Peer::start_with(world, &a_host, &relay.token, 1, |options| options);
    let good = |output: crate::process::Output, what: &str| {
        assert!(output.status.success(), "{what}: {}", output.text());
        output.stdout
    };
    good(a.ask(&["wait", "--timeout", "10s"]), "ready by itself");
    let nobody = a.ask(&["wait", "b", "--timeout", "100ms"]);
    assert!(nobody.status.code() == Some(1) && nobody.text().contains("no peer is called"), "{}", nobody.text());
    // A wait that begins before the other peer is there ends when it is.
    let b_host = world.host("b");
    let waiting = thread::spawn(a.asking(&["wait", "b", "--direct", "--json", "--timeout", "30s"]));
    let b = Peer::start_with(world, &b_host, &relay.token, 2, |options| options);
    let waited: serde_json::Value = serde_json::from_str(&good(waiting.join().expect("no panic"), "a direct b")).expect("JSON");
    assert!(waited["reached"] == true && waited["state"].as_str().is_some_and(|state| state.contains("direct/")), "{waited}");
    let list: serde_json::Value = serde_json::from_str(&good(a.ask(&["peer", "list", "--json"]), "list")).expect("JSON");
    assert_eq!((list.as_array().map(Vec::len), &list[0]["name"]), (Some(1), &"b".into()));
    assert!(good(a.ask(&["peer", "list"]), "list").contains("b  "));
    let shown: serde_json::Value = serde_json::from_str(&good(a.ask(&["peer", "show", "b", "--json"]), "show")).expect("JSON");
    assert_eq!(shown["id"], list[0]["id"]);
    let shown = good(a.ask(&["peer", "show", "b"]), "show");
    assert!(shown.contains("direct/") && shown.contains("epoch") && shown.contains("10.77.0.2"), "{shown}");
    assert_eq!(good(a.ask(&["log", "level"]), "level").trim(), "info");
    assert_eq!(good(a.ask(&["log", "level", "debug"]), "level").trim(), "debug");
    assert_eq!(a.ask(&["log", "level", "a=b=c"]).status.code(), Some(1));
    assert!(good(a.ask(&["log", "show"]), "log").contains("starting"));
    let report = good(a.ask(&["bugreport"]), "report");
    for part in ["==== status ====", "==== peer b ====", "==== netcheck ====", "shadowmesh_peers{", "==== log ===="] {
        assert!(report.contains(part), "{part} is not in the report:\n{report}");
    }
    let secret = relay.token.trim().trim_start_matches("smesh1:");
    assert!(!report.contains(secret), "the report holds the token");
    drop(b);
}

/// Ready, alive, leaving: the words of `sd_notify(3)`.
fn service_manager_is_told(world: &World) {
    let relay_host = world.host("relay");
    let relay = Relay::prepare(world, &relay_host);
    let socket = world.folder("manager").join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a path for a socket");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    let hears = |word: &str| {
        let mut buffer = [0; 512];
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("the manager waits for {word}: {error}"));
            let told = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if told.lines().any(|line| line.starts_with(word)) {
                return told;
            }
        }
    };
    let host = world.host("a");
    let variables = [("NOTIFY_SOCKET", socket.to_str().expect("text")), ("WATCHDOG_USEC", "200000")];
    let peer = Peer::start_with(world, &host, &relay.token, 1, |options| {
        variables.into_iter().fold(options, |options, (name, value)| options.set(name, value))
    });
    let ready = hears("READY=1");
    assert!(ready.contains("STATUS=running"), "{ready}");
    for _ in 0..3 {
        let alive = hears("WATCHDOG=1");
        assert!(alive.contains("STATUS=") && alive.contains("peers connected"), "{alive}");
    }
    let left = peer.ask(&["down"]);
    assert!(left.status.success(), "{}", left.text());
    hears("STOPPING=1");
}

/// A datagram each 10 ms from one host to an overlay address of another, and the time of the newest arrival.
/// Its sockets are bound to no interface, so they outlive one that goes away.
struct Beacon {
    stop: Arc<AtomicBool>,
    epoch: Instant,
    /// Nanoseconds since `epoch`; 0 while nothing has come.
    newest_ns: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Beacon {
    fn start(from: &Host, to: &Host, address: Ipv4Addr) -> Self {
        let any = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        let (sender, receiver) = (from.enter(any), to.enter(any));
        let target = (address, receiver.local_addr().expect("a bound socket").port());
        receiver.set_read_timeout(Some(Duration::from_millis(50))).expect("a read timeout is a plain option");
        let (stop, newest_ns, epoch) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Instant::now());
        let sending = {
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    // No route while the interface is away: that is what the test is about.
                    let _ = sender.send_to(b"are you there", target);
                    thread::sleep(Duration::from_millis(10));
                }
            }
        };
        let receiving = {
            let (stop, newest_ns) = (Arc::clone(&stop), Arc::clone(&newest_ns));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if receiver.recv(&mut [0; 64]).is_ok() {
                        newest_ns.store(epoch.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    }
                }
            }
        };
        Self { stop, epoch, newest_ns, threads: vec![thread::spawn(sending), thread::spawn(receiving)] }
    }

    /// When a datagram came that is newer than `after`. The first look sees it within the poll interval, so
    /// the time is at most that much too late, never too early.
    fn wait_for_arrival_after(&self, world: &World, after: Instant, limit: Duration) -> Instant {
        let after_ns = (after - self.epoch).as_nanos() as u64;
        world.wait_for("a datagram of the beacon", limit, || {
            let newest_ns = self.newest_ns.load(Ordering::Relaxed);
            (newest_ns > after_ns).then(|| self.epoch + Duration::from_nanos(newest_ns))
        })
    }
}

impl Drop for Beacon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
