//! Partitions on their way from the image into memory: read in order, frame by frame, leaf by leaf.

use std::collections::VecDeque;

use super::kept::{Change, Changes};
use crate::format::image::{DirectoryEntry, Group, Section, for_each_expiry, for_each_leaf};
use crate::format::record::RECORD_HEADER_BYTES;
use crate::geometry::Geometry;
use crate::ids::PartitionId;
use crate::index::{IndexArena, IndexLoad, PartitionIndex};
use crate::location::Location;
use crate::reader::SequentialReader;
use crate::scanner::SegmentScanner;
use crate::space::Space;

/// Some partitions that lie one behind the other in the image.
#[derive(Debug)]
pub struct Job {
    /// Those that are not done, in the order of the image.
    pub partitions: VecDeque<PartitionId>,
    /// What is to be scanned of the area, each piece with its last byte.
    pub pieces: VecDeque<(SegmentScanner, u64)>,
    /// The first of the partitions, as far as it has come.
    pub assembly: Assembly,
}

/// Jobs that are read one behind the other, several chunks ahead.
#[derive(Debug)]
pub struct Lane {
    /// Reads for them.
    pub reader: SequentialReader,
    /// The first is being scanned.
    pub jobs: VecDeque<Job>,
}

impl Lane {
    /// With nothing to do.
    pub fn new(reader: SequentialReader) -> Lane {
        Lane { reader, jobs: VecDeque::new() }
    }
}

/// One partition, as far as it has come.
#[derive(Default)]
pub struct Assembly {
    index: IndexLoad,
    /// What the image says of records that expire.
    pub expiries: Changes,
    expiring: u64,
    record_bytes: u64,
    records: u64,
    /// Of the leaf at hand.
    locations: Vec<Location>,
    is_malformed: bool,
}

impl std::fmt::Debug for Assembly {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} records", self.records)
    }
}

impl Assembly {
    /// Of nothing yet, for an index of either kind.
    pub fn new(is_compact: bool) -> Assembly {
        Assembly { index: IndexLoad::new(is_compact), ..Assembly::default() }
    }

    /// Takes what a frame holds of the partition; its records count as live from now on.
    pub fn take(
        &mut self,
        group: &Group<'_>,
        geometry: &Geometry,
        arena: &mut IndexArena,
        space: &mut Space,
    ) {
        let taken = match group.section {
            Section::Expiries => for_each_expiry(group, |key, at| {
                self.expiries.push(Change::Expires { key, at });
                self.expiring += 1;
            }),
            Section::Leaves => for_each_leaf(group, |leaf| {
                self.locations.clear();
                let is_leaf = self.index.push(arena, leaf, &mut |location, key_len| {
                    self.locations.push(location);
                    is_possible(location, key_len, geometry)
                });
                self.is_malformed |= is_leaf.is_err();
                if is_leaf.is_ok() {
                    for location in &self.locations {
                        space.add_live(*location);
                        self.record_bytes += u64::from(location.room());
                    }
                    self.records += self.locations.len() as u64;
                }
            }),
        };
        self.is_malformed |= taken.is_none();
    }

    /// Bytes of records that count as live by now.
    pub fn record_bytes(&self) -> u64 {
        self.record_bytes
    }

    /// Whether it is all that the directory says.
    pub fn is_whole(&self, entry: &DirectoryEntry) -> bool {
        let found = (self.records, self.record_bytes, self.expiring);
        !self.is_malformed && found == (entry.records, entry.record_bytes, entry.expiring)
    }

    /// The index, its bytes of records, and what is known of records that expire.
    pub fn finish(self, arena: &mut IndexArena) -> (PartitionIndex, u64, Changes) {
        (self.index.finish(arena), self.record_bytes, self.expiries)
    }
}

/// Whether a record with a key of so many bytes may lie there.
pub fn is_possible(location: Location, key_len: usize, geometry: &Geometry) -> bool {
    let (begin, len) = (location.offset(), u64::from(location.room()));
    let last = begin + len - 1;
    let fits = len >= (RECORD_HEADER_BYTES + key_len) as u64 && last < geometry.area_bytes();
    fits && geometry.segment_of(begin) == geometry.segment_of(last)
}
