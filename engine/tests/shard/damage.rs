//! Bits rot and sectors fail: what is damaged says so, its neighbours are served, and nothing old is
//! given for new.

use crate::support::ask::index_kind;
use crate::support::{Sim, UUID};
use lode_engine::format::ChecksumSeed;
use lode_engine::format::frame::{FrameHeader, Stream};
use lode_engine::format::segment::SegmentHeader;
use lode_engine::format::superblock::{RootLocation, Superblock};
use lode_engine::{
    Condition, Generation, Geometry, IndexKind, OpenError, Phase, ReadError, RequestBody, SegmentId, ShardId,
    StoreKind, WriteError,
};

const BLOCK: usize = 4096;
pub const SEGMENT: u32 = 64 << 10;

pub fn sim(seed: u64) -> Sim {
    sim_of(seed, 2 << 20)
}

fn sim_of(seed: u64, drive_bytes: u64) -> Sim {
    let geometry = Geometry::plan(drive_bytes, 1, Some(SEGMENT), 8 << 10).expect("the drive is large enough");
    // No cache: every read is of the drive.
    let mut sim = Sim::format(seed, geometry, |config| config.cache_bytes = 0);
    sim.create(1, StoreKind::Durable, &[1, 2]).expect("the drive is empty");
    sim
}

fn seed() -> ChecksumSeed {
    ChecksumSeed::new(&UUID, ShardId(0))
}

pub fn value(name: &str) -> Vec<u8> {
    format!("<{name}>").into_bytes().repeat(40)
}

pub fn area_at(sim: &Sim) -> usize {
    sim.config.geometry.area_at(ShardId(0)).0 as usize
}

/// All frames of a stream: where on the drive, and their headers, in the order of their numbers.
pub fn frames(sim: &Sim, stream: Stream) -> Vec<(usize, FrameHeader)> {
    let area = area_at(sim);
    let end = area + sim.config.geometry.area_bytes() as usize;
    let decode = |at: usize| {
        let header = FrameHeader::decode_any(seed(), (at - area) as u64, &sim.drive.now[at..at + BLOCK])?;
        (header.stream == stream).then_some((at, header))
    };
    let mut found: Vec<_> = (area..end).step_by(BLOCK).filter_map(decode).collect();
    found.sort_by_key(|(_, header)| (header.generation, header.number));
    found
}

/// Where a value lies on the drive, last copy first.
pub fn find(sim: &Sim, value: &[u8]) -> usize {
    sim.drive.now.windows(value.len()).rposition(|bytes| bytes == value).expect("the value was written")
}

fn superblock(sim: &Sim, at: usize) -> Option<Superblock> {
    Superblock::decode(seed(), at as u64, &sim.drive.now[at..at + BLOCK])
}

/// Slots of the newest superblock: head and mirror.
fn newest_slots(sim: &Sim) -> [usize; 2] {
    let slots = sim.config.geometry.superblock_slots(ShardId(0)).map(|slot| slot.0 as usize);
    let version = |slot: usize| superblock(sim, slot).map_or(0, |superblock| superblock.version);
    if version(slots[0]) > version(slots[1]) { [slots[0], slots[2]] } else { [slots[1], slots[3]] }
}

fn is_corrupt<T: std::fmt::Debug>(result: &Result<T, ReadError>) -> bool {
    matches!(result, Err(ReadError::Corrupt { .. }))
}

/// No version is newer.
pub const NEWEST: lode_engine::Seq =
    lode_engine::Seq { wall_ns: u64::MAX, counter: u32::MAX, node: lode_engine::NodeId(u32::MAX) };

/// Whether it says that writes up to some version may be lost, and to no newer one than `newest`.
pub fn is_quarantined<T: std::fmt::Debug>(result: &Result<T, ReadError>, newest: lode_engine::Seq) -> bool {
    matches!(result, Err(ReadError::Quarantined { upto }) if *upto <= newest)
}

#[test]
fn a_rotten_value_answers_corrupt_and_its_neighbours_are_served() {
    let mut sim = sim(1);
    for name in ["a", "b", "c"] {
        sim.put(1, name.as_bytes(), &value(name)).unwrap();
    }
    let at = find(&sim, &value("b"));
    sim.drive.flip(at + 7);
    assert!(is_corrupt(&sim.get(1, b"b")));
    assert_eq!(sim.get(1, b"a"), Ok(Some(value("a"))));
    assert_eq!(sim.get(1, b"c"), Ok(Some(value("c"))));
    assert!(is_corrupt(&sim.scan(1, 10, 1 << 20)), "a page with a hole would pass for the whole truth");
    let refused = sim.put_if(1, b"b", b"new", Condition::IfAbsent);
    assert!(matches!(refused, Err(WriteError::Corrupt { .. })), "{refused:?}");
    assert_eq!(sim.shard.stats().corrupt_records, 3);
    sim.put(1, b"b", b"new").unwrap();
    assert_eq!(sim.get(1, b"b"), Ok(Some(b"new".to_vec())), "an overwrite heals");
}

/// Found by the simulator (seed 1 of its first version): conditions told of damage where a read had timed out.
#[test]
fn a_read_that_fails_for_a_moment_is_told_as_that_and_not_as_damage() {
    let mut sim = sim(1);
    sim.put(1, b"a", &value("a")).unwrap();
    let block = find(&sim, &value("a")) / BLOCK;
    sim.drive.unreadable.insert(block);
    sim.drive.unreadable_os_error = 110;
    let failed = sim.get(1, b"a");
    assert!(matches!(failed, Err(ReadError::Device { os_error: 110, .. })), "{failed:?}");
    let refused = sim.put_if(1, b"a", b"new", Condition::IfAbsent);
    assert!(matches!(refused, Err(WriteError::Device { os_error: 110, .. })), "{refused:?}");
    let refused = sim.increment(1, b"a", 1);
    assert!(matches!(refused, Err(WriteError::Device { os_error: 110, .. })), "{refused:?}");
    sim.drive.unreadable.clear();
    assert_eq!(sim.get(1, b"a"), Ok(Some(value("a"))));
    assert_eq!((sim.shard.stats().corrupt_records, sim.shard.stats().failed_reads), (0, 3));
}

#[test]
fn a_bad_block_between_the_records_of_a_scan_is_none_of_theirs() {
    let mut sim = sim(2);
    for name in ["a", "b", "c"] {
        sim.put(1, name.as_bytes(), &value(name)).unwrap();
    }
    let block = find(&sim, &value("b")) / BLOCK;
    sim.delete(1, b"b").unwrap();
    let before = sim.shard.stats().device_reads;
    assert_eq!(sim.scan(1, 10, 1 << 20).map(|page| page.records.len()), Ok(2));
    assert_eq!(sim.shard.stats().device_reads - before, 1, "what lies between is read, too");
    sim.drive.unreadable.insert(block);
    let page = sim.scan(1, 10, 1 << 20).expect("neither record is damaged");
    let values: Vec<_> = page.records.iter().map(|record| record.value.to_vec()).collect();
    assert_eq!(values, [value("a"), value("c")]);
    assert_eq!((sim.shard.stats().corrupt_records, sim.shard.stats().failed_reads), (0, 0));
}

#[test]
fn a_block_that_cannot_be_read_costs_its_own_records_and_nothing_more() {
    let mut sim = sim(2);
    for name in ["a", "b", "c"] {
        sim.put(1, name.as_bytes(), &value(name)).unwrap();
    }
    let block = find(&sim, &value("b")) / BLOCK;
    sim.drive.unreadable.insert(block);
    assert!(is_corrupt(&sim.get(1, b"b")));
    assert_eq!(sim.get(1, b"a"), Ok(Some(value("a"))));
    sim.put(2, b"later", b"makes the frames before it known as durable").unwrap();
    sim.reopen();
    assert_eq!(sim.shard.stats().quarantined_frames, 1, "the one frame, not the chunk it was read in");
    assert!(is_quarantined(&sim.get(1, b"b"), NEWEST));
    assert!(
        is_quarantined(&sim.get(1, b"a"), NEWEST),
        "older than what was lost, of a frame whose header is lost"
    );
    assert_eq!(sim.get(1, b"c"), Ok(Some(value("c"))), "newer than what was lost");
}

#[test]
fn a_damaged_frame_below_the_watermark_never_lets_an_old_value_through() {
    let mut sim = sim(3);
    sim.put(1, b"k", &value("old")).unwrap();
    sim.put(1, b"untouched", &value("untouched")).unwrap();
    sim.put(2, b"other", &value("other")).unwrap();
    sim.checkpoint().unwrap();
    sim.put(1, b"k", &value("new")).unwrap();
    let after = sim.put(1, b"after", &value("after")).unwrap().seq;
    let at = find(&sim, &value("new"));
    sim.drive.flip(at);
    for round in 0..3 {
        sim.reopen();
        assert!(is_quarantined(&sim.get(1, b"k"), after), "round {round}");
        assert!(
            is_quarantined(&sim.get(1, b"untouched"), after),
            "it may have been overwritten in the lost frame"
        );
        assert!(is_quarantined(&sim.get(1, b"absent"), after), "it may have been written in the lost frame");
        assert!(is_quarantined(&sim.count(1), after) && is_quarantined(&sim.scan(1, 9, 9), after));
        for key in [&b"absent"[..], b"untouched"] {
            let refused = sim.put_if(1, key, b"1", Condition::IfAbsent);
            assert!(matches!(refused, Err(WriteError::Quarantined { upto }) if upto <= after), "{refused:?}");
        }
        assert_eq!(sim.get(1, b"after"), Ok(Some(value("after"))));
        assert_eq!(sim.get(2, b"other"), Ok(Some(value("other"))), "the frame held nothing of partition 2");
        if round == 1 {
            // The image remembers what the log can no longer tell.
            sim.checkpoint().unwrap();
        }
    }
    sim.put(1, b"k", b"newest").unwrap();
    assert_eq!(sim.get(1, b"k"), Ok(Some(b"newest".to_vec())));
    sim.reopen();
    assert_eq!(sim.get(1, b"k"), Ok(Some(b"newest".to_vec())));
}

#[test]
fn a_frame_without_a_trace_below_the_watermark_concerns_every_partition() {
    let mut sim = sim(4);
    sim.put(2, b"other", &value("other")).unwrap();
    sim.put(1, b"k", &value("lost")).unwrap();
    sim.put(1, b"after", &value("after")).unwrap();
    let header = find(&sim, &value("lost")) / BLOCK * BLOCK;
    sim.drive.flip(header + 30);
    sim.reopen();
    assert_eq!(sim.shard.stats().quarantined_frames, 1);
    for (partition, key) in [(1, &b"k"[..]), (2, b"other"), (2, b"absent")] {
        assert!(is_quarantined(&sim.get(partition, key), NEWEST));
    }
    assert_eq!(sim.get(1, b"after"), Ok(Some(value("after"))));
}

/// A checkpoint puts the damage behind the log's start: the start after it would take a table that another shard still
/// holds for one that was never made.
#[test]
fn that_damage_may_have_taken_tables_is_known_until_somebody_has_looked_for_them() {
    let mut sim = sim(4);
    sim.put(1, b"k", &value("lost")).unwrap();
    sim.put(1, b"after", &value("after")).unwrap();
    sim.reopen();
    assert_eq!(sim.shard.stats().may_lack_tables, 0, "nothing is damaged");
    let header = find(&sim, &value("lost")) / BLOCK * BLOCK;
    sim.drive.flip(header + 30);
    for round in 0..3 {
        sim.reopen();
        assert_eq!(sim.shard.stats().may_lack_tables, 1, "round {round}");
        // Durable before anything is served: the journal puts the damage behind the next start, too.
        let says = newest_slots(&sim).map(|slot| superblock(&sim, slot).map(|found| found.may_lack_tables));
        assert!(says.contains(&Some(true)), "round {round}: {says:?}");
        sim.checkpoint().unwrap();
    }
    assert_eq!(sim.shard.stats().quarantined_frames, 0, "the log tells of no damage any more");
    sim.catalog(RequestBody::HasAllTables).unwrap();
    assert_eq!(sim.shard.stats().may_lack_tables, 0);
    sim.settle();
    sim.reopen();
    assert_eq!(sim.shard.stats().may_lack_tables, 0, "a checkpoint has said so");
}

#[test]
fn two_damaged_frames_in_a_row_do_not_condemn_what_is_written_later() {
    let mut sim = sim(5);
    for name in ["1", "2", "3", "4"] {
        sim.put(1, name.as_bytes(), &value(name)).unwrap();
    }
    for name in ["2", "3"] {
        let at = find(&sim, &value(name));
        sim.drive.flip(at);
    }
    sim.reopen();
    for name in ["1", "2", "3"] {
        assert!(is_quarantined(&sim.get(1, name.as_bytes()), NEWEST), "{name}");
    }
    sim.put(1, b"2", b"new").unwrap();
    assert_eq!(sim.get(1, b"2"), Ok(Some(b"new".to_vec())));
    sim.reopen();
    assert_eq!(sim.get(1, b"2"), Ok(Some(b"new".to_vec())));
}

#[test]
fn the_last_frame_torn_is_cut_and_stays_cut() {
    let mut sim = sim(6);
    sim.put(1, b"k", &value("old")).unwrap();
    sim.put(1, b"k", &value("torn")).unwrap();
    let at = find(&sim, &value("torn"));
    sim.drive.flip(at);
    sim.reopen();
    assert_eq!(sim.get(1, b"k"), Ok(Some(value("old"))), "no later frame calls it durable");
    assert_eq!(sim.shard.stats().quarantined_frames, 0);
    sim.put(1, b"other", b"1").unwrap();
    sim.drive.flip(at);
    sim.reopen();
    assert_eq!(sim.get(1, b"k"), Ok(Some(value("old"))), "what was cut once stays cut, even if it is whole");
    assert_eq!(sim.get(1, b"other"), Ok(Some(b"1".to_vec())));
}

#[test]
fn frames_that_could_not_be_read_for_a_while_do_not_displace_those_written_since() {
    let mut sim = sim(13);
    sim.put(1, b"k", &value("before")).unwrap();
    sim.put(1, b"k", &value("hidden")).unwrap();
    let block = find(&sim, &value("hidden")) / BLOCK;
    sim.drive.unreadable.insert(block);
    sim.reopen();
    assert_eq!(sim.get(1, b"k"), Ok(Some(value("before"))), "taken for a torn tail");
    sim.put(1, b"k", &value("since")).unwrap();
    sim.drive.unreadable.clear();
    sim.reopen();
    assert_eq!(sim.get(1, b"k"), Ok(Some(value("since"))));
    assert_eq!(sim.shard.stats().quarantined_frames, 0);
}

#[test]
fn a_segment_without_its_header_is_known_by_its_first_frame_or_by_the_image() {
    let mut sim = sim(7);
    for i in 0..40u32 {
        sim.put(1, &i.to_be_bytes(), &value(&format!("{i}"))).unwrap();
    }
    let first = frames(&sim, Stream::User)[0].0;
    sim.drive.flip(first - BLOCK + 9);
    sim.reopen();
    for i in 0..40u32 {
        assert_eq!(sim.get(1, &i.to_be_bytes()), Ok(Some(value(&format!("{i}")))), "key {i}");
    }
    sim.checkpoint().unwrap();
    sim.drive.flip(first + 9);
    sim.reopen();
    for i in 0..40u32 {
        assert_eq!(sim.get(1, &i.to_be_bytes()), Ok(Some(value(&format!("{i}")))), "key {i}");
    }
    assert_eq!(sim.shard.stats().quarantined_frames, 0);
}

#[test]
fn a_lost_header_of_a_segment_is_not_taken_for_its_earlier_life() {
    let mut sim = sim(8);
    for i in 0..40u32 {
        sim.put(1, &i.to_be_bytes(), &value(&format!("{i}"))).unwrap();
    }
    sim.checkpoint().unwrap();
    for i in 0..40u32 {
        sim.put(1, &i.to_be_bytes(), &value(&format!("new {i}"))).unwrap();
    }
    // The drive has said that the last headers are there, and gives what was there before.
    for stream in [Stream::User, Stream::Journal] {
        let Some((_, frame)) = frames(&sim, stream).pop() else { continue };
        let at = u64::from(frame.segment.0) * u64::from(SEGMENT);
        let earlier = SegmentHeader {
            segment: frame.segment,
            generation: Generation(frame.generation.0 - 1),
            stream: Stream::User,
        };
        let mut block = [0; BLOCK];
        earlier.encode(seed(), at, &mut block);
        let at = area_at(&sim) + at as usize;
        sim.drive.put(at, &block);
    }
    sim.reopen();
    for i in 0..40u32 {
        assert_eq!(sim.get(1, &i.to_be_bytes()), Ok(Some(value(&format!("new {i}")))), "key {i}");
    }
}

/// Found by the simulator (seed 70001749): a segment in use passed for a free one, and was written over, for one read of its header
/// gave what had been there before.
#[test]
fn a_header_that_is_read_as_it_once_was_makes_no_segment_in_use_a_free_one() {
    let mut sim = sim(9);
    let mut headers: std::collections::BTreeMap<usize, Vec<u8>> = std::collections::BTreeMap::new();
    let segments = || (0..(2 << 20) / SEGMENT as usize).map(|segment| segment * SEGMENT as usize);
    let key = |i: u32| (i % 100).to_be_bytes();
    let mut last = 0;
    // Until segments have their second life, and some their third.
    for i in 0..3_000u32 {
        sim.put(1, &key(i), &value(&format!("{i}"))).unwrap();
        last = i;
        if i == 1_000 {
            let area = area_at(&sim);
            let block = |at: usize| sim.drive.now.get(area + at..area + at + 2 * BLOCK).map(<[u8]>::to_vec);
            headers = segments().filter_map(|at| Some((at, block(at)?))).collect();
        }
    }
    sim.checkpoint().unwrap();
    let now = sim.drive.now.clone();
    let mut tried = 0;
    for (at, earlier) in headers {
        let place = area_at(&sim) + at;
        let (was, is) = (&earlier[..BLOCK], &now[place..place + BLOCK]);
        if was == is || was.iter().all(|byte| *byte == 0) {
            continue;
        }
        tried += 1;
        // One read at the start gives what was there, and later ones what is.
        sim.drive.now[place..place + earlier.len()].copy_from_slice(&earlier);
        sim.reopen();
        sim.drive.now[place..place + earlier.len()].copy_from_slice(&now[place..place + earlier.len()]);
        for i in 0..200u32 {
            sim.put(2, &i.to_be_bytes(), &value("other")).unwrap();
        }
        for i in last - 99..=last {
            assert_eq!(sim.get(1, &key(i)), Ok(Some(value(&format!("{i}")))), "segment at {at}, record {i}");
        }
        sim.drive.hold(now.clone());
        sim.reopen();
    }
    assert!(tried >= 8, "only {tried} segments were in another life");
}

#[test]
fn either_copy_of_the_newest_superblock_is_enough() {
    for copy in 0..2 {
        let mut sim = sim(8);
        for i in 0..300u32 {
            sim.put(1, &(i % 50).to_be_bytes(), &value(&format!("{i}"))).unwrap();
            if i % 97 == 0 {
                sim.checkpoint().unwrap();
            }
        }
        let slot = newest_slots(&sim)[copy];
        sim.drive.flip(slot + 100);
        sim.reopen();
        for i in 250..300u32 {
            let key = (i % 50).to_be_bytes();
            assert_eq!(sim.get(1, &key), Ok(Some(value(&format!("{i}")))), "key {i}");
        }
        sim.settle();
        let [head, mirror] = newest_slots(&sim);
        assert_eq!(superblock(&sim, head), superblock(&sim, mirror), "the start mended it");
        assert!(superblock(&sim, head).is_some());
    }
}

#[test]
fn without_any_superblock_the_shard_says_so() {
    let mut sim = sim(9);
    for slot in sim.config.geometry.superblock_slots(ShardId(0)) {
        sim.drive.flip(slot.0 as usize + 100);
    }
    sim.restart();
    assert_eq!(sim.run_recovery(), Phase::Failed(OpenError::NoSuperblock));
}

/// Image frames of the present checkpoint, by their payload's first byte.
#[test]
fn a_root_that_the_superblock_puts_outside_its_segment_is_said_to_be_damaged() {
    let mut sim = sim(9);
    sim.put(1, b"k", &value("k")).unwrap();
    sim.checkpoint().unwrap();
    let slots = newest_slots(&sim);
    let whole = superblock(&sim, slots[0]).expect("the newest superblock is whole");
    let break_root: [fn(&mut RootLocation); 3] =
        [|root| root.segment = SegmentId(1 << 20), |root| root.len = u32::MAX, |root| root.offset += 1];
    for break_root in break_root {
        let mut broken = whole.clone();
        break_root(&mut broken.roots.as_mut().expect("there was a checkpoint")[0]);
        for slot in slots {
            let mut block = vec![0; BLOCK];
            broken.encode(seed(), slot as u64, &mut block);
            sim.drive.put(slot, &block);
        }
        sim.restart();
        assert_eq!(sim.run_recovery(), Phase::Failed(OpenError::RootDamaged));
    }
}

fn image_frames(sim: &Sim, kind: u8) -> Vec<usize> {
    let checkpoint = superblock(sim, newest_slots(sim)[0]).expect("it is whole").checkpoint;
    let all = frames(sim, Stream::Image).into_iter();
    let of_kind = |(at, header): &(usize, FrameHeader)| {
        header.durable.0 == checkpoint && sim.drive.now[at + 64] == kind
    };
    all.filter(of_kind).map(|(at, _)| at).collect()
}

#[test]
fn one_copy_of_catalog_root_and_directory_is_enough_and_none_is_said() {
    let kinds =
        [(1, OpenError::CatalogDamaged), (3, OpenError::RootDamaged), (4, OpenError::DirectoryDamaged)];
    for (kind, error) in kinds {
        let mut sim = sim(10);
        sim.put(1, b"k", &value("k")).unwrap();
        sim.checkpoint().unwrap();
        let copies = image_frames(&sim, kind);
        assert_eq!(copies.len(), 2, "kind {kind}");
        for spared in 0..2 {
            sim.drive.flip(copies[1 - spared] + 70);
            sim.reopen();
            assert_eq!(sim.get(1, b"k"), Ok(Some(value("k"))), "kind {kind}, copy {spared} left");
            sim.drive.flip(copies[1 - spared] + 70);
        }
        copies.iter().for_each(|at| sim.drive.flip(at + 70));
        sim.settle();
        sim.restart();
        assert_eq!(sim.run_recovery(), Phase::Failed(error));
    }
}

#[test]
fn a_damaged_image_frame_condemns_the_partitions_that_it_may_have_held() {
    // A compact index is expected to take more room before its first image, and takes less in the end.
    let records = if index_kind() == IndexKind::Compact { 14_000u32 } else { 2800 };
    let mut sim = sim_of(11, 8 << 20);
    sim.create(2, StoreKind::Durable, &[50]).unwrap();
    for i in 0..records {
        // Long keys, so that the image has many frames.
        let key = [&i.to_be_bytes()[..], &[7; 40]].concat();
        sim.put(if i < 1000 { 1 } else { 50 }, &key, b"v").unwrap();
    }
    sim.checkpoint().unwrap();
    let entries = image_frames(&sim, 2);
    assert!(entries.len() >= 4, "{} frames", entries.len());
    // The busiest partition comes first.
    sim.drive.flip(entries[0] + 500);
    sim.put(50, b"later", b"v").unwrap();
    sim.reopen();
    sim.settle();
    assert!(sim.shard.stats().quarantined_frames > 0);
    let key = |i: u32| [&i.to_be_bytes()[..], &[7; 40]].concat();
    assert_eq!(sim.get(1, &key(3)), Ok(Some(b"v".to_vec())), "its leaves were in the frames behind");
    assert_eq!(sim.count(1), Ok(1000));
    assert!(is_quarantined(&sim.get(50, &key(records - 1)), NEWEST), "not absent: damaged");
    assert!(is_quarantined(&sim.count(50), NEWEST));
    assert_eq!(sim.get(50, b"later"), Ok(Some(b"v".to_vec())));
}

/// Whatever block is hit: the shard opens or says why not, and each key has its value or an error.
#[test]
fn no_single_rotten_block_makes_a_key_lie() {
    let mut sim = sim(12);
    let mut last = std::collections::BTreeMap::new();
    for i in 0..1500u32 {
        let key = sim.random.below(200) as u32;
        let value = value(&format!("{i:04}")).repeat(5);
        if i % 7 == 3 {
            sim.delete(1, &key.to_be_bytes()).unwrap();
            last.insert(key, None);
        } else {
            sim.put(1, &key.to_be_bytes(), &value).unwrap();
            last.insert(key, Some(value));
        }
        if i % 400 == 300 {
            sim.checkpoint().unwrap();
        }
    }
    assert!(sim.shard.stats().segments_cleaned > 0);
    // The very last frame may be taken for torn: nothing of ours is in it.
    sim.put(2, b"last", b"frame").unwrap();
    sim.drive.settle();
    let before = sim.drive.now.clone();
    let (mut failed, mut errors) = (0, 0);
    for block in 0..before.len() / BLOCK {
        // Blocks never written hold nothing to damage.
        if before[block * BLOCK..(block + 1) * BLOCK].iter().all(|byte| *byte == 0) {
            continue;
        }
        let at = block * BLOCK + [12, 66, 300][block % 3];
        sim.drive.put(0, &before);
        sim.drive.flip(at);
        sim.restart();
        if sim.run_recovery() != Phase::Serving {
            failed += 1;
            continue;
        }
        for (key, value) in &last {
            match sim.get(1, &key.to_be_bytes()) {
                Ok(found) => assert_eq!(&found, value, "key {key} with a flip at {at}"),
                Err(ReadError::Corrupt { .. } | ReadError::Quarantined { .. }) => errors += 1,
                Err(error) => panic!("key {key} with a flip at {at}: {error}"),
            }
        }
    }
    assert_eq!(failed, 0, "no single block is all that stands between a shard and its records");
    assert!(errors > 0, "some block was in use");
}

#[test]
fn the_root_and_its_copy_lie_far_apart() {
    for keys in [1u32, 300, 700, 1500, 2500] {
        let mut sim = sim(u64::from(keys));
        for key in 0..keys {
            sim.put(1, &key.to_be_bytes().repeat(4), b"").unwrap();
        }
        sim.checkpoint().unwrap();
        let copies = image_frames(&sim, 3);
        let apart = copies[0].abs_diff(copies[1]);
        assert!(apart >= SEGMENT as usize / 2, "{apart} bytes apart, with {keys} keys");
        sim.reopen();
        assert_eq!(sim.count(1), Ok(u64::from(keys)));
    }
}
