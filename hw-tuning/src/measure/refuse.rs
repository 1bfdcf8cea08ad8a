//! What keeps a device from being written: uses of it, and data on it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::machine::drives::in_use;
use crate::probe::Probe;

/// At both ends of a device lies what tells what it is; measuring leaves so much of each alone, so that a drive can be
/// measured again.
pub const EDGE_BYTES: u64 = 1 << 20;

/// What uses a device, and what it is divided into.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Mounts, swap, and devices on top, of it and of its partitions.
    pub running: Vec<String>,
    /// Its partitions.
    pub partitions: Vec<String>,
}

/// The uses of the device with this directory in `/sys`.
pub fn uses_of(probe: &Probe, directory: &Path) -> Uses {
    let mut uses = Uses::default();
    let name = |directory: &Path| directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for found in in_use(probe, directory, &name(directory)) {
        match found.strip_prefix("partition ") {
            Some(partition) => {
                let below = in_use(probe, &directory.join(partition), partition);
                uses.running.extend(below.into_iter().map(|found| format!("{partition} {found}")));
                uses.partitions.push(partition.to_owned());
            }
            None => uses.running.push(found),
        }
    }
    uses
}

/// What a node has written, in words.
pub const LODE: &str = "a lode drive";

/// Bytes that tell what is on a device: where, which, and of what.
const SIGNS: [(u64, &[u8], &str); 18] = [
    (0, b"LODE", LODE),
    (0, b"XFSB", "an xfs file system"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0, b"bcache", "a bcache device"),
    (0, b"hsqs", "a squashfs image"),
    (3, b"NTFS    ", "an NTFS file system"),
    (54, b"FAT1", "a FAT file system"),
    (82, b"FAT32", "a FAT file system"),
    (24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcache device"),
    (512, b"EFI PART", "a GPT partition table"),
    (512, b"LABELONE", "an LVM physical volume"),
    (4096, b"EFI PART", "a GPT partition table"),
    (1024, b"\x10\x20\xf5\xf2", "an f2fs file system"),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (4086, b"SWAPSPACE2", "swap space"),
    (4096, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
    (65600, b"_BHRfS_M", "a btrfs file system"),
    (510, b"\x55\xaa", "a partition table or boot sector"),
];

/// What lies at the ends of a device of so many bytes, in words; `None` where there are only zeros.
pub fn data_on(file: &File, bytes: u64) -> io::Result<Option<String>> {
    let edge = EDGE_BYTES.min(bytes) as usize;
    let mut first = vec![0; edge];
    file.read_exact_at(&mut first, 0)?;
    // A small device ends before some of the places.
    let has = |at: u64, sign: &[u8]| first.get(at as usize..).is_some_and(|rest| rest.starts_with(sign));
    if let Some((_, _, what)) = SIGNS.iter().find(|(at, sign, _)| has(*at, sign)) {
        return Ok(Some((*what).to_owned()));
    }
    let mut last = vec![0; edge];
    file.read_exact_at(&mut last, bytes - edge as u64)?;
    let is_used = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
    Ok(match (is_used(&first), is_used(&last)) {
        (true, _) => Some("data of a kind that is not known in its first MiB".to_owned()),
        (_, true) => Some("data of a kind that is not known in its last MiB".to_owned()),
        _ => None,
    })
}
