//! The live session with a peer: its control messages, its rekeying, its end (protocol 4.5, 7.8, 7.9).
use super::{CONFIRMED_TIME, Link};
use crate::{
    bound::Bound,
    control::ControlStream,
    crypto::Provider,
    drops::Drop,
    edges::{Chart, States, edges, took, turn},
    event::Note,
    handshake::{Outcome, RekeyOffer, Ticket, Work},
    id::PathId,
    node::{NodeLane, Owner, Room},
    plane::{Edit, Install, Slabs, Via},
    session::{Chain, Side},
    time::{Duration, Instant},
    wire::{CLOSE_DOWN, FrameHeader, INNER_CONTROL, INNER_KEEPALIVE, NodeControl, Params, PathLabel, PeerMessage},
};
use core::net::SocketAddr;
use std::sync::Arc;

/// A session is rekeyed after so many frames over all lanes at the latest (protocol 4.5).
const REKEY_FRAMES: u64 = 1 << 22;
/// Keys that should have been replaced so long ago end the session (protocol 4.5).
const REKEY_OVERDUE: Duration = Duration::from_mins(3);
/// A full handshake at the latest after so long (protocol 3.10).
const SESSION_TIME: Duration = Duration::from_hours(24);
/// Shortest life of an epoch that the other end may cause: it must not keep us busy with KEM operations, nor pile up keys.
const REKEY_LEAST: Duration = Duration::from_secs(2);
/// The first frame in a new epoch is repeated so often, at doubling distances from this: until it has come, the responder seals
/// in the old epoch.
const TURN_REPEATS: u32 = 3;
const TURN_FIRST: Duration = Duration::from_secs(1);
/// The plane keeps a replaced session for so long (protocol 3.10).
pub(super) const RETIRING: Duration = Duration::from_secs(10);

/// The id of our own pings; a person's never has it.
pub(crate) const PROD: u32 = 0;

enum Rekey {
    Idle,
    Offering(Ticket),
    Offered(Arc<RekeyOffer>),
    Concluding(Ticket),
    Answering(Ticket),
}

edges!(Rekey, "A rekey of a session between peers", [Idle, Offering, Offered, Concluding, Answering],
    Idle => Offering: "initiator: the keys are due, or REKEY_PLEASE: job for fresh shares",
    Offering => Offered: "the job is done: REKEY1 goes out",
    Offered => Concluding: "REKEY2 for this epoch: job for the next chain key",
    Concluding => Idle: "the next epoch's keys are there, the initiator seals with them; or REKEY2 was not good",
    Idle => Answering: "responder: REKEY1 for the next epoch, the one before in use: job for shares and chain key",
    Answering => Idle: "REKEY2 goes out and the next epoch's keys open; or REKEY1 was not good",
);

pub(super) const CHART: Chart = Rekey::CHART;

/// A session that the handshake made.
pub(crate) struct Live {
    lane: NodeLane,
    chain: Arc<Chain>,
    side: Side,
    local: u32,
    control: ControlStream,
    made_at: Instant,
    rekeyed_at: Instant,
    /// Frames of the session when its epoch began.
    rekeyed_frames: u64,
    rekey: Rekey,
    /// Since when the keys wait for their replacement with data flowing.
    due_since: Option<Instant>,
    /// The first frame of the new epoch goes again then; how many times it went again before.
    turn: Option<(Instant, u32)>,
}

/// A session that takes over, and what the other end said of itself.
pub(crate) struct Adoption {
    pub(crate) live: Live,
    pub(crate) params: Params,
    /// When its handshake began.
    pub(crate) started: Instant,
    /// Where the other end was met by UDP, if no relay carried the handshake.
    pub(crate) met: Option<SocketAddr>,
}

impl Live {
    /// What waits in it, beside the most.
    pub(super) fn bounds(&self, each: &mut dyn FnMut(Bound)) {
        self.control.bounds(each);
    }

    pub(crate) fn new(now: Instant, chain: Arc<Chain>, side: Side, local: u32, remote: u32, crypto: &dyn Provider) -> Self {
        let keys = chain.keys(side, crypto);
        Self {
            lane: NodeLane::new(keys, remote),
            chain,
            side,
            local,
            control: ControlStream::new(),
            made_at: now,
            rekeyed_at: now,
            rekeyed_frames: 0,
            rekey: Rekey::Idle,
            due_since: None,
            turn: None,
        }
    }

    /// Our index of it.
    pub(crate) fn local(&self) -> u32 {
        self.local
    }

    pub(super) fn remote(&self) -> u32 {
        self.lane.remote()
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    pub(super) fn lane(&self) -> &NodeLane {
        &self.lane
    }

    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    pub(super) fn made_at(&self) -> Instant {
        self.made_at
    }

    /// What the plane needs of it, with so many data lanes.
    pub(super) fn install(&self, lanes: u8) -> Install {
        let keys = self.lane.keys().expect("a session has the keys it seals with").clone();
        Install {
            session: self.chain.session_id(),
            local: self.local,
            remote: self.lane.remote(),
            keys,
            main: PathId::RELAY,
            lanes,
            slabs: Slabs::default(),
        }
    }

    fn seal(&mut self, message: &NodeControl) -> Vec<u8> {
        self.lane.seal(INNER_CONTROL, |out| message.emit(out))
    }

    /// When something is due that can be done now: control messages need a way, a renewal needs a relay and no attempt under way.
    pub(super) fn deadline(&self, has_way: bool, may_greet: bool) -> Option<Instant> {
        let renewal = (may_greet && self.side == Side::Initiator).then_some(self.made_at + SESSION_TIME);
        let control = self.control.deadline().filter(|_| has_way);
        [control, renewal, self.turn.map(|(at, _)| at)].into_iter().flatten().min()
    }
}

impl Link {
    /// A session takes over: proven by the handshake, confirmed by both ends.
    pub(crate) fn adopt(&mut self, now: Instant, room: &mut Room, adoption: Adoption) {
        let Adoption { live, params, started, met } = adoption;
        let began_here = live.side == Side::Initiator;
        if !began_here {
            // the initiator's was installed when FIN went out
            room.edit(Edit::Install { link: self.id, install: Box::new(live.install(room.lanes_with(&params))) });
            self.abandon_greeting(room);
        }
        if let Some(late) = &mut self.late {
            late.is_overtaken();
        }
        let local = live.local;
        let suite = live.chain.suite().label();
        room.edit(Edit::Promote { link: self.id, local });
        if let Some(old) = self.live.replace(live)
            && let Some((sid, _)) = self.old.replace((old.local, now + RETIRING))
        {
            room.sids.remove(&sid);
        }
        // direct paths were proven for the session before; this one starts on the relay and proves its own
        self.remember_candidates(now, room);
        self.drop_directs(now, room);
        self.steer.restart(now);
        self.steer_relay(now, room);
        self.relays.measure(now);
        self.hear(now);
        self.begun_at = Some(started);
        self.confirmed_at = began_here.then_some(now);
        self.reach.hang_up();
        self.reach.rest();
        // the initiator may have given the attempt up while FIN was on its way
        self.verify_by = (!began_here).then_some(now + CONFIRMED_TIME);
        self.take_params(room, params);
        self.forget_candidates();
        match met {
            Some(remote) => self.begin_met(now, room, remote),
            None => room.totals.connections_relay += 1,
        }
        room.note(Note::PeerConnected { peer: self.peer, handshake: now.since(started), suite });
        self.keepalive(room);
        self.prod(now, room);
        self.offer_candidates(now, room);
        self.begin_telling(now, room);
        self.attempt_soon(now);
        room.want_listener();
    }

    /// Whether a handshake that began then is older than the newest session's. Of two attempts the later one stands at both ends,
    /// whatever relays their last messages took (protocol 3.9).
    pub(crate) fn is_overtaken(&self, began_at: Instant) -> bool {
        self.begun_at.is_some_and(|newest| began_at < newest)
    }

    /// A bare sealed frame: the first of a new session confirms.
    pub(super) fn keepalive(&mut self, room: &mut Room) {
        let via = self.control_via();
        if let (Some(live), Some(via)) = (&mut self.live, via) {
            let frame = live.lane.seal(INNER_KEEPALIVE, |_| {});
            room.send(via, &frame);
        }
    }

    /// FIN came again for a session that stands: our confirmation was lost.
    pub(crate) fn confirm_again(&mut self, room: &mut Room) {
        self.keepalive(room);
    }

    /// PING 0 over a relay.
    pub(super) fn send_prod(&mut self, room: &mut Room, via: Via, payload: Vec<u8>) {
        if let Some(live) = &mut self.live {
            let frame = live.seal(&NodeControl::Ping { id: PROD, payload });
            room.send(via, &frame);
        }
    }

    /// The answer to PING 0: the relay path's round trip, if it came over the relay that carries.
    fn prod_answered(&mut self, now: Instant, room: &mut Room, back: Via, payload: &[u8]) {
        let Some(rtt) = self.relay_answered(now, room, back, payload) else { return };
        if let Some((_, via, window)) = self.relay_via() {
            room.edit(Edit::Path { link: self.id, path: PathId::RELAY, via, window: Some(window), rtt: Some(rtt), budget: None });
        }
    }

    /// A sealed frame of lane FF for one of this link's sessions; false when it is not authentic. `via`: where it came from, if it came by
    /// a way that is known.
    pub(crate) fn frame(&mut self, now: Instant, room: &mut Room, header: FrameHeader, via: Option<Via>, bytes: &mut [u8]) -> bool {
        let of_greeting = self.unconfirmed(header.receiver).is_some();
        let live = if of_greeting { self.unconfirmed(header.receiver) } else { self.live.as_mut() };
        let opened = if let Some(live) = live.filter(|live| live.local == header.receiver) {
            live.lane.open(now, header, bytes)
        } else {
            // the session before: what it still says is of no use any more
            room.drops.count(Drop::UnknownSession);
            return false;
        };
        let (epoch, inner, body) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                room.drops.count(reason);
                return false;
            }
        };
        self.confirm(now, room, header.receiver);
        self.hear(now);
        // one that confirms a session made by UDP has a way from now on
        let Some(via) = via.or_else(|| self.control_via()) else {
            room.drops.count(Drop::Unexpected);
            return true;
        };
        if let Some(direct) = self.directs.iter_mut().find(|direct| direct.conn() == via.conn) {
            direct.heard(now);
        }
        self.epoch_heard(now, room, epoch);
        match inner {
            INNER_KEEPALIVE => {}
            INNER_CONTROL => match NodeControl::parse(body) {
                Ok(control) => self.control(now, room, via, control),
                Err(_) => room.drops.count(Drop::Malformed),
            },
            _ => room.drops.count(Drop::Unexpected),
        }
        true
    }

    fn control(&mut self, now: Instant, room: &mut Room, via: Via, control: NodeControl) {
        let heard = label_of(via);
        let Some(live) = &mut self.live else { return };
        match control {
            NodeControl::Stream { offset, bytes } => live.control.on_stream(offset, &bytes),
            NodeControl::Ack { offset } => live.control.on_ack(offset),
            NodeControl::Ping { id, payload } => {
                let asked = if id == PROD { payload.clone() } else { Vec::new() };
                let frame = live.seal(&NodeControl::Pong { id, heard, payload });
                // the answer to a person goes the way that our data goes, so that it tells of both directions
                if let Some(via) = if id == PROD { Some(via) } else { self.pong_via(now, room, via) } {
                    room.send(via, &frame);
                }
                if id == PROD {
                    self.relay_asked(now, room, via, &asked);
                }
            }
            NodeControl::Pong { id: PROD, payload, .. } => self.prod_answered(now, room, via, &payload),
            NodeControl::Pong { id, heard: out, .. } => {
                if let Some((peer, sent_at)) = room.pong(id)
                    && peer == self.peer
                {
                    room.note(Note::Pong { id, peer, rtt: now.since(sent_at), out, back: heard });
                }
            }
        }
        while let Some(message) = self.live.as_mut().and_then(|live| live.control.poll_message()) {
            match message {
                Ok(message) => self.message(now, room, message),
                Err(_) => room.drops.count(Drop::Malformed),
            }
        }
        self.flush_control(now, room);
    }

    fn message(&mut self, now: Instant, room: &mut Room, message: PeerMessage) {
        match message {
            PeerMessage::Candidates { generation, candidates } => self.take_candidates(now, room, generation, &candidates),
            PeerMessage::Rekey1 { epoch, x25519, mlkem_ek } => self.answer_rekey(now, room, epoch, [&x25519[..], &mlkem_ek[..]].concat()),
            PeerMessage::Rekey2 { epoch, x25519, mlkem_ct } => self.conclude_rekey(room, epoch, [&x25519[..], &mlkem_ct[..]].concat()),
            PeerMessage::RekeyPlease if self.live.as_ref().is_some_and(|live| now.since(live.rekeyed_at) >= REKEY_LEAST) => {
                self.start_rekey(room);
            }
            PeerMessage::RekeyPlease => room.drops.count(Drop::Control),
            PeerMessage::Close { .. } => self.end(now, room, "it left"),
            PeerMessage::Search { address, step } => self.take_search(now, room, address, step),
            PeerMessage::Punch { address } => self.take_punch(now, room, address),
            PeerMessage::Succession { place, bytes } => self.take_succession(now, room, place, &bytes),
            PeerMessage::Taken { new } => self.succession_taken(now, room, new),
            PeerMessage::Update { params } => match Params::parse(&params) {
                Ok(params) => self.take_params(room, params),
                Err(_) => room.drops.count(Drop::Malformed),
            },
        }
    }

    /// Puts a message on the acknowledged stream.
    pub(super) fn tell(&mut self, now: Instant, room: &mut Room, message: &PeerMessage) {
        let Some(live) = &mut self.live else { return };
        if live.control.send(message).is_err() {
            room.drops.count(Drop::Control);
            return;
        }
        self.flush_control(now, room);
    }

    /// Sends what the control stream has to send.
    fn flush_control(&mut self, now: Instant, room: &mut Room) {
        let via = self.control_via();
        let rto = self.control_rto();
        let Some(live) = &mut self.live else { return };
        if live.control.failure().is_some() {
            room.refuse(Some(self.peer), "its control stream broke the protocol; the session is made anew");
            self.end(now, room, "protocol error");
            // not at once: a peer that does so each time must not keep us busy with handshakes
            if self.greeting.is_idle() {
                self.greeting.wait(now + super::OTHER_FIRST);
            }
            return;
        }
        let Some(via) = via else { return };
        live.control.set_rto(rto);
        while let Some(control) = live.control.poll_ack() {
            let frame = live.seal(&control);
            room.send(via, &frame);
        }
        while let Some(control) = live.control.poll_transmit(now) {
            let frame = live.seal(&control);
            room.send(via, &frame);
        }
    }

    /// An overlay ping of a person goes the way that data goes; a direct path that was silent before must show life beside it.
    pub(crate) fn ping(&mut self, now: Instant, room: &mut Room, id: u32, payload: Vec<u8>) {
        let via = self.data_via();
        if let (Some(live), Some(via)) = (&mut self.live, via) {
            let frame = live.seal(&NodeControl::Ping { id, payload });
            room.send(via, &frame);
        }
        self.examine_idle(now, room);
    }

    /// The way of an answer to somebody's ping: that of our data, or back where the ping came from while ours is in doubt, as it is when
    /// the ping came by another one and ours was silent.
    fn pong_via(&mut self, now: Instant, room: &mut Room, back: Via) -> Option<Via> {
        self.examine_idle(now, room);
        let via = self.data_via();
        let in_doubt = self.directs.iter().any(|direct| Some(direct.via()) == via && direct.is_in_doubt());
        if in_doubt { Some(back) } else { via }
    }

    /// The direct path that data takes must show life if nothing was heard on it for a while.
    fn examine_idle(&mut self, now: Instant, room: &mut Room) {
        let main = self.steer.main();
        if let Some(key) = self.path_key()
            && let Some(direct) = self.directs.iter_mut().find(|direct| direct.path() == main)
        {
            direct.examine_idle(now, room, &key);
        }
    }

    /// Tells the peer that we leave, on every path, once.
    pub(crate) fn say_goodbye(&mut self, now: Instant, room: &mut Room) {
        self.tell(now, room, &PeerMessage::Close { reason: CLOSE_DOWN });
    }

    pub(super) fn live_alarm(&mut self, now: Instant, room: &mut Room) {
        let Some(live) = &self.live else { return };
        if live.control.deadline().is_some_and(|at| at <= now) {
            self.flush_control(now, room);
        }
        if let Some(live) = &mut self.live
            && let Some((at, times)) = live.turn
            && at <= now
        {
            live.turn = (times + 1 < TURN_REPEATS).then(|| (now + TURN_FIRST * (2 << times), times + 1));
            self.keepalive(room);
        }
        let Some(live) = &self.live else { return };
        let renew = live.side == Side::Initiator && live.made_at + SESSION_TIME <= now;
        if renew && self.greeting.is_idle() && !self.relays.is_empty() {
            self.greet(now, room);
        }
    }

    // ---- rekeying (protocol 4.5) -------------------------------------------------------------------------------

    /// Looks whether the keys are due for replacement.
    pub(super) fn consider_rekey(&mut self, now: Instant, room: &mut Room, frames: u64) {
        let Some(live) = &mut self.live else { return };
        let used = frames.saturating_sub(live.rekeyed_frames);
        let age = now.since(live.rekeyed_at);
        if used == 0 || (age < room.config.rekey_interval && used < REKEY_FRAMES) {
            return;
        }
        // not the age alone: after a long silence the first frame makes the keys due, not overdue
        let due_since = *live.due_since.get_or_insert(now);
        if now.since(due_since) >= REKEY_OVERDUE {
            if self.greeting.is_idle() {
                self.greet(now, room);
            }
            return;
        }
        match live.side {
            Side::Initiator => self.start_rekey(room),
            // the initiator sees the same counters; ask only when it does not act
            Side::Responder if now.since(due_since) >= Duration::from_secs(10) && matches!(live.rekey, Rekey::Idle) => {
                self.tell(now, room, &PeerMessage::RekeyPlease);
            }
            Side::Responder => {}
        }
    }

    fn start_rekey(&mut self, room: &mut Room) {
        let Some(live) = &mut self.live else { return };
        if live.side != Side::Initiator || !matches!(live.rekey, Rekey::Idle) {
            return;
        }
        let work = Work::RekeyOffer { epoch: live.chain.epoch() + 1, coins: room.entropy.secret::<96>() };
        if let Some(ticket) = room.compute(Owner::Rekey(self.peer, live.local), work) {
            turn(&mut live.rekey, Rekey::Offering(ticket));
        }
    }

    pub(super) fn answer_rekey(&mut self, now: Instant, room: &mut Room, epoch: u32, rekey1: Vec<u8>) {
        let Some(live) = &mut self.live else { return };
        // one rekey an epoch: a second one would fork the chain; and the one before must be in use both ways (protocol 4.5)
        let in_use = live.lane.seal_epoch() == live.chain.epoch() && now.since(live.rekeyed_at) >= REKEY_LEAST;
        if live.side != Side::Responder || epoch != live.chain.epoch() + 1 || !in_use || !matches!(live.rekey, Rekey::Idle) {
            room.drops.count(Drop::Unexpected);
            return;
        }
        let work = Work::RekeyAnswer { epoch, rekey1, chain: Arc::clone(&live.chain), coins: room.entropy.secret::<96>() };
        if let Some(ticket) = room.compute(Owner::Rekey(self.peer, live.local), work) {
            turn(&mut live.rekey, Rekey::Answering(ticket));
        }
    }

    fn conclude_rekey(&mut self, room: &mut Room, epoch: u32, rekey2: Vec<u8>) {
        let Some(live) = &mut self.live else { return };
        let Rekey::Offered(offer) = &live.rekey else {
            room.drops.count(Drop::Unexpected);
            return;
        };
        if epoch != offer.epoch() {
            room.drops.count(Drop::Unexpected);
            return;
        }
        let work = Work::RekeyConclude { epoch, offer: Arc::clone(offer), rekey2, chain: Arc::clone(&live.chain) };
        if let Some(ticket) = room.compute(Owner::Rekey(self.peer, live.local), work) {
            turn(&mut live.rekey, Rekey::Concluding(ticket));
        }
    }

    /// A rekey job is done.
    pub(crate) fn rekey_computed(&mut self, now: Instant, room: &mut Room, sid: u32, ticket: Ticket, outcome: Outcome) {
        let Some(live) = self.live.as_mut().filter(|live| live.local == sid) else { return };
        let before = live.rekey.name();
        match (core::mem::replace(&mut live.rekey, Rekey::Idle), outcome) {
            (Rekey::Offering(expected), Outcome::RekeyOffered(offer)) if expected == ticket => {
                let (epoch, message) = (offer.epoch(), offer.rekey1().to_vec());
                live.rekey = Rekey::Offered(offer);
                if let Some((x25519, mlkem_ek)) = message.split_first_chunk::<32>() {
                    self.tell(now, room, &PeerMessage::Rekey1 { epoch, x25519: *x25519, mlkem_ek: mlkem_ek.to_vec() });
                }
            }
            (Rekey::Answering(expected), Outcome::RekeyAnswered(Ok((rekey2, chain)))) if expected == ticket => {
                let epoch = chain.epoch();
                self.next_epoch(now, room, chain, false);
                if let Some((x25519, mlkem_ct)) = rekey2.split_first_chunk::<32>() {
                    self.tell(now, room, &PeerMessage::Rekey2 { epoch, x25519: *x25519, mlkem_ct: mlkem_ct.to_vec() });
                }
            }
            (Rekey::Concluding(expected), Outcome::RekeyConcluded(Ok(chain))) if expected == ticket => {
                self.next_epoch(now, room, chain, true);
                self.keepalive(room);
            }
            (_, Outcome::RekeyAnswered(Err(_)) | Outcome::RekeyConcluded(Err(_))) => room.drops.count(Drop::Handshake),
            (before, _) => live.rekey = before,
        }
        if let Some(live) = &self.live {
            took::<Rekey>(before, live.rekey.name());
        }
    }

    /// Takes up the keys of the next epoch; the initiator seals with them at once, the responder when it has received with them.
    pub(super) fn next_epoch(&mut self, now: Instant, room: &mut Room, chain: Arc<Chain>, seal: bool) {
        let Some(live) = &mut self.live else { return };
        let keys = chain.keys(live.side, &*room.config.crypto);
        live.lane.add(now, keys.clone());
        if seal {
            live.lane.seal_with(keys.epoch);
            live.turn = Some((now + TURN_FIRST, 0));
        }
        live.due_since = None;
        live.chain = chain;
        live.rekeyed_at = now;
        live.rekeyed_frames = self.tally.as_ref().map_or(0, |tally| tally.session_frames);
        room.edit(Edit::Epoch { link: self.id, local: live.local, keys, seal });
    }

    /// An authentic frame came in this epoch: the responder may seal in it now (protocol 4.5).
    pub(super) fn epoch_heard(&mut self, now: Instant, room: &mut Room, epoch: u32) {
        let Some(live) = &mut self.live else { return };
        if epoch > live.lane.seal_epoch()
            && let Some(keys) = live.lane.keys_of(now, epoch as u8).cloned()
        {
            live.lane.seal_with(epoch);
            room.edit(Edit::Epoch { link: self.id, local: live.local, keys, seal: true });
        }
    }
}

/// The kind of path on which a message came.
pub(super) fn label_of(via: Via) -> PathLabel {
    match via.handle {
        Some(_) => PathLabel::RelayWss,
        None if via.conn.is_passed_on() => PathLabel::RelayUdp,
        None if via.conn.is_flow() => PathLabel::DirectUdp,
        None => PathLabel::DirectWss,
    }
}

#[cfg(test)]
mod tests;
