//! Frames whose records change what it takes to apply those behind them.

use crate::support::Sim;
use crate::support::ask::{target, use_index};
use lode_engine::{BatchWrite, Geometry, IndexKind, ReplyBody, Request, RequestBody, StoreKind};

fn fresh(seed: u64) -> Sim {
    use_index(IndexKind::Compact);
    let geometry = Geometry::plan(96 << 20, 1, Some(256 << 10), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| config.cache_bytes = 0);
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    sim
}

/// Keys of one group agree for 13 bytes.
fn key(group: u8, suffix: u8) -> Vec<u8> {
    [&[0, 0, group][..], &[7; 10], &[suffix]].concat()
}

/// Two leaves that were split between keys which agree as far as both are known are merged by the frame that adds a third.
#[test]
fn a_frame_merges_leaves_between_tied_keys_and_adds_one_of_them() {
    let mut sim = fresh(1);
    let put = |sim: &mut Sim, group: u8, suffix: u8| {
        sim.put(1, &key(group, suffix), b"v").expect("there is room");
        sim.settle();
    };
    (0..=63).filter(|group| *group != 10).for_each(|group| put(&mut sim, group, 0));
    put(&mut sim, 63, 1);
    (64..=127).for_each(|group| put(&mut sim, group, 0));
    // The left one of two becomes compact.
    put(&mut sim, 10, 0);
    sim.delete(1, &key(70, 0)).expect("there is room");
    (128..=191).for_each(|group| put(&mut sim, group, 0));
    put(&mut sim, 70, 0);
    let (gone, added) = (key(80, 0), key(63, 2));
    let writes = vec![BatchWrite::Delete { key: &gone }, BatchWrite::Put { key: &added, value: b"v" }];
    sim.batch(1, writes).expect("there is room");
    assert_eq!(sim.get(1, &added), Ok(Some(b"v".to_vec())));
}

/// A leaf of nothing but tied keys is as full as it may be, and the next frame adds a key that is not tied with them.
#[test]
fn a_key_comes_into_an_overfull_leaf_that_it_is_not_tied_with() {
    for seed in 1..20 {
        let mut sim = fresh(seed);
        let random = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(2);
        for i in 1..400u64 {
            sim.put(1, &random(i), b"v").expect("there is room");
        }
        sim.settle();
        let tied: Vec<Vec<u8>> =
            (0..513u32).map(|i| [&b"mmmmmmmmmm"[..], &i.to_be_bytes()].concat()).collect();
        let writes = tied.iter().map(|key| BatchWrite::Put { key, value: b"v" }).collect();
        let (first, second) = (sim.next_id(), sim.next_id());
        sim.step(&mut vec![Request { id: first, body: RequestBody::Batch { target: target(1), writes } }]);
        let body = RequestBody::Put {
            target: target(1),
            key: b"mmz",
            value: b"v",
            condition: lode_engine::Condition::Always,
            ttl: lode_engine::Ttl::Table,
        };
        sim.step(&mut vec![Request { id: second, body }]);
        sim.reply_to(second);
        assert_eq!(sim.get(1, b"mmz"), Ok(Some(b"v".to_vec())));
        sim.settle();
        assert_eq!(sim.count(1), Ok(399 + 514));
    }
}

/// Leaves of one that was dropped while it was filled waited for ever to become compact, and others had no room to wait.
#[test]
fn leaves_become_compact_though_tables_were_dropped_whose_leaves_waited_for_that() {
    let mut sim = fresh(1);
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        [state.to_be_bytes(), state.rotate_left(29).to_be_bytes(), state.swap_bytes().to_be_bytes()].concat()
    };
    for table in 2..10 {
        sim.create(table, StoreKind::Durable, &[table]).expect("there is room");
        for _ in 0..8 {
            let keys: Vec<Vec<u8>> = (0..4000).map(|_| random()).collect();
            let writes = keys.iter().map(|key| BatchWrite::Put { key, value: b"v" }).collect();
            sim.batch(table, writes).expect("there is room");
        }
        sim.drop_table(table).expect("there is room");
        sim.settle();
    }
    for _ in 0..10 {
        let keys: Vec<Vec<u8>> = (0..4000).map(|_| random()).collect();
        let writes = keys.iter().map(|key| BatchWrite::Put { key, value: b"v" }).collect();
        sim.batch(1, writes).expect("there is room");
        sim.settle();
    }
    let stats = sim.shard.stats();
    assert_eq!(stats.records, 40_000);
    let bytes_per_key = stats.index_bytes / stats.records;
    // Leaves that hold whole keys take more than 40; what the arena keeps at hand of dropped tables is a part of it.
    assert!(bytes_per_key < 30, "{bytes_per_key} bytes a key");
}

/// What was read to tell which record a write takes the place of is not needed when that record is gone.
#[test]
fn overwrites_leave_nothing_behind_of_what_was_read_for_them() {
    let mut sim = fresh(2);
    let key = |i: u64| {
        let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [&mixed.to_be_bytes()[..], &[7; 500]].concat()
    };
    for round in 0..3 {
        for first in (0..6_000).step_by(100) {
            let keys: Vec<Vec<u8>> = (first..first + 100).map(key).collect();
            let writes = keys.iter().map(|key| BatchWrite::Put { key, value: b"v" }).collect();
            sim.batch(1, writes).expect("there is room");
            let bytes = sim.shard.fact_bytes();
            assert!(bytes < 200 * 600, "{bytes} bytes are remembered in round {round}");
        }
    }
    assert!(sim.shard.stats().key_reads > 6_000, "{} keys were read", sim.shard.stats().key_reads);
    assert_eq!(sim.count(1), Ok(6_000));
}

/// Short keys that are tied with long ones: to apply their frame takes more keys at once than are remembered otherwise.
#[test]
fn a_frame_that_needs_very_many_long_keys_at_once_is_applied() {
    use_index(IndexKind::Compact);
    let geometry = Geometry::plan(192 << 20, 1, Some(1 << 20), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(3, geometry, |config| config.cache_bytes = 0);
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    let begin = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    // Leaves are compact when they are full.
    for first in (10_000..30_000).step_by(1_000) {
        let keys: Vec<[u8; 8]> = (first..first + 1_000).map(begin).collect();
        let writes = keys.iter().map(|key| BatchWrite::Put { key, value: b"" }).collect();
        sim.batch(1, writes).expect("there is room");
    }
    let count = 6_400;
    for first in (0..count).step_by(200) {
        let keys: Vec<Vec<u8>> =
            (first..first + 200).map(|i| [&begin(i)[..], &[7; 4_000]].concat()).collect();
        let writes = keys.iter().map(|key| BatchWrite::Put { key, value: b"" }).collect();
        sim.batch(1, writes).expect("there is room");
    }
    sim.settle();
    let keys: Vec<[u8; 8]> = (0..count).map(begin).collect();
    let ids = [sim.next_id(), sim.next_id()];
    let requests = ids.iter().zip([&keys[..4_000], &keys[4_000..]]).map(|(id, keys)| {
        let writes = keys.iter().map(|key| BatchWrite::Put { key, value: b"" }).collect();
        Request { id: *id, body: RequestBody::Batch { target: target(1), writes } }
    });
    let before = sim.shard.stats().key_reads;
    sim.step(&mut requests.collect());
    for id in ids {
        let reply = sim.reply_to(id);
        assert!(matches!(reply, ReplyBody::Write(Ok(_))), "{reply:?}");
    }
    let key_reads = sim.shard.stats().key_reads - before;
    assert!((count..2 * count).contains(&key_reads), "{key_reads} keys were read for {count} short ones");
    assert_eq!(sim.count(1), Ok(20_000 + 2 * count));
}
