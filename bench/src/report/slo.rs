//! What a load says about what a service promises: verdicts, the worst times and partitions, where time goes.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::RunReport;
use super::fingerprint::Fingerprint;
use crate::node_stats::NodeDelta;
use crate::objective::Objective;
use crate::options::RunOptions;
use crate::run::{Coarse, Measured, Summary, Tally};
use crate::workload::Operation;

/// Latencies above which shares are told: those of Aerospike's certification tool, in milliseconds.
/// <https://github.com/aerospike/act>
pub const ACT_MS: [f64; 3] = [1.0, 8.0, 64.0];
/// So many of the worst partitions are named.
const WORST_PARTITIONS: usize = 10;
/// A partition or slice with fewer requests than this has no tail to speak of.
const LEAST_REQUESTS: u64 = 20;
/// Points of a percentile curve for each nine.
const POINTS_PER_NINE: u32 = 20;

/// Whether one objective holds.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The objective, as the command line takes it.
    pub objective: String,
    /// Its kind of requests.
    pub operation: Operation,
    /// The percentile, such as 99.9.
    pub percent: f64,
    /// The time, in microseconds.
    pub within_us: f64,
    /// Requests that count: those answered, and those that failed.
    pub requests: u64,
    /// Of these, failed or too late.
    pub missed: u64,
    /// The percentile that was seen, in microseconds, failures taken for endless; `None` where it is a failure.
    pub seen_us: Option<f64>,
    /// How much of what may be missed was missed: 1 is all of it.
    pub burn: f64,
    /// Whether it holds; not where nothing was asked.
    pub holds: bool,
}

/// Latencies of one kind of requests.
#[derive(Debug, Clone, Serialize)]
pub struct Class {
    /// Which kind.
    pub operation: Operation,
    /// Percentiles in microseconds.
    pub us: Summary,
    /// Requests that failed.
    pub errors: u64,
    /// Shares above [`ACT_MS`], failures counted in, of 100.
    pub above_percent: [f64; ACT_MS.len()],
    /// Percentile (of 1) and microseconds.
    pub curve: Vec<(f64, f64)>,
}

/// One slice of time.
#[derive(Debug, Clone, Serialize)]
pub struct SliceRow {
    /// Seconds since the beginning.
    pub at_s: f64,
    /// Requests answered well, per second.
    pub ops_per_s: f64,
    /// Requests that failed.
    pub errors: u64,
    /// Percentiles of all kinds together, in microseconds.
    pub p50_us: f64,
    /// See `p50_us`.
    pub p99_us: f64,
    /// See `p50_us`.
    pub max_us: f64,
}

/// One partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionRow {
    /// Table and place.
    pub name: String,
    /// Requests answered well.
    pub requests: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Percentiles in microseconds, to a tenth of their value.
    pub p50_us: f64,
    /// See `p50_us`.
    pub p99_us: f64,
}

/// Where the mean request spends its time, in microseconds. By Little's law from how many wait; the drive's part is
/// the mean time of its operations, for as many of them as a request waits for.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Split {
    /// Waiting in the generator for its turn.
    pub generator: f64,
    /// In the network and in both kernels, there and back.
    pub network: f64,
    /// Waiting in the node, for others and for a group commit.
    pub queue: f64,
    /// Waiting for the drive.
    pub device: f64,
    /// Being worked at.
    pub cpu: f64,
}

/// What the drive did.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Device {
    /// Share of its live limit that is filled, of 100.
    pub fill_percent: Option<f64>,
    /// Operations in flight on average.
    pub in_flight: Option<f64>,
    /// Mean time of an operation, in microseconds.
    pub operation_us: Option<f64>,
    /// Operations per second.
    pub operations_per_s: f64,
    /// GETs that memory answered, of 100.
    pub cache_hit_percent: Option<f64>,
}

/// Everything that a report tells.
#[derive(Debug, Clone, Serialize)]
pub struct SloReport {
    /// When it was made, in seconds since 1970.
    pub made_at_s: u64,
    /// The load in numbers.
    pub run: RunReport,
    /// Whether all objectives hold and every answer was right.
    pub holds: bool,
    /// One by one.
    pub verdicts: Vec<Verdict>,
    /// By kind of requests.
    pub classes: Vec<Class>,
    /// Seconds of a slice.
    pub slice_s: f64,
    /// By time.
    pub slices: Vec<SliceRow>,
    /// Place of the worst slice, by its p99.
    pub worst_slice: Option<usize>,
    /// Partitions that were asked.
    pub partitions: usize,
    /// The worst of them, by their p99.
    pub worst_partitions: Vec<PartitionRow>,
    /// Where the time goes; not known of a server that does not tell.
    pub split: Option<Split>,
    /// What the drive did.
    pub device: Device,
    /// What was measured on what.
    pub fingerprint: Fingerprint,
}

impl SloReport {
    /// Puts together what a load has found.
    pub fn new(options: &RunOptions, measured: &Measured) -> SloReport {
        let Measured { report: run, tally, routes, counters } = measured;
        let verdicts: Vec<Verdict> = options
            .objectives()
            .iter()
            // A promise about what was not asked for, and that nobody named, is none of this load's.
            .filter(|objective| !options.slo.is_empty() || options.mix().has(objective.operation))
            .map(|objective| Verdict::new(objective, tally))
            .collect();
        let slices = slice_rows(tally);
        let named = |place: u32| routes.name(place);
        let made_at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        SloReport {
            made_at_s: made_at.map_or(0, |since| since.as_secs()),
            holds: run.is_sound() && verdicts.iter().all(|verdict| verdict.holds),
            worst_slice: worst_slice(tally, &slices),
            slice_s: tally.slices.length().as_secs_f64(),
            slices,
            partitions: tally.partitions.iter().count(),
            worst_partitions: worst_partitions(tally, &named),
            classes: run.latencies().into_iter().map(|(kind, _)| Class::new(kind, tally)).collect(),
            split: split(run, &run.node),
            device: device(run, counters),
            fingerprint: Fingerprint::new(options, counters),
            run: run.clone(),
            verdicts,
        }
    }
}

impl Verdict {
    fn new(objective: &Objective, tally: &Tally) -> Verdict {
        let latencies = tally.of(objective.operation);
        let errors = tally.errors[objective.operation as usize];
        let answered = latencies.histogram().len();
        let requests = answered + errors;
        let missed = latencies.above_us(objective.within_us) + errors;
        let share = if requests == 0 { 0.0 } else { missed as f64 / requests as f64 };
        // The rank among all, failures last.
        let rank = (requests as f64 * objective.percent / 100.0).ceil() as u64;
        let seen_us = (requests > 0 && rank <= answered).then(|| {
            let quantile = rank as f64 / answered as f64;
            latencies.histogram().value_at_quantile(quantile) as f64 / 1000.0
        });
        Verdict {
            objective: objective.to_string(),
            operation: objective.operation,
            percent: objective.percent,
            within_us: objective.within_us,
            requests,
            missed,
            seen_us,
            burn: share / objective.budget(),
            holds: requests > 0 && share <= objective.budget(),
        }
    }
}

impl Class {
    fn new(operation: Operation, tally: &Tally) -> Class {
        let latencies = tally.of(operation);
        let errors = tally.errors[operation as usize];
        let requests = (latencies.histogram().len() + errors).max(1);
        let above = |ms: f64| (latencies.above_us(ms * 1000.0) + errors) as f64 * 100.0 / requests as f64;
        let (us, curve) = (latencies.summary(), curve(latencies.histogram()));
        Class { operation, us, errors, above_percent: ACT_MS.map(above), curve }
    }
}

/// Percentiles in equal steps of nines, as far as there are requests to tell them apart.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let nines = (histogram.len().max(1) as f64).log10();
    let steps = (nines * f64::from(POINTS_PER_NINE)).ceil() as u32;
    let point = |step: u32| {
        let quantile = 1.0 - 10f64.powf(-f64::from(step) / f64::from(POINTS_PER_NINE));
        (quantile, histogram.value_at_quantile(quantile) as f64 / 1000.0)
    };
    (0..=steps).map(point).collect()
}

fn us_at(histogram: &Coarse, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

fn slice_rows(tally: &Tally) -> Vec<SliceRow> {
    let length_s = tally.slices.length().as_secs_f64();
    let row = |(place, slice): (usize, &crate::run::Slice)| {
        let all = slice.all();
        SliceRow {
            at_s: place as f64 * length_s,
            ops_per_s: all.len() as f64 / length_s,
            errors: slice.errors(),
            p50_us: us_at(&all, 0.5),
            p99_us: us_at(&all, 0.99),
            max_us: if all.is_empty() { 0.0 } else { all.max() as f64 / 1000.0 },
        }
    };
    tally.slices.iter().enumerate().map(row).collect()
}

fn worst_slice(tally: &Tally, rows: &[SliceRow]) -> Option<usize> {
    let counted = tally.slices.iter().map(|slice| slice.answered() + slice.errors() >= LEAST_REQUESTS);
    let rows = rows.iter().enumerate().zip(counted).filter(|(_, counts)| *counts);
    let worse = |a: &SliceRow, b: &SliceRow| (a.errors, a.p99_us).partial_cmp(&(b.errors, b.p99_us));
    rows.map(|(row, _)| row)
        .max_by(|a, b| worse(a.1, b.1).unwrap_or(std::cmp::Ordering::Equal))
        .map(|(place, _)| place)
}

fn worst_partitions(tally: &Tally, name: &dyn Fn(u32) -> String) -> Vec<PartitionRow> {
    let counted = |(_, tally): &(u32, &_)| {
        let tally: &crate::run::PartitionTally = tally;
        tally.latencies.len() + tally.errors >= LEAST_REQUESTS
    };
    let mut rows: Vec<(u32, PartitionRow)> = tally
        .partitions
        .iter()
        .filter(counted)
        .map(|(place, tally)| {
            let row = PartitionRow {
                name: String::new(),
                requests: tally.latencies.len(),
                errors: tally.errors,
                p50_us: us_at(&tally.latencies, 0.5),
                p99_us: us_at(&tally.latencies, 0.99),
            };
            (place, row)
        })
        .collect();
    rows.sort_by(|a, b| b.1.p99_us.total_cmp(&a.1.p99_us));
    rows.truncate(WORST_PARTITIONS);
    rows.into_iter().map(|(place, row)| PartitionRow { name: name(place), ..row }).collect()
}

fn split(run: &RunReport, node: &NodeDelta) -> Option<Split> {
    let in_node = node.request_us?;
    let classes = run.latencies();
    let count: u64 = classes.iter().map(|(_, us)| us.count).sum();
    let mean = classes.iter().map(|(_, us)| us.mean * us.count as f64).sum::<f64>() / count.max(1) as f64;
    // From when it was due until it went out: the generator's own lateness is in it.
    let generator = run.held_back_us.mean;
    let cpu = run.server_cpu_us_per_op.unwrap_or(0.0).min(in_node);
    // Each write waits for one operation, which it shares; a read for as many as missed the cache.
    let waits = node.device_waits_per_request.unwrap_or(0.0);
    let device = (node.drive_operation_us.unwrap_or(0.0) * waits).min(in_node - cpu);
    let network = (mean - generator - in_node).max(0.0);
    Some(Split { generator, network, queue: in_node - cpu - device, device, cpu })
}

fn device(run: &RunReport, counters: &crate::node_stats::NodeStats) -> Device {
    let limit = counters.live_limit_bytes();
    let node = &run.node;
    Device {
        fill_percent: (limit > 0).then(|| counters.live_bytes() as f64 * 100.0 / limit as f64),
        in_flight: node.drive_in_flight,
        operation_us: node.drive_operation_us,
        operations_per_s: node.drive_operations as f64 / run.seconds,
        cache_hit_percent: (node.gets > 0).then(|| node.get_cache_hits as f64 * 100.0 / node.gets as f64),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tally(latencies_us: impl IntoIterator<Item = u64>, errors: u64) -> Tally {
        let mut tally = Tally::new(Duration::from_secs(1));
        for us in latencies_us {
            tally.latencies[Operation::Get as usize].record(us * 1000);
        }
        tally.errors[Operation::Get as usize] = errors;
        tally
    }

    fn verdict(objective: &str, tally: &Tally) -> Verdict {
        Verdict::new(&objective.parse().unwrap(), tally)
    }

    #[test]
    fn an_objective_holds_at_its_limit_and_not_beyond() {
        let mut latencies: Vec<u64> = vec![100; 990];
        latencies.extend([5000; 10]);
        let at = verdict("get:p99<1ms", &tally(latencies.clone(), 0));
        assert!(at.holds, "{at:?}");
        assert!((at.burn - 1.0).abs() < 1e-9 && at.missed == 10, "{at:?}");
        latencies.push(5000);
        let beyond = verdict("get:p99<1ms", &tally(latencies, 0));
        assert!(!beyond.holds && beyond.burn > 1.0, "{beyond:?}");
    }

    #[test]
    fn failures_are_misses() {
        let verdict_of = |errors| verdict("get:p99<1ms", &tally(vec![100; 1000], errors));
        assert!(verdict_of(10).holds);
        let failed = verdict_of(11);
        assert!(!failed.holds, "{failed:?}");
        assert_eq!(failed.seen_us, None, "the 99th of a hundred is a failure");
        let only = verdict("get:p50<1ms", &tally([], 5));
        assert!(!only.holds && only.requests == 5);
        assert!(!verdict("get:p50<1ms", &tally([], 0)).holds, "nothing was asked, so nothing was shown");
    }

    #[test]
    fn shares_above_count_failures() {
        let class = Class::new(Operation::Get, &tally([500, 500, 2_000, 10_000, 100_000], 5));
        assert_eq!(class.above_percent, [80.0, 70.0, 60.0]);
    }

    #[test]
    fn a_curve_ends_where_there_are_no_more_requests() {
        let one = curve(tally(0..1000, 0).of(Operation::Get).histogram());
        assert_eq!(one.len(), 3 * POINTS_PER_NINE as usize + 1);
        assert!(one.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        assert_eq!(curve(tally([], 0).of(Operation::Get).histogram()).len(), 1);
    }

    #[test]
    fn the_worst_slice_and_partition_are_found() {
        let mut tally = tally([], 0);
        for second in 0..3u64 {
            for _ in 0..100 {
                let us = if second == 1 { 900 } else { 100 };
                tally.slices.record(second * 1_000_000_000, Operation::Get, us * 1000);
                tally.partitions.record(second as u32, us * 1000);
            }
        }
        // One slow request alone is no tail.
        tally.slices.record(5_000_000_000, Operation::Get, 9_000_000);
        tally.partitions.record(9, 9_000_000);
        let rows = slice_rows(&tally);
        assert_eq!(worst_slice(&tally, &rows), Some(1));
        let worst = worst_partitions(&tally, &|place| place.to_string());
        assert_eq!((worst.len(), worst[0].name.as_str()), (3, "1"));
    }
}
