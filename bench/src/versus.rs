//! The node against the bare device, in turns, so that both meet the same weather.

use std::path::Path;

use serde::Serialize;
use thiserror::Error;

use crate::floor::{self, FloorError, FloorSummary, Scratch};
use crate::options::{RunOptions, VersusOptions};
use crate::report::RunReport;
use crate::run::{self, PrepareError, Ready, RunError};
use crate::workload::Workload;

/// Clients of the load that shows group commit, and of GETs by many.
const MANY_CLIENTS: u16 = 64;
/// What each of them has in flight of GETs.
const MANY_DEPTH: u16 = 8;

/// Why the comparison failed.
#[derive(Debug, Error)]
pub enum VersusError {
    /// The floor could not be measured.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// The table could not be made ready.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// A load failed.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// One claim: node, floor, their ratio, and what the ratio must be.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// What is compared.
    pub name: &'static str,
    /// The node's figure: the median of the rounds.
    pub node: f64,
    /// The floor's figure: the median of the rounds; `None` where the claim is about the node alone.
    pub floor: Option<f64>,
    /// The median of the rounds' ratios (or of the node's figures).
    pub ratio: f64,
    /// The least or the most that the ratio may be.
    pub bound: f64,
    /// Whether `bound` is the least (`true`) or the most.
    pub at_least: bool,
    /// Whether it holds.
    pub holds: bool,
}

/// All claims, and the rounds they come from.
#[derive(Debug, Serialize)]
pub struct VersusReport {
    /// The claims.
    pub claims: Vec<Claim>,
    /// Whether all hold.
    pub all_hold: bool,
    /// Answers that were missing, wrong or refused, over all rounds; 0 in a sound run.
    pub unsound: u64,
    /// The node's CPU per GET over that of one bare thread alone on the machine: the median of the rounds.
    /// Not a claim: a core whose neighbours work costs more for the same reads, and the node has a thread
    /// on each.
    pub cpu_over_one_bare_thread: f64,
    /// Every turn, for those who look closer.
    pub rounds: Vec<Round>,
}

/// One round: the floor and the node, one after the other.
#[derive(Debug, Serialize)]
pub struct Round {
    /// Bare random reads, by as many threads as the node has shards.
    pub floor_reads: FloorSummary,
    /// The same by one thread, while the other cores idle.
    pub floor_reads_of_one: FloorSummary,
    /// GETs with as many in flight.
    pub gets: RunReport,
    /// A bare loop that reads a block for each request over TCP, asked as the node is: what any server pays.
    pub echo: FloorSummary,
    /// Bare random reads, as many in flight as many clients have.
    pub floor_reads_of_many: FloorSummary,
    /// GETs of many clients.
    pub gets_of_many: RunReport,
    /// The bare loop over TCP, one request at a time.
    pub echo_of_one: FloorSummary,
    /// GETs, one at a time.
    pub gets_of_one: RunReport,
    /// Bare durable appends of 4 KiB, one at a time.
    pub floor_appends: FloorSummary,
    /// PUTs of one client, one at a time.
    pub puts_of_one: RunReport,
    /// PUTs of many clients, one at a time each.
    pub puts_of_many: RunReport,
}

/// Runs the rounds.
pub fn versus(options: &VersusOptions) -> Result<VersusReport, VersusError> {
    let mut ready = run::prepare(&RunOptions::new(options.data.clone(), Workload::Get))?;
    let directory = options.drive.parent().filter(|d| !d.as_os_str().is_empty() && !d.starts_with("/dev"));
    let temporary = std::env::temp_dir();
    let scratch = Scratch::new(directory.unwrap_or(if options.drive.starts_with("/dev") {
        &temporary
    } else {
        Path::new(".")
    }))?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        eprintln!("round {number} of {}", options.rounds);
        rounds.push(round(options, &mut ready, &scratch)?);
    }
    Ok(VersusReport::new(rounds))
}

fn round(options: &VersusOptions, ready: &mut Ready, scratch: &Scratch) -> Result<Round, VersusError> {
    let in_flight = options.connections * options.depth;
    let shards = ready.counters().map_err(RunError::from)?.shards();
    let mut load = |workload, connections, depth| {
        let load = RunOptions {
            connections,
            depth,
            duration: options.duration,
            warmup: options.duration / 5,
            ..RunOptions::new(options.data.clone(), workload)
        };
        run::measure(ready, &load)
    };
    Ok(Round {
        floor_reads: floor::reads(&options.drive, in_flight, shards, options.duration)?,
        floor_reads_of_one: floor::reads(&options.drive, in_flight, 1, options.duration)?,
        gets: load(Workload::Get, options.connections, options.depth)?,
        echo: floor::echo(
            &options.drive,
            &floor::echo_load(in_flight, options.connections, options.duration),
        )?,
        floor_reads_of_many: floor::reads(
            &options.drive,
            MANY_CLIENTS * MANY_DEPTH,
            shards,
            options.duration,
        )?,
        gets_of_many: load(Workload::Get, MANY_CLIENTS, MANY_DEPTH)?,
        echo_of_one: floor::echo(&options.drive, &floor::echo_load(1, 1, options.duration))?,
        gets_of_one: load(Workload::Get, 1, 1)?,
        floor_appends: scratch.appends(options.duration)?,
        puts_of_one: load(Workload::Put, 1, 1)?,
        puts_of_many: load(Workload::Put, MANY_CLIENTS, 1)?,
    })
}

impl VersusReport {
    fn new(rounds: Vec<Round>) -> VersusReport {
        let server_cpu = |run: &RunReport| run.server_cpu_us_per_op.unwrap_or(f64::INFINITY);
        let claims = vec![
            claim(&rounds, "GETs/s over bare reads/s", Bound::AtLeast(0.95), |r| {
                (r.gets.ops_per_s, Some(r.floor_reads.per_second))
            }),
            claim(&rounds, "GETs/s over bare reads/s, 64 clients", Bound::AtLeast(0.95), |r| {
                (r.gets_of_many.ops_per_s, Some(r.floor_reads_of_many.per_second))
            }),
            claim(&rounds, "GETs/s over those of a bare loop over TCP", Bound::AtLeast(0.95), |r| {
                (r.gets.ops_per_s, Some(r.echo.per_second))
            }),
            claim(&rounds, "node CPU us per GET over the bare loop's over TCP", Bound::AtMost(1.25), |r| {
                (server_cpu(&r.gets), Some(r.echo.cpu_us_per_operation))
            }),
            claim(&rounds, "GET p50 us, one at a time, over the bare loop's", Bound::AtMost(1.15), |r| {
                (r.gets_of_one.get_us.p50, Some(r.echo_of_one.p50_us))
            }),
            claim(&rounds, "node CPU us per GET over bare CPU us per read", Bound::AtMost(2.0), |r| {
                (server_cpu(&r.gets), Some(r.floor_reads.cpu_us_per_operation))
            }),
            // A read counts when it starts and a GET when it ends: the window's edges cut some in two.
            claim(&rounds, "device reads per GET that missed memory", Bound::AtMost(1.001), |r| {
                (r.gets.node.device_reads_per_get_miss.unwrap_or(f64::INFINITY), None)
            }),
            claim(&rounds, "PUT p50 us, one client, over bare durable append", Bound::AtMost(2.0), |r| {
                (r.puts_of_one.put_us.p50, Some(r.floor_appends.p50_us))
            }),
            claim(&rounds, "device writes per PUT, 64 clients", Bound::AtMost(0.2), |r| {
                (r.puts_of_many.node.device_writes_per_put.unwrap_or(f64::INFINITY), None)
            }),
        ];
        let over_one = rounds.iter().map(|r| server_cpu(&r.gets) / r.floor_reads_of_one.cpu_us_per_operation);
        let cpu_over_one_bare_thread = median(over_one.collect());
        let runs = rounds
            .iter()
            .flat_map(|r| [&r.gets, &r.gets_of_many, &r.gets_of_one, &r.puts_of_one, &r.puts_of_many]);
        let unsound = runs.map(|run| run.missing + run.wrong + run.refused).sum();
        let all_hold = unsound == 0 && claims.iter().all(|claim| claim.holds);
        VersusReport { claims, all_hold, unsound, cpu_over_one_bare_thread, rounds }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for claim in &self.claims {
            let holds = if claim.holds { "holds" } else { "FAILS" };
            let sign = if claim.at_least { ">=" } else { "<=" };
            let figures = match claim.floor {
                Some(floor) => format!("  ({:.2} over {floor:.2})", claim.node),
                None => String::new(),
            };
            let Claim { name, ratio, bound, .. } = claim;
            text += &format!("{holds}  {name:<50} {ratio:.3} {sign} {bound}{figures}\n");
        }
        text += &format!(
            "(over one bare thread with the other cores idle, the node's CPU per GET is {:.2} times as much)\n",
            self.cpu_over_one_bare_thread
        );
        if self.unsound > 0 {
            text += &format!("{} answers were missing, wrong or refused\n", self.unsound);
        }
        text
    }
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

fn claim(
    rounds: &[Round],
    name: &'static str,
    bound: Bound,
    figures: impl Fn(&Round) -> (f64, Option<f64>),
) -> Claim {
    let figures: Vec<(f64, Option<f64>)> = rounds.iter().map(figures).collect();
    let ratio = median(figures.iter().map(|(node, floor)| node / floor.unwrap_or(1.0)).collect());
    let node = median(figures.iter().map(|(node, _)| *node).collect());
    let floors: Vec<f64> = figures.iter().filter_map(|(_, floor)| *floor).collect();
    let floor = (!floors.is_empty()).then(|| median(floors));
    let (bound, at_least, holds) = match bound {
        Bound::AtLeast(least) => (least, true, ratio >= least),
        Bound::AtMost(most) => (most, false, ratio <= most),
    };
    Claim { name, node, floor, ratio, bound, at_least, holds }
}

/// The middle figure; of an even number, the lower of the two.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.0);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn a_claim_without_rounds_does_not_hold() {
        let claim = claim(&[], "nothing", Bound::AtMost(2.0), |_| (0.0, None));
        assert!(!claim.holds);
    }
}
