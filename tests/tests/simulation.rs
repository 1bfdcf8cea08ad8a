//! The simulator: what it promises of itself.
#![allow(missing_docs)]

use lode_node::slow::Stages;
use lode_tests::sim::{Faults, Plan, SLOW_REQUEST, Simpler, Verbosity, run};

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

/// What is told of slow requests says where their time went: to the drive and what waits for it where the drive is slow, and
/// elsewhere where it is not.
#[test]
fn requests_that_a_slow_drive_holds_up_are_told_to_have_waited_for_it() {
    let mut told = [0; 3];
    for seed in 1..=6 {
        let mut plan = short(seed);
        (plan.network_ns, plan.churns) = (60_000, false);
        plan.faults = Faults { slow_operations_ppm: 1_000_000, slowness: 100, ..Faults::default() };
        let slow = run(&plan, Verbosity::Digest).expect("it ends well").slow;
        for entry in slow.iter().filter(|entry| entry.status == "Ok" && entry.shard == 0) {
            let Stages { drive_us, commit_us, shard_us, send_us, .. } = entry.stages;
            assert!(entry.stages.total_us() >= SLOW_REQUEST.as_micros() as u64, "{entry:?}");
            assert!(!entry.table.is_empty() && entry.at_ms > 0, "{entry:?}");
            match entry.verb.as_str() {
                "put" => {
                    assert!(drive_us > 0 && shard_us + send_us < entry.stages.total_us() as u32, "{entry:?}");
                    told[0] += u32::from(drive_us + commit_us > shard_us + send_us);
                    told[1] += 1;
                }
                "get" => told[2] += u32::from(drive_us > 1000),
                _ => {}
            }
        }
        plan.faults = Faults::default();
        let quick = run(&plan, Verbosity::Digest).expect("it ends well").slow;
        let of_drive = quick.iter().filter(|entry| entry.stages.drive_us >= SLOW_REQUEST.as_micros() as u32);
        assert_eq!(of_drive.count(), 0, "seed {seed}: no operation of this drive takes so long");
    }
    let [mostly_waited, puts, gets] = told;
    assert!(
        puts > 20 && mostly_waited * 10 >= puts * 9,
        "{mostly_waited} of {puts} puts waited for the drive"
    );
    assert!(gets > 0, "some reads waited for the drive");
}
