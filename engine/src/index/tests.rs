//! The index against a plain ordered map.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::arena::block_bytes;
use super::leaf::node;
use super::*;

/// Deterministic xorshift64*.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

/// A family of keys that strains the codec in a way of its own.
pub(super) type Keys = fn(&mut Rng) -> Vec<u8>;

pub(super) const FAMILIES: [(&str, Keys); 7] = [
    ("random", |rng| {
        let len = 16 + rng.below(9) as usize;
        (0..len).map(|_| rng.next() as u8).collect()
    }),
    ("padded", |rng| {
        // Zeros at the end look like the padding of a head.
        let len = 1 + rng.below(7) as usize;
        (0..len).map(|_| [0, 0, 1, 255][rng.below(4) as usize]).collect()
    }),
    ("paths", |rng| {
        let (a, b, c) = (rng.below(9), rng.below(40), rng.below(200));
        format!("registry/src/some-crate-with-a-name-{a}/src/module_{b}/file_{c}.rs").into_bytes()
    }),
    ("numbers", |rng| format!("user:{:010}", rng.below(20_000)).into_bytes()),
    ("longest", |rng| {
        let mut key = vec![b'k'; MAX_KEY_BYTES];
        let at = [0, 1, 2000, 4092][rng.below(4) as usize];
        key[at] = rng.next() as u8;
        key[4094] = rng.next() as u8;
        key
    }),
    ("mixed", |rng| {
        // Short keys between long ones that share nearly all of their bytes.
        let len = if rng.below(2) == 0 { 1 + rng.below(4) } else { 1 + rng.below(4096) } as usize;
        let mut key = vec![b'm'; len];
        let at = rng.below(len as u64) as usize;
        key[at] = rng.next() as u8;
        key[len - 1] = rng.next() as u8;
        key
    }),
    ("clusters", |rng| {
        // Short keys, and groups with a long prefix of their own.
        if rng.below(3) == 0 {
            return vec![rng.next() as u8, rng.next() as u8];
        }
        let mut key = vec![rng.below(4) as u8 * 50; 900];
        key.extend_from_slice(&rng.next().to_be_bytes()[..2]);
        key
    }),
];

pub(super) fn location(n: u64) -> Location {
    // Of about one length in most leaves, and not in others.
    let len = if n.is_multiple_of(301) { 5000 } else { 31 + (n % 5) as usize * 8 };
    Location::new(n % (Location::MAX_AREA_BYTES / 8) * 8, len)
}

/// An index and the arena that it alone lives in.
#[derive(Default)]
pub(super) struct Owner {
    pub(super) arena: IndexArena,
    pub(super) index: PartitionIndex,
}

impl Owner {
    pub(super) fn insert(&mut self, key: &[u8], at: Location) -> Option<Location> {
        self.index.insert(&mut self.arena, key, at)
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Location> {
        self.index.remove(&mut self.arena, key)
    }

    fn get(&self, key: &[u8]) -> Option<Location> {
        self.index.get(&self.arena, key)
    }

    fn count(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> u64 {
        self.index.count(&self.arena, start, end)
    }
}

/// What a walk over the nodes below one finds.
#[derive(Default)]
struct Found {
    leaves: usize,
    inner: usize,
    records: u64,
    bytes: usize,
}

/// Walks all nodes below one: order, separators, counts.
fn recount(
    arena: &IndexArena,
    (block, levels): (Handle, u8),
    low: &[u8],
    high: Option<&[u8]>,
    key_of: &dyn Fn(Location) -> Option<Vec<u8>>,
    found: &mut Found,
) {
    if levels == 0 {
        let leaf = node(arena, block);
        assert!(leaf.len() > 0, "an empty leaf");
        assert!(low.is_empty() || leaf.knows(low), "a lower border that is not known");
        assert!(high.is_none_or(|high| leaf.knows(high)), "an upper border that is not known");
        let mut before = None;
        for i in 0..leaf.len() {
            let mut known = Vec::new();
            leaf.known_into(i, &mut known);
            let key = key_of(leaf.location(i)).unwrap_or(known);
            assert!(key.as_slice() >= low, "key below its separator");
            assert!(high.is_none_or(|high| key.as_slice() < high), "key above its separator");
            assert!(before.is_none_or(|before| before < key), "keys out of order");
            before = Some(key);
        }
        found.leaves += 1;
        found.records += leaf.len() as u64;
        found.bytes += block_bytes(leaf.used_bytes());
        return;
    }
    let node = inner(arena, block);
    found.inner += 1;
    found.bytes += block_bytes(node.used_bytes());
    assert!(node.len() > 0, "an empty inner node");
    for i in 0..node.len() {
        // The first separator separates nothing.
        let from = if i == 0 { low.to_vec() } else { node.key(i) };
        assert!(i == 0 || node.key(i - 1) < node.key(i), "separators out of order");
        let to = if i + 1 == node.len() { high.map(<[u8]>::to_vec) } else { Some(node.key(i + 1)) };
        let before = found.records;
        recount(arena, (node.child(i).block, levels - 1), &from, to.as_deref(), key_of, found);
        assert_eq!(found.records - before, u64::from(node.child(i).records), "count of keys");
    }
}

fn nodes(owner: &Owner) -> Found {
    let mut found = Found::default();
    if !owner.index.is_empty() {
        let top = (owner.index.root, owner.index.levels);
        recount(&owner.arena, top, &[], None, &|_| None, &mut found);
    }
    found
}

/// The same for a compact index, by the keys of its records.
pub(super) fn recount_all(index: &PartitionIndex, arena: &IndexArena, key_of: &dyn Fn(Location) -> Vec<u8>) {
    let mut found = Found::default();
    if !index.is_empty() {
        recount(arena, (index.root, index.levels), &[], None, &|at| Some(key_of(at)), &mut found);
    }
    assert_eq!((found.records, found.bytes), (index.len(), arena.used_bytes()), "keys and bytes");
}

pub(super) fn verify(owner: &Owner) {
    let index = &owner.index;
    let found = nodes(owner);
    assert_eq!((found.records, found.bytes), (index.len(), owner.arena.used_bytes()), "keys and bytes");
    assert!(index.levels == 0 || inner(&owner.arena, index.root).len() > 1, "a level too many");
}

pub(super) type Model = BTreeMap<Vec<u8>, Location>;

pub(super) fn forward(index: &Owner, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Vec<(Vec<u8>, Location)> {
    let mut out = Vec::new();
    let mut iter = index.index.iter(&index.arena, start, end);
    while let Some((key, location)) = iter.next() {
        out.push((key.to_vec(), location));
    }
    assert!(iter.next().is_none(), "an iterator ends for good");
    out
}

fn backward(index: &Owner, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Vec<(Vec<u8>, Location)> {
    let mut out = Vec::new();
    let mut iter = index.index.iter_rev(&index.arena, start, end);
    while let Some((key, location)) = iter.next() {
        out.push((key.to_vec(), location));
    }
    assert!(iter.next().is_none(), "an iterator ends for good");
    out
}

/// What a range holds, by the model; empty where the bounds cross.
fn expected(model: &Model, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Vec<(Vec<u8>, Location)> {
    let above = |key: &[u8]| match start {
        Bound::Included(start) => key >= start,
        Bound::Excluded(start) => key > start,
        Bound::Unbounded => true,
    };
    let below = |key: &[u8]| match end {
        Bound::Included(end) => key <= end,
        Bound::Excluded(end) => key < end,
        Bound::Unbounded => true,
    };
    model.iter().filter(|(key, _)| above(key) && below(key)).map(|(key, at)| (key.clone(), *at)).collect()
}

pub(super) fn verify_ranges(index: &Owner, model: &Model, rng: &mut Rng, keys: Keys, rounds: usize) {
    for _ in 0..rounds {
        let present = |rng: &mut Rng| {
            let n = rng.below(model.len().max(1) as u64) as usize;
            model.keys().nth(n).cloned().unwrap_or_else(|| vec![1])
        };
        let a = if rng.below(2) == 0 { keys(rng) } else { present(rng) };
        let b = if rng.below(2) == 0 { keys(rng) } else { present(rng) };
        let kinds = |key: &'_ [u8]| [Bound::Included(key), Bound::Excluded(key), Bound::Unbounded].map(own);
        for start in kinds(&a) {
            for end in kinds(&b) {
                let (start, end) = (lend(&start), lend(&end));
                let mut want = expected(model, start, end);
                assert_eq!(index.count(start, end), want.len() as u64, "count of {start:?} to {end:?}");
                assert_eq!(forward(index, start, end), want, "from {start:?} to {end:?}");
                want.reverse();
                assert_eq!(backward(index, start, end), want, "back from {end:?} to {start:?}");
            }
        }
    }
}

/// Lookups side by side find what lookups one by one do.
fn verify_lookups(index: &Owner, model: &Model, rng: &mut Rng, keys: Keys) {
    let some = model.keys().step_by(1 + rng.below(9) as usize).take(100).cloned();
    let mut wanted: Vec<Vec<u8>> = some.collect();
    wanted.extend((0..50).map(|_| keys(rng)));
    let mut lookups: Vec<_> = wanted.iter().map(|key| index.index.lookup(key)).collect();
    let nothing = PartitionIndex::new();
    lookups.push(nothing.lookup(b"k"));
    look_up(&index.arena, &mut lookups);
    for (key, lookup) in wanted.iter().zip(&lookups) {
        assert_eq!(lookup.found(), model.get(key).copied(), "look up {key:?}");
    }
    assert_eq!(lookups.last().and_then(Lookup::found), None);
}

fn own(bound: Bound<&[u8]>) -> Bound<Vec<u8>> {
    bound.map(<[u8]>::to_vec)
}

fn lend(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// One random change, made to both.
pub(super) fn change(index: &mut Owner, model: &mut Model, rng: &mut Rng, keys: Keys, removals: u64) {
    let key = keys(rng);
    let at = location(rng.next());
    if rng.below(100) < removals {
        assert_eq!(index.remove(&key), model.remove(&key), "remove {key:?}");
    } else {
        assert_eq!(index.insert(&key, at), model.insert(key.clone(), at), "insert {key:?}");
    }
    assert_eq!(index.get(&key), model.get(&key).copied(), "get {key:?}");
    assert_eq!(index.index.len(), model.len() as u64, "len");
}

#[test]
fn random_changes_agree_with_a_plain_map() {
    for (name, keys) in FAMILIES {
        for seed in 1..=3u64 {
            println!("family {name}, seed {seed}");
            let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let (mut index, mut model) = (Owner::default(), Model::new());
            // Grows, stays, and shrinks to nearly nothing.
            for removals in [5, 50, 97] {
                for step in 0..4000 {
                    change(&mut index, &mut model, &mut rng, keys, removals);
                    if step % 500 == 0 {
                        verify(&index);
                    }
                }
                verify(&index);
                verify_ranges(&index, &model, &mut rng, keys, 2);
                let absent = keys(&mut rng);
                assert_eq!(index.get(&absent), model.get(&absent).copied());
                verify_lookups(&index, &model, &mut rng, keys);
            }
        }
    }
}

#[test]
fn keys_in_ascending_order_fill_leaves() {
    let mut index = Owner::default();
    for n in 0..100_000u64 {
        let key = format!("user:{n:010}").into_bytes();
        assert_eq!(index.insert(&key, location(n + 1)), None);
    }
    verify(&index);
    // 128 keys a leaf; inner nodes seven eighths full, under a root.
    let leaves = 100_000usize.div_ceil(128);
    let found = nodes(&index);
    assert_eq!((found.leaves, found.inner), (leaves, leaves.div_ceil(112) + 1));
    // 8 of location, 1 of length, 3 of suffix, the rest for leaves and separators.
    let bytes_per_key = index.arena.used_bytes() as f64 / index.index.len() as f64;
    assert!(bytes_per_key < 13.0, "{bytes_per_key} bytes a key");
    assert_eq!(index.insert(b"user:0000000000", location(7)), Some(location(1)), "a key out of order");
    assert_eq!(index.insert(b"aaa", location(8)), None, "a key out of order");
    assert_eq!(index.get(b"aaa"), Some(location(8)));
    verify(&index);
}

#[test]
fn keys_in_descending_order_are_found() {
    let mut index = Owner::default();
    for n in (0..20_000u64).rev() {
        assert_eq!(index.insert(&n.to_be_bytes(), location(n)), None);
    }
    verify(&index);
    assert!((0..20_000u64).all(|n| index.get(&n.to_be_bytes()) == Some(location(n))));
}

#[test]
fn locations_of_about_one_length_take_a_byte_less_until_another_comes() {
    let mut index = Owner::default();
    let key = |i: u32| i.wrapping_mul(0x9E37_79B9).to_be_bytes();
    let used = |index: &Owner| {
        let leaf = index.index.leaf_after(&index.arena, b"", usize::MAX).expect("there are keys");
        assert_eq!(leaf.records, 100, "one leaf");
        leaf.bytes.len()
    };
    let at = |i: u32, len: usize| Location::new(u64::from(i) * 4096, len);
    (0..100).for_each(|i| assert_eq!(index.insert(&key(i), at(i, 1000 + 24 * (i as usize % 2))), None));
    let narrow = used(&index);
    assert_eq!(index.insert(&key(50), at(200, 1024)), Some(at(50, 1000)), "as long as others");
    assert_eq!(used(&index), narrow);
    assert_eq!(index.insert(&key(50), at(300, 3000)), Some(at(200, 1024)), "much longer");
    assert_eq!(used(&index), narrow + 100);
    for i in 0..100 {
        let expected = if i == 50 { at(300, 3000) } else { at(i, 1000 + 24 * (i as usize % 2)) };
        assert_eq!(index.get(&key(i)), Some(expected), "key {i}");
    }
}

#[test]
fn an_empty_index_takes_nothing() {
    let mut index = Owner::default();
    assert!(size_of::<PartitionIndex>() < 200);
    assert_eq!((index.index.len(), index.arena.used_bytes()), (0, 0));
    assert_eq!(index.get(b"a"), None);
    assert_eq!(index.remove(b"a"), None);
    assert!(index.index.iter(&index.arena, Bound::Unbounded, Bound::Unbounded).next().is_none());
    assert!(index.index.iter_rev(&index.arena, Bound::Unbounded, Bound::Unbounded).next().is_none());
    assert_eq!(index.count(Bound::Unbounded, Bound::Unbounded), 0);
    assert!(index.index.drain_some(&mut index.arena, 1, &mut |_| panic!("nothing to drain")));
}

#[test]
fn removal_gives_memory_back() {
    for (name, keys) in FAMILIES {
        let mut rng = Rng(11);
        let (mut index, mut model) = (Owner::default(), Model::new());
        for _ in 0..20_000 {
            let (key, at) = (keys(&mut rng), location(rng.next()));
            index.insert(&key, at);
            model.insert(key, at);
        }
        // In an order of no meaning, so that leaves thin out evenly.
        let mut order: Vec<(u64, Vec<u8>)> = model.into_keys().map(|key| (rng.next(), key)).collect();
        order.sort();
        let kept = order.len() / 10;
        for (_, key) in order.drain(kept..) {
            assert!(index.remove(&key).is_some());
        }
        verify(&index);
        let mut fresh = Owner::default();
        for (n, key) in &order {
            fresh.insert(key, location(*n));
        }
        let (left, fresh) = (index.arena.used_bytes(), fresh.arena.used_bytes());
        assert!(left < fresh * 3 / 2, "{name}: what is left takes {left} bytes, and {fresh} in a new index");
        for (_, key) in order {
            assert!(index.remove(&key).is_some());
        }
        assert_eq!((index.index.len(), index.arena.used_bytes()), (0, 0), "{name}");
    }
}

#[test]
fn draining_hands_every_location_out_once_in_bounded_steps() {
    for (name, keys) in FAMILIES {
        let mut rng = Rng(5);
        let (mut index, mut model) = (Owner::default(), Model::new());
        for _ in 0..3_000 {
            let (key, at) = (keys(&mut rng), location(rng.next()));
            index.insert(&key, at);
            model.insert(key, at);
        }
        let mut drained: Vec<u64> = Vec::new();
        loop {
            let (before, bytes, most) =
                (drained.len(), index.arena.used_bytes(), 1 + rng.below(300) as usize);
            let done = index.index.drain_some(&mut index.arena, most, &mut |at| drained.push(at.to_raw()));
            assert_eq!(drained.len() - before, most.min(model.len() - before), "{name}: keys in a step");
            assert_eq!(index.index.len(), (model.len() - drained.len()) as u64);
            assert!(index.arena.used_bytes() <= bytes, "{name}: memory comes back");
            verify(&index);
            assert_eq!(done, index.index.is_empty());
            if done {
                break;
            }
        }
        let mut want: Vec<u64> = model.into_values().map(Location::to_raw).collect();
        want.sort_unstable();
        drained.sort_unstable();
        assert_eq!(drained, want, "{name}");
        assert_eq!(index.arena.used_bytes(), 0, "{name}");
    }
}

#[test]
fn seeking_goes_both_ways_and_keeps_the_other_end() {
    let mut index = Owner::default();
    for n in 0..5_000u32 {
        index.insert(&n.to_be_bytes(), location(u64::from(n)));
    }
    let (start, end) = (10u32.to_be_bytes(), 4_000u32.to_be_bytes());
    let mut iter = index.index.iter(&index.arena, Bound::Included(&start), Bound::Excluded(&end));
    for (to, want) in
        [(3_000u32, Some(3_000)), (20, Some(20)), (3_999, Some(3_999)), (4_000, None), (5, Some(5))]
    {
        iter.seek(Bound::Included(&to.to_be_bytes()));
        assert_eq!(iter.next().map(|(_, at)| at), want.map(location), "seek {to}");
    }
    let mut iter = index.index.iter(&index.arena, Bound::Unbounded, Bound::Unbounded);
    for to in [4_990u32, 100, 4_000] {
        iter.seek(Bound::Excluded(&to.to_be_bytes()));
        let mut want = to + 1;
        while let Some((key, _)) = iter.next() {
            assert_eq!(key, want.to_be_bytes(), "after seek {to}");
            want += 1;
        }
        assert_eq!(want, 5_000, "after seek {to}");
    }
    let mut iter = index.index.iter_rev(&index.arena, Bound::Included(&start), Bound::Unbounded);
    for (to, want) in
        [(3_000u32, Some(2_999)), (20, Some(19)), (11, Some(10)), (10, None), (5_000, Some(4_999))]
    {
        iter.seek(Bound::Excluded(&to.to_be_bytes()));
        assert_eq!(iter.next().map(|(_, at)| at), want.map(location), "seek {to}");
    }
}

#[test]
#[should_panic(expected = "key of 0 bytes")]
fn an_empty_key_is_refused() {
    Owner::default().insert(b"", location(1));
}

#[test]
#[should_panic(expected = "key of 4097 bytes")]
fn a_key_beyond_the_limit_is_refused() {
    Owner::default().insert(&[1; MAX_KEY_BYTES + 1], location(1));
}
