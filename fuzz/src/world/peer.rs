//! The driver of `Node` and `Plane` in this world: what runtime-smol's `peer::drive` does, without tasks.
mod ports;
mod udp;

use super::{
    Kept,
    air::{Air, End, HostId, Parcel, Side, Tick, WireId},
    dial::{Certificate, DialId, Pin, address_of},
    journal::Scribe,
    outbox::Outbox,
};
use ports::Ports;
use shadowmesh_core::{
    Node,
    bound::Bound,
    config::NodeConfig,
    crypto::Provider,
    event::{Action, Ended, Event, Note, Target, TlsFacts},
    handshake::Done,
    id::{ConnId, Handle, PeerId},
    machine::{Deadline, Machine},
    plane::{Edit, Plane, Report},
    status::Status,
    time::{Duration, Instant},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// How often the lanes' counters are handed to the node.
const TALLY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a connection that is hung up may take to send what waits.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);
/// What a job costs.
const JOB_TIME: Duration = Duration::from_millis(1);
/// Connections that came in by the direct listener, at once.
const ACCEPTED: usize = 256;
/// Turns in one moment after which a machine is said to turn for ever.
const TURNS: usize = 100_000;

/// An event that waits for the node.
enum Pending {
    Opened { conn: ConnId, tls: TlsFacts, local: SocketAddr, remote: SocketAddr },
    Accepted { conn: ConnId, exporter: [u8; 32], local: SocketAddr, remote: SocketAddr },
    Closed { conn: ConnId, why: Ended },
    Message { conn: ConnId, handle: Option<Handle>, bytes: Vec<u8> },
    Computed(Done),
    Listening(Option<u16>),
    Report(Report),
    Sockets(Option<u16>),
    Datagram { remote: SocketAddr, bytes: Vec<u8> },
}

/// Packets that wait for a slow interface; more are lost there, as behind a full queue of the kernel.
const INTERFACE_PACKETS: usize = 500;

/// What takes packets out of the plane.
#[derive(Default)]
struct Interface {
    /// Between two packets; zero: all at once.
    period: Duration,
    queue: VecDeque<Vec<u8>>,
    drains: bool,
    lost: u64,
}

/// One life of a peer.
pub(super) struct Peer {
    host: HostId,
    life: u32,
    id: PeerId,
    node: Node,
    /// Its deadline since it was called last: data passes much more often than that.
    node_due: Option<Deadline>,
    scribe: Scribe<Node>,
    plane: Plane,
    ports: Ports,
    crypto: Arc<dyn Provider>,
    actions: Vec<Action>,
    tally_at: Instant,
    known: BTreeSet<ConnId>,
    wires: BTreeMap<ConnId, (WireId, Side)>,
    /// Hung up, and still sending.
    leaving: BTreeMap<ConnId, (WireId, Side, Outbox)>,
    dials: BTreeMap<ConnId, DialId>,
    next_accepted: u64,
    port: Option<u16>,
    udp_port: Option<u16>,
    /// The port that it opens, if it is always the same.
    listen_udp: Option<u16>,
    /// How far its clock is ahead of the world's.
    ahead: Duration,
    /// When it wants its turn, in the world's time.
    due: Instant,
    interface: Interface,
    /// Alarms of its machines so far.
    alarms: u64,
    notes: Vec<(Instant, Note)>,
    kept: Kept,
}

impl Peer {
    /// Brings a peer up.
    pub(super) fn start(
        air: &mut Air,
        host: HostId,
        life: u32,
        config: NodeConfig,
        interfaces: &[(IpAddr, u8)],
        listen_udp: Option<u16>,
    ) -> Self {
        let (crypto, id) = (Arc::clone(&config.crypto), config.identity.id());
        let scribe = Scribe::new(air, (host, life), &config);
        let node = Node::new(config);
        let plane = Plane::new(node.plane_config());
        let mut peer = Self {
            host,
            life,
            id,
            node,
            node_due: None,
            scribe,
            plane,
            ports: Ports::default(),
            crypto,
            actions: Vec::new(),
            tally_at: air.now + TALLY_INTERVAL,
            known: BTreeSet::new(),
            wires: BTreeMap::new(),
            leaving: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_accepted: 0,
            port: None,
            udp_port: None,
            listen_udp,
            ahead: Duration::ZERO,
            due: Instant::ZERO,
            interface: Interface::default(),
            alarms: 0,
            notes: Vec::new(),
            kept: Kept::default(),
        };
        let fresh = air.rng.seed();
        peer.handle(air, Event::Entropy(&fresh));
        peer.handle(air, Event::Start);
        peer.handle(air, Event::Interfaces(interfaces));
        peer.turn(air);
        peer
    }

    /// What it told people since the last call.
    pub(super) fn take_notes(&mut self) -> Vec<(Instant, Note)> {
        core::mem::take(&mut self.notes)
    }

    /// What it asked to be remembered since the last call.
    pub(super) fn take_kept(&mut self) -> Kept {
        core::mem::take(&mut self.kept)
    }

    /// Its whole state, with fresh counters.
    pub(super) fn status(&mut self, air: &mut Air) -> Status {
        self.tally(air);
        self.turn(air);
        self.node.status(self.now(air))
    }

    /// What its clock says.
    fn now(&self, air: &Air) -> Instant {
        air.now + self.ahead
    }

    /// When it wants its turn, in the world's time.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Its clock jumps ahead.
    pub(super) fn jump(&mut self, air: &mut Air, span: Duration) {
        self.ahead += span;
        self.turn(air);
    }

    /// How fast its interface takes packets; zero: at once.
    pub(super) fn pace_interface(&mut self, air: &mut Air, period: Duration) {
        self.interface.period = period;
        if period.is_zero() {
            let host = self.host;
            air.delivered.extend(self.interface.queue.drain(..).map(|packet| (host, packet)));
        }
    }

    /// Packets that a slow interface has lost.
    pub(super) fn interface_lost(&self) -> u64 {
        self.interface.lost
    }

    /// Alarms so far: what it does of its own accord.
    pub(super) fn alarms(&self) -> u64 {
        self.alarms
    }

    /// What it holds, beside the most.
    pub(super) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        self.node.bounds(each);
        self.plane.bounds(each);
    }

    /// Notes since the last `take_notes`.
    pub(super) fn fresh_notes(&self) -> &[(Instant, Note)] {
        &self.notes
    }

    /// The slow interface takes one packet.
    pub(super) fn drain(&mut self, air: &mut Air) {
        self.interface.drains = false;
        if let Some(packet) = self.interface.queue.pop_front() {
            air.delivered.push((self.host, packet));
        }
        self.drain_later(air);
    }

    fn drain_later(&mut self, air: &mut Air) {
        if !self.interface.queue.is_empty() && !core::mem::replace(&mut self.interface.drains, true) {
            air.after(self.interface.period, Tick::Drain { host: self.host, life: self.life });
        }
    }

    /// Packets leave the plane.
    fn emit(&mut self, air: &mut Air) {
        let host = self.host;
        if self.interface.period.is_zero() {
            air.delivered.extend(self.ports.delivered.drain(..).map(|packet| (host, packet)));
            return;
        }
        for packet in self.ports.delivered.drain(..) {
            if self.interface.queue.len() < INTERFACE_PACKETS {
                self.interface.queue.push_back(packet);
            } else {
                self.interface.lost += 1;
            }
        }
        self.drain_later(air);
    }

    /// Its whole state, with the counters that it has.
    pub(super) fn peek(&self, now: Instant) -> Status {
        self.node.status(now)
    }

    /// Bytes that wait in this process for its connections.
    pub(super) fn waiting(&self) -> usize {
        self.ports.outboxes.values().map(Outbox::waiting).sum()
    }

    /// The port of its direct listener.
    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    /// The machines themselves, at the end of their life.
    pub(super) fn into_machines(self) -> (Node, Plane) {
        (self.node, self.plane)
    }

    // ---- what happens to it ------------------------------------------------------------------------------------

    pub(super) fn packet(&mut self, air: &mut Air, packet: &[u8]) {
        self.plane.outbound(self.now(air), packet, &mut self.ports);
        self.turn(air);
    }

    pub(super) fn event(&mut self, air: &mut Air, event: Event<'_>) {
        self.handle(air, event);
        self.turn(air);
    }

    pub(super) fn computed(&mut self, air: &mut Air, done: Done) {
        self.ports.inbox.push_back(Pending::Computed(done));
        self.turn(air);
    }

    pub(super) fn arrived(&mut self, air: &mut Air, conn: ConnId, parcel: Parcel) {
        match parcel {
            Parcel::Message(mut bytes) => {
                if self.wires.contains_key(&conn) {
                    self.plane.inbound(self.now(air), conn, &mut bytes, &mut self.ports);
                }
            }
            Parcel::End(why) => {
                if let Some((wire, side)) = self.wires.remove(&conn) {
                    air.shut(wire, side);
                    self.ports.outboxes.remove(&conn);
                    self.ports.inbox.push_back(Pending::Closed { conn, why });
                } else if let Some((wire, side, _)) = self.leaving.remove(&conn) {
                    air.shut(wire, side);
                }
            }
        }
        self.turn(air);
    }

    pub(super) fn admit(&self) -> bool {
        self.wires.keys().filter(|conn| conn.0 % 2 == 1).count() < ACCEPTED
    }

    pub(super) fn fresh_conn(&mut self) -> ConnId {
        self.next_accepted += 1;
        ConnId(2 * self.next_accepted - 1)
    }

    pub(super) fn accepted(&mut self, air: &mut Air, conn: ConnId, wire: WireId, exporter: [u8; 32], ends: (SocketAddr, SocketAddr)) {
        self.known.insert(conn);
        self.attach(conn, wire, 1);
        self.ports.inbox.push_back(Pending::Accepted { conn, exporter, local: ends.0, remote: ends.1 });
        self.turn(air);
    }

    pub(super) fn opened(
        &mut self,
        air: &mut Air,
        conn: ConnId,
        (wire, side): (WireId, Side),
        tls: TlsFacts,
        ends: (SocketAddr, SocketAddr),
    ) {
        self.dials.remove(&conn);
        self.attach(conn, wire, side);
        self.ports.inbox.push_back(Pending::Opened { conn, tls, local: ends.0, remote: ends.1 });
        self.turn(air);
    }

    pub(super) fn dial_failed(&mut self, air: &mut Air, conn: ConnId, why: Ended) {
        if self.dials.remove(&conn).is_some() {
            self.ports.inbox.push_back(Pending::Closed { conn, why });
            self.turn(air);
        }
    }

    fn attach(&mut self, conn: ConnId, wire: WireId, side: Side) {
        self.wires.insert(conn, (wire, side));
        self.ports.outboxes.insert(conn, Outbox::default());
    }

    /// A connection that was hung up has had its time.
    pub(super) fn flushed(&mut self, air: &mut Air, conn: ConnId) {
        if let Some((wire, side, _)) = self.leaving.remove(&conn) {
            air.finish(wire, side, Ended::ByPeer);
        }
    }

    // ---- the loop ----------------------------------------------------------------------------------------------

    fn deadline(&self) -> Instant {
        let machines = Deadline::earlier(self.node_due, self.plane.deadline());
        machines.map_or(self.tally_at, |deadline| (deadline.at - self.ahead).min(self.tally_at))
    }

    /// Deadlines that are due, the inbox, the writers, until nothing is left to do in this moment.
    pub(super) fn turn(&mut self, air: &mut Air) {
        self.datagrams(air);
        for _ in 0..TURNS {
            let now = self.now(air);
            if self.node_due.is_some_and(|deadline| deadline.at <= now) {
                self.alarms += 1;
                self.handle(air, Event::Alarm);
            }
            if self.plane.deadline().is_some_and(|deadline| deadline.at <= now) {
                self.alarms += 1;
                self.plane.alarm(now, &mut self.ports);
            }
            if self.tally_at <= air.now {
                self.tally(air);
            }
            while let Some(pending) = self.ports.inbox.pop_front() {
                self.deliver(air, pending);
            }
            let wrote = self.write(air);
            self.emit(air);
            if !wrote && self.ports.inbox.is_empty() {
                self.due = self.deadline();
                if self.due > air.now {
                    return;
                }
            }
        }
        let why = Deadline::earlier(self.node_due, self.plane.deadline()).map(|deadline| deadline.why);
        panic!("host {} turns for ever at {:?}: {why:?}", self.host.0, air.now);
    }

    fn tally(&mut self, air: &mut Air) {
        self.tally_at = air.now + TALLY_INTERVAL;
        let tally = self.plane.tally();
        self.handle(air, Event::Tally(&tally));
    }

    fn deliver(&mut self, air: &mut Air, pending: Pending) {
        let known = |conn: &ConnId| self.known.contains(conn);
        match pending {
            Pending::Opened { conn, tls, local, remote } if known(&conn) => self.handle(air, Event::Opened { conn, tls, local, remote }),
            Pending::Accepted { conn, exporter, local, remote } if known(&conn) => {
                self.handle(air, Event::Accepted { conn, exporter, local, remote });
            }
            Pending::Closed { conn, why } if known(&conn) => {
                self.known.remove(&conn);
                self.handle(air, Event::Closed { conn, why });
            }
            Pending::Message { conn, handle, mut bytes } if known(&conn) => {
                self.handle(air, Event::Message { conn, handle, bytes: &mut bytes });
            }
            // the node has hung up and forgotten it
            Pending::Opened { .. } | Pending::Accepted { .. } | Pending::Closed { .. } | Pending::Message { .. } => {}
            Pending::Computed(done) => self.handle(air, Event::Computed(done)),
            Pending::Listening(port) => self.handle(air, Event::Listening { port }),
            Pending::Report(report) => self.handle(air, Event::Report(report)),
            Pending::Sockets(port) => self.handle(air, Event::Sockets { v4: port, v6: port }),
            Pending::Datagram { remote, mut bytes } => self.handle(air, Event::Datagram { remote, bytes: &mut bytes }),
        }
    }

    fn handle(&mut self, air: &mut Air, event: Event<'_>) {
        let mut actions = core::mem::take(&mut self.actions);
        let now = self.now(air);
        self.scribe.event(now, &event);
        self.node.handle(now, event, &mut actions);
        self.node_due = self.node.deadline();
        self.scribe.actions(air, &actions);
        assert!(actions.len() <= 256, "{} actions of one call", actions.len());
        let mut computes = false;
        for action in actions.drain(..) {
            computes |= matches!(action, Action::Compute(_));
            self.carry_out(air, action);
        }
        self.actions = actions;
        if computes {
            let fresh = air.rng.seed();
            self.handle(air, Event::Entropy(&fresh));
        }
    }

    fn carry_out(&mut self, air: &mut Air, action: Action) {
        let host = self.host;
        match action {
            Action::Dial { conn, target, timeout } => {
                air.trace.say(air.now, host.0, &(conn, &target));
                self.known.insert(conn);
                self.dial(air, conn, target, timeout);
            }
            Action::Hangup { conn } => {
                air.trace.say(air.now, host.0, &("hangup", conn));
                self.hang_up(air, conn);
            }
            Action::Send { conn, bytes } => {
                air.trace.add(air.now, host.0, "send", &bytes);
                if let Some((remote, own)) = self.ports.flows.get(&conn) {
                    self.ports.datagrams.push_back((*own, *remote, bytes));
                    return;
                }
                if self.ports.outboxes.get_mut(&conn).is_some_and(|outbox| !outbox.message(bytes)) {
                    self.drop_stuck(air, conn);
                }
            }
            Action::Compute(job) => {
                air.trace.say(air.now, host.0, &job);
                let done = job.run(&*self.crypto);
                air.after(JOB_TIME, Tick::Computed { host, life: self.life, done });
            }
            Action::Edit(edit) => {
                air.trace.add(air.now, host.0, "edit", &[]);
                air.trace.tell(air.now, host.0, || said_of(&edit));
                self.plane.apply(self.now(air), edit, &mut self.ports);
            }
            Action::Listen(open) => self.listen(air, open),
            Action::Sockets => self.open_socket(air),
            Action::Flow { conn, remote, is_own } => {
                air.trace.say(air.now, host.0, &("flow", conn, remote));
                self.known.insert(conn);
                self.open_flow(air, conn, remote, is_own);
            }
            Action::Datagram { remote, bytes } => {
                air.trace.add(air.now, host.0, "datagram", &bytes);
                self.ports.datagrams.push_back((None, remote, bytes));
            }
            Action::Remember { address, peer } => self.kept.claims.push((address, peer)),
            Action::Succeeded(succession) => self.kept.successions.push(succession),
            Action::Note(note) => {
                air.trace.say(air.now, host.0, &note);
                self.notes.push((air.now, note));
            }
        }
    }

    fn dial(&mut self, air: &mut Air, conn: ConnId, target: Target, timeout: Duration) {
        let from = End { host: self.host, life: self.life, conn };
        let dial = match target {
            Target::Direct { address, pin } => air.dial(from, address, Pin::Direct(pin), timeout),
            Target::Punch { address, from: local, pin, role } => air.punch(from, self.id, [local, address], pin, role, timeout),
            Target::Relay { url, pin, .. } => address_of(&url).and_then(|address| air.dial(from, address, Pin::Relay(pin), timeout)),
        };
        match dial {
            Some(dial) => {
                self.dials.insert(conn, dial);
            }
            None => self.ports.inbox.push_back(Pending::Closed { conn, why: Ended::Unreachable }),
        }
    }

    fn hang_up(&mut self, air: &mut Air, conn: ConnId) {
        self.known.remove(&conn);
        self.close_flow(air, conn);
        if let Some(dial) = self.dials.remove(&conn) {
            air.after(Duration::ZERO, Tick::Dial { dial, step: super::dial::Step::Late });
        }
        if let (Some((wire, side)), Some(outbox)) = (self.wires.remove(&conn), self.ports.outboxes.remove(&conn)) {
            self.leaving.insert(conn, (wire, side, outbox));
            air.after(FLUSH_WITHIN, Tick::Flushed { host: self.host, life: self.life, conn });
        }
    }

    /// A connection that took nothing until a mebibyte of control messages waited.
    fn drop_stuck(&mut self, air: &mut Air, conn: ConnId) {
        self.ports.outboxes.remove(&conn);
        if let Some((wire, side)) = self.wires.remove(&conn) {
            air.finish(wire, side, Ended::Reset);
            self.ports.inbox.push_back(Pending::Closed { conn, why: Ended::TimedOut });
        }
    }

    fn listen(&mut self, air: &mut Air, open: bool) {
        if let Some(port) = self.port.take() {
            air.doors.remove(&(self.host, port));
        }
        if open {
            let port = air.fresh_port();
            air.doors.insert((self.host, port), Certificate { identity: Some(self.id), subject: None });
            air.map_port(self.host, port);
            self.port = Some(port);
        }
        self.ports.inbox.push_back(Pending::Listening(self.port));
    }

    /// Moves what waits onto the wires, as far as they take it; true when something moved.
    fn write(&mut self, air: &mut Air) -> bool {
        while let Some((own, remote, bytes)) = self.ports.datagrams.pop_front() {
            if let Some(port) = own.or(self.udp_port) {
                air.send_from(self.host, port, remote, &bytes);
            }
        }
        let mut moved = Vec::new();
        for (conn, outbox) in &mut self.ports.outboxes {
            let Some((wire, side)) = self.wires.get(conn) else { continue };
            while air.has_room(*wire, *side)
                && let Some(bytes) = outbox.take()
            {
                air.trace.add(air.now, self.host.0, "wire", &bytes);
                air.push(*wire, *side, bytes);
                moved.push(*conn);
            }
        }
        for conn in &moved {
            self.plane.writable(self.now(air), *conn, &mut self.ports);
        }
        let mut empty = Vec::new();
        for (conn, (wire, side, outbox)) in &mut self.leaving {
            while air.has_room(*wire, *side)
                && let Some(bytes) = outbox.take()
            {
                air.push(*wire, *side, bytes);
            }
            if outbox.waiting() == 0 {
                empty.push(*conn);
            }
        }
        for conn in empty {
            self.flushed(air, conn);
        }
        !moved.is_empty()
    }
}

/// An order to the plane, to be read.
fn said_of(edit: &Edit) -> String {
    match edit {
        Edit::Path { link, path, via, rtt, .. } => format!("{link:?}: {path:?} leads by {:?}, round trip {rtt:?}", via.conn),
        Edit::Unpath { link, path } => format!("{link:?}: {path:?} is gone"),
        Edit::Switch { link, to } => format!("{link:?}: switch to {to:?}"),
        Edit::FallBack { link, to } => format!("{link:?}: fall back to {to:?}"),
        Edit::Hedge { link, rescue } => format!("{link:?}: copies on {rescue:?}"),
        Edit::Calm { link } => format!("{link:?}: calm"),
        Edit::Install { link, install } => format!("{link:?}: session {:08x} opens", install.local),
        Edit::Promote { link, local } => format!("{link:?}: session {local:08x} seals"),
        Edit::Retire { link, local } => format!("{link:?}: session {local:08x} ends"),
        Edit::Epoch { link, .. } => format!("{link:?}: a further epoch"),
        Edit::Peer { link, .. } => format!("{link:?}: its addresses"),
        Edit::Forget { link } => format!("{link:?}: it left"),
        Edit::Relay { conn, stands } => format!("{conn:?} leads to a relay: {stands}"),
    }
}
