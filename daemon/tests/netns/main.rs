//! Proof from outside: the real programs on real interfaces, in network namespaces of their own.
//!
//! Each test makes a small world (`world`), runs relay and peers in it (`mesh`), sends traffic of its
//! own through it (`stream`, `bulk`, `frames`) and looks at what came out. It needs root and
//! `/dev/net/tun`; without them every test is reported as ignored, with the reason.

mod alone;
mod bulk;
mod capture;
mod doors;
mod frames;
mod instruments;
mod lanes;
mod layer2;
mod life;
mod mapping;
mod mesh;
mod names;
mod nats;
mod netcheck;
mod paths;
mod portserver;
mod process;
mod relays;
mod roaming;
mod rotation;
mod router;
mod stream;
mod sys;
mod walk;
mod world;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use world::{Underlay, World};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two cores serve relay, peers, traffic and the tests themselves: one world at a time, unless asked.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let obstacle = obstacle();
    if obstacle.is_none() && !arguments.list {
        world::sweep();
    }
    let trials = RUNTIMES.iter().flat_map(|runtime| {
        let scenarios = all().into_iter().filter(|scenario| *runtime == RUNTIMES[0] || !scenario.once);
        scenarios.map(|scenario| trial(scenario, runtime, obstacle.as_deref())).collect::<Vec<_>>()
    });
    let trials = trials.collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A named story in a world of its own.
struct Scenario {
    name: &'static str,
    underlay: Underlay,
    story: fn(&World),
    /// What it shows does not depend on the runtime: once is enough.
    once: bool,
    /// A program that it needs besides those that all need.
    program: Option<&'static str>,
    /// What else it needs: gives why it cannot run here.
    needs: Option<fn() -> Option<String>>,
}

/// What drives relay and peers; the first one is the default.
const RUNTIMES: [&str; 2] = ["smol", "threads"];

fn all() -> Vec<Scenario> {
    [
        instruments::all(),
        doors::all(),
        life::all(),
        paths::all(),
        lanes::all(),
        nats::all(),
        roaming::all(),
        relays::all(),
        rotation::all(),
        alone::all(),
        mapping::all(),
        netcheck::all(),
        capture::all(),
        names::all(),
        layer2::all(),
        walk::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A scenario on hosts with IPv4 and IPv6.
const fn scenario(name: &'static str, story: fn(&World)) -> Scenario {
    Scenario { name, underlay: Underlay::Both, story, once: false, program: None, needs: None }
}

/// A scenario that runs on the default runtime alone.
const fn once(name: &'static str, story: fn(&World)) -> Scenario {
    Scenario { once: true, ..scenario(name, story) }
}

fn trial(scenario: Scenario, runtime: &'static str, obstacle: Option<&str>) -> Trial {
    let name = if runtime == RUNTIMES[0] { scenario.name.to_owned() } else { format!("{runtime}/{}", scenario.name) };
    let missing =
        scenario.program.filter(|program| !is_installed(program)).map(|program| format!("the program {program} is not installed"));
    let obstacle = obstacle.map(str::to_owned).or(missing).or_else(|| scenario.needs.and_then(|obstacle| obstacle()));
    // nextest takes an ignored run for a passed one, so there the flag has to be in the list.
    let flag = obstacle.is_some() && std::env::var_os("NEXTEST").is_some();
    let run = move || match obstacle {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => tell(&scenario, runtime).map(|()| Completion::Completed),
    };
    Trial::ignorable_test(name, run).with_ignored_flag(flag)
}

/// Runs the story, demands clean logs, and shows the logs when something was wrong.
fn tell(scenario: &Scenario, runtime: &'static str) -> Result<(), Failed> {
    let world = World::new(scenario.underlay, runtime);
    let result = catch_unwind(AssertUnwindSafe(|| (scenario.story)(&world)));
    let complaints = world.complaints();
    let failure = match result {
        Err(panic) => Some(message(&*panic)),
        Ok(()) if !complaints.is_empty() => Some(format!("the logs complain:\n{}", complaints.join("\n"))),
        Ok(()) => None,
    };
    failure.map_or(Ok(()), |failure| {
        eprintln!("==== {} on {runtime} failed; the ends of its logs ====", scenario.name);
        world.show_logs();
        Err(failure.into())
    })
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".to_owned())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).is_file())
}

/// Why the tests cannot run here, in one sentence.
fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun here".to_owned());
    }
    for (program, argument) in [("ip", "-V"), ("nft", "-v")] {
        let mut command = Command::new(program);
        command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if !command.status().is_ok_and(|status| status.success()) {
            return Some(format!("the program {program} is not installed"));
        }
    }
    let name = format!("sm{}-probe", std::process::id());
    let made = Command::new("ip").args(["netns", "add", &name]).output();
    if !made.is_ok_and(|output| output.status.success()) {
        return Some("the kernel does not let us make a network namespace".to_owned());
    }
    let _ = Command::new("ip").args(["netns", "delete", &name]).output();
    None
}
