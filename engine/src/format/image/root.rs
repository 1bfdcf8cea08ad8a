//! The last frame of an image, on which all else hangs.

use super::ROOT;
use super::place::ImageExtent;
use crate::format::frame::Stream;
use crate::format::{ByteReader, ByteWriter};
use crate::ids::{Generation, PartitionId, SegmentId, TableId};

/// The last frame of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageRoot {
    /// Frames of the image, the root not counted.
    pub frames: u64,
    /// Highest table id that the shard ever saw.
    pub highest_table: TableId,
    /// Highest partition id that the shard ever saw.
    pub highest_partition: PartitionId,
    /// No segment had a higher one when the root was made.
    pub highest_generation: Generation,
    /// Frames of each copy of the catalog.
    pub catalog_frames: u32,
    /// Frames of each copy of the directory.
    pub directory_frames: u32,
    /// Where both copies of the catalog lie.
    pub catalog: ImageExtent,
    /// Where both copies of the directory lie.
    pub directory: ImageExtent,
    /// The segments of the image, in order.
    pub segments: Vec<(SegmentId, Generation)>,
    /// All segments in use when the root was made: who they are, should their headers be damaged. The
    /// others were free.
    pub in_use: Vec<(SegmentId, Generation, Stream)>,
}

/// Bytes of a root that names no segment.
const FIXED_BYTES: u64 = 37 + 2 * ImageExtent::BYTES as u64;

impl ImageRoot {
    /// Bytes that the root of an image takes at most in a shard of so many segments.
    pub const fn most_bytes(segments: u32) -> u64 {
        FIXED_BYTES + (8 + 9) * segments as u64
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = ByteWriter::new();
        out.u8(ROOT).u64(self.frames).u32(self.highest_table.0).u32(self.highest_partition.0);
        out.u32(self.highest_generation.0).u32(self.catalog_frames).u32(self.directory_frames);
        self.catalog.encode(&mut out);
        self.directory.encode(&mut out);
        out.u32(self.segments.len() as u32);
        for (segment, generation) in &self.segments {
            out.u32(segment.0).u32(generation.0);
        }
        out.u32(self.in_use.len() as u32);
        for (segment, generation, stream) in &self.in_use {
            out.u32(segment.0).u32(generation.0).u8(stream.code());
        }
        out.into_bytes()
    }

    /// Reads it, behind the first byte of its payload.
    pub(super) fn decode(reader: &mut ByteReader<'_>) -> Option<ImageRoot> {
        let mut root = ImageRoot {
            frames: reader.u64()?,
            highest_table: TableId(reader.u32()?),
            highest_partition: PartitionId(reader.u32()?),
            highest_generation: Generation(reader.u32()?),
            catalog_frames: reader.u32()?,
            directory_frames: reader.u32()?,
            catalog: ImageExtent::decode(reader)?,
            directory: ImageExtent::decode(reader)?,
            ..ImageRoot::default()
        };
        for _ in 0..reader.u32()? {
            root.segments.push((SegmentId(reader.u32()?), Generation(reader.u32()?)));
        }
        for _ in 0..reader.u32()? {
            let (segment, generation) = (SegmentId(reader.u32()?), Generation(reader.u32()?));
            root.in_use.push((segment, generation, Stream::from_code(reader.u8()?)?));
        }
        Some(root)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ImagePayload, ImagePosition, decode};
    use super::*;

    #[test]
    fn a_root_reads_back() {
        let at = |segment, offset| ImagePosition { segment, offset };
        let root = ImageRoot {
            frames: 10,
            highest_table: TableId(6),
            highest_partition: PartitionId(700),
            highest_generation: Generation(8),
            catalog_frames: 2,
            directory_frames: 3,
            catalog: ImageExtent { from: at(0, 4096), to: at(0, 8192) },
            directory: ImageExtent { from: at(1, 4096), to: at(2, 8192) },
            segments: vec![(SegmentId(1), Generation(4)), (SegmentId(9), Generation(5))],
            in_use: vec![(SegmentId(2), Generation(3), Stream::Cleaning)],
        };
        let bytes = root.encode();
        assert_eq!(bytes.len() as u64, ImageRoot::most_bytes(2) - 9);
        assert_eq!(decode(&bytes), Some(ImagePayload::Root(root)));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "cut at {cut}");
        }
    }
}
