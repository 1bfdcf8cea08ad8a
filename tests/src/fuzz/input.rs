//! Files that people load, with anything in them: no reader fails over what is in a file, each row is given out or refused, and
//! from every position the same rows come.

use std::fs;
use std::path::{Path, PathBuf};

use lode_engine::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use lode_node::input::{self, InputError, InputKind, InputOptions, InputRecord, Position};

/// The file's bytes, behind one that says whether its key is named.
pub fn run_csv(bytes: &[u8]) {
    run(bytes, InputKind::Csv, "key");
}

/// The same for lines of JSON.
pub fn run_json_lines(bytes: &[u8]) {
    run(bytes, InputKind::JsonLines, "id");
}

/// A file that goes away.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn run(bytes: &[u8], kind: InputKind, key: &str) {
    let Some((choice, text)) = bytes.split_first() else { return };
    let file = Scratch(scratch_path());
    fs::write(&file.0, text).expect("there is room for a small file");
    let key = choice.is_multiple_of(2).then(|| key.to_owned());
    let options = InputOptions { path: file.0.clone(), key, kind: Some(kind), skip: Vec::new() };
    let Some(rows) = read_all(&options, &Position::Start) else { return };
    // From somewhere in the middle, what is left comes.
    let stop = usize::from(choice >> 1) % (rows.len() + 1);
    let mut reader = input::open(&options, &Position::Start).expect("it was opened before");
    for _ in 0..stop {
        reader.next();
    }
    let rest = read_all(&options, &reader.position()).expect("it was opened before");
    assert_eq!(rest, rows[stop..], "from the middle, other rows come");
}

/// In memory where there is such a directory: a fuzzer makes many.
fn scratch_path() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let thread = std::thread::current().id();
    directory.join(format!("lode-fuzz-{}-{thread:?}", std::process::id()))
}

/// Every row, or in words what is wrong with it; `None` where the file is refused as a whole.
fn read_all(options: &InputOptions, from: &Position) -> Option<Vec<Result<InputRecord, String>>> {
    let mut reader = match input::open(options, from) {
        Ok(reader) => reader,
        Err(error) => {
            assert!(!matches!(error, InputError::Bad { .. }), "{error} is of one row");
            return None;
        }
    };
    let mut rows = Vec::new();
    while let Some(row) = reader.next() {
        match row {
            Ok(record) => {
                assert!(
                    (1..=MAX_KEY_BYTES).contains(&record.key.len()),
                    "a key of {} bytes",
                    record.key.len()
                );
                assert!(record.value.len() <= MAX_VALUE_BYTES, "a value of {} bytes", record.value.len());
                rows.push(Ok(record));
            }
            Err(error @ InputError::Bad { .. }) => rows.push(Err(error.to_string())),
            Err(other) => panic!("a row ends the whole load: {other}"),
        }
    }
    Some(rows)
}
