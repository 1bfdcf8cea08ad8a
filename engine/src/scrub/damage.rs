//! What the scrub and reads have found damaged, and what is still so.

use std::collections::BTreeMap;

use crate::catalog::Catalog;
use crate::ids::{Generation, PartitionId, SegmentId};
use crate::limits::MAX_DAMAGED_LISTED;
use crate::location::Location;
use crate::space::{SegmentState, Space};

/// A damaged record to which the index pointed when it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Whose it is.
    pub partition: PartitionId,
    /// Its key, or what a compact index knows of it.
    pub key: Box<[u8]>,
    /// That is all of the key.
    pub is_whole_key: bool,
    /// Where it lies.
    pub location: Location,
    /// The life of the segment that it lies in.
    pub generation: Generation,
}

/// What is damaged in one segment beside the listed records.
#[derive(Debug, Clone, Copy)]
struct SegmentDamage {
    generation: Generation,
    /// Damaged live records that the list had no room for.
    unlisted: u64,
    /// Damaged places in which no damaged live record lies.
    places: u64,
}

/// All known damage of a shard. Bounded: so many records with their keys, and one entry a segment.
#[derive(Debug, Default)]
pub struct DamageTable {
    listed: Vec<Damaged>,
    segments: BTreeMap<SegmentId, SegmentDamage>,
}

impl DamageTable {
    /// Whether the list has the record that lies there, and it is still damaged.
    pub fn has(&self, at: (Location, Generation), catalog: &Catalog, space: &Space) -> bool {
        let is_it = |listed: &&Damaged| (listed.location, listed.generation) == at;
        self.listed.iter().find(is_it).is_some_and(|listed| is_still_there(listed, catalog, space))
    }

    /// Adds a record, once, whatever key it was asked for by. Says whether it is in the list now.
    pub fn add(&mut self, damaged: Damaged, catalog: &Catalog, space: &Space) -> bool {
        let place = (damaged.location, damaged.generation);
        let same = self.listed.iter_mut().find(|listed| (listed.location, listed.generation) == place);
        if let Some(listed) = same {
            if !is_still_there(listed, catalog, space) {
                *listed = damaged;
            }
            return true;
        }
        if self.listed.len() >= MAX_DAMAGED_LISTED {
            self.forget_healed(catalog, space);
        }
        let has_room = self.listed.len() < MAX_DAMAGED_LISTED;
        if has_room {
            self.listed.push(damaged);
        }
        has_room
    }

    /// Forgets records that were found whole after all.
    pub fn found_whole(&mut self, generation: Generation, is_whole: impl Fn(Location) -> bool) {
        self.listed.retain(|damaged| damaged.generation != generation || !is_whole(damaged.location));
    }

    /// What a look at a whole segment has found.
    pub fn set_segment(&mut self, segment: SegmentId, generation: Generation, unlisted: u64, places: u64) {
        self.segments.remove(&segment);
        if unlisted + places > 0 {
            self.segments.insert(segment, SegmentDamage { generation, unlisted, places });
        }
    }

    /// Whether damaged live records of the segment had no room in the list.
    pub fn is_cut_short(&self, segment: SegmentId) -> bool {
        self.segments.get(&segment).is_some_and(|damage| damage.unlisted > 0)
    }

    /// Forgets what was overwritten, deleted, dropped or freed.
    pub fn forget_healed(&mut self, catalog: &Catalog, space: &Space) {
        self.listed.retain(|damaged| is_still_there(damaged, catalog, space));
        self.segments.retain(|segment, damage| is_same_life(*segment, damage, space));
    }

    /// The listed records that are still damaged.
    pub fn listed<'a>(&'a self, catalog: &'a Catalog, space: &'a Space) -> impl Iterator<Item = &'a Damaged> {
        self.listed.iter().filter(|damaged| is_still_there(damaged, catalog, space))
    }

    /// Damaged live records that are not listed, and damaged places that hold none.
    pub fn counts(&self, space: &Space) -> (u64, u64) {
        let known = self.segments.iter().filter(|(segment, damage)| is_same_life(**segment, damage, space));
        known.fold((0, 0), |(unlisted, places), (_, damage)| {
            (unlisted + damage.unlisted, places + damage.places)
        })
    }
}

fn is_still_there(damaged: &Damaged, catalog: &Catalog, space: &Space) -> bool {
    let same_life = space.of(damaged.location).1.generation == damaged.generation;
    same_life && catalog.holds(damaged.partition, &damaged.key, damaged.location)
}

fn is_same_life(segment: SegmentId, damage: &SegmentDamage, space: &Space) -> bool {
    let segment = space.get(segment);
    segment.generation == damage.generation && segment.state == SegmentState::Sealed && segment.live_bytes > 0
}
