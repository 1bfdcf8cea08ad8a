//! Records that expire: invisible at once, taken out bit by bit, gone after every kind of restart.

use crate::support::Sim;
use crate::support::ask::{index_kind, partition_spec, table_spec, target, use_index};
use lode_engine::limits::MAX_TTL_MS;
use lode_engine::{
    BatchWrite, CatalogError, Change, Condition, Geometry, IndexKind, KeyRange, ReplyBody, Request,
    RequestBody, StoreKind, TimeLeft, Ttl, WriteError,
};

const NS_PER_MS: u64 = 1_000_000;

fn sim(seed: u64) -> Sim {
    let geometry = Geometry::plan(6 << 20, 1, Some(128 << 10), 20_000).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| config.cache_bytes = 1 << 20);
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    sim.create(2, StoreKind::Memory, &[2]).expect("the drive is empty");
    sim
}

fn pass(sim: &mut Sim, ms: u64) {
    sim.wall_ns += ms * NS_PER_MS;
    sim.poke();
}

/// Keys of a whole partition, by one scan.
fn keys(sim: &mut Sim, partition: u32, reverse: bool, keys_only: bool) -> Vec<Vec<u8>> {
    let (target, range) = (target(partition), KeyRange::default());
    let body = RequestBody::Scan { target, range, reverse, limit: 4096, byte_budget: 1 << 20, keys_only };
    match sim.ask(body) {
        ReplyBody::Scan(Ok(page)) => page.records.iter().map(|record| record.key.to_vec()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_expired_record_is_gone_for_every_operation() {
    for partition in [1, 2] {
        let mut sim = sim(1);
        for key in [&b"a"[..], b"m", b"z"] {
            sim.put_ttl(partition, key, b"short", 1_000).unwrap();
        }
        sim.put(partition, b"b", b"stays").unwrap();
        sim.put_ttl(partition, b"c", b"long", 60_000).unwrap();
        assert_eq!(sim.get(partition, b"a"), Ok(Some(b"short".to_vec())));
        assert_eq!(sim.count(partition), Ok(5));
        // One step short of it, as exactly as a step allows.
        pass(&mut sim, 990);
        assert_eq!(sim.count(partition), Ok(5));
        pass(&mut sim, 10);
        assert_eq!(sim.get(partition, b"a"), Ok(None));
        assert_eq!(sim.count(partition), Ok(2));
        for keys_only in [false, true] {
            assert_eq!(keys(&mut sim, partition, false, keys_only), [b"b", b"c"]);
            assert_eq!(keys(&mut sim, partition, true, keys_only), [b"c", b"b"]);
        }
        assert_eq!(sim.time_left(partition, b"a"), Ok(None));
        assert_eq!(sim.time_left(partition, b"b"), Ok(Some(TimeLeft::Forever)));
        assert!(matches!(sim.time_left(partition, b"c"), Ok(Some(TimeLeft::Ms(1..=59_000)))));
        assert!(!sim.delete(partition, b"a").unwrap().existed);
        assert!(!sim.put_if(partition, b"m", b"new", Condition::IfAbsent).unwrap().existed);
        assert!(!sim.put(partition, b"z", b"new").unwrap().existed);
        sim.settle();
        let stats = sim.shard.stats();
        assert_eq!((stats.expired, stats.expiring_records), (3, 1));
        assert_eq!(stats.records + stats.memory_records, 4);
    }
}

/// Each record of a batch, or of a commit, lives as long as was said of it; one of which nothing was said, as its table says.
#[test]
fn records_of_batches_and_commits_live_as_long_as_is_said_of_each() {
    for partition in [1, 2] {
        for commits in [false, true] {
            let mut sim = sim(21);
            sim.put_ttl(partition, b"c", b"old", 1_000).unwrap();
            let put = |key, ttl| BatchWrite::PutFor { key, value: b"v", ttl };
            let writes = vec![
                put(b"a", Ttl::After { ttl_ms: 500 }),
                put(b"b", Ttl::Never),
                BatchWrite::Put { key: b"c", value: b"v" },
                put(b"d", Ttl::Table),
                put(b"e", Ttl::After { ttl_ms: MAX_TTL_MS }),
                put(b"f", Ttl::After { ttl_ms: 1 }),
                BatchWrite::Delete { key: b"g" },
            ];
            if commits {
                let transaction = sim.begin(partition, false).unwrap();
                sim.commit(partition, transaction, writes).unwrap();
            } else {
                sim.batch(partition, writes).unwrap();
            }
            if partition == 1 {
                sim.settle();
                sim.reopen();
            }
            let left = |sim: &mut Sim, key: &[u8]| sim.time_left(partition, key).unwrap();
            for key in [b"b", b"c", b"d"] {
                assert_eq!(left(&mut sim, key), Some(TimeLeft::Forever), "{key:?}");
            }
            assert!(matches!(left(&mut sim, b"a"), Some(TimeLeft::Ms(1..=500))));
            assert!(matches!(left(&mut sim, b"e"), Some(TimeLeft::Ms(ms)) if ms > MAX_TTL_MS - 5_000));
            pass(&mut sim, 600);
            assert_eq!(sim.count(partition), Ok(4));
            assert_eq!((left(&mut sim, b"a"), left(&mut sim, b"f")), (None, None));
            for ttl_ms in [0, MAX_TTL_MS + 1] {
                let writes =
                    vec![BatchWrite::Put { key: b"x", value: b"v" }, put(b"y", Ttl::After { ttl_ms })];
                assert_eq!(sim.batch(partition, writes), Err(WriteError::BadTtl { ttl_ms }));
                assert_eq!(sim.get(partition, b"x"), Ok(None), "all or none");
            }
        }
    }
}

#[test]
fn a_condition_on_an_expired_record_finds_none() {
    let mut sim = sim(2);
    for partition in [1, 2] {
        let seq = sim.put_ttl(partition, b"k", b"v", 50).unwrap().seq;
        pass(&mut sim, 60);
        let refused = sim.put_if(partition, b"k", b"w", Condition::IfSeq(seq));
        assert_eq!(refused, Err(WriteError::ConditionFailed { current: None }));
        sim.put_ttl(partition, b"n", b"5", 50).unwrap();
        assert_eq!(sim.increment(partition, b"n", 1), Ok(Some(6)), "goes on to expire when it did");
        pass(&mut sim, 60);
        assert_eq!(sim.increment(partition, b"n", 1), Ok(Some(1)), "begins anew");
        assert_eq!(sim.time_left(partition, b"n"), Ok(Some(TimeLeft::Forever)));
    }
}

#[test]
fn a_plain_put_ends_the_expiry_and_expire_and_persist_change_it() {
    for partition in [1, 2] {
        let mut sim = sim(3);
        sim.put_ttl(partition, b"k", b"v", 50).unwrap();
        sim.put(partition, b"k", b"w").unwrap();
        pass(&mut sim, 60);
        assert_eq!(sim.get(partition, b"k"), Ok(Some(b"w".to_vec())));
        let touched = sim.expire(partition, b"k", Ttl::After { ttl_ms: 5_000 }).unwrap();
        assert!(touched.existed);
        assert!(matches!(sim.time_left(partition, b"k"), Ok(Some(TimeLeft::Ms(4_900..=5_000)))));
        assert_eq!(sim.get(partition, b"k"), Ok(Some(b"w".to_vec())), "the value is kept");
        sim.expire(partition, b"k", Ttl::Never).unwrap();
        assert_eq!(sim.time_left(partition, b"k"), Ok(Some(TimeLeft::Forever)));
        assert_eq!(sim.shard.stats().expiring_records, 0);
        assert!(!sim.expire(partition, b"none", Ttl::After { ttl_ms: 5 }).unwrap().existed);
        assert_eq!(sim.get(partition, b"none"), Ok(None));
        // On a number that is on its way.
        let change = Change::Increment { by: 3, initial: 0 };
        let (add, touch) = (sim.next_id(), sim.next_id());
        let body = RequestBody::Modify { target: target(partition), key: b"n", change };
        let change = Change::Expire { ttl: Ttl::After { ttl_ms: 70 } };
        let then = RequestBody::Modify { target: target(partition), key: b"n", change };
        let requests = [(add, body.clone()), (touch, then), (sim.next_id(), body)];
        sim.step(&mut requests.into_iter().map(|(id, body)| lode_engine::Request { id, body }).collect());
        sim.settle();
        assert_eq!(sim.get(partition, b"n"), Ok(Some(b"6".to_vec())));
        assert!(matches!(sim.time_left(partition, b"n"), Ok(Some(TimeLeft::Ms(1..=70)))));
    }
}

#[test]
fn a_table_has_a_default_and_a_record_its_own() {
    let mut sim = sim(4);
    for (table, store) in [(3, StoreKind::Durable), (4, StoreKind::Memory)] {
        let mut spec = table_spec(table, store);
        spec.ttl_ms = Some(100);
        let partition = table * 10;
        let partitions = vec![partition_spec(table, partition)];
        sim.catalog(RequestBody::CreateTable { table: spec, partitions }).unwrap();
        sim.put(partition, b"default", b"v").unwrap();
        sim.batch(partition, vec![BatchWrite::Put { key: b"batch", value: b"v" }]).unwrap();
        sim.increment(partition, b"counter", 1).unwrap();
        sim.put_ttl(partition, b"longer", b"v", 1_000).unwrap();
        sim.expire(partition, b"counter", Ttl::Table).unwrap();
        let (target, condition) = (target(partition), Condition::Always);
        let put = RequestBody::Put { target, key: b"never", value: b"v", condition, ttl: Ttl::Never };
        sim.write(put).unwrap();
        pass(&mut sim, 120);
        assert_eq!(keys(&mut sim, partition, false, true), [&b"longer"[..], b"never"]);
    }
    sim.reopen();
    sim.put(30, b"after", b"v").unwrap();
    assert!(matches!(sim.time_left(30, b"after"), Ok(Some(TimeLeft::Ms(_)))), "the default survives");
}

#[test]
fn times_that_no_record_can_have_are_refused() {
    let mut sim = sim(5);
    for partition in [1, 2] {
        sim.put(partition, b"k", b"v").unwrap();
        for ttl_ms in [0, MAX_TTL_MS + 1, u64::MAX] {
            let refused = Err(WriteError::BadTtl { ttl_ms });
            assert_eq!(sim.put_ttl(partition, b"k", b"w", ttl_ms), refused);
            assert_eq!(sim.expire(partition, b"k", Ttl::After { ttl_ms }), refused);
            let mut table = table_spec(7, StoreKind::Durable);
            table.ttl_ms = Some(ttl_ms);
            let create = RequestBody::CreateTable { table, partitions: vec![partition_spec(7, 70)] };
            assert_eq!(sim.catalog(create), Err(CatalogError::BadTtl { ttl_ms }));
        }
        assert_eq!(sim.get(partition, b"k"), Ok(Some(b"v".to_vec())));
        sim.put_ttl(partition, b"k", b"w", MAX_TTL_MS).unwrap();
        assert!(matches!(sim.time_left(partition, b"k"), Ok(Some(TimeLeft::Ms(_)))));
    }
}

#[test]
fn expiries_survive_in_the_log_and_in_the_image_and_nothing_old_comes_back() {
    for with_image in [false, true] {
        let mut sim = sim(6);
        sim.put(1, b"k", b"old").unwrap();
        sim.put_ttl(1, b"k", b"new", 1_000).unwrap();
        sim.put_ttl(1, b"other", b"v", 60_000).unwrap();
        if with_image {
            sim.checkpoint().unwrap();
        }
        sim.reopen();
        assert_eq!(sim.get(1, b"k"), Ok(Some(b"new".to_vec())));
        assert_eq!(sim.shard.stats().expiring_records, 2);
        pass(&mut sim, 2_000);
        assert_eq!(sim.get(1, b"k"), Ok(None));
        sim.put(1, b"later", b"v").unwrap();
        if with_image {
            sim.checkpoint().unwrap();
        }
        for _ in 0..3 {
            sim.crash();
            sim.run_until_serving();
            assert_eq!(sim.get(1, b"k"), Ok(None), "neither the new nor the old");
            assert!(matches!(sim.time_left(1, b"other"), Ok(Some(TimeLeft::Ms(_)))));
            assert_eq!(sim.count(1), Ok(2));
        }
    }
}

#[test]
fn many_that_expire_at_once_are_invisible_at_once_and_taken_out_bit_by_bit() {
    for partition in [1, 2] {
        let mut sim = sim(7);
        for i in 0..3_000u32 {
            sim.put_ttl(partition, &i.to_be_bytes(), b"v", 1_000_000).unwrap();
        }
        sim.put(partition, b"\xffstays", b"v").unwrap();
        let before = sim.shard.stats();
        assert_eq!(before.expiring_records, 3_000);
        assert!(before.expiry_bytes >= 3_000 * 60, "{}", before.expiry_bytes);
        pass(&mut sim, 1_000_001);
        assert_eq!(sim.count(partition), Ok(1), "while most are still there");
        let after = sim.shard.stats();
        assert!(after.expired < 3_000, "{} in a step or two", after.expired);
        // Whose key is not known has to be read first.
        assert!(after.expired >= 1 || index_kind() == IndexKind::Compact);
        assert_eq!(keys(&mut sim, partition, false, true), [b"\xffstays"]);
        sim.settle();
        let stats = sim.shard.stats();
        assert_eq!((stats.expired, stats.expiring_records, stats.expiry_bytes), (3_000, 0, 0));
        assert_eq!(stats.records + stats.memory_records, 1);
        assert!(!sim.shard.has_work());
    }
}

#[test]
fn what_is_due_and_not_taken_out_yet_is_absent_for_conditions_and_increments() {
    for (seed, partition) in [(11, 1), (12, 2)] {
        let mut sim = sim(seed);
        for i in 0..3_000u32 {
            sim.put_ttl(partition, &i.to_be_bytes(), b"5", 1_000_000).unwrap();
        }
        let (condition, increment) = (2_998u32.to_be_bytes(), 2_999u32.to_be_bytes());
        // Read, so that they are at hand in the cache.
        for key in [condition, increment] {
            assert_eq!(sim.get(partition, &key), Ok(Some(b"5".to_vec())));
        }
        pass(&mut sim, 1_000_001);
        assert_eq!(sim.increment(partition, &increment, 1), Ok(Some(1)), "begins anew");
        assert!(sim.shard.stats().expired < 2_900, "most are still there");
        assert!(!sim.put_if(partition, &condition, b"w", Condition::IfAbsent).unwrap().existed);
    }
}

#[test]
fn an_idle_shard_wakes_for_what_expires() {
    let mut sim = sim(8);
    sim.put_ttl(1, b"k", b"v", 400).unwrap();
    sim.settle();
    let wake_ns = sim.shard.next_wake_ns().expect("there is something to wait for");
    assert!(wake_ns > sim.now_ns + 300 * NS_PER_MS && wake_ns <= sim.now_ns + 400 * NS_PER_MS);
    sim.now_ns = wake_ns;
    sim.wall_ns += 400 * NS_PER_MS;
    sim.settle();
    assert_eq!((sim.shard.stats().expired, sim.shard.stats().records), (1, 0));
    assert_eq!(sim.shard.next_wake_ns(), None, "and then sleeps");
}

#[test]
fn dropping_a_table_gives_the_memory_of_its_expiries_back() {
    let mut sim = sim(9);
    for i in 0..5_000u32 {
        sim.put_ttl(1, &i.to_be_bytes(), b"v", 3_600_000).unwrap();
    }
    sim.drop_table(1).unwrap();
    sim.settle();
    let stats = sim.shard.stats();
    assert_eq!((stats.expiring_records, stats.expiry_bytes, stats.index_bytes), (0, 0, 0));
    assert_eq!(sim.shard.next_wake_ns(), None);
}

#[test]
fn cleaning_frees_what_expired_and_copies_none_of_it() {
    let mut sim = sim(10);
    let value = vec![7u8; 4_000];
    let mut written = 0u64;
    // Many times the drive, none of it deleted: only what expires makes room.
    for round in 0..40u32 {
        for i in 0..60u32 {
            let key = (round * 100 + i).to_be_bytes();
            sim.put_ttl(1, &key, &value, 500).unwrap_or_else(|error| panic!("{round} {i}: {error}"));
            written += value.len() as u64;
        }
        pass(&mut sim, 600);
    }
    sim.settle();
    let stats = sim.shard.stats();
    assert!(written > 9 << 20, "{written} bytes are more than the drive holds");
    assert_eq!(stats.relocated_bytes, 0, "no expired record was copied");
    assert_eq!((stats.records, stats.live_bytes), (0, 0));
}

/// The shard's time does not go back with the clock, but a new process begins with what the clock shows.
#[test]
fn a_delete_of_what_has_expired_holds_though_the_clock_is_set_back() {
    for seed in 20..40 {
        let mut sim = sim(seed);
        sim.put_ttl(1, b"k", b"short", 1_000).unwrap();
        pass(&mut sim, 2_000);
        let deleted = sim.delete(1, b"k").unwrap();
        assert!(!deleted.existed, "its time was over");
        sim.wall_ns -= 1_900 * NS_PER_MS;
        sim.crash();
        sim.run_until_serving();
        assert_eq!(sim.get(1, b"k"), Ok(None), "seed {seed}");
    }
}

/// Found by the model test: it was told that there is no such record, and its record lived for ever.
#[test]
fn who_keeps_a_record_that_is_due_before_it_is_kept_is_told_that_it_was_there() {
    let mut sim = sim(9);
    sim.put_ttl(1, b"k", b"v", 1_000).unwrap();
    sim.get(1, b"k").expect("what is kept in memory needs no read");
    let id = sim.next_id();
    let body =
        RequestBody::Modify { target: target(1), key: b"k", change: Change::Expire { ttl: Ttl::Never } };
    sim.drive.pace_percent = 0;
    sim.step(&mut vec![Request { id, body }]);
    // The write is on its way when the record it is about is due.
    pass(&mut sim, 2_000);
    sim.drive.pace_percent = 40;
    let ReplyBody::Write(Ok(written)) = sim.reply_to(id) else { panic!("the drive takes writes") };
    assert!(written.existed, "it was there when it was kept");
    assert_eq!(sim.get(1, b"k"), Ok(Some(b"v".to_vec())));
    assert_eq!(sim.time_left(1, b"k"), Ok(Some(TimeLeft::Forever)));
    sim.reopen();
    assert_eq!(sim.get(1, b"k"), Ok(Some(b"v".to_vec())));
}

/// A compact index knows of a record that nobody could read only that it may be the key's. When it can be read again, cleaning
/// finds it in the index, though another one is the key's by then.
#[test]
fn cleaning_takes_out_an_expired_record_that_the_keys_next_one_did_not_know_of() {
    use_index(IndexKind::Compact);
    // Long ones, of which little is known.
    let key = |i: u32| format!("{:0>150}/{:05}{:0>90}", i % 5, i * i, i % 7).into_bytes();
    for seed in 60..66 {
        let mut sim = sim(seed);
        for i in 0..60 {
            sim.put(1, &key(i), b"stays").expect("there is room");
        }
        sim.put_ttl(1, &key(7), b"the record that cannot be read", 1_000).expect("there is room");
        sim.checkpoint().expect("there is room");
        let place = sim.drive.now.windows(30).position(|w| w == b"the record that cannot be read");
        let place = place.expect("it was written");
        sim.drive.flip(place);
        sim.reopen();
        sim.put(1, &key(7), b"the next one").expect("there is room");
        sim.settle();
        sim.drive.flip(place);
        assert_eq!(sim.shard.stats().records, 61, "both are in the index");
        pass(&mut sim, 2_000);
        for i in 0..1_500u32 {
            // Each once, and then in random order: so there is little that cleaning can pass over.
            let one = if i < 200 { u64::from(i) } else { sim.random.below(200) };
            sim.put(1, &key(100 + one as u32), &[1; 12 << 10]).expect("there is room");
        }
        sim.settle();
        assert!(sim.shard.stats().segments_cleaned > 0);
        assert_eq!(sim.get(1, &key(7)), Ok(Some(b"the next one".to_vec())));
        assert_eq!(sim.shard.stats().records, 260, "seed {seed}");
        sim.reopen();
        assert_eq!(sim.get(1, &key(7)), Ok(Some(b"the next one".to_vec())));
    }
}
