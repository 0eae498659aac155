//! Whatever happens to ways and relays, in any order: what comes out came once, in order, and in the end all is whole again.
use shadowmesh_core::wire::PathLabel;
use shadowmesh_fuzz::world::{FlowId, HostId, Rng, World};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Stories; `CHAOS_SEEDS=500 cargo test -p shadowmesh-fuzz --test chaos` tells more of them.
const SEEDS: u64 = 6;

#[test]
fn direct_ways_come_and_go_and_nothing_is_lost() {
    for seed in seeds() {
        let mut stage = Stage::new(seed);
        for _ in 0..25 {
            stage.trouble_direct_ways();
            stage.wait(3_000);
        }
        stage.end_whole();
    }
}

#[test]
fn direct_ways_and_the_relay_come_and_go_and_nothing_is_doubled_or_out_of_order() {
    for seed in seeds() {
        let mut stage = Stage::new(1_000 + seed);
        for _ in 0..25 {
            stage.trouble_direct_ways();
            stage.trouble_the_relay();
            stage.wait(3_000);
        }
        stage.end_in_order();
    }
}

#[test]
fn peers_restart_among_it_and_all_talk_again() {
    for seed in seeds() {
        let mut stage = Stage::new(2_000 + seed);
        for _ in 0..15 {
            stage.trouble_direct_ways();
            stage.trouble_the_relay();
            let who = stage.peers[stage.rng.below(3)];
            match stage.rng.below(4) {
                0 => stage.world.restart(who),
                1 => {
                    stage.world.darken(who);
                    stage.wait(4_000);
                    stage.world.start(who);
                }
                _ => {}
            }
            stage.wait(3_000);
        }
        stage.end_in_order();
    }
}

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("CHAOS_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let first = std::env::var("CHAOS_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    first..first + count
}

/// Three peers that talk each with each.
struct Stage {
    seed: u64,
    world: World,
    relay: HostId,
    relay_runs: bool,
    peers: [HostId; 3],
    flows: Vec<FlowId>,
    rng: Rng,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let (mut world, mut rng) = (World::new(seed), Rng::new(seed));
        let relay = world.relay();
        let peers = [world.peer(relay), world.peer(relay), world.peer(relay)];
        let mut flows = Vec::new();
        for (one, other) in pairs(peers) {
            let latency = Duration::from_millis(1 + rng.below(60) as u64);
            world.change_way(one, other, |way| way.latency = latency);
        }
        for (one, other) in pairs(peers) {
            world.until_connected(one, other);
            flows.extend(world.both_ways(one, other, 20 + rng.below(200) as u32));
        }
        Self { seed, world, relay, relay_runs: true, peers, flows, rng }
    }

    fn wait(&mut self, most_ms: usize) {
        let span = Duration::from_millis(self.rng.below(most_ms) as u64);
        self.world.run(span);
    }

    fn trouble_direct_ways(&mut self) {
        let (a, b) = pairs(self.peers)[self.rng.below(3)];
        match self.rng.below(6) {
            0 | 1 => self.world.cut(a, b),
            2 => self.world.reset(a, b),
            3 => self.world.refuse(a, b),
            _ => self.world.heal(a, b),
        }
    }

    fn trouble_the_relay(&mut self) {
        let who = self.peers[self.rng.below(3)];
        match self.rng.below(8) {
            0 if self.relay_runs => self.world.restart(self.relay),
            1 if self.relay_runs => {
                self.world.kill(self.relay);
                self.relay_runs = false;
            }
            2 => self.world.cut(who, self.relay),
            3 => self.world.reset(who, self.relay),
            _ => self.calm_the_relay(),
        }
    }

    fn calm_the_relay(&mut self) {
        self.peers.into_iter().for_each(|who| self.world.heal(who, self.relay));
        if !core::mem::replace(&mut self.relay_runs, true) {
            self.world.start(self.relay);
        }
    }

    /// All is well again: everybody goes direct with everybody.
    fn calm(&mut self) {
        self.calm_the_relay();
        for (a, b) in pairs(self.peers) {
            self.world.heal(a, b);
        }
        for (a, b) in pairs(self.peers) {
            let direct = Some(PathLabel::DirectWss);
            let what = format!("{a:?} and {b:?} are direct again (seed {})", self.seed);
            self.world.until(&what, 150 * SECOND, |world| world.label(a, b) == direct && world.label(b, a) == direct);
        }
        self.world.run(2 * SECOND);
    }

    fn end_whole(mut self) {
        self.calm();
        self.world.assert_whole(&self.flows);
    }

    fn end_in_order(mut self) {
        self.calm();
        for flow in &self.flows {
            let account = self.world.account_of(*flow);
            assert_eq!((account.doubled, account.reordered), (0, 0), "seed {} {flow:?} {account:?}", self.seed);
            self.world.stop(*flow);
        }
        let fresh: Vec<FlowId> = pairs(self.peers).into_iter().flat_map(|(a, b)| self.world.both_ways(a, b, 100)).collect();
        self.world.run(2 * SECOND);
        self.world.assert_whole(&fresh);
    }
}

fn pairs([a, b, c]: [HostId; 3]) -> [(HostId, HostId); 3] {
    [(a, b), (b, c), (a, c)]
}
