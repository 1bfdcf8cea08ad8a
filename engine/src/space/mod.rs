//! The segments of a shard: who is free, who holds what, and what may be taken by whom.

mod audit;
mod census;
mod found;
mod reserve;
#[cfg(test)]
mod tests;
mod victim;

pub use self::audit::Recount;
pub use self::census::Census;
pub use self::reserve::{ImageProgress, IndexNeed};

use crate::format::frame::Stream;
use crate::geometry::Geometry;
use crate::ids::{FrameNumber, Generation, SegmentId};
use crate::length_classes::{LENGTHS, length_class};
use crate::lifetime::{WriteClock, to_hint};
use crate::location::Location;
use crate::scrub::watch::Watch;

/// Lifetimes that a segment remembers, for its records: one a KiB.
const BYTES_PER_HINT: u64 = 1 << 10;

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
    /// Bytes of live records; of a segment of images or of the journal, 1 more while it is in use.
    pub live_bytes: u64,
    /// Bytes of frames in it, all of its payload where not known.
    pub consumed_bytes: u64,
    /// Reads under way. A segment with any is not reused.
    pub pins: u32,
    /// Cleaning could not move all its live records.
    pub damaged: bool,
    /// The highest number of a user or cleaning frame in it.
    last_frame: FrameNumber,
    /// The journal frame that says that it is empty.
    emptied_at: FrameNumber,
    /// It is in the list of emptied segments.
    is_listed: bool,
    /// Lifetimes of what its records replaced, in the order of the records; of user segments.
    pub hints: Vec<u8>,
    /// How many were considered for that.
    records: usize,
    /// Records' bytes, and the sum over them of when each was written.
    written: (u64, u128),
    /// How it fades.
    fade: Fade,
}

/// Two looks at a sealed segment's live bytes: how fast its records die.
#[derive(Debug, Clone, Copy, Default)]
struct Fade {
    sealed_at: u64,
    /// When, and live bytes then.
    before: (u64, u64),
    last: (u64, u64),
}

/// How far a restart needs segments no more.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    /// Entries up to this journal frame are durable, in the journal or in an image.
    pub journal: FrameNumber,
    /// User frames up to this one are covered by them.
    pub user: FrameNumber,
    /// Cleaning frames up to this one are durable and applied.
    pub cleaning: FrameNumber,
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
    /// The journal.
    Journal,
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
    /// Live records by length.
    lengths: Box<[u64; LENGTHS]>,
    highest_generation: Generation,
    /// Free segments that are kept for the next image, or for the rest of one that is being written.
    kept_for_image: u32,
    /// Free segments that journal and cleaning leave to the image with which a wasteful journal is to begin anew.
    kept_for_anew: u32,
    image_is_written: bool,
    /// Free segments that are kept for users' deletes.
    kept_for_deletes: u32,
    journal_segments_wanted: u32,
    need: IndexNeed,
    /// Segments that the journal has.
    journal_segments: u32,
    /// The journal frame that says what was applied last.
    pub journal_position: FrameNumber,
    /// Segments that records point to may not be known yet, and what is live neither.
    recovering: bool,
    /// What is applied was written before the start.
    replaying: bool,
    lanes: u32,
    /// What ages are measured by.
    pub clock: WriteClock,
    /// The segment that the scrub walks through.
    pub watch: Watch,
}

impl Space {
    /// All free, none ever opened; cleaning has so many lanes.
    pub fn new(geometry: Geometry, lanes: u32) -> Space {
        let segment = Segment {
            state: SegmentState::Free,
            generation: Generation(0),
            stream: Stream::User,
            live_bytes: 0,
            consumed_bytes: 0,
            pins: 0,
            damaged: false,
            last_frame: FrameNumber(0),
            emptied_at: FrameNumber(0),
            is_listed: false,
            hints: Vec::new(),
            records: 0,
            written: (0, 0),
            fade: Fade::default(),
        };
        let count = geometry.segments_per_shard;
        Space {
            geometry,
            segments: vec![segment; count as usize],
            // Taken from the end: the lowest first.
            free: (0..count).rev().map(SegmentId).collect(),
            emptied: Vec::new(),
            live_bytes: 0,
            lengths: Box::new([0; LENGTHS]),
            highest_generation: Generation(0),
            kept_for_image: 1,
            kept_for_anew: 0,
            image_is_written: false,
            kept_for_deletes: 0,
            journal_segments_wanted: 1,
            need: IndexNeed::default(),
            journal_segments: 0,
            journal_position: FrameNumber(0),
            recovering: true,
            replaying: true,
            lanes,
            clock: WriteClock::new(geometry.area_bytes()),
            watch: Watch::default(),
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
        self.journal_segments += u32::from(stream == Stream::Journal);
        self.saw_generation(generation);
    }

    /// Recovery has replayed user frames up to this one, from a segment of this generation on.
    pub fn replayed_user(&mut self, from: Generation, upto: FrameNumber) {
        for segment in &mut self.segments {
            if segment.stream == Stream::User && segment.generation >= from {
                segment.last_frame = upto;
            }
        }
    }

    /// A generation was in use: the next ones are beyond it.
    pub fn saw_generation(&mut self, generation: Generation) {
        self.highest_generation = self.highest_generation.max(generation);
    }

    /// The shard serves from now on. What is live is not known before all partitions are loaded: until then
    /// nothing is freed but segments of old images and journals.
    pub fn begin_serving(&mut self) {
        self.replaying = false;
        self.list_free_and_emptied();
    }

    /// Whether a record would lie in a segment that was found free.
    pub fn is_stray(&self, location: Location) -> bool {
        let (_, segment) = self.of(location);
        segment.state == SegmentState::Free && segment.generation > Generation(0)
    }

    /// Whether indexes point to free segments.
    pub fn has_strays(&self) -> bool {
        self.segments.iter().any(|segment| segment.state == SegmentState::Free && segment.live_bytes > 0)
    }

    /// All that is live is known.
    pub fn finish_recovery(&mut self) {
        self.recovering = false;
        for segment in &mut self.segments {
            if segment.state == SegmentState::Free && segment.live_bytes > 0 {
                // Nothing tells any more what it is. What records of it cannot be read is found damaged.
                segment.state = SegmentState::Sealed;
                segment.damaged = true;
            }
        }
        self.list_free_and_emptied();
    }

    /// Makes both lists anew. What nothing points to is emptied.
    fn list_free_and_emptied(&mut self) {
        self.free = self.ids().filter(|id| self.get(*id).state == SegmentState::Free).collect();
        self.free.reverse();
        self.emptied = self.ids().filter(|id| self.is_empty_and_sealed(*id)).collect();
        for id in self.ids() {
            self.segments[id.0 as usize].is_listed = self.is_empty_and_sealed(id);
        }
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

    /// Takes a free segment for a stream, if the claim may have one. It gets its new generation here.
    pub fn take(&mut self, claim: Claim, stream: Stream) -> Option<(SegmentId, Generation)> {
        if !self.may_take(claim) {
            return None;
        }
        // While partitions are loaded, records may still be counted that the log's tail has replaced; and what is
        // still being read waits.
        let may_be_written = |id: &SegmentId| (self.get(*id).live_bytes, self.get(*id).pins) == (0, 0);
        let at = self.free.iter().rposition(may_be_written)?;
        let id = self.free.remove(at);
        self.highest_generation = Generation(self.highest_generation.0 + 1);
        assert!(self.highest_generation <= Generation::MAX, "the drive is far beyond any drive's life");
        let generation = self.highest_generation;
        let segment = &mut self.segments[id.0 as usize];
        assert_eq!((segment.state, segment.pins), (SegmentState::Free, 0), "segment {id}");
        assert_eq!(segment.live_bytes, 0, "a free segment holds nothing");
        segment.state = SegmentState::Opening;
        segment.generation = generation;
        segment.stream = stream;
        segment.consumed_bytes = 0;
        segment.damaged = false;
        segment.last_frame = FrameNumber(0);
        segment.emptied_at = FrameNumber(0);
        self.journal_segments += u32::from(stream == Stream::Journal);
        segment.hints = Vec::new();
        segment.records = 0;
        segment.written = (0, 0);
        Some((id, generation))
    }

    /// The header is durable.
    pub fn opened(&mut self, id: SegmentId) {
        self.transition(id, SegmentState::Opening, SegmentState::Open);
    }

    /// Nothing more is appended; it holds `consumed_bytes` of frames.
    pub fn seal(&mut self, id: SegmentId, consumed_bytes: u64) {
        self.transition(id, SegmentState::Open, SegmentState::Sealed);
        let now = self.clock.now();
        let segment = &mut self.segments[id.0 as usize];
        segment.consumed_bytes = consumed_bytes;
        let look = (now, segment.live_bytes);
        segment.fade = Fade { sealed_at: now, before: look, last: look };
        if segment.live_bytes == 0 {
            self.list_emptied(id, self.journal_position);
        }
    }

    /// A sealed segment holds nothing any more, and this journal frame says so.
    fn list_emptied(&mut self, id: SegmentId, says: FrameNumber) {
        let segment = &mut self.segments[id.0 as usize];
        segment.emptied_at = segment.emptied_at.max(says);
        if !segment.is_listed {
            segment.is_listed = true;
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
        let len = u64::from(location.room());
        segment.live_bytes += len;
        self.live_bytes += len;
        self.lengths[length_class(len)] += 1;
    }

    /// The record at `location` was written when the clock showed `written_at`.
    pub fn note_written(&mut self, location: Location, written_at: u64) {
        let id = self.geometry.segment_of(location.offset());
        let segment = &mut self.segments[id.0 as usize];
        segment.written.0 += u64::from(location.room());
        segment.written.1 += u128::from(location.room()) * u128::from(written_at);
    }

    /// The next record of a user segment replaced one that was written when the clock showed `written_at`, or
    /// none.
    pub fn note_replaced(&mut self, location: Location, written_at: Option<u64>) {
        let id = self.geometry.segment_of(location.offset());
        if self.replaying {
            // It is not known which of the segment's records this is.
            return;
        }
        let most = (self.geometry.segment_payload_bytes() / BYTES_PER_HINT) as usize;
        let now = self.clock.now();
        let segment = &mut self.segments[id.0 as usize];
        let hint = written_at.map_or(0, |at| to_hint(now.saturating_sub(at).max(1)));
        // Nothing to remember, and no memory, where all are new.
        if hint > 0 && segment.records < most {
            segment.hints.resize(segment.records, 0);
            segment.hints.push(hint);
        }
        segment.records += 1;
    }

    /// When the records of a segment were written, on average.
    pub fn written_at(&self, id: SegmentId) -> u64 {
        let (bytes, sum) = self.get(id).written;
        (sum / u128::from(bytes.max(1))) as u64
    }

    /// A user or cleaning frame goes to this segment.
    pub fn saw_frame(&mut self, id: SegmentId, number: FrameNumber) {
        let segment = &mut self.segments[id.0 as usize];
        assert!(segment.last_frame < number, "frames of a segment are numbered in order");
        segment.last_frame = number;
    }

    /// A record died just now.
    pub fn remove_live(&mut self, location: Location) {
        self.remove(location, self.journal_position);
    }

    /// A record died before the start, and what is durable says so.
    pub fn remove_live_of_before(&mut self, location: Location) {
        self.remove(location, FrameNumber(0));
    }

    fn remove(&mut self, location: Location, says: FrameNumber) {
        let id = self.geometry.segment_of(location.offset());
        let segment = &mut self.segments[id.0 as usize];
        let len = u64::from(location.room());
        assert!(segment.live_bytes >= len, "segment {id} has {} live bytes, not {len}", segment.live_bytes);
        segment.live_bytes -= len;
        self.live_bytes -= len;
        self.lengths[length_class(len)] -= 1;
        self.watch.died(id, location);
        if segment.live_bytes == 0 && segment.state == SegmentState::Sealed {
            self.list_emptied(id, says);
        }
    }

    /// An image or the journal uses this segment, or no longer does.
    pub fn set_in_use(&mut self, id: SegmentId, in_use: bool) {
        let segment = &mut self.segments[id.0 as usize];
        assert!(
            !matches!(segment.stream, Stream::User | Stream::Cleaning),
            "segment {id} is used by its records"
        );
        // Beside what an image that is being loaded may have pointing here.
        if in_use {
            segment.live_bytes += 1;
        } else {
            segment.live_bytes -= 1;
        }
        if !in_use && segment.state == SegmentState::Sealed {
            self.list_emptied(id, FrameNumber(0));
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
    }

    /// Cleaning could not empty it: it is left alone until its records die.
    pub fn mark_damaged(&mut self, id: SegmentId) {
        self.segments[id.0 as usize].damaged = true;
    }

    fn holds_records(&self, id: SegmentId) -> bool {
        matches!(self.get(id).stream, Stream::User | Stream::Cleaning)
    }

    fn is_empty_and_sealed(&self, id: SegmentId) -> bool {
        let segment = self.get(id);
        segment.state == SegmentState::Sealed && segment.live_bytes == 0
    }

    /// Whether all frames that were written to the segment have been applied, so that it is known what lives in it.
    fn is_complete(&self, id: SegmentId, applied_user: FrameNumber, settled: Settled) -> bool {
        let segment = self.get(id);
        match segment.stream {
            Stream::User => segment.last_frame <= applied_user,
            Stream::Cleaning => segment.last_frame <= settled.cleaning,
            Stream::Image | Stream::Journal => true,
        }
    }

    /// Whether a restart would read the segment's frames.
    pub fn is_needed_by_restart(&self, id: SegmentId, settled: Settled) -> bool {
        let segment = self.get(id);
        match segment.stream {
            Stream::User => segment.last_frame > settled.user,
            Stream::Cleaning => false,
            Stream::Image | Stream::Journal => segment.live_bytes > 0,
        }
    }

    /// Whether an emptied segment may be freed once its reads have ended: a restart would neither read its frames nor
    /// find anything that points to it.
    fn is_settled(&self, id: SegmentId, settled: Settled) -> bool {
        let segment = self.get(id);
        match segment.stream {
            Stream::User => segment.last_frame <= settled.user && segment.emptied_at <= settled.journal,
            Stream::Cleaning => {
                segment.last_frame <= settled.cleaning && segment.emptied_at <= settled.journal
            }
            Stream::Image | Stream::Journal => true,
        }
    }

    /// Takes the emptied segments that may be freed. The others stay in the list. Says whether any of those waits for
    /// the journal.
    pub fn take_emptied(&mut self, settled: Settled) -> (Vec<SegmentId>, bool) {
        let mut taken = Vec::new();
        let mut waits = false;
        let candidates = std::mem::take(&mut self.emptied);
        for id in candidates {
            if !self.is_empty_and_sealed(id) {
                self.segments[id.0 as usize].is_listed = false;
            } else if self.recovering && self.holds_records(id) {
                // It is not known what points to it.
                self.emptied.push(id);
            } else if self.get(id).pins == 0 && self.is_settled(id, settled) {
                self.segments[id.0 as usize].is_listed = false;
                taken.push(id);
            } else {
                waits |= !self.is_settled(id, settled);
                self.emptied.push(id);
            }
        }
        (taken, waits)
    }

    /// Segments that are empty, not free yet, and not read by anybody: the journal is all that they wait for.
    pub fn emptied(&self) -> u32 {
        let waits = |id: &&SegmentId| self.is_empty_and_sealed(**id) && self.get(**id).pins == 0;
        self.emptied.iter().filter(waits).count() as u32
    }

    /// An emptied segment is free at once, or is being discarded first.
    pub fn free(&mut self, id: SegmentId, discard: bool) {
        let to = if discard { SegmentState::Discarding } else { SegmentState::Free };
        self.transition(id, SegmentState::Sealed, to);
        let segment = &mut self.segments[id.0 as usize];
        segment.hints = Vec::new();
        self.journal_segments -= u32::from(segment.stream == Stream::Journal);
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
    pub fn gain_bytes(&self, id: SegmentId) -> Option<u64> {
        let segment = self.get(id);
        let sealed = segment.state == SegmentState::Sealed && self.holds_records(id);
        let gain = self.geometry.segment_payload_bytes().saturating_sub(segment.live_bytes);
        (sealed && !segment.damaged && gain >= self.least_gain_bytes(0)).then_some(gain)
    }

    /// Whether segments come free without anything being cleaned: reads of emptied ones, and discards.
    pub fn is_freeing(&self) -> bool {
        self.segments.iter().any(|segment| {
            let read = segment.state == SegmentState::Sealed && segment.live_bytes == 0 && segment.pins > 0;
            read || segment.state == SegmentState::Discarding
        })
    }
}
