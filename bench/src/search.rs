//! The highest rate at which all objectives hold.

use serde::Serialize;

use crate::options::{Mode, RunOptions, SearchOptions};
use crate::report::SloReport;
use crate::run::{Measured, Ready, RunError, measure_all, prepare};

/// A rate that did not hold when it was tried again is taken down by this.
const STEP_DOWN: f64 = 0.95;
/// How often.
const MOST_STEPS_DOWN: u32 = 8;

/// One rate that was tried.
#[derive(Debug, Clone, Serialize)]
pub struct Probe {
    /// Requests per second that were offered.
    pub rate: u64,
    /// Requests per second that were answered well.
    pub ops_per_s: f64,
    /// The worst p99 of all kinds of requests, in microseconds.
    pub p99_us: f64,
    /// The worst p99.9.
    pub p999_us: f64,
    /// Whether all objectives held.
    pub holds: bool,
    /// Whether the generator was late by itself: then the rate counts as one that did not hold.
    pub lagged: bool,
}

/// What a search has found.
#[derive(Debug, Clone, Serialize)]
pub struct SearchReport {
    /// The objectives.
    pub objectives: Vec<String>,
    /// What a closed loop gets with the same connections and depth, in requests per second.
    pub most_per_s: f64,
    /// The highest rate that held each time it was tried; `None` where none did.
    pub rate: Option<u64>,
    /// How often it was tried.
    pub confirmed: u8,
    /// All that were tried, in order.
    pub probes: Vec<Probe>,
}

/// The search, and the last load at the rate that it found.
pub struct Found {
    /// What was found.
    pub report: SearchReport,
    /// The last load at that rate.
    pub last: Option<(RunOptions, Measured)>,
}

struct Search<'a> {
    options: &'a SearchOptions,
    ready: Ready,
    probes: Vec<Probe>,
    last: Option<(RunOptions, Measured)>,
}

/// Looks for the rate by bisection, and tries what it finds again.
pub fn search(options: &SearchOptions) -> Result<Found, RunError> {
    let mut ready = prepare(&options.run)?;
    let closed = RunOptions { mode: Some(Mode::Closed), rate: None, ..options.run.clone() };
    eprintln!("what a closed loop gets");
    let most_per_s = measure_all(&mut ready, &closed)?.report.ops_per_s;
    let mut search = Search { options, ready, probes: Vec::new(), last: None };
    let mut high = options.high.unwrap_or(most_per_s as u64).max(1);
    let mut low = options.low.min(high);
    let mut found = search.holds(high)?.then_some(high);
    if found.is_none() {
        while (high - low) as f64 > high as f64 * options.precision_percent / 100.0 {
            let middle = low + (high - low).div_ceil(2);
            if middle == high {
                break;
            }
            if search.holds(middle)? {
                (low, found) = (middle, Some(middle));
            } else {
                high = middle;
            }
        }
    }
    let rate = match found {
        Some(rate) => search.confirm(rate)?,
        None => None,
    };
    let objectives = options.run.objectives().iter().map(ToString::to_string).collect();
    let Search { probes, last, .. } = search;
    let report = SearchReport { objectives, most_per_s, rate, confirmed: options.confirm, probes };
    let last = last.filter(|(options, _)| rate.is_some() && options.rate == rate);
    Ok(Found { report, last })
}

impl Search<'_> {
    fn holds(&mut self, rate: u64) -> Result<bool, RunError> {
        let run = RunOptions { mode: Some(Mode::Open), rate: Some(rate), ..self.options.run.clone() };
        let measured = measure_all(&mut self.ready, &run)?;
        let slo = SloReport::new(&run, &measured);
        let worst = |of: fn(&crate::run::Summary) -> f64| {
            measured.report.latencies().iter().map(|(_, summary)| of(summary)).fold(0.0, f64::max)
        };
        let probe = Probe {
            rate,
            ops_per_s: measured.report.ops_per_s,
            p99_us: worst(|summary| summary.p99),
            p999_us: worst(|summary| summary.p999),
            holds: slo.holds && !measured.report.lagged,
            lagged: measured.report.lagged,
        };
        eprintln!("{}", probe.to_text());
        let holds = probe.holds;
        self.probes.push(probe);
        self.last = Some((run, measured));
        Ok(holds)
    }

    /// Tries a rate again, and lower ones where it does not hold each time.
    fn confirm(&mut self, rate: u64) -> Result<Option<u64>, RunError> {
        let mut rate = rate;
        for _ in 0..MOST_STEPS_DOWN {
            let mut held = 0;
            while held < self.options.confirm && self.holds(rate)? {
                held += 1;
            }
            if held == self.options.confirm {
                return Ok(Some(rate));
            }
            rate = ((rate as f64 * STEP_DOWN) as u64).max(1);
        }
        Ok(None)
    }
}

impl Probe {
    fn to_text(&self) -> String {
        format!(
            "{:>9}/s  p99 {:>8.0} us  p99.9 {:>8.0} us  {}{}",
            self.rate,
            self.p99_us,
            self.p999_us,
            if self.holds { "holds" } else { "does not hold" },
            if self.lagged { " (the generator lagged)" } else { "" }
        )
    }
}

impl SearchReport {
    /// For people.
    pub fn to_text(&self) -> String {
        let found = match self.rate {
            Some(rate) => format!(
                "{rate} requests/s, {:.0} % of the {:.0}/s that a closed loop gets; held {} times more",
                rate as f64 * 100.0 / self.most_per_s.max(1.0),
                self.most_per_s,
                self.confirmed
            ),
            None => "no rate that was tried".to_owned(),
        };
        format!("{}: {found}\n", self.objectives.join(", "))
    }
}
