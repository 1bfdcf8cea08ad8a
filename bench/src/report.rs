//! What one load found, for people and for scripts.

use serde::Serialize;

use crate::node_stats::NodeDelta;
use crate::options::{Mode, RunOptions, Workload};
use crate::run::{Summary, Tally};

/// One load and what came of it. Latencies are in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// `get`, `put` or `mixed`.
    pub workload: &'static str,
    /// `closed` or `open`.
    pub mode: &'static str,
    /// Requests per second that were asked for, in the open loop.
    pub rate: Option<u64>,
    /// Connections.
    pub connections: u16,
    /// Requests in flight on each.
    pub depth: u16,
    /// Records in the table.
    pub records: u64,
    /// Bytes of a value.
    pub value_size: u32,
    /// Seed of what was drawn.
    pub seed: u64,
    /// Records that had to be written first.
    pub loaded: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// Requests that ended well, per second.
    pub ops_per_s: f64,
    /// Latencies of GETs.
    pub get_us: Summary,
    /// Latencies of PUTs.
    pub put_us: Summary,
    /// How late requests of the open loop went out. Latencies count it in.
    pub lateness_us: Summary,
    /// Requests of the open loop that had not gone out, or were not answered, at the end.
    pub unsent: u64,
    /// GETs that found nothing.
    pub missing: u64,
    /// GETs with another record's value.
    pub wrong: u64,
    /// Requests answered `Busy`.
    pub busy: u64,
    /// Requests answered `Throttled`: above a quota.
    pub throttled: u64,
    /// Requests refused in another way.
    pub refused: u64,
    /// The last such refusal, in words.
    pub refusal: Option<String>,
    /// CPU microseconds of the load generator per operation.
    pub client_cpu_us_per_op: f64,
    /// CPU microseconds of the node per operation.
    pub server_cpu_us_per_op: Option<f64>,
    /// What the node counted meanwhile.
    pub node: NodeDelta,
}

impl RunReport {
    /// Puts together what was measured.
    pub fn new(
        options: &RunOptions,
        seed: u64,
        loaded: u64,
        tally: &Tally,
        own_cpu_us: f64,
        node: &NodeDelta,
    ) -> RunReport {
        let seconds = options.duration.as_secs_f64();
        let operations = tally.answered;
        RunReport {
            workload: match options.workload {
                Workload::Get => "get",
                Workload::Put => "put",
                Workload::Mixed => "mixed",
            },
            mode: match options.mode {
                Mode::Closed => "closed",
                Mode::Open => "open",
            },
            rate: options.rate.filter(|_| options.mode == Mode::Open),
            connections: options.connections,
            depth: options.depth,
            records: options.data.records,
            value_size: options.data.value_size,
            seed,
            loaded,
            seconds,
            ops_per_s: operations as f64 / seconds,
            get_us: tally.gets.summary(),
            put_us: tally.puts.summary(),
            lateness_us: tally.lateness.summary(),
            unsent: tally.unsent,
            missing: tally.missing,
            wrong: tally.wrong,
            busy: tally.busy,
            throttled: tally.throttled,
            refused: tally.refused,
            refusal: tally.refusal.clone(),
            client_cpu_us_per_op: own_cpu_us / operations.max(1) as f64,
            server_cpu_us_per_op: node.cpu_us_per_operation,
            node: *node,
        }
    }

    /// Whether every answer was right. (`Busy` is an answer; the node may say it.)
    pub fn is_sound(&self) -> bool {
        self.missing == 0 && self.wrong == 0 && self.refused == 0 && self.ops_per_s > 0.0
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut lines = vec![format!(
            "{} {}, {} x {} in flight, {} records of {} B: {:.0} requests/s over {:.1} s",
            self.mode,
            self.workload,
            self.connections,
            self.depth,
            self.records,
            self.value_size,
            self.ops_per_s,
            self.seconds
        )];
        let latencies = [("GET", &self.get_us), ("PUT", &self.put_us), ("sent late by", &self.lateness_us)];
        for (name, s) in latencies.into_iter().filter(|(_, summary)| summary.count > 0) {
            lines.push(format!(
                "  {name:<12} p50 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0} us",
                s.p50, s.p99, s.p999, s.max
            ));
        }
        let number = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.3}"));
        lines.push(format!(
            "  CPU per request: node {} us, this generator {:.3} us",
            number(self.server_cpu_us_per_op),
            self.client_cpu_us_per_op
        ));
        lines.push(format!(
            "  device: {} reads per GET ({} per GET that missed memory), {} writes per PUT, write amplification {}",
            number(self.node.device_reads_per_get),
            number(self.node.device_reads_per_get_miss),
            number(self.node.device_writes_per_put),
            number(self.node.write_amplification)
        ));
        let troubles = [
            ("found nothing", self.missing),
            ("had a wrong value", self.wrong),
            ("were answered Busy", self.busy),
            ("were answered Throttled", self.throttled),
            ("were refused", self.refused),
            ("had not gone out or were not answered at the end", self.unsent),
        ];
        for (what, count) in troubles.into_iter().filter(|(_, count)| *count > 0) {
            lines.push(format!("  {count} {what}"));
        }
        if let Some(refusal) = &self.refusal {
            lines.push(format!("  the last refusal: {refusal}"));
        }
        lines.join("\n") + "\n"
    }
}
