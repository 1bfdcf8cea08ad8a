//! The small file that remembers how far a load is, so that a killed one goes on where it was.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use lode_node::input::{InputOptions, Position, shown};

/// Appended to the input's name.
const SUFFIX: &str = ".lode-load";

/// What a load is of; if any of this has changed, it starts from the beginning, which is always safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadIdentity {
    /// The input, absolute.
    pub input: String,
    /// Its size and time of change, where it is a file.
    pub file: Option<(u64, u64)>,
    /// The key column or field.
    pub key: Option<String>,
    /// The node's address.
    pub node: String,
    /// The table's name.
    pub table: String,
    /// The table's id: a table made anew under the old name is empty.
    pub table_id: u32,
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadState {
    /// What the load is of.
    pub load: LoadIdentity,
    /// Everything before it is stored.
    pub position: Position,
    /// Records stored.
    pub records: u64,
    /// Bytes of keys and values stored.
    pub bytes: u64,
    /// Bytes of the input done.
    pub input_bytes: u64,
    /// Records left out.
    pub skipped: u64,
}

/// Why progress cannot be kept.
#[derive(Debug, Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("cannot read the load's state {path}: {error}")]
    Read {
        /// The state file.
        path: String,
        /// What the operating system said.
        error: io::Error,
    },
    /// It cannot be written.
    #[error("cannot save the load's progress in {path}: {error}; choose another place with --state FILE")]
    Write {
        /// The state file.
        path: String,
        /// What the operating system said.
        error: io::Error,
    },
}

impl LoadIdentity {
    /// The identity of a load into a table of a node.
    pub fn of(input: &InputOptions, node: &str, table: &str, table_id: u32) -> LoadIdentity {
        let absolute = fs::canonicalize(&input.path).unwrap_or_else(|_| input.path.clone());
        let file = fs::metadata(&input.path).ok().filter(fs::Metadata::is_file).map(|meta| {
            let changed = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            (meta.len(), changed.map_or(0, |since| since.as_nanos() as u64))
        });
        LoadIdentity {
            input: shown(&absolute),
            file,
            key: input.key.clone(),
            node: node.to_owned(),
            table: table.to_owned(),
            table_id,
        }
    }
}

/// Where the state of a load is kept unless told otherwise: beside the input.
pub fn default_path(input: &Path) -> PathBuf {
    // "." and ".." have no name of their own to stand beside.
    let absolute = fs::canonicalize(input).unwrap_or_else(|_| input.to_owned());
    let mut name = absolute.file_name().map_or_else(|| OsString::from("root"), OsString::from);
    name.push(SUFFIX);
    absolute.with_file_name(name)
}

/// The state in a file; `None` where there is none, or none that can be understood.
pub fn read(path: &Path) -> Result<Option<LoadState>, StateError> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::Read { path: shown(path), error }),
    }
}

/// Replaces the state in one step: a kill leaves the old one or the new one.
pub fn write(path: &Path, state: &LoadState) -> Result<(), StateError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let bytes = serde_json::to_vec(state).expect("plain data is JSON");
    fs::write(&aside, bytes)
        .and_then(|()| fs::rename(&aside, path))
        .map_err(|error| StateError::Write { path: shown(path), error })
}

/// The load is complete.
pub fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StateError::Write { path: shown(path), error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_and_another_load_is_told_apart() {
        let dir = std::env::temp_dir().join(format!("lode-state-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let input = dir.join("rows.csv");
        fs::write(&input, "id\n1\n").unwrap();
        let options =
            InputOptions { path: input.clone(), key: Some("id".into()), kind: None, skip: Vec::new() };
        let path = default_path(&input);
        assert_eq!(path.file_name().unwrap(), "rows.csv.lode-load");
        assert_eq!(read(&path).unwrap(), None);
        let load = LoadIdentity::of(&options, "127.0.0.1:1", "t", 3);
        let position = Position::Line { offset: 3, line: 2 };
        let state =
            LoadState { load: load.clone(), position, records: 1, bytes: 9, input_bytes: 3, skipped: 0 };
        write(&path, &state).unwrap();
        assert_eq!(read(&path).unwrap(), Some(state));
        assert_ne!(LoadIdentity::of(&options, "127.0.0.1:1", "t", 4), load);
        fs::write(&input, "id\n1\n2\n").unwrap();
        assert_ne!(LoadIdentity::of(&options, "127.0.0.1:1", "t", 3), load);
        fs::write(&path, "{half").unwrap();
        assert_eq!(read(&path).unwrap(), None);
        remove(&path).unwrap();
        remove(&path).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
