//! One lane: a loop that takes orders, packets, datagrams and alarms, each to its end, and sleeps when there is none.
use super::{
    Counted, Mailbox, Order, Word,
    mail::{Letters, Mouth},
    ports::LanePorts,
};
use crate::{
    clock,
    peer::{Direction, Inside, Number, flows::FAMILIES},
    room::{LONGEST_SLEEP, TURN_PACKETS},
    threads::poll::{Poll, Token, Wakeup},
    tun::Device,
    udp::RunBuffer,
};
use core::time::Duration;
use shadowmesh_core::{id::ConnId, plane::Plane, time::Instant};
use std::{collections::BTreeSet, io, net::UdpSocket, os::fd::OwnedFd, sync::Arc, thread};

/// After the first packet since the last time, counters are told within so long.
const COUNTED_WITHIN: Duration = Duration::from_secs(1);
/// How often it is tried to send what has no route.
const ROUTE_INTERVAL: Duration = Duration::from_millis(10);

/// What a lane's thread begins with.
pub(super) struct Seat {
    plane: Plane,
    queue: Device,
    letters: Letters,
    epoll: OwnedFd,
    wakeup: Arc<Wakeup>,
}

/// A lane that nobody runs yet, and its mailbox.
pub(super) fn seat(plane: Plane, queue: Device) -> io::Result<(Mailbox, Seat)> {
    let poll = Poll::new()?;
    let wakeup = Wakeup::new(&poll)?;
    poll.watch(&queue, Token::Interface)?;
    let (mailbox, letters) = Mailbox::new(Arc::clone(&wakeup));
    Ok((mailbox, Seat { plane, queue, letters, epoll: poll.suspend(), wakeup }))
}

impl Seat {
    /// Runs the lane to its end; the control room hears of one that it did not order.
    pub(super) fn run(self, number: u8, others: Vec<Mailbox>, mouth: Mouth) {
        let Self { plane, queue, letters, epoll, wakeup } = self;
        let _farewell = Farewell { number, mouth: mouth.clone() };
        let buffer = vec![0; queue.buffer_len()];
        let mut lane = Lane {
            plane,
            ports: LanePorts::new(number, queue, others, mouth),
            letters,
            poll: Poll::resume(epoll),
            wakeup,
            inside: None,
            buffer,
            arrivals: Some(RunBuffer::default()),
            interface: true,
            ended: false,
            readable: BTreeSet::new(),
            count_at: None,
            route_at: Instant::ZERO,
        };
        if let Err(why) = lane.run() {
            lane.ports.say(Word::Gone(why));
        }
    }
}

/// Tells that a lane has panicked.
struct Farewell {
    number: u8,
    mouth: Mouth,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if thread::panicking() {
            self.mouth.say(self.number, Word::Gone(format!("the thread of lane {} panicked", self.number)));
        }
    }
}

struct Lane {
    plane: Plane,
    ports: LanePorts,
    letters: Letters,
    poll: Poll,
    wakeup: Arc<Wakeup>,
    inside: Option<Inside>,
    buffer: Vec<u8>,
    /// Where datagrams are read into; taken while they are looked at.
    arrivals: Option<RunBuffer>,
    /// The queue of the interface may have packets.
    interface: bool,
    /// It was ordered to end.
    ended: bool,
    /// Sockets that may have datagrams.
    readable: BTreeSet<u32>,
    /// When counters are due, if anything moved.
    count_at: Option<Instant>,
    route_at: Instant,
}

impl Lane {
    fn run(&mut self) -> Result<(), String> {
        loop {
            self.ports.flows.gather();
            self.obey();
            if self.ended {
                return Ok(());
            }
            let now = clock::now();
            self.alarms(now);
            let more = self.packets()? | self.all_datagrams();
            self.ports.release();
            let sleep = if more || !self.letters.is_empty() { Duration::ZERO } else { self.deadline(now).since(clock::now()) };
            self.poll.wait(sleep).map_err(|why| format!("cannot wait for the network: {why}"))?;
            let (mut rung, mut roomy) = (false, Vec::new());
            for ready in self.poll.ready() {
                match ready.token {
                    Token::Interface => self.interface = true,
                    Token::Datagrams(number) => {
                        // the control room reads those of one flow
                        if number < FAMILIES {
                            self.readable.insert(number);
                        }
                        roomy.extend(ready.writable.then_some(number));
                    }
                    Token::Bell => rung = true,
                    Token::Conn(_) | Token::Handshake(_) | Token::Listener(_) => {}
                }
            }
            if rung {
                self.wakeup.answer();
            }
            for number in roomy {
                if self.ports.flows.flush(number) {
                    self.room_again();
                }
            }
        }
    }

    /// Does what is ordered, all of it.
    fn obey(&mut self) {
        while let Some((order, calm)) = self.letters.next() {
            let now = clock::now();
            match order {
                Order::Edit(edit) => self.plane.apply(now, edit, &mut self.ports),
                Order::Socket(number, socket) => {
                    self.watch(number, &socket);
                    self.readable.insert(number);
                    self.ports.flows.adopt(number, socket);
                }
                Order::Flow { conn, remote, own } => {
                    if let Some((number, socket)) = &own {
                        self.watch(*number, socket);
                    }
                    self.ports.flows.adopt_flow(conn, remote, own);
                }
                Order::EndFlow(conn) => {
                    self.ports.flows.remove(conn);
                }
                Order::Stream(conn, true) => {
                    self.ports.streams.insert(conn, 0);
                }
                Order::Stream(conn, false) => {
                    self.ports.streams.remove(&conn);
                }
                Order::Credit(conn, len) => {
                    if let Some(owed) = self.ports.streams.get_mut(&conn) {
                        *owed = owed.saturating_sub(len);
                    }
                    self.plane.writable(now, conn, &mut self.ports);
                }
                Order::Passed(mut what) => {
                    self.moved(now);
                    self.plane.passed(now, what.lend(), &mut self.ports);
                }
                Order::Capture(watcher) => {
                    // the control room has said whether there was room
                    self.ports.outlet.captures.add(watcher);
                }
                Order::Answer(inside) => self.inside = Some(inside),
                Order::End => self.ended = true,
            }
            if calm {
                self.ports.ring();
            }
        }
    }

    fn watch(&self, number: Number, socket: &UdpSocket) {
        if let Err(why) = self.poll.watch(socket, Token::Datagrams(number)) {
            tracing::warn!(%why, "datagrams cannot be waited for");
        }
    }

    fn alarms(&mut self, now: Instant) {
        if self.plane.deadline().is_some_and(|due| due.at <= now) {
            self.plane.alarm(now, &mut self.ports);
        }
        if self.ports.flows.is_stranded() && self.route_at <= now {
            self.route_at = now + ROUTE_INTERVAL;
            if self.ports.flows.try_again() {
                self.room_again();
            }
        }
        if self.count_at.is_some_and(|at| at <= now) {
            self.count_at = None;
            let mut counted = Counted { tally: self.plane.tally(), ..Counted::default() };
            counted.inside = self.inside.as_ref().map_or(0, Inside::dropped);
            self.ports.count(&mut counted);
            self.ports.say(Word::Counted(Box::new(counted)));
        }
    }

    fn deadline(&self, now: Instant) -> Instant {
        let route = self.ports.flows.is_stranded().then_some(self.route_at);
        let all = [self.plane.deadline().map(|due| due.at), self.count_at, route];
        all.into_iter().flatten().fold(now + LONGEST_SLEEP, Instant::min)
    }

    /// Something moves: that will be counted.
    fn moved(&mut self, now: Instant) {
        self.count_at.get_or_insert(now + COUNTED_WITHIN);
    }

    /// Takes packets from the interface, up to a number; true when there may be more.
    fn packets(&mut self) -> Result<bool, String> {
        let mut taken = 0;
        while self.interface && taken < TURN_PACKETS {
            match self.ports.device.read(&mut self.buffer) {
                Ok((offload, len)) => {
                    let (now, packet) = (clock::now(), &self.buffer[..len]);
                    self.count_at.get_or_insert(now + COUNTED_WITHIN);
                    self.ports.outlet.see(Direction::Out, offload, packet);
                    if self.inside.as_mut().is_some_and(|inside| inside.takes(packet)) {
                        taken += 1;
                    } else {
                        taken += self.plane.outbound_offloaded(now, offload, packet, &mut self.ports);
                    }
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => self.interface = false,
                Err(why) => return Err(format!("the interface {} is gone: {why}", self.ports.device.name())),
            }
        }
        Ok(self.interface)
    }

    /// Takes what sockets have, up to a number of each; true when there may be more.
    fn all_datagrams(&mut self) -> bool {
        let Some(mut arrivals) = self.arrivals.take() else { return false };
        for number in self.readable.iter().copied().collect::<Vec<_>>() {
            if !self.datagrams(number, &mut arrivals) {
                self.readable.remove(&number);
            }
        }
        self.arrivals = Some(arrivals);
        !self.readable.is_empty()
    }

    fn datagrams(&mut self, number: u32, arrivals: &mut RunBuffer) -> bool {
        let mut taken = 0;
        while taken < TURN_PACKETS {
            let (remote, datagrams) = match self.ports.flows.socket(number).map(|socket| arrivals.receive(socket)) {
                Some(Ok(Some(run))) => run,
                Some(Ok(None)) | None => return false,
                Some(Err(why)) => {
                    tracing::warn!(%why, "datagrams cannot be read for the moment");
                    return false;
                }
            };
            taken += datagrams.len().max(1);
            // the keys that open them were ordered before they were sent
            self.obey();
            let now = clock::now();
            self.moved(now);
            let Ok(flow) = self.ports.flows.of(number, remote) else { continue };
            self.plane.datagrams(now, flow, remote, datagrams, &mut self.ports);
        }
        true
    }

    /// Which flow does not matter: whatever waits for room looks for it anew.
    fn room_again(&mut self) {
        self.plane.writable(clock::now(), ConnId(0), &mut self.ports);
    }
}
