//! Positions in the order of keys, and walks from one to another.

use std::ops::Bound;

use super::arena::{Handle, IndexArena};
use super::leaf::{Leaf, Node, node};
use super::tree::{Inner, inner};
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

    /// How many keys of `leaf` lie before. Of keys that are not known, [`Cut::Before`] has those that may be this one
    /// behind it, and [`Cut::After`] before.
    pub fn rank_in_leaf(self, leaf: Node<'_>) -> usize {
        match (self, leaf) {
            (Cut::First, _) => 0,
            (Cut::Before(key), Node::Whole(leaf)) => leaf.search(key).unwrap_or_else(|at| at),
            (Cut::After(key), Node::Whole(leaf)) => leaf.rank(key),
            (Cut::Before(key), Node::Compact(leaf)) => leaf.candidates(key).start,
            (Cut::After(key), Node::Compact(leaf)) => leaf.candidates(key).end,
            (Cut::Last, leaf) => leaf.len(),
        }
    }

    /// The child in whose range the position lies.
    pub fn child(self, inner: Inner<'_>) -> usize {
        match self {
            Cut::First => 0,
            Cut::Before(key) | Cut::After(key) => inner.child_of(key),
            Cut::Last => inner.len() - 1,
        }
    }

    /// How many keys of a tree lie before: a look at one node a level, which counts the keys of its children.
    pub fn rank(self, top: Top<'_>) -> u64 {
        let Some((before, block)) = self.leaf(top) else { return 0 };
        before + self.rank_in_leaf(node(top.arena, block)) as u64
    }

    /// The leaf in which the position lies, and how many keys lie in those before it.
    pub fn leaf(self, top: Top<'_>) -> Option<(u64, Handle)> {
        let mut block = top.root?;
        let mut before = 0;
        for _ in 0..top.levels {
            let inner = inner(top.arena, block);
            let i = self.child(inner);
            before += inner.records_before(i);
            block = inner.child(i).block;
        }
        Some((before, block))
    }
}

/// A whole tree.
#[derive(Clone, Copy)]
pub(super) struct Top<'a> {
    pub arena: &'a IndexArena,
    /// Its topmost node, if it has any.
    pub root: Option<Handle>,
    /// Levels of inner nodes.
    pub levels: u8,
}

/// A place in the tree: a leaf, how many of its keys lie before, and the way to it.
struct Cursor<'a> {
    top: Top<'a>,
    path: Vec<(Inner<'a>, usize)>,
    leaf: Option<Node<'a>>,
    at: usize,
    /// Where the key lies that was taken last.
    taken: Option<Location>,
    /// Where the tail of key `at` begins, in a leaf of whole keys.
    tail_start: usize,
    /// The current key; its first bytes are the leaf's prefix.
    key: Vec<u8>,
}

impl<'a> Cursor<'a> {
    fn new(top: Top<'a>, cut: Cut<'_>) -> Cursor<'a> {
        let mut cursor =
            Cursor { top, path: Vec::new(), leaf: None, at: 0, taken: None, tail_start: 0, key: Vec::new() };
        cursor.seek(cut);
        cursor
    }

    fn seek(&mut self, cut: Cut<'_>) {
        self.path.clear();
        if let Some(root) = self.top.root {
            self.descend(root, cut);
        }
    }

    fn descend(&mut self, mut block: Handle, cut: Cut<'_>) {
        for _ in self.path.len()..usize::from(self.top.levels) {
            let inner = inner(self.top.arena, block);
            let i = cut.child(inner);
            self.path.push((inner, i));
            block = inner.child(i).block;
        }
        let leaf = node(self.top.arena, block);
        self.at = cut.rank_in_leaf(leaf);
        let prefix = match leaf {
            Node::Whole(leaf) => {
                self.tail_start = leaf.tail_start(self.at);
                leaf.prefix()
            }
            Node::Compact(leaf) => leaf.prefix(),
        };
        self.key.clear();
        self.key.extend_from_slice(prefix);
        self.leaf = Some(leaf);
    }

    /// Goes to the beginning of the next leaf; `false` if there is none.
    fn next_leaf(&mut self) -> bool {
        while let Some((inner, i)) = self.path.pop() {
            if i + 1 < inner.len() {
                self.path.push((inner, i + 1));
                self.descend(inner.child(i + 1).block, Cut::First);
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
                self.descend(inner.child(i - 1).block, Cut::Last);
                return true;
            }
        }
        false
    }

    /// Keys of the current leaf that lie before `cut`.
    fn rank(&self, cut: Cut<'_>) -> usize {
        self.leaf.map_or(0, |leaf| cut.rank_in_leaf(leaf))
    }

    fn leaf_len(&self) -> usize {
        self.leaf.map_or(0, Node::len)
    }

    /// The key at the place, and goes behind it.
    fn take_next(&mut self) -> Option<(&[u8], Location)> {
        let leaf = self.leaf?;
        self.at += 1;
        let at = self.at - 1;
        if let Node::Whole(leaf) = leaf {
            self.whole_key(leaf, at);
            self.tail_start += leaf.tail_len(at);
        }
        Some(self.entry(leaf, at))
    }

    /// The key before the place, and goes before it.
    fn take_previous(&mut self) -> Option<(&[u8], Location)> {
        let leaf = self.leaf?;
        self.at -= 1;
        if let Node::Whole(leaf) = leaf {
            self.tail_start -= leaf.tail_len(self.at);
            self.whole_key(leaf, self.at);
        }
        Some(self.entry(leaf, self.at))
    }

    fn whole_key(&mut self, leaf: Leaf<'a>, at: usize) {
        self.key.truncate(leaf.prefix().len());
        leaf.chopped_at(at, self.tail_start).append_to(&mut self.key);
    }

    fn entry(&mut self, leaf: Node<'a>, at: usize) -> (&[u8], Location) {
        if let Node::Compact(leaf) = leaf {
            self.key.truncate(leaf.prefix().len());
            self.key.extend_from_slice(leaf.known(at));
        }
        let location = leaf.location(at);
        self.taken = Some(location);
        (&self.key, location)
    }

    /// The key that was taken last, whether it is whole, and its location.
    fn last(&self) -> (&[u8], bool, Location) {
        (&self.key, self.is_whole(), self.taken.expect("a key was taken"))
    }

    /// Whether the key that was taken last is all known.
    fn is_whole(&self) -> bool {
        matches!(self.leaf, Some(Node::Whole(_)))
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
    pub(super) fn new(top: Top<'a>, start: Bound<&[u8]>, end: Bound<&'a [u8]>) -> Iter<'a> {
        let cursor = Cursor::new(top, Cut::lower(start));
        let end = Cut::upper(end);
        let stop = cursor.rank(end);
        Iter { cursor, end, stop }
    }

    /// Goes on with the first key from `start` on, forwards or backwards; the end stays.
    pub fn seek(&mut self, start: Bound<&[u8]>) {
        self.cursor.seek(Cut::lower(start));
        self.stop = self.cursor.rank(self.end);
    }

    /// Whether the key that came last is whole, and not only what is known of it.
    pub fn is_whole(&self) -> bool {
        self.cursor.is_whole()
    }

    /// The next key, whether it is whole, and its location.
    pub fn next_known(&mut self) -> Option<(&[u8], bool, Location)> {
        self.next()?;
        Some(self.cursor.last())
    }

    /// The next key and its location.
    #[expect(
        clippy::should_implement_trait,
        reason = "the key is lent from a buffer, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Option<(&[u8], Location)> {
        while self.cursor.at >= self.stop {
            if self.stop < self.cursor.leaf_len() || !self.cursor.next_leaf() {
                return None;
            }
            self.stop = self.cursor.rank(self.end);
        }
        self.cursor.take_next()
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
    pub(super) fn new(top: Top<'a>, start: Bound<&'a [u8]>, end: Bound<&[u8]>) -> IterRev<'a> {
        let cursor = Cursor::new(top, Cut::upper(end));
        let start = Cut::lower(start);
        let stop = cursor.rank(start);
        IterRev { cursor, start, stop }
    }

    /// Goes on with the last key up to `end`, forwards or backwards; the start stays.
    pub fn seek(&mut self, end: Bound<&[u8]>) {
        self.cursor.seek(Cut::upper(end));
        self.stop = self.cursor.rank(self.start);
    }

    /// Whether the key that came last is whole, and not only what is known of it.
    pub fn is_whole(&self) -> bool {
        self.cursor.is_whole()
    }

    /// The next key downwards, whether it is whole, and its location.
    pub fn next_known(&mut self) -> Option<(&[u8], bool, Location)> {
        self.next()?;
        Some(self.cursor.last())
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
            self.stop = self.cursor.rank(self.start);
        }
        self.cursor.take_previous()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::PartitionIndex;

    #[test]
    fn a_walk_does_not_wander_beyond_its_end() {
        let (mut arena, mut index) = (IndexArena::new(), PartitionIndex::new());
        for n in 0..5_000u32 {
            index.insert(&mut arena, &n.to_be_bytes(), Location::new(8 * u64::from(n), 31));
        }
        let (low, high) = (2_000u32.to_be_bytes(), 2_001u32.to_be_bytes());
        let place = |cursor: &Cursor<'_>| cursor.leaf.map(|leaf| leaf.bytes().as_ptr());
        let mut iter = index.iter(&arena, Bound::Included(&low), Bound::Included(&high));
        let begin = place(&iter.cursor);
        while iter.next().is_some() {}
        assert_eq!(begin, place(&iter.cursor));

        let mut iter = index.iter_rev(&arena, Bound::Included(&low), Bound::Included(&high));
        let begin = place(&iter.cursor);
        while iter.next().is_some() {}
        assert_eq!(begin, place(&iter.cursor));
    }
}
