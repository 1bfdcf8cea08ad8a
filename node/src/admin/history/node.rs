//! What the node as a whole did: every second of the last ten minutes, and every ten seconds of the last hour.

use std::collections::VecDeque;

use super::super::limits::STEP_S;
use super::super::view::View;
use crate::reactor::latency::Latencies;
use crate::reactor::meter::Kind;

/// What is kept of the node, in this order. Rates are by the second, times in seconds.
pub const NODE_SERIES: [&str; 26] = [
    "gets_per_s",
    "scans_per_s",
    "writes_per_s",
    "transactions_per_s",
    "requests_per_s",
    "busy_per_s",
    "throttled_per_s",
    "get_p50_s",
    "get_p99_s",
    "get_p999_s",
    "scan_p99_s",
    "write_p50_s",
    "write_p99_s",
    "write_p999_s",
    "drive_reads_per_s",
    "drive_read_bytes_per_s",
    "drive_write_bytes_per_s",
    "cleaning_bytes_per_s",
    "live_bytes",
    "segments_free",
    "index_bytes",
    "memory_table_bytes",
    "cache_bytes",
    "shard_cpu_cores",
    "connections",
    "resident_bytes",
];

/// How finely it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Every second, ten minutes back.
    Second,
    /// Every ten seconds, an hour back.
    Step,
}

/// Entries that are kept of each.
const SECONDS: usize = 600;
const STEPS: usize = 360;

type Row = [f32; NODE_SERIES.len()];

/// The last hour of the node.
#[derive(Debug, Default)]
pub struct NodeHistory {
    seconds: VecDeque<(u64, Row)>,
    steps: VecDeque<(u64, Row)>,
}

impl NodeHistory {
    /// A second ends at this UNIX second, and at some of them a step of ten.
    pub fn push(&mut self, time_s: u64, view: &View, ends_step: bool) {
        let now = row(view);
        keep(&mut self.seconds, SECONDS, (time_s, now));
        if !ends_step {
            return;
        }
        // Rates are those of the whole step; what is told of the last few seconds or of now stays so.
        let last = self.seconds.iter().rev().take(STEP_S as usize);
        let (count, mut mean) = (last.len(), now);
        for (series, mean) in mean.iter_mut().enumerate().filter(|(series, _)| is_rate(*series)) {
            *mean = last.clone().map(|(_, row)| row[series]).sum::<f32>() / count as f32;
        }
        keep(&mut self.steps, STEPS, (time_s, mean));
    }

    /// Series by their places in [`NODE_SERIES`], since a time. A time that is not known is not a number.
    pub fn of(&self, resolution: Resolution, series: &[usize], since_s: u64) -> (Vec<u64>, Vec<Vec<f32>>) {
        let rows = match resolution {
            Resolution::Second => &self.seconds,
            Resolution::Step => &self.steps,
        };
        let from = rows.partition_point(|(time, _)| *time < since_s);
        let rows = rows.range(from..);
        let column = |series: &usize| rows.clone().map(|(_, row)| row[*series]).collect();
        (rows.clone().map(|(time, _)| *time).collect(), series.iter().map(column).collect())
    }
}

fn is_rate(series: usize) -> bool {
    NODE_SERIES[series].ends_with("_per_s") || NODE_SERIES[series] == "shard_cpu_cores"
}

fn keep(rows: &mut VecDeque<(u64, Row)>, most: usize, row: (u64, Row)) {
    if rows.len() == most {
        rows.pop_front();
    }
    rows.push_back(row);
}

fn row(view: &View) -> Row {
    let recent = |kind: Kind| &view.recent[kind as usize];
    let quantile = |latencies: &Latencies, part| latencies.quantile_s(part).unwrap_or(f64::NAN);
    let writes = ["puts", "deletes", "batches", "increments", "expiry_changes"];
    let written = ["user_frame_bytes", "cleaning_frame_bytes", "journal_bytes", "image_bytes", "meta_bytes"];
    let sum = |names: &[&str]| names.iter().map(|name| view.rate(name)).sum::<f64>();
    let of = |name: &str| match name {
        "gets_per_s" => view.rate("gets"),
        "scans_per_s" => view.rate("scans"),
        "writes_per_s" => sum(&writes),
        "transactions_per_s" => view.rate("transactions_committed"),
        "requests_per_s" => view.rate("requests"),
        "busy_per_s" => view.rate("busy"),
        "throttled_per_s" => view.rate("throttled"),
        "get_p50_s" => quantile(recent(Kind::Get), 0.5),
        "get_p99_s" => quantile(recent(Kind::Get), 0.99),
        "get_p999_s" => quantile(recent(Kind::Get), 0.999),
        "scan_p99_s" => quantile(recent(Kind::Scan), 0.99),
        "write_p50_s" => quantile(recent(Kind::Write), 0.5),
        "write_p99_s" => quantile(recent(Kind::Write), 0.99),
        "write_p999_s" => quantile(recent(Kind::Write), 0.999),
        "drive_reads_per_s" => view.rate("device_reads"),
        "drive_read_bytes_per_s" => view.rate("device_read_bytes"),
        "drive_write_bytes_per_s" => sum(&written),
        "cleaning_bytes_per_s" => view.rate("cleaning_frame_bytes"),
        "shard_cpu_cores" => view.rate("cpu_us") * 1e-6,
        "resident_bytes" => view.resident_bytes as f64,
        name => view.total(name) as f64,
    };
    NODE_SERIES.map(|name| of(name) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_steps_are_kept_for_their_time_and_steps_have_the_mean() {
        let mut history = NodeHistory::default();
        for second in 0..5000u64 {
            let mut view = View::empty();
            view.rates.insert("gets", (second % 10) as f64);
            view.totals.insert("live_bytes", second);
            history.push(second, &view, second % STEP_S == STEP_S - 1);
        }
        let place = |name| NODE_SERIES.iter().position(|series| *series == name).expect("known");
        let asked = [place("gets_per_s"), place("live_bytes"), place("get_p99_s")];
        let (times, columns) = history.of(Resolution::Step, &asked, 0);
        assert_eq!((times.len(), times[359]), (STEPS, 4999));
        assert!(columns[0].iter().all(|rate| *rate == 4.5), "{:?}", columns[0]);
        assert_eq!(columns[1][359], 4999.0);
        assert!(columns[2][0].is_nan(), "nothing was asked");
        let (times, columns) = history.of(Resolution::Second, &asked, 4990);
        assert_eq!((times[0], times.len(), columns[0][3]), (4990, 10, 3.0));
    }
}
