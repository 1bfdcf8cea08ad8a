//! The tables and partitions of a shard.

mod keys;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::keys::IndexChange;
use crate::expiry::{Expiries, is_ttl};
use crate::format::catalog::CatalogChange;
use crate::format::image::DirectoryEntry;
use crate::format::record::record_len;
use crate::ids::{PartitionId, Seq, TableId, WallMs};
use crate::index::{IndexArena, PartitionIndex};
use crate::limits::{MAX_KEY_BYTES, MAX_TABLE_NAME_BYTES};
use crate::loading::kept::{Change, Changes};
use crate::loading::{LoadState, PartitionImage};
use crate::location::Location;
use crate::partition::{MemoryStore, Partition, Store};
use crate::partition_table::PartitionTable;
use crate::quota::Quota;
use crate::reply::{CatalogError, PartitionInfo};
use crate::request::{PartitionSpec, TableSpec};

/// What partitions hold that are not loaded, as their image says.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnloadedTotals {
    /// How many there are.
    pub partitions: u64,
    /// Bytes of their records.
    pub record_bytes: u64,
    /// Bytes of memory that they will take.
    pub memory_bytes: u64,
    /// Their records that expire.
    pub expiring: u64,
}

/// The catalog, and with it all that the partitions hold.
pub struct Catalog {
    tables: BTreeMap<TableId, TableSpec>,
    partitions: PartitionTable,
    /// How many of them are quarantined.
    quarantined: usize,
    /// How many have a compact index.
    compact: usize,
    /// Keys in leaves of theirs in which too many are tied, or which are full of whole keys.
    pub crowded: Vec<(PartitionId, Box<[u8]>)>,
    /// The log is being replayed: partitions with a compact index that are in no image count as not loaded, for what is
    /// changed in them may need reads.
    pub is_replaying: bool,
    /// Partitions whose table's change has not come yet.
    waiting: BTreeMap<TableId, Vec<PartitionSpec>>,
    /// Indexes of dropped partitions, freed bit by bit.
    pub dropping: Vec<PartitionIndex>,
    /// Expiries of dropped partitions, freed bit by bit.
    pub dropping_expiries: Vec<Expiries>,
    /// Records of dropped memory tables, freed bit by bit.
    pub dropping_memory: Vec<MemoryStore>,
    /// The partitions that have records that expire, by when the first does.
    expiring: BTreeSet<(WallMs, PartitionId)>,
    /// Records that expire, dropped ones not counted.
    pub expiring_records: u64,
    /// Bytes of memory of what is known of them.
    pub expiry_bytes: u64,
    /// What partitions hold that are not loaded.
    pub unloaded: UnloadedTotals,
    /// Those of them that were dropped, until those who wait for them are told.
    pub dropped_unloaded: Vec<PartitionId>,
    /// Frames that told of tables may have been lost to damage, and nobody has said yet that none is missing.
    pub may_lack_tables: bool,
    /// Highest ids ever seen.
    pub highest_table: TableId,
    /// Highest ids ever seen.
    pub highest_partition: PartitionId,
    /// The memory of all indexes.
    pub arena: IndexArena,
    /// Bytes of memory of all memory tables.
    pub memory_table_bytes: u64,
    /// Records of all durable partitions.
    pub records: u64,
    /// Bytes that the catalog's changes take in an image.
    pub image_bytes: u64,
}

/// Bytes of free blocks of the indexes that do not count against the limit of memory.
const SPARE_INDEX_BYTES: usize = 8 << 20;

impl Catalog {
    /// Empty.
    pub fn new() -> Catalog {
        Catalog {
            tables: BTreeMap::new(),
            partitions: PartitionTable::default(),
            quarantined: 0,
            compact: 0,
            crowded: Vec::new(),
            is_replaying: true,
            waiting: BTreeMap::new(),
            dropping: Vec::new(),
            dropping_expiries: Vec::new(),
            dropping_memory: Vec::new(),
            expiring: BTreeSet::new(),
            expiring_records: 0,
            expiry_bytes: 0,
            unloaded: UnloadedTotals::default(),
            dropped_unloaded: Vec::new(),
            may_lack_tables: false,
            highest_table: TableId(0),
            highest_partition: PartitionId(0),
            arena: IndexArena::new(),
            memory_table_bytes: 0,
            records: 0,
            image_bytes: 0,
        }
    }

    /// One partition.
    pub fn get(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.get(id)
    }

    /// One partition, to be changed. What changes the sizes of its store goes through
    /// [`with_index`](Catalog::with_index).
    pub fn get_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.partitions.get_mut(id)
    }

    /// Changes a durable partition's index and keeps the totals; `None` where there is no such one.
    pub fn with_index<T>(
        &mut self,
        id: PartitionId,
        change: impl FnOnce(&mut IndexChange<'_>, &mut u64) -> T,
    ) -> Option<T> {
        let partition = self.partitions.get_mut(id)?;
        let Store::Durable(index) = &mut partition.store else { return None };
        let records = index.len();
        let mut index = IndexChange { index, arena: &mut self.arena };
        let result = change(&mut index, &mut partition.bytes);
        let IndexChange { index, .. } = index;
        self.records = self.records + index.len() - records;
        Some(result)
    }

    /// The partitions, those with most requests of late first. What they had counts half from now on.
    pub fn hottest_first(&self) -> Vec<PartitionId> {
        let mut ids: Vec<_> = self.partitions.values().map(|p| (Reverse(p.hotness()), p.spec.id)).collect();
        ids.sort_unstable();
        self.partitions.values().for_each(|p| p.set_hotness(p.hotness() / 2));
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// The partition's index is in the image alone. Says whether there is such a partition.
    pub fn set_image(&mut self, mut entry: DirectoryEntry) -> bool {
        // No partition has so much; one that says so will not be whole when it is loaded.
        for said in
            [&mut entry.records, &mut entry.record_bytes, &mut entry.memory_bytes, &mut entry.expiring]
        {
            *said = (*said).min(Location::MAX_AREA_BYTES);
        }
        let Some(partition) = self.partitions.get_mut(entry.partition) else { return false };
        let is_known = partition.image.as_ref().is_some_and(|image| !image.is_of_nothing());
        if !matches!(partition.store, Store::Durable(_)) || is_known {
            return false;
        }
        let was_unloaded = partition.image.is_some();
        partition.image = Some(Box::new(PartitionImage::new(entry)));
        partition.bytes = entry.record_bytes;
        partition.set_hotness(entry.hotness / 2);
        self.records += entry.records;
        self.unloaded.partitions += u64::from(!was_unloaded);
        self.unloaded.record_bytes += entry.record_bytes;
        self.unloaded.memory_bytes += entry.memory_bytes;
        self.unloaded.expiring += entry.expiring;
        true
    }

    fn forget_unloaded(&mut self, entry: &DirectoryEntry) {
        self.unloaded.partitions -= 1;
        self.unloaded.record_bytes -= entry.record_bytes;
        self.unloaded.memory_bytes -= entry.memory_bytes;
        self.unloaded.expiring -= entry.expiring;
    }

    /// Keeps a change of a partition that is not loaded. Says whether it did.
    pub fn keep(&mut self, id: PartitionId, change: Change<'_>) -> bool {
        let Some(image) = self.partitions.get_mut(id).and_then(|p| p.image.as_deref_mut()) else {
            return false;
        };
        assert!(image.is_outside(), "changes are kept before they are made");
        image.kept.push(change);
        true
    }

    /// A partition's image goes on.
    pub fn set_load_state(&mut self, id: PartitionId, state: LoadState) {
        let Some(partition) = self.partitions.get_mut(id) else { return };
        let Some(image) = &mut partition.image else { return };
        image.advance(state);
        if state == LoadState::Loaded {
            partition.image = None;
        }
    }

    /// The index of a partition is in memory now, with records of so many bytes. Gives the changes that were kept;
    /// `None` where it was dropped meanwhile: then the index goes the way of dropped ones.
    pub fn install(&mut self, id: PartitionId, index: PartitionIndex, bytes: u64) -> Option<Changes> {
        let partition = self.partitions.get_mut(id);
        let Some((partition, image)) = partition.and_then(|p| p.image.take().map(|image| (p, image))) else {
            if !index.is_empty() {
                self.dropping.push(index);
            }
            return None;
        };
        let mut image = image;
        image.advance(LoadState::Settling);
        let kept = std::mem::take(&mut image.kept);
        let entry = image.entry;
        self.records = self.records - entry.records + index.len();
        partition.store = Store::Durable(index);
        partition.bytes = bytes;
        partition.image = Some(image);
        self.forget_unloaded(&entry);
        Some(kept)
    }

    /// A record was written that expires then, or never does, or is gone.
    pub fn set_expiry(&mut self, id: PartitionId, key: &[u8], expires: Option<WallMs>) {
        if expires.is_none() && self.expiring.is_empty() {
            return;
        }
        let Some(partition) = self.partitions.get_mut(id) else { return };
        if expires.is_none() && partition.expiries.is_none() {
            return;
        }
        let expiries = partition.expiries.get_or_insert_default();
        let (first, records, bytes) = (expiries.first(), expiries.len(), expiries.memory_bytes());
        expiries.set(key, expires);
        self.expiring_records = self.expiring_records + expiries.len() - records;
        self.expiry_bytes = self.expiry_bytes + expiries.memory_bytes() - bytes;
        let first_now = expiries.first();
        if first_now.is_none() {
            partition.expiries = None;
        }
        if first != first_now {
            first.into_iter().for_each(|at| assert!(self.expiring.remove(&(at, id)), "it was first"));
            self.expiring.extend(first_now.map(|at| (at, id)));
        }
    }

    /// A record that is due and not taken out yet.
    pub fn first_due(&self, now: WallMs) -> Option<(PartitionId, Arc<[u8]>)> {
        let (_, id) = self.expiring.first().filter(|(at, _)| *at <= now)?;
        let expiries = self.partitions.get(*id)?.expiries.as_ref()?;
        expiries.first_due(now).map(|key| (*id, key))
    }

    /// When the next record expires.
    pub fn first_expiry(&self) -> Option<WallMs> {
        self.expiring.first().map(|(at, _)| *at)
    }

    /// Whether a record's time is over, though it is not taken out yet.
    pub fn is_expired(&self, id: PartitionId, key: &[u8], now: WallMs) -> bool {
        let any_due = self.first_expiry().is_some_and(|first| first <= now);
        any_due && self.partitions.get(id).is_some_and(|partition| partition.is_expired(key, now))
    }

    /// Takes a record of a memory table out.
    pub fn remove_from_memory(&mut self, id: PartitionId, key: &[u8]) {
        let Some(partition) = self.partitions.get_mut(id) else { return };
        let Store::Memory(memory) = &mut partition.store else { return };
        let before = memory.memory_bytes();
        if let Some((_, old)) = memory.remove(key) {
            partition.bytes -= record_len(key.len(), old.len()) as u64;
        }
        self.memory_table_bytes = self.memory_table_bytes + memory.memory_bytes() - before;
    }

    /// What a table is called.
    pub fn table_name(&self, id: TableId) -> Option<&str> {
        self.tables.get(&id).map(|table| table.name.as_str())
    }

    /// The indexes of all durable partitions.
    pub fn indexes(&self) -> impl Iterator<Item = &PartitionIndex> {
        self.partitions.values().filter_map(|partition| match &partition.store {
            Store::Durable(index) => Some(index),
            Store::Memory(_) => None,
        })
    }

    /// The ids of all partitions, ascending.
    pub fn partition_ids(&self) -> Vec<PartitionId> {
        self.partitions.ids()
    }

    fn in_order(&self) -> impl Iterator<Item = &Partition> {
        self.partition_ids().into_iter().filter_map(|id| self.partitions.get(id))
    }

    /// The partitions from an id on, in order.
    pub fn partitions_from(&self, from: PartitionId) -> impl Iterator<Item = &Partition> {
        self.partitions.from(from)
    }

    /// How many partitions are quarantined.
    pub fn quarantined(&self) -> usize {
        self.quarantined
    }

    /// Up to which version writes to a partition may have been lost to damage. Where none is quarantined, no
    /// partition is looked at.
    pub fn quarantine_of(&self, id: PartitionId) -> Option<Seq> {
        if self.quarantined == 0 {
            return None;
        }
        self.partitions.get(id)?.quarantine
    }

    /// Partitions and tables.
    pub fn counts(&self) -> (usize, usize) {
        (self.partitions.len(), self.tables.len())
    }

    /// Records of memory tables.
    pub fn memory_records(&self) -> u64 {
        let memory = |p: &&Partition| matches!(p.store, Store::Memory(_));
        self.partitions.values().filter(memory).map(Partition::records).sum()
    }

    /// Whether something of what was dropped is still to be given back.
    pub fn is_dropping(&self) -> bool {
        !self.dropping.is_empty() || !self.dropping_expiries.is_empty() || !self.dropping_memory.is_empty()
    }

    /// Bytes of memory of all indexes, free blocks and bookkeeping too.
    pub fn index_bytes(&self) -> u64 {
        self.arena.held_bytes() as u64
    }

    /// Bytes of memory that count against the limit: all but some that are free for new nodes, or what is deleted in a
    /// full shard would not make room at once.
    pub fn memory_bytes(&self) -> u64 {
        let held = self.arena.held_bytes().saturating_sub(SPARE_INDEX_BYTES);
        held.max(self.arena.used_bytes()) as u64
            + self.memory_table_bytes
            + self.expiry_bytes
            + self.unloaded.memory_bytes
    }

    /// Whether a table can be made.
    pub fn check_create(
        &self,
        table: &TableSpec,
        partitions: &[PartitionSpec],
        most_partitions: usize,
    ) -> Result<(), CatalogError> {
        if table.name.is_empty() || table.name.len() > MAX_TABLE_NAME_BYTES {
            return Err(CatalogError::NameLength { len: table.name.len() });
        }
        if let Some(ttl_ms) = table.ttl_ms.filter(|ttl_ms| !is_ttl(*ttl_ms)) {
            return Err(CatalogError::BadTtl { ttl_ms });
        }
        check_quota(&table.quota)?;
        if self.tables.contains_key(&table.id) || self.tables.values().any(|t| t.name == table.name) {
            return Err(CatalogError::TableExists);
        }
        if self.partitions.len() + partitions.len() > most_partitions {
            return Err(CatalogError::TooManyPartitions { limit: most_partitions });
        }
        let mut ids: Vec<_> = partitions.iter().map(|spec| spec.id).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(CatalogError::PartitionExists(twice[0]));
        }
        partitions.iter().try_for_each(|spec| self.check_spec(spec, table.id))
    }

    /// Whether a partition can be added to a table.
    pub fn check_create_partition(
        &self,
        spec: &PartitionSpec,
        most_partitions: usize,
    ) -> Result<(), CatalogError> {
        if !self.tables.contains_key(&spec.table) {
            return Err(CatalogError::UnknownTable(spec.table));
        }
        if self.partitions.len() >= most_partitions {
            return Err(CatalogError::TooManyPartitions { limit: most_partitions });
        }
        self.check_spec(spec, spec.table)
    }

    fn check_spec(&self, spec: &PartitionSpec, table: TableId) -> Result<(), CatalogError> {
        if self.partitions.contains(spec.id) {
            return Err(CatalogError::PartitionExists(spec.id));
        }
        if spec.table != table {
            return Err(CatalogError::UnknownTable(spec.table));
        }
        let long = |bound: &[u8]| bound.len() > MAX_KEY_BYTES;
        let end_is_bad = |end: &Vec<u8>| long(end) || *end <= spec.start;
        if spec.id.0 == 0 || long(&spec.start) || spec.end.as_ref().is_some_and(end_is_bad) {
            return Err(CatalogError::BadRange(spec.id));
        }
        Ok(())
    }

    /// Whether a table can be dropped.
    pub fn check_drop(&self, table: TableId) -> Result<(), CatalogError> {
        self.tables.get(&table).map(|_| ()).ok_or(CatalogError::UnknownTable(table))
    }

    /// Takes a durable change into account.
    pub fn apply(&mut self, change: CatalogChange) {
        match change {
            CatalogChange::CreatePartition(spec) => {
                self.highest_partition = self.highest_partition.max(spec.id);
                match self.tables.get(&spec.table) {
                    Some(table) => {
                        if !self.partitions.contains(spec.id) {
                            self.image_bytes += partition_image_bytes(&spec);
                            let mut partition = Partition::new(spec, table);
                            self.compact += usize::from(partition.is_compact());
                            if partition.is_compact() && self.is_replaying {
                                partition.image =
                                    Some(Box::new(PartitionImage::of_nothing(partition.spec.id)));
                                self.unloaded.partitions += 1;
                            }
                            self.partitions.insert(partition);
                        }
                    }
                    None => {
                        self.image_bytes += partition_image_bytes(&spec);
                        self.waiting.entry(spec.table).or_default().push(spec);
                    }
                }
            }
            CatalogChange::CreateTable(spec) => {
                self.highest_table = self.highest_table.max(spec.id);
                let id = spec.id;
                let image_bytes = &mut self.image_bytes;
                self.tables.entry(id).or_insert_with(|| {
                    *image_bytes += table_image_bytes(&spec);
                    spec
                });
                for partition in self.take_waiting(id) {
                    self.apply(CatalogChange::CreatePartition(partition));
                }
            }
            CatalogChange::DropTable(table) => {
                if let Some(spec) = self.tables.remove(&table) {
                    self.image_bytes -= table_image_bytes(&spec);
                }
                self.take_waiting(table);
                let of_table = |p: &Partition| p.spec.table == table;
                let ids: Vec<_> =
                    self.partitions.values().filter(|p| of_table(p)).map(|p| p.spec.id).collect();
                ids.into_iter().for_each(|id| self.drop_partition(id));
            }
            CatalogChange::DropPartition(partition) => self.drop_partition(partition),
            CatalogChange::TableQuota(table, quota) => {
                let Some(spec) = self.tables.get_mut(&table) else { return };
                self.image_bytes -= table_image_bytes(spec);
                spec.quota = quota;
                self.image_bytes += table_image_bytes(spec);
            }
            CatalogChange::PartitionQuota(partition, quota) => {
                let Some(partition) = self.partitions.get_mut(partition) else { return };
                self.image_bytes -= quota_image_bytes(partition.quota.is_some());
                partition.quota = quota.map(Box::new);
                self.image_bytes += quota_image_bytes(partition.quota.is_some());
            }
            CatalogChange::Quarantine(partition, seq) => {
                if let Some(partition) = self.partitions.get_mut(partition) {
                    self.quarantined += usize::from(partition.quarantine.is_none());
                    partition.quarantine = partition.quarantine.max(Some(seq));
                }
            }
        }
    }

    fn drop_partition(&mut self, id: PartitionId) {
        let Some(partition) = self.partitions.remove(id) else { return };
        self.image_bytes -= partition_image_bytes(&partition.spec);
        self.image_bytes -= quota_image_bytes(partition.quota.is_some());
        self.quarantined -= usize::from(partition.quarantine.is_some());
        self.compact -= usize::from(partition.is_compact());
        // There is no room for many, and nobody else would take them out.
        self.crowded.retain(|(of, _)| *of != id);
        if let Some(image) = &partition.image {
            self.dropped_unloaded.push(id);
            if image.is_outside() {
                self.records -= image.entry.records;
                self.forget_unloaded(&image.entry);
            }
        }
        if let Some(expiries) = partition.expiries {
            self.expiring_records -= expiries.len();
            expiries
                .first()
                .into_iter()
                .for_each(|at| assert!(self.expiring.remove(&(at, id)), "it was first"));
            // Their memory is counted until it is given back.
            self.dropping_expiries.push(*expiries);
        }
        match partition.store {
            Store::Durable(index) if index.is_empty() => {}
            Store::Durable(index) => {
                self.records -= index.len();
                // Its memory is counted until it is given back.
                self.dropping.push(index);
            }
            // As is that of a memory table.
            Store::Memory(memory) => self.dropping_memory.push(memory),
        }
    }

    /// No more is to come of tables that were begun: they are forgotten.
    pub fn forget_unfinished(&mut self) {
        let tables: Vec<_> = self.waiting.keys().copied().collect();
        tables.into_iter().for_each(|table| drop(self.take_waiting(table)));
    }

    fn take_waiting(&mut self, table: TableId) -> Vec<PartitionSpec> {
        let waiting = self.waiting.remove(&table).unwrap_or_default();
        self.image_bytes -= waiting.iter().map(partition_image_bytes).sum::<u64>();
        waiting
    }

    /// The changes that make this catalog from nothing, partitions whose table is still to come among
    /// them: the table's own change may be the first that an image lacks.
    pub fn as_changes(&self) -> Vec<CatalogChange> {
        let tables = self.tables.values().cloned().map(CatalogChange::CreateTable);
        let mut changes: Vec<_> = tables.collect();
        let waiting = self.waiting.values().flatten().cloned();
        changes.extend(waiting.map(CatalogChange::CreatePartition));
        for partition in self.in_order() {
            changes.push(CatalogChange::CreatePartition(partition.spec.clone()));
            if let Some(seq) = partition.quarantine {
                changes.push(CatalogChange::Quarantine(partition.spec.id, seq));
            }
            if let Some(quota) = partition.quota.as_deref() {
                changes.push(CatalogChange::PartitionQuota(partition.spec.id, Some(*quota)));
            }
        }
        changes
    }

    /// All tables with their partitions, for a listing.
    pub fn list(&self) -> Vec<(TableSpec, Vec<PartitionInfo>)> {
        let mut by_table: BTreeMap<TableId, Vec<PartitionInfo>> = BTreeMap::new();
        for partition in self.in_order() {
            by_table.entry(partition.spec.table).or_default().push(PartitionInfo {
                spec: partition.spec.clone(),
                records: partition.records(),
                bytes: partition.bytes,
                quota: partition.quota.as_deref().copied(),
            });
        }
        let with_partitions =
            |table: &TableSpec| (table.clone(), by_table.remove(&table.id).unwrap_or_default());
        self.tables.values().map(with_partitions).collect()
    }
}

/// Bytes that a partition's change takes in an image, and that of its quarantine.
fn partition_image_bytes(spec: &PartitionSpec) -> u64 {
    42 + (spec.start.len() + spec.end.as_ref().map_or(0, Vec::len)) as u64
}

/// Bytes that a table's change takes in an image.
fn table_image_bytes(spec: &TableSpec) -> u64 {
    let quota = if spec.quota == Quota::default() { 0 } else { Quota::BYTES as u64 };
    19 + spec.name.len() as u64 + quota
}

/// Bytes that a partition's own quota takes in an image.
fn quota_image_bytes(has_one: bool) -> u64 {
    if has_one { 7 + Quota::BYTES as u64 } else { 0 }
}

/// Whether a quota can be set.
pub fn check_quota(quota: &Quota) -> Result<(), CatalogError> {
    if quota.is_sound() { Ok(()) } else { Err(CatalogError::BadQuota { quota: *quota }) }
}
