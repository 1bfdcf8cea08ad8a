//! `lode quickstart`: the whole job on real data, in about a minute, with everything that it claims checked.
//!
//! It formats a drive, starts a node as a process of its own, loads, reads back, puts an open-loop load on it, kills it
//! in the middle of writing, starts it again, and holds what is there against what was acknowledged.

mod crash;
mod job;
mod ledger;
mod node;
mod open_loop;
pub mod place;
mod source;
mod summary;

use lode_node::serve::{ServeConfig, plan_memory};

use self::job::Job;
use self::node::{Node, NodeOptions};
use self::summary::Summary;
use crate::cli::args::QuickstartArgs;
use crate::cli::drive;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{Output, Style, say};
use crate::cli::session::{Load, runtime};

/// Runs it all.
pub fn run(args: &QuickstartArgs, out: &mut Output) -> Result<(), Failure> {
    let source = source::choose(args)?;
    let size = args.size.unwrap_or_else(|| place::size_for(source.drive_bytes));
    // Before anything is made: the node would refuse it, too.
    let memory_bytes = args.memory.map_or_else(|| ServeConfig::default().memory_bytes, |size| size.0);
    plan_memory(memory_bytes, None, args.shards.unwrap_or_else(drive::default_shards))
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let path = place::prepare(args.data.as_deref(), size)?;
    say(format_args!("loading {} into {}", source.about, path.display()));
    drive::format_with_progress(&path, Some(size), args.shards, false)?;

    let runtime = runtime(Load::Heavy)?;
    let options = NodeOptions { drive: &path, memory: args.memory };
    let mut job = Job::new(&runtime, source);
    let node = Node::start(&options)?;
    job.load(&node, args.partitions)?;
    let (measured, load) = job.open_loop(&node, args.duration.0)?;
    let crash_ledger = job.crash(node)?;

    let node = Node::start(&options)?;
    job.after_crash(&node, &crash_ledger, &load)?;
    let recovery_time = node.ready_after;
    node.stop()?;
    job.check_drive(&path)?;

    let summary = Summary {
        program: std::env::args().next().unwrap_or_else(|| "lode".to_owned()),
        source: job.source.about.clone(),
        records: job.loaded.fresh,
        rows: job.loaded.records,
        skipped: job.loaded.skipped,
        bytes: job.loaded.bytes,
        load_time: job.load_time,
        read_time: job.read_time,
        partitions: job.partitions,
        shards: job.shards,
        acknowledged: job.loaded.records + load.ledger.acknowledged() + crash_ledger.acknowledged(),
        acknowledged_lost: job.lost,
        faults: job.complaints(),
        get_us: &measured.get_us,
        put_us: &measured.put_us,
        ops_per_s: measured.ops_per_s,
        offered_per_s: measured.offered_per_s,
        device_reads_per_cold_get: job.device_reads_per_cold_get,
        write_amplification: job.write_amplification,
        recovery_time,
        drive: &path,
        drive_bytes: size.0,
    };
    let mut failure = job.failure();
    match out.style() {
        Style::Json => out.answer(summary.to_json(), failure.as_mut())?,
        Style::Plain | Style::Shell => out.line(summary.to_text().trim_end())?,
    }
    failure.map_or(Ok(()), Err)
}
