//! Loading: partitions' indexes come out of the image while the shard serves.
//!
//! A start reads the image's directory and the log's tail. Each partition that the directory names is in the
//! image alone at first; what the tail has changed of it is kept. A request that needs its index waits, and
//! has it loaded before all others; in the background all the others follow in the order of the image, which is
//! written with the busiest first. Until the last is loaded, the segments' live bytes are not known: none is
//! cleaned or freed, and no checkpoint begins.

pub mod kept;
mod lane;
mod settle;
mod state;
mod strays;
mod waiting;

use std::collections::VecDeque;

pub use self::state::{LoadState, PartitionImage};
pub use self::waiting::{OwnedRequest, target_of};

pub use self::lane::is_possible;
use self::lane::{Assembly, Job, Lane};
use self::settle::Settling;
use self::strays::StrayHunt;
use self::waiting::Waiting;
use crate::apply::Effects;
use crate::format::frame::FRAME_HEADER_BYTES;
use crate::format::image::{
    DirectoryEntry, Group, ImageExtent, ImagePayload, ImagePosition, decode, for_each_group,
};
use crate::ids::{DriveOffset, Generation, PartitionId, RequestId, SegmentId};
use crate::io::{Io, Purpose, ReadDone};
use crate::lookups::Located;
use crate::reader::SequentialReader;
use crate::request::Request;
use crate::scanner::{FoundFrame, SegmentScanner};
use crate::shard::Shard;

/// Bytes of one read.
const CHUNK_BYTES: u32 = 256 << 10;
/// Reads ahead for partitions that requests wait for, and in the background where nobody else reads.
const CHUNKS_AHEAD: usize = 4;
/// Chunks that are taken in one step, so that no step is long.
const CHUNKS_PER_STEP: usize = 2;
/// Partitions that are read for waiting requests at once.
const JOBS_ON_DEMAND: usize = 8;
/// Background jobs that are read ahead.
const JOBS_IN_BACKGROUND: usize = 4;
/// Small partitions are loaded together, up to so many bytes of the image.
const RUN_BYTES: u64 = 1 << 20;

/// For whom partitions are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Demand,
    Background,
}

/// The loading of a shard's partitions.
#[derive(Debug)]
pub struct Loader {
    /// Nothing is left in the image alone.
    is_done: bool,
    checkpoint: u64,
    segments: Vec<(SegmentId, Generation)>,
    demand: Lane,
    background: Lane,
    /// Partitions that requests wait for and that nobody loads yet.
    wanted: VecDeque<PartitionId>,
    /// All of the directory, in the order of the image, and how many of them were begun.
    plan: Vec<PartitionId>,
    begun: usize,
    settling: VecDeque<Settling>,
    /// What comes when all is in memory.
    strays: StrayHunt,
    /// Requests for partitions that are not loaded.
    waiting: Waiting,
}

impl Loader {
    /// With nothing to load.
    pub fn idle() -> Loader {
        let reader = |purpose| SequentialReader::new(purpose, DriveOffset(0), CHUNK_BYTES, CHUNKS_AHEAD);
        Loader {
            is_done: true,
            checkpoint: 0,
            segments: Vec::new(),
            demand: Lane::new(reader(Purpose::DemandRead)),
            background: Lane::new(reader(Purpose::LoadRead)),
            wanted: VecDeque::new(),
            plan: Vec::new(),
            begun: 0,
            settling: VecDeque::new(),
            strays: StrayHunt::default(),
            waiting: Waiting::none(),
        }
    }

    /// Requests that wait for a partition.
    pub fn waiting(&self) -> usize {
        self.waiting.count()
    }

    /// Bytes of records that are live already, of partitions that do not count as loaded.
    pub fn assembled_bytes(&self) -> u64 {
        let jobs = [&self.demand, &self.background].into_iter().filter_map(|lane| lane.jobs.front());
        jobs.map(|job| job.assembly.record_bytes()).sum()
    }

    fn lane(&mut self, why: Why) -> &mut Lane {
        match why {
            Why::Demand => &mut self.demand,
            Why::Background => &mut self.background,
        }
    }
}

impl Shard {
    /// Whether partitions are still in the image alone.
    pub fn is_loading(&self) -> bool {
        !self.loader.is_done
    }

    /// Whether a partition's index is in memory.
    pub fn is_loaded(&self, id: PartitionId) -> bool {
        self.catalog.get(id).is_some_and(|partition| partition.image.is_none())
    }

    /// Recovery has read the directory of this image.
    pub(crate) fn begin_loading(
        &mut self,
        checkpoint: u64,
        segments: Vec<(SegmentId, Generation)>,
        directory: Vec<DirectoryEntry>,
    ) {
        let mut loader = Loader::idle();
        let reader = |purpose| SequentialReader::new(purpose, self.place.area_at, CHUNK_BYTES, CHUNKS_AHEAD);
        loader.demand = Lane::new(reader(Purpose::DemandRead));
        loader.background = Lane::new(reader(Purpose::LoadRead));
        (loader.checkpoint, loader.segments) = (checkpoint, segments);
        for entry in directory {
            if self.catalog.set_image(entry) {
                loader.plan.push(entry.partition);
            }
        }
        loader.is_done = loader.plan.is_empty();
        self.loader = loader;
    }

    pub(crate) fn load_read_completed(
        &mut self,
        purpose: Purpose,
        index: u64,
        result: Result<(), crate::seam::DeviceError>,
    ) {
        let why = if purpose == Purpose::DemandRead { Why::Demand } else { Why::Background };
        self.loader.lane(why).reader.complete(index, result);
    }

    /// Lets a request wait whose partition is not loaded. Says whether it does, or was refused.
    pub(crate) fn wait_for_load(&mut self, request: &Request<'_>, io: &mut Io<'_>) -> bool {
        let Some(target) = target_of(&request.body) else { return false };
        let Some(partition) = self.catalog.get(target.partition) else { return false };
        if partition.image.is_none() || partition.spec.epoch != target.epoch {
            return false;
        }
        let id = target.partition;
        let owned = OwnedRequest::copy_of(request).expect("what is for a partition can be copied");
        match self.loader.waiting.push(id, owned, &self.config) {
            Some(true) => {
                self.loader.wanted.push_back(id);
                self.has_more = true;
            }
            Some(false) => {}
            None => {
                self.stats.busy += 1;
                io.reply(request.id, crate::shard::busy(&request.body));
            }
        }
        true
    }

    /// Answers the waiting reads that nobody wants any more.
    pub(crate) fn give_up_waiting(&mut self, is_unwanted: impl Fn(RequestId) -> bool, io: &mut Io<'_>) {
        for owned in self.loader.waiting.take_unwanted(is_unwanted) {
            self.stats.reads_given_up += 1;
            let request = owned.lend();
            io.reply(request.id, crate::shard::busy(&request.body));
        }
    }

    pub(crate) fn pump_loading(&mut self, io: &mut Io<'_>) {
        if self.loader.is_done {
            return;
        }
        for id in std::mem::take(&mut self.catalog.dropped_unloaded) {
            self.serve_waiting(id, io);
        }
        self.begin_jobs();
        for why in [Why::Demand, Why::Background] {
            self.run_lane(why, io);
        }
        let loader = &self.loader;
        let (demand, background) = (loader.demand.jobs.len(), loader.background.jobs.len());
        let is_all_begun = loader.begun == loader.plan.len();
        // What has ended at once, for nothing could be read of it, makes room for more.
        self.has_more |= !loader.wanted.is_empty() && demand < JOBS_ON_DEMAND;
        self.has_more |= demand == 0 && background < JOBS_IN_BACKGROUND && !is_all_begun;
        let is_in_memory = demand + background == 0 && loader.settling.is_empty() && is_all_begun;
        if is_in_memory && self.drop_strays(io) {
            self.end_loading();
        }
    }

    /// Everything is in memory: what had to wait for that goes on.
    fn end_loading(&mut self) {
        assert_eq!(self.catalog.unloaded.partitions, 0, "every partition was loaded or dropped");
        assert_eq!(self.loader.waiting.count(), 0, "nobody waits for what is loaded");
        self.loader = Loader::idle();
        self.space.finish_recovery();
        self.cleaner.look_again();
        self.has_more = true;
    }

    /// Begins to load what is wanted, and as long as nothing is, what is next in the image.
    fn begin_jobs(&mut self) {
        while self.loader.demand.jobs.len() < JOBS_ON_DEMAND {
            let Some(id) = self.loader.wanted.pop_front() else { break };
            if let Some(entry) = self.unloaded_entry(id) {
                self.begin_job(Why::Demand, vec![id], entry.extent);
            }
        }
        while self.loader.demand.jobs.is_empty() && self.loader.background.jobs.len() < JOBS_IN_BACKGROUND {
            let Some((run, extent)) = self.next_run() else { return };
            self.begin_job(Why::Background, run, extent);
        }
    }

    /// The directory's entry of a partition that nobody loads yet.
    fn unloaded_entry(&self, id: PartitionId) -> Option<DirectoryEntry> {
        let image = self.catalog.get(id)?.image.as_ref()?;
        (image.state() == LoadState::Unloaded).then_some(image.entry)
    }

    /// The next partitions of the plan that lie side by side, and where.
    fn next_run(&mut self) -> Option<(Vec<PartitionId>, ImageExtent)> {
        let segment_bytes = u64::from(self.place.geometry.segment_bytes);
        let linear = |at: ImagePosition| u64::from(at.segment) * segment_bytes + u64::from(at.offset);
        let mut run: Option<(Vec<PartitionId>, ImageExtent)> = None;
        while let Some(&id) = self.loader.plan.get(self.loader.begun) {
            if let Some(entry) = self.unloaded_entry(id) {
                let extent = entry.extent;
                match &mut run {
                    None => run = Some((vec![id], extent)),
                    Some((ids, whole)) => {
                        let is_next =
                            whole.from <= extent.from && extent.from <= whole.to && whole.to <= extent.to;
                        if !is_next || linear(whole.to) - linear(whole.from) >= RUN_BYTES {
                            return run;
                        }
                        ids.push(id);
                        whole.to = extent.to;
                    }
                }
            }
            self.loader.begun += 1;
        }
        run
    }

    fn begin_job(&mut self, why: Why, partitions: Vec<PartitionId>, extent: ImageExtent) {
        for id in &partitions {
            self.catalog.set_load_state(*id, LoadState::Loading);
        }
        // An extent that is none holds nothing: its partitions will not be whole.
        let pieces = extent.pieces(&self.loader.segments, &self.place.geometry).unwrap_or_default();
        let seed = self.place.seed;
        let mut job =
            Job { partitions: partitions.into(), pieces: VecDeque::new(), assembly: Assembly::default() };
        job.assembly = self.assembly_of_first(&job);
        let lane = self.loader.lane(why);
        for (segment, generation, from, to) in pieces {
            lane.reader.push(from, to - from);
            job.pieces.push_back((SegmentScanner::new(seed, segment, generation, from, to), to));
        }
        lane.jobs.push_back(job);
    }

    /// Of the first partition of a job, in its beginning.
    fn assembly_of_first(&self, job: &Job) -> Assembly {
        Assembly::new(job.partitions.front().is_some_and(|id| self.catalog.is_compact(*id)))
    }

    /// Reads on, and takes what was read.
    fn run_lane(&mut self, why: Why, io: &mut Io<'_>) {
        for _ in 0..CHUNKS_PER_STEP {
            self.end_empty_jobs(why);
            if !self.settle_partitions(io) {
                return;
            }
            self.load_ahead(why, io);
            let Some(chunk) = self.loader.lane(why).reader.take(io) else { return };
            self.take_chunk(why, &chunk, &chunk.bytes(io));
            io.buffers.release(chunk.buffer);
            self.stats.recovery_read_bytes += u64::from(chunk.len);
            self.end_empty_jobs(why);
            self.has_more = true;
            self.begin_jobs();
            self.load_ahead(why, io);
        }
    }

    /// Starts reads. In the background none while clients' reads wait for buffers, and one at a time while they
    /// use the drive.
    fn load_ahead(&mut self, why: Why, io: &mut Io<'_>) {
        let (queued, in_flight) = (self.reads.queued(), self.reads.in_flight());
        let is_quiet = in_flight == 0 && self.loader.demand.jobs.is_empty();
        let lane = self.loader.lane(why);
        if why == Why::Background {
            if queued > 0 {
                return;
            }
            lane.reader.set_depth(if is_quiet { CHUNKS_AHEAD } else { 1 });
        }
        lane.reader.pump(io);
    }

    fn take_chunk(&mut self, why: Why, chunk: &ReadDone, bytes: &[u8]) {
        let mut job = self.loader.lane(why).jobs.pop_front().expect("what is read is for a job");
        let (mut scanner, end) = job.pieces.pop_front().expect("what is read is a piece of the job");
        let checkpoint = self.loader.checkpoint;
        scanner.feed(bytes, |frame| {
            if let Some(packed) = index_of(&frame, checkpoint) {
                // What is malformed is missed when the partition is whole otherwise.
                let _ = for_each_group(packed, |group| self.take_group(&mut job, &group));
            }
        });
        if chunk.at + u64::from(chunk.len) < end {
            job.pieces.push_front((scanner, end));
        }
        self.loader.lane(why).jobs.push_front(job);
    }

    fn take_group(&mut self, job: &mut Job, group: &Group<'_>) {
        // Frames at the ends hold others' groups, too.
        let Some(place) = job.partitions.iter().position(|id| *id == group.partition) else { return };
        for _ in 0..place {
            self.end_first(job);
        }
        let geometry = self.place.geometry;
        job.assembly.take(group, &geometry, &mut self.catalog.arena, &mut self.space);
    }

    /// Jobs of which all was read are done.
    fn end_empty_jobs(&mut self, why: Why) {
        while self.loader.lane(why).jobs.front().is_some_and(|job| job.pieces.is_empty()) {
            let Some(mut job) = self.loader.lane(why).jobs.pop_front() else { return };
            while !job.partitions.is_empty() {
                self.end_first(&mut job);
            }
        }
    }

    /// All that there is of the first partition of a job was taken.
    fn end_first(&mut self, job: &mut Job) {
        let Some(id) = job.partitions.pop_front() else { return };
        let assembly = self.assembly_of_first(job);
        let assembly = std::mem::replace(&mut job.assembly, assembly);
        let image = self.catalog.get(id).and_then(|partition| partition.image.as_ref());
        let is_whole = image.is_none_or(|image| assembly.is_whole(&image.entry));
        let (index, bytes, expiries) = assembly.finish(&mut self.catalog.arena);
        self.stats.recovered_image_records += index.len();
        let Some(kept) = self.catalog.install(id, index, bytes) else { return };
        if !is_whole {
            self.stats.quarantined_frames += 1;
            self.quarantine_image(id);
        }
        let is_compact = self.catalog.is_compact(id);
        self.loader.settling.push_back(Settling::new(id, is_compact, expiries, kept));
    }

    /// Serves those who wait for a partition, in the order in which they came.
    fn serve_waiting(&mut self, id: PartitionId, io: &mut Io<'_>) {
        for owned in self.loader.waiting.take(id) {
            self.handle(&owned.lend(), Located::Unknown, io);
        }
    }
}

impl Shard {
    /// Some of a partition's image is damaged: what was written before the image may be lost.
    fn quarantine_image(&mut self, id: PartitionId) {
        let mut below = self.superblock.highest_seq;
        below.wall_ns += 1;
        let now = self.clock.now();
        let Shard { catalog, space, cache, journal, facts, .. } = self;
        let mut effects = Effects { catalog, space, cache, journal: Some(journal), facts, own: None, now };
        effects.quarantine_one(id, below);
    }
}

/// What a frame of this image holds of indexes.
fn index_of<'a>(frame: &FoundFrame<'a>, checkpoint: u64) -> Option<&'a [u8]> {
    if !frame.whole || frame.header.durable.0 != checkpoint {
        return None;
    }
    let end = FRAME_HEADER_BYTES + frame.header.payload_bytes as usize;
    match decode(frame.bytes.get(FRAME_HEADER_BYTES..end)?)? {
        ImagePayload::Index(packed) => Some(packed),
        _ => None,
    }
}
