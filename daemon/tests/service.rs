//! A peer as the service manager runs it: secrets that it hands in, and what `systemctl reload` changes.
mod support;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shadowmesh_core::{
    config::HubConfig,
    crypto::{Identity, awslc::AwsLc},
};
use shadowmesh_runtime_std::relay::{self, Relay, RelayOptions};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    sync::Arc,
};
use support::{shadowmesh, succeed, text};
use tempfile::tempdir;

/// A relay on the loopback interface and the token of a network on it.
fn network() -> (Relay, String) {
    let identity = Identity::from_seed([9; 32]);
    let id = identity.id().to_string();
    let hub = HubConfig::new(Arc::new(identity), Arc::new(AwsLc));
    let relay = relay::start(RelayOptions::new(hub, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).expect("a relay on loopback");
    let token = succeed(&["network", "new", "--relay", &format!("wss://{}", relay.addresses()[0]), "--relay-id", &id]);
    (relay, token.trim().to_owned())
}

/// A running peer and its log; it ends with this value.
struct Peer(Child, BufReader<ChildStderr>);

impl Peer {
    fn start(mut command: Command) -> Self {
        let mut child =
            command.args(["--mode", "userspace", "--proxy", "off", "--metrics", "off"]).stderr(Stdio::piped()).spawn().expect("starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        Self(child, log)
    }

    /// The next line of the log that has this in it.
    fn until(&mut self, part: &str) -> String {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(self.1.read_line(&mut line).expect("a log"), 0, "it ended, and never said {part:?}");
        }
        line
    }

    fn hang_up(&self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::HUP).expect("it runs");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As systemd leaves a credential.
fn credential(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::write(&path, bytes).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).expect("ours");
}

fn with(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = shadowmesh(arguments);
    command.env("CREDENTIALS_DIRECTORY", dir);
    command
}

#[test]
fn identity_and_token_of_the_service_manager_are_used_and_copied_nowhere() {
    let dir = tempdir().expect("a temporary directory");
    let (sealed, state) = (dir.path().join("credentials"), dir.path().join("state"));
    fs::create_dir(&sealed).expect("made");
    let made = shadowmesh(&["keygen", "--out", "-"]).output().expect("it runs");
    let id = String::from_utf8(made.stderr).expect("text").trim().to_owned();
    assert!(made.status.success() && id.starts_with("sm-"), "{id}");
    let (_relay, token) = network();
    credential(&sealed, "identity.key", &made.stdout);
    credential(&sealed, "join.token", token.as_bytes());

    let shown = with(&sealed, &["config", "show", "--effective"]).output().expect("it runs");
    let shown = String::from_utf8(shown.stdout).expect("text");
    for (key, file) in [("file", "identity.key"), ("join_file", "join.token")] {
        let line = format!("{key} = {:?}", sealed.join(file).display().to_string());
        assert!(shown.lines().any(|shown| shown.starts_with(&line) && shown.contains("# $CREDENTIALS_DIRECTORY: ")), "{line} in {shown}");
    }
    assert!(!shown.contains("smesh1:"), "the token is secret");

    let mut peer = Peer::start(with(&sealed, &["up", "--state-dir", text(&state)]));
    peer.until("running");
    succeed(&["wait", "--timeout", "20s", "--state-dir", text(&state)]);
    let status: Value = serde_json::from_str(&succeed(&["status", "--json", "--state-dir", text(&state)])).expect("JSON");
    assert_eq!(status["id"], id.as_str());
    succeed(&["down", "--state-dir", text(&state)]);
    assert!(peer.0.wait().expect("it ends").success());
    let left: Vec<_> = fs::read_dir(&state).expect("a directory").flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name == "lock" || name == "claims"), "{left:?}");
}

#[test]
fn what_is_named_wins_over_a_credential_and_a_wrong_credential_is_never_passed_over() {
    let dir = tempdir().expect("a temporary directory");
    let sealed = dir.path().join("credentials");
    fs::create_dir(&sealed).expect("made");
    let named = dir.path().join("named.key");
    let id = succeed(&["keygen", "--out", text(&named)]);
    let run = |arguments: &[&str], variable: &[(&str, &str)]| {
        let output = with(&sealed, arguments).envs(variable.iter().copied()).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    credential(&sealed, "identity.key", b"shadowmesh-identity-1 AAAA\n");
    let (code, out, said) = run(&["id"], &[("SHADOWMESH_IDENTITY_FILE", text(&named))]);
    assert_eq!((code, out), (Some(0), id), "{said}");
    let state = dir.path().join("state");
    let (_relay, token) = network();
    let up = ["up", "--mode", "userspace", "--proxy", "off", "--metrics", "off", "--state-dir", text(&state)];
    for arguments in [&["id"][..], &[&up[..], &["--join", &token]].concat()] {
        let (code, out, said) = run(arguments, &[]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{said}");
        assert!(said.contains("credentials/identity.key is truncated") && said.contains("systemd-creds encrypt"), "{said}");
    }
    assert!(!state.join("identity.key").exists(), "no other identity is made instead");
    let (code, _, said) = run(&["keygen"], &[]);
    assert!(code == Some(2) && said.contains("name another place with --out"), "{said}");

    fs::remove_file(sealed.join("identity.key")).expect("ours");
    credential(&sealed, "join.token", b"smesh1:cut");
    let (code, _, said) = run(&up, &[]);
    assert!(code == Some(2) && said.contains("credentials/join.token: ") && said.contains("systemd-creds encrypt"), "{said}");
    let (code, _, said) = run(&up, &[("SHADOWMESH_NETWORK_JOIN_FILE", "/nowhere/token")]);
    assert!(code == Some(2) && said.contains("/nowhere/token"), "what is named is meant: {said}");
}

/// Patience changes without a session less; what does not change is named once.
#[test]
fn hangup_takes_over_what_it_can_and_names_the_rest() {
    let dir = tempdir().expect("a temporary directory");
    let (_relay, token) = network();
    let (file, state) = (dir.path().join("a.toml"), dir.path().join("a"));
    let write = |text: &str| fs::write(&file, text).expect("written");
    write("[p2p]\nretry_interval = \"1h\"\n");
    let up = ["up", "--join", &token, "--config", text(&file), "--name", "a", "--state-dir", text(&state)];
    let mut a = Peer::start(shadowmesh(&up));
    let other = dir.path().join("b");
    let mut b = Peer::start(shadowmesh(&["up", "--join", &token, "--name", "b", "--state-dir", text(&other)]));
    b.until("running");
    a.until("running");
    let ask = |words: &[&str]| succeed(&[words, &["--state-dir", text(&state)]].concat());
    ask(&["wait", "b", "--direct", "--timeout", "20s"]);
    let status = || serde_json::from_str::<Value>(&ask(&["status", "--json"])).expect("JSON");
    let relay = |status: &Value| status["relays"][0]["state"].clone();
    assert_eq!(relay(&status()), "connected");
    write("[p2p]\nretry_interval = \"2s\"\nhealth_check_interval = \"1s\"\nconnect_timeout = \"3s\"\nclose_relay = true\n");
    a.hang_up();
    let said = a.until("configuration read again");
    assert!(said.contains("INFO") && !said.contains("fixed"), "{said}");
    let begun = std::time::Instant::now();
    while relay(&status()) == "connected" {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "the relay's connection stays");
        std::thread::yield_now();
    }
    write("[p2p]\nmode = \"reliable\"\n[interface]\nmtu = 1400\n");
    a.hang_up();
    let said = a.until("configuration read again");
    assert!(said.contains("WARN") && said.contains("fixed=\"interface.mtu, p2p.mode\""), "{said}");
    write("[p2p]\nretry_interval = \"2\"\n");
    a.hang_up();
    let said = a.until("stays as it was");
    assert!(said.contains("a.toml:2: p2p.retry_interval: "), "{said}");
    let peers = status()["peers"].clone();
    assert_eq!((&peers[0]["state"], &peers[0]["path"]["kind"]), (&"connected".into(), &"direct".into()), "{peers}");
}
