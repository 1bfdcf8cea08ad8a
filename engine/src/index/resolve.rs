//! The compact index: what is not known of a key is read from its record.
//!
//! Every leaf begins with whole keys, and becomes a compact one (`compact.rs`) when it is full. A lookup then gives
//! *candidates*: the places of all keys that agree with what is wanted as far as they are known, nearly
//! always one. Whoever changes the index says what it knows of the candidates' keys ([`Keys`]); what it does not
//! know and must, comes back as [`Need`], and nothing is changed.

use std::ops::Bound;

use smallvec::SmallVec;

use super::PartitionIndex;
use super::arena::{Handle, IndexArena};
use super::compact::{self, Compact, MAX_KEYS, MAX_KEYS_EVER, common_padded};
use super::iter::Cut;
use super::leaf::{self, Node, node};
use super::tree::{Changed, Split};
use crate::Location;
use crate::limits::MAX_KEY_BYTES;

/// A leaf is made wider for a key that lacks its prefix by no more bytes than this: else the key begins another.
const MOST_WIDENING_BYTES: usize = 256;

/// What is known of a record's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOf<'a> {
    /// All of it.
    Key(&'a [u8]),
    /// Its record cannot be read, and so it will not be known.
    Unreadable,
    /// Its record was not read.
    Unknown,
}

/// Who knows the keys of records.
pub trait Keys {
    /// The key of the record there.
    fn key_of(&self, location: Location) -> KeyOf<'_>;
}

/// Records that must be read before it can be told which key is meant.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Need(pub SmallVec<[Location; 2]>);

/// What a compact index has of a key, without a read.
#[derive(Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Whether the one location, if any, is the key's.
    pub is_certain: bool,
    /// Where its record may lie, in the order of keys.
    pub locations: SmallVec<[Location; 2]>,
}

impl Candidates {
    /// Nothing, for certain.
    pub fn none() -> Candidates {
        Candidates { is_certain: true, locations: SmallVec::new() }
    }
}

/// What setting a location did.
#[derive(Debug, PartialEq, Eq)]
pub struct Set {
    /// The location that the key had.
    pub old: Option<Location>,
    /// A key of a leaf in which too many are tied, or which is full of whole keys: see [`PartitionIndex::refine`].
    pub crowded: Option<Box<[u8]>>,
}

/// Where a key is in its leaf, or where it would go.
type Place = Result<usize, usize>;

impl PartitionIndex {
    /// An empty index that holds of each key only what tells it apart.
    pub const fn compact() -> PartitionIndex {
        let mut index = PartitionIndex::new();
        index.is_compact = true;
        index
    }

    /// Whether records must be read to know keys.
    pub fn is_compact(&self) -> bool {
        self.is_compact
    }

    /// Where the record of `key` may lie.
    pub fn candidates(&self, arena: &IndexArena, key: &[u8]) -> Candidates {
        let Some(block) = self.leaf_of(arena, key) else {
            return Candidates::none();
        };
        match node(arena, block) {
            Node::Whole(leaf) => {
                let found = leaf.search(key).ok().map(|at| leaf.location(at));
                Candidates { is_certain: true, locations: found.into_iter().collect() }
            }
            Node::Compact(leaf) => {
                let range = leaf.candidates(key);
                let is_certain = range.is_empty();
                Candidates { is_certain, locations: range.map(|i| leaf.location(i)).collect() }
            }
        }
    }

    /// The first location where the record of `key` may lie.
    pub fn first_candidate(&self, arena: &IndexArena, key: &[u8]) -> Option<Location> {
        match node(arena, self.leaf_of(arena, key)?) {
            Node::Whole(leaf) => leaf.search(key).ok().map(|at| leaf.location(at)),
            Node::Compact(leaf) => leaf.candidates(key).next().map(|i| leaf.location(i)),
        }
    }

    /// Whether the record of `key` there is in the index: no read is needed to know that.
    pub fn holds(&self, arena: &IndexArena, key: &[u8], location: Location) -> bool {
        self.leaf_of(arena, key).is_some_and(|block| place_of(arena, block, key, location).is_some())
    }

    /// The location of `key`, of an index of either kind.
    pub fn find(&self, arena: &IndexArena, key: &[u8], keys: &dyn Keys) -> Result<Option<Location>, Need> {
        let Some(block) = self.leaf_of(arena, key) else { return Ok(None) };
        let leaf = node(arena, block);
        Ok(resolve(leaf, key, None, keys)?.ok().map(|at| leaf.location(at)))
    }

    /// Sets the location of `key`, and says which one it had.
    pub fn set(
        &mut self,
        arena: &mut IndexArena,
        key: &[u8],
        location: Location,
        keys: &dyn Keys,
    ) -> Result<Set, Need> {
        assert!((1..=MAX_KEY_BYTES).contains(&key.len()), "key of {} bytes", key.len());
        let Some(block) = self.leaf_of(arena, key) else {
            self.root = leaf::new_leaf(arena, key, location);
            self.records = 1;
            return Ok(Set { old: None, crowded: None });
        };
        let mut place = resolve(node(arena, block), key, Some(location), keys)?;
        let mut block = block;
        if place.is_err() && is_overfull_of_tied(node(arena, block), key) {
            // All of them are tied with the key, so they are known by now.
            self.refine(arena, key, keys)?;
            block = self.leaf_of(arena, key).expect("a refined leaf keeps its keys");
            place = resolve(node(arena, block), key, Some(location), keys)?;
        }
        match place {
            Ok(at) => {
                let old = Some(node(arena, block).location(at));
                leaf::set_location(arena, block, at, location);
                Ok(Set { old, crowded: None })
            }
            Err(at) => {
                let mut crowded = None;
                let border = self.border_above(arena, block, key);
                self.change(arena, key, true, |arena, block, rightmost| {
                    if let Some(separator) = border.clone() {
                        assert_eq!(at, 0, "all keys of the leaf are above the border");
                        let records = node(arena, block).len() as u32;
                        let split = Split { separator, right: block, records };
                        let alone = leaf::new_leaf(arena, key, location);
                        return Changed { block: alone, added: 1, split: Some(split) };
                    }
                    let inserted = insert_at(arena, block, at, (key, location), rightmost);
                    crowded = inserted.1;
                    inserted.0
                });
                Ok(Set { old: None, crowded })
            }
        }
    }

    /// Takes `key` out, and says which location it had.
    pub fn unset(
        &mut self,
        arena: &mut IndexArena,
        key: &[u8],
        keys: &dyn Keys,
    ) -> Result<Option<Location>, Need> {
        let Some(block) = self.leaf_of(arena, key) else { return Ok(None) };
        let place = resolve(node(arena, block), key, None, keys)?;
        Ok(place.ok().map(|at| self.take_at(arena, block, key, at)))
    }

    /// Takes the record of `key` out that lies there. Says whether it did.
    pub fn unset_at(&mut self, arena: &mut IndexArena, key: &[u8], location: Location) -> bool {
        let Some(block) = self.leaf_of(arena, key) else { return false };
        let Some(at) = place_of(arena, block, key, location) else { return false };
        self.take_at(arena, block, key, at);
        true
    }

    /// The record of `key` has moved from one location to another. Says whether it was at the first.
    pub fn relocate(&self, arena: &mut IndexArena, key: &[u8], from: Location, to: Location) -> bool {
        let Some(block) = self.leaf_of(arena, key) else { return false };
        let Some(at) = place_of(arena, block, key, from) else { return false };
        leaf::set_location(arena, block, at, to);
        true
    }

    fn take_at(&mut self, arena: &mut IndexArena, block: Handle, key: &[u8], at: usize) -> Location {
        let border = if node(arena, block).len() == 1 { self.leaf_goes(arena, key) } else { None };
        let location = self.remove_with(arena, key, Some(at)).expect("the key's place was just found");
        if let Some(border) = border {
            self.settle_border(arena, &border);
        }
        location
    }

    /// How many keys there are in a range. A key that cannot be read and may be in it counts: too many may be told then, and
    /// never too few.
    pub fn count_with(
        &self,
        arena: &IndexArena,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        keys: &dyn Keys,
    ) -> Result<u64, Need> {
        let low = self.rank(arena, Cut::lower(start), keys, false);
        let ends = (low, self.rank(arena, Cut::upper(end), keys, true));
        match ends {
            (Ok(low), Ok(high)) => Ok(high.saturating_sub(low)),
            (Err(Need(mut low)), Err(Need(high))) => {
                low.extend(high);
                Err(Need(low))
            }
            (Err(need), _) | (_, Err(need)) => Err(need),
        }
    }

    /// How many keys are before the cut, those that cannot be read among them or not.
    fn rank(
        &self,
        arena: &IndexArena,
        cut: Cut<'_>,
        keys: &dyn Keys,
        has_unreadable: bool,
    ) -> Result<u64, Need> {
        let top = self.top(arena);
        let Some((before, block)) = cut.leaf(top) else { return Ok(0) };
        let (key, is_after) = match (cut, node(arena, block)) {
            (Cut::Before(key), Node::Compact(_)) => (key, false),
            (Cut::After(key), Node::Compact(_)) => (key, true),
            (_, node) => return Ok(before + cut.rank_in_leaf(node) as u64),
        };
        let Node::Compact(leaf) = node(arena, block) else { return Ok(before) };
        let range = leaf.candidates(key);
        let mut unknown = SmallVec::new();
        let mut rank = range.start;
        for i in range {
            match keys.key_of(leaf.location(i)) {
                KeyOf::Unknown => unknown.push(leaf.location(i)),
                KeyOf::Unreadable => rank += usize::from(has_unreadable),
                KeyOf::Key(one) => rank += usize::from(one < key || (is_after && one == key)),
            }
        }
        if unknown.is_empty() { Ok(before + rank as u64) } else { Err(Need(unknown)) }
    }
}

/// The place of `key` in a leaf, or the one where it goes. `location` is its own, where that is known.
fn resolve(node: Node<'_>, key: &[u8], location: Option<Location>, keys: &dyn Keys) -> Result<Place, Need> {
    let leaf = match node {
        Node::Whole(leaf) => return Ok(leaf.search(key)),
        Node::Compact(leaf) => leaf,
    };
    let range = leaf.candidates(key);
    let mut place = range.end;
    let mut unknown = SmallVec::new();
    for i in range {
        let at = leaf.location(i);
        match keys.key_of(at) {
            _ if Some(at) == location => return Ok(Ok(i)),
            KeyOf::Key(one) if one == key => return Ok(Ok(i)),
            KeyOf::Unknown => unknown.push(at),
            // Before what cannot be read: that may be an older record of the same key, and the first that is found counts.
            KeyOf::Unreadable => place = place.min(i),
            KeyOf::Key(one) if one > key => place = place.min(i),
            KeyOf::Key(_) => {}
        }
    }
    if unknown.is_empty() { Ok(Err(place)) } else { Err(Need(unknown)) }
}

/// Whether so many are tied with this key that no more may come before they are told apart.
fn is_overfull_of_tied(leaf: Node<'_>, key: &[u8]) -> bool {
    matches!(leaf, Node::Compact(leaf) if leaf.len() > 2 * MAX_KEYS && leaf.candidates(key).len() == leaf.len())
}

fn place_of(arena: &IndexArena, block: Handle, key: &[u8], location: Location) -> Option<usize> {
    match node(arena, block) {
        Node::Whole(leaf) => leaf.search(key).ok().filter(|at| leaf.location(*at) == location),
        Node::Compact(leaf) => leaf.place_of(key, location),
    }
}

fn stays(block: Handle) -> Changed {
    Changed { block, added: 1, split: None }
}

fn splits(arena: &IndexArena, left: Handle, right: Handle) -> Changed {
    Changed { block: left, added: 1, split: Some(leaf::split(arena, left, right)) }
}

/// A change of a leaf, and a key of the one that should be refined for it.
type Inserted = (Changed, Option<Box<[u8]>>);

/// Puts a key in place `at` of a leaf.
fn insert_at(
    arena: &mut IndexArena,
    block: Handle,
    at: usize,
    (key, location): (&[u8], Location),
    rightmost: bool,
) -> Inserted {
    match node(arena, block) {
        // It becomes a compact one when nothing is being applied: what is known while a frame is applied stays known.
        Node::Whole(whole) => {
            // A key beyond the last one may get a leaf of its own: it is the one before it that is full.
            let is_last = at == whole.len();
            let full = whole.is_full_for(key).then(|| if is_last { whole.key(at - 1) } else { key.to_vec() });
            let full = full.map(Vec::into_boxed_slice);
            (insert_whole(arena, block, at, (key, location), rightmost), full)
        }
        Node::Compact(_) => insert_compact(arena, block, at, (key, location), rightmost),
    }
}

fn insert_whole(
    arena: &mut IndexArena,
    block: Handle,
    at: usize,
    (key, location): (&[u8], Location),
    rightmost: bool,
) -> Changed {
    let (block, split) = leaf::insert_at(arena, block, at, key, location, rightmost);
    Changed { block, added: 1, split }
}

fn insert_compact(
    arena: &mut IndexArena,
    block: Handle,
    at: usize,
    (key, location): (&[u8], Location),
    rightmost: bool,
) -> Inserted {
    let leaf = Compact::new(arena.bytes(block));
    let (len, is_tied) = (leaf.len(), !leaf.candidates(key).is_empty());
    let shared = common_padded(leaf.prefix(), key).unwrap_or(usize::MAX).min(leaf.prefix().len());
    let lacks = leaf.prefix().len() - shared;
    let widened = match lacks {
        0 => None,
        _ if lacks * len > MOST_WIDENING_BYTES => None,
        _ => compact::widened(leaf, shared),
    };
    let ends_here = rightmost && at == len && len >= MAX_KEYS && !is_tied;
    if ends_here || (lacks > 0 && widened.is_none()) {
        assert!(at == 0 || at == len, "a key without the prefix lies at an end");
        let alone = leaf::new_leaf(arena, key, location);
        let (left, right) = if at > 0 { (block, alone) } else { (alone, block) };
        return (splits(arena, left, right), None);
    }
    if let Some(bytes) = widened {
        leaf::replace(arena, block, &bytes);
    }
    compact::insert_at(arena, block, at, key, location);
    let leaf = Compact::new(arena.bytes(block));
    let place = if leaf.len() > MAX_KEYS { leaf.split_place() } else { None };
    let Some(middle) = place else {
        assert!(leaf.len() <= MAX_KEYS_EVER, "{} keys are tied", leaf.len());
        let is_crowded = (is_tied && leaf.is_crowded()) || leaf.len() > MAX_KEYS;
        return (stays(block), is_crowded.then(|| key.into()));
    };
    let right = compact::sliced(leaf, middle..leaf.len());
    let left = compact::sliced(leaf, 0..middle);
    let is_crowded = is_tied && leaf.is_crowded();
    leaf::replace(arena, block, &left);
    let right = arena.store(&right);
    (splits(arena, block, right), is_crowded.then(|| key.into()))
}
