//! One segment, frame by frame: which of its bytes are what they should be.

use crate::catalog::Catalog;
use crate::checkpoint::root_room;
use crate::format::frame::{FRAME_HEADER_BYTES, Stream};
use crate::format::record::{RECORD_HEADER_BYTES, RecordKind};
use crate::format::segment::SegmentHeader;
use crate::format::superblock::{RootLocation, Superblock};
use crate::geometry::Geometry;
use crate::ids::{Generation, SegmentId};
use crate::limits::{BLOCK_BYTES, MAX_DAMAGED_PLACES};
use crate::scanner::{FoundFrame, SegmentScanner, for_each_record};
use crate::shard::Shard;
use crate::space::{SegmentState, Space};

/// A walk through a segment. Bytes are of the shard's area.
#[derive(Debug)]
pub struct Walk {
    pub segment: SegmentId,
    pub generation: Generation,
    stream: Stream,
    scanner: SegmentScanner,
    /// Where the next frame should begin.
    expected_at: u64,
    /// Where frames end.
    end: u64,
    /// Whether frames fill the segment up to there; else what is behind the last may never have been written.
    is_end_known: bool,
    /// `[from, to)` where nothing is what it should be, ascending.
    pub places: Vec<(u64, u64)>,
    /// Frames of the present image that are whole.
    pub image_frames: u64,
    /// A partition was being dropped: its records are counted and not found.
    saw_drop: bool,
}

/// What the walk could tell of the live records.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All are whole.
    Whole,
    /// Some are not found. They lie in these places, if they lie anywhere.
    Missing(Vec<(u64, u64)>),
}

impl Walk {
    /// Of a sealed segment that holds something.
    pub fn new(shard: &Shard, id: SegmentId) -> Walk {
        let place = &shard.place;
        let segment = shard.space.get(id);
        assert_eq!(segment.state, SegmentState::Sealed, "segment {id} is not scrubbed while it is written");
        let frames_at = place.geometry.segment_at(id) + BLOCK_BYTES as u64;
        let end = frames_at + segment.consumed_bytes;
        Walk {
            segment: id,
            generation: segment.generation,
            stream: segment.stream,
            scanner: SegmentScanner::new(place.seed, id, segment.generation, frames_at, end),
            expected_at: frames_at,
            end,
            is_end_known: segment.consumed_bytes < place.geometry.segment_payload_bytes(),
            places: Vec::new(),
            image_frames: 0,
            saw_drop: false,
        }
    }

    /// The bytes to be read: header and frames.
    pub fn extent(&self, shard: &Shard) -> (u64, u64) {
        let begin = shard.place.geometry.segment_at(self.segment);
        (begin, self.end - begin)
    }

    /// Whether the segment still holds what it held when the walk began.
    pub fn is_current(&self, space: &Space) -> bool {
        let segment = space.get(self.segment);
        let same = segment.generation == self.generation && segment.state == SegmentState::Sealed;
        same && segment.live_bytes > 0
    }

    /// The next bytes, zeros where the drive refused them.
    pub fn feed(&mut self, shard: &mut Shard, at: u64, bytes: &[u8]) {
        let begin = shard.place.geometry.segment_at(self.segment);
        let mut frames = bytes;
        if at == begin {
            let header = SegmentHeader::decode(shard.place.seed, begin, bytes);
            let wanted =
                SegmentHeader { segment: self.segment, generation: self.generation, stream: self.stream };
            if header != Some(wanted) {
                self.damaged(begin, begin + BLOCK_BYTES as u64);
            }
            frames = &bytes[BLOCK_BYTES..];
        }
        self.saw_drop |= !shard.catalog.dropping.is_empty();
        let Shard { catalog, space, place, superblock, .. } = shard;
        // The scanner lends frames while it is borrowed itself.
        let empty = SegmentScanner::new(place.seed, self.segment, self.generation, self.end, self.end);
        let mut scanner = std::mem::replace(&mut self.scanner, empty);
        scanner.feed(frames, |frame| match frame.header.stream {
            stream if stream != self.stream => {}
            Stream::Image => self.image_frame(&frame, superblock, &place.geometry),
            Stream::Journal => self.raw_frame(&frame),
            Stream::User | Stream::Cleaning => {
                let live_bytes = self.records(&frame, catalog, place.seed);
                space.watch.verified(frame.at + frame.bytes.len() as u64, live_bytes);
            }
        });
        self.scanner = scanner;
    }

    fn reached(&mut self, frame: &FoundFrame<'_>) {
        if frame.at > self.expected_at {
            self.damaged(self.expected_at, frame.at);
        }
        self.expected_at = frame.at + frame.bytes.len() as u64;
    }

    fn image_frame(&mut self, frame: &FoundFrame<'_>, superblock: &Superblock, geometry: &Geometry) {
        let begin = geometry.segment_at(self.segment);
        let is_there = |root: &RootLocation| {
            (root.segment, root.generation) == (self.segment, self.generation)
                && begin + u64::from(root.offset) == frame.at
        };
        let [is_first, is_copy] =
            superblock.roots.map_or([false; 2], |[root, copy]| [is_there(&root), is_there(&copy)]);
        if is_copy {
            // The room before it was left empty; frames that were there are missing among those that are counted.
            self.expected_at = frame.at;
        }
        self.raw_frame(frame);
        if is_first {
            // It was given as much room as it could need.
            self.expected_at = frame.at + root_room(geometry);
        }
        self.image_frames += u64::from(frame.whole && frame.header.durable.0 == superblock.checkpoint);
    }

    /// A frame that holds no records.
    fn raw_frame(&mut self, frame: &FoundFrame<'_>) {
        self.reached(frame);
        if !frame.whole {
            self.damaged(frame.at, self.expected_at);
        }
    }

    /// Looks at every record of a frame. Gives the bytes of those that are live.
    fn records(
        &mut self,
        frame: &FoundFrame<'_>,
        catalog: &Catalog,
        seed: crate::format::ChecksumSeed,
    ) -> u64 {
        self.reached(frame);
        let mut live_bytes = 0;
        let mut holes = Vec::new();
        let mut next_at = frame.at + FRAME_HEADER_BYTES as u64;
        for_each_record(seed, &frame.header, frame.at, frame.bytes, |record, location| {
            holes.push((next_at, location.offset()));
            next_at = location.offset() + u64::from(location.room());
            let is_live =
                record.kind == RecordKind::Put && catalog.holds(record.partition, record.key, location);
            live_bytes += if is_live { u64::from(location.room()) } else { 0 };
        });
        let payload_end = frame.at + FRAME_HEADER_BYTES as u64 + u64::from(frame.header.payload_bytes);
        holes.push((next_at, payload_end));
        if !frame.whole {
            // What is too short for a record is the room between two.
            let is_hole = |(from, to): &(u64, u64)| to.saturating_sub(*from) >= RECORD_HEADER_BYTES as u64;
            holes.into_iter().filter(is_hole).for_each(|(from, to)| self.damaged(from, to));
        }
        live_bytes
    }

    fn damaged(&mut self, from: u64, to: u64) {
        let is_full = self.places.len() >= MAX_DAMAGED_PLACES;
        match self.places.last_mut().filter(|_| is_full) {
            Some(last) => last.1 = to,
            None => self.places.push((from, to)),
        }
    }

    /// All bytes were fed: `verified_bytes` of live records were found whole and are live still.
    pub fn finish(&mut self, shard: &Shard, verified_bytes: u64) -> Verdict {
        let mut suspects = self.places.clone();
        if self.expected_at < self.end {
            if self.is_end_known {
                self.damaged(self.expected_at, self.end);
            }
            suspects.push((self.expected_at, self.end));
        }
        let live_bytes = shard.space.get(self.segment).live_bytes;
        let has_place = !self.places.is_empty();
        let holds_records = matches!(self.stream, Stream::User | Stream::Cleaning);
        if !holds_records || verified_bytes == live_bytes || (self.saw_drop && !has_place) {
            return Verdict::Whole;
        }
        if suspects.is_empty() {
            let begin = shard.place.geometry.segment_at(self.segment);
            suspects = vec![(begin, begin + u64::from(shard.place.geometry.segment_bytes))];
        }
        Verdict::Missing(suspects)
    }
}
