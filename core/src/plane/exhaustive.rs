//! Exhaustive models of migration: every order of every event within bounds, on the real lanes (protocol 4.3, 7.2 to 7.6).
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
        if state.fault().is_none() {
            state.steps(&self.0, actions);
        }
    }

    fn next_state(&self, state: &World, step: Step) -> Option<World> {
        Some(state.after(step, &self.0))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no step breaks a rule", |_, state: &World| state.fault().is_none()),
            Property::always("left alone, all is delivered or counted", |model: &Self, state: &World| {
                state.comes_to_rest(&model.0).is_ok()
            }),
        ]
    }
}

const PLAIN: Bounds = Bounds {
    budget: Budget { packets: [0; 2], switches: [0; 2], deaths: 0, ticks: 0, losses: 0, doubles: 0, swaps: 0, hedges: 0, clogs: 0 },
    mode: Mode::SwitchLossless,
    ring_frames: 2,
    hold_frames: 8,
    relay_window: 2,
    deaths_are_noticed: true,
    lossless: true,
};

/// Visits all states and says how many there are; a violation is shown with the shortest way to it.
fn explore(name: &str, bounds: Bounds) -> usize {
    let checker = Migration(bounds).checker().threads(2).spawn_bfs().join();
    for (property, path) in checker.discoveries() {
        let last = path.last_state().clone();
        let steps: Vec<String> = path.into_actions().iter().map(|step| format!("    {step:?}")).collect();
        let verdict = last.comes_to_rest(&bounds);
        panic!("{name}: {property}: {:?} {verdict:?}\n{}\n    {last:?}", last.fault(), steps.join("\n"));
    }
    let states = checker.unique_state_count();
    eprintln!("{name}: {states} states, at most {} steps deep, complete", checker.max_depth());
    states
}

#[test]
fn both_ends_switch_at_once() {
    let budget = Budget { packets: [2, 1], switches: [1, 1], ..PLAIN.budget };
    explore("switch", Bounds { budget, ..PLAIN });
}

#[test]
fn a_path_dies_at_any_moment() {
    let budget = Budget { packets: [2, 0], switches: [1, 0], deaths: 1, ..PLAIN.budget };
    explore("death", Bounds { budget, ..PLAIN });
}

#[test]
fn frames_are_lost_doubled_and_overtaken() {
    let budget = Budget { packets: [2, 0], switches: [1, 0], losses: 1, doubles: 1, swaps: 1, ticks: 1, ..PLAIN.budget };
    explore("air", Bounds { budget, lossless: false, ..PLAIN });
}
