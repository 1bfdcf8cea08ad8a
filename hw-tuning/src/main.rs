//! `lode-tune`: what of this machine would hold a lode node back. It looks, and changes nothing.

mod checks;
mod knob;
mod probe;
mod report;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What of this machine would hold a lode node back.
#[derive(Debug, Parser)]
#[command(name = "lode-tune", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at every knob; exit 0 if all is well, 1 if something costs, 2 if a node would not run.
    #[command(after_help = "Exit codes: 0 all is well, 1 something costs, 2 fatal, 64 wrong usage.")]
    Check {
        /// Print one JSON object with a list `knobs`.
        #[arg(long)]
        json: bool,
        /// Read the machine's files under this directory (for a copy of another machine's).
        #[arg(long, default_value = "/")]
        sysroot: PathBuf,
        /// The drive's file or block device, there or not.
        #[arg(long, default_value = "lode-data/drive.lode")]
        drive: PathBuf,
    },
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
    let Command::Check { json, sysroot, drive } = arguments.command;
    if !sysroot.is_dir() {
        eprintln!(
            "there is no directory {}; give --sysroot one with proc/ and sys/ in it",
            sysroot.display()
        );
        return ExitCode::from(EXIT_USAGE);
    }
    let report = report::Report::new(checks::all(&probe::Probe::new(sysroot), &drive));
    let text = if json {
        serde_json::to_string_pretty(&report).expect("a report is plain data") + "\n"
    } else {
        report.to_text()
    };
    // A reader that has seen enough (`| head`) is no reason to fail: the exit code still tells.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(report.exit_code())
}
