//! Opening connections: name, TCP, TLS 1.3, WebSocket, all within one time limit (protocol 6).
use crate::ws::{self, Connected};
use core::{net::SocketAddr, time::Duration};
use shadowmesh_core::{
    event::{Ended, Target, TlsFacts},
    id::PeerId,
    network::host_port,
};
use shadowmesh_runtime_std::tls;
use smol::{Async, Timer, future};
use std::net::TcpStream;

/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;

/// The longest wait for one address while others are untried; what is left of the time limit is shared if that is less.
const ONE_ADDRESS: Duration = Duration::from_secs(2);

/// What one dial needs.
struct Dial {
    host: String,
    port: u16,
    pin: Option<PeerId>,
    foreign: bool,
    addresses: Vec<SocketAddr>,
}

/// Opens a connection to `target` within `timeout`.
///
/// # Errors
/// Why it came to nothing; of several addresses, the last one's reason.
pub async fn dial(target: Target, timeout: Duration) -> Result<(Connected, TlsFacts), Ended> {
    within(timeout, async {
        let dial = prepare(target).await?;
        let mut last = Ended::Unreachable;
        for (tried, address) in dial.addresses.iter().enumerate() {
            let is_last = tried + 1 == dial.addresses.len();
            let patience = if is_last { timeout } else { ONE_ADDRESS.min(timeout / 2) };
            match within(patience, Box::pin(open(&dial, *address))).await {
                Ok(connected) => return Ok(connected),
                Err(why) => last = why,
            }
        }
        Err(last)
    })
    .await
}

/// Finds the addresses to try: both families in turn, as the resolver orders them.
async fn prepare(target: Target) -> Result<Dial, Ended> {
    match target {
        Target::Direct { address, pin } => {
            Ok(Dial { host: address.ip().to_string(), port: address.port(), pin: Some(pin), foreign: false, addresses: vec![address] })
        }
        Target::Relay { url, pin, .. } => {
            let (host, port) = host_port(&url).map_err(|why| Ended::Local(why.to_string()))?;
            let addresses = resolve(host, port).await?;
            Ok(Dial { host: host.to_owned(), port, pin, foreign: true, addresses })
        }
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Ended> {
    let found = smol::net::resolve((host.to_owned(), port)).await.map_err(|why| Ended::Resolve(format!("{host}: {why}")))?;
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
    if mixed.is_empty() {
        return Err(Ended::Resolve(format!("{host}: no address")));
    }
    Ok(mixed)
}

async fn open(dial: &Dial, address: SocketAddr) -> Result<(Connected, TlsFacts), Ended> {
    let tcp = Async::<TcpStream>::connect(address).await.map_err(|why| tls::ended(&why))?;
    let config = tls::client_config(dial.pin, dial.foreign);
    let authority = if dial.host.contains(':') { format!("[{}]", dial.host) } else { dial.host.clone() };
    let url = format!("wss://{authority}:{}/", dial.port);
    ws::client(tcp, config, &dial.host, &url).await
}

/// Runs `work` for at most `limit`.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Ended>>) -> Result<T, Ended> {
    future::or(work, async {
        Timer::after(limit).await;
        Err(Ended::TimedOut)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_none_is_refused_with_a_reason() {
        let target = Target::Relay { index: 0, url: "https://relay.example".to_owned(), pin: None };
        let refused = smol::block_on(dial(target, Duration::from_secs(1))).map(drop);
        assert!(matches!(&refused, Err(Ended::Local(why)) if why.contains("wss://")), "{refused:?}");
    }

    #[test]
    fn an_address_without_a_listener_is_refused_and_a_silent_one_times_out() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        let pin = PeerId([1; 32]);
        let refused = smol::block_on(dial(Target::Direct { address: gone, pin }, Duration::from_secs(5)));
        assert_eq!(refused.err(), Some(Ended::Refused));
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = silent.local_addr().expect("address");
        let timed_out = smol::block_on(dial(Target::Direct { address, pin }, Duration::from_millis(30)));
        assert_eq!(timed_out.err(), Some(Ended::TimedOut));
    }
}
