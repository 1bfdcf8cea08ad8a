//! The scrub finds what has rotted before anybody asks for it, tells it once, mends what there is a copy of, and
//! reads no faster than it may. What it finds is what reads find.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::ask::use_index;
use crate::support::{Sim, UUID};
use lode_engine::format::ChecksumSeed;
use lode_engine::format::frame::{FrameHeader, Stream};
use lode_engine::format::superblock::Superblock;
use lode_engine::limits::MAX_DAMAGED_LISTED;
use lode_engine::{Geometry, IndexKind, ReadError, ReplyBody, RequestBody, ScrubStats, ShardId, StoreKind};

const BLOCK: usize = 4096;
const SEGMENT: u32 = 64 << 10;
const DAY_NS: u64 = 24 * 3600 * 1_000_000_000;

fn sim_of(seed: u64, drive_bytes: u64, rate: u64) -> Sim {
    let geometry = Geometry::plan(drive_bytes, 1, Some(SEGMENT), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| {
        // No cache: every read is of the drive.
        config.cache_bytes = 0;
        config.scrub_bytes_per_s = rate;
    });
    sim.create(1, StoreKind::Durable, &[1, 2]).expect("the drive is empty");
    sim
}

fn sim(seed: u64) -> Sim {
    sim_of(seed, 4 << 20, 0)
}

fn seed() -> ChecksumSeed {
    ChecksumSeed::new(&UUID, ShardId(0))
}

fn key(number: u32) -> Vec<u8> {
    format!("key{number:05}").into_bytes()
}

fn value(number: u32) -> Vec<u8> {
    format!("<{number:05}>").into_bytes().repeat(60)
}

/// Many records in sealed segments: several frames in each, the frames of different sizes.
fn filled(seed: u64, records: u32) -> Sim {
    let mut sim = sim(seed);
    fill(&mut sim, records);
    sim
}

/// The same on a drive so large that no checkpoint is due yet.
fn filled_and_not_checkpointed(seed: u64) -> Sim {
    let mut sim = sim_of(seed, 64 << 20, 0);
    fill(&mut sim, 700);
    assert_eq!(sim.shard.stats().checkpoints, 0);
    sim
}

fn fill(sim: &mut Sim, records: u32) {
    for chunk in (0..records).collect::<Vec<_>>().chunks(20) {
        let (keys, values): (Vec<_>, Vec<_>) = chunk.iter().map(|n| (key(*n), value(*n))).unzip();
        let put = |i: usize| lode_engine::BatchWrite::Put { key: &keys[i], value: &values[i] };
        sim.batch(1, (0..chunk.len()).map(put).collect()).expect("there is room");
    }
}

/// Where a record's value lies on the drive, last copy first.
fn find(sim: &Sim, number: u32) -> usize {
    let value = value(number);
    let mut end = sim.drive.now.len();
    loop {
        let at = sim.drive.now[..end].iter().rposition(|byte| *byte == b'<').expect("the value was written");
        // The first of the many repetitions begins behind the key.
        if sim.drive.now[at..].starts_with(&value) {
            return at;
        }
        end = at;
    }
}

/// Every copy of records 0 to 699 on the drive: which, and where its value lies.
fn copies(sim: &Sim) -> Vec<(u32, usize)> {
    let bytes = &sim.drive.now;
    let starts = (8..bytes.len()).filter(|at| bytes[*at] == b'<' && bytes[at - 8..].starts_with(b"key"));
    let number = |at: usize| std::str::from_utf8(&bytes[at + 1..at + 6]).ok()?.parse::<u32>().ok();
    let copy = |at| Some((number(at).filter(|number| *number < 700)?, at));
    starts.filter_map(copy).filter(|(number, at)| bytes[*at..].starts_with(&value(*number))).collect()
}

fn area_at(sim: &Sim) -> usize {
    sim.config.geometry.area_at(ShardId(0)).0 as usize
}

/// The frame in which a byte of the drive lies: where it begins, and its header.
fn frame_of(sim: &Sim, at: usize) -> (usize, FrameHeader) {
    let area = area_at(sim);
    let mut begin = at / BLOCK * BLOCK;
    loop {
        let header =
            FrameHeader::decode_any(seed(), (begin - area) as u64, &sim.drive.now[begin..begin + BLOCK]);
        if let Some(header) = header {
            return (begin, header);
        }
        begin -= BLOCK;
    }
}

fn scrub(sim: &mut Sim) -> ScrubStats {
    let ReplyBody::Scrub(number) = sim.ask(RequestBody::Scrub) else { panic!("not a scrub's answer") };
    for _ in 0..1_000_000 {
        let stats = sim.shard.stats().scrub;
        if stats.answered >= number {
            return stats;
        }
        assert!(!sim.is_stuck(), "the scrub waits for nothing: {stats:?}");
        sim.step(&mut Vec::new());
    }
    panic!("the scrub never ends: {:?}", sim.shard.stats().scrub);
}

fn listed(stats: &ScrubStats) -> BTreeSet<Vec<u8>> {
    stats.damaged.iter().map(|damaged| damaged.key.clone()).collect()
}

/// What gets say of every record, and that it is what the scrub says.
fn assert_gets_agree(sim: &mut Sim, records: u32, stats: &ScrubStats) -> BTreeSet<Vec<u8>> {
    let mut lost = BTreeSet::new();
    for number in 0..records {
        match sim.get(1, &key(number)) {
            Ok(found) => assert_eq!(found, Some(value(number)), "key {number}"),
            Err(ReadError::Corrupt { .. }) => {
                lost.insert(key(number));
            }
            Err(error) => panic!("key {number}: {error}"),
        }
    }
    assert_eq!(stats.damaged_records as usize, lost.len());
    assert_eq!(listed(stats), lost);
    lost
}

#[test]
fn a_whole_drive_has_no_damage_and_all_of_it_is_read() {
    let mut sim = filled(1, 700);
    sim.checkpoint().unwrap();
    for round in 1..=2 {
        let stats = scrub(&mut sim);
        assert_eq!((stats.damaged_records, stats.damaged_places, stats.repaired_images), (0, 0, 0));
        assert_eq!((stats.repaired_superblocks, stats.rounds_finished), (0, round));
        let shard = sim.shard.stats();
        assert!(stats.round_bytes > shard.live_bytes * 9 / 10, "{} bytes", stats.round_bytes);
        sim.reopen();
        let stats = scrub(&mut sim);
        assert_eq!((stats.damaged_records, stats.damaged_places, stats.repaired_images), (0, 0, 0));
        scrub(&mut sim);
        // The counters begin anew with the process.
        (round == 1).then(|| sim.reopen());
        (round == 1).then(|| scrub(&mut sim));
    }
}

#[test]
fn one_rotten_bit_costs_one_record() {
    let mut sim = filled(2, 700);
    let at = find(&sim, 5) + 100;
    sim.drive.flip(at);
    let stats = scrub(&mut sim);
    assert_eq!(assert_gets_agree(&mut sim, 700, &stats), BTreeSet::from([key(5)]));
    let damaged = &stats.damaged[0];
    assert_eq!((damaged.table.0, damaged.partition.0, damaged.table_name.as_str()), (1, 1, "t1"));
    assert!((damaged.at..damaged.at + u64::from(damaged.len)).contains(&(at as u64)), "its place is told");
    assert_eq!(stats.damaged_places, 0, "the one place is that record's");
}

#[test]
fn a_rotten_frame_header_costs_no_record_and_not_the_next_start_either() {
    let mut sim = filled_and_not_checkpointed(3);
    let (frame, _) = frame_of(&sim, find(&sim, 20));
    sim.drive.flip(frame + 20);
    let stats = scrub(&mut sim);
    assert_eq!(stats.damaged_places, 1);
    assert!(assert_gets_agree(&mut sim, 700, &stats).is_empty());
    sim.settle();
    sim.reopen();
    assert_eq!(sim.shard.stats().quarantined_frames, 0, "a checkpoint put it behind the log's tail");
    let stats = scrub(&mut sim);
    assert!(assert_gets_agree(&mut sim, 700, &stats).is_empty());
}

#[test]
fn a_rotten_block_costs_the_records_in_it_alone() {
    let mut sim = filled(4, 700);
    // In the middle of a frame of several blocks: no header lies in it.
    let (frame, header) = frame_of(&sim, find(&sim, 33));
    assert!(header.frame_len() >= 2 * BLOCK);
    let garbage: Vec<u8> = (0..BLOCK).map(|i| (i * 7) as u8).collect();
    let inside = |sim: &Sim, number: u32| {
        let at = find(sim, number);
        at < frame + 2 * BLOCK && at + value(number).len() > frame + BLOCK
    };
    let expected: BTreeSet<_> = (28..40).filter(|number| inside(&sim, *number)).map(key).collect();
    sim.drive.put(frame + BLOCK, &garbage);
    let stats = scrub(&mut sim);
    let lost = assert_gets_agree(&mut sim, 700, &stats);
    assert!(lost.len() > 1 && lost.is_superset(&expected), "{lost:?} {expected:?}");
    assert!(lost.len() < 20, "no more than the frame holds");
}

#[test]
fn an_unreadable_block_in_the_middle_of_a_segment_costs_the_records_in_it_alone() {
    let mut sim = filled(5, 700);
    let block = (find(&sim, 40) + 30) / BLOCK;
    let touches = |sim: &Sim, number: u32| {
        let (at, key_and_header) = (find(sim, number), 30 + key(number).len());
        at - key_and_header < (block + 1) * BLOCK && at + value(number).len() > block * BLOCK
    };
    let expected: BTreeSet<_> = (30..50).filter(|number| touches(&sim, *number)).map(key).collect();
    sim.drive.unreadable.insert(block);
    let stats = scrub(&mut sim);
    assert_eq!(assert_gets_agree(&mut sim, 700, &stats), expected);
    assert!(expected.contains(&key(40)));
}

/// A block of another place, and a block of an earlier life of the same place.
#[test]
fn misdirected_and_stale_blocks_are_caught_by_reads_and_by_the_scrub() {
    for stale in [false, true] {
        let mut sim = filled(6, 700);
        (0..8).for_each(|_| fill(&mut sim, 700));
        let early = sim.drive.now.clone();
        // Until places have another life, with records of the same keys and lengths.
        (0..15).for_each(|_| fill(&mut sim, 700));
        let area = area_at(&sim);
        let is_reused = |(number, at): &(u32, usize)| {
            let (frame, present) = frame_of(&sim, *at);
            let before = FrameHeader::decode_any(seed(), (frame - area) as u64, &early[frame..frame + BLOCK]);
            let other_life = before.is_some_and(|before| before.generation != present.generation);
            other_life && at + value(*number).len() <= frame + BLOCK
        };
        let candidates: Vec<_> = copies(&sim).into_iter().filter(is_reused).collect();
        // Cleaning leaves copies behind: the one that counts is the one whose damage is felt.
        let mut is_felt = |(number, at): &(u32, usize)| {
            sim.drive.flip(at + 9);
            let is_felt = sim.get(1, &key(*number)).is_err();
            sim.drive.flip(at + 9);
            is_felt
        };
        let (victim, at) = candidates.into_iter().find(&mut is_felt).expect("some place has another life");
        assert!(listed(&sim.shard.stats().scrub).contains(&key(victim)));
        assert_eq!(scrub(&mut sim).damaged_records, 0, "what is whole again leaves the list");
        let (frame, _) = frame_of(&sim, at);
        let elsewhere = (0..700).map(|number| frame_of(&sim, find(&sim, number)).0);
        let other = elsewhere.into_iter().find(|other| *other != frame).expect("there are other frames");
        let from = if stale { &early[frame..frame + BLOCK] } else { &sim.drive.now[other..other + BLOCK] };
        let bytes = from.to_vec();
        sim.drive.put(frame, &bytes);
        let stats = scrub(&mut sim);
        let lost = assert_gets_agree(&mut sim, 700, &stats);
        assert!(lost.contains(&key(victim)), "stale {stale}: taken for what belongs here");
    }
}

#[test]
fn damage_is_told_once_and_leaves_the_list_when_it_is_overwritten_deleted_or_dropped() {
    use_index(IndexKind::Full);
    let mut sim = filled(7, 700);
    sim.create(2, StoreKind::Durable, &[9]).unwrap();
    for number in 10_000..10_030 {
        sim.put(9, &key(number), &value(number)).unwrap();
    }
    fill_more(&mut sim);
    for number in [3, 40, 80, 10_003] {
        let at = find(&sim, number) + 9;
        sim.drive.flip(at);
    }
    for _ in 0..3 {
        let stats = scrub(&mut sim);
        assert_eq!(listed(&stats), [3, 40, 80, 10_003].map(key).into());
        assert_eq!((stats.damaged_records, stats.damaged_unlisted, stats.damaged.len()), (4, 0, 4));
    }
    sim.put(1, &key(3), b"new").unwrap();
    sim.delete(1, &key(40)).unwrap();
    assert_eq!(listed(&sim.shard.stats().scrub), [80, 10_003].map(key).into());
    sim.drop_table(2).unwrap();
    sim.settle();
    assert_eq!(listed(&sim.shard.stats().scrub), [key(80)].into());
    let stats = scrub(&mut sim);
    assert_eq!((stats.damaged_records, listed(&stats)), (1, [key(80)].into()));
    assert!(stats.damaged_places >= 2, "what was damaged is damaged still, but nobody's: {stats:?}");
}

/// A compact index cannot know whose a damaged record was: it stays listed beside the key's next one, until it is dropped.
#[test]
fn damage_in_a_compact_index_stays_listed_until_its_table_goes_and_hides_nothing_newer() {
    use_index(IndexKind::Compact);
    let mut sim = filled(12, 700);
    let at = find(&sim, 50) + 9;
    sim.drive.flip(at);
    assert_eq!(scrub(&mut sim).damaged_records, 1);
    sim.put(1, &key(50), b"new").unwrap();
    for _ in 0..2 {
        assert_eq!(listed(&scrub(&mut sim)), [key(50)].into());
        assert_eq!(sim.get(1, &key(50)), Ok(Some(b"new".to_vec())));
        sim.reopen();
    }
    sim.drop_table(1).unwrap();
    sim.settle();
    let stats = scrub(&mut sim);
    assert_eq!((stats.damaged_records, stats.damaged.len()), (0, 0));
}

/// Seals the segments that were written to.
fn fill_more(sim: &mut Sim) {
    for number in 20_000..20_200 {
        sim.put(1, &key(number), &value(number)).expect("there is room");
    }
}

#[test]
fn a_damaged_record_that_is_dead_is_counted_apart() {
    use_index(IndexKind::Full);
    let mut sim = filled(8, 700);
    let at = find(&sim, 50) + 9;
    sim.drive.flip(at);
    sim.put(1, &key(50), b"new").unwrap();
    for _ in 0..2 {
        let stats = scrub(&mut sim);
        assert_eq!((stats.damaged_records, stats.damaged_places), (0, 1));
    }
}

#[test]
fn a_read_that_meets_damage_lists_it_before_the_scrub_comes_by() {
    let mut sim = filled(9, 100);
    let at = find(&sim, 50) + 9;
    sim.drive.flip(at);
    assert!(matches!(sim.get(1, &key(50)), Err(ReadError::Corrupt { .. })));
    assert_eq!(listed(&sim.shard.stats().scrub), [key(50)].into());
    sim.get(1, &key(50)).unwrap_err();
    let stats = scrub(&mut sim);
    assert_eq!((stats.damaged_records, listed(&stats)), (1, [key(50)].into()));
}

#[test]
fn more_damage_than_the_list_holds_is_counted_all_the_same() {
    use_index(IndexKind::Full);
    let mut sim = filled(10, 1400);
    let most = MAX_DAMAGED_LISTED as u32;
    let damaged: BTreeSet<u32> = (0..most + 90).map(|i| i * 3).collect();
    for number in &damaged {
        let at = find(&sim, *number) + 9;
        sim.drive.flip(at);
    }
    for _ in 0..2 {
        let stats = scrub(&mut sim);
        assert_eq!(stats.damaged.len(), MAX_DAMAGED_LISTED);
        assert_eq!(stats.damaged_records as usize, damaged.len());
        assert_eq!(stats.damaged_unlisted, u64::from(90_u32));
    }
    for number in &damaged {
        sim.put(1, &key(*number), &value(*number)).unwrap();
    }
    let stats = scrub(&mut sim);
    assert_eq!((stats.damaged_records, stats.damaged.len()), (0, 0));
}

fn superblock(sim: &Sim, at: usize) -> Option<Superblock> {
    Superblock::decode(seed(), at as u64, &sim.drive.now[at..at + BLOCK])
}

/// The copies of the newest superblock that are whole.
fn newest_copies(sim: &Sim) -> (u64, usize) {
    let slots = sim.config.geometry.superblock_slots(ShardId(0)).map(|slot| slot.0 as usize);
    let versions: Vec<u64> = slots.iter().filter_map(|slot| Some(superblock(sim, *slot)?.version)).collect();
    let newest = versions.iter().max().copied().unwrap_or(0);
    (newest, versions.iter().filter(|version| **version == newest).count())
}

#[test]
fn a_damaged_copy_of_the_superblock_is_mended_and_so_are_both() {
    for damaged in [vec![0], vec![2], vec![0, 2]] {
        let mut sim = filled(11, 100);
        sim.checkpoint().unwrap();
        sim.settle();
        let (before, copies) = newest_copies(&sim);
        assert_eq!(copies, 2);
        let slots = sim.config.geometry.superblock_slots(ShardId(0));
        for copy in &damaged {
            sim.drive.flip(slots[copy + (before % 2) as usize].0 as usize + 100);
        }
        let stats = scrub(&mut sim);
        assert_eq!(stats.repaired_superblocks, 1);
        sim.settle();
        assert_eq!(newest_copies(&sim), (before + 1, 2));
        assert_eq!(scrub(&mut sim).repaired_superblocks, 1, "once");
        sim.reopen();
        let stats = scrub(&mut sim);
        assert!(assert_gets_agree(&mut sim, 100, &stats).is_empty());
    }
}

/// Each frame of the present image, damaged by itself: one copy of the catalog, one of the root, the entries.
#[test]
fn a_damaged_image_is_written_anew() {
    let mut sim = filled(12, 700);
    sim.checkpoint().unwrap();
    sim.settle();
    let before = sim.drive.now.clone();
    let slots = sim.config.geometry.superblock_slots(ShardId(0));
    let checkpoints = slots.iter().filter_map(|slot| Some(superblock(&sim, slot.0 as usize)?.checkpoint));
    let checkpoint = checkpoints.max().unwrap_or(0);
    let area = area_at(&sim);
    let end = area + sim.config.geometry.area_bytes() as usize;
    let is_image = |at: &usize| {
        let header = FrameHeader::decode_any(seed(), (at - area) as u64, &before[*at..at + BLOCK]);
        header.is_some_and(|header| header.stream == Stream::Image && header.durable.0 == checkpoint)
    };
    let frames: Vec<usize> = (area..end).step_by(BLOCK).filter(is_image).collect();
    assert!(frames.len() >= 5, "{} frames", frames.len());
    for frame in frames {
        for at in [frame + 20, frame + 66] {
            sim.drive.put(0, &before);
            sim.reopen();
            // What is loaded needs the image no more.
            sim.settle();
            if sim.shard.stats().quarantined_frames > 0 {
                panic!("the drive was whole");
            }
            sim.drive.flip(at);
            let checkpoints = sim.shard.stats().checkpoints;
            assert_eq!(scrub(&mut sim).repaired_images, 1, "a flip at {at} of the frame at {frame}");
            sim.settle();
            assert_eq!(sim.shard.stats().checkpoints, checkpoints + 1);
            sim.reopen();
            assert_eq!(sim.shard.stats().quarantined_frames, 0);
            assert_eq!(sim.count(1), Ok(700));
            assert_eq!(scrub(&mut sim).repaired_images, 0);
        }
    }
}

#[test]
fn a_segment_without_its_header_is_told_and_the_next_start_knows_it() {
    let mut sim = filled_and_not_checkpointed(13);
    let segment = (find(&sim, 20) - area_at(&sim)) / SEGMENT as usize;
    let begin = area_at(&sim) + segment * SEGMENT as usize;
    sim.drive.flip(begin + 9);
    assert_eq!(scrub(&mut sim).damaged_places, 1);
    sim.settle();
    // With its first frame gone, too, only a checkpoint can have told who it is.
    sim.drive.flip(begin + BLOCK + 9);
    sim.reopen();
    assert_eq!(sim.shard.stats().quarantined_frames, 0);
    let stats = scrub(&mut sim);
    assert!(assert_gets_agree(&mut sim, 700, &stats).is_empty());
}

#[test]
fn the_rate_is_kept_and_a_round_begins_by_itself_once_a_day() {
    let rate = 1 << 20;
    let mut sim = sim_of(14, 4 << 20, rate);
    fill(&mut sim, 700);
    sim.checkpoint().unwrap();
    let (begun_ns, begun_bytes) = (sim.now_ns, sim.shard.stats().scrub.bytes);
    let mut finished = BTreeMap::new();
    while finished.len() < 3 {
        // To the next moment at which the shard wants a step.
        let wake_ns = sim.shard.next_wake_ns().filter(|_| sim.drive.is_idle()).unwrap_or(sim.now_ns);
        sim.now_ns = sim.now_ns.max(wake_ns);
        sim.step(&mut Vec::new());
        let stats = sim.shard.stats().scrub;
        let most = (u128::from(sim.now_ns - begun_ns) * u128::from(rate)).div_ceil(1_000_000_000);
        let read = stats.bytes - begun_bytes;
        assert!(u128::from(read) <= most + (128 << 10), "{read} bytes where {most} were allowed");
        finished.entry(stats.rounds_finished).or_insert((sim.now_ns, stats.bytes));
    }
    let rounds: Vec<_> = finished.into_values().collect();
    let ((first_ns, first), (second_ns, second)) = (rounds[1], rounds[2]);
    assert!(second_ns - first_ns > DAY_NS * 9 / 10, "not before the day is over");
    assert!(second_ns - first_ns < DAY_NS * 11 / 10);
    assert!(second - first > 300_000, "a round reads what is there");
    let stats = sim.shard.stats();
    assert_eq!((stats.scrub.damaged_records, stats.scrub.damaged_places), (0, 0));
}

#[test]
fn reads_of_clients_that_wait_for_buffers_go_first() {
    let mut sim = filled(15, 300);
    sim.settle();
    // No buffer is left but what one record takes.
    sim.buffers = crate::support::drive::PoolBuffers::new(8 << 10);
    let ReplyBody::Scrub(_) = sim.ask(RequestBody::Scrub) else { panic!("not a scrub's answer") };
    for number in 0..300 {
        assert_eq!(sim.get(1, &key(number)), Ok(Some(value(number))));
    }
    assert_eq!(sim.shard.stats().scrub.answered, 0, "it waits for a buffer");
    sim.buffers = crate::support::drive::PoolBuffers::new(1 << 20);
    for _ in 0..100_000 {
        sim.step(&mut Vec::new());
    }
    assert_eq!(sim.shard.stats().scrub.answered, 1);
}

/// Any one block of the drive rots: what the scrub lists is what reads refuse, not more and not less.
#[test]
fn whatever_block_rots_the_list_agrees_with_what_reads_say() {
    let mut sim = sim_of(16, 2 << 20, 0);
    for round in 0..4u32 {
        for number in (0..280).filter(|number| number % 4 >= round) {
            sim.put(1, &key(number), &value(number)).unwrap();
        }
        (round == 2).then(|| sim.checkpoint().unwrap());
    }
    fill(&mut sim, 280);
    sim.checkpoint().unwrap();
    sim.settle();
    let before = sim.drive.now.clone();
    let mut found = 0;
    for block in 0..before.len() / BLOCK {
        let at = block * BLOCK + [20, 600, 2100, 4000][block % 4];
        if before[at..block * BLOCK + BLOCK].iter().all(|byte| *byte == 0) {
            continue;
        }
        sim.drive.put(0, &before);
        sim.reopen();
        // Until all is loaded: the image is read no more.
        sim.settle();
        sim.drive.flip(at);
        // Records of segments that are still written are not looked at: at a start there are none.
        let stats = scrub(&mut sim);
        found += assert_gets_agree(&mut sim, 280, &stats).len();
        sim.settle();
    }
    assert!(found > 10, "{found} records were hit");
}

#[test]
fn room_that_an_image_leaves_empty_is_no_damage() {
    let mut sim = sim(21);
    for key in 0..300u32 {
        sim.put(1, &key.to_be_bytes(), &[7; 20]).unwrap();
    }
    // Again and again, so that one lies where bytes of an older life are.
    for _ in 0..6 {
        sim.checkpoint().unwrap();
        sim.settle();
        let stats = scrub(&mut sim);
        assert_eq!((stats.damaged_places, stats.repaired_images), (0, 0), "{stats:?}");
    }
}
