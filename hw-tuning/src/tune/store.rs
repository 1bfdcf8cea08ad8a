//! What is done to files, in steps that a test can stop at.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use rustix::io::Errno;

use crate::probe::{Probe, open_ordinary, read_bounded, read_up_to};

/// Most bytes of a file of lines: a journal that was compacted at no boot of many years is read still.
const MOST_LINES_BYTES: u64 = 256 << 20;
/// Types of the file systems whose files are the kernel's: proc, sysfs, cgroup2, debugfs, tracefs, cgroup.
const OF_KERNEL: [u64; 6] = [0x9fa0, 0x6265_6572, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0x27_e0eb];

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
    /// Make a file, or make it anew; on return its bytes survive a loss of power.
    fn write(&mut self, path: &Path, text: &str) -> io::Result<()>;
    /// Put a file in the place of another of its directory, durably.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Shorten a file, durably.
    fn cut(&mut self, path: &Path, bytes: u64) -> io::Result<()>;
    /// Remove a file, durably.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

/// The real ones.
#[derive(Debug, Default)]
pub struct Files {
    /// Whether they are those of the machine that runs, and not a copy.
    is_live: bool,
}

impl Files {
    /// The files that a probe sees.
    pub fn of(probe: &Probe) -> Files {
        Files { is_live: probe.is_live() }
    }

    /// Whether the kernel answers to what is written to a file, and tells it its own way.
    fn is_kernels(&self, file: &File) -> bool {
        let kind = rustix::fs::fstatfs(file).map(|found| found.f_type as u64 & 0xffff_ffff);
        self.is_live || kind.is_ok_and(|kind| OF_KERNEL.contains(&kind))
    }
}

impl Store for Files {
    fn read(&self, path: &Path) -> io::Result<String> {
        read_bounded(path)
    }

    fn read_lines(&self, path: &Path) -> io::Result<String> {
        let mut lines = read_up_to(path, MOST_LINES_BYTES)?;
        let torn = lines.split_off(lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
        let lines =
            String::from_utf8(lines).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(lines + &String::from_utf8_lossy(&torn))
    }

    fn set(&mut self, path: &Path, value: &str) -> io::Result<()> {
        let mut file = open_ordinary(path, OpenOptions::new().write(true))?;
        if self.is_kernels(&file) {
            // One write: each write to a file of the kernel's is a setting of its own.
            let line = format!("{value}\n");
            let written = file.write(line.as_bytes())?;
            return if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) };
        }
        // A copy has no kernel that would put the brackets around another choice.
        let text = with_setting(&read_bounded(path)?, value)?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    }

    fn append(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let is_new = !path.exists();
        if let Some(directory) = path.parent().filter(|_| is_new) {
            make_directory(directory)?;
        }
        let mut file = open_ordinary(path, OpenOptions::new().append(true).create(true))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if is_new { sync_directory(path) } else { Ok(()) }
    }

    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let mut file = open_ordinary(path, OpenOptions::new().write(true).create(true).truncate(true))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        sync_directory(to)
    }

    fn cut(&mut self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = open_ordinary(path, OpenOptions::new().write(true))?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        sync_directory(path)
    }
}

/// A file's text with another setting: the brackets around another choice where it lists several, else another text between the same
/// space as before.
fn with_setting(text: &str, value: &str) -> io::Result<String> {
    let core = text.trim();
    let begin = text.len() - text.trim_start().len();
    let (before, after) = (&text[..begin], &text[begin + core.len()..]);
    let is_chosen = |word: &str| word.starts_with('[') && word.ends_with(']');
    if !core.split_whitespace().any(is_chosen) {
        return Ok(format!("{before}{value}{after}"));
    }
    let bare = |word: &str| word.trim_matches(['[', ']']).to_owned();
    if !core.split_whitespace().any(|word| bare(word) == value) {
        return Err(Errno::INVAL.into());
    }
    let choice = |part: &str| {
        let word = part.trim_end();
        let space = &part[word.len()..];
        let named = bare(word);
        if named == value { format!("[{named}]{space}") } else { format!("{named}{space}") }
    };
    let listed: String = core.split_inclusive(char::is_whitespace).map(choice).collect();
    Ok(format!("{before}{listed}{after}"))
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
        let files = Files::default();
        assert_eq!(files.read_lines(&path).unwrap(), "whole \u{e9}\ntorn \u{fffd}");
        assert!(files.read(&path).is_err(), "a setting is read as it is");
        fs::write(&path, b"damaged \xc3\ntorn").unwrap();
        assert!(files.read_lines(&path).is_err(), "what is not torn is damaged");
    }

    #[test]
    fn a_setting_of_a_copy_leaves_all_but_itself_as_it_was() {
        for (text, value, changed) in [
            ("[none] mq-deadline\n", "mq-deadline", "none [mq-deadline]\n"),
            ("none  [mq-deadline]\tkyber \n", "none", "[none]  mq-deadline\tkyber \n"),
            ("always [madvise] never", "always", "[always] madvise never"),
            ("128", "4096", "4096"),
            ("  128 \n\n", "4096", "  4096 \n\n"),
            ("", "1", "1"),
            ("4096\t87380\t6291456\n", "1 2 3", "1 2 3\n"),
        ] {
            assert_eq!(with_setting(text, value).unwrap(), changed, "{text:?}");
            let before = crate::tune::setting(text).to_owned();
            assert_eq!(with_setting(changed, &before).unwrap(), text);
        }
        assert!(with_setting("[none] mq-deadline", "bfq").is_err(), "a choice that there is not");
    }

    #[test]
    fn a_pipe_is_neither_set_nor_added_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut files = Files::default();
        assert!(files.set(&path, "1").is_err() && files.append(&path, "1").is_err());
        assert!(files.read(&path).is_err() && files.write(&path, "1").is_err());
    }
}
