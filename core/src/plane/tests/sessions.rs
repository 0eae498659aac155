//! A session that is replaced: what it owes comes before what the new one brings (protocol 3.10).
use super::*;

// protocol 3.10, 7.3
#[test]
fn a_replaced_session_sends_all_it_owes_before_the_new_one_is_heard() {
    let mut world = World::with_direct();
    world.packets(10);
    world.wait(50, &[]);
    world.packets(2000);
    world.wait(1, &[DIRECT]);
    for (end, side, indices) in [(&mut world.b, Side::Responder, (21, 11)), (&mut world.a, Side::Initiator, (11, 21))] {
        end.session(world.now, &chain(8), side, indices);
        end.apply(world.now, Edit::Unpath { link: LINK, path: DIRECT_PATH });
    }
    world.packets(100);
    world.wait(100, &[DIRECT]);
    world.all_came_in_order();
}

// protocol 3.10; found by the fuzz target `plane`: the end of any session opened the gates of all others
#[test]
fn a_third_session_waits_for_a_second_that_waits_for_the_first() {
    let mut world = World::with_direct();
    for (secret, there, here) in [(8, (21, 11), (11, 21)), (9, (22, 12), (12, 22))] {
        world.b.session(world.now, &chain(secret), Side::Responder, there);
        world.a.session(world.now, &chain(secret), Side::Initiator, here);
        world.packets(10);
    }
    // the end of the first went into the direct path, which has died
    world.wait(50, &[DIRECT]);
    for end in [&mut world.a, &mut world.b] {
        end.apply(world.now, Edit::Unpath { link: LINK, path: DIRECT_PATH });
    }
    world.wait(400, &[DIRECT]);
    world.all_came_in_order();
}

// protocol 3.10; found by the fuzz target `plane`: the new session waited only when the old one had been heard within a second
#[test]
fn a_new_session_waits_for_an_old_one_of_which_nothing_was_heard() {
    let mut world = World::with_direct();
    world.packets(20);
    for (end, side, indices) in [(&mut world.b, Side::Responder, (21, 11)), (&mut world.a, Side::Initiator, (11, 21))] {
        end.session(world.now, &chain(8), side, indices);
    }
    world.packets(20);
    // the direct path dies with all that was sent first; only then does a learn of it
    world.a.ports.out.retain(|(via, _)| *via != DIRECT);
    for end in [&mut world.a, &mut world.b] {
        end.apply(world.now, Edit::FallBack { link: LINK, to: PathId::RELAY });
        end.apply(world.now, Edit::Unpath { link: LINK, path: DIRECT_PATH });
    }
    world.wait(400, &[DIRECT]);
    world.all_came_in_order();
}

// protocol 3.10, 7.3; found by the fuzz target `plane`: only the session that seals sent again what a path had swallowed that was left before
#[test]
fn a_path_that_a_replaced_session_had_left_dies_and_nothing_is_lost() {
    let mut world = World::with_direct();
    world.packets(14);
    world.a.apply(world.now, Edit::Switch { link: LINK, to: PathId::RELAY });
    world.packets(13);
    world.replace_session();
    world.packets(5);
    // what is on the direct path never comes
    world.exchange(&[DIRECT]);
    world.lose_direct();
    world.wait(400, &[DIRECT]);
    world.all_came_in_order();
}

// protocol 3.10, 7.3: what other paths still carry is receipted before the end of a lane is told
#[test]
fn a_replaced_session_does_not_end_before_the_path_that_it_has_left_is_empty() {
    let mut world = World::with_direct();
    world.packets(14);
    world.a.apply(world.now, Edit::Switch { link: LINK, to: PathId::RELAY });
    world.packets(13);
    world.replace_session();
    world.packets(5);
    // the relay is quick
    let (quick, slow) = world.a.ports.out.drain(..).partition(|(via, _)| *via == RELAY);
    world.a.ports.out = quick;
    world.exchange(&[]);
    assert!(world.b.ports.delivered.is_empty(), "what is on the direct path comes first");
    world.a.ports.out = slow;
    world.wait(100, &[]);
    world.all_came_in_order();
}

// protocol 3.10, 7.6
#[test]
fn what_a_replaced_session_owes_goes_again_when_the_relay_connection_is_replaced() {
    let mut world = World::new();
    world.packets(20);
    world.replace_session();
    world.packets(5);
    world.exchange(&[RELAY]);
    for end in [&mut world.a, &mut world.b] {
        end.path(world.now, PathId::RELAY, RELAY_ANEW);
        end.apply(world.now, Edit::FallBack { link: LINK, to: PathId::RELAY });
    }
    world.wait(400, &[RELAY]);
    world.all_came_in_order();
}

// protocol 7.3, 7.6
#[test]
fn a_relay_connection_that_is_replaced_just_after_the_lane_has_left_it_loses_nothing() {
    let mut world = World::new();
    world.packets(50);
    for end in [&mut world.a, &mut world.b] {
        end.path(world.now, DIRECT_PATH, DIRECT);
        end.apply(world.now, Edit::Switch { link: LINK, to: DIRECT_PATH });
    }
    world.packets(50);
    world.exchange(&[RELAY]);
    for end in [&mut world.a, &mut world.b] {
        end.path(world.now, PathId::RELAY, RELAY_ANEW);
    }
    world.wait(200, &[RELAY]);
    world.all_came_in_order();
}

// protocol 3.10, 7.6: there may be no relay when the path of a replaced session dies
#[test]
fn what_a_replaced_session_owes_follows_the_new_one_to_whatever_path_it_takes() {
    for switch_first in [true, false] {
        let mut world = World::new();
        world.packets(20);
        world.replace_session();
        world.packets(5);
        world.exchange(&[RELAY]);
        for end in [&mut world.a, &mut world.b] {
            end.path(world.now, DIRECT_PATH, DIRECT);
            let switch = Edit::Switch { link: LINK, to: DIRECT_PATH };
            let gone = Edit::Unpath { link: LINK, path: PathId::RELAY };
            let (first, second) = if switch_first { (switch, gone) } else { (gone, switch) };
            end.apply(world.now, first);
            end.apply(world.now, second);
        }
        world.wait(400, &[RELAY]);
        world.all_came_in_order();
    }
}
