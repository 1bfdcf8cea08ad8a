//! Checkpoints: a durable image of catalog and index, and the place in the journal from which to replay.
//!
//! The image is fuzzy: it is written bit by bit while writes go on, and may hold changes that the journal
//! notes after that place. Replaying those over it ends in the same state, because the last change of a key
//! decides, and it is replayed.
//!
//! Writing (image frames) -> Flushing -> SuperHead -> SuperMirror -> idle. A crash before SuperHead is
//! durable leaves the checkpoint before; its segments are freed only after SuperMirror.

use crate::append::{AppendHead, FramePlace};
use crate::format::align_down;
use crate::format::frame::{FRAME_HEADER_BYTES, PartitionSet, Stream, frame_len};
use crate::format::image::{CatalogPayload, ImageExtent, ImagePosition, ImageRoot};
use crate::format::superblock::{RootLocation, Superblock};
use crate::frame_builder::FrameBuilder;
use crate::geometry::Geometry;
use crate::ids::{FrameNumber, Generation, RequestId, SegmentId};
use crate::image_writer::{ImageWriter, directory_bytes};
use crate::index::MOST_BORDERED_LEAF_BYTES;
use crate::io::{Io, Purpose};
use crate::limits::{BLOCK_BYTES, MAX_KEY_BYTES};
use crate::reply::{CheckpointError, ReplyBody};
use crate::seam::{DeviceError, Op};
use crate::shard::{Phase, Shard};
use crate::space::{Claim, ImageProgress, IndexNeed, Space};

/// Most bytes of one image frame: the work of one step.
const MOST_FRAME_BYTES: usize = 64 << 10;
/// Least of it: any change of the catalog fits, two keys' bounds and all.
const LEAST_FRAME_BYTES: usize = 3 * BLOCK_BYTES;
/// The same where there are compact indexes: any leaf of theirs fits.
const LEAST_COMPACT_FRAME_BYTES: usize = 6 * BLOCK_BYTES;
const _: () = assert!(FRAME_HEADER_BYTES + 64 + MOST_BORDERED_LEAF_BYTES <= LEAST_COMPACT_FRAME_BYTES);
const _: () = assert!(2 * MAX_KEY_BYTES + 64 + FRAME_HEADER_BYTES <= LEAST_FRAME_BYTES);
/// Image frames written at once.
const FRAMES_IN_FLIGHT: usize = 2;
/// What the last frames of an image's parts are padded with, about.
const PADDING_ESTIMATE_BYTES: u64 = 3 * BLOCK_BYTES as u64;
/// Of an image with fewer records, too much is not leaves to tell what one takes.
const LEAST_MEASURED_RECORDS: u64 = 10_000;
/// A checkpoint is not due before the journal takes this part of the area, or of the memory of keys, whichever is less; and half a
/// segment.
const LEAST_INTERVAL_SHARE: u64 = 256;
const LEAST_INTERVAL_MEMORY_SHARE: u64 = 8;

/// How far a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Image frames are written.
    Writing,
    /// The root was handed to the drive; waiting for all frames.
    Finishing,
    /// The drive makes the image durable.
    Flushing,
    /// The superblock is written to the head.
    SuperHead,
    /// The superblock is written to the tail.
    SuperMirror,
}

/// A checkpoint under way.
#[derive(Debug)]
struct Job {
    stage: Stage,
    /// Whether it writes an image, or the superblock alone.
    has_image: bool,
    next: Superblock,
    head: AppendHead,
    writer: ImageWriter,
    /// The room that is left for the root in front of all else.
    root_place: Option<FramePlace>,
    /// Where the copies of the root were placed.
    roots: Vec<RootLocation>,
    in_flight: Vec<FrameBuilder>,
    /// Bytes of the image so far.
    bytes: u64,
    super_buffer: Option<crate::ids::BufferId>,
}

/// What an image took.
#[derive(Debug, Clone, Copy)]
struct LastImage {
    bytes: u64,
    /// Records and bytes of index then.
    records: u64,
    index_bytes: u64,
}

/// The checkpoints of a shard.
#[derive(Debug, Default)]
pub struct Checkpointer {
    job: Option<Box<Job>>,
    /// Who waits for the checkpoint under way.
    waiting: Vec<RequestId>,
    /// Who came after it began, and waits for the next.
    waiting_next: Vec<RequestId>,
    /// Segments of the present image.
    pub image_segments: Vec<SegmentId>,
    /// Frames of the present image, the roots counted.
    pub image_frames: u64,
    last_image: Option<LastImage>,
    /// One is to begin as soon as it may.
    pub wanted: bool,
    /// The last one found no room, and nothing has changed since.
    pub found_no_room: bool,
    /// One is due, and cleaning makes room for it.
    waits_for_room: bool,
}

impl Checkpointer {
    /// Whether one is under way.
    pub fn is_running(&self) -> bool {
        self.job.is_some()
    }

    /// The segments that an image under way is appended to.
    pub fn open_segments(&self) -> Vec<SegmentId> {
        self.job.iter().flat_map(|job| job.head.segments()).collect()
    }

    /// The segments of the present image, and of the one under way.
    pub fn in_use(&self) -> Vec<SegmentId> {
        let under_way = self.job.iter().flat_map(|job| &job.writer.root.segments);
        self.image_segments.iter().copied().chain(under_way.map(|(segment, _)| *segment)).collect()
    }

    /// A segment's header was written; says whether it is the image's.
    pub fn header_written(&mut self, segment: SegmentId, space: &mut Space, io: &mut Io<'_>) -> bool {
        self.job.as_mut().is_some_and(|job| job.head.header_written(segment, space, io))
    }
}

impl Shard {
    pub(crate) fn request_checkpoint(&mut self, id: RequestId, io: &mut Io<'_>) {
        if self.log.is_poisoned() {
            return io.reply(id, ReplyBody::Checkpoint(Err(CheckpointError::Poisoned)));
        }
        // One under way may lack what was acknowledged just now.
        self.checkpointer.waiting_next.push(id);
    }

    /// Begins a checkpoint. Everything applied so far will be in its image.
    pub(crate) fn begin_checkpoint(&mut self) {
        assert!(self.checkpointer.job.is_none(), "one checkpoint at a time");
        let (user_from, user_from_position) = self.journal.user_position();
        let (journal_from, journal_from_position) = self.journal.begin_checkpoint(&self.space);
        let checkpoint = self.superblock.checkpoint + 1;
        let next = Superblock {
            version: self.superblock.version + 1,
            checkpoint,
            roots: None,
            user_from,
            user_from_position,
            journal_from,
            journal_from_position,
            highest_generation: Generation(0),
            highest_seq: self.sequencer.last(),
            void: self.superblock.void.iter().copied().filter(|range| range.to > user_from).collect(),
            // They all lie before it.
            journal_void: Vec::new(),
            may_lack_tables: self.catalog.may_lack_tables,
        };
        let most_bytes = self.image_payload_bytes();
        let writer = ImageWriter::new(&self.catalog, self.catalog_payloads(), most_bytes);
        self.checkpointer.wanted = false;
        self.checkpointer.waits_for_room = false;
        self.checkpointer.waiting.append(&mut self.checkpointer.waiting_next);
        self.checkpointer.job = Some(Box::new(Job {
            stage: Stage::Writing,
            has_image: true,
            next,
            head: AppendHead::new(Stream::Image, self.place),
            writer,
            root_place: None,
            roots: Vec::new(),
            in_flight: Vec::new(),
            bytes: 0,
            super_buffer: None,
        }));
        self.expect_image();
    }

    /// Keeps back the segments that the next image and the journal will take, before users' writes fill them.
    pub(crate) fn expect_image(&mut self) {
        let need = self.index_need();
        let journal_bytes = self.journal.bytes_since_checkpoint;
        let progress = match self.checkpointer.job.as_ref() {
            Some(job) => ImageProgress::Writing { taken: job.writer.root.segments.len() as u32 },
            None if self.is_checkpoint_due(&need) => ImageProgress::Due,
            None => ImageProgress::Idle { journal_bytes },
        };
        let is_wasteful = self.space.is_wasted(journal_bytes) && !self.checkpointer.found_no_room;
        self.space.expect_index(need, progress, is_wasteful);
    }

    /// What the next image may take: as the last one has turned out, for the records and the index of now; before that,
    /// leaves lie in it as in memory, expiries shorter than there; and an eighth more. The journal may take as much until
    /// the next checkpoint, so that both cost the same to write, but no more than a restart is to read.
    fn index_need(&self) -> IndexNeed {
        let half = u64::from(self.place.geometry.segment_bytes) / 2;
        let of_area = self.place.geometry.area_bytes() / LEAST_INTERVAL_SHARE;
        // A start has it in memory until the partitions that it is about are loaded: as much as their index, or a small part.
        let of_memory = self.config.memory_bytes / LEAST_INTERVAL_MEMORY_SHARE;
        let journal_least = of_area.min(of_memory).max(half);
        let journal_most = self.config.checkpoint_interval_bytes;
        let index = self.index_in_use_bytes() + self.catalog.unloaded.memory_bytes;
        let entry_bytes = match self.checkpointer.last_image {
            Some(last) if last.records >= LEAST_MEASURED_RECORDS => {
                let grown = |now: u64, then: u64| now as f64 / then.max(1) as f64;
                let grown = grown(self.catalog.records, last.records).max(grown(index, last.index_bytes));
                (last.bytes as f64 * grown) as u64
            }
            _ => index,
        };
        let root = ImageRoot::most_bytes(self.place.geometry.segments_per_shard);
        let directory = directory_bytes(self.catalog.counts().0);
        IndexNeed {
            entry_bytes: entry_bytes + entry_bytes / 8,
            record_bytes: self.known_live_bytes(),
            // What does not fill its last frame or block: of the index, and of all the others twice.
            fixed_bytes: 2 * (self.catalog.image_bytes + root) + directory + PADDING_ESTIMATE_BYTES,
            journal_least: journal_least.min(journal_most),
            journal_most,
            frame_bytes: (self.image_payload_bytes() + FRAME_HEADER_BYTES) as u64,
        }
    }

    /// Bytes of memory of what goes into an image of the loaded partitions; not what is merely held for more.
    fn index_in_use_bytes(&self) -> u64 {
        self.catalog.arena.used_bytes() as u64 + self.catalog.expiry_bytes
    }

    fn is_checkpoint_due(&self, need: &IndexNeed) -> bool {
        let journal_is_long = self.journal.bytes_since_checkpoint >= need.interval_bytes();
        self.checkpointer.wanted
            || !self.checkpointer.waiting_next.is_empty()
            || journal_is_long
            || (self.space.journal_has_too_many() && !self.checkpointer.found_no_room)
    }

    fn catalog_payloads(&self) -> Vec<Vec<u8>> {
        let most_bytes = self.image_payload_bytes();
        let mut payloads = Vec::new();
        let mut payload = CatalogPayload::begin();
        for change in self.catalog.as_changes() {
            let change = change.encode();
            if payload.bytes() + change.len() + 2 > most_bytes {
                payloads.push(std::mem::replace(&mut payload, CatalogPayload::begin()).finish());
            }
            payload.push(&change);
        }
        payloads.push(payload.finish());
        payloads
    }

    pub(crate) fn pump_checkpoint(&mut self, io: &mut Io<'_>) {
        let may_begin = self.checkpointer.job.is_none() && self.journal.may_begin_checkpoint();
        if may_begin && !self.is_loading() && self.is_checkpoint_due(&self.index_need()) {
            self.expect_image();
            // Cleaning makes room first, where it can.
            let gains_room = self.phase == Phase::Serving && self.may_clean() && !self.journal.is_broken();
            if self.space.has_room_for_image() || !gains_room {
                self.begin_checkpoint();
            } else if !std::mem::replace(&mut self.checkpointer.waits_for_room, true) {
                // It does not know yet that it is to.
                self.has_more = true;
            }
        }
        let Some(mut job) = self.checkpointer.job.take() else { return };
        let mut went_on = true;
        while went_on && job.stage == Stage::Writing && job.in_flight.len() < FRAMES_IN_FLIGHT {
            job.writer.make(&mut self.catalog, &self.space);
            went_on = self.write_image_frame(&mut job, io);
            if job.writer.is_done() {
                job.stage = Stage::Finishing;
            }
        }
        let waiting = job.writer.front().filter(|_| !went_on && job.in_flight.is_empty());
        let placeless = |payload: &[u8]| job.head.claim_for(frame_len(payload.len()) as u64).is_none();
        if waiting.is_some_and(placeless) && self.space.counts().1 == 0 {
            return self.abandon_checkpoint(*job, io);
        }
        if job.stage == Stage::Finishing && job.in_flight.is_empty() && !job.head.is_opening() {
            job.head.finish(&mut self.space);
            let roots = std::mem::take(&mut job.roots);
            job.next.roots = Some(roots.try_into().expect("the root was placed twice"));
            job.stage = Stage::Flushing;
            io.start(Op::Flush { token: Purpose::Superblock.token(0) });
        }
        self.checkpointer.job = Some(job);
    }

    /// Where the next frame of an image goes, which is `len` bytes long. Its root lies as far apart from its copy as can
    /// be, so that no one damaged stretch takes both: in front of all else, and at the very end of the last segment.
    fn image_place(&mut self, job: &mut Job, len: u64, io: &mut Io<'_>) -> Option<FramePlace> {
        let root_len = root_room(&self.place.geometry);
        if job.root_place.is_none() {
            job.root_place = Some(self.next_image_place(job, root_len, io)?);
            job.head.advance(root_len);
        }
        match (job.writer.is_root_next(), job.roots.len()) {
            (true, 0) => job.root_place,
            (true, _) => {
                self.next_image_place(job, len, io)?;
                Some(job.head.skip_to_end(len))
            }
            (false, _) => self.next_image_place(job, len, io),
        }
    }

    fn next_image_place(&mut self, job: &mut Job, len: u64, io: &mut Io<'_>) -> Option<FramePlace> {
        if let Some(segment) = job.head.open_for(len, Claim::Image, &mut self.space, io) {
            self.space.set_in_use(segment, true);
            let generation = self.space.get(segment).generation;
            job.writer.root.segments.push((segment, generation));
        }
        job.head.place_for(len, &mut self.space)
    }

    fn write_image_frame(&mut self, job: &mut Job, io: &mut Io<'_>) -> bool {
        let Some(payload_bytes) = job.writer.front().map(<[u8]>::len) else {
            // A directory of nothing has no frames; the root comes next.
            return !job.writer.is_done();
        };
        let len = frame_len(payload_bytes);
        let Some(buffer) = io.buffers.acquire(len) else { return false };
        let Some(place) = self.image_place(job, len as u64, io) else {
            io.buffers.release(buffer);
            return false;
        };
        let is_behind_others = !job.writer.is_root_next() || !job.roots.is_empty();
        let number = FrameNumber(job.writer.root.frames + job.roots.len() as u64 + 1);
        let mut builder = FrameBuilder::new(Stream::Image, number, place, buffer, len);
        let payload = job.writer.front().expect("it was there a moment ago");
        builder.push_raw(io.buffers, payload, PartitionSet::default());
        let header = builder.header(FrameNumber(job.next.checkpoint), crc32c::crc32c(payload));
        let token = Purpose::ImageFrame.token(number.0);
        let bytes = builder.write(&self.place, io, token, false, &header);
        if is_behind_others {
            job.head.advance(bytes as u64);
        }
        self.stats.image_bytes += bytes as u64;
        job.bytes += bytes as u64;
        let offset = (place.at - self.place.geometry.segment_at(place.segment)) as u32;
        let (segments, placed) = (&job.writer.root.segments, (place.segment, place.generation));
        let segment = segments.iter().rposition(|segment| *segment == placed);
        let segment = segment.expect("frames of an image go to its segments") as u32;
        let at = |offset| ImagePosition { segment, offset };
        if job.writer.placed(ImageExtent { from: at(offset), to: at(offset + len as u32) }) {
            let (segment, generation) = placed;
            job.roots.push(RootLocation { segment, generation, offset, len: len as u32 });
        }
        job.in_flight.push(builder);
        true
    }

    pub(crate) fn image_frame_written(
        &mut self,
        number: u64,
        result: Result<(), DeviceError>,
        io: &mut Io<'_>,
    ) {
        let Some(job) = self.checkpointer.job.as_mut() else { return };
        let at = job.in_flight.iter().position(|builder| builder.number.0 == number);
        let builder = job.in_flight.remove(at.expect("an image frame that was written is in flight"));
        io.buffers.release(builder.buffer);
        if result.is_err() {
            self.poison(io);
        }
    }

    /// The flush or one of the superblock's writes has ended.
    pub(crate) fn superblock_step_done(&mut self, result: Result<(), DeviceError>, io: &mut Io<'_>) {
        let Some(mut job) = self.checkpointer.job.take() else { return self.recovery_flushed(result) };
        if let Some(buffer) = job.super_buffer.take() {
            io.buffers.release(buffer);
        }
        if result.is_err() || self.log.is_poisoned() {
            return self.poison(io);
        }
        let [head_0, head_1, tail_0, tail_1] = self.place.geometry.superblock_slots(self.config.shard);
        let even = job.next.version.is_multiple_of(2);
        let (next_stage, slot) = match job.stage {
            Stage::Flushing => (Stage::SuperHead, if even { head_0 } else { head_1 }),
            Stage::SuperHead => (Stage::SuperMirror, if even { tail_0 } else { tail_1 }),
            Stage::SuperMirror => return self.checkpoint_done(*job, io),
            Stage::Writing | Stage::Finishing => unreachable!("no superblock is written yet"),
        };
        let Some(buffer) = io.buffers.acquire(BLOCK_BYTES) else {
            // Memory is short: the same step again, by way of one more flush.
            io.start(Op::Flush { token: Purpose::Superblock.token(0) });
            self.checkpointer.job = Some(job);
            return;
        };
        if job.stage == Stage::Flushing {
            // Both copies say the same.
            job.next.highest_generation = self.space.highest_generation();
        }
        job.stage = next_stage;
        job.next.encode(self.place.seed, slot.0, io.buffers.bytes_mut(buffer));
        job.super_buffer = Some(buffer);
        self.stats.meta_bytes += BLOCK_BYTES as u64;
        io.start(Op::Write {
            token: Purpose::Superblock.token(0),
            buffer,
            at: slot,
            len: BLOCK_BYTES as u32,
            durable: true,
        });
        self.checkpointer.job = Some(job);
    }

    fn checkpoint_done(&mut self, job: Job, io: &mut Io<'_>) {
        let Job { next, writer, has_image, bytes, .. } = job;
        let root = writer.root;
        assert!(next.version > self.superblock.version, "superblocks only rise");
        if has_image {
            let old = std::mem::take(&mut self.checkpointer.image_segments);
            old.into_iter().for_each(|segment| self.space.set_in_use(segment, false));
            self.checkpointer.image_segments = root.segments.iter().map(|(segment, _)| *segment).collect();
            self.checkpointer.image_frames = root.frames + 2;
            self.stats.checkpoints += 1;
            let (records, index_bytes) = (self.catalog.records, self.index_in_use_bytes());
            self.checkpointer.last_image = Some(LastImage { bytes, records, index_bytes });
            self.journal.began_anew(next.journal_from, next.user_from, &mut self.space);
        }
        self.superblock = next;
        self.free_emptied(io);
        self.cleaner.look_again();
        for id in std::mem::take(&mut self.checkpointer.waiting) {
            io.reply(id, ReplyBody::Checkpoint(Ok(())));
        }
        self.superblock_settled();
    }

    fn abandon_checkpoint(&mut self, mut job: Job, io: &mut Io<'_>) {
        job.head.finish(&mut self.space);
        for (segment, _) in job.writer.root.segments {
            self.space.set_in_use(segment, false);
        }
        for id in std::mem::take(&mut self.checkpointer.waiting) {
            io.reply(id, ReplyBody::Checkpoint(Err(CheckpointError::NoSpace)));
        }
        self.journal.checkpoint_abandoned();
        self.free_emptied(io);
        self.checkpointer.found_no_room = true;
        // Who waited for it is to look again.
        self.has_more = true;
        self.superblock_not_settled();
    }

    pub(crate) fn fail_checkpoint(&mut self, error: &CheckpointError, io: &mut Io<'_>) {
        let waiting = std::mem::take(&mut self.checkpointer.waiting);
        let next = std::mem::take(&mut self.checkpointer.waiting_next);
        for id in waiting.into_iter().chain(next) {
            io.reply(id, ReplyBody::Checkpoint(Err(error.clone())));
        }
    }

    /// Writes the superblock anew without a new image: recovery has cut the log.
    pub(crate) fn rewrite_superblock(&mut self, next: Superblock, io: &mut Io<'_>) {
        assert!(self.checkpointer.job.is_none(), "recovery comes before any checkpoint");
        self.checkpointer.job = Some(Box::new(Job {
            stage: Stage::Flushing,
            has_image: false,
            next,
            head: AppendHead::new(Stream::Image, self.place),
            writer: ImageWriter::none(),
            root_place: None,
            roots: Vec::new(),
            in_flight: Vec::new(),
            bytes: 0,
            super_buffer: None,
        }));
        io.start(Op::Flush { token: Purpose::Superblock.token(0) });
    }

    /// Payload of one image frame: several frames share a segment, however small it is.
    fn image_payload_bytes(&self) -> usize {
        let payload_bytes = self.place.geometry.segment_payload_bytes();
        let least = if self.catalog.has_compact() { LEAST_COMPACT_FRAME_BYTES } else { LEAST_FRAME_BYTES };
        let quarter = align_down(payload_bytes / 4, BLOCK_BYTES as u64) as usize;
        quarter.clamp(least, MOST_FRAME_BYTES) - FRAME_HEADER_BYTES
    }
}

/// Bytes at the front of an image that are left for its root.
pub fn root_room(geometry: &Geometry) -> u64 {
    frame_len(ImageRoot::most_bytes(geometry.segments_per_shard) as usize) as u64
}
