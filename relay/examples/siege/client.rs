//! One client as an attacker makes it: real TCP, TLS, WebSocket and handshake, every step in the caller's hand.
use core::net::{Ipv4Addr, SocketAddr};
use rustls::ClientConfig;
use shadowmesh_core::{
    binding::{open_bound, seal_bind},
    crypto::{Identity, awslc::AwsLc},
    event::{Ended, TlsFacts},
    handshake::{Job, Offer, Outcome, Setup, Ticket, Work},
    id::{Handle, PeerId},
    session::{EpochKeys, Side, Suite},
    wire::{
        Bind, Bound, Counter, Established, FRAME_HEADER_LEN, FrameHeader, INNER_CONTROL, INNER_KEEPALIVE, LANE_NODE, Params, Record,
        RelayMessage, TAG_LEN, TYPE_FWD,
    },
};
use shadowmesh_runtime_smol::ws::{self, Connected};
use shadowmesh_runtime_std::tls;
use smol::{Async, Timer, future};
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::TcpStream, sync::Arc, time::Duration};

/// Longer than the relay waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Where the relay is, and how to speak to it.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) id: PeerId,
    tls: Arc<ClientConfig>,
}

/// A joined client.
pub(crate) struct Client {
    pub(crate) connected: Connected,
    pub(crate) established: Established,
    pub(crate) sealer: Sealer,
}

/// Seals what a client says to the relay.
pub(crate) struct Sealer {
    keys: EpochKeys,
    peer_sid: u32,
    sealed: u64,
}

/// The address of source number `n`: each has limits of its own. 127.0.0.1 and those near it are left to honest clients.
pub(crate) fn source(n: usize) -> Ipv4Addr {
    let n = n as u32 + 0x0100;
    Ipv4Addr::from_bits(0x7f01_0000 + ((n / 250) << 8) + n % 250 + 1)
}

fn run(work: Work) -> Outcome {
    Job { ticket: Ticket(0), work }.run(&AwsLc).outcome
}

/// At most `PATIENCE` for anything.
pub(crate) async fn patiently<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    future::or(work, async {
        Timer::after(PATIENCE).await;
        Err("nothing happened for 20 s".into())
    })
    .await
}

fn said(why: &Ended) -> String {
    format!("{why:?}").chars().take(60).collect()
}

impl Target {
    pub(crate) fn new(address: SocketAddr, id: PeerId) -> Self {
        Self { address, id, tls: tls::client_config(Some(id), true) }
    }

    /// How TLS is done.
    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// TCP from this source address.
    pub(crate) async fn tcp(&self, from: Ipv4Addr) -> io::Result<Async<TcpStream>> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        match socket.connect(&self.address.into()) {
            Err(why) if why.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => return Err(why),
            _ => {}
        }
        let stream = Async::new(TcpStream::from(socket))?;
        stream.writable().await?;
        match stream.get_ref().take_error()? {
            Some(why) => Err(why),
            None => Ok(stream),
        }
    }

    /// TCP, TLS and the upgrade.
    pub(crate) async fn upgrade(&self, from: Ipv4Addr) -> Result<(Connected, TlsFacts), String> {
        let tcp = self.tcp(from).await.map_err(|why| format!("tcp: {}", why.kind()))?;
        let url = format!("wss://{}/", self.address);
        ws::client(tcp, Arc::clone(&self.tls), "127.0.0.1", &url).await.map_err(|why| format!("upgrade: {}", said(&why)))
    }

    /// An INIT that this relay answers, on this connection.
    pub(crate) fn offer(&self, facts: &TlsFacts, coins: [u8; 96]) -> (Setup, Arc<Offer>) {
        let setup = Setup::client_relay(facts.exporter);
        let suites = vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
        let sid = u32::from_be_bytes([coins[0], coins[1], coins[2], coins[3]]);
        let work = Work::Offer { setup: setup.clone(), responder: self.id, sid, suites, coins: coins.into() };
        let Outcome::Offered(offer) = run(work) else { unreachable!("an offer makes an offer") };
        (setup, offer)
    }

    /// All of it: the client is established in network `network`.
    pub(crate) async fn join(&self, from: Ipv4Addr, identity: Arc<Identity>, network: u32) -> Result<Client, String> {
        patiently(Box::pin(async {
            let (mut connected, facts) = self.upgrade(from).await?;
            let mut coins = [0; 96];
            coins[..32].copy_from_slice(&identity.id().0);
            coins[32..64].copy_from_slice(&facts.exporter);
            let (setup, offer) = self.offer(&facts, coins);
            connected.writer.send(offer.init().to_vec()).await.map_err(|why| format!("INIT: {}", said(&why)))?;
            let resp = connected.reader.next().await.map_err(|why| format!("RESP: {}", said(&why)))?;
            let mut net_r = [7; 32];
            net_r[..4].copy_from_slice(&network.to_be_bytes());
            let params = Params { net_r: Some(net_r), ..Params::default() };
            let own_sid = offer.sid();
            let coins = [coins[33]; 32].into();
            let outcome = run(Work::Conclude { setup, identity, responder: self.id, offer, resp, params, coins });
            let Outcome::Concluded(Ok(concluded)) = outcome else { return Err("RESP is not good".into()) };
            connected.writer.send(concluded.fin).await.map_err(|why| format!("FIN: {}", said(&why)))?;
            let keys = concluded.chain.keys(Side::Initiator, &AwsLc);
            let mut first = connected.reader.next().await.map_err(|why| format!("ESTABLISHED: {}", said(&why)))?;
            match open(&keys, own_sid, &mut first) {
                Some(RelayMessage::Established(established)) => {
                    let sealer = Sealer { keys, peer_sid: concluded.peer_sid, sealed: 0 };
                    Ok(Client { connected, established, sealer })
                }
                _ => Err("something else than ESTABLISHED".into()),
            }
        }))
        .await
    }
}

impl Client {
    pub(crate) fn handle(&self) -> Handle {
        self.established.your_handle
    }
}

impl Sealer {
    /// A message to the relay, sealed.
    pub(crate) fn seal(&mut self, message: &RelayMessage) -> Vec<u8> {
        self.finish(INNER_CONTROL, |frame| {
            message.emit(frame);
        })
    }

    /// BIND (protocol 8.1).
    pub(crate) fn question(&self) -> Vec<u8> {
        seal_bind(&self.keys.path, &Bind { receiver: self.peer_sid, nonce: [1; 8] }).to_vec()
    }

    /// What the relay answers to it.
    pub(crate) fn answer(&self, datagram: &[u8]) -> Option<Bound> {
        open_bound(&self.keys.path, datagram).ok()
    }

    /// A sign of life, sealed.
    pub(crate) fn keepalive(&mut self) -> Vec<u8> {
        self.finish(INNER_KEEPALIVE, |_| {})
    }

    fn finish(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.push(kind);
        body(&mut frame);
        frame.resize(frame.len() + TAG_LEN, 0);
        let header = FrameHeader { epoch: 0, generation: 0, receiver: self.peer_sid, counter: Counter::new(LANE_NODE, self.sealed) };
        self.sealed += 1;
        self.keys.seal.seal(header, &mut frame);
        frame
    }
}

/// One record as a message.
pub(crate) fn forward(to: Handle, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    Record { kind: TYPE_FWD, flags: 0, handle: to, payload }.emit(&mut message);
    message
}

fn open(keys: &EpochKeys, own_sid: u32, bytes: &mut [u8]) -> Option<RelayMessage> {
    if FrameHeader::parse(bytes).ok()?.receiver != own_sid {
        return None;
    }
    RelayMessage::parse(keys.open.open(bytes).ok()?.get(1..)?).ok()
}
