//! Two stacks whose queues lead to each other, with programs on real sockets of the loopback interface at both ends.
use super::*;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::net::Ipv4Addr;

/// The two ends of a wire.
fn wire() -> (Ends, Ends) {
    let (to_b, from_a) = flume::bounded(QUEUE);
    let (to_a, from_b) = flume::bounded(QUEUE);
    (Ends(Queues::new(from_b, to_b, 1280)), Ends(Queues::new(from_a, to_a, 1280)))
}

/// Knows two peers, like a status.
struct Phonebook;

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));

impl Resolve for Phonebook {
    fn resolve(&self, target: Target) -> Resolved<'_> {
        Box::pin(async move {
            match target {
                Target::Address(address) => Ok(address),
                Target::Name(name, port) if name == "b" => Ok((B, port).into()),
                Target::Name(..) => Err(io::ErrorKind::NotFound.into()),
            }
        })
    }
}

/// An echo server's address; it serves one connection after another.
async fn echo() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    (listener.local_addr().expect("an address"), listener)
}

async fn serve_echo(listener: &TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.expect("a client");
        let _ = futures_lite::io::copy(&mut stream.clone(), &mut stream.clone()).await;
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
}

/// Both stacks, an echo server behind port 7 of the second one; `story` is told where the first one's proxy and forwarded port are.
fn with_stacks<F: Future<Output = ()>>(story: impl FnOnce(SocketAddr, SocketAddr) -> F) {
    smol::block_on(async {
        let (near, far) = wire();
        let (server, listener) = echo().await;
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let forward = Forward { local: free, target: Target::Name("b".to_owned(), 7) };
        let near = Userspace::bind(near, &[(A, 24)], (Some(free), true), &[forward], &[]).await.expect("binds");
        let expose = Expose { port: 7, local: server };
        let far = Userspace::bind(far, &[(B, 24)], (None, false), &[], &[expose]).await.expect("binds");
        let proxy = near.proxy_address().expect("a proxy");
        let forwarded = near.forwards[0].0.local_addr().expect("an address");
        let serve = async {
            future::zip(future::zip(near.run(&Phonebook), far.run(&Phonebook)), serve_echo(&listener)).await;
        };
        future::or(story(proxy, forwarded), serve).await;
    });
}

/// Sends much and takes the same back, then the end.
async fn much_comes_back(mut stream: TcpStream) {
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let mut out = stream.clone();
    let mut came = Vec::new();
    let speak = async {
        out.write_all(&sent).await.expect("it is taken");
        out.shutdown(std::net::Shutdown::Write).expect("it stands");
    };
    let (read, ()) = future::zip(stream.read_to_end(&mut came), speak).await;
    read.expect("it comes");
    assert!(came == sent, "{} of {} bytes came back, or others", came.len(), sent.len());
}

#[test]
fn a_forwarded_port_carries_both_ways_and_both_ends_close() {
    with_stacks(|_, forwarded| async move {
        for _ in 0..3 {
            much_comes_back(TcpStream::connect(forwarded).await.expect("it listens")).await;
        }
    });
}

#[test]
fn socks_connects_by_name_and_by_address() {
    with_stacks(|proxy, _| async move {
        for target in [&b"\x03\x01b\x00\x07"[..], &[1, 10, 77, 0, 2, 0, 7]] {
            let mut stream = TcpStream::connect(proxy).await.expect("it listens");
            stream.write_all(&[5, 2, 2, 0]).await.expect("sent");
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await.expect("answered");
            assert_eq!(answer, [5, 0]);
            stream.write_all(&[&[5, 1, 0], target].concat()).await.expect("sent");
            let mut answer = [0; 10];
            stream.read_exact(&mut answer).await.expect("answered");
            assert_eq!(answer[..2], [5, 0]);
            much_comes_back(stream).await;
        }
    });
}

#[test]
fn http_connects_by_name() {
    with_stacks(|proxy, _| async move {
        let mut stream = TcpStream::connect(proxy).await.expect("it listens");
        stream.write_all(b"CONNECT b:7 HTTP/1.1\r\nHost: b:7\r\n\r\n").await.expect("sent");
        let mut answer = [0; 39];
        stream.read_exact(&mut answer).await.expect("answered");
        assert_eq!(&answer[..], b"HTTP/1.1 200 Connection established\r\n\r\n");
        much_comes_back(stream).await;
    });
}

/// What a client sends, all of it, and the beginning of the answer.
async fn answer_to(proxy: SocketAddr, said: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy).await.expect("it listens");
    stream.write_all(said).await.expect("sent");
    let mut answer = Vec::new();
    // A refused client may be reset when it said more than was read.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[test]
fn what_cannot_be_is_said() {
    with_stacks(|proxy, _| async move {
        assert_eq!(answer_to(proxy, &[5, 1, 2]).await, [5, 0xff], "a method that we do not have");
        let greeted = |request: &[u8]| [&[5, 1, 0], request].concat();
        for (request, code) in [
            (&b"\x05\x02\x00\x01\x0a\x4d\x00\x02\x00\x07"[..], 7), // BIND
            (b"\x05\x01\x00\x09", 8),
            (b"\x05\x01\x00\x03\x01x\x00\x07", 4),
            (b"\x05\x01\x00\x03\x01b\x00\x08", 5), // nobody listens
        ] {
            let answer = answer_to(proxy, &greeted(request)).await;
            assert_eq!((answer.get(..2), answer.get(2..4)), (Some(&[5, 0][..]), Some(&[5, code][..])), "{request:?}");
        }
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "405"),
            (b"CONNECT nobody:7 HTTP/1.1\r\n\r\n", "502"),
            (b"CONNECT b HTTP/1.1\r\n\r\n", "400"),
            (b"nonsense\r\n\r\n", "400"),
        ] {
            let answer = answer_to(proxy, request).await;
            assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{}", String::from_utf8_lossy(&answer));
        }
        let long = [b"CONNECT b:7 HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 9_000]].concat();
        assert!(answer_to(proxy, &long).await.starts_with(b"HTTP/1.1 431 "));
    });
}

#[test]
fn datagrams_pass_for_as_long_as_their_connection_stands() {
    smol::block_on(async {
        let (near, far) = wire();
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let near = Userspace::bind(near, &[(A, 24)], (Some(free), true), &[], &[]).await.expect("binds");
        let far = Userspace::bind(far, &[(B, 24)], (None, false), &[], &[]).await.expect("binds");
        // A server of datagrams on the far stack: it answers with what came, turned around.
        let server = far.stack.udp().expect("room");
        let port = server.port();
        let serve = async {
            loop {
                let (mut bytes, from) = server.receive().await;
                bytes.reverse();
                server.send(&bytes, from);
            }
        };
        let story = async {
            let mut control = TcpStream::connect(near.proxy_address().expect("a proxy")).await.expect("it listens");
            control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).await.expect("sent");
            let mut answer = [0; 12];
            control.read_exact(&mut answer).await.expect("answered");
            assert_eq!(answer[..4], [5, 0, 5, 0]);
            let relay = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::from_be_bytes([answer[10], answer[11]])));
            let program = smol::net::UdpSocket::bind(free).await.expect("a free port");
            let to = SocketAddr::new(B, port);
            for word in [&b"abc"[..], &[7; 1200]] {
                program.send_to(&[socks::datagram_head(to), word.to_vec()].concat(), relay).await.expect("sent");
                let mut buffer = [0; 2048];
                let (length, _) = program.recv_from(&mut buffer).await.expect("answered");
                let turned: Vec<u8> = word.iter().rev().copied().collect();
                assert_eq!(socks::datagram(&buffer[..length]), Some((Target::Address(to), &turned[..])));
            }
        };
        future::or(story, async {
            future::zip(future::zip(near.run(&Phonebook), far.run(&Phonebook)), serve).await;
        })
        .await;
    });
}
