//! The ordered index of a partition: keys to locations, in memory.
//!
//! A tree of packed nodes in the shard's [`IndexArena`]. Its leaves (`leaf.rs`) hold up to 128 keys in
//! 2 to 4 KiB; its inner nodes (`tree.rs`) hold separators as short as will tell two leaves apart, in the
//! same codec (`packed.rs`, `edit.rs`), and count the keys below, so that a range is counted without a walk.

mod arena;
mod borders;
mod check_leaf;
mod compact;
mod edit;
mod image;
mod iter;
mod leaf;
mod lookup;
mod packed;
mod refine;
mod resolve;
mod tree;
mod values;

use std::ops::Bound;

pub use arena::IndexArena;
pub use image::{IndexLoad, LeafImage, MOST_BORDERED_LEAF_BYTES, Malformed};
pub use iter::{Iter, IterRev};
pub use lookup::{LOOKUPS_AT_ONCE, Lookup, look_up, prefetch_for_change};
pub use resolve::{Candidates, KeyOf, Keys, Need, Set};

use crate::Location;
use crate::limits::MAX_KEY_BYTES;
use arena::Handle;
use borders::Imaging;
use iter::Cut;
use leaf::leaf;
use lookup::prefetch_node;
use tree::{Changed, Child, inner};

/// The keys of one partition, in order, and where their records lie.
///
/// Keys are 1 to [`MAX_KEY_BYTES`] long. The nodes are in an arena, always the same one, which every call
/// names; [`drain_some`](Self::drain_some) gives them back. An empty index has none.
pub struct PartitionIndex {
    /// The topmost node, if there are keys.
    root: Handle,
    /// Levels of inner nodes.
    levels: u8,
    /// Leaves may hold less than the whole keys.
    is_compact: bool,
    records: u64,
    /// Of a compact index that an image is being written of: how far it is.
    imaging: Option<Box<Imaging>>,
}

// A node has thousands of idle partitions.
const _: () = assert!(size_of::<PartitionIndex>() <= 24);

impl Default for PartitionIndex {
    fn default() -> PartitionIndex {
        PartitionIndex::new()
    }
}

impl PartitionIndex {
    /// An empty index.
    pub const fn new() -> PartitionIndex {
        PartitionIndex { root: Handle::NONE, levels: 0, is_compact: false, records: 0, imaging: None }
    }

    /// How many keys there are.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The location of `key`; not of a compact index.
    pub fn get(&self, arena: &IndexArena, key: &[u8]) -> Option<Location> {
        assert!(!self.is_compact, "a compact index has candidates");
        let leaf = leaf(arena, self.leaf_of(arena, key)?);
        leaf.search(key).ok().map(|at| leaf.location(at))
    }

    /// The lookup of `key`, to be done together with others by [`look_up`].
    pub fn lookup<'k>(&self, key: &'k [u8]) -> Lookup<'k> {
        Lookup::new(key, self.root, self.levels)
    }

    fn leaf_of(&self, arena: &IndexArena, key: &[u8]) -> Option<Handle> {
        if self.is_empty() {
            return None;
        }
        let mut block = self.root;
        prefetch_node(arena, block);
        for _ in 0..self.levels {
            let node = inner(arena, block);
            block = node.child(node.child_of(key)).block;
            prefetch_node(arena, block);
        }
        Some(block)
    }

    /// Sets the location of `key`, and returns the one that it had; not of a compact index.
    pub fn insert(&mut self, arena: &mut IndexArena, key: &[u8], location: Location) -> Option<Location> {
        assert!((1..=MAX_KEY_BYTES).contains(&key.len()), "key of {} bytes", key.len());
        assert!(!self.is_compact, "a compact index is set");
        if self.is_empty() {
            self.root = leaf::new_leaf(arena, key, location);
            self.records = 1;
            return None;
        }
        let mut old = None;
        self.change(arena, key, true, |arena, block, rightmost| match leaf(arena, block).search(key) {
            Ok(at) => {
                old = Some(leaf(arena, block).location(at));
                leaf::set_location(arena, block, at, location);
                Changed { block, added: 0, split: None }
            }
            Err(at) => {
                let (block, split) = leaf::insert_at(arena, block, at, key, location, rightmost);
                Changed { block, added: 1, split }
            }
        });
        old
    }

    /// Changes the leaf whose range holds `key`.
    fn change(
        &mut self,
        arena: &mut IndexArena,
        key: &[u8],
        rightmost: bool,
        mut leaf: impl FnMut(&mut IndexArena, Handle, bool) -> Changed,
    ) {
        let changed = tree::change(arena, (self.root, self.levels), key, rightmost, &mut leaf);
        self.take_changed(arena, changed);
    }

    /// Takes the root that a change has left, and puts one over it where it did not fit.
    fn take_changed(&mut self, arena: &mut IndexArena, changed: Changed) {
        self.records =
            self.records.checked_add_signed(changed.added).expect("no more keys go than there are");
        self.root = changed.block;
        if let Some(split) = changed.split {
            let records = self.records - u64::from(split.records);
            let records = u32::try_from(records).expect("a node has less than 2^32 keys below");
            self.root = tree::root_over(arena, Child { block: self.root, records }, &split);
            self.levels += 1;
        }
    }

    /// Takes `key` out, and returns the location that it had; not of a compact index.
    pub fn remove(&mut self, arena: &mut IndexArena, key: &[u8]) -> Option<Location> {
        assert!(!self.is_compact, "a compact index is unset");
        self.remove_with(arena, key, None)
    }

    /// The same, of the key in place `at` of its leaf.
    fn remove_with(&mut self, arena: &mut IndexArena, key: &[u8], at: Option<usize>) -> Option<Location> {
        if self.is_empty() {
            return None;
        }
        let border = match self.imaging.as_deref() {
            Some(Imaging::From(border)) => Some(border.as_slice()),
            _ => None,
        };
        let removed = tree::remove(arena, (self.root, self.levels), key, at, border)?;
        self.records -= 1;
        self.settle(arena, removed.block);
        Some(removed.old)
    }

    /// Takes the new root, and takes levels away that have but one node.
    fn settle(&mut self, arena: &mut IndexArena, root: Option<Handle>) {
        assert_eq!(root.is_none(), self.is_empty(), "there are nodes where there are keys");
        self.root = root.unwrap_or(Handle::NONE);
        if root.is_none() {
            self.levels = 0;
        }
        while self.levels > 0 {
            let Some(child) = tree::only_child(arena, self.root) else { return };
            self.root = child;
            self.levels -= 1;
        }
    }

    /// Walks the keys of a range upwards. A range that ends before it starts is empty. Of a compact index, what is
    /// known of the keys; those that may lie beyond the ends are among them.
    pub fn iter<'a>(&self, arena: &'a IndexArena, start: Bound<&[u8]>, end: Bound<&'a [u8]>) -> Iter<'a> {
        let (start, end) = (self.widened(start), self.widened(end));
        Iter::new(self.top(arena), start, end)
    }

    /// Walks the keys of a range downwards, likewise.
    pub fn iter_rev<'a>(
        &self,
        arena: &'a IndexArena,
        start: Bound<&'a [u8]>,
        end: Bound<&[u8]>,
    ) -> IterRev<'a> {
        let (start, end) = (self.widened(start), self.widened(end));
        IterRev::new(self.top(arena), start, end)
    }

    fn widened<'k>(&self, bound: Bound<&'k [u8]>) -> Bound<&'k [u8]> {
        match bound {
            Bound::Excluded(key) if self.is_compact => Bound::Included(key),
            bound => bound,
        }
    }

    /// How many keys there are in a range: a look at two nodes a level. Not of a compact index.
    pub fn count(&self, arena: &IndexArena, start: Bound<&[u8]>, end: Bound<&[u8]>) -> u64 {
        assert!(!self.is_compact, "what a compact index holds in a range is counted with records");
        let top = self.top(arena);
        Cut::upper(end).rank(top).saturating_sub(Cut::lower(start).rank(top))
    }

    fn top<'a>(&self, arena: &'a IndexArena) -> iter::Top<'a> {
        iter::Top { arena, root: (!self.is_empty()).then_some(self.root), levels: self.levels }
    }

    /// Takes up to `max_entries` keys out, hands their locations to `each`, and gives their
    /// memory back. `true` when nothing is left. Work is in proportion to `max_entries`.
    pub fn drain_some(
        &mut self,
        arena: &mut IndexArena,
        max_entries: usize,
        each: &mut dyn FnMut(Location),
    ) -> bool {
        let mut left = max_entries;
        while left > 0 && !self.is_empty() {
            let (root, drained) = tree::drain_last(arena, (self.root, self.levels), left, each);
            self.records -= drained as u64;
            left -= drained;
            self.settle(arena, root);
        }
        self.is_empty()
    }
}

#[cfg(test)]
mod compact_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
