//! What a dial is about, before any socket: whose name, which addresses in which order, how long each may take (protocol 6).
use crate::tls;
use core::{net::SocketAddr, time::Duration};
use rustls::ClientConfig;
use shadowmesh_core::{
    event::{Ended, Target},
    id::PeerId,
    network::host_port,
};
use std::sync::Arc;

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
}

impl Plan {
    /// What is to be done for this target.
    ///
    /// # Errors
    /// When the relay's URL is none.
    pub fn new(target: Target) -> Result<Self, Ended> {
        match target {
            Target::Direct { address, pin } => {
                Ok(Self { host: address.ip().to_string(), port: address.port(), pin: Some(pin), foreign: false, address: Some(address) })
            }
            Target::Relay { url, pin, .. } => {
                let (host, port) = host_port(&url).map_err(|why| Ended::Local(why.to_string()))?;
                Ok(Self { host: host.to_owned(), port, pin, foreign: true, address: None })
            }
        }
    }

    /// The host and port to look up, unless the address is known.
    ///
    /// # Errors
    /// The address that is known.
    pub fn lookup(&self) -> Result<(String, u16), SocketAddr> {
        self.address.map_or_else(|| Ok((self.host.clone(), self.port)), Err)
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
        Ended::Resolve(format!("{}: {why}", self.host))
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
        let plan = Plan::new(target).expect("a URL");
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
        let plan = Plan::new(Target::Direct { address, pin: PeerId([1; 32]) }).expect("an address");
        assert_eq!((plan.lookup(), plan.url()), (Err(address), "wss://[2001:db8::1]:7/".to_owned()));
    }
}
