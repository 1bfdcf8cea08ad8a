//! The ordered index of a partition: keys to locations, in memory.
//!
//! A tree of packed nodes. Its leaves (`leaf.rs`) hold up to 128 keys in 2 to 4 KiB, each leaf one
//! allocation with hardly any slack; its inner nodes (`node.rs`) hold separators as short as will
//! tell two leaves apart, in the same codec (`packed.rs`), and count the keys below, so that a range
//! is counted without a walk.

mod iter;
mod leaf;
mod memory;
mod node;
mod packed;

use std::ops::Bound;

pub use iter::{Iter, IterRev};

use crate::Location;
use crate::limits::MAX_KEY_BYTES;
use iter::Cut;
use leaf::Leaf;
use node::{Inserted, Node};

/// The keys of one partition, in order, and where their records lie.
///
/// Keys are 1 to [`MAX_KEY_BYTES`] long. An empty index allocates nothing.
pub struct PartitionIndex {
    root: Node,
    memory_bytes: usize,
}

// A node has thousands of idle partitions.
const _: () = assert!(size_of::<PartitionIndex>() <= 48);

impl Default for PartitionIndex {
    fn default() -> PartitionIndex {
        PartitionIndex::new()
    }
}

impl PartitionIndex {
    /// An empty index.
    pub const fn new() -> PartitionIndex {
        PartitionIndex { root: Node::Leaf(Leaf::new()), memory_bytes: 0 }
    }

    /// How many keys there are.
    pub fn len(&self) -> u64 {
        self.root.records()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all allocations of the index, with their slack and the allocator's headers. The
    /// struct itself is not in it.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// The location of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Location> {
        let leaf = self.leaf_of(key);
        leaf.search(key).ok().map(|at| leaf.location(at))
    }

    fn leaf_of(&self, key: &[u8]) -> &Leaf {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf,
                Node::Inner(inner) => node = &inner.children()[inner.child_of(key)],
            }
        }
    }

    /// Sets the location of `key`, and returns the one that it had.
    pub fn insert(&mut self, key: &[u8], location: Location) -> Option<Location> {
        check_length(key);
        let Inserted { old, split } = self.root.insert(key, location, true, &mut self.memory_bytes);
        if let Some(split) = split {
            let left = std::mem::replace(&mut self.root, Node::Leaf(Leaf::new()));
            self.root = Node::root_over(left, split, &mut self.memory_bytes);
        }
        old
    }

    /// Moves `key` from one location to another; `false`, and nothing done, if it is not at
    /// `from` (any more).
    pub fn replace(&mut self, key: &[u8], from: Location, to: Location) -> bool {
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let found = leaf.search(key).ok().filter(|at| leaf.location(*at) == from);
                    if let Some(at) = found {
                        leaf.set_location(at, to);
                    }
                    return found.is_some();
                }
                Node::Inner(inner) => node = inner.child_for(key),
            }
        }
    }

    /// Takes `key` out, and returns the location that it had.
    pub fn remove(&mut self, key: &[u8]) -> Option<Location> {
        let old = self.root.remove(key, &mut self.memory_bytes)?;
        self.lower();
        Some(old)
    }

    /// Sets the location of a key that is likely to be larger than all others, as when an index image
    /// is loaded; works for any key, and returns the location that it had.
    pub fn append(&mut self, key: &[u8], location: Location) -> Option<Location> {
        check_length(key);
        if self.root.append(key, location, &mut self.memory_bytes) {
            None
        } else {
            self.insert(key, location)
        }
    }

    /// Walks the keys of a range upwards. A range that ends before it starts is empty.
    pub fn iter<'a>(&'a self, start: Bound<&[u8]>, end: Bound<&'a [u8]>) -> Iter<'a> {
        Iter::new(&self.root, start, end)
    }

    /// Walks the keys of a range downwards. A range that ends before it starts is empty.
    pub fn iter_rev<'a>(&'a self, start: Bound<&'a [u8]>, end: Bound<&[u8]>) -> IterRev<'a> {
        IterRev::new(&self.root, start, end)
    }

    /// How many keys there are in a range: a look at two nodes a level.
    pub fn count(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> u64 {
        Cut::upper(end).rank(&self.root).saturating_sub(Cut::lower(start).rank(&self.root))
    }

    /// Takes up to `max_entries` keys out, hands their locations to `each`, and gives their
    /// memory back. `true` when nothing is left. Work is in proportion to `max_entries`.
    pub fn drain_some(&mut self, max_entries: usize, each: &mut dyn FnMut(Location)) -> bool {
        let mut left = max_entries;
        while left > 0 && !self.is_empty() {
            left -= self.root.drain_last(left, each, &mut self.memory_bytes);
            self.lower();
        }
        self.is_empty()
    }

    /// Takes levels away that have but one node.
    fn lower(&mut self) {
        loop {
            let root = std::mem::replace(&mut self.root, Node::Leaf(Leaf::new()));
            match root.lowered(&mut self.memory_bytes) {
                Ok(lower) => self.root = lower,
                Err(root) => {
                    self.root = root;
                    return;
                }
            }
        }
    }
}

fn check_length(key: &[u8]) {
    assert!((1..=MAX_KEY_BYTES).contains(&key.len()), "key of {} bytes", key.len());
}

#[cfg(test)]
mod tests;
