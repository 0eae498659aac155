//! A peer without a device and without root: its packets end in a TCP/IP stack of this process, and programs reach the mesh through it.
//!
//! ```text
//!   programs ─▶ proxy (SOCKS5, HTTP CONNECT) ─┐                        ┌─▶ peer ─▶ the mesh
//!            ─▶ forward LOCAL=PEER:PORT ──────┼─▶ stack ─▶ two queues ─┤
//!   a local address ◀── expose PORT=ADDR ─────┘                        └─◀
//! ```
mod proxy;
mod queues;
mod socks;
mod stack;
#[cfg(test)]
mod tests;

pub(crate) use socks::{Target, host_port};

use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt, future};
use futures_util::stream::{FuturesUnordered, StreamExt};
use proxy::Proxy;
use queues::Queues;
use shadowmesh_runtime_std::peer::{Interface, MemoryInterface};
use smol::{
    Timer,
    net::{TcpListener, TcpStream},
};
use stack::Stack;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    time::Duration,
};

/// Packets that wait between stack and peer, in each direction.
const QUEUE: usize = 1024;
/// Connections that wait at one exposed port for their first answer.
const BACKLOG: usize = 4;
/// Clients of one listener at one time; more wait in the kernel's backlog.
const MAX_CLIENTS: usize = 256;
/// Pause after a failed accept or a full stack.
const PAUSE: Duration = Duration::from_millis(100);

/// `LOCAL=PEER:PORT`: what connects to the local address reaches the peer's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    /// Where it listens.
    pub(crate) local: SocketAddr,
    /// Where that leads.
    pub(crate) target: Target,
}

/// `PORT=ADDR:PORT`: what connects to this port of the peer reaches the local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expose {
    /// On all overlay addresses of this peer.
    pub(crate) port: u16,
    /// Where that leads.
    pub(crate) local: SocketAddr,
}

/// What somebody who knows the peers makes of a target: an address of the mesh.
pub(crate) type Resolved<'a> = Pin<Box<dyn Future<Output = io::Result<SocketAddr>> + 'a>>;

/// Finds the address of a target; an error of the kind `NotFound` says that there is no such peer.
pub(crate) trait Resolve {
    /// The address of `target`.
    fn resolve(&self, target: Target) -> Resolved<'_>;
}

/// Both ends of a peer's interface: that of the peer, and ours.
pub(crate) fn interface(mtu: u16) -> (Interface, Ends) {
    let (to_mesh, inbound) = flume::bounded(QUEUE);
    let (outbound, from_mesh) = flume::bounded(QUEUE);
    (Interface::Memory(MemoryInterface { inbound, outbound }), Ends(Queues::new(from_mesh, to_mesh, mtu)))
}

/// Our end of a peer's interface.
pub(crate) struct Ends(Queues);

/// Listeners that are bound, and all that serves them.
pub(crate) struct Userspace {
    proxy: Option<TcpListener>,
    forwards: Vec<(TcpListener, Target)>,
    exposed: Vec<Expose>,
    stack: Stack,
}

impl Userspace {
    /// Binds what is to be listened on; `proxy`: where, and whether somebody asked for that address.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub(crate) async fn bind(
        ends: Ends,
        addresses: &[(IpAddr, u8)],
        (proxy, asked): (Option<SocketAddr>, bool),
        forwards: &[Forward],
        exposed: &[Expose],
    ) -> Result<Self, String> {
        let proxy = match proxy {
            Some(address) => Some(bind_proxy(address, asked).await?),
            None => None,
        };
        let mut bound = Vec::with_capacity(forwards.len());
        for Forward { local, target } in forwards {
            let listener = TcpListener::bind(local).await.map_err(|why| format!("userspace.forward: {local} cannot be used: {why}"))?;
            bound.push((listener, target.clone()));
        }
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|why| format!("the operating system gives no random numbers: {why}"))?;
        let stack = Stack::new(ends.0, addresses, u64::from_le_bytes(seed));
        Ok(Self { proxy, forwards: bound, exposed: exposed.to_vec(), stack })
    }

    /// Where the proxy is.
    pub(crate) fn proxy_address(&self) -> Option<SocketAddr> {
        self.proxy.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves all listeners until the peer has ended.
    pub(crate) async fn run(&self, resolve: &dyn Resolve) {
        let stack = &self.stack;
        let proxy = Proxy::new(stack, resolve);
        let mut doors = FuturesUnordered::<Pin<Box<dyn Future<Output = ()> + '_>>>::new();
        if let Some(listener) = &self.proxy {
            doors.push(Box::pin(clients(listener, |client| proxy.serve(client))));
        }
        for (listener, target) in &self.forwards {
            doors.push(Box::pin(clients(listener, move |client| async move {
                let to = resolve.resolve(target.clone()).await?;
                both_ways(client, stack.connect(to).await?).await
            })));
        }
        for expose in &self.exposed {
            doors.push(Box::pin(exposed(stack, *expose)));
        }
        let serve = async {
            while doors.next().await.is_some() {}
            future::pending::<()>().await;
        };
        future::or(stack.run(), serve).await;
    }
}

/// The proxy's listener. Another peer of this host may have the usual address: then any free port will do, unless this one was asked for.
async fn bind_proxy(address: SocketAddr, asked: bool) -> Result<TcpListener, String> {
    let bound = match TcpListener::bind(address).await {
        Err(_) if !asked => TcpListener::bind(SocketAddr::new(address.ip(), 0)).await,
        bound => bound,
    };
    bound.map_err(|why| format!("userspace.proxy: {address} cannot be used: {why}; choose another with --proxy, or off"))
}

/// Takes clients for ever and serves them side by side.
async fn clients<F, A>(listener: &TcpListener, serve: F)
where
    F: Fn(TcpStream) -> A,
    A: Future<Output = io::Result<()>>,
{
    let mut served = FuturesUnordered::new();
    loop {
        if served.len() >= MAX_CLIENTS {
            told(served.next().await);
            continue;
        }
        let accept = async { Ok(listener.accept().await) };
        match future::or(accept, async { Err(next_of(&mut served).await) }).await {
            Ok(Ok((client, _))) => {
                // Small answers are not to wait for large ones.
                let _ = client.set_nodelay(true);
                served.push(serve(client));
            }
            Ok(Err(why)) => {
                tracing::debug!(%why, "no client can be taken");
                Timer::after(PAUSE).await;
            }
            Err(result) => told(Some(result)),
        }
    }
}

/// Takes connections from the mesh at one port for ever and serves them side by side.
async fn exposed(stack: &Stack, expose: Expose) {
    let wait = || async {
        let accepted = stack.accept(expose.port).await;
        if accepted.is_err() {
            Timer::after(PAUSE).await;
        }
        accepted
    };
    let serve = |client| async move {
        let local = TcpStream::connect(expose.local).await?;
        let _ = local.set_nodelay(true);
        both_ways(local, client).await
    };
    let mut waiting: FuturesUnordered<_> = (0..BACKLOG).map(|_| wait()).collect();
    let mut served = FuturesUnordered::new();
    loop {
        match future::or(async { Ok(next_of(&mut waiting).await) }, async { Err(next_of(&mut served).await) }).await {
            Ok(accepted) => {
                match accepted {
                    Ok(client) if served.len() < MAX_CLIENTS => served.push(serve(client)),
                    Ok(_) => tracing::debug!(port = expose.port, "an exposed port has too many connections"),
                    Err(why) => tracing::debug!(port = expose.port, %why, "an exposed port takes no connection for now"),
                }
                waiting.push(wait());
            }
            Err(result) => told(Some(result)),
        }
    }
}

/// The next that ends; with none under way it waits for ever.
async fn next_of<F: Future>(all: &mut FuturesUnordered<F>) -> F::Output {
    match all.next().await {
        Some(output) => output,
        None => future::pending().await,
    }
}

fn told(result: Option<io::Result<()>>) {
    if let Some(Err(why)) = result {
        tracing::debug!(%why, "a connection of the userspace stack ended");
    }
}

/// Copies in both directions; the end of one is passed on and does not end the other.
async fn both_ways(near: impl AsyncRead + AsyncWrite + Unpin, far: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (near_in, near_out) = futures_lite::io::split(near);
    let (far_in, far_out) = futures_lite::io::split(far);
    let (there, back) = future::zip(one_way(near_in, far_out), one_way(far_in, near_out)).await;
    there.and(back)
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let copied = futures_lite::io::copy(&mut from, &mut to).await;
    let closed = to.close().await;
    copied?;
    closed
}
