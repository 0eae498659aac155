//! The same seed gives the same story, byte for byte.
use shadowmesh_fuzz::world::World;
use std::time::Duration;

#[test]
fn the_same_seed_gives_the_same_orders_and_another_seed_gives_others() {
    assert_eq!(story(50), story(50));
    assert_ne!(story(50), story(51));
}

/// Three peers, a relay that restarts, a path that dies: the digest of everything that was ordered.
fn story(seed: u64) -> (u64, u64) {
    let mut world = World::repeatable(seed);
    let relay = world.relay();
    let [a, b, c] = [world.peer(relay), world.peer(relay), world.peer(relay)];
    world.until_connected(a, b);
    world.both_ways(a, b, 200);
    world.both_ways(b, c, 100);
    world.until_direct(a, b);
    world.cut(a, b);
    world.run(Duration::from_secs(2));
    world.restart(relay);
    world.heal(a, b);
    world.run(Duration::from_secs(3));
    world.digest()
}
