//! One relay of the join token, as a client sees it.
//!
//! ```text
//!   Idle ──dial──▶ Dialling ──Opened──▶ Greeting: Offering → Offered → Concluding → Confirming ──ESTABLISHED──▶ Up
//!    ▲                │                     │                                                                  │
//!    └────────────────┴── closed, refused, too slow: back-off 2 ms … 1 s or 5 s (protocol 7.6) ◀───────────────┘
//!   Parked: closed on purpose after a migration (p2p.close_relay), dialled again when a link needs it
//! ```
mod directory;
mod ending;
mod foreign;
mod patience;
mod reasons;
mod report;
mod udp;

use super::{
    lane::NodeLane,
    reflexive::Reflexive,
    room::{Owner, Room, Use},
};
use crate::{
    bound::Bound,
    drops::Drop,
    edges::{Chart, States, edges, took, turn},
    event::{Note, Target, TlsFacts},
    handshake::{Concluded, HandshakeError, Offer, Outcome, Setup, Ticket, Work},
    id::{ConnId, Handle, PeerId},
    network::{AccessKey, RelayAddress},
    plane::Edit,
    session::Side,
    time::{Duration, Instant},
    wire::{DirectoryEntry, Established, FrameHeader, INNER_CONTROL, Params, RelayMessage, TYPE_FRAME, TYPE_RESP},
};
use core::net::{IpAddr, SocketAddr};
use directory::{Directory, ENTRIES_MAX, Full};
use patience::Patience;
use reasons::meaning;
use std::sync::Arc;

/// Dial and handshake together.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// An unanswered ping ends the connection after so long; when a link reports a stall, much sooner.
const PONG_TIME: Duration = Duration::from_secs(10);
const PONG_TIME_URGENT: Duration = Duration::from_secs(2);
/// A client that needs a relay no more that goes away stays so long: what is on its way to it there arrives. It looks again so often
/// (protocol 6.9).
const LINGER: Duration = Duration::from_secs(1);

/// Another member as a relay tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) peer: PeerId,
    pub(crate) handle: Handle,
    pub(crate) public: Option<SocketAddr>,
    pub(crate) online: bool,
}

enum Step {
    Offering(Ticket),
    Offered(Arc<Offer>),
    Concluding(Ticket),
    Confirming(NodeLane),
}

struct Greeting {
    conn: ConnId,
    relay: PeerId,
    setup: Setup,
    sid: u32,
    ends: (SocketAddr, SocketAddr),
    until: Instant,
    step: Step,
    /// Who ends TLS, where its certificate is not of the relay's key.
    subject: Option<String>,
}

/// An established relay connection.
pub(crate) struct Up {
    pub(crate) conn: ConnId,
    pub(crate) window: u64,
    lane: NodeLane,
    sid: u32,
    ends: (SocketAddr, SocketAddr),
    observed: SocketAddr,
    keepalive: Duration,
    next_ping_at: Instant,
    ping: Option<(u32, Instant)>,
    pong_by: Option<Instant>,
    /// When data of peers came over it last.
    heard_at: Instant,
    next_id: u32,
    rtt: Option<Duration>,
    /// None where the relay has no UDP port.
    reflexive: Option<Reflexive>,
    /// The relay has said that it goes away: when this client looks next whether it is still needed.
    leaves_at: Option<Instant>,
}

enum State {
    Idle { retry_at: Instant },
    Parked,
    Dialling { conn: ConnId, until: Instant },
    Greeting(Box<Greeting>),
    Up(Box<Up>),
}

edges!(State, "A peer's connection to a relay", [Idle, Parked, Dialling, Greeting, Up],
    Idle => Dialling: "the start, or the back-off is over",
    Idle => Parked: "the back-off is over while the peer leaves",
    Parked => Dialling: "a link needs the relay again",
    Dialling => Greeting: "TCP, TLS and WebSocket stand: job for keys and HELLO",
    Dialling => Idle: "the dial failed, our addresses or routes changed, or there is nobody to expect there",
    Greeting => Up: "ESTABLISHED",
    Greeting => Idle: "the connection or its address is gone, the handshake failed, CLOSE, or no ESTABLISHED 10 s after the dial",
    Up => Idle: "the connection or its address is gone, CLOSE, a ping that is not answered, or it goes away and nobody needs it",
    Up => Parked: "every peer is direct, and close_relay is set",
);

edges!(Step, "A peer's handshake with a relay", [Offering, Offered, Concluding, Confirming],
    Offering => Offered: "the job is done: HELLO goes out",
    Offered => Concluding: "CHALLENGE with a good mac1: job to verify it",
    Concluding => Confirming: "CHALLENGE was good: RESPONSE goes out",
);

pub(super) const CHARTS: [Chart; 2] = [State::CHART, Step::CHART];

/// What the node has to do after an uplink took something in.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Members that came, went or changed.
    pub(crate) presences: Vec<Presence>,
    /// The connection is gone: its members are not reachable over it.
    pub(crate) lost: bool,
    /// The connection stands.
    pub(crate) up: bool,
    /// The relay goes away.
    pub(crate) goes: bool,
}

/// One relay of the token.
pub(crate) struct Uplink {
    index: usize,
    url: String,
    /// Its identity: from the token, or from the first certificate.
    pin: Option<PeerId>,
    /// What it lets in by, from the token.
    access: Option<AccessKey>,
    state: State,
    patience: Patience,
    last_error: Option<String>,
    directory: Directory,
}

impl Uplink {
    /// What it keeps, beside the most.
    pub(super) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        each(Bound::new("directory entries of a relay", self.directory.len(), ENTRIES_MAX));
        if let Some(reflexive) = self.up().and_then(|up| up.reflexive.as_ref()) {
            reflexive.bounds(each);
        }
    }

    pub(crate) fn new(index: usize, relay: &RelayAddress) -> Self {
        let RelayAddress { url, id, access } = relay.clone();
        Self {
            index,
            url,
            pin: id,
            access,
            state: State::Idle { retry_at: Instant::ZERO },
            patience: Patience::new(),
            last_error: None,
            directory: Directory::default(),
        }
    }

    pub(crate) fn up(&self) -> Option<&Up> {
        match &self.state {
            State::Up(up) => Some(up),
            State::Idle { .. } | State::Parked | State::Dialling { .. } | State::Greeting(_) => None,
        }
    }

    /// Both ends of the connection, once it stands.
    pub(crate) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.up().map(|up| up.ends)
    }

    /// Our address as the relay sees it.
    pub(crate) fn observed(&self) -> Option<SocketAddr> {
        self.up().map(|up| up.observed)
    }

    /// Who is online there, as far as it told.
    pub(crate) fn presences(&self) -> Vec<Presence> {
        self.directory.presences().collect()
    }

    /// Who is said to have this handle.
    pub(crate) fn holder(&self, handle: Handle) -> Option<PeerId> {
        self.directory.holder(handle)
    }

    /// Dials, unless it stands already.
    pub(crate) fn dial(&mut self, now: Instant, room: &mut Room) {
        if !matches!(self.state, State::Idle { .. } | State::Parked) {
            return;
        }
        let target = Target::Relay { index: self.index, url: self.url.clone(), pin: self.pin };
        let conn = room.dial(target, CONNECT_TIME, Use::Uplink(self.index));
        turn(&mut self.state, State::Dialling { conn, until: now + CONNECT_TIME });
        room.note(Note::RelayConnecting { index: self.index });
    }

    /// TCP, TLS and WebSocket are done: greet.
    pub(crate) fn opened(&mut self, now: Instant, room: &mut Room, tls: &TlsFacts, ends: (SocketAddr, SocketAddr)) {
        let State::Dialling { conn, until } = self.state else { return };
        let Some(relay) = self.pin.or(tls.identity) else {
            let who = tls.subject.clone().unwrap_or_else(|| "an unnamed certificate".into());
            self.fail(
                now,
                room,
                format!("TLS is ended by {who}; a relay with such a certificate needs its PeerId in the join token (--relay-id)"),
            );
            return;
        };
        let setup = Setup::client_relay(tls.exporter);
        let sid = room.fresh_sid(relay);
        let coins = room.entropy.secret::<96>();
        let work = Work::Offer { setup: setup.clone(), responder: relay, sid, suites: room.config.suites.clone(), coins };
        let Some(ticket) = room.compute(Owner::Uplink(self.index), work) else {
            room.sids.remove(&sid);
            self.fail(now, room, "too many handshakes at once".into());
            return;
        };
        let step = Step::Offering(ticket);
        let subject = tls.subject.clone();
        turn(&mut self.state, State::Greeting(Box::new(Greeting { conn, relay, setup, sid, ends, until, step, subject })));
    }

    /// A job of ours is done.
    pub(crate) fn computed(&mut self, now: Instant, room: &mut Room, ticket: Ticket, outcome: Outcome) {
        let State::Greeting(greeting) = &mut self.state else { return };
        match (&greeting.step, outcome) {
            (Step::Offering(expected), Outcome::Offered(offer)) if *expected == ticket => {
                room.act(crate::event::Action::Send { conn: greeting.conn, bytes: offer.init().to_vec() });
                turn(&mut greeting.step, Step::Offered(offer));
            }
            (Step::Concluding(expected), Outcome::Concluded(result)) if *expected == ticket => self.concluded(now, room, result),
            _ => {}
        }
    }

    fn concluded(&mut self, now: Instant, room: &mut Room, result: Result<Concluded, HandshakeError>) {
        let State::Greeting(greeting) = &mut self.state else { return };
        match result {
            Ok(done) => {
                let keys = done.chain.keys(Side::Initiator, &*room.config.crypto);
                room.act(crate::event::Action::Send { conn: greeting.conn, bytes: done.fin });
                turn(&mut greeting.step, Step::Confirming(NodeLane::new(keys, done.peer_sid)));
            }
            Err(error) => {
                let relay = greeting.relay;
                room.refuse(Some(relay), greeting.blame(format!("relay {} failed its handshake: {error}", self.url)));
                self.fail(now, room, format!("handshake: {error}"));
            }
        }
    }

    /// A bare message on the relay's connection.
    pub(crate) fn message(&mut self, now: Instant, room: &mut Room, bytes: &mut [u8]) -> News {
        match &mut self.state {
            State::Greeting(greeting) => match (&mut greeting.step, bytes.first()) {
                (Step::Offered(offer), Some(&TYPE_RESP)) => {
                    if greeting.setup.mac1_key(greeting.relay).verify_resp(bytes).is_err() {
                        room.drops.count(Drop::Forged);
                        room.refuse(Some(greeting.relay), format!("an answer of relay {} was altered on the way", self.url));
                        return News::default();
                    }
                    let params = Params {
                        net_r: Some(room.config.network.net_r(greeting.relay)),
                        // sealed in FIN, for a relay whose RESP has verified: nobody else sees it (protocol 2.7)
                        pass: self.access.as_ref().map(|access| access.pass(greeting.relay)),
                        supports_direct: room.config.direct.any(),
                        version: Some(room.config.version.clone()),
                        ..Params::default()
                    };
                    let work = Work::Conclude {
                        setup: greeting.setup.clone(),
                        identity: Arc::clone(&room.config.identity),
                        responder: greeting.relay,
                        offer: Arc::clone(offer),
                        resp: bytes.to_vec(),
                        params,
                        coins: room.entropy.secret::<32>(),
                    };
                    if let Some(ticket) = room.compute(Owner::Uplink(self.index), work) {
                        turn(&mut greeting.step, Step::Concluding(ticket));
                    }
                    News::default()
                }
                (Step::Confirming(_), Some(&TYPE_FRAME)) => self.confirm(now, room, bytes),
                _ => {
                    room.drops.count(Drop::Unexpected);
                    News::default()
                }
            },
            State::Up(up) => match open(now, &mut up.lane, bytes) {
                Ok(message) => self.take(now, room, message),
                Err(reason) => {
                    room.drops.count(reason);
                    News::default()
                }
            },
            State::Idle { .. } | State::Parked | State::Dialling { .. } => News::default(),
        }
    }

    /// The relay's first sealed frame is ESTABLISHED: it confirms the session.
    fn confirm(&mut self, now: Instant, room: &mut Room, bytes: &mut [u8]) -> News {
        let State::Greeting(greeting) = &mut self.state else { return News::default() };
        let Step::Confirming(lane) = &mut greeting.step else { return News::default() };
        let established = match open(now, lane, bytes) {
            Ok(RelayMessage::Established(established)) => established,
            Ok(RelayMessage::Close { reason }) => {
                self.fail(now, room, format!("the relay refused us: {}", meaning(reason)));
                return News { lost: true, ..News::default() };
            }
            Ok(_) => {
                room.drops.count(Drop::Unexpected);
                return News::default();
            }
            Err(reason) => {
                room.drops.count(reason);
                return News::default();
            }
        };
        self.stand(now, room, &established)
    }

    fn stand(&mut self, now: Instant, room: &mut Room, established: &Established) -> News {
        let greeting = match core::mem::replace(&mut self.state, State::Parked) {
            State::Greeting(greeting) => *greeting,
            other => {
                self.state = other;
                return News::default();
            }
        };
        let Step::Confirming(lane) = greeting.step else { return News::default() };
        self.pin = Some(greeting.relay);
        self.patience.rest();
        self.last_error = None;
        let keepalive = Duration::from_secs(u64::from(established.keepalive_s.max(1)));
        let relay_at = SocketAddr::new(greeting.ends.1.ip(), established.udp_port);
        let mut reflexive = lane
            .keys()
            // behind a proxy nobody knows where the relay is
            .filter(|_| established.udp_port != 0 && !relay_at.ip().is_unspecified())
            .map(|keys| Reflexive::new(Arc::clone(&keys.path), greeting.sid, lane.remote(), relay_at));
        if let Some(reflexive) = &mut reflexive {
            reflexive.ask_anew(now, room);
        }
        self.state = State::Up(Box::new(Up {
            conn: greeting.conn,
            window: u64::from(established.window.max(8)),
            lane,
            sid: greeting.sid,
            ends: greeting.ends,
            observed: established.observed,
            keepalive,
            next_ping_at: now,
            ping: None,
            pong_by: None,
            heard_at: now,
            next_id: 1,
            rtt: None,
            reflexive,
            leaves_at: None,
        }));
        took::<State>("Greeting", self.state.name());
        room.edit(Edit::Relay { conn: greeting.conn, stands: true });
        room.note(Note::RelayConnected { index: self.index, id: greeting.relay, observed: established.observed });
        News { presences: self.learn(room, &established.entries), up: true, ..News::default() }
    }

    fn take(&mut self, now: Instant, room: &mut Room, message: RelayMessage) -> News {
        match message {
            RelayMessage::Directory { entries } => News { presences: self.learn(room, &entries), ..News::default() },
            RelayMessage::Ping { id } => {
                self.say(room, &RelayMessage::Pong { id });
                News::default()
            }
            RelayMessage::Pong { id } => {
                if let State::Up(up) = &mut self.state
                    && let Some((expected, sent_at)) = up.ping
                    && expected == id
                {
                    up.rtt = Some(now.since(sent_at));
                    up.ping = None;
                    up.pong_by = None;
                    up.next_ping_at = now + up.keepalive;
                }
                News::default()
            }
            RelayMessage::Close { reason } => {
                self.fail(now, room, format!("closed by the relay: {}", meaning(reason)));
                News { lost: true, ..News::default() }
            }
            RelayMessage::GoAway { within_s } => {
                if let State::Up(up) = &mut self.state {
                    up.leaves_at = Some(now + LINGER);
                    room.note(Note::RelayGoing { index: self.index, within: Duration::from_secs(within_s.into()) });
                }
                News { goes: true, ..News::default() }
            }
            RelayMessage::Established(_)
            | RelayMessage::Lookup { .. }
            | RelayMessage::Update { .. }
            | RelayMessage::Attach { .. }
            | RelayMessage::Route { .. } => {
                room.drops.count(Drop::Unexpected);
                News::default()
            }
        }
    }

    fn learn(&mut self, room: &mut Room, entries: &[DirectoryEntry]) -> Vec<Presence> {
        let mut news = Vec::new();
        for entry in entries.iter().filter(|entry| entry.peer != room.own) {
            let presence = Presence { peer: entry.peer, handle: entry.handle, public: entry.public, online: entry.online };
            match self.directory.learn(presence) {
                Ok(()) => news.push(presence),
                Err(Full) => room.drops.count(Drop::Control),
            }
        }
        news
    }

    /// Seals a message to the relay.
    pub(crate) fn say(&mut self, room: &mut Room, message: &RelayMessage) {
        if let State::Up(up) = &mut self.state {
            let bytes = up.lane.seal(INNER_CONTROL, |out| message.emit(out));
            room.act(crate::event::Action::Send { conn: up.conn, bytes });
        }
    }

    /// Data of a peer came over it: received data counts as life (protocol 7.5).
    pub(crate) fn heard(&mut self, at: Instant) {
        if let State::Up(up) = &mut self.state {
            up.heard_at = up.heard_at.max(at);
        }
    }

    /// Our addresses have changed, and these are gone; or `rerouted`: only the ways to others have. A connection from an address that is
    /// gone is dead, one that stands must show life, and what a wait was for may be over. True when an established connection was given up.
    pub(crate) fn moved(&mut self, now: Instant, room: &mut Room, gone: &[IpAddr], rerouted: bool) -> bool {
        let stood = self.up().is_some();
        let is_dead = match &self.state {
            // nobody knows yet from which one it goes, or by which route
            State::Dialling { .. } => rerouted || !gone.is_empty(),
            State::Greeting(greeting) => gone.contains(&greeting.ends.0.ip()),
            State::Up(up) => gone.contains(&up.ends.0.ip()),
            State::Idle { .. } | State::Parked => false,
        };
        if is_dead {
            self.fail(now, room, "our address is gone, or the way from it".into());
        }
        if let State::Idle { retry_at } = &mut self.state {
            *retry_at = now;
            self.patience.rest();
        }
        self.doubt(now);
        stood && is_dead
    }

    /// A link reports that nothing comes through: ask at once.
    pub(crate) fn doubt(&mut self, now: Instant) {
        if let State::Up(up) = &mut self.state {
            if up.ping.is_none() {
                up.next_ping_at = now;
            }
            let by = now + PONG_TIME_URGENT;
            up.pong_by = Some(up.pong_by.map_or(by, |known| known.min(by)));
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Idle { retry_at } => Some(*retry_at),
            State::Greeting(greeting) => Some(greeting.until),
            State::Up(up) => {
                let ping_at = up.pong_by.map_or(up.next_ping_at, |by| if up.ping.is_some() { by } else { by.min(up.next_ping_at) });
                let bind_at = up.reflexive.as_ref().and_then(Reflexive::deadline);
                [Some(ping_at), bind_at, up.leaves_at].into_iter().flatten().min()
            }
            State::Parked | State::Dialling { .. } => None,
        }
    }

    /// Does what is due. True when an established connection was given up.
    pub(crate) fn alarm(&mut self, now: Instant, room: &mut Room) -> bool {
        if let State::Up(up) = &mut self.state
            && let Some(reflexive) = &mut up.reflexive
        {
            reflexive.alarm(now, room);
        }
        match &mut self.state {
            // a due dial that is never made would be due for ever
            State::Idle { retry_at } if *retry_at <= now && room.leaving => {
                turn(&mut self.state, State::Parked);
            }
            State::Idle { retry_at } if *retry_at <= now => self.dial(now, room),
            State::Greeting(greeting) if greeting.until <= now => self.fail(now, room, "no answer to the handshake in time".into()),
            // an answer may stand in a long queue behind data; as long as that comes, the relay lives
            State::Up(up) if up.pong_by.is_some_and(|by| by <= now) && up.heard_at + PONG_TIME_URGENT > now => {
                up.pong_by = Some(up.heard_at + PONG_TIME_URGENT);
            }
            State::Up(up) if up.pong_by.is_some_and(|by| by <= now) => {
                self.fail(now, room, "the relay does not answer any more".into());
                return true;
            }
            State::Up(up) if up.ping.is_none() && up.next_ping_at <= now => {
                let id = up.next_id;
                up.next_id = up.next_id.wrapping_add(1);
                up.ping = Some((id, now));
                up.pong_by = Some(up.pong_by.unwrap_or(now + PONG_TIME));
                self.say(room, &RelayMessage::Ping { id });
            }
            State::Idle { .. } | State::Greeting(_) | State::Up(_) | State::Parked | State::Dialling { .. } => {}
        }
        false
    }
}

/// Opens a sealed frame of the session with a relay.
fn open(now: Instant, lane: &mut NodeLane, bytes: &mut [u8]) -> Result<RelayMessage, Drop> {
    let header = FrameHeader::parse(bytes).map_err(|_| Drop::Malformed)?;
    let (_, inner, body) = lane.open(now, header, bytes)?;
    if inner != INNER_CONTROL {
        return Err(Drop::Unexpected);
    }
    RelayMessage::parse(body).map_err(|_| Drop::Malformed)
}

#[cfg(test)]
mod relay_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::rustcrypto::RustCrypto,
        session::{Chain, Suite},
    };
    use zeroize::Zeroizing;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn relay(id: Option<PeerId>) -> RelayAddress {
        RelayAddress::new("wss://relay.example", id).expect("a good URL")
    }

    fn up() -> Uplink {
        let keys = Chain::start(Zeroizing::new([1; 64]), Suite::ChaCha20Poly1305).keys(Side::Initiator, &RustCrypto);
        let end = SocketAddr::from(([192, 0, 2, 1], 443));
        let mut uplink = Uplink::new(0, &relay(None));
        uplink.state = State::Up(Box::new(Up {
            conn: ConnId(0),
            window: 256,
            lane: NodeLane::new(keys, 1),
            sid: 2,
            ends: (end, end),
            observed: end,
            keepalive: Duration::from_secs(25),
            next_ping_at: at(60_000),
            ping: None,
            pong_by: None,
            heard_at: at(0),
            next_id: 1,
            rtt: None,
            reflexive: None,
            leaves_at: None,
        }));
        uplink
    }

    #[test]
    fn a_relay_that_brings_data_is_not_given_up_because_its_pong_is_late() {
        let room = &mut crate::link::tests::room(Vec::new());
        let mut uplink = up();
        uplink.doubt(at(10_000));
        assert!(!uplink.alarm(at(10_000), room), "the ping goes out");
        uplink.heard(at(11_500));
        assert!(!uplink.alarm(at(12_000), room), "data came half a second ago");
        assert_eq!(uplink.deadline(), Some(at(13_500)));
        assert!(uplink.alarm(at(13_500), room), "neither pong nor data for two seconds");
    }

    #[test]
    fn a_connection_from_an_address_that_is_gone_is_dialled_anew_at_once() {
        let room = &mut crate::link::tests::room(Vec::new());
        let [own, other] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().expect("an address"));
        let mut uplink = up();
        assert!(!uplink.moved(at(10_000), room, &[other], false), "it may live");
        assert_eq!(uplink.deadline(), Some(at(10_000)), "it is asked at once");
        let mut uplink = up();
        assert!(uplink.moved(at(10_000), room, &[own], false));
        assert_eq!(uplink.deadline(), Some(at(10_000)));
        // nobody knows from which address a dial goes
        uplink.alarm(at(10_000), room);
        assert!(matches!(uplink.state, State::Dialling { .. }));
        assert!(!uplink.moved(at(10_500), room, &[], false) && matches!(uplink.state, State::Dialling { .. }));
        assert!(!uplink.moved(at(10_500), room, &[other], false));
        assert_eq!(uplink.deadline(), Some(at(10_500)));
        uplink.alarm(at(10_500), room);
        assert!(!uplink.moved(at(10_600), room, &[], true));
        assert_eq!(uplink.deadline(), Some(at(10_600)), "nor by which route");
    }

    // protocol 7.6
    #[test]
    fn dial_and_handshake_have_ten_seconds_together() {
        let room = &mut crate::link::tests::room(Vec::new());
        let mut uplink = Uplink::new(0, &relay(Some(PeerId([7; 32]))));
        uplink.dial(at(1_000), room);
        let end = SocketAddr::from(([192, 0, 2, 1], 443));
        uplink.opened(at(8_000), room, &TlsFacts { exporter: [4; 32], identity: None, subject: None }, (end, end));
        assert_eq!(uplink.deadline(), Some(at(11_000)));
    }

    #[test]
    fn a_relay_that_is_not_dialled_while_leaving_rings_once() {
        let room = &mut crate::link::tests::room(Vec::new());
        room.leaving = true;
        let mut uplink = Uplink::new(0, &relay(None));
        uplink.alarm(at(1), room);
        assert_eq!(uplink.deadline(), None);
    }
}
