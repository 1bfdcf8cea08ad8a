//! `claim`: which drive is the node's, looked for anew at every boot of an image. Drives may have other names than at the last
//! boot; on a cloud they may be empty, or others.

mod decide;
#[cfg(test)]
mod tests;

use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use lode_net::io_properties::{Kind, default_path};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::machine::Machine;
use crate::machine::drives::{Drive, DriveId};
use crate::measure::content::{LODE, data_on};
use crate::measure::write_durably;
use crate::probe::{Probe, Unread, absolute, open_drive, unread_hint};
use crate::profile::{DriveChoice, Profile};
use crate::render::udev;
use decide::{Candidate, Decision, Holds, decide};

pub use decide::Allowed;

/// Where udev puts a link to the drive.
pub const LINK: &str = "/dev/lode/drive";
/// There while the drive is one that is to be formatted.
pub const FORMAT: &str = "/run/lode/format";
/// A profile that names the drive.
pub const PROFILE: &str = "/run/lode/profile.toml";
/// What the machine is, as `inspect --json` tells it.
const MACHINE: &str = "/run/lode/machine.json";
/// What makes the link, and gives the drive to the node.
const RULES: &str = "/run/udev/rules.d/91-lode-drive.rules";
/// Which drive was taken; survives boots.
const RECORD: &str = "/var/lib/lode-tune/drive.json";
const RECORD_VERSION: u32 = 1;

/// Which drive was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    /// Its serial number, or its name under `/dev/disk/by-id`.
    id: String,
    /// Whether it was seen with a node's data.
    held_data: bool,
}

/// What is asked for.
#[derive(Debug)]
pub struct Options<'a> {
    /// Name of the profile that the drive's own extends.
    pub profile: &'a str,
    /// Which drives may be taken, as the profile has it.
    pub choice: &'a DriveChoice,
    /// What needs no person.
    pub allowed: Allowed,
}

/// Why nothing could be looked for.
#[derive(Debug, Error)]
pub enum ClaimError {
    /// A file could not be read or written.
    #[error("{path}: {error}; nothing was taken: run as root")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The record is of no use.
    #[error(
        "{path} does not say which drive was taken ({why}); nothing was taken: remove it, and the drive is looked for anew"
    )]
    Record {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Claimed {
    /// What it is known by.
    pub id: Option<String>,
    /// The kernel's name of it, in this boot.
    pub name: Option<String>,
    /// Whether it is to be formatted.
    pub format: bool,
    /// Why this one, or why none.
    pub why: String,
    /// Every drive that was looked at, and what is on it.
    pub drives: Vec<Candidate>,
}

/// Looks at all drives, takes one, and writes down which.
pub fn claim(probe: &Probe, options: &Options) -> Result<Claimed, ClaimError> {
    let machine = Machine::read(probe);
    let told = serde_json::to_string_pretty(&machine).expect("what is told is plain data");
    let record = read_record(probe)?;
    let is_ours = |drive: &&Drive| is_candidate(drive, options.choice);
    let drives: Vec<Candidate> =
        machine.drives.iter().filter(is_ours).map(|drive| candidate(probe, drive)).collect();
    let decision = decide(record.as_ref(), &drives, options.allowed);
    write(probe, MACHINE, &(told + "\n"))?;
    let (taken, format, why) = match decision {
        Decision::Take { at, format, why } => (Some(&drives[at]), format, why),
        Decision::Leave { why } => (None, false, why),
    };
    let id = taken.and_then(|drive| drive.id.clone());
    write(probe, PROFILE, &profile_of(options.profile, id.as_deref()))?;
    let rules = id.as_ref().and_then(|id| udev::of_node(&DriveId(id.clone()), LINK));
    write(probe, RULES, &rules.unwrap_or_default())?;
    if format {
        write(probe, FORMAT, "")?;
    } else {
        remove(probe, FORMAT)?;
    }
    if let (Some(drive), Some(id)) = (taken, &id) {
        let held_data = drive.holds == Holds::Lode;
        let fresh = Record { version: RECORD_VERSION, id: id.clone(), held_data };
        if record.as_ref().is_some_and(|record| record.id != fresh.id) {
            // What was measured is another drive's: this boot measures anew, as it does where there is nothing. Before the
            // record, so that a boot that is cut short goes on from here.
            let measured = default_path(Kind::BlockDevice, Path::new(LINK));
            remove(probe, &measured.to_string_lossy())?;
        }
        if record.as_ref() != Some(&fresh) {
            let text = serde_json::to_string(&fresh).expect("a record is plain data");
            write(probe, RECORD, &(text + "\n"))?;
        }
    }
    let name = taken.map(|drive| drive.name.clone());
    Ok(Claimed { id, name, format, why, drives })
}

/// The profile with the drive, which is named by what stays; one without such a name is tuned by nobody.
fn profile_of(name: &str, id: Option<&str>) -> String {
    // Whoever loads it is somewhere else.
    let base = match Profile::built_in(name) {
        Some(_) => name.to_owned(),
        None => absolute(Path::new(name)).map_or(name.to_owned(), |path| path.to_string_lossy().into_owned()),
    };
    let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let about = text(&format!("{base} with the drive of this boot"));
    let ids = id.map(text).unwrap_or_default();
    format!(
        "version = 1\nname = \"this-machine\"\nabout = {about}\nextends = {}\n[drives]\nids = [{ids}]\n",
        text(&base)
    )
}

/// Whether a drive may be the node's: those that the profile names, or else every NVMe drive. A disk with partitions or mounts is
/// somebody's already.
fn is_candidate(drive: &Drive, choice: &DriveChoice) -> bool {
    let has_id = |id: &String| drive.id.known().is_some_and(|own| own.0 == *id) || drive.by_id.contains(id);
    let named = choice.models.contains(&drive.model) || choice.ids.iter().any(has_id);
    let any = *choice == DriveChoice::default() && drive.name.starts_with("nvme");
    (named || any) && drive.in_use.is_empty()
}

/// Looks at what is on a drive.
fn candidate(probe: &Probe, drive: &Drive) -> Candidate {
    let path = probe.path(&format!("/dev/{}", drive.name));
    let look = || {
        let mut file = open_drive(&path)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        data_on(&file, bytes)
    };
    let is_read_only = probe.text_in(&drive.directory.join("ro")).as_deref() == Some("1");
    let holds = match look() {
        Ok(_) if is_read_only => Holds::Other("what can only be read: it is read-only".to_owned()),
        Ok(None) => Holds::Nothing,
        Ok(Some(what)) if what == LODE => Holds::Lode,
        Ok(Some(what)) => Holds::Other(what),
        Err(error) => Holds::Other(format!("what cannot be read ({error}{})", unread_hint(&error))),
    };
    Candidate {
        name: drive.name.clone(),
        id: drive.id.known().filter(|id| udev::of_node(id, LINK).is_some()).map(|id| id.0.clone()),
        bytes: drive.bytes.known().copied().unwrap_or(0),
        holds,
    }
}

fn read_record(probe: &Probe) -> Result<Option<Record>, ClaimError> {
    let useless = |why: String| ClaimError::Record { path: probe.path(RECORD), why };
    let text = match probe.read(RECORD) {
        Ok(text) => text,
        Err(Unread::Absent) => return Ok(None),
        Err(Unread::Refused(why)) => return Err(useless(why)),
    };
    let record: Record = serde_json::from_str(&text).map_err(|error| useless(error.to_string()))?;
    if record.version != RECORD_VERSION {
        return Err(useless(format!("version {}, not {RECORD_VERSION}", record.version)));
    }
    Ok(Some(record))
}

fn write(probe: &Probe, absolute: &str, text: &str) -> Result<(), ClaimError> {
    let path = probe.path(absolute);
    write_durably(&path, text).map_err(|error| ClaimError::File { path, error })
}

fn remove(probe: &Probe, absolute: &str) -> Result<(), ClaimError> {
    let path = probe.path(absolute);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ClaimError::File { path, error }),
        _ => Ok(()),
    }
}

impl Claimed {
    /// Whether there is one.
    pub fn is_taken(&self) -> bool {
        self.name.is_some()
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for drive in &self.drives {
            let id = drive.id.as_deref().unwrap_or("no serial number");
            out += &format!("looked at {} ({id}): {}\n", drive.name, drive.holds);
        }
        let what = match (&self.name, self.format) {
            (Some(name), true) => format!("{name} is the node's, and is to be formatted"),
            (Some(name), false) => format!("{name} is the node's"),
            (None, _) => "no drive is the node's".to_owned(),
        };
        out + &format!("{what}: {}\n", self.why)
    }
}
