//! A plan made into a world, and deeds done to it.
use super::{
    ledger::{Ledger, Watched},
    model::{Model, Rule},
    plan::{Home, Mode, Plan},
    run::Account as Verdict,
    step::Deed,
};
use crate::{
    model::Account,
    world::{FlowId, HostId, Letter, Rng, Tap, Watch, World, rewrite},
};
use shadowmesh_core::{
    config::Limits,
    crypto::Provider,
    event::{Event, Note},
    id::PeerId,
    status::RelayState,
    time::Instant,
    wire::{PathLabel, TYPE_DLV, TYPE_FWD},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// Between two looks at whether something is reached.
const LOOK: Duration = Duration::from_millis(50);
/// Fresh traffic has arrived within so long, even if an idle path that it takes has died unseen.
const WHOLE_WITHIN: Duration = Duration::from_secs(12);
/// What an overlay packet of a flow may have, bytes.
const PACKET_BYTES: usize = 60;

/// The model's eyes in the world.
struct Eyes {
    model: Rc<RefCell<Model>>,
    notes: BTreeMap<HostId, usize>,
    /// Deliveries and packets handed in, by host, as far as they cause alarms.
    packets: BTreeMap<HostId, u64>,
    /// Who has had a session with whom.
    sessions: BTreeSet<(HostId, PeerId)>,
    /// Flows under way when their session was replaced: a new session waits half a second for the end of the old one and no longer
    /// (protocol 7.3), so order is promised within a session and not beyond.
    replaced: BTreeSet<FlowId>,
}

impl Eyes {
    fn session_made(&mut self, world: &World, host: HostId, peer: PeerId) {
        if self.sessions.insert((host, peer)) {
            return;
        }
        for flow in world.flows() {
            let (from, to) = world.ends_of(flow);
            if to == host && world.id(from) == peer {
                self.replaced.insert(flow);
            }
        }
    }
}

impl Watch for Eyes {
    fn look(&mut self, world: &mut World, host: Option<HostId>) -> bool {
        let model = Rc::clone(&self.model);
        let mut model = model.borrow_mut();
        for flow in world.take_fresh() {
            let (from, to) = world.ends_of(flow);
            for end in [from, to] {
                *self.packets.entry(end).or_default() += 1;
            }
            model.flow_of(flow, from, to, world.account_of(flow), !self.replaced.contains(&flow));
        }
        if let Some(host) = host {
            *self.packets.entry(host).or_default() += 1;
            let notes = world.fresh_notes(host);
            let seen = self.notes.entry(host).or_default();
            *seen = (*seen).min(notes.len());
            let fresh: Vec<(Instant, Note)> = notes[*seen..].to_vec();
            *seen = notes.len();
            for (at, note) in fresh {
                model.note(at, host, &note);
                if let Note::PeerConnected { peer, .. } = note {
                    self.session_made(world, host, peer);
                }
            }
            world.bounds(host, &mut |bound| model.bound(host, bound));
            model.busy(world.now(), host, world.alarms(host), self.packets.get(&host).copied().unwrap_or(0));
        }
        model.keys();
        model.breach().is_none()
    }

    fn emerged(&mut self, host: HostId, packet: &[u8]) {
        self.model.borrow_mut().emerged(host, packet);
    }
}

impl Model {
    fn flow_of(&mut self, flow: FlowId, from: HostId, to: HostId, account: Account, one_session: bool) {
        if account.doubled > 0 || (account.reordered > 0 && one_session) {
            self.flow(&format!("{flow:?} from {from:?} to {to:?}"), account);
        }
    }
}

/// A world with the names of what is in it.
pub(super) struct Stage<'a> {
    plan: &'a Plan,
    pub(super) world: World,
    pub(super) model: Rc<RefCell<Model>>,
    pub(super) peers: Vec<HostId>,
    relays: Vec<HostId>,
    stranger: HostId,
    rng: Rng,
    pings: u32,
    /// Packets that died with a host or may have.
    excused: BTreeMap<FlowId, u64>,
    interface_lost: u64,
    moved: BTreeSet<HostId>,
    lied: bool,
    /// Nothing has befallen a relay, a way to one, or a host so far.
    pub(super) relays_lived: bool,
    pub(super) recovery: [Duration; 3],
}

impl<'a> Stage<'a> {
    /// The world of a plan, with nothing running yet.
    pub(super) fn new(plan: &'a Plan, crypto: &Arc<dyn Provider>, ledger: &Ledger, direct: bool) -> Self {
        let mut world = World::with_crypto(plan.seed, Arc::clone(crypto));
        world.pool_identities();
        let watched = |host: usize| -> Arc<dyn Provider> { Arc::new(Watched::new(Arc::clone(crypto), ledger.clone(), host)) };
        let relays: Vec<HostId> = (0..plan.relay_count())
            .map(|number| {
                world.relay_with(|config| {
                    config.crypto = watched(number);
                    config.limits = Limits { join_burst: 1_000, preauth_per_source: 64, ..Limits::default() };
                })
            })
            .collect();
        let mut peers = Vec::new();
        for at in 0..plan.peer_count() {
            let home = plan.homes[at];
            let crypto = watched(relays.len() + at);
            let host = world.idle_peer(&relays, |peer| {
                peer.config.crypto = crypto;
                peer.config.mode = plan.mode.into();
                peer.config.layer2 = plan.layer2;
                peer.config.close_relay = plan.close_relay;
                peer.config.retry_interval = plan.retry_interval();
                peer.config.direct = direct;
                peer.interfaces.retain(|(ip, _)| home.has(ip.is_ipv4()));
            });
            settle(&mut world, host, home);
            peers.push(host);
        }
        let stranger = world.stranger();
        let model = Rc::new(RefCell::new(Model::new(plan.is_ordered(), ledger.clone())));
        world.watch(Box::new(Eyes {
            model: Rc::clone(&model),
            notes: BTreeMap::new(),
            packets: BTreeMap::new(),
            sessions: BTreeSet::new(),
            replaced: BTreeSet::new(),
        }));
        world.overhear();
        let mut stage = Self {
            plan,
            world,
            model,
            peers,
            relays,
            stranger,
            rng: Rng::new(plan.seed ^ 0xdeed),
            pings: 0,
            excused: BTreeMap::new(),
            interface_lost: 0,
            moved: BTreeSet::new(),
            lied: false,
            relays_lived: !plan.close_relay,
            recovery: [Duration::ZERO; 3],
        };
        stage.shape_all();
        for host in stage.hosts() {
            stage.world.start(host);
        }
        stage
    }

    pub(super) fn hosts(&self) -> Vec<HostId> {
        self.peers.iter().chain(&self.relays).copied().collect()
    }

    fn host(&self, number: u8) -> HostId {
        let all = self.peers.len() + self.relays.len();
        let at = usize::from(number) % all;
        self.peers.get(at).copied().unwrap_or_else(|| self.relays[at - self.peers.len()])
    }

    fn peer(&self, number: u8) -> HostId {
        self.peers[usize::from(number) % self.peers.len()]
    }

    /// Two peers that are not one.
    fn two_peers(&self, a: u8, b: u8) -> (HostId, HostId) {
        let (a, b) = (usize::from(a) % self.peers.len(), usize::from(b) % self.peers.len());
        (self.peers[a], self.peers[if a == b { (b + 1) % self.peers.len() } else { b }])
    }

    fn two_hosts(&self, a: u8, b: u8) -> (HostId, HostId) {
        let (one, other) = (self.host(a), self.host(b));
        if one == other { (one, self.host(b.wrapping_add(1) % (self.hosts().len() as u8))) } else { (one, other) }
    }

    fn is_relay(&self, host: HostId) -> bool {
        self.relays.contains(&host)
    }

    fn shape_all(&mut self) {
        let hosts = self.hosts();
        for (at, one) in hosts.iter().enumerate() {
            for other in &hosts[at + 1..] {
                let quality = if self.is_relay(*one) || self.is_relay(*other) { self.plan.to_relays } else { self.plan.between };
                self.world.change_way(*one, *other, |way| *way = quality.way());
            }
        }
        if self.plan.to_relays.way().corruption > 0 {
            self.relays_lived = false;
        }
    }

    /// Does one deed. Numbers are taken round, and what makes no sense now does nothing.
    pub(super) fn perform(&mut self, deed: Deed) {
        self.world.tell(|| format!("{deed:?}"));
        match deed {
            Deed::Stream { from, to, rate, packets, len } => {
                let (from, to) = self.two_peers(from, to);
                self.world.burst(from, to, u32::from(rate.max(1)), PACKET_BYTES + 5 * usize::from(len), u64::from(packets.max(1)));
            }
            Deed::Burst { from, to, packets, len } => {
                let (from, to) = self.two_peers(from, to);
                self.world.burst(from, to, 1_000_000, PACKET_BYTES + 5 * usize::from(len), u64::from(packets.max(1)));
            }
            Deed::Cut { .. }
            | Deed::CutOneWay { .. }
            | Deed::Heal { .. }
            | Deed::Refuse { .. }
            | Deed::Reset { .. }
            | Deed::Shape { .. } => {
                self.trouble_a_way(deed);
            }
            Deed::Crash { host } => self.end_life(self.host(host), |world, host| {
                world.kill(host);
            }),
            Deed::PowerLoss { host } => self.end_life(self.host(host), World::darken),
            Deed::Restart { host } => {
                let host = self.host(host);
                self.end_life(host, |world, host| {
                    world.kill(host);
                });
                self.start(host);
            }
            Deed::Leave { host } => self.end_life(self.host(host), World::leave),
            Deed::Start { host } => self.start(self.host(host)),
            Deed::Sleep { host } => {
                self.relays_lived = false;
                self.world.sleep(self.host(host));
            }
            Deed::Wake { host } => self.world.wake(self.host(host)),
            Deed::Jump { host, minutes } => {
                self.relays_lived = false;
                let peer = self.peer(host);
                self.world.jump_clock(peer, Duration::from_mins(u64::from(minutes)));
            }
            Deed::SlowInterface { host, rate } => {
                let peer = self.peer(host);
                self.world.pace_interface(peer, u32::from(rate));
            }
            Deed::Move { host } => self.move_away(self.peer(host)),
            Deed::Lie { relay } => {
                self.lied = true;
                let relay = self.relays[usize::from(relay) % self.relays.len()];
                self.world.let_lie(relay, Box::new(|_| SocketAddr::from(([203, 0, 113, 250], 9))));
            }
            Deed::Ping { from, to, len } => self.ping(from, to, len),
            Deed::Stranger { target, how } => self.send_a_stranger(target, how),
            Deed::Meddle { peer, relay, how } => {
                self.relays_lived = false;
                self.model.borrow_mut().expect_disorder();
                let (peer, relay) = (self.peer(peer), self.relays[usize::from(relay) % self.relays.len()]);
                let tap = meddler(how, self.rng.u64());
                self.world.tap(peer, relay, tap);
            }
            Deed::Behave { peer, relay } => {
                let (peer, relay) = (self.peer(peer), self.relays[usize::from(relay) % self.relays.len()]);
                self.world.untap(peer, relay);
            }
            Deed::Idle { seconds } => self.world.run(Duration::from_secs(u64::from(seconds) / 2)),
            Deed::Calm => self.calm(),
        }
    }

    fn trouble_a_way(&mut self, deed: Deed) {
        let (Deed::Cut { a, b }
        | Deed::CutOneWay { from: a, to: b }
        | Deed::Heal { a, b }
        | Deed::Refuse { a, b }
        | Deed::Reset { a, b }
        | Deed::Shape { a, b, .. }) = deed
        else {
            return;
        };
        let (a, b) = self.two_hosts(a, b);
        if (self.is_relay(a) || self.is_relay(b)) && !matches!(deed, Deed::Heal { .. }) {
            self.relays_lived = false;
        }
        match deed {
            Deed::Cut { .. } => self.world.cut(a, b),
            Deed::CutOneWay { .. } => self.world.cut_one_way(a, b),
            Deed::Heal { .. } => self.world.heal(a, b),
            Deed::Refuse { .. } => self.world.refuse(a, b),
            Deed::Reset { .. } => self.world.reset(a, b),
            Deed::Shape { quality, .. } => {
                let shaped = quality.way();
                self.world.change_way(a, b, |way| {
                    let (cut, refuses) = (way.cut, way.refuses);
                    *way = shaped;
                    (way.cut, way.refuses) = (cut, refuses);
                });
            }
            _ => {}
        }
    }

    fn start(&mut self, host: HostId) {
        if !self.world.runs(host) {
            self.world.start(host);
        }
    }

    /// Takes a host out: what was on its way from it or to it may die with it.
    fn end_life(&mut self, host: HostId, end: impl FnOnce(&mut World, HostId)) {
        self.relays_lived = false;
        if !self.world.runs(host) {
            return;
        }
        self.world.wake(host);
        end(&mut self.world, host);
        self.interface_lost += self.world.interface_lost(host);
        for flow in self.world.flows() {
            let (from, to) = self.world.ends_of(flow);
            if from == host || to == host {
                // until the other end has noticed, it goes on sending into the void
                let missing = self.world.account_of(flow).lost;
                let excused = self.excused.entry(flow).or_default();
                *excused = (*excused).max(missing);
            }
        }
    }

    fn move_away(&mut self, peer: HostId) {
        self.relays_lived = false;
        if self.world.is_up(peer) {
            self.world.move_host(peer);
            self.moved.insert(peer);
        }
    }

    fn ping(&mut self, from: u8, to: u8, len: u8) {
        let (from, to) = self.two_peers(from, to);
        let peer = self.world.id(to);
        self.pings += 1;
        if self.world.is_up(from) {
            let payload = vec![0x55; usize::from(len) * 3];
            self.world.event(from, Event::Ping { peer, id: self.pings, payload });
        }
    }

    fn send_a_stranger(&mut self, target: u8, how: u8) {
        let host = self.host(target);
        let v4 = self.world.interfaces_of(host).iter().any(std::net::IpAddr::is_ipv4);
        let address =
            if self.is_relay(host) { Some(SocketAddr::new(self.world.address(host, v4), 443)) } else { self.world.listener(host) };
        let Some(conn) = address.and_then(|address| self.world.knock(self.stranger, address)) else { return };
        for round in 0..=usize::from(how % 4) {
            let overheard = self.world.overheard(usize::from(how) + round * 7);
            let len = self.rng.below(2_000);
            let mut bytes = overheard.filter(|_| how & 0x40 == 0).unwrap_or_else(|| self.rng.noise(len));
            if how & 0x80 != 0 && !bytes.is_empty() {
                let at = self.rng.below(bytes.len());
                bytes[at] ^= 1 << self.rng.below(8);
            }
            self.world.say(self.stranger, conn, &bytes);
        }
    }

    /// Everything is as the plan has it, everybody runs, nobody lies.
    pub(super) fn calm(&mut self) {
        let hosts = self.hosts();
        self.shape_all();
        for (at, one) in hosts.iter().enumerate() {
            for other in &hosts[at + 1..] {
                self.world.heal(*one, *other);
                self.world.untap(*one, *other);
            }
        }
        for host in hosts {
            self.start(host);
            self.world.wake(host);
        }
        for relay in self.relays.clone() {
            self.world.let_lie(relay, Box::new(|address| address));
            if self.lied {
                // who joined meanwhile believes the lie until it joins anew
                self.relays_lived = false;
                self.world.restart(relay);
            }
        }
        self.lied = false;
        for peer in self.peers.clone() {
            self.world.pace_interface(peer, 0);
        }
    }

    /// No way breaks connections by itself any more.
    pub(super) fn mend_ways(&mut self) {
        let hosts = self.hosts();
        for (at, one) in hosts.iter().enumerate() {
            for other in &hosts[at + 1..] {
                self.world.change_way(*one, *other, |way| way.corruption = 0);
            }
        }
    }

    /// No more packets of the story.
    pub(super) fn stop_flows(&mut self) {
        for flow in self.world.flows() {
            self.world.stop(flow);
        }
    }

    /// Whether what goes into a dead path is lost and not sent again.
    pub(super) fn loses_on_dead_paths(&self) -> bool {
        self.plan.mode == Mode::Off
    }

    /// `p2p.close_relay`.
    pub(super) fn closes_relays(&self) -> bool {
        self.plan.close_relay
    }

    /// Two that are direct and have closed their relay connections (`p2p.close_relay`) cannot be found by a third.
    pub(super) fn can_find_each_other(&self) -> bool {
        !self.plan.close_relay || self.peers.len() == 2
    }

    // ---- the end -----------------------------------------------------------------------------------------------

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
        can.into_iter().filter(|(a, b)| self.world.label(*a, *b) != Some(PathLabel::DirectWss)).collect()
    }

    fn can_be_direct(&self, a: HostId, b: HostId) -> bool {
        let home = |host: HostId| self.plan.homes[host.0 - self.relays.len()];
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

    /// Fresh traffic between all: it must arrive whole.
    pub(super) fn show_whole(&mut self) {
        let fresh: Vec<FlowId> = self.pairs().into_iter().map(|(a, b)| self.world.burst(a, b, 40, 120, 12)).collect();
        // the last packet is handed in after 300 ms; what a dead path swallowed comes when its death is noticed
        self.world.run(Duration::from_millis(400));
        self.until(WHOLE_WITHIN, |stage| fresh.iter().all(|flow| stage.world.account_of(*flow).lost == 0));
        for flow in fresh {
            let account = self.world.account_of(flow);
            let (from, to) = self.world.ends_of(flow);
            self.model.borrow_mut().whole(&format!("{flow:?} from {from:?} to {to:?}"), account);
        }
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

/// Puts a peer where it lives.
fn settle(world: &mut World, host: HostId, home: Home) {
    match home {
        Home::Open | Home::OpenV4 | Home::OpenV6 => {}
        Home::Behind { rules, forwards } => {
            let nat = world.nat(Home::nat(rules), None);
            world.put_behind(host, nat);
            if forwards {
                world.map_ports(host);
            }
        }
        Home::Twice { rules } => {
            let outer = world.nat(Home::nat(rules), None);
            let inner = world.nat(Home::nat(rules), Some(outer));
            world.put_behind(host, inner);
        }
    }
}

/// A relay that drops (1), doubles (2), reorders (4) or alters (8) one record in eight.
fn meddler(how: u8, seed: u64) -> Tap {
    let mut rng = Rng::new(seed);
    let mut kept: Option<Letter> = None;
    Box::new(move |letter: Letter| {
        if !matches!(letter.bytes.first(), Some(&(TYPE_FWD | TYPE_DLV))) {
            return vec![letter.bytes];
        }
        let late = kept.take_if(|kept| (kept.wire, kept.from) == (letter.wire, letter.from));
        let mut out = match rng.below(8) {
            0 if how & 1 != 0 => Vec::new(),
            1 if how & 2 != 0 => vec![letter.bytes.clone(), letter.bytes],
            2 if how & 4 != 0 => {
                kept = Some(letter);
                Vec::new()
            }
            3 if how & 8 != 0 => vec![rewrite(&letter.bytes, |_, payload| {
                if !payload.is_empty() {
                    let at = rng.below(payload.len());
                    payload[at] ^= 1 << rng.below(8);
                }
            })],
            _ => vec![letter.bytes],
        };
        out.extend(late.map(|letter| letter.bytes));
        out
    })
}
