//! What one turn of one peer came to, and under what.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use lode_bench::floor::FloorSummary;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::options::RunOptions;
use crate::points::Point;

/// What all turns of a table have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Records.
    pub records: u64,
    /// Bytes of a value.
    pub value_size: u32,
    /// Bytes of memory of each peer.
    pub memory: u64,
    /// What limits it; `None` where nothing does.
    pub limited_by: Option<String>,
    /// Requests in flight.
    pub clients: u16,
    /// Seconds of a point.
    pub seconds: f64,
    /// Processor, cores and kernel.
    pub machine: String,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1000 are below.
    pub p999: f64,
}

/// What one peer did at one point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests that ended well, per second.
    pub ops_per_s: f64,
    /// Requests that did not.
    pub errors: u64,
    /// Of GETs, or of scans.
    pub read_us: Option<Latency>,
    /// Of PUTs.
    pub put_us: Option<Latency>,
    /// CPU microseconds per request: a server's own; of an engine in process with what drawing the requests takes.
    pub cpu_us_per_op: Option<f64>,
}

/// One line of `turns.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// What was the same for all.
    pub setting: Setting,
    /// Which peer.
    pub peer: String,
    /// When its writes are durable.
    pub durable: String,
    /// Which round, from 1.
    pub round: u32,
    /// What was measured.
    pub point: Point,
    /// What came of it; or why nothing did.
    pub outcome: Result<Figures, String>,
}

/// Why turns cannot be read or written.
#[derive(Debug, Error)]
pub enum TurnsError {
    /// The file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// A line is none of ours.
    #[error("{path}: line {line}: {error}; give a file that `lode-peers run` has written")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// Turns of different settings do not stand in one table.
    #[error(
        "{0} holds turns of another setting (records, values, memory, clients, time or machine): give another --dir"
    )]
    OtherSetting(PathBuf),
}

impl Setting {
    /// What these options say, on this machine.
    pub fn new(options: &RunOptions, limited_by: Option<String>) -> Setting {
        Setting {
            records: options.records,
            value_size: options.value_size,
            memory: options.memory,
            limited_by,
            clients: options.clients,
            seconds: options.duration.as_secs_f64(),
            machine: machine(),
        }
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("a processor that tells no name", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

impl Figures {
    /// Of what `lode-bench run --json` prints.
    pub fn of_report(report: &Value) -> Option<Figures> {
        let latency = |name: &str| {
            let summary = &report[name];
            let of = |percentile: &str| summary[percentile].as_f64();
            let is_there = summary["count"].as_u64().is_some_and(|count| count > 0);
            is_there.then(|| Some(Latency { p50: of("p50")?, p99: of("p99")?, p999: of("p999")? }))?
        };
        Some(Figures {
            ops_per_s: report["ops_per_s"].as_f64()?,
            errors: report["errors"].as_u64()?,
            read_us: latency("get_us").or_else(|| latency("scan_us")),
            put_us: latency("put_us"),
            cpu_us_per_op: report["server_cpu_us_per_op"].as_f64(),
        })
    }

    /// Of the bare drive, or of the bare loop over it.
    pub fn of_floor(floor: FloorSummary) -> Figures {
        let FloorSummary { per_second, cpu_us_per_operation, p50_us, p99_us, p999_us } = floor;
        Figures {
            ops_per_s: per_second,
            errors: 0,
            read_us: Some(Latency { p50: p50_us, p99: p99_us, p999: p999_us }),
            put_us: None,
            cpu_us_per_op: Some(cpu_us_per_operation),
        }
    }
}

/// All turns in these files.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Turn>, TurnsError> {
    let mut turns: Vec<Turn> = Vec::new();
    for path in paths {
        let text =
            std::fs::read_to_string(path).map_err(|error| TurnsError::File { path: path.clone(), error })?;
        for (number, line) in text.lines().enumerate() {
            let turn: Turn = serde_json::from_str(line).map_err(|error| TurnsError::Line {
                path: path.clone(),
                line: number + 1,
                error,
            })?;
            if turns.first().is_some_and(|first| first.setting != turn.setting) {
                return Err(TurnsError::OtherSetting(path.clone()));
            }
            turns.push(turn);
        }
    }
    Ok(turns)
}

/// Writes a turn behind those before it: what was measured is not lost with what follows.
pub fn append(path: &Path, turn: &Turn) -> Result<(), TurnsError> {
    let line = serde_json::to_string(turn).expect("a turn is plain data") + "\n";
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.map_err(|error| TurnsError::File { path: path.to_path_buf(), error })
}
