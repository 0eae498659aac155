//! A network without root: a relay in this process, two peers in userspace mode as programs, and programs that talk through them.
mod support;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shadowmesh_core::{
    config::HubConfig,
    crypto::{Identity, awslc::AwsLc},
    session::Suite,
};
use shadowmesh_runtime_std::relay::{self, Relay, RelayOptions};
use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use support::{run, shadowmesh, succeed, text};
use tempfile::{TempDir, tempdir};

/// A relay on the loopback interface and the token of a network on it.
fn network() -> (Relay, String) {
    let identity = Identity::from_seed([9; 32]);
    let id = identity.id().to_string();
    let hub = HubConfig { suites: vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305], ..HubConfig::new(Arc::new(identity), Arc::new(AwsLc)) };
    let options = RelayOptions::new(hub, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let relay = relay::start(options).expect("a relay on loopback");
    let url = format!("wss://{}", relay.addresses()[0]);
    let token = succeed(&["network", "new", "--relay", &url, "--relay-id", &id]);
    (relay, token.trim().to_owned())
}

/// A running peer; it ends with this value.
struct Peer {
    child: Child,
    state: PathBuf,
}

impl Peer {
    fn start(dir: &Path, token: &str, name: &str, more: &[&str]) -> Self {
        let state = dir.join(name);
        let child = shadowmesh(&["up", "--mode", "userspace", "--join", token, "--name", name, "--metrics", "off"])
            .args(["--state-dir", text(&state)])
            .args(more)
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        Self { child, state }
    }

    fn ask(&self, words: &[&str]) -> String {
        succeed(&[words, &["--state-dir", text(&self.state)]].concat())
    }

    /// SIGHUP.
    fn hang_up(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::HUP).expect("it runs");
    }

    fn leave(mut self) {
        self.ask(&["down"]);
        assert!(self.child.wait().expect("it ends").success(), "a clean end");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that gives back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut from, mut to) = (client.try_clone().expect("a socket"), client);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn much_comes_back(mut stream: TcpStream) {
    let sent: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 251) as u8).collect();
    let mut out = stream.try_clone().expect("a socket");
    let writer = thread::spawn({
        let sent = sent.clone();
        move || {
            out.write_all(&sent).expect("it is taken");
            out.shutdown(Shutdown::Write).expect("it stands");
        }
    });
    let mut came = Vec::new();
    stream.read_to_end(&mut came).expect("it comes back");
    writer.join().expect("no panic");
    assert!(came == sent, "{} of {} bytes came back, or others", came.len(), sent.len());
}

fn free_port() -> String {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a free port").port().to_string()
}

fn programs_talk_through_two_peers(runtime: &str) {
    let dir: TempDir = tempdir().expect("a temporary directory");
    let (relay, token) = network();
    let expose = format!("7={}", echo());
    let port = free_port();
    let forward = format!("{port}=b:7");
    let b =
        Peer::start(dir.path(), &token, "b", &["--runtime", runtime, "--proxy", "off", "--expose", &expose, "--address", "10.77.0.2/24"]);
    let a = Peer::start(
        dir.path(),
        &token,
        "a",
        &["--runtime", runtime, "--proxy", "127.0.0.1:0", "--forward", &forward, "--address", "10.77.0.1/24"],
    );
    a.ask(&["wait", "b", "--timeout", "20s"]);
    let status: Value = serde_json::from_str(&a.ask(&["status", "--json"])).expect("JSON");
    assert_eq!((&status["interface"]["mode"], &status["interface"]["name"]), (&"userspace".into(), &"userspace".into()));
    let proxy = status["interface"]["proxy"].as_str().expect("a proxy").to_owned();
    let own = status["peers"][0]["addresses"].as_array().expect("addresses").clone();
    assert!(own.iter().any(|address| address == "10.77.0.2"), "{own:?}");

    much_comes_back(TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens"));
    for host in ["b", "b.mesh", "10.77.0.2"] {
        let mut stream = TcpStream::connect(&proxy).expect("it listens");
        stream.write_all(&[&[5, 1, 0, 5, 1, 0, 3, host.len() as u8], host.as_bytes(), &[0, 7]].concat()).expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("answered");
        assert_eq!(answer[..4], [5, 0, 5, 0], "{host}");
        much_comes_back(stream);
    }
    // The other path is another way for the same connections.
    a.ask(&["ping", "b", "--until-direct", "--interval", "100ms"]);
    much_comes_back(TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens"));
    a.leave();
    b.leave();
    drop(relay);
}

#[test]
fn programs_talk_through_two_peers_on_smol() {
    programs_talk_through_two_peers("smol");
}

#[test]
fn programs_talk_through_two_peers_on_threads() {
    programs_talk_through_two_peers("threads");
}

/// After SIGHUP a member is none any more, and after another one it is one again; the third peer does not notice.
#[test]
fn who_is_revoked_is_out_until_it_is_taken_back() {
    let dir = tempdir().expect("a temporary directory");
    let (_relay, token) = network();
    let file = dir.path().join("a.toml");
    let write = |revoked: &str| fs::write(&file, format!("[network]\nrevoked = [{revoked}]\n")).expect("it is written");
    write("");
    let [b, c] = ["b", "c"].map(|name| Peer::start(dir.path(), &token, name, &["--proxy", "off"]));
    let a = Peer::start(dir.path(), &token, "a", &["--proxy", "off", "--config", text(&file)]);
    let state = |name: &str| {
        let shown: Value = serde_json::from_str(&a.ask(&["peer", "show", name, "--json"])).expect("JSON");
        (shown["state"].clone(), shown["handshake_age_s"].as_f64(), shown["id"].as_str().expect("an id").to_owned())
    };
    for name in ["b", "c"] {
        a.ask(&["wait", name, "--timeout", "20s"]);
    }
    let (_, age, _) = state("c");
    write(&format!("\"{}\"", state("b").2));
    a.hang_up();
    let started = Instant::now();
    while state("b").0 == "connected" {
        assert!(started.elapsed() < Duration::from_secs(20), "b is still a member");
        thread::sleep(Duration::from_millis(20)); // nobody tells when somebody is shut out
    }
    let pinged = shadowmesh(&["ping", "b", "-c", "1", "--timeout", "300ms", "--state-dir", text(&a.state)]).output().expect("it starts");
    assert_eq!(pinged.status.code(), Some(1), "{pinged:?}");
    write("");
    a.hang_up();
    a.ask(&["wait", "b", "--timeout", "20s"]);
    assert!(state("c").1 > age, "the session with c is the one from before");
    for peer in [a, b, c] {
        peer.leave();
    }
}

#[test]
fn a_port_that_is_taken_is_one_sentence() {
    let dir = tempdir().expect("a temporary directory");
    let (_relay, token) = network();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = other.local_addr().expect("an address").to_string();
    for (flag, value, key) in
        [("--proxy", address.clone(), "userspace.proxy"), ("--forward", format!("{address}=b:7"), "userspace.forward")]
    {
        let output =
            run(&["up", "--mode", "userspace", "--join", &token, "--metrics", "off", "--state-dir", text(dir.path()), flag, &value]);
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(last.starts_with(&format!("shadowmesh: {key}: {address} cannot be used")), "{said}");
    }
}
