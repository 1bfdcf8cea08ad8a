//! One partition: its range, its records' index or the records themselves, its counters.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::expiry::Expiries;
use crate::ids::{Seq, WallMs};
use crate::index::PartitionIndex;
use crate::request::{KeyRange, PartitionSpec, Placement, StoreKind, TableSpec};

/// Bytes of memory that a record of a memory table costs beside key and value.
const MEMORY_RECORD_OVERHEAD_BYTES: u64 = 96;

/// A partition.
pub struct Partition {
    /// As it was made.
    pub spec: PartitionSpec,
    /// How its table maps keys.
    pub placement: Placement,
    /// What it holds.
    pub store: Store,
    /// Bytes of its records, headers counted.
    pub bytes: u64,
    /// How long its records live unless they say otherwise, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Its records that expire; nothing where there are none.
    pub expiries: Option<Box<Expiries>>,
    /// Writes up to this version may have been lost to damage: older records are not to be trusted,
    /// and absence is not to be believed.
    pub quarantine: Option<Seq>,
}

/// Where a partition's records are.
pub enum Store {
    /// On the drive; the index says where.
    Durable(PartitionIndex),
    /// Here.
    Memory(MemoryStore),
}

impl Partition {
    /// Empty.
    pub fn new(spec: PartitionSpec, table: &TableSpec) -> Partition {
        let store = match table.store {
            StoreKind::Durable => Store::Durable(PartitionIndex::new()),
            StoreKind::Memory => Store::Memory(MemoryStore::default()),
        };
        let (placement, ttl_ms) = (table.placement, table.ttl_ms);
        Partition { spec, placement, store, bytes: 0, ttl_ms, expiries: None, quarantine: None }
    }

    /// Whether the partition's range covers the key.
    pub fn covers(&self, key: &[u8]) -> bool {
        let hash;
        let point: &[u8] = match self.placement {
            Placement::Range => key,
            Placement::Hash => {
                hash = crc32c::crc32c(key).to_be_bytes();
                &hash
            }
        };
        self.spec.start.as_slice() <= point && self.spec.end.as_deref().is_none_or(|end| point < end)
    }

    /// When a record expires; `None` where it never does, or is not there.
    pub fn expiry_of(&self, key: &[u8]) -> Option<WallMs> {
        self.expiries.as_ref()?.of(key)
    }

    /// Whether a record's time is over, though it is not taken out yet. Looks for the key only where there
    /// are such records.
    pub fn is_expired(&self, key: &[u8], now: WallMs) -> bool {
        let Some(expiries) = &self.expiries else { return false };
        expiries.first().is_some_and(|first| first <= now) && expiries.of(key).is_some_and(|at| at <= now)
    }

    /// How many records of a range are due and not taken out yet.
    pub fn due_in(&self, range: &KeyRange<'_>, now: WallMs) -> u64 {
        self.expiries.as_ref().map_or(0, |expiries| expiries.due_in(range, now))
    }

    /// Records in it.
    pub fn records(&self) -> u64 {
        match &self.store {
            Store::Durable(index) => index.len(),
            Store::Memory(memory) => memory.records.len() as u64,
        }
    }
}

/// A range as bounds.
pub fn bounds<'a>(range: &KeyRange<'a>) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    let start = if range.start.is_empty() { Bound::Unbounded } else { Bound::Included(range.start) };
    (start, range.end.map_or(Bound::Unbounded, Bound::Excluded))
}

/// The records of a memory partition.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: BTreeMap<Box<[u8]>, (Seq, Bytes)>,
    memory_bytes: u64,
}

impl MemoryStore {
    /// One record.
    pub fn get(&self, key: &[u8]) -> Option<&(Seq, Bytes)> {
        self.records.get(key)
    }

    /// Writes a record; gives the one before.
    pub fn insert(&mut self, key: &[u8], seq: Seq, value: &[u8]) -> Option<(Seq, Bytes)> {
        let before = self.records.insert(key.into(), (seq, Bytes::copy_from_slice(value)));
        self.memory_bytes += cost(key.len(), value.len());
        if let Some((_, old)) = &before {
            self.memory_bytes -= cost(key.len(), old.len());
        }
        before
    }

    /// Deletes a record; gives it.
    pub fn remove(&mut self, key: &[u8]) -> Option<(Seq, Bytes)> {
        let before = self.records.remove(key);
        if let Some((_, old)) = &before {
            self.memory_bytes -= cost(key.len(), old.len());
        }
        before
    }

    /// Bytes of memory it takes, by estimate of the allocator's overhead.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// How many records a range holds.
    pub fn count(&self, range: &KeyRange<'_>) -> u64 {
        if is_void(range) { 0 } else { self.records.range::<[u8], _>(bounds(range)).count() as u64 }
    }

    /// Calls `each` for the records of a range in the order asked for, until it says no.
    pub fn visit(
        &self,
        range: &KeyRange<'_>,
        reverse: bool,
        mut each: impl FnMut(&[u8], Seq, &Bytes) -> bool,
    ) {
        if is_void(range) {
            return;
        }
        let mut records = self.records.range::<[u8], _>(bounds(range));
        loop {
            let next = if reverse { records.next_back() } else { records.next() };
            let Some((key, (seq, value))) = next else { return };
            if !each(key, *seq, value) {
                return;
            }
        }
    }
}

/// Whether a range can hold nothing (the standard map does not take such ranges).
pub fn is_void(range: &KeyRange<'_>) -> bool {
    range.end.is_some_and(|end| end <= range.start)
}

fn cost(key_len: usize, value_len: usize) -> u64 {
    (key_len + value_len) as u64 + MEMORY_RECORD_OVERHEAD_BYTES
}
