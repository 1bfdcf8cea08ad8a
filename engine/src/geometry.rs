//! How a drive is divided: head, one area of segments per shard, tail.
//!
//! ```text
//! 0            header
//! 64 KiB       superblock slots: two blocks per shard
//! region       area of shard 0, area of shard 1, ...
//! end - region superblock slots again (the mirror), and the header's copy in the last block
//! ```

use thiserror::Error;

use crate::format::drive_header::{DriveIdentity, encode_drive_header};
use crate::format::frame::{FRAME_HEADER_BYTES, frame_len};
use crate::format::image::ImageRoot;
use crate::format::record::record_room;
use crate::format::superblock::Superblock;
use crate::format::{ChecksumSeed, align_down, align_up};
use crate::ids::{DriveOffset, NodeId, SegmentId, ShardId};
use crate::limits::{BLOCK_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::location::Location;

/// Where the superblock slots begin, in the head; the tail has none of this gap.
const SUPERBLOCKS_AT: u64 = 64 * 1024;
/// Head and tail are multiples of this.
const REGION_UNIT: u64 = 64 * 1024;
/// Fewest segments with which cleaning and checkpoints have room to work.
pub const MIN_SEGMENTS: u32 = 16;
/// Most segments of a shard.
pub const MAX_SEGMENTS: u32 = 1 << 16;
/// Smallest and largest segment when none is asked for.
const SEGMENT_BYTES_DEFAULT: (u64, u64) = (4 << 20, 64 << 20);
/// How many segments a shard has by default, if their size allows.
const SEGMENTS_DEFAULT: u64 = 256;
/// Most shards of a drive.
pub const MAX_SHARDS: u16 = 256;

/// The division of a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the drive, as formatted.
    pub drive_bytes: u64,
    /// Bytes of a segment, a power of two.
    pub segment_bytes: u32,
    /// Segments of each shard.
    pub segments_per_shard: u32,
    /// Longest value that this drive takes, at most 1 MiB.
    pub max_value_bytes: u32,
    /// Shards.
    pub shards: u16,
}

/// Why a drive cannot be divided as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// No shards, or too many.
    #[error("--shards cannot be {0}; a drive has 1 to 256 shards")]
    Shards(u16),
    /// The segment size is not a power of two, or too small for the values, or too large.
    #[error(
        "--segment cannot be {segment_bytes} bytes; it is a power of two from {} KiB to 1 GiB", min_bytes.div_ceil(1 << 10)
    )]
    SegmentSize {
        /// What was asked.
        segment_bytes: u32,
        /// The least that would do.
        min_bytes: u64,
    },
    /// The value limit is out of range.
    #[error("--max-value cannot be {0} bytes; it is 1 byte to 1 MiB")]
    ValueLimit(u32),
    /// Locations in the index do not reach that far.
    #[error(
        "{drive_bytes} bytes of drive are too many for {shards} shards, each of at most 1 TiB; raise --shards to \
         {least_shards} or more, or lower --size"
    )]
    TooLarge {
        /// What there is.
        drive_bytes: u64,
        /// For how many shards.
        shards: u16,
        /// How many would do.
        least_shards: u64,
    },
    /// The drive is too small.
    #[error(
        "{shards} shards need a drive of at least {} MiB, not {drive_bytes} bytes; raise --size, or lower --shards, \
         --segment or --max-value", min_bytes.div_ceil(1 << 20)
    )]
    TooSmall {
        /// What there is.
        drive_bytes: u64,
        /// For how many shards.
        shards: u16,
        /// What it takes.
        min_bytes: u64,
    },
}

impl Geometry {
    /// Divides `drive_bytes` among `shards`, with segments of `segment_bytes` or a size that fits.
    pub fn plan(
        drive_bytes: u64,
        shards: u16,
        segment_bytes: Option<u32>,
        max_value_bytes: u32,
    ) -> Result<Geometry, GeometryError> {
        if shards == 0 || shards > MAX_SHARDS {
            return Err(GeometryError::Shards(shards));
        }
        if max_value_bytes == 0 || max_value_bytes as usize > MAX_VALUE_BYTES {
            return Err(GeometryError::ValueLimit(max_value_bytes));
        }
        let min_segment = min_segment_bytes(max_value_bytes);
        let segment_bytes = match segment_bytes {
            Some(bytes) => bytes,
            None => default_segment_bytes(drive_bytes, shards, min_segment),
        };
        let in_range = u64::from(segment_bytes) >= min_segment && segment_bytes <= 1 << 30;
        if !segment_bytes.is_power_of_two() || !in_range {
            return Err(GeometryError::SegmentSize { segment_bytes, min_bytes: min_segment });
        }
        let regions = 2 * region_bytes(shards);
        let room = align_down(drive_bytes, BLOCK_BYTES as u64).saturating_sub(regions);
        let per_shard = room / u64::from(shards) / u64::from(segment_bytes);
        let segments = per_shard.min(u64::from(most_segments(segment_bytes)));
        let most = Location::MAX_AREA_BYTES / u64::from(segment_bytes);
        if segments > most {
            let least_shards = (per_shard * u64::from(shards)).div_ceil(most);
            return Err(GeometryError::TooLarge { drive_bytes, shards, least_shards });
        }
        let segments = segments as u32;
        if segments < MIN_SEGMENTS {
            let areas = u64::from(shards) * u64::from(MIN_SEGMENTS) * u64::from(segment_bytes);
            return Err(GeometryError::TooSmall { drive_bytes, shards, min_bytes: regions + areas });
        }
        let geometry =
            Geometry { drive_bytes, segment_bytes, segments_per_shard: segments, max_value_bytes, shards };
        assert!(geometry.is_consistent(), "a plan must be consistent: {geometry:?}");
        Ok(geometry)
    }

    /// Whether the numbers fit together; checked on every geometry that was read.
    pub fn is_consistent(&self) -> bool {
        let shards_ok = self.shards > 0 && self.shards <= MAX_SHARDS;
        let values_ok = self.max_value_bytes > 0 && self.max_value_bytes as usize <= MAX_VALUE_BYTES;
        shards_ok
            && values_ok
            && self.segment_bytes.is_power_of_two()
            && u64::from(self.segment_bytes) >= min_segment_bytes(self.max_value_bytes)
            && (MIN_SEGMENTS..=most_segments(self.segment_bytes)).contains(&self.segments_per_shard)
            && self.area_bytes() <= Location::MAX_AREA_BYTES
            && self
                .area_bytes()
                .checked_mul(u64::from(self.shards))
                .is_some_and(|areas| areas + 2 * region_bytes(self.shards) <= self.drive_bytes)
    }

    /// Bytes of one shard's area.
    pub fn area_bytes(&self) -> u64 {
        u64::from(self.segments_per_shard) * u64::from(self.segment_bytes)
    }

    /// Where a shard's area begins on the drive.
    pub fn area_at(&self, shard: ShardId) -> DriveOffset {
        assert!(shard.0 < self.shards, "shard {shard} of {}", self.shards);
        DriveOffset(region_bytes(self.shards) + u64::from(shard.0) * self.area_bytes())
    }

    /// Where a segment begins in its shard's area.
    pub fn segment_at(&self, segment: SegmentId) -> u64 {
        assert!(segment.0 < self.segments_per_shard, "segment {segment} of {}", self.segments_per_shard);
        u64::from(segment.0) * u64::from(self.segment_bytes)
    }

    /// The segment that holds byte `offset` of the shard's area.
    pub fn segment_of(&self, offset: u64) -> SegmentId {
        // A power of two, which the compiler does not know.
        let segment = SegmentId((offset >> self.segment_bytes.trailing_zeros()) as u32);
        assert!(segment.0 < self.segments_per_shard, "offset {offset} beyond the area");
        segment
    }

    /// Bytes of a frame that the longest record takes.
    pub fn most_record_room(&self) -> u64 {
        record_room(MAX_KEY_BYTES, self.max_value_bytes as usize, true) as u64
    }

    /// Bytes of frames that a segment holds.
    pub fn segment_payload_bytes(&self) -> u64 {
        u64::from(self.segment_bytes) - BLOCK_BYTES as u64
    }

    /// Where the slots of a shard's superblock lie: slot 0, slot 1, their mirrors in the same order.
    pub fn superblock_slots(&self, shard: ShardId) -> [DriveOffset; 4] {
        let block = BLOCK_BYTES as u64;
        let slot = u64::from(shard.0) * 2 * block;
        let head = SUPERBLOCKS_AT + slot;
        let tail = align_down(self.drive_bytes, block) - region_bytes(self.shards) + slot;
        [head, head + block, tail, tail + block].map(DriveOffset)
    }

    /// Where the header's copy lies on a drive of so many bytes.
    pub fn header_mirror_at(drive_bytes: u64) -> DriveOffset {
        let block = BLOCK_BYTES as u64;
        DriveOffset(align_down(drive_bytes, block).saturating_sub(block))
    }
}

/// The blocks that make an empty drive: whole blocks, to be written (durably) in this order.
pub fn format_drive(geometry: &Geometry, identity: DriveIdentity) -> Vec<(DriveOffset, Vec<u8>)> {
    let mut blocks = Vec::new();
    for shard in (0..geometry.shards).map(ShardId) {
        let seed = ChecksumSeed::new(&identity.uuid, shard);
        let slots = geometry.superblock_slots(shard);
        // The other slots are wiped, so that an older drive's superblocks cannot be found there.
        for (at, live) in slots.into_iter().zip([false, true, false, true]) {
            let mut block = vec![0u8; BLOCK_BYTES];
            if live {
                Superblock::fresh(NodeId(0)).encode(seed, at.0, &mut block);
            }
            blocks.push((at, block));
        }
    }
    let header = encode_drive_header(geometry, &identity);
    blocks.push((Geometry::header_mirror_at(geometry.drive_bytes), header.clone()));
    blocks.push((DriveOffset(0), header));
    blocks
}

/// Bytes of the head, and of the tail.
fn region_bytes(shards: u16) -> u64 {
    let slots = u64::from(shards) * 2 * BLOCK_BYTES as u64;
    align_up(SUPERBLOCKS_AT + slots + BLOCK_BYTES as u64, REGION_UNIT)
}

/// Three of the largest records, and the segment's header, fit into the smallest segment.
fn min_segment_bytes(max_value_bytes: u32) -> u64 {
    let record = record_room(MAX_KEY_BYTES, max_value_bytes as usize, true);
    (3 * frame_len(record) as u64 + BLOCK_BYTES as u64).next_power_of_two()
}

/// The root of an image, which names all segments, fits into one of them.
fn most_segments(segment_bytes: u32) -> u32 {
    let room = u64::from(segment_bytes).saturating_sub((BLOCK_BYTES + FRAME_HEADER_BYTES) as u64);
    let per_segment = ImageRoot::most_bytes(1) - ImageRoot::most_bytes(0);
    let named = room.saturating_sub(ImageRoot::most_bytes(0)) / per_segment;
    named.min(u64::from(MAX_SEGMENTS)) as u32
}

fn default_segment_bytes(drive_bytes: u64, shards: u16, min_segment: u64) -> u32 {
    let wanted = drive_bytes / u64::from(shards.max(1)) / SEGMENTS_DEFAULT;
    let (smallest, largest) = SEGMENT_BYTES_DEFAULT;
    let power = wanted.next_power_of_two().clamp(smallest.max(min_segment), largest.max(min_segment));
    u32::try_from(power).expect("a default segment has at most 64 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::drive_header::{DriveHeaderError, read_drive_header};

    const MIB: u64 = 1 << 20;

    #[test]
    fn at_below_and_above_the_smallest_drive() {
        let error = Geometry::plan(MIB, 2, None, MAX_VALUE_BYTES as u32).unwrap_err();
        let GeometryError::TooSmall { min_bytes, .. } = error else { panic!("{error:?}") };
        assert!(Geometry::plan(min_bytes - BLOCK_BYTES as u64, 2, None, MAX_VALUE_BYTES as u32).is_err());
        let plan = Geometry::plan(min_bytes, 2, None, MAX_VALUE_BYTES as u32).unwrap();
        assert_eq!(plan.segments_per_shard, MIN_SEGMENTS);
        assert!(Geometry::plan(min_bytes + 1, 2, None, MAX_VALUE_BYTES as u32).is_ok());
    }

    #[test]
    fn areas_end_where_locations_do() {
        let drive = |area_bytes: u64| 2 * (region_bytes(2) + area_bytes);
        let plan = |area_bytes: u64| Geometry::plan(drive(area_bytes), 2, Some(64 * MIB as u32), 1 << 20);
        let most = Location::MAX_AREA_BYTES;
        for (area_bytes, planned_bytes) in [(most - 1, most - 64 * MIB), (most, most), (most + MIB, most)] {
            assert_eq!(plan(area_bytes).map(|plan| plan.area_bytes()), Ok(planned_bytes), "{area_bytes}");
        }
        let drive_bytes = drive(most + 64 * MIB);
        let too_large = GeometryError::TooLarge { drive_bytes, shards: 2, least_shards: 3 };
        assert_eq!(plan(most + 64 * MIB), Err(too_large));
        assert!(Geometry::plan(drive_bytes, 3, Some(64 * MIB as u32), 1 << 20).is_ok());
        // A drive that says so of itself is none of ours.
        let forged = Geometry { segments_per_shard: 16_385, drive_bytes, ..plan(most).unwrap() };
        assert!(!forged.is_consistent());
    }

    #[test]
    fn nothing_overlaps() {
        let plan = Geometry::plan(512 * MIB + 777, 3, None, MAX_VALUE_BYTES as u32).unwrap();
        let mut extents = vec![(0, BLOCK_BYTES as u64)];
        extents.push((Geometry::header_mirror_at(plan.drive_bytes).0, BLOCK_BYTES as u64));
        for shard in (0..3).map(ShardId) {
            extents.push((plan.area_at(shard).0, plan.area_bytes()));
            extents.extend(plan.superblock_slots(shard).map(|at| (at.0, BLOCK_BYTES as u64)));
        }
        extents.sort_unstable();
        for pair in extents.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
        }
        let last = extents[extents.len() - 1];
        assert!(last.0 + last.1 <= plan.drive_bytes);
    }

    #[test]
    fn bad_wishes_are_named() {
        assert_eq!(Geometry::plan(1 << 30, 0, None, 1024), Err(GeometryError::Shards(0)));
        assert_eq!(Geometry::plan(1 << 30, 257, None, 1024), Err(GeometryError::Shards(257)));
        assert!(matches!(
            Geometry::plan(1 << 30, 1, Some(3 << 20), 1 << 20),
            Err(GeometryError::SegmentSize { .. })
        ));
        assert!(matches!(
            Geometry::plan(1 << 30, 1, Some(2 << 20), 1 << 20),
            Err(GeometryError::SegmentSize { .. })
        ));
        assert!(Geometry::plan(1 << 30, 1, Some(4 << 20), 1 << 20).is_ok());
        assert_eq!(Geometry::plan(1 << 30, 1, None, 0), Err(GeometryError::ValueLimit(0)));
    }

    #[test]
    fn a_header_reads_back_and_damage_is_named() {
        let plan = Geometry::plan(512 * MIB, 2, None, 4096).unwrap();
        let identity = DriveIdentity { uuid: [3; 16], created_wall_ns: 5 };
        let mut block = encode_drive_header(&plan, &identity);
        assert_eq!(read_drive_header(&block), Ok((plan, identity)));
        block[100] ^= 1;
        assert_eq!(read_drive_header(&block), Err(DriveHeaderError::Damaged));
        block[100] ^= 1;
        block[8] = 9;
        assert_eq!(read_drive_header(&block), Err(DriveHeaderError::Version(9)));
        assert_eq!(read_drive_header(&[0; BLOCK_BYTES]), Err(DriveHeaderError::NotADrive));
    }
}
