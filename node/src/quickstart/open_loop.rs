//! An open-loop load: operations begin when their time has come, whether earlier ones are done or not, and each
//! latency counts from the time at which the operation should have begun. A node that stalls cannot hide it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lode_net::client::Client;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::ledger::Ledger;
use crate::cli::exit::{Exit, Failure};

/// Of 10 operations so many are GETs, the others PUTs.
const GETS_OF_TEN: u64 = 8;
/// In flight while the rate is being found.
const TRIAL_IN_FLIGHT: usize = 32;
/// How long the rate is being looked for.
const TRIAL: Duration = Duration::from_millis(1500);
/// The rate of the open loop, as a share of what the trial reached.
const RATE_PERCENT: u64 = 25;
/// Longest latency that is told apart; all longer ones count as this.
const LONGEST_LATENCY_US: u64 = 600_000_000;
/// Between two looks at the clock of the thread that starts operations.
const PACE: Duration = Duration::from_micros(50);
/// Started and unfinished operations at most; beyond it the generator waits, and the wait counts as latency.
const MAX_UNFINISHED: usize = 20_000;

/// What is read and written.
pub struct Mix {
    /// The client.
    pub client: Client,
    /// The table that is read.
    pub table: String,
    /// Keys that are in it.
    pub keys: Vec<Vec<u8>>,
    /// What is written.
    pub ledger: Ledger,
}

/// Latencies in microseconds, and how many operations.
pub struct Measured {
    /// Of GETs.
    pub get_us: Histogram<u64>,
    /// Of PUTs.
    pub put_us: Histogram<u64>,
    /// Operations done per second.
    pub ops_per_s: u64,
    /// Operations begun per second, as planned.
    pub offered_per_s: u64,
    /// Operations that failed.
    pub errors: u64,
    /// The first failure, in words.
    pub first_error: Option<String>,
}

struct Sample {
    is_get: bool,
    latency_us: u64,
    outcome: Result<(), String>,
}

/// Finds a rate that the node carries well, then offers it for a time.
pub fn run(handle: &Handle, mix: &Arc<Mix>, duration: Duration) -> Result<Measured, Failure> {
    let reached_per_s = handle.block_on(trial(mix));
    let offered_per_s = (reached_per_s * RATE_PERCENT / 100).max(10);
    let (sender, samples) = mpsc::unbounded_channel();
    let pacer = {
        let (handle, mix) = (handle.clone(), Arc::clone(mix));
        thread::spawn(move || pace(&handle, &mix, offered_per_s, duration, &sender))
    };
    let mut measured = handle.block_on(gather(samples, offered_per_s))?;
    let elapsed = pacer.join().map_err(|_| Failure::new(Exit::Unknown, "the load generator has failed"))?;
    let done = measured.get_us.len() + measured.put_us.len();
    measured.ops_per_s = (done as f64 / elapsed.as_secs_f64()) as u64;
    Ok(measured)
}

/// Operations per second with a fixed number in flight.
async fn trial(mix: &Arc<Mix>) -> u64 {
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..TRIAL_IN_FLIGHT as u64 {
        let (mix, done) = (Arc::clone(mix), Arc::clone(&done));
        workers.spawn(async move {
            let mut number = worker.wrapping_mul(0x1234_5677);
            while started.elapsed() < TRIAL {
                number = number.wrapping_add(1);
                // A failure here shows again in the measured part.
                if operation(&mix, number).await.1.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    while workers.join_next().await.is_some() {}
    (done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()) as u64
}

/// Starts operations at their times; gives back how long it took until the last was over.
fn pace(
    handle: &Handle,
    mix: &Arc<Mix>,
    rate_per_s: u64,
    duration: Duration,
    samples: &mpsc::UnboundedSender<Sample>,
) -> Duration {
    let unfinished = Arc::new(AtomicUsize::new(0));
    let total = (duration.as_secs_f64() * rate_per_s as f64) as u64;
    let started = Instant::now();
    for number in 0..total {
        let intended = started + Duration::from_nanos(number * 1_000_000_000 / rate_per_s);
        while Instant::now() < intended || unfinished.load(Ordering::Relaxed) >= MAX_UNFINISHED {
            thread::sleep(PACE);
        }
        let (mix, samples, unfinished) = (Arc::clone(mix), samples.clone(), Arc::clone(&unfinished));
        unfinished.fetch_add(1, Ordering::Relaxed);
        handle.spawn(async move {
            let (is_get, outcome) = operation(&mix, number).await;
            let latency_us = intended.elapsed().as_micros() as u64;
            unfinished.fetch_sub(1, Ordering::Relaxed);
            // The receiver is gone only when the run has failed.
            let _ = samples.send(Sample { is_get, latency_us, outcome });
        });
    }
    while unfinished.load(Ordering::Relaxed) > 0 {
        thread::sleep(PACE);
    }
    started.elapsed()
}

/// One GET or PUT; its number chooses which, and of what.
async fn operation(mix: &Mix, number: u64) -> (bool, Result<(), String>) {
    let spread = scramble(number);
    if spread % 10 < GETS_OF_TEN && !mix.keys.is_empty() {
        let key = &mix.keys[(spread >> 8) as usize % mix.keys.len()];
        let outcome = match mix.client.get(&mix.table, key).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("a key that was loaded is not there".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        return (true, outcome);
    }
    let from = (spread >> 8) as usize % mix.ledger.len();
    (false, mix.ledger.put(&mix.client, from).await.map_err(|error| error.to_string()))
}

/// Spreads consecutive numbers over all 64 bits (the finalizer of splitmix64).
fn scramble(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

async fn gather(
    mut samples: mpsc::UnboundedReceiver<Sample>,
    offered_per_s: u64,
) -> Result<Measured, Failure> {
    let histogram = || {
        Histogram::<u64>::new_with_bounds(1, LONGEST_LATENCY_US, 3)
            .map_err(|error| Failure::new(Exit::Unknown, error))
    };
    let mut measured = Measured {
        get_us: histogram()?,
        put_us: histogram()?,
        ops_per_s: 0,
        offered_per_s,
        errors: 0,
        first_error: None,
    };
    while let Some(sample) = samples.recv().await {
        match sample.outcome {
            Ok(()) if sample.is_get => measured.get_us.saturating_record(sample.latency_us),
            Ok(()) => measured.put_us.saturating_record(sample.latency_us),
            Err(error) => {
                measured.errors += 1;
                measured.first_error.get_or_insert(error);
            }
        }
    }
    Ok(measured)
}
