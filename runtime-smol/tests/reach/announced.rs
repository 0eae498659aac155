//! A relay behind a proxy that says from where its connections come: the PROXY protocol (protocol 9.5).
use super::*;
use shadowmesh_core::hub::HubStatus;
use smol::{
    Async, Task,
    io::{AsyncReadExt, AsyncWriteExt},
};
use std::{
    io::ErrorKind,
    net::{IpAddr, TcpListener, TcpStream},
};

stories! { [on_smol: support::SMOL, on_threads: support::THREADS]
    a_client_behind_a_trusted_proxy_is_seen_as_itself,
    limits_and_access_count_the_client_and_not_its_proxy,
    a_proxy_that_connects_for_itself_counts_as_itself,
    who_is_not_trusted_may_not_say_from_where_it_comes,
    a_trusted_proxy_that_says_nothing_of_use_is_dropped_and_counted,
    proxies_that_say_nothing_hold_no_place,
}

const CLIENT: &str = "203.0.113.7";

fn behind_a_proxy(on: Runtime, edit: impl FnOnce(&mut HubConfig)) -> Relay {
    relay(on, |options| {
        options.trusted_proxies = vec![(IpAddr::from([127, 0, 0, 0]), 8)];
        edit(&mut options.hub);
    })
}

async fn status(relay: &Relay) -> HubStatus {
    relay.status().await.expect("the relay runs").1
}

fn a_client_behind_a_trusted_proxy_is_seen_as_itself(on: Runtime) {
    let relay = behind_a_proxy(on, |_| {});
    story(async {
        for (number, header, remote) in [(1, text(CLIENT), "203.0.113.7:41022"), (2, binary(CLIENT), "203.0.113.7:41022")] {
            // whole, and in two pieces
            for cut in [0, 20] {
                let (front, _serving) = proxy(relay.addresses()[0], header.clone(), cut);
                let peer = peer(on, number, &url_of(front), |_| {});
                connected(&peer).await;
                assert_eq!(status(&relay).await.clients[0].remote.to_string(), remote);
                let (_, own) = peer.status().await.expect("the peer runs");
                assert_eq!(own.relays[0].observed.map(|address| address.to_string()).as_deref(), Some(remote), "it is told");
                peer.leave().await;
            }
        }
        let dropped = status(&relay).await;
        assert_eq!((dropped.dropped("proxy_header"), dropped.dropped("proxy_untrusted")), (0, 0));
    });
}

fn limits_and_access_count_the_client_and_not_its_proxy(on: Runtime) {
    let relay = behind_a_proxy(on, |hub| {
        hub.limits.preauth_per_source = 1;
        hub.access.deny = vec![("198.51.100.0".parse().expect("an address"), 24)];
    });
    story(async {
        let through = async |client: &str| {
            let (front, serving) = proxy(relay.addresses()[0], binary(client), 0);
            (open(&url_of(front)).await, serving)
        };
        let first = through("203.0.113.7").await;
        let second = through("203.0.113.8").await;
        assert!(first.0.is_ok() && second.0.is_ok(), "two sources by one proxy");
        assert!(through("203.0.113.7").await.0.is_err(), "the second of one source");
        assert_eq!(status(&relay).await.dropped("preauth_per_source"), 1);
        assert!(through("198.51.100.9").await.0.is_err(), "a source that is not taken");
        assert_eq!(status(&relay).await.dropped("source_denied"), 1);
    });
}

fn a_proxy_that_connects_for_itself_counts_as_itself(on: Runtime) {
    let relay = behind_a_proxy(on, |_| {});
    story(async {
        let local = [START, &[0x20, 0, 0, 0]].concat();
        for (number, header) in [(1, local), (2, b"PROXY UNKNOWN\r\n".to_vec())] {
            let (front, _serving) = proxy(relay.addresses()[0], header, 0);
            let peer = peer(on, number, &url_of(front), |_| {});
            connected(&peer).await;
            assert!(status(&relay).await.clients[0].remote.ip().is_loopback());
            peer.leave().await;
        }
    });
}

fn who_is_not_trusted_may_not_say_from_where_it_comes(on: Runtime) {
    let relay = relay(on, |_| {});
    story(async {
        for (number, header) in [(1, text(CLIENT)), (2, binary(CLIENT))] {
            assert!(ends(&relay, &header).await);
            assert_eq!(status(&relay).await.dropped("proxy_untrusted"), number);
        }
        let peer = peer(on, 1, &at(&relay), |_| {});
        connected(&peer).await;
        assert!(status(&relay).await.clients[0].remote.ip().is_loopback(), "whoever says nothing is who it is");
        peer.leave().await;
    });
}

fn a_trusted_proxy_that_says_nothing_of_use_is_dropped_and_counted(on: Runtime) {
    let relay = behind_a_proxy(on, |hub| hub.limits.preauth_time = Duration::from_millis(300));
    story(async {
        assert!(open(&at(&relay)).await.is_err(), "TLS, and no header before it");
        assert_eq!(status(&relay).await.dropped("proxy_header"), 1);
        let too_long = [START, &[0x21, 0x11, 0x7f, 0xff], &[0; 64][..]].concat();
        let nothing = Vec::new();
        let half = b"PROXY TCP4 203.0.113.7 ".to_vec();
        let wrong = b"PROXY TCP4 203.0.113.7 1.2.3.4 -1 443\r\n".to_vec();
        for (number, said) in (2..).zip([wrong, too_long, half, nothing]) {
            assert!(ends(&relay, &said).await, "{:?}", String::from_utf8_lossy(&said));
            assert_eq!(status(&relay).await.dropped("proxy_header"), number);
        }
        assert_eq!(status(&relay).await.preauth, 0);
    });
}

fn proxies_that_say_nothing_hold_no_place(on: Runtime) {
    let relay = behind_a_proxy(on, |hub| {
        hub.limits.preauth_total = 2;
        hub.limits.preauth_time = Duration::from_secs(20);
    });
    story(async {
        let connect = || Async::<TcpStream>::connect(relay.addresses()[0]);
        let _silent = (connect().await.expect("connects"), connect().await.expect("connects"));
        let mut third = connect().await.expect("connects");
        assert_eq!(third.read(&mut [0; 1]).await.expect("closed at once"), 0);
        let dropped = status(&relay).await;
        assert_eq!((dropped.dropped("proxy_header"), dropped.preauth), (1, 0));
    });
}

/// The first bytes of version 2.
const START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn text(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.1 41022 443\r\n").into_bytes()
}

fn binary(client: &str) -> Vec<u8> {
    let client: std::net::Ipv4Addr = client.parse().expect("an address");
    [START, &[0x21, 0x11, 0, 12], &client.octets(), &[192, 0, 2, 1, 0xa0, 0x3e, 1, 187]].concat()
}

/// Takes connections and passes them on behind this header, of which the first bytes go ahead.
fn proxy(to: SocketAddr, header: Vec<u8>, cut: usize) -> (SocketAddr, Task<()>) {
    let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).expect("loopback");
    let address = listener.get_ref().local_addr().expect("bound");
    let serving = smol::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(mut far) = Async::<TcpStream>::connect(to).await else { continue };
            far.get_ref().set_nodelay(true).expect("a socket");
            let (ahead, behind) = header.split_at(cut);
            if far.write_all(ahead).await.is_err() || far.write_all(behind).await.is_err() {
                continue;
            }
            let (mut near_in, mut near_out) = smol::io::split(near);
            let (mut far_in, mut far_out) = smol::io::split(far);
            // Either end may go away.
            let _ = future::or(smol::io::copy(&mut near_in, &mut far_out), smol::io::copy(&mut far_in, &mut near_out)).await;
        }
    });
    (address, serving)
}

/// Whether the relay ends a connection on which this is said.
async fn ends(relay: &Relay, said: &[u8]) -> bool {
    let mut tcp = Async::<TcpStream>::connect(relay.addresses()[0]).await.expect("connects");
    // It may be gone before all is written.
    let _ = tcp.write_all(said).await;
    let mut rest = Vec::new();
    match tcp.read_to_end(&mut rest).await {
        // an alert of TLS at most
        Ok(_) => rest.len() < 32,
        Err(why) => why.kind() == ErrorKind::ConnectionReset,
    }
}
