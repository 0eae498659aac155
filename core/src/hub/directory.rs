//! Who is where: the members of each network, and what each of them still has to be told (protocol 6.6).
//!
//! ```text
//!   join, leave, change ─▶ changed ── 100 ms ─▶ broadcast ─┬─ member, page ─▶ one sealed DIRECTORY
//!                          (last state wins)               └─ networks take turns
//! ```
//! A broadcast reads a peer's state when it is sent, never when it changed: whoever is told late is told the truth.
use crate::{
    id::{ConnId, Handle, PeerId},
    machine::Deadline,
    time::{Duration, Instant},
    wire::{DirectoryEntry, MAX_DIRECTORY_ENTRIES},
};
use core::{
    net::SocketAddr,
    ops::Bound::{Excluded, Unbounded},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Changes are gathered for so long (protocol 6.6).
const MERGE_TIME: Duration = Duration::from_millis(100);
/// Above so many members entries are only told on LOOKUP: their changes would cost the square.
pub(super) const EAGER_MEMBERS: usize = 1_024;
/// More replacements of one identity than this, within this time, are two machines with one key (protocol 6.6).
const REPLACEMENTS: usize = 3;
const REPLACEMENT_TIME: Duration = Duration::from_mins(1);

/// What the directory knows of a connected member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) conn: ConnId,
    pub(super) handle: Handle,
    pub(super) observed: SocketAddr,
    pub(super) withhold: bool,
    pub(super) supports_direct: bool,
}

/// What became of a join.
pub(super) struct Joined {
    pub(super) handle: Handle,
    pub(super) network: u32,
    /// The older connection of the same identity.
    pub(super) replaced: Option<ConnId>,
    /// The identity replaced itself too often.
    pub(super) shared: bool,
}

/// All networks.
#[derive(Default)]
pub(super) struct Directory {
    numbers: BTreeMap<[u8; 32], u32>,
    networks: BTreeMap<u32, Network>,
    last_handle: u32,
    last_network: u32,
    /// Networks with gathered changes, by the instant at which they are due.
    gathering: BTreeSet<(Instant, u32)>,
    /// Networks whose broadcast is under way, in the order of their turns.
    turns: VecDeque<u32>,
}

struct Network {
    net_r: [u8; 32],
    members: BTreeMap<PeerId, Member>,
    replacements: BTreeMap<PeerId, VecDeque<Instant>>,
    /// Who changed since the last broadcast began, with the last handle.
    changed: BTreeMap<PeerId, Handle>,
    /// When these are due to be told; none while nothing changed or a broadcast is under way.
    due: Option<Instant>,
    /// When changes were told last.
    told_at: Option<Instant>,
    broadcast: Option<Broadcast>,
}

struct Broadcast {
    changed: Vec<(PeerId, Handle)>,
    page: usize,
    /// The member told last.
    told: Option<PeerId>,
}

impl Directory {
    /// Puts a member in; `None` when the relay has used up its handles.
    pub(super) fn join(&mut self, now: Instant, net_r: [u8; 32], peer: PeerId, mut member: Member) -> Option<Joined> {
        let handle = self.last_handle.checked_add(1)?;
        self.last_handle = handle;
        member.handle = Handle(handle);
        let number = self.number(net_r)?;
        let network = self.networks.get_mut(&number).expect("a numbered network exists");
        let replaced = network.members.insert(peer, member).map(|old| old.conn);
        let shared = replaced.is_some() && network.note_replacement(now, peer);
        self.note_change(now, number, peer, Handle(handle));
        Some(Joined { handle: Handle(handle), network: number, replaced, shared })
    }

    /// Takes a member out, unless a newer connection has its place.
    pub(super) fn leave(&mut self, now: Instant, number: u32, peer: PeerId, conn: ConnId) {
        let Some(network) = self.networks.get_mut(&number) else { return };
        if network.members.get(&peer).is_none_or(|member| member.conn != conn) {
            return;
        }
        let Some(member) = network.members.remove(&peer) else { return };
        if network.members.is_empty() {
            self.numbers.remove(&network.net_r);
            if let Some(due) = network.due {
                self.gathering.remove(&(due, number));
            }
            // A turn that is left over finds no network and passes.
            self.networks.remove(&number);
            return;
        }
        if network.members.len() == EAGER_MEMBERS {
            // Small enough again: what was not told while it was large is told now.
            let all: Vec<_> = network.members.iter().map(|(peer, member)| (*peer, member.handle)).collect();
            network.changed.extend(all);
        }
        self.note_change(now, number, peer, member.handle);
    }

    /// Changes what a member says of itself.
    pub(super) fn update(&mut self, now: Instant, number: u32, peer: PeerId, supports_direct: bool, withhold: bool) {
        let Some(member) = self.networks.get_mut(&number).and_then(|network| network.members.get_mut(&peer)) else { return };
        if (member.supports_direct, member.withhold) != (supports_direct, withhold) {
            (member.supports_direct, member.withhold) = (supports_direct, withhold);
            let handle = member.handle;
            self.note_change(now, number, peer, handle);
        }
    }

    /// What `peer` is told when it joins: all others in pages, or nothing where there are too many.
    pub(super) fn pages(&self, number: u32, peer: PeerId) -> Vec<Vec<DirectoryEntry>> {
        let Some(network) = self.networks.get(&number).filter(|network| network.members.len() <= EAGER_MEMBERS) else { return Vec::new() };
        let others: Vec<_> = network.members.iter().filter(|(id, _)| **id != peer).map(|(id, member)| member.entry(*id)).collect();
        others.chunks(MAX_DIRECTORY_ENTRIES).map(<[_]>::to_vec).collect()
    }

    /// The entry of one peer, offline when it is not in this network.
    pub(super) fn lookup(&self, number: u32, peer: PeerId) -> DirectoryEntry {
        let member = self.networks.get(&number).and_then(|network| network.members.get(&peer));
        member.map_or_else(|| offline(peer, Handle(0)), |member| member.entry(peer))
    }

    /// A member of the network that this relay knows as `net_r`.
    pub(super) fn find(&self, net_r: &[u8; 32], peer: PeerId) -> Option<&Member> {
        self.member(*self.numbers.get(net_r)?, peer)
    }

    /// What a member says of itself.
    pub(super) fn member(&self, number: u32, peer: PeerId) -> Option<&Member> {
        self.networks.get(&number)?.members.get(&peer)
    }

    /// The next DIRECTORY message that is due, and to whom.
    pub(super) fn poll(&mut self, now: Instant) -> Option<(ConnId, Vec<DirectoryEntry>)> {
        while let Some((at, number)) = self.gathering.first().copied().filter(|(at, _)| *at <= now) {
            self.gathering.remove(&(at, number));
            if let Some(network) = self.networks.get_mut(&number) {
                let changed = core::mem::take(&mut network.changed).into_iter().collect();
                network.due = None;
                // alone, nobody was told
                network.told_at = (network.members.len() > 1).then_some(now);
                network.broadcast = Some(Broadcast { changed, page: 0, told: None });
                self.turns.push_back(number);
            }
        }
        while let Some(number) = self.turns.pop_front() {
            let Some(network) = self.networks.get_mut(&number) else { continue };
            if let Some(message) = network.step() {
                self.turns.push_back(number);
                return Some(message);
            }
            network.broadcast = None;
            if !network.changed.is_empty() {
                network.due = Some(now + MERGE_TIME);
                self.gathering.insert((now + MERGE_TIME, number));
            }
        }
        None
    }

    /// When `poll` has something.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        if self.turns.is_empty() {
            self.gathering.first().map(|(at, _)| Deadline { at: *at, why: "directory changes" })
        } else {
            Some(Deadline { at: Instant::ZERO, why: "directory broadcast" })
        }
    }

    /// Networks with at least one member.
    pub(super) fn networks(&self) -> usize {
        self.networks.len()
    }

    fn number(&mut self, net_r: [u8; 32]) -> Option<u32> {
        if let Some(number) = self.numbers.get(&net_r) {
            return Some(*number);
        }
        let number = self.last_network.checked_add(1)?;
        self.last_network = number;
        self.numbers.insert(net_r, number);
        let network = Network {
            net_r,
            members: BTreeMap::new(),
            replacements: BTreeMap::new(),
            changed: BTreeMap::new(),
            due: None,
            told_at: None,
            broadcast: None,
        };
        self.networks.insert(number, network);
        Some(number)
    }

    fn note_change(&mut self, now: Instant, number: u32, peer: PeerId, handle: Handle) {
        let Some(network) = self.networks.get_mut(&number) else { return };
        if network.members.len() > EAGER_MEMBERS {
            return;
        }
        network.changed.insert(peer, handle);
        if network.broadcast.is_none() && network.due.is_none() {
            // the first change after a quiet time is told at once: who joins is greeted sooner
            let due = network.told_at.map_or(now, |at| now.max(at + MERGE_TIME));
            network.due = Some(due);
            self.gathering.insert((due, number));
        }
    }
}

impl Network {
    /// Whether this replacement is one too many.
    fn note_replacement(&mut self, now: Instant, peer: PeerId) -> bool {
        self.replacements.retain(|_, times| times.back().is_some_and(|at| now.since(*at) <= REPLACEMENT_TIME));
        let times = self.replacements.entry(peer).or_default();
        times.retain(|at| now.since(*at) <= REPLACEMENT_TIME);
        times.push_back(now);
        let shared = times.len() > REPLACEMENTS;
        if shared {
            times.pop_front();
        }
        shared
    }

    /// One page for one member.
    fn step(&mut self) -> Option<(ConnId, Vec<DirectoryEntry>)> {
        let broadcast = self.broadcast.as_mut()?;
        loop {
            let page = broadcast.changed.chunks(MAX_DIRECTORY_ENTRIES).nth(broadcast.page)?;
            let after = broadcast.told.map_or(Unbounded, Excluded);
            let Some((peer, member)) = self.members.range((after, Unbounded)).next() else {
                broadcast.page += 1;
                broadcast.told = None;
                continue;
            };
            broadcast.told = Some(*peer);
            let state = |id: PeerId, last: Handle| self.members.get(&id).map_or_else(|| offline(id, last), |member| member.entry(id));
            let entries: Vec<_> = page.iter().filter(|(id, _)| id != peer).map(|(id, last)| state(*id, *last)).collect();
            if !entries.is_empty() {
                return Some((member.conn, entries));
            }
        }
    }
}

impl Member {
    fn entry(&self, peer: PeerId) -> DirectoryEntry {
        let public = (!self.withhold).then_some(self.observed);
        DirectoryEntry { handle: self.handle, peer, public, supports_direct: self.supports_direct, online: true }
    }
}

fn offline(peer: PeerId, handle: Handle) -> DirectoryEntry {
    DirectoryEntry { handle, peer, public: None, supports_direct: false, online: false }
}
