//! Changing the machine, and changing it back.

pub mod apply;
pub mod journal;
pub mod plan;
pub mod revert;
pub mod store;
#[cfg(test)]
mod tests;

use std::io;

use serde::Serialize;
use thiserror::Error;

use crate::change::Place;
use crate::machine::cpus::CpuSet;
use crate::machine::drives::chosen;

pub use journal::{Journal, JournalError};

/// Why nothing, or not everything, could be tried.
#[derive(Debug, Error)]
pub enum TuneError {
    /// The journal, without which nothing is changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What became of one write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Written, and read back.
    Done,
    /// It was so already.
    AlreadySo,
    /// Not changed, which is in order; says why.
    Left {
        /// Why.
        why: String,
    },
    /// Not as wanted; says why, and what to do.
    Failed {
        /// Why.
        why: String,
    },
}

/// One write that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// Which knob it is of.
    pub knob: String,
    /// Which file.
    #[serde(flatten)]
    pub place: Place,
    /// What was there; empty where it could not be read.
    pub from: String,
    /// What was to be there.
    pub to: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// All that was tried.
#[derive(Debug, Default, Serialize)]
pub struct Done {
    /// In order.
    pub attempts: Vec<Attempt>,
}

impl Done {
    /// Whether nothing failed.
    pub fn is_well(&self) -> bool {
        !self.attempts.iter().any(|attempt| matches!(attempt.outcome, Outcome::Failed { .. }))
    }

    /// For people: a line for each, and how many.
    pub fn to_text(&self, verb: &str) -> String {
        let mut out = String::new();
        let (mut done, mut failed) = (0, 0);
        for Attempt { knob, place, from, to, outcome } in &self.attempts {
            out += &match outcome {
                Outcome::Done => {
                    done += 1;
                    format!("done    {knob}: {place}: {from} -> {to}\n")
                }
                Outcome::AlreadySo => format!("so      {knob}: {place}: {to} already\n"),
                Outcome::Left { why } => format!("left    {knob}: {place}: {why}\n"),
                Outcome::Failed { why } => {
                    failed += 1;
                    format!("FAILED  {knob}: {place}: {why}\n")
                }
            };
        }
        out + &format!("{done} {verb} and read back, {failed} failed\n")
    }
}

/// What a file is set to: its text, or of a list of choices the one in brackets.
pub fn setting(text: &str) -> &str {
    chosen(text.trim())
}

/// Whether two texts are the same setting of the place.
pub fn same(place: &Place, one: &str, other: &str) -> bool {
    let (one, other) = (setting(one), setting(other));
    let file = match place {
        Place::Machine { file }
        | Place::Drive { file, .. }
        | Place::Disk { file, .. }
        | Place::Nic { file, .. } => file.as_str(),
        Place::Interrupt { .. } => "",
    };
    if one == other {
        return true;
    }
    // The kernel writes masks at the width of the machine.
    if file.ends_with("_cpus") || file.ends_with("cpumask") {
        return CpuSet::from_mask(one).is_some() && CpuSet::from_mask(one) == CpuSet::from_mask(other);
    }
    let numbers = (one.parse::<u64>(), other.parse::<u64>());
    matches!(numbers, (Ok(one), Ok(other)) if one == other)
}

/// What an error of a write means, and what to do.
fn explain(error: &io::Error) -> String {
    use rustix::io::Errno;
    let hint = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => "; run as root, outside of a container",
        Some(Errno::ROFS) => "; it is read-only here, as in a container: run on the machine itself",
        Some(Errno::NOENT) => "; this kernel or driver has no such setting",
        Some(Errno::INVAL | Errno::RANGE) => "; the kernel does not take this value here",
        Some(Errno::BUSY) => "; it is in use: try again before a node runs",
        _ => "",
    };
    format!("{error}{hint}")
}
