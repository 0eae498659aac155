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

#[test]
fn a_link_that_is_forgotten_leaves_nothing_behind_and_what_is_ordered_for_it_later_does_nothing() {
    let mut world = World::with_direct();
    world.packets(5);
    world.replace_session();
    world.packets(5);
    world.a.apply(world.now, Edit::Forget { link: LINK });
    let plane = &world.a.plane;
    assert!(plane.tally().links.is_empty() && plane.deadline().is_none());
    assert!(plane.sessions.is_empty() && plane.retiring.is_empty() && plane.waiting.is_empty() && plane.timers.is_empty());
    world.a.ports.out.clear();
    let (link, keys) = (LINK, chain(8).keys(Side::Initiator, &RustCrypto));
    let install = Install {
        session: chain(8).session_id(),
        local: 12,
        remote: 22,
        keys: keys.clone(),
        main: PathId::RELAY,
        lanes: 1,
        slabs: Slabs::default(),
    };
    for edit in [
        Edit::Install { link, install: Box::new(install) },
        Edit::Promote { link, local: 11 },
        Edit::Epoch { link, local: 11, keys, seal: true },
        Edit::Path { link, path: DIRECT_PATH, via: DIRECT, window: None, rtt: None, budget: None },
        Edit::Unpath { link, path: DIRECT_PATH },
        Edit::Hedge { link, rescue: DIRECT_PATH },
        Edit::Calm { link },
        Edit::Switch { link, to: DIRECT_PATH },
        Edit::FallBack { link, to: PathId::RELAY },
        Edit::Retire { link, local: 11 },
    ] {
        world.a.apply(world.now, edit);
    }
    assert!(world.a.plane.tally().links.is_empty() && world.a.plane.sessions.is_empty() && world.a.ports.out.is_empty());
    world.packets(1);
    assert_eq!(world.a.plane.tally().drops.get(Drop::NoRoute), 1, "its address is nobody's");
    // what its sessions still bring is nobody's either
    let mut late = vec![0; FRAME_HEADER_LEN + 1 + TAG_LEN];
    let header = FrameHeader { epoch: 0, generation: 0, receiver: 11, counter: Counter::new(0, 0) };
    chain(8).keys(Side::Responder, &RustCrypto).seal.seal(header, &mut late);
    world.a.plane.inbound(world.now, DIRECT.conn, &mut late, &mut world.a.ports);
    assert_eq!(world.a.plane.tally().drops.get(Drop::UnknownSession), 1);
}

#[test]
fn an_order_to_go_over_to_a_session_that_is_not_there_changes_nothing() {
    let mut world = World::new();
    world.a.apply(world.now, Edit::Promote { link: LINK, local: 99 });
    world.packets(3);
    world.wait(20, &[]);
    world.all_came_in_order();
}

// protocol 8.4
#[test]
fn a_datagram_is_taken_in_a_flow_or_from_anywhere_and_what_is_no_frame_is_left_to_the_control_room() {
    let mut world = World::new();
    let (flow, from) = (ConnId::flow(3), "192.0.2.9:5000".parse().expect("an address"));
    for end in [&mut world.a, &mut world.b] {
        end.path(at(1), DIRECT_PATH, Via { conn: flow, handle: None });
        end.apply(at(1), Edit::Switch { link: LINK, to: DIRECT_PATH });
    }
    world.packets(3);
    let frames: Vec<Vec<u8>> = world.a.ports.out.drain(..).map(|(_, frame)| frame).collect();
    let End { plane, ports } = &mut world.b;
    let (mut in_flow, mut elsewhere) = (frames[..2].to_vec(), frames[2..].to_vec());
    plane.datagrams(world.now, Some(flow), from, in_flow.iter_mut().map(Vec::as_mut_slice), ports);
    plane.datagrams(world.now, None, from, elsewhere.iter_mut().map(Vec::as_mut_slice), ports);
    assert_eq!(ports.delivered, [0, 1, 2]);
    let what_else = || [vec![0x25, 0], vec![TYPE_PATH_CMP], Vec::new()];
    let (mut in_flow, mut elsewhere) = (what_else(), what_else());
    plane.datagrams(world.now, Some(flow), from, in_flow.iter_mut().map(Vec::as_mut_slice), ports);
    plane.datagrams(world.now, None, from, elsewhere.iter_mut().map(Vec::as_mut_slice), ports);
    assert_eq!((ports.punted, &ports.strays[..]), (3, &[from; 3][..]));
}
