//! One call, as both clients see it: what to send, where it goes, and what to do when it fails.

use std::time::Duration;

use crate::client::connection::OwnedReply;
use crate::client::error::{BatchError, Failure, TableError, WriteError};
use crate::client::options::{Batch, Placement, TableOptions, ms_of};
use crate::client::view::NodeView;
use crate::wire::control::{CreateTable, NodeLimits};
use crate::wire::limits::MAX_TABLE_NAME_BYTES;
use crate::wire::map::{PlacementError, TableRoutes};
use crate::wire::{
    BatchView, Condition, MapVersion, PartitionId, Quota, RangeView, ReadView, RequestView, ScanView,
    ShardId, Status, Target, TransactionId, Ttl,
};

/// What is asked of a table's partition, or of the node.
#[derive(Clone, Debug)]
pub(crate) enum Ask<'a> {
    Get {
        key: &'a [u8],
    },
    Put {
        key: &'a [u8],
        value: &'a [u8],
        condition: Condition,
        ttl: Ttl,
    },
    Expire {
        key: &'a [u8],
        ttl: Ttl,
    },
    TimeToLive {
        key: &'a [u8],
    },
    Delete {
        key: &'a [u8],
        condition: Condition,
    },
    Increment {
        key: &'a [u8],
        by: i64,
        initial: i64,
    },
    Batch(BatchView<'a>),
    Scan(ScanView<'a>),
    Min,
    Max,
    Count(RangeView<'a>),
    Begin {
        read_only: bool,
        lifetime_ms: u32,
    },
    Within {
        transaction: TransactionId,
        read: ReadView<'a>,
    },
    Commit {
        transaction: TransactionId,
        batch: BatchView<'a>,
    },
    Rollback {
        transaction: TransactionId,
    },
    /// A request for the node as a whole.
    Node(RequestView<'a>),
}

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// To the partition of the table that holds the key.
    Key { table: &'a str, key: &'a [u8] },
    /// To this partition of the table.
    Partition { table: &'a str, id: PartitionId },
    /// To any shard.
    Node,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) ask: Ask<'a>,
    /// Which of a shard's connections; any, by turns, where it does not matter.
    pub(crate) turn: Option<usize>,
}

/// Where a call goes under the present map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) target: Target,
    /// `None`: any.
    pub(crate) shard: Option<ShardId>,
    /// The map that says so.
    pub(crate) map_version: MapVersion,
}

impl<'a> Call<'a> {
    pub(crate) fn on_key(table: &'a str, key: &'a [u8], ask: Ask<'a>) -> Call<'a> {
        Call { place: Place::Key { table, key }, ask, turn: None }
    }

    pub(crate) fn on_partition(table: &'a str, id: PartitionId, ask: Ask<'a>) -> Call<'a> {
        Call { place: Place::Partition { table, id }, ask, turn: None }
    }

    pub(crate) fn on_node(request: RequestView<'a>) -> Call<'a> {
        Call { place: Place::Node, ask: Ask::Node(request), turn: None }
    }

    /// Always by the same of a shard's connections.
    pub(crate) fn by_turn(self, turn: usize) -> Call<'a> {
        Call { turn: Some(turn), ..self }
    }

    /// Whether it may be sent twice: it changes nothing.
    pub(crate) fn is_read(&self) -> bool {
        match &self.ask {
            Ask::Get { .. } | Ask::TimeToLive { .. } => true,
            Ask::Scan(_) | Ask::Min | Ask::Max | Ask::Count(_) => true,
            Ask::Put { .. } | Ask::Delete { .. } | Ask::Batch(_) => false,
            // One that nobody knows of ends with the connection that was lost.
            Ask::Begin { .. } | Ask::Within { .. } | Ask::Rollback { .. } => true,
            Ask::Commit { .. } => false,
            // Neither counts twice, nor lives twice as long.
            Ask::Increment { .. } | Ask::Expire { .. } => false,
            Ask::Node(request) => !matches!(
                request,
                RequestView::CreateTable(_)
                    | RequestView::CreateTableTtl { .. }
                    | RequestView::CreateTableQuota { .. }
                    | RequestView::SetQuota { .. }
                    | RequestView::DropTable(_)
                    | RequestView::Checkpoint
            ),
        }
    }

    /// Refuses at once what the node would refuse, or what no frame can say.
    pub(crate) fn check(&self, view: &NodeView) -> Result<(), Failure> {
        let limits = view.limits();
        let (key, value) = match &self.ask {
            Ask::Get { key } | Ask::Delete { key, .. } | Ask::Increment { key, .. } => (*key, &[][..]),
            Ask::Expire { key, .. } | Ask::TimeToLive { key } => (*key, &[][..]),
            Ask::Within { read: ReadView::Get { key }, .. } => (*key, &[][..]),
            Ask::Put { key, value, .. } => (*key, *value),
            _ => return Ok(()),
        };
        if key.is_empty() || key.len() > limits.key_bytes as usize {
            return Err(Failure::KeyLength(key.len()));
        }
        if value.len() > limits.value_bytes as usize {
            return Err(Failure::ValueLength { len: value.len(), limit: limits.value_bytes as usize });
        }
        Ok(())
    }

    /// Where it goes under the present map.
    pub(crate) fn course(&self, view: &NodeView) -> Result<Course, Failure> {
        let map = view.map();
        let (table, partition) = match self.place {
            Place::Node => {
                return Ok(Course { target: Target::default(), shard: None, map_version: map.version() });
            }
            Place::Key { table, key } => (table, map.table(table).map(|t| t.partition_of(key))),
            Place::Partition { table, id } => {
                let partition = map.partition(id).filter(|(t, _)| t.name == table).map(|(_, p)| p);
                (table, map.table(table).map(|_| partition))
            }
        };
        let route = partition
            .ok_or_else(|| Failure::UnknownTable(table.to_owned()))?
            .ok_or_else(|| Failure::NoPartition(table.to_owned()))?
            .route();
        Ok(Course { target: route.target, shard: Some(route.shard), map_version: map.version() })
    }

    /// What is sent there.
    pub(crate) fn request(&self, target: Target) -> RequestView<'a> {
        match &self.ask {
            Ask::Get { key } => RequestView::Get { target, key },
            Ask::Put { key, value, condition, ttl } => {
                RequestView::Put { target, key, value, condition: *condition, ttl: *ttl }
            }
            Ask::Expire { key, ttl } => RequestView::Expire { target, key, ttl: *ttl },
            Ask::TimeToLive { key } => RequestView::TimeToLive { target, key },
            Ask::Delete { key, condition } => RequestView::Delete { target, key, condition: *condition },
            Ask::Increment { key, by, initial } => {
                RequestView::Increment { target, key, by: *by, initial: *initial }
            }
            Ask::Batch(batch) => RequestView::Batch { target, batch: *batch },
            Ask::Scan(scan) => RequestView::Scan { target, scan: *scan },
            Ask::Min => RequestView::Min { target },
            Ask::Max => RequestView::Max { target },
            Ask::Count(range) => RequestView::Count { target, range: *range },
            Ask::Begin { read_only, lifetime_ms } => {
                RequestView::Begin { target, read_only: *read_only, lifetime_ms: *lifetime_ms }
            }
            Ask::Within { transaction, read } => {
                RequestView::Within { target, transaction: *transaction, read: *read }
            }
            Ask::Commit { transaction, batch } => {
                RequestView::Commit { target, transaction: *transaction, batch: *batch }
            }
            Ask::Rollback { transaction } => RequestView::Rollback { target, transaction: *transaction },
            Ask::Node(request) => request.clone(),
        }
    }
}

/// Refuses a batch that the node would refuse.
pub(crate) fn check_batch(batch: &Batch, limits: &NodeLimits) -> Result<(), BatchError> {
    if let Some(misfit) = batch.misfit {
        return Err(WriteError::from(Failure::from(misfit)).into());
    }
    let (max_writes, max_bytes) = (limits.batch_writes as usize, limits.batch_bytes as usize);
    let (writes, bytes) = (batch.len(), batch.encoded_len());
    if writes == 0 || writes > max_writes || bytes > max_bytes {
        return Err(BatchError::Size { writes, bytes, max_writes, max_bytes });
    }
    for write in batch.view().writes() {
        let (key, value) = write.parts();
        let value_len = value.map_or(0, <[u8]>::len);
        let limit = limits.value_bytes as usize;
        if key.is_empty() || key.len() > limits.key_bytes as usize {
            return Err(WriteError::KeyLength { len: key.len() }.into());
        }
        if value_len > limit {
            return Err(WriteError::ValueLength { len: value_len, limit }.into());
        }
    }
    Ok(())
}

/// A key to route a batch by: its first, where all fall in one partition.
pub(crate) fn batch_key<'b>(batch: &'b Batch, table: &TableRoutes) -> Result<&'b [u8], BatchError> {
    let mut keys = batch.view().writes().map(|write| write.parts().0);
    let first = keys.next().unwrap_or_default();
    let partition = |key| table.partition_of(key).map(|p| p.id);
    let home = partition(first);
    match keys.all(|key| partition(key) == home) {
        true => Ok(first),
        false => Err(BatchError::SpansPartitions { table: table.name.clone() }),
    }
}

/// The request for a new table.
pub(crate) fn create_table(options: TableOptions) -> RequestView<'static> {
    let TableOptions { name, store, placement, ttl, quota } = options;
    let table = CreateTable { name, store, placement };
    let ttl_ms = ttl.map(ms_of);
    match ttl_ms {
        // Nodes from before there were quotas know these two.
        None if quota == Quota::default() => RequestView::CreateTable(table),
        Some(ttl_ms) if quota == Quota::default() => RequestView::CreateTableTtl { table, ttl_ms },
        // 0 would be none: let the node say that it is none.
        Some(0) => RequestView::CreateTableTtl { table, ttl_ms: 0 },
        ttl_ms => RequestView::CreateTableQuota { table, ttl_ms, quota },
    }
}

/// Refuses a table that the node would refuse.
pub(crate) fn check_table(options: &TableOptions) -> Result<(), TableError> {
    if !(1..=MAX_TABLE_NAME_BYTES).contains(&options.name.len()) {
        return Err(TableError::NameLength(options.name.clone()));
    }
    match &options.placement {
        Placement::Hash { partitions: 0 } => Err(PlacementError::NoPartitions.into()),
        // The ranges of a hash need no check, and might be many.
        Placement::Hash { .. } => Ok(()),
        placement => Ok(placement.ranges().map(drop)?),
    }
}

/// How one attempt ended without an answer.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) reason: String,
    pub(crate) maybe_sent: bool,
}

/// What to do after an attempt.
#[derive(Debug)]
pub(crate) enum Next {
    /// This is the answer, `Ok` or not.
    Answer(OwnedReply),
    /// There is none.
    Fail(Failure),
    /// Wait, then try again; first fetch the map where `refresh_map` says so.
    Again { wait: Duration, refresh_map: bool },
}

/// The attempts of one call so far.
#[derive(Debug)]
pub(crate) struct Attempts {
    retries: u32,
    losses: u32,
    waits: u32,
    map_refreshed: bool,
    last: Option<String>,
}

const FIRST_WAIT_US: u64 = 500;
const FIRST_WAIT_AFTER_LOSS_US: u64 = 20_000;
const MOST_DOUBLINGS: u32 = 7;

impl Attempts {
    pub(crate) fn new(retries: u32) -> Attempts {
        Attempts { retries, losses: 0, waits: 0, map_refreshed: false, last: None }
    }

    /// Doubles from half a millisecond to 64, so that a busy node is not asked faster than it can answer.
    fn wait(&mut self) -> Duration {
        let wait_us = FIRST_WAIT_US << self.waits.min(MOST_DOUBLINGS);
        self.waits += 1;
        Duration::from_micros(wait_us)
    }

    /// After a reply to a request that went by `course`.
    pub(crate) fn after_reply(&mut self, reply: OwnedReply, course: &Course, view: &NodeView) -> Next {
        match reply.status() {
            status @ (Status::Busy | Status::NotReady | Status::ShuttingDown) => {
                self.last = Some(status.text().to_owned());
                Next::Again { wait: self.wait(), refresh_map: false }
            }
            Status::StaleMap => {
                self.last = Some(Status::StaleMap.text().to_owned());
                // A newer map than the one we went by has come meanwhile, most likely with this very reply.
                if view.map().version() != course.map_version {
                    return Next::Again { wait: Duration::ZERO, refresh_map: false };
                }
                Next::Again { wait: self.wait(), refresh_map: true }
            }
            _ => Next::Answer(reply),
        }
    }

    /// After a connection was lost, or could not be had.
    pub(crate) fn after_loss(&mut self, call: &Call<'_>, loss: Loss) -> Next {
        self.losses += 1;
        if (loss.maybe_sent && !call.is_read()) || self.losses > self.retries {
            return Next::Fail(Failure::Lost { reason: loss.reason, maybe_sent: loss.maybe_sent });
        }
        self.last = Some(loss.reason);
        let wait_us = FIRST_WAIT_AFTER_LOSS_US << (self.losses - 1).min(MOST_DOUBLINGS);
        Next::Again { wait: Duration::from_micros(wait_us), refresh_map: false }
    }

    /// After the map had no course for it: the map may be old, so it is fetched, once.
    pub(crate) fn after_no_course(&mut self, failure: Failure) -> Next {
        if std::mem::replace(&mut self.map_refreshed, true) {
            return Next::Fail(failure);
        }
        Next::Again { wait: Duration::ZERO, refresh_map: true }
    }

    /// After the time was over. `maybe_sent` of a read is of no interest to anyone.
    pub(crate) fn after_timeout(&mut self, call: &Call<'_>, timeout: Duration, maybe_sent: bool) -> Failure {
        Failure::Timeout { timeout, maybe_sent: maybe_sent && !call.is_read(), last: self.last.take() }
    }
}
