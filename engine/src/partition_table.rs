//! The partitions of a shard by their ids, found without a hash and without a search.
//!
//! Ids only rise and are never reused, and most of those given last are there: so a directory of pages of
//! slot numbers, of which the empty ones are not kept. Finding a partition is then two reads of tables that
//! stay in a core's cache and one of the partition itself; a hash map of large entries took two or three that
//! do not.

use crate::ids::PartitionId;
use crate::partition::Partition;

/// Ids of a page.
const PAGE_IDS: usize = 256;
/// A page of ids that no partition has.
const NO_SLOT: u32 = u32::MAX;

/// Slots of the partitions with consecutive ids.
struct Page {
    slots: [u32; PAGE_IDS],
    used: usize,
}

/// All partitions of a shard.
#[derive(Default)]
pub struct PartitionTable {
    /// By the id's upper bits.
    pages: Vec<Option<Box<Page>>>,
    slots: Vec<Option<Partition>>,
    free: Vec<u32>,
}

fn page_of(id: PartitionId) -> (usize, usize) {
    (id.0 as usize / PAGE_IDS, id.0 as usize % PAGE_IDS)
}

impl PartitionTable {
    fn slot_of(&self, id: PartitionId) -> Option<usize> {
        let (page, place) = page_of(id);
        let slot = self.pages.get(page)?.as_ref()?.slots[place];
        (slot != NO_SLOT).then_some(slot as usize)
    }

    /// One partition.
    pub fn get(&self, id: PartitionId) -> Option<&Partition> {
        self.slots[self.slot_of(id)?].as_ref()
    }

    /// One partition, to be changed.
    pub fn get_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        let slot = self.slot_of(id)?;
        self.slots[slot].as_mut()
    }

    /// Whether there is such a one.
    pub fn contains(&self, id: PartitionId) -> bool {
        self.slot_of(id).is_some()
    }

    /// Adds a partition whose id is not there.
    pub fn insert(&mut self, partition: Partition) {
        let id = partition.spec.id;
        assert!(!self.contains(id), "partition {id} is there already");
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("partitions are limited")
        });
        let (page, place) = page_of(id);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page =
            self.pages[page].get_or_insert_with(|| Box::new(Page { slots: [NO_SLOT; PAGE_IDS], used: 0 }));
        page.slots[place] = slot;
        page.used += 1;
        assert!(self.slots[slot as usize].replace(partition).is_none(), "slot {slot} was free");
    }

    /// Takes a partition out.
    pub fn remove(&mut self, id: PartitionId) -> Option<Partition> {
        let slot = self.slot_of(id)?;
        let (page, place) = page_of(id);
        let entry = &mut self.pages[page];
        let is_last = entry.as_mut().is_some_and(|page| {
            page.slots[place] = NO_SLOT;
            page.used -= 1;
            page.used == 0
        });
        if is_last {
            *entry = None;
        }
        self.free.push(slot as u32);
        self.slots[slot].take()
    }

    /// All of them, in no order.
    pub fn values(&self) -> impl Iterator<Item = &Partition> {
        self.slots.iter().flatten()
    }

    /// Those from an id on, ascending; pages of ids that no partition has are passed over.
    pub fn from(&self, id: PartitionId) -> impl Iterator<Item = &Partition> {
        let (first, place) = page_of(id);
        let pages = self.pages.iter().enumerate().skip(first);
        let slots = pages.flat_map(move |(number, page)| {
            let skipped = if number == first { place } else { 0 };
            page.iter().flat_map(move |page| &page.slots[skipped..])
        });
        let used = slots.filter(|slot| **slot != NO_SLOT);
        used.filter_map(|slot| self.slots[*slot as usize].as_ref())
    }

    /// The ids of all, ascending.
    pub fn ids(&self) -> Vec<PartitionId> {
        let mut ids: Vec<_> = self.values().map(|partition| partition.spec.id).collect();
        ids.sort_unstable();
        ids
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, TableId};
    use crate::quota::Quota;
    use crate::request::{PartitionSpec, Placement, StoreKind, TableSpec};

    fn partition(id: u32) -> Partition {
        let table = TableSpec {
            id: TableId(1),
            name: "t".into(),
            store: StoreKind::Durable,
            placement: Placement::Range,
            ttl_ms: None,
            quota: Quota::default(),
            index: crate::IndexKind::Full,
        };
        let (table_id, start) = (table.id, Vec::new());
        let spec = PartitionSpec { id: PartitionId(id), table: table_id, epoch: Epoch(1), start, end: None };
        Partition::new(spec, &table)
    }

    #[test]
    fn partitions_come_and_go_and_empty_pages_with_them() {
        let mut table = PartitionTable::default();
        let ids = [1, 255, 256, 257, 70_000];
        ids.iter().for_each(|id| table.insert(partition(*id)));
        assert_eq!(table.ids(), ids.map(PartitionId));
        let from = |id| table.from(PartitionId(id)).map(|p| p.spec.id.0).collect::<Vec<_>>();
        assert_eq!((from(0), from(256), from(258)), (ids.to_vec(), vec![256, 257, 70_000], vec![70_000]));
        assert_eq!(from(70_001), Vec::<u32>::new());
        assert!(ids.iter().all(|id| table.get(PartitionId(*id)).is_some_and(|p| p.spec.id.0 == *id)));
        assert!(table.get(PartitionId(2)).is_none() && table.get(PartitionId(u32::MAX)).is_none());
        let gone = table.remove(PartitionId(70_000)).map(|partition| partition.spec.id);
        assert_eq!(gone, Some(PartitionId(70_000)));
        assert!(table.remove(PartitionId(70_000)).is_none());
        assert!(table.pages[70_000 / PAGE_IDS].is_none(), "an empty page is not kept");
        table.remove(PartitionId(256));
        assert!(table.contains(PartitionId(257)) && !table.contains(PartitionId(256)));
        table.insert(partition(300));
        assert_eq!((table.len(), table.slots.len()), (4, 5), "slots are used again");
        assert_eq!(table.get_mut(PartitionId(300)).map(|p| p.spec.id), Some(PartitionId(300)));
    }

    #[test]
    #[should_panic(expected = "is there already")]
    fn no_partition_twice() {
        let mut table = PartitionTable::default();
        table.insert(partition(7));
        table.insert(partition(7));
    }
}
