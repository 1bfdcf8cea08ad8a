//! The tree above the leaves.

use super::leaf::Leaf;
use super::memory::allocated_bytes;
use super::packed::Packed;
use crate::Location;

/// Most children of an inner node.
const MAX_CHILDREN: usize = 128;
/// An inner node with fewer children looks for a neighbour to merge with.
const SMALL_CHILDREN: usize = MAX_CHILDREN / 4;
/// A merger must leave room to grow.
const MERGED_CHILDREN: usize = MAX_CHILDREN * 3 / 4;
/// Size at which an inner node splits though it has few children: long separators.
const MAX_SEPARATOR_BYTES: usize = 16 * 1024;
const MERGED_SEPARATOR_BYTES: usize = MAX_SEPARATOR_BYTES * 3 / 4;
/// Room for children to come, and what may be left unused.
const SPARE_CHILDREN: usize = 8;

/// A node of the tree; all leaves are equally deep.
pub(super) enum Node {
    /// Keys and locations.
    Leaf(Leaf),
    /// Nodes and the borders between them.
    Inner(Box<Inner>),
}

/// Children, in order, and what separates each from the one before: child `i` holds the keys `k`
/// with `separator[i - 1] <= k < separator[i]`.
pub(super) struct Inner {
    separators: Packed<4, 0>,
    children: Vec<Node>,
    records: u64,
}

/// What did not fit into a node.
pub(super) struct Split {
    /// No key of `right` is smaller, and every key left of it is.
    pub separator: Vec<u8>,
    /// The new neighbour to the right.
    pub right: Node,
}

/// What an insert did.
pub(super) struct Inserted {
    /// The location that the key had before.
    pub old: Option<Location>,
    /// The node's new neighbour, if it had to split.
    pub split: Option<Split>,
}

impl From<Leaf> for Node {
    fn from(leaf: Leaf) -> Node {
        Node::Leaf(leaf)
    }
}

impl Node {
    /// How many keys lie below.
    pub fn records(&self) -> u64 {
        match self {
            Node::Leaf(leaf) => leaf.len() as u64,
            Node::Inner(inner) => inner.records,
        }
    }

    fn is_small(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.is_small(),
            Node::Inner(inner) => inner.children.len() < SMALL_CHILDREN,
        }
    }

    /// Sets the location of `key`. `memory` follows the bytes that the tree takes.
    pub fn insert(
        &mut self,
        key: &[u8],
        location: Location,
        rightmost: bool,
        memory: &mut usize,
    ) -> Inserted {
        let inner = match self {
            Node::Inner(inner) => inner,
            Node::Leaf(leaf) => return insert_into_leaf(leaf, key, location, rightmost, memory),
        };
        let i = inner.child_of(key);
        let rightmost = rightmost && i + 1 == inner.children.len();
        let Inserted { old, split } = inner.children[i].insert(key, location, rightmost, memory);
        inner.records += u64::from(old.is_none());
        let split = split.and_then(|split| inner.adopt(i, split, rightmost, memory));
        Inserted { old, split }
    }

    /// Puts `key` behind all others if it belongs there and there is room; `false`, and nothing done, if not.
    pub fn append(&mut self, key: &[u8], location: Location, memory: &mut usize) -> bool {
        match self {
            Node::Leaf(leaf) => {
                let before = leaf.memory_bytes();
                let done = leaf.append(key, location);
                *memory = *memory + leaf.memory_bytes() - before;
                done
            }
            Node::Inner(inner) => {
                let done = inner.children.last_mut().is_some_and(|last| last.append(key, location, memory));
                inner.records += u64::from(done);
                done
            }
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &[u8], memory: &mut usize) -> Option<Location> {
        match self {
            Node::Leaf(leaf) => {
                let at = leaf.search(key).ok()?;
                let (before, old) = (leaf.memory_bytes(), leaf.location(at));
                leaf.remove_at(at);
                *memory = *memory + leaf.memory_bytes() - before;
                Some(old)
            }
            Node::Inner(inner) => {
                let i = inner.child_of(key);
                let old = inner.children[i].remove(key, memory)?;
                inner.records -= 1;
                if inner.children[i].is_small() {
                    inner.mend(i, memory);
                }
                Some(old)
            }
        }
    }

    /// Takes up to `most` keys out at the end, and says how many.
    pub fn drain_last(&mut self, most: usize, each: &mut dyn FnMut(Location), memory: &mut usize) -> usize {
        match self {
            Node::Leaf(leaf) => {
                let (before, keep) = (leaf.memory_bytes(), leaf.len().saturating_sub(most));
                let drained = leaf.len() - keep;
                (keep..leaf.len()).for_each(|i| each(leaf.location(i)));
                leaf.truncate(keep);
                *memory = *memory + leaf.memory_bytes() - before;
                drained
            }
            Node::Inner(inner) => {
                let last = inner.children.len() - 1;
                let drained = inner.children[last].drain_last(most, each, memory);
                inner.records -= drained as u64;
                if inner.children[last].records() == 0 {
                    let before = inner.memory_bytes();
                    inner.remove_child(last, memory);
                    *memory = *memory + inner.memory_bytes() - before;
                }
                drained
            }
        }
    }

    /// What the node itself takes, without its children.
    pub fn shell_bytes(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.memory_bytes(),
            Node::Inner(inner) => inner.memory_bytes(),
        }
    }

    /// A root over two nodes.
    pub fn root_over(left: Node, split: Split, memory: &mut usize) -> Node {
        let records = left.records() + split.right.records();
        let mut separators = Packed::new();
        separators.insert_at(0, &split.separator, []);
        let mut children = Vec::new();
        children.reserve_exact(SPARE_CHILDREN);
        children.extend([left, split.right]);
        let root = Inner { separators, children, records };
        *memory += root.memory_bytes();
        Node::Inner(Box::new(root))
    }

    /// How a tree loses a level: the only child, if this is an inner node with one, or an empty leaf
    /// if it has none. `Err` gives the node back.
    pub fn lowered(self, memory: &mut usize) -> Result<Node, Node> {
        match self {
            Node::Inner(mut inner) if inner.children.len() < 2 => {
                *memory -= inner.memory_bytes();
                Ok(inner.children.pop().unwrap_or(Node::Leaf(Leaf::new())))
            }
            node => Err(node),
        }
    }
}

fn insert_into_leaf(
    leaf: &mut Leaf,
    key: &[u8],
    location: Location,
    rightmost: bool,
    memory: &mut usize,
) -> Inserted {
    match leaf.search(key) {
        Ok(at) => {
            let old = leaf.location(at);
            leaf.set_location(at, location);
            Inserted { old: Some(old), split: None }
        }
        Err(at) => {
            let before = leaf.memory_bytes();
            let split = leaf.insert_at(at, key, location, rightmost);
            let right = split.as_ref().map_or(0, |split| split.right.shell_bytes());
            *memory = *memory + leaf.memory_bytes() + right - before;
            Inserted { old: None, split }
        }
    }
}

impl Inner {
    /// The children, in order; there is always one at least between calls of the index.
    pub fn children(&self) -> &[Node] {
        &self.children
    }

    /// The child whose range holds `key`.
    pub fn child_of(&self, key: &[u8]) -> usize {
        match self.separators.search(key) {
            Ok(i) => i + 1,
            Err(i) => i,
        }
    }

    /// The child whose range holds `key`, to be changed without a change of its number of keys.
    pub fn child_for(&mut self, key: &[u8]) -> &mut Node {
        let i = self.child_of(key);
        &mut self.children[i]
    }

    /// What the node takes, without its children.
    pub fn memory_bytes(&self) -> usize {
        allocated_bytes(size_of::<Inner>())
            + allocated_bytes(self.children.capacity() * size_of::<Node>())
            + self.separators.memory_bytes()
    }

    /// The separator before child `i`, which is not the first.
    #[cfg(test)]
    pub fn separator(&self, i: usize) -> Vec<u8> {
        self.separators.key(i - 1)
    }

    /// Takes the new neighbour of child `i` in; what does not fit comes back.
    fn adopt(&mut self, i: usize, split: Split, rightmost: bool, memory: &mut usize) -> Option<Split> {
        let before = self.memory_bytes();
        self.separators.insert_at(i, &split.separator, []);
        if self.children.len() == self.children.capacity() {
            self.children.reserve_exact(SPARE_CHILDREN);
        }
        self.children.insert(i + 1, split.right);
        assert_eq!(self.separators.len() + 1, self.children.len(), "separators lie between children");

        let long = self.separators.body_bytes() > MAX_SEPARATOR_BYTES && self.children.len() > 3;
        let split = (self.children.len() > MAX_CHILDREN || long).then(|| self.split(rightmost));
        let right = split.as_ref().map_or(0, |split| split.right.shell_bytes());
        *memory = *memory + self.memory_bytes() + right - before;
        split
    }

    fn split(&mut self, rightmost: bool) -> Split {
        let count = self.separators.len();
        // Keys that come in ascending order never come back to the left half.
        let middle = if rightmost { count - 1 - count / 8 } else { count / 2 };
        let separator = self.separators.key(middle);
        let children = self.children.split_off(middle + 1);
        let separators = self.separators.slice(middle + 1..count);
        self.separators = self.separators.slice(0..middle);
        self.children.shrink_to(middle + 1 + SPARE_CHILDREN);
        let records: u64 = children.iter().map(Node::records).sum();
        self.records -= records;
        Split { separator, right: Node::Inner(Box::new(Inner { separators, children, records })) }
    }

    /// Drops child `i` if it is empty, else merges it with a neighbour if they fit.
    fn mend(&mut self, i: usize, memory: &mut usize) {
        let before = self.memory_bytes();
        if self.children[i].records() == 0 {
            self.remove_child(i, memory);
        } else if !(i > 0 && self.merge(i - 1, memory)) && i + 1 < self.children.len() {
            self.merge(i, memory);
        }
        *memory = *memory + self.memory_bytes() - before;
    }

    /// The caller accounts for this node, this for the child.
    fn remove_child(&mut self, i: usize, memory: &mut usize) {
        let child = self.children.remove(i);
        assert_eq!(child.records(), 0, "only empty nodes are dropped");
        *memory -= child.shell_bytes();
        if self.separators.len() > 0 {
            self.separators.remove_at(i.saturating_sub(1));
        }
        self.shrink_children();
    }

    /// Makes one of child `i` and the next, if they fit. The caller accounts for this node, this for
    /// the children.
    fn merge(&mut self, i: usize, memory: &mut usize) -> bool {
        let parts = self.children[i].shell_bytes() + self.children[i + 1].shell_bytes();
        let border = self.separators.key(i);
        let [left, right] = &mut self.children[i..i + 2] else {
            unreachable!("two of the children");
        };
        match (left, right) {
            (Node::Leaf(left), Node::Leaf(right)) => match left.merged(right) {
                Some(merged) => *left = merged,
                None => return false,
            },
            (Node::Inner(left), Node::Inner(right)) => {
                if !left.absorb(&border, right) {
                    return false;
                }
            }
            _ => unreachable!("all leaves are equally deep"),
        }
        self.children.remove(i + 1);
        self.separators.remove_at(i);
        self.shrink_children();
        *memory = *memory + self.children[i].shell_bytes() - parts;
        true
    }

    /// Takes all children of the next node over, if they fit.
    fn absorb(&mut self, border: &[u8], right: &mut Inner) -> bool {
        if self.children.len() + right.children.len() > MERGED_CHILDREN
            || self.separators.merged_body_bytes(Some(border), &right.separators) > MERGED_SEPARATOR_BYTES
        {
            return false;
        }
        self.separators = self.separators.merged(Some(border), &right.separators);
        self.children.reserve_exact(right.children.len());
        self.children.append(&mut right.children);
        self.records += right.records;
        true
    }

    fn shrink_children(&mut self) {
        if self.children.capacity() > self.children.len() + 2 * SPARE_CHILDREN {
            self.children.shrink_to(self.children.len() + SPARE_CHILDREN);
        }
    }
}
