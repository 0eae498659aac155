//! What is a proxy, for whom it is none, and what it answers.
use super::*;
use std::net::TcpListener;

fn proxy(text: &str) -> HttpProxy {
    text.parse().expect("a proxy")
}

#[test]
fn a_proxy_is_read_and_shown_without_its_password() {
    for (text, place, shown) in [
        ("http://proxy:3128", ("proxy", 3128), "http://proxy:3128"),
        ("http://proxy.corp.example/", ("proxy.corp.example", 80), "http://proxy.corp.example:80"),
        ("proxy:8080", ("proxy", 8080), "http://proxy:8080"),
        ("HTTP://[2001:db8::1]:3128", ("2001:db8::1", 3128), "http://[2001:db8::1]:3128"),
        ("http://[2001:db8::1]", ("2001:db8::1", 80), "http://[2001:db8::1]:80"),
        ("http://me:s3cret@proxy:1", ("proxy", 1), "http://***@proxy:1"),
    ] {
        let proxy = proxy(text);
        assert_eq!(proxy.place(), (place.0.to_owned(), place.1));
        assert_eq!((proxy.to_string().as_str(), format!("{proxy:?}").as_str()), (shown, shown));
    }
    assert_eq!(proxy("http://m%40e:s%3A%25@p:1").credentials.as_deref().map(String::as_str), Some("m@e:s:%"));
    assert_eq!(proxy("http://me@p:1").credentials.as_deref().map(String::as_str), Some("me:"));
}

#[test]
fn what_is_no_proxy_is_refused_with_what_would_be_right() {
    for (text, part) in [
        ("https://proxy:3128", "TLS to the proxy"),
        ("socks5://proxy:1080", "SOCKS"),
        ("ftp://proxy", "no HTTP proxy"),
        ("http://", "no host"),
        ("http://proxy:0", "no port"),
        ("http://proxy:99999", "no port"),
        ("http://pro xy:1", "no host"),
        ("http://proxy:1/path", "no port"),
        ("http://a:b%0d%0aX@proxy:1", "cannot be read"),
        ("http://a:b%zz@proxy:1", "cannot be read"),
        ("http://a%3Ab:c@proxy:1", "cannot be read"),
    ] {
        let why = text.parse::<HttpProxy>().map(drop).expect_err(text);
        assert!(why.contains(part) && why.contains("http://proxy.example:3128"), "{text}: {why}");
        assert!(!why.contains("b%"), "a password is not said again: {why}");
    }
}

#[test]
fn some_hosts_are_reached_without_it() {
    let proxies = |list: &str, not_for_local| Proxies {
        proxy: Some(Arc::new(proxy("http://p:1"))),
        not_for: list.split(',').map(str::to_owned).collect(),
        not_for_local,
    };
    let through = |list: &str, host: &str| proxies(list, false).to(host, 443).is_some();
    for (list, host) in [
        ("*", "relay.example"),
        ("relay.example", "relay.example"),
        ("a.example, Example ", "RELAY.example."),
        (".relay.example", "relay.example"),
        ("*.example", "relay.example"),
        ("example:443", "relay.example"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.0/24", "192.0.2.7"),
        ("0.0.0.0/0", "192.0.2.7"),
        ("2001:db8::/32", "[2001:db8::7]"),
    ] {
        assert!(!through(list, host), "{list} means {host}");
    }
    for (list, host) in [
        ("", "relay.example"),
        ("lay.example", "relay.example"),
        ("relay.example.org", "relay.example"),
        ("example:80", "relay.example"),
        ("192.0.2.0/24", "198.51.100.7"),
        ("192.0.2.0/33", "192.0.2.7"),
        ("2001:db8::/32", "192.0.2.7"),
        ("::/0", "relay.example"),
    ] {
        assert!(through(list, host), "{list} does not mean {host}");
    }
    for host in [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "10.98.0.1",
        "172.31.0.1",
        "100.64.0.1",
        "198.19.0.1",
        "203.0.113.7",
        "[fd00::1]",
        "[2001:db8::1]",
    ] {
        assert!(through("", host) && proxies("", true).to(host, 443).is_none(), "{host}");
    }
    for host in ["relay.example", "9.9.9.9", "172.32.0.1", "100.128.0.1", "198.20.0.1", "[2620:fe::fe]"] {
        assert!(proxies("", true).to(host, 443).is_some(), "{host}");
    }
    assert!(Proxies::default().to("relay.example", 443).is_none());
}

/// What the tunnel says, and what it makes of the answer.
fn talk(proxy: &HttpProxy, answer: &[u8]) -> (String, Result<bool, Ended>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let (mut far, _) = listener.accept().expect("it came");
    near.set_nonblocking(true).expect("a socket");
    let mut tunnel = Tunnel::new(proxy, "relay.example", 443);
    assert_eq!(tunnel.advance(&near), Ok(false), "it waits for an answer");
    let mut request = [0; 1_024];
    let len = far.read(&mut request).expect("the request");
    far.write_all(answer).expect("written");
    drop(far);
    let mut word = [rustix::event::PollFd::new(&near, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut word, None).expect("it comes");
    (String::from_utf8_lossy(&request[..len]).into_owned(), tunnel.advance(&near))
}

#[test]
fn a_tunnel_is_asked_for_by_name_and_with_a_password_where_there_is_one() {
    let (said, stands) = talk(&proxy("http://p:1"), b"HTTP/1.1 200 Connection established\r\nVia: p\r\n\r\n");
    assert_eq!((said.as_str(), stands), ("CONNECT relay.example:443 HTTP/1.1\r\nHost: relay.example:443\r\n\r\n", Ok(true)));
    let (said, stands) = talk(&proxy("http://Aladdin:open%20sesame@p:1"), b"HTTP/1.0 200\r\n\r\n");
    assert!(said.contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "RFC 7617, 2: {said}");
    assert_eq!(stands, Ok(true));
}

#[test]
fn each_refusal_says_what_to_do() {
    let (plain, named) = (proxy("http://p:1"), proxy("http://me:s3cret@p:1"));
    for (proxy, answer, parts) in [
        (
            &plain,
            &b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n"[..],
            ["wants a name", "407"],
        ),
        (&named, b"HTTP/1.1 407 Denied\r\n\r\n", ["refused this name and password", "***@p:1"]),
        (&named, b"HTTP/1.1 407 No\r\nproxy-authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n", ["Negotiate, NTLM", "Basic"]),
        (&plain, b"HTTP/1.1 403 Forbidden\r\n\r\n", ["does not allow", "relay.example:443"]),
        (&plain, b"HTTP/1.1 502 Bad Gateway\r\n\r\n", ["could not reach the relay", "502 Bad Gateway"]),
        (&plain, b"HTTP/1.1 501 Not Implemented\r\n\r\n", ["no CONNECT", "network.proxy"]),
        (&plain, b"HTTP/1.1 302 Found\r\nLocation: http://login\r\n\r\n", ["302 Found", "CONNECT relay.example:443"]),
        (&plain, b"SSH-2.0-OpenSSH\r\n\r\n", ["does not answer like", "http://p:1"]),
        (&plain, b"HTTP/1.1 200 OK\r\n\r\nhello", ["more than an answer", "http://p:1"]),
        (&plain, b"", ["closed the connection", "http://p:1"]),
    ] {
        let (_, verdict) = talk(proxy, answer);
        let Err(Ended::Proxy(why)) = verdict else { panic!("{verdict:?}") };
        assert!(parts.iter().all(|part| why.contains(part)), "{parts:?}: {why}");
        assert!(!why.contains("s3cret"), "{why}");
    }
    let (_, verdict) = talk(&plain, &vec![b'x'; ANSWER_MAX_LEN + 4_096]);
    assert!(matches!(&verdict, Err(Ended::Proxy(why)) if why.contains("no end")), "{verdict:?}");
}
