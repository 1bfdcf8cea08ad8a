//! What an image is made of, payload by payload, while writes go on: the catalog, the partitions' expiries
//! and leaves, the directory, the root.
//!
//! Partitions come in the order in which a start will want them: those with most requests of late first. Of
//! a partition, a step takes as many leaves as a frame holds, and the next step goes on behind the last key.

use std::collections::VecDeque;

use crate::catalog::Catalog;
use crate::format::image::{
    DIRECTORY_ENTRY_BYTES, DirectoryEntry, ImageExtent, ImagePosition, ImageRoot, IndexPayload, Section,
    directory_payload,
};
use crate::ids::PartitionId;
use crate::index::LeafImage;
use crate::partition::{Partition, Store};
use crate::space::Space;

/// Memory that a leaf takes in the inner nodes above it, about.
const INNER_BYTES_PER_LEAF: u64 = 32;

/// A payload, and what it is for.
#[derive(Debug)]
pub struct Payload {
    /// It.
    pub bytes: Vec<u8>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Catalog,
    /// Holds something of the directory's entries from this one on, up to this one.
    Index(usize, usize),
    Directory,
    Root,
}

/// What comes next. Index -> Directory -> Root -> Done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Index,
    Directory,
    Root,
    Done,
}

/// An image in the making.
#[derive(Debug)]
pub struct ImageWriter {
    stage: Stage,
    /// What lies where, as far as it is placed.
    pub root: ImageRoot,
    /// Made and not yet placed.
    ready: VecDeque<Payload>,
    /// Still to be written; the first perhaps in part.
    partitions: VecDeque<PartitionId>,
    /// What of the first partition is being written, and the last key of that.
    section: Section,
    last_key: Vec<u8>,
    directory: Vec<DirectoryEntry>,
    /// Most bytes of a payload.
    most_bytes: usize,
}

impl ImageWriter {
    /// Of the catalog as it is now, and of the partitions as they will be when their turn comes.
    pub fn new(catalog: &Catalog, catalog_payloads: Vec<Vec<u8>>, most_bytes: usize) -> ImageWriter {
        let root = ImageRoot {
            catalog_frames: catalog_payloads.len() as u32,
            highest_table: catalog.highest_table,
            highest_partition: catalog.highest_partition,
            ..ImageRoot::default()
        };
        let twice = catalog_payloads.iter().chain(&catalog_payloads);
        let ready = twice.map(|bytes| Payload { bytes: bytes.clone(), kind: Kind::Catalog }).collect();
        ImageWriter {
            stage: Stage::Index,
            root,
            ready,
            partitions: catalog.hottest_first().into(),
            section: Section::Expiries,
            last_key: Vec::new(),
            directory: Vec::new(),
            most_bytes,
        }
    }

    /// Of nothing: where no image is written.
    pub fn none() -> ImageWriter {
        ImageWriter {
            stage: Stage::Done,
            root: ImageRoot::default(),
            ready: VecDeque::new(),
            partitions: VecDeque::new(),
            section: Section::Expiries,
            last_key: Vec::new(),
            directory: Vec::new(),
            most_bytes: 0,
        }
    }

    /// Whether all payloads are made and placed.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done && self.ready.is_empty()
    }

    /// The next payload to be placed, if one is made.
    pub fn front(&self) -> Option<&[u8]> {
        self.ready.front().map(|payload| payload.bytes.as_slice())
    }

    /// Whether that is the root.
    pub fn is_root_next(&self) -> bool {
        self.ready.front().is_some_and(|payload| matches!(payload.kind, Kind::Root))
    }

    /// Makes the next payload, where there is none.
    pub fn make(&mut self, catalog: &mut Catalog, space: &Space) {
        if !self.ready.is_empty() {
            return;
        }
        if self.stage == Stage::Index {
            match self.make_index(catalog) {
                Some(payload) => return self.ready.push_back(payload),
                None => self.stage = Stage::Directory,
            }
        }
        match self.stage {
            Stage::Directory => {
                self.make_directory();
                self.stage = Stage::Root;
            }
            Stage::Root => {
                // Twice, for all else hangs on it.
                self.root.in_use = space.in_use();
                self.root.highest_generation = space.highest_generation();
                let bytes = self.root.encode();
                for _ in 0..2 {
                    self.ready.push_back(Payload { bytes: bytes.clone(), kind: Kind::Root });
                }
                self.stage = Stage::Done;
            }
            Stage::Index | Stage::Done => {}
        }
    }

    /// The front payload was placed there. Says whether it is a root's.
    pub fn placed(&mut self, extent: ImageExtent) -> bool {
        let payload = self.ready.pop_front().expect("what was placed was made");
        let grow = |known: &mut ImageExtent| {
            if known.to == ImagePosition::default() {
                known.from = extent.from;
            }
            known.to = extent.to;
        };
        match payload.kind {
            Kind::Catalog => grow(&mut self.root.catalog),
            Kind::Index(first, last) => {
                self.directory[first..=last].iter_mut().for_each(|entry| grow(&mut entry.extent));
            }
            Kind::Directory => grow(&mut self.root.directory),
            Kind::Root => return true,
        }
        self.root.frames += 1;
        false
    }

    fn make_index(&mut self, catalog: &mut Catalog) -> Option<Payload> {
        let mut payload = IndexPayload::begin();
        // The partition at hand may have begun in an earlier payload.
        let mut first = None;
        while let Some(&id) = self.partitions.front() {
            if catalog.get(id).is_some() {
                let before = payload.bytes();
                let is_full = self.write_partition(catalog, id, &mut payload);
                if payload.bytes() > before {
                    first.get_or_insert(self.directory.len() - 1);
                }
                if is_full {
                    break;
                }
            }
            self.partitions.pop_front();
            self.section = Section::Expiries;
            self.last_key.clear();
        }
        let kind = Kind::Index(first?, self.directory.len() - 1);
        Some(Payload { bytes: payload.finish(), kind })
    }

    /// Writes what fits. Says whether something did not.
    fn write_partition(
        &mut self,
        catalog: &mut Catalog,
        id: PartitionId,
        payload: &mut IndexPayload,
    ) -> bool {
        if !self.write_expiries(catalog, id, payload) {
            return true;
        }
        if catalog.is_compact(id) {
            return self.write_compact(catalog, id, payload);
        }
        let Some(partition) = catalog.get(id) else { return false };
        let Store::Durable(index) = &partition.store else { return false };
        let most_leaf_bytes = IndexPayload::most_leaf_bytes(self.most_bytes);
        while let Some(leaf) = index.leaf_after(&catalog.arena, &self.last_key, most_leaf_bytes) {
            if !payload.fits_leaf(leaf.bytes.len(), self.most_bytes) {
                return true;
            }
            payload.push_leaf(id, &leaf.bytes);
            self.count_leaf(partition, &leaf);
            self.last_key = leaf.last_key;
        }
        false
    }

    /// The same of a compact index, which knows itself how far it is.
    fn write_compact(&mut self, catalog: &mut Catalog, id: PartitionId, payload: &mut IndexPayload) -> bool {
        loop {
            let Some(partition) = catalog.get(id) else { return false };
            let Store::Durable(index) = &partition.store else { return false };
            let Some(leaf) = index.leaf_to_image(&catalog.arena) else { return false };
            if !payload.fits_leaf(leaf.bytes.len(), self.most_bytes) {
                return true;
            }
            payload.push_leaf(id, &leaf.bytes);
            self.count_leaf(partition, &leaf);
            catalog.with_index(id, |index, _| index.leaf_imaged());
        }
    }

    fn count_leaf(&mut self, partition: &Partition, leaf: &LeafImage<'_>) {
        let entry = self.entry(partition);
        entry.records += leaf.records;
        entry.record_bytes += leaf.record_bytes;
        entry.memory_bytes += leaf.node_bytes() + INNER_BYTES_PER_LEAF;
    }

    /// Says whether all fitted.
    fn write_expiries(&mut self, catalog: &mut Catalog, id: PartitionId, payload: &mut IndexPayload) -> bool {
        let Some(partition) = catalog.get(id) else { return true };
        if !matches!(partition.store, Store::Durable(_)) {
            return true;
        }
        if self.section == Section::Expiries {
            let last_key = std::mem::take(&mut self.last_key);
            for (key, expires) in partition.expiries_after(&last_key) {
                if !payload.fits_expiry(key, self.most_bytes) {
                    if self.last_key.is_empty() {
                        self.last_key = last_key.clone();
                    }
                    return false;
                }
                payload.push_expiry(id, key, expires);
                self.entry(partition).expiring += 1;
                self.last_key.clear();
                self.last_key.extend_from_slice(key);
            }
            self.section = Section::Leaves;
            self.last_key.clear();
            catalog.with_index(id, |index, _| index.begin_image());
        }
        true
    }

    /// The entry of the partition at hand.
    fn entry(&mut self, partition: &Partition) -> &mut DirectoryEntry {
        let id = partition.spec.id;
        if self.directory.last().is_none_or(|last| last.partition != id) {
            let (hotness, memory_bytes) = (partition.hotness(), partition.expiry_bytes());
            self.directory.push(DirectoryEntry {
                partition: id,
                hotness,
                memory_bytes,
                ..DirectoryEntry::default()
            });
        }
        let last = self.directory.len() - 1;
        &mut self.directory[last]
    }

    fn make_directory(&mut self) {
        let entries = (self.most_bytes - 1) / DIRECTORY_ENTRY_BYTES;
        let payloads: Vec<_> = self.directory.chunks(entries).map(directory_payload).collect();
        self.root.directory_frames = payloads.len() as u32;
        for bytes in payloads.iter().chain(&payloads) {
            self.ready.push_back(Payload { bytes: bytes.clone(), kind: Kind::Directory });
        }
    }
}

/// Bytes that an image's directory takes, both copies counted, for so many partitions.
pub fn directory_bytes(partitions: usize) -> u64 {
    2 * (partitions * DIRECTORY_ENTRY_BYTES) as u64
}
