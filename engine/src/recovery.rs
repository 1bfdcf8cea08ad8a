//! Recovery: from the superblock to a serving shard.
//!
//! Superblocks -> Headers -> Root -> Directory -> Journal -> User -> (Settling ->) done. Of the image, only
//! catalog and directory are read here: see `loading`. Of the users' stream only the frames are read that the journal
//! does not cover; of cleaning, none.

mod stretch;
mod tail;

pub use self::stretch::FrameBytes;

use std::collections::BTreeSet;

use self::stretch::Stretch;
use crate::config::ShardConfig;
use crate::format::catalog::CatalogChange;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, PartitionSet, Stream};
use crate::format::image::{self, DirectoryEntry, ImagePayload, ImageRoot};
use crate::format::journal::JournalHead;
use crate::format::segment::SegmentHeader;
use crate::format::superblock::{MAX_VOID_RANGES, Superblock, VoidRange};
use crate::ids::{DriveOffset, Generation, SegmentId};
use crate::io::{Io, Purpose};
use crate::limits::BLOCK_BYTES;
use crate::reader::SequentialReader;
use crate::replay::FrameReplay;
use crate::scanner::FoundFrame;
use crate::seam::DeviceError;
use crate::shard::{OpenError, Phase, Shard};

/// Bytes read at a time from segments.
const CHUNK_BYTES: u32 = 256 << 10;
/// Chunks read ahead.
const CHUNKS_AHEAD: usize = 4;
/// Of each segment, its header and the header of its first frame are looked at.
const PROBE_BYTES: u64 = 2 * BLOCK_BYTES as u64;
/// Probes read ahead.
const PROBES_AHEAD: usize = 64;

/// How far recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Superblocks,
    Headers,
    Root,
    /// The catalog and the directory.
    Directory,
    Journal,
    User,
    /// The superblock, or a whole checkpoint, is being written.
    Settling,
}

/// A recovery under way.
#[derive(Debug)]
pub struct Recovery {
    stage: Stage,
    reader: SequentialReader,
    superblocks: Vec<Option<Superblock>>,
    /// Both copies of the present superblock are whole.
    mirrored: bool,
    /// What the stage reads of segments, in order; the first is being read.
    walk: std::collections::VecDeque<Stretch>,
    image: ImageLoad,
    /// The tail that is being read: the journal's, then the users'.
    replay: FrameReplay,
    /// How far the journal goes.
    covered: JournalHead,
    /// Bytes of the journal's frames.
    journal_bytes: u64,
    /// What of the journal was cut.
    journal_void: Option<VoidRange>,
    /// Blocks of the tail that could not be read.
    hidden_blocks: u64,
    /// Segments of the tail that have frames, or blocks that could not be read.
    written: BTreeSet<SegmentId>,
    /// Partitions whose damaged frames were followed by no whole one.
    unbounded: Vec<PartitionSet>,
    /// Some of the tail was damaged: until a checkpoint is behind it, or the journal, every restart meets it again.
    met_damage: bool,
}

/// The loading of an image.
#[derive(Debug, Default)]
struct ImageLoad {
    root: ImageRoot,
    catalog_seen: Vec<bool>,
    /// Entries of each of the directory's frames.
    directory: Vec<Option<Vec<DirectoryEntry>>>,
}

impl Recovery {
    /// At its beginning: the superblocks are read.
    pub fn new(config: &ShardConfig) -> Recovery {
        let mut reader = SequentialReader::new(Purpose::RecoveryRead, DriveOffset(0), BLOCK_BYTES as u32, 4);
        for slot in config.geometry.superblock_slots(config.shard) {
            reader.push(slot.0, BLOCK_BYTES as u64);
        }
        Recovery {
            stage: Stage::Superblocks,
            reader,
            superblocks: Vec::new(),
            mirrored: false,
            walk: Default::default(),
            image: ImageLoad::default(),
            replay: FrameReplay::default(),
            covered: JournalHead::default(),
            journal_bytes: 0,
            journal_void: None,
            hidden_blocks: 0,
            written: BTreeSet::new(),
            unbounded: Vec::new(),
            met_damage: false,
        }
    }
}

impl Recovery {
    /// What was to be read of a segment has been: begins the next stretch of the stage, if there is one.
    fn begin_stretch(&mut self) -> bool {
        if self.walk.front().is_some_and(|stretch| stretch.is_begun)
            && let Some(next) = self.walk.pop_front().and_then(Stretch::next)
        {
            self.walk.push_front(next);
        }
        let Some(next) = self.walk.front_mut() else { return false };
        next.is_begun = true;
        let (from, len) = next.extent();
        self.reader.push(from, len);
        true
    }
}

impl Shard {
    pub(crate) fn recovery_read_completed(&mut self, index: u64, result: Result<(), DeviceError>) {
        let recovery = self.recovery.as_mut().expect("recovery reads end before recovery does");
        recovery.reader.complete(index, result);
    }

    pub(crate) fn pump_recovery(&mut self, io: &mut Io<'_>) {
        let Some(mut recovery) = self.recovery.take() else { return };
        if recovery.stage == Stage::Settling {
            self.recovery = Some(recovery);
            return self.settle(io);
        }
        loop {
            recovery.reader.pump(io);
            while let Some(chunk) = recovery.reader.take(io) {
                recovery.hidden_blocks += u64::from(chunk.result.is_err());
                self.recovery_chunk(&mut recovery, chunk.at, &chunk.bytes(io), chunk.result.is_ok());
                io.buffers.release(chunk.buffer);
                recovery.reader.pump(io);
            }
            if !recovery.reader.is_done() {
                break;
            }
            if recovery.begin_stretch() {
                continue;
            }
            self.stats.recovery_read_bytes += recovery.reader.bytes_read;
            match self.next_stage(&mut recovery, io) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.phase = Phase::Failed(error);
                    return;
                }
            }
        }
        self.recovery = Some(recovery);
        if self.phase == Phase::Serving {
            self.recovery = None;
        }
    }

    fn recovery_chunk(&mut self, recovery: &mut Recovery, at: u64, bytes: &[u8], is_readable: bool) {
        match recovery.stage {
            Stage::Superblocks => {
                recovery.superblocks.push(Superblock::decode(self.place.seed, at, bytes));
            }
            Stage::Headers => self.found_segment(at, bytes),
            Stage::Root | Stage::Directory | Stage::Journal | Stage::User => {
                let Some(mut stretch) = recovery.walk.pop_front() else { return };
                if !is_readable {
                    recovery.written.insert(stretch.segment());
                }
                stretch.feed(at, bytes, is_readable, |frame| self.recovered_frame(recovery, &frame));
                if stretch.may_stop() && !recovery.reader.is_splitting() {
                    recovery.reader.stop();
                    stretch.stop();
                }
                recovery.walk.push_front(stretch);
            }
            Stage::Settling => {}
        }
    }

    /// One segment's first two blocks: who it is.
    fn found_segment(&mut self, at: u64, bytes: &[u8]) {
        let segment = self.place.geometry.segment_of(at);
        let seed = self.place.seed;
        let begin = self.place.geometry.segment_at(segment);
        let header = if at == begin { SegmentHeader::decode(seed, at, bytes) } else { None };
        let header = header.filter(|header| header.segment == segment);
        let header = header.map(|header| (header.generation, header.stream));
        // Where the header is damaged, or the drive has lost it and gives that of an earlier life, the first frame
        // still tells. (Where one of the two blocks cannot be read, they come one by one.)
        let first_at = begin + BLOCK_BYTES as u64;
        let first = bytes.get((first_at - at) as usize..).unwrap_or_default();
        let first = FrameHeader::decode_any(seed, first_at, first).filter(|frame| frame.segment == segment);
        let first = first.map(|frame| (frame.generation, frame.stream));
        let newest = header.into_iter().chain(first).max_by_key(|(generation, _)| *generation);
        if let Some((generation, stream)) = newest.filter(|_| !self.space.is_known(segment)) {
            self.space.found(segment, generation, stream);
        }
    }

    /// Starts the next stage: true where it may have something to take at once.
    fn next_stage(&mut self, recovery: &mut Recovery, io: &mut Io<'_>) -> Result<bool, OpenError> {
        let geometry = self.place.geometry;
        match recovery.stage {
            Stage::Superblocks => {
                let found = std::mem::take(&mut recovery.superblocks);
                let newest = Superblock::newest(found.iter().cloned()).ok_or(OpenError::NoSuperblock)?;
                let copies = found.iter().flatten().filter(|copy| **copy == newest).count();
                recovery.mirrored = copies > 1;
                self.superblock = newest;
                self.sequencer.observe(self.superblock.highest_seq);
                self.space.saw_generation(self.superblock.highest_generation);
                recovery.reader = self.recovery_reader(PROBE_BYTES as u32, PROBES_AHEAD);
                for segment in self.space.ids() {
                    recovery.reader.push(geometry.segment_at(segment), PROBE_BYTES);
                }
                recovery.stage = Stage::Headers;
            }
            Stage::Headers => {
                recovery.reader = self.recovery_reader(CHUNK_BYTES, CHUNKS_AHEAD);
                recovery.stage = Stage::Root;
                for root in self.superblock.roots.into_iter().flatten() {
                    let end = u64::from(root.offset) + u64::from(root.len);
                    let is_placed = (root.offset | root.len).is_multiple_of(BLOCK_BYTES as u32)
                        && root.segment.0 < geometry.segments_per_shard
                        && end <= u64::from(geometry.segment_bytes);
                    if !is_placed {
                        return Err(OpenError::RootDamaged);
                    }
                    let begin = geometry.segment_at(root.segment) + u64::from(root.offset);
                    let end = begin + u64::from(root.len);
                    self.walk(recovery, root.segment, root.generation, begin, end);
                }
            }
            Stage::Root => {
                self.begin_image(recovery)?;
                recovery.stage = Stage::Directory;
            }
            Stage::Directory => {
                self.end_image(recovery)?;
                self.begin_journal(recovery);
                recovery.stage = Stage::Journal;
            }
            Stage::Journal => {
                self.end_journal(recovery);
                recovery.stage = Stage::User;
            }
            Stage::User => {
                self.end_replay(recovery, io);
                return Ok(false);
            }
            Stage::Settling => return Ok(false),
        }
        Ok(true)
    }

    fn recovery_reader(&self, chunk_bytes: u32, depth: usize) -> SequentialReader {
        SequentialReader::new(Purpose::RecoveryRead, self.place.area_at, chunk_bytes, depth)
    }

    fn walk(&self, recovery: &mut Recovery, id: SegmentId, generation: Generation, from: u64, to: u64) {
        recovery.walk.push_back(Stretch::whole(self.place.seed, id, generation, from, to));
    }

    fn recovered_frame(&mut self, recovery: &mut Recovery, frame: &FoundFrame<'_>) {
        match (recovery.stage, frame.header.stream) {
            (Stage::Root | Stage::Directory, Stream::Image) => self.image_frame(recovery, frame),
            (Stage::Journal, Stream::Journal) | (Stage::User, Stream::User) => {
                self.tail_frame(recovery, frame);
            }
            // A frame of a stream that its segment is not of: no frame of ours.
            _ => self.stats.quarantined_frames += 1,
        }
    }

    fn image_frame(&mut self, recovery: &mut Recovery, frame: &FoundFrame<'_>) {
        if frame.header.durable.0 != self.superblock.checkpoint || !frame.whole {
            return;
        }
        let end = FRAME_HEADER_BYTES + frame.header.payload_bytes as usize;
        let Some(payload) = image::decode(&frame.bytes[FRAME_HEADER_BYTES..end]) else { return };
        let number = frame.header.number.0;
        match payload {
            ImagePayload::Root(root) => {
                if recovery.stage == Stage::Root {
                    recovery.image.root = root;
                }
            }
            ImagePayload::Catalog(changes) => {
                let load = &mut recovery.image;
                let copy = ((number - 1) % u64::from(load.root.catalog_frames.max(1))) as usize;
                if recovery.stage == Stage::Directory && load.catalog_seen.get(copy) == Some(&false) {
                    load.catalog_seen[copy] = true;
                    for change in changes.into_iter().filter_map(CatalogChange::decode) {
                        self.catalog.apply(change);
                    }
                }
            }
            ImagePayload::Directory(entries) => {
                let ImageRoot { frames, directory_frames, .. } = recovery.image.root;
                let first = frames.saturating_sub(2 * u64::from(directory_frames)) + 1;
                let copy = number.saturating_sub(first) % u64::from(directory_frames.max(1));
                if let Some(known) = recovery.image.directory.get_mut(copy as usize) {
                    known.get_or_insert(entries);
                }
            }
            // Read when it is needed.
            ImagePayload::Index(_) => {}
        }
    }

    fn begin_image(&mut self, recovery: &mut Recovery) -> Result<(), OpenError> {
        let Some(copies) = self.superblock.roots else { return Ok(()) };
        let root = std::mem::take(&mut recovery.image.root);
        if root.catalog_frames == 0 || u64::from(root.catalog_frames.max(root.directory_frames)) > root.frames
        {
            return Err(OpenError::RootDamaged);
        }
        recovery.image.catalog_seen = vec![false; root.catalog_frames as usize];
        recovery.image.directory = vec![None; root.directory_frames as usize];
        self.catalog.highest_table = root.highest_table;
        self.catalog.highest_partition = root.highest_partition;
        recovery.reader = self.recovery_reader(CHUNK_BYTES, CHUNKS_AHEAD);
        let count = self.place.geometry.segments_per_shard;
        let mut named = root.in_use.iter().map(|(segment, ..)| segment);
        if root.segments.iter().map(|(segment, _)| segment).chain(named.by_ref()).any(|s| s.0 >= count) {
            return Err(OpenError::RootDamaged);
        }
        let geometry = self.place.geometry;
        let extents = [(root.catalog, root.catalog_frames), (root.directory, root.directory_frames)];
        for (extent, _) in extents.into_iter().filter(|(_, frames)| *frames > 0) {
            let pieces = extent.pieces(&root.segments, &geometry).ok_or(OpenError::RootDamaged)?;
            for (segment, generation, from, to) in pieces {
                self.walk(recovery, segment, generation, from, to);
            }
        }
        let mut segments: Vec<_> = root.segments.iter().map(|(segment, _)| *segment).collect();
        for copy in copies {
            if !segments.contains(&copy.segment) {
                segments.push(copy.segment);
            }
        }
        // Where both a segment's header and its first frame are damaged, the root still knows it, and
        // the superblock knows the root's. What was read may also be what lay there before: a segment that is in use
        // would pass for a free one.
        let own = copies.map(|copy| (copy.segment, copy.generation, Stream::Image));
        for &(segment, generation, stream) in root.in_use.iter().chain(&own) {
            if !self.space.is_known(segment) {
                self.space.found(segment, generation, stream);
            } else {
                self.space.found_later_life(segment, generation, stream);
            }
        }
        self.find_free(&root);
        for &segment in &segments {
            if !self.space.is_known(segment) || self.space.get(segment).stream != Stream::Image {
                return Err(OpenError::RootDamaged);
            }
            self.space.set_in_use(segment, true);
        }
        self.checkpointer.image_segments = segments;
        self.checkpointer.image_frames = root.frames + 2;
        recovery.image.root = root;
        Ok(())
    }

    /// Segments that were free when the root was made, and have not been opened since.
    fn find_free(&mut self, root: &ImageRoot) {
        let mut in_use = vec![Generation(0); self.place.geometry.segments_per_shard as usize];
        root.in_use.iter().for_each(|(segment, generation, _)| in_use[segment.0 as usize] = *generation);
        for id in self.space.ids() {
            let generation = self.space.get(id).generation;
            let is_old = generation <= root.highest_generation && in_use[id.0 as usize] != generation;
            if is_old && self.space.is_known(id) {
                self.space.found_free(id);
            }
        }
    }

    fn end_image(&mut self, recovery: &mut Recovery) -> Result<(), OpenError> {
        let load = std::mem::take(&mut recovery.image);
        if load.catalog_seen.contains(&false) {
            return Err(OpenError::CatalogDamaged);
        }
        let frames = load.directory.into_iter().collect::<Option<Vec<_>>>();
        let directory = frames.ok_or(OpenError::DirectoryDamaged)?.concat();
        self.begin_loading(self.superblock.checkpoint, load.root.segments, directory);
        Ok(())
    }

    /// Frames that were cut must stay cut, whatever is found of them at the next start; and a superblock
    /// of which one copy is left must not be lost, for the one before it is no longer true.
    fn settle_superblock(
        &mut self,
        void: Option<VoidRange>,
        journal_void: Option<VoidRange>,
        io: &mut Io<'_>,
    ) {
        let is_full = |present: &Vec<VoidRange>, more: Option<VoidRange>| {
            more.is_some() && present.len() == MAX_VOID_RANGES
        };
        let Superblock { void: user, journal_void: journal, .. } = &self.superblock;
        if is_full(user, void) || is_full(journal, journal_void) {
            // No room to remember one more: a checkpoint puts them all behind us, once all is loaded.
            self.has_more = true;
            self.checkpointer.wanted = true;
            return;
        }
        let mut next = self.superblock.clone();
        next.version += 1;
        next.void.extend(void);
        next.journal_void.extend(journal_void);
        next.may_lack_tables = self.catalog.may_lack_tables;
        self.rewrite_superblock(next, io);
    }

    fn settle(&mut self, io: &mut Io<'_>) {
        if self.log.is_poisoned() {
            self.phase = Phase::Failed(OpenError::Device { os_error: 5 });
            return;
        }
        if self.checkpointer.wanted {
            self.pump_loading(io);
        }
        if self.checkpointer.wanted || self.checkpointer.is_running() {
            self.pump_checkpoint(io);
        }
    }

    fn is_settling(&self) -> bool {
        self.recovery.as_deref().is_some_and(|recovery| recovery.stage == Stage::Settling)
    }

    /// The superblock is durable: if recovery waited for it, it is over.
    pub(crate) fn superblock_settled(&mut self) {
        if !self.is_settling() {
            return;
        }
        if let Some(recovery) = self.recovery.take() {
            self.checkpointer.wanted |= recovery.met_damage;
        }
        self.phase = Phase::Serving;
    }

    /// There was no room for a checkpoint: if recovery waited for it, it has failed.
    pub(crate) fn superblock_not_settled(&mut self) {
        if self.is_settling() {
            self.phase = Phase::Failed(OpenError::NoRoom);
        }
    }

    /// The flush at the end of a recovery that had nothing to write.
    pub(crate) fn recovery_flushed(&mut self, result: Result<(), DeviceError>) {
        match result {
            Ok(()) => self.superblock_settled(),
            Err(DeviceError { os_error }) => self.phase = Phase::Failed(OpenError::Device { os_error }),
        }
    }
}
