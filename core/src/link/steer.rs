//! Which path carries the traffic: choice, hold-down, fallback (protocol 6.1, 7.5 to 7.7).
use super::{Link, direct::Direct};
use crate::{
    event::Note,
    id::PathId,
    node::Room,
    path::{
        backoff::Backoff,
        choice::{Usable, best},
    },
    plane::{Edit, Via},
    time::{Duration, Instant},
    wire::PathLabel,
};
use core::net::SocketAddr;

/// Hold-down after the first failure of a direct path; then doubling up to `retry_interval` (protocol 7.5).
const HOLD_FIRST: Duration = Duration::from_secs(1);
/// A direct path that lived so long was good: the hold-down starts from the first value again.
const LIVED_WELL: Duration = Duration::from_secs(30);
/// A path that failed is asked for without a rest for so long: most outages are over by then (protocol 8.2).
const MISSED_TIME: Duration = Duration::from_mins(2);
/// So long a path by WebSocket waits for the one by UDP that is missed: it is asked for each second.
const MISSED_FIRST: Duration = Duration::from_millis(1_200);
/// Switches in the last minute after which no better path is taken (protocol 7.5): room is left for the way back.
const SWITCHES_PER_MINUTE: usize = 5;
const MINUTE: Duration = Duration::from_mins(1);

/// Which path carries the traffic.
pub(super) struct Steer {
    main: PathId,
    main_since: Instant,
    /// The relay path as the plane knows it.
    relay: Option<(Via, u64)>,
    /// The relay path was known to the plane before in this session.
    had_relay: bool,
    hold: Backoff,
    hold_until: Option<Instant>,
    /// Where the path led that failed: the hold-down is for that place.
    held: Option<SocketAddr>,
    /// Until then it is missed: it was good once and is asked for all the time.
    missed_until: Instant,
}

impl Steer {
    pub(super) fn new(now: Instant, retry_interval: Duration) -> Self {
        let hold = Backoff::new(HOLD_FIRST.min(retry_interval), retry_interval);
        Self { main: PathId::RELAY, main_since: now, relay: None, had_relay: false, hold, hold_until: None, held: None, missed_until: now }
    }

    /// Another longest hold-down, for the one under way too.
    pub(super) fn waits_at_most(&mut self, now: Instant, retry_interval: Duration) {
        self.hold.set_most(HOLD_FIRST.min(retry_interval), retry_interval);
        self.hold_until = self.hold_until.map(|until| until.min(now + retry_interval));
    }

    /// A new session begins on the relay.
    pub(super) fn restart(&mut self, now: Instant) {
        self.main = PathId::RELAY;
        self.main_since = now;
        self.relay = None;
        self.had_relay = false;
    }

    pub(super) fn main(&self) -> PathId {
        self.main
    }

    pub(super) fn main_since(&self) -> Instant {
        self.main_since
    }

    /// Another number for the path that carries the traffic.
    pub(super) fn goes_on_with(&mut self, now: Instant, path: PathId) {
        self.main = path;
        self.main_since = now;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.hold_until
    }

    /// How long a path to this place is missed.
    pub(super) fn misses(&self, place: SocketAddr) -> Option<Instant> {
        self.held.filter(|held| *held == place).map(|_| self.missed_until)
    }
}

impl Link {
    /// The way of the path that new data takes.
    pub(super) fn data_via(&self) -> Option<Via> {
        let direct = self.directs.iter().find(|direct| direct.path() == self.steer.main() && direct.is_usable());
        direct.map(Direct::via).or_else(|| self.relay_via().map(|(_, via, _)| via))
    }

    /// The way for control messages: that of data, but not a suspect one.
    pub(super) fn control_via(&self) -> Option<Via> {
        let healthy = self.directs.iter().find(|direct| direct.path() == self.steer.main() && direct.is_usable() && !direct.is_suspect());
        healthy
            .map(Direct::via)
            .or_else(|| self.relay_via().map(|(_, via, _)| via))
            .or_else(|| self.directs.iter().find(|direct| direct.is_usable()).map(Direct::via))
            // small messages have proven it, and no message of ours is longer than what each path carries (protocol 8.3)
            .or_else(|| self.directs.iter().find(|direct| direct.is_sizing()).map(Direct::via))
    }

    /// Retransmission time of the control stream.
    pub(super) fn control_rto(&self) -> Duration {
        let measured =
            self.tally.as_ref().and_then(|tally| tally.paths.iter().find(|path| Some(path.path) == tally.main).and_then(|path| path.rtt));
        measured.map_or(Duration::from_millis(300), |rtt| (rtt * 2 + Duration::from_millis(50)).min(Duration::from_secs(1)))
    }

    /// The path that copies take while `suspect` is in doubt.
    pub(super) fn rescue_path(&self, suspect: PathId) -> Option<PathId> {
        if self.relay_via().is_some() {
            return Some(PathId::RELAY);
        }
        self.directs.iter().find(|direct| direct.is_usable() && direct.path() != suspect).map(Direct::path)
    }

    /// Tells the plane where the relay path leads now.
    pub(super) fn steer_relay(&mut self, now: Instant, room: &mut Room) {
        let present = self.relay_via().map(|(_, via, window)| (via, window));
        if present == self.steer.relay {
            return;
        }
        let link = self.id;
        self.steer.relay = present;
        let Some((via, window)) = present else {
            room.edit(Edit::Unpath { link, path: PathId::RELAY });
            if self.live.is_some() && self.steer.main == PathId::RELAY {
                self.consider(now, room);
            }
            return;
        };
        let rtt = self.relays.rtt();
        room.edit(Edit::Path { link, path: PathId::RELAY, via, window: Some(window), rtt, budget: None });
        if self.steer.had_relay && self.live.is_some() && self.steer.main == PathId::RELAY {
            // what the connection before swallowed goes again (protocol 7.6)
            room.edit(Edit::FallBack { link, to: PathId::RELAY });
            self.steer.main_since = now;
        }
        if self.directs.iter().any(|direct| direct.path() == self.steer.main && direct.is_suspect()) {
            // when the doubt began there was nothing to rescue it
            room.edit(Edit::Hedge { link, rescue: PathId::RELAY });
        }
        self.steer.had_relay = true;
    }

    /// Moves to a better path, if there is one and nothing holds it down.
    pub(super) fn consider(&mut self, now: Instant, room: &mut Room) {
        let mut options: Vec<Usable> = Vec::new();
        if self.relay_via().is_some() {
            options.push(Usable { path: PathId::RELAY, label: PathLabel::RelayWss, rtt: None });
        }
        let directs = self.directs.iter().filter(|direct| direct.is_usable() && !direct.is_suspect());
        options.extend(directs.map(|direct| Usable { path: direct.path(), label: direct.label(), rtt: direct.rtt() }));
        let Some(to) = best(&options, self.steer.main).filter(|to| *to != self.steer.main) else { return };
        let label = options.iter().find(|option| option.path == to).map_or(PathLabel::RelayWss, |option| option.label);
        self.switches.retain(|at| now.since(*at) < MINUTE);
        let oldest = self.switches.front().copied();
        let hold = self.steer.hold_until.filter(|_| self.is_held(to)).max(self.waits_for_missed(now, to));
        let damped = (self.switches.len() >= SWITCHES_PER_MINUTE).then(|| oldest.map_or(now + MINUTE, |at| at + MINUTE));
        // a path that is gone or carries nothing is left at once
        let stuck = !options.iter().any(|option| option.path == self.steer.main);
        if let Some(until) = hold.filter(|until| *until > now).max(damped).filter(|_| !stuck) {
            self.steer.hold_until = Some(until);
            return;
        }
        let from = self.label_of_main();
        self.steer.hold_until = None;
        room.edit(Edit::Switch { link: self.id, to });
        self.steer.main = to;
        self.steer.main_since = now;
        self.switches.push_back(now);
        if !(label.is_relay() && from.is_some_and(PathLabel::is_relay)) {
            self.migrations += 1;
            room.totals.migrations_ok += 1;
        }
        // a round looks for direct paths; a detour begins with itself
        let round = self.attempt.decided_at().filter(|_| !label.is_relay());
        let decided = round.or_else(|| self.directs.iter().find(|direct| direct.path() == to).map(Direct::first_at));
        let took = decided.map_or(Duration::ZERO, |at| now.since(at));
        room.note(Note::Migrated { peer: self.peer, from, to: label, took });
        room.park_when_direct();
    }

    /// The path that new data takes, if it is there.
    fn label_of_main(&self) -> Option<PathLabel> {
        if self.steer.main == PathId::RELAY {
            return self.relay_via().map(|_| PathLabel::RelayWss);
        }
        self.directs.iter().find(|direct| direct.path() == self.steer.main && direct.is_usable()).map(Direct::label)
    }

    /// Until when a path by WebSocket waits for the one by UDP that is missed: two moves in a row would use up what a minute allows.
    fn waits_for_missed(&self, now: Instant, to: PathId) -> Option<Instant> {
        let streams = self.directs.iter().filter(|direct| direct.path() == to && !direct.is_datagrams());
        let is_missed = |direct: &Direct| direct.is_datagrams() && self.steer.misses(direct.remote()).is_some_and(|until| until > now);
        let missed = self.directs.iter().any(|direct| !direct.is_usable() && is_missed(direct));
        streams.filter_map(Direct::usable_since).max().filter(|_| missed).map(|since| since + MISSED_FIRST)
    }

    /// Whether this path leads to where the last one failed. One to another place, after this peer or the other has moved, did nothing wrong.
    fn is_held(&self, path: PathId) -> bool {
        let direct = self.directs.iter().find(|direct| direct.path() == path);
        direct.zip(self.steer.held).is_none_or(|(direct, held)| {
            // who dials comes from another port each time
            if direct.is_datagrams() { direct.remote() == held } else { direct.remote().ip() == held.ip() }
        })
    }

    /// Leaves a direct path that died (protocol 7.5): for the relay, since other direct paths often share its fate; they must show life.
    pub(super) fn fall_back(&mut self, now: Instant, room: &mut Room, dead: &Direct, why: &'static str) {
        if dead.is_datagrams() {
            room.doubt_udp();
        }
        let other = self.directs.iter().find(|direct| direct.is_usable() && !direct.is_suspect());
        let (other, label) = (other.map(Direct::path), other.map(Direct::label));
        let to = other.filter(|_| self.relay_via().is_none()).unwrap_or(PathId::RELAY);
        let label = label.filter(|_| to != PathId::RELAY).unwrap_or(PathLabel::RelayWss);
        self.turn_back(now, room, (to, label), why, dead.silent(now));
        self.count_fallback(room, dead.is_detour());
        self.examine_directs(now, room);
        if to != PathId::RELAY || dead.is_detour() {
            return;
        }
        if dead.usable_since().is_some_and(|since| now.since(since) >= LIVED_WELL) {
            self.steer.hold.reset();
        }
        let hold = self.hold_down(now, room, dead.remote());
        self.attempt_after(now, hold);
        room.wake_relays();
    }

    /// Leaves a direct path that lives, but loses too much, for the relay; it may be taken again when the hold-down is over.
    pub(super) fn leave_lossy(&mut self, now: Instant, room: &mut Room) {
        let main = self.steer.main;
        let Some(remote) = self.directs.iter().find(|direct| direct.path() == main).map(Direct::remote) else { return };
        if now.since(self.steer.main_since) >= LIVED_WELL {
            self.steer.hold.reset();
        }
        let why = "more than a fifth of what was sent was lost";
        let was_detour = self.is_on_detour();
        self.turn_back(now, room, (PathId::RELAY, PathLabel::RelayWss), why, Duration::ZERO);
        self.count_fallback(room, was_detour);
        self.hold_down(now, room, remote);
    }

    /// The traffic takes another path, and all that is not receipted goes again there.
    fn turn_back(&mut self, now: Instant, room: &mut Room, (to, label): (PathId, PathLabel), why: &'static str, silent: Duration) {
        room.edit(Edit::FallBack { link: self.id, to });
        self.steer.main = to;
        self.steer.main_since = now;
        self.switches.push_back(now);
        room.note(Note::FellBack { peer: self.peer, to: label, why, silent });
    }

    /// What counts is whether the traffic goes by a relay, not in what clothes.
    fn count_fallback(&mut self, room: &mut Room, was_detour: bool) {
        self.fallbacks += u64::from(!was_detour);
        room.totals.fallbacks += u64::from(!was_detour);
    }

    /// No path to this place is taken for a while; how long.
    fn hold_down(&mut self, now: Instant, room: &mut Room, place: SocketAddr) -> Duration {
        let hold = self.steer.hold.fail(&mut room.entropy);
        self.steer.hold_until = Some(now + hold);
        self.steer.held = Some(place);
        self.steer.missed_until = now + MISSED_TIME;
        hold
    }

    /// Each direct path must show life.
    fn examine_directs(&mut self, now: Instant, room: &mut Room) {
        if let Some(key) = self.path_key() {
            for direct in &mut self.directs {
                direct.examine(now, room, &key);
            }
        }
    }

    /// Our own addresses, or the ways to others, have changed: each direct path must show life from here, and where there is none one is
    /// looked for at once. What was sent amid the change is in doubt, and the network tells nobody: it goes again, in order.
    pub(crate) fn moved(&mut self, now: Instant, room: &mut Room) {
        let (link, main) = (self.id, self.steer.main);
        if let Some(direct) = self.directs.iter().find(|direct| direct.path() == main && direct.is_datagrams() && direct.is_usable()) {
            room.edit(Edit::FallBack { link, to: main });
            if let Some(rescue) = self.rescue_path(main).filter(|_| direct.is_suspect()) {
                room.edit(Edit::Hedge { link, rescue });
            }
        }
        if let Some(key) = self.path_key() {
            for direct in &mut self.directs {
                direct.examine_anew(now, room, &key);
            }
        }
        self.attempt_soon(now);
        self.ask_around(now, room);
    }

    /// The plane noticed that nothing comes back on a path. Some: the relay of this link is in doubt.
    pub(crate) fn stalled(&mut self, now: Instant, room: &mut Room, path: PathId, pto: Duration) -> Option<usize> {
        if path != self.steer.main {
            return None;
        }
        // a relay that is to carry the copies must live, too
        self.examine_relay(now, room, pto);
        if path == PathId::RELAY {
            return self.relay_via().map(|(uplink, _, _)| uplink);
        }
        self.suspect(now, room, path, pto);
        None
    }

    pub(super) fn steer_alarm(&mut self, now: Instant, room: &mut Room) {
        if self.steer.hold_until.is_some_and(|until| until <= now) {
            self.steer.hold_until = None;
            self.consider(now, room);
        }
    }
}
