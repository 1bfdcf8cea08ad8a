//! Which live records are lost: those that the index puts into damaged places, each read by itself, so that
//! a neighbour of the damage is not taken for a part of it.

use std::collections::VecDeque;
use std::ops::Bound;

use crate::format::record::Record;
use crate::format::{align_down, align_up};
use crate::ids::{Generation, PartitionId, SegmentId};
use crate::limits::BLOCK_BYTES;
use crate::location::Location;
use crate::partition::Store;
use crate::scrub::damage::Damaged;
use crate::shard::Shard;

/// Entries of the index that are looked at in one step.
const ENTRIES_PER_STEP: usize = 2000;
/// Most records that wait to be read: their keys take memory.
const MOST_CANDIDATES: usize = 64;

/// A hunt for the lost records of one segment.
#[derive(Debug)]
pub struct Hunt {
    pub segment: SegmentId,
    pub generation: Generation,
    /// Damaged places known from the walk.
    places: Vec<(u64, u64)>,
    /// Where lost records may lie.
    suspects: Vec<(u64, u64)>,
    partitions: VecDeque<PartitionId>,
    /// From where on the first of `partitions` was not looked at.
    next_key: Vec<u8>,
    candidates: VecDeque<Damaged>,
    /// The record being read: its blocks so far, and whether the drive gave all.
    reading: Option<(Damaged, Vec<u8>, bool)>,
    /// Damaged places in which a damaged live record lies.
    hit: Vec<bool>,
    unlisted: u64,
}

/// What a hunt wants next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// These bytes of the area.
    Read(u64, u64),
    /// Another step, to look further through the index.
    Step,
    /// Nothing: it is over.
    Done,
}

impl Hunt {
    pub fn new(
        segment: SegmentId,
        generation: Generation,
        places: Vec<(u64, u64)>,
        suspects: Vec<(u64, u64)>,
        partitions: Vec<PartitionId>,
    ) -> Hunt {
        Hunt {
            segment,
            generation,
            hit: vec![false; places.len()],
            places,
            suspects,
            partitions: partitions.into(),
            next_key: Vec::new(),
            candidates: VecDeque::new(),
            reading: None,
            unlisted: 0,
        }
    }

    /// The next bytes of what was asked for, zeros where the drive refused them.
    pub fn feed(&mut self, bytes: &[u8], readable: bool) {
        let (_, read, all) = self.reading.as_mut().expect("what is fed was asked for");
        read.extend_from_slice(bytes);
        *all &= readable;
    }

    /// Goes on. Says what for.
    pub fn go_on(&mut self, shard: &mut Shard) -> Next {
        if let Some((damaged, bytes, readable)) = self.reading.take() {
            self.judge(damaged, &bytes, readable, shard);
        }
        loop {
            if let Some(candidate) = self.candidates.pop_front() {
                let (begin, end) = span(candidate.location);
                let room = Vec::with_capacity((end - begin) as usize);
                self.reading = Some((candidate, room, true));
                return Next::Read(begin, end - begin);
            }
            if self.partitions.is_empty() {
                return Next::Done;
            }
            if !self.search(shard) {
                return Next::Step;
            }
        }
    }

    /// Looks for entries that point into suspect places. Says whether it may go on at once.
    fn search(&mut self, shard: &Shard) -> bool {
        let mut left = ENTRIES_PER_STEP;
        while let Some(&id) = self.partitions.front() {
            let store = shard.catalog.get(id).map(|partition| &partition.store);
            if let Some(Store::Durable(index)) = store {
                let from = match self.next_key.as_slice() {
                    [] => Bound::Unbounded,
                    key => Bound::Included(key),
                };
                // The key to stop behind, and those that are tied with it.
                let (mut last_key, mut is_whole) = (Vec::new(), true);
                let mut entries = index.iter(&shard.catalog.arena, from, Bound::Unbounded);
                while let Some((key, is_whole_key, location)) = entries.next_known() {
                    if !last_key.is_empty() && *key != *last_key {
                        break;
                    }
                    left = left.saturating_sub(1);
                    if is_in(&self.suspects, location).is_some() {
                        let (key, generation) = (Box::from(key), self.generation);
                        let damaged = Damaged { partition: id, key, is_whole_key, location, generation };
                        self.candidates.push_back(damaged);
                    }
                    let is_full = self.candidates.len() >= MOST_CANDIDATES;
                    if is_full || left == 0 {
                        last_key = key.to_vec();
                        is_whole = is_whole_key;
                    }
                }
                if !last_key.is_empty() && follow(&mut last_key, is_whole) {
                    self.next_key = last_key;
                    return !self.candidates.is_empty();
                }
            }
            // A partition costs a look, too.
            left = left.saturating_sub(1);
            self.partitions.pop_front();
            self.next_key.clear();
            if left == 0 {
                return !self.candidates.is_empty();
            }
        }
        true
    }

    fn judge(&mut self, damaged: Damaged, bytes: &[u8], readable: bool, shard: &mut Shard) {
        let Shard { catalog, space, scrubber, place, .. } = shard;
        let location = damaged.location;
        let same_life = space.get(self.segment).generation == self.generation;
        if !same_life || !catalog.holds(damaged.partition, &damaged.key, location) {
            return;
        }
        let begin = (location.offset() - span(location).0) as usize;
        let bytes = &bytes[begin..begin + location.room() as usize];
        let record = Record::decode(place.seed, location.offset(), self.generation.0, bytes);
        let is_whole = record.is_ok_and(|record| {
            // Of the key the index may know the beginning alone.
            let is_it = record.partition == damaged.partition
                && catalog.holds(record.partition, record.key, location);
            is_it && record.room() == bytes.len()
        });
        if readable && is_whole {
            scrubber.damage.found_whole(self.generation, |whole| whole == location);
            return;
        }
        if let Some(hit) = is_in(&self.places, location) {
            self.hit[hit] = true;
        }
        self.unlisted += u64::from(!scrubber.damage.add(damaged, catalog, space));
    }

    /// Damaged live records for which the list had no room, and damaged places that hold none.
    pub fn outcome(&self) -> (u64, u64) {
        (self.unlisted, self.hit.iter().filter(|hit| !**hit).count() as u64)
    }
}

/// Makes of a key the first one behind it; of what is known of some, the first one behind all of them. Says whether
/// there is one.
fn follow(key: &mut Vec<u8>, is_whole: bool) -> bool {
    if is_whole {
        key.push(0);
        return true;
    }
    while key.pop_if(|last| *last == u8::MAX).is_some() {}
    key.last_mut().map(|last| *last += 1).is_some()
}

/// The first of ascending places that a record has bytes in.
pub fn is_in(places: &[(u64, u64)], location: Location) -> Option<usize> {
    let end = location.offset() + u64::from(location.room());
    let first = places.partition_point(|(_, to)| *to <= location.offset());
    (first < places.len() && places[first].0 < end).then_some(first)
}

/// The blocks in which a record lies, from the first byte to the one behind the last.
fn span(location: Location) -> (u64, u64) {
    let block = BLOCK_BYTES as u64;
    let end = location.offset() + u64::from(location.room());
    (align_down(location.offset(), block), align_up(end, block))
}
