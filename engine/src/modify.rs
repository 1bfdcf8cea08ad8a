//! Read-modify-write of one record, and what it shares with conditional writes: learning the present
//! record of a key.
//!
//! A counter in use never waits for the drive twice: the number that an increment wrote is known until its
//! frame is durable, so increments that arrive meanwhile go on from it, all in one frame; and from then on
//! its record is in the cache.

use bytes::Bytes;

use crate::format::record::{Record, record_len};
use crate::ids::{PartitionId, RequestId};
use crate::io::Io;
use crate::log::AckKind;
use crate::owned::OwnedWrite;
use crate::partition::Store;
use crate::reads::{ReadFor, is_quarantined};
use crate::reply::{ReplyBody, WriteError};
use crate::request::{BatchWrite, Change, Condition, Target};
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
    /// Bytes of the record that it may come to.
    pub(crate) record_bytes: usize,
    pub(crate) claim: Claim,
}

impl Modify<'_> {
    fn owned(self) -> OwnedWrite {
        let Modify { id, target, key, change } = self;
        let body = crate::request::RequestBody::Modify { target, key, change };
        OwnedWrite::copy_of(id, &body).expect("modifies can be copied")
    }

    /// The write that it comes to.
    fn write<'w>(&self, one: &'w [BatchWrite<'w>], number: Option<i64>) -> Checked<'w> {
        let (id, target, kind, condition) = (self.id, self.target, AckKind::Modify, Condition::Always);
        Checked { id, target, kind, writes: one, condition, number }
    }
}

impl Shard {
    pub(crate) fn modify(&mut self, ask: &Modify<'_>, io: &mut Io<'_>) -> Outcome {
        let widest = [BatchWrite::Put { key: ask.key, value: &[0; MOST_DIGITS_BYTES] }];
        if let Err(error) = self.admit(&ask.write(&widest, None)) {
            return self.refuse_write(ask.id, error, io);
        }
        let partition = self.catalog.get(ask.target.partition).expect("admit found the partition");
        if let Store::Memory(memory) = &partition.store {
            let present = memory.get(ask.key).map(|(_, value)| value.clone());
            return self.modify_value(ask, present.as_deref(), io);
        }
        if self.log.is_poisoned() {
            return self.refuse_write(ask.id, WriteError::Poisoned, io);
        }
        if let Some(number) = self.log.pending_number(ask.target.partition, ask.key) {
            return self.add(ask, number, io);
        }
        let record_bytes = record_len(ask.key.len(), MOST_DIGITS_BYTES);
        let Modify { id, key, .. } = *ask;
        let dependent =
            Dependent { id, partition: ask.target.partition, key, record_bytes, claim: Claim::Put };
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
        self.modify_value(ask, present.map(|record| record.value), io)
    }

    fn modify_value(&mut self, ask: &Modify<'_>, present: Option<&[u8]>, io: &mut Io<'_>) -> Outcome {
        let Change::Increment { initial, .. } = ask.change;
        match present.map_or(Some(initial), number_of) {
            Some(number) => self.add(ask, number, io),
            None => self.refuse_write(ask.id, WriteError::NotANumber, io),
        }
    }

    fn add(&mut self, ask: &Modify<'_>, present: i64, io: &mut Io<'_>) -> Outcome {
        let Change::Increment { by, .. } = ask.change;
        let Some(number) = present.checked_add(by) else {
            return self.refuse_write(ask.id, WriteError::NumberOverflow { present, by }, io);
        };
        let digits = number.to_string();
        let one = [BatchWrite::Put { key: ask.key, value: digits.as_bytes() }];
        let write = ask.write(&one, Some(number));
        let partition = self.catalog.get(ask.target.partition);
        if partition.is_some_and(|partition| matches!(partition.store, Store::Memory(_))) {
            self.write_memory(&write, io);
            return Outcome::Taken;
        }
        self.append(&write, io)
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
        let quarantine = self.catalog.get(partition).and_then(|p| p.quarantine);
        let Some(location) = self.catalog.locate(partition, key) else {
            if let Some(upto) = quarantine {
                // Absence may be the damage's doing.
                self.refuse_write(id, WriteError::Quarantined { upto }, io);
                return Present::Later;
            }
            return Present::Absent;
        };
        let is_trusted =
            |bytes: &Bytes| Record::decode_unchecked(bytes).is_ok_and(|r| !is_quarantined(quarantine, r.seq));
        if let Some(bytes) = self.cached_record(location).filter(is_trusted) {
            return Present::Record(bytes);
        }
        if self.log.would_lack_segment(ask.record_bytes, ask.claim, &self.space) {
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

    fn wait_for_key(
        &mut self,
        id: RequestId,
        hash: u64,
        frame: Option<crate::ids::FrameNumber>,
        owned: OwnedWrite,
        io: &mut Io<'_>,
    ) {
        let bytes = self.waiting_bytes + owned.bytes();
        let most = (self.config.max_queued_requests, self.config.max_queued_bytes);
        if self.waiting_writes >= most.0 || bytes > most.1 {
            self.refuse_write(id, WriteError::Busy, io);
            return;
        }
        (self.waiting_writes, self.waiting_bytes) = (self.waiting_writes + 1, bytes);
        match (frame, self.deciding.get_mut(&hash)) {
            (_, Some(behind)) => behind.push(owned),
            (Some(frame), None) => self.waiters.push((frame, owned)),
            (None, None) => unreachable!("there is something to wait for"),
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
