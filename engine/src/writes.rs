//! Put, delete, batch and their conditions: from the request to the open frame.

use std::collections::BTreeSet;

use crate::expiry::{EXPIRY_OVERHEAD_BYTES, ExpiryClock, is_ttl};
use crate::facts::Perhaps;
use crate::format::frame::FRAME_HEADER_BYTES;
use crate::format::record::{Record, RecordKind, record_len, record_room};
use crate::ids::{RequestId, Seq, WallMs};
use crate::io::Io;
use crate::limits::{
    BATCH_BYTES, BATCH_TTL_BYTES, BATCH_WRITE_BYTES, MAX_BATCH_BYTES, MAX_BATCH_WRITES, MAX_KEY_BYTES,
};
use crate::loading::target_of;
use crate::log::{Ack, AckKind};
use crate::modify::{Dependent, Modify, Present};
use crate::owned::OwnedWrite;
use crate::partition::{Partition, Store};
use crate::reply::{CatalogError, ReplyBody, WriteError, Written};
use crate::request::{BatchWrite, Condition, RequestBody, Target, Ttl};
use crate::shard::Shard;
use crate::space::Claim;
use crate::transactions::Commit;
use crate::transactions::history::Write;

/// Memory that a new key is taken to cost in the index, beside its own bytes.
pub const INDEX_ENTRY_ESTIMATE_BYTES: u64 = 24;

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, appended, or waiting for something of its own.
    Taken,
    /// There is no room in the log at the moment.
    Stalled,
}

/// A write, checked.
pub(crate) struct Checked<'a> {
    pub(crate) id: RequestId,
    pub(crate) target: Target,
    pub(crate) kind: AckKind,
    pub(crate) writes: &'a [BatchWrite<'a>],
    pub(crate) condition: Condition,
    /// How long what it puts is to live, and so when it expires.
    pub(crate) ttl: Ttl,
    pub(crate) expires: Option<WallMs>,
    /// The number that an increment writes.
    pub(crate) number: Option<i64>,
}

impl Shard {
    /// A write from a client: behind those that wait already, or at once. Those of memory tables wait for nothing that the
    /// drive lacks.
    pub(crate) fn write_or_park(&mut self, id: RequestId, body: &RequestBody<'_>, io: &mut Io<'_>) {
        let may_go = self.parked.is_empty() || self.is_of_memory(body);
        if may_go && self.write(id, body, io) == Outcome::Taken {
            return;
        }
        let Some(owned) = OwnedWrite::copy_of(id, body) else { return };
        self.park(owned, io);
    }

    fn is_of_memory(&self, body: &RequestBody<'_>) -> bool {
        let target = match body {
            RequestBody::Commit { target, .. } => Some(target),
            body => target_of(body),
        };
        let partition = target.and_then(|target| self.catalog.get(target.partition));
        partition.is_some_and(|partition| matches!(partition.store, Store::Memory(_)))
    }

    pub(crate) fn park(&mut self, owned: OwnedWrite, io: &mut Io<'_>) {
        let bytes = self.parked_bytes + owned.bytes();
        if self.parked.len() >= self.config.max_queued_requests || bytes > self.config.max_queued_bytes {
            self.stats.busy += 1;
            return io.reply(owned.id, ReplyBody::Write(Err(WriteError::Busy)));
        }
        if self.parked.is_empty() {
            self.parked_for_segment = self.log.lacks_segment();
        }
        self.parked_bytes = bytes;
        self.parked.push_back(owned);
    }

    /// Tries the parked writes again, in order, until one stalls. Where puts stall because the drive
    /// is full, deletes behind them still go on.
    pub(crate) fn retry_parked(&mut self, io: &mut Io<'_>) {
        while let Some(owned) = self.parked.pop_front() {
            if self.write(owned.id, &owned.body(), io) == Outcome::Stalled {
                self.parked.push_front(owned);
                self.parked_for_segment = self.log.lacks_segment();
                break;
            }
            self.parked_bytes -= owned.bytes();
        }
        if !self.parked.is_empty() && !self.space.may_take(Claim::Put) {
            self.pass_deletes(io);
        }
    }

    /// A delete does not pass an earlier write of the same key.
    fn pass_deletes(&mut self, io: &mut Io<'_>) {
        let mut passed = BTreeSet::new();
        let mut at = 0;
        while at < self.parked.len() {
            let hashes: Vec<u64> = self.parked[at].places().map(|(p, key)| self.log.hash(p, key)).collect();
            let may_pass = hashes.iter().all(|hash| !passed.contains(hash));
            if self.parked[at].is_delete() && may_pass {
                let Some(owned) = self.parked.remove(at) else { return };
                if self.write(owned.id, &owned.body(), io) == Outcome::Stalled {
                    return self.parked.insert(at, owned);
                }
                self.parked_bytes -= owned.bytes();
            } else {
                passed.extend(hashes);
                at += 1;
            }
        }
    }

    pub(crate) fn fail_all_parked(&mut self, error: &WriteError, io: &mut Io<'_>) {
        for owned in std::mem::take(&mut self.parked) {
            io.reply(owned.id, ReplyBody::Write(Err(error.clone())));
        }
        self.parked_bytes = 0;
    }

    /// Answers what waits for a segment `Full`: cleaning has found nothing more to give; or `Busy` while
    /// partitions are loaded, for until then nothing is cleaned. Deletes and changes of the catalog wait on where
    /// there is a segment for them.
    pub(crate) fn fail_starved(&mut self, io: &mut Io<'_>) {
        let (error, catalog_error) = if self.is_loading() {
            (WriteError::Busy, CatalogError::Busy)
        } else {
            (self.full(0), CatalogError::Full)
        };
        let deletes_go_on = self.space.may_take(Claim::Delete);
        for owned in std::mem::take(&mut self.parked) {
            if owned.is_delete() && deletes_go_on {
                self.parked.push_back(owned);
            } else {
                match error {
                    WriteError::Busy => self.stats.busy += 1,
                    _ => self.stats.refused += 1,
                }
                self.parked_bytes -= owned.bytes();
                io.reply(owned.id, ReplyBody::Write(Err(error.clone())));
            }
        }
        if self.catalog_jobs.is_stalled() && !deletes_go_on {
            self.fail_catalog_jobs(&catalog_error, io);
            // What it wrote is forgotten in the next step.
            self.has_more = true;
        }
    }

    fn full(&self, record_bytes: u64) -> WriteError {
        WriteError::Full {
            live_bytes: self.known_live_bytes() + self.log.pending_bytes(),
            limit_bytes: self.space.live_limit_bytes(record_bytes),
        }
    }

    fn write(&mut self, id: RequestId, body: &RequestBody<'_>, io: &mut Io<'_>) -> Outcome {
        let one;
        let (target, kind, writes, condition, ttl) = match body {
            RequestBody::Modify { target, key, change } => {
                return self.modify(&Modify { id, target: *target, key, change: *change }, io);
            }
            RequestBody::Commit { target, transaction, writes } => {
                let (target, transaction) = (*target, *transaction);
                return self.commit(&Commit { id, target, transaction, writes }, io);
            }
            RequestBody::Put { target, key, value, condition, ttl } => {
                one = [BatchWrite::Put { key, value }];
                (target, AckKind::Put, &one[..], *condition, *ttl)
            }
            RequestBody::Delete { target, key, condition } => {
                one = [BatchWrite::Delete { key }];
                (target, AckKind::Delete, &one[..], *condition, Ttl::Never)
            }
            RequestBody::Batch { target, writes } => {
                (target, AckKind::Batch, writes.as_slice(), Condition::Always, Ttl::Table)
            }
            _ => unreachable!("only writes come here"),
        };
        let expires = match self.expiry(target, ttl) {
            Ok(expires) => expires,
            Err(error) => return self.refuse_write(id, error, io),
        };
        let checked = Checked { id, target: *target, kind, writes, condition, ttl, expires, number: None };
        match self.admit(&checked) {
            Ok(()) => self.write_checked(&checked, io),
            Err(error) => self.refuse_write(id, error, io),
        }
    }

    /// When a record expires that is written now.
    pub(crate) fn expiry(&self, target: &Target, ttl: Ttl) -> Result<Option<WallMs>, WriteError> {
        if let Ttl::After { ttl_ms } = ttl
            && !is_ttl(ttl_ms)
        {
            return Err(WriteError::BadTtl { ttl_ms });
        }
        let table_ttl_ms = self.catalog.get(target.partition).and_then(|partition| partition.ttl_ms);
        Ok(self.clock.expiry(ttl, table_ttl_ms))
    }

    pub(crate) fn refuse_write(&mut self, id: RequestId, error: WriteError, io: &mut Io<'_>) -> Outcome {
        match error {
            WriteError::Busy => self.stats.busy += 1,
            WriteError::Corrupt { .. }
            | WriteError::MayReturn { .. }
            | WriteError::Device { .. }
            | WriteError::Quarantined { .. }
            | WriteError::Poisoned => {}
            _ => self.stats.refused += 1,
        }
        io.reply(id, ReplyBody::Write(Err(error)));
        Outcome::Taken
    }

    /// Everything that can be refused at once.
    pub(crate) fn admit(&self, write: &Checked<'_>) -> Result<(), WriteError> {
        let target = write.target;
        let partition = self.catalog.get(target.partition);
        let partition = partition.ok_or(WriteError::UnknownPartition(target.partition))?;
        if partition.spec.epoch != target.epoch {
            return Err(WriteError::StaleEpoch { current: partition.spec.epoch });
        }
        partition.note_request();
        self.check_size(write)?;
        Self::check_ttls(write)?;
        for one in write.writes {
            if !partition.covers(parts(one).0) {
                return Err(WriteError::OutOfRange);
            }
        }
        self.check_space(partition, write)
    }

    /// Whether drive and memory take the write. Looks keys up only near a limit, to see which of the
    /// bytes replace others.
    fn check_space(&self, partition: &Partition, write: &Checked<'_>) -> Result<(), WriteError> {
        let durable = matches!(partition.store, Store::Durable(_));
        let live = self.known_live_bytes() + self.log.pending_bytes();
        let (used_bytes, limit_bytes) = (self.catalog.memory_bytes(), self.config.memory_bytes);
        let record_bytes = write.writes.iter().map(|one| write.room(one) as u64);
        let largest = record_bytes.max().unwrap_or(0);
        let live_limit = self.space.live_limit_bytes(largest);
        for exact in [false, true] {
            let (mut growth, mut memory_growth) = (0u64, 0u64);
            for one in write.writes {
                let (key, Some(value)) = parts(one) else { continue };
                let (old_bytes, memory) = partition.growth_of(&self.catalog.arena, key, value, exact);
                growth += (write.room(one) as u64).saturating_sub(old_bytes);
                let is_new_expiry = write.may_expire(one) && !(exact && partition.expiry_of(key).is_some());
                let expiry = if is_new_expiry { key.len() as u64 + EXPIRY_OVERHEAD_BYTES } else { 0 };
                memory_growth += memory + expiry;
            }
            let memory_full = memory_growth > 0 && used_bytes + memory_growth > limit_bytes;
            let full = durable && growth > 0 && live + growth > live_limit;
            if !memory_full && !full {
                break;
            }
            if exact && memory_full {
                return Err(WriteError::MemoryFull { used_bytes, limit_bytes });
            }
            if exact {
                return Err(self.full(largest));
            }
        }
        Ok(())
    }

    fn check_ttls(write: &Checked<'_>) -> Result<(), WriteError> {
        for one in write.writes {
            if let BatchWrite::PutFor { ttl: Ttl::After { ttl_ms }, .. } = *one
                && !is_ttl(ttl_ms)
            {
                return Err(WriteError::BadTtl { ttl_ms });
            }
        }
        Ok(())
    }

    fn check_size(&self, write: &Checked<'_>) -> Result<(), WriteError> {
        let value_limit = self.config.geometry.max_value_bytes as usize;
        let (mut travels_bytes, mut record_bytes) = (BATCH_BYTES, 0);
        for one in write.writes {
            let (key, value) = parts(one);
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return Err(WriteError::KeyLength { len: key.len() });
            }
            let len = value.map_or(0, <[u8]>::len);
            if len > value_limit {
                return Err(WriteError::ValueLength { len, limit: value_limit });
            }
            let of_ttl = if matches!(one, BatchWrite::PutFor { ttl: Ttl::After { .. }, .. }) {
                BATCH_TTL_BYTES
            } else {
                0
            };
            travels_bytes += BATCH_WRITE_BYTES + of_ttl + key.len() + len;
            record_bytes += write.room(one);
        }
        let payload = self.config.geometry.segment_payload_bytes() as usize - FRAME_HEADER_BYTES;
        let writes = write.writes.len();
        if writes == 0 || writes > MAX_BATCH_WRITES || travels_bytes > MAX_BATCH_BYTES {
            return Err(WriteError::BatchSize { writes, bytes: travels_bytes, limit: MAX_BATCH_BYTES });
        }
        if record_bytes > payload {
            return Err(WriteError::BatchSize { writes, bytes: record_bytes, limit: payload });
        }
        Ok(())
    }

    fn write_checked(&mut self, write: &Checked<'_>, io: &mut Io<'_>) -> Outcome {
        let partition = self.catalog.get(write.target.partition).expect("admit found the partition");
        if matches!(partition.store, Store::Memory(_)) {
            self.write_memory(write, io);
            return Outcome::Taken;
        }
        if self.log.is_poisoned() {
            return self.refuse_write(write.id, WriteError::Poisoned, io);
        }
        if write.condition != Condition::Always {
            return self.write_if(write, io);
        }
        if let (AckKind::Delete, [BatchWrite::Delete { key }]) = (write.kind, write.writes) {
            // A record whose time is over may come to life again, where the clock is set back before a restart; and what
            // is not there in quarantine may be found by another start. Their deletes are written. So are those of keys
            // of which it is not known without a read whether they are there: it is found out on the way.
            let id = write.target.partition;
            let is_known = self.catalog.quarantine_of(id).is_none() && self.journal.expiries_are_settled();
            let absent = is_known && self.catalog.find(id, key, &self.known_keys(id)) == Ok(None);
            // What is damaged may be the key's: another start may be able to read it, and finds it deleted.
            let may_be_there = absent && self.damaged_perhaps(id, key).is_some();
            if absent && !may_be_there && self.log.pending_frame(id, key).is_none() {
                let nothing = Written { seq: Seq::default(), existed: false, number: None, bytes: 0 };
                self.stats.deletes += 1;
                io.reply(write.id, ReplyBody::Write(Ok(nothing)));
                return Outcome::Taken;
            }
        }
        self.append(write, io)
    }

    /// Appends to the log what was decided.
    pub(crate) fn append(&mut self, write: &Checked<'_>, io: &mut Io<'_>) -> Outcome {
        let total = write.writes.iter().map(|one| write.room(one)).sum();
        let deletes = write.writes.iter().all(|one| parts(one).1.is_none());
        let claim = if deletes { Claim::Delete } else { Claim::Put };
        let Shard { log, space, stats, config, sequencer, transactions, clock, .. } = self;
        if !log.make_room(total, claim, config, space, stats, io) {
            return Outcome::Stalled;
        }
        let mut seq = Seq::default();
        for one in write.writes {
            let (key, value) = parts(one);
            seq = sequencer.next(io.now.wall_ns);
            let kind = if value.is_some() { RecordKind::Put } else { RecordKind::Delete };
            let expires = write.expires_of(one, clock);
            let value = value.unwrap_or_default();
            let partition = write.target.partition;
            log.append(&Record { kind, seq, partition, key, value, expires }, io);
            transactions.appended(partition, key, log.last_number(), write_of(one));
        }
        for one in write.writes {
            self.ask_ahead(write.target.partition, parts(one).0, io);
        }
        let Shard { log, .. } = self;
        let records = write.writes.len() as u32;
        let user_bytes = |one| parts(one).0.len() + parts(one).1.map_or(0, <[u8]>::len);
        let user_bytes = write.writes.iter().map(user_bytes).sum::<usize>() as u64;
        let Checked { id, kind, number, .. } = *write;
        if let (Some(number), [one]) = (number, write.writes) {
            log.note_number(write.target.partition, parts(one).0, number, write.expires);
        }
        let number = number.filter(|_| kind == AckKind::Increment);
        let appended_ns = io.now.monotonic_ns;
        log.acknowledge(Ack { id, records, user_bytes, seq, kind, number, appended_ns });
        Outcome::Taken
    }

    /// A conditional write of one key: learns the present version, decides.
    fn write_if(&mut self, write: &Checked<'_>, io: &mut Io<'_>) -> Outcome {
        let (key, value) = parts(&write.writes[0]);
        let record_bytes = write.room(&write.writes[0]);
        let claim = if value.is_some() { Claim::Put } else { Claim::Delete };
        let (id, partition) = (write.id, write.target.partition);
        let dependent = Dependent { id, partition, key, record_bytes, keeps_value: false, claim };
        match self.present(&dependent, &|| write.to_owned(), io) {
            Present::Stalled => Outcome::Stalled,
            Present::Absent => self.decide(write, None, io),
            Present::Record(bytes) => {
                let record = Record::decode_unchecked(&bytes);
                let record = record.expect("the cache holds records that were checked");
                self.decide(write, Some(record.seq), io)
            }
            Present::Later => Outcome::Taken,
        }
    }

    fn decide(&mut self, write: &Checked<'_>, current: Option<Seq>, io: &mut Io<'_>) -> Outcome {
        if holds(write.condition, current) {
            return self.append(write, io);
        }
        self.refuse_write(write.id, WriteError::ConditionFailed { current }, io)
    }

    pub(crate) fn write_memory(&mut self, write: &Checked<'_>, io: &mut Io<'_>) {
        let now = self.clock.now();
        let Shard { catalog, sequencer, space, transactions, clock, .. } = self;
        let Some(partition) = catalog.get_mut(write.target.partition) else { return };
        let was_expired = partition.is_expired(parts(&write.writes[0]).0, now);
        let Store::Memory(memory) = &partition.store else { return };
        let (key, _) = parts(&write.writes[0]);
        let current = memory.get(key).map(|(seq, _)| *seq).filter(|_| !was_expired);
        if !holds(write.condition, current) {
            self.stats.refused += 1;
            let error = WriteError::ConditionFailed { current };
            return io.reply(write.id, ReplyBody::Write(Err(error)));
        }
        for one in write.writes {
            let place = (write.target.partition, parts(one).0);
            transactions.before_change(catalog, space, place, write_of(one), |_, _| Perhaps::Nothing);
        }
        let Some(partition) = catalog.get_mut(write.target.partition) else { return };
        let Store::Memory(memory) = &mut partition.store else { return };
        let before = memory.memory_bytes();
        let (mut seq, mut user_bytes) = (Seq::default(), 0);
        for one in write.writes {
            let (key, value) = parts(one);
            seq = sequencer.next(io.now.wall_ns);
            let len = value.map_or(0, <[u8]>::len);
            let old = match value {
                Some(value) => memory.insert(key, seq, value),
                None => memory.remove(key),
            };
            let record = |len: usize| record_len(key.len(), len) as u64;
            partition.bytes += value.map_or(0, |value| record(value.len()));
            partition.bytes -= old.map_or(0, |(_, old)| record(old.len()));
            user_bytes += (key.len() + len) as u64;
        }
        let after = memory.memory_bytes();
        catalog.memory_table_bytes = catalog.memory_table_bytes + after - before;
        for one in write.writes {
            catalog.set_expiry(write.target.partition, parts(one).0, write.expires_of(one, clock));
        }
        self.count_written(write.kind, user_bytes);
        let number = write.number.filter(|_| write.kind == AckKind::Increment);
        let written = Written { seq, existed: current.is_some(), number, bytes: user_bytes };
        io.reply(write.id, ReplyBody::Write(Ok(written)));
    }

    /// A read for a condition has ended with the present record, if that still counts; nothing has been
    /// written since.
    pub(crate) fn decide_with(&mut self, owned: &OwnedWrite, present: Option<&Record<'_>>, io: &mut Io<'_>) {
        let body = owned.body();
        let one;
        let (target, kind, condition, ttl) = match &body {
            RequestBody::Put { target, key, value, condition, ttl } => {
                one = [BatchWrite::Put { key, value }];
                (*target, AckKind::Put, *condition, *ttl)
            }
            RequestBody::Delete { target, key, condition } => {
                one = [BatchWrite::Delete { key }];
                (*target, AckKind::Delete, *condition, Ttl::Never)
            }
            RequestBody::Modify { target, key, change } => {
                let ask = Modify { id: owned.id, target: *target, key, change: *change };
                if self.modify_present(&ask, present, io) == Outcome::Stalled {
                    self.park(owned.clone(), io);
                }
                return;
            }
            _ => unreachable!("only single writes have conditions"),
        };
        let expires = self.expiry(&target, ttl).unwrap_or_default();
        let write =
            Checked { id: owned.id, target, kind, writes: &one, condition, ttl, expires, number: None };
        if self.decide(&write, present.map(|record| record.seq), io) == Outcome::Stalled {
            self.park(owned.clone(), io);
        }
    }
}

impl Checked<'_> {
    /// Bytes of a frame that the record of one of its writes takes.
    fn room(&self, one: &BatchWrite<'_>) -> usize {
        let (key, value) = parts(one);
        record_room(key.len(), value.map_or(0, <[u8]>::len), self.may_expire(one))
    }

    /// Whether the record of one of its writes expires some time.
    fn may_expire(&self, one: &BatchWrite<'_>) -> bool {
        match one {
            BatchWrite::Put { .. } | BatchWrite::PutFor { ttl: Ttl::Table, .. } => self.expires.is_some(),
            BatchWrite::PutFor { ttl, .. } => *ttl != Ttl::Never,
            BatchWrite::Delete { .. } => false,
        }
    }

    /// When it does.
    fn expires_of(&self, one: &BatchWrite<'_>, clock: &ExpiryClock) -> Option<WallMs> {
        match one {
            BatchWrite::Put { .. } | BatchWrite::PutFor { ttl: Ttl::Table, .. } => self.expires,
            BatchWrite::PutFor { ttl, .. } => clock.expiry(*ttl, None),
            BatchWrite::Delete { .. } => None,
        }
    }

    /// A conditional write with bytes of its own.
    fn to_owned(&self) -> OwnedWrite {
        let Checked { target, condition, ttl, .. } = *self;
        let body = match self.writes[0] {
            BatchWrite::Put { key, value } => RequestBody::Put { target, key, value, condition, ttl },
            BatchWrite::PutFor { key, value, ttl } => RequestBody::Put { target, key, value, condition, ttl },
            BatchWrite::Delete { key } => RequestBody::Delete { target, key, condition },
        };
        OwnedWrite::copy_of(self.id, &body).expect("puts and deletes can be copied")
    }
}

pub(crate) fn parts<'a>(write: &BatchWrite<'a>) -> (&'a [u8], Option<&'a [u8]>) {
    match *write {
        BatchWrite::Put { key, value } | BatchWrite::PutFor { key, value, .. } => (key, Some(value)),
        BatchWrite::Delete { key } => (key, None),
    }
}

fn write_of(write: &BatchWrite<'_>) -> Write {
    match write {
        BatchWrite::Put { .. } | BatchWrite::PutFor { .. } => Write::Put,
        BatchWrite::Delete { .. } => Write::Delete,
    }
}

fn holds(condition: Condition, current: Option<Seq>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::IfAbsent => current.is_none(),
        Condition::IfSeq(seq) => current == Some(seq),
    }
}
