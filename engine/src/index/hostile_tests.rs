//! Keys that are made to break the index: what must be known is known before a frame is applied, whatever they are.

use std::ops::Bound;

use super::compact_tests::World;
use super::tests::{Keys as KeyFamily, Owner, Rng, location, verify};
use super::*;

/// Keys that agree for long, end within each other, or differ in one bit far away.
pub(super) const FAMILIES: [(&str, KeyFamily); 7] = [
    ("pairs that agree for long", |rng| {
        // Where one leaf ends between them, it knows little of the border.
        let mut key = rng.below(4_000).to_be_bytes()[6..].to_vec();
        if key[1].is_multiple_of(8) {
            key.extend(std::iter::repeat_n(b'm', 40 + rng.below(8) as usize));
        }
        key
    }),
    ("one bit far away", |rng| {
        let mut key = vec![b'h'; [3, 40, 300, 1000][rng.below(4) as usize] + rng.below(3) as usize];
        for _ in 0..rng.below(4) {
            let at = rng.below(key.len() as u64) as usize;
            key[at] ^= 1 << rng.below(8);
        }
        key
    }),
    ("prefixes of each other", |rng| {
        let mut key = vec![b'p'; 1 + rng.below(400) as usize];
        if rng.below(3) == 0 {
            key.push(rng.below(4) as u8);
        }
        key
    }),
    ("zeros at the end", |rng| {
        let mut key = vec![1 + rng.below(3) as u8; 1 + rng.below(12) as usize];
        key.extend(std::iter::repeat_n(0, rng.below(120) as usize));
        if rng.below(2) == 0 {
            key.push(rng.below(3) as u8);
        }
        key
    }),
    ("a tree of long branches", |rng| {
        let mut key = Vec::new();
        for _ in 0..1 + rng.below(5) {
            let len = [0, 1, 7, 9, 60][rng.below(5) as usize];
            key.extend(std::iter::repeat_n(b'b', len));
            key.push(rng.below(6) as u8);
        }
        key
    }),
    ("short among long", |rng| {
        let mut key = rng.below(600).to_be_bytes()[6..].to_vec();
        if rng.below(2) == 0 {
            key.extend_from_slice(&[9; 50]);
            key.extend_from_slice(&rng.below(40).to_be_bytes());
        }
        key
    }),
    ("deep clusters", |rng| {
        let mut key = vec![rng.below(3) as u8; 1 + 200 * rng.below(3) as usize];
        key.extend_from_slice(&rng.next().to_be_bytes()[..3]);
        key
    }),
];

/// Of each family.
const SEEDS: u64 = 4;

/// A put or a delete.
type Change = (Vec<u8>, bool);

impl World {
    /// Changes as a frame makes them: first all is read that it is known to take, then they are made, and nothing
    /// may be missing then but what they tell of themselves.
    fn frame(&mut self, changes: &[Change]) {
        loop {
            let finds = changes.iter().map(|(key, _)| self.index.find(&self.arena, key, &self.records));
            let needs: Vec<Location> = finds.filter_map(Result::err).flat_map(|Need(all)| all).collect();
            if needs.is_empty() {
                break;
            }
            self.records.read.extend(needs);
        }
        let mut crowded = Vec::new();
        for (key, is_put) in changes {
            self.next += 1;
            let at = location(self.next * 64);
            let World { arena, index, records, model, .. } = self;
            let old = if *is_put {
                records.keys.insert(at, key.clone());
                records.read.insert(at);
                let set = index.set(arena, key, at, records).expect("all is known before a frame is applied");
                crowded.extend(set.crowded);
                (set.old, model.insert(key.clone(), at))
            } else {
                let old = index.unset(arena, key, records).expect("all is known before a frame is applied");
                (old, model.remove(key))
            };
            assert_eq!(old.0, old.1, "{key:?}");
        }
        self.forget();
        for key in crowded {
            self.with_reads(|world| world.index.refine(&mut world.arena, &key, &world.records));
            self.forget();
        }
    }

    /// A key that is there, or one like it.
    fn near(&self, rng: &mut Rng, keys: KeyFamily) -> Vec<u8> {
        let from = keys(rng);
        let next = self.model.range(from.clone()..).next().or_else(|| self.model.first_key_value());
        let mut key = next.map_or(from, |(key, _)| key.clone());
        match rng.below(5) {
            0 => key.push(rng.below(3) as u8),
            1 => key.truncate(1 + rng.below(key.len() as u64) as usize),
            2 => {
                let at = rng.below(key.len() as u64) as usize;
                key[at] = key[at].wrapping_add(1);
            }
            _ => {}
        }
        key
    }

    /// Keys that lie side by side go, and others come in their place.
    fn random_frame(&mut self, rng: &mut Rng, keys: KeyFamily) {
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..1 + rng.below(4) {
            let from = keys(rng);
            let most = [1, 10, 150, 300][rng.below(4) as usize];
            let gone = self.model.range::<[u8], _>((Bound::Included(from.as_slice()), Bound::Unbounded));
            changes.extend(gone.take(rng.below(most) as usize).map(|(key, _)| (key.clone(), false)));
            let come = [2, 20, 200][rng.below(3) as usize];
            changes.extend((0..rng.below(come)).map(|_| (self.near(rng, keys), true)));
            let mut others: Vec<_> = (0..rng.below(come)).map(|_| (keys(rng), true)).collect();
            if rng.below(2) == 0 {
                // Leaves stay full behind keys in ascending order.
                others.sort();
            }
            changes.extend(others);
        }
        self.frame(&changes);
    }
}

#[test]
fn frames_of_hostile_keys_are_applied_with_what_was_read_before() {
    for (_, keys) in FAMILIES {
        for seed in 1..=SEEDS {
            let (mut world, mut rng) = (World::new(), Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
            for round in 0..60 {
                world.random_frame(&mut rng, keys);
                if round % 10 == 9 {
                    world.verify();
                }
            }
        }
    }
}

/// A leaf that knows little of its keys, and behind it a leaf of one key that agrees with its last one for longer. A frame
/// takes that key away, and puts another in its place.
#[test]
fn a_leaf_that_takes_over_what_another_leaves_knows_its_borders() {
    for len in [52, 55, 60, 61] {
        let mut world = World::new();
        (0..127).for_each(|n| world.put(format!("a{n:03}").as_bytes()));
        world.put(&[b'm'; 50]);
        // In ascending order: a leaf of its own.
        world.put(&[b'm'; 60]);
        // The leaf before is full, splits, and its second half becomes compact.
        world.put(b"l");
        let is_compact = |world: &World, key: &[u8]| !world.index.candidates(&world.arena, key).is_certain;
        assert!(!is_compact(&world, &[b'm'; 60]));
        world.frame(&[(vec![b'm'; 60], false), (vec![b'm'; len], true)]);
        world.verify();
    }
}

#[test]
fn a_key_that_shares_nothing_with_thousands_of_long_ones_finds_room() {
    let (mut owner, mut rng) = (Owner::default(), Rng(5));
    for n in 0..9_000 {
        let mut key = vec![b'P'; 4000];
        key.extend_from_slice(&rng.next().to_be_bytes());
        owner.insert(&key, location(n));
    }
    for n in 0..200 {
        owner.insert(&[[b'a', b'x'][n as usize % 2], n], location(5));
    }
    verify(&owner);
    for n in 0..200 {
        assert_eq!(owner.remove(&[[b'a', b'x'][n as usize % 2], n]), Some(location(5)));
    }
    verify(&owner);
}

/// So many are tied in one leaf that they must be told apart while a frame is applied, and some of their records cannot be read. Where
/// the keys are as long as keys can be, there is no room behind what is known of them for keys that stand in for those.
#[test]
fn a_leaf_of_nothing_but_tied_keys_is_parted_though_some_cannot_be_read() {
    let short: (KeyFamily, fn(usize) -> Vec<u8>) =
        (|rng| rng.next().to_be_bytes().to_vec(), |i| [&[b'm'; 40][..], &(i as u32).to_be_bytes()].concat());
    let long: (KeyFamily, fn(usize) -> Vec<u8>) = (
        |rng| [&[b'm'][..], &[0; 4092], &rng.next().to_be_bytes()[..3]].concat(),
        |i| [&[b'm'][..], &vec![0; 3000 + i]].concat(),
    );
    for (others, tied) in [short, long] {
        let (mut world, mut rng) = (World::new(), Rng(7));
        for _ in 0..2_000 {
            let key = others(&mut rng);
            world.put(&key);
        }
        let before = world.index.len();
        let locations: Vec<_> = (0..900).map(|i| location((1 << 20) + 64 * i)).collect();
        for (i, at) in locations.iter().enumerate() {
            let World { arena, index, records, .. } = &mut world;
            records.keys.insert(*at, tied(i));
            records.read.insert(*at);
            // What it takes beside those that came before is what is in the leaf.
            while let Err(Need(all)) = index.set(arena, &tied(i), *at, records) {
                assert!(i < 3, "{all:?} of {i}");
                records.read.extend(all);
            }
            if i % 30 == 7 {
                records.unreadable.insert(*at);
            }
        }
        assert_eq!(world.index.len(), before + 900);
        for (i, at) in locations.iter().enumerate().filter(|(i, _)| i % 30 != 7) {
            let found = world.index.find(&world.arena, &tied(i), &world.records);
            assert_eq!(found, Ok(Some(*at)), "{i}");
        }
    }
}

/// Between a compact leaf that knows its keys to a few bytes and one of long keys, a leaf goes: what is left of it would not know
/// the border to what is right of it.
#[test]
fn when_a_leaf_goes_the_border_stays_that_both_neighbours_know() {
    let mut world = World::new();
    let long = |n: u32| [&[b'm'; 60][..], format!("{n:03}").as_bytes()].concat();
    let between: Vec<_> = (0..127).map(|n| format!("m{n:03}").into_bytes()).chain([vec![b'm'; 50]]).collect();
    // In ascending order leaves are left full.
    (0..128).for_each(|n| world.put(format!("a{n:03}").as_bytes()));
    between.iter().for_each(|key| world.put(key));
    (0..110).for_each(|n| world.put(&long(n)));
    world.put(b"a1265");
    assert!(!world.index.candidates(&world.arena, b"a127").is_certain, "the leaf before is compact");
    between.iter().for_each(|key| world.delete(key));
    world.verify();
    world.frame(&[(vec![b'm'; 50], true), (long(3), false)]);
    world.verify();
}
