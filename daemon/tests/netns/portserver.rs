//! A small server for PCP or NAT-PMP in a router, after RFC 6887 and RFC 6886 and not after the product.

use crate::router::Router;
use crate::world::nft;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Ports outside differ from those inside, so that one cannot be taken for the other.
const FIRST_OUTSIDE: u16 = 20_000;
const OUTSIDE: u16 = 10_000;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Pcp,
    NatPmp,
}

/// A question that it has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) protocol: u8,
    pub(crate) lifetime_s: u32,
}

/// The server; it ends when it is dropped, and its ports lead on.
pub(crate) struct PortServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    namespace: String,
    outside: Ipv4Addr,
    speaks: Speaks,
    lifetime_s: u32,
    start: Instant,
    asked: Mutex<Vec<Asked>>,
    stop: AtomicBool,
}

impl PortServer {
    /// In this router; what is asked for is granted for so long.
    pub(crate) fn start(router: &Router<'_>, speaks: Speaks, lifetime_s: u32) -> Self {
        router.take_questions();
        let host = router.as_host();
        nft(&host.namespace, "add chain ip nat mapped { type nat hook prerouting priority -101; }\n");
        let socket = host.enter(|| UdpSocket::bind("192.168.1.1:5351").expect("a free port"));
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a read timeout is a plain option");
        let shared = Arc::new(Shared {
            namespace: host.namespace.clone(),
            outside: host.v4.expect("a router has IPv4"),
            speaks,
            lifetime_s,
            start: Instant::now(),
            asked: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || own.serve(&socket));
        Self { shared, thread: Some(thread) }
    }

    /// What was asked for so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("nobody panics with it").clone()
    }

    /// How often a UDP port was asked for.
    pub(crate) fn udp_questions(&self) -> usize {
        self.asked().iter().filter(|asked| asked.protocol == UDP && asked.lifetime_s > 0).count()
    }

    /// Whether both kinds of ports were given back.
    pub(crate) fn has_all_back(&self) -> bool {
        let last = |protocol| self.asked().into_iter().rfind(|asked| asked.protocol == protocol);
        [UDP, TCP].into_iter().all(|protocol| last(protocol).is_none_or(|asked| asked.lifetime_s == 0))
    }
}

impl Drop for PortServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut ports = BTreeMap::new();
        let mut buffer = [0; 1100];
        while !self.stop.load(Ordering::Relaxed) {
            match socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    if let Some(answer) = self.answer(&buffer[..len], from, &mut ports) {
                        socket.send_to(&answer, from).expect("the kernel sends");
                    }
                }
                Err(error) => {
                    let is_harmless = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted);
                    assert!(is_harmless, "{error}");
                }
            }
        }
    }

    fn answer(&self, question: &[u8], from: SocketAddr, ports: &mut BTreeMap<(u8, u16), SocketAddr>) -> Option<Vec<u8>> {
        let epoch = (self.start.elapsed().as_secs() as u32 + 1).to_be_bytes();
        let number = |at: usize| u16::from_be_bytes([question[at], question[at + 1]]);
        let long = |at: usize| u32::from_be_bytes(question[at..at + 4].try_into().expect("four bytes"));
        match (question[0], question[1], self.speaks, question.len()) {
            (2, op, Speaks::NatPmp, _) => Some([&[0, 0x80 | op, 0, 1][..], &epoch].concat()),
            (2, 0, Speaks::Pcp, 24) => Some([&[2, 0x80, 0, 0, 0, 0, 0, 0][..], &epoch, &[0; 12]].concat()),
            (2, 1, Speaks::Pcp, 60) => {
                assert_eq!(IpAddr::from(<[u8; 16]>::try_from(&question[8..24]).expect("an address")).to_canonical(), from.ip());
                let (protocol, internal) = (question[36], number(40));
                let (external, lifetime) = self.map(protocol, SocketAddr::new(from.ip(), internal), long(4), ports);
                let head = [&[2, 0x81, 0, 0][..], &lifetime.to_be_bytes(), &epoch, &[0; 12]].concat();
                let map = [&question[24..42], &external.to_be_bytes(), &self.outside.to_ipv6_mapped().octets()].concat();
                Some([head, map].concat())
            }
            (0, 0, Speaks::NatPmp, 2) => Some([&[0, 0x80, 0, 0][..], &epoch, &self.outside.octets()].concat()),
            (0, op @ (1 | 2), Speaks::NatPmp, 12) => {
                let (protocol, internal) = (if op == 1 { UDP } else { TCP }, number(4));
                let (external, lifetime) = self.map(protocol, SocketAddr::new(from.ip(), internal), long(8), ports);
                let ports = [internal.to_be_bytes(), external.to_be_bytes()].concat();
                Some([&[0, 0x80 | op, 0, 0][..], &epoch, &ports, &lifetime.to_be_bytes()].concat())
            }
            _ => None,
        }
    }

    /// Opens a port, or closes it.
    fn map(&self, protocol: u8, to: SocketAddr, lifetime_s: u32, ports: &mut BTreeMap<(u8, u16), SocketAddr>) -> (u16, u32) {
        self.asked.lock().expect("nobody panics with it").push(Asked { protocol, lifetime_s });
        let external = FIRST_OUTSIDE + to.port() % OUTSIDE;
        if lifetime_s == 0 {
            ports.remove(&(protocol, external));
        } else {
            ports.insert((protocol, external), to);
        }
        let mut rules = vec!["flush chain ip nat mapped".to_owned()];
        rules.extend(ports.iter().map(|((protocol, external), to)| {
            let name = if *protocol == UDP { "udp" } else { "tcp" };
            format!("add rule ip nat mapped iifname \"eth0\" {name} dport {external} dnat to {to}")
        }));
        nft(&self.namespace, &(rules.join("\n") + "\n"));
        (external, if lifetime_s == 0 { 0 } else { self.lifetime_s })
    }
}
