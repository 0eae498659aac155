//! A plan made into a world, and deeds done to it.
use super::{
    ledger::{Ledger, Watched},
    model::Model,
    plan::{Home, Mode, Plan},
    step::Deed,
};
use crate::{
    model::Account,
    world::{FlowId, HostId, Letter, Rng, Tap, Watch, World, rewrite},
};
use shadowmesh_core::{
    config::{Limits, Transports},
    crypto::Provider,
    event::{Event, Note},
    id::PeerId,
    time::Instant,
    wire::{TYPE_DLV, TYPE_FWD},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

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
    lives: BTreeMap<HostId, u32>,
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
            // the end that answered sends in it before the other one has heard that it stands
            if (to == host && world.id(from) == peer) || (from == host && world.id(to) == peer) {
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
            let life = world.lives(host);
            if self.lives.insert(host, life) != Some(life) {
                model.reborn(host);
            }
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
        if world.overflowed() > 0 {
            // what a full queue lost on a path of datagrams comes by another one, later than what went behind it (protocol 7.3)
            model.expect_disorder();
        }
        model.amplified(world.amplified().map(|who| format!("{who:?}")));
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
    pub(super) plan: &'a Plan,
    pub(super) world: World,
    pub(super) model: Rc<RefCell<Model>>,
    pub(super) peers: Vec<HostId>,
    pub(super) relays: Vec<HostId>,
    stranger: HostId,
    rng: Rng,
    pings: u32,
    /// Packets that died with a host or may have.
    pub(super) excused: BTreeMap<FlowId, u64>,
    pub(super) interface_lost: u64,
    pub(super) moved: BTreeSet<HostId>,
    lied: bool,
    /// Nothing has befallen a relay, a way to one, or a host so far.
    pub(super) relays_lived: bool,
    /// Nothing has befallen datagrams between peers for which nobody answers: a way that loses what is on it for less time than a
    /// suspicion takes, or has no room for a burst, or grew narrow.
    pub(super) datagrams_lived: bool,
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
                peer.config.direct = if direct { plan.direct.into() } else { Transports::NONE };
                peer.config.relay_udp = direct && plan.has_detours();
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
            lives: BTreeMap::new(),
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
            datagrams_lived: !plan.has_rough_datagrams(),
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
        let mut widened = false;
        for (at, one) in hosts.iter().enumerate() {
            for other in &hosts[at + 1..] {
                let quality = if self.is_relay(*one) || self.is_relay(*other) { self.plan.to_relays } else { self.plan.between };
                self.world.change_way(*one, *other, |way| {
                    widened |= quality.way().mtu > way.mtu;
                    *way = quality.way();
                });
            }
        }
        self.expect_overtaking(widened);
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
            Deed::Remap { .. }
            | Deed::Narrow { .. }
            | Deed::Cut { .. }
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
            Deed::Drain { relay, seconds } => self.drain(relay, seconds),
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
            Deed::Meddle { peer, relay, how } => self.meddle(peer, relay, how),
            Deed::Behave { peer, relay } => {
                let (peer, relay) = (self.peer(peer), self.relays[usize::from(relay) % self.relays.len()]);
                self.world.untap(peer, relay);
            }
            Deed::Idle { seconds } => self.world.run(Duration::from_secs(u64::from(seconds) / 2)),
            Deed::Calm => self.calm(),
        }
    }

    /// A relay tells its clients that it goes away, and does.
    fn drain(&mut self, relay: u8, seconds: u8) {
        self.relays_lived = false;
        let relay = self.relays[usize::from(relay) % self.relays.len()];
        if !self.world.is_asleep(relay) {
            self.world.drain(relay, Duration::from_secs(u64::from(seconds)));
        }
    }

    /// Alters what passes between a peer and a relay.
    fn meddle(&mut self, peer: u8, relay: u8, how: u8) {
        self.relays_lived = false;
        self.model.borrow_mut().expect_disorder();
        let (peer, relay) = (self.peer(peer), self.relays[usize::from(relay) % self.relays.len()]);
        let tap = meddler(how, self.rng.u64());
        self.world.tap(peer, relay, tap);
    }

    fn trouble_a_way(&mut self, deed: Deed) {
        self.datagrams_lived &= matches!(deed, Deed::Heal { .. } | Deed::Refuse { .. } | Deed::Reset { .. });
        if let Deed::Remap { host } = deed
            && let Some(nat) = self.world.is_behind(self.peer(host))
        {
            self.world.remap(nat);
            // connections to relays lead through it, too
            self.relays_lived = false;
        }
        if let Deed::Narrow { a, b, size } = deed {
            let (a, b) = self.two_peers(a, b);
            let (largest, mut widened) = (Deed::largest(size), false);
            self.world.change_way(a, b, |way| {
                widened = largest > way.mtu;
                way.mtu = largest;
            });
            self.expect_overtaking(widened);
        }
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
                let mut overtakes = quality.is_rough();
                self.world.change_way(a, b, |way| {
                    // on a way that became shorter, what is sent now comes before what is under way
                    overtakes |= shaped.latency < way.latency || shaped.mtu > way.mtu;
                    let (cut, refuses) = (way.cut, way.refuses);
                    *way = shaped;
                    (way.cut, way.refuses) = (cut, refuses);
                });
                let between_peers = !self.is_relay(a) && !self.is_relay(b);
                self.expect_overtaking(overtakes && (between_peers || self.plan.has_detours()));
            }
            _ => {}
        }
    }

    /// On a way between peers that becomes shorter, datagrams come before those that are under way. On one that becomes wide before it was
    /// missed, they come before what went over the relay too, since the first data after silence goes on both (protocol 7.5).
    fn expect_overtaking(&mut self, happens: bool) {
        if happens && self.plan.has_datagrams() {
            self.model.borrow_mut().expect_disorder();
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
            // who joined meanwhile believes a lie until it joins anew; and a relay on its way out would still end, and stay away
            if self.lied || self.world.is_draining(relay) {
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
}

/// Puts a peer where it lives.
pub(super) fn settle(world: &mut World, host: HostId, home: Home) {
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
