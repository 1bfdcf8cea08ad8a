//! `lode load`: a directory or a file into a table; parallel, in chunks, and resumable.

pub mod args;
pub mod chunks;
pub mod fingerprint;
pub mod lanes;
mod state;

use std::path::Path;
use std::time::Instant;

use lode_net::client::TableInfo;
use serde_json::json;

use self::chunks::{Cap, ChunkOptions};
use self::lanes::{Done, LaneOptions, Work};
use self::state::{LoadIdentity, LoadState};
use super::args::{Global, LoadArgs};
use super::exit::{Exit, Failure};
use super::output::{Output, Style, say};
use super::progress::{Progress, rate_per_s};
use super::session::Session;
use super::size::Size;
use super::table;
use lode_node::escape::escape;
use lode_node::input::{self, InputOptions, Position};

/// Messages about left-out records and differing keys that are printed in full.
pub const TOLD_IN_FULL: usize = 10;

/// Loads, and verifies if asked to.
pub fn run(args: &LoadArgs, global: &Global, session: &Session, out: &mut Output) -> Result<(), Failure> {
    let input = InputOptions {
        path: args.input.clone(),
        key: args.key.clone(),
        kind: args.format.map(Into::into),
        skip: Vec::new(),
    };
    // A wrong input is told before a table is made for it.
    input::open(&input, &Position::Start).map_err(|error| Failure::new(Exit::Input, error))?;
    let table = session.block_on(find_or_make(args, session))?;
    let state_path = args.state.clone().unwrap_or_else(|| state::default_path(&args.input));
    let load = LoadIdentity::of(&input, &global.node, &table.name, table.id);
    let before = if args.restart { None } else { resumable(&state_path, &load)? };
    let before = before.unwrap_or(LoadState {
        load,
        position: Position::Start,
        records: 0,
        bytes: 0,
        input_bytes: 0,
        skipped: 0,
    });

    let started = Instant::now();
    let done = session.block_on(store(args, &input, &before, &state_path, session))?;
    let elapsed = started.elapsed();
    let differing = if args.verify { Some(session.block_on(verify(args, &input, session))?) } else { None };
    state::remove(&state_path).map_err(|error| Failure::new(Exit::Input, error))?;

    let (records, bytes) = (before.records + done.records, before.bytes + done.bytes);
    let skipped = before.skipped + done.skipped;
    let rate = rate_per_s(done.bytes, elapsed);
    let mut failure = differing.as_ref().filter(|keys| !keys.is_empty()).map(|keys| {
        let message = format!("{} keys are missing or have another value: {}", keys.len(), first_of(keys));
        Failure::new(Exit::VerificationFailed, message)
    });
    match out.style() {
        Style::Json => {
            let loaded = json!({
                "table": table.name,
                "records": records,
                "bytes": bytes,
                "skipped": skipped,
                "resumed_at_record": before.records,
                "seconds": elapsed.as_secs_f64(),
                "bytes_per_s": rate,
                "verified": differing.as_ref().map(|keys| keys.is_empty()),
            });
            out.answer(loaded, failure.as_mut())?;
        }
        Style::Plain | Style::Shell => {
            let verified = if args.verify { ", read back and compared" } else { "" };
            out.line(&format!(
                "loaded {records} records, {} into {} in {:.1} s ({}/s){verified}",
                Size(bytes),
                table.name,
                elapsed.as_secs_f64(),
                Size(rate)
            ))?;
            if skipped > 0 {
                out.line(&format!("left out {skipped} records that are none (--skip-bad)"))?;
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Keys as people read them.
pub fn names_of(keys: &[Vec<u8>]) -> Vec<String> {
    keys.iter().map(|key| escape(key, None)).collect()
}

/// The first few of many.
pub fn first_of(names: &[String]) -> String {
    let told = names[..names.len().min(TOLD_IN_FULL)].join(", ");
    if names.len() > TOLD_IN_FULL { format!("{told}, ...") } else { told }
}

async fn find_or_make(args: &LoadArgs, session: &Session) -> Result<TableInfo, Failure> {
    let tables = session.client.list_tables().await?;
    if let Some(table) = tables.into_iter().find(|table| table.name == args.table) {
        return Ok(table);
    }
    if args.new_table.partitions.is_none() {
        let message = format!(
            "there is no table {:?}; add --partitions N to make it, or make it with `lode table create`",
            args.table
        );
        return Err(Failure::new(Exit::Refused, message));
    }
    table::make(&args.table, &args.new_table, Vec::new(), None, &super::args::QuotaArgs::default(), session)
        .await
}

fn resumable(path: &Path, load: &LoadIdentity) -> Result<Option<LoadState>, Failure> {
    let state = state::read(path).map_err(|error| Failure::new(Exit::Input, error))?;
    let Some(state) = state else { return Ok(None) };
    if state.load != *load {
        say(format_args!(
            "{} is of another load, or the input or the table has changed since: starting from the beginning",
            path.display()
        ));
        return Ok(None);
    }
    say(format_args!("going on behind {} records, as {} says", state.records, path.display()));
    Ok(Some(state))
}

async fn store(
    args: &LoadArgs,
    input: &InputOptions,
    before: &LoadState,
    state_path: &Path,
    session: &Session,
) -> Result<Done, Failure> {
    let refused = |error| Failure::new(Exit::Input, error);
    let total = input::total_bytes(input).map_err(refused)?;
    let cut = ChunkOptions { chunk_bytes: args.chunk.0.max(1), skip_bad: args.skip_bad, cap: Cap::NONE };
    let chunks = chunks::read(input, &before.position, cut).map_err(refused)?;
    let options = LaneOptions {
        table: args.table.clone(),
        work: Work::Store,
        parallel: usize::from(args.parallel),
        fingerprint: None,
    };
    let mut progress = Progress::new("load", total, before.input_bytes);
    let (mut told, mut last) = (0, Done::default());
    let done = lanes::run(&session.client, &options, chunks, &mut |done, skipped| {
        for message in skipped {
            told += 1;
            if told <= TOLD_IN_FULL {
                say(format_args!("left out: {message}"));
            }
        }
        progress.add(done.input_bytes - last.input_bytes, done.records - last.records);
        last = done.clone();
        let state = LoadState {
            load: before.load.clone(),
            position: done.position.clone(),
            records: before.records + done.records,
            bytes: before.bytes + done.bytes,
            input_bytes: before.input_bytes + done.input_bytes,
            skipped: before.skipped + done.skipped,
        };
        state::write(state_path, &state).map_err(|error| Failure::new(Exit::Input, error))
    })
    .await;
    progress.finish();
    let saved = before.records + last.records;
    done.map_err(|failure| match failure.exit {
        // What is wrong with the input or the state was told with what to do about it.
        Exit::Input => failure,
        _ if saved == 0 => failure,
        exit => Failure::new(
            exit,
            format_args!("{failure}; when that is mended, the same command goes on behind {saved} records"),
        ),
    })
}

async fn verify(args: &LoadArgs, input: &InputOptions, session: &Session) -> Result<Vec<String>, Failure> {
    let refused = |error| Failure::new(Exit::Input, error);
    let total = input::total_bytes(input).map_err(refused)?;
    let cut = ChunkOptions { chunk_bytes: args.chunk.0.max(1), skip_bad: args.skip_bad, cap: Cap::NONE };
    let chunks = chunks::read(input, &Position::Start, cut).map_err(refused)?;
    let options = LaneOptions {
        table: args.table.clone(),
        work: Work::Compare,
        parallel: usize::from(args.parallel),
        fingerprint: None,
    };
    let mut progress = Progress::new("verify", total, 0);
    let mut last = Done::default();
    let done = lanes::run(&session.client, &options, chunks, &mut |done, _| {
        progress.add(done.input_bytes - last.input_bytes, done.records - last.records);
        last = done.clone();
        Ok(())
    })
    .await;
    progress.finish();
    Ok(names_of(&done?.differing))
}
