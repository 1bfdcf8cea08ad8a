//! Many seeds, each in a process of its own: a run that panics or hangs ends none but itself.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::sim::{FaultSet, Simpler, shrink};

/// How long one run may take before it counts as failed.
const RUN_PATIENCE: Duration = Duration::from_secs(300);
/// How often running processes are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Times that a failing run is halved at most.
const MAX_HALVINGS: usize = 10;
/// What is shown of a failure.
const SHOWN_LINES: usize = 60;

/// Which seeds, and how.
pub struct Swarm {
    /// The first.
    pub start: u64,
    /// How many.
    pub count: u64,
    /// How many at once.
    pub jobs: usize,
    /// After so many minutes none is begun.
    pub minutes: Option<u64>,
    /// After one has failed none is begun, and what it needs is not looked for.
    pub until_failure: bool,
}

/// One run in a process of its own.
struct Run {
    seed: u64,
    child: Child,
    begun: Instant,
}

impl Run {
    fn begin(seed: u64, less: &[Simpler], only: Option<&FaultSet>) -> io::Result<Run> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(seed.to_string());
        for how in less {
            let name = how.to_possible_value().expect("no simplification is hidden");
            command.args(["--less", name.get_name()]);
        }
        if let Some(only) = only {
            command.args(["--only", &only.to_string()]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        Ok(Run { seed, child, begun: Instant::now() })
    }

    /// What it printed, if it has ended, and whether it ended well.
    fn ended(&mut self) -> io::Result<Option<(bool, String)>> {
        let status = match self.child.try_wait()? {
            Some(status) => status,
            None if self.begun.elapsed() < RUN_PATIENCE => return Ok(None),
            None => {
                self.child.kill()?;
                self.child.wait()?;
                let said = format!("seed {}: FAILED: it did not end in {RUN_PATIENCE:?}\n", self.seed);
                return Ok(Some((false, said)));
            }
        };
        let mut said = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            stdout.read_to_string(&mut said)?;
        }
        if let Some(stderr) = &mut self.child.stderr {
            stderr.read_to_string(&mut said)?;
        }
        Ok(Some((status.success(), said)))
    }
}

/// Runs the swarm, and prints what became of it.
pub fn swarm(swarm: &Swarm) -> ExitCode {
    match run_all(swarm) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the swarm cannot run itself: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_all(swarm: &Swarm) -> io::Result<bool> {
    let begun = Instant::now();
    let is_over =
        || swarm.minutes.is_some_and(|minutes| begun.elapsed() >= Duration::from_secs(60 * minutes));
    let mut seeds = swarm.start..swarm.start.saturating_add(swarm.count);
    let mut running: Vec<Run> = Vec::new();
    let mut failed: Vec<(u64, String)> = Vec::new();
    let (mut passed, mut totals) = (0u64, BTreeMap::new());
    loop {
        while running.len() < swarm.jobs
            && !is_over()
            && (!swarm.until_failure || failed.is_empty())
            && let Some(seed) = seeds.next()
        {
            running.push(Run::begin(seed, &[], None)?);
        }
        if running.is_empty() {
            break;
        }
        let mut at = 0;
        while at < running.len() {
            let Some((is_well, said)) = running[at].ended()? else {
                at += 1;
                continue;
            };
            let seed = running.swap_remove(at).seed;
            if is_well {
                passed += 1;
                add(&mut totals, &said);
            } else {
                println!("seed {seed} failed:");
                said.lines().take(SHOWN_LINES).for_each(|line| println!("{line}"));
                failed.push((seed, kind_of(&said)));
            }
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    for (seed, kind) in failed.iter().filter(|_| !swarm.until_failure) {
        println!("seed {seed} needs no more than: sim {seed}{}", shrunk(*seed, kind)?);
    }
    let failed: Vec<u64> = failed.into_iter().map(|(seed, _)| seed).collect();
    let totals: Vec<String> = totals.iter().map(|(what, count)| format!("{count:.2} {what}")).collect();
    println!("{passed} seeds passed: {}", totals.join(", "));
    println!("{} failed: {failed:?}; {:.0} s", failed.len(), begun.elapsed().as_secs_f64());
    Ok(failed.is_empty())
}

/// Sums up the `number word` pairs behind the colon of a run's line.
fn add(totals: &mut BTreeMap<String, f64>, said: &str) {
    let line = said.lines().find(|line| line.starts_with("seed "));
    let Some((_, pairs)) = line.and_then(|line| line.split_once(": ")) else { return };
    for pair in pairs.split(", ") {
        if let Some((number, what)) = pair.split_once(' ')
            && let Ok(number) = number.parse::<f64>()
        {
            *totals.entry(what.to_owned()).or_insert(0.0) += number;
        }
    }
}

/// What kind of failure this is: the words of the line after the run's own, or of what a thread said as it panicked, without
/// numbers and names. A run that is simpler and fails otherwise shows another fault.
fn kind_of(said: &str) -> String {
    let (own, others): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.starts_with("seed "));
    let after_panic = said.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
    let first = after_panic.or_else(|| others.first().copied()).or_else(|| own.first().copied());
    let words = first.unwrap_or_default().split_whitespace();
    let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_alphabetic() || ",.:".contains(c));
    words.filter(is_word).collect::<Vec<_>>().join(" ")
}

/// What a seed needs to fail as it did, as it is given to `sim`: each simplification is tried, and kept if it does; then the
/// things that go wrong are, one by one.
fn shrunk(seed: u64, kind: &str) -> io::Result<String> {
    let mut less: Vec<Simpler> = Vec::new();
    let halvings = std::iter::repeat_n(&Simpler::HalfAsLong, MAX_HALVINGS);
    let others = Simpler::value_variants().iter().filter(|how| **how != Simpler::HalfAsLong);
    for how in halvings.chain(others) {
        less.push(*how);
        if !fails_so(seed, &less, None, kind)? {
            less.pop();
        }
    }
    let mut broken = None;
    let only = shrink(|only| {
        let fails = broken.is_none().then(|| fails_so(seed, &less, Some(only), kind));
        fails.is_some_and(|fails| fails.unwrap_or_else(|error| broken.replace(error).is_some()))
    });
    if let Some(error) = broken {
        return Err(error);
    }
    let names = less.iter().filter_map(|how| how.to_possible_value());
    let names: String = names.map(|name| format!(" --less {}", name.get_name())).collect();
    Ok(format!("{names} --only {only}"))
}

/// Whether a run fails, in the way that was seen.
fn fails_so(seed: u64, less: &[Simpler], only: Option<&FaultSet>, kind: &str) -> io::Result<bool> {
    let mut run = Run::begin(seed, less, only)?;
    loop {
        match run.ended()? {
            Some((is_well, said)) => return Ok(!is_well && kind_of(&said) == kind),
            None => std::thread::sleep(LOOK_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_line_is_summed_up() {
        let mut totals = BTreeMap::new();
        for line in [
            "  7 ns  a read ends, at 9\nseed 1: 12 operations, 0.25 virtual hours, digest 1f",
            "seed 2: 3 operations, 1 virtual hours",
        ] {
            add(&mut totals, line);
        }
        assert_eq!(totals, BTreeMap::from([("operations".into(), 15.0), ("virtual hours".into(), 1.25)]));
    }

    #[test]
    fn failures_of_one_kind_are_told_from_others() {
        let failed = |wrong: &str| {
            kind_of(&format!("seed 7: FAILED after 12 operations\n{wrong}\n  9 ns  a read ends"))
        };
        let register = failed("register p03/k0001 is not linearisable:");
        assert_eq!(register, "register is not linearisable:");
        assert_eq!(register, failed("register e01/k0017 is not linearisable:"));
        assert_ne!(register, failed("audit 17 found 900 in all accounts, and 1000 is in them"));
        let panicked =
            "\nthread 'main' panicked at engine/src/space/mod.rs:7:9:\nsegment 9 is free and pinned\n";
        assert_eq!(kind_of(panicked), "segment is free and pinned");
        assert_ne!(kind_of("seed 7: FAILED: it did not end in 300s"), register);
    }
}
