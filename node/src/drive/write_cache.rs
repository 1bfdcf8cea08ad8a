//! Whether the device under a drive forgets writes when the power goes.

use std::fs::File;
use std::path::Path;

use super::queue::{device_of, knob};

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
        WriteCache::of_device(&device_of(&metadata))
    }

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            WriteCache::Volatile => "volatile",
            WriteCache::Absent => "none or protected",
            WriteCache::Unknown => "unknown, taken for volatile",
        }
    }

    fn of_device(device: &Path) -> WriteCache {
        match knob(device, "write_cache").as_deref() {
            Some("write back") => WriteCache::Volatile,
            Some("write through") => WriteCache::Absent,
            _ => WriteCache::Unknown,
        }
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
