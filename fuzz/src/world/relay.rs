//! The driver of `Hub` and `Forwarder` in this world: what runtime-smol's `relay::drive` does, without tasks.
use super::air::{Air, HostId, Parcel, Side, Tick, WireId};
use super::{datagram::Heard, journal::Scribe};
use shadowmesh_core::{
    bound::Bound,
    config::HubConfig,
    crypto::Provider,
    event::Ended,
    handshake::Done,
    hub::{ForwardSink, Forwarder, Hub, HubAction, HubEvent, HubNote, HubStatus, receiver_of},
    id::ConnId,
    machine::{Deadline, Machine},
    time::{Duration, Instant},
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

const FLUSH_WITHIN: Duration = Duration::from_secs(1);
const JOB_TIME: Duration = Duration::from_millis(1);
const TURNS: usize = 100_000;

enum Pending {
    Accepted { conn: ConnId, exporter: [u8; 32], remote: SocketAddr },
    Closed { conn: ConnId },
    Message { conn: ConnId, bytes: Vec<u8> },
    Computed(Done),
}

/// What the forwarder reaches.
#[derive(Default)]
struct Punts(VecDeque<Pending>);

impl ForwardSink for Punts {
    fn punt(&mut self, conn: ConnId, message: &mut [u8]) {
        self.0.push_back(Pending::Message { conn, bytes: message.to_vec() });
    }
    fn wake(&mut self, _conn: ConnId) {}
}

struct Line {
    wire: WireId,
    side: Side,
    closing: bool,
}

/// What a relay that lies says the address of a client is.
pub type Lie = Box<dyn Fn(SocketAddr) -> SocketAddr>;

/// One life of a relay.
pub(super) struct Relay {
    host: HostId,
    life: u32,
    hub: Hub,
    scribe: Scribe<Hub>,
    forwarder: Forwarder,
    crypto: Arc<dyn Provider>,
    inbox: Punts,
    actions: Vec<HubAction>,
    lines: BTreeMap<ConnId, Line>,
    udp_ports: [Option<u16>; 2],
    has_drained: bool,
    next_accepted: u64,
    /// When it wants its turn.
    due: Option<Instant>,
    notes: Vec<(Instant, HubNote)>,
    pub(super) lie: Option<Lie>,
}

impl Relay {
    /// Brings a relay up.
    pub(super) fn start(air: &mut Air, host: HostId, life: u32, config: HubConfig) -> Self {
        let crypto = Arc::clone(&config.crypto);
        let forwarder = Forwarder::new(&config.limits);
        let udp_ports = config.udp_ports;
        for port in udp_ports.into_iter().flatten() {
            air.open_socket(host, port);
        }
        let mut relay = Self {
            host,
            life,
            scribe: Scribe::new(air, (host, life), &config),
            hub: Hub::new(config),
            forwarder,
            crypto,
            inbox: Punts::default(),
            actions: Vec::new(),
            lines: BTreeMap::new(),
            udp_ports,
            has_drained: false,
            next_accepted: 0,
            due: None,
            notes: Vec::new(),
            lie: None,
        };
        let fresh = air.rng.seed();
        relay.handle(air, HubEvent::Entropy(&fresh));
        relay.handle(air, HubEvent::Start);
        relay.turn(air);
        relay
    }

    pub(super) fn take_notes(&mut self) -> Vec<(Instant, HubNote)> {
        core::mem::take(&mut self.notes)
    }

    pub(super) fn status(&self, now: Instant) -> HubStatus {
        let mut status = self.hub.status(now);
        status.merge(self.forwarder.stats());
        status
    }

    pub(super) fn admit(&mut self, now: Instant, remote: SocketAddr) -> bool {
        self.hub.admit(now, remote).is_ok()
    }

    pub(super) fn released(&mut self, remote: SocketAddr) {
        self.hub.released(remote, false);
    }

    pub(super) fn fresh_conn(&mut self) -> ConnId {
        self.next_accepted += 1;
        ConnId(2 * self.next_accepted - 1)
    }

    pub(super) fn accepted(&mut self, air: &mut Air, conn: ConnId, wire: WireId, exporter: [u8; 32], remote: SocketAddr) {
        self.lines.insert(conn, Line { wire, side: 1, closing: false });
        let remote = self.lie.as_ref().map_or(remote, |lie| lie(remote));
        self.inbox.0.push_back(Pending::Accepted { conn, exporter, remote });
        self.turn(air);
    }

    pub(super) fn arrived(&mut self, air: &mut Air, conn: ConnId, parcel: Parcel) {
        match parcel {
            Parcel::Message(mut bytes) => {
                if self.lines.get(&conn).is_some_and(|line| !line.closing) {
                    self.forwarder.inbound(air.now, conn, &mut bytes, &mut self.inbox);
                }
            }
            Parcel::End(_) => self.close(air, conn),
        }
        self.turn(air);
    }

    pub(super) fn computed(&mut self, air: &mut Air, done: Done) {
        self.inbox.0.push_back(Pending::Computed(done));
        self.turn(air);
    }

    pub(super) fn flushed(&mut self, air: &mut Air, conn: ConnId) {
        if self.lines.get(&conn).is_some_and(|line| line.closing) {
            self.close(air, conn);
            self.turn(air);
        }
    }

    pub(super) fn leave(&mut self, air: &mut Air) {
        self.handle(air, HubEvent::Leave);
        self.turn(air);
    }

    /// Tells the clients to take another relay, and goes when it is not needed any more.
    pub(super) fn drain(&mut self, air: &mut Air, within: Duration) {
        self.handle(air, HubEvent::Drain { within });
        self.turn(air);
    }

    /// Whether it takes nobody any more.
    pub(super) fn is_draining(&self) -> bool {
        self.hub.status(Instant::ZERO).draining
    }

    /// Whether it drained and has said goodbye to all.
    pub(super) fn is_over(&self) -> bool {
        self.has_drained && self.lines.is_empty()
    }

    /// When it wants its turn.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What it holds, beside the most.
    pub(super) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        self.hub.bounds(each);
        self.forwarder.bounds(each);
    }

    fn deadline(&self) -> Option<Instant> {
        let machines = Deadline::earlier(self.hub.deadline(), self.forwarder.deadline()).map(|deadline| deadline.at);
        [machines, self.hub.drained_at(self.forwarder.forwarded_at())].into_iter().flatten().min()
    }

    pub(super) fn turn(&mut self, air: &mut Air) {
        self.datagrams(air);
        for _ in 0..TURNS {
            let now = air.now;
            if self.hub.deadline().is_some_and(|deadline| deadline.at <= now) {
                self.handle(air, HubEvent::Alarm);
            }
            if self.hub.drained_at(self.forwarder.forwarded_at()).is_some_and(|at| at <= now) {
                self.has_drained = true;
                self.handle(air, HubEvent::Leave);
            }
            if self.forwarder.deadline().is_some_and(|deadline| deadline.at <= now) {
                for conn in self.forwarder.alarm(now) {
                    self.close(air, conn);
                }
            }
            while let Some(pending) = self.inbox.0.pop_front() {
                match pending {
                    Pending::Accepted { conn, exporter, remote } => {
                        self.handle(air, HubEvent::Accepted { conn, exporter, remote, since: now });
                    }
                    Pending::Closed { conn } => self.handle(air, HubEvent::Closed { conn }),
                    Pending::Message { conn, mut bytes } => self.handle(air, HubEvent::Message { conn, bytes: &mut bytes }),
                    Pending::Computed(done) => self.handle(air, HubEvent::Computed(done)),
                }
            }
            self.write(air);
            if self.inbox.0.is_empty() {
                self.due = self.deadline();
                if self.due.is_none_or(|at| at > now) {
                    return;
                }
            }
        }
        let why = Deadline::earlier(self.hub.deadline(), self.forwarder.deadline()).map(|deadline| deadline.why);
        panic!("relay {} turns for ever at {:?}: {why:?}", self.host.0, air.now);
    }

    /// Answers what its sockets have heard, or passes it on (protocol 8.8).
    fn datagrams(&mut self, air: &mut Air) {
        for (index, port) in (0..).zip(self.udp_ports) {
            let Some(port) = port else { continue };
            for heard in air.hear(self.host, port) {
                let Heard::Datagram { from, bytes } = heard else { continue };
                let Some(receiver) = receiver_of(&bytes).filter(|_| index == 0) else {
                    self.handle(air, HubEvent::Datagram { port: index, remote: from, bytes: &bytes });
                    continue;
                };
                let Some(to) = self.forwarder.pass(air.now, from, receiver, 1, bytes.len()) else { continue };
                // a ticket that was sent there came back
                air.validate(self.host, to);
                if !air.send_from(self.host, port, to, &bytes) {
                    self.forwarder.lost(1);
                }
            }
        }
    }

    fn handle(&mut self, air: &mut Air, event: HubEvent<'_>) {
        let mut actions = core::mem::take(&mut self.actions);
        self.scribe.event(air.now, &event);
        self.hub.handle(air.now, event, &mut actions);
        self.scribe.actions(air, &actions);
        let mut computes = false;
        for action in actions.drain(..) {
            match action {
                HubAction::Send { conn, bytes } => {
                    air.trace.add(air.now, self.host.0, "send", &bytes);
                    self.forwarder.control(conn, bytes);
                }
                HubAction::Hangup { conn, why } => {
                    air.trace.say(air.now, self.host.0, &("hangup", conn, why));
                    if let Some(line) = self.lines.get_mut(&conn) {
                        line.closing = true;
                        air.after(FLUSH_WITHIN, Tick::Flushed { host: self.host, life: self.life, conn });
                    }
                }
                HubAction::Compute(job) => {
                    computes = true;
                    air.trace.say(air.now, self.host.0, &job);
                    let done = job.run(&*self.crypto);
                    air.after(JOB_TIME, Tick::Computed { host: self.host, life: self.life, done });
                }
                HubAction::Edit(edit) => {
                    air.trace.say(air.now, self.host.0, &edit);
                    self.forwarder.apply(air.now, edit);
                }
                HubAction::Datagram { port, remote, bytes } => {
                    air.trace.add(air.now, self.host.0, "datagram", &bytes);
                    let port = self.udp_ports[usize::from(port)].expect("the hub answers from a port that was asked");
                    air.send_from(self.host, port, remote, &bytes);
                }
                HubAction::Note(note) => {
                    air.trace.say(air.now, self.host.0, &note);
                    self.notes.push((air.now, note));
                }
            }
        }
        self.actions = actions;
        if computes {
            let fresh = air.rng.seed();
            self.handle(air, HubEvent::Entropy(&fresh));
        }
    }

    /// Takes a connection out: the hub learns it.
    fn close(&mut self, air: &mut Air, conn: ConnId) {
        if let Some(line) = self.lines.remove(&conn) {
            if air.is_open(line.wire, line.side) {
                air.finish(line.wire, line.side, Ended::ByPeer);
            }
            self.inbox.0.push_back(Pending::Closed { conn });
        }
    }

    /// Each writer takes what waits for it, as far as its socket takes it.
    fn write(&mut self, air: &mut Air) {
        let mut done = Vec::new();
        for (conn, line) in &self.lines {
            loop {
                if !air.has_room(line.wire, line.side) {
                    break;
                }
                let mut message = Vec::new();
                if !self.forwarder.next_message(air.now, *conn, &mut message) {
                    if line.closing {
                        done.push(*conn);
                    }
                    break;
                }
                air.push(line.wire, line.side, message);
            }
        }
        for conn in done {
            self.close(air, conn);
        }
    }
}
