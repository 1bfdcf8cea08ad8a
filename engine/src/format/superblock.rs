//! A shard's superblock: from which checkpoint, and from which frames on, to recover.
//!
//! Two slots take turns, each in the head of the drive and mirrored in its tail. A version is written
//! to the head, then to the mirror; a crash between the two leaves the version before it whole.

use crate::format::journal::LogPosition;
use crate::format::{ByteReader, ByteWriter, ChecksumSeed};
use crate::ids::{FrameNumber, Generation, NodeId, SegmentId, Seq};
use crate::limits::BLOCK_BYTES;

/// First bytes of every superblock: "LSUP".
pub const SUPERBLOCK_MAGIC: u32 = u32::from_le_bytes(*b"LSUP");
/// Most void ranges of a stream that a superblock holds; a checkpoint clears them.
pub const MAX_VOID_RANGES: usize = 64;
/// The highest version, and the highest number of a checkpoint: nobody writes so many.
const MAX_VERSION: u64 = 1 << 52;
/// Bytes of a void range.
const VOID_RANGE_BYTES: usize = 16;

/// Frames of a stream that a recovery cut off: `[from, to)` never happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoidRange {
    /// First number that is void.
    pub from: FrameNumber,
    /// First number that is not.
    pub to: FrameNumber,
}

/// Where the root of a checkpoint lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootLocation {
    /// The segment.
    pub segment: SegmentId,
    /// Its generation.
    pub generation: Generation,
    /// Byte offset of the root frame in the segment.
    pub offset: u32,
    /// Bytes of the root frame, padding counted.
    pub len: u32,
}

/// A shard's superblock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Superblock {
    /// Counts the versions; the highest valid one is the present one.
    pub version: u64,
    /// Number of the checkpoint.
    pub checkpoint: u64,
    /// The two copies of its root; `None` before the first checkpoint.
    pub roots: Option<[RootLocation; 2]>,
    /// First user frame that image and journal may lack, where the journal ends before `journal_from`.
    pub user_from: FrameNumber,
    /// Where such frames begin.
    pub user_from_position: LogPosition,
    /// First journal frame whose entries the image may lack.
    pub journal_from: FrameNumber,
    /// Where such frames begin.
    pub journal_from_position: LogPosition,
    /// No segment had a higher generation when this was written.
    pub highest_generation: Generation,
    /// No write had a higher version when the checkpoint began.
    pub highest_seq: Seq,
    /// User frames from `user_from` on that are void.
    pub void: Vec<VoidRange>,
    /// Journal frames from `journal_from` on that are void.
    pub journal_void: Vec<VoidRange>,
    /// Damage may have taken tables that the image lacks.
    pub may_lack_tables: bool,
}

impl Superblock {
    /// Encodes into a whole block, for the slot at byte `at` of the drive.
    pub fn encode(&self, seed: ChecksumSeed, at: u64, block: &mut [u8]) {
        let none =
            RootLocation { segment: SegmentId(u32::MAX), generation: Generation(0), offset: 0, len: 0 };
        let mut body = ByteWriter::new();
        body.u64(self.version).u64(self.checkpoint);
        for root in self.roots.unwrap_or([none, none]) {
            body.u32(root.segment.0).u32(root.generation.0).u32(root.offset).u32(root.len);
        }
        body.u64(self.user_from.0).u64(self.journal_from.0);
        for position in [self.user_from_position, self.journal_from_position] {
            body.u32(position.generation.0).u32(position.offset);
        }
        body.u32(self.highest_generation.0);
        body.u32(self.void.len() as u32).u32(self.journal_void.len() as u32);
        body.raw(&self.highest_seq.to_bytes());
        for void in [&self.void, &self.journal_void] {
            assert!(void.len() <= MAX_VOID_RANGES, "{} void ranges", void.len());
            for range in void {
                body.u64(range.from.0).u64(range.to.0);
            }
            body.raw(&vec![0; (MAX_VOID_RANGES - void.len()) * VOID_RANGE_BYTES]);
        }
        body.u32(u32::from(self.may_lack_tables));
        let body = body.into_bytes();
        let block = &mut block[..BLOCK_BYTES];
        block.fill(0);
        block[0..4].copy_from_slice(&SUPERBLOCK_MAGIC.to_le_bytes());
        block[8..8 + body.len()].copy_from_slice(&body);
        let crc = seed.at(at, 0, &block[8..]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Decodes the superblock of the slot at byte `at` of the drive.
    pub fn decode(seed: ChecksumSeed, at: u64, bytes: &[u8]) -> Option<Superblock> {
        let bytes = bytes.get(..BLOCK_BYTES)?;
        let mut reader = ByteReader::new(bytes);
        if reader.u32()? != SUPERBLOCK_MAGIC || reader.u32()? != seed.at(at, 0, &bytes[8..]) {
            return None;
        }
        let (version, checkpoint) = (reader.u64()?, reader.u64()?);
        let roots = [root_location(&mut reader)?, root_location(&mut reader)?];
        let user_from = FrameNumber(reader.u64()?);
        let journal_from = FrameNumber(reader.u64()?);
        let user_from_position = LogPosition { generation: Generation(reader.u32()?), offset: reader.u32()? };
        let journal_from_position =
            LogPosition { generation: Generation(reader.u32()?), offset: reader.u32()? };
        let highest_generation = Generation(reader.u32()?);
        let (void_count, journal_void_count) = (reader.u32()? as usize, reader.u32()? as usize);
        let highest_seq = Seq::from_bytes(reader.array()?);
        let void = void_ranges(&mut reader, void_count)?;
        let journal_void = void_ranges(&mut reader, journal_void_count)?;
        // Shards of before this was kept have zeros here.
        let may_lack_tables = reader.u32()? != 0;
        let is_possible = version.max(checkpoint) <= MAX_VERSION
            && highest_generation <= Generation::MAX
            && [user_from, journal_from].into_iter().all(FrameNumber::is_possible)
            && [user_from_position, journal_from_position].into_iter().all(LogPosition::is_possible);
        is_possible.then_some(Superblock {
            version,
            checkpoint,
            roots: (roots[0].segment.0 != u32::MAX).then_some(roots),
            user_from,
            user_from_position,
            journal_from,
            journal_from_position,
            highest_generation,
            highest_seq,
            void,
            journal_void,
            may_lack_tables,
        })
    }

    /// The present version among what the slots hold.
    pub fn newest(candidates: impl IntoIterator<Item = Option<Superblock>>) -> Option<Superblock> {
        candidates.into_iter().flatten().max_by_key(|superblock| superblock.version)
    }

    /// A superblock of a shard that has never been written to.
    pub fn fresh(node: NodeId) -> Superblock {
        Superblock {
            version: 1,
            user_from: FrameNumber(1),
            user_from_position: LogPosition { generation: Generation(1), offset: 0 },
            journal_from: FrameNumber(1),
            journal_from_position: LogPosition { generation: Generation(1), offset: 0 },
            highest_seq: Seq { wall_ns: 0, counter: 0, node },
            ..Superblock::default()
        }
    }
}

/// The ranges of one stream, behind which its room ends.
fn void_ranges(reader: &mut ByteReader<'_>, count: usize) -> Option<Vec<VoidRange>> {
    let mut void = Vec::with_capacity(count.min(MAX_VOID_RANGES));
    for _ in 0..count {
        void.push(VoidRange { from: FrameNumber(reader.u64()?), to: FrameNumber(reader.u64()?) });
    }
    reader.take(MAX_VOID_RANGES.checked_sub(count)? * VOID_RANGE_BYTES)?;
    Some(void)
}

fn root_location(reader: &mut ByteReader<'_>) -> Option<RootLocation> {
    Some(RootLocation {
        segment: SegmentId(reader.u32()?),
        generation: Generation(reader.u32()?),
        offset: reader.u32()?,
        len: reader.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    #[test]
    fn round_trip_full_of_void_ranges_and_the_newest_wins() {
        let seed = ChecksumSeed::new(&[4; 16], ShardId(2));
        let mut superblock = Superblock::fresh(NodeId(7));
        for i in 0..MAX_VOID_RANGES as u64 {
            superblock.void.push(VoidRange { from: FrameNumber(i * 10), to: FrameNumber(i * 10 + 3) });
        }
        let root = |segment| RootLocation {
            segment: SegmentId(segment),
            generation: Generation(2),
            offset: 4096,
            len: 8192,
        };
        superblock.roots = Some([root(1), root(2)]);
        superblock.journal_void = superblock.void[..3].to_vec();
        superblock.journal_from = FrameNumber(77);
        superblock.may_lack_tables = true;
        let mut block = vec![1u8; BLOCK_BYTES];
        superblock.encode(seed, 65536, &mut block);
        assert_eq!(Superblock::decode(seed, 65536, &block), Some(superblock.clone()));
        assert_eq!(Superblock::decode(seed, 69632, &block), None, "another slot");
        block[4000] ^= 1;
        assert_eq!(Superblock::decode(seed, 65536, &block), None, "damage in the padding");
        let older = Superblock { version: 0, ..superblock.clone() };
        assert_eq!(Superblock::newest([Some(older), None, Some(superblock.clone())]), Some(superblock));
    }

    /// Found by the fuzzer: each of them ended the process later, by an assertion.
    #[test]
    fn numbers_and_places_that_cannot_be_are_no_superblock() {
        let seed = ChecksumSeed::new(&[4; 16], ShardId(2));
        let reads_back = |change: &dyn Fn(&mut Superblock)| {
            let mut superblock = Superblock::fresh(NodeId(7));
            change(&mut superblock);
            let mut block = vec![0; BLOCK_BYTES];
            superblock.encode(seed, 65536, &mut block);
            Superblock::decode(seed, 65536, &block).is_some()
        };
        let (most, beyond) = (FrameNumber::MAX, FrameNumber::MAX.next());
        assert!(reads_back(&|s| (s.user_from, s.journal_from) = (most, most)));
        assert!(!reads_back(&|s| s.user_from = beyond));
        assert!(!reads_back(&|s| s.journal_from = beyond));
        assert!(!reads_back(&|s| s.user_from = FrameNumber(0)));
        assert!(reads_back(&|s| s.user_from_position.offset = 4096));
        assert!(!reads_back(&|s| s.user_from_position.offset = 4097));
        assert!(!reads_back(&|s| s.journal_from_position.offset = 4095));
        assert!(reads_back(&|s| s.highest_generation = Generation::MAX));
        assert!(!reads_back(&|s| s.highest_generation.0 = Generation::MAX.0 + 1));
        assert!(reads_back(&|s| (s.version, s.checkpoint) = (MAX_VERSION, MAX_VERSION)));
        assert!(!reads_back(&|s| s.version = MAX_VERSION + 1));
    }
}
