//! Gathering: records that a scan had to read from many places are written again together, in the order of their keys.
//!
//! What a scan reads for nothing is counted by partition. Where that comes to as many reads as the partition has records, it has paid for
//! as much as writing all of them again would cost, and from then on it is the pages that are scanned which are written again (the rule of
//! rent or buy: never more than twice the cost of having known beforehand; Karlin, Manasse, Rudolph and Sleator, 1988). So one walk over a table for
//! a copy of it moves nothing. Records go to a lane of cleaning, and the index follows as it does there. Cleaning goes first: nothing is gathered
//! while a segment is being cleaned, or would have to be.

use bytes::Bytes;

use crate::cleaning::LEAST_FRAME_BYTES;
use crate::format::record::Record;
use crate::ids::PartitionId;
use crate::io::Io;
use crate::lanes::Origin;
use crate::lifetime::lane_of;
use crate::location::Location;
use crate::scan_runs::Runs;
use crate::shard::Shard;
use crate::space::Claim;

/// Pages of fewer records are left where they are: a frame's padding would be most of what is written.
const FEWEST_RECORDS: usize = 8;
/// The next segment is opened when the present one has no room for so many pages more.
const PAGES_AHEAD: u64 = 4;
/// Reads too many that a page may take for ever.
const MOST_WASTED: usize = 2;

impl Shard {
    /// Notes what a page costs, and says whether its records shall be written again.
    pub(crate) fn gathers(&self, partition: PartitionId, runs: &Runs, records: usize) -> bool {
        let Some(partition) = self.catalog.get(partition) else { return false };
        let wasted = runs.places.saturating_sub(runs.fewest);
        if records < FEWEST_RECORDS || wasted <= MOST_WASTED || partition.quarantine.is_some() {
            return false;
        }
        // Not beyond what the next pages need: what was scanned long ago is no reason for ever.
        let enough = partition.records() + records as u64;
        let paid = (partition.wasted_reads.get() + wasted as u64).min(enough);
        partition.wasted_reads.set(paid);
        paid == enough && self.may_gather()
    }

    fn may_gather(&self) -> bool {
        let has_more_than_cleaning_wants = self.free_soon() > self.space.reserve() + self.free_goal();
        !self.log.is_poisoned()
            && !self.is_loading()
            && self.cleaner.victim.is_none()
            && has_more_than_cleaning_wants
            && self.space.may_take(Claim::Put)
    }

    /// Writes records of a partition again, one behind the other, as far as there is room at once.
    pub(crate) fn gather(
        &mut self,
        partition: PartitionId,
        records: impl Iterator<Item = (Location, Bytes)>,
        io: &mut Io<'_>,
    ) {
        if !self.may_gather() {
            return;
        }
        let full = LEAST_FRAME_BYTES.max(self.config.frame_bytes as usize);
        let (clock_now, now) = (self.space.clock.now(), self.clock.now());
        let (mut lane, mut written, mut bytes) = (None, 0, 0);
        for (from, whole) in records {
            let record = Record::decode_unchecked(&whole).expect("what a scan gives was checked");
            let is_over = record.expires.is_some_and(|at| at <= now);
            if is_over || !self.catalog.holds(record.partition, record.key, from) {
                continue;
            }
            let room = from.room() as usize;
            let Shard { cleaner, space, stats, .. } = self;
            let lane = *lane.get_or_insert_with(|| {
                // One for all, or they would not lie together.
                let age = clock_now - space.clock.at(record.seq.wall_ns);
                lane_of(age, space.live_bytes(), cleaner.lanes.count())
            });
            let (has_room, closed_bytes) = cleaner.lanes.make_room(lane, room, full, space, io);
            stats.cleaning_frame_bytes += closed_bytes;
            if !has_room {
                break;
            }
            // Its place is not used anew before what was copied has been applied.
            space.pin(space.of(from).0);
            cleaner.lanes.push(lane, &record, Origin { location: from, is_pinned: true }, io);
            bytes += u64::from(from.room());
            written += 1;
        }
        if let Some(partition) = self.catalog.get(partition) {
            partition.wasted_reads.set(partition.wasted_reads.get().saturating_sub(written));
        }
        self.stats.gathered_bytes += bytes;
        self.stats.cleaning_frame_bytes += self.cleaner.lanes.close_all(&mut self.space, io);
        if let Some(lane) = lane.filter(|_| self.may_gather()) {
            self.cleaner.lanes.open_ahead(lane, PAGES_AHEAD * bytes, &mut self.space, io);
        }
    }
}
