//! The compact index against a plain ordered map, and an oracle in the place of records.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use super::borders::Imaging;
use super::tests::{FAMILIES, Keys as KeyFamily, Rng, location};
use super::*;

/// Families of keys that defeat what is known of them, beside those that strain the codec of whole keys.
const HOSTILE: [(&str, KeyFamily); 5] = [
    ("pairs", |rng| {
        // Two keys that differ only at the end, everywhere.
        let mut key = rng.below(2_000).to_be_bytes().to_vec();
        key.extend_from_slice(&[7; 40]);
        key.push(rng.below(2) as u8);
        key
    }),
    ("zeros", |rng| {
        // Keys that padding makes alike.
        let mut key = vec![b'a' + rng.below(3) as u8];
        key.extend(std::iter::repeat_n(0, rng.below(300) as usize));
        key
    }),
    ("prefixes", |rng| vec![b'p'; 1 + rng.below(600) as usize]),
    ("deep clusters", |rng| {
        let mut key = vec![rng.below(3) as u8; 1 + 200 * rng.below(3) as usize];
        key.extend_from_slice(&rng.next().to_be_bytes()[..3]);
        key
    }),
    ("dense", |rng| rng.below(60_000).to_be_bytes().to_vec()),
];

fn families() -> impl Iterator<Item = (&'static str, KeyFamily)> {
    HOSTILE.into_iter().chain(FAMILIES).chain(super::hostile_tests::FAMILIES)
}

/// The keys of all records, and which of them were read.
#[derive(Default)]
pub(super) struct Records {
    pub(super) keys: HashMap<Location, Vec<u8>>,
    pub(super) read: HashSet<Location>,
    pub(super) unreadable: HashSet<Location>,
    asked: Cell<u64>,
}

impl Keys for Records {
    fn key_of(&self, location: Location) -> KeyOf<'_> {
        self.asked.set(self.asked.get() + 1);
        if self.unreadable.contains(&location) {
            return KeyOf::Unreadable;
        }
        let key = self.read.get(&location).and_then(|location| self.keys.get(location));
        key.map_or(KeyOf::Unknown, |key| KeyOf::Key(key))
    }
}

/// A compact index, its arena, its records, and what it should hold.
pub(super) struct World {
    pub(super) arena: IndexArena,
    pub(super) index: PartitionIndex,
    pub(super) records: Records,
    pub(super) model: BTreeMap<Vec<u8>, Location>,
    pub(super) next: u64,
    reads: u64,
}

impl World {
    pub(super) fn new() -> World {
        World {
            arena: IndexArena::new(),
            index: PartitionIndex::compact(),
            records: Records::default(),
            model: BTreeMap::new(),
            next: 0,
            reads: 0,
        }
    }

    /// Reads what is needed, and does it again.
    pub(super) fn with_reads<T>(&mut self, mut act: impl FnMut(&mut World) -> Result<T, Need>) -> T {
        for _ in 0..10 {
            match act(self) {
                Ok(done) => return done,
                Err(Need(locations)) => {
                    let len = self.index.len();
                    assert!(!locations.is_empty());
                    for location in locations {
                        assert!(self.records.read.insert(location), "what was read is not asked for again");
                        self.reads += 1;
                    }
                    assert_eq!(len, self.index.len());
                }
            }
        }
        panic!("nothing more is needed after a few rounds");
    }

    pub(super) fn put(&mut self, key: &[u8]) {
        self.next += 1;
        let at = location(self.next * 64);
        self.records.keys.insert(at, key.to_vec());
        let set = self.with_reads(|world| world.index.set(&mut world.arena, key, at, &world.records));
        assert_eq!(set.old, self.model.insert(key.to_vec(), at), "put {key:?}");
        self.forget();
        if let Some(crowded) = set.crowded {
            self.with_reads(|world| world.index.refine(&mut world.arena, &crowded, &world.records));
            self.forget();
        }
    }

    /// No more is known than the index holds.
    pub(super) fn forget(&mut self) {
        self.records.read.clear();
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        let old = self.with_reads(|world| world.index.unset(&mut world.arena, key, &world.records));
        assert_eq!(old, self.model.remove(key), "delete {key:?}");
        self.forget();
    }

    fn relocate(&mut self, key: &[u8]) {
        self.next += 1;
        let to = location(self.next * 64);
        self.records.keys.insert(to, key.to_vec());
        let from = self.model.get(key).copied();
        let moved = from.is_some_and(|from| self.index.relocate(&mut self.arena, key, from, to));
        assert_eq!(moved, from.is_some(), "relocate {key:?}");
        assert!(!self.index.relocate(&mut self.arena, key, location(1 << 30), to), "what is elsewhere stays");
        if moved {
            self.model.insert(key.to_vec(), to);
        }
    }

    fn change(&mut self, rng: &mut Rng, keys: KeyFamily, removals: u64) {
        let key = keys(rng);
        match rng.below(100) {
            n if n < removals => self.delete(&key),
            n if n % 10 == 9 => self.relocate(&key),
            _ => self.put(&key),
        }
        let found = self.index.candidates(&self.arena, &key);
        let wanted = self.model.get(&key);
        assert!(wanted.is_none_or(|at| found.locations.contains(at)), "candidates for {key:?}");
        assert!(!found.is_certain || found.locations.first() == wanted, "certain of {key:?}");
        assert!(wanted.is_none_or(|at| self.index.holds(&self.arena, &key, *at)));
        assert_eq!(self.index.len(), self.model.len() as u64);
    }

    pub(super) fn verify(&self) {
        let keys = |at: Location| self.records.keys[&at].clone();
        let mut walked = Vec::new();
        let mut iter = self.index.iter(&self.arena, Bound::Unbounded, Bound::Unbounded);
        while let Some((known, at)) = iter.next() {
            let (known, is_whole) = (known.to_vec(), iter.is_whole());
            let key = keys(at);
            let padded: Vec<u8> = (0..known.len()).map(|i| key.get(i).copied().unwrap_or(0)).collect();
            assert!(if is_whole { known == key } else { known == padded }, "{known:?} of {key:?}");
            walked.push((key, at));
        }
        let wanted: Vec<_> = self.model.iter().map(|(key, at)| (key.clone(), *at)).collect();
        assert_eq!(walked, wanted, "all keys in order");
        let mut back = Vec::new();
        let mut iter = self.index.iter_rev(&self.arena, Bound::Unbounded, Bound::Unbounded);
        while let Some((_, at)) = iter.next() {
            back.push((keys(at), at));
        }
        back.reverse();
        assert_eq!(back, wanted, "and back");
        super::tests::recount_all(&self.index, &self.arena, &keys);
    }

    fn verify_ranges(&mut self, rng: &mut Rng, keys: KeyFamily) {
        for _ in 0..10 {
            let (a, b) = (keys(rng), keys(rng));
            let (start, end) = if a < b { (a, b) } else { (b, a) };
            let (start, end) = (start.as_slice(), end.as_slice());
            let ends = [
                (Bound::Included(start), Bound::Excluded(end)),
                (Bound::Excluded(start), Bound::Included(end)),
            ];
            for (low, high) in ends.into_iter().filter(|_| start < end) {
                let wanted = self.model.range::<[u8], _>((low, high)).map(|(_, at)| *at).collect::<Vec<_>>();
                let count =
                    self.with_reads(|world| world.index.count_with(&world.arena, low, high, &world.records));
                self.forget();
                assert_eq!(count, wanted.len() as u64, "count of {start:?} to {end:?}");
                // A walk has all of them, and at its ends what may be.
                let mut walked = Vec::new();
                let mut iter = self.index.iter(&self.arena, low, high);
                while let Some((_, at)) = iter.next() {
                    walked.push(at);
                }
                let at = walked.iter().position(|at| wanted.first() == Some(at)).unwrap_or(0);
                assert_eq!(walked.get(at..at + wanted.len()), Some(wanted.as_slice()));
            }
        }
    }
}

#[test]
fn random_changes_agree_with_a_plain_map() {
    for (name, keys) in families() {
        for seed in 1..=2u64 {
            let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let mut world = World::new();
            for removals in [5, 50, 97] {
                for step in 0..4000 {
                    world.change(&mut rng, keys, removals);
                    if step % 1000 == 0 {
                        world.verify();
                    }
                }
                world.verify();
                world.verify_ranges(&mut rng, keys);
            }
            let mut drained = Vec::new();
            while !world.index.drain_some(&mut world.arena, 97, &mut |at| drained.push(at)) {}
            drained.sort_by_key(|at| at.to_raw());
            let mut wanted: Vec<_> = world.model.values().copied().collect();
            wanted.sort_by_key(|at| at.to_raw());
            assert_eq!(drained, wanted);
            assert_eq!(world.arena.used_bytes(), 0, "{name}");
        }
    }
}

#[test]
fn random_keys_take_few_bytes_and_few_reads() {
    let mut world = World::new();
    let mut rng = Rng(3);
    let family = FAMILIES[0].1;
    for _ in 0..60_000 {
        let key = family(&mut rng);
        world.put(&key);
    }
    world.verify();
    let bytes = world.arena.used_bytes() as f64 / world.index.len() as f64;
    let location_bytes = (leaf::LOCATION_BYTES - 1) as f64;
    assert!(bytes < location_bytes + 3.8, "{bytes} bytes a key");
    assert!(world.reads < 60_000 / 50, "{} reads for 60,000 new keys", world.reads);
    world.reads = 0;
    let keys: Vec<_> = world.model.keys().cloned().collect();
    for key in &keys {
        world.put(key);
    }
    let reads = world.reads as f64 / keys.len() as f64;
    assert!(reads < 1.05, "{reads} reads a key that is overwritten");
}

#[test]
fn keys_in_ascending_order_take_few_bytes_and_no_reads() {
    let mut world = World::new();
    let keys: Vec<_> = (0..20_000).map(|n| format!("order:{n:012}").into_bytes()).collect();
    keys.iter().for_each(|key| world.put(key));
    let whole = keys.iter().filter(|key| world.index.candidates(&world.arena, key).is_certain).count();
    assert!(whole <= 128, "{whole} keys are in whole leaves; but for the last leaf all should be compact");
    let per_key = world.arena.used_bytes() as f64 / keys.len() as f64;
    assert!(per_key < 9.5, "{per_key} bytes a key");
    assert_eq!(world.reads, 0);
    world.verify();
}

#[test]
fn removal_gives_memory_back() {
    for (name, keys) in families() {
        let (mut world, mut rng) = (World::new(), Rng(11));
        for _ in 0..8_000 {
            let key = keys(&mut rng);
            world.put(&key);
        }
        let mut order: Vec<_> = world.model.keys().map(|key| (rng.next(), key.clone())).collect();
        order.sort();
        let kept = order.len() / 10;
        for (_, key) in order.drain(kept..) {
            world.delete(&key);
        }
        world.verify();
        let mut fresh = World::new();
        order.iter().for_each(|(_, key)| fresh.put(key));
        let (left, fresh) = (world.arena.used_bytes(), fresh.arena.used_bytes());
        // Leaves that needed whole keys keep them.
        let whole: usize = order.iter().map(|(_, key)| key.len() + 24).sum();
        assert!(
            left < (2 * fresh + 4096).max(whole),
            "{name}: what is left takes {left} bytes, and {fresh} in a new index"
        );
        order.iter().for_each(|(_, key)| world.delete(key));
        assert_eq!((world.index.len(), world.arena.used_bytes()), (0, 0), "{name}");
    }
}

#[test]
fn an_image_that_is_written_while_the_index_changes_has_every_key_once() {
    for (name, keys) in families() {
        for seed in 1..=6u64 {
            let mut rng = Rng(seed * 77_777_777);
            let mut world = World::new();
            for _ in 0..2_000 {
                let key = keys(&mut rng);
                world.put(&key);
            }
            let before = world.model.clone();
            let mut touched: BTreeSet<Vec<u8>> = BTreeSet::new();
            let mut load = IndexLoad::new(true);
            let mut loaded = IndexArena::new();
            world.index.begin_image();
            assert_eq!(world.index.begun_image(), Some(&Imaging::Begin));
            // Removals clear whole leaves, on either side of where the image is.
            let removals = [2, 50, 95, 98][seed as usize % 4];
            while let Some(image) = world.index.leaf_to_image(&world.arena) {
                let pushed = load.push(&mut loaded, &image.bytes, &mut |_, _| true);
                assert!(pushed.is_ok(), "{name}, seed {seed}");
                world.index.leaf_imaged(&world.arena);
                for _ in 0..rng.below(1 + image.records) {
                    let key = keys(&mut rng);
                    touched.insert(key.clone());
                    match rng.below(100) < removals {
                        true => world.delete(&key),
                        false => world.put(&key),
                    }
                }
            }
            let index = load.finish(&mut loaded);
            super::tests::recount_all(&index, &loaded, &|at| world.records.keys[&at].clone());
            let mut found: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
            let mut iter = index.iter(&loaded, Bound::Unbounded, Bound::Unbounded);
            while let Some((_, at)) = iter.next() {
                *found.entry(world.records.keys[&at].clone()).or_default() += 1;
            }
            for key in before.keys().filter(|key| !touched.contains(*key)) {
                assert_eq!(found.get(key), Some(&1), "{name}, seed {seed}: {key:?}");
            }
            assert!(found.values().all(|times| *times == 1), "{name}, seed {seed}: a key twice");
        }
    }
}

#[test]
fn a_leaf_that_goes_when_its_image_is_due_is_passed_over() {
    let (mut world, mut rng) = (World::new(), Rng(7));
    // In ascending order leaves are left full: none merges with one that loses its keys.
    let keys: BTreeSet<Vec<u8>> = (0..4_000).map(|_| FAMILIES[0].1(&mut rng)).collect();
    keys.iter().for_each(|key| world.put(key));
    let (mut load, mut loaded) = (IndexLoad::new(true), IndexArena::new());
    let mut gone = 0;
    world.index.begin_image();
    while let Some(image) = world.index.leaf_to_image(&world.arena) {
        load.push(&mut loaded, &image.bytes, &mut |_, _| true).expect("it lies behind those before");
        world.index.leaf_imaged(&world.arena);
        let Some(next) = world.index.leaf_to_image(&world.arena) else { continue };
        if rng.below(2) == 0 {
            let (mut alone, mut arena) = (IndexLoad::new(true), IndexArena::new());
            let mut locations = Vec::new();
            let mut each = |location, _| {
                locations.push(location);
                true
            };
            alone.push(&mut arena, &next.bytes, &mut each).expect("it is a leaf");
            for location in locations {
                let key = world.records.keys[&location].clone();
                world.delete(&key);
            }
            gone += 1;
        }
    }
    assert!(gone > 3, "{gone} leaves went");
    let index = load.finish(&mut loaded);
    let mut found: Vec<Location> = Vec::new();
    let mut iter = index.iter(&loaded, Bound::Unbounded, Bound::Unbounded);
    while let Some((_, at)) = iter.next() {
        found.push(at);
    }
    let left: Vec<Location> = world.model.values().copied().collect();
    assert_eq!(found.len(), left.len(), "each once");
    assert_eq!(HashSet::<_>::from_iter(found), HashSet::<Location>::from_iter(left));
}

#[test]
fn forged_leaves_are_refused_or_harmless() {
    let (mut world, mut rng) = (World::new(), Rng(5));
    for _ in 0..1_000 {
        let key = FAMILIES[0].1(&mut rng);
        world.put(&key);
    }
    world.index.begin_image();
    let image = world.index.leaf_to_image(&world.arena).expect("there is a leaf");
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut bytes = image.bytes.to_vec();
        let at = if rng.below(2) == 0 { rng.below(12) } else { rng.below(bytes.len() as u64) } as usize;
        bytes[at] = rng.next() as u8;
        if rng.below(10) == 0 {
            bytes.truncate(at);
        }
        let (mut arena, mut load) = (IndexArena::new(), IndexLoad::new(true));
        if load.push(&mut arena, &bytes, &mut |_, _| true).is_err() {
            refused += 1;
            continue;
        }
        let index = load.finish(&mut arena);
        let key = FAMILIES[0].1(&mut rng);
        index.candidates(&arena, &key);
        let mut iter = index.iter(&arena, Bound::Unbounded, Bound::Unbounded);
        while iter.next().is_some() {}
    }
    assert!(refused > 1_000, "{refused} were refused");
}

#[test]
fn a_record_that_cannot_be_read_stays_behind_the_key_that_may_replace_it() {
    let mut world = World::new();
    let mut rng = Rng(9);
    for _ in 0..2_000 {
        let key = FAMILIES[0].1(&mut rng);
        world.put(&key);
    }
    let (key, old) = world.model.iter().next().map(|(key, at)| (key.clone(), *at)).expect("there are keys");
    let is_compact = !world.index.candidates(&world.arena, &key).is_certain;
    assert!(is_compact, "the leaf is full of random keys");
    world.records.unreadable.insert(old);
    let new = location(1 << 40);
    world.records.keys.insert(new, key.clone());
    let set = world.index.set(&mut world.arena, &key, new, &world.records).expect("nothing can be read");
    assert_eq!(set.old, None);
    let found = world.index.candidates(&world.arena, &key);
    assert_eq!(found.locations.as_slice(), [new, old], "the newest is found first");
}
