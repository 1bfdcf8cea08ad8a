//! Whether freed segments are worth telling the device of.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::queue::{device_of, knob};

/// Whether the drive is a block device that takes discards, as `/sys` says. A file does not: its blocks are to
/// stay written, for a hole would have to be allocated again by the next write.
pub fn takes_discard(file: &File) -> bool {
    let Ok(metadata) = file.metadata() else { return false };
    metadata.file_type().is_block_device() && device_takes_discard(&device_of(&metadata))
}

fn device_takes_discard(device: &Path) -> bool {
    let most = knob(device, "discard_max_bytes");
    most.and_then(|text| text.parse::<u64>().ok()).is_some_and(|bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_asked_at_its_disk_and_a_file_never() {
        let dir = tempfile::tempdir().expect("a directory");
        let partition = dir.path().join("disk/part1");
        std::fs::create_dir_all(&partition).expect("made");
        std::fs::create_dir_all(dir.path().join("disk/queue")).expect("made");
        assert!(!device_takes_discard(&partition), "nobody says");
        for (text, expected) in [("0\n", false), ("2147450880\n", true), ("else", false)] {
            std::fs::write(dir.path().join("disk/queue/discard_max_bytes"), text).expect("written");
            assert_eq!(device_takes_discard(&partition), expected, "{text:?}");
        }
        let file = File::create(dir.path().join("file")).expect("made");
        assert!(!takes_discard(&file));
    }
}
