//! Places in an image: by the number of a segment among the image's own, and the byte in it.

use crate::format::{ByteReader, ByteWriter};
use crate::geometry::Geometry;
use crate::ids::{Generation, SegmentId};
use crate::limits::BLOCK_BYTES;

/// A place in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ImagePosition {
    /// Which of the image's segments, counted from 0.
    pub segment: u32,
    /// Byte of that segment.
    pub offset: u32,
}

/// Frames of an image that lie one behind the other, over several of its segments perhaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageExtent {
    /// Where the first begins.
    pub from: ImagePosition,
    /// Where the last ends, in its own segment.
    pub to: ImagePosition,
}

impl ImageExtent {
    /// Bytes of it in an image.
    pub const BYTES: usize = 16;

    /// Writes it.
    pub fn encode(&self, out: &mut ByteWriter) {
        out.u32(self.from.segment).u32(self.from.offset).u32(self.to.segment).u32(self.to.offset);
    }

    /// Reads it.
    pub fn decode(reader: &mut ByteReader<'_>) -> Option<ImageExtent> {
        let mut position = || Some(ImagePosition { segment: reader.u32()?, offset: reader.u32()? });
        Some(ImageExtent { from: position()?, to: position()? })
    }

    /// The pieces of the area that it covers, each in one segment: segment, generation, first byte and the one
    /// behind the last. `None` where it leaves the image's segments.
    pub fn pieces(
        &self,
        segments: &[(SegmentId, Generation)],
        geometry: &Geometry,
    ) -> Option<Vec<(SegmentId, Generation, u64, u64)>> {
        let ImageExtent { from, to } = *self;
        let is_block = |at: u32| at as usize >= BLOCK_BYTES && (at as usize).is_multiple_of(BLOCK_BYTES);
        let is_placed = |at: ImagePosition| is_block(at.offset) && at.offset <= geometry.segment_bytes;
        if from > to || to.segment as usize >= segments.len() || !is_placed(from) || !is_placed(to) {
            return None;
        }
        let mut pieces = Vec::new();
        for index in from.segment..=to.segment {
            let (segment, generation) = segments[index as usize];
            let begin = geometry.segment_at(segment);
            let first = if index == from.segment { from.offset } else { BLOCK_BYTES as u32 };
            let end = if index == to.segment { to.offset } else { geometry.segment_bytes };
            if first < end {
                pieces.push((segment, generation, begin + u64::from(first), begin + u64::from(end)));
            }
        }
        Some(pieces)
    }
}
