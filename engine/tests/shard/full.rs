//! A drive that is full says so, at the limit it tells; deletes and drops still work, and then writes.

use crate::support::Sim;
use crate::support::ask::{index_kind, partition_spec, room, table_spec, target};
use lode_engine::{
    BatchWrite, CatalogError, Change, CheckpointError, Condition, Geometry, IndexKind, MIN_SEGMENTS,
    PartitionSpec, Phase, ReplyBody, Request, RequestBody, StoreKind, Ttl, WriteError,
};

const SEGMENT: u32 = 64 << 10;

fn sim(seed: u64, segments: u32) -> Sim {
    let drive_bytes = (256 << 10) + u64::from(segments * SEGMENT);
    let geometry =
        Geometry::plan(drive_bytes, 1, Some(SEGMENT), 12 << 10).expect("the drive is large enough");
    assert_eq!(geometry.segments_per_shard, segments);
    let mut sim = Sim::format(seed, geometry, |_| {});
    sim.create(1, StoreKind::Durable, &[1, 2]).expect("the drive is empty");
    sim
}

/// Puts records of `len` bytes of value until the drive is full; gives how many were taken.
fn fill(sim: &mut Sim, partition: u32, len: usize) -> u32 {
    for i in 0u32.. {
        match sim.put(partition, &i.to_be_bytes(), &vec![i as u8; len]) {
            Ok(_) => {}
            Err(WriteError::Full { live_bytes, limit_bytes }) => {
                assert!(live_bytes + room(len as u64 + 34) > limit_bytes, "{live_bytes} of {limit_bytes}");
                return i;
            }
            Err(error) => panic!("put {i}: {error}"),
        }
    }
    unreachable!("the numbers do not end")
}

#[test]
fn the_limit_is_exact_for_one_writer() {
    let mut sim = sim(1, 40);
    let len = 1000usize;
    let taken = fill(&mut sim, 1, len);
    sim.settle();
    let stats = sim.shard.stats();
    let left = stats.live_limit_bytes - stats.live_bytes;
    assert_eq!(stats.live_bytes, u64::from(taken) * room(30 + 4 + len as u64));
    assert!(left < room(30 + 4 + len as u64), "{left} bytes are left");
    if left >= 40 {
        // As much as is left of whole units.
        let fits = left as usize / 8 * 8 - 34;
        assert!(matches!(sim.put(1, b"last", &vec![0; fits + 1]), Err(WriteError::Full { .. })), "above");
        sim.put(1, b"last", &vec![0; fits]).expect("at the limit");
    }
    assert!(matches!(sim.put(1, b"more", b""), Err(WriteError::Full { .. })));
    for round in 0..3000u32 {
        let key = (round * 7 % taken).to_be_bytes();
        sim.put(1, &key, &vec![round as u8; len]).expect("what takes the place of another is always taken");
    }
    assert!(sim.shard.stats().segments_cleaned > 0);
}

#[test]
fn deletes_and_drops_work_on_a_full_drive_and_then_writes_again() {
    for (seed, segments, len) in [(1, MIN_SEGMENTS, 12 << 10), (2, MIN_SEGMENTS, 100), (3, 30, 5000)] {
        let mut sim = sim(seed, segments);
        for round in 0..4 {
            let taken = fill(&mut sim, 1, len);
            assert!(taken > 4, "{taken} records");
            for i in 0..taken / 2 {
                assert!(sim.delete(1, &i.to_be_bytes()).expect("a delete").existed, "key {i}");
            }
            let again = fill(&mut sim, 2, len);
            // The nodes of two indexes take a few cache lines more of an image than those of one; of compact ones, which become
            // so while they grow, some more.
            let fewer = if index_kind() == IndexKind::Compact { 8 } else { 4 };
            assert!(again + fewer >= taken / 2, "round {round}: {again} after {taken}");
            for i in 0..again {
                sim.delete(2, &i.to_be_bytes()).expect("a delete");
            }
            for i in taken / 2..taken {
                assert_eq!(sim.get(1, &i.to_be_bytes()), Ok(Some(vec![i as u8; len])), "key {i}");
                sim.delete(1, &i.to_be_bytes()).expect("a delete");
            }
        }
        sim.create(2, StoreKind::Durable, &[3]).expect("a table");
        fill(&mut sim, 3, len);
        sim.drop_table(2).expect("a drop on a full drive");
        sim.settle();
        assert_eq!(sim.shard.stats().live_bytes, 0);
        sim.put(1, b"k", &vec![1; len]).expect("the room of the dropped table");
    }
}

#[test]
fn small_records_may_fill_nearly_all_but_the_reserve_and_are_overwritten_there() {
    let geometry = Geometry::plan(65 << 20, 1, Some(256 << 10), 12 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(13, geometry, |_| {});
    sim.create(1, StoreKind::Durable, &[1, 2]).expect("the drive is empty");
    let mut taken = 0u32;
    while puts(&mut sim, 1, taken, 5).is_ok() {
        taken += 200;
    }
    sim.settle();
    let stats = sim.shard.stats();
    // Reserves, images and open segments: not more than thirty segments of 256.
    let usable = (stats.segments - 30) * (252 << 10);
    assert!(stats.live_bytes * 100 > usable * 93, "{} of {usable}", stats.live_bytes);
    let before = stats.relocated_bytes;
    for round in 0..200u32 {
        let first = sim.random.below(u64::from(taken / 200)) as u32 * 200;
        puts(&mut sim, 1, first, round as u8).expect("what takes the place of others");
    }
    assert!(sim.shard.stats().relocated_bytes > before, "cleaning went on");
    assert!(matches!(puts(&mut sim, 2, 0, 1), Err(WriteError::Full { .. })));
    for key in 0..taken / 10 {
        sim.delete(1, &key.to_be_bytes()).expect("a delete");
    }
    puts(&mut sim, 2, 0, 1).expect("room again");
    sim.reopen();
    assert_eq!(sim.count(1), Ok(u64::from(taken - taken / 10)));
}

/// Two hundred records from this key on, in one batch.
fn puts(sim: &mut Sim, partition: u32, first: u32, byte: u8) -> Result<lode_engine::Written, WriteError> {
    let keys: Vec<_> = (first..first + 200).map(u32::to_be_bytes).collect();
    let value = [byte; 1000];
    let writes = keys.iter().map(|key| BatchWrite::Put { key, value: &value }).collect();
    sim.batch(partition, writes)
}

#[test]
fn deleting_large_records_gives_small_ones_their_room() {
    let geometry = Geometry::plan(33 << 20, 1, Some(256 << 10), 64 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(14, geometry, |_| {});
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    sim.put(1, b"small", b"v").expect("there is room");
    let small = sim.shard.stats().live_limit_bytes;
    sim.put(1, b"large", &vec![1; 64 << 10]).expect("there is room");
    let large = sim.shard.stats().live_limit_bytes;
    assert!(large < small * 4 / 5, "{large} of {small}: behind large records more is wasted");
    for round in 0..2000u32 {
        let key = (round % 100).to_be_bytes();
        sim.put(1, &key, &vec![round as u8; 64 << 10]).expect("large records are overwritten for ever");
    }
    for key in 0..100u32 {
        sim.delete(1, &key.to_be_bytes()).expect("a delete");
    }
    sim.delete(1, b"large").expect("a delete");
    assert_eq!(sim.shard.stats().live_limit_bytes, small);
}

/// What no drive is needed for is not held up by what waits for room on it, and not refused with it.
#[test]
fn memory_tables_do_not_wait_for_a_full_drive() {
    let mut sim = sim(15, MIN_SEGMENTS);
    sim.create(2, StoreKind::Memory, &[3]).expect("there is room");
    let taken = fill(&mut sim, 1, 3000);
    let value = vec![1; 3000];
    let (mut waited, mut increments) = (0, 0);
    for round in 0..60u32 {
        let keys: Vec<_> = (0..taken).map(|i| ((i + round) % taken).to_be_bytes()).collect();
        let (condition, ttl) = (Condition::Always, Ttl::Table);
        let transaction = sim.begin(3, false).expect("there is room");
        let put = |(partition, key)| RequestBody::Put {
            target: target(partition),
            key,
            value: &value,
            condition,
            ttl,
        };
        let mut bodies: Vec<_> = keys.iter().map(|key| put((1, key.as_slice()))).collect();
        bodies.push(put((3, b"k")));
        let change = Change::Increment { by: 1, initial: 0 };
        let others = keys.len();
        bodies.push(RequestBody::Modify { target: target(3), key: b"n", change });
        let writes = || vec![BatchWrite::Put { key: b"m", value: b"v" }, BatchWrite::Delete { key: b"d" }];
        bodies.push(RequestBody::Batch { target: target(3), writes: writes() });
        bodies.push(RequestBody::Commit { target: target(3), transaction, writes: writes() });
        let ids: Vec<_> = bodies.iter().map(|_| sim.next_id()).collect();
        sim.step(&mut ids.iter().zip(bodies).map(|(id, body)| Request { id: *id, body }).collect());
        waited += sim.shard.stats().requests_parked;
        for id in &ids[others..] {
            let at = sim.replies.iter().position(|reply| reply.id == *id).expect("it waits for nothing");
            let reply = sim.replies.swap_remove(at);
            assert!(matches!(reply.body, ReplyBody::Write(Ok(_))), "{:?}", reply.body);
        }
        increments += 1;
        for id in &ids[..others] {
            sim.reply_to(*id);
        }
    }
    assert!(waited > 0, "the others waited");
    assert_eq!(sim.get(3, b"n"), Ok(Some(increments.to_string().into_bytes())));
}

#[test]
fn every_request_on_a_full_drive_ends() {
    let mut sim = sim(5, MIN_SEGMENTS);
    let value = vec![7u8; 3000];
    let mut ids = Vec::new();
    for i in 0..2000u32 {
        let id = sim.next_id();
        let key = (i % 150).to_be_bytes();
        let target = target(1);
        let body = match i % 5 {
            0 => RequestBody::Delete { target, key: &key, condition: Condition::Always },
            1 => RequestBody::Put {
                target,
                key: &key,
                value: &value,
                condition: Condition::IfAbsent,
                ttl: Ttl::Table,
            },
            2 => {
                let writes =
                    vec![BatchWrite::Put { key: &key, value: &value }, BatchWrite::Delete { key: b"x" }];
                RequestBody::Batch { target, writes }
            }
            _ => RequestBody::Put {
                target,
                key: &key,
                value: &value,
                condition: Condition::Always,
                ttl: Ttl::Table,
            },
        };
        ids.push(id);
        sim.step(&mut vec![Request { id, body }]);
    }
    let mut taken = 0;
    for id in ids {
        match sim.reply_to(id) {
            ReplyBody::Write(Ok(_)) => taken += 1,
            ReplyBody::Write(Err(
                WriteError::Full { .. } | WriteError::Busy | WriteError::ConditionFailed { .. },
            )) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(taken > 500, "{taken}");
    assert_eq!(sim.shard.stats().requests_parked, 0);
}

#[test]
fn crashes_in_a_row_without_a_checkpoint_do_not_use_the_drive_up() {
    // The largest holds more cut ranges than a superblock has room for.
    for segments in [MIN_SEGMENTS, 40, 700] {
        let mut sim = sim(6, segments);
        sim.config.checkpoint_interval_bytes = 1 << 30;
        sim.config.frame_bytes = 4096;
        for round in 0..320u32 {
            for i in 0..4 + sim.random.below(6) as u32 {
                let key = (round % 30 + i).to_be_bytes();
                let id = sim.next_id();
                // Several sectors, so that a torn frame leaves a trace.
                let value = vec![round as u8; 3000];
                let body = RequestBody::Put {
                    target: target(1),
                    key: &key,
                    value: &value,
                    condition: Condition::Always,
                    ttl: Ttl::Table,
                };
                sim.step(&mut vec![Request { id, body }]);
            }
            sim.crash();
            assert_eq!(sim.run_recovery(), Phase::Serving, "round {round}");
            let result = sim.put(1, b"round", &round.to_be_bytes());
            assert!(result.is_ok(), "round {round}: {result:?}");
        }
        assert_eq!(sim.get(1, b"round"), Ok(Some(319u32.to_be_bytes().to_vec())));
    }
}

#[test]
fn a_catalog_over_one_segment_and_an_index_over_several_survive() {
    let mut sim = sim(7, 120);
    let partitions: Vec<u32> = (1000..3000).collect();
    sim.create(9, StoreKind::Durable, &partitions).expect("a large table");
    for i in 0..6000u32 {
        let key = [&i.to_be_bytes()[..], &[i as u8; 60]].concat();
        sim.put(1000 + i % 7, &key, b"").expect("a small record");
    }
    assert_eq!(sim.checkpoint(), Ok(()));
    let stats = sim.shard.stats();
    assert!(stats.image_bytes > 3 * u64::from(SEGMENT), "{} bytes of image", stats.image_bytes);
    for _ in 0..3 {
        sim.crash();
        sim.run_until_serving();
        let listed = sim.tables();
        assert_eq!(listed.iter().find(|(table, _)| *table == 9).map(|(_, p)| p), Some(&partitions));
        let counts: u64 = (0..7).map(|i| sim.count(1000 + i).expect("it is there")).sum();
        assert_eq!(counts, 6000);
        sim.checkpoint().expect("there is room");
    }
}

#[test]
fn a_batch_that_fills_more_than_half_a_segment_finds_its_way() {
    let mut sim = sim(8, 40);
    let value = vec![3u8; 9000];
    for round in 0..40u32 {
        sim.put(1, b"small", &value).expect("a put");
        let keys: Vec<_> = (0..6u32).map(|i| (i, round).0.to_be_bytes()).collect();
        let writes = keys.iter().map(|key| BatchWrite::Put { key, value: &value }).collect();
        sim.batch(1, writes).expect("a batch of 54 KB in a segment of 60 KB");
    }
}

#[test]
fn a_checkpoint_without_room_says_so_or_works() {
    let mut sim = sim(9, MIN_SEGMENTS);
    fill(&mut sim, 1, 0);
    for _ in 0..5 {
        let result = sim.checkpoint();
        assert!(matches!(result, Ok(()) | Err(CheckpointError::NoSpace)), "{result:?}");
    }
    sim.reopen();
    assert_eq!(sim.get(1, &0u32.to_be_bytes()), Ok(Some(Vec::new())));
}

#[test]
fn a_delete_does_not_pass_the_put_before_it() {
    let mut sim = sim(10, MIN_SEGMENTS);
    let taken = fill(&mut sim, 1, 3000);
    let value = vec![1; 3000];
    for round in 0..60u32 {
        // More than what is open takes: the last ones wait for a segment.
        let keys: Vec<_> = (0..taken).map(|i| ((i + round) % taken).to_be_bytes()).collect();
        let last = keys[keys.len() - 1];
        let (target, condition) = (target(1), Condition::Always);
        let put = |key| RequestBody::Put { target, key, value: &value, condition, ttl: Ttl::Table };
        let mut bodies: Vec<_> = keys.iter().map(|key| put(key.as_slice())).collect();
        bodies.push(RequestBody::Delete { target, key: &last, condition });
        let ids: Vec<_> = bodies.iter().map(|_| sim.next_id()).collect();
        sim.step(&mut ids.iter().zip(bodies).map(|(id, body)| Request { id: *id, body }).collect());
        for id in ids {
            let reply = sim.reply_to(id);
            assert!(matches!(reply, ReplyBody::Write(Ok(_) | Err(WriteError::Full { .. }))), "{reply:?}");
        }
        assert!(sim.get(1, &last) == Ok(None), "round {round}");
        let _ = sim.put(1, &last, &value);
    }
}

#[test]
fn room_for_a_large_catalog_is_kept_back() {
    let mut sim = sim(11, 40);
    let bound = |first: u8| [&[first][..], &[7; 4000]].concat();
    let spec = |i: u32| PartitionSpec {
        start: bound(i as u8),
        end: Some(bound(i as u8 + 1)),
        ..partition_spec(2, 100 + i)
    };
    let partitions = (0..20).map(spec).collect();
    sim.catalog(RequestBody::CreateTable { table: table_spec(2, StoreKind::Durable), partitions })
        .expect("there is room");
    let taken = fill(&mut sim, 1, 2000);
    for round in 0..500u32 {
        let key = (round * 7 % taken).to_be_bytes();
        sim.put(1, &key, &[round as u8; 2000]).expect("what takes the place of another is always taken");
        if round % 50 == 0 {
            sim.checkpoint().expect("there is room");
        }
    }
    assert!(sim.shard.stats().image_bytes > 5 * u64::from(SEGMENT), "a large image");
    sim.crash();
    sim.run_until_serving();
    assert_eq!(sim.tables().iter().map(|(_, partitions)| partitions.len()).sum::<usize>(), 22);
}

#[test]
fn a_table_too_large_for_the_drive_is_refused_and_leaves_nothing() {
    let mut sim = sim(12, MIN_SEGMENTS);
    sim.put(1, b"k", b"v").expect("there is room");
    for _ in 0..3 {
        let partitions: Vec<u32> = (1000..31_000).collect();
        assert_eq!(sim.create(2, StoreKind::Durable, &partitions), Err(CatalogError::Full));
        sim.settle();
        sim.put(1, b"k", b"v").expect("there is room");
        assert_eq!(sim.tables().len(), 1);
    }
    sim.create(2, StoreKind::Durable, &[1500]).expect("a small one");
    sim.crash();
    sim.run_until_serving();
    assert_eq!(sim.tables(), [(1, vec![1, 2]), (2, vec![1500])]);
    assert!(fill(&mut sim, 1500, 1000) > 50);
}

#[test]
fn writes_on_their_way_count_against_the_limit() {
    let mut sim = sim(13, 40);
    sim.config.frame_bytes = 256 << 10;
    let limit = sim.shard.stats().live_limit_bytes;
    // All at once: none of them is in the index before the last one was looked at.
    let len = 1000;
    let count = (limit / len * 2) as u32;
    let keys: Vec<_> = (0..count).map(u32::to_be_bytes).collect();
    let value = vec![3; len as usize];
    let ids: Vec<_> = keys.iter().map(|_| sim.next_id()).collect();
    let put = |key| RequestBody::Put {
        target: target(1),
        key,
        value: &value,
        condition: Condition::Always,
        ttl: Ttl::Table,
    };
    for step in ids.chunks(200).zip(keys.chunks(200)) {
        let requests = step.0.iter().zip(step.1);
        sim.step(&mut requests.map(|(id, key)| Request { id: *id, body: put(key.as_slice()) }).collect());
        assert!(sim.shard.stats().live_bytes <= limit);
    }
    let taken = ids.into_iter().filter(|id| match sim.reply_to(*id) {
        ReplyBody::Write(Ok(_)) => true,
        ReplyBody::Write(Err(WriteError::Full { .. } | WriteError::Busy)) => false,
        other => panic!("{other:?}"),
    });
    let taken = taken.count() as u64;
    let stats = sim.shard.stats();
    assert_eq!(stats.live_bytes, taken * room(30 + 4 + len));
    // That before them: the index that came with them has made the limit lower since they were looked at.
    assert!(stats.live_bytes <= limit, "{} of {limit}", stats.live_bytes);
    assert!(stats.live_bytes > limit * 9 / 10, "{} of {limit}", stats.live_bytes);
}

/// The highest generation in the segment headers that are on the drive.
fn highest_generation_on_drive(sim: &Sim) -> u32 {
    let blocks = sim.drive.now.chunks_exact(4096).filter(|block| block.starts_with(b"LSEG"));
    blocks.map(|block| u32::from_le_bytes(block[12..16].try_into().expect("four bytes"))).max().unwrap_or(0)
}

#[test]
fn a_generation_never_comes_again_though_its_segment_was_discarded() {
    let mut sim = sim(14, 40);
    sim.config.discard = true;
    sim.reopen();
    let mut highest = 0;
    for round in 0..20u32 {
        for i in 0..60 {
            sim.put(1, &u32::to_be_bytes(i), &[round as u8; 3000]).expect("there is room");
        }
        highest = highest.max(highest_generation_on_drive(&sim));
        for i in 0..60 {
            sim.delete(1, &u32::to_be_bytes(i)).expect("a delete");
        }
        sim.checkpoint().expect("there is room");
        sim.checkpoint().expect("there is room");
        sim.settle();
        let left = highest_generation_on_drive(&sim);
        sim.crash();
        sim.run_until_serving();
        sim.put(1, b"after", b"x").expect("there is room");
        let next = highest_generation_on_drive(&sim);
        assert!(next > highest, "round {round}: {next} after {highest}, of which {left} was left");
        highest = next;
    }
}
