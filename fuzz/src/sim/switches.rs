//! Thousands of switches under load: the direct path dies and comes back, over and over, and every packet comes out once and in order.
use super::{
    ledger::{Ledger, Watched},
    standin::StandIn,
};
use crate::world::{HostId, Rng, World};
use shadowmesh_core::{crypto::Provider, time::Duration, wire::PathLabel};
use std::sync::Arc;

/// Packets a second each way.
const RATE: u32 = 500;
/// The longest for one switch: a minute's damping and the retry interval.
const LIMIT: Duration = Duration::from_secs(100);

/// Moves and fallbacks of one peer.
fn moves(world: &mut World, a: HostId, b: HostId) -> u64 {
    world.peer_status(a, b).map_or(0, |peer| peer.migrations + peer.fallbacks)
}

/// Makes so many switches happen, both ends counted. A line, or what went wrong.
pub fn switches(count: u64) -> Result<String, String> {
    let ledger = Ledger::default();
    let crypto: Arc<dyn Provider> = Arc::new(StandIn);
    let mut world = World::with_crypto(7, Arc::clone(&crypto));
    let relay = world.relay();
    let watched = |host: usize| -> Arc<dyn Provider> { Arc::new(Watched::new(Arc::clone(&crypto), ledger.clone(), host)) };
    let [a, b] = [1, 2].map(|host| {
        world.peer_with(&[relay], |peer| {
            peer.config.crypto = watched(host);
            peer.config.retry_interval = Duration::from_secs(5);
        })
    });
    let mut rng = Rng::new(7);
    world.until_direct(a, b);
    let mut totals = (0, 0);
    let mut before = moves(&mut world, a, b) + moves(&mut world, b, a);
    let mut done = 0;
    let is_on = |world: &mut World, label| world.label(a, b) == Some(label) && world.label(b, a) == Some(label);
    while done < count {
        let flows = world.both_ways(a, b, RATE);
        let quiet = Duration::from_millis(200 + rng.below(400) as u64);
        world.run(quiet);
        match rng.below(3) {
            0 => world.cut(a, b),
            1 => world.cut_one_way(a, b),
            _ => {
                world.refuse(a, b);
                world.reset(a, b);
            }
        }
        world.until("both are back on the relay", LIMIT, |world| is_on(world, PathLabel::RelayWss));
        world.run(quiet);
        world.heal(a, b);
        // between switches that are minutes apart by damping, a trickle shows as much as a flood
        for flow in flows {
            world.stop(flow);
        }
        let trickle = world.both_ways(a, b, 20);
        world.until("the hold-down is nearly over", LIMIT, |world| {
            world.label(a, b) == Some(PathLabel::DirectWss) || world.label(b, a) == Some(PathLabel::DirectWss)
        });
        let flood = world.both_ways(a, b, RATE);
        world.until("both are direct again", LIMIT, |world| is_on(world, PathLabel::DirectWss));
        for flow in trickle.into_iter().chain(flood) {
            world.stop(flow);
        }
        world.run(Duration::from_secs(1));
        for flow in flows.into_iter().chain(trickle).chain(flood) {
            let account = world.account_of(flow);
            if account.lost + account.doubled + account.reordered > 0 {
                return Err(format!("after {done} switches: {account:?}\n{}", world.story()));
            }
            totals.0 += account.handed;
        }
        if let Some(how) = ledger.reused() {
            return Err(how);
        }
        let after = moves(&mut world, a, b) + moves(&mut world, b, a);
        done += after - before;
        before = after;
        totals.1 += 1;
        world.forget_flows();
    }
    Ok(format!("{done} switches in {} rounds, {} packets, 0 lost, 0 doubled, 0 reordered", totals.1, totals.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_switches_under_load_lose_nothing() {
        let told = switches(20).expect("holds");
        assert!(told.contains("0 lost"), "{told}");
    }
}
