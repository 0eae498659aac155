//! The driver of `Hub` and `Forwarder`: one thread, one owner of both, two pumps a connection.
//!
//! ```text
//!   readers ─▶ Forwarder ── punts ─▶ inbox ─┐              writers ◀─ next_message ─ Forwarder
//!   listeners, jobs, handles ─────▶ inbox ─┤                                          ▲ control, apply
//!                                          ▼                                          │
//!   control: deadlines first, then at most 64 events ─▶ Hub ─▶ actions: Send, Edit, Hangup, Compute, Note
//! ```
use super::{
    Command,
    conns::{self, Conn, RelayDoor},
    wires::{Pending, Wires},
};
use crate::{
    bell::Bell,
    broadcast::Broadcast,
    jobs::Jobs,
    limit::Limit,
    listen::{self, Accepted, Bounds},
};
use core::time::Duration;
use rustls::ServerConfig;
use shadowmesh_core::{
    config::HubConfig,
    hub::{Forwarder, Hub, HubAction, HubEvent, HubNote, HubStatus},
    id::ConnId,
    machine::{Deadline, Machine},
    time::Instant,
};
use shadowmesh_runtime_std::{clock, entropy, tls::CertStore};
use smol::{Async, LocalExecutor, Task, Timer, future};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::TcpListener,
    rc::{Rc, Weak},
    sync::Arc,
    time::SystemTime,
};

/// Events of the inbox that one turn handles before packets get theirs.
const TURN_EVENTS: usize = 64;

/// How often the certificate's age is looked at.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(10);

/// The longest sleep: a timer of the kernel does not count while the machine sleeps, our deadlines do.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// How long leaving may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// All that the driver's thread starts with.
pub(super) struct Start {
    pub(super) hub: HubConfig,
    pub(super) listeners: Vec<Async<TcpListener>>,
    pub(super) certificates: Arc<CertStore>,
    pub(super) server_config: Arc<ServerConfig>,
    pub(super) commands: flume::Receiver<Command>,
    pub(super) notes: Broadcast<(Instant, HubNote)>,
}

/// What all tasks of one relay share. `drive` is never borrowed across an await.
pub(super) struct Shared {
    executor: Weak<LocalExecutor<'static>>,
    drive: RefCell<Drive>,
    bell: Bell,
    notes: Broadcast<(Instant, HubNote)>,
}

/// The machines and what runs for them.
pub(super) struct Drive {
    pub(super) hub: Hub,
    pub(super) wires: Wires,
    pub(super) conns: BTreeMap<ConnId, Conn>,
    forwarder: Forwarder,
    listeners: Vec<Task<()>>,
    jobs: Jobs,
    actions: Vec<HubAction>,
    refusals: Limit,
    accepted: u64,
    /// When the control task will look at the deadlines again by itself.
    armed: Instant,
    /// Told to leave: at this instant it ends in any case.
    leaving: Option<Instant>,
}

/// Runs a relay to its end.
pub(super) fn run(start: Start) {
    let executor = Rc::new(LocalExecutor::new());
    let bell = Bell::default();
    let limits = start.hub.limits.clone();
    let crypto = Arc::clone(&start.hub.crypto);
    let notes = start.notes.clone();
    let shared = Rc::new(Shared {
        executor: Rc::downgrade(&executor),
        drive: RefCell::new(Drive {
            hub: Hub::new(start.hub),
            wires: Wires::new(bell.clone()),
            conns: BTreeMap::new(),
            forwarder: Forwarder::new(&limits),
            listeners: Vec::new(),
            jobs: Jobs::new(crypto),
            actions: Vec::new(),
            refusals: Limit::default(),
            accepted: 0,
            armed: clock::now(),
            leaving: None,
        }),
        bell,
        notes: start.notes,
    });
    let bounds = Bounds { handshakes: limits.preauth_total, handshakes_per_source: limits.preauth_per_source, time: limits.preauth_time };
    let door = Rc::new(RelayDoor::new(Rc::clone(&shared)));
    for listener in start.listeners {
        let config = Arc::clone(&start.server_config);
        let serving = listen::serve(listener, config, bounds, Rc::clone(&door), Rc::downgrade(&executor));
        shared.with(|drive| drive.listeners.push(executor.spawn(serving)));
    }
    shared.spawn(obey(Rc::clone(&shared), start.commands)).detach();
    shared.spawn(keep_house(start.certificates)).detach();
    smol::block_on(executor.run(control(Rc::clone(&shared))));
    notes.close();
}

/// The control room: deadlines first, so that no flood starves them, then a bounded part of the inbox.
async fn control(shared: Rc<Shared>) {
    shared.begin();
    loop {
        let more = shared.turn(clock::now());
        if shared.has_ended(clock::now()) {
            return;
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

/// Takes commands; when the last handle is gone, the relay leaves.
async fn obey(shared: Rc<Shared>, commands: flume::Receiver<Command>) {
    while let Ok(command) = commands.recv_async().await {
        match command {
            Command::Status(reply) => {
                let now = clock::now();
                // Whoever asked may have stopped waiting.
                let _ = reply.try_send((now, shared.with(|drive| drive.status(now))));
            }
            Command::Leave => shared.with(|drive| drive.wires.post(Pending::Leave)),
        }
    }
    shared.with(|drive| drive.wires.post(Pending::Leave));
}

/// Looks at the certificate's age.
async fn keep_house(certificates: Arc<CertStore>) {
    loop {
        Timer::after(HOUSEKEEPING_INTERVAL).await;
        match certificates.renew_if_due(clock::now(), SystemTime::now()) {
            Ok(true) => tracing::debug!("the TLS certificate is renewed"),
            Ok(false) => {}
            Err(why) => tracing::warn!(%why, "the TLS certificate stays the old one"),
        }
    }
}

impl Shared {
    /// Starts a task of this relay.
    pub(super) fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> Task<T> {
        self.executor.upgrade().expect("the executor outlives its tasks").spawn(task)
    }

    /// Gives access to the machines for a moment.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Drive) -> T) -> T {
        f(&mut self.drive.borrow_mut())
    }

    /// One message from a connection; true when the reader should wait for the control room.
    pub(super) fn message(&self, now: Instant, conn: ConnId, message: &mut [u8]) -> bool {
        let mut drive = self.drive.borrow_mut();
        let Drive { forwarder, wires, .. } = &mut *drive;
        forwarder.inbound(now, conn, message, wires);
        if forwarder.deadline().is_some_and(|d| d.at < drive.armed) {
            self.bell.ring();
        }
        drive.wires.is_busy()
    }

    /// Whether readers should wait for the control room.
    pub(super) fn is_busy(&self) -> bool {
        self.drive.borrow().wires.is_busy()
    }

    /// What the writer of `conn` sends next.
    pub(super) fn next_message(&self, now: Instant, conn: ConnId) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        let any = self.drive.borrow_mut().forwarder.next_message(now, conn, &mut message);
        any.then_some(message)
    }

    /// A connection is gone; the first word counts.
    pub(super) fn closed(&self, conn: ConnId) {
        self.drive.borrow_mut().close(conn);
    }

    fn begin(self: &Rc<Self>) {
        let mut drive = self.drive.borrow_mut();
        let now = clock::now();
        let bytes = entropy::fresh();
        self.handle(&mut drive, now, HubEvent::Entropy(&bytes));
        self.handle(&mut drive, now, HubEvent::Start);
    }

    /// Deadlines that are due, then a part of the inbox; true when more waits.
    fn turn(self: &Rc<Self>, now: Instant) -> bool {
        let mut drive = self.drive.borrow_mut();
        let drive = &mut *drive;
        if drive.hub.deadline().is_some_and(|d| d.at <= now) {
            self.handle(drive, now, HubEvent::Alarm);
        }
        if drive.forwarder.deadline().is_some_and(|d| d.at <= now) {
            for conn in drive.forwarder.alarm(now) {
                drive.close(conn); // protocol 9: a consumer that stalls is closed
            }
        }
        for _ in 0..TURN_EVENTS {
            let Some(event) = drive.wires.inbox.pop_front() else {
                break;
            };
            self.deliver(drive, now, event);
        }
        !drive.wires.inbox.is_empty() || drive.next_deadline().is_some_and(|at| at <= now)
    }

    /// How long the control task may sleep.
    fn arm(&self, now: Instant) -> Duration {
        let mut drive = self.drive.borrow_mut();
        let latest = now + LONGEST_SLEEP;
        drive.armed = drive.next_deadline().map_or(latest, |at| at.min(latest));
        drive.armed.since(now)
    }

    /// Hands one event of the inbox to the hub.
    fn deliver(self: &Rc<Self>, drive: &mut Drive, now: Instant, event: Pending) {
        match event {
            Pending::Accepted(accepted) => self.accept(drive, now, *accepted),
            Pending::Closed { conn } => self.handle(drive, now, HubEvent::Closed { conn }),
            Pending::Message { conn, mut bytes } => {
                self.handle(drive, now, HubEvent::Message { conn, bytes: &mut bytes });
            }
            Pending::Computed(done) => {
                drive.jobs.finished();
                self.run_jobs(drive);
                self.handle(drive, now, HubEvent::Computed(done));
            }
            Pending::Leave if drive.leaving.is_none() => {
                drive.leaving = Some(now + LEAVE_WITHIN);
                drive.listeners.clear();
                self.handle(drive, now, HubEvent::Leave);
            }
            Pending::Leave => {}
        }
    }

    fn accept(self: &Rc<Self>, drive: &mut Drive, now: Instant, accepted: Accepted) {
        let Accepted { connected, exporter } = accepted;
        let conn = ConnId(2 * drive.accepted + 1);
        drive.accepted += 1;
        conns::open(self, drive, conn, connected.writer);
        self.handle(drive, now, HubEvent::Accepted { conn, exporter, remote: connected.remote });
        conns::listen_to(self, drive, conn, connected.reader);
    }

    /// One event into the hub, its actions carried out in their order.
    fn handle(self: &Rc<Self>, drive: &mut Drive, now: Instant, event: HubEvent<'_>) {
        let mut actions = core::mem::take(&mut drive.actions);
        drive.hub.handle(now, event, &mut actions);
        let mut computes = false;
        for action in actions.drain(..) {
            computes |= matches!(action, HubAction::Compute(_));
            self.carry_out(drive, now, action);
        }
        drive.actions = actions;
        if computes {
            // protocol 1: nothing that was kept yields the keys of the next handshake
            let bytes = entropy::fresh();
            self.handle(drive, now, HubEvent::Entropy(&bytes));
        }
    }

    fn carry_out(self: &Rc<Self>, drive: &mut Drive, now: Instant, action: HubAction) {
        match action {
            HubAction::Send { conn, bytes } => {
                drive.forwarder.control(conn, bytes);
                if let Some(bell) = drive.wires.bells.get(&conn) {
                    bell.ring();
                }
            }
            HubAction::Hangup { conn, why } => {
                tracing::debug!(conn = conn.0, why, "hanging up");
                conns::hang_up(self, drive, conn);
            }
            HubAction::Compute(job) => {
                drive.jobs.add(job);
                self.run_jobs(drive);
            }
            HubAction::Edit(edit) => drive.forwarder.apply(now, edit),
            HubAction::Note(note) => {
                drive.log(now, &note);
                self.notes.tell(&(now, note));
            }
        }
    }

    fn run_jobs(self: &Rc<Self>, drive: &mut Drive) {
        while let Some(job) = drive.jobs.next() {
            let shared = Rc::clone(self);
            self.spawn(async move {
                let done = job.await;
                shared.with(|drive| drive.wires.post(Pending::Computed(done)));
            })
            .detach();
        }
    }

    fn has_ended(&self, now: Instant) -> bool {
        let drive = self.drive.borrow();
        drive.leaving.is_some_and(|until| until <= now || drive.conns.is_empty())
    }
}

impl Drive {
    /// Takes a connection out: its pumps stop, the hub learns it.
    fn close(&mut self, conn: ConnId) {
        if self.conns.remove(&conn).is_some() {
            self.wires.bells.remove(&conn);
            self.wires.post(Pending::Closed { conn });
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let machines = Deadline::earlier(self.hub.deadline(), self.forwarder.deadline()).map(|d| d.at);
        [machines, self.leaving].into_iter().flatten().min()
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
