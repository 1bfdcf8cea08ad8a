//! What a load has seen: latencies, and what went wrong.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::slices::{Partitions, Slices};
use crate::workload::Operation;

/// Longest latency that is told apart, in nanoseconds; longer ones count as this.
pub const MOST_NS: u64 = 120 * 1_000_000_000;

/// Latencies of one operation, to three digits.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Latencies {
        let histogram = Histogram::new_with_bounds(1, MOST_NS, 3).expect("the bounds are in order");
        Latencies { histogram }
    }
}

/// Latencies in microseconds, as reports give them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// 90 of 100 are below.
    pub p90: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1000 are below.
    pub p999: f64,
    /// 9,999 of 10,000 are below.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
}

impl Latencies {
    /// Count one.
    pub fn record(&mut self, ns: u64) {
        self.histogram.saturating_record(ns.max(1));
    }

    /// Count all of another's.
    pub fn add(&mut self, other: &Latencies) {
        self.histogram.add(&other.histogram).expect("all have the same bounds");
    }

    /// The histogram itself, in nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// How many took longer than so many microseconds.
    pub fn above_us(&self, us: f64) -> u64 {
        self.histogram.len() - self.histogram.count_between(0, (us * 1000.0) as u64)
    }

    /// As reports give it.
    pub fn summary(&self) -> Summary {
        if self.histogram.is_empty() {
            return Summary::default();
        }
        let us = |quantile: f64| self.histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Summary {
            count: self.histogram.len(),
            mean: self.histogram.mean() / 1000.0,
            p50: us(0.5),
            p90: us(0.9),
            p99: us(0.99),
            p999: us(0.999),
            p9999: us(0.9999),
            max: self.histogram.max() as f64 / 1000.0,
        }
    }
}

/// What one worker has seen while it measured.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Latencies of what was answered well, by the operation's number.
    pub latencies: [Latencies; Operation::ALL.len()],
    /// Requests that failed in whatever way, by the operation's number.
    pub errors: [u64; Operation::ALL.len()],
    /// By slices of time.
    pub slices: Slices,
    /// By partitions.
    pub partitions: Partitions,
    /// Requests that were answered well while the load was measured, whenever they were due.
    pub answered: u64,
    /// Requests of the open loop that were due while the load was measured.
    pub offered: u64,
    /// How long after its time the generator turned to a request of the open loop: its own fault.
    pub lateness: Latencies,
    /// How long requests of the open loop were held back because enough were in flight: the server's doing.
    pub held_back: Latencies,
    /// Records that scans have read.
    pub scanned: u64,
    /// GETs that found nothing, though the record was loaded.
    pub missing: u64,
    /// GETs whose value was another record's, or of another length.
    pub wrong: u64,
    /// Requests answered `Busy`.
    pub busy: u64,
    /// Requests answered `Throttled`.
    pub throttled: u64,
    /// Transactions that another was faster than.
    pub conflicts: u64,
    /// Requests refused in another way.
    pub refused: u64,
    /// The last other refusal, in words.
    pub refusal: Option<String>,
    /// Requests of the open loop whose time came, but that had not gone out or were not answered at the end.
    pub unsent: u64,
}

impl Tally {
    /// Nothing yet, in slices of this length.
    pub fn new(slice: Duration) -> Tally {
        Tally {
            latencies: Default::default(),
            errors: Default::default(),
            slices: Slices::new(slice),
            partitions: Partitions::default(),
            answered: 0,
            offered: 0,
            lateness: Latencies::default(),
            held_back: Latencies::default(),
            scanned: 0,
            missing: 0,
            wrong: 0,
            busy: 0,
            throttled: 0,
            conflicts: 0,
            refused: 0,
            refusal: None,
            unsent: 0,
        }
    }

    /// Latencies of one operation.
    pub fn of(&self, operation: Operation) -> &Latencies {
        &self.latencies[operation as usize]
    }

    /// Count all of another's.
    pub fn add(&mut self, other: &Tally) {
        for (mine, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.add(theirs);
        }
        for (mine, theirs) in self.errors.iter_mut().zip(&other.errors) {
            *mine += theirs;
        }
        self.slices.add(&other.slices);
        self.partitions.add(&other.partitions);
        self.lateness.add(&other.lateness);
        self.held_back.add(&other.held_back);
        self.answered += other.answered;
        self.offered += other.offered;
        self.scanned += other.scanned;
        self.missing += other.missing;
        self.wrong += other.wrong;
        self.busy += other.busy;
        self.throttled += other.throttled;
        self.conflicts += other.conflicts;
        self.refused += other.refused;
        self.unsent += other.unsent;
        self.refusal = self.refusal.take().or_else(|| other.refusal.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_in_microseconds() {
        let mut latencies = Latencies::default();
        (1..=1000).for_each(|us| latencies.record(us * 1000));
        let summary = latencies.summary();
        assert_eq!(summary.count, 1000);
        assert!((summary.p50 - 500.0).abs() < 1.0, "{summary:?}");
        assert!((summary.p99 - 990.0).abs() < 1.5, "{summary:?}");
        assert!((summary.max - 1000.0).abs() < 1.5, "{summary:?}");
        assert_eq!(latencies.above_us(990.5), 10);
        assert_eq!(latencies.above_us(2000.0), 0);
        assert_eq!(Latencies::default().summary(), Summary::default());
    }

    #[test]
    fn tallies_add_up() {
        let new = || Tally::new(Duration::from_secs(1));
        let mut one = Tally { missing: 1, answered: 4, ..new() };
        one.latencies[Operation::Get as usize].record(5);
        let mut two = Tally { missing: 2, answered: 5, refusal: Some("no".to_owned()), ..new() };
        two.latencies[Operation::Get as usize].record(6);
        two.latencies[Operation::Put as usize].record(u64::MAX);
        two.errors[Operation::Put as usize] = 3;
        one.add(&two);
        let count = |operation| one.of(operation).summary().count;
        assert_eq!((count(Operation::Get), count(Operation::Put), one.answered), (2, 1, 9));
        assert_eq!((one.missing, one.errors[1], one.refusal.as_deref()), (3, 3, Some("no")));
    }
}
