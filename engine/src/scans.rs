//! One page of a scan: the index says which records, all at one instant; then they are read, several at
//! a time, and answered together.

use bytes::Bytes;

use crate::expiry::ExpiryClock;
use crate::format::record::{RECORD_HEADER_BYTES, Record};
use crate::ids::{PartitionId, RequestId, Seq, WallMs};
use crate::index::{IndexArena, PartitionIndex};
use crate::io::Io;
use crate::limits::{MAX_SCAN_BYTES, MAX_SCAN_RECORDS};
use crate::location::Location;
use crate::partition::{MemoryStore, Partition, Store, bounds, is_void};
use crate::reads::{ReadFor, is_quarantined};
use crate::reply::{ReadError, ReplyBody, ScanPage, ScanRecord};
use crate::request::{KeyRange, RequestBody};
use crate::shard::Shard;

/// Most reads of one scan under way at once.
const READS_AT_ONCE: usize = 32;

/// A page under way.
#[derive(Debug)]
struct ScanJob {
    id: RequestId,
    partition: PartitionId,
    entries: Vec<(Bytes, Location)>,
    records: Vec<Option<ScanRecord>>,
    /// First entry that was not looked at yet.
    next: usize,
    reading: usize,
    more: bool,
    error: Option<ReadError>,
    bytes: usize,
}

/// The scans of a shard.
#[derive(Debug, Default)]
pub struct Scans {
    jobs: Vec<Option<ScanJob>>,
    bytes: usize,
}

/// What a scan asks for.
struct Wish<'a> {
    range: KeyRange<'a>,
    reverse: bool,
    limit: usize,
    byte_budget: usize,
    keys_only: bool,
}

/// What the index says.
#[derive(Default)]
struct Chosen {
    entries: Vec<(Bytes, Location)>,
    more: bool,
    bytes: usize,
}

impl Chosen {
    /// Takes an entry of so many bytes, unless the page is full. Says whether to go on.
    fn take(&mut self, wish: &Wish<'_>, bytes: usize, entry: impl FnOnce() -> (Bytes, Location)) -> bool {
        let full = self.entries.len() >= wish.limit || self.bytes + bytes > wish.byte_budget;
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
    pub(crate) fn scan(&mut self, id: RequestId, body: &RequestBody<'_>, io: &mut Io<'_>) {
        match self.scan_start(id, body, io) {
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
        body: &RequestBody<'_>,
        io: &mut Io<'_>,
    ) -> Result<Option<ScanPage>, ReadError> {
        let RequestBody::Scan { target, range, reverse, limit, byte_budget, keys_only } = body else {
            unreachable!("only scans come here");
        };
        let (limit, byte_budget) = (*limit as usize, *byte_budget as usize);
        let limits_ok =
            (1..=MAX_SCAN_RECORDS).contains(&limit) && (1..=MAX_SCAN_BYTES).contains(&byte_budget);
        if !limits_ok {
            return Err(ReadError::ScanLimits);
        }
        let wish = Wish { range: *range, reverse: *reverse, limit, byte_budget, keys_only: *keys_only };
        let partition = self.target(target)?;
        if let Some(upto) = partition.quarantine {
            // A page with holes would pass for the whole truth.
            return Err(ReadError::Quarantined { upto });
        }
        let chosen = match &partition.store {
            Store::Memory(memory) => return Ok(Some(memory_page(partition, memory, &wish, &self.clock))),
            Store::Durable(index) => choose(&self.catalog.arena, partition, index, &wish, self.clock.now()),
        };
        if wish.keys_only {
            let key_only = |(key, _): (Bytes, Location)| {
                let left = self.clock.time_left(partition.expiry_of(&key));
                ScanRecord { key, seq: Seq::default(), value: Bytes::new(), left }
            };
            let records = chosen.entries.into_iter().map(key_only).collect();
            return Ok(Some(ScanPage { records, more: chosen.more }));
        }
        let queued = self.reads.queued() >= self.config.max_queued_requests;
        if queued || self.reads.scans.bytes + chosen.bytes > self.config.max_scan_bytes {
            return Err(ReadError::Busy);
        }
        self.scan_begin(id, target.partition, chosen, io);
        Ok(None)
    }

    fn scan_begin(&mut self, id: RequestId, partition: PartitionId, chosen: Chosen, io: &mut Io<'_>) {
        // All segments stay as they are until the page is read: the page is of one instant.
        for (_, location) in &chosen.entries {
            self.space.pin(self.space.of(*location).0);
        }
        let scans = &mut self.reads.scans;
        scans.bytes += chosen.bytes;
        let job = ScanJob {
            id,
            partition,
            records: vec![None; chosen.entries.len()],
            entries: chosen.entries,
            next: 0,
            reading: 0,
            more: chosen.more,
            error: None,
            bytes: chosen.bytes,
        };
        let slot = scans.jobs.iter().position(Option::is_none).unwrap_or_else(|| {
            scans.jobs.push(None);
            scans.jobs.len() - 1
        });
        scans.jobs[slot] = Some(job);
        self.scan_go_on(slot, io);
    }

    /// Takes entries from the cache and starts reads until enough are under way; answers when all is
    /// there.
    pub(crate) fn scan_go_on(&mut self, slot: usize, io: &mut Io<'_>) {
        loop {
            let Some(job) = self.reads.scans.jobs[slot].as_mut() else { return };
            if job.next >= job.entries.len() || job.error.is_some() {
                if job.reading == 0 {
                    self.scan_finish(slot, io);
                }
                return;
            }
            if job.reading >= READS_AT_ONCE {
                return;
            }
            let entry = job.next;
            let location = job.entries[entry].1;
            job.next += 1;
            match self.cached_record(location) {
                Some(bytes) => self.scan_take_cached(slot, entry, &bytes),
                None => {
                    if let Some(job) = self.reads.scans.jobs[slot].as_mut() {
                        job.reading += 1;
                    }
                    self.start_read(ReadFor::Scan { scan: slot, entry }, location, io);
                }
            }
        }
    }

    fn scan_take_cached(&mut self, slot: usize, entry: usize, bytes: &Bytes) {
        let Some(job) = self.reads.scans.jobs[slot].as_mut() else { return };
        let record = Record::decode_unchecked(bytes).expect("the cache holds records that were checked");
        let key = job.entries[entry].0.clone();
        let (value, left) = (bytes.slice(record.value_at()..), self.clock.time_left(record.expires));
        job.records[entry] = Some(ScanRecord { key, seq: record.seq, value, left });
    }

    /// A read of a scan has ended with a record, or not.
    pub(crate) fn scan_read(
        &mut self,
        slot: usize,
        entry: usize,
        outcome: Result<ScanRecord, ReadError>,
        io: &mut Io<'_>,
    ) {
        let Some(job) = self.reads.scans.jobs[slot].as_mut() else { return };
        job.reading -= 1;
        let (key, location) = &job.entries[entry];
        let quarantine = self.catalog.get(job.partition).and_then(|p| p.quarantine);
        match outcome {
            Ok(record) if record.key == *key && !is_quarantined(quarantine, record.seq) => {
                job.records[entry] = Some(record);
            }
            Ok(record) if record.key == *key => {
                job.error = quarantine.map(|upto| ReadError::Quarantined { upto });
            }
            Ok(_) => {
                job.error = Some(ReadError::Corrupt { at: self.place.area_at.0 + location.offset() });
            }
            Err(error) => job.error = Some(error),
        }
        self.scan_go_on(slot, io);
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
    pub(crate) fn scan_read_given_up(&mut self, slot: usize) {
        let job = self.reads.scans.jobs[slot].as_mut().expect("a scan waits for the ends of its reads");
        job.reading -= 1;
    }

    fn scan_finish(&mut self, slot: usize, io: &mut Io<'_>) {
        let Some(job) = self.reads.scans.jobs[slot].take() else { return };
        self.reads.scans.bytes -= job.bytes;
        for (_, location) in &job.entries {
            self.space.unpin(self.space.of(*location).0);
        }
        let result = match job.error {
            Some(error) => Err(error),
            None => {
                let records: Vec<_> = job.records.into_iter().flatten().collect();
                assert_eq!(records.len(), job.entries.len(), "every entry of a scan was read");
                self.stats.scans += 1;
                Ok(ScanPage { records, more: job.more })
            }
        };
        io.reply(job.id, ReplyBody::Scan(result));
    }
}

/// The entries of a page, from the index.
fn choose(
    arena: &IndexArena,
    partition: &Partition,
    index: &PartitionIndex,
    wish: &Wish<'_>,
    now: WallMs,
) -> Chosen {
    let mut chosen = Chosen::default();
    if is_void(&wish.range) {
        return chosen;
    }
    let (start, end) = bounds(&wish.range);
    let mut take = |key: &[u8], location: Location| {
        if partition.is_expired(key, now) {
            return true;
        }
        let whole = location.len() as usize - RECORD_HEADER_BYTES;
        let bytes = if wish.keys_only { key.len() } else { whole };
        chosen.take(wish, bytes, || (Bytes::copy_from_slice(key), location))
    };
    if wish.reverse {
        let mut entries = index.iter_rev(arena, start, end);
        while let Some((key, location)) = entries.next() {
            if !take(key, location) {
                break;
            }
        }
    } else {
        let mut entries = index.iter(arena, start, end);
        while let Some((key, location)) = entries.next() {
            if !take(key, location) {
                break;
            }
        }
    }
    chosen
}

fn memory_page(
    partition: &Partition,
    memory: &MemoryStore,
    wish: &Wish<'_>,
    clock: &ExpiryClock,
) -> ScanPage {
    let mut page = ScanPage::default();
    let mut bytes = 0;
    memory.visit(&wish.range, wish.reverse, |key, seq, value| {
        if partition.is_expired(key, clock.now()) {
            return true;
        }
        let left = clock.time_left(partition.expiry_of(key));
        let len = key.len() + if wish.keys_only { 0 } else { value.len() };
        let full = page.records.len() >= wish.limit || bytes + len > wish.byte_budget;
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
    });
    page
}
