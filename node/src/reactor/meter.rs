//! What was asked of each partition, how it ended and how long it took: counted by a shard for whoever observes the node.
//!
//! The observer takes the whole meter away and leaves an empty one, so a shard does the same little work for it whatever the
//! number of partitions; adding up is the observer's. Where nobody observes, nothing is counted.

use lode_net::wire::{Opcode, PartitionId, Status};

use super::latency::Latencies;

/// Ids of a page.
const PAGE_IDS: usize = 256;
/// Of an id of which nothing was asked.
const NO_ROW: u32 = u32::MAX;

/// Kinds of requests that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads of one record.
    Get,
    /// Reads of many.
    Scan,
    /// Changes.
    Write,
    /// Begin, commit and rollback of transactions; what they read counts with other reads.
    Transaction,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Get, Kind::Scan, Kind::Write, Kind::Transaction];

    /// Of an opcode; nothing of those that are about no record.
    pub fn of(opcode: u8) -> Option<Kind> {
        use Opcode::{
            Batch, Begin, Commit, Count, Delete, Expire, Get, Increment, Max, Min, Put, Rollback, Scan,
            TimeToLive, TransactionCount, TransactionGet, TransactionScan,
        };
        Some(match Opcode::from_u8(opcode)? {
            Get | Min | Max | TimeToLive | TransactionGet => Kind::Get,
            Scan | Count | TransactionScan | TransactionCount => Kind::Scan,
            Put | Delete | Batch | Increment | Expire => Kind::Write,
            Begin | Commit | Rollback => Kind::Transaction,
            _ => return None,
        })
    }

    /// As it is called in labels.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Get => "get",
            Kind::Scan => "scan",
            Kind::Write => "write",
            Kind::Transaction => "transaction",
        }
    }
}

/// How an answer counts for its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// Too much was asked for.
    Limited,
    /// Something is broken or full.
    Failed,
}

fn outcome(status: Status) -> Outcome {
    use Status::{
        Busy, Corrupt, DeviceError, Full, MayReturn, MemoryFull, NoSpace, NotReady, Poisoned, Quarantined,
        Throttled, TooManyTransactions,
    };
    match status {
        Busy | Throttled | TooManyTransactions => Outcome::Limited,
        Corrupt | DeviceError | MayReturn | Poisoned | Quarantined | Full | MemoryFull | NoSpace
        | NotReady => Outcome::Failed,
        _ => Outcome::Answered,
    }
}

/// What was asked of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionCounts {
    /// Reads that were answered.
    pub reads: u32,
    /// Writes, and what else there is.
    pub writes: u32,
    /// Requests that failed: damage, a drive that errs, no room.
    pub failed: u32,
    /// Requests refused because the partition, or the shard, had too many.
    pub limited: u32,
    /// Longest that one took, in nanoseconds.
    pub longest_ns: u64,
    /// All of them together.
    pub waited_ns: u64,
    /// Bytes of keys and values read.
    pub read_bytes: u64,
    /// Bytes of requests that write.
    pub write_bytes: u64,
}

impl PartitionCounts {
    /// Adds others.
    pub fn merge(&mut self, other: &PartitionCounts) {
        self.reads = self.reads.saturating_add(other.reads);
        self.writes = self.writes.saturating_add(other.writes);
        self.failed = self.failed.saturating_add(other.failed);
        self.limited = self.limited.saturating_add(other.limited);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        self.waited_ns += other.waited_ns;
        self.read_bytes += other.read_bytes;
        self.write_bytes += other.write_bytes;
    }
}

/// What a request was, to be counted when its answer is there.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// The partition.
    pub partition: PartitionId,
    /// Bytes that it brought to be written; nothing of a read.
    pub write_bytes: Option<u32>,
    /// Bytes that it gave.
    pub read_bytes: u64,
    /// How it ended.
    pub status: Status,
    /// When it came.
    pub since_ns: u64,
}

/// An answer that goes out at the end of this turn.
#[derive(Clone, Copy, Debug)]
enum Open {
    Row(u32, u64),
    Kind(Kind, u64),
}

/// The counters of one shard since the observer took them last.
#[derive(Debug)]
pub struct Meter {
    /// Rows by partition id.
    pages: Vec<Option<Box<[u32; PAGE_IDS]>>>,
    rows: Vec<(PartitionId, PartitionCounts)>,
    /// By kind.
    latencies: [Latencies; Kind::ALL.len()],
    /// By status.
    statuses: Vec<u64>,
    open: Vec<Open>,
}

impl Default for Meter {
    fn default() -> Meter {
        Meter {
            pages: Vec::new(),
            rows: Vec::new(),
            latencies: Default::default(),
            statuses: vec![0; Status::ALL.len()],
            open: Vec::new(),
        }
    }
}

impl Meter {
    fn row_of(&mut self, partition: PartitionId) -> u32 {
        let (page, place) = (partition.0 as usize / PAGE_IDS, partition.0 as usize % PAGE_IDS);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let row = &mut self.pages[page].get_or_insert_with(|| Box::new([NO_ROW; PAGE_IDS]))[place];
        if *row == NO_ROW {
            *row = self.rows.len() as u32;
            self.rows.push((partition, PartitionCounts::default()));
        }
        *row
    }

    /// A partition of this shard was asked for something, which was not begun.
    pub fn limited(&mut self, partition: PartitionId) {
        let row = self.row_of(partition);
        self.rows[row as usize].1.limited += 1;
    }

    /// A partition of this shard has answered.
    pub fn served(&mut self, served: Served) {
        let row = self.row_of(served.partition);
        let counts = &mut self.rows[row as usize].1;
        match (outcome(served.status), served.write_bytes) {
            (Outcome::Limited, _) => counts.limited += 1,
            (Outcome::Failed, _) => counts.failed += 1,
            (Outcome::Answered, None) => counts.reads += 1,
            (Outcome::Answered, Some(bytes)) => {
                counts.writes += 1;
                counts.write_bytes += u64::from(bytes);
            }
        }
        counts.read_bytes += served.read_bytes;
        self.open.push(Open::Row(row, served.since_ns));
    }

    /// A connection of this shard gets an answer.
    pub fn answered(&mut self, opcode: u8, status: Status, since_ns: u64) {
        self.statuses[status as usize] += 1;
        if let Some(kind) = Kind::of(opcode) {
            self.open.push(Open::Kind(kind, since_ns));
        }
    }

    /// The turn ends: what was answered in it took until now.
    pub fn settle(&mut self, now_ns: u64) {
        for open in self.open.drain(..) {
            match open {
                Open::Row(row, since_ns) => {
                    let (counts, took_ns) = (&mut self.rows[row as usize].1, now_ns.saturating_sub(since_ns));
                    counts.waited_ns += took_ns;
                    counts.longest_ns = counts.longest_ns.max(took_ns);
                }
                Open::Kind(kind, since_ns) => {
                    self.latencies[kind as usize].add(now_ns.saturating_sub(since_ns));
                }
            }
        }
    }

    /// What was counted, by partition.
    pub fn rows(&self) -> &[(PartitionId, PartitionCounts)] {
        &self.rows
    }

    /// How long requests took, by kind.
    pub fn latencies(&self) -> &[Latencies; Kind::ALL.len()] {
        &self.latencies
    }

    /// How requests ended, by status.
    pub fn statuses(&self) -> &[u64] {
        &self.statuses
    }

    /// Nothing was counted; the memory stays, but for pages of ids that nobody uses any more.
    pub fn clear(&mut self) {
        let mut used = vec![false; self.pages.len()];
        for (partition, _) in self.rows.drain(..) {
            let (page, place) = (partition.0 as usize / PAGE_IDS, partition.0 as usize % PAGE_IDS);
            used[page] = true;
            if let Some(page) = &mut self.pages[page] {
                page[place] = NO_ROW;
            }
        }
        self.pages.iter_mut().zip(used).filter(|(_, used)| !used).for_each(|(page, _)| *page = None);
        self.latencies.iter_mut().for_each(Latencies::clear);
        self.statuses.fill(0);
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(partition: u32, write_bytes: Option<u32>, status: Status, since_ns: u64) -> Served {
        let read_bytes = if write_bytes.is_none() { 100 } else { 0 };
        Served { partition: PartitionId(partition), write_bytes, read_bytes, status, since_ns }
    }

    #[test]
    fn what_was_asked_is_counted_for_its_partition_and_time_runs_to_the_end_of_the_turn() {
        let mut meter = Meter::default();
        meter.served(served(700, None, Status::Ok, 1_000));
        meter.served(served(3, Some(50), Status::Ok, 2_000));
        meter.served(served(700, None, Status::NotFound, 4_000));
        meter.served(served(3, Some(50), Status::Poisoned, 5_000));
        meter.served(served(3, Some(50), Status::Busy, 5_000));
        meter.limited(PartitionId(3));
        meter.answered(Opcode::Get as u8, Status::Ok, 1_000);
        meter.answered(Opcode::Stats as u8, Status::Ok, 1_000);
        meter.settle(6_000);
        let of = |meter: &Meter, id| {
            meter.rows().iter().find(|(partition, _)| partition.0 == id).map(|(_, counts)| *counts)
        };
        let read = PartitionCounts {
            reads: 2,
            read_bytes: 200,
            waited_ns: 7_000,
            longest_ns: 5_000,
            ..PartitionCounts::default()
        };
        assert_eq!(of(&meter, 700), Some(read));
        let written = of(&meter, 3).expect("counted");
        assert_eq!((written.writes, written.write_bytes, written.failed, written.limited), (1, 50, 1, 2));
        assert_eq!(meter.latencies()[Kind::Get as usize].count(), 1);
        assert_eq!(meter.statuses()[Status::Ok as usize], 2);
        meter.clear();
        assert!(meter.rows().is_empty() && meter.statuses().iter().all(|count| *count == 0));
        meter.limited(PartitionId(3));
        assert_eq!((of(&meter, 3).map(|counts| counts.limited), of(&meter, 700)), (Some(1), None));
        meter.clear();
        assert!(meter.pages[2].is_none(), "a page that nobody used is given back");
    }
}
