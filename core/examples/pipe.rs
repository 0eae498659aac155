//! A network without a network: two peers and a relay, each a thread, joined by nothing but pipes (docs/transports.md).
//!
//! ```text
//!   ann ══ a pipe each way ══ relay ══ a pipe each way ══ bob        a message on a pipe = length u32 | bytes
//! ```
#![expect(clippy::disallowed_types, clippy::disallowed_methods, clippy::print_stdout, reason = "this is a driver, not the protocol")]
use shadowmesh_core::event::{Action, Event, Note, Target, TlsFacts};
use shadowmesh_core::hub::{ForwardSink, Forwarder, Hub, HubAction, HubEvent};
use shadowmesh_core::id::{ConnId, Handle};
use shadowmesh_core::machine::{Deadline, Machine};
use shadowmesh_core::network::{Network, RelayAddress};
use shadowmesh_core::offload::Checksum;
use shadowmesh_core::plane::{Plane, Report, Sink, Via};
use shadowmesh_core::time::{Duration, Instant};
use shadowmesh_core::{Node, config, crypto::Identity, crypto::rustcrypto::RustCrypto, wire};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock, mpsc};

/// A pipe has no address; what the machines are told is a label.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Both peers are done within a second.
const GIVE_UP: Instant = Instant::from_millis(20_000);

/// What comes on each line, by its number: messages, and at last `None`.
type Inbox = mpsc::Receiver<(u64, Option<Vec<u8>>)>;

/// A peer's end of a line, and 32 bytes that both ends know and no line had before: they stand for the TLS exporter.
type End = (PipeWriter, Inbox, [u8; 32]);

pub(crate) fn main() {
    let [relay, ann, bob] = [(); 3].map(|()| Arc::new(Identity::from_seed(random())));
    let meeting = RelayAddress::new("wss://pipe", Some(relay.id())).expect("a good URL");
    let network = Network::new(random(), "pipes", vec![meeting]).expect("a good network");
    let hello = packet(network.address_v6(ann.id()), network.address_v6(bob.id()), b"hello, bob");
    let answer = packet(network.address_v6(bob.id()), network.address_v6(ann.id()), b"hello, ann");
    let ([a, b, c, d], names) = ([(); 4].map(|()| pipe().expect("a pipe")), [random(), random()]);
    let told = std::thread::scope(|scope| {
        scope.spawn(|| serve(relay, [(b.1, names[0]), (d.1, names[1])], &listen([a.0, c.0])));
        let bob = scope.spawn(|| live("bob", bob, &network, (c.1, listen([d.0]), names[1]), &answer, false));
        [live("ann", ann, &network, (a.1, listen([b.0]), names[0]), &hello, true), bob.join().expect("bob lives")]
    });
    assert_eq!(told, ["hello, ann", "hello, bob"].map(|words| Some(words.into())));
}

// ---- the transport: whole messages, in order, and an end ---------------------------------------------------------

/// Waits until the pipe takes the message. That nobody reads there any more shows at the other pipe of the line.
fn write(to: &mut PipeWriter, message: &[u8]) {
    let _ = to.write_all(&[&(message.len() as u32).to_be_bytes(), message].concat());
}

fn read(from: &mut PipeReader) -> Option<Vec<u8>> {
    let mut len = [0; 4];
    from.read_exact(&mut len).ok()?;
    let len = Some(u32::from_be_bytes(len)).filter(|len| *len <= 1 << 20)?; // a bound on everything
    let mut message = vec![0; len as usize];
    from.read_exact(&mut message).ok().map(|()| message)
}

fn listen<const N: usize>(lines: [PipeReader; N]) -> Inbox {
    let (sender, inbox) = mpsc::channel();
    for (line, mut from) in (1..).zip(lines) {
        let sender = sender.clone();
        std::thread::spawn(move || {
            while let Some(message) = read(&mut from) {
                let _ = sender.send((line, Some(message)));
            }
            let _ = sender.send((line, None));
        });
    }
    inbox
}

/// The next message; nothing when a machine wants its alarm, or when actions wait.
fn wait(inbox: &Inbox, idle: bool, deadline: Option<Deadline>) -> Option<(u64, Option<Vec<u8>>)> {
    let patience = deadline.map_or(Duration::from_secs(1), |deadline| deadline.at.since(now()));
    inbox.recv_timeout(if idle { patience } else { Duration::ZERO }).ok()
}

fn now() -> Instant {
    static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    Instant::from_nanos(START.elapsed().as_nanos() as u64)
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("the system has random bytes");
    bytes
}

// ---- a peer: Node and Plane --------------------------------------------------------------------------------------

/// What the plane reaches.
struct Ports {
    line: PipeWriter,
    punts: Vec<(Option<Handle>, Vec<u8>)>,
    reports: Vec<Report>,
    delivered: Vec<Vec<u8>>,
}

impl Sink for Ports {
    fn room(&self, _conn: ConnId) -> usize {
        64 * 1024 // a pipe makes its writer wait; a transport that cannot says what it still takes
    }
    fn send(&mut self, via: Via, frame: &[u8]) {
        let header = wire::record_header(wire::TYPE_FWD, 0, via.handle.unwrap_or(Handle(0)), frame.len() as u16);
        write(&mut self.line, &[&header, frame].concat());
    }
    fn deliver(&mut self, packet: &[u8], _checksum: Checksum) {
        self.delivered.push(packet.to_vec());
    }
    fn punt(&mut self, _conn: ConnId, handle: Option<Handle>, bytes: &mut [u8]) {
        self.punts.push((handle, bytes.to_vec()));
    }
    fn report(&mut self, report: Report) {
        self.reports.push(report);
    }
}

/// One speaks first and leaves when it is answered; the other answers, and goes when the first has left.
fn live(name: &str, own: Arc<Identity>, network: &Network, (line, inbox, exporter): End, words: &[u8], first: bool) -> Option<String> {
    let config = config::NodeConfig::new(own, Arc::new(RustCrypto), network.clone());
    let mut node = Node::new(config::NodeConfig { name: name.into(), direct: config::Transports::NONE, ..config });
    let mut plane = Plane::new(node.plane_config());
    let mut ports = Ports { line, punts: Vec::new(), reports: Vec::new(), delivered: Vec::new() };
    let (mut actions, mut to_relay, mut told) = (Vec::new(), ConnId(0), None);
    node.handle(now(), Event::Entropy(&random()), &mut actions);
    node.handle(now(), Event::Start, &mut actions);
    while now() < GIVE_UP {
        for action in std::mem::take(&mut actions) {
            match action {
                Action::Dial { conn, target: Target::Relay { pin, .. }, .. } => {
                    let tls = TlsFacts { exporter, identity: pin, subject: None };
                    to_relay = conn;
                    node.handle(now(), Event::Opened { conn, tls, local: NOWHERE, remote: NOWHERE }, &mut actions);
                }
                Action::Send { bytes, .. } => write(&mut ports.line, &bytes),
                Action::Edit(edit) => plane.apply(now(), edit, &mut ports),
                Action::Compute(job) => {
                    node.handle(now(), Event::Computed(job.run(&RustCrypto)), &mut actions);
                    node.handle(now(), Event::Entropy(&random()), &mut actions);
                }
                Action::Note(Note::Left | Note::PeerLost { .. }) => return told,
                Action::Note(fact) => {
                    println!("{name}: {fact:?}");
                    if first && matches!(fact, Note::PeerConnected { .. }) {
                        plane.outbound(now(), words, &mut ports);
                    }
                }
                // no second way and no UDP here
                Action::Dial { .. }
                | Action::Hangup { .. }
                | Action::Listen(_)
                | Action::Remember { .. }
                | Action::Succeeded(_)
                | Action::Sockets
                | Action::Flow { .. }
                | Action::Datagram { .. } => {}
            }
        }
        for (handle, mut bytes) in ports.punts.drain(..) {
            node.handle(now(), Event::Message { conn: to_relay, handle, bytes: &mut bytes }, &mut actions);
        }
        for report in ports.reports.drain(..) {
            node.handle(now(), Event::Report(report), &mut actions);
        }
        for packet in std::mem::take(&mut ports.delivered) {
            println!("{name} gets a packet: {:?}", told.insert(String::from_utf8_lossy(&packet[40..]).into_owned()));
            if first { node.handle(now(), Event::Leave, &mut actions) } else { plane.outbound(now(), words, &mut ports) }
        }
        match wait(&inbox, actions.is_empty(), Deadline::earlier(node.deadline(), plane.deadline())) {
            Some((_, Some(mut message))) => plane.inbound(now(), to_relay, &mut message, &mut ports),
            Some((_, None)) => return None,
            None => node.handle(now(), Event::Alarm, &mut actions),
        }
        plane.alarm(now(), &mut ports);
    }
    None
}

// ---- the relay: Hub and Forwarder --------------------------------------------------------------------------------

/// What the forwarder reaches: the control room's messages.
struct Punts(Vec<(ConnId, Vec<u8>)>);

impl ForwardSink for Punts {
    fn punt(&mut self, conn: ConnId, message: &mut [u8]) {
        self.0.push((conn, message.to_vec()));
    }
    fn wake(&mut self, _conn: ConnId) {}
}

/// Serves until both peers are gone.
fn serve(identity: Arc<Identity>, lines: [(PipeWriter, [u8; 32]); 2], inbox: &Inbox) {
    let config = config::HubConfig::new(identity, Arc::new(RustCrypto));
    let (mut forwarder, mut punts) = (Forwarder::new(&config.limits), Punts(Vec::new()));
    let (mut hub, mut actions) = (Hub::new(config), Vec::new());
    hub.handle(now(), HubEvent::Entropy(&random()), &mut actions);
    hub.handle(now(), HubEvent::Start, &mut actions);
    let mut open = Vec::new();
    for (line, (to, exporter)) in (1..).zip(lines) {
        open.push((line, to));
        hub.handle(now(), HubEvent::Accepted { conn: ConnId(line), exporter, remote: NOWHERE, since: now() }, &mut actions);
    }
    while !open.is_empty() {
        let mut over = Vec::new();
        for action in std::mem::take(&mut actions) {
            match action {
                HubAction::Send { conn, bytes } => forwarder.control(conn, bytes),
                HubAction::Edit(edit) => forwarder.apply(now(), edit),
                HubAction::Hangup { conn, .. } => over.push(conn.0),
                HubAction::Compute(job) => {
                    hub.handle(now(), HubEvent::Computed(job.run(&RustCrypto)), &mut actions);
                    hub.handle(now(), HubEvent::Entropy(&random()), &mut actions);
                }
                HubAction::Note(_) | HubAction::Datagram { .. } => {}
            }
        }
        for (conn, mut bytes) in punts.0.drain(..) {
            hub.handle(now(), HubEvent::Message { conn, bytes: &mut bytes }, &mut actions);
        }
        for (line, to) in &mut open {
            let mut message = Vec::new();
            while forwarder.next_message(now(), ConnId(*line), &mut message) {
                write(to, &message);
            }
        }
        open.retain(|(line, _)| !over.contains(line));
        match wait(inbox, actions.is_empty(), hub.deadline()) {
            Some((line, Some(mut message))) => {
                forwarder.inbound(now(), ConnId(line), &mut message, &mut punts);
            }
            Some((line, None)) => {
                open.retain(|(other, _)| *other != line);
                hub.handle(now(), HubEvent::Closed { conn: ConnId(line) }, &mut actions);
            }
            None => hub.handle(now(), HubEvent::Alarm, &mut actions),
        }
    }
}

/// An IPv6 packet without a next header (RFC 8200 4.7).
fn packet(from: Ipv6Addr, to: Ipv6Addr, text: &[u8]) -> Vec<u8> {
    let head = [0x60, 0, 0, 0, 0, text.len() as u8, 59, 64];
    [&head[..], &from.octets(), &to.octets(), text].concat()
}
