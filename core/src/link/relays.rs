//! The relays that have a peer, and which of them carries the relay path (protocol 7.10). Each end chooses for what it sends.
//!
//! ```text
//!   place, one a relay ── PING 0 ──▶ peer ── PONG ──▶ round trip ──▶ a shorter way, clearly and for long: it carries
//!
//!   carrier stalls, or the other end left one ──▶ exam: PING 0 over all ──┬─ the carrier answers: it stays
//!                                                                         └─ another one does, it does not: that one carries
//! ```
//! A move is a fallback (7.5): all that is not receipted goes again, in order, so a relay may swallow what it likes.
use super::Link;
use crate::{
    event::Note,
    id::{ConnId, Handle, PathId},
    node::{Presence, Room},
    path::{backoff::Backoff, choice::clearly_faster},
    plane::Via,
    time::{Duration, Instant},
};
use std::collections::{BTreeMap, VecDeque};

/// PING 0 of an exam, and how long the carrier has for an answer while another relay gives one (protocol 7.10).
const EXAM_ASKS: u32 = 3;
const EXAM_LEAST: Duration = Duration::from_millis(250);
const EXAM_MOST: Duration = Duration::from_millis(500);
/// Nobody has answered for so long: the network is away, and no relay is better than another.
const EXAM_OVER: Duration = Duration::from_secs(3);
/// What an exam for another reason than a stall takes for the probe timeout.
const EXAM_PTO: Duration = Duration::from_millis(100);
/// A new place is measured so often at once, at such distances; later, while data flow on the relay path, all are so often.
const ROUNDS_FIRST: u32 = 3;
const ROUND_GAP: Duration = Duration::from_millis(100);
const ROUND_INTERVAL: Duration = Duration::from_secs(10);
/// The shortest of so many round trips counts: data on the way makes one longer, nothing makes one shorter.
const SAMPLES: usize = 3;
/// PING 0 over one relay that may be unanswered. What was measured there is forgotten when one is for so long.
const ASKED_MAX: usize = 16;
const UNANSWERED: Duration = Duration::from_secs(3);
/// A shorter way must still be one after so long, when all were measured anew so often: a busy machine makes one longer for a moment.
const SHIFT_AFTER: Duration = Duration::from_secs(5);
const ROUNDS_AGAIN: u32 = 7;
/// Two moves for a shorter way are so far apart.
const SHIFT_LEAST: Duration = Duration::from_secs(30);
/// A relay that failed does not carry for so long; then doubling.
const HOLD_FIRST: Duration = Duration::from_secs(1);
const HOLD_MOST: Duration = Duration::from_mins(1);
/// Payload of PING 0: flags u8, number u32. The flag: the sender's frames go this way now, since its relay before failed.
const FLAG_MOVED: u8 = 1;

/// Where the peer is at one relay.
struct Place {
    presence: Presence,
    via: Via,
    window: u64,
    /// PING 0 without an answer: number, and when it went.
    asked: VecDeque<(u32, Instant)>,
    samples: VecDeque<Duration>,
    /// One above the newest PING 0 that was answered.
    answered: u32,
    hold: Backoff,
    held_until: Option<Instant>,
    /// The relay has said that it goes away.
    drains: bool,
}

impl Place {
    fn rtt(&self) -> Option<Duration> {
        self.samples.iter().min().copied()
    }

    /// A round trip that is more than one chance.
    fn known_rtt(&self) -> Option<Duration> {
        self.rtt().filter(|_| self.samples.len() >= SAMPLES)
    }

    /// Smaller is better; what failed is worse than what will go away.
    fn fault(&self, now: Instant) -> (bool, bool) {
        (self.held_until.is_some_and(|until| until > now), self.drains)
    }
}

/// The carrier must show life.
struct Exam {
    since: Instant,
    /// A PING 0 from this number on must be answered …
    first: u32,
    /// … by then, if another relay answers.
    until: Instant,
    /// PING 0 still to go, and how far apart.
    asks: u32,
    gap: Duration,
    /// When something is to be done.
    next_at: Instant,
}

/// All places of one peer.
#[derive(Default)]
pub(super) struct Relays {
    /// Boxed: a node of the tree has room for eleven, most peers are at one relay.
    places: BTreeMap<usize, Box<Place>>,
    carrier: Option<usize>,
    next_number: u32,
    /// The next round of measuring, and how many follow it closely.
    round: Option<(Instant, u32)>,
    rounded_at: Option<Instant>,
    exam: Option<Exam>,
    /// A shorter way, and since when it is one.
    tempted: Option<(usize, Instant)>,
    shifted_at: Option<Instant>,
    /// The place to which the last handshake message went.
    greeted_over: Option<usize>,
}

impl Relays {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn handle(&self, uplink: usize) -> Option<Handle> {
        self.places.get(&uplink).map(|place| place.presence.handle)
    }

    pub(super) fn uplinks(&self) -> Vec<usize> {
        self.places.keys().copied().collect()
    }

    pub(super) fn presences(&self) -> impl Iterator<Item = &Presence> {
        self.places.values().map(|place| &place.presence)
    }

    #[cfg(test)]
    pub(super) fn presences_mut(&mut self) -> impl Iterator<Item = &mut Presence> {
        self.places.values_mut().map(|place| &mut place.presence)
    }

    /// The relay that carries: which, where to, and its window.
    pub(super) fn carrier(&self) -> Option<(usize, Via, u64)> {
        let index = self.carrier?;
        self.places.get(&index).map(|place| (index, place.via, place.window))
    }

    /// The round trip over the relay that carries.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.places.get(&self.carrier?)?.samples.back().copied()
    }

    /// The peer has this place at a relay. True: it is a new one.
    pub(super) fn put(&mut self, now: Instant, uplink: usize, presence: Presence, via: Via, window: u64) -> bool {
        if let Some(place) = self.places.get_mut(&uplink).filter(|place| place.via == via) {
            (place.presence, place.window) = (presence, window);
            return false;
        }
        let place = Place {
            presence,
            via,
            window,
            asked: VecDeque::new(),
            samples: VecDeque::new(),
            answered: 0,
            hold: Backoff::new(HOLD_FIRST, HOLD_MOST),
            held_until: None,
            drains: false,
        };
        self.places.insert(uplink, Box::new(place));
        self.measure(now);
        self.settle(now);
        true
    }

    /// The peer has no place there any more. True: it had.
    pub(super) fn remove(&mut self, now: Instant, uplink: usize) -> bool {
        let was = self.places.remove(&uplink).is_some();
        self.settle(now);
        was
    }

    /// All places are measured from now on.
    pub(super) fn measure(&mut self, now: Instant) {
        self.round = self.are_several().then_some((now, ROUNDS_FIRST));
    }

    /// Data flow over the relay that carries.
    fn measure_some_time(&mut self, now: Instant) {
        if self.are_several() && self.round.is_none() {
            let last = self.rounded_at.unwrap_or(now);
            self.round = Some((now.max(last + ROUND_INTERVAL), 1));
        }
    }

    fn are_several(&self) -> bool {
        self.places.len() > 1
    }

    /// Whether there is another way if this relay goes.
    fn can_do_without(&self, now: Instant, uplink: usize) -> bool {
        let mut others = self.places.iter().filter(|(index, _)| **index != uplink);
        let is_well = others.any(|(_, place)| place.fault(now) == (false, false));
        !self.places.contains_key(&uplink) || (self.carrier != Some(uplink) && is_well)
    }

    /// The carrier stays as long as no place has fewer faults; where there is none, the shortest way carries. The carrier before, if it is
    /// another now.
    fn settle(&mut self, now: Instant) -> Option<usize> {
        let all = self.places.iter().map(|(index, place)| (place.fault(now), place.rtt().unwrap_or(Duration::MAX), *index));
        let Some((fault, _, best)) = all.min() else {
            self.exam = None;
            return self.carrier.take();
        };
        let stays = self.carrier.and_then(|carrier| self.places.get(&carrier)).is_some_and(|place| place.fault(now) <= fault);
        if stays {
            return None;
        }
        self.exam = None;
        self.carrier.replace(best)
    }

    /// A place whose way is clearly shorter than the carrier's (protocol 6.1).
    fn shorter(&self, now: Instant) -> Option<usize> {
        let rests = self.shifted_at.is_some_and(|at| now.since(at) < SHIFT_LEAST);
        if rests || self.exam.is_some() {
            return None;
        }
        let carrier = self.places.get(&self.carrier?)?;
        let others = self.places.iter().filter(|(_, place)| place.fault(now) <= carrier.fault(now) && place.known_rtt().is_some());
        let (best, place) = others.min_by_key(|(_, place)| place.known_rtt())?;
        clearly_faster(place.known_rtt(), carrier.known_rtt()).then_some(*best)
    }

    /// The place behind the one to which the last handshake message went, in a circle.
    pub(super) fn next_to_greet_over(&self) -> Option<usize> {
        let behind = self.greeted_over.map_or(0, |last| last + 1);
        self.places.range(behind..).chain(&self.places).next().map(|(index, _)| *index)
    }

    /// A handshake message goes to this place.
    pub(super) fn greet_over(&mut self, uplink: usize) -> Option<Via> {
        self.greeted_over = Some(uplink);
        self.places.get(&uplink).map(|place| place.via)
    }

    /// A shorter way that has been one for long enough.
    fn shift(&mut self, now: Instant) -> Option<usize> {
        let to = self.shorter(now);
        if let (Some(to), Some((before, since))) = (to, self.tempted)
            && to == before
        {
            let proven = since + SHIFT_AFTER + ROUND_GAP * (ROUNDS_AGAIN / 2) <= now;
            self.shifted_at = if proven { Some(now) } else { self.shifted_at };
            return proven.then_some(to);
        }
        self.tempted = to.map(|to| (to, now));
        if to.is_some() {
            self.round = Some((now + SHIFT_AFTER, ROUNDS_AGAIN));
        }
        None
    }

    /// A PING 0 goes over this relay: its payload.
    fn ask(&mut self, now: Instant, uplink: usize, flags: u8) -> Option<(Via, Vec<u8>)> {
        let place = self.places.get_mut(&uplink)?;
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        if place.asked.front().is_some_and(|(_, at)| now.since(*at) >= UNANSWERED) {
            place.samples.clear();
        }
        while place.asked.len() >= ASKED_MAX {
            place.asked.pop_front();
        }
        place.asked.push_back((number, now));
        Some((place.via, [&[flags][..], &number.to_be_bytes()].concat()))
    }

    /// PONG 0 came. The place, and the round trip.
    fn answered(&mut self, now: Instant, conn: ConnId, payload: &[u8]) -> Option<(usize, Duration)> {
        let number = u32::from_be_bytes(payload.get(1..)?.try_into().ok()?);
        let (index, place) = self.places.iter_mut().find(|(_, place)| place.via.conn == conn)?;
        let at = place.asked.iter().find(|(asked, _)| *asked == number).map(|(_, at)| *at)?;
        place.asked.retain(|(asked, _)| *asked > number);
        place.answered = place.answered.max(number.wrapping_add(1));
        let rtt = now.since(at);
        place.samples.push_back(rtt);
        if place.samples.len() > SAMPLES {
            place.samples.pop_front();
        }
        let index = *index;
        if self.carrier != Some(index) {
            self.bear_with(number, rtt);
        }
        Some((index, rtt))
    }

    /// The carrier has as long as another relay took, and a quarter more: perhaps the peer is far away.
    fn bear_with(&mut self, number: u32, rtt: Duration) {
        if let Some(exam) = self.exam.as_mut().filter(|exam| number >= exam.first) {
            exam.until = exam.until.max(exam.since + rtt * 5 / 4);
            exam.next_at = exam.next_at.min(exam.until);
        }
    }

    /// The carrier must show life, beside the others. True: the exam begins or goes on, and all are to be asked now.
    fn examine(&mut self, now: Instant, pto: Duration) -> bool {
        if !self.are_several() || self.carrier.is_none() {
            return false;
        }
        if let Some(exam) = &self.exam {
            return exam.asks == 0;
        }
        let gap = (pto * 5 / 2).clamp(EXAM_LEAST, EXAM_MOST) / EXAM_ASKS;
        let (first, until) = (self.next_number, now + gap * EXAM_ASKS);
        self.exam = Some(Exam { since: now, first, until, asks: EXAM_ASKS - 1, gap, next_at: now + gap });
        true
    }

    /// What the exam has come to: another relay that answers, while the carrier does not.
    fn verdict(&mut self, now: Instant) -> Option<usize> {
        let exam = self.exam.as_ref()?;
        let answers = |place: &Place| place.answered > exam.first;
        if self.carrier.and_then(|carrier| self.places.get(&carrier)).is_none_or(|place| answers(place)) || exam.since + EXAM_OVER <= now {
            self.exam = None;
            return None;
        }
        if exam.until > now {
            return None;
        }
        let live = self.places.iter().filter(|(_, place)| answers(place));
        let (best, _) = live.min_by_key(|(index, place)| (place.fault(now), place.rtt(), **index))?;
        Some(*best)
    }
}

impl Link {
    /// The relay that carries this link's relay path.
    pub(super) fn relay_via(&self) -> Option<(usize, Via, u64)> {
        self.relays.carrier()
    }

    fn ask_relay(&mut self, now: Instant, room: &mut Room, uplink: usize, flags: u8) {
        if self.live.is_some()
            && let Some((via, payload)) = self.relays.ask(now, uplink, flags)
        {
            self.send_prod(room, via, payload);
        }
    }

    /// Asks for a sign of life over all relays, and measures them by it.
    pub(super) fn prod(&mut self, now: Instant, room: &mut Room) {
        let places: Vec<usize> = self.relays.places.keys().copied().collect();
        for uplink in places {
            self.ask_relay(now, room, uplink, 0);
        }
    }

    /// The other end answered PING 0. Some: the round trip over the relay that carries.
    pub(super) fn relay_answered(&mut self, now: Instant, room: &mut Room, via: Via, payload: &[u8]) -> Option<Duration> {
        let (index, rtt) = self.relays.answered(now, via.conn, payload)?;
        self.judge_relays(now, room);
        if let Some(to) = self.relays.shift(now) {
            self.move_to_relay(now, room, to, "a shorter way");
        }
        (self.relays.carrier == Some(index)).then_some(rtt)
    }

    /// PING 0 came. The other end may say that it has left a relay: if that is ours, we do not know yet.
    pub(super) fn relay_asked(&mut self, now: Instant, room: &mut Room, via: Via, payload: &[u8]) {
        let is_elsewhere = self.relay_via().is_some_and(|(_, carrier, _)| carrier.conn != via.conn);
        if payload.first().is_some_and(|flags| flags & FLAG_MOVED != 0) && is_elsewhere {
            self.examine_relay(now, room, EXAM_PTO);
        }
    }

    /// The relay that carries must show life, if there is another one.
    pub(super) fn examine_relay(&mut self, now: Instant, room: &mut Room, pto: Duration) {
        if self.live.is_some() && self.relays.examine(now, pto) {
            self.prod(now, room);
        }
    }

    /// Leaves a relay that failed its exam.
    fn judge_relays(&mut self, now: Instant, room: &mut Room) {
        let Some(to) = self.relays.verdict(now) else { return };
        if let Some(from) = self.relays.carrier
            && let Some(place) = self.relays.places.get_mut(&from)
        {
            place.held_until = Some(now + place.hold.fail(&mut room.entropy));
            place.samples.clear();
            room.doubt_relay(from);
        }
        self.move_to_relay(now, room, to, "nothing came back over it");
        self.ask_relay(now, room, to, FLAG_MOVED);
    }

    fn move_to_relay(&mut self, now: Instant, room: &mut Room, to: usize, why: &'static str) {
        (self.relays.exam, self.relays.tempted) = (None, None);
        let from = self.relays.carrier.replace(to);
        self.note_rerouted(room, from, why);
        self.steer_relay(now, room);
    }

    /// The peer has no place at this relay any more, as far as we know. True: it had.
    pub(super) fn leave_relay(&mut self, now: Instant, room: &mut Room, uplink: usize, why: &'static str) -> bool {
        let from = self.relays.carrier;
        let had = self.relays.remove(now, uplink);
        self.note_rerouted(room, from, why);
        self.steer_relay(now, room);
        self.leave_detour(now, room, uplink, why);
        had
    }

    fn note_rerouted(&self, room: &mut Room, from: Option<usize>, why: &'static str) {
        if let (Some(from), Some(to)) = (from, self.relays.carrier)
            && from != to
        {
            room.note(Note::Rerouted { peer: self.peer, from, to, why });
        }
    }

    /// A relay has said that it goes away: whoever can leaves it now, while it still brings what is on its way.
    pub(crate) fn relay_drains(&mut self, now: Instant, room: &mut Room, uplink: usize) {
        if let Some(place) = self.relays.places.get_mut(&uplink) {
            place.drains = true;
            let from = self.relays.settle(now);
            self.note_rerouted(room, from, "it goes away");
            self.steer_relay(now, room);
        }
    }

    /// Whether this relay may go as far as this link is concerned.
    pub(crate) fn can_do_without(&self, now: Instant, uplink: usize) -> bool {
        self.relays.can_do_without(now, uplink)
    }

    pub(super) fn relays_deadline(&self) -> Option<Instant> {
        let round = self.relays.round.map(|(at, _)| at);
        let exam = self.relays.exam.as_ref().map(|exam| exam.next_at);
        [round, exam].into_iter().flatten().min().filter(|_| self.live.is_some())
    }

    pub(super) fn relays_alarm(&mut self, now: Instant, room: &mut Room) {
        if self.live.is_none() {
            return;
        }
        if let Some((at, left)) = self.relays.round
            && at <= now
        {
            self.relays.round = (left > 1).then_some((now + ROUND_GAP, left - 1));
            self.relays.rounded_at = Some(now);
            self.prod(now, room);
        }
        if let Some(exam) = self.relays.exam.as_mut().filter(|exam| exam.next_at <= now) {
            let asks = exam.asks > 0;
            let end = if exam.until > now { exam.until } else { exam.since + EXAM_OVER };
            exam.next_at = if asks { now + exam.gap } else { end };
            exam.asks = exam.asks.saturating_sub(1);
            if asks {
                self.prod(now, room);
            }
        }
        self.judge_relays(now, room);
    }

    /// New counters: while data flow over a relay, all are measured now and then.
    pub(super) fn relays_tallied(&mut self, now: Instant, frames: u64) {
        let flows = self.tally.as_ref().is_some_and(|before| frames > before.session_frames);
        if flows && self.steer.main() == PathId::RELAY {
            self.relays.measure_some_time(now);
        }
    }
}
