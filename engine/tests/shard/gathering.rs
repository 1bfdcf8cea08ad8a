//! Scans read what lies together at once, and what they have to gather from many places is written again together.

use crate::support::Sim;
use crate::support::ask::{target, use_index};
use crate::support::random::Random;
use lode_engine::{Geometry, IndexKind, KeyRange, ReplyBody, RequestBody, ScanPage, StoreKind};

const KEYS: u32 = 2000;
const PAGE: u32 = 100;
/// Reads of all pages when each is in one place, or in two where a segment ends.
const TOGETHER: u64 = (KEYS / PAGE) as u64 * 3;
const VALUE_BYTES: usize = 1000;

/// Keys in random order, so that those of a page lie far from each other.
fn shuffled(kind: IndexKind, drive_bytes: u64) -> Sim {
    use_index(kind);
    let geometry = Geometry::plan(drive_bytes, 1, Some(1 << 20), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(1, geometry, |config| config.cache_bytes = 0);
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    let mut random = Random::new(7);
    let mut keys: Vec<u32> = (0..KEYS).collect();
    for i in (1..keys.len()).rev() {
        keys.swap(i, random.below(i as u64 + 1) as usize);
    }
    for key in keys {
        sim.put(1, &key.to_be_bytes(), &value(key, 0)).expect("there is room");
    }
    sim
}

fn value(key: u32, round: u32) -> Vec<u8> {
    let mut value = vec![round as u8; VALUE_BYTES];
    value[..4].copy_from_slice(&key.to_be_bytes());
    value
}

/// Reads all pages, and says how many device reads that took.
fn walk(sim: &mut Sim, reverse: bool, expected: &mut dyn FnMut(u32) -> Vec<u8>) -> u64 {
    let before = sim.shard.stats().device_reads;
    for page in 0..KEYS / PAGE {
        let (start, end) = ((page * PAGE).to_be_bytes(), ((page + 1) * PAGE).to_be_bytes());
        let range = KeyRange { start: &start, end: Some(&end) };
        let page_of = RequestBody::Scan {
            target: target(1),
            range,
            reverse,
            limit: PAGE,
            byte_budget: 1 << 20,
            keys_only: false,
        };
        let ReplyBody::Scan(Ok(ScanPage { records, .. })) = sim.ask(page_of) else { panic!("a page") };
        assert_eq!(records.len(), PAGE as usize);
        for (at, record) in records.iter().enumerate() {
            let key = if reverse { (page + 1) * PAGE - 1 - at as u32 } else { page * PAGE + at as u32 };
            assert_eq!((&*record.key, &*record.value), (&key.to_be_bytes()[..], &*expected(key)));
        }
        sim.settle();
    }
    sim.shard.stats().device_reads - before
}

#[test]
fn what_is_scanned_again_and_again_comes_to_lie_together() {
    for kind in [IndexKind::Full, IndexKind::Compact] {
        for reverse in [false, true] {
            let mut sim = shuffled(kind, 64 << 20);
            let mut as_put = |key| value(key, 0);
            let first = walk(&mut sim, reverse, &mut as_put);
            assert!(first > u64::from(KEYS) / 3, "{first} reads");
            assert_eq!(sim.shard.stats().gathered_bytes, 0, "one walk moves nothing");
            let walks = (0..20).take_while(|_| walk(&mut sim, reverse, &mut as_put) > TOGETHER).count();
            assert!((2..=8).contains(&walks), "{walks} walks for pages that take {first} reads");
            let gathered = sim.shard.stats().gathered_bytes;
            walk(&mut sim, reverse, &mut as_put);
            assert_eq!(sim.shard.stats().gathered_bytes, gathered, "what lies together stays where it is");
            // What was not in a page's own order yet was written once.
            assert!(gathered <= u64::from(KEYS) * 1100 * 3 / 2, "{gathered} bytes");
        }
    }
}

#[test]
fn what_was_gathered_survives_and_what_is_written_meanwhile_wins() {
    for kind in [IndexKind::Full, IndexKind::Compact] {
        let mut sim = shuffled(kind, 64 << 20);
        let mut newest = vec![0; KEYS as usize];
        let mut random = Random::new(3);
        for round in 1..8u32 {
            // Scans and writes of the same keys in the same steps, and a crash before all has settled.
            for page in 0..KEYS / PAGE {
                let (start, end) = ((page * PAGE).to_be_bytes(), ((page + 1) * PAGE).to_be_bytes());
                let id = sim.next_id();
                let scan = RequestBody::Scan {
                    target: target(1),
                    range: KeyRange { start: &start, end: Some(&end) },
                    reverse: false,
                    limit: PAGE,
                    byte_budget: 1 << 20,
                    keys_only: false,
                };
                sim.step(&mut vec![lode_engine::Request { id, body: scan }]);
                for _ in 0..3 {
                    let key = page * PAGE + random.below(u64::from(PAGE)) as u32;
                    sim.put(1, &key.to_be_bytes(), &value(key, round)).expect("there is room");
                    newest[key as usize] = round;
                }
            }
            sim.crash();
            sim.run_until_serving();
            for key in 0..KEYS {
                let found = sim.get(1, &key.to_be_bytes());
                assert_eq!(found, Ok(Some(value(key, newest[key as usize]))), "key {key} in round {round}");
            }
        }
        // A start has forgotten what scans have cost.
        let mut as_put = |key: u32| value(key, newest[key as usize]);
        assert!((0..20).any(|_| walk(&mut sim, false, &mut as_put) <= TOGETHER));
        assert!(sim.shard.stats().gathered_bytes > 0);
        sim.checkpoint().expect("there is room");
        sim.crash();
        sim.run_until_serving();
        let reads = walk(&mut sim, false, &mut as_put);
        assert!(reads <= TOGETHER, "the new places are known: {reads}");
    }
}

#[test]
fn a_full_drive_has_no_room_for_it_and_goes_on() {
    let mut sim = shuffled(IndexKind::Full, 64 << 20);
    let mut more = KEYS;
    while sim.put(1, &more.to_be_bytes(), &value(more, 0)).is_ok() {
        more += 1;
    }
    for _ in 0..5 {
        walk(&mut sim, false, &mut |key| value(key, 0));
    }
    sim.put(1, &0u32.to_be_bytes(), &value(0, 1)).expect("what takes the place of another");
    assert_eq!(sim.get(1, &0u32.to_be_bytes()), Ok(Some(value(0, 1))));
}
