//! What can be asked of a shard, as plain data that borrows the caller's bytes.

use crate::ids::{Epoch, OwnerId, PartitionId, RequestId, Seq, TableId, TransactionId};
use crate::index::PartitionIndex;
use crate::quota::{Quota, QuotaOf};

/// One request for a partition (or, for the catalog's, for the shard).
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Comes back in the reply.
    pub id: RequestId,
    /// What to do.
    pub body: RequestBody<'a>,
}

/// Which partition, as the caller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The partition.
    pub partition: PartitionId,
    /// The epoch the caller believes it has; checked on every request.
    pub epoch: Epoch,
}

/// The operations of a shard.
#[derive(Debug, Clone)]
pub enum RequestBody<'a> {
    /// Read one record.
    Get {
        /// Which partition.
        target: Target,
        /// The key.
        key: &'a [u8],
    },
    /// Write one record, if `condition` holds.
    Put {
        /// Which partition.
        target: Target,
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// When to write.
        condition: Condition,
        /// How long it is to live.
        ttl: Ttl,
    },
    /// Delete one record, if `condition` holds.
    Delete {
        /// Which partition.
        target: Target,
        /// The key.
        key: &'a [u8],
        /// When to delete.
        condition: Condition,
    },
    /// Read a record and write it anew in one step: nobody else's write of the key comes between.
    Modify {
        /// Which partition.
        target: Target,
        /// The key.
        key: &'a [u8],
        /// What is to become of it.
        change: Change,
    },
    /// All of these writes, or none; later ones of the same key win.
    Batch {
        /// Which partition.
        target: Target,
        /// In order.
        writes: Vec<BatchWrite<'a>>,
    },
    /// How long a record has still to live. Takes no read of the drive.
    TimeToLive {
        /// Which partition.
        target: Target,
        /// The key.
        key: &'a [u8],
    },
    /// One page of records in key order, as of one instant. `Min` is a forward scan of one record,
    /// `Max` a reverse one.
    Scan {
        /// Which partition.
        target: Target,
        /// From where to where.
        range: KeyRange<'a>,
        /// Descending order, from the range's end.
        reverse: bool,
        /// Most records, 1..=`MAX_SCAN_RECORDS`.
        limit: u32,
        /// Most bytes of keys and values, 1..=`MAX_SCAN_BYTES`; at least one record is given.
        byte_budget: u32,
        /// Leave out the values, and the device reads they need.
        keys_only: bool,
    },
    /// How many records a range holds.
    Count {
        /// Which partition.
        target: Target,
        /// From where to where; everything by default.
        range: KeyRange<'a>,
    },
    /// Begin a transaction: it sees the partition as it is now.
    Begin {
        /// Which partition.
        target: Target,
        /// Whose it is: nobody else's requests find it.
        owner: OwnerId,
        /// It will write nothing: what it reads is not remembered, and it never conflicts.
        read_only: bool,
        /// How long it may live, in milliseconds, at most `MAX_TRANSACTION_MS`; 0 for
        /// `DEFAULT_TRANSACTION_MS`.
        lifetime_ms: u32,
    },
    /// Read what a transaction sees.
    Within {
        /// Which partition: the transaction's.
        target: Target,
        /// The transaction.
        transaction: TransactionId,
        /// What to read.
        read: TransactionRead<'a>,
    },
    /// All of these writes, or none, if nothing that the transaction has read was changed since it began. Then,
    /// and after a conflict, the transaction has ended; after any other error it goes on.
    Commit {
        /// Which partition: the transaction's.
        target: Target,
        /// The transaction.
        transaction: TransactionId,
        /// In order; none is fine.
        writes: Vec<BatchWrite<'a>>,
    },
    /// End a transaction without writing anything; one that has ended already is no error.
    Rollback {
        /// Which partition: the transaction's. Its epoch does not matter.
        target: Target,
        /// The transaction.
        transaction: TransactionId,
    },
    /// End all transactions of an owner, which is gone.
    EndTransactions {
        /// Whose.
        owner: OwnerId,
    },
    /// Make a table and the partitions of it that live in this shard, atomically.
    CreateTable {
        /// The table.
        table: TableSpec,
        /// This shard's partitions of it.
        partitions: Vec<PartitionSpec>,
    },
    /// Forget a table and this shard's partitions of it. Space comes back lazily.
    DropTable {
        /// Which.
        table: TableId,
    },
    /// Add one partition to a table.
    CreatePartition {
        /// The partition.
        partition: PartitionSpec,
    },
    /// Forget one partition. Space comes back lazily.
    DropPartition {
        /// Which.
        partition: PartitionId,
    },
    /// Set the quota of a table, or of one partition.
    SetQuota {
        /// Whose.
        of: QuotaOf,
        /// The quota; `None`: a partition has its table's again, and a table that of one that says nothing.
        quota: Option<Quota>,
    },
    /// The tables and partitions of this shard.
    ListTables,
    /// Tables that this shard may have lost (`ShardStats::may_lack_tables`) were looked for elsewhere and made again
    /// here: it lacks none any more. Answered at once; a checkpoint follows, which says so to the next start.
    HasAllTables,
    /// Counters and gauges of this shard.
    Stats,
    /// Write a checkpoint now; answers when it is durable. A clean stop ends with one.
    Checkpoint,
    /// Begin a round of the scrub from the beginning, at full rate; answers at once. Stats tell how far it is.
    Scrub,
}

/// What can be read in a transaction; each as the request of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionRead<'a> {
    /// One record.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// One page of records.
    Scan(ScanWish<'a>),
    /// How many records there are.
    Count {
        /// From where to where.
        range: KeyRange<'a>,
    },
}

/// What a page of a scan shall hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanWish<'a> {
    /// From where to where.
    pub range: KeyRange<'a>,
    /// Descending order, from the range's end.
    pub reverse: bool,
    /// Most records, 1..=`MAX_SCAN_RECORDS`.
    pub limit: u32,
    /// Most bytes of keys and values, 1..=`MAX_SCAN_BYTES`; at least one record is given.
    pub byte_budget: u32,
    /// Leave out the values, and the device reads they need.
    pub keys_only: bool,
}

/// When a write takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// Only if there is no such record.
    IfAbsent,
    /// Only if the record is there and has this version.
    IfSeq(Seq),
}

/// What a [`Modify`](RequestBody::Modify) makes of the present record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Add to a number, which goes on to expire when it does: a value of decimal digits, perhaps behind a minus, that fits an `i64`.
    Increment {
        /// What is added; may be negative.
        by: i64,
        /// What it is added to where there is no record.
        initial: i64,
    },
    /// Set anew when the record expires. Where there is none, nothing is done.
    Expire {
        /// How long it is to live from now on.
        ttl: Ttl,
    },
}

/// How long a record is to live. When that is over, it is as if it had been deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// As its table says.
    #[default]
    Table,
    /// For ever, whatever its table says.
    Never,
    /// From the write on, so many milliseconds: 1..=`MAX_TTL_MS`.
    After {
        /// Milliseconds.
        ttl_ms: u64,
    },
}

/// One write of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchWrite<'a> {
    /// Write a record.
    Put {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Write a record that lives as long as is said here, and not as its table says.
    PutFor {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// How long it is to live.
        ttl: Ttl,
    },
    /// Delete a record, there or not.
    Delete {
        /// The key.
        key: &'a [u8],
    },
}

/// A half-open range of raw keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyRange<'a> {
    /// First key of the range; empty means from the smallest.
    pub start: &'a [u8],
    /// First key beyond the range; `None` means to the largest.
    pub end: Option<&'a [u8]>,
}

/// Where a table keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreKind {
    /// In the log on the drive.
    Durable,
    /// In memory only; empty after a restart.
    Memory,
}

/// How keys map to partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Partition ranges are over raw keys.
    Range,
    /// Partition ranges are over the big-endian CRC32C of the key.
    Hash,
}

/// What the index of a durable table holds of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexKind {
    /// All of each: no read is ever needed to know which keys there are.
    #[default]
    Full,
    /// What tells most of them apart: about 10 bytes of memory a key. Overwrites and scans of keys read records.
    Compact,
}

impl IndexKind {
    /// An empty index of this kind.
    pub fn new_index(self) -> PartitionIndex {
        match self {
            IndexKind::Full => PartitionIndex::new(),
            IndexKind::Compact => PartitionIndex::compact(),
        }
    }
}

/// A table, as it is made and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// Its id.
    pub id: TableId,
    /// Its name, 1..=`MAX_TABLE_NAME_BYTES` bytes.
    pub name: String,
    /// Where its records live.
    pub store: StoreKind,
    /// How keys map to partitions.
    pub placement: Placement,
    /// How long its records live unless they say otherwise, in milliseconds; `None` is for ever.
    pub ttl_ms: Option<u64>,
    /// What each of its partitions may take that has no quota of its own.
    pub quota: Quota,
    /// What its index holds of its keys; of no meaning for a memory table.
    pub index: IndexKind,
}

/// A partition, as it is made and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSpec {
    /// Its id.
    pub id: PartitionId,
    /// The table it is a range of.
    pub table: TableId,
    /// Its fencing number.
    pub epoch: Epoch,
    /// First key (or hash) of its range; empty means from the smallest.
    pub start: Vec<u8>,
    /// First key (or hash) beyond its range; `None` means to the largest.
    pub end: Option<Vec<u8>>,
}
