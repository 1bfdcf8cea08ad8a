//! One page of a scan: the index says which records, all at one instant; then they are read, those near each other in one
//! read and several at a time, and answered together.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::expiry::ExpiryClock;
use crate::format::record::{RECORD_HEADER_BYTES, Record};
use crate::ids::{PartitionId, RequestId, Seq, TransactionId, WallMs};
use crate::index::{IndexArena, PartitionIndex};
use crate::io::Io;
use crate::limits::{MAX_SCAN_BYTES, MAX_SCAN_RECORDS};
use crate::location::Location;
use crate::loose_scans::{LooseScan, choose_loosely};
use crate::partition::{MemoryStore, Partition, Store, bounds, is_void};
use crate::reads::{ReadFor, is_quarantined};
use crate::reply::{Delay, ReadError, ReplyBody, ScanPage, ScanRecord};
use crate::request::{KeyRange, ScanWish, Target};
use crate::scan_runs::{Fetched, Run, Runs};
use crate::shard::Shard;
use crate::transactions::View;
use crate::transactions::history::{Before, Step};

/// Most reads of one scan under way at once.
const READS_AT_ONCE: usize = 32;
/// Most bytes of them, if they are more than one.
const MOST_READING_BYTES: usize = 512 << 10;

/// A page under way.
#[derive(Debug)]
struct ScanJob {
    id: RequestId,
    partition: PartitionId,
    entries: Vec<(Bytes, Location)>,
    records: Vec<Option<ScanRecord>>,
    /// What is to be read.
    runs: Runs,
    /// First of the runs of which no read has begun.
    next: usize,
    reading: usize,
    reading_bytes: usize,
    /// The records as they lie on the drive, where they shall be written again together.
    gathered: Option<Vec<Option<Bytes>>>,
    more: bool,
    error: Option<ReadError>,
    bytes: usize,
    begun_ns: u64,
    /// Of a compact index: the keys are in the records.
    loose: Option<Box<LooseScan>>,
}

impl ScanJob {
    /// Takes the record of an entry.
    fn take(&mut self, entry: usize, record: &Record<'_>, whole: &Bytes, clock: &ExpiryClock) {
        let value = whole.slice(record.value_at()..);
        self.records[entry] = match &mut self.loose {
            Some(loose) => loose.take(record, value, clock),
            None => {
                let (key, left) = (self.entries[entry].0.clone(), clock.time_left(record.expires));
                Some(ScanRecord { key, seq: record.seq, value, left })
            }
        };
        if let Some(gathered) = &mut self.gathered {
            gathered[entry] = Some(whole.clone());
        }
    }

    /// Whether a record is that of an entry.
    fn is_right(&self, entry: usize, record: &Record<'_>) -> bool {
        record.partition == self.partition && (self.loose.is_some() || *record.key == *self.entries[entry].0)
    }

    /// The read of a run has ended, or will not begin.
    fn ended(&mut self, run: usize) {
        self.reading -= 1;
        self.reading_bytes -= self.runs.get(run).map_or(0, |run| run.len as usize);
    }
}

/// The scans of a shard.
#[derive(Debug, Default)]
pub struct Scans {
    jobs: Vec<Option<ScanJob>>,
    bytes: usize,
}

/// What the index says.
#[derive(Default)]
pub(crate) struct Chosen {
    pub(crate) entries: Vec<(Bytes, Location)>,
    pub(crate) more: bool,
    pub(crate) bytes: usize,
}

impl Chosen {
    /// Takes an entry of so many bytes, unless the page is full. Says whether to go on.
    fn take(&mut self, wish: &ScanWish<'_>, bytes: usize, entry: impl FnOnce() -> (Bytes, Location)) -> bool {
        let full =
            self.entries.len() >= wish.limit as usize || self.bytes + bytes > wish.byte_budget as usize;
        if full && !self.entries.is_empty() {
            self.more = true;
            return false;
        }
        self.bytes += bytes;
        self.entries.push(entry());
        true
    }
}

impl Shard {
    pub(crate) fn scan(
        &mut self,
        id: RequestId,
        target: &Target,
        wish: &ScanWish<'_>,
        within: Option<TransactionId>,
        io: &mut Io<'_>,
    ) {
        match self.scan_start(id, target, wish, within, io) {
            Ok(None) => {}
            Ok(Some(page)) => {
                self.stats.scans += 1;
                io.reply(id, ReplyBody::Scan(Ok(page)));
            }
            Err(error) => {
                self.note_read_error(Some(&error));
                io.reply(id, ReplyBody::Scan(Err(error)));
            }
        }
    }

    /// The page, or `None` where records have to be read for it.
    fn scan_start(
        &mut self,
        id: RequestId,
        target: &Target,
        wish: &ScanWish<'_>,
        within: Option<TransactionId>,
        io: &mut Io<'_>,
    ) -> Result<Option<ScanPage>, ReadError> {
        let limits_ok = (1..=MAX_SCAN_RECORDS).contains(&(wish.limit as usize))
            && (1..=MAX_SCAN_BYTES).contains(&(wish.byte_budget as usize));
        if !limits_ok {
            return Err(ReadError::ScanLimits);
        }
        let partition = self.target(target)?;
        if let Some(upto) = partition.quarantine {
            // A page with holes would pass for the whole truth.
            return Err(ReadError::Quarantined { upto });
        }
        let view = self.transactions.view(within, target.partition, self.clock.now())?;
        let chosen = match &partition.store {
            Store::Memory(memory) => {
                let page = memory_page(partition, memory, wish, &view, &self.clock);
                let last = page.records.last().map(|record| record.key.clone());
                self.saw_page(within, wish, last.filter(|_| page.more))?;
                return Ok(Some(page));
            }
            Store::Durable(index) if index.is_compact() => {
                let keys = self.known_keys(target.partition);
                let chosen = choose_loosely(&self.catalog.arena, index, wish, &view, &keys);
                let loose = LooseScan::new(target, wish, within, view.now);
                return self.scan_loosely(id, loose, chosen, io);
            }
            Store::Durable(index) => choose(&self.catalog.arena, partition, index, wish, &view),
        };
        if wish.keys_only {
            let key_only = |(key, _): (Bytes, Location)| {
                let left = self.clock.time_left(view.expiry_of(partition, &key));
                ScanRecord { key, seq: Seq::default(), value: Bytes::new(), left }
            };
            let more = chosen.more;
            let records: Vec<_> = chosen.entries.into_iter().map(key_only).collect();
            let last = records.last().map(|record: &ScanRecord| record.key.clone());
            self.saw_page(within, wish, last.filter(|_| more))?;
            return Ok(Some(ScanPage { records, more }));
        }
        let last = chosen.entries.last().map(|(key, _)| key.clone());
        self.saw_page(within, wish, last.filter(|_| chosen.more))?;
        self.scan_begin(id, target.partition, chosen, None, io)?;
        Ok(None)
    }

    /// A transaction has seen a page: up to its last key, where there is more.
    pub(crate) fn saw_page(
        &mut self,
        within: Option<TransactionId>,
        wish: &ScanWish<'_>,
        last: Option<Bytes>,
    ) -> Result<(), ReadError> {
        let Some(id) = within else { return Ok(()) };
        let behind_last = last.as_ref().filter(|_| !wish.reverse).map(|last| [last, &[0][..]].concat());
        let range = match &last {
            Some(last) if wish.reverse => KeyRange { start: last, end: wish.range.end },
            Some(_) => KeyRange { start: wish.range.start, end: behind_last.as_deref() },
            None => wish.range,
        };
        let has_room = self.transactions.saw(id, |read_set| read_set.add_range(&range));
        if has_room { Ok(()) } else { Err(ReadError::ReadSetFull) }
    }

    pub(crate) fn scan_begin(
        &mut self,
        id: RequestId,
        partition: PartitionId,
        chosen: Chosen,
        loose: Option<Box<LooseScan>>,
        io: &mut Io<'_>,
    ) -> Result<(), ReadError> {
        let queued = self.reads.queued() >= self.config.max_queued_requests;
        if queued || self.reads.scans.bytes + chosen.bytes > self.config.max_scan_bytes {
            return Err(ReadError::Busy);
        }
        // All segments stay as they are until the page is read: the page is of one instant.
        for (_, location) in &chosen.entries {
            self.space.pin(self.space.of(*location).0);
        }
        let locations = chosen.entries.iter().map(|(_, location)| *location).collect::<Vec<_>>();
        let cached: Vec<_> = locations.iter().map(|location| self.cached_record(*location)).collect();
        let runs = Runs::plan(&locations, &self.place.geometry, |entry| cached[entry].is_none());
        let gathers = self.gathers(partition, &runs, locations.len());
        self.reads.scans.bytes += chosen.bytes;
        let mut job = ScanJob {
            id,
            partition,
            records: vec![None; chosen.entries.len()],
            gathered: gathers.then(|| vec![None; chosen.entries.len()]),
            entries: chosen.entries,
            runs,
            next: 0,
            reading: 0,
            reading_bytes: 0,
            more: chosen.more,
            error: None,
            bytes: chosen.bytes,
            begun_ns: io.now.monotonic_ns,
            loose,
        };
        for (entry, bytes) in cached.into_iter().enumerate() {
            let Some(bytes) = bytes else { continue };
            let record = Record::decode_unchecked(&bytes).expect("the cache holds records that were checked");
            job.take(entry, &record, &bytes, &self.clock);
        }
        let scans = &mut self.reads.scans;
        let slot = scans.jobs.iter().position(Option::is_none).unwrap_or_else(|| {
            scans.jobs.push(None);
            scans.jobs.len() - 1
        });
        scans.jobs[slot] = Some(job);
        self.scan_go_on(slot, io);
        Ok(())
    }

    /// Starts reads until enough are under way; answers when all is there.
    pub(crate) fn scan_go_on(&mut self, slot: usize, io: &mut Io<'_>) {
        loop {
            let Some(job) = self.reads.scans.jobs[slot].as_mut() else { return };
            let next = job.runs.get(job.next).filter(|_| job.error.is_none());
            let Some(Run { len, .. }) = next else {
                if job.reading == 0 {
                    self.scan_finish(slot, io);
                }
                return;
            };
            let has_room =
                job.reading < READS_AT_ONCE && job.reading_bytes + len as usize <= MOST_READING_BYTES;
            if !has_room && job.reading > 0 {
                return;
            }
            let run = job.next;
            let location = job.entries[job.runs.entries(run)[0]].1;
            job.next += 1;
            job.reading += 1;
            job.reading_bytes += len as usize;
            self.start_read(ReadFor::Scan { scan: slot, run, len }, location, io);
        }
    }

    /// A read of a scan has ended, with all of a run or not.
    pub(crate) fn scan_read(&mut self, slot: usize, run: usize, fetched: Fetched, io: &mut Io<'_>) {
        let Some(mut job) = self.reads.scans.jobs[slot].take() else { return };
        job.ended(run);
        if fetched.result.is_err() && job.runs.split(run) {
            // One bad block is none of its neighbours'.
            self.reads.scans.jobs[slot] = Some(job);
            return;
        }
        let quarantine = self.catalog.quarantine_of(job.partition);
        let mut damaged = SmallVec::<[usize; 4]>::new();
        for at in 0..job.runs.entries(run).len() {
            let entry = job.runs.entries(run)[at];
            let location = job.entries[entry].1;
            let generation = self.space.of(location).1.generation;
            let begin = (location.offset() - fetched.from) as usize;
            let room = &io.buffers.bytes(fetched.buffer)[begin..begin + location.room() as usize];
            match self.judged(fetched.result, (location, generation), room) {
                Ok(record) if !job.is_right(entry, &record) => {
                    damaged.push(entry);
                    job.error = Some(ReadError::Corrupt { at: self.place.area_at.0 + location.offset() });
                }
                Ok(record) if is_quarantined(quarantine, record.seq) => {
                    job.error = quarantine.map(|upto| ReadError::Quarantined { upto });
                }
                Ok(record) => {
                    let whole = Bytes::copy_from_slice(&room[..record.len()]);
                    job.take(entry, &record, &whole, &self.clock);
                }
                Err(error) => {
                    if matches!(error, ReadError::Corrupt { .. }) {
                        damaged.push(entry);
                    }
                    job.error = Some(error);
                }
            }
        }
        for entry in damaged {
            let (key, location) = &job.entries[entry];
            let page = job.loose.as_ref().map(|loose| loose.page()).unwrap_or_default();
            self.list_damaged(job.partition, key, page, *location);
        }
        self.reads.scans.jobs[slot] = Some(job);
    }

    /// Ends the scans whose pages nobody wants: no more reads of theirs begin. Those that wait for a buffer are the
    /// caller's to take out of the queue.
    pub(crate) fn scans_give_up(&mut self, is_unwanted: impl Fn(RequestId) -> bool) -> Vec<usize> {
        let jobs = self.reads.scans.jobs.iter_mut().enumerate();
        let unwanted = jobs.filter_map(|(slot, job)| {
            let job = job.as_mut().filter(|job| is_unwanted(job.id))?;
            job.error.get_or_insert(ReadError::Busy);
            Some(slot)
        });
        unwanted.collect()
    }

    /// A read of a scan was given up before it began.
    pub(crate) fn scan_read_given_up(&mut self, slot: usize, run: usize) {
        let job = self.reads.scans.jobs[slot].as_mut().expect("a scan waits for the ends of its reads");
        job.ended(run);
    }

    fn scan_finish(&mut self, slot: usize, io: &mut Io<'_>) {
        let Some(mut job) = self.reads.scans.jobs[slot].take() else { return };
        self.reads.scans.bytes -= job.bytes;
        if let Some(gathered) = job.gathered.take().filter(|_| job.error.is_none()) {
            let locations = job.entries.iter().map(|(_, location)| *location);
            self.gather(job.partition, locations.zip(gathered.into_iter().flatten()), io);
        }
        for (_, location) in &job.entries {
            self.space.unpin(self.space.of(*location).0);
        }
        io.delay = Delay { drive_ns: io.now.monotonic_ns.saturating_sub(job.begun_ns), commit_ns: 0 };
        let result = match job.error {
            Some(error) => Err(error),
            None if job.loose.is_some() => {
                let Some(loose) = job.loose else { return };
                let records = job.records.into_iter().flatten().collect();
                self.finish_loosely(job.id, *loose, records, job.more, io);
                io.delay = Delay::default();
                return;
            }
            None => {
                let records: Vec<_> = job.records.into_iter().flatten().collect();
                assert_eq!(records.len(), job.entries.len(), "every entry of a scan was read");
                self.stats.scans += 1;
                Ok(ScanPage { records, more: job.more })
            }
        };
        io.reply(job.id, ReplyBody::Scan(result));
        io.delay = Delay::default();
    }
}

/// The entries of a page, from the index and from what was overwritten since.
fn choose(
    arena: &IndexArena,
    partition: &Partition,
    index: &PartitionIndex,
    wish: &ScanWish<'_>,
    view: &View<'_>,
) -> Chosen {
    let mut chosen = Chosen::default();
    if is_void(&wish.range) {
        return chosen;
    }
    let (start, end) = bounds(&wish.range);
    let mut overlay = view.overlay(&wish.range, wish.reverse);
    let mut take = |key: &[u8], location: Location| {
        let whole = location.room() as usize - RECORD_HEADER_BYTES;
        let bytes = if wish.keys_only { key.len() } else { whole };
        chosen.take(wish, bytes, || (Bytes::copy_from_slice(key), location))
    };
    let is_there = |before: &Before| before.location().filter(|_| before.is_there(view.now));
    let mut step = |present: Option<(&[u8], Location)>| {
        let key = present.map(|(key, _)| key);
        let past =
            &mut |key: &[u8], before: &Before| is_there(before).is_none_or(|location| take(key, location));
        match (overlay.up_to(key, past), present) {
            (Step::Stop, _) => false,
            (Step::Show, Some((key, location))) if !partition.is_expired(key, view.now) => {
                take(key, location)
            }
            _ => true,
        }
    };
    if wish.reverse {
        let mut entries = index.iter_rev(arena, start, end);
        while let Some(entry) = entries.next() {
            if !step(Some(entry)) {
                return chosen;
            }
        }
    } else {
        let mut entries = index.iter(arena, start, end);
        while let Some(entry) = entries.next() {
            if !step(Some(entry)) {
                return chosen;
            }
        }
    }
    step(None);
    chosen
}

fn memory_page(
    partition: &Partition,
    memory: &MemoryStore,
    wish: &ScanWish<'_>,
    view: &View<'_>,
    clock: &ExpiryClock,
) -> ScanPage {
    let mut page = ScanPage::default();
    let mut bytes = 0;
    let mut overlay = view.overlay(&wish.range, wish.reverse);
    let mut take = |key: &[u8], seq: Seq, value: &Bytes, expires: Option<WallMs>| {
        let left = clock.time_left(expires);
        let len = key.len() + if wish.keys_only { 0 } else { value.len() };
        let full = page.records.len() >= wish.limit as usize || bytes + len > wish.byte_budget as usize;
        if full && !page.records.is_empty() {
            page.more = true;
            return false;
        }
        bytes += len;
        let key = Bytes::copy_from_slice(key);
        page.records.push(if wish.keys_only {
            ScanRecord { key, seq: Seq::default(), value: Bytes::new(), left }
        } else {
            ScanRecord { key, seq, value: value.clone(), left }
        });
        true
    };
    let mut step = |present: Option<(&[u8], Seq, &Bytes)>| {
        let key = present.map(|(key, _, _)| key);
        let past = &mut |key: &[u8], before: &Before| match before {
            Before::Held { seq, value, expires } if before.is_there(view.now) => {
                take(key, *seq, value, *expires)
            }
            _ => true,
        };
        match (overlay.up_to(key, past), present) {
            (Step::Stop, _) => false,
            (Step::Show, Some((key, seq, value))) if !partition.is_expired(key, view.now) => {
                take(key, seq, value, partition.expiry_of(key))
            }
            _ => true,
        }
    };
    let mut is_full = false;
    memory.visit(&wish.range, wish.reverse, |key, seq, value| {
        is_full = !step(Some((key, seq, value)));
        !is_full
    });
    if !is_full {
        step(None);
    }
    page
}
