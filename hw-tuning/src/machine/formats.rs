//! Which LBA formats an NVMe drive has. No file tells, so the drive itself is asked, and only where nothing uses it: a pending admin command
//! slows what a drive serves.

use rustix::fs::FlockOperation;
use serde::Deserialize;

use super::Known;
use super::drives::Drive;
use crate::image::tools::{self, NVME, TIMEOUT};
use crate::probe::{Probe, open_drive};

/// How long a drive may take to answer, in seconds.
const PATIENCE_S: &str = "5";
/// Bits of a block's length that a drive may tell: 512 B to 64 KiB.
const BITS: std::ops::RangeInclusive<u32> = 9..=16;

/// What of an answer counts: the drive's formats.
#[derive(Deserialize)]
struct Namespace {
    lbafs: Vec<Format>,
}

/// One: bytes of metadata, and the length of a block as a power of two.
#[derive(Deserialize)]
struct Format {
    ms: u64,
    ds: u32,
}

/// Asks every NVMe drive that nothing uses.
pub fn ask(probe: &Probe, drives: &mut [Drive]) {
    for drive in drives.iter_mut().filter(|drive| drive.name.starts_with("nvme")) {
        drive.lba_formats = asked(probe, drive);
    }
}

fn asked(probe: &Probe, drive: &Drive) -> Known<Vec<u64>> {
    if !drive.in_use.is_empty() {
        return Known::Not("it is in use, and an admin command may slow what it serves: not asked");
    }
    let path = probe.path(&format!("/dev/{}", drive.name));
    let Ok(file) = open_drive(&path) else {
        return Known::Not("the drive cannot be opened to be asked (Identify Namespace): run as root");
    };
    // A node has its drive locked.
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
        return Known::Not("a node has it open, and an admin command may slow what it serves: not asked");
    }
    drop(file);
    if tools::require(&[NVME, TIMEOUT]).is_err() {
        return Known::Not("asking the drive (Identify Namespace) needs nvme-cli: apt-get install nvme-cli");
    }
    let work = std::env::temp_dir();
    let mut command = tools::command(TIMEOUT, &work);
    command.arg(PATIENCE_S).arg(tools::command(NVME, &work).get_program());
    command.arg("id-ns").arg(&path).arg("--output-format=json");
    let Ok(told) = tools::run(&mut command, b"") else {
        return Known::Not("the drive did not answer Identify Namespace: run as root, and see nvme id-ns");
    };
    Known::or(
        other_formats(&told, drive.logical_block_bytes.known().copied()),
        "nvme id-ns tells its formats in a way that is not known here: see nvme id-ns -H",
    )
}

/// Lengths of blocks that carry no metadata, which a node has no use for, but for the one that is in use.
fn other_formats(told: &[u8], now: Option<u64>) -> Option<Vec<u64>> {
    let namespace: Namespace = serde_json::from_slice(told).ok()?;
    let plain = namespace.lbafs.iter().filter(|format| format.ms == 0 && BITS.contains(&format.ds));
    let mut bytes: Vec<u64> =
        plain.map(|format| 1 << format.ds).filter(|bytes| Some(*bytes) != now).collect();
    bytes.sort_unstable();
    bytes.dedup();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::other_formats;

    #[test]
    fn formats_with_metadata_and_the_one_in_use_are_no_others() {
        let told = br#"{"nsze":1,"lbafs":[{"ms":0,"ds":9,"rp":2},{"ms":8,"ds":9,"rp":1},{"ms":0,"ds":12,"rp":0},{"ms":0,"ds":0,"rp":0}]}"#;
        assert_eq!(other_formats(told, Some(512)), Some(vec![4096]));
        assert_eq!(other_formats(told, None), Some(vec![512, 4096]));
        assert_eq!(other_formats(b"{}", None), None);
        assert_eq!(other_formats(b"NVME Identify", None), None);
    }
}
