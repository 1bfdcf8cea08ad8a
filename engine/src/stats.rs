//! What a shard counts. Plain numbers, cheap to keep, read all at once.

use crate::scrub::ScrubStats;

/// Counters (since start) and gauges (now) of one shard. Bytes and counts; no times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// GETs answered.
    pub gets: u64,
    /// GETs answered from the read cache (or a memory table).
    pub get_cache_hits: u64,
    /// GETs of keys that are not there.
    pub get_misses: u64,
    /// PUTs acknowledged.
    pub puts: u64,
    /// DELETEs acknowledged.
    pub deletes: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Increments acknowledged.
    pub increments: u64,
    /// Changes of a record's expiry acknowledged.
    pub expiry_changes: u64,
    /// Records that expired.
    pub expired: u64,
    /// Scan pages answered.
    pub scans: u64,
    /// Requests refused with an error, by no fault of the drive.
    pub refused: u64,
    /// Requests answered `Busy`.
    pub busy: u64,
    /// Reads that waited for a buffer and were given up, as nobody wants the answer any more.
    pub reads_given_up: u64,
    /// Records that were read to tell keys of compact indexes apart.
    pub key_reads: u64,
    /// Device reads for GETs, scans and conditions.
    pub device_reads: u64,
    /// Bytes of those.
    pub device_read_bytes: u64,
    /// Device reads for GETs alone.
    pub get_device_reads: u64,
    /// Values sent straight from the drive's buffer.
    pub values_sent_from_device_buffer: u64,
    /// Bytes of values copied between the drive's buffer and the reply (0 by design).
    pub value_bytes_copied_to_reply: u64,
    /// Device writes of user frames.
    pub user_frame_writes: u64,
    /// Device bytes of user frames, padding counted.
    pub user_frame_bytes: u64,
    /// Device bytes of cleaning frames.
    pub cleaning_frame_bytes: u64,
    /// Device bytes of the journal of index changes.
    pub journal_bytes: u64,
    /// Device bytes of index images.
    pub image_bytes: u64,
    /// Device bytes of superblocks and segment headers.
    pub meta_bytes: u64,
    /// Bytes of keys and values acknowledged.
    pub user_bytes: u64,
    /// Segments cleaned.
    pub segments_cleaned: u64,
    /// Bytes of records that cleaning copied.
    pub relocated_bytes: u64,
    /// Bytes of records that scans had to read from many places, and that were written again together.
    pub gathered_bytes: u64,
    /// Checkpoints completed.
    pub checkpoints: u64,
    /// Records found damaged.
    pub corrupt_records: u64,
    /// Reads of records that the drive failed, for another reason than damage.
    pub failed_reads: u64,
    /// Damaged places found below the durable watermark at the last start.
    pub quarantined_frames: u64,
    /// Partitions in quarantine: what damage may have taken of them, at this start or before, is not told as absent or as it once
    /// was.
    pub partitions_quarantined: u64,
    /// Whether damage, of this start or of one before, may have taken tables that nobody has made again since.
    pub may_lack_tables: u64,
    /// Transactions begun.
    pub transactions_begun: u64,
    /// Transactions committed.
    pub transactions_committed: u64,
    /// Commits refused because something that the transaction had read was changed.
    pub transaction_conflicts: u64,
    /// Transactions rolled back by their clients, or ended with their connections.
    pub transactions_rolled_back: u64,
    /// Transactions ended by the shard: too old, too large, or their partition dropped.
    pub transactions_ended: u64,
    /// Transactions open.
    pub transactions_open: u64,
    /// Bytes of memory of what open transactions hold.
    pub transaction_bytes: u64,
    /// Tables with partitions on this shard.
    pub tables: u64,
    /// Partitions.
    pub partitions: u64,
    /// Partitions whose index is not in memory yet. What their image says of records and bytes counts.
    pub partitions_unloaded: u64,
    /// Records in durable tables.
    pub records: u64,
    /// Records in memory tables.
    pub memory_records: u64,
    /// Bytes of live records on the drive.
    pub live_bytes: u64,
    /// The most live bytes that are taken before `Full`.
    pub live_limit_bytes: u64,
    /// Segments of the shard.
    pub segments: u64,
    /// Segments free.
    pub segments_free: u64,
    /// Bytes of memory in the index.
    pub index_bytes: u64,
    /// Bytes of memory in memory tables.
    pub memory_table_bytes: u64,
    /// Records that expire some time.
    pub expiring_records: u64,
    /// Bytes of memory of what is known of them, beside the index.
    pub expiry_bytes: u64,
    /// The most memory that index and memory tables may take.
    pub memory_limit_bytes: u64,
    /// Bytes of memory in the read cache.
    pub cache_bytes: u64,
    /// The most memory that the read cache may take.
    pub cache_limit_bytes: u64,
    /// Writes appended and not yet durable.
    pub writes_in_flight: u64,
    /// Requests waiting for a buffer, a segment or another write.
    pub requests_parked: u64,
    /// Users' frames replayed at the last start.
    pub recovered_frames: u64,
    /// Changes of the index replayed from the journal at the last start.
    pub recovered_journal_entries: u64,
    /// Records loaded from index images at the last start.
    pub recovered_image_records: u64,
    /// Bytes read at the last start.
    pub recovery_read_bytes: u64,
    /// 1 where the log is closed after a failed write.
    pub poisoned: u64,
    /// The scrub, and the damage that is known.
    pub scrub: ScrubStats,
    /// Highest table id that the shard has ever seen, dropped or not.
    pub highest_table: u64,
    /// Highest partition id that the shard has ever seen, dropped or not.
    pub highest_partition: u64,
}
