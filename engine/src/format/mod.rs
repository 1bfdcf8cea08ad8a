//! The structures on the drive, byte for byte; `engine/FORMAT.md` is this room in prose.
//!
//! Every structure is little-endian, versioned by the drive header, and checksummed with CRC32C over
//! its own bytes, the drive's identity and the place where it belongs: bytes of another drive, of
//! another place or of an earlier life of the place never pass for valid ones.

mod bytes;
pub mod catalog;
pub mod drive_header;
pub mod frame;
pub mod image;
pub mod journal;
pub mod record;
pub mod segment;
pub mod superblock;

pub use self::bytes::{ByteReader, ByteWriter};

use crate::ids::ShardId;

/// The version of everything below; a drive of another version is refused.
pub const FORMAT_VERSION: u32 = 3;

/// Start of every checksum of one shard of one drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumSeed(u32);

impl ChecksumSeed {
    /// From the drive's identity and the shard.
    pub fn new(uuid: &[u8; 16], shard: ShardId) -> ChecksumSeed {
        ChecksumSeed(crc32c::crc32c_append(crc32c::crc32c(uuid), &shard.0.to_le_bytes()))
    }

    /// The checksum of `body` lying at byte `at` of the shard's area in a segment's `generation`.
    pub fn at(self, at: u64, generation: u32, body: &[u8]) -> u32 {
        let mut place = [0u8; 12];
        place[0..8].copy_from_slice(&at.to_le_bytes());
        place[8..12].copy_from_slice(&generation.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &place), body)
    }

    /// More bytes of the same structure.
    pub fn more(checksum: u32, body: &[u8]) -> u32 {
        crc32c::crc32c_append(checksum, body)
    }
}

/// `value` rounded up to a multiple of the power of two `unit`.
pub fn align_up(value: u64, unit: u64) -> u64 {
    assert!(unit.is_power_of_two(), "unit {unit}");
    (value + unit - 1) & !(unit - 1)
}

/// `value` rounded down to a multiple of the power of two `unit`.
pub fn align_down(value: u64, unit: u64) -> u64 {
    assert!(unit.is_power_of_two(), "unit {unit}");
    value & !(unit - 1)
}
