//! What each verb does.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Serialize;
use thiserror::Error;

use crate::checks::{self, Context};
use crate::claim::{self as claiming, ClaimError};
use crate::format_lba::{self, FormatLbaError};
use crate::image::args::Image;
use crate::image::{self as imaging, BootTestError, BuildError};
use crate::machine::Machine as Facts;
use crate::measure::{self as measuring, MeasureError};
use crate::probe::Probe;
use crate::profile::{self, Profile, ProfileError};
use crate::report::Report;
use crate::tune::journal::PATH;
use crate::tune::plan::Plan;
use crate::tune::store::{Files, make_directory};
use crate::tune::{Done, Journal, JournalError, TuneError, apply as tuning, revert as untuning};
use crate::{
    ClaimArguments, EXIT_USAGE, FormatLbaArguments, Machine, MeasureArguments, Wanted, render as rendering,
};

/// Where a node's drive is unless told otherwise.
pub const DEFAULT_DRIVE: &str = "lode-data/drive.lode";
/// Exit code where nothing could be begun.
const EXIT_FATAL: u8 = 2;
/// Exit code where a test could not be done here.
const EXIT_LEFT_OUT: u8 = 3;

/// Why a verb did not do its work.
#[derive(Debug, Error)]
pub enum CommandError {
    /// No such root.
    #[error("there is no directory {0}; give --sysroot one with proc/ and sys/ in it")]
    Sysroot(PathBuf),
    /// No such profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The journal is of no use.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The change was not begun.
    #[error(transparent)]
    Tune(#[from] TuneError),
    /// The drive was not measured.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// No drive was looked for.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The image was not made.
    #[error(transparent)]
    Image(#[from] BuildError),
    /// The image was not tried.
    #[error(transparent)]
    BootTest(#[from] BootTestError),
    /// The drive was not formatted.
    #[error(transparent)]
    FormatLba(#[from] FormatLbaError),
    /// Somebody else changes the machine.
    #[error("another lode-tune is at work (it holds {0}); wait for it")]
    Busy(PathBuf),
    /// The journal's directory.
    #[error("{path}: {error}; the old values are kept there, so nothing was changed: run as root")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A rendered file could not be written.
    #[error("{path}: {error}")]
    Output {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl CommandError {
    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            CommandError::Sysroot(_) | CommandError::Profile(_) => EXIT_USAGE,
            CommandError::Image(error) if error.is_usage() => EXIT_USAGE,
            CommandError::FormatLba(FormatLbaError::NotById(_)) => EXIT_USAGE,
            _ => EXIT_FATAL,
        }
    }
}

fn probe(machine: &Machine) -> Result<Probe, CommandError> {
    if machine.sysroot.is_dir() {
        Ok(Probe::new(&machine.sysroot))
    } else {
        Err(CommandError::Sysroot(machine.sysroot.clone()))
    }
}

/// Print, as JSON or as text. A reader that has seen enough (`| head`) is no reason to fail: the exit code still tells.
fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) {
    let out = if json {
        serde_json::to_string_pretty(value).expect("what is printed is plain data") + "\n"
    } else {
        text()
    };
    let _ = io::stdout().write_all(out.as_bytes());
}

/// What the command line calls the profile, or else which one suits the machine.
fn profile_name(probe: &Probe, wanted: &Option<String>) -> String {
    wanted.clone().unwrap_or_else(|| {
        let (name, why) = profile::choose(&Facts::read(probe));
        eprintln!("profile {name}: {why}");
        name.to_owned()
    })
}

/// Look up what is wanted, then do something with it.
fn with_context<T>(
    wanted: &Wanted,
    then: impl FnOnce(&Context) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let probe = probe(&wanted.machine)?;
    let name = profile_name(&probe, &wanted.profile);
    let profile = Profile::load(&name)?;
    let by_default = wanted.drive.is_empty() && profile.drives == profile::DriveChoice::default();
    let drives = if by_default { vec![DEFAULT_DRIVE.to_owned()] } else { wanted.drive.clone() };
    then(&Context { probe: &probe, profile: &profile, profile_name: &name, drives: &drives })
}

/// `inspect`.
pub fn inspect(machine: &Machine) -> Result<u8, CommandError> {
    let probe = probe(machine)?;
    let mut facts = Facts::read(&probe);
    facts.ask_drives(&probe);
    print(machine.json, &facts, || facts.to_text());
    Ok(0)
}

/// `check`.
pub fn check(wanted: &Wanted) -> Result<u8, CommandError> {
    with_context(wanted, |cx| {
        let report = Report::new(&cx.profile.name, checks::all(cx));
        print(wanted.machine.json, &report, || report.to_text());
        Ok(report.exit_code())
    })
}

/// `tune plan`.
pub fn plan(wanted: &Wanted) -> Result<u8, CommandError> {
    with_context(wanted, |cx| {
        let plan = Plan::make(cx);
        print(wanted.machine.json, &plan, || plan.to_text());
        Ok(0)
    })
}

/// The journal's directory, which one process at a time may have.
struct Locked {
    _directory: std::fs::File,
    journal: PathBuf,
}

fn lock(probe: &Probe) -> Result<Locked, CommandError> {
    let journal = probe.path(PATH);
    let path = journal.parent().unwrap_or(&journal).to_path_buf();
    let failed = |error| CommandError::Directory { path: path.clone(), error };
    make_directory(&path).map_err(failed)?;
    let directory = std::fs::File::open(&path).map_err(failed)?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Locked { _directory: directory, journal }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(CommandError::Busy(path)),
        Err(error) => Err(failed(error.into())),
    }
}

fn finish(json: bool, done: &Done, verb: &str) -> Result<u8, CommandError> {
    print(json, done, || done.to_text(verb));
    Ok(if done.is_well() { 0 } else { 1 })
}

/// `tune apply`.
pub fn apply(wanted: &Wanted) -> Result<u8, CommandError> {
    with_context(wanted, |cx| {
        let locked = lock(cx.probe)?;
        let mut store = Files::of(cx.probe);
        let mut journal = Journal::open(&mut store, &locked.journal)?;
        let done = tuning::apply(cx, &mut store, &mut journal)?;
        finish(wanted.machine.json, &done, "written")
    })
}

/// `tune revert`.
pub fn revert(machine: &Machine) -> Result<u8, CommandError> {
    let probe = probe(machine)?;
    let locked = lock(&probe)?;
    let mut store = Files::of(&probe);
    let journal = Journal::open(&mut store, &locked.journal)?;
    let done = untuning::revert(&probe, &mut store, journal)?;
    finish(machine.json, &done, "restored")
}

/// `tune render`.
pub fn render(wanted: &Wanted, output: Option<&Path>) -> Result<u8, CommandError> {
    with_context(wanted, |cx| {
        let files = rendering::all(cx);
        let Some(output) = output else {
            print(wanted.machine.json, &files, || {
                files.iter().map(|(path, text)| format!("#### /{path}\n{text}\n")).collect()
            });
            return Ok(0);
        };
        for (path, text) in &files {
            let path = output.join(path);
            write_file(&path, text).map_err(|error| CommandError::Output { path, error })?;
        }
        let paths: Vec<&String> = files.keys().collect();
        print(wanted.machine.json, &paths, || {
            paths.iter().map(|path| format!("{}\n", output.join(path).display())).collect()
        });
        Ok(0)
    })
}

/// `measure`.
pub fn measure(arguments: &MeasureArguments) -> Result<u8, CommandError> {
    let probe = probe(&arguments.machine)?;
    let options = measuring::Options {
        drive: &arguments.drive,
        output: arguments.output.as_deref(),
        precondition: arguments.precondition,
        destroy_data: arguments.destroy_data,
        point: arguments.point,
        area_bytes: arguments.area,
    };
    let measured = measuring::measure(&probe, &options)?;
    print(arguments.machine.json, &measured, || measured.to_text());
    Ok(0)
}

/// `claim`.
pub fn claim(arguments: &ClaimArguments) -> Result<u8, CommandError> {
    let probe = probe(&arguments.machine)?;
    let name = profile_name(&probe, &arguments.profile);
    let profile = Profile::load(&name)?;
    let allowed = claiming::Allowed { empty_drive: arguments.empty_drive, another: arguments.accept_another };
    let options = claiming::Options { profile: &name, choice: &profile.drives, allowed };
    let claimed = claiming::claim(&probe, &options)?;
    print(arguments.machine.json, &claimed, || claimed.to_text());
    Ok(if claimed.is_taken() { 0 } else { 1 })
}

/// `format-lba`.
pub fn format_lba(arguments: &FormatLbaArguments) -> Result<u8, CommandError> {
    let probe = probe(&arguments.machine)?;
    let formatted = format_lba::format_lba(&probe, &arguments.drive, arguments.block)?;
    print(arguments.machine.json, &formatted, || formatted.to_text());
    Ok(0)
}

/// `image ...`.
pub fn image(verb: &Image) -> Result<u8, CommandError> {
    match verb {
        Image::Build(options) => {
            let built = imaging::build(options)?;
            print(options.json, &built, || built.to_text());
            Ok(0)
        }
        Image::BootTest(options) => match imaging::boot_test(options) {
            Ok(tried) => {
                print(options.json, &tried, || tried.to_text());
                Ok(if tried.is_well() { 0 } else { 1 })
            }
            Err(BootTestError::LeftOut(why)) => {
                print(options.json, &serde_json::json!({ "left_out": why.to_string() }), || {
                    format!("left out: {why}\n")
                });
                Ok(EXIT_LEFT_OUT)
            }
            Err(error) => Err(error.into()),
        },
        Image::Export(options) => {
            let exported = imaging::export(options)?;
            print(options.json, &exported, || exported.to_text());
            Ok(0)
        }
    }
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, text)?;
    let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}
