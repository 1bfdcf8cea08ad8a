//! What lies on a device: nothing, or something that would be lost.
//!
//! Nobody reads all of a drive to know that it is empty. Looked at are all of its ends, where what tells what a drive is has its place
//! nearly always; the places of second copies; and samples all over it, one in each of as many equal parts. Data that fill a part are
//! found; so is a sprinkling over a hundredth of the drive, but in one of two hundred cases. What measuring has written counts as nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use lode_net::ring::floor::is_scratch;

/// At both ends of a device lies what tells what it is; measuring leaves so much of each alone, so that a drive can be
/// measured again.
pub const EDGE_BYTES: u64 = 1 << 20;
/// Blocks that are looked at between the ends, each in a part of the device of its own.
const SAMPLES: u64 = 512;
const SAMPLE_BYTES: u64 = 4096;
const _: () = assert!(EDGE_BYTES.is_multiple_of(SAMPLE_BYTES));

/// What a node has written, in words.
pub const LODE: &str = "a lode drive";

/// Bytes that tell what is on a device, or on a part of it that begins here: where, which, and of what.
const SIGNS: [(u64, &[u8], &str); 20] = [
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
    (0, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
    (4096, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
    (65600, b"_BHRfS_M", "a btrfs file system"),
    (131_072, b"\x0c\xb1\xba\x00\x00\x00\x00\x00", "a member of a ZFS pool"),
    (510, b"\x55\xaa", "a partition table or boot sector"),
];
/// The same, where so many bytes are left of the device, rounded down to so many: of what keeps its sign, or a second one, at the end.
const LAST_SIGNS: [(u64, u64, &[u8], &str); 5] = [
    (4096, 4096, b"LODE", LODE),
    (512, 512, b"EFI PART", "the copy of a GPT partition table"),
    (4096, 512, b"EFI PART", "the copy of a GPT partition table"),
    (8192, 4096, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
    (65_536, 65_536, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
];
/// Where second copies lie: btrfs's at 64 MiB and 256 GiB; ext4's at the beginnings of groups of blocks of 1 and of 4 KiB.
const COPIES: [u64; 6] = [64 << 20, 256 << 30, 8193 << 10, 128 << 20, 384 << 20, 640 << 20];

/// What lies on a device of so many bytes, in words; `None` where nothing was found.
pub fn data_on(file: &File, bytes: u64) -> io::Result<Option<String>> {
    let edge = EDGE_BYTES.min(bytes) as usize;
    let mut first = vec![0; edge];
    file.read_exact_at(&mut first, 0)?;
    if let Some(what) = sign_in(&first) {
        return Ok(Some(what.to_owned()));
    }
    let mut last = vec![0; edge];
    file.read_exact_at(&mut last, bytes - edge as u64)?;
    if let Some(what) = last_sign_in(&last, bytes) {
        return Ok(Some(what.to_owned()));
    }
    let is_used = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
    match (is_used(&first), is_used(&last)) {
        (true, _) => Ok(Some("data of a kind that is not known in its first MiB".to_owned())),
        (_, true) => Ok(Some("data of a kind that is not known in its last MiB".to_owned())),
        _ => data_between(file, bytes),
    }
}

/// What lies between the ends.
fn data_between(file: &File, bytes: u64) -> io::Result<Option<String>> {
    let mut block = vec![0; SAMPLE_BYTES as usize];
    for at in places(bytes) {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("at byte {at}: {error}"));
        file.read_exact_at(&mut block, at).map_err(failed)?;
        if is_scratch(&block) {
            continue;
        }
        // A node's drive is known by its ends: what begins like one within is a piece of one.
        let what = sign_in(&block).filter(|what| *what != LODE).unwrap_or("data of a kind that is not known");
        return Ok(Some(format!("{what} at byte {at}")));
    }
    Ok(None)
}

/// Where is looked between the ends, always the same of devices of one size: where a first partition begins, where second copies lie, at
/// each doubling, and somewhere in each of [`SAMPLES`] parts.
fn places(bytes: u64) -> Vec<u64> {
    let (begin, end) = (EDGE_BYTES, bytes.saturating_sub(EDGE_BYTES));
    let part = (end.saturating_sub(begin) / SAMPLES).max(SAMPLE_BYTES);
    let parts = (begin..end).step_by(part as usize).enumerate();
    // Not at equal distances: what lies in rows, as a RAID's stripes do, could slip between.
    let drawn = parts.map(|(number, from)| from + mixed(number as u64) % part);
    let doublings = (0..).map(|times| begin << times).take_while(|at| *at < end);
    let mut places: Vec<u64> =
        drawn.chain(doublings).chain(COPIES).map(|at| at / SAMPLE_BYTES * SAMPLE_BYTES).collect();
    places.retain(|at| *at >= begin && at + SAMPLE_BYTES <= bytes);
    places.sort_unstable();
    places.dedup();
    places
}

/// A number that looks drawn: the finalizer of MurmurHash3 (Appleby, public domain).
fn mixed(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word = (word ^ word >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

fn sign_in(bytes: &[u8]) -> Option<&'static str> {
    // A small device ends before some of the places.
    let has = |at: u64, sign: &[u8]| bytes.get(at as usize..).is_some_and(|rest| rest.starts_with(sign));
    SIGNS.iter().find(|(at, sign, _)| has(*at, sign)).map(|(_, _, what)| *what)
}

fn last_sign_in(last: &[u8], bytes: u64) -> Option<&'static str> {
    let begins = bytes - last.len() as u64;
    let has = |left: u64, whole: u64, sign: &[u8]| {
        let at = bytes.checked_sub(left).map(|at| at / whole * whole).and_then(|at| at.checked_sub(begins));
        at.and_then(|at| last.get(at as usize..)).is_some_and(|rest| rest.starts_with(sign))
    };
    LAST_SIGNS.iter().find(|(left, whole, sign, _)| has(*left, *whole, sign)).map(|(_, _, _, what)| *what)
}
