//! The simulator: what it promises of itself.
#![allow(missing_docs)]

use lode_tests::sim::{Plan, Simpler, Verbosity, run};

/// Runs that are over soon.
fn short(seed: u64) -> Plan {
    let mut plan = Plan::from_seed(seed);
    while plan.duration_ns / plan.think_ns > 400 {
        plan = plan.simplified(Simpler::HalfAsLong);
    }
    plan
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in 1..=8 {
        let digests = [(); 2].map(|()| run(&short(seed), Verbosity::Digest).map(|outcome| outcome.digest));
        let [first, second] =
            digests.map(|digest| digest.unwrap_or_else(|failure| panic!("{seed}: {:?}", failure.wrong)));
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn other_seeds_are_other_runs() {
    let digest = |seed| run(&short(seed), Verbosity::Digest).expect("it ends well").digest;
    assert_ne!(digest(1), digest(2));
}

/// A node on such a drive loses what it has acknowledged, or finds its log damaged: either is seen.
#[test]
fn a_drive_that_lies_about_what_is_durable_is_found_out() {
    let is_found_out = |seed| {
        let mut plan = short(seed);
        plan.faults.crash_interval_ns = plan.duration_ns / 8;
        plan.faults.power_losses_percent = 100;
        plan.faults.drive_lies = true;
        std::panic::catch_unwind(|| run(&plan, Verbosity::Digest)).map_or(true, |ended| ended.is_err())
    };
    assert!((1..=6).filter(|seed| is_found_out(*seed)).count() >= 4);
}
