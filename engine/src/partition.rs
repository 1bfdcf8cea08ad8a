//! One partition: its range, its records' index or the records themselves, its counters.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::expiry::Expiries;
use crate::ids::{Seq, WallMs};
use crate::index::{IndexArena, PartitionIndex};
use crate::loading::PartitionImage;
use crate::prefetch::prefetch;
use crate::quota::Quota;
use crate::request::{KeyRange, PartitionSpec, Placement, StoreKind, TableSpec};
use crate::writes::INDEX_ENTRY_ESTIMATE_BYTES;

/// Bytes of memory that a record of a memory table costs beside key and value.
const MEMORY_RECORD_OVERHEAD_BYTES: u64 = 96;

/// A partition.
pub struct Partition {
    /// As it was made.
    pub spec: PartitionSpec,
    /// How its table maps keys.
    pub placement: Placement,
    /// The first bytes of its range's start and end, as numbers.
    start_head: u64,
    end_head: u64,
    /// What it holds.
    pub store: Store,
    /// Bytes of its records, headers counted.
    pub bytes: u64,
    /// How long its records live unless they say otherwise, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Its records that expire; nothing where there are none.
    pub expiries: Option<Box<Expiries>>,
    /// What is known of it while it is not loaded.
    pub image: Option<Box<PartitionImage>>,
    /// Requests of late: what a start loads first.
    requests: Cell<u32>,
    /// Reads that scans needed as its records do not lie together, since they were last written again.
    pub wasted_reads: Cell<u64>,
    /// Writes up to this version may have been lost to damage: older records are not to be trusted,
    /// and absence is not to be believed.
    pub quarantine: Option<Seq>,
    /// Its own quota, where it has one; else its table's counts.
    pub quota: Option<Box<Quota>>,
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
            StoreKind::Durable => Store::Durable(table.index.new_index()),
            StoreKind::Memory => Store::Memory(MemoryStore::default()),
        };
        let (placement, ttl_ms) = (table.placement, table.ttl_ms);
        let start_head = head_of(&spec.start);
        let end_head = spec.end.as_deref().map_or(u64::MAX, head_of);
        Partition {
            spec,
            placement,
            start_head,
            end_head,
            store,
            bytes: 0,
            ttl_ms,
            expiries: None,
            image: None,
            requests: Cell::new(0),
            wasted_reads: Cell::new(0),
            quarantine: None,
            quota: None,
        }
    }

    /// A request has come for it.
    pub fn note_request(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
    }

    /// Requests of late, by which an image is ordered.
    pub fn hotness(&self) -> u32 {
        self.requests.get()
    }

    /// Sets how many requests there were of late.
    pub fn set_hotness(&self, requests: u32) {
        self.requests.set(requests);
    }

    /// Whether the partition's range covers the key.
    pub fn covers(&self, key: &[u8]) -> bool {
        let head = match self.placement {
            Placement::Range => head_of(key),
            Placement::Hash => u64::from(crc32c::crc32c(key)) << 32,
        };
        // Strictly between the two, no more bytes need be looked at, and none of the spec's memory.
        (self.start_head < head && head < self.end_head) || self.covers_at_border(key)
    }

    /// Asks for most of what a get reads of it.
    pub fn prefetch(&self) {
        prefetch(&self.spec.epoch);
        prefetch(&self.start_head);
        prefetch(&self.end_head);
        prefetch(&self.store);
        prefetch(&self.expiries);
        prefetch(&self.ttl_ms);
    }

    /// The same, by all bytes.
    fn covers_at_border(&self, key: &[u8]) -> bool {
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

    /// The keys whose records have become due after one time and until another, and are not taken out yet.
    pub fn due_between(&self, after: WallMs, until: WallMs) -> impl Iterator<Item = &[u8]> {
        self.expiries.iter().flat_map(move |expiries| expiries.due_between(after, until))
    }

    /// The records behind a key that expire, in the order of keys, and when.
    pub fn expiries_after(&self, last_key: &[u8]) -> impl Iterator<Item = (&[u8], WallMs)> {
        self.expiries.iter().flat_map(move |expiries| expiries.after(last_key))
    }

    /// Bytes of memory of what is known of records that expire.
    pub fn expiry_bytes(&self) -> u64 {
        self.expiries.as_ref().map_or(0, |expiries| expiries.memory_bytes())
    }

    /// Bytes on the drive of the record that a put replaces, and bytes of memory that it needs more; taken
    /// for a new key unless `exact`.
    pub fn growth_of(&self, arena: &IndexArena, key: &[u8], value: &[u8], exact: bool) -> (u64, u64) {
        let new_key = key.len() as u64 + INDEX_ENTRY_ESTIMATE_BYTES;
        match &self.store {
            // Near the limit, what may be replaced counts as replaced.
            Store::Durable(index) => match if exact { index.first_candidate(arena, key) } else { None } {
                Some(old) => (u64::from(old.room()), 0),
                None => (0, new_key),
            },
            Store::Memory(memory) => match if exact { memory.get(key) } else { None } {
                Some((_, old)) => (0, (value.len() as u64).saturating_sub(old.len() as u64)),
                None => (0, memory_record_bytes(key.len(), value.len())),
            },
        }
    }

    /// Whether its index is a compact one.
    pub fn is_compact(&self) -> bool {
        matches!(&self.store, Store::Durable(index) if index.is_compact())
    }

    /// Records in it; while it is not loaded, as many as its image has.
    pub fn records(&self) -> u64 {
        if let Some(image) = self.image.as_ref().filter(|image| image.is_outside()) {
            return image.entry.records;
        }
        match &self.store {
            Store::Durable(index) => index.len(),
            Store::Memory(memory) => memory.records.len() as u64,
        }
    }
}

/// The first eight bytes as a number, in the order of the bytes: a smaller one means a smaller key, equal ones
/// tell nothing.
fn head_of(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(head.len());
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
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
        self.memory_bytes += memory_record_bytes(key.len(), value.len());
        if let Some((_, old)) = &before {
            self.memory_bytes -= memory_record_bytes(key.len(), old.len());
        }
        before
    }

    /// Deletes a record; gives it.
    pub fn remove(&mut self, key: &[u8]) -> Option<(Seq, Bytes)> {
        let before = self.records.remove(key);
        if let Some((_, old)) = &before {
            self.memory_bytes -= memory_record_bytes(key.len(), old.len());
        }
        before
    }

    /// Gives so many records back, or those of so many bytes; says whether there are no more.
    pub fn drain_some(&mut self, most: usize, most_bytes: u64) -> bool {
        let least = self.memory_bytes.saturating_sub(most_bytes);
        for _ in 0..most {
            let Some((key, (_, value))) = self.records.pop_first() else { break };
            self.memory_bytes -= memory_record_bytes(key.len(), value.len());
            if self.memory_bytes <= least {
                break;
            }
        }
        self.records.is_empty()
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

/// Bytes of memory that a record of a memory table takes.
pub fn memory_record_bytes(key_len: usize, value_len: usize) -> u64 {
    (key_len + value_len) as u64 + MEMORY_RECORD_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, PartitionId, TableId};

    #[test]
    fn a_memory_table_is_given_back_by_number_and_by_bytes() {
        let mut store = MemoryStore::default();
        for i in 0..100u32 {
            store.insert(&i.to_be_bytes(), Seq::default(), &[0; 1000]);
        }
        let each = store.memory_bytes() / 100;
        for (most, most_bytes, left) in
            [(10, u64::MAX, 90), (1000, 3 * each, 87), (1000, 3 * each + 1, 83), (1, 0, 82)]
        {
            assert!(!store.drain_some(most, most_bytes));
            assert_eq!(store.memory_bytes(), left * each, "{most} or {most_bytes} bytes");
        }
        assert!(store.drain_some(82, u64::MAX) && store.memory_bytes() == 0);
    }

    fn partition(placement: Placement, start: &[u8], end: Option<&[u8]>) -> Partition {
        let (id, store) = (TableId(1), StoreKind::Durable);
        let table = TableSpec {
            id,
            name: "t".into(),
            store,
            placement,
            ttl_ms: None,
            index: crate::IndexKind::Full,
            quota: Quota::default(),
        };
        let (start, end) = (start.to_vec(), end.map(<[u8]>::to_vec));
        let spec = PartitionSpec { id: PartitionId(1), table: id, epoch: Epoch(1), start, end };
        Partition::new(spec, &table)
    }

    #[test]
    fn the_first_bytes_of_a_range_decide_as_all_of_them_would() {
        // Bounds and keys that differ in, at and behind the eighth byte, and zeros that look like padding.
        let bytes: [&[u8]; 12] = [
            b"",
            b"a",
            b"a\0",
            b"a\0\0\0\0\0\0\0\0",
            b"abcdefg",
            b"abcdefg\0",
            b"abcdefgh",
            b"abcdefgh\0",
            b"abcdefghi",
            b"b",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        for start in bytes {
            for end in bytes.map(Some).into_iter().chain([None]) {
                let partition = partition(Placement::Range, start, end);
                for key in &bytes[1..] {
                    let covered = start <= *key && end.is_none_or(|end| *key < end);
                    assert_eq!(partition.covers(key), covered, "{key:?} in {start:?}..{end:?}");
                }
            }
        }
    }

    #[test]
    fn a_hash_lies_in_one_of_two_neighbours() {
        for border in [[0, 0, 0, 1], [0x80, 0, 0, 0], [0xff; 4]] {
            let (low, high) =
                (partition(Placement::Hash, b"", Some(&border)), partition(Placement::Hash, &border, None));
            for i in 0..10_000_u32 {
                let key = i.to_le_bytes();
                let above = crc32c::crc32c(&key).to_be_bytes() >= border;
                assert_eq!((low.covers(&key), high.covers(&key)), (!above, above), "{key:?} at {border:?}");
            }
        }
    }
}
