//! The commands that need no running peer, as a person or a script calls them.
mod support;

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path, process::Stdio};
use support::{run, shadowmesh, succeed, text};
use tempfile::tempdir;

#[test]
fn keygen_makes_a_private_file_once() {
    let dir = tempdir().expect("a temporary directory");
    let key = dir.path().join("identity.key");
    let printed = succeed(&["keygen", "--out", text(&key)]);
    assert!(printed.starts_with("sm-") && printed.len() == 60 && printed.ends_with('\n'), "{printed:?}");
    assert_eq!(fs::metadata(&key).expect("made").permissions().mode() & 0o777, 0o600);
    assert_eq!(succeed(&["id", "--identity", text(&key)]), printed);
    let before = fs::read(&key).expect("readable");
    let again = run(&["keygen", "--out", text(&key)]);
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stdout.is_empty());
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not overwritten"));
    assert_eq!(fs::read(&key).expect("still there"), before);
}

/// Where no peer runs, the next identity is made all the same, once, and the one that is used stays until the next start.
#[test]
fn an_identity_is_rotated_without_a_running_peer() {
    let dir = tempdir().expect("a temporary directory");
    let state = text(dir.path());
    let nowhere = dir.path().join("mistake");
    let none = run(&["id", "rotate", "--state-dir", text(&nowhere)]);
    assert!(none.status.code() == Some(1) && String::from_utf8_lossy(&none.stderr).contains("does not exist"), "{none:?}");
    assert!(!nowhere.exists(), "nothing is made where nothing is");
    let old = succeed(&["keygen", "--state-dir", state]);
    let rotated =
        || -> serde_json::Value { serde_json::from_str(&succeed(&["id", "rotate", "--json", "--state-dir", state])).expect("JSON") };
    let (first, again) = (rotated(), rotated());
    assert_eq!((first["old"].as_str(), &first["running"], &first["was_there"]), (Some(old.trim()), &false.into(), &false.into()));
    assert_eq!((&again["new"], &again["was_there"]), (&first["new"], &true.into()));
    assert_eq!(succeed(&["id", "--state-dir", state]), old);
    let told = succeed(&["id", "rotate", "--state-dir", state]);
    assert!(told.contains(&format!("follows {} at the next start", old.trim())) && told.contains("nobody hears of it before"), "{told}");
    for name in ["identity.key.next", "identity.key.line"] {
        let made = fs::metadata(dir.path().join(name)).expect("made");
        assert_eq!(made.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn two_identities_and_two_networks_differ() {
    let dir = tempdir().expect("a temporary directory");
    let [first, second] = ["a", "b"].map(|name| succeed(&["keygen", "--out", text(&dir.path().join(name))]));
    assert_ne!(first, second);
    let token = || succeed(&["network", "new", "--relay", "wss://192.0.2.1:443", "--relay-id", first.trim()]);
    let (one, other) = (token(), token());
    assert_ne!(one, other);
    for token in [one, other] {
        assert!(token.starts_with("smesh1:") && token.lines().count() == 1, "{token:?}");
    }
}

#[test]
fn a_token_made_here_is_taken_by_a_configuration() {
    let dir = tempdir().expect("a temporary directory");
    let token = succeed(&["network", "new", "--name", "home", "--relay", "wss://relay.example", "--relay", "wss://[2001:db8::1]:8443"]);
    let file = dir.path().join("peer.toml");
    fs::write(&file, format!("[network]\njoin = \"{}\"\nname = \"laptop\"\n[state]\ndir = {:?}\n", token.trim(), dir.path()))
        .expect("writes");
    assert_eq!(succeed(&["config", "check", text(&file)]), format!("{}: ok\n", file.display()));
    let shown = succeed(&["config", "show", "--effective", "--config", text(&file)]);
    assert!(!shown.contains(token.trim()), "the token is secret");
    assert!(shown.contains("join = \"smesh1:(hidden)\""), "{shown}");
}

#[test]
fn every_key_of_the_interface_is_taken() {
    let dir = tempdir().expect("a temporary directory");
    let id = succeed(&["keygen", "--out", text(&dir.path().join("other.key"))]);
    let file = dir.path().join("peer.toml");
    fs::write(&file, everything(dir.path(), id.trim())).expect("writes");
    succeed(&["config", "check", text(&file)]);
    let shown = succeed(&["config", "show", "--effective", "--config", text(&file)]);
    let defaults: Vec<&str> = shown.lines().filter(|line| line.contains("# default")).collect();
    assert!(defaults.is_empty(), "all keys are in the file, but: {defaults:?}");
}

fn everything(dir: &Path, id: &str) -> String {
    format!(
        r#"
[identity]
file = "identity.key"
[network]
join_file = "{token}"
name = "laptop"
revoked = ["{id}"]
[interface]
mode = "userspace"
name = "mesh7"
address = ["10.77.0.2/24", "fd77::2/64"]
mtu = "auto"
queues = 2
[dns]
enabled = false
[userspace]
proxy = "[::1]:1081"
forward = ["8080=server:80", "127.0.0.2:2222=[fd00::2]:22"]
expose = ["22", "80=127.0.0.1:8080"]
[p2p]
transports = ["wss"]
listen_udp = "0.0.0.0:4433"
listen_tcp = "[::]:4433"
port_mapping = false
advertise = ["198.51.100.4:4433"]
retry_interval = "2m"
health_check_interval = "500ms"
connect_timeout = "3s"
close_relay = true
relay_udp = false
mode = "redundant"
[crypto]
suites = ["chacha20-poly1305"]
rekey_interval = "30s"
[tls]
cert_lifetime = "12h"
[log]
level = "warn,shadowmesh_core=debug"
format = "json"
[state]
dir = "{dir}"
[control]
socket = "{dir}/c.sock"
[metrics]
listen = "off"
[[peer]]
id = "{id}"
name = "server"
allowed = ["10.77.0.1/32", "10.78.0.0/16"]
endpoint = ["203.0.113.5:51820", "[2001:db8::5]:51820"]
"#,
        token = make_token(dir),
        dir = dir.display(),
    )
}

fn make_token(dir: &Path) -> String {
    let path = dir.join("join.token");
    fs::write(&path, succeed(&["network", "new", "--relay", "wss://192.0.2.1"])).expect("writes");
    path.display().to_string()
}

#[test]
fn flags_win_over_variables_over_the_file() {
    let dir = tempdir().expect("a temporary directory");
    let file = dir.path().join("peer.toml");
    fs::write(&file, "[p2p]\nretry_interval = \"10s\"\nconnect_timeout = \"4s\"\n").expect("writes");
    let output = shadowmesh(&["config", "show", "--effective", "--config", text(&file), "--state-dir", "/flag"])
        .env("SHADOWMESH_P2P_RETRY_INTERVAL", "20s")
        .env("SHADOWMESH_STATE_DIR", "/variable")
        .env("SHADOWMESH_P2P_TRANSPORTS", "")
        .env("SHADOWMESH_LOG", "debug")
        .output()
        .expect("the binary starts");
    let shown = String::from_utf8(output.stdout).expect("text");
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key} is not in {shown}"));
    for (key, parts) in [
        ("retry_interval", ["\"20s\"", "SHADOWMESH_P2P_RETRY_INTERVAL"]),
        ("connect_timeout", ["\"4s\"", "peer.toml:3"]),
        ("dir", ["\"/flag\"", "--state-dir"]),
        ("socket", ["\"/flag/control.sock\"", "--state-dir"]),
        ("transports", ["[]", "SHADOWMESH_P2P_TRANSPORTS"]),
        ("level", ["\"debug\"", "SHADOWMESH_LOG"]),
        ("health_check_interval", ["\"30s\"", "default"]),
    ] {
        for part in parts {
            assert!(line(key).contains(part), "{part} is not in {:?}", line(key));
        }
    }
}

#[test]
fn what_config_show_prints_is_a_configuration() {
    let dir = tempdir().expect("a temporary directory");
    let file = dir.path().join("peer.toml");
    fs::write(&file, succeed(&["config", "show", "--effective"])).expect("writes");
    succeed(&["config", "check", text(&file)]);
}

#[test]
fn version_tells_itself_as_text_and_json() {
    assert!(succeed(&["version"]).starts_with(concat!("shadowmesh ", env!("CARGO_PKG_VERSION"))));
    let json: serde_json::Value = serde_json::from_str(&succeed(&["version", "--json"])).expect("JSON");
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["protocol"], 1);
    assert!(succeed(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeed(&["completions", shell]);
        for command in ["keygen", "until-direct", "network"] {
            assert!(script.contains(command), "{command} is not in the completions for {shell}");
        }
    }
}

#[test]
fn help_is_a_result() {
    let help = succeed(&["--help"]);
    for command in
        "keygen id network join up down status wait ping peer netcheck config log bugreport metrics demo completions man version".split(' ')
    {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command} is not in the help");
    }
}

#[test]
fn netcheck_without_a_peer_and_without_a_network_is_one_sentence() {
    let dir = tempdir().expect("a temporary directory");
    let output = run(&["netcheck", "--state-dir", text(dir.path())]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len(), said.lines().count()), (Some(1), 0, 1), "{said}");
    assert!(said.contains("no peer is running") && said.contains("--join TOKEN"), "{said}");
    for wrong in [&["netcheck", "--join", "smesh1:x"][..], &["netcheck", "--join", "a", "--join-file", "b"], &["netcheck", "--what"]] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn netcheck_tells_of_a_relay_that_is_not_there() {
    let dir = tempdir().expect("a temporary directory");
    let token = succeed(&["network", "new", "--relay", "wss://127.0.0.1:9"]);
    let file = dir.path().join("token");
    fs::write(&file, token).expect("writes");
    let printed = succeed(&["netcheck", "--json", "--join-file", text(&file), "--state-dir", text(dir.path())]);
    let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    let mut names: Vec<&String> = report.as_object().expect("an object").keys().collect();
    names.sort_unstable();
    let expected = ["mapped_v4", "mapped_v6", "mapping_varies", "port_mapping", "relays", "source", "udp", "verdict", "version"];
    assert_eq!(names, expected);
    assert_eq!((&report["source"], &report["udp"]), (&"ephemeral".into(), &serde_json::Value::Null));
    let relay = &report["relays"][0];
    assert_eq!((&relay["url"], &relay["connected"]), (&"wss://127.0.0.1:9".into(), &false.into()));
    assert!(relay["error"].as_str().is_some_and(|why| why.contains("refused")), "{relay}");
}

#[test]
fn a_token_is_joined_from_anywhere_and_kept_for_up() {
    let dir = tempdir().expect("a temporary directory");
    let token = succeed(&["network", "new", "--name", "office", "--relay", "wss://192.0.2.1:443"]);
    let file = dir.path().join("token");
    fs::write(&file, &token).expect("writes");
    let kept = |state: &str| fs::read_to_string(dir.path().join(state).join("join.token")).expect("it is kept");
    let state = |name: &str| text(&dir.path().join(name)).to_owned();
    let said = succeed(&["join", token.trim(), "--state-dir", &state("word")]);
    assert!(said.starts_with("joined office (wss://192.0.2.1:443)"), "{said}");
    let json = succeed(&["join", "--json", "--file", text(&file), "--state-dir", &state("file")]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["network"], &json["relays"][0]), (&"office".into(), &"wss://192.0.2.1:443".into()));
    let mut child = shadowmesh(&["join", "-", "--state-dir", &state("pipe")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().expect("a pipe").write_all(token.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success());
    for name in ["word", "file", "pipe"] {
        assert_eq!(kept(name), token, "{name}");
    }
    for wrong in [&["join"][..], &["join", "smesh1:nonsense"], &["join", "--file", "/nowhere"], &["join", "a", "--file", "b"]] {
        let output = shadowmesh(wrong).args(["--state-dir", &state("wrong")]).output().expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{wrong:?}: {said}");
    }
    assert!(!dir.path().join("wrong").exists(), "nothing is kept of what was wrong");
}

#[test]
fn a_wait_without_a_peer_ends_in_time() {
    let dir = tempdir().expect("a temporary directory");
    let output = run(&["wait", "--json", "--timeout", "50ms", "--state-dir", text(dir.path())]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(1), "shadowmesh: not within 50ms: no peer is running\n"));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&json["reached"], &json["state"]), (&false.into(), &"no peer is running".into()));
    assert_eq!(run(&["wait", "--direct"]).status.code(), Some(2), "direct to whom?");
}

#[test]
fn manual_pages_come_from_the_help() {
    let dir = tempdir().expect("a temporary directory");
    succeed(&["man", text(dir.path())]);
    for (page, word) in [("shadowmesh.1", "netcheck"), ("shadowmesh-up.1", "interface"), ("shadowmesh-peer-explain.1", "PEER")] {
        let page = fs::read_to_string(dir.path().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(page.contains(word), "{word} is not in {page}");
    }
    assert_eq!(run(&["man", "/nowhere/at/all"]).status.code(), Some(1));
}

#[test]
fn a_report_without_a_peer_has_no_secret() {
    let dir = tempdir().expect("a temporary directory");
    let token = succeed(&["network", "new", "--relay", "wss://192.0.2.1:443"]);
    let mut command = shadowmesh(&["bugreport", "--state-dir", text(dir.path())]);
    let output = command.env("SHADOWMESH_NETWORK_JOIN", token.trim()).output().expect("the binary starts");
    let report = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && report.contains("no peer is running") && report.contains("smesh1:(hidden)"), "{report}");
    assert!(!report.contains(token.trim().trim_start_matches("smesh1:")), "{report}");
    let file = dir.path().join("report");
    assert_eq!(succeed(&["bugreport", "--out", text(&file), "--state-dir", text(dir.path())]).trim(), text(&file));
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let again = run(&["bugreport", "--out", text(&file), "--state-dir", text(dir.path())]);
    assert_eq!(again.status.code(), Some(1), "no report is overwritten");
}
