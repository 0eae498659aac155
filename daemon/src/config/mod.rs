//! The configuration of a peer: from flags, environment, file and defaults to one checked value.
//!
//! ```text
//! flags ─┐
//! env ───┼─▶ Layers (as written, with places) ─▶ Settings (understood) ─▶ `up`, `config show`, …
//! file ──┘
//! ```
pub(crate) mod keys;
mod members;
pub(crate) mod parse;
mod proxies;
mod raw;

pub(crate) use members::Listed;
pub(crate) use raw::{Given, Layers, Raw, Source};

use crate::{
    credentials,
    failure::Failure,
    userspace::{Expose, Forward},
};
use keys::Key;
use parse::{InterfaceMode, LogFormat, TransportChoice};
use shadowmesh_core::{
    config::{Mode, NodeConfig},
    id::PeerId,
    network::Network,
    session::Suite,
};
use shadowmesh_runtime_std::{credential, identity::KeyPlace, tunnel::Proxies};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Where a file is looked for when none is named.
pub(crate) const DEFAULT_FILE: &str = "/etc/shadowmesh/peer.toml";

/// Everything a peer is told, understood and checked.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub(crate) struct Settings {
    /// Where the identity is.
    pub(crate) identity: KeyPlace,
    /// The network, when a token or a token file was given (not when it is remembered).
    pub(crate) join: Option<JoinSource>,
    /// What others call this peer.
    pub(crate) name: String,
    /// `network.revoked`.
    pub(crate) revoked: Vec<PeerId>,
    /// `network.proxy`, or what other programs go by.
    pub(crate) proxies: Proxies,
    /// Why the proxy that other programs go by is none for us.
    pub(crate) unusable_proxy: Option<String>,
    /// `interface.mode`.
    pub(crate) interface_mode: InterfaceMode,
    /// `interface.name`.
    pub(crate) interface_name: String,
    /// `interface.address`.
    pub(crate) addresses: Vec<(IpAddr, u8)>,
    /// `interface.mtu`.
    pub(crate) mtu: u16,
    /// `interface.queues`.
    pub(crate) queues: u8,
    /// `dns.enabled`.
    pub(crate) dns: bool,
    /// `userspace.proxy`, and whether somebody asked for that one.
    pub(crate) proxy: (Option<SocketAddr>, bool),
    /// `userspace.forward`.
    pub(crate) forwards: Vec<Forward>,
    /// `userspace.expose`.
    pub(crate) exposed: Vec<Expose>,
    /// `p2p.transports`.
    pub(crate) transports: Vec<TransportChoice>,
    /// `p2p.listen_udp`.
    pub(crate) listen_udp: SocketAddr,
    /// `p2p.port_mapping`.
    pub(crate) port_mapping: bool,
    /// `p2p.listen_tcp`.
    pub(crate) listen_tcp: SocketAddr,
    /// `p2p.advertise`.
    pub(crate) advertise: Vec<SocketAddr>,
    /// `p2p.retry_interval`.
    pub(crate) retry_interval: Duration,
    /// `p2p.health_check_interval`.
    pub(crate) health_check_interval: Duration,
    /// `p2p.connect_timeout`.
    pub(crate) connect_timeout: Duration,
    /// `p2p.close_relay`.
    pub(crate) close_relay: bool,
    /// `p2p.relay_udp`.
    pub(crate) relay_udp: bool,
    /// `p2p.mode`.
    pub(crate) mode: Mode,
    /// `crypto.suites`.
    pub(crate) suites: Vec<Suite>,
    /// `crypto.rekey_interval`.
    pub(crate) rekey_interval: Duration,
    /// `tls.cert_lifetime`.
    pub(crate) cert_lifetime: Duration,
    /// `log.level`.
    pub(crate) log_level: String,
    /// `log.format`.
    pub(crate) log_format: LogFormat,
    /// `state.dir`.
    pub(crate) state_dir: PathBuf,
    /// `control.socket`.
    pub(crate) control_socket: PathBuf,
    /// `metrics.listen`; None: off.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Whether somebody asked for that metrics address: then a port in use is an error.
    pub(crate) metrics_asked: bool,
    /// `[[peer]]`.
    pub(crate) peers: Vec<Listed>,
    /// For `config show`.
    pub(crate) shown: Vec<Shown>,
}

/// The keys that a running peer takes over, beside `[[peer]]`.
pub(crate) const TAKEN_OVER: [&str; 6] =
    ["log.level", "network.revoked", "p2p.close_relay", "p2p.connect_timeout", "p2p.health_check_interval", "p2p.retry_interval"];

impl Settings {
    /// The keys that differ in `other` and that only a start takes up.
    pub(crate) fn fixed_that_differ(&self, other: &Self) -> Vec<&'static str> {
        let text = |settings: &Self, key: &str| settings.shown.iter().find(|shown| shown.key == key).map(|shown| shown.text.clone());
        let names = keys::KEYS.iter().map(|key| key.name).filter(|name| !TAKEN_OVER.contains(name));
        let hidden_differs = |name: &str| name == "network.proxy" && self.proxies != other.proxies;
        names.filter(|name| text(self, name) != text(other, name) || hidden_differs(name)).collect()
    }
}

/// Where the join token was given.
#[derive(Debug)]
pub(crate) enum JoinSource {
    /// The token itself, checked.
    Token(Box<Network>, Secret),
    /// A file that holds it.
    File(PathBuf, Source),
    /// The service manager has it, and hands it in.
    Credential(PathBuf),
}

/// Text that no log and no `{:?}` may show.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// One key for `config show --effective`.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The key.
    pub(crate) key: &'static str,
    /// Its value as it would stand in a file.
    pub(crate) text: String,
    /// Where it comes from.
    pub(crate) source: String,
}

/// This process's environment.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Puts the layers together. A file that was named must exist; the usual one may be missing.
pub(crate) fn layers(file: Option<&Path>, flags: Vec<Given>) -> Result<Layers, Failure> {
    let layer = match file {
        Some(path) => raw::read_file(path)?.ok_or_else(|| {
            Failure::usage(format!("{}: there is no such file; give an existing TOML file with --config", path.display()))
        })?,
        None => raw::read_file(Path::new(DEFAULT_FILE))?.unwrap_or_default(),
    };
    Ok(Layers { file: layer, ..without_file(flags) })
}

/// Flags and environment only.
pub(crate) fn without_file(flags: Vec<Given>) -> Layers {
    let variables = environment();
    let credentials = credential::directory(std::env::var_os(credential::DIRECTORY));
    Layers { flags, variables: raw::environment(&variables), customary: raw::Customary::of(&variables), credentials, ..Layers::default() }
}

/// The layers of one file alone, for `config check`.
pub(crate) fn file_alone(path: &Path) -> Result<Layers, Failure> {
    let file = raw::read_file(path)?
        .ok_or_else(|| Failure::usage(format!("{}: there is no such file; name an existing TOML file", path.display())))?;
    Ok(Layers { file, ..Layers::default() })
}

/// The layers of one file's text alone; `path` is for messages.
pub(crate) fn parse_text(path: &str, text: &str) -> Result<Layers, Failure> {
    Ok(Layers { file: raw::parse_text(path, text)?, ..Layers::default() })
}

/// Where the running peer listens for commands: per layer the socket itself, or `control.sock` in the state directory.
pub(crate) fn control_socket(layers: &Layers) -> Result<(PathBuf, String), Failure> {
    for layer in layers.in_order() {
        let find = |name: &str| layer.iter().find(|given| given.key == name);
        if let Some(given) = find("control.socket") {
            let path = parse::path(&given.raw).map_err(|why| Failure::usage(format!("{}: control.socket: {why}", given.source)))?;
            return Ok((path, given.source.to_string()));
        }
        if let Some(given) = find("state.dir") {
            let dir = parse::path(&given.raw).map_err(|why| Failure::usage(format!("{}: state.dir: {why}", given.source)))?;
            return Ok((dir.join("control.sock"), format!("{} (with state.dir)", given.source)));
        }
    }
    Ok((PathBuf::from(key("control.socket").default), Source::Default.to_string()))
}

fn key(name: &str) -> &'static Key {
    keys::find(name).expect("every key that the code names is in the table")
}

/// Takes values out of the layers and writes down where each came from.
struct Taker<'a> {
    layers: &'a Layers,
    shown: Vec<Shown>,
}

impl Taker<'_> {
    /// The value of a key that may be unset.
    fn optional<T>(&mut self, name: &str, parse: impl Fn(&Raw) -> Result<T, String>) -> Result<Option<(T, Source)>, Failure> {
        let key = key(name);
        let taken = self.layers.take(key, parse)?;
        if let Some((_, raw, source)) = &taken {
            let text = match key.name {
                "network.join" => "\"smesh1:(hidden)\"".to_owned(),
                "network.proxy" => proxies::shown(raw),
                _ => as_toml(key, raw),
            };
            self.show(key.name, text, source.to_string());
        }
        Ok(taken.map(|(value, _, source)| (value, source)))
    }

    /// The value of a key that has a default.
    fn value<T>(&mut self, name: &str, parse: impl Fn(&Raw) -> Result<T, String>) -> Result<T, Failure> {
        if let Some((value, _)) = self.optional(name, &parse)? {
            return Ok(value);
        }
        let key = key(name);
        let raw = default_raw(key);
        self.show(key.name, as_toml(key, &raw), Source::Default.to_string());
        Ok(parse(&raw).expect("the defaults of the table are right"))
    }

    /// The credential of this name, shown as the value of a key, unless a layer has one of these keys.
    fn credential(&mut self, shown: &str, keys: &[&str], name: &str) -> Option<PathBuf> {
        let mut given = self.layers.in_order().into_iter().flatten();
        if given.any(|given| keys.contains(&given.key)) {
            return None;
        }
        let path = credential::find(self.layers.credentials.as_deref(), name)?;
        self.show(key(shown).name, format!("{:?}", path.display().to_string()), format!("${}", credential::DIRECTORY));
        Some(path)
    }

    fn show(&mut self, key: &'static str, text: String, source: String) {
        self.shown.push(Shown { key, text, source });
    }
}

/// The default of the table as a value.
fn default_raw(key: &Key) -> Raw {
    let default = key.default;
    if default == "true" || default == "false" {
        return Raw::Bool(default == "true");
    }
    if let Ok(number) = default.parse() {
        return Raw::Integer(number);
    }
    match default.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) if !inner.contains(':') => {
            Raw::List(inner.split(',').map(|item| item.trim().trim_matches('"').to_owned()).filter(|item| !item.is_empty()).collect())
        }
        _ => Raw::Text(default.to_owned()),
    }
}

/// A value as it would stand in the file: text from a flag becomes the list, number or boolean that it means.
fn as_toml(key: &Key, raw: &Raw) -> String {
    match (raw, default_raw(key)) {
        (Raw::Text(_), Raw::List(_)) => parse::list(raw).map_or_else(|_| raw.to_string(), |list| Raw::List(list).to_string()),
        (Raw::Text(text), Raw::Bool(_)) => text.clone(),
        (Raw::Text(text), Raw::Integer(_)) if text.parse::<i64>().is_ok() => text.clone(),
        _ => raw.to_string(),
    }
}

/// Understands the layers.
pub(crate) fn settings(layers: &Layers) -> Result<Settings, Failure> {
    let mut take = Taker { layers, shown: Vec::new() };
    let identity = identity(&mut take)?;
    let join = join(&mut take)?;
    let name = name(&mut take)?;
    let revoked = take.value("network.revoked", parse::peer_ids)?;
    let (proxies, unusable_proxy) = proxies::understand(&mut take)?;
    let interface_mode = take.value("interface.mode", parse::interface_mode)?;
    let interface_name = take.value("interface.name", parse::interface_name)?;
    let addresses = take.value("interface.address", parse::addresses)?;
    let (mtu, queues) = sizes(&mut take)?;
    let dns = take.value("dns.enabled", parse::boolean)?;
    let (proxy, forwards, exposed) = userspace(&mut take)?;
    no_ports(layers, interface_mode)?;
    let transports = take.value("p2p.transports", parse::transports)?;
    let [listen_udp, listen_tcp] = [take.value("p2p.listen_udp", parse::socket)?, take.value("p2p.listen_tcp", parse::socket)?];
    let port_mapping = take.value("p2p.port_mapping", parse::boolean)?;
    let advertise = take.value("p2p.advertise", parse::advertised)?;
    let retry_interval = take.value("p2p.retry_interval", parse::duration(millis(100), hours(24)))?;
    let health_check_interval = take.value("p2p.health_check_interval", parse::duration(millis(100), hours(1)))?;
    let connect_timeout = take.value("p2p.connect_timeout", parse::duration(millis(100), millis(60_000)))?;
    let [close_relay, relay_udp] = [take.value("p2p.close_relay", parse::boolean)?, take.value("p2p.relay_udp", parse::boolean)?];
    let mode = take.value("p2p.mode", parse::mode)?;
    let suites = take.value("crypto.suites", parse::suites)?;
    let (rekey_interval, cert_lifetime) = lifetimes(&mut take)?;
    let log_level = take.value("log.level", parse::log_level)?;
    let log_format = take.value("log.format", parse::log_format)?;
    let state_dir = take.value("state.dir", parse::path)?;
    let control_socket = shown_control_socket(&mut take)?;
    let (metrics_listen, metrics_asked) = metrics(&mut take)?;
    Ok(Settings {
        identity: identity.within(&state_dir),
        join,
        name,
        revoked,
        proxies,
        unusable_proxy,
        interface_mode,
        interface_name,
        addresses,
        mtu,
        queues,
        dns,
        proxy,
        forwards,
        exposed,
        transports,
        listen_tcp,
        listen_udp,
        port_mapping,
        advertise,
        retry_interval,
        health_check_interval,
        connect_timeout,
        close_relay,
        relay_udp,
        mode,
        suites,
        rekey_interval,
        cert_lifetime,
        log_level,
        log_format,
        state_dir,
        control_socket,
        metrics_listen,
        metrics_asked,
        peers: members::understand(&layers.file)?,
        shown: take.shown,
    })
}

/// Those of session keys and of certificates.
fn lifetimes(take: &mut Taker<'_>) -> Result<(Duration, Duration), Failure> {
    let rekey_interval = take.value("crypto.rekey_interval", parse::duration(millis(2_000), NodeConfig::REKEY_INTERVAL))?;
    Ok((rekey_interval, take.value("tls.cert_lifetime", parse::duration(millis(10_000), hours(24 * 366)))?))
}

/// How large a packet of the interface may be, and how many queues it has.
fn sizes(take: &mut Taker<'_>) -> Result<(u16, u8), Failure> {
    Ok((take.value("interface.mtu", parse::mtu)?, take.value("interface.queues", parse::queues)?))
}

/// Where the running peer is asked.
fn shown_control_socket(take: &mut Taker<'_>) -> Result<PathBuf, Failure> {
    let (control_socket, source) = control_socket(take.layers)?;
    take.layers.take(key("control.socket"), parse::path)?;
    take.show("control.socket", format!("{:?}", control_socket.display().to_string()), source);
    Ok(control_socket)
}

/// Where the metrics are, and whether somebody asked for that.
fn metrics(take: &mut Taker<'_>) -> Result<(Option<SocketAddr>, bool), Failure> {
    let asked = take.layers.take(key("metrics.listen"), parse::socket_or_off)?.is_some();
    Ok((take.value("metrics.listen", parse::socket_or_off)?, asked))
}

/// Where the proxy listens, and whether somebody asked for that; ports of peers here, and ours there.
type Userspace = ((Option<SocketAddr>, bool), Vec<Forward>, Vec<Expose>);

fn userspace(take: &mut Taker<'_>) -> Result<Userspace, Failure> {
    let asked = take.layers.take(key("userspace.proxy"), parse::proxy)?.is_some();
    let proxy = (take.value("userspace.proxy", parse::proxy)?, asked);
    Ok((proxy, take.value("userspace.forward", parse::forwards)?, take.value("userspace.expose", parse::exposed)?))
}

/// An interface of the kernel has its own ports: what is said of them for userspace mode alone is a mistake.
fn no_ports(layers: &Layers, mode: InterfaceMode) -> Result<(), Failure> {
    if mode == InterfaceMode::Userspace {
        return Ok(());
    }
    for name in ["userspace.forward", "userspace.expose"] {
        match layers.take(key(name), parse::list)? {
            Some((list, _, source)) if !list.is_empty() => {
                let mode = mode.name();
                return Err(Failure::usage(format!("{source}: {name}: is for interface.mode = \"userspace\", and the mode is {mode:?}")));
            }
            _ => {}
        }
    }
    Ok(())
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// The identity: the file that is named, else what the service manager handed in, else the usual file.
fn identity(take: &mut Taker<'_>) -> Result<KeyPlace, Failure> {
    match take.credential("identity.file", &["identity.file"], credential::IDENTITY) {
        Some(path) => Ok(KeyPlace::Credential(path)),
        None => Ok(KeyPlace::File(take.value("identity.file", parse::path)?)),
    }
}

/// The join token: `join` and `join_file` exclude each other in one layer; a higher layer's one hides a lower layer's other.
fn join(take: &mut Taker<'_>) -> Result<Option<JoinSource>, Failure> {
    if let Some(path) = take.credential("network.join_file", &["network.join", "network.join_file"], credential::JOIN_TOKEN) {
        return Ok(Some(JoinSource::Credential(path)));
    }
    let layers = take.layers;
    for layer in layers.in_order() {
        let given: Vec<&Given> = layer.iter().filter(|given| given.key == "network.join" || given.key == "network.join_file").collect();
        if let [first, second, ..] = given.as_slice() {
            let line = if first.key == "network.join" { second } else { first };
            return Err(Failure::usage(format!("{}: network.join_file: stands beside network.join; keep one of the two", line.source)));
        }
    }
    let rank = |name: &str| layers.in_order().iter().position(|layer| layer.iter().any(|given| given.key == name));
    let (token_rank, file_rank) = (rank("network.join"), rank("network.join_file"));
    let token = layers.take(key("network.join"), |raw| {
        let text = parse::text(raw)?;
        credentials::network(&text).map(|network| (Box::new(network), Secret(text)))
    })?;
    layers.take(key("network.join_file"), parse::path)?;
    match (token_rank, file_rank) {
        (Some(token_rank), file) if file.is_none_or(|file| token_rank < file) => {
            take.optional("network.join", |_| Ok(()))?;
            Ok(token.map(|((network, text), _, _)| JoinSource::Token(network, text)))
        }
        (_, Some(_)) => Ok(take.optional("network.join_file", parse::path)?.map(|(path, source)| JoinSource::File(path, source))),
        (_, None) => Ok(None),
    }
}

/// The name that was given, or the host's.
fn name(take: &mut Taker<'_>) -> Result<String, Failure> {
    if let Some((name, _)) = take.optional("network.name", parse::peer_name)? {
        return Ok(name);
    }
    let host = hostname::get().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let mut name: String = host.chars().filter(|c| parse::name_char(*c)).take(63).collect();
    if name.is_empty() {
        "peer".clone_into(&mut name);
    }
    take.show("network.name", format!("{name:?}"), "default (host name)".to_owned());
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Layers {
        Layers { file: raw::parse_text("peer.toml", text).expect("valid in this test"), ..Layers::default() }
    }

    fn flag(key: &'static str, text: &str) -> Given {
        Given { key, raw: Raw::Text(text.to_owned()), source: Source::Flag("--flag") }
    }

    #[test]
    fn every_default_is_understood() {
        let settings = settings(&Layers::default()).expect("defaults are right");
        assert_eq!(settings.retry_interval, Duration::from_mins(1));
        assert_eq!(settings.health_check_interval, Duration::from_secs(30));
        assert_eq!(settings.connect_timeout, Duration::from_secs(5));
        assert_eq!(settings.cert_lifetime, Duration::from_hours(24));
        assert_eq!(settings.transports, [TransportChoice::Udp, TransportChoice::Wss]);
        assert_eq!(settings.suites, [Suite::Aes256Gcm, Suite::ChaCha20Poly1305]);
        assert!(!settings.close_relay && settings.relay_udp);
        assert_eq!(settings.identity, KeyPlace::File("/var/lib/shadowmesh/identity.key".into()));
        let shown: Vec<&str> = settings.shown.iter().map(|shown| shown.key).collect();
        for key in &keys::KEYS {
            assert!(shown.contains(&key.name) || key.default.is_empty(), "{} is not shown", key.name);
        }
    }

    #[test]
    fn a_flag_hides_a_variable_hides_the_file() {
        let mut layers = file("[interface]\nmtu = 1300\nname = \"m1\"\n[p2p]\nconnect_timeout = \"2s\"");
        layers.variables = raw::environment(&BTreeMap::from([
            ("SHADOWMESH_INTERFACE_NAME".to_owned(), "m2".to_owned()),
            ("SHADOWMESH_INTERFACE_MTU".to_owned(), "1400".to_owned()),
        ]));
        layers.flags = vec![flag("interface.name", "m3")];
        let settings = settings(&layers).expect("all right");
        assert_eq!(settings.interface_name, "m3");
        assert_eq!(settings.mtu, 1400);
        assert_eq!(settings.connect_timeout, Duration::from_secs(2));
        let source = |key: &str| settings.shown.iter().find(|shown| shown.key == key).map(|shown| shown.source.clone());
        assert_eq!(source("interface.name").as_deref(), Some("--flag"));
        assert_eq!(source("interface.mtu").as_deref(), Some("SHADOWMESH_INTERFACE_MTU"));
        assert_eq!(source("p2p.connect_timeout").as_deref(), Some("peer.toml:5"));
        assert_eq!(source("p2p.mode").as_deref(), Some("default"));
    }

    #[test]
    fn what_a_new_start_would_take_up_is_named() {
        let before = settings(&file("[interface]\nmtu = 1300\n[log]\nlevel = \"info\"")).expect("right");
        assert!(before.fixed_that_differ(&before).is_empty());
        let id = PeerId([7; 32]);
        let text = format!(
            "[interface]\nmtu = 1400\n[log]\nlevel = \"debug\"\n[p2p]\nretry_interval = \"9s\"\nmode = \"off\"\n[network]\nrevoked = [\"{id}\"]\n"
        );
        let after = settings(&file(&text)).expect("right");
        assert_eq!((before.fixed_that_differ(&after), after.revoked), (vec!["interface.mtu", "p2p.mode"], vec![id]));
    }

    #[test]
    fn the_documentation_says_what_a_running_peer_takes_over() {
        let docs = include_str!("../../../docs/configuration.md");
        let list = docs.lines().find_map(|line| line.strip_prefix("Taken over by a running peer: ")).expect("a line with them");
        let told: Vec<&str> = list.trim_end_matches('.').split(", ").map(|key| key.trim_matches('`')).collect();
        assert_eq!(told, [&["[[peer]]"][..], &TAKEN_OVER].concat());
        assert!(TAKEN_OVER.iter().all(|name| keys::KEYS.iter().any(|key| key.name == *name)), "keys that there are");
    }

    #[test]
    fn a_hidden_mistake_is_still_told() {
        let mut layers = file("[interface]\nmtu = 12");
        layers.flags = vec![flag("interface.mtu", "1400")];
        let failure = settings(&layers).expect_err("the file is wrong");
        assert!(failure.sentence.starts_with("peer.toml:2: interface.mtu: 12 is not an MTU"), "{failure}");
    }

    #[test]
    fn the_state_directory_takes_the_control_socket_along_within_its_layer() {
        let mut layers = file("[control]\nsocket = \"/a.sock\"");
        assert_eq!(control_socket(&layers).expect("right").0, Path::new("/a.sock"));
        layers.flags = vec![flag("state.dir", "/s")];
        assert_eq!(control_socket(&layers).expect("right").0, Path::new("/s/control.sock"));
        layers.flags.push(flag("control.socket", "/c.sock"));
        assert_eq!(control_socket(&layers).expect("right").0, Path::new("/c.sock"));
    }

    #[test]
    fn empty_transports_mean_relay_only() {
        let settings = settings(&file("[p2p]\ntransports = []")).expect("right");
        assert!(settings.transports.is_empty());
    }
}
