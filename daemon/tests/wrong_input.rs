//! Wrong configuration files, tokens, identity files and flags: each ends with its exit code and one line that says what is
//! wrong, where, and what would be right.
mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use support::{shadowmesh, succeed, text};
use tempfile::{TempDir, tempdir};

/// A wrong file, given to `config check`, and what the line must hold besides the file's name.
const FILES: &[(&str, &[&str])] = &[
    ("[p3p]\nretry_interval = \"5s\"", &[":2: p3p.retry_interval: unknown key", "did you mean p2p.retry_interval?"]),
    ("[p2p]\nretry_intervall = \"5s\"", &[":2: p2p.retry_intervall", "did you mean p2p.retry_interval?"]),
    ("[interface]\ncolour = \"red\"", &[":2: interface.colour: unknown key", "interface.mtu"]),
    ("[weather]\nrain = true", &[":2: weather.rain: unknown key", "[identity]"]),
    ("[weather]", &[":1: weather: unknown key"]),
    ("name = \"laptop\"", &[":1: name: unknown key"]),
    ("[p2p\nmode = 1", &[":1: is not valid TOML"]),
    ("[interface]\nmtu = 1280\nmtu = 1300", &[":3: is not valid TOML", "duplicate"]),
    ("[p2p]\nconnect_timeout = \"soon\"", &[":2: p2p.connect_timeout", "\"soon\" is not a duration", "\"30s\""]),
    ("[p2p]\nconnect_timeout = 5", &[":2: p2p.connect_timeout", "5 is not a duration", "\"30s\""]),
    ("[p2p]\nconnect_timeout = \"1ms\"", &["p2p.connect_timeout", "out of range", "at least 100ms"]),
    ("[p2p]\nretry_interval = \"2days\"", &["p2p.retry_interval", "at most 1day"]),
    ("[p2p]\nhealth_check_interval = \"-3s\"", &["p2p.health_check_interval", "not a duration"]),
    ("[tls]\ncert_lifetime = \"1s\"", &["tls.cert_lifetime", "at least 10s"]),
    ("[p2p]\nmode = \"fast\"", &["p2p.mode", "\"fast\" is not a mode", "\"switch-lossless\""]),
    ("[p2p]\nclose_relay = \"yes\"", &["p2p.close_relay", "neither true nor false"]),
    ("[p2p]\nrelay_udp = \"auto\"", &["p2p.relay_udp", "neither true nor false"]),
    ("[p2p]\nclose_relay = 1", &["p2p.close_relay", "neither true nor false"]),
    ("[p2p]\ntransports = [\"wss\", \"carrier-pigeon\"]", &["p2p.transports", "\"carrier-pigeon\"", "\"udp\", \"wss\""]),
    ("[p2p]\ntransports = [\"wss\", \"wss\"]", &["p2p.transports", "twice"]),
    ("[p2p]\ntransports = [1, 2]", &["p2p.transports", "integer", "strings in quotes"]),
    ("[p2p]\nlisten_tcp = \"0.0.0.0\"", &["p2p.listen_tcp", "not an address with a port", "\"0.0.0.0:0\""]),
    ("[p2p]\nlisten_udp = \"localhost:99999\"", &["p2p.listen_udp", "not an address with a port"]),
    ("[p2p]\nadvertise = [\"198.51.100.4:0\"]", &["p2p.advertise", "peers can dial"]),
    ("[p2p]\nadvertise = [\"0.0.0.0:4433\"]", &["p2p.advertise", "peers can dial"]),
    ("[crypto]\nrekey_interval = \"1s\"", &["crypto.rekey_interval", "at least 2s"]),
    ("[crypto]\nsuites = []", &["crypto.suites", "is empty", "\"chacha20-poly1305\""]),
    ("[crypto]\nsuites = [\"rot13\"]", &["crypto.suites", "\"rot13\" is not a data suite"]),
    ("[interface]\nmode = \"tunnel\"", &["interface.mode", "\"tun\", \"tap\", \"userspace\""]),
    ("[dns]\nenabled = \"maybe\"", &["dns.enabled", "neither true nor false"]),
    ("[dns]\nserver = \"10.0.0.1\"", &[":2: dns.server: unknown key"]),
    ("[userspace]\nproxy = \"0.0.0.0:1080\"", &["userspace.proxy", "not on the loopback interface", "\"127.0.0.1:1080\""]),
    ("[userspace]\nproxy = \"1080\"", &["userspace.proxy", "\"off\""]),
    ("[userspace]\nforward = [\"80:server:80\"]", &["userspace.forward", "LOCAL=PEER:PORT", "\"8080=server:80\""]),
    ("[userspace]\nforward = [\"80=server\"]", &["userspace.forward", "LOCAL=PEER:PORT"]),
    ("[userspace]\nexpose = [\"0\"]", &["userspace.expose", "PORT=ADDRESS:PORT"]),
    ("[userspace]\nexpose = [\"80=127.0.0.1:0\"]", &["userspace.expose", "\"80=127.0.0.1:8080\""]),
    ("[userspace]\nexpose = [\"80\", \"80=127.0.0.1:8080\"]", &["userspace.expose", "port 80 is there twice"]),
    ("[userspace]\nforward = [\"80=b:80\"]", &["userspace.forward", "interface.mode = \"userspace\""]),
    ("[userspace]\nexpose = [\"80\"]", &["userspace.expose", "the mode is \"tun\""]),
    ("[interface]\nmtu = 576", &["interface.mtu", "from 1280 to 9000"]),
    ("[interface]\nqueues = 0", &["interface.queues", "from 1 to 16"]),
    ("[interface]\nqueues = \"many\"", &["interface.queues", "\"auto\""]),
    ("[interface]\nmtu = \"big\"", &["interface.mtu", "\"auto\""]),
    ("[interface]\nmtu = 99999999999999999999", &["interface.mtu", "too large"]),
    ("[interface]\nname = \"a-name-that-is-too-long\"", &["interface.name", "at most 15"]),
    ("[interface]\nname = \"a/b\"", &["interface.name", "not an interface name"]),
    ("[interface]\naddress = [\"10.77.0.2\"]", &["interface.address", "\"10.77.0.2/24\""]),
    ("[interface]\naddress = [\"10.77.0.2/33\"]", &["interface.address", "prefix length"]),
    ("[interface]\naddress = [\"224.0.0.1/24\"]", &["interface.address", "cannot be the address of a peer"]),
    ("[interface]\naddress = [\"10.77.0.2/24\", \"10.77.0.2/16\"]", &["interface.address", "twice"]),
    ("[network]\nname = \"my laptop\"", &["network.name", "not a name"]),
    ("[network]\nrevoked = [\"sm-abc\"]", &["network.revoked", "\"sm-abc\" is not a PeerId"]),
    ("[network]\nname = \"\"", &["network.name", "is empty"]),
    ("[network]\nproxy = \"socks5://proxy:1080\"", &[":2: network.proxy", "SOCKS", "http://proxy.example:3128"]),
    ("[network]\nproxy = \"https://me:s3cret@proxy:443\"", &[":2: network.proxy", "TLS to the proxy itself is not spoken", "\"off\""]),
    ("[network]\nproxy = \"http://proxy:port\"", &[":2: network.proxy", "this is no port"]),
    ("[network]\nproxy = 3128", &[":2: network.proxy", "\"http://proxy.example:3128\""]),
    ("[network]\njoin = \"hello\"", &["network.join", "smesh1:"]),
    ("[network]\njoin = \"smesh1:AQ\"", &["network.join", "cut off", "network new"]),
    ("[network]\njoin = \"smesh1:A!Q\"", &["network.join", "'!'"]),
    ("[network]\njoin = \"x\"\njoin_file = \"y\"", &[":3: network.join_file", "keep one of the two"]),
    ("[network]\njoin_file = \"/nowhere/token\"", &["network.join_file", "/nowhere/token", "cannot be read"]),
    ("[network]\njoin_file = \"/\"", &["network.join_file", "is not a file"]),
    ("[log]\nlevel = \"loud,=\"", &["log.level", "not a log level", "debug"]),
    ("[log]\nformat = \"xml\"", &["log.format", "\"text\", \"json\""]),
    ("[metrics]\nlisten = \"9461\"", &["metrics.listen", "\"127.0.0.1:9461\"", "off"]),
    ("[state]\ndir = 1979-05-27", &["state.dir", "datetime", "quotes"]),
    ("[control]\nsocket = {}", &["control.socket", "table"]),
    ("peer = 3", &["peer", "[[peer]]"]),
    ("[[peer]]\nname = \"x\"", &[":1: peer.id: is missing", "shadowmesh id"]),
    ("[[peer]]\nid = \"sm-abc\"", &[":2: peer.id", "is not a PeerId", "56 characters"]),
    ("[[peer]]\nid = \"ID\"\ncolour = 1", &[":3: peer.colour: unknown key", "id, name, allowed, endpoint"]),
    ("[[peer]]\nid = \"ID\"\nname = \"a b\"", &[":3: peer.name", "not a name"]),
    ("[[peer]]\nid = \"ID\"\nendpoint = [\"203.0.113.5\"]", &[":3: peer.endpoint", "\"203.0.113.5\"", "\"203.0.113.5:51820\""]),
    ("[[peer]]\nid = \"ID\"\nendpoint = [\"127.0.0.1:51820\"]", &[":3: peer.endpoint", "another machine"]),
    ("[[peer]]\nid = \"ID\"\nendpoint = [\"224.0.0.1:51820\"]", &[":3: peer.endpoint", "another machine"]),
    ("[[peer]]\nid = \"ID\"\nendpoint = [\"203.0.113.5:0\"]", &[":3: peer.endpoint", "another machine"]),
    ("[[peer]]\nid = \"ID\"\nendpoint = [\"203.0.113.5:1\", \"203.0.113.5:1\"]", &[":3: peer.endpoint", "there twice"]),
    (
        "[[peer]]\nid = \"ID\"\nendpoint = [\"[2001:db8::1]:1\", \"[2001:db8::1]:2\", \"[2001:db8::1]:3\", \"[2001:db8::1]:4\", \"[2001:db8::1]:5\"]",
        &[":3: peer.endpoint", "5 addresses", "at most 4"],
    ),
    ("[[peer]]\nid = \"ID\"\nallowed = [\"10.0.0.0\"]", &[":3: peer.allowed", "\"10.77.0.1/32\""]),
    ("[[peer]]\nid = \"ID\"\n[[peer]]\nid = \"ID\"", &[":4: peer.id", "listed twice"]),
    ("[[peer]]\nid = \"ID\"\nname = \"x\"\n[[peer]]\nid = \"OTHER\"\nname = \"x\"", &[":6: peer.name", "names two peers"]),
    (
        "[[peer]]\nid = \"ID\"\nallowed = [\"10.0.0.1/32\"]\n[[peer]]\nid = \"OTHER\"\nallowed = [\"10.0.0.1/32\"]",
        &[":6: peer.allowed", "allowed to two peers"],
    ),
];

/// Wrong command lines: arguments (`DIR` is an empty directory), exit code, parts of the line.
const COMMANDS: &[(&[&str], i32, &[&str])] = &[
    (&["fly"], 2, &["unrecognized subcommand 'fly'"]),
    (&["status", "--jsn"], 2, &["--jsn", "--json"]),
    (&["status", "--check", "happy"], 2, &["happy", "live, ready"]),
    (&["up", "--runtime", "threads", "--state-dir", "DIR"], 2, &["network.join", "no join token"]),
    (&["up", "--runtime", "tokio"], 2, &["tokio", "smol, threads"]),
    (&["up", "--join", "a", "--join-file", "b"], 2, &["--join", "--join-file", "cannot be used with"]),
    (&["up", "--state-dir", "DIR"], 2, &["network.join", "no join token", "--join"]),
    (&["up", "--join", "nonsense", "--state-dir", "DIR"], 2, &["--join: network.join", "smesh1:"]),
    (&["up", "--join-file", "DIR/none", "--state-dir", "DIR"], 2, &["--join-file", "DIR/none", "cannot be read"]),
    (&["up", "--dns", "maybe", "--state-dir", "DIR"], 2, &["--dns: dns.enabled", "neither true nor false"]),
    (&["capture"], 2, &["<FILE>"]),
    (&["capture", "a.pcapng", "--count", "0"], 2, &["0", "--count"]),
    (&["capture", "a.pcapng", "--snaplen", "100000"], 2, &["100000", "--snaplen", "65554"]),
    (&["capture", "a.pcapng", "--state-dir", "DIR"], 1, &["no peer is running at DIR"]),
    (&["up", "--forward", "80=b:80", "--state-dir", "DIR"], 2, &["--forward: userspace.forward", "the mode is \"tun\""]),
    (&["up", "--mode", "userspace", "--proxy", "192.0.2.1:80", "--state-dir", "DIR"], 2, &["--proxy: userspace.proxy", "loopback"]),
    (&["up", "--mode", "bridge", "--state-dir", "DIR"], 2, &["--mode: interface.mode", "\"tun\", \"tap\", \"userspace\""]),
    (&["up", "--address", "10.0.0.1", "--state-dir", "DIR"], 2, &["--address: interface.address", "/24"]),
    (&["up", "--interface", "", "--state-dir", "DIR"], 2, &["--interface: interface.name", "is empty"]),
    (&["up", "--name", "a b", "--state-dir", "DIR"], 2, &["--name: network.name", "not a name"]),
    (&["up", "--metrics", "everywhere", "--state-dir", "DIR"], 2, &["--metrics: metrics.listen", "off"]),
    (&["up", "--config", "DIR/none.toml"], 2, &["DIR/none.toml", "no such file"]),
    (&["up", "--config", "DIR"], 2, &["DIR", "is not a file"]),
    (&["config", "check", "DIR/none.toml"], 2, &["DIR/none.toml", "no such file"]),
    (&["config", "check"], 2, &["<FILE>"]),
    (&["ping"], 2, &["<PEER>"]),
    (&["ping", "b", "-c", "0"], 2, &["0", "-c"]),
    (&["ping", "b", "--interval", "fast"], 2, &["--interval", "500ms"]),
    (&["ping", "b", "--timeout", "0s"], 2, &["--timeout", "at least 10ms"]),
    (&["demo", "--seconds", "1"], 2, &["--seconds", "5"]),
    (&["demo", "--runtime", "tokio"], 2, &["tokio", "smol, threads"]),
    (&["completions", "csh"], 2, &["csh", "bash"]),
    (&["network", "new"], 2, &["--relay"]),
    (&["network", "new", "--relay", "http://a"], 2, &["--relay", "wss://"]),
    (&["network", "new", "--relay", "wss://a:0"], 2, &["--relay", "port"]),
    (&["network", "new", "--relay", "wss://a", "--relay-id", "sm-x"], 2, &["--relay-id", "is not a PeerId"]),
    (&["network", "new", "--relay", "wss://a", "--relay-id", "x", "--relay-id", "y"], 2, &["--relay-id is given 2 times"]),
    (&["network", "new", "--relay", "wss://a", "--relay-token", "0123456789abcdef"], 2, &["access token", "give its --relay-id too"]),
    (&["network", "new", "--relay", "wss://a", "--relay-token", "x", "--relay-token", "-"], 2, &["--relay-token is given 2 times"]),
    (&["keygen", "--out", "DIR/no/such/place"], 1, &["no such directory", "--out"]),
    (&["id", "--identity", "DIR/none"], 1, &["DIR/none", "does not exist", "shadowmesh keygen"]),
    (&["id", "--identity", "DIR"], 2, &["DIR", "not a regular file"]),
    (&["status", "--state-dir", "DIR"], 1, &["no peer is running at DIR/control.sock", "shadowmesh up"]),
    (&["status", "--check", "live", "--state-dir", "DIR"], 1, &["no peer is running"]),
    (&["ping", "b", "--control", "DIR/x.sock"], 1, &["no peer is running at DIR/x.sock"]),
    (&["peer", "explain", "b", "--state-dir", "DIR"], 1, &["no peer is running"]),
    (&["metrics", "--state-dir", "DIR"], 1, &["no peer is running"]),
    (&["down", "--state-dir", "DIR"], 1, &["no peer is running"]),
];

/// Wrong identity files: content, mode, parts of the line.
const IDENTITIES: &[(&str, u32, &[&str])] = &[
    ("", 0o600, &["truncated"]),
    ("shadowmesh-identity-1 AAAA\n", 0o600, &["truncated"]),
    ("shadowmesh-identity-1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB\n", 0o600, &["checksum"]),
    ("-----BEGIN PRIVATE KEY-----\n", 0o600, &["is not an identity"]),
    ("GOOD", 0o644, &["can be read by others", "chmod 600"]),
    ("LONG", 0o600, &["too large"]),
];

#[test]
fn wrong_configuration_files() {
    let dir = tempdir().expect("a temporary directory");
    let ids = ["a", "b"].map(|name| succeed(&["keygen", "--out", text(&dir.path().join(name))]));
    let file = dir.path().join("peer.toml");
    for (content, parts) in FILES {
        let content = content.replace("\"ID\"", &format!("{:?}", ids[0].trim())).replace("OTHER", ids[1].trim());
        fs::write(&file, &content).expect("writes");
        refused(&["config", "check", text(&file)], &[], 2, &[&[text(&file)], *parts].concat(), &content);
    }
}

#[test]
fn files_that_are_no_text() {
    let dir = tempdir().expect("a temporary directory");
    let file = dir.path().join("peer.toml");
    fs::write(&file, b"[log]\nlevel = \"\xff\"\n").expect("writes");
    refused(&["config", "check", text(&file)], &[], 2, &["peer.toml:2", "UTF-8"], "bytes");
    fs::write(&file, vec![b'#'; (1 << 20) + 1]).expect("writes");
    refused(&["config", "check", text(&file)], &[], 2, &["peer.toml", "at most 1048576"], "a large file");
}

#[test]
fn wrong_command_lines() {
    for (args, code, parts) in COMMANDS {
        let dir = tempdir().expect("a temporary directory");
        let args: Vec<String> = args.iter().map(|arg| arg.replace("DIR", text(dir.path()))).collect();
        let parts: Vec<String> = parts.iter().map(|part| part.replace("DIR", text(dir.path()))).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        refused(&args, &[], *code, &parts, "the command line");
    }
}

#[test]
fn wrong_variables() {
    let dir = tempdir().expect("a temporary directory");
    for (name, value, part) in [
        ("SHADOWMESH_P2P_RETRY_INTERVAL", "often", "is not a duration"),
        ("SHADOWMESH_P2P_HEALTH_CHECK_INTERVAL", "", "is not a duration"),
        ("SHADOWMESH_P2P_TRANSPORTS", "udp,tcp", "\"tcp\" is not a direct transport"),
        ("SHADOWMESH_CRYPTO_SUITES", "", "is empty"),
        ("SHADOWMESH_P2P_CLOSE_RELAY", "maybe", "neither true nor false"),
        ("SHADOWMESH_LOG_FORMAT", "yaml", "is not a log format"),
        ("SHADOWMESH_NETWORK_JOIN", "smesh1:", "cut off"),
        ("SHADOWMESH_INTERFACE_MTU", "70000", "from 1280 to 9000"),
    ] {
        refused(&["up", "--state-dir", text(dir.path())], &[(name, value)], 2, &[name, part], value);
    }
}

#[test]
fn wrong_identity_files() {
    let dir = tempdir().expect("a temporary directory");
    let good = dir.path().join("good.key");
    succeed(&["keygen", "--out", text(&good)]);
    let bad = dir.path().join("identity.key");
    for (content, mode, parts) in IDENTITIES {
        let content = match *content {
            "GOOD" => fs::read_to_string(&good).expect("readable"),
            "LONG" => "x".repeat(5000),
            other => other.to_owned(),
        };
        fs::write(&bad, &content).expect("writes");
        fs::set_permissions(&bad, fs::Permissions::from_mode(*mode)).expect("sets the mode");
        refused(&["id", "--identity", text(&bad)], &[], 2, &[&[text(&bad)], *parts].concat(), &content);
        // The same file stops a peer before it does anything.
        let token = succeed(&["network", "new", "--relay", "wss://192.0.2.1"]);
        refused(&["up", "--state-dir", text(dir.path()), "--join", token.trim()], &[], 2, parts, &content);
    }
}

#[test]
fn damaged_tokens() {
    let dir = tempdir().expect("a temporary directory");
    let token = succeed(&["network", "new", "--relay", "wss://192.0.2.1"]);
    let token = token.trim();
    let file = dir.path().join("join.token");
    for cut in 0..token.len() {
        if cut % 7 == 0 || cut + 3 > token.len() {
            fs::write(&file, &token[..cut]).expect("writes");
            let parts = [text(&file), if cut < 7 { "smesh1:" } else { "cut off" }];
            refused(&["up", "--state-dir", text(&dir.path().join("s")), "--join-file", text(&file)], &[], 2, &parts, &token[..cut]);
        }
    }
    // What an earlier start remembered can be damaged too.
    refused(&["up", "--state-dir", text(dir.path())], &[], 2, &["join.token", "cut off"], "a remembered token");
}

#[test]
fn a_state_directory_has_one_peer() {
    let dir = tempdir().expect("a temporary directory");
    let lock = fs::File::create(dir.path().join("lock")).expect("makes the file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("nobody else has it");
    let token = succeed(&["network", "new", "--relay", "wss://192.0.2.1"]);
    refused(&["up", "--state-dir", text(dir.path()), "--join", token.trim()], &[], 1, &["another peer runs with this state"], "the lock");
    assert!(!dir.path().join("identity.key").exists(), "the second one changes nothing");
}

#[test]
fn a_control_socket_is_never_taken_from_others() {
    let (dir, token) = with_token();
    let path = dir.path().join("c.sock");
    fs::write(&path, "precious").expect("writes");
    let args = ["up", "--state-dir", text(dir.path()), "--join", &token, "--control", text(&path)];
    refused(&args, &[], 1, &["c.sock", "not a socket"], "a file");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    fs::remove_file(&path).expect("removes");
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("binds");
    refused(&args, &[], 1, &["c.sock", "already running"], "a live socket");
}

#[test]
fn a_metrics_port_in_use_is_told() {
    let (dir, token) = with_token();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback binds");
    let address = busy.local_addr().expect("bound").to_string();
    let args = ["up", "--state-dir", text(dir.path()), "--join", &token, "--metrics", &address];
    refused(&args, &[], 1, &["metrics.listen", &address, "--metrics"], "a port in use");
}

fn with_token() -> (TempDir, String) {
    let token = succeed(&["network", "new", "--relay", "wss://192.0.2.1"]);
    (tempdir().expect("a temporary directory"), token.trim().to_owned())
}

/// Exit code, silence on stdout, one line on stderr that holds all parts.
fn refused(args: &[&str], variables: &[(&str, &str)], code: i32, parts: &[&str], input: &str) {
    let output = shadowmesh(args).envs(variables.iter().copied()).current_dir(Path::new("/")).output().expect("the binary starts");
    let said = String::from_utf8(output.stderr).expect("stderr is text");
    // Log lines may come first; the last line is the answer.
    let last = said.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(code), "{args:?} with {input:?} said {said:?}");
    assert!(output.stdout.is_empty(), "{args:?} with {input:?} wrote {:?}", String::from_utf8_lossy(&output.stdout));
    assert!(last.starts_with("shadowmesh: "), "{args:?} with {input:?} said {said:?}");
    for part in parts {
        assert!(last.contains(part), "{args:?} with {input:?}: {part:?} is not in {last:?}");
    }
}

#[test]
fn a_journal_is_never_overwritten() {
    let dir = tempdir().expect("a temporary directory");
    let file = dir.path().join("run.journal");
    fs::write(&file, "precious").expect("writes");
    let token = succeed(&["network", "new", "--relay", "wss://192.0.2.1"]);
    let args = ["up", "--state-dir", text(dir.path()), "--metrics", "off", "--join", token.trim(), "--journal", text(&file)];
    refused(&args, &[], 1, &[text(&file), "never overwritten"], "a journal that is there");
    assert_eq!(fs::read(&file).expect("it is there"), b"precious");
}
