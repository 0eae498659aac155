//! What a scenario can do and ask: ways that are cut and healed, traffic, status, attacks.
use super::{
    Host, HostId, Source, Way, World,
    air::{End, Tick},
    attack::{Recorded, Tap},
    build::Plan,
    dial::{Certificate, Pin},
};
use crate::model::{Account, Flow};
use shadowmesh_core::{
    event::{Ended, Event, Note},
    hub::{HubNote, HubStatus},
    id::{ConnId, PathId},
    status::{PeerState, PeerStatus, RelayState, Status},
    time::{Duration, Instant},
    wire::PathLabel,
};
use std::net::{IpAddr, SocketAddr};

/// Names a flow of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId(pub(super) usize);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// An IPv6 packet of ordinary size.
const PACKET_LEN: usize = 200;
/// What is on its way when a flow ends arrives within so long.
const SETTLE: Duration = Duration::from_secs(3);

impl World {
    // ---- waiting -----------------------------------------------------------------------------------------------

    /// Lets time pass until `what` is true, and says how long that took.
    pub fn until(&mut self, what: &str, limit: Duration, mut is_so: impl FnMut(&mut Self) -> bool) -> Duration {
        let start = self.now();
        while !is_so(self) {
            assert!(self.now().since(start) < limit, "not within {limit:?}: {what}\n{}", self.story());
            self.run(LOOK);
        }
        self.now().since(start)
    }

    /// Until both have a session and traffic goes over the relay or better.
    pub fn until_connected(&mut self, a: HostId, b: HostId) -> Duration {
        self.until("they are connected", Duration::from_secs(15), |world| world.is_connected(a, b) && world.is_connected(b, a))
    }

    /// Until both send directly.
    pub fn until_direct(&mut self, a: HostId, b: HostId) -> Duration {
        let is_direct = |label| matches!(label, Some(PathLabel::DirectWss | PathLabel::DirectUdp));
        self.until("both send directly", Duration::from_secs(90), |world| is_direct(world.label(a, b)) && is_direct(world.label(b, a)))
    }

    /// Until both send by UDP.
    pub fn until_udp(&mut self, a: HostId, b: HostId) -> Duration {
        let udp = Some(PathLabel::DirectUdp);
        self.until("both send by UDP", Duration::from_secs(90), |world| world.label(a, b) == udp && world.label(b, a) == udp)
    }

    /// Until both send over the relay.
    pub fn until_relayed(&mut self, a: HostId, b: HostId) -> Duration {
        let relay = Some(PathLabel::RelayWss);
        self.until("both send over the relay", Duration::from_secs(15), |world| world.label(a, b) == relay && world.label(b, a) == relay)
    }

    /// What hosts said lately, for a test that failed.
    pub fn story(&mut self) -> String {
        let mut lines: Vec<(Instant, String)> = Vec::new();
        for (index, place) in self.hosts.iter_mut().enumerate() {
            place.collect();
            lines.extend(place.notes.iter().map(|(at, note)| (*at, format!("{index}: {note:?}"))));
            lines.extend(place.hub_notes.iter().map(|(at, note)| (*at, format!("{index}: {note:?}"))));
        }
        lines.sort_by_key(|(at, _)| *at);
        let skip = lines.len().saturating_sub(40);
        let told: Vec<String> =
            lines.into_iter().skip(skip).map(|(at, line)| format!("{:?} {line}", at.since(Instant::from_millis(1_000_000)))).collect();
        told.join("\n")
    }

    // ---- ways --------------------------------------------------------------------------------------------------

    /// Nothing passes between them any more, and nobody is told.
    pub fn cut(&mut self, a: HostId, b: HostId) {
        self.air.change_way(a, b, |way| way.cut = true);
    }

    /// The way between them is whole again; what TCP still has is sent again.
    pub fn heal(&mut self, a: HostId, b: HostId) {
        self.air.change_way(a, b, |way| (way.cut, way.refuses) = (false, false));
        self.air.undeafen(a, b);
    }

    /// Nothing passes from one to the other any more, and nobody is told; what the other way carries arrives.
    pub fn cut_one_way(&mut self, from: HostId, to: HostId) {
        self.air.deafen(from, to);
    }

    /// Each listener of one refuses the other.
    pub fn refuse(&mut self, a: HostId, b: HostId) {
        self.air.change_way(a, b, |way| way.refuses = true);
    }

    /// All connections between them get a TCP reset.
    pub fn reset(&mut self, a: HostId, b: HostId) {
        for wire in self.air.wires_between(a, b) {
            self.air.reset(wire);
        }
    }

    /// Changes the quality of the way between them.
    pub fn change_way(&mut self, a: HostId, b: HostId, change: impl FnOnce(&mut Way)) {
        self.air.change_way(a, b, change);
    }

    /// All connections of this world.
    pub fn all_connections(&self) -> usize {
        self.air.wires.len()
    }

    /// Connections between them, whoever dialled.
    pub fn connections(&self, a: HostId, b: HostId) -> usize {
        self.air.wires_between(a, b).len()
    }

    // ---- questions ---------------------------------------------------------------------------------------------

    /// A peer's status as the driver gives it, with fresh counters.
    pub fn status(&mut self, host: HostId) -> Status {
        let status = match &mut self.hosts[host.0].running {
            Some(Host::Peer(peer)) => peer.status(&mut self.air),
            Some(Host::Relay(_) | Host::Stranger(_)) | None => panic!("host {} is no peer that runs", host.0),
        };
        self.account();
        status
    }

    /// What `a` says of `b`.
    pub fn peer_status(&mut self, a: HostId, b: HostId) -> Option<PeerStatus> {
        let id = self.id(b);
        match &mut self.hosts[a.0].running {
            Some(Host::Peer(peer)) => peer.peek(self.air.now).peers.into_iter().find(|peer| peer.id == id),
            Some(Host::Relay(_) | Host::Stranger(_)) | None => None,
        }
    }

    /// Whether `a` has a session with `b` and a path that carries it.
    pub fn is_connected(&mut self, a: HostId, b: HostId) -> bool {
        self.peer_status(a, b).is_some_and(|peer| peer.state == PeerState::Connected)
    }

    /// The kind of path on which `a` sends to `b`.
    pub fn label(&mut self, a: HostId, b: HostId) -> Option<PathLabel> {
        self.peer_status(a, b)?.path.map(|path| path.label)
    }

    /// The number of the path on which `a` sends to `b`.
    pub fn path(&mut self, a: HostId, b: HostId) -> Option<PathId> {
        self.peer_status(a, b)?.path.map(|path| path.id)
    }

    /// How a peer's relays stand, as it sees them; none when it does not run.
    pub fn relay_states(&self, host: HostId) -> Vec<RelayState> {
        match &self.hosts[host.0].running {
            Some(Host::Peer(peer)) => peer.peek(self.air.now).relays.into_iter().map(|relay| relay.state).collect(),
            Some(Host::Relay(_) | Host::Stranger(_)) | None => Vec::new(),
        }
    }

    /// All addresses of a host.
    pub fn interfaces_of(&self, host: HostId) -> Vec<IpAddr> {
        self.air.hosts_of.iter().filter(|(_, holder)| **holder == host).map(|(ip, _)| *ip).collect()
    }

    /// Everything a peer has told people, over all its lives.
    pub fn notes(&mut self, host: HostId) -> &[(Instant, Note)] {
        self.hosts[host.0].collect();
        &self.hosts[host.0].notes
    }

    /// How often a peer has told this.
    pub fn noted(&mut self, host: HostId, is_it: impl Fn(&Note) -> bool) -> usize {
        self.notes(host).iter().filter(|(_, note)| is_it(note)).count()
    }

    /// Everything a relay has told people, over all its lives.
    pub fn hub_notes(&mut self, host: HostId) -> &[(Instant, HubNote)] {
        self.hosts[host.0].collect();
        &self.hosts[host.0].hub_notes
    }

    /// A relay's status.
    pub fn hub_status(&mut self, host: HostId) -> HubStatus {
        match &self.hosts[host.0].running {
            Some(Host::Relay(relay)) => relay.status(self.air.now),
            Some(Host::Peer(_) | Host::Stranger(_)) | None => panic!("host {} is no relay that runs", host.0),
        }
    }

    /// How often a peer has dropped something for this reason.
    pub fn dropped(&mut self, host: HostId, reason: &str) -> u64 {
        let drops = self.status(host).drops;
        drops.iter().find(|(name, _)| *name == reason).unwrap_or_else(|| panic!("no reason is called {reason}")).1
    }

    /// Everything a peer has dropped.
    pub fn dropped_in_all(&mut self, host: HostId) -> u64 {
        self.status(host).drops.iter().map(|(_, count)| count).sum()
    }

    /// Bytes that wait in a peer's process for its connections.
    pub fn waiting(&self, host: HostId) -> usize {
        match &self.hosts[host.0].running {
            Some(Host::Peer(peer)) => peer.waiting(),
            Some(Host::Relay(_) | Host::Stranger(_)) | None => 0,
        }
    }

    /// Where a peer's direct listener is.
    pub fn listener(&self, host: HostId) -> Option<SocketAddr> {
        match &self.hosts[host.0].running {
            Some(Host::Peer(peer)) => {
                let own = self.air.own_address(host, true).or_else(|| self.air.own_address(host, false))?;
                peer.port().map(|port| SocketAddr::new(own, port))
            }
            Some(Host::Relay(_) | Host::Stranger(_)) | None => None,
        }
    }

    /// Hands a peer's node an event of the driver's own.
    pub fn event(&mut self, host: HostId, event: Event<'_>) {
        if let Some(Host::Peer(peer)) = &mut self.hosts[host.0].running {
            peer.event(&mut self.air, event);
        }
        self.account();
    }

    // ---- traffic -----------------------------------------------------------------------------------------------

    /// Packets from one peer to another, so many a second, until they are stopped.
    pub fn stream(&mut self, from: HostId, to: HostId, per_second: u32) -> FlowId {
        self.stream_of(from, to, per_second, PACKET_LEN)
    }

    /// The same with packets of `len` bytes.
    pub fn stream_of(&mut self, from: HostId, to: HostId, per_second: u32, len: usize) -> FlowId {
        let number = self.next_flow;
        self.next_flow += 1;
        let (source, destination) = (self.network.address_v6(self.id(from)), self.network.address_v6(self.id(to)));
        let mut flow = Flow::new(number as u32, source, destination, len);
        if self.is_layer2(from) {
            flow.over_ethernet(self.network.mac_address(self.id(to)), self.network.mac_address(self.id(from)));
        }
        let period = Duration::from_secs(1) / per_second;
        self.sources.insert(number, Source { flow, from, to, period, running: true, left: u64::MAX, flooded: 0 });
        self.air.after(Duration::ZERO, Tick::Packet { flow: number });
        FlowId(number)
    }

    /// A flow that ends by itself after so many packets.
    pub fn burst(&mut self, from: HostId, to: HostId, per_second: u32, len: usize, packets: u64) -> FlowId {
        let flow = self.stream_of(from, to, per_second, len);
        self.source(flow).left = packets;
        flow
    }

    fn source(&mut self, flow: FlowId) -> &mut Source {
        self.sources.get_mut(&flow.0).expect("a flow that was started and not forgotten")
    }

    fn is_layer2(&self, host: HostId) -> bool {
        matches!(&self.hosts[host.0].plan, Plan::Peer { config, .. } if config.layer2)
    }

    /// Forgets all flows that have ended, so that a long run does not remember each; packets of theirs must not be under way any more.
    pub fn forget_flows(&mut self) {
        self.sources.clear();
        self.fresh.clear();
    }

    /// Both ends of a flow.
    pub fn ends_of(&self, flow: FlowId) -> (HostId, HostId) {
        (self.sources[&flow.0].from, self.sources[&flow.0].to)
    }

    /// All flows that were started and not forgotten.
    pub fn flows(&self) -> Vec<FlowId> {
        self.sources.keys().copied().map(FlowId).collect()
    }

    /// Packets that came out of other interfaces than that of their receiver: Ethernet frames to a MAC that was not known yet.
    pub fn flooded(&self) -> u64 {
        self.sources.values().map(|source| source.flooded).sum()
    }

    /// Flows of which something came out since the last call.
    pub fn take_fresh(&mut self) -> Vec<FlowId> {
        core::mem::take(&mut self.fresh).into_iter().map(FlowId).collect()
    }

    /// Packets that `by` hands in and that say they come from `claimed`.
    pub fn stream_as(&mut self, claimed: HostId, by: HostId, to: HostId, per_second: u32) -> FlowId {
        let flow = self.stream(claimed, to, per_second);
        self.source(flow).from = by;
        flow
    }

    /// Streams both ways.
    pub fn both_ways(&mut self, a: HostId, b: HostId, per_second: u32) -> [FlowId; 2] {
        [self.stream(a, b, per_second), self.stream(b, a, per_second)]
    }

    /// No more packets of it are handed in.
    pub fn stop(&mut self, flow: FlowId) {
        self.source(flow).running = false;
    }

    /// What became of a flow so far.
    pub fn account_of(&self, flow: FlowId) -> Account {
        self.sources[&flow.0].flow.account()
    }

    /// The longest time without a packet since the last call.
    pub fn longest_gap(&mut self, flow: FlowId) -> Duration {
        let now = self.now();
        self.source(flow).flow.take_longest_gap(now)
    }

    /// Ends flows and demands that of each, everything came out once and in order.
    pub fn assert_whole(&mut self, flows: &[FlowId]) {
        for flow in flows {
            self.stop(*flow);
        }
        self.run(SETTLE);
        for flow in flows {
            let account = self.account_of(*flow);
            let whole = Account { handed: account.handed, lost: 0, doubled: 0, reordered: 0 };
            assert!(account.handed > 0, "a flow without packets proves nothing");
            assert_eq!(account, whole, "flow {}\n{}", flow.0, self.story());
        }
    }

    // ---- attacks -----------------------------------------------------------------------------------------------

    /// Begins to keep every message that is sent.
    pub fn record(&mut self) {
        self.air.record = Some(Vec::new());
    }

    /// What was recorded since.
    pub fn recorded(&mut self) -> Vec<Recorded> {
        self.air.record.take().unwrap_or_default()
    }

    /// Hands each message between two hosts to `tap` and sends what that gives: a relay of ill will, or broken TLS.
    pub fn tap(&mut self, a: HostId, b: HostId, tap: Tap) {
        self.air.taps.insert(super::air::pair(a, b), tap);
    }

    /// Nobody listens any more.
    pub fn untap(&mut self, a: HostId, b: HostId) {
        self.air.taps.remove(&super::air::pair(a, b));
    }

    /// Somebody with this certificate ends TLS between `from` and the listeners of `to`, for connections dialled from now on.
    pub fn stand_between(&mut self, from: HostId, to: HostId, certificate: Certificate) {
        self.air.middlemen.insert((from, to), certificate);
    }

    /// Nobody stands there any more.
    pub fn step_aside(&mut self, from: HostId, to: HostId) {
        self.air.middlemen.remove(&(from, to));
    }

    /// Sends a message to `to` on the connections that it has with `from`, as if it came from there. How many there were.
    pub fn inject(&mut self, from: HostId, to: HostId, bytes: &[u8]) -> usize {
        let mut count = 0;
        for wire in self.air.wires_between(from, to) {
            let Some(side) = self.air.wires.get(&wire).map(|wire| usize::from(wire.ends[1].host == from)) else { continue };
            self.air.load(wire, side, super::Parcel::Message(bytes.to_vec()));
            count += 1;
        }
        count
    }

    /// A stranger opens a connection to a listener; it is open when this returns, or refused.
    pub fn knock(&mut self, stranger: HostId, address: SocketAddr) -> Option<ConnId> {
        let life = self.life(stranger)?;
        let Some(Host::Stranger(hands)) = &mut self.hosts[stranger.0].running else { panic!("only strangers knock") };
        let conn = hands.fresh_conn();
        let from = End { host: stranger, life, conn };
        self.air.dial(from, address, Pin::Anything, Duration::from_secs(5))?;
        self.run(Duration::from_millis(200));
        let Some(Host::Stranger(hands)) = &self.hosts[stranger.0].running else { return None };
        hands.hands.get(&conn).filter(|hand| hand.exporter.is_some()).map(|_| conn)
    }

    /// The exporter of a stranger's connection.
    pub fn exporter(&self, stranger: HostId, conn: ConnId) -> Option<[u8; 32]> {
        let Some(Host::Stranger(hands)) = &self.hosts[stranger.0].running else { return None };
        hands.hands.get(&conn)?.exporter
    }

    /// A stranger sends a message; false when its connection is gone.
    pub fn say(&mut self, stranger: HostId, conn: ConnId, bytes: &[u8]) -> bool {
        let Some(Host::Stranger(hands)) = &mut self.hosts[stranger.0].running else { return false };
        hands.say(&mut self.air, conn, bytes.to_vec())
    }

    /// What a stranger heard on a connection, and whether that has ended.
    pub fn heard(&self, stranger: HostId, conn: ConnId) -> (Vec<Vec<u8>>, Option<Ended>) {
        let Some(Host::Stranger(hands)) = &self.hosts[stranger.0].running else { return (Vec::new(), None) };
        hands.hands.get(&conn).map_or((Vec::new(), None), |hand| (hand.heard.clone(), hand.ended.clone()))
    }

    /// A stranger closes a connection.
    pub fn hang_up(&mut self, stranger: HostId, conn: ConnId) {
        if let Some(Host::Stranger(hands)) = &mut self.hosts[stranger.0].running {
            hands.hang_up(&mut self.air, conn);
        }
    }
}
