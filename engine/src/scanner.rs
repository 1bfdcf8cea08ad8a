//! Finds the frames of one segment in a stream of its bytes, damaged or not.

use crate::format::ChecksumSeed;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, Stream};
use crate::format::record::{RECORD_HEADER_BYTES, Record};
use crate::ids::{Generation, SegmentId};
use crate::limits::BLOCK_BYTES;
use crate::location::{Location, RECORD_ALIGN_BYTES};

/// What was found at a place of the segment.
#[derive(Debug)]
pub struct FoundFrame<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// Byte of the area where it begins.
    pub at: u64,
    /// Header, payload and padding, as far as the segment holds them.
    pub bytes: &'a [u8],
    /// Whether every record of it is whole.
    pub whole: bool,
}

/// Scans one segment. Feed it the segment's bytes after the header block, in order.
#[derive(Debug)]
pub struct SegmentScanner {
    seed: ChecksumSeed,
    segment: SegmentId,
    generation: Generation,
    pending: Vec<u8>,
    /// Byte of the area where `pending` begins.
    at: u64,
    end: u64,
}

impl SegmentScanner {
    /// Over bytes `[at, end)` of the area, which are frames of this segment's generation or refuse.
    pub fn new(
        seed: ChecksumSeed,
        segment: SegmentId,
        generation: Generation,
        at: u64,
        end: u64,
    ) -> SegmentScanner {
        assert!(at.is_multiple_of(BLOCK_BYTES as u64) && at <= end);
        SegmentScanner { seed, segment, generation, pending: Vec::new(), at, end }
    }

    /// Everything before this byte of the area is dealt with.
    pub fn examined(&self) -> u64 {
        self.at
    }

    /// The next bytes. Calls `each` for every frame that they complete.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(FoundFrame<'_>)) {
        self.pending.extend_from_slice(bytes);
        let mut done = 0;
        while let Some(step) = self.examine(&self.pending[done..], self.at + done as u64, &mut each) {
            done += step;
        }
        self.pending.drain(..done);
        self.at += done as u64;
    }

    /// Looks at the front of `rest`: how many bytes are dealt with, or `None` if more are needed.
    fn examine(&self, rest: &[u8], at: u64, each: &mut impl FnMut(FoundFrame<'_>)) -> Option<usize> {
        if rest.len() < BLOCK_BYTES {
            return None;
        }
        let header = FrameHeader::decode(self.seed, at, self.segment, self.generation, rest);
        let Some(header) = header else { return Some(BLOCK_BYTES) };
        let len = header.frame_len();
        if at + len as u64 > self.end {
            // A header that checks out and reaches beyond its segment was never written by us.
            return Some(BLOCK_BYTES);
        }
        let bytes = rest.get(..len)?;
        let whole = frame_is_whole(self.seed, &header, at, bytes);
        each(FoundFrame { header, at, bytes, whole });
        // Behind a torn frame another may lie at any block: its length cannot be trusted to have
        // been reached, but nothing else was ever placed within it.
        Some(len)
    }
}

/// Whether the frame's payload is what its header says.
pub fn frame_is_whole(seed: ChecksumSeed, header: &FrameHeader, at: u64, bytes: &[u8]) -> bool {
    let payload_end = FRAME_HEADER_BYTES + header.payload_bytes as usize;
    let Some(payload) = bytes.get(FRAME_HEADER_BYTES..payload_end) else { return false };
    if matches!(header.stream, Stream::Image | Stream::Journal) {
        return crc32c::crc32c(payload) == header.detail;
    }
    let mut records = 0u32;
    let mut offset = 0;
    while offset < payload.len() {
        let record_at = at + (FRAME_HEADER_BYTES + offset) as u64;
        match Record::decode(seed, record_at, header.generation.0, &payload[offset..]) {
            Ok(record) => offset += record.room(),
            Err(_) => return false,
        }
        records += 1;
    }
    offset == payload.len() && records == header.detail
}

/// Calls `each` for every record of a frame, in order; of a damaged frame, for every record in it that is
/// whole, found by trying every place behind the damage where one may begin.
pub fn for_each_record(
    seed: ChecksumSeed,
    header: &FrameHeader,
    at: u64,
    bytes: &[u8],
    mut each: impl FnMut(Record<'_>, Location),
) {
    let payload_end = (FRAME_HEADER_BYTES + header.payload_bytes as usize).min(bytes.len());
    let mut offset = FRAME_HEADER_BYTES;
    while offset + RECORD_HEADER_BYTES <= payload_end {
        let record_at = at + offset as u64;
        match Record::decode(seed, record_at, header.generation.0, &bytes[offset..payload_end]) {
            Ok(record) => {
                let location = Location::new(record_at, record.len());
                each(record, location);
                offset += location.room() as usize;
            }
            Err(_) => offset += RECORD_ALIGN_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::PartitionSet;
    use crate::format::record::RecordKind;
    use crate::ids::{FrameNumber, NodeId, PartitionId, Seq, ShardId};

    const AT: u64 = 3 << 12;

    /// A frame's bytes, and where its records begin.
    fn frame(seed: ChecksumSeed, lens: &[usize]) -> (FrameHeader, Vec<u8>, Vec<usize>) {
        let (mut bytes, mut places) = (vec![0; FRAME_HEADER_BYTES], Vec::new());
        for len in lens {
            let record = Record {
                kind: RecordKind::Put,
                seq: Seq { wall_ns: 1, counter: bytes.len() as u32, node: NodeId(0) },
                partition: PartitionId(1),
                key: b"k",
                value: &vec![7; len - RECORD_HEADER_BYTES - 1],
                expires: None,
            };
            places.push(bytes.len());
            let begin = bytes.len();
            bytes.resize(begin + record.room(), 0);
            record.encode(seed, AT + begin as u64, 9, &mut bytes[begin..]);
        }
        let header = FrameHeader {
            stream: Stream::User,
            segment: SegmentId(0),
            generation: Generation(9),
            payload_bytes: (bytes.len() - FRAME_HEADER_BYTES) as u32,
            number: FrameNumber(1),
            durable: FrameNumber(0),
            detail: lens.len() as u32,
            partitions: PartitionSet::ALL,
        };
        (header, bytes, places)
    }

    #[test]
    fn records_behind_damage_are_found_wherever_they_begin() {
        let seed = ChecksumSeed::new(&[7; 16], ShardId(1));
        let (header, whole, places) = frame(seed, &[31, 40, 47, 90, 9000, 33]);
        assert!(frame_is_whole(seed, &header, AT, &whole));
        for damaged in 0..places.len() {
            let mut bytes = whole.clone();
            // Its key's length: where the next one begins is not known then.
            bytes[places[damaged] + RECORD_HEADER_BYTES - 1] ^= 0x81;
            assert!(!frame_is_whole(seed, &header, AT, &bytes));
            let mut found = Vec::new();
            for_each_record(seed, &header, AT, &bytes, |_, at| found.push((at.offset() - AT) as usize));
            let mut left = places.clone();
            left.remove(damaged);
            assert_eq!(found, left, "all but {damaged}");
        }
    }

    #[test]
    fn a_frame_that_ends_within_a_record_s_room_is_not_whole() {
        let seed = ChecksumSeed::new(&[7; 16], ShardId(1));
        let (header, bytes, _) = frame(seed, &[31, 33]);
        let short = FrameHeader { payload_bytes: header.payload_bytes - 7, ..header };
        assert!(!frame_is_whole(seed, &short, AT, &bytes));
    }
}
