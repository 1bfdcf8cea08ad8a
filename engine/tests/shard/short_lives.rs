//! Processes that end soon after their start, one after the other: what each of them took of the drive comes back.

use crate::support::Sim;
use crate::support::ask::{target, use_index};
use lode_engine::{
    BatchWrite, Condition, Geometry, IndexKind, Phase, Request, RequestBody, StoreKind, Ttl, WriteError,
};

const SEGMENT: u32 = 64 << 10;
const LIVES: u32 = 100;
/// What may wait for a segment to come free, and for that alone.
const PATIENCE: u32 = 20;

fn sim(seed: u64, segments: u32) -> Sim {
    let drive_bytes = (256 << 10) + u64::from(segments * SEGMENT);
    let geometry =
        Geometry::plan(drive_bytes, 1, Some(SEGMENT), 12 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |_| {});
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    sim.put(1, b"before", &[1; 1000]).expect("there is room");
    sim.settle();
    sim
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> RequestBody<'a> {
    let (condition, ttl) = (Condition::Always, Ttl::Table);
    RequestBody::Put { target: target(1), key, value, condition, ttl }
}

/// A start, a write, and the end so many steps behind it. Whether the write was acknowledged.
fn live_shortly(sim: &mut Sim, life: u32, steps: u64, is_power_cut: bool) {
    if is_power_cut {
        sim.crash();
    } else {
        sim.kill();
    }
    assert_eq!(sim.run_recovery(), Phase::Serving, "life {life}");
    let id = sim.next_id();
    let key = (life % 3).to_be_bytes();
    sim.step(&mut vec![Request { id, body: put(&key, &[7; 500]) }]);
    (0..steps).for_each(|_| sim.step(&mut Vec::new()));
}

/// Long after: the drive takes writes as one that nothing has happened to.
fn assert_serves(sim: &mut Sim, case: &str) {
    sim.kill();
    assert_eq!(sim.run_recovery(), Phase::Serving, "{case}");
    sim.settle();
    for round in 0..2_000u32 {
        let mut written = sim.put(1, &(round % 5).to_be_bytes(), &[round as u8; 500]);
        for _ in 0..PATIENCE {
            if !matches!(written, Err(WriteError::Busy)) {
                break;
            }
            sim.settle();
            written = sim.put(1, &(round % 5).to_be_bytes(), &[round as u8; 500]);
        }
        written.unwrap_or_else(|error| panic!("{case}: write {round}: {error}; {:?}", sim.shard.census()));
    }
    assert_eq!(sim.get(1, b"before"), Ok(Some(vec![1; 1000])), "{case}");
    sim.checkpoint().unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(sim.shard.audit(), Vec::<String>::new(), "{case}");
}

/// Records that the journal covers lie in a segment behind whose last frame a start finds nothing, too.
#[test]
fn a_segment_with_records_is_not_taken_for_one_that_nothing_was_written_to() {
    for seed in 0..20 {
        let mut sim = sim(seed, 32);
        for round in 0..4u32 {
            for key in 0..5u32 {
                sim.put(1, &(round * 5 + key).to_be_bytes(), &[round as u8; 300]).expect("there is room");
            }
            match (seed + u64::from(round)) % 4 {
                0 => sim.checkpoint().expect("there is room"),
                // Nobody waits for the journal otherwise.
                1 => (0..400).for_each(|i: u32| {
                    sim.put(1, &(100 + i % 2).to_be_bytes(), &[9; 4000]).expect("there is room");
                }),
                _ => {}
            }
            sim.settle();
            sim.kill();
            assert_eq!(sim.run_recovery(), Phase::Serving);
            sim.settle();
            for key in 0..round * 5 + 5 {
                let value = vec![(key / 5) as u8; 300];
                assert_eq!(sim.get(1, &key.to_be_bytes()), Ok(Some(value)), "seed {seed}, key {key}");
            }
            assert_eq!(sim.shard.audit(), Vec::<String>::new(), "seed {seed}");
        }
    }
}

/// Found by the simulator: each left a segment open that nothing was written to.
#[test]
fn segments_that_short_lives_opened_come_free() {
    for kind in [IndexKind::Full, IndexKind::Compact] {
        use_index(kind);
        for most_steps in [1, 3, 6, 12, 25, 50] {
            for seed in 0..4 {
                let mut sim = sim(seed, 32);
                for life in 0..LIVES {
                    let steps = sim.random.below(most_steps) + 1;
                    live_shortly(&mut sim, life, steps, seed % 2 == 0);
                }
                assert_serves(&mut sim, &format!("{kind:?}, up to {most_steps} steps, seed {seed}"));
            }
        }
    }
}

/// Each ends as soon as its journal has a frame, in a segment of its own: none comes to the end of an image, which takes
/// several.
#[test]
fn the_journal_leaves_room_for_the_image_that_makes_it_short() {
    for (seed, segments) in (0..16).zip([32, 48].into_iter().cycle()) {
        let mut sim = sim(seed, segments);
        let keys: Vec<_> = (0..3_000u32).map(|key| format!("{key:-^48}")).collect();
        for keys in keys.chunks(100) {
            let writes = keys.iter().map(|key| BatchWrite::Put { key: key.as_bytes(), value: b"" });
            sim.batch(1, writes.collect()).expect("there is room");
        }
        sim.checkpoint().expect("there is room");
        let more_steps = seed / 2 % 4 * 2;
        for life in 0..LIVES {
            live_shortly(&mut sim, life, 0, seed % 2 == 0);
            for i in 0..100u32 {
                if sim.shard.stats().journal_bytes > 0 {
                    break;
                }
                let (id, key) = (sim.next_id(), (i % 3).to_be_bytes());
                sim.step(&mut vec![Request { id, body: put(&key, &[7; 4000]) }]);
            }
            (0..more_steps).for_each(|_| sim.step(&mut Vec::new()));
        }
        assert_serves(&mut sim, &format!("{segments} segments, seed {seed}"));
    }
}
