//! What a shard tells whoever observes the node, once a second: all that it has counted, and the sizes of a few partitions.
//! It costs the same whatever the number of partitions.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use lode_engine::{PartitionId, PartitionSize, ShardId, ShardStats};

use super::fair::Share;
use super::meter::{Kind, Meter, Served};
use super::{Reactor, ReactorIo, ReactorStats};
use crate::dispatch::Answer;
use crate::mailbox::NodeMap;

/// Partitions whose sizes are told at a time. That many take about 20 us.
const SIZES_AT_A_TIME: usize = 1024;

/// What a shard was found to be.
#[derive(Debug)]
pub struct Sample {
    /// What was counted since the last time.
    pub meter: Box<Meter>,
    /// The sizes of some of its partitions.
    pub sizes: Vec<PartitionSize>,
    /// Where those begin; told by the shard: where the next begin, from 0 again after the last.
    pub sizes_from: PartitionId,
    /// Whether the sizes of all partitions have been told since they began from 0.
    pub is_round: bool,
    /// The engine's counters, but for the number of records in memory tables.
    pub engine: Option<ShardStats>,
    /// The reactor's.
    pub reactor: ReactorStats,
    /// The partition map that the shard has.
    pub map: Arc<NodeMap>,
}

impl Sample {
    /// Of nothing yet, to be filled by a shard.
    pub fn empty() -> Sample {
        Sample {
            meter: Box::default(),
            sizes: Vec::with_capacity(SIZES_AT_A_TIME),
            sizes_from: PartitionId(0),
            is_round: false,
            engine: None,
            reactor: ReactorStats::default(),
            map: Arc::new(NodeMap::empty()),
        }
    }
}

/// The observer's question, with room for the answer. Its meter is empty.
#[derive(Debug)]
pub struct Observation {
    /// The room.
    pub sample: Box<Sample>,
    /// Where it goes.
    pub back: Sender<(ShardId, Box<Sample>)>,
}

impl<I: ReactorIo> Reactor<I> {
    /// Fills a sample and sends it back. The first time begins the counting.
    pub(super) fn observe(&mut self, observation: Observation) {
        let Observation { mut sample, back } = observation;
        match &mut self.meter {
            Some(meter) => std::mem::swap(meter, &mut sample.meter),
            None => self.meter = Some(std::mem::take(&mut sample.meter)),
        }
        sample.sizes.clear();
        let next = self.engine.partition_sizes(sample.sizes_from, SIZES_AT_A_TIME, &mut sample.sizes);
        sample.is_round = next.is_none();
        sample.sizes_from = next.unwrap_or(PartitionId(0));
        sample.engine = Some(self.engine.brief_stats());
        sample.reactor = self.stats();
        sample.map = Arc::clone(&self.map);
        // An observer that has gone wants no answer.
        let _ = back.send((self.config.shard, sample));
    }

    /// What was answered in the last turn has gone out by now.
    pub(super) fn settle_meter(&mut self, now_ns: u64) {
        if let Some(meter) = &mut self.meter {
            meter.settle(now_ns);
        }
    }

    /// A request that ran has been answered.
    pub(super) fn count_served(
        &mut self,
        share: Option<Share>,
        (read_bytes, rewritten_bytes): (u64, u64),
        answer: &Answer,
        since_ns: u64,
    ) {
        if let (Some(meter), Some(share)) = (&mut self.meter, share) {
            let status = answer.head.status;
            let writes = matches!(Kind::of(answer.head.opcode), Some(Kind::Write | Kind::Transaction));
            let write_bytes = writes.then(|| share.write_bytes().saturating_add(rewritten_bytes as u32));
            meter.served(Served { partition: share.partition, write_bytes, read_bytes, status, since_ns });
        }
    }
}
