//! A leaf: a sorted run of keys and their locations.

use super::arena::{Handle, IndexArena};
use super::compact::{self, Compact, Part, common_padded, is_compact};
use super::edit::{Builder, Run, merged_body_bytes};
use super::packed::{Packed, common_prefix};
use super::tree::Split;
use crate::Location;
use crate::limits::MAX_KEY_BYTES;

/// Bytes of a location in a leaf.
pub(super) const LOCATION_BYTES: usize = Location::BYTES;
/// Most keys in a leaf: a search looks at the heads of all of them.
pub(super) const MAX_KEYS: usize = 128;
/// Size at which a leaf splits, its prefix not counted; long keys may take it to twice that.
const MAX_BODY_BYTES: usize = 4096;
/// A leaf smaller than this, in keys and in bytes, looks for a neighbour to merge with.
const SMALL_KEYS: usize = MAX_KEYS / 4;
const SMALL_BODY_BYTES: usize = MAX_BODY_BYTES / 2;
/// A merger must leave room to grow, or the next insert would split it again.
const MERGED_KEYS: usize = MAX_KEYS * 3 / 4;
const MERGED_BODY_BYTES: usize = MAX_BODY_BYTES * 3 / 4;

/// What one key can take.
const MAX_ENTRY_BYTES: usize = MAX_KEY_BYTES + HEAD_AND_LENGTH_BYTES + LOCATION_BYTES;
/// What a key takes beside its tail and its location, at most.
const HEAD_AND_LENGTH_BYTES: usize = 4;

/// No leaf has a larger body: see below.
pub(super) const MAX_BODY_BYTES_EVER: usize = 2 * MAX_ENTRY_BYTES;

// A leaf of b bytes splits into halves of at most (b + one entry) / 2, so leaves of long keys settle at two
// entries, and hold three while they split, and a prefix.
const _: () = assert!(MAX_BODY_BYTES <= 2 * MAX_ENTRY_BYTES);
const _: () = assert!(4 * MAX_ENTRY_BYTES + MAX_KEY_BYTES < super::arena::MAX_BLOCK_BYTES);

/// A leaf, to be read.
pub(super) type Leaf<'a> = Packed<'a, LOCATION_BYTES>;

/// The leaf in this block.
pub(super) fn leaf(arena: &IndexArena, block: Handle) -> Leaf<'_> {
    Packed::new(arena.bytes(block))
}

/// A leaf of either kind.
#[derive(Clone, Copy)]
pub(super) enum Node<'a> {
    /// Holds whole keys.
    Whole(Leaf<'a>),
    /// Holds what tells most keys apart.
    Compact(Compact<'a>),
}

/// The leaf in this block, of whichever kind it is.
#[inline]
pub(super) fn node(arena: &IndexArena, block: Handle) -> Node<'_> {
    node_in(arena.bytes(block))
}

/// The leaf that these bytes begin with.
#[inline]
pub(super) fn node_in(bytes: &[u8]) -> Node<'_> {
    if is_compact(bytes) { Node::Compact(Compact::new(bytes)) } else { Node::Whole(Packed::new(bytes)) }
}

impl<'a> Node<'a> {
    /// Number of keys.
    pub fn len(self) -> usize {
        match self {
            Node::Whole(leaf) => leaf.len(),
            Node::Compact(leaf) => leaf.len(),
        }
    }

    /// The location of key `i`.
    pub fn location(self, i: usize) -> Location {
        match self {
            Node::Whole(leaf) => leaf.location(i),
            Node::Compact(leaf) => leaf.location(i),
        }
    }

    /// Whether the leaf should look for a neighbour to merge with.
    pub fn is_small(self) -> bool {
        match self {
            Node::Whole(leaf) => leaf.is_small(),
            Node::Compact(leaf) => leaf.is_small(),
        }
    }

    /// Bytes of the whole leaf.
    pub fn used_bytes(self) -> usize {
        match self {
            Node::Whole(leaf) => leaf.used_bytes(),
            Node::Compact(leaf) => leaf.used_bytes(),
        }
    }

    /// The whole leaf as it lies.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Node::Whole(leaf) => leaf.bytes(),
            Node::Compact(leaf) => leaf.bytes(),
        }
    }

    /// What is known of key `i`, in place of what `out` holds.
    pub fn known_into(self, i: usize, out: &mut Vec<u8>) {
        match self {
            Node::Whole(leaf) => leaf.key_into(i, out),
            Node::Compact(leaf) => leaf.known_into(i, out),
        }
    }

    /// Whether no key beyond this border may be tied with one of the leaf.
    pub fn knows(self, border: &[u8]) -> bool {
        match self {
            Node::Whole(_) => true,
            Node::Compact(leaf) => leaf.knows(border),
        }
    }

    fn part(self) -> Part<'a> {
        match self {
            Node::Whole(leaf) => Part::Whole(leaf, 0..leaf.len()),
            Node::Compact(leaf) => Part::Compact(leaf, 0..leaf.len()),
        }
    }
}

impl Leaf<'_> {
    /// The location of key `i`.
    pub fn location(self, i: usize) -> Location {
        Location::from_bytes(self.value(i)).expect("a leaf holds nothing but encoded locations")
    }

    /// Whether the leaf should look for a neighbour to merge with.
    pub fn is_small(self) -> bool {
        self.len() < SMALL_KEYS && self.body_bytes() < SMALL_BODY_BYTES
    }

    /// Whether `key`, which would go to place `at`, would spoil the leaf: shorten the prefix so much that
    /// the keys no longer fit, or be the first of an ascending series beyond a full leaf.
    fn should_end_before(self, at: usize, key: &[u8], rightmost: bool) -> bool {
        let entry = self.shape().entry_bytes();
        if rightmost && at == self.len() && self.is_full_for(key) {
            return true;
        }
        let shared = common_prefix(self.prefix(), key);
        if shared == self.prefix().len() {
            return false;
        }
        let tails = self.under_prefix(0..self.len(), shared).tails;
        (self.len() + 1) * (entry + 1) + tails + key.len() - shared > MAX_BODY_BYTES
    }

    /// Whether one more key would be too many, or too much.
    pub fn is_full_for(self, key: &[u8]) -> bool {
        let entry = self.shape().entry_bytes();
        self.len() == MAX_KEYS || self.body_bytes() + entry + key.len() > MAX_BODY_BYTES
    }

    /// The place that cuts the body into halves, neither of them empty.
    fn middle(self) -> usize {
        let half = self.body_bytes() / 2;
        let mut left = 0;
        for i in 0..self.len() {
            let entry = self.entry_bytes(i);
            if left + entry / 2 >= half {
                assert!(i > 0, "a key among several takes less than all of them");
                return i;
            }
            left += entry;
        }
        self.len() - 1
    }
}

/// A leaf of one key.
pub(super) fn new_leaf(arena: &mut IndexArena, key: &[u8], location: Location) -> Handle {
    Builder::one(key, location.to_bytes()).store(arena)
}

/// Replaces the location of key `i`.
pub(super) fn set_location(arena: &mut IndexArena, block: Handle, i: usize, location: Location) {
    if let Node::Compact(_) = node(arena, block) {
        return compact::set_location(arena, block, i, location);
    }
    Run::at(arena, block).set_value(i, location.to_bytes());
}

/// Puts `key` in place `at`, where a search said it would go. What does not fit comes back as the leaf to
/// the right. `rightmost`: this is the partition's last leaf, so a key at its end is likely one of an
/// ascending series, and the leaf is left full.
pub(super) fn insert_at(
    arena: &mut IndexArena,
    block: Handle,
    at: usize,
    key: &[u8],
    location: Location,
    rightmost: bool,
) -> (Handle, Option<Split>) {
    let before = leaf(arena, block);
    if before.should_end_before(at, key, rightmost) {
        let alone = new_leaf(arena, key, location);
        if at > 0 {
            assert_eq!(at, leaf(arena, block).len(), "a key without the prefix lies at an end");
            return (block, Some(split(arena, block, alone)));
        }
        return (alone, Some(split(arena, alone, block)));
    }
    let mut run = Run::at(arena, block);
    run.insert_at(at, key, location.to_bytes());
    let after = run.read();
    if after.len() <= MAX_KEYS && after.body_bytes() <= MAX_BODY_BYTES || after.len() == 1 {
        return (run.block, None);
    }
    let middle = after.middle();
    let right = run.split_off(middle);
    let left = run.block;
    (left, Some(split(arena, left, right)))
}

/// The leaf of these keys, in ascending order, where one holds them all.
pub(super) fn of_keys(keys: &[(Vec<u8>, Location)]) -> Option<Vec<u8>> {
    let bytes = keys.iter().map(|(key, _)| key.len() + HEAD_AND_LENGTH_BYTES + LOCATION_BYTES);
    if keys.len() > 1 && (keys.len() > MAX_KEYS || bytes.sum::<usize>() > MAX_BODY_BYTES) {
        return None;
    }
    let entries: Vec<_> = keys.iter().map(|(key, location)| (key.clone(), location.to_bytes())).collect();
    Some(Builder::of_all(&entries).into_bytes())
}

/// Names the border between two leaves by as few bytes as will do.
pub(super) fn split(arena: &IndexArena, left: Handle, right: Handle) -> Split {
    let (left, right_leaf) = (node(arena, left), node(arena, right));
    let (mut last, mut separator) = (Vec::new(), Vec::new());
    left.known_into(left.len() - 1, &mut last);
    right_leaf.known_into(0, &mut separator);
    let shared = match (left, right_leaf) {
        (Node::Whole(_), Node::Whole(_)) => common_prefix(&last, &separator),
        // Only as far as it is known: where they differ, the right one is not a padding zero.
        _ => common_padded(&last, &separator).expect("tied keys are in one leaf"),
    };
    separator.truncate(shared + 1);
    Split { separator, right, records: right_leaf.len() as u32 }
}

/// Makes one leaf of two neighbours, if they fit; `border` is the lower one of the right.
pub(super) fn merge(arena: &mut IndexArena, left: Handle, right: Handle, border: &[u8]) -> Option<Handle> {
    let (a, b) = match (node(arena, left), node(arena, right)) {
        (Node::Whole(a), Node::Whole(b)) => (a, b),
        (a, b) => {
            let merged = compact::merged(a.part(), b.part(), border)?;
            free(arena, right);
            replace(arena, left, &merged);
            return Some(left);
        }
    };
    let fits = a.len() + b.len() <= MERGED_KEYS && merged_body_bytes(a, b) <= MERGED_BODY_BYTES;
    if !fits {
        return None;
    }
    let merged = Builder::merged(a, b);
    Run::<LOCATION_BYTES>::at(arena, right).free();
    let mut run = Run::at(arena, left);
    run.replace(merged);
    Some(run.block)
}

/// Takes all keys from place `keep` on out; gives no block when nothing is left.
pub(super) fn truncate(arena: &mut IndexArena, block: Handle, keep: usize) -> Option<Handle> {
    if keep == 0 {
        free(arena, block);
        return None;
    }
    if let Node::Compact(leaf) = node(arena, block) {
        let kept = compact::sliced(leaf, 0..keep);
        replace(arena, block, &kept);
        return Some(block);
    }
    let mut run = Run::<LOCATION_BYTES>::at(arena, block);
    let kept = Builder::slice(run.read(), 0..keep);
    run.replace(kept);
    Some(run.block)
}

/// Takes key `at` out; gives no block when nothing is left.
pub(super) fn remove_at(arena: &mut IndexArena, block: Handle, at: usize) -> Option<Handle> {
    if node(arena, block).len() == 1 {
        free(arena, block);
        return None;
    }
    if let Node::Compact(_) = node(arena, block) {
        compact::remove_at(arena, block, at);
        return Some(block);
    }
    let mut run = Run::<LOCATION_BYTES>::at(arena, block);
    run.remove_at(at);
    Some(run.block)
}

/// Gives a leaf's block back.
pub(super) fn free(arena: &mut IndexArena, block: Handle) {
    let used = node(arena, block).used_bytes();
    arena.free(block, used);
}

/// Puts another leaf in the place of one.
pub(super) fn replace(arena: &mut IndexArena, block: Handle, bytes: &[u8]) {
    let used = node(arena, block).used_bytes();
    arena.replace(block, used, bytes);
}
