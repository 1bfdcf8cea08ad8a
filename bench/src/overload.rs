//! What is left of a node's throughput when clients ask for more than it can do: the most it gives to clients that
//! wait for their answers, then an open loop at a multiple of that, by turns.

use serde::Serialize;

use crate::options::{OverloadOptions, RunOptions};
use crate::report::RunReport;
use crate::run::{RunError, measure, prepare};
use crate::spread::median;
use crate::workload::Workload;

/// What one turn came to.
#[derive(Debug, Clone, Serialize)]
pub struct OverloadTurn {
    /// Requests per second that were offered; of the closed loop what was answered.
    pub offered_per_s: f64,
    /// Requests per second that were answered well.
    pub goodput_per_s: f64,
    /// Those of the open loop that were sent at all, per second.
    pub sent_per_s: f64,
    /// Answers `Busy` or `Throttled`, per second.
    pub turned_away_per_s: f64,
    /// Of those that were answered well, from when each was to be sent.
    pub p50_us: f64,
    /// As above.
    pub p99_us: f64,
    /// CPU microseconds of the node per request that was answered well.
    pub node_cpu_us: f64,
    /// CPU microseconds of this generator, likewise: it shares the machine with the node.
    pub client_cpu_us: f64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct OverloadReport {
    /// `get` or `put`.
    pub workload: &'static str,
    /// How many times the most was offered.
    pub factor: f64,
    /// The most, by rounds.
    pub most: Vec<OverloadTurn>,
    /// Overloaded, by rounds.
    pub overloaded: Vec<OverloadTurn>,
    /// Median goodput under overload, over the median of the most.
    pub ratio: f64,
    /// Answers that were wrong, missing or refused.
    pub unsound: u64,
}

/// Runs both loads by turns.
pub fn overload(options: &OverloadOptions) -> Result<OverloadReport, RunError> {
    let mut ready = prepare(&run_options(options, None))?;
    let mut report = OverloadReport {
        workload: if options.workload == Workload::Put { "put" } else { "get" },
        factor: options.factor,
        most: Vec::new(),
        overloaded: Vec::new(),
        ratio: 0.0,
        unsound: 0,
    };
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        let run = measure(&mut ready, &run_options(options, None))?;
        report.unsound += run.missing + run.wrong + run.refused;
        let most = run.ops_per_s;
        report.most.push(OverloadTurn::of(&run, most));
        let rate = (most * options.factor) as u64;
        let run = measure(&mut ready, &run_options(options, Some(rate.max(1))))?;
        report.unsound += run.missing + run.wrong + run.refused;
        report.overloaded.push(OverloadTurn::of(&run, rate as f64));
    }
    let goodput = |turns: &[OverloadTurn]| median(turns.iter().map(|turn| turn.goodput_per_s).collect());
    report.ratio = goodput(&report.overloaded) / goodput(&report.most).max(1.0);
    Ok(report)
}

fn run_options(options: &OverloadOptions, rate: Option<u64>) -> RunOptions {
    RunOptions {
        read_percent: 50,
        rate,
        connections: options.connections,
        depth: if rate.is_some() { options.overload_depth } else { options.depth },
        duration: options.duration,
        warmup: options.warmup,
        ..RunOptions::new(options.data.clone(), options.workload)
    }
}

impl OverloadTurn {
    fn of(run: &RunReport, offered_per_s: f64) -> OverloadTurn {
        let latencies = if run.put_us.count > run.get_us.count { &run.put_us } else { &run.get_us };
        let turned_away_per_s = (run.busy + run.throttled) as f64 / run.seconds;
        OverloadTurn {
            offered_per_s,
            goodput_per_s: run.ops_per_s,
            sent_per_s: run.held_back_us.count as f64 / run.seconds,
            turned_away_per_s,
            p50_us: latencies.p50,
            p99_us: latencies.p99,
            node_cpu_us: run.node.cpu_us as f64 / (run.ops_per_s * run.seconds).max(1.0),
            client_cpu_us: run.client_cpu_us_per_op,
        }
    }
}

impl OverloadReport {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{}s at {:.1} times the most\n\n{:<10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9}\n",
            self.workload,
            self.factor,
            "",
            "offered/s",
            "sent/s",
            "good/s",
            "away/s",
            "p50 us",
            "p99 us",
            "node us",
            "gen us"
        );
        for (most, overloaded) in self.most.iter().zip(&self.overloaded) {
            for (name, turn) in [("most", most), ("overload", overloaded)] {
                text += &format!(
                    "{name:<10} {:>10.0} {:>10.0} {:>10.0} {:>10.0} {:>10.0} {:>10.0} {:>9.2} {:>9.2}\n",
                    turn.offered_per_s,
                    turn.sent_per_s,
                    turn.goodput_per_s,
                    turn.turned_away_per_s,
                    turn.p50_us,
                    turn.p99_us,
                    turn.node_cpu_us,
                    turn.client_cpu_us
                );
            }
        }
        text += &format!(
            "\ngoodput under overload, over the most (medians): {:.2} (at least 0.9 wanted); {} wrong, missing or refused\n",
            self.ratio, self.unsound
        );
        text
    }
}
