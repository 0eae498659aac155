//! Days in one world: a mesh of ten peers with traffic and daily faults, in which nothing may grow. They stand still, or some of them are
//! carried about: they change networks, sleep in pockets, and their boxes forget them.
use super::{
    ledger::{Ledger, Watched},
    plan::Home,
    stage::settle,
    standin::StandIn,
};
use crate::world::{HostId, Rng, Watch, World};
use shadowmesh_core::{config::Transports, crypto::Provider, time::Duration};
use std::{collections::BTreeMap, sync::Arc};

const PEERS: usize = 10;
const HOUR: Duration = Duration::from_hours(1);
/// What may be held at a calm hour beyond the most of any calm hour of the first quarter: a packet or two that are on their way.
const SLACK: usize = 16;
/// So many hours in a row above that are growth; one hour is the memory of a fault that it has just seen.
const PATIENCE: u32 = 3;
/// Faults an hour, and moves of peers that are carried about.
const FAULTS: usize = 6;
const MOVES: usize = 30;
/// So many of the peers are carried about.
const CARRIED: usize = 4;

/// Looks at every bound and key; what comes out is looked at by its flow.
struct Eyes {
    ledger: Ledger,
}

impl Watch for Eyes {
    fn look(&mut self, world: &mut World, host: Option<HostId>) -> bool {
        world.take_fresh();
        if let Some(host) = host {
            world.bounds(host, &mut |bound| assert!(bound.is_kept(), "{host:?} holds {bound:?}"));
        }
        true
    }

    fn emerged(&mut self, host: HostId, packet: &[u8]) {
        assert!(self.ledger.delivered(host.0, packet), "{host:?} delivered what it had not opened");
    }
}

/// What the mesh is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesh {
    /// Machines that stay where they are, with direct paths by WebSocket.
    Still,
    /// By UDP too, behind boxes of several kinds; some are carried about.
    Mobile,
}

struct Life {
    mesh: Mesh,
    world: World,
    relay: HostId,
    peers: Vec<HostId>,
    rng: Rng,
    ledger: Ledger,
    lost: u64,
    late: u64,
}

/// Runs the mesh for so many hours; a line an hour goes to `say`. The answer is a line, or what went wrong.
pub fn hours(mesh: Mesh, count: u64, say: &mut dyn FnMut(String)) -> Result<String, String> {
    let mut mesh = Life::new(mesh);
    let mut calm_most: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut above: BTreeMap<&'static str, u32> = BTreeMap::new();
    let (mut handed, mut events) = (0, 0);
    for hour in 1..=count {
        handed += mesh.live_an_hour(hour)?;
        let held = mesh.held();
        if let Some(how) = mesh.ledger.reused() {
            return Err(how);
        }
        mesh.ledger.forget();
        let learns = hour <= (count / 4).max(1);
        for (name, now) in &held {
            if name.starts_with("spare") {
                continue; // kept for reuse, up to a bound of their own
            }
            let most = calm_most.entry(name).or_default();
            let above = above.entry(name).or_default();
            if learns {
                *most = (*most).max(*now);
            }
            *above = if *now > *most + SLACK { *above + 1 } else { 0 };
            if *above >= PATIENCE {
                return Err(format!("hour {hour}: {name} has grown to {now}, at most {most} in the first quarter"));
            }
        }
        events = mesh.world.events();
        let sum: usize = held.values().sum();
        say(format!(
            "hour {hour}: {handed} packets, {} lost and counted, {} late, {events} events, {sum} things held",
            mesh.lost, mesh.late
        ));
    }
    Ok(format!(
        "{count} hours of {PEERS} peers, {handed} packets, {} lost and counted, {} late, {events} events, nothing has grown",
        mesh.lost, mesh.late
    ))
}

impl Life {
    fn new(mesh: Mesh) -> Self {
        let ledger = Ledger::default();
        let crypto: Arc<dyn Provider> = Arc::new(StandIn);
        let watched = |host: usize| -> Arc<dyn Provider> { Arc::new(Watched::new(Arc::clone(&crypto), ledger.clone(), host)) };
        let mut world = World::with_crypto(1, Arc::clone(&crypto));
        world.pool_identities();
        let relay = world.relay_with(|config| config.crypto = watched(0));
        world.start(relay);
        let peers = (0..PEERS).map(|at| {
            let host = world.idle_peer(&[relay], |peer| {
                peer.config.crypto = watched(1 + at);
                if mesh == Mesh::Mobile {
                    peer.config.direct = Transports::ALL;
                }
            });
            if mesh == Mesh::Mobile && at % 3 > 0 {
                settle(&mut world, host, Home::Behind { rules: (at * 37) as u8, forwards: false });
            }
            world.start(host);
            host
        });
        let peers = peers.collect();
        world.watch(Box::new(Eyes { ledger: ledger.clone() }));
        Self { mesh, world, relay, peers, rng: Rng::new(1), ledger, lost: 0, late: 0 }
    }

    fn two(&mut self) -> (HostId, HostId) {
        let a = self.rng.below(PEERS);
        let b = (a + 1 + self.rng.below(PEERS - 1)) % PEERS;
        (self.peers[a], self.peers[b])
    }

    /// An hour with traffic and faults, the last five minutes of it without faults. How many packets were handed in.
    fn live_an_hour(&mut self, hour: u64) -> Result<u64, String> {
        let ends = self.world.now() + HOUR;
        let mut flows = Vec::new();
        let turns = if self.mesh == Mesh::Mobile { MOVES } else { FAULTS };
        for _ in 0..turns {
            for _ in 0..4 {
                let (a, b) = self.two();
                let packets = 50 + self.rng.below(200) as u64;
                flows.push(self.world.burst(a, b, 5 + self.rng.below(40) as u32, 300, packets));
            }
            match self.mesh {
                Mesh::Still => self.trouble(),
                Mesh::Mobile => self.carry_about(),
            }
            let wait = self.rng.below(54 * 60 / turns);
            self.world.run(Duration::from_secs(wait as u64));
        }
        self.calm();
        self.world.run(Duration::from_mins(2));
        let fresh: Vec<_> = (0..10)
            .map(|_| {
                let (a, b) = self.two();
                self.world.burst(a, b, 20, 200, 20)
            })
            .collect();
        let rest = ends.since(self.world.now());
        self.world.run(rest);
        for flow in &fresh {
            let account = self.world.account_of(*flow);
            if account.lost + account.doubled + account.reordered > 0 || account.handed == 0 {
                return Err(format!("hour {hour}, all calm: {:?} {account:?}\n{}", self.world.ends_of(*flow), self.world.story()));
            }
        }
        let mut handed = 0;
        for flow in flows.iter().chain(&fresh) {
            let account = self.world.account_of(*flow);
            // a datagram from where nobody knows the sender yet is lost, and goes again behind one that was taken
            let disordered = if self.mesh == Mesh::Mobile { 0 } else { account.reordered };
            if account.doubled + disordered > 0 {
                return Err(format!("hour {hour}: {:?} {account:?}", self.world.ends_of(*flow)));
            }
            handed += account.handed;
            self.lost += account.lost;
            self.late += account.reordered;
        }
        self.world.forget_flows();
        Ok(handed)
    }

    fn trouble(&mut self) {
        let (a, b) = self.two();
        match self.rng.below(9) {
            0 => self.world.cut(a, b),
            1 => self.world.cut_one_way(a, b),
            2 => self.world.reset(a, b),
            3 => self.world.restart(a),
            4 => self.world.restart(self.relay),
            5 => self.world.cut(a, self.relay),
            6 => self.world.sleep(a),
            7 => self.world.darken(a),
            _ => self.world.move_host(a),
        }
    }

    /// One peer that is carried about comes to another network, falls asleep, wakes, or loses the relay or its box's memory.
    fn carry_about(&mut self) {
        let carried = self.peers[self.rng.below(CARRIED)];
        self.world.wake(carried);
        match self.rng.below(8) {
            0 | 1 => self.world.sleep(carried),
            2 => self.world.cut(carried, self.relay),
            3 => self.world.heal(carried, self.relay),
            4 => match self.world.is_behind(carried) {
                Some(nat) => self.world.remap(nat),
                None => self.trouble(),
            },
            _ => self.world.move_host(carried),
        }
    }

    fn calm(&mut self) {
        let all: Vec<HostId> = self.peers.iter().copied().chain([self.relay]).collect();
        for (at, one) in all.iter().enumerate() {
            if !self.world.runs(*one) {
                self.world.start(*one);
            }
            self.world.wake(*one);
            for other in &all[at + 1..] {
                self.world.heal(*one, *other);
            }
        }
    }

    /// What all hosts hold together, by name.
    fn held(&mut self) -> BTreeMap<&'static str, usize> {
        let mut held = BTreeMap::new();
        for host in self.peers.iter().copied().chain([self.relay]) {
            self.world.bounds(host, &mut |bound| *held.entry(bound.name).or_default() += bound.held);
        }
        held.insert("connections", self.world.all_connections());
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hours_pass_and_nothing_grows() {
        let mut lines = Vec::new();
        hours(Mesh::Still, 2, &mut |line| lines.push(line)).expect("holds");
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn an_hour_on_the_road_passes_and_nothing_grows() {
        hours(Mesh::Mobile, 1, &mut |_| {}).expect("holds");
    }
}
