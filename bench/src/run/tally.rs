//! What a load has seen: latencies, and what went wrong.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart, in nanoseconds; longer ones count as this.
const MOST_NS: u64 = 120 * 1_000_000_000;

/// Which operation a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A read.
    Get,
    /// A write.
    Put,
}

/// Latencies of one operation.
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
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1000 are below.
    pub p999: f64,
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

    /// As reports give it.
    pub fn summary(&self) -> Summary {
        if self.histogram.is_empty() {
            return Summary::default();
        }
        let us = |ns: u64| ns as f64 / 1000.0;
        Summary {
            count: self.histogram.len(),
            mean: self.histogram.mean() / 1000.0,
            p50: us(self.histogram.value_at_quantile(0.5)),
            p99: us(self.histogram.value_at_quantile(0.99)),
            p999: us(self.histogram.value_at_quantile(0.999)),
            max: us(self.histogram.max()),
        }
    }
}

/// What one worker has seen while it measured.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Of GETs that were answered.
    pub gets: Latencies,
    /// Of PUTs that were acknowledged.
    pub puts: Latencies,
    /// Requests that were answered well while the load was measured, whenever they were due.
    pub answered: u64,
    /// How long after its time a request of the open loop went out.
    pub lateness: Latencies,
    /// GETs that found nothing, though the record was loaded.
    pub missing: u64,
    /// GETs whose value was another record's, or of another length.
    pub wrong: u64,
    /// Requests answered `Busy`.
    pub busy: u64,
    /// Requests answered `Throttled`.
    pub throttled: u64,
    /// Requests refused in another way.
    pub refused: u64,
    /// The last other refusal, in words.
    pub refusal: Option<String>,
    /// Requests of the open loop whose time came, but that had not gone out at the end.
    pub unsent: u64,
}

impl Tally {
    /// Count all of another's.
    pub fn add(&mut self, other: &Tally) {
        self.gets.add(&other.gets);
        self.puts.add(&other.puts);
        self.lateness.add(&other.lateness);
        self.answered += other.answered;
        self.missing += other.missing;
        self.wrong += other.wrong;
        self.busy += other.busy;
        self.throttled += other.throttled;
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
        assert_eq!(Latencies::default().summary(), Summary::default());
    }

    #[test]
    fn tallies_add_up() {
        let mut one = Tally { missing: 1, answered: 4, ..Tally::default() };
        one.gets.record(5);
        let mut two = Tally { missing: 2, answered: 5, refusal: Some("no".to_owned()), ..Tally::default() };
        two.gets.record(6);
        two.puts.record(u64::MAX);
        one.add(&two);
        assert_eq!((one.gets.summary().count, one.puts.summary().count, one.answered), (2, 1, 9));
        assert_eq!((one.missing, one.refusal.as_deref()), (3, Some("no")));
    }
}
