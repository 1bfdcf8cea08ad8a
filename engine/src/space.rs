//! The segments of a shard: who is free, who holds what, and what may be taken by whom.

use crate::format::frame::Stream;
use crate::geometry::Geometry;
use crate::ids::{Generation, SegmentId};
use crate::limits::BLOCK_BYTES;
use crate::location::Location;

/// Segments that only cleaning may take from the last free ones.
const CLEANING_RESERVE: u32 = 2;
/// Segments that users' deletes may take when puts may not.
const DELETE_RESERVE: u32 = 2;
/// Most of the usable payload that live records may fill, in percent: the rest is what cleaning needs
/// to find segments worth cleaning.
const LIVE_PERCENT: u64 = 92;
/// Segments that are open at most: two of the user stream, two of the cleaning stream.
const OPEN_SEGMENTS: u32 = 4;

/// What a segment is doing. Legal transitions: Free -> Opening -> Open -> Sealed -> (Discarding ->)
/// Free, and Opening -> Free when its header could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// Holds nothing.
    Free,
    /// Its header is being written.
    Opening,
    /// Frames are appended to it, or will be.
    Open,
    /// Immutable.
    Sealed,
    /// Empty, and being discarded on the drive.
    Discarding,
}

/// One segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// What it is doing.
    pub state: SegmentState,
    /// Its generation; 0 where it was never opened.
    pub generation: Generation,
    /// What was appended to it.
    pub stream: Stream,
    /// Bytes of live records; of an image segment, 1 while its image is in use.
    pub live_bytes: u64,
    /// Bytes of frames in it, all of its payload where not known.
    pub consumed_bytes: u64,
    /// Reads under way. A segment with any is not reused.
    pub pins: u32,
    /// Cleaning could not move all its live records.
    pub damaged: bool,
    /// The shard's count of openings when it was sealed: its age.
    pub sealed_at: u32,
}

/// Who wants a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Users' writes of any kind.
    Put,
    /// Users' deletes and catalog changes alone.
    Delete,
    /// Cleaning.
    Cleaning,
    /// An image.
    Image,
}

/// All segments of a shard.
#[derive(Debug)]
pub struct Space {
    geometry: Geometry,
    segments: Vec<Segment>,
    free: Vec<SegmentId>,
    /// Sealed segments whose live bytes fell to zero and that were not freed yet.
    emptied: Vec<SegmentId>,
    live_bytes: u64,
    /// The largest record that was live since the start.
    largest_record_bytes: u64,
    highest_generation: Generation,
    image_segments_wanted: u32,
    /// Segments that records point to may not be known yet.
    recovering: bool,
}

impl Space {
    /// All free, none ever opened.
    pub fn new(geometry: Geometry) -> Space {
        let segment = Segment {
            state: SegmentState::Free,
            generation: Generation(0),
            stream: Stream::User,
            live_bytes: 0,
            consumed_bytes: 0,
            pins: 0,
            damaged: false,
            sealed_at: 0,
        };
        let count = geometry.segments_per_shard;
        Space {
            geometry,
            segments: vec![segment; count as usize],
            // Taken from the end: the lowest first.
            free: (0..count).rev().map(SegmentId).collect(),
            emptied: Vec::new(),
            live_bytes: 0,
            largest_record_bytes: 0,
            highest_generation: Generation(0),
            image_segments_wanted: 1,
            recovering: true,
        }
    }

    /// Recovery found this segment's header: it is sealed, its contents not known yet.
    pub fn found(&mut self, id: SegmentId, generation: Generation, stream: Stream) {
        let segment = &mut self.segments[id.0 as usize];
        assert_eq!(segment.state, SegmentState::Free, "segment {id} found twice");
        segment.state = SegmentState::Sealed;
        segment.generation = generation;
        segment.stream = stream;
        segment.consumed_bytes = self.geometry.segment_payload_bytes();
        segment.sealed_at = generation.0;
        self.saw_generation(generation);
    }

    /// A generation was in use: the next ones are beyond it.
    pub fn saw_generation(&mut self, generation: Generation) {
        self.highest_generation = self.highest_generation.max(generation);
    }

    /// Recovery has seen all segments: the list of free ones is made anew.
    pub fn finish_recovery(&mut self) {
        self.recovering = false;
        for segment in &mut self.segments {
            if segment.state == SegmentState::Free && segment.live_bytes > 0 {
                // Records point to a segment of which nothing is left: they will be found damaged.
                segment.state = SegmentState::Sealed;
                segment.damaged = true;
            }
        }
        self.free = self.ids().filter(|id| self.get(*id).state == SegmentState::Free).collect();
        self.free.reverse();
        self.emptied = self.ids().filter(|id| self.is_empty_and_sealed(*id)).collect();
    }

    /// Whether recovery has found the segment.
    pub fn is_known(&self, id: SegmentId) -> bool {
        self.get(id).state != SegmentState::Free
    }

    /// All segments that are not free.
    pub fn in_use(&self) -> Vec<(SegmentId, Generation, Stream)> {
        let entry = |id: SegmentId| (id, self.get(id).generation, self.get(id).stream);
        self.ids().filter(|id| self.is_known(*id)).map(entry).collect()
    }

    /// All segments.
    pub fn ids(&self) -> impl Iterator<Item = SegmentId> + use<> {
        (0..self.segments.len() as u32).map(SegmentId)
    }

    /// One segment.
    pub fn get(&self, id: SegmentId) -> &Segment {
        &self.segments[id.0 as usize]
    }

    /// The segment that a record lies in.
    pub fn of(&self, location: Location) -> (SegmentId, &Segment) {
        let id = self.geometry.segment_of(location.offset());
        (id, self.get(id))
    }

    /// Segments in all, and free.
    pub fn counts(&self) -> (u32, u32) {
        (self.segments.len() as u32, self.free.len() as u32)
    }

    /// No segment has a higher one.
    pub fn highest_generation(&self) -> Generation {
        self.highest_generation
    }

    /// Bytes of live records in all.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// So many bytes of index image are expected: their segments are kept back, old and new.
    pub fn expect_image(&mut self, image_bytes: u64) {
        let payload = self.geometry.segment_payload_bytes() * 3 / 4;
        self.image_segments_wanted = image_bytes.div_ceil(payload).max(1) as u32;
    }

    /// Free segments that puts leave alone.
    pub fn reserve(&self) -> u32 {
        self.image_segments_wanted + CLEANING_RESERVE + DELETE_RESERVE
    }

    /// The most bytes of live records that are taken, records of `record_bytes` among them.
    pub fn live_limit_bytes(&self, record_bytes: u64) -> u64 {
        // The image in use, the reserve for the next, and the open segments of the two streams.
        let kept_back = self.reserve() + self.image_segments_wanted + OPEN_SEGMENTS;
        let usable = u64::from((self.segments.len() as u32).saturating_sub(kept_back));
        let payload = self.geometry.segment_payload_bytes();
        // So full on average, some segment is still worth cleaning.
        let fullest = payload.saturating_sub(self.least_gain_bytes(record_bytes)) * 31 / 32;
        usable * fullest.min(payload * LIVE_PERCENT / 100)
    }

    /// A segment is worth cleaning when it holds so many bytes fewer than it could: what moving its
    /// records may waste behind the last one of a segment and of its frames, and then some.
    fn least_gain_bytes(&self, record_bytes: u64) -> u64 {
        let largest = self.largest_record_bytes.max(record_bytes);
        largest + self.geometry.segment_payload_bytes() / 32 + 2 * BLOCK_BYTES as u64
    }

    /// Whether there is a free segment for the claim.
    pub fn may_take(&self, claim: Claim) -> bool {
        let floor = match claim {
            Claim::Put => self.reserve(),
            Claim::Delete => self.image_segments_wanted + CLEANING_RESERVE,
            Claim::Cleaning => self.image_segments_wanted,
            Claim::Image => 0,
        };
        self.free.len() as u32 > floor
    }

    /// Takes a free segment for a stream, if the claim may have one. It gets its new generation here.
    pub fn take(&mut self, claim: Claim, stream: Stream) -> Option<(SegmentId, Generation)> {
        if !self.may_take(claim) {
            return None;
        }
        let id = self.free.pop()?;
        self.highest_generation = Generation(self.highest_generation.0 + 1);
        let generation = self.highest_generation;
        let segment = &mut self.segments[id.0 as usize];
        assert_eq!((segment.state, segment.pins), (SegmentState::Free, 0), "segment {id}");
        assert_eq!(segment.live_bytes, 0, "a free segment holds nothing");
        segment.state = SegmentState::Opening;
        segment.generation = generation;
        segment.stream = stream;
        segment.consumed_bytes = 0;
        segment.damaged = false;
        Some((id, generation))
    }

    /// The header is durable.
    pub fn opened(&mut self, id: SegmentId) {
        self.transition(id, SegmentState::Opening, SegmentState::Open);
    }

    /// Nothing more is appended; it holds `consumed_bytes` of frames.
    pub fn seal(&mut self, id: SegmentId, consumed_bytes: u64) {
        self.transition(id, SegmentState::Open, SegmentState::Sealed);
        let age = self.highest_generation.0;
        let segment = &mut self.segments[id.0 as usize];
        segment.consumed_bytes = consumed_bytes;
        segment.sealed_at = age;
        if segment.live_bytes == 0 {
            self.emptied.push(id);
        }
    }

    fn transition(&mut self, id: SegmentId, from: SegmentState, to: SegmentState) {
        let segment = &mut self.segments[id.0 as usize];
        assert_eq!(segment.state, from, "segment {id} cannot become {to:?}");
        segment.state = to;
    }

    /// A record became live.
    pub fn add_live(&mut self, location: Location) {
        let id = self.geometry.segment_of(location.offset());
        let segment = &mut self.segments[id.0 as usize];
        let known = segment.state != SegmentState::Free;
        assert!(known || self.recovering, "live record in free segment {id}");
        let len = u64::from(location.len());
        segment.live_bytes += len;
        self.live_bytes += len;
        self.largest_record_bytes = self.largest_record_bytes.max(len);
    }

    /// A record died.
    pub fn remove_live(&mut self, location: Location) {
        let id = self.geometry.segment_of(location.offset());
        let segment = &mut self.segments[id.0 as usize];
        let len = u64::from(location.len());
        assert!(segment.live_bytes >= len, "segment {id} has {} live bytes, not {len}", segment.live_bytes);
        segment.live_bytes -= len;
        self.live_bytes -= len;
        if segment.live_bytes == 0 && segment.state == SegmentState::Sealed {
            self.emptied.push(id);
        }
    }

    /// An image uses this segment, or no longer does.
    pub fn set_image_in_use(&mut self, id: SegmentId, in_use: bool) {
        let segment = &mut self.segments[id.0 as usize];
        assert_eq!(segment.stream, Stream::Image, "segment {id} is no image's");
        segment.live_bytes = u64::from(in_use);
        if !in_use && segment.state == SegmentState::Sealed {
            self.emptied.push(id);
        }
    }

    /// A read begins.
    pub fn pin(&mut self, id: SegmentId) {
        self.segments[id.0 as usize].pins += 1;
    }

    /// A read has ended.
    pub fn unpin(&mut self, id: SegmentId) {
        let segment = &mut self.segments[id.0 as usize];
        assert!(segment.pins > 0, "segment {id} is not pinned");
        segment.pins -= 1;
        if segment.pins == 0 && segment.live_bytes == 0 && segment.state == SegmentState::Sealed {
            self.emptied.push(id);
        }
    }

    /// Cleaning could not empty it: it is left alone until its records die.
    pub fn mark_damaged(&mut self, id: SegmentId) {
        self.segments[id.0 as usize].damaged = true;
    }

    fn is_empty_and_sealed(&self, id: SegmentId) -> bool {
        let segment = self.get(id);
        segment.state == SegmentState::Sealed && segment.live_bytes == 0
    }

    /// Whether a log replay could still need the segment's frames, given the durable checkpoint.
    pub fn is_before(&self, id: SegmentId, user_from: Generation, cleaning_from: Generation) -> bool {
        let segment = self.get(id);
        match segment.stream {
            Stream::User => segment.generation < user_from,
            Stream::Cleaning => segment.generation < cleaning_from,
            Stream::Image => true,
        }
    }

    /// Takes the emptied segments that may be freed: not read, not needed by a replay. The others
    /// are looked at again when that changes.
    pub fn take_emptied(&mut self, user_from: Generation, cleaning_from: Generation) -> Vec<SegmentId> {
        let candidates = std::mem::take(&mut self.emptied);
        let mut taken = Vec::new();
        for id in candidates {
            let fit = self.is_empty_and_sealed(id) && self.get(id).pins == 0;
            if fit && self.is_before(id, user_from, cleaning_from) && !taken.contains(&id) {
                taken.push(id);
            }
        }
        taken
    }

    /// A checkpoint became durable: look again at every sealed, empty segment.
    pub fn recheck_emptied(&mut self) {
        self.emptied = self.ids().filter(|id| self.is_empty_and_sealed(*id)).collect();
    }

    /// An emptied segment is free at once, or is being discarded first.
    pub fn free(&mut self, id: SegmentId, discard: bool) {
        let to = if discard { SegmentState::Discarding } else { SegmentState::Free };
        self.transition(id, SegmentState::Sealed, to);
        if !discard {
            self.free.insert(0, id);
        }
    }

    /// The discard has ended.
    pub fn discarded(&mut self, id: SegmentId) {
        self.transition(id, SegmentState::Discarding, SegmentState::Free);
        self.free.insert(0, id);
    }

    /// Bytes that cleaning this segment gives back, if it is worth it.
    fn gain_bytes(&self, id: SegmentId) -> Option<u64> {
        let segment = self.get(id);
        let sealed = segment.state == SegmentState::Sealed && segment.stream != Stream::Image;
        let gain = self.geometry.segment_payload_bytes().saturating_sub(segment.live_bytes);
        (sealed && !segment.damaged && gain >= self.least_gain_bytes(0)).then_some(gain)
    }

    /// Whether a checkpoint from which a replay begins at these generations would let segments be freed
    /// or cleaned that the durable one, with its own, does not.
    pub fn checkpoint_would_help(
        &self,
        durable: (Generation, Generation),
        next: (Generation, Generation),
    ) -> bool {
        self.ids().any(|id| {
            let gains = self.is_empty_and_sealed(id) || self.gain_bytes(id).is_some();
            gains && !self.is_before(id, durable.0, durable.1) && self.is_before(id, next.0, next.1)
        })
    }

    /// Whether segments come free without anything being cleaned: reads of emptied ones, and discards.
    pub fn is_freeing(&self) -> bool {
        self.segments.iter().any(|segment| {
            let read = segment.state == SegmentState::Sealed && segment.live_bytes == 0 && segment.pins > 0;
            read || segment.state == SegmentState::Discarding
        })
    }

    /// The segment whose cleaning gains most for what it costs, among those that no replay needs.
    /// Cost-benefit of Rosenblum and Ousterhout (LFS, 1992): (1 - u) * age / (1 + u).
    pub fn victim(&self, user_from: Generation, cleaning_from: Generation) -> Option<SegmentId> {
        let payload = self.geometry.segment_payload_bytes();
        let now = self.highest_generation.0;
        let mut best = None;
        for id in self.ids() {
            let segment = self.get(id);
            let Some(gain) = self.gain_bytes(id) else { continue };
            if segment.live_bytes == 0 || !self.is_before(id, user_from, cleaning_from) {
                continue;
            }
            let age = u64::from(now.saturating_sub(segment.sealed_at)) + 1;
            // In whole numbers: gain * age * 1024 / (payload + live).
            let score = u128::from(gain) * u128::from(age) * 1024 / u128::from(payload + segment.live_bytes);
            if best.is_none_or(|(top, _)| score > top) {
                best = Some((score, id));
            }
        }
        best.map(|(_, id)| id)
    }
}
