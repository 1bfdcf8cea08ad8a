//! Reads extents of the area in order, several chunks ahead: for recovery, cleaning and the scrub.

use std::collections::VecDeque;

use crate::ids::{BufferId, DriveOffset};
use crate::io::{Io, Purpose, ReadDone};
use crate::limits::BLOCK_BYTES;
use crate::seam::{DeviceError, Op};

/// A chunk under way.
#[derive(Debug)]
struct Chunk {
    index: u64,
    /// `None` until it is started.
    buffer: Option<BufferId>,
    at: u64,
    len: u32,
    attempts: u32,
    result: Option<Result<(), DeviceError>>,
}

/// So often a chunk is read whose read fails for another reason than its medium: who reads here takes what cannot be
/// read for lost.
const MAX_ATTEMPTS: u32 = 16;

/// A sequential reader over a list of extents of one shard's area.
#[derive(Debug)]
pub struct SequentialReader {
    purpose: Purpose,
    area_at: DriveOffset,
    chunk_bytes: u32,
    depth: usize,
    next_index: u64,
    extents: VecDeque<(u64, u64)>,
    chunks: VecDeque<Chunk>,
    /// Bytes asked of the drive so far.
    pub bytes_read: u64,
}

impl SequentialReader {
    /// A reader that keeps `depth` chunks of `chunk_bytes` under way.
    pub fn new(purpose: Purpose, area_at: DriveOffset, chunk_bytes: u32, depth: usize) -> SequentialReader {
        assert!(depth > 0 && chunk_bytes > 0);
        SequentialReader {
            purpose,
            area_at,
            chunk_bytes,
            depth,
            next_index: 0,
            extents: VecDeque::new(),
            chunks: VecDeque::new(),
            bytes_read: 0,
        }
    }

    /// One more extent to read: `len` bytes from byte `at` of the area, whole blocks.
    pub fn push(&mut self, at: u64, len: u64) {
        if len > 0 {
            self.extents.push_back((at, len));
        }
    }

    /// Keeps so many chunks under way from now on.
    pub fn set_depth(&mut self, depth: usize) {
        assert!(depth > 0);
        self.depth = depth;
    }

    /// Whether everything was read and taken.
    pub fn is_done(&self) -> bool {
        self.extents.is_empty() && self.chunks.is_empty()
    }

    /// Whether a read is under way.
    pub fn is_reading(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.buffer.is_some() && chunk.result.is_none())
    }

    /// Whether blocks of a chunk that failed are still to be read one by one.
    pub fn is_splitting(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.buffer.is_none())
    }

    /// Reads nothing more: what is under way is still to be taken.
    pub fn stop(&mut self) {
        self.extents.clear();
        self.chunks.retain(|chunk| chunk.buffer.is_some());
    }

    /// Starts reads while there is room and memory.
    pub fn pump(&mut self, io: &mut Io<'_>) {
        for chunk in self.chunks.iter_mut().filter(|chunk| chunk.buffer.is_none()).take(self.depth) {
            let Some(buffer) = io.buffers.acquire(chunk.len as usize) else { return };
            chunk.buffer = Some(buffer);
            self.bytes_read += u64::from(chunk.len);
            start(self.purpose, self.area_at, chunk, buffer, io);
        }
        while self.chunks.len() < self.depth {
            let Some((at, left)) = self.extents.front_mut() else { return };
            let len = (*left).min(u64::from(self.chunk_bytes)) as u32;
            let Some(buffer) = io.buffers.acquire(len as usize) else { return };
            let chunk = Chunk {
                index: self.next_index,
                buffer: Some(buffer),
                at: *at,
                len,
                attempts: 1,
                result: None,
            };
            start(self.purpose, self.area_at, &chunk, buffer, io);
            self.next_index += 1;
            self.bytes_read += u64::from(len);
            *at += u64::from(len);
            *left -= u64::from(len);
            if *left == 0 {
                self.extents.pop_front();
            }
            self.chunks.push_back(chunk);
        }
    }

    /// A read has ended. One that failed is read again block by block, for a bad sector does not speak
    /// for its neighbours: `pump` starts these reads.
    pub fn complete(&mut self, index: u64, result: Result<(), DeviceError>) {
        let chunk = self.chunks.iter_mut().find(|chunk| chunk.index == index);
        let chunk = chunk.expect("a completion of this reader is of one of its chunks");
        assert!(chunk.result.is_none(), "chunk {index} completed twice");
        chunk.result = Some(result);
    }

    /// The next chunk in order, if it has ended. The taker releases the buffer.
    pub fn take(&mut self, io: &mut Io<'_>) -> Option<ReadDone> {
        let front = self.chunks.front()?;
        let (result, buffer) = (front.result?, front.buffer?);
        if result.is_err_and(|error| !error.is_of_the_medium()) && front.attempts < MAX_ATTEMPTS {
            let front = self.chunks.front_mut()?;
            front.attempts += 1;
            front.result = None;
            start(self.purpose, self.area_at, front, buffer, io);
            return None;
        }
        let chunk = self.chunks.pop_front()?;
        if result.is_err() && chunk.len as usize > BLOCK_BYTES {
            io.buffers.release(buffer);
            self.split(&chunk);
            self.pump(io);
            return None;
        }
        Some(ReadDone { buffer, at: chunk.at, len: chunk.len, result })
    }

    fn split(&mut self, chunk: &Chunk) {
        let block = BLOCK_BYTES as u32;
        for i in (0..chunk.len / block).rev() {
            let at = chunk.at + u64::from(i * block);
            let index = self.next_index;
            self.next_index += 1;
            self.chunks.push_front(Chunk { index, buffer: None, at, len: block, attempts: 1, result: None });
        }
    }
}

fn start(purpose: Purpose, area_at: DriveOffset, chunk: &Chunk, buffer: BufferId, io: &mut Io<'_>) {
    io.start(Op::Read {
        token: purpose.token(chunk.index),
        buffer,
        at: DriveOffset(area_at.0 + chunk.at),
        len: chunk.len,
    });
}
