//! A partition's index by keys, of either kind.

use super::Catalog;
use crate::ids::PartitionId;
use crate::index::{Candidates, IndexArena, Keys, Need, PartitionIndex, Set};
use crate::location::Location;
use crate::partition::{Partition, Store};

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

    /// Whether a partition's index is a compact one.
    pub fn is_compact(&self, id: PartitionId) -> bool {
        self.has_compact() && self.partitions.get(id).is_some_and(Partition::is_compact)
    }

    /// Whether there are compact indexes at all.
    pub fn has_compact(&self) -> bool {
        self.compact > 0
    }
}
