//! A shard answers, and still answers after restarts.

use crate::support::Sim;
use crate::support::ask::table_spec;
use lode_engine::{
    BatchWrite, Change, Condition, Epoch, Geometry, KeyRange, PartitionId, PartitionSpec, Placement, Quota,
    ReadError, ReplyBody, Request, RequestBody, StoreKind, TableId, TableSpec, Target, Ttl, WriteError,
};

const TARGET: Target = Target { partition: PartitionId(1), epoch: Epoch(1) };

fn small() -> Geometry {
    Geometry::plan(8 << 20, 1, Some(64 << 10), 8 << 10).expect("the drive is large enough")
}

pub fn table(sim: &mut Sim, id: u32, store: StoreKind, partitions: u32) {
    let spec = |p: u32| PartitionSpec {
        id: PartitionId(p),
        table: TableId(id),
        epoch: Epoch(1),
        start: Vec::new(),
        end: None,
    };
    let table = TableSpec {
        id: TableId(id),
        name: format!("t{id}"),
        store,
        placement: Placement::Range,
        ttl_ms: None,
        quota: Quota::default(),
        index: lode_engine::IndexKind::Full,
    };
    let partitions = (0..partitions).map(|i| spec(id * 100 - 99 + i)).collect();
    let reply = sim.ask(RequestBody::CreateTable { table, partitions });
    assert!(matches!(reply, ReplyBody::Catalog(Ok(()))), "{reply:?}");
}

fn put(
    sim: &mut Sim,
    key: &[u8],
    value: &[u8],
    condition: Condition,
) -> Result<lode_engine::Written, WriteError> {
    match sim.ask(RequestBody::Put { target: TARGET, key, value, condition, ttl: Ttl::Table }) {
        ReplyBody::Write(result) => result,
        other => panic!("{other:?}"),
    }
}

fn get(sim: &mut Sim, key: &[u8]) -> Option<Vec<u8>> {
    match sim.ask(RequestBody::Get { target: TARGET, key }) {
        ReplyBody::Get(Ok(found)) => found.map(|found| sim.value(found.value)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn put_get_delete_and_restart() {
    let mut sim = Sim::format(1, small(), |_| {});
    table(&mut sim, 1, StoreKind::Durable, 1);
    assert_eq!(get(&mut sim, b"a"), None);
    assert!(!put(&mut sim, b"a", b"1", Condition::Always).unwrap().existed);
    assert!(put(&mut sim, b"a", b"2", Condition::Always).unwrap().existed);
    assert_eq!(get(&mut sim, b"a").as_deref(), Some(&b"2"[..]));
    sim.reopen();
    assert_eq!(get(&mut sim, b"a").as_deref(), Some(&b"2"[..]));
    let reply = sim.ask(RequestBody::Delete { target: TARGET, key: b"a", condition: Condition::Always });
    assert!(matches!(reply, ReplyBody::Write(Ok(written)) if written.existed));
    assert_eq!(get(&mut sim, b"a"), None);
    sim.reopen();
    assert_eq!(get(&mut sim, b"a"), None);
}

#[test]
fn gets_that_arrive_together_find_what_each_would_find() {
    let mut sim = Sim::format(12, small(), |_| {});
    table(&mut sim, 1, StoreKind::Durable, 1);
    let key = |n: u32| format!("key {n:04}").into_bytes();
    for n in (0..400).step_by(2) {
        put(&mut sim, &key(n), &n.to_be_bytes(), Condition::Always).expect("written");
    }
    let keys: Vec<_> = (0..400).map(key).collect();
    let unknown = Target { partition: PartitionId(9), epoch: Epoch(1) };
    let ids: Vec<_> = keys.iter().map(|_| sim.next_id()).collect();
    let mut requests: Vec<_> = ids
        .iter()
        .zip(&keys)
        .map(|(id, key)| Request { id: *id, body: RequestBody::Get { target: TARGET, key } })
        .collect();
    requests[101].body = RequestBody::Get { target: unknown, key: b"k" };
    sim.step(&mut requests);
    for (n, id) in (0u32..).zip(ids) {
        match sim.reply_to(id) {
            ReplyBody::Get(Ok(Some(found))) => assert_eq!(sim.value(found.value), n.to_be_bytes()),
            ReplyBody::Get(Ok(None)) => assert_eq!(n % 2, 1, "key {n} is there"),
            other => assert_eq!(n, 101, "{other:?}"),
        }
    }
}

/// A partition is asked by its epoch, and for keys of its range: anything else is for another owner.
#[test]
fn another_epoch_and_keys_of_others_are_refused() {
    let mut sim = Sim::format(9, small(), |_| {});
    let range = (b"b".to_vec(), Some(b"m".to_vec()));
    let spec = PartitionSpec {
        id: PartitionId(1),
        table: TableId(1),
        epoch: Epoch(3),
        start: range.0,
        end: range.1,
    };
    let body = RequestBody::CreateTable { table: table_spec(1, StoreKind::Durable), partitions: vec![spec] };
    assert!(matches!(sim.ask(body), ReplyBody::Catalog(Ok(()))));
    let (condition, ttl, value) = (Condition::Always, Ttl::Table, &b"v"[..]);
    let mut all = |epoch: u32, key: &[u8]| {
        let target = Target { partition: PartitionId(1), epoch: Epoch(epoch) };
        let bodies = [
            RequestBody::Put { target, key, value, condition, ttl },
            RequestBody::Delete { target, key, condition },
            RequestBody::Batch { target, writes: vec![BatchWrite::Put { key, value }] },
            RequestBody::Modify { target, key, change: Change::Increment { by: 1, initial: 0 } },
            RequestBody::Get { target, key },
        ];
        bodies.map(|body| sim.ask(body))
    };
    for epoch in [2, 4] {
        let [put, delete, batch, increment, get] = all(epoch, b"k");
        for write in [put, delete, batch, increment] {
            let ReplyBody::Write(result) = write else { panic!("{write:?}") };
            assert_eq!(result, Err(WriteError::StaleEpoch { current: Epoch(3) }), "epoch {epoch}");
        }
        assert!(matches!(get, ReplyBody::Get(Err(ReadError::StaleEpoch { current: Epoch(3) }))));
    }
    for key in [&b"a"[..], b"m", b"z"] {
        let [put, delete, batch, increment, get] = all(3, key);
        for write in [put, delete, batch, increment] {
            let ReplyBody::Write(result) = write else { panic!("{write:?}") };
            assert_eq!(result, Err(WriteError::OutOfRange), "{key:?}");
        }
        assert!(matches!(get, ReplyBody::Get(Err(ReadError::OutOfRange))));
    }
    let [put, .., get] = all(3, b"k");
    assert!(matches!((put, get), (ReplyBody::Write(Ok(_)), ReplyBody::Get(Ok(Some(_))))));
}

#[test]
fn conditions_hold_by_version() {
    let mut sim = Sim::format(2, small(), |config| config.cache_bytes = 0);
    table(&mut sim, 1, StoreKind::Durable, 1);
    let first = put(&mut sim, b"k", b"1", Condition::IfAbsent).unwrap().seq;
    let refused = put(&mut sim, b"k", b"2", Condition::IfAbsent);
    assert_eq!(refused, Err(WriteError::ConditionFailed { current: Some(first) }));
    let second = put(&mut sim, b"k", b"2", Condition::IfSeq(first)).unwrap().seq;
    assert!(second > first);
    let stale = put(&mut sim, b"k", b"3", Condition::IfSeq(first));
    assert_eq!(stale, Err(WriteError::ConditionFailed { current: Some(second) }));
    let absent = put(&mut sim, b"none", b"3", Condition::IfSeq(first));
    assert_eq!(absent, Err(WriteError::ConditionFailed { current: None }));
    assert_eq!(get(&mut sim, b"k").as_deref(), Some(&b"2"[..]));
}

#[test]
fn writes_of_one_key_that_arrive_together_take_place_in_order() {
    for (first_is_put, batched) in [(true, false), (false, false), (true, true)] {
        let mut sim = Sim::format(7, small(), |_| {});
        table(&mut sim, 1, StoreKind::Durable, 1);
        let condition = Condition::Always;
        let delete = RequestBody::Delete { target: TARGET, key: b"k", condition };
        let put = if batched {
            let writes = vec![BatchWrite::Put { key: b"k", value: b"v" }];
            RequestBody::Batch { target: TARGET, writes }
        } else {
            RequestBody::Put { target: TARGET, key: b"k", value: b"v", condition, ttl: Ttl::Table }
        };
        let bodies = if first_is_put { [put, delete] } else { [delete, put] };
        let ids = [sim.next_id(), sim.next_id()];
        let requests = ids.into_iter().zip(bodies).map(|(id, body)| lode_engine::Request { id, body });
        sim.step(&mut requests.collect());
        let existed = ids.map(|id| match sim.reply_to(id) {
            ReplyBody::Write(Ok(written)) => written.existed,
            other => panic!("{other:?}"),
        });
        assert_eq!(existed, [false, first_is_put]);
        assert_eq!(get(&mut sim, b"k").is_some(), !first_is_put);
    }
}

#[test]
fn scans_page_both_ways() {
    for store in [StoreKind::Durable, StoreKind::Memory] {
        let mut sim = Sim::format(3, small(), |_| {});
        table(&mut sim, 1, store, 1);
        let keys: Vec<String> = (0..100).map(|i| format!("key{i:03}")).collect();
        let value = vec![7u8; 100];
        let writes = keys.iter().map(|key| BatchWrite::Put { key: key.as_bytes(), value: &value }).collect();
        assert!(matches!(sim.ask(RequestBody::Batch { target: TARGET, writes }), ReplyBody::Write(Ok(_))));
        let mut scan = |range: KeyRange<'_>, reverse, limit, byte_budget| {
            let body =
                RequestBody::Scan { target: TARGET, range, reverse, limit, byte_budget, keys_only: false };
            match sim.ask(body) {
                ReplyBody::Scan(Ok(page)) => {
                    let keys: Vec<_> =
                        page.records.iter().map(|r| String::from_utf8(r.key.to_vec()).unwrap()).collect();
                    (keys, page.more)
                }
                other => panic!("{other:?}"),
            }
        };
        let all = KeyRange::default();
        assert_eq!(scan(all, false, 4096, 1 << 20), (keys.clone(), false));
        let mut reversed = keys.clone();
        reversed.reverse();
        assert_eq!(scan(all, true, 4096, 1 << 20), (reversed.clone(), false));
        assert_eq!(scan(all, false, 1, 1 << 20), (keys[..1].to_vec(), true), "min");
        assert_eq!(scan(all, true, 1, 1 << 20), (reversed[..1].to_vec(), true), "max");
        let some = KeyRange { start: b"key010", end: Some(b"key020") };
        assert_eq!(scan(some, false, 4096, 1 << 20), (keys[10..20].to_vec(), false));
        assert_eq!(scan(some, true, 3, 1 << 20), (reversed[80..83].to_vec(), true));
        assert_eq!(scan(all, false, 4096, 1), (keys[..1].to_vec(), true), "at least one record");
        assert_eq!(scan(all, false, 4096, 2 * 106), (keys[..2].to_vec(), true), "the budget");
        let void = KeyRange { start: b"z", end: Some(b"a") };
        assert_eq!(scan(void, false, 10, 1000), (Vec::new(), false));
        let count = sim.ask(RequestBody::Count { target: TARGET, range: some });
        assert!(matches!(count, ReplyBody::Count(Ok(10))), "{count:?}");
    }
}

#[test]
fn overwriting_for_ever_never_fills_the_drive() {
    let mut sim = Sim::format(4, small(), |_| {});
    table(&mut sim, 1, StoreKind::Durable, 1);
    // 30 times the drive, which is over half full with live records.
    let value = vec![3u8; 4000];
    for round in 0..60_000u32 {
        let key = if round < 1200 { round } else { sim.random.below(1200) as u32 }.to_be_bytes();
        put(&mut sim, &key, &value, Condition::Always).unwrap();
    }
    let stats = sim.shard.stats();
    assert!(stats.segments_cleaned > 0 && stats.checkpoints > 0, "{stats:?}");
    sim.reopen();
    for i in 0..1200u32 {
        assert_eq!(get(&mut sim, &i.to_be_bytes()).as_deref(), Some(&value[..]), "key {i}");
    }
}

#[test]
fn restarts_do_not_let_the_tail_of_the_log_grow() {
    let mut sim = Sim::format(6, small(), |config| config.checkpoint_interval_bytes = 400 << 10);
    table(&mut sim, 1, StoreKind::Durable, 1);
    let mut checkpoints = 0;
    for round in 0..40u32 {
        // A quarter of what makes a checkpoint due.
        for i in 0..25u32 {
            put(&mut sim, &(i % 20).to_be_bytes(), &round.to_be_bytes(), Condition::Always).unwrap();
        }
        checkpoints += sim.shard.stats().checkpoints;
        sim.reopen();
        let replayed = sim.shard.stats().recovered_frames;
        assert!(replayed <= 200, "round {round}: {replayed} frames");
    }
    assert!(checkpoints >= 5, "{checkpoints}");
}
