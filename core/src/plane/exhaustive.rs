//! Exhaustive models of migration: every order of every event within bounds, on the real lanes (protocol 4.3, 4.5, 7.2 to 7.6).
//!
//! Each model is complete within its budget: stateright visits every state that two ends and two paths can reach, and the
//! properties are asked in each of them. What the properties say:
//!
//! * nothing is delivered twice; on ordered paths nothing is delivered out of order;
//! * each frame that leaves is new under its counter or bit for bit the kept one;
//! * SWITCH and DRAIN of an old generation change nothing;
//! * ring, waiting room and wait are within their bounds, a frame is released only when the other end is done with it;
//! * from every state both ends come to rest by themselves, and then each packet was delivered or is counted as lost;
//!   where no frame vanished but by the death of a path that was noticed, none is lost.
mod check;
mod stand_in;
mod world;

use crate::config::Mode;
use stateright::{Checker, Model, Property};
use world::{Bounds, Budget, Step, World};

/// A model is its bounds.
struct Migration(Bounds);

impl Model for Migration {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.0)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Step>) {
        if state.fault.is_none() {
            state.steps(&self.0, actions);
        }
    }

    fn next_state(&self, state: &World, step: Step) -> Option<World> {
        Some(state.after(step, &self.0))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no step breaks a rule", |_, state: &World| state.fault.is_none()),
            Property::always("left alone, all is delivered or counted", |model: &Self, state: &World| {
                state.comes_to_rest(&model.0).is_ok()
            }),
        ]
    }
}

const NOTHING: Budget =
    Budget { packets: [0; 2], switches: [0; 2], deaths: 0, ticks: 0, losses: 0, doubles: 0, swaps: 0, hedges: 0, clogs: 0, rekeys: 0 };

const PLAIN: Bounds = Bounds {
    budget: NOTHING,
    mode: Mode::SwitchLossless,
    ring_frames: 3,
    hold_frames: 8,
    relay_window: 2,
    deaths_are_noticed: true,
    lossless: true,
};

/// Visits all states and says how many there are; a violation is shown with the shortest way to it.
fn explore(name: &str, bounds: Bounds) {
    let checker = Migration(bounds).checker().threads(2).spawn_bfs().join();
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let last = path.last_state().clone();
        let steps: Vec<String> = path.into_actions().iter().map(|step| format!("    {step:?}")).collect();
        let verdict = last.comes_to_rest(&bounds);
        panic!("{name}: {property}: {:?} {verdict:?}\n{}\n    {last:?}", last.fault, steps.join("\n"));
    }
    let states = checker.unique_state_count();
    eprintln!("{name}: {states} states, at most {} steps deep, complete", checker.max_depth());
    assert!(states > 1000, "{name}: the model hardly moves");
}

#[test]
fn both_ends_switch_at_once() {
    let budget = Budget { packets: [2, 1], switches: [1, 1], ..NOTHING };
    explore("switch", Bounds { budget, ..PLAIN });
}

#[test]
fn one_end_switches_there_and_back() {
    let budget = Budget { packets: [2, 0], switches: [2, 0], ..NOTHING };
    explore("there and back", Bounds { budget, ..PLAIN });
}

#[test]
fn a_path_dies_at_any_moment() {
    let budget = Budget { packets: [2, 1], switches: [1, 0], deaths: 1, ..NOTHING };
    explore("death", Bounds { budget, ..PLAIN });
}

#[test]
fn a_path_is_slower_than_the_longest_wait() {
    let budget = Budget { packets: [2, 0], switches: [1, 0], ticks: 2, ..NOTHING };
    explore("slow path", Bounds { budget, lossless: false, ..PLAIN });
}

#[test]
fn a_suspect_path_is_hedged_and_its_writer_is_full() {
    let budget = Budget { packets: [2, 0], deaths: 1, hedges: 1, clogs: 1, ..NOTHING };
    explore("hedge", Bounds { budget, ..PLAIN });
}

#[test]
fn a_full_ring_and_a_full_room_to_wait_hold_their_bounds() {
    let budget = Budget { packets: [4, 0], switches: [1, 0], ..NOTHING };
    explore("bounds", Bounds { budget, ring_frames: 2, hold_frames: 1, lossless: false, ..PLAIN });
}

#[test]
fn frames_are_lost_doubled_and_overtaken() {
    let budget = Budget { packets: [2, 0], switches: [1, 0], losses: 1, doubles: 1, swaps: 1, ..NOTHING };
    explore("air", Bounds { budget, lossless: false, ..PLAIN });
}

/// Keys of two epochs, on both lanes, whatever comes first (protocol 4.5): no end seals what the other cannot open.
#[test]
fn a_rekey_while_both_send_and_one_switches() {
    let budget = Budget { packets: [2, 1], switches: [1, 0], rekeys: 1, ..NOTHING };
    explore("rekey", Bounds { budget, ..PLAIN });
}

#[test]
fn a_rekey_whose_first_frames_are_lost() {
    let budget = Budget { packets: [1, 1], switches: [1, 0], rekeys: 2, losses: 1, ..NOTHING };
    explore("rekey with loss", Bounds { budget, lossless: false, ..PLAIN });
}

#[test]
#[ignore = "minutes and gigabytes: just models"]
fn large_both_ends_switch_and_a_path_dies() {
    let budget = Budget { packets: [2, 1], switches: [1, 1], deaths: 1, ticks: 1, ..NOTHING };
    explore("large death", Bounds { budget, ..PLAIN });
}

#[test]
#[ignore = "minutes and gigabytes: just models"]
fn large_frames_are_lost_doubled_and_overtaken_while_alarms_ring() {
    let budget = Budget { packets: [2, 0], switches: [1, 0], losses: 1, doubles: 1, swaps: 1, ticks: 1, ..NOTHING };
    explore("large air", Bounds { budget, lossless: false, ..PLAIN });
}

#[test]
#[ignore = "minutes and gigabytes: just models"]
fn large_a_path_dies_unseen() {
    let budget = Budget { packets: [2, 0], switches: [1, 0], deaths: 1, ticks: 2, ..NOTHING };
    explore("large unseen death", Bounds { budget, deaths_are_noticed: false, lossless: false, ..PLAIN });
}

#[test]
#[ignore = "minutes and gigabytes: just models"]
fn large_a_suspect_path_is_hedged_and_left() {
    let budget = Budget { packets: [2, 0], switches: [1, 0], deaths: 1, hedges: 1, clogs: 1, ..NOTHING };
    explore("large hedge", Bounds { budget, ..PLAIN });
}

#[test]
#[ignore = "minutes and gigabytes: just models"]
fn large_rekeys_whose_frames_are_lost_and_overtaken() {
    let budget = Budget { packets: [2, 1], switches: [1, 0], rekeys: 2, losses: 1, swaps: 1, ..NOTHING };
    explore("large rekey", Bounds { budget, lossless: false, ..PLAIN });
}
