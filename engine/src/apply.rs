//! The effect of a durable record on the index: the same code for a running log and for recovery. Of a
//! partition that is not loaded, changes are kept until it is.

use crate::cache::ReadCache;
use crate::catalog::Catalog;
use crate::format::catalog::CatalogChange;
use crate::format::record::{Record, RecordKind};
use crate::ids::{PartitionId, SegmentId, WallMs};
use crate::loading::kept::Change;
use crate::location::Location;
use crate::space::Space;

/// What records act on.
pub struct Effects<'a> {
    /// The partitions and their indexes.
    pub catalog: &'a mut Catalog,
    /// The segments' live bytes.
    pub space: &'a mut Space,
    /// Forgets what died.
    pub cache: &'a mut ReadCache,
    /// Records that expire by then are no more. During recovery nothing is: it all comes to light then.
    pub now: WallMs,
}

impl Effects<'_> {
    /// Applies a user's record that lies at `location`. Says whether the key had a record before.
    /// A record of a partition that is no more has no effect.
    pub fn user(&mut self, record: &Record<'_>, location: Location) -> bool {
        let was_expired = self.catalog.is_expired(record.partition, record.key, self.now);
        self.put_or_delete(record, location) && !was_expired
    }

    fn put_or_delete(&mut self, record: &Record<'_>, location: Location) -> bool {
        let Record { partition, key, expires, .. } = *record;
        match record.kind {
            RecordKind::Put => {
                if self.catalog.keep(partition, Change::Put { key, location, expires }) {
                    self.space.note_written(location, self.space.clock.now());
                    self.space.note_replaced(location, None);
                    return false;
                }
                let Some(old) = self.insert(partition, key, location, expires) else {
                    self.space.note_replaced(location, None);
                    return false;
                };
                let replaced = old.map(|old| self.space.written_at(self.space.of(old).0));
                self.space.note_written(location, self.space.clock.now());
                self.space.note_replaced(location, replaced);
                self.died(old)
            }
            RecordKind::Delete => {
                self.space.note_replaced(location, None);
                !self.catalog.keep(partition, Change::Delete { key }) && self.remove(partition, key)
            }
            RecordKind::Catalog => {
                self.space.note_replaced(location, None);
                // A whole record with a change that does not decode was written by no version of ours.
                if let Some(change) = CatalogChange::decode(record.value) {
                    self.catalog.apply(change);
                }
                false
            }
        }
    }

    /// Puts a record into the index, and gives the one that it replaces; `None` where there is no such
    /// partition.
    fn insert(
        &mut self,
        partition: PartitionId,
        key: &[u8],
        location: Location,
        expires: Option<WallMs>,
    ) -> Option<Option<Location>> {
        let old = self.catalog.with_index(partition, |index, bytes| {
            let old = index.insert(key, location);
            *bytes = *bytes + u64::from(location.room()) - old.map_or(0, |old| u64::from(old.room()));
            old
        })?;
        self.catalog.set_expiry(partition, key, expires);
        self.space.add_live(location);
        Some(old)
    }

    /// Makes a change that was kept until the partition's index was there.
    pub fn kept(&mut self, partition: PartitionId, change: &Change<'_>) {
        match *change {
            Change::Put { key, location, expires } => {
                if let Some(old) = self.insert(partition, key, location, expires) {
                    self.died(old);
                }
            }
            Change::Delete { key } => {
                self.remove(partition, key);
            }
            Change::Moved { key, location, source } => {
                self.relocate(partition, key, location, source);
            }
            // The image may say so of a record that was gone when its leaf was written.
            Change::Expires { key, at } => {
                if self.catalog.locate(partition, key).is_some() {
                    self.catalog.set_expiry(partition, key, Some(at));
                }
            }
        }
    }

    fn remove(&mut self, partition: PartitionId, key: &[u8]) -> bool {
        let remove = self.catalog.with_index(partition, |index, bytes| {
            let old = index.remove(key);
            *bytes -= old.map_or(0, |old| u64::from(old.room()));
            old
        });
        self.catalog.set_expiry(partition, key, None);
        self.died(remove.flatten())
    }

    /// Takes a record out whose time is over, of a durable or of a memory table.
    pub fn expired(&mut self, partition: PartitionId, key: &[u8]) {
        assert!(self.catalog.is_expired(partition, key, self.now), "only what is due is taken out");
        self.catalog.remove_from_memory(partition, key);
        self.remove(partition, key);
    }

    /// Applies a record that cleaning copied from `source`: only if the index still points there.
    /// Says whether it did.
    pub fn relocated(&mut self, record: &Record<'_>, location: Location, source: SegmentId) -> bool {
        let Record { partition, key, .. } = *record;
        let written_at = self.space.clock.at(record.seq.wall_ns);
        if self.catalog.keep(partition, Change::Moved { key, location, source }) {
            self.space.note_written(location, written_at);
            return false;
        }
        let has_moved = self.relocate(partition, key, location, source);
        if has_moved {
            self.space.note_written(location, written_at);
        }
        has_moved
    }

    fn relocate(
        &mut self,
        partition: PartitionId,
        key: &[u8],
        location: Location,
        source: SegmentId,
    ) -> bool {
        let space = &*self.space;
        let moved = self.catalog.with_index(partition, |index, _| {
            let old = index.get(key)?;
            if space.of(old).0 != source || old.room() != location.room() {
                return None;
            }
            index.insert(key, location);
            Some(old)
        });
        let Some(old) = moved.flatten() else { return false };
        self.space.add_live(location);
        self.died(Some(old))
    }

    fn died(&mut self, old: Option<Location>) -> bool {
        let Some(old) = old else { return false };
        let generation = self.space.of(old).1.generation;
        self.cache.remove(old, generation);
        self.space.remove_live(old);
        true
    }
}
