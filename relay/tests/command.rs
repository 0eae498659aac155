//! The relay's command as people and scripts meet it: what it prints, what it refuses, how it ends.
use shadowmesh_core::journal::{Journal, Replay, Verdict};
use shadowmesh_runtime_std::identity;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::Duration,
};

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shadowmesh-relay"));
    command.args(arguments).current_dir(dir).env_clear();
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

/// Exit code and the one line on stderr.
fn refused(output: &Output) -> (i32, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.lines().count(), 1, "one line and not {said:?}");
    assert!(output.stdout.is_empty(), "nothing on stdout");
    (output.status.code().expect("it ended by itself"), said)
}

/// A relay in the foreground; ended by its id when the test ends.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(dir: &Path, arguments: &[&str]) -> Self {
        Self::start_with(dir, arguments, &[])
    }

    fn start_with(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = command(dir, arguments);
        command.envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the binary runs");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("reads");
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    fn end(mut self, signal: &str) -> i32 {
        self.signal(signal);
        self.child.wait().expect("it ends").code().expect("by itself")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in `shadowmesh-relay listening on wss://ADDRESS id sm-…`, and the id.
fn announced(line: &str) -> (String, String) {
    let rest = line.strip_prefix("shadowmesh-relay listening on wss://").unwrap_or_else(|| panic!("{line:?}"));
    let (address, id) = rest.split_once(" id ").expect("an id");
    (address.to_owned(), id.to_owned())
}

#[test]
fn dev_prints_address_id_and_token_answers_status_and_leaves_cleanly() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut relay = Running::start(dir.path(), &["--dev", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let (address, id) = announced(&relay.line());
    assert!(!address.ends_with(":0") && id.starts_with("sm-"), "{address} {id}");
    let token = relay.line();
    assert!(token.starts_with("smesh1:"), "{token}");
    let file = dir.path().join("target/dev/join.token");
    assert_eq!(fs::read_to_string(&file).expect("written").trim(), token);
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    drop(TcpStream::connect(&address).expect("it listens"));

    let state = ["--state-dir", "target/dev"];
    let same = run(dir.path(), &["id", state[0], state[1]]);
    assert_eq!(String::from_utf8_lossy(&same.stdout).trim(), id);
    let json = run(dir.path(), &["status", "--json", state[0], state[1]]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one JSON value");
    assert_eq!(
        (json["id"].as_str(), json["state"].as_str(), json["clients"].as_array().map(Vec::len)),
        (Some(id.as_str()), Some("ready"), Some(0))
    );
    assert_eq!(json["listen"][0], format!("wss://{address}"));
    let text = run(dir.path(), &["status", state[0], state[1]]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("0 clients in 0 networks"));

    let second = run(dir.path(), &["--dev", "--listen", "127.0.0.1:0"]);
    let (code, said) = refused(&second);
    assert!(code == 1 && said.contains("another process is already running here"), "{code} {said}");

    assert_eq!(relay.end("-TERM"), 0);
    assert!(!dir.path().join("target/dev/control.sock").exists());
    let (code, said) = refused(&run(dir.path(), &["status", state[0], state[1]]));
    assert!(code == 1 && said.contains("nothing is running at target/dev/control.sock"), "{code} {said}");

    let mut again = Running::start(dir.path(), &["--dev", "--listen", "127.0.0.1:0"]);
    assert_eq!(announced(&again.line()).1, id, "the identity is kept");
    assert_eq!(again.end("-INT"), 0);
}

#[test]
fn hangup_reads_the_configuration_again_and_a_mistake_changes_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("relay.toml");
    fs::write(&file, "[log]\nlevel = \"info\"\n").expect("writes");
    let mut command = command(dir.path(), &["--config", "relay.toml", "--listen", "127.0.0.1:0", "--state-dir", "state"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut relay = Running { out: BufReader::new(child.stdout.take().expect("piped")), child };
    announced(&relay.line());
    let mut until = |part: &str| {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(log.read_line(&mut line).expect("reads"), 0, "it ended, and never said {part:?}");
        }
        line
    };
    fs::write(&file, "[log]\nlevel = \"loud\"\n").expect("writes");
    relay.signal("-HUP");
    let said = until("stays as it was");
    assert!(said.contains("WARN") && said.contains("relay.toml:2: log.level cannot be"), "{said}");
    fs::write(&file, "[log]\nlevel = \"debug\"\n[drain]\ntimeout = \"3s\"\n[limits]\nclients = 5\nqueue_frames = 600\n").expect("writes");
    relay.signal("-HUP");
    let said = until("read again");
    assert!(said.contains("next start") && said.contains("fixed=\"limits.queue_frames\"") && !said.contains("listen"), "{said}");
    assert!(said.contains("drain_timeout=3s"), "{said}");
    assert_eq!(relay.end("-TERM"), 0);
    until("within=3s");
}

/// As systemd leaves a credential: the service's user reads it by an access control list, whose mask stands where the group's rights would.
#[test]
fn the_identity_of_the_service_manager_is_used_and_copied_nowhere() {
    let dir = tempfile::tempdir().expect("temp dir");
    let sealed = dir.path().join("credentials");
    fs::create_dir(&sealed).expect("makes");
    let (identity, line) = identity::generate().expect("chance");
    let write = |text: &str| {
        let _ = fs::remove_file(sealed.join("identity.key"));
        fs::write(sealed.join("identity.key"), text).expect("writes");
        fs::set_permissions(sealed.join("identity.key"), fs::Permissions::from_mode(0o440)).expect("chmod");
    };
    write(&line);
    let with = |arguments: &[&str]| {
        let mut command = command(dir.path(), arguments);
        command.env("CREDENTIALS_DIRECTORY", &sealed);
        command
    };
    let said = |arguments: &[&str]| with(arguments).output().expect("the binary runs");
    let own = said(&["id", "--state-dir", "state"]);
    assert_eq!(String::from_utf8_lossy(&own.stdout).trim(), identity.id().to_string(), "{own:?}");
    assert!(!dir.path().join("state/relay.key").exists());
    fs::write(dir.path().join("relay.toml"), "[identity]\nfile = \"relay.key\"\n").expect("writes");
    let named = said(&["id", "--state-dir", "state", "--config", "relay.toml"]);
    assert!(named.status.success() && named.stdout != own.stdout, "a file that is named is meant: {named:?}");
    write("shadowmesh-identity-1 AAAA\n");
    for arguments in [&["id", "--state-dir", "other"][..], &["--listen", "127.0.0.1:0", "--state-dir", "other"]] {
        let (code, said) = refused(&said(arguments));
        assert!(code == 2 && said.contains("identity.key is truncated") && said.contains("systemd-creds encrypt"), "{said}");
    }
    assert!(!dir.path().join("other/relay.key").exists(), "no other identity is made instead");
}

#[test]
fn a_recorded_run_replays_and_its_file_is_never_overwritten() {
    let dir = tempfile::tempdir().expect("temp dir");
    let arguments = |runtime| ["--dev", "--listen", "127.0.0.1:0", "--runtime", runtime, "--journal", runtime];
    for runtime in ["smol", "threads"] {
        let mut relay = Running::start(dir.path(), &arguments(runtime));
        let (address, _) = announced(&relay.line());
        drop(TcpStream::connect(&address).expect("it listens"));
        assert_eq!(relay.end("-TERM"), 0);
        let file = dir.path().join(runtime);
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        let bytes = fs::read(&file).expect("readable");
        let Ok(Journal::Hub(tape)) = Journal::open(&bytes) else { panic!("a relay's journal") };
        let mut again = Replay::new(tape);
        let mut kinds = Vec::new();
        while let Some(step) = again.step().expect("a good journal") {
            assert_eq!(step.verdict, Verdict::Same, "record {}", step.number);
            kinds.push(step.kind);
        }
        assert_eq!((&kinds[..2], kinds.last()), (&["Entropy", "Start"][..], Some(&"Leave")), "from its beginning to its end");
        let (code, said) = refused(&run(dir.path(), &arguments(runtime)));
        assert!(code == 1 && said.contains("never overwritten"), "{code} {said}");
        assert_eq!(fs::read(&file).expect("readable"), bytes);
    }
}

#[test]
fn the_metrics_port_answers() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut relay = Running::start(dir.path(), &["--dev", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    announced(&relay.line());
    let status = run(dir.path(), &["status", "--json", "--state-dir", "target/dev"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("one JSON value");
    let url = status["metrics"].as_str().expect("a URL");
    let metrics = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics")).expect("http://ADDRESS/metrics").to_owned();
    for (path, status, part) in [
        ("/metrics", "200 OK", "shadowmesh_relay_clients 0"),
        ("/metrics", "200 OK", "shadowmesh_relay_drops_total{reason=\"queue_full\"} 0"),
        ("/healthz", "200 OK", "ok"),
        ("/readyz", "200 OK", "ok"),
        ("/", "200 OK", "<h1>ShadowMesh relay: ready</h1>"),
        ("/other", "404 Not Found", "not found"),
    ] {
        let mut stream = TcpStream::connect(&metrics).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n").expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("reads");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(part), "{path} gave {answer}");
    }
    assert_eq!(relay.end("-TERM"), 0);
}

#[test]
fn id_makes_an_identity_and_prints_it_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let first = run(dir.path(), &["id", "--state-dir", "state"]);
    let second = run(dir.path(), &["id", "--state-dir", "state"]);
    let text = String::from_utf8(first.stdout.clone()).expect("text");
    assert!(text.starts_with("sm-") && text.lines().count() == 1 && first.stderr.is_empty(), "{text}");
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(fs::metadata(dir.path().join("state/relay.key")).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(dir.path().join("state")).expect("there").permissions().mode() & 0o777, 0o700);
}

#[test]
fn check_says_good_and_does_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    fs::write(dir.path().join("relay.toml"), "[listen]\ntcp = [\"127.0.0.1:4443\"]\n[limits]\nclients = 5\n").expect("writes");
    let output = run(dir.path(), &["--check", "--config", "relay.toml", "--state-dir", "state"]);
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).trim()), (Some(0), "relay.toml: good"));
    assert!(!dir.path().join("state").exists());
    let version = run(dir.path(), &["--version"]);
    assert!(version.status.success() && String::from_utf8_lossy(&version.stdout).starts_with("shadowmesh-relay "));
}

#[test]
fn a_port_in_use_is_one_sentence_and_exit_1() {
    let dir = tempfile::tempdir().expect("temp dir");
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("bound").to_string();
    let (code, said) = refused(&run(dir.path(), &["--state-dir", "state", "--listen", &address]));
    assert!(code == 1 && said.contains(&address), "{code} {said}");
    let (code, said) = refused(&run(dir.path(), &["--state-dir", "state", "--listen", "127.0.0.1:0", "--metrics", &address]));
    assert!(code == 1 && said.contains(&address), "{code} {said}");
    let taken = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("bound").to_string();
    let (code, said) = refused(&run(dir.path(), &["--state-dir", "state", "--listen", "127.0.0.1:0", "--udp", &address]));
    assert!(code == 1 && said.contains(&format!("UDP: {address} is in use")), "{code} {said}");
}

/// Arguments, relay.toml, environment, exit code, and what must be said.
struct Wrong(&'static [&'static str], &'static str, Option<(&'static str, &'static str)>, i32, &'static str);

const FILE: &[&str] = &["--check", "--config", "relay.toml"];

const WRONG: &[Wrong] = &[
    Wrong(&["--flag"], "", None, 2, "unexpected argument '--flag'"),
    Wrong(&["--listen"], "", None, 2, "--listen"),
    Wrong(&["--listen", "localhost"], "", None, 2, "invalid value 'localhost' for '--listen <ADDR:PORT>'"),
    Wrong(&["--udp", "3478"], "", None, 2, "invalid value '3478' for '--udp <ADDR:PORT>'"),
    Wrong(&["--metrics", "9090"], "", None, 2, "invalid value '9090'"),
    Wrong(&["nonsense"], "", None, 2, "nonsense"),
    Wrong(&["--dev", "id"], "", None, 2, "id"),
    Wrong(&["--runtime", "tokio"], "", None, 2, "there is no such runtime; right would be `smol` or `threads`"),
    Wrong(&["--check", "--config", "none.toml"], "", None, 2, "none.toml: there is no such file"),
    Wrong(&["--check", "--config", "."], "", None, 2, "this is not a configuration file"),
    Wrong(FILE, "[listen\n", None, 2, "relay.toml:1: this is not TOML"),
    Wrong(FILE, "[relay]\n", None, 2, "relay.toml:1: there is no section [relay]; right would be one of"),
    Wrong(FILE, "[limits]\nclient = 3\n", None, 2, "relay.toml:2: there is no key limits.client; right would be limits.clients"),
    Wrong(FILE, "[limits]\nclients = 0\n", None, 2, "limits.clients cannot be 0; right would be a whole number from 1"),
    Wrong(FILE, "[limits]\nclients = \"all\"\n", None, 2, "limits.clients cannot be \"all\""),
    Wrong(FILE, "[limits]\nqueue_bytes = 20000\nframe_bytes = 40000\n", None, 2, "limits.queue_bytes (20000) must hold one frame"),
    Wrong(FILE, "[tls]\ncert_lifetime = \"never\"\n", None, 2, "tls.cert_lifetime cannot be \"never\""),
    Wrong(FILE, "[tls]\ncertificate = \"none.pem\"\nkey = \"none.key\"\n", None, 2, "none.pem: No such file"),
    Wrong(FILE, "[tls]\ncertificate = \"relay.toml\"\nkey = \"relay.toml\"\n", None, 2, "relay.toml: there is no certificate in it"),
    Wrong(
        &["--dev", "--config", "relay.toml", "--listen", "127.0.0.1:0"],
        "[tls]\ncertificate = \"none.pem\"\nkey = \"none.key\"\n",
        None,
        1,
        "none.pem: No such file",
    ),
    Wrong(FILE, "[log]\nformat = \"yaml\"\n", None, 2, "right would be \"text\" or \"json\""),
    Wrong(
        FILE,
        "[listen]\ntcp = \"0.0.0.0:443\"\n",
        None,
        2,
        "listen.tcp cannot be \"0.0.0.0:443\"; right would be addresses with ports like",
    ),
    Wrong(&["--check", "--dev"], "", Some(("SHADOWMESH_LOG", "shout")), 2, "SHADOWMESH_LOG: log.level cannot be \"shout\""),
    Wrong(
        &["--check", "--dev"],
        "",
        Some(("SHADOWMESH_LIMITS_STALL_TIME", "2")),
        2,
        "SHADOWMESH_LIMITS_STALL_TIME: limits.stall_time cannot be \"2\"",
    ),
    Wrong(&["--check", "--dev"], "", Some(("SHADOWMESH_METRICS_LISTEN", "here")), 2, "right would be an address with port"),
    Wrong(
        &["id", "--state-dir", "exposed"],
        "",
        None,
        2,
        "exposed/relay.key can be read by others (mode 0644); run `chmod 600 exposed/relay.key`",
    ),
    Wrong(&["id", "--state-dir", "cut"], "", None, 2, "cut/relay.key is truncated"),
    Wrong(&["id", "--state-dir", "damaged"], "", None, 2, "its checksum is wrong"),
    Wrong(&["id", "--state-dir", "other"], "", None, 2, "does not begin with `shadowmesh-identity-1`"),
    Wrong(&["id", "--state-dir", "relay.toml/state"], "", None, 1, "state directory relay.toml/state: "),
    Wrong(&["--state-dir", "relay.toml/state"], "", None, 1, "make it writable or choose another with --state-dir"),
    Wrong(&["status", "--state-dir", "nowhere"], "", None, 1, "nothing is running at nowhere/control.sock"),
];

#[test]
fn each_wrong_input_has_its_sentence_and_exit_code() {
    let dir = tempfile::tempdir().expect("temp dir");
    for (name, mode, text) in [
        ("exposed", 0o644, "shadowmesh-identity-1 x\n"),
        ("cut", 0o600, "shadowmesh-identity-1 AAAAAAAA\n"),
        ("damaged", 0o600, "shadowmesh-identity-1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"),
        ("other", 0o600, "-----BEGIN PRIVATE KEY-----\n"),
    ] {
        let path = dir.path().join(name).join("relay.key");
        fs::create_dir(dir.path().join(name)).expect("makes");
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    for Wrong(arguments, file, variable, code, sentence) in WRONG {
        fs::write(dir.path().join("relay.toml"), file).expect("writes");
        let output = command(dir.path(), arguments).envs(*variable).stdin(Stdio::null()).output().expect("the binary runs");
        let (got, said) = refused(&output);
        assert_eq!(got, *code, "{arguments:?} {file:?}: {said}");
        assert!(said.contains(sentence), "{arguments:?} {file:?} gave {said:?} and not {sentence:?}");
    }
}

/// Ready, alive, leaving: the words of `sd_notify(3)`.
#[test]
fn the_service_manager_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("notify");
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
    let variables = [("NOTIFY_SOCKET", socket.to_str().expect("text")), ("WATCHDOG_USEC", "200000")];
    let relay = Running::start_with(dir.path(), &["--dev", "--listen", "127.0.0.1:0"], &variables);
    hears("READY=1");
    for _ in 0..3 {
        assert!(hears("WATCHDOG=1").contains("STATUS=ready: 0 clients in 0 networks"));
    }
    relay.signal("-TERM");
    hears("STOPPING=1");
    assert_eq!(relay.end("-TERM"), 0);
}

#[test]
fn completions_and_manual_pages_come_from_the_help() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = run(dir.path(), &["completions", "bash"]);
    assert!(script.status.success() && String::from_utf8_lossy(&script.stdout).contains("--state-dir"));
    assert!(run(dir.path(), &["man", "."]).status.success());
    let page = fs::read_to_string(dir.path().join("shadowmesh-relay.1")).expect("a page");
    assert!(page.contains("metrics"), "{page}");
    let (code, said) = refused(&run(dir.path(), &["man", "/nowhere/at/all"]));
    assert!(code == 1 && said.contains("/nowhere/at/all"), "{said}");
}
