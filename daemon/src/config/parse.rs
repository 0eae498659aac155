//! Understands single values. Each function answers a wrong value with what would be right.
use super::raw::Raw;
use crate::{
    credentials,
    userspace::{Expose, Forward, host_port},
};
use shadowmesh_core::{
    config::{ENDPOINTS_MAX, Mode},
    id::PeerId,
    session::Suite,
};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

type Parsed<T> = Result<T, String>;

/// More addresses than this are a mistake; the parameters of the handshake hold sixteen.
const MAX_ADDRESSES: usize = 15;
/// CANDIDATES carries ten (protocol 6.3).
const MAX_ADVERTISED: usize = 10;

/// The kind of network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterfaceMode {
    /// IP packets.
    Tun,
    /// Ethernet frames.
    Tap,
    /// No interface: a TCP/IP stack of this process.
    Userspace,
}

impl InterfaceMode {
    /// Its name, as people give it and as reports tell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tun => "tun",
            Self::Tap => "tap",
            Self::Userspace => "userspace",
        }
    }
}

/// A direct transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransportChoice {
    /// Accepted for files that will want it; without effect so far.
    Udp,
    /// WebSocket over TLS 1.3.
    Wss,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Any text but the empty one.
pub(crate) fn text(raw: &Raw) -> Parsed<String> {
    match raw {
        Raw::Text(text) if !text.trim().is_empty() => Ok(text.clone()),
        Raw::Text(_) => Err("is empty; leave it out or give it a value".to_owned()),
        other => Err(format!("{other} is not text; put it in quotes")),
    }
}

/// A path.
pub(crate) fn path(raw: &Raw) -> Parsed<PathBuf> {
    text(raw).map(PathBuf::from)
}

/// `true` or `false`.
pub(crate) fn boolean(raw: &Raw) -> Parsed<bool> {
    match raw {
        Raw::Bool(value) => Ok(*value),
        Raw::Text(text) if text == "true" => Ok(true),
        Raw::Text(text) if text == "false" => Ok(false),
        other => Err(format!("{other} is neither true nor false")),
    }
}

/// A duration between two bounds.
pub(crate) fn duration(least: Duration, most: Duration) -> impl Fn(&Raw) -> Parsed<Duration> {
    move |raw| {
        let wrong = || format!("{raw} is not a duration; write it like \"500ms\", \"30s\" or \"2m\"");
        let Raw::Text(text) = raw else { return Err(wrong()) };
        let value = humantime::parse_duration(text).map_err(|_| wrong())?;
        if value < least || value > most {
            let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
            return Err(format!("{raw} is out of range; it is at least {least} and at most {most}"));
        }
        Ok(value)
    }
}

/// An address with a port.
pub(crate) fn socket(raw: &Raw) -> Parsed<SocketAddr> {
    text(raw)?.parse().map_err(|_| format!("{raw} is not an address with a port; write it like \"0.0.0.0:0\" or \"[::]:4433\""))
}

/// An address with a port, or `off`.
pub(crate) fn socket_or_off(raw: &Raw) -> Parsed<Option<SocketAddr>> {
    match raw {
        Raw::Text(text) if text == "off" => Ok(None),
        other => socket(other)
            .map(Some)
            .map_err(|_| format!("{raw} is not an address with a port; write it like \"127.0.0.1:9461\", or \"off\"")),
    }
}

/// A name that others will see.
pub(crate) fn peer_name(raw: &Raw) -> Parsed<String> {
    let name = text(raw)?;
    if name.len() > 63 || !name.chars().all(name_char) {
        return Err(format!("{raw} is not a name; it has at most 63 letters, digits, dots, dashes and underscores"));
    }
    Ok(name)
}

/// Whether a character may stand in a name.
pub(crate) fn name_char(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_')
}

/// A name that the kernel takes for an interface.
pub(crate) fn interface_name(raw: &Raw) -> Parsed<String> {
    let name = text(raw)?;
    let fits = name.len() <= 15 && name != "." && name != "..";
    if !fits || !name.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%')) {
        return Err(format!("{raw} is not an interface name; it has at most 15 letters and digits, like \"mesh0\""));
    }
    Ok(name)
}

/// `tun`, `tap` or `userspace`.
pub(crate) fn interface_mode(raw: &Raw) -> Parsed<InterfaceMode> {
    let known = [InterfaceMode::Tun, InterfaceMode::Tap, InterfaceMode::Userspace].map(|mode| (mode.name(), mode));
    one(raw, &known, "an interface mode")
}

/// Where the proxy listens: the loopback interface alone, since it asks nobody who they are.
pub(crate) fn proxy(raw: &Raw) -> Parsed<Option<SocketAddr>> {
    match socket_or_off(raw)? {
        Some(address) if !address.ip().is_loopback() => Err(format!(
            "{raw} is not on the loopback interface, and the proxy asks nobody who they are; choose one like \"127.0.0.1:1080\""
        )),
        address => Ok(address),
    }
}

/// Ports of peers under local addresses, `8080=server:80` or `127.0.0.1:8080=server:80`.
pub(crate) fn forwards(raw: &Raw) -> Parsed<Vec<Forward>> {
    let forward = |item: &String| {
        let (local, target) = item.split_once('=')?;
        Some(Forward { local: local_address(local)?, target: host_port(target)? })
    };
    list(raw)?
        .iter()
        .map(|item| forward(item).ok_or_else(|| format!("{item:?} is not LOCAL=PEER:PORT; write it like \"8080=server:80\"")))
        .collect()
}

/// Local addresses under ports of this peer, `8080` or `80=127.0.0.1:8080`.
pub(crate) fn exposed(raw: &Raw) -> Parsed<Vec<Expose>> {
    let expose = |item: &String| {
        let (port, local) = item.split_once('=').unwrap_or((item, item));
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(Expose { port, local: local_address(local).filter(|local| local.port() != 0)? })
    };
    let mut found: Vec<Expose> = Vec::new();
    for item in list(raw)? {
        let expose =
            expose(&item).ok_or_else(|| format!("{item:?} is not PORT or PORT=ADDRESS:PORT; write it like \"80=127.0.0.1:8080\""))?;
        if found.iter().any(|known| known.port == expose.port) {
            return Err(format!("port {} is there twice", expose.port));
        }
        found.push(expose);
    }
    Ok(found)
}

/// A port of the loopback interface, or an address with a port.
fn local_address(text: &str) -> Option<SocketAddr> {
    let port = text.parse::<u16>().ok().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    port.or_else(|| text.parse().ok())
}

/// A number of bytes, or `auto` (1280, which every path carries).
pub(crate) fn mtu(raw: &Raw) -> Parsed<u16> {
    let number = match raw {
        Raw::Text(text) if text == "auto" => return Ok(1280),
        Raw::Integer(number) => Some(*number),
        Raw::Text(text) => text.parse().ok(),
        Raw::List(_) | Raw::Bool(_) => None,
    };
    number
        .filter(|number| (1280..=9000).contains(number))
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| format!("{raw} is not an MTU; it is a number from 1280 to 9000, or \"auto\""))
}

/// Queues that an operator may want: the kernel has at most 256 of a device, and one more is written to.
const QUEUES_MAX: i64 = 16;

/// A number of threads, or `auto`: half of the processors, 8 at most.
pub(crate) fn queues(raw: &Raw) -> Parsed<u8> {
    let number = match raw {
        Raw::Text(text) if text == "auto" => {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            return Ok((processors / 2).clamp(1, 8) as u8);
        }
        Raw::Integer(number) => Some(*number),
        Raw::Text(text) => text.parse().ok(),
        Raw::List(_) | Raw::Bool(_) => None,
    };
    number
        .filter(|number| (1..=QUEUES_MAX).contains(number))
        .and_then(|number| u8::try_from(number).ok())
        .ok_or_else(|| format!("{raw} is no number of queues; it is a number from 1 to {QUEUES_MAX}, or \"auto\""))
}

/// An address and the length of its prefix, `10.77.0.2/24`.
pub(crate) fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (length <= most).then_some((address, length))
}

/// Ids of peers.
pub(crate) fn peer_ids(raw: &Raw) -> Parsed<Vec<PeerId>> {
    let mut found = Vec::new();
    for item in list(raw)? {
        let id = credentials::peer_id(&item)?;
        if found.contains(&id) {
            return Err(format!("{item:?} is there twice"));
        }
        found.push(id);
    }
    Ok(found)
}

/// Addresses with prefix lengths.
pub(crate) fn addresses(raw: &Raw) -> Parsed<Vec<(IpAddr, u8)>> {
    let list = list(raw)?;
    if list.len() > MAX_ADDRESSES {
        return Err(format!("holds {} addresses; at most {MAX_ADDRESSES} are possible", list.len()));
    }
    let mut found = Vec::with_capacity(list.len());
    for item in &list {
        let (address, length) =
            cidr(item).ok_or_else(|| format!("{item:?} is not an address with a prefix length; write it like \"10.77.0.2/24\""))?;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(format!("{item:?} cannot be the address of a peer; choose one like \"10.77.0.2/24\""));
        }
        if found.iter().any(|(known, _)| *known == address) {
            return Err(format!("{item:?} is there twice"));
        }
        found.push((address, length));
    }
    Ok(found)
}

/// Addresses with ports at which one peer is asked for by UDP.
pub(crate) fn endpoints(raw: &Raw) -> Parsed<Vec<SocketAddr>> {
    let list = list(raw)?;
    if list.len() > ENDPOINTS_MAX {
        return Err(format!("holds {} addresses; at most {ENDPOINTS_MAX} are possible", list.len()));
    }
    let mut found = Vec::with_capacity(list.len());
    for item in &list {
        let address: SocketAddr =
            item.parse().map_err(|_| format!("{item:?} is not an address with a port; write it like \"203.0.113.5:51820\""))?;
        let ip = address.ip().to_canonical();
        let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || is_broadcast {
            return Err(format!("{item:?} is not where another machine can be reached; write it like \"203.0.113.5:51820\""));
        }
        let address = SocketAddr::new(ip, address.port());
        if found.contains(&address) {
            return Err(format!("{item:?} is there twice"));
        }
        found.push(address);
    }
    Ok(found)
}

/// Addresses with ports that peers can dial.
pub(crate) fn advertised(raw: &Raw) -> Parsed<Vec<SocketAddr>> {
    let list = list(raw)?;
    if list.len() > MAX_ADVERTISED {
        return Err(format!("holds {} addresses; at most {MAX_ADVERTISED} can be announced", list.len()));
    }
    list.iter()
        .map(|item| {
            item.parse::<SocketAddr>()
                .ok()
                .filter(|address| address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast())
                .ok_or_else(|| format!("{item:?} is not an address that peers can dial; write it like \"198.51.100.4:40112\""))
        })
        .collect()
}

/// Direct transports in order of preference.
pub(crate) fn transports(raw: &Raw) -> Parsed<Vec<TransportChoice>> {
    choices(raw, &[("udp", TransportChoice::Udp), ("wss", TransportChoice::Wss)], "a direct transport")
}

/// Data suites in order of preference.
pub(crate) fn suites(raw: &Raw) -> Parsed<Vec<Suite>> {
    let known = [("aes-256-gcm", Suite::Aes256Gcm), ("chacha20-poly1305", Suite::ChaCha20Poly1305)];
    let suites = choices(raw, &known, "a data suite")?;
    if suites.is_empty() {
        return Err("is empty; name at least one of \"aes-256-gcm\", \"chacha20-poly1305\"".to_owned());
    }
    Ok(suites)
}

/// How frames survive a change of path.
pub(crate) fn mode(raw: &Raw) -> Parsed<Mode> {
    let known =
        [("switch-lossless", Mode::SwitchLossless), ("reliable", Mode::Reliable), ("redundant", Mode::Redundant), ("off", Mode::Off)];
    one(raw, &known, "a mode")
}

/// A log level or filters by module.
pub(crate) fn log_level(raw: &Raw) -> Parsed<String> {
    let text = text(raw)?;
    crate::logs::filter(&text).map(|_| text).map_err(|_| {
        format!("{raw} is not a log level; it is error, warn, info, debug, trace, or filters like \"warn,shadowmesh_core=debug\"")
    })
}

/// `text` or `json`.
pub(crate) fn log_format(raw: &Raw) -> Parsed<LogFormat> {
    one(raw, &[("text", LogFormat::Text), ("json", LogFormat::Json)], "a log format")
}

/// A list of strings: an array in the file, comma-separated in flags and variables.
pub(crate) fn list(raw: &Raw) -> Parsed<Vec<String>> {
    match raw {
        Raw::List(list) => Ok(list.clone()),
        Raw::Text(text) => Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()),
        other => Err(format!("{other} is not a list; write it like [\"first\", \"second\"]")),
    }
}

fn one<T: Copy>(raw: &Raw, known: &[(&str, T)], what: &str) -> Parsed<T> {
    let text = text(raw)?;
    known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| not_among(&text, known, what))
}

fn choices<T: Copy + PartialEq>(raw: &Raw, known: &[(&str, T)], what: &str) -> Parsed<Vec<T>> {
    let mut found = Vec::new();
    for item in list(raw)? {
        let value = known.iter().find(|(name, _)| *name == item).map(|(_, value)| *value).ok_or_else(|| not_among(&item, known, what))?;
        if found.contains(&value) {
            return Err(format!("{item:?} is there twice"));
        }
        found.push(value);
    }
    Ok(found)
}

fn not_among<T>(text: &str, known: &[(&str, T)], what: &str) -> String {
    let names: Vec<String> = known.iter().map(|(name, _)| format!("{name:?}")).collect();
    format!("{text:?} is not {what}; known are {}", names.join(", "))
}
