//! The control room of a peer: one owner of `Node` and `Plane`, and of what waits for both.
//!
//! ```text
//!   readers, interface ─▶ Plane ── punts, reports ─▶ inbox ─┐
//!   jobs, handles, listener ───────────────────────▶ inbox ─┤
//!                                                           ▼
//!   turn: deadlines first, then at most 64 events ─▶ handle ─▶ Node ─▶ actions: Edit ▶ Plane, Send ▶ outbox, Dial ▶ door …
//! ```
use super::{Command, Inside, PeerDoors, Seat, inbox::Pending, lanes::Counted, log::NoteLog, ports::Ports};
use crate::{
    broadcast::Broadcast,
    clock, entropy,
    house::House,
    jobs::Jobs,
    journal::Scribe,
    lookout::Lookout,
    mapping,
    outbox::Outbox,
    room::{Arrival, Closing, FLUSH_WITHIN, HOUSEKEEPING_INTERVAL, LEAVE_WITHIN, LONGEST_SLEEP, Next, Room, TURN_EVENTS},
    udp::RunBuffer,
};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use shadowmesh_core::{
    Node,
    config::NodeConfig,
    event::{Action, Ended, Event, Note, TlsFacts},
    handshake::Done,
    hub::{Refusal, Standing},
    id::{ConnId, PeerId},
    machine::{Deadline, Machine},
    plane::{Plane, PlaneConfig},
    status::Status,
    succession::Succession,
    time::Instant,
};
use std::{collections::BTreeSet, io, sync::Arc};

/// How often the lanes' counters are handed to the node.
const TALLY_INTERVAL: Duration = Duration::from_secs(1);

/// Connections that came in by the direct listener, at once (protocol 6: capped).
const ACCEPTED: usize = 256;

/// The machines of a peer and all that waits for them.
pub struct Control<D> {
    node: Node,
    scribe: Scribe<Node>,
    pub(super) plane: Plane,
    pub(super) ports: Ports<D>,
    /// The address that this program answers, where it has one.
    pub(super) inside: Option<Inside>,
    /// Connections and dials that the node knows: opened by it or shown to it, neither hung up nor reported closed.
    known: BTreeSet<ConnId>,
    closing: Closing,
    jobs: Jobs,
    actions: Vec<Action>,
    log: NoteLog,
    house: House,
    lookout: Lookout,
    listen_udp: SocketAddr,
    /// Port of the direct listener.
    listening: Option<u16>,
    mapper: Option<mapping::PortMapper>,
    /// Where datagrams are read into.
    pub(super) arrivals: RunBuffer,
    /// Connections that the direct listener took so far.
    accepted: u64,
    /// When the runtime will call again by itself.
    armed: Instant,
    tally_at: Instant,
    house_at: Instant,
    /// When to send again what had no route, if something waits for one.
    pub(super) route_at: Instant,
    phase: Phase,
    notes: Broadcast<(Instant, Note)>,
    claims: Broadcast<(IpAddr, PeerId)>,
    successions: Broadcast<Succession>,
}

/// How far the end has come.
enum Phase {
    Running,
    /// The node was told to leave; at this instant it ends in any case.
    Leaving(Instant),
    /// The node has said its good-byes, or it cannot go on.
    Over(Result<(), String>),
    /// Connections send what waits, until this instant at most.
    Flushing(Instant, Result<(), String>),
}

impl Seat {
    /// The control room, with this runtime's doors.
    pub fn control<D: PeerDoors>(self, now: Instant, doors: D) -> Control<D> {
        let crypto = Arc::clone(&self.node.crypto);
        Control {
            plane: self.plane,
            ports: Ports::new(doors, self.node.layer2, self.lanes),
            inside: None,
            known: BTreeSet::new(),
            closing: Closing::default(),
            jobs: Jobs::new(crypto),
            actions: Vec::new(),
            log: NoteLog::new(&self.node.network.relays),
            house: House::new(self.certificates),
            lookout: Lookout::new(now, clock::slept(), self.device_name),
            listen_udp: self.listen_udp,
            listening: None,
            mapper: self.mapper,
            arrivals: RunBuffer::default(),
            accepted: 0,
            armed: now,
            tally_at: now + TALLY_INTERVAL,
            house_at: now,
            route_at: now,
            phase: Phase::Running,
            notes: self.notes,
            claims: self.claims,
            successions: self.successions,
            scribe: self.scribe,
            node: Node::new(self.node),
        }
    }
}

/// What the data plane needs to know of the node's configuration.
pub(super) fn plane_config(node: &NodeConfig) -> PlaneConfig {
    PlaneConfig {
        layer2: node.layer2,
        addresses: node.overlay_addresses().into_iter().map(|(address, _)| address).collect(),
        mac: node.network.mac_address(node.identity.id()),
        mode: node.mode,
    }
}

impl<D: PeerDoors> Room for Control<D> {
    type Command = Command;

    fn begin(&mut self, now: Instant) {
        let doors = &mut self.ports.doors;
        self.lookout.listen(|socket| doors.watch_network(socket));
        let bytes = entropy::fresh();
        self.handle(now, Event::Entropy(&bytes));
        self.handle(now, Event::Start);
    }

    fn turn(&mut self, now: Instant) -> bool {
        while let Some(conn) = self.closing.due(now) {
            self.closed(conn, Ended::TimedOut);
        }
        if matches!(self.phase, Phase::Flushing(..)) {
            return false;
        }
        self.alarms(now);
        if self.ports.lanes.speak() {
            self.hear_lanes(now);
        }
        for _ in 0..TURN_EVENTS {
            let Some(event) = self.ports.inbox.pop() else {
                break;
            };
            self.deliver(now, event);
        }
        !self.ports.inbox.is_empty() || self.next_deadline() <= now
    }

    fn ended(&mut self, now: Instant) -> Option<Result<(), String>> {
        match &self.phase {
            Phase::Running => None,
            Phase::Leaving(until) if *until > now => None,
            Phase::Leaving(_) => self.flush(now, Ok(())),
            Phase::Over(outcome) => self.flush(now, outcome.clone()),
            Phase::Flushing(until, outcome) => (self.ports.outboxes.is_empty() || *until <= now).then(|| outcome.clone()),
        }
    }

    fn arm(&mut self, now: Instant) -> Duration {
        self.armed = self.next_deadline().min(now + LONGEST_SLEEP);
        self.armed.since(now)
    }

    fn obey(&mut self, now: Instant, command: Command) {
        match command {
            Command::Status(reply) => {
                // Whoever asked may have stopped waiting.
                let _ = reply.try_send((now, self.status(now)));
            }
            Command::Ping { peer, id, payload } => self.ports.post(Pending::Ping { peer, id, payload }),
            Command::Examine => self.ports.post(Pending::Examine),
            Command::PortMapped(mappings) => self.ports.post(Pending::PortMapped(mappings)),
            Command::Members(members, revoked) => self.ports.post(Pending::Members(members, revoked)),
            Command::Tune(tuning) => self.ports.post(Pending::Tune(tuning)),
            Command::Succeed(statement) => self.ports.post(Pending::Succeed(statement)),
            Command::Capture(watcher, reply) => {
                let of_lanes = watcher.clone();
                let has_room = self.ports.outlet.captures.add(watcher);
                if has_room {
                    self.ports.lanes.capture(&of_lanes);
                }
                let _ = reply.try_send(has_room);
            }
            Command::Answer(inside) => {
                self.ports.lanes.answer(&inside);
                self.inside = Some(inside);
            }
            Command::Lanes => self.hear_lanes(now),
            Command::HandIn(packet) => self.ports.hand_in(&packet),
            Command::Leave => self.ports.post(Pending::Leave),
        }
    }

    fn abandoned(&mut self) {
        self.ports.post(Pending::Leave);
    }

    fn computed(&mut self, done: Done) {
        self.ports.post(Pending::Computed(done));
    }

    fn admit(&mut self, _now: Instant, _remote: SocketAddr) -> Result<Standing, Refusal> {
        // Who comes in is proven later, by the re-handshake (protocol 5). Numbers that this end gives out are odd.
        let open = self.ports.outboxes.keys().filter(|c| c.0 % 2 == 1).count();
        if open < ACCEPTED { Ok(Standing::Stranger) } else { Err(Refusal::Because("too many direct connections")) }
    }

    fn released(&mut self, remote: SocketAddr, why: Ended) {
        tracing::debug!(%remote, ?why, "a direct connection came to nothing");
    }

    fn number(&mut self) -> ConnId {
        let conn = ConnId(2 * self.accepted + 1);
        self.accepted += 1;
        conn
    }

    fn accepted(&mut self, now: Instant, conn: ConnId, arrival: Arrival) {
        let Arrival { exporter, local, remote, .. } = arrival;
        self.known.insert(conn);
        self.ports.attach(conn);
        self.handle(now, Event::Accepted { conn, exporter, local, remote });
    }

    fn message(&mut self, now: Instant, conn: ConnId, message: &mut [u8]) -> usize {
        self.ports.gather();
        self.plane.inbound(now, conn, message, &mut self.ports);
        1
    }

    fn messages_over(&mut self) {
        self.release();
    }

    fn is_busy(&self) -> bool {
        self.ports.is_busy()
    }

    fn next(&mut self, _now: Instant, conn: ConnId) -> Next {
        self.ports.outboxes.get_mut(&conn).map_or(Next::Wait, Outbox::next)
    }

    fn sent(&mut self, now: Instant, conn: ConnId, len: usize) {
        let Some(outbox) = self.ports.outboxes.get_mut(&conn) else {
            return;
        };
        outbox.sent(len);
        if !outbox.is_finished() {
            self.plane.writable(now, conn, &mut self.ports);
            self.ports.pay(conn);
            self.rearm();
        }
    }

    fn closed(&mut self, conn: ConnId, why: Ended) {
        if self.ports.detach(conn) {
            self.ports.doors.close(conn);
            self.ports.post(Pending::Closed { conn, why });
        }
    }
}

impl<D: PeerDoors> Control<D> {
    /// The runtime's side of the doors.
    pub fn doors(&mut self) -> &mut D {
        &mut self.ports.doors
    }

    /// Whether a connection that was dialled is still wanted; else it was hung up meanwhile.
    pub fn wants(&self, conn: ConnId) -> bool {
        self.known.contains(&conn)
    }

    /// A dial has succeeded and its pumps stand.
    pub fn opened(&mut self, now: Instant, conn: ConnId, tls: TlsFacts, local: SocketAddr, remote: SocketAddr) {
        self.ports.attach(conn);
        self.handle(now, Event::Opened { conn, tls, local, remote });
    }

    /// A dial came to nothing.
    pub fn failed(&mut self, conn: ConnId, why: Ended) {
        self.ports.post(Pending::Closed { conn, why });
    }

    /// The kernel has word of this machine's network, up to a part of it; true when there may be more.
    ///
    /// # Errors
    /// There will be no more, and its socket should not be watched.
    pub fn network_changed(&mut self, now: Instant) -> io::Result<bool> {
        let more = self.lookout.hear(now);
        if self.ports.flows.is_stranded() {
            self.try_routes(now);
        }
        if self.lookout.deadline() < self.armed {
            self.ports.doors.ring();
        }
        more
    }

    /// The interface is gone: the peer cannot go on.
    pub fn interface_gone(&mut self, why: String) {
        if !matches!(self.phase, Phase::Flushing(..)) {
            self.phase = Phase::Over(Err(why));
            self.ports.doors.ring();
        }
    }

    /// The plane may want an alarm sooner than the runtime will call, or something wait for a route.
    pub(super) fn rearm(&mut self) {
        let is_stranded = self.ports.flows.is_stranded() && self.route_at < self.armed;
        if is_stranded || self.plane.deadline().is_some_and(|d| d.at < self.armed) {
            self.ports.doors.ring();
        }
    }

    fn alarms(&mut self, now: Instant) {
        if self.node.deadline().is_some_and(|d| d.at <= now) {
            self.handle(now, Event::Alarm);
        }
        if self.plane.deadline().is_some_and(|d| d.at <= now) {
            self.ports.gather();
            self.plane.alarm(now, &mut self.ports);
            self.ports.release();
        }
        if self.tally_at <= now {
            self.tally(now);
        }
        if self.house_at <= now {
            self.house_at = now + HOUSEKEEPING_INTERVAL;
            self.house.look(now);
        }
        if self.ports.flows.is_stranded() && self.route_at <= now {
            self.try_routes(now);
        }
        if let Some(addresses) = self.lookout.look(now) {
            self.ports.post(Pending::Interfaces(addresses));
        }
    }

    fn tally(&mut self, now: Instant) {
        self.tally_at = now + TALLY_INTERVAL;
        self.lookout.slept(now, clock::slept());
        let mut tally = self.plane.tally();
        for counted in self.ports.lanes.counts() {
            tally.add(&counted.tally);
        }
        self.handle(now, Event::Tally(&tally));
    }

    fn status(&mut self, now: Instant) -> Status {
        self.tally(now);
        let mut status = self.node.status(now);
        let drops = self.ports.drops;
        let of_lanes = |count: fn(&Counted) -> u64| self.ports.lanes.counts().iter().map(count).sum::<u64>();
        let inside = self.inside.as_ref().map_or(0, Inside::dropped);
        status.drops.push(("interface_full", self.ports.outlet.unwritten + of_lanes(|counted| counted.unwritten)));
        status.drops.push(("inbox_full", drops.inbox_full));
        status.drops.push(("inside_full", inside + of_lanes(|counted| counted.inside)));
        status.drops.push(("datagram_unsent", self.ports.flows.lost + of_lanes(|counted| counted.unsent)));
        status.drops.push(("lane_full", of_lanes(|counted| counted.unpassed)));
        status
    }

    /// Hands one event of the inbox to the node.
    fn deliver(&mut self, now: Instant, event: Pending) {
        if event.conn().is_some_and(|conn| !self.known.contains(&conn)) {
            return; // the node has hung up and forgotten it
        }
        match event {
            Pending::Closed { conn, why } => {
                self.known.remove(&conn);
                self.handle(now, Event::Closed { conn, why });
            }
            Pending::Message { conn, handle, mut bytes } => self.handle(now, Event::Message { conn, handle, bytes: &mut bytes }),
            Pending::Computed(done) => {
                self.jobs.finished();
                self.run_jobs();
                self.handle(now, Event::Computed(done));
            }
            Pending::Listening(port) => self.handle(now, Event::Listening { port }),
            Pending::Sockets(v4, v6) => self.handle(now, Event::Sockets { v4, v6 }),
            Pending::Datagram { remote, mut bytes } => self.handle(now, Event::Datagram { remote, bytes: &mut bytes }),
            Pending::Interfaces(addresses) => {
                if let Some(mapper) = &self.mapper {
                    mapper.look();
                }
                self.handle(now, Event::Interfaces(&addresses));
            }
            Pending::PortMapped(mappings) => self.handle(now, Event::PortMapped(&mappings)),
            Pending::Examine => self.handle(now, Event::Examine),
            Pending::Report(report) => self.handle(now, Event::Report(report)),
            Pending::Ping { peer, id, payload } => self.handle(now, Event::Ping { peer, id, payload }),
            Pending::Members(members, revoked) => self.handle(now, Event::Members { members, revoked }),
            Pending::Tune(tuning) => self.handle(now, Event::Tune(tuning)),
            Pending::Succeed(statement) => self.handle(now, Event::Succeed(statement)),
            Pending::Leave if matches!(self.phase, Phase::Running) => {
                self.phase = Phase::Leaving(now + LEAVE_WITHIN);
                self.handle(now, Event::Leave);
            }
            Pending::Leave => {}
        }
    }

    /// The one place where an event goes into the node and its actions come out, to be carried out in their order.
    fn handle(&mut self, now: Instant, event: Event<'_>) {
        let mut actions = core::mem::take(&mut self.actions);
        self.scribe.event(now, &event);
        self.node.handle(now, event, &mut actions);
        self.scribe.actions(&actions);
        let mut computes = false;
        for action in actions.drain(..) {
            computes |= matches!(action, Action::Compute(_));
            self.carry_out(now, action);
        }
        self.actions = actions;
        if computes {
            // protocol 1: nothing that was kept yields the keys of the next handshake
            let bytes = entropy::fresh();
            self.handle(now, Event::Entropy(&bytes));
        }
    }

    fn carry_out(&mut self, now: Instant, action: Action) {
        match action {
            Action::Dial { conn, target, timeout } => {
                self.known.insert(conn);
                self.ports.doors.dial(conn, target, timeout);
            }
            Action::Hangup { conn } => self.hang_up(now, conn),
            Action::Send { conn, bytes } => self.send(conn, bytes),
            Action::Sockets => self.open_sockets(),
            Action::Flow { conn, remote, is_own } => {
                self.known.insert(conn);
                if is_own {
                    self.ports.open_own_flow(conn, remote);
                } else {
                    self.ports.open_flow(conn, remote);
                }
            }
            Action::Datagram { remote, bytes } => self.ports.send_datagram(Err(remote), &bytes),
            Action::Compute(job) => {
                self.jobs.add(job);
                self.run_jobs();
            }
            Action::Edit(edit) => {
                self.ports.lanes.edit(&edit);
                self.plane.apply(now, edit, &mut self.ports);
            }
            Action::Listen(open) => self.listen(open),
            Action::Remember { address, peer } => self.claims.tell(&(address, peer)),
            Action::Succeeded(succession) => self.successions.tell(&succession),
            Action::Note(note) => {
                if note == Note::Left {
                    self.phase = Phase::Over(Ok(()));
                }
                self.log.write(now, &note);
                self.notes.tell(&(now, note));
            }
        }
    }

    fn send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        if conn.is_flow() {
            self.ports.send_datagram(Ok(conn), &bytes);
            return;
        }
        let Some(outbox) = self.ports.outboxes.get_mut(&conn).filter(|outbox| !outbox.is_finished()) else {
            return; // closed meanwhile: the node hears so
        };
        if outbox.message(bytes) {
            self.ports.doors.wake(conn);
        } else {
            self.closed(conn, Ended::TimedOut);
        }
    }

    /// Ends a connection or a dial from this side: what waits is still sent, for a moment. The node hears no more of it.
    fn hang_up(&mut self, now: Instant, conn: ConnId) {
        self.known.remove(&conn);
        if conn.is_flow() {
            self.ports.close_flow(conn);
        } else if self.ports.finish(conn) {
            self.closing.add(now, conn);
        }
    }

    fn run_jobs(&mut self) {
        while let Some((job, crypto)) = self.jobs.next() {
            self.ports.doors.compute(job, crypto);
        }
    }

    /// Opens the UDP sockets and says which.
    fn open_sockets(&mut self) {
        if let Err(why) = self.ports.flows.open(self.listen_udp) {
            tracing::warn!(%why, "no direct paths by UDP");
        }
        for (number, socket) in self.ports.flows.families() {
            if let Err(why) = self.ports.doors.watch_datagrams(number, socket) {
                tracing::warn!(%why, "datagrams cannot be waited for");
            }
            if let Err(why) = self.ports.lanes.open_beside(number, socket) {
                tracing::warn!(%why, "lanes beyond the first have no socket of their own, or find their frames late");
            }
        }
        let (v4, v6) = self.ports.flows.ports();
        self.ports.post(Pending::Sockets(v4, v6));
        self.want_ports();
    }

    /// Opens or closes the direct listener and says so.
    fn listen(&mut self, open: bool) {
        self.ports.doors.close_listeners();
        let port = if open { self.ports.doors.open_listener() } else { None };
        self.ports.post(Pending::Listening(port));
        self.listening = port;
        self.want_ports();
    }

    /// Tells who asks the router which ports are open.
    fn want_ports(&self) {
        if let Some(mapper) = &self.mapper {
            mapper.want(mapping::Ports { udp: self.ports.flows.ports(), tcp: self.listening });
        }
    }

    /// Lets all connections send what waits, for a moment, and ends then.
    fn flush(&mut self, now: Instant, outcome: Result<(), String>) -> Option<Result<(), String>> {
        let conns: Vec<_> = self.ports.outboxes.keys().copied().collect();
        for conn in &conns {
            self.ports.finish(*conn);
        }
        self.ports.doors.close_listeners();
        if conns.is_empty() {
            return Some(outcome);
        }
        self.phase = Phase::Flushing(now + FLUSH_WITHIN, outcome);
        None
    }

    fn next_deadline(&self) -> Instant {
        if let Phase::Flushing(until, _) = self.phase {
            return until;
        }
        let machines = Deadline::earlier(self.node.deadline(), self.plane.deadline()).map(|d| d.at);
        let leaving = if let Phase::Leaving(until) = self.phase { Some(until) } else { None };
        let others = [machines, leaving, self.closing.deadline()].into_iter().flatten();
        let chores = self.tally_at.min(self.house_at).min(self.lookout.deadline());
        let route = self.ports.flows.is_stranded().then_some(self.route_at);
        others.chain(route).fold(chores, Instant::min)
    }
}
