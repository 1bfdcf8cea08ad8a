//! Bytes on their way to a socket: small ones gathered in one vector, large ones where they lie.

use bytes::Bytes;

use super::slab::{Slab, SlabBuffer};

/// Most pieces in one send; the kernel takes 1,024.
pub const MAX_PIECES: usize = 512;

/// Where a run of bytes lies.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// In `gathered`.
    Gathered { start: u32, len: u32 },
    /// In shared memory.
    Shared(Bytes),
    /// In a buffer of the slab, which goes back to the slab when the send is over.
    Slab { buffer: SlabBuffer, start: u32, len: u32 },
}

/// The bytes of one vectored send, in order.
#[derive(Debug, Default)]
pub struct Outgoing {
    gathered: Vec<u8>,
    pieces: Vec<Piece>,
    len: usize,
}

impl Outgoing {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether another reply (two pieces) still fits.
    pub fn has_room(&self) -> bool {
        self.pieces.len() + 2 <= MAX_PIECES
    }

    /// Adds bytes by copying them.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        self.push_with(|gathered| gathered.extend_from_slice(bytes));
    }

    /// Adds what `write` appends to the vector it is given.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.gathered.len();
        write(&mut self.gathered);
        let added = self.gathered.len().checked_sub(before).expect("a writer only appends");
        self.len += added;
        if added == 0 {
            return;
        }
        match self.pieces.last_mut() {
            Some(Piece::Gathered { len, .. }) => *len += added as u32,
            _ => self.pieces.push(Piece::Gathered { start: before as u32, len: added as u32 }),
        }
    }

    /// Adds shared bytes without copying them.
    pub fn push_shared(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.pieces.push(Piece::Shared(bytes));
        }
    }

    /// Adds `len` bytes at `start` of a buffer, and the ownership of the buffer.
    pub fn push_buffer(&mut self, buffer: SlabBuffer, start: u32, len: u32) {
        self.len += len as usize;
        self.pieces.push(Piece::Slab { buffer, start, len });
    }

    /// Gives every buffer back to the slab and forgets the bytes; keeps the memory.
    pub fn clear(&mut self, slab: &mut Slab) {
        for piece in self.pieces.drain(..) {
            if let Piece::Slab { buffer, .. } = piece {
                slab.release(buffer);
            }
        }
        self.gathered.clear();
        self.len = 0;
    }

    /// Bytes of memory that the gathered bytes keep.
    pub fn capacity(&self) -> usize {
        self.gathered.capacity()
    }

    /// Hands the slab's buffers to the kernel.
    pub(super) fn lend(&self, slab: &mut Slab) {
        for piece in &self.pieces {
            if let Piece::Slab { buffer, start, len } = piece {
                slab.lend(*buffer, *start as usize, *len as usize);
            }
        }
    }

    /// Takes the slab's buffers back from the kernel.
    pub(super) fn reclaim(&self, slab: &mut Slab) {
        for piece in &self.pieces {
            if let Piece::Slab { buffer, .. } = piece {
                slab.reclaim(*buffer);
            }
        }
    }

    /// All bytes, in order. Buffers must be lent, and to no kernel.
    pub(super) fn lent_bytes(&self, slab: &Slab) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len);
        for piece in &self.pieces {
            match piece {
                Piece::Gathered { start, len } => {
                    all.extend_from_slice(&self.gathered[*start as usize..(*start + *len) as usize]);
                }
                Piece::Shared(bytes) => all.extend_from_slice(bytes),
                Piece::Slab { buffer, start, len } => {
                    let whole = slab.lent_bytes(*buffer, (*start + *len) as usize);
                    all.extend_from_slice(&whole[*start as usize..]);
                }
            }
        }
        all
    }

    /// Fills `vectors` with what is left after the first `done` bytes. Buffers must be lent.
    pub(super) fn vectors(&self, slab: &Slab, done: usize, vectors: &mut Vec<libc::iovec>) {
        vectors.clear();
        let mut skip = done;
        for piece in &self.pieces {
            let (start, len) = match piece {
                Piece::Gathered { start, len } => {
                    let bytes = &self.gathered[*start as usize..(*start + *len) as usize];
                    (bytes.as_ptr(), bytes.len())
                }
                Piece::Shared(bytes) => (bytes.as_ptr(), bytes.len()),
                Piece::Slab { buffer, start, len } => {
                    let address = slab.lent_address(*buffer, *start as usize, *len as usize);
                    (address.cast_const(), *len as usize)
                }
            };
            let skipped = skip.min(len);
            skip -= skipped;
            if skipped < len {
                let base = start.wrapping_add(skipped).cast_mut().cast();
                vectors.push(libc::iovec { iov_base: base, iov_len: len - skipped });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lens(outgoing: &Outgoing, slab: &Slab, done: usize) -> Vec<usize> {
        let mut vectors = Vec::new();
        outgoing.vectors(slab, done, &mut vectors);
        vectors.iter().map(|vector| vector.iov_len).collect()
    }

    #[test]
    fn neighbouring_copies_are_one_vector_and_done_bytes_are_skipped() {
        let mut slab = Slab::new(1 << 20, 0).expect("memory");
        let buffer = slab.acquire(4096).expect("a block");
        let mut outgoing = Outgoing::default();
        outgoing.push_copy(b"head");
        outgoing.push_copy(b"more");
        outgoing.push_buffer(buffer, 100, 1000);
        outgoing.push_copy(b"tail");
        outgoing.push_shared(Bytes::from_static(b"shared"));
        assert_eq!(outgoing.len(), 8 + 1000 + 4 + 6);
        outgoing.lend(&mut slab);
        assert_eq!(lens(&outgoing, &slab, 0), [8, 1000, 4, 6]);
        assert_eq!(lens(&outgoing, &slab, 8), [1000, 4, 6]);
        assert_eq!(lens(&outgoing, &slab, 508), [500, 4, 6]);
        assert_eq!(lens(&outgoing, &slab, outgoing.len()), [0usize; 0]);
        outgoing.reclaim(&mut slab);
        outgoing.clear(&mut slab);
        assert!(outgoing.is_empty());
        assert_eq!(slab.free_bytes(), slab.total_bytes());
    }
}
