//! Indexes copied out leaf by leaf and copied in again, against the same built by inserts; and what no
//! program of ours has written.

use std::ops::Bound;

use super::{IndexLoad, Malformed};
use crate::index::tests::{
    FAMILIES, Keys, Model, Owner, Rng, change, forward, location, verify, verify_ranges,
};

/// The leaves of an index, while `between` changes it after each.
fn copied(from: &mut Owner, most_bytes: usize, mut between: impl FnMut(&mut Owner)) -> Vec<Vec<u8>> {
    let (mut leaves, mut last_key, mut records) = (Vec::new(), Vec::new(), 0);
    while let Some(leaf) = from.index.leaf_after(&from.arena, &last_key, most_bytes) {
        assert!(leaf.bytes.len() <= most_bytes);
        records += leaf.records;
        last_key = leaf.last_key;
        leaves.push(leaf.bytes.into_owned());
        between(from);
    }
    assert_eq!(records, load(&leaves).expect("leaves of ours").index.len(), "keys of a copy");
    leaves
}

fn load(leaves: &[Vec<u8>]) -> Result<Owner, Malformed> {
    let mut loaded = Owner::default();
    let mut load = IndexLoad::new(false);
    for leaf in leaves {
        load.push(&mut loaded.arena, leaf, &mut |_, _| true)?;
    }
    loaded.index = load.finish(&mut loaded.arena);
    Ok(loaded)
}

fn filled(keys: Keys, seed: u64, count: usize) -> (Owner, Model) {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let (mut index, mut model) = (Owner::default(), Model::new());
    for _ in 0..count {
        change(&mut index, &mut model, &mut rng, keys, 20);
    }
    (index, model)
}

const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

#[test]
fn what_was_loaded_is_what_was_inserted_and_goes_on_as_such() {
    for (name, keys) in FAMILIES {
        for (seed, count) in [(1, 0), (2, 1), (3, 150), (4, 6_000), (5, 40_000)] {
            println!("family {name}, {count} changes");
            let (mut index, mut model) = filled(keys, seed, count);
            let leaves = copied(&mut index, usize::MAX, |_| {});
            let mut loaded = load(&leaves).unwrap();
            verify(&loaded);
            assert_eq!(forward(&loaded, ALL.0, ALL.1), forward(&index, ALL.0, ALL.1));
            let mut rng = Rng(77 + seed);
            verify_ranges(&loaded, &model, &mut rng, keys, 2);
            for removals in [10, 90] {
                for _ in 0..2_000 {
                    change(&mut loaded, &mut model, &mut rng, keys, removals);
                }
                verify(&loaded);
            }
            while !loaded.index.drain_some(&mut loaded.arena, 1_000, &mut |_| ()) {}
            assert_eq!(loaded.arena.used_bytes(), 0, "every node was one of the index");
        }
    }
}

#[test]
fn leaves_that_are_too_long_are_cut() {
    for (_, keys) in FAMILIES {
        let (mut index, _) = filled(keys, 9, 3_000);
        let whole = forward(&index, ALL.0, ALL.1);
        // What one key of the longest may take.
        let leaves = copied(&mut index, 4_200, |_| {});
        assert_eq!(forward(&load(&leaves).unwrap(), ALL.0, ALL.1), whole);
    }
}

/// Keys that nobody touches are in the copy once, whatever happens around them.
#[test]
fn an_index_may_change_while_it_is_copied() {
    for (name, keys) in FAMILIES {
        for seed in 1..=3 {
            let (mut index, mut untouched) = filled(keys, seed, 2_500);
            let mut rng = Rng(seed + 100);
            let leaves = copied(&mut index, usize::MAX, |index| {
                for _ in 0..rng.below(60) {
                    let (key, at) = (keys(&mut rng), location(rng.next()));
                    if rng.below(100) < [5, 60, 95][(seed % 3) as usize] {
                        index.remove(&key);
                    } else {
                        index.insert(&key, at);
                    }
                    untouched.remove(&key);
                }
            });
            let copy = load(&leaves).unwrap();
            verify(&copy);
            for (key, at) in &untouched {
                assert_eq!(copy.index.get(&copy.arena, key), Some(*at), "{name}, seed {seed}");
            }
        }
    }
}

/// Whatever byte is changed: it is refused, or it is an index all the same.
#[test]
fn bytes_that_are_no_leaf_are_refused_and_none_makes_an_index_that_breaks() {
    for (name, keys) in FAMILIES {
        let (mut index, _) = filled(keys, 6, 1_500);
        let leaves = copied(&mut index, usize::MAX, |_| {});
        let mut rng = Rng(3);
        let (mut refused, mut taken) = (0, 0);
        for _ in 0..1_500 {
            let mut bytes = leaves[rng.below(leaves.len() as u64) as usize].clone();
            match rng.below(4) {
                0 => bytes.truncate(rng.below(bytes.len() as u64) as usize),
                1 => bytes.resize(bytes.len() + 1 + rng.below(300) as usize, 0),
                // The header, the heads and the lengths are the first of it.
                2 => {
                    let at = rng.below(bytes.len().min(400) as u64) as usize;
                    bytes[at] = rng.next() as u8;
                }
                _ => {
                    for _ in 0..1 + rng.below(4) {
                        let at = rng.below(bytes.len() as u64) as usize;
                        bytes[at] ^= 1 << rng.below(8);
                    }
                }
            }
            let Ok(mut loaded) = load(&[bytes]) else {
                refused += 1;
                continue;
            };
            taken += 1;
            verify(&loaded);
            let mut model: Model = forward(&loaded, ALL.0, ALL.1).into_iter().collect();
            for _ in 0..40 {
                change(&mut loaded, &mut model, &mut rng, keys, 50);
            }
            verify(&loaded);
        }
        assert!(refused > 300 && taken > 100, "{name}: {refused} refused, {taken} taken");
    }
}

#[test]
fn leaves_out_of_order_or_with_places_that_cannot_be_are_refused() {
    let mut index = Owner::default();
    for n in 0..1_000u64 {
        index.insert(&n.to_be_bytes(), location(n));
    }
    let mut leaves = copied(&mut index, usize::MAX, |_| {});
    let twice = [leaves[0].clone(), leaves[0].clone()];
    assert_eq!(load(&twice).err(), Some(Malformed));
    let mut load = IndexLoad::new(false);
    let refused = load.push(&mut index.arena, &leaves[0], &mut |at, key_len| {
        assert_eq!(key_len, 8);
        at.offset() < 90
    });
    assert_eq!(refused, Err(Malformed));
    leaves.swap(2, 3);
    assert_eq!(super::tests::load(&leaves).err(), Some(Malformed));
}
