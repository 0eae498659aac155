//! From a story that breaks a rule to the shortest one that still does: delta debugging over steps, then over the plan.
use super::{plan::Plan, run::Violation, step::Step};
use std::fmt::Write;

/// Runs that one shrinking may cost.
const RUNS_MAX: usize = 400;

/// The shortest story found.
pub struct Shrunk {
    /// Its plan.
    pub plan: Plan,
    /// Its steps.
    pub steps: Vec<Step>,
    /// What it breaks, with a trace.
    pub violation: Violation,
    /// Runs that it took.
    pub runs: usize,
}

/// Runs a story once more; with a trace, when that is asked for.
pub type Trial<'a> = &'a dyn Fn(&Plan, &[Step], bool) -> Result<(), Violation>;

struct Search<'a> {
    trial: Trial<'a>,
    best: Shrunk,
}

impl Search<'_> {
    /// Takes a candidate when it breaks the same rule.
    fn improves(&mut self, plan: &Plan, steps: &[Step]) -> bool {
        if self.best.runs >= RUNS_MAX {
            return false;
        }
        self.best.runs += 1;
        match (self.trial)(plan, steps, false) {
            Err(violation) if violation.breach.rule == self.best.violation.breach.rule => {
                self.best = Shrunk { plan: plan.clone(), steps: steps.to_vec(), violation, runs: self.best.runs };
                true
            }
            Err(_) | Ok(()) => false,
        }
    }

    /// Takes out runs of steps: halves first, single ones last.
    fn fewer_steps(&mut self) {
        let mut size = self.best.steps.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < self.best.steps.len() {
                let mut steps = self.best.steps.clone();
                steps.drain(at..(at + size).min(steps.len()));
                let plan = self.best.plan.clone();
                if !self.improves(&plan, &steps) {
                    at += size;
                }
            }
            if size == 1 {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    fn simpler_plan(&mut self) -> bool {
        let steps = self.best.steps.clone();
        self.best.plan.simpler().iter().any(|plan| self.improves(plan, &steps))
    }

    fn shorter_waits(&mut self) {
        for at in 0..self.best.steps.len() {
            for wait in [0, self.best.steps[at].wait / 2] {
                let (plan, mut steps) = (self.best.plan.clone(), self.best.steps.clone());
                if wait < steps[at].wait {
                    steps[at].wait = wait;
                    self.improves(&plan, &steps);
                }
            }
        }
    }
}

/// Shrinks a story that breaks a rule.
pub fn shrink(plan: &Plan, steps: &[Step], violation: Violation, trial: Trial<'_>) -> Shrunk {
    let best = Shrunk { plan: plan.clone(), steps: steps.to_vec(), violation, runs: 0 };
    let mut search = Search { trial, best };
    // what comes after the step at which it was seen does not matter
    let seen = search.best.violation.step + 1;
    if seen < steps.len() {
        search.improves(plan, &steps[..seen]);
    }
    search.fewer_steps();
    while search.simpler_plan() {}
    search.shorter_waits();
    search.fewer_steps();
    let mut found = search.best;
    if let Err(violation) = trial(&found.plan, &found.steps, true) {
        found.violation = violation;
    }
    found
}

impl Shrunk {
    /// A regression test to be pasted.
    pub fn as_test(&self, name: &str) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "#[test]\nfn {name}() {{\n    let plan = {:?};\n    let steps = [", self.plan);
        for step in &self.steps {
            let _ = writeln!(text, "        {step:?},");
        }
        let _ = writeln!(text, "    ];\n    holds(&plan, &steps);\n}}");
        // the test's file says `use Deed::*; use Home::*; use Mode::*;`
        text
    }
}
