//! The simulator's command line: one seed, or a swarm of them.

use std::process::ExitCode;

use clap::Parser;
use lode_tests::sim::{Cut, FaultSet, Kept, Plan, Simpler, Verbosity, moments, run, second_cuts};
use lode_tests::swarm::{Swarm, swarm};

/// What is shown of a failure.
const SHOWN_LINES: usize = 100;

/// Runs a whole node and its clients, one thing at a time, over a drive, a network and a clock of memory, all from a seed.
///
/// One seed: prints the last that happened, how it ended, and the digest of all that happened, which is the same each time. Many: runs each in a
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
    /// Of all that goes wrong, by number, only this does: `none`, or numbers and ranges like 3,7-9.
    #[arg(long)]
    only: Option<FaultSet>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
    /// Cut the power at every moment of a small run of this seed, with every part of what is not durable lost, and again in the life
    /// that follows.
    #[arg(long, conflicts_with_all = ["less", "only", "trace", "seeds"])]
    cuts: bool,
    /// How many seeds a swarm runs.
    #[arg(long, conflicts_with_all = ["seed", "less", "only", "trace"])]
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
    let plan = Plan { only: args.only, ..plan };
    let verbosity = if args.trace { Verbosity::Print } else { Verbosity::Digest };
    match run(&plan, verbosity) {
        Ok(outcome) => {
            outcome.end.iter().for_each(|note| println!("{note}"));
            println!("seed {seed}: {outcome}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("seed {seed}: FAILED after {}", failure.outcome);
            let lines = failure.wrong.iter().flat_map(|wrong| wrong.lines());
            lines.take(SHOWN_LINES).for_each(|line| println!("{line}"));
            failure.outcome.end.iter().for_each(|note| println!("{note}"));
            println!("{plan:#?}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a small plan of a seed once whole, then once for every moment and every part that may be lost; and for every moment, with
/// one such part, for some moments of the life that follows.
fn cuts(seed: u64) -> ExitCode {
    if let Err(failure) = run(&Plan::small(seed), Verbosity::Digest) {
        println!("seed {seed}: FAILED without a cut: {:?}", failure.wrong);
        return ExitCode::FAILURE;
    }
    let moments = moments(&Plan::small(seed));
    let (mut first, mut second) = (Tried::default(), Tried::default());
    for (at, writes) in (1..).zip(&moments) {
        let ways = Kept::of(*writes);
        for kept in &ways {
            first.cut(&Plan { cut: Some(Cut { at, kept: *kept }), ..Plan::small(seed) });
        }
        let cut = Some(Cut { at, kept: ways[at as usize % ways.len()] });
        second_cuts(&Plan { cut, ..Plan::small(seed) }).iter().for_each(|plan| second.cut(plan));
    }
    let (Tried { runs, failed }, Tried { runs: again, failed: failed_again }) = (first, second);
    println!(
        "seed {seed}: {} moments, {runs} cuts, {failed} failed; {again} second cuts, {failed_again} failed",
        moments.len()
    );
    if failed + failed_again == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs with cuts.
#[derive(Default)]
struct Tried {
    runs: u64,
    failed: u64,
}

impl Tried {
    fn cut(&mut self, plan: &Plan) {
        self.runs += 1;
        let Err(failure) = run(plan, Verbosity::Digest) else { return };
        self.failed += 1;
        println!("seed {}, {:?}, {:?}: FAILED", plan.seed, plan.cut, plan.second_cut);
        let lines = failure.wrong.iter().flat_map(|wrong| wrong.lines());
        lines.take(SHOWN_LINES).for_each(|line| println!("{line}"));
    }
}
