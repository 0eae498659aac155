//! The driver of `Node` and `Plane`: one thread, one owner of both, many small tasks around them.
//!
//! ```text
//!   readers, interface ─▶ Plane ── punts, reports ─▶ inbox ─┐
//!   dials, listener, jobs, handles ────────────────▶ inbox ─┤
//!                                                           ▼
//!   control: deadlines first, then at most 64 events ─▶ Node ─▶ actions: Edit ▶ Plane, Send ▶ outbox, Dial ▶ task …
//! ```
use super::{
    Command,
    conns::{self, PeerDoor},
    interface::{self, Opened, Source},
    log::NoteLog,
    ports::{Pending, Ports},
};
use crate::{
    bell::Bell,
    broadcast::Broadcast,
    dial,
    jobs::Jobs,
    listen::{self, Bounds},
};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use rustls::ServerConfig;
use shadowmesh_core::{
    Node,
    config::NodeConfig,
    event::{Action, Ended, Event, Note},
    handshake::Job,
    id::{ConnId, PeerId},
    machine::{Deadline, Machine},
    plane::{Plane, PlaneConfig},
    status::Status,
    time::Instant,
};
use shadowmesh_runtime_std::{clock, entropy, interfaces, tls::CertStore};
use smol::{LocalExecutor, Task, Timer, future};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::{Rc, Weak},
    sync::Arc,
    time::SystemTime,
};

/// Events of the inbox that one turn handles before packets get theirs.
const TURN_EVENTS: usize = 64;

/// How often the lanes' counters are handed to the node.
const TALLY_INTERVAL: Duration = Duration::from_secs(1);

/// How often addresses and the certificate's age are looked at.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(10);

/// The longest sleep: a timer of the kernel does not count while the machine sleeps, our deadlines do.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// How long leaving may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// How long a connection that is hung up may take to send what waits.
pub(super) const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Limits of the direct listener: a peer has few others, and each gets in by its address alone (protocol 6).
const DOOR: Bounds = Bounds { handshakes: 32, handshakes_per_source: 8, time: Duration::from_secs(5) };

/// All that the driver's thread starts with.
pub(super) struct Start {
    pub(super) node: NodeConfig,
    pub(super) interface: Opened,
    pub(super) listen_tcp: SocketAddr,
    pub(super) certificates: Arc<CertStore>,
    pub(super) server_config: Arc<ServerConfig>,
    pub(super) commands: flume::Receiver<Command>,
    pub(super) notes: Broadcast<(Instant, Note)>,
    pub(super) claims: Broadcast<(IpAddr, PeerId)>,
}

/// What all tasks of one peer share. `drive` is never borrowed across an await.
pub(super) struct Shared {
    executor: Weak<LocalExecutor<'static>>,
    drive: RefCell<Drive>,
    bell: Bell,
    listen_tcp: SocketAddr,
    server_config: Arc<ServerConfig>,
    certificates: Arc<CertStore>,
    notes: Broadcast<(Instant, Note)>,
    claims: Broadcast<(IpAddr, PeerId)>,
}

/// The machines and what runs for them.
pub(super) struct Drive {
    node: Node,
    plane: Plane,
    pub(super) ports: Ports,
    pub(super) tasks: Tasks,
    jobs: Jobs,
    actions: Vec<Action>,
    log: NoteLog,
    /// When the control task will look at the deadlines again by itself.
    armed: Instant,
    tally_at: Instant,
    ending: Ending,
}

/// How far the end has come.
enum Ending {
    Running,
    /// The node was told to leave; at this instant it ends in any case.
    Leaving(Instant),
    /// The node has said its good-byes.
    Left,
    /// It cannot go on.
    Failed(String),
}

/// Tasks that a later action may stop.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) dials: BTreeMap<ConnId, Task<()>>,
    pub(super) conns: BTreeMap<ConnId, ConnTasks>,
    listener: Option<Task<()>>,
    /// Connections and dials that the node knows: opened by it or shown to it, neither hung up nor reported closed.
    pub(super) known: BTreeSet<ConnId>,
    pub(super) accepted: u64,
}

/// Both pumps of one connection.
pub(super) struct ConnTasks {
    pub(super) reader: Task<()>,
    pub(super) writer: Task<()>,
}

/// Runs a peer to its end.
pub(super) fn run(start: Start) -> Result<(), String> {
    let executor = Rc::new(LocalExecutor::new());
    let bell = Bell::default();
    let now = clock::now();
    let crypto = Arc::clone(&start.node.crypto);
    let device_name = start.interface.device_name();
    let (source, port) = start.interface.split();
    let plane = Plane::new(plane_config(&start.node));
    let log = NoteLog::new(&start.node.network.relays);
    let node = Node::new(start.node);
    let notes = start.notes.clone();
    let claims = start.claims.clone();
    let shared = Rc::new(Shared {
        executor: Rc::downgrade(&executor),
        drive: RefCell::new(Drive {
            node,
            plane,
            ports: Ports::new(port, bell.clone()),
            tasks: Tasks::default(),
            jobs: Jobs::new(crypto),
            actions: Vec::new(),
            log,
            armed: now,
            tally_at: now + TALLY_INTERVAL,
            ending: Ending::Running,
        }),
        bell,
        listen_tcp: start.listen_tcp,
        server_config: start.server_config,
        certificates: start.certificates,
        notes: start.notes,
        claims: start.claims,
    });
    shared.spawn(obey(Rc::clone(&shared), start.commands)).detach();
    shared.spawn(keep_house(Rc::clone(&shared), device_name)).detach();
    shared.spawn(carry(Rc::clone(&shared), source)).detach();
    let outcome = smol::block_on(executor.run(control(Rc::clone(&shared))));
    notes.close();
    claims.close();
    outcome
}

/// What the data plane needs to know of the node's configuration.
fn plane_config(node: &NodeConfig) -> PlaneConfig {
    PlaneConfig {
        layer2: node.layer2,
        addresses: node.overlay_addresses().into_iter().map(|(address, _)| address).collect(),
        mac: node.network.mac_address(node.identity.id()),
        mode: node.mode,
    }
}

/// The control room: deadlines first, so that no flood starves them, then a bounded part of the inbox.
async fn control(shared: Rc<Shared>) -> Result<(), String> {
    shared.begin();
    loop {
        let more = shared.turn(clock::now());
        if let Some(outcome) = shared.ended(clock::now()) {
            shared.flush().await;
            return outcome;
        }
        if more {
            future::yield_now().await;
            continue;
        }
        let sleep = shared.arm(clock::now());
        future::or(shared.bell.wait(), async {
            Timer::after(sleep).await;
        })
        .await;
    }
}

/// Carries packets from the interface into the plane.
async fn carry(shared: Rc<Shared>, source: Source) {
    if let Err(why) = interface::read(Rc::clone(&shared), source).await {
        shared.drive.borrow_mut().ending = Ending::Failed(why);
        shared.bell.ring();
    }
}

/// Takes commands; when the last handle is gone, the peer leaves.
async fn obey(shared: Rc<Shared>, commands: flume::Receiver<Command>) {
    while let Ok(command) = commands.recv_async().await {
        match command {
            Command::Status(reply) => {
                let now = clock::now();
                // Whoever asked may have stopped waiting.
                let _ = reply.try_send((now, shared.status(now)));
            }
            Command::Ping { peer, id, payload } => shared.post(Pending::Ping { peer, id, payload }),
            Command::Leave => shared.post(Pending::Leave),
        }
    }
    shared.post(Pending::Leave);
}

/// Looks at this machine's addresses and at the certificate's age.
async fn keep_house(shared: Rc<Shared>, overlay: Option<String>) {
    let mut known = None;
    loop {
        match interfaces::local_addresses(overlay.as_deref()) {
            Ok(found) => {
                let addresses: Vec<_> = found.iter().map(|a| (a.address, a.prefix)).collect();
                if known.as_ref() != Some(&addresses) {
                    known = Some(addresses.clone());
                    shared.post(Pending::Interfaces(addresses));
                }
            }
            Err(why) => tracing::warn!(%why, "cannot list the addresses of this machine"),
        }
        match shared.certificates.renew_if_due(clock::now(), SystemTime::now()) {
            Ok(true) => tracing::debug!("the TLS certificate is renewed"),
            Ok(false) => {}
            Err(why) => tracing::warn!(%why, "the TLS certificate stays the old one"),
        }
        Timer::after(HOUSEKEEPING_INTERVAL).await;
    }
}

impl Shared {
    /// Starts a task of this peer.
    pub(super) fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Task<T> {
        self.executor.upgrade().expect("the executor outlives its tasks").spawn(task)
    }

    /// Puts an event into the inbox.
    pub(super) fn post(&self, event: Pending) {
        self.drive.borrow_mut().ports.post(event);
    }

    /// Gives access to the ports and tasks, for connections that come and go.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Drive) -> T) -> T {
        f(&mut self.drive.borrow_mut())
    }

    /// One packet from the interface.
    pub(super) fn packet(&self, now: Instant, packet: &[u8]) {
        self.pump(|plane, ports| plane.outbound(now, packet, ports));
    }

    /// One message from a connection; true when the reader should wait for the control room.
    pub(super) fn message(&self, now: Instant, conn: ConnId, message: &mut [u8]) -> bool {
        self.pump(|plane, ports| plane.inbound(now, conn, message, ports));
        self.is_busy()
    }

    /// Whether readers should wait for the control room.
    pub(super) fn is_busy(&self) -> bool {
        self.drive.borrow().ports.is_busy()
    }

    /// A connection has room again.
    pub(super) fn writable(&self, now: Instant, conn: ConnId) {
        self.pump(|plane, ports| {
            if ports.outboxes.contains_key(&conn) {
                plane.writable(now, conn, ports);
            }
        });
    }

    /// A connection is gone, by its reader's or writer's word; the first word counts.
    pub(super) fn closed(&self, conn: ConnId, why: Ended) {
        self.drive.borrow_mut().close(conn, why);
    }

    fn pump(&self, f: impl FnOnce(&mut Plane, &mut Ports)) {
        let mut drive = self.drive.borrow_mut();
        let Drive { plane, ports, .. } = &mut *drive;
        f(plane, ports);
        if drive.plane.deadline().is_some_and(|d| d.at < drive.armed) {
            self.bell.ring();
        }
    }

    fn begin(self: &Rc<Self>) {
        let mut drive = self.drive.borrow_mut();
        let now = clock::now();
        let bytes = entropy::fresh();
        self.handle(&mut drive, now, Event::Entropy(&bytes));
        self.handle(&mut drive, now, Event::Start);
    }

    /// Deadlines that are due, then a part of the inbox; true when more waits.
    fn turn(self: &Rc<Self>, now: Instant) -> bool {
        let mut drive = self.drive.borrow_mut();
        let drive = &mut *drive;
        if drive.node.deadline().is_some_and(|d| d.at <= now) {
            self.handle(drive, now, Event::Alarm);
        }
        if drive.plane.deadline().is_some_and(|d| d.at <= now) {
            drive.plane.alarm(now, &mut drive.ports);
        }
        if drive.tally_at <= now {
            self.tally(drive, now);
        }
        for _ in 0..TURN_EVENTS {
            let Some(event) = drive.ports.inbox.pop_front() else {
                break;
            };
            self.deliver(drive, now, event);
        }
        !drive.ports.inbox.is_empty() || drive.next_deadline() <= now
    }

    /// How long the control task may sleep.
    fn arm(&self, now: Instant) -> Duration {
        let mut drive = self.drive.borrow_mut();
        drive.armed = drive.next_deadline().min(now + LONGEST_SLEEP);
        drive.armed.since(now)
    }

    fn tally(self: &Rc<Self>, drive: &mut Drive, now: Instant) {
        drive.tally_at = now + TALLY_INTERVAL;
        let tally = drive.plane.tally();
        self.handle(drive, now, Event::Tally(&tally));
    }

    fn status(self: &Rc<Self>, now: Instant) -> Status {
        let mut drive = self.drive.borrow_mut();
        self.tally(&mut drive, now);
        let mut status = drive.node.status(now);
        let drops = drive.ports.drops;
        status.drops.push(("interface_full", drops.interface_full));
        status.drops.push(("inbox_full", drops.inbox_full));
        status
    }

    /// Hands one event of the inbox to the node.
    fn deliver(self: &Rc<Self>, drive: &mut Drive, now: Instant, event: Pending) {
        if event.conn().is_some_and(|conn| !drive.tasks.known.contains(&conn)) {
            return; // the node has hung up and forgotten it
        }
        let event = match event {
            Pending::Opened { conn, tls, local, remote } => Event::Opened { conn, tls, local, remote },
            Pending::Accepted { conn, exporter, local, remote } => Event::Accepted { conn, exporter, local, remote },
            Pending::Closed { conn, why } => {
                drive.tasks.known.remove(&conn);
                Event::Closed { conn, why }
            }
            Pending::Message { conn, handle, mut bytes } => {
                self.handle(drive, now, Event::Message { conn, handle, bytes: &mut bytes });
                return;
            }
            Pending::Computed(done) => {
                drive.jobs.finished();
                self.run_jobs(drive);
                Event::Computed(done)
            }
            Pending::Listening(port) => Event::Listening { port },
            Pending::Interfaces(addresses) => {
                self.handle(drive, now, Event::Interfaces(&addresses));
                return;
            }
            Pending::Report(report) => Event::Report(report),
            Pending::Ping { peer, id, payload } => Event::Ping { peer, id, payload },
            Pending::Leave => {
                if !matches!(drive.ending, Ending::Running) {
                    return;
                }
                drive.ending = Ending::Leaving(now + LEAVE_WITHIN);
                Event::Leave
            }
        };
        self.handle(drive, now, event);
    }

    /// One event into the node, its actions carried out in their order.
    fn handle(self: &Rc<Self>, drive: &mut Drive, now: Instant, event: Event<'_>) {
        let mut actions = core::mem::take(&mut drive.actions);
        drive.node.handle(now, event, &mut actions);
        let mut computes = false;
        for action in actions.drain(..) {
            computes |= matches!(action, Action::Compute(_));
            self.carry_out(drive, now, action);
        }
        drive.actions = actions;
        if computes {
            // protocol 1: nothing that was kept yields the keys of the next handshake
            let bytes = entropy::fresh();
            self.handle(drive, now, Event::Entropy(&bytes));
        }
    }

    fn carry_out(self: &Rc<Self>, drive: &mut Drive, now: Instant, action: Action) {
        match action {
            Action::Dial { conn, target, timeout } => {
                let shared = Rc::clone(self);
                let task = self.spawn(async move {
                    let outcome = Box::pin(dial::dial(target, timeout)).await;
                    conns::dialled(&shared, conn, outcome);
                });
                drive.tasks.dials.insert(conn, task);
                drive.tasks.known.insert(conn);
            }
            Action::Hangup { conn } => conns::hang_up(self, drive, conn),
            Action::Send { conn, bytes } => {
                if drive.ports.outboxes.get(&conn).is_some_and(|outbox| !outbox.message(bytes)) {
                    drive.close(conn, Ended::TimedOut);
                }
            }
            Action::Compute(job) => self.compute(drive, job),
            Action::Edit(edit) => drive.plane.apply(now, edit, &mut drive.ports),
            Action::Listen(open) => self.listen(drive, open),
            Action::Remember { address, peer } => self.claims.tell(&(address, peer)),
            Action::Note(note) => {
                if note == Note::Left {
                    drive.ending = Ending::Left;
                }
                drive.log.write(now, &note);
                self.notes.tell(&(now, note));
            }
        }
    }

    fn compute(self: &Rc<Self>, drive: &mut Drive, job: Job) {
        drive.jobs.add(job);
        self.run_jobs(drive);
    }

    fn run_jobs(self: &Rc<Self>, drive: &mut Drive) {
        while let Some(job) = drive.jobs.next() {
            let shared = Rc::clone(self);
            self.spawn(async move {
                let done = job.await;
                shared.post(Pending::Computed(done));
            })
            .detach();
        }
    }

    /// Opens or closes the direct listener and says so.
    fn listen(self: &Rc<Self>, drive: &mut Drive, open: bool) {
        drive.tasks.listener = None;
        let mut port = None;
        if open {
            match listen::bind_any(self.listen_tcp) {
                Ok(listener) => {
                    port = listener.get_ref().local_addr().ok().map(|a| a.port());
                    let door = Rc::new(PeerDoor::new(Rc::clone(self)));
                    let executor = self.executor.upgrade().expect("the executor outlives its tasks");
                    let config = Arc::clone(&self.server_config);
                    let weak = Rc::downgrade(&executor);
                    drive.tasks.listener = Some(executor.spawn(listen::serve(listener, config, DOOR, door, weak)));
                }
                Err(why) => tracing::warn!(%why, "no direct connections can come in"),
            }
        }
        drive.ports.post(Pending::Listening(port));
    }

    /// Whether it is over, and how.
    fn ended(&self, now: Instant) -> Option<Result<(), String>> {
        match &self.drive.borrow().ending {
            Ending::Running => None,
            Ending::Leaving(until) => (*until <= now).then_some(Ok(())),
            Ending::Left => Some(Ok(())),
            Ending::Failed(why) => Some(Err(why.clone())),
        }
    }

    /// Lets all connections send what waits, for a moment.
    async fn flush(&self) {
        let writers = {
            let mut drive = self.drive.borrow_mut();
            drive.ports.outboxes.values().for_each(crate::outbox::Outbox::finish);
            drive.ports.outboxes.clear();
            core::mem::take(&mut drive.tasks.conns)
        };
        let all = async {
            for (_, tasks) in writers {
                tasks.writer.await;
            }
        };
        future::or(all, async {
            Timer::after(FLUSH_WITHIN).await;
        })
        .await;
    }
}

impl Drive {
    /// Takes a connection out: its pumps stop, the node learns why.
    pub(super) fn close(&mut self, conn: ConnId, why: Ended) {
        if self.ports.outboxes.remove(&conn).is_some() {
            self.tasks.conns.remove(&conn);
            self.ports.post(Pending::Closed { conn, why });
        }
    }

    fn next_deadline(&self) -> Instant {
        let machines = Deadline::earlier(self.node.deadline(), self.plane.deadline());
        let mut next = machines.map_or(self.tally_at, |d| d.at.min(self.tally_at));
        if let Ending::Leaving(until) = self.ending {
            next = next.min(until);
        }
        next
    }
}
