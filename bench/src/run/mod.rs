//! One load against a node.

mod link;
mod pool;
mod prepare;
mod tally;
mod worker;

use std::thread;
use std::time::{Duration, Instant};

use lode_net::client::StatsError;
use thiserror::Error;

pub use pool::PoolError;
pub use prepare::{PrepareError, Ready, prepare, routes};
pub use tally::{Summary, Tally};

use crate::draw::Popularity;
use crate::node_stats::NodeStats;
use crate::options::{Mode, RunOptions, Workload};
use crate::report::RunReport;
use pool::Pool;
use worker::{Plan, Worker};

/// Time between the workers' making and their first request.
const HEAD_START: Duration = Duration::from_millis(20);

/// How nice a generator is that leaves the cores to others.
const YIELDING_NICENESS: i32 = 15;

/// Why a load failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// The table could not be made ready.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// A connection failed in the middle of it.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The node's counters could not be read.
    #[error("the node's counters could not be read: {0}")]
    Stats(#[from] StatsError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Prepares the table, runs the load, and reports.
pub fn run(options: &RunOptions) -> Result<RunReport, RunError> {
    let mut ready = prepare(&options.data)?;
    measure(&mut ready, options)
}

/// Runs the load against a table that is ready.
pub fn measure(ready: &mut Ready, options: &RunOptions) -> Result<RunReport, RunError> {
    let threads = usize::from(options.threads);
    let connections = usize::from(options.connections).div_ceil(threads);
    let popularity = Popularity::new(options.distribution, options.data.records);
    let seed = options.data.seed();
    let mut workers = Vec::new();
    for thread in 0..threads {
        let (pool, map) = Pool::open(ready.addr, connections)?;
        let plan = Plan {
            table: routes(&map, &options.data.table)?,
            popularity: popularity.clone(),
            read_percent: read_percent(options),
            depth: usize::from(options.depth),
            value_bytes: options.data.value_size as usize,
            origin: Instant::now(),
            from: Duration::ZERO,
            until: Duration::ZERO,
        };
        workers.push((plan, pool, seed.wrapping_add(thread as u64)));
    }
    let origin = Instant::now();
    let from = HEAD_START + options.warmup;
    let until = from + options.duration;
    let rate = options.rate.unwrap_or(0) as f64 / threads as f64;
    let mut running = Vec::new();
    for (plan, pool, seed) in workers {
        let plan = Plan { origin, from, until, ..plan };
        let worker = Worker::new(plan, pool, seed);
        let (mode, yields) = (options.mode, options.yields);
        running.push(thread::Builder::new().name("load".to_owned()).spawn(move || {
            if yields {
                // On Linux of this thread alone. Where it may not, it competes, and the figures are the worse.
                let _ = rustix::process::nice(YIELDING_NICENESS);
            }
            match mode {
                Mode::Closed => worker.run_closed(),
                Mode::Open => worker.run_open(rate),
            }
        })?);
    }
    let mut watch = |at: Duration| -> Result<(NodeStats, Duration), StatsError> {
        thread::sleep(at.saturating_sub(origin.elapsed()));
        Ok((NodeStats::new(ready.client.stats()?), own_cpu()))
    };
    let before = watch(from);
    let after = watch(until);
    let mut tally = Tally::default();
    for thread in running {
        // A panic in a worker is a bug of this program; it goes on where it was.
        tally.add(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
    }
    let ((before, cpu_before), (after, cpu_after)) = (before?, after?);
    let own_cpu_us = (cpu_after - cpu_before).as_secs_f64() * 1e6;
    Ok(RunReport::new(options, seed, ready.loaded, &tally, own_cpu_us, &after.since(&before)))
}

fn read_percent(options: &RunOptions) -> u8 {
    match options.workload {
        Workload::Get => 100,
        Workload::Put => 0,
        Workload::Mixed => options.read_percent,
    }
}

/// CPU time that this process has used.
fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
