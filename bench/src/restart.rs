//! A node killed and started again: when it answers, when a partition does that nobody has asked for yet, and
//! when all of the index is in memory, against what the drive gives to a plain reader.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lode_net::client::blocking::Client;
use lode_net::client::{CheckpointError, ConnectError, GetError, StatsError, WriteError};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::draw::{Dice, Values, belongs};
use crate::options::{DataOptions, RestartOptions, RunOptions};
use crate::process::{Node, Serve, StartError, ms_of};
use crate::run::{PrepareError, Routes, prepare};
use crate::spread::median;
use crate::workload::Workload;

/// How often the node is asked how far it is.
const POLL: Duration = Duration::from_millis(2);
/// How the drive is read to see what it gives.
const SEQUENTIAL_BYTES: usize = 1 << 20;
const SEQUENTIAL_THREADS: u64 = 4;
const SEQUENTIAL_TIME: Duration = Duration::from_secs(2);

/// Why nothing could be measured.
#[derive(Debug, Error)]
pub enum RestartError {
    /// The node could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The drive could not be read.
    #[error("{path}: {error}")]
    Drive {
        /// The drive.
        path: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// The table could not be made ready.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The node cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A GET failed.
    #[error("a GET failed: {0}")]
    Get(#[from] GetError),
    /// A PUT failed.
    #[error("a PUT failed: {0}")]
    Put(#[from] WriteError),
    /// A checkpoint failed.
    #[error("a checkpoint failed: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The node's counters could not be read.
    #[error("the node's counters could not be read: {0}")]
    Stats(#[from] StatsError),
}

/// What a start took, in milliseconds from the process's start.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Start {
    /// Until it says that it listens.
    pub listening_ms: f64,
    /// Until the first right answer to a GET.
    pub first_get_ms: f64,
    /// Of first touches of partitions that were not loaded, in milliseconds each.
    pub touch_p50_ms: f64,
    /// The longest of them.
    pub touch_max_ms: f64,
    /// How many there were.
    pub touches: u64,
    /// Until all of the index is in memory.
    pub loaded_ms: f64,
    /// Bytes that the start has read by then.
    pub read_bytes: u64,
    /// Frames of the tail that were replayed.
    pub replayed_frames: u64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct RestartReport {
    /// Keys in the index.
    pub records: u64,
    /// Partitions.
    pub partitions: u64,
    /// Bytes of memory of the index.
    pub index_bytes: u64,
    /// Starts that were asked for partitions while they loaded.
    pub touched: Vec<Start>,
    /// Starts that were left alone, right behind the end of the process before.
    pub alone: Vec<Start>,
    /// The same, some seconds behind it: a virtual machine may have given the memory back to its host by then, and the host
    /// takes its time to give it again.
    pub rested: Vec<Start>,
    /// What the drive gives to a plain sequential reader, in bytes a second: the median of the rounds.
    pub sequential_bytes_per_s: f64,
    /// What a start that is left alone reads from listening to its end, in bytes a second: the median.
    pub load_bytes_per_s: f64,
    /// Answers that were wrong.
    pub wrong: u64,
}

fn start(options: &RestartOptions) -> Result<Node, StartError> {
    let RestartOptions { node, drive, size, memory, shards, .. } = options;
    Node::start(node, &Serve { drive, size, memory, shards: *shards })
}

/// Fills a drive, and then kills and starts its node again and again.
pub fn restart(options: &RestartOptions) -> Result<RestartReport, RestartError> {
    let node = start(options)?;
    // One table: what is touched is looked for in its map.
    let data =
        DataOptions { addr: node.addr().to_owned(), tables: 1, ..options.records.clone().of_own_node() };
    prepare(&RunOptions::new(data.clone(), Workload::Get))?;
    let mut client = node.client()?;
    client.checkpoint()?;
    let mut dice = Dice::new(data.seed());
    let mut values = Values::new(data.value_size.clone(), dice.roll());
    let (keys, mut key) = (data.keys(), Vec::new());
    for _ in 0..options.tail {
        let index = dice.below(data.records);
        keys.write(index, &mut key);
        client.put(&data.table, &key, values.next(index, &mut dice))?;
    }
    let stats = client.stats()?;
    drop((client, node));
    let mut report = RestartReport {
        records: total(&stats, "records"),
        partitions: total(&stats, "partitions"),
        index_bytes: total(&stats, "index_bytes"),
        touched: Vec::new(),
        alone: Vec::new(),
        rested: Vec::new(),
        sequential_bytes_per_s: 0.0,
        load_bytes_per_s: 0.0,
        wrong: 0,
    };
    let mut sequential = Vec::new();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        report.alone.push(one_start(options, &mut dice, false, &mut report.wrong)?);
        report.touched.push(one_start(options, &mut dice, true, &mut report.wrong)?);
        sequential.push(read_sequentially(&options.drive)?);
        // Behind the pause that reading was.
        report.rested.push(one_start(options, &mut dice, false, &mut report.wrong)?);
    }
    report.sequential_bytes_per_s = median(sequential);
    let rate =
        |start: &Start| start.read_bytes as f64 * 1e3 / (start.loaded_ms - start.listening_ms).max(0.001);
    report.load_bytes_per_s = median(report.alone.iter().map(rate).collect());
    Ok(report)
}

/// Starts a node, touches partitions as they load if so asked, and kills it.
fn one_start(
    options: &RestartOptions,
    dice: &mut Dice,
    is_touched: bool,
    wrong: &mut u64,
) -> Result<Start, RestartError> {
    let data = &DataOptions { tables: 1, ..options.records.clone() };
    let node = start(options)?;
    let mut client = node.client()?;
    let (keys, mut key, mut touched) = (data.keys(), Vec::new(), Vec::new());
    let mut get = |client: &mut Client, index: u64| -> Result<(), RestartError> {
        keys.write(index, &mut key);
        let found = client.get(&data.table, &key)?;
        let is_right = found.is_some_and(|found| belongs(&found.value, index, &data.value_size));
        *wrong += u64::from(!is_right);
        Ok(())
    };
    get(&mut client, dice.below(data.records))?;
    let mut start =
        Start { listening_ms: node.listening_ms(), first_get_ms: node.since_start_ms(), ..Start::default() };
    if is_touched {
        let routes = Routes::new(&client.map(), data)?;
        let (mut seen, mut touches) = (BTreeSet::new(), Vec::new());
        while touches.len() < options.touches as usize && unloaded(&mut client)?.0 > 0 {
            let index = dice.below(data.records);
            keys.write(index, &mut touched);
            if seen.insert(routes.find(0, &touched).place) {
                let begun = Instant::now();
                get(&mut client, index)?;
                touches.push(ms_of(begun.elapsed()));
            }
        }
        touches.sort_by(f64::total_cmp);
        start.touches = touches.len() as u64;
        start.touch_p50_ms = touches.get(touches.len() / 2).copied().unwrap_or(0.0);
        start.touch_max_ms = touches.last().copied().unwrap_or(0.0);
    }
    loop {
        let (left, stats) = unloaded(&mut client)?;
        if left == 0 {
            start.loaded_ms = node.since_start_ms();
            start.read_bytes = total(&stats, "recovery_read_bytes");
            start.replayed_frames = total(&stats, "recovered_frames");
            return Ok(start);
        }
        std::thread::sleep(POLL);
    }
}

fn unloaded(client: &mut Client) -> Result<(u64, Value), RestartError> {
    let stats = client.stats()?;
    Ok((total(&stats, "partitions_unloaded"), stats))
}

fn total(stats: &Value, name: &str) -> u64 {
    stats["totals"][name].as_u64().unwrap_or(0)
}

/// Bytes a second of large reads one behind the other, a few at a time.
fn read_sequentially(path: &Path) -> Result<f64, RestartError> {
    let failed = |error| RestartError::Drive { path: path.into(), error };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).map_err(failed)?;
    let chunks = file.metadata().map_err(failed)?.len() / SEQUENTIAL_BYTES as u64;
    let (next, begun) = (AtomicU64::new(0), Instant::now());
    let one = || -> std::io::Result<()> {
        // A page more, so that it can begin on one.
        let mut memory = vec![0u8; SEQUENTIAL_BYTES + 4096];
        let skip = memory.as_ptr().align_offset(4096);
        while begun.elapsed() < SEQUENTIAL_TIME {
            let at = next.fetch_add(1, Ordering::Relaxed) % chunks.max(1) * SEQUENTIAL_BYTES as u64;
            file.read_exact_at(&mut memory[skip..skip + SEQUENTIAL_BYTES], at)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SEQUENTIAL_THREADS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a reader does not panic"))
    })
    .map_err(failed)?;
    let bytes = next.load(Ordering::Relaxed) * SEQUENTIAL_BYTES as u64;
    Ok(bytes as f64 / begun.elapsed().as_secs_f64())
}

/// A projection: so many keys on so many bytes of drive, which reads so many bytes a second.
const PROJECTED_KEYS: f64 = 1e9;
const PROJECTED_BYTES_PER_S: f64 = 6e9;

impl RestartReport {
    /// For people.
    pub fn to_text(&self) -> String {
        let per_key = self.index_bytes as f64 / self.records.max(1) as f64;
        let mut text = format!(
            "{} keys in {} partitions, {:.0} MB of index ({per_key:.1} bytes a key)\n\n\
             {:<10} {:>10} {:>10} {:>10} {:>10} {:>9} {:>10} {:>9}\n",
            self.records,
            self.partitions,
            self.index_bytes as f64 / 1e6,
            "ms from",
            "listening",
            "first GET",
            "touch p50",
            "touch max",
            "touches",
            "all loaded",
            "MB read"
        );
        let kinds = [("alone", &self.alone), ("touched", &self.touched), ("rested", &self.rested)];
        let all = kinds.into_iter().flat_map(|(name, starts)| starts.iter().map(move |start| (name, start)));
        for (name, start) in all {
            text += &format!(
                "{name:<10} {:>10.1} {:>10.1} {:>10.2} {:>10.2} {:>9} {:>10.0} {:>9.0}\n",
                start.listening_ms,
                start.first_get_ms,
                start.touch_p50_ms,
                start.touch_max_ms,
                start.touches,
                start.loaded_ms,
                start.read_bytes as f64 / 1e6
            );
        }
        let share = self.load_bytes_per_s / self.sequential_bytes_per_s.max(1.0);
        let projected_bytes = PROJECTED_KEYS * per_key;
        text += &format!(
            "\nindex loads at {:.0} MB/s, the drive gives {:.0} MB/s: {share:.2} of it (at least 0.5 wanted)\n\
             10^9 keys: {:.0} GB of index; at {share:.2} of 6 GB/s {:.1} s (5 s wanted)\n{} wrong answers\n",
            self.load_bytes_per_s / 1e6,
            self.sequential_bytes_per_s / 1e6,
            projected_bytes / 1e9,
            projected_bytes / (share.min(1.0) * PROJECTED_BYTES_PER_S),
            self.wrong
        );
        text
    }
}
