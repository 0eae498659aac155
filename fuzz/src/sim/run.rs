//! One run from its plan to its verdict.
use super::{
    ledger::Ledger,
    model::{Breach, Rule},
    plan::{Direct, Plan},
    stage::Stage,
    standin::StandIn,
    step::{Deed, Step},
};
use arbitrary::{Arbitrary, Unstructured};
use shadowmesh_core::crypto::{Provider, rustcrypto::RustCrypto};
use std::{
    cell::{Cell, RefCell},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Once},
    time::Duration,
};

/// After all is well, each peer stands with a relay within so long. What is under way then ends within 10 s, dial and handshake together; the
/// back-off (protocol 7.6) is 1 s at most where none reached the relay before. Ten thousand seeds took 6.1 s at most, 99 % of them 2.1 s.
const RELAYED_WITHIN: Duration = Duration::from_secs(12);
/// From then on each peer has a session with each within so long.
const CONNECTED_WITHIN: Duration = Duration::from_secs(15);
/// And those that can be direct are so within the longest of what holds them: the retry interval and a minute of damping.
const DIRECT_WITHIN: Duration = Duration::from_secs(85);
/// A direct path that died while idle is noticed within so long (protocol 6.2: probed after 25 s); mode `off` sends into it until then.
const DEAD_PATHS_SEEN: Duration = Duration::from_secs(35);
/// What a session owed that was replaced is sent or counted within so long (protocol 3.10).
const SESSIONS_RETIRED: Duration = Duration::from_secs(11);
/// Steps of one input of the fuzzer.
const FUZZED_STEPS: usize = 12;
/// Lines of the trace that go with a violation.
const TRACE_LINES: usize = 120;

/// Which back end a run uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// The stand-in, for volume.
    StandIn,
    /// `RustCrypto`, of which every byte follows from the seed too.
    Real,
}

/// How a run is done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The back end.
    pub crypto: Crypto,
    /// Keep a readable trace.
    pub trace: bool,
    /// Whether peers want direct paths at all.
    pub direct: bool,
    /// Whether to calm everything at the end and demand that all is whole again.
    pub ending: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { crypto: Crypto::StandIn, trace: false, direct: true, ending: true }
    }
}

/// What a run was, when nothing was wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Of everything that machines ordered.
    pub digest: u64,
    /// Of the packets that came out, flow by flow in their order.
    pub output: u64,
    /// Things that happened.
    pub events: u64,
    /// Virtual time that passed.
    pub virtual_time: Duration,
    /// Seals and opens.
    pub seals: u64,
    /// See `seals`.
    pub opens: u64,
    /// Packets handed in.
    pub handed: u64,
    /// Packets that did not come out.
    pub missing: u64,
    /// From calm to everybody with a relay, from there to everybody connected, from there to everybody direct who can be.
    pub recovery: [Duration; 3],
    /// The most moves in a minute, and the most alarms of a host in a second.
    pub most: (usize, u64),
    /// Steps of plan whose relay path lived throughout.
    pub relays_lived: bool,
    /// What was printed, with `Options::trace`.
    pub trace: Vec<String>,
}

impl Account {
    /// One line.
    pub fn summary(&self) -> String {
        format!(
            "{} events in {:.1} s, {} frames sealed and {} opened, {} packets, {} of them lost and counted, digest {:016x}",
            self.events,
            self.virtual_time.as_secs_f64(),
            self.seals,
            self.opens,
            self.handed,
            self.missing,
            self.digest
        )
    }
}

/// A broken rule.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which, and how.
    pub breach: Breach,
    /// The number of the step after which it was seen; that of all steps: in the ending.
    pub step: usize,
    /// The end of the trace, with `Options::trace`.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (step {})", self.breach.rule, self.breach.how, self.step)
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps panics of runs to their violations; all others go where they went before.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                SAID.with_borrow_mut(|said| *said = info.to_string());
            } else {
                before(info);
            }
        }));
    });
}

/// Runs steps over a plan.
pub fn run(plan: &Plan, steps: &[Step]) -> Result<Account, Violation> {
    run_with(plan, steps, Options::default())
}

/// The same, in another way.
pub fn run_with(plan: &Plan, steps: &[Step], options: Options) -> Result<Account, Violation> {
    quiet_panics();
    let crypto: Arc<dyn Provider> = match options.crypto {
        Crypto::StandIn => Arc::new(StandIn),
        Crypto::Real => Arc::new(RustCrypto),
    };
    let ledger = Ledger::default();
    QUIET.set(true);
    let mut at = 0;
    let mut stage = None;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let stage = stage.insert(Stage::new(plan, &crypto, &ledger, options.direct));
        play(stage, steps, options, &mut at);
    }));
    QUIET.set(false);
    let trace = |stage: &Option<Stage<'_>>, count| stage.as_ref().map(|stage| stage.world.told(count)).unwrap_or_default();
    let breach = match ended {
        Err(_) => Some(Breach { rule: Rule::NoPanic, how: SAID.take() }),
        Ok(()) => stage.as_ref().and_then(|stage| stage.model.borrow().breach().cloned()),
    };
    if let Some(breach) = breach {
        return Err(Violation { breach, step: at, trace: trace(&stage, TRACE_LINES) });
    }
    let mut account = stage.as_mut().map(|stage| stage.account(&ledger)).unwrap_or_default();
    account.trace = trace(&stage, usize::MAX);
    Ok(account)
}

fn play(stage: &mut Stage<'_>, steps: &[Step], options: Options, at: &mut usize) {
    if options.trace {
        stage.world.listen();
    }
    for (number, step) in steps.iter().enumerate() {
        *at = number;
        stage.world.run(step.pause());
        stage.perform(step.deed);
        if stage.world.is_stopped() {
            return;
        }
    }
    *at = steps.len();
    if options.ending {
        end(stage);
    } else {
        stage.world.run(Duration::from_secs(1));
    }
}

/// All is well again: everybody must find everybody, and nothing may be missing that was not counted.
fn end(stage: &mut Stage<'_>) {
    stage.perform(Deed::Calm);
    // a way that breaks connections by itself is no calm
    stage.mend_ways();
    stage.stop_flows();
    if stage.loses_on_dead_paths() {
        stage.world.run(DEAD_PATHS_SEEN);
    }
    if !stage.can_find_each_other() {
        return;
    }
    let relayed = stage.until(RELAYED_WITHIN, Stage::all_relayed);
    stage.demand_in_time(Rule::ConnectedInTime, relayed, RELAYED_WITHIN, "each peer stands with a relay");
    // whoever is direct and has no relay learns of the other's end from the path alone
    let limit = if stage.closes_relays() { DEAD_PATHS_SEEN + CONNECTED_WITHIN } else { CONNECTED_WITHIN };
    let connected = stage.until(limit, Stage::all_connected);
    stage.demand_in_time(Rule::ConnectedInTime, connected, limit, "each peer has a session with each");
    let direct = stage.until(DIRECT_WITHIN, |stage| stage.not_direct().is_empty());
    let who = format!("these are direct: {:?}", stage.not_direct());
    stage.demand_in_time(Rule::DirectInTime, direct, DIRECT_WITHIN, &who);
    stage.recovery = [relayed, connected, direct].map(Option::unwrap_or_default);
    if stage.world.is_stopped() || stage.model.borrow().breach().is_some() {
        return;
    }
    stage.world.run(Duration::from_secs(1));
    stage.show_whole();
    stage.world.run(SESSIONS_RETIRED);
    let (missing, counted, how) = stage.balance();
    stage.model.borrow_mut().balance(missing, counted, &how);
    // a switch gives up what the relay path brings later than half a second (protocol 7.3)
    let lived = stage.relays_lived && (!stage.has_datagrams() || (stage.datagrams_lived && stage.world.overflowed() == 0));
    if lived && stage.is_ordered() && stage.dropped_by_relays() == 0 && !stage.may_be_late() {
        let lost = stage.lost_after_sealing();
        stage.model.borrow_mut().lost_on_a_living_path(lost, &how);
    }
}

/// One input of a fuzzer: any bytes are a plan and a few steps. Panics when a rule is broken.
pub fn scenario(data: &[u8]) {
    let mut source = Unstructured::new(data);
    let Ok(plan) = Plan::arbitrary(&mut source) else { return };
    let direct = if Direct::share() == 0 { Direct::Streams } else { plan.direct };
    let plan = Plan { peers: plan.peers % 2, direct, ..plan };
    let mut steps = Vec::new();
    while steps.len() < FUZZED_STEPS && !source.is_empty() {
        let Ok(step) = Step::arbitrary(&mut source) else { break };
        // hours of silence cost much and show little here
        if !matches!(step.deed, Deed::Idle { .. }) {
            steps.push(step);
        }
    }
    let options = Options { ending: false, ..Options::default() };
    if let Err(violation) = run_with(&plan, &steps, options) {
        panic!("{violation}\nlet plan = {plan:?};\nlet steps = {steps:#?};");
    }
}
