//! What hostile clients cost the others, and the node in memory: a node of its own, a load at a constant rate, and hostile
//! clients of one kind after the other, each in turns with none.

mod arms;
mod attack;
mod report;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lode_net::client::StatsError;
use lode_net::wire::limits::FRAME_TIMEOUT_MS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use arms::{Arms, LARGE_BYTES, LARGE_VALUES};
use attack::Attack;
pub use attack::Deeds;
pub use report::{Closed, HostileReport, HostileRow, HostileTurn};

use crate::draw::ValueSizes;
use crate::options::{DataOptions, HostileKind, HostileOptions, LoadOptions, RunOptions};
use crate::process::{Node, Serve, StartError};
use crate::run::{PrepareError, Ready, RunError, measure, prepare, yield_cores};
use crate::tenants::others_run;
use crate::workload::Workload;

/// The others connect first: a node that is crowded puts off whoever comes new.
const HEAD_START: Duration = Duration::from_millis(200);
/// How long the node may take until hostile clients that are gone are gone for it, too: longer than a request may take to come
/// in whole. A kernel short of memory for a connection may lose its end; then nothing but that tells the node.
const SETTLING: Duration = Duration::from_millis(FRAME_TIMEOUT_MS + 5_000);
/// How often it is asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Partitions of the table of large values.
const LARGE_PARTITIONS: u32 = 8;

/// Why nothing could be measured.
#[derive(Debug, Error)]
pub enum HostileError {
    /// The node could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A table could not be made ready.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The load of the others failed.
    #[error("the others could not be served: {0}")]
    Run(#[from] RunError),
    /// The node's counters could not be read.
    #[error("the node's counters could not be read: {0}")]
    Stats(#[from] StatsError),
    /// There are too few descriptors.
    #[error(
        "this process may open {most} files and sockets, and hostile clients take {needed}: raise the limit (ulimit -n), or give less of --slow-connections and --wave"
    )]
    Descriptors {
        /// What it may.
        most: u64,
        /// What it would take.
        needed: u64,
    },
}

/// A node with its own drive, which is removed with it, and what is asked of it.
struct Rig {
    node: Node,
    drive: PathBuf,
    others: Ready,
    load: LoadOptions,
    arms: Arms,
    /// Connections that are open when nobody but we ourselves asks for anything.
    own_connections: u64,
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Where it cannot be removed it is in nobody's way: the next run uses it.
        let _ = std::fs::remove_file(&self.drive);
    }
}

/// Measures all kinds by turns.
pub fn hostile(options: &HostileOptions) -> Result<HostileReport, HostileError> {
    allow_descriptors(options)?;
    let drive = options.dir.join("hostile.lode");
    let memory = format!("{}MiB", options.memory_mib);
    let serve = Serve { drive: &drive, size: &options.size, memory: &memory, shards: options.shards };
    let node = Node::start(&options.node, &serve)?;
    let mut report = HostileReport::new(options, node.resident_bytes());
    eprintln!("filling the tables");
    let mut rig = Rig::new(node, drive, &options.load)?;
    report.filled_bytes = rig.node.resident_bytes().unwrap_or(0);
    let kinds = options.kinds();
    for round in 1..=options.load.rounds {
        for turn in [None].into_iter().chain(kinds.iter().copied().map(Some)) {
            let what = turn.map_or_else(|| "quiet".to_owned(), HostileKind::name);
            eprintln!("round {round} of {}: {what}", options.load.rounds);
            let measured = rig.turn(turn, options)?;
            report.push(turn, measured);
        }
    }
    report.judge(options.most_ratio);
    Ok(report)
}

/// Room for the hostile, and for the others.
fn allow_descriptors(options: &HostileOptions) -> Result<(), HostileError> {
    let most_hostile = options.slow_connections.max(options.wave).max(options.greedy_connections);
    let needed = u64::from(most_hostile) + u64::from(options.load.connections) + 100;
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if most < needed {
        return Err(HostileError::Descriptors { most, needed });
    }
    let current = limit.current.map(|current| current.max(needed));
    // What it is not given is told by connections that cannot be made.
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum });
    Ok(())
}

fn large_data(data: &DataOptions) -> DataOptions {
    let (table, value_size) = (format!("{}-large", data.table), ValueSizes::fixed(LARGE_BYTES));
    let (records, partitions) = (LARGE_VALUES, LARGE_PARTITIONS);
    DataOptions { table, tables: 1, records, value_size, partitions, ..data.clone() }
}

impl Rig {
    fn new(node: Node, drive: PathBuf, load: &LoadOptions) -> Result<Rig, HostileError> {
        let data = DataOptions { addr: node.addr().to_owned(), ..load.data.clone().of_own_node() };
        let load = LoadOptions { data, ..load.clone() };
        let large = large_data(&load.data);
        let arms = {
            let ready = prepare(&RunOptions::new(large.clone(), Workload::Get))?;
            Arms::make(&ready, &large)?
        };
        let mut others = prepare(&others_run(&load))?;
        // What has filled the tables may be on its way out.
        thread::sleep(LOOK_INTERVAL);
        let own_connections = others.counters()?.total("connections");
        Ok(Rig { node, drive, others, load, arms, own_connections })
    }

    /// The others, and hostile clients of this kind, if of any.
    fn turn(
        &mut self,
        kind: Option<HostileKind>,
        options: &HostileOptions,
    ) -> Result<report::Measured, HostileError> {
        let before = self.others.counters()?;
        self.node.forget_peak();
        let stop = AtomicBool::new(false);
        let Rig { others, load, arms, .. } = self;
        let attack = kind.map(|kind| Attack::new(kind, others.addr, arms, options));
        let (run, deeds) = thread::scope(|scope| {
            let attacking = attack.map(|attack| {
                scope.spawn(|| {
                    thread::sleep(HEAD_START);
                    // On a machine of their own they would take none of the node's cores.
                    yield_cores();
                    attack.run(&stop)
                })
            });
            let run = measure(others, &others_run(load));
            stop.store(true, Ordering::Relaxed);
            // A panic there is a bug of this program; it goes on where it was.
            let join = |thread: thread::ScopedJoinHandle<'_, Deeds>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            (run, attacking.map(join).unwrap_or_default())
        });
        let left_open = self.settle()?;
        let peak_bytes = self.node.peak_bytes().unwrap_or(0);
        let closed = Closed::since(&before, &self.others.counters()?);
        Ok(report::Measured { turn: HostileTurn::of(&run?, peak_bytes), deeds, closed, left_open })
    }

    /// Waits until those who have gone are gone for the node; tells how many are not.
    fn settle(&mut self) -> Result<u64, HostileError> {
        let from = Instant::now();
        loop {
            let open = self.others.counters()?.total("connections");
            let left = open.saturating_sub(self.own_connections);
            if left == 0 || from.elapsed() > SETTLING {
                return Ok(left);
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }
}
