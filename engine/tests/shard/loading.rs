//! A start serves before the index is in memory: partitions are loaded when they are asked for, the others
//! behind, and nothing that depends on knowing all of them happens before.

use crate::support::ask::{index_kind, room, target};
use crate::support::{Sim, UUID};
use lode_engine::format::ChecksumSeed;
use lode_engine::format::frame::{FRAME_HEADER_BYTES, FrameHeader, Stream};
use lode_engine::{
    CatalogError, Geometry, KeyRange, PartitionId, Phase, ReadError, ReplyBody, Request, RequestBody,
    RequestId, ShardId, StoreKind, WriteError,
};

const BLOCK: usize = 4096;
const PARTITIONS: u32 = 12;
const RECORDS: u32 = 12_000;

fn key(i: u32) -> Vec<u8> {
    format!("s{i:06}/what/no/two/key/have").into_bytes()
}

/// Partitions that each take several frames of the image, a checkpoint, and a little behind it.
fn filled(seed: u64) -> Sim {
    filled_with(seed, RECORDS)
}

fn filled_with(seed: u64, records: u32) -> Sim {
    let geometry = Geometry::plan(96 << 20, 1, Some(256 << 10), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| config.cache_bytes = 0);
    let partitions: Vec<u32> = (1..=PARTITIONS).collect();
    sim.create(1, StoreKind::Durable, &partitions).expect("the drive is empty");
    for partition in 1..=PARTITIONS {
        for first in (0..records).step_by(500) {
            let keys: Vec<_> = (first..first + 500).map(key).collect();
            let writes =
                keys.iter().map(|key| lode_engine::BatchWrite::Put { key, value: b"image" }).collect();
            sim.batch(partition, writes).expect("there is room");
        }
    }
    sim.checkpoint().expect("there is room");
    for partition in 1..=PARTITIONS {
        sim.put(partition, &key(5), b"tail").expect("there is room");
        sim.delete(partition, &key(6)).expect("there is room");
        sim.put(partition, b"new", b"tail").expect("there is room");
    }
    sim
}

/// A new process that has begun to serve, of which nothing was asked yet.
fn started(sim: &mut Sim) {
    sim.drive.settle();
    sim.restart();
    sim.run_until_serving();
}

fn unloaded(sim: &Sim) -> u64 {
    sim.shard.stats().partitions_unloaded
}

#[test]
fn a_request_waits_for_its_own_partition_and_no_other() {
    // More of an image than the background begins at once.
    let records = 3 * RECORDS;
    let mut sim = filled_with(1, records);
    started(&mut sim);
    assert!(unloaded(&sim) > u64::from(PARTITIONS) - 3, "{} of {PARTITIONS} unloaded", unloaded(&sim));
    // What was written first was halved most often, and is loaded last.
    assert_eq!(sim.get(1, &key(5)), Ok(Some(b"tail".to_vec())));
    assert!(sim.shard.is_loaded(PartitionId(1)) && unloaded(&sim) > 0, "{} unloaded", unloaded(&sim));
    for partition in [1, 12, 7] {
        assert_eq!(sim.get(partition, &key(5)), Ok(Some(b"tail".to_vec())));
        assert_eq!(sim.get(partition, &key(6)), Ok(None));
        assert_eq!(sim.get(partition, &key(7)), Ok(Some(b"image".to_vec())));
        assert_eq!(sim.count(partition), Ok(u64::from(records)));
    }
    sim.settle();
    assert_eq!(unloaded(&sim), 0, "the background loads the rest");
    assert!(!sim.shard.is_loading());
    for partition in 1..=PARTITIONS {
        assert_eq!(sim.count(partition), Ok(u64::from(records)));
    }
    let stats = sim.shard.stats();
    assert_eq!(stats.records, u64::from(PARTITIONS * records));
    assert_eq!(stats.recovered_image_records, u64::from(PARTITIONS * records));
    assert_eq!((stats.quarantined_frames, stats.corrupt_records), (0, 0));
    let live = u64::from(PARTITIONS)
        * (u64::from(records - 2) * room(30 + 28 + 5) + room(30 + 28 + 4) + room(30 + 3 + 4));
    assert_eq!(stats.live_bytes, live, "as if it had never stopped");
}

/// Found by the simulator (seed 1067 of its first version): a partition was quarantined because a read had timed out.
#[test]
fn reads_that_fail_for_a_moment_are_tried_again() {
    let mut sim = filled(9);
    started(&mut sim);
    let blocks = sim.config.geometry.drive_bytes as usize / BLOCK;
    sim.drive.unreadable.extend(0..blocks);
    sim.drive.unreadable_os_error = 110;
    sim.drive.unreadable_times = Some(10);
    sim.settle();
    assert_eq!((sim.drive.unreadable_times, unloaded(&sim)), (Some(0), 0));
    assert_eq!(sim.shard.stats().quarantined_frames, 0);
    for partition in 1..=PARTITIONS {
        assert_eq!(sim.get(partition, &key(7)), Ok(Some(b"image".to_vec())));
    }
}

#[test]
fn lists_and_stats_say_what_the_image_says_without_loading() {
    let mut sim = filled(2);
    started(&mut sim);
    let before = unloaded(&sim);
    let ReplyBody::Tables(tables) = sim.ask(RequestBody::ListTables) else { panic!("no tables") };
    assert!(before >= unloaded(&sim) && unloaded(&sim) > 0);
    for partition in &tables[0].1 {
        assert_eq!(partition.records, u64::from(RECORDS));
        assert!(partition.bytes.abs_diff(u64::from(RECORDS) * room(30 + 28 + 5)) < 100);
    }
    let stats = sim.shard.stats();
    assert_eq!(stats.records, u64::from(PARTITIONS * RECORDS));
    sim.settle();
    let after = sim.shard.stats();
    assert_eq!(after.records, stats.records);
    assert!(after.live_bytes.abs_diff(stats.live_bytes) < 100 * u64::from(PARTITIONS));
}

/// Sends requests in one step; gives the answers in their order.
fn ask_all(sim: &mut Sim, bodies: Vec<RequestBody<'_>>) -> Vec<(RequestId, ReplyBody)> {
    let mut requests: Vec<_> = bodies.into_iter().map(|body| Request { id: sim.next_id(), body }).collect();
    let count = requests.len();
    sim.step(&mut requests);
    while sim.replies.len() < count {
        assert!(!sim.is_stuck(), "{} of {count} answered", sim.replies.len());
        sim.step(&mut Vec::new());
    }
    sim.replies.drain(..).map(|reply| (reply.id, reply.body)).collect()
}

#[test]
fn requests_of_a_partition_take_place_in_their_order() {
    let mut sim = filled(3);
    started(&mut sim);
    let (target, keys) = (target(9), [key(5), key(8)]);
    let put = |value| RequestBody::Put {
        target,
        key: &keys[1],
        value,
        condition: lode_engine::Condition::Always,
        ttl: lode_engine::Ttl::Never,
    };
    let add = RequestBody::Modify {
        target,
        key: b"counter",
        change: lode_engine::Change::Increment { by: 1, initial: 0 },
    };
    let count = RequestBody::Count { target, range: KeyRange::default() };
    let scan = RequestBody::Scan {
        target,
        range: KeyRange::default(),
        reverse: true,
        limit: 1,
        byte_budget: 100,
        keys_only: true,
    };
    let ttl = RequestBody::TimeToLive { target, key: &keys[0] };
    let bodies = vec![put(b"1"), put(b"2"), add.clone(), add, count, scan, ttl, put(b"3")];
    let answers = ask_all(&mut sim, bodies);
    let mut seqs: Vec<_> = answers
        .iter()
        .filter_map(|(id, body)| match body {
            ReplyBody::Write(result) => Some((*id, result.clone().expect("there is room"))),
            ReplyBody::Count(count) => {
                assert_eq!(*count, Ok(u64::from(RECORDS)));
                None
            }
            ReplyBody::Scan(page) => {
                let page = page.as_ref().expect("it is there");
                assert_eq!(&page.records[0].key[..], key(RECORDS - 1));
                None
            }
            ReplyBody::TimeToLive(left) => {
                assert!(matches!(left, Ok(Some(lode_engine::TimeLeft::Forever))));
                None
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seqs.len(), 5);
    seqs.sort_by_key(|(id, _)| *id);
    assert!(seqs.is_sorted_by(|a, b| a.1.seq < b.1.seq), "{seqs:?}");
    assert_eq!([&seqs[2], &seqs[3]].map(|(_, written)| written.number), [Some(1), Some(2)]);
    assert_eq!(sim.get(9, &key(8)), Ok(Some(b"3".to_vec())));
}

#[test]
fn no_more_wait_than_may_and_those_that_nobody_wants_are_given_up() {
    let mut sim = filled(4);
    sim.config.max_queued_requests = 10;
    started(&mut sim);
    let key = key(7);
    let get = |partition| RequestBody::Get { target: target(partition), key: &key };
    let answers = ask_all(&mut sim, (0..25).map(|i| get(1 + i % 4)).collect());
    let is_busy = |(_, body): &&(RequestId, ReplyBody)| matches!(body, ReplyBody::Get(Err(ReadError::Busy)));
    assert_eq!(answers.iter().filter(is_busy).count(), 15);
    for (_, body) in answers {
        if let ReplyBody::Get(Ok(Some(found))) = body {
            assert_eq!(sim.value(found.value), b"image");
        }
    }
    sim.settle();
    assert_eq!(sim.buffers.in_use(), 0);

    started(&mut sim);
    let mut requests: Vec<_> = (0..3).map(|_| Request { id: sim.next_id(), body: get(2) }).collect();
    let ids: Vec<_> = requests.iter().map(|request| request.id).collect();
    sim.step(&mut requests);
    assert_eq!(sim.shard.stats().requests_parked, 3);
    sim.unwanted = vec![ids[1]];
    sim.step(&mut Vec::new());
    assert!(matches!(sim.reply_to(ids[1]), ReplyBody::Get(Err(ReadError::Busy))));
    for id in [ids[0], ids[2]] {
        let ReplyBody::Get(Ok(Some(found))) = sim.reply_to(id) else { panic!("an answer") };
        assert_eq!(sim.value(found.value), b"image");
    }
}

#[test]
fn a_partition_is_dropped_before_it_is_loaded_or_while_it_is() {
    for steps in 0..30 {
        let mut sim = filled(5 + steps);
        started(&mut sim);
        let gone = PartitionId(11);
        let key = key(7);
        let get = RequestBody::Get { target: target(11), key: &key };
        let id = sim.next_id();
        if steps % 2 == 0 {
            sim.step(&mut vec![Request { id, body: get }]);
        }
        for _ in 0..steps / 2 {
            sim.step(&mut Vec::new());
        }
        sim.catalog(RequestBody::DropPartition { partition: gone }).expect("it is there");
        if steps % 2 == 0 {
            match sim.reply_to(id) {
                ReplyBody::Get(Ok(Some(found))) => assert_eq!(sim.value(found.value), b"image"),
                ReplyBody::Get(Err(ReadError::UnknownPartition(id))) => assert_eq!(id, gone),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(sim.get(11, &key), Err(ReadError::UnknownPartition(gone)));
        sim.settle();
        let stats = sim.shard.stats();
        assert_eq!(stats.records, u64::from((PARTITIONS - 1) * RECORDS));
        let each = u64::from(RECORDS - 2) * room(30 + 28 + 5) + room(30 + 28 + 4) + room(30 + 3 + 4);
        assert_eq!(stats.live_bytes, u64::from(PARTITIONS - 1) * each, "after {steps} steps");
        assert_eq!((stats.partitions_unloaded, sim.buffers.in_use()), (0, 0));
        started(&mut sim);
        assert_eq!(sim.get(11, &key), Err(ReadError::UnknownPartition(gone)));
        assert_eq!(sim.count(10), Ok(u64::from(RECORDS)));
    }
}

#[test]
fn nothing_is_freed_and_no_checkpoint_begins_before_all_is_loaded() {
    let mut sim = filled(40);
    started(&mut sim);
    let checkpoints = sim.shard.stats().checkpoints;
    let id = sim.next_id();
    sim.step(&mut vec![Request { id, body: RequestBody::Checkpoint }]);
    let mut free = sim.shard.stats().segments_free;
    while sim.shard.is_loading() {
        let stats = sim.shard.stats();
        assert!(stats.segments_free <= free + 4, "segments came free: {free} to {}", stats.segments_free);
        free = free.min(stats.segments_free);
        assert_eq!((stats.checkpoints, stats.segments_cleaned), (checkpoints, 0));
        sim.step(&mut Vec::new());
    }
    assert!(matches!(sim.reply_to(id), ReplyBody::Checkpoint(Ok(()))));
}

#[test]
fn partitions_in_use_are_loaded_first() {
    let mut sim = filled(41);
    for _ in 0..50 {
        for partition in [4, 10] {
            sim.get(partition, &key(9)).expect("it is there");
        }
    }
    sim.checkpoint().expect("there is room");
    started(&mut sim);
    let mut order = Vec::new();
    while sim.shard.is_loading() {
        sim.step(&mut Vec::new());
        for partition in 1..=PARTITIONS {
            if !order.contains(&partition) && sim.shard.is_loaded(PartitionId(partition)) {
                order.push(partition);
            }
        }
    }
    // One step may load several.
    assert!([4, 10].iter().all(|partition| order[..5].contains(partition)), "loaded in the order {order:?}");
}

#[test]
fn a_put_that_finds_no_segment_while_partitions_are_loaded_is_told_to_come_back() {
    let mut sim = filled(42);
    let value = vec![1; 8000];
    let mut wide = 0;
    while sim.put(1, &[&b"fill"[..], &key(wide)[..]].concat(), &value).is_ok() {
        wide += 1;
    }
    // Until cleaning leaves no more free than it must.
    for i in 0..2_000 {
        sim.put(1, &[&b"fill"[..], &key(i * 7 % wide)[..]].concat(), &value).expect("it replaces another");
    }
    sim.settle();
    started(&mut sim);
    let keys: Vec<_> = (0..2200).map(|i| [&b"fill"[..], &key(i)[..]].concat()).collect();
    let (target, condition, ttl) = (target(1), lode_engine::Condition::Always, lode_engine::Ttl::Never);
    let put = |key| RequestBody::Put { target, key, value: &value, condition, ttl };
    let answers = ask_all(&mut sim, keys.iter().map(|key| put(key)).collect());
    let mut busy = 0;
    for (_, answer) in answers {
        match answer {
            ReplyBody::Write(Ok(_)) => {}
            ReplyBody::Write(Err(WriteError::Busy)) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    // With a compact index their partition may be the last that is there: nothing is being loaded any more.
    assert!(busy > 0 || index_kind() == lode_engine::IndexKind::Compact, "all puts found room");
    sim.settle();
    for i in 0..200 {
        sim.put(1, &[&b"fill"[..], &key(i)[..]].concat(), &value).expect("there is room again");
    }
}

/// Frames of the newest image that hold indexes, with their headers.
fn index_frames(sim: &Sim) -> Vec<(usize, FrameHeader)> {
    let seed = ChecksumSeed::new(&UUID, ShardId(0));
    let area = sim.config.geometry.area_at(ShardId(0)).0 as usize;
    let end = area + sim.config.geometry.area_bytes() as usize;
    let found = (area..end).step_by(BLOCK).filter_map(|at| {
        let header = FrameHeader::decode_any(seed, (at - area) as u64, &sim.drive.now[at..at + BLOCK])?;
        (header.stream == Stream::Image && sim.drive.now[at + FRAME_HEADER_BYTES] == 2)
            .then_some((at, header))
    });
    let found: Vec<_> = found.collect();
    let newest = found.iter().map(|(_, header)| header.durable).max();
    found.into_iter().filter(|(_, header)| Some(header.durable) == newest).collect()
}

/// Changes a byte of a frame's payload, and makes its checksums fit.
fn forge(sim: &mut Sim, at: usize, header: FrameHeader, byte: usize, value: u8) {
    let area = sim.config.geometry.area_at(ShardId(0)).0 as usize;
    let payload_at = at + FRAME_HEADER_BYTES;
    let mut frame = sim.drive.now[at..payload_at + header.payload_bytes as usize].to_vec();
    frame[FRAME_HEADER_BYTES + byte] = value;
    let detail = crc32c::crc32c(&frame[FRAME_HEADER_BYTES..]);
    let seed = ChecksumSeed::new(&UUID, ShardId(0));
    FrameHeader { detail, ..header }.encode(seed, (at - area) as u64, &mut frame);
    sim.drive.put(at, &frame);
}

/// Whatever an image says whose checksums fit: the shard opens, nothing panics, nobody waits for ever.
#[test]
fn a_forged_image_never_breaks_a_shard() {
    let mut sim = filled(43);
    sim.drive.settle();
    let (before, frames) = (sim.drive.now.clone(), index_frames(&sim));
    assert!(frames.len() > 20, "{} frames", frames.len());
    let mut damaged = 0;
    for round in 0..400u64 {
        sim.drive.put(0, &before);
        let (at, header) = frames[sim.random.below(frames.len() as u64) as usize];
        for _ in 0..1 + round % 3 {
            let most = if round % 2 == 0 { 600 } else { u64::from(header.payload_bytes) };
            let byte = sim.random.below(most.min(u64::from(header.payload_bytes))) as usize;
            let value = sim.random.next() as u8;
            forge(&mut sim, at, header, byte, value);
        }
        sim.restart();
        assert_eq!(sim.run_recovery(), Phase::Serving);
        for partition in 1..=PARTITIONS {
            let found = sim.get(partition, &key(round as u32 % RECORDS));
            let is_said =
                matches!(found, Ok(_) | Err(ReadError::Quarantined { .. } | ReadError::Corrupt { .. }));
            assert!(is_said, "{found:?}");
            let written = sim.put(partition, &key(round as u32), b"since");
            assert!(written.is_ok(), "{written:?}");
            assert_eq!(sim.get(partition, &key(round as u32)), Ok(Some(b"since".to_vec())));
        }
        sim.settle();
        damaged += sim.shard.stats().quarantined_frames;
        assert_eq!(unloaded(&sim), 0);
    }
    assert!(damaged > 150, "{damaged} partitions were found damaged");
}

/// Where an image puts a record at another's place, the record that lies there is not given for it.
#[test]
fn a_forged_place_never_gives_another_keys_value() {
    let geometry = Geometry::plan(4 << 20, 1, Some(64 << 10), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(46, geometry, |config| config.cache_bytes = 0);
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    let value = |i: u32| format!("the value of {i:02}").into_bytes();
    for i in 0..40 {
        sim.put(1, &key(i), &value(i)).expect("there is room");
    }
    sim.checkpoint().expect("there is room");
    sim.drive.settle();
    let (before, frames) = (sim.drive.now.clone(), index_frames(&sim));
    let (at, header) = *frames.last().expect("an image has frames");
    let mut refused = 0;
    for round in 0..200 {
        sim.drive.put(0, &before);
        let byte = round % header.payload_bytes as usize;
        let value_of_byte = sim.random.next() as u8;
        forge(&mut sim, at, header, byte, value_of_byte);
        started(&mut sim);
        for i in 0..40 {
            match sim.get(1, &key(i)) {
                Ok(Some(found)) => assert_eq!(found, value(i), "key {i} in round {round}"),
                Ok(None) | Err(ReadError::Quarantined { .. }) => {}
                Err(ReadError::Corrupt { .. }) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(refused > 5, "{refused} records were found to be others");
}

#[test]
fn a_damaged_frame_condemns_its_partitions_alone() {
    let mut sim = filled(44);
    sim.drive.settle();
    let frames = index_frames(&sim);
    let (at, _) = frames[frames.len() / 2];
    sim.drive.flip(at + 700);
    started(&mut sim);
    sim.settle();
    let quarantined =
        (1..=PARTITIONS).filter(|p| matches!(sim.count(*p), Err(ReadError::Quarantined { .. })));
    let quarantined = quarantined.collect::<Vec<_>>();
    assert!((1..=2).contains(&quarantined.len()), "{quarantined:?}");
    assert_eq!(sim.shard.stats().quarantined_frames, quarantined.len() as u64);
    assert_eq!(sim.get(quarantined[0], b"new"), Ok(Some(b"tail".to_vec())), "written since the image");
}

/// A piece of an image is misread by one start and read by the next: what was deleted in between does not come back, and the
/// warning stays, for what cleaning moved meanwhile may be what was replaced.
#[test]
fn a_delete_of_what_an_image_lost_for_a_while_holds() {
    let mut sim = filled(47);
    sim.drive.settle();
    let frames = index_frames(&sim);
    let (at, _) = frames[frames.len() / 2];
    sim.drive.flip(at + 700);
    started(&mut sim);
    let partition = (1..=PARTITIONS).find(|p| sim.count(*p).is_err()).expect("one is quarantined");
    let mut lost = Vec::new();
    for i in (100..RECORDS).step_by(20) {
        let deleted = sim.delete(partition, &key(i)).expect("a delete");
        lost.extend((!deleted.existed).then_some(i));
    }
    assert!(!lost.is_empty() && lost.len() < 500, "{} records were not there", lost.len());
    // The journal covers the frame that it is in.
    for i in 0..80u32 {
        sim.put(PARTITIONS, &i.to_be_bytes(), &[7; 8_000]).expect("there is room");
    }
    sim.settle();
    sim.drive.flip(at + 700);
    sim.crash();
    sim.run_until_serving();
    for i in lost {
        let found = sim.get(partition, &key(i));
        assert!(matches!(found, Err(ReadError::Quarantined { .. })), "key {i}: {found:?}");
    }
}

#[test]
fn a_table_cannot_be_made_twice_and_can_be_made_while_others_are_loaded() {
    let mut sim = filled(45);
    started(&mut sim);
    assert_eq!(sim.create(1, StoreKind::Durable, &[77]), Err(CatalogError::TableExists));
    sim.create(2, StoreKind::Durable, &[50]).expect("there is room");
    sim.put(50, b"k", b"v").expect("there is room");
    // Images of compact indexes are small: they are in by then.
    assert!(sim.shard.is_loading() || index_kind() == lode_engine::IndexKind::Compact);
    assert_eq!(sim.get(50, b"k"), Ok(Some(b"v".to_vec())));
}
