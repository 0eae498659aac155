//! A relay under a certificate of its operator, and proxies that end TLS in front of one (protocol 1.4).
use super::*;
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use shadowmesh_runtime_std::tls::{self, CertFiles, CertStore};
use smol::{
    Async, Task,
    io::{AsyncReadExt, AsyncWriteExt},
};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    time::SystemTime,
};

stories! { [on_smol: support::SMOL, on_threads: support::THREADS]
    a_peer_connects_to_a_relay_under_an_ordinary_certificate,
    a_proxy_that_ends_tls_and_passes_all_on_is_refused_by_name,
    a_proxy_that_ends_tls_and_answers_itself_is_refused_by_name,
    another_certificate_is_shown_to_new_connections_and_the_old_ones_stay,
    a_relay_without_a_good_certificate_does_not_start,
}

fn a_peer_connects_to_a_relay_under_an_ordinary_certificate(on: Runtime) {
    let dir = tempfile::tempdir().expect("a folder");
    let relay = relay(on, |options| options.certificate = Some(ordinary(dir.path(), "relay.example")));
    story(async {
        let (_stays, tls) = open(&at(&relay)).await.expect("TLS and WebSocket");
        assert_eq!((tls.identity, tls.subject.as_deref()), (None, Some("CN=relay.example")));
        let peer = peer(on, 1, &at(&relay), |_| {});
        connected(&peer).await;
        let (_, status) = peer.status().await.expect("the peer runs");
        assert_eq!(status.relays[0].id, Some(relay_id()), "proven inside");
        assert_eq!(relay.certificate(), "CN=relay.example");
        peer.leave().await;
    });
}

fn a_proxy_that_ends_tls_and_passes_all_on_is_refused_by_name(on: Runtime) {
    let relay = relay(on, |_| {});
    story(async {
        let behind = relay.addresses()[0];
        let (front, _serving) = middle_box("box.corp.example", move |near| pass_on(near, behind));
        let why = refused(&peer(on, 1, &url_of(front), |_| {})).await;
        for part in ["handshake: ", "TLS is ended by \"CN=box.corp.example\"", "untouched"] {
            assert!(why.contains(part), "{part:?} is not in {why:?}");
        }
        let (_, status) = relay.status().await.expect("the relay runs");
        assert!(status.clients.is_empty());
    });
}

fn a_proxy_that_ends_tls_and_answers_itself_is_refused_by_name(on: Runtime) {
    story(async {
        let (front, _serving) = middle_box("box.corp.example", |mut near| async move {
            let mut request = [0; 1_024];
            let _ = near.read(&mut request).await;
            let _ = near.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
            let _ = near.flush().await;
        });
        let why = refused(&peer(on, 1, &url_of(front), |_| {})).await;
        for part in ["HTTP 403", "TLS is ended by \"CN=box.corp.example\"", "untouched"] {
            assert!(why.contains(part), "{part:?} is not in {why:?}");
        }
    });
}

fn another_certificate_is_shown_to_new_connections_and_the_old_ones_stay(on: Runtime) {
    let dir = tempfile::tempdir().expect("a folder");
    let files = ordinary(dir.path(), "first.example");
    let relay = relay(on, |options| options.certificate = Some(files.clone()));
    story(async {
        let peer = peer(on, 1, &at(&relay), |_| {});
        connected(&peer).await;
        let (_, before) = relay.status().await.expect("the relay runs");
        let shown = async |files: Option<CertFiles>| {
            relay.show(files).await;
            let (_, _) = relay.status().await.expect("answered behind what was asked before");
            open(&at(&relay)).await.expect("TLS and WebSocket").1
        };
        assert_eq!(ordinary(dir.path(), "second.example"), files);
        assert_eq!(shown(Some(files.clone())).await.subject.as_deref(), Some("CN=second.example"));
        fs::write(&files.certificate, "half a certifi").expect("written");
        assert_eq!(shown(Some(files)).await.subject.as_deref(), Some("CN=second.example"), "a broken one changes nothing");
        assert_eq!(shown(None).await.identity, Some(relay_id()), "one of its own");
        let (_, after) = relay.status().await.expect("the relay runs");
        assert_eq!(after.clients[0].since, before.clients[0].since, "the client was there all the time");
        peer.leave().await;
    });
}

fn a_relay_without_a_good_certificate_does_not_start(on: Runtime) {
    let dir = tempfile::tempdir().expect("a folder");
    let files = CertFiles { certificate: dir.path().join("none.pem"), key: dir.path().join("none.key") };
    let options = RelayOptions { certificate: Some(files), ..options() };
    let why = (on.relay)(options).map(drop).expect_err("no certificate").to_string();
    assert!(why.contains("none.pem") && why.contains("tls.certificate"), "{why}");
}

/// An ordinary certificate (ECDSA P-256) in files, as an ACME client leaves them.
fn ordinary(dir: &Path, name: &str) -> CertFiles {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let certificate = params.self_signed(&key).expect("a certificate");
    let files = CertFiles { certificate: dir.join("fullchain.pem"), key: dir.join("privkey.pem") };
    fs::write(&files.certificate, certificate.pem()).expect("written");
    fs::write(&files.key, key.serialize_pem()).expect("written");
    files
}

/// Takes connections, ends their TLS under this name and does with them what it likes.
pub(super) fn middle_box<F: Future<Output = ()> + Send>(
    name: &str,
    serve: impl Fn(TlsStream<Async<TcpStream>>) -> F + Send + 'static,
) -> (SocketAddr, Task<()>) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = CertStore::new(&Identity::from_seed([99; 32]), Duration::from_hours(1), Instant::ZERO, SystemTime::now()).expect("a store");
    store.show(Some(ordinary(dir.path(), name)), Instant::ZERO, SystemTime::now()).expect("good files");
    let acceptor = TlsAcceptor::from(tls::server_config(store));
    let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).expect("loopback");
    let address = listener.get_ref().local_addr().expect("bound");
    let serving = smol::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            if let Ok(near) = acceptor.accept(near).await {
                serve(TlsStream::Server(near)).await;
            }
        }
    });
    (address, serving)
}

/// What a proxy does that looks into TLS: it opens another connection and copies.
pub(super) async fn pass_on(near: TlsStream<Async<TcpStream>>, to: SocketAddr) {
    let far = Async::<TcpStream>::connect(to).await.expect("the relay listens");
    let connector = TlsConnector::from(tls::client_config(None, true));
    let far = connector.connect(tls::server_name("relay.example").expect("a name"), far).await.expect("TLS");
    let (mut near_in, mut near_out) = smol::io::split(near);
    let (mut far_in, mut far_out) = smol::io::split(far);
    // Either end may go away.
    let _ = future::or(smol::io::copy(&mut near_in, &mut far_out), smol::io::copy(&mut far_in, &mut near_out)).await;
}
