//! A relay and its clients in virtual time: the hub, the forwarder, and real handshakes between them.
mod configure;
mod directory;
mod entry;
mod forward;
mod hostile;
mod members;
mod reflector;

use super::{ForwardSink, Forwarder, Hub, HubAction, HubEvent, HubNote, HubStatus, Refusal};
use crate::{
    config::{Access, HubConfig, Limits},
    crypto::{Identity, awslc::AwsLc},
    handshake::{Job, Offer, Outcome, Setup, Ticket, Work},
    id::{ConnId, Handle, PeerId},
    machine::{Deadline, Machine},
    session::{EpochKeys, Side, Suite},
    time::{Duration, Instant},
    wire::{
        Counter, DirectoryEntry, Established, FRAME_HEADER_LEN, FrameHeader, INNER_CONTROL, LANE_NODE, Params, Record, Records,
        RelayMessage, TAG_LEN, TYPE_DLV, TYPE_FWD,
    },
};
use core::net::SocketAddr;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use zeroize::Zeroizing;

const NETWORK: [u8; 32] = [7; 32];
const ADDRESS: &str = "192.0.2.1:40000";

/// What drivers and sockets are outside: one relay, and everything that was written to its connections.
struct Stage {
    hub: Hub,
    forwarder: Forwarder,
    now: Instant,
    relay: PeerId,
    last_conn: u64,
    notes: Vec<HubNote>,
    hung: BTreeMap<ConnId, &'static str>,
    mail: BTreeMap<ConnId, VecDeque<Vec<u8>>>,
    /// Jobs wait here while `hold` is set.
    hold: bool,
    held: Vec<Job>,
}

/// A connection before its proof.
struct Caller {
    conn: ConnId,
    identity: Arc<Identity>,
    setup: Setup,
    offer: Arc<Offer>,
}

/// An established client.
struct Client {
    conn: ConnId,
    id: PeerId,
    keys: EpochKeys,
    own_sid: u32,
    peer_sid: u32,
    sealed: u64,
    established: Established,
}

struct Punts(Vec<(ConnId, Vec<u8>)>);

impl ForwardSink for Punts {
    fn punt(&mut self, conn: ConnId, message: &mut [u8]) {
        self.0.push((conn, message.to_vec()));
    }
    fn wake(&mut self, _conn: ConnId) {}
}

fn identity(n: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed([n; 32]))
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn params(net_r: [u8; 32]) -> Params {
    Params { net_r: Some(net_r), supports_direct: true, ..Params::default() }
}

fn run(work: Work) -> Outcome {
    Job { ticket: Ticket(0), work }.run(&AwsLc).outcome
}

impl Stage {
    fn new() -> Self {
        Self::with(Limits { preauth_per_source: 100, join_burst: 1_000, ..Limits::default() })
    }

    fn with(limits: Limits) -> Self {
        Self::with_access(limits, Access::default())
    }

    fn with_access(limits: Limits, access: Access) -> Self {
        let identity = identity(200);
        let relay = identity.id();
        let forwarder = Forwarder::new(&limits);
        let hub = Hub::new(HubConfig {
            identity,
            crypto: Arc::new(AwsLc),
            suites: vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
            limits,
            access,
            keepalive: Duration::from_secs(20),
            udp_ports: [Some(8_443), Some(8_444)],
        });
        let now = Instant::from_millis(1_000_000);
        let mut stage = Self {
            hub,
            forwarder,
            now,
            relay,
            last_conn: 1,
            notes: Vec::new(),
            hung: BTreeMap::new(),
            mail: BTreeMap::new(),
            hold: false,
            held: Vec::new(),
        };
        stage.handle(HubEvent::Start);
        stage.handle(HubEvent::Entropy(&[3; 32]));
        stage
    }

    fn handle(&mut self, event: HubEvent<'_>) {
        let mut actions = Vec::new();
        self.hub.handle(self.now, event, &mut actions);
        assert!(actions.len() <= 256, "{} actions of one call", actions.len());
        for action in actions {
            match action {
                HubAction::Send { conn, bytes } => self.forwarder.control(conn, bytes),
                HubAction::Edit(edit) => self.forwarder.apply(self.now, edit),
                HubAction::Note(note) => self.notes.push(note),
                HubAction::Hangup { conn, why } => self.hung(conn, why),
                HubAction::Datagram { .. } => {}
                HubAction::Compute(job) => {
                    self.handle(HubEvent::Entropy(&[5; 32]));
                    self.held.push(job);
                    if !self.hold {
                        self.compute();
                    }
                }
            }
        }
        self.collect();
    }

    fn compute(&mut self) {
        for job in core::mem::take(&mut self.held) {
            let done = job.run(&AwsLc);
            self.handle(HubEvent::Computed(done));
        }
    }

    /// What the driver does: writes what waits, closes, tells the hub.
    fn hung(&mut self, conn: ConnId, why: &'static str) {
        assert_eq!(self.hung.insert(conn, why), None, "hung up twice");
        self.collect();
        self.handle(HubEvent::Closed { conn });
    }

    fn collect(&mut self) {
        let mut out = Vec::new();
        for conn in (3..=self.last_conn).step_by(2).map(ConnId) {
            while self.forwarder.next_message(self.now, conn, &mut out) {
                self.mail.entry(conn).or_default().push_back(out.clone());
            }
        }
    }

    /// Lets `millis` pass, with each alarm at its time.
    fn pass(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        while let Some(Deadline { at, .. }) = self.hub.deadline().filter(|deadline| deadline.at <= until) {
            self.now = self.now.max(at);
            self.handle(HubEvent::Alarm);
        }
        self.now = until;
    }

    fn open(&mut self, remote: SocketAddr) -> ConnId {
        self.hub.admit(self.now, remote).expect("within the limits");
        self.last_conn += 2;
        let conn = ConnId(self.last_conn);
        self.handle(HubEvent::Accepted { conn, exporter: [self.last_conn as u8; 32], remote, since: self.now });
        conn
    }

    fn close(&mut self, conn: ConnId) {
        self.handle(HubEvent::Closed { conn });
    }

    fn message(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut punts = Punts(Vec::new());
        self.forwarder.inbound(self.now, conn, &mut bytes.to_vec(), &mut punts);
        for (conn, mut bytes) in punts.0 {
            self.handle(HubEvent::Message { conn, bytes: &mut bytes });
        }
        self.collect();
    }

    fn mail(&mut self, conn: ConnId) -> Option<Vec<u8>> {
        self.mail.get_mut(&conn)?.pop_front()
    }

    /// Opens a connection and makes its HELLO.
    fn call(&mut self, identity: &Arc<Identity>, remote: &str) -> Caller {
        let conn = self.open(address(remote));
        self.caller(identity, conn)
    }

    fn caller(&self, identity: &Arc<Identity>, conn: ConnId) -> Caller {
        let setup = Setup::client_relay([conn.0 as u8; 32]);
        let work = Work::Offer {
            setup: setup.clone(),
            responder: self.relay,
            sid: 77,
            suites: vec![Suite::ChaCha20Poly1305],
            coins: Zeroizing::new([9; 96]),
        };
        let Outcome::Offered(offer) = run(work) else { panic!("an offer") };
        Caller { conn, identity: Arc::clone(identity), setup, offer }
    }

    fn join(&mut self, identity: &Arc<Identity>, remote: &str, params: Params) -> Client {
        let caller = self.call(identity, remote);
        self.message(caller.conn, caller.offer.init());
        let resp = self.mail(caller.conn).expect("CHALLENGE");
        let (fin, finish) = caller.conclude(self.relay, resp, params).expect("a good CHALLENGE");
        self.message(caller.conn, &fin);
        finish(self.mail(caller.conn).expect("ESTABLISHED"))
    }

    fn member(&mut self, n: u8) -> Client {
        self.join(&identity(n), ADDRESS, params(NETWORK))
    }

    fn status(&self) -> HubStatus {
        let mut status = self.hub.status(self.now);
        status.merge(self.forwarder.stats());
        status
    }

    fn dropped(&self, reason: &str) -> u64 {
        let status = self.status();
        assert!(status.drops.iter().any(|(name, _)| *name == reason), "no reason is called {reason}");
        status.dropped(reason)
    }

    /// Everything the client was told since.
    fn told(&mut self, client: &Client) -> Vec<RelayMessage> {
        let mut told = Vec::new();
        while let Some(mut bytes) = self.mail(client.conn) {
            if bytes[0] != TYPE_DLV {
                told.push(client.open(&mut bytes));
            }
        }
        told
    }

    /// The records that came for the client since, as (source, payload).
    fn records(&mut self, client: &Client) -> Vec<(Handle, Vec<u8>)> {
        let mut got = Vec::new();
        while let Some(bytes) = self.mail(client.conn) {
            if bytes[0] == TYPE_DLV {
                got.extend(
                    Records::new(&bytes).map(|record| record.expect("well-formed")).map(|record| (record.handle, record.payload.to_vec())),
                );
            }
        }
        got
    }

    fn forward(&mut self, from: &Client, to: Handle, payload: &[u8]) {
        let mut message = Vec::new();
        Record { kind: TYPE_FWD, flags: 0, handle: to, payload }.emit(&mut message);
        self.message(from.conn, &message);
    }

    /// Two clients still reach each other and are answered: nothing done to another connection has harmed them.
    fn assert_healthy(&mut self, a: &mut Client, b: &mut Client) {
        self.told(a);
        self.told(b);
        let ping = a.seal(&RelayMessage::Ping { id: 4_711 });
        self.message(a.conn, &ping);
        assert_eq!(self.told(a), [RelayMessage::Pong { id: 4_711 }]);
        self.forward(a, b.established.your_handle, b"\x10 still there");
        assert_eq!(self.records(b), [(a.established.your_handle, b"\x10 still there".to_vec())]);
    }
}

impl Caller {
    /// Takes CHALLENGE, makes RESPONSE; the closure turns ESTABLISHED into a client.
    fn conclude(&self, relay: PeerId, resp: Vec<u8>, params: Params) -> Option<(Vec<u8>, impl FnOnce(Vec<u8>) -> Client + use<>)> {
        let work = Work::Conclude {
            setup: self.setup.clone(),
            identity: Arc::clone(&self.identity),
            responder: relay,
            offer: Arc::clone(&self.offer),
            resp,
            params,
            coins: Zeroizing::new([1; 32]),
        };
        let Outcome::Concluded(Ok(concluded)) = run(work) else { return None };
        let keys = concluded.chain.keys(Side::Initiator, &AwsLc);
        let (conn, id) = (self.conn, self.identity.id());
        let (own_sid, peer_sid) = (self.offer.sid(), concluded.peer_sid);
        let session_id = concluded.chain.session_id();
        let finish = move |mut bytes: Vec<u8>| {
            let nobody = Established {
                session_id: [0; 16],
                your_handle: Handle(0),
                observed: address(ADDRESS),
                keepalive_s: 0,
                max_frame: 0,
                window: 0,
                udp_port: 0,
                entries: Vec::new(),
            };
            let mut client = Client { conn, id, keys, own_sid, peer_sid, sealed: 0, established: nobody };
            let RelayMessage::Established(established) = client.open(&mut bytes) else { panic!("ESTABLISHED comes first") };
            assert_eq!(established.session_id, session_id.0);
            client.established = established;
            client
        };
        Some((concluded.fin, finish))
    }
}

impl Client {
    fn seal(&mut self, message: &RelayMessage) -> Vec<u8> {
        let mut body = vec![INNER_CONTROL];
        message.emit(&mut body);
        self.seal_raw(&body)
    }

    fn seal_raw(&mut self, inner: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame.extend_from_slice(inner);
        frame.resize(frame.len() + TAG_LEN, 0);
        let counter = Counter::new(LANE_NODE, self.sealed);
        self.sealed += 1;
        self.keys.seal.seal(FrameHeader { epoch: 0, generation: 0, receiver: self.peer_sid, counter }, &mut frame);
        frame
    }

    fn open(&self, bytes: &mut [u8]) -> RelayMessage {
        let header = FrameHeader::parse(bytes).expect("a sealed frame");
        assert_eq!((header.receiver, header.counter.lane()), (self.own_sid, LANE_NODE));
        let plain = self.keys.open.open(bytes).expect("sealed by the relay");
        assert_eq!(plain[0], INNER_CONTROL);
        RelayMessage::parse(&plain[1..]).expect("a message of the relay")
    }
}

/// All entries of all DIRECTORY messages among these.
fn entries(told: Vec<RelayMessage>) -> Vec<DirectoryEntry> {
    let entries =
        told.into_iter().filter_map(|message| if let RelayMessage::Directory { entries } = message { Some(entries) } else { None });
    entries.flatten().collect()
}
