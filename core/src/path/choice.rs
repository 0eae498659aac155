//! Which of the usable paths is best: a pure function (protocol 6.1).
use crate::{id::PathId, time::Duration, wire::PathLabel};

/// A usable path as the choice sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usable {
    pub(crate) path: PathId,
    pub(crate) label: PathLabel,
    pub(crate) rtt: Option<Duration>,
}

/// A path of the same class must be better by so much to be worth a switch.
const MARGIN: Duration = Duration::from_millis(5);

/// The best path: the better class first; within a class the present one, unless another is clearly faster; then the lower number,
/// which both ends see alike.
pub(crate) fn best(options: &[Usable], present: PathId) -> Option<PathId> {
    let class = options.iter().map(|option| option.label).max_by_key(|label| rank(*label))?;
    let mut same: Vec<&Usable> = options.iter().filter(|option| option.label == class).collect();
    same.sort_by_key(|option| option.path);
    let stay = same.iter().find(|option| option.path == present);
    let fastest = same.iter().filter(|option| option.rtt.is_some()).min_by_key(|option| option.rtt);
    match (stay, fastest) {
        (Some(stay), Some(fastest)) if clearly_faster(fastest.rtt, stay.rtt) => Some(fastest.path),
        (Some(stay), _) => Some(stay.path),
        (None, _) => same.first().map(|option| option.path),
    }
}

fn rank(label: PathLabel) -> u8 {
    match label {
        PathLabel::RelayWss => 0,
        PathLabel::RelayUdp => 1,
        PathLabel::DirectWss => 2,
        PathLabel::DirectUdp => 3,
    }
}

/// Whether one round trip is so much shorter than another that it is worth a move.
pub(crate) fn clearly_faster(a: Option<Duration>, b: Option<Duration>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a + MARGIN.max(b / 10) <= b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::btree_map, prelude::*};

    fn option(path: u32, label: PathLabel, rtt_ms: u64) -> Usable {
        Usable { path: PathId(path), label, rtt: Some(Duration::from_millis(rtt_ms)) }
    }

    // protocol 6.1
    #[test]
    fn direct_wins_over_a_faster_relay() {
        let options = [option(0, PathLabel::RelayWss, 1), option(2, PathLabel::DirectWss, 90)];
        assert_eq!(best(&options, PathId::RELAY), Some(PathId(2)));
    }

    // protocol 6.1
    #[test]
    fn within_a_class_only_a_clear_gain_moves_traffic() {
        let near = [option(2, PathLabel::DirectWss, 20), option(3, PathLabel::DirectWss, 16)];
        assert_eq!(best(&near, PathId(2)), Some(PathId(2)));
        let clear = [option(2, PathLabel::DirectWss, 20), option(3, PathLabel::DirectWss, 14)];
        assert_eq!(best(&clear, PathId(2)), Some(PathId(3)));
        let slow = [option(2, PathLabel::DirectWss, 200), option(3, PathLabel::DirectWss, 185)];
        assert_eq!(best(&slow, PathId(2)), Some(PathId(2)), "less than a tenth");
    }

    #[test]
    fn both_ends_choose_the_same_of_two_new_paths() {
        let options = [option(3, PathLabel::DirectWss, 1), option(2, PathLabel::DirectWss, 1), option(0, PathLabel::RelayWss, 1)];
        assert_eq!(best(&options, PathId::RELAY), Some(PathId(2)));
        assert_eq!(best(&[], PathId::RELAY), None);
    }

    fn any_options() -> impl Strategy<Value = Vec<Usable>> {
        let label =
            prop_oneof![Just(PathLabel::RelayWss), Just(PathLabel::RelayUdp), Just(PathLabel::DirectWss), Just(PathLabel::DirectUdp)];
        let rtt = proptest::option::of(prop_oneof![0_u64..12_000, 0_u64..400_000].prop_map(Duration::from_micros));
        btree_map(0_u32..8, (label, rtt), 0..6)
            .prop_map(|map| map.into_iter().map(|(path, (label, rtt))| Usable { path: PathId(path), label, rtt }).collect())
    }

    proptest! {
        /// The choice is one of the best class, whatever the order of the list, and a faster path only if it is clearly faster.
        #[test]
        fn the_choice_is_of_the_best_class_and_leaves_the_present_only_for_a_gain(mut options in any_options(), present in 0_u32..8) {
            let chosen = best(&options, PathId(present));
            options.reverse();
            prop_assert_eq!(best(&options, PathId(present)), chosen, "the order of the list decides");
            let Some(chosen) = chosen else {
                prop_assert!(options.is_empty());
                return Ok(());
            };
            let find = |path| options.iter().find(|option| option.path == path);
            let to = find(chosen).expect("one of the options");
            prop_assert!(options.iter().all(|option| rank(option.label) <= rank(to.label)));
            match find(PathId(present)).filter(|stay| stay.label == to.label) {
                Some(stay) if stay.path != chosen => {
                    let (old, new) = (stay.rtt.expect("measured"), to.rtt.expect("measured"));
                    prop_assert!(new + Duration::from_millis(5) <= old && new.as_nanos() * 10 <= old.as_nanos() * 9 + 10, "{:?} for {:?}", new, old);
                    prop_assert!(options.iter().all(|option| option.label != to.label || option.rtt.is_none_or(|rtt| rtt >= new)));
                }
                Some(_) => {}
                None => prop_assert!(options.iter().all(|option| option.label != to.label || option.path >= chosen), "the lowest number"),
            }
        }

        /// With the same measurements the choice rests after two moves at most: it does not flap.
        #[test]
        fn the_choice_comes_to_rest(options in any_options(), present in 0_u32..8) {
            let Some(first) = best(&options, PathId(present)) else { return Ok(()) };
            let second = best(&options, first).expect("options");
            prop_assert_eq!(best(&options, second), Some(second));
        }

        /// Noise below the margin moves nothing, however often the measurements change.
        #[test]
        fn noise_below_the_margin_moves_nothing(base in 0_u64..100_000, noise in proptest::collection::vec((0_u64..5_000, 0_u64..5_000), 1..50)) {
            for (a, b) in noise {
                let rtt = |micros| Some(Duration::from_micros(base + micros));
                let options = [
                    Usable { path: PathId(2), label: PathLabel::DirectWss, rtt: rtt(a) },
                    Usable { path: PathId(3), label: PathLabel::DirectWss, rtt: rtt(b) },
                ];
                prop_assert_eq!(best(&options, PathId(3)), Some(PathId(3)));
            }
        }
    }
}
