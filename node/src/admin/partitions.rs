//! Every partition that the observer knows of: what it holds, and what is asked of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lode_engine::PartitionSize;
use lode_net::wire;
use serde_json::{Value, json};

use super::limits::MAX_PARTITIONS;
use crate::mailbox::NodeMap;
use crate::reactor::meter::PartitionCounts;

/// What is known of each partition, in this order.
pub const SERIES: [&str; 10] = [
    "reads_per_s",
    "writes_per_s",
    "read_bytes_per_s",
    "write_bytes_per_s",
    "failed_per_s",
    "limited_per_s",
    "latency_mean_us",
    "latency_max_us",
    "records",
    "bytes",
];
/// Those that are counted over a time, and told by the second.
pub const RATES: usize = 6;

/// One figure as it is told: counts over a time by the second.
pub fn figure_json(series: usize, figure: u64, seconds: f64) -> Value {
    match series < RATES {
        true => json!((figure as f64 / seconds * 10.0).round() / 10.0),
        false => json!(figure),
    }
}

/// The series of one partition, over some time; those that are rates as counts.
pub type Figures = [u64; SERIES.len()];

/// A partition's part of a table's keys, as far as people tell it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its table's name.
    pub table: String,
    /// The first key (or hash) of its range.
    pub start: Vec<u8>,
    /// The first beyond it.
    pub end: Option<Vec<u8>>,
    /// Whether the range is one of hashes.
    pub is_hashed: bool,
}

/// One partition over the last few seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Its id.
    pub partition: u32,
    /// Its table's id.
    pub table: u32,
    /// The shard that it is on.
    pub shard: u16,
    /// Over those seconds.
    pub figures: Figures,
}

impl Live {
    /// Requests of any kind and end.
    pub fn requests(&self) -> u64 {
        let [reads, writes, _, _, failed, limited, ..] = self.figures;
        reads + writes + failed + limited
    }
}

#[derive(Debug)]
struct Tracked {
    table: u32,
    shard: u16,
    /// The round of its shard's sizes that it was in last.
    round: u64,
    records: u64,
    bytes: u64,
    live: PartitionCounts,
    step: PartitionCounts,
}

impl Tracked {
    fn figures(&self, counts: &PartitionCounts) -> Figures {
        let answers = u64::from(counts.reads) + u64::from(counts.writes);
        let all = answers + u64::from(counts.failed) + u64::from(counts.limited);
        [
            counts.reads.into(),
            counts.writes.into(),
            counts.read_bytes,
            counts.write_bytes,
            counts.failed.into(),
            counts.limited.into(),
            counts.waited_ns / 1000 / all.max(1),
            counts.longest_ns / 1000,
            self.records,
            self.bytes,
        ]
    }
}

/// All of them, up to [`MAX_PARTITIONS`].
#[derive(Debug)]
pub struct Partitions {
    known: HashMap<u32, Tracked, ahash::RandomState>,
    /// By shard: the round of sizes that is under way, and how many partitions the last one had no room for.
    rounds: HashMap<u16, (u64, u64)>,
}

impl Default for Partitions {
    fn default() -> Partitions {
        // Fixed seeds: the node itself gives the ids, so nobody can choose them to collide.
        let known = HashMap::with_hasher(ahash::RandomState::with_seeds(61, 62, 63, 64));
        Partitions { known, rounds: HashMap::new() }
    }
}

impl Partitions {
    /// What was asked of a partition of a shard. One whose size has not been told yet is not known: it may be dropped.
    pub fn count(&mut self, partition: wire::PartitionId, counts: &PartitionCounts) {
        if let Some(tracked) = self.known.get_mut(&partition.0) {
            tracked.live.merge(counts);
            tracked.step.merge(counts);
        }
    }

    /// What partitions of a shard hold; `is_round`: those told since the last round are all that there are.
    pub fn sizes(&mut self, shard: u16, sizes: &[PartitionSize], is_round: bool) {
        let (round, left_out) = self.rounds.entry(shard).or_insert((1, 0));
        let now = *round;
        for size in sizes {
            let room = self.known.len() < MAX_PARTITIONS;
            if !room && !self.known.contains_key(&size.partition.0) {
                *left_out += 1;
                continue;
            }
            let tracked = self.known.entry(size.partition.0).or_insert_with(|| Tracked {
                table: size.table.0,
                shard,
                round: now,
                records: 0,
                bytes: 0,
                live: PartitionCounts::default(),
                step: PartitionCounts::default(),
            });
            (tracked.round, tracked.records, tracked.bytes) = (now, size.records, size.bytes);
        }
        if is_round {
            self.known.retain(|_, tracked| tracked.shard != shard || tracked.round == now);
            self.rounds.insert(shard, (now + 1, 0));
        }
    }

    /// The last few seconds of each, by id; the next begin.
    pub fn take_live(&mut self) -> Vec<Live> {
        let mut live: Vec<Live> = Vec::with_capacity(self.known.len());
        for (id, tracked) in &mut self.known {
            let figures = tracked.figures(&tracked.live);
            tracked.live = PartitionCounts::default();
            live.push(Live { partition: *id, table: tracked.table, shard: tracked.shard, figures });
        }
        live.sort_unstable_by_key(|live| live.partition);
        live
    }

    /// What each did since this was asked last, by id.
    pub fn take_step(&mut self) -> Vec<(u32, Figures)> {
        let mut step: Vec<(u32, Figures)> = Vec::with_capacity(self.known.len());
        for (id, tracked) in &mut self.known {
            step.push((*id, tracked.figures(&tracked.step)));
            tracked.step = PartitionCounts::default();
        }
        step.sort_unstable_by_key(|(id, _)| *id);
        step
    }

    /// Partitions that there was no room for.
    pub fn left_out(&self) -> u64 {
        self.rounds.values().map(|(_, left_out)| left_out).sum()
    }
}

/// The `most` with the most requests over the last few seconds, the busiest first; none without any.
pub fn top(live: &[Live], most: usize) -> Vec<Live> {
    let mut busy: Vec<&Live> = live.iter().filter(|live| live.requests() > 0).collect();
    let by_load = |live: &&Live| (std::cmp::Reverse(live.requests()), live.partition);
    if busy.len() > most {
        busy.select_nth_unstable_by_key(most, by_load);
        busy.truncate(most);
    }
    busy.sort_unstable_by_key(by_load);
    busy.into_iter().cloned().collect()
}

/// The names of a map's tables, by id.
pub fn table_names(map: &NodeMap) -> BTreeMap<u32, Arc<str>> {
    map.published.map.tables().iter().map(|table| (table.id.0, table.name.as_str().into())).collect()
}

/// What a partition of the map is a part of.
pub fn described(map: &NodeMap, partition: u32) -> Option<Described> {
    map.published.map.tables().iter().find_map(|table| {
        let found = table.partitions().iter().find(|found| found.id.0 == partition)?;
        let is_hashed = table.placement == wire::control::PlacementKind::Hash;
        let (start, end) = (found.start.clone(), found.end.clone());
        Some(Described { table: table.name.clone(), start, end, is_hashed })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lode_engine::{PartitionId, TableId};

    fn size(id: u32, records: u64) -> PartitionSize {
        PartitionSize { partition: PartitionId(id), table: TableId(1), records, bytes: records * 10 }
    }

    #[test]
    fn partitions_are_known_by_their_sizes_and_go_when_a_round_passes_without_them() {
        let mut partitions = Partitions::default();
        let read = PartitionCounts { reads: 5, waited_ns: 50_000, ..PartitionCounts::default() };
        partitions.count(wire::PartitionId(1), &read);
        partitions.sizes(0, &[size(1, 7), size(2, 8)], true);
        partitions.sizes(1, &[size(3, 9)], true);
        partitions.count(wire::PartitionId(1), &read);
        partitions.count(wire::PartitionId(1), &read);
        let live = partitions.take_live();
        assert_eq!(live.iter().map(|live| live.partition).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(live[0].figures, [10, 0, 0, 0, 0, 0, 10, 0, 7, 70]);
        assert_eq!(top(&live, 2).len(), 1, "who does nothing is not at the top");
        assert_eq!(partitions.take_live()[0].requests(), 0, "what was told is told once");
        assert_eq!(partitions.take_step()[0], (1, [10, 0, 0, 0, 0, 0, 10, 0, 7, 70]));
        partitions.sizes(0, &[size(2, 8)], false);
        assert_eq!(partitions.take_step().len(), 3, "the round is not over");
        partitions.sizes(0, &[], true);
        let left: Vec<u32> = partitions.take_step().iter().map(|(id, _)| *id).collect();
        assert_eq!(left, [2, 3]);
    }

    #[test]
    fn the_busiest_come_first_and_there_are_no_more_than_asked_for() {
        let live = |id: u32| Live {
            partition: id,
            table: 1,
            shard: 0,
            figures: [u64::from(id * 7 % 100), 0, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        let all: Vec<Live> = (1..=100).map(live).collect();
        let found: Vec<u64> = top(&all, 5).iter().map(Live::requests).collect();
        assert_eq!(found, [99, 98, 97, 96, 95]);
    }
}
