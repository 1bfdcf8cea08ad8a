//! What a node lets be in flight, what it counts of it, and how long it waits: from what was measured of the drive
//! (`io-properties.toml`), or lode's own values where that is not to be had or not of this drive.

mod choose;
#[cfg(test)]
mod tests;

use std::time::Duration;

use lode_net::io_properties::{Curve, IoProperties, Operation};

pub use choose::{Chosen, Origin, Wanted, choose};

/// The values. [`Default`] gives lode's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoLimits {
    /// Requests (by cost) that may run in a shard of a partition that is alone.
    pub most_running: u32,
    /// While fewer run, any may: a drive with so little to do is quick for everyone.
    pub free_running: u32,
    /// The same where many partitions ask, who would all feel it.
    pub free_among_many: u32,
    /// A read costs as much again for each so many bytes.
    pub read_bytes_per_cost: u64,
    /// A write does for each so many.
    pub write_bytes_per_cost: u64,
    /// Frames of users' writes that a shard writes at once.
    pub frames_in_flight: usize,
    /// How long a write may wait for company in its frame while other frames are being written.
    pub commit_window: Duration,
    /// The longest that a shard looks for work before it sleeps.
    pub longest_spin: Duration,
}

impl Default for IoLimits {
    fn default() -> IoLimits {
        IoLimits {
            // Enough for the throughput of a drive.
            most_running: 128,
            free_running: 16,
            free_among_many: 8,
            read_bytes_per_cost: 8 * 1024,
            write_bytes_per_cost: 8 * 1024,
            frames_in_flight: MOST_FRAMES,
            // Longer than a durable write takes on NVMe: a frame goes out when the one before it is durable, and
            // only a slow write lets another one past. With 64 clients 0.09 device writes per PUT and 89,000
            // PUTs/s, where 50 us gave 0.13 and 71,000 (`lode-bench run --workload put --connections 64`).
            commit_window: Duration::from_micros(500),
            longest_spin: Duration::from_micros(150),
        }
    }
}

/// What runs includes what is answered from memory, and writes that share a frame: so many may always.
const RUNNING: std::ops::RangeInclusive<u32> = 64..=512;
const FREE: std::ops::RangeInclusive<u32> = 8..=32;
/// Cost by the byte.
const BYTES_PER_COST: std::ops::RangeInclusive<f64> = 1024.0..=1_048_576.0;
/// Most frames that a shard writes at once: more take more memory, and room that is kept for them.
const MOST_FRAMES: usize = 4;
/// Bytes of a usual frame: the commit window goes by how long such a one takes.
const FRAME_BYTES: u32 = 64 << 10;
const WINDOW_US: std::ops::RangeInclusive<f64> = 50.0..=2_000.0;
/// A read that takes longer than this is not waited for by looking: a core would be busy for longer than a wake takes.
const QUICK_READ_US: f64 = 150.0;
/// The spin of a drive that is not quick: what comes over the network may still come soon.
const LEAST_SPIN: Duration = Duration::from_micros(50);

impl IoLimits {
    /// What follows from a measurement, for each of so many shards, which share the drive.
    pub fn measured(properties: &IoProperties, shards: u16) -> IoLimits {
        let shards = u32::from(shards.max(1));
        let reads = nearest(properties, Operation::Read, 4096);
        let writes = nearest(properties, Operation::DurableWrite, FRAME_BYTES);
        let (reads_per_s, read_bytes_per_s) = properties.most(Operation::Read);
        let (_, write_bytes_per_s) = properties.most(Operation::DurableWrite);
        let per_cost = |bytes_per_s: f64| {
            let bytes = bytes_per_s / reads_per_s;
            bytes.clamp(*BYTES_PER_COST.start(), *BYTES_PER_COST.end()) as u64
        };
        let part = reads.knee_depth.div_ceil(shards);
        let free_running = part.clamp(*FREE.start(), *FREE.end());
        let window_us = writes.alone().p99_us.clamp(*WINDOW_US.start(), *WINDOW_US.end());
        let read_us = reads.alone().p50_us;
        let spin_us = if read_us <= QUICK_READ_US { read_us * 1.5 } else { 0.0 };
        IoLimits {
            most_running: (2 * part).clamp(*RUNNING.start(), *RUNNING.end()),
            free_running,
            free_among_many: free_running / 2,
            read_bytes_per_cost: per_cost(read_bytes_per_s),
            write_bytes_per_cost: per_cost(write_bytes_per_s),
            frames_in_flight: (writes.knee_depth.div_ceil(shards) as usize).clamp(1, MOST_FRAMES),
            commit_window: whole_us(window_us),
            longest_spin: whole_us(spin_us).max(LEAST_SPIN),
        }
    }
}

/// Less than a microsecond is not known.
fn whole_us(us: f64) -> Duration {
    Duration::from_micros(us.round() as u64)
}

/// The curve of the operation with the block that is nearest to `bytes`, as a ratio.
fn nearest(properties: &IoProperties, operation: Operation, bytes: u32) -> &Curve {
    let curves = properties.curves.iter().filter(|curve| curve.operation == operation);
    let far = |curve: &&Curve| curve.block_bytes.ilog2().abs_diff(bytes.ilog2());
    curves.min_by_key(far).expect("a file without reads or durable writes is refused")
}
