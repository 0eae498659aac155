//! A peer's machine: owns the links and the relay connections; here is only dispatch.
//!
//! ```text
//!   Event ──▶ Node ──┬─▶ Uplink (one a relay of the token): lets us in, tells who is there
//!                    ├─▶ Answers: handshakes that others start, Callers: those of them that come by UDP
//!                    ├─▶ Link (one a remote peer): session, paths, traffic
//!                    └─▶ Room: what they share; collects the actions ──▶ Vec<Action>
//! ```
mod answers;
mod around;
mod bounds;
mod callers;
mod datagrams;
mod lane;
mod members;
mod reflexive;
mod relays;
mod room;
#[cfg(test)]
mod tests;
mod uplink;

pub(crate) use lane::NodeLane;
pub(crate) use room::{Owner, Room, Source, Use};
pub(crate) use uplink::Presence;

use crate::{
    config::NodeConfig,
    drops::{Drop, Drops},
    event::{Action, Ended, Event, Note, TlsFacts},
    handshake::Done,
    id::{ConnId, Handle, LinkId, PathId, PeerId},
    link::{Adoption, Link, Live},
    machine::{Deadline, Machine},
    plane::{Edit, Noticed, PlaneConfig, Report, Tally, Via},
    session::Side,
    status::{Status, Totals},
    time::{Duration, Instant},
    wire::{
        CLOSE_DOWN, CONTROL_PIECE_MAX_LEN, PathHeader, RelayMessage, TYPE_FIN, TYPE_FRAME, TYPE_INIT, TYPE_PATH_CMP, TYPE_PATH_REQ,
        TYPE_PATH_RSP, TYPE_RESP,
    },
};
use answers::{Answers, Caller, Proved};
use callers::Callers;
use core::net::SocketAddr;
use std::collections::BTreeMap;
use uplink::Uplink;

/// The machines of a node.
pub(crate) const CHARTS: &[crate::edges::Chart] = &[uplink::CHARTS[0], uplink::CHARTS[1], answers::CHART];

/// Actions of one call; what is left comes by a deadline that is due now.
const ACTIONS_MAX: usize = 256;
/// Remote peers that one node knows.
const LINKS_MAX: usize = 4_096;
/// Up to so many peers all handshakes are eager; above, the first packet starts one (protocol 3.9).
const EAGER_MAX: usize = 32;
/// Connections of our listener that have proven nothing yet, and how long they may (protocol 6.2).
const ACCEPTED_MAX: usize = 16;
const ACCEPTED_PER_SOURCE: usize = 4;
const ACCEPTED_TIME: Duration = Duration::from_secs(5);

/// A peer: any number of links.
pub struct Node {
    room: Room,
    uplinks: Vec<Uplink>,
    links: BTreeMap<PeerId, Link>,
    by_link: BTreeMap<LinkId, PeerId>,
    next_link: u32,
    answers: Answers,
    callers: Callers,
    plane_drops: Drops,
}

impl Node {
    /// A peer that does nothing until `Event::Start`. The first event must be `Event::Entropy`.
    pub fn new(config: NodeConfig) -> Self {
        let relays = config.network.relays.iter().enumerate();
        let uplinks = relays.map(|(index, relay)| Uplink::new(index, relay)).collect();
        Self {
            room: Room::new(config),
            uplinks,
            links: BTreeMap::new(),
            by_link: BTreeMap::new(),
            next_link: 0,
            answers: Answers::default(),
            callers: Callers::default(),
            plane_drops: Drops::default(),
        }
    }

    /// What the plane beside this node is told at its start.
    pub fn plane_config(&self) -> PlaneConfig {
        let config = &self.room.config;
        PlaneConfig {
            layer2: config.layer2,
            addresses: self.room.around.overlay.iter().map(|(address, _)| *address).collect(),
            mac: config.network.mac_address(self.room.own),
            mode: config.mode,
        }
    }

    /// Everything that `status` shows.
    pub fn status(&self, _now: Instant) -> Status {
        let mut drops = self.plane_drops.clone();
        for reason in Drop::ALL {
            drops.add(reason, self.room.drops.get(reason));
        }
        let relay_remote =
            |index: usize| self.uplinks.get(index)?.ends().map(|(_, remote)| remote).filter(|remote| !remote.ip().is_unspecified());
        let peers = self.links.iter().filter(|(peer, _)| !self.room.config.is_retired(**peer));
        Status {
            id: self.room.own,
            name: self.room.config.name.clone(),
            addresses: self.room.around.overlay.clone(),
            relays: self.uplinks.iter().map(Uplink::status).collect(),
            mappings: self.room.around.mapped.clone(),
            peers: peers.map(|(_, link)| link.status(relay_remote)).collect(),
            drops: drops.iter().collect(),
            totals: self.room.totals,
            succession: self.succession_status(),
            replaced: self.room.config.replaced(),
        }
    }

    // ---- connections -------------------------------------------------------------------------------------------

    fn opened(&mut self, now: Instant, conn: ConnId, tls: &TlsFacts, local: SocketAddr, remote: SocketAddr) {
        match self.room.conns.get(&conn).cloned() {
            Some(Use::Uplink(index)) => {
                if let Some(uplink) = self.uplinks.get_mut(index) {
                    uplink.opened(now, &mut self.room, tls, (local, remote));
                }
            }
            Some(Use::Dialled { peer, .. }) => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.opened(now, &mut self.room, conn, tls, remote);
                }
            }
            Some(Use::Accepted { .. } | Use::Direct { .. } | Use::Flow { .. }) | None => self.room.act(Action::Hangup { conn }),
        }
    }

    fn accepted(&mut self, now: Instant, conn: ConnId, exporter: [u8; 32], remote: SocketAddr) {
        let waiting = self.room.conns.values().filter(|used| matches!(used, Use::Accepted { .. })).count();
        let same = |used: &Use| matches!(used, Use::Accepted { remote: other, .. } if other.ip() == remote.ip());
        let from_there = self.room.conns.values().filter(|used| same(used)).count();
        if waiting >= ACCEPTED_MAX || from_there >= ACCEPTED_PER_SOURCE || self.room.leaving {
            self.room.drops.count(Drop::Accept);
            self.room.act(Action::Hangup { conn });
            return;
        }
        self.room.conns.insert(conn, Use::Accepted { exporter, remote, until: now + ACCEPTED_TIME });
    }

    fn closed(&mut self, now: Instant, conn: ConnId, why: &Ended) {
        match self.room.conns.remove(&conn) {
            Some(Use::Uplink(index)) => {
                let stood = self.uplinks.get_mut(index).is_some_and(|uplink| uplink.closed(now, &mut self.room, why));
                if stood {
                    self.uplink_lost(now, index);
                }
            }
            Some(Use::Dialled { peer, .. }) => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.dial_failed(now, &mut self.room, conn, why);
                }
            }
            Some(Use::Direct { peer, path }) => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.direct_closed(now, &mut self.room, path);
                }
            }
            Some(Use::Accepted { .. } | Use::Flow { .. }) | None => {}
        }
    }

    fn message(&mut self, now: Instant, conn: ConnId, handle: Option<Handle>, bytes: &mut [u8]) {
        match (self.room.conns.get(&conn).cloned(), handle) {
            (Some(Use::Uplink(index)), None) => {
                let news = self.uplinks.get_mut(index).map(|uplink| uplink.message(now, &mut self.room, bytes));
                self.news(now, index, news.unwrap_or_default());
            }
            (Some(Use::Uplink(index)), Some(handle)) => self.relayed(now, index, Via { conn, handle: Some(handle) }, handle, bytes),
            (Some(Use::Accepted { exporter, remote, .. }), _) => self.first_word(now, conn, exporter, remote, bytes),
            (Some(Use::Direct { peer, path }), _) => self.direct_message(now, peer, path, Via { conn, handle: None }, bytes),
            (Some(Use::Flow { remote, is_own, .. }), _) => match bytes.first() {
                Some(&TYPE_FRAME) => self.frame(now, Via { conn, handle: None }, bytes),
                _ => self.flow_message(now, Source { remote, own_flow: is_own.then_some(conn) }, bytes),
            },
            (Some(Use::Dialled { .. }) | None, _) => self.room.drops.count(Drop::Unexpected),
        }
    }

    /// The first message on a connection of our listener must be `PATH_REQ` of a live session.
    fn first_word(&mut self, now: Instant, conn: ConnId, exporter: [u8; 32], remote: SocketAddr, bytes: &[u8]) {
        let header = PathHeader::parse(bytes).ok().filter(|header| header.kind == TYPE_PATH_REQ);
        let peer = header.and_then(|header| self.room.sids.get(&header.receiver).copied());
        let link = peer.and_then(|peer| self.links.get_mut(&peer));
        let proven = link.is_some_and(|link| link.asked_on(now, &mut self.room, conn, exporter, remote, bytes));
        if !proven {
            self.room.drops.count(Drop::Accept);
            self.room.hang_up(conn);
        }
    }

    fn direct_message(&mut self, now: Instant, peer: PeerId, path: PathId, via: Via, bytes: &mut [u8]) {
        match bytes.first() {
            Some(&TYPE_FRAME) => self.frame(now, via, bytes),
            Some(&(TYPE_PATH_REQ | TYPE_PATH_RSP | TYPE_PATH_CMP)) => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.path_message(now, &mut self.room, path, None, bytes);
                }
            }
            Some(_) => self.room.drops.count(Drop::Unexpected),
            None => self.room.drops.count(Drop::Malformed),
        }
    }

    /// What another member sent over a relay.
    fn relayed(&mut self, now: Instant, uplink: usize, via: Via, handle: Handle, bytes: &mut [u8]) {
        match bytes.first() {
            Some(&TYPE_INIT) => self.init(now, uplink, via, handle, bytes),
            Some(&TYPE_RESP) => {
                let peer = crate::handshake::peek_resp(bytes).ok().and_then(|sid| self.room.sids.get(&sid).copied());
                match peer.and_then(|peer| self.links.get_mut(&peer)) {
                    Some(link) => link.response(&mut self.room, bytes),
                    None => self.room.drops.count(Drop::Handshake),
                }
            }
            Some(&TYPE_FIN) => self.fin(bytes),
            Some(&TYPE_FRAME) => self.frame(now, via, bytes),
            Some(_) => self.room.drops.count(Drop::Unexpected),
            None => self.room.drops.count(Drop::Malformed),
        }
    }

    fn init(&mut self, now: Instant, uplink: usize, via: Via, handle: Handle, bytes: &[u8]) {
        // mac1 under the network's secret: a relay or stranger makes no INIT that costs a KEM operation (protocol 3.8)
        if self.room.own_mac1.verify_init(bytes).is_err() {
            self.room.drops.count(Drop::Forged);
            let said = self.uplinks.get(uplink).and_then(|uplink| uplink.holder(handle));
            self.room.refuse(said, "a handshake for somebody else, of another network, or altered on the way");
            return;
        }
        let Some(said) = self.uplinks.get(uplink).and_then(|uplink| uplink.holder(handle)) else {
            self.answers.keep(now, &mut self.room, via, handle, bytes);
            return;
        };
        let caller = Caller::Relay(via);
        if self.answers.repeat(now, &mut self.room, &caller, bytes) {
            return;
        }
        if !self.ensure_link(now, said) || self.room.leaving {
            self.room.drops.count(Drop::Handshake);
            return;
        }
        if self.links.get_mut(&said).is_some_and(|link| link.yields_to_init(&mut self.room)) {
            self.answers.begin(now, &mut self.room, caller, Some(said), bytes);
        } else {
            self.room.drops.count(Drop::Handshake);
        }
    }

    fn fin(&mut self, bytes: &[u8]) {
        if self.answers.fin(&mut self.room, bytes) {
            return;
        }
        let sid = crate::handshake::peek_fin(bytes).unwrap_or(0);
        let peer = self.room.sids.get(&sid).copied();
        match peer.and_then(|peer| self.links.get_mut(&peer)) {
            Some(link) if link.live().is_some_and(|live| live.local() == sid) => link.confirm_again(&mut self.room),
            Some(_) | None => self.room.drops.count(Drop::Handshake),
        }
    }

    /// A sealed frame of the control room's own lane.
    fn frame(&mut self, now: Instant, via: Via, bytes: &mut [u8]) {
        let Some(header) = self.control_frame(bytes) else { return };
        let peer = self.room.sids.get(&header.receiver).copied();
        match peer.and_then(|peer| self.links.get_mut(&peer)) {
            Some(link) => {
                link.frame(now, &mut self.room, header, Some(via), bytes);
            }
            None => self.room.drops.count(Drop::UnknownSession),
        }
    }

    // ---- relays ------------------------------------------------------------------------------------------------

    /// A link for this peer, unless it is not a member or there are too many.
    fn ensure_link(&mut self, now: Instant, peer: PeerId) -> bool {
        if !self.room.config.admits(peer) {
            return false;
        }
        if self.links.contains_key(&peer) {
            return true;
        }
        if peer == self.room.own || (self.links.len() >= LINKS_MAX && !self.evict()) {
            return false;
        }
        let id = LinkId(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        self.by_link.insert(id, peer);
        let link = Link::new(now, id, peer, &mut self.room);
        self.links.insert(peer, link);
        true
    }

    /// Makes room for a link: one that was never proven and is nowhere to be seen goes. A relay's word alone must not fill the table.
    fn evict(&mut self) -> bool {
        let Some(peer) = self.links.iter().find(|(_, link)| link.is_idle()).map(|(peer, _)| *peer) else { return false };
        if let Some(link) = self.links.remove(&peer) {
            self.by_link.remove(&link.id());
            self.room.edit(Edit::Forget { link: link.id() });
        }
        true
    }

    // ---- jobs, reports, alarms ---------------------------------------------------------------------------------

    fn computed(&mut self, now: Instant, done: Done) {
        match self.room.done(done.ticket) {
            Some(Owner::Uplink(index)) => {
                if let Some(uplink) = self.uplinks.get_mut(index) {
                    uplink.computed(now, &mut self.room, done.ticket, done.outcome);
                }
            }
            Some(Owner::Greeting(peer)) => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.greeting_computed(now, &mut self.room, done.ticket, done.outcome);
                }
            }
            Some(Owner::Rekey(peer, sid)) => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.rekey_computed(now, &mut self.room, sid, done.ticket, done.outcome);
                }
            }
            Some(Owner::HalfOpen(id)) => {
                if let Some(proved) = self.answers.computed(now, &mut self.room, id, done.ticket, done.outcome) {
                    self.proved(now, proved);
                }
            }
            None => {}
        }
    }

    /// A handshake that another peer began is proven.
    fn proved(&mut self, now: Instant, proved: Proved) {
        let Proved { verified, sid, started, met } = proved;
        let peer = verified.peer.id();
        // who came by UDP is known only now
        let is_known = met.is_none() || self.ensure_link(now, peer);
        let link = self.links.get_mut(&peer).filter(|_| is_known);
        // who was shut out meanwhile; what began before our own attempt did: the other end leaves it for ours, so must we (protocol 3.9);
        // and what the other end itself left for a newer one
        let taken = link.filter(|_| self.room.config.admits(peer)).filter(|link| !link.is_overtaken(started));
        let taken = taken.and_then(|link| {
            let yields = if met.is_some() { link.yields_to_caller(&mut self.room, started) } else { link.yields_to_init(&mut self.room) };
            yields.then_some(link)
        });
        let Some(link) = taken else {
            self.room.sids.remove(&sid);
            self.room.drops.count(Drop::Handshake);
            return;
        };
        self.room.sids.insert(sid, peer);
        let live = Live::new(now, verified.chain, Side::Responder, sid, verified.peer_sid, &*self.room.config.crypto);
        link.adopt(now, &mut self.room, Adoption { live, params: verified.params, started, met });
    }

    fn report(&mut self, now: Instant, report: &Report) {
        let Some(link) = self.by_link.get(&report.link).and_then(|peer| self.links.get_mut(peer)) else { return };
        match report.what {
            Noticed::Stalled { path, pto } => {
                if let Some(uplink) = link.stalled(now, &mut self.room, path, pto)
                    && let Some(uplink) = self.uplinks.get_mut(uplink)
                {
                    uplink.doubt(now);
                }
                if path == PathId::RELAY
                    && let Some(link) = self.by_link.get(&report.link).and_then(|peer| self.links.get_mut(peer))
                {
                    link.doubt_session(now, &mut self.room);
                }
            }
            Noticed::Wanted => link.wanted(now, &mut self.room),
            Noticed::Roamed { remote } => link.roamed(now, &mut self.room, remote),
        }
    }

    fn tally(&mut self, now: Instant, tally: &Tally) {
        self.plane_drops = tally.drops.clone();
        let bytes = tally.bytes;
        self.room.totals = Totals {
            interface_rx_bytes: bytes.interface_rx,
            interface_tx_bytes: bytes.interface_tx,
            relay_wss_rx_bytes: bytes.relay_rx,
            relay_wss_tx_bytes: bytes.relay_tx,
            direct_wss_rx_bytes: bytes.direct_rx,
            direct_wss_tx_bytes: bytes.direct_tx,
            direct_udp_rx_bytes: bytes.udp_rx,
            direct_udp_tx_bytes: bytes.udp_tx,
            relay_udp_rx_bytes: bytes.relay_udp_rx,
            relay_udp_tx_bytes: bytes.relay_udp_tx,
            ..self.room.totals
        };
        for entry in &tally.links {
            if let Some(link) = self.by_link.get(&entry.link).and_then(|peer| self.links.get_mut(peer)) {
                link.tallied(now, &mut self.room, entry.clone());
                if let Some((index, at)) = link.relay_heard()
                    && let Some(uplink) = self.uplinks.get_mut(index)
                {
                    uplink.heard(at);
                }
            }
        }
    }

    fn alarm(&mut self, now: Instant) {
        for index in 0..self.uplinks.len() {
            let due = self.uplinks.get(index).and_then(Uplink::deadline).is_some_and(|at| at <= now);
            if due && self.uplinks.get_mut(index).is_some_and(|uplink| uplink.alarm(now, &mut self.room)) {
                self.uplink_lost(now, index);
            }
            if self.uplinks.get(index).is_some_and(|uplink| uplink.may_leave(now)) {
                self.leave_relay(now, index);
            }
        }
        self.expire_mappings(now);
        // an address that is not confirmed any more is offered no more
        if self.reflexive() != self.room.around.reflexive {
            self.refresh_surroundings(now);
        }
        for link in self.links.values_mut() {
            if link.deadline().is_some_and(|at| at <= now) {
                link.alarm(now, &mut self.room);
            }
        }
        self.answers.alarm(now, &mut self.room);
        self.callers.alarm(now);
        if self.links.values().all(|link| link.live().is_none()) {
            self.room.close_listener();
        }
        let late: Vec<ConnId> = self
            .room
            .conns
            .iter()
            .filter(|(_, used)| matches!(used, Use::Accepted { until, .. } if *until <= now))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in late {
            self.room.drops.count(Drop::Accept);
            self.room.hang_up(conn);
        }
    }

    fn ping(&mut self, now: Instant, peer: PeerId, id: u32, payload: Vec<u8>) {
        if payload.len() > CONTROL_PIECE_MAX_LEN {
            self.room.drops.count(Drop::Control);
            let len = payload.len();
            self.room
                .refuse(None, format!("an overlay ping of {len} bytes: its payload has at most {CONTROL_PIECE_MAX_LEN} (protocol 7.9)"));
            return;
        }
        if let Some(link) = self.links.get_mut(&peer) {
            self.room.pinged(id, peer, now);
            link.ping(now, &mut self.room, id, payload);
        }
    }

    fn leave(&mut self, now: Instant) {
        self.room.leaving = true;
        for link in self.links.values_mut() {
            link.say_goodbye(now, &mut self.room);
        }
        for uplink in &mut self.uplinks {
            uplink.say(&mut self.room, &RelayMessage::Close { reason: CLOSE_DOWN });
        }
        self.room.note(Note::Left);
    }
}

impl Machine for Node {
    type Event<'a> = Event<'a>;
    type Action = Action;

    fn handle(&mut self, now: Instant, event: Event<'_>, actions: &mut Vec<Action>) {
        match event {
            Event::Start => {
                if self.room.config.direct.udp || self.room.config.relay_udp {
                    self.room.act(Action::Sockets);
                }
                for uplink in &mut self.uplinks {
                    uplink.dial(now, &mut self.room);
                }
                self.miss_listed(now);
            }
            Event::Entropy(fresh) => self.room.entropy.feed(fresh),
            Event::Alarm => self.alarm(now),
            Event::Opened { conn, tls, local, remote } => self.opened(now, conn, &tls, local, remote),
            Event::Accepted { conn, exporter, remote, local: _ } => self.accepted(now, conn, exporter, remote),
            Event::Closed { conn, why } => self.closed(now, conn, &why),
            Event::Message { conn, handle, bytes } => self.message(now, conn, handle, bytes),
            Event::Computed(done) => self.computed(now, done),
            Event::Listening { port } => {
                self.room.listen_port = port;
                self.refresh_surroundings(now);
            }
            Event::Interfaces(interfaces) => {
                self.interfaces(now, interfaces);
                self.ask_for_reflexive(now);
                self.refresh_surroundings(now);
            }
            Event::PortMapped(mappings) => self.port_mapped(now, mappings),
            Event::Examine => {
                for uplink in &mut self.uplinks {
                    uplink.examine(now, &self.room);
                }
            }
            Event::Report(report) => self.report(now, &report),
            Event::Tally(tally) => self.tally(now, tally),
            Event::Ping { peer, id, payload } => self.ping(now, peer, id, payload),
            Event::Members { members, revoked } => self.change_members(now, members, revoked),
            Event::Tune(tuning) => self.tune(now, tuning),
            Event::Succeed(statement) => self.succeed(now, statement),
            Event::Leave => self.leave(now),
            Event::Sockets { v4, v6 } => {
                self.room.udp_ports = (v4, v6);
                for link in self.links.values_mut() {
                    link.ask_around(now, &self.room);
                }
                self.ask_for_reflexive(now);
                self.refresh_surroundings(now);
            }
            Event::Datagram { remote, bytes } => self.datagram(now, remote, bytes),
        }
        self.part_with_retired(now);
        self.name_receivers();
        self.park_or_wake(now);
        self.doubt_relays(now);
        self.doubt_reflexive(now);
        self.room.drain(ACTIONS_MAX, actions);
    }

    fn deadline(&self) -> Option<Deadline> {
        if self.room.has_actions() {
            return Some(Deadline { at: Instant::ZERO, why: "actions of the call before" });
        }
        if self.room.leaving {
            return None;
        }
        let accepted = self.room.conns.values().filter_map(|used| match used {
            Use::Accepted { until, .. } => Some(*until),
            Use::Uplink(_) | Use::Dialled { .. } | Use::Direct { .. } | Use::Flow { .. } => None,
        });
        let mut earliest = accepted.min().map(|at| Deadline { at, why: "a connection that proved nothing" });
        earliest = Deadline::earlier(earliest, self.mappings_deadline().map(|at| Deadline { at, why: "a port of the router" }));
        for at in self.uplinks.iter().filter_map(Uplink::deadline) {
            earliest = Deadline::earlier(earliest, Some(Deadline { at, why: "a relay" }));
        }
        for at in self.links.values().filter_map(Link::deadline) {
            earliest = Deadline::earlier(earliest, Some(Deadline { at, why: "a link" }));
        }
        earliest = Deadline::earlier(earliest, self.callers.deadline().map(|at| Deadline { at, why: "a handshake in fragments" }));
        Deadline::earlier(earliest, self.answers.deadline().map(|at| Deadline { at, why: "a half-open handshake" }))
    }
}
