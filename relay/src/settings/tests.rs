//! Settings of the relay: precedence, and what a wrong one is answered with.
use super::*;
use core::fmt::Write;
use shadowmesh_core::network::AccessKey;

fn nothing(_: &str) -> Option<String> {
    None
}

fn from_text(text: &str) -> Result<Settings, String> {
    let mut settings = Settings::default();
    file::apply(&mut settings, Path::new("relay.toml"), text).map_err(|failure| failure.sentence)?;
    settings.check().map_err(|failure| failure.sentence)?;
    Ok(settings)
}

#[test]
fn flag_goes_before_environment_before_file_before_default() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("relay.toml");
    fs::write(
        &path,
        "[state]\ndir = \"file\"\n[listen]\ntcp = [\"127.0.0.1:1\"]\nudp = \"127.0.0.1:7\"\n\
         [metrics]\nlisten = \"127.0.0.1:1\"\n[tls]\ncert_lifetime = \"2h\"\n",
    )
    .expect("writes");
    let environment = |name: &str| match name {
        "SHADOWMESH_LISTEN_TCP" => Some("127.0.0.1:2, [::1]:3".to_owned()),
        "SHADOWMESH_METRICS_LISTEN" => Some("127.0.0.1:2".to_owned()),
        "SHADOWMESH_LOG" => Some("warn,shadowmesh_core=trace".to_owned()),
        "SHADOWMESH_TLS_CERT_LIFETIME" => Some(String::new()),
        _ => None,
    };
    let metrics = "127.0.0.1:3".parse().ok();
    let settings = Settings::load(&Flags { config: Some(path.clone()), metrics, ..Flags::default() }, &environment).expect("good");
    assert_eq!((settings.metrics, settings.udp), (metrics, "127.0.0.1:7".parse().ok()));
    assert_eq!(settings.listen, ["127.0.0.1:2".parse().expect("address"), "[::1]:3".parse().expect("address")]);
    assert_eq!((settings.cert_lifetime, settings.state_dir), (Duration::from_hours(2), "file".into()));
    assert_eq!(
        (settings.log_level.as_str(), settings.limits, settings.file),
        ("warn,shadowmesh_core=trace", Limits::default(), Some(path))
    );
}

#[test]
fn the_documentation_says_what_waits_for_the_next_start() {
    let second = Duration::from_secs(1);
    let limits = Limits {
        frame_bytes: 1,
        control_bytes: 1,
        preauth_time: second,
        preauth_bytes: 1,
        preauth_total: 1,
        preauth_per_source: 1,
        joins_per_second: 1,
        join_burst: 1,
        queue_frames: 1,
        queue_bytes: 1,
        queue_total_bytes: 1,
        stall_time: second,
        handshakes_per_second: 1,
        handshake_burst: 1,
        half_open_total: 1,
        client_bytes_per_second: 1,
        client_frames_per_second: 1,
        bytes_per_second: 1,
        frames_per_second: 1,
        clients: 1,
        refuse_time: second,
        memory: 1,
    };
    let networks = vec![([192, 0, 2, 0].into(), 24)];
    let access = Access { allow: networks.clone(), deny: networks.clone(), peers: vec![], keys: vec![AccessKey::of("x")] };
    let other = Settings {
        listen: Vec::new(),
        udp: Some(([127, 0, 0, 1], 1).into()),
        state_dir: "x".into(),
        identity: Some("x".into()),
        sealed_identity: None,
        metrics: Some(([127, 0, 0, 1], 1).into()),
        cert_lifetime: second,
        certificate: Some("x".into()),
        certificate_key: Some("x".into()),
        drain_timeout: Duration::ZERO,
        keepalive: second,
        log_level: "x".into(),
        log_json: true,
        limits,
        access,
        trusted_proxies: networks,
        dev: true,
        file: Some("x".into()),
    };
    let docs = include_str!("../../../docs/configuration.md");
    let list = docs.lines().find_map(|line| line.strip_prefix("Waits for the next start of a relay: ")).expect("a line with them");
    let told: Vec<&str> = list.trim_end_matches('.').split(", ").map(|key| key.trim_matches('`')).collect();
    assert_eq!(Settings::default().fixed_that_differ(&other), told);
}

#[test]
fn every_key_has_a_variable_and_can_be_set_in_the_file() {
    let mut text = String::new();
    let mut section = String::new();
    let mut sorted: Vec<_> = names().collect();
    sorted.sort();
    for (dotted, variable) in &sorted {
        let (head, name) = dotted.split_once('.').expect("section and key");
        if head != section {
            head.clone_into(&mut section);
            writeln!(text, "[{head}]").expect("writes");
        }
        let value = match name {
            "file" | "dir" | "certificate" | "key" => "\"x\"",
            "allow" | "deny" | "trusted_proxies" => "[\"192.0.2.0/24\", \"2001:db8::1\"]",
            "peers" => "[]",
            "token" => "[\"0123456789abcdef\", \"fedcba9876543210\"]",
            "tcp" => "[\"127.0.0.1:1\"]",
            "listen" | "udp" => "\"127.0.0.1:1\"",
            "level" => "\"debug\"",
            "format" => "\"json\"",
            "cert_lifetime" | "keepalive" | "preauth_time" | "stall_time" | "refuse_time" | "timeout" => "\"1m\"",
            "queue_total_bytes" => "2_000_000",
            "memory" => "20_000_000",
            _ => "20_000",
        };
        writeln!(text, "{name} = {value}").expect("writes");
        assert!(variable.starts_with("SHADOWMESH_"), "{variable}");
    }
    let peer = shadowmesh_core::id::PeerId([7; 32]);
    let text = text.replace("queue_bytes = 20_000", "queue_bytes = 100_000").replace("[]", &format!("[\"{peer}\"]"));
    let mut settings = from_text(&text).expect("good");
    assert_eq!(settings.access.allow, [("192.0.2.0".parse().expect("address"), 24), ("2001:db8::1".parse().expect("address"), 128)]);
    assert_eq!((settings.access.deny.len(), settings.access.peers.as_slice()), (2, &[peer][..]));
    assert_eq!(settings.access.keys, ["0123456789abcdef", "fedcba9876543210"].map(AccessKey::of));
    assert!(!format!("{settings:?}").contains("0123456789abcdef"), "it is hidden");
    let limits = core::mem::take(&mut settings.limits);
    assert_eq!((limits.frame_bytes, limits.clients, limits.client_bytes_per_second), (20_000, 20_000, 20_000));
    assert!(settings.log_json && settings.certificate_files().is_some());
}

/// file, and what must be said about it
const WRONG: &[(&str, &str)] = &[
    ("[limits]\n\nqueue_frame = 1\n", "relay.toml:3: there is no key limits.queue_frame; right would be limits.queue_frames"),
    ("[limits]\nxyzzy = 1\n", "relay.toml:2: there is no key limits.xyzzy; right would be one of keepalive, "),
    ("[limit]\n", "relay.toml:1: there is no section [limit]; right would be [limits]"),
    ("[p2p]\nmode = \"off\"\n", "relay.toml:1: there is no section [p2p]; right would be one of [access], [drain], [identity], "),
    ("top = 1\n", "relay.toml:1: there is no section [top]"),
    ("limits = 3\n", "relay.toml:1: limits is a section; right would be a line [limits]"),
    (
        "[limits]\nqueue_frames = \"many\"\n",
        "relay.toml:2: limits.queue_frames cannot be \"many\"; right would be a whole number from 16 to 1048576",
    ),
    ("[limits]\nqueue_frames = -1\n", "limits.queue_frames cannot be -1; right"),
    ("[limits]\nqueue_frames = 1.5\n", "limits.queue_frames cannot be a number with a fraction"),
    ("[limits]\nqueue_frames = 99999999999999999999999999999999999999999999\n", "relay.toml:2: "),
    ("[limits]\nframe_bytes = 100\n", "limits.frame_bytes cannot be 100; right would be a whole number from 9216 to 60000"),
    ("[limits]\npreauth_time = 5\n", "limits.preauth_time cannot be 5; right would be a time from 100ms to 5m"),
    ("[limits]\npreauth_time = \"soon\"\n", "cannot be \"soon\""),
    ("[limits]\npreauth_per_source = 5000\n", "limits.preauth_per_source (5000) must be at most limits.preauth_total (1024)"),
    ("[limits]\nqueue_bytes = 20000\nframe_bytes = 30000\n", "limits.queue_bytes (20000) must hold one frame"),
    ("[limits]\nqueue_total_bytes = 1048576\nqueue_bytes = 2000000\n", "limits.queue_total_bytes (1048576) must be at least"),
    ("[limits]\nmemory = 100000000\n", "limits.memory (100000000) must hold the queues, 5/4 of limits.queue_total_bytes (268435456)"),
    ("[limits]\njoins_per_second = 100\n", "limits.join_burst (50) must be at least limits.joins_per_second (100)"),
    ("[access]\nallow = [\"192.0.2.0/33\"]\n", "access.allow cannot be \"192.0.2.0/33\"; right would be networks like"),
    ("[access]\ndeny = [\"example.com\"]\n", "access.deny cannot be \"example.com\""),
    ("[access]\ntrusted_proxies = \"192.0.2.1\"\n", "access.trusted_proxies cannot be \"192.0.2.1\"; right would be networks like"),
    ("[access]\nallow = []\n", "access.allow cannot be an empty list"),
    ("[access]\ntoken = \"short\"\n", "access.token cannot be what stands there; right would be 16 to 128 letters, digits"),
    ("[access]\ntoken = [\"0123456789 abcdef\"]\n", "access.token cannot be what stands there; right would be"),
    ("[access]\ntoken = []\n", "access.token cannot be an empty list"),
    ("[access]\npeers = [\"sm-nobody\"]\n", "access.peers cannot be \"sm-nobody\"; right would be ids of peers"),
    ("[listen]\ntcp = []\n", "listen.tcp cannot be an empty list; right would be addresses with ports"),
    ("[listen]\ntcp = [\"localhost\"]\n", "listen.tcp cannot be \"localhost\""),
    ("[listen]\ntcp = [4]\n", "listen.tcp cannot be a list of other things"),
    ("[metrics]\nlisten = true\n", "metrics.listen cannot be true; right would be an address with port"),
    ("[log]\nlevel = \"loud\"\n", "log.level cannot be \"loud\"; right would be \"error\""),
    ("[log]\nformat = \"xml\"\n", "log.format cannot be \"xml\"; right would be \"text\" or \"json\""),
    ("[identity]\nfile = \"\"\n", "identity.file cannot be \"\"; right would be a path"),
    ("[tls]\ncert_lifetime = \"1s\"\n", "tls.cert_lifetime cannot be \"1s\"; right would be a time from 10s"),
    ("[tls]\ncertificate = 3\n", "tls.certificate cannot be 3; right would be a path"),
    ("[tls]\ncertificate = \"fullchain.pem\"\n", "tls.certificate needs tls.key: the PEM file with the key of the certificate"),
    ("[tls]\nkey = \"privkey.pem\"\n", "tls.key needs tls.certificate"),
    ("[log\n", "relay.toml:1: this is not TOML"),
    ("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", "relay.toml:3: this is not TOML"),
];

#[test]
fn each_wrong_file_is_named_in_one_line() {
    for (text, sentence) in WRONG {
        let said = from_text(text).expect_err(text);
        assert!(said.contains(sentence), "{text:?} gave {said:?} and not {sentence:?}");
        assert!(!said.contains('\n'), "{said:?}");
    }
}

#[test]
fn wrong_variables_are_named_too() {
    let environment = |name: &str| (name == "SHADOWMESH_LIMITS_CLIENTS").then(|| "none".to_owned());
    let said = Settings::load(&Flags { dev: true, ..Flags::default() }, &environment).expect_err("wrong").sentence;
    assert_eq!(said, "SHADOWMESH_LIMITS_CLIENTS: limits.clients cannot be \"none\"; right would be a whole number from 1 to 1048576");
}

#[test]
fn dev_is_loopback_and_the_state_is_under_target() {
    let udp = "127.0.0.1:9".parse().ok();
    let settings = Settings::load(&Flags { dev: true, udp, ..Flags::default() }, &nothing).expect("good");
    assert_eq!(settings.udp, udp, "the flag");
    assert_eq!(settings.listen, ["127.0.0.1:8443".parse().expect("address")]);
    assert_eq!(settings.control_socket(), Path::new("target/dev/control.sock"));
}
