//! What is done to files, in steps that a test can stop at.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::probe::{read_bounded, read_bounded_bytes};

/// The files of a machine.
pub trait Store {
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// The text of a file whose last line may be torn, within a character too.
    fn read_lines(&self, path: &Path) -> io::Result<String> {
        self.read(path)
    }
    /// Give a setting to a file that exists.
    fn set(&mut self, path: &Path, value: &str) -> io::Result<()>;
    /// Add to a file, which is made if it is not there; on return it survives a loss of power.
    fn append(&mut self, path: &Path, text: &str) -> io::Result<()>;
    /// Shorten a file, durably.
    fn cut(&mut self, path: &Path, bytes: u64) -> io::Result<()>;
    /// Remove a file, durably.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

/// The real ones.
#[derive(Debug, Default)]
pub struct Files;

impl Store for Files {
    fn read(&self, path: &Path) -> io::Result<String> {
        read_bounded(path)
    }

    fn read_lines(&self, path: &Path) -> io::Result<String> {
        let mut lines = read_bounded_bytes(path)?;
        let torn = lines.split_off(lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
        let lines =
            String::from_utf8(lines).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(lines + &String::from_utf8_lossy(&torn))
    }

    fn set(&mut self, path: &Path, value: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
        // One write: each write to a file of the kernel's is a setting of its own.
        let line = format!("{value}\n");
        let written = file.write(line.as_bytes())?;
        if written == line.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
    }

    fn append(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let is_new = !path.exists();
        if let Some(directory) = path.parent().filter(|_| is_new) {
            make_directory(directory)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if is_new { sync_directory(path) } else { Ok(()) }
    }

    fn cut(&mut self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        sync_directory(path)
    }
}

/// Make a directory and those above it, each durably in the one above.
pub fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_directory(above)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_directory(path)
}

/// Make a name in a directory durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_torn_within_a_character_is_no_reason_to_read_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        fs::write(&path, b"whole \xc3\xa9\ntorn \xc3").unwrap();
        assert_eq!(Files.read_lines(&path).unwrap(), "whole \u{e9}\ntorn \u{fffd}");
        assert!(Files.read(&path).is_err(), "a setting is read as it is");
        fs::write(&path, b"damaged \xc3\ntorn").unwrap();
        assert!(Files.read_lines(&path).is_err(), "what is not torn is damaged");
    }
}
