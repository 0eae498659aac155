//! Opening connections: name, TCP, TLS 1.3, WebSocket, all within one time limit (protocol 6).
use crate::ws::{self, Connected};
use core::{net::SocketAddr, time::Duration};
use rustls::ServerConfig;
use shadowmesh_core::event::{Ended, Target, TlsFacts, TlsRole};
use shadowmesh_runtime_std::{
    connect,
    dial::{Plan, TCP_WITHIN, patience, served},
    tls,
    tunnel::Proxies,
};
use smol::{Async, Timer, future};
use std::{net::TcpStream, sync::Arc};

/// Opens a connection to `target` within `timeout`, with no proxy on the way.
///
/// # Errors
/// Why it came to nothing; of several addresses, the last one's reason.
pub async fn dial(target: Target, timeout: Duration) -> Result<(Connected, TlsFacts), Ended> {
    dial_by(target, &Proxies::default(), timeout).await
}

/// Opens a connection to `target` within `timeout`, through a proxy if there is one for it.
///
/// # Errors
/// Why it came to nothing; of several addresses, the last one's reason.
pub async fn dial_by(target: Target, proxies: &Proxies, timeout: Duration) -> Result<(Connected, TlsFacts), Ended> {
    dial_or_serve(target, proxies, None, timeout).await
}

/// The same, where this end may be the one that serves, and so.
///
/// # Errors
/// Why it came to nothing; of several addresses, the last one's reason.
pub(crate) async fn dial_or_serve(
    target: Target,
    proxies: &Proxies,
    server: Option<Arc<ServerConfig>>,
    timeout: Duration,
) -> Result<(Connected, TlsFacts), Ended> {
    let plan = Plan::new(target, proxies)?;
    let dialling = within(timeout, async {
        let addresses = addresses(&plan).await?;
        let mut last = Ended::Unreachable;
        for (tried, address) in addresses.iter().enumerate() {
            let is_last = tried + 1 == addresses.len();
            match within(patience(is_last, timeout), Box::pin(open(&plan, server.clone(), *address))).await {
                Ok(connected) => return Ok(connected),
                Err(why) => last = why,
            }
        }
        Err(last)
    });
    dialling.await.map_err(|why| plan.failed(why))
}

async fn addresses(plan: &Plan) -> Result<Vec<SocketAddr>, Ended> {
    match plan.lookup() {
        Err(known) => Ok(vec![known]),
        Ok(name) => {
            let found = smol::net::resolve(name).await.map_err(|why| plan.unresolved(why))?;
            plan.in_turn(found)
        }
    }
}

async fn open(plan: &Plan, server: Option<Arc<ServerConfig>>, address: SocketAddr) -> Result<(Connected, TlsFacts), Ended> {
    let tcp = within(TCP_WITHIN, connect(plan, address)).await?;
    if let Some(mut tunnel) = plan.tunnel() {
        while !tunnel.advance(tcp.get_ref())? {
            tcp.readable().await.map_err(|why| tls::ended(&why))?;
        }
    }
    if plan.role() == TlsRole::Server {
        // both ends have dialled
        let server = server.ok_or_else(|| Ended::Local("this end serves nobody".to_owned()))?;
        let (connected, exporter) = ws::server(tcp, server).await?;
        return Ok((connected, served(exporter)));
    }
    let (connected, facts) = ws::client(tcp, plan.tls(), plan.host(), &plan.url()).await?;
    Ok((Connected { remote: plan.remote(connected.remote), ..connected }, facts))
}

async fn connect(plan: &Plan, address: SocketAddr) -> Result<Async<TcpStream>, Ended> {
    let tcp = Async::new_nonblocking(plan.begin(address)?).map_err(|why| tls::ended(&why))?;
    let begun = tcp.writable().await.and_then(|()| connect::begun(tcp.get_ref()));
    begun.map(|()| tcp).map_err(|why| tls::ended(&why))
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
    use shadowmesh_core::id::PeerId;

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
