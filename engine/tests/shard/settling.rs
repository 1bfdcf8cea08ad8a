//! A compact index after starts one behind the other: what one start makes of changes, the next one finds.

use crate::support::Sim;
use crate::support::ask::use_index;
use lode_engine::{Geometry, IndexKind, Request, RequestBody, StoreKind};

const RECORDS: u32 = 12_000;
/// Loaded, and written into the image, last.
const LAST: u32 = 8;

fn key(i: u32) -> Vec<u8> {
    format!("s{i:06}/what/no/two/key/have").into_bytes()
}

fn filled(seed: u64) -> Sim {
    use_index(IndexKind::Compact);
    let geometry = Geometry::plan(96 << 20, 1, Some(256 << 10), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| config.cache_bytes = 0);
    let partitions: Vec<u32> = (1..=LAST).collect();
    sim.create(1, StoreKind::Durable, &partitions).expect("the drive is empty");
    for partition in 1..LAST {
        for first in (0..RECORDS).step_by(500) {
            let keys: Vec<_> = (first..first + 500).map(key).collect();
            let writes =
                keys.iter().map(|key| lode_engine::BatchWrite::Put { key, value: b"image" }).collect();
            sim.batch(partition, writes).expect("there is room");
        }
    }
    sim
}

/// A checkpoint whose image has the last change of these, of which no journal frame has any.
fn image_ahead_of_the_journal(sim: &mut Sim, changes: &[Option<&[u8]>]) {
    let id = sim.next_id();
    sim.step(&mut vec![Request { id, body: RequestBody::Checkpoint }]);
    for change in changes {
        match change {
            Some(value) => sim.put(LAST, b"k", value).expect("there is room"),
            None => sim.delete(LAST, b"k").expect("there is room"),
        };
    }
    assert!(sim.replies.is_empty(), "the image is not yet written");
    sim.reply_to(id);
}

fn start(sim: &mut Sim) {
    sim.drive.settle();
    sim.restart();
    sim.run_until_serving();
    sim.settle();
}

fn survives(changes: &[Option<&[u8]>]) {
    for seed in 1..4 {
        let mut sim = filled(seed);
        sim.put(LAST, b"k", b"first").expect("there is room");
        image_ahead_of_the_journal(&mut sim, changes);
        let last = changes.last().expect("something changes").map(<[u8]>::to_vec);
        for round in 0..3 {
            start(&mut sim);
            assert_eq!(sim.get(LAST, b"k"), Ok(last.clone()), "start {round}, seed {seed}");
            // What the start has noted in the journal becomes durable.
            for i in 0..300 {
                sim.put(1, &key(i), &[1; 8 << 10]).expect("there is room");
            }
            sim.settle();
            assert_eq!(
                sim.shard.stats().checkpoints,
                0,
                "the next start reads the journal that this one wrote"
            );
        }
    }
}

#[test]
fn a_key_that_an_image_has_newer_than_the_journal_is_there_after_two_starts() {
    survives(&[Some(b"second"), Some(b"third")]);
}

#[test]
fn a_key_that_was_deleted_and_put_again_ahead_of_the_journal_is_there_after_two_starts() {
    survives(&[None, Some(b"third")]);
}
