//! What the loss of a part of the journal costs: the records that it was about, and no room.

use crate::support::ask::use_index;
use crate::support::{Sim, UUID};
use lode_engine::format::ChecksumSeed;
use lode_engine::format::frame::{FRAME_HEADER_BYTES, FrameHeader, Stream};
use lode_engine::format::journal::{JournalEntries, JournalEntry, decode_head, for_each_entry};
use lode_engine::format::segment::SegmentHeader;
use lode_engine::{
    Geometry, IndexKind, Location, PartitionId, ReadError, SegmentId, ShardId, StoreKind, WriteError,
};

const BLOCK: usize = 4096;
const SEGMENT: u32 = 1 << 20;
const LONG: usize = 40 << 10;
/// Keys that each have a segment's only record.
const KEYS: u32 = 20;
/// They are of this partition, and what fills the segments of the other.
const OLD: u32 = 1;
const FILL: u32 = 2;
/// This one is in no image.
const NEW: u32 = 3;

/// All frames of a stream: where on the drive, and their headers, in the order of their numbers.
fn frames(sim: &Sim, stream: Stream) -> Vec<(usize, FrameHeader)> {
    let seed = ChecksumSeed::new(&UUID, ShardId(0));
    let area = sim.config.geometry.area_at(ShardId(0)).0 as usize;
    let end = area + sim.config.geometry.area_bytes() as usize;
    let decode = |at: usize| {
        let header = FrameHeader::decode_any(seed, (at - area) as u64, &sim.drive.now[at..at + BLOCK])?;
        (header.stream == stream).then_some((at, header))
    };
    let mut found: Vec<_> = (area..end).step_by(BLOCK).filter_map(decode).collect();
    found.sort_by_key(|(_, header)| header.number);
    found
}

fn fill(sim: &mut Sim) {
    sim.put(FILL, b"fill", &[7; LONG]).expect("there is room");
}

/// Writes until the journal has one more frame, and gives that.
fn next_frame(sim: &mut Sim) -> (usize, FrameHeader) {
    let before = frames(sim, Stream::Journal).last().map(|(_, header)| header.number);
    loop {
        fill(sim);
        sim.settle();
        let last = *frames(sim, Stream::Journal).last().expect("the journal has frames");
        if Some(last.1.number) != before {
            return last;
        }
    }
}

/// A drive with a journal frame that alone says where the old keys are; those after it say that the segments where
/// the image has them are free. Gives that frame.
fn moved_from_freed_segments(seed: u64, discard: bool) -> (Sim, (usize, FrameHeader)) {
    let geometry = Geometry::plan(40 << 20, 1, Some(SEGMENT), 64 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| {
        config.cache_bytes = 0;
        config.discard = discard;
    });
    sim.create(1, StoreKind::Durable, &[OLD]).expect("the drive is empty");
    sim.create(2, StoreKind::Durable, &[FILL]).expect("the drive is empty");
    for key in 0..KEYS {
        sim.put(OLD, &key.to_be_bytes(), b"first").expect("there is room");
        (0..SEGMENT as usize / LONG).for_each(|_| fill(&mut sim));
    }
    sim.checkpoint().expect("there is room");
    sim.create(3, StoreKind::Durable, &[NEW]).expect("there is room");
    next_frame(&mut sim);
    for key in 0..KEYS {
        sim.put(OLD, &key.to_be_bytes(), b"second").expect("there is room");
        sim.put(NEW, &key.to_be_bytes(), b"first").expect("there is room");
        sim.put(NEW, &(KEYS + key).to_be_bytes(), b"first").expect("there is room");
    }
    let frame = next_frame(&mut sim);
    // The segments are freed when few others are free.
    while sim.shard.census().free < KEYS {
        fill(&mut sim);
    }
    next_frame(&mut sim);
    assert_eq!(sim.shard.stats().checkpoints, 1, "the image is that of before");
    assert!(sim.shard.census().free + 4 > KEYS);
    (sim, frame)
}

/// Found by the simulator (seed 41000149): all free segments counted as in use by what the image had in them.
#[test]
fn freed_segments_stay_free_though_what_emptied_them_was_lost() {
    for (kind, discard) in
        [IndexKind::Full, IndexKind::Compact].map(|kind| [(kind, false), (kind, true)]).concat()
    {
        use_index(kind);
        for seed in 0..4 {
            let (mut sim, (at, _)) = moved_from_freed_segments(seed, discard);
            let before = sim.shard.census();
            sim.drive.settle();
            sim.drive.flip(at + 80);
            sim.reopen();
            sim.settle();
            let case = format!("{kind:?}, discard {discard}, seed {seed}");
            assert!(sim.shard.stats().quarantined_frames > 0, "{case}");
            let after = sim.shard.census();
            assert!(after.free + 4 > before.free, "{case}: {before:?}, then {after:?}");
            assert_eq!(sim.shard.audit(), Vec::<String>::new(), "{case}");
            lost_keys_say_so_until_they_are_written(&mut sim, &case);
            // The drive is written many times over.
            (0..3_000).for_each(|_| fill(&mut sim));
            assert_eq!(sim.shard.audit(), Vec::<String>::new(), "{case}");
            // What could not be read can be now. That it was lost is known all the same.
            sim.drive.settle();
            sim.drive.flip(at + 80);
            sim.reopen();
            sim.settle();
            assert_eq!(sim.get(OLD, &0u32.to_be_bytes()), Ok(Some(b"third".to_vec())), "{case}");
            assert_lost(&mut sim, 1, &case);
            assert_eq!(sim.get(FILL, b"fill"), Ok(Some(vec![7; LONG])), "{case}");
        }
    }
}

/// Where its segment was written anew before the crash, something else is found there.
fn assert_lost(sim: &mut Sim, key: u32, case: &str) {
    let got = sim.get(OLD, &key.to_be_bytes());
    let says_so = matches!(got, Err(ReadError::Quarantined { .. } | ReadError::Corrupt { .. }));
    assert!(says_so, "{case}: key {key} is {got:?}");
}

fn lost_keys_say_so_until_they_are_written(sim: &mut Sim, case: &str) {
    (0..KEYS).for_each(|key| assert_lost(sim, key, case));
    assert!(matches!(sim.count(OLD), Err(ReadError::Quarantined { .. })), "{case}");
    sim.put(OLD, &0u32.to_be_bytes(), b"third").expect("there is room");
    assert_eq!(sim.get(OLD, &0u32.to_be_bytes()), Ok(Some(b"third".to_vec())), "{case}");
}

/// The segments that could hold records, but for the one that the last was written to.
fn all_but_the_last(sim: &Sim) -> Vec<SegmentId> {
    let geometry = sim.config.geometry;
    let (seed, area) = (ChecksumSeed::new(&UUID, ShardId(0)), geometry.area_at(ShardId(0)).0 as usize);
    let last = frames(sim, Stream::User).last().expect("the users' log has frames").1.segment;
    let may_hold_records = |segment: &SegmentId| {
        let at = geometry.segment_at(*segment);
        let header = SegmentHeader::decode(seed, at, &sim.drive.now[area + at as usize..][..BLOCK]);
        header.is_none_or(|header| matches!(header.stream, Stream::User | Stream::Cleaning))
    };
    let all = (0..geometry.segments_per_shard).map(SegmentId);
    all.filter(|segment| *segment != last && may_hold_records(segment)).collect()
}

/// Writes a journal frame anew, with a checksum that holds: it says that the new keys lie in these segments.
fn forge(sim: &mut Sim, (at, mut header): (usize, FrameHeader), segments: &[SegmentId]) {
    let geometry = sim.config.geometry;
    let (seed, area) = (ChecksumSeed::new(&UUID, ShardId(0)), geometry.area_at(ShardId(0)).0 as usize);
    let mut frame = sim.drive.now[at..at + header.frame_len()].to_vec();
    let payload = &frame[FRAME_HEADER_BYTES..][..header.payload_bytes as usize];
    let (head, entries) = decode_head(payload).expect("it was written by this build");
    let mut segments = segments.iter();
    let mut forged = JournalEntries::default();
    for_each_entry(entries, |mut entry| {
        if let JournalEntry::Set { partition: PartitionId(NEW), location, .. } = &mut entry
            && let Some(segment) = segments.next()
        {
            *location =
                Location::new(geometry.segment_at(*segment) + 2 * BLOCK as u64, location.room() as usize);
        }
        forged.push(&entry);
    })
    .expect("it was written by this build");
    assert!(segments.next().is_none(), "there are enough new keys");
    let (payload, partitions) = forged.finish(&head);
    (header.payload_bytes, header.partitions) = (payload.len() as u32, partitions);
    header.detail = crc32c::crc32c(&payload);
    assert_eq!(header.frame_len(), frame.len(), "the next frame lies behind");
    frame[FRAME_HEADER_BYTES..][..payload.len()].copy_from_slice(&payload);
    header.encode(seed, (at - area) as u64, &mut frame);
    sim.drive.put(at, &frame);
}

/// No build of ours leaves a drive without a free segment. One that it is left with all the same can be read.
#[test]
fn where_neither_journal_nor_checkpoint_find_a_segment_writes_are_answered_full() {
    use_index(IndexKind::Full);
    let (mut sim, frame) = moved_from_freed_segments(1, false);
    sim.put_ttl(FILL, b"fill", &[7; LONG], 60_000).expect("there is room");
    sim.settle();
    sim.drive.settle();
    let segments = all_but_the_last(&sim);
    forge(&mut sim, frame, &segments);
    sim.reopen();
    sim.settle();
    let census = sim.shard.census();
    assert_eq!((census.free, sim.shard.stats().quarantined_frames), (0, 0), "{census:?}");
    assert_eq!(sim.get(FILL, b"fill"), Ok(Some(vec![7; LONG])));
    // One segment is emptied, and nobody can note it.
    sim.wall_ns += 120_000_000_000;
    sim.poke();
    sim.settle();
    assert_eq!(sim.shard.census().emptied, 1, "{:?}", sim.shard.census());
    // One is open for users' writes.
    let refused = (0..SEGMENT as usize / LONG).find_map(|_| sim.put(FILL, b"more", &[7; LONG]).err());
    assert!(matches!(refused, Some(WriteError::Full { .. })), "{refused:?}");
    while sim.put(FILL, b"short", b"").is_ok() {}
    for _ in 0..3 {
        let written = sim.put(FILL, b"more", &[7; LONG]);
        assert!(matches!(written, Err(WriteError::Full { .. })), "{written:?}");
        let deleted = sim.delete(NEW, &0u32.to_be_bytes());
        assert!(matches!(deleted, Err(WriteError::Full { .. })), "{deleted:?}");
    }
    assert_eq!(sim.get(FILL, b"fill"), Ok(None));
    assert!(sim.checkpoint().is_err());
}
