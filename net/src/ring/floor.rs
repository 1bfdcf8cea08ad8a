//! The floor: what this machine's drive and io_uring give with nothing of lode on top.
//!
//! The load generator runs these in the same run as the node, and reports the node against them.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use super::core::{Event, Ring, RingConfig, RingError};
use super::slab::{BLOCK_BYTES, SlabBuffer};
use thiserror::Error;

/// Why a measurement failed.
#[derive(Debug, Error)]
pub enum FloorError {
    /// The ring could not be made.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The file could not be used.
    #[error("the file could not be used: {0}")]
    File(#[from] io::Error),
    /// The file is too short.
    #[error("the range has {0} bytes; it needs at least one block of 4096")]
    TooShort(u64),
    /// The drive failed.
    #[error("the drive failed (os error {0})")]
    Drive(i32),
    /// The depth is out of range.
    #[error("a depth is 1 to {most}, this one is {depth}")]
    Depth {
        /// What was asked for.
        depth: usize,
        /// The most.
        most: usize,
    },
}

/// Most operations in flight in a measurement.
pub const MAX_DEPTH: usize = 1024;

/// What a measurement found.
#[derive(Debug, Clone, Default)]
pub struct FloorReport {
    /// Operations that ended.
    pub operations: u64,
    /// Wall time, in seconds.
    pub seconds: f64,
    /// CPU time of the measuring threads, in microseconds.
    pub cpu_us: f64,
    /// Latencies in nanoseconds, ascending.
    pub latencies_ns: Vec<u64>,
}

impl FloorReport {
    /// Operations per second.
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.seconds.max(f64::EPSILON)
    }

    /// CPU microseconds per operation.
    pub fn cpu_us_per_operation(&self) -> f64 {
        self.cpu_us / self.operations.max(1) as f64
    }

    /// Together with what another thread found in the same time.
    pub fn merge(&mut self, other: FloorReport) {
        self.operations += other.operations;
        self.seconds = self.seconds.max(other.seconds);
        self.cpu_us += other.cpu_us;
        self.latencies_ns.extend(other.latencies_ns);
        self.latencies_ns.sort_unstable();
    }

    /// The latency below which `share` (0 to 1) of the operations lie, in microseconds.
    pub fn latency_us(&self, share: f64) -> f64 {
        let last = self.latencies_ns.len().saturating_sub(1);
        let at = (last as f64 * share.clamp(0.0, 1.0)).round() as usize;
        self.latencies_ns.get(at).map_or(0.0, |ns| *ns as f64 / 1000.0)
    }
}

/// Reads blocks at random within the first `bytes` of `file` (opened with `O_DIRECT`), `depth` at a
/// time from one thread, for `time`. Another `seed` reads others.
pub fn random_reads(
    file: File,
    bytes: u64,
    depth: usize,
    seed: u32,
    time: Duration,
) -> Result<FloorReport, FloorError> {
    let blocks = bytes / BLOCK_BYTES as u64;
    if blocks == 0 {
        return Err(FloorError::TooShort(bytes));
    }
    // Never zero, which would stay zero.
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(seed) << 1;
    run(file, depth, time, move |ring, token, buffer| {
        // xorshift64: Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        ring.read(token, buffer, BLOCK_BYTES as u32, dice % blocks * BLOCK_BYTES as u64);
    })
}

/// Writes blocks one after the other, each durable (`RWF_DSYNC`) before the next, over `bytes` at `at`
/// of `file`, again from the start when the end is reached, for `time`. Destroys what is there.
pub fn durable_appends(file: File, at: u64, bytes: u64, time: Duration) -> Result<FloorReport, FloorError> {
    let blocks = bytes / BLOCK_BYTES as u64;
    if blocks == 0 {
        return Err(FloorError::TooShort(bytes));
    }
    let mut next = 0;
    run(file, 1, time, move |ring, token, buffer| {
        ring.slab_mut().bytes_mut(buffer)[..8].copy_from_slice(&u64::to_le_bytes(next));
        let offset = at + next % blocks * BLOCK_BYTES as u64;
        ring.write(token, buffer, BLOCK_BYTES as u32, offset, true);
        next += 1;
    })
}

/// Keeps `depth` operations in flight for `time`; `start` begins one.
fn run(
    file: File,
    depth: usize,
    time: Duration,
    mut start: impl FnMut(&mut Ring, u64, SlabBuffer),
) -> Result<FloorReport, FloorError> {
    if !(1..=MAX_DEPTH).contains(&depth) {
        return Err(FloorError::Depth { depth, most: MAX_DEPTH });
    }
    let slab_bytes = (depth * BLOCK_BYTES).max(2 << 20);
    let mut ring =
        Ring::new(RingConfig { slab_bytes, chunks: 1, chunk_bytes: 4096, ..RingConfig::default() })?;
    ring.attach_drive(file.into());
    let mut begun_ns = vec![0u64; depth];
    let mut buffers = Vec::with_capacity(depth);
    let mut report = FloorReport::default();
    let cpu_before = thread_cpu();
    let begun = Instant::now();
    for (token, begun_ns) in begun_ns.iter_mut().enumerate() {
        let buffer = ring.slab_mut().acquire(BLOCK_BYTES).expect("the slab has a block for each operation");
        buffers.push(buffer);
        *begun_ns = begun.elapsed().as_nanos() as u64;
        start(&mut ring, token as u64, buffer);
    }
    let mut events = Vec::new();
    let mut in_flight = depth;
    while in_flight > 0 {
        ring.submit_and_wait(Duration::from_secs(1));
        ring.take_events(&mut events);
        let now = begun.elapsed();
        for event in events.drain(..) {
            let Event::Drive { token, result } = event else {
                continue;
            };
            result.map_err(FloorError::Drive)?;
            let token = token as usize;
            report.operations += 1;
            report.latencies_ns.push((now.as_nanos() as u64).saturating_sub(begun_ns[token]));
            if now < time {
                begun_ns[token] = now.as_nanos() as u64;
                start(&mut ring, token as u64, buffers[token]);
            } else {
                in_flight -= 1;
            }
        }
    }
    report.seconds = begun.elapsed().as_secs_f64();
    report.cpu_us = (thread_cpu() - cpu_before).as_secs_f64() * 1e6;
    report.latencies_ns.sort_unstable();
    Ok(report)
}

/// CPU time that this thread has used.
pub(super) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
