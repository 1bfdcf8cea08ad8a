//! Chunks of memory, cut into slabs. Slabs are taken from the fullest chunk, so that others become empty.

use super::pages::{HUGE_PAGE_BYTES, Pages};
use super::{GRANULE_BYTES, Place};

const CHUNK_BYTES: usize = HUGE_PAGE_BYTES;
const CHUNK_GRANULES: usize = CHUNK_BYTES / GRANULE_BYTES;
/// Slabs of a chunk.
const CHUNK_SLABS: usize = 16;
/// Granules of a slab.
pub(super) const SLAB_GRANULES: usize = CHUNK_GRANULES / CHUNK_SLABS;
/// Slabs that may be free before chunks are emptied and given back.
const SPARE_SLABS: usize = CHUNK_SLABS;

struct Chunk {
    /// None of one that has given its memory back.
    memory: Option<Pages>,
    /// A bit for each free slab.
    free: u16,
    /// Its place in the list of chunks with as many free slabs.
    at: u32,
}

impl Chunk {
    const VACANT: Chunk = Chunk { memory: None, free: 0, at: 0 };

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], Pages::bytes)
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.as_mut().map_or(&mut [], Pages::bytes_mut)
    }

    fn free_slabs(&self) -> usize {
        self.free.count_ones() as usize
    }
}

/// Where a place lies in its chunk.
#[inline]
fn start_of(place: usize) -> usize {
    place % CHUNK_GRANULES * GRANULE_BYTES
}

/// What a slab is used for.
#[derive(Clone, Copy, Default)]
struct Slab {
    class: u8,
    /// Which of its class's slabs it is.
    at: u32,
    /// Granules from here on were never used.
    touched: u16,
}

/// A slab that should lie elsewhere.
pub(super) struct SlabToMove {
    pub slab: u32,
    pub class: u8,
    /// Which of its class's slabs it is.
    pub at: u32,
}

/// All chunks.
pub(super) struct Chunks {
    chunks: Vec<Chunk>,
    /// Chunks that have given their memory back.
    vacant: Vec<u32>,
    /// Chunks by the number of their free slabs.
    by_free: [Vec<u32>; CHUNK_SLABS + 1],
    slabs: Vec<Slab>,
    free_slabs: usize,
    touched_granules: usize,
}

impl Chunks {
    pub const fn new() -> Chunks {
        Chunks {
            chunks: Vec::new(),
            vacant: Vec::new(),
            by_free: [const { Vec::new() }; CHUNK_SLABS + 1],
            slabs: Vec::new(),
            free_slabs: 0,
            touched_granules: 0,
        }
    }

    /// Bytes that were ever used of the chunks that are there, and bookkeeping.
    pub fn held_bytes(&self) -> usize {
        self.touched_granules * GRANULE_BYTES
            + self.chunks.len() * (size_of::<Chunk>() + CHUNK_SLABS * size_of::<Slab>())
    }

    /// What lies at a place and behind it in its chunk.
    #[inline]
    pub fn bytes(&self, place: Place) -> &[u8] {
        &self.chunks[place.0 as usize / CHUNK_GRANULES].bytes()[start_of(place.0 as usize)..]
    }

    /// The same, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self, place: Place) -> &mut [u8] {
        &mut self.chunks[place.0 as usize / CHUNK_GRANULES].bytes_mut()[start_of(place.0 as usize)..]
    }

    /// What lies at one place, and what lies at another, to be changed.
    pub fn both(&mut self, from: Place, to: Place) -> (&[u8], &mut [u8]) {
        let [a, b] = [from, to].map(|place| place.0 as usize);
        let (at, to_at) = (start_of(a), start_of(b));
        let (of_a, of_b) = (a / CHUNK_GRANULES, b / CHUNK_GRANULES);
        if of_a != of_b {
            let two = self.chunks.get_disjoint_mut([of_a, of_b]);
            let [from, to] = two.expect("both chunks are there");
            return (&from.bytes()[at..], &mut to.bytes_mut()[to_at..]);
        }
        assert_ne!(at, to_at, "two places");
        let (low, high) = self.chunks[of_a].bytes_mut().split_at_mut(at.max(to_at));
        if at < to_at { (&low[at..], high) } else { (high, &mut low[to_at..]) }
    }

    /// Copies what lies at a place.
    pub fn copy(&mut self, from: Place, to: Place, bytes: usize) {
        let (from, to) = self.both(from, to);
        to[..bytes].copy_from_slice(&from[..bytes]);
    }

    /// A block of so many granules is used from now on.
    pub fn touch(&mut self, place: Place, granules: usize) {
        let end = place.0 as usize % SLAB_GRANULES + granules;
        let slab = &mut self.slabs[place.0 as usize / SLAB_GRANULES];
        let more = end.saturating_sub(usize::from(slab.touched));
        slab.touched += more as u16;
        self.touched_granules += more;
    }

    /// A free slab, from now on the `at`th of its class.
    pub fn take_slab(&mut self, class: u8, at: u32) -> u32 {
        let slab = self.pick_slab();
        self.slabs[slab as usize] = Slab { class, at, ..self.slabs[slab as usize] };
        slab
    }

    /// A free slab of the fullest chunk that has one.
    fn pick_slab(&mut self) -> u32 {
        let fullest = self.by_free[1..].iter().find_map(|chunks| chunks.last().copied());
        let chunk = fullest.unwrap_or_else(|| self.new_chunk());
        let slab = self.chunks[chunk as usize].free.trailing_zeros();
        self.set_free(chunk, self.chunks[chunk as usize].free & !(1 << slab));
        self.free_slabs -= 1;
        chunk * CHUNK_SLABS as u32 + slab
    }

    fn new_chunk(&mut self) -> u32 {
        let chunk = self.vacant.pop().unwrap_or_else(|| {
            self.slabs.resize(self.slabs.len() + CHUNK_SLABS, Slab::default());
            self.chunks.push(Chunk::VACANT);
            self.chunks.len() as u32 - 1
        });
        assert!((chunk as usize) < (1 << 32) / CHUNK_GRANULES, "an arena has at most 256 GiB");
        // A small index is not given a huge page, of which it would use little.
        let memory = Some(Pages::new(self.slabs.len() > CHUNK_SLABS));
        self.chunks[chunk as usize] = Chunk { memory, free: 0, at: self.by_free[0].len() as u32 };
        self.by_free[0].push(chunk);
        self.set_free(chunk, u16::MAX);
        self.free_slabs += CHUNK_SLABS;
        chunk
    }

    fn set_free(&mut self, chunk: u32, free: u16) {
        self.unlist(chunk);
        let listed = &mut self.by_free[free.count_ones() as usize];
        let own = &mut self.chunks[chunk as usize];
        (own.free, own.at) = (free, listed.len() as u32);
        listed.push(chunk);
    }

    fn unlist(&mut self, chunk: u32) {
        let own = &self.chunks[chunk as usize];
        let (at, free) = (own.at, own.free_slabs());
        self.by_free[free].swap_remove(at as usize);
        if let Some(moved) = self.by_free[free].get(at as usize) {
            self.chunks[*moved as usize].at = at;
        }
    }

    /// Nothing is in a slab any more.
    pub fn free_slab(&mut self, slab: u32) {
        let (chunk, bit) = (slab / CHUNK_SLABS as u32, slab % CHUNK_SLABS as u32);
        let free = self.chunks[chunk as usize].free;
        assert_eq!(free >> bit & 1, 0, "slab {slab} is freed once");
        self.set_free(chunk, free | 1 << bit);
        self.free_slabs += 1;
        if self.free_slabs >= CHUNK_SLABS + SPARE_SLABS
            && let Some(empty) = self.by_free[CHUNK_SLABS].last().copied()
        {
            self.vacate(empty);
        }
    }

    /// Gives an empty chunk's memory back.
    fn vacate(&mut self, chunk: u32) {
        self.unlist(chunk);
        self.chunks[chunk as usize] = Chunk::VACANT;
        let first = chunk as usize * CHUNK_SLABS;
        for slab in &mut self.slabs[first..first + CHUNK_SLABS] {
            self.touched_granules -= usize::from(slab.touched);
            *slab = Slab::default();
        }
        self.free_slabs -= CHUNK_SLABS;
        self.vacant.push(chunk);
    }

    /// Where more is free than need be: a slab of the emptiest chunk, if there is room in a fuller one.
    pub fn slab_to_move(&self) -> Option<SlabToMove> {
        if self.free_slabs < CHUNK_SLABS + SPARE_SLABS {
            return None;
        }
        let emptiest = self.by_free[1..CHUNK_SLABS].iter().rev().find_map(|chunks| chunks.last().copied())?;
        let fullest = self.by_free[1..].iter().find_map(|chunks| chunks.last().copied())?;
        if emptiest == fullest {
            return None;
        }
        let used = (!self.chunks[emptiest as usize].free).trailing_zeros();
        let slab = emptiest * CHUNK_SLABS as u32 + used;
        let Slab { class, at, .. } = self.slabs[slab as usize];
        Some(SlabToMove { slab, class, at })
    }

    /// Moves the first granules of a slab to one of the fullest chunk, and says which.
    pub fn move_slab(&mut self, slab: u32, granules: usize) -> u32 {
        let Slab { class, at, .. } = self.slabs[slab as usize];
        let to = self.take_slab(class, at);
        let [from_place, to_place] = [slab, to].map(|slab| Place(slab * SLAB_GRANULES as u32));
        self.touch(to_place, granules);
        self.copy(from_place, to_place, granules * GRANULE_BYTES);
        self.free_slab(slab);
        to
    }
}
