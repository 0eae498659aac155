//! WebSocket over TLS over loopback: what a dialler and a listener see of each other.
use rustls::ServerConfig;
use shadowmesh_core::{
    crypto::Identity,
    event::{Ended, Target},
    hub::{Refusal, Standing},
    id::PeerId,
    time::Instant,
};
use shadowmesh_runtime_smol::{
    dial::dial,
    listen::{self, Accepted, Door},
    ws::MESSAGE_BYTES,
};
use shadowmesh_runtime_std::{
    listen::{Bounds, Slots, bind},
    tls::{self, CertStore},
};
use smol::{Async, LocalExecutor, future, io::AsyncReadExt, io::AsyncWriteExt};
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn messages_of_all_sizes_cross_both_ways_on_one_bound_connection() {
    run(BOUNDS, |server| async move {
        let (mut client, facts) = dial(server.direct(server.id), LIMIT).await.expect("dial");
        let mut accepted = server.next().await.expect("accepted");
        assert_eq!(facts.identity, Some(server.id));
        assert_eq!(facts.exporter, accepted.exporter);
        assert_eq!(client.local, accepted.connected.remote);
        assert_eq!(client.remote, accepted.connected.local);
        for len in [0, 1, 125, 126, 65_535, 65_536, MESSAGE_BYTES] {
            let message: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).expect("small")).collect();
            client.writer.send(message.clone()).await.expect("send");
            assert_eq!(accepted.connected.reader.next().await, Ok(message.clone()));
            accepted.connected.writer.send(message.clone()).await.expect("send");
            assert_eq!(client.reader.next().await, Ok(message));
        }
        client.writer.close().await;
        assert_eq!(accepted.connected.reader.next().await, Err(Ended::ByPeer));
    });
}

#[test]
fn a_message_above_the_limit_ends_the_connection_with_a_reason() {
    run(BOUNDS, |server| async move {
        let (mut client, _) = dial(server.direct(server.id), LIMIT).await.expect("dial");
        let mut accepted = server.next().await.expect("accepted");
        let too_long = vec![0; MESSAGE_BYTES + 1];
        let taking = accepted.connected.reader.next();
        let (_, taken) = future::zip(client.writer.send(too_long), taking).await;
        assert!(matches!(taken, Err(Ended::WebSocket(_))), "{taken:?}");
    });
}

#[test]
fn a_server_with_another_identity_is_refused_by_name() {
    run(BOUNDS, |server| async move {
        let refused = dial(server.direct(PeerId([9; 32])), LIMIT).await.map(drop);
        assert_eq!(refused, Err(Ended::WrongIdentity { got: Some(server.id), subject: None }));
        assert!(matches!(server.next().await, Err(Ended::Tls(_) | Ended::ByPeer | Ended::Reset)));
    });
}

#[test]
fn a_relay_is_dialled_by_url() {
    run(BOUNDS, |server| async move {
        let url = format!("wss://localhost:{}", server.address.port());
        let target = Target::Relay { index: 0, url, pin: Some(server.id) };
        let (_, facts) = dial(target, LIMIT).await.expect("dial");
        assert_eq!(facts.identity, Some(server.id));
        server.next().await.expect("accepted");
    });
}

#[test]
fn who_speaks_no_tls_is_dropped_and_given_back() {
    run(BOUNDS, |server| async move {
        let mut tcp = Async::<TcpStream>::connect(server.address).await.expect("connect");
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
        assert!(matches!(server.next().await, Err(Ended::Tls(_))));
        let mut rest = Vec::new();
        // A TLS alert at most, and then the end.
        let _ = tcp.read_to_end(&mut rest).await;
        assert!(rest.len() < 32, "{rest:?}");
    });
}

#[test]
fn who_stays_silent_is_dropped_after_the_time_for_the_handshake() {
    let bounds = Bounds { time: Duration::from_millis(50), ..BOUNDS };
    run(bounds, |server| async move {
        let mut tcp = Async::<TcpStream>::connect(server.address).await.expect("connect");
        assert_eq!(server.next().await.map(drop), Err(Ended::TimedOut));
        assert_eq!(tcp.read(&mut [0; 1]).await.expect("the end"), 0);
    });
}

#[test]
fn one_source_cannot_hold_more_handshakes_than_its_share() {
    let bounds = Bounds { handshakes_per_source: 2, ..BOUNDS };
    run(bounds, |server| async move {
        let _first = Async::<TcpStream>::connect(server.address).await.expect("connect");
        let _second = Async::<TcpStream>::connect(server.address).await.expect("connect");
        let mut third = Async::<TcpStream>::connect(server.address).await.expect("connect");
        assert_eq!(third.read(&mut [0; 1]).await.expect("closed at once"), 0);
    });
}

// --- helpers ---

const BOUNDS: Bounds = Bounds { handshakes: 16, handshakes_per_source: 8, time: LIMIT };

struct Server {
    id: PeerId,
    address: SocketAddr,
    outcomes: flume::Receiver<Result<Accepted, Ended>>,
}

impl Server {
    fn direct(&self, pin: PeerId) -> Target {
        Target::Direct { address: self.address, pin }
    }

    async fn next(&self) -> Result<Accepted, Ended> {
        self.outcomes.recv_async().await.expect("the listener runs")
    }
}

struct TestDoor(flume::Sender<Result<Accepted, Ended>>);

impl Door for TestDoor {
    fn admit(&self, remote: SocketAddr) -> Result<Standing, Refusal> {
        assert!(remote.ip().is_loopback());
        Ok(Standing::Stranger)
    }

    fn accepted(&self, accepted: Accepted) {
        self.0.send(Ok(accepted)).expect("the test listens");
    }

    fn released(&self, _remote: SocketAddr, why: Ended) {
        self.0.send(Err(why)).expect("the test listens");
    }
}

/// Runs a story against a listener on loopback, within a time limit.
fn run<F: Future<Output = ()>>(bounds: Bounds, story: impl FnOnce(Server) -> F) {
    let identity = Identity::from_seed([1; 32]);
    let certificates = CertStore::new(&identity, Duration::from_hours(1), Instant::ZERO, SystemTime::now()).expect("certificate");
    let config: Arc<ServerConfig> = tls::server_config(certificates);
    let executor = Rc::new(LocalExecutor::new());
    let listener = bind("127.0.0.1:0".parse().expect("address"), false).expect("bind");
    let listener = Async::<TcpListener>::new(listener).expect("a listener");
    let address = listener.get_ref().local_addr().expect("address");
    let (sender, outcomes) = flume::unbounded();
    let serving = listen::serve(listener, config, Slots::new(bounds), Rc::new(TestDoor(sender)), Rc::downgrade(&executor));
    executor.spawn(serving).detach();
    let story = story(Server { id: identity.id(), address, outcomes });
    smol::block_on(executor.run(future::or(story, async {
        smol::Timer::after(Duration::from_secs(30)).await;
        panic!("the story does not end");
    })));
}
