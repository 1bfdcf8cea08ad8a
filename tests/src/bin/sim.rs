//! The simulator's command line: one seed, or a swarm of them.

use std::process::ExitCode;

use clap::Parser;
use lode_tests::sim::{Plan, Simpler, Verbosity, run};
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
