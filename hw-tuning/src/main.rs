//! `lode-tune`: what of this machine would hold a lode node back, what changes that, and what its drives give.

mod change;
mod checks;
mod claim;
mod commands;
mod format_lba;
mod image;
mod knob;
mod machine;
mod measure;
mod probe;
mod profile;
mod render;
mod report;
#[cfg(test)]
mod tests;
mod tune;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

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
    /// Say what the machine is: CPUs, memory, drives, network, kernel, cloud. A drive is asked only where nothing uses it.
    Inspect(Machine),
    /// Look at every knob; exit 0 if all is well, 1 if something costs, 2 if a node would not run.
    #[command(after_help = "Exit codes: 0 all is well, 1 something costs, 2 fatal, 64 wrong usage.")]
    Check(Wanted),
    /// Change what is short of what is wanted, and change it back.
    #[command(subcommand)]
    Tune(Tune),
    /// Draw a drive's curves, and write them down for `lode serve` in io-properties.toml.
    ///
    /// A file, there or not, is measured without harm: in another one beside it, which is gone afterwards. A block device is
    /// written all over, so it is refused where it has partitions or data, unless --destroy-data says that these may be lost;
    /// one that is mounted or held is always refused.
    #[command(after_help = "Exit codes: 0 measured, 2 refused or failed, 64 wrong usage.")]
    Measure(MeasureArguments),
    /// Take the node's drive, as an image does at every boot: the one before, or one that holds a node's data, or an empty one.
    ///
    /// Where the one before held data and is not there, or came back empty, none is taken: a person decides, or a flag.
    ///
    /// Writes what the machine is to /run/lode/machine.json, a profile that names the drive to /run/lode/profile.toml, and a rule for
    /// udev that gives it to the node as /dev/lode/drive. Formats nothing: where the drive is to be formatted, there is
    /// /run/lode/format afterwards.
    #[command(
        after_help = "Exit codes: 0 taken, 1 there is none that may be taken, 2 failed, 64 wrong usage."
    )]
    Claim(ClaimArguments),
    /// Give an NVMe drive blocks of another size, which loses everything on it: only an empty one, named by what it is known by.
    #[command(after_help = "Exit codes: 0 it has such blocks, 2 refused or failed, 64 wrong usage.")]
    FormatLba(FormatLbaArguments),
    /// Make a bootable disk with a node, write it for a cloud, and try it.
    #[command(subcommand)]
    Image(image::args::Image),
}

#[derive(Debug, Args)]
struct FormatLbaArguments {
    #[command(flatten)]
    machine: Machine,
    /// id: and the drive's serial number or name in /dev/disk/by-id
    #[arg(long, value_name = "id:DRIVE")]
    drive: String,
    /// Bytes of a block: 512 or 4096
    #[arg(long, value_name = "BYTES", value_parser = block)]
    block: u64,
}

/// Bytes of a block that a node can write.
fn block(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|bytes| [512, 4096].contains(bytes))
        .ok_or_else(|| "it is 512 or 4096".to_owned())
}

#[derive(Debug, Args)]
struct ClaimArguments {
    #[command(flatten)]
    machine: Machine,
    /// What is wanted; its drives may be taken, or every NVMe drive where it names none
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<String>,
    /// What becomes of a drive that held a node's data and came back empty
    #[arg(long, value_enum, default_value = "refuse")]
    empty_drive: image::overlay::EmptyDrive,
    /// Where the drive that held this node's data is not there: take another that holds a node's data
    #[arg(long)]
    accept_another: bool,
}

#[derive(Debug, Args)]
struct MeasureArguments {
    #[command(flatten)]
    machine: Machine,
    /// A file, there or not, a block device, or id: and its serial number or name in /dev/disk/by-id
    #[arg(long, value_name = "DRIVE", default_value = commands::DEFAULT_DRIVE)]
    drive: String,
    /// Where to write [default: io-properties.toml beside a file, /var/lib/lode/io-properties.toml for a block device]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write all of it twice before, so that the drive is measured as one that is in use
    #[arg(long)]
    precondition: bool,
    /// All that is on the device, or in the file, may be lost; a file is then measured itself
    #[arg(long)]
    destroy_data: bool,
    /// How long each of about 70 points counts, in seconds, 0.01 to 60
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    point: Duration,
    /// Bytes to read and write, as 4GiB [default: 1GiB of a file, all of a block device]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    area: Option<u64>,
}

/// A time in seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "it is a number of seconds from 0.01 to 60".to_owned())
}

/// A longer time in seconds.
fn seconds_long(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (10..=86_400).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "it is a whole number of seconds from 10 to 86400".to_owned())
}

/// Bytes, with or without a unit.
fn size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "" | "B" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        "TiB" => Some(40),
        _ => None,
    };
    let bytes = unit.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(1 << unit));
    bytes.ok_or_else(|| "it is a whole number of bytes, or one with a unit, as 4GiB".to_owned())
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
        Command::Measure(arguments) => commands::measure(arguments),
        Command::FormatLba(arguments) => commands::format_lba(arguments),
        Command::Claim(arguments) => commands::claim(arguments),
        Command::Image(verb) => commands::image(verb),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
