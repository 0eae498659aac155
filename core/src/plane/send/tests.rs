//! One sending lane alone: what goes where, and what a receipt changes. Each of these tests was written because a change of the code went
//! unnoticed by the stories of two planes.
use super::*;
use crate::{
    crypto::rustcrypto::RustCrypto,
    id::{ConnId, Handle},
    offload::Checksum,
    plane::{Noticed, Via},
    session::{Chain, EpochKeys, Side, Suite},
    wire::{LEAST_BUDGET, LaneControl},
};
use stage::{World, told};
use zeroize::Zeroizing;

mod stage;

const RELAY: Via = Via { conn: ConnId(0), handle: Some(Handle(9)) };
const DIRECT: Via = Via { conn: ConnId(2), handle: None };
const OTHER: Via = Via { conn: ConnId(3), handle: None };
const DIRECT_PATH: PathId = PathId(2);
const OTHER_PATH: PathId = PathId(4);

// protocol 7.2, 7.5
#[test]
fn copies_are_owed_as_long_as_their_path_has_no_room() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(3);
    assert!(!world.lane.owes_copies(), "nobody asked for any");
    world.out.full.push(RELAY.conn);
    world.lane.hedge(&world.paths, PathId::RELAY);
    world.pump();
    assert!(world.lane.owes_copies(), "the relay's writer is full");
    world.out.full.clear();
    world.pump();
    assert!(!world.lane.owes_copies());
    assert_eq!(world.data(RELAY), [0, 1, 2]);
    // the same of what a fallback owes
    world.out.full.push(OTHER.conn);
    world.lane.fall_back(world.now, &world.paths, OTHER_PATH, &mut world.out);
    assert!(world.lane.owes_copies());
    world.out.full.clear();
    world.pump();
    assert!(!world.lane.owes_copies());
}

#[test]
fn a_lane_is_owed_receipts_from_its_first_frame_to_its_last_receipt() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    assert!(!world.lane.is_owed());
    world.packets(2);
    assert!(world.lane.is_owed());
    world.receipt(1, 1, &[]);
    assert!(world.lane.is_owed());
    world.receipt(2, 2, &[]);
    assert!(!world.lane.is_owed());
}

// protocol 5.4
#[test]
fn an_ended_lane_names_no_path_whose_number_is_given_anew() {
    let mut world = World::new(Mode::SwitchLossless, OTHER_PATH);
    world.lane.switch(world.now, &world.paths, DIRECT_PATH, &mut world.out);
    world.out.sent.clear();
    // a number that nothing here has: nothing changes
    world.lane.forget_path(PathId(6));
    assert_eq!(world.said_again(), [(DIRECT, OTHER_PATH, DIRECT_PATH), (OTHER, OTHER_PATH, DIRECT_PATH)]);
    world.lane.forget_path(OTHER_PATH);
    assert_eq!(world.said_again(), [(DIRECT, DIRECT_PATH, DIRECT_PATH)], "the path that was left is another now");
    assert_eq!(world.lane.main(), DIRECT_PATH);
    world.lane.forget_path(DIRECT_PATH);
    assert_eq!(world.lane.main(), PathId::RELAY);
}

// protocol 5.4, 7.5
#[test]
fn an_ended_lane_copies_anew_only_when_the_path_of_its_copies_is_gone() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(2);
    world.lane.hedge(&world.paths, OTHER_PATH);
    world.pump();
    world.out.sent.clear();
    world.lane.forget_path(PathId(6));
    world.lane.pump_copies(world.now, &world.paths, &mut world.out);
    assert!(world.out.sent.is_empty(), "no copy went there");
    world.lane.forget_path(OTHER_PATH);
    world.lane.pump_copies(world.now, &world.paths, &mut world.out);
    assert_eq!((world.data(DIRECT), world.data(OTHER)), (vec![0, 1], vec![]));
}

// protocol 7.3
#[test]
fn drain_goes_the_path_that_carried_the_last_frames() {
    // the main path lives and has all: a second path had copies only
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(2);
    world.lane.hedge(&world.paths, PathId::RELAY);
    world.pump();
    world.lane.switch(world.now, &world.paths, OTHER_PATH, &mut world.out);
    assert_eq!(world.drains(), [(DIRECT, DIRECT_PATH)]);
    assert_eq!(world.switches().iter().map(|(via, _, _)| *via).collect::<Vec<Via>>(), [OTHER, DIRECT]);
    // the main path had no room: the second one went on alone
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.lane.hedge(&world.paths, PathId::RELAY);
    world.out.full.push(DIRECT.conn);
    world.packets(2);
    assert_eq!((world.data(DIRECT), world.data(RELAY)), (vec![], vec![0, 1]));
    world.lane.switch(world.now, &world.paths, OTHER_PATH, &mut world.out);
    assert_eq!(world.drains(), [(RELAY, PathId::RELAY)]);
    let switches = world.switches();
    let to: Vec<Via> = switches.iter().map(|(via, _, _)| *via).collect();
    assert_eq!(to, [OTHER, DIRECT, RELAY], "SWITCH goes each path that it is about, once");
}

// protocol 7.5
#[test]
fn a_fallback_sends_nothing_again_that_its_path_has_copies_of() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(3);
    world.lane.hedge(&world.paths, PathId::RELAY);
    world.pump();
    world.out.sent.clear();
    world.lane.fall_back(world.now, &world.paths, PathId::RELAY, &mut world.out);
    assert_eq!(world.data(RELAY), [0; 0]);
    // but all, when the copies went another way
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(3);
    world.lane.hedge(&world.paths, PathId::RELAY);
    world.pump();
    world.out.sent.clear();
    world.lane.fall_back(world.now, &world.paths, OTHER_PATH, &mut world.out);
    assert_eq!(world.data(OTHER), [0, 1, 2]);
}

// protocol 7.7
#[test]
fn a_redundant_lane_goes_on_upon_both_paths_after_a_switch_and_a_calm() {
    for (mode, on_relay) in [(Mode::Redundant, vec![0, 1]), (Mode::SwitchLossless, vec![])] {
        let mut world = World::new(mode, PathId::RELAY);
        world.lane.switch(world.now, &world.paths, DIRECT_PATH, &mut world.out);
        world.packets(1);
        world.lane.calm(world.now, &world.paths, &mut world.out);
        world.packets(1);
        assert_eq!((world.data(DIRECT), world.data(RELAY)), (vec![0, 1], on_relay), "{mode:?}");
    }
}

// protocol 7.5
#[test]
fn a_lane_that_is_calm_again_sends_no_more_copies() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.lane.hedge(&world.paths, PathId::RELAY);
    world.packets(1);
    world.lane.calm(world.now, &world.paths, &mut world.out);
    world.packets(1);
    assert_eq!((world.data(DIRECT), world.data(RELAY)), (vec![0, 1], vec![0]));
}

// protocol 7.5
#[test]
fn a_hedge_copies_each_frame_once_and_never_on_the_main_path() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(2);
    world.lane.hedge(&world.paths, DIRECT_PATH);
    world.pump();
    assert_eq!(world.data(DIRECT), [0, 1], "it carries them already");
    for _ in 0..2 {
        world.lane.hedge(&world.paths, PathId::RELAY);
        world.pump();
    }
    assert_eq!(world.data(RELAY), [0, 1], "the second word of the suspicion says nothing new");
    world.lane.hedge(&world.paths, OTHER_PATH);
    world.pump();
    assert_eq!(world.data(OTHER), [0, 1], "another path begins with the oldest");
    let mut world = World::new(Mode::Off, DIRECT_PATH);
    world.packets(2);
    world.lane.hedge(&world.paths, PathId::RELAY);
    world.pump();
    assert_eq!(world.data(RELAY), [0; 0], "mode off sends nothing twice");
}

// protocol 7.5
#[test]
fn the_first_data_after_a_silence_is_copied_until_it_is_receipted() {
    let idle = |mode, seconds, main| {
        let mut world = World::new(mode, main);
        world.now = world.now + Duration::from_secs(seconds);
        world.packets(1);
        world
    };
    assert_eq!(idle(Mode::SwitchLossless, 5, DIRECT_PATH).data(RELAY), [0; 0], "not silent for long enough");
    assert_eq!(idle(Mode::Off, 6, DIRECT_PATH).data(RELAY), [0; 0], "mode off sends nothing twice");
    assert_eq!(idle(Mode::SwitchLossless, 6, PathId::RELAY).data(RELAY), [0], "the relay needs no second");
    let mut world = idle(Mode::SwitchLossless, 6, DIRECT_PATH);
    world.packets(1);
    world.receipt(1, 1, &[]);
    world.packets(1);
    assert_eq!((world.data(DIRECT), world.data(RELAY)), (vec![0, 1, 2], vec![0, 1]));
    // a suspicion meanwhile goes on where the hedge is, and does not end with a receipt
    let mut world = idle(Mode::SwitchLossless, 6, DIRECT_PATH);
    world.lane.hedge(&world.paths, PathId::RELAY);
    world.pump();
    world.receipt(1, 1, &[]);
    world.packets(1);
    assert_eq!(world.data(RELAY), [0, 1]);
}

// protocol 7.5
#[test]
fn only_a_main_path_of_datagrams_gets_nothing_new_while_it_is_suspect() {
    for (main, on_main) in [(DIRECT, vec![0, 1]), (Via { conn: ConnId::flow(3), handle: None }, vec![0])] {
        let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
        world.paths.put(DIRECT_PATH, main, None, None, None);
        world.packets(1);
        world.lane.hedge(&world.paths, PathId::RELAY);
        world.pump();
        world.packets(1);
        assert_eq!((world.data(main), world.data(RELAY)), (on_main, vec![0, 1]));
    }
}

// protocol 7.4, 7.5
#[test]
fn a_frame_that_went_once_on_the_path_on_which_it_came_measures_the_round_trip_and_no_other() {
    let measured = |mode: Mode, went: &dyn Fn(&mut World), came_on: PathId| {
        let mut world = World::new(mode, DIRECT_PATH);
        world.packets(1);
        world.wait(100);
        world.packets(1);
        went(&mut world);
        let before = world.paths.pto(came_on);
        world.wait(300);
        let receipt = Receipt { path: came_on, ..told(2, 2, &[]) };
        assert!(world.lane.receipt(world.now, &mut world.paths, &receipt));
        let after = world.paths.pto(came_on);
        (after != before).then_some(after)
    };
    let once = |_: &mut World| {};
    let copied = |world: &mut World| {
        world.lane.hedge(&world.paths, PathId::RELAY);
        world.pump();
    };
    let again = |world: &mut World| world.lane.fall_back(world.now, &world.paths, DIRECT_PATH, &mut world.out);
    let moved = |world: &mut World| world.lane.fall_back(world.now, &world.paths, OTHER_PATH, &mut world.out);
    let mut rtt = crate::plane::Rtt::from_sample(Duration::from_millis(10));
    rtt.sample(Duration::from_millis(300));
    let told = Some(rtt.pto());
    assert_eq!(measured(Mode::SwitchLossless, &once, DIRECT_PATH), told, "since the newest frame that came");
    // a suspicion that was wrong teaches how long the path takes, or the next packet would raise the next one
    assert_eq!(measured(Mode::SwitchLossless, &copied, DIRECT_PATH), told);
    let blind = [
        (Mode::SwitchLossless, &once as &dyn Fn(&mut World), OTHER_PATH),
        (Mode::SwitchLossless, &copied, PathId::RELAY),
        (Mode::SwitchLossless, &again, DIRECT_PATH),
        (Mode::SwitchLossless, &moved, OTHER_PATH),
        (Mode::SwitchLossless, &moved, DIRECT_PATH),
        // its clock starts anew with each copy
        (Mode::Reliable, &copied, DIRECT_PATH),
    ];
    for (mode, went, came_on) in blind {
        assert_eq!(measured(mode, went, came_on), None, "{mode:?}, {came_on:?}");
    }
}

// protocol 7.5
#[test]
fn a_receipt_that_tells_nothing_new_is_no_sign_of_life() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(6);
    // named on another path, so that no sample changes how long is too long
    let say = |world: &mut World, floor, next, mask: &[u64]| {
        world.wait(1);
        let receipt = Receipt { path: OTHER_PATH, ..told(floor, next, mask) };
        assert!(world.lane.receipt(world.now, &mut world.paths, &receipt));
        world.lane.deadline(&world.paths)
    };
    let due = say(&mut world, 1, 3, &[1]);
    assert_eq!(say(&mut world, 1, 3, &[1]), due, "told before");
    assert_eq!(say(&mut world, 0, 1, &[]), due, "told before");
    // each new word moves the deadline: a hole that is filled, one that the other end gave up, and a higher number
    let mut due = due;
    for (floor, next, mask) in [(1, 4, vec![1, 2]), (1, 4, vec![0, 1, 2]), (4, 4, vec![]), (4, 6, vec![])] {
        let before = core::mem::replace(&mut due, say(&mut world, floor, next, &mask));
        assert!(due > before, "floor {floor}, next {next}");
    }
}

// protocol 7.7
#[test]
fn a_reliable_lane_fills_each_hole_behind_what_came_once_a_timeout() {
    let mut world = World::new(Mode::Reliable, DIRECT_PATH);
    world.packets(9);
    world.out.sent.clear();
    world.receipt(0, 8, &[1, 2, 4, 5, 6, 7]);
    world.lane.fill_holes(world.now, &world.paths, &mut world.out);
    assert_eq!(world.data(DIRECT), [0; 0], "what is missing may still be on its way");
    let patience = world.paths.pto(DIRECT_PATH);
    world.now = world.now + patience;
    world.lane.fill_holes(world.now, &world.paths, &mut world.out);
    assert_eq!(world.data(DIRECT), [0, 3], "both holes");
    world.lane.fill_holes(world.now, &world.paths, &mut world.out);
    assert_eq!(world.data(DIRECT), [0, 3], "not again before a timeout");
    world.now = world.now + patience;
    world.lane.fill_holes(world.now, &world.paths, &mut world.out);
    assert_eq!(world.data(DIRECT), [0, 3, 0, 3], "and then again");
}

// protocol 7.7
#[test]
fn a_reliable_lane_leaves_holes_near_the_newest_frame_and_other_modes_leave_all() {
    for (mode, next, again) in [(Mode::Reliable, 3, vec![]), (Mode::Reliable, 4, vec![0]), (Mode::SwitchLossless, 4, vec![])] {
        let mut world = World::new(mode, DIRECT_PATH);
        world.packets(5);
        world.out.sent.clear();
        world.receipt(0, next, &(1..next).collect::<Vec<u64>>());
        world.wait(1000);
        world.lane.fill_holes(world.now, &world.paths, &mut world.out);
        assert_eq!(world.data(DIRECT), again, "{mode:?}, {next}");
    }
}

// protocol 7.3
#[test]
fn a_switch_is_over_when_its_own_generation_is_receipted_and_drain_has_gone() {
    let mut world = World::new(Mode::SwitchLossless, PathId::RELAY);
    world.packets(1);
    world.lane.switch(world.now, &world.paths, DIRECT_PATH, &mut world.out);
    world.lane.receipt(world.now, &mut world.paths, &told(1, 1, &[]));
    assert!(!world.said_again().is_empty(), "the receipt knows nothing of it");
    world.lane.receipt(world.now, &mut world.paths, &Receipt { generation: 1, ..told(1, 1, &[]) });
    assert!(world.said_again().is_empty());
}

// protocol 7.3
#[test]
fn a_switch_without_an_answer_is_repeated_ever_later_but_every_two_seconds() {
    let mut world = World::new(Mode::SwitchLossless, PathId::RELAY);
    world.lane.switch(world.now, &world.paths, DIRECT_PATH, &mut world.out);
    let pto = world.paths.pto(DIRECT_PATH);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let due = world.lane.deadline(&world.paths).expect("it is not confirmed");
        waits.push(due.since(world.now));
        world.now = due;
        world.lane.alarm(world.now, &world.paths, &mut world.out);
    }
    let wanted: Vec<Duration> = (0..9).map(|round| (pto * 2 * (1 << round)).min(Duration::from_secs(2))).collect();
    assert_eq!(waits, wanted);
}

// protocol 7.1
#[test]
fn copies_keep_to_the_window_of_their_path_too() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.paths.put(PathId::RELAY, RELAY, Some(4), None, None);
    world.packets(10);
    world.lane.hedge(&world.paths, PathId::RELAY);
    world.pump();
    assert_eq!(world.data(RELAY), [0, 1, 2, 3]);
    world.receipt(1, 1, &[]);
    world.pump();
    assert_eq!(world.data(RELAY), [0, 1, 2, 3, 4]);
}

// protocol 7.1, 7.5
#[test]
fn a_full_main_path_hands_on_to_a_second_one_only_if_that_has_kept_up() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(2);
    world.out.full = vec![DIRECT.conn, RELAY.conn];
    world.lane.hedge(&world.paths, PathId::RELAY);
    world.pump();
    assert!(!world.packet(), "neither has room");
    world.out.full = vec![DIRECT.conn];
    assert!(!world.packet(), "the copies come first");
    world.pump();
    assert!(world.packet());
    assert_eq!((world.data(DIRECT), world.data(RELAY)), (vec![0, 1], vec![0, 1, 2]));
    world.out.full.clear();
    assert!(world.packet());
    assert_eq!(world.data(DIRECT), [0, 1], "its run is broken: only a switch takes it up again");
}

// protocol 7.5
#[test]
fn what_is_out_counts_as_late_when_the_lane_is_given_up() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(3);
    let mut drops = Drops::default();
    world.lane.count_unreceipted(&mut drops);
    assert_eq!(drops.get(Drop::Late), 3);
}

// protocol 3.10, 7.3
#[test]
fn the_end_of_a_lane_is_told_on_the_path_that_carried_its_last_frame() {
    for (full, told_on) in [(vec![], DIRECT), (vec![DIRECT.conn], RELAY)] {
        let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
        world.lane.hedge(&world.paths, PathId::RELAY);
        world.out.full = full;
        world.packets(2);
        world.lane.close(world.now, &world.paths, &mut world.out);
        let drains: Vec<Via> = world.drains().into_iter().map(|(via, _)| via).collect();
        assert_eq!(drains, [told_on]);
    }
}

// protocol 7.5
#[test]
fn a_lane_whose_frames_are_copied_already_sends_none_as_a_probe() {
    let lossless = [(Mode::SwitchLossless, false, vec![0]), (Mode::SwitchLossless, true, vec![])];
    // there are always copies in this mode, and they may be lost too
    for (mode, hedged, again) in lossless.into_iter().chain([(Mode::Redundant, true, vec![0])]) {
        let mut world = World::new(mode, DIRECT_PATH);
        world.packets(2);
        if hedged {
            world.lane.hedge(&world.paths, PathId::RELAY);
            world.pump();
        }
        world.out.sent.clear();
        for _ in 0..2 {
            world.now = world.lane.deadline(&world.paths).expect("frames are out");
            world.lane.alarm(world.now, &world.paths, &mut world.out);
        }
        let stalls = world.out.reports.iter().filter(|report| matches!(report.what, Noticed::Stalled { path: DIRECT_PATH, .. })).count();
        assert_eq!((stalls, world.data(DIRECT)), (2, again), "{mode:?}, hedged: {hedged}");
    }
}

// protocol 5.4, 7.3
#[test]
fn a_drain_that_an_ended_lane_owes_leaves_a_path_whose_number_is_given_anew() {
    let mut world = World::new(Mode::SwitchLossless, PathId::RELAY);
    for to in [OTHER_PATH, DIRECT_PATH] {
        world.packets(1);
        world.lane.switch(world.now, &world.paths, to, &mut world.out);
    }
    world.out.sent.clear();
    world.lane.forget_path(OTHER_PATH);
    world.receipt(2, 2, &[]);
    world.lane.pump_copies(world.now, &world.paths, &mut world.out);
    assert_eq!(world.drains(), [(DIRECT, DIRECT_PATH)]);
}

// protocol 7.5
#[test]
fn only_what_the_main_path_carried_speaks_for_it() {
    let mut world = World::new(Mode::SwitchLossless, PathId::RELAY);
    world.packets(1);
    world.lane.switch(world.now, &world.paths, DIRECT_PATH, &mut world.out);
    world.packets(3);
    // frame 0 went the relay, 1 to 3 the direct path
    let say = |world: &mut World, floor, next, mask: &[u64]| {
        world.wait(1);
        let receipt = Receipt { path: OTHER_PATH, ..told(floor, next, mask) };
        assert!(world.lane.receipt(world.now, &mut world.paths, &receipt));
        world.lane.stall_at(&world.paths)
    };
    let due = world.lane.stall_at(&world.paths);
    assert_eq!(say(&mut world, 1, 1, &[]), due, "that was the relay");
    let mut world = World::new(Mode::SwitchLossless, PathId::RELAY);
    world.packets(1);
    world.lane.switch(world.now, &world.paths, DIRECT_PATH, &mut world.out);
    world.packets(3);
    let due = say(&mut world, 0, 3, &[2]);
    assert!(say(&mut world, 0, 3, &[1, 2]) > due, "its first frame");
}

// protocol 7.5
#[test]
fn a_hedge_after_a_silence_goes_on_when_an_old_receipt_comes_again() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(1);
    world.receipt(1, 1, &[]);
    world.wait(6000);
    world.packets(1);
    world.receipt(1, 1, &[]);
    world.packets(1);
    assert_eq!(world.data(RELAY), [1, 2]);
}

// protocol 7.1, 8.3
#[test]
fn all_pieces_of_a_packet_fit_the_window_or_none_goes() {
    for (out, goes) in [(5, true), (6, false)] {
        let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
        world.paths.put(DIRECT_PATH, DIRECT, Some(8), None, Some(LEAST_BUDGET));
        world.packets(out);
        let three = vec![0; 2 * LEAST_BUDGET];
        let went = world.lane.send_now(world.now, &world.paths, Plain::whole(2, &three), &mut world.out);
        assert_eq!((went, world.data(DIRECT).len()), (goes, if goes { 8 } else { 6 }));
    }
}

#[test]
fn a_lane_that_is_closed_or_whose_ring_is_full_takes_nothing() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.lane.narrow(2);
    world.packets(2);
    assert!(!world.packet(), "the ring is full");
    assert_eq!((world.lane.counters().frames, world.lane.counters().bytes), (2, 16));
    let mut held = Vec::new();
    world.lane.bounds(&mut |bound| held.push(bound.held));
    assert_eq!(held[0], 2);
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.lane.close(world.now, &world.paths, &mut world.out);
    assert!(!world.packet(), "a newer session has taken over");
}

// protocol 7.1, 7.5
#[test]
fn a_main_path_that_takes_nothing_stalls_after_a_timeout() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.out.full.push(DIRECT.conn);
    let mut queue = FairQueue::default();
    queue.push(world.now, 0, Plain::whole(2, b"a packet"), &mut Drops::default());
    world.lane.pump(world.now, &world.paths, &mut queue, &mut world.out, &mut Drops::default());
    assert_eq!(world.lane.stall_at(&world.paths), Some(world.now + world.paths.pto(DIRECT_PATH)));
}

// protocol 7.3, 8.3
#[test]
fn what_is_too_long_for_the_new_path_goes_the_relay_before_anything_new_and_before_drain() {
    let mut world = World::with_a_long_frame();
    world.out.full.push(RELAY.conn);
    world.lane.fall_back(world.now, &world.paths, DIRECT_PATH, &mut world.out);
    let mut queue = FairQueue::default();
    queue.push(world.now, 0, Plain::whole(2, b"a packet"), &mut Drops::default());
    world.lane.pump(world.now, &world.paths, &mut queue, &mut world.out, &mut Drops::default());
    assert_eq!((world.data(RELAY), world.data(DIRECT)), (vec![], vec![]), "the relay's writer is full");
    world.out.full.clear();
    world.lane.pump(world.now, &world.paths, &mut queue, &mut world.out, &mut Drops::default());
    assert_eq!((world.data(RELAY), world.data(DIRECT)), (vec![0], vec![1]));
    assert_eq!(world.drains(), [], "the relay may be slower");
    world.receipt(1, 1, &[]);
    world.pump();
    assert_eq!(world.drains(), [(DIRECT, DIRECT_PATH)]);
}

// protocol 8.3
#[test]
fn a_frame_that_no_path_carries_any_more_holds_up_nothing_behind_it() {
    let mut world = World::with_a_long_frame();
    world.paths.remove(PathId::RELAY);
    world.lane.fall_back(world.now, &world.paths, DIRECT_PATH, &mut world.out);
    assert!(!world.lane.is_owed());
    assert_eq!(world.lane.counters().lost, 1);
    // the other end still waits for it
    world.packets(1);
    world.receipt(0, 2, &[1]);
    assert!(!world.lane.is_owed());
}

// protocol 7.5
#[test]
fn copies_of_what_has_come_meanwhile_are_not_owed() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(2);
    world.out.full.push(RELAY.conn);
    world.lane.hedge(&world.paths, PathId::RELAY);
    world.pump();
    world.receipt(2, 2, &[]);
    world.pump();
    assert!(!world.lane.owes_copies());
}

// protocol 7.1
#[test]
fn a_copy_goes_where_there_is_just_room_for_it() {
    let mut world = World::new(Mode::SwitchLossless, DIRECT_PATH);
    world.packets(1);
    let len = world.out.sent[0].1.len();
    world.lane.hedge(&world.paths, PathId::RELAY);
    for (room, copied) in [(len - 1, vec![]), (len, vec![0])] {
        world.out.room = Some(room);
        world.pump();
        assert_eq!(world.data(RELAY), copied, "{room} bytes");
    }
}
