//! One load against a server: what is drawn, when it is sent, and what comes of it.

pub mod ask;
mod choice;
mod link;
mod memcached;
mod memcached_server;
mod pipeline;
mod pool;
mod prepare;
mod resp;
mod resp_server;
mod routes;
mod slices;
mod steps;
mod tally;
mod worker;

use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

pub use choice::Choice;
pub use pool::PoolError;
pub use prepare::{PrepareError, Ready, prepare};
pub use routes::Routes;
#[cfg(test)]
pub use slices::Slices;
pub use slices::{Coarse, PartitionTally, Slice};
pub use tally::{Latencies, Summary, Tally};

use crate::node_stats::NodeStats;
use crate::options::{Mode, RunOptions};
use crate::report::RunReport;
use worker::{Plan, Worker};

/// Time between the workers' making and their first request.
const HEAD_START: Duration = Duration::from_millis(20);

/// How nice a generator is that leaves the cores to others.
const YIELDING_NICENESS: i32 = 15;

/// Why a load failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// The table could not be made ready, or the server's counters could not be read.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// A connection failed in the middle of it.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// Latencies were to be counted for nothing.
    #[error("--duration must be longer than nothing")]
    NoTime,
}

/// Everything that a load has found.
pub struct Measured {
    /// In numbers, as it is printed.
    pub report: RunReport,
    /// In full.
    pub tally: Tally,
    /// Where the records live.
    pub routes: Routes,
    /// The server's counters at the end.
    pub counters: NodeStats,
}

/// Prepares the table, runs the load, and reports.
pub fn run(options: &RunOptions) -> Result<Measured, RunError> {
    let mut ready = prepare(options)?;
    measure_all(&mut ready, options)
}

/// Runs the load against a table that is ready, and reports in numbers.
pub fn measure(ready: &mut Ready, options: &RunOptions) -> Result<RunReport, RunError> {
    Ok(measure_all(ready, options)?.report)
}

/// Runs the load against a table that is ready.
pub fn measure_all(ready: &mut Ready, options: &RunOptions) -> Result<Measured, RunError> {
    if options.duration.is_zero() {
        return Err(RunError::NoTime);
    }
    let mut options = options.clone();
    options.data.records = ready.records;
    let threads = usize::from(options.threads);
    let connections = usize::from(options.connections).div_ceil(threads);
    let seed = options.data.seed();
    let mut workers = Vec::new();
    let mut routes = Routes::of_server();
    for thread in 0..threads {
        let (pool, found) = ready.open(&options.data, connections)?;
        let seed = seed.wrapping_add(thread as u64);
        routes = found.clone();
        workers.push((Choice::new(&options, found, seed), pool, seed));
    }
    let origin = Instant::now();
    let from = HEAD_START + options.warmup;
    let until = from + options.duration;
    let rate = options.rate.unwrap_or(0) as f64 / threads as f64;
    let mut running = Vec::new();
    for (choice, pool, seed) in workers {
        let plan = Plan { origin, from, until, ..Plan::new(&options) };
        let worker = Worker::new(plan, choice, pool, seed);
        let (mode, yields) = (options.mode(), options.yields);
        running.push(thread::Builder::new().name("load".to_owned()).spawn(move || {
            if yields {
                yield_cores();
            }
            match mode {
                Mode::Closed => worker.run_closed(),
                Mode::Open => worker.run_open(rate),
            }
        })?);
    }
    let mut watch = |at: Duration| -> Result<(NodeStats, Duration), PrepareError> {
        thread::sleep(at.saturating_sub(origin.elapsed()));
        Ok((ready.counters()?, own_cpu()))
    };
    let before = watch(from);
    let after = watch(until);
    let mut tally = Tally::new(options.slice());
    for thread in running {
        // A panic in a worker is a bug of this program; it goes on where it was.
        tally.add(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
    }
    let ((before, cpu_before), (counters, cpu_after)) = (before?, after?);
    let own_cpu_us = (cpu_after - cpu_before).as_secs_f64() * 1e6;
    let report = RunReport::new(&options, seed, ready.loaded, &tally, own_cpu_us, &counters.since(&before));
    Ok(Measured { report, tally, routes, counters })
}

/// From here on this thread leaves the cores to whoever else wants them.
pub fn yield_cores() {
    // On Linux of this thread alone. Where it may not, it competes, and the figures are the worse.
    let _ = rustix::process::nice(YIELDING_NICENESS);
}

/// CPU time that this process has used.
fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
