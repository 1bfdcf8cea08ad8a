//! The place where a stream appends: its open segment, and the next one, opened ahead of need.

use crate::format::ChecksumSeed;
use crate::format::frame::Stream;
use crate::format::journal::LogPosition;
use crate::format::segment::SegmentHeader;
use crate::geometry::Geometry;
use crate::ids::{BufferId, DriveOffset, Generation, SegmentId};
use crate::io::{Io, Purpose};
use crate::limits::BLOCK_BYTES;
use crate::seam::Op;
use crate::space::{Claim, Space};

/// What appending needs to know of the shard.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The drive's division.
    pub geometry: Geometry,
    /// Where the shard's area begins.
    pub area_at: DriveOffset,
    /// Start of the shard's checksums.
    pub seed: ChecksumSeed,
}

/// A segment being appended to.
#[derive(Debug, Clone, Copy)]
struct Current {
    segment: SegmentId,
    generation: Generation,
    claim: Claim,
    /// Byte of the segment where the next frame goes.
    offset: u64,
}

/// A segment whose header is on its way.
#[derive(Debug)]
struct Next {
    segment: SegmentId,
    generation: Generation,
    claim: Claim,
    buffer: BufferId,
    ready: bool,
}

/// One stream's head.
#[derive(Debug)]
pub struct AppendHead {
    stream: Stream,
    place: Place,
    current: Option<Current>,
    next: Option<Next>,
    /// A frame did not fit into the present segment, and the next is not ready.
    is_wanted: bool,
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy)]
pub struct FramePlace {
    /// The segment.
    pub segment: SegmentId,
    /// Its generation.
    pub generation: Generation,
    /// Byte of the area.
    pub at: u64,
    /// Bytes that are left in the segment.
    pub room: u64,
}

impl AppendHead {
    /// With no segment yet.
    pub fn new(stream: Stream, place: Place) -> AppendHead {
        AppendHead { stream, place, current: None, next: None, is_wanted: false }
    }

    /// Where frames begin that are not yet written, if a segment is open for them.
    pub fn position(&self) -> Option<LogPosition> {
        let next = self.next.as_ref().map(|next| (next.generation, BLOCK_BYTES as u64));
        let (generation, offset) =
            self.current.map(|current| (current.generation, current.offset)).or(next)?;
        Some(LogPosition { generation, offset: offset as u32 })
    }

    /// The segment being appended to.
    pub fn segment(&self) -> Option<SegmentId> {
        self.current.map(|current| current.segment)
    }

    /// That one, and the next, opened or being opened.
    pub fn segments(&self) -> impl Iterator<Item = SegmentId> + use<> {
        let next = self.next.as_ref().map(|next| next.segment);
        self.segment().into_iter().chain(next)
    }

    /// By what claim the segment was taken where a frame of `len` bytes would go.
    pub fn claim_for(&self, len: u64) -> Option<Claim> {
        let segment_bytes = u64::from(self.place.geometry.segment_bytes);
        match &self.current {
            Some(current) if current.offset + len <= segment_bytes => Some(current.claim),
            _ => self.next.as_ref().map(|next| next.claim),
        }
    }

    /// Where a frame of `len` bytes would go; moves on to the next segment where it must. `None` means
    /// that the next segment is not ready.
    pub fn place_for(&mut self, len: u64, space: &mut Space) -> Option<FramePlace> {
        assert!(len <= self.place.geometry.segment_payload_bytes(), "frame of {len} bytes");
        let segment_bytes = u64::from(self.place.geometry.segment_bytes);
        let fits = |current: &Current| current.offset + len <= segment_bytes;
        if !self.current.as_ref().is_some_and(fits) {
            if !self.next.as_ref().is_some_and(|next| next.ready) {
                self.is_wanted = true;
                return None;
            }
            let next = self.next.take()?;
            self.seal(space);
            let offset = BLOCK_BYTES as u64;
            let Next { segment, generation, claim, .. } = next;
            self.current = Some(Current { segment, generation, claim, offset });
        }
        let current = self.current?;
        Some(FramePlace {
            segment: current.segment,
            generation: current.generation,
            at: self.place.geometry.segment_at(current.segment) + current.offset,
            room: segment_bytes - current.offset,
        })
    }

    /// Leaves room behind in the open segment, so that a frame of `len` bytes ends where that does. Gives its place.
    pub fn skip_to_end(&mut self, len: u64) -> FramePlace {
        let current = self.current.as_mut().expect("there is room for the frame in an open segment");
        let at = u64::from(self.place.geometry.segment_bytes) - len;
        assert!(current.offset <= at, "the last {len} bytes of segment {} are taken", current.segment);
        current.offset = at;
        FramePlace {
            segment: current.segment,
            generation: current.generation,
            at: self.place.geometry.segment_at(current.segment) + at,
            room: len,
        }
    }

    /// A frame waits for which the present segment has no room.
    pub fn want_next(&mut self) {
        self.is_wanted = true;
    }

    /// A frame of `len` bytes was placed where `place_for` said.
    pub fn advance(&mut self, len: u64) {
        let current = self.current.as_mut().expect("a frame was placed in an open segment");
        current.offset += len;
        assert!(current.offset <= u64::from(self.place.geometry.segment_bytes));
    }

    /// Appends no more to the present segment.
    pub fn seal(&mut self, space: &mut Space) {
        if let Some(current) = self.current.take() {
            space.seal(current.segment, current.offset - BLOCK_BYTES as u64);
        }
    }

    /// Appends no more at all: seals the present segment, and the next where it was opened for nothing.
    pub fn finish(&mut self, space: &mut Space) {
        assert!(!self.is_opening(), "a header is on its way");
        self.seal(space);
        if let Some(next) = self.next.take() {
            space.seal(next.segment, 0);
        }
    }

    /// Whether a good part of a segment is open, or on its way.
    pub fn has_room(&self) -> bool {
        let half = u64::from(self.place.geometry.segment_bytes) / 2;
        self.next.is_some() || self.current.is_some_and(|current| current.offset <= half)
    }

    /// Whether a segment is on its way.
    pub fn is_opening(&self) -> bool {
        self.next.as_ref().is_some_and(|next| !next.ready)
    }

    /// Opens the next segment when the present one is half full or has no room for the frame at hand, if
    /// the claim may have one. Gives the segment that was taken.
    pub fn open_ahead(&mut self, claim: Claim, space: &mut Space, io: &mut Io<'_>) -> Option<SegmentId> {
        let half = u64::from(self.place.geometry.segment_bytes) / 2;
        let is_early = self.current.is_some_and(|current| current.offset < half) && !self.is_wanted;
        if is_early { None } else { self.open_next(claim, space, io) }
    }

    /// Opens the next segment only when the present one has no room for a frame of `len` bytes: for a
    /// stream that is no longer than it must be.
    pub fn open_for(
        &mut self,
        len: u64,
        claim: Claim,
        space: &mut Space,
        io: &mut Io<'_>,
    ) -> Option<SegmentId> {
        let room = |current: &Current| u64::from(self.place.geometry.segment_bytes) - current.offset;
        if self.current.as_ref().is_some_and(|current| room(current) >= len) {
            return None;
        }
        self.open_next(claim, space, io)
    }

    fn open_next(&mut self, claim: Claim, space: &mut Space, io: &mut Io<'_>) -> Option<SegmentId> {
        if self.next.is_some() {
            return None;
        }
        let buffer = io.buffers.acquire(BLOCK_BYTES)?;
        let Some((segment, generation)) = space.take(claim, self.stream) else {
            io.buffers.release(buffer);
            return None;
        };
        let header = SegmentHeader { segment, generation, stream: self.stream };
        let at = self.place.geometry.segment_at(segment);
        header.encode(self.place.seed, at, io.buffers.bytes_mut(buffer));
        io.start(Op::Write {
            token: Purpose::SegmentHeader.token(u64::from(segment.0)),
            buffer,
            at: DriveOffset(self.place.area_at.0 + at),
            len: BLOCK_BYTES as u32,
            durable: true,
        });
        self.next = Some(Next { segment, generation, claim, buffer, ready: false });
        self.is_wanted = false;
        Some(segment)
    }

    /// A segment's header was written; says whether the segment is this stream's.
    pub fn header_written(&mut self, segment: SegmentId, space: &mut Space, io: &mut Io<'_>) -> bool {
        let Some(next) = self.next.as_mut().filter(|next| next.segment == segment) else { return false };
        assert!(!next.ready, "header of segment {segment} written twice");
        next.ready = true;
        io.buffers.release(next.buffer);
        space.opened(segment);
        true
    }
}
