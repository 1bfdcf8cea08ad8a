//! What a file may say.

use std::collections::HashSet;

use super::{Curve, IoProperties, MAX_CURVES, MAX_POINTS, Operation, Point, knee_of};

/// Shortest and longest block.
const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 4096..=1 << 20;
/// Most operations in flight.
const MAX_DEPTH: u32 = 1024;
/// Most operations a second, and microseconds of one: an hour.
const MAX_IOPS: f64 = 1e9;
const MAX_LATENCY_US: f64 = 3.6e9;
/// By how much bytes a second may differ from operations a second of that length: what rounding does.
const ROUNDING: f64 = 0.01;

impl IoProperties {
    /// What cannot be, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        self.drive.check()?;
        if !(1..=MAX_CURVES).contains(&self.curves.len()) {
            return Err(format!("it has {} curves, and may have 1 to {MAX_CURVES}", self.curves.len()));
        }
        let mut seen = HashSet::new();
        for curve in &self.curves {
            if !seen.insert((curve.operation, curve.block_bytes)) {
                return Err(format!("{} is there twice", curve.name()));
            }
            curve.check().map_err(|problem| format!("{}: {problem}", curve.name()))?;
        }
        for operation in [Operation::Read, Operation::DurableWrite] {
            if !self.curves.iter().any(|curve| curve.operation == operation) {
                return Err(format!("it has no curve of {operation}"));
            }
        }
        let points: usize = self.curves.iter().map(|curve| curve.points.len()).sum();
        if points != self.measurement.points {
            return Err(format!("it has {points} points, and was written with {}", self.measurement.points));
        }
        let point_s = self.measurement.point_s;
        if !(point_s.is_finite() && point_s > 0.0) {
            return Err(format!("measurement.point_s is {point_s}"));
        }
        self.mixed.map_or(Ok(()), |mixed| {
            let percents = [mixed.above_1_ms_percent, mixed.above_8_ms_percent, mixed.above_64_ms_percent];
            let good = percents.iter().all(|percent| (0.0..=100.0).contains(percent))
                && percents.is_sorted_by(|a, b| a >= b)
                && mixed.trial_s.is_finite()
                && mixed.trial_s > 0.0;
            if good { Ok(()) } else { Err(format!("mixed says {percents:?} percent in {} s", mixed.trial_s)) }
        })
    }
}

impl Curve {
    fn name(&self) -> String {
        format!("the curve of {} of {} bytes", self.operation, self.block_bytes)
    }

    fn check(&self) -> Result<(), String> {
        if !BLOCK_BYTES.contains(&self.block_bytes) || !self.block_bytes.is_power_of_two() {
            return Err("a block is a power of two of 4096 to 1048576 bytes".into());
        }
        if !(1..=MAX_POINTS).contains(&self.points.len()) {
            return Err(format!("it has {} points, and may have 1 to {MAX_POINTS}", self.points.len()));
        }
        if !self.points.is_sorted_by(|a, b| a.depth < b.depth) {
            return Err("its depths do not rise".into());
        }
        for point in &self.points {
            point.check(self.block_bytes).map_err(|problem| format!("depth {}: {problem}", point.depth))?;
        }
        let knee = knee_of(&self.points);
        if self.knee_depth != knee {
            return Err(format!("its knee is at depth {knee}, not {}", self.knee_depth));
        }
        Ok(())
    }
}

impl Point {
    fn check(&self, block_bytes: u32) -> Result<(), String> {
        if !(1..=MAX_DEPTH).contains(&self.depth) {
            return Err(format!("a depth is 1 to {MAX_DEPTH}"));
        }
        if !(self.iops > 0.0 && self.iops <= MAX_IOPS) {
            return Err(format!("{} operations a second", self.iops));
        }
        let bytes_per_s = self.iops * f64::from(block_bytes);
        let off = (self.bytes_per_s - bytes_per_s).abs();
        if off.is_nan() || off > bytes_per_s * ROUNDING {
            return Err(format!(
                "{} operations a second are not {} bytes a second",
                self.iops, self.bytes_per_s
            ));
        }
        let latencies = [self.p50_us, self.p99_us, self.p999_us];
        let possible = latencies.iter().all(|us| (0.0..=MAX_LATENCY_US).contains(us));
        if !possible || !latencies.is_sorted() {
            return Err(format!("p50, p99 and p99.9 of {latencies:?} us"));
        }
        Ok(())
    }
}
