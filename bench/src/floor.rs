//! The floor: what the device gives with nothing of lode on top.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lode_net::ring::echo::{self, EchoLoad};
use lode_net::ring::floor::{self, FloorReport, MAX_DEPTH};
use serde::Serialize;
use thiserror::Error;

use crate::options::FloorOptions;

/// Bytes of the scratch file that durable appends go to.
const SCRATCH_BYTES: u64 = 64 << 20;

/// Bytes of an echo's reply: a value of 1 KiB and its head.
const ECHO_REPLY_BYTES: usize = 1040;
/// With so few in flight an echo looks for work before it sleeps, as a node does: a wake takes about as long as a read.
const LONE_DEPTH: u16 = 2;
const LONE_SPIN: Duration = Duration::from_micros(300);

/// Why the floor could not be measured.
#[derive(Debug, Error)]
pub enum FloorError {
    /// The file could not be opened or read.
    #[error("{path}: {error}; give a file on a file system that takes O_DIRECT")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// The measurement itself failed.
    #[error("measuring on {path}: {error}")]
    Measure {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        error: floor::FloorError,
    },
}

/// One measurement, as reports give it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FloorSummary {
    /// Operations per second.
    pub per_second: f64,
    /// CPU microseconds per operation, of all threads that do it.
    pub cpu_us_per_operation: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99 of 100 latencies are below, in microseconds.
    pub p99_us: f64,
    /// 999 of 1000 latencies are below, in microseconds.
    pub p999_us: f64,
}

impl From<FloorReport> for FloorSummary {
    fn from(report: FloorReport) -> FloorSummary {
        FloorSummary {
            per_second: report.per_second(),
            cpu_us_per_operation: report.cpu_us_per_operation(),
            p50_us: report.latency_us(0.5),
            p99_us: report.latency_us(0.99),
            p999_us: report.latency_us(0.999),
        }
    }
}

/// Random 4 KiB reads of a file or block device, `depth` in flight, by so many threads at once, each with
/// a ring of its own and its part of the depth.
pub fn reads(path: &Path, depth: u16, threads: u16, duration: Duration) -> Result<FloorSummary, FloorError> {
    let (file, bytes) = open_drive(path).map_err(|error| FloorError::File { path: path.into(), error })?;
    let one = |thread: u16| -> Result<FloorReport, FloorError> {
        let file = file.try_clone().map_err(|error| FloorError::File { path: path.into(), error })?;
        let share = depth / threads + u16::from(thread < depth % threads);
        let measured = floor::random_reads(file, bytes, usize::from(share), thread.into(), duration);
        measured.map_err(|error| FloorError::Measure { path: path.into(), error })
    };
    let mut whole = FloorReport::default();
    std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads.min(depth)).map(|thread| scope.spawn(move || one(thread))).collect();
        for thread in running {
            whole.merge(thread.join().expect("a measuring thread does not panic")?);
        }
        Ok(whole.into())
    })
}

fn open_drive(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let metadata = file.metadata()?;
    let bytes = if metadata.file_type().is_block_device() {
        rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?
    } else {
        metadata.len()
    };
    Ok((file, bytes))
}

/// A file of blocks written once before, for durable appends; gone when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A scratch file in `directory`. Its blocks are written, as those of a drive are: the first write
    /// to a block that was only allocated would also write the file system's journal.
    pub fn new(directory: &Path) -> Result<Scratch, FloorError> {
        let path = directory.join(format!("lode-bench-scratch-{}", std::process::id()));
        let fill = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            let zeros = vec![0u8; 1 << 20];
            for _ in 0..SCRATCH_BYTES / zeros.len() as u64 {
                file.write_all(&zeros)?;
            }
            file.sync_all()
        };
        let filled = fill();
        // From here on the file goes away again, whatever happened.
        let scratch = Scratch { path: path.clone() };
        filled.map(|()| scratch).map_err(|error| FloorError::File { path, error })
    }

    /// Durable 4 KiB appends, one at a time.
    pub fn appends(&self, duration: Duration) -> Result<FloorSummary, FloorError> {
        let path = &self.path;
        let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path);
        let file = open.map_err(|error| FloorError::File { path: path.clone(), error })?;
        let measured = floor::durable_appends(file, 0, SCRATCH_BYTES, duration);
        measured.map(FloorSummary::from).map_err(|error| FloorError::Measure { path: path.clone(), error })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on it: at worst a file of 64 MiB with a telling name is left behind.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A server of one ring and one thread that reads a block for each small request and sends part of it back: the same work
/// as a node's for a GET that misses memory, with nothing of lode in it. `spin` is how long it looks for work before it sleeps.
pub fn echo(path: &Path, load: &EchoLoad) -> Result<FloorSummary, FloorError> {
    let file = open_drive(path).map_err(|error| FloorError::File { path: path.into(), error })?;
    let measured = echo::echo(Some(file), load);
    measured.map(FloorSummary::from).map_err(|error| FloorError::Measure { path: path.into(), error })
}

/// Whether [`ask`] could ask a server that reads this file.
pub fn check(path: &Path, load: &EchoLoad) -> Result<(), FloorError> {
    let (_, bytes) = open_drive(path).map_err(|error| FloorError::File { path: path.into(), error })?;
    echo::check(load, bytes).map_err(|error| FloorError::Measure { path: path.into(), error })
}

/// The clients of [`echo`] alone, of another server that reads this file for them; it tells itself what CPU it took.
pub fn ask(addr: SocketAddr, path: &Path, load: &EchoLoad) -> Result<FloorReport, FloorError> {
    let (_, bytes) = open_drive(path).map_err(|error| FloorError::File { path: path.into(), error })?;
    echo::ask(addr, bytes, load).map_err(|error| FloorError::Measure { path: path.into(), error })
}

/// A load of `depth` requests in flight, as far as the connections can share them evenly.
pub fn echo_load(depth: u16, connections: u16, time: Duration) -> EchoLoad {
    let connections = usize::from(connections.min(depth));
    let each = usize::from(depth).div_ceil(connections);
    EchoLoad {
        connections,
        depth: each.min(MAX_DEPTH / connections),
        reply_bytes: ECHO_REPLY_BYTES,
        spin: if depth <= LONE_DEPTH { LONE_SPIN } else { Duration::ZERO },
        time,
    }
}

/// What `lode-bench floor` prints.
#[derive(Debug, Serialize)]
pub struct FloorOutput {
    /// Reads in flight.
    pub depth: u16,
    /// Threads that read.
    pub threads: u16,
    /// Random 4 KiB reads per second.
    pub read_iops: f64,
    /// CPU microseconds of one, of all threads that read.
    pub cpu_us_per_read: f64,
    /// All of the same.
    pub reads: FloorSummary,
    /// Connections of the echo.
    pub connections: u16,
    /// A server that reads a block for each request over TCP and answers 1 KiB of it; the CPU is the server's.
    pub echo: FloorSummary,
    /// Durable 4 KiB appends, where a scratch directory was given.
    pub durable_appends: Option<FloorSummary>,
}

impl FloorOutput {
    /// For people.
    pub fn to_text(&self) -> String {
        let line = |name: &str, s: &FloorSummary| {
            format!(
                "{name:<45} {:>9.0}/s  {:>6.2} us CPU each  p50 {:.0} us  p99 {:.0} us  p99.9 {:.0} us\n",
                s.per_second, s.cpu_us_per_operation, s.p50_us, s.p99_us, s.p999_us
            )
        };
        let reads = match self.threads {
            1 => format!("random 4 KiB reads, {} in flight", self.depth),
            threads => format!("random 4 KiB reads, {} in flight, {threads} threads", self.depth),
        };
        let echo = format!("the same for 1 KiB over TCP, {} connections", self.connections);
        let mut text = line(&reads, &self.reads) + &line(&echo, &self.echo);
        if let Some(appends) = &self.durable_appends {
            text += &line("durable 4 KiB appends, one at a time", appends);
        }
        text
    }
}

/// Everything that was asked for.
pub fn floor(options: &FloorOptions) -> Result<FloorOutput, FloorError> {
    let FloorOptions { file, depth, threads, duration, connections, .. } = options;
    let reads = reads(file, *depth, *threads, *duration)?;
    let load = echo_load(*depth, *connections, *duration);
    let echo = echo(file, &load)?;
    let scratch = options.scratch.as_deref().map(Scratch::new).transpose()?;
    let durable_appends = scratch.map(|scratch| scratch.appends(*duration)).transpose()?;
    Ok(FloorOutput {
        depth: *depth,
        threads: *threads,
        read_iops: reads.per_second,
        cpu_us_per_read: reads.cpu_us_per_operation,
        reads,
        connections: load.connections as u16,
        echo,
        durable_appends,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_file_is_gone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(directory.path()).unwrap();
        let path = scratch.path.clone();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), SCRATCH_BYTES);
        assert!(Scratch::new(directory.path()).is_err(), "one is there already");
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let error = reads(Path::new("/nowhere/drive"), 1, 1, Duration::from_millis(1)).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/drive: "), "{error}");
    }
}
