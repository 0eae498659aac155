//! Reaching relays through an HTTP proxy: CONNECT, and then TLS from end to end through it (RFC 9110, 9.3.6).
//!
//! ```text
//!   TCP to the proxy ─▶ CONNECT relay.example:443 ─▶ 200 ─▶ TLS and WebSocket with the relay, of which the proxy sees nothing
//!                                                 └▶ 407, 403, 5xx: a sentence that says what to do
//! ```
use core::{fmt, net::IpAddr, str::FromStr};
use shadowmesh_core::{config::inside_any, event::Ended, network::host_port};
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::Arc,
};
use zeroize::Zeroizing;

/// The most that a proxy may answer before the tunnel stands.
const ANSWER_MAX_LEN: usize = 16 * 1024;

/// What a value must look like.
const RIGHT: &str = "right would be http://proxy.example:3128, or http://USER:PASSWORD@proxy.example:3128";

/// An HTTP proxy. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpProxy {
    host: String,
    port: u16,
    /// `user:password`, as Basic authentication joins them (RFC 7617).
    credentials: Option<Zeroizing<String>>,
}

impl FromStr for HttpProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{why}; {RIGHT}");
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => return Err(wrong("TLS to the proxy itself is not spoken")),
            scheme if scheme.starts_with("socks") => return Err(wrong("SOCKS proxies are not spoken here")),
            _ => return Err(wrong("this is no HTTP proxy")),
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((credentials, authority)) => (Some(credentials), authority),
            None => (None, rest),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !port.contains(']') => {
                (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("this is no port"))?)
            }
            _ => (authority, 80),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(is_host) || (host.contains(':') && host.parse::<IpAddr>().is_err()) {
            return Err(wrong("this is no host"));
        }
        let credentials = credentials.map(|text| {
            let (user, password) = text.split_once(':').unwrap_or((text, ""));
            let decoded = decoded(user).zip(decoded(password)).filter(|(user, _)| !user.contains(':'));
            decoded.map(|(user, password)| Zeroizing::new(format!("{}:{}", user.as_str(), password.as_str())))
        });
        let credentials = match credentials {
            Some(None) => return Err(wrong("name or password cannot be read (write % as %25, @ as %40, : as %3A)")),
            Some(Some(credentials)) => Some(credentials),
            None => None,
        };
        Ok(Self { host: host.to_owned(), port, credentials })
    }
}

impl fmt::Display for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.credentials.is_some() { "***@" } else { "" };
        write!(f, "http://{who}{}", authority(&self.host, self.port))
    }
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl HttpProxy {
    /// Where it is.
    pub(crate) fn place(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }
}

/// Which relays are reached through a proxy, and which are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The proxy.
    pub proxy: Option<Arc<HttpProxy>>,
    /// Hosts that are reached without it, as `NO_PROXY` lists them: names and all below them, addresses, networks, or `*`.
    pub not_for: Vec<String>,
    /// This host, and addresses that mean nothing outside of their own network, are never reached through it.
    pub not_for_local: bool,
}

impl Proxies {
    /// What lies between us and the relay of this URL, for people.
    pub fn on_the_way_to(&self, url: &str) -> Option<String> {
        let (host, port) = host_port(url).ok()?;
        self.to(host, port).map(ToString::to_string)
    }

    /// What lies between us and this relay.
    pub(crate) fn to(&self, host: &str, port: u16) -> Option<&Arc<HttpProxy>> {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        let ip = host.parse::<IpAddr>().ok();
        let is_local = host == "localhost" || ip.is_some_and(is_local);
        let passed_by = (is_local && self.not_for_local) || self.not_for.iter().any(|rule| is_meant(rule, &host, port, ip));
        self.proxy.as_ref().filter(|_| !passed_by)
    }
}

/// Whether this is an address of this host, of a private network, of shared address space, or of no network at all (RFC 6890).
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = (first == 100 && second & 0xc0 == 64) || (first == 198 && second & 0xfe == 18);
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_documentation() || is_shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.segments()[..2] == [0x2001, 0x0db8],
    }
}

/// Whether an entry of `NO_PROXY` means this host.
fn is_meant(rule: &str, host: &str, port: u16, ip: Option<IpAddr>) -> bool {
    let rule = rule.trim().to_ascii_lowercase();
    if rule == "*" {
        return true;
    }
    if let Some(ip) = ip {
        let (address, len) = rule.split_once('/').unwrap_or((&rule, ""));
        if let Ok(address) = address.trim_matches(['[', ']']).parse::<IpAddr>() {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let len = len.parse().ok().or_else(|| len.is_empty().then_some(most)).filter(|len| *len <= most);
            return len.is_some_and(|len| inside_any(&[(address, len)], ip));
        }
    }
    let (name, only) = match rule.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => (name, port.parse::<u16>().ok()),
        _ => (rule.as_str(), None),
    };
    let name = name.trim_start_matches("*.").trim_start_matches('.');
    let is_named = host == name || host.strip_suffix(name).is_some_and(|above| above.ends_with('.'));
    !name.is_empty() && is_named && only.is_none_or(|only| only == port)
}

/// The tunnel through a proxy, until it stands.
pub struct Tunnel<'a> {
    proxy: &'a HttpProxy,
    to: String,
    /// Not sent yet.
    request: Option<Zeroizing<Vec<u8>>>,
    answer: Vec<u8>,
}

impl<'a> Tunnel<'a> {
    /// A tunnel to this relay.
    pub(crate) fn new(proxy: &'a HttpProxy, host: &str, port: u16) -> Self {
        let to = authority(host, port);
        let mut request = Zeroizing::new(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes());
        if let Some(credentials) = &proxy.credentials {
            request.extend_from_slice(b"Proxy-Authorization: Basic ");
            request.extend_from_slice(Zeroizing::new(base64(credentials.as_bytes())).as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        Self { proxy, to, request: Some(request), answer: Vec::new() }
    }

    /// Goes on, on a socket that does not block; true when the tunnel stands, false when the proxy has to say more.
    ///
    /// # Errors
    /// What the proxy has against it, and what to do.
    pub fn advance(&mut self, mut socket: &TcpStream) -> Result<bool, Ended> {
        if let Some(request) = self.request.take() {
            // It is short, and the socket is empty.
            socket.write_all(&request).map_err(|why| self.broken(why))?;
        }
        let mut buffer = [0; 2_048];
        loop {
            let len = match socket.read(&mut buffer) {
                Ok(0) => return Err(self.broken("it closed the connection without an answer")),
                Ok(len) => len,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(why) if why.kind() == ErrorKind::Interrupted => continue,
                Err(why) => return Err(self.broken(why)),
            };
            self.answer.extend_from_slice(buffer.get(..len).unwrap_or_default());
            if let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") {
                self.judge(end)?;
                // TLS begins with us: nobody behind the proxy has anything to say yet
                return if self.answer.len() == end + 4 { Ok(true) } else { Err(self.broken("it said more than an answer")) };
            }
            if self.answer.len() > ANSWER_MAX_LEN {
                return Err(self.broken("its answer has no end"));
            }
        }
    }

    /// What the answer means, whose head ends here.
    fn judge(&self, end: usize) -> Result<(), Ended> {
        let head = String::from_utf8_lossy(self.answer.get(..end).unwrap_or_default());
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
        let Some(code) = code else {
            return Err(self.broken("it does not answer like an HTTP proxy: is it one?"));
        };
        if (200..300).contains(&code) {
            return Ok(());
        }
        let asked = lines.filter_map(|line| line.split_once(':')).filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authenticate"));
        let schemes: Vec<_> = asked.filter_map(|(_, value)| value.split_whitespace().next()).map(printable).collect();
        Err(self.refused(code, &printable(status.get(9..).unwrap_or_default()), &schemes))
    }

    fn refused(&self, code: u16, status: &str, schemes: &[String]) -> Ended {
        let Self { proxy, to, .. } = self;
        let is_basic = schemes.is_empty() || schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
        let (place, schemes) = (authority(&proxy.host, proxy.port), schemes.join(", "));
        let what = match code {
            407 if !is_basic => format!(
                "wants authentication by {schemes} ({status}), and only Basic is spoken: ask who runs it for Basic, or run a local proxy that does the rest"
            ),
            407 if proxy.credentials.is_some() => format!("refused this name and password ({status}): correct them in network.proxy"),
            407 => format!("wants a name and a password ({status}): set network.proxy to http://USER:PASSWORD@{place}"),
            403 => {
                format!("does not allow connections to {to} ({status}): ask who runs it to allow CONNECT there; many allow port 443 alone")
            }
            405 | 501 => format!("does no CONNECT ({status}): it is no proxy for TLS, name another in network.proxy"),
            500..600 => {
                format!("could not reach the relay {to} ({status}): is that the relay's address as the proxy sees it, and is it up?")
            }
            _ => format!("answered {status} to CONNECT {to}"),
        };
        Ended::Proxy(format!("the proxy {proxy} {what}"))
    }

    fn broken(&self, why: impl fmt::Display) -> Ended {
        Ended::Proxy(format!("the proxy {}: {why}", self.proxy))
    }
}

/// What somebody else wrote, fit for a log.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Text with its percent signs resolved (RFC 3986, 2.1); `None` when it is none, or holds what no header may.
fn decoded(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = text.bytes();
    let mut out = Zeroizing::new(Vec::new());
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'%' {
            let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    let text = core::str::from_utf8(&out).ok()?;
    (!text.chars().any(char::is_control)).then(|| Zeroizing::new(text.to_owned()))
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            text.push(if at <= three.len() { char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests;
