//! Counts the instructions of hot paths under callgrind, and holds them against what is written in `tests/counts/counts.txt`:
//! `just counts`. Counts are stable where times are not.
//!
//! A path is walked so many times and then so many more, in processes of their own; what the second takes more is the
//! path's, and making it ready cancels out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;

#[path = "../../../engine/benches/paths/mod.rs"]
mod engine_paths;
mod mailbox;
#[path = "../../../net/benches/paths/mod.rs"]
mod net_paths;

/// Where the counts are that hold.
const BASELINE: &str = "tests/counts/counts.txt";
/// How often a path is walked, less and more.
const TIMES: (u64, u64) = (500, 2500);
/// A path may take so much more than the baseline, in percent.
const MOST_PERCENT: f64 = 5.0;
/// A path takes more than it may.
const EXIT_REGRESSION: u8 = 1;
/// Nothing could be counted.
const EXIT_FAILED: u8 = 3;
/// The C library picks its copies by the processor: none that only some have.
const TUNABLES: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX2_Usable,-AVX,-ERMS,-FSRM,-RTM,-SSSE3";

/// Instructions of hot paths, held against those that are written down.
#[derive(Debug, Parser)]
struct Arguments {
    /// Write down what is counted now as what holds from here on.
    #[arg(long)]
    update: bool,
    /// Only walk this path, so many times: what callgrind counts.
    #[arg(long, hide = true, requires = "times")]
    walk: Option<String>,
    /// How often.
    #[arg(long, hide = true)]
    times: Option<u64>,
}

/// What makes a path ready to be walked.
type Ready = fn() -> Box<dyn FnMut()>;

fn paths() -> Vec<(&'static str, Ready)> {
    let rooms: [&[(&'static str, Ready)]; 3] = [engine_paths::PATHS, net_paths::PATHS, mailbox::PATHS];
    rooms.concat()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(name), Some(times)) = (&arguments.walk, arguments.times) {
        let ready = paths().into_iter().find(|(path, _)| path == name).expect("the path is known").1;
        let mut path = ready();
        (0..times).for_each(|_| path());
        return ExitCode::SUCCESS;
    }
    match check(arguments.update) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_REGRESSION),
        Err(error) => {
            eprintln!("counts: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Counts every path; whether all hold.
fn check(updates: bool) -> Result<bool, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(BASELINE);
    let mut counted = BTreeMap::new();
    for (name, _) in paths() {
        counted.insert(name, count(name)?);
    }
    let compiler = compiler()?;
    if updates {
        std::fs::write(&file, written(&compiler, &counted)).map_err(|error| told(&file, &error))?;
    }
    let baseline = std::fs::read_to_string(&file).map_err(|error| told(&file, &error))?;
    let (text, holds) = compared(&baseline, &counted);
    print!("{text}");
    if !baseline.contains(&compiler) {
        // What another compiler makes of the same code says nothing about a change of it.
        println!(
            "the counts in {BASELINE} are of another compiler, and nothing is held against them; this is {compiler}"
        );
        return Ok(true);
    }
    if !holds {
        println!(
            "`just counts --update` writes these down, where what they buy is worth it: say so in the commit"
        );
    }
    Ok(holds)
}

fn told(file: &Path, error: &dyn std::error::Error) -> String {
    format!("{}: {error}; `just counts --update` makes it", file.display())
}

/// Instructions of a path.
fn count(name: &str) -> Result<f64, String> {
    let (less, more) = TIMES;
    let (first, second) = (instructions(name, less)?, instructions(name, more)?);
    let extra =
        second.checked_sub(first).ok_or_else(|| format!("{name} took less when it was walked more"))?;
    Ok(extra as f64 / (more - less) as f64)
}

fn instructions(name: &str, times: u64) -> Result<u64, String> {
    let program: PathBuf = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    command.args(["--walk", name, "--times", &times.to_string()]).env("GLIBC_TUNABLES", TUNABLES);
    let output = command.output().map_err(|error| format!("valgrind: {error}; apt-get install valgrind"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let total = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    total.filter(|_| output.status.success()).ok_or_else(|| format!("{name}: callgrind failed: {said}"))
}

fn compiler() -> Result<String, String> {
    let output =
        Command::new("rustc").arg("--version").output().map_err(|error| format!("rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The file's content.
fn written(compiler: &str, counted: &BTreeMap<&str, f64>) -> String {
    let mut text = format!("# Instructions of hot paths. Made by `just counts --update` with {compiler}\n");
    for (name, count) in counted {
        writeln!(text, "{name} {count:.1}").expect("a string takes all");
    }
    text
}

/// The counts beside those of the file, and whether all hold.
fn compared(baseline: &str, counted: &BTreeMap<&str, f64>) -> (String, bool) {
    let before: BTreeMap<&str, f64> = baseline
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
        .collect();
    let mut text = format!("{:<28} {:>10} {:>10} {:>9}\n", "instructions", "baseline", "now", "change");
    let mut holds = true;
    for (name, now) in counted {
        let Some(then) = before.get(name) else {
            writeln!(text, "{name:<28} {:>10} {now:>10.1} NOT IN THE BASELINE", "-")
                .expect("a string takes all");
            holds = false;
            continue;
        };
        let percent = (now / then - 1.0) * 100.0;
        let verdict = match percent {
            percent if percent > MOST_PERCENT => "  REGRESSION",
            percent if percent < -MOST_PERCENT => "  better: write it down, or it may be lost unseen",
            _ => "",
        };
        holds &= percent <= MOST_PERCENT;
        writeln!(text, "{name:<28} {then:>10.1} {now:>10.1} {percent:>+7.1} %{verdict}")
            .expect("a string takes all");
    }
    for name in before.keys().filter(|name| !counted.contains_key(*name)) {
        writeln!(text, "{name:<28} is in the baseline, and there is no such path")
            .expect("a string takes all");
        holds = false;
    }
    (text, holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_five_percent_does_not_hold_and_less_does() {
        let baseline = written("a compiler", &BTreeMap::from([("one", 100.0), ("two", 200.0)]));
        for (two, holds) in [(200.0, true), (209.9, true), (210.5, false), (100.0, true)] {
            let counted = BTreeMap::from([("one", 100.0), ("two", two)]);
            assert_eq!(compared(&baseline, &counted).1, holds, "{two}");
        }
        let counted = BTreeMap::from([("one", 100.0), ("two", 211.0)]);
        assert!(compared(&baseline, &counted).0.contains("REGRESSION"));
    }

    #[test]
    fn paths_without_a_baseline_and_the_reverse_do_not_hold() {
        let baseline = written("a compiler", &BTreeMap::from([("one", 100.0)]));
        assert!(!compared(&baseline, &BTreeMap::from([("one", 100.0), ("two", 1.0)])).1);
        assert!(!compared(&baseline, &BTreeMap::new()).1);
    }

    #[test]
    fn every_path_can_be_walked() {
        for (name, ready) in paths() {
            let mut path = ready();
            (0..3).for_each(|_| path());
            assert!(paths().iter().filter(|(other, _)| *other == name).count() == 1, "{name} is there twice");
        }
    }
}
