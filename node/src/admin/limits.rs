//! What the admin port and the history behind it may take.

use std::time::Duration;

/// Most connections; one more is told so and closed.
pub const MAX_CONNECTIONS: usize = 64;
/// Most of them from one address, so that nobody alone keeps all others out.
pub const MAX_CONNECTIONS_OF_ADDRESS: u32 = 32;
/// Most bytes of a request's line and headers. Bodies are not taken at all.
pub const MAX_HEAD_BYTES: usize = 16 << 10;
/// Most headers of a request.
pub const MAX_HEADERS: usize = 64;
/// How long a request's head may take to come, and how long a connection may be idle.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// A connection that takes none of its answer for so long is closed.
pub const SEND_PATIENCE: Duration = Duration::from_secs(30);
/// How long answers have to end when the node stops.
pub const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a long answer that are made at a time.
pub const PIECE_BYTES: usize = 64 << 10;

/// How often shards are asked what they have counted.
pub const TICK: Duration = Duration::from_secs(1);
/// How long a shard may take to answer before its silence is told.
pub const SILENCE: Duration = Duration::from_secs(5);
/// Most partitions that are told apart. Those beyond are counted with their node, and how many they are is told.
pub const MAX_PARTITIONS: usize = 131_072;
/// Partitions with the most load, which have metrics of their own.
pub const TOP_PARTITIONS: usize = 8;
/// Seconds between two entries of the history.
pub const STEP_S: u64 = 10;
/// Ticks over which present rates of partitions are taken.
pub const LIVE_TICKS: u64 = 2;
