//! Several lookups side by side.
//!
//! A lookup in a large index waits for memory about twice a leaf, and the next lookup waits behind it.
//! Walking several at once, level by level, lets the processor fetch what all of them need at the same
//! time. (Group prefetching: S. Chen et al., Improving hash join performance through prefetching, 2004.
//! Safe code has no prefetch, so this reads instead, in loops that do nothing else: the processor runs
//! ahead of loads that have not come.)

use super::arena::{GRANULE_BYTES, Handle, IndexArena, Place};
use super::leaf::{Node, node_in};
use super::tree::Inner;
use crate::Location;

const LINE: usize = GRANULE_BYTES;
/// Lines of a node that hold heads and lengths, nearly always: of up to 125 keys.
const LINES: usize = 6;

/// A lookup on its way down, or done.
#[derive(Clone, Copy)]
pub struct Lookup<'k> {
    key: &'k [u8],
    block: Handle,
    levels: u8,
    /// Which child of an inner node is next.
    child: u16,
    /// Where the node is.
    place: Place,
    /// The first key of the leaf that it may be, and where its tail begins; of a compact leaf, where the candidates end.
    first: Option<(u32, u32)>,
    found: Option<Location>,
    is_certain: bool,
}

impl<'k> Lookup<'k> {
    pub(super) const fn new(key: &'k [u8], block: Handle, levels: u8) -> Lookup<'k> {
        let (place, first) = (Place::NONE, None);
        Lookup { key, block, levels, child: 0, place, first, found: None, is_certain: true }
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
}

/// Does all these lookups. A few tens at once are best: what they have touched must still be in the
/// processor's cache when it is used.
pub fn look_up(arena: &IndexArena, lookups: &mut [Lookup<'_>]) {
    find_leaves(arena, lookups);
    for lookup in lookups.iter_mut().filter(there) {
        lookup.first = match leaf_at(arena, lookup.place) {
            Node::Whole(leaf) => leaf.first_with_head_of(lookup.key),
            Node::Compact(leaf) => leaf.first_and_end_of(lookup.key),
        };
    }
    touch_all(arena, lookups.iter_mut().filter(|lookup| lookup.first.is_some()), |lookup, bytes| {
        let first = lookup.first.unwrap_or_default();
        match node_in(bytes) {
            Node::Whole(leaf) => leaf.value_and_tail_at(first),
            Node::Compact(leaf) => [leaf.location_at(first.0 as usize); 3],
        }
    });
    for lookup in lookups {
        let Some(first) = lookup.first else { continue };
        match leaf_at(arena, lookup.place) {
            Node::Whole(leaf) => {
                lookup.found = leaf.search_from(first, lookup.key).map(|at| leaf.location(at));
            }
            Node::Compact(leaf) => {
                lookup.is_certain = false;
                lookup.found = Some(leaf.location(first.0 as usize));
            }
        }
    }
}

/// Brings all of the leaves that changes of these keys will rewrite along, and what leads to them.
pub fn touch_for_change(arena: &IndexArena, lookups: &mut [Lookup<'_>]) {
    find_leaves(arena, lookups);
    let mut sum = 0;
    for lookup in lookups.iter_mut().filter(there) {
        let leaf = leaf_at(arena, lookup.place).bytes();
        sum ^= leaf.iter().skip(LINES * LINE).step_by(LINE).fold(0, |sum, byte| sum ^ byte);
    }
    std::hint::black_box(sum);
}

fn there(lookup: &&mut Lookup<'_>) -> bool {
    lookup.block != Handle::NONE
}

/// Walks down to the leaves, and touches their first lines. An inner node is waited for like a leaf: for its heads, and then
/// for the child that they lead to.
fn find_leaves(arena: &IndexArena, lookups: &mut [Lookup<'_>]) {
    let highest = lookups.iter().map(|lookup| lookup.levels).max().unwrap_or(0);
    for level in (0..=highest).rev() {
        let at_level = |lookup: &&mut Lookup<'_>| lookup.levels == level && lookup.block != Handle::NONE;
        for lookup in lookups.iter_mut().filter(at_level) {
            lookup.place = arena.place(lookup.block);
        }
        touch_all(arena, lookups.iter_mut().filter(at_level), |_, _| {
            std::array::from_fn::<_, LINES, _>(|n| n * LINE)
        });
        if level == 0 {
            return;
        }
        for lookup in lookups.iter_mut().filter(at_level) {
            lookup.child = inner_at(arena, lookup.place).child_of(lookup.key) as u16;
        }
        touch_all(arena, lookups.iter_mut().filter(at_level), |lookup, bytes| {
            [Inner::new(bytes).value_at(usize::from(lookup.child))]
        });
        for lookup in lookups.iter_mut().filter(at_level) {
            lookup.block = inner_at(arena, lookup.place).child(usize::from(lookup.child)).block;
            lookup.levels -= 1;
        }
    }
}

fn inner_at(arena: &IndexArena, place: Place) -> Inner<'_> {
    Inner::new(arena.bytes_at(place))
}

fn leaf_at(arena: &IndexArena, place: Place) -> Node<'_> {
    node_in(arena.bytes_at(place))
}

/// Reads a byte of some cache lines of each node, and does nothing else.
#[inline]
fn touch_all<'l, 'k: 'l, const N: usize>(
    arena: &IndexArena,
    lookups: impl Iterator<Item = &'l mut Lookup<'k>>,
    lines: impl Fn(&Lookup<'_>, &[u8]) -> [usize; N],
) {
    let mut sum = 0;
    for lookup in lookups {
        let bytes = arena.bytes_at(lookup.place);
        for at in lines(lookup, bytes) {
            sum ^= bytes[at.min(bytes.len() - 1)];
        }
    }
    std::hint::black_box(sum);
}
