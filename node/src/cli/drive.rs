//! `lode format` and `lode check`: a drive without a node.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use lode_engine::limits::MAX_VALUE_BYTES;
use lode_engine::{CheckReport, DeviceError, ShardReport, check_drive};
use lode_node::control::stats::quarantined_json;
use lode_node::drive::{self, FormatOptions, lock_patiently};
use serde_json::{Map, Value, json};

use super::args::{CheckArgs, FormatArgs};
use super::exit::{Exit, Failure};
use super::output::{Output, Style};
use super::progress::Progress;
use super::scrub::{AND_MORE, partition_in_words};
use super::size::Size;
use crate::quickstart::place;
use lode_node::escape::{escape, insert_bytes};

/// Damaged records that are printed; JSON has all that the engine names.
const SHOWN_DAMAGED: usize = 20;

/// Makes an empty drive.
pub fn format(args: &FormatArgs, out: &mut Output) -> Result<(), Failure> {
    format_with_progress(&args.drive, args.size, args.shards, args.force)?;
    place::adopt(&args.drive);
    let drive = args.drive.display().to_string();
    out.done(&format!("OK formatted {drive}"), &json!({ "ok": true, "drive": drive }))
}

/// Makes an empty drive, and shows how far it is.
pub fn format_with_progress(
    path: &Path,
    size: Option<Size>,
    shards: Option<u16>,
    overwrite: bool,
) -> Result<(), Failure> {
    let options = FormatOptions {
        bytes: size.map(|size| size.0),
        shards: shards.unwrap_or_else(default_shards),
        segment_bytes: None,
        max_value_bytes: MAX_VALUE_BYTES as u32,
        overwrite,
    };
    let mut progress = Progress::new("format", size.map_or(0, |size| size.0), 0);
    let mut last = 0;
    let done = drive::format(path, &options, &mut |now| {
        progress.add(now.done_bytes - last, 0);
        last = now.done_bytes;
    });
    progress.finish();
    done.map_err(|error| Failure::new(Exit::Input, error))
}

/// One shard per core.
pub fn default_shards() -> u16 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(256) as u16)
}

/// Verifies a drive, and prints what was found.
pub fn check(args: &CheckArgs, out: &mut Output) -> Result<(), Failure> {
    let report = check_with_progress(&args.drive)?;
    let mut damaged = (!report.is_clean()).then(|| {
        Failure::new(
            Exit::VerificationFailed,
            format_args!("{} is damaged: {}", args.drive.display(), faults(&report).join("; ")),
        )
    });
    match out.style() {
        Style::Json => out.answer(to_json(&args.drive, &report), damaged.as_mut())?,
        Style::Plain | Style::Shell => print(&args.drive, &report, out)?,
    }
    damaged.map_or(Ok(()), Err)
}

/// Reads every checksum of a drive that no node has open.
pub fn check_with_progress(path: &Path) -> Result<CheckReport, Failure> {
    let refused = |error: std::io::Error| {
        Failure::new(Exit::Input, format_args!("cannot read {}: {error}", path.display()))
    };
    let mut file = File::open(path).map_err(refused)?;
    if file.metadata().map_err(refused)?.is_dir() {
        return Err(refused(std::io::ErrorKind::IsADirectory.into()));
    }
    // A node holds this lock for as long as it runs; meanwhile nothing on the drive stands still.
    if !lock_patiently(&file).map_err(refused)? {
        return Err(Failure::new(
            Exit::Input,
            format_args!("{} is in use by another process; stop that node first", path.display()),
        ));
    }
    // Block devices tell their size only so.
    let bytes = file.seek(SeekFrom::End(0)).map_err(refused)?;
    let mut progress = Progress::new("check", bytes, 0);
    let report = check_drive(
        &mut |at, buffer| {
            progress.add(buffer.len() as u64, 0);
            file.read_exact_at(buffer, at).map_err(|error| DeviceError {
                // The end of the file where there should be data has no number of its own.
                os_error: error.raw_os_error().unwrap_or(libc::EIO),
            })
        },
        bytes,
    );
    progress.finish();
    report
        .map_err(|error| Failure::new(Exit::VerificationFailed, format_args!("{}: {error}", path.display())))
}

/// What is wrong, in words; nothing where the drive is clean.
pub fn faults(report: &CheckReport) -> Vec<String> {
    let mut faults = Vec::new();
    match report.headers_whole {
        (true, true) => {}
        (false, _) => faults.push("the header in the first block is damaged (its copy is used)".to_owned()),
        (_, false) => faults.push("the header's copy in the last block is damaged".to_owned()),
    }
    for shard in &report.shards {
        let number = shard.shard;
        if let Some(error) = &shard.open_error {
            faults.push(format!("shard {number} cannot be opened: {error}"));
        }
        if shard.quarantined_frames > 0 {
            faults.push(format!("shard {number} has {} damaged places in its log", shard.quarantined_frames));
        }
        if shard.partitions_quarantined > 0 {
            let partitions = shard.partitions_quarantined;
            faults.push(format!(
                "shard {number} has {partitions} partitions that may have lost writes to damage"
            ));
        }
        if shard.damaged_records > 0 {
            faults.push(format!("shard {number} has {} damaged records", shard.damaged_records));
        }
    }
    faults
}

fn print(path: &Path, report: &CheckReport, out: &mut Output) -> Result<(), Failure> {
    let geometry = &report.geometry;
    out.line(&format!(
        "{}: {} in {} shards of {} segments of {}",
        path.display(),
        Size(geometry.drive_bytes),
        geometry.shards,
        geometry.segments_per_shard,
        Size(u64::from(geometry.segment_bytes))
    ))?;
    for shard in &report.shards {
        print_shard(shard, out)?;
    }
    match faults(report).as_slice() {
        [] => out.line("clean: every checksum is right"),
        _ => Ok(()),
    }
}

fn print_shard(shard: &ShardReport, out: &mut Output) -> Result<(), Failure> {
    out.line(&format!(
        "shard {}: {} tables, {} partitions, {} records, {} live, {} frames behind the checkpoint",
        shard.shard,
        shard.tables,
        shard.partitions,
        shard.records,
        Size(shard.live_bytes),
        shard.replayed_frames
    ))?;
    for record in shard.damaged.iter().take(SHOWN_DAMAGED) {
        out.line(&format!(
            "  damaged: table {} partition {} key {}{} ({} bytes at byte {} of the drive)",
            record.table_name,
            record.partition,
            escape(&record.key, None),
            if record.is_whole_key { "" } else { AND_MORE },
            record.len,
            record.at
        ))?;
    }
    let more = shard.damaged_records.saturating_sub(SHOWN_DAMAGED as u64);
    if more > 0 {
        out.line(&format!("  and {more} more"))?;
    }
    for found in shard.quarantined.iter().take(SHOWN_DAMAGED) {
        out.line(&format!("  quarantined: {}", partition_in_words(&quarantined_json(found))))?;
    }
    let more = shard.partitions_quarantined.saturating_sub(SHOWN_DAMAGED as u64);
    if more > 0 {
        out.line(&format!("  and {more} more partitions"))?;
    }
    Ok(())
}

fn to_json(path: &Path, report: &CheckReport) -> Value {
    let shards: Vec<Value> = report.shards.iter().map(shard_json).collect();
    let total = |of: fn(&ShardReport) -> u64| report.shards.iter().map(of).sum::<u64>();
    json!({
        "drive": path.display().to_string(),
        "clean": report.is_clean(),
        "faults": faults(report),
        "drive_bytes": report.geometry.drive_bytes,
        "segment_bytes": report.geometry.segment_bytes,
        "records": total(|shard| shard.records),
        "live_bytes": total(|shard| shard.live_bytes),
        "damaged_records": total(|shard| shard.damaged_records),
        "headers_whole": [report.headers_whole.0, report.headers_whole.1],
        "shards": shards,
    })
}

fn shard_json(shard: &ShardReport) -> Value {
    let damaged: Vec<Value> = shard
        .damaged
        .iter()
        .map(|record| {
            let mut object = Map::new();
            insert_bytes(&mut object, "key", &record.key);
            object.insert("key_is_whole".into(), record.is_whole_key.into());
            object.insert("table".into(), record.table_name.clone().into());
            object.insert("partition".into(), record.partition.0.into());
            object.insert("at".into(), record.at.into());
            object.insert("bytes".into(), record.len.into());
            object.into()
        })
        .collect();
    json!({
        "shard": shard.shard.0,
        "open_error": shard.open_error.as_ref().map(ToString::to_string),
        "superblocks_whole": shard.superblocks_whole,
        "superblock_mirrored": shard.superblock_mirrored,
        "tables": shard.tables,
        "partitions": shard.partitions,
        "records": shard.records,
        "live_bytes": shard.live_bytes,
        "replayed_frames": shard.replayed_frames,
        "quarantined_frames": shard.quarantined_frames,
        "damaged_records": shard.damaged_records,
        "damaged": damaged,
        "partitions_quarantined": shard.partitions_quarantined,
        "quarantined": shard.quarantined.iter().map(quarantined_json).collect::<Vec<_>>(),
    })
}
