//! The relay's driver with a real hub, spoken to by hand over TLS and WebSocket. Each story runs on each runtime.
mod support;

use shadowmesh_core::{
    binding::{open_bound, seal_bind},
    config::{HubConfig, Limits},
    crypto::{Identity, awslc::AwsLc},
    event::{Ended, Target, TlsFacts},
    handshake::{Job, Outcome, Setup, Ticket, Work},
    hub::HubNote,
    id::{Handle, PeerId},
    session::{EpochKeys, Side, Suite},
    time::Instant,
    wire::{BIND_LEN, Bind, Counter, FRAME_HEADER_LEN, FrameHeader, INNER_CONTROL, LANE_NODE, Params, RelayMessage, TAG_LEN, TYPE_FRAME},
};
use shadowmesh_runtime_smol::{dial::dial, ws::Connected};
use shadowmesh_runtime_std::{
    relay::{Relay, RelayOptions},
    udp,
};
use smol::{
    Async, Timer, future,
    io::{AsyncReadExt, AsyncWriteExt},
};
use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    time::Duration,
};
use support::Runtime;

stories! { [on_smol: support::SMOL, on_threads: support::THREADS]
    a_client_that_proves_itself_joins_and_is_listed_until_it_closes,
    a_client_that_sends_noise_is_hung_up_and_others_stay,
    a_client_that_proves_nothing_is_hung_up_in_time,
    who_stays_silent_before_tls_is_dropped_in_time,
    who_speaks_no_tls_is_dropped_at_once,
    one_source_cannot_hold_more_handshakes_than_its_share,
    hostile_half_open_connections_cost_no_thread,
    a_relay_that_leaves_says_so_to_its_clients_and_frees_its_port,
    a_relay_without_a_free_address_says_which,
    a_client_is_told_its_udp_address_by_both_ports,
    datagrams_pass_between_clients_as_they_are,
}

fn a_client_that_proves_itself_joins_and_is_listed_until_it_closes(on: Runtime) {
    story(on, Limits::default(), |relay| async move {
        let notes = relay.notes();
        let (mut client, id) = join(&relay, 1).await;
        let (remote, handle) = match next(&notes).await {
            HubNote::Joined { id: joined, remote, handle } if joined == id => (remote, handle),
            other => panic!("{other:?} instead of Joined"),
        };
        assert_eq!(remote, client.local);
        let (_, status) = relay.status().await.expect("the relay runs");
        assert_eq!(status.clients.len(), 1);
        assert_eq!((status.clients[0].id, status.clients[0].handle), (id, handle));
        client.writer.close().await;
        assert!(matches!(next(&notes).await, HubNote::Left { id: left, .. } if left == id));
    });
}

fn a_client_that_sends_noise_is_hung_up_and_others_stay(on: Runtime) {
    story(on, Limits::default(), |relay| async move {
        let (_good, id) = join(&relay, 1).await;
        let (mut bad, _) = connect(&relay).await;
        bad.writer.send(vec![0x55; 40_000]).await.expect("send");
        assert!(ended(&mut bad).await);
        let (_, status) = relay.status().await.expect("the relay runs");
        assert_eq!(status.clients.iter().map(|c| c.id).collect::<Vec<_>>(), [id]);
    });
}

fn a_client_that_proves_nothing_is_hung_up_in_time(on: Runtime) {
    let limits = Limits { preauth_time: Duration::from_millis(300), ..Limits::default() };
    story(on, limits, |relay| async move {
        let (mut idle, _) = connect(&relay).await;
        assert!(ended(&mut idle).await);
    });
}

fn who_stays_silent_before_tls_is_dropped_in_time(on: Runtime) {
    let limits = Limits { preauth_time: Duration::from_millis(100), ..Limits::default() };
    story(on, limits, |relay| async move {
        let mut tcp = Async::<TcpStream>::connect(relay.addresses()[0]).await.expect("connect");
        assert_eq!(tcp.read(&mut [0; 1]).await.expect("the end"), 0);
    });
}

fn who_speaks_no_tls_is_dropped_at_once(on: Runtime) {
    story(on, Limits::default(), |relay| async move {
        let mut tcp = Async::<TcpStream>::connect(relay.addresses()[0]).await.expect("connect");
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
        let mut rest = Vec::new();
        // A TLS alert at most, and then the end.
        let _ = tcp.read_to_end(&mut rest).await;
        assert!(rest.len() < 32, "{rest:?}");
    });
}

fn one_source_cannot_hold_more_handshakes_than_its_share(on: Runtime) {
    let limits = Limits { preauth_per_source: 2, preauth_time: Duration::from_secs(20), ..Limits::default() };
    story(on, limits, |relay| async move {
        let connect = || Async::<TcpStream>::connect(relay.addresses()[0]);
        let first = connect().await.expect("connect");
        let _second = connect().await.expect("connect");
        let mut third = connect().await.expect("connect");
        assert_eq!(third.read(&mut [0; 1]).await.expect("closed at once"), 0);
        // A place that is given back can be taken again.
        drop(first);
        let mut joined = None;
        while joined.is_none() {
            joined = try_connect(&relay).await.ok();
        }
    });
}

fn hostile_half_open_connections_cost_no_thread(on: Runtime) {
    let limits = Limits { preauth_per_source: 256, join_burst: 256, preauth_time: Duration::from_secs(20), ..Limits::default() };
    story(on, limits, |relay| async move {
        let mut held = Vec::new();
        for _ in 0..HALF_OPEN {
            held.push(Async::<TcpStream>::connect(relay.addresses()[0]).await.expect("connect"));
        }
        // Who means it gets in beside them, and by then all others have been taken.
        let (_client, _) = join(&relay, 1).await;
        let threads = threads();
        assert!(threads < HALF_OPEN / 2, "{threads} threads");
    });
}

/// Connections that say nothing.
const HALF_OPEN: usize = 120;

/// Threads of all machines in this process; tests beside this one have a few as well.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("mesh-")).count()
}

fn a_relay_that_leaves_says_so_to_its_clients_and_frees_its_port(on: Runtime) {
    story(on, Limits::default(), |relay| async move {
        let (mut client, _) = join(&relay, 1).await;
        let address = relay.addresses()[0];
        let ((), said) = future::zip(relay.leave(), client.reader.next()).await;
        assert_eq!(said.map(|close| close[0]), Ok(TYPE_FRAME));
        assert!(ended(&mut client).await);
        assert_eq!(relay.finished().await, Ok(()));
        assert!(relay.status().await.is_none());
        start(on, &address.to_string(), Limits::default()).leave().await;
    });
}

fn a_relay_without_a_free_address_says_which(on: Runtime) {
    let first = start(on, "127.0.0.1:0", Limits::default());
    let options = options(&first.addresses()[0].to_string(), Limits::default());
    let why = (on.relay)(options).map(drop).expect_err("in use").to_string();
    assert!(why.contains(&first.addresses()[0].to_string()) && why.contains("in use"), "{why}");
    let nowhere = RelayOptions { listen: Vec::new(), ..self::options("127.0.0.1:0", Limits::default()) };
    assert!((on.relay)(nowhere).map(drop).expect_err("none").to_string().contains("--listen"));
}

// protocol 8.1
fn a_client_is_told_its_udp_address_by_both_ports(on: Runtime) {
    story(on, Limits::default(), |relay| async move {
        let Entered { client: _stays, keys, relay_sid, mut established, .. } = enter(&relay, 1).await;
        let plain = keys.open.open(&mut established).expect("sealed by the relay");
        let RelayMessage::Established(established) = RelayMessage::parse(&plain[1..]).expect("a message") else { panic!("ESTABLISHED") };
        assert_ne!(established.udp_port, 0, "the first port was asked for, so it is there");
        let socket = Async::<UdpSocket>::bind(([127, 0, 0, 1], 0)).expect("loopback");
        let own = socket.get_ref().local_addr().expect("bound");
        let ask = async |port: u16, nonce: u8| {
            let question = seal_bind(&keys.path, &Bind { receiver: relay_sid, nonce: [nonce; 8] });
            let to = SocketAddr::from(([127, 0, 0, 1], port));
            // noise on the way changes nothing
            socket.send_to(&question[1..], to).await.expect("loopback");
            socket.send_to(&[0x24; 2_000], to).await.expect("loopback");
            socket.send_to(&question, to).await.expect("loopback");
            let mut answer = [0; 100];
            let (len, from) = socket.recv_from(&mut answer).await.expect("an answer");
            assert_eq!((len, from), (BIND_LEN, to), "from where it was asked, and no longer");
            open_bound(&keys.path, &answer[..len]).expect("by the relay")
        };
        let first = ask(established.udp_port, 1).await;
        assert_eq!((first.receiver, first.nonce, first.address), (7, [1; 8], own));
        // the next port may be another program's
        if first.other_port != 0 {
            assert_eq!(first.other_port, established.udp_port + 1);
            let second = ask(first.other_port, 2).await;
            assert_eq!((second.address, second.other_port), (own, established.udp_port));
        }
        let (_, status) = relay.status().await.expect("the relay runs");
        assert!(status.dropped("malformed_datagram") >= 2);
    });
}

// protocol 8.8
fn datagrams_pass_between_clients_as_they_are(on: Runtime) {
    story(on, Limits::default(), |relay| async move {
        let (mut a, mut b) = (Attached::enter(&relay, 1).await, Attached::enter(&relay, 2).await);
        let stranger = Async::<UdpSocket>::bind(([127, 0, 0, 1], 0)).expect("loopback");
        stranger.send_to(&frame(50, 0, 100), a.relay).await.expect("loopback");
        // each calls the other what it likes
        let handles = [a.handle, b.handle];
        a.route(50, handles[1]).await;
        b.route(60, handles[0]).await;
        for (from, to, receiver) in [(&a, &b, 50), (&b, &a, 60)] {
            let mut run: Vec<u8> = (0..40).flat_map(|number| frame(receiver, number, 1_200)).collect();
            run.truncate(run.len() - 1_000);
            udp::send_run(from.socket.get_ref(), from.relay, &run, 1_200).expect("Linux 4.18");
            let came = to.hear(run.len()).await;
            assert!(came == run, "all of it, in order and not altered");
        }
        // A question amid frames, as long as they are, is answered, and what stands around it passes on. So does what was never in a run.
        let parts = [frame(50, 1, BIND_LEN), a.question(9), frame(50, 2, BIND_LEN), frame(51, 3, BIND_LEN), frame(50, 4, BIND_LEN)];
        udp::send_run(a.socket.get_ref(), a.relay, &parts.concat(), BIND_LEN as u16).expect("Linux 4.18");
        assert!(b.hear(3 * BIND_LEN).await == [&parts[0][..], &parts[2], &parts[4]].concat());
        let bound = a.hear(BIND_LEN).await;
        assert_eq!(open_bound(&a.entered.keys.path, &bound).expect("by the relay").nonce, [9; 8]);
        a.socket.send_to(&frame(50, 5, 9), a.relay).await.expect("loopback");
        assert_eq!(b.hear(9).await, frame(50, 5, 9));
        let (_, status) = relay.status().await.expect("the relay runs");
        let dropped = ["unknown_source", "no_route", "malformed_datagram", "datagram_lost"].map(|reason| status.dropped(reason));
        assert_eq!(dropped, [1, 1, 0, 0]);
        assert_eq!(status.forward.tx_frames, 84);
        // who has gone is reached no more
        drop(b);
        while relay.status().await.expect("the relay runs").1.clients.len() > 1 {
            future::yield_now().await;
        }
        a.socket.send_to(&frame(50, 6, 9), a.relay).await.expect("loopback");
        while relay.status().await.expect("the relay runs").1.dropped("no_route") < 2 {
            future::yield_now().await;
        }
    });
}

/// A frame of so many bytes as it looks to a relay.
fn frame(receiver: u32, number: u8, len: usize) -> Vec<u8> {
    let mut frame = [&[TYPE_FRAME, 0, 0, 0][..], &receiver.to_be_bytes()].concat();
    frame.resize(len, number);
    frame
}

/// A client that is there by UDP (protocol 8.8).
struct Attached {
    entered: Entered,
    socket: Async<UdpSocket>,
    relay: SocketAddr,
    handle: Handle,
    sealed: u64,
}

impl Attached {
    async fn enter(relay: &Relay, number: u8) -> Self {
        let mut entered = enter(relay, number).await;
        let plain = entered.keys.open.open(&mut entered.established).expect("sealed by the relay");
        let RelayMessage::Established(established) = RelayMessage::parse(&plain[1..]).expect("a message") else { panic!("ESTABLISHED") };
        let socket = Async::<UdpSocket>::bind(([127, 0, 0, 1], 0)).expect("loopback");
        let relay = SocketAddr::from(([127, 0, 0, 1], established.udp_port));
        let mut attached = Self { entered, socket, relay, handle: established.your_handle, sealed: 0 };
        attached.socket.send_to(&attached.question(1), relay).await.expect("loopback");
        let bound = open_bound(&attached.entered.keys.path, &attached.hear(BIND_LEN).await).expect("by the relay");
        attached.say(&RelayMessage::Attach { address: bound.address, ticket: bound.ticket }).await;
        attached
    }

    fn question(&self, nonce: u8) -> Vec<u8> {
        seal_bind(&self.entered.keys.path, &Bind { receiver: self.entered.relay_sid, nonce: [nonce; 8] }).to_vec()
    }

    /// Names whom it means, and waits until the relay has heard it.
    async fn route(&mut self, receiver: u32, to: Handle) {
        self.say(&RelayMessage::Route { receiver, to }).await;
        self.say(&RelayMessage::Ping { id: receiver }).await;
        loop {
            let mut frame = self.entered.client.reader.next().await.expect("the connection lives");
            let plain = self.entered.keys.open.open(&mut frame).expect("sealed by the relay");
            if RelayMessage::parse(&plain[1..]) == Ok(RelayMessage::Pong { id: receiver }) {
                return;
            }
        }
    }

    async fn say(&mut self, message: &RelayMessage) {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.push(INNER_CONTROL);
        message.emit(&mut frame);
        frame.resize(frame.len() + TAG_LEN, 0);
        let counter = Counter::new(LANE_NODE, self.sealed);
        self.sealed += 1;
        self.entered.keys.seal.seal(FrameHeader { epoch: 0, generation: 0, receiver: self.entered.relay_sid, counter }, &mut frame);
        self.entered.client.writer.send(frame).await.expect("the connection lives");
    }

    /// Datagrams of so many bytes in all, from the relay.
    async fn hear(&self, len: usize) -> Vec<u8> {
        let (mut all, mut datagram) = (Vec::new(), [0; 2_000]);
        while all.len() < len {
            let (len, from) = self.socket.recv_from(&mut datagram).await.expect("loopback");
            assert_eq!(from, self.relay);
            all.extend_from_slice(&datagram[..len]);
        }
        all
    }
}

// --- a client by hand ---

/// A client that was let in.
struct Entered {
    client: Connected,
    id: PeerId,
    keys: EpochKeys,
    relay_sid: u32,
    /// ESTABLISHED as it came.
    established: Vec<u8>,
}

/// Connects and goes through the handshake (protocol 3) up to ESTABLISHED.
async fn join(relay: &Relay, number: u8) -> (Connected, PeerId) {
    let Entered { client, id, .. } = enter(relay, number).await;
    (client, id)
}

async fn enter(relay: &Relay, number: u8) -> Entered {
    let (mut client, tls) = connect(relay).await;
    let identity = Arc::new(Identity::from_seed([number; 32]));
    let (setup, responder) = (Setup::client_relay(tls.exporter), relay_identity().id());
    let suites = vec![Suite::ChaCha20Poly1305];
    let work = Work::Offer { setup: setup.clone(), responder, sid: 7, suites, coins: [number; 96].into() };
    let Outcome::Offered(offer) = run(work) else { panic!("an offer") };
    client.writer.send(offer.init().to_vec()).await.expect("send");
    let resp = client.reader.next().await.expect("RESP");
    let params = Params { net_r: Some([3; 32]), ..Params::default() };
    let work = Work::Conclude { setup, identity: Arc::clone(&identity), responder, offer, resp, params, coins: [number; 32].into() };
    let Outcome::Concluded(Ok(concluded)) = run(work) else { panic!("the relay proves itself") };
    client.writer.send(concluded.fin).await.expect("send");
    let established = client.reader.next().await.expect("ESTABLISHED");
    assert_eq!(established[0], TYPE_FRAME);
    let keys = concluded.chain.keys(Side::Initiator, &AwsLc);
    Entered { client, id: identity.id(), keys, relay_sid: concluded.peer_sid, established }
}

fn run(work: Work) -> Outcome {
    Job { ticket: Ticket(1), work }.run(&AwsLc).outcome
}

async fn connect(relay: &Relay) -> (Connected, TlsFacts) {
    try_connect(relay).await.expect("dial")
}

async fn try_connect(relay: &Relay) -> Result<(Connected, TlsFacts), Ended> {
    let url = format!("wss://{}", relay.addresses()[0]);
    let target = Target::Relay { index: 0, url, pin: Some(relay_identity().id()) };
    dial(target, Duration::from_secs(10)).await
}

/// Reads to the end of the connection.
async fn ended(client: &mut Connected) -> bool {
    loop {
        match client.reader.next().await {
            Ok(_) => {}
            Err(Ended::ByPeer | Ended::Reset) => return true,
            Err(_) => return false,
        }
    }
}

async fn next(notes: &flume::Receiver<(Instant, HubNote)>) -> HubNote {
    notes.recv_async().await.expect("the relay runs").1
}

// --- the relay ---

fn relay_identity() -> Identity {
    Identity::from_seed([200; 32])
}

fn options(address: &str, limits: Limits) -> RelayOptions {
    let address: SocketAddr = address.parse().expect("address");
    let suites = vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let hub = HubConfig { suites, limits, ..HubConfig::new(Arc::new(relay_identity()), Arc::new(AwsLc)) };
    RelayOptions { udp: Some(SocketAddr::new(address.ip(), 0)), ..RelayOptions::new(hub, address) }
}

fn start(on: Runtime, address: &str, limits: Limits) -> Relay {
    (on.relay)(options(address, limits)).expect("the relay starts")
}

/// Runs a story against a relay on loopback, within a time limit.
fn story<F: Future<Output = ()>>(on: Runtime, limits: Limits, story: impl FnOnce(Relay) -> F) {
    let story = story(start(on, "127.0.0.1:0", limits));
    smol::block_on(future::or(story, async {
        Timer::after(Duration::from_secs(30)).await;
        panic!("the story does not end");
    }));
}
