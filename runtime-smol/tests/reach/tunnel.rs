//! Relays behind an HTTP proxy: CONNECT (RFC 9110, 9.3.6).
use super::*;
use shadowmesh_core::status::Status;
use smol::{
    Async, Task,
    io::{AsyncReadExt, AsyncWriteExt},
};
use std::net::{TcpListener, TcpStream};

stories! { [on_smol: support::SMOL, on_threads: support::THREADS]
    a_peer_reaches_its_relay_through_a_proxy_that_knows_its_name,
    a_proxy_that_wants_a_password_gets_it_and_says_when_it_is_wrong,
    what_a_proxy_has_against_it_is_told,
    a_proxy_that_is_not_there_or_says_nothing_is_named,
    who_is_reached_without_the_proxy_is,
    a_proxy_that_ends_tls_is_refused_behind_connect_too,
}

/// Names that only the proxy knows.
const NAME: &str = "relay.only-the-proxy-knows.example";

async fn status(peer: &Peer) -> Status {
    peer.status().await.expect("the peer runs").1
}

fn through(on: Runtime, url: &str, proxy: &str) -> Peer {
    let proxies = Proxies { proxy: Some(Arc::new(proxy.parse().expect("a proxy"))), ..Proxies::default() };
    peer(on, 1, url, |options| options.proxies = proxies)
}

fn a_peer_reaches_its_relay_through_a_proxy_that_knows_its_name(on: Runtime) {
    let relay = relay(on, |_| {});
    story(async {
        let (address, asked, _serving) = proxy(relay.addresses()[0], "");
        let peer = through(on, &format!("wss://{NAME}:443"), &format!("http://{address}"));
        connected(&peer).await;
        assert_eq!(asked.recv_async().await.expect("it was asked"), format!("{NAME}:443"));
        let own = status(&peer).await;
        assert_eq!(own.relays[0].id, Some(relay_id()));
        assert!(!own.relays[0].has_reflector, "nobody here knows where to send it datagrams");
        let (_, there) = relay.status().await.expect("the relay runs");
        assert_eq!(there.clients.len(), 1);
        peer.leave().await;
    });
}

fn a_proxy_that_wants_a_password_gets_it_and_says_when_it_is_wrong(on: Runtime) {
    let relay = relay(on, |_| {});
    story(async {
        // "me:s3cret", RFC 7617
        let (address, _asked, _serving) = proxy(relay.addresses()[0], "Basic bWU6czNjcmV0");
        let good = through(on, &at(&relay), &format!("http://me:s3cret@{address}"));
        connected(&good).await;
        good.leave().await;
        for (proxy, part) in [
            (format!("http://{address}"), "wants a name and a password (407 Proxy Authentication Required)"),
            (format!("http://me:wrong@{address}"), "refused this name and password"),
        ] {
            let peer = through(on, &at(&relay), &proxy);
            let why = refused(&peer).await;
            assert!(why.contains(part) && why.contains("network.proxy") && !why.contains("wrong@"), "{why}");
            assert!(status(&peer).await.relays[0].last_error.as_deref().is_some_and(|error| error.contains(part)));
            peer.leave().await;
        }
    });
}

fn what_a_proxy_has_against_it_is_told(on: Runtime) {
    story(async {
        for (answer, part) in [
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "does not allow connections to relay.only-the-proxy-knows.example:443 (403 Forbidden)"),
            ("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "could not reach the relay"),
            ("HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\n\r\n", "wants authentication by Negotiate"),
            ("SSH-2.0-OpenSSH_9\r\n\r\n", "does not answer like an HTTP proxy"),
        ] {
            let (address, _serving) = answers(answer.to_owned());
            let peer = through(on, &format!("wss://{NAME}:443"), &format!("http://{address}"));
            let why = refused(&peer).await;
            assert!(why.contains(part) && why.contains(&address.to_string()), "{why}");
            peer.leave().await;
        }
    });
}

fn a_proxy_that_is_not_there_or_says_nothing_is_named(on: Runtime) {
    story(async {
        let gone = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound");
        let peer = through(on, &format!("wss://{NAME}:443"), &format!("http://{gone}"));
        let why = refused(&peer).await;
        assert!(why.contains(&format!("the proxy http://{gone} cannot be reached")), "{why}");
        peer.leave().await;
        let silent = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = silent.local_addr().expect("bound");
        let proxies = Proxies { proxy: Some(Arc::new(format!("http://{address}").parse().expect("a proxy"))), ..Proxies::default() };
        let target = Target::Relay { index: 0, url: format!("wss://{NAME}:443"), pin: Some(relay_id()) };
        let late = dial_by(target, &proxies, Duration::from_millis(100)).await.map(drop).expect_err("nobody answers").to_string();
        assert!(late.contains("no answer in time") && late.contains(&address.to_string()), "{late}");
    });
}

fn who_is_reached_without_the_proxy_is(on: Runtime) {
    let relay = relay(on, |_| {});
    story(async {
        let proxy = Some(Arc::new("http://127.0.0.1:1".parse().expect("a proxy")));
        let not_for = vec!["127.0.0.0/8".to_owned()];
        let peer = peer(on, 1, &at(&relay), |options| options.proxies = Proxies { proxy, not_for, not_for_local: false });
        connected(&peer).await;
        peer.leave().await;
    });
}

fn a_proxy_that_ends_tls_is_refused_behind_connect_too(on: Runtime) {
    let relay = relay(on, |_| {});
    story(async {
        let behind = relay.addresses()[0];
        let (box_address, _box) = certificate::middle_box("box.corp.example", move |near| certificate::pass_on(near, behind));
        let (address, _asked, _serving) = proxy(box_address, "");
        let peer = through(on, &format!("wss://{NAME}:443"), &format!("http://{address}"));
        let why = refused(&peer).await;
        assert!(why.contains("TLS is ended by \"CN=box.corp.example\""), "{why}");
        peer.leave().await;
    });
}

/// An HTTP proxy that knows one place, and what it was asked for; with `authorization` it wants that.
fn proxy(to: SocketAddr, authorization: &'static str) -> (SocketAddr, flume::Receiver<String>, Task<()>) {
    let (tell, asked) = flume::unbounded();
    let (address, serving) = listen(move |mut near| {
        let tell = tell.clone();
        async move {
            let head = head(&mut near).await;
            let place = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            let _ = tell.send(place.to_owned());
            if !authorization.is_empty() && !head.contains(&format!("\r\nProxy-Authorization: {authorization}\r\n")) {
                let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"corp\"\r\n\r\n";
                let _ = near.write_all(refusal.as_bytes()).await;
                return;
            }
            let Ok(far) = Async::<TcpStream>::connect(to).await else { return };
            let _ = near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await;
            let (mut near_in, mut near_out) = smol::io::split(near);
            let (mut far_in, mut far_out) = smol::io::split(far);
            // Either end may go away.
            let _ = future::or(smol::io::copy(&mut near_in, &mut far_out), smol::io::copy(&mut far_in, &mut near_out)).await;
        }
    });
    (address, asked, serving)
}

/// A proxy that has one answer.
fn answers(answer: String) -> (SocketAddr, Task<()>) {
    listen(move |mut near| {
        let answer = answer.clone();
        async move {
            head(&mut near).await;
            let _ = near.write_all(answer.as_bytes()).await;
        }
    })
}

/// What was said up to an empty line.
async fn head(near: &mut Async<TcpStream>) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && near.read(&mut byte).await.is_ok_and(|len| len == 1) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn listen<F: Future<Output = ()> + Send>(serve: impl Fn(Async<TcpStream>) -> F + Send + 'static) -> (SocketAddr, Task<()>) {
    let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).expect("loopback");
    let address = listener.get_ref().local_addr().expect("bound");
    let serving = smol::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            serve(near).await;
        }
    });
    (address, serving)
}
