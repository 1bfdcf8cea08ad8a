//! What a shard answers: one result type, and one error enum, per operation.

use bytes::Bytes;
use thiserror::Error;

use crate::ids::{BufferId, Epoch, PartitionId, RequestId, Seq, TableId, TransactionId};
use crate::quota::Quota;
use crate::request::{PartitionSpec, TableSpec};
use crate::stats::ShardStats;

const TRANSACTION_ENDED: &str = "the transaction has ended: it was committed or rolled back, lived too long, held too much, or its table was dropped; begin it again";

/// The answer to one request.
#[derive(Debug)]
pub struct Reply {
    /// The request's own id.
    pub id: RequestId,
    /// The answer.
    pub body: ReplyBody,
    /// What it waited for.
    pub delay: Delay,
}

/// What a request waited for since the shard took it in, in nanoseconds. The rest of its time it was the shard's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delay {
    /// The drive's operation that its answer came with: a read, or the write of its frame. Of a page of a scan, from
    /// its first read on.
    pub drive_ns: u64,
    /// Since its records were in a frame, but for that frame's write: until it was closed, and for frames before it.
    pub commit_ns: u64,
}

/// An answer, by operation.
#[derive(Debug)]
pub enum ReplyBody {
    /// To `Get`; `None` where there is no such record.
    Get(Result<Option<Found>, ReadError>),
    /// To `TimeToLive`; `None` where there is no such record.
    TimeToLive(Result<Option<TimeLeft>, ReadError>),
    /// To `Put`, `Delete`, `Modify` and `Batch`.
    Write(Result<Written, WriteError>),
    /// To `Scan`.
    Scan(Result<ScanPage, ReadError>),
    /// To `Count`.
    Count(Result<u64, ReadError>),
    /// To `CreateTable`, `DropTable`, `CreatePartition`, `DropPartition`, `SetQuota` and `HasAllTables`.
    Catalog(Result<(), CatalogError>),
    /// To `Begin`.
    Begin(Result<TransactionId, BeginError>),
    /// To `Rollback` and `EndTransactions`.
    Rollback,
    /// To `ListTables`.
    Tables(Vec<(TableSpec, Vec<PartitionInfo>)>),
    /// To `Stats`.
    Stats(Box<ShardStats>),
    /// To `Checkpoint`.
    Checkpoint(Result<(), CheckpointError>),
    /// To `Scrub`: the round's number among those that were asked for since the start, 0 where the shard is not
    /// open. It has ended when the stats call it answered.
    Scrub(u64),
}

/// A record that was found.
#[derive(Debug)]
pub struct Found {
    /// Its version.
    pub seq: Seq,
    /// Its value.
    pub value: Payload,
    /// How long it has still to live.
    pub left: TimeLeft,
}

/// How long a record has still to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeLeft {
    /// It never expires.
    #[default]
    Forever,
    /// So many milliseconds, at least 1.
    Ms(u64),
}

/// A value on its way out.
#[derive(Debug)]
pub enum Payload {
    /// From the read cache or the memory store.
    Shared(Bytes),
    /// In the very buffer the drive read into. The receiver owns the buffer, and releases it to the
    /// pool once the bytes have gone out.
    Buffer {
        /// The buffer.
        buffer: BufferId,
        /// Where in it the value begins.
        start: u32,
        /// The value's length in bytes.
        len: u32,
    },
}

/// A write that took place and is durable (in a durable table).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its version; of a batch, the last write's.
    pub seq: Seq,
    /// Whether there was such a record before; of a batch, before its first write.
    pub existed: bool,
    /// Of an increment, the number that the record holds now.
    pub number: Option<i64>,
    /// Bytes of keys and values that it wrote: more than it brought, where it writes again what was there.
    pub bytes: u64,
}

/// One page of a scan.
#[derive(Debug, Default)]
pub struct ScanPage {
    /// The records, in the order asked for.
    pub records: Vec<ScanRecord>,
    /// Whether the range holds more; the next page starts after (or ends before) the last key.
    pub more: bool,
}

/// One record of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRecord {
    /// Its key.
    pub key: Bytes,
    /// Its version; zero when only keys were asked for.
    pub seq: Seq,
    /// Its value; empty when only keys were asked for.
    pub value: Bytes,
    /// How long it has still to live.
    pub left: TimeLeft,
}

/// A partition and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// As it was made.
    pub spec: PartitionSpec,
    /// Records in it.
    pub records: u64,
    /// Bytes of its records on the drive (or in memory), headers counted.
    pub bytes: u64,
    /// Its own quota, where it has one.
    pub quota: Option<Quota>,
}

/// Why a transaction could not begin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BeginError {
    /// No such partition in this shard.
    #[error("partition {0} is not on this shard; fetch the partition map again")]
    UnknownPartition(PartitionId),
    /// The caller's epoch is not the partition's.
    #[error("the partition's epoch is {current}; fetch the partition map again")]
    StaleEpoch {
        /// The partition's epoch.
        current: Epoch,
    },
    /// It would live too long.
    #[error("a transaction lives at most 60000 ms, this one asks for {lifetime_ms}")]
    Lifetime {
        /// What it asks for.
        lifetime_ms: u32,
    },
    /// As many are open as may be.
    #[error(
        "256 transactions are open on the partition, 1024 of this connection or 4096 in all on its shard, the most there may be; end some, or try again later"
    )]
    TooMany,
    /// The shard does not serve yet.
    #[error("the shard is busy; try again in a moment")]
    Busy,
}

/// Why a `Get`, `Scan` or `Count` failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// No such partition in this shard.
    #[error("partition {0} is not on this shard; fetch the partition map again")]
    UnknownPartition(PartitionId),
    /// The caller's epoch is not the partition's.
    #[error("the partition's epoch is {current}; fetch the partition map again")]
    StaleEpoch {
        /// The partition's epoch.
        current: Epoch,
    },
    /// The key is empty or too long.
    #[error("a key has 1 to 4096 bytes, this one has {len}")]
    KeyLength {
        /// The key's length.
        len: usize,
    },
    /// The transaction has ended.
    #[error("{TRANSACTION_ENDED}")]
    TransactionEnded,
    /// The transaction has read as much as can be remembered.
    #[error(
        "the transaction has read all that it may: keys and ranges of 1 MiB; roll it back, read less, or begin one that only reads"
    )]
    ReadSetFull,
    /// The limit or the byte budget is out of range.
    #[error("a scan's limit is 1 to 4096 records and its budget 1 byte to 4 MiB")]
    ScanLimits,
    /// The key is not within the partition's range.
    #[error("the key is outside the partition's range; fetch the partition map again")]
    OutOfRange,
    /// Too much is queued; nothing was done.
    #[error("the shard is busy; try again in a moment")]
    Busy,
    /// The partition is quarantined: writes up to a version may be lost to damage, and this would need one of them.
    #[error(
        "the partition is quarantined: damage was found at a start, and what was written up to version {upto} may be \
         lost; records written since are read, and writing a key again heals it: copy what is left to another table \
         (get key by key) and drop this one, or restore it from a copy"
    )]
    Quarantined {
        /// The newest version that may be lost.
        upto: Seq,
    },
    /// The record's bytes on the drive are damaged.
    #[error("the record is damaged on the drive at byte {at}; restore it from a copy")]
    Corrupt {
        /// Where on the drive.
        at: u64,
    },
    /// The drive failed the read.
    #[error("the drive failed to read at byte {at} (os error {os_error})")]
    Device {
        /// Where on the drive.
        at: u64,
        /// The operating system's error number.
        os_error: i32,
    },
}

/// Why a `Put`, `Delete`, `Modify` or `Batch` failed. Unless it is `Poisoned`, nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WriteError {
    /// No such partition in this shard.
    #[error("partition {0} is not on this shard; fetch the partition map again")]
    UnknownPartition(PartitionId),
    /// The caller's epoch is not the partition's.
    #[error("the partition's epoch is {current}; fetch the partition map again")]
    StaleEpoch {
        /// The partition's epoch.
        current: Epoch,
    },
    /// A key is empty or too long.
    #[error("a key has 1 to 4096 bytes, this one has {len}")]
    KeyLength {
        /// The key's length.
        len: usize,
    },
    /// A value is too long.
    #[error("a value has at most {limit} bytes, this one has {len}")]
    ValueLength {
        /// The value's length.
        len: usize,
        /// The longest value this drive takes.
        limit: usize,
    },
    /// A batch is empty, or has too many writes or bytes.
    #[error(
        "a batch has 1 to 4096 writes and at most {limit} bytes, this one has {writes} writes and {bytes} bytes"
    )]
    BatchSize {
        /// Writes in the batch.
        writes: usize,
        /// Their bytes, headers counted.
        bytes: usize,
        /// The most bytes this drive takes.
        limit: usize,
    },
    /// A key is not within the partition's range.
    #[error("the key is outside the partition's range; fetch the partition map again")]
    OutOfRange,
    /// The condition does not hold.
    #[error("the condition does not hold: the record's version is {current:?}")]
    ConditionFailed {
        /// The record's version, where there is a record.
        current: Option<Seq>,
    },
    /// A record cannot live so long, or not at all.
    #[error("a record lives from 1ms to 100y (36500d), not {ttl_ms}ms")]
    BadTtl {
        /// The time to live that was asked for, in milliseconds.
        ttl_ms: u64,
    },
    /// Something that the transaction has read was changed since it began. It has ended.
    #[error("something that the transaction has read was changed since it began; begin it again")]
    Conflict {
        /// The first key found changed.
        key: Box<[u8]>,
    },
    /// The transaction has ended before.
    #[error("{TRANSACTION_ENDED}")]
    TransactionEnded,
    /// A transaction that only reads was asked to write.
    #[error("the transaction was begun to read only; begin one that writes")]
    ReadOnly,
    /// An increment of a value that is no number.
    #[error("the present value is no decimal number of 64 bits; overwrite it, or increment another key")]
    NotANumber,
    /// An increment beyond what 64 bits hold.
    #[error("the number would not fit 64 bits: it is {present}, and {by} was to be added")]
    NumberOverflow {
        /// The number that stays.
        present: i64,
        /// What was to be added.
        by: i64,
    },
    /// Too much is queued; nothing was done.
    #[error("the shard is busy; try again in a moment")]
    Busy,
    /// The drive holds as many live bytes as it can; deletes and drops still work.
    #[error(
        "the shard's drive is full: {live_bytes} of {limit_bytes} bytes live; delete or drop something, or add a drive"
    )]
    Full {
        /// Bytes of live records.
        live_bytes: u64,
        /// The most that are taken.
        limit_bytes: u64,
    },
    /// Index and memory tables use all the memory they may.
    #[error(
        "the shard's memory is full: {used_bytes} of {limit_bytes} bytes used; delete or drop something, or raise --memory"
    )]
    MemoryFull {
        /// Bytes of index and memory tables.
        used_bytes: u64,
        /// The most that are taken.
        limit_bytes: u64,
    },
    /// The partition is quarantined: writes up to a version may be lost to damage, and the condition would need one of them.
    #[error(
        "the partition is quarantined: damage was found at a start, and what was written up to version {upto} may be \
         lost; records written since are read, and writing a key again heals it: copy what is left to another table \
         (get key by key) and drop this one, or restore it from a copy"
    )]
    Quarantined {
        /// The newest version that may be lost.
        upto: Seq,
    },
    /// The condition could not be decided: the present record is damaged.
    #[error(
        "the present record is damaged on the drive at byte {at}; overwrite or delete it without a condition"
    )]
    Corrupt {
        /// Where on the drive.
        at: u64,
    },
    /// It was written, but a record that cannot be read may be one of a key that it deletes: a compact index cannot tell, and cannot
    /// take it out.
    #[error(
        "what was asked for is written, but the record at byte {at} of the drive is damaged and may be one of a key \
         that was deleted: should the drive read it again, that key is there again; put the key, or drop the table"
    )]
    MayReturn {
        /// Where on the drive.
        at: u64,
    },
    /// The condition could not be decided: the drive failed to read the present record.
    #[error(
        "the drive failed to read the present record at byte {at} (os error {os_error}); nothing was written, try again"
    )]
    Device {
        /// Where on the drive.
        at: u64,
        /// The operating system's error number.
        os_error: i32,
    },
    /// A write or flush failed: the shard's log is closed, and whether this write survives is not known.
    #[error(
        "the drive failed a write: the shard's log is closed until the node restarts; this write may or may not survive"
    )]
    Poisoned,
}

/// Why a table or partition could not be made or dropped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatalogError {
    /// No such table.
    #[error("there is no table {0}")]
    UnknownTable(TableId),
    /// No such partition.
    #[error("there is no partition {0}")]
    UnknownPartition(PartitionId),
    /// The id or the name is taken.
    #[error("the table exists already")]
    TableExists,
    /// The id is taken.
    #[error("partition {0} exists already")]
    PartitionExists(PartitionId),
    /// The name is empty or too long.
    #[error("a table's name has 1 to 128 bytes, this one has {len}")]
    NameLength {
        /// The name's length.
        len: usize,
    },
    /// Records cannot live so long, or not at all.
    #[error("a table's records live from 1ms to 100y (36500d), not {ttl_ms}ms")]
    BadTtl {
        /// The time to live that was asked for, in milliseconds.
        ttl_ms: u64,
    },
    /// A number of the quota is out of range.
    #[error(
        "a quota has a weight of 1 to 10000, a burst of 1ms to 5m, and rates of at most 2^40 a second, not {quota:?}"
    )]
    BadQuota {
        /// The quota that was asked for.
        quota: Quota,
    },
    /// The range is empty, or a bound is longer than a key may be.
    #[error("partition {0} has an empty range or a bound over 4096 bytes")]
    BadRange(PartitionId),
    /// The shard holds as many partitions as it may.
    #[error("the shard has {limit} partitions, the most it takes")]
    TooManyPartitions {
        /// The most that are taken.
        limit: usize,
    },
    /// Too much is queued; nothing was done.
    #[error("the shard is busy; try again in a moment")]
    Busy,
    /// The drive has no room for the catalog.
    #[error("the shard's drive is full")]
    Full,
    /// A write or flush failed: the shard's log is closed.
    #[error("the drive failed a write: the shard's log is closed until the node restarts")]
    Poisoned,
}

/// Why a checkpoint could not be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// A write or flush failed: the shard's log is closed.
    #[error("the drive failed a write: the shard's log is closed until the node restarts")]
    Poisoned,
    /// There is no free segment for the image.
    #[error("there is no room for a checkpoint")]
    NoSpace,
}
