//! The power goes at every moment of a run, with every part of what was not durable lost; and the drive on which that is
//! tried does what a real one does.
#![allow(missing_docs)]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use lode_net::ring::{Event, Ring, RingConfig};
use lode_tests::sim::{Cut, DriveOp, Kept, Plan, Record, Verbosity, moments, record, run, second_cuts};

/// How often the ring is asked whether an operation has ended.
const MOST_WAITS: usize = 10_000;

/// Each moment with one way to lose what is not durable, and the next with the next; `sim SEED --cuts` tries all of both.
#[test]
fn the_power_goes_at_every_moment_and_nothing_acknowledged_is_lost() {
    for seed in [3, 4] {
        let moments = moments(&Plan::small(seed));
        assert!(moments.len() > 100, "seed {seed}: {} moments", moments.len());
        for (at, writes) in (1..).zip(moments) {
            let ways = Kept::of(writes);
            let kept = ways[at as usize % ways.len()];
            let plan = Plan { cut: Some(Cut { at, kept }), ..Plan::small(seed) };
            let ended = run(&plan, Verbosity::Digest);
            let outcome =
                ended.unwrap_or_else(|failure| panic!("seed {seed}, {:?}: {:?}", plan.cut, failure.wrong));
            assert_eq!(outcome.lives, 2, "seed {seed}, {:?}", plan.cut);
        }
    }
}

/// Of some of these moments: the power goes again as the node recovers, or as everything is read.
#[test]
fn the_power_goes_again_while_the_node_recovers_and_nothing_acknowledged_is_lost() {
    let moments = moments(&Plan::small(3));
    let mut cuts = 0;
    for (at, writes) in (1..).zip(moments).step_by(9) {
        let ways = Kept::of(writes);
        let cut = Some(Cut { at, kept: ways[at as usize % ways.len()] });
        for plan in second_cuts(&Plan { cut, ..Plan::small(3) }) {
            let ended = run(&plan, Verbosity::Digest);
            let outcome = ended.unwrap_or_else(|failure| {
                panic!("{:?}, {:?}: {:?}", plan.cut, plan.second_cut, failure.wrong)
            });
            assert_eq!(outcome.lives, 3, "{:?}, {:?}", plan.cut, plan.second_cut);
            cuts += 1;
        }
    }
    assert!(cuts > 40, "{cuts} second cuts");
}

/// A file, as the node opens it where it can.
fn real_drive(path: &std::path::Path, before: &[u8]) -> File {
    std::fs::write(path, before).expect("room in the temporary directory");
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let direct = options.clone().custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32).open(path);
    direct.or_else(|_| options.open(path)).expect("the file that was just made")
}

/// Does one operation by the ring. Gives what was read.
fn perform(ring: &mut Ring, token: u64, op: &DriveOp) -> Vec<u8> {
    let buffer = match op {
        DriveOp::Read { len, .. } => Some((ring.slab_mut().acquire(*len).expect("a buffer"), *len)),
        DriveOp::Write { bytes, .. } => {
            let buffer = ring.slab_mut().acquire(bytes.len()).expect("a buffer");
            ring.slab_mut().bytes_mut(buffer)[..bytes.len()].copy_from_slice(bytes);
            Some((buffer, bytes.len()))
        }
        DriveOp::Flush | DriveOp::Discard { .. } => None,
    };
    match (op, buffer) {
        (DriveOp::Read { at, .. }, Some((buffer, len))) => ring.read(token, buffer, len as u32, *at as u64),
        (DriveOp::Write { at, durable, .. }, Some((buffer, len))) => {
            ring.write(token, buffer, len as u32, *at as u64, *durable);
        }
        (DriveOp::Flush, _) => ring.flush(token),
        (op, _) => panic!("the plan discards nothing: {op:?}"),
    }
    let mut events = Vec::new();
    for _ in 0..MOST_WAITS {
        ring.submit_and_wait(Duration::from_millis(50));
        ring.take_events(&mut events);
        if let Some(event) = events.pop() {
            assert!(matches!(event, Event::Drive { token: of, result: Ok(()) } if of == token), "{event:?}");
            let Some((buffer, len)) = buffer else { return Vec::new() };
            let is_read = matches!(op, DriveOp::Read { .. });
            let read = if is_read { ring.slab().bytes(buffer)[..len].to_vec() } else { Vec::new() };
            ring.slab_mut().release(buffer);
            return read;
        }
    }
    panic!("{op:?} does not end");
}

#[test]
fn the_same_operations_leave_the_same_bytes_on_a_real_drive() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for seed in [5, 6] {
        let Record { before, operations, after } =
            record(&Plan { duration_ns: 60_000_000, ..Plan::small(seed) });
        let count = |is: fn(&DriveOp) -> bool| operations.iter().filter(|(op, _)| is(op)).count();
        let (reads, writes) =
            (count(|op| matches!(op, DriveOp::Read { .. })), count(|op| matches!(op, DriveOp::Write { .. })));
        assert!(reads > 50 && writes > 100, "{reads} reads and {writes} writes");
        let path = directory.path().join(format!("{seed}.lode"));
        let file = real_drive(&path, &before);
        let mut ring =
            Ring::new(RingConfig { slab_bytes: 4 << 20, ..RingConfig::default() }).expect("a ring");
        ring.attach_drive(file.into());
        for (token, (op, read)) in operations.iter().enumerate() {
            assert!(
                perform(&mut ring, token as u64, op) == *read,
                "seed {seed}: operation {token} reads otherwise"
            );
        }
        drop(ring);
        let mut left = vec![0; after.len()];
        File::open(&path).and_then(|file| file.read_exact_at(&mut left, 0)).expect("the file can be read");
        assert!(left == after, "seed {seed}: the drives differ");
    }
}
