//! Profiles: what a kind of machine should be set to, as TOML. Five are built in; a file may extend one of them.

mod choose;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::probe::read_bounded;

pub use choose::choose;

/// The only version of the files.
const VERSION: u64 = 1;
/// What is built in, by name.
pub const BUILT_IN: [(&str, &str); 5] = [
    ("azure-lsv3", include_str!("azure-lsv3.toml")),
    ("azure-lsv4", include_str!("azure-lsv4.toml")),
    ("azure-laosv4", include_str!("azure-laosv4.toml")),
    ("generic-nvme", include_str!("generic-nvme.toml")),
    ("dev", include_str!("dev.toml")),
];
/// Most files that extend each other.
const MOST_FILES: usize = 8;
/// The word for a knob that is looked at and left as it is.
const KEEP: &str = "keep";
/// The word for a number that is worked out from the machine.
const AUTO: &str = "auto";

/// What may be said of a knob, beside `keep`.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A number up to this.
    Number(u64),
    /// A number up to this, or `auto`.
    NumberOrAuto(u64),
    /// One of these.
    Word(&'static [&'static str]),
}

const U32: u64 = u32::MAX as u64;
const I32: u64 = i32::MAX as u64;

/// Every knob that a profile may set.
const KNOBS: [(&str, Kind); 43] = [
    ("add_random", Kind::Number(1)),
    ("aio_max_nr", Kind::Number(I32)),
    ("boost", Kind::Word(&["on", "off"])),
    ("busy_poll", Kind::Number(I32)),
    ("busy_read", Kind::Number(I32)),
    ("c_states", Kind::Number(U32)),
    ("clocksource", Kind::Word(&["fast"])),
    ("discard", Kind::Word(&["on"])),
    ("governor", Kind::Word(&["performance", "powersave", "schedutil", "ondemand", "conservative"])),
    ("housekeeping_cores", Kind::Number(64)),
    ("huge_pages", Kind::Number(U32)),
    ("io_uring", Kind::Word(&["on"])),
    ("iostats", Kind::Number(1)),
    ("isolation", Kind::Word(&["none", "cpusets", "boot"])),
    ("lba_format", Kind::Number(4096)),
    ("memlock", Kind::NumberOrAuto(u64::MAX)),
    ("min_free_kbytes", Kind::NumberOrAuto(I32)),
    ("netdev_max_backlog", Kind::Number(I32)),
    ("nic_interrupts", Kind::Word(&["spread"])),
    ("nofile", Kind::Number(1 << 30)),
    ("nomerges", Kind::Number(2)),
    ("notsent_lowat", Kind::Number(I32)),
    ("nr_requests", Kind::Number(65_535)),
    ("numa_balancing", Kind::Number(1)),
    ("poll_queues", Kind::Number(1024)),
    ("read_ahead", Kind::Number(U32)),
    ("rfs", Kind::Number(1 << 29)),
    ("rps", Kind::Word(&["auto", "off"])),
    ("rq_affinity", Kind::Number(2)),
    ("scheduler", Kind::Word(&["none", "mq-deadline", "kyber", "bfq"])),
    ("slow_start_after_idle", Kind::Number(1)),
    ("somaxconn", Kind::Number(I32)),
    ("stat_interval", Kind::Number(3600)),
    ("swappiness", Kind::Number(200)),
    ("syn_backlog", Kind::Number(I32)),
    ("timer_migration", Kind::Number(1)),
    ("transparent_huge_pages", Kind::Word(&["madvise", "never", "always"])),
    ("transparent_huge_pages_defrag", Kind::Word(&["defer+madvise", "madvise", "defer", "never", "always"])),
    ("wbt", Kind::Number(1_000_000)),
    ("workqueue_mask", Kind::Word(&["housekeeping"])),
    ("write_cache", Kind::Word(&["as_the_drive_says"])),
    ("xps", Kind::Word(&["auto"])),
    ("zone_reclaim_mode", Kind::Number(7)),
];

/// What a profile says of one knob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Looked at, and left.
    Keep,
    /// This number.
    Number(u64),
    /// Worked out from the machine.
    Auto,
    /// This word.
    Word(String),
}

/// Which drives are a node's, where the command line names none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriveChoice {
    /// By serial number, or by name under `/dev/disk/by-id`.
    pub ids: Vec<String>,
    /// By model: any of these.
    pub models: Vec<String>,
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// Which drives are a node's.
    pub drives: DriveChoice,
    wants: BTreeMap<String, Want>,
}

/// A profile's file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    version: u64,
    name: String,
    about: String,
    extends: Option<String>,
    #[serde(default)]
    drives: Option<DriveChoice>,
    #[serde(default)]
    knobs: BTreeMap<String, toml::Value>,
}

/// Why there is no such profile.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// Neither built in nor a file.
    #[error(
        "there is no profile {0:?}; built in are azure-lsv3, azure-lsv4, azure-laosv4, generic-nvme and dev; else name a .toml file"
    )]
    Unknown(String),
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Not TOML, or not of a profile's fields.
    #[error("{of}: {error}")]
    Form {
        /// Which profile.
        of: String,
        /// What is wrong, and where.
        error: Box<toml::de::Error>,
    },
    /// Of another version.
    #[error("{of}: version {found} of profiles is not known; this program knows version 1")]
    Version {
        /// Which profile.
        of: String,
        /// Its version.
        found: u64,
    },
    /// A knob that there is not.
    #[error("{of}: there is no knob {knob:?}; there are {}", knob_names())]
    Knob {
        /// Which profile.
        of: String,
        /// What it calls a knob.
        knob: String,
    },
    /// A value that the knob cannot have.
    #[error("{of}: {knob} cannot be {value}; it is {expected}")]
    Value {
        /// Which profile.
        of: String,
        /// Which knob.
        knob: String,
        /// What it says.
        value: String,
        /// What may be said.
        expected: String,
    },
    /// What it extends is neither built in nor a file.
    #[error("{of}: extends {base:?}, which is neither a built-in profile nor the absolute path of a file")]
    Base {
        /// Which profile.
        of: String,
        /// What it extends.
        base: String,
    },
    /// It extends what extends it, or too many one after the other.
    #[error(
        "{of}: more than {MOST_FILES} files extend each other, or they go round in a circle; let one extend a built-in profile"
    )]
    Round {
        /// Which profile.
        of: String,
    },
}

/// Whether a name means the same file everywhere.
fn is_file(name: &str) -> bool {
    Path::new(name).is_absolute()
}

fn knob_names() -> String {
    KNOBS.map(|(name, _)| name).join(", ")
}

impl Profile {
    /// The built-in profile of that name, or the one in that file.
    pub fn load(name: &str) -> Result<Profile, ProfileError> {
        if let Some(profile) = Profile::built_in(name) {
            return profile;
        }
        let path = Path::new(name);
        if !name.contains('/') && path.extension().is_none_or(|extension| extension != "toml") {
            return Err(ProfileError::Unknown(name.to_owned()));
        }
        Profile::load_file(name, 1)
    }

    /// The one in a file, which is so far from the first.
    fn load_file(name: &str, depth: usize) -> Result<Profile, ProfileError> {
        if depth > MOST_FILES {
            return Err(ProfileError::Round { of: name.to_owned() });
        }
        let path = Path::new(name);
        let failed = |error| ProfileError::Read { path: path.to_path_buf(), error };
        Profile::parse_at(name, &read_bounded(path).map_err(failed)?, depth)
    }

    /// The built-in profile of that name; `None` where there is none.
    pub fn built_in(name: &str) -> Option<Result<Profile, ProfileError>> {
        let (_, text) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name)?;
        Some(Profile::parse(name, text))
    }

    /// A profile from its text; `of` is what messages call it.
    pub fn parse(of: &str, text: &str) -> Result<Profile, ProfileError> {
        Profile::parse_at(of, text, 1)
    }

    fn parse_at(of: &str, text: &str, depth: usize) -> Result<Profile, ProfileError> {
        let form = |error| ProfileError::Form { of: of.to_owned(), error: Box::new(error) };
        let file: ProfileFile = toml::from_str(text).map_err(form)?;
        if file.version != VERSION {
            return Err(ProfileError::Version { of: of.to_owned(), found: file.version });
        }
        let base = match &file.extends {
            // None of the built-in ones extends one that extends it: a test loads them all.
            Some(base) => Some(match Profile::built_in(base) {
                Some(profile) => profile?,
                None if is_file(base) => Profile::load_file(base, depth + 1)?,
                None => return Err(ProfileError::Base { of: of.to_owned(), base: base.clone() }),
            }),
            None => None,
        };
        let (mut wants, base_drives) = base.map(|base| (base.wants, base.drives)).unwrap_or_default();
        for (knob, value) in &file.knobs {
            wants.insert(knob.clone(), want(of, knob, value)?);
        }
        let drives = file.drives.unwrap_or(base_drives);
        Ok(Profile { name: file.name, about: file.about, drives, wants })
    }

    /// What it says of a knob; nothing said is [`Want::Keep`].
    pub fn want(&self, knob: &str) -> &Want {
        assert!(KNOBS.iter().any(|(name, _)| *name == knob), "{knob} is not in the list of knobs");
        self.wants.get(knob).unwrap_or(&Want::Keep)
    }

    /// The number that it says; `None` to keep what is there.
    pub fn number(&self, knob: &str) -> Option<u64> {
        match self.want(knob) {
            Want::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The word that it says; `None` to keep what is there.
    pub fn word(&self, knob: &str) -> Option<&str> {
        match self.want(knob) {
            Want::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// What a value says of a knob.
fn want(of: &str, knob: &str, value: &toml::Value) -> Result<Want, ProfileError> {
    let Some((_, kind)) = KNOBS.iter().find(|(name, _)| *name == knob) else {
        return Err(ProfileError::Knob { of: of.to_owned(), knob: knob.to_owned() });
    };
    let found = match (value, kind) {
        (toml::Value::String(word), _) if word == KEEP => Some(Want::Keep),
        (toml::Value::String(word), Kind::NumberOrAuto(_)) if word == AUTO => Some(Want::Auto),
        (toml::Value::String(word), Kind::Word(words)) if words.contains(&word.as_str()) => {
            Some(Want::Word(word.clone()))
        }
        (toml::Value::Integer(number), Kind::Number(most) | Kind::NumberOrAuto(most)) => {
            u64::try_from(*number).ok().filter(|number| number <= most).map(Want::Number)
        }
        _ => None,
    };
    let expected = match kind {
        Kind::Number(most) => format!("a number from 0 to {most}, or \"keep\""),
        Kind::NumberOrAuto(most) => format!("a number from 0 to {most}, \"auto\" or \"keep\""),
        Kind::Word(words) => format!("\"{}\" or \"keep\"", words.join("\", \"")),
    };
    let wrong = || ProfileError::Value {
        of: of.to_owned(),
        knob: knob.to_owned(),
        value: value.to_string(),
        expected,
    };
    found.ok_or_else(wrong)
}
