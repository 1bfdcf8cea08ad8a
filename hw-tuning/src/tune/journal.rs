//! The old values of everything that was changed, written durably before each change.
//!
//! A file of lines of JSON: the first says what it is, each other one is an [`Entry`]. Lines are only ever added, and the
//! whole file goes once everything is as it was. The last line may be torn by a crash; its change was not begun then.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::store::Store;
use crate::change::Place;

/// Where it is, below the root.
pub const PATH: &str = "/var/lib/lode-tune/journal";
/// The first line.
const HEADER: &str = "{\"lode_tune_journal\":1}";

/// One file that was, or may have been, changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Of which knob.
    pub knob: String,
    /// Which file.
    pub place: Place,
    /// What was there before the first change.
    pub old: String,
    /// What was written last; nothing where the kernel moved it with something else.
    pub wrote: Option<String>,
    /// The boot in which it was written; settings of the kernel's do not live longer.
    pub boot: Option<String>,
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// One for each place, in the order of their first change.
    entries: Vec<Entry>,
    has_header: bool,
}

/// Why the journal is of no use; nothing is changed then.
#[derive(Debug, Error)]
pub enum JournalError {
    /// It cannot be read.
    #[error("the journal {path} cannot be read: {error}; nothing was changed")]
    Read {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It cannot be written.
    #[error("the journal {path} cannot be written: {}; what it does not hold was not changed", super::explain(.error))]
    Write {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is another program's, or another version's.
    #[error("{path} is not a journal of this version of lode-tune; nothing was changed: move it away")]
    Foreign {
        /// Where it is.
        path: PathBuf,
    },
    /// A line that is not the last is damaged.
    #[error(
        "line {line} of the journal {path} is damaged: {error}; nothing was changed: mend the line, or take it out and set its file by hand"
    )]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        error: serde_json::Error,
    },
}

impl Journal {
    /// What is there; a torn last line is cut off.
    pub fn open(store: &mut impl Store, path: &Path) -> Result<Journal, JournalError> {
        let path = path.to_path_buf();
        let mut journal = Journal { path: path.clone(), entries: Vec::new(), has_header: false };
        let text = match store.read_lines(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(journal),
            Err(error) => return Err(JournalError::Read { path, error }),
        };
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        for (at, line) in text[..whole].lines().enumerate() {
            if at == 0 {
                if line != HEADER {
                    return Err(JournalError::Foreign { path });
                }
                journal.has_header = true;
                continue;
            }
            let damaged = |error| JournalError::Damaged { path: path.clone(), line: at + 1, error };
            journal.put(serde_json::from_str(line).map_err(damaged)?);
        }
        // What is no beginning of a header was never ours to cut.
        if whole == 0 && !HEADER.starts_with(text.trim_end()) {
            return Err(JournalError::Foreign { path });
        }
        if whole < text.len() {
            let failed = |error| JournalError::Write { path: path.clone(), error };
            store.cut(&path, whole as u64).map_err(failed)?;
        }
        Ok(journal)
    }

    /// What is noted of a place.
    pub fn of(&self, place: &Place) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.place == *place)
    }

    /// All that is noted, in the order of the first changes.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Note these, durably, all before any of their changes. A place that is noted already keeps its turn.
    pub fn note(&mut self, store: &mut impl Store, entries: Vec<Entry>) -> Result<(), JournalError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        if !self.has_header {
            text += HEADER;
            text.push('\n');
        }
        for entry in &entries {
            text += &serde_json::to_string(entry).expect("an entry is plain data");
            text.push('\n');
        }
        let failed = |error| JournalError::Write { path: self.path.clone(), error };
        store.append(&self.path, &text).map_err(failed)?;
        self.has_header = true;
        entries.into_iter().for_each(|entry| self.put(entry));
        Ok(())
    }

    /// Everything is as it was.
    pub fn close(self, store: &mut impl Store) -> Result<(), JournalError> {
        match store.remove(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::Write { path: self.path, error })
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|known| known.place == entry.place) {
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
    }
}
