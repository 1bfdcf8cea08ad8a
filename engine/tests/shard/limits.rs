//! Every limit at, below and above: a typed error above, and nothing lost.

use crate::support::Sim;
use crate::support::ask::{index_kind, partition_spec, table_spec};
use lode_engine::limits::{
    BATCH_BYTES, BATCH_WRITE_BYTES, MAX_BATCH_BYTES, MAX_BATCH_WRITES, MAX_KEY_BYTES, MAX_SCAN_BYTES,
    MAX_SCAN_RECORDS, MAX_VALUE_BYTES,
};
use lode_engine::{
    BatchWrite, CatalogError, Condition, Geometry, IndexKind, PartitionId, ReadError, RequestBody, StoreKind,
    TableId, Ttl, WriteError,
};

const VALUE_LIMIT: usize = 20_000;

fn sim(seed: u64) -> Sim {
    let geometry = Geometry::plan(6 << 20, 1, Some(128 << 10), VALUE_LIMIT as u32);
    let mut sim = Sim::format(seed, geometry.expect("the drive is large enough"), |_| {});
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    sim.create(2, StoreKind::Memory, &[2]).expect("the drive is empty");
    sim
}

#[test]
fn keys_of_none_one_most_and_more_bytes() {
    let mut sim = sim(1);
    for partition in [1, 2] {
        for len in [1, MAX_KEY_BYTES - 1, MAX_KEY_BYTES] {
            let key = vec![9; len];
            sim.put(partition, &key, b"v").unwrap();
            assert_eq!(sim.get(partition, &key), Ok(Some(b"v".to_vec())), "{len}");
        }
        for len in [0, MAX_KEY_BYTES + 1] {
            let key = vec![9; len];
            assert_eq!(sim.put(partition, &key, b"v"), Err(WriteError::KeyLength { len }));
            assert_eq!(sim.delete(partition, &key), Err(WriteError::KeyLength { len }));
            assert_eq!(sim.get(partition, &key), Err(ReadError::KeyLength { len }));
            let writes = vec![BatchWrite::Put { key: b"ok", value: b"" }, BatchWrite::Delete { key: &key }];
            assert_eq!(sim.batch(partition, writes), Err(WriteError::KeyLength { len }));
        }
        assert_eq!(sim.get(partition, b"ok"), Ok(None), "nothing of a refused batch");
        assert_eq!(sim.count(partition), Ok(3));
    }
}

#[test]
fn values_of_none_most_and_more_bytes() {
    let mut sim = sim(2);
    for partition in [1, 2] {
        for len in [0, 1, VALUE_LIMIT - 1, VALUE_LIMIT] {
            sim.put(partition, b"k", &vec![len as u8; len]).unwrap();
            assert_eq!(sim.get(partition, b"k"), Ok(Some(vec![len as u8; len])));
        }
        let refused = sim.put(partition, b"k", &vec![1; VALUE_LIMIT + 1]);
        assert_eq!(refused, Err(WriteError::ValueLength { len: VALUE_LIMIT + 1, limit: VALUE_LIMIT }));
        assert_eq!(sim.get(partition, b"k"), Ok(Some(vec![VALUE_LIMIT as u8; VALUE_LIMIT])));
    }
    let key = vec![5; MAX_KEY_BYTES];
    sim.put(1, &key, &vec![6; VALUE_LIMIT]).expect("the largest record that there is");
    sim.reopen();
    assert_eq!(sim.get(1, &key), Ok(Some(vec![6; VALUE_LIMIT])));
}

#[test]
fn batches_of_none_most_and_more_writes_and_bytes() {
    let mut sim = sim(3);
    let keys: Vec<_> = (0..=MAX_BATCH_WRITES as u32).map(u32::to_be_bytes).collect();
    for partition in [1, 2] {
        let batch = |n: usize| -> Vec<BatchWrite<'_>> {
            keys[..n].iter().map(|key| BatchWrite::Put { key, value: b"" }).collect()
        };
        for writes in [0, MAX_BATCH_WRITES + 1] {
            let refused = sim.batch(partition, batch(writes));
            assert!(matches!(refused, Err(WriteError::BatchSize { writes: n, .. }) if n == writes));
        }
        assert_eq!(sim.count(partition), Ok(0));
        // 40 bytes each (34, rounded up) are more than a segment of this drive holds.
        let fits = ((128 << 10) - 4096 - 64) / 40;
        sim.batch(partition, batch(fits)).expect("just fits a segment");
        assert!(matches!(sim.batch(partition, batch(fits + 1)), Err(WriteError::BatchSize { .. })));
        assert_eq!(sim.count(partition), Ok(fits as u64));
    }
    sim.crash();
    sim.run_until_serving();
    assert_eq!(sim.count(1), Ok(((128 << 10) - 4096 - 64) / 40));
}

#[test]
fn batches_of_the_most_writes_where_the_segment_has_room_for_more() {
    let geometry = Geometry::plan(72 << 20, 1, Some(4 << 20), MAX_VALUE_BYTES as u32);
    let mut sim = Sim::format(6, geometry.expect("the drive is large enough"), |_| {});
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    let keys: Vec<_> = (0..=MAX_BATCH_WRITES as u32).map(u32::to_be_bytes).collect();
    let most = MAX_BATCH_BYTES - BATCH_BYTES - MAX_BATCH_WRITES * (BATCH_WRITE_BYTES + 4);
    for (writes, bytes) in [(MAX_BATCH_WRITES + 1, 0), (MAX_BATCH_WRITES, most + 1), (MAX_BATCH_WRITES, most)]
    {
        let value = vec![7; bytes];
        let puts = keys[..writes].iter().enumerate();
        let batch = puts.map(|(i, key)| BatchWrite::Put { key, value: if i == 9 { &value } else { b"" } });
        let done = sim.batch(1, batch.collect());
        match bytes == most {
            true => assert!(done.is_ok(), "{done:?}"),
            false => assert!(matches!(done, Err(WriteError::BatchSize { writes: n, .. }) if n == writes)),
        }
        assert_eq!(sim.count(1), Ok(if bytes == most { MAX_BATCH_WRITES as u64 } else { 0 }));
    }
}

#[test]
fn scans_of_none_most_and_more() {
    let mut sim = sim(4);
    sim.put(1, b"k", b"v").unwrap();
    for (limit, budget) in [(0, 1), (MAX_SCAN_RECORDS + 1, 1), (1, 0), (1, MAX_SCAN_BYTES + 1)] {
        assert_eq!(sim.scan(1, limit as u32, budget as u32).err(), Some(ReadError::ScanLimits));
    }
    let page = sim.scan(1, MAX_SCAN_RECORDS as u32, MAX_SCAN_BYTES as u32).unwrap();
    assert_eq!((page.records.len(), page.more), (1, false));
}

#[test]
fn partitions_of_a_shard_and_their_specs() {
    let mut sim = sim(5);
    sim.config.max_partitions = 10;
    sim.reopen();
    sim.create(3, StoreKind::Durable, &[11, 12, 13, 14, 15, 16, 17, 18]).expect("ten in all");
    let more = RequestBody::CreatePartition { partition: partition_spec(3, 19) };
    assert_eq!(sim.catalog(more.clone()), Err(CatalogError::TooManyPartitions { limit: 10 }));
    assert_eq!(sim.create(4, StoreKind::Durable, &[21]), Err(CatalogError::TooManyPartitions { limit: 10 }));
    sim.catalog(RequestBody::DropPartition { partition: PartitionId(18) }).unwrap();
    sim.catalog(more).expect("there is room for one");
    assert_eq!(sim.create(3, StoreKind::Durable, &[]), Err(CatalogError::TableExists));
    let gone = RequestBody::DropPartition { partition: PartitionId(18) };
    assert_eq!(sim.catalog(gone), Err(CatalogError::UnknownPartition(PartitionId(18))));
    assert_eq!(sim.drop_table(77), Err(CatalogError::UnknownTable(TableId(77))));
    sim.drop_table(3).unwrap();
    assert_eq!(
        sim.create(5, StoreKind::Durable, &[31, 31]),
        Err(CatalogError::PartitionExists(PartitionId(31)))
    );
    let mut void = partition_spec(6, 41);
    (void.start, void.end) = (b"b".to_vec(), Some(b"b".to_vec()));
    let table = table_spec(6, StoreKind::Durable);
    let body = RequestBody::CreateTable { table, partitions: vec![void] };
    assert_eq!(sim.catalog(body), Err(CatalogError::BadRange(PartitionId(41))));
    for len in [0, 129] {
        let mut table = table_spec(6, StoreKind::Durable);
        table.name = "n".repeat(len);
        let body = RequestBody::CreateTable { table, partitions: Vec::new() };
        assert_eq!(sim.catalog(body), Err(CatalogError::NameLength { len }));
    }
}

#[test]
fn memory_is_bounded_and_comes_back() {
    let mut sim = sim(6);
    sim.config.memory_bytes = 100_000;
    sim.reopen();
    for partition in [2, 1] {
        let mut taken = 0u32;
        let error = loop {
            match sim.put(partition, &taken.to_be_bytes(), &[1; 100]) {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, WriteError::MemoryFull { limit_bytes: 100_000, .. }), "{error:?}");
        let stats = sim.shard.stats();
        let used = stats.index_bytes + stats.memory_table_bytes;
        // What a leaf will take is estimated; what a memory table takes is known. What whole leaves leave behind as they
        // become compact is free, and does not count.
        let slack = match (partition, index_kind()) {
            (2, _) => 0,
            (_, IndexKind::Full) => 4096,
            (_, IndexKind::Compact) => 8192,
        };
        assert!(used <= 100_000 + slack && used > 90_000, "{used} bytes");
        sim.put(partition, &0u32.to_be_bytes(), &[2; 100]).expect("what takes the place of another");
        assert!(sim.delete(partition, &1u32.to_be_bytes()).expect("a delete").existed);
        for key in 0..taken {
            sim.delete(partition, &key.to_be_bytes()).expect("a delete");
        }
        sim.put(partition, b"again", &[3; 100]).expect("there is room again");
    }
    assert_eq!(sim.get(1, b"again"), Ok(Some(vec![3; 100])));
}

#[test]
fn queues_are_bounded_and_say_busy() {
    let mut sim = sim(7);
    sim.config.max_queued_requests = 8;
    sim.config.frames_in_flight = 1;
    sim.config.frame_bytes = 4096;
    sim.reopen();
    let bodies: Vec<_> = (0..200u32).map(|i| (i.to_be_bytes(), vec![1u8; 2000])).collect();
    let ids: Vec<_> = bodies.iter().map(|_| sim.next_id()).collect();
    let mut requests = Vec::new();
    for (id, (key, value)) in ids.iter().zip(&bodies) {
        let target = crate::support::ask::target(1);
        let body = RequestBody::Put { target, key, value, condition: Condition::Always, ttl: Ttl::Table };
        requests.push(lode_engine::Request { id: *id, body });
    }
    sim.step(&mut requests);
    assert!(sim.shard.stats().requests_parked <= 8);
    let (mut taken, mut busy) = (0, 0);
    for (id, (key, _)) in ids.iter().zip(&bodies) {
        let lode_engine::ReplyBody::Write(result) = sim.reply_to(*id) else { panic!("a write") };
        let expected = match result {
            Ok(_) => Ok(Some(vec![1; 2000])),
            Err(WriteError::Busy) => Ok(None),
            Err(error) => panic!("{error}"),
        };
        taken += u32::from(result.is_ok());
        busy += u32::from(result.is_err());
        assert_eq!(sim.get(1, key), expected, "Busy means that nothing was done");
    }
    assert!(taken >= 8 && busy > 100, "{taken} taken, {busy} busy");
}
