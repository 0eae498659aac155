//! The table of all configuration keys: the single place that names them, their variables and their defaults.

/// One key of `peer.toml`.
#[derive(Debug)]
pub(crate) struct Key {
    /// `section.key`.
    pub(crate) name: &'static str,
    /// The default as it would stand in the file; empty: unset.
    pub(crate) default: &'static str,
    /// One line for `config show`.
    pub(crate) meaning: &'static str,
}

impl Key {
    /// The environment variable that sets this key.
    pub(crate) fn variable(&self) -> String {
        if self.name == "log.level" {
            return "SHADOWMESH_LOG".to_owned();
        }
        format!("SHADOWMESH_{}", self.name.replace('.', "_").to_uppercase())
    }
}

const fn key(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, default, meaning }
}

/// Every key, in the order in which `config show` prints them.
pub(crate) const KEYS: [Key; 34] = [
    key("identity.file", "identity.key", "the peer's secret key; relative to the state directory"),
    key("network.join", "", "the join token of the network"),
    key("network.join_file", "", "a file that holds the join token"),
    key("network.name", "", "what others call this peer; the host name when unset"),
    key("network.revoked", "[]", "ids of peers that are no members, whatever token they have"),
    key("network.proxy", "", "HTTP proxy on the way to relays: http://USER:PASSWORD@HOST:PORT, or off"),
    key("interface.mode", "tun", "tun, tap or userspace"),
    key("interface.name", "mesh0", "name of the network interface"),
    key("interface.address", "[]", "overlay addresses besides the derived ones"),
    key("interface.mtu", "1280", "largest packet on the interface, or auto"),
    key("interface.queues", "1", "threads that carry traffic, 1 to 16, each with its queue of a tun interface; auto: by the processors"),
    key("dns.enabled", "true", "answer names of peers below .mesh (tun mode), and tell systemd-resolved"),
    key("userspace.proxy", "127.0.0.1:1080", "SOCKS5 and HTTP CONNECT of a peer without an interface, or off"),
    key("userspace.forward", "[]", "ports of peers under local addresses: LOCAL=PEER:PORT"),
    key("userspace.expose", "[]", "local addresses under ports of this peer: PORT=ADDRESS:PORT"),
    key("p2p.transports", "[\"udp\", \"wss\"]", "direct transports in order of preference; empty: relay only"),
    key("p2p.listen_udp", "0.0.0.0:0", "where direct UDP is received; port 0: a random one"),
    key("p2p.listen_tcp", "0.0.0.0:0", "where direct WebSocket connections are taken; port 0: a random one"),
    key("p2p.port_mapping", "true", "ask the router for a port (UPnP-IGD, NAT-PMP, PCP)"),
    key("p2p.advertise", "[]", "addresses announced to peers instead of the local ones"),
    key("p2p.retry_interval", "60s", "longest wait between attempts at a direct path"),
    key("p2p.health_check_interval", "30s", "longest silence before an idle direct path is probed"),
    key("p2p.connect_timeout", "5s", "one whole attempt at a direct path"),
    key("p2p.close_relay", "false", "close the relay connection after a migration instead of parking it"),
    key("p2p.relay_udp", "true", "send datagrams over a relay that takes them, where there is no direct path"),
    key("p2p.mode", "switch-lossless", "switch-lossless, reliable, redundant or off"),
    key("crypto.suites", "[\"aes-256-gcm\", \"chacha20-poly1305\"]", "data suites in order of preference"),
    key("crypto.rekey_interval", "2m", "age at which the keys of a session with data are replaced"),
    key("tls.cert_lifetime", "24h", "life of a self-signed certificate; renewed at two thirds"),
    key("log.level", "info", "error, warn, info, debug, trace, or filters by module"),
    key("log.format", "text", "text or json"),
    key("state.dir", "/var/lib/shadowmesh", "identity, remembered token and address claims"),
    key("control.socket", "/run/shadowmesh/peer.sock", "where the commands reach the running peer"),
    key("metrics.listen", "127.0.0.1:9461", "Prometheus port, or off"),
];

/// The keys inside one `[[peer]]` table.
pub(crate) const PEER_KEYS: [&str; 4] = ["id", "name", "allowed", "endpoint"];

/// The key of that name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// What an unknown name was probably meant to be.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.map(|candidate| (distance(name, candidate), candidate)).min().filter(|(steps, _)| *steps <= 3).map(|(_, candidate)| candidate)
}

/// Edit distance between two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
