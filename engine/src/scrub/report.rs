//! How far the scrub is, and what it knows.

use super::Task;
use crate::ids::{PartitionId, Seq, TableId};
use crate::limits::MAX_DAMAGED_LISTED;
use crate::shard::Shard;

/// The scrub of one shard, and the damage that is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubStats {
    /// Bytes a second that a round reads, unless it was asked for; 0 where none begins by itself.
    pub rate_bytes_per_s: u64,
    /// Number of the round that began last, from 1.
    pub round: u64,
    /// Rounds that went through to the end.
    pub rounds_finished: u64,
    /// Segments of the round that are done with, in percent; 100 at rest.
    pub percent: u64,
    /// Bytes read in this round.
    pub round_bytes: u64,
    /// Bytes read since the start.
    pub bytes: u64,
    /// UNIX nanoseconds when the last round ended; 0 where none has.
    pub last_finished_wall_ns: u64,
    /// Rounds at full rate that were asked for, and those of them that were made.
    pub asked: u64,
    /// Of these, those that have ended.
    pub answered: u64,
    /// Live records that are damaged.
    pub damaged_records: u64,
    /// Those of them that the list had no room for.
    pub damaged_unlisted: u64,
    /// Damaged places that hold no damaged live record: dead records, headers, what a crash has torn.
    pub damaged_places: u64,
    /// Superblocks that were written anew because a copy was damaged.
    pub repaired_superblocks: u64,
    /// Images that were written anew because a frame was damaged.
    pub repaired_images: u64,
    /// Live records that are damaged, the first so many (`MAX_DAMAGED_LISTED`).
    pub damaged: Vec<DamagedRecord>,
    /// Partitions in quarantine, the first so many.
    pub quarantined: Vec<QuarantinedPartition>,
}

/// A partition of which writes may be lost to damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedPartition {
    /// Its table.
    pub table: TableId,
    /// Its table's name.
    pub table_name: String,
    /// The partition.
    pub partition: PartitionId,
    /// Writes up to this version may be lost.
    pub upto: Seq,
}

/// A live record whose bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRecord {
    /// Its table.
    pub table: TableId,
    /// Its table's name.
    pub table_name: String,
    /// Its partition.
    pub partition: PartitionId,
    /// Its key, or, where that is not all known, what a compact index knows of it.
    pub key: Vec<u8>,
    /// That is all of the key.
    pub is_whole_key: bool,
    /// Byte of the drive where it begins.
    pub at: u64,
    /// Bytes of it.
    pub len: u32,
}

impl Shard {
    pub(crate) fn scrub_stats(&self) -> ScrubStats {
        let scrubber = &self.scrubber;
        let damaged: Vec<_> = scrubber
            .damage
            .listed(&self.catalog, &self.space)
            .filter_map(|found| {
                self.damaged_record(found.partition, (&found.key, found.is_whole_key), found.location)
            })
            .collect();
        let (unlisted, places) = scrubber.damage.counts(&self.space);
        let (segments, _) = self.space.counts();
        let percent = match scrubber.task {
            Task::Resting => 100,
            _ => u64::from(scrubber.next_segment.saturating_sub(1)) * 100 / u64::from(segments.max(1)),
        };
        let round = &scrubber.round;
        ScrubStats {
            rate_bytes_per_s: self.config.scrub_bytes_per_s,
            round: round.number,
            rounds_finished: round.finished,
            percent: if round.number == 0 { 0 } else { percent },
            round_bytes: round.bytes,
            bytes: round.total_bytes,
            last_finished_wall_ns: round.finished_wall_ns,
            asked: round.asked,
            answered: round.answered,
            damaged_records: damaged.len() as u64 + unlisted,
            damaged_unlisted: unlisted,
            damaged_places: places,
            repaired_superblocks: scrubber.repaired_superblocks,
            repaired_images: scrubber.repaired_images,
            damaged,
            quarantined: self.quarantined(MAX_DAMAGED_LISTED),
        }
    }

    /// The first so many partitions in quarantine.
    pub(crate) fn quarantined(&self, most: usize) -> Vec<QuarantinedPartition> {
        if self.catalog.quarantined() == 0 {
            return Vec::new();
        }
        let quarantined = |partition: PartitionId| {
            let upto = self.catalog.quarantine_of(partition)?;
            let table = self.catalog.get(partition)?.spec.table;
            let table_name = self.catalog.table_name(table).unwrap_or_default().to_owned();
            Some(QuarantinedPartition { table, table_name, partition, upto })
        };
        self.catalog.partition_ids().into_iter().filter_map(quarantined).take(most).collect()
    }

    /// A damaged record in the words of a report; `None` where its partition is no more.
    pub(crate) fn damaged_record(
        &self,
        partition: PartitionId,
        (key, is_whole_key): (&[u8], bool),
        location: crate::Location,
    ) -> Option<DamagedRecord> {
        let table = self.catalog.get(partition)?.spec.table;
        Some(DamagedRecord {
            table,
            table_name: self.catalog.table_name(table).unwrap_or_default().to_owned(),
            partition,
            key: key.to_vec(),
            is_whole_key,
            at: self.place.area_at.0 + location.offset(),
            len: location.room(),
        })
    }
}
