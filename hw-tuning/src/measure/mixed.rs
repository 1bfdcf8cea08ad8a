//! Reads and writes beside each other: how many times ACT's load a drive takes within ACT's thresholds.
//!
//! ACT (<https://github.com/aerospike/act>) asks for 2,000 reads and 1,000 writes a second of records of 1.5 KB for each multiple of its
//! load. The writes reach a drive as large blocks, and so do the reads and writes of cleaning, which moves as much again: 23.4
//! large reads and as many large writes of 128 KiB a second. A drive passes where at most 5 % of the reads take longer than 1 ms,
//! 1 % longer than 8 ms and 0.1 % longer than 64 ms. ACT runs for 24 hours, each trial here for moments: for a first look.

use std::time::Duration;

use lode_net::io_properties::Mixed;
use lode_net::ring::floor::{FloorError, FloorReport, Operation, Stream, paced};

use super::target::Target;

/// Of one multiple, a second: reads of a record, which takes a block; large reads; and large writes.
const READS_PER_S: f64 = 2_000.0;
const RECORD_BYTES: f64 = 1_536.0;
const WRITES_PER_S: f64 = 1_000.0;
const READ_BLOCK_BYTES: u32 = 4 << 10;
const LARGE_BLOCK_BYTES: u32 = 128 << 10;
/// What is written, and what cleaning moves for it.
const LARGE_WRITES: f64 = 2.0 * WRITES_PER_S * RECORD_BYTES / LARGE_BLOCK_BYTES as f64;
/// Microseconds, and the most percent of the reads that may take longer.
const LIMITS: [(f64, f64); 3] = [(1_000.0, 5.0), (8_000.0, 1.0), (64_000.0, 0.1)];
/// A trial is so many times as long as a point of a curve.
const TRIAL_POINTS: u32 = 2;
/// Before it, so many run that do not count: what was measured before may still keep the drive busy.
const WARMUP_POINTS: u32 = 1;
/// A trial that does not pass is made once more: in so short a time one stall by chance decides.
const TRIES: usize = 2;
/// Trials between the last multiple that passes and the first that does not.
const NARROWING: u32 = 3;

/// Percent of the reads above each threshold.
type Above = [f64; LIMITS.len()];

/// Looks for the largest multiple that passes; no more is asked than the drive's `most_reads` a second allow.
pub fn search(target: &Target, point: Duration, most_reads: f64) -> Result<Mixed, FloorError> {
    let time = point * TRIAL_POINTS;
    eprintln!("measuring reads and writes beside each other");
    let tried = |multiple| -> Result<Above, FloorError> {
        let mut above = trial(target, multiple, point * WARMUP_POINTS, time)?;
        for _ in 1..TRIES {
            if !passes(&above) {
                above = trial(target, multiple, point * WARMUP_POINTS, time)?;
            }
        }
        Ok(above)
    };
    let (act_multiple, above) = largest((most_reads / READS_PER_S) as u32, tried)?;
    let [above_1_ms_percent, above_8_ms_percent, above_64_ms_percent] = above;
    Ok(Mixed {
        act_multiple,
        trial_s: time.as_secs_f64(),
        above_1_ms_percent,
        above_8_ms_percent,
        above_64_ms_percent,
    })
}

/// The largest multiple of at most `most` that was found to pass, and what was above the thresholds there; where not even 1
/// passes, 0, and what was above at 1.
pub(super) fn largest<E>(
    most: u32,
    mut trial: impl FnMut(u32) -> Result<Above, E>,
) -> Result<(u32, Above), E> {
    let mut above = trial(1)?;
    if !passes(&above) {
        return Ok((0, above));
    }
    let (mut good, mut bad) = (1, None);
    while bad.is_none() && good * 2 <= most {
        let found = trial(good * 2)?;
        if passes(&found) {
            (good, above) = (good * 2, found);
        } else {
            bad = Some(good * 2);
        }
    }
    let mut bad = bad.unwrap_or(most + 1);
    for _ in 0..NARROWING {
        let middle = good + (bad.max(good) - good) / 2;
        if middle == good {
            break;
        }
        let found = trial(middle)?;
        if passes(&found) {
            (good, above) = (middle, found);
        } else {
            bad = middle;
        }
    }
    Ok((good, above))
}

fn passes(above: &Above) -> bool {
    above.iter().zip(LIMITS).all(|(above, (_, most))| *above <= most)
}

fn trial(target: &Target, multiple: u32, warmup: Duration, time: Duration) -> Result<Above, FloorError> {
    let times = f64::from(multiple);
    let stream = |operation, block_bytes, per_second| Stream { operation, block_bytes, per_second };
    let streams = [
        stream(Operation::Read, READ_BLOCK_BYTES, READS_PER_S * times),
        stream(Operation::Read, LARGE_BLOCK_BYTES, LARGE_WRITES * times),
        stream(Operation::Write, LARGE_BLOCK_BYTES, LARGE_WRITES * times),
    ];
    let reports = paced(target.file()?, &target.area, &streams, warmup, time)?;
    Ok(LIMITS.map(|(us, _)| above_percent(&reports[0], us)))
}

/// Percent of the operations that took longer.
pub(super) fn above_percent(report: &FloorReport, us: f64) -> f64 {
    let within = report.latencies_ns.partition_point(|ns| *ns as f64 <= us * 1000.0);
    let above = report.latencies_ns.len() - within;
    let percent = above as f64 / report.latencies_ns.len().max(1) as f64 * 100.0;
    (percent * 1000.0).round() / 1000.0
}

/// In words.
pub fn to_text(mixed: &Mixed) -> String {
    let Mixed { act_multiple, trial_s, above_1_ms_percent, above_8_ms_percent, above_64_ms_percent } = mixed;
    let at = match act_multiple {
        0 => "mixed: ACT's load is above its thresholds already at 1 x".to_owned(),
        multiple => format!("mixed: {multiple} x ACT's load is within its thresholds"),
    };
    format!(
        "{at}, in a trial of {trial_s} s: {above_1_ms_percent} % of the reads above 1 ms, {above_8_ms_percent} % above 8 ms, \
         {above_64_ms_percent} % above 64 ms"
    )
}
