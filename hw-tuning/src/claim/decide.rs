//! The rule by which a drive is taken.

use std::cmp::Reverse;
use std::fmt;

use serde::Serialize;

use super::Record;
use crate::image::overlay::EmptyDrive;

/// What is on a drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// Only zeros at its ends.
    Nothing,
    /// A node's data.
    Lode,
    /// Something else, in words.
    Other(String),
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holds::Nothing => f.write_str("it is empty"),
            Holds::Lode => f.write_str("it holds a node's data"),
            Holds::Other(what) => write!(f, "it holds {what}"),
        }
    }
}

/// A drive that could be the node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The kernel's name.
    pub name: String,
    /// What it is known by, where udev can be told of it.
    pub id: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// What is on it.
    pub holds: Holds,
}

/// What becomes of the drives.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// The drive at this place in the list is taken.
    Take {
        /// Which.
        at: usize,
        /// Whether it is to be formatted.
        format: bool,
        /// Why.
        why: String,
    },
    /// None is.
    Leave {
        /// Why, and what to do.
        why: String,
    },
}

/// What may become of the drives without a person.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// What becomes of one that came back empty.
    pub empty_drive: EmptyDrive,
    /// Whether another with a node's data may follow the one that held this node's.
    pub another: bool,
}

const ACCEPT: &str = "attach the drive again and boot; or, if the other is to be this node's from now on: lode-tune claim --accept-another, \
                      then boot again";
const DECIDE: &str = "if what it held may be gone: lode-tune claim --empty-drive format, then boot again";

/// The drive that was taken before, as long as it holds what it held; else, where none was ever seen with data, one with a node's
/// data, or the largest empty one. Losing data silently, or serving another node's, is worse than a node that does not start.
pub fn decide(record: Option<&Record>, drives: &[Candidate], allowed: Allowed) -> Decision {
    let empty_drive = allowed.empty_drive;
    let find = |wanted: &dyn Fn(&Candidate) -> bool| {
        let known = drives.iter().enumerate().filter(|(_, drive)| drive.id.is_some() && wanted(drive));
        known.min_by_key(|(_, drive)| (Reverse(drive.bytes), drive.id.clone())).map(|(at, _)| at)
    };
    let take = |at, format, why: &str| Decision::Take { at, format, why: why.to_owned() };
    let leave = |why: String| Decision::Leave { why };
    let before = record.and_then(|record| find(&|drive| drive.id.as_ref() == Some(&record.id)));
    if let (Some(at), Some(record)) = (before, record) {
        let id = &record.id;
        match &drives[at].holds {
            Holds::Lode => return take(at, false, "it was before, and holds a node's data"),
            Holds::Nothing if !record.held_data => {
                return take(at, true, "it was chosen before, and is empty still");
            }
            Holds::Nothing if empty_drive == EmptyDrive::Format => {
                return take(
                    at,
                    true,
                    "it held a node's data and came back empty, and such are formatted here",
                );
            }
            Holds::Nothing => {
                return leave(format!("{id} held a node's data and came back empty; {DECIDE}"));
            }
            Holds::Other(what) => return leave(format!("{id} was a node's, and now holds {what}")),
        }
    }
    if let Some(at) = find(&|drive| drive.holds == Holds::Lode) {
        if let Some(record) = record.filter(|record| record.held_data && !allowed.another) {
            let other = drives[at].id.as_deref().unwrap_or(&drives[at].name);
            return leave(format!(
                "{}, which held this node's data, is not there, and {other} holds a node's data that may be another's; {ACCEPT}",
                record.id
            ));
        }
        return take(at, false, "it holds a node's data");
    }
    let Some(at) = find(&|drive| drive.holds == Holds::Nothing) else {
        return leave(if drives.is_empty() {
            "there is none that the profile names, or that nothing uses".to_owned()
        } else {
            "none is empty or holds a node's data".to_owned()
        });
    };
    match record {
        Some(record) if record.held_data && empty_drive == EmptyDrive::Refuse => {
            let id = &record.id;
            leave(format!("{id}, which held a node's data, is not there, and the others are empty; {DECIDE}"))
        }
        Some(record) if record.held_data => {
            take(at, true, "the one before is not there, and empty ones are formatted here")
        }
        _ => take(at, true, "none holds a node's data, and this is the largest that is empty"),
    }
}
