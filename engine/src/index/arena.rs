//! The memory of all index nodes of a shard: blocks of whole granules in large chunks.
//!
//! A block has exactly as many granules as its node needs, grows in place where its neighbour is free,
//! and gives back what it no longer needs; free neighbours are joined at once (boundary tags: D. E.
//! Knuth, The Art of Computer Programming 1, 2.5, algorithm C). So there is no header, no size class
//! and no pointer per node: a handle is four bytes, and a node begins on a cache line.
//!
//! ```text
//! free block: granules u32 | previous in list u32 | next in list u32 | ... | granules u32 (its last bytes)
//! ```

/// Unit of allocation: a cache line.
pub(super) const GRANULE_BYTES: usize = 64;
/// One huge page, where the system gives such.
const CHUNK_BYTES: usize = 2 << 20;
const CHUNK_GRANULES: usize = CHUNK_BYTES / GRANULE_BYTES;
/// Blocks shorter than this have a list for each length, the others one together.
const BINS: usize = 128;

/// Largest block, in bytes.
pub(super) const MAX_BLOCK_BYTES: usize = 64 * 1024;

const _: () = assert!(MAX_BLOCK_BYTES < CHUNK_BYTES && BINS == u128::BITS as usize);

/// A block of an [`IndexArena`].
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

    fn chunk(self) -> usize {
        self.0 as usize / CHUNK_GRANULES
    }

    fn granule(self) -> usize {
        self.0 as usize % CHUNK_GRANULES
    }

    fn after(self, granules: usize) -> Handle {
        Handle(self.0 + granules as u32)
    }
}

#[derive(Default)]
struct Chunk {
    /// Empty, or the granules behind `skip` bytes that bring them to a cache line.
    memory: Vec<u8>,
    skip: usize,
    /// A bit for the first and the last granule of every free block.
    borders: Vec<u64>,
    /// Granules from here on were never used.
    top: usize,
    used: usize,
}

impl Chunk {
    fn new() -> Chunk {
        let memory = vec![0; CHUNK_BYTES + GRANULE_BYTES];
        let skip = memory.as_ptr().align_offset(GRANULE_BYTES);
        // No promise of align_offset says that it finds a way; without one, nodes are merely slower.
        let skip = if skip < GRANULE_BYTES { skip } else { 0 };
        Chunk { memory, skip, borders: vec![0; CHUNK_GRANULES / 64], top: 0, used: 0 }
    }

    fn is_border(&self, granule: usize) -> bool {
        self.borders[granule / 64] >> (granule % 64) & 1 == 1
    }

    fn set_borders(&mut self, first: usize, granules: usize, free: bool) {
        for granule in [first, first + granules - 1] {
            let bit = 1 << (granule % 64);
            let word = &mut self.borders[granule / 64];
            *word = if free { *word | bit } else { *word & !bit };
        }
    }

    fn word(&self, at: usize) -> u32 {
        let at = self.skip + at;
        let mut raw = [0; 4];
        raw.copy_from_slice(&self.memory[at..at + 4]);
        u32::from_le_bytes(raw)
    }

    fn set_word(&mut self, at: usize, value: u32) {
        let at = self.skip + at;
        self.memory[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// The memory of all index nodes of a shard.
pub struct IndexArena {
    chunks: Vec<Chunk>,
    /// Chunks that have given their memory back.
    vacant: Vec<usize>,
    /// Where new blocks are taken from when no free one fits.
    current: usize,
    /// The first free block of each length; the last list is of all longer ones.
    bins: [Handle; BINS],
    /// Which lists are not empty.
    filled: u128,
    used_granules: usize,
    changes: u64,
}

impl Default for IndexArena {
    fn default() -> IndexArena {
        IndexArena::new()
    }
}

/// Granules of a block that holds so many bytes.
pub(super) fn granules_of(bytes: usize) -> usize {
    bytes.div_ceil(GRANULE_BYTES)
}

fn bin_of(granules: usize) -> usize {
    granules.min(BINS - 1)
}

impl IndexArena {
    /// No memory.
    pub const fn new() -> IndexArena {
        let bins = [Handle::NONE; BINS];
        IndexArena {
            chunks: Vec::new(),
            vacant: Vec::new(),
            current: 0,
            bins,
            filled: 0,
            used_granules: 0,
            changes: 0,
        }
    }

    /// Bytes of all blocks in use.
    pub fn used_bytes(&self) -> usize {
        self.used_granules * GRANULE_BYTES
    }

    /// Bytes that the arena holds, free blocks and bookkeeping too. What was never used of a chunk is not
    /// in it: it takes no memory yet.
    pub fn held_bytes(&self) -> usize {
        let held = |chunk: &Chunk| chunk.top * GRANULE_BYTES + chunk.borders.len() * 8 + size_of::<Chunk>();
        self.chunks.iter().map(held).sum()
    }

    /// A block and what lies behind it.
    pub(super) fn bytes(&self, block: Handle) -> &[u8] {
        let chunk = &self.chunks[block.chunk()];
        &chunk.memory[chunk.skip + block.granule() * GRANULE_BYTES..]
    }

    /// Counts changes of nodes: where it is as before, what was looked up still holds.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A block and what lies behind it, to be changed within the block.
    pub(super) fn bytes_mut(&mut self, block: Handle) -> &mut [u8] {
        self.changes += 1;
        let chunk = &mut self.chunks[block.chunk()];
        &mut chunk.memory[chunk.skip + block.granule() * GRANULE_BYTES..]
    }

    /// A new block with these contents.
    pub(super) fn store(&mut self, contents: &[u8]) -> Handle {
        let block = self.allocate(granules_of(contents.len()));
        self.bytes_mut(block)[..contents.len()].copy_from_slice(contents);
        block
    }

    /// A block of so many granules, with any contents.
    fn allocate(&mut self, granules: usize) -> Handle {
        assert!((1..=MAX_BLOCK_BYTES / GRANULE_BYTES).contains(&granules), "a block of {granules} granules");
        self.used_granules += granules;
        let fitting = self.filled & (u128::MAX << bin_of(granules));
        if fitting != 0 {
            let mut free = self.bins[fitting.trailing_zeros() as usize];
            while free != Handle::NONE && self.free_granules(free) < granules {
                free = self.link(free, NEXT);
            }
            if free != Handle::NONE {
                self.take_front(free, granules);
                self.chunks[free.chunk()].used += granules;
                return free;
            }
        }
        if self.chunks.get(self.current).is_none_or(|chunk| chunk.top + granules > CHUNK_GRANULES) {
            self.new_current();
        }
        let chunk = &mut self.chunks[self.current];
        let block = Handle((self.current * CHUNK_GRANULES + chunk.top) as u32);
        chunk.top += granules;
        chunk.used += granules;
        block
    }

    /// Begins a chunk; what is left of the one before becomes a free block.
    fn new_current(&mut self) {
        if let Some(chunk) = self.chunks.get_mut(self.current) {
            let (mut top, mut rest) = (chunk.top, CHUNK_GRANULES - chunk.top);
            chunk.top = CHUNK_GRANULES;
            if rest > 0 {
                let first = self.current * CHUNK_GRANULES;
                if top > 0 && self.chunks[self.current].is_border(top - 1) {
                    // Free neighbours are one.
                    let before = self.chunks[self.current].word(top * GRANULE_BYTES - 4) as usize;
                    top -= before;
                    rest += self.remove_free(Handle((first + top) as u32));
                }
                self.add_free(Handle((first + top) as u32), rest);
            }
        }
        self.current = self.vacant.pop().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            self.chunks.len() - 1
        });
        assert!(self.current < (u32::MAX as usize) / CHUNK_GRANULES, "handles of 32 bits run out");
        self.chunks[self.current] = Chunk::new();
    }

    /// Makes a block of `old` bytes one of `new` bytes; its contents stay as far as they fit.
    pub(super) fn resize(&mut self, block: Handle, old: usize, new: usize) -> Handle {
        let (old, new) = (granules_of(old), granules_of(new));
        if new <= old {
            if new < old {
                self.free_granules_at(block.after(new), old - new);
            }
            return block;
        }
        if self.extend(block, old, new - old) {
            return block;
        }
        let to = self.allocate(new);
        self.copy(block, to, old * GRANULE_BYTES);
        self.free_granules_at(block, old);
        to
    }

    /// Takes granules behind a block, if they are free.
    fn extend(&mut self, block: Handle, old: usize, more: usize) -> bool {
        let end = block.granule() + old;
        let chunk = &mut self.chunks[block.chunk()];
        if end == chunk.top {
            if end + more > CHUNK_GRANULES {
                return false;
            }
            chunk.top += more;
        } else {
            let behind = block.after(old);
            if !chunk.is_border(end) || self.free_granules(behind) < more {
                return false;
            }
            self.take_front(behind, more);
        }
        self.chunks[block.chunk()].used += more;
        self.used_granules += more;
        true
    }

    fn copy(&mut self, from: Handle, to: Handle, bytes: usize) {
        let (from_chunk, to_chunk) = (from.chunk(), to.chunk());
        let place = |chunk: &Chunk, block: Handle| {
            let at = chunk.skip + block.granule() * GRANULE_BYTES;
            at..at + bytes
        };
        let source = place(&self.chunks[from_chunk], from);
        let target = place(&self.chunks[to_chunk], to);
        match self.chunks.get_disjoint_mut([from_chunk, to_chunk]) {
            Ok([from, to]) => to.memory[target].copy_from_slice(&from.memory[source]),
            Err(_) => self.chunks[from_chunk].memory.copy_within(source, target.start),
        }
    }

    /// Gives a block of so many bytes back.
    pub(super) fn free(&mut self, block: Handle, bytes: usize) {
        self.free_granules_at(block, granules_of(bytes));
    }

    fn free_granules_at(&mut self, mut block: Handle, mut granules: usize) {
        let (at, first) = (block.chunk(), block.granule());
        self.used_granules -= granules;
        self.changes += 1;
        self.chunks[at].used -= granules;
        if self.chunks[at].used == 0 {
            return self.vacate(at, first, granules);
        }
        let end = first + granules;
        if end < self.chunks[at].top && self.chunks[at].is_border(end) {
            let behind = Handle((at * CHUNK_GRANULES + end) as u32);
            granules += self.remove_free(behind);
        }
        if first > 0 && self.chunks[at].is_border(first - 1) {
            let before = self.chunks[at].word(first * GRANULE_BYTES - 4);
            block = Handle(block.0 - before);
            granules += self.remove_free(block);
        }
        self.add_free(block, granules);
    }

    /// The last block of a chunk was freed: its memory goes back, but the current one's may be needed at once.
    fn vacate(&mut self, at: usize, first: usize, granules: usize) {
        // All that is free lies before and behind the last block.
        if first > 0 {
            self.remove_free(Handle((at * CHUNK_GRANULES) as u32));
        }
        let end = first + granules;
        if end < self.chunks[at].top {
            self.remove_free(Handle((at * CHUNK_GRANULES + end) as u32));
        }
        if at == self.current {
            self.chunks[at].top = 0;
        } else {
            self.chunks[at] = Chunk::default();
            self.vacant.push(at);
        }
    }

    fn free_granules(&self, free: Handle) -> usize {
        self.chunks[free.chunk()].word(free.granule() * GRANULE_BYTES) as usize
    }

    fn link(&self, free: Handle, which: usize) -> Handle {
        Handle(self.chunks[free.chunk()].word(free.granule() * GRANULE_BYTES + which))
    }

    fn set_link(&mut self, free: Handle, which: usize, to: Handle) {
        self.chunks[free.chunk()].set_word(free.granule() * GRANULE_BYTES + which, to.0);
    }

    fn add_free(&mut self, free: Handle, granules: usize) {
        let bin = bin_of(granules);
        let next = self.bins[bin];
        let (at, first) = (free.chunk(), free.granule());
        let chunk = &mut self.chunks[at];
        chunk.set_borders(first, granules, true);
        chunk.set_word((first + granules) * GRANULE_BYTES - 4, granules as u32);
        chunk.set_word(first * GRANULE_BYTES, granules as u32);
        self.set_link(free, PREVIOUS, Handle::NONE);
        self.set_link(free, NEXT, next);
        if next != Handle::NONE {
            self.set_link(next, PREVIOUS, free);
        }
        self.bins[bin] = free;
        self.filled |= 1 << bin;
    }

    /// Takes a free block out of its list, and says how long it is.
    fn remove_free(&mut self, free: Handle) -> usize {
        let granules = self.free_granules(free);
        let bin = bin_of(granules);
        let (previous, next) = (self.link(free, PREVIOUS), self.link(free, NEXT));
        if previous == Handle::NONE {
            assert_eq!(self.bins[bin], free, "a free block without a previous one heads its list");
            self.bins[bin] = next;
            if next == Handle::NONE {
                self.filled &= !(1 << bin);
            }
        } else {
            self.set_link(previous, NEXT, next);
        }
        if next != Handle::NONE {
            self.set_link(next, PREVIOUS, previous);
        }
        self.chunks[free.chunk()].set_borders(free.granule(), granules, false);
        granules
    }

    /// Takes the first granules of a free block; the rest stays free.
    fn take_front(&mut self, free: Handle, granules: usize) {
        let whole = self.remove_free(free);
        assert!(whole >= granules, "{granules} granules out of {whole}");
        if whole > granules {
            self.add_free(free.after(granules), whole - granules);
        }
    }
}

/// Where the links of a free block lie.
const PREVIOUS: usize = 4;
const NEXT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn xorshift(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 20) as usize
    }

    /// Every granule is in one block, in use or free; free neighbours are one; lists and counts agree.
    fn verify(arena: &IndexArena, blocks: &[(Handle, usize, u8)]) {
        let mut owners: Vec<Vec<u8>> = arena.chunks.iter().map(|chunk| vec![0; chunk.top]).collect();
        for (block, bytes, _) in blocks {
            let at = block.granule();
            for owner in &mut owners[block.chunk()][at..at + granules_of(*bytes)] {
                assert_eq!(std::mem::replace(owner, 1), 0, "blocks overlap");
            }
        }
        for (bin, first) in arena.bins.iter().enumerate() {
            assert_eq!(arena.filled >> bin & 1 == 1, *first != Handle::NONE, "mark of list {bin}");
            let mut free = *first;
            while free != Handle::NONE {
                let granules = arena.free_granules(free);
                assert_eq!(bin_of(granules), bin);
                let owners = &mut owners[free.chunk()];
                let range = free.granule()..free.granule() + granules;
                assert!(owners.get(range.end) != Some(&2), "free neighbours");
                assert!(range.start == 0 || owners[range.start - 1] != 2, "free neighbours");
                for owner in &mut owners[range] {
                    assert_eq!(std::mem::replace(owner, 2), 0, "a free block overlaps");
                }
                free = arena.link(free, NEXT);
            }
        }
        assert!(owners.iter().flatten().all(|owner| *owner != 0), "a granule is nobody's");
        let used: usize = blocks.iter().map(|(_, bytes, _)| granules_of(*bytes)).sum();
        assert_eq!(arena.used_granules, used);
        assert_eq!(arena.chunks.iter().map(|chunk| chunk.used).sum::<usize>(), used);
    }

    #[test]
    fn blocks_keep_their_contents_and_never_overlap() {
        for seed in 1..=4u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut arena = IndexArena::new();
            let mut blocks: Vec<(Handle, usize, u8)> = Vec::new();
            let intact = |arena: &IndexArena, (block, bytes, fill): (Handle, usize, u8), upto: usize| {
                assert!(arena.bytes(block)[..bytes.min(upto)].iter().all(|byte| *byte == fill));
            };
            for (most, removals) in [(9_000, 20), (3_000, 50), (20_000, 60), (3_000, 95)] {
                for step in 0..3_000 {
                    let (bytes, fill) = (1 + xorshift(&mut state) % most, step as u8);
                    let at = xorshift(&mut state) % blocks.len().max(1);
                    if !blocks.is_empty() && xorshift(&mut state) % 100 < removals {
                        let block = blocks.swap_remove(at);
                        intact(&arena, block, usize::MAX);
                        arena.free(block.0, block.1);
                    } else if !blocks.is_empty() && xorshift(&mut state).is_multiple_of(2) {
                        let (block, old, fill) = blocks[at];
                        let block = arena.resize(block, old, bytes);
                        intact(&arena, (block, old, fill), bytes);
                        arena.bytes_mut(block)[..bytes].fill(fill);
                        blocks[at] = (block, bytes, fill);
                    } else {
                        blocks.push((arena.store(&vec![fill; bytes]), bytes, fill));
                    }
                    if step % 500 == 0 {
                        verify(&arena, &blocks);
                    }
                }
                verify(&arena, &blocks);
            }
            for block in blocks.drain(..) {
                intact(&arena, block, usize::MAX);
                arena.free(block.0, block.1);
            }
            verify(&arena, &blocks);
            assert_eq!(arena.used_bytes(), 0);
            assert!(arena.held_bytes() < 16 * 1024, "{} bytes held for nothing", arena.held_bytes());
        }
    }

    #[test]
    fn a_block_begins_on_a_cache_line() {
        let mut arena = IndexArena::new();
        for n in 1..100 {
            let block = arena.store(&vec![1; n * 7]);
            assert_eq!(arena.bytes(block).as_ptr().align_offset(GRANULE_BYTES), 0);
        }
    }
}
