//! `lode-tune`: what of this machine would hold a lode node back, and what changes that.

mod change;
mod checks;
mod commands;
mod knob;
mod machine;
mod probe;
mod profile;
mod render;
mod report;
#[cfg(test)]
mod tests;
mod tune;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// What of this machine would hold a lode node back, and what changes that.
#[derive(Debug, Parser)]
#[command(name = "lode-tune", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what the machine is: CPUs, memory, drives, network, kernel, cloud. Asks nothing of a drive.
    Inspect(Machine),
    /// Look at every knob; exit 0 if all is well, 1 if something costs, 2 if a node would not run.
    #[command(after_help = "Exit codes: 0 all is well, 1 something costs, 2 fatal, 64 wrong usage.")]
    Check(Wanted),
    /// Change what is short of what is wanted, and change it back.
    #[command(subcommand)]
    Tune(Tune),
}

#[derive(Debug, Subcommand)]
enum Tune {
    /// Say what `apply` would write, what needs a boot, what a unit, and what a person. Changes nothing.
    Plan(Wanted),
    /// Write, read back, and keep the old values in /var/lib/lode-tune/journal.
    #[command(
        after_help = "Exit codes: 0 all of it, 1 some was not taken, 2 nothing could be noted, 64 wrong usage."
    )]
    Apply(Wanted),
    /// Restore every old value of the journal.
    #[command(
        after_help = "Exit codes: 0 all of it, 1 some was not taken, 2 the journal is of no use, 64 wrong usage."
    )]
    Revert(Machine),
    /// Write the settings down for the next boot: sysctl.d, udev rules, kernel command line, systemd units, a script.
    Render {
        #[command(flatten)]
        wanted: Wanted,
        /// Write the files below this directory, rather than print them.
        #[arg(long, value_name = "DIRECTORY")]
        output: Option<PathBuf>,
    },
}

/// Which machine.
#[derive(Debug, Args)]
struct Machine {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The machine's files lie under this directory (for a copy of another machine's).
    #[arg(long, default_value = "/")]
    sysroot: PathBuf,
}

/// Which machine, and what is wanted of it.
#[derive(Debug, Args)]
struct Wanted {
    #[command(flatten)]
    machine: Machine,
    /// What is wanted: azure-lsv3, azure-lsv4, azure-laosv4, generic-nvme, dev, or a TOML file; the one that suits the
    /// machine by default.
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<String>,
    /// A node's drive: a file, there or not, a block device, or id: and its serial number or name in
    /// /dev/disk/by-id; may be given more than once [default: the profile's, or lode-data/drive.lode]
    #[arg(long, value_name = "DRIVE")]
    drive: Vec<String>,
}

/// Exit code of a wrong command line, apart from the codes of a finding.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are not mistakes.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let done = match &arguments.command {
        Command::Inspect(machine) => commands::inspect(machine),
        Command::Check(wanted) => commands::check(wanted),
        Command::Tune(Tune::Plan(wanted)) => commands::plan(wanted),
        Command::Tune(Tune::Apply(wanted)) => commands::apply(wanted),
        Command::Tune(Tune::Revert(machine)) => commands::revert(machine),
        Command::Tune(Tune::Render { wanted, output }) => commands::render(wanted, output.as_deref()),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
