//! What of a compact table is damaged is that alone, though its index knows only the beginnings of its keys.

use std::collections::BTreeSet;

use crate::support::ask::use_index;
use crate::support::{Sim, UUID};
use lode_engine::format::ChecksumSeed;
use lode_engine::format::frame::FrameHeader;
use lode_engine::{
    BatchWrite, Geometry, IndexKind, ReadError, ReplyBody, RequestBody, ScrubStats, ShardId, StoreKind,
};

const BLOCK: usize = 4096;
const RECORDS: u64 = 3_000;

/// Twenty bytes in no order, of which a leaf knows a few.
fn key(number: u64) -> Vec<u8> {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [mixed.to_be_bytes(), mixed.rotate_left(29).to_be_bytes(), number.to_be_bytes()].concat()[..20].to_vec()
}

fn value(number: u64) -> Vec<u8> {
    format!("<{number:05}>").into_bytes().repeat(40)
}

fn sim(seed: u64) -> Sim {
    use_index(IndexKind::Compact);
    let geometry = Geometry::plan(16 << 20, 1, Some(128 << 10), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| config.cache_bytes = 0);
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    for first in (0..RECORDS).step_by(20) {
        let records: Vec<_> = (first..first + 20).map(|number| (key(number), value(number))).collect();
        let writes = records.iter().map(|(key, value)| BatchWrite::Put { key, value }).collect();
        sim.batch(1, writes).expect("there is room");
    }
    sim.settle();
    assert!(sim.shard.stats().index_bytes / RECORDS < 24, "leaves are compact");
    sim
}

/// Where a record's value lies on the drive.
fn find(sim: &Sim, number: u64) -> usize {
    let value = value(number);
    sim.drive.now.windows(value.len()).position(|bytes| bytes == value).expect("the value was written")
}

fn scrub(sim: &mut Sim) -> ScrubStats {
    let ReplyBody::Scrub(number) = sim.ask(RequestBody::Scrub) else { panic!("not a scrub's answer") };
    while sim.shard.stats().scrub.answered < number {
        assert!(!sim.is_stuck(), "the scrub waits for nothing");
        sim.step(&mut Vec::new());
    }
    sim.shard.stats().scrub
}

/// The records whose GETs say that they are damaged.
fn lost(sim: &mut Sim) -> BTreeSet<u64> {
    let is_lost = |number: &u64| match sim.get(1, &key(*number)) {
        Ok(found) => {
            assert_eq!(found, Some(value(*number)), "record {number}");
            false
        }
        Err(error) => {
            assert!(matches!(error, ReadError::Corrupt { .. }), "record {number}: {error}");
            true
        }
    };
    (0..RECORDS).filter(is_lost).collect()
}

#[test]
fn a_damaged_frame_header_condemns_none_of_its_records() {
    let mut sim = sim(1);
    let (area, seed) =
        (sim.config.geometry.area_at(ShardId(0)).0 as usize, ChecksumSeed::new(&UUID, ShardId(0)));
    let is_header = |sim: &Sim, at: usize| {
        FrameHeader::decode_any(seed, (at - area) as u64, &sim.drive.now[at..at + BLOCK]).is_some()
    };
    let mut frame = find(&sim, 20) / BLOCK * BLOCK;
    while !is_header(&sim, frame) {
        frame -= BLOCK;
    }
    sim.drive.flip(frame + 20);
    let stats = scrub(&mut sim);
    assert_eq!((stats.damaged_records, stats.damaged_places), (0, 1), "{:?}", stats.damaged);
    assert!(lost(&mut sim).is_empty());
}

#[test]
fn one_damaged_record_is_listed_once_whoever_meets_it() {
    let mut sim = sim(2);
    // The first of the table, so that it is on the first page.
    let victim = (0..RECORDS).min_by_key(|number| key(*number)).expect("there are records");
    let at = find(&sim, victim);
    sim.drive.flip(at + 100);
    let is_it = |stats: &ScrubStats| {
        let [damaged] = &stats.damaged[..] else { panic!("{} are listed", stats.damaged.len()) };
        let known = damaged.key.len();
        assert!(!damaged.is_whole_key && known < 20 && damaged.key == key(victim)[..known], "{damaged:?}");
        assert!(
            (damaged.at..damaged.at + u64::from(damaged.len)).contains(&(at as u64)),
            "its place is told"
        );
        assert_eq!(stats.damaged_records, 1);
    };
    assert!(sim.scan(1, 10, 100_000).is_err(), "a page with it is refused");
    is_it(&sim.shard.stats().scrub);
    is_it(&scrub(&mut sim));
    // Some of these ask for what a leaf knows no more of than of the damaged one.
    let tied: Vec<u8> = key(victim)[..19].to_vec();
    let _ = sim.get(1, &tied);
    assert_eq!(lost(&mut sim), BTreeSet::from([victim]));
    is_it(&sim.shard.stats().scrub);
}
