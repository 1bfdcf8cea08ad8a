//! What a shard is told when it is made.

use crate::geometry::Geometry;
use crate::ids::{NodeId, ShardId};
use crate::limits::{MAX_PARTITIONS, MAX_SCAN_BYTES, MAX_TRANSACTION_BYTES};

/// Most lanes of cleaning.
const MAX_LANES: u32 = 3;
/// Segments that there are for each lane, and bytes of a segment: on smaller drives, what is open and what is
/// padded would cost more than separation gives.
const SEGMENTS_PER_LANE: u32 = 32;
const SEGMENT_BYTES_PER_LANE: u32 = 128 << 10;

/// A shard's configuration. All limits of its memory and queues are here.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// The drive's division.
    pub geometry: Geometry,
    /// The drive's identity.
    pub drive_uuid: [u8; 16],
    /// Which shard this is.
    pub shard: ShardId,
    /// Goes into every `Seq`.
    pub node: NodeId,
    /// The most bytes the read cache may take.
    pub cache_bytes: u64,
    /// The most bytes that index and memory tables may take.
    pub memory_bytes: u64,
    /// How long a frame waits for more writes while others are in flight, in nanoseconds. Longer than one
    /// durable write usually takes, or the drive gets many small ones at once.
    pub commit_window_ns: u64,
    /// Size at which a frame is closed.
    pub frame_bytes: u32,
    /// Most frames written at once.
    pub frames_in_flight: usize,
    /// A checkpoint begins when the journal since the last has so many bytes, at the latest: a restart reads them.
    pub checkpoint_interval_bytes: u64,
    /// Most requests that wait for a buffer, a segment or another write; beyond, `Busy`.
    pub max_queued_requests: usize,
    /// Most bytes of such requests.
    pub max_queued_bytes: usize,
    /// Most bytes that gets and conditions which wait for a buffer will read. One may take at most half of what
    /// is left, so that small reads still find room among large ones; beyond, `Busy`. What waits here is what
    /// the next read waits for, so this bounds its delay.
    pub max_queued_read_bytes: usize,
    /// Most partitions of the shard.
    pub max_partitions: usize,
    /// Most bytes of records that unfinished scans may hold.
    pub max_scan_bytes: usize,
    /// Logs among which cleaning divides what it moves, by expected lifetime.
    pub lanes: u32,
    /// Most bytes of what open transactions hold; beyond, the oldest of the largest partition is ended.
    pub max_transaction_bytes: usize,
    /// Whether freed segments are discarded on the drive.
    pub discard: bool,
    /// Bytes a second that the scrub reads; 0 where it begins no round by itself.
    pub scrub_bytes_per_s: u64,
}

impl ShardConfig {
    /// With defaults that suit a node of the usual size.
    pub fn new(geometry: Geometry, drive_uuid: [u8; 16], shard: ShardId, node: NodeId) -> ShardConfig {
        let area = geometry.area_bytes();
        ShardConfig {
            geometry,
            drive_uuid,
            shard,
            node,
            cache_bytes: 64 << 20,
            memory_bytes: 256 << 20,
            commit_window_ns: 500_000,
            frame_bytes: 256 << 10,
            frames_in_flight: 4,
            checkpoint_interval_bytes: (area / 8).clamp(u64::from(geometry.segment_bytes), 1 << 30),
            max_queued_requests: 4096,
            max_queued_bytes: 16 << 20,
            max_queued_read_bytes: 16 << 20,
            max_partitions: MAX_PARTITIONS,
            max_scan_bytes: 4 * MAX_SCAN_BYTES,
            lanes: lanes_for(&geometry),
            max_transaction_bytes: MAX_TRANSACTION_BYTES,
            discard: false,
            scrub_bytes_per_s: 0,
        }
    }
}

fn lanes_for(geometry: &Geometry) -> u32 {
    let by_count = geometry.segments_per_shard / SEGMENTS_PER_LANE;
    let by_size = geometry.segment_bytes / SEGMENT_BYTES_PER_LANE;
    by_count.min(by_size).clamp(1, MAX_LANES)
}
