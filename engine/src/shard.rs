//! A shard: one core's partitions, its part of the drive and its memory.
//!
//! `Shard::step` is the seam: the work of one step, in order. What each part does is in its own room:
//! `writes` (put, delete, batch, conditions), `reads` (get, scan, count), `catalog_job` (tables and
//! partitions), `cleaning`, `journal`, `checkpoint`, `scrub`, `recovery`.

use std::collections::{HashMap, VecDeque};

use thiserror::Error;

use crate::append::Place;
use crate::asking::Asking;
use crate::cache::ReadCache;
use crate::catalog::Catalog;
use crate::catalog_job::CatalogJobs;
use crate::checkpoint::Checkpointer;
use crate::cleaning::Cleaner;
use crate::config::ShardConfig;
use crate::expiry::ExpiryClock;
use crate::facts::Facts;
use crate::format::ChecksumSeed;
use crate::format::journal::{JournalEntry, LogPosition};
use crate::format::superblock::Superblock;
use crate::ids::{FrameNumber, NodeId, SegmentId, Token};
use crate::io::{Io, Purpose};
use crate::journal::Journal;
use crate::loading::Loader;
use crate::log::Log;
use crate::lookups::Located;
use crate::owned::OwnedWrite;
use crate::reads::Reads;
use crate::recovery::Recovery;
use crate::reply::{BeginError, CatalogError, CheckpointError, Delay, ReadError, ReplyBody, WriteError};
use crate::request::{Request, RequestBody, ScanWish, TransactionRead};
use crate::scrub::Scrubber;
use crate::seam::{Buffers, Completion, DeviceError, Inbox, Now, Op, Outbox};
use crate::sequencer::Sequencer;
use crate::space::{Census, Space};
use crate::stats::ShardStats;
use crate::transactions::Transactions;

/// What a shard is doing. Recovering -> Serving, or Recovering -> Failed, and no way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Reading what is on the drive; requests are answered `Busy`.
    Recovering,
    /// Answering. Partitions that are still in the image alone are loaded when they are asked for.
    Serving,
    /// The drive's contents cannot be used.
    Failed(OpenError),
}

/// Why a shard could not be opened. Nothing was changed on the drive.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// No superblock of the shard is whole.
    #[error("no superblock of the shard is whole: restore the drive from a copy")]
    NoSuperblock,
    /// The root of the last checkpoint is damaged.
    #[error("the root of the shard's checkpoint is damaged: restore the drive from a copy")]
    RootDamaged,
    /// Both copies of a piece of the catalog are damaged.
    #[error("both copies of the shard's catalog are damaged: restore the drive from a copy")]
    CatalogDamaged,
    /// Both copies of a piece of the directory are damaged.
    #[error(
        "both copies of the directory of the shard's checkpoint are damaged: restore the drive from a copy"
    )]
    DirectoryDamaged,
    /// Too many crashes without a checkpoint between them, and no room for one.
    #[error("the shard needs a checkpoint to open, and its drive has no room for one: use a larger drive")]
    NoRoom,
    /// The drive failed a read or write that recovery cannot do without.
    #[error("the drive failed while the shard was opened (os error {os_error})")]
    Device {
        /// The operating system's error number.
        os_error: i32,
    },
}

/// A shard.
pub struct Shard {
    pub(crate) config: ShardConfig,
    pub(crate) place: Place,
    pub(crate) phase: Phase,
    pub(crate) stats: ShardStats,
    pub(crate) catalog: Catalog,
    pub(crate) space: Space,
    pub(crate) log: Log,
    pub(crate) journal: Journal,
    pub(crate) cache: ReadCache,
    pub(crate) reads: Reads,
    pub(crate) catalog_jobs: CatalogJobs,
    pub(crate) cleaner: Cleaner,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) scrubber: Scrubber,
    pub(crate) sequencer: Sequencer,
    /// The time by which records expire.
    pub(crate) clock: ExpiryClock,
    /// When the next record expires, in nanoseconds of the monotonic clock.
    pub(crate) expiry_wake_ns: Option<u64>,
    pub(crate) superblock: Superblock,
    pub(crate) recovery: Option<Box<Recovery>>,
    /// Partitions on their way from the image into memory.
    pub(crate) loader: Loader,
    /// Writes that wait for room, in order.
    pub(crate) parked: VecDeque<OwnedWrite>,
    pub(crate) parked_bytes: usize,
    /// The first of them waits for a segment.
    pub(crate) parked_for_segment: bool,
    /// Something came free at the end of the step for which something else waits.
    pub(crate) has_more: bool,
    /// Conditional writes that wait for a frame to be durable.
    pub(crate) waiters: Vec<(FrameNumber, OwnedWrite)>,
    /// Keys, by hash, that are being read for a write that depends on them, and the writes behind it.
    pub(crate) deciding: HashMap<u64, Vec<OwnedWrite>, ahash::RandomState>,
    /// How many writes wait for a frame or a read of their key, and their bytes.
    pub(crate) waiting_writes: usize,
    pub(crate) waiting_bytes: usize,
    /// The open transactions, and what they still see of the past.
    pub(crate) transactions: Transactions,
    /// What is known of keys that compact indexes do not hold.
    pub(crate) facts: Facts,
    /// Requests that wait for such keys to be read.
    pub(crate) asking: Vec<Asking>,
}

impl Shard {
    /// A shard that begins to recover at its first step.
    pub fn new(config: ShardConfig) -> Shard {
        let place = Place {
            geometry: config.geometry,
            area_at: config.geometry.area_at(config.shard),
            seed: ChecksumSeed::new(&config.drive_uuid, config.shard),
        };
        Shard {
            phase: Phase::Recovering,
            stats: ShardStats::default(),
            catalog: Catalog::new(),
            space: Space::new(config.geometry, config.lanes),
            log: Log::new(place, FrameNumber(1)),
            journal: Journal::new(place, FrameNumber(1), FrameNumber(0), LogPosition::default()),
            cache: ReadCache::new(config.cache_bytes),
            reads: Reads::default(),
            catalog_jobs: CatalogJobs::default(),
            cleaner: Cleaner::new(place, config.lanes),
            checkpointer: Checkpointer::default(),
            scrubber: Scrubber::new(),
            sequencer: Sequencer::new(config.shard, config.node),
            clock: ExpiryClock::default(),
            expiry_wake_ns: None,
            superblock: Superblock::fresh(NodeId(0)),
            recovery: Some(Box::new(Recovery::new(&config))),
            loader: Loader::idle(),
            parked: VecDeque::new(),
            parked_bytes: 0,
            parked_for_segment: false,
            has_more: false,
            waiters: Vec::new(),
            deciding: HashMap::with_hasher(ahash::RandomState::with_seeds(21, 22, 23, 24)),
            waiting_writes: 0,
            waiting_bytes: 0,
            transactions: Transactions::new(),
            facts: Facts::new(),
            asking: Vec::new(),
            place,
            config,
        }
    }

    /// What the shard is doing.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// When the shard wants its next step at the latest even if nothing arrives, in monotonic
    /// nanoseconds.
    pub fn next_wake_ns(&self) -> Option<u64> {
        let frame_ns = self.log.next_wake_ns(&self.config);
        let scrub_ns = self.scrubber.next_wake_ns(self.config.scrub_bytes_per_s);
        let scrub_ns = scrub_ns.filter(|_| self.phase == Phase::Serving && !self.is_loading());
        let deadline_ns = self.transactions.next_deadline_ns();
        frame_ns.into_iter().chain(self.expiry_wake_ns).chain(scrub_ns).chain(deadline_ns).min()
    }

    /// Whether another step would do work at once, though nothing arrives.
    pub fn has_work(&self) -> bool {
        self.catalog.is_dropping() || self.has_more
    }

    /// Takes requests and completions, does what can be done without waiting, gives operations and
    /// replies.
    pub fn step(&mut self, now: Now, inbox: &mut Inbox<'_>, outbox: &mut Outbox, buffers: &mut dyn Buffers) {
        let mut io = Io { now, outbox, buffers, delay: Delay::default() };
        self.has_more = false;
        self.clock.advance(now.wall_ns);
        self.prefetch_completed(&inbox.completions, io.buffers);
        for completion in inbox.completions.drain(..) {
            self.complete(completion, &mut io);
        }
        if self.phase == Phase::Recovering {
            self.pump_recovery(&mut io);
        }
        let serving = self.phase == Phase::Serving;
        if serving {
            self.apply_durable(&mut io);
            // Before the requests: those that waited came before them.
            self.pump_loading(&mut io);
            // Before the requests: they hardly ever meet a record whose time is over.
            self.expire_due(&mut io);
            self.end_due_transactions(&io);
            self.retry_parked(&mut io);
            self.serve_asking(&mut io);
        }
        if serving {
            self.handle_all(&mut inbox.requests, &mut io);
        } else {
            for request in inbox.requests.drain(..) {
                io.reply(request.id, busy(&request.body));
            }
        }
        self.give_up_reads(&mut inbox.unwanted, &mut io);
        if serving {
            self.background(&mut io);
            self.set_expiry_wake(&io);
        }
    }

    fn background(&mut self, io: &mut Io<'_>) {
        self.pump_reads(io);
        self.pump_catalog_jobs(io);
        self.drain_dropped();
        self.pump_scrub(io);
        self.pump_facts(io);
        self.tend_transactions();
        if !self.log.is_poisoned() {
            self.pump_cleaning(io);
            self.pump_journal(io);
            self.pump_checkpoint(io);
            self.open_segments(io);
            self.log.close_if_due(&self.config, &mut self.space, &mut self.stats, io);
        }
    }

    pub(crate) fn handle(&mut self, request: &Request<'_>, located: Located, io: &mut Io<'_>) {
        if self.is_loading() && self.wait_for_load(request, io) {
            return;
        }
        match &request.body {
            RequestBody::Get { target, key } => self.get(request.id, target, key, located, None, io),
            RequestBody::Put { .. }
            | RequestBody::Delete { .. }
            | RequestBody::Modify { .. }
            | RequestBody::Commit { .. }
            | RequestBody::Batch { .. } => self.write_or_park(request.id, &request.body, io),
            RequestBody::Scan { target, range, reverse, limit, byte_budget, keys_only } => {
                let (range, reverse, limit) = (*range, *reverse, *limit);
                let (byte_budget, keys_only) = (*byte_budget, *keys_only);
                let wish = ScanWish { range, reverse, limit, byte_budget, keys_only };
                self.scan(request.id, target, &wish, None, io);
            }
            RequestBody::Count { target, range } => self.count(request.id, target, range, None, io),
            RequestBody::Begin { target, owner, read_only, lifetime_ms } => {
                self.begin(request.id, target, *owner, (*read_only, *lifetime_ms), io);
            }
            RequestBody::Within { target, transaction, read } => {
                self.read_within(request.id, target, *transaction, read, io);
            }
            RequestBody::Rollback { transaction, .. } => self.rollback(request.id, *transaction, io),
            RequestBody::EndTransactions { owner } => self.end_transactions_of(request.id, *owner, io),
            RequestBody::TimeToLive { target, key } => self.time_to_live(request.id, target, key, io),
            RequestBody::CreateTable { .. }
            | RequestBody::DropTable { .. }
            | RequestBody::CreatePartition { .. }
            | RequestBody::DropPartition { .. }
            | RequestBody::SetQuota { .. } => self.queue_catalog_job(request.id, &request.body, io),
            RequestBody::ListTables => io.reply(request.id, ReplyBody::Tables(self.catalog.list())),
            RequestBody::HasAllTables => {
                // Until a checkpoint has said so, every start asks again; and takes for lost what was dropped.
                self.checkpointer.wanted |= std::mem::replace(&mut self.catalog.may_lack_tables, false);
                io.reply(request.id, ReplyBody::Catalog(Ok(())));
            }
            RequestBody::Stats => io.reply(request.id, ReplyBody::Stats(Box::new(self.stats()))),
            RequestBody::Checkpoint => self.request_checkpoint(request.id, io),
            RequestBody::Scrub => {
                let number = self.scrubber.ask_for_round(io.now.monotonic_ns);
                io.reply(request.id, ReplyBody::Scrub(number));
            }
        }
    }

    fn complete(&mut self, completion: Completion, io: &mut Io<'_>) {
        let Completion { token, result } = completion;
        let (purpose, index) = Purpose::of(token);
        match purpose {
            Purpose::Read => {
                self.read_completed(index as usize, result, io);
                io.delay = Delay::default();
            }
            Purpose::UserFrame => {
                let acks = self.log.written(index, result, io);
                self.fail_acks(acks, io);
            }
            Purpose::SegmentHeader => self.header_written(SegmentId(index as u32), result, io),
            Purpose::CleaningRead => {
                self.cleaner.read_completed(index, result);
                if self.log.is_poisoned() {
                    self.cleaner.close(io);
                }
            }
            Purpose::CleaningFrame => self.cleaning_frame_written(index, result, io),
            Purpose::ImageFrame => self.image_frame_written(index, result, io),
            Purpose::Superblock => self.superblock_step_done(result, io),
            Purpose::RecoveryRead => self.recovery_read_completed(index, result),
            // A failed discard leaves the old bytes, which nobody takes for new ones.
            Purpose::Discard => self.space.discarded(SegmentId(index as u32)),
            Purpose::ScrubRead => self.scrubber.read_completed(index, result),
            Purpose::DemandRead | Purpose::LoadRead => self.load_read_completed(purpose, index, result),
            Purpose::JournalFrame => self.journal_frame_written(index, result, io),
        }
    }

    fn header_written(&mut self, segment: SegmentId, result: Result<(), DeviceError>, io: &mut Io<'_>) {
        let taken = self.log.head().header_written(segment, &mut self.space, io)
            || self.cleaner.header_written(segment, &mut self.space, io)
            || self.journal.header_written(segment, &mut self.space, io)
            || self.checkpointer.header_written(segment, &mut self.space, io);
        assert!(taken, "the header of segment {segment} is nobody's");
        self.stats.meta_bytes += crate::limits::BLOCK_BYTES as u64;
        if result.is_err() {
            self.poison(io);
        }
    }

    /// A write has failed: the log is closed, and says so. Reads go on.
    pub(crate) fn poison(&mut self, io: &mut Io<'_>) {
        let acks = self.log.poison(io);
        self.fail_acks(acks, io);
    }

    fn fail_acks(&mut self, acks: Vec<crate::log::Ack>, io: &mut Io<'_>) {
        for ack in acks {
            match ack.kind {
                crate::log::AckKind::Silent => {}
                crate::log::AckKind::Catalog => {
                    io.reply(ack.id, ReplyBody::Catalog(Err(CatalogError::Poisoned)));
                }
                _ => io.reply(ack.id, ReplyBody::Write(Err(WriteError::Poisoned))),
            }
        }
        if self.log.is_poisoned() {
            self.cleaner.close(io);
            self.journal.release(io);
            self.fail_all_parked(&WriteError::Poisoned, io);
            self.fail_waiters(io);
            self.fail_catalog_jobs(&CatalogError::Poisoned, io);
            self.fail_checkpoint(&CheckpointError::Poisoned, io);
        }
    }

    /// Opens the next segments ahead of need, and frees the emptied ones.
    fn open_segments(&mut self, io: &mut Io<'_>) {
        self.expect_image();
        self.free_emptied(io);
        let opened = self.log.head().open_ahead(crate::space::Claim::Put, &mut self.space, io);
        if opened.is_none() && self.only_deletes_can_go_on() {
            self.log.head().open_ahead(crate::space::Claim::Delete, &mut self.space, io);
        }
    }

    fn only_deletes_can_go_on(&self) -> bool {
        let deletes = self.parked.iter().any(OwnedWrite::is_delete) || self.catalog_jobs.is_stalled();
        deletes && !self.space.may_take(crate::space::Claim::Put)
    }

    pub(crate) fn free_emptied(&mut self, io: &mut Io<'_>) {
        let (emptied, waits) = self.space.take_emptied(self.settled());
        let (_, free) = self.space.counts();
        if waits && free < self.space.reserve() + self.free_goal() {
            self.journal.want();
        }
        self.has_more |= !emptied.is_empty() && (!self.parked.is_empty() || self.catalog_jobs.is_stalled());
        // A checkpoint may find room now.
        self.checkpointer.found_no_room &= emptied.is_empty();
        for segment in emptied {
            self.journal.push(&JournalEntry::Freed(segment, self.space.get(segment).generation));
            self.space.free(segment, self.config.discard);
            if self.config.discard {
                let at = self.place.area_at.0 + self.place.geometry.segment_at(segment);
                io.start(Op::Discard {
                    token: discard_token(segment),
                    at: crate::ids::DriveOffset(at),
                    len: u64::from(self.place.geometry.segment_bytes),
                });
            }
        }
    }

    /// Bytes of live records: of partitions that are not loaded, as their image says.
    pub(crate) fn known_live_bytes(&self) -> u64 {
        let known = self.space.live_bytes() + self.catalog.unloaded.record_bytes;
        // Of a partition that was dropped while it was loaded, there is no more to count twice.
        known.saturating_sub(self.loader.assembled_bytes())
    }

    /// What the segments are there for; work in proportion to their number.
    pub fn census(&self) -> Census {
        self.space.census()
    }

    /// The shard's counters and gauges.
    pub fn stats(&self) -> ShardStats {
        ShardStats { memory_records: self.catalog.memory_records(), ..self.brief_stats() }
    }

    /// All of them but the number of records in memory tables, which takes work in proportion to the partitions.
    pub fn brief_stats(&self) -> ShardStats {
        let (partitions, tables) = self.catalog.counts();
        let (segments, free) = self.space.counts();
        let (cache_bytes, cache_limit_bytes) = self.cache.bytes();
        ShardStats {
            tables: tables as u64,
            partitions: partitions as u64,
            records: self.catalog.records,
            live_bytes: self.known_live_bytes(),
            partitions_unloaded: self.catalog.unloaded.partitions,
            partitions_quarantined: self.catalog.quarantined() as u64,
            live_limit_bytes: self.space.live_limit_bytes(0),
            segments: u64::from(segments),
            segments_free: u64::from(free),
            index_bytes: self.catalog.index_bytes(),
            memory_table_bytes: self.catalog.memory_table_bytes,
            expiring_records: self.catalog.expiring_records + self.catalog.unloaded.expiring,
            expiry_bytes: self.catalog.expiry_bytes,
            memory_limit_bytes: self.config.memory_bytes,
            cache_bytes,
            cache_limit_bytes,
            writes_in_flight: self.log.pending_writes(),
            requests_parked: (self.parked.len()
                + self.waiting_writes
                + self.reads.queued()
                + self.loader.waiting()) as u64,
            scrub: self.scrub_stats(),
            transactions_open: self.transactions.len() as u64,
            transaction_bytes: self.transactions.bytes() as u64,
            poisoned: u64::from(self.log.is_poisoned()),
            may_lack_tables: u64::from(self.catalog.may_lack_tables),
            highest_table: u64::from(self.catalog.highest_table.0),
            highest_partition: u64::from(self.catalog.highest_partition.0),
            ..self.stats.clone()
        }
    }
}

fn discard_token(segment: SegmentId) -> Token {
    Purpose::Discard.token(u64::from(segment.0))
}

/// The answer to a request that came too early.
pub(crate) fn busy(body: &RequestBody<'_>) -> ReplyBody {
    match body {
        RequestBody::Get { .. } | RequestBody::Within { read: TransactionRead::Get { .. }, .. } => {
            ReplyBody::Get(Err(ReadError::Busy))
        }
        RequestBody::Scan { .. } | RequestBody::Within { read: TransactionRead::Scan(_), .. } => {
            ReplyBody::Scan(Err(ReadError::Busy))
        }
        RequestBody::Count { .. } | RequestBody::Within { read: TransactionRead::Count { .. }, .. } => {
            ReplyBody::Count(Err(ReadError::Busy))
        }
        RequestBody::TimeToLive { .. } => ReplyBody::TimeToLive(Err(ReadError::Busy)),
        RequestBody::Put { .. }
        | RequestBody::Delete { .. }
        | RequestBody::Modify { .. }
        | RequestBody::Commit { .. }
        | RequestBody::Batch { .. } => ReplyBody::Write(Err(WriteError::Busy)),
        RequestBody::Begin { .. } => ReplyBody::Begin(Err(BeginError::Busy)),
        RequestBody::Rollback { .. } | RequestBody::EndTransactions { .. } => ReplyBody::Rollback,
        RequestBody::ListTables => ReplyBody::Tables(Vec::new()),
        RequestBody::Stats => ReplyBody::Stats(Box::default()),
        RequestBody::Checkpoint => ReplyBody::Checkpoint(Err(CheckpointError::NoSpace)),
        RequestBody::Scrub => ReplyBody::Scrub(0),
        RequestBody::CreateTable { .. }
        | RequestBody::DropTable { .. }
        | RequestBody::CreatePartition { .. }
        | RequestBody::DropPartition { .. }
        | RequestBody::SetQuota { .. }
        | RequestBody::HasAllTables => ReplyBody::Catalog(Err(CatalogError::Busy)),
    }
}
