//! One identity takes the place of another: who hears of it, what goes over, and who is refused from then on (protocol 2.8).
use shadowmesh_core::{
    config::Member,
    crypto::Identity,
    event::{Event, Note},
    id::PeerId,
    succession::{Followers, Statement},
};
use shadowmesh_fuzz::world::{HostId, World};
use std::{net::IpAddr, sync::Arc, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

fn listed(id: PeerId, allowed: &str) -> Member {
    Member { id, name: Some("a".to_owned()), allowed: vec![(ip(allowed), 32)], endpoints: Vec::new() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A new identity for this host, and what both say.
fn successor(world: &World, host: HostId, seed: u8) -> (Arc<Identity>, Statement) {
    let new = Arc::new(Identity::from_seed([seed; 32]));
    let statement = Statement::make(&world.identity(host), &new, &*world.crypto(), [&[1; 32], &[2; 32]]);
    (new, statement)
}

/// It leaves, and comes back under the new identity.
fn take_effect(world: &mut World, host: HostId, new: &Arc<Identity>, statements: &[Statement]) {
    world.leave(host);
    world.run(SECOND);
    world.configure(host, |config| {
        config.identity = Arc::clone(new);
        config.followers = Followers::new(statements.to_vec(), &config.followers.remembered());
    });
    world.restart(host);
}

/// A closed network stays closed and whole: those who were told take the new identity for the same member, with its name and addresses.
// protocol 2.8
#[test]
fn those_who_were_told_take_the_new_identity_for_the_same_member() {
    let mut world = World::new(701);
    let relay = world.relay();
    let a = world.peer_with(&[relay], |plan| plan.config.addresses = vec![(ip("10.77.0.2"), 24)]);
    let members = vec![listed(world.id(a), "10.77.0.2")];
    let b = world.peer_with(&[relay], |plan| {
        plan.config.addresses = vec![(ip("10.77.0.1"), 24)];
        plan.config.members = members;
    });
    world.until_direct(a, b);
    let old = world.identity(a);
    let (new, statement) = successor(&world, a, 71);
    world.event(a, Event::Succeed(statement.clone()));
    world.until("b is told", 5 * SECOND, |world| world.status(a).succession.is_some_and(|pending| pending.untold.is_empty()));
    assert!(world.is_connected(a, b), "nothing has changed yet");
    take_effect(&mut world, a, &new, &[statement]);
    world.until_connected(a, b);
    let known = world.peer_status(b, a).expect("b knows it");
    assert_eq!((known.id, known.name.as_deref()), (new.id(), Some("a")));
    assert!(known.addresses.contains(&ip("10.77.0.2")) && known.refused.is_empty(), "{:?}", known.addresses);
    let derived = IpAddr::V6(world.network().address_v6(old.id()));
    assert!(known.addresses.contains(&derived), "what was made of the old identity stays with it");
    let status = world.status(b);
    assert_eq!((status.peers.len(), status.present(old.id())), (1, new.id()), "one member, under one identity");
    let flow = world.stream(b, a, 20);
    world.run(5 * SECOND);
    world.assert_whole(&[flow]);
    // whoever has the old key finds the door closed
    let thief = world.peer_with(&[relay], |plan| plan.config.identity = old);
    world.run(20 * SECOND);
    assert!(!world.is_connected(thief, b) && world.is_connected(b, a), "also as the thief sees it: b shows nobody whose place is taken");
}

/// Who was away when it was told hears it in the first session, and gives the addresses over that the old identity held.
// protocol 2.5, 2.8
#[test]
fn who_was_away_hears_it_later_and_over_two_at_once() {
    let mut world = World::new(702);
    let relay = world.relay();
    let a = world.peer_with(&[relay], |plan| plan.config.addresses = vec![(ip("10.77.0.2"), 24)]);
    let b = world.peer_with(&[relay], |plan| plan.config.addresses = vec![(ip("10.77.0.1"), 24)]);
    world.until_connected(a, b);
    world.kill(b);
    let first = world.id(a);
    let (second, one) = successor(&world, a, 72);
    take_effect(&mut world, a, &second, core::slice::from_ref(&one));
    world.run(SECOND);
    let (third, two) = successor(&world, a, 73);
    take_effect(&mut world, a, &third, &[one, two]);
    world.restart(b);
    world.until_connected(a, b);
    world.until("b gives the address over", 5 * SECOND, |world| {
        world.peer_status(b, a).is_some_and(|known| known.addresses.contains(&ip("10.77.0.2")))
    });
    world.until("both steps are known", 5 * SECOND, |world| world.noted(b, |note| matches!(note, Note::Succeeded { .. })) == 2);
    assert_ne!(first, world.id(a));
    // and still is so after a restart of its own
    world.restart(b);
    world.until_connected(a, b);
    assert!(world.peer_status(b, a).is_some_and(|known| known.addresses.contains(&ip("10.77.0.2")) && known.refused.is_empty()));
}

/// A stranger to both identities cannot say it for them, and a second follower is not taken.
// protocol 2.8
#[test]
fn another_follower_is_refused_and_said_aloud() {
    let mut world = World::new(703);
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_connected(a, b);
    let old = world.identity(a);
    let (new, statement) = successor(&world, a, 74);
    world.event(a, Event::Succeed(statement.clone()));
    world.run(SECOND);
    take_effect(&mut world, a, &new, &[statement]);
    world.until_connected(a, b);
    // a thief of the old key has made another one
    let (mine, forged) = {
        let mine = Arc::new(Identity::from_seed([75; 32]));
        let forged = Statement::make(&old, &mine, &*world.crypto(), [&[1; 32], &[2; 32]]);
        (mine, forged)
    };
    let thief = world.peer_with(&[relay], |plan| {
        plan.config.identity = mine;
        plan.config.followers = Followers::new(vec![forged], &[]);
    });
    world.until_connected(thief, b);
    world.run(2 * SECOND);
    assert!(
        world.notes(b).iter().any(|(_, note)| matches!(note, Note::Refused { what, .. } if what.contains("follows that identity already")))
    );
    let derived = IpAddr::V6(world.network().address_v6(old.id()));
    let mut holds = |host| world.peer_status(b, host).is_some_and(|known| known.addresses.contains(&derived));
    assert!(holds(a) && !holds(thief));
}

/// A member that has somebody's old key says that the old one follows it, and announces the address that the follower has now.
// protocol 2.5, 2.8
#[test]
fn a_member_with_an_old_key_gains_nothing() {
    let mut world = World::new(706);
    let relay = world.relay();
    let a = world.peer_with(&[relay], |plan| plan.config.addresses = vec![(ip("10.77.0.2"), 24)]);
    let b = world.peer_with(&[relay], |plan| plan.config.addresses = vec![(ip("10.77.0.1"), 24)]);
    world.until_connected(a, b);
    let old = world.identity(a);
    let (new, statement) = successor(&world, a, 78);
    world.event(a, Event::Succeed(statement.clone()));
    world.run(SECOND);
    take_effect(&mut world, a, &new, &[statement]);
    world.until_connected(a, b);
    let mine = Arc::new(Identity::from_seed([79; 32]));
    let joined = Statement::make(&mine, &old, &*world.crypto(), [&[1; 32], &[2; 32]]);
    let member = world.peer_with(&[relay], |plan| {
        plan.config.identity = mine;
        plan.config.addresses = vec![(ip("10.77.0.2"), 24)];
        plan.config.followers = Followers::new(vec![joined], &[]);
    });
    world.until_connected(member, b);
    world.run(2 * SECOND);
    assert_eq!(world.noted(b, |note| matches!(note, Note::Succeeded { .. })), 1, "only what the owner said");
    let mut holds = |host| world.peer_status(b, host).is_some_and(|known| known.addresses.contains(&ip("10.77.0.2")));
    assert!(holds(a) && !holds(member));
}

/// What was not written down is told again: who is killed right after it said that it knows has forgotten it.
// protocol 2.8
#[test]
fn who_has_forgotten_is_told_again() {
    let mut world = World::new(705);
    let relay = world.relay();
    let [a, b, gone] = [world.peer(relay), world.peer(relay), world.peer(relay)];
    world.until_connected(a, b);
    world.until_connected(a, gone);
    let id = world.id(gone);
    world.leave(gone);
    world.run(SECOND);
    let (new, statement) = successor(&world, a, 77);
    world.event(a, Event::Succeed(statement));
    let untold = |world: &mut World| world.status(a).succession.map(|pending| pending.untold);
    world.until("b is told, and who is away is named", 5 * SECOND, |world| untold(world) == Some(vec![id]));
    world.restart(gone);
    world.until("it is told when it comes back", 20 * SECOND, |world| untold(world) == Some(Vec::new()));
    world.kill(b);
    world.configure(b, |config| config.followers = Followers::default());
    world.restart(b);
    world.until_connected(a, b);
    let is_it = |note: &Note| matches!(note, Note::Succeeded { new: told, .. } if *told == new.id());
    world.until("b is told again", 5 * SECOND, |world| world.noted(b, is_it) == 2);
}
