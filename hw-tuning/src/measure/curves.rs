//! The curves: each operation and length of block, at rising depth.

use std::time::Duration;

use lode_net::io_properties::{Curve, Operation, Point};
use lode_net::ring::floor::{self, FloorError, FloorReport, Load, MAX_IN_FLIGHT_BYTES, Order};

use super::target::Target;
use crate::checks::human_bytes;

const KIB: u32 = 1 << 10;
/// What is measured, with which lengths of block, and up to which depth.
const PLAN: [(Operation, &[u32], u32); 4] = [
    (Operation::Read, &[4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB], 256),
    (Operation::Write, &[4 * KIB, 64 * KIB, 256 * KIB], 256),
    (Operation::DurableWrite, &[4 * KIB, 64 * KIB, 256 * KIB], 256),
    (Operation::Flush, &[4 * KIB], 16),
];
/// A curve ends where two doublings of the depth brought less than this.
const WORTHWHILE: f64 = 1.05;
/// With so few in flight an end is looked for, as a node does: a wake takes as long as a quick drive.
const LONE_DEPTH: u32 = 2;
const LONE_SPIN: Duration = Duration::from_micros(300);
/// Before a point counts it runs for this part of its time: what a drive has saved up, or a throttle, is used up.
const WARMUP_PART: u32 = 4;
/// Preconditioning: passes over all of it, in blocks of so many bytes, so many at once.
const PASSES: u64 = 2;
const PASS_BLOCK_BYTES: u32 = 128 * KIB;
const PASS_DEPTH: usize = 32;

/// Writes all of it twice, in order, as SNIA's Performance Test Specification has it.
pub fn precondition(target: &Target) -> Result<(), FloorError> {
    pass(target, PASSES)
}

/// Writes all of it so many times.
pub fn pass(target: &Target, passes: u64) -> Result<(), FloorError> {
    let load = Load {
        block_bytes: PASS_BLOCK_BYTES,
        depth: PASS_DEPTH,
        order: Order::Sequential,
        most_operations: passes * target.bytes() / u64::from(PASS_BLOCK_BYTES),
        ..Load::new(floor::Operation::Write, target.area.clone(), Duration::MAX)
    };
    floor::run(target.file()?, &load).map(drop)
}

/// Every curve.
pub fn all(target: &Target, point: Duration) -> Result<Vec<Curve>, FloorError> {
    let mut curves = Vec::new();
    for (operation, blocks, deepest) in PLAN {
        for block_bytes in blocks {
            eprintln!("measuring {operation} of {}", human_bytes((*block_bytes).into()));
            curves.push(curve(target, operation, *block_bytes, deepest, point)?);
        }
    }
    Ok(curves)
}

fn curve(
    target: &Target,
    operation: Operation,
    block_bytes: u32,
    deepest: u32,
    time: Duration,
) -> Result<Curve, FloorError> {
    let mut points: Vec<Point> = Vec::new();
    let mut depth = 1;
    while depth <= deepest
        && depth as usize * block_bytes as usize <= MAX_IN_FLIGHT_BYTES
        && is_worthwhile(&points)
    {
        let load = Load {
            block_bytes,
            depth: depth as usize,
            warmup: time / WARMUP_PART,
            spin: if depth <= LONE_DEPTH { LONE_SPIN } else { Duration::ZERO },
            ..Load::new(of_loop(operation), target.area.clone(), time)
        };
        points.push(point(depth, block_bytes, &floor::run(target.file()?, &load)?));
        depth *= 2;
    }
    Ok(Curve::new(operation, block_bytes, points))
}

/// Whether a greater depth may bring more: the last two did.
pub(super) fn is_worthwhile(points: &[Point]) -> bool {
    let [before @ .., _, _] = points else { return true };
    let most = |points: &[Point]| points.iter().map(|point| point.iops).fold(0.0, f64::max);
    before.is_empty() || most(points) >= most(before) * WORTHWHILE
}

fn of_loop(operation: Operation) -> floor::Operation {
    match operation {
        Operation::Read => floor::Operation::Read,
        Operation::Write => floor::Operation::Write,
        Operation::DurableWrite => floor::Operation::DurableWrite,
        Operation::Flush => floor::Operation::Flush,
    }
}

fn point(depth: u32, block_bytes: u32, report: &FloorReport) -> Point {
    // Three digits after the point are more than is known.
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let iops = round(report.per_second());
    Point {
        depth,
        iops,
        bytes_per_s: round(iops * f64::from(block_bytes)),
        p50_us: round(report.latency_us(0.5)),
        p99_us: round(report.latency_us(0.99)),
        p999_us: round(report.latency_us(0.999)),
    }
}
