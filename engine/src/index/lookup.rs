//! Several lookups side by side.
//!
//! A lookup in a large index waits for memory about twice a leaf, and the next lookup waits behind it.
//! Walking several at once, level by level, lets the processor fetch what all of them need at the same
//! time. (Group prefetching: S. Chen et al., Improving hash join performance through prefetching, 2004.)

use prefetch_index::prefetch_index;

use super::arena::{GRANULE_BYTES, Handle, IndexArena};
use super::leaf::{Node, node_in};
use super::packed::Candidate;
use super::tree::Inner;
use crate::Location;

const LINE: usize = GRANULE_BYTES;
/// Lines of a node that hold heads and lengths, nearly always: of up to 120 keys with a short prefix.
const LINES: usize = 6;
/// Lookups done at once: enough to hide what each would wait for memory, and what they have asked for is still in the processor's
/// cache when it is used.
pub const LOOKUPS_AT_ONCE: usize = 32;

/// A lookup on its way down, or done.
#[derive(Clone, Copy)]
pub struct Lookup<'k> {
    key: &'k [u8],
    block: Handle,
    levels: u8,
    found: Option<Location>,
    is_certain: bool,
}

impl<'k> Lookup<'k> {
    pub(super) const fn new(key: &'k [u8], block: Handle, levels: u8) -> Lookup<'k> {
        Lookup { key, block, levels, found: None, is_certain: true }
    }

    /// The lookup of no key in an empty index.
    pub const NONE: Lookup<'static> = Lookup::new(&[], Handle::NONE, 0);

    /// The key's location, after [`look_up`].
    pub fn found(&self) -> Option<Location> {
        self.found
    }

    /// Whether what was found is the key's; of a compact index only where it is nothing, or in a leaf of whole keys.
    pub fn is_certain(&self) -> bool {
        self.is_certain
    }

    fn is_at(&self, level: u8) -> bool {
        self.levels == level && self.block != Handle::NONE
    }
}

/// Where a lookup is: the node, and what of it is read next.
#[derive(Clone, Copy)]
struct Walk<'a> {
    node: &'a [u8],
    /// Which child of an inner node is next.
    child: usize,
    /// The first key of the leaf that it may be.
    candidate: Option<Candidate>,
}

impl Walk<'_> {
    const NOWHERE: Walk<'static> = Walk { node: &[], child: 0, candidate: None };
}

/// Does all these lookups.
pub fn look_up(arena: &IndexArena, lookups: &mut [Lookup<'_>]) {
    for lookups in lookups.chunks_mut(LOOKUPS_AT_ONCE) {
        let mut walks = [Walk::NOWHERE; LOOKUPS_AT_ONCE];
        find_leaves(arena, lookups, &mut walks);
        for (lookup, walk) in lookups.iter().zip(&mut walks).filter(|(lookup, _)| lookup.is_at(0)) {
            walk.candidate = match node_in(walk.node) {
                Node::Whole(leaf) => leaf.candidate(lookup.key),
                Node::Compact(leaf) => leaf.first_candidate(lookup.key),
            };
        }
        for (node, candidate) in walks.iter().filter_map(|walk| Some((walk.node, walk.candidate?))) {
            candidate.needs.iter().for_each(|at| prefetch_index(node, *at as usize));
        }
        for (lookup, walk) in lookups.iter_mut().zip(&walks) {
            let Some(candidate) = walk.candidate else { continue };
            match node_in(walk.node) {
                Node::Whole(leaf) => {
                    lookup.found = leaf.search_from(candidate, lookup.key).map(|at| leaf.location(at));
                }
                Node::Compact(leaf) => {
                    lookup.is_certain = false;
                    lookup.found = Some(leaf.location(candidate.place as usize));
                }
            }
        }
    }
}

/// Asks for all of the leaves that changes of these keys will rewrite, and brings along what leads to them.
pub fn prefetch_for_change(arena: &IndexArena, lookups: &mut [Lookup<'_>]) {
    for lookups in lookups.chunks_mut(LOOKUPS_AT_ONCE) {
        let mut walks = [Walk::NOWHERE; LOOKUPS_AT_ONCE];
        find_leaves(arena, lookups, &mut walks);
        let leaves = lookups.iter().zip(&walks).filter(|(lookup, _)| lookup.is_at(0));
        for (_, walk) in leaves {
            let leaf = node_in(walk.node).bytes();
            (LINES * LINE..leaf.len()).step_by(LINE).for_each(|at| prefetch_index(leaf, at));
        }
    }
}

/// Asks for header, heads and lengths of a node at once: the steps of a search depend on each other.
#[inline]
pub(super) fn prefetch_node(arena: &IndexArena, block: Handle) -> &[u8] {
    let node = arena.bytes(block);
    (0..LINES).for_each(|line| prefetch_index(node, line * LINE));
    node
}

/// Walks down to the leaves, and asks for their first lines. An inner node is waited for like a leaf: for its heads, and then
/// for the child that they lead to.
fn find_leaves<'a>(arena: &'a IndexArena, lookups: &mut [Lookup<'_>], walks: &mut [Walk<'a>]) {
    let highest = lookups.iter().map(|lookup| lookup.levels).max().unwrap_or(0);
    for level in (0..=highest).rev() {
        for (lookup, walk) in lookups.iter().zip(&mut *walks).filter(|(lookup, _)| lookup.is_at(level)) {
            walk.node = prefetch_node(arena, lookup.block);
        }
        if level == 0 {
            return;
        }
        for (lookup, walk) in lookups.iter().zip(&mut *walks).filter(|(lookup, _)| lookup.is_at(level)) {
            let node = Inner::new(walk.node);
            walk.child = node.child_of(lookup.key);
            prefetch_index(walk.node, node.value_at(walk.child));
        }
        for (lookup, walk) in lookups.iter_mut().zip(&*walks).filter(|(lookup, _)| lookup.is_at(level)) {
            lookup.block = Inner::new(walk.node).child(walk.child).block;
            lookup.levels -= 1;
        }
    }
}
