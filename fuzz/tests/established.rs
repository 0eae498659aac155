//! ESTABLISHED: what a relay tells a peer of itself and of others, in a full handshake over either family.
use shadowmesh_core::{event::Note, status::RelayState};
use shadowmesh_fuzz::world::{HostId, PeerPlan, World};
use std::time::Duration;

// protocol 6.5
#[test]
fn a_peer_learns_its_ipv4_address_as_the_relay_sees_it() {
    learns_its_address(true);
}

#[test]
fn a_peer_learns_its_ipv6_address_as_the_relay_sees_it() {
    learns_its_address(false);
}

fn learns_its_address(v4: bool) {
    let mut world = World::new(10);
    let relay = world.relay();
    let only = move |plan: &mut PeerPlan| plan.interfaces.retain(|(ip, _)| ip.is_ipv4() == v4);
    let (a, b) = (world.peer_with(&[relay], only), world.peer_with(&[relay], only));
    world.until_connected(a, b);
    for host in [a, b] {
        let expected = world.address(host, v4);
        let status = world.status(host);
        assert_eq!(status.relays[0].state, RelayState::Connected);
        assert_eq!(status.relays[0].id, Some(world.id(relay)));
        let observed = status.relays[0].observed.expect("told in ESTABLISHED");
        assert_eq!(observed.ip(), expected);
        let noted = |note: &Note| matches!(note, Note::RelayConnected { observed: noted, .. } if *noted == observed);
        assert_eq!(world.noted(host, noted), 1);
        let seen = world.hub_status(relay).clients.into_iter().find(|client| client.id == world.id(host)).expect("a client");
        assert_eq!(seen.remote, observed, "the relay says what it sees");
    }
    // PeerSupportsDirectP2P and the addresses are enough to go direct over this family
    world.until_direct(a, b);
    let remote = world.peer_status(a, b).and_then(|peer| peer.path?.remote).expect("a direct path has an address");
    assert_eq!(remote.is_ipv4(), v4);
}

#[test]
fn a_peer_of_each_family_meets_the_other_on_a_relay_of_both() {
    let mut world = World::new(11);
    let relay = world.relay();
    let a = world.peer_with(&[relay], |plan| plan.interfaces.retain(|(ip, _)| ip.is_ipv4()));
    let b = world.peer_with(&[relay], |plan| plan.interfaces.retain(|(ip, _)| ip.is_ipv6()));
    world.until_connected(a, b);
    let flows = world.both_ways(a, b, 100);
    world.run(Duration::from_secs(5));
    assert!(shows_failure(&mut world, a, b), "there is no way between the families, and status says so");
    world.assert_whole(&flows);
}

fn shows_failure(world: &mut World, a: HostId, b: HostId) -> bool {
    world.peer_status(a, b).is_some_and(|peer| peer.last_failure.is_some() && peer.next_attempt_at.is_some())
}
