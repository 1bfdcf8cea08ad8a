//! The memory of all index nodes of a shard: dense slabs of equal blocks, and a table that says where each block is.
//!
//! A block has as many granules as its node needs and a little more for the number of its entry in the table
//! of places. Blocks of one length are a stack: a new one goes to the end, and when one is given
//! back, the last one takes its place. Only a few places that were given back lately stay holes for a while: a node that grows leaves one
//! and takes another, which is in the processor's cache, and no other node must move. What is held beyond the blocks in use is
//! these, the end of one slab for each length, what is left over in a slab, and a few free slabs. Whoever names a block by its
//! handle does not notice that it moves.
//!
//! (Segregated storage as in slab allocators: J. Bonwick, The slab allocator, 1994; a table of handles makes
//! it compact itself, as heaps with master pointers do.)
//!
//! ```text
//! chunk: 16 slabs of 128 KiB.   slab: blocks of one length.   block: node | ... | handle u32 (its last bytes)
//! ```

mod chunks;
mod pages;
#[cfg(test)]
mod tests;

use self::chunks::{Chunks, SLAB_GRANULES};

/// Unit of allocation: a cache line.
pub(super) const GRANULE_BYTES: usize = 64;
/// Bytes at the end of a block that are its handle.
const HANDLE_BYTES: usize = 4;
/// Blocks of up to so many granules have slabs for each length; longer ones come in steps.
const EXACT_GRANULES: usize = 128;
/// Granules of a step.
const STEP_GRANULES: usize = 16;
/// Granules of the largest block.
const MAX_GRANULES: usize = 1024;
/// How many lengths of blocks there are.
const CLASSES: usize = EXACT_GRANULES + (MAX_GRANULES - EXACT_GRANULES) / STEP_GRANULES;
/// At most so many holes are kept of a length,
const MOST_HOLES: usize = 16;
/// and one in so many blocks.
const BLOCKS_PER_HOLE: usize = 64;
/// Entries of the table of places that are allocated at once.
const PAGE_PLACES: usize = 4096;

/// Largest node, in bytes.
pub(super) const MAX_BLOCK_BYTES: usize = MAX_GRANULES * GRANULE_BYTES - HANDLE_BYTES;

const _: () = assert!(MAX_GRANULES <= SLAB_GRANULES && CLASSES < u8::MAX as usize);

/// A block of an [`IndexArena`]: its number in the table of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle(u32);

impl Handle {
    /// No block.
    pub const NONE: Handle = Handle(u32::MAX);

    /// As stored in a node.
    pub fn to_raw(self) -> u32 {
        self.0
    }

    /// From a node.
    pub fn from_raw(raw: u32) -> Handle {
        Handle(raw)
    }
}

/// Where a block lies: its first granule, counted over all chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u32);

/// A length of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class(u8);

impl Class {
    /// Of the shortest blocks that hold a node of so many bytes.
    fn of(bytes: usize) -> Class {
        let granules = (bytes + HANDLE_BYTES).div_ceil(GRANULE_BYTES);
        assert!(bytes > 0 && granules <= MAX_GRANULES, "a node of {bytes} bytes");
        let steps = granules.saturating_sub(EXACT_GRANULES).div_ceil(STEP_GRANULES);
        Class((granules.min(EXACT_GRANULES) - 1 + steps) as u8)
    }

    /// Granules of a block.
    fn granules(self) -> usize {
        let class = usize::from(self.0);
        let steps = class.saturating_sub(EXACT_GRANULES - 1);
        class.min(EXACT_GRANULES - 1) + 1 + steps * STEP_GRANULES
    }

    fn blocks_per_slab(self) -> usize {
        SLAB_GRANULES / self.granules()
    }
}

/// All blocks of one length.
struct Stack {
    slabs: Vec<u32>,
    /// Blocks in the last slab, holes too; all others are full.
    last: usize,
    /// Places of no block, the latest last.
    holes: Vec<Place>,
}

impl Stack {
    const EMPTY: Stack = Stack { slabs: Vec::new(), last: 0, holes: Vec::new() };

    /// How many holes may stay.
    fn most_holes(&self, class: Class) -> usize {
        let places = self.slabs.len().saturating_sub(1) * class.blocks_per_slab() + self.last;
        (places / BLOCKS_PER_HOLE).min(MOST_HOLES)
    }

    /// The last place, if there is one: a block's, or a hole.
    fn top(&self, class: Class) -> Option<Place> {
        let slab = *self.slabs.last()?;
        Some(Place((slab as usize * SLAB_GRANULES + (self.last - 1) * class.granules()) as u32))
    }
}

/// The memory of all index nodes of a shard.
pub struct IndexArena {
    chunks: Chunks,
    stacks: [Stack; CLASSES],
    /// Where each block is; of a free number, the next free one.
    places: Vec<Box<[u32]>>,
    /// Numbers ever given out.
    numbers: u32,
    free_number: u32,
    used_granules: usize,
    changes: u64,
}

impl Default for IndexArena {
    fn default() -> IndexArena {
        IndexArena::new()
    }
}

/// Bytes of memory that a node of so many bytes takes.
pub(super) fn block_bytes(bytes: usize) -> usize {
    Class::of(bytes).granules() * GRANULE_BYTES
}

impl IndexArena {
    /// No memory.
    pub const fn new() -> IndexArena {
        IndexArena {
            chunks: Chunks::new(),
            stacks: [Stack::EMPTY; CLASSES],
            places: Vec::new(),
            numbers: 0,
            free_number: Handle::NONE.0,
            used_granules: 0,
            changes: 0,
        }
    }

    /// Bytes of all blocks in use.
    pub fn used_bytes(&self) -> usize {
        self.used_granules * GRANULE_BYTES
    }

    /// Bytes that the arena holds, what is free and bookkeeping too. What was never used of a chunk is not
    /// in it: it takes no memory yet.
    pub fn held_bytes(&self) -> usize {
        self.chunks.held_bytes() + self.numbers as usize * size_of::<u32>()
    }

    /// Where a block lies, until something changes.
    #[inline]
    fn place(&self, block: Handle) -> Place {
        let number = block.0 as usize;
        Place(self.places[number / PAGE_PLACES][number % PAGE_PLACES])
    }

    fn set_place(&mut self, block: Handle, place: u32) {
        let number = block.0 as usize;
        self.places[number / PAGE_PLACES][number % PAGE_PLACES] = place;
    }

    /// A block and what lies behind it.
    #[inline]
    pub(super) fn bytes(&self, block: Handle) -> &[u8] {
        self.chunks.bytes(self.place(block))
    }

    /// Counts changes of nodes: where it is as before, what was looked up still holds.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A block and what lies behind it, to be changed within the block.
    pub(super) fn bytes_mut(&mut self, block: Handle) -> &mut [u8] {
        self.changes += 1;
        let place = self.place(block);
        self.chunks.bytes_mut(place)
    }

    /// A new block with these contents.
    pub(super) fn store(&mut self, contents: &[u8]) -> Handle {
        let block = self.new_number();
        let place = self.push(Class::of(contents.len()), block);
        self.set_place(block, place.0);
        self.bytes_mut(block)[..contents.len()].copy_from_slice(contents);
        block
    }

    /// Makes a block of `old` bytes one of `new` bytes; its contents stay as far as they fit.
    pub(super) fn resize(&mut self, block: Handle, old: usize, new: usize) {
        if let Some((from, to)) = self.begin_move(block, old, new) {
            self.chunks.copy(from, to, old.min(new));
            self.end_move(old, from);
        }
    }

    /// Replaces the contents of a block, which had `old` bytes.
    pub(super) fn replace(&mut self, block: Handle, old: usize, contents: &[u8]) {
        if let Some((from, _)) = self.begin_move(block, old, contents.len()) {
            self.end_move(old, from);
        }
        self.bytes_mut(block)[..contents.len()].copy_from_slice(contents);
    }

    /// Where a block of `old` bytes becomes one of `new` bytes: from where and to where it moves, if it does.
    fn begin_move(&mut self, block: Handle, old: usize, new: usize) -> Option<(Place, Place)> {
        let (before, after) = (Class::of(old), Class::of(new));
        if before == after {
            return None;
        }
        let from = self.place(block);
        let to = self.push(after, block);
        self.set_place(block, to.0);
        self.changes += 1;
        Some((from, to))
    }

    /// Makes a block of `old` bytes one of `new`. Where it moves, `copy` gets what it held and where it goes, and the
    /// answer is yes; else nothing happens.
    pub(super) fn copied(
        &mut self,
        block: Handle,
        (old, new): (usize, usize),
        copy: impl FnOnce(&[u8], &mut [u8]),
    ) -> bool {
        let Some((from, to)) = self.begin_move(block, old, new) else { return false };
        let (before, after) = self.chunks.both(from, to);
        copy(&before[..old], &mut after[..new]);
        self.end_move(old, from);
        true
    }

    fn end_move(&mut self, old: usize, from: Place) {
        self.pop(Class::of(old), from);
    }

    /// Gives a block of so many bytes back.
    pub(super) fn free(&mut self, block: Handle, bytes: usize) {
        self.changes += 1;
        let place = self.place(block);
        self.set_place(block, self.free_number);
        self.free_number = block.0;
        self.pop(Class::of(bytes), place);
        if self.used_granules == 0 {
            *self = IndexArena { changes: self.changes, ..IndexArena::new() };
        }
    }

    fn new_number(&mut self) -> Handle {
        let free = Handle(self.free_number);
        if free != Handle::NONE {
            self.free_number = self.place(free).0;
            return free;
        }
        let number = self.numbers;
        assert!(number < Handle::NONE.0, "an arena has less than 2^32 blocks");
        if (number as usize).is_multiple_of(PAGE_PLACES) {
            self.places.push(vec![0; PAGE_PLACES].into());
        }
        self.numbers += 1;
        Handle(number)
    }

    /// A place for a block: the latest hole, or behind all others of its length.
    fn push(&mut self, class: Class, block: Handle) -> Place {
        let granules = class.granules();
        self.used_granules += granules;
        let stack = &mut self.stacks[usize::from(class.0)];
        let place = stack.holes.pop().unwrap_or_else(|| {
            if stack.slabs.is_empty() || stack.last == class.blocks_per_slab() {
                let slab = self.chunks.take_slab(class.0, stack.slabs.len() as u32);
                stack.slabs.push(slab);
                stack.last = 0;
            }
            stack.last += 1;
            let place = stack.top(class).expect("there is one now");
            self.chunks.touch(place, granules);
            place
        });
        self.set_owner(place, granules, block);
        place
    }

    /// A block's place is no longer needed.
    fn pop(&mut self, class: Class, place: Place) {
        self.used_granules -= class.granules();
        self.set_owner(place, class.granules(), Handle::NONE);
        self.stacks[usize::from(class.0)].holes.push(place);
        loop {
            let stack = &self.stacks[usize::from(class.0)];
            if stack.holes.len() <= stack.most_holes(class) {
                return;
            }
            self.close_a_hole(class);
        }
    }

    /// The last block of a length takes the place of the oldest hole, unless it is one itself.
    fn close_a_hole(&mut self, class: Class) {
        let granules = class.granules();
        let stack = &mut self.stacks[usize::from(class.0)];
        let last = stack.top(class).expect("a hole lies in a slab");
        if let Some(at) = stack.holes.iter().position(|hole| *hole == last) {
            stack.holes.remove(at);
        } else {
            let hole = stack.holes.remove(0);
            self.chunks.copy(last, hole, granules * GRANULE_BYTES);
            let moved = self.owner(hole, granules);
            assert_eq!(self.place(moved), last, "a block knows whose it is");
            self.set_place(moved, hole.0);
        }
        let stack = &mut self.stacks[usize::from(class.0)];
        stack.last -= 1;
        if stack.last == 0 {
            let slab = stack.slabs.pop().expect("the last block lay in it");
            stack.last = if stack.slabs.is_empty() { 0 } else { class.blocks_per_slab() };
            self.chunks.free_slab(slab);
            self.move_a_slab();
        }
    }

    /// Where much is free, moves a slab out of the chunk that holds least: one at a time, so that no change takes long.
    fn move_a_slab(&mut self) {
        let Some(moved) = self.chunks.slab_to_move() else { return };
        let class = Class(moved.class);
        let stack = &mut self.stacks[usize::from(moved.class)];
        let is_last = moved.at as usize + 1 == stack.slabs.len();
        let blocks = if is_last { stack.last } else { class.blocks_per_slab() };
        let to = self.chunks.move_slab(moved.slab, blocks * class.granules());
        stack.slabs[moved.at as usize] = to;
        for i in 0..blocks {
            let offset = (i * class.granules()) as u32;
            let place = Place(to * SLAB_GRANULES as u32 + offset);
            let block = self.owner(place, class.granules());
            let was = Place(moved.slab * SLAB_GRANULES as u32 + offset);
            if block == Handle::NONE {
                let mut holes = self.stacks[usize::from(moved.class)].holes.iter_mut();
                *holes.find(|hole| **hole == was).expect("a place of no block is a hole") = place;
                continue;
            }
            assert_eq!(self.place(block), was, "a block knows whose it is");
            self.set_place(block, place.0);
        }
    }

    fn owner(&self, place: Place, granules: usize) -> Handle {
        let end = granules * GRANULE_BYTES;
        let mut raw = [0; HANDLE_BYTES];
        raw.copy_from_slice(&self.chunks.bytes(place)[end - HANDLE_BYTES..end]);
        Handle(u32::from_le_bytes(raw))
    }

    fn set_owner(&mut self, place: Place, granules: usize, block: Handle) {
        let end = granules * GRANULE_BYTES;
        self.chunks.bytes_mut(place)[end - HANDLE_BYTES..end].copy_from_slice(&block.0.to_le_bytes());
    }
}
