//! The simulator's commands: one seed to be read, many to be run, a night of them, days in one world, thousands of switches.
#![forbid(unsafe_code)]

use shadowmesh_fuzz::sim::{
    Account, Crypto, Mesh, Options, Plan, Shrunk, Step, Violation, hours, run_with, shrink, story, switches, twins,
};
use std::{
    io::Write,
    ops::Range,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A line for whoever reads; nobody may read to the end.
macro_rules! say {
    ($($what:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($what)*);
    }};
}

const USAGE: &str =
    "usage: sim SEED | --seeds FIRST..LAST | --survey FIRST..LAST | --night MINUTES | --soak HOURS [mobile] | --switches COUNT";
/// Every so many-th seed runs on the real back end.
const REAL_EVERY: u64 = 32;
/// And as often a quiet story is told in two modes, which must be alike.
const TWINS_EVERY: u64 = 16;
/// Seeds between two writes of the state of a night.
const SAVE_EVERY: u64 = 512;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match words.as_slice() {
        ["--seeds", range] => range_of(range).map(|range| many(range).is_none()),
        ["--survey", range] => range_of(range).map(survey),
        ["--night", minutes] => number(minutes, "minutes").and_then(night),
        ["--soak", count] => number(count, "hours").map(|count| soak(Mesh::Still, count)),
        ["--soak", count, "mobile"] => number(count, "hours").map(|count| soak(Mesh::Mobile, count)),
        ["--switches", count] => number(count, "switches").map(many_switches),
        [seed] if !seed.starts_with('-') => number(seed, "a seed").map(one),
        _ => Err(USAGE.to_owned()),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn number(text: &str, what: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number of {what}"))
}

fn range_of(text: &str) -> Result<Range<u64>, String> {
    let ends = text.split_once("..").and_then(|(first, last)| Some(first.parse().ok()?..last.parse().ok()?));
    ends.filter(|range| !range.is_empty()).ok_or_else(|| format!("{text:?} is no range of seeds: FIRST..LAST, LAST not included"))
}

fn options_of(seed: u64) -> Options {
    Options { crypto: if seed.is_multiple_of(REAL_EVERY) { Crypto::Real } else { Crypto::StandIn }, ..Options::default() }
}

/// A story that breaks a rule, shrunk.
struct Failed {
    plan: Plan,
    steps: Vec<Step>,
    violation: Violation,
    is_twin: bool,
}

fn run_seed(seed: u64) -> Result<Account, Box<Failed>> {
    let (plan, steps) = story(seed);
    let failed = |violation, is_twin| Box::new(Failed { plan: plan.clone(), steps: steps.clone(), violation, is_twin });
    if seed % TWINS_EVERY == 1 {
        twins(&plan, &steps, false).map_err(|violation| failed(violation, true))?;
    }
    run_with(&plan, &steps, options_of(seed)).map_err(|violation| failed(violation, false))
}

/// Shrinks what failed, and shows it.
fn explain(seed: u64, failed: Failed) {
    say!("seed {seed} breaks a rule: {}; shrinking", failed.violation);
    let Failed { plan, steps, violation, is_twin } = failed;
    let shrunk = if is_twin {
        shrink(&plan, &steps, violation, &twins)
    } else {
        shrink(&plan, &steps, violation, &|plan, steps, trace| run_with(plan, steps, Options { trace, ..options_of(seed) }).map(drop))
    };
    show(seed, &shrunk);
}

/// One seed, to be read.
fn one(seed: u64) -> bool {
    let (plan, steps) = story(seed);
    say!("seed {seed}: {plan:#?}");
    let options = Options { trace: true, ..options_of(seed) };
    match run_with(&plan, &steps, options) {
        Ok(account) => account.trace.iter().for_each(|line| say!("{line}")),
        Err(violation) => violation.trace.iter().for_each(|line| say!("{line}")),
    }
    match run_seed(seed) {
        Ok(account) => say!("seed {seed} holds: {}", account.summary()),
        Err(failed) => {
            explain(seed, *failed);
            return false;
        }
    }
    true
}

fn show(seed: u64, shrunk: &Shrunk) {
    say!("\nseed {seed} breaks a rule: {}", shrunk.violation);
    say!("shrunk in {} runs to {} steps:\n", shrunk.runs, shrunk.steps.len());
    say!("{}", shrunk.as_test(&format!("seed_{seed}")));
    say!("the end of its trace:");
    shrunk.violation.trace.iter().for_each(|line| say!("{line}"));
}

/// What many seeds came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    events: u64,
    virtual_time: Duration,
    opens: u64,
    lived: u64,
    recovery: [Duration; 3],
    most: (usize, u64),
}

impl Sum {
    fn add(&mut self, account: &Account) {
        self.seeds += 1;
        self.events += account.events;
        self.virtual_time += account.virtual_time;
        self.opens += account.opens;
        self.lived += u64::from(account.relays_lived);
        for (most, took) in self.recovery.iter_mut().zip(account.recovery) {
            *most = (*most).max(took);
        }
        self.most = (self.most.0.max(account.most.0), self.most.1.max(account.most.1));
    }
}

/// Runs all seeds of a range on every core; Some: the first that broke a rule.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn many(range: Range<u64>) -> Option<u64> {
    let (first, count) = (range.start, range.end - range.start);
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let (sum, broken) = (Mutex::new(Sum::default()), Mutex::new(None));
    let started = Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    match run_seed(seed) {
                        Ok(account) => sum.lock().expect("nobody panics while holding it").add(&account),
                        Err(failed) => {
                            stop.store(true, Ordering::Relaxed);
                            broken.lock().expect("nobody panics while holding it").get_or_insert((seed, failed));
                        }
                    }
                }
            });
        }
    });
    let (sum, spent) = (sum.into_inner().expect("all workers ended well"), started.elapsed());
    if let Some((seed, failed)) = broken.into_inner().expect("all workers ended well") {
        explain(seed, *failed);
        return Some(seed);
    }
    let seconds = spent.as_secs_f64();
    let each = seconds * workers as f64 / sum.seeds.max(1) as f64;
    say!(
        "sim: {count} seeds from {first} hold; {seconds:.0} s on {workers} cores, {:.1} ms a seed and core, {:.0} times real time a core; \
         {:.1} days, {:.1} M events, {:.1} M frames opened; relay paths lived in {}; calm to relayed {:.1} s, connected {:.1} s, direct {:.1} s; \
         at most {} moves a minute, {} alarms a second",
        each * 1e3,
        sum.virtual_time.as_secs_f64() / (seconds * workers as f64),
        sum.virtual_time.as_secs_f64() / 86_400.0,
        sum.events as f64 / 1e6,
        sum.opens as f64 / 1e6,
        sum.lived,
        sum.recovery[0].as_secs_f64(),
        sum.recovery[1].as_secs_f64(),
        sum.recovery[2].as_secs_f64(),
        sum.most.0,
        sum.most.1,
    );
    None
}

/// Within so long after all is well a peer should be connected, whatever was before.
const AIM: Duration = Duration::from_secs(2);

/// Runs all seeds of a range, says of each that breaks a rule which, and at the end how long recovery took.
fn survey(range: Range<u64>) -> bool {
    let mut broken = 0;
    let mut recovery: [Vec<(Duration, u64)>; 3] = Default::default();
    for seed in range {
        match run_seed(seed) {
            Ok(account) => recovery.iter_mut().zip(account.recovery).for_each(|(all, took)| all.push((took, seed))),
            Err(failed) => {
                broken += 1;
                say!("{seed}: {}", failed.violation);
            }
        }
    }
    for (what, mut all) in ["calm to relayed", "then connected", "then direct"].into_iter().zip(recovery) {
        all.sort_unstable();
        let at = |per_mille: usize| all.get((all.len() * per_mille / 1_000).min(all.len().saturating_sub(1))).copied().unwrap_or_default();
        let (half, most, nearly, last) = (at(500).0, at(990).0, at(999).0, at(1_000));
        say!(
            "{what}: half within {half:.2?}, 99 % within {most:.2?}, 99.9 % within {nearly:.2?}, all within {:.2?} (seed {})",
            last.0,
            last.1
        );
        let late: Vec<String> =
            all.iter().rev().take_while(|(took, _)| *took > AIM).map(|(took, seed)| format!("{seed}: {took:.1?}")).collect();
        say!(
            "  {} of {} took more than {AIM:?}; the slowest: {}",
            late.len(),
            all.len(),
            late.get(..late.len().min(12)).unwrap_or_default().join(", ")
        );
    }
    say!("{broken} seeds break a rule");
    broken == 0
}

/// Where a night goes on, and how much all nights have done.
fn state_file() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    target.join("sim-night")
}

/// As many seeds as fit, from where the last night stopped.
fn night(minutes: u64) -> Result<bool, String> {
    let file = state_file();
    // the seeds of the gate come first in every run of it; nights begin behind them
    let mut next = match std::fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().map_err(|_| format!("{} does not hold a number; remove it to begin anew", file.display()))?,
        Err(_) => 10_000_u64,
    };
    let began = next;
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    while Instant::now() < until {
        if many(next..next + SAVE_EVERY).is_some() {
            say!("night: stopped after {} seeds", next - began);
            return Ok(false);
        }
        next += SAVE_EVERY;
        let folder = file.parent().map(std::fs::create_dir_all).transpose();
        folder
            .and_then(|_| std::fs::write(&file, format!("{next}\n")))
            .map_err(|why| format!("{} cannot be written: {why}", file.display()))?;
    }
    say!("night: {} seeds hold, {} in all nights", next - began, next - 10_000);
    Ok(true)
}

fn soak(mesh: Mesh, count: u64) -> bool {
    let started = Instant::now();
    finish("soak", hours(mesh, count, &mut |line| say!("{line}")), started)
}

fn many_switches(count: u64) -> bool {
    let started = Instant::now();
    finish("switches", switches(count), started)
}

fn finish(what: &str, told: Result<String, String>, started: Instant) -> bool {
    let seconds = started.elapsed().as_secs_f64();
    match told {
        Ok(told) => say!("{what}: {told}; {seconds:.0} s"),
        Err(why) => {
            say!("{what} breaks a rule after {seconds:.0} s: {why}");
            return false;
        }
    }
    true
}
