//! The relay's door: connections that come, talk and go, members and others, in any order and with any bytes. Nothing leaves a network, no
//! datagram goes where nobody has shown to be, all bounds hold, the machine comes to rest (protocol 3, 6, 8.8, 9).
use super::{cast, memo::Memo, script::Script};
use shadowmesh_core::{
    binding::{open_bound, seal_bind},
    bound::Bound,
    config::{Access, HubConfig, Limits},
    handshake::{Concluded, Job, Offer, Outcome, Setup, Ticket, Work},
    hub::{ForwardSink, Forwarder, Hub, HubAction, HubEvent, MESSAGE_BYTES},
    id::{ConnId, Handle},
    machine::{Deadline, Machine},
    session::{Side, Suite},
    time::{Duration, Instant},
    wire::{
        Bind, Counter, FrameHeader, INNER_CONTROL, LANE_NODE, Params, RECORD_HEADER_LEN, Record, Records, RelayMessage, TICKET_LEN,
        TYPE_DLV, TYPE_FWD, TYPE_RESP,
    },
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Steps of one script.
const STEPS: usize = 192;
/// Connections that are open at one time.
const CONNS: usize = 12;
/// Turns in one moment after which the machine is said to turn for ever.
const TURNS: usize = 2_000;

/// Bounds so small that scripts reach them.
fn limits() -> Limits {
    Limits {
        frame_bytes: 600,
        control_bytes: 2_000,
        preauth_bytes: 20_000,
        preauth_total: 6,
        preauth_per_source: 3,
        join_burst: 8,
        queue_frames: 40,
        queue_bytes: 16_000,
        // a quarter of it is for the relay's own messages, and a RESP has to fit there: else nobody ever joins
        queue_total_bytes: 40_000,
        handshake_burst: 3,
        half_open_total: 4,
        client_bytes_per_second: 100_000,
        client_frames_per_second: 200,
        clients: 4,
        ..Limits::default()
    }
}

/// A place for datagrams.
fn place(last: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], 4_000))
}

/// Steps of clients, strangers and time.
pub fn relay_door(data: &[u8]) {
    let mut script = Script::new(data);
    let mut door = Door::new();
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        door.step(&mut script);
        door.settle();
        door.check();
    }
    // everybody goes: nothing is left of them
    for conn in door.hands.keys().copied().collect::<Vec<_>>() {
        door.close(conn);
    }
    while let Some(job) = door.jobs.pop_front() {
        door.compute(job);
    }
    door.settle();
    let status = door.hub.status(door.now);
    assert_eq!((status.clients.len(), status.preauth, status.half_open), (0, 0, 0));
    let forwarded = door.forwarder.stats();
    assert_eq!((forwarded.queue_bytes, forwarded.ports.len()), (0, 0));
}

/// A client's side of one connection.
struct Hand {
    exporter: [u8; 32],
    /// Who it says it is, and of which network.
    who: usize,
    network: u8,
    offer: Option<Arc<Offer>>,
    session: Option<Concluded>,
    sequence: u64,
    /// Where it was told that it is, and with which tickets.
    told: BTreeMap<SocketAddr, [u8; TICKET_LEN]>,
    hung_up: bool,
}

#[derive(Default)]
struct Punts(VecDeque<(ConnId, Vec<u8>)>);

impl ForwardSink for Punts {
    fn punt(&mut self, conn: ConnId, message: &mut [u8]) {
        self.0.push_back((conn, message.to_vec()));
    }
    fn wake(&mut self, _conn: ConnId) {}
}

struct Door {
    now: Instant,
    hub: Hub,
    forwarder: Forwarder,
    punts: Punts,
    jobs: VecDeque<Job>,
    hands: BTreeMap<ConnId, Hand>,
    networks: BTreeMap<Handle, u32>,
    next: u64,
}

impl Door {
    fn new() -> Self {
        let config = HubConfig {
            access: Access::default(),
            identity: cast::bob(),
            crypto: Arc::new(Memo),
            suites: vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
            limits: limits(),
            keepalive: Duration::from_secs(20),
            udp_ports: [Some(1), None],
        };
        let mut door = Self {
            now: Instant::from_millis(1_000_000),
            forwarder: Forwarder::new(&config.limits),
            hub: Hub::new(config),
            punts: Punts::default(),
            jobs: VecDeque::new(),
            hands: BTreeMap::new(),
            networks: BTreeMap::new(),
            next: 0,
        };
        door.handle(HubEvent::Entropy(&[0x77; 32]));
        door.handle(HubEvent::Start);
        door
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte();
        let conn = self.hands.keys().nth(script.below(self.hands.len())).copied();
        match (op % 14, conn) {
            (0, _) => self.knock(script.byte()),
            (1, Some(conn)) => self.begin(conn),
            (2, Some(conn)) => self.read(conn),
            (3, Some(conn)) => self.say(conn, script.piece().to_vec()),
            (4, Some(conn)) => self.forward(conn, script),
            (5, Some(conn)) => self.control(conn, script),
            (6, Some(conn)) => {
                let genuine = &cast::genuine(shadowmesh_core::handshake::Role::ClientRelay);
                let message = [&genuine.init, &genuine.fin][usize::from(op & 0x80 != 0)];
                let spoiled = script.spoil(message, &[]);
                self.say(conn, spoiled);
            }
            (7, Some(conn)) => self.close(conn),
            (8, _) => self.now = self.now + Duration::from_millis(1 << script.below(18)),
            (9, _) => {
                if let Some(job) = self.jobs.pop_front() {
                    self.compute(job);
                }
            }
            // the shortest way in
            (10 | 11, Some(conn)) => {
                self.begin(conn);
                self.settle_all(conn);
            }
            (12, _) => match (script.byte(), conn) {
                (0xff, _) => self.handle(HubEvent::Leave),
                (0xfe, _) => self.handle(HubEvent::Drain { within: Duration::from_secs(10) }),
                (0xfd, _) => self.configure(script),
                (0xfc, Some(conn)) => self.attach(conn, script),
                (0xfb, Some(conn)) => self.route(conn, script),
                (0xfa, _) => self.pass(script),
                (choice, Some(conn)) => self.datagram(conn, choice, script),
                (_, None) => {}
            },
            (13, _) => {
                // a newcomer of a few networks, at once
                let from = script.byte();
                self.knock(from);
                if let Some(conn) = self.hands.keys().next_back().copied() {
                    self.begin(conn);
                    self.settle_all(conn);
                }
            }
            _ => {}
        }
    }

    /// Other rates, and some of the sources and identities not wanted any more.
    fn configure(&mut self, script: &mut Script<'_>) {
        let (rate, who) = (script.byte(), script.byte());
        let limits = Limits { client_frames_per_second: rate.into(), frames_per_second: (rate / 2).into(), queue_frames: 9, ..limits() };
        let deny = (0..4).filter(|bit| who >> bit & 1 == 1).map(|last| (IpAddr::from([192, 0, 2, last]), 32)).collect();
        let peers = if who >> 4 & 1 == 1 { vec![cast::bob().id()] } else { Vec::new() };
        self.handle(HubEvent::Configure { limits: Box::new(limits), access: Box::new(Access { deny, peers, ..Access::default() }) });
        self.forwarder.configure(self.hub.limits());
    }

    fn settle_all(&mut self, conn: ConnId) {
        for _ in 0..3 {
            self.settle();
            while let Some(job) = self.jobs.pop_front() {
                self.compute(job);
            }
            self.read(conn);
        }
    }

    fn knock(&mut self, from: u8) {
        let remote = SocketAddr::from(([192, 0, 2, from % 4], 1_000 + u16::from(from)));
        if self.hands.len() >= CONNS || self.hub.admit(self.now, remote).is_err() {
            return;
        }
        if from == 0xff {
            return self.hub.released(remote, false);
        }
        self.next += 1;
        let conn = ConnId(2 * self.next - 1);
        let exporter = [self.next as u8; 32];
        let who = [0, 2, 3][usize::from(from >> 2) % 3];
        let network = from >> 4 & 1;
        self.hands
            .insert(conn, Hand { exporter, who, network, offer: None, session: None, sequence: 0, told: BTreeMap::new(), hung_up: false });
        self.handle(HubEvent::Accepted { conn, exporter, remote, since: self.now });
    }

    /// A genuine HELLO.
    fn begin(&mut self, conn: ConnId) {
        let Some(hand) = self.hands.get_mut(&conn) else { return };
        let setup = Setup::client_relay(hand.exporter);
        let suites = vec![Suite::ChaCha20Poly1305];
        let work = Work::Offer { setup, responder: cast::bob().id(), sid: 5, suites, coins: Zeroizing::new([hand.exporter[0]; 96]) };
        let Outcome::Offered(offer) = cast::run(work) else { unreachable!("an offer is made") };
        let init = offer.init().to_vec();
        hand.offer = Some(offer);
        self.say(conn, init);
    }

    /// Takes everything that waits for a connection, answers a CHALLENGE, and looks at what came from others.
    fn read(&mut self, conn: ConnId) {
        let mut message = Vec::new();
        while self.forwarder.next_message(self.now, conn, &mut message) {
            match message.first() {
                Some(&TYPE_DLV) => {
                    assert!(message.len() <= MESSAGE_BYTES + limits().frame_bytes + RECORD_HEADER_LEN);
                    self.delivered(conn, &message);
                }
                Some(&TYPE_RESP) => self.challenged(conn, core::mem::take(&mut message)),
                Some(_) | None => assert!(!message.is_empty(), "an empty message"),
            }
        }
    }

    fn delivered(&self, conn: ConnId, message: &[u8]) {
        for record in Records::new(message) {
            let record = record.expect("the relay writes whole records");
            assert_eq!(record.kind, TYPE_DLV);
            assert!(record.payload.len() <= limits().frame_bytes);
            let own = self.hub.status(self.now).clients.iter().find(|client| client.conn == conn).map(|client| client.network);
            let source = self.networks.get(&record.handle).copied();
            assert!(source.is_some(), "a record of a handle that was never given");
            assert!(own.is_none() || own == source, "a record crossed from one network to another");
        }
    }

    fn challenged(&mut self, conn: ConnId, resp: Vec<u8>) {
        let Some(hand) = self.hands.get_mut(&conn) else { return };
        let Some(offer) = hand.offer.clone() else { return };
        let mut network = cast::network();
        network.secret[0] = hand.network;
        let params = Params { net_r: Some(network.net_r(cast::bob().id())), supports_direct: true, ..Params::default() };
        let work = Work::Conclude {
            setup: Setup::client_relay(hand.exporter),
            identity: cast::identity(hand.who),
            responder: cast::bob().id(),
            offer,
            resp,
            params,
            coins: Zeroizing::new([6; 32]),
        };
        let Outcome::Concluded(concluded) = cast::run(work) else { unreachable!("a RESP is taken or refused") };
        if let Ok(concluded) = concluded {
            let fin = concluded.fin.clone();
            hand.session = Some(concluded);
            self.say(conn, fin);
        }
    }

    /// Records to small handles, of members and of nobody.
    fn forward(&mut self, conn: ConnId, script: &mut Script<'_>) {
        let mut message = Vec::new();
        for _ in 0..=script.below(8) {
            let handle = Handle(u32::from(script.byte() % 16));
            let len = 1 + script.below(700);
            let payload = vec![script.byte(); len];
            Record { kind: TYPE_FWD, flags: script.byte() & 3, handle, payload: &payload }.emit(&mut message);
        }
        self.say(conn, message);
    }

    /// A sealed message of any content; a stranger's is under a key of nobody.
    fn control(&mut self, conn: ConnId, script: &mut Script<'_>) {
        let Some(hand) = self.hands.get_mut(&conn) else { return };
        let Some(session) = &hand.session else { return };
        let keys = session.chain.keys(Side::Initiator, &Memo);
        let choice = script.byte();
        let (lane, inner) = match choice & 7 {
            0 => (0, INNER_CONTROL),
            1 => (LANE_NODE, script.byte()),
            _ => (LANE_NODE, INNER_CONTROL),
        };
        if choice & 8 == 0 {
            hand.sequence += 1;
        }
        let sequence = hand.sequence + u64::from(choice >> 4) * 997;
        let header = FrameHeader { epoch: 0, generation: 0, receiver: session.peer_sid, counter: Counter::new(lane, sequence) };
        let frame = cast::sealed(&keys.seal, header, inner, script.piece());
        self.say(conn, frame);
    }

    /// What an honest client says to the relay.
    fn tell(&mut self, conn: ConnId, message: &RelayMessage) {
        let Some(hand) = self.hands.get_mut(&conn) else { return };
        let Some(session) = &hand.session else { return };
        hand.sequence += 1;
        let counter = Counter::new(LANE_NODE, hand.sequence);
        let header = FrameHeader { epoch: 0, generation: 0, receiver: session.peer_sid, counter };
        let mut body = Vec::new();
        message.emit(&mut body);
        let frame = cast::sealed(&session.chain.keys(Side::Initiator, &Memo).seal, header, INNER_CONTROL, &body);
        self.say(conn, frame);
    }

    /// ATTACH with a ticket that it was given, at another address than that, or altered.
    fn attach(&mut self, conn: ConnId, script: &mut Script<'_>) {
        let Some(hand) = self.hands.get(&conn) else { return };
        let (choice, last) = (script.byte(), script.byte());
        let known = hand.told.iter().nth(usize::from(choice >> 2).checked_rem(hand.told.len()).unwrap_or(0));
        let (known, mut ticket) = known.map_or((place(last), [last; TICKET_LEN]), |(address, ticket)| (*address, *ticket));
        let address = if choice & 3 == 1 { place(last) } else { known };
        if choice & 3 == 2 {
            ticket[usize::from(last) % TICKET_LEN] ^= 1 | last;
        }
        self.tell(conn, &RelayMessage::Attach { address, ticket });
    }

    /// ROUTE for one receiver or for many.
    fn route(&mut self, conn: ConnId, script: &mut Script<'_>) {
        let (first, to) = (u32::from(script.byte()), Handle(u32::from(script.byte() % 16)));
        for more in 0..=u32::from(script.byte()) {
            self.tell(conn, &RelayMessage::Route { receiver: more << 8 | first, to });
            self.settle();
        }
    }

    /// A run of datagrams from anywhere: it goes nowhere, or from one who has shown where he is to another of his network (protocol 8.8).
    fn pass(&mut self, script: &mut Script<'_>) {
        let (from, receiver, count) = (place(script.byte()), u32::from(script.byte()), 1 + script.below(64));
        let bytes = count * script.below(limits().frame_bytes + 9);
        let Some(to) = self.forwarder.pass(self.now, from, receiver, count, bytes) else { return };
        assert!(bytes <= count * limits().frame_bytes, "longer than a frame");
        let at = |address: SocketAddr| self.hands.iter().filter(move |(_, hand)| hand.told.contains_key(&address));
        let is_meant = at(from).any(|(source, sender)| at(to).any(|(conn, hand)| conn != source && hand.network == sender.network));
        assert!(is_meant, "{to} is nobody's whom one at {from} may mean");
    }

    /// BIND of a client, whole or spoiled, or noise. Only what holds is answered, where it came from and in as many bytes (protocol 8.1).
    fn datagram(&mut self, conn: ConnId, choice: u8, script: &mut Script<'_>) {
        let session = self.hands.get(&conn).and_then(|hand| hand.session.as_ref());
        let question = session.map(|session| {
            let bind = Bind { receiver: session.peer_sid, nonce: [choice; 8] };
            seal_bind(&session.chain.keys(Side::Initiator, &Memo).path, &bind)
        });
        let bytes = match (&question, choice & 3) {
            (Some(question), 0 | 1) => question.to_vec(),
            (Some(question), 2) => script.spoil(question, &[]),
            _ => script.piece().to_vec(),
        };
        let (port, remote) = (choice >> 7, place(choice));
        let is_in = self.hub.status(self.now).clients.iter().any(|client| client.conn == conn);
        let mut actions = Vec::new();
        self.hub.handle(self.now, HubEvent::Datagram { port, remote, bytes: &bytes }, &mut actions);
        let Some(action) = actions.pop() else { return };
        let HubAction::Datagram { port: back, remote: to, bytes: answer } = action else { panic!("a datagram leads to datagrams only") };
        assert!(actions.is_empty() && is_in && question.is_some_and(|question| question[..] == bytes), "only a client's own question");
        assert_eq!((back, to, answer.len()), (port, remote, bytes.len()));
        let Some(hand) = self.hands.get_mut(&conn) else { return };
        let Some(session) = &hand.session else { return };
        let bound = open_bound(&session.chain.keys(Side::Initiator, &Memo).path, &answer).expect("by the relay");
        assert_eq!((bound.address, bound.ticket == [0; TICKET_LEN]), (remote, port == 1));
        if port == 0 {
            hand.told.insert(remote, bound.ticket);
        }
    }

    fn say(&mut self, conn: ConnId, mut bytes: Vec<u8>) {
        if self.hands.get(&conn).is_some_and(|hand| !hand.hung_up) {
            self.forwarder.inbound(self.now, conn, &mut bytes, &mut self.punts);
        }
    }

    fn close(&mut self, conn: ConnId) {
        if self.hands.remove(&conn).is_some() {
            self.handle(HubEvent::Closed { conn });
        }
    }

    fn compute(&mut self, job: Job) {
        let Ticket(_) = job.ticket;
        let done = job.run(&Memo);
        self.handle(HubEvent::Computed(done));
    }

    fn handle(&mut self, event: HubEvent<'_>) {
        let mut actions = Vec::new();
        self.hub.handle(self.now, event, &mut actions);
        assert!(actions.len() <= 256, "{} actions of one call", actions.len());
        let mut computes = false;
        for action in actions {
            match action {
                HubAction::Send { conn, bytes } => self.forwarder.control(conn, bytes),
                HubAction::Hangup { conn, .. } => {
                    if let Some(hand) = self.hands.get_mut(&conn) {
                        hand.hung_up = true;
                    }
                }
                HubAction::Compute(job) => {
                    computes = true;
                    self.jobs.push_back(job);
                }
                HubAction::Edit(edit) => self.forwarder.apply(self.now, edit),
                HubAction::Datagram { .. } => panic!("a datagram that nobody's datagram asked for"),
                HubAction::Note(_) => {}
            }
        }
        for client in self.hub.status(self.now).clients {
            let known = *self.networks.entry(client.handle).or_insert(client.network);
            assert_eq!(known, client.network, "a handle is never given twice (protocol 6.6)");
        }
        if computes {
            self.handle(HubEvent::Entropy(&[0x78; 32]));
        }
    }

    /// Alarms that are due and messages for the hub, until there are none.
    fn settle(&mut self) {
        for _ in 0..TURNS {
            let due = Deadline::earlier(self.hub.deadline(), self.forwarder.deadline()).is_some_and(|deadline| deadline.at <= self.now);
            if due {
                self.handle(HubEvent::Alarm);
                for conn in self.forwarder.alarm(self.now) {
                    self.close(conn);
                }
            }
            match self.punts.0.pop_front() {
                Some((conn, mut bytes)) => self.handle(HubEvent::Message { conn, bytes: &mut bytes }),
                None if !due => return self.part(),
                None => {}
            }
        }
        panic!("the relay turns for ever: {:?}", self.hub.deadline());
    }

    /// Connections that were hung up are gone when what waits for them was written.
    fn part(&mut self) {
        for conn in self.hands.iter().filter(|(_, hand)| hand.hung_up).map(|(conn, _)| *conn).collect::<Vec<_>>() {
            self.read(conn);
            self.close(conn);
        }
    }

    fn check(&self) {
        let limits = limits();
        let status = self.hub.status(self.now);
        assert!(status.preauth <= limits.preauth_total, "{} connections without a proof", status.preauth);
        assert!(status.half_open <= limits.half_open_total);
        assert!(status.clients.len() <= limits.clients);
        let forwarded = self.forwarder.stats();
        assert!(forwarded.ports.len() <= CONNS);
        let urgent = 64 * (limits.frame_bytes + RECORD_HEADER_LEN);
        for port in &forwarded.ports {
            assert!(port.queue_frames <= limits.queue_frames + 64 && port.queue_bytes <= limits.queue_bytes + urgent, "{port:?}");
        }
        assert!(forwarded.queue_bytes <= limits.queue_total_bytes + CONNS * urgent, "{} bytes wait", forwarded.queue_bytes);
        assert!(self.jobs.len() <= 64, "{} jobs in flight", self.jobs.len());
        let mut kept = |bound: Bound| assert!(bound.is_kept(), "{bound:?}");
        self.hub.bounds(&mut kept);
        self.forwarder.bounds(&mut kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target that nobody gets into finds nothing: once the bounds left no room for a RESP.
    #[test]
    fn members_come_in_reach_each_other_by_datagrams_and_fill_their_tables() {
        let mut door = Door::new();
        let mut run = |script: &[u8]| {
            let mut script = Script::new(script);
            while !script.is_empty() {
                door.step(&mut script);
                door.settle();
                door.check();
            }
            (door.hub.status(door.now).clients.len(), door.forwarder.pass(door.now, place(4), 2, 1, 100), door.forwarder.stats().drops)
        };
        let join = [13, 0, 0, 13, 0, 4, 13, 0, 20];
        let attach = [12, 0, 4, 12, 1, 8, 12, 0, 0xfc, 0, 0, 12, 1, 0xfc, 0, 0];
        let route = [12, 0, 0xfb, 2, 2, 0];
        let (clients, to, _) = run(&[&join[..], &attach, &route].concat());
        assert_eq!((clients, to), (3, Some(place(8))));
        // one is there already: with these there are as many as there may be, all for one member; then one for another
        let routes = [(3, 2, 255), (4, 2, 255), (5, 2, 255), (6, 2, 254), (7, 3, 0)];
        let routes = routes.map(|(first, to, more)| [8, 0, 13, 12, 0, 0xfb, first, to, more]);
        let (_, _, drops) = run(&routes.concat());
        assert!(drops.iter().any(|(name, count)| *name == "route_table" && *count > 0), "{drops:?}");
    }
}
