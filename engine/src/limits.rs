//! Every limit of the engine, in one place.

/// Longest key, in bytes. The shortest is 1.
pub const MAX_KEY_BYTES: usize = 4 * 1024;
/// Longest value, in bytes. An empty value is a value.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Most writes in one atomic batch.
pub const MAX_BATCH_WRITES: usize = 4096;
/// Most bytes of keys and values and their headers in one atomic batch: a batch is one frame.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024 + 8 * 1024;
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
/// Most damaged records of a shard that are listed with their keys; all are counted.
pub const MAX_DAMAGED_LISTED: usize = 256;
/// Most damaged places of one segment that the scrub tells apart; those behind them count as one.
pub const MAX_DAMAGED_PLACES: usize = 1024;
/// Device block: unit of alignment of every read and write, and of frame padding.
pub const BLOCK_BYTES: usize = 4096;
