//! Makes the deliberate faults of `tests/mutations` one by one, and shows that each is found.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use lode_tests::mutations::{self, Runner, Verdict};
use lode_tests::source;

/// Makes each deliberate fault of `tests/mutations` in a copy of the tree, runs the test that should find it, and prints
/// a table of what was caught. Fails if one was missed. The first run builds everything.
#[derive(Parser)]
#[command(name = "mutations")]
struct Args {
    /// Only faults whose names contain one of these.
    names: Vec<String>,
    /// Where the copy and its builds are kept.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Trust the tests to pass without a fault.
    #[arg(long)]
    no_baseline: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the faults cannot be tried: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool, Box<dyn std::error::Error>> {
    let root = source::root();
    let work = args.work.clone().unwrap_or_else(|| root.join("target/mutations"));
    let mut all = mutations::all(&root)?;
    let is_wanted = |name: &str| args.names.is_empty() || args.names.iter().any(|part| name.contains(part));
    all.retain(|mutation| is_wanted(&mutation.name));
    let runner = Runner::new(&root, &work)?;
    if !args.no_baseline {
        let mut tests: Vec<&str> = all.iter().map(|mutation| mutation.caught_by.as_str()).collect();
        tests.sort_unstable();
        tests.dedup();
        for test in tests {
            if let Some(line) = runner.baseline(test)? {
                return Err(format!("`cargo {test}` fails without any fault: {line}").into());
            }
        }
    }
    println!("| Fault | What is wrong | Found by | | s |\n|---|---|---|---|---|");
    let mut missed = 0;
    for mutation in &all {
        let begun = Instant::now();
        let verdict = match runner.run(mutation)? {
            Verdict::Caught(line) => format!("caught: {}", line.replace('|', "\\|")),
            Verdict::Hung => "caught: it does not end".to_owned(),
            Verdict::Missed => {
                missed += 1;
                "**missed**".to_owned()
            }
            Verdict::NotBuilt(line) => {
                missed += 1;
                format!("**not built**: {line}")
            }
        };
        let seconds = begun.elapsed().as_secs();
        let (name, what, by) = (&mutation.name, &mutation.what, &mutation.caught_by);
        println!("| {name} | {what} | `{by}` | {verdict} | {seconds} |");
        std::io::stdout().flush()?;
    }
    println!("\n{} of {} faults were caught.", all.len() - missed, all.len());
    Ok(missed == 0)
}
