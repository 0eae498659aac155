//! A device that answers as it is told to.
use super::*;
use std::{net::TcpListener, thread};

const IP_CONNECTION: &str = "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
    <controlURL>/ctl</controlURL></service>";

#[test]
fn a_port_that_somebody_has_is_left_and_a_lease_for_ever_is_taken_where_there_is_no_other() {
    let (device, asked) = device(vec![error("718"), error("725"), ok("")]);
    assert_eq!(device.map(Transport::Udp, 5_000, None, 3_600), Ok(5_007));
    let lease = |text: &String| text::element(text, "NewLeaseDuration").map(str::to_owned);
    let ports: Vec<_> =
        asked.iter().take(3).map(|text| (text::element(&text, "NewExternalPort").map(str::to_owned), lease(&text))).collect();
    let expected = [("5000", "3600"), ("5007", "3600"), ("5007", "0")];
    assert_eq!(ports, expected.map(|(port, lease)| (Some(port.to_owned()), Some(lease.to_owned()))));
}

#[test]
fn a_renewal_asks_for_the_port_that_was_had() {
    let (device, asked) = device(vec![ok("")]);
    assert_eq!(device.map(Transport::Wss, 5_000, Some(6_000), 3_600), Ok(6_000));
    let text = asked.recv().expect("a request");
    let field = |name| text::element(&text, name);
    assert_eq!((field("NewExternalPort"), field("NewInternalPort"), field("NewProtocol")), (Some("6000"), Some("5000"), Some("TCP")));
    assert_eq!(field("NewInternalClient"), Some("127.0.0.1"));
}

#[test]
fn refusals_and_nonsense_are_sentences() {
    let (device, _asked) = device(vec![error("606"), ok("<NewExternalIPAddress></NewExternalIPAddress>"), "nonsense".to_owned()]);
    assert_eq!(device.map(Transport::Udp, 5_000, None, 3_600), Err("it maps no port: 606".to_owned()));
    assert_eq!(device.external(), Err("it has no address outside".to_owned()));
    assert_eq!(device.external(), Err("it answers something that is not HTTP".to_owned()));
    assert!(device.external().is_err_and(|why| why.starts_with("it does not answer")), "it is gone");
}

#[test]
fn what_a_device_says_without_end_is_cut() {
    let (device, _asked) = device(vec!["x".repeat(300_000)]);
    assert_eq!(device.external(), Err("it says more than a router has to say".to_owned()));
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn error(code: &str) -> String {
    format!("HTTP/1.1 500 Internal Server Error\r\n\r\n<s:Fault><errorCode>{code}</errorCode></s:Fault>")
}

/// A device that gives these answers, one a connection, and what it was asked.
fn device(answers: Vec<String>) -> (Device, flume::Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
    let SocketAddr::V4(at) = listener.local_addr().expect("bound") else { panic!("IPv4") };
    let (tell, asked) = flume::unbounded();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("loopback");
            let mut bytes = Vec::new();
            let mut buffer = [0; 1_024];
            while !bytes.ends_with(b"</s:Envelope>\r\n") {
                let len = stream.read(&mut buffer).expect("a request");
                bytes.extend_from_slice(&buffer[..len]);
            }
            let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
            // Whoever has heard enough may be gone.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let described_at = Url { at, path: "/".to_owned() };
    let service = text::services(IP_CONNECTION, &described_at).remove(0);
    (Device { own: Ipv4Addr::LOCALHOST, router: Ipv4Addr::LOCALHOST, service }, asked)
}
