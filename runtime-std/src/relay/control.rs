//! The control room of a relay: one owner of `Hub` and `Forwarder`, and of what waits for both.
//!
//! ```text
//!   readers ─▶ Forwarder ── punts ─▶ inbox ─┐              writers ◀─ next ─ Forwarder
//!   jobs, handles ────────────────▶ inbox ─┤                                 ▲ control, apply
//!                                          ▼                                 │
//!   turn: deadlines first, then at most 64 events ─▶ handle ─▶ Hub ─▶ actions: Send, Edit, Hangup, Compute, Note
//! ```
use super::{
    Command, Live, Seat,
    reflector::{self, Reflector},
};
use crate::{
    broadcast::Broadcast,
    clock, entropy,
    house::House,
    jobs::Jobs,
    journal::Scribe,
    limit::Limit,
    listen::Bounds,
    room::{
        Arrival, Closing, Doors, HOUSEKEEPING_INTERVAL, INBOX, INBOX_CALM, LEAVE_WITHIN, LONGEST_SLEEP, Next, Room, TURN_EVENTS,
        TURN_MESSAGES,
    },
};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use shadowmesh_core::{
    config::inside_any,
    event::Ended,
    handshake::Done,
    hub::{Cost, ForwardSink, Forwarder, Hub, HubAction, HubEvent, HubNote, HubStatus, Refusal, Standing},
    id::ConnId,
    machine::{Deadline, Machine},
    time::Instant,
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::UdpSocket,
    sync::Arc,
};

/// Calls of the kernel for one UDP socket, and datagrams of it for the hub, before others get their turn: what the socket's buffer holds
/// of full runs.
const TURN_CALLS: usize = 64;

/// Records that cost as much as a message: what one of 64 KiB holds of full-size packets. One may hold thousands of a byte each.
const MESSAGE_RECORDS: usize = 48;

/// The machines of a relay and all that waits for them.
pub struct Control<D> {
    hub: Hub,
    scribe: Scribe<Hub>,
    forwarder: Forwarder,
    wires: Wires<D>,
    conns: BTreeMap<ConnId, Talk>,
    closing: Closing,
    reflector: Reflector,
    /// The socket whose datagram the hub answers now.
    answering: usize,
    jobs: Jobs,
    actions: Vec<HubAction>,
    house: House,
    refusals: Limit,
    trusted_proxies: Vec<(IpAddr, u8)>,
    /// Connections taken so far.
    accepted: u64,
    /// When the runtime will call again by itself.
    armed: Instant,
    house_at: Instant,
    /// Told to leave: at this instant it ends in any case.
    leaving: Option<Instant>,
    notes: Broadcast<(Instant, HubNote)>,
}

/// How a connection stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Talk {
    Open,
    /// Hung up: its writer goes on until nothing waits.
    Closing,
}

/// An event that waits for the control room, owned.
enum Pending {
    Closed { conn: ConnId },
    Message { conn: ConnId, bytes: Vec<u8> },
    Computed(Done),
    Leave,
    Drain(Duration),
    Configure(Box<Live>),
}

/// The forwarder's sink.
struct Wires<D> {
    inbox: VecDeque<Pending>,
    /// Messages that the control room had no room for.
    inbox_full: u64,
    doors: D,
}

impl Seat {
    /// The UDP sockets, by place: the runtime waits until one is readable, and calls `Control::datagrams`.
    pub fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.reflector.sockets()
    }

    /// The control room, with this runtime's doors.
    pub fn control<D: Doors>(self, now: Instant, doors: D) -> Control<D> {
        Control {
            forwarder: Forwarder::new(&self.hub.limits),
            wires: Wires { inbox: VecDeque::new(), inbox_full: 0, doors },
            conns: BTreeMap::new(),
            closing: Closing::default(),
            reflector: self.reflector,
            answering: 0,
            jobs: Jobs::new(Arc::clone(&self.hub.crypto)),
            actions: Vec::new(),
            house: House::new(self.certificates),
            refusals: Limit::default(),
            trusted_proxies: self.trusted_proxies,
            accepted: 0,
            armed: now,
            house_at: now + HOUSEKEEPING_INTERVAL,
            leaving: None,
            notes: self.notes,
            scribe: self.scribe,
            hub: Hub::new(self.hub),
        }
    }
}

impl<D: Doors> Room for Control<D> {
    type Command = Command;

    fn begin(&mut self, now: Instant) {
        let bytes = entropy::fresh();
        self.handle(now, HubEvent::Entropy(&bytes));
        self.handle(now, HubEvent::Start);
    }

    fn turn(&mut self, now: Instant) -> bool {
        self.alarms(now);
        for _ in 0..TURN_EVENTS {
            let Some(event) = self.wires.inbox.pop_front() else {
                break;
            };
            self.deliver(now, event);
        }
        !self.wires.inbox.is_empty() || self.next_deadline() <= now
    }

    fn ended(&mut self, now: Instant) -> Option<Result<(), String>> {
        self.leaving.filter(|until| *until <= now || self.conns.is_empty()).map(|_| Ok(()))
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
            Command::Show(files) => self.house.show(now, files),
            Command::Configure(live) => self.wires.post(Pending::Configure(live)),
            Command::Leave => self.wires.post(Pending::Leave),
            Command::Drain(within) => self.wires.post(Pending::Drain(within)),
        }
    }

    fn abandoned(&mut self) {
        self.wires.post(Pending::Leave);
    }

    fn computed(&mut self, done: Done) {
        self.wires.post(Pending::Computed(done));
    }

    fn announces(&self, remote: SocketAddr) -> bool {
        inside_any(&self.trusted_proxies, remote.ip())
    }

    fn misannounced(&mut self, remote: SocketAddr, why: Ended) {
        tracing::debug!(%remote, %why, "a connection of a proxy came to nothing");
        self.hub.misannounced(true);
    }

    /// The hub's limits, before any TLS work.
    fn admit(&mut self, now: Instant, remote: SocketAddr) -> Result<Standing, Refusal> {
        self.hub.admit(now, remote)
    }

    fn released(&mut self, remote: SocketAddr, why: Ended) {
        tracing::debug!(%remote, %why, "a connection came to nothing");
        self.hub.released(remote, why == Ended::TimedOut);
        if let Ended::Proxy(why) = why {
            self.hub.misannounced(false);
            if let Some(suppressed) = self.refusals.allow(clock::now()) {
                tracing::warn!(%remote, why, suppressed, "refused: if this is a proxy of yours, trust it");
            }
        }
    }

    fn number(&mut self) -> ConnId {
        let conn = ConnId(2 * self.accepted + 1);
        self.accepted += 1;
        conn
    }

    fn accepted(&mut self, now: Instant, conn: ConnId, arrival: Arrival) {
        self.conns.insert(conn, Talk::Open);
        self.handle(now, HubEvent::Accepted { conn, exporter: arrival.exporter, remote: arrival.remote, since: arrival.since });
    }

    fn message(&mut self, now: Instant, conn: ConnId, message: &mut [u8]) -> usize {
        let Cost { records, ends_turn } = self.forwarder.inbound(now, conn, message, &mut self.wires);
        if self.forwarder.deadline().is_some_and(|d| d.at < self.armed) {
            self.wires.doors.ring();
        }
        (1 + records / MESSAGE_RECORDS).max(if ends_turn { TURN_MESSAGES } else { 0 })
    }

    fn is_busy(&self) -> bool {
        self.wires.inbox.len() > INBOX_CALM
    }

    fn next(&mut self, now: Instant, conn: ConnId) -> Next {
        let Some(talk) = self.conns.get(&conn) else {
            return Next::Wait;
        };
        let mut message = Vec::new();
        if self.forwarder.next_message(now, conn, &mut message) {
            return Next::Send(message);
        }
        if *talk == Talk::Closing { Next::Close } else { Next::Wait }
    }

    fn sent(&mut self, _now: Instant, _conn: ConnId, _len: usize) {}

    fn closed(&mut self, conn: ConnId, why: Ended) {
        if self.conns.remove(&conn).is_some() {
            tracing::debug!(conn = conn.0, ?why, "a connection ended");
            self.wires.doors.close(conn);
            self.wires.post(Pending::Closed { conn });
        }
    }
}

impl<D: Doors> Control<D> {
    /// The runtime's side of the doors.
    pub fn doors(&mut self) -> &mut D {
        &mut self.wires.doors
    }

    /// Takes what the UDP socket at this place has, as far as a turn goes; true when there may be more.
    ///
    /// # Errors
    /// Nothing can be read from this socket any more.
    pub fn datagrams(&mut self, now: Instant, place: usize) -> io::Result<bool> {
        let mut calls = 0;
        loop {
            let more = calls < TURN_CALLS;
            let Some(mut run) = self.reflector.receive(place, more)? else { return Ok(!more) };
            calls += run.calls;
            while let Some(next) = self.reflector.next(&mut run) {
                match next {
                    reflector::Next::Passing { receiver, count, part } => {
                        let Some(to) = self.forwarder.pass(now, run.remote, receiver, count, part.len()) else { continue };
                        let sent = self.reflector.pass(&run, part, to);
                        self.forwarder.lost(sent.lost);
                        calls += sent.calls;
                    }
                    reflector::Next::Asking { port, bytes, len } => {
                        self.answering = place;
                        let bytes = bytes.get(..len).unwrap_or_default();
                        self.handle(now, HubEvent::Datagram { port, remote: run.remote, bytes });
                        calls += 1;
                    }
                }
            }
        }
    }

    fn alarms(&mut self, now: Instant) {
        if self.hub.deadline().is_some_and(|d| d.at <= now) {
            self.handle(now, HubEvent::Alarm);
        }
        if self.forwarder.deadline().is_some_and(|d| d.at <= now) {
            for conn in self.forwarder.alarm(now) {
                self.closed(conn, Ended::TimedOut); // protocol 9: a consumer that stalls is closed
            }
        }
        if self.drained_at().is_some_and(|at| at <= now) {
            self.deliver(now, Pending::Leave);
        }
        while let Some(conn) = self.closing.due(now) {
            self.closed(conn, Ended::TimedOut);
        }
        if self.house_at <= now {
            self.house_at = now + HOUSEKEEPING_INTERVAL;
            self.house.look(now);
        }
    }

    /// Hands one event of the inbox to the hub.
    fn deliver(&mut self, now: Instant, event: Pending) {
        match event {
            Pending::Closed { conn } => self.handle(now, HubEvent::Closed { conn }),
            Pending::Message { conn, mut bytes } => self.handle(now, HubEvent::Message { conn, bytes: &mut bytes }),
            Pending::Computed(done) => {
                self.jobs.finished();
                self.run_jobs();
                self.handle(now, HubEvent::Computed(done));
            }
            Pending::Leave if self.leaving.is_none() => {
                self.leaving = Some(now + LEAVE_WITHIN);
                self.wires.doors.close_listeners();
                self.handle(now, HubEvent::Leave);
            }
            Pending::Leave => {}
            Pending::Configure(live) => {
                let Live { limits, access, trusted_proxies } = *live;
                self.trusted_proxies = trusted_proxies;
                self.handle(now, HubEvent::Configure { limits: Box::new(limits), access: Box::new(access) });
                self.forwarder.configure(self.hub.limits());
                self.wires.doors.configure(Bounds::of(self.hub.limits()));
            }
            Pending::Drain(within) => {
                self.wires.doors.close_listeners();
                self.handle(now, HubEvent::Drain { within });
            }
        }
    }

    /// The one place where an event goes into the hub and its actions come out, to be carried out in their order.
    fn handle(&mut self, now: Instant, event: HubEvent<'_>) {
        let mut actions = core::mem::take(&mut self.actions);
        self.scribe.event(now, &event);
        self.hub.handle(now, event, &mut actions);
        self.scribe.actions(&actions);
        let mut computes = false;
        for action in actions.drain(..) {
            computes |= matches!(action, HubAction::Compute(_));
            self.carry_out(now, action);
        }
        self.actions = actions;
        if computes {
            // protocol 1: nothing that was kept yields the keys of the next handshake
            let bytes = entropy::fresh();
            self.handle(now, HubEvent::Entropy(&bytes));
        }
    }

    fn carry_out(&mut self, now: Instant, action: HubAction) {
        match action {
            HubAction::Send { conn, bytes } => {
                self.forwarder.control(conn, bytes);
                self.wires.doors.wake(conn);
            }
            HubAction::Hangup { conn, why } => {
                tracing::debug!(conn = conn.0, why, "hanging up");
                self.hang_up(now, conn);
            }
            HubAction::Compute(job) => {
                self.jobs.add(job);
                self.run_jobs();
            }
            HubAction::Edit(edit) => self.forwarder.apply(now, edit),
            HubAction::Datagram { port: _, remote, bytes } => self.reflector.send(self.answering, remote, &bytes),
            HubAction::Note(note) => {
                self.log(now, &note);
                self.notes.tell(&(now, note));
            }
        }
    }

    /// Lets the writer send what waits, for a moment, and then closes.
    fn hang_up(&mut self, now: Instant, conn: ConnId) {
        let Some(talk) = self.conns.get_mut(&conn) else {
            return; // closed meanwhile: the hub hears or has heard so
        };
        *talk = Talk::Closing;
        self.closing.add(now, conn);
        self.wires.doors.hang_up(conn);
        self.wires.doors.wake(conn);
    }

    fn run_jobs(&mut self) {
        while let Some((job, crypto)) = self.jobs.next() {
            self.wires.doors.compute(job, crypto);
        }
    }

    fn next_deadline(&self) -> Instant {
        let machines = Deadline::earlier(self.hub.deadline(), self.forwarder.deadline()).map(|d| d.at);
        let others = [machines, self.leaving, self.drained_at(), self.closing.deadline()].into_iter().flatten();
        others.fold(self.house_at, Instant::min)
    }

    /// When a relay that drains is not needed any more.
    fn drained_at(&self) -> Option<Instant> {
        self.hub.drained_at(self.forwarder.forwarded_at()).filter(|_| self.leaving.is_none())
    }

    fn status(&self, now: Instant) -> HubStatus {
        let mut status = self.hub.status(now);
        status.merge(self.forwarder.stats());
        status.drops.push(("inbox_full", self.wires.inbox_full));
        status
    }

    fn log(&mut self, now: Instant, note: &HubNote) {
        match note {
            HubNote::Joined { id, remote, handle } => {
                tracing::info!(client = %id.short(), %remote, handle = handle.0, "joined");
            }
            HubNote::Left { id, why } => tracing::info!(client = %id.short(), why, "left"),
            HubNote::Refused { remote, what } => {
                if let Some(suppressed) = self.refusals.allow(now) {
                    tracing::warn!(?remote, %what, suppressed, "refused");
                }
            }
            HubNote::SharedIdentity { id } => {
                if let Some(suppressed) = self.refusals.allow(now) {
                    tracing::warn!(client = %id.short(), suppressed, "two machines use this identity: give one of them its own");
                }
            }
        }
    }
}

impl<D: Doors> Wires<D> {
    /// Puts an event of the driver's own into the inbox; there is at most one of a kind for each connection or job.
    fn post(&mut self, event: Pending) {
        self.inbox.push_back(event);
        self.doors.ring();
    }
}

impl<D: Doors> ForwardSink for Wires<D> {
    fn punt(&mut self, conn: ConnId, message: &mut [u8]) {
        if self.inbox.len() < INBOX {
            let bytes = message.to_vec();
            self.post(Pending::Message { conn, bytes });
        } else {
            self.inbox_full += 1;
        }
    }

    fn wake(&mut self, conn: ConnId) {
        self.doors.wake(conn);
    }
}
