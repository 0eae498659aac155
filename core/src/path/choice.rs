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
        PathLabel::DirectWss => 1,
        PathLabel::DirectUdp => 2,
    }
}

fn clearly_faster(a: Option<Duration>, b: Option<Duration>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a + MARGIN.max(b / 10) <= b)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
