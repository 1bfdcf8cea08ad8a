//! Get, scan and count: from the request to the index, the cache or one read, and to the reply.

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::asking::Asking;
use crate::config::ShardConfig;
use crate::format::record::Record;
use crate::ids::{
    BufferId, DriveOffset, Epoch, Generation, PartitionId, RequestId, Seq, TransactionId, WallMs,
};
use crate::index::Need;
use crate::io::{Io, Purpose};
use crate::limits::MAX_KEY_BYTES;
use crate::location::Location;
use crate::lookups::Located;
use crate::owned::OwnedWrite;
use crate::partition::{Partition, Store};
use crate::reply::{Found, Payload, ReadError, ReplyBody, WriteError};
use crate::request::{KeyRange, Target, TransactionRead};
use crate::scan_runs::Fetched;
use crate::seam::{Buffers, DeviceError, Op};
use crate::shard::Shard;
use crate::transactions::Version;

/// Keys up to this length need no memory of their own while a record is read.
const INLINE_KEY_BYTES: usize = 32;

/// For whom a record is read.
#[derive(Debug)]
pub enum ReadFor {
    /// A get.
    Get {
        /// The request.
        id: RequestId,
        /// The partition.
        partition: PartitionId,
        /// The key, to be found in the record.
        key: SmallVec<[u8; INLINE_KEY_BYTES]>,
        /// Where the record may be another key's: how to go on then.
        perhaps: Option<(Epoch, Option<TransactionId>)>,
    },
    /// Its key, for a compact index.
    Key {
        /// The partition.
        partition: PartitionId,
    },
    /// A conditional write.
    Condition(Box<OwnedWrite>),
    /// Records of a scan that lie near each other, of which the location is the first's.
    Scan {
        /// The scan's slot.
        scan: usize,
        /// Which of its runs.
        run: usize,
        /// Bytes of the blocks in which they lie.
        len: u32,
    },
}

impl ReadFor {
    /// The first byte of the blocks that are read, and how many bytes they have.
    fn span(&self, location: Location) -> (u64, u32) {
        let (from, len) = location.blocks();
        match self {
            ReadFor::Scan { len, .. } => (from, *len),
            _ => (from, len),
        }
    }
}

/// A read under way.
#[derive(Debug)]
struct ReadSlot {
    why: ReadFor,
    location: Location,
    buffer: BufferId,
    /// Byte of the area where the buffer begins.
    from: u64,
    begun_ns: u64,
}

/// What a read for a get has found.
struct Hit {
    seq: Seq,
    expires: Option<WallMs>,
    /// Where in the buffer the value begins, and its length.
    value_at: usize,
    value_len: usize,
}

/// The reads of a shard.
#[derive(Debug, Default)]
pub struct Reads {
    slots: Vec<Option<ReadSlot>>,
    free_slots: Vec<usize>,
    /// Reads that wait for a buffer, in order; their segments are pinned.
    queue: VecDeque<(ReadFor, Location)>,
    /// What those of them that are not a scan's will read, in bytes.
    queued_bytes: usize,
    /// The scans.
    pub scans: crate::scans::Scans,
}

impl Reads {
    /// Reads that wait for a buffer.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Reads under way.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free_slots.len()
    }

    /// Whether one more read may have to wait: a scan has a limit of its own for its bytes.
    pub fn has_room(&self, location: Location, config: &ShardConfig) -> bool {
        let left = config.max_queued_read_bytes.saturating_sub(self.queued_bytes);
        let fits = self.queue.is_empty() || location.blocks().1 as usize <= left / 2;
        fits && self.queue.len() < config.max_queued_requests
    }

    /// Takes those out of the queue that `is_unwanted`.
    pub fn take_unwanted(
        &mut self,
        is_unwanted: impl Fn(&ReadFor, Location) -> bool,
    ) -> Vec<(ReadFor, Location)> {
        let (taken, kept): (Vec<_>, Vec<_>) =
            self.queue.drain(..).partition(|(why, location)| is_unwanted(why, *location));
        self.queue = kept.into();
        self.queued_bytes -=
            taken.iter().map(|(why, location)| bytes_to_count(why, *location)).sum::<usize>();
        taken
    }

    /// The record of a read under way, and its bytes so far.
    pub fn under_way<'b>(&self, slot: usize, buffers: &'b dyn Buffers) -> Option<(Location, &'b [u8])> {
        let read = self.slots[slot].as_ref()?;
        let start = (read.location.offset() - read.from) as usize;
        Some((read.location, &buffers.bytes(read.buffer)[start..start + read.location.room() as usize]))
    }

    fn push_back(&mut self, why: ReadFor, location: Location) {
        self.queued_bytes += bytes_to_count(&why, location);
        self.queue.push_back((why, location));
    }
}

fn bytes_to_count(why: &ReadFor, location: Location) -> usize {
    if matches!(why, ReadFor::Scan { .. }) { 0 } else { location.blocks().1 as usize }
}

impl Shard {
    pub(crate) fn target(&self, target: &Target) -> Result<&Partition, ReadError> {
        let partition = self.catalog.get(target.partition);
        let partition = partition.ok_or(ReadError::UnknownPartition(target.partition))?;
        if partition.spec.epoch != target.epoch {
            return Err(ReadError::StaleEpoch { current: partition.spec.epoch });
        }
        partition.note_request();
        Ok(partition)
    }

    pub(crate) fn note_read_error(&mut self, error: Option<&ReadError>) {
        match error {
            None
            | Some(ReadError::Corrupt { .. } | ReadError::Quarantined { .. } | ReadError::Device { .. }) => {}
            Some(ReadError::Busy) => self.stats.busy += 1,
            Some(_) => self.stats.refused += 1,
        }
    }

    pub(crate) fn get(
        &mut self,
        id: RequestId,
        target: &Target,
        key: &[u8],
        located: Located,
        within: Option<TransactionId>,
        io: &mut Io<'_>,
    ) {
        match self.get_now(id, target, key, (located, within), io) {
            Ok(None) => {}
            Ok(Some(found)) => io.reply(id, ReplyBody::Get(Ok(found))),
            Err(error) => {
                self.note_read_error(Some(&error));
                io.reply(id, ReplyBody::Get(Err(error)));
            }
        }
    }

    /// The answer, or `None` where a read was started for it.
    fn get_now(
        &mut self,
        id: RequestId,
        target: &Target,
        key: &[u8],
        (located, within): (Located, Option<TransactionId>),
        io: &mut Io<'_>,
    ) -> Result<Option<Option<Found>>, ReadError> {
        let partition = self.target(target)?;
        check_key(key)?;
        if !partition.covers(key) {
            return Err(ReadError::OutOfRange);
        }
        let view = self.transactions.view(within, target.partition, self.clock.now())?;
        let version = view.version(&self.catalog, partition, key, located);
        let quarantine = partition.quarantine;
        if let Some(id) = within
            && !self.transactions.saw(id, |read_set| read_set.add_key(key))
        {
            return Err(ReadError::ReadSetFull);
        }
        let (version, is_perhaps) = self.narrowed(version, target.partition, key)?;
        let perhaps = is_perhaps.then_some((target.epoch, within));
        let location = match version {
            Version::Perhaps(_) | Version::Damaged(_) => unreachable!("it is known where to look"),
            Version::Stored(location) => location,
            Version::Held(seq, value, expires) => {
                self.stats.gets += 1;
                self.stats.get_cache_hits += 1;
                let left = self.clock.time_left(expires);
                return Ok(Some(Some(Found { seq, value: Payload::Shared(value), left })));
            }
            Version::Absent => {
                // In a quarantined partition, absence may be the damage's doing.
                if let Some(upto) = quarantine {
                    return Err(ReadError::Quarantined { upto });
                }
                self.stats.gets += 1;
                self.stats.get_misses += 1;
                return Ok(Some(None));
            }
        };
        let generation = self.space.of(location).1.generation;
        if let Some(bytes) = self.cache.get(location, generation) {
            let record = Record::decode_unchecked(bytes);
            let record = record.expect("the cache holds records that were checked");
            if record.key == key && !is_quarantined(quarantine, record.seq) {
                let (seq, left) = (record.seq, self.clock.time_left(record.expires));
                let value = Payload::Shared(bytes.slice(record.value_at()..));
                self.stats.gets += 1;
                self.stats.get_cache_hits += 1;
                return Ok(Some(Some(Found { seq, value, left })));
            }
        }
        if !self.reads.has_room(location, &self.config) {
            return Err(ReadError::Busy);
        }
        let why = ReadFor::Get { id, partition: target.partition, key: SmallVec::from_slice(key), perhaps };
        self.start_read(why, location, io);
        Ok(None)
    }

    pub(crate) fn count(
        &mut self,
        id: RequestId,
        target: &Target,
        range: &KeyRange<'_>,
        within: Option<TransactionId>,
        io: &mut Io<'_>,
    ) {
        let result = match self.count_now(target, range, within) {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(need)) => {
                let asking = Asking::count(id, *target, range, within);
                return self.wait_for_keys(asking, target.partition, &need, io);
            }
            Err(error) => Err(error),
        };
        self.note_read_error(result.as_ref().err());
        io.reply(id, ReplyBody::Count(result));
    }

    fn count_now(
        &mut self,
        target: &Target,
        range: &KeyRange<'_>,
        within: Option<TransactionId>,
    ) -> Result<Result<u64, Need>, ReadError> {
        let partition = self.target(target)?;
        if let Some(upto) = partition.quarantine {
            return Err(ReadError::Quarantined { upto });
        }
        let view = self.transactions.view(within, target.partition, self.clock.now())?;
        if crate::partition::is_void(range) {
            return Ok(Ok(0));
        }
        let (start, end) = crate::partition::bounds(range);
        let records = match &partition.store {
            Store::Memory(memory) => Ok(memory.count(range)),
            Store::Durable(index) if index.is_compact() => {
                index.count_with(&self.catalog.arena, start, end, &self.known_keys(target.partition))
            }
            Store::Durable(index) => Ok(index.count(&self.catalog.arena, start, end)),
        };
        let is_there = |key: &[u8]| self.has_now(partition, key, view.now);
        let (records, change) = match (records, view.count_change(range, is_there)) {
            (Ok(records), Ok(change)) => (records, change),
            (Err(need), _) | (_, Err(need)) => return Ok(Err(need)),
        };
        // A compact index may have been told of expiries of records that were gone before.
        let present = records.saturating_sub(partition.due_in(range, view.now));
        let count = present.saturating_add_signed(change);
        if let Some(id) = within
            && !self.transactions.saw(id, |read_set| read_set.add_range(range))
        {
            return Err(ReadError::ReadSetFull);
        }
        Ok(Ok(count))
    }

    /// Whether a key has a record now whose time was not over then.
    pub(crate) fn has_now(&self, partition: &Partition, key: &[u8], then: WallMs) -> Result<bool, Need> {
        let is_stored = match &partition.store {
            Store::Memory(memory) => memory.get(key).is_some(),
            Store::Durable(_) => {
                let id = partition.spec.id;
                self.catalog.find(id, key, &self.known_keys(id))?.is_some()
            }
        };
        Ok(is_stored && !partition.is_expired(key, then))
    }

    pub(crate) fn read_within(
        &mut self,
        id: RequestId,
        target: &Target,
        transaction: TransactionId,
        read: &TransactionRead<'_>,
        io: &mut Io<'_>,
    ) {
        match read {
            TransactionRead::Get { key } => {
                self.get(id, target, key, Located::Unknown, Some(transaction), io)
            }
            TransactionRead::Scan(wish) => self.scan(id, target, wish, Some(transaction), io),
            TransactionRead::Count { range } => self.count(id, target, range, Some(transaction), io),
        }
    }

    /// A whole record that is in the cache.
    pub(crate) fn cached_record(&self, location: Location) -> Option<Bytes> {
        self.cache.get(location, self.space.of(location).1.generation).cloned()
    }

    /// Starts the one read that a record takes, or queues it until there is a buffer. Its segment is
    /// pinned until the read has ended.
    pub(crate) fn start_read(&mut self, why: ReadFor, location: Location, io: &mut Io<'_>) {
        self.space.pin(self.space.of(location).0);
        if !self.reads.queue.is_empty() {
            return self.reads.push_back(why, location);
        }
        if let Some(why) = self.try_read(why, location, io) {
            self.reads.push_back(why, location);
        }
    }

    fn try_read(&mut self, why: ReadFor, location: Location, io: &mut Io<'_>) -> Option<ReadFor> {
        let (from, len) = why.span(location);
        let Some(buffer) = io.buffers.acquire(len as usize) else { return Some(why) };
        self.stats.device_reads += 1;
        self.stats.device_read_bytes += u64::from(len);
        self.stats.get_device_reads += u64::from(matches!(why, ReadFor::Get { .. }));
        let slot = self.reads.free_slots.pop().unwrap_or_else(|| {
            self.reads.slots.push(None);
            self.reads.slots.len() - 1
        });
        self.reads.slots[slot] =
            Some(ReadSlot { why, location, buffer, from, begun_ns: io.now.monotonic_ns });
        let at = DriveOffset(self.place.area_at.0 + from);
        io.start(Op::Read { token: Purpose::Read.token(slot as u64), buffer, at, len });
        None
    }

    /// Starts queued reads for which there are buffers now.
    pub(crate) fn pump_reads(&mut self, io: &mut Io<'_>) {
        while let Some((why, location)) = self.reads.queue.pop_front() {
            let bytes = bytes_to_count(&why, location);
            if let Some(why) = self.try_read(why, location, io) {
                return self.reads.queue.push_front((why, location));
            }
            self.reads.queued_bytes -= bytes;
        }
    }

    /// The record that was read, if it is the one that was written there.
    pub(crate) fn judged<'b>(
        &mut self,
        result: Result<(), DeviceError>,
        (location, generation): (Location, Generation),
        room: &'b [u8],
    ) -> Result<Record<'b>, ReadError> {
        let at = self.place.area_at.0 + location.offset();
        let outcome = match result {
            Err(error) if error.is_of_the_medium() => Err(ReadError::Corrupt { at }),
            Err(DeviceError { os_error }) => Err(ReadError::Device { at, os_error }),
            Ok(()) => Record::decode(self.place.seed, location.offset(), generation.0, room)
                .ok()
                .filter(|record| record.room() == room.len())
                .ok_or(ReadError::Corrupt { at }),
        };
        match outcome {
            Ok(_) => {}
            Err(ReadError::Device { .. }) => self.stats.failed_reads += 1,
            Err(_) => self.stats.corrupt_records += 1,
        }
        outcome
    }

    pub(crate) fn read_completed(&mut self, slot: usize, result: Result<(), DeviceError>, io: &mut Io<'_>) {
        let read = self.reads.slots[slot].take().expect("a completed read has a slot");
        self.reads.free_slots.push(slot);
        io.delay.drive_ns = io.now.monotonic_ns.saturating_sub(read.begun_ns);
        let (segment, generation) = {
            let (id, segment) = self.space.of(read.location);
            (id, segment.generation)
        };
        if let ReadFor::Scan { scan, run, .. } = read.why {
            let fetched = Fetched { buffer: read.buffer, from: read.from, result };
            self.scan_read(scan, run, fetched, io);
            io.buffers.release(read.buffer);
            self.space.unpin(segment);
            return self.scan_go_on(scan, io);
        }
        let at = self.place.area_at.0 + read.location.offset();
        let start = (read.location.offset() - read.from) as usize;
        let room = &io.buffers.bytes(read.buffer)[start..start + read.location.room() as usize];
        let outcome = self.judged(result, (read.location, generation), room);
        // Without the padding behind it.
        let whole = outcome.as_ref().map_or(room, |record| &room[..record.len()]);
        if matches!(outcome, Err(ReadError::Corrupt { .. })) {
            self.note_damaged(&read.why, read.location);
        }
        match read.why {
            ReadFor::Get { id, partition, key, perhaps: Some((epoch, within)) }
                if is_another(partition, &key, &outcome) =>
            {
                self.key_read(partition, read.location, &outcome);
                io.buffers.release(read.buffer);
                self.get(id, &Target { partition, epoch }, &key, Located::Unknown, within, io);
            }
            ReadFor::Get { id, partition, key, .. } => {
                let outcome = outcome.and_then(|record| self.hit_of(partition, &key, &record, (start, at)));
                if outcome.is_ok() {
                    self.cache.insert(read.location, generation, whole);
                }
                self.answer_get(id, outcome, read.buffer, io);
            }
            ReadFor::Key { partition } => {
                let is_refused = self.key_read(partition, read.location, &outcome);
                io.buffers.release(read.buffer);
                if is_refused {
                    // The drive refuses it again and again. Which record a write replaces cannot be told: as well as a failed write, this closes the log.
                    self.poison(io);
                }
            }
            ReadFor::Condition(write) if self.is_another_for(&write, &outcome) => {
                self.key_read(write.place().0, read.location, &outcome);
                io.buffers.release(read.buffer);
                self.condition_read(&write, read.location, Err(ReadError::Busy), io);
            }
            ReadFor::Condition(write) => {
                let (partition, key) = write.place();
                let outcome = outcome.and_then(|record| self.hit_of(partition, key, &record, (start, at)));
                if outcome.is_ok() {
                    self.cache.insert(read.location, generation, whole);
                }
                let outcome = outcome.map(|_| Bytes::copy_from_slice(whole));
                io.buffers.release(read.buffer);
                self.condition_read(&write, read.location, outcome, io);
            }
            ReadFor::Scan { .. } => unreachable!("a scan's records were taken above"),
        }
        self.space.unpin(segment);
    }

    /// What a read at a byte of the drive has found for a key, if it is the right record and no newer may be lost.
    fn hit_of(
        &self,
        partition: PartitionId,
        key: &[u8],
        record: &Record<'_>,
        (start, at): (usize, u64),
    ) -> Result<Hit, ReadError> {
        let right = record.partition == partition && *record.key == *key;
        let seq = trusted(right, self.catalog.quarantine_of(partition), record.seq, at)?;
        let (value_at, value_len) = (start + record.value_at(), record.value.len());
        Ok(Hit { seq, expires: record.expires, value_at, value_len })
    }

    /// Whether a record that was read for a conditional write may be another key's.
    fn is_another_for(&self, write: &OwnedWrite, outcome: &Result<Record<'_>, ReadError>) -> bool {
        let (partition, key) = write.place();
        let is_perhaps = || !self.catalog.candidates(partition, key).is_certain;
        self.catalog.is_compact(partition) && is_perhaps() && is_another(partition, key, outcome)
    }

    fn answer_get(
        &mut self,
        id: RequestId,
        outcome: Result<Hit, ReadError>,
        buffer: BufferId,
        io: &mut Io<'_>,
    ) {
        let answer = match outcome {
            Ok(hit) => {
                self.stats.gets += 1;
                self.stats.values_sent_from_device_buffer += 1;
                let (start, len) = (hit.value_at as u32, hit.value_len as u32);
                let value = Payload::Buffer { buffer, start, len };
                // It was there when it was asked for, even if its time has come while it was read.
                Ok(Some(Found { seq: hit.seq, value, left: self.clock.time_left(hit.expires) }))
            }
            Err(error) => {
                io.buffers.release(buffer);
                Err(error)
            }
        };
        io.reply(id, ReplyBody::Get(answer));
    }

    fn condition_read(
        &mut self,
        write: &OwnedWrite,
        location: Location,
        outcome: Result<Bytes, ReadError>,
        io: &mut Io<'_>,
    ) {
        let (partition, key) = write.place();
        let behind = self.deciding.remove(&self.log.hash(partition, key)).unwrap_or_default();
        let unchanged = self.catalog.holds(partition, key, location)
            && self.log.pending_frame(partition, key).is_none()
            && !self.log.is_poisoned();
        match outcome {
            Ok(bytes) if unchanged => {
                let record =
                    Record::decode_unchecked(&bytes).expect("the record was checked when it was read");
                let now = self.clock.now();
                let is_over = record.expires.is_some_and(|at| at <= now);
                self.decide_with(write, Some(&record).filter(|_| !is_over), io);
            }
            Err(ReadError::Corrupt { at }) if unchanged => {
                io.reply(write.id, ReplyBody::Write(Err(WriteError::Corrupt { at })));
            }
            Err(ReadError::Device { at, os_error }) if unchanged => {
                io.reply(write.id, ReplyBody::Write(Err(WriteError::Device { at, os_error })));
            }
            Err(ReadError::Quarantined { upto }) if unchanged => {
                io.reply(write.id, ReplyBody::Write(Err(WriteError::Quarantined { upto })));
            }
            _ => self.write_or_park(write.id, &write.body(), io),
        }
        self.take_up(behind, io);
    }
}

/// Whether what was read for a key of a compact index is another's, or may be, for it is damaged.
fn is_another(partition: PartitionId, key: &[u8], outcome: &Result<Record<'_>, ReadError>) -> bool {
    match outcome {
        Ok(record) => record.partition == partition && record.key != key,
        Err(error) => matches!(error, ReadError::Corrupt { .. }),
    }
}

/// The version of a record that was read at a byte of the drive, if it is the right one and no newer may be lost.
fn trusted(right: bool, quarantine: Option<Seq>, seq: Seq, at: u64) -> Result<Seq, ReadError> {
    match quarantine {
        _ if !right => Err(ReadError::Corrupt { at }),
        Some(upto) if is_quarantined(quarantine, seq) => Err(ReadError::Quarantined { upto }),
        _ => Ok(seq),
    }
}

/// A key that a record may have.
pub fn check_key(key: &[u8]) -> Result<(), ReadError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(ReadError::KeyLength { len: key.len() });
    }
    Ok(())
}

/// Whether a newer version of the record may have been lost.
pub fn is_quarantined(quarantine: Option<Seq>, seq: Seq) -> bool {
    quarantine.is_some_and(|below| seq < below)
}
