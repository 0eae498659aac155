//! What must be true of every run, whatever happens in it. Each rule is a function of observations, so each can be shown to fail.
use super::ledger::{Ledger, fingerprint};
use crate::{
    model::{Account, Flow},
    world::HostId,
};
use shadowmesh_core::{
    bound::Bound,
    event::Note,
    id::PeerId,
    time::{Duration, Instant},
};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

/// Moves of traffic to a better path within a minute: five, and the one that a fallback leaves room for (protocol 7.5).
const SWITCHES_PER_MINUTE: usize = 6;
const MINUTE: Duration = Duration::from_mins(1);
/// Alarms of one host in one second beside those that packets cause: a few timers of each of five peers, each at most every 5 ms.
const ALARMS_PER_SECOND: u64 = 1_000;
/// Alarms that one packet may cause at a host: receipts, holes, resends at both ends of a window.
const ALARMS_PER_PACKET: u64 = 20;

/// A thing that must be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// No packet comes out twice, altered, forged, or at the wrong host.
    ExactlyOnce,
    /// In `switch-lossless` packets come out in the order in which they went in.
    InOrder,
    /// What did not come out was counted somewhere.
    LossIsCounted,
    /// While the relay path lives, no sealed frame is lost.
    NothingLost,
    /// No key seals two plaintexts under one nonce.
    NonceOnce,
    /// Nothing is delivered that did not come out of an opened frame.
    OpenedFirst,
    /// Every queue, table and buffer keeps its bound.
    WithinBounds,
    /// When all is well, everybody is connected in time.
    ConnectedInTime,
    /// When all is well, whoever can is direct in time.
    DirectInTime,
    /// When all is well, everything comes out, once and in order.
    WholeAgain,
    /// At most six moves a minute, but those from a path that is gone.
    Damped,
    /// Without a switch, all modes put out the same.
    LikeOff,
    /// Nothing happens for ever in one moment, and no machine is busy with itself.
    NothingSpins,
    /// A stranger is not sent more than it sent, until it is known to be there.
    NoAmplification,
    /// No assertion fails: of the product, or of the world about it.
    NoPanic,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExactlyOnce => "exactly once",
            Self::InOrder => "in order",
            Self::LossIsCounted => "what is missing was counted",
            Self::NothingLost => "nothing is lost while a path lives",
            Self::NonceOnce => "a nonce once",
            Self::OpenedFirst => "no plaintext before authentication",
            Self::WithinBounds => "every bound is kept",
            Self::ConnectedInTime => "connected in time",
            Self::DirectInTime => "direct in time",
            Self::WholeAgain => "whole again",
            Self::Damped => "damped",
            Self::LikeOff => "like off without a switch",
            Self::NothingSpins => "nothing spins",
            Self::NoAmplification => "no amplification",
            Self::NoPanic => "no panic",
        })
    }
}

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which.
    pub rule: Rule,
    /// How.
    pub how: String,
}

/// What is known of one run so far.
pub struct Model {
    ordered: bool,
    ledger: Ledger,
    breach: Option<Breach>,
    moves: BTreeMap<(HostId, PeerId), VecDeque<Instant>>,
    /// Per host: the second that is counted, alarms at its start, packets in it.
    seconds: BTreeMap<HostId, (u64, u64, u64)>,
    most_moves: usize,
    most_alarms: u64,
    /// Of what came out, by host and flow.
    output: BTreeMap<(HostId, Option<u32>), u128>,
}

impl Model {
    /// A model of a run in which order is promised, or not.
    pub fn new(ordered: bool, ledger: Ledger) -> Self {
        Self {
            ordered,
            ledger,
            breach: None,
            moves: BTreeMap::new(),
            seconds: BTreeMap::new(),
            most_moves: 0,
            most_alarms: 0,
            output: BTreeMap::new(),
        }
    }

    /// A relay reorders on purpose from now on: order is not promised any more.
    pub fn expect_disorder(&mut self) {
        self.ordered = false;
    }

    /// The first rule that was broken.
    pub fn breach(&self) -> Option<&Breach> {
        self.breach.as_ref()
    }

    /// The most moves in a minute, and the most alarms of a host in a second, that were seen.
    pub fn records(&self) -> (usize, u64) {
        (self.most_moves, self.most_alarms)
    }

    /// A demand: what must be so, and what to say when it is not.
    pub fn demand(&mut self, rule: Rule, is_so: bool, how: impl FnOnce() -> String) {
        if !is_so && self.breach.is_none() {
            self.breach = Some(Breach { rule, how: how() });
        }
    }

    /// A digest of what came out, flow by flow in its order.
    pub fn output(&self) -> u64 {
        self.output.values().fold(0, |sum, digest| fingerprint(sum, &[&digest.to_le_bytes()]) as u64)
    }

    /// A packet left an interface.
    pub fn emerged(&mut self, host: HostId, packet: &[u8]) {
        let digest = self.output.entry((host, Flow::number_of(packet))).or_default();
        *digest = fingerprint(*digest as u64, &[packet]);
        let opened = self.ledger.delivered(host.0, packet);
        self.demand(Rule::OpenedFirst, opened, || format!("{host:?} delivered {} bytes that came out of no opened frame", packet.len()));
    }

    /// What became of a flow so far.
    pub fn flow(&mut self, name: &str, account: Account) {
        self.demand(Rule::ExactlyOnce, account.doubled == 0, || format!("{name}: {account:?}"));
        self.demand(Rule::InOrder, !self.ordered || account.reordered == 0, || format!("{name}: {account:?}"));
    }

    /// Keys so far.
    pub fn keys(&mut self) {
        if let Some(how) = self.ledger.reused() {
            self.demand(Rule::NonceOnce, false, || how);
        }
    }

    /// What a host holds of something.
    pub fn bound(&mut self, host: HostId, bound: Bound) {
        self.demand(Rule::WithinBounds, bound.is_kept(), || {
            format!("{host:?} holds {} of at most {}: {}", bound.held, bound.most, bound.name)
        });
    }

    /// A host has started: its machines remember nothing of the moves of another life.
    pub fn reborn(&mut self, host: HostId) {
        self.moves.retain(|(mover, _), _| *mover != host);
        self.seconds.remove(&host);
    }

    /// A peer said something.
    pub fn note(&mut self, at: Instant, host: HostId, note: &Note) {
        // a move from a path that is gone is no flapping: nothing else carries the traffic
        if let Note::Migrated { peer, from: Some(_), .. } = note {
            let moves = self.moves.entry((host, *peer)).or_default();
            moves.push_back(at);
            while moves.front().is_some_and(|first| at.since(*first) >= MINUTE) {
                moves.pop_front();
            }
            let count = moves.len();
            self.most_moves = self.most_moves.max(count);
            self.demand(Rule::Damped, count <= SWITCHES_PER_MINUTE, || {
                format!("{host:?} moved its traffic to {peer} {count} times in a minute")
            });
        }
    }

    /// A host has had so many alarms and was given so many packets in all.
    pub fn busy(&mut self, now: Instant, host: HostId, alarms: u64, packets: u64) {
        let second = now.as_nanos() / 1_000_000_000;
        let (counted, before, packets_before) = *self.seconds.entry(host).or_insert((second, alarms, packets));
        if counted != second || alarms < before {
            self.seconds.insert(host, (second, alarms, packets));
            return;
        }
        let (own, given) = (alarms - before, packets - packets_before);
        self.most_alarms = self.most_alarms.max(own);
        let most = ALARMS_PER_SECOND + ALARMS_PER_PACKET * given;
        self.demand(Rule::NothingSpins, own <= most, || format!("{host:?}: {own} alarms and {given} packets in one second"));
    }

    /// Packets that did not come out, and those that were counted as lost somewhere or died with a host.
    pub fn balance(&mut self, missing: u64, counted: u64, how: &str) {
        self.demand(Rule::LossIsCounted, missing <= counted, || format!("{missing} packets are missing, {counted} were counted: {how}"));
    }

    /// Frames lost after sealing, in a run in which the relay path always lived.
    pub fn lost_on_a_living_path(&mut self, lost: u64, how: &str) {
        self.demand(Rule::NothingLost, lost == 0, || format!("{lost} sealed frames were lost: {how}"));
    }

    /// A flow after all was well again.
    pub fn whole(&mut self, name: &str, account: Account) {
        let is_whole = account.handed > 0 && account.lost == 0 && account.doubled == 0 && account.reordered == 0;
        self.demand(Rule::WholeAgain, is_whole, || format!("{name}: {account:?}"));
    }

    /// Something that must be reached by a time; `took` is None when it was not.
    pub fn reached(&mut self, rule: Rule, took: Option<Duration>, limit: Duration, how: impl FnOnce() -> String) {
        self.demand(rule, took.is_some_and(|took| took <= limit), || format!("not within {limit:?}: {}", how()));
    }

    /// What two modes put out in a run without a switch.
    pub fn alike(&mut self, one: u64, other: u64) {
        self.demand(Rule::LikeOff, one == other, || format!("the digests of what came out are {one:016x} and {other:016x}"));
    }

    /// A stranger was sent more than it had paid for.
    pub fn amplified(&mut self, who: Option<String>) {
        self.demand(Rule::NoAmplification, who.is_none(), || who.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_core::wire::PathLabel;

    const HOST: HostId = HostId(1);
    const WHOLE: Account = Account { handed: 9, lost: 0, doubled: 0, reordered: 0 };

    fn breach(observe: impl FnOnce(&mut Model)) -> Option<Rule> {
        let mut model = Model::new(true, Ledger::default());
        observe(&mut model);
        model.breach().map(|breach| breach.rule)
    }

    #[test]
    fn a_flow_that_is_doubled_or_reordered_is_a_breach() {
        assert_eq!(breach(|model| model.flow("f", WHOLE)), None);
        assert_eq!(breach(|model| model.flow("f", Account { doubled: 1, ..WHOLE })), Some(Rule::ExactlyOnce));
        assert_eq!(breach(|model| model.flow("f", Account { reordered: 1, ..WHOLE })), Some(Rule::InOrder));
        let mut unordered = Model::new(false, Ledger::default());
        unordered.flow("f", Account { reordered: 1, ..WHOLE });
        assert_eq!(unordered.breach(), None, "where order is not promised");
    }

    #[test]
    fn a_loss_that_nobody_counted_is_a_breach() {
        assert_eq!(breach(|model| model.balance(3, 3, "")), None);
        assert_eq!(breach(|model| model.balance(4, 3, "")), Some(Rule::LossIsCounted));
        assert_eq!(breach(|model| model.lost_on_a_living_path(0, "")), None);
        assert_eq!(breach(|model| model.lost_on_a_living_path(1, "")), Some(Rule::NothingLost));
        assert_eq!(breach(|model| model.whole("f", WHOLE)), None);
        assert_eq!(breach(|model| model.whole("f", Account { lost: 1, ..WHOLE })), Some(Rule::WholeAgain));
        assert_eq!(breach(|model| model.whole("f", Account { handed: 0, ..WHOLE })), Some(Rule::WholeAgain), "nothing proves nothing");
    }

    #[test]
    fn a_nonce_used_twice_is_a_breach() {
        let ledger = Ledger::default();
        let mut model = Model::new(true, ledger.clone());
        ledger.sealed(1, 7, &[0; 12], b"", b"one");
        model.keys();
        assert_eq!(model.breach(), None);
        ledger.sealed(1, 7, &[0; 12], b"", b"two");
        model.keys();
        assert_eq!(model.breach().map(|breach| breach.rule), Some(Rule::NonceOnce));
    }

    #[test]
    fn a_packet_from_nowhere_is_a_breach() {
        assert_eq!(breach(|model| model.emerged(HOST, b"packet")), Some(Rule::OpenedFirst));
    }

    #[test]
    fn a_full_table_is_none_and_a_fuller_one_is_a_breach() {
        let bound = |held| Bound { name: "table", held, most: 8 };
        assert_eq!(breach(|model| model.bound(HOST, bound(8))), None);
        assert_eq!(breach(|model| model.bound(HOST, bound(9))), Some(Rule::WithinBounds));
    }

    #[test]
    fn a_seventh_move_within_a_minute_is_a_breach() {
        let note = |from| Note::Migrated { peer: PeerId([1; 32]), from, to: PathLabel::DirectWss, took: Duration::ZERO };
        let after =
            |gap_ms: u64, from| breach(|model| (0..7).for_each(|turn| model.note(Instant::from_millis(turn * gap_ms), HOST, &note(from))));
        assert_eq!(after(10_000, Some(PathLabel::RelayWss)), None);
        assert_eq!(after(9_000, Some(PathLabel::RelayWss)), Some(Rule::Damped));
        assert_eq!(after(9_000, None), None, "there was no choice");
    }

    #[test]
    fn a_host_that_is_busy_with_itself_is_a_breach() {
        let second = |alarms| {
            breach(|model| {
                model.busy(Instant::from_millis(1_000), HOST, 5, 0);
                model.busy(Instant::from_millis(1_900), HOST, 5 + alarms, 0);
            })
        };
        assert_eq!(second(ALARMS_PER_SECOND), None);
        assert_eq!(second(ALARMS_PER_SECOND + 1), Some(Rule::NothingSpins));
    }

    #[test]
    fn what_comes_late_or_never_is_a_breach() {
        let limit = Duration::from_secs(2);
        let reached = |rule, took| breach(|model| model.reached(rule, took, limit, String::new));
        assert_eq!(reached(Rule::ConnectedInTime, Some(limit)), None);
        assert_eq!(reached(Rule::ConnectedInTime, Some(limit + Duration::from_millis(1))), Some(Rule::ConnectedInTime));
        assert_eq!(reached(Rule::DirectInTime, None), Some(Rule::DirectInTime));
    }

    #[test]
    fn modes_that_differ_and_a_reply_that_is_too_long_are_breaches() {
        assert_eq!(breach(|model| model.alike(1, 1)), None);
        assert_eq!(breach(|model| model.alike(1, 2)), Some(Rule::LikeOff));
        assert_eq!(breach(|model| model.amplified(None)), None);
        assert_eq!(breach(|model| model.amplified(Some("who".into()))), Some(Rule::NoAmplification));
    }
}
