//! Readers for what people have at hand: a directory, a CSV or a JSON-lines file, as a stream of records.
//!
//! Every reader streams (bounded memory, whatever the input's size), reads in one fixed order, and can start
//! again at a [`Position`] it gave out before. That is what makes a killed load resumable.

mod csv;
mod dir;
mod jsonl;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use lode_engine::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One record to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRecord {
    /// 1 to 4096 bytes.
    pub key: Vec<u8>,
    /// At most 1 MiB.
    pub value: Vec<u8>,
    /// Bytes of the input that it took, for progress.
    pub input_bytes: u64,
}

/// Where a reader stands: everything before it has been given out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// At the beginning.
    #[default]
    Start,
    /// In a file of rows or lines.
    Line {
        /// Bytes of the file before the next row.
        offset: u64,
        /// Number of the next line, from 1.
        line: u64,
    },
    /// In a directory, behind this file; the path is relative and has backslash escapes.
    After {
        /// The last file that was given out in whole.
        path: String,
    },
}

/// What kind of input it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputKind {
    /// Relative path -> contents.
    Directory,
    /// Column -> row as a JSON object.
    Csv,
    /// Field or line number -> line.
    JsonLines,
}

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct InputOptions {
    /// The file or directory.
    pub path: PathBuf,
    /// The CSV's column or the JSON's field that is the key.
    pub key: Option<String>,
    /// How to read it; by the file's name where `None`.
    pub kind: Option<InputKind>,
    /// Files and directories within a directory that are passed over; absolute, as `fs::canonicalize` has them.
    pub skip: Vec<PathBuf>,
}

/// Why an input cannot be read on.
#[derive(Debug, Error)]
pub enum InputError {
    /// The input itself cannot be opened or read.
    #[error("cannot read {path}: {error}")]
    Io {
        /// The file or directory.
        path: String,
        /// What the operating system said.
        error: io::Error,
    },
    /// The name does not tell the kind.
    #[error("cannot tell what {path} is; give --format csv or --format json-lines")]
    UnknownKind {
        /// The file.
        path: String,
    },
    /// `--format directory` for a file, or the other way round.
    #[error("{path} is {what}, and --format says otherwise")]
    KindMismatch {
        /// The file or directory.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// A CSV needs `--key`.
    #[error("{path} is a CSV: say which column is the key with --key COLUMN; it has {columns}")]
    KeyColumnNeeded {
        /// The file.
        path: String,
        /// The columns there are.
        columns: String,
    },
    /// A directory has no columns.
    #[error("{path} is a directory: its files' paths are the keys, --key does not apply")]
    KeyNotForDirectory {
        /// The directory.
        path: String,
    },
    /// `--key` names no column.
    #[error("{path} has no column {column:?}; it has {}", if columns.is_empty() { "none" } else { columns })]
    NoSuchColumn {
        /// The file.
        path: String,
        /// What `--key` said.
        column: String,
        /// The columns there are.
        columns: String,
    },
    /// One row, line or file is unusable; the reader stands behind it and can go on.
    #[error("{source_name}: {reason}")]
    Bad {
        /// The file and line, or the file.
        source_name: String,
        /// What is wrong with it.
        reason: BadRecord,
    },
    /// The position is not one of this kind of input.
    #[error("the state does not fit {path}; remove the state file to start over")]
    BadPosition {
        /// The file or directory.
        path: String,
    },
}

/// What is wrong with one row, line or file.
#[derive(Debug, Error)]
pub enum BadRecord {
    /// The key is empty.
    #[error("the key is empty")]
    EmptyKey,
    /// The key is too long.
    #[error("the key has {0} bytes, a key has at most {MAX_KEY_BYTES}")]
    LongKey(usize),
    /// The value is too long.
    #[error("the value has {0} bytes, a value has at most {MAX_VALUE_BYTES}")]
    LongValue(usize),
    /// Not a row of the CSV.
    #[error("{0}")]
    Csv(String),
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// The key's field is missing, or neither text nor number nor boolean.
    #[error("there is no text or number in field {0:?}")]
    NoKeyField(String),
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Io(io::Error),
    /// A part of a split file has the name of another file.
    #[error("its part {0:?} has the name of another file")]
    PartNameTaken(String),
}

/// A stream of records in a fixed order.
pub trait Reader: Send {
    /// The next record, `None` at the end. After [`InputError::Bad`] the reader can go on, after another error
    /// it cannot.
    fn next(&mut self) -> Option<Result<InputRecord, InputError>>;

    /// Where to start again so that every record not given out yet is given out.
    fn position(&self) -> Position;
}

/// Opens an input at a position.
pub fn open(options: &InputOptions, from: &Position) -> Result<Box<dyn Reader>, InputError> {
    let kind = kind_of(options)?;
    match kind {
        InputKind::Directory => {
            if options.key.is_some() {
                return Err(InputError::KeyNotForDirectory { path: shown(&options.path) });
            }
            Ok(Box::new(dir::DirReader::open(&options.path, &options.skip, from)?))
        }
        InputKind::Csv => Ok(Box::new(csv::CsvReader::open(&options.path, options.key.as_deref(), from)?)),
        InputKind::JsonLines => {
            Ok(Box::new(jsonl::JsonLinesReader::open(&options.path, options.key.as_deref(), from)?))
        }
    }
}

/// The kind of an input: as told, or by what is at its path.
pub fn kind_of(options: &InputOptions) -> Result<InputKind, InputError> {
    let path = &options.path;
    let meta = std::fs::metadata(path).map_err(|error| InputError::Io { path: shown(path), error })?;
    let found = if meta.is_dir() {
        Some(InputKind::Directory)
    } else {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("csv") => Some(InputKind::Csv),
            Some("jsonl" | "ndjson" | "json-lines") => Some(InputKind::JsonLines),
            _ => None,
        }
    };
    match (options.kind, meta.is_dir()) {
        (None, _) => found.ok_or_else(|| InputError::UnknownKind { path: shown(path) }),
        (Some(InputKind::Directory), false) => {
            Err(InputError::KindMismatch { path: shown(path), what: "a file" })
        }
        (Some(InputKind::Csv | InputKind::JsonLines), true) => {
            Err(InputError::KindMismatch { path: shown(path), what: "a directory" })
        }
        (Some(kind), _) => Ok(kind),
    }
}

/// Bytes of the whole input, for progress: exact for a file, a walk for a directory.
pub fn total_bytes(options: &InputOptions) -> Result<u64, InputError> {
    match kind_of(options)? {
        InputKind::Directory => Ok(dir::total_bytes(&options.path, &options.skip)),
        InputKind::Csv | InputKind::JsonLines => std::fs::metadata(&options.path)
            .map(|meta| meta.len())
            .map_err(|error| InputError::Io { path: shown(&options.path), error }),
    }
}

/// A path in messages.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn open_file(path: &Path) -> Result<File, InputError> {
    File::open(path).map_err(|error| InputError::Io { path: shown(path), error })
}

/// Holds a record against the limits.
fn checked(key: Vec<u8>, value: Vec<u8>, input_bytes: u64) -> Result<InputRecord, BadRecord> {
    match (key.len(), value.len()) {
        (0, _) => Err(BadRecord::EmptyKey),
        (len, _) if len > MAX_KEY_BYTES => Err(BadRecord::LongKey(len)),
        (_, len) if len > MAX_VALUE_BYTES => Err(BadRecord::LongValue(len)),
        _ => Ok(InputRecord { key, value, input_bytes }),
    }
}
