//! The states of each machine and the edges between them, declared once beside the states: `docs/state-machines.md` is printed from
//! here. Debug builds, and so all tests, refuse a transition that is not declared and remember those that were taken.
#[cfg(debug_assertions)]
use std::collections::BTreeSet;

/// What one machine can do.
#[derive(Clone, Copy, Debug)]
pub struct Chart {
    /// What the machine is, for a title.
    pub title: &'static str,
    /// Its states; it begins in the first.
    pub states: &'static [&'static str],
    /// From, to, and the event that causes it.
    pub edges: &'static [(&'static str, &'static str, &'static str)],
}

/// An enum of states with a chart; made by [`edges!`].
pub(crate) trait States {
    const CHART: Chart;
    fn name(&self) -> &'static str;
}

/// Declares the states of an enum, the edges between them, and what causes each.
macro_rules! edges {
    ($type:ty, $title:literal, [$($state:ident),+], $($from:ident => $to:ident: $cause:literal,)+) => {
        impl $crate::edges::States for $type {
            const CHART: $crate::edges::Chart = $crate::edges::Chart {
                title: $title,
                states: &[$(stringify!($state)),+],
                edges: &[$((stringify!($from), stringify!($to), $cause)),+],
            };
            fn name(&self) -> &'static str {
                match self {
                    $(Self::$state { .. } => stringify!($state),)+
                }
            }
        }
    };
}
pub(crate) use edges;

/// The charts of all machines.
pub fn charts() -> Vec<Chart> {
    [crate::node::CHARTS, crate::link::CHARTS, crate::hub::CHARTS].concat()
}

/// Moves a machine to another state and gives the one before.
pub(crate) fn turn<S: States>(state: &mut S, to: S) -> S {
    took::<S>(state.name(), to.name());
    core::mem::replace(state, to)
}

/// The same where the state before was taken apart already.
pub(crate) fn took<S: States>(from: &'static str, to: &'static str) {
    #[cfg(debug_assertions)]
    if from != to {
        let chart = S::CHART;
        let is_declared = chart.edges.iter().any(|edge| (edge.0, edge.1) == (from, to));
        assert!(is_declared, "{}: the edge from {from} to {to} is declared beside the states", chart.title);
        if let Ok(mut taken) = TAKEN.lock() {
            taken.insert((chart.title, from, to));
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = (from, to);
}

#[cfg(debug_assertions)]
#[expect(clippy::disallowed_types, reason = "a note for tests, in debug builds only: no machine reads it")]
static TAKEN: std::sync::Mutex<BTreeSet<(&str, &str, &str)>> = std::sync::Mutex::new(BTreeSet::new());

/// Title, from and to of the edges that were taken in this process; nothing in a release build.
pub fn taken() -> Vec<(&'static str, &'static str, &'static str)> {
    #[cfg(debug_assertions)]
    return TAKEN.lock().map_or_else(|_| Vec::new(), |taken| taken.iter().copied().collect());
    #[cfg(not(debug_assertions))]
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Lamp {
        Off,
        On(u8),
    }

    edges!(Lamp, "a lamp", [Off, On], Off => On: "a hand",);

    #[test]
    fn a_declared_edge_is_taken_and_remembered() {
        let mut lamp = Lamp::Off;
        assert!(matches!(turn(&mut lamp, Lamp::On(3)), Lamp::Off));
        assert!(matches!(turn(&mut lamp, Lamp::On(4)), Lamp::On(3)), "the same state is no edge");
        assert!(taken().contains(&("a lamp", "Off", "On")));
    }

    #[test]
    #[should_panic(expected = "a lamp: the edge from On to Off is declared")]
    fn an_edge_that_is_not_declared_is_a_panic_in_tests() {
        turn(&mut Lamp::On(0), Lamp::Off);
    }

    #[test]
    fn charts_speak_of_their_own_states() {
        for chart in charts() {
            for (from, to, cause) in chart.edges {
                assert!(chart.states.contains(from) && chart.states.contains(to) && !cause.is_empty(), "{}: {from} to {to}", chart.title);
                assert_eq!(
                    chart.edges.iter().filter(|edge| (edge.0, edge.1) == (*from, *to)).count(),
                    1,
                    "{}: {from} to {to}",
                    chart.title
                );
            }
            let reached = |state: &&str| *state == chart.states[0] || chart.edges.iter().any(|(from, to, _)| to == state && from != state);
            assert!(chart.states.iter().all(|state| reached(state) || chart.edges.iter().any(|edge| edge.0 == *state)), "{}", chart.title);
        }
    }
}
