//! What the node counts, under which names it is exposed, and what that means.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, but for restarts.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One metric made of one of the sums over all shards.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, without the prefix and without `_total`.
    pub name: &'static str,
    /// The name of the sum.
    pub source: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// By what the sum is multiplied to be in base units.
    pub scale: f64,
    /// What it means.
    pub help: &'static str,
}

use Kind::{Counter, Gauge};

const fn row(name: &'static str, source: &'static str, kind: Kind, scale: f64, help: &'static str) -> Row {
    Row { name, source, kind, scale, help }
}

/// Every metric of this kind.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("gets", "gets", Counter, 1.0, "Reads of one record that were answered."),
    row("get_cache_hits", "get_cache_hits", Counter, 1.0, "Reads answered from the read cache or a memory table."),
    row("get_misses", "get_misses", Counter, 1.0, "Reads of keys that are not there."),
    row("puts", "puts", Counter, 1.0, "Puts acknowledged."),
    row("deletes", "deletes", Counter, 1.0, "Deletes acknowledged."),
    row("batches", "batches", Counter, 1.0, "Batches acknowledged."),
    row("increments", "increments", Counter, 1.0, "Increments acknowledged."),
    row("expiry_changes", "expiry_changes", Counter, 1.0, "Changes of a record's time to live acknowledged."),
    row("expired_records", "expired", Counter, 1.0, "Records that expired."),
    row("scans", "scans", Counter, 1.0, "Pages of scans answered."),
    row("requests_refused", "refused", Counter, 1.0, "Requests refused with an error by no fault of the drive."),
    row("requests_busy", "busy", Counter, 1.0, "Requests that the engine answered Busy."),
    row("requests_throttled", "throttled", Counter, 1.0, "Requests refused because their partition is above its quota."),
    row("requests_queued", "requests_queued", Counter, 1.0, "Requests that had to wait for their partition's turn."),
    row("requests_given_up", "requests_given_up", Counter, 1.0, "Reads that waited for their partition's turn when their clients went, and were not done."),
    row("requests_received", "requests", Counter, 1.0, "Requests received."),
    row("answers_sent", "answers", Counter, 1.0, "Answers sent to connections."),
    row("answers_given_up", "answers_given_up", Counter, 1.0, "Answers given up as Busy because too many others wait for their readers, and reads of long ones refused for that before they began."),
    row("slow_requests", "slow_requests", Counter, 1.0, "Requests that took as long as --slow-request says, or longer."),
    row("request_wait_seconds", "request_wait_us", Counter, 1e-6, "Time that requests have waited for their answers, added up."),
    row("user_bytes", "user_bytes", Counter, 1.0, "Bytes of keys and values acknowledged."),
    row("drive_reads", "device_reads", Counter, 1.0, "Reads of the drive for reads, scans and conditions."),
    row("drive_read_bytes", "device_read_bytes", Counter, 1.0, "Bytes of those."),
    row("get_drive_reads", "get_device_reads", Counter, 1.0, "Reads of the drive for reads of one record alone."),
    row("key_reads", "key_reads", Counter, 1.0, "Records read to tell keys of compact indexes apart."),
    row("drive_operations", "drive_operations", Counter, 1.0, "Operations of the drive that have ended."),
    row("drive_wait_seconds", "drive_wait_us", Counter, 1e-6, "Time that operations of the drive have taken, added up."),
    row("frame_writes", "user_frame_writes", Counter, 1.0, "Writes to the drive of group-committed records."),
    row("frame_bytes", "user_frame_bytes", Counter, 1.0, "Bytes of those, padding counted."),
    row("cleaning_bytes", "cleaning_frame_bytes", Counter, 1.0, "Bytes that cleaning wrote to the drive."),
    row("journal_bytes", "journal_bytes", Counter, 1.0, "Bytes of the journal of index changes written to the drive."),
    row("image_bytes", "image_bytes", Counter, 1.0, "Bytes of index images written to the drive."),
    row("meta_bytes", "meta_bytes", Counter, 1.0, "Bytes of superblocks and segment headers written to the drive."),
    row("segments_cleaned", "segments_cleaned", Counter, 1.0, "Segments that cleaning has freed."),
    row("relocated_bytes", "relocated_bytes", Counter, 1.0, "Bytes of records that cleaning has copied."),
    row("gathered_bytes", "gathered_bytes", Counter, 1.0, "Bytes of records that were written again together for scans."),
    row("checkpoints", "checkpoints", Counter, 1.0, "Checkpoints completed."),
    row("corrupt_records", "corrupt_records", Counter, 1.0, "Reads that found a record damaged."),
    row("failed_reads", "failed_reads", Counter, 1.0, "Reads of records that the drive failed for another reason than damage."),
    row("scrub_bytes", "scrub_bytes", Counter, 1.0, "Bytes that the scrub has read."),
    row("scrub_rounds", "scrub_rounds", Counter, 1.0, "Rounds of the scrub that went through to the end."),
    row("transactions_begun", "transactions_begun", Counter, 1.0, "Transactions begun."),
    row("transactions_committed", "transactions_committed", Counter, 1.0, "Transactions committed."),
    row("transaction_conflicts", "transaction_conflicts", Counter, 1.0, "Commits refused because what was read had changed."),
    row("transactions_rolled_back", "transactions_rolled_back", Counter, 1.0, "Transactions rolled back by their clients or ended with their connections."),
    row("transactions_ended", "transactions_ended", Counter, 1.0, "Transactions that the node ended."),
    row("hops", "hops_in", Counter, 1.0, "Requests that one shard has sent on to another."),
    row("connections_accepted", "accepted", Counter, 1.0, "Connections accepted."),
    row("connections_refused", "refused_connections", Counter, 1.0, "Connections refused because there were too many."),
    row("connections_held_up", "connections_held_up", Counter, 1.0, "How often a connection was not read from because too much of a partition waited."),
    row("connections_closed_by_peer", "closed_by_peer", Counter, 1.0, "Connections that their clients closed."),
    row("connections_closed_protocol", "closed_protocol", Counter, 1.0, "Connections closed because of what their clients sent."),
    row("connections_closed_silent", "closed_silent", Counter, 1.0, "Connections closed because their clients stopped in the middle of a request."),
    row("connections_closed_deaf", "closed_deaf", Counter, 1.0, "Connections closed because their clients did not read their answers."),
    row("connections_closed_overload", "closed_overload", Counter, 1.0, "Connections closed because unfinished requests held too much memory."),
    row("shard_cpu_seconds", "cpu_us", Counter, 1e-6, "CPU time of the shards' threads."),
    row("turns", "turns", Counter, 1.0, "Turns of the shards' loops."),
    row("ring_sleeps", "ring_sleeps", Counter, 1.0, "Times that shards slept for want of work."),
    row("buffers_refused", "buffers_refused", Counter, 1.0, "How often there was no buffer."),
    row("value_copied_bytes", "value_bytes_copied", Counter, 1.0, "Bytes of values that were copied on their way out."),
    row("partitions", "partitions", Gauge, 1.0, "Partitions."),
    row("partitions_unloaded", "partitions_unloaded", Gauge, 1.0, "Partitions whose index is not in memory yet since the start."),
    row("records", "records", Gauge, 1.0, "Records in durable tables."),
    row("expiring_records", "expiring_records", Gauge, 1.0, "Records that expire some time."),
    row("live_bytes", "live_bytes", Gauge, 1.0, "Bytes of live records on the drive."),
    row("live_limit_bytes", "live_limit_bytes", Gauge, 1.0, "Most bytes of live records that are taken before Full."),
    row("segments", "segments", Gauge, 1.0, "Segments of the drive."),
    row("segments_free", "segments_free", Gauge, 1.0, "Segments that are free."),
    row("index_bytes", "index_bytes", Gauge, 1.0, "Memory of the index."),
    row("memory_table_bytes", "memory_table_bytes", Gauge, 1.0, "Memory of memory tables."),
    row("memory_limit_bytes", "memory_limit_bytes", Gauge, 1.0, "Most memory that index and memory tables may take."),
    row("cache_bytes", "cache_bytes", Gauge, 1.0, "Memory of the read cache."),
    row("cache_limit_bytes", "cache_limit_bytes", Gauge, 1.0, "Most memory that the read cache may take."),
    row("buffer_bytes", "buffer_bytes", Gauge, 1.0, "Memory of buffers."),
    row("buffer_free_bytes", "buffer_bytes_free", Gauge, 1.0, "Memory of buffers that are free."),
    row("writes_in_flight", "writes_in_flight", Gauge, 1.0, "Writes that are appended and not durable yet."),
    row("requests_parked", "requests_parked", Gauge, 1.0, "Requests that wait for a buffer, a segment or another write."),
    row("requests_pending", "pending", Gauge, 1.0, "Requests that wait for an answer."),
    row("requests_waiting", "queued", Gauge, 1.0, "Requests that wait for their partition's turn."),
    row("requests_waiting_bytes", "queued_bytes", Gauge, 1.0, "Memory of those."),
    row("transactions_open", "transactions_open", Gauge, 1.0, "Transactions that are open."),
    row("transaction_bytes", "transaction_bytes", Gauge, 1.0, "Memory of what open transactions hold."),
    row("connections", "connections", Gauge, 1.0, "Connections that are open."),
    row("damaged_records", "damaged_records", Gauge, 1.0, "Live records that are known to be damaged."),
    row("damaged_places", "damaged_places", Gauge, 1.0, "Damaged places of the drive that hold no live record."),
    row("partitions_quarantined", "partitions_quarantined", Gauge, 1.0, "Partitions of which damage may have taken writes."),
    row("quarantined_frames", "quarantined_frames", Gauge, 1.0, "Damaged places found below the durable watermark at the last start."),
    row("shards_poisoned", "poisoned", Gauge, 1.0, "Shards that take no writes since the drive failed one."),
];
