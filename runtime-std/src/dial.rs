//! What a dial is about, before any socket: whose name, which addresses in which order, how long each may take (protocol 6).
use crate::{
    connect::{self, Start},
    tls,
    tunnel::{HttpProxy, Proxies, Tunnel},
};
use core::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use rustls::ClientConfig;
use shadowmesh_core::{
    event::{Ended, Target, TlsFacts, TlsRole},
    id::PeerId,
    network::host_port,
};
use std::{net::TcpStream, sync::Arc};

pub use crate::threads::dial::reach;

/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;

/// The longest wait for one address while others are untried; what is left of the time limit is shared if that is less.
const ONE_ADDRESS: Duration = Duration::from_secs(2);

/// The longest wait for TCP. A kernel asks each second at first, then ever more seldom: a new dial finds a healed way sooner.
pub const TCP_WITHIN: Duration = Duration::from_secs(5);

/// How far a relay is: what a new connection to it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Where it was found.
    pub remote: SocketAddr,
    /// TCP.
    pub tcp: Duration,
    /// TLS on it, until it is done here.
    pub tls: Duration,
}

/// What one dial needs.
pub struct Plan {
    host: String,
    port: u16,
    pin: Option<PeerId>,
    foreign: bool,
    /// Known without a look-up.
    address: Option<SocketAddr>,
    /// What is dialled instead, and then asked for a tunnel.
    proxy: Option<Arc<HttpProxy>>,
    start: Start,
    role: TlsRole,
}

impl Plan {
    /// What is to be done for this target.
    ///
    /// # Errors
    /// When the relay's URL is none.
    pub fn new(target: Target, proxies: &Proxies) -> Result<Self, Ended> {
        match target {
            Target::Direct { address, pin } => Ok(Self::direct(address, pin, Start::Alone, TlsRole::Client)),
            Target::Punch { address, from, pin, role } => Ok(Self::direct(address, pin, Start::At(from), role)),
            Target::Relay { url, pin, .. } => {
                let (host, port) = host_port(&url).map_err(|why| Ended::Local(why.to_string()))?;
                let proxy = proxies.to(host, port).cloned();
                // a proxy's port tells nobody where this end is
                let start = if proxy.is_some() { Start::Alone } else { Start::Shared };
                Ok(Self { host: host.to_owned(), port, pin, foreign: true, address: None, proxy, start, role: TlsRole::Client })
            }
        }
    }

    fn direct(address: SocketAddr, pin: PeerId, start: Start, role: TlsRole) -> Self {
        let (host, port) = (address.ip().to_string(), address.port());
        Self { host, port, pin: Some(pin), foreign: false, address: Some(address), proxy: None, start, role }
    }

    /// Begins TCP to one address, on a socket that does not block; [`connect::begun`] says what came of it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn begin(&self, remote: SocketAddr) -> Result<TcpStream, Ended> {
        connect::begin(self.start, remote).map_err(|why| tls::ended(&why))
    }

    /// Who this end is in TLS and the upgrade.
    pub fn role(&self) -> TlsRole {
        self.role
    }

    /// The host and port to look up, unless the address is known.
    ///
    /// # Errors
    /// The address that is known.
    pub fn lookup(&self) -> Result<(String, u16), SocketAddr> {
        match (self.address, &self.proxy) {
            (Some(address), _) => Err(address),
            (None, Some(proxy)) => Ok(proxy.place()),
            (None, None) => Ok((self.host.clone(), self.port)),
        }
    }

    /// The tunnel that comes before TLS, where there is a proxy.
    pub fn tunnel(&self) -> Option<Tunnel<'_>> {
        self.proxy.as_ref().map(|proxy| Tunnel::new(proxy, &self.host, self.port))
    }

    /// The address of the other end, out of that of the socket: behind a proxy nobody knows it.
    pub fn remote(&self, of_socket: SocketAddr) -> SocketAddr {
        if self.proxy.is_some() { SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)) } else { of_socket }
    }

    /// Why no connection stands, told so that a proxy in between is not taken for the relay.
    pub fn failed(&self, why: Ended) -> Ended {
        match (&self.proxy, why) {
            (Some(proxy), Ended::Resolve(why)) => Ended::Proxy(format!("the name of the proxy {proxy} does not resolve: {why}")),
            (Some(proxy), why @ (Ended::Refused | Ended::Unreachable)) => {
                Ended::Proxy(format!("the proxy {proxy} cannot be reached: {why}"))
            }
            (Some(proxy), why @ (Ended::TimedOut | Ended::Reset | Ended::ByPeer)) => {
                Ended::Proxy(format!("by way of the proxy {proxy}: {why}"))
            }
            (_, why) => why,
        }
    }

    /// What a look-up found, in the order in which it is tried: both families in turn, as the resolver orders them.
    ///
    /// # Errors
    /// When nothing was found.
    pub fn in_turn(&self, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Ended> {
        let preferred = found.first().is_some_and(SocketAddr::is_ipv6);
        let (first, second): (Vec<_>, Vec<_>) = found.into_iter().partition(|a| a.is_ipv6() == preferred);
        let mut mixed = Vec::new();
        let (mut first, mut second) = (first.into_iter(), second.into_iter());
        loop {
            let pair = (first.next(), second.next());
            if pair == (None, None) {
                break;
            }
            mixed.extend(pair.0);
            mixed.extend(pair.1);
        }
        mixed.truncate(ADDRESSES);
        if mixed.is_empty() { Err(self.unresolved("no address")) } else { Ok(mixed) }
    }

    /// The look-up failed.
    pub fn unresolved(&self, why: impl core::fmt::Display) -> Ended {
        let host = self.proxy.as_ref().map_or_else(|| self.host.clone(), |proxy| proxy.place().0);
        Ended::Resolve(format!("{host}: {why}"))
    }

    /// How TLS is done.
    pub fn tls(&self) -> Arc<ClientConfig> {
        tls::client_config(self.pin, self.foreign)
    }

    /// The name for TLS.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The URL for the upgrade.
    pub fn url(&self) -> String {
        let authority = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("wss://{authority}:{}/", self.port)
    }
}

/// What TLS shows a server: its dialler has no certificate.
pub fn served(exporter: [u8; 32]) -> TlsFacts {
    TlsFacts { exporter, identity: None, subject: None }
}

/// How long one address may take: not all of the time while others are untried.
pub fn patience(is_last: bool, timeout: Duration) -> Duration {
    if is_last { timeout } else { ONE_ADDRESS.min(timeout / 2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_tried_in_turn_and_not_too_many() {
        let target = Target::Relay { index: 0, url: "wss://relay.example:443".to_owned(), pin: None };
        let plan = Plan::new(target, &Proxies::default()).expect("a URL");
        assert_eq!(plan.lookup(), Ok(("relay.example".to_owned(), 443)));
        let v6 = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 443));
        let v4 = |n: u8| SocketAddr::from(([192, 0, 2, n], 443));
        assert_eq!(plan.in_turn(vec![v6(1), v6(2), v6(3), v4(1)]), Ok(vec![v6(1), v4(1), v6(2), v6(3)]));
        assert_eq!(plan.in_turn((0..20).map(v4).collect()).map(|found| found.len()), Ok(ADDRESSES));
        assert_eq!(plan.in_turn(Vec::new()), Err(Ended::Resolve("relay.example: no address".to_owned())));
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets_in_a_url() {
        let address = "[2001:db8::1]:7".parse().expect("an address");
        let plan = Plan::new(Target::Direct { address, pin: PeerId([1; 32]) }, &through_a_proxy()).expect("an address");
        assert_eq!((plan.lookup(), plan.url()), (Err(address), "wss://[2001:db8::1]:7/".to_owned()));
        assert!(plan.tunnel().is_none() && plan.remote(address) == address, "peers are dialled without a proxy");
    }

    #[test]
    fn a_relay_behind_a_proxy_is_not_looked_up_and_the_proxy_gets_the_blame() {
        let target = Target::Relay { index: 0, url: "wss://relay.example:443".to_owned(), pin: None };
        let plan = Plan::new(target, &through_a_proxy()).expect("a URL");
        assert_eq!(plan.lookup(), Ok(("proxy.example".to_owned(), 3128)));
        assert!(plan.tunnel().is_some() && plan.remote(([192, 0, 2, 1], 3128).into()).ip().is_unspecified());
        assert_eq!((plan.host(), plan.url().as_str()), ("relay.example", "wss://relay.example:443/"), "TLS is with the relay");
        for why in [Ended::Refused, Ended::TimedOut, plan.unresolved("no such name")] {
            let told = plan.failed(why);
            assert!(matches!(&told, Ended::Proxy(why) if why.contains("http://***@proxy.example:3128")), "{told}");
        }
        assert_eq!(plan.failed(Ended::Tls("x".to_owned())), Ended::Tls("x".to_owned()), "that is between the ends");
    }

    fn through_a_proxy() -> Proxies {
        let proxy = "http://me:secret@proxy.example:3128".parse().expect("a proxy");
        Proxies { proxy: Some(Arc::new(proxy)), ..Proxies::default() }
    }
}
