//! `lode-bench`: what a node gives, and what of the bare device's it gives.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use lode_bench::{
    act, compare, floor, hostile, overload, partitions, report, restart, run, search, tenants, versus,
};
use serde::Serialize;

use lode_bench::options::{
    ActOptions, Arguments, Command, CompareOptions, FloorOptions, HostileOptions, OverloadOptions,
    PartitionsOptions, RestartOptions, RunOptions, SearchOptions, TenantsOptions, VersusOptions,
};
use lode_bench::report::SloReport;

/// A figure is not what it must be, or an answer was wrong.
const EXIT_UNSOUND: u8 = 1;
/// Nothing could be measured.
const EXIT_FAILED: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::of(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let result = match arguments.command {
        Command::Run(options) => run(&options),
        Command::Search(options) => search(&options),
        Command::Act(options) => act(&options),
        Command::Compare(options) => compare(&options),
        Command::Floor(options) => floor(&options),
        Command::VersusFloor(options) => versus_floor(&options),
        Command::Restart(options) => restart(&options),
        Command::Tenants(options) => tenants(&options),
        Command::Overload(options) => overload(&options),
        Command::Partitions(options) => partitions(&options),
        Command::Hostile(options) => hostile(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_UNSOUND),
        Err(error) => {
            eprintln!("lode-bench: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run(options: &RunOptions) -> Result<bool, Box<dyn Error>> {
    let measured = run::run(options)?;
    if let Some(directory) = &options.report {
        let slo = SloReport::new(options, &measured);
        report::write(directory, &slo, &measured.tally, &[])?;
        eprintln!("the report is {}", directory.join("report.html").display());
    }
    print(options.data.json, &measured.report, || measured.report.to_text());
    Ok(measured.report.is_sound())
}

fn search(options: &SearchOptions) -> Result<bool, Box<dyn Error>> {
    let search::Found { report, last } = search::search(options)?;
    if let (Some(directory), Some((run, measured))) = (&options.run.report, &last) {
        let slo = SloReport::new(run, measured);
        report::write(directory, &slo, &measured.tally, &report.probes)?;
        eprintln!("the report is {}", directory.join("report.html").display());
    }
    print(options.run.data.json, &report, || report.to_text());
    Ok(report.rate.is_some())
}

fn act(options: &ActOptions) -> Result<bool, Box<dyn Error>> {
    let act = act::act(options)?;
    if let Some(directory) = &options.report {
        report::write(directory, &act.slo(), &act.measured.tally, &[])?;
        eprintln!("the report is {}", directory.join("report.html").display());
    }
    print(options.data.json, &act.report, || act.report.to_text());
    Ok(act.report.passes)
}

fn compare(options: &CompareOptions) -> Result<bool, Box<dyn Error>> {
    let comparison = compare::compare(&options.a, &options.b)?;
    print(options.json, &comparison, || comparison.to_text());
    Ok(true)
}

fn floor(options: &FloorOptions) -> Result<bool, Box<dyn Error>> {
    let output = floor::floor(options)?;
    print(options.json, &output, || output.to_text());
    Ok(true)
}

fn versus_floor(options: &VersusOptions) -> Result<bool, Box<dyn Error>> {
    let report = versus::versus(options)?;
    print(options.data.json, &report, || report.to_text());
    Ok(report.all_hold)
}

fn restart(options: &RestartOptions) -> Result<bool, Box<dyn Error>> {
    let report = restart::restart(options)?;
    print(options.records.json, &report, || report.to_text());
    Ok(report.wrong == 0)
}

fn tenants(options: &TenantsOptions) -> Result<bool, Box<dyn Error>> {
    let report = tenants::tenants(options)?;
    print(options.load.data.json, &report, || report.to_text());
    Ok(true)
}

fn overload(options: &OverloadOptions) -> Result<bool, Box<dyn Error>> {
    let report = overload::overload(options)?;
    print(options.data.json, &report, || report.to_text());
    Ok(report.unsound == 0)
}

fn partitions(options: &PartitionsOptions) -> Result<bool, Box<dyn Error>> {
    let report = partitions::partitions(options)?;
    print(options.load.data.json, &report, || report.to_text());
    Ok(true)
}

fn hostile(options: &HostileOptions) -> Result<bool, Box<dyn Error>> {
    let report = hostile::hostile(options)?;
    print(options.load.data.json, &report, || report.to_text());
    Ok(report.all_hold)
}

/// One JSON object, or text.
fn print<T: Serialize>(json: bool, value: &T, text: impl Fn() -> String) {
    let text = if json {
        serde_json::to_string_pretty(value).expect("a report is plain data") + "\n"
    } else {
        text()
    };
    // A reader that has seen enough (`| head`) is no reason to fail.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
