//! Keys that a hostile client makes to end the process, in compact indexes and others.

use std::collections::BTreeMap;

use crate::support::Sim;
use crate::support::ask::use_index;
use crate::support::random::Random;
use lode_engine::{BatchWrite, Geometry, IndexKind, StoreKind};

fn fresh(seed: u64, kind: IndexKind) -> Sim {
    use_index(kind);
    let geometry = Geometry::plan(64 << 20, 1, Some(256 << 10), 8 << 10).expect("the drive is large enough");
    let mut sim = Sim::format(seed, geometry, |config| config.cache_bytes = 0);
    sim.create(1, StoreKind::Durable, &[1]).expect("the drive is empty");
    sim
}

/// What is to be there, beside the shard.
struct World {
    sim: Sim,
    model: BTreeMap<Vec<u8>, Vec<u8>>,
    random: Random,
}

impl World {
    fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    /// Keys that agree for long, end within each other, or differ in one bit far away.
    fn key(&mut self) -> Vec<u8> {
        let mut key = self.below(500).to_be_bytes()[6..].to_vec();
        match self.below(5) {
            0 => key.extend(vec![b'm'; self.below(60) as usize]),
            1 => key.extend(vec![0; self.below(60) as usize]),
            2 => {
                key = vec![b'h'; [3, 40, 300][self.below(3) as usize]];
                let at = self.below(key.len() as u64) as usize;
                key[at] ^= 1 << self.below(8);
            }
            3 => key = [&[1][..], &[b'b'; 200], &self.below(300).to_be_bytes()].concat(),
            _ => {}
        }
        key
    }

    /// Keys that lie side by side go, and those or others come in their place, in one frame.
    fn batch(&mut self) {
        let (from, most) = (self.key(), 1 + self.below(120) as usize);
        let gone: Vec<_> = self.model.range(from..).take(most).map(|(key, _)| key.clone()).collect();
        let mut come: Vec<Vec<u8>> = (0..self.below(80)).map(|_| self.key()).collect();
        for key in gone.iter().take(self.below(30) as usize) {
            let mut key = key.clone();
            match self.below(3) {
                0 => key.push(self.below(3) as u8),
                1 => key.truncate(1 + self.below(key.len() as u64) as usize),
                _ => {}
            }
            come.push(key);
        }
        if self.below(2) == 0 {
            come.sort();
        }
        let value = self.below(1 << 30).to_be_bytes();
        let deletes = gone.iter().map(|key| BatchWrite::Delete { key });
        let writes = deletes.chain(come.iter().map(|key| BatchWrite::Put { key, value: &value }));
        let writes: Vec<_> = writes.collect();
        if writes.is_empty() {
            return;
        }
        self.sim.batch(1, writes).expect("there is room");
        gone.iter().for_each(|key| drop(self.model.remove(key)));
        self.model.extend(come.into_iter().map(|key| (key, value.to_vec())));
    }

    fn verify(&mut self) {
        assert_eq!(self.sim.count(1), Ok(self.model.len() as u64));
        let wanted: Vec<_> = self.model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in wanted {
            assert_eq!(self.sim.get(1, &key), Ok(Some(value)), "{key:?}");
        }
    }
}

#[test]
fn frames_of_hostile_keys_are_applied_and_survive_restarts() {
    let seeds: u64 = std::env::var("LODE_SEEDS").map_or(10, |seeds| seeds.parse().expect("a number"));
    for seed in 1..=seeds {
        for kind in [IndexKind::Compact, IndexKind::Full] {
            let sim = fresh(seed, kind);
            let mut world = World { sim, model: BTreeMap::new(), random: Random::new(seed) };
            for round in 0..60 {
                world.batch();
                match round % 20 {
                    7 => world.sim.checkpoint().expect("there is room"),
                    12 => world.sim.reopen(),
                    19 => world.verify(),
                    _ => {}
                }
            }
        }
    }
}

/// A compact leaf knows little of its keys, and the leaf behind it has one that agrees with its last one for longer. That one goes,
/// and another comes in its place, in one frame: nothing must have to be read for that while the frame is applied.
#[test]
fn a_frame_empties_a_leaf_behind_one_that_knows_little() {
    let mut sim = fresh(1, IndexKind::Compact);
    for n in 0..127 {
        sim.put(1, format!("a{n:03}").as_bytes(), b"v").expect("there is room");
    }
    for key in [&[b'm'; 50][..], &[b'm'; 60], b"l"] {
        sim.put(1, key, b"v").expect("there is room");
        sim.settle();
    }
    let (gone, added) = (&[b'm'; 60], &[b'm'; 55]);
    let writes = vec![BatchWrite::Delete { key: gone }, BatchWrite::Put { key: added, value: b"v" }];
    sim.batch(1, writes).expect("there is room");
    assert_eq!((sim.get(1, added), sim.count(1)), (Ok(Some(b"v".to_vec())), Ok(130)));
}

/// Thousands of keys share most of their bytes, and so do the separators of their leaves; one that shares none of them comes.
#[test]
fn a_key_that_shares_nothing_with_long_ones_is_put() {
    for kind in [IndexKind::Full, IndexKind::Compact] {
        let mut sim = fresh(1, kind);
        let long =
            |n: u64| [&[b'P'; 4000][..], &n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()].concat();
        for batch in 0..160 {
            let keys: Vec<_> = (0..50).map(|n| long(50 * batch + n)).collect();
            let writes = keys.iter().map(|key| BatchWrite::Put { key, value: b"v" }).collect();
            sim.batch(1, writes).expect("there is room");
        }
        for key in [b"a", b"x"] {
            sim.put(1, key, b"v").expect("there is room");
        }
        assert_eq!(sim.count(1), Ok(8002));
    }
}
