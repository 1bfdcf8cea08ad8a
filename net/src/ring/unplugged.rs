//! The memory of a ring with no kernel behind it: for a simulated drive and simulated sockets, which keep the same
//! rules of who may touch a buffer.

use std::io;

use super::chunks::{Chunk, Chunks};
use super::outgoing::Outgoing;
use super::slab::{Slab, SlabBuffer};

/// Slab and receive chunks that only this process uses.
#[derive(Debug)]
pub struct UnpluggedMemory {
    slab: Slab,
    chunks: Chunks,
}

impl UnpluggedMemory {
    /// A slab of `slab_bytes`, and `chunks` (a power of two) of `chunk_bytes`.
    pub fn new(slab_bytes: usize, chunks: u16, chunk_bytes: u32) -> io::Result<UnpluggedMemory> {
        Ok(UnpluggedMemory {
            slab: Slab::new(slab_bytes, 0)?,
            chunks: Chunks::unregistered(chunks, chunk_bytes)?,
        })
    }

    /// The slab.
    pub fn slab(&self) -> &Slab {
        &self.slab
    }

    /// The slab, to take buffers from and to give them back to.
    pub fn slab_mut(&mut self) -> &mut Slab {
        &mut self.slab
    }

    /// The slab and the receive chunks, side by side.
    pub fn parts(&mut self) -> (&mut Slab, &Chunks) {
        (&mut self.slab, &self.chunks)
    }

    /// Puts as many bytes as fit into a free chunk, as a kernel would that received them; nothing where none is free.
    pub fn arrive(&mut self, bytes: &[u8]) -> Option<(Chunk, usize)> {
        let chunk = self.chunks.fill(bytes)?;
        let taken = chunk.len();
        Some((chunk, taken))
    }

    /// Gives a receive chunk back.
    pub fn recycle(&mut self, chunk: Chunk) {
        self.chunks.recycle(chunk);
    }

    /// Hands a buffer to the simulated device: nobody else gets at its bytes until it is taken back.
    pub fn lend(&mut self, buffer: SlabBuffer, len: usize) {
        self.slab.lend(buffer, 0, len);
    }

    /// What the device sees of a lent buffer.
    pub fn lent_bytes(&self, buffer: SlabBuffer, len: usize) -> &[u8] {
        self.slab.lent_bytes(buffer, len)
    }

    /// The device writes to a lent buffer.
    pub fn fill_lent(&mut self, buffer: SlabBuffer, bytes: &[u8]) {
        self.slab.fill_lent(buffer, bytes);
    }

    /// The device is done with a buffer.
    pub fn reclaim(&mut self, buffer: SlabBuffer) {
        self.slab.reclaim(buffer);
    }

    /// A send begins: its buffers are the device's. Gives all its bytes, in order.
    pub fn begin_send(&mut self, outgoing: &Outgoing) -> Vec<u8> {
        outgoing.lend(&mut self.slab);
        outgoing.lent_bytes(&self.slab)
    }

    /// A send is over: its buffers go back to the slab, and it is empty.
    pub fn end_send(&mut self, outgoing: &mut Outgoing) {
        outgoing.reclaim(&mut self.slab);
        outgoing.clear(&mut self.slab);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_device_writes_is_read_when_it_has_given_the_buffer_back() {
        let mut memory = UnpluggedMemory::new(1 << 20, 2, 4096).expect("memory");
        let buffer = memory.slab_mut().acquire(8192).expect("a buffer");
        memory.slab_mut().bytes_mut(buffer)[..3].copy_from_slice(b"old");
        memory.lend(buffer, 8192);
        assert_eq!(&memory.lent_bytes(buffer, 3), b"old");
        memory.fill_lent(buffer, b"new");
        memory.reclaim(buffer);
        assert_eq!(&memory.slab().bytes(buffer)[..3], b"new");
    }

    #[test]
    #[should_panic(expected = "is the kernel's")]
    fn lent_bytes_are_the_devices() {
        let mut memory = UnpluggedMemory::new(1 << 20, 2, 4096).expect("memory");
        let buffer = memory.slab_mut().acquire(4096).expect("a buffer");
        memory.lend(buffer, 4096);
        memory.slab().bytes(buffer);
    }

    #[test]
    fn bytes_arrive_in_chunks_while_there_are_any() {
        let mut memory = UnpluggedMemory::new(1 << 20, 2, 4096).expect("memory");
        let long = vec![7; 5000];
        let (first, taken) = memory.arrive(&long).expect("a chunk");
        assert_eq!(taken, 4096);
        let (second, taken) = memory.arrive(&long[4096..]).expect("a chunk");
        assert_eq!(taken, 904);
        assert!(memory.arrive(b"more").is_none());
        let (_, chunks) = memory.parts();
        assert_eq!((chunks.bytes(&first).len(), chunks.bytes(&second)), (4096, &long[4096..]));
        memory.recycle(first);
        assert_eq!(memory.arrive(b"more").map(|(_, taken)| taken), Some(4));
        memory.recycle(second);
    }

    #[test]
    fn a_send_is_all_its_pieces_in_order() {
        let mut memory = UnpluggedMemory::new(1 << 20, 2, 4096).expect("memory");
        let buffer = memory.slab_mut().acquire(4096).expect("a buffer");
        memory.slab_mut().bytes_mut(buffer)[100..105].copy_from_slice(b"value");
        let mut outgoing = Outgoing::default();
        outgoing.push_copy(b"head ");
        outgoing.push_buffer(buffer, 100, 5);
        outgoing.push_shared(bytes::Bytes::from_static(b" shared"));
        assert_eq!(memory.begin_send(&outgoing), b"head value shared");
        memory.end_send(&mut outgoing);
        assert!(outgoing.is_empty());
        assert_eq!(memory.slab().free_bytes(), memory.slab().total_bytes());
    }
}
