//! What a stage is asked at the end of its story: who stands with whom, what is missing, and whether all is whole again.
use super::{
    ledger::Ledger,
    model::Rule,
    plan::{Direct, Home},
    run::Account as Verdict,
    stage::Stage,
};
use crate::{
    model::Account,
    world::{FlowId, HostId, RESENT_AFTER, Way, World},
};
use shadowmesh_core::{event::Note, status::RelayState, time::Instant, wire::PathLabel};
use std::{collections::BTreeMap, time::Duration};

/// Between two looks at whether something is reached.
const LOOK: Duration = Duration::from_millis(50);
/// Fresh traffic has arrived within so long, even if an idle path that it takes has died unseen.
const WHOLE_WITHIN: Duration = Duration::from_secs(12);
/// A switch waits so long for what the old path still carries (protocol 7.3).
const SWITCH_WAITS: Duration = Duration::from_millis(500);

/// Reasons under which packets of ours are counted that do not come out.
const COUNTED: [&str; 11] = [
    "queue_full",
    "congestion",
    "no_route",
    "packet",
    "hold_full",
    "late",
    "storm",
    "mac",
    "source_address",
    "destination_address",
    "unexpected",
];

impl Stage<'_> {
    /// Lets time pass until `is_so`, at the longest for `limit`; how long it took.
    pub(super) fn until(&mut self, limit: Duration, mut is_so: impl FnMut(&mut Self) -> bool) -> Option<Duration> {
        let start = self.world.now();
        loop {
            if is_so(self) {
                return Some(self.world.now().since(start));
            }
            if self.world.is_stopped() || self.world.now().since(start) > limit {
                return None;
            }
            self.world.run(LOOK);
        }
    }

    fn pairs(&self) -> Vec<(HostId, HostId)> {
        let peers = &self.peers;
        peers.iter().flat_map(|a| peers.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b).collect()
    }

    /// Each peer stands with a relay, or needs none.
    pub(super) fn all_relayed(&mut self) -> bool {
        self.peers.clone().into_iter().all(|peer| {
            let states = self.world.relay_states(peer);
            states.iter().any(|state| matches!(state, RelayState::Connected | RelayState::Parked))
        })
    }

    /// Each peer has a session with each.
    pub(super) fn all_connected(&mut self) -> bool {
        self.pairs().into_iter().all(|(a, b)| self.world.is_connected(a, b))
    }

    /// Who of them could be direct and is not.
    pub(super) fn not_direct(&mut self) -> Vec<(HostId, HostId)> {
        let can = self.pairs().into_iter().filter(|(a, b)| self.can_be_direct(*a, *b)).collect::<Vec<_>>();
        can.into_iter().filter(|(a, b)| self.world.label(*a, *b).is_none_or(PathLabel::is_relay)).collect()
    }

    fn can_be_direct(&self, a: HostId, b: HostId) -> bool {
        let home = |host: HostId| self.plan.homes[host.0 - self.relays.len()];
        if self.plan.direct == Direct::Datagrams {
            return home(a).meets_by_udp(home(b));
        }
        let takes = |host: HostId, v4: bool| {
            let home = home(host);
            // a box forwards to the address that the host had when its listener opened
            home.has(v4) && home.is_reachable() && !(matches!(home, Home::Behind { .. }) && self.moved.contains(&host))
        };
        [true, false].into_iter().any(|v4| (takes(b, v4) && home(a).has(v4)) || (takes(a, v4) && home(b).has(v4)))
    }

    /// Packets that are missing, and those that were counted or excused.
    pub(super) fn balance(&mut self) -> (u64, u64, String) {
        let missing: u64 = self.world.flows().into_iter().map(|flow| self.world.account_of(flow).lost).sum();
        let excused: u64 = self.excused.values().sum();
        let (mut counted, mut lines) = (0, Vec::new());
        for peer in self.peers.clone() {
            let status = self.world.status(peer);
            let drops: Vec<_> = status.drops.iter().filter(|(name, count)| *count > 0 && COUNTED.contains(name)).collect();
            let lost: u64 = status.peers.iter().map(|peer| peer.lost_frames).sum();
            let interface = self.world.interface_lost(peer);
            counted += drops.iter().map(|(_, count)| count).sum::<u64>() + lost + interface;
            lines.push(format!("{peer:?}: {drops:?}, lost {lost}, at the interface {interface}"));
        }
        let flooded = self.world.flooded();
        let how = format!("{}; excused {excused}, flooded {flooded}", lines.join("; "));
        (missing, counted + excused + flooded + self.interface_lost, how)
    }

    /// Frames that were given up after sealing.
    pub(super) fn lost_after_sealing(&mut self) -> u64 {
        let peers = self.peers.clone();
        peers.into_iter().flat_map(|peer| self.world.status(peer).peers).map(|peer| peer.lost_frames).sum()
    }

    /// Records that relays dropped.
    pub(super) fn dropped_by_relays(&mut self) -> u64 {
        self.relays.clone().into_iter().map(|relay| self.world.hub_status(relay).drops.iter().map(|(_, count)| count).sum::<u64>()).sum()
    }

    /// Changes of path between two peers that either of them has made, and frames that the first lost on its way to the second.
    fn told_of(&mut self, from: HostId, to: HostId) -> (u64, u64) {
        let seen_by = |world: &mut World, host, other| {
            let other = world.id(other);
            let lost = world.status(host).peers.iter().find(|peer| peer.id == other).map_or(0, |peer| peer.lost_frames);
            let moves =
                world.noted(host, |note| matches!(note, Note::Migrated { peer, .. } | Note::FellBack { peer, .. } if *peer == other));
            (moves as u64, lost)
        };
        let (here, lost) = seen_by(&mut self.world, from, to);
        (here + seen_by(&mut self.world, to, from).0, lost)
    }

    /// Whether a frame can be so late that a switch does not wait for it (protocol 7.3).
    pub(super) fn may_be_late(&self) -> bool {
        let worst = |way: Way| {
            let queue = Duration::from_nanos(way.window as u64 * 1_000_000_000 / way.rate.max(1));
            let resent = if way.loss > 0 { RESENT_AFTER.max(way.latency * 2) } else { Duration::ZERO };
            queue + way.latency + way.jitter + resent
        };
        (worst(self.plan.to_relays.way()) * 2).max(worst(self.plan.between.way())) >= SWITCH_WAITS
    }

    /// What of a flow of fresh traffic was promised and is missing all the same, given what was told before it and after.
    fn unpromised(&self, lost: u64, before: (u64, u64), after: (u64, u64)) -> bool {
        let moved = before.0 != after.0;
        let counted = lost <= after.1.saturating_sub(before.1);
        if self.has_datagrams() && (self.plan.has_rough_datagrams() || self.world.overflowed() > 0) {
            return counted || self.loses_on_dead_paths();
        }
        moved && (self.loses_on_dead_paths() || (self.may_be_late() && lost > 0 && counted))
    }

    /// Fresh traffic between all: it must arrive whole. Two things are not promised, and only to those who changed their path meanwhile:
    /// in mode `off` a change of path may lose and reorder (protocol 7.7; a way that loses much makes TCP silent for long enough to be
    /// left), and a switch waits half a second for what the old path still carries and then counts it as lost (protocol 7.3). And what a rough
    /// way loses of datagrams, or delays, is lost or late, and counted.
    pub(super) fn show_whole(&mut self) {
        let mut before = BTreeMap::new();
        if self.loses_on_dead_paths() || self.may_be_late() || self.has_datagrams() {
            for (a, b) in self.pairs() {
                before.insert((a, b), self.told_of(a, b));
            }
        }
        let fresh: Vec<FlowId> = self.pairs().into_iter().map(|(a, b)| self.world.burst(a, b, 40, 120, 12)).collect();
        // the last packet is handed in after 300 ms; what a dead path swallowed comes when its death is noticed
        self.world.run(Duration::from_millis(400));
        self.until(WHOLE_WITHIN, |stage| fresh.iter().all(|flow| stage.world.account_of(*flow).lost == 0));
        for flow in fresh {
            let account = self.world.account_of(flow);
            let (from, to) = self.world.ends_of(flow);
            if account.doubled == 0
                && let Some(before) = before.get(&(from, to)).copied()
                && let after = self.told_of(from, to)
                && self.unpromised(account.lost, before, after)
            {
                continue;
            }
            self.model.borrow_mut().whole(&format!("{flow:?} from {from:?} to {to:?}"), account);
        }
    }

    pub(super) fn has_datagrams(&self) -> bool {
        self.plan.has_datagrams()
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.plan.is_ordered()
    }

    /// What the run was.
    pub(super) fn account(&mut self, ledger: &Ledger) -> Verdict {
        let accounts: Vec<Account> = self.world.flows().into_iter().map(|flow| self.world.account_of(flow)).collect();
        let (seals, opens) = ledger.counts();
        Verdict {
            digest: self.world.digest().0,
            output: self.model.borrow().output(),
            events: self.world.events(),
            virtual_time: self.world.now().since(Instant::from_millis(1_000_000)),
            seals,
            opens,
            handed: accounts.iter().map(|account| account.handed).sum(),
            missing: accounts.iter().map(|account| account.lost).sum(),
            recovery: self.recovery,
            most: self.model.borrow().records(),
            relays_lived: self.relays_lived,
            trace: Vec::new(),
        }
    }

    pub(super) fn demand_in_time(&mut self, rule: Rule, took: Option<Duration>, limit: Duration, how: &str) {
        if !self.world.is_stopped() {
            self.model.borrow_mut().reached(rule, took, limit, || how.to_owned());
        }
    }
}
