//! Read-modify-write of one record, and what it shares with conditional writes: learning the present
//! record of a key.
//!
//! A counter in use never waits for the drive twice: the number that an increment wrote is known until its
//! frame is durable, so increments that arrive meanwhile go on from it, all in one frame; and from then on
//! its record is in the cache.

use bytes::Bytes;

use crate::facts::Perhaps;
use crate::format::record::{Record, record_room};
use crate::ids::{PartitionId, RequestId, Seq, WallMs};
use crate::io::Io;
use crate::location::Location;
use crate::log::AckKind;
use crate::owned::OwnedWrite;
use crate::partition::Store;
use crate::reads::{ReadFor, is_quarantined};
use crate::reply::{ReplyBody, WriteError, Written};
use crate::request::{BatchWrite, Change, Condition, Target, Ttl};
use crate::shard::Shard;
use crate::space::Claim;
use crate::writes::{Checked, Outcome};

/// Most bytes of a number in decimal digits: `-9223372036854775808`.
const MOST_DIGITS_BYTES: usize = 20;

/// A request to read a record and write it anew.
#[derive(Clone, Copy)]
pub(crate) struct Modify<'a> {
    pub(crate) id: RequestId,
    pub(crate) target: Target,
    pub(crate) key: &'a [u8],
    pub(crate) change: Change,
}

/// What is known of the present record of a key.
pub(crate) enum Present {
    /// There is none.
    Absent,
    /// This is it, whole.
    Record(Bytes),
    /// The write was answered, or will be taken up again when more is known.
    Later,
    /// It would have to be read, but there is no room in the log for what comes of it.
    Stalled,
}

/// A write that depends on the present record of its key.
pub(crate) struct Dependent<'a> {
    pub(crate) id: RequestId,
    pub(crate) partition: PartitionId,
    pub(crate) key: &'a [u8],
    /// Bytes of the record that it may come to, but for the present value where it keeps that.
    pub(crate) record_bytes: usize,
    pub(crate) keeps_value: bool,
    pub(crate) claim: Claim,
}

impl Modify<'_> {
    fn owned(self) -> OwnedWrite {
        let Modify { id, target, key, change } = self;
        let body = crate::request::RequestBody::Modify { target, key, change };
        OwnedWrite::copy_of(id, &body).expect("modifies can be copied")
    }

    fn kind(&self) -> AckKind {
        match self.change {
            Change::Increment { .. } => AckKind::Increment,
            Change::Expire { .. } => AckKind::Expire,
        }
    }

    /// The write that it comes to.
    fn write<'w>(
        &self,
        one: &'w [BatchWrite<'w>],
        expires: Option<WallMs>,
        number: Option<i64>,
    ) -> Checked<'w> {
        let Modify { id, target, .. } = *self;
        let (kind, condition, ttl) = (self.kind(), Condition::Always, Ttl::Table);
        Checked { id, target, kind, writes: one, condition, ttl, expires, number }
    }

    /// The longest value that it may write, as far as that is known beforehand.
    fn widest_value(&self) -> &'static [u8] {
        match self.change {
            Change::Increment { .. } => &[0; MOST_DIGITS_BYTES],
            Change::Expire { .. } => &[],
        }
    }
}

/// The value of a present record, and when it expires.
#[derive(Clone, Copy)]
struct PresentValue<'a> {
    value: &'a [u8],
    expires: Option<WallMs>,
}

impl Shard {
    pub(crate) fn modify(&mut self, ask: &Modify<'_>, io: &mut Io<'_>) -> Outcome {
        let ttl = match ask.change {
            Change::Increment { .. } => Ttl::Table,
            Change::Expire { ttl } => ttl,
        };
        let expires = self.expiry(&ask.target, ttl);
        let widest = [BatchWrite::Put { key: ask.key, value: ask.widest_value() }];
        let admitted = expires.and_then(|expires| self.admit(&ask.write(&widest, expires, None)));
        if let Err(error) = admitted {
            return self.refuse_write(ask.id, error, io);
        }
        let id = ask.target.partition;
        let partition = self.catalog.get(id).expect("admit found the partition");
        if let Store::Memory(memory) = &partition.store {
            let expires = partition.expiry_of(ask.key);
            let present = memory.get(ask.key).map(|(_, value)| value.clone());
            let present = present.filter(|_| !partition.is_expired(ask.key, self.clock.now()));
            let present = present.as_ref().map(|value| PresentValue { value, expires });
            return self.modify_value(ask, present, io);
        }
        if self.log.is_poisoned() {
            return self.refuse_write(ask.id, WriteError::Poisoned, io);
        }
        if let Some((number, expires)) = self.log.pending_number(id, ask.key) {
            let digits = number.to_string();
            let is_over = expires.is_some_and(|at| at <= self.clock.now());
            let present = PresentValue { value: digits.as_bytes(), expires };
            return self.modify_value(ask, Some(present).filter(|_| !is_over), io);
        }
        let keeps_value = matches!(ask.change, Change::Expire { .. });
        let record_bytes = record_room(ask.key.len(), ask.widest_value().len(), true);
        let Modify { key, .. } = *ask;
        let dependent =
            Dependent { id: ask.id, partition: id, key, record_bytes, keeps_value, claim: Claim::Put };
        match self.present(&dependent, &|| ask.owned(), io) {
            Present::Stalled => Outcome::Stalled,
            Present::Absent => self.modify_present(ask, None, io),
            Present::Record(bytes) => {
                let record = Record::decode_unchecked(&bytes);
                let record = record.expect("the cache holds records that were checked");
                self.modify_present(ask, Some(&record), io)
            }
            Present::Later => Outcome::Taken,
        }
    }

    /// With the present record of a durable table, which nothing has changed since it was read.
    pub(crate) fn modify_present(
        &mut self,
        ask: &Modify<'_>,
        present: Option<&Record<'_>>,
        io: &mut Io<'_>,
    ) -> Outcome {
        let present = present.map(|record| PresentValue { value: record.value, expires: record.expires });
        self.modify_value(ask, present, io)
    }

    fn modify_value(
        &mut self,
        ask: &Modify<'_>,
        present: Option<PresentValue<'_>>,
        io: &mut Io<'_>,
    ) -> Outcome {
        match ask.change {
            Change::Increment { by, initial } => self.add(ask, by, initial, present, io),
            Change::Expire { ttl } => self.expire_later(ask, ttl, present, io),
        }
    }

    fn add(
        &mut self,
        ask: &Modify<'_>,
        by: i64,
        initial: i64,
        present: Option<PresentValue<'_>>,
        io: &mut Io<'_>,
    ) -> Outcome {
        let expires = match present {
            Some(present) => present.expires,
            None => self.expiry(&ask.target, Ttl::Table).unwrap_or_default(),
        };
        let Some(before) = present.map_or(Some(initial), |present| number_of(present.value)) else {
            return self.refuse_write(ask.id, WriteError::NotANumber, io);
        };
        let Some(number) = before.checked_add(by) else {
            let error = WriteError::NumberOverflow { present: before, by };
            return self.refuse_write(ask.id, error, io);
        };
        let digits = number.to_string();
        let one = [BatchWrite::Put { key: ask.key, value: digits.as_bytes() }];
        self.write_modified(&ask.write(&one, expires, Some(number)), io)
    }

    /// Writes the same value with another expiry.
    fn expire_later(
        &mut self,
        ask: &Modify<'_>,
        ttl: Ttl,
        present: Option<PresentValue<'_>>,
        io: &mut Io<'_>,
    ) -> Outcome {
        let Some(present) = present else {
            self.stats.expiry_changes += 1;
            let nothing = Written { seq: Seq::default(), existed: false, number: None, bytes: 0 };
            io.reply(ask.id, ReplyBody::Write(Ok(nothing)));
            return Outcome::Taken;
        };
        let one = [BatchWrite::Put { key: ask.key, value: present.value }];
        let expires = self.expiry(&ask.target, ttl).unwrap_or_default();
        // A number that is on its way stays known: it may be incremented next.
        let pending = self.log.pending_number(ask.target.partition, ask.key);
        let write = ask.write(&one, expires, pending.map(|(number, _)| number));
        match self.admit(&write) {
            Ok(()) => self.write_modified(&write, io),
            Err(error) => self.refuse_write(ask.id, error, io),
        }
    }

    fn write_modified(&mut self, write: &Checked<'_>, io: &mut Io<'_>) -> Outcome {
        let partition = self.catalog.get(write.target.partition);
        if partition.is_some_and(|partition| matches!(partition.store, Store::Memory(_))) {
            self.write_memory(write, io);
            return Outcome::Taken;
        }
        self.append(write, io)
    }

    /// The present record of a key of a durable table, for a write that depends on it: waits for writes of
    /// the key that are on their way, looks into the cache, or reads the drive. Writes that come while the
    /// key is being read wait for that read: one is enough for all.
    pub(crate) fn present(
        &mut self,
        ask: &Dependent<'_>,
        owned: &dyn Fn() -> OwnedWrite,
        io: &mut Io<'_>,
    ) -> Present {
        let Dependent { id, partition, key, .. } = *ask;
        let hash = self.log.hash(partition, key);
        let frame = self.log.pending_frame(partition, key);
        if frame.is_some() || self.deciding.contains_key(&hash) {
            self.wait_for_key(id, hash, frame, owned(), io);
            return Present::Later;
        }
        let quarantine = self.catalog.quarantine_of(partition);
        let is_expired = self.catalog.is_expired(partition, key, self.clock.now());
        let found = if is_expired { Ok(None) } else { self.locate_for_write(partition, key) };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.refuse_write(id, error, io);
                return Present::Later;
            }
        };
        let Some(location) = found else {
            if let Some(upto) = quarantine {
                // Absence may be the damage's doing.
                self.refuse_write(id, WriteError::Quarantined { upto }, io);
                return Present::Later;
            }
            return Present::Absent;
        };
        let is_trusted = |bytes: &Bytes| {
            let record = Record::decode_unchecked(bytes);
            record.is_ok_and(|record| record.key == key && !is_quarantined(quarantine, record.seq))
        };
        if let Some(bytes) = self.cached_record(location).filter(is_trusted) {
            return Present::Record(bytes);
        }
        let kept_bytes = if ask.keeps_value { location.room() as usize } else { 0 };
        if self.log.would_lack_segment(ask.record_bytes + kept_bytes, ask.claim, &self.space) {
            return Present::Stalled;
        }
        if !self.reads.has_room(location, &self.config) {
            self.refuse_write(id, WriteError::Busy, io);
        } else {
            self.deciding.insert(hash, Vec::new());
            self.start_read(ReadFor::Condition(Box::new(owned())), location, io);
        }
        Present::Later
    }

    /// Where the present record of a key lies, or may lie.
    fn locate_for_write(
        &mut self,
        partition: PartitionId,
        key: &[u8],
    ) -> Result<Option<Location>, WriteError> {
        match self.locate_perhaps(partition, &self.catalog.candidates(partition, key), key) {
            Perhaps::Nothing => Ok(None),
            Perhaps::At(location) => Ok(Some(location)),
            Perhaps::Damaged(location) => {
                Err(WriteError::Corrupt { at: self.place.area_at.0 + location.offset() })
            }
        }
    }

    fn wait_for_key(
        &mut self,
        id: RequestId,
        hash: u64,
        frame: Option<crate::ids::FrameNumber>,
        owned: OwnedWrite,
        io: &mut Io<'_>,
    ) {
        if !self.may_wait(id, &owned, io) {
            return;
        }
        match (frame, self.deciding.get_mut(&hash)) {
            (_, Some(behind)) => behind.push(owned),
            (Some(frame), None) => self.waiters.push((frame, owned)),
            (None, None) => unreachable!("there is something to wait for"),
        }
    }

    /// Whether there is room for one more that waits; it is counted, or refused.
    fn may_wait(&mut self, id: RequestId, owned: &OwnedWrite, io: &mut Io<'_>) -> bool {
        let bytes = self.waiting_bytes + owned.bytes();
        let most = (self.config.max_queued_requests, self.config.max_queued_bytes);
        if self.waiting_writes >= most.0 || bytes > most.1 {
            self.refuse_write(id, WriteError::Busy, io);
            return false;
        }
        (self.waiting_writes, self.waiting_bytes) = (self.waiting_writes + 1, bytes);
        true
    }

    /// A write that can be decided once a frame is applied.
    pub(crate) fn wait_for_frame(
        &mut self,
        id: RequestId,
        frame: crate::ids::FrameNumber,
        owned: OwnedWrite,
        io: &mut Io<'_>,
    ) {
        if self.may_wait(id, &owned, io) {
            self.waiters.push((frame, owned));
        }
    }

    /// Takes up again the writes that waited for a frame or a read.
    pub(crate) fn take_up(&mut self, waited: Vec<OwnedWrite>, io: &mut Io<'_>) {
        for owned in waited {
            self.waiting_writes -= 1;
            self.waiting_bytes -= owned.bytes();
            self.write_or_park(owned.id, &owned.body(), io);
        }
    }

    /// Writes that wait no more: the log is closed.
    pub(crate) fn fail_waiters(&mut self, io: &mut Io<'_>) {
        for (_, owned) in std::mem::take(&mut self.waiters) {
            self.waiting_writes -= 1;
            self.waiting_bytes -= owned.bytes();
            io.reply(owned.id, ReplyBody::Write(Err(WriteError::Poisoned)));
        }
    }
}

/// The number that a value says: decimal digits without leading zeros, perhaps behind a minus.
fn number_of(value: &[u8]) -> Option<i64> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let is_plain = match digits {
        [b'0'] => digits.len() == value.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !is_plain || value.len() > MOST_DIGITS_BYTES {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain_decimal_and_fit_64_bits() {
        for number in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(number_of(number.to_string().as_bytes()), Some(number));
        }
        let others: [&[u8]; 16] = [
            b"",
            b"-",
            b"-0",
            b"00",
            b"01",
            b"+1",
            b" 1",
            b"1 ",
            b"1.0",
            b"1e3",
            b"0x1",
            b"--1",
            b"-01",
            b"\xff",
            b"9223372036854775808",
            b"-9223372036854775809",
        ];
        for other in others {
            assert_eq!(number_of(other), None, "{}", other.escape_ascii());
        }
    }
}
