//! JSON lines: the value is the line as it stands, the key one of its fields or its line number.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use lode_engine::limits::MAX_VALUE_BYTES;
use serde_json::Value;

use super::{BadRecord, InputError, InputRecord, Position, Reader, checked, open_file, shown};

/// Digits of a line number used as a key, so that keys sort as the lines do.
const LINE_NUMBER_DIGITS: usize = 12;

/// Reads one JSON value per line; empty lines are passed over.
pub struct JsonLinesReader {
    lines: BufReader<File>,
    path: String,
    key_field: Option<String>,
    offset: u64,
    next_line: u64,
    failed: bool,
}

impl JsonLinesReader {
    /// Opens a file at a position.
    pub fn open(
        path: &Path,
        key_field: Option<&str>,
        from: &Position,
    ) -> Result<JsonLinesReader, InputError> {
        let mut file = open_file(path)?;
        let (offset, next_line) = match from {
            Position::Start => (0, 1),
            Position::Line { offset, line } => (*offset, *line),
            Position::After { .. } => return Err(InputError::BadPosition { path: shown(path) }),
        };
        file.seek(SeekFrom::Start(offset)).map_err(|error| InputError::Io { path: shown(path), error })?;
        Ok(JsonLinesReader {
            lines: BufReader::with_capacity(256 * 1024, file),
            path: shown(path),
            key_field: key_field.map(str::to_owned),
            offset,
            next_line,
            failed: false,
        })
    }

    /// One line without its end, and how many bytes of the file it took. Of a line over the limit only the
    /// length is kept, so that no input can take the memory.
    fn read_line(&mut self) -> io::Result<(Vec<u8>, usize)> {
        let mut line = Vec::new();
        let bound = MAX_VALUE_BYTES as u64 + 3;
        let mut taken = (&mut self.lines).take(bound).read_until(b'\n', &mut line)?;
        if taken as u64 == bound && line.last() != Some(&b'\n') {
            taken += self.lines.skip_until(b'\n')?;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        Ok((line, taken))
    }

    fn record(&self, line: Vec<u8>, taken: usize, number: u64) -> Result<InputRecord, BadRecord> {
        if line.len() > MAX_VALUE_BYTES {
            return Err(BadRecord::LongValue(taken - 1));
        }
        let value: Value =
            serde_json::from_slice(&line).map_err(|error| BadRecord::Json(in_its_line(&error)))?;
        let key = match &self.key_field {
            None => format!("{number:0LINE_NUMBER_DIGITS$}"),
            Some(field) => match value.get(field) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                Some(Value::Bool(truth)) => truth.to_string(),
                _ => return Err(BadRecord::NoKeyField(field.clone())),
            },
        };
        checked(key.into_bytes(), line, taken as u64)
    }
}

/// The parser counts the lines of what it was given, and that is always one.
fn in_its_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

impl Reader for JsonLinesReader {
    fn next(&mut self) -> Option<Result<InputRecord, InputError>> {
        while !self.failed {
            let (line, taken) = match self.read_line() {
                Ok((_, 0)) => return None,
                Ok(read) => read,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(InputError::Io { path: self.path.clone(), error }));
                }
            };
            let number = self.next_line;
            self.next_line += 1;
            self.offset += taken as u64;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return Some(self.record(line, taken, number).map_err(|reason| InputError::Bad {
                source_name: format!("{} line {number}", self.path),
                reason,
            }));
        }
        None
    }

    fn position(&self) -> Position {
        Position::Line { offset: self.offset, line: self.next_line }
    }
}
