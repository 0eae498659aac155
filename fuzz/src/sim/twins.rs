//! Without a switch, every mode puts out the same: a quiet story over the relay alone, told in `switch-lossless` and in `off`.
use super::{
    Options, Violation,
    model::Model,
    plan::{Mode, Plan, Quality},
    run::run_with,
    step::{Deed, Step},
};

/// Tells what is quiet in a story in two modes.
pub fn twins(plan: &Plan, steps: &[Step], trace: bool) -> Result<(), Violation> {
    let quiet: Vec<Step> = steps
        .iter()
        .filter(|step| matches!(step.deed, Deed::Stream { .. } | Deed::Burst { .. } | Deed::Ping { .. } | Deed::Idle { .. }))
        .copied()
        .collect();
    // corruption resets a connection, and what comes after a reset is a switch of a kind; chance on the way would tell them apart
    let to_relays = Quality { jitter: 0, loss: 0, flavour: plan.to_relays.flavour & 0x0f, ..plan.to_relays };
    let told = |mode| {
        // one relay that is left for another is a switch, too
        let plan = Plan { mode, to_relays, relays: 0, ..plan.clone() };
        run_with(&plan, &quiet, Options { direct: false, ending: false, trace, ..Options::default() })
    };
    let (lossless, off) = (told(Mode::Lossless)?, told(Mode::Off)?);
    let mut model = Model::new(true, super::Ledger::default());
    model.alike(lossless.output, off.output);
    match model.breach() {
        Some(breach) => Err(Violation { breach: breach.clone(), step: quiet.len(), trace: difference(&lossless.trace, &off.trace) }),
        None => Ok(()),
    }
}

/// Where two traces part.
fn difference(one: &[String], other: &[String]) -> Vec<String> {
    const AROUND: usize = 20;
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let from = same.saturating_sub(AROUND);
    let part = |trace: &[String]| trace.iter().skip(from).take(2 * AROUND).cloned().collect::<Vec<_>>();
    let mut told = vec!["in switch-lossless:".to_owned()];
    told.extend(part(one));
    told.push("in off:".to_owned());
    told.extend(part(other));
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_story_is_alike_in_both_modes_and_hands_out_packets() {
        let (plan, _) = crate::sim::story(3);
        let steps = [Step { wait: 255, deed: Deed::Stream { from: 0, to: 1, rate: 200, packets: 100, len: 9 } }; 2];
        twins(&plan, &steps, false).expect("no switch, no difference");
        let run = run_with(&plan, &steps, Options { direct: false, ending: false, ..Options::default() }).expect("holds");
        assert!(run.handed == 200 && run.output != 0, "{run:?}");
    }
}
