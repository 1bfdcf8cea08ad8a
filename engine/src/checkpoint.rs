//! Checkpoints: a durable image of catalog and index, and the log position from which to replay.
//!
//! The image is fuzzy: it is written bit by bit while writes go on, and may hold effects of frames
//! after the position. Replaying those frames over it ends in the same state, because the last frame
//! that touches a key decides, and it is replayed.
//!
//! Writing (image frames) -> Flushing -> SuperHead -> SuperMirror -> idle. A crash before SuperHead is
//! durable leaves the checkpoint before; its segments are freed only after SuperMirror.

use std::collections::VecDeque;
use std::ops::Bound;

use crate::append::AppendHead;
use crate::format::align_down;
use crate::format::frame::{FRAME_HEADER_BYTES, Stream, frame_len};
use crate::format::image::{CatalogPayload, EntriesPayload, ImageRoot};
use crate::format::record::EXPIRY_BYTES;
use crate::format::superblock::{RootLocation, Superblock};
use crate::frame_builder::FrameBuilder;
use crate::geometry::Geometry;
use crate::ids::{FrameNumber, Generation, PartitionId, RequestId, SegmentId};
use crate::io::{Io, Purpose};
use crate::limits::{BLOCK_BYTES, MAX_KEY_BYTES};
use crate::partition::Store;
use crate::reply::{CheckpointError, ReplyBody};
use crate::seam::{DeviceError, Op};
use crate::shard::Shard;
use crate::space::{Claim, Space};

/// Most bytes of one image frame: the work of one step.
const MOST_FRAME_BYTES: usize = 64 << 10;
/// Least of it: any change of the catalog fits, two keys' bounds and all.
const LEAST_FRAME_BYTES: usize = 3 * BLOCK_BYTES;
const _: () = assert!(2 * MAX_KEY_BYTES + 64 + FRAME_HEADER_BYTES <= LEAST_FRAME_BYTES);
/// Image frames written at once.
const FRAMES_IN_FLIGHT: usize = 2;
/// Bytes that an entry of the image is expected to take beside its key's own bytes, and keys' own.
const IMAGE_ENTRY_ESTIMATE_BYTES: u64 = 40;

/// Of an image with fewer records, too much is not entries to tell what one takes.
const LEAST_MEASURED_RECORDS: u64 = 10_000;
/// Bytes of user frames for a byte of image.
const FRAMES_PER_IMAGE: u64 = 2;
/// A checkpoint is not due before this part of the area was written.
const LEAST_INTERVAL_SHARE: u64 = 32;

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
    root: ImageRoot,
    /// Payloads made and not yet written.
    ready: VecDeque<Vec<u8>>,
    partitions: VecDeque<PartitionId>,
    /// Last key of the first of `partitions` that is in the image already.
    last_key: Vec<u8>,
    root_made: bool,
    /// Where the copies of the root were placed.
    roots: Vec<RootLocation>,
    in_flight: Vec<FrameBuilder>,
    /// Bytes of frames written.
    bytes: u64,
    super_buffer: Option<crate::ids::BufferId>,
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
    /// One is to begin as soon as it may.
    pub wanted: bool,
    /// The last one found no room, and nothing has changed since.
    pub found_no_room: bool,
    last_image: Option<LastImage>,
}

/// What the last image was like.
#[derive(Debug, Clone, Copy)]
struct LastImage {
    /// Of all its frames.
    bytes: u64,
    /// Records and bytes of index when it was done.
    records: u64,
    index_bytes: u64,
}

impl Checkpointer {
    /// Whether one is under way.
    pub fn is_running(&self) -> bool {
        self.job.is_some()
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
        self.cleaner.seal_stale(&mut self.space);
        let (user_from, user_from_generation) = self.log.replay_from(&self.space);
        let (cleaning_from, cleaning_from_generation) = self.cleaner.replay_from(&self.space);
        let checkpoint = self.superblock.checkpoint + 1;
        let next = Superblock {
            version: self.superblock.version + 1,
            checkpoint,
            roots: None,
            user_from,
            user_from_generation,
            cleaning_from,
            cleaning_from_generation,
            highest_generation: Generation(0),
            highest_seq: self.sequencer.last(),
            void: self.superblock.void.iter().copied().filter(|range| range.to > user_from).collect(),
        };
        let ready = self.catalog_payloads();
        let catalog_frames = ready.len() as u64;
        let root = ImageRoot {
            frames: 0,
            catalog_frames,
            segments: Vec::new(),
            in_use: Vec::new(),
            highest_table: self.catalog.highest_table,
            highest_partition: self.catalog.highest_partition,
        };
        self.log.bytes_since_checkpoint = 0;
        self.checkpointer.wanted = false;
        self.expect_image();
        let mut twice = ready.clone();
        twice.extend(ready);
        self.checkpointer.waiting.append(&mut self.checkpointer.waiting_next);
        self.checkpointer.job = Some(Box::new(Job {
            stage: Stage::Writing,
            has_image: true,
            next,
            head: AppendHead::new(Stream::Image, self.place),
            root,
            ready: twice,
            partitions: self.catalog.partition_ids().into(),
            last_key: Vec::new(),
            root_made: false,
            roots: Vec::new(),
            in_flight: Vec::new(),
            bytes: 0,
            super_buffer: None,
        }));
    }

    /// Keeps back the segments that the next image will take, before users' writes fill them.
    pub(crate) fn expect_image(&mut self) {
        self.space.expect_image(self.image_estimate_bytes());
    }

    /// Bytes that the next image may take: as the last one has turned out, for the records and the index of
    /// now, and a quarter more.
    fn image_estimate_bytes(&self) -> u64 {
        let entries = match self.checkpointer.last_image {
            Some(last) if last.records >= LEAST_MEASURED_RECORDS => {
                let grown = |now: u64, then: u64| now as f64 / then.max(1) as f64;
                let records = grown(self.catalog.records, last.records);
                let index = grown(self.catalog.index_bytes(), last.index_bytes);
                (last.bytes as f64 * records.max(index) * 1.25) as u64
            }
            _ => {
                let keys =
                    (self.catalog.records * IMAGE_ENTRY_ESTIMATE_BYTES).max(self.catalog.index_bytes());
                keys + self.catalog.expiring_records * EXPIRY_BYTES as u64
            }
        };
        let root = ImageRoot::most_bytes(self.place.geometry.segments_per_shard);
        entries + 2 * (self.catalog.image_bytes + root)
    }

    /// A checkpoint begins when so many bytes of frames were written since the last: as soon as images cost
    /// no more than a part of that, for what was written since can be neither cleaned nor freed.
    pub(crate) fn checkpoint_interval_bytes(&self) -> u64 {
        let least = self.place.geometry.area_bytes() / LEAST_INTERVAL_SHARE;
        let worth = self.image_estimate_bytes() * FRAMES_PER_IMAGE;
        least.max(worth).min(self.config.checkpoint_interval_bytes)
    }

    fn catalog_payloads(&self) -> VecDeque<Vec<u8>> {
        let most_bytes = image_payload_bytes(&self.place.geometry);
        let mut payloads = VecDeque::new();
        let mut payload = CatalogPayload::begin();
        for change in self.catalog.as_changes() {
            let change = change.encode();
            if payload.bytes() + change.len() + 2 > most_bytes {
                payloads.push_back(std::mem::replace(&mut payload, CatalogPayload::begin()).finish());
            }
            payload.push(&change);
        }
        payloads.push_back(payload.finish());
        payloads
    }

    pub(crate) fn pump_checkpoint(&mut self, io: &mut Io<'_>) {
        let due = self.checkpointer.wanted
            || self.log.bytes_since_checkpoint >= self.checkpoint_interval_bytes()
            || !self.checkpointer.waiting_next.is_empty();
        if self.checkpointer.job.is_none() && due {
            self.begin_checkpoint();
        }
        let Some(mut job) = self.checkpointer.job.take() else { return };
        let mut went_on = true;
        while went_on && job.stage == Stage::Writing && job.in_flight.len() < FRAMES_IN_FLIGHT {
            if job.ready.is_empty() && !job.root_made {
                self.make_payload(&mut job);
            }
            went_on = self.write_image_frame(&mut job, io);
            if job.root_made && job.ready.is_empty() {
                job.stage = Stage::Finishing;
            }
        }
        let waiting = job.ready.front().filter(|_| !went_on && job.in_flight.is_empty());
        let placeless = |payload: &Vec<u8>| job.head.claim_for(frame_len(payload.len()) as u64).is_none();
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

    /// The next payload: entries of as many partitions as fit, or the root.
    fn make_payload(&mut self, job: &mut Job) {
        let most_bytes = image_payload_bytes(&self.place.geometry);
        let mut payload = EntriesPayload::begin();
        while let Some(&id) = job.partitions.front() {
            let partition = self.catalog.get(id);
            let expiry_of = |key: &[u8]| partition.and_then(|partition| partition.expiry_of(key));
            if let Some(Store::Durable(index)) = partition.map(|partition| &partition.store) {
                let from = if job.last_key.is_empty() {
                    Bound::Unbounded
                } else {
                    Bound::Excluded(job.last_key.as_slice())
                };
                let mut entries = index.iter(&self.catalog.arena, from, Bound::Unbounded);
                let mut last = None;
                let mut full = false;
                while let Some((key, location)) = entries.next() {
                    if payload.bytes() + EntriesPayload::most_bytes(key) > most_bytes {
                        full = true;
                        break;
                    }
                    payload.push(id, key, location, expiry_of(key));
                    last = Some(key.to_vec());
                }
                if full {
                    job.last_key = last.unwrap_or_else(|| std::mem::take(&mut job.last_key));
                    job.ready.push_back(payload.finish());
                    return;
                }
            }
            job.partitions.pop_front();
            job.last_key.clear();
        }
        if !payload.is_empty() {
            job.ready.push_back(payload.finish());
            return;
        }
        // The root lies in the image's last segment, or in one more that recovery finds by itself; twice,
        // for all else hangs on it.
        job.root_made = true;
        job.root.in_use = self.space.in_use();
        job.ready.push_back(job.root.encode());
        job.ready.push_back(job.root.encode());
    }

    fn write_image_frame(&mut self, job: &mut Job, io: &mut Io<'_>) -> bool {
        let Some(payload) = job.ready.front() else { return false };
        let len = frame_len(payload.len());
        if let Some(segment) = job.head.open_for(len as u64, Claim::Image, &mut self.space, io) {
            self.space.set_image_in_use(segment, true);
            let generation = self.space.get(segment).generation;
            job.root.segments.push((segment, generation));
        }
        let Some(place) = job.head.place_for(len as u64, &mut self.space) else { return false };
        let Some(buffer) = io.buffers.acquire(len) else { return false };
        let number = FrameNumber(job.root.frames + job.roots.len() as u64 + 1);
        let mut builder = FrameBuilder::new(Stream::Image, number, place, buffer, len);
        builder.push_raw(io.buffers, payload);
        let header = builder.header(FrameNumber(job.next.checkpoint), crc32c::crc32c(payload));
        let token = Purpose::ImageFrame.token(number.0);
        let bytes = builder.write(&self.place, io, token, false, &header);
        job.head.advance(bytes as u64);
        self.stats.image_bytes += bytes as u64;
        job.bytes += bytes as u64;
        if job.root_made {
            let begin = self.place.geometry.segment_at(place.segment);
            job.roots.push(RootLocation {
                segment: place.segment,
                generation: place.generation,
                offset: (place.at - begin) as u32,
                len: len as u32,
            });
        } else {
            job.root.frames += 1;
        }
        job.ready.pop_front();
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
        let Job { next, root, has_image, bytes, .. } = job;
        assert!(next.version > self.superblock.version, "superblocks only rise");
        if has_image {
            let old = std::mem::take(&mut self.checkpointer.image_segments);
            old.into_iter().for_each(|segment| self.space.set_image_in_use(segment, false));
            self.checkpointer.image_segments = root.segments.iter().map(|(segment, _)| *segment).collect();
            self.checkpointer.image_frames = root.frames + 2;
            self.stats.checkpoints += 1;
            let (records, index_bytes) = (self.catalog.records, self.catalog.index_bytes());
            self.checkpointer.last_image = Some(LastImage { bytes, records, index_bytes });
        }
        self.superblock = next;
        self.space.recheck_emptied();
        self.free_emptied(io);
        self.cleaner.look_again();
        for id in std::mem::take(&mut self.checkpointer.waiting) {
            io.reply(id, ReplyBody::Checkpoint(Ok(())));
        }
        self.superblock_settled();
    }

    fn abandon_checkpoint(&mut self, mut job: Job, io: &mut Io<'_>) {
        job.head.finish(&mut self.space);
        for (segment, _) in job.root.segments {
            self.space.set_image_in_use(segment, false);
        }
        for id in std::mem::take(&mut self.checkpointer.waiting) {
            io.reply(id, ReplyBody::Checkpoint(Err(CheckpointError::NoSpace)));
        }
        self.checkpointer.found_no_room = true;
        self.free_emptied(io);
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
            root: ImageRoot::default(),
            ready: VecDeque::new(),
            partitions: VecDeque::new(),
            last_key: Vec::new(),
            root_made: true,
            roots: Vec::new(),
            in_flight: Vec::new(),
            bytes: 0,
            super_buffer: None,
        }));
        io.start(Op::Flush { token: Purpose::Superblock.token(0) });
    }
}

/// Payload of one image frame: several frames share a segment, however small it is.
fn image_payload_bytes(geometry: &Geometry) -> usize {
    let quarter = align_down(geometry.segment_payload_bytes() / 4, BLOCK_BYTES as u64) as usize;
    quarter.clamp(LEAST_FRAME_BYTES, MOST_FRAME_BYTES) - FRAME_HEADER_BYTES
}
