//! Lanes beyond the first: for each a thread that runs to completion, from its queue of the interface through its shard of the plane to its
//! UDP socket, and back (protocol 4.3).
//!
//! ```text
//!   control room, lane 0 ── Order: edits, flows, credit, what belongs to the lane ──▶ mailbox of each lane
//!                        ◀── Word: reports, punts, records for streams, counters ───── all lanes
//!   lane ── what belongs to another one ──▶ mailbox of that lane
//! ```
//! With one lane there is none of this. A lane takes its orders before it looks at what a socket gave it: a frame comes only after the keys
//! that open it were ordered, since the other end knew of them later.
mod mail;
mod outlet;
mod ports;
mod shard;
mod steering;

pub(super) use mail::{Mailbox, Order, OwnedPass, Word};
pub(super) use outlet::Outlet;

use super::{Inside, Number, capture::Watcher};
use crate::{StartError, tun::Device, udp};
use mail::Mouth;
use shadowmesh_core::{
    id::ConnId,
    plane::{Edit, Passed, Plane, PlaneConfig, Tally},
};
use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, UdpSocket},
    thread::{self, JoinHandle},
};
use steering::steer;

/// Words of lanes that are heard before others get their turn.
const TURN_WORDS: usize = 256;

/// What a lane has counted so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    pub(super) tally: Tally,
    pub(super) unwritten: u64,
    pub(super) unsent: u64,
    pub(super) unpassed: u64,
    pub(super) inside: u64,
}

/// The lanes beyond the first, as the control room has them. It ends their threads when it is dropped.
pub(super) struct Lanes {
    mailboxes: Vec<Mailbox>,
    words: flume::Receiver<(u8, Word)>,
    mouth: Mouth,
    threads: Vec<JoinHandle<()>>,
    counted: Vec<Counted>,
    /// Bytes of records that a connection has not taken yet, of each lane.
    owed: BTreeMap<ConnId, Vec<usize>>,
}

impl Lanes {
    /// Starts a thread for each further queue of the interface, and gives the first shard of the plane. `bell` has the control room call
    /// [`Lanes::next`].
    ///
    /// # Errors
    /// There can be no more threads, or descriptors.
    pub(super) fn start(config: &PlaneConfig, queues: Vec<Device>, bell: Box<dyn Fn() + Send + Sync>) -> Result<(Plane, Self), StartError> {
        let mut shards = Plane::shards(config, queues.len() as u8 + 1).into_iter();
        let first = shards.next().expect("a plane has at least one shard");
        let (mouth, words) = Mouth::new(bell);
        let mut lanes = Self {
            mailboxes: Vec::new(),
            words,
            mouth,
            threads: Vec::new(),
            counted: vec![Counted::default(); queues.len()],
            owed: BTreeMap::new(),
        };
        let unusable = |why: io::Error| StartError::new(format!("no thread for one more queue of the interface: {why}"));
        let mut seats = Vec::new();
        for (shard, queue) in shards.zip(queues) {
            let (mailbox, seat) = shard::seat(shard, queue).map_err(unusable)?;
            lanes.mailboxes.push(mailbox);
            seats.push(seat);
        }
        for (number, seat) in (1_u8..).zip(seats) {
            let (others, mouth) = (lanes.mailboxes.clone(), lanes.mouth.clone());
            let thread = thread::Builder::new().name(format!("mesh-lane-{number}"));
            lanes.threads.push(thread.spawn(move || seat.run(number, others, mouth)).map_err(unusable)?);
        }
        Ok((first, lanes))
    }

    /// Lanes that a session may have.
    pub(super) fn count(&self) -> u8 {
        self.mailboxes.len() as u8 + 1
    }

    /// Tells all lanes something.
    fn tell(&self, order: impl Fn() -> Order) {
        for mailbox in &self.mailboxes {
            mailbox.order(order());
        }
    }

    pub(super) fn edit(&self, edit: &Edit) {
        self.tell(|| Order::Edit(edit.clone()));
    }

    pub(super) fn capture(&self, watcher: &Watcher) {
        self.tell(|| Order::Capture(watcher.clone()));
    }

    pub(super) fn answer(&self, inside: &Inside) {
        self.tell(|| Order::Answer(inside.clone()));
    }

    /// Opens a socket beside this one, of each lane, and has the kernel choose among them by the lane of what comes.
    pub(super) fn open_beside(&self, number: Number, first: &UdpSocket) -> io::Result<()> {
        if self.mailboxes.is_empty() {
            return Ok(());
        }
        for mailbox in &self.mailboxes {
            mailbox.order(Order::Socket(number, udp::bind_beside(first)?));
        }
        steer(first, self.count())
    }

    /// A flow begins; a socket of its own serves all lanes.
    pub(super) fn flow(&self, conn: ConnId, remote: SocketAddr, own: Option<(Number, &UdpSocket)>) {
        for mailbox in &self.mailboxes {
            // A lane without it sends nothing there, as over a socket that could not be opened.
            match own.map(|(number, socket)| socket.try_clone().map(|socket| (number, socket))).transpose() {
                Ok(own) => mailbox.order(Order::Flow { conn, remote, own }),
                Err(why) => tracing::debug!(%why, "no descriptor for a flow of one more lane"),
            }
        }
    }

    pub(super) fn end_flow(&self, conn: ConnId) {
        self.tell(|| Order::EndFlow(conn));
    }

    /// A connection stands, or does so no longer.
    pub(super) fn stream(&mut self, conn: ConnId, stands: bool) {
        self.tell(|| Order::Stream(conn, stands));
        self.owed.remove(&conn);
    }

    /// Passes on to its lane what is not lane 0's.
    pub(super) fn pass(&mut self, lane: u8, what: Passed<'_>) {
        let Some(mailbox) = lane.checked_sub(1).and_then(|at| self.mailboxes.get(usize::from(at))) else { return };
        // what came over a stream is not dropped: its reader waits instead
        mailbox.pass(OwnedPass::of(what), usize::MAX);
    }

    /// Whether readers should wait for a lane.
    pub(super) fn is_busy(&self) -> bool {
        self.mailboxes.iter().any(Mailbox::is_busy)
    }

    /// Whether a lane has said something.
    pub(super) fn speak(&self) -> bool {
        !self.mailboxes.is_empty() && !self.words.is_empty()
    }

    /// What lanes have said; at most so much in one go.
    pub(super) fn hear(&self) -> Vec<(u8, Word)> {
        self.mouth.heard();
        let words: Vec<_> = self.words.try_iter().take(TURN_WORDS).inspect(|(_, word)| self.mouth.took(word)).collect();
        if words.len() == TURN_WORDS {
            self.mouth.ring();
        }
        words
    }

    pub(super) fn counted(&mut self, lane: u8, counted: Counted) {
        if let Some(place) = lane.checked_sub(1).and_then(|at| self.counted.get_mut(usize::from(at))) {
            *place = counted;
        }
    }

    /// What each lane said last.
    pub(super) fn counts(&self) -> &[Counted] {
        &self.counted
    }

    /// A record of a lane waits for a connection now.
    pub(super) fn owe(&mut self, conn: ConnId, lane: u8, len: usize) {
        let lanes = self.mailboxes.len();
        let owed = self.owed.entry(conn).or_insert_with(|| vec![0; lanes]);
        if let Some(owed) = lane.checked_sub(1).and_then(|at| owed.get_mut(usize::from(at))) {
            *owed += len;
        }
    }

    /// A connection takes more: lanes may give it as much again as they gave.
    pub(super) fn pay(&mut self, conn: ConnId) {
        for (mailbox, owed) in self.mailboxes.iter().zip(self.owed.remove(&conn).into_iter().flatten()) {
            if owed > 0 {
                mailbox.order(Order::Credit(conn, owed));
            }
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.tell(|| Order::End);
        for thread in self.threads.drain(..) {
            // Its panic was told when it happened.
            let _ = thread.join();
        }
    }
}
