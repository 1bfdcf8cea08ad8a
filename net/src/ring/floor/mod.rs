//! The floor: what this machine's drive and io_uring give with nothing of lode on top.
//!
//! The one raw loop. The load generator runs it in the same run as the node, and reports the node against it; `lode-tune
//! measure` draws a drive's curves with it.

mod paced;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::core::{Event, Ring, RingConfig, RingError};
use super::slab::{BLOCK_BYTES, MAX_BUFFER_BYTES, SlabBuffer};
use thiserror::Error;

pub use paced::{Stream, paced};

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
    #[error("the range has {bytes} bytes; it needs at least one block of {block_bytes}")]
    TooShort {
        /// What there is.
        bytes: u64,
        /// What an operation takes.
        block_bytes: u32,
    },
    /// The blocks are of a size that cannot be.
    #[error("a block is a power of two of 4096 to {MAX_BUFFER_BYTES} bytes, this one has {0}")]
    Block(u32),
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
    /// So much cannot be in flight at once.
    #[error(
        "{depth} operations of {block_bytes} bytes in flight take more than {MAX_IN_FLIGHT_BYTES} bytes; ask for less"
    )]
    InFlight {
        /// How many.
        depth: usize,
        /// Of how much.
        block_bytes: u32,
    },
}

/// Most operations in flight in a measurement.
pub const MAX_DEPTH: usize = 1024;
/// Most bytes of them.
pub const MAX_IN_FLIGHT_BYTES: usize = 64 << 20;
/// How long a wait for the drive goes on before it is looked after.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What each operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reads a block.
    Read,
    /// Writes a block; the drive may keep it in memory.
    Write,
    /// Writes a block so that it survives power loss (`RWF_DSYNC`).
    DurableWrite,
    /// Writes a block, and then makes it survive power loss; only the latter counts and is timed.
    Flush,
}

/// Which block is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Any; another seed draws others.
    Random(u32),
    /// The one after the last; after the end, the first.
    Sequential,
}

/// A load that keeps so many operations in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// What each does.
    pub operation: Operation,
    /// Bytes of each: a power of two, 4096 at least.
    pub block_bytes: u32,
    /// How many are in flight.
    pub depth: usize,
    /// Which block is next.
    pub order: Order,
    /// The bytes of the file that it may touch.
    pub area: Range<u64>,
    /// How long it runs before anything counts.
    pub warmup: Duration,
    /// How long it runs and counts.
    pub time: Duration,
    /// How long it looks for an end before it sleeps: waking takes as long as a quick drive does.
    pub spin: Duration,
    /// It ends after so many operations, where that is sooner.
    pub most_operations: u64,
}

impl Load {
    /// Random blocks of 4 KiB within `area`, one at a time, for `time`.
    pub fn new(operation: Operation, area: Range<u64>, time: Duration) -> Load {
        Load {
            operation,
            block_bytes: BLOCK_BYTES as u32,
            depth: 1,
            order: Order::Random(0),
            area,
            warmup: Duration::ZERO,
            time,
            spin: Duration::ZERO,
            most_operations: u64::MAX,
        }
    }

    /// How many blocks its area has; or why it cannot be run.
    fn check(&self) -> Result<u64, FloorError> {
        if !(1..=MAX_DEPTH).contains(&self.depth) {
            return Err(FloorError::Depth { depth: self.depth, most: MAX_DEPTH });
        }
        let blocks = blocks_of(&self.area, self.block_bytes)?;
        if self.depth * self.block_bytes as usize > MAX_IN_FLIGHT_BYTES {
            return Err(FloorError::InFlight { depth: self.depth, block_bytes: self.block_bytes });
        }
        Ok(blocks)
    }
}

/// How many blocks an area has.
fn blocks_of(area: &Range<u64>, block_bytes: u32) -> Result<u64, FloorError> {
    let is_block = (BLOCK_BYTES..=MAX_BUFFER_BYTES).contains(&(block_bytes as usize));
    if !is_block || !block_bytes.is_power_of_two() {
        return Err(FloorError::Block(block_bytes));
    }
    let bytes = area.end.saturating_sub(area.start);
    match bytes / u64::from(block_bytes) {
        0 => Err(FloorError::TooShort { bytes, block_bytes }),
        blocks => Ok(blocks),
    }
}

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
    let order = Order::Random(seed);
    run(file, &Load { depth, order, ..Load::new(Operation::Read, 0..bytes, time) })
}

/// Writes blocks one after the other, each durable (`RWF_DSYNC`) before the next, over `bytes` at `at`
/// of `file`, again from the start when the end is reached, for `time`. Destroys what is there.
pub fn durable_appends(file: File, at: u64, bytes: u64, time: Duration) -> Result<FloorReport, FloorError> {
    let load = Load::new(Operation::DurableWrite, at..at + bytes, time);
    run(file, &Load { order: Order::Sequential, ..load })
}

/// Draws places of blocks.
#[derive(Debug)]
struct Places {
    order: Order,
    blocks: u64,
    next: u64,
}

impl Places {
    fn new(order: Order, blocks: u64) -> Places {
        let next = match order {
            // Never zero, which would stay zero.
            Order::Random(seed) => 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(seed) << 1,
            Order::Sequential => 0,
        };
        Places { order, blocks, next }
    }

    /// The number of the next block.
    fn draw(&mut self) -> u64 {
        match self.order {
            Order::Random(_) => {
                self.next = xorshift(self.next);
                self.next % self.blocks
            }
            Order::Sequential => {
                let place = self.next;
                self.next = (place + 1) % self.blocks;
                place
            }
        }
    }
}

/// A ring with this file and room for so many bytes in flight.
fn ring_on(file: File, bytes: usize) -> Result<Ring, FloorError> {
    let slab_bytes = bytes.max(2 << 20);
    let mut ring =
        Ring::new(RingConfig { slab_bytes, chunks: 1, chunk_bytes: 4096, ..RingConfig::default() })?;
    ring.attach_drive(file.into());
    Ok(ring)
}

/// Fills a buffer with what no drive can make shorter.
fn fill(ring: &mut Ring, buffer: SlabBuffer, seed: u32) {
    let mut noise = Places::new(Order::Random(seed), u64::MAX);
    for word in ring.slab_mut().bytes_mut(buffer).chunks_exact_mut(8) {
        word.copy_from_slice(&noise.draw().to_le_bytes());
    }
}

/// Bytes of a drive's smallest block.
const SECTOR_BYTES: usize = 512;

/// Whether whole sectors hold nothing but what the raw loop has written over a drive, or zeros. What it writes says so itself: each word
/// follows from the one before it, but where a write begins. So whoever finds a drive full of it, at once or after a cut of power, knows
/// that nothing is lost with it.
pub fn is_scratch(bytes: &[u8]) -> bool {
    let sectors = bytes.chunks_exact(SECTOR_BYTES);
    sectors.remainder().is_empty() && sectors.into_iter().all(is_scratch_sector)
}

fn is_scratch_sector(sector: &[u8]) -> bool {
    if sector.iter().all(|byte| *byte == 0) {
        return true;
    }
    // A write's first word is where it went.
    let words = sector[8..]
        .chunks_exact(8)
        .map(|word| word.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    let words: Vec<u64> = words.collect();
    words[0] != 0 && words.windows(2).all(|pair| xorshift(pair[0]) == pair[1])
}

/// xorshift64: Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
fn xorshift(mut word: u64) -> u64 {
    word ^= word << 13;
    word ^= word >> 7;
    word ^ word << 17
}

/// Submits, and waits for something to end: looks for a while, then sleeps. Without a look both are one call into the kernel.
fn wait(ring: &mut Ring, spin: Duration, longest: Duration) {
    if spin.is_zero() || !look(ring, spin) {
        ring.submit_and_wait(longest);
    }
}

/// Submits, and looks for an end for so long; tells whether there is one.
fn look(ring: &mut Ring, time: Duration) -> bool {
    ring.submit();
    let begun = Instant::now();
    while begun.elapsed() < time {
        if ring.is_ready() {
            ring.submit();
            return true;
        }
        std::hint::spin_loop();
    }
    false
}

/// One of the operations in flight.
struct Slot {
    buffer: SlabBuffer,
    begun: Duration,
    /// Its write has ended, and its flush is under way.
    flushes: bool,
}

/// Begins the next operation of a slot.
fn begin(ring: &mut Ring, token: u64, slot: &Slot, load: &Load, places: &mut Places) {
    let at = load.area.start + places.draw() * u64::from(load.block_bytes);
    match load.operation {
        Operation::Read => ring.read(token, slot.buffer, load.block_bytes, at),
        Operation::Write | Operation::Flush | Operation::DurableWrite => {
            // No two blocks are the same.
            ring.slab_mut().bytes_mut(slot.buffer)[..8].copy_from_slice(&at.to_le_bytes());
            ring.write(token, slot.buffer, load.block_bytes, at, load.operation == Operation::DurableWrite);
        }
    }
}

/// The part of a load's time that counts: from the end of its warm-up to its own end.
struct Window {
    begun: Instant,
    opens: Duration,
    time: Duration,
    closes: Duration,
    /// When it opened, and the CPU time that was used until then.
    open: Option<(Duration, Duration)>,
    closed: bool,
}

impl Window {
    fn new(load: &Load) -> Window {
        let open = load.warmup.is_zero().then(|| (Duration::ZERO, thread_cpu()));
        let (opens, time) = (load.warmup, load.time);
        Window { begun: Instant::now(), opens, time, closes: time, open, closed: false }
    }

    /// Whether what has ended by `now` counts.
    fn counts(&mut self, now: Duration, report: &mut FloorReport) -> bool {
        if self.closed {
            return false;
        }
        let Some((from, cpu_before)) = self.open else {
            if now >= self.opens {
                // What ended in the same moment may have waited for the warm-up's end.
                (self.open, self.closes) = (Some((now, thread_cpu())), now.saturating_add(self.time));
            }
            return false;
        };
        report.seconds = (now - from).as_secs_f64();
        // However slow: a load in which nothing has ended says nothing.
        if now >= self.closes && report.operations > 0 {
            self.close(cpu_before, report);
        }
        true
    }

    /// Nothing counts any more. The CPU's clock is read here and not at each end: it is a call into the kernel.
    fn close(&mut self, cpu_before: Duration, report: &mut FloorReport) {
        report.cpu_us = (thread_cpu() - cpu_before).as_secs_f64() * 1e6;
        self.closed = true;
    }

    /// The load has ended, with or without all of its time.
    fn end(&mut self, report: &mut FloorReport) {
        if let (Some((_, cpu_before)), false) = (self.open, self.closed) {
            self.close(cpu_before, report);
        }
    }
}

/// Keeps the load's operations in flight on `file` (opened with `O_DIRECT`) until its time is over. Writes destroy what is
/// there. What is still in flight then is waited for, and does not count.
pub fn run(file: File, load: &Load) -> Result<FloorReport, FloorError> {
    let mut places = Places::new(load.order, load.check()?);
    let mut ring = ring_on(file, load.depth * load.block_bytes as usize)?;
    let mut slots = slots(&mut ring, load);
    let mut report = FloorReport::default();
    let mut window = Window::new(load);
    let mut left = load.most_operations;
    let mut in_flight = 0;
    for (token, slot) in slots.iter_mut().enumerate() {
        if left > 0 {
            slot.begun = window.begun.elapsed();
            begin(&mut ring, token as u64, slot, load, &mut places);
            (in_flight, left) = (in_flight + 1, left - 1);
        }
    }
    let mut events = Vec::new();
    while in_flight > 0 {
        wait(&mut ring, load.spin, LONGEST_WAIT);
        ring.take_events(&mut events);
        if events.is_empty() {
            continue;
        }
        let now = window.begun.elapsed();
        let counts = window.counts(now, &mut report);
        for event in events.drain(..) {
            let Event::Drive { token, result } = event else {
                continue;
            };
            result.map_err(FloorError::Drive)?;
            let slot = &mut slots[token as usize];
            if load.operation == Operation::Flush && !slot.flushes {
                (slot.flushes, slot.begun) = (true, now);
                ring.flush(token);
                continue;
            }
            slot.flushes = false;
            if counts {
                report.operations += 1;
                report.latencies_ns.push(now.saturating_sub(slot.begun).as_nanos() as u64);
            }
            if !window.closed && left > 0 {
                (slot.begun, left) = (now, left - 1);
                begin(&mut ring, token, slot, load, &mut places);
            } else {
                in_flight -= 1;
            }
        }
    }
    window.end(&mut report);
    report.latencies_ns.sort_unstable();
    Ok(report)
}

/// A slot with its buffer for each operation in flight.
fn slots(ring: &mut Ring, load: &Load) -> Vec<Slot> {
    let slot = |number: usize| {
        let buffer = ring.slab_mut().acquire(load.block_bytes as usize);
        let buffer = buffer.expect("the slab has a buffer for each operation");
        if load.operation != Operation::Read {
            fill(ring, buffer, number as u32);
        }
        Slot { buffer, begun: Duration::ZERO, flushes: false }
    };
    (0..load.depth).map(slot).collect()
}

/// CPU time that this thread has used.
pub(super) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
