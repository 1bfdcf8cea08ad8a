//! The command line.

mod hostile;
mod load;
mod senseless;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use hostile::{HostileKind, HostileOptions};
pub use load::{DataOptions, Mode, PlacementKind, Protocol, RunOptions, ShownError};

use crate::workload::Workload;

/// Load generator of lode: what a node gives, and what of the bare device's it gives.
#[derive(Debug, Parser)]
#[command(name = "lode-bench", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One load against a node; loads the records first where they are missing.
    #[command(args_override_self = true)]
    Run(RunOptions),
    /// The highest rate at which all objectives hold: by bisection, and then tried again.
    #[command(args_override_self = true)]
    Search(SearchOptions),
    /// Aerospike's certification load and limits, from client to client: does the server keep them in every slice of time?
    #[command(args_override_self = true, mut_arg("value_size", |value_size| value_size.default_value("1536")))]
    Act(ActOptions),
    /// Two reports side by side, with ratios.
    Compare(CompareOptions),
    /// The bare device with nothing of lode on top: random reads, the same asked for over TCP, durable 4 KiB appends.
    Floor(FloorOptions),
    /// The node against the bare device, in turns on one file, with the ratios that matter.
    // A script's options may be overridden by those that are added at its end.
    #[command(args_override_self = true)]
    VersusFloor(VersusOptions),
    /// A node that is killed and started again: when it answers, when a partition does, when all of the
    /// index is in memory.
    Restart(RestartOptions),
    /// What one tenant's flood costs the others: a load over many partitions with and without it, by turns.
    #[command(args_override_self = true)]
    Tenants(TenantsOptions),
    /// What is left of the throughput when clients ask for more than the node can do.
    #[command(args_override_self = true)]
    Overload(OverloadOptions),
    /// What a request costs with 100, 1,000 and 10,000 partitions: a node for each, asked by turns.
    #[command(args_override_self = true)]
    Partitions(PartitionsOptions),
    /// What hostile clients cost the others, and the node in memory: a node of its own, and a load with and without them, by turns.
    #[command(
        args_override_self = true,
        mut_arg("records", |records| records.default_value("200000")),
        mut_arg("partitions", |partitions| partitions.default_value("64")),
        mut_arg("warmup", |warmup| warmup.default_value("2s")),
        mut_arg("rounds", |rounds| rounds.default_value("3"))
    )]
    Hostile(HostileOptions),
}

/// Options of `search`.
#[derive(Debug, Clone, Args)]
pub struct SearchOptions {
    /// The load; its rate is what is looked for.
    #[command(flatten)]
    pub run: RunOptions,
    /// A rate that is taken to hold.
    #[arg(long, default_value_t = 0)]
    pub low: u64,
    /// The highest rate to try [default: what a closed loop gets]
    #[arg(long)]
    pub high: Option<u64>,
    /// How near the rate shall be to the lowest that does not hold, of 100.
    #[arg(long, default_value_t = 5.0, value_parser = precision)]
    pub precision_percent: f64,
    /// How often the rate must hold again.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=20))]
    pub confirm: u8,
}

/// Options of `act`.
#[derive(Debug, Clone, Args)]
pub struct ActOptions {
    /// The node and the records; ACT's have 1536 bytes.
    #[command(flatten)]
    pub data: DataOptions,
    /// How many times 2,000 reads and 1,000 writes a second.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub multiple: u64,
    /// How long to measure; ACT certifies by 24h.
    #[arg(long, default_value = "2m", value_parser = duration)]
    pub duration: Duration,
    /// Length of the slices that must pass each; ACT's are of 1h.
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub slice: Duration,
    /// How long to run before measuring.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub warmup: Duration,
    /// Load until live records fill so many percent of what the node's drive takes, in place of `--records`.
    #[arg(long, conflicts_with = "records", value_parser = clap::value_parser!(u8).range(1..=97))]
    pub fill_percent: Option<u8>,
    /// So many overwrites for each record before it is measured: ACT ages a drive first, too.
    #[arg(long, default_value_t = 0.0, value_parser = load::churn)]
    pub churn: f64,
    /// Connections.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Most requests in flight on each.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: u16,
    /// Directory for the report.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
}

/// Options of `compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareOptions {
    /// What `run --json` printed, or a report's `report.json`.
    pub a: PathBuf,
    /// Another.
    pub b: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Options of `floor`.
#[derive(Debug, Clone, Args)]
pub struct FloorOptions {
    /// File or block device to read blocks of; never written to.
    #[arg(long)]
    pub file: PathBuf,
    /// Reads in flight, over all threads.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: u16,
    /// Threads that read, each with a ring of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// Connections of the echo, which share the depth.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub connections: u16,
    /// How long each part runs.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub duration: Duration,
    /// Directory for a scratch file of durable appends; they are left out where none is given.
    #[arg(long)]
    pub scratch: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Options of `versus-floor`.
#[derive(Debug, Clone, Args)]
pub struct VersusOptions {
    /// The node and the records. The records should be well over the node's cache.
    #[command(flatten)]
    pub data: DataOptions,
    /// The node's drive; the floor reads the same file, and appends to a scratch file beside it.
    #[arg(long)]
    pub drive: PathBuf,
    /// How often floor and node take turns; the medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    pub rounds: u8,
    /// How long each turn runs.
    #[arg(long, default_value = "3s", value_parser = duration)]
    pub duration: Duration,
    /// Connections of the GET load.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Requests in flight on each of them.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub depth: u16,
}

/// Options of `restart`.
#[derive(Debug, Clone, Args)]
pub struct RestartOptions {
    /// The records: many and small, for it is the index that takes time. The address is the node's own.
    #[command(flatten)]
    pub records: DataOptions,
    /// The node's program.
    #[arg(long, default_value = "target/release/lode")]
    pub node: PathBuf,
    /// Its drive file; made where it is missing, and kept.
    #[arg(long)]
    pub drive: PathBuf,
    /// Size of the drive, where it is made.
    #[arg(long, default_value = "4GiB")]
    pub size: String,
    /// The node's memory.
    #[arg(long, default_value = "4GiB")]
    pub memory: String,
    /// The node's shards, where the drive is made.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub shards: u16,
    /// PUTs behind the last checkpoint, which a start finds in the log's tail.
    #[arg(long, default_value_t = 10_000)]
    pub tail: u64,
    /// Partitions that are touched after a start, in random order.
    #[arg(long, default_value_t = 200)]
    pub touches: u32,
    /// How often the node is killed.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    pub rounds: u8,
}

/// A load at a constant rate over many partitions.
#[derive(Debug, Clone, Args)]
pub struct LoadOptions {
    /// The node and the records.
    #[command(flatten)]
    pub data: DataOptions,
    /// Requests per second, over all partitions.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// Share of GETs; the rest are PUTs.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub read_percent: u8,
    /// Connections.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Most requests in flight on each.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: u16,
    /// How long each turn is measured.
    #[arg(long, default_value = "4s", value_parser = duration)]
    pub duration: Duration,
    /// How long each turn runs before it is measured.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub warmup: Duration,
    /// How often the turns come; the medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    pub rounds: u8,
}

/// What the flood asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FloodKind {
    /// GETs.
    Get,
    /// PUTs, over keys that exist.
    Put,
}

/// Options of `tenants`.
#[derive(Debug, Clone, Args)]
pub struct TenantsOptions {
    /// The load of the others.
    #[command(flatten)]
    pub load: LoadOptions,
    /// What the flood asks one partition of a table of its own for.
    #[arg(long, value_enum, default_value = "get")]
    pub flood: FloodKind,
    /// The flood's requests per second; 0: as fast as they are answered.
    #[arg(long, default_value_t = 250)]
    pub flood_rate: u64,
    /// Bytes of the flood's values.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    pub flood_value_size: u32,
    /// Connections of the flood.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub flood_connections: u16,
    /// Requests in flight on each.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub flood_depth: u16,
}

/// Options of `overload`.
#[derive(Debug, Clone, Args)]
pub struct OverloadOptions {
    /// The node and the records.
    #[command(flatten)]
    pub data: DataOptions,
    /// Which requests.
    #[arg(long, value_enum, default_value = "get")]
    pub workload: Workload,
    /// How many times the most is offered.
    #[arg(long, default_value_t = 3.0)]
    pub factor: f64,
    /// Connections, the same for both: a send costs much more than an answer in it.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Requests in flight on each while the most is sought.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: u16,
    /// The same under overload; what is beyond is late, and was not offered.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub overload_depth: u16,
    /// How long each turn is measured.
    #[arg(long, default_value = "4s", value_parser = duration)]
    pub duration: Duration,
    /// How long each turn runs before it is measured.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub warmup: Duration,
    /// How often the turns come; the medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    pub rounds: u8,
}

/// Options of `partitions`.
#[derive(Debug, Clone, Args)]
pub struct PartitionsOptions {
    /// The load; the address is the nodes' own, and the number of partitions is given by `--counts`.
    #[command(flatten)]
    pub load: LoadOptions,
    /// How many partitions.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 10_000])]
    pub counts: Vec<u32>,
    /// The node's program.
    #[arg(long, default_value = "target/release/lode")]
    pub node: PathBuf,
    /// Directory for the drives, which are made and removed.
    #[arg(long)]
    pub dir: PathBuf,
    /// Size of each drive.
    #[arg(long, default_value = "3GiB")]
    pub size: String,
    /// Memory of each node.
    #[arg(long, default_value = "768MiB")]
    pub memory: String,
    /// Shards of each node.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub shards: u16,
}

fn precision(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.1..=50.0).contains(&percent) => Ok(percent),
        _ => Err(format!("`{text}` is no precision from 0.1 to 50")),
    }
}

/// `15s`, `500ms`, `2m`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is no unit of time: use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no duration, such as 15s or 500ms"))?;
    Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|e| format!("`{text}`: {e}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        for wrong in ["", "s", "5 s", "5d", "1.2.3s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
