//! The simulator's command line: one seed, or a swarm of them.

use std::process::ExitCode;

use clap::Parser;
use lode_tests::sim::{Cut, Kept, Plan, Simpler, Verbosity, run};
use lode_tests::swarm::{Swarm, swarm};

/// What is shown of a failure.
const SHOWN_LINES: usize = 100;

/// Runs a whole node and its clients in one thread, over a drive, a network and a clock of memory, all from a seed.
///
/// One seed: prints how it ended, and the digest of all that happened, which is the same each time. Many: runs each in a
/// process of its own, as many at once as there are cores, prints those that failed, and what each failure needs.
#[derive(Parser)]
#[command(name = "sim")]
struct Args {
    /// The seed of one run.
    #[arg(required_unless_present = "seeds")]
    seed: Option<u64>,
    /// Make the run simpler; may be given several times.
    #[arg(long, value_enum)]
    less: Vec<Simpler>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
    /// Cut the power at every moment of a small run of this seed, with every part of what is not durable lost.
    #[arg(long, conflicts_with_all = ["less", "trace", "seeds"])]
    cuts: bool,
    /// How many seeds a swarm runs.
    #[arg(long, conflicts_with_all = ["seed", "less", "trace"])]
    seeds: Option<u64>,
    /// The swarm's first seed.
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    start: u64,
    /// A swarm begins no further seeds after so many minutes.
    #[arg(long, conflicts_with = "seed")]
    minutes: Option<u64>,
    /// Runs at once; one per core by default.
    #[arg(long, conflicts_with = "seed")]
    jobs: Option<usize>,
    /// A swarm ends with the first failure, and does not look for what that needs.
    #[arg(long, conflicts_with = "seed")]
    until_failure: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (Some(seed), None) = (args.seed, args.seeds) else {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (count, jobs) = (args.seeds.unwrap_or(1), args.jobs.unwrap_or(cores).max(1));
        let Args { start, minutes, until_failure, .. } = args;
        return swarm(&Swarm { start, count, jobs, minutes, until_failure });
    };
    if args.cuts {
        return cuts(seed);
    }
    let plan = args.less.into_iter().fold(Plan::from_seed(seed), Plan::simplified);
    let verbosity = if args.trace { Verbosity::Print } else { Verbosity::Digest };
    match run(&plan, verbosity) {
        Ok(outcome) => {
            println!("seed {seed}: {outcome}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("seed {seed}: FAILED after {}", failure.outcome);
            println!("{plan:#?}");
            let lines = failure.wrong.iter().flat_map(|wrong| wrong.lines());
            lines.take(SHOWN_LINES).for_each(|line| println!("{line}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs a small plan of a seed once whole, then once for every moment and every part that may be lost.
fn cuts(seed: u64) -> ExitCode {
    let whole = match run(&Plan::small(seed), Verbosity::Digest) {
        Ok(whole) => whole,
        Err(failure) => {
            println!("seed {seed}: FAILED without a cut: {:?}", failure.wrong);
            return ExitCode::FAILURE;
        }
    };
    let (mut runs, mut failed) = (0, 0);
    for at in 1..=whole.drive_events {
        for kept in Kept::ALL {
            let cut = Cut { at, kept };
            runs += 1;
            if let Err(failure) = run(&Plan { cut: Some(cut), ..Plan::small(seed) }, Verbosity::Digest) {
                failed += 1;
                println!("seed {seed}, {cut:?}: FAILED");
                failure
                    .wrong
                    .iter()
                    .flat_map(|wrong| wrong.lines())
                    .take(SHOWN_LINES)
                    .for_each(|line| println!("{line}"));
            }
        }
    }
    println!("seed {seed}: {} moments, {runs} cuts, {failed} failed", whole.drive_events);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
