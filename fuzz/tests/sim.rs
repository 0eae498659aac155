//! The simulator itself: any list of steps holds, a seed is a story, and a broken rule is found and shrunk.
use proptest::prelude::*;
use shadowmesh_fuzz::{
    sim::{Crypto, Deed, Direct, Mode, Options, Plan, Rule, Step, Violation, any_step, run, run_with, scenario, shrink, story, twins},
    world::Rng,
};

/// A step of any kind; in a list, proptest shrinks by taking steps out.
fn step() -> impl Strategy<Value = Step> {
    any::<u64>().prop_map(|seed| any_step(&mut Rng::new(seed)))
}

fn plan() -> impl Strategy<Value = Plan> {
    any::<u64>().prop_map(|seed| Plan::draw(seed, &mut Rng::new(seed)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(12), ..ProptestConfig::default() })]

    #[test]
    fn any_list_of_steps_holds(plan in plan(), steps in prop::collection::vec(step(), 0..16)) {
        if let Err(violation) = run(&plan, &steps) {
            prop_assert!(false, "{violation}");
        }
    }

    #[test]
    fn any_bytes_are_a_scenario(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        scenario(&bytes);
    }
}

fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_seed_gives_the_same_bytes_twice_on_either_back_end() {
    for seed in [2, 64] {
        let (plan, steps) = story(seed);
        for crypto in [Crypto::StandIn, Crypto::Real] {
            let told = || run_with(&plan, &steps, Options { crypto, ..Options::default() }).expect("holds");
            let (one, other) = (told(), told());
            assert_eq!(one, other, "seed {seed} on {crypto:?}");
            assert!(one.digest != 0 && one.opens > 0);
        }
    }
}

#[test]
fn seeds_differ_and_cover_what_plans_can_be() {
    let plans: Vec<Plan> = (0..200).map(|seed| story(seed).0).collect();
    assert!((2..=5).all(|count| plans.iter().any(|plan| plan.peer_count() == count)));
    assert!([1, 2].iter().all(|count| plans.iter().any(|plan| plan.relay_count() == *count)));
    assert!([Mode::Lossless, Mode::Reliable, Mode::Redundant, Mode::Off].iter().all(|mode| plans.iter().any(|plan| plan.mode == *mode)));
    let with_datagrams = |share| (0..1_000).filter(|seed| Direct::draw(*seed, share) != Direct::Streams).count();
    assert_eq!(with_datagrams(0), 0);
    assert!((350..450).contains(&with_datagrams(400)), "{}", with_datagrams(400));
    assert!([Direct::Both, Direct::Datagrams].iter().all(|direct| (0..100).any(|seed| Direct::draw(seed, 400) == *direct)));
    assert!(plans.iter().any(|plan| plan.layer2) && plans.iter().any(|plan| plan.close_relay));
}

#[test]
fn a_list_of_steps_with_any_step_taken_out_is_a_run() {
    let (plan, steps) = story(10);
    for at in 0..steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        run(&plan, &fewer).expect("holds");
    }
}

/// A rule that a certain pair of steps breaks: everything else must go.
#[test]
fn shrinking_leaves_what_breaks_the_rule_and_nothing_else() {
    let (plan, mut steps) = story(5);
    let culprits = [Step { wait: 9, deed: Deed::Sleep { host: 77 } }, Step { wait: 9, deed: Deed::Lie { relay: 78 } }];
    steps.insert(2, culprits[0]);
    steps.push(culprits[1]);
    let trial = |_: &Plan, steps: &[Step], _: bool| {
        let has = |deed: Deed| steps.iter().any(|step| step.deed == deed);
        let breach = shadowmesh_fuzz::sim::Breach { rule: Rule::InOrder, how: "both".into() };
        if culprits.iter().all(|culprit| has(culprit.deed)) {
            Err(Violation { breach, step: usize::MAX - 1, trace: Vec::new() })
        } else {
            Ok(())
        }
    };
    let violation = trial(&plan, &steps, false).expect_err("both are there");
    let shrunk = shrink(&plan, &steps, violation, &trial);
    let deeds: Vec<Deed> = shrunk.steps.iter().map(|step| step.deed).collect();
    assert_eq!(deeds, culprits.map(|culprit| culprit.deed));
    assert!(shrunk.steps.iter().all(|step| step.wait == 0));
    assert_eq!((shrunk.plan.peer_count(), shrunk.plan.relay_count()), (2, 1));
    let test = shrunk.as_test("both");
    assert!(test.contains("Sleep { host: 77 }") && test.contains("fn both()"), "{test}");
}

#[test]
fn a_quiet_story_is_alike_in_switch_lossless_and_off() {
    for seed in [1, 17, 33] {
        let (plan, steps) = story(seed);
        twins(&plan, &steps, false).expect("alike");
    }
}
