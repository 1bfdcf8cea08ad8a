//! Which blocks of the slab are free: a buddy allocator over 4 KiB blocks, in constant memory.
//!
//! Knowlton, "A fast storage allocator", CACM 8(10), 1965. A free run of `2^order` blocks lies at a
//! multiple of its size; a run given back merges with its twin. The blocks below a limit (those that
//! are registered with the ring) are a zone of their own, so that they can be preferred or spared.

/// Runs have 1 to 512 blocks: 4 KiB to 2 MiB.
pub(super) const ORDERS: usize = 10;
/// Blocks in the longest run.
pub(super) const LONGEST_RUN: u32 = 1 << (ORDERS - 1);

const NONE: u32 = u32::MAX;
const ZONES: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tag {
    /// Not the first block of a run.
    Inside,
    /// First block of a free run.
    Free(u8),
    /// First block of a run in use.
    Taken(u8),
}

/// The two kinds of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Zone {
    /// Below the limit.
    Low = 0,
    /// From the limit on.
    High = 1,
}

/// The free runs.
#[derive(Debug)]
pub(super) struct Buddy {
    tags: Vec<Tag>,
    /// Next and previous free run of the same order and zone.
    links: Vec<(u32, u32)>,
    heads: [[u32; ORDERS]; ZONES],
    limit: u32,
    free_blocks: u32,
}

impl Buddy {
    /// All of `blocks` free; those below `limit` are the low zone.
    pub(super) fn new(blocks: u32, limit: u32) -> Buddy {
        assert!(limit <= blocks, "zone limit {limit} of {blocks} blocks");
        let mut buddy = Buddy {
            tags: vec![Tag::Inside; blocks as usize],
            links: vec![(NONE, NONE); blocks as usize],
            heads: [[NONE; ORDERS]; ZONES],
            limit,
            free_blocks: blocks,
        };
        buddy.carve(0, limit);
        buddy.carve(limit, blocks);
        buddy
    }

    /// Blocks that are free.
    pub(super) fn free_blocks(&self) -> u32 {
        self.free_blocks
    }

    /// The smallest order whose runs hold `blocks`; `None` where no run is that long.
    pub(super) fn order_for(blocks: u32) -> Option<u8> {
        (1..=LONGEST_RUN).contains(&blocks).then(|| blocks.next_power_of_two().trailing_zeros() as u8)
    }

    /// A run of `2^order` blocks, from the `first` zone if it has one, else from the other.
    pub(super) fn take(&mut self, order: u8, first: Zone) -> Option<u32> {
        let second = if first == Zone::Low { Zone::High } else { Zone::Low };
        let block = self.take_from(first, order).or_else(|| self.take_from(second, order))?;
        self.free_blocks -= 1 << order;
        Some(block)
    }

    /// Gives a run back.
    pub(super) fn give(&mut self, block: u32) {
        let mut order = self.taken_order(block);
        let mut block = block;
        self.free_blocks += 1 << order;
        while usize::from(order) + 1 < ORDERS {
            let twin = block ^ (1 << order);
            let in_reach = (twin as usize) < self.tags.len() && self.zone(twin) == self.zone(block);
            if !in_reach || self.tags[twin as usize] != Tag::Free(order) {
                break;
            }
            self.unlink(twin, order);
            self.tags[block.max(twin) as usize] = Tag::Inside;
            block = block.min(twin);
            order += 1;
        }
        self.link(block, order);
    }

    /// Order of the run in use that begins at `block`.
    pub(super) fn taken_order(&self, block: u32) -> u8 {
        match self.tags.get(block as usize) {
            Some(Tag::Taken(order)) => *order,
            other => panic!("block {block} does not begin a run in use, it is {other:?}"),
        }
    }

    /// Whether a run in use begins at `block`.
    pub(super) fn is_taken(&self, block: u32) -> bool {
        matches!(self.tags.get(block as usize), Some(Tag::Taken(_)))
    }

    fn zone(&self, block: u32) -> Zone {
        if block < self.limit { Zone::Low } else { Zone::High }
    }

    fn carve(&mut self, from: u32, to: u32) {
        let mut block = from;
        while block < to {
            let aligned = if block == 0 { ORDERS as u32 - 1 } else { block.trailing_zeros() };
            let mut order = aligned.min(ORDERS as u32 - 1);
            while block + (1 << order) > to {
                order -= 1;
            }
            self.link(block, order as u8);
            block += 1 << order;
        }
    }

    fn take_from(&mut self, zone: Zone, order: u8) -> Option<u32> {
        let heads = &self.heads[zone as usize];
        let mut found = (usize::from(order)..ORDERS).find(|at| heads[*at] != NONE)? as u8;
        let block = heads[usize::from(found)];
        self.unlink(block, found);
        while found > order {
            found -= 1;
            self.link(block + (1 << found), found);
        }
        self.tags[block as usize] = Tag::Taken(order);
        Some(block)
    }

    fn link(&mut self, block: u32, order: u8) {
        let head = &mut self.heads[self.zone(block) as usize][usize::from(order)];
        let next = *head;
        *head = block;
        self.tags[block as usize] = Tag::Free(order);
        self.links[block as usize] = (next, NONE);
        if next != NONE {
            self.links[next as usize].1 = block;
        }
    }

    fn unlink(&mut self, block: u32, order: u8) {
        debug_assert_eq!(self.tags[block as usize], Tag::Free(order));
        let (next, previous) = self.links[block as usize];
        if previous == NONE {
            let zone = self.zone(block) as usize;
            self.heads[zone][usize::from(order)] = next;
        } else {
            self.links[previous as usize].0 = next;
        }
        if next != NONE {
            self.links[next as usize].1 = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_aligned_disjoint_and_merge_again() {
        let mut buddy = Buddy::new(1024 + 300, 512);
        let mut state = 7u64;
        let mut held: Vec<(u32, u8)> = Vec::new();
        let mut owner = vec![false; 1324];
        for _ in 0..20_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let dice = (state >> 33) as u32;
            if dice.is_multiple_of(2) {
                let order = (dice / 2 % 6) as u8;
                let zone = if dice.is_multiple_of(3) { Zone::Low } else { Zone::High };
                if let Some(block) = buddy.take(order, zone) {
                    assert_eq!(block % (1 << order), 0);
                    for at in block..block + (1 << order) {
                        assert!(!std::mem::replace(&mut owner[at as usize], true), "block {at} twice");
                    }
                    held.push((block, order));
                }
            } else if !held.is_empty() {
                let (block, order) = held.swap_remove(dice as usize % held.len());
                for at in block..block + (1 << order) {
                    owner[at as usize] = false;
                }
                buddy.give(block);
            }
            let used: u32 = held.iter().map(|(_, order)| 1u32 << order).sum();
            assert_eq!(buddy.free_blocks(), 1324 - used);
        }
        for (block, _) in held.drain(..) {
            buddy.give(block);
        }
        assert_eq!(buddy.take(9, Zone::Low), Some(0), "the low zone is whole again");
        assert_eq!(buddy.take(9, Zone::Low), Some(512), "and the high zone serves when it is used up");
        assert_eq!(buddy.take(9, Zone::Low), None);
    }

    #[test]
    fn order_for_covers_lengths() {
        assert_eq!(Buddy::order_for(0), None);
        assert_eq!(Buddy::order_for(1), Some(0));
        assert_eq!(Buddy::order_for(3), Some(2));
        assert_eq!(Buddy::order_for(512), Some(9));
        assert_eq!(Buddy::order_for(513), None);
    }

    #[test]
    #[should_panic(expected = "does not begin a run in use")]
    fn giving_twice_is_caught() {
        let mut buddy = Buddy::new(16, 0);
        let block = buddy.take(0, Zone::High).expect("a block");
        buddy.give(block);
        buddy.give(block);
    }
}
