//! Several lookups side by side.
//!
//! A lookup in a large index waits for memory about twice a leaf, and the next lookup waits behind it.
//! Walking several at once, level by level, lets the processor fetch what all of them need at the same
//! time. (Group prefetching: S. Chen et al., Improving hash join performance through prefetching, 2004.
//! Safe code has no prefetch, so this reads instead, in loops that do nothing else: the processor runs
//! ahead of loads that have not come.)

use super::arena::{GRANULE_BYTES, Handle, IndexArena};
use super::leaf::leaf;
use super::tree::inner;
use crate::Location;

const LINE: usize = GRANULE_BYTES;

/// A lookup on its way down, or done.
#[derive(Clone, Copy)]
pub struct Lookup<'k> {
    key: &'k [u8],
    block: Handle,
    levels: u8,
    /// The next child's number, or where in the leaf the value will be.
    place: u32,
    /// Where in the leaf the tail will be.
    tail: u32,
    found: Option<Location>,
}

impl<'k> Lookup<'k> {
    pub(super) const fn new(key: &'k [u8], block: Handle, levels: u8) -> Lookup<'k> {
        Lookup { key, block, levels, place: 0, tail: 0, found: None }
    }

    /// The lookup of no key in an empty index.
    pub const NONE: Lookup<'static> = Lookup::new(&[], Handle::NONE, 0);

    /// The key's location, after [`look_up`].
    pub fn found(&self) -> Option<Location> {
        self.found
    }
}

/// Does all these lookups. A few tens at once are best: what they have touched must still be in the
/// processor's cache when it is used.
pub fn look_up(arena: &IndexArena, lookups: &mut [Lookup<'_>]) {
    let highest = lookups.iter().map(|lookup| lookup.levels).max().unwrap_or(0);
    for level in (1..=highest).rev() {
        let at_level = |lookup: &&mut Lookup<'_>| lookup.levels == level;
        touch_all(arena, lookups.iter_mut().filter(at_level), |_| [0, 1, 2, 3, 4, 5].map(|n| n * LINE));
        for lookup in lookups.iter_mut().filter(at_level) {
            lookup.place = inner(arena, lookup.block).child_of(lookup.key) as u32;
        }
        for lookup in lookups.iter_mut().filter(at_level) {
            lookup.block = inner(arena, lookup.block).child(lookup.place as usize).block;
            lookup.levels -= 1;
        }
    }
    let there = |lookup: &&mut Lookup<'_>| lookup.block != Handle::NONE;
    touch_all(arena, lookups.iter_mut().filter(there), |_| [0, 1, 2, 3, 4, 5].map(|n| n * LINE));
    for lookup in lookups.iter_mut().filter(there) {
        (lookup.place, lookup.tail) = leaf(arena, lookup.block).first_with_head_of(lookup.key);
    }
    touch_all(arena, lookups.iter_mut().filter(there), |lookup| {
        [lookup.place as usize, lookup.tail as usize, lookup.tail as usize + LINE]
    });
    for lookup in lookups.iter_mut().filter(there) {
        let leaf = leaf(arena, lookup.block);
        lookup.found = leaf.search(lookup.key).ok().map(|at| leaf.location(at));
    }
}

/// Reads a byte of some cache lines of each node, and does nothing else.
#[inline]
fn touch_all<'l, 'k: 'l, const N: usize>(
    arena: &IndexArena,
    lookups: impl Iterator<Item = &'l mut Lookup<'k>>,
    lines: impl Fn(&Lookup<'_>) -> [usize; N],
) {
    let mut sum = 0;
    for lookup in lookups {
        let bytes = arena.bytes(lookup.block);
        for at in lines(lookup) {
            sum ^= bytes[at.min(bytes.len() - 1)];
        }
    }
    std::hint::black_box(sum);
}
