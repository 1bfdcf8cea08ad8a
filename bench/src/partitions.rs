//! What a request costs with few and with many partitions: a node for each number, all with the same records, asked
//! by turns with the same load.

use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

use crate::options::{DataOptions, LoadOptions, PartitionsOptions};
use crate::process::{Node, Serve, StartError};
use crate::run::{PrepareError, Ready, RunError, measure, prepare};
use crate::spread::median;
use crate::tenants::others_run;
use lode_net::client::StatsError;

/// Why nothing could be measured.
#[derive(Debug, Error)]
pub enum PartitionsError {
    /// A node could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A table could not be made ready.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// A load failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A node's counters could not be read.
    #[error("the node's counters could not be read: {0}")]
    Stats(#[from] StatsError),
}

/// One turn with one number of partitions.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PartitionsTurn {
    /// CPU microseconds of the node per request.
    pub node_cpu_us: f64,
    /// Of GETs, from when each was to be sent.
    pub get_p50_us: f64,
    /// As above.
    pub get_p99_us: f64,
    /// Of PUTs.
    pub put_p50_us: f64,
    /// As above.
    pub put_p99_us: f64,
}

/// What one number of partitions came to.
#[derive(Debug, Serialize)]
pub struct PartitionsRow {
    /// Partitions.
    pub partitions: u32,
    /// The turns.
    pub turns: Vec<PartitionsTurn>,
    /// Medians of the turns.
    pub median: PartitionsTurn,
    /// Memory of the node's process at the end, in bytes.
    pub resident_bytes: u64,
    /// Memory of its index.
    pub index_bytes: u64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct PartitionsReport {
    /// Records of each node.
    pub records: u64,
    /// Requests per second.
    pub rate: u64,
    /// By number of partitions, as they were given.
    pub rows: Vec<PartitionsRow>,
}

/// A node with its own drive, which is removed with it.
struct Rig {
    data: DataOptions,
    drive: PathBuf,
    ready: Ready,
    node: Node,
    turns: Vec<PartitionsTurn>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Where it cannot be removed it is in nobody's way: the next run uses it.
        let _ = std::fs::remove_file(&self.drive);
    }
}

/// Starts a node for each number, fills them, and asks them by turns.
pub fn partitions(options: &PartitionsOptions) -> Result<PartitionsReport, PartitionsError> {
    let PartitionsOptions { load, counts, node, dir, size, memory, shards } = options;
    let mut rigs = Vec::new();
    for &partitions in counts {
        eprintln!("filling {partitions} partitions");
        let drive = dir.join(format!("partitions-{partitions}.lode"));
        let node = Node::start(node, &Serve { drive: &drive, size, memory, shards: *shards })?;
        let data =
            DataOptions { addr: node.addr().to_owned(), partitions, ..load.data.clone().of_own_node() };
        let ready = prepare(&others_run(&LoadOptions { data: data.clone(), ..load.clone() }))?;
        rigs.push(Rig { data, drive, ready, node, turns: Vec::new() });
    }
    for round in 1..=load.rounds {
        eprintln!("round {round} of {}", load.rounds);
        for rig in &mut rigs {
            let run = LoadOptions { data: rig.data.clone(), ..load.clone() };
            let report = measure(&mut rig.ready, &others_run(&run))?;
            rig.turns.push(PartitionsTurn {
                node_cpu_us: report.server_cpu_us_per_op.unwrap_or(0.0),
                get_p50_us: report.get_us.p50,
                get_p99_us: report.get_us.p99,
                put_p50_us: report.put_us.p50,
                put_p99_us: report.put_us.p99,
            });
        }
    }
    let mut rows = Vec::new();
    for rig in &mut rigs {
        let stats = rig.node.client().map_err(PrepareError::from)?.stats()?;
        let turns = std::mem::take(&mut rig.turns);
        rows.push(PartitionsRow {
            partitions: rig.data.partitions,
            median: median_turn(&turns),
            turns,
            resident_bytes: stats["node"]["resident_bytes"].as_u64().unwrap_or(0),
            index_bytes: stats["totals"]["index_bytes"].as_u64().unwrap_or(0),
        });
    }
    Ok(PartitionsReport { records: load.data.records, rate: load.rate, rows })
}

fn median_turn(turns: &[PartitionsTurn]) -> PartitionsTurn {
    let of = |field: fn(&PartitionsTurn) -> f64| median(turns.iter().map(field).collect());
    PartitionsTurn {
        node_cpu_us: of(|turn| turn.node_cpu_us),
        get_p50_us: of(|turn| turn.get_p50_us),
        get_p99_us: of(|turn| turn.get_p99_us),
        put_p50_us: of(|turn| turn.put_p50_us),
        put_p99_us: of(|turn| turn.put_p99_us),
    }
}

impl PartitionsReport {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} records, {} requests/s; medians\n\n{:>10} {:>12} {:>9} {:>9} {:>9} {:>9} {:>12} {:>9}\n",
            self.records,
            self.rate,
            "partitions",
            "node CPU us",
            "GET p50",
            "GET p99",
            "PUT p50",
            "PUT p99",
            "resident MB",
            "index MB"
        );
        for row in &self.rows {
            let turn = &row.median;
            text += &format!(
                "{:>10} {:>12.2} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>12.1} {:>9.1}\n",
                row.partitions,
                turn.node_cpu_us,
                turn.get_p50_us,
                turn.get_p99_us,
                turn.put_p50_us,
                turn.put_p99_us,
                row.resident_bytes as f64 / 1e6,
                row.index_bytes as f64 / 1e6
            );
        }
        text
    }
}
