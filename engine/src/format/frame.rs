//! A frame: one group-committed run of records behind a 64-byte header, padded to the block.

use crate::format::{ByteReader, ChecksumSeed, align_up};
use crate::ids::{FrameNumber, Generation, PartitionId, SegmentId};
use crate::limits::BLOCK_BYTES;

/// Size of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 64;
/// First bytes of every frame: "LFRM".
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"LFRM");

const CRC_AT: usize = 4;
const BODY_AT: usize = 8;

/// The append streams of a shard. Each has segments and frame numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Users' writes, in the order in which they are acknowledged.
    User,
    /// Live records that cleaning moved.
    Cleaning,
    /// Index images of checkpoints.
    Image,
    /// What was applied to the index.
    Journal,
}

impl Stream {
    /// As stored.
    pub fn code(self) -> u8 {
        match self {
            Stream::User => 1,
            Stream::Cleaning => 2,
            Stream::Image => 3,
            Stream::Journal => 4,
        }
    }

    /// From storage.
    pub fn from_code(code: u8) -> Option<Stream> {
        match code {
            1 => Some(Stream::User),
            2 => Some(Stream::Cleaning),
            3 => Some(Stream::Image),
            4 => Some(Stream::Journal),
            _ => None,
        }
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which stream it belongs to.
    pub stream: Stream,
    /// The segment it lies in.
    pub segment: SegmentId,
    /// The segment's generation.
    pub generation: Generation,
    /// Bytes of records after the header, before padding.
    pub payload_bytes: u32,
    /// Its number in its stream; of an image, its position in the image.
    pub number: FrameNumber,
    /// The stream's durable watermark when this frame was written: all frames up to it are durable.
    /// Of an image, the checkpoint's number.
    pub durable: FrameNumber,
    /// User and cleaning: how many records. Image and journal: CRC32C of the payload.
    pub detail: u32,
    /// The partitions that the frame's records are of, as a set of 64 bits (id modulo 64): whom a
    /// damaged frame may concern.
    pub partitions: PartitionSet,
}

/// A small over-approximation of a set of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionSet(pub u64);

impl PartitionSet {
    /// All partitions.
    pub const ALL: PartitionSet = PartitionSet(u64::MAX);

    /// With one more.
    pub fn insert(&mut self, partition: PartitionId) {
        self.0 |= 1 << (partition.0 % 64);
    }

    /// With all of another.
    pub fn union(self, other: PartitionSet) -> PartitionSet {
        PartitionSet(self.0 | other.0)
    }

    /// Whether it may hold the partition.
    pub fn may_contain(self, partition: PartitionId) -> bool {
        self.0 & (1 << (partition.0 % 64)) != 0
    }
}

/// Bytes that a frame of so much payload takes on the drive.
pub fn frame_len(payload_bytes: usize) -> usize {
    align_up((FRAME_HEADER_BYTES + payload_bytes) as u64, BLOCK_BYTES as u64) as usize
}

impl FrameHeader {
    /// Bytes that the frame takes on the drive.
    pub fn frame_len(&self) -> usize {
        frame_len(self.payload_bytes as usize)
    }

    /// Encodes into the first 64 bytes of `out`, for byte `at` of the shard's area.
    pub fn encode(&self, seed: ChecksumSeed, at: u64, out: &mut [u8]) {
        assert!(at.is_multiple_of(BLOCK_BYTES as u64), "frame at {at}");
        let header = &mut out[..FRAME_HEADER_BYTES];
        header.fill(0);
        header[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        header[8] = self.stream.code();
        header[12..16].copy_from_slice(&self.segment.0.to_le_bytes());
        header[16..20].copy_from_slice(&self.generation.0.to_le_bytes());
        header[20..24].copy_from_slice(&self.payload_bytes.to_le_bytes());
        header[24..32].copy_from_slice(&self.number.0.to_le_bytes());
        header[32..40].copy_from_slice(&self.durable.0.to_le_bytes());
        header[40..44].copy_from_slice(&self.detail.to_le_bytes());
        header[48..56].copy_from_slice(&self.partitions.0.to_le_bytes());
        let crc = seed.at(at, self.generation.0, &header[BODY_AT..]);
        header[CRC_AT..BODY_AT].copy_from_slice(&crc.to_le_bytes());
    }

    /// Decodes the header of a frame of this segment and generation at byte `at` of the shard's area;
    /// `None` for anything else.
    pub fn decode(
        seed: ChecksumSeed,
        at: u64,
        segment: SegmentId,
        generation: Generation,
        bytes: &[u8],
    ) -> Option<FrameHeader> {
        let header = FrameHeader::decode_any(seed, at, bytes)?;
        (header.segment == segment && header.generation == generation).then_some(header)
    }

    /// Decodes the header of a frame of any generation at byte `at` of the shard's area.
    pub fn decode_any(seed: ChecksumSeed, at: u64, bytes: &[u8]) -> Option<FrameHeader> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        let mut reader = ByteReader::new(bytes);
        if reader.u32()? != FRAME_MAGIC {
            return None;
        }
        let crc = reader.u32()?;
        let stream = Stream::from_code(reader.u8()?)?;
        reader.take(3)?;
        let header = FrameHeader {
            stream,
            segment: SegmentId(reader.u32()?),
            generation: Generation(reader.u32()?),
            payload_bytes: reader.u32()?,
            number: FrameNumber(reader.u64()?),
            durable: FrameNumber(reader.u64()?),
            detail: reader.u32()?,
            partitions: {
                reader.take(4)?;
                PartitionSet(reader.u64()?)
            },
        };
        let is_possible = header.number.is_possible()
            && header.durable <= FrameNumber::MAX
            && header.generation <= Generation::MAX;
        (is_possible && seed.at(at, header.generation.0, &bytes[BODY_AT..]) == crc).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    fn sample() -> FrameHeader {
        FrameHeader {
            stream: Stream::Cleaning,
            segment: SegmentId(3),
            generation: Generation(11),
            payload_bytes: 500,
            number: FrameNumber(42),
            durable: FrameNumber(40),
            detail: 6,
            partitions: PartitionSet(9),
        }
    }

    #[test]
    fn round_trip_identity_and_every_flipped_bit() {
        let seed = ChecksumSeed::new(&[1; 16], ShardId(0));
        let mut bytes = [0u8; 64];
        sample().encode(seed, 8192, &mut bytes);
        let decode = |at, segment, generation, bytes: &[u8]| {
            FrameHeader::decode(seed, at, SegmentId(segment), Generation(generation), bytes)
        };
        assert_eq!(decode(8192, 3, 11, &bytes), Some(sample()));
        assert_eq!(decode(4096, 3, 11, &bytes), None, "another place");
        assert_eq!(decode(8192, 4, 11, &bytes), None, "another segment");
        assert_eq!(decode(8192, 3, 12, &bytes), None, "another generation");
        for bit in 0..512 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(8192, 3, 11, &bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
