//! `Hub`: takes one event to its end. Dispatch, timers, and what happens to a connection; the rooms beside it know the rest.
mod configure;
mod ending;

use super::{
    ClientStatus, Edit, ForwardEdit, HubAction, HubEvent, HubNote, HubStatus, PortStatus, Refusal, Standing,
    admission::{Admission, is_welcome},
    channel::{Channel, Inbound, MAX_AGE},
    client::{Challenge, Client, Established, Own, State, Step},
    directory::{Directory, Member},
    drain::Drain,
    drops::{Drops, Reason},
    jobs::Jobs,
    reflector::Reflector,
};
use crate::{
    bound::Bound,
    bucket::{Bucket, Rate},
    config::HubConfig,
    edges::{States, took, turn},
    entropy::Entropy,
    handshake::{Answer, Done, HandshakeError, Mac1Key, Outcome, Setup, Verified},
    id::{ConnId, Handle, PeerId},
    machine::{Deadline, Machine},
    source::Source,
    time::{Duration, Instant},
    wire::{
        self, CLOSE_DOWN, CLOSE_REPLACED, CLOSE_SHARED_IDENTITY, CLOSE_SILENT, RelayMessage, TYPE_FRAME, UPDATE_SUPPORTS_DIRECT,
        UPDATE_WITHHOLD_ADDRESS, addr::canonical,
    },
};
use core::net::SocketAddr;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// An alarm stops here and asks for another that is due now; a single step behind it adds a dozen at most.
const ALARM_ACTIONS: usize = 240;
/// Facts about refused connections: more are counted only.
const REFUSALS: Rate = Rate { per_second: 5, burst: 50 };
/// The least that a message counts before the proof: 512 in all.
const LEAST_MESSAGE_BYTES: usize = 64;
/// A client that is silent for so many keepalives is gone.
const SILENT_KEEPALIVES: u32 = 3;

/// The relay's control room.
pub struct Hub {
    config: HubConfig,
    mac1: Mac1Key,
    /// None until the driver's first bytes, which come before the first connection.
    entropy: Option<Entropy>,
    admission: Admission,
    pub(super) clients: BTreeMap<ConnId, Client>,
    directory: Directory,
    jobs: Jobs,
    reflector: Reflector,
    timers: BTreeSet<(Instant, ConnId)>,
    /// Clients still to be told that the relay goes away; `Some` from then on.
    pub(super) leaving: Option<VecDeque<ConnId>>,
    pub(super) drain: Option<Drain>,
    /// Clients whom the relay does not take any more, still to be shown out.
    shut_out: VecDeque<ConnId>,
    half_open: usize,
    pub(super) established: usize,
    succeeded: u64,
    failed: u64,
    answered: u64,
    drops: Drops,
    refusals: Bucket,
}

impl Hub {
    /// A relay without connections.
    pub fn new(config: HubConfig) -> Self {
        let mac1 = Setup::client_relay([0; 32]).mac1_key(config.identity.id());
        Self {
            mac1,
            entropy: None,
            admission: Admission::new(&config.limits),
            reflector: Reflector::new(config.udp_ports),
            config,
            clients: BTreeMap::new(),
            directory: Directory::default(),
            jobs: Jobs::default(),
            timers: BTreeSet::new(),
            leaving: None,
            drain: None,
            shut_out: VecDeque::new(),
            half_open: 0,
            established: 0,
            succeeded: 0,
            failed: 0,
            answered: 0,
            drops: Drops::default(),
            refusals: Bucket::default(),
        }
    }

    /// Whether a connection from `remote` may begin TLS, and how its source stands; an error is the limit against it (protocol 9.4).
    pub fn admit(&mut self, now: Instant, remote: SocketAddr) -> Result<Standing, Refusal> {
        let standing = self.admission.standing(now, Source::of(remote));
        let connections = self.admission.open() + self.established + 1;
        let open = if self.is_closed() { Err(Reason::Leaving) } else { is_welcome(&self.config, connections, remote.ip()) };
        let admitted = open.and_then(|()| self.admission.admit(now, Source::of(remote)));
        admitted.map(|()| standing).map_err(|reason| {
            self.drops.count(reason);
            if reason == Reason::PreauthTotal { Refusal::Full } else { Refusal::Because(reason.name()) }
        })
    }

    /// An admitted connection ended before `HubEvent::Accepted`; `late`: it had used up its time.
    pub fn released(&mut self, remote: SocketAddr, late: bool) {
        self.failed += 1;
        if late {
            self.drops.count(Reason::PreauthTime);
        }
        self.admission.release(Source::of(remote));
    }

    /// A connection that was not admitted for what it said about where it comes from (protocol 9.5).
    pub fn misannounced(&mut self, is_trusted: bool) {
        self.drops.count(if is_trusted { Reason::ProxyHeader } else { Reason::ProxyUntrusted });
    }

    /// Everything that `status` shows, but for the forwarder's part: see `HubStatus::merge`.
    pub fn status(&self, _now: Instant) -> HubStatus {
        HubStatus {
            id: self.config.identity.id(),
            networks: self.directory.networks(),
            clients: self.clients.values().filter_map(|client| self.client_status(client)).collect(),
            preauth: self.admission.open(),
            half_open: self.half_open,
            handshakes_succeeded: self.succeeded,
            handshakes_failed: self.failed,
            handshakes_answered: self.answered,
            drops: self.drops.list(),
            draining: self.is_closed(),
            forward: super::ForwardStats::default(),
        }
    }

    /// Each table of this hub with its bound: for tests and for the curious, never for decisions.
    pub fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("established clients", self.established, self.config.limits.clients));
        each(Bound::new("half-open handshakes with clients", self.half_open, self.config.limits.half_open_total));
        self.admission.bounds(each);
        self.jobs.bounds(each);
        self.reflector.bounds(self.config.limits.clients, each);
    }

    fn client_status(&self, client: &Client) -> Option<ClientStatus> {
        let State::Established(established) = &client.state else { return None };
        Some(ClientStatus {
            id: established.id,
            conn: client.conn,
            handle: established.handle,
            network: established.network,
            remote: client.remote,
            since: established.channel.since(),
            heard: established.heard,
            suite: established.channel.suite().label(),
            supports_direct: self.directory.member(established.network, established.id).is_some_and(|member| member.supports_direct),
            port: PortStatus::idle(client.conn),
        })
    }
}

impl Machine for Hub {
    type Event<'a> = HubEvent<'a>;
    type Action = HubAction;

    fn handle(&mut self, now: Instant, event: HubEvent<'_>, actions: &mut Vec<HubAction>) {
        match event {
            HubEvent::Start => {}
            HubEvent::Entropy(bytes) => match &mut self.entropy {
                Some(entropy) => entropy.feed(bytes),
                None => self.entropy = Some(Entropy::new(bytes)),
            },
            HubEvent::Alarm => self.alarm(now, actions),
            HubEvent::Accepted { conn, exporter, remote, since } => {
                if self.accepted(now, conn, exporter, remote, actions) {
                    self.arm(conn, since + self.config.limits.preauth_time);
                }
            }
            HubEvent::Closed { conn } => self.closed(now, conn, actions),
            HubEvent::Message { conn, bytes } => self.message(now, conn, bytes, actions),
            HubEvent::Computed(done) => self.computed(now, done, actions),
            HubEvent::Configure { limits, access } => self.configure(&limits, *access),
            HubEvent::Leave => self.leave(),
            HubEvent::Drain { within } => {
                let clients = self.clients.keys().copied().collect();
                self.drain(now, within, clients);
            }
            HubEvent::Datagram { port, remote, bytes } => match self.datagram(now, port, remote, bytes) {
                Ok(bytes) => actions.push(HubAction::Datagram { port, remote, bytes }),
                Err(reason) => self.drops.count(reason),
            },
        }
        while let Some(job) = self.jobs.start() {
            actions.push(HubAction::Compute(job));
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        if self.leaving.as_ref().is_some_and(|left| !left.is_empty()) {
            return Some(Deadline { at: Instant::ZERO, why: "leaving" });
        }
        if !self.shut_out.is_empty() {
            return Some(Deadline { at: Instant::ZERO, why: "clients to be shown out" });
        }
        if self.has_untold() {
            return Some(Deadline { at: Instant::ZERO, why: "clients to be told that the relay goes away" });
        }
        let timer = self.timers.first().map(|(at, _)| Deadline { at: *at, why: "client timer" });
        Deadline::earlier(timer, self.directory.deadline())
    }
}

/// Events that concern no message.
impl Hub {
    fn alarm(&mut self, now: Instant, actions: &mut Vec<HubAction>) {
        let full = actions.len() + ALARM_ACTIONS;
        while actions.len() < full
            && let Some((at, conn)) = self.timers.first().copied().filter(|(at, _)| *at <= now)
        {
            self.timers.remove(&(at, conn));
            self.timer(now, conn, actions);
        }
        self.show_out(now, full, actions);
        self.tell_untold(now, full, actions);
        while actions.len() < full
            && let Some(conn) = self.leaving.as_mut().and_then(VecDeque::pop_front)
        {
            self.part(now, conn, Some(CLOSE_DOWN), "the relay goes away", actions);
        }
        while actions.len() < full
            && let Some((conn, entries)) = self.directory.poll(now)
        {
            self.send(conn, &RelayMessage::Directory { entries }, actions);
        }
    }

    fn timer(&mut self, now: Instant, conn: ConnId, actions: &mut Vec<HubAction>) {
        let silence = self.silence();
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.timer = None;
        match &client.state {
            State::Greeting | State::Answering(_) | State::Challenged(_) | State::Verifying(_) => {
                self.drops.count(Reason::PreauthTime);
                self.refuse(now, conn, "no proof of identity in time", actions);
            }
            State::Established(established) if now.since(established.heard) >= silence => {
                self.drops.count(Reason::Silent);
                self.part(now, conn, Some(CLOSE_SILENT), "silent", actions);
            }
            State::Established(established) if established.channel.is_old(now) => self.part_old(now, conn, actions),
            State::Established(established) => {
                let at = (established.heard + silence).min(established.channel.since() + MAX_AGE);
                self.arm(conn, at);
            }
            State::Parting => {}
        }
    }

    /// False when it is shown out at once.
    fn accepted(&mut self, now: Instant, conn: ConnId, exporter: [u8; 32], remote: SocketAddr, actions: &mut Vec<HubAction>) -> bool {
        // The address as people write it: an IPv4 client of a dual-stack listener is an IPv4 client.
        let observed = canonical(remote);
        let source = Some(Source::of(remote));
        let client = Client { conn, remote: observed, source, exporter, bytes: 0, timer: None, state: State::Greeting };
        self.clients.insert(conn, client);
        actions.push(edit(Edit::Open { conn }));
        if self.is_closed() {
            self.part(now, conn, None, "the relay goes away", actions);
        }
        !self.is_closed()
    }

    fn closed(&mut self, now: Instant, conn: ConnId, actions: &mut Vec<HubAction>) {
        self.end(now, conn, "connection closed", actions);
        let Some(client) = self.clients.remove(&conn) else { return };
        if let Some(source) = client.source {
            self.admission.release(source);
        }
        actions.push(edit(Edit::Close { conn }));
    }

    fn leave(&mut self) {
        self.directory = Directory::default();
        self.leaving = Some(self.clients.keys().copied().collect());
    }

    fn arm(&mut self, conn: ConnId, at: Instant) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if let Some(old) = client.timer.replace(at) {
            self.timers.remove(&(old, conn));
        }
        self.timers.insert((at, conn));
    }

    fn silence(&self) -> Duration {
        self.config.keepalive * SILENT_KEEPALIVES
    }
}

/// Messages and jobs before the proof.
impl Hub {
    fn message(&mut self, now: Instant, conn: ConnId, bytes: &mut [u8], actions: &mut Vec<HubAction>) {
        match self.clients.get(&conn).map(|client| &client.state) {
            None | Some(State::Parting) => {}
            Some(State::Established(_)) => self.sealed(now, conn, bytes, actions),
            Some(State::Greeting | State::Answering(_) | State::Challenged(_) | State::Verifying(_)) => {
                self.greet(now, conn, bytes, actions);
            }
        }
    }

    fn greet(&mut self, now: Instant, conn: ConnId, bytes: &[u8], actions: &mut Vec<HubAction>) {
        let client = self.clients.get_mut(&conn).expect("the caller found it");
        // One that is empty costs a turn of the control room as well.
        client.bytes += bytes.len().max(LEAST_MESSAGE_BYTES);
        if client.bytes > self.config.limits.preauth_bytes {
            self.drops.count(Reason::PreauthBytes);
            return self.refuse(now, conn, "more bytes than a handshake needs", actions);
        }
        let own = Own {
            identity: &self.config.identity,
            mac1: &self.mac1,
            suites: &self.config.suites,
            room: self.half_open < self.config.limits.half_open_total,
        };
        match client.greet(bytes, &own) {
            Ok(Step::Answer { hello }) => {
                self.half_open += 1;
                self.answered += 1;
                let entropy = self.entropy.as_mut().expect("the driver hands in entropy before the first connection");
                let mut sid = entropy.public_u32();
                while !self.reflector.is_free(sid) {
                    sid = entropy.public_u32();
                }
                let work = client.answer(hello, &own, sid, entropy.secret());
                self.jobs.push(conn, work);
            }
            Ok(Step::Verify(work)) => self.jobs.push(conn, work),
            Ok(Step::Send(bytes)) => actions.push(HubAction::Send { conn, bytes }),
            Err(Reason::HalfOpenTotal) => {
                self.drops.count(Reason::HalfOpenTotal);
                self.refuse(now, conn, "too many handshakes under way", actions);
            }
            Err(reason) => {
                self.drops.count(reason);
                if reason == Reason::BadHello {
                    let remote = client.remote;
                    self.note_refused(now, remote, "HELLO for another relay, or malformed".into(), actions);
                }
            }
        }
    }

    fn computed(&mut self, now: Instant, done: Done, actions: &mut Vec<HubAction>) {
        // A connection that is gone by now has nothing to be told.
        let Some(conn) = self.jobs.finish(done.ticket) else { return };
        match done.outcome {
            Outcome::Answered(result) => self.answered(now, conn, result, actions),
            Outcome::Verified(result) => self.verified(now, conn, result, actions),
            Outcome::Offered(_)
            | Outcome::Concluded(_)
            | Outcome::RekeyOffered(_)
            | Outcome::RekeyAnswered(_)
            | Outcome::RekeyConcluded(_) => {}
        }
    }

    fn answered(&mut self, now: Instant, conn: ConnId, result: Result<Arc<Answer>, HandshakeError>, actions: &mut Vec<HubAction>) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let State::Answering(hello) = &mut client.state else { return };
        match result {
            Ok(answer) => {
                let hello = core::mem::take(hello);
                let bytes = answer.resp().to_vec();
                turn(&mut client.state, State::Challenged(Challenge { hello, answer, repeated: false }));
                actions.push(HubAction::Send { conn, bytes });
            }
            Err(error) => {
                turn(&mut client.state, State::Greeting);
                self.half_open -= 1;
                self.drops.count(Reason::BadHello);
                let remote = client.remote;
                self.note_refused(now, remote, format!("HELLO: {error}"), actions);
            }
        }
    }

    fn verified(&mut self, now: Instant, conn: ConnId, result: Result<Verified, HandshakeError>, actions: &mut Vec<HubAction>) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if !matches!(client.state, State::Verifying(_)) {
            return;
        }
        let State::Verifying(challenge) = core::mem::replace(&mut client.state, State::Parting) else {
            unreachable!("the state was matched above")
        };
        match result {
            Ok(verified) => {
                self.half_open -= 1;
                self.proven(now, conn, &challenge, &verified, actions);
            }
            Err(error) => {
                let remote = client.remote;
                client.state = State::Challenged(challenge);
                took::<State>("Verifying", client.state.name());
                self.drops.count(Reason::BadResponse);
                self.note_refused(now, remote, format!("RESPONSE: {error}"), actions);
            }
        }
    }

    /// The client has proven who it is: a place in the directory, and ESTABLISHED. Its state is `Parting` until it has both.
    fn proven(&mut self, now: Instant, conn: ConnId, challenge: &Challenge, verified: &Verified, actions: &mut Vec<HubAction>) {
        let client = self.clients.get_mut(&conn).expect("the caller found it");
        let id = verified.peer.id();
        let mut channel = Channel::new(now, challenge.answer.sid(), verified, &*self.config.crypto);
        // Before anything is given back: identities cost nothing to make, tries at a token must.
        let access = &self.config.access;
        if !access.takes_pass(self.config.identity.id(), verified.params.pass.as_ref()) {
            return self.refuse_proven(now, conn, &mut channel, Reason::AccessDenied, actions);
        }
        if !access.takes_peer(id) {
            return self.refuse_proven(now, conn, &mut channel, Reason::PeerDenied, actions);
        }
        if let Some(source) = client.source.take() {
            self.admission.prove(source);
        }
        let Some(net_r) = verified.params.net_r else {
            return self.refuse_proven(now, conn, &mut channel, Reason::NoNetwork, actions);
        };
        let replaces = self.directory.find(&net_r, id).is_some();
        if self.established >= self.config.limits.clients && !replaces {
            return self.refuse_proven(now, conn, &mut channel, Reason::ClientsFull, actions);
        }
        let member = Member {
            conn,
            handle: Handle(0),
            observed: client.remote,
            withhold: verified.params.withhold_address,
            supports_direct: verified.params.supports_direct,
        };
        let Some(joined) = self.directory.join(now, net_r, id, member) else {
            return self.refuse_proven(now, conn, &mut channel, Reason::ClientsFull, actions);
        };
        let session_id = channel.session_id().0;
        let (remote, handle, network) = (client.remote, joined.handle, joined.network);
        self.reflector.add(channel.own_sid(), conn);
        let binds = Bucket::default();
        client.state = State::Established(Box::new(Established { id, network, handle, channel, heard: now, binds }));
        took::<State>("Verifying", client.state.name());
        self.established += 1;
        self.succeeded += 1;
        if let Some(old) = joined.replaced {
            self.replace(now, old, id, joined.shared, actions);
        }
        actions.push(edit(Edit::Join { conn, handle, network }));
        self.establish(conn, session_id, handle, network, id, actions);
        actions.push(HubAction::Note(HubNote::Joined { id, remote, handle }));
        let at = now + self.silence();
        self.arm(conn, at);
    }

    /// protocol 6.5: ESTABLISHED with the first page of the directory, then the other pages.
    fn establish(
        &mut self,
        conn: ConnId,
        session_id: [u8; 16],
        your_handle: Handle,
        network: u32,
        id: PeerId,
        actions: &mut Vec<HubAction>,
    ) {
        let Some(client) = self.clients.get(&conn) else { return };
        let limits = &self.config.limits;
        let mut pages = self.directory.pages(network, id).into_iter();
        let established = RelayMessage::Established(wire::Established {
            session_id,
            your_handle,
            observed: client.remote,
            keepalive_s: u16::try_from(self.config.keepalive.as_secs()).unwrap_or(u16::MAX).max(1),
            max_frame: u16::try_from(limits.frame_bytes).unwrap_or(u16::MAX),
            // protocol 7.1: re-sends and hedges stay below half of the queue
            window: u32::try_from(limits.queue_frames / 2).unwrap_or(u32::MAX),
            udp_port: self.reflector.first_port(),
            entries: pages.next().unwrap_or_default(),
        });
        self.send(conn, &established, actions);
        for entries in pages {
            self.send(conn, &RelayMessage::Directory { entries }, actions);
        }
    }

    fn replace(&mut self, now: Instant, old: ConnId, id: PeerId, shared: bool, actions: &mut Vec<HubAction>) {
        if shared {
            actions.push(HubAction::Note(HubNote::SharedIdentity { id }));
        }
        let reason = if shared { CLOSE_SHARED_IDENTITY } else { CLOSE_REPLACED };
        self.part(now, old, Some(reason), "replaced by a newer connection", actions);
    }
}

/// Messages of established clients.
impl Hub {
    fn sealed(&mut self, now: Instant, conn: ConnId, bytes: &mut [u8], actions: &mut Vec<HubAction>) {
        let Some(Client { state: State::Established(established), .. }) = self.clients.get_mut(&conn) else { return };
        if bytes.first() != Some(&TYPE_FRAME) {
            return self.drops.count(Reason::UnexpectedMessage);
        }
        let opened = established.channel.open(bytes);
        if !matches!(opened, Err(Reason::BadFrame | Reason::ReplayedFrame)) {
            established.heard = now;
        }
        let (network, id, old) = (established.network, established.id, established.channel.is_old(now));
        match opened {
            Err(reason) => self.drops.count(reason),
            Ok(Inbound::Keepalive | Inbound::Message(RelayMessage::Pong { .. })) => {}
            Ok(Inbound::Message(RelayMessage::Ping { id })) => self.send(conn, &RelayMessage::Pong { id }, actions),
            Ok(Inbound::Message(RelayMessage::Lookup { peer })) => {
                let entries = vec![self.directory.lookup(network, peer)];
                self.send(conn, &RelayMessage::Directory { entries }, actions);
            }
            Ok(Inbound::Message(RelayMessage::Update { flags, .. })) => {
                let (direct, withhold) = (flags & UPDATE_SUPPORTS_DIRECT != 0, flags & UPDATE_WITHHOLD_ADDRESS != 0);
                self.directory.update(now, network, id, direct, withhold);
            }
            Ok(Inbound::Message(RelayMessage::Attach { address, ticket })) => {
                let own_sid = established.channel.own_sid();
                if self.reflector.takes_ticket(now, own_sid, address, &ticket) {
                    actions.push(edit(Edit::Attach { conn, address }));
                } else {
                    self.drops.count(Reason::StaleTicket);
                }
            }
            Ok(Inbound::Message(RelayMessage::Route { receiver, to })) => actions.push(edit(Edit::Route { conn, receiver, to })),
            Ok(Inbound::Message(RelayMessage::Close { .. })) => return self.part(now, conn, None, "said goodbye", actions),
            Ok(Inbound::Message(RelayMessage::Established(_) | RelayMessage::Directory { .. } | RelayMessage::GoAway { .. })) => {
                self.drops.count(Reason::BadControl);
            }
        }
        if old {
            self.part_old(now, conn, actions);
        }
    }

    /// protocol 8.1: BIND of an established client is answered, and nothing else is
    fn datagram(&mut self, now: Instant, port: u8, remote: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>, Reason> {
        let conn = self.reflector.asker(bytes)?;
        let Some(Client { state: State::Established(established), .. }) = self.clients.get_mut(&conn) else {
            return Err(Reason::UnknownSession);
        };
        let Established { channel, binds, .. } = &mut **established;
        if let Some(entropy) = &mut self.entropy {
            self.reflector.renew(now, entropy);
        }
        self.reflector.answer(now, channel, binds, port, remote, bytes)
    }

    pub(super) fn send(&mut self, conn: ConnId, message: &RelayMessage, actions: &mut Vec<HubAction>) {
        if let Some(Client { state: State::Established(established), .. }) = self.clients.get_mut(&conn) {
            actions.push(HubAction::Send { conn, bytes: established.channel.seal(message) });
        }
    }
}

fn edit(edit: Edit) -> HubAction {
    HubAction::Edit(ForwardEdit(edit))
}
