//! CSV with a header row: the key is one column, the value the row as a JSON object.

use std::fs::File;
use std::path::Path;

use csv::{ErrorKind, StringRecord};
use serde_json::{Map, Value};

use super::{BadRecord, InputError, InputRecord, Position, Reader, checked, open_file, shown};

/// Reads rows; the separator is a comma.
pub struct CsvReader {
    rows: csv::Reader<File>,
    path: String,
    columns: Vec<String>,
    key_column: usize,
    row: StringRecord,
    failed: bool,
}

impl CsvReader {
    /// Opens a file at a position. The header is read in any case.
    pub fn open(path: &Path, key: Option<&str>, from: &Position) -> Result<CsvReader, InputError> {
        let mut rows = csv::ReaderBuilder::new().buffer_capacity(256 * 1024).from_reader(open_file(path)?);
        let header = rows.headers().map_err(|error| refused(path, error))?;
        let columns: Vec<String> = header.iter().map(str::to_owned).collect();
        let listed = || columns.join(", ");
        let Some(key) = key else {
            return Err(InputError::KeyColumnNeeded { path: shown(path), columns: listed() });
        };
        let Some(key_column) = columns.iter().position(|column| column == key) else {
            let column = key.to_owned();
            return Err(InputError::NoSuchColumn { path: shown(path), column, columns: listed() });
        };
        match from {
            Position::Start => {}
            Position::Line { offset, line } => {
                let mut position = csv::Position::new();
                position.set_byte(*offset).set_line(*line);
                rows.seek(position).map_err(|error| refused(path, error))?;
            }
            Position::After { .. } => return Err(InputError::BadPosition { path: shown(path) }),
        }
        let row = StringRecord::new();
        Ok(CsvReader { rows, path: shown(path), columns, key_column, row, failed: false })
    }

    fn record(&self, input_bytes: u64) -> Result<InputRecord, BadRecord> {
        let key = self.row.get(self.key_column).unwrap_or_default();
        let fields = self.columns.iter().cloned().zip(self.row.iter().map(Value::from));
        let object: Map<String, Value> = fields.collect();
        let value = serde_json::to_vec(&object).expect("a map of strings is JSON");
        checked(key.as_bytes().to_vec(), value, input_bytes)
    }
}

/// An error of the reader as ours, when it is not about one row.
fn refused(path: &Path, error: csv::Error) -> InputError {
    InputError::Io { path: shown(path), error: error.into() }
}

impl Reader for CsvReader {
    fn next(&mut self) -> Option<Result<InputRecord, InputError>> {
        if self.failed {
            return None;
        }
        let (start, line) = (self.rows.position().byte(), self.rows.position().line());
        let mut row = std::mem::take(&mut self.row);
        let read = self.rows.read_record(&mut row);
        self.row = row;
        let bad = |reason| InputError::Bad { source_name: format!("{} line {line}", self.path), reason };
        match read {
            Ok(false) => None,
            Ok(true) => {
                // A blank line before the row counts to the row; the row's own position is the better one.
                let line = self.row.position().map_or(line, csv::Position::line);
                let taken = self.rows.position().byte() - start;
                Some(self.record(taken).map_err(|reason| InputError::Bad {
                    source_name: format!("{} line {line}", self.path),
                    reason,
                }))
            }
            Err(error) => match error.kind() {
                ErrorKind::UnequalLengths { expected_len, len, .. } => Some(Err(bad(BadRecord::Csv(
                    format!("the row has {len} fields, the header {expected_len}"),
                )))),
                ErrorKind::Utf8 { err, .. } => Some(Err(bad(BadRecord::Csv(format!("not UTF-8: {err}"))))),
                _ => {
                    self.failed = true;
                    Some(Err(InputError::Io { path: self.path.clone(), error: error.into() }))
                }
            },
        }
    }

    fn position(&self) -> Position {
        Position::Line { offset: self.rows.position().byte(), line: self.rows.position().line() }
    }
}
