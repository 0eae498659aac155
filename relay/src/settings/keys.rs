//! The table of keys: name, variable, what a value must be, and where it goes.
use super::Settings;
use crate::Failure;
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use shadowmesh_core::{id::PeerId, network::AccessKey};
use std::path::PathBuf;

/// One key of relay.toml.
pub(super) struct Key {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    /// The variable, where it is not `SHADOWMESH_SECTION_KEY`.
    variable: Option<&'static str>,
    set: Set,
}

/// What a value must be, and where it goes.
enum Set {
    Number { least: u64, most: u64, set: fn(&mut Settings, u64) },
    Duration { least: Duration, most: Duration, set: fn(&mut Settings, Duration) },
    Word { words: &'static [&'static str], set: fn(&mut Settings, &str) },
    Address(fn(&mut Settings, SocketAddr)),
    Addresses(fn(&mut Settings, Vec<SocketAddr>)),
    Networks(fn(&mut Settings, Vec<(IpAddr, u8)>)),
    Peers(fn(&mut Settings, Vec<PeerId>)),
    Tokens(fn(&mut Settings, Vec<AccessKey>)),
    Path(fn(&mut Settings, PathBuf)),
    Filter(fn(&mut Settings, &str)),
}

/// A value as file or environment give it.
pub(super) enum Given {
    Text(String),
    Number(i128),
    List(Vec<String>),
    /// Of a type that no key takes; the word names it.
    Other(&'static str),
}

const fn key(section: &'static str, name: &'static str, set: Set) -> Key {
    Key { section, name, variable: None, set }
}

const fn number(name: &'static str, least: u64, most: u64, set: fn(&mut Settings, u64)) -> Key {
    key("limits", name, Set::Number { least, most, set })
}

const fn span(section: &'static str, name: &'static str, least: Duration, most: Duration, set: fn(&mut Settings, Duration)) -> Key {
    key(section, name, Set::Duration { least, most, set })
}

/// Fewer could be tried out.
const TOKEN_LEN_MIN: usize = 16;
const TOKEN_LEN_MAX: usize = 128;
const SECOND: Duration = Duration::from_secs(1);
const GIB: u64 = 1 << 30;

/// Every key.
pub(super) const KEYS: &[Key] = &[
    key("identity", "file", Set::Path(|s, path| s.identity = Some(path))),
    key("state", "dir", Set::Path(|s, path| s.state_dir = path)),
    key("listen", "tcp", Set::Addresses(|s, list| s.listen = list)),
    key("listen", "udp", Set::Address(|s, address| s.udp = Some(address))),
    span("tls", "cert_lifetime", Duration::from_secs(10), Duration::from_hours(24 * 365), |s, time| s.cert_lifetime = time),
    key("tls", "certificate", Set::Path(|s, path| s.certificate = Some(path))),
    key("tls", "key", Set::Path(|s, path| s.certificate_key = Some(path))),
    Key { variable: Some("SHADOWMESH_LOG"), ..key("log", "level", Set::Filter(|s, filter| filter.clone_into(&mut s.log_level))) },
    key("log", "format", Set::Word { words: &["text", "json"], set: |s, word| s.log_json = word == "json" }),
    span("drain", "timeout", Duration::ZERO, Duration::from_hours(1), |s, time| s.drain_timeout = time),
    key("metrics", "listen", Set::Address(|s, address| s.metrics = Some(address))),
    key("access", "allow", Set::Networks(|s, list| s.access.allow = list)),
    key("access", "deny", Set::Networks(|s, list| s.access.deny = list)),
    key("access", "token", Set::Tokens(|s, list| s.access.keys = list)),
    key("access", "trusted_proxies", Set::Networks(|s, list| s.trusted_proxies = list)),
    key("access", "peers", Set::Peers(|s, list| s.access.peers = list)),
    span("limits", "keepalive", SECOND, Duration::from_hours(1), |s, time| s.keepalive = time),
    span("limits", "preauth_time", Duration::from_millis(100), Duration::from_mins(5), |s, time| s.limits.preauth_time = time),
    span("limits", "stall_time", Duration::from_millis(100), Duration::from_mins(5), |s, time| s.limits.stall_time = time),
    span("limits", "refuse_time", SECOND, Duration::from_hours(24), |s, time| s.limits.refuse_time = time),
    // A peer's RESP is about 9 KB and travels as one frame; a record's length has 16 bits.
    number("frame_bytes", 9_216, 60_000, |s, n| s.limits.frame_bytes = size(n)),
    number("control_bytes", 1_024, 60_000, |s, n| s.limits.control_bytes = size(n)),
    // HELLO and RESPONSE together are about 10 KB.
    number("preauth_bytes", 12_288, 1 << 20, |s, n| s.limits.preauth_bytes = size(n)),
    number("preauth_total", 1, 1 << 20, |s, n| s.limits.preauth_total = size(n)),
    number("preauth_per_source", 1, 1 << 20, |s, n| s.limits.preauth_per_source = size(n)),
    number("joins_per_second", 0, 1 << 20, |s, n| s.limits.joins_per_second = word(n)),
    number("join_burst", 1, 1 << 20, |s, n| s.limits.join_burst = word(n)),
    number("queue_frames", 16, 1 << 20, |s, n| s.limits.queue_frames = size(n)),
    number("queue_bytes", 16_384, GIB, |s, n| s.limits.queue_bytes = size(n)),
    number("queue_total_bytes", 1 << 20, 1024 * GIB, |s, n| s.limits.queue_total_bytes = size(n)),
    number("handshakes_per_second", 0, 1 << 20, |s, n| s.limits.handshakes_per_second = word(n)),
    number("handshake_burst", 1, 1 << 20, |s, n| s.limits.handshake_burst = word(n)),
    number("half_open_total", 1, 1 << 20, |s, n| s.limits.half_open_total = size(n)),
    number("client_bytes_per_second", 0, 1024 * GIB, |s, n| s.limits.client_bytes_per_second = n),
    number("client_frames_per_second", 0, 1 << 40, |s, n| s.limits.client_frames_per_second = n),
    number("bytes_per_second", 0, 1024 * GIB, |s, n| s.limits.bytes_per_second = n),
    number("frames_per_second", 0, 1 << 40, |s, n| s.limits.frames_per_second = n),
    number("memory", 16 << 20, 1024 * GIB, |s, n| s.limits.memory = n),
    number("clients", 1, 1 << 20, |s, n| s.limits.clients = size(n)),
];

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn word(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Every key as `section.key` with its variable, for documentation and tests.
pub fn names() -> impl Iterator<Item = (String, String)> {
    KEYS.iter().map(|key| (key.dotted(), key.variable()))
}

/// Takes what the environment sets.
pub(super) fn from_environment(settings: &mut Settings, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), Failure> {
    for key in KEYS {
        let variable = key.variable();
        // An empty variable is one that is not set.
        if let Some(text) = environment(&variable).filter(|text| !text.is_empty()) {
            let given = key.read(text);
            key.apply(settings, &given).map_err(|why| Failure::usage(format!("{variable}: {why}")))?;
        }
    }
    Ok(())
}

impl Key {
    pub(super) fn dotted(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    fn variable(&self) -> String {
        self.variable.map_or_else(|| format!("SHADOWMESH_{}_{}", self.section, self.name).to_uppercase(), str::to_owned)
    }

    /// A variable's text as the type that the key takes.
    fn read(&self, text: String) -> Given {
        match &self.set {
            Set::Number { .. } => text.trim().parse().map_or(Given::Text(text), Given::Number),
            Set::Addresses(_) | Set::Networks(_) | Set::Peers(_) | Set::Tokens(_) => {
                Given::List(text.split(',').map(|part| part.trim().to_owned()).collect())
            }
            Set::Duration { .. } | Set::Word { .. } | Set::Address(_) | Set::Path(_) | Set::Filter(_) => Given::Text(text),
        }
    }

    /// Takes a value, or says what it is and what would be right.
    pub(super) fn apply(&self, settings: &mut Settings, given: &Given) -> Result<(), String> {
        match (&self.set, given) {
            (Set::Number { least, most, set }, Given::Number(n)) => {
                let n = u64::try_from(*n).ok().filter(|n| (least..=most).contains(&n)).ok_or_else(|| self.wrong(given))?;
                set(settings, n);
            }
            (Set::Duration { least, most, set }, Given::Text(text)) => {
                let time =
                    humantime::parse_duration(text).ok().filter(|time| (least..=most).contains(&time)).ok_or_else(|| self.wrong(given))?;
                set(settings, time);
            }
            (Set::Word { words, set }, Given::Text(text)) if words.contains(&text.as_str()) => set(settings, text),
            (Set::Address(set), Given::Text(text)) => set(settings, text.parse().map_err(|_| self.wrong(given))?),
            (Set::Addresses(set), Given::List(list)) if !list.is_empty() => set(settings, self.each(list, |text| text.parse().ok())?),
            (Set::Networks(set), Given::List(list)) if !list.is_empty() => set(settings, self.each(list, network)?),
            (Set::Peers(set), Given::List(list)) if !list.is_empty() => set(settings, self.each(list, |text| text.parse().ok())?),
            (Set::Tokens(set), Given::List(list)) if !list.is_empty() => set(settings, self.each(list, token)?),
            (Set::Tokens(set), Given::Text(text)) => set(settings, vec![token(text).ok_or_else(|| self.wrong(given))?]),
            (Set::Path(set), Given::Text(text)) if !text.is_empty() => set(settings, text.into()),
            (Set::Filter(set), Given::Text(text)) if is_filter(text) => set(settings, text),
            _ => return Err(self.wrong(given)),
        }
        Ok(())
    }

    /// Every part of a list as what it must be, or what is wrong with the first that is not.
    fn each<T>(&self, list: &[String], read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
        list.iter().map(|text| read(text).ok_or_else(|| self.wrong(&Given::Text(text.clone())))).collect()
    }

    fn wrong(&self, given: &Given) -> String {
        let given = match given {
            Given::Text(_) if matches!(self.set, Set::Tokens(_)) => "what stands there".into(),
            Given::Text(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
            Given::Number(number) => number.to_string(),
            Given::List(list) if list.is_empty() => "an empty list".into(),
            Given::List(_) => "a list".into(),
            Given::Other(word) => (*word).into(),
        };
        let right = match &self.set {
            Set::Number { least, most, .. } => format!("a whole number from {least} to {most}"),
            Set::Duration { least, most, .. } => {
                format!(
                    "a time from {} to {} like \"500ms\", \"30s\" or \"2m\"",
                    humantime::format_duration(*least),
                    humantime::format_duration(*most)
                )
            }
            Set::Word { words, .. } => words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or "),
            Set::Address(_) => "an address with port like \"127.0.0.1:9090\" or \"[::1]:9090\"".into(),
            Set::Addresses(_) => "addresses with ports like [\"0.0.0.0:443\", \"[::]:443\"]".into(),
            Set::Networks(_) => "networks like [\"192.0.2.0/24\", \"2001:db8::/32\"], not an empty list".into(),
            Set::Peers(_) => "ids of peers like [\"sm-…\"], as `shadowmesh id` prints them, not an empty list".into(),
            Set::Tokens(_) => format!(
                "{TOKEN_LEN_MIN} to {TOKEN_LEN_MAX} letters, digits and -._~+/= that nobody guesses, like those of `openssl rand -hex 16`, or a list of such"
            ),
            Set::Path(_) => "a path".into(),
            Set::Filter(_) => {
                "\"error\", \"warn\", \"info\", \"debug\", \"trace\" or filters by module like \"info,shadowmesh_core=debug\"".into()
            }
        };
        format!("{} cannot be {given}; right would be {right}", self.dotted())
    }
}

/// An access token, hashed.
fn token(text: &str) -> Option<AccessKey> {
    let fits = (TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&text.len());
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte));
    (fits && is_plain).then(|| AccessKey::of(text))
}

/// `192.0.2.0/24`, or one address.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, len) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let len = if text.contains('/') { len.parse().ok().filter(|len| *len <= most)? } else { most };
    Some((address, len))
}

/// Whether tracing understands the filter, and it is not just the name of some module.
fn is_filter(text: &str) -> bool {
    let directives_ok = text.split(',').all(|part| {
        let level = part.rsplit('=').next().unwrap_or(part).trim();
        ["off", "error", "warn", "info", "debug", "trace"].contains(&level.to_lowercase().as_str())
    });
    directives_ok && tracing_subscriber::EnvFilter::try_new(text).is_ok()
}
