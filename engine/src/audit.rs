//! What a shard says of itself, held against a count of all that it has: for tests that look while it works.

use std::ops::Bound;

use crate::catalog::Catalog;
use crate::ids::{FrameNumber, SegmentId};
use crate::index::PartitionIndex;
use crate::partition::{MemoryStore, Store};
use crate::shard::Shard;
use crate::space::Recount;

/// How far a stream of frames has come: `durable <= written <= appended`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// All frames up to this one are durable.
    pub durable: FrameNumber,
    /// The last frame that was handed to the drive.
    pub written: FrameNumber,
    /// The last frame that was begun.
    pub appended: FrameNumber,
}

/// The watermarks of a shard's streams. Frames of images are not numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardWatermarks {
    /// Of the users' log.
    pub user: Watermarks,
    /// Of cleaning; numbered anew in each life.
    pub cleaning: Watermarks,
    /// Of the journal; frames whose loss a checkpoint makes up for count as durable with that.
    pub journal: Watermarks,
}

/// How much of the drive is free, and how much is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Segments that are free, or will be as soon as the journal says that they are empty.
    pub free: u32,
    /// As many are kept back for the next image, the journal, cleaning and deletes.
    pub reserve: u32,
    /// Cleaning keeps as many more free.
    pub goal: u32,
}

impl Shard {
    /// How far the streams have come.
    pub fn watermarks(&self) -> ShardWatermarks {
        ShardWatermarks {
            user: self.log.watermarks(),
            cleaning: self.cleaner.watermarks(),
            journal: self.journal.watermarks(),
        }
    }

    /// How much of the drive is free.
    pub fn room(&self) -> Room {
        Room { free: self.free_soon(), reserve: self.space.reserve(), goal: self.free_goal() }
    }

    /// Bytes of memory that count against the limit, as a write is checked against it.
    pub fn counted_memory_bytes(&self) -> u64 {
        self.catalog.memory_bytes()
    }

    /// Bytes of memory that keys take which were read for compact indexes.
    pub fn fact_bytes(&self) -> usize {
        self.facts.memory_bytes()
    }

    /// Counts everything anew; says in words what does not agree with what the shard keeps count of. Work in proportion to
    /// its records. Only of a shard that serves.
    pub fn audit(&self) -> Vec<String> {
        let mut wrong = self.space.audit_states(&self.appended_to());
        wrong.extend(self.catalog.audit());
        // A log that is closed gives back no segment of an image that it was writing: a superblock may name it.
        if !self.is_loading() && !self.log.is_poisoned() {
            let mut recount = Recount::new(self.place.geometry);
            let mut count = |index: &PartitionIndex| {
                let mut entries = index.iter(&self.catalog.arena, Bound::Unbounded, Bound::Unbounded);
                while let Some((_, location)) = entries.next() {
                    recount.add(location);
                }
            };
            self.catalog.indexes().for_each(&mut count);
            self.catalog.dropping.iter().for_each(&mut count);
            let of_index = self.journal.in_use().into_iter().chain(self.checkpointer.in_use());
            of_index.for_each(|segment| recount.add_use(segment));
            wrong.extend(self.space.audit_live(&recount));
        }
        wrong
    }

    /// The segments to which something is appended, or soon will be.
    fn appended_to(&self) -> Vec<SegmentId> {
        let heads = [self.log.segments(), self.cleaner.segments(), self.journal.open_segments()];
        heads.into_iter().flatten().chain(self.checkpointer.open_segments()).collect()
    }
}

impl Catalog {
    /// What is wrong with the totals over all partitions, in words.
    fn audit(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut compare = |what: &str, counted: u64, kept: u64| {
            if counted != kept {
                wrong.push(format!("there are {counted} {what}, and {kept} are counted"));
            }
        };
        let (mut records, mut memory_bytes, mut expiring, mut expiry_bytes) = (0, 0, 0, 0);
        let mut unloaded = [0; 4];
        for partition in self.partition_ids().into_iter().filter_map(|id| self.get(id)) {
            match &partition.store {
                Store::Durable(_) => records += partition.records(),
                Store::Memory(memory) => memory_bytes += memory.memory_bytes(),
            }
            expiring += partition.expiries.as_ref().map_or(0, |expiries| expiries.len());
            expiry_bytes += partition.expiry_bytes();
            if let Some(image) = partition.image.as_ref().filter(|image| image.is_outside()) {
                let entry = image.entry;
                let of_it = [1, entry.record_bytes, entry.memory_bytes, entry.expiring];
                unloaded.iter_mut().zip(of_it).for_each(|(sum, of_it)| *sum += of_it);
            }
        }
        memory_bytes += self.dropping_memory.iter().map(MemoryStore::memory_bytes).sum::<u64>();
        expiry_bytes += self.dropping_expiries.iter().map(|expiries| expiries.memory_bytes()).sum::<u64>();
        compare("records", records, self.records);
        compare("bytes of memory tables", memory_bytes, self.memory_table_bytes);
        compare("records that expire", expiring, self.expiring_records);
        compare("bytes of expiries", expiry_bytes, self.expiry_bytes);
        compare("partitions outside", unloaded[0], self.unloaded.partitions);
        compare("bytes of records outside", unloaded[1], self.unloaded.record_bytes);
        compare("bytes of memory outside", unloaded[2], self.unloaded.memory_bytes);
        compare("records outside that expire", unloaded[3], self.unloaded.expiring);
        wrong
    }
}
