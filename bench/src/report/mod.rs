//! What one load found, for people and for scripts.

mod files;
mod fingerprint;
mod openslo;
mod page;
mod plot;
mod slo;

use serde::Serialize;

use crate::draw::Distribution;
use crate::node_stats::NodeDelta;
use crate::options::{Mode, Protocol, RunOptions};
use crate::run::{Summary, Tally};
use crate::workload::Operation;

pub use files::write;
pub use slo::SloReport;

/// Above this share of its threads' time a generator may be what limits a load.
const MOST_GENERATOR_LOAD: f64 = 0.9;

/// One load and what came of it. Latencies are in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// As the command line calls it, or `mix`.
    pub workload: String,
    /// Shares of the kinds of requests.
    pub mix: String,
    /// `uniform`, `zipfian` or `latest`.
    pub distribution: &'static str,
    /// `lode`, `resp` or `memcached`.
    pub protocol: &'static str,
    /// `closed` or `open`.
    pub mode: &'static str,
    /// Requests per second that were asked for, in the open loop.
    pub rate: Option<u64>,
    /// Connections.
    pub connections: u16,
    /// Requests in flight on each.
    pub depth: u16,
    /// Tables.
    pub tables: u16,
    /// Records in them.
    pub records: u64,
    /// Bytes of a value, or lengths with their weights.
    pub value_size: String,
    /// Bytes of a key.
    pub key_size: u16,
    /// Seed of what was drawn.
    pub seed: u64,
    /// Records that had to be written first.
    pub loaded: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// Requests that were due, per second, in the open loop.
    pub offered_per_s: Option<f64>,
    /// Requests that ended well, per second.
    pub ops_per_s: f64,
    /// Requests that did not: all kinds of failures together.
    pub errors: u64,
    /// Latencies of GETs.
    pub get_us: Summary,
    /// Latencies of PUTs.
    pub put_us: Summary,
    /// Latencies of inserts.
    pub insert_us: Summary,
    /// Latencies of scans, all their pages together.
    pub scan_us: Summary,
    /// Latencies of read-modify-writes, both parts together.
    pub rmw_us: Summary,
    /// Latencies of transactions, from their begin to their commit.
    pub transaction_us: Summary,
    /// How late the generator turned to requests of the open loop: its own doing. Latencies count it in.
    pub lateness_us: Summary,
    /// How long requests of the open loop were held back because as many as allowed were in flight. Latencies count it in.
    pub held_back_us: Summary,
    /// Whether the generator was late or short of CPU, so that the latencies are its own rather than the server's.
    pub lagged: bool,
    /// Requests of the open loop that had not gone out, or were not answered, at the end.
    pub unsent: u64,
    /// Records that scans have read, per second.
    pub scanned_per_s: f64,
    /// Reads that found nothing.
    pub missing: u64,
    /// GETs with another record's value.
    pub wrong: u64,
    /// Requests answered `Busy`.
    pub busy: u64,
    /// Requests answered `Throttled`: above a quota.
    pub throttled: u64,
    /// Transactions that another was faster than.
    pub conflicts: u64,
    /// Requests refused in another way.
    pub refused: u64,
    /// The last such refusal, in words.
    pub refusal: Option<String>,
    /// CPU microseconds of the load generator per operation.
    pub client_cpu_us_per_op: f64,
    /// CPU microseconds of the server per operation.
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
        let is_open = options.mode() == Mode::Open;
        let of = |operation| tally.of(operation).summary();
        let lateness_us = tally.lateness.summary();
        let own_load = own_cpu_us / (seconds * 1e6 * f64::from(options.threads));
        RunReport {
            workload: if options.mix.is_some() { "mix".to_owned() } else { options.workload.name() },
            mix: options.mix().to_string(),
            distribution: match options.distribution() {
                Distribution::Uniform => "uniform",
                Distribution::Zipfian => "zipfian",
                Distribution::Latest => "latest",
            },
            protocol: match options.data.protocol {
                Protocol::Lode => "lode",
                Protocol::Resp => "resp",
                Protocol::Memcached => "memcached",
            },
            mode: if is_open { "open" } else { "closed" },
            rate: options.rate.filter(|_| is_open),
            connections: options.connections,
            depth: options.depth,
            tables: options.data.tables,
            records: options.data.records,
            value_size: options.data.value_size.to_string(),
            key_size: options.data.key_size,
            seed,
            loaded,
            seconds,
            offered_per_s: is_open.then_some(tally.offered as f64 / seconds),
            ops_per_s: operations as f64 / seconds,
            errors: tally.errors.iter().sum(),
            get_us: of(Operation::Get),
            put_us: of(Operation::Put),
            insert_us: of(Operation::Insert),
            scan_us: of(Operation::Scan),
            rmw_us: of(Operation::ReadModifyWrite),
            transaction_us: of(Operation::Transaction),
            lagged: is_open
                && (lateness_us.p99 > options.most_lateness.as_secs_f64() * 1e6
                    || own_load > MOST_GENERATOR_LOAD),
            lateness_us,
            held_back_us: tally.held_back.summary(),
            unsent: tally.unsent,
            scanned_per_s: tally.scanned as f64 / seconds,
            missing: tally.missing,
            wrong: tally.wrong,
            busy: tally.busy,
            throttled: tally.throttled,
            conflicts: tally.conflicts,
            refused: tally.refused,
            refusal: tally.refusal.clone(),
            client_cpu_us_per_op: own_cpu_us / operations.max(1) as f64,
            server_cpu_us_per_op: (node.cpu_us > 0).then(|| node.cpu_us as f64 / operations.max(1) as f64),
            node: *node,
        }
    }

    /// Whether every answer was right. (`Busy` is an answer; the node may say it.)
    pub fn is_sound(&self) -> bool {
        self.missing == 0 && self.wrong == 0 && self.refused == 0 && self.ops_per_s > 0.0
    }

    /// Latencies of each kind of requests that there were any of.
    pub fn latencies(&self) -> Vec<(Operation, Summary)> {
        let all = [
            (Operation::Get, self.get_us),
            (Operation::Put, self.put_us),
            (Operation::Insert, self.insert_us),
            (Operation::Scan, self.scan_us),
            (Operation::ReadModifyWrite, self.rmw_us),
            (Operation::Transaction, self.transaction_us),
        ];
        all.into_iter().filter(|(_, summary)| summary.count > 0).collect()
    }

    /// What went wrong, and how often.
    pub fn troubles(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("found nothing", self.missing),
            ("had a wrong value", self.wrong),
            ("were answered Busy", self.busy),
            ("were answered Throttled", self.throttled),
            ("met a conflict", self.conflicts),
            ("were refused", self.refused),
            ("had not gone out or were not answered at the end", self.unsent),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
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
        let named = self.latencies().into_iter().map(|(operation, summary)| (operation.name(), summary));
        let own = [("sent late by", self.lateness_us), ("held back by", self.held_back_us)];
        for (name, s) in named.chain(own.into_iter().filter(|(_, summary)| summary.count > 0)) {
            lines.push(format!(
                "  {name:<12} p50 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0} us",
                s.p50, s.p99, s.p999, s.max
            ));
        }
        let number = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.3}"));
        lines.push(format!(
            "  CPU per request: server {} us, this generator {:.3} us",
            number(self.server_cpu_us_per_op),
            self.client_cpu_us_per_op
        ));
        if self.protocol == "lode" {
            lines.push(format!(
                "  device: {} reads per GET ({} per GET that missed memory), {} writes per PUT, write amplification {}",
                number(self.node.device_reads_per_get),
                number(self.node.device_reads_per_get_miss),
                number(self.node.device_writes_per_put),
                number(self.node.write_amplification)
            ));
        }
        if self.scanned_per_s > 0.0 {
            lines.push(format!("  {:.0} records/s in scans", self.scanned_per_s));
        }
        for (what, count) in self.troubles() {
            lines.push(format!("  {count} {what}"));
        }
        if let Some(refusal) = &self.refusal {
            lines.push(format!("  the last refusal: {refusal}"));
        }
        if self.lagged {
            lines.push("  the generator lagged: it was late by itself, or short of CPU; the latencies are not the server's alone".to_owned());
        }
        lines.join("\n") + "\n"
    }
}
