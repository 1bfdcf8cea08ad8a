//! The segments of a shard: who is free, who holds what, and what may be taken by whom.

#[cfg(test)]
mod tests;

use crate::format::frame::Stream;
use crate::geometry::Geometry;
use crate::ids::{FrameNumber, Generation, SegmentId};
use crate::length_classes::{LENGTHS, length_class, longest_of};
use crate::lifetime::{WriteClock, to_hint};
use crate::limits::BLOCK_BYTES;
use crate::location::Location;
use crate::scrub::watch::Watch;

/// Segments that only cleaning may take from the last free ones.
const CLEANING_RESERVE: u32 = 2;
/// Segments that users' deletes may take when puts may not.
const DELETE_RESERVE: u32 = 2;
/// Most of the usable payload that live records may fill, in percent: the rest is what cleaning needs
/// to find segments worth cleaning.
const LIVE_PERCENT: u64 = 97;
/// A segment is worth cleaning only if this part of it comes free beyond what moving may waste: about the
/// padding of its cleaning frames.
const GAIN_SHARE: u64 = 64;
/// Segments that are open at most beside one of each lane of cleaning: two of the user stream, and the
/// next of a lane.
const OPEN_SEGMENTS: u32 = 3;
/// What is taken for granted of a segment's death rate weighs as much as so small a part of it dead.
const PRIOR_SHARE: f64 = 50.0;
/// A look at a segment is worth noting when so small a part of it has died since the last.
const LOOK_SHARE: u64 = 25;
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
    /// Bytes of live records; of an image segment, 1 more while its image is in use.
    pub live_bytes: u64,
    /// Bytes of frames in it, all of its payload where not known.
    pub consumed_bytes: u64,
    /// Reads under way. A segment with any is not reused.
    pub pins: u32,
    /// Cleaning could not move all its live records.
    pub damaged: bool,
    /// The highest number of a cleaning frame in it; the largest of all where not known.
    pub last_frame: FrameNumber,
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

/// Where a replay begins: what lies before may be freed and cleaned.
#[derive(Debug, Clone, Copy)]
pub struct ReplayFrom {
    /// No user segment below holds a frame that is replayed.
    pub user: Generation,
    /// No cleaning segment below holds a frame that is replayed.
    pub cleaning: Generation,
    /// No cleaning frame below is replayed.
    pub cleaning_frame: FrameNumber,
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
    /// Live records by length.
    lengths: Box<[u64; LENGTHS]>,
    highest_generation: Generation,
    image_segments_wanted: u32,
    /// Segments that records point to may not be known yet.
    recovering: bool,
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
            image_segments_wanted: 1,
            recovering: true,
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
        segment.last_frame = FrameNumber(u64::MAX);
        self.saw_generation(generation);
    }

    /// A generation was in use: the next ones are beyond it.
    pub fn saw_generation(&mut self, generation: Generation) {
        self.highest_generation = self.highest_generation.max(generation);
    }

    /// A segment that recovery found was free when the image was written, and not opened since.
    pub fn found_free(&mut self, id: SegmentId) {
        self.transition(id, SegmentState::Sealed, SegmentState::Free);
    }

    /// The shard serves from now on. What is live is not known before all partitions are loaded: until then
    /// nothing is freed but segments of old images.
    pub fn begin_serving(&mut self) {
        self.free = self.ids().filter(|id| self.get(*id).state == SegmentState::Free).collect();
        self.free.reverse();
        self.recheck_emptied();
    }

    /// All that is live is known: the list of free segments is made anew.
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
        let kept_back = self.reserve() + self.image_segments_wanted + OPEN_SEGMENTS + self.lanes;
        let usable = u64::from((self.segments.len() as u32).saturating_sub(kept_back));
        let payload = self.geometry.segment_payload_bytes();
        // So full on average, some segment is still worth cleaning.
        let fullest = payload.saturating_sub(self.least_gain_bytes(record_bytes));
        let fullest = fullest - fullest / GAIN_SHARE;
        usable * fullest.min(payload * LIVE_PERCENT / 100)
    }

    /// A segment is worth cleaning when it holds so many bytes fewer than it could: what moving its
    /// records may waste behind the last one of a segment and of its frames, and then some.
    fn least_gain_bytes(&self, record_bytes: u64) -> u64 {
        let class = self.lengths.iter().rposition(|count| *count > 0);
        let most = self.geometry.most_record_room();
        let longest = class.map_or(0, |class| longest_of(class).min(most));
        let largest = longest.max(record_bytes);
        largest
            + self.geometry.segment_payload_bytes() / GAIN_SHARE
            + u64::from(self.lanes + 1) * BLOCK_BYTES as u64
    }

    /// Whether there is a free segment for the claim.
    pub fn may_take(&self, claim: Claim) -> bool {
        self.free.len() as u32 > self.floor(claim)
    }

    /// Free segments that the claim leaves alone.
    fn floor(&self, claim: Claim) -> u32 {
        match claim {
            Claim::Put => self.reserve(),
            Claim::Delete => self.image_segments_wanted + CLEANING_RESERVE,
            Claim::Cleaning => self.image_segments_wanted,
            Claim::Image => 0,
        }
    }

    /// Whether there are two free segments for the claim, or more.
    pub fn has_more_than_one(&self, claim: Claim) -> bool {
        self.free.len() as u32 > self.floor(claim) + 1
    }

    /// Takes a free segment for a stream, if the claim may have one. It gets its new generation here.
    pub fn take(&mut self, claim: Claim, stream: Stream) -> Option<(SegmentId, Generation)> {
        if !self.may_take(claim) {
            return None;
        }
        // While partitions are loaded, records may still be counted that the log's tail has replaced.
        let at = self.free.iter().rposition(|id| self.get(*id).live_bytes == 0)?;
        let id = self.free.remove(at);
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
        segment.last_frame = FrameNumber(0);
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

    /// A cleaning frame goes to this segment.
    pub fn saw_cleaning_frame(&mut self, id: SegmentId, number: FrameNumber) {
        let segment = &mut self.segments[id.0 as usize];
        assert!(segment.last_frame < number, "cleaning frames of a segment are numbered in order");
        segment.last_frame = number;
    }

    /// A record died.
    pub fn remove_live(&mut self, location: Location) {
        let id = self.geometry.segment_of(location.offset());
        let segment = &mut self.segments[id.0 as usize];
        let len = u64::from(location.room());
        assert!(segment.live_bytes >= len, "segment {id} has {} live bytes, not {len}", segment.live_bytes);
        segment.live_bytes -= len;
        self.live_bytes -= len;
        self.lengths[length_class(len)] -= 1;
        self.watch.died(id, location);
        if segment.live_bytes == 0 && segment.state == SegmentState::Sealed {
            self.emptied.push(id);
        }
    }

    /// An image uses this segment, or no longer does.
    pub fn set_image_in_use(&mut self, id: SegmentId, in_use: bool) {
        let segment = &mut self.segments[id.0 as usize];
        assert_eq!(segment.stream, Stream::Image, "segment {id} is no image's");
        // Beside what an image that is being loaded may have pointing here.
        if in_use {
            segment.live_bytes += 1;
        } else {
            segment.live_bytes -= 1;
        }
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

    /// Whether a replay from there needs none of the segment's frames.
    pub fn is_before(&self, id: SegmentId, from: ReplayFrom) -> bool {
        let segment = self.get(id);
        match segment.stream {
            Stream::User => segment.generation < from.user,
            // A lane may keep its segment open for long, and so hold the generation back.
            Stream::Cleaning => {
                segment.generation < from.cleaning || segment.last_frame < from.cleaning_frame
            }
            Stream::Image => true,
        }
    }

    /// Takes the emptied segments that may be freed: not read, not needed by a replay. The others
    /// are looked at again when that changes.
    pub fn take_emptied(&mut self, from: ReplayFrom) -> Vec<SegmentId> {
        let candidates = std::mem::take(&mut self.emptied);
        let mut taken = Vec::new();
        for id in candidates {
            let is_known = !self.recovering || self.get(id).stream == Stream::Image;
            let fit = is_known && self.is_empty_and_sealed(id) && self.get(id).pins == 0;
            if fit && self.is_before(id, from) && !taken.contains(&id) {
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
        self.segments[id.0 as usize].hints = Vec::new();
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
        let sealed = segment.state == SegmentState::Sealed && segment.stream != Stream::Image;
        let gain = self.geometry.segment_payload_bytes().saturating_sub(segment.live_bytes);
        (sealed && !segment.damaged && gain >= self.least_gain_bytes(0)).then_some(gain)
    }

    /// Whether a checkpoint from which a replay begins at `next` would let segments be freed or cleaned that
    /// the durable one does not.
    pub fn checkpoint_would_help(&self, durable: ReplayFrom, next: ReplayFrom) -> bool {
        self.ids().any(|id| {
            let gains = self.is_empty_and_sealed(id) || self.gain_bytes(id).is_some();
            gains && !self.is_before(id, durable) && self.is_before(id, next)
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
    ///
    /// Where records die at rate `h` and a segment is cleaned again and again when a part `u` of it is live, the
    /// division of space among segments is best when `((1 - u) / u + ln u) / h` is the same everywhere
    /// (from Desnoyers' model of a log cleaned in turn, SYSTOR 2012, by Lagrange): so the victim is the segment
    /// where it is largest. It is cost-benefit (LFS, 1992) with the measured rate in place of the age.
    pub fn victim(&mut self, from: ReplayFrom) -> Option<SegmentId> {
        let mut best = None;
        for id in self.ids() {
            if self.gain_bytes(id).is_none() || self.get(id).live_bytes == 0 || !self.is_before(id, from) {
                continue;
            }
            self.look(id);
            let score = self.worth(id);
            if best.is_none_or(|(top, _)| score > top) {
                best = Some((score, id));
            }
        }
        best.map(|(_, id)| id)
    }

    fn worth(&self, id: SegmentId) -> f64 {
        let segment = self.get(id);
        let (live, payload) = (segment.live_bytes as f64, self.geometry.segment_payload_bytes() as f64);
        let u = (live / payload).clamp(1e-6, 1.0);
        ((1.0 - u) / u + u.ln()) / self.death_rate(id)
    }

    /// Bytes that die per live byte and per byte that users write: as measured since the look before the last,
    /// and, as far as too few have died to tell, as records of this age do under a skewed load, where rates
    /// are spread evenly over all powers of two.
    fn death_rate(&self, id: SegmentId) -> f64 {
        let segment = self.get(id);
        let (since, live_then) = segment.fade.before;
        let died = live_then.saturating_sub(segment.live_bytes) as f64;
        let exposed = (self.clock.now() - since) as f64 * segment.live_bytes as f64;
        let age = (self.clock.now() - self.written_at(id).min(self.clock.now())) as f64 + 1.0;
        let lifetime = age * (2.0 * self.live_bytes as f64 / age).ln_1p();
        let weight = self.geometry.segment_payload_bytes() as f64 / PRIOR_SHARE;
        (died + weight) / (exposed + weight * lifetime)
    }

    /// Notes a segment's live bytes, if enough have died and enough was written since the last look.
    fn look(&mut self, id: SegmentId) {
        let least = self.geometry.segment_payload_bytes() / LOOK_SHARE;
        let now = self.clock.now();
        let segment = &mut self.segments[id.0 as usize];
        let (live, fade) = (segment.live_bytes, &mut segment.fade);
        let is_later = now - fade.last.0 > (now - fade.sealed_at) / 3;
        if is_later && fade.last.1.saturating_sub(live) >= least {
            fade.before = fade.last;
            fade.last = (now, live);
        }
    }
}
