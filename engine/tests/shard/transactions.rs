//! Transactions: what they see, what conflicts, their limits, their ends, and what a crash leaves of them.

use crate::support::Sim;
use crate::support::ask::target;
use lode_engine::limits::{
    MAX_OWNER_TRANSACTIONS, MAX_PARTITION_TRANSACTIONS, MAX_READ_SET_BYTES, MAX_TRANSACTION_MS,
    MAX_TRANSACTIONS,
};
use lode_engine::{
    BatchWrite, BeginError, Condition, Geometry, KeyRange, OwnerId, ReadError, ReplyBody, Request,
    RequestBody, ScanWish, StoreKind, TransactionId, TransactionRead, Ttl, WriteError,
};

const NS_PER_MS: u64 = 1_000_000;
const ALL: ScanWish<'static> = ScanWish {
    range: KeyRange { start: b"", end: None },
    reverse: false,
    limit: 4096,
    byte_budget: 1 << 20,
    keys_only: false,
};

fn sim(seed: u64) -> Sim {
    let geometry = Geometry::plan(6 << 20, 1, Some(128 << 10), 20_000).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| config.cache_bytes = 64 << 10);
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    sim.create(2, StoreKind::Memory, &[2]).expect("the drive is empty");
    sim
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Vec<BatchWrite<'a>> {
    vec![BatchWrite::Put { key, value }]
}

fn conflict(key: &[u8]) -> Result<lode_engine::Written, WriteError> {
    Err(WriteError::Conflict { key: key.into() })
}

fn keys(sim: &mut Sim, partition: u32, transaction: TransactionId, reverse: bool) -> Vec<Vec<u8>> {
    let page = sim.scan_in(partition, transaction, ScanWish { reverse, ..ALL }).expect("a page");
    page.records.iter().map(|record| record.key.to_vec()).collect()
}

#[test]
fn what_was_read_and_changed_conflicts_and_what_was_not_does_not() {
    for partition in [1, 2] {
        let mut sim = sim(1);
        sim.put(partition, b"a", b"1").unwrap();
        sim.put(partition, b"b", b"1").unwrap();
        let transaction = sim.begin(partition, false).unwrap();
        assert_eq!(sim.get_in(partition, transaction, b"a"), Ok(Some(b"1".to_vec())));
        sim.put(partition, b"a", b"2").unwrap();
        assert_eq!(sim.get_in(partition, transaction, b"a"), Ok(Some(b"1".to_vec())));
        assert_eq!(sim.commit(partition, transaction, put(b"c", b"x")), conflict(b"a"));
        assert_eq!(sim.get(partition, b"c"), Ok(None));
        assert_eq!(sim.get_in(partition, transaction, b"b"), Err(ReadError::TransactionEnded));
        // Neither what others write elsewhere, nor what both write blindly.
        let transaction = sim.begin(partition, false).unwrap();
        assert_eq!(sim.get_in(partition, transaction, b"none"), Ok(None));
        sim.put(partition, b"a", b"3").unwrap();
        sim.put(partition, b"c", b"3").unwrap();
        assert!(sim.commit(partition, transaction, put(b"c", b"y")).unwrap().existed);
        assert_eq!(sim.get(partition, b"c"), Ok(Some(b"y".to_vec())));
        // Absence, too, is something that was read.
        let transaction = sim.begin(partition, false).unwrap();
        assert_eq!(sim.get_in(partition, transaction, b"none"), Ok(None));
        sim.put(partition, b"none", b"1").unwrap();
        assert_eq!(sim.commit(partition, transaction, put(b"c", b"z")), conflict(b"none"));
    }
}

#[test]
fn phantoms_conflict_where_the_range_was_read_and_nowhere_else() {
    for partition in [1, 2] {
        for by_count in [false, true] {
            let mut sim = sim(2);
            for key in [b"a", b"c", b"e"] {
                sim.put(partition, key, b"1").unwrap();
            }
            let look = |sim: &mut Sim, end: Option<&[u8]>| {
                let transaction = sim.begin(partition, false).unwrap();
                let range = KeyRange { start: b"b", end };
                let seen = match by_count {
                    true => sim.count_in(partition, transaction, range).unwrap(),
                    false => {
                        let page = sim.scan_in(partition, transaction, ScanWish { range, ..ALL }).unwrap();
                        page.records.len() as u64
                    }
                };
                (transaction, seen)
            };
            let (transaction, seen) = look(&mut sim, Some(b"d"));
            assert_eq!(seen, 1);
            sim.put(partition, b"d", b"beyond").unwrap();
            sim.delete(partition, b"a").unwrap();
            assert!(sim.commit(partition, transaction, put(b"x", b"1")).is_ok());
            for change in [&b"bb"[..], b"c"] {
                let (transaction, _) = look(&mut sim, Some(b"d"));
                match change {
                    b"c" => drop(sim.delete(partition, b"c").unwrap()),
                    _ => drop(sim.put(partition, change, b"phantom").unwrap()),
                }
                assert_eq!(sim.commit(partition, transaction, put(b"x", b"2")), conflict(change));
            }
        }
    }
}

#[test]
fn a_page_speaks_for_what_it_shows() {
    for partition in [1, 2] {
        let mut sim = sim(3);
        for key in [b"a", b"b", b"c", b"d"] {
            sim.put(partition, key, b"1").unwrap();
        }
        for (reverse, inside, outside) in [(false, &b"aa"[..], &b"cc"[..]), (true, b"cc", b"aa")] {
            for (change, conflicts) in [(inside, true), (outside, false)] {
                let transaction = sim.begin(partition, false).unwrap();
                let wish = ScanWish { reverse, limit: 2, ..ALL };
                assert!(sim.scan_in(partition, transaction, wish).unwrap().more);
                sim.put(partition, change, b"1").unwrap();
                let committed = sim.commit(partition, transaction, put(b"z", b"1"));
                assert_eq!(committed.is_err(), conflicts, "{reverse} {}", change.escape_ascii());
                sim.delete(partition, change).unwrap();
                sim.delete(partition, b"z").unwrap();
            }
        }
    }
}

#[test]
fn a_snapshot_stays_whole_while_all_is_overwritten_and_cleaned() {
    for partition in [1, 2] {
        let mut sim = sim(4);
        let key = |i: u32| format!("key{i:03}").into_bytes();
        for i in 0..60 {
            sim.put(partition, &key(i), &[i as u8; 2_000]).unwrap();
        }
        let transaction = sim.begin(partition, true).unwrap();
        for round in 0..12u8 {
            for i in 0..60 {
                match i % 10 {
                    9 => drop(sim.delete(partition, &key(i)).unwrap()),
                    _ => drop(sim.put(partition, &key(i), &[round + 100; 2_000]).unwrap()),
                }
                sim.put(partition, &key(i + 100), b"later").unwrap();
            }
        }
        let expected: Vec<_> = (0..60).map(key).collect();
        assert_eq!(keys(&mut sim, partition, transaction, false), expected);
        assert_eq!(
            keys(&mut sim, partition, transaction, true),
            expected.iter().rev().cloned().collect::<Vec<_>>()
        );
        assert_eq!(sim.count_in(partition, transaction, KeyRange::default()), Ok(60));
        for i in 0..60 {
            assert_eq!(sim.get_in(partition, transaction, &key(i)), Ok(Some(vec![i as u8; 2_000])));
        }
        assert_eq!(sim.get_in(partition, transaction, &key(100)), Ok(None));
        assert!(sim.commit(partition, transaction, Vec::new()).is_ok(), "what only reads never conflicts");
        sim.settle();
        let stats = sim.shard.stats();
        assert_eq!((stats.transactions_open, stats.transaction_bytes), (0, 0));
    }
}

#[test]
fn writers_come_first_on_a_drive_that_fills() {
    let mut sim = sim(5);
    let key = |i: u32| format!("key{i:03}").into_bytes();
    for i in 0..100 {
        sim.put(1, &key(i), &[1; 10_000]).unwrap();
    }
    let mut snapshots = Vec::new();
    for round in 0..20u8 {
        snapshots.push(sim.begin(1, true).unwrap());
        for i in 0..100 {
            sim.put(1, &key(i), &[round; 10_000]).expect("no writer is refused for a snapshot's sake");
        }
    }
    assert_eq!(sim.get_in(1, snapshots[0], &key(1)), Err(ReadError::TransactionEnded));
    assert!(sim.shard.stats().transactions_ended > 0);
}

#[test]
fn memory_is_bounded_and_the_oldest_of_the_largest_goes() {
    for partition in [1, 2] {
        let mut sim = sim(6);
        sim.config.max_transaction_bytes = 64 << 10;
        sim.reopen();
        sim.create(3, StoreKind::Memory, &[3]).unwrap();
        let small = sim.begin(3, true).unwrap();
        sim.put(3, b"k", b"v").unwrap();
        let key = |i: u32| format!("key{i:05}").into_bytes();
        for i in 0..100 {
            sim.put(partition, &key(i), b"1").unwrap();
        }
        let old = sim.begin(partition, true).unwrap();
        let new = sim.begin(partition, true).unwrap();
        for i in 0..100 {
            sim.put(partition, &key(i), b"2").unwrap();
        }
        assert_eq!(sim.count_in(partition, old, KeyRange::default()), Ok(100), "below the limit nobody ends");
        for i in 100..1_000 {
            sim.put(partition, &key(i), b"2").unwrap();
        }
        sim.settle();
        assert!(sim.shard.stats().transaction_bytes <= 64 << 10);
        assert_eq!(sim.get_in(partition, old, b"k"), Err(ReadError::TransactionEnded));
        assert_eq!(sim.get_in(partition, new, b"k"), Err(ReadError::TransactionEnded));
        assert_eq!(sim.get_in(3, small, b"k"), Ok(None), "others are left alone");
    }
}

#[test]
fn a_transaction_ends_when_its_time_is_over_and_not_before() {
    let mut sim = sim(7);
    for (lifetime_ms, lives_ms) in
        [(50, 50), (0, 10_000), (MAX_TRANSACTION_MS, u64::from(MAX_TRANSACTION_MS))]
    {
        let transaction = sim.begin_for(1, false, lifetime_ms).unwrap();
        sim.now_ns += (lives_ms - 5) * NS_PER_MS;
        sim.poke();
        assert_eq!(sim.get_in(1, transaction, b"k"), Ok(None));
        assert!(sim.shard.next_wake_ns().is_some(), "the shard wakes to end it");
        sim.now_ns += 6 * NS_PER_MS;
        sim.poke();
        assert_eq!(sim.get_in(1, transaction, b"k"), Err(ReadError::TransactionEnded));
        assert_eq!(sim.commit(1, transaction, put(b"k", b"v")), Err(WriteError::TransactionEnded));
    }
    let refused = sim.begin_for(1, false, MAX_TRANSACTION_MS + 1);
    assert_eq!(refused, Err(BeginError::Lifetime { lifetime_ms: MAX_TRANSACTION_MS + 1 }));
    sim.settle();
    assert_eq!(sim.shard.stats().transactions_open, 0);
}

#[test]
fn a_transaction_is_its_owners_alone_and_ends_with_it() {
    for partition in [1, 2] {
        let mut sim = sim(12);
        let mine = sim.begin_as(7, partition, false, 0).unwrap();
        let other = sim.begin_as(8, partition, false, 0).unwrap();
        assert_ne!(mine.number, other.number);
        let foreign = TransactionId { owner: OwnerId(8), ..mine };
        assert_eq!(sim.get_in(partition, foreign, b"k"), Err(ReadError::TransactionEnded));
        assert_eq!(sim.scan_in(partition, foreign, ALL).map(drop), Err(ReadError::TransactionEnded));
        assert_eq!(sim.count_in(partition, foreign, KeyRange::default()), Err(ReadError::TransactionEnded));
        assert_eq!(sim.commit(partition, foreign, put(b"k", b"v")), Err(WriteError::TransactionEnded));
        sim.rollback(partition, foreign);
        assert_eq!(sim.get_in(partition, mine, b"k"), Ok(None), "nobody else can end it");
        let second = sim.begin_as(7, partition, true, 0).unwrap();
        sim.end_transactions(9);
        assert_eq!(sim.shard.stats().transactions_open, 3);
        sim.end_transactions(7);
        for ended in [mine, second] {
            assert_eq!(sim.get_in(partition, ended, b"k"), Err(ReadError::TransactionEnded));
        }
        assert_eq!(sim.get_in(partition, other, b"k"), Ok(None), "others go on");
        let stats = sim.shard.stats();
        assert_eq!((stats.transactions_open, stats.transactions_rolled_back), (1, 2));
    }
}

#[test]
fn so_many_transactions_are_open_and_no_more() {
    let mut sim = sim(8);
    let partitions: Vec<u32> =
        (10..10 + (MAX_TRANSACTIONS / MAX_PARTITION_TRANSACTIONS) as u32 + 1).collect();
    sim.create(4, StoreKind::Memory, &partitions).unwrap();
    let mut open = Vec::new();
    for _ in 0..MAX_PARTITION_TRANSACTIONS {
        open.push(sim.begin(10, false).unwrap());
    }
    assert_eq!(sim.begin(10, false), Err(BeginError::TooMany));
    sim.rollback(10, open[7]);
    assert!(sim.begin(10, false).is_ok());
    for (owner, partition) in partitions[1..partitions.len() - 1].iter().enumerate() {
        for _ in 0..MAX_PARTITION_TRANSACTIONS {
            sim.begin_as(1 + owner as u64, *partition, true, 0).unwrap();
        }
    }
    assert_eq!(sim.begin(partitions[partitions.len() - 1], true), Err(BeginError::TooMany));
}

#[test]
fn one_connection_has_so_many_open_on_a_shard_and_leaves_the_rest_to_others() {
    let mut sim = sim(8);
    let partitions: Vec<u32> =
        (10..=10 + (MAX_OWNER_TRANSACTIONS / MAX_PARTITION_TRANSACTIONS) as u32).collect();
    sim.create(4, StoreKind::Memory, &partitions).unwrap();
    let mut last = None;
    for i in 0..MAX_OWNER_TRANSACTIONS {
        let partition = partitions[i / MAX_PARTITION_TRANSACTIONS];
        last = Some((partition, sim.begin_as(7, partition, true, 0).unwrap()));
    }
    let free = partitions[partitions.len() - 1];
    assert_eq!(sim.begin_as(7, free, true, 0), Err(BeginError::TooMany));
    assert!(sim.begin_as(6, free, true, 0).is_ok() && sim.begin_as(8, free, true, 0).is_ok());
    let (partition, transaction) = last.unwrap();
    sim.rollback(partition, transaction);
    assert!(sim.begin_as(7, free, true, 0).is_ok());
}

#[test]
fn a_transaction_reads_so_much_and_what_only_reads_reads_all() {
    let mut sim = sim(9);
    let (writes, reads) = (sim.begin(2, false).unwrap(), sim.begin(2, true).unwrap());
    let key = |i: usize| format!("{i:04000}").into_bytes();
    let fit = MAX_READ_SET_BYTES / (4_000 + 48);
    for i in 0..fit {
        assert_eq!(sim.get_in(2, writes, &key(i)), Ok(None));
    }
    assert_eq!(sim.get_in(2, writes, &key(fit)), Err(ReadError::ReadSetFull));
    assert_eq!(sim.get_in(2, writes, &key(0)), Ok(None), "what it knows it may read again");
    for i in 0..fit + 10 {
        assert_eq!(sim.get_in(2, reads, &key(i)), Ok(None));
    }
    assert_eq!(sim.commit(2, reads, put(b"k", b"v")), Err(WriteError::ReadOnly));
    assert!(sim.commit(2, writes, put(b"k", b"v")).is_ok());
}

#[test]
fn a_drop_ends_the_transactions_of_the_table() {
    for (table, partition) in [(1, 1), (2, 2)] {
        let mut sim = sim(10);
        sim.put(partition, b"k", b"v").unwrap();
        let transaction = sim.begin(partition, false).unwrap();
        sim.put(partition, b"k", b"w").unwrap();
        sim.drop_table(table).unwrap();
        assert!(matches!(sim.get_in(partition, transaction, b"k"), Err(ReadError::UnknownPartition(_))));
        sim.settle();
        let stats = sim.shard.stats();
        assert_eq!((stats.transactions_open, stats.transaction_bytes), (0, 0));
    }
}

#[test]
fn records_expire_for_no_snapshot_and_conflict_for_who_saw_them() {
    for partition in [1, 2] {
        let mut sim = sim(11);
        sim.put_ttl(partition, b"k", b"v", 100).unwrap();
        let by_key = sim.begin(partition, false).unwrap();
        let by_range = sim.begin(partition, false).unwrap();
        assert_eq!(sim.get_in(partition, by_key, b"k"), Ok(Some(b"v".to_vec())));
        assert_eq!(sim.count_in(partition, by_range, KeyRange::default()), Ok(1));
        sim.wall_ns += 200 * NS_PER_MS;
        sim.poke();
        assert_eq!(sim.get(partition, b"k"), Ok(None));
        assert_eq!(sim.get_in(partition, by_key, b"k"), Ok(Some(b"v".to_vec())));
        assert_eq!(keys(&mut sim, partition, by_key, false), [b"k"]);
        assert_eq!(sim.count_in(partition, by_range, KeyRange::default()), Ok(1));
        for transaction in [by_key, by_range] {
            assert_eq!(sim.commit(partition, transaction, put(b"x", b"1")), conflict(b"k"));
        }
        let after = sim.begin(partition, false).unwrap();
        assert_eq!(sim.count_in(partition, after, KeyRange::default()), Ok(0));
        assert!(sim.commit(partition, after, put(b"x", b"1")).is_ok());
    }
}

#[test]
fn what_was_not_there_and_is_not_there_was_not_changed() {
    for partition in [1, 2] {
        let mut sim = sim(13);
        sim.put(partition, b"here", b"v").unwrap();
        sim.put_ttl(partition, b"over", b"v", 100).unwrap();
        sim.wall_ns += 200 * NS_PER_MS;
        for by_count in [false, true] {
            let look = |sim: &mut Sim| {
                let transaction = sim.begin(partition, false).unwrap();
                match by_count {
                    true => assert_eq!(sim.count_in(partition, transaction, KeyRange::default()), Ok(1)),
                    false => [&b"none"[..], b"over"].iter().for_each(|key| {
                        assert_eq!(sim.get_in(partition, transaction, key), Ok(None));
                    }),
                }
                transaction
            };
            // The record whose time was over before is taken out; others are deleted that were never there, or
            // that came and went.
            let transaction = look(&mut sim);
            sim.poke();
            sim.delete(partition, b"none").unwrap();
            sim.put(partition, b"none", b"v").unwrap();
            sim.delete(partition, b"none").unwrap();
            assert_eq!(sim.commit(partition, transaction, Vec::new()).map(drop), Ok(()));
            let transaction = look(&mut sim);
            sim.delete(partition, b"none").unwrap();
            sim.put(partition, b"over", b"v").unwrap();
            sim.delete(partition, b"over").unwrap();
            assert!(sim.commit(partition, transaction, put(b"here", b"w")).is_ok());
            // What is written again is changed, though it be the same.
            let transaction = look(&mut sim);
            sim.put(partition, b"over", b"v").unwrap();
            assert_eq!(sim.commit(partition, transaction, put(b"here", b"w")), conflict(b"over"));
            sim.delete(partition, b"over").unwrap();
        }
    }
}

#[test]
fn a_delete_of_nothing_that_is_on_its_way_is_no_conflict_and_a_put_is() {
    for (put_comes_last, writes_come_first, by_count) in (0..8).map(|i| (i & 1 > 0, i & 2 > 0, i & 4 > 0)) {
        let mut sim = sim(14);
        let transaction = TransactionId { owner: OwnerId(0), number: 1 };
        let (target, condition, ttl) = (target(1), Condition::Always, Ttl::Table);
        let mut writes = vec![
            RequestBody::Put { target, key: b"none", value: b"v", condition, ttl },
            RequestBody::Delete { target, key: b"none", condition },
        ];
        if put_comes_last {
            writes.reverse();
        }
        let read = match by_count {
            true => TransactionRead::Count { range: KeyRange::default() },
            false => TransactionRead::Get { key: b"none" },
        };
        let mut looks = vec![
            RequestBody::Begin { target, owner: transaction.owner, read_only: false, lifetime_ms: 0 },
            RequestBody::Within { target, transaction, read },
        ];
        // All in one step: nothing of it is on the drive when the commit comes. What was written before the
        // begin is in a frame that the transaction's history does not know.
        let first = if writes_come_first { &mut writes } else { &mut looks };
        let mut bodies = std::mem::take(first);
        bodies.append(&mut looks);
        bodies.append(&mut writes);
        bodies.push(RequestBody::Commit { target, transaction, writes: put(b"here", b"w") });
        let mut requests: Vec<_> =
            bodies.into_iter().map(|body| Request { id: sim.next_id(), body }).collect();
        let commit = requests[4].id;
        sim.step(&mut requests);
        let ReplyBody::Write(committed) = sim.reply_to(commit) else { panic!("the answer of a commit") };
        match put_comes_last {
            true => assert_eq!(committed, conflict(b"none")),
            false => assert!(committed.is_ok(), "{writes_come_first} {by_count} {committed:?}"),
        }
    }
}

#[test]
fn a_crash_leaves_all_of_a_commit_or_nothing_and_no_transaction() {
    for seed in 1..=60 {
        let mut sim = sim(seed);
        let mut acknowledged = 0;
        for round in 1..=10u8 {
            let transaction = sim.begin(1, false).unwrap();
            sim.count_in(1, transaction, KeyRange::default()).unwrap();
            let value = vec![round; 3_000];
            let all: Vec<Vec<u8>> = (0..8).map(|i| vec![b'k', i]).collect();
            let writes = all.iter().map(|key| BatchWrite::Put { key, value: &value }).collect();
            if round < 10 {
                sim.commit(1, transaction, writes).unwrap();
                acknowledged = round;
            } else {
                let (id, target) = (sim.next_id(), target(1));
                let body = RequestBody::Commit { target, transaction, writes };
                sim.step(&mut vec![Request { id, body }]);
                for _ in 0..sim.random.below(6) {
                    sim.step(&mut Vec::new());
                }
            }
        }
        sim.crash();
        sim.run_until_serving();
        let first = sim.get(1, &[b'k', 0]).unwrap().expect("it was acknowledged")[0];
        assert!(first >= acknowledged, "seed {seed}");
        for i in 0..8 {
            assert_eq!(sim.get(1, &[b'k', i]), Ok(Some(vec![first; 3_000])), "seed {seed}");
        }
        assert_eq!(sim.shard.stats().transactions_open, 0);
    }
}
