//! A leaf: a sorted run of keys and their locations.

use super::arena::{Handle, IndexArena};
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
const MAX_ENTRY_BYTES: usize = MAX_KEY_BYTES + 4 + LOCATION_BYTES;

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
        let full = self.len() == MAX_KEYS || self.body_bytes() + entry + key.len() > MAX_BODY_BYTES;
        if rightmost && at == self.len() && full {
            return true;
        }
        let shared = common_prefix(self.prefix(), key);
        if shared == self.prefix().len() {
            return false;
        }
        let tails = self.under_prefix(0..self.len(), shared).tails;
        (self.len() + 1) * (entry + 1) + tails + key.len() - shared > MAX_BODY_BYTES
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

/// Names the border between two leaves by as few bytes as will do.
fn split(arena: &IndexArena, left: Handle, right: Handle) -> Split {
    let (left, right_leaf) = (leaf(arena, left), leaf(arena, right));
    let last = left.key(left.len() - 1);
    let mut separator = right_leaf.key(0);
    separator.truncate(common_prefix(&last, &separator) + 1);
    Split { separator, right, records: right_leaf.len() as u32 }
}

/// Makes one leaf of two neighbours, if they fit.
pub(super) fn merge(arena: &mut IndexArena, left: Handle, right: Handle) -> Option<Handle> {
    let (a, b) = (leaf(arena, left), leaf(arena, right));
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
    let mut run = Run::<LOCATION_BYTES>::at(arena, block);
    if keep == 0 {
        run.free();
        return None;
    }
    let kept = Builder::slice(run.read(), 0..keep);
    run.replace(kept);
    Some(run.block)
}

/// Takes key `at` out; gives no block when nothing is left.
pub(super) fn remove_at(arena: &mut IndexArena, block: Handle, at: usize) -> Option<Handle> {
    let mut run = Run::<LOCATION_BYTES>::at(arena, block);
    if run.read().len() == 1 {
        run.free();
        return None;
    }
    run.remove_at(at);
    Some(run.block)
}
