//! The old values of everything that was changed, written durably before each change.
//!
//! A file of lines of JSON: the first says what it is, each other one is an [`Entry`]. Lines are only ever added, the last of a place
//! counts, and the whole file goes once everything is as it was. The last line may be torn by a crash; its change was not begun then.
//!
//! Each boot sets everything anew and notes it. So whoever opens a journal with lines that count no more writes it anew without them, in a
//! file beside it that takes its place once it is whole: a crash leaves the one or the other, and both say the same.

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
    #[error("the journal {path} cannot be read: {}; nothing was changed; where its old values are not wanted, move it away", super::explain(.error))]
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

/// An entry as it is written.
fn line(entry: &Entry) -> String {
    serde_json::to_string(entry).expect("an entry is plain data") + "\n"
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
        let mut lines = 0;
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
            lines += 1;
        }
        // What is no beginning of a header was never ours to cut.
        if whole == 0 && !HEADER.starts_with(text.trim_end()) {
            return Err(JournalError::Foreign { path });
        }
        if whole < text.len() {
            let failed = |error| JournalError::Write { path: path.clone(), error };
            store.cut(&path, whole as u64).map_err(failed)?;
        }
        if lines > journal.entries.len() {
            // Where there is no room for it the longer one does as well: what was changed can still be changed back.
            let _ = journal.compact(store);
        }
        Ok(journal)
    }

    /// Writes it anew, with the lines that count.
    fn compact(&self, store: &mut impl Store) -> io::Result<()> {
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(".new");
        let text: String = self.entries.iter().map(line).collect();
        store.write(Path::new(&fresh), &format!("{HEADER}\n{text}"))?;
        store.rename(Path::new(&fresh), &self.path)
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
        text.extend(entries.iter().map(line));
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
