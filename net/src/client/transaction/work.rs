//! What a transaction keeps on the client's side: its place, and its writes until they are committed. Pure;
//! shared by both clients.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::client::answer::{self, Page};
use crate::client::call::{Ask, Call, check_batch};
use crate::client::connection::OwnedReply;
use crate::client::error::{BatchError, Failure, TransactionError};
use crate::client::options::{Batch, Lifetime};
use crate::client::{TableOf, WriteError, successor};
use crate::wire::batch::{BATCH_PREFIX_BYTES, BATCH_TTL_BYTES, BATCH_WRITE_HEADER_BYTES};
use crate::wire::control::NodeLimits;
use crate::wire::limits::{MAX_BATCH_BYTES, MAX_BATCH_WRITES};
use crate::wire::{
    BatchWrite, PartitionId, PartitionMap, RangeView, ReadView, ScanView, Status, TransactionId,
};

/// Records and bytes of a page of a transaction's scan.
const PAGE_RECORDS: u32 = 512;
const PAGE_BYTES: u32 = 1024 * 1024;

/// How a transaction is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionOptions {
    /// It writes nothing: it sees one instant, and never conflicts.
    pub read_only: bool,
    /// How long it may live, at most 60 s; `None`: 10 s.
    pub lifetime: Option<Duration>,
}

impl TransactionOptions {
    /// The request that begins it.
    pub(crate) fn ask(&self) -> Ask<'static> {
        let ms = self.lifetime.map_or(0, |lifetime| lifetime.as_millis().max(1));
        Ask::Begin { read_only: self.read_only, lifetime_ms: u32::try_from(ms).unwrap_or(u32::MAX) }
    }
}

/// A range to be scanned or counted in a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionRange<'a> {
    /// First key; empty means from the smallest.
    pub start: &'a [u8],
    /// First key beyond; `None` means to the largest.
    pub end: Option<&'a [u8]>,
    /// Descending order, from the end.
    pub reverse: bool,
    /// Most records; `None` means all.
    pub limit: Option<usize>,
}

/// The client's side of a transaction.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) table: String,
    pub(crate) partition: PartitionId,
    pub(crate) id: TransactionId,
    read_only: bool,
    map: Arc<PartitionMap>,
    writes: BTreeMap<Vec<u8>, Option<(Bytes, Lifetime)>>,
    /// What they take at the commit, in bytes.
    bytes: usize,
    pub(crate) has_ended: bool,
    /// Which of the shard's connections: no other one's requests would find it.
    turn: usize,
}

impl Work {
    pub(crate) fn begun(
        table: &TableOf,
        partition: PartitionId,
        options: &TransactionOptions,
        turn: usize,
        reply: &OwnedReply,
    ) -> Result<Work, TransactionError> {
        answer::of_done(reply).map_err(TransactionError::of_read)?;
        Ok(Work {
            table: table.name.clone(),
            partition,
            id: TransactionId(reply.header.aux),
            read_only: options.read_only,
            map: table.map.clone(),
            writes: BTreeMap::new(),
            bytes: BATCH_PREFIX_BYTES,
            has_ended: false,
            turn,
        })
    }

    /// Refuses a key of another partition.
    pub(crate) fn check(&self, key: &[u8]) -> Result<(), TransactionError> {
        let home = self.map.table(&self.table).and_then(|table| table.partition_of(key));
        match home {
            Some(home) if home.id == self.partition => Ok(()),
            _ => Err(TransactionError::OtherPartition { table: self.table.clone() }),
        }
    }

    pub(crate) fn write(
        &mut self,
        key: &[u8],
        value: Option<(&[u8], Lifetime)>,
    ) -> Result<(), TransactionError> {
        if self.read_only {
            return Err(TransactionError::ReadOnly);
        }
        self.check(key)?;
        let size = |value: Option<(usize, Lifetime)>| {
            let of_value = value.map_or(0, |(len, lifetime)| match lifetime {
                Lifetime::For(_) => BATCH_TTL_BYTES + len,
                Lifetime::Table | Lifetime::Forever => len,
            });
            BATCH_WRITE_HEADER_BYTES + key.len() + of_value
        };
        let present =
            self.writes.get(key).map(|put| put.as_ref().map(|(value, lifetime)| (value.len(), *lifetime)));
        let present = present.map(size);
        let bytes =
            self.bytes - present.unwrap_or(0) + size(value.map(|(value, lifetime)| (value.len(), lifetime)));
        let writes = self.writes.len() + usize::from(present.is_none());
        // No node takes more at a commit: to keep it until then would only take memory.
        let (max_writes, max_bytes) = (MAX_BATCH_WRITES, MAX_BATCH_BYTES);
        if writes > max_writes || bytes > max_bytes {
            return Err(TransactionError::Size { writes, bytes, max_writes, max_bytes });
        }
        self.bytes = bytes;
        let value = value.map(|(value, lifetime)| (Bytes::copy_from_slice(value), lifetime));
        self.writes.insert(key.to_vec(), value);
        Ok(())
    }

    /// What it has written itself.
    pub(crate) fn own(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let put = self.writes.get(key)?.as_ref();
        Some(put.map(|(value, _)| value.clone()))
    }

    fn call<'a>(&'a self, ask: Ask<'a>) -> Call<'a> {
        Call::on_partition(&self.table, self.partition, ask).by_turn(self.turn)
    }

    pub(crate) fn read<'a>(&'a self, read: ReadView<'a>) -> Call<'a> {
        self.call(Ask::Within { transaction: self.id, read })
    }

    pub(crate) fn rollback(&self) -> Call<'_> {
        self.call(Ask::Rollback { transaction: self.id })
    }

    /// Its own writes in a range.
    fn own_in(
        &self,
        range: RangeView<'_>,
    ) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Option<(Bytes, Lifetime)>)> {
        let is_void = range.end.is_some_and(|end| end <= range.start);
        let end = if is_void { range.start } else { range.end.unwrap_or_default() };
        let to = if range.end.is_some() { Bound::Excluded(end) } else { Bound::Unbounded };
        let from = if is_void { Bound::Excluded(range.start) } else { Bound::Included(range.start) };
        let to = if is_void { Bound::Included(range.start) } else { to };
        self.writes.range::<[u8], _>((from, to))
    }

    /// Keys whose presence on the node a count must know: those that it writes itself.
    pub(crate) fn own_keys(&self, range: RangeView<'_>) -> Vec<Vec<u8>> {
        self.own_in(range).map(|(key, _)| key.clone()).collect()
    }

    /// The count of a range, of which `on_node` are on the node, `hidden` of them written anew or deleted here.
    pub(crate) fn count(&self, range: RangeView<'_>, on_node: u64, hidden: u64) -> u64 {
        // What a node says is not to be trusted with an overflow.
        on_node.saturating_sub(hidden)
            + self.own_in(range).filter(|(_, value)| value.is_some()).count() as u64
    }

    /// Its writes, as they are sent.
    pub(crate) fn batch(&self, limits: &NodeLimits) -> Result<Batch, TransactionError> {
        let mut batch = Batch::new();
        for (key, value) in &self.writes {
            batch.push(match value {
                Some((value, lifetime)) => BatchWrite::put(key, value, lifetime.to_wire()),
                None => BatchWrite::Delete { key },
            });
        }
        if batch.is_empty() && batch.misfit.is_none() {
            return Ok(batch);
        }
        check_batch(&batch, limits).map_err(|error| match error {
            BatchError::Write(error) => TransactionError::Write(error),
            BatchError::Size { writes, bytes, max_writes, max_bytes } => {
                TransactionError::Size { writes, bytes, max_writes, max_bytes }
            }
            BatchError::SpansPartitions { table } => TransactionError::OtherPartition { table },
        })?;
        Ok(batch)
    }

    pub(crate) fn commit<'a>(&'a self, batch: &'a Batch) -> Call<'a> {
        self.call(Ask::Commit { transaction: self.id, batch: batch.view() })
    }

    /// What became of the commit.
    pub(crate) fn committed(
        &mut self,
        reply: Result<OwnedReply, Failure>,
    ) -> Result<crate::client::Written, TransactionError> {
        let reply = reply.map_err(TransactionError::of_write)?;
        let status = reply.status();
        self.has_ended =
            matches!(status, Status::Ok | Status::MayReturn | Status::Conflict | Status::TransactionEnded);
        if status == Status::Conflict {
            return Err(TransactionError::Conflict { key: reply.body });
        }
        answer::of_write(&reply).map_err(TransactionError::of_write)
    }
}

/// A scan of a transaction, page by page: what the node has, and what was written here.
#[derive(Debug)]
pub(crate) struct Pages {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    reverse: bool,
    left: usize,
    is_over: bool,
    pub(crate) records: Vec<(Bytes, Bytes)>,
}

impl Pages {
    pub(crate) fn new(range: &TransactionRange<'_>) -> Pages {
        Pages {
            start: range.start.to_vec(),
            end: range.end.map(<[u8]>::to_vec),
            reverse: range.reverse,
            left: range.limit.unwrap_or(usize::MAX),
            is_over: false,
            records: Vec::new(),
        }
    }

    fn range(&self) -> RangeView<'_> {
        RangeView { start: &self.start, end: self.end.as_deref() }
    }

    /// The next page to ask for.
    pub(crate) fn next(&self) -> Option<ReadView<'_>> {
        let limit = u32::try_from(self.left).unwrap_or(u32::MAX).min(PAGE_RECORDS);
        let scan = ScanView {
            range: self.range(),
            reverse: self.reverse,
            keys_only: false,
            ttls: false,
            limit,
            byte_budget: PAGE_BYTES,
        };
        (!self.is_over && self.left > 0).then_some(ReadView::Scan(scan))
    }

    /// Takes a page in.
    pub(crate) fn feed(&mut self, work: &Work, page: Page) -> Result<(), Failure> {
        let last = page.records.last().map(|record| record.key.to_vec());
        if page.more && last.is_none() {
            return Err(Failure::BadReply("a page of no records says that there are more"));
        }
        let last = last.filter(|_| page.more);
        // What the page speaks for: up to its last key, where there is more.
        let behind = last.as_deref().and_then(successor);
        let covered = match (&last, self.reverse) {
            (None, _) => self.range(),
            (Some(_), false) => RangeView { start: &self.start, end: behind.as_deref() },
            (Some(last), true) => RangeView { start: last, end: self.end.as_deref() },
        };
        let on_node = page.records.into_iter().map(|record| (record.key, record.value));
        let mut merged: BTreeMap<Bytes, Bytes> = on_node.collect();
        for (key, value) in work.own_in(covered) {
            match value {
                Some((value, _)) => drop(merged.insert(Bytes::copy_from_slice(key), value.clone())),
                None => drop(merged.remove(key.as_slice())),
            }
        }
        let taken = self.left.min(merged.len());
        self.left -= taken;
        match self.reverse {
            true => self.records.extend(merged.into_iter().rev().take(taken)),
            false => self.records.extend(merged.into_iter().take(taken)),
        }
        match (last, behind, self.reverse) {
            (Some(last), _, true) => self.end = Some(last),
            (Some(_), Some(behind), false) => self.start = behind,
            // Nothing is behind the largest key that may be.
            _ => self.is_over = true,
        }
        Ok(())
    }
}

/// The range of one key.
pub(crate) fn key_range(key: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.to_vec(), successor(key))
}

/// A table that cannot be found, in a transaction's words.
pub(crate) fn of_table(failure: Failure) -> TransactionError {
    TransactionError::Write(WriteError::from(failure))
}
