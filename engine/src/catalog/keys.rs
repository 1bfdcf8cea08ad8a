//! A partition's index by keys, of either kind.

use super::Catalog;
use crate::ids::PartitionId;
use crate::index::{Candidates, IndexArena, Keys, Need, PartitionIndex, Set};
use crate::limits::MAX_SCAN_RECORDS;
use crate::location::Location;
use crate::partition::{Partition, Store, bounds};
use crate::request::KeyRange;

/// Entries of a compact index that are looked at for the one of a location: those of a page, and as many as may be tied before it.
const MOST_OF_A_PAGE: usize = MAX_SCAN_RECORDS + 1024;

/// A partition's index and the arena of its nodes, to be changed.
pub struct IndexChange<'a> {
    pub(super) index: &'a mut PartitionIndex,
    pub(super) arena: &'a mut IndexArena,
}

impl IndexChange<'_> {
    /// Sets the location of `key`, and returns the one that it had.
    pub fn set(&mut self, key: &[u8], location: Location, keys: &dyn Keys) -> Result<Set, Need> {
        if self.index.is_compact() {
            return self.index.set(self.arena, key, location, keys);
        }
        Ok(Set { old: self.index.insert(self.arena, key, location), crowded: None })
    }

    /// Takes `key` out, and returns the location that it had.
    pub fn unset(&mut self, key: &[u8], keys: &dyn Keys) -> Result<Option<Location>, Need> {
        if self.index.is_compact() {
            return self.index.unset(self.arena, key, keys);
        }
        Ok(self.index.remove(self.arena, key))
    }

    /// Takes the record of `key` out that lies there. Says whether it did.
    pub fn unset_at(&mut self, key: &[u8], location: Location) -> bool {
        self.index.unset_at(self.arena, key, location)
    }

    /// The record of `key` has moved. Says whether it was at the first location.
    pub fn relocate(&mut self, key: &[u8], from: Location, to: Location) -> bool {
        self.index.relocate(self.arena, key, from, to)
    }

    /// Tells more of the keys in the leaf of `key` apart.
    pub fn refine(&mut self, key: &[u8], keys: &dyn Keys) -> Result<(), Need> {
        self.index.refine(self.arena, key, keys)
    }

    /// The index is being written into an image: the next leaf was taken.
    pub fn leaf_imaged(&mut self) {
        self.index.leaf_imaged(self.arena);
    }

    /// An image of the index begins.
    pub fn begin_image(&mut self) {
        self.index.begin_image();
    }
}

impl Catalog {
    /// Where a durable record lies; of a compact index, if the keys that it takes are known.
    pub fn find(&self, id: PartitionId, key: &[u8], keys: &dyn Keys) -> Result<Option<Location>, Need> {
        match self.partitions.get(id).map(|partition| &partition.store) {
            Some(Store::Durable(index)) => index.find(&self.arena, key, keys),
            Some(Store::Memory(_)) | None => Ok(None),
        }
    }

    /// Where a durable record may lie.
    pub fn candidates(&self, id: PartitionId, key: &[u8]) -> Candidates {
        match self.partitions.get(id).map(|partition| &partition.store) {
            Some(Store::Durable(index)) => index.candidates(&self.arena, key),
            Some(Store::Memory(_)) | None => Candidates::none(),
        }
    }

    /// Whether the record with this key that lies there is the present one.
    pub fn holds(&self, id: PartitionId, key: &[u8], location: Location) -> bool {
        match self.partitions.get(id).map(|partition| &partition.store) {
            Some(Store::Durable(index)) => index.holds(&self.arena, key, location),
            Some(Store::Memory(_)) | None => false,
        }
    }

    /// What the index knows of the key of a record that it has there, on a page of this range (downwards or not), and whether
    /// that is all of it.
    pub fn known_key(
        &self,
        id: PartitionId,
        (range, reverse): (KeyRange<'_>, bool),
        location: Location,
    ) -> Option<(Vec<u8>, bool)> {
        let Store::Durable(index) = &self.partitions.get(id)?.store else { return None };
        let (start, end) = bounds(&range);
        let found = |(known, is_whole, at): (&[u8], bool, Location)| {
            (at == location).then(|| (known.to_vec(), is_whole))
        };
        if reverse {
            let mut entries = index.iter_rev(&self.arena, start, end);
            return (0..MOST_OF_A_PAGE).find_map(|_| entries.next_known().and_then(found));
        }
        let mut entries = index.iter(&self.arena, start, end);
        (0..MOST_OF_A_PAGE).find_map(|_| entries.next_known().and_then(found))
    }

    /// Whether a partition's index is a compact one.
    pub fn is_compact(&self, id: PartitionId) -> bool {
        self.has_compact() && self.partitions.get(id).is_some_and(Partition::is_compact)
    }

    /// Whether there are compact indexes at all.
    pub fn has_compact(&self) -> bool {
        self.compact > 0
    }
}
