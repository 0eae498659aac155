//! From the relay to the direct path and back: what `Status` says on the way, and what becomes of the packets.
use shadowmesh_fuzz::world::World;
use std::time::Duration;

#[test]
fn two_peers_meet_on_the_relay_and_go_direct_without_loss() {
    let mut world = World::new(1);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 1_000);
    world.until_direct(a, b);
    world.run(Duration::from_secs(2));
    world.assert_whole(&flows);
}
