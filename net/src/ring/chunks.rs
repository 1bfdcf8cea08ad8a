//! Provided buffers: chunks of memory that the kernel picks from when bytes arrive on any socket.
//!
//! Memory is held per chunk of arrived bytes, not per connection. A chunk belongs to the kernel until
//! a completion names it, then to the holder of the [`Chunk`], until it is recycled.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::memory::Mapping;

/// The one buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// Bytes that arrived, in memory of the pool. Must be recycled.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a chunk that is not recycled is lost to its pool"]
pub struct Chunk {
    id: u16,
    len: u32,
}

impl Chunk {
    /// How many bytes arrived.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing arrived.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The chunks of one ring, registered as its provided-buffer ring.
#[derive(Debug)]
pub struct Chunks {
    data: Mapping,
    entries: Mapping,
    count: u16,
    chunk_bytes: u32,
    tail: u16,
    held: Vec<bool>,
    held_count: u16,
}

impl Chunks {
    /// Maps `count` (a power of two) chunks of `chunk_bytes` and registers them with `uring`.
    pub(super) fn register(uring: &IoUring, count: u16, chunk_bytes: u32) -> io::Result<Chunks> {
        let mut chunks = Chunks::unoffered(count, chunk_bytes)?;
        // SAFETY: `entries` holds `count` entries, is page-aligned, and is unmapped only after the
        // ring that it is registered with (see `Ring`'s field order and `Drop`).
        unsafe {
            let entries = chunks.entries.start() as u64;
            uring.submitter().register_buf_ring_with_flags(entries, count, GROUP, 0)?;
        }
        chunks.offer_all();
        Ok(chunks)
    }

    /// Chunks that no kernel knows, to be filled by [`Chunks::fill`].
    pub(super) fn unregistered(count: u16, chunk_bytes: u32) -> io::Result<Chunks> {
        let mut chunks = Chunks::unoffered(count, chunk_bytes)?;
        chunks.offer_all();
        Ok(chunks)
    }

    fn unoffered(count: u16, chunk_bytes: u32) -> io::Result<Chunks> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} chunks");
        let data = Mapping::new(usize::from(count) * chunk_bytes as usize)?;
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let held = vec![true; usize::from(count)];
        Ok(Chunks { data, entries, count, chunk_bytes, tail: 0, held, held_count: count })
    }

    fn offer_all(&mut self) {
        for id in 0..self.count {
            self.recycle(Chunk { id, len: 0 });
        }
    }

    /// Does what a kernel does when bytes arrive: picks a free chunk, and puts as many in as fit. Only where no
    /// kernel knows the chunks.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> Option<Chunk> {
        let id = self.held.iter().position(|held| !held)?;
        let len = bytes.len().min(self.chunk_bytes as usize);
        let start = self.data.at(id * self.chunk_bytes as usize, len);
        // SAFETY: the range lies in the mapping; the chunk is not held, so nobody reads it, and no kernel
        // writes to it; `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(start, len) }.copy_from_slice(&bytes[..len]);
        Some(self.arrived(id as u16, len as u32))
    }

    /// The bytes that arrived.
    pub fn bytes(&self, chunk: &Chunk) -> &[u8] {
        assert!(self.held[usize::from(chunk.id)], "chunk {} is the kernel's", chunk.id);
        let start = self.data.at(usize::from(chunk.id) * self.chunk_bytes as usize, chunk.len());
        // SAFETY: the range lies in the mapping; a held chunk is not in the kernel's ring, so nobody
        // writes to it until `recycle`, which takes the `Chunk` and `&mut self`.
        unsafe { std::slice::from_raw_parts(start, chunk.len()) }
    }

    /// Gives the chunk back to the kernel.
    pub fn recycle(&mut self, chunk: Chunk) {
        let was_held = std::mem::replace(&mut self.held[usize::from(chunk.id)], false);
        assert!(was_held, "chunk {} is recycled twice", chunk.id);
        self.held_count -= 1;
        let address =
            self.data.at(usize::from(chunk.id) * self.chunk_bytes as usize, self.chunk_bytes as usize);
        let slot = usize::from(self.tail & (self.count - 1));
        let base = self.entries.start().cast::<BufRingEntry>();
        // SAFETY: `slot` is below `count`, which is how many entries the mapping holds; the kernel
        // reads an entry only once the tail has passed it. The tail lies in the first entry's
        // reserved field, which the setters leave alone.
        unsafe {
            let entry = &mut *base.add(slot);
            entry.set_addr(address as u64);
            entry.set_len(self.chunk_bytes);
            entry.set_bid(chunk.id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `base` is the registered ring's first entry; the kernel only reads the tail, and
        // an aligned u16 in shared memory may be stored to atomically.
        unsafe {
            let tail = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Bytes of memory.
    pub fn total_bytes(&self) -> usize {
        self.data.len()
    }

    /// Bytes of one chunk.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes as usize
    }

    /// Whether the kernel has chunks to receive into.
    pub(super) fn any_with_kernel(&self) -> bool {
        self.held_count < self.count
    }

    /// A completion named chunk `id`: it is the process's now.
    pub(super) fn arrived(&mut self, id: u16, len: u32) -> Chunk {
        assert!(len <= self.chunk_bytes, "{len} bytes in a chunk of {}", self.chunk_bytes);
        let was_held = std::mem::replace(&mut self.held[usize::from(id)], true);
        assert!(!was_held, "the kernel used chunk {id}, which it does not own");
        self.held_count += 1;
        Chunk { id, len }
    }

    /// Takes the memory out, so that it can be leaked.
    pub(super) fn into_mappings(self) -> [Mapping; 2] {
        [self.data, self.entries]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_kept_until_its_chunk_is_recycled() {
        let mut chunks = Chunks::unregistered(4, 64).expect("memory");
        let first = chunks.fill(b"first").expect("all are free");
        let second = chunks.fill(&[9; 100]).expect("three are free");
        assert_eq!((chunks.bytes(&first), chunks.bytes(&second)), (&b"first"[..], &[9; 64][..]));
        for round in 0..20u8 {
            let chunk = chunks.fill(&[round; 64]).expect("two are free");
            assert_eq!(chunks.bytes(&chunk), [round; 64]);
            assert_eq!(chunks.bytes(&first), b"first", "somebody else's bytes");
            chunks.recycle(chunk);
        }
        let others: Vec<Chunk> = std::iter::from_fn(|| chunks.fill(b"more")).collect();
        assert_eq!(others.len(), 2, "a chunk is given out twice, or not at all");
        others.into_iter().chain([first, second]).for_each(|chunk| chunks.recycle(chunk));
        assert!(chunks.fill(b"again").is_some());
    }
}
