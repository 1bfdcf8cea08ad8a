//! A failed write closes the log: who waits is told, reads go on, and a restart has all that was promised.

use crate::support::Sim;
use crate::support::ask::{partition_spec, table_spec, target};
use lode_engine::{
    CatalogError, CheckpointError, Condition, Geometry, ReplyBody, Request, RequestBody, StoreKind, TableId,
    Ttl, WriteError,
};

fn sim(seed: u64) -> Sim {
    let geometry = Geometry::plan(2 << 20, 1, Some(64 << 10), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |_| {});
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    sim.create(2, StoreKind::Memory, &[2]).expect("the drive is empty");
    sim
}

fn put<'a>(partition: u32, key: &'a [u8], value: &'a [u8], condition: Condition) -> RequestBody<'a> {
    RequestBody::Put { target: target(partition), key, value, condition, ttl: Ttl::Table }
}

#[test]
fn everything_that_waits_is_answered_poisoned_and_reads_go_on() {
    for seed in 0..40 {
        let mut sim = sim(seed);
        for i in 0..200u32 {
            sim.put(1, &(i % 100).to_be_bytes(), &i.to_be_bytes()).unwrap();
        }
        sim.drive.fail_writes = Some(28);
        let value = vec![1u8; 8 << 10];
        let keys: Vec<_> = (0..60u32).map(u32::to_be_bytes).collect();
        let (mut writes, mut others) = (Vec::new(), Vec::new());
        for (i, key) in keys.iter().enumerate() {
            let condition = if i % 3 == 0 { Condition::IfAbsent } else { Condition::Always };
            let id = sim.next_id();
            writes.push((id, i % 3 == 0));
            sim.step(&mut vec![Request { id, body: put(1, key, &value, condition) }]);
            if i % 20 == 5 {
                let id = sim.next_id();
                others.push(id);
                let table = table_spec(10 + i as u32, StoreKind::Durable);
                let partitions = vec![partition_spec(10 + i as u32, 100 + i as u32)];
                let create = RequestBody::CreateTable { table, partitions };
                sim.step(&mut vec![Request { id, body: create }]);
                let id = sim.next_id();
                others.push(id);
                sim.step(&mut vec![Request { id, body: RequestBody::Checkpoint }]);
            }
        }
        for (id, conditional) in writes {
            match sim.reply_to(id) {
                ReplyBody::Write(Err(WriteError::Poisoned)) => {}
                ReplyBody::Write(Err(WriteError::ConditionFailed { .. })) => assert!(conditional),
                other => panic!("{other:?}"),
            }
        }
        for id in others {
            match sim.reply_to(id) {
                ReplyBody::Catalog(Err(CatalogError::Poisoned))
                | ReplyBody::Checkpoint(Err(CheckpointError::Poisoned)) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(sim.shard.stats().poisoned, 1);
        sim.drive.fail_writes = None;
        assert_eq!(sim.put(1, b"later", b""), Err(WriteError::Poisoned), "never again until the restart");
        assert_eq!(sim.drop_table(1), Err(CatalogError::Poisoned));
        assert_eq!(sim.checkpoint(), Err(CheckpointError::Poisoned));
        sim.put(2, b"k", b"v").expect("a memory table needs no log");
        for i in 100..200u32 {
            let found = sim.get(1, &(i % 100).to_be_bytes());
            assert_eq!(found, Ok(Some(i.to_be_bytes().to_vec())), "key {i}, seed {seed}");
        }
        sim.settle();
        assert_eq!(sim.buffers.in_use(), 0, "every buffer comes back, seed {seed}");
        sim.crash();
        sim.run_until_serving();
        for i in 100..200u32 {
            let found = sim.get(1, &(i % 100).to_be_bytes()).expect("no error");
            let found = found.expect("an acknowledged write is there");
            assert!(found == i.to_be_bytes() || found == value, "key {i}, seed {seed}");
        }
        sim.put(1, b"later", b"").expect("a new life");
    }
}

#[test]
fn a_failed_write_of_the_cleaner_or_of_a_checkpoint_closes_the_log_too() {
    for seed in 0..30 {
        let mut sim = sim(seed);
        let value = vec![2u8; 2000];
        for i in 0..2000u32 {
            let key = if i < 250 { i } else { sim.random.below(250) as u32 };
            sim.put(1, &key.to_be_bytes(), &value).unwrap();
        }
        assert!(sim.shard.stats().segments_cleaned > 0);
        // Nothing of the user's is under way: the first write to fail is another's.
        let id = sim.next_id();
        sim.step(&mut vec![Request { id, body: RequestBody::Checkpoint }]);
        sim.drive.fail_writes = Some(5);
        assert!(matches!(sim.reply_to(id), ReplyBody::Checkpoint(Err(CheckpointError::Poisoned))));
        assert_eq!(sim.put(1, b"k", b""), Err(WriteError::Poisoned));
        sim.settle();
        assert_eq!(sim.buffers.in_use(), 0, "every buffer comes back, seed {seed}");
        sim.crash();
        sim.run_until_serving();
        for i in 0..250u32 {
            assert_eq!(sim.get(1, &i.to_be_bytes()).as_ref(), Ok(&Some(value.clone())), "key {i}");
        }
    }
}

#[test]
fn a_catalog_change_under_way_is_answered_once() {
    let mut sim = sim(3);
    let id = sim.next_id();
    sim.step(&mut vec![Request { id, body: RequestBody::DropTable { table: TableId(1) } }]);
    sim.drive.fail_writes = Some(5);
    let first = sim.reply_to(id);
    assert!(matches!(first, ReplyBody::Catalog(Err(CatalogError::Poisoned))), "{first:?}");
    sim.settle();
    assert!(sim.replies.is_empty(), "{:?}", sim.replies);
}
