//! A segment's first block: who it is, so that start-up needs no central table.

use crate::format::frame::Stream;
use crate::format::{ByteReader, ByteWriter, ChecksumSeed};
use crate::ids::{Generation, SegmentId};
use crate::limits::BLOCK_BYTES;

/// First bytes of every segment: "LSEG".
pub const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"LSEG");
/// Bytes of the header that mean something; the rest of the block is zero.
pub const SEGMENT_HEADER_BYTES: usize = 24;

/// A segment's header. The order of generations is the order of opening, per shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its place.
    pub segment: SegmentId,
    /// Its generation, one more than the highest of the shard when it was opened.
    pub generation: Generation,
    /// What is appended to it.
    pub stream: Stream,
}

impl SegmentHeader {
    /// Encodes into a whole block, for byte `at` of the shard's area.
    pub fn encode(&self, seed: ChecksumSeed, at: u64, block: &mut [u8]) {
        let mut body = ByteWriter::new();
        body.u32(self.segment.0).u32(self.generation.0).u8(self.stream.code()).raw(&[0; 7]);
        let body = body.into_bytes();
        assert_eq!(body.len() + 8, SEGMENT_HEADER_BYTES);
        let block = &mut block[..BLOCK_BYTES];
        block.fill(0);
        block[0..4].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
        block[4..8].copy_from_slice(&seed.at(at, self.generation.0, &body).to_le_bytes());
        block[8..SEGMENT_HEADER_BYTES].copy_from_slice(&body);
    }

    /// Decodes the header of the segment at byte `at` of the shard's area.
    pub fn decode(seed: ChecksumSeed, at: u64, bytes: &[u8]) -> Option<SegmentHeader> {
        let mut reader = ByteReader::new(bytes.get(..SEGMENT_HEADER_BYTES)?);
        if reader.u32()? != SEGMENT_MAGIC {
            return None;
        }
        let crc = reader.u32()?;
        let header = SegmentHeader {
            segment: SegmentId(reader.u32()?),
            generation: Generation(reader.u32()?),
            stream: Stream::from_code(reader.u8()?)?,
        };
        let is_possible = header.generation <= Generation::MAX;
        (is_possible && seed.at(at, header.generation.0, &bytes[8..SEGMENT_HEADER_BYTES]) == crc)
            .then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    #[test]
    fn round_trip_and_every_flipped_bit() {
        let seed = ChecksumSeed::new(&[1; 16], ShardId(0));
        let header = SegmentHeader { segment: SegmentId(5), generation: Generation(8), stream: Stream::User };
        let mut block = vec![0xffu8; BLOCK_BYTES];
        header.encode(seed, 4096 * 7, &mut block);
        assert_eq!(SegmentHeader::decode(seed, 4096 * 7, &block), Some(header));
        assert_eq!(SegmentHeader::decode(seed, 4096 * 8, &block), None);
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(seed, 4096 * 7, &block), None, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
