//! Every limit of the engine, in one place.

/// Longest key, in bytes. The shortest is 1.
pub const MAX_KEY_BYTES: usize = 4 * 1024;
/// Longest value, in bytes. An empty value is a value.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Most writes in one atomic batch.
pub const MAX_BATCH_WRITES: usize = 4096;
/// Most bytes of one atomic batch as it travels: its keys and values, [`BATCH_WRITE_BYTES`] more for each write (and [`BATCH_TTL_BYTES`] for one with a time to live) and
/// [`BATCH_BYTES`] in front. A batch is one frame, so what its records take must fit a segment, too.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024 + 8 * 1024;
/// Bytes of a batch in front of its writes.
pub const BATCH_BYTES: usize = 4;
/// Bytes of a write of a batch in front of its key and value.
pub const BATCH_WRITE_BYTES: usize = 8;
/// And of one that says how long its record is to live.
pub const BATCH_TTL_BYTES: usize = 8;
/// Most records in one page of a scan.
pub const MAX_SCAN_RECORDS: usize = 4096;
/// Most bytes of keys and values in one page of a scan; a page always holds at least one record.
pub const MAX_SCAN_BYTES: usize = 4 * 1024 * 1024;
/// Most partitions in one shard.
pub const MAX_PARTITIONS: usize = 65_536;
/// Longest table name, in bytes of UTF-8.
pub const MAX_TABLE_NAME_BYTES: usize = 128;
/// Longest time to live, in milliseconds: a hundred years. The shortest is 1.
pub const MAX_TTL_MS: u64 = 100 * 365 * 24 * 3600 * 1000;
/// Largest weight of a partition. The smallest is 1.
pub const MAX_WEIGHT: u32 = 10_000;
/// The weight of a partition that says nothing.
pub const DEFAULT_WEIGHT: u32 = 100;
/// The most of a rate that may be saved up, in milliseconds: five minutes. The least is 1.
pub const MAX_BURST_MS: u32 = 300_000;
/// What is saved up of a rate where nothing is said, in milliseconds.
pub const DEFAULT_BURST_MS: u32 = 1000;
/// The highest limit of a rate: requests or bytes a second.
pub const MAX_QUOTA_PER_S: u64 = 1 << 40;
/// Most damaged records of a shard that are listed with their keys; all are counted.
pub const MAX_DAMAGED_LISTED: usize = 256;
/// Most damaged places of one segment that the scrub tells apart; those behind them count as one.
pub const MAX_DAMAGED_PLACES: usize = 1024;
/// Most transactions that are open on one shard.
pub const MAX_TRANSACTIONS: usize = 4096;
/// Most transactions that are open on one partition.
pub const MAX_PARTITION_TRANSACTIONS: usize = 256;
/// Most transactions that one owner has open on one shard: one connection is not to take them all.
pub const MAX_OWNER_TRANSACTIONS: usize = 1024;
/// Most bytes of memory of what one transaction has read: keys and ranges, not values.
pub const MAX_READ_SET_BYTES: usize = 1024 * 1024;
/// Most bytes of memory of all that the transactions of one shard have read, and of what was overwritten since
/// they began. Beyond, the oldest of the partition that holds most is ended.
pub const MAX_TRANSACTION_BYTES: usize = 8 * 1024 * 1024;
/// How long a transaction lives unless it says otherwise, in milliseconds.
pub const DEFAULT_TRANSACTION_MS: u32 = 10_000;
/// The longest that a transaction may live, in milliseconds.
pub const MAX_TRANSACTION_MS: u32 = 60_000;
/// Device block: unit of alignment of every read and write, and of frame padding.
pub const BLOCK_BYTES: usize = 4096;
