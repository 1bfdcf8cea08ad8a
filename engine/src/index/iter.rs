//! Positions in the order of keys, and walks from one to another.

use std::ops::Bound;

use super::leaf::Leaf;
use super::node::{Inner, Node};
use crate::Location;

/// A position between keys.
#[derive(Clone, Copy)]
pub(super) enum Cut<'k> {
    /// Before all keys.
    First,
    /// Before this key, if it is there.
    Before(&'k [u8]),
    /// After this key, if it is there.
    After(&'k [u8]),
    /// After all keys.
    Last,
}

impl<'k> Cut<'k> {
    /// Where a range with this lower bound begins.
    pub fn lower(bound: Bound<&'k [u8]>) -> Cut<'k> {
        match bound {
            Bound::Included(key) => Cut::Before(key),
            Bound::Excluded(key) => Cut::After(key),
            Bound::Unbounded => Cut::First,
        }
    }

    /// Where a range with this upper bound ends.
    pub fn upper(bound: Bound<&'k [u8]>) -> Cut<'k> {
        match bound {
            Bound::Included(key) => Cut::After(key),
            Bound::Excluded(key) => Cut::Before(key),
            Bound::Unbounded => Cut::Last,
        }
    }

    /// How many keys of `leaf` lie before.
    fn rank_in_leaf(self, leaf: &Leaf) -> usize {
        match self {
            Cut::First => 0,
            Cut::Before(key) => leaf.search(key).unwrap_or_else(|at| at),
            Cut::After(key) => leaf.search(key).map_or_else(|at| at, |at| at + 1),
            Cut::Last => leaf.len(),
        }
    }

    /// The child in whose range the position lies.
    fn child(self, inner: &Inner) -> usize {
        match self {
            Cut::First => 0,
            Cut::Before(key) | Cut::After(key) => inner.child_of(key),
            Cut::Last => inner.children().len() - 1,
        }
    }

    /// How many keys below `node` lie before: a look at one node a level and the counts of its children.
    pub fn rank(self, mut node: &Node) -> u64 {
        let mut before = 0;
        loop {
            match node {
                Node::Leaf(leaf) => return before + self.rank_in_leaf(leaf) as u64,
                Node::Inner(inner) => {
                    let i = self.child(inner);
                    before += inner.children()[..i].iter().map(Node::records).sum::<u64>();
                    node = &inner.children()[i];
                }
            }
        }
    }
}

/// A place in the tree: a leaf, how many of its keys lie before, and the way to it.
struct Cursor<'a> {
    root: &'a Node,
    path: Vec<(&'a Inner, usize)>,
    leaf: &'a Leaf,
    at: usize,
    /// The current key; its first bytes are the leaf's prefix.
    key: Vec<u8>,
}

impl<'a> Cursor<'a> {
    fn new(root: &'a Node, cut: Cut<'_>) -> Cursor<'a> {
        const EMPTY: &Leaf = &Leaf::new();
        let mut cursor = Cursor { root, path: Vec::new(), leaf: EMPTY, at: 0, key: Vec::new() };
        cursor.seek(cut);
        cursor
    }

    fn seek(&mut self, cut: Cut<'_>) {
        self.path.clear();
        self.descend(self.root, cut);
    }

    fn descend(&mut self, mut node: &'a Node, cut: Cut<'_>) {
        while let Node::Inner(inner) = node {
            let i = cut.child(inner);
            self.path.push((inner, i));
            node = &inner.children()[i];
        }
        if let Node::Leaf(leaf) = node {
            self.leaf = leaf;
            self.at = cut.rank_in_leaf(leaf);
            self.key.clear();
            self.key.extend_from_slice(leaf.prefix());
        }
    }

    /// Goes to the beginning of the next leaf; `false` if there is none.
    fn next_leaf(&mut self) -> bool {
        while let Some((inner, i)) = self.path.pop() {
            if let Some(child) = inner.children().get(i + 1) {
                self.path.push((inner, i + 1));
                self.descend(child, Cut::First);
                return true;
            }
        }
        false
    }

    /// Goes to the end of the leaf before; `false` if there is none.
    fn previous_leaf(&mut self) -> bool {
        while let Some((inner, i)) = self.path.pop() {
            if i > 0 {
                self.path.push((inner, i - 1));
                self.descend(&inner.children()[i - 1], Cut::Last);
                return true;
            }
        }
        false
    }

    fn entry(&mut self, i: usize) -> (&[u8], Location) {
        self.key.truncate(self.leaf.prefix().len());
        self.leaf.suffix_into(i, &mut self.key);
        (&self.key, self.leaf.location(i))
    }
}

/// Walks a range of keys upwards. Lends each key until the next call.
pub struct Iter<'a> {
    cursor: Cursor<'a>,
    end: Cut<'a>,
    /// Keys of the current leaf that lie before the end.
    stop: usize,
}

impl<'a> Iter<'a> {
    pub(super) fn new(root: &'a Node, start: Bound<&[u8]>, end: Bound<&'a [u8]>) -> Iter<'a> {
        let cursor = Cursor::new(root, Cut::lower(start));
        let end = Cut::upper(end);
        let stop = end.rank_in_leaf(cursor.leaf);
        Iter { cursor, end, stop }
    }

    /// Goes on with the first key from `start` on, forwards or backwards; the end stays.
    pub fn seek(&mut self, start: Bound<&[u8]>) {
        self.cursor.seek(Cut::lower(start));
        self.stop = self.end.rank_in_leaf(self.cursor.leaf);
    }

    /// The next key and its location.
    #[expect(
        clippy::should_implement_trait,
        reason = "the key is lent from a buffer, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Option<(&[u8], Location)> {
        while self.cursor.at >= self.stop {
            if self.stop < self.cursor.leaf.len() || !self.cursor.next_leaf() {
                return None;
            }
            self.stop = self.end.rank_in_leaf(self.cursor.leaf);
        }
        let i = self.cursor.at;
        self.cursor.at += 1;
        Some(self.cursor.entry(i))
    }
}

/// Walks a range of keys downwards. Lends each key until the next call.
pub struct IterRev<'a> {
    cursor: Cursor<'a>,
    start: Cut<'a>,
    /// Keys of the current leaf that lie before the start.
    stop: usize,
}

impl<'a> IterRev<'a> {
    pub(super) fn new(root: &'a Node, start: Bound<&'a [u8]>, end: Bound<&[u8]>) -> IterRev<'a> {
        let cursor = Cursor::new(root, Cut::upper(end));
        let start = Cut::lower(start);
        let stop = start.rank_in_leaf(cursor.leaf);
        IterRev { cursor, start, stop }
    }

    /// Goes on with the last key up to `end`, forwards or backwards; the start stays.
    pub fn seek(&mut self, end: Bound<&[u8]>) {
        self.cursor.seek(Cut::upper(end));
        self.stop = self.start.rank_in_leaf(self.cursor.leaf);
    }

    /// The next key downwards and its location.
    #[expect(
        clippy::should_implement_trait,
        reason = "the key is lent from a buffer, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Option<(&[u8], Location)> {
        while self.cursor.at <= self.stop {
            if self.stop > 0 || !self.cursor.previous_leaf() {
                return None;
            }
            self.stop = self.start.rank_in_leaf(self.cursor.leaf);
        }
        self.cursor.at -= 1;
        let i = self.cursor.at;
        Some(self.cursor.entry(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::PartitionIndex;

    #[test]
    fn a_walk_does_not_wander_beyond_its_end() {
        let mut index = PartitionIndex::new();
        for n in 0..5_000u32 {
            index.insert(&n.to_be_bytes(), Location::new(u64::from(n), 31));
        }
        let (low, high) = (2_000u32.to_be_bytes(), 2_001u32.to_be_bytes());
        let mut iter = index.iter(Bound::Included(&low), Bound::Included(&high));
        let begin = std::ptr::from_ref(iter.cursor.leaf);
        while iter.next().is_some() {}
        assert!(std::ptr::eq(begin, iter.cursor.leaf));

        let mut iter = index.iter_rev(Bound::Included(&low), Bound::Included(&high));
        let begin = std::ptr::from_ref(iter.cursor.leaf);
        while iter.next().is_some() {}
        assert!(std::ptr::eq(begin, iter.cursor.leaf));
    }
}
