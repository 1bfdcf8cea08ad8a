//! The tree above the leaves: inner nodes, and the walks down that change something.

use super::arena::{Handle, IndexArena};
use super::edit::{Builder, Run};
use super::leaf::{self, leaf, node};
use super::packed::{Packed, common_prefix};
use crate::Location;

/// Bytes of a child in an inner node: its block u32 | its keys u32
const CHILD_BYTES: usize = 8;
/// Most children of an inner node.
const MAX_CHILDREN: usize = 128;
/// An inner node with fewer children looks for a neighbour to merge with.
const SMALL_CHILDREN: usize = MAX_CHILDREN / 4;
/// A merger must leave room to grow.
const MERGED_CHILDREN: usize = MAX_CHILDREN * 3 / 4;
/// Size at which an inner node splits though it has few children: long separators.
const MAX_BODY_BYTES: usize = 16 * 1024;
const MERGED_BODY_BYTES: usize = MAX_BODY_BYTES * 3 / 4;

/// An inner node, to be read: children, in order, each with a key that none of its keys is smaller than
/// (its separator), and that all keys of the children before are smaller than. The first one's separator
/// separates nothing: what is smaller goes there too.
pub(super) type Inner<'a> = Packed<'a, CHILD_BYTES>;

/// One child of an inner node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Child {
    /// Where it is.
    pub block: Handle,
    /// Keys below it.
    pub records: u32,
}

impl Child {
    fn encode(self) -> [u8; CHILD_BYTES] {
        (u64::from(self.records) << 32 | u64::from(self.block.to_raw())).to_le_bytes()
    }

    pub fn decode(raw: [u8; CHILD_BYTES]) -> Child {
        let raw = u64::from_le_bytes(raw);
        Child { block: Handle::from_raw(raw as u32), records: (raw >> 32) as u32 }
    }
}

/// The inner node in this block.
pub(super) fn inner(arena: &IndexArena, block: Handle) -> Inner<'_> {
    Packed::new(arena.bytes(block))
}

impl Inner<'_> {
    /// The child whose range holds `key`.
    #[inline]
    pub fn child_of(self, key: &[u8]) -> usize {
        self.rank(key).saturating_sub(1)
    }

    /// Child `i`.
    #[inline]
    pub fn child(self, i: usize) -> Child {
        Child::decode(self.value(i))
    }

    /// Keys below the first `children` children.
    pub fn records_before(self, children: usize) -> u64 {
        (0..children).map(|i| u64::from(self.child(i).records)).sum()
    }
}

/// What did not fit into a node.
pub(super) struct Split {
    /// No key of `right` is smaller, and every key left of it is.
    pub separator: Vec<u8>,
    /// The new neighbour to the right.
    pub right: Handle,
    /// Keys in it.
    pub records: u32,
}

/// What a change did to a node.
pub(super) struct Changed {
    /// Where the node is now.
    pub block: Handle,
    /// Keys that have come, or gone, with those of `split`.
    pub added: i64,
    /// The node's new neighbour, if it had to split.
    pub split: Option<Split>,
}

/// What a removal did to a node.
pub(super) struct Removed {
    /// Where the node is now; nowhere if that was its last key.
    pub block: Option<Handle>,
    /// The location that the key had.
    pub old: Location,
    /// The node should look for a neighbour to merge with.
    small: bool,
}

/// Changes the leaf whose range holds `key`, below the node in `block`, which has so many levels of inner nodes.
/// What changes it is told whether it is the tree's last.
pub(super) fn change(
    arena: &mut IndexArena,
    (block, levels): (Handle, u8),
    key: &[u8],
    rightmost: bool,
    leaf: &mut impl FnMut(&mut IndexArena, Handle, bool) -> Changed,
) -> Changed {
    if levels == 0 {
        return leaf(arena, block, rightmost);
    }
    let node = inner(arena, block);
    let i = node.child_of(key);
    let (child, rightmost) = (node.child(i), rightmost && i + 1 == node.len());
    let changed = change(arena, (child.block, levels - 1), key, rightmost, leaf);
    child_has(arena, block, i, changed, rightmost)
}

/// Notes what a change did to child `i`.
fn child_has(arena: &mut IndexArena, block: Handle, i: usize, changed: Changed, rightmost: bool) -> Changed {
    let Changed { block: child_block, added, split } = changed;
    let child = inner(arena, block).child(i);
    let gone = split.as_ref().map_or(0, |split| i64::from(split.records));
    let records = u32::try_from(i64::from(child.records) + added - gone);
    let now = Child { block: child_block, records: records.expect("a node has less than 2^32 keys below") };
    let mut run = Run::at(arena, block);
    if now != child {
        run.set_value(i, now.encode());
    }
    let split = split.and_then(|split| adopt(&mut run, i, &split, rightmost));
    Changed { block: run.block, added, split }
}

/// Puts another separator in the place of one between two leaves; no key lies between the two.
pub(super) fn move_border(
    arena: &mut IndexArena,
    (block, levels): (Handle, u8),
    old: &[u8],
    new: &[u8],
) -> Changed {
    assert!(levels > 0, "there are leaves on both sides of a border");
    let node = inner(arena, block);
    let i = node.child_of(old);
    let child = node.child(i);
    if i == 0 || node.key(i) != old {
        let changed = move_border(arena, (child.block, levels - 1), old, new);
        return child_has(arena, block, i, changed, false);
    }
    let mut run = Run::at(arena, block);
    run.remove_at(i);
    let moved = Split { separator: new.to_vec(), right: child.block, records: child.records };
    let split = adopt(&mut run, i - 1, &moved, false);
    Changed { block: run.block, added: 0, split }
}

/// Takes the new neighbour of child `i` in; what does not fit comes back.
fn adopt(run: &mut Run<'_, CHILD_BYTES>, i: usize, split: &Split, rightmost: bool) -> Option<Split> {
    if should_end_at(run.read(), &split.separator) {
        return Some(end_at(run, i, split));
    }
    if matches!(run.read().search(&split.separator), Ok(0) | Err(0)) {
        // Keys below the first separator have come: a smaller one.
        run.set_key(0, below(&split.separator));
    }
    run.insert_at(i + 1, &split.separator, Child { block: split.right, records: split.records }.encode());
    let node = run.read();
    let count = node.len();
    if count <= MAX_CHILDREN && (node.body_bytes() <= MAX_BODY_BYTES || count <= 3) {
        return None;
    }
    // Keys that come in ascending order never come back to the left half.
    let middle = if rightmost { count - 1 - count / 8 } else { count / 2 };
    let separator = node.key(middle);
    let records = node.records_before(count) - node.records_before(middle);
    let right = run.split_off(middle);
    Some(Split { separator, right, records: records as u32 })
}

/// Whether a separator would shorten the prefix so much that the others no longer fit: then it lies at an end of them.
fn should_end_at(node: Inner<'_>, separator: &[u8]) -> bool {
    let shared = common_prefix(node.prefix(), separator);
    if shared == node.prefix().len() {
        return false;
    }
    let entries = (node.len() + 1) * (node.shape().entry_bytes() + 1);
    let tails = node.under_prefix(0..node.len(), shared).tails;
    entries + tails + separator.len() - shared > MAX_BODY_BYTES
}

/// Parts a node where child `i` was split, its first or its last: what lies on the far side of the border begins another node.
fn end_at(run: &mut Run<'_, CHILD_BYTES>, i: usize, split: &Split) -> Split {
    let (node, separator) = (run.read(), split.separator.clone());
    let right = Child { block: split.right, records: split.records };
    if i + 1 == node.len() && node.key(i) < separator {
        let alone = run.store_beside(Builder::one(&separator, right.encode()));
        return Split { separator, right: alone, records: split.records };
    }
    assert_eq!(i, 0, "a separator without the prefix lies at an end");
    let first = node.child(0);
    let records = node.records_before(node.len()) - u64::from(first.records) + u64::from(split.records);
    // Its own separator stays: the first one separates nothing.
    run.set_value(0, right.encode());
    let alone = run.store_beside(Builder::one(below(&separator), first.encode()));
    let right = std::mem::replace(&mut run.block, alone);
    Split { separator, right, records: records as u32 }
}

/// A key that is smaller than a separator.
fn below(separator: &[u8]) -> &[u8] {
    &separator[..separator.len() - 1]
}

/// A root over a node of so many keys and what did not fit into it.
pub(super) fn root_over(arena: &mut IndexArena, left: Child, split: &Split) -> Handle {
    let block = Builder::one(below(&split.separator), left.encode()).store(arena);
    let mut run = Run::at(arena, block);
    run.insert_at(1, &split.separator, Child { block: split.right, records: split.records }.encode());
    run.block
}

/// A node over these children, each with its separator.
pub(super) fn inner_over(arena: &mut IndexArena, children: &[(Vec<u8>, Child)]) -> Handle {
    assert!(children.len() <= MAX_CHILDREN, "{} children", children.len());
    let entries: Vec<_> =
        children.iter().map(|(separator, child)| (separator.clone(), child.encode())).collect();
    Builder::of_all(&entries).store(arena)
}

/// Takes key `at` of the leaf whose range holds `key` out, below a node; without `at`, `key` itself. The leaf with
/// the key `stays` in its range is not merged with the one before.
pub(super) fn remove(
    arena: &mut IndexArena,
    (block, levels): (Handle, u8),
    key: &[u8],
    at: Option<usize>,
    stays: Option<&[u8]>,
) -> Option<Removed> {
    if levels == 0 {
        let at = at.or_else(|| leaf(arena, block).search(key).ok())?;
        let old = node(arena, block).location(at);
        let block = leaf::remove_at(arena, block, at);
        let small = block.is_some_and(|block| node(arena, block).is_small());
        return Some(Removed { block, old, small });
    }
    let i = inner(arena, block).child_of(key);
    let child = inner(arena, block).child(i);
    let Removed { block: child_block, old, small } =
        remove(arena, (child.block, levels - 1), key, at, stays)?;
    let block = child_changed(arena, block, i, child_block.map(|block| (block, child.records - 1)));
    let block = block.map(|block| if small { mend(arena, (block, levels), i, stays) } else { block });
    let small = block.is_some_and(|block| inner(arena, block).len() < SMALL_CHILDREN);
    Some(Removed { block, old, small })
}

/// Notes what has become of child `i`, block and keys. Gives no block when no child is left.
fn child_changed(
    arena: &mut IndexArena,
    block: Handle,
    i: usize,
    child: Option<(Handle, u32)>,
) -> Option<Handle> {
    let mut run = Run::<CHILD_BYTES>::at(arena, block);
    match child {
        Some((block, records)) => run.set_value(i, Child { block, records }.encode()),
        None if run.read().len() == 1 => {
            run.free();
            return None;
        }
        None => run.remove_at(i),
    }
    Some(run.block)
}

/// Merges child `i` with a neighbour, if they fit.
fn mend(arena: &mut IndexArena, (block, levels): (Handle, u8), i: usize, stays: Option<&[u8]>) -> Handle {
    let before = i.checked_sub(1).and_then(|i| merge(arena, (block, levels), i, stays));
    before.or_else(|| merge(arena, (block, levels), i, stays)).unwrap_or(block)
}

/// Makes one of child `i` and the next, if there is one and they fit. Gives the node's new place.
fn merge(
    arena: &mut IndexArena,
    (block, levels): (Handle, u8),
    i: usize,
    stays: Option<&[u8]>,
) -> Option<Handle> {
    let node = inner(arena, block);
    if i + 1 >= node.len() || (levels == 1 && stays.is_some_and(|key| node.child_of(key) == i + 1)) {
        return None;
    }
    let (left, right) = (node.child(i), node.child(i + 1));
    let merged = if levels == 1 {
        let border = node.key(i + 1);
        leaf::merge(arena, left.block, right.block, &border)?
    } else {
        let border = node.key(i + 1);
        merge_inner(arena, left.block, right.block, &border)?
    };
    let mut run = Run::at(arena, block);
    run.set_value(i, Child { block: merged, records: left.records + right.records }.encode());
    run.remove_at(i + 1);
    Some(run.block)
}

fn merge_inner(arena: &mut IndexArena, left: Handle, right: Handle, border: &[u8]) -> Option<Handle> {
    let (a, b) = (inner(arena, left), inner(arena, right));
    let is_in_order = a.key(0).as_slice() < border;
    if !is_in_order || a.len() + b.len() > MERGED_CHILDREN || merged_bytes(a, b, border) > MERGED_BODY_BYTES {
        return None;
    }
    let mut run = Run::<CHILD_BYTES>::at(arena, right);
    run.set_key(0, border);
    let right = run.block;
    let merged = Builder::merged(inner(arena, left), inner(arena, right));
    Run::<CHILD_BYTES>::at(arena, right).free();
    let mut run = Run::at(arena, left);
    run.replace(merged);
    Some(run.block)
}

/// Bytes of the body of both nodes in one, where `border` becomes the first separator of the right one.
fn merged_bytes(a: Inner<'_>, b: Inner<'_>, border: &[u8]) -> usize {
    let last = if b.len() > 1 { b.key(b.len() - 1) } else { border.to_vec() };
    let shared = common_prefix(&a.key(0), &last);
    let sizes = a.under_prefix(0..a.len(), shared).and(b.under_prefix(1..b.len(), shared));
    (a.len() + b.len()) * (a.shape().entry_bytes().max(b.shape().entry_bytes()) + 1)
        + sizes.tails
        + border.len()
}

/// Takes up to `most` keys out at the end of a node, and says where it is now and how many they were.
pub(super) fn drain_last(
    arena: &mut IndexArena,
    (block, levels): (Handle, u8),
    most: usize,
    each: &mut dyn FnMut(Location),
) -> (Option<Handle>, usize) {
    if levels == 0 {
        let node = node(arena, block);
        let (len, keep) = (node.len(), node.len().saturating_sub(most));
        (keep..len).for_each(|i| each(node.location(i)));
        return (leaf::truncate(arena, block, keep), len - keep);
    }
    let node = inner(arena, block);
    let last = node.len() - 1;
    let child = node.child(last);
    let (left, drained) = drain_last(arena, (child.block, levels - 1), most, each);
    let left = left.map(|block| (block, child.records - drained as u32));
    (child_changed(arena, block, last, left), drained)
}

/// The only child of an inner node that has no other; the node is freed.
pub(super) fn only_child(arena: &mut IndexArena, block: Handle) -> Option<Handle> {
    let node = inner(arena, block);
    if node.len() > 1 {
        return None;
    }
    let child = node.child(0).block;
    Run::<CHILD_BYTES>::at(arena, block).free();
    Some(child)
}
