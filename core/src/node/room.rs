//! The control room's table: what every link and relay connection of one node shares.
use crate::{
    bound::Bound,
    config::NodeConfig,
    drops::{Drop, Drops},
    entropy::Entropy,
    event::{Action, Note},
    handshake::{Job, Mac1Key, Setup, Ticket, Work},
    id::{ConnId, Handle, PathId, PeerId},
    path::candidate::{Surroundings, is_endpoint, permitted},
    plane::Edit,
    status::Totals,
    time::{Duration, Instant},
    wire::params::is_name,
    wire::{Candidate, Params, RECORD_FLAG_URGENT, RECORD_HEADER_LEN, TYPE_FRAME, TYPE_FWD, Transport, record_header},
};
use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Jobs that may be under way at one time; more handshakes are dropped and counted.
pub(crate) const JOBS_MAX: usize = 64;
/// Handshakes that others may start here a second, over all sources, and at once (protocol 3.8).
const ANSWERS_PER_SECOND: u32 = 50;
/// Dials to one address within a minute, over all peers: a member must not make us knock at somebody's door (protocol 6.3).
const DIALS_PER_MINUTE: usize = 8;
/// Targets at one address that get first requests within a minute, over all peers: five of 108 bytes each (protocol 6.3).
const PROBED_PER_MINUTE: usize = 40;
/// Searches of ports at one address within a minute, over all peers: 3,000 requests of 108 bytes each (protocol 8.5).
const SEARCHES_PER_MINUTE: usize = 6;
/// Addresses whose dials are counted; beyond, the oldest entries are forgotten only when they are a minute old.
const DIALLED_MAX: usize = 1_024;
/// Overlay pings that wait for an answer; the oldest is forgotten.
const PINGS_MAX: usize = 256;

/// Whose job it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The handshake with a relay.
    Uplink(usize),
    /// Our handshake towards a peer.
    Greeting(PeerId),
    /// A handshake that came over a relay.
    HalfOpen(u64),
    /// A rekey of the session with this own index.
    Rekey(PeerId, u32),
}

/// What is to be done with the relay connections (`p2p.close_relay`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Relays {
    #[default]
    Keep,
    /// A link became direct: close them, when all are.
    Park,
    /// A link lost its direct path: dial them again.
    Wake,
}

/// What a connection is for.
#[derive(Clone, Debug)]
pub(crate) enum Use {
    /// To a relay of the token.
    Uplink(usize),
    /// Dialled to a peer's listener.
    Dialled { peer: PeerId },
    /// Taken by our listener; nothing proven yet.
    Accepted { exporter: [u8; 32], remote: SocketAddr, until: Instant },
    /// A direct path of this peer.
    Direct { peer: PeerId, path: PathId },
    /// Datagrams with this address; for how many direct paths; and whether by a socket of its own.
    Flow { remote: SocketAddr, paths: u32, is_own: bool },
}

/// Where a datagram came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) remote: SocketAddr,
    /// The flow that it came by, if that has a socket of its own.
    pub(crate) own_flow: Option<ConnId>,
}

/// Shared by all links and uplinks.
pub(crate) struct Room {
    pub(crate) config: NodeConfig,
    pub(crate) own: PeerId,
    pub(crate) setup: Setup,
    /// Checks what strangers send us: made once, since they may send much.
    pub(crate) own_mac1: Mac1Key,
    pub(crate) entropy: Entropy,
    pub(crate) drops: Drops,
    pub(crate) totals: Totals,
    pub(crate) conns: BTreeMap<ConnId, Use>,
    /// Own session indices and whose they are.
    pub(crate) sids: BTreeMap<u32, PeerId>,
    pub(crate) around: Surroundings,
    pub(crate) listen_port: Option<u16>,
    /// Ports of the UDP sockets: IPv4, IPv6.
    pub(crate) udp_ports: (Option<u16>, Option<u16>),
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) candidates_generation: u32,
    /// Overlay addresses and their first proven holders.
    pub(crate) claims: BTreeMap<IpAddr, PeerId>,
    pub(crate) leaving: bool,
    listening: bool,
    relays: Relays,
    /// A path by UDP died since the last look: what relays told of our UDP address may be wrong.
    udp_in_doubt: bool,
    relays_in_doubt: BTreeSet<usize>,
    pings: BTreeMap<u32, (PeerId, Instant)>,
    /// Dials of the last minute by address.
    dialled: BTreeMap<IpAddr, VecDeque<Instant>>,
    /// Addresses that were sent first requests in the last minute.
    probed: BTreeMap<IpAddr, VecDeque<Instant>>,
    /// Addresses at which ports were searched in the last minute.
    searched: BTreeMap<IpAddr, VecDeque<Instant>>,
    /// With whom ports are searched just now, and until when at the latest.
    search: Option<(PeerId, Instant)>,
    /// Flows of datagrams by their far end, but those with a socket of their own.
    flows: BTreeMap<SocketAddr, ConnId>,
    next_flow: u64,
    /// Where relays pass datagrams on, by relay.
    doors: BTreeMap<usize, SocketAddr>,
    /// Whose place another identity has taken.
    retired: Vec<PeerId>,
    /// What relays have to be told: which one, a receiver, and who is meant.
    named: Vec<(usize, u32, Handle)>,
    owners: BTreeMap<Ticket, Owner>,
    next_ticket: u64,
    next_conn: u64,
    actions: VecDeque<Action>,
    answers: u32,
    answers_since: Instant,
}

impl Room {
    pub(crate) fn new(config: NodeConfig) -> Self {
        let overlay = config.overlay_addresses();
        let (own, setup) = (config.identity.id(), Setup::peer_peer(&config.network));
        let own_mac1 = setup.mac1_key(own);
        Self {
            own,
            setup,
            own_mac1,
            // replaced by the first Event::Entropy before anything is drawn
            entropy: Entropy::new(&[0; 32]),
            drops: Drops::default(),
            totals: Totals::default(),
            conns: BTreeMap::new(),
            sids: BTreeMap::new(),
            around: Surroundings { overlay, ..Surroundings::default() },
            listen_port: None,
            udp_ports: (None, None),
            candidates: Vec::new(),
            candidates_generation: 0,
            claims: config.claims.iter().copied().collect(),
            leaving: false,
            listening: false,
            relays: Relays::Keep,
            udp_in_doubt: false,
            relays_in_doubt: BTreeSet::new(),
            pings: BTreeMap::new(),
            dialled: BTreeMap::new(),
            probed: BTreeMap::new(),
            searched: BTreeMap::new(),
            search: None,
            flows: BTreeMap::new(),
            next_flow: 0,
            doors: BTreeMap::new(),
            retired: Vec::new(),
            named: Vec::new(),
            owners: BTreeMap::new(),
            next_ticket: 0,
            next_conn: 0,
            actions: VecDeque::new(),
            answers: 0,
            answers_since: Instant::ZERO,
            config,
        }
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.act(Action::Note(note));
    }

    pub(crate) fn edit(&mut self, edit: Edit) {
        self.act(Action::Edit(edit));
    }

    pub(crate) fn refuse(&mut self, who: Option<PeerId>, what: impl Into<String>) {
        self.note(Note::Refused { who, what: what.into() });
    }

    /// This identity was proven by a handshake: those that it follows have no place any more (protocol 2.8).
    pub(crate) fn proved(&mut self, peer: PeerId) {
        for succession in self.config.followers.proved(peer) {
            self.retired.push(succession.old);
            self.act(Action::Succeeded(succession));
        }
    }

    /// Those who have lost their place since the last look.
    pub(crate) fn take_retired(&mut self) -> Vec<PeerId> {
        core::mem::take(&mut self.retired)
    }

    /// What we tell a peer of ourselves, under the seal of the handshake.
    pub(crate) fn own_params(&self) -> Params {
        Params {
            name: Some(self.config.name.clone()).filter(|name| is_name(name)),
            addresses: self.around.overlay.iter().map(|(address, _)| *address).collect(),
            mtu: Some(self.config.mtu),
            layer2: self.config.layer2,
            version: Some(self.config.version.clone()),
            lanes: (self.config.lanes > 1).then_some(self.config.lanes),
            ..Params::default()
        }
    }

    /// The data lanes of a session with a peer that said this of itself: as many as both ends have (protocol 4.3).
    pub(crate) fn lanes_with(&self, theirs: &Params) -> u8 {
        self.config.lanes.min(theirs.lanes.unwrap_or(1)).max(1)
    }

    /// The port of our UDP socket that can send to this address.
    pub(crate) fn udp_port_for(&self, remote: IpAddr) -> Option<u16> {
        if remote.is_ipv4() { self.udp_ports.0 } else { self.udp_ports.1 }
    }

    /// Whether a peer's candidate may be tried (protocol 6.3); `theirs` is its address as the relay sees it.
    pub(crate) fn permits(&self, candidate: &Candidate, theirs: Option<IpAddr>) -> Result<(), &'static str> {
        let (ip, port) = (candidate.address.ip(), candidate.address.port());
        let own_port = match candidate.transport {
            Transport::Udp => self.udp_port_for(ip),
            Transport::Wss => self.listen_port,
        };
        if own_port == Some(port) && self.is_own(ip) {
            return Err("not tried: here this address and port are our own");
        }
        permitted(&self.around, candidate.address, theirs)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.around.interfaces.iter().any(|(own, _)| *own == ip)
    }

    /// Whether a peer may be asked for at this address where it was (protocol 8.7).
    pub(crate) fn may_call_at(&self, address: SocketAddr) -> bool {
        let own_port = self.udp_port_for(address.ip());
        own_port.is_some() && !(own_port == Some(address.port()) && self.is_own(address.ip()))
    }

    /// Whether a peer may be asked for at this address, which the operator named (protocol 8.7).
    pub(crate) fn may_call_endpoint(&self, address: SocketAddr) -> bool {
        is_endpoint(&self.around, address) && self.may_call_at(address)
    }

    /// A peer may come by a direct path from now on.
    pub(crate) fn want_listener(&mut self) {
        if self.config.direct.wss && !core::mem::replace(&mut self.listening, true) {
            self.act(Action::Listen(true));
        }
    }

    /// Whether a peer's candidate at this address may be dialled once more now; counts the dial.
    pub(crate) fn may_dial(&mut self, now: Instant, address: IpAddr) -> bool {
        granted(&mut self.dialled, now, address, DIALS_PER_MINUTE)
    }

    /// Whether a peer's candidate at this address may be sent first requests now; counts it.
    pub(crate) fn may_probe(&mut self, now: Instant, address: IpAddr) -> bool {
        granted(&mut self.probed, now, address, PROBED_PER_MINUTE)
    }

    /// Whether a search of ports may begin with this peer, whose NAT has this address; there is one at a time (protocol 8.5).
    pub(crate) fn may_search(&mut self, now: Instant, peer: PeerId, address: IpAddr, until: Instant) -> bool {
        let is_free = self.search.is_none_or(|(_, until)| until <= now);
        let granted = is_free && granted(&mut self.searched, now, address, SEARCHES_PER_MINUTE);
        if granted {
            self.search = Some((peer, until));
        }
        granted
    }

    /// The search with this peer is over.
    pub(crate) fn end_search(&mut self, peer: PeerId) {
        self.search.take_if(|(searcher, _)| *searcher == peer);
    }

    /// The flow of datagrams with this address, for one more direct path.
    pub(crate) fn flow(&mut self, remote: SocketAddr) -> ConnId {
        if let Some(conn) = self.flows.get(&remote)
            && let Some(Use::Flow { paths, .. }) = self.conns.get_mut(conn)
        {
            *paths += 1;
            return *conn;
        }
        let conn = ConnId::flow(self.next_flow);
        let conn = if self.is_door(remote) { conn.passed_on() } else { conn };
        self.next_flow += 1;
        self.flows.insert(remote, conn);
        self.conns.insert(conn, Use::Flow { remote, paths: 1, is_own: false });
        self.act(Action::Flow { conn, remote, is_own: false });
        conn
    }

    /// A flow of datagrams with this address by a socket of its own.
    pub(crate) fn own_flow(&mut self, remote: SocketAddr) -> ConnId {
        let conn = ConnId::flow(self.next_flow);
        self.next_flow += 1;
        self.conns.insert(conn, Use::Flow { remote, paths: 1, is_own: true });
        self.act(Action::Flow { conn, remote, is_own: true });
        conn
    }

    /// The flow by which something came, for one more direct path.
    pub(crate) fn flow_of(&mut self, source: Source) -> ConnId {
        match source.own_flow.map(|conn| (conn, self.conns.get_mut(&conn))) {
            Some((conn, Some(Use::Flow { paths, .. }))) => {
                *paths += 1;
                conn
            }
            _ => self.flow(source.remote),
        }
    }

    /// A relay passes datagrams on, to and from us, at this address (protocol 8.8).
    pub(crate) fn open_door(&mut self, uplink: usize, at: SocketAddr) {
        self.doors.insert(uplink, at);
    }

    /// The connection with this relay is gone.
    pub(crate) fn close_door(&mut self, uplink: usize) {
        self.doors.remove(&uplink);
    }

    /// Where this relay passes datagrams on, if it does.
    pub(crate) fn door(&self, uplink: usize) -> Option<SocketAddr> {
        self.doors.get(&uplink).copied()
    }

    /// The relay that passes datagrams on at this address.
    pub(crate) fn relay_at(&self, address: SocketAddr) -> Option<usize> {
        self.doors.iter().find(|(_, at)| **at == address).map(|(uplink, _)| *uplink)
    }

    /// Whether a relay passes datagrams on at this address.
    pub(crate) fn is_door(&self, address: SocketAddr) -> bool {
        self.relay_at(address).is_some()
    }

    /// Whether paths of datagrams with this address are wanted.
    pub(crate) fn takes_datagrams(&self, remote: SocketAddr) -> bool {
        if self.is_door(remote) { self.config.relay_udp } else { self.config.direct.udp }
    }

    /// Has this relay told that by this receiver we mean that member.
    pub(crate) fn name_receiver(&mut self, uplink: usize, receiver: u32, to: Handle) {
        self.named.push((uplink, receiver, to));
    }

    /// What relays have to be told since the last call.
    pub(crate) fn take_named(&mut self) -> Vec<(usize, u32, Handle)> {
        core::mem::take(&mut self.named)
    }

    /// Whether a flow has a socket of its own.
    pub(crate) fn is_own_flow(&self, conn: ConnId) -> bool {
        matches!(self.conns.get(&conn), Some(Use::Flow { is_own: true, .. }))
    }

    /// No peer is left that could come by a direct path.
    pub(crate) fn close_listener(&mut self) {
        if core::mem::replace(&mut self.listening, false) {
            self.act(Action::Listen(false));
        }
    }

    /// A person's overlay ping goes out.
    pub(crate) fn pinged(&mut self, id: u32, peer: PeerId, now: Instant) {
        while self.pings.len() >= PINGS_MAX {
            self.pings.pop_first();
        }
        self.pings.insert(id, (peer, now));
    }

    /// An answer came: to whom and when the ping went.
    pub(crate) fn pong(&mut self, id: u32) -> Option<(PeerId, Instant)> {
        self.pings.remove(&id)
    }

    /// A link became direct: relays may be closed, where that is configured.
    pub(crate) fn park_when_direct(&mut self) {
        if self.config.close_relay {
            self.relays = Relays::Park;
        }
    }

    /// A link lost its direct path: parked relays are needed.
    pub(crate) fn wake_relays(&mut self) {
        self.relays = Relays::Wake;
    }

    /// What was asked for the relay connections since the last call.
    pub(super) fn take_relays(&mut self) -> Relays {
        core::mem::take(&mut self.relays)
    }

    /// Nothing came back from a peer over this relay, while another brings something.
    pub(crate) fn doubt_relay(&mut self, uplink: usize) {
        self.relays_in_doubt.insert(uplink);
    }

    /// The relays that came in doubt since the last call.
    pub(super) fn take_relays_in_doubt(&mut self) -> BTreeSet<usize> {
        core::mem::take(&mut self.relays_in_doubt)
    }

    /// A path by UDP died: perhaps a NAT gives us another mapping now.
    pub(crate) fn doubt_udp(&mut self) {
        self.udp_in_doubt = true;
    }

    /// Whether a path by UDP died since the last call.
    pub(super) fn take_udp_doubt(&mut self) -> bool {
        core::mem::take(&mut self.udp_in_doubt)
    }

    /// Moves up to `most` actions out.
    pub(crate) fn drain(&mut self, most: usize, actions: &mut Vec<Action>) {
        let count = most.min(self.actions.len());
        actions.extend(self.actions.drain(..count));
    }

    pub(crate) fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Orders a job; None when too many are under way.
    pub(crate) fn compute(&mut self, owner: Owner, work: Work) -> Option<Ticket> {
        if self.owners.len() >= JOBS_MAX {
            self.drops.count(Drop::HandshakeRate);
            return None;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.owners.insert(ticket, owner);
        self.act(Action::Compute(Job { ticket, work }));
        Some(ticket)
    }

    /// Whose job this was.
    pub(crate) fn done(&mut self, ticket: Ticket) -> Option<Owner> {
        self.owners.remove(&ticket)
    }

    /// A connection number for a dial.
    pub(crate) fn dial(&mut self, target: crate::event::Target, timeout: Duration, used: Use) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 2;
        self.conns.insert(conn, used);
        self.act(Action::Dial { conn, target, timeout });
        conn
    }

    /// What waits here, beside the most.
    pub(super) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("jobs under way", self.owners.len(), JOBS_MAX));
        each(Bound::new("overlay pings that wait", self.pings.len(), PINGS_MAX));
        each(Bound::new("addresses dialled lately", self.dialled.len(), DIALLED_MAX));
        let most = self.dialled.values().map(VecDeque::len).max().unwrap_or(0);
        each(Bound::new("dials to one address in a minute", most, DIALS_PER_MINUTE));
        each(Bound::new("addresses probed lately", self.probed.len(), DIALLED_MAX));
        let most = self.probed.values().map(VecDeque::len).max().unwrap_or(0);
        each(Bound::new("targets probed at one address in a minute", most, PROBED_PER_MINUTE));
        each(Bound::new("addresses searched lately", self.searched.len(), DIALLED_MAX));
    }

    /// Ends a connection; a flow of datagrams when its last path lets go of it.
    pub(crate) fn hang_up(&mut self, conn: ConnId) {
        match self.conns.get_mut(&conn) {
            Some(Use::Flow { paths, .. }) if *paths > 1 => {
                *paths -= 1;
                return;
            }
            Some(Use::Flow { remote, is_own: false, .. }) => {
                self.flows.remove(remote);
            }
            Some(Use::Uplink(_) | Use::Dialled { .. } | Use::Accepted { .. } | Use::Direct { .. } | Use::Flow { .. }) => {}
            None => return,
        }
        self.conns.remove(&conn);
        self.act(Action::Hangup { conn });
    }

    /// A session index that no other session of ours has.
    pub(crate) fn fresh_sid(&mut self, peer: PeerId) -> u32 {
        loop {
            let sid = self.entropy.public_u32();
            if sid != 0 && !self.sids.contains_key(&sid) {
                self.sids.insert(sid, peer);
                return sid;
            }
        }
    }

    /// Whether one more handshake of others may be answered now.
    pub(crate) fn may_answer(&mut self, now: Instant) -> bool {
        if now.since(self.answers_since) >= Duration::from_secs(1) {
            self.answers_since = now;
            self.answers = 0;
        }
        self.answers += 1;
        self.answers <= ANSWERS_PER_SECOND
    }

    /// Sends one control-room message to a peer: over a relay in a record, else bare. Handshakes are urgent, sealed frames never
    /// (protocol 9.2).
    pub(crate) fn send(&mut self, via: crate::plane::Via, message: &[u8]) {
        let bytes = match via.handle {
            None => message.to_vec(),
            Some(handle) => {
                let Ok(len) = u16::try_from(message.len()) else { return };
                let flags = if message.first() == Some(&TYPE_FRAME) { 0 } else { RECORD_FLAG_URGENT };
                let mut bytes = Vec::with_capacity(RECORD_HEADER_LEN + message.len());
                bytes.extend_from_slice(&record_header(TYPE_FWD, flags, handle, len));
                bytes.extend_from_slice(message);
                bytes
            }
        };
        self.act(Action::Send { conn: via.conn, bytes });
    }
}

/// Whether something may be done to this address once more within a minute; counts it.
fn granted(done: &mut BTreeMap<IpAddr, VecDeque<Instant>>, now: Instant, address: IpAddr, most: usize) -> bool {
    let minute = Duration::from_mins(1);
    if done.len() >= DIALLED_MAX && !done.contains_key(&address) {
        done.retain(|_, times| times.back().is_some_and(|at| now.since(*at) < minute));
        if done.len() >= DIALLED_MAX {
            return false;
        }
    }
    let times = done.entry(address).or_default();
    while times.front().is_some_and(|at| now.since(*at) >= minute) {
        times.pop_front();
    }
    let granted = times.len() < most;
    if granted {
        times.push_back(now);
    }
    granted
}
