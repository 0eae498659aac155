//! The relay's data plane: records in, records out, in bounded and fair queues (protocol 9.1, 9.2, 9.4).
//!
//! Only the eight bytes of a record's header are read, and the first byte behind them to tell handshakes from the rest.
//! Records of one pair are never reordered among those of the same urgency. No I/O, no clock.
use super::{
    Cost, Edit, ForwardEdit, ForwardSink,
    drops::{Drops, Reason},
    passage::{Passage, Places},
    queue::{Bound, Pushed, Queue, Spares},
    share::{Share, Shared},
    status::{ForwardStats, PortStatus, QueueTimes},
};
use crate::{
    bound,
    bucket::{Bucket, Rate},
    config::Limits,
    id::{ConnId, Handle},
    machine::Deadline,
    time::{Duration, Instant},
    wire::{
        RECORD_FLAG_URGENT, RECORD_HEADER_LEN, Record, Records, TYPE_DLV, TYPE_FIN, TYPE_FWD, TYPE_INIT, TYPE_PATH_CMP, TYPE_PATH_REQ,
        TYPE_PATH_RSP, TYPE_RESP, record_header,
    },
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One WebSocket message to a client holds at most so many bytes of records, so that urgent ones need not wait for more.
pub const MESSAGE_BYTES: usize = 16 * 1024;
/// Control messages that may wait for one client, in bytes: a whole directory and its changes. Who lets more pile up is hung up.
const CONTROL_QUEUE_BYTES: usize = 512 * 1024;
/// Messages of one client to the relay itself: a lookup for each of some hundred peers at once, and ten times what a client needs.
const CONTROL: Rate = Rate { per_second: 64, burst: 512 };
/// Urgent records a second that one client may send: the handshakes and punches of 32 peers. Others go with the rest.
const URGENT: Rate = Rate { per_second: 128, burst: 512 };
/// The least that a client's byte and record limits allow at once.
const LEAST_BURST_BYTES: u64 = 64 * 1024;
const LEAST_BURST_FRAMES: u64 = 64;

/// The relay's data plane.
pub struct Forwarder {
    pub(super) frame_bytes: usize,
    control_bytes: usize,
    total_bytes: usize,
    control_total_bytes: usize,
    stall_time: Duration,
    bound: Bound,
    rates: Rates,
    ports: Vec<Option<Port>>,
    free: Vec<usize>,
    pub(super) conns: BTreeMap<ConnId, usize>,
    pub(super) handles: BTreeMap<Handle, usize>,
    /// Whose datagrams come from where.
    pub(super) places: Places,
    /// When a client that takes nothing will be hung up.
    stalls: BTreeSet<(Instant, ConnId)>,
    spares: Spares,
    pub(super) drops: Drops,
    pub(super) totals: Totals,
    times: QueueTimes,
    queued_bytes: usize,
    queued_control_bytes: usize,
    pub(super) forwarded_at: Instant,
}

struct Rates {
    handshakes: Rate,
    frames: Rate,
    bytes: Rate,
    /// Of all clients together.
    all_frames: Shared,
    all_bytes: Shared,
}

#[derive(Default)]
pub(super) struct Totals {
    rx_frames: u64,
    rx_bytes: u64,
    pub(super) tx_frames: u64,
    pub(super) tx_bytes: u64,
}

/// One connection: where its client may send, and what waits for it.
pub(super) struct Port {
    conn: ConnId,
    pub(super) member: Option<Member>,
    control: VecDeque<Vec<u8>>,
    control_bytes: usize,
    queue: Queue,
    /// When the client will count as stalled: set when a full queue costs it a record, cleared when it takes something.
    stalls_at: Option<Instant>,
    frames: Bucket,
    bytes: Bucket,
    all_frames: Share,
    all_bytes: Share,
    messages: Bucket,
    handshakes: Bucket,
    urgent: Bucket,
    /// Where it is by UDP, and who is meant by what it sends there.
    pub(super) passage: Option<Box<Passage>>,
    pub(super) status: PortStatus,
}

// An idle client costs its port, its session and its timers: far below 64 KiB (protocol 9).
const _: () = assert!(size_of::<Port>() <= 768);

#[derive(Clone, Copy)]
pub(super) struct Member {
    handle: Handle,
    pub(super) network: u32,
}

/// Records a second; a quarter of them at once.
fn frames_rate(per_second: u64) -> Rate {
    Rate { per_second, burst: LEAST_BURST_FRAMES.max(per_second / 4) }
}

/// The same for bytes.
fn bytes_rate(per_second: u64) -> Rate {
    Rate { per_second, burst: LEAST_BURST_BYTES.max(per_second / 4) }
}

impl Forwarder {
    /// A forwarder without connections.
    pub fn new(limits: &Limits) -> Self {
        Self {
            frame_bytes: limits.frame_bytes,
            control_bytes: limits.control_bytes,
            total_bytes: limits.queue_total_bytes,
            control_total_bytes: limits.control_total_bytes(),
            stall_time: limits.stall_time,
            bound: Bound { frames: limits.queue_frames, bytes: limits.queue_bytes },
            rates: Rates {
                handshakes: Rate { per_second: limits.handshakes_per_second.into(), burst: limits.handshake_burst.into() },
                frames: frames_rate(limits.client_frames_per_second),
                bytes: bytes_rate(limits.client_bytes_per_second),
                all_frames: Shared::new(frames_rate(limits.frames_per_second)),
                all_bytes: Shared::new(bytes_rate(limits.bytes_per_second)),
            },
            ports: Vec::new(),
            free: Vec::new(),
            conns: BTreeMap::new(),
            handles: BTreeMap::new(),
            places: Places::default(),
            stalls: BTreeSet::new(),
            spares: Spares::default(),
            drops: Drops::default(),
            totals: Totals::default(),
            times: QueueTimes::default(),
            queued_bytes: 0,
            queued_control_bytes: 0,
            forwarded_at: Instant::ZERO,
        }
    }

    /// Other limits from now on, as `Hub::limits` has them; what waits already stays.
    pub fn configure(&mut self, limits: &Limits) {
        self.control_bytes = limits.control_bytes;
        self.total_bytes = limits.queue_total_bytes;
        self.control_total_bytes = limits.control_total_bytes();
        self.stall_time = limits.stall_time;
        self.bound.bytes = limits.queue_bytes;
        self.rates.handshakes = Rate { per_second: limits.handshakes_per_second.into(), burst: limits.handshake_burst.into() };
        self.rates.frames = frames_rate(limits.client_frames_per_second);
        self.rates.bytes = bytes_rate(limits.client_bytes_per_second);
        self.rates.all_frames.configure(frames_rate(limits.frames_per_second));
        self.rates.all_bytes.configure(bytes_rate(limits.bytes_per_second));
    }

    /// When a record came last that was queued for somebody.
    pub fn forwarded_at(&self) -> Instant {
        self.forwarded_at
    }

    /// Each queue of this forwarder with its bound: for tests and for the curious, never for decisions.
    pub fn bounds(&self, each: &mut dyn FnMut(bound::Bound)) {
        each(bound::Bound::new("bytes that wait for all clients", self.queued_bytes, self.total_bytes));
        each(bound::Bound::new("bytes of control messages that wait for all clients", self.queued_control_bytes, self.control_total_bytes));
        for port in self.ports.iter().flatten() {
            each(bound::Bound::new("bytes of control messages that wait for a client", port.control_bytes, CONTROL_QUEUE_BYTES));
            port.queue.bounds(self.bound, each);
            if let Some(passage) = &port.passage {
                passage.bounds(each);
            }
        }
    }

    /// Applies what the hub ordered; in order with `control`.
    #[expect(clippy::needless_pass_by_value, reason = "an edit is applied once")]
    pub fn apply(&mut self, _now: Instant, edit: ForwardEdit) {
        match edit.0 {
            Edit::Open { conn } => self.open(conn),
            Edit::Join { conn, handle, network } => {
                if let Some(at) = self.conns.get(&conn).copied() {
                    self.handles.insert(handle, at);
                    self.port_mut(at).member = Some(Member { handle, network });
                }
            }
            Edit::Part { conn } => {
                if let Some(at) = self.conns.get(&conn).copied() {
                    self.part(at);
                }
            }
            Edit::Attach { conn, address } => self.attach(conn, address),
            Edit::Route { conn, receiver, to } => self.route(conn, receiver, to),
            Edit::Close { conn } => {
                if let Some(at) = self.conns.remove(&conn) {
                    self.part(at);
                    self.queued_control_bytes -= self.port(at).control_bytes;
                    self.ports[at] = None;
                    self.free.push(at);
                }
            }
        }
    }

    /// One WebSocket message that came on `conn`, and what it cost.
    pub fn inbound(&mut self, now: Instant, conn: ConnId, message: &mut [u8], sink: &mut impl ForwardSink) -> Cost {
        let Some(at) = self.conns.get(&conn).copied() else { return Cost::default() };
        let Some(member) = self.port(at).member else {
            // Not established yet: the hub counts its bytes.
            sink.punt(conn, message);
            return Cost { records: 0, ends_turn: true };
        };
        match message.first() {
            Some(&TYPE_FWD | &TYPE_DLV) => return self.records(now, at, member, message, sink),
            None => self.drops.count(Reason::MalformedRecord),
            Some(_) if message.len() > self.control_bytes => self.drops.count(Reason::ControlTooBig),
            // Here and not in the hub: what is refused takes no place in the line before it.
            Some(_) if !self.port_mut(at).messages.take(now, 1, CONTROL) => self.drops.count(Reason::ControlRate),
            Some(_) => {
                sink.punt(conn, message);
                return Cost::default();
            }
        }
        Cost { records: 0, ends_turn: true }
    }

    /// Queues one message of the hub; the caller wakes the writer.
    pub fn control(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let Some(at) = self.conns.get(&conn).copied() else { return };
        let is_full = self.queued_control_bytes + bytes.len() > self.control_total_bytes;
        let port = self.port_mut(at);
        if is_full || port.control_bytes + bytes.len() > CONTROL_QUEUE_BYTES {
            // protocol 9.4: a client that does not read is hung up at the next alarm, which is due now.
            let old = port.stalls_at.replace(Instant::ZERO);
            self.stalls.extend([(Instant::ZERO, conn)]);
            if let Some(old) = old.filter(|old| *old != Instant::ZERO) {
                self.stalls.remove(&(old, conn));
            }
            return self.drops.count(Reason::ControlQueueFull);
        }
        port.control_bytes += bytes.len();
        self.queued_control_bytes += bytes.len();
        self.port_mut(at).control.push_back(bytes);
    }

    /// Makes `out` the next WebSocket message for `conn`: control, then urgent records, then the rest in turn. False: nothing waits.
    pub fn next_message(&mut self, now: Instant, conn: ConnId, out: &mut Vec<u8>) -> bool {
        out.clear();
        let Some(at) = self.conns.get(&conn).copied() else { return false };
        let Some(port) = self.ports[at].as_mut() else { return false };
        if let Some(bytes) = port.control.pop_front() {
            port.control_bytes -= bytes.len();
            self.queued_control_bytes -= bytes.len();
            *out = bytes;
        } else {
            let count = port.queue.pull(now, out, MESSAGE_BYTES, &mut self.times, &mut self.spares);
            let bytes = out.len() as u64 - count * RECORD_HEADER_LEN as u64;
            port.status.tx_frames += count;
            port.status.tx_bytes += bytes;
            self.totals.tx_frames += count;
            self.totals.tx_bytes += bytes;
            self.queued_bytes -= out.len();
        }
        if out.is_empty() {
            return false;
        }
        if let Some(stalls_at) = port.stalls_at.take() {
            self.stalls.remove(&(stalls_at, conn));
        }
        true
    }

    /// When a stalled client is to be hung up.
    pub fn deadline(&self) -> Option<Deadline> {
        self.stalls.first().map(|(at, _)| Deadline { at: *at, why: "stalled consumer" })
    }

    /// Clients that stalled (protocol 9.4): the driver closes their connections and tells the hub.
    pub fn alarm(&mut self, now: Instant) -> Vec<ConnId> {
        let mut stalled = Vec::new();
        while let Some((at, conn)) = self.stalls.first().copied().filter(|(at, _)| *at <= now) {
            self.stalls.remove(&(at, conn));
            self.drops.count(Reason::Stalled);
            stalled.push(conn);
        }
        stalled
    }

    /// Totals and every connection, sorted.
    pub fn stats(&self) -> ForwardStats {
        let port_status = |at: &usize| {
            let port = self.port(*at);
            PortStatus { queue_frames: port.queue.frames(), queue_bytes: port.queue.bytes(), ..port.status.clone() }
        };
        ForwardStats {
            rx_frames: self.totals.rx_frames,
            rx_bytes: self.totals.rx_bytes,
            tx_frames: self.totals.tx_frames,
            tx_bytes: self.totals.tx_bytes,
            queue_bytes: self.queued_bytes,
            queue_times: self.times.clone(),
            drops: self.drops.list(),
            ports: self.conns.values().map(port_status).collect(),
        }
    }

    fn open(&mut self, conn: ConnId) {
        let port = Port {
            conn,
            member: None,
            control: VecDeque::new(),
            control_bytes: 0,
            queue: Queue::default(),
            stalls_at: None,
            frames: Bucket::default(),
            bytes: Bucket::default(),
            all_frames: Share::default(),
            all_bytes: Share::default(),
            messages: Bucket::default(),
            handshakes: Bucket::default(),
            urgent: Bucket::default(),
            passage: None,
            status: PortStatus::idle(conn),
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.ports.push(None);
            self.ports.len() - 1
        });
        self.ports[at] = Some(port);
        self.conns.insert(conn, at);
    }

    /// Ends forwarding from and to a port; control messages still leave.
    fn part(&mut self, at: usize) {
        let port = self.ports[at].as_mut().expect("a port in a table exists");
        self.queued_bytes -= port.queue.bytes();
        self.drops.add(Reason::DestinationGone, port.queue.clear());
        if let Some(member) = port.member.take() {
            self.handles.remove(&member.handle);
        }
        if let Some(passage) = port.passage.take() {
            self.places.leave(at, &passage);
        }
        if let Some(stalls_at) = port.stalls_at.take() {
            self.stalls.remove(&(stalls_at, port.conn));
        }
    }

    fn records(&mut self, now: Instant, from: usize, member: Member, message: &[u8], sink: &mut impl ForwardSink) -> Cost {
        // One wake for a run of records to the same client.
        let (mut woken, mut cost) = (None, Cost::default());
        for record in Records::new(message) {
            cost.records += 1;
            let Ok(record) = record else {
                self.drops.count(Reason::MalformedRecord);
                cost.ends_turn = true;
                break;
            };
            match self.record(now, from, member, record) {
                Ok(conn) => {
                    if woken != Some(conn) {
                        sink.wake(conn);
                        woken = Some(conn);
                    }
                }
                Err(reason) => {
                    self.drops.count(reason);
                    cost.ends_turn = true;
                }
            }
        }
        cost
    }

    /// Queues one record at its destination, whose connection it gives back.
    fn record(&mut self, now: Instant, from: usize, member: Member, record: Record<'_>) -> Result<ConnId, Reason> {
        if record.kind != TYPE_FWD {
            return Err(Reason::MalformedRecord);
        }
        let len = record.payload.len();
        if len > self.frame_bytes {
            return Err(Reason::FrameTooBig);
        }
        let urgent = self.admit(now, from, record)?;
        // protocol 2.3: FWD works only within one net_r; a handle of another network is as unknown as one that never was.
        let to = self.handles.get(&record.handle).copied().filter(|to| *to != from).ok_or(Reason::UnknownHandle)?;
        let port = self.ports[to].as_mut().expect("a port in a table exists");
        if port.member.is_none_or(|other| other.network != member.network) {
            return Err(Reason::UnknownHandle);
        }
        if self.queued_bytes + RECORD_HEADER_LEN + len > self.total_bytes {
            return Err(Reason::QueueMemory);
        }
        let conn = port.conn;
        let before = port.queue.bytes();
        // A queue may hold no more than what is left for others, so that however many take nothing, there is room for one that does.
        let left = self.total_bytes - self.queued_bytes;
        let bound = Bound { bytes: self.bound.bytes.min(left), ..self.bound };
        let full = if bound.bytes < self.bound.bytes { Reason::QueueMemory } else { Reason::QueueFull };
        let header = record_header(TYPE_DLV, if urgent { RECORD_FLAG_URGENT } else { 0 }, member.handle, len as u16);
        let pushed = if urgent {
            port.queue.push_urgent(now, member.handle, header, record.payload)
        } else {
            port.queue.push(now, member.handle, header, record.payload, bound, &mut self.spares)
        };
        self.queued_bytes = self.queued_bytes + port.queue.bytes() - before;
        self.forwarded_at = now;
        match pushed {
            Pushed::Queued => return Ok(conn),
            Pushed::Refused if urgent => return Err(Reason::UrgentFull),
            Pushed::Refused => self.drops.count(full),
            Pushed::Displaced(count) => self.drops.add(full, count),
        }
        self.note_full(now, to);
        Ok(conn)
    }

    /// Counts a record against its source's limits; whether it may go first.
    fn admit(&mut self, now: Instant, from: usize, record: Record<'_>) -> Result<bool, Reason> {
        self.charge(now, from, 1, record.payload.len() as u64)?;
        let handshakes = self.rates.handshakes;
        let port = self.port_mut(from);
        let kind = record.payload.first().copied().unwrap_or_default();
        // protocol 9.4: through a relay two handshakes a second and source.
        if kind == TYPE_INIT && !port.handshakes.take(now, 1, handshakes) {
            return Err(Reason::HandshakeRate);
        }
        let may_be_urgent = matches!(kind, TYPE_INIT | TYPE_RESP | TYPE_FIN | TYPE_PATH_REQ | TYPE_PATH_RSP | TYPE_PATH_CMP);
        Ok(record.flags & RECORD_FLAG_URGENT != 0 && may_be_urgent && port.urgent.take(now, 1, URGENT))
    }

    /// Counts what a client sends against its own limits and those of all.
    pub(super) fn charge(&mut self, now: Instant, from: usize, frames: u64, bytes: u64) -> Result<(), Reason> {
        let port = self.ports[from].as_mut().expect("a port in a table exists");
        port.status.rx_frames += frames;
        port.status.rx_bytes += bytes;
        self.totals.rx_frames += frames;
        self.totals.rx_bytes += bytes;
        if !port.frames.take(now, frames, self.rates.frames) {
            return Err(Reason::ClientFrameRate);
        }
        if !port.bytes.take(now, bytes, self.rates.bytes) {
            return Err(Reason::ClientByteRate);
        }
        if !self.rates.all_frames.take(now, &mut port.all_frames, frames) {
            return Err(Reason::RelayFrameRate);
        }
        if !self.rates.all_bytes.take(now, &mut port.all_bytes, bytes) {
            return Err(Reason::RelayByteRate);
        }
        Ok(())
    }

    /// The queue at `to` is full: unless the client takes something, it counts as stalled before long.
    fn note_full(&mut self, now: Instant, to: usize) {
        let stalls_at = now + self.stall_time;
        let port = self.port_mut(to);
        if port.stalls_at.is_none() {
            port.stalls_at = Some(stalls_at);
            let conn = port.conn;
            self.stalls.insert((stalls_at, conn));
        }
    }

    pub(super) fn port(&self, at: usize) -> &Port {
        self.ports[at].as_ref().expect("a port in a table exists")
    }

    pub(super) fn port_mut(&mut self, at: usize) -> &mut Port {
        self.ports[at].as_mut().expect("a port in a table exists")
    }
}
