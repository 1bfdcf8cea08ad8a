//! Aerospike's certification of drives, asked of a whole server from client to client.
//!
//! ACT (<https://github.com/aerospike/act>) puts 2,000 reads and 1,000 writes a second of 1.5 KB records for each multiple of its
//! load on a bare drive, with the reads and writes of large blocks that such a load brings, for 24 hours. A drive passes if in no hour more
//! than 5 % of the reads took longer than 1 ms, 1 % longer than 8 ms, and 0.1 % longer than 64 ms. Here the reads and writes come over
//! TCP, writes are durable before they are answered, and the large blocks are the server's own cleaning.

use serde::Serialize;

use crate::options::{ActOptions, RunOptions};
use crate::report::SloReport;
use crate::run::{Measured, RunError, Slice, run};
use crate::workload::{Operation, Workload};

/// Reads and writes per second of one multiple.
const READS_PER_S: u64 = 2_000;
const WRITES_PER_S: u64 = 1_000;
/// Milliseconds, and the most percent of a slice's reads that may take longer.
const LIMITS: [(f64, f64); 3] = [(1.0, 5.0), (8.0, 1.0), (64.0, 0.1)];

/// One slice of time.
#[derive(Debug, Clone, Serialize)]
pub struct ActSlice {
    /// Seconds since the beginning.
    pub at_s: f64,
    /// Reads that were due.
    pub reads: u64,
    /// Percent of them above 1, 8 and 64 ms; those that failed are above all.
    pub reads_above_percent: [f64; LIMITS.len()],
    /// The same of writes, for which there is no limit.
    pub writes_above_percent: [f64; LIMITS.len()],
    /// Whether the reads keep the limits.
    pub passes: bool,
}

/// What a run has found.
#[derive(Debug, Clone, Serialize)]
pub struct ActReport {
    /// How many times ACT's load was asked for.
    pub multiple: u64,
    /// Whether every slice passes, every answer was right, and the generator kept up.
    pub passes: bool,
    /// Seconds of a slice; ACT's own are of an hour.
    pub slice_s: f64,
    /// All of them.
    pub slices: Vec<ActSlice>,
    /// The load in full.
    pub run: crate::report::RunReport,
}

/// The load, and what came of it for a report.
pub struct Act {
    /// What was found.
    pub report: ActReport,
    /// The load as it was asked for.
    pub options: RunOptions,
    /// All that was measured.
    pub measured: Measured,
}

/// Runs ACT's load and holds its limits against each slice.
pub fn act(options: &ActOptions) -> Result<Act, RunError> {
    let load = load(options);
    let measured = run(&load)?;
    let length_s = load.slice().as_secs_f64();
    let whole = (load.duration.as_secs_f64() / length_s).floor().max(1.0) as usize;
    // What was due in the last moments of a run that ends within a slice is too little to judge by.
    let slices: Vec<ActSlice> = measured
        .tally
        .slices
        .iter()
        .take(whole)
        .enumerate()
        .map(|(place, slice)| ActSlice::new(place as f64 * length_s, slice))
        .collect();
    let is_sound = measured.report.is_sound() && !measured.report.lagged;
    let report = ActReport {
        multiple: options.multiple,
        passes: is_sound && slices.iter().all(|slice| slice.passes),
        slice_s: length_s,
        slices,
        run: measured.report.clone(),
    };
    Ok(Act { report, options: load, measured })
}

fn load(options: &ActOptions) -> RunOptions {
    let mix = format!("get={READS_PER_S},put={WRITES_PER_S}").parse().expect("two kinds with their weights");
    RunOptions {
        mix: Some(mix),
        rate: Some(options.multiple * (READS_PER_S + WRITES_PER_S)),
        connections: options.connections,
        depth: options.depth,
        duration: options.duration,
        warmup: options.warmup,
        fill_percent: options.fill_percent,
        churn: options.churn,
        slice: Some(options.slice),
        report: options.report.clone(),
        threads: options.threads,
        slo: LIMITS
            .iter()
            .map(|(ms, percent)| format!("get:p{}<{ms}ms", 100.0 - percent).parse().expect("an objective"))
            .collect(),
        ..RunOptions::new(options.data.clone(), Workload::Mixed)
    }
}

impl ActSlice {
    fn new(at_s: f64, slice: &Slice) -> ActSlice {
        let above = |operation| LIMITS.map(|(ms, _)| slice.above_percent(operation, ms * 1000.0));
        let reads_above_percent = above(Operation::Get);
        let reads = slice.due(Operation::Get);
        let kept = reads_above_percent.iter().zip(LIMITS).all(|(above, (_, most))| *above <= most);
        ActSlice {
            at_s,
            reads,
            reads_above_percent,
            writes_above_percent: above(Operation::Put),
            passes: kept && reads > 0,
        }
    }
}

impl Act {
    /// For a report like that of any other load.
    pub fn slo(&self) -> SloReport {
        SloReport::new(&self.options, &self.measured)
    }
}

impl ActReport {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{}x: {} reads and {} writes a second of {} B; slices of {} s (ACT's are of 3600 s)\n\
             {:>8} {:>10} {:>9} {:>9} {:>9}   {:>9} {:>9} {:>9}\n",
            self.multiple,
            self.multiple * READS_PER_S,
            self.multiple * WRITES_PER_S,
            self.run.value_size,
            self.slice_s,
            "second",
            "reads",
            "%>1ms",
            "%>8ms",
            "%>64ms",
            "writes:",
            "%>8ms",
            "%>64ms",
        );
        for slice in &self.slices {
            let ([r1, r8, r64], [w1, w8, w64]) = (slice.reads_above_percent, slice.writes_above_percent);
            let verdict = if slice.passes { "" } else { "  fails" };
            text += &format!(
                "{:>8} {:>10} {r1:>9.3} {r8:>9.3} {r64:>9.3}   {w1:>9.3} {w8:>9.3} {w64:>9.3}{verdict}\n",
                slice.at_s, slice.reads
            );
        }
        text += "limits of reads:          5.000     1.000     0.100\n";
        if self.run.lagged {
            text += "the generator lagged: these are not the server's latencies alone\n";
        }
        text + if self.passes { "passes\n" } else { "fails\n" }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::run::Slices;

    fn slice(fast: u32, slow_us: &[u64], failed: u32) -> ActSlice {
        let mut slices = Slices::new(Duration::from_secs(1));
        (0..fast).for_each(|_| slices.record(0, Operation::Get, 100_000));
        slow_us.iter().for_each(|us| slices.record(0, Operation::Get, us * 1000));
        (0..failed).for_each(|_| slices.fail(0, Operation::Get));
        ActSlice::new(0.0, &slices.iter().next().cloned().unwrap_or_default())
    }

    #[test]
    fn a_slice_passes_at_its_limits_and_not_beyond() {
        assert!(slice(950, &[2_000; 50], 0).passes);
        assert!(!slice(949, &[2_000; 51], 0).passes);
        assert!(slice(990, &[10_000; 10], 0).passes);
        assert!(!slice(989, &[10_000; 11], 0).passes);
        assert!(slice(999, &[100_000; 1], 0).passes);
        assert!(!slice(998, &[100_000; 2], 0).passes);
    }

    #[test]
    fn failures_are_above_every_limit() {
        assert!(slice(999, &[], 1).passes);
        let failed = slice(998, &[], 2);
        assert!(!failed.passes);
        assert_eq!((failed.reads, failed.reads_above_percent), (1000, [0.2; 3]));
        assert!(!slice(0, &[], 0).passes, "nothing was asked");
    }
}
