//! An index as an image holds it: its leaves, byte for byte as they are in memory. They are copied out one
//! by one while the index changes, and copied in again with the inner nodes built over them from below:
//! no key is looked for or inserted.

use std::borrow::Cow;

use super::PartitionIndex;
use super::arena::{Handle, IndexArena, block_bytes};
pub use super::check_leaf::Malformed;
use super::check_leaf::{checked, checked_either};
use super::compact::{MAX_KEYS_EVER, MAX_WIDTH};
use super::edit::Builder;
use super::iter::Cut;
use super::leaf::{LOCATION_BYTES, Leaf, MAX_BODY_BYTES_EVER, leaf, node};
use super::packed::{HEADER_BYTES, common_prefix};
use super::tree::{Child, inner, inner_over};
use crate::Location;
use crate::limits::MAX_KEY_BYTES;

/// Children of an inner node that is built over what was loaded: as many as a merger leaves, for it may
/// have to grow.
const CHILDREN_OF_BUILT: usize = 96;
/// Bytes of their separators, likewise.
const SEPARATORS_OF_BUILT_BYTES: usize = 8 * 1024;

/// border_len u16 | 0 u16 | bytes of it all u16 | 0 u16: what is in front of a leaf's lower border, in an image of a
/// compact index. As in a leaf's own header, its third number says how long it is.
const BORDER_HEADER_BYTES: usize = 8;

fn border_header(border_len: usize, leaf_len: usize) -> [u8; BORDER_HEADER_BYTES] {
    let mut header = [0; BORDER_HEADER_BYTES];
    let all = BORDER_HEADER_BYTES + border_len + leaf_len;
    // What does not fit is none of ours, and no header is like it.
    let [border_len, all] = [border_len, all].map(|len| u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
    header[..2].copy_from_slice(&border_len);
    header[4..6].copy_from_slice(&all);
    header
}

/// A leaf, or the end of one, on its way into an image.
pub struct LeafImage<'a> {
    /// As in memory.
    pub bytes: Cow<'a, [u8]>,
    /// Its last key: the next leaf begins behind it.
    pub last_key: Vec<u8>,
    /// Its keys.
    pub records: u64,
    /// Bytes of the records that it points to.
    pub record_bytes: u64,
}

/// Most bytes of a leaf of a compact index, with its border: they are written whole.
pub const MOST_BORDERED_LEAF_BYTES: usize = {
    let compact = MAX_WIDTH + MAX_KEYS_EVER * (MAX_WIDTH + LOCATION_BYTES);
    let body = if compact > MAX_BODY_BYTES_EVER { compact } else { MAX_BODY_BYTES_EVER };
    BORDER_HEADER_BYTES + HEADER_BYTES + 2 * MAX_KEY_BYTES + body
};

impl LeafImage<'_> {
    /// Bytes of memory that it takes as a node.
    pub fn node_bytes(&self) -> u64 {
        block_bytes(self.bytes.len()) as u64
    }
}

impl PartitionIndex {
    /// The leaf with the first key behind `last_key` (behind none where that is empty), from that key on;
    /// of a longer one as much as `most_bytes` hold. `None` where no key is behind.
    pub fn leaf_after<'a>(
        &self,
        arena: &'a IndexArena,
        last_key: &[u8],
        most_bytes: usize,
    ) -> Option<LeafImage<'a>> {
        let (leaf, from) = self.place_after(arena, last_key)?;
        let mut to = leaf.len();
        let mut bytes = if from == 0 { Cow::Borrowed(leaf.bytes()) } else { sliced(leaf, from, to) };
        while bytes.len() > most_bytes {
            assert!(to - from > 1, "one key takes {} bytes of {most_bytes}", bytes.len());
            to = from + (to - from) / 2;
            bytes = sliced(leaf, from, to);
        }
        let record_bytes = (from..to).map(|i| u64::from(leaf.location(i).room())).sum();
        Some(LeafImage { bytes, last_key: leaf.key(to - 1), records: (to - from) as u64, record_bytes })
    }

    /// The next leaf that an image of a compact index lacks, behind its lower border.
    pub fn leaf_to_image(&self, arena: &IndexArena) -> Option<LeafImage<'static>> {
        let (way, border) = self.way_of_image(arena)?;
        let leaf = node(arena, way.block);
        let bytes = [&border_header(border.len(), leaf.bytes().len())[..], border, leaf.bytes()].concat();
        let record_bytes = (0..leaf.len()).map(|i| u64::from(leaf.location(i).room())).sum();
        let records = leaf.len() as u64;
        Some(LeafImage { bytes: Cow::Owned(bytes), last_key: Vec::new(), records, record_bytes })
    }

    /// The leaf with the first key behind `last_key`, and how many of its keys are not.
    fn place_after<'a>(&self, arena: &'a IndexArena, last_key: &[u8]) -> Option<(Leaf<'a>, usize)> {
        if self.is_empty() {
            return None;
        }
        let cut = if last_key.is_empty() { Cut::First } else { Cut::After(last_key) };
        // The nearest subtree to the right of the way down.
        let mut right = None;
        let mut block = self.root;
        for level in (1..=self.levels).rev() {
            let node = inner(arena, block);
            let i = cut.child(node);
            if i + 1 < node.len() {
                right = Some((node.child(i + 1).block, level - 1));
            }
            block = node.child(i).block;
        }
        let at = cut.rank_in_leaf(node(arena, block));
        if at < leaf(arena, block).len() {
            return Some((leaf(arena, block), at));
        }
        let (mut block, levels) = right?;
        for _ in 0..levels {
            block = inner(arena, block).child(0).block;
        }
        Some((leaf(arena, block), 0))
    }
}

fn sliced(leaf: Leaf<'_>, from: usize, to: usize) -> Cow<'static, [u8]> {
    Cow::Owned(Builder::slice(leaf, from..to).into_bytes())
}

/// A node's place in its level: a key that none of its keys is smaller than, and the node.
struct Built {
    separator: Vec<u8>,
    child: Child,
}

/// An index in the making, leaf by leaf in the order of keys.
#[derive(Default)]
pub struct IndexLoad {
    leaves: Vec<Built>,
    last_key: Vec<u8>,
    records: u64,
    is_compact: bool,
}

impl IndexLoad {
    /// Of no keys, compact or not.
    pub fn new(is_compact: bool) -> IndexLoad {
        IndexLoad { is_compact, ..IndexLoad::default() }
    }

    /// Copies the next leaf into the arena, if it is one, and its keys are behind those before. Hands out
    /// each location with its key's length before that, which may say no.
    pub fn push(
        &mut self,
        arena: &mut IndexArena,
        bytes: &[u8],
        may_be: &mut dyn FnMut(Location, usize) -> bool,
    ) -> Result<(), Malformed> {
        if self.is_compact {
            return self.push_behind_border(arena, bytes, may_be);
        }
        let leaf = checked(bytes, may_be)?;
        let first = leaf.key(0);
        if first <= self.last_key {
            return Err(Malformed);
        }
        let mut separator = first;
        // The first separator separates nothing.
        let shared = common_prefix(&self.last_key, &separator);
        separator.truncate(if self.leaves.is_empty() { 0 } else { shared + 1 });
        leaf.key_into(leaf.len() - 1, &mut self.last_key);
        let child = Child { block: arena.store(bytes), records: leaf.len() as u32 };
        self.records += leaf.len() as u64;
        self.leaves.push(Built { separator, child });
        Ok(())
    }

    /// The same of a leaf behind its lower border, which lies behind the keys before as far as they are known.
    fn push_behind_border(
        &mut self,
        arena: &mut IndexArena,
        bytes: &[u8],
        may_be: &mut dyn FnMut(Location, usize) -> bool,
    ) -> Result<(), Malformed> {
        let (header, rest) = bytes.split_first_chunk::<BORDER_HEADER_BYTES>().ok_or(Malformed)?;
        let border_len = usize::from(u16::from_le_bytes([header[0], header[1]]));
        let (border, bytes) = rest.split_at_checked(border_len).ok_or(Malformed)?;
        if *header != border_header(border_len, bytes.len()) {
            return Err(Malformed);
        }
        let leaf = checked_either(bytes, may_be)?;
        let is_above = self.leaves.last().is_none_or(|last| *last.separator < *border);
        let mut first = Vec::new();
        leaf.known_into(0, &mut first);
        let is_first = self.leaves.is_empty();
        // What is known while a frame is applied stays known: see `borders.rs`.
        let before = self.leaves.last().map(|last| node(arena, last.child.block));
        let is_known = before.is_none_or(|before| before.knows(border) && leaf.knows(border));
        let is_placed = is_first || (is_not_above(&self.last_key, border) && is_not_above(border, &first));
        if !is_above || !is_placed || !is_known || border.len() > MAX_KEY_BYTES {
            return Err(Malformed);
        }
        leaf.known_into(leaf.len() - 1, &mut self.last_key);
        let child = Child { block: arena.store(bytes), records: leaf.len() as u32 };
        self.records += leaf.len() as u64;
        let separator = if is_first { Vec::new() } else { border.to_vec() };
        self.leaves.push(Built { separator, child });
        Ok(())
    }

    /// Builds the inner nodes.
    pub fn finish(self, arena: &mut IndexArena) -> PartitionIndex {
        let mut level = self.leaves;
        let mut levels = 0;
        while level.len() > 1 {
            level = level_over(arena, level);
            levels += 1;
        }
        let root = level.first().map_or(Handle::NONE, |only| only.child.block);
        PartitionIndex { root, levels, is_compact: self.is_compact, records: self.records, imaging: None }
    }
}

/// Whether a key is not above another, as far as both are known.
fn is_not_above(a: &[u8], b: &[u8]) -> bool {
    let both = a.len().min(b.len());
    a[..both] <= b[..both]
}

/// The nodes over those of one level: fewer, for all but the last have two children or more.
fn level_over(arena: &mut IndexArena, below: Vec<Built>) -> Vec<Built> {
    let mut above = Vec::new();
    let mut nodes = below.into_iter().peekable();
    while nodes.peek().is_some() {
        let (mut children, mut bytes) = (Vec::new(), 0);
        while let Some(next) = nodes.peek() {
            let is_full = children.len() >= CHILDREN_OF_BUILT
                || bytes + next.separator.len() > SEPARATORS_OF_BUILT_BYTES;
            if is_full && children.len() >= 2 {
                break;
            }
            bytes += next.separator.len();
            children.extend(nodes.next().map(|built| (built.separator, built.child)));
        }
        let records = children.iter().map(|(_, child)| child.records).sum();
        let separator = children[0].0.clone();
        let block = inner_over(arena, &children);
        above.push(Built { separator, child: Child { block, records } });
    }
    above
}

#[cfg(test)]
mod tests;
