//! A running relay and clients over real TLS and WebSocket on loopback: what the machines promise holds on the wire.
use core::net::SocketAddr;
use shadowmesh_core::{
    config::{HubConfig, Limits},
    crypto::{Identity, awslc::AwsLc},
    event::Target,
    handshake::{Job, Offer, Outcome, Setup, Ticket, Work},
    id::{Handle, PeerId},
    session::{EpochKeys, Side, Suite},
    wire::{
        Counter, Established, FRAME_HEADER_LEN, FrameHeader, INNER_CONTROL, LANE_NODE, Params, Record, Records, RelayMessage, TAG_LEN,
        TYPE_DLV, TYPE_FWD,
    },
};
use shadowmesh_runtime_smol::{
    dial::dial,
    relay::{self, Relay, RelayOptions},
    ws::Connected,
};
use smol::{Timer, future};
use std::{sync::Arc, time::Duration};

const NETWORK: [u8; 32] = [7; 32];
/// Far more than any test takes; what waits longer is lost.
const PATIENCE: Duration = Duration::from_secs(30);

fn identity(n: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed([n; 32]))
}

fn start(listen: &str, limits: Limits) -> (Relay, PeerId, String) {
    let identity = identity(200);
    let id = identity.id();
    let hub = HubConfig { limits, ..HubConfig::new(identity, Arc::new(AwsLc)) };
    let relay = relay::start(RelayOptions::new(hub, listen.parse().expect("an address"))).expect("starts");
    let url = format!("wss://{}", relay.addresses()[0]);
    (relay, id, url)
}

/// Runs `test`, or fails when it takes too long.
fn within_patience(test: impl Future<Output = ()>) {
    smol::block_on(future::or(test, async {
        Timer::after(PATIENCE).await;
        panic!("nothing happened for {PATIENCE:?}");
    }));
}

fn run(work: Work) -> Outcome {
    Job { ticket: Ticket(0), work }.run(&AwsLc).outcome
}

struct Client {
    connected: Connected,
    keys: EpochKeys,
    own_sid: u32,
    peer_sid: u32,
    sealed: u64,
    established: Established,
}

/// A connection with its HELLO sent and CHALLENGE taken.
async fn greet(url: &str, id: PeerId) -> (Connected, Setup, Arc<Offer>, Vec<u8>) {
    let target = Target::Relay { index: 0, url: url.to_owned(), pin: Some(id) };
    let (mut connected, tls) = dial(target, PATIENCE).await.expect("connects");
    assert_eq!(tls.identity, Some(id));
    let setup = Setup::client_relay(tls.exporter);
    let suites = vec![Suite::ChaCha20Poly1305];
    let offer = Work::Offer { setup: setup.clone(), responder: id, sid: 5, suites, coins: [9; 96].into() };
    let Outcome::Offered(offer) = run(offer) else { panic!("an offer") };
    connected.writer.send(offer.init().to_vec()).await.expect("sent");
    let resp = connected.reader.next().await.expect("CHALLENGE");
    (connected, setup, offer, resp)
}

impl Client {
    async fn join(url: &str, id: PeerId, n: u8) -> Self {
        let (mut connected, setup, offer, resp) = greet(url, id).await;
        let params = Params { net_r: Some(NETWORK), supports_direct: true, ..Params::default() };
        let work =
            Work::Conclude { setup, identity: identity(n), responder: id, offer: Arc::clone(&offer), resp, params, coins: [1; 32].into() };
        let Outcome::Concluded(Ok(concluded)) = run(work) else { panic!("a good CHALLENGE") };
        connected.writer.send(concluded.fin).await.expect("sent");
        let keys = concluded.chain.keys(Side::Initiator, &AwsLc);
        let mut first = connected.reader.next().await.expect("ESTABLISHED");
        let RelayMessage::Established(established) = open(&keys, offer.sid(), &mut first) else { panic!("ESTABLISHED comes first") };
        Self { connected, keys, own_sid: offer.sid(), peer_sid: concluded.peer_sid, sealed: 0, established }
    }

    async fn say(&mut self, message: &RelayMessage) {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.push(INNER_CONTROL);
        message.emit(&mut frame);
        frame.resize(frame.len() + TAG_LEN, 0);
        let header = FrameHeader { epoch: 0, generation: 0, receiver: self.peer_sid, counter: Counter::new(LANE_NODE, self.sealed) };
        self.sealed += 1;
        self.keys.seal.seal(header, &mut frame);
        self.connected.writer.send(frame).await.expect("sent");
    }

    async fn forward(&mut self, to: Handle, payload: &[u8]) {
        let mut message = Vec::new();
        Record { kind: TYPE_FWD, flags: 0, handle: to, payload }.emit(&mut message);
        self.connected.writer.send(message).await.expect("sent");
    }

    /// The next message of the relay for which `wanted` holds; others are passed over.
    async fn told(&mut self, wanted: impl Fn(&RelayMessage) -> bool) -> RelayMessage {
        loop {
            let mut bytes = self.connected.reader.next().await.expect("the connection lives");
            if bytes[0] != TYPE_DLV {
                let message = open(&self.keys, self.own_sid, &mut bytes);
                if wanted(&message) {
                    return message;
                }
            }
        }
    }

    /// The next records; messages of the relay are passed over.
    async fn records(&mut self) -> Vec<(Handle, Vec<u8>)> {
        loop {
            let bytes = self.connected.reader.next().await.expect("the connection lives");
            if bytes[0] == TYPE_DLV {
                return Records::new(&bytes)
                    .map(|record| record.expect("well-formed"))
                    .map(|record| (record.handle, record.payload.to_vec()))
                    .collect();
            }
        }
    }
}

fn open(keys: &EpochKeys, own_sid: u32, bytes: &mut [u8]) -> RelayMessage {
    assert_eq!(FrameHeader::parse(bytes).expect("a sealed frame").receiver, own_sid);
    let plain = keys.open.open(bytes).expect("sealed by the relay");
    RelayMessage::parse(&plain[1..]).expect("a message of the relay")
}

fn round_trip(listen: &str) {
    let (relay, id, url) = start(listen, Limits::default());
    within_patience(async {
        let mut a = Client::join(&url, id, 1).await;
        let mut b = Client::join(&url, id, 2).await;
        let observed: SocketAddr = b.established.observed;
        assert_eq!(observed, b.connected.local, "the relay tells the address that the client's socket has");
        let seen = a.told(|message| matches!(message, RelayMessage::Directory { .. })).await;
        let RelayMessage::Directory { entries } = seen else { unreachable!("only these were waited for") };
        assert_eq!((entries[0].handle, entries[0].public), (b.established.your_handle, Some(observed)));
        a.say(&RelayMessage::Ping { id: 77 }).await;
        assert_eq!(a.told(|message| matches!(message, RelayMessage::Pong { .. })).await, RelayMessage::Pong { id: 77 });
        for n in 0..100u8 {
            a.forward(b.established.your_handle, &[0x10, n]).await;
        }
        let mut got = Vec::new();
        while got.len() < 100 {
            got.extend(b.records().await);
        }
        assert!(got.iter().zip(0..).all(|((from, payload), n)| *from == a.established.your_handle && payload == &[0x10, n]), "in order");
        let (_, status) = relay.status().await.expect("it runs");
        assert_eq!((status.clients.len(), status.preauth, status.forward.tx_frames), (2, 0, 100));
        relay.leave().await;
        b.told(|message| matches!(message, RelayMessage::Close { .. })).await;
    });
}

#[test]
fn two_clients_meet_over_ipv4() {
    round_trip("127.0.0.1:0");
}

#[test]
fn two_clients_meet_over_ipv6() {
    round_trip("[::1]:0");
}

#[test]
fn a_newer_connection_takes_the_place_of_the_older() {
    let (relay, id, url) = start("127.0.0.1:0", Limits::default());
    within_patience(async {
        let mut old = Client::join(&url, id, 1).await;
        let new = Client::join(&url, id, 1).await;
        assert!(new.established.your_handle > old.established.your_handle);
        old.told(|message| matches!(message, RelayMessage::Close { .. })).await;
        assert!(old.connected.reader.next().await.is_err(), "then the connection ends");
        let (_, status) = relay.status().await.expect("it runs");
        assert_eq!(status.clients.len(), 1);
        relay.leave().await;
    });
}

#[test]
fn who_proves_nothing_is_hung_up_in_time_and_holds_nobody_else_up() {
    let limits = Limits { preauth_time: Duration::from_millis(300), preauth_per_source: 4, ..Limits::default() };
    let (relay, id, url) = start("127.0.0.1:0", limits);
    within_patience(async {
        let mut mute = Vec::new();
        for _ in 0..3 {
            mute.push(greet(&url, id).await.0);
        }
        let client = Client::join(&url, id, 1).await;
        for connected in &mut mute {
            assert!(connected.reader.next().await.is_err());
        }
        let (_, status) = relay.status().await.expect("it runs");
        assert_eq!((status.dropped("preauth_time"), status.clients.len()), (3, 1));
        assert_eq!(status.clients[0].handle, client.established.your_handle);
        relay.leave().await;
    });
}

#[test]
fn garbage_after_the_handshake_is_counted_and_the_session_lives() {
    let (relay, id, url) = start("127.0.0.1:0", Limits::default());
    within_patience(async {
        let mut a = Client::join(&url, id, 1).await;
        for garbage in [vec![0x10; 40], vec![0x30, 0, 0xff, 0xff, 1], vec![0x01; 2_000], vec![0xee], vec![0x30, 0, 0, 1, 0, 0, 0, 99, 0x10]]
        {
            a.connected.writer.send(garbage).await.expect("sent");
        }
        a.say(&RelayMessage::Ping { id: 3 }).await;
        a.told(|message| *message == RelayMessage::Pong { id: 3 }).await;
        let (_, status) = relay.status().await.expect("it runs");
        let counted = ["bad_frame", "malformed_record", "unexpected_message", "unknown_handle"].map(|reason| status.dropped(reason));
        assert_eq!((counted, status.clients.len()), ([1, 1, 2, 1], 1));
        relay.leave().await;
    });
}
