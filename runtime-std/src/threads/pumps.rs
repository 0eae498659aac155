//! Connections, handshakes and listeners of one machine, and which of them have something to do.
use super::{
    conn::Conn,
    drive::{Driven, Errand},
    handshake::{Accepting, Socket, Step},
    poll::{Poll, Ready, Token, Wakeup},
    workers::Workers,
};
use crate::{
    ahead::ReadAhead,
    announced::{Announcement, Heard},
    clock,
    jobs::AT_ONCE,
    lines::Lines,
    listen::{ACCEPT_PAUSE, Bounds, Slot, Slots, is_one_connections_fault},
    room::{Arrival, Next, TURN_MESSAGES},
    tls,
    ws::channel::{self, Flushed},
};
use core::{net::SocketAddr, time::Duration};
use rustls::ServerConfig;
use shadowmesh_core::{
    crypto::Provider,
    event::Ended,
    handshake::Job,
    hub::{Refusal, Standing},
    id::ConnId,
    time::Instant,
    wire::addr::canonical,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{TcpListener, TcpStream},
    sync::Arc,
};

/// Connections that a listener gives before others get their turn.
const TURN_ACCEPTS: usize = 16;

/// Steps of handshakes before others get their turn: most are cheap, but one may be a signature, and packets wait meanwhile.
const TURN_STEPS: usize = 32;

/// Time for these steps together; the first may be longer.
const STEPS_TIME: Duration = Duration::from_millis(1);

/// All that one machine has open.
pub(crate) struct Pumps<R> {
    poll: Poll,
    wakeup: Arc<Wakeup>,
    conns: BTreeMap<ConnId, Conn>,
    to_read: VecDeque<ConnId>,
    to_write: VecDeque<ConnId>,
    listeners: Vec<Listener>,
    handshakes: BTreeMap<u64, Arriving>,
    /// Handshakes in the order in which their time is over.
    overdue: BTreeSet<(Instant, u64)>,
    /// Those among them whose proxy has not said yet from where they come.
    unannounced: usize,
    /// Handshakes that became ready.
    ready: Lines<u64>,
    /// Listeners and handshakes so far.
    numbered: u64,
    errands: flume::Sender<Errand<R>>,
    jobs: Workers,
    rung: bool,
}

/// A socket that gives connections.
struct Listener {
    socket: TcpListener,
    number: u64,
    config: Arc<ServerConfig>,
    slots: Slots,
    readable: bool,
    /// After an error: not before this.
    paused: Option<Instant>,
}

/// What a connection came to that is not there yet.
type Outcome = Result<Came, Ended>;

/// How far it came.
enum Came {
    /// Its proxy has said from where it comes.
    Announced(Heard),
    /// TLS and the upgrade are done: the connection and the TLS exporter.
    Whole(Box<Socket>, [u8; 32]),
}

/// A connection that is not there yet.
struct Arriving {
    stage: Stage,
    standing: Standing,
    remote: SocketAddr,
    since: Instant,
    until: Instant,
}

/// What it waits for.
enum Stage {
    /// Its proxy is to say from where it comes; it has no place yet.
    Announcement { tcp: TcpStream, announcement: Announcement, config: Arc<ServerConfig>, slots: Slots },
    /// TLS and the upgrade.
    Handshake {
        handshake: Box<Accepting>,
        #[expect(dead_code, reason = "held so that the place is free when the handshake is over")]
        slot: Slot,
    },
}

impl Stage {
    /// Goes on; `None`: the socket has to become ready first.
    fn step(&mut self) -> Option<Outcome> {
        match self {
            Self::Announcement { tcp, announcement, .. } => match announcement.read(tcp) {
                Ok(heard) => Some(Ok(Came::Announced(heard))),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => None,
                Err(why) => Some(Err(tls::ended(&why))),
            },
            Self::Handshake { handshake, .. } => match handshake.step() {
                Ok(Step::Done((socket, exporter))) => Some(Ok(Came::Whole(Box::new(socket), exporter))),
                Ok(Step::Wait) => None,
                Err(why) => Some(Err(why)),
            },
        }
    }
}

impl<R: Driven> Pumps<R> {
    /// Nothing is open yet; workers hand their results to `errands`.
    pub(crate) fn new(errands: flume::Sender<Errand<R>>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let wakeup = Wakeup::new(&poll)?;
        Ok(Self {
            poll,
            wakeup,
            conns: BTreeMap::new(),
            to_read: VecDeque::new(),
            to_write: VecDeque::new(),
            listeners: Vec::new(),
            handshakes: BTreeMap::new(),
            overdue: BTreeSet::new(),
            unannounced: 0,
            ready: Lines::default(),
            numbered: 0,
            errands,
            jobs: Workers::new("mesh-compute", AT_ONCE),
            rung: false,
        })
    }

    /// The poll, to add descriptors of one's own.
    pub(crate) fn poll(&self) -> &Poll {
        &self.poll
    }

    /// What wakes this machine's thread.
    pub(crate) fn wakeup(&self) -> &Arc<Wakeup> {
        &self.wakeup
    }

    /// Where workers hand in what is to be done with the room.
    pub(crate) fn errands(&self) -> flume::Sender<Errand<R>> {
        self.errands.clone()
    }

    // --- doors of the control room ---

    pub(crate) fn ring(&mut self) {
        self.rung = true;
    }

    /// A turn was taken: it has seen all that was rung for.
    pub(crate) fn answered(&mut self) {
        self.rung = false;
    }

    pub(crate) fn wake(&mut self, conn: ConnId) {
        if let Some(entry) = self.conns.get_mut(&conn)
            && entry.write.ready
            && !core::mem::replace(&mut entry.write.listed, true)
        {
            self.to_write.push_back(conn);
        }
    }

    pub(crate) fn hang_up(&mut self, conn: ConnId) {
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.deaf = true;
        }
    }

    pub(crate) fn close(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    pub(crate) fn close_listeners(&mut self) {
        self.listeners.clear();
    }

    pub(crate) fn compute(&mut self, job: Job, crypto: Arc<dyn Provider>) {
        let errands = self.errands();
        self.jobs.run(move || {
            let done = job.run(&*crypto);
            // A machine that has ended needs no results.
            let _ = errands.send(Box::new(move |room: &mut R| room.computed(done)));
        });
    }

    /// Takes connections from a listener that does not block.
    pub(crate) fn listen(&mut self, socket: TcpListener, config: Arc<ServerConfig>, bounds: Bounds) -> io::Result<()> {
        let number = self.numbered;
        self.numbered += 1;
        self.poll.watch(&socket, Token::Listener(number))?;
        self.listeners.push(Listener { socket, number, config, slots: Slots::new(bounds), readable: true, paused: None });
        Ok(())
    }

    /// Other bounds for handshakes of connections that come in.
    pub(crate) fn configure(&self, bounds: Bounds) {
        for listener in &self.listeners {
            listener.slots.configure(bounds);
        }
    }

    /// Begins to carry a connection.
    pub(crate) fn attach(&mut self, conn: ConnId, socket: Socket) -> Result<(), Ended> {
        self.poll.watch(&socket.1, Token::Conn(conn)).map_err(|why| tls::ended(&why))?;
        self.conns.insert(conn, Conn::new(socket));
        self.to_read.push_back(conn);
        self.to_write.push_back(conn);
        Ok(())
    }

    // --- waiting ---

    /// Waits until something is ready, but not at all when there is work already. `busy`: what could be read has to wait.
    pub(crate) fn wait(&mut self, busy: bool, sleep: Duration, mut other: impl FnMut(Ready)) -> io::Result<()> {
        let reads = !busy && !self.to_read.is_empty();
        let accepts = self.listeners.iter().any(|listener| listener.readable && listener.paused.is_none());
        let works = core::mem::take(&mut self.rung) || reads || accepts || !self.to_write.is_empty() || !self.ready.is_empty();
        let timeout = if works { Duration::ZERO } else { self.deadline().map_or(sleep, |at| at.since(clock::now()).min(sleep)) };
        self.poll.wait(timeout)?;
        for ready in self.poll.ready() {
            match ready.token {
                Token::Conn(conn) => {
                    let Some(entry) = self.conns.get_mut(&conn) else { continue };
                    entry.write.ready |= ready.writable;
                    if ready.readable && !entry.deaf && !core::mem::replace(&mut entry.to_read, true) {
                        self.to_read.push_back(conn);
                    }
                    if ready.writable && !core::mem::replace(&mut entry.write.listed, true) {
                        self.to_write.push_back(conn);
                    }
                }
                Token::Handshake(number) => {
                    let standing = self.handshakes.get(&number).map_or(Standing::Stranger, |arriving| arriving.standing);
                    self.ready.push(standing, number);
                }
                Token::Listener(number) => {
                    if let Some(listener) = self.listeners.iter_mut().find(|listener| listener.number == number) {
                        listener.readable = true;
                    }
                }
                Token::Interface | Token::Bell | Token::Datagrams(_) => other(ready),
            }
        }
        Ok(())
    }

    /// When a handshake or a pause is over.
    fn deadline(&self) -> Option<Instant> {
        let pauses = self.listeners.iter().filter_map(|listener| listener.paused);
        pauses.chain(self.overdue.first().map(|(at, _)| *at)).min()
    }

    /// The next handshake that has come to an end one way or the other, after at most so many steps.
    fn next_arrival(&mut self, now: Instant, steps: &mut usize) -> Option<(Arriving, Outcome)> {
        while *steps > 0 {
            let Some(number) = self.ready.pop() else { break };
            let Some(arriving) = self.handshakes.get_mut(&number) else { continue };
            let step = arriving.stage.step();
            *steps = if clock::now().since(now) < STEPS_TIME { *steps - 1 } else { 0 };
            if let Some(outcome) = step {
                return self.over(number, outcome);
            }
        }
        let (_, number) = self.overdue.first().copied().filter(|(until, _)| *until <= now)?;
        self.over(number, Err(Ended::TimedOut))
    }

    fn over(&mut self, number: u64, outcome: Outcome) -> Option<(Arriving, Outcome)> {
        let arriving = self.handshakes.remove(&number)?;
        self.overdue.remove(&(arriving.until, number));
        self.unannounced -= usize::from(matches!(arriving.stage, Stage::Announcement { .. }));
        Some((arriving, outcome))
    }
}

/// Takes what the listeners have, and goes on with handshakes.
pub(crate) fn arrivals<R: Driven>(room: &mut R) {
    let now = clock::now();
    for at in 0..room.pumps().listeners.len() {
        accept(room, at, now);
    }
    // accepting took its own time
    let (mut steps, now) = (TURN_STEPS, clock::now());
    while let Some((arriving, outcome)) = room.pumps().next_arrival(now, &mut steps) {
        let Arriving { stage, remote, since, until, .. } = arriving;
        match (stage, outcome) {
            (Stage::Announcement { tcp, config, slots, .. }, Ok(Came::Announced(heard))) => {
                let remote = heard.from.unwrap_or(remote);
                let newcomer = Newcomer { tcp, ahead: ReadAhead::of_handshake_after(heard.rest), remote, since, until };
                begin(room, newcomer, &slots, config);
            }
            (Stage::Announcement { .. }, Err(why)) => room.misannounced(remote, why),
            (Stage::Handshake { handshake, .. }, outcome) => {
                let conn = room.number();
                let attached = match outcome {
                    Ok(Came::Whole(socket, exporter)) => room.pumps().attach(conn, *socket).map(|()| exporter),
                    Ok(Came::Announced(_)) => Err(Ended::Local("announced in its handshake".to_owned())),
                    Err(why) => Err(why),
                };
                match attached {
                    Ok(exporter) => room.accepted(clock::now(), conn, Arrival { exporter, local: handshake.local, remote, since }),
                    Err(why) => room.released(remote, why),
                }
            }
            (Stage::Announcement { .. }, Ok(Came::Whole(..))) => {}
        }
    }
}

/// Takes connections from one listener, up to a number.
fn accept<R: Driven>(room: &mut R, at: usize, now: Instant) {
    for _ in 0..TURN_ACCEPTS {
        let Some(listener) = room.pumps().listeners.get_mut(at) else { return };
        if !listener.readable || listener.paused.is_some_and(|until| until > now) {
            return;
        }
        listener.paused = None;
        let (tcp, remote) = match listener.socket.accept() {
            Ok((tcp, remote)) => (tcp, canonical(remote)),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                listener.readable = false;
                return;
            }
            Err(why) if is_one_connections_fault(&why) => continue,
            Err(why) => {
                tracing::warn!(%why, "cannot take connections");
                listener.paused = Some(now + ACCEPT_PAUSE);
                return;
            }
        };
        let (config, slots, time) = (Arc::clone(&listener.config), listener.slots.clone(), listener.slots.time());
        let newcomer = Newcomer { tcp, ahead: ReadAhead::of_handshake(), remote, since: now, until: now + time };
        if !room.announces(remote) {
            begin(room, newcomer, &slots, config);
        } else if let Err(why) = room.pumps().hear(newcomer, slots, config) {
            room.misannounced(remote, why);
        }
    }
}

/// A connection of which it is known from where it comes.
struct Newcomer {
    tcp: TcpStream,
    ahead: ReadAhead,
    remote: SocketAddr,
    since: Instant,
    until: Instant,
}

/// Begins its handshake, if there is a place.
fn begin<R: Driven>(room: &mut R, newcomer: Newcomer, slots: &Slots, config: Arc<ServerConfig>) {
    let (remote, since) = (newcomer.remote, newcomer.since);
    let slot = match admit(room, slots, since, remote) {
        Err(Refusal::Full) if give_way(room) => admit(room, slots, since, remote),
        other => other,
    };
    match slot.map(|(slot, standing)| room.pumps().begin(newcomer, standing, config, slot)) {
        Ok(Ok(())) => {}
        Ok(Err(why)) => room.released(remote, why),
        Err(why) => tracing::debug!(%remote, ?why, "refused"),
    }
}

/// A place for a connection from here, and how its source stands.
fn admit<R: Driven>(room: &mut R, slots: &Slots, now: Instant, remote: SocketAddr) -> Result<(Slot, Standing), Refusal> {
    let standing = room.admit(now, remote)?;
    let slot = slots.take(remote.ip()).inspect_err(|_| room.released(remote, Ended::Local("no place".to_owned())))?;
    Ok((slot, standing))
}

/// All places are taken: the handshake that has had one for longest goes, a stranger's first, so that whoever is quick finds one. False:
/// there is none.
fn give_way<R: Driven>(room: &mut R) -> bool {
    let pumps = room.pumps();
    let oldest = |of: Standing| {
        let of = |number: &u64| matches!(pumps.handshakes.get(number), Some(Arriving { stage: Stage::Handshake { .. }, standing, .. }) if *standing == of);
        pumps.overdue.iter().map(|(_, number)| *number).find(of)
    };
    let oldest = oldest(Standing::Stranger).or_else(|| oldest(Standing::Known));
    let over = oldest.and_then(|number| pumps.over(number, Err(Ended::TimedOut)));
    if let Some((arriving, _)) = &over {
        room.released(arriving.remote, Ended::Local("gave way to another".to_owned()));
    }
    over.is_some()
}

impl<R: Driven> Pumps<R> {
    fn begin(&mut self, newcomer: Newcomer, standing: Standing, config: Arc<ServerConfig>, slot: Slot) -> Result<(), Ended> {
        let Newcomer { tcp, ahead, remote, since, until } = newcomer;
        let number = self.watch(&tcp)?;
        let stage = Stage::Handshake { handshake: Box::new(Accepting::server(tcp, ahead, config)?), slot };
        self.handshakes.insert(number, Arriving { stage, standing, remote, since, until });
        self.overdue.insert((until, number));
        Ok(())
    }

    /// Waits for what its proxy says; as many at once as there may be handshakes.
    fn hear(&mut self, newcomer: Newcomer, slots: Slots, config: Arc<ServerConfig>) -> Result<(), Ended> {
        let Newcomer { tcp, remote, since, until, .. } = newcomer;
        if self.unannounced >= slots.most() {
            return Err(Ended::Proxy("too many connections of proxies have not said from where they come".to_owned()));
        }
        let number = self.watch(&tcp)?;
        let stage = Stage::Announcement { tcp, announcement: Announcement::default(), config, slots };
        self.handshakes.insert(number, Arriving { stage, standing: Standing::Stranger, remote, since, until });
        self.overdue.insert((until, number));
        self.unannounced += 1;
        Ok(())
    }

    /// A number for one that is not there yet.
    fn watch(&mut self, tcp: &TcpStream) -> Result<u64, Ended> {
        tcp.set_nonblocking(true).map_err(|why| tls::ended(&why))?;
        let number = self.numbered;
        self.numbered += 1;
        self.poll.watch(tcp, Token::Handshake(number)).map_err(|why| tls::ended(&why))?;
        Ok(number)
    }
}

/// Hands messages to the room, up to a number of each connection that has some; none while the control room is behind.
pub(crate) fn read<R: Driven>(room: &mut R) {
    for _ in 0..room.pumps().to_read.len() {
        if room.is_busy() {
            return; // the senders wait in their sockets
        }
        let Some(conn) = room.pumps().to_read.pop_front() else { return };
        // A message may cost several turns: then it is read on when these are over.
        let owed = room.pumps().conns.get_mut(&conn).map_or(0, |entry| core::mem::take(&mut entry.owed));
        let (mut more, mut cost) = (true, owed);
        while cost < TURN_MESSAGES {
            let Some(entry) = room.pumps().conns.get_mut(&conn).filter(|entry| !entry.deaf) else {
                more = false;
                break;
            };
            match entry.read() {
                Ok(channel::Came::Message(mut message)) => cost += room.message(clock::now(), conn, &mut message),
                Ok(channel::Came::Later) => break,
                Ok(channel::Came::Nothing) => {
                    more = false;
                    break;
                }
                Err(why) => {
                    room.closed(conn, why);
                    more = false;
                    break;
                }
            }
            if room.is_busy() {
                break;
            }
        }
        room.messages_over();
        if let Some(entry) = room.pumps().conns.get_mut(&conn) {
            entry.to_read = more;
            entry.owed = cost.saturating_sub(TURN_MESSAGES);
            if more {
                room.pumps().to_read.push_back(conn);
            }
        }
    }
}

/// Sends what waits, up to a number of messages of each connection that has some.
pub(crate) fn write<R: Driven>(room: &mut R) {
    for _ in 0..room.pumps().to_write.len() {
        let Some(conn) = room.pumps().to_write.pop_front() else { return };
        let Some(entry) = room.pumps().conns.get_mut(&conn) else { continue };
        entry.write.listed = false;
        match write_some(room, conn) {
            Ok(true) => room.pumps().wake(conn),
            Ok(false) => {}
            Err(why) => room.closed(conn, why),
        }
    }
}

/// Sends what waits for one connection; true when there may be more for which the kernel may have room.
fn write_some<R: Driven>(room: &mut R, conn: ConnId) -> Result<bool, Ended> {
    for _ in 0..TURN_MESSAGES {
        let Some(entry) = room.pumps().conns.get_mut(&conn) else { return Ok(false) };
        let next = if entry.is_full() { Next::Wait } else { room.next(clock::now(), conn) };
        let Some(entry) = room.pumps().conns.get_mut(&conn) else { return Ok(false) };
        match next {
            Next::Send(message) => {
                entry.send(message)?;
                continue;
            }
            Next::Close => entry.say_goodbye()?,
            Next::Wait => {}
        }
        match entry.flush()? {
            Flushed::Blocked | Flushed::Nothing => return Ok(false),
            Flushed::Goodbye => return Err(Ended::ByPeer),
            Flushed::Messages(len) => room.sent(clock::now(), conn, len),
        }
    }
    Ok(true)
}
