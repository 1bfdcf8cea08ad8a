//! Whether the device under a drive forgets writes when the power goes.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The write cache of the device that holds a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteCache {
    /// There is one, and it is lost with the power: durable writes must say so.
    Volatile,
    /// There is none, or it is protected.
    Absent,
    /// The system does not say; taken for volatile.
    Unknown,
}

impl WriteCache {
    /// Asks `/sys` for the device under `file`.
    pub fn of(file: &File) -> WriteCache {
        let Ok(metadata) = file.metadata() else { return WriteCache::Unknown };
        let device = if metadata.file_type().is_block_device() { metadata.rdev() } else { metadata.dev() };
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        WriteCache::of_device(&PathBuf::from(format!("/sys/dev/block/{major}:{minor}")))
    }

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            WriteCache::Volatile => "volatile",
            WriteCache::Absent => "none or protected",
            WriteCache::Unknown => "unknown, taken for volatile",
        }
    }

    /// Walks from a partition to its disk, whose queue knows.
    fn of_device(link: &Path) -> WriteCache {
        let Ok(device) = link.canonicalize() else { return WriteCache::Unknown };
        for place in device.ancestors().take(3) {
            if let Ok(text) = std::fs::read_to_string(place.join("queue/write_cache")) {
                return match text.trim() {
                    "write back" => WriteCache::Volatile,
                    "write through" => WriteCache::Absent,
                    _ => WriteCache::Unknown,
                };
            }
        }
        WriteCache::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_asked_at_its_disk() {
        let dir = tempfile::tempdir().expect("a directory");
        let partition = dir.path().join("disk/part1");
        std::fs::create_dir_all(&partition).expect("made");
        assert_eq!(WriteCache::of_device(&partition), WriteCache::Unknown);
        std::fs::create_dir_all(dir.path().join("disk/queue")).expect("made");
        let knob = dir.path().join("disk/queue/write_cache");
        for (text, expected) in [
            ("write back\n", WriteCache::Volatile),
            ("write through\n", WriteCache::Absent),
            ("else", WriteCache::Unknown),
        ] {
            std::fs::write(&knob, text).expect("written");
            assert_eq!(WriteCache::of_device(&partition), expected);
        }
        assert_eq!(WriteCache::of_device(&dir.path().join("missing")), WriteCache::Unknown);
    }
}
