//! The journal of index changes: segments come free without a checkpoint, records move as often as they must, and a
//! restart finds everything, whatever of the journal is torn or rotten.

use crate::support::ask::{index_kind, room, use_index};
use crate::support::{Sim, UUID};
use lode_engine::format::ChecksumSeed;
use lode_engine::format::frame::{FRAME_HEADER_BYTES, FrameHeader, Stream};
use lode_engine::format::journal::decode_head;
use lode_engine::format::superblock::Superblock;
use lode_engine::{BatchWrite, Geometry, IndexKind, PartitionId, ReadError, ShardId, StoreKind};

const BLOCK: usize = 4096;
const SEGMENT: u32 = 1 << 20;

fn sim(seed: u64, drive_mib: u64) -> Sim {
    let geometry =
        Geometry::plan(drive_mib << 20, 1, Some(SEGMENT), 64 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| config.cache_bytes = 0);
    sim.create(1, StoreKind::Durable, &[1, 2]).expect("the drive is empty");
    sim
}

/// All journal frames: where on the drive, and their headers, in the order of their numbers.
fn journal_frames(sim: &Sim) -> Vec<(usize, FrameHeader)> {
    let seed = ChecksumSeed::new(&UUID, ShardId(0));
    let area = sim.config.geometry.area_at(ShardId(0)).0 as usize;
    let end = area + sim.config.geometry.area_bytes() as usize;
    let decode = |at: usize| {
        let header = FrameHeader::decode_any(seed, (at - area) as u64, &sim.drive.now[at..at + BLOCK])?;
        (header.stream == Stream::Journal).then_some((at, header))
    };
    let mut found: Vec<_> = (area..end).step_by(BLOCK).filter_map(decode).collect();
    found.sort_by_key(|(_, header)| header.number);
    found
}

fn value(key: u32, round: u32, len: usize) -> Vec<u8> {
    let mut value = [key.to_le_bytes(), round.to_le_bytes()].concat();
    value.resize(len, round as u8);
    value
}

/// Overwrites random ones of so many keys; gives the round of each key's last value.
fn churn(sim: &mut Sim, keys: u32, rounds: std::ops::Range<u32>, len: usize, last: &mut [u32]) {
    for round in rounds {
        let key = sim.random.below(u64::from(keys)) as u32;
        last[key as usize] = round;
        sim.put(1, &key.to_be_bytes(), &value(key, round, len)).expect("there is room");
    }
}

fn assert_all(sim: &mut Sim, last: &[u32], len: usize) {
    for (key, round) in last.iter().enumerate().filter(|(_, round)| **round > 0) {
        let expected = value(key as u32, *round, len);
        assert_eq!(sim.get(1, &(key as u32).to_be_bytes()), Ok(Some(expected)), "key {key}");
    }
}

#[test]
fn the_drive_is_written_many_times_over_without_a_checkpoint() {
    let mut sim = sim(1, 32);
    let (keys, len) = (300, 40 << 10);
    let mut last = vec![0; keys as usize];
    let mut round = 1;
    for start in 0..4 {
        churn(&mut sim, keys, round..round + 1000, len, &mut last);
        round += 1000;
        sim.settle();
        let stats = sim.shard.stats();
        assert!(stats.segments_cleaned > 10, "{stats:?}");
        // Each start leaves a segment of the journal behind, hardly used, until there are too many.
        let checkpoints = match index_kind() {
            IndexKind::Full => u64::from(start > 0),
            // Its journal says what was replaced, too.
            IndexKind::Compact => u64::from(start > 0) + u64::from(start > 1),
        };
        assert!(stats.checkpoints <= checkpoints, "segments that were used anew were freed by the journal");
        sim.crash();
        sim.run_until_serving();
        let stats = sim.shard.stats();
        assert!(stats.recovered_journal_entries > 100, "{stats:?}");
        let tail = stats.recovered_frames;
        assert!(
            tail <= 2 * u64::from(SEGMENT) / len as u64,
            "{tail} frames of users, where the journal covers most"
        );
        assert_all(&mut sim, &last, len);
    }
}

#[test]
fn records_that_move_again_and_again_between_two_checkpoints_are_found() {
    for seed in 0..20 {
        let mut sim = sim(100 + seed, 32);
        let (keys, len) = (600u32, 28 << 10);
        let mut last = vec![0; keys as usize];
        // Some never change: cleaning meets them again and again.
        for key in 0..keys {
            last[key as usize] = 1;
            sim.put(1, &key.to_be_bytes(), &value(key, 1, len)).expect("there is room");
        }
        churn(&mut sim, keys / 2, 2..2500, len, &mut last);
        let stats = sim.shard.stats();
        let (moved, checkpoints) = (stats.relocated_bytes / len as u64, stats.checkpoints);
        let enough = u64::from(keys) * (checkpoints + 1);
        assert!(moved > enough, "{moved} moved, {checkpoints} checkpoints");
        for _ in 0..sim.random.below(40) {
            sim.step(&mut Vec::new());
        }
        sim.crash();
        sim.run_until_serving();
        assert_all(&mut sim, &last, len);
        assert_eq!(sim.shard.stats().live_bytes, u64::from(keys) * room(30 + 4 + len as u64));
        churn(&mut sim, keys, 2500..2600, len, &mut last);
        sim.reopen();
        assert_all(&mut sim, &last, len);
    }
}

/// A drive with journal frames on which frees relied, and what it holds.
fn journaled(seed: u64) -> (Sim, Vec<u32>) {
    let mut sim = sim(seed, 32);
    // That there are these partitions is in an image.
    sim.checkpoint().expect("there is room");
    let mut last = vec![0; 100];
    churn(&mut sim, 100, 1..600, 40 << 10, &mut last);
    sim.put(2, b"other", b"of another partition").expect("there is room");
    sim.settle();
    assert_eq!(sim.shard.stats().checkpoints, 1);
    (sim, last)
}

/// No key lies: it has its last value, or an error. Gives how many have an error.
fn errors(sim: &mut Sim, last: &[u32]) -> u32 {
    let mut errors = 0;
    for (key, round) in last.iter().enumerate().filter(|(_, round)| **round > 0) {
        let expected = value(key as u32, *round, 40 << 10);
        match sim.get(1, &(key as u32).to_be_bytes()) {
            Ok(found) => assert_eq!(found, Some(expected), "key {key}"),
            Err(ReadError::Corrupt { .. } | ReadError::Quarantined { .. }) => errors += 1,
            Err(error) => panic!("key {key}: {error}"),
        }
    }
    errors
}

#[test]
fn a_torn_journal_frame_loses_nothing_and_stays_cut() {
    for seed in 0..10 {
        let (mut sim, mut last) = journaled(200 + seed);
        // Nothing relies on the last frame yet, as far as it alone knows: that of a crash is always such a one.
        let before = journal_frames(&sim).len();
        for round in 600..2000 {
            churn(&mut sim, 100, round..round + 1, 40 << 10, &mut last);
            if journal_frames(&sim).len() > before {
                break;
            }
        }
        sim.crash();
        let torn = journal_frames(&sim).last().copied().expect("there is a journal");
        let was_free: Vec<u8> = sim.drive.now[torn.0..torn.0 + BLOCK].to_vec();
        sim.run_until_serving();
        assert_all(&mut sim, &last, 40 << 10);
        churn(&mut sim, 100, 2000..2020, 40 << 10, &mut last);
        sim.crash();
        sim.drive.put(torn.0, &was_free);
        sim.run_until_serving();
        assert_all(&mut sim, &last, 40 << 10);
        assert_eq!(sim.shard.stats().quarantined_frames, 0);
    }
}

#[test]
fn a_rotten_journal_frame_in_the_middle_is_told_and_no_key_lies() {
    let (sim_before, last) = journaled(300);
    let mut frames = journal_frames(&sim_before);
    // What the image covers is not read.
    frames.remove(0);
    assert!(frames.len() > 4, "{} journal frames", frames.len());
    let mut told = 0;
    for (at, header) in &frames[..frames.len() - 1] {
        for offset in [12, 70, 64 + header.payload_bytes as usize - 1] {
            let (mut sim, _) = journaled(300);
            sim.drive.flip(at + offset);
            sim.reopen();
            assert!(sim.shard.stats().quarantined_frames > 0, "frame {} byte {offset}", header.number);
            told += errors(&mut sim, &last);
            // What is written from here on is served, also behind the next starts.
            sim.put(1, &7u32.to_be_bytes(), &value(7, 9999, 40 << 10)).expect("there is room");
            sim.settle();
            assert!(sim.shard.stats().checkpoints > 0, "the damage is put behind a checkpoint");
            sim.drive.flip(at + offset);
            sim.reopen();
            assert_eq!(sim.shard.stats().quarantined_frames, 0, "no start meets it again");
            assert_eq!(sim.get(1, &7u32.to_be_bytes()), Ok(Some(value(7, 9999, 40 << 10))));
            errors(&mut sim, &[&last[..7], &[0], &last[8..]].concat());
        }
    }
    assert!(told > 0, "some key was told to be lost");
}

#[test]
fn the_journal_says_whom_its_damage_concerns() {
    let mut sim = sim(400, 32);
    sim.put(2, b"other", b"long ago").expect("there is room");
    sim.checkpoint().expect("there is room");
    let mut last = vec![0; 100];
    churn(&mut sim, 100, 1..600, 40 << 10, &mut last);
    sim.settle();
    let frames = journal_frames(&sim);
    let (at, _) = frames[frames.len() / 2];
    sim.drive.flip(at + 80);
    sim.reopen();
    assert!(sim.shard.stats().quarantined_frames > 0);
    assert_eq!(
        sim.get(2, b"other"),
        Ok(Some(b"long ago".to_vec())),
        "the frame has nothing of its partition"
    );
    assert!(matches!(sim.get(1, b"absent"), Err(ReadError::Quarantined { .. })));
}

#[test]
fn a_users_frame_that_the_journal_covers_costs_its_own_records_alone_when_it_rots() {
    let (mut sim, last) = journaled(500);
    sim.drive.settle();
    let needle = |key: u32| value(key, last[key as usize], 40 << 10)[..64].to_vec();
    let key = (0..100u32)
        .filter(|key| last[*key as usize] > 0)
        .min_by_key(|key| last[*key as usize])
        .expect("some");
    let found = sim.drive.now.windows(64).rposition(|bytes| bytes == needle(key)).expect("it was written");
    sim.drive.flip(found + 100);
    sim.reopen();
    assert_eq!(sim.shard.stats().quarantined_frames, 0, "no start reads it");
    assert!(errors(&mut sim, &last) <= 1);
}

#[test]
fn a_start_reads_as_far_as_there_are_frames_and_not_to_the_ends_of_segments() {
    let segment = 16u32 << 20;
    let geometry = Geometry::plan(257 << 20, 1, Some(segment), 64 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(8, geometry, |config| config.cache_bytes = 0);
    sim.create(1, StoreKind::Durable, &[1, 2]).expect("the drive is empty");
    let (keys, len) = (40, 20 << 10);
    let mut last = vec![0; keys as usize];
    churn(&mut sim, keys, 1..100, len, &mut last);
    sim.kill();
    sim.run_until_serving();
    // Of 32 MiB of segments that were begun. Four frames of users of a mebibyte and a quarter could follow the last, and
    // three of them are read in places behind; as much is read ahead as there are chunks under way.
    let read_bytes = sim.shard.stats().recovery_read_bytes;
    assert!(read_bytes < 14 << 20, "{read_bytes} bytes were read");
    assert_all(&mut sim, &last, len);
}

/// Found by the simulator (seed 45): the first frame of each life said that nothing had been applied before it, so that the loss of the
/// one before put nobody on guard.
#[test]
fn each_frame_says_what_was_applied_before_it_in_earlier_lives_too() {
    let mut sim = sim(700, 32);
    let mut last = vec![0; 100];
    for life in 0..4 {
        churn(&mut sim, 100, 1 + life * 800..1 + (life + 1) * 800, 40 << 10, &mut last);
        sim.settle();
        sim.kill();
        sim.run_until_serving();
    }
    let heads: Vec<_> = journal_frames(&sim)
        .into_iter()
        .map(|(at, header)| {
            let payload = &sim.drive.now[at + FRAME_HEADER_BYTES..][..header.payload_bytes as usize];
            (header.number, decode_head(payload).expect("it was written by this build").0)
        })
        .collect();
    let follows = heads.windows(2).filter(|pair| pair[0].0.next() == pair[1].0);
    let mut pairs = 0;
    for pair in follows {
        let ((number, before), (_, after)) = (&pair[0], &pair[1]);
        assert!(
            after.seq_before >= before.seq_upto,
            "frame {number} goes to {}, and the next begins at {}",
            before.seq_upto,
            after.seq_before
        );
        pairs += 1;
    }
    assert!(pairs > 20, "{pairs} frames that follow one another");
}

/// A start that meets a frame of the journal damaged, and serves. Gives where the damage is, the rounds of the last values, and
/// the checkpoint that the start began from.
fn served_with_damage(seed: u64) -> (Sim, usize, Vec<u32>, u64) {
    let mut sim = sim(seed, 32);
    let mut last = vec![0; 400];
    churn(&mut sim, 400, 1..1500, 40 << 10, &mut last);
    sim.checkpoint().expect("there is room");
    churn(&mut sim, 400, 1500..1900, 40 << 10, &mut last);
    sim.kill();
    // Some say only what came free, and no key's record is in doubt without them.
    let mut frames = journal_frames(&sim);
    frames.truncate(frames.len() - 2);
    frames.retain(|(_, header)| header.partitions.may_contain(PartitionId(1)));
    let at = frames[frames.len() - 1 - sim.random.below(6) as usize].0 + 100;
    sim.drive.flip(at);
    let checkpoint = checkpoint(&sim);
    sim.run_until_serving();
    assert!(sim.shard.stats().quarantined_frames > 0, "seed {seed}");
    (sim, at, last, checkpoint)
}

/// The checkpoint that a start would begin from.
fn checkpoint(sim: &Sim) -> u64 {
    let seed = ChecksumSeed::new(&UUID, ShardId(0));
    let slots = sim.config.geometry.superblock_slots(ShardId(0)).map(|slot| slot.0 as usize);
    let read = |at: usize| Superblock::decode(seed, at as u64, &sim.drive.now[at..at + BLOCK]);
    Superblock::newest(slots.map(read)).expect("there is a superblock").checkpoint
}

/// Found by the simulator (seed 1000649): cleaning moved what was replaced while that could not be read. Until a checkpoint has the
/// quarantine in its image, the journal alone has it.
#[test]
fn damage_that_passes_leaves_its_warning() {
    let mut in_time = 0;
    for seed in 800..812 {
        let (mut sim, damaged, last, before) = served_with_damage(seed);
        let frames = journal_frames(&sim).len();
        while journal_frames(&sim).len() == frames {
            assert!(!sim.is_stuck(), "seed {seed}: the journal has nothing to write");
            sim.step(&mut Vec::new());
        }
        sim.kill();
        if checkpoint(&sim) != before {
            continue;
        }
        in_time += 1;
        sim.drive.flip(damaged);
        sim.run_until_serving();
        let stats = sim.shard.stats();
        assert_eq!((stats.quarantined_frames, stats.checkpoints), (0, 0), "seed {seed}: all can be read");
        assert!(errors(&mut sim, &last) > 0, "seed {seed}: no key tells of it");
    }
    assert!(in_time > 6, "{in_time} were killed before the checkpoint");
}

#[test]
fn a_checkpoint_behind_damage_that_passes_keeps_its_warning() {
    let mut told = 0;
    for seed in 800..812 {
        let (mut sim, damaged, mut last, _) = served_with_damage(seed);
        let count = sim.random.below(120) as u32;
        churn(&mut sim, 400, 1900..1900 + count, 40 << 10, &mut last);
        sim.kill();
        sim.drive.flip(damaged);
        sim.run_until_serving();
        told += errors(&mut sim, &last);
    }
    assert!(told > 0, "no key tells of it");
}

/// Overwrites until the journal has one more frame on the drive, and gives that.
fn next_frame(sim: &mut Sim, round: &mut u32, last: &mut [u32]) -> (usize, FrameHeader) {
    sim.settle();
    let before = journal_frames(sim).len();
    while journal_frames(sim).len() == before {
        churn(sim, last.len() as u32, *round..*round + 1, 40 << 10, last);
        *round += 1;
        sim.settle();
    }
    *journal_frames(sim).last().expect("the journal has frames")
}

/// Found by the simulator (seed 20004333): the record whose end was in the damaged frame was in the index again, without
/// its expiry, and cleaning met it.
#[test]
fn a_record_whose_end_is_in_a_damaged_frame_goes_when_later_frames_have_no_record_of_its_key() {
    use_index(IndexKind::Compact);
    for seed in 0..6 {
        let mut sim = sim(900 + seed, 32);
        let (mut last, mut round) = (vec![0; 8], 100);
        for key in 0..8u32 {
            sim.put(1, &key.to_be_bytes(), &value(key, 1, 40 << 10)).expect("there is room");
        }
        sim.checkpoint().expect("there is room");
        sim.put_ttl(2, b"k", b"first", 1_000).expect("there is room");
        next_frame(&mut sim, &mut round, &mut last);
        sim.wall_ns += 2_000_000_000;
        sim.poke();
        sim.settle();
        assert_eq!(sim.shard.stats().expired, 1);
        let (damaged, _) = next_frame(&mut sim, &mut round, &mut last);
        // It ends by being replaced, or by a delete.
        sim.put(2, b"k", b"second").expect("there is room");
        if seed % 2 == 0 {
            sim.put(2, b"k", b"third").expect("there is room");
        }
        sim.delete(2, b"k").expect("there is room");
        next_frame(&mut sim, &mut round, &mut last);
        assert_eq!(sim.shard.stats().checkpoints, 1);
        sim.kill();
        sim.drive.flip(damaged + 80);
        sim.run_until_serving();
        sim.settle();
        assert!(sim.shard.stats().quarantined_frames > 0, "seed {seed}");
        assert_eq!(sim.shard.stats().records, 8, "seed {seed}: `k` has been deleted");
        // Every segment is written anew.
        churn(&mut sim, 8, round..round + 1500, 40 << 10, &mut last);
        assert_eq!(sim.shard.stats().records, 8);
    }
}

/// A start keeps what the journal says in memory: of few keys that are written again and again it is no more than a part of that.
#[test]
fn a_journal_about_few_keys_is_as_long_as_memory_allows() {
    let geometry = Geometry::plan(96 << 20, 1, Some(64 << 10), 8 << 10).expect("the drive is large enough");
    let longest = |memory_bytes: u64| {
        let mut sim = Sim::format(31, geometry, |config| config.memory_bytes = memory_bytes);
        sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
        let (mut begun, mut longest, mut checkpoints) = (0, 0, 0);
        let keys: Vec<[u8; 2]> = (0..100u16).map(u16::to_be_bytes).collect();
        for _ in 0..600 {
            let writes = keys.iter().map(|key| BatchWrite::Put { key, value: b"v" }).collect();
            sim.batch(1, writes).expect("there is room");
            let stats = sim.shard.stats();
            longest = longest.max(stats.journal_bytes - begun);
            if stats.checkpoints > checkpoints {
                (begun, checkpoints) = (stats.journal_bytes, stats.checkpoints);
            }
        }
        longest
    };
    let (of_area, of_memory) = (longest(256 << 20), longest(1 << 20));
    assert!(of_area > 300 << 10, "{of_area} bytes where there is memory");
    assert!(of_memory < 200 << 10, "{of_memory} bytes where there is little");
}
