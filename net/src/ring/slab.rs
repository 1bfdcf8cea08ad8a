//! The memory slab: block-aligned buffers that drive operations and sends use in place.
//!
//! Each buffer has one owner at a time. While the kernel owns one, its bytes cannot be had: that is
//! what makes the safe calls of this room safe.

use std::io;

use super::buddy::{Buddy, Zone};
use super::memory::Mapping;

/// Alignment and unit of every buffer, in bytes.
pub const BLOCK_BYTES: usize = 4096;
/// Longest buffer, in bytes.
pub const MAX_BUFFER_BYTES: usize = BLOCK_BYTES * super::buddy::LONGEST_RUN as usize;
/// Buffers up to this many bytes prefer registered memory: those of single reads.
const SMALL_BUFFER_BYTES: usize = 32 * 1024;

/// A buffer of the slab: the number of its first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlabBuffer(pub u32);

/// Who may touch a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Nobody: it is free.
    Pool,
    /// The process.
    User,
    /// The kernel reads from it, or writes to it.
    Kernel,
}

/// The buffers of one ring.
#[derive(Debug)]
pub struct Slab {
    mapping: Mapping,
    buddy: Buddy,
    owners: Vec<Owner>,
    registered_bytes: usize,
    refused: u64,
}

impl Slab {
    /// Maps `bytes` (rounded up to blocks) of memory, of which the first `to_register` are going to be
    /// registered: those have small pages, because of a huge page the whole counts against memlock.
    pub(super) fn new(bytes: usize, to_register: usize) -> io::Result<Slab> {
        let blocks = bytes.div_ceil(BLOCK_BYTES).max(1);
        let mapping = Mapping::new(blocks * BLOCK_BYTES)?;
        mapping.prefer_pages(to_register.div_ceil(BLOCK_BYTES) * BLOCK_BYTES);
        let count = u32::try_from(blocks).map_err(|_| io::Error::other("a slab has at most 16 TiB"))?;
        Ok(Slab {
            mapping,
            buddy: Buddy::new(count, 0),
            owners: vec![Owner::Pool; blocks],
            registered_bytes: 0,
            refused: 0,
        })
    }

    /// The first `bytes` are registered with the ring now. Only before the first `acquire`.
    pub(super) fn set_registered(&mut self, bytes: usize) {
        let blocks = self.owners.len() as u32;
        assert_eq!(self.buddy.free_blocks(), blocks, "registration comes before use");
        assert!(bytes.is_multiple_of(BLOCK_BYTES) && bytes <= self.mapping.len(), "{bytes} registered bytes");
        self.registered_bytes = bytes;
        self.buddy = Buddy::new(blocks, (bytes / BLOCK_BYTES) as u32);
    }

    /// A buffer of at least `len` bytes, or `None` where there is none. Contents are undefined.
    pub fn acquire(&mut self, len: usize) -> Option<SlabBuffer> {
        let blocks = u32::try_from(len.div_ceil(BLOCK_BYTES).max(1)).ok()?;
        let zone = if len <= SMALL_BUFFER_BYTES { Zone::Low } else { Zone::High };
        let Some(block) = Buddy::order_for(blocks).and_then(|order| self.buddy.take(order, zone)) else {
            self.refused += 1;
            return None;
        };
        assert_eq!(self.owners[block as usize], Owner::Pool, "block {block} was not free");
        self.owners[block as usize] = Owner::User;
        Some(SlabBuffer(block))
    }

    /// Gives a buffer back. The caller must own it, and the kernel must be done with it.
    pub fn release(&mut self, buffer: SlabBuffer) {
        self.change_owner(buffer, Owner::User, Owner::Pool);
        self.buddy.give(buffer.0);
    }

    /// The buffer's bytes.
    pub fn bytes(&self, buffer: SlabBuffer) -> &[u8] {
        let (start, len) = self.owned_range(buffer);
        // SAFETY: the range lies in the mapping and belongs to the process (`owned_range` asserts
        // both), so the kernel does not write to it; `&self` keeps `bytes_mut` away.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The buffer's bytes, to be written.
    pub fn bytes_mut(&mut self, buffer: SlabBuffer) -> &mut [u8] {
        let (start, len) = self.owned_range(buffer);
        // SAFETY: as in `bytes`, and `&mut self` makes this the only reference into the slab.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> usize {
        self.buddy.free_blocks() as usize * BLOCK_BYTES
    }

    /// Bytes in all.
    pub fn total_bytes(&self) -> usize {
        self.mapping.len()
    }

    /// Bytes that are registered with the ring as fixed buffers.
    pub fn registered_bytes(&self) -> usize {
        self.registered_bytes
    }

    /// How often `acquire` had nothing to give.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Hands `buffer` to the kernel; gives the address of `len` bytes at `start` in it, and whether
    /// they are registered.
    pub(super) fn lend(&mut self, buffer: SlabBuffer, start: usize, len: usize) -> (*mut u8, bool) {
        let (_, total) = self.owned_range(buffer);
        assert!(start <= total && len <= total - start, "{len} bytes at {start} of a buffer of {total}");
        self.owners[buffer.0 as usize] = Owner::Kernel;
        let offset = buffer.0 as usize * BLOCK_BYTES;
        (self.mapping.at(offset + start, len), offset + total <= self.registered_bytes)
    }

    /// Takes `buffer` back from the kernel.
    pub(super) fn reclaim(&mut self, buffer: SlabBuffer) {
        self.change_owner(buffer, Owner::Kernel, Owner::User);
    }

    /// The address of `len` bytes at `start` of a buffer that the kernel has.
    pub(super) fn lent_address(&self, buffer: SlabBuffer, start: usize, len: usize) -> *mut u8 {
        assert_eq!(self.owners[buffer.0 as usize], Owner::Kernel, "buffer {} is not lent", buffer.0);
        let total = BLOCK_BYTES << self.buddy.taken_order(buffer.0);
        assert!(start <= total && len <= total - start, "{len} bytes at {start} of a buffer of {total}");
        self.mapping.at(buffer.0 as usize * BLOCK_BYTES + start, len)
    }

    /// The first bytes of a lent buffer. Only where no kernel has the slab (see `UnpluggedMemory`).
    pub(super) fn lent_bytes(&self, buffer: SlabBuffer, len: usize) -> &[u8] {
        let start = self.lent_address(buffer, 0, len);
        // SAFETY: the range lies in the mapping (`lent_address` asserts it); no kernel writes to it, and
        // `fill_lent` takes `&mut self`.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// Writes to a lent buffer. Only where no kernel has the slab.
    pub(super) fn fill_lent(&mut self, buffer: SlabBuffer, bytes: &[u8]) {
        let start = self.lent_address(buffer, 0, bytes.len());
        // SAFETY: as in `lent_bytes`, and `&mut self` makes this the only reference into the slab.
        unsafe { std::slice::from_raw_parts_mut(start, bytes.len()) }.copy_from_slice(bytes);
    }

    pub(super) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Takes the memory out, so that it can be leaked.
    pub(super) fn into_mapping(self) -> Mapping {
        self.mapping
    }

    fn owned_range(&self, buffer: SlabBuffer) -> (*mut u8, usize) {
        assert!(self.buddy.is_taken(buffer.0), "buffer {} is not in use", buffer.0);
        assert_eq!(self.owners[buffer.0 as usize], Owner::User, "buffer {} is the kernel's", buffer.0);
        let len = BLOCK_BYTES << self.buddy.taken_order(buffer.0);
        (self.mapping.at(buffer.0 as usize * BLOCK_BYTES, len), len)
    }

    fn change_owner(&mut self, buffer: SlabBuffer, from: Owner, to: Owner) {
        let owner = &mut self.owners[buffer.0 as usize];
        assert_eq!(*owner, from, "buffer {} goes from {from:?} to {to:?}", buffer.0);
        *owner = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_long_enough_and_bounded() {
        let mut slab = Slab::new(4 << 20, 2 << 20).expect("memory");
        slab.set_registered(2 << 20);
        let small = slab.acquire(1).expect("a block");
        assert_eq!(slab.bytes(small).len(), BLOCK_BYTES);
        assert_eq!(slab.bytes(small).as_ptr() as usize % BLOCK_BYTES, 0);
        assert!(small.0 < 512, "small buffers come from registered memory");
        let big = slab.acquire(1_100_000).expect("a big buffer");
        assert!(big.0 >= 512 && slab.bytes(big).len() >= 1_100_000);
        assert!(slab.acquire(MAX_BUFFER_BYTES).is_none());
        assert!(slab.acquire(MAX_BUFFER_BYTES + 1).is_none());
        assert_eq!(slab.refused(), 2);
        slab.bytes_mut(small).fill(7);
        slab.release(small);
        slab.release(big);
        assert_eq!(slab.free_bytes(), slab.total_bytes());
    }

    #[test]
    fn lent_buffers_are_read_and_filled_in_the_kernels_place() {
        let mut slab = Slab::new(1 << 20, 0).expect("memory");
        let (written, read) = (slab.acquire(8192).expect("room"), slab.acquire(4096).expect("room"));
        slab.bytes_mut(written).fill(3);
        slab.lend(written, 4096, 4096);
        slab.lend(read, 0, 4096);
        let bytes = slab.lent_bytes(written, 4096).to_vec();
        slab.fill_lent(read, &bytes);
        slab.reclaim(written);
        slab.reclaim(read);
        assert_eq!(slab.bytes(read), [3; 4096]);
        slab.bytes_mut(written)[..4].copy_from_slice(b"mine");
        assert_eq!(&slab.bytes(written)[..5], b"mine\x03");
    }

    #[test]
    #[should_panic(expected = "is the kernel's")]
    fn lent_bytes_cannot_be_had() {
        let mut slab = Slab::new(1 << 20, 0).expect("memory");
        let buffer = slab.acquire(4096).expect("a block");
        slab.lend(buffer, 0, 4096);
        slab.bytes(buffer);
    }
}
