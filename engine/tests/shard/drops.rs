//! Drops answer at once, give their space back, and stay; tables appear whole or not at all.

use crate::support::Sim;
use crate::support::ask::{partition_spec, room, table_spec};
use lode_engine::{
    Condition, Geometry, ReadError, ReplyBody, Request, RequestBody, StoreKind, TableId, Ttl, WriteError,
    check_drive,
};

fn sim(seed: u64) -> Sim {
    let geometry = Geometry::plan(6 << 20, 1, Some(64 << 10), 8 << 10).expect("the drive is large enough");
    Sim::format(seed, geometry, |_| {})
}

#[test]
fn a_drop_is_answered_before_its_space_is_given_back() {
    let mut sim = sim(1);
    sim.create(1, StoreKind::Durable, &[1]).unwrap();
    sim.create(2, StoreKind::Durable, &[2]).unwrap();
    for i in 0..20_000u32 {
        sim.put(1, &i.to_be_bytes(), b"").unwrap();
    }
    sim.put(2, b"neighbour", b"here").unwrap();
    let before = sim.shard.stats();
    sim.drop_table(1).unwrap();
    let after = sim.shard.stats();
    assert!(after.live_bytes > before.live_bytes / 2, "no more than a part of it in one step");
    assert!(sim.shard.has_work());
    assert_eq!(sim.get(1, b"k"), Err(ReadError::UnknownPartition(lode_engine::PartitionId(1))));
    sim.settle();
    let rest = sim.shard.stats();
    assert_eq!((rest.live_bytes, rest.records, rest.partitions), (room(30 + 9 + 4), 1, 1));
    assert!(rest.index_bytes <= before.index_bytes, "{} bytes of index", rest.index_bytes);
    sim.checkpoint().unwrap();
    sim.settle();
    let stats = sim.shard.stats();
    assert!(stats.segments_free + 8 >= stats.segments, "{} of {}", stats.segments_free, stats.segments);
    assert_eq!(sim.get(2, b"neighbour"), Ok(Some(b"here".to_vec())));
    sim.drop_table(2).unwrap();
    sim.settle();
    assert_eq!(sim.shard.stats().index_bytes, 0, "the last node takes all memory with it");
}

#[test]
fn what_a_memory_table_held_is_given_back_bit_by_bit() {
    let mut sim = sim(10);
    sim.create(1, StoreKind::Memory, &[1]).unwrap();
    for i in 0..20_000u32 {
        sim.put(1, &i.to_be_bytes(), b"value").unwrap();
    }
    let before = sim.shard.stats().memory_table_bytes;
    sim.drop_table(1).unwrap();
    let left = sim.shard.stats().memory_table_bytes;
    assert!(left > before / 2 && left < before, "{left} of {before} bytes after a step");
    assert!(sim.shard.has_work());
    sim.settle();
    assert_eq!((sim.shard.stats().memory_table_bytes, sim.shard.audit()), (0, Vec::<String>::new()));
}

#[test]
fn a_check_counts_nothing_of_a_dropped_table_as_live() {
    let mut sim = sim(9);
    sim.create(1, StoreKind::Durable, &[1]).unwrap();
    sim.create(2, StoreKind::Durable, &[2]).unwrap();
    for i in 0..20_000u32 {
        sim.put(1, &i.to_be_bytes(), b"").unwrap();
    }
    sim.put(2, b"neighbour", b"here").unwrap();
    sim.checkpoint().unwrap();
    let found = |sim: &Sim| {
        let drive = &sim.drive.now;
        let mut read = |at: u64, buffer: &mut [u8]| {
            buffer.copy_from_slice(&drive[at as usize..at as usize + buffer.len()]);
            Ok(())
        };
        let report = check_drive(&mut read, drive.len() as u64).expect("the headers are whole");
        assert!(report.is_clean(), "{report:?}");
        let shard = &report.shards[0];
        (shard.tables, shard.records, shard.live_bytes)
    };
    let rest = room(30 + 9 + 4);
    assert_eq!(found(&sim), (2, 20_001, rest + 20_000 * room(30 + 4)));
    sim.drop_table(1).unwrap();
    assert!(sim.shard.stats().live_bytes > rest, "not all is given back in one step");
    assert_eq!(found(&sim), (1, 1, rest));
    sim.settle();
    sim.checkpoint().unwrap();
    assert_eq!(found(&sim), (1, 1, rest));
}

#[test]
fn dropped_data_never_comes_back() {
    for seed in 0..60 {
        let mut sim = sim(seed);
        sim.create(1, StoreKind::Durable, &[1]).unwrap();
        sim.create(2, StoreKind::Durable, &[2, 3]).unwrap();
        for i in 0..300u32 {
            sim.put(2 + i % 2, &i.to_be_bytes(), &[1; 500]).unwrap();
        }
        if seed % 3 == 0 {
            sim.checkpoint().unwrap();
        }
        let drop = if seed % 2 == 0 {
            RequestBody::DropTable { table: TableId(2) }
        } else {
            RequestBody::DropPartition { partition: lode_engine::PartitionId(2) }
        };
        sim.catalog(drop).unwrap();
        for _ in 0..sim.random.below(20) {
            sim.step(&mut Vec::new());
        }
        for round in 0..3 {
            sim.crash();
            sim.run_until_serving();
            assert_eq!(sim.count(2).err(), Some(ReadError::UnknownPartition(lode_engine::PartitionId(2))));
            if seed % 2 == 1 {
                assert_eq!(sim.count(3), Ok(150), "its neighbour in the table stays");
            }
            if round == 1 {
                sim.checkpoint().unwrap();
            }
        }
    }
}

#[test]
fn a_table_is_there_whole_or_not_at_all_whenever_the_power_goes() {
    let (mut made, mut unmade) = (0, 0);
    for seed in 0..200 {
        let mut sim = sim(seed);
        // Small frames, so that the change spans many of them.
        sim.config.frame_bytes = 4096;
        sim.config.frames_in_flight = 2;
        sim.reopen();
        sim.create(1, StoreKind::Durable, &[1]).unwrap();
        let partitions: Vec<u32> = (100..600).collect();
        let mut expected = None;
        for attempt in 0..4u32 {
            let id = sim.next_id();
            let specs = partitions[attempt as usize..].iter().map(|p| partition_spec(2, *p)).collect();
            let table = table_spec(2, StoreKind::Durable);
            let body = RequestBody::CreateTable { table, partitions: specs };
            sim.step(&mut vec![Request { id, body }]);
            if seed % 3 == 0 {
                // A checkpoint that begins between the records of the change.
                for _ in 0..sim.random.below(6) {
                    sim.step(&mut Vec::new());
                }
                let id = sim.next_id();
                sim.step(&mut vec![Request { id, body: RequestBody::Checkpoint }]);
            }
            for _ in 0..sim.random.below(24) {
                sim.step(&mut Vec::new());
            }
            let answered = sim
                .replies
                .iter()
                .any(|reply| reply.id == id && matches!(reply.body, ReplyBody::Catalog(Ok(()))));
            sim.crash();
            sim.run_until_serving();
            let found = sim.tables().into_iter().find(|(table, _)| *table == 2);
            match found {
                Some((_, listed)) => {
                    assert_eq!(listed, partitions[attempt as usize..], "seed {seed}, attempt {attempt}");
                    expected = Some(listed);
                    made += 1;
                    break;
                }
                None => {
                    assert!(!answered, "seed {seed}: an acknowledged table is lost");
                    unmade += 1;
                }
            }
        }
        sim.checkpoint().unwrap();
        sim.reopen();
        let found = sim.tables().into_iter().find(|(table, _)| *table == 2);
        assert_eq!(found.map(|(_, listed)| listed), expected, "seed {seed}");
    }
    assert!(made > 20 && unmade > 20, "{made} made, {unmade} not");
}

/// A run of everything, and the drive's bytes at its end.
fn run(seed: u64) -> (Vec<u8>, u64) {
    let mut sim = sim(seed);
    sim.create(1, StoreKind::Durable, &[1, 2]).expect("the drive is empty");
    for i in 0..4000u32 {
        let key = (sim.random.below(700) as u32).to_be_bytes();
        let value = vec![i as u8; sim.random.below(3000) as usize];
        sim.put(1 + i % 2, &key, &value).expect("there is room");
        if i % 1000 == 700 {
            sim.create(i, StoreKind::Durable, &[i]).expect("there is room");
            sim.put(i, b"k", b"v").expect("there is room");
            sim.drop_table(i).expect("it is there");
            sim.crash();
            sim.run_until_serving();
        }
    }
    let cleaned = sim.shard.stats().segments_cleaned;
    sim.settle();
    (sim.drive.now, cleaned)
}

#[test]
fn the_same_seed_leaves_the_same_bytes_on_the_drive() {
    let (first, cleaned) = run(7);
    assert!(cleaned > 0);
    assert!(first == run(7).0, "the same seed, other bytes");
    assert!(first != run(8).0, "another seed, the same bytes");
}

#[test]
fn what_is_written_behind_a_drop_is_told_that_its_partition_is_gone() {
    for seed in 0..40 {
        let mut sim = sim(20 + seed);
        sim.create(1, StoreKind::Durable, &[1]).unwrap();
        sim.put(1, b"key", b"old").unwrap();
        let (drop, put) = (sim.next_id(), sim.next_id());
        let body = RequestBody::DropTable { table: TableId(1) };
        sim.step(&mut vec![Request { id: drop, body }]);
        // The drop is on its way to the drive: the partition is there still.
        let (target, condition, ttl) = (crate::support::ask::target(1), Condition::Always, Ttl::Table);
        let body = RequestBody::Put { target, key: b"key", value: b"new", condition, ttl };
        sim.step(&mut vec![Request { id: put, body }]);
        assert!(matches!(sim.reply_to(drop), ReplyBody::Catalog(Ok(()))));
        let reply = sim.reply_to(put);
        let gone = WriteError::UnknownPartition(lode_engine::PartitionId(1));
        assert!(matches!(&reply, ReplyBody::Write(Err(error)) if *error == gone), "seed {seed}: {reply:?}");
    }
}
